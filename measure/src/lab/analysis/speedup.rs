//! A cell against its baseline: how much sooner its flows finish.
//!
//! **Speed-up** is the baseline's figure by the cell's: above 1 the cell is faster. Of mean, median and 99th percentile
//! of the completion time, over the flows of all pairs together; intervals by bootstrap of pairs and of flows within
//! them ([`crate::bootstrap`]). The mean is told by the load driver's clock, too, a second witness.
//!
//! **Throughput** of a flow is the bytes of its body by its completion time; its ratio is the cell's mean by the
//! baseline's: below 1 the cell's flows are slower.

use serde::{Deserialize, Serialize};

use super::cells::{Cell, Cells, pairs};
use super::observed::{Observation, Observed};
use super::sizes::Size;
use super::{SAMPLES, SEED};
use crate::bootstrap::{Figure, Interval, Sample, ratios};
use crate::lab::records::Way;

/// Of fewer flows the 99th percentile is the greatest, and says nothing of others.
pub const P99_FLOWS_MIN: usize = 200;

/// A cell against its baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The cell.
    pub cell: Cell,
    /// What it is compared with, in words.
    pub baseline: String,
    /// The way of that.
    pub baseline_way: Way,
    /// How many pairs of runs.
    pub pairs: usize,
    /// By size: short flows as a whole, then finer; sizes without flows are left out.
    pub sizes: Vec<SizeComparison>,
}

/// Flows of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SizeComparison {
    /// Packets of the bulk.
    pub size: String,
    /// Flows of baseline and cell.
    pub flows: [usize; 2],
    /// Requests of that size that failed, of baseline and cell: they are in no figure.
    pub failed: [usize; 2],
    /// Mean completion time of baseline and cell.
    pub mean_ns: [f64; 2],
    /// Its 99th percentile, even of few flows.
    pub p99_ns: [f64; 2],
    /// Speed-up of the mean.
    pub mean: Interval,
    /// Speed-up of the median.
    pub p50: Interval,
    /// Speed-up of the 99th percentile; `None` with fewer than [`P99_FLOWS_MIN`] flows on a side.
    pub p99: Option<Interval>,
    /// Speed-up of the mean time by the driver's clock.
    pub driver_mean: Option<Interval>,
    /// Of flows that are not short: mean throughput of the cell by that of the baseline.
    pub throughput: Option<Interval>,
}

impl Comparison {
    /// Flows of a size.
    pub fn size(&self, name: &str) -> Option<&SizeComparison> {
        self.sizes.iter().find(|size| size.size == name)
    }
}

/// All cells that have a baseline; and of which runs the other half is missing, in words.
pub(super) fn all(cells: &Cells<'_>) -> (Vec<Comparison>, Vec<String>) {
    let mut unpaired = Vec::new();
    let mut comparisons = Vec::new();
    for (cell, runs) in &cells.all {
        let Some((baseline, baseline_runs)) = cells.baseline(cell) else {
            if !matches!(cell.way, Way::Ecmp | Way::Kernel) {
                unpaired.push(format!(
                    "{}, background {} %: no run by ECMP to compare with",
                    cell.name, cell.background_percent
                ));
            }
            continue;
        };
        let (pairs, alone) = pairs(baseline_runs, runs);
        if !alone.is_empty() {
            unpaired.push(format!(
                "{} beside {}, background {} %: without the other half of their pair: {}",
                cell.name,
                baseline.name,
                cell.background_percent,
                alone.join(", ")
            ));
        }
        let sizes = Size::all().into_iter().filter_map(|size| compare(&pairs, &size)).collect();
        comparisons.push(Comparison {
            cell: cell.clone(),
            baseline: baseline.name.clone(),
            baseline_way: baseline.way,
            pairs: pairs.len(),
            sizes,
        });
    }
    (comparisons, unpaired)
}

fn compare(pairs: &[(&Observed, &Observed)], size: &Size) -> Option<SizeComparison> {
    let samples = |figure: fn(&Observation) -> Option<u64>| samples(pairs, size, figure);
    let [a, b] = samples(|one| one.fct_ns)?;
    let [mean, p50, p99] = ratios(&a, &b, [Figure::Mean, Figure::P50, Figure::P99], SAMPLES, SEED)?;
    let driver_mean = samples(|one| one.driver_ns.filter(|_| one.fct_ns.is_some()))
        .and_then(|[a, b]| ratios(&a, &b, [Figure::Mean], SAMPLES, SEED))
        .map(|[mean]| mean);
    let throughput = match size.is_long() {
        false => None,
        true => samples(bits_per_s)
            .and_then(|[a, b]| ratios(&b, &a, [Figure::Mean], SAMPLES, SEED))
            .map(|[mean]| mean),
    };
    let both = |figure| {
        a.figure(figure).zip(b.figure(figure)).map_or([0.0; 2], |(of_a, of_b)| [of_a, of_b])
    };
    let failed = |run: &Observed| {
        let of_size = run.observations.iter().filter(|one| size.holds(one.packets));
        of_size.filter(|one| one.has_failed()).count()
    };
    Some(SizeComparison {
        size: size.name.clone(),
        flows: [a.len(), b.len()],
        failed: [
            pairs.iter().map(|(a, _)| failed(a)).sum(),
            pairs.iter().map(|(_, b)| failed(b)).sum(),
        ],
        mean_ns: both(Figure::Mean),
        p99_ns: both(Figure::P99),
        mean,
        p50,
        p99: (a.len().min(b.len()) >= P99_FLOWS_MIN).then_some(p99),
        driver_mean,
        throughput,
    })
}

/// A figure of the flows of both halves of pairs. Pairs of which one half has none are left out.
fn samples(
    pairs: &[(&Observed, &Observed)],
    size: &Size,
    figure: fn(&Observation) -> Option<u64>,
) -> Option<[Sample; 2]> {
    let values = |run: &Observed| values(run, size, figure);
    let found = pairs.iter().map(|(a, b)| (values(a), values(b)));
    let found = found.filter(|(a, b)| !a.is_empty() && !b.is_empty());
    let (a, b): (Vec<_>, Vec<_>) = found.unzip();
    (!a.is_empty()).then(|| [Sample::of(a), Sample::of(b)])
}

/// A figure of the flows of a run.
pub(super) fn values(
    run: &Observed,
    size: &Size,
    figure: impl FnMut(&Observation) -> Option<u64>,
) -> Vec<u64> {
    run.observations.iter().filter(|one| size.holds(one.packets)).filter_map(figure).collect()
}

fn bits_per_s(one: &Observation) -> Option<u64> {
    let fct_ns = one.fct_ns.filter(|&ns| ns > 0)?;
    u64::try_from(u128::from(one.bytes) * 8_000_000_000 / u128::from(fct_ns)).ok()
}
