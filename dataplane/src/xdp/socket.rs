//! A port: an AF_XDP socket on one queue of one interface.
//!
//! **Invariants.**
//!
//! - `receiving` frames are in the fill and receive rings, never more than a ring has entries.
//! - `transmitting` frames are in the transmit and completion rings, never more than a ring has
//!   entries; so every completion has room. A frame completes after the call, or the driver's
//!   round, that read its transmit entry, so transmitting never fails either.
//! - While frames wait in the transmit ring and the kernel wants to be called for them, `maintain`
//!   calls it: no frame waits for ever.
//!
//! | ring       | producer              | consumer   | wake-up                            |
//! |------------|-----------------------|------------|------------------------------------|
//! | fill       | `receive`, `maintain` | kernel     | `recv`, when its flag asks         |
//! | receive    | kernel                | `receive`  | `wait` sleeps until it has a frame |
//! | transmit   | `transmit`            | kernel     | `send`, when its flag asks         |
//! | completion | kernel                | `maintain` | none: looked at every round        |

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::time::TimeSpec;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::error::XdpError;
use super::ledger::Received;
use super::options;
use super::program::{Attachment, Mode};
use super::settings::{CopyMode, Settings};
use super::statistics::SocketStatistics;
use super::umem::{UmemId, XdpFrame, XdpFrames, cause_of};
use crate::batch::PortId;
use crate::port::{BURST_MAX, Burst, FrameAccount, Port};

/// Longest sleep while the rings are not at rest: nothing wakes a sleeper when transmissions
/// complete or the fill ring has room.
const RESTLESS_WAIT_MAX: Duration = Duration::from_millis(1);

/// A queue stays busy for a moment after its last socket was closed: how often to try again, how
/// long apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// One queue of one interface, as a [`Port`].
pub struct XdpPort {
    port: PortId,
    umem: UmemId,
    interface: String,
    queue: u32,
    zero_copy: bool,
    busy_poll: bool,
    ring_entries: usize,
    receive_ring: RxQueue,
    fill_ring: FillQueue,
    transmit_ring: TxQueue,
    completion_ring: CompQueue,
    /// Frames in the fill and receive rings.
    receiving: usize,
    /// Frames in the transmit and completion rings.
    transmitting: usize,
    /// Our own counters; the kernel's are asked for.
    counted: SocketStatistics,
    /// Descriptors on their way between a ring and the tokens.
    descriptors: Box<[FrameDesc; BURST_MAX]>,
}

/// Opens queue `queue` of both ports for one worker, with packet memory that they share. What the
/// queue receives goes to the worker from the moment this returns.
///
/// # Errors
///
/// When the settings are out of range or do not fit the attachments, or the kernel refuses.
pub fn open(
    lan: &Attachment,
    wan: &Attachment,
    queue: u32,
    settings: &Settings,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    settings.check()?;
    for attachment in [lan, wan] {
        check_attachment(attachment, queue, settings)?;
    }
    let sides = [lan, wan];
    let (ports, frames) = match settings.copy {
        CopyMode::Copy => open_sides(sides, queue, settings, BindFlags::XDP_COPY)?,
        CopyMode::ZeroCopy => open_sides(sides, queue, settings, BindFlags::XDP_ZEROCOPY)?,
        CopyMode::Auto => open_auto(sides, queue, settings)?,
    };
    for (attachment, port) in sides.into_iter().zip(&ports) {
        attachment
            .register(queue, port.socket())
            .map_err(|cause| port.error("adding the socket to the XDP program's map", cause))?;
        tracing::info!(interface = port.interface, queue, mode = port.mode(), "port open");
    }
    Ok((ports, frames))
}

fn check_attachment(
    attachment: &Attachment,
    queue: u32,
    settings: &Settings,
) -> Result<(), XdpError> {
    if queue >= attachment.queues() {
        return Err(XdpError::Queue {
            interface: attachment.interface().to_owned(),
            queue,
            queues: attachment.queues(),
        });
    }
    if attachment.frame_bytes() != settings.frame_bytes {
        return Err(XdpError::FrameBytes {
            interface: attachment.interface().to_owned(),
            attached: attachment.frame_bytes(),
            opened: settings.frame_bytes,
        });
    }
    Ok(())
}

/// Sockets that share packet memory run in the same mode, so both ports can do zero-copy or none
/// does.
fn open_auto(
    sides: [&Attachment; 2],
    queue: u32,
    settings: &Settings,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    let generic = sides.into_iter().find(|side| side.mode() == Mode::Generic);
    let reason = if let Some(generic) = generic {
        format!("{}: generic XDP always copies", generic.interface())
    } else {
        match open_sides(sides, queue, settings, BindFlags::XDP_ZEROCOPY) {
            Ok(opened) => return Ok(opened),
            Err(refusal) => refusal.to_string(),
        }
    };
    tracing::warn!(queue, reason, "zero-copy is not possible here: packets are copied, slower");
    open_sides(sides, queue, settings, BindFlags::XDP_COPY)
}

fn open_sides(
    [lan, wan]: [&Attachment; 2],
    queue: u32,
    settings: &Settings,
    mode: BindFlags,
) -> Result<([XdpPort; 2], XdpFrames), XdpError> {
    let mut frames = XdpFrames::new(settings, &subject(lan, queue))?;
    let lan = XdpPort::open(PortId::Lan, lan, queue, settings, mode, &mut frames)?;
    let wan = XdpPort::open(PortId::Wan, wan, queue, settings, mode, &mut frames)?;
    Ok(([lan, wan], frames))
}

fn subject(attachment: &Attachment, queue: u32) -> String {
    format!("{}, queue {queue}", attachment.interface())
}

impl XdpPort {
    fn open(
        port: PortId,
        attachment: &Attachment,
        queue: u32,
        settings: &Settings,
        mode: BindFlags,
        frames: &mut XdpFrames,
    ) -> Result<XdpPort, XdpError> {
        let subject = subject(attachment, queue);
        let fail = |operation: String, cause| XdpError::kernel(&subject, operation, cause);
        let zero_copy = mode.contains(BindFlags::XDP_ZEROCOPY);
        let asked = if zero_copy { "zero-copy" } else { "copy" };

        let rings = bind(attachment.interface(), queue, settings, mode, frames.umem())
            .map_err(|cause| fail(format!("opening an AF_XDP socket ({asked})"), cause))?;
        let (transmit_ring, receive_ring, fill_ring, completion_ring) = rings;
        let socket = socket_of(&receive_ring);
        let zero_copy = options::zero_copy(socket)
            .map_err(|cause| fail("asking for the socket's mode".to_owned(), cause))?;
        close_on_exec(socket)
            .map_err(|cause| fail("keeping the socket to us".to_owned(), cause))?;
        set_options(socket, settings);

        let mut opened = XdpPort {
            port,
            umem: frames.id(),
            interface: attachment.interface().to_owned(),
            queue,
            zero_copy,
            busy_poll: settings.busy_poll_budget > 0,
            ring_entries: settings.ring_entries as usize,
            receive_ring,
            fill_ring,
            transmit_ring,
            completion_ring,
            receiving: 0,
            transmitting: 0,
            counted: SocketStatistics::default(),
            descriptors: Box::new([FrameDesc::default(); BURST_MAX]),
        };
        opened.fill(frames);
        Ok(opened)
    }

    /// Which side.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The queue's number.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// How packets get between driver and packet memory: "zero-copy" or "copy", as the kernel says.
    pub fn mode(&self) -> &'static str {
        if self.zero_copy { "zero-copy" } else { "copy" }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        socket_of(&self.receive_ring)
    }

    fn error(&self, operation: &str, cause: io::Error) -> XdpError {
        XdpError::kernel(format!("{}, queue {}", self.interface, self.queue), operation, cause)
    }

    /// Gives the kernel frames to receive into, until a ring of them is receiving.
    fn fill(&mut self, frames: &mut XdpFrames) {
        while self.receiving < self.ring_entries {
            let wanted = (self.ring_entries - self.receiving).min(BURST_MAX);
            // The kernel hands over what it received before it says which entries it has read, so
            // the ring may look full for a moment: the next round fills the rest.
            let room = (self.fill_ring.nb_free(wanted as u32) as usize).min(wanted);
            let mut given = 0;
            for descriptor in &mut self.descriptors[..room] {
                let Some(free) = frames.fill(self.port) else { break };
                *descriptor = free;
                given += 1;
            }
            // SAFETY: `frames` has just noted these free frames of this socket's UMEM as receiving,
            // so there is no token for them and none is in another ring.
            let produced = unsafe { self.fill_ring.produce(&self.descriptors[..given]) };
            assert_eq!(produced, given, "the fill ring had room");
            self.receiving += given;
            self.counted.frames_short += u64::from(given < room);
            if given < wanted {
                return;
            }
        }
    }

    /// Takes back the frames that were sent.
    fn reclaim(&mut self, frames: &mut XdpFrames) {
        while self.transmitting > 0 {
            // SAFETY: this completion ring belongs to the socket, whose UMEM is that of `frames`.
            let taken = unsafe { self.completion_ring.consume(&mut self.descriptors[..]) };
            for descriptor in &self.descriptors[..taken] {
                if frames.completed(self.port, *descriptor) {
                    self.transmitting -= 1;
                } else {
                    self.counted.faulty_descriptors += 1;
                }
            }
            if taken < BURST_MAX {
                return;
            }
        }
    }

    /// Has the kernel look at the transmit ring, if it wants to be called for that.
    fn wake_transmit(&mut self) {
        if self.transmit_ring.needs_wakeup()
            && let Err(errno) = send(self.socket().as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT)
        {
            self.counted.wake_failures.count(errno);
        }
    }

    /// Has the kernel look at the fill ring, if it wants to be called for that; busy polling always
    /// does.
    fn wake_receive(&mut self) {
        if (self.busy_poll || self.fill_ring.needs_wakeup())
            && let Err(errno) = recv(self.socket().as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT)
        {
            self.counted.wake_failures.count(errno);
        }
    }

    /// Whether frames wait that only a call of ours gets sent. In copy mode a frame that has left
    /// the transmit ring completes by itself; a zero-copy driver may want a call for completions
    /// too.
    fn transmit_waits(&mut self) -> bool {
        if self.zero_copy {
            return self.transmitting > 0;
        }
        self.transmitting > 0 && self.transmit_ring.nb_free_exact() as usize != self.ring_entries
    }

    /// Whether nothing but a packet can give this port work.
    fn at_rest(&self) -> bool {
        self.transmitting == 0 && self.receiving == self.ring_entries
    }

    fn check(&self, frames: &XdpFrames) {
        assert_eq!(self.umem, frames.id(), "port and frames were not opened together");
    }
}

impl Port for XdpPort {
    type Frame = XdpFrame;
    type Frames = XdpFrames;
    type Statistics = SocketStatistics;

    fn receive(&mut self, frames: &mut XdpFrames, burst: &mut Burst<XdpFrame>, limit: usize) {
        self.check(frames);
        let limit = limit.min(BURST_MAX);
        // SAFETY: this receive ring belongs to the socket, whose UMEM is that of `frames`.
        let taken = unsafe { self.receive_ring.consume(&mut self.descriptors[..limit]) };
        for descriptor in &self.descriptors[..taken] {
            let (received, frame) = frames.received(self.port, *descriptor);
            self.receiving -= usize::from(received != Received::NoFrame);
            self.counted.faulty_descriptors += u64::from(received != Received::Packet);
            burst.extend(frame);
        }
        self.fill(frames);
        if taken == 0 {
            self.wake_receive();
        }
    }

    fn transmit_room(&self) -> usize {
        self.ring_entries - self.transmitting
    }

    fn transmit(&mut self, frames: &mut XdpFrames, burst: &mut Burst<XdpFrame>) {
        self.check(frames);
        assert!(burst.len() <= self.transmit_room(), "the burst is longer than the room");
        let count = burst.len();
        if count == 0 {
            return;
        }
        for (descriptor, frame) in self.descriptors.iter_mut().zip(burst.drain(..)) {
            *descriptor = frames.transmit(self.port, frame);
        }
        // SAFETY: the tokens of these frames, of this socket's UMEM, have just been consumed.
        let produced = unsafe { self.transmit_ring.produce(&self.descriptors[..count]) };
        assert_eq!(produced, count, "the transmit ring holds fewer frames than it has entries");
        self.transmitting += count;
        self.wake_transmit();
    }

    fn maintain(&mut self, frames: &mut XdpFrames) {
        self.check(frames);
        if self.transmit_waits() {
            self.wake_transmit();
        }
        self.reclaim(frames);
        self.fill(frames);
    }

    fn release(frames: &mut XdpFrames, frame: XdpFrame) {
        frames.release(frame);
    }

    fn bytes_mut<'a>(frames: &'a XdpFrames, frame: &'a mut XdpFrame) -> &'a mut [u8] {
        frames.bytes_mut(frame)
    }

    fn wait(ports: &mut [XdpPort; 2], timeout: Duration) {
        let at_rest = ports.iter().all(XdpPort::at_rest);
        let timeout = if at_rest { timeout } else { timeout.min(RESTLESS_WAIT_MAX) };
        let [lan, wan] = ports;
        let mut sockets =
            [lan, wan].map(|port| PollFd::new(socket_of(&port.receive_ring), PollFlags::POLLIN));
        // An error is a signal, or nothing that another round would not meet again and count.
        let _ = ppoll(&mut sockets, Some(TimeSpec::from_duration(timeout)), None);
    }

    /// One system call. Should the kernel not answer, its part is 0.
    fn statistics(&self) -> SocketStatistics {
        let kernel = self.receive_ring.fd().xdp_statistics().unwrap_or_default();
        SocketStatistics {
            rx_dropped: kernel.rx_dropped(),
            rx_invalid_descs: kernel.rx_invalid_descs(),
            tx_invalid_descs: kernel.tx_invalid_descs(),
            rx_ring_full: kernel.rx_ring_full(),
            rx_fill_ring_empty_descs: kernel.rx_fill_ring_empty_descs(),
            tx_ring_empty_descs: kernel.tx_ring_empty_descs(),
            ..self.counted
        }
    }

    fn account(ports: &[XdpPort; 2], frames: &XdpFrames, in_process: usize) -> FrameAccount {
        FrameAccount {
            total: frames.total(),
            free: frames.free(),
            receiving: [ports[0].receiving, ports[1].receiving],
            in_process,
            transmitting: [ports[0].transmitting, ports[1].transmitting],
        }
    }
}

impl fmt::Debug for XdpPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("XdpPort")
            .field("port", &self.port)
            .field("interface", &self.interface)
            .field("queue", &self.queue)
            .field("mode", &self.mode())
            .field("receiving", &self.receiving)
            .field("transmitting", &self.transmitting)
            .finish_non_exhaustive()
    }
}

fn socket_of(ring: &RxQueue) -> BorrowedFd<'_> {
    // SAFETY: the ring holds the socket, which is open as long as the ring is borrowed.
    unsafe { BorrowedFd::borrow_raw(ring.fd().as_raw_fd()) }
}

type Rings = (TxQueue, RxQueue, FillQueue, CompQueue);

/// Creates a socket and binds it, again and again while the queue is still busy with a former one.
fn bind(
    interface: &str,
    queue: u32,
    settings: &Settings,
    mode: BindFlags,
    umem: &Umem,
) -> io::Result<Rings> {
    let interface: Interface = interface.parse().map_err(io::Error::other)?;
    let ring = QueueSize::new(settings.ring_entries).map_err(io::Error::other)?;
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let mut tries = 0;
    loop {
        // SAFETY: the program is ours to load, so libxdp detaches none when the socket is dropped.
        match unsafe { Socket::new(config, umem, &interface, queue) } {
            Ok((transmit, receive, Some((fill, completion)))) => {
                return Ok((transmit, receive, fill, completion));
            }
            Ok((_, _, None)) => return Err(io::Error::other("both ports are the same queue")),
            Err(error) => {
                let cause = cause_of(&error);
                tries += 1;
                if cause.raw_os_error() != Some(libc::EBUSY) || tries == BUSY_TRIES {
                    return Err(cause);
                }
                thread::sleep(BUSY_PAUSE);
            }
        }
    }
}

/// A child process must not keep the queue busy.
fn close_on_exec(socket: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

fn set_options(socket: BorrowedFd<'_>, settings: &Settings) {
    options::raise_transmit_budget(socket, settings.ring_entries);
    // What the kernel accounts for a packet is below twice its frame.
    let frame = 2 * settings.frame_bytes;
    options::raise_send_buffer(socket, settings.ring_entries.saturating_mul(frame));
    if settings.busy_poll_budget > 0 {
        options::prefer_busy_poll(socket, settings.busy_poll_budget);
    }
}
