//! When the process dies, traffic goes on: over the kernel's bridge, until it is started again.

use dataplane::status::Status;

use crate::daemon::Daemon;
use crate::lab::{SERVER, wait_for};
use crate::site::{BOUND, on_site};
use crate::traffic::{Train, Transfer};

#[test]
fn a_transfer_survives_kill_9_and_the_gateway_takes_it_back() {
    on_site(|site| {
        site.bridge();
        let transfer = Transfer::start(site);
        transfer.wait_for_progress();
        for _ in 0..3 {
            let daemon = Daemon::start(site, &[]);
            transfer.wait_for_progress();
            let now = daemon.wait_for("the traffic to come back", |now| now.total.long > 100);
            // A flow that was there before is a new one to a gateway that was not.
            assert_eq!(now.total.flows.created, 1);
            let socket = daemon.files().socket.clone();
            daemon.kill();
            wait_for("the programs to go", BOUND, || !site.has_programs());
            assert!(socket.exists(), "nobody was there to remove it");
            transfer.wait_for_progress();
        }
        // The last one ends as it should, and replaces the socket that was left behind.
        let daemon = Daemon::start(site, &[]);
        transfer.wait_for_progress();
        transfer.finish();
        daemon.stop();
    });
}

#[test]
fn beside_a_bridge_no_packet_is_forwarded_twice() {
    on_site(|site| {
        site.bridge();
        let daemon = Daemon::start(site, &[]);
        let ping = ["ping", "-n", "-c", "50", "-i", "0.005", "-W", "5", SERVER];
        let words = site.datacenter().run(&ping);
        assert!(words.contains(" 50 received") && !words.contains("DUP!"), "{words}");
        for outbound in [true, false] {
            let train = Train::start(site, outbound);
            train.wait_for_progress();
            let arrivals = train.end();
            assert_eq!((arrivals.lost, arrivals.doubled), (0, 0), "{arrivals:?}");
        }
        daemon.stop();
    });
}

/// Datagrams that one start or one violent end may cost, of about 5000 a second at most. Both are
/// measured and shown; the bound is only where something would be broken.
const LOST_MAX: usize = 1000;

#[test]
fn starts_and_violent_ends_beside_running_traffic_lose_little_and_double_nothing() {
    on_site(|site| {
        site.bridge();
        for _ in 0..3 {
            let train = Train::start(site, true);
            let daemon = Daemon::start(site, &[]);
            train.wait_for_progress();
            let carries = |now: &Status| now.total.untouched.non_tcp > 100;
            daemon.wait_for("it to carry the train", carries);
            let start = train.end();

            let train = Train::start(site, true);
            daemon.kill();
            train.wait_for_progress();
            let kill = train.end();

            eprintln!("a start: {start:?}; kill -9: {kill:?}");
            for arrivals in [start, kill] {
                assert_eq!(arrivals.doubled, 0, "{arrivals:?}");
                assert!(arrivals.sent > 200 && arrivals.lost <= LOST_MAX, "{arrivals:?}");
            }
        }
    });
}
