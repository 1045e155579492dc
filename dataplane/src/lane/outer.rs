//! The outer IP header of what arrives in a tunnel, and the UDP header behind it, checked.

use super::decapsulation::Refusal;
use super::ecn;
use crate::wire::frame::Version;
use crate::wire::window::{Window, u16_at, u64_at};
use crate::wire::{checksum, ethernet, ipv4, ipv6, udp};

/// The outer IP header of what arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outer {
    /// Which IP header it is.
    pub(super) version: Version,
    /// Source and destination as they stand in the header: see `ipv4::Header`, `ipv6::Header`.
    pub(super) addresses: [u64; 4],
    /// What follows it, and the tunnel encapsulation limit.
    pub(super) protocol: u8,
    /// Whether this is a part of a packet, the first or another.
    pub(super) is_fragment: bool,
    /// Its ECN field, two bits.
    pub(super) ecn: u8,
    /// Where what follows it starts in the frame.
    pub(super) payload_offset: usize,
    /// Where the packet ends in the frame.
    pub(super) payload_end: usize,
}

impl Outer {
    /// Reads the IP header of an untagged frame.
    #[inline(always)]
    pub(super) fn read(window: &Window<'_>) -> Result<Outer, Refusal> {
        let ethernet = window.header::<{ ethernet::HEADER_BYTES }>(0, window.end())?;
        match u16_at(ethernet, 12) {
            ethernet::IPV4 => Outer::read_ipv4(window),
            ethernet::IPV6 => Outer::read_ipv6(window),
            _ => Err(Refusal::NotIp),
        }
    }

    #[inline(always)]
    fn read_ipv4(window: &Window<'_>) -> Result<Outer, Refusal> {
        let header = ipv4::parse(window, ethernet::HEADER_BYTES)?;
        let bytes = window.bytes(ethernet::HEADER_BYTES, header.payload_offset)?;
        if !checksum::header_is_right(bytes) {
            return Err(Refusal::OuterChecksum);
        }
        Ok(Outer {
            version: Version::V4,
            addresses: [header.addresses, 0, 0, 0],
            protocol: header.protocol,
            is_fragment: header.more_fragments || header.later_fragment,
            ecn: bytes[1] & ecn::MASK,
            payload_offset: header.payload_offset,
            payload_end: header.payload_end,
        })
    }

    #[inline(always)]
    fn read_ipv6(window: &Window<'_>) -> Result<Outer, Refusal> {
        let offset = ethernet::HEADER_BYTES;
        let header = window.header::<{ ipv6::HEADER_BYTES }>(offset, window.end())?;
        let payload_offset = offset + ipv6::HEADER_BYTES;
        let payload_end = payload_offset + usize::from(u16_at(header, 4));
        if header[0] >> 4 != 6 || payload_end > window.end() {
            return Err(Refusal::Malformed);
        }
        let mut outer = Outer {
            version: Version::V6,
            addresses: [8, 16, 24, 32].map(|at| u64_at(header, at)),
            protocol: header[6],
            is_fragment: header[6] == ipv6::FRAGMENT,
            ecn: header[1] >> 4 & ecn::MASK,
            payload_offset,
            payload_end,
        };
        if outer.protocol == ipv6::DESTINATION_OPTIONS {
            let options = window.header::<8>(payload_offset, payload_end)?;
            // The limit (any), padded as RFC 2473 section 4.1.1 has it. Anything else keeps its protocol.
            if let [next_header, 0, 4, 1, _, 1, 1, 0] = *options {
                outer.protocol = next_header;
                outer.is_fragment = next_header == ipv6::FRAGMENT;
                outer.payload_offset += options.len();
            }
        }
        Ok(outer)
    }

    /// Checks the UDP header of GRE in UDP, which starts the payload.
    #[inline(always)]
    pub(super) fn check_udp(&self, window: &Window<'_>) -> Result<(), Refusal> {
        let (offset, end) = (self.payload_offset, self.payload_end);
        let header = udp::parse(window, offset, end)?;
        if header.destination_port != udp::GRE_PORT {
            return Err(Refusal::Protocol);
        }
        if header.length_bytes != end - offset {
            return Err(Refusal::Malformed);
        }
        if header.checksum == 0 {
            return match self.version {
                Version::V4 => Ok(()),
                Version::V6 => Err(Refusal::UdpChecksumMissing),
            };
        }
        let pseudo_header = self.addresses.map(|word| checksum::sum(&word.to_be_bytes()));
        let sum = pseudo_header
            .into_iter()
            .fold(checksum::sum(window.bytes(offset, end)?), checksum::add);
        let sum =
            checksum::add(sum, checksum::add(u16::from(udp::PROTOCOL), (end - offset) as u16));
        if sum != 0xffff {
            return Err(Refusal::UdpChecksum);
        }
        Ok(())
    }
}
