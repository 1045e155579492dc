//! What goes wrong around a gateway, and what it makes of it: links that go down, a process that is stopped,
//! peers that send garbage, rings that run empty or full. Afterwards traffic flows, every frame is in its
//! place, and every packet is counted somewhere.

use std::thread;
use std::time::{Duration, Instant};

use dataplane::status::{PortState, Status};
use nix::sys::signal::Signal;

use crate::daemon::{Daemon, cpu_ticks};
use crate::lab::{CLIENT, Namespace, wait_for};
use crate::site::{BOUND, Site, on_site, words};
use crate::traffic::{Flood, Injector, Train, Transfer, mac, random_bytes};
use crate::web::{Nginx, download};

#[test]
fn a_link_that_goes_down_and_up_stops_traffic_no_longer_than_that() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let transfer = Transfer::start(site);
        let ends = [
            (site.gateway(), "lan"),
            (site.gateway(), "wan"),
            (site.datacenter(), "eth0"),
            (site.far_host(), "eth0"),
        ];
        for (namespace, interface) in ends {
            transfer.wait_for_progress();
            set_link(namespace, interface, "down");
            // A cable has two ends: whichever is down, neither has a link.
            let is_lan = interface == "lan" || namespace.name() == site.datacenter().name();
            let expected = match is_lan {
                true => [PortState::Down, PortState::Up],
                false => [PortState::Up, PortState::Down],
            };
            daemon.wait_for("the link to be noticed", |now| states(now) == expected);
            set_link(namespace, interface, "up");
            daemon.wait_for("the link to be noticed", |now| states(now) == [PortState::Up; 2]);
            wait_for("an answer", BOUND, || site.line.answers());
            transfer.wait_for_progress();
        }
        transfer.finish();
        let last = daemon.stop();
        assert_eq!((last.ports_reopened, last.total.flows.created), (0, 1));
    });
}

#[test]
fn while_the_far_link_is_down_the_worker_sleeps_and_the_near_port_still_speaks_to_the_kernel() {
    on_site(|site| {
        let (host, gateway) = (site.datacenter(), site.gateway());
        site.introduce_datacenter_and_gateway();

        let daemon = Daemon::start(site, &[("ports.ring_entries", "64")]);
        let train = Train::start(site, true);
        set_link(gateway, "wan", "down");
        daemon.wait_for("both rings to be full", |now| {
            now.workers[0].report.frames.transmitting[1] == 64 && missed(now) > 0
        });
        let before = cpu_ticks(daemon.id());
        thread::sleep(Duration::from_secs(1));
        // A worker that does not sleep uses all hundred. A longer second only makes this harder to pass.
        let used = cpu_ticks(daemon.id()) - before;
        assert!(used < 50, "{used} hundredths of a second that has no work");
        host.run(&words("ping -n -q -c 10 -i 0.01 -W 5 10.9.0.9"));

        set_link(gateway, "wan", "up");
        train.wait_for_progress();
        let arrivals = train.end();
        let last = daemon.stop();
        assert_eq!(arrivals.doubled, 0);
        assert!(last.ports.lan.kernel.own_address >= 10);
        let [lan, _] = last.workers[0].report.ports;
        assert!(lan.wake_failures.other == 0, "{lan:?}");
    });
}

#[test]
fn a_process_that_stood_still_for_a_second_loses_what_the_kernel_counted_and_no_more() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("classifier.idle_timeout", "\"10s\"")]);
        let transfer = Transfer::start(site);
        transfer.wait_for_progress();
        let train = Train::start(site, true);
        daemon.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(1));
        daemon.signal(Signal::SIGCONT);
        train.wait_for_progress();
        transfer.wait_for_progress();
        let arrivals = train.end();
        transfer.finish();
        site.wait_for_silence();
        let last = daemon.stop();
        let missed = missed(&last);
        assert_eq!(arrivals.doubled, 0, "{arrivals:?}");
        assert!(arrivals.lost as u64 <= missed, "{arrivals:?}, and {missed} counted");
        // Time went on by a second, not more: a flow of ten seconds' patience is the same one.
        assert_eq!(last.total.flows.created, 1);
        eprintln!("a second's standstill: {arrivals:?}; {missed} counted as dropped by the kernel");
    });
}

#[test]
fn every_datagram_that_a_standstill_costs_is_counted() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("ports.ring_entries", "64")]);
        let train = Train::start(site, true);
        daemon.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(500));
        daemon.signal(Signal::SIGCONT);
        train.wait_for_progress();
        let arrivals = train.end();
        let last = daemon.stop();
        assert_eq!(arrivals.doubled, 0, "{arrivals:?}");
        // Besides datagrams there is ARP, now and then.
        let (lost, missed) = (arrivals.lost as u64, missed(&last));
        assert!(lost > 0 && (lost..lost + 20).contains(&missed), "{arrivals:?}, {missed} counted");
    });
}

#[test]
fn runts_giants_and_garbage_at_full_speed_harm_nobody() {
    on_site(|site| {
        for (namespace, interface) in [(site.datacenter(), "eth0"), (site.far_host(), "eth0")] {
            // So that giants can be sent; what is longer than the port's own MTU allows, the cable drops.
            namespace.run(&words(&format!("ip link set dev {interface} mtu 3000")));
            // TCP keeps to what fits everywhere.
            let route =
                format!("ip route replace 10.0.0.0/24 dev {interface} mtu lock 1500 advmss 1460");
            namespace.run(&words(&route));
        }
        site.gateway().run(&words("ip link set dev lan mtu 1774"));
        let daemon = Daemon::start(site, &[]);
        let account = Account::open(site, &daemon);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(1_000_000);
        let floods = [site.datacenter(), site.far_host()].map(|host| {
            let own = mac(&site.gateway().mac(if host.name() == site.datacenter().name() {
                "lan"
            } else {
                "wan"
            }));
            Flood::start(host, garbage(own), Some(Duration::from_micros(100)))
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            download(site, site.far_host(), &nginx, CLIENT, &name);
        }
        let sent: Vec<u64> = floods.into_iter().map(Flood::end).collect();
        download(site, site.far_host(), &nginx, CLIENT, &name);
        site.wait_for_silence();
        drop(nginx);
        let last = account.close(site, daemon);
        assert!(last.total.untouched.malformed > 0 && last.total.untouched.non_ip > 0);
        assert!(last.total.dropped.exceeds_mtu > 0, "{:?}", last.total);
        assert!(last.ports.lan.kernel.own_address > 0 && last.ports.wan.kernel.own_address > 0);
        eprintln!("frames of garbage sent: {sent:?}; {} missed", missed(&last));
    });
}

#[test]
fn a_flood_that_empties_the_fill_ring_is_counted_and_survived() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("ports.ring_entries", "64")]);
        let account = Account::open(site, &daemon);
        // Both ways at once, and the worker stands still at times: that starves it surely.
        let frame = frame_to_a_stranger(60);
        let floods = [site.datacenter(), site.far_host()]
            .map(|host| Flood::start(host, vec![frame.clone()], None));
        for _ in 0..5 {
            daemon.signal(Signal::SIGSTOP);
            thread::sleep(Duration::from_millis(50));
            daemon.signal(Signal::SIGCONT);
            thread::sleep(Duration::from_millis(50));
        }
        for flood in floods {
            assert!(flood.end() > 1000);
        }
        assert!(site.line.answers());
        let train = Train::start(site, true);
        train.wait_for_progress();
        train.end();
        let last = account.close(site, daemon);
        for port in &last.workers[0].report.ports {
            assert!(port.rx_ring_full + port.rx_dropped > 0, "{port:?}");
        }
    });
}

#[test]
fn a_full_transmit_ring_is_waited_for_and_what_it_costs_is_counted() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("ports.ring_entries", "64")]);
        let account = Account::open(site, &daemon);
        set_link(site.gateway(), "wan", "down");
        let injector = Injector::new(site.datacenter());
        let frame = frame_to_a_stranger(100);
        for _ in 0..1000 {
            injector.send(&frame);
        }
        // 64 in the transmit ring, 64 in the receive ring, the rest dropped where it came in.
        let full = daemon.wait_for("the rings to be full", |now| {
            now.workers[0].report.frames.transmitting[1] == 64 && missed(now) >= 1000 - 128
        });
        assert!(full.workers[0].report.frames_balance);
        set_link(site.gateway(), "wan", "up");
        wait_for("an answer", BOUND, || site.line.answers());
        account.close(site, daemon);
    });
}

fn set_link(namespace: &Namespace, interface: &str, state: &str) {
    namespace.run(&words(&format!("ip link set dev {interface} {state}")));
}

fn states(status: &Status) -> [PortState; 2] {
    [status.ports.lan.state, status.ports.wan.state]
}

/// Packets that the kernel dropped before a worker saw them.
fn missed(status: &Status) -> u64 {
    let ports = status.workers.iter().flat_map(|worker| &worker.report.ports);
    ports.map(|port| port.rx_ring_full + port.rx_dropped).sum()
}

/// Every packet that came in over a cable: dropped by the kernel for want of room, left to it by the XDP
/// program, or received by a worker.
struct Account {
    carried: u64,
    accounted: u64,
}

impl Account {
    /// From now on.
    fn open(site: &Site, daemon: &Daemon<'_>) -> Account {
        Account::at_rest(site, daemon)
    }

    /// Compares, and ends the gateway.
    fn close(self, site: &Site, daemon: Daemon<'_>) -> Status {
        let now = Account::at_rest(site, &daemon);
        let last = daemon.stop();
        let (accounted, carried) = (now.accounted - self.accounted, now.carried - self.carried);
        assert_eq!(accounted, carried, "{:?}", last.workers[0].report);
        last
    }

    /// When the daemon's counters have stood still (a worker reports every ten milliseconds) and the cables
    /// carried nothing meanwhile: a host may have something to say of its own at any moment.
    fn at_rest(site: &Site, daemon: &Daemon<'_>) -> Account {
        loop {
            let carried = carried_to_a_standstill(site);
            let mut accounted_last = accounted(&daemon.status());
            let mut still = 0;
            wait_for("the counters to stand still", BOUND, || {
                let now = accounted(&daemon.status());
                still = if now == accounted_last { still + 1 } else { 0 };
                accounted_last = now;
                still >= 5
            });
            if carried_to_a_standstill(site) == carried {
                return Account { carried, accounted: accounted_last };
            }
        }
    }
}

fn accounted(status: &Status) -> u64 {
    let kernel = [status.ports.lan.kernel, status.ports.wan.kernel];
    let left: u64 = kernel.iter().map(|one| one.own_address + one.oversize + one.no_socket).sum();
    status.total.received + left + missed(status)
}

/// Packets that both hosts' cables have carried, when there are no more for a moment.
fn carried_to_a_standstill(site: &Site) -> u64 {
    let carried = |host: &Namespace| {
        let count = host.run(&words("cat /sys/class/net/eth0/statistics/tx_packets"));
        count.trim().parse::<u64>().expect("a number")
    };
    let (mut last, mut still) = (0, 0);
    wait_for("the cables to be silent", BOUND, || {
        let now = carried(site.datacenter()) + carried(site.far_host());
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still >= 5
    });
    last
}

fn frame_to_a_stranger(bytes: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 0x55, 0x88, 0xb5];
    frame.extend(random_bytes(bytes - 14));
    frame
}

/// Frames of many lengths, from runts to giants: of no protocol, as IP with nothing but noise after it, with
/// a sound IP header and a TCP header of noise, and to the gateway's own address.
fn garbage(own: [u8; 6]) -> Vec<Vec<u8>> {
    let lengths = [14, 15, 20, 34, 54, 59, 60, 64, 128, 512, 1514, 1518, 1519, 1792, 1793, 3000];
    let mut frames = Vec::new();
    for (index, bytes) in lengths.into_iter().enumerate() {
        for (kind, ethertype) in
            [[0x88, 0xb5], [8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8]].into_iter().enumerate()
        {
            let mut frame = frame_to_a_stranger(bytes);
            frame[12..14].copy_from_slice(&ethertype);
            // Other noise in each.
            frame.iter_mut().skip(14).for_each(|byte| *byte ^= (17 * index + kind) as u8);
            if ethertype == [8, 0] && bytes >= 54 {
                let total_bytes = (bytes as u16 - 14).to_be_bytes();
                frame[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6]);
                frame[16..18].copy_from_slice(&total_bytes);
            }
            frames.push(frame);
        }
        let mut to_us = frame_to_a_stranger(bytes.min(1500));
        to_us[..6].copy_from_slice(&own);
        frames.push(to_us);
    }
    frames
}
