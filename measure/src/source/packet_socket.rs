//! A network interface as a tap.
//!
//! ```text
//!   interface --> ring of blocks (kernel) --> PacketTap::read --> Batch
//! ```
//!
//! A block becomes a batch. VLAN tags that the kernel took off are put back. Checksums that veth left unfinished do
//! not matter, for no identity has one; frames that GRO merged or nobody segmented are longer than the wire
//! allows, are counted, and cannot be told to be the packets they were.
//!
//! **Complete until.** The kernel keeps a frame for [`packet_ring::RETIRE_MS`](super::packet_ring::RETIRE_MS) at
//! most, if it gets to run. So a tap that has nothing to say promises that everything older than [`HOLD`] was
//! seen; should a frame come later all the same, merging puts it where time stands, and its stamp is kept.
//!
//! Invariant: frames of the kernel = frames handed over + frames stamped before the beginning.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::interface::Interface;
use super::offloads::Offloads;
use super::packet_ring::{BLOCK_BYTES, PacketRing, RingFrame, RingSettings};
use super::timestamping::{Said, Stamping, Wanted, stamp_of};
use super::{Batch, Frame, Stamp};

/// A tap promises nothing about the time since then while it sees nothing.
pub const HOLD: Duration = Duration::from_millis(200);
/// The longest that [`PacketTap::read`] waits for a frame.
const WAIT_MS: u16 = 50;

/// Ethernet header, two VLAN tags.
const FRAMING_BYTES: u32 = 14 + 8;
/// Where the VLAN tag of a frame belongs.
const ADDRESSES_BYTES: usize = 12;
const VLAN_TAG_BYTES: usize = 4;
const VLAN_TYPE: u16 = 0x8100;

/// What a tap wants.
#[derive(Debug, Clone, Copy)]
pub struct TapSettings {
    /// Whose stamps.
    pub stamps: Wanted,
    /// Bytes of a frame that are kept.
    pub snap_bytes: u32,
    /// Bytes of the kernel's ring.
    pub ring_bytes: usize,
    /// Whether offloads that merge packets may stay on.
    pub keep_offloads: bool,
}

/// A tap that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface}: {what}")]
pub struct TapError {
    /// Which.
    pub interface: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What a tap saw of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapNotes {
    /// Frames the kernel had for this tap, with those it dropped.
    pub kernel_frames: u64,
    /// Frames the kernel dropped because its ring was full.
    pub drops: u64,
    /// Times its ring was full.
    pub ring_full: u64,
    /// Frames stamped before both taps were open, which are in no account.
    pub before_start: u64,
    /// Frames longer than the interface's MTU allows: merged, or not segmented.
    pub oversize: u64,
    /// VLAN tags put back.
    pub tags_restored: u64,
    /// Frames without a stamp, which got the time at which they were read.
    pub without_stamp: u64,
    /// Frames whose stamp was taken only when the kernel copied them.
    pub stamped_late: u64,
    /// Times the interface went down.
    pub downs: u64,
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Frames.
    Frames,
    /// None came for a while.
    Quiet,
    /// The interface is gone; no more frames come.
    Gone,
}

/// An interface that is listened to.
#[derive(Debug)]
pub struct PacketTap {
    interface: Interface,
    ring: PacketRing,
    wire_bytes_max: u32,
    begin_ns: u64,
    /// The latest stamp, and when it was read.
    latest: Option<(u64, Instant)>,
    notes: TapNotes,
}

/// What was changed at the interface for the time of the measurement, and is changed back when this is dropped.
#[derive(Debug)]
pub struct Prepared {
    /// Whose stamps there are.
    pub stamping: Stamping<Interface>,
    /// What merges packets; `None` when it was to stay.
    pub offloads: Option<Offloads>,
}

impl PacketTap {
    /// Makes an interface a tap that does not listen yet.
    ///
    /// # Errors
    ///
    /// When there is no such interface, it is not Ethernet, it is down, or the rights are missing.
    pub fn open(name: &str, settings: &TapSettings) -> Result<(PacketTap, Prepared), TapError> {
        let fail = |what: String| TapError { interface: name.to_owned(), what };
        let find = || {
            Interface::find(name)
                .map_err(|_| fail("there is no such interface here; `ip link` lists them".into()))
        };
        let asked = |error: io::Error| fail(format!("cannot be asked about itself: {error}"));
        let interface = find()?;
        if !interface.is_ethernet().map_err(asked)? {
            return Err(fail(
                "is not an Ethernet interface; packets are read from Ethernet on".into(),
            ));
        }
        if !interface.is_up().map_err(asked)? {
            return Err(fail(format!("is down; ip link set {name} up")));
        }
        let wire_bytes_max = interface.mtu().map_err(asked)? + FRAMING_BYTES;
        let stamping = Stamping::begin(find()?, settings.stamps).map_err(|reason| {
            fail(format!("{reason}; let --stamps be `best` to take the kernel's stamps instead"))
        })?;
        let offloads = match settings.keep_offloads {
            true => None,
            false => Some(Offloads::switch_off(find()?)),
        };
        let ring = RingSettings {
            snap_bytes: settings.snap_bytes,
            blocks: (settings.ring_bytes / BLOCK_BYTES).max(2) as u32,
            hardware: stamping.hardware().is_ok(),
        };
        let ring = PacketRing::new(ring).map_err(|error| fail(refused(&error)))?;
        let notes = TapNotes::default();
        let tap = PacketTap { interface, ring, wire_bytes_max, begin_ns: 0, latest: None, notes };
        Ok((tap, Prepared { stamping, offloads }))
    }

    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// When the interface went away meanwhile.
    pub fn listen(&mut self) -> Result<(), TapError> {
        let bound = self.ring.bind(self.interface.index());
        bound.map_err(|error| TapError {
            interface: self.interface.name().to_owned(),
            what: format!("cannot be listened to: {error}"),
        })
    }

    /// Frames that the kernel stamped before this are left out.
    pub fn begin_at(&mut self, time_ns: u64) {
        self.begin_ns = time_ns;
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Bytes of the kernel's ring.
    pub fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// Blocks of the kernel's ring.
    pub fn ring_blocks(&self) -> usize {
        self.ring.bytes() / BLOCK_BYTES
    }

    /// What it saw of itself, with the kernel's latest counts.
    pub fn notes(&mut self) -> TapNotes {
        if let Ok(counts) = self.ring.counts() {
            self.notes.kernel_frames += counts.frames;
            self.notes.drops += counts.drops;
            self.notes.ring_full += counts.full;
        }
        self.notes
    }

    /// Replaces the batch's contents by the next frames; waits for them for 50 ms, and then hands over an empty
    /// batch.
    pub fn read(&mut self, batch: &mut Batch) -> Read {
        batch.clear();
        if self.take_block(batch) {
            return Read::Frames;
        }
        let gone = !self.wait();
        if self.take_block(batch) {
            return Read::Frames;
        }
        batch.set_complete_until_ns(if gone { u64::MAX } else { self.quiet_until_ns() });
        if gone { Read::Gone } else { Read::Quiet }
    }

    fn take_block(&mut self, batch: &mut Batch) -> bool {
        let Some(block) = self.ring.next_block() else { return false };
        for frame in block.frames() {
            push(&frame, batch, &mut self.notes, self.begin_ns, self.wire_bytes_max);
        }
        drop(block);
        if let Some(latest_ns) = batch.frames().map(|frame| frame.time_ns).max() {
            self.latest = Some((latest_ns, Instant::now()));
        }
        // Of stamps, the order of the tap is all that is known: the frames themselves are the promise.
        batch.set_complete_until_ns(0);
        true
    }

    /// Waits for a block; `false` when the interface is gone.
    fn wait(&mut self) -> bool {
        let mut wanted = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN | PollFlags::POLLERR)];
        let ready = match poll(&mut wanted, PollTimeout::from(WAIT_MS)) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => return true,
            Err(errno) => panic!("poll on a socket and a timeout: {errno}"),
        };
        let failed = wanted[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if failed && self.ring.error().is_some() && self.interface.exists() {
            self.notes.downs += 1;
        }
        ready > 0 && !failed || self.interface.exists()
    }

    /// Until when a tap that is quiet has seen everything, by the clock of its stamps.
    fn quiet_until_ns(&self) -> u64 {
        let now_ns = match self.latest {
            Some((stamp_ns, read)) => stamp_ns.saturating_add(read.elapsed().as_nanos() as u64),
            None => now_ns(),
        };
        now_ns.saturating_sub(HOLD.as_nanos() as u64)
    }
}

/// The time of the system's clock, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

#[inline]
fn push(
    frame: &RingFrame<'_>,
    batch: &mut Batch,
    notes: &mut TapNotes,
    begin_ns: u64,
    wire_bytes_max: u32,
) {
    let said = stamp_of(frame.status, frame.seconds, frame.nanoseconds);
    let kernel_ns = u64::from(frame.seconds) * 1_000_000_000 + u64::from(frame.nanoseconds);
    let (time_ns, stamp) = match said {
        Said::Stamped(stamp) => (kernel_ns, stamp),
        Said::Copied => {
            notes.stamped_late += 1;
            (kernel_ns, Stamp::Software)
        }
        Said::Nothing => {
            notes.without_stamp += 1;
            (now_ns(), Stamp::Software)
        }
    };
    if stamp == Stamp::Software && time_ns < begin_ns {
        notes.before_start += 1;
        return;
    }
    notes.oversize += u64::from(frame.wire_bytes > wire_bytes_max);
    match taken_off(frame) {
        None => {
            batch.push(Frame { time_ns, stamp, wire_bytes: frame.wire_bytes, bytes: frame.bytes })
        }
        Some(tag) => {
            notes.tags_restored += 1;
            let wire_bytes = frame.wire_bytes + VLAN_TAG_BYTES as u32;
            let (addresses, rest) = frame.bytes.split_at(ADDRESSES_BYTES);
            batch.push_parts(time_ns, stamp, wire_bytes, [addresses, &tag, rest]);
        }
    }
}

/// The VLAN tag that the kernel took off a frame.
#[inline]
fn taken_off(frame: &RingFrame<'_>) -> Option<[u8; VLAN_TAG_BYTES]> {
    if frame.status & libc::TP_STATUS_VLAN_VALID == 0 || frame.bytes.len() < ADDRESSES_BYTES {
        return None;
    }
    let kind = match frame.status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => VLAN_TYPE,
        _ => frame.vlan_type,
    };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), frame.vlan_tag.to_be_bytes());
    Some([a, b, c, d])
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "packets may not be read: run as root, or with CAP_NET_RAW and CAP_NET_ADMIN".into()
        }
        Some(libc::ENOMEM) => format!("there is no memory for its ring: {error}; lower --ring-mib"),
        _ => format!("a packet socket with a ring cannot be had: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(status: u32, bytes: &[u8]) -> RingFrame<'_> {
        RingFrame {
            status,
            seconds: 7,
            nanoseconds: 9,
            wire_bytes: bytes.len() as u32,
            vlan_tag: 0x2005,
            vlan_type: 0x88a8,
            bytes,
        }
    }

    fn pushed(frame: &RingFrame<'_>, begin_ns: u64) -> (Batch, TapNotes) {
        let (mut batch, mut notes) = (Batch::new(), TapNotes::default());
        push(frame, &mut batch, &mut notes, begin_ns, 1522);
        (batch, notes)
    }

    #[test]
    fn a_tag_that_was_taken_off_stands_where_it_stood() {
        let bytes: Vec<u8> = (0..60).collect();
        let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_TS_SOFTWARE;
        for (status, kind) in
            [(status, [0x81, 0]), (status | libc::TP_STATUS_VLAN_TPID_VALID, [0x88, 0xa8])]
        {
            let (batch, notes) = pushed(&frame(status, &bytes), 0);
            let found = batch.frames().next().unwrap();
            assert_eq!(found.bytes[..12], bytes[..12]);
            assert_eq!(found.bytes[12..16], [kind[0], kind[1], 0x20, 0x05]);
            assert_eq!(found.bytes[16..], bytes[12..]);
            assert_eq!((found.wire_bytes, notes.tags_restored), (64, 1));
        }
    }

    #[test]
    fn a_frame_without_a_stamp_gets_the_time_of_reading_and_is_software() {
        let before_ns = now_ns();
        let mut zero = frame(libc::TP_STATUS_TS_RAW_HARDWARE, &[0; 60]);
        (zero.seconds, zero.nanoseconds) = (0, 0);
        let (batch, notes) = pushed(&zero, 0);
        let found = batch.frames().next().unwrap();
        assert_eq!((found.stamp, notes.without_stamp), (Stamp::Software, 1));
        assert!(found.time_ns >= before_ns);
    }

    #[test]
    fn a_frame_stamped_by_nobody_but_the_copy_is_counted() {
        let (batch, notes) = pushed(&frame(libc::TP_STATUS_USER, &[0; 60]), 0);
        let found = batch.frames().next().unwrap();
        assert_eq!((found.stamp, found.time_ns), (Stamp::Software, 7_000_000_009));
        assert_eq!(notes.stamped_late, 1);
    }

    #[test]
    fn frames_of_before_the_beginning_are_left_out_unless_another_clock_stamped_them() {
        let (batch, notes) = pushed(&frame(libc::TP_STATUS_TS_SOFTWARE, &[0; 60]), u64::MAX);
        assert_eq!((batch.len(), notes.before_start), (0, 1));
        let (batch, notes) = pushed(&frame(libc::TP_STATUS_TS_RAW_HARDWARE, &[0; 60]), u64::MAX);
        assert_eq!((batch.len(), notes.before_start), (1, 0));
        assert_eq!(batch.frames().next().unwrap().stamp, Stamp::Hardware);
    }

    #[test]
    fn a_frame_longer_than_the_wire_is_counted() {
        let bytes = vec![0; 1523];
        assert_eq!(pushed(&frame(libc::TP_STATUS_TS_SOFTWARE, &bytes), 0).1.oversize, 1);
        assert_eq!(pushed(&frame(libc::TP_STATUS_TS_SOFTWARE, &bytes[..1522]), 0).1.oversize, 0);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let settings = TapSettings {
            stamps: Wanted::Best,
            snap_bytes: 256,
            ring_bytes: 1 << 20,
            keep_offloads: true,
        };
        let error = PacketTap::open("nosuchtap0", &settings).expect_err("it does not exist");
        assert!(error.to_string().starts_with("interface nosuchtap0: there is no such"), "{error}");
    }
}
