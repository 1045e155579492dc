//! Names of flows and of fragmented datagrams, packed into words that compare and hash fast.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::wire::ethernet::{TAGS_MAX, Vlans};
use crate::wire::frame::{Addresses, Datagram};

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

impl FlowKey {
    /// The name of a flow.
    #[inline(always)]
    pub fn new(
        vlans: Vlans,
        addresses: &Addresses,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        let ports_and_vlans = u64::from(source_port) << 48
            | u64::from(destination_port) << 32
            | u64::from(vlans.packed());
        match addresses {
            Addresses::V4 { source, destination } => {
                FlowKey::V4(Key([ipv4_pair(source, destination), ports_and_vlans]))
            }
            Addresses::V6 { source, destination } => {
                let [s0, s1] = ipv6_words(source);
                let [d0, d1] = ipv6_words(destination);
                FlowKey::V6(Key([s0, s1, d0, d1, ports_and_vlans, 0]))
            }
        }
    }

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

impl DatagramKey {
    /// The name of a datagram that travels between the hosts, and on the VLANs, of `flow`.
    pub fn of_datagram(flow: &FlowKey, datagram: Datagram) -> Self {
        let protocol = u64::from(datagram.protocol) << 8;
        let identification = u64::from(datagram.identification);
        match flow {
            FlowKey::V4(Key([pair, rest])) => {
                Key([*pair, 0, 0, 0, vlans_alone(*rest) | protocol, identification])
            }
            FlowKey::V6(Key([s0, s1, d0, d1, rest, _])) => {
                Key([*s0, *s1, *d0, *d1, vlans_alone(*rest) | protocol | 1, identification])
            }
        }
    }
}

/// The VLANs of a flow's ports and VLANs, moved up to leave the lowest 16 bits free.
fn vlans_alone(ports_and_vlans: u64) -> u64 {
    (ports_and_vlans & 0xffff_ffff) << 16
}

#[inline(always)]
fn ipv4_pair(source: &[u8; 4], destination: &[u8; 4]) -> u64 {
    u64::from(u32::from_be_bytes(*source)) << 32 | u64::from(u32::from_be_bytes(*destination))
}

#[inline(always)]
fn ipv6_words(address: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(*address);
    [(whole >> 64) as u64, whole as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_taken_apart_is_what_it_was_made_of() {
        let vlans = Vlans::from_packed(2 << 24 | 7 << 12 | 4095);
        let v4 = Addresses::V4 { source: [10, 0, 0, 255], destination: [192, 168, 1, 2] };
        let tuple = FlowKey::new(vlans, &v4, 65535, 80).tuple();
        assert_eq!(tuple.vlans.as_slice(), [4095, 7]);
        assert_eq!(tuple.source.to_string(), "10.0.0.255");
        assert_eq!(tuple.destination.to_string(), "192.168.1.2");
        assert_eq!((tuple.source_port, tuple.destination_port), (65535, 80));

        let mut source = [0; 16];
        source[0] = 0xfd;
        source[15] = 9;
        let v6 = Addresses::V6 { source, destination: [0xff; 16] };
        let tuple = FlowKey::new(Vlans::default(), &v6, 1, 2).tuple();
        assert_eq!(tuple.source.to_string(), "fd00::9");
        assert_eq!(tuple.destination.to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert!(tuple.vlans.is_empty());
    }
}
