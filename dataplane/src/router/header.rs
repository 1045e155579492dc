//! What routing reads of an IP header: fixed places, in frames without tags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::IP;
use crate::batch::Packet;
use crate::lane::prefixes::Prefixes;
use crate::wire::frame::Version;
use crate::wire::window::Window;
use crate::wire::{ethernet, icmp, icmpv6, ipv4, ipv6, tcp, udp};

const SYN: u8 = 0x02;
/// Where a TCP header has its flags.
const FLAGS: usize = 13;
/// The golden ratio of 64 bits: a step from neighbouring addresses to distant hashes.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// A packet's IP header, as far as routing reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) version: Version,
    /// Addresses as numbers, which stay in registers where an `IpAddr` would go through memory.
    source: u128,
    destination: u128,
    /// Bytes of the packet, header included.
    pub(super) bytes: u32,
}

impl Header {
    /// None when the frame carries no IP, or was cut before the end of the fixed header.
    #[inline(always)]
    pub(super) fn of(frame: &[u8]) -> Option<Header> {
        let [high, low] = *frame.get(12..)?.first_chunk()?;
        match u16::from_be_bytes([high, low]) {
            ethernet::IPV4 => Header::of_ipv4(frame[IP..].first_chunk()?),
            ethernet::IPV6 => Header::of_ipv6(frame[IP..].first_chunk()?),
            _ => None,
        }
    }

    /// The same of a packet without an Ethernet header.
    pub(super) fn of_packet(packet: &[u8]) -> Option<Header> {
        match packet.first()? >> 4 {
            4 => Header::of_ipv4(packet.first_chunk()?),
            6 => Header::of_ipv6(packet.first_chunk()?),
            _ => None,
        }
    }

    pub(super) fn source(&self) -> IpAddr {
        address(self.version, self.source)
    }

    #[inline(always)]
    pub(super) fn destination(&self) -> IpAddr {
        address(self.version, self.destination)
    }

    /// Whether the destination is in one of these networks.
    #[inline(always)]
    pub(super) fn is_to(&self, prefixes: &Prefixes) -> bool {
        match self.version {
            Version::V4 => prefixes.contains_ipv4(self.destination as u32),
            Version::V6 => prefixes.contains_ipv6(self.destination),
        }
    }

    #[inline(always)]
    fn of_ipv4(header: &[u8; ipv4::HEADER_BYTES]) -> Option<Header> {
        let address = |at: usize| {
            let octets: [u8; 4] = *header[at..].first_chunk()?;
            Some(u128::from(u32::from_be_bytes(octets)))
        };
        Some(Header {
            version: Version::V4,
            source: address(12)?,
            destination: address(16)?,
            bytes: u32::from(u16::from_be_bytes([header[2], header[3]])),
        })
    }

    #[inline(always)]
    fn of_ipv6(header: &[u8; ipv6::HEADER_BYTES]) -> Option<Header> {
        let address = |at: usize| {
            let octets: [u8; 16] = *header[at..].first_chunk()?;
            Some(u128::from_be_bytes(octets))
        };
        let payload_bytes = u32::from(u16::from_be_bytes([header[4], header[5]]));
        Some(Header {
            version: Version::V6,
            source: address(8)?,
            destination: address(24)?,
            bytes: ipv6::HEADER_BYTES as u32 + payload_bytes,
        })
    }
}

/// Whether the lengths and the version of a packet's IP header agree with each other and with its frame.
pub(super) fn is_sound(packet: &Packet<'_>) -> bool {
    let window = Window::new(&packet.bytes, packet.wire_bytes as usize);
    match Header::of(&packet.bytes).map(|header| header.version) {
        Some(Version::V4) => ipv4::parse(&window, IP).is_ok(),
        Some(Version::V6) => ipv6::parse(&window, IP).is_ok(),
        None => false,
    }
}

/// Whether it may be a TCP segment with SYN: surely not one in nearly every packet.
#[inline(always)]
pub(super) fn may_be_syn(frame: &[u8]) -> bool {
    let flags_at = |offset: usize| frame.get(offset + FLAGS).is_some_and(|flags| flags & SYN != 0);
    if frame[IP] >> 4 == 4 {
        frame[IP + 9] == tcp::PROTOCOL && flags_at(IP + usize::from(frame[IP] & 0x0f) * 4)
    } else {
        match frame[IP + 6] {
            tcp::PROTOCOL => flags_at(IP + ipv6::HEADER_BYTES),
            next_header => ipv6::is_walked(next_header),
        }
    }
}

/// Whether it is an ICMP or ICMPv6 error.
pub(super) fn is_icmp_error(frame: &[u8]) -> bool {
    if frame[IP] >> 4 == 4 {
        let offset = IP + usize::from(frame[IP] & 0x0f) * 4;
        let kind = frame.get(offset).copied();
        frame[IP + 9] == icmp::PROTOCOL && matches!(kind, Some(3 | 11 | 12))
    } else {
        let kind = frame.get(IP + ipv6::HEADER_BYTES).copied();
        frame[IP + 6] == icmpv6::PROTOCOL && matches!(kind, Some(1..=4))
    }
}

#[inline(always)]
fn address(version: Version, bits: u128) -> IpAddr {
    match version {
        Version::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        Version::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// The same for all packets of a flow of TCP or UDP, and for all others between two addresses. Fragments are
/// among the latter, so that those of a datagram stay together.
#[inline]
pub(super) fn flow_hash_of(header: &Header, frame: &[u8]) -> u32 {
    let (protocol, offset, whole) = if header.version == Version::V4 {
        let fragment = u16::from_be_bytes([frame[IP + 6], frame[IP + 7]]) & 0x3fff;
        (frame[IP + 9], IP + usize::from(frame[IP] & 0x0f) * 4, fragment == 0)
    } else {
        (frame[IP + 6], IP + ipv6::HEADER_BYTES, true)
    };
    let ports = match frame.get(offset..offset + 4) {
        Some(&[a, b, c, d]) if whole && matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL) => {
            u32::from_be_bytes([a, b, c, d])
        }
        _ => 0,
    };
    with_ports(hash_of(header), ports)
}

/// The same of TCP over IPv4, whole: between two addresses and two ports.
#[inline(always)]
pub(super) fn flow_hash(source: u32, destination: u32, ports: u32) -> u32 {
    with_ports(hash_between(u64::from(source), u64::from(destination)), ports)
}

#[inline(always)]
fn with_ports(addresses: u64, ports: u32) -> u32 {
    let mixed = (addresses ^ u64::from(ports)).wrapping_mul(GOLDEN_RATIO);
    (mixed >> 32) as u32
}

/// The same for all packets between two addresses, so that those that are no TCP keep their order too.
#[inline]
pub(super) fn hash_of(header: &Header) -> u64 {
    let fold = |bits: u128| bits as u64 ^ (bits >> 64) as u64;
    hash_between(fold(header.source), fold(header.destination))
}

#[inline(always)]
fn hash_between(source: u64, destination: u64) -> u64 {
    let mixed = (source.rotate_left(32) ^ destination).wrapping_mul(GOLDEN_RATIO);
    mixed ^ mixed >> 32
}
