//! The look-up against a list of routes that is searched from end to end.

use std::net::IpAddr;

use ipnet::IpNet;

use super::*;

const LAN: u32 = 11;
const WAN: u32 = 12;
const ELSEWHERE: u32 = 7;
const LINKS: [PortLink; 2] = [
    PortLink { interface: LAN, mac: [2, 0, 0, 0, 0, 1], mtu_bytes: 1500 },
    PortLink { interface: WAN, mac: [2, 0, 0, 0, 0, 2], mtu_bytes: 1400 },
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn key(table: Table, prefix: &str, metric: u32) -> RouteKey {
    RouteKey { table, prefix: net(prefix), metric }
}

fn tables() -> Tables {
    let mut tables = Tables::default();
    for (port, link) in PortId::ALL.into_iter().zip(LINKS) {
        tables.set_port(port, Some(link));
    }
    tables
}

fn known(tables: &mut Tables, interface: u32, address: &str, last: u8) {
    let mac = Some([2, 0, 0, 0, 1, last]);
    tables.set_neighbour(interface, ip(address), Neighbour { mac, is_stale: false }).unwrap();
}

fn forward(port: PortId, last: u8, ether_type: [u8; 2], mtu_bytes: u32) -> Resolution {
    let mut link = [0; 14];
    link[..6].copy_from_slice(&[2, 0, 0, 0, 1, last]);
    link[6..12].copy_from_slice(&LINKS[port.index()].mac);
    link[12..].copy_from_slice(&ether_type);
    Resolution::Forward { port, link, mtu_bytes }
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

#[test]
fn a_connected_network_and_a_gateway_beyond_it_lead_to_their_neighbours() {
    let mut tables = tables();
    tables.set_route(key(Table::Main, "192.0.2.0/24", 0), Route::via(WAN, None)).unwrap();
    let gateway = Route::via(WAN, Some(ip("192.0.2.1")));
    tables.set_route(key(Table::Main, "0.0.0.0/0", 0), gateway).unwrap();
    let before = tables.snapshot();
    known(&mut tables, WAN, "192.0.2.1", 1);
    known(&mut tables, WAN, "192.0.2.9", 9);
    let fib = tables.snapshot();

    let address = ip("192.0.2.1");
    let unresolved = Resolution::Unresolved { port: PortId::Wan, address };
    assert_eq!(before.resolve(ip("8.8.8.8"), 0), unresolved);
    assert_eq!(before.resolve(address, 0), unresolved);
    assert_eq!(fib.resolve(ip("8.8.8.8"), 0), forward(PortId::Wan, 1, IPV4, 1400));
    assert_eq!(fib.resolve(address, 0), forward(PortId::Wan, 1, IPV4, 1400));
    assert_eq!(fib.resolve(ip("192.0.2.9"), 0), forward(PortId::Wan, 9, IPV4, 1400));
    assert_eq!(fib.resolve(ip("2001:db8::1"), 0), Resolution::NoRoute);
}

#[test]
fn an_ipv4_route_by_an_ipv6_next_hop_keeps_the_ether_type_of_ipv4() {
    let mut tables = tables();
    let route = Route::via(WAN, Some(ip("fe80::5")));
    tables.set_route(key(Table::Main, "198.51.100.0/24", 20), route).unwrap();
    known(&mut tables, WAN, "fe80::5", 5);
    let fib = tables.snapshot();
    assert_eq!(fib.resolve(ip("198.51.100.7"), 0), forward(PortId::Wan, 5, IPV4, 1400));
}

#[test]
fn a_configured_next_hop_takes_packets_of_either_version() {
    let mut tables = tables();
    tables.set_route(key(Table::Main, "192.0.2.0/24", 0), Route::via(WAN, None)).unwrap();
    known(&mut tables, WAN, "192.0.2.1", 1);
    let fib = tables.snapshot();
    let resolve = |destination| fib.resolve_via(ip("192.0.2.1"), ip(destination), 0);
    assert_eq!(resolve("10.0.0.1"), forward(PortId::Wan, 1, IPV4, 1400));
    assert_eq!(resolve("2001:db8::1"), forward(PortId::Wan, 1, IPV6, 1400));
}

#[test]
fn the_lowest_metric_goes_first_and_a_dead_hop_never() {
    let mut tables = tables();
    let with = |interface, health| {
        let mut route = Route::via(interface, None);
        route.hops[0].health = health;
        route
    };
    known(&mut tables, WAN, "10.1.0.1", 1);
    known(&mut tables, LAN, "10.1.0.1", 2);
    let preferred = key(Table::Main, "10.1.0.0/16", 10);
    let other = key(Table::Main, "10.1.0.0/16", 20);
    tables.set_route(preferred, with(WAN, Health::Live)).unwrap();
    tables.set_route(other, with(LAN, Health::Live)).unwrap();
    let by_wan = forward(PortId::Wan, 1, IPV4, 1400);
    let by_lan = forward(PortId::Lan, 2, IPV4, 1500);
    let resolve = |tables: &Tables| tables.snapshot().resolve(ip("10.1.0.1"), 0);
    assert_eq!(resolve(&tables), by_wan);
    tables.set_route(preferred, with(WAN, Health::NoLink)).unwrap();
    assert_eq!(resolve(&tables), by_wan, "as the kernel does without ignore_routes_with_linkdown");
    tables.set_route(preferred, with(WAN, Health::Dead)).unwrap();
    assert_eq!(resolve(&tables), by_lan);
    tables.remove_route(&other);
    assert_eq!(resolve(&tables), Resolution::NoRoute);
}

#[test]
fn the_local_table_is_asked_first_and_throw_goes_on() {
    let mut tables = tables();
    tables.set_route(key(Table::Main, "10.0.0.1/32", 0), Route::via(WAN, None)).unwrap();
    tables.set_route(key(Table::Local, "10.0.0.0/8", 0), Route::of_kind(Kind::Local)).unwrap();
    assert_eq!(tables.snapshot().resolve(ip("10.0.0.1"), 0), Resolution::Local);
    tables.set_route(key(Table::Local, "10.0.0.0/8", 0), Route::of_kind(Kind::Throw)).unwrap();
    let unresolved = Resolution::Unresolved { port: PortId::Wan, address: ip("10.0.0.1") };
    assert_eq!(tables.snapshot().resolve(ip("10.0.0.1"), 0), unresolved);
}

#[test]
fn what_no_router_forwards_is_the_kernels_whatever_the_routes_say() {
    let mut tables = tables();
    for all in ["0.0.0.0/0", "::/0"] {
        tables.set_route(key(Table::Main, all, 0), Route::of_kind(Kind::Blackhole)).unwrap();
    }
    let fib = tables.snapshot();
    for address in
        ["0.0.0.0", "127.0.0.1", "224.0.0.5", "239.255.255.255", "255.255.255.255", "::", "::1"]
    {
        assert_eq!(fib.resolve(ip(address), 0), Resolution::Local, "{address}");
    }
    for address in ["ff02::1", "fe80::1", "febf::1"] {
        assert_eq!(fib.resolve(ip(address), 0), Resolution::Local, "{address}");
    }
    for address in ["1.1.1.1", "223.255.255.255", "240.0.0.1", "fec0::1", "2001:db8::1", "::2"] {
        assert_eq!(fib.resolve(ip(address), 0), Resolution::Blackhole, "{address}");
    }
}

#[test]
fn flows_are_spread_by_weight_and_live_hops_alone_get_any() {
    let mut tables = tables();
    let hop = |last: u8, weight, health| Hop {
        interface: WAN,
        gateway: Some(ip(&format!("192.0.2.{last}"))),
        weight,
        health,
    };
    let hops = vec![hop(1, 1, Health::Live), hop(2, 3, Health::Live), hop(3, 100, Health::NoLink)];
    let route = Route { kind: Kind::Unicast, hops, mtu_bytes: Some(1300) };
    tables.set_route(key(Table::Main, "0.0.0.0/0", 0), route).unwrap();
    for last in [1, 2, 3] {
        known(&mut tables, WAN, &format!("192.0.2.{last}"), last);
    }
    let fib = tables.snapshot();
    let mut taken = [0; 4];
    for step in 0..4000_u32 {
        let hash = step << 20 | step.wrapping_mul(0x9e37_79b9) >> 12;
        let Resolution::Forward { link, mtu_bytes: 1300, .. } = fib.resolve(ip("9.9.9.9"), hash)
        else {
            panic!("{:?}", fib.resolve(ip("9.9.9.9"), hash));
        };
        taken[usize::from(link[5])] += 1;
    }
    assert_eq!(taken[0] + taken[3], 0);
    assert!((taken[2] as f64 / taken[1] as f64 - 3.0).abs() < 0.1, "{taken:?}");
    for hash in [0, u32::MAX] {
        assert!(matches!(fib.resolve(ip("9.9.9.9"), hash), Resolution::Forward { .. }));
    }
}

#[test]
fn a_snapshot_does_not_change_any_more() {
    let mut tables = tables();
    tables.set_route(key(Table::Main, "10.0.0.0/8", 0), Route::of_kind(Kind::Prohibit)).unwrap();
    let before = tables.snapshot();
    tables.remove_route(&key(Table::Main, "10.0.0.0/8", 0));
    assert_eq!(before.resolve(ip("10.0.0.1"), 0), Resolution::Prohibit);
    assert_eq!(tables.snapshot().resolve(ip("10.0.0.1"), 0), Resolution::NoRoute);
}

#[test]
fn own_addresses_are_known_and_the_best_of_them_is_the_source() {
    let mut tables = tables();
    let mut add = |interface, is_secondary, address| {
        let address = Address { interface, is_secondary, address: ip(address) };
        tables.add_address(address).unwrap();
    };
    add(LAN, true, "10.0.0.1");
    add(LAN, false, "10.0.0.2");
    add(LAN, false, "fe80::1");
    add(LAN, false, "fd00::1");
    add(ELSEWHERE, false, "172.16.0.1");
    let fib = tables.snapshot();
    assert!(["10.0.0.1", "fe80::1", "172.16.0.1"].iter().all(|one| fib.is_own(ip(one))));
    assert!(!fib.is_own(ip("10.0.0.3")));
    assert_eq!(fib.ipv4_source(PortId::Lan).map(IpAddr::V4), Some(ip("10.0.0.2")));
    assert_eq!(fib.ipv6_source(PortId::Lan).map(IpAddr::V6), Some(ip("fd00::1")));
    assert_eq!((fib.ipv4_source(PortId::Wan), fib.ipv6_source(PortId::Wan)), (None, None));
    assert!(tables.remove_address(LAN, ip("10.0.0.1")));
    assert!(!tables.snapshot().is_own(ip("10.0.0.1")));
}

#[test]
fn sets_of_hops_that_no_route_has_any_more_make_room_for_others() {
    let mut tables = tables();
    let prefix = key(Table::Main, "10.0.0.0/8", 0);
    for number in 0..ACTIONS_MAX as u32 + 10 {
        let gateway = IpAddr::from((0xc000_0000 + number).to_be_bytes());
        assert_eq!(tables.set_route(prefix, Route::via(WAN, Some(gateway))), Ok(true));
    }
    let address = IpAddr::from((0xc000_0000 + ACTIONS_MAX as u32 + 9).to_be_bytes());
    let unresolved = Resolution::Unresolved { port: PortId::Wan, address };
    assert_eq!(tables.snapshot().resolve(ip("10.1.1.1"), 0), unresolved);
}

#[test]
fn a_fixed_table_routes_without_a_kernel() {
    let port = |last: usize, address| FixedPort {
        mac: LINKS[last].mac,
        mtu_bytes: LINKS[last].mtu_bytes,
        addresses: vec![net(address)],
    };
    let fixed = Fixed {
        ports: [port(0, "10.0.0.254/24"), port(1, "192.0.2.2/30")],
        routes: vec![(net("0.0.0.0/0"), Some(ip("192.0.2.1")), PortId::Wan)],
        neighbours: vec![
            (PortId::Lan, ip("10.0.0.7"), [2, 0, 0, 0, 1, 7]),
            (PortId::Wan, ip("192.0.2.1"), [2, 0, 0, 0, 1, 1]),
        ],
    };
    let fib = fixed.snapshot().unwrap();
    assert_eq!(fib.resolve(ip("10.0.0.7"), 0), forward(PortId::Lan, 7, IPV4, 1500));
    assert_eq!(fib.resolve(ip("10.0.0.254"), 0), Resolution::Local);
    assert_eq!(fib.resolve(ip("203.0.113.1"), 0), forward(PortId::Wan, 1, IPV4, 1400));
    assert!(fib.is_own(ip("192.0.2.2")));
}

/// What the look-up must say, slowly.
struct Model {
    routes: Vec<(RouteKey, Route)>,
    neighbours: Vec<(u32, IpAddr, [u8; 6])>,
}

impl Model {
    fn resolve(&self, destination: IpAddr, hash: u32) -> Resolution {
        if is_the_kernels(destination) {
            return Resolution::Local;
        }
        for table in [Table::Local, Table::Main] {
            let best = self
                .routes
                .iter()
                .filter(|(key, _)| key.table == table && key.prefix.contains(&destination))
                .filter(|(_, route)| {
                    route.kind != Kind::Unicast
                        || route.hops.iter().any(|hop| hop.health != Health::Dead)
                })
                .min_by_key(|(key, _)| (255 - key.prefix.prefix_len(), key.metric));
            let Some((_, route)) = best else { continue };
            return match route.kind {
                Kind::Throw => continue,
                Kind::Local => Resolution::Local,
                Kind::Unreachable => Resolution::Unreachable,
                Kind::Blackhole => Resolution::Blackhole,
                Kind::Prohibit => Resolution::Prohibit,
                Kind::Unicast => self.by(route, destination, hash),
            };
        }
        Resolution::NoRoute
    }

    fn by(&self, route: &Route, destination: IpAddr, hash: u32) -> Resolution {
        let live = route.hops.iter().any(|hop| hop.health == Health::Live);
        let wanted = if live { Health::Live } else { Health::NoLink };
        // One ticket for each unit of weight.
        let tickets: Vec<&Hop> = route
            .hops
            .iter()
            .filter(|hop| hop.health == wanted)
            .flat_map(|hop| std::iter::repeat_n(hop, hop.weight as usize))
            .collect();
        let hop = tickets[((u64::from(hash) * tickets.len() as u64) >> 32) as usize];
        let Some(index) = LINKS.iter().position(|link| link.interface == hop.interface) else {
            return Resolution::OtherInterface;
        };
        let (port, link) = (PortId::ALL[index], LINKS[index]);
        let address = hop.gateway.unwrap_or(destination);
        let found = self.neighbours.iter().find(|one| (one.0, one.1) == (hop.interface, address));
        let Some((_, _, mac)) = found else { return Resolution::Unresolved { port, address } };
        let ether_type = if destination.is_ipv4() { IPV4 } else { IPV6 };
        let bytes = [&mac[..], &link.mac, &ether_type].concat().try_into().unwrap();
        let mtu_bytes = link.mtu_bytes.min(route.mtu_bytes.unwrap_or(u32::MAX));
        Resolution::Forward { port, link: bytes, mtu_bytes }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    /// From a small world, so that prefixes nest and destinations hit them.
    fn address(&mut self) -> IpAddr {
        let bits =
            (self.below(4) << 22 | self.below(4) << 12 | self.below(4) << 6 | self.below(8)) as u32;
        match self.below(2) {
            0 => IpAddr::V4((0x0a00_0000 | bits).into()),
            _ => IpAddr::V6((0x2001_0db8 << 96 | u128::from(bits) << self.below(2)).into()),
        }
    }

    fn key(&mut self) -> RouteKey {
        let address = self.address();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match self.below(8) {
            0 => longest as u64,
            1 => 0,
            _ => longest as u64 - self.below(28),
        };
        let prefix = IpNet::new(address, length as u8).unwrap().trunc();
        let table = if self.below(8) == 0 { Table::Local } else { Table::Main };
        RouteKey { table, prefix, metric: self.below(3) as u32 }
    }

    fn route(&mut self) -> Route {
        let kind = match self.below(12) {
            0 => Kind::Local,
            1 => Kind::Unreachable,
            2 => Kind::Blackhole,
            3 => Kind::Prohibit,
            4 => Kind::Throw,
            _ => Kind::Unicast,
        };
        let count = if kind == Kind::Unicast { 1 + self.below(3) } else { 0 };
        let hops = (0..count).map(|_| Hop {
            interface: [LAN, WAN, ELSEWHERE][self.below(3) as usize],
            gateway: (self.below(2) == 0).then(|| self.address()),
            weight: 1 + self.below(5) as u32,
            health: [Health::Live, Health::Live, Health::NoLink, Health::Dead]
                [self.below(4) as usize],
        });
        let hops = hops.collect();
        Route { kind, hops, mtu_bytes: (self.below(4) == 0).then_some(1280) }
    }
}

#[test]
fn the_lookup_agrees_with_a_search_through_all_routes() {
    for seed in 1..=40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut tables = tables();
        let mut model = Model { routes: Vec::new(), neighbours: Vec::new() };
        for step in 0..400 {
            let key = random.key();
            if random.below(3) == 0 {
                let key = match model.routes.len() {
                    0 => key,
                    count => model.routes[random.below(count as u64) as usize].0,
                };
                let before = model.routes.len();
                model.routes.retain(|(other, _)| *other != key);
                assert_eq!(tables.remove_route(&key), model.routes.len() < before);
            } else {
                let route = random.route();
                model.routes.retain(|(other, _)| *other != key);
                model.routes.push((key, route.clone()));
                tables.set_route(key, route).unwrap();
            }
            let (interface, address) = ([LAN, WAN][random.below(2) as usize], random.address());
            let mac = [2, 1, 0, 0, 0, step as u8];
            model.neighbours.retain(|one| (one.0, one.1) != (interface, address));
            if random.below(3) == 0 {
                tables.remove_neighbour(interface, address);
            } else {
                let neighbour = Neighbour { mac: Some(mac), is_stale: false };
                tables.set_neighbour(interface, address, neighbour).unwrap();
                model.neighbours.push((interface, address, mac));
            }
            let fib = tables.snapshot();
            for _ in 0..20 {
                let (destination, hash) = (random.address(), random.next() as u32);
                assert_eq!(
                    fib.resolve(destination, hash),
                    model.resolve(destination, hash),
                    "seed {seed}, step {step}, {destination}, hash {hash}"
                );
            }
            assert_eq!(tables.routes(), model.routes.len());
        }
    }
}

/// Both edges of each stretch, what lies beside them, and addresses inside.
#[test]
fn everything_in_a_stretch_takes_its_hop_and_nothing_is_the_machines() {
    let (mut stretches, mut hops, mut widest) = (0, 0, 0);
    for seed in 1..=40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut tables = tables();
        for step in 0..200 {
            tables.set_route(random.key(), random.route()).unwrap();
            tables.remove_route(&random.key());
            let (interface, address) = ([LAN, WAN][random.below(2) as usize], random.address());
            let neighbour = Neighbour { mac: Some([2, 1, 0, 0, 0, step]), is_stale: false };
            tables.set_neighbour(interface, address, neighbour).unwrap();
            if step % 16 == 0 {
                let address = random.address();
                tables.add_address(Address { interface, is_secondary: false, address }).unwrap();
            }
            let fib = tables.snapshot();
            for _ in 0..20 {
                let IpAddr::V4(around) = random.address() else { continue };
                let Some(stretch) = fib.stretch_around(around.to_bits()) else { continue };
                assert!(stretch.contains(around.to_bits()));
                stretches += 1;
                let (first, last) = stretch.ends();
                widest = widest.max(last - first);
                let inside =
                    |random: &mut Random| first + random.below(u64::from(last - first) + 1) as u32;
                let picks = [(); 8].map(|()| inside(&mut random));
                for address in [first, last].into_iter().chain(picks) {
                    hops += u32::from(agrees_with_resolve(&fib, &stretch, address));
                }
                for beside in [first.checked_sub(1), last.checked_add(1)].into_iter().flatten() {
                    assert!(!stretch.contains(beside));
                }
            }
        }
    }
    assert!(stretches > 2000 && hops > 1000 && widest > 1 << 20, "{stretches} {hops} {widest}");
}

/// Returns whether there is a hop.
fn agrees_with_resolve(fib: &Fib, stretch: &Stretch, address: u32) -> bool {
    let ip = IpAddr::V4(address.into());
    assert!(stretch.contains(address) && !fib.is_own(ip), "{ip}");
    let resolved = fib.resolve(ip, 0x1234_5678);
    let Some(hop) = fib.hop(stretch, address) else {
        assert!(matches!(resolved, Resolution::Unresolved { .. }), "{ip}: {resolved:?}");
        return false;
    };
    let link = [&hop.mac[..], &hop.source_mac[..], &IPV4].concat().try_into().unwrap();
    let found = Resolution::Forward { port: hop.port, link, mtu_bytes: hop.mtu_bytes };
    assert_eq!(found, resolved, "{ip}");
    true
}

#[test]
fn a_stretch_ends_where_a_route_or_an_address_of_the_machines_begins() {
    let mut tables = tables();
    tables.set_route(key(Table::Main, "10.0.0.0/16", 0), Route::via(LAN, None)).unwrap();
    let own = Address { interface: LAN, is_secondary: false, address: ip("10.0.0.1") };
    tables.add_address(own).unwrap();
    let broadcast = key(Table::Local, "10.0.255.255/32", 0);
    tables.set_route(broadcast, Route::of_kind(Kind::Local)).unwrap();
    let ends = |tables: &Tables, around: u32| {
        tables.snapshot().stretch_around(around).map(|stretch| stretch.ends())
    };
    assert_eq!(ends(&tables, 0x0a00_0203), Some((0x0a00_0002, 0x0a00_fffe)));
    assert_eq!([0x0a00_0001, 0x0a00_ffff].map(|own| ends(&tables, own)), [None, None]);
    let more_specific = key(Table::Main, "10.0.128.0/24", 0);
    tables.set_route(more_specific, Route::of_kind(Kind::Blackhole)).unwrap();
    assert_eq!(ends(&tables, 0x0a00_0203), Some((0x0a00_0002, 0x0a00_7fff)));
    assert_eq!(ends(&tables, 0x0a00_8001), None);
    tables.set_route(key(Table::Local, "10.0.2.0/30", 0), Route::of_kind(Kind::Throw)).unwrap();
    assert_eq!(ends(&tables, 0x0a00_0203), None, "table local has its say");
}
