//! Two queues, two workers: what comes out of a tunnel is sent by the worker of its inner flow.

use crate::daemon::{Outer, Plan, routed, start_both, stop_both};
use crate::lab::{SERVER, SERVER_V6};
use crate::site::on_sites;
use crate::web::{Nginx, download, upload};

#[test]
fn packets_out_of_a_tunnel_go_to_the_worker_of_their_flow() {
    on_sites(|site| {
        let [a, b] = &site.gateways;
        for (namespace, interface) in [
            (&site.client, "eth0"),
            (a, "lan"),
            (a, "wan"),
            (&site.segments[0], "p0"),
            (&site.segments[1], "p0"),
            (b, "wan"),
            (b, "lan"),
            (&site.server, "eth0"),
        ] {
            namespace.run(&["ethtool", "-L", interface, "rx", "2", "tx", "2"]);
        }
        let plan = Plan::new(Outer::Ipv4)
            .with_keys()
            .with("gre.sequence", "true")
            .with("workers.cores", "[0, 1]");
        let daemons = start_both(site, &plan);
        let nginx = Nginx::start(site, &site.server);
        let name = nginx.serve(100_000);
        for _ in 0..12 {
            for address in [SERVER, SERVER_V6] {
                download(site, &site.client, &nginx, address, &name);
                upload(&site.client, &nginx, address, &name);
            }
        }
        drop(nginx);
        site.wait_for_silence();
        for last in stop_both(daemons) {
            let handovers = last.workers.iter().map(|worker| worker.report.handover);
            let (mut given, mut taken) = (0, 0);
            for handover in handovers {
                assert!(handover.given > 0, "each worker has flows of the other: {last}");
                assert_eq!((handover.full, handover.no_frame), (0, 0), "{last}");
                given += handover.given;
                taken += handover.taken;
            }
            assert_eq!(given, taken, "what was given was taken");
            // What the trackers of both workers together saw: nothing lost, on the way or between them.
            let sequences =
                routed(&last).lanes.map(|lane| (lane.sequence.received, lane.sequence.lost));
            let lanes = routed(&last).lanes.map(|lane| (lane.received, 0));
            assert_eq!(sequences, lanes, "{last}");
        }
    });
}
