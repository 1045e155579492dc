//! Headers that a router writes: outer headers of tunnels, and ICMP errors.

use std::net::IpAddr;

use dataplane::lane::tunnel::Tunnel;

use super::packet::Packet;
use super::{IP, Told};
use crate::model::u16_at;

/// GRE (RFC 2784), UDP, and the port of GRE in UDP (RFC 8086).
const GRE: u8 = 47;
const UDP: u8 = 17;
const GRE_IN_UDP: u16 = 4754;
/// What tells flows apart is of the dynamic ports.
const DYNAMIC_PORTS: u16 = 0xc000;

/// The one's complement sum of RFC 1071, word by word.
pub(super) fn internet_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        sum += u64::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Of bytes in which its own field is zero.
pub(super) fn checksum_over(bytes: &[u8]) -> u16 {
    !internet_sum(bytes)
}

/// Whether bytes that contain their checksum are right.
pub(super) fn is_right(bytes: &[u8]) -> bool {
    internet_sum(bytes) == 0xffff
}

/// What is summed in front of UDP and ICMPv6 (RFC 768, RFC 8200 section 8.1).
pub(super) fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    bytes: usize,
) -> Vec<u8> {
    let mut header = octets(source);
    header.extend(octets(destination));
    if source.is_ipv4() {
        header.extend([0, protocol]);
        header.extend((bytes as u16).to_be_bytes());
    } else {
        header.extend((bytes as u32).to_be_bytes());
        header.extend([0, 0, 0, protocol]);
    }
    header
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Destinations that no router forwards: this network, loopback, multicast, broadcast; unspecified, link-local.
pub(super) fn is_for_no_router(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first == 0 || first == 127 || address.is_multicast() || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            let is_link_local = address.segments()[0] & 0xffc0 == 0xfe80;
            let is_nobody = address.is_unspecified() || address.is_loopback();
            is_nobody || address.is_multicast() || is_link_local
        }
    }
}

/// Bytes of all outer headers.
pub(super) fn overhead_bytes(tunnel: &Tunnel) -> usize {
    let ip_bytes = if tunnel.local.is_ipv4() { 20 } else { 40 };
    let udp_bytes = if tunnel.udp { 8 } else { 0 };
    let options = [tunnel.checksum, tunnel.key.is_some(), tunnel.sequence];
    ip_bytes + udp_bytes + 4 + 4 * options.iter().filter(|is_set| **is_set).count()
}

/// What differs from packet to packet.
pub(super) struct Numbers {
    pub(super) sequence: u32,
    pub(super) identification: u16,
}

/// The outer headers of an inner packet of `inner_bytes`, of which `inner` is at hand.
pub(super) fn outer_headers(
    tunnel: &Tunnel,
    inner: &[u8],
    inner_bytes: usize,
    numbers: &Numbers,
) -> Vec<u8> {
    let is_inner_ipv4 = inner[0] / 16 == 4;
    let traffic_class = if is_inner_ipv4 { inner[1] } else { (inner[0] % 16) * 16 + inner[1] / 16 };
    // RFC 6040 section 4.1, normal mode: ECN is copied. The DSCP is the lane's, or copied.
    let traffic_class = match tunnel.dscp {
        Some(dscp) => dscp * 4 + traffic_class % 4,
        None => traffic_class,
    };
    let gre = gre_header(tunnel, inner, is_inner_ipv4, numbers.sequence);
    let mut payload = gre;
    let mut bytes = payload.len() + inner_bytes;
    if tunnel.udp {
        bytes += 8;
        let mut udp = DYNAMIC_PORTS.to_be_bytes().to_vec();
        udp.extend(GRE_IN_UDP.to_be_bytes());
        udp.extend((bytes as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        payload = udp;
        if tunnel.local.is_ipv6() {
            set_udp_checksum(&mut payload, tunnel.local, tunnel.remote, inner, bytes);
        }
    }
    let protocol = if tunnel.udp { UDP } else { GRE };
    let mut header = match tunnel.local {
        IpAddr::V4(_) => {
            let mut header = vec![0x45, traffic_class];
            header.extend(((20 + bytes) as u16).to_be_bytes());
            header.extend(numbers.identification.to_be_bytes());
            header.extend([u8::from(tunnel.dont_fragment) * 0x40, 0, tunnel.ttl, protocol, 0, 0]);
            header
        }
        IpAddr::V6(_) => {
            let mut header = vec![0x60 + traffic_class / 16, traffic_class % 16 * 16, 0, 0];
            header.extend((bytes as u16).to_be_bytes());
            header.extend([protocol, tunnel.ttl]);
            header
        }
    };
    header.extend(octets(tunnel.local));
    header.extend(octets(tunnel.remote));
    if tunnel.local.is_ipv4() {
        let checksum = checksum_over(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    header.extend(payload);
    header
}

/// The packet in outer headers of this tunnel, from the outer IP header on, with any sequence number.
pub fn in_tunnel(tunnel: &Tunnel, inner: &[u8], sequence: u32) -> Vec<u8> {
    let numbers = Numbers { sequence, identification: 0 };
    let mut packet = outer_headers(tunnel, inner, inner.len(), &numbers);
    packet.extend(inner);
    packet
}

/// RFC 2784 section 2, RFC 2890 section 2.
fn gre_header(tunnel: &Tunnel, inner: &[u8], is_inner_ipv4: bool, sequence: u32) -> Vec<u8> {
    let flags = u8::from(tunnel.checksum) * 0x80
        + u8::from(tunnel.key.is_some()) * 0x20
        + u8::from(tunnel.sequence) * 0x10;
    let protocol: [u8; 2] = if is_inner_ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let mut header = vec![flags, 0, protocol[0], protocol[1]];
    if tunnel.checksum {
        header.extend([0; 4]);
    }
    if let Some(key) = tunnel.key {
        header.extend(key.to_be_bytes());
    }
    if tunnel.sequence {
        header.extend(sequence.to_be_bytes());
    }
    if tunnel.checksum {
        let checksum = checksum_over(&[&header, inner].concat());
        header[4..6].copy_from_slice(&checksum.to_be_bytes());
    }
    header
}

fn set_udp_checksum(
    datagram: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    rest: &[u8],
    bytes: usize,
) {
    datagram[6..8].fill(0);
    let pseudo_header = pseudo_header(source, destination, UDP, bytes);
    let checksum = checksum_over(&[&pseudo_header, &*datagram, rest].concat());
    // Zero would say that there is none.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
}

/// Takes over what `ours` says in its outer headers to tell flows apart, and says what it was; none when it may not be
/// that. `theirs` is the model's frame of a tunnel.
pub fn adopt_entropy(theirs: &mut [u8], ours: &[u8]) -> Option<u32> {
    if ours.len() != theirs.len() {
        return None;
    }
    let is_ipv6 = u16_at(theirs, 12) == 0x86dd;
    let (protocol, start) =
        if is_ipv6 { (theirs[IP + 6], IP + 40) } else { (theirs[IP + 9], IP + 20) };
    let mut entropy = 0;
    if is_ipv6 {
        theirs[IP + 1] = theirs[IP + 1] / 16 * 16 + ours[IP + 1] % 16;
        theirs[IP + 2..IP + 4].copy_from_slice(&ours[IP + 2..IP + 4]);
        entropy = u32::from(ours[IP + 1] % 16) << 16 | u32::from(u16_at(ours, IP + 2));
        // RFC 6437: zero is no label.
        if entropy == 0 {
            return None;
        }
    }
    if protocol == UDP {
        let port = u16_at(ours, start);
        if port < DYNAMIC_PORTS {
            return None;
        }
        theirs[start..start + 2].copy_from_slice(&port.to_be_bytes());
        entropy = entropy << 16 | u32::from(port);
        if is_ipv6 {
            let address = |at| IpAddr::from(super::super::ipv6_at(ours, at));
            let (source, destination) = (address(IP + 8), address(IP + 24));
            let bytes = theirs.len() - start;
            set_udp_checksum(&mut theirs[start..], source, destination, &[], bytes);
        }
    }
    Some(entropy)
}

/// An ICMP or ICMPv6 error about a packet, from its IP header on; none when nobody may be told.
pub(super) fn icmp_error(packet: &Packet, source: IpAddr, told: Told) -> Option<Vec<u8>> {
    let payload = packet.payload_unbounded().ok()?;
    if payload.is_later_fragment || is_many_or_nobody(packet, told) {
        return None;
    }
    let icmp = if packet.is_ipv4() { 1 } else { 58 };
    if payload.protocol == icmp {
        let is_there = payload.start + 4 <= payload.end.min(packet.bytes.len());
        let kind = packet.bytes.get(payload.start).filter(|_| is_there)?;
        let is_error = match packet.is_ipv4() {
            true => [3, 4, 5, 11, 12].contains(kind),
            false => *kind < 128 || *kind == 137,
        };
        if is_error {
            return None;
        }
    }
    let offender = &packet.bytes[IP..packet.bytes.len().min(payload.end)];
    Some(match packet.is_ipv4() {
        true => ipv4_error(offender, source, packet.source(), told),
        false => ipv6_error(offender, source, packet.source(), told),
    })
}

/// RFC 1812 section 4.3.2.7, RFC 4443 section 2.4(e).
fn is_many_or_nobody(packet: &Packet, told: Told) -> bool {
    match (packet.source(), packet.destination()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let first = source.octets()[0];
            let is_one = first != 0 && first != 127 && first < 224;
            !is_one || destination.is_multicast() || destination.is_broadcast()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let is_one =
                !source.is_unspecified() && !source.is_loopback() && !source.is_multicast();
            !is_one || destination.is_multicast() && !matches!(told, Told::TooBig(_))
        }
        _ => true,
    }
}

/// RFC 792 and RFC 1191; in at most 576 bytes, and as network control (RFC 1812 section 4.3.2).
fn ipv4_error(offender: &[u8], source: IpAddr, destination: IpAddr, told: Told) -> Vec<u8> {
    let (kind, code, mtu_bytes) = match told {
        Told::TimeExceeded => (11, 0, 0),
        Told::TooBig(mtu_bytes) => (3, 4, mtu_bytes as u16),
        Told::Unreachable => (3, 0, 0),
    };
    let [high, low] = mtu_bytes.to_be_bytes();
    let mut icmp = vec![kind, code, 0, 0, 0, 0, high, low];
    icmp.extend(&offender[..offender.len().min(576 - 28)]);
    let checksum = checksum_over(&icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let [high, low] = (20 + icmp.len() as u16).to_be_bytes();
    let mut message = vec![0x45, 0xc0, high, low, 0, 0, 0x40, 0, 64, 1, 0, 0];
    message.extend(octets(source));
    message.extend(octets(destination));
    let checksum = checksum_over(&message);
    message[10..12].copy_from_slice(&checksum.to_be_bytes());
    message.extend(icmp);
    message
}

/// RFC 4443, in at most 1280 bytes.
fn ipv6_error(offender: &[u8], source: IpAddr, destination: IpAddr, told: Told) -> Vec<u8> {
    let (kind, code, mtu_bytes) = match told {
        Told::TimeExceeded => (3, 0, 0),
        Told::TooBig(mtu_bytes) => (2, 0, mtu_bytes as u32),
        Told::Unreachable => (1, 0, 0),
    };
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend(mtu_bytes.to_be_bytes());
    icmp.extend(&offender[..offender.len().min(1280 - 48)]);
    let pseudo_header = pseudo_header(source, destination, 58, icmp.len());
    let checksum = checksum_over(&[&pseudo_header, &*icmp].concat());
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut message = vec![0x6c, 0, 0, 0];
    message.extend((icmp.len() as u16).to_be_bytes());
    message.extend([58, 64]);
    message.extend(octets(source));
    message.extend(octets(destination));
    message.extend(icmp);
    message
}
