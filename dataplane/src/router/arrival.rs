//! The express in: the way of nearly all packets from the WAN, plain TCP over IPv4 out of a tunnel, to a next hop that
//! packets of the same [`Stretch`] took before.
//!
//! It does what [`Router::inbound`](super::Router::inbound) does for such a packet, without looking for what such a
//! packet cannot be. Whatever it does not take is left as it was, counted nowhere, and goes the long way.

use super::header::flow_hash;
use super::{IP, Router};
use crate::batch::{Packet, PortId};
use crate::fib::{Fib, Stretch};

/// How many stretches of a kind are remembered.
const STRETCHES: usize = 128;
/// One of so many packets whose stretch is not known has it looked for, which takes a few times as long as the packet
/// itself: destinations that change their stretch all the time cost little more than without.
const MISSES_A_LOOK: u32 = 8;

/// Stretches that packets went to, of one snapshot. Of those that have a place in common, the last is remembered.
#[derive(Debug)]
pub(super) struct Stretches {
    /// No smaller than a /16 network; each for the /16 networks that share its place.
    wide: [Stretch; STRETCHES],
    /// The others, by /24 networks, so that the small gaps of a network do not displace the large ones around it.
    narrow: [Stretch; STRETCHES],
    misses: u32,
}

impl Stretches {
    /// None yet: for another snapshot.
    pub(super) fn new() -> Self {
        let none = [Stretch::default(); STRETCHES];
        Stretches { wide: none, narrow: none, misses: 0 }
    }

    #[inline(always)]
    fn of(&self, address: u32) -> Option<&Stretch> {
        let wide = &self.wide[place(address >> 16)];
        if wide.contains(address) {
            return Some(wide);
        }
        let narrow = &self.narrow[place(address >> 8)];
        narrow.contains(address).then_some(narrow)
    }

    #[cold]
    fn miss(&mut self, fib: &Fib, address: u32) {
        let is_looked_for = self.misses.is_multiple_of(MISSES_A_LOOK);
        self.misses = self.misses.wrapping_add(1);
        if is_looked_for && let Some(stretch) = fib.stretch_around(address) {
            match stretch.addresses() >> 16 {
                0 => self.narrow[place(address >> 8)] = stretch,
                _ => self.wide[place(address >> 16)] = stretch,
            }
        }
    }
}

impl Router {
    /// The port by which the packet leaves, decapsulated, with one hop less; none when it has to go the long way.
    #[inline(always)]
    pub(super) fn arrive(&mut self, packet: &mut Packet<'_>) -> Option<PortId> {
        let plain = self.border.plain(&packet.bytes)?;
        let Some(stretch) = self.stretches.of(plain.destination) else {
            self.stretches.miss(&self.fib, plain.destination);
            return None;
        };
        let hop = self.fib.hop(stretch, plain.destination)?;
        let bytes = u32::from(plain.bytes);
        if bytes > hop.mtu_bytes {
            return None;
        }
        self.border.let_in(&mut packet.bytes, &plain);
        let macs: &mut [u8; 12] = packet.bytes.first_chunk_mut().expect("what was let in is whole");
        macs[..6].copy_from_slice(hop.mac);
        macs[6..].copy_from_slice(hop.source_mac);
        packet.wire_bytes = IP as u32 + bytes;
        packet.flow_hash = Some(flow_hash(plain.source, plain.destination, plain.ports));
        let lane = &mut self.counters.lanes[self.lane_of_tunnel[plain.lane]];
        lane.received += 1;
        lane.received_bytes += u64::from(bytes);
        Some(hop.port)
    }
}

#[inline(always)]
fn place(network: u32) -> usize {
    network as usize % STRETCHES
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use etherparse::PacketBuilder;
    use ipnet::IpNet;

    use super::*;
    use crate::fib::{Fixed, FixedPort};
    use crate::lane::Lane;
    use crate::lane::encapsulation::Encapsulator;
    use crate::lane::sequence::Numbers;
    use crate::lane::tunnel::Tunnel;
    use crate::router::{RouterCounters, Site};
    use crate::verdict::{DropReason, Verdict};
    use crate::wire::buffer::Buffer;

    const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const MOVED: [u8; 6] = [2, 0, 0, 0, 0, 10];
    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 11];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn tunnel(local: &str, remote: &str) -> Tunnel {
        Tunnel {
            local: ip(local),
            remote: ip(remote),
            key: Some(7),
            sequence: true,
            checksum: false,
            ttl: 64,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: None,
            udp: false,
        }
    }

    /// 10.1.0.0/24 is connected, the rest of 10.0.0.0/12 behind 10.1.0.9.
    fn fib(gateway: [u8; 6], mtu_bytes: u32) -> Arc<Fib> {
        let port = |last: u8, own, mtu_bytes| FixedPort {
            mac: [2, 0, 0, 0, 1, last],
            mtu_bytes,
            addresses: vec![net(own)],
        };
        let fixed = Fixed {
            ports: [port(1, "10.1.0.1/24", mtu_bytes), port(2, "198.18.0.1/24", 1500)],
            routes: vec![(net("10.0.0.0/12"), Some(ip("10.1.0.9")), PortId::Lan)],
            neighbours: vec![
                (PortId::Lan, ip("10.1.0.9"), gateway),
                (PortId::Lan, ip("10.1.0.8"), HOST),
            ],
        };
        Arc::new(fixed.snapshot().expect("a handful of routes"))
    }

    fn router(fib: Arc<Fib>) -> Router {
        let lane = Lane::Gre(tunnel("198.18.0.1", "198.18.0.2"));
        let other = Lane::Gre(Tunnel { key: Some(8), ..tunnel("198.18.0.1", "198.18.0.2") });
        Router::new(
            &Site::new(&[net("10.0.0.0/12")], &[net("10.200.0.0/16")], [lane, other], 1500),
            fib,
        )
    }

    /// What the other end sends to a host, of this many bytes inside.
    fn frame(numbers: &Numbers, destination: [u8; 4], bytes: usize) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 200, 0, 7], destination, 64)
            .tcp(443, 9, 7, 100);
        let mut inner = Vec::new();
        builder.write(&mut inner, &vec![0x5a; bytes - 40]).expect("a packet");
        let length = inner.len();
        inner.resize(length + 64, 0);
        let mut buffer = Buffer::new(&mut inner, length);
        Encapsulator::new(&tunnel("198.18.0.2", "198.18.0.1"), numbers.clone())
            .encapsulate(&mut buffer, &[2; 14], 0)
            .expect("it fits");
        buffer.to_vec()
    }

    /// What becomes of a frame, and whether it took the express.
    fn send(router: &mut Router, frame: &[u8]) -> (Verdict, Vec<u8>, bool) {
        let mut first = frame.to_vec();
        let mut packet = Packet::new(&mut first, PortId::Wan, 1);
        let accepted = router.border.accepted();
        if let Some(port) = router.arrive(&mut packet) {
            return (Verdict::Transmit(port), packet.bytes.to_vec(), true);
        }
        assert_eq!((&packet.bytes[..], router.border.accepted()), (frame, accepted), "untouched");
        let decided = router.inbound(&mut packet, 0, 1).unwrap_or_else(Verdict::Drop);
        (decided, packet.bytes.to_vec(), false)
    }

    fn counters(router: &mut Router) -> RouterCounters {
        router.settle();
        router.counters()
    }

    #[test]
    fn the_second_packet_of_a_stretch_becomes_what_the_first_did() {
        for (destination, mac) in [([10, 1, 0, 8], HOST), ([10, 7, 200, 3], GATEWAY)] {
            let (numbers, mut router) = (Numbers::default(), router(fib(GATEWAY, 1500)));
            let [first, second] = [(); 2].map(|()| frame(&numbers, destination, 777));
            let (verdict, bytes, by_express) = send(&mut router, &first);
            assert_eq!((verdict, by_express), (Verdict::Transmit(PortId::Lan), false));
            let once = counters(&mut router);
            assert_eq!(send(&mut router, &second), (verdict, bytes.clone(), true));
            let twice = counters(&mut router);
            let mut expected = once;
            expected.add(&once);
            assert_eq!(twice, expected);
            assert_eq!(bytes[..14], [&mac[..], &[2, 0, 0, 0, 1, 1, 8, 0]].concat());
        }
    }

    #[test]
    fn other_routes_hold_from_the_next_packet_on() {
        let (numbers, mut router) = (Numbers::default(), router(fib(GATEWAY, 1500)));
        let next = || frame(&numbers, [10, 7, 200, 3], 100);
        let sent = [(); 2].map(|()| send(&mut router, &next()));
        assert!(sent[1].2 && sent[1].1[..6] == GATEWAY);
        router.set_fib(fib(MOVED, 1500));
        let sent = [(); 2].map(|()| send(&mut router, &next()));
        assert!(sent[1].2 && sent.iter().all(|(_, bytes, _)| bytes[..6] == MOVED));
    }

    #[test]
    fn what_is_our_own_or_too_large_or_has_no_neighbour_goes_the_long_way() {
        let (numbers, mut router) = (Numbers::default(), router(fib(GATEWAY, 600)));
        let mut verdicts = |destination, bytes| {
            // One of them has its stretch looked for.
            let sent = [(); MISSES_A_LOOK as usize + 1]
                .map(|()| send(&mut router, &frame(&numbers, destination, bytes)));
            let (verdict, _, by_express) = sent.last().expect("a packet");
            (*verdict, *by_express)
        };
        let dropped = |reason| (Verdict::Drop(reason), false);
        assert_eq!(verdicts([10, 7, 200, 3], 600), (Verdict::Transmit(PortId::Lan), true));
        assert_eq!(verdicts([10, 7, 200, 3], 601), dropped(DropReason::TooBig));
        assert_eq!(verdicts([10, 1, 0, 8], 600), (Verdict::Transmit(PortId::Lan), true));
        assert_eq!(verdicts([10, 1, 0, 8], 601), dropped(DropReason::TooBig));
        assert_eq!(verdicts([10, 1, 0, 1], 100), dropped(DropReason::LeftToKernel));
        assert_eq!(verdicts([10, 1, 0, 77], 100), dropped(DropReason::Unresolved));
        assert_eq!(verdicts([10, 16, 0, 1], 100), dropped(DropReason::Refused));
    }
}
