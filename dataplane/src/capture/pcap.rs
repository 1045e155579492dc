//! pcap: a header of 24 bytes, then records with a header of 16 bytes each.
//!
//! ```text
//!   file    magic 4 | version 2+2 | reserved 4+4 | snap length 4 | FCS bits, link type 4
//!   record  seconds 4 | micro- or nanoseconds 4 | captured length 4 | original length 4 | packet
//! ```
//!
//! The snap length is not enforced: writers are careless with it. The field that once was a time
//! zone is ignored, as libpcap and Wireshark do.

use super::byte_order::ByteOrder;
use super::chunk::Record;
use super::reader::{Interface, Item};
use super::record_writer::Layout;
use super::source::Source;
use super::{CaptureError, LinkType, PACKET_BYTES_MAX};

const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
const VERSION_AT: usize = 4;
const LINK_TYPE_AT: usize = 20;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// What the file header says, and whether it has been handed over.
pub(super) struct Decoder {
    order: ByteOrder,
    ns_per_fraction: u64,
    at_header: bool,
}

impl Decoder {
    pub(super) fn of_magic(seen: &[u8]) -> Option<Decoder> {
        let (order, ns_per_fraction) = match seen.first_chunk()? {
            [0xa1, 0xb2, 0xc3, 0xd4] => (ByteOrder::Big, 1_000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (ByteOrder::Big, 1),
            [0xd4, 0xc3, 0xb2, 0xa1] => (ByteOrder::Little, 1_000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (ByteOrder::Little, 1),
            _ => return None,
        };
        Some(Decoder { order, ns_per_fraction, at_header: true })
    }

    /// How the file is laid out.
    pub(super) fn layout(&self) -> Layout {
        Layout::Pcap { order: self.order, ns_per_fraction: self.ns_per_fraction }
    }

    /// Checks the file header and leaves it in the window: it is the first item.
    pub(super) fn with_header(self, source: &mut Source) -> Result<Decoder, CaptureError> {
        let present_bytes = source.fill(FILE_HEADER_BYTES)?;
        if present_bytes < FILE_HEADER_BYTES {
            return Err(CaptureError::Truncated {
                at: source.place(0),
                what: "file header",
                needed_bytes: FILE_HEADER_BYTES,
                present_bytes,
            });
        }
        let header = source.window();
        let major = self.order.u16(header, VERSION_AT);
        let minor = self.order.u16(header, VERSION_AT + 2);
        // Before 2.4, the two lengths of a record stood in either order.
        if (major, minor) != (2, 4) {
            let at = source.place(VERSION_AT);
            return Err(CaptureError::Version { at, format: "pcap", major, minor });
        }
        // The upper 16 bits say how long a frame check sequence is, or are reserved.
        let link_type = LinkType(self.order.u32(header, LINK_TYPE_AT) as u16);
        if link_type != LinkType::ETHERNET {
            let at = source.place(LINK_TYPE_AT);
            return Err(CaptureError::NotEthernet { at, link_type, interface: 0 });
        }
        Ok(self)
    }

    pub(super) fn interface(&self) -> Interface {
        Interface { name: None, link_type: LinkType::ETHERNET, resolution_ns: self.ns_per_fraction }
    }

    pub(super) fn next_item(&mut self, source: &mut Source) -> Result<Option<Item>, CaptureError> {
        if std::mem::take(&mut self.at_header) {
            return Ok(Some(Item { bytes: FILE_HEADER_BYTES, record: None }));
        }
        let truncated = |source: &Source, needed_bytes, present_bytes| CaptureError::Truncated {
            at: source.place(0),
            what: "record",
            needed_bytes,
            present_bytes,
        };
        let present_bytes = source.fill(RECORD_HEADER_BYTES)?;
        if present_bytes == 0 {
            return Ok(None);
        }
        if present_bytes < RECORD_HEADER_BYTES {
            return Err(truncated(source, RECORD_HEADER_BYTES, present_bytes));
        }

        let field = |at| self.order.u32(source.window(), at);
        let (seconds, fraction) = (u64::from(field(0)), u64::from(field(4)));
        let (captured_bytes, original_bytes) = (field(8), field(12));
        check_lengths(source, 8, captured_bytes, original_bytes)?;

        let bytes = RECORD_HEADER_BYTES + captured_bytes as usize;
        let present_bytes = source.fill(bytes)?;
        if present_bytes < bytes {
            return Err(truncated(source, bytes, present_bytes));
        }
        let record = Record {
            // Below 2^32 seconds and 2^32 microseconds: no overflow, and 2^32 seconds end in 2106.
            time_ns: seconds * NS_PER_SECOND + fraction * self.ns_per_fraction,
            original_bytes,
            interface: 0,
            section: 0,
            packet: RECORD_HEADER_BYTES..bytes,
        };
        Ok(Some(Item { bytes, record: Some(record) }))
    }
}

/// Refuses a packet that is too long, or longer in the file than on the wire. The captured length
/// stands `captured_at` bytes into the record or block that begins at the window.
pub(super) fn check_lengths(
    source: &Source,
    captured_at: usize,
    captured_bytes: u32,
    original_bytes: u32,
) -> Result<(), CaptureError> {
    if captured_bytes > PACKET_BYTES_MAX {
        return Err(CaptureError::TooLong {
            at: source.place(captured_at),
            what: "captured packet",
            bytes: captured_bytes,
            limit_bytes: PACKET_BYTES_MAX,
        });
    }
    if captured_bytes > original_bytes {
        return Err(CaptureError::CapturedMoreThanOriginal {
            at: source.place(0),
            captured_bytes,
            original_bytes,
        });
    }
    Ok(())
}
