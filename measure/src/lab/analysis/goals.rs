//! What was to be shown, and whether it was.

use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::cells::Cells;
use super::observed::RunLine;
use super::overhead::Overhead;
use super::sizes::{LONG, SHORT};
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
    /// Whether the whole interval is on the same side of the bound as the value, and is of more than one pair.
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
    vec![
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
        speedup(
            "throughput of flows of more than 1000 packets at 40 % background: at least 0.95 of ECMP's",
            of(LOAD_PERCENT, LONG, |size| size.throughput),
            &Bound { least: 0.95, goal: 0.95 },
        ),
        own_delay(overhead),
        gateway_loss(runs),
        witnesses(agreement),
    ]
}

/// Of how many pairs, too: an interval of one pair knows nothing of what differs from run to run.
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
        is_certain: is_certain && pairs > 1,
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
    let native = overhead.and_then(|overhead| {
        let of_split = |row: &&super::overhead::Row| {
            row.cell.way == Way::Split && row.cell.attach == Attach::Native
        };
        overhead.rows.iter().find(of_split)
    });
    let both = native.and_then(|row| row.outbound.added_p50_ns.zip(row.inbound.added_p50_ns));
    let Some((out, into)) = both else { return not_measured(what) };
    let worse = if out.value > into.value { out } else { into };
    let holds = worse.value <= ADDED_NS_MAX;
    let certain =
        [out, into].iter().all(|way| way.high <= ADDED_NS_MAX) || worse.low > ADDED_NS_MAX;
    let [out, into] = [out, into].map(|way| time(way.value));
    Goal {
        what: what.into(),
        found: format!("{out} from LAN to WAN, {into} from WAN to LAN"),
        standing: if holds { Standing::Reached } else { Standing::Missed },
        is_certain: certain,
    }
}

fn gateway_loss(runs: &[RunLine]) -> Goal {
    let what = "no packet lost by a gateway";
    let used: Vec<&RunLine> = runs.iter().filter(|run| run.failure.is_none()).collect();
    if used.is_empty() {
        return not_measured(what);
    }
    let dropped: u64 = used.iter().map(|run| run.gateways_dropped).sum();
    let reasons = used.iter().map(|run| run.gateways_reasons.as_str());
    let reasons: Vec<&str> = reasons.filter(|reasons| !reasons.is_empty()).collect();
    Goal {
        what: what.into(),
        found: match dropped {
            0 => format!("none in {} runs", used.len()),
            _ => format!("{dropped} in {} runs ({})", used.len(), reasons.join("; ")),
        },
        standing: if dropped == 0 { Standing::Reached } else { Standing::Missed },
        is_certain: true,
    }
}

fn witnesses(agreement: Option<&Agreement>) -> Goal {
    let what = "the taps agree with the load driver's own clock within the stated error";
    let Some(agreement) = agreement else { return not_measured(what) };
    let Agreement { requests, violations, error_ns, handshake_ns, .. } = agreement;
    let at = |ns: Option<i64>| ns.map_or("-".into(), |ns| time(ns as f64));
    Goal {
        what: what.into(),
        found: format!(
            "{violations} of {requests} requests out of order by more than {}; handshakes differ by {} (p99 {})",
            time(*error_ns as f64),
            at(handshake_ns.p50),
            at(handshake_ns.p99)
        ),
        standing: if *violations == 0 { Standing::Reached } else { Standing::Missed },
        is_certain: true,
    }
}
