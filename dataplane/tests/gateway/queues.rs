//! Two queues, two workers, two cores; and a queue that nobody expected.

use crate::daemon::Daemon;
use crate::lab::{CLIENT, CLIENT_V6, wait_for};
use crate::site::{BOUND, Site, on_site_with_two_queues, words};
use crate::web::{Nginx, download};

#[test]
fn every_flow_stays_on_one_worker() {
    on_site_with_two_queues(|site| {
        let daemon = Daemon::start(site, &[("workers.cores", "[0, 1]")]);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(100_000);
        for _ in 0..16 {
            for address in [CLIENT, CLIENT_V6] {
                download(site, site.far_host(), &nginx, address, &name);
            }
        }
        site.wait_for_silence();
        drop(nginx);
        let last = daemon.stop();
        let cores: Vec<usize> = last.workers.iter().map(|worker| worker.core).collect();
        assert_eq!(cores, [0, 1]);
        for worker in &last.workers {
            let counters = &worker.report.counters;
            assert!(counters.flows.created > 0, "worker {} saw no flow", worker.queue);
            // Each flow has more than 40 packets, all of them here.
            assert_eq!(counters.flows.promoted, counters.flows.created);
            assert_eq!(counters.short, 40 * counters.flows.created);
        }
        assert_eq!(last.total.flows.created, 32);
    });
}

#[test]
fn a_queue_that_comes_while_it_runs_is_told_of_and_left_to_the_kernel() {
    on_site_with_two_queues(|site| {
        site.bridge();
        set_queues(site, 1);
        let daemon = Daemon::start(site, &[("workers.cores", "[1]")]);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(100_000);
        for round in 1..=2 {
            set_queues(site, 2);
            daemon.wait_for("the queue to be noticed", |now| now.ports.lan.queues == 2);
            let threshold = ["50", "60"][round - 1];
            daemon.reload(&[("workers.cores", "[1]"), ("classifier.threshold_packets", threshold)]);
            // By and by one of these flows is on the second queue, and arrives over the bridge.
            let before = received_on_second_queue(site);
            wait_for("packets on the second queue", BOUND, || {
                download(site, site.far_host(), &nginx, CLIENT, &name);
                received_on_second_queue(site) > before
            });
            set_queues(site, 1);
            daemon.wait_for("it to be gone", |now| {
                [now.ports.lan.queues, now.ports.wan.queues] == [1, 1]
            });
            let log = daemon.files().log();
            assert_eq!(log.matches("lan: 2 queues now, and workers for 1").count(), round, "{log}");
            assert_eq!(log.matches("lan: 1 queues now, and a worker for each").count(), round);
        }
        let before = daemon.status().total.flows.created;
        for _ in 0..8 {
            download(site, site.far_host(), &nginx, CLIENT, &name);
        }
        site.wait_for_silence();
        drop(nginx);
        let last = daemon.stop();
        assert_eq!(last.total.flows.created, before + 8, "all on the queue that has a worker");
        assert_eq!((last.ports_reopened, last.workers.len()), (0, 1));
    });
}

/// The port's own counter: veth runs no XDP program on a queue that came after the program.
fn received_on_second_queue(site: &Site) -> u64 {
    let counters = site.gateway().run(&words("ethtool -S lan"));
    let line =
        counters.lines().find_map(|line| line.trim().strip_prefix("rx_queue_1_xdp_packets:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a counter of the second queue")
}

/// At both ends of both cables: with XDP, a veth must have as many as its other end sends on.
fn set_queues(site: &Site, number: u32) {
    let hosts = [(site.datacenter(), "eth0"), (site.far_host(), "eth0")];
    let ports = [(site.gateway(), "lan"), (site.gateway(), "wan")];
    let ends = if number == 1 { [hosts, ports] } else { [ports, hosts] };
    for (namespace, interface) in ends.into_iter().flatten() {
        let set = format!("ethtool -L {interface} rx {number} tx {number}");
        // It is an error to change nothing.
        let count = format!("ls /sys/class/net/{interface}/queues");
        if namespace.run(&words(&count)).matches("rx-").count() != number as usize {
            namespace.run(&words(&set));
        }
    }
}
