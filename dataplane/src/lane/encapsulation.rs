//! Encapsulation: an IP packet from the LAN becomes the payload of a GRE packet.
//!
//! ```text
//!   Ethernet | inner IP ...                        what goes in
//!   Ethernet | IP | (UDP) | GRE | inner IP ...     what comes out
//!            |<-- 24 to 64 --->|
//! ```
//!
//! The outer headers are written once, when the tunnel is made. A packet takes a copy of them, its length, its
//! ECN field, a checksum that starts from the sum of the copy, and what the tunnel's options ask for.
//!
//! * **ECN**: the outer field is the inner one (RFC 6040 section 4.1, normal mode).
//! * **Identification**: an outer IPv4 packet with DF is atomic and has 0; others draw from [`Numbers`]
//!   (RFC 6864 section 4).
//! * **UDP checksum**: none over IPv4, as RFC 8086 section 3 allows in a network under one operator, which is
//!   what a WAN between two sites is. Over IPv6 it is there: middleboxes drop UDP without one (RFC 8200
//!   section 8.1), and the exemption of RFC 6935 would have to be arranged with all of them. It costs one pass
//!   over the packet, as the GRE checksum does.
//! * **Flow label**: of outer IPv6, from the entropy (RFC 6438 section 3).
//! * The tunnel encapsulation limit (RFC 2473 section 4.1.1) is not sent. Nesting ends where a lane's traffic
//!   enters a tunnel to ourselves: see [`decapsulation`](super::decapsulation).

use std::net::IpAddr;

use super::ecn;
use super::sequence::Numbers;
use super::template::Template;
use super::tunnel::Tunnel;
use crate::wire::buffer::Buffer;
use crate::wire::ethernet;
use crate::wire::frame::Version;
use crate::wire::{checksum, gre, ipv4, ipv6, udp};

/// Most bytes of all outer headers.
const HEADER_BYTES_MAX: usize = 64;
const _: () = assert!(
    ipv6::HEADER_BYTES + udp::HEADER_BYTES + gre::HEADER_BYTES_MAX == HEADER_BYTES_MAX,
    "the largest outer headers fill what is prepared"
);
/// RFC 8086 section 3.2.1 keeps source ports to the dynamic range, which leaves 14 bits of entropy.
const SOURCE_PORT_MIN: u16 = 0xc000;

super::reasons::reasons! {
    /// Why a packet was not encapsulated. Nothing in it was changed but that padding may be gone.
    enum Refusal;
    /// Packets not encapsulated, by reason.
    struct Refusals;
    /// Neither IPv4 nor IPv6, or lengths that contradict each other.
    Malformed malformed,
    /// A capture record that kept too little: not the inner header, or not all that a checksum is over.
    Truncated truncated,
    /// With its outer headers longer than an IP packet can be.
    TooLong too_long,
    /// The storage has no room for the outer headers.
    NoRoom no_room,
}

/// One tunnel's way out, of one worker.
#[derive(Debug, Clone)]
pub struct Encapsulator {
    /// Outer IP, UDP and GRE header; whatever differs between packets is zero.
    prepared: [u8; HEADER_BYTES_MAX],
    /// Bytes of them.
    length: usize,
    version: Version,
    ether_type: [u8; 2],
    /// Sum of what is prepared of the IPv4 header; over IPv6, of the pseudo-header and the UDP header.
    ip_sum: u16,
    /// Sum of what is prepared of the GRE header.
    gre_sum: u16,
    udp: bool,
    /// Where the GRE header starts in `prepared`.
    gre_offset: usize,
    /// Where the sequence number stands in `prepared`.
    sequence_offset: Option<usize>,
    gre_checksum: bool,
    dscp: Option<u8>,
    dont_fragment: bool,
    numbers: Numbers,
}

/// What encapsulation needs to know of the packet that goes in.
struct Inner {
    version: Version,
    traffic_class: u8,
    bytes: usize,
}

impl Encapsulator {
    /// Prepares the outer headers. Workers that share a tunnel share its numbers.
    ///
    /// # Panics
    ///
    /// When the tunnel's two ends are not of the same IP version.
    pub fn new(tunnel: &Tunnel, numbers: Numbers) -> Self {
        let mut prepared = [0; HEADER_BYTES_MAX];
        let protocol = if tunnel.udp { udp::PROTOCOL } else { gre::PROTOCOL };
        let (version, ether_type, ip_bytes) = match (tunnel.local, tunnel.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                prepared[0] = 0x45;
                prepared[6] = u8::from(tunnel.dont_fragment) << 6;
                prepared[8] = tunnel.ttl;
                prepared[9] = protocol;
                prepared[12..16].copy_from_slice(&local.octets());
                prepared[16..20].copy_from_slice(&remote.octets());
                (Version::V4, ethernet::IPV4, ipv4::HEADER_BYTES)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                prepared[0] = 0x60;
                prepared[6] = protocol;
                prepared[7] = tunnel.ttl;
                prepared[8..24].copy_from_slice(&local.octets());
                prepared[24..40].copy_from_slice(&remote.octets());
                (Version::V6, ethernet::IPV6, ipv6::HEADER_BYTES)
            }
            (local, remote) => panic!("a tunnel from {local} to {remote} changes its IP version"),
        };
        let ip_sum = match version {
            Version::V4 => checksum::sum(&prepared[..ip_bytes]),
            Version::V6 => {
                let addresses_sum = checksum::sum(&prepared[8..ip_bytes]);
                let rest = u16::from(udp::PROTOCOL) + udp::GRE_PORT;
                checksum::add(addresses_sum, rest)
            }
        };
        let mut length = ip_bytes;
        if tunnel.udp {
            prepared[length + 2..length + 4].copy_from_slice(&udp::GRE_PORT.to_be_bytes());
            length += udp::HEADER_BYTES;
        }
        let gre_offset = length;
        let (length, sequence_offset) = prepare_gre(tunnel, &mut prepared, gre_offset);
        Encapsulator {
            prepared,
            length,
            version,
            ether_type: ether_type.to_be_bytes(),
            ip_sum,
            gre_sum: checksum::sum(&prepared[gre_offset..length]),
            udp: tunnel.udp,
            gre_offset,
            sequence_offset,
            gre_checksum: tunnel.checksum,
            dscp: tunnel.dscp,
            dont_fragment: tunnel.dont_fragment,
            numbers,
        }
    }

    /// Bytes by which packets grow: all outer headers, without Ethernet's.
    pub fn overhead_bytes(&self) -> usize {
        self.length
    }

    /// What the outer headers come to for IPv4 packets, with the Ethernet header `link`; none when the tunnel asks
    /// of a packet what a template has not.
    pub fn template(&self, link: &[u8; ethernet::HEADER_BYTES]) -> Option<Template> {
        let is_plain = self.version == Version::V4
            && self.dont_fragment
            && !self.udp
            && !self.gre_checksum
            && self.sequence_offset.is_none();
        let outer = &self.prepared[..self.length];
        is_plain.then(|| Template::new(link, outer, self.ip_sum, self.dscp))
    }

    /// Encapsulates the frame whose IP header follows an untagged Ethernet header; Ethernet padding goes. The
    /// MAC addresses are `link`'s (its EtherType is not looked at). `entropy` tells the flow from others: all
    /// packets of a flow have the same. Returns the bytes of the new frame on the wire, which are more than
    /// are in `buffer` when it holds a cut capture record. Whether the outer packet fits the tunnel's MTU is
    /// for the caller to know before.
    #[inline(always)]
    pub fn encapsulate(
        &self,
        buffer: &mut Buffer<'_>,
        link: &[u8; ethernet::HEADER_BYTES],
        entropy: u16,
    ) -> Result<usize, Refusal> {
        let Some(header) = buffer.get(ethernet::HEADER_BYTES..) else {
            return Err(Refusal::Truncated);
        };
        let Some(header) = header.first_chunk::<{ ipv4::HEADER_BYTES }>() else {
            return Err(Refusal::Truncated);
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        // Here and not in a function of its own: its answer would be a `Result` in memory, written byte by byte
        // and read as a whole, for which the processor waits.
        let inner = match header[0] >> 4 {
            4 => {
                let header_bytes = usize::from(header[0] & 0x0f) * 4;
                let bytes = usize::from(word(2));
                if header_bytes < ipv4::HEADER_BYTES || bytes < header_bytes {
                    return Err(Refusal::Malformed);
                }
                Inner { version: Version::V4, traffic_class: header[1], bytes }
            }
            6 => {
                let bytes = ipv6::HEADER_BYTES + usize::from(word(4));
                Inner { version: Version::V6, traffic_class: (word(0) >> 4) as u8, bytes }
            }
            _ => return Err(Refusal::Malformed),
        };
        let outer_bytes = self.length + inner.bytes;
        if outer_bytes > self.outer_bytes_max() {
            return Err(Refusal::TooLong);
        }
        let inner_end = ethernet::HEADER_BYTES + inner.bytes;
        if self.sums_payload() && buffer.len() < inner_end {
            return Err(Refusal::Truncated);
        }
        buffer.truncate(inner_end);
        // Before the packet moves, whose bytes may still be in flight when it has.
        let payload_sum =
            if self.sums_payload() { checksum::sum(&buffer[ethernet::HEADER_BYTES..]) } else { 0 };
        if !buffer.insert(ethernet::HEADER_BYTES, self.length) {
            return Err(Refusal::NoRoom);
        }
        let (ethernet, header) =
            buffer[..ethernet::HEADER_BYTES + self.length].split_at_mut(ethernet::HEADER_BYTES);
        ethernet[..12].copy_from_slice(&link[..12]);
        ethernet[12..].copy_from_slice(&self.ether_type);
        self.write(header, payload_sum, &inner, outer_bytes, entropy);
        Ok(ethernet::HEADER_BYTES + outer_bytes)
    }

    /// An IPv6 payload length does not count the fixed header.
    #[inline(always)]
    fn outer_bytes_max(&self) -> usize {
        match self.version {
            Version::V4 => 0xffff,
            Version::V6 => 0xffff + ipv6::HEADER_BYTES,
        }
    }

    /// Whether there is a checksum over all that is inside.
    #[inline(always)]
    pub fn sums_payload(&self) -> bool {
        self.gre_checksum || self.udp && self.version == Version::V6
    }

    /// Writes the outer headers, from the inside out.
    #[inline(always)]
    fn write(
        &self,
        header: &mut [u8],
        payload_sum: u16,
        inner: &Inner,
        outer_bytes: usize,
        entropy: u16,
    ) {
        copy_prepared(header, &self.prepared);
        let gre_header = &mut header[self.gre_offset..];
        let gre_sum = self.write_gre(gre_header, inner.version, payload_sum);
        let traffic_class = match self.dscp {
            Some(dscp) => dscp << 2 | inner.traffic_class & ecn::MASK,
            None => inner.traffic_class,
        };
        match self.version {
            Version::V4 => {
                if self.udp {
                    let bytes = outer_bytes - ipv4::HEADER_BYTES;
                    write_udp(&mut header[ipv4::HEADER_BYTES..], bytes as u16, entropy);
                }
                self.write_ipv4(header, traffic_class, outer_bytes as u16);
            }
            Version::V6 => {
                let bytes = (outer_bytes - ipv6::HEADER_BYTES) as u16;
                if self.udp {
                    let udp_header = &mut header[ipv6::HEADER_BYTES..];
                    let source_port = write_udp(udp_header, bytes, entropy);
                    self.write_udp_checksum(udp_header, source_port, bytes, gre_sum);
                }
                write_ipv6(header, traffic_class, bytes, entropy);
            }
        }
    }

    /// Returns the sum of GRE header and payload. Sums are taken of the numbers that are written, not of the
    /// bytes, which would have to be waited for.
    #[inline(always)]
    fn write_gre(&self, header: &mut [u8], inner: Version, payload_sum: u16) -> u16 {
        let protocol = gre::protocol_of(inner);
        let mut sum = checksum::add(checksum::add(self.gre_sum, protocol), payload_sum);
        header[2..4].copy_from_slice(&protocol.to_be_bytes());
        if let Some(offset) = self.sequence_offset {
            let at = offset - self.gre_offset;
            let number = self.numbers.next_sequence();
            sum = checksum::add(sum, checksum::add((number >> 16) as u16, number as u16));
            header[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        if self.gre_checksum {
            header[4..6].copy_from_slice(&(!sum).to_be_bytes());
            sum = 0xffff;
        }
        sum
    }

    /// The length counts twice: in the pseudo-header and in the header (RFC 8200 section 8.1).
    #[inline(always)]
    fn write_udp_checksum(&self, header: &mut [u8], source_port: u16, bytes: u16, gre_sum: u16) {
        let sum = checksum::add(checksum::add(self.ip_sum, source_port), gre_sum);
        let sum = checksum::add(sum, checksum::add(bytes, bytes));
        // Zero would say that there is none (RFC 768).
        let field = if sum == 0xffff { 0xffff } else { !sum };
        header[6..8].copy_from_slice(&field.to_be_bytes());
    }

    #[inline(always)]
    fn write_ipv4(&self, header: &mut [u8], traffic_class: u8, total_bytes: u16) {
        let mut sum = checksum::add(self.ip_sum, u16::from(traffic_class));
        sum = checksum::add(sum, total_bytes);
        header[1] = traffic_class;
        header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
        if !self.dont_fragment {
            let identification = self.numbers.next_identification();
            sum = checksum::add(sum, identification);
            header[4..6].copy_from_slice(&identification.to_be_bytes());
        }
        header[10..12].copy_from_slice(&(!sum).to_be_bytes());
    }
}

/// Writes flags and key; returns where the header ends, and where a sequence number would stand.
fn prepare_gre(
    tunnel: &Tunnel,
    prepared: &mut [u8; HEADER_BYTES_MAX],
    offset: usize,
) -> (usize, Option<usize>) {
    let mut flags = 0;
    let mut end = offset + gre::HEADER_BYTES;
    if tunnel.checksum {
        flags |= gre::CHECKSUM;
        end += gre::OPTION_BYTES;
    }
    if let Some(key) = tunnel.key {
        flags |= gre::KEY;
        prepared[end..end + 4].copy_from_slice(&key.to_be_bytes());
        end += gre::OPTION_BYTES;
    }
    let sequence_offset = tunnel.sequence.then_some(end);
    if tunnel.sequence {
        flags |= gre::SEQUENCE;
        end += gre::OPTION_BYTES;
    }
    prepared[offset..offset + 2].copy_from_slice(&flags.to_be_bytes());
    (end, sequence_offset)
}

/// The first bytes of what was prepared, as many as `header` has: 24 to 64. Two copies of a fixed length that
/// overlap need no call.
#[inline(always)]
fn copy_prepared(header: &mut [u8], prepared: &[u8; HEADER_BYTES_MAX]) {
    let length = header.len();
    if length < 32 {
        header[..16].copy_from_slice(&prepared[..16]);
        header[length - 16..].copy_from_slice(&prepared[length - 16..length]);
    } else {
        header[..32].copy_from_slice(&prepared[..32]);
        header[length - 32..].copy_from_slice(&prepared[length - 32..length]);
    }
}

/// Source port, which is returned, and length; the destination port is prepared.
#[inline(always)]
fn write_udp(header: &mut [u8], length_bytes: u16, entropy: u16) -> u16 {
    let source_port = SOURCE_PORT_MIN | entropy;
    header[0..2].copy_from_slice(&source_port.to_be_bytes());
    header[4..6].copy_from_slice(&length_bytes.to_be_bytes());
    source_port
}

#[inline(always)]
fn write_ipv6(header: &mut [u8], traffic_class: u8, payload_bytes: u16, entropy: u16) {
    let first = 0x6000_0000 | u32::from(traffic_class) << 20 | flow_label(entropy);
    header[..4].copy_from_slice(&first.to_be_bytes());
    header[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
}

/// Twenty bits that look uniform (RFC 6437 section 3), never zero, which would mean "none".
#[inline(always)]
fn flow_label(entropy: u16) -> u32 {
    (u32::from(entropy).wrapping_mul(0x9e37_79b1) >> 12).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hop;
    use etherparse::{IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0xff, 0xff];

    fn tunnel(version: Version) -> Tunnel {
        let (local, remote) = match version {
            Version::V4 => ("192.0.2.1", "198.51.100.1"),
            Version::V6 => ("fd00:9::1", "fd00:9::2"),
        };
        Tunnel {
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            key: None,
            sequence: false,
            checksum: false,
            ttl: 61,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: None,
            udp: false,
        }
    }

    fn inner(version: Version, traffic_class: u8) -> Vec<u8> {
        let mut packet = Vec::new();
        let payload = b"seventeen bytes..";
        match version {
            Version::V4 => {
                let mut header =
                    Ipv4Header::new(17, 9, IpNumber::TCP, [10, 0, 0, 1], [10, 1, 0, 1])
                        .expect("IPv4");
                (header.dscp, header.ecn) = (
                    (traffic_class >> 2).try_into().expect("a DSCP"),
                    (traffic_class & 3).try_into().expect("an ECN field"),
                );
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut packet).expect("IPv4");
            }
            Version::V6 => {
                let header = Ipv6Header {
                    traffic_class,
                    payload_length: 17,
                    next_header: IpNumber::TCP,
                    ..Ipv6Header::default()
                };
                header.write(&mut packet).expect("IPv6");
            }
        }
        packet.extend_from_slice(payload);
        packet
    }

    /// A frame in 2048 bytes, with Ethernet padding behind the packet.
    fn encapsulated(tunnel: &Tunnel, inner: &[u8]) -> Vec<u8> {
        let encapsulator = Encapsulator::new(tunnel, Numbers::default());
        send(&encapsulator, inner, 0x1234)
    }

    #[test]
    fn a_template_makes_of_a_plain_packet_what_its_encapsulator_does() {
        for (key, dscp) in [(None, None), (Some(7), None), (None, Some(46)), (Some(0), Some(0))] {
            let tunnel = Tunnel { key, dscp, ..tunnel(Version::V4) };
            let encapsulator = Encapsulator::new(&tunnel, Numbers::default());
            let template = encapsulator.template(&LINK).expect("a plain tunnel");
            assert_eq!(template.overhead_bytes(), encapsulator.overhead_bytes());
            for traffic_class in 0..=255 {
                let packet = inner(Version::V4, traffic_class);
                let mut storage = [0xee; 2048];
                storage[14..14 + packet.len()].copy_from_slice(&packet);
                let mut buffer = Buffer::new(&mut storage, 14 + packet.len() + 9);
                assert!(template.encapsulate(&mut buffer, packet.len() as u16));
                let mut expected = send(&encapsulator, &packet, 0);
                hop::take(&mut expected, 14 + encapsulator.overhead_bytes());
                assert_eq!(buffer[..], expected);
            }
        }
    }

    #[test]
    fn a_tunnel_with_options_and_a_packet_without_room_have_no_template() {
        let plain = tunnel(Version::V4);
        let others = [
            tunnel(Version::V6),
            Tunnel { udp: true, ..plain },
            Tunnel { sequence: true, ..plain },
            Tunnel { checksum: true, ..plain },
            Tunnel { dont_fragment: false, ..plain },
        ];
        for tunnel in others {
            assert!(Encapsulator::new(&tunnel, Numbers::default()).template(&LINK).is_none());
        }
        let template = Encapsulator::new(&plain, Numbers::default()).template(&LINK);
        let mut frame = [&LINK[..], &inner(Version::V4, 0)].concat();
        let before = frame.clone();
        let inner_bytes = frame.len() as u16 - 14;
        let mut buffer = Buffer::from(&mut frame);
        assert!(!template.expect("a plain tunnel").encapsulate(&mut buffer, inner_bytes));
        assert_eq!(frame, before);
    }

    fn send(encapsulator: &Encapsulator, inner: &[u8], entropy: u16) -> Vec<u8> {
        let mut storage = [0xee; 2048];
        storage[14..14 + inner.len()].copy_from_slice(inner);
        let mut buffer = Buffer::new(&mut storage, 14 + inner.len() + 9);
        let wire_bytes = encapsulator.encapsulate(&mut buffer, &LINK, entropy).expect("a tunnel");
        assert_eq!(wire_bytes, buffer.len());
        assert_eq!(wire_bytes, 14 + encapsulator.overhead_bytes() + inner.len());
        assert_eq!(buffer[wire_bytes - inner.len()..], *inner, "the inner packet is as it was");
        assert_eq!(buffer[..12], LINK[..12]);
        buffer.to_vec()
    }

    fn outer_ipv4(frame: &[u8]) -> Ipv4Header {
        assert_eq!(frame[12..14], [8, 0]);
        let (header, _) = Ipv4Header::from_slice(&frame[14..]).expect("IPv4");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), frame.len() - 14);
        header
    }

    fn outer_ipv6(frame: &[u8]) -> Ipv6Header {
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let (header, rest) = Ipv6Header::from_slice(&frame[14..]).expect("IPv6");
        assert_eq!(usize::from(header.payload_length), rest.len());
        header
    }

    const BOTH: [Version; 2] = [Version::V4, Version::V6];

    /// Section 4.1 of RFC 6040, normal mode: each field enters as it is, and the DSCP as configured.
    #[test]
    fn every_ecn_field_is_copied_to_the_outer_header() {
        for (outer_version, inner_version) in BOTH.into_iter().flat_map(|a| BOTH.map(|b| (a, b))) {
            for traffic_class in 0..=255_u8 {
                for dscp in [None, Some(46)] {
                    let tunnel = Tunnel { dscp, ..tunnel(outer_version) };
                    let frame = encapsulated(&tunnel, &inner(inner_version, traffic_class));
                    let found = match outer_version {
                        Version::V4 => {
                            let header = outer_ipv4(&frame);
                            header.dscp.value() << 2 | header.ecn.value()
                        }
                        Version::V6 => outer_ipv6(&frame).traffic_class,
                    };
                    let expected_dscp = dscp.unwrap_or(traffic_class >> 2);
                    assert_eq!(found, expected_dscp << 2 | traffic_class & 3);
                }
            }
        }
    }

    #[test]
    fn a_packet_with_df_is_atomic_and_others_are_numbered_across_workers() {
        let atomic = outer_ipv4(&encapsulated(&tunnel(Version::V4), &inner(Version::V4, 0)));
        assert!(atomic.dont_fragment && atomic.identification == 0);
        assert_eq!((atomic.time_to_live, atomic.protocol), (61, IpNumber::GRE));

        let tunnel = Tunnel { dont_fragment: false, sequence: true, ..tunnel(Version::V4) };
        let numbers = Numbers::default();
        let first = Encapsulator::new(&tunnel, numbers.clone());
        let second = first.clone();
        let other_key = Tunnel { key: Some(9), ..tunnel };
        let third = Encapsulator::new(&other_key, Numbers::with_identifications_of(&numbers));
        let mut seen = Vec::new();
        for encapsulator in [&first, &second, &third, &first] {
            let frame = send(encapsulator, &inner(Version::V4, 0), 0);
            let header = outer_ipv4(&frame);
            assert!(!header.dont_fragment);
            let at = 14 + encapsulator.overhead_bytes() - 4;
            let sequence = u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"));
            seen.push((header.identification, sequence));
        }
        assert_eq!(seen, [(0, 0), (1, 1), (2, 0), (3, 2)]);
        assert_eq!(numbers.upcoming_sequence(), 3);
    }

    #[test]
    fn flows_differ_in_source_port_and_flow_label_and_one_flow_does_not() {
        let tunnel = Tunnel { udp: true, ..tunnel(Version::V6) };
        let encapsulator = Encapsulator::new(&tunnel, Numbers::default());
        let mut seen = std::collections::HashSet::new();
        for entropy in 0..0x4000 {
            let frame = send(&encapsulator, &inner(Version::V6, 0), entropy);
            let port = u16::from_be_bytes([frame[54], frame[55]]);
            let label = outer_ipv6(&frame).flow_label.value();
            assert_eq!(frame, send(&encapsulator, &inner(Version::V6, 0), entropy));
            assert!(port >= 49152 && label != 0);
            assert!(seen.insert(port));
            assert!(seen.len() == usize::from(entropy) + 1);
        }
        let labels: std::collections::HashSet<u32> = (0..=0xffff).map(flow_label).collect();
        assert!(labels.len() > 60_000, "{}", labels.len());
    }

    #[test]
    fn what_cannot_be_encapsulated_is_refused_with_its_reason() {
        let refusal = |tunnel: &Tunnel, packet: &[u8], room: usize| {
            let mut storage = vec![0; 14 + packet.len() + room];
            storage[14..14 + packet.len()].copy_from_slice(packet);
            let mut buffer = Buffer::new(&mut storage, 14 + packet.len());
            let encapsulator = Encapsulator::new(tunnel, Numbers::default());
            let result = encapsulator.encapsulate(&mut buffer, &LINK, 0);
            result.map(|wire_bytes| (wire_bytes, buffer.len()))
        };
        let plain = tunnel(Version::V4);
        let whole = inner(Version::V4, 0);
        assert_eq!(refusal(&plain, &whole, 23), Err(Refusal::NoRoom));
        assert_eq!(refusal(&plain, &whole, 24), Ok((14 + 24 + 37, 14 + 24 + 37)));
        assert_eq!(refusal(&plain, &whole[..19], 64), Err(Refusal::Truncated));
        // A record of which 20 bytes were kept passes, as long as nothing is summed over the rest.
        assert_eq!(refusal(&plain, &whole[..20], 64), Ok((14 + 24 + 37, 14 + 24 + 20)));
        let with_sum = Tunnel { checksum: true, ..plain };
        assert_eq!(refusal(&with_sum, &whole[..20], 64), Err(Refusal::Truncated));
        let udp = Tunnel { udp: true, ..tunnel(Version::V6) };
        assert_eq!(refusal(&udp, &whole[..20], 64), Err(Refusal::Truncated));
        for (at, value) in [(0, 0x54), (0, 0x44), (3, 19)] {
            let mut lies = whole.clone();
            lies[at] = value;
            assert_eq!(refusal(&plain, &lies, 64), Err(Refusal::Malformed));
        }
        let mut large = whole.clone();
        large[2..4].copy_from_slice(&(65535_u16 - 23).to_be_bytes());
        assert_eq!(refusal(&plain, &large, 64), Err(Refusal::TooLong));
        large[2..4].copy_from_slice(&(65535_u16 - 24).to_be_bytes());
        assert_eq!(refusal(&plain, &large, 64), Ok((14 + 65535, 14 + 24 + 37)));
    }

    #[test]
    fn a_whole_packet_of_any_length_keeps_every_byte() {
        let tunnel = Tunnel { key: Some(1), checksum: true, ..tunnel(Version::V4) };
        for bytes in 0..1400 {
            let mut packet = Vec::new();
            let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64).udp(1, 2);
            builder.write(&mut packet, &vec![bytes as u8; bytes]).expect("a packet");
            encapsulated(&tunnel, &packet);
        }
    }

    #[test]
    fn no_bytes_and_no_cut_make_it_panic() {
        for (outer, udp) in [(Version::V4, false), (Version::V6, true)] {
            let tunnel = Tunnel { udp, checksum: true, sequence: true, ..tunnel(outer) };
            let encapsulator = Encapsulator::new(&tunnel, Numbers::default());
            let whole = [&[0; 14][..], &inner(Version::V4, 0)].concat();
            for length in 0..whole.len() {
                for value in 0..=255 {
                    let mut storage = [0; 256];
                    storage[..whole.len()].copy_from_slice(&whole);
                    storage[length] = value;
                    for kept in [length, whole.len()] {
                        let mut buffer = Buffer::new(&mut storage, kept);
                        let _ = encapsulator.encapsulate(&mut buffer, &LINK, 0);
                    }
                }
            }
        }
    }
}
