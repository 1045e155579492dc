//! UDP (RFC 768), as far as GRE in UDP (RFC 8086) needs it.

use super::window::{Unparsed, Window, u16_at};

/// The number of UDP in the IPv4 protocol and IPv6 next-header fields.
pub const PROTOCOL: u8 = 17;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;
/// Destination port of GRE in UDP (RFC 8086 section 9).
pub const GRE_PORT: u16 = 4754;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Bytes of header and data.
    pub length_bytes: usize,
    /// The checksum; zero says that there is none.
    pub checksum: u16,
}

/// Reads the header at `offset` of an IP payload that ends at `payload_end`. The length is not judged.
#[inline(always)]
pub fn parse(window: &Window, offset: usize, payload_end: usize) -> Result<Header, Unparsed> {
    let header = window.header::<HEADER_BYTES>(offset, payload_end)?;
    Ok(Header {
        source_port: u16_at(header, 0),
        destination_port: u16_at(header, 2),
        length_bytes: usize::from(u16_at(header, 4)),
        checksum: u16_at(header, 6),
    })
}
