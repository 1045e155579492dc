//! Routes, neighbours and addresses that change, from which snapshots are made.
//!
//! Routes are kept sorted, so that the best of a prefix is the first; the tries hold the best alone. Equal actions
//! (hops and all) are kept once: a million routes of a BGP speaker have a few hundred. **Invariant:** the tries have
//! a prefix exactly when a usable route to it is there, with the number of the action of the first of them.
//!
//! A snapshot shares the tries; the next change after it copies them. That is the cost of a change: some 10 ms at a
//! hundred thousand routes, 10 to 250 ms at a million, by how they lie, once a snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Action, Fib, Kind, LocalTable, PortView, Resolution, Route, RouteKey, Table, Tries, Way,
    WeightedHop,
};
use crate::batch::PortId;

/// Most routes, both tables and both IP versions together. A million take about 100 MB, the copy of the
/// tries in a snapshot included.
pub const ROUTES_MAX: usize = 1 << 20;
/// Most different actions: sets of hops with their weights and MTU.
pub const ACTIONS_MAX: usize = 1 << 16;
/// Most hops of one route.
pub const HOPS_MAX: usize = 256;
/// Most neighbours on both ports.
pub const NEIGHBOURS_MAX: usize = 1 << 16;
/// Most addresses of this machine.
pub const ADDRESSES_MAX: usize = 1 << 12;

/// More of something than there may be. What was to be added is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel has more than {most} {what}; those beyond are not known here, and packets that need them take other \
         routes or none. Filter what the routing daemon installs"
)]
pub struct Full {
    /// Of what.
    pub what: &'static str,
    /// The limit.
    pub most: usize,
}

/// An interface that is one of the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortLink {
    /// Its number.
    pub interface: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU: most bytes of a packet from its IP header on.
    pub mtu_bytes: u32,
}

impl PortLink {
    /// The beginning of an Ethernet header from this port.
    pub(super) fn macs_to(&self, destination: [u8; 6]) -> [u8; 12] {
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&destination);
        macs[6..].copy_from_slice(&self.mac);
        macs
    }
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC address; none when it did not answer yet or any more.
    pub mac: Option<[u8; 6]>,
    /// Whether the kernel would ask it again if it sent it something (`NUD_STALE`).
    pub is_stale: bool,
}

/// An address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The number of its interface.
    pub interface: u32,
    /// Not to be used as a source while there is another: secondary, deprecated, tentative.
    pub is_secondary: bool,
    /// The address.
    pub address: IpAddr,
}

/// A port of a gateway that has no kernel: [`Fixed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPort {
    /// Its own MAC address.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu_bytes: u32,
    /// Its addresses, each with its network.
    pub addresses: Vec<IpNet>,
}

/// All that a gateway without a kernel knows: capture files, tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// In [`PortId`] order.
    pub ports: [FixedPort; 2],
    /// Prefix, gateway, port.
    pub routes: Vec<(IpNet, Option<IpAddr>, PortId)>,
    /// Port, address, MAC address.
    pub neighbours: Vec<(PortId, IpAddr, [u8; 6])>,
}

/// An action, and how many routes have it. With none, its number is free for another.
#[derive(Debug, Clone)]
struct Shared {
    route: Route,
    uses: u32,
}

/// See the head of this file.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    routes: BTreeMap<RouteKey, u32>,
    local: Arc<LocalTable>,
    main: Arc<Tries>,
    actions: Vec<Shared>,
    numbers: HashMap<Route, u32>,
    free: Vec<u32>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    addresses: BTreeSet<Address>,
    ports: [Option<PortLink>; 2],
}

impl Tables {
    /// Adds a route, or replaces that with the same key. False when it was there already, just so.
    ///
    /// # Errors
    ///
    /// When there are too many; then nothing is changed.
    pub fn set_route(&mut self, key: RouteKey, route: Route) -> Result<bool, Full> {
        if self.route(&key) == Some(&route) {
            return Ok(false);
        }
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&key) {
            return Err(Full { what: "routes", most: ROUTES_MAX });
        }
        if route.hops.len() > HOPS_MAX {
            return Err(Full { what: "hops of one route", most: HOPS_MAX });
        }
        let number = self.share(route)?;
        let before = self.routes.insert(key, number);
        self.choose(key.table, key.prefix);
        before.into_iter().for_each(|number| self.unshare(number));
        Ok(true)
    }

    /// Takes a route away. False when there was none.
    pub fn remove_route(&mut self, key: &RouteKey) -> bool {
        let Some(number) = self.routes.remove(key) else { return false };
        self.choose(key.table, key.prefix);
        self.unshare(number);
        true
    }

    /// The route with exactly this key.
    pub fn route(&self, key: &RouteKey) -> Option<&Route> {
        self.routes.get(key).map(|number| &self.actions[*number as usize].route)
    }

    /// Routes, of all kinds.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// What a neighbour is now. False when it was so already, as far as snapshots show.
    ///
    /// # Errors
    ///
    /// When there are too many; then nothing is changed.
    pub fn set_neighbour(
        &mut self,
        interface: u32,
        address: IpAddr,
        neighbour: Neighbour,
    ) -> Result<bool, Full> {
        let key = (interface, address);
        if self.neighbours.len() >= NEIGHBOURS_MAX && !self.neighbours.contains_key(&key) {
            return Err(Full { what: "neighbours on the ports", most: NEIGHBOURS_MAX });
        }
        let before = self.neighbours.insert(key, neighbour);
        Ok(before.and_then(|before| before.mac) != neighbour.mac)
    }

    /// Forgets a neighbour. False when nothing was known that snapshots show.
    pub fn remove_neighbour(&mut self, interface: u32, address: IpAddr) -> bool {
        let before = self.neighbours.remove(&(interface, address));
        before.is_some_and(|before| before.mac.is_some())
    }

    /// What is known of a neighbour.
    pub fn neighbour(&self, interface: u32, address: IpAddr) -> Option<Neighbour> {
        self.neighbours.get(&(interface, address)).copied()
    }

    /// All neighbours, in no order.
    pub fn neighbours(&self) -> impl ExactSizeIterator<Item = (u32, IpAddr, Neighbour)> {
        self.neighbours.iter().map(|(&(interface, address), &known)| (interface, address, known))
    }

    /// Gateways of usable routes by the ports.
    pub fn gateways(&self) -> BTreeSet<(u32, IpAddr)> {
        let ports = self.ports.map(|port| port.map_or(0, |port| port.interface));
        let used = self.actions.iter().filter(|shared| shared.uses > 0);
        let hops = used.flat_map(|shared| shared.route.used_hops());
        hops.filter(|hop| hop.interface != 0 && ports.contains(&hop.interface))
            .filter_map(|hop| Some((hop.interface, hop.gateway?)))
            .collect()
    }

    /// Adds an address. False when it was there already.
    ///
    /// # Errors
    ///
    /// When there are too many; then nothing is changed.
    pub fn add_address(&mut self, address: Address) -> Result<bool, Full> {
        if self.addresses.contains(&address) {
            return Ok(false);
        }
        self.remove_address(address.interface, address.address);
        if self.addresses.len() >= ADDRESSES_MAX {
            return Err(Full { what: "addresses", most: ADDRESSES_MAX });
        }
        Ok(self.addresses.insert(address))
    }

    /// Takes an address away. False when there was none.
    pub fn remove_address(&mut self, interface: u32, address: IpAddr) -> bool {
        let removed = [false, true].map(|is_secondary| {
            self.addresses.remove(&Address { interface, is_secondary, address })
        });
        removed.contains(&true)
    }

    /// What a port is now; none when it is gone. False when it was so already.
    pub fn set_port(&mut self, port: PortId, link: Option<PortLink>) -> bool {
        std::mem::replace(&mut self.ports[port.index()], link) != link
    }

    /// What a port is.
    pub fn port(&self, port: PortId) -> Option<PortLink> {
        self.ports[port.index()]
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Fib {
        let mut hops = Vec::new();
        let actions = self.actions.iter();
        let actions = actions.map(|shared| self.action(&shared.route, &mut hops)).collect();
        let mut own: Vec<IpAddr> = self.addresses.iter().map(|one| one.address).collect();
        own.sort_unstable();
        own.dedup();
        Fib {
            local: Arc::clone(&self.local),
            main: Arc::clone(&self.main),
            actions,
            hops: hops.into_boxed_slice(),
            ports: PortId::ALL.map(|port| self.view(port)),
            own: own.into_boxed_slice(),
        }
    }

    fn share(&mut self, route: Route) -> Result<u32, Full> {
        if let Some(number) = self.numbers.get(&route) {
            self.actions[*number as usize].uses += 1;
            return Ok(*number);
        }
        let shared = Shared { route: route.clone(), uses: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.actions[number as usize] = shared;
                number
            }
            None if self.actions.len() < ACTIONS_MAX => {
                self.actions.push(shared);
                self.actions.len() as u32 - 1
            }
            None => return Err(Full { what: "different sets of next hops", most: ACTIONS_MAX }),
        };
        self.numbers.insert(route, number);
        Ok(number)
    }

    fn unshare(&mut self, number: u32) {
        let shared = &mut self.actions[number as usize];
        shared.uses -= 1;
        if shared.uses == 0 {
            self.numbers.remove(&shared.route);
            self.free.push(number);
        }
    }

    /// Puts the best usable route to a prefix into the tries.
    fn choose(&mut self, table: Table, prefix: IpNet) {
        let key = |metric| RouteKey { table, prefix, metric };
        let mut all = self.routes.range(key(0)..=key(u32::MAX));
        let usable = all.find(|(_, number)| self.actions[**number as usize].route.is_usable());
        let best = usable.map(|(_, number)| *number);
        match table {
            Table::Local => Arc::make_mut(&mut self.local).put(prefix, best),
            Table::Main => Arc::make_mut(&mut self.main).put(prefix, best),
        }
    }

    fn action(&self, route: &Route, hops: &mut Vec<WeightedHop>) -> Action {
        match route.kind {
            Kind::Local => Action::Settled(Resolution::Local),
            Kind::Unreachable => Action::Settled(Resolution::Unreachable),
            Kind::Blackhole => Action::Settled(Resolution::Blackhole),
            Kind::Prohibit => Action::Settled(Resolution::Prohibit),
            Kind::Throw => Action::Throw,
            Kind::Unicast => {
                let first = hops.len() as u32;
                let mut weight_total = 0;
                for hop in route.used_hops() {
                    weight_total += u64::from(hop.weight);
                    let way = self.way(hop.interface, hop.gateway);
                    hops.push(WeightedHop { weight_sum: weight_total, way });
                }
                let count = hops.len() as u32 - first;
                let mtu_bytes = route.mtu_bytes.unwrap_or(u32::MAX);
                match count {
                    // Not in the tries, and nobody asks.
                    0 => Action::Settled(Resolution::NoRoute),
                    _ => Action::Hops { first, count, weight_total, mtu_bytes },
                }
            }
        }
    }

    fn way(&self, interface: u32, gateway: Option<IpAddr>) -> Way {
        let is_here = |port: &PortId| {
            self.ports[port.index()].is_some_and(|link| link.interface == interface)
        };
        let Some(port) = PortId::ALL.into_iter().find(is_here) else { return Way::Elsewhere };
        let Some(address) = gateway else { return Way::Connected { port } };
        let link = self.ports[port.index()].expect("its number was just compared");
        match self.neighbour(interface, address).and_then(|known| known.mac) {
            Some(mac) => {
                Way::Known { port, macs: link.macs_to(mac), port_mtu_bytes: link.mtu_bytes }
            }
            None => Way::Unknown { port, address },
        }
    }

    fn view(&self, port: PortId) -> PortView {
        let mut view = PortView { link: self.ports[port.index()], ..PortView::default() };
        let Some(link) = view.link else { return view };
        for (&(interface, address), known) in &self.neighbours {
            if interface == link.interface
                && let Some(mac) = known.mac
            {
                view.neighbours.insert(address, mac);
            }
        }
        // Primary before secondary, lower before higher: the order of the set.
        let here = || self.addresses.iter().filter(|one| one.interface == link.interface);
        view.ipv4_source = here().find_map(|one| match one.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let mut ipv6: Vec<_> = here()
            .filter_map(|one| match one.address {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            })
            .collect();
        ipv6.sort_by_key(|address| address.is_unicast_link_local());
        view.ipv6_source = ipv6.first().copied();
        view
    }
}

impl Fixed {
    /// The snapshot of a machine that has these ports, routes and neighbours and no others.
    ///
    /// # Errors
    ///
    /// When there are too many of something.
    pub fn snapshot(&self) -> Result<Fib, Full> {
        let interface = |port: PortId| port.index() as u32 + 1;
        let mut tables = Tables::default();
        for (port, fixed) in PortId::ALL.into_iter().zip(&self.ports) {
            let link =
                PortLink { interface: interface(port), mac: fixed.mac, mtu_bytes: fixed.mtu_bytes };
            tables.set_port(port, Some(link));
            for network in &fixed.addresses {
                let address = network.addr();
                let own = Address { interface: interface(port), is_secondary: false, address };
                tables.add_address(own)?;
                let host = RouteKey { table: Table::Local, prefix: address.into(), metric: 0 };
                tables.set_route(host, Route::of_kind(Kind::Local))?;
                let connected = main_route(network.trunc());
                tables.set_route(connected, Route::via(interface(port), None))?;
            }
        }
        for (prefix, gateway, port) in &self.routes {
            let route = Route::via(interface(*port), *gateway);
            tables.set_route(main_route(prefix.trunc()), route)?;
        }
        for (port, address, mac) in &self.neighbours {
            let known = Neighbour { mac: Some(*mac), is_stale: false };
            tables.set_neighbour(interface(*port), *address, known)?;
        }
        Ok(tables.snapshot())
    }
}

fn main_route(prefix: IpNet) -> RouteKey {
    RouteKey { table: Table::Main, prefix, metric: 0 }
}

impl LocalTable {
    fn put(&mut self, prefix: IpNet, best: Option<u32>) {
        if prefix.prefix_len() < prefix.max_prefix_len() {
            return self.wider.put(prefix, best);
        }
        if let IpAddr::V4(host) = prefix.network() {
            match best {
                Some(_) => self.sorted_ipv4.insert(host.to_bits()),
                None => self.sorted_ipv4.remove(&host.to_bits()),
            };
        }
        match (prefix.network(), best) {
            (IpAddr::V4(host), Some(number)) => self.hosts_ipv4.insert(host.to_bits(), number),
            (IpAddr::V4(host), None) => self.hosts_ipv4.remove(&host.to_bits()),
            (IpAddr::V6(host), Some(number)) => self.hosts_ipv6.insert(host.to_bits(), number),
            (IpAddr::V6(host), None) => self.hosts_ipv6.remove(&host.to_bits()),
        };
    }
}

impl Tries {
    fn put(&mut self, prefix: IpNet, best: Option<u32>) {
        let length = prefix.prefix_len();
        match (prefix.network(), best) {
            (IpAddr::V4(network), Some(number)) => {
                self.ipv4.insert((network.to_bits(), length), number)
            }
            (IpAddr::V4(network), None) => self.ipv4.remove(&(network.to_bits(), length)),
            (IpAddr::V6(network), Some(number)) => {
                self.ipv6.insert((network.to_bits(), length), number)
            }
            (IpAddr::V6(network), None) => self.ipv6.remove(&(network.to_bits(), length)),
        };
    }
}
