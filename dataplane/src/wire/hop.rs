//! A hop: what a router does to the TTL of IPv4 and the hop limit of IPv6.

use super::checksum;

/// Whether a packet may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// One hop less is left, and that is written.
    Onward,
    /// This was the last hop (RFC 1812 section 5.3.1, RFC 8200 section 3): the packet is as it was, to be
    /// quoted.
    Expired,
}

/// Takes one hop from the packet whose IP header starts at `ip_offset`. The header was parsed before: its
/// fixed part is there, and its first four bits are its version. The checksum of IPv4 is updated.
#[inline(always)]
pub fn take(frame: &mut [u8], ip_offset: usize) -> Hop {
    let header = &mut frame[ip_offset..];
    if header[0] >> 4 == 4 { take_ipv4(header) } else { take_ipv6(header) }
}

#[inline(always)]
fn take_ipv4(header: &mut [u8]) -> Hop {
    if header[8] <= 1 {
        return Hop::Expired;
    }
    let old = u16::from_be_bytes([header[8], header[9]]);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    header[8] -= 1;
    let new = u16::from_be_bytes([header[8], header[9]]);
    header[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    Hop::Onward
}

#[inline(always)]
fn take_ipv6(header: &mut [u8]) -> Hop {
    if header[7] <= 1 {
        return Hop::Expired;
    }
    header[7] -= 1;
    Hop::Onward
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ttl_goes_down_by_one_and_the_checksum_stays_right() {
        for ttl in 0..=255 {
            let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
                .ipv4([10, 0, 0, 1], [10, 1, 0, 1], ttl)
                .udp(1, 2);
            let mut frame = Vec::new();
            builder.write(&mut frame, b"x").expect("a packet");
            let before = frame.clone();
            let hop = take(&mut frame, 14);
            if ttl <= 1 {
                assert_eq!(hop, Hop::Expired);
                assert_eq!(frame, before);
                continue;
            }
            assert_eq!(hop, Hop::Onward);
            let (header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).expect("IPv4");
            assert_eq!(header.time_to_live, ttl - 1);
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(frame[26..], before[26..]);
        }
    }

    #[test]
    fn every_hop_limit_goes_down_by_one_and_nothing_else_changes() {
        for limit in 0..=255 {
            let mut frame = [0x60_u8; 40];
            frame[7] = limit;
            let mut expected = frame;
            let hop = take(&mut frame, 0);
            if limit > 1 {
                expected[7] -= 1;
            }
            assert_eq!(hop, if limit > 1 { Hop::Onward } else { Hop::Expired });
            assert_eq!(frame, expected);
        }
    }
}
