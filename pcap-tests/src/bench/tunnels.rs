//! Routed mode in memory: a gateway with two GRE lanes, and what its peer would send.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::batch::PortId;
use dataplane::fib::{Fixed, FixedPort};
use dataplane::lane::Lane;
use dataplane::lane::encapsulation::Encapsulator;
use dataplane::lane::sequence::Numbers;
use dataplane::lane::tunnel::Tunnel;
use dataplane::router::{Router, Site};
use dataplane::wire::buffer::Buffer;
use ipnet::IpNet;

use super::port::{ANSWER, PACKET_BYTES, TUNNEL_PACKET_BYTES};

const MTU_BYTES: u32 = 1500;
const ENDS: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// The tunnel of a lane, from one of the ends to the other.
fn tunnel(lane: u32, [local, remote]: [&str; 2]) -> Tunnel {
    Tunnel {
        local: address(local),
        remote: address(remote),
        key: Some(lane),
        sequence: false,
        checksum: false,
        ttl: 64,
        dscp: None,
        dont_fragment: true,
        mtu_bytes: None,
        udp: false,
    }
}

/// Hosts in 10.0.0.0/8 behind a router on the LAN, the other site's in 192.0.2.0/24.
pub(super) fn router() -> Router {
    let port = |last: u8, own: &str| FixedPort {
        mac: [2, 0, 0, 0, 0, last],
        mtu_bytes: MTU_BYTES,
        addresses: vec![net(own)],
    };
    let fixed = Fixed {
        ports: [port(1, "172.16.0.1/24"), port(2, "198.18.0.1/24")],
        routes: vec![(net("10.0.0.0/8"), Some(address("172.16.0.2")), PortId::Lan)],
        neighbours: vec![
            (PortId::Lan, address("172.16.0.2"), [2, 0, 0, 0, 0, 3]),
            (PortId::Wan, address(ENDS[1]), [2, 0, 0, 0, 0, 4]),
        ],
    };
    let lanes = [1, 2].map(|lane| Lane::Gre(tunnel(lane, ENDS)));
    let site = Site::new(&[net("10.0.0.0/8")], &[net("192.0.2.0/24")], lanes, MTU_BYTES);
    let fib = fixed.snapshot().expect("a handful of routes");
    Router::new(&site, Arc::new(fib))
}

/// The frame in which the peer sends an answer.
pub(super) fn answer() -> [u8; TUNNEL_PACKET_BYTES] {
    let mut storage = [0; PACKET_BYTES + 64];
    storage[..PACKET_BYTES].copy_from_slice(&ANSWER);
    let mut buffer = Buffer::new(&mut storage, PACKET_BYTES);
    let [ours, theirs] = ENDS;
    Encapsulator::new(&tunnel(1, [theirs, ours]), Numbers::default())
        .encapsulate(&mut buffer, &[2; 14], 0)
        .expect("it fits");
    buffer[..].try_into().expect("the outer headers are those of this tunnel")
}
