//! A pattern: what the outer headers of a tunnel's other end look like around plain TCP over IPv4, complete but for
//! what no two packets need have in common. The way in's counterpart of a [`template`](super::template).
//!
//! ```text
//!   Ethernet | IPv4 | GRE | key | sequence number | IPv4 | TCP
//!   14 bytes   20     4     4 or 0   4 or 0         20     20 or more
//! ```
//!
//! Only a tunnel over IPv4, without UDP and checksum, has one. **Invariant:** a packet that matches is one that
//! [`Decapsulator::decapsulate`](super::decapsulation::Decapsulator::decapsulate) lets in, but for the networks of its
//! addresses, and raises no alarm. Of one that does not match nothing is said.

use std::net::IpAddr;

use super::ecn;
use super::tunnel::Tunnel;
use crate::wire::buffer::Buffer;
use crate::wire::window::{u16_at, u32_at, u64_at};
use crate::wire::{checksum, ethernet, gre, ipv4, tcp};

/// Where the outer IPv4 header is, and the inner one when it is out.
const IP: usize = ethernet::HEADER_BYTES;
/// Ethernet, IPv4 and GRE without options.
const OUTER_BYTES: usize = IP + ipv4::HEADER_BYTES + gre::HEADER_BYTES;
/// IPv4 and TCP without options.
const INNER_BYTES: usize = ipv4::HEADER_BYTES + tcp::HEADER_BYTES;
const SYN: u8 = 0x02;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    /// Number of the tunnel.
    pub(super) lane: usize,
    /// Source and destination as they stand in the header of what arrives.
    addresses: u64,
    /// Flags and protocol type.
    gre: u32,
    /// Behind them, if the flags say so.
    key: u32,
    has_sequence: bool,
    /// Where the inner header is.
    inner_offset: usize,
}

/// A plain packet in a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    /// Which of the tunnels, counted from 0.
    pub lane: usize,
    /// Bytes of the inner packet.
    pub bytes: u16,
    /// Inner source address.
    pub source: u32,
    /// Inner destination address.
    pub destination: u32,
    /// Of TCP, the source port in the upper half.
    pub ports: u32,
    pub(super) sequence: Option<u32>,
    inner_offset: usize,
    /// Of the inner header, as they will be.
    traffic_class: u8,
    ttl: u8,
    sum: u16,
}

impl Pattern {
    /// Of the tunnel with this number, if it has one.
    pub(super) fn of(lane: usize, tunnel: &Tunnel) -> Option<Pattern> {
        let (IpAddr::V4(remote), IpAddr::V4(local)) = (tunnel.remote, tunnel.local) else {
            return None;
        };
        if tunnel.udp || tunnel.checksum {
            return None;
        }
        let key_flag = if tunnel.key.is_some() { gre::KEY } else { 0 };
        let sequence_flag = if tunnel.sequence { gre::SEQUENCE } else { 0 };
        let options = usize::from(tunnel.key.is_some()) + usize::from(tunnel.sequence);
        Some(Pattern {
            lane,
            addresses: u64::from(remote.to_bits()) << 32 | u64::from(local.to_bits()),
            gre: u32::from(key_flag | sequence_flag) << 16 | u32::from(ethernet::IPV4),
            key: tunnel.key.unwrap_or(0),
            has_sequence: tunnel.sequence,
            inner_offset: OUTER_BYTES + options * gre::OPTION_BYTES,
        })
    }

    /// The packet in an untagged frame, if it matches one of `patterns`, has hops to spare and needs nothing else
    /// looked at.
    #[inline(always)]
    pub(super) fn match_any(patterns: &[Pattern], frame: &[u8]) -> Option<Plain> {
        let outer: &[u8; OUTER_BYTES] = frame.first_chunk()?;
        // EtherType, version and header length; fragment offset and protocol.
        let is_plain = (u32_at(outer, 12) >> 8 == 0x08_0045)
            & (u32_at(outer, 20) & 0x3fff_00ff == u32::from(gre::PROTOCOL));
        let end = IP + usize::from(u16_at(outer, IP + 2));
        let header: &[u8; ipv4::HEADER_BYTES] = outer[IP..].first_chunk()?;
        if !is_plain || end > frame.len() || !checksum::is_right(header) {
            return None;
        }
        let (addresses, gre) = (u64_at(outer, IP + 12), u32_at(outer, IP + ipv4::HEADER_BYTES));
        let option = |at: usize| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let pattern = patterns.iter().find(|pattern| {
            pattern.addresses == addresses
                && pattern.gre == gre
                && (gre >> 16 & u32::from(gre::KEY) == 0
                    || option(OUTER_BYTES) == Some(pattern.key))
        })?;
        let at = pattern.inner_offset;
        let sequence = match pattern.has_sequence {
            true => Some(option(at - gre::OPTION_BYTES)?),
            false => None,
        };
        let inner = frame.get(at..)?.first_chunk()?;
        Plain::read(inner, outer[IP + 1], end - at.min(end), pattern, sequence)
    }
}

impl Plain {
    /// `room_bytes` are left for the inner packet in the outer one.
    #[inline(always)]
    fn read(
        inner: &[u8; INNER_BYTES],
        outer_traffic_class: u8,
        room_bytes: usize,
        pattern: &Pattern,
        sequence: Option<u32>,
    ) -> Option<Plain> {
        let bytes = u16_at(inner, 2);
        // Version and header length; fragment offset, TTL, protocol; flags of TCP.
        let is_plain = (inner[0] == 0x45)
            & (u32_at(inner, 6) & 0x3fff_00ff == u32::from(tcp::PROTOCOL))
            & (inner[8] > 1)
            & (inner[ipv4::HEADER_BYTES + 13] & SYN == 0);
        let fits = (usize::from(bytes) >= INNER_BYTES) & (usize::from(bytes) <= room_bytes);
        let header: &[u8; ipv4::HEADER_BYTES] = inner.first_chunk()?;
        if !is_plain || !fits || !checksum::is_right(header) {
            return None;
        }
        let field = ecn::leaving_unsuspected(inner[1], outer_traffic_class)?;
        let traffic_class = inner[1] & !ecn::MASK | field;
        let mut sum = u16_at(inner, 10);
        if traffic_class != inner[1] {
            sum = checksum::update(sum, u16::from(inner[1]), u16::from(traffic_class));
        }
        Some(Plain {
            lane: pattern.lane,
            bytes,
            source: u32_at(inner, 12),
            destination: u32_at(inner, 16),
            ports: u32_at(inner, ipv4::HEADER_BYTES),
            sequence,
            inner_offset: pattern.inner_offset,
            traffic_class,
            ttl: inner[8] - 1,
            // Of the word that changes only the difference matters, and that is in the TTL, its upper half.
            sum: checksum::update(sum, 0x0100, 0),
        })
    }

    /// Takes the outer headers, and whatever follows the inner packet, from the frame that this was read from, and one
    /// hop from the packet. The EtherType is right, for it is the same.
    #[inline(always)]
    pub(super) fn bare(&self, buffer: &mut Buffer<'_>) {
        buffer.truncate(self.inner_offset + usize::from(self.bytes));
        buffer.remove(IP, self.inner_offset - IP);
        // Written after the move: nothing is read that was just written, for which the processor would wait.
        let inner: &mut [u8; ipv4::HEADER_BYTES] =
            buffer[IP..].first_chunk_mut().expect("a plain packet has a whole header");
        inner[1] = self.traffic_class;
        inner[8] = self.ttl;
        inner[10..12].copy_from_slice(&self.sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::super::decapsulation::Decapsulator;
    use super::super::ecn::EcnAlarms;
    use super::super::encapsulation::Encapsulator;
    use super::super::prefixes::Prefixes;
    use super::super::sequence::Numbers;
    use super::*;
    use crate::wire::hop;

    const PADDING_BYTES: usize = 3;

    fn tunnel(key: Option<u32>, sequence: bool) -> Tunnel {
        Tunnel {
            local: "192.0.2.1".parse().expect("an address"),
            remote: "198.51.100.1".parse().expect("an address"),
            key,
            sequence,
            checksum: false,
            ttl: 64,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: None,
            udp: false,
        }
    }

    fn border(tunnels: &[Tunnel]) -> Decapsulator {
        let list = |last: u8| Prefixes::new(&[(IpAddr::from([10, last, 0, 0]), 16)]);
        Decapsulator::new(tunnels, list(2).expect("prefixes"), list(1).expect("prefixes"))
    }

    /// What the other end of a tunnel sends, padded.
    fn frame(tunnel: &Tunnel) -> Vec<u8> {
        let mut inner = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 2, 0, 7], [10, 1, 0, 9], 64)
            .tcp(443, 1000, 7, 100)
            .write(&mut inner, b"payload")
            .expect("a packet");
        let length = inner.len();
        inner.resize(length + 64, 0);
        let mut buffer = Buffer::new(&mut inner, length);
        let (local, remote) = (tunnel.remote, tunnel.local);
        Encapsulator::new(&Tunnel { local, remote, ..*tunnel }, Numbers::default())
            .encapsulate(&mut buffer, &[2; 14], 0)
            .expect("it fits");
        [&buffer[..], &[0xaa; PADDING_BYTES]].concat()
    }

    fn repair(frame: &mut [u8], at: usize) {
        if let Some(header) = frame.get_mut(at..at + ipv4::HEADER_BYTES) {
            header[10..12].fill(0);
            let sum = !checksum::sum(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// Whether there is a plain packet in the frame; if so, the long way lets in the same.
    fn is_plain(tunnels: &[Tunnel], frame: &[u8]) -> bool {
        let (mut long, mut short) = (border(tunnels), border(tunnels));
        let Some(plain) = short.plain(frame) else { return false };
        let (mut long_frame, mut short_frame) = (frame.to_vec(), frame.to_vec());
        let mut expected = Buffer::from(&mut long_frame);
        let decapsulated = long.decapsulate(&mut expected, frame.len()).expect("let in");
        assert_eq!(decapsulated.lane, plain.lane);
        assert_eq!(decapsulated.wire_bytes, IP + usize::from(plain.bytes));
        assert!(!hop::is_last(&expected, IP));
        hop::take(&mut expected, IP);
        let mut bare = Buffer::from(&mut short_frame);
        short.let_in(&mut bare, &plain);
        assert_eq!(bare[..], expected[..]);
        for border in [&mut long, &mut short] {
            border.settle();
            assert_eq!((border.accepted(), border.refusals().total()), (1, 0));
            assert_eq!(border.ecn_alarms(), EcnAlarms::default());
        }
        assert_eq!(long.sequence(plain.lane), short.sequence(plain.lane));
        true
    }

    /// Every value of every byte, with right checksums and without.
    #[test]
    fn whatever_matches_is_let_in_the_long_way_too() {
        for (key, sequence) in
            [(None, false), (Some(7), false), (None, true), (Some(u32::MAX), true)]
        {
            let tunnels = [tunnel(key, sequence)];
            let frame = frame(&tunnels[0]);
            assert!(is_plain(&tunnels, &frame));
            let inner = Pattern::of(0, &tunnels[0]).expect("it has one").inner_offset;
            let mut matches = 0;
            for (at, value) in
                (12..inner + INNER_BYTES).flat_map(|at| (0..=255_u8).map(move |value| (at, value)))
            {
                let mut other = frame.clone();
                other[at] = value;
                matches += u32::from(is_plain(&tunnels, &other));
                repair(&mut other, inner);
                repair(&mut other, IP);
                matches += u32::from(is_plain(&tunnels, &other));
            }
            assert!(matches > 2000, "{matches}");
            for length in 0..frame.len() {
                let is_whole = length + PADDING_BYTES >= frame.len();
                assert_eq!(is_plain(&tunnels, &frame[..length]), is_whole, "{length}");
            }
        }
    }

    #[test]
    fn a_near_miss_does_not_match() {
        let tunnels = [tunnel(Some(7), false)];
        let good = frame(&tunnels[0]);
        let inner = OUTER_BYTES + gre::OPTION_BYTES;
        let misses: [(&str, usize, u8); 19] = [
            ("a VLAN tag", 12, 0x81),
            ("outer options", IP, 0x46),
            ("an outer fragment", IP + 6, 0x20),
            ("a later outer fragment", IP + 7, 1),
            ("UDP", IP + 9, 17),
            ("another peer", IP + 15, 2),
            ("another end", IP + 19, 2),
            ("a GRE checksum", IP + 20, 0xa0),
            ("a sequence number", IP + 20, 0x30),
            ("no key", IP + 20, 0),
            ("a reserved bit", IP + 20, 0x28),
            ("another version", IP + 21, 1),
            ("IPv6", IP + 22, 0x86),
            ("another key", IP + 27, 8),
            ("inner options", inner, 0x46),
            ("an inner fragment", inner + 6, 0x20),
            ("the last hop", inner + 8, 1),
            ("a SYN", inner + 33, 0x12),
            ("another network", inner + 13, 3),
        ];
        for (what, at, value) in misses {
            let mut other = good.clone();
            assert_ne!(other[at], value, "{what}");
            other[at] = value;
            repair(&mut other, inner);
            repair(&mut other, IP);
            assert!(!is_plain(&tunnels, &other), "{what}");
        }
    }

    #[test]
    fn of_two_tunnels_that_cannot_be_told_apart_the_second_has_no_pattern() {
        let first = Tunnel { checksum: true, ..tunnel(Some(7), false) };
        let second = tunnel(Some(7), false);
        let frame = frame(&second);
        assert!(is_plain(&[second], &frame));
        assert!(!is_plain(&[first, second], &frame));
        assert!(is_plain(&[tunnel(Some(8), false), second], &frame));
    }
}
