use super::goals::Standing;
use super::*;
use crate::bootstrap::{Interval, Random};
use crate::lab::planted::{Plan, Planted, chance_ns};
use crate::lab::records::Way;

/// The only goal that says so.
fn goal<'a>(analysis: &'a Analysis, what: &str) -> &'a goals::Goal {
    let mut found = analysis.goals.iter().filter(|goal| goal.what.contains(what));
    let goal = found.next().unwrap();
    assert!(found.next().is_none(), "{what}");
    goal
}

fn analysed(planted: &Planted) -> Analysis {
    of(&Output::open(&planted.folder).unwrap())
}

/// ECMP takes so many times as long, flow by flow.
fn pair(planted: &mut Planted, background_percent: u32, repeat: u32, times: u64) {
    planted.add(&Plan::of(Way::Ecmp, background_percent, repeat), |packets, random| {
        chance_ns(packets, random) * times
    });
    planted.add(&Plan::of(Way::Split, background_percent, repeat), chance_ns);
}

#[test]
fn flows_that_take_half_as_long_have_a_speed_up_of_exactly_two() {
    let mut planted = Planted::new("two");
    (0..3).for_each(|repeat| pair(&mut planted, 40, repeat, 2));
    let analysis = analysed(&planted);
    let [comparison] = analysis.comparisons.as_slice() else { panic!("{analysis:?}") };
    assert_eq!((comparison.pairs, comparison.cell.way), (3, Way::Split));
    let sizes: Vec<&str> = comparison.sizes.iter().map(|size| size.size.as_str()).collect();
    assert_eq!(sizes, ["1-40", "1-5", "6-10", "11-20", "21-40", "41-100", "101-1000", "more"]);
    for size in &comparison.sizes {
        let figures: Vec<Interval> = [size.mean, size.p50].into_iter().chain(size.p99).collect();
        assert_eq!(size.p99.is_some(), size.flows[0] >= 200, "{size:?}");
        assert!(figures.iter().all(|figure| (figure.value - 2.0).abs() < 1e-9), "{size:?}");
        assert!(figures.iter().all(|figure| figure.low <= 2.0 && 2.0 <= figure.high), "{size:?}");
        // What lies before and behind the taps is the same for both.
        let driver = size.driver_mean.unwrap().value;
        assert!(1.5 < driver && driver < 2.0, "{driver}");
    }
    let throughput = comparison.size(LONG).unwrap().throughput.unwrap();
    assert!(
        (throughput.value - 2.0).abs() < 1e-3
            && comparison.size(SHORT).unwrap().throughput.is_none()
    );
    // 600 requests in 60 s, of which 5 s are warm-up.
    assert!(analysis.runs.iter().all(|run| (run.requests, run.warmup_requests) == (550, 50)));
    let standings: Vec<Standing> = analysis.goals.iter().map(|goal| goal.standing).collect();
    use Standing::{AtLeast, NotMeasured, Reached};
    let short = [Reached, AtLeast, NotMeasured];
    let (longer, others) = ([Reached; 6], [NotMeasured, Reached, Reached]);
    assert_eq!(standings, [&short[..], &longer, &others].concat(), "{:?}", analysis.goals);
    assert!(analysis.goals[0].found.ends_with("of 3 pairs of runs"), "{:?}", analysis.goals[0]);
}

#[test]
fn intervals_hold_the_planted_speed_up() {
    let held = (0..12_u64).filter(|trial| {
        let mut planted = Planted::new(&format!("trial-{trial}"));
        for repeat in 0..4 {
            for way in [Way::Ecmp, Way::Split] {
                let mut plan = Plan::of(way, 40, repeat);
                plan.requests = 150;
                // Chance of its own for each run; ECMP takes 1.7 times as long on average.
                let mut own = Random::new(
                    trial * 1000 + u64::from(repeat) * 2 + u64::from(way == Way::Split),
                );
                planted.add(&plan, |packets, _| {
                    let ns = chance_ns(packets, &mut own);
                    if way == Way::Ecmp { ns * 17 / 10 } else { ns }
                });
            }
        }
        let analysis = analysed(&planted);
        let mean = analysis.comparisons[0].size("21-40").unwrap().mean;
        mean.low <= 1.7 && 1.7 <= mean.high
    });
    let held = held.count();
    assert!(held >= 9, "{held} of 12");
}

#[test]
fn runs_that_failed_or_lack_their_other_half_are_told_and_in_no_figure() {
    let mut planted = Planted::new("failed");
    pair(&mut planted, 40, 0, 2);
    // Ten times as slow, but it failed.
    let failed = Plan { failure: Some("nginx: no room".into()), ..Plan::of(Way::Ecmp, 40, 1) };
    planted.add(&failed, |packets, random| chance_ns(packets, random) * 10);
    planted.add(&Plan::of(Way::Split, 40, 1), chance_ns);
    planted.add(&Plan::of(Way::Split, 20, 0), chance_ns);
    std::fs::create_dir(planted.folder.join("runs/0009-interrupted")).unwrap();
    let analysis = analysed(&planted);
    let comparison = &analysis.comparisons[0];
    assert_eq!((analysis.comparisons.len(), comparison.pairs), (1, 1));
    assert!((comparison.size(SHORT).unwrap().mean.value - 2.0).abs() < 1e-9);
    let failures: Vec<&RunLine> =
        analysis.runs.iter().filter(|run| run.failure.is_some()).collect();
    assert_eq!(failures[0].failure.as_deref(), Some("nginx: no room"));
    assert_eq!((failures[0].setting.as_str(), failures[0].repeat), ("ECMP, background 40 %", 1));
    assert!(failures[1].failure.as_deref().unwrap().contains("run.json"), "{failures:?}");
    assert_eq!(failures.len(), 2);
    assert_eq!(analysis.unpaired.len(), 2, "{:?}", analysis.unpaired);
    assert!(analysis.unpaired.iter().any(|told| told.contains("0003-planted-split")));
    assert!(analysis.unpaired.iter().any(|told| told.contains("no run by ECMP")));
}

#[test]
fn distributions_tell_planted_figures_and_where_the_tail_lost_packets() {
    let mut planted = Planted::new("distributions");
    pair(&mut planted, 40, 0, 2);
    let analysis = analysed(&planted);
    let [ecmp, split] = analysis.distributions.as_slice() else { panic!() };
    let (ecmp_fct, split_fct) = (ecmp.fct.as_ref().unwrap(), split.fct.as_ref().unwrap());
    for (of_ecmp, of_split) in [
        (ecmp_fct.mean_ns, split_fct.mean_ns),
        (ecmp_fct.deviation_ns, split_fct.deviation_ns),
        (ecmp_fct.p99_ns.unwrap(), split_fct.p99_ns.unwrap()),
    ] {
        assert!((of_ecmp.value / of_split.value - 2.0).abs() < 1e-9);
    }
    // Jitter is a hundredth of the completion time.
    let jitter = split.jitter.as_ref().unwrap();
    assert!((jitter.mean_ns.value * 100.0 / split_fct.mean_ns.value - 1.0).abs() < 1e-3);
    assert_eq!(ecmp_fct.edges_ns, split_fct.edges_ns);
    let all: f64 = split_fct.density_percent.iter().map(|bin| bin.value).sum();
    assert!((all - 100.0).abs() < 1e-6);
    assert!(split_fct.density_percent.iter().all(|bin| bin.low <= bin.high));
    let tenth = split_fct.flows as f64 / 10.0;
    assert!((split.lossy as f64 - tenth).abs() < 0.3 * tenth, "{split:?}");
}

#[test]
fn moves_count_reordered_packets_of_long_flows() {
    let mut planted = Planted::new("moves");
    pair(&mut planted, 40, 0, 2);
    let analysis = analysed(&planted);
    let [ecmp, split] = analysis.moves.as_slice() else { panic!() };
    assert_eq!((ecmp.reordered_flows, ecmp.reordered_mean), (0, 0.0));
    assert_eq!((split.reordered_flows, split.reordered_mean), (split.long_flows, 2.0));
    assert_eq!((split.reordered_p50, split.reordered_most), (2, 2));
    assert_eq!(split.long_flows, ecmp.long_flows);
    let flows = [&split.beside, &split.apart].map(|short| short.as_ref().unwrap().flows);
    assert!(flows[0] > 0 && flows[0] < flows[1], "{flows:?}");
    let short = analysis.distributions[1].fct.as_ref().unwrap().flows;
    assert_eq!(flows[0] + flows[1], short);
}

#[test]
fn overhead_is_what_the_gateway_adds_to_the_kernel_in_pairs_of_runs() {
    let mut planted = Planted::new("overhead");
    for repeat in 0..2 {
        let late = i64::from(repeat) * 1_000;
        let ways = [
            (Way::Kernel, Attach::Native, 20_000),
            (Way::Split, Attach::Native, 44_000 + late),
            (Way::Split, Attach::Generic, 60_000),
        ];
        for (way, attach, gateway_ns) in ways {
            let mut plan = Plan { gateway_ns: Some(gateway_ns), ..Plan::of(way, 0, repeat) };
            plan.settings.attach = attach;
            planted.add(&plan, chance_ns);
        }
    }
    let analysis = analysed(&planted);
    let overhead = analysis.overhead.as_ref().unwrap();
    let added: Vec<Option<f64>> = overhead
        .rows
        .iter()
        .map(|row| row.outbound.added_p50_ns.map(|added| added.value))
        .collect();
    assert_eq!(added, [None, Some(24_500.0), Some(40_000.0)]);
    let native = overhead.rows[1].outbound.added_p50_ns.unwrap();
    assert_eq!((native.low, native.high), (24_000.0, 25_000.0));
    let goal = goal(&analysis, "own delay");
    assert_eq!((goal.standing, goal.is_certain), (Standing::Reached, false), "{goal:?}");
    assert!(goal.found.ends_with("of 2 pairs of runs"), "{goal:?}");
    // Without ECMP, gateways are compared with none: the same times here.
    assert!(analysis.comparisons.iter().all(|comparison| comparison.baseline_way == Way::Kernel));
    assert!((analysis.comparisons[0].size(SHORT).unwrap().mean.value - 1.0).abs() < 1e-9);
}

#[test]
fn a_drop_of_a_gateway_is_a_goal_missed() {
    let mut planted = Planted::new("dropped");
    // As the laboratory records it: a run whose gateway dropped a packet has failed.
    let failure = Some("gateway a dropped packets: 3 no_route".to_owned());
    let plan = Plan { gateway_dropped: 3, failure, ..Plan::of(Way::Split, 40, 0) };
    planted.add(&plan, chance_ns);
    planted.add(&Plan::of(Way::Split, 40, 1), chance_ns);
    let analysis = analysed(&planted);
    let goal = goal(&analysis, "lost by a gateway");
    assert_eq!(goal.standing, Standing::Missed);
    assert!(goal.found.starts_with("3 in 1 of 2 runs"), "{goal:?}");
    assert!(goal.found.contains("a: 3 no_route"), "{goal:?}");
}

#[test]
fn nothing_is_certain_below_five_pairs() {
    let mut planted = Planted::new("certain");
    for repeat in 0..5 {
        assert!(
            analysed(&planted)
                .goals
                .iter()
                .all(|goal| { !goal.found.contains("pair") || !goal.is_certain })
        );
        pair(&mut planted, 40, repeat, 4);
    }
    let goal = &analysed(&planted).goals[0];
    assert_eq!((goal.standing, goal.is_certain), (Standing::Reached, true), "{goal:?}");
}

/// Two long flows begin; what began soon after one is beside it, however long it or others took.
#[test]
fn a_short_flow_is_beside_a_move_by_when_it_began() {
    let mut planted = Planted::new("beside");
    pair(&mut planted, 40, 0, 2);
    let fast = analysed(&planted).moves[1].beside.as_ref().unwrap().flows;
    let mut planted = Planted::new("beside-slow");
    pair(&mut planted, 40, 0, 2);
    let mut slow = Plan::of(Way::Split, 40, 1);
    // The same requests.
    slow.settings.seed = 7;
    planted.add(&slow, |packets, random| chance_ns(packets, random) * 50);
    let both = analysed(&planted).moves[1].beside.as_ref().unwrap().flows;
    assert_eq!(both, 2 * fast);
}

#[test]
fn few_flows_have_no_far_percentiles() {
    let mut planted = Planted::new("few");
    planted.add(&Plan { requests: 150, ..Plan::of(Way::Split, 40, 0) }, chance_ns);
    let analysis = analysed(&planted);
    let fct = analysis.distributions[0].fct.as_ref().unwrap();
    assert!(fct.flows < 200 && fct.p99_ns.is_none() && fct.p999_ns.is_none(), "{fct:?}");
    assert!(analysis.moves[0].apart.as_ref().unwrap().p99_ns.is_none());
}

#[test]
fn kinds_tell_the_packets_that_were_seen() {
    let mut planted = Planted::new("kinds");
    pair(&mut planted, 40, 0, 2);
    let kinds = analysed(&planted).kinds;
    let packets: Vec<u32> = kinds.iter().map(|kind| kind.packets).collect();
    assert_eq!(packets, [5, 10, 20, 40, 100, 1_000, 8_000]);
    for kind in &kinds {
        assert_eq!(kind.seen, [u64::from(kind.packets); 3]);
        assert_eq!(kind.above_short, if kind.packets > 40 { kind.flows } else { 0 });
        assert_eq!((kind.mix.as_str(), kind.per_s), ("planted", None));
    }
    assert_eq!(kinds.iter().map(|kind| kind.flows).sum::<usize>(), 1100);
}

#[test]
fn both_witnesses_differ_by_what_was_planted_between_them() {
    let mut planted = Planted::new("witnesses");
    pair(&mut planted, 40, 0, 2);
    let analysis = analysed(&planted);
    let agreement = analysis.agreement.as_ref().unwrap();
    assert_eq!((agreement.requests, agreement.violations), (1100, 0));
    // 40 us on the LAN each way, 300 us for the SYN and its answer.
    assert_eq!(agreement.difference_ns.p50, Some(380_000));
    assert_eq!(
        (agreement.difference_ns.min, agreement.difference_ns.max),
        (Some(380_000), Some(380_000))
    );
    assert_eq!((agreement.before_ns.p50, agreement.after_ns.p99), (Some(40_000), Some(40_000)));
    assert_eq!(agreement.handshake_ns.p50, Some(80_000));
    assert_eq!(agreement.offset_ns, Some((-40_000, 40_000)));
    assert_eq!(agreement.late_ns.max, Some(1_000));
    assert_eq!((analysis.joined.without_flow, analysis.joined.without_request), (0, 0));
}
