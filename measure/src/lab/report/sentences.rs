//! What figures say, in plain sentences that follow from the figures' numbers.

use crate::bootstrap::Interval;
use crate::export::table::time;
use crate::lab::analysis::distribution::Distribution;
use crate::lab::analysis::moves::Moves;
use crate::lab::analysis::overhead::{Overhead, Row};
use crate::lab::analysis::speedup::{Comparison, SizeComparison};
use crate::lab::analysis::{Analysis, CERTAIN_PAIRS_MIN, LONG, LONGER, SHORT, SHORT_PACKETS_MAX};
use crate::lab::records::{Attach, Bulk, Way};
use crate::lab::workload::Mix;

/// `1.82 times (1.70 to 1.95)`.
pub(super) fn times(interval: &Interval) -> String {
    let Interval { value, low, high } = interval;
    format!("{value:.2} times ({low:.2} to {high:.2})")
}

/// What a speed-up says: sooner, later, or nothing.
fn verdict(interval: &Interval) -> String {
    match interval {
        one if one.low > 1.0 => format!("{} as fast", times(one)),
        one if one.high < 1.0 => format!("slower, {} the speed", times(one)),
        one => format!("as fast, as far as these runs can tell: {}", times(one)),
    }
}

fn at_p99(size: &SizeComparison) -> String {
    size.p99.map_or(String::new(), |p99| format!(", and at the 99th percentile {}", verdict(&p99)))
}

fn pairs(comparison: &Comparison) -> String {
    match comparison.pairs {
        1 => {
            "one pair of runs, so the intervals know nothing of what differs from run to run, and take flows that met \
             the same full queue for independent"
                .into()
        }
        pairs if pairs < CERTAIN_PAIRS_MIN => {
            format!("{pairs} pairs of runs, which are few: nothing of it is certain")
        }
        pairs => format!("{pairs} pairs of runs"),
    }
}

pub(super) fn by_size(comparison: &Comparison) -> String {
    let Some(short) = comparison.size(SHORT) else {
        return "No short flow was measured in both runs of a pair.".into();
    };
    format!(
        "At {} % background, by split flows of 1 to 40 packets are on average {} as by ECMP{}; of {}.",
        comparison.cell.background_percent,
        verdict(&short.mean),
        at_p99(short),
        pairs(comparison)
    )
}

/// Whether an interval lies above all others: only then it is named the best.
fn is_apart(best: &Interval, others: impl IntoIterator<Item = Interval>) -> bool {
    others.into_iter().all(|other| best.low > other.high)
}

pub(super) fn by_threshold(comparisons: &[&Comparison]) -> String {
    let found = comparisons.iter().filter_map(|one| Some((one, one.size(SHORT)?.mean)));
    let mut found: Vec<(&&Comparison, Interval)> = found.collect();
    found.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let Some(((best, most), others)) = found.split_first() else {
        return "No short flow was measured in both runs of a pair.".into();
    };
    let threshold = |one: &Comparison| one.cell.threshold_packets;
    let Some((worst, least)) = others.last() else {
        return format!(
            "Flows of 1 to 40 packets, with a threshold of {} packets: {}.",
            threshold(best),
            verdict(most)
        );
    };
    if is_apart(most, others.iter().map(|(_, mean)| *mean)) {
        return format!(
            "Of all flows of 1 to 40 packets, the mean gains most with a threshold of {} packets, {}, and least with {}, {}.",
            threshold(best),
            times(most),
            threshold(worst),
            times(least)
        );
    }
    format!(
        "Of all flows of 1 to 40 packets, the mean gains {} with a threshold of {} packets and {} with {}; the intervals \
         overlap, so that these runs do not tell which threshold is best.",
        times(most),
        threshold(best),
        times(least),
        threshold(worst)
    )
}

pub(super) fn by_load(comparisons: &[&Comparison]) -> String {
    let ends = [comparisons.first(), comparisons.last()].map(|one| {
        let one = one?;
        Some((one.cell.background_percent, one.size(SHORT)?))
    });
    let [Some((low, at_low)), Some((high, at_high))] = ends else {
        return "No short flow was measured in both runs of a pair.".into();
    };
    format!(
        "At {low} % background flows of 1 to 40 packets are on average {}; at {high} % {}{}.",
        verdict(&at_low.mean),
        verdict(&at_high.mean),
        at_p99(at_high)
    )
}

pub(super) fn densities(pairs: &[(&Distribution, &Distribution)]) -> String {
    let Some((ecmp, split)) = pairs.last() else { return String::new() };
    let percent = ecmp.cell.background_percent;
    let (Some(of_ecmp), Some(of_split)) = (&ecmp.fct, &split.fct) else { return String::new() };
    let ms = |interval: &Interval| time(interval.value);
    let mut text = format!(
        "At {percent} % background the completion time of a short flow is {} on average by ECMP, {} by split",
        ms(&of_ecmp.mean_ns),
        ms(&of_split.mean_ns)
    );
    for (name, both) in [
        ("99th", of_ecmp.p99_ns.zip(of_split.p99_ns)),
        ("99.9th", of_ecmp.p999_ns.zip(of_split.p999_ns)),
    ] {
        if let Some((of_ecmp, of_split)) = both {
            text += &format!(", at the {name} percentile {} and {}", ms(&of_ecmp), ms(&of_split));
        }
    }
    if let (Some(of_ecmp), Some(of_split)) = (&ecmp.jitter, &split.jitter) {
        text += &format!(
            "; its jitter {} and {} on average",
            ms(&of_ecmp.mean_ns),
            ms(&of_split.mean_ns)
        );
    }
    let share = |one: &Distribution| 100.0 * one.slowest_lossy as f64 / one.slowest.max(1) as f64;
    format!(
        "{text}. Of the slowest hundredth of the flows, {:.0} % by ECMP and {:.0} % by split had lost a packet.",
        share(ecmp),
        share(split)
    )
}

/// Moves of the baseline and of the cell of a comparison.
pub(super) fn moves_of<'a>(
    analysis: &'a Analysis,
    comparison: &Comparison,
) -> Option<[&'a Moves; 2]> {
    let of = |way: Way| {
        analysis.moves.iter().find(|one| {
            let cell = &one.cell;
            cell.context == comparison.cell.context
                && cell.way == way
                && cell.background_percent == comparison.cell.background_percent
                && (way == Way::Ecmp || *cell == comparison.cell)
        })
    };
    Some([of(Way::Ecmp)?, of(comparison.cell.way)?])
}

/// What a mix asks of both paths, which decides whether long flows can break even.
fn balance(name: &str) -> Option<String> {
    let mix = Mix::named(name)?;
    let per_s = |is_short: bool, bulk: Bulk| {
        let mut part = mix.clone();
        part.kinds.retain(|kind| (kind.packets <= SHORT_PACKETS_MAX) == is_short);
        part.packets_per_s(bulk)
    };
    let [short, long] = [true, false].map(|is_short| per_s(is_short, Bulk::Download));
    if long == 0.0 {
        return None;
    }
    Some(format!(
        " The mix \"{name}\" decides this result: it asks for {long:.0} packets a second of downloads of more than \
         {SHORT_PACKETS_MAX} packets and {short:.0} of shorter ones, chosen so that long flows, which by split have one \
         path instead of two, lose about as much room as short ones leave them there. With a greater share of long \
         flows they would lose by split."
    ))
}

pub(super) fn long_flows(analysis: &Analysis, comparison: &Comparison) -> String {
    let percent = comparison.cell.background_percent;
    let of_sizes = LONGER.iter().map(|(size, name)| match comparison.size(size) {
        Some(found) => format!(
            "flows of {name} packets have {} the throughput that they have by ECMP, and by their mean completion time {} \
             the speed",
            found.throughput.map_or("-".into(), |throughput| times(&throughput)),
            times(&found.mean)
        ),
        None => format!("no flow of {name} packets ended in both runs of a pair"),
    });
    let of_sizes: Vec<String> = of_sizes.collect();
    let mut text = format!("At {percent} % background, {}.", of_sizes.join("; "));
    let mix = &analysis.contexts[comparison.cell.context].mix;
    if let Some(balance) = balance(mix) {
        text += &balance;
    }
    if let Some([ecmp, split]) = moves_of(analysis, comparison) {
        let share = |one: &Moves| 100.0 * one.reordered_flows as f64 / one.long_flows.max(1) as f64;
        text += &format!(
            " The move reorders packets of {:.0} % of the long flows ({:.0} % by ECMP, which moves none), {} at the \
             median of those and {} at most.",
            share(split),
            share(ecmp),
            split.reordered_p50,
            split.reordered_most
        );
    }
    text
}

pub(super) fn alternatives(found: &[&Comparison]) -> String {
    let ranked = found.iter().filter_map(|one| Some((one, one.size(SHORT)?.mean)));
    let mut ranked: Vec<(&&Comparison, Interval)> = ranked.collect();
    ranked.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let Some(((best, mean), others)) = ranked.split_first() else { return String::new() };
    // ECMP is one of the ways: what all are compared with.
    let ecmp = Interval { value: 1.0, low: 1.0, high: 1.0 };
    if ranked.iter().all(|(_, mean)| mean.high < 1.0) {
        return format!(
            "Short flows finish soonest, on average, by ECMP; the next is {}, {} the speed.",
            best.cell.name,
            times(mean)
        );
    }
    if is_apart(mean, others.iter().map(|(_, mean)| *mean).chain([ecmp])) {
        let long = best.size(LONG).and_then(|size| size.throughput);
        let long = long.map_or(String::new(), |ratio| {
            format!(", with {} the throughput of flows of more than 1000 packets", times(&ratio))
        });
        return format!(
            "Short flows finish soonest, on average, by {}: {} as fast as by ECMP{long}.",
            best.cell.name,
            times(mean)
        );
    }
    let each = ranked.iter().map(|(one, mean)| format!("{} {}", one.cell.name, times(mean)));
    format!(
        "These runs do not tell by which way, ECMP included, short flows finish soonest on average: intervals overlap \
         ({}).",
        each.collect::<Vec<_>>().join("; ")
    )
}

/// What the gateway's delay depends on: of folders that do not say it, that they do not.
pub(super) fn priorities(analysis: &Analysis) -> String {
    match analysis.lab.more.get("priorities").and_then(|value| value.as_str()) {
        Some(priorities) => format!("Priorities of processes: {priorities}."),
        None => {
            "With which priorities processes ran was not written down; the delay depends on them."
                .into()
        }
    }
}

pub(super) fn overhead(analysis: &Analysis, overhead: &Overhead) -> String {
    let added = |row: &Row| {
        let both = row.outbound.added_p50_ns.zip(row.inbound.added_p50_ns)?;
        Some(format!("{} out of the LAN and {} into it", time(both.0.value), time(both.1.value)))
    };
    let of = |attach: Attach| {
        let is = |row: &&Row| row.cell.way != Way::Kernel && row.cell.attach == attach;
        overhead.rows.iter().find(is).and_then(added)
    };
    let parts = [
        of(Attach::Native).map(|added| format!("in native XDP {added}")),
        of(Attach::Generic).map(|added| format!("in generic XDP {added}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "There is no run by the kernel alone to compare the gateway's delay with.".into(),
        false => format!(
            "At the median the gateway adds to the kernel's own forwarding {}. {}",
            parts.join(", "),
            priorities(analysis)
        ),
    }
}
