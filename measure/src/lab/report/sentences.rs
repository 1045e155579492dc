//! What figures say, in plain sentences that follow from the figures' numbers.

use crate::bootstrap::Interval;
use crate::export::table::time;
use crate::lab::analysis::distribution::Distribution;
use crate::lab::analysis::moves::Moves;
use crate::lab::analysis::overhead::{Overhead, Row};
use crate::lab::analysis::speedup::{Comparison, SizeComparison};
use crate::lab::analysis::{Analysis, LONG, SHORT};
use crate::lab::records::{Attach, Way};

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
            "one pair of runs, so the intervals know nothing of what differs from run to run".into()
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

pub(super) fn by_threshold(comparisons: &[&Comparison]) -> String {
    let found = comparisons.iter().filter_map(|one| Some((one, one.size(SHORT)?)));
    let best = found.clone().max_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let worst = found.min_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let (Some((best, most)), Some((worst, least))) = (best, worst) else {
        return "No short flow was measured in both runs of a pair.".into();
    };
    format!(
        "Of all flows of 1 to 40 packets, the mean gains most with a threshold of {} packets, {}, and least with {}, {}.",
        best.cell.threshold_packets,
        times(&most.mean),
        worst.cell.threshold_packets,
        times(&least.mean)
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
        "At {percent} % background the completion time of a short flow is {} on average and {} at the 99.9th \
         percentile by ECMP, {} and {} by split",
        ms(&of_ecmp.mean_ns),
        ms(&of_ecmp.p999_ns),
        ms(&of_split.mean_ns),
        ms(&of_split.p999_ns)
    );
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

pub(super) fn long_flows(analysis: &Analysis, comparison: &Comparison) -> String {
    let percent = comparison.cell.background_percent;
    let mut text = match comparison.size(LONG).and_then(|size| size.throughput) {
        Some(throughput) => format!(
            "At {percent} % background, flows of more than 1000 packets have {} the throughput that they have by ECMP.",
            times(&throughput)
        ),
        None => format!(
            "At {percent} % background no flow of more than 1000 packets ended in both runs of a pair."
        ),
    };
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
    let ranked = found.iter().filter_map(|one| Some((one, one.size(SHORT)?)));
    let best = ranked.max_by(|a, b| a.1.mean.value.total_cmp(&b.1.mean.value));
    let Some((best, short)) = best else { return String::new() };
    let long = best.size(LONG).and_then(|size| size.throughput);
    let long = long.map_or(String::new(), |ratio| {
        format!(", with {} the throughput of flows of more than 1000 packets", times(&ratio))
    });
    format!(
        "Short flows finish soonest, on average, by {}: {}{long}.",
        best.cell.name,
        verdict(&short.mean)
    )
}

pub(super) fn overhead(overhead: &Overhead) -> String {
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
            "At the median the gateway adds to the kernel's own forwarding {}.",
            parts.join(", ")
        ),
    }
}
