//! A mark: the differentiated services code point (RFC 2474), rewritten in place.
//!
//! The two ECN bits (RFC 3168) are kept; the IPv4 header checksum is updated incrementally, and a packet
//! that has the right DSCP already is not changed by one bit.

use serde::{Deserialize, Serialize};

use crate::wire::checksum;

/// Bits of the ECN field beside the DSCP.
const ECN: u8 = 0b11;

/// A DSCP to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    dscp: u8,
}

impl Mark {
    /// `None` when the number has more than six bits.
    pub fn new(dscp: u8) -> Option<Self> {
        (dscp < 64).then_some(Mark { dscp })
    }

    /// The code point, 0 to 63.
    pub fn dscp(self) -> u8 {
        self.dscp
    }

    /// Marks the packet whose IP header starts at `ip_offset`. The header was parsed before: its fixed part
    /// is there, and its first four bits are its version.
    #[inline(always)]
    pub fn apply(self, frame: &mut [u8], ip_offset: usize) {
        // As much of a header as is looked at, in one check of its length.
        let Some(header) = frame.get_mut(ip_offset..).and_then(<[u8]>::first_chunk_mut) else {
            unreachable!("the header was parsed");
        };
        if header[0] >> 4 == 4 {
            self.apply_ipv4(header);
        } else {
            self.apply_ipv6(header);
        }
    }

    #[inline(always)]
    fn apply_ipv4(self, header: &mut [u8; 12]) {
        let traffic_class = self.dscp << 2 | header[1] & ECN;
        if traffic_class == header[1] {
            return;
        }
        let (old, new) = (u16::from(header[1]), u16::from(traffic_class));
        let sum = u16::from_be_bytes([header[10], header[11]]);
        header[1] = traffic_class;
        header[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    }

    /// Version (4), traffic class (8), flow label (20): the DSCP lies across the first two bytes.
    #[inline(always)]
    fn apply_ipv6(self, header: &mut [u8; 12]) {
        header[0] = header[0] & 0xf0 | self.dscp >> 2;
        header[1] = header[1] & 0x3f | self.dscp << 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dscp_is_written_and_every_ecn_is_kept_in_ipv4() {
        for dscp in 0..64 {
            for before in 0..=255_u8 {
                let mut header =
                    *b"\x45\x00\x00\x28\x12\x34\x40\x00\x40\x06\x00\x00\x0a\0\0\x01\x0a\0\0\x02";
                header[1] = before;
                let untouched = header;
                Mark::new(dscp).unwrap().apply(&mut header, 0);
                assert_eq!(header[1], dscp << 2 | before & 3);
                assert_eq!(header[2..10], untouched[2..10]);
                assert_eq!(header[12..], untouched[12..]);
            }
        }
    }

    #[test]
    fn every_dscp_is_written_and_all_else_is_kept_in_ipv6() {
        for dscp in 0..64_u8 {
            for before in [[0x60, 0x00], [0x6f, 0xff], [0x6a, 0x5c]] {
                let mut header = [0; 12];
                header[..2].copy_from_slice(&before);
                Mark::new(dscp).unwrap().apply_ipv6(&mut header);
                assert_eq!(header[2..], [0; 10]);
                let word = u16::from_be_bytes([header[0], header[1]]);
                assert_eq!(word >> 6 & 0x3f, u16::from(dscp));
                assert_eq!(word & 0xf03f, u16::from_be_bytes(before) & 0xf03f);
            }
        }
    }

    #[test]
    fn sixty_four_is_no_dscp() {
        assert_eq!(Mark::new(64), None);
        assert_eq!(Mark::new(63).map(Mark::dscp), Some(63));
    }
}
