//! TCP (RFC 9293 section 3.1).

use super::window::{Unparsed, Window, u32_at};

/// The number of TCP in the IPv4 protocol and IPv6 next-header fields.
pub const PROTOCOL: u8 = 6;
/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a valid TCP header says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Source port (16 bits) and destination port (16), as they stand in the header.
    pub ports: u32,
    /// SYN without ACK: the first segment of a connection.
    pub opens_connection: bool,
}

/// Reads the header at `offset` of an IP payload that ends at `payload_end`. The data offset must lie within
/// that payload; the options need not have been kept.
#[inline(always)]
pub fn parse(window: &Window, offset: usize, payload_end: usize) -> Result<Header, Unparsed> {
    let header = window.header::<HEADER_BYTES>(offset, payload_end)?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header_bytes < HEADER_BYTES || offset + header_bytes > payload_end {
        return Err(Unparsed::Malformed);
    }
    Ok(Header { ports: u32_at(header, 0), opens_connection: opens_connection(header[13]) })
}

/// Whether these flags have SYN without ACK.
#[inline(always)]
pub(super) fn opens_connection(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}
