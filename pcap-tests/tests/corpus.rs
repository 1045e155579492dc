//! What fuzzers found worth keeping, and as much random traffic in the same form. `scripts/fuzz` looks for
//! more; a failing input it finds goes into a test here, named by what was wrong.

use std::fs;
use std::path::Path;

use dataplane::counters::{self, Counters};
use pcap_tests::fuzz;
use pcap_tests::traffic::{Options, Random, RoutedTraffic, Traffic};

/// Calls the target with every file of its corpus.
fn replay(target: &str, mut call: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("the corpus is in the tree");
    let mut count = 0;
    for file in files {
        let path = file.expect("a folder in the tree can be read").path();
        let input = fs::read(&path).expect("a file in the tree can be read");
        // Shown when the call panics.
        eprintln!("{}", path.display());
        call(&input);
        count += 1;
    }
    assert!(count >= 30, "{count} inputs in {}", folder.display());
}

/// Nothing that is counted was never compared.
fn reaches_everything(counters: &Counters) {
    let Counters { short, long, untouched, dropped, flows, .. } = *counters;
    let counters::Untouched { non_tcp, non_ip, malformed, fragment, truncated, unclassified } =
        untouched;
    let untouched = [non_tcp, non_ip, malformed, fragment, truncated, unclassified];
    let counters::Flows { created, promoted, expired, restarted, active, table_full, restored: _ } =
        flows;
    let flows = [created, promoted, expired, restarted, active, table_full];
    let reached = [short, long, dropped.total()].into_iter().chain(untouched).chain(flows);
    assert!(reached.min().is_some_and(|count| count > 0), "{counters:#?}");
}

#[test]
fn the_parsers_corpus_holds() {
    replay("parse", fuzz::parse);
}

#[test]
fn the_gateways_corpus_holds() {
    let mut counters = Counters::default();
    replay("process", |input| counters.add(&fuzz::process(input)));
    reaches_everything(&counters);
}

#[test]
fn the_routers_corpus_holds() {
    let mut counters = Counters::default();
    replay("routed", |input| counters.add(&fuzz::routed(input)));
    let routed = counters.routed.expect("they are routed");
    let received: u64 = routed.lanes.iter().map(|lane| lane.received).sum();
    let sent: u64 = routed.lanes.iter().map(|lane| lane.sent).sum();
    let reached =
        [sent, received, routed.refused.total(), routed.plain_in, counters.dropped.hop_limit];
    assert!(reached.iter().all(|&count| count > 0), "{counters:#?}");
}

#[test]
fn random_scripts_of_routed_gateways_hold() {
    let mut random = Random::new(3);
    for seed in 0..600 {
        let number = seed as usize % fuzz::CONFIGURATIONS;
        let routed = fuzz::configuration(number).routed.expect("the mode is routed");
        let tunnels = routed.tunnels().map(|(_, tunnel)| *tunnel).collect();
        let options = Options { flows: 16 + random.index(100), ..Options::default() };
        let mut traffic = RoutedTraffic::new(seed, tunnels, options);
        let frames = 1 + random.index(150);
        fuzz::routed(&fuzz::routed_seed(&mut random, number, &mut traffic, frames));
    }
}

#[test]
fn random_frames_hold() {
    let mut traffic = Traffic::new(1, Options::default());
    for _ in 0..200_000 {
        fuzz::parse(&fuzz::parse_seed(&traffic.next_frame()));
    }
}

#[test]
fn random_scripts_hold() {
    let mut random = Random::new(2);
    let mut counters = Counters::default();
    for seed in 0..2000 {
        let options = Options { flows: 16 + random.index(100), ..Options::default() };
        let mut traffic = Traffic::new(seed, options);
        let frames = 1 + random.index(300);
        counters.add(&fuzz::process(&fuzz::process_seed(&mut random, &mut traffic, frames)));
    }
    reaches_everything(&counters);
}
