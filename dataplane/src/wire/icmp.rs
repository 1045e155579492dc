//! ICMP errors (RFC 792), as a router sends them (RFC 1812 section 4.3).
//!
//! ```text
//!   Ethernet | IPv4 | type, code, checksum, 0 or MTU | as much of the offender as 576 bytes hold
//! ```

use std::net::Ipv4Addr;

use super::window::{Window, u32_at};
use super::{checksum, ethernet, ipv4};

/// The number of ICMP in the protocol field.
pub const PROTOCOL: u8 = 1;
/// Bytes of the ICMP header of an error, in front of the quotation.
pub const HEADER_BYTES: usize = 8;
/// Most bytes of the frame of an error (RFC 1812 section 4.3.2.3).
pub const FRAME_BYTES_MAX: usize = ethernet::HEADER_BYTES + 576;
/// Type of a destination that cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// Its code for packets that are too big and must not be fragmented.
pub const FRAGMENTATION_NEEDED: u8 = 4;

const TIME_EXCEEDED: u8 = 11;
const HEADERS_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + HEADER_BYTES;
/// Internetwork control, as RFC 1812 section 4.3.2.5 has it.
const TRAFFIC_CLASS: u8 = 0xc0;
const TTL: u8 = 64;

/// What is said of the offender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Its TTL ran out here.
    TimeExceeded,
    /// It is larger than `mtu_bytes`, which fit, and has DF (RFC 1191 section 4).
    FragmentationNeeded {
        /// Largest packet that would have fitted.
        mtu_bytes: u16,
    },
    /// There is no route.
    NetworkUnreachable,
    /// Its next hop does not answer.
    HostUnreachable,
}

impl Error {
    /// Type and code, and the last two bytes of the header.
    fn fields(self) -> ([u8; 2], u16) {
        match self {
            Error::TimeExceeded => ([TIME_EXCEEDED, 0], 0),
            Error::FragmentationNeeded { mtu_bytes } => {
                ([UNREACHABLE, FRAGMENTATION_NEEDED], mtu_bytes)
            }
            Error::NetworkUnreachable => ([UNREACHABLE, 0], 0),
            Error::HostUnreachable => ([UNREACHABLE, 1], 0),
        }
    }
}

/// Writes the frame of an error to the sender of `offender`, an IPv4 packet from its header on, of which not
/// all need be at hand. The MAC addresses are `link`'s, `source` is an address of ours. Returns the frame's
/// length in bytes; none, and nothing written, when no error may be sent about this packet, it is none, or
/// `into` has not [`FRAME_BYTES_MAX`] bytes.
pub fn write(
    error: Error,
    link: &[u8; ethernet::HEADER_BYTES],
    source: Ipv4Addr,
    offender: &[u8],
    into: &mut [u8],
) -> Option<usize> {
    let window = Window::new(offender, usize::MAX / 2);
    let header = ipv4::parse(&window, 0).ok()?;
    if into.len() < FRAME_BYTES_MAX || !may_be_answered(&window, &header) {
        return None;
    }
    let quoted = offender.len().min(header.payload_end).min(FRAME_BYTES_MAX - HEADERS_BYTES);
    let length = HEADERS_BYTES + quoted;
    let frame = &mut into[..length];
    frame[..12].copy_from_slice(&link[..12]);
    frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    let destination = Ipv4Addr::from((header.addresses >> 32) as u32);
    write_ipv4(&mut frame[14..34], source, destination, (length - 14) as u16);
    let icmp = &mut frame[34..];
    let (type_and_code, last) = error.fields();
    icmp[..HEADER_BYTES].fill(0);
    icmp[..2].copy_from_slice(&type_and_code);
    icmp[6..8].copy_from_slice(&last.to_be_bytes());
    icmp[HEADER_BYTES..].copy_from_slice(&offender[..quoted]);
    let sum = checksum::sum(icmp);
    icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
    Some(length)
}

/// Atomic (RFC 6864), so its identification says nothing.
fn write_ipv4(header: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, total_bytes: u16) {
    header.fill(0);
    header[0] = 0x45;
    header[1] = TRAFFIC_CLASS;
    header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
    header[6] = 0x40;
    header[8] = TTL;
    header[9] = PROTOCOL;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum::sum(header);
    header[10..12].copy_from_slice(&(!sum).to_be_bytes());
}

/// RFC 1812 section 4.3.2.7: never about an ICMP error, a later fragment, a packet to many, or one whose
/// source is not a single host. That no frame to many comes here is for the caller: a router forwards none.
fn may_be_answered(window: &Window<'_>, header: &ipv4::Header) -> bool {
    let source = Ipv4Addr::from((header.addresses >> 32) as u32);
    let destination = Ipv4Addr::from(header.addresses as u32);
    if header.later_fragment || !is_one_host(source) {
        return false;
    }
    if destination.is_multicast() || destination.is_broadcast() {
        return false;
    }
    if header.protocol != PROTOCOL {
        return true;
    }
    // A type that is not at hand could be an error's.
    window
        .header::<4>(header.payload_offset, header.payload_end)
        .is_ok_and(|icmp| !is_error((u32_at(icmp, 0) >> 24) as u8))
}

fn is_one_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 section 3.2.2).
fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | 4 | 5 | TIME_EXCEEDED | 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use etherparse::{icmpv4::DestUnreachableHeader, icmpv4::TimeExceededCode};

    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0xff, 0xff];
    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn offender(source: [u8; 4], destination: [u8; 4], bytes: usize) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(source, destination, 1).udp(1000, 2000);
        let mut packet = Vec::new();
        builder.write(&mut packet, &vec![0x5a; bytes]).expect("a packet");
        packet
    }

    fn written(error: Error, offender: &[u8]) -> Option<Vec<u8>> {
        let mut into = [0xee; FRAME_BYTES_MAX];
        let length = write(error, &LINK, SOURCE, offender, &mut into)?;
        Some(into[..length].to_vec())
    }

    #[test]
    fn etherparse_reads_each_error_back() {
        let offender = offender([10, 0, 0, 1], [10, 1, 0, 1], 100);
        let cases = [
            (Error::TimeExceeded, Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit)),
            (
                Error::FragmentationNeeded { mtu_bytes: 1376 },
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: 1376,
                }),
            ),
            (
                Error::NetworkUnreachable,
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network),
            ),
            (
                Error::HostUnreachable,
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host),
            ),
        ];
        for (error, expected) in cases {
            let frame = written(error, &offender).expect("an answer");
            let packet = SlicedPacket::from_ethernet(&frame).expect("a frame");
            let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("IPv4") };
            let ip = ip.header().to_header();
            assert_eq!(ip.source, SOURCE.octets());
            assert_eq!(ip.destination, [10, 0, 0, 1]);
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("ICMP") };
            assert_eq!(icmp.icmp_type(), expected);
            assert_eq!(icmp.payload(), offender);
            let header = icmp.header();
            assert_eq!(header.checksum, expected.calc_checksum(icmp.payload()));
            assert_eq!(frame[..14], [&LINK[..12], &[8, 0]].concat());
        }
    }

    #[test]
    fn the_quotation_ends_at_576_bytes_or_where_the_packet_does() {
        let large = written(Error::TimeExceeded, &offender([10, 0, 0, 1], [10, 1, 0, 1], 1400));
        assert_eq!(large.map(|frame| frame.len()), Some(14 + 576));
        let mut padded = offender([10, 0, 0, 1], [10, 1, 0, 1], 4);
        padded.extend([0; 14]);
        let small = written(Error::TimeExceeded, &padded);
        assert_eq!(small.map(|frame| frame.len()), Some(14 + 20 + 8 + 32));
    }

    #[test]
    fn nobody_is_told_who_must_not_be() {
        let error = Error::TimeExceeded;
        for source in
            [[0; 4], [0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]]
        {
            assert_eq!(written(error, &offender(source, [10, 1, 0, 1], 9)), None, "{source:?}");
        }
        for destination in [[224, 0, 0, 5], [255; 4]] {
            assert_eq!(written(error, &offender([10, 0, 0, 1], destination, 9)), None);
        }
        let mut later = offender([10, 0, 0, 1], [10, 1, 0, 1], 9);
        later[7] = 1;
        assert_eq!(written(error, &later), None);
        let mut first = offender([10, 0, 0, 1], [10, 1, 0, 1], 9);
        first[6] = 0x20;
        assert!(written(error, &first).is_some());
    }

    #[test]
    fn no_error_about_an_error_but_one_about_an_echo() {
        for kind in 0..=255_u8 {
            let mut packet = offender([10, 0, 0, 1], [10, 1, 0, 1], 9);
            packet[9] = PROTOCOL;
            packet[20] = kind;
            let expected = ![3, 4, 5, 11, 12].contains(&kind);
            assert_eq!(written(Error::TimeExceeded, &packet).is_some(), expected, "type {kind}");
        }
        let mut cut = offender([10, 0, 0, 1], [10, 1, 0, 1], 9);
        cut[9] = PROTOCOL;
        assert_eq!(written(Error::TimeExceeded, &cut[..20]), None);
    }

    #[test]
    fn no_bytes_and_no_cut_make_it_panic() {
        let whole = offender([10, 0, 0, 1], [10, 1, 0, 1], 20);
        let mut short = [0; FRAME_BYTES_MAX - 1];
        assert_eq!(write(Error::TimeExceeded, &LINK, SOURCE, &whole, &mut short), None);
        for at in 0..whole.len() {
            written(Error::TimeExceeded, &whole[..at]);
            for value in 0..=255 {
                let mut mutated = whole.clone();
                mutated[at] = value;
                written(Error::TimeExceeded, &mutated);
            }
        }
    }
}
