//! A network interface as a tap, by XDP: a program in the driver takes every packet and notes when it came.
//!
//! ```text
//!   driver --> program: note, stamps --> socket of the queue, packet memory --> XdpTap::read --> Batch
//! ```
//!
//! * `program.rs` is on the interface, `socket.rs` is where packets arrive, `note.rs` says whose stamp a packet has
//!
//! The interface is a sink: nothing else on this machine gets a packet of it while it is listened to. One reader reads
//! all of its queues, of the packets that wait always the one that the program saw first. So packets of different queues
//! are in disorder by no more than a driver takes for a burst, however late they are read.
//!
//! Invariant: frames of the program = frames handed over + frames stamped before the beginning + those for which
//! there was no socket or no room, when it is detached and the sockets are empty.

mod note;
mod program;
mod socket;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use dataplane::xdp::object::occupant;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use self::note::{NOTE_BYTES, NoNic, Note, stamp_of, tai_ahead_ns};
use self::program::Program;
use self::socket::{HEADROOM_BYTES, ReceiveSocket};
use super::interface::{Interface, Switch};
use super::listener::{
    Listener, Prepared, Read, TapError, TapNotes, TapSettings, WAIT_MS, begin_stamping, find,
    find_again, is_before, now_ns, push, quiet_until_ns,
};
use super::offloads::Offloads;
use super::packet_ring::{BLOCK_BYTES, receive_all};
use super::timestamping::Wanted;
use super::{Batch, Frame, Stamp};

/// Bytes of a frame of packet memory; the smaller one where the interface's packets fit.
const FRAME_BYTES: [usize; 2] = [2048, 4096];
/// Fewest frames of a queue.
const FRAMES_MIN: usize = 64;
/// Most frames of a read: as many as a block of a packet socket's ring has of the smallest ones.
const READ_FRAMES: usize = 2048;
/// A reader that is woken for fewer packets waits for a little, so that the matcher is not woken for each.
const BURST: u32 = 64;
const GATHER: Duration = Duration::from_millis(1);

/// A queue stays busy for a moment after its last socket was closed: how often to try again, how long apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What is only known of a tap by XDP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpNotes {
    /// Whether the driver writes into packet memory itself.
    pub zero_copy: bool,
    /// Receive queues of the interface, all of them read.
    pub queues: u32,
    /// Whether the program is bound to the interface and asks its driver for the NIC's stamp.
    pub asks_driver: bool,
    /// Frames for which the driver answered with a stamp of zero.
    pub nic_zero: u64,
    /// Frames for which the driver answered with an error.
    pub nic_refused: u64,
    /// The latest of these errors (errno).
    pub nic_error: Option<i32>,
    /// Frames for which the driver answered with a stamp although the NIC was not told to stamp: whose it is nobody
    /// knows, and it was not used.
    pub nic_unknown: u64,
    /// Frames dropped because no frame of packet memory was free, or for reasons that have no counter
    /// (`rx_dropped` of the kernel).
    pub rx_dropped: u64,
    /// Frames dropped because the receive ring was full (`rx_ring_full`).
    pub rx_ring_full: u64,
    /// Times that no frame of packet memory was free (`rx_fill_ring_empty_descs`).
    pub fill_ring_empty: u64,
    /// Frames of a queue without a socket, left to the kernel.
    pub no_socket: u64,
}

/// An interface whose packets an XDP program takes.
#[derive(Debug)]
pub struct XdpTap {
    // Before the sockets: a program that is gone sends nothing to a socket that is closed.
    program: Program,
    sockets: Vec<ReceiveSocket>,
    interface: Interface,
    wire_bytes_max: u32,
    snap_bytes: usize,
    memory_bytes: usize,
    /// Whether the NIC was told to stamp.
    nic_stamps: bool,
    begin_ns: u64,
    /// When the program saw the next packet of each queue.
    first: Vec<Option<u64>>,
    /// The latest stamp, and when it was read.
    latest: Option<(u64, Instant)>,
    up: bool,
    notes: TapNotes,
    xdp: XdpNotes,
}

impl XdpTap {
    /// Makes an interface a tap that does not listen yet.
    ///
    /// # Errors
    ///
    /// As [`open`](super::listener::open), and when its packets do not fit packet memory.
    pub fn open(name: &str, settings: &TapSettings) -> Result<(XdpTap, Prepared), TapError> {
        let fail = |what: String| TapError { interface: name.to_owned(), what };
        let refused = |what: &'static str| move |error: io::Error| fail(refusal(what, &error));
        let (interface, wire_bytes_max) = find(name)?;
        let frame_bytes = frame_bytes(wire_bytes_max).map_err(fail)?;
        let queues = queues(name);
        let stamping = begin_stamping(name, settings.stamps)?;
        let ask = settings.stamps != Wanted::Software;
        let program = Program::load(interface.index(), queues, ask);
        let program = program.map_err(refused("its XDP program cannot be loaded"))?;
        let out_of_reach = program.plain().map(|reason| {
            format!("the kernel loads no XDP program that asks the driver for stamps: {reason}")
        });
        if let (Wanted::Hardware, Some(reason)) = (settings.stamps, &out_of_reach) {
            return Err(fail(format!("{reason}; use --source packet, or let --stamps be `best`")));
        }
        let offloads = match settings.keep_offloads {
            true => None,
            false => Some(Offloads::switch_off(find_again(name)?, &Switch::ALL)),
        };
        let frames = frames(settings.ring_bytes, queues, frame_bytes);
        let opened = open_sockets(&interface, queues, frames, frame_bytes);
        let (sockets, zero_copy) =
            opened.map_err(refused("an AF_XDP socket with packet memory cannot be had"))?;
        let register =
            |(queue, socket): (u32, &ReceiveSocket)| program.register(queue, socket.as_fd());
        let registered = (0..).zip(&sockets).try_for_each(register);
        registered.map_err(refused("a socket cannot be given to the XDP program"))?;
        let promiscuous = receive_all(interface.index())
            .map_err(refused("it cannot be told to receive what is addressed to others"))?;
        let asks_driver = program.plain().is_none();
        let xdp = XdpNotes { zero_copy, queues, asks_driver, ..XdpNotes::default() };
        let tap = XdpTap {
            nic_stamps: stamping.hardware().is_ok() && out_of_reach.is_none(),
            memory_bytes: sockets.len() * frames as usize * frame_bytes,
            snap_bytes: settings.snap_bytes as usize,
            program,
            sockets,
            interface,
            wire_bytes_max,
            begin_ns: 0,
            first: Vec::with_capacity(queues as usize),
            latest: None,
            up: true,
            notes: TapNotes::default(),
            xdp,
        };
        let promiscuous = Some(promiscuous);
        Ok((tap, Prepared { stamping, out_of_reach, offloads, promiscuous }))
    }

    /// Fills the batch with what there is.
    fn take(&mut self, batch: &mut Batch) -> bool {
        let tai_ahead_ns = tai_ahead_ns();
        let (mut left, mut bytes) = (READ_FRAMES, BLOCK_BYTES);
        self.first.clear();
        self.first.extend(self.sockets.iter().map(seen_ns));
        while left > 0 && bytes > 0 {
            let Some(queue) = earliest(&self.first) else { break };
            let socket = &mut self.sockets[queue];
            let Some((note, packet)) = socket.next() else { break };
            let kept = &packet[..packet.len().min(self.snap_bytes)];
            (left, bytes) = (left - 1, bytes.saturating_sub(kept.len()));
            let packet = Packet {
                note: Note::read(note),
                bytes: kept,
                wire_bytes: packet.len() as u32,
                oversize: packet.len() as u32 > self.wire_bytes_max,
            };
            let (notes, xdp) = (&mut self.notes, &mut self.xdp);
            packet.push(batch, notes, xdp, self.nic_stamps, tai_ahead_ns, self.begin_ns);
            socket.pass();
            self.first[queue] = seen_ns(socket);
        }
        self.sockets.iter_mut().for_each(ReceiveSocket::give_back);
        if let Some(latest_ns) = batch.frames().map(|frame| frame.time_ns).max() {
            self.latest = Some((latest_ns, Instant::now()));
        }
        // Of stamps, the order of the tap is all that is known: the frames themselves are the promise.
        batch.set_complete_until_ns(0);
        left < READ_FRAMES
    }

    /// Waits for packets; `false` when the interface is gone.
    fn wait(&mut self) -> bool {
        let mut wanted: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut wanted, PollTimeout::from(WAIT_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => panic!("poll on sockets and a timeout: {errno}"),
        }
        let waiting: u32 = self.sockets.iter().map(ReceiveSocket::waiting).sum();
        if (1..BURST).contains(&waiting) {
            std::thread::sleep(GATHER);
        }
        waiting > 0 || self.look_at_interface()
    }

    /// Whether it is still there; counts when it goes down.
    fn look_at_interface(&mut self) -> bool {
        if !self.interface.exists() {
            return false;
        }
        let up = self.interface.is_up().unwrap_or(self.up);
        self.notes.downs += u64::from(self.up && !up);
        self.up = up;
        true
    }
}

impl Listener for XdpTap {
    fn listen(&mut self) -> Result<(), TapError> {
        let attached = self.program.attach();
        attached.map_err(|error| TapError {
            interface: self.interface.name().to_owned(),
            what: match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => format!(
                    "another XDP program is on it{}: stop who holds it (`bpftool link`), or ip link set dev {} xdp \
                     off; or use --source packet",
                    occupant(self.interface.index()),
                    self.interface.name(),
                ),
                _ => refusal("its driver takes no XDP program", &error),
            },
        })
    }

    fn begin_at(&mut self, time_ns: u64) {
        self.begin_ns = time_ns;
    }

    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn ring_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// A read takes a frame at least.
    fn reads_max(&self) -> usize {
        self.memory_bytes / FRAME_BYTES[0]
    }

    fn read(&mut self, batch: &mut Batch) -> Read {
        batch.clear();
        if self.take(batch) {
            return Read::Frames;
        }
        let gone = !self.wait();
        if self.take(batch) {
            return Read::Frames;
        }
        batch.set_complete_until_ns(if gone { u64::MAX } else { quiet_until_ns(self.latest) });
        if gone { Read::Gone } else { Read::Quiet }
    }

    fn hang_up(&mut self) {
        self.program.detach();
    }

    fn notes(&mut self) -> TapNotes {
        if let Ok([frames, no_socket]) = self.program.counts() {
            (self.notes.kernel_frames, self.xdp.no_socket) = (frames, no_socket);
        }
        let counts: Vec<_> =
            self.sockets.iter().filter_map(|socket| socket.counts().ok()).collect();
        self.xdp.rx_dropped = counts.iter().map(|counts| counts.dropped).sum();
        self.xdp.rx_ring_full = counts.iter().map(|counts| counts.ring_full).sum();
        self.xdp.fill_ring_empty = counts.iter().map(|counts| counts.no_frame).sum();
        self.notes.drops = self.xdp.rx_dropped + self.xdp.rx_ring_full + self.xdp.no_socket;
        self.notes.ring_full = self.xdp.rx_ring_full + self.xdp.fill_ring_empty;
        TapNotes { xdp: Some(self.xdp), ..self.notes }
    }
}

/// A packet as it was found in packet memory.
struct Packet<'p> {
    note: Option<Note>,
    bytes: &'p [u8],
    wire_bytes: u32,
    oversize: bool,
}

impl Packet<'_> {
    #[inline]
    fn push(
        &self,
        batch: &mut Batch,
        notes: &mut TapNotes,
        xdp: &mut XdpNotes,
        nic_stamps: bool,
        tai_ahead_ns: u64,
        begin_ns: u64,
    ) {
        let (time_ns, stamp) = match &self.note {
            Some(note) => {
                let (time_ns, stamp, why) = stamp_of(note, nic_stamps, tai_ahead_ns);
                match why {
                    Some(NoNic::Zero) => xdp.nic_zero += 1,
                    Some(NoNic::Unknown) => xdp.nic_unknown += 1,
                    Some(NoNic::Refused(error)) if xdp.asks_driver => {
                        xdp.nic_refused += 1;
                        xdp.nic_error = Some(error);
                    }
                    Some(NoNic::Refused(_)) | None => {}
                }
                (time_ns, stamp)
            }
            None => {
                notes.without_stamp += 1;
                (now_ns(), Stamp::Software)
            }
        };
        if is_before(begin_ns, time_ns, stamp) {
            notes.before_start += 1;
            return;
        }
        notes.oversize += u64::from(self.oversize);
        let taken_off = self.note.and_then(|note| note.vlan);
        let frame = Frame { time_ns, stamp, wire_bytes: self.wire_bytes, bytes: self.bytes };
        push(batch, notes, frame, taken_off);
    }
}

/// When the program saw the next packet of a queue; one without a note is next of all.
#[inline]
fn seen_ns(socket: &ReceiveSocket) -> Option<u64> {
    socket.next().map(|(note, _)| Note::read(note).map_or(0, |note| note.program_ns))
}

/// The queue with the packet that was seen first.
#[inline]
fn earliest(first: &[Option<u64>]) -> Option<usize> {
    let waiting = first.iter().enumerate().filter_map(|(queue, ns)| Some((queue, (*ns)?)));
    waiting.min_by_key(|&(_, ns)| ns).map(|(queue, _)| queue)
}

/// A socket on each queue; zero-copy on all of them, or on none.
fn open_sockets(
    interface: &Interface,
    queues: u32,
    frames: u32,
    frame_bytes: usize,
) -> io::Result<(Vec<ReceiveSocket>, bool)> {
    let open = |zero_copy: bool| {
        (0..queues)
            .map(|queue| {
                let socket = ReceiveSocket::new(frames, frame_bytes)?;
                bind(&socket, interface.index(), queue, zero_copy)?;
                Ok(socket)
            })
            .collect::<io::Result<Vec<_>>>()
    };
    match open(true) {
        Ok(sockets) => Ok((sockets, true)),
        Err(_) => Ok((open(false)?, false)),
    }
}

/// Again and again while the queue is still busy with a former socket.
fn bind(socket: &ReceiveSocket, interface: u32, queue: u32, zero_copy: bool) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match socket.bind(interface, queue, zero_copy) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < BUSY_TRIES => {
                std::thread::sleep(BUSY_PAUSE);
            }
            bound => return bound,
        }
    }
}

/// What a frame of packet memory must have for the longest packet of the interface.
fn frame_bytes(wire_bytes_max: u32) -> Result<usize, String> {
    let fits = |bytes: &usize| HEADROOM_BYTES + wire_bytes_max as usize <= *bytes;
    FRAME_BYTES.into_iter().find(fits).ok_or_else(|| {
        let mtu_max = FRAME_BYTES[1] - HEADROOM_BYTES - super::listener::FRAMING_BYTES as usize;
        format!("its MTU is too large for AF_XDP; lower it to {mtu_max}, or use --source packet")
    })
}

/// Frames of each queue: a power of two, as rings are.
fn frames(ring_bytes: usize, queues: u32, frame_bytes: usize) -> u32 {
    let frames = (ring_bytes / frame_bytes / queues as usize).max(FRAMES_MIN);
    1 << frames.ilog2()
}

fn queues(name: &str) -> u32 {
    dataplane::xdp::Interface::find(name).map_or(1, |interface| interface.queues)
}

fn refusal(what: &str, error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run as root, or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK"
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "grant CAP_IPC_LOCK, let more memory be locked (ulimit -l), or lower --ring-mib"
        }
        Some(libc::EBUSY) => {
            "another AF_XDP socket has a queue of it (ss --xdp): stop its process, or use --source packet"
        }
        _ => "--source packet works with every driver",
    };
    format!("{what}: {error}; {remedy}")
}

const _: () = assert!(NOTE_BYTES < HEADROOM_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_large_as_the_longest_packet_needs_and_too_long_ones_are_refused() {
        assert_eq!(frame_bytes(1500 + 22), Ok(2048));
        assert_eq!(frame_bytes(1770 + 22), Ok(2048));
        assert_eq!(frame_bytes(1771 + 22), Ok(4096));
        assert_eq!(frame_bytes(3818 + 22), Ok(4096));
        let refused = frame_bytes(9000 + 22).expect_err("it does not fit a page");
        assert!(refused.contains("lower it to 3818"), "{refused}");
    }

    #[test]
    fn packet_memory_is_shared_by_the_queues_and_never_more_than_was_asked_for() {
        assert_eq!(frames(64 << 20, 1, 2048), 32768);
        assert_eq!(frames(64 << 20, 3, 2048), 8192);
        assert_eq!(frames(64 << 20, 4, 4096), 4096);
        assert_eq!(frames(1 << 20, 64, 2048), 64, "the least");
    }

    #[test]
    fn the_queue_whose_packet_was_seen_first_is_read_first() {
        assert_eq!(earliest(&[Some(9), None, Some(7), Some(8)]), Some(2));
        assert_eq!(earliest(&[Some(7), Some(7)]), Some(0), "at the same time, by number");
        assert_eq!(earliest(&[None, None]), None);
    }

    /// One packet, pushed by a tap whose NIC was told to stamp, from `begin_ns` on.
    fn pushed(note: Option<Note>, begin_ns: u64) -> (Batch, TapNotes, XdpNotes) {
        let (mut batch, mut notes) = (Batch::new(), TapNotes::default());
        let mut xdp = XdpNotes { asks_driver: true, ..XdpNotes::default() };
        let packet = Packet { note, bytes: &[0; 60], wire_bytes: 60, oversize: false };
        packet.push(&mut batch, &mut notes, &mut xdp, true, 0, begin_ns);
        (batch, notes, xdp)
    }

    #[test]
    fn a_packet_without_a_note_gets_the_time_of_reading_and_is_software() {
        let before_ns = now_ns();
        let (batch, notes, _) = pushed(None, 0);
        let frame = batch.frames().next().expect("it was pushed");
        assert_eq!((frame.stamp, notes.without_stamp), (Stamp::Software, 1));
        assert!(frame.time_ns >= before_ns);
    }

    #[test]
    fn a_packet_that_the_nic_did_not_stamp_has_the_programs_time_and_is_counted() {
        let note = |nic| Some(Note { nic, program_ns: 7, vlan: None });
        let (batch, _, zero) = pushed(note(Ok(0)), 0);
        let frame = batch.frames().next().expect("it was pushed");
        assert_eq!((frame.time_ns, frame.stamp, zero.nic_zero), (7, Stamp::Driver, 1));
        let (_, _, refused) = pushed(note(Err(libc::ENODATA)), 0);
        assert_eq!((refused.nic_refused, refused.nic_error), (1, Some(libc::ENODATA)));
        let (batch, _, stamped) = pushed(note(Ok(5)), 0);
        let frame = batch.frames().next().expect("it was pushed");
        assert_eq!((frame.time_ns, frame.stamp), (5, Stamp::Hardware));
        assert_eq!(stamped, XdpNotes { asks_driver: true, ..XdpNotes::default() });
    }

    #[test]
    fn packets_of_before_the_beginning_are_left_out_unless_the_nics_clock_stamped_them() {
        let note = |nic| Some(Note { nic, program_ns: 7, vlan: None });
        let (batch, notes, _) = pushed(note(Ok(0)), 8);
        assert_eq!((batch.len(), notes.before_start), (0, 1));
        let (batch, notes, _) = pushed(note(Ok(5)), 8);
        assert_eq!((batch.len(), notes.before_start), (1, 0));
    }
}
