//! Long flows: how many of their packets a move between lanes reorders, and what short flows notice of it.
//!
//! A flow is **moved** when it has more packets than the threshold; by other ways than splitting, a flow of that size
//! stays where it is and is what to compare with. A packet is **reordered** when it arrives behind one that was sent
//! after it (RFC 4737). A short flow is **beside a move** when it began in the [`MOVE_NS`] after the first packet of
//! a long flow of the same direction: the threshold is passed in that time, unless the path is very slow. When it
//! ended does not matter: among flows that are under way in some time, slow ones are more than their share.

use serde::{Deserialize, Serialize};

use super::cells::{Cell, Cells};
use super::observed::Observed;
use super::sizes::{SHORT_PACKETS_MAX, Size};
use super::speedup::{P99_FLOWS_MIN, values};
use super::{SAMPLES, SEED};
use crate::bootstrap::{Figure, Interval, Sample};
use crate::lab::records::{Bulk, Way};

/// How long a short flow is beside a move.
pub const MOVE_NS: u64 = 100_000_000;

/// Of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moves {
    /// The cell.
    pub cell: Cell,
    /// Flows of more packets than the threshold, and than 40.
    pub long_flows: usize,
    /// Those of them with a reordered packet.
    pub reordered_flows: usize,
    /// Reordered packets of a long flow: the mean.
    pub reordered_mean: f64,
    /// The median of those that have any.
    pub reordered_p50: u64,
    /// The most.
    pub reordered_most: u64,
    /// Short flows with a reordered packet.
    pub reordered_short_flows: usize,
    /// Short flows beside a move: completion time.
    pub beside: Option<Short>,
    /// All other short flows.
    pub apart: Option<Short>,
}

/// Short flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Short {
    /// How many.
    pub flows: usize,
    /// Their mean completion time.
    pub mean_ns: Interval,
    /// Its 99th percentile; `None` with fewer than [`P99_FLOWS_MIN`] flows.
    pub p99_ns: Option<Interval>,
}

/// Of all cells that have long flows.
pub(super) fn all(cells: &Cells<'_>) -> Vec<Moves> {
    cells.all.iter().filter_map(|(cell, runs)| of(cell, runs)).collect()
}

fn of(cell: &Cell, runs: &[&Observed]) -> Option<Moves> {
    let threshold = match cell.way {
        Way::Split | Way::Paper => cell.threshold_packets.max(SHORT_PACKETS_MAX),
        _ => SHORT_PACKETS_MAX,
    };
    let all = || runs.iter().flat_map(|run| &run.observations);
    let whole = || all().filter(|one| one.fct_ns.is_some());
    let long: Vec<u64> =
        whole().filter(|one| one.packets > threshold).map(|one| one.reordered).collect();
    if long.is_empty() {
        return None;
    }
    let mut some: Vec<u64> = long.iter().copied().filter(|&count| count > 0).collect();
    some.sort_unstable();
    let short = Size::short();
    let reordered_short =
        whole().filter(|one| short.holds(one.packets) && one.reordered > 0).count();
    let beside: Vec<Vec<bool>> = runs.iter().map(|run| beside_moves(run, threshold)).collect();
    let sample = |wanted: bool| {
        let groups = runs.iter().zip(&beside).map(|(run, beside)| {
            let mut beside = beside.iter();
            // Every flow of the run has its flag, in order.
            values(run, &Size::short(), |one| {
                let is_beside = beside.next().copied().unwrap_or(false);
                one.fct_ns.filter(|_| is_beside == wanted)
            })
        });
        Sample::of(groups.collect::<Vec<_>>())
    };
    Some(Moves {
        cell: cell.clone(),
        long_flows: long.len(),
        reordered_flows: some.len(),
        reordered_mean: long.iter().sum::<u64>() as f64 / long.len() as f64,
        reordered_p50: some.get(some.len().saturating_sub(1) / 2).copied().unwrap_or(0),
        reordered_most: some.last().copied().unwrap_or(0),
        reordered_short_flows: reordered_short,
        beside: figures(&sample(true)),
        apart: figures(&sample(false)),
    })
}

fn figures(sample: &Sample) -> Option<Short> {
    let [mean_ns, p99_ns] = sample.intervals([Figure::Mean, Figure::P99], SAMPLES, SEED)?;
    let flows = sample.len();
    Some(Short { flows, mean_ns, p99_ns: (flows >= P99_FLOWS_MIN).then_some(p99_ns) })
}

/// Of each short flow of a run, whether it was beside a move.
fn beside_moves(run: &Observed, threshold: u32) -> Vec<bool> {
    let begins = |bulk: Bulk| {
        let long = run.observations.iter().filter(|one| one.packets > threshold);
        let mut begins_ns: Vec<u64> =
            long.filter(|one| one.bulk == bulk).filter_map(|one| one.first_ns).collect();
        begins_ns.sort_unstable();
        begins_ns
    };
    let (down_ns, up_ns) = (begins(Bulk::Download), begins(Bulk::Upload));
    let short = Size::short();
    let flows = run.observations.iter().filter(|one| short.holds(one.packets));
    flows
        .map(|one| {
            let begins_ns = match one.bulk {
                Bulk::Download => &down_ns,
                Bulk::Upload => &up_ns,
            };
            one.first_ns.is_some_and(|first_ns| {
                // The last long flow that had begun.
                let begun = begins_ns.partition_point(|&ns| ns <= first_ns);
                let last = begun.checked_sub(1).map(|place| begins_ns[place]);
                last.is_some_and(|ns| first_ns - ns <= MOVE_NS)
            })
        })
        .collect()
}
