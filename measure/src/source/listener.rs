//! What listens to a network interface, whichever way its packets come.
//!
//! ```text
//!   open: settings of the interface --> listen --> read, read, ... --> hang_up --> read, until Quiet
//! ```
//!
//! Invariant: frames that the kernel had for a tap = frames handed over + frames stamped before the beginning +
//! frames dropped, when it has hung up and was read until it was quiet.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::interface::Interface;
use super::offloads::Offloads;
use super::packet_socket::PacketTap;
use super::timestamping::{Stamping, Wanted};
use super::xdp::{XdpNotes, XdpTap};
use super::{Batch, Frame, Stamp};

/// A tap promises nothing about the time since then while it sees nothing.
pub const HOLD: Duration = Duration::from_millis(200);
/// The longest that [`Listener::read`] waits for a frame.
pub(super) const WAIT_MS: u16 = 50;

/// Ethernet header, two VLAN tags.
pub(super) const FRAMING_BYTES: u32 = 14 + 8;
/// Where the VLAN tag of a frame belongs.
const ADDRESSES_BYTES: usize = 12;
const VLAN_TAG_BYTES: usize = 4;

/// Which way packets come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// A packet socket: a copy of every packet, which goes its way in the kernel.
    #[default]
    Packet,
    /// An XDP program takes every packet: nothing else on the machine gets any.
    Xdp,
}

impl Way {
    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Packet => "packet",
            Way::Xdp => "xdp",
        }
    }
}

/// What a tap wants.
#[derive(Debug, Clone, Copy)]
pub struct TapSettings {
    /// Which way packets come.
    pub way: Way,
    /// Whose stamps.
    pub stamps: Wanted,
    /// Bytes of a frame that are kept.
    pub snap_bytes: u32,
    /// Bytes of the kernel's ring, or of packet memory.
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
    /// Frames the kernel dropped because there was no room, or left to itself.
    pub drops: u64,
    /// Times its ring was full, or no frame of packet memory was free.
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
    /// Of a tap by XDP.
    pub xdp: Option<XdpNotes>,
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
pub trait Listener: Debug + Send {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// When the interface went away meanwhile, or does not let itself be listened to.
    fn listen(&mut self) -> Result<(), TapError>;

    /// Frames that the system's clock stamped before this are left out.
    fn begin_at(&mut self, time_ns: u64);

    /// The interface.
    fn interface(&self) -> &Interface;

    /// Bytes of the kernel's ring, or of packet memory.
    fn ring_bytes(&self) -> usize;

    /// After so many reads, everything has been read that was there before them.
    fn reads_max(&self) -> usize;

    /// Replaces the batch's contents by the next frames; waits for them for 50 ms, and then hands over an empty
    /// batch.
    fn read(&mut self, batch: &mut Batch) -> Read;

    /// Listens no more, where that can be told to the kernel; what came until now can be read.
    fn hang_up(&mut self);

    /// What it saw of itself, with the kernel's latest counts.
    fn notes(&mut self) -> TapNotes;
}

/// Makes an interface a tap that does not listen yet.
///
/// # Errors
///
/// When there is no such interface, it is not Ethernet, it is down, the rights are missing, or what is wanted cannot
/// be had.
pub fn open(name: &str, settings: &TapSettings) -> Result<(Box<dyn Listener>, Prepared), TapError> {
    match settings.way {
        Way::Packet => {
            let (tap, prepared) = PacketTap::open(name, settings)?;
            Ok((Box::new(tap), prepared))
        }
        Way::Xdp => {
            let (tap, prepared) = XdpTap::open(name, settings)?;
            Ok((Box::new(tap), prepared))
        }
    }
}

/// What was changed at the interface for the time of the measurement, and is changed back when this is dropped.
#[derive(Debug)]
pub struct Prepared {
    /// Whether the NIC was told to stamp.
    pub stamping: Stamping<Interface>,
    /// Why its stamps do not reach us all the same.
    pub out_of_reach: Option<String>,
    /// What was switched off; `None` when it was to stay.
    pub offloads: Option<Offloads>,
    /// Keeps the interface receiving what is addressed to others.
    pub promiscuous: Option<OwnedFd>,
}

impl Prepared {
    /// Why there are no hardware stamps.
    pub fn no_hardware_stamps(&self) -> Option<&str> {
        self.stamping.hardware().err().or(self.out_of_reach.as_deref())
    }

    /// The number of the NIC's clock, when its stamps reach us.
    pub fn clock(&self) -> Option<u32> {
        self.stamping.clock().filter(|_| self.out_of_reach.is_none())
    }
}

/// An interface that can be a tap, and the bytes of its longest frame.
pub(super) fn find(name: &str) -> Result<(Interface, u32), TapError> {
    let fail = |what: String| TapError { interface: name.to_owned(), what };
    let asked = |error: std::io::Error| fail(format!("cannot be asked about itself: {error}"));
    let interface = find_again(name)?;
    if !interface.is_ethernet().map_err(asked)? {
        return Err(fail("is not an Ethernet interface; packets are read from Ethernet on".into()));
    }
    if !interface.is_up().map_err(asked)? {
        return Err(fail(format!("is down; ip link set {name} up")));
    }
    let wire_bytes_max = interface.mtu().map_err(asked)? + FRAMING_BYTES;
    Ok((interface, wire_bytes_max))
}

/// The same interface, for another owner.
pub(super) fn find_again(name: &str) -> Result<Interface, TapError> {
    Interface::find(name).map_err(|_| TapError {
        interface: name.to_owned(),
        what: "there is no such interface here; `ip link` lists them".into(),
    })
}

/// Has the NIC of an interface stamp as wanted.
pub(super) fn begin_stamping(name: &str, wanted: Wanted) -> Result<Stamping<Interface>, TapError> {
    Stamping::begin(find_again(name)?, wanted).map_err(|reason| TapError {
        interface: name.to_owned(),
        what: format!("{reason}; let --stamps be `best` to take the kernel's stamps instead"),
    })
}

/// Until when a tap that is quiet has seen everything, by the clock of its stamps; `latest`: its latest stamp, and
/// when that was read.
pub(super) fn quiet_until_ns(latest: Option<(u64, Instant)>) -> u64 {
    let now_ns = match latest {
        Some((stamp_ns, read)) => stamp_ns.saturating_add(read.elapsed().as_nanos() as u64),
        None => now_ns(),
    };
    now_ns.saturating_sub(HOLD.as_nanos() as u64)
}

/// Appends a frame, with the VLAN tag (type and tag) that was taken off.
#[inline]
pub(super) fn push(
    batch: &mut Batch,
    notes: &mut TapNotes,
    frame: Frame<'_>,
    taken_off: Option<(u16, u16)>,
) {
    match taken_off.filter(|_| frame.bytes.len() >= ADDRESSES_BYTES) {
        None => batch.push(frame),
        Some((kind, tag)) => {
            notes.tags_restored += 1;
            let ([a, b], [c, d]) = (kind.to_be_bytes(), tag.to_be_bytes());
            let Frame { time_ns, stamp, wire_bytes, bytes } = frame;
            let wire_bytes = wire_bytes + VLAN_TAG_BYTES as u32;
            let (addresses, rest) = bytes.split_at(ADDRESSES_BYTES);
            batch.push_parts(time_ns, stamp, wire_bytes, [addresses, &[a, b, c, d], rest]);
        }
    }
}

/// Whether a frame was stamped before the beginning; a NIC's clock is another one, and tells nothing about that.
#[inline]
pub(super) fn is_before(begin_ns: u64, time_ns: u64, stamp: Stamp) -> bool {
    stamp != Stamp::Hardware && time_ns < begin_ns
}

/// The time of the system's clock, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
