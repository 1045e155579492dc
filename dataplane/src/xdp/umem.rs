//! Packet memory (UMEM): one worker's frames, shared by the sockets on its two ports.
//!
//! A frame of 2048 bytes as the kernel fills it:
//!
//! ```text
//!   0             256                                       2048
//!   | headroom     | packet, 14 to 1792 bytes                 |
//! ```
//!
//! **Invariant.** There is an [`XdpFrame`] for a frame exactly while the [`Ledger`] has it in the
//! worker's hands, and never a second one: that makes the bytes behind a token exclusive. The free
//! list has exactly the frames that the ledger has as free.

#![allow(unsafe_code)]

use std::fs;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::{FrameDesc, Umem};

use super::error::XdpError;
use super::ledger::{Ledger, Received};
use super::settings::Settings;
use crate::batch::PortId;

/// Which packet memory: unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UmemId(u64);

impl UmemId {
    fn next() -> UmemId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        UmemId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A frame with a packet in it, in the worker's hands.
///
/// A token: there is one for each such frame and it cannot be cloned. [`Port::transmit`] and
/// [`Port::release`] consume it; one that is merely dropped is lost until the ports are opened
/// again, and [`FrameAccount`](crate::port::FrameAccount) shows it.
///
/// [`Port::transmit`]: crate::port::Port::transmit
/// [`Port::release`]: crate::port::Port::release
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost: transmit or release it"]
pub struct XdpFrame {
    descriptor: FrameDesc,
    umem: UmemId,
}

/// One worker's packet memory and its free frames.
#[derive(Debug)]
pub struct XdpFrames {
    umem: Umem,
    id: UmemId,
    /// Used from the end: the frame freed last is still in the cache.
    free: Vec<FrameDesc>,
    ledger: Ledger,
}

impl XdpFrames {
    /// Maps packet memory, in huge pages where there are enough, and registers it with the kernel.
    pub(super) fn new(settings: &Settings, subject: &str) -> Result<XdpFrames, XdpError> {
        let (umem, free) = map(settings, subject)?;
        let frames = free.len();
        Ok(XdpFrames {
            umem,
            id: UmemId::next(),
            free,
            ledger: Ledger::new(frames, settings.frame_bytes as usize),
        })
    }

    pub(super) fn id(&self) -> UmemId {
        self.id
    }

    pub(super) fn umem(&self) -> &Umem {
        &self.umem
    }

    /// All frames there are.
    pub fn total(&self) -> usize {
        self.ledger.frames()
    }

    /// Frames in the free list.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Moves a free frame to the fill ring of `port`.
    pub(super) fn fill(&mut self, port: PortId) -> Option<FrameDesc> {
        let descriptor = self.free.pop()?;
        self.ledger.fill(port, descriptor.addr());
        Some(descriptor)
    }

    /// Takes a descriptor from the receive ring of `port`. There is a frame exactly with
    /// [`Received::Packet`].
    pub(super) fn received(
        &mut self,
        port: PortId,
        descriptor: FrameDesc,
    ) -> (Received, Option<XdpFrame>) {
        let packet_bytes = descriptor.lengths().data();
        let options = descriptor.options();
        let received = self.ledger.received(port, descriptor.addr(), packet_bytes, options);
        match received {
            Received::Packet => (received, Some(XdpFrame { descriptor, umem: self.id })),
            Received::NoPacket => {
                self.free.push(descriptor);
                (received, None)
            }
            Received::NoFrame => (received, None),
        }
    }

    /// Moves a frame to the transmit ring of `port`.
    pub(super) fn transmit(&mut self, port: PortId, frame: XdpFrame) -> FrameDesc {
        self.check(&frame);
        self.ledger.transmit(port, frame.descriptor.addr());
        frame.descriptor
    }

    /// Takes a descriptor from the completion ring of `port`; false when it named no frame that the
    /// ring could have had.
    pub(super) fn completed(&mut self, port: PortId, descriptor: FrameDesc) -> bool {
        let believed = self.ledger.completed(port, descriptor.addr());
        if believed {
            self.free.push(descriptor);
        }
        believed
    }

    /// Returns a frame to the free list.
    pub(super) fn release(&mut self, frame: XdpFrame) {
        self.check(&frame);
        self.ledger.release(frame.descriptor.addr());
        self.free.push(frame.descriptor);
    }

    /// The packet in a frame.
    pub(super) fn bytes_mut<'a>(&'a self, frame: &'a mut XdpFrame) -> &'a mut [u8] {
        self.check(frame);
        // SAFETY: the ledger has checked that the descriptor lies within a frame of this memory and
        // has believed it once: the token, borrowed mutably, is the only way to that frame.
        let mut packet = unsafe { self.umem.data_mut(&mut frame.descriptor) };
        let bytes: *mut [u8] = packet.contents_mut();
        // SAFETY: the bytes are mapped while `self` is borrowed and exclusive while `frame` is:
        // both for 'a. `packet`, which only carried the pointer here, is not used again.
        unsafe { &mut *bytes }
    }

    /// A frame's descriptor means something in its own memory only.
    fn check(&self, frame: &XdpFrame) {
        assert_eq!(frame.umem, self.id, "the frame is of other packet memory");
    }
}

fn map(settings: &Settings, subject: &str) -> Result<(Umem, Vec<FrameDesc>), XdpError> {
    let fail = |operation: &str, cause| XdpError::kernel(subject, operation, cause);
    let config = config(settings).map_err(|cause| fail("describing packet memory", cause))?;
    let frames = NonZeroU32::new(settings.frames()).expect("ring_entries is at least 64");
    let bytes = settings.frames() as usize * settings.frame_bytes as usize;

    // Unmapping wants whole huge pages, and libc's mmap would round up in silence.
    if huge_page_bytes().is_some_and(|page| bytes.is_multiple_of(page)) {
        match Umem::new(config, frames, true) {
            Ok(mapped) => {
                tracing::info!(port = subject, bytes, "packet memory in huge pages");
                return Ok(mapped);
            }
            Err(reason) => tracing::debug!(%reason, "no huge pages for packet memory"),
        }
    }
    let mapped = Umem::new(config, frames, false)
        .map_err(|error| fail("registering packet memory", cause_of(&error)))?;
    tracing::debug!(port = subject, bytes, "packet memory in ordinary pages");
    Ok(mapped)
}

fn config(settings: &Settings) -> std::io::Result<UmemConfig> {
    let ring = QueueSize::new(settings.ring_entries).map_err(std::io::Error::other)?;
    let frame = FrameSize::new(settings.frame_bytes).map_err(std::io::Error::other)?;
    UmemConfig::builder()
        .frame_size(frame)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()
        .map_err(std::io::Error::other)
}

/// Size of a huge page as `mmap` takes it by default.
fn huge_page_bytes() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024).filter(|bytes| *bytes > 0)
}

/// The kernel's reason inside an error of xsk-rs.
pub(super) fn cause_of(error: &dyn std::error::Error) -> std::io::Error {
    let errno = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    match errno {
        Some(errno) => std::io::Error::from_raw_os_error(errno),
        None => std::io::Error::other(error.to_string()),
    }
}
