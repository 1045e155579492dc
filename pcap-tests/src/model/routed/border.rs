//! What arrives in a tunnel: whose it is, and the first thing that is wrong with it, from the outside in.

use std::net::IpAddr;

use dataplane::config::Routed;
use dataplane::lane::Lane;
use dataplane::lane::decapsulation::Refusal;
use dataplane::lane::tunnel::Tunnel;

use super::IP;
use super::packet::{Packet, Unread, payload_of, reaches};
use super::wire::{internet_sum, is_right, pseudo_header};
use crate::model::{ipv4_at, ipv6_at, u16_at, u32_at};

const GRE: u8 = 47;
const UDP: u8 = 17;
const GRE_IN_UDP: u16 = 4754;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A packet that was let in.
pub(super) struct Arrived {
    pub(super) lane: usize,
    /// Its MAC addresses are left over from the outer frame.
    pub(super) inner: Packet,
    pub(super) is_dangerous: bool,
    pub(super) is_unused: bool,
}

/// The outer IP header.
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    is_fragment: bool,
    ecn: u8,
    start: usize,
    end: usize,
}

/// Whether a frame is for the border at all: GRE, or UDP to the port of GRE in UDP, to an end of a tunnel.
pub(super) fn concerns(packet: &Packet, tunnels: &[Tunnel]) -> bool {
    if !packet.has_header() || !tunnels.iter().any(|one| one.local == packet.destination()) {
        return false;
    }
    let bytes = &packet.bytes;
    let (protocol, start, is_later) = if packet.is_ipv4() {
        let start = IP + usize::from(bytes[IP] % 16) * 4;
        (bytes[IP + 9], start, u16_at(bytes, IP + 6) & 0x1fff != 0)
    } else {
        let Ok(payload) = packet.payload_unbounded() else { return false };
        (payload.protocol, payload.start, payload.is_later_fragment)
    };
    let has_port = bytes.len() >= start + 4 && u16_at(bytes, start + 2) == GRE_IN_UDP;
    protocol == GRE || protocol == UDP && !is_later && has_port
}

fn outer_refusal(unread: Unread) -> Refusal {
    match unread {
        Unread::Lies => Refusal::Malformed,
        Unread::Cut => Refusal::Truncated,
    }
}

fn inner_refusal(unread: Unread) -> Refusal {
    match unread {
        Unread::Lies => Refusal::InnerMalformed,
        Unread::Cut => Refusal::Truncated,
    }
}

/// Everything about a frame that [`concerns`] the border.
pub(super) fn decapsulate(packet: &Packet, routed: &Routed) -> Result<Arrived, Refusal> {
    let bytes = &packet.bytes;
    let outer = read_outer(packet)?;
    // Tunnels between just these ends, with their lanes.
    let tunnels = routed.lanes.iter().enumerate().filter_map(|(number, lane)| match lane.value {
        Lane::Gre(tunnel) => Some((number, tunnel)),
        _ => None,
    });
    let ends = (outer.source, outer.destination);
    let peers: Vec<(usize, Tunnel)> =
        tunnels.filter(|(_, tunnel)| (tunnel.remote, tunnel.local) == ends).collect();
    if peers.is_empty() {
        return Err(Refusal::Peer);
    }
    if outer.is_fragment {
        return Err(Refusal::OuterFragment);
    }
    let is_udp = outer.protocol == UDP;
    let is_spoken = peers.iter().any(|(_, tunnel)| tunnel.udp == is_udp);
    if ![GRE, UDP].contains(&outer.protocol) || !is_spoken {
        return Err(Refusal::Protocol);
    }
    if is_udp {
        check_udp(packet, &outer)?;
    }
    let gre = outer.start + if is_udp { 8 } else { 0 };
    let (has_checksum, key, protocol, inner) = read_gre(bytes, gre, outer.end)?;
    let lane = peers.iter().find(|(_, tunnel)| tunnel.udp == is_udp && tunnel.key == key);
    let (lane, _) = *lane.ok_or(Refusal::Key)?;
    if has_checksum {
        reaches(outer.end, outer.end, bytes).map_err(outer_refusal)?;
        if !is_right(&bytes[gre..outer.end]) {
            return Err(Refusal::GreChecksum);
        }
    }
    let inner_end = check_inner(bytes, protocol, inner, outer.end, routed)?;
    let is_ipv4 = protocol == 0x0800;
    let kept_end = inner_end.min(bytes.len());
    let mut frame = bytes[..12].to_vec();
    frame.extend(protocol.to_be_bytes());
    frame.extend(&bytes[inner..kept_end]);
    let inner_ecn = if is_ipv4 { frame[IP + 1] % 4 } else { frame[IP + 1] / 16 % 4 };
    let (ecn, is_dangerous, is_unused) =
        leaving(inner_ecn, outer.ecn).ok_or(Refusal::Congestion)?;
    let mut inner = Packet { bytes: frame, wire_bytes: IP + inner_end - inner };
    if ecn != inner_ecn {
        let octet = match is_ipv4 {
            true => inner.bytes[IP + 1],
            false => inner.bytes[IP] % 16 * 16 + inner.bytes[IP + 1] / 16,
        };
        // Marking writes the upper six bits and keeps the two of ECN: so those first, then the same DSCP.
        set_traffic_class(&mut inner, octet / 4 * 4 + ecn);
    }
    Ok(Arrived { lane, inner, is_dangerous, is_unused })
}

/// Writes the octet; the checksum of IPv4 is made anew, for it was right.
fn set_traffic_class(packet: &mut Packet, octet: u8) {
    if packet.is_ipv4() {
        packet.bytes[IP + 1] = octet;
        let header_bytes = usize::from(packet.bytes[IP] % 16) * 4;
        packet.bytes[IP + 10..IP + 12].fill(0);
        let checksum = !internet_sum(&packet.bytes[IP..IP + header_bytes]);
        packet.bytes[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet.bytes[IP] = 0x60 + octet / 16;
        packet.bytes[IP + 1] = octet % 16 * 16 + packet.bytes[IP + 1] % 16;
    }
}

fn read_outer(packet: &Packet) -> Result<Outer, Refusal> {
    let bytes = &packet.bytes;
    let wire_bytes = packet.wire_bytes.max(bytes.len());
    if packet.is_ipv4() {
        let payload = packet.payload().map_err(outer_refusal)?;
        reaches(payload.start, wire_bytes, bytes).map_err(outer_refusal)?;
        if !is_right(&bytes[IP..payload.start]) {
            return Err(Refusal::OuterChecksum);
        }
        return Ok(Outer {
            source: packet.source(),
            destination: packet.destination(),
            protocol: payload.protocol,
            is_fragment: u16_at(bytes, IP + 6) & 0x3fff != 0,
            ecn: bytes[IP + 1] % 4,
            start: payload.start,
            end: payload.end,
        });
    }
    reaches(IP + 40, wire_bytes, bytes).map_err(outer_refusal)?;
    let end = IP + 40 + usize::from(u16_at(bytes, IP + 4));
    if bytes[IP] / 16 != 6 || end > wire_bytes {
        return Err(Refusal::Malformed);
    }
    let mut protocol = bytes[IP + 6];
    let mut start = IP + 40;
    if protocol == DESTINATION_OPTIONS {
        reaches(start + 8, end, bytes).map_err(outer_refusal)?;
        // RFC 2473 section 4.1.1: the tunnel encapsulation limit, and padding. Nothing else may stand here.
        let option = &bytes[start..start + 8];
        if option[1..4] == [0, 4, 1] && option[5..8] == [1, 1, 0] {
            protocol = option[0];
            start += 8;
        }
    }
    Ok(Outer {
        source: packet.source(),
        destination: packet.destination(),
        protocol,
        is_fragment: protocol == FRAGMENT,
        ecn: bytes[IP + 1] / 16 % 4,
        start,
        end,
    })
}

/// RFC 8086 section 3.
fn check_udp(packet: &Packet, outer: &Outer) -> Result<(), Refusal> {
    let bytes = &packet.bytes;
    reaches(outer.start + 8, outer.end, bytes).map_err(outer_refusal)?;
    if u16_at(bytes, outer.start + 2) != GRE_IN_UDP {
        return Err(Refusal::Protocol);
    }
    let length = outer.end - outer.start;
    if usize::from(u16_at(bytes, outer.start + 4)) != length {
        return Err(Refusal::Malformed);
    }
    if u16_at(bytes, outer.start + 6) == 0 {
        let is_ipv4 = outer.source.is_ipv4();
        return if is_ipv4 { Ok(()) } else { Err(Refusal::UdpChecksumMissing) };
    }
    reaches(outer.end, outer.end, bytes).map_err(outer_refusal)?;
    let pseudo_header = pseudo_header(outer.source, outer.destination, UDP, length);
    let summed = [&pseudo_header, &bytes[outer.start..outer.end]].concat();
    if is_right(&summed) { Ok(()) } else { Err(Refusal::UdpChecksum) }
}

/// Whether there is a checksum, the key, the protocol inside, and where that starts.
fn read_gre(
    bytes: &[u8],
    gre: usize,
    end: usize,
) -> Result<(bool, Option<u32>, u16, usize), Refusal> {
    reaches(gre + 4, end, bytes).map_err(outer_refusal)?;
    let flags = u16_at(bytes, gre);
    if flags & 7 != 0 {
        return Err(Refusal::Version);
    }
    if flags & 0x4000 != 0 {
        return Err(Refusal::Routing);
    }
    if flags & 0x0fff != 0 {
        return Err(Refusal::Reserved);
    }
    let mut at = gre + 4;
    let mut option = |is_there: bool| {
        if is_there {
            reaches(at + 4, end, bytes).map_err(outer_refusal)?;
            at += 4;
        }
        Ok::<Option<usize>, Refusal>(is_there.then(|| at - 4))
    };
    let checksum = option(flags & 0x8000 != 0)?;
    let key = option(flags & 0x2000 != 0)?;
    option(flags & 0x1000 != 0)?;
    if checksum.is_some_and(|at| u16_at(bytes, at + 2) != 0) {
        return Err(Refusal::Reserved);
    }
    let key = key.map(|at| u32_at(bytes, at));
    Ok((checksum.is_some(), key, u16_at(bytes, gre + 2), at))
}

/// Where the inner packet ends.
fn check_inner(
    bytes: &[u8],
    protocol: u16,
    at: usize,
    end: usize,
    routed: &Routed,
) -> Result<usize, Refusal> {
    let is_ipv4 = match protocol {
        0x0800 => true,
        0x86dd => false,
        _ => return Err(Refusal::InnerProtocol),
    };
    let payload = payload_of(bytes, at, end, is_ipv4).map_err(inner_refusal)?;
    if is_ipv4 {
        reaches(payload.start, payload.end, bytes).map_err(inner_refusal)?;
        if !is_right(&bytes[at..payload.start]) {
            return Err(Refusal::InnerChecksum);
        }
    }
    let address = |offset_ipv4: usize, offset_ipv6: usize| -> IpAddr {
        match is_ipv4 {
            true => ipv4_at(bytes, at + offset_ipv4).into(),
            false => ipv6_at(bytes, at + offset_ipv6).into(),
        }
    };
    let (source, destination) = (address(12, 8), address(16, 24));
    if routed.tunnels().any(|(_, tunnel)| tunnel.local == destination) {
        if payload.protocol == GRE {
            return Err(Refusal::Nested);
        }
        if payload.protocol == UDP && !payload.is_later_fragment {
            match reaches(payload.start + 4, payload.end, bytes) {
                Ok(()) if u16_at(bytes, payload.start + 2) == GRE_IN_UDP => {
                    return Err(Refusal::Nested);
                }
                Err(Unread::Cut) => return Err(Refusal::Truncated),
                _ => {}
            }
        }
    }
    if !routed.remote_prefixes.value.iter().any(|net| net.contains(&source)) {
        return Err(Refusal::InnerSource);
    }
    if !routed.local_prefixes.value.iter().any(|net| net.contains(&destination)) {
        return Err(Refusal::InnerDestination);
    }
    Ok(payload.end)
}

/// RFC 6040 figure 4: what the field becomes, whether that is dangerous, whether it has no known use; none when the
/// packet must be dropped. Codepoints: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
fn leaving(inner: u8, outer: u8) -> Option<(u8, bool, bool)> {
    match inner {
        0 if outer == 3 => None,
        0 => Some((0, outer != 0, false)),
        3 => Some((3, outer == 1, false)),
        _ if outer == 3 => Some((3, false, false)),
        2 if outer == 1 => Some((1, false, false)),
        1 if outer == 2 => Some((1, false, true)),
        inner => Some((inner, false, false)),
    }
}
