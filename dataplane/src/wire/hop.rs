//! A hop: what a router does to the TTL of IPv4 and the hop limit of IPv6.

use super::checksum;

/// Whether this is the last hop of the packet whose IP header starts at `ip_offset` (RFC 1812 section 5.3.1,
/// RFC 8200 section 3). The header was parsed before: its fixed part is there, and its first four bits are its
/// version.
#[inline(always)]
pub fn is_last(frame: &[u8], ip_offset: usize) -> bool {
    let header = &frame[ip_offset..];
    let left = if header[0] >> 4 == 4 { header[8] } else { header[7] };
    left <= 1
}

/// Takes one hop from a packet that has more than one left. The checksum of IPv4 is updated.
#[inline(always)]
pub fn take(frame: &mut [u8], ip_offset: usize) {
    taken(frame, ip_offset).write(frame, ip_offset);
}

/// What a header has of its hops when one was taken.
#[derive(Debug, Clone, Copy)]
pub enum Taken {
    /// TTL and checksum of IPv4.
    V4(u8, u16),
    /// Hop limit of IPv6.
    V6(u8),
}

/// Takes one hop from a packet in thought: one that is going to be moved is read before it is, and written after.
/// The other way round, one would wait for the other.
#[inline(always)]
pub fn taken(frame: &[u8], ip_offset: usize) -> Taken {
    let header: &[u8; 12] = frame[ip_offset..].first_chunk().expect("the header was parsed");
    if header[0] >> 4 != 4 {
        return Taken::V6(header[7] - 1);
    }
    let sum = u16::from_be_bytes([header[10], header[11]]);
    // Of the word that changes only the difference matters, and that is in the TTL, its upper half.
    Taken::V4(header[8] - 1, checksum::update(sum, 0x0100, 0))
}

impl Taken {
    /// Into the header it was read from, wherever that is now.
    #[inline(always)]
    pub fn write(self, frame: &mut [u8], ip_offset: usize) {
        let header: &mut [u8; 12] =
            frame[ip_offset..].first_chunk_mut().expect("the header was parsed");
        match self {
            Taken::V4(ttl, sum) => {
                header[8] = ttl;
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Taken::V6(limit) => header[7] = limit,
        }
    }
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
            assert_eq!(is_last(&frame, 14), ttl <= 1);
            if ttl <= 1 {
                continue;
            }
            take(&mut frame, 14);
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
            assert_eq!(is_last(&frame, 0), limit <= 1);
            if limit <= 1 {
                continue;
            }
            take(&mut frame, 0);
            expected[7] -= 1;
            assert_eq!(frame, expected);
        }
    }
}
