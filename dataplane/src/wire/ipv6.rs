//! IPv6 and the extension headers in front of TCP (RFC 8200).

use super::window::{Unparsed, Window, u16_at, u32_at, u64_at};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;
/// Most extension headers that are walked.
pub const EXTENSIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Next header of the fragment header.
pub const FRAGMENT: u8 = 44;
/// Next header of the destination options header.
pub const DESTINATION_OPTIONS: u8 = 60;

const MORE_FRAGMENTS: u16 = 0x0001;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Which datagram a fragment belongs to (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The identification field.
    pub identification: u32,
    /// The fragment header's own next header.
    pub next_header: u8,
}

/// What a valid IPv6 header and its extension headers say.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Source address (two words) and destination address (two), as they stand in the header.
    pub addresses: [u64; 4],
    /// The first header that is not walked: the payload's protocol.
    pub protocol: u8,
    /// Set on a fragment, the first or a later one.
    pub fragment: Option<Fragment>,
    /// Whether this fragment is not the first; its payload is then of no known protocol.
    pub later_fragment: bool,
    /// Where the payload starts in the frame, extension headers skipped.
    pub payload_offset: usize,
    /// Where the datagram ends in the frame; padding follows.
    pub payload_end: usize,
}

/// Whether this next header value stands for an extension header that is walked.
pub fn is_walked(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Reads the header at `offset` and walks hop-by-hop, routing, destination-option and fragment headers, up
/// to eight; a ninth, or one that does not fit the payload, is malformed. The walk ends at any other header
/// and at the header of a later fragment. A fragment header with offset 0 and no more fragments is passed
/// over: its packet is an ordinary one (RFC 6946).
#[inline(always)]
pub fn parse(window: &Window, offset: usize) -> Result<Header, Unparsed> {
    let fixed = window.header::<HEADER_BYTES>(offset, window.end())?;
    let payload_offset = offset + HEADER_BYTES;
    let payload_end = payload_offset + usize::from(u16_at(fixed, 4));
    if fixed[0] >> 4 != 6 || payload_end > window.end() {
        return Err(Unparsed::Malformed);
    }
    let mut header = Header {
        addresses: [8, 16, 24, 32].map(|at| u64_at(fixed, at)),
        protocol: fixed[6],
        fragment: None,
        later_fragment: false,
        payload_offset,
        payload_end,
    };
    let mut walked = 0;
    while is_walked(header.protocol) && !header.later_fragment {
        if walked == EXTENSIONS_MAX {
            return Err(Unparsed::Malformed);
        }
        walked += 1;
        walk_one(window, &mut header)?;
    }
    Ok(header)
}

/// Steps over the extension header at `header.payload_offset`, whose kind is `header.protocol`.
fn walk_one(window: &Window, header: &mut Header) -> Result<(), Unparsed> {
    let extension = window.header::<8>(header.payload_offset, header.payload_end)?;
    let next_header = extension[0];
    let extension_bytes = if header.protocol == FRAGMENT {
        let offset_and_more = u16_at(extension, 2);
        header.later_fragment = offset_and_more & FRAGMENT_OFFSET != 0;
        if header.later_fragment || offset_and_more & MORE_FRAGMENTS != 0 {
            header.fragment = Some(Fragment { identification: u32_at(extension, 4), next_header });
        }
        8
    } else {
        8 * (usize::from(extension[1]) + 1)
    };
    header.protocol = next_header;
    header.payload_offset += extension_bytes;
    if header.payload_offset > header.payload_end {
        return Err(Unparsed::Malformed);
    }
    Ok(())
}
