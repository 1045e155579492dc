//! Routed gateways and their reference model on the same random traffic of both sides, packet by packet: every outcome,
//! every verdict, every byte that leaves, ICMP errors and fragments among it, and at the end every counter. Batches have
//! any size.

use dataplane::counters::Counters;
use pcap_tests::fuzz::{CONFIGURATIONS, RoutedContest, configuration};
use pcap_tests::model::Rule;
use pcap_tests::traffic::{Options, Random, RoutedTraffic};

/// Packets of each configuration.
const PACKETS: usize = 150_000;

/// Reasons of routed mode.
const DROPPED: [&str; 10] = [
    "left_to_kernel",
    "malformed",
    "truncated",
    "hop_limit",
    "no_route",
    "too_big",
    "refused",
    "path_error",
    "unresolved",
    "no_room",
];

fn agree(number: usize, rule: Rule) -> Counters {
    let routed = configuration(number).routed.expect("the mode is routed");
    let tunnels = routed.tunnels().map(|(_, tunnel)| *tunnel).collect();
    let options =
        Options { idle_timeout_ns: rule.idle_timeout_ns, flows: 64, ..Options::default() };
    let mut traffic = RoutedTraffic::new(number as u64, tunnels, options);
    let mut contest = RoutedContest::new(number, rule, 1 << 16);
    let mut random = Random::new(7);
    let mut until_batch_ends = 1;
    for _ in 0..PACKETS {
        let frame = traffic.next_frame();
        contest.packet(frame.kept, frame.wire_bytes, frame.ingress, frame.received_ns);
        until_batch_ends -= 1;
        if until_batch_ends == 0 {
            contest.run();
            until_batch_ends = 1 + random.index(256);
        }
    }
    let (counters, is_compared) = contest.finish();
    assert!(is_compared, "no ICMP error of this traffic is believed: {counters:#?}");
    counters
}

#[test]
fn routed_gateways_agree_with_their_model() {
    let rules = [
        Rule { threshold_packets: 3, fragmented_datagrams_max: 16, ..Rule::default() },
        Rule { threshold_packets: 1, restart_on_syn: false, ..Rule::default() },
        Rule { threshold_packets: 8, idle_timeout_ns: 1000, ..Rule::default() },
    ];
    let mut all = Counters::default();
    for number in 0..CONFIGURATIONS {
        all.add(&agree(number, rules[number % rules.len()]));
    }
    // What was never met was never compared.
    let Counters { short, long, untouched, dropped, routed, .. } = all;
    assert!(short > 10_000 && long > 10_000 && untouched.unclassified > 10_000, "{all:#?}");
    let routed = routed.expect("they are routed");
    let dropped = serde_json::to_value(dropped).expect("numbers by name");
    let mut rare: Vec<String> = Vec::new();
    for name in DROPPED {
        if dropped[name].as_u64().unwrap_or_default() < 10 {
            rare.push(format!("{name}: {}", dropped[name]));
        }
    }
    let routed = serde_json::to_value(routed).expect("numbers by name");
    for (name, count) in routed["refused"].as_object().expect("numbers by name") {
        // What is not to one of our ends does not come to the border.
        if !["not_ip", "destination"].contains(&name.as_str()) && *count == 0 {
            rare.push(format!("{name}: {count}"));
        }
    }
    assert!(rare.is_empty(), "{rare:?}");
    for name in ["time_exceeded", "too_big", "unreachable", "withheld"] {
        assert!(routed["icmp"][name].as_u64() > Some(20), "{name}: {routed}");
    }
    for name in ["fragmented", "mss_clamped", "plain_in"] {
        assert!(routed[name].as_u64() > Some(100), "{name}: {routed}");
    }
}
