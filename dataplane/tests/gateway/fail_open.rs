//! When the process dies, traffic goes on: over the kernel's bridge, until it is started again.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dataplane::status::Status;

use crate::daemon::{Daemon, Setting};
use crate::lab::{CLIENT, SERVER, wait_for};
use crate::site::{BOUND, Site, on_site, on_site_with_two_queues};
use crate::stream::{Distribution, Stream};
use crate::traffic::{Train, Transfer};
use crate::web::{Nginx, download, upload};

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

/// The kernel closes what a dead process had open from the highest number down, and each socket of AF_XDP takes
/// milliseconds.
#[test]
fn what_the_kernel_closes_first_are_the_links_of_the_programs() {
    on_site_with_two_queues(|site| {
        let daemon = Daemon::start(site, &[("workers.cores", "[0, 1]")]);
        let folder = fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("it runs");
        let mut open: Vec<(u32, PathBuf)> = folder
            .map(|entry| {
                let entry = entry.expect("it runs");
                let number = entry.file_name().to_string_lossy().parse().expect("a number");
                (number, fs::read_link(entry.path()).expect("nothing is closed meanwhile"))
            })
            .collect();
        open.sort();
        let is_link = |(_, target): &(u32, PathBuf)| target.ends_with("anon_inode:bpf_link");
        let links = open.iter().rev().take_while(|one| is_link(one)).count();
        assert_eq!((links, open.iter().filter(|one| is_link(one)).count()), (2, 2), "{open:?}");
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

/// The flow tables that the default configuration makes.
const DEFAULT_TABLES: &[Setting<'_>] =
    &[("classifier.ipv4_flows_max", "1048576"), ("classifier.ipv6_flows_max", "262144")];

#[test]
fn a_hundred_kills_under_traffic_break_no_transfer_and_leave_no_program() {
    on_site(|site| {
        let transfers = kill_again_and_again(site, 100, DEFAULT_TABLES);
        assert!(transfers[0] > 0 && transfers[1] > 0, "{transfers:?}");
    });
}

/// What a kill costs with flow tables of different sizes. For people: it asserts no more than the test before.
#[test]
#[ignore = "a measurement: cargo test --test gateway -- --ignored --nocapture what_a_kill_costs"]
fn what_a_kill_costs_by_the_size_of_the_flow_table() {
    for (ipv4, ipv6) in [("4096", "4096"), ("1048576", "262144"), ("4194304", "1048576")] {
        eprintln!("tables for {ipv4} IPv4 and {ipv6} IPv6 flows:");
        on_site(|site| {
            let tables = [("classifier.ipv4_flows_max", ipv4), ("classifier.ipv6_flows_max", ipv6)];
            kill_again_and_again(site, 50, &tables);
        });
    }
}

/// Files by curl in both directions and a datagram a millisecond in both directions, while the gateway is
/// killed and started again, `times` times. Returns how many files went each way, all of them whole.
fn kill_again_and_again(site: &Site, times: usize, settings: &[Setting<'_>]) -> [u32; 2] {
    site.bridge();
    let nginx = Nginx::start(site, site.datacenter());
    let [outbound_file, inbound_file] = [10_000_000, 9_000_000].map(|size| nginx.serve(size));
    let streams = [true, false].map(|outbound| Stream::start(site, outbound));
    let go_on = || streams.iter().for_each(Stream::wait_for_progress);
    let over = AtomicBool::new(false);

    let mut cycles = Vec::with_capacity(times);
    let again = |transfer: &dyn Fn()| {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            transfer();
            count += 1;
        }
        count
    };
    let transfers = thread::scope(|scope| {
        let far = site.far_host();
        let outbound =
            scope.spawn(|| again(&|| download(site, far, &nginx, CLIENT, &outbound_file)));
        let inbound = scope.spawn(|| again(&|| upload(far, &nginx, CLIENT, &inbound_file)));
        // Also when something here fails: the threads must not go on for ever.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..times {
                cycles.push(start_and_kill(site, settings, &go_on));
            }
        }));
        over.store(true, Ordering::Relaxed);
        let transfers =
            [outbound, inbound].map(|thread| thread.join().expect("files arrive whole"));
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        transfers
    });
    drop(nginx);

    for (name, stream) in ["outbound", "inbound"].into_iter().zip(streams) {
        let record = stream.end();
        let gaps = |from: fn(&Cycle) -> Instant, to: fn(&Cycle) -> Instant| {
            Distribution::new(cycles.iter().map(|one| record.longest_gap(from(one), to(one))))
        };
        eprintln!("{name}: {} datagrams sent, {} lost; longest gaps", record.sent, record.lost());
        eprintln!("  around a start: {}", gaps(|one| one.started, |one| one.carries));
        let between = cycles.iter().map(|one| record.longest_gap_within(one.carries, one.killed));
        eprintln!("  between:        {}", Distribution::new(between));
        eprintln!("  around a kill:  {}", gaps(|one| one.killed, |one| one.over));
        assert_eq!(record.doubled(), 0, "beside a bridge nothing is forwarded twice");
    }
    let ends = Distribution::new(cycles.iter().map(|one| one.buried - one.killed));
    eprintln!("from SIGKILL to the end of the process: {ends}");
    eprintln!("files sent out and in: {transfers:?}");
    transfers
}

/// When things happened around one kill.
struct Cycle {
    started: Instant,
    carries: Instant,
    killed: Instant,
    buried: Instant,
    over: Instant,
}

fn start_and_kill(site: &Site, settings: &[Setting<'_>], go_on: &dyn Fn()) -> Cycle {
    let started = Instant::now();
    let daemon = Daemon::start(site, settings);
    let traffic = |now: &Status| now.total.received > 100;
    let status = daemon.wait_for("the traffic to come back", traffic);
    let carries = Instant::now();
    go_on();
    assert!(status.workers.iter().all(|worker| worker.report.frames_balance));

    let killed = Instant::now();
    daemon.kill();
    let buried = Instant::now();
    // Not waited for: when a process is gone, its program is.
    assert!(!site.has_programs(), "a program is left behind");
    go_on();
    Cycle { started, carries, killed, buried, over: Instant::now() }
}
