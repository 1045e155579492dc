//! Each packet has the DSCP that the rule gives it, and nothing else of it is changed: what tcpdump saw
//! leaving the datacenter and what it saw arriving far away is compared packet by packet.

use std::collections::HashMap;
use std::fmt::Write;

use dataplane::status::Status;

use crate::daemon::Daemon;
use crate::lab::{CLIENT, CLIENT_V6, SERVER, SERVER_V6, wait_for};
use crate::site::{BOUND, Site, on_site, words};
use crate::sniffer::{Capture, Sniffer, TcpPacket};
use crate::traffic::Conversation;
use crate::web::{Nginx, download, upload};

const SHORT: u8 = 18;
const LONG: u8 = 10;
const THRESHOLD: usize = 40;

#[test]
fn the_first_forty_packets_of_a_flow_are_short_and_the_rest_long() {
    on_site(|site| {
        let _vlan = site.add_vlan();
        let packets = marks_follow_the_rule(site, |site| {
            let nginx = Nginx::start(site, site.datacenter());
            for size in [1_000, 10_000, 100_000, 1_000_000] {
                let name = nginx.serve(size);
                for address in [CLIENT, CLIENT_V6, "10.7.0.1", "fd07::1"] {
                    download(site, site.far_host(), &nginx, address, &name);
                }
            }
            for address in [CLIENT, CLIENT_V6] {
                upload(site.far_host(), &nginx, address, "1000000-bytes");
            }
        });
        // Of each kind there were some: with the tag and without, of either version.
        for (vlan, source) in [("", CLIENT), ("", CLIENT_V6), ("7", "10.7.0.1"), ("7", "fd07::1")] {
            assert!(packets.iter().any(|one| one.flow[0] == vlan && one.flow[1] == source));
        }
    });
}

#[test]
fn a_retransmission_counts_as_a_packet() {
    on_site(|site| {
        let packets = marks_follow_the_rule(site, |site| {
            let mut conversation = Conversation::open(site);
            conversation.talk(30);
            // The far host hears, and cannot answer.
            site.far_host().run(&words(&format!("ip route add blackhole {CLIENT}")));
            let port = format!("sport = :{}", conversation.port());
            std::thread::scope(|scope| {
                let talk = scope.spawn(|| conversation.talk(20));
                wait_for("three retransmissions", BOUND, || {
                    let ss = site.datacenter().run(&["ss", "-Htni", &port]);
                    ss.split(" retrans:").nth(1).is_some_and(|numbers| {
                        let total = numbers.split(['/', ' ']).nth(1);
                        total
                            .and_then(|total| total.parse().ok())
                            .is_some_and(|total: u32| total >= 3)
                    })
                });
                site.far_host().run(&words(&format!("ip route delete blackhole {CLIENT}")));
                talk.join().expect("the conversation goes on");
            });
        });
        let again = packets.iter().filter(|packet| packet.is_outbound() && packet.retransmission);
        assert!(again.count() >= 3);
    });
}

/// Runs `traffic` through a gateway with the default rule, between two captures, and checks every TCP
/// packet in them and the gateway's counters; returns what arrived.
fn marks_follow_the_rule(site: &Site, traffic: impl FnOnce(&Site)) -> Vec<TcpPacket> {
    // Both hosts use ECN, so that there are bits to be kept.
    for host in [site.datacenter(), site.far_host()] {
        host.run(&words("sysctl -q -w net.ipv4.tcp_ecn=1"));
    }
    let daemon = Daemon::start(site, &[]);
    let near = Sniffer::start(site, site.datacenter(), "near");
    let far = Sniffer::start(site, site.far_host(), "far");
    traffic(site);
    site.wait_for_silence();
    let [near, far] = Sniffer::end(site, [near, far]).map(|capture| capture.tcp_packets());

    let [left, arrived] = [&near, &far].map(|packets| by_flow(packets, true));
    assert_eq!(left.len(), arrived.len(), "flows outbound");
    let (mut short, mut long, mut capable) = (0, 0, 0);
    for (flow, left) in &left {
        let arrived = &arrived[flow];
        assert_eq!(left.len(), arrived.len(), "packets of {flow:?}");
        for (index, (left, arrived)) in left.iter().zip(arrived).enumerate() {
            let expected = if index < THRESHOLD { SHORT } else { LONG };
            assert_eq!(arrived.dscp, expected, "packet {} of {flow:?}", index + 1);
            assert_eq!(left.dscp, 0);
            assert_eq!((left.ecn, &left.rest), (arrived.ecn, &arrived.rest));
            let ip = if flow[1].contains(':') { "" } else { "1" };
            assert_eq!(arrived.checksums, [ip, "1"], "packet {} of {flow:?}", index + 1);
            *if index < THRESHOLD { &mut short } else { &mut long } += 1;
            capable += u32::from(arrived.ecn != 0);
        }
    }
    assert!(capable > 0, "no packet had ECN bits");

    let [left, arrived] = [&far, &near].map(|packets| by_flow(packets, false));
    assert!(!left.is_empty());
    assert_eq!(left, arrived, "the way back is not touched");

    let agrees = |now: &Status| (now.total.short, now.total.long) == (short, long);
    daemon.wait_for("status to agree with the capture", agrees);
    let last = daemon.stop();
    assert!(agrees(&last), "{short} short, {long} long on the cable, and {:?}", last.total);
    far
}

/// The packets of one direction by their flow, in order.
fn by_flow(packets: &[TcpPacket], outbound: bool) -> HashMap<[String; 5], Vec<TcpPacket>> {
    let mut flows: HashMap<_, Vec<TcpPacket>> = HashMap::new();
    for packet in packets.iter().filter(|packet| packet.is_outbound() == outbound) {
        let mut packet = packet.clone();
        // tshark's opinion depends on where it listens.
        packet.retransmission = false;
        flows.entry(packet.flow.clone()).or_default().push(packet);
    }
    flows
}

#[test]
fn what_is_not_tcp_is_not_touched() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let near = Sniffer::start(site, site.datacenter(), "near");
        let far = Sniffer::start(site, site.far_host(), "far");
        // ARP and neighbour discovery come first; then ToS bits of all kinds, which stay.
        for tos in ["0", "0x28", "0xb8", "0xff"] {
            for address in [SERVER, SERVER_V6] {
                let ping = format!("ping -n -q -c 5 -i 0.01 -W 5 -Q {tos} {address}");
                site.datacenter().run(&words(&ping));
            }
        }
        let train = crate::traffic::Train::start(site, true);
        train.wait_for_progress();
        let arrivals = train.end();
        assert_eq!((arrivals.lost, arrivals.doubled), (0, 0), "{arrivals:?}");
        let captures = Sniffer::end(site, [near, far]);
        // Not what hosts say of themselves when they come up, which one may hear and the other not.
        let icmpv6 = "icmpv6.type in {128, 129, 135, 136}";
        for filter in ["arp", "icmp", icmpv6, "udp"] {
            let [left, arrived] = captures.each_ref().map(|capture| of(capture, filter));
            assert!(!left.is_empty(), "no {filter}");
            assert!(left == arrived, "{filter}: other frames arrived than had left");
        }
        let last = daemon.stop();
        assert_eq!((last.total.short, last.total.long), (0, 0));
        assert!(last.total.untouched.non_ip > 0 && last.total.untouched.non_tcp > 0);
    });
}

/// The frames that a filter takes, as sorted text: two hosts see the two directions in another order.
fn of(capture: &Capture, filter: &str) -> Vec<String> {
    let numbers = capture.fields(filter, &["frame.number"]);
    let frames = capture.frames();
    let mut found: Vec<String> = numbers
        .iter()
        .map(|row| {
            let number: usize = row[0].parse().expect("a number");
            frames[number - 1].iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("memory");
                text
            })
        })
        .collect();
    found.sort_unstable();
    found
}
