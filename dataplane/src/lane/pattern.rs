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
