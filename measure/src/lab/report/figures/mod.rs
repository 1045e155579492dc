//! The figures, each from the analysis, each with a sentence of what it says.

mod distributions;
mod long_flows;
mod overhead;
mod speedups;

use super::chart::{Figure, Mark, Point, Scale, Series};
use crate::bootstrap::Interval;
use crate::lab::analysis::speedup::Comparison;
use crate::lab::analysis::{Analysis, LONG};
use crate::lab::records::{Attach, Way};

/// A figure, with its file's name and what it says.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    pub(super) file: &'static str,
    pub(super) heading: &'static str,
    pub(super) sentence: String,
    pub(super) figure: Figure,
}

/// Where series have their colours: ECMP, split, others.
const ECMP: usize = 1;
const SPLIT: usize = 0;

/// What bars are, by how many pairs of runs there are of what is drawn.
fn bars<'c>(comparisons: impl IntoIterator<Item = &'c Comparison>) -> String {
    match comparisons.into_iter().map(|one| one.pairs).min() {
        None | Some(0 | 1) => {
            "Bars: 95 % intervals of single pairs of runs, which know nothing of what differs from run to run.".into()
        }
        Some(pairs) => {
            format!("Bars: 95 % intervals, from {pairs} or more pairs of runs; cut off at the edge of the figure.")
        }
    }
}

/// All that there are runs for.
pub(super) fn all(analysis: &Analysis) -> Vec<Drawing> {
    let all = [
        speedups::by_size(analysis),
        speedups::by_threshold(analysis),
        speedups::by_load(analysis),
        distributions::densities(analysis),
        long_flows::long_flows(analysis),
        speedups::alternatives(analysis),
        overhead::overhead(analysis),
    ];
    all.into_iter().flatten().collect()
}

/// Comparisons of the main context by split in native XDP beside ECMP.
fn splits(analysis: &Analysis) -> Vec<&Comparison> {
    let is_main = |comparison: &&Comparison| {
        let cell = &comparison.cell;
        Some(cell.context) == analysis.main_context
            && cell.way == Way::Split
            && cell.attach == Attach::Native
            && comparison.baseline_way == Way::Ecmp
            && !comparison.sizes.is_empty()
    };
    analysis.comparisons.iter().filter(is_main).collect()
}

/// The threshold that most loads were run with; of several, that nearest to the paper's 40.
fn main_threshold(analysis: &Analysis) -> Option<u32> {
    let splits = splits(analysis);
    let loads =
        |packets: u32| splits.iter().filter(|one| one.cell.threshold_packets == packets).count();
    let packets = splits.iter().map(|one| one.cell.threshold_packets);
    packets.max_by_key(|&packets| (loads(packets), std::cmp::Reverse(packets.abs_diff(40))))
}

/// Split at the main threshold, by load.
fn by_loads(analysis: &Analysis) -> Vec<&Comparison> {
    let threshold = main_threshold(analysis);
    let splits = splits(analysis).into_iter();
    splits.filter(|one| Some(one.cell.threshold_packets) == threshold).collect()
}

/// The load at which most thresholds were run, if there are several.
fn by_thresholds(analysis: &Analysis) -> Vec<&Comparison> {
    let splits = splits(analysis);
    let of_load = |percent: u32| {
        splits
            .iter()
            .copied()
            .filter(|one| one.cell.background_percent == percent)
            .collect::<Vec<_>>()
    };
    let loads = splits.iter().map(|one| one.cell.background_percent);
    let most = loads.max_by_key(|&percent| (of_load(percent).len(), percent));
    most.map(of_load).filter(|found| found.len() > 1).unwrap_or_default()
}

/// How many times a point's value, or part of it, an axis makes room for its bar.
const BAR_TIMES_MAX: f64 = 4.0;

fn point(x: f64, interval: &Interval) -> Point {
    Point { x, y: interval.value, low: interval.low, high: interval.high }
}

/// From zero to above all that is drawn.
fn from_zero<'s>(series: impl Iterator<Item = &'s Series>, least: f64) -> Scale {
    let most = series.flat_map(|one| &one.points).map(|point| point.high).fold(least, f64::max);
    Scale::Linear(0.0, most * 1.08)
}

/// For times that may differ a lot: from below to above all that is drawn.
fn positive<'s>(series: impl Iterator<Item = &'s Series> + Clone) -> Scale {
    ratios(series, f64::MAX, f64::MIN_POSITIVE)
}

/// For ratios: twice and half are as far from 1. From below to above all that is drawn and marked.
fn ratios<'s>(series: impl Iterator<Item = &'s Series> + Clone, least: f64, most: f64) -> Scale {
    let points = series.flat_map(|one| &one.points).filter(|point| point.y > 0.0);
    // Intervals of few pairs may be so wide that nothing else could be seen beside them.
    let low = |point: &Point| point.low.max(point.y / BAR_TIMES_MAX);
    let least = points.clone().map(low).fold(least, f64::min);
    let most = points.map(|point| point.high.min(point.y * BAR_TIMES_MAX)).fold(most, f64::max);
    let room = (most / least).powf(0.06);
    Scale::Log(least / room, most * room)
}

fn no_difference() -> Mark {
    Mark { y: 1.0, x: None, name: String::new() }
}

/// Names of sizes on an axis.
fn axis_name(size: &str) -> String {
    match size {
        LONG => "> 1000".into(),
        size => size.replace('-', "–"),
    }
}
