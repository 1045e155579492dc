//! Two queues, two workers, two cores.

use crate::daemon::Daemon;
use crate::lab::{CLIENT, CLIENT_V6};
use crate::site::on_site_with_two_queues;
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
