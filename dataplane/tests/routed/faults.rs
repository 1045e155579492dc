//! What goes wrong around a gateway: links, neighbours, routes, addresses and ports that go, come back or change.
//! Traffic follows, and at the end every packet and every frame is accounted for.
//!
//! How long it took is shown and not judged: the machine may be busy.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use dataplane::status::{PortState, Status};

use crate::daemon::{Outer, Plan, start_both, stop_both};
use crate::lab::{Namespace, wait_for};
use crate::site::{BOUND, NETS, on_sites, words};
use crate::stream::Stream;
use crate::traffic::Transfer;

fn plan() -> Plan {
    Plan::new(Outer::Ipv4).with_keys().with("gre.sequence", "true")
}

#[test]
fn a_link_of_either_port_that_goes_down_and_up_stops_traffic_no_longer_than_that() {
    on_sites(|site| {
        let [a, b] = start_both(site, &plan());
        let transfer = Transfer::start(site);
        let ends = [
            (&site.gateways[0], "lan", [PortState::Down, PortState::Up]),
            (&site.gateways[0], "wan", [PortState::Up, PortState::Down]),
            (&site.segments[0], "p0", [PortState::Up, PortState::Down]),
        ];
        for (namespace, interface, expected) in ends {
            transfer.wait_for_progress();
            set_link(namespace, interface, "down");
            a.wait_for("the link to be noticed", |now| states(now) == expected);
            set_link(namespace, interface, "up");
            if interface == "wan" {
                // They went with the link, as any router's do.
                site.route_wan(0);
            }
            let up = Instant::now();
            a.wait_for("the link to be noticed", |now| states(now) == [PortState::Up; 2]);
            transfer.wait_for_progress();
            eprintln!("{interface} is up: a megabyte more after {:?}", up.elapsed());
            wait_for("an answer", BOUND, || site.answers());
        }
        transfer.finish();
        let [a, _] = stop_both([a, b]);
        assert_eq!((a.ports_reopened, a.total.flows.created), (0, 1));
    });
}

#[test]
fn a_next_hop_with_another_mac_address_is_followed_when_it_says_so_and_when_it_does_not() {
    on_sites(|site| {
        for setting in
            ["base_reachable_time_ms=500", "retrans_time_ms=100", "delay_first_probe_time=1"]
        {
            // Doubts come soon, and are soon resolved.
            site.gateways[0].run(&["sysctl", "-qw", &format!("net.ipv4.neigh.wan.{setting}")]);
        }
        let daemons = start_both(site, &plan());
        let router = &site.routers[0];
        for (says_so, address) in [("1", "02:00:00:00:11:01"), ("0", "02:00:00:00:11:02")] {
            router.run(&["sysctl", "-qw", &format!("net.ipv4.conf.a0.arp_notify={says_so}")]);
            let stream = Stream::start(site, true);
            let moved = Instant::now();
            router.run(&words(&format!("ip link set dev a0 address {address}")));
            wait_for("the gateway's kernel to know", BOUND, || {
                let known = site.gateways[0].run(&words("ip neigh show 192.0.2.11 dev wan"));
                known.contains(address)
            });
            stream.wait_for_progress();
            let end = Instant::now();
            let record = stream.end();
            assert_eq!(record.doubled(), 0);
            let gap = record.longest_gap(moved, end);
            eprintln!("a MAC address moves, gratuitous ARP: {says_so}: longest gap {gap:?}");
        }
        stop_both(daemons);
    });
}

#[test]
fn a_lane_follows_its_route_to_another_router_without_losing_a_packet() {
    on_sites(|site| {
        let daemons = start_both(site, &plan());
        let (stream, transfer) = (Stream::start(site, true), Transfer::start(site));
        for router in ["192.0.2.12", "192.0.2.11"] {
            let through = &site.routers[usize::from(router.ends_with("12"))];
            let counted = forwarded_to_short_end(through);
            let route = format!("ip route replace {}1/32 via {router}", NETS[1][0]);
            site.gateways[0].run(&words(&route));
            wait_for("the lane to take the other path", BOUND, || {
                forwarded_to_short_end(through) > counted + 50
            });
            stream.wait_for_progress();
            transfer.wait_for_progress();
        }
        let record = stream.end();
        transfer.finish();
        assert_eq!((record.lost(), record.doubled()), (0, 0), "of {}", record.sent);
        let [_, b] = stop_both(daemons);
        let [short, _] = crate::daemon::routed(&b).lanes;
        assert_eq!((short.sequence.lost, short.sequence.duplicates), (0, 0), "{short:?}");
    });

    /// Packets that a router has sent on to the far end of the short lane.
    fn forwarded_to_short_end(router: &Namespace) -> u64 {
        let count = router.run(&words("cat /sys/class/net/b0/statistics/tx_packets"));
        count.trim().parse().expect("a number")
    }
}

#[test]
fn a_tunnel_end_that_loses_its_address_works_again_when_it_has_it_back() {
    on_sites(|site| {
        let daemons = start_both(site, &plan());
        let gateway = &site.gateways[0];
        let (stream, transfer) = (Stream::start(site, false), Transfer::start(site));
        for _ in 0..2 {
            gateway.run(&words("ip address delete 192.0.2.1/24 dev wan"));
            site.routers[0].run(&words("ip neigh flush dev a0"));
            // The long lane, to the other address, carries data on; its acknowledgements have no short lane.
            wait_for("the kernel to stop answering for it", BOUND, || {
                let known = site.routers[0].run(&words("ip neigh show 192.0.2.1 dev a0"));
                known.contains("FAILED") || known.contains("INCOMPLETE")
            });
            gateway.address("wan", "192.0.2.1/24");
            let back = Instant::now();
            stream.wait_for_progress();
            transfer.wait_for_progress();
            eprintln!("an address is back: traffic after {:?}", back.elapsed());
        }
        let record = stream.end();
        transfer.finish();
        assert_eq!(record.doubled(), 0);
        stop_both(daemons);
    });
}

#[test]
fn a_lan_address_that_goes_takes_its_network_with_it_and_brings_it_back() {
    on_sites(|site| {
        let daemons = start_both(site, &plan());
        let far = &site.gateways[1];
        let (stream, transfer) = (Stream::start(site, true), Transfer::start(site));
        for _ in 0..2 {
            stream.wait_for_progress();
            transfer.wait_for_progress();
            let before = daemons[1].status().total.dropped.no_route;
            far.run(&words("ip address delete 10.2.0.1/24 dev lan"));
            // Nothing is sent by a route that the kernel no longer has.
            daemons[1].wait_for("packets without a route", |now| {
                now.total.dropped.no_route > before + 20
            });
            far.address("lan", "10.2.0.1/24");
            let back = Instant::now();
            stream.wait_for_progress();
            transfer.wait_for_progress();
            eprintln!("a LAN's address is back: traffic after {:?}", back.elapsed());
        }
        let record = stream.end();
        transfer.finish();
        assert_eq!(record.doubled(), 0);
        wait_for("an answer", BOUND, || site.answers());
        stop_both(daemons);
    });
}

#[test]
fn a_wan_port_that_is_deleted_and_made_again_is_taken_back_with_all_flows() {
    on_sites(|site| {
        let [a, b] = start_both(site, &plan());
        let transfer = Transfer::start(site);
        let descriptors = a.descriptors();
        for round in 1..=2 {
            transfer.wait_for_progress();
            site.gateways[0].run(&words("ip link delete dev wan"));
            let without = a.wait_for("it to be noticed", |now| {
                states(now) == [PortState::Closed, PortState::Gone]
            });
            assert!(without.workers[0].report.frames_balance);
            site.connect_wan(0);
            let made = Instant::now();
            a.wait_for("the ports to open again", |now| {
                now.ports_reopened == round && states(now) == [PortState::Up; 2]
            });
            transfer.wait_for_progress();
            eprintln!("a port is back: a megabyte more after {:?}", made.elapsed());
            wait_for("an answer", BOUND, || site.answers());
            // A connection to the control socket may be open at any moment, but not for long.
            wait_for("what served the old port to be closed", BOUND, || {
                a.descriptors() == descriptors
            });
        }
        transfer.finish();
        let [a, _] = stop_both([a, b]);
        assert_eq!(a.total.flows.created, 1, "the flow was kept");
    });
}

#[test]
fn packets_wait_for_a_neighbour_and_are_sent_when_it_answers() {
    const BURST: usize = 30;
    on_sites(|site| {
        let daemons = start_both(site, &plan());
        for (number, prefix, bits) in [(3, "10.2.0.", 24), (4, "fd02::", 64), (5, "10.2.0.", 24)] {
            let address = format!("{prefix}{number}");
            site.server.address("eth0", &format!("{address}/{bits}"));
            let before = daemons[1].status();
            let receiver = site.server.enter(|| UdpSocket::bind((&address[..], 0)).expect("free"));
            receiver.set_read_timeout(Some(BOUND)).expect("possible");
            let sender = socket(&site.client, &address);
            sender.connect(receiver.local_addr().expect("bound")).expect("there is a route");
            for number in 0..BURST as u8 {
                sender.send(&[number]).expect("there is a route");
            }
            let mut heard = [0; 10];
            for number in 0..BURST as u8 {
                assert_eq!(receiver.recv(&mut heard).expect("it arrives"), 1, "{address}");
                assert_eq!(heard[0], number, "in order");
            }
            let after = daemons[1].status_at_rest();
            assert!(asked(&after) > asked(&before), "the kernel was asked for {address}");
            assert_eq!((after.total.waiting, after.total.dropped.unresolved), (0, 0));
        }
        stop_both(daemons);
    });
}

#[test]
fn tunnel_packets_wait_for_a_router_that_nobody_has_spoken_to() {
    on_sites(|site| {
        for outer in [Outer::Ipv4, Outer::Ipv6] {
            let daemons =
                start_both(site, &Plan::new(outer).with_keys().with("gre.sequence", "true"));
            let (near, far) = (NETS[0][outer as usize], NETS[1][outer as usize]);
            let bits = [("24", "32"), ("64", "128")][outer as usize];
            let stream = Stream::start(site, true);
            // The same router by other addresses: the next hop's is found out while packets come.
            for number in [21, 22, 23] {
                site.routers[0].address("a0", &format!("{near}{number}/{}", bits.0));
                let before = asked(&daemons[0].status());
                let route = format!("ip route replace {far}1/{} via {near}{number}", bits.1);
                site.gateways[0].run(&words(&route));
                daemons[0].wait_for("the kernel to be asked", |now| asked(now) > before);
                stream.wait_for_progress();
            }
            let record = stream.end();
            assert_eq!((record.lost(), record.doubled()), (0, 0), "{outer:?}, of {}", record.sent);
            let [a, b] = stop_both(daemons);
            assert_eq!(a.total.dropped.unresolved, 0);
            let [short, _] = crate::daemon::routed(&b).lanes;
            assert_eq!((short.sequence.lost, short.sequence.duplicates), (0, 0), "{short:?}");
        }
    });
}

#[test]
fn packets_to_a_neighbour_that_never_answers_are_given_up_and_hold_up_nobody() {
    const SENT: u64 = 200;
    on_sites(|site| {
        let daemons = start_both(site, &plan());
        for (nobody, before) in [("10.2.0.99", 0), ("fd02::99", SENT)] {
            let sender = socket(&site.client, nobody);
            for _ in 0..SENT {
                sender.send_to(b"hello", (nobody, 7)).expect("there is a route");
            }
            let far = &daemons[1];
            let waiting = far.wait_for("all to wait or to be dropped", |now| {
                now.total.waiting + now.total.dropped.unresolved == before + SENT
            });
            assert!(waiting.total.waiting <= 64, "a bounded number waits");
            assert!(waiting.workers[0].report.frames_balance);
            assert!(site.answers(), "meanwhile others are served");
            far.wait_for("them to be given up", |now| now.total.waiting == 0);
        }
        let [_, b] = stop_both(daemons);
        assert_eq!(b.total.dropped.unresolved, 2 * SENT);
    });
}

fn socket(host: &Namespace, towards: &str) -> UdpSocket {
    let any = if towards.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = host.enter(|| UdpSocket::bind(any).expect("free"));
    socket.set_write_timeout(Some(Duration::from_secs(5))).expect("possible");
    socket
}

/// Neighbours that the kernel was asked for.
fn asked(status: &Status) -> u64 {
    status.routes.expect("it runs in routed mode").neighbour_requests
}

fn set_link(namespace: &Namespace, interface: &str, state: &str) {
    namespace.run(&words(&format!("ip link set dev {interface} {state}")));
}

fn states(status: &Status) -> [PortState; 2] {
    [status.ports.lan.state, status.ports.wan.state]
}
