//! IPv4 (RFC 791).

use super::window::{Unparsed, Window, u16_at, u64_at};

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// What a valid IPv4 header says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Source address (32 bits) and destination address (32), as they stand in the header.
    pub addresses: u64,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Which datagram a fragment belongs to.
    pub identification: u16,
    /// Whether this is a fragment with more to come.
    pub more_fragments: bool,
    /// Whether this fragment is not the first.
    pub later_fragment: bool,
    /// Where the payload starts in the frame, options skipped.
    pub payload_offset: usize,
    /// Where the datagram ends in the frame; padding follows.
    pub payload_end: usize,
}

/// Reads the header at `offset`. Version, header length and total length must fit each other and the frame.
#[inline(always)]
pub fn parse(window: &Window, offset: usize) -> Result<Header, Unparsed> {
    let header = window.header::<HEADER_BYTES>(offset, window.end())?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(header, 2));
    let fits = header[0] >> 4 == 4
        && header_bytes >= HEADER_BYTES
        && total_bytes >= header_bytes
        && offset + total_bytes <= window.end();
    if !fits {
        return Err(Unparsed::Malformed);
    }
    let fragment = u16_at(header, 6);
    Ok(Header {
        addresses: u64_at(header, 12),
        protocol: header[9],
        identification: u16_at(header, 4),
        more_fragments: fragment & MORE_FRAGMENTS != 0,
        later_fragment: fragment & FRAGMENT_OFFSET != 0,
        payload_offset: offset + header_bytes,
        payload_end: offset + total_bytes,
    })
}
