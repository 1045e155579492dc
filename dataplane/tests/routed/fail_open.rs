//! When a gateway dies, the kernel routes on, without lanes, until it is started again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, thread};

use crate::daemon::{Daemon, Outer, Plan, start_both, stop_both};
use crate::lab::{SERVER, SERVER_V6, wait_for};
use crate::site::{BOUND, Site, on_sites};
use crate::stream::Stream;
use crate::web::{Nginx, download, upload};

/// How often gateways are killed, unless the environment says so in `KILLS`.
const KILLS: usize = 6;

#[test]
fn kills_of_either_gateway_under_traffic_break_no_transfer_and_leave_no_program() {
    // Without a tunnel, whoever is left sends what the other's kernel can route.
    on_sites(|site| {
        let plan = Plan::next_hops();
        let mut daemons = start_both(site, &plan).map(Some);
        under_transfers(site, |round| {
            let side = round % 2;
            let killed = daemons[side].take().expect("it runs");
            killed.kill();
            // Not waited for: when a process is gone, its programs are.
            assert!(!site.has_programs(&site.gateways[side]), "a program is left behind");
            wait_for("the kernel to route", BOUND, || site.answers());
            daemons[side] = Some(Daemon::start(site, side, &plan));
        });
        stop_both(daemons.map(|daemon| daemon.expect("it runs")));
    });
}

#[test]
fn kills_of_both_gateways_and_their_tunnels_under_traffic_break_no_transfer() {
    on_sites(|site| {
        let plan = Plan::new(Outer::Ipv4).with_keys().with("gre.sequence", "true");
        let mut daemons = Some(start_both(site, &plan));
        under_transfers(site, |_| {
            for daemon in daemons.take().expect("they run") {
                daemon.kill();
            }
            for gateway in &site.gateways {
                assert!(!site.has_programs(gateway), "a program is left behind");
            }
            wait_for("the kernel to route", BOUND, || site.answers());
            daemons = Some(start_both(site, &plan));
        });
        stop_both(daemons.expect("they run"));
    });
}

/// Calls `cycle` again and again while files go both ways and datagrams go both ways; all files arrive whole.
fn under_transfers(site: &Site, mut cycle: impl FnMut(usize)) {
    let kills = env::var("KILLS").ok().map_or(KILLS, |times| times.parse().expect("a number"));
    let nginx = Nginx::start(site, &site.server);
    let [down, up] = [10_000_000, 9_000_000].map(|size| nginx.serve(size));
    let streams = [true, false].map(|outbound| Stream::start(site, outbound));
    let over = AtomicBool::new(false);
    let again = |transfer: &dyn Fn()| {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            transfer();
            count += 1;
        }
        count
    };
    let transfers: [u32; 2] = thread::scope(|scope| {
        let client = &site.client;
        let down = scope.spawn(|| again(&|| download(site, client, &nginx, SERVER, &down)));
        let up = scope.spawn(|| again(&|| upload(client, &nginx, SERVER_V6, &up)));
        // Also when something here fails: the threads must not go on for ever.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for round in 0..kills {
                streams.iter().for_each(Stream::wait_for_progress);
                cycle(round);
            }
        }));
        over.store(true, Ordering::Relaxed);
        let transfers = [down, up].map(|thread| thread.join().expect("files arrive whole"));
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        transfers
    });
    for stream in streams {
        stream.wait_for_progress();
        let record = stream.end();
        assert_eq!(record.doubled(), 0, "nothing is forwarded twice");
        eprintln!("{kills} kills: {} datagrams sent, {} lost", record.sent, record.lost());
    }
    eprintln!("files down and up: {transfers:?}");
    assert!(transfers[0] > 0 && transfers[1] > 0);
}
