//! A stretch: neighbouring IPv4 destinations that all take one hop, for whoever asks per packet.
//!
//! A walk down the tries for every packet costs more than the rest of its way. Destinations in use lie in a few gaps
//! between more specific routes; who remembers the gap needs two comparisons for the next packet into it.
//!
//! **Invariant:** for every address in a stretch that [`Fib::stretch_around`] gave, the same [`Fib`] resolves to
//! [`Resolution::Forward`](super::Resolution::Forward) what [`Fib::hop`] finds there, and to
//! [`Resolution::Unresolved`](super::Resolution::Unresolved) what it does not; and none is this machine's own. Of
//! another snapshot it says nothing.

use std::net::{IpAddr, Ipv4Addr};

use prefix_trie::{AsView, PrefixMap, TrieView};

use super::{Action, Fib, Way, is_the_kernels};
use crate::batch::PortId;

/// Addresses from the first to the last.
type Range = (u32, u32);

/// See the module. The default has no address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stretch {
    first: u32,
    /// At most 1 << 24: a stretch does not leave its /8, as what no router forwards fills such.
    count: u32,
    /// The hop's number.
    hop: u32,
    /// Of the route.
    mtu_bytes: u32,
}

/// The next hop of a packet.
#[derive(Debug, Clone, Copy)]
pub struct NextHop<'a> {
    /// By this port.
    pub port: PortId,
    /// Its MAC address.
    pub mac: &'a [u8; 6],
    /// The port's.
    pub source_mac: &'a [u8; 6],
    /// Most bytes a packet may have, from its IP header on.
    pub mtu_bytes: u32,
}

impl Stretch {
    /// Whether it has this address.
    #[inline(always)]
    pub fn contains(&self, address: u32) -> bool {
        address.wrapping_sub(self.first) < self.count
    }

    /// How many it has.
    pub fn addresses(&self) -> u32 {
        self.count
    }

    /// Its first address and its last.
    #[cfg(test)]
    pub(super) fn ends(&self) -> Range {
        (self.first, self.first + (self.count - 1))
    }
}

impl Fib {
    /// The next hop of an address in a stretch of this snapshot; none when its MAC address is not known.
    #[inline(always)]
    pub fn hop(&self, stretch: &Stretch, address: u32) -> Option<NextHop<'_>> {
        let (port, [mac, source_mac], port_mtu_bytes) = match &self.hops[stretch.hop as usize].way {
            Way::Known { port, macs, port_mtu_bytes } => {
                (*port, [macs.first_chunk()?, macs.last_chunk()?], *port_mtu_bytes)
            }
            Way::Connected { port } => {
                let view = &self.ports[port.index()];
                let link = view.link.as_ref()?;
                (*port, [view.neighbours.ipv4.get(&address)?, &link.mac], link.mtu_bytes)
            }
            Way::Unknown { .. } | Way::Elsewhere => return None,
        };
        let mtu_bytes = port_mtu_bytes.min(stretch.mtu_bytes);
        Some(NextHop { port, mac, source_mac, mtu_bytes })
    }

    /// The stretch that an address lies in; none when it does not take the only hop of a route in table main by one
    /// of the ports. Takes a few times as long as [`Fib::resolve`].
    #[cold]
    pub fn stretch_around(&self, address: u32) -> Option<Stretch> {
        // Of 240.0.0.0/4 one address is the kernel's.
        if address >> 28 == 0xf || is_the_kernels(IpAddr::V4(Ipv4Addr::from_bits(address))) {
            return None;
        }
        let (prefix, number) = self.main.ipv4.get_lpm(&(address, 32))?;
        let Action::Hops { first: hop, count: 1, mtu_bytes, .. } = self.actions[*number as usize]
        else {
            return None;
        };
        if !matches!(self.hops[hop as usize].way, Way::Known { .. } | Way::Connected { .. }) {
            return None;
        }
        let (hosts, wider) = (&self.local.sorted_ipv4, &self.local.wider.ipv4);
        if hosts.contains(&address) || wider.get_lpm(&(address, 32)).is_some() {
            return None;
        }
        if self.is_own(IpAddr::V4(Ipv4Addr::from_bits(address))) {
            return None;
        }
        let ranges = [
            (address & 0xff00_0000, address | 0x00ff_ffff),
            gap(&self.main.ipv4, prefix, address),
            gap(wider, (0, 0), address),
            between(
                hosts.range(..address).next_back().copied(),
                hosts.range(address..).next().copied(),
            ),
            self.between_own(address),
        ];
        let first = ranges.iter().map(|range| range.0).max()?;
        let last = ranges.iter().map(|range| range.1).min()?;
        Some(Stretch { first, count: last - first + 1, hop, mtu_bytes })
    }

    /// What lies between this machine's addresses around an address that is none of them.
    fn between_own(&self, address: u32) -> Range {
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        let (below, above) = self.own.split_at(self.own.partition_point(|own| *own < address));
        let bits = |own: Option<&IpAddr>| match own {
            Some(IpAddr::V4(own)) => Some(own.to_bits()),
            _ => None,
        };
        between(bits(below.last()), bits(above.first()))
    }
}

/// Addresses above one and below another.
fn between(below: Option<u32>, above: Option<u32>) -> Range {
    (below.map_or(0, |below| below + 1), above.map_or(u32::MAX, |above| above - 1))
}

/// Addresses around `address` without prefixes longer than `covering`, which is the longest that contains it.
fn gap(prefixes: &PrefixMap<(u32, u8), u32>, (network, length): (u32, u8), address: u32) -> Range {
    let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    let (mut first, mut last) = (network & !host_bits, network | host_bits);
    let mut view = prefixes.view_at(&(network, length));
    for bit in (0..32 - u32::from(length)).rev().map(|place| 1_u32 << place) {
        let Some(here) = view else { break };
        let is_upper = address & bit != 0;
        let (own, other) =
            if is_upper { (here.right(), here.left()) } else { (here.left(), here.right()) };
        if other.is_some() {
            // Nothing is known of the other half but that it is not empty.
            match is_upper {
                true => first = first.max(address & !(bit - 1)),
                false => last = last.min(address | (bit - 1)),
            }
        }
        view = own;
    }
    (first, last)
}
