//! Generic Routing Encapsulation, version 0 (RFC 2784), with key and sequence number (RFC 2890).
//!
//! ```text
//!   C 0 K S  reserved0 (9) version (3) | protocol type (16)
//!   checksum (16) | reserved1 (16)       when C is set
//!   key (32)                             when K is set
//!   sequence number (32)                 when S is set
//! ```
//!
//! What RFC 2784 calls reserved must be zero here, also the bits that it says to ignore: whoever sets one
//! wants something that would not be done.

use super::ethernet;
use super::frame::Version;
use super::window::{Unparsed, Window, u16_at, u32_at};

/// The number of GRE in the IPv4 protocol and IPv6 next-header fields.
pub const PROTOCOL: u8 = 47;
/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 4;
/// Bytes of a header with all three options.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES + 3 * OPTION_BYTES;
/// Bytes of each option: checksum with reserved1, key, sequence number.
pub const OPTION_BYTES: usize = 4;

/// The checksum is there.
pub const CHECKSUM: u16 = 0x8000;
/// The key is there.
pub const KEY: u16 = 0x2000;
/// The sequence number is there.
pub const SEQUENCE: u16 = 0x1000;

const ROUTING: u16 = 0x4000;
const VERSION: u16 = 0x0007;

/// What a valid header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether a checksum is there, over the header and everything behind it. Not verified here.
    pub checksum: bool,
    /// Which tunnel of those between the same two addresses.
    pub key: Option<u32>,
    /// The number of the packet in its tunnel.
    pub sequence: Option<u32>,
    /// EtherType of what is inside.
    pub protocol: u16,
    /// Where that starts in the frame.
    pub payload_offset: usize,
}

/// Why a header could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A version that is not 0.
    Version,
    /// Source routing (RFC 1701), which RFC 2784 has taken out.
    Routing,
    /// A bit that must be zero.
    Reserved,
    /// It does not fit where it is.
    Malformed,
    /// The capture did not keep it.
    Truncated,
}

impl From<Unparsed> for Invalid {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Truncated => Invalid::Truncated,
            Unparsed::Malformed | Unparsed::NonIp | Unparsed::NonTcp => Invalid::Malformed,
        }
    }
}

/// Reads the header at `offset` of an IP or UDP payload that ends at `payload_end`.
#[inline(always)]
pub fn parse(window: &Window, offset: usize, payload_end: usize) -> Result<Header, Invalid> {
    let fixed = window.header::<HEADER_BYTES>(offset, payload_end)?;
    let flags = u16_at(fixed, 0);
    if flags & VERSION != 0 {
        return Err(Invalid::Version);
    }
    if flags & ROUTING != 0 {
        return Err(Invalid::Routing);
    }
    if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 {
        return Err(Invalid::Reserved);
    }
    let mut at = offset + HEADER_BYTES;
    let mut options = [None; 3];
    for (option, flag) in options.iter_mut().zip([CHECKSUM, KEY, SEQUENCE]) {
        if flags & flag != 0 {
            let field = window.header::<OPTION_BYTES>(at, payload_end)?;
            *option = Some(u32_at(field, 0));
            at += OPTION_BYTES;
        }
    }
    let [checksum_and_reserved1, key, sequence] = options;
    if checksum_and_reserved1.is_some_and(|field| field & 0xffff != 0) {
        return Err(Invalid::Reserved);
    }
    Ok(Header {
        checksum: checksum_and_reserved1.is_some(),
        key,
        sequence,
        protocol: u16_at(fixed, 2),
        payload_offset: at,
    })
}

/// The protocol type of an IP packet inside: its EtherType (RFC 2784 section 2.4, RFC 7676).
#[inline(always)]
pub fn protocol_of(version: Version) -> u16 {
    match version {
        Version::V4 => ethernet::IPV4,
        Version::V6 => ethernet::IPV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Result<Header, Invalid> {
        parse(&Window::new(bytes, bytes.len()), 0, bytes.len())
    }

    #[test]
    fn options_are_read_in_their_order() {
        let bytes = b"\xb0\x00\x08\x00\x12\x34\x00\x00\x00\x00\x00\x07\x00\x00\x00\x09payload";
        let header = parsed(bytes).expect("a header with everything");
        assert_eq!(header.key, Some(7));
        assert_eq!(header.sequence, Some(9));
        assert!(header.checksum);
        assert_eq!((header.protocol, header.payload_offset), (0x0800, 16));
        let header = parsed(b"\x10\x00\x86\xdd\x00\x00\x00\x09").expect("a sequence number alone");
        assert_eq!((header.key, header.sequence, header.checksum), (None, Some(9), false));
        assert_eq!(header.protocol, 0x86dd);
    }

    #[test]
    fn every_flag_but_three_is_refused() {
        for bit in 0..16 {
            let flags = 1_u16 << bit;
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&flags.to_be_bytes());
            let expected = match bit {
                0..=2 => Some(Invalid::Version),
                14 => Some(Invalid::Routing),
                12 | 13 | 15 => None,
                _ => Some(Invalid::Reserved),
            };
            assert_eq!(parsed(&bytes).err(), expected, "bit {bit}");
        }
        let reserved1 = b"\x80\x00\x08\x00\x00\x00\x00\x01";
        assert_eq!(parsed(reserved1), Err(Invalid::Reserved));
    }

    #[test]
    fn a_header_that_does_not_fit_is_malformed_and_one_not_kept_is_truncated() {
        let bytes = b"\xb0\x00\x08\x00\x12\x34\x00\x00\x00\x00\x00\x07\x00\x00\x00\x09";
        for length in 0..bytes.len() {
            assert_eq!(parsed(&bytes[..length]), Err(Invalid::Malformed), "{length}");
            let window = Window::new(&bytes[..length], 100);
            assert_eq!(parse(&window, 0, 100), Err(Invalid::Truncated), "{length}");
        }
    }
}
