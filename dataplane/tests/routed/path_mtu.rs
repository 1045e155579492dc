//! Packets of the right size: what a tunnel and the narrowest hop of its path leave is found out, told and kept to.

use std::net::UdpSocket;
use std::time::Duration;

use crate::daemon::{Outer, Plan, routed, start_both, stop_both};
use crate::lab::{CLIENT, CLIENT_V6, Namespace, SERVER, SERVER_V6, wait_for};
use crate::scapy::{self, scapy_is_there};
use crate::site::{BOUND, NETS, Site, on_sites, words};
use crate::sniffer::Sniffer;
use crate::web::{Nginx, download, upload};

/// The narrowest hop of a path, in bytes.
const HOP_BYTES: u32 = 1400;
/// What every other link carries.
const LINK_BYTES: u32 = 1500;

/// Keys and sequence numbers: what a forger has to guess.
fn plan(outer: Outer) -> Plan {
    Plan::new(outer).with_keys().with("gre.sequence", "true")
}

/// Bytes of the outer headers of that plan.
fn overhead_bytes(outer: Outer) -> u32 {
    match outer {
        Outer::Ipv4 => 20 + 12,
        Outer::Ipv6 => 40 + 12,
    }
}

#[test]
fn a_hop_of_1400_bytes_is_found_by_tcp_and_udp_over_every_family() {
    on_sites(|site| {
        // Without sequence numbers most packets over IPv4 go out by a shorter way in the gateway.
        let plain = (Outer::Ipv4, Plan::new(Outer::Ipv4).with_keys(), 4);
        let numbered = [Outer::Ipv4, Outer::Ipv6].map(|outer| (outer, plan(outer), 0));
        for (outer, plan, saved_bytes) in numbered.into_iter().chain([plain]) {
            let inner_bytes = HOP_BYTES - overhead_bytes(outer) + saved_bytes;
            narrow(site, outer, &[0, 1]);
            let daemons = start_both(site, &plan);
            let nginx = Nginx::start(site, &site.server);
            let name = nginx.serve(1_000_000);
            for (host, address) in ways(site) {
                assert_eq!(found_mtu(host, address), inner_bytes, "{outer:?} {address}");
            }
            for (host, address) in [(&site.client, SERVER), (&site.server, CLIENT)] {
                datagrams_arrive(site, host, address);
            }
            for address in [SERVER, SERVER_V6] {
                download(site, &site.client, &nginx, address, &name);
                upload(&site.client, &nginx, address, &name);
            }
            // Exactly as large as can be goes through, again and again, and is not cut up.
            for (host, address) in [
                (&site.client, SERVER),
                (&site.client, SERVER_V6),
                (&site.server, CLIENT),
                (&site.server, CLIENT_V6),
            ] {
                wait_for("the path's MTU to be known", BOUND, || {
                    pings(host, address, inner_bytes, 1) == 1
                });
                all_answer(host, address, inner_bytes, 20);
                assert_eq!(learned_mtu(host, address), Some(inner_bytes), "{outer:?} {address}");
            }
            drop(nginx);
            for status in stop_both(daemons) {
                let router = routed(&status);
                assert!(router.path_mtu_lowered >= 1, "{router:?}");
                assert!(router.icmp.too_big >= 1, "{router:?}");
                // Packets in flight when the first error comes are quoted by others.
                let refused = router.path_errors_refused;
                assert_eq!(refused.total(), refused.not_lower, "{refused:?}");
                assert_eq!((router.fragmented, status.total.dropped.hop_limit), (0, 0));
            }
            forget(site);
        }
    });
}

#[test]
fn a_narrow_long_path_costs_a_growing_flow_nothing_but_its_size() {
    on_sites(|site| {
        let outer = Outer::Ipv4;
        narrow(site, outer, &[1]);
        let daemons = start_both(site, &plan(outer));
        let nginx = Nginx::start(site, &site.server);
        let name = nginx.serve(1_000_000);
        for address in [SERVER, SERVER_V6] {
            download(site, &site.client, &nginx, address, &name);
            upload(&site.client, &nginx, address, &name);
        }
        drop(nginx);
        let last = stop_both(daemons);
        // Whoever has learned says so in his next SYN, and nothing too large comes from the other.
        let lowered = last.each_ref().map(|status| routed(status).path_mtu_lowered);
        assert!(matches!(lowered, [0 | 1, 1]), "one lane, at the server's gateway: {lowered:?}");
        assert!(last.iter().all(|status| status.total.long > 100));
    });
}

#[test]
fn a_packet_too_big_that_may_be_cut_arrives_whole() {
    on_sites(|site| {
        for outer in [Outer::Ipv4, Outer::Ipv6] {
            narrow(site, outer, &[0, 1]);
            let daemons = start_both(site, &plan(outer));
            for (host, address) in [(&site.client, SERVER), (&site.server, CLIENT)] {
                // The first goes in pieces that fit the port, and makes the hop known.
                let ping = |bytes: &str, count| {
                    let ping = words("ping -n -q -i 0.01 -W 2 -M dont -c");
                    host.try_run(&[&ping[..], &[count, "-s", bytes, address]].concat())
                };
                wait_for("the path's MTU to be known", BOUND, || {
                    ping("1472", "1").status.success()
                });
                for bytes in ["1472", "2000", "4000"] {
                    // More than once for the reason that `all_answer` has.
                    wait_for("all answers", BOUND, || {
                        let output = ping(bytes, "10");
                        String::from_utf8_lossy(&output.stdout).contains(" 10 received")
                    });
                }
            }
            for status in stop_both(daemons) {
                let router = routed(&status);
                assert!(router.fragmented >= 60 && router.fragments >= 2 * router.fragmented);
            }
        }
    });
}

#[test]
fn a_smaller_network_behind_the_far_gateway_is_told_of_through_the_tunnel() {
    const LAN_BYTES: u32 = 1300;
    on_sites(|site| {
        let daemons = start_both(site, &plan(Outer::Ipv4));
        for (host, interface) in [(&site.server, "eth0"), (&site.gateways[1], "lan")] {
            host.run(&words(&format!("ip link set dev {interface} mtu {LAN_BYTES}")));
        }
        daemons[1].wait_for("the MTU to be noticed", |now| now.ports.lan.mtu == LAN_BYTES);
        for address in [SERVER, SERVER_V6] {
            assert_eq!(found_mtu(&site.client, address), LAN_BYTES, "{address}");
            all_answer(&site.client, address, LAN_BYTES, 10);
        }
        let ping = words("ping -n -q -i 0.01 -W 2 -M dont -c 10 -s 1400");
        site.client.run(&[&ping[..], &[SERVER]].concat());
        let [a, b] = stop_both(daemons).each_ref().map(routed);
        assert!(a.icmp.too_big >= 2, "the tunnel's own MTU, once for each family: {:?}", a.icmp);
        assert!(b.icmp.too_big >= 2, "the network's, once for each family: {:?}", b.icmp);
        assert_eq!((a.path_mtu_lowered, b.path_mtu_lowered), (0, 0));
        // The client's own pieces fit, since it has learned: none is cut again.
        assert_eq!((a.fragmented, b.fragmented), (0, 0));
    });
}

#[test]
fn forged_icmp_errors_change_nothing_and_are_counted_by_reason() {
    if !scapy_is_there() {
        return;
    }
    on_sites(|site| {
        // As in forge.py.
        for (outer, expected) in
            [(Outer::Ipv4, [4, 2, 2, 2, 1, 2]), (Outer::Ipv6, [4, 2, 2, 3, 1, 3])]
        {
            forgeries_change_nothing(site, outer, expected);
        }
    });
}

fn forgeries_change_nothing(site: &Site, outer: Outer, expected: [u64; 6]) {
    let forgeries: u64 = expected.iter().sum();
    let [a, b] = start_both(site, &plan(outer));
    let inner_bytes = LINK_BYTES - overhead_bytes(outer);
    all_answer(&site.client, SERVER, inner_bytes, 10);
    let sent =
        routed(&a.wait_for("the pings to be counted", |now| routed(now).lanes[0].sent >= 10));
    let mac = site.gateways[0].mac("wan");
    let recent = (sent.lanes[0].sent - 1).to_string();
    let before = a.status();
    let family = ["4", "6"][outer as usize];
    scapy::run(&site.routers[0], "forge.py", &["a0", &mac, &recent, family]);
    let after = a.wait_for("the forgeries to be judged", |now| {
        routed(now).path_errors_refused.total() >= forgeries
    });
    let refused = routed(&after).path_errors_refused;
    let counts = [
        refused.not_ours,
        refused.key,
        refused.sequence,
        refused.out_of_bounds,
        refused.checksum,
        refused.other_kind,
    ];
    assert_eq!(counts, expected, "{outer:?} {refused:?}");
    assert_eq!(refused.total(), forgeries, "{outer:?} {refused:?}");
    assert_eq!(routed(&after).path_mtu_lowered, 0, "{outer:?}");
    let errors = after.total.dropped.path_error - before.total.dropped.path_error;
    assert_eq!(errors, forgeries, "each was taken in");
    assert_eq!(routed(&after).icmp, routed(&before).icmp, "nobody was told");
    // Packets of full size, still.
    all_answer(&site.client, SERVER, inner_bytes, 10);
    stop_both([a, b]);
}

#[test]
fn the_mss_of_both_hosts_is_lowered_to_what_fits_the_tunnel() {
    on_sites(|site| {
        for outer in [Outer::Ipv4, Outer::Ipv6] {
            let sniffers =
                [&site.client, &site.server].map(|host| Sniffer::start(site, host, "eth0"));
            let daemons = start_both(site, &plan(outer));
            let nginx = Nginx::start(site, &site.server);
            let name = nginx.serve(100_000);
            for address in [SERVER, SERVER_V6] {
                download(site, &site.client, &nginx, address, &name);
            }
            drop(nginx);
            site.wait_for_silence();
            let [client, server] = sniffers.map(Sniffer::finish);
            let inner_bytes = LINK_BYTES - overhead_bytes(outer);
            // What each heard from the other, whose own are 1460 and 1440.
            for (capture, filter) in [(client, "tcp.srcport == 80"), (server, "tcp.dstport == 80")]
            {
                let filter = format!("tcp.flags.syn == 1 and {filter}");
                let fields = ["ip.version", "tcp.options.mss_val"];
                let mut heard: Vec<Vec<String>> = capture.fields(&filter, &fields);
                heard.sort();
                heard.dedup();
                let expected =
                    |version: &str, bytes: u32| vec![version.to_owned(), bytes.to_string()];
                assert_eq!(
                    heard,
                    [expected("4", inner_bytes - 40), expected("6", inner_bytes - 60)],
                    "{outer:?}"
                );
            }
            for status in stop_both(daemons) {
                assert!(routed(&status).mss_clamped >= 2, "{:?}", routed(&status));
            }
        }
    });
}

/// On these paths, routers let no more than [`HOP_BYTES`] through, either way, and say so.
fn narrow(site: &Site, outer: Outer, paths: &[usize]) {
    for path in paths {
        let router = &site.routers[*path];
        for (side, interface) in ["a0", "b0"].into_iter().enumerate() {
            let (net, bits) = (NETS[side][outer as usize], [32, 128][outer as usize]);
            let gateway = format!("{net}{}/{bits}", path + 1);
            let route = format!("ip route replace {gateway} dev {interface} mtu lock {HOP_BYTES}");
            router.run(&words(&route));
        }
    }
}

/// The hosts forget what they have learned of paths.
fn forget(site: &Site) {
    for host in [&site.client, &site.server] {
        for family in ["-4", "-6"] {
            host.run(&["ip", family, "route", "flush", "cache"]);
        }
    }
}

/// From each host to each address of the other.
fn ways(site: &Site) -> [(&Namespace, &'static str); 4] {
    let (client, server) = (&site.client, &site.server);
    [(client, SERVER), (client, SERVER_V6), (server, CLIENT), (server, CLIENT_V6)]
}

/// The size that an application finds which sends with DF and believes what it is told, in bytes.
fn found_mtu(host: &Namespace, address: &str) -> u32 {
    let mut bytes = LINK_BYTES;
    wait_for("an answer to a packet with DF", BOUND, || {
        bytes = learned_mtu(host, address).unwrap_or(LINK_BYTES);
        pings(host, address, bytes, 1) == 1
    });
    // Nobody has said anything else meanwhile.
    assert_eq!(learned_mtu(host, address), Some(bytes));
    bytes
}

/// What the host has been told of the path to an address, if it has.
fn learned_mtu(host: &Namespace, address: &str) -> Option<u32> {
    let route = host.run(&["ip", "route", "get", address]);
    let (_, after) = route.split_once(" mtu ")?;
    after.split_whitespace().next()?.parse().ok()
}

/// Answers to pings with DF, `bytes` long from their IP header on.
fn pings(host: &Namespace, address: &str, bytes: u32, count: u32) -> u32 {
    let header_bytes = if address.contains(':') { 48 } else { 28 };
    let (bytes, count) = ((bytes - header_bytes).to_string(), count.to_string());
    let ping = words("ping -n -q -i 0.01 -W 0.3 -M do -s");
    let output = host.try_run(&[&ping[..], &[&bytes, "-c", &count, address]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (before, _) = text.split_once(" received").unwrap_or_else(|| panic!("{text}"));
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Waits until each of so many is answered. ping gives up after twice the time of the slowest answer, so a machine that
/// pauses for a moment costs some.
fn all_answer(host: &Namespace, address: &str, bytes: u32, count: u32) {
    let what = format!("answers to {count} packets of {bytes} bytes to {address}");
    wait_for(&what, BOUND, || pings(host, address, bytes, count) == count);
}

/// Datagrams larger than the path, with DF as long as the kernel knows no better: when it has learned to cut them,
/// all arrive.
fn datagrams_arrive(site: &Site, from: &Namespace, address: &str) {
    let to = if from.name() == site.client.name() { &site.server } else { &site.client };
    let receiver = to.enter(|| UdpSocket::bind((address, 0)).expect("free"));
    receiver.set_read_timeout(Some(Duration::from_millis(50))).expect("possible");
    let sender = from.enter(|| UdpSocket::bind("0.0.0.0:0").expect("free"));
    sender.connect(receiver.local_addr().expect("bound")).expect("reachable");
    let (payload, mut arrived) = ([7; LINK_BYTES as usize - 28], [0; 2000]);
    let mut lost = 0;
    wait_for("the first datagram to arrive", BOUND, || {
        // The kernel says "too long" once when it learns of it.
        let _ = sender.send(&payload);
        let has_arrived = receiver.recv(&mut arrived).is_ok();
        lost += u32::from(!has_arrived);
        has_arrived
    });
    assert!(lost <= 20, "{lost} were lost before the size was found");
    receiver.set_read_timeout(Some(BOUND)).expect("possible");
    for _ in 0..50 {
        sender.send(&payload).expect("it fits in pieces");
        assert_eq!(receiver.recv(&mut arrived).expect("it arrives"), payload.len());
    }
}
