//! Where packets go next: routes and neighbours as the kernel has them, in a form that can be asked per packet.
//!
//! ```text
//!   netlink (routes/) or configuration
//!           |  changes
//!           v
//!        Tables  -- snapshot() -->  Arc<Fib>  -->  workers: resolve()
//!           |                          |
//!           +------- Shelf keeps every snapshot that a worker may still hold
//! ```
//!
//! A [`Fib`] never changes. The control thread makes a new one when something has changed, and gives workers a
//! reference to it between batches. **Invariant:** a worker frees no memory, so the control thread keeps a
//! reference to each snapshot on a [`Shelf`] and frees it when it is the only one left that has one.
//!
//! The look-up is the kernel's with its default rules: table local, then table main, in each the longest prefix,
//! of equal prefixes the lowest metric. Not done: other tables and rules, routes by type of service or source
//! address. One difference is deliberate: while nobody has added a rule, the kernel looks IPv4 routes of both
//! tables up as if they were one; here a prefix in table local always goes before one in table main.
//!
//! What is the kernel's whatever the routes say is [`Resolution::Local`]: multicast, broadcast, loopback,
//! unspecified and IPv6 link-local destinations.

mod route;
mod shelf;
mod stretch;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::RandomState;
use prefix_trie::PrefixMap;

use crate::batch::PortId;

pub use route::{Health, Hop, Kind, Route, RouteKey, Table};
pub use shelf::{SNAPSHOTS_MAX, Shelf};
pub use stretch::{NextHop, Stretch};
pub use tables::{
    ACTIONS_MAX, ADDRESSES_MAX, Address, Fixed, FixedPort, Full, HOPS_MAX, NEIGHBOURS_MAX,
    Neighbour, PortLink, ROUTES_MAX, Tables,
};

/// Bytes of an Ethernet header without tags.
pub const LINK_HEADER_BYTES: usize = 14;

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Sent on.
    Forward {
        /// By this port.
        port: PortId,
        /// With this Ethernet header: the next hop's MAC address, the port's own, the EtherType of the
        /// destination's IP version.
        link: [u8; LINK_HEADER_BYTES],
        /// Most bytes it may have, from its IP header on: the less of the port's MTU and the route's.
        mtu_bytes: u32,
    },
    /// Sent on, once the kernel knows the MAC address of the next hop. Ask it to find out.
    Unresolved {
        /// By this port.
        port: PortId,
        /// The next hop's address, of either version; the destination's own on a connected network.
        address: IpAddr,
    },
    /// It is for this machine.
    Local,
    /// Nothing matches.
    NoRoute,
    /// It would leave by an interface that is none of the two ports.
    OtherInterface,
    /// A route says that it cannot be reached.
    Unreachable,
    /// A route says that it vanishes.
    Blackhole,
    /// A route says that it is forbidden.
    Prohibit,
}

/// Prefixes of one table, each with the number of its action.
#[derive(Debug, Clone, Default)]
struct Tries {
    ipv4: PrefixMap<(u32, u8), u32>,
    ipv6: PrefixMap<(u128, u8), u32>,
}

/// Table local: nearly all of it are this machine's own addresses, which share their first bits with whatever is near
/// them, so that a walk down a trie would seldom end early. They are asked by hash, and before all shorter prefixes.
#[derive(Debug, Clone, Default)]
struct LocalTable {
    hosts_ipv4: HashMap<u32, u32, RandomState>,
    hosts_ipv6: HashMap<u128, u32, RandomState>,
    /// Those of `hosts_ipv4`, for what lies between them.
    sorted_ipv4: BTreeSet<u32>,
    wider: Tries,
}

/// What a route comes to on this machine now.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// One of `hops[first..first + count]`, picked by weight.
    Hops { first: u32, count: u32, weight_total: u64, mtu_bytes: u32 },
    /// The same whatever the flow.
    Settled(Resolution),
    /// As if it had not been found.
    Throw,
}

/// A hop of a route.
#[derive(Debug, Clone, Copy)]
struct WeightedHop {
    /// Weights of this hop and those before it.
    weight_sum: u64,
    way: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// To a gateway whose MAC address is known; the header's EtherType is still open.
    Known { port: PortId, macs: [u8; 12], port_mtu_bytes: u32 },
    /// To a gateway whose MAC address is not known.
    Unknown { port: PortId, address: IpAddr },
    /// To the destination itself.
    Connected { port: PortId },
    /// By an interface that is not ours.
    Elsewhere,
}

/// MAC addresses by IP address, as a number: that is one step for the hash, which has a secret of its own, because
/// whoever is on the network chooses addresses.
#[derive(Debug, Clone, Default)]
struct Neighbours {
    ipv4: HashMap<u32, [u8; 6], RandomState>,
    ipv6: HashMap<u128, [u8; 6], RandomState>,
}

/// A port, and what is near it.
#[derive(Debug, Clone, Default)]
struct PortView {
    link: Option<PortLink>,
    ipv4_source: Option<Ipv4Addr>,
    ipv6_source: Option<Ipv6Addr>,
    neighbours: Neighbours,
}

/// All routes, neighbours and addresses at one moment.
#[derive(Debug, Clone, Default)]
pub struct Fib {
    local: Arc<LocalTable>,
    main: Arc<Tries>,
    actions: Box<[Action]>,
    hops: Box<[WeightedHop]>,
    ports: [PortView; 2],
    /// Of all interfaces, ascending.
    own: Box<[IpAddr]>,
}

impl Fib {
    /// Where a packet to `destination` goes. Of several hops of one route, `flow_hash` picks one, each as often
    /// as its weight says: the same hash always takes the same one while the routes stay as they are.
    #[inline]
    pub fn resolve(&self, destination: IpAddr, flow_hash: u32) -> Resolution {
        if is_the_kernels(destination) {
            return Resolution::Local;
        }
        // A host that table local throws is looked for in its shorter prefixes no more: there is one answer a table.
        let local = self.local.find(destination).map(|number| self.actions[number as usize]);
        match local {
            None | Some(Action::Throw) => {}
            Some(action) => return self.act(action, destination, flow_hash),
        }
        match self.main.find(destination).map(|number| self.actions[number as usize]) {
            None | Some(Action::Throw) => Resolution::NoRoute,
            Some(action) => self.act(action, destination, flow_hash),
        }
    }

    #[inline]
    fn act(&self, action: Action, destination: IpAddr, flow_hash: u32) -> Resolution {
        match action {
            Action::Settled(resolution) => resolution,
            Action::Throw => unreachable!("its callers look elsewhere"),
            Action::Hops { first, count, weight_total, mtu_bytes } => {
                let hops = &self.hops[first as usize..][..count as usize];
                self.take(pick(hops, weight_total, flow_hash), destination, mtu_bytes)
            }
        }
    }

    /// The same for a next hop that the configuration names: the neighbour itself when it is on a connected
    /// network. `destination` decides the EtherType, as the packet's own destination, of either version.
    pub fn resolve_via(&self, next_hop: IpAddr, destination: IpAddr, flow_hash: u32) -> Resolution {
        match self.resolve(next_hop, flow_hash) {
            Resolution::Forward { port, mut link, mtu_bytes } => {
                link[12..].copy_from_slice(&ether_type(destination));
                Resolution::Forward { port, link, mtu_bytes }
            }
            other => other,
        }
    }

    /// Whether this machine has the address, on any interface.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.binary_search(&address).is_ok()
    }

    /// This machine's addresses, ascending.
    pub fn own_addresses(&self) -> &[IpAddr] {
        &self.own
    }

    /// The port as it was, unless it was gone.
    pub fn port(&self, port: PortId) -> Option<PortLink> {
        self.ports[port.index()].link
    }

    /// What the gateway calls itself on a port, for ICMP messages: its first global IPv4 address there.
    pub fn ipv4_source(&self, port: PortId) -> Option<Ipv4Addr> {
        self.ports[port.index()].ipv4_source
    }

    /// The same for IPv6; a link-local address where there is no other.
    pub fn ipv6_source(&self, port: PortId) -> Option<Ipv6Addr> {
        self.ports[port.index()].ipv6_source
    }

    #[inline]
    fn take(&self, way: Way, destination: IpAddr, route_mtu_bytes: u32) -> Resolution {
        let forward = |port, macs: [u8; 12], port_mtu_bytes: u32| {
            let mut link = [0; LINK_HEADER_BYTES];
            link[..12].copy_from_slice(&macs);
            link[12..].copy_from_slice(&ether_type(destination));
            Resolution::Forward { port, link, mtu_bytes: port_mtu_bytes.min(route_mtu_bytes) }
        };
        match way {
            Way::Known { port, macs, port_mtu_bytes } => forward(port, macs, port_mtu_bytes),
            Way::Unknown { port, address } => Resolution::Unresolved { port, address },
            Way::Elsewhere => Resolution::OtherInterface,
            Way::Connected { port } => {
                let view = &self.ports[port.index()];
                let (Some(link), Some(mac)) = (view.link, view.neighbours.find(destination)) else {
                    return Resolution::Unresolved { port, address: destination };
                };
                forward(port, link.macs_to(mac), link.mtu_bytes)
            }
        }
    }
}

impl Tries {
    #[inline]
    fn find(&self, destination: IpAddr) -> Option<u32> {
        match destination {
            IpAddr::V4(address) => self.ipv4.get_lpm(&(address.to_bits(), 32)).map(|(_, n)| *n),
            IpAddr::V6(address) => self.ipv6.get_lpm(&(address.to_bits(), 128)).map(|(_, n)| *n),
        }
    }
}

impl LocalTable {
    #[inline]
    fn find(&self, destination: IpAddr) -> Option<u32> {
        let host = match destination {
            IpAddr::V4(address) => self.hosts_ipv4.get(&address.to_bits()),
            IpAddr::V6(address) => self.hosts_ipv6.get(&address.to_bits()),
        };
        host.copied().or_else(|| self.wider.find(destination))
    }
}

impl Neighbours {
    #[inline]
    fn find(&self, address: IpAddr) -> Option<[u8; 6]> {
        match address {
            IpAddr::V4(address) => self.ipv4.get(&address.to_bits()).copied(),
            IpAddr::V6(address) => self.ipv6.get(&address.to_bits()).copied(),
        }
    }

    fn insert(&mut self, address: IpAddr, mac: [u8; 6]) {
        match address {
            IpAddr::V4(address) => self.ipv4.insert(address.to_bits(), mac),
            IpAddr::V6(address) => self.ipv6.insert(address.to_bits(), mac),
        };
    }
}

/// The hop in whose share of all weights the hash falls.
#[inline]
fn pick(hops: &[WeightedHop], weight_total: u64, flow_hash: u32) -> Way {
    if let [only] = hops {
        return only.way;
    }
    // 32 bits of hash, and HOPS_MAX hops of weight 65536 are 24 bits more.
    let point = (u64::from(flow_hash) * weight_total) >> 32;
    let hop = hops.iter().find(|hop| point < hop.weight_sum);
    hop.expect("the last sum is the total, which the point is below").way
}

/// The EtherType of a packet with this destination.
#[inline]
fn ether_type(destination: IpAddr) -> [u8; 2] {
    match destination {
        IpAddr::V4(_) => [0x08, 0x00],
        IpAddr::V6(_) => [0x86, 0xdd],
    }
}

/// Destinations that no router forwards.
#[inline]
fn is_the_kernels(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(address) => {
            // 0.0.0.0/8, 127.0.0.0/8, and from 224.0.0.0 on multicast, reserved and limited broadcast, of which
            // only 240.0.0.0/4 without its last address can have routes.
            let first = address.octets()[0];
            first == 0 || first == 127 || first & 0xf0 == 0xe0 || address.is_broadcast()
        }
        IpAddr::V6(address) => {
            let [first, second, ..] = address.octets();
            first == 0xff
                || first == 0xfe && second & 0xc0 == 0x80
                || address.is_unspecified()
                || address.is_loopback()
        }
    }
}

#[cfg(test)]
mod tests;
