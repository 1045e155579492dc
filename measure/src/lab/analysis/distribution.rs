//! Completion times and jitter of a cell's short flows by themselves: figures with intervals, and densities.
//!
//! A density is the share of flows in bins of equal width on a logarithmic axis. All cells of a context have the same
//! bins, so that their densities compare.

use serde::{Deserialize, Serialize};

use super::cells::{Cell, Cells};
use super::observed::{Observation, Observed};
use super::sizes::Size;
use super::speedup::{P99_FLOWS_MIN, values};
use super::{SAMPLES, SEED};
use crate::bootstrap::{Figure, Interval, Sample, interval};

/// Of fewer flows the 99.9th percentile is one of the two greatest, and says nothing of others.
pub const P999_FLOWS_MIN: usize = 2000;
/// Bars of a density.
const BINS: usize = 36;
/// Samples of the bootstrap of a density.
const DENSITY_SAMPLES: usize = 200;

/// Short flows of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The cell.
    pub cell: Cell,
    /// Completion time.
    pub fct: Option<Measure>,
    /// Jitter: a flow's mean size of IPDV.
    pub jitter: Option<Measure>,
    /// How many of the flows lost a packet, one way or the other.
    pub lossy: usize,
    /// The same of the slowest hundredth of the flows.
    pub slowest_lossy: usize,
    /// How many that hundredth is.
    pub slowest: usize,
}

/// One quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Flows.
    pub flows: usize,
    /// Mean.
    pub mean_ns: Interval,
    /// Standard deviation.
    pub deviation_ns: Interval,
    /// Median.
    pub p50_ns: Interval,
    /// 99th percentile; `None` with fewer than [`P99_FLOWS_MIN`] flows.
    pub p99_ns: Option<Interval>,
    /// 99.9th percentile; `None` with fewer than [`P999_FLOWS_MIN`] flows.
    pub p999_ns: Option<Interval>,
    /// Where the density's bins begin, and the last ends.
    pub edges_ns: Vec<f64>,
    /// Per cent of the flows in each of them.
    pub density_percent: Vec<Interval>,
}

/// Of all cells.
pub(super) fn all(cells: &Cells<'_>) -> Vec<Distribution> {
    let figures: [fn(&Observation) -> Option<u64>; 2] =
        [|one| one.fct_ns, |one| one.jitter_ns.filter(|_| one.fct_ns.is_some())];
    let samples: Vec<[Sample; 2]> =
        cells.all.iter().map(|(_, runs)| figures.map(|figure| sample(runs, figure))).collect();
    let edges = |context: usize, which: usize| {
        let of_context = cells.all.iter().zip(&samples);
        let of_context = of_context.filter(|((cell, _), _)| cell.context == context);
        edges(of_context.map(|(_, samples)| &samples[which]))
    };
    let all = cells.all.iter().zip(&samples);
    all.map(|((cell, runs), samples)| {
        let measures = [0, 1].map(|which| measure(&samples[which], edges(cell.context, which)));
        let [fct, jitter] = measures;
        let (lossy, slowest, slowest_lossy) = losses(runs);
        Distribution { cell: cell.clone(), fct, jitter, lossy, slowest, slowest_lossy }
    })
    .collect()
}

fn sample(runs: &[&Observed], figure: fn(&Observation) -> Option<u64>) -> Sample {
    let short = Size::short();
    Sample::of(runs.iter().map(|run| values(run, &short, figure)))
}

/// From the least to the 99.9th percentile of all samples.
fn edges<'s>(samples: impl Iterator<Item = &'s Sample> + Clone) -> Vec<f64> {
    let least = samples.clone().filter_map(|sample| sample.sorted().first().copied()).min();
    let most = samples.filter_map(|sample| sample.figure(Figure::P999)).fold(0.0, f64::max);
    let least = least.unwrap_or(1).max(1) as f64;
    let most = most.max(least * 2.0);
    let step = (most / least).ln() / BINS as f64;
    (0..=BINS).map(|edge| least * (step * edge as f64).exp()).collect()
}

fn measure(sample: &Sample, edges_ns: Vec<f64>) -> Option<Measure> {
    use Figure::{Deviation, Mean, P50, P99, P999};
    let figures = [Mean, Deviation, P50, P99, P999];
    let [mean_ns, deviation_ns, p50_ns, p99_ns, p999_ns] =
        sample.intervals(figures, SAMPLES, SEED)?;
    // What is beyond the last edge is in the last bin.
    let bin = |ns: u64| {
        edges_ns.partition_point(|&edge| edge <= ns as f64).saturating_sub(1).min(BINS - 1)
    };
    let bins: Vec<usize> = sample.sorted().iter().map(|&ns| bin(ns)).collect();
    let shares = |counts: &[u32]| {
        let mut shares = vec![0.0; BINS];
        let all: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        for (&bin, &count) in bins.iter().zip(counts) {
            shares[bin] += 100.0 * f64::from(count) / all;
        }
        shares
    };
    let mut drawn = vec![Vec::new(); BINS];
    sample.resample(DENSITY_SAMPLES, SEED, |counts| {
        for (bin, share) in drawn.iter_mut().zip(shares(counts)) {
            bin.push(share);
        }
    });
    let whole = shares(&vec![1; sample.len()]);
    let density_percent =
        whole.into_iter().zip(&mut drawn).map(|(share, drawn)| interval(share, drawn)).collect();
    let flows = sample.len();
    Some(Measure {
        flows,
        mean_ns,
        deviation_ns,
        p50_ns,
        p99_ns: (flows >= P99_FLOWS_MIN).then_some(p99_ns),
        p999_ns: (flows >= P999_FLOWS_MIN).then_some(p999_ns),
        edges_ns,
        density_percent,
    })
}

/// Flows that lost a packet, the slowest hundredth of all flows, and how many of it lost one.
fn losses(runs: &[&Observed]) -> (usize, usize, usize) {
    let short = Size::short();
    let all = runs.iter().flat_map(|run| &run.observations);
    let all = all.filter(|one| short.holds(one.packets));
    let mut flows: Vec<(u64, bool)> =
        all.filter_map(|one| Some((one.fct_ns?, one.lost > 0))).collect();
    flows.sort_unstable_by(|a, b| b.cmp(a));
    let count = |flows: &[(u64, bool)]| flows.iter().filter(|(_, lost)| *lost).count();
    let slowest = flows.len().div_ceil(100);
    (count(&flows), slowest, count(&flows[..slowest]))
}
