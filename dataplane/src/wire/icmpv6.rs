//! ICMPv6 errors (RFC 4443), as a router sends them.
//!
//! ```text
//!   Ethernet | IPv6 | type, code, checksum, 0 or MTU | as much of the offender as 1280 bytes hold
//! ```

use std::net::Ipv6Addr;

use super::window::{Window, u32_at};
use super::{checksum, ethernet, ipv6};

/// The number of ICMPv6 in the next-header field.
pub const PROTOCOL: u8 = 58;
/// Bytes of the ICMPv6 header of an error, in front of the quotation.
pub const HEADER_BYTES: usize = 8;
/// Most bytes of the frame of an error (RFC 4443 section 2.4(c)).
pub const FRAME_BYTES_MAX: usize = ethernet::HEADER_BYTES + 1280;
/// Type of a packet that is too big for its next link.
pub const PACKET_TOO_BIG: u8 = 2;

const UNREACHABLE: u8 = 1;
const TIME_EXCEEDED: u8 = 3;
/// The first type that is no error (RFC 4443 section 2.1).
const INFORMATION: u8 = 128;
const REDIRECT: u8 = 137;
const HEADERS_BYTES: usize = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES + HEADER_BYTES;
const TRAFFIC_CLASS: u32 = 0xc0;
const HOP_LIMIT: u8 = 64;

/// What is said of the offender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Its hop limit ran out here.
    TimeExceeded,
    /// It is larger than `mtu_bytes`, which fit.
    PacketTooBig {
        /// Largest packet that would have fitted.
        mtu_bytes: u32,
    },
    /// There is no route.
    NoRoute,
    /// Its next hop does not answer.
    AddressUnreachable,
}

impl Error {
    /// Type and code, and the last four bytes of the header.
    fn fields(self) -> ([u8; 2], u32) {
        match self {
            Error::TimeExceeded => ([TIME_EXCEEDED, 0], 0),
            Error::PacketTooBig { mtu_bytes } => ([PACKET_TOO_BIG, 0], mtu_bytes),
            Error::NoRoute => ([UNREACHABLE, 0], 0),
            Error::AddressUnreachable => ([UNREACHABLE, 3], 0),
        }
    }
}

/// Writes the frame of an error to the sender of `offender`, an IPv6 packet from its header on, of which not
/// all need be at hand. The MAC addresses are `link`'s, `source` is an address of ours. Returns the frame's
/// length in bytes; none, and nothing written, when no error may be sent about this packet, it is none, or
/// `into` has not [`FRAME_BYTES_MAX`] bytes.
pub fn write(
    error: Error,
    link: &[u8; ethernet::HEADER_BYTES],
    source: Ipv6Addr,
    offender: &[u8],
    into: &mut [u8],
) -> Option<usize> {
    let window = Window::new(offender, usize::MAX / 2);
    let header = ipv6::parse(&window, 0).ok()?;
    if into.len() < FRAME_BYTES_MAX || !may_be_answered(error, &window, &header) {
        return None;
    }
    let quoted = offender.len().min(header.payload_end).min(FRAME_BYTES_MAX - HEADERS_BYTES);
    let length = HEADERS_BYTES + quoted;
    let frame = &mut into[..length];
    frame[..12].copy_from_slice(&link[..12]);
    frame[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    let payload_bytes = (HEADER_BYTES + quoted) as u16;
    write_ipv6(&mut frame[14..54], source, addresses(&header).0, payload_bytes);
    let addresses_sum = checksum::sum(&frame[22..54]);
    let icmp = &mut frame[54..];
    let (type_and_code, last) = error.fields();
    icmp[..4].fill(0);
    icmp[..2].copy_from_slice(&type_and_code);
    icmp[4..8].copy_from_slice(&last.to_be_bytes());
    icmp[HEADER_BYTES..].copy_from_slice(&offender[..quoted]);
    let sum = checksum::add(checksum::sum(icmp), pseudo_sum(addresses_sum, payload_bytes));
    icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
    Some(length)
}

/// The sum of the pseudo-header (RFC 8200 section 8.1), of which that of both addresses is given.
pub fn pseudo_sum(addresses_sum: u16, payload_bytes: u16) -> u16 {
    checksum::add(addresses_sum, checksum::add(u16::from(PROTOCOL), payload_bytes))
}

fn write_ipv6(header: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr, payload_bytes: u16) {
    header[..4].copy_from_slice(&(0x6000_0000 | TRAFFIC_CLASS << 20).to_be_bytes());
    header[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    header[6] = PROTOCOL;
    header[7] = HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}

fn addresses(header: &ipv6::Header) -> (Ipv6Addr, Ipv6Addr) {
    let [upper, lower, to_upper, to_lower] = header.addresses.map(u128::from);
    (Ipv6Addr::from(upper << 64 | lower), Ipv6Addr::from(to_upper << 64 | to_lower))
}

/// RFC 4443 section 2.4(e): never about an error or a redirect, nor about a packet whose source is not a single
/// node, nor about one to many, unless it is too big. A later fragment is not answered either: its type cannot
/// be seen, and its first fragment met the same fate. That no frame to many comes here is for the caller.
fn may_be_answered(error: Error, window: &Window<'_>, header: &ipv6::Header) -> bool {
    let (source, destination) = addresses(header);
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return false;
    }
    let is_too_big = matches!(error, Error::PacketTooBig { .. });
    if header.later_fragment || destination.is_multicast() && !is_too_big {
        return false;
    }
    if header.protocol != PROTOCOL {
        return true;
    }
    // A type that is not at hand could be an error's.
    window.header::<4>(header.payload_offset, header.payload_end).is_ok_and(|icmp| {
        let kind = (u32_at(icmp, 0) >> 24) as u8;
        kind >= INFORMATION && kind != REDIRECT
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use etherparse::{icmpv6::DestUnreachableCode, icmpv6::TimeExceededCode};

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0xff, 0xff];
    const OURS: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
    const HOST: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const OTHER: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn offender(source: [u8; 16], destination: [u8; 16], bytes: usize) -> Vec<u8> {
        let builder = PacketBuilder::ipv6(source, destination, 1).udp(1000, 2000);
        let mut packet = Vec::new();
        builder.write(&mut packet, &vec![0x5a; bytes]).expect("a packet");
        packet
    }

    fn written(error: Error, offender: &[u8]) -> Option<Vec<u8>> {
        let mut into = [0xee; FRAME_BYTES_MAX];
        let length = write(error, &LINK, OURS, offender, &mut into)?;
        Some(into[..length].to_vec())
    }

    #[test]
    fn etherparse_reads_each_error_back() {
        let offender = offender(HOST, OTHER, 100);
        let cases = [
            (Error::TimeExceeded, Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded)),
            (Error::PacketTooBig { mtu_bytes: 1376 }, Icmpv6Type::PacketTooBig { mtu: 1376 }),
            (Error::NoRoute, Icmpv6Type::DestinationUnreachable(DestUnreachableCode::NoRoute)),
            (
                Error::AddressUnreachable,
                Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
            ),
        ];
        for (error, expected) in cases {
            let frame = written(error, &offender).expect("an answer");
            let packet = SlicedPacket::from_ethernet(&frame).expect("a frame");
            let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("IPv6") };
            assert_eq!(ip.header().source_addr(), OURS);
            assert_eq!(ip.header().destination(), HOST);
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("ICMPv6") };
            assert_eq!(icmp.icmp_type(), expected);
            assert_eq!(icmp.payload(), offender);
            assert!(icmp.is_checksum_valid(OURS.octets(), HOST));
        }
    }

    #[test]
    fn the_quotation_ends_at_1280_bytes_or_where_the_packet_does() {
        let large = written(Error::TimeExceeded, &offender(HOST, OTHER, 1400));
        assert_eq!(large.map(|frame| frame.len()), Some(14 + 1280));
        let mut padded = offender(HOST, OTHER, 4);
        padded.extend([0; 14]);
        let small = written(Error::TimeExceeded, &padded);
        assert_eq!(small.map(|frame| frame.len()), Some(14 + 40 + 8 + 52));
    }

    #[test]
    fn nobody_is_told_who_must_not_be() {
        for source in [[0; 16], GROUP, Ipv6Addr::LOCALHOST.octets()] {
            assert_eq!(written(Error::NoRoute, &offender(source, OTHER, 9)), None, "{source:?}");
        }
        assert_eq!(written(Error::TimeExceeded, &offender(HOST, GROUP, 9)), None);
        let too_big = Error::PacketTooBig { mtu_bytes: 1280 };
        assert!(written(too_big, &offender(HOST, GROUP, 9)).is_some());
    }

    #[test]
    fn no_error_about_an_error_or_a_redirect_but_one_about_an_echo() {
        for kind in 0..=255_u8 {
            let mut packet = offender(HOST, OTHER, 9);
            packet[6] = PROTOCOL;
            packet[40] = kind;
            let expected = kind >= 128 && kind != 137;
            assert_eq!(written(Error::NoRoute, &packet).is_some(), expected, "type {kind}");
        }
    }

    #[test]
    fn no_bytes_and_no_cut_make_it_panic() {
        let whole = offender(HOST, OTHER, 20);
        let mut short = [0; FRAME_BYTES_MAX - 1];
        assert_eq!(write(Error::NoRoute, &LINK, OURS, &whole, &mut short), None);
        for at in 0..whole.len() {
            written(Error::NoRoute, &whole[..at]);
            for value in 0..=255 {
                let mut mutated = whole.clone();
                mutated[at] = value;
                written(Error::NoRoute, &mutated);
            }
        }
    }
}
