//! One word of the configuration changes which lane packets take.

use crate::daemon::{Outer, Plan, routed, start_both, stop_both};
use crate::lab::SERVER;
use crate::site::on_sites;
use crate::web::{Nginx, download, upload};

#[test]
fn ecmp_spreads_flows_over_both_lanes_and_keeps_each_in_its_own() {
    const FLOWS: u64 = 40;
    on_sites(|site| {
        let daemons = start_both(site, &plan("ecmp"));
        let nginx = Nginx::start(site, &site.server);
        let name = nginx.serve(100_000);
        for _ in 0..FLOWS {
            upload(&site.client, &nginx, SERVER, &name);
        }
        drop(nginx);
        site.wait_for_silence();
        let [a, b] = stop_both(daemons);
        for status in [&a, &b] {
            assert_eq!(status.total.flows.created - status.total.flows.restarted, FLOWS);
            assert_eq!(status.total.flows.promoted, 0, "a hash moves no flow");
        }
        // Each upload has some seventy packets of data. That all take one lane happens once in 2^40 runs; fewer
        // than four in a lane, once in ten million.
        let packets = a.total.short + a.total.long;
        let share = a.total.long as f64 / packets as f64;
        assert!((0.1..0.9).contains(&share), "{} of {packets} long", a.total.long);
        let lanes = routed(&a).lanes.map(|lane| lane.sent);
        assert_eq!(lanes, [packets - a.total.long + a.total.untouched.non_tcp, a.total.long]);
        assert_eq!(routed(&b).lanes.map(|lane| lane.received), lanes);
        // With sequence numbers of each lane: a flow that changed lanes would be out of order in none of them.
        assert_eq!(routed(&b).lanes.map(|lane| lane.sequence.reordered), [0, 0]);
    });
}

#[test]
fn spray_sends_packets_by_both_lanes_in_turn() {
    on_sites(|site| {
        let daemons = start_both(site, &plan("spray"));
        let nginx = Nginx::start(site, &site.server);
        let name = nginx.serve(1_000_000);
        upload(&site.client, &nginx, SERVER, &name);
        drop(nginx);
        site.wait_for_silence();
        let [a, _] = stop_both(daemons);
        let (short, long) = (a.total.short, a.total.long);
        assert!(short > 300 && short.abs_diff(long) <= 1, "{short} short, {long} long");
    });
}

#[test]
fn without_a_policy_everything_takes_the_short_lane() {
    on_sites(|site| {
        let daemons = start_both(site, &plan("none"));
        let nginx = Nginx::start(site, &site.server);
        let name = nginx.serve(1_000_000);
        download(site, &site.client, &nginx, SERVER, &name);
        drop(nginx);
        site.wait_for_silence();
        let last = stop_both(daemons);
        assert!(routed(&last[1]).lanes[0].sent > 700, "a megabyte came from there");
        for status in &last {
            let [_, long] = routed(status).lanes;
            assert_eq!((long.sent, long.received), (0, 0));
            assert_eq!((status.total.short, status.total.long), (0, 0), "nothing has a class");
        }
    });
}

fn plan(policy: &str) -> Plan {
    Plan::new(Outer::Ipv4)
        .with_keys()
        .with("gre.sequence", "true")
        .with("classifier.policy", &format!("{policy:?}"))
}
