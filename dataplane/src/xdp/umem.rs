//! Packet memory (UMEM), registered with the kernel.
//!
//! A frame of 2048 bytes as the kernel fills it:
//!
//! ```text
//!   0             256                                       2048
//!   | headroom     | packet, 14 to 1792 bytes                 |
//! ```
//!
//! **Invariant.** A descriptor's packet lies in mapped memory whenever it lies within a frame. What xsk-rs
//! takes for the room of a packet is right only where the kernel starts packets, so it is cut to the frame.

#![allow(unsafe_code)]

use std::fs;
use std::num::NonZeroU32;

use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use super::error::XdpError;
use super::rings::{Descriptor, Memory};
use super::settings::Settings;

/// Memory that sockets on one queue of both ports receive into and send from.
#[derive(Debug)]
pub struct Umem {
    umem: xsk_rs::Umem,
    frames: usize,
    frame_bytes: usize,
}

impl Umem {
    /// Maps packet memory, in huge pages where there are enough, and registers it with the kernel;
    /// with a descriptor of each frame.
    pub(super) fn new(
        settings: &Settings,
        subject: &str,
    ) -> Result<(Umem, Vec<FrameDesc>), XdpError> {
        let (umem, free) = map(settings, subject)?;
        let frame_bytes = settings.frame_bytes as usize;
        Ok((Umem { umem, frames: free.len(), frame_bytes }, free))
    }

    pub(super) fn registered(&self) -> &xsk_rs::Umem {
        &self.umem
    }
}

// SAFETY: the mapping lives as long as `umem`, and xsk-rs made `frames` frames of `frame_bytes` of it,
// side by side.
unsafe impl Memory for Umem {
    type Descriptor = FrameDesc;

    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    fn frames(&self) -> usize {
        self.frames
    }

    #[inline]
    unsafe fn storage(&self, descriptor: &mut FrameDesc) -> *mut [u8] {
        let room = self.frame_bytes - descriptor.addr() % self.frame_bytes;
        // SAFETY: the caller knows that the packet starts within a frame that nobody else accesses.
        let mut packet = unsafe { self.umem.data_mut(descriptor) };
        packet.cursor().set_pos(room);
        packet.contents_mut()
    }

    #[inline]
    unsafe fn set_packet_bytes(&self, descriptor: &mut FrameDesc, bytes: usize) {
        // SAFETY: as in `storage`.
        unsafe { self.umem.data_mut(descriptor) }.cursor().set_pos(bytes);
    }
}

impl Descriptor for FrameDesc {
    #[inline]
    fn address(&self) -> usize {
        self.addr()
    }

    #[inline]
    fn packet_bytes(&self) -> usize {
        self.lengths().data()
    }

    #[inline]
    fn options(&self) -> u32 {
        FrameDesc::options(self)
    }
}

fn map(settings: &Settings, subject: &str) -> Result<(xsk_rs::Umem, Vec<FrameDesc>), XdpError> {
    let fail = |operation: &str, cause| XdpError::kernel(subject, operation, cause);
    let config = config(settings).map_err(|cause| fail("describing packet memory", cause))?;
    let frames = NonZeroU32::new(settings.frames()).expect("ring_entries is at least 64");
    let bytes = settings.frames() as usize * settings.frame_bytes as usize;

    // Unmapping wants whole huge pages, and libc's mmap would round up in silence.
    if huge_page_bytes().is_some_and(|page| bytes.is_multiple_of(page)) {
        match xsk_rs::Umem::new(config, frames, true) {
            Ok(mapped) => {
                tracing::info!(port = subject, bytes, "packet memory in huge pages");
                return Ok(mapped);
            }
            Err(reason) => tracing::debug!(%reason, "no huge pages for packet memory"),
        }
    }
    let mapped = xsk_rs::Umem::new(config, frames, false)
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
