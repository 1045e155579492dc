//! Who sends: a population of flows that are easily confused.

use super::Random;

/// Lists that are easily taken for one another, outer to inner.
const VLAN_LISTS: [&[u16]; 12] = [
    &[],
    &[0],
    &[0, 0],
    &[1],
    &[1, 0],
    &[0, 1],
    &[1, 2],
    &[2, 1],
    &[256],
    &[4095],
    &[4095, 4095],
    &[0x123, 0x321],
];

const PORTS: [u16; 8] = [0, 80, 0x5000, 443, 5201, 32768, 65534, 65535];

/// An address of either family; IPv4 takes the first four bytes.
type Octets = [u8; 16];

/// What the packets of a flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) vlans: &'static [u16],
    pub(super) is_ipv6: bool,
    pub(super) source: Octets,
    pub(super) destination: Octets,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// Different flows, many of which differ in one respect only.
pub(super) fn population(random: &mut Random, flows: usize) -> Vec<Tuple> {
    let mut population: Vec<Tuple> = Vec::with_capacity(flows);
    while population.len() < flows {
        let tuple = if population.is_empty() || random.one_in(4) {
            stranger(random)
        } else {
            let of = random.pick(&population);
            relative(random, of)
        };
        if !population.contains(&tuple) {
            population.push(tuple);
        }
    }
    population
}

fn stranger(random: &mut Random) -> Tuple {
    let is_ipv6 = random.one_in(2);
    // Some use a port of their own, so that there are always more flows to find.
    let own_port = random.word();
    Tuple {
        vlans: random.pick(&VLAN_LISTS),
        is_ipv6,
        source: address(random, is_ipv6),
        destination: address(random, is_ipv6),
        source_port: if random.one_in(2) { own_port } else { random.pick(&PORTS) },
        destination_port: random.pick(&PORTS),
    }
}

/// The same flow but for one thing.
fn relative(random: &mut Random, of: Tuple) -> Tuple {
    let mut tuple = of;
    match random.below(6) {
        0 => {
            (tuple.source, tuple.destination) = (of.destination, of.source);
            (tuple.source_port, tuple.destination_port) = (of.destination_port, of.source_port);
        }
        1 => (tuple.source_port, tuple.destination_port) = (of.destination_port, of.source_port),
        2 => (tuple.source, tuple.destination) = (of.destination, of.source),
        3 if !of.is_ipv6 => {
            tuple.is_ipv6 = true;
            let way = random.below(3);
            tuple.source = widened(of.source, way);
            tuple.destination = widened(of.destination, way);
        }
        4 => tuple.source_port = random.word(),
        _ => tuple.vlans = random.pick(&VLAN_LISTS),
    }
    tuple
}

fn address(random: &mut Random, is_ipv6: bool) -> Octets {
    let mut octets = [0; 16];
    let pool = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 1, 0, 1], [192, 0, 2, 1], [0, 0, 0, 0]];
    octets[..4].copy_from_slice(&random.pick(&pool));
    if !is_ipv6 {
        return octets;
    }
    match random.below(4) {
        3 => {
            octets = [0; 16];
            octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            octets[4 + random.index(12)] = 1;
            octets
        }
        way => widened(octets, way),
    }
}

/// IPv6 addresses that hold an IPv4 address.
fn widened(ipv4: Octets, way: u64) -> Octets {
    let mut octets = [0; 16];
    match way {
        0 => octets[..4].copy_from_slice(&ipv4[..4]),
        1 => octets[12..].copy_from_slice(&ipv4[..4]),
        _ => {
            octets[10..12].fill(0xff);
            octets[12..].copy_from_slice(&ipv4[..4]);
        }
    }
    octets
}
