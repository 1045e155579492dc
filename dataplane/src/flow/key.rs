//! Names of flows and of fragmented datagrams, packed into words that compare and hash fast.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::wire::ethernet::{TAGS_MAX, Vlans};
use crate::wire::frame::{Datagram, Frame, Version};

/// A key of `W` 64-bit words. Equal keys mean the same thing; the words are in no meaningful order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<const W: usize>(pub(super) [u64; W]);

/// (VLAN identifiers, source, destination, source port, destination port) over IPv4.
///
/// ```text
/// word 0   source address (32) | destination address (32)
/// word 1   source port (16) | destination port (16) | VLANs (32)
/// ```
pub type Ipv4Key = Key<2>;

/// The same over IPv6.
///
/// ```text
/// words 0, 1   source address      words 2, 3   destination address
/// word 4       source port (16) | destination port (16) | VLANs (32)
/// word 5       0, so that an entry of the table fills a cache line
/// ```
pub type Ipv6Key = Key<6>;

/// One direction of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// Over IPv4.
    V4(Ipv4Key),
    /// Over IPv6.
    V6(Ipv6Key),
}

impl Ipv4Key {
    /// The flow of an IPv4 frame.
    #[inline(always)]
    pub fn of(frame: &Frame) -> Self {
        Key([frame.addresses[0], frame.ports_and_vlans])
    }
}

impl Ipv6Key {
    /// The flow of an IPv6 frame.
    #[inline(always)]
    pub fn of(frame: &Frame) -> Self {
        let [s0, s1, d0, d1] = frame.addresses;
        Key([s0, s1, d0, d1, frame.ports_and_vlans, 0])
    }
}

impl FlowKey {
    /// The name taken apart again.
    pub fn tuple(&self) -> FlowTuple {
        let (source, destination, ports_and_vlans) = match self {
            FlowKey::V4(Key([addresses, rest])) => (
                IpAddr::from(((addresses >> 32) as u32).to_be_bytes()),
                IpAddr::from((*addresses as u32).to_be_bytes()),
                rest,
            ),
            FlowKey::V6(Key([s0, s1, d0, d1, rest, _])) => (
                IpAddr::from((u128::from(*s0) << 64 | u128::from(*s1)).to_be_bytes()),
                IpAddr::from((u128::from(*d0) << 64 | u128::from(*d1)).to_be_bytes()),
                rest,
            ),
        };
        FlowTuple {
            vlans: Vlans::from_packed(*ports_and_vlans as u32).identifiers(),
            source,
            destination,
            source_port: (ports_and_vlans >> 48) as u16,
            destination_port: (ports_and_vlans >> 32) as u16,
        }
    }
}

/// A name as words, and back: what a file of flows has of them.
impl FlowKey {
    /// The words that mean something: two over IPv4, five over IPv6.
    pub fn words(&self) -> &[u64] {
        match self {
            FlowKey::V4(Key(words)) => words,
            FlowKey::V6(Key(words)) => &words[..5],
        }
    }

    /// From [`FlowKey::words`]. `None` when no packet has such a name: the VLANs' part says so.
    pub fn from_words(words: &[u64]) -> Option<FlowKey> {
        let key = match *words {
            [addresses, rest] => FlowKey::V4(Key([addresses, rest])),
            [s0, s1, d0, d1, rest] => FlowKey::V6(Key([s0, s1, d0, d1, rest, 0])),
            _ => return None,
        };
        let packed = *words.last()? as u32;
        let vlans = Vlans::from_packed(packed);
        let fits = packed >> 24 <= TAGS_MAX as u32;
        (fits && Vlans::of(&vlans.identifiers()) == vlans).then_some(key)
    }
}

/// A flow's name in people's terms. The protocol is TCP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlowTuple {
    /// VLAN identifiers, outer first.
    pub vlans: ArrayVec<u16, TAGS_MAX>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// A fragmented datagram: (VLAN identifiers, source, destination, protocol, identification), RFC 791 section
/// 2.3 and RFC 8200 section 4.5. The lowest bit of word 4 tells IPv4 and IPv6 apart.
pub type DatagramKey = Key<6>;

/// The name of the datagram that a fragment belongs to.
pub fn datagram_of(frame: &Frame) -> DatagramKey {
    let Datagram { protocol, identification } = frame.datagram;
    let vlans_and_protocol = u64::from(frame.vlans().packed()) << 16 | u64::from(protocol) << 8;
    let identification = u64::from(identification);
    match frame.version {
        Version::V4 => Key([frame.addresses[0], 0, 0, 0, vlans_and_protocol, identification]),
        Version::V6 => {
            let [s0, s1, d0, d1] = frame.addresses;
            Key([s0, s1, d0, d1, vlans_and_protocol | 1, identification])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_taken_apart_is_what_it_was_made_of() {
        let mut frame = Frame {
            addresses: [0x0a00_00ff_c0a8_0102, 0, 0, 0],
            ports_and_vlans: 0xffff_0050 << 32 | 2 << 24 | 7 << 12 | 4095,
            ..Frame::default()
        };
        let tuple = FlowKey::V4(Ipv4Key::of(&frame)).tuple();
        assert_eq!(tuple.vlans.as_slice(), [4095, 7]);
        assert_eq!(tuple.source.to_string(), "10.0.0.255");
        assert_eq!(tuple.destination.to_string(), "192.168.1.2");
        assert_eq!((tuple.source_port, tuple.destination_port), (65535, 80));

        frame.ports_and_vlans = 0;
        frame.addresses = [0xfd << 56, 9, u64::MAX, u64::MAX];
        let tuple = FlowKey::V6(Ipv6Key::of(&frame)).tuple();
        assert_eq!(tuple.source.to_string(), "fd00::9");
        assert_eq!(tuple.destination.to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert!(tuple.vlans.is_empty());
    }
}
