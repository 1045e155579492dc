//! Frames that the gateway cannot carry, does not understand or does not own.

use std::net::Ipv4Addr;

use crate::daemon::{Daemon, assert_no_packet_missed};
use crate::site::{on_site, words};
use crate::sniffer::Sniffer;
use crate::traffic::{Injector, mac, random_bytes};

/// Nobody's: a locally administered address.
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 0x55];
/// Of a frame that nobody else here sends (an experimental EtherType).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

fn ethernet(destination: [u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&destination[..], &SOURCE, &ethertype, payload].concat()
}

fn sized(destination: [u8; 6], bytes: usize) -> Vec<u8> {
    ethernet(destination, EXPERIMENTAL, &random_bytes(bytes - 14))
}

/// An IPv4 header for TCP without options, its length as told.
fn ipv4(version_and_length: u8, total_bytes: u16) -> Vec<u8> {
    let addresses = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let mut header = vec![version_and_length, 0x28];
    header.extend(total_bytes.to_be_bytes());
    header.extend([0, 7, 0, 0, 64, 6, 0, 0]);
    header.extend(addresses.iter().flat_map(Ipv4Addr::octets));
    header
}

#[test]
fn runts_and_garbage_pass_unchanged_and_are_counted() {
    on_site(|site| {
        let tcp = [0x10, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
        let with = |header: Vec<u8>, payload: &[u8]| {
            ethernet(STRANGER, [8, 0], &[&header[..], payload].concat())
        };
        let mut long_tcp = tcp;
        long_tcp[12] = 0xf0;
        let mut ipv6 = vec![0x60, 0, 0, 0, 0xff, 0xff, 6, 64];
        ipv6.extend([0; 32]);
        let tags = [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0];
        let not_ip = [
            sized(STRANGER, 14),
            sized(STRANGER, 15),
            sized(STRANGER, 59),
            sized([0xff; 6], 60),
            sized([1, 0x80, 0xc2, 0, 0, 0], 64),
            sized(STRANGER, 1514),
            // Three VLAN tags.
            [&STRANGER[..], &SOURCE, &tags, &ipv4(0x45, 40), &tcp].concat(),
            // An 802.3 length where the EtherType would be.
            ethernet(STRANGER, [0, 46], &random_bytes(46)),
        ];
        let malformed = [
            // More bytes than there are, fewer than a header, a header shorter than a header.
            with(ipv4(0x45, 2000), &tcp),
            with(ipv4(0x45, 19), &tcp),
            with(ipv4(0x44, 40), &tcp),
            with(ipv4(0x4f, 40), &tcp),
            with(ipv4(0x65, 40), &tcp),
            // Cut in the IP header and in the TCP header; a data offset that is not there.
            with(ipv4(0x45, 40)[..12].to_vec(), &[]),
            with(ipv4(0x45, 39), &tcp[..19]),
            with(ipv4(0x45, 40), &long_tcp),
            ethernet(STRANGER, [0x86, 0xdd], &ipv6),
            // A tag and the first bytes of an IP header.
            ethernet(STRANGER, [0x81, 0], &[0, 1, 8, 0, 0x45, 0x28]),
        ];
        let sent: Vec<Vec<u8>> = [&not_ip[..], &malformed].concat();

        let daemon = Daemon::start(site, &[]);
        let sniffer = Sniffer::start(site, site.far_host(), "far");
        let injector = Injector::new(site.datacenter());
        sent.iter().for_each(|frame| injector.send(frame));
        let [far] = Sniffer::end(site, [sniffer]);
        let arrived: Vec<Vec<u8>> =
            far.frames().into_iter().filter(|frame| frame[6..12] == SOURCE).collect();
        for (index, (sent, arrived)) in sent.iter().zip(&arrived).enumerate() {
            assert_eq!(sent, arrived, "frame {index}");
        }
        assert_eq!(sent.len(), arrived.len());

        let last = daemon.stop();
        assert_no_packet_missed(&last);
        assert_eq!(last.total.untouched.malformed, malformed.len() as u64);
        // And ARP for the last ping.
        assert!(last.total.untouched.non_ip >= not_ip.len() as u64);
        assert_eq!((last.total.short, last.total.long), (0, 0));
        assert_eq!(last.total.dropped.exceeds_mtu, 0);
    });
}

#[test]
fn a_frame_longer_than_the_far_port_can_send_is_dropped_and_counted() {
    on_site(|site| {
        // A raw socket needs 1778 for a frame of 1792; the port, which allows for a tag, 1774.
        site.datacenter().run(&words("ip link set dev eth0 mtu 1778"));
        site.gateway().run(&words("ip link set dev lan mtu 1774"));
        let daemon = Daemon::start(site, &[]);
        let sniffer = Sniffer::start(site, site.far_host(), "far");
        let injector = Injector::new(site.datacenter());
        // 1518: 1500, the Ethernet header and a VLAN tag. 1792: all that fits packet memory.
        for bytes in [1514, 1518, 1519, 1600, 1792] {
            injector.send(&sized(STRANGER, bytes));
        }
        let [far] = Sniffer::end(site, [sniffer]);
        let frames = far.frames();
        let lengths = frames.iter().filter(|frame| frame[6..12] == SOURCE).map(Vec::len);
        assert_eq!(lengths.collect::<Vec<_>>(), [1514, 1518]);
        let last = daemon.stop();
        assert_eq!(last.total.dropped.exceeds_mtu, 3);
        assert_eq!(last.ports.lan.kernel.oversize, 0);
    });
}

#[test]
fn a_frame_longer_than_packet_memory_is_left_to_the_kernel_and_counted() {
    on_site(|site| {
        site.bridge();
        let daemon = Daemon::start(site, &[]);
        // Under its feet: with these it would not have started.
        for (namespace, interface) in [
            (site.datacenter(), "eth0"),
            (site.far_host(), "eth0"),
            (site.gateway(), "lan"),
            (site.gateway(), "wan"),
            (site.gateway(), "bridge0"),
        ] {
            namespace.run(&words(&format!("ip link set dev {interface} mtu 3000")));
        }
        daemon.wait_for("the new MTU to be noticed", |now| {
            now.ports.lan.mtu == 3000 && now.ports.wan.mtu == 3000
        });
        // Settings are taken over at a worker's next tick.
        daemon.wait_for("the worker to know", |now| now.workers[0].report.reloads > 0);
        let sniffer = Sniffer::start(site, site.far_host(), "far");
        let injector = Injector::new(site.datacenter());
        let sent = [1791, 1792, 1793, 2000, 3014];
        for bytes in sent {
            injector.send(&sized(STRANGER, bytes));
        }
        let [far] = Sniffer::end(site, [sniffer]);
        let frames = far.frames();
        let lengths = frames.iter().filter(|frame| frame[6..12] == SOURCE).map(Vec::len);
        let mut lengths: Vec<usize> = lengths.collect();
        // Those on the bridge and those from the worker may overtake each other.
        lengths.sort_unstable();
        assert_eq!(lengths, sent);
        let last = daemon.stop();
        assert_eq!((last.ports.lan.kernel.oversize, last.ports.wan.kernel.oversize), (3, 0));
        assert_eq!(last.total.dropped.exceeds_mtu, 0);
    });
}

#[test]
fn frames_to_the_ports_own_address_reach_the_kernel() {
    on_site(|site| {
        let (host, gateway) = (site.datacenter(), site.gateway());
        site.introduce_datacenter_and_gateway();
        let daemon = Daemon::start(site, &[]);
        let sniffer = Sniffer::start(site, site.far_host(), "far");
        host.run(&words("ping -n -q -c 10 -i 0.01 -W 5 10.9.0.9"));
        // Also when it makes no sense to the kernel.
        Injector::new(host).send(&sized(mac(&gateway.mac("lan")), 100));
        let [far] = Sniffer::end(site, [sniffer]);
        let to_the_port = mac(&gateway.mac("lan"));
        assert!(far.frames().iter().all(|frame| frame[..6] != to_the_port), "it went on too");
        let last = daemon.stop();
        assert_eq!(last.ports.lan.kernel.own_address, 11);
        assert_eq!(last.ports.wan.kernel.own_address, 0);
    });
}
