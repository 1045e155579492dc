//! The writer of new records: for frames that are not what came in, as a router's are.
//!
//! ```text
//!   pcap     file header                     | record | record | ...
//!   pcapng   section header | one interface  | enhanced packet | enhanced packet | ...
//! ```
//!
//! Invariant: no time stamp of the inputs loses anything that their reader gives. The capture is pcapng when one of
//! them is, else pcap in the byte order of the first; its stamps are microseconds when all of them are pcap in
//! microseconds, else nanoseconds.

use std::fmt;
use std::path::Path;

use super::byte_order::ByteOrder;
use super::writer::Writer;
use super::{CaptureError, LinkType, PACKET_BYTES_MAX, Reader};

const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_MICROSECOND: u64 = 1_000;
/// Bytes of an enhanced packet block without its packet.
const ENHANCED_PACKET_BYTES: usize = 32;

/// How a capture lays out what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Its byte order, and nanoseconds of a unit of its stamps' fraction.
    Pcap { order: ByteOrder, ns_per_fraction: u64 },
    /// Written little-endian, with stamps in nanoseconds.
    Pcapng,
}

impl Layout {
    /// One that can say what both can; `self`'s own byte order.
    fn covering(self, other: Layout) -> Layout {
        match (self, other) {
            (
                Layout::Pcap { order, ns_per_fraction: one },
                Layout::Pcap { ns_per_fraction: two, .. },
            ) => Layout::Pcap { order, ns_per_fraction: one.min(two) },
            _ => Layout::Pcapng,
        }
    }
}

/// Writes a capture of new frames. Only [`RecordWriter::finish`] makes it complete.
#[must_use = "a capture is complete only after finish()"]
pub struct RecordWriter {
    writer: Writer,
    layout: Layout,
    /// The record being written.
    record: Vec<u8>,
}

impl RecordWriter {
    /// Creates the file, or empties the one that is there, for frames made of those of `inputs`, of which there is
    /// at least one. It is compressed exactly when its name ends in `.gz`.
    ///
    /// # Errors
    ///
    /// When it cannot be created or written, or is a file that one of the inputs reads, under whatever name.
    ///
    /// # Panics
    ///
    /// When there is no input.
    pub fn create(path: impl AsRef<Path>, inputs: &[&Reader]) -> Result<Self, CaptureError> {
        let layouts = inputs.iter().map(|input| input.layout());
        let layout = layouts.reduce(Layout::covering).expect("frames are made of some capture's");
        let writer = Writer::create_beside(path.as_ref(), inputs)?;
        let mut created = RecordWriter { writer, layout, record: Vec::new() };
        created.record = file_header(layout);
        created.writer.write_bytes(&created.record)?;
        Ok(created)
    }

    /// Appends a frame that left at `time_ns` since 1970, with `original_bytes` on the wire: no fewer than are at
    /// hand.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or cannot hold such a time.
    pub fn write(
        &mut self,
        time_ns: u64,
        original_bytes: u32,
        packet: &[u8],
    ) -> Result<(), CaptureError> {
        let captured_bytes = packet.len() as u32;
        self.record.clear();
        match self.layout {
            Layout::Pcap { order, ns_per_fraction } => {
                let Ok(seconds) = u32::try_from(time_ns / NS_PER_SECOND) else {
                    return Err(CaptureError::TimeOutOfRange { at: self.writer.place() });
                };
                let fraction = (time_ns % NS_PER_SECOND / ns_per_fraction) as u32;
                for field in [seconds, fraction, captured_bytes, original_bytes] {
                    self.record.extend(order.bytes_of_u32(field));
                }
                self.record.extend_from_slice(packet);
            }
            Layout::Pcapng => {
                let padded_bytes = packet.len().next_multiple_of(4);
                let block_bytes = (ENHANCED_PACKET_BYTES + padded_bytes) as u32;
                let (high, low) = ((time_ns >> 32) as u32, time_ns as u32);
                for field in [6, block_bytes, 0, high, low, captured_bytes, original_bytes] {
                    self.record.extend(u32::to_le_bytes(field));
                }
                self.record.extend_from_slice(packet);
                self.record.resize(self.record.len() + padded_bytes - packet.len(), 0);
                self.record.extend(block_bytes.to_le_bytes());
            }
        }
        self.writer.write_bytes(&self.record)
    }

    /// Completes the file; see [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// When the file cannot be written; it is incomplete then.
    pub fn finish(self) -> Result<u64, CaptureError> {
        self.writer.finish()
    }
}

impl fmt::Debug for RecordWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RecordWriter")
            .field("writer", &self.writer)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// What stands before the first frame.
fn file_header(layout: Layout) -> Vec<u8> {
    let link_type = u32::from(LinkType::ETHERNET.0);
    match layout {
        Layout::Pcap { order, ns_per_fraction } => {
            let magic = match ns_per_fraction {
                NS_PER_MICROSECOND => 0xa1b2_c3d4,
                _ => 0xa1b2_3c4d,
            };
            let version = match order {
                ByteOrder::Little => 4 << 16 | 2,
                ByteOrder::Big => 2 << 16 | 4,
            };
            let fields = [magic, version, 0, 0, PACKET_BYTES_MAX, link_type];
            fields.into_iter().flat_map(|field| order.bytes_of_u32(field)).collect()
        }
        Layout::Pcapng => {
            let section = [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28];
            // if_tsresol is option 9, of one byte: 10^-9 seconds; option 0 ends the list.
            let resolution = [1 << 16 | 9, 9, 0];
            let interface = [1, 32, link_type, PACKET_BYTES_MAX];
            let fields = section.into_iter().chain(interface).chain(resolution).chain([32]);
            fields.flat_map(u32::to_le_bytes).collect()
        }
    }
}
