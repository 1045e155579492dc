//! What was to be shown, and whether it was.

use serde::{Deserialize, Serialize};

use super::CERTAIN_PAIRS_MIN;
use super::agreement::Agreement;
use super::cells::Cells;
use super::observed::RunLine;
use super::overhead::Overhead;
use super::sizes::{LONGER, SHORT};
use super::speedup::{Comparison, SizeComparison};
use crate::bootstrap::Interval;
use crate::export::table::time;
use crate::lab::records::{Attach, Way};

/// Whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// As far as it was hoped for.
    Reached,
    /// As far as it had to be.
    AtLeast,
    /// It was not.
    Missed,
    /// No run could have shown it.
    NotMeasured,
}

impl Standing {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Standing::Reached => "reached",
            Standing::AtLeast => "at least reached",
            Standing::Missed => "missed",
            Standing::NotMeasured => "not measured",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What was to be shown, with the bound.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether the bound holds, by the value.
    pub standing: Standing,
    /// Whether the whole interval is on the same side of the bound as the value, and is of [`CERTAIN_PAIRS_MIN`] pairs.
    pub is_certain: bool,
}

/// The load, in per cent, and the threshold at which most of it is to be shown.
const LOAD_PERCENT: u32 = 40;
const LIGHT_LOAD_PERCENT: u32 = 10;
const THRESHOLD_PACKETS: u32 = 40;

/// A bound from below: what must be, and what is hoped for.
struct Bound {
    least: f64,
    goal: f64,
}

pub(super) fn all(
    cells: &Cells<'_>,
    comparisons: &[Comparison],
    overhead: Option<&Overhead>,
    agreement: Option<&Agreement>,
    runs: &[RunLine],
) -> Vec<Goal> {
    let context = cells.main_context();
    let split = |background_percent: u32| {
        comparisons.iter().find(|comparison| {
            let cell = &comparison.cell;
            Some(cell.context) == context
                && cell.way == Way::Split
                && cell.attach == Attach::Native
                && cell.threshold_packets == THRESHOLD_PACKETS
                && cell.background_percent == background_percent
                && comparison.baseline_way == Way::Ecmp
        })
    };
    let of = |percent: u32, size: &str, figure: fn(&SizeComparison) -> Option<Interval>| {
        let comparison = split(percent)?;
        Some((comparison.size(size).and_then(figure)?, comparison.pairs))
    };
    let mut goals = vec![
        speedup(
            "mean completion time of flows of 1 to 40 packets at 40 % background: at least 1.5 times as fast, goal 2",
            of(LOAD_PERCENT, SHORT, |size| Some(size.mean)),
            &Bound { least: 1.5, goal: 2.0 },
        ),
        speedup(
            "its 99th percentile: at least 2 times, goal 3",
            of(LOAD_PERCENT, SHORT, |size| size.p99),
            &Bound { least: 2.0, goal: 3.0 },
        ),
        speedup(
            "mean at 10 % background: at least 1.1 times",
            of(LIGHT_LOAD_PERCENT, SHORT, |size| Some(size.mean)),
            &Bound { least: 1.1, goal: 1.1 },
        ),
    ];
    let bound = Bound { least: 0.95, goal: 0.95 };
    for (size, name) in LONGER {
        let what = |figure: &str| {
            format!(
                "{figure} of flows of {name} packets at 40 % background: at least 0.95 of ECMP's"
            )
        };
        let throughput = of(LOAD_PERCENT, size, |size| size.throughput);
        goals.push(speedup(&what("throughput"), throughput, &bound));
        let mean = of(LOAD_PERCENT, size, |size| Some(size.mean));
        goals.push(speedup(&what("speed, by the mean completion time,"), mean, &bound));
    }
    goals.extend([own_delay(overhead), gateway_loss(runs), witnesses(agreement)]);
    goals
}

/// Of how many pairs, too: an interval of one pair knows nothing of what differs from run to run, one of a few little.
fn speedup(what: &str, found: Option<(Interval, usize)>, bound: &Bound) -> Goal {
    let Some((Interval { value, low, high }, pairs)) = found else { return not_measured(what) };
    let standing = match value {
        value if value >= bound.goal => Standing::Reached,
        value if value >= bound.least => Standing::AtLeast,
        _ => Standing::Missed,
    };
    let is_certain = match standing {
        Standing::Reached => low >= bound.goal,
        Standing::AtLeast => low >= bound.least && high < bound.goal,
        _ => high < bound.least,
    };
    Goal {
        what: what.into(),
        found: match pairs {
            1 => format!("{value:.2} ({low:.2} to {high:.2}), of a single pair of runs"),
            pairs => format!("{value:.2} ({low:.2} to {high:.2}), of {pairs} pairs of runs"),
        },
        standing,
        is_certain: is_certain && pairs >= CERTAIN_PAIRS_MIN,
    }
}

fn not_measured(what: &str) -> Goal {
    Goal {
        what: what.into(),
        found: "no such runs".into(),
        standing: Standing::NotMeasured,
        is_certain: true,
    }
}

/// Most that the gateway's own delay may be above the kernel's, at the median.
const ADDED_NS_MAX: f64 = 30_000.0;

fn own_delay(overhead: Option<&Overhead>) -> Goal {
    let what =
        "the gateway's own delay, p50, native XDP: at most 30 µs above the kernel's forwarding";
    // One by one, if there are several, as of several rates: the worst of them is to be at most that.
    let rows = overhead.iter().flat_map(|overhead| &overhead.rows).filter(|row| {
        row.cell.way == Way::Split
            && row.cell.attach == Attach::Native
            && row.cell.threshold_packets == THRESHOLD_PACKETS
    });
    let found = rows
        .filter_map(|row| Some((row, row.outbound.added_p50_ns.zip(row.inbound.added_p50_ns)?)));
    let found: Vec<_> = found.collect();
    let worse = |(out, into): &(Interval, Interval)| out.value.max(into.value);
    let worst = found.iter().max_by(|a, b| worse(&a.1).total_cmp(&worse(&b.1)));
    let Some((row, both)) = worst else { return not_measured(what) };
    let (out, into) = both;
    let holds = worse(both) <= ADDED_NS_MAX;
    let ways = [out, into];
    let certain = match holds {
        true => ways.iter().all(|way| way.high <= ADDED_NS_MAX),
        false => ways.iter().any(|way| way.low > ADDED_NS_MAX),
    };
    let pairs = match (row.pairs, found.len()) {
        (1, 1) => "of a single pair of runs".to_owned(),
        (pairs, 1) => format!("of {pairs} pairs of runs"),
        (pairs, rows) => format!("of {pairs} pairs of runs, the worst of {rows} settings"),
    };
    let [out, into] = ways.map(|way| time(way.value));
    Goal {
        what: what.into(),
        found: format!("{out} from LAN to WAN, {into} from WAN to LAN, {pairs}"),
        standing: if holds { Standing::Reached } else { Standing::Missed },
        is_certain: certain && row.pairs >= CERTAIN_PAIRS_MIN,
    }
}

/// Of failed runs, too: that a gateway lost a packet is a reason why they failed.
fn gateway_loss(runs: &[RunLine]) -> Goal {
    let what = "no packet lost by a gateway";
    let known: Vec<&RunLine> = runs.iter().filter(|run| run.gateways > 0).collect();
    if known.is_empty() {
        return not_measured(what);
    }
    let lost: u64 = known.iter().map(|run| run.gateways_lost).sum();
    let losing: Vec<String> = known
        .iter()
        .filter(|run| run.gateways_lost > 0)
        .map(|run| format!("{}: {}", run.name, run.gateways_reasons))
        .collect();
    Goal {
        what: what.into(),
        found: match lost {
            0 => format!("none in {} runs with gateways", known.len()),
            _ => format!(
                "{lost} in {} of {} runs with gateways ({})",
                losing.len(),
                known.len(),
                losing.join("; ")
            ),
        },
        standing: if lost == 0 { Standing::Reached } else { Standing::Missed },
        is_certain: true,
    }
}

/// What is checked is the order of events, which bounds the clocks' offset; no more than that is called agreement.
fn witnesses(agreement: Option<&Agreement>) -> Goal {
    let what = "the taps never contradict the order of events by the load driver's own clock by more than the stated error";
    let Some(agreement) = agreement else { return not_measured(what) };
    let Agreement { requests, violations, error_ns, is_calibrated, offset_ns, .. } = agreement;
    let error = time(*error_ns as f64);
    let assumed = if *is_calibrated { "calibrated" } else { "assumed, not calibrated here" };
    let offset = offset_ns.map_or(String::new(), |(low_ns, high_ns)| {
        format!("; the clocks' offset is from {} to {}", time(low_ns as f64), time(high_ns as f64))
    });
    Goal {
        what: what.into(),
        found: format!(
            "{violations} of {requests} requests do by more than {error} ({assumed}){offset}"
        ),
        standing: if *violations == 0 { Standing::Reached } else { Standing::Missed },
        is_certain: true,
    }
}
