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
//! most, if it gets to run. So a tap that has nothing to say promises that everything older than
//! [`HOLD`](super::listener::HOLD) was
//! seen; should a frame come later all the same, merging puts it where time stands, and its stamp is kept.
//!
//! Invariant: frames of the kernel = frames handed over + frames stamped before the beginning.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::interface::{Interface, Switch};
use super::listener::{
    self, Listener, Prepared, Read, TapError, TapNotes, TapSettings, WAIT_MS, begin_stamping, find,
    find_again, is_before, now_ns, quiet_until_ns,
};
use super::offloads::Offloads;
use super::packet_ring::{BLOCK_BYTES, PacketRing, RingFrame, RingSettings};
use super::timestamping::{Said, stamp_of};
use super::{Batch, Frame, Stamp};

/// Of a VLAN tag whose type the kernel does not tell.
const VLAN_TYPE: u16 = 0x8100;

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

impl PacketTap {
    /// Makes an interface a tap that does not listen yet.
    ///
    /// # Errors
    ///
    /// When there is no such interface, it is not Ethernet, it is down, or the rights are missing.
    pub fn open(name: &str, settings: &TapSettings) -> Result<(PacketTap, Prepared), TapError> {
        let (interface, wire_bytes_max) = find(name)?;
        let stamping = begin_stamping(name, settings.stamps)?;
        let offloads = match settings.keep_offloads {
            true => None,
            false => Some(Offloads::switch_off(find_again(name)?, &Switch::MERGING)),
        };
        let ring = RingSettings {
            snap_bytes: settings.snap_bytes,
            blocks: (settings.ring_bytes / BLOCK_BYTES).max(2) as u32,
            hardware: stamping.hardware().is_ok(),
        };
        let ring = PacketRing::new(ring)
            .map_err(|error| TapError { interface: name.to_owned(), what: refused(&error) })?;
        let notes = TapNotes::default();
        let tap = PacketTap { interface, ring, wire_bytes_max, begin_ns: 0, latest: None, notes };
        // The socket's own membership makes the interface promiscuous.
        Ok((tap, Prepared { stamping, out_of_reach: None, offloads, promiscuous: None }))
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
}

impl Listener for PacketTap {
    fn listen(&mut self) -> Result<(), TapError> {
        let bound = self.ring.bind(self.interface.index());
        bound.map_err(|error| TapError {
            interface: self.interface.name().to_owned(),
            what: format!("cannot be listened to: {error}"),
        })
    }

    fn begin_at(&mut self, time_ns: u64) {
        self.begin_ns = time_ns;
    }

    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// A read takes a block.
    fn reads_max(&self) -> usize {
        self.ring.bytes() / BLOCK_BYTES
    }

    fn read(&mut self, batch: &mut Batch) -> Read {
        batch.clear();
        if self.take_block(batch) {
            return Read::Frames;
        }
        let gone = !self.wait();
        if self.take_block(batch) {
            return Read::Frames;
        }
        batch.set_complete_until_ns(if gone { u64::MAX } else { quiet_until_ns(self.latest) });
        if gone { Read::Gone } else { Read::Quiet }
    }

    /// The kernel has no word for it.
    fn hang_up(&mut self) {}

    fn notes(&mut self) -> TapNotes {
        if let Ok(counts) = self.ring.counts() {
            self.notes.kernel_frames += counts.frames;
            self.notes.drops += counts.drops;
            self.notes.ring_full += counts.full;
        }
        self.notes
    }
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
    if is_before(begin_ns, time_ns, stamp) {
        notes.before_start += 1;
        return;
    }
    notes.oversize += u64::from(frame.wire_bytes > wire_bytes_max);
    let taken_off = taken_off(frame);
    let RingFrame { wire_bytes, bytes, .. } = *frame;
    listener::push(batch, notes, Frame { time_ns, stamp, wire_bytes, bytes }, taken_off);
}

/// Type and tag of VLAN that the kernel took off a frame.
#[inline]
fn taken_off(frame: &RingFrame<'_>) -> Option<(u16, u16)> {
    if frame.status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let kind = match frame.status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => VLAN_TYPE,
        _ => frame.vlan_type,
    };
    Some((kind, frame.vlan_tag))
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
            way: Default::default(),
            stamps: Default::default(),
            snap_bytes: 256,
            ring_bytes: 1 << 20,
            keep_offloads: true,
        };
        let error = PacketTap::open("nosuchtap0", &settings).expect_err("it does not exist");
        assert!(error.to_string().starts_with("interface nosuchtap0: there is no such"), "{error}");
    }
}
