//! Two runs against each other: is B faster than A, and can this data tell?
//!
//! For each size class, over the completion times of complete TCP flows that went forward:
//!
//! * **speed-up**: the mean (median, 99th percentile) of A by that of B; above 1, B is faster. Beside it an interval
//!   that holds the true value 95 times out of 100: percentile bootstrap (Efron, Tibshirani, "An Introduction to
//!   the Bootstrap", 1993, chapter 13), flows drawn with replacement, by a seeded generator.
//! * **Kolmogorov-Smirnov distance**: the greatest difference of the two distribution functions, and how probable
//!   one at least as great would be if both runs were of one distribution (asymptotic).
//!
//! A speed-up over all flows that lies outside of those of all classes comes from the runs' having different shares of
//! short and long flows: with equal shares it is a mean of theirs. Then the sentence says so.
//!
//! The verdict goes by the mean: faster or slower when the interval of its speed-up leaves out 1, otherwise no
//! difference that this data supports; with fewer than [`FLOWS_MIN`] flows on a side, none.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use crate::bootstrap::Interval;
use crate::bootstrap::{Figure, Sample, ratios};
use crate::classes::{MORE, SizeClasses};
use crate::flow::Direction;
use crate::flow_line::FlowLine;
use crate::stored::Run;

/// Of fewer flows no verdict is given.
pub const FLOWS_MIN: usize = 5;

/// The class of all flows together.
pub const ALL: &str = "all";

/// What the data say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B takes less time.
    Faster,
    /// B takes more time.
    Slower,
    /// The data do not support a difference.
    NoDifference,
    /// There are too few flows to say anything.
    TooFewFlows,
}

/// One size class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassComparison {
    /// Its name.
    pub class: String,
    /// Flows of A and of B.
    pub flows: [usize; 2],
    /// Mean completion time of A and of B, nanoseconds.
    pub mean_ns: Option<[f64; 2]>,
    /// Mean of A by mean of B.
    pub speedup_mean: Option<Interval>,
    /// Median of A by median of B.
    pub speedup_p50: Option<Interval>,
    /// 99th percentile of A by that of B.
    pub speedup_p99: Option<Interval>,
    /// Kolmogorov-Smirnov distance.
    pub ks_distance: Option<f64>,
    /// Probability of such a distance, or a greater one, without a difference.
    pub ks_p_value: Option<f64>,
    /// What the data say.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub sentence: String,
}

/// Two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Folder of A.
    pub a: String,
    /// Folder of B.
    pub b: String,
    /// Samples of the bootstrap.
    pub samples: usize,
    /// Its seed.
    pub seed: u64,
    /// From small to large flows, then all together.
    pub classes: Vec<ClassComparison>,
    /// What the reader must know.
    pub notes: Vec<String>,
}

/// Completion times by class, in nanoseconds, sorted.
pub fn completion_times(flows: &[FlowLine], classes: &SizeClasses) -> BTreeMap<String, Vec<u64>> {
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.is_measured(Direction::Forward)) {
        if let Some(fct_ns) = flow.fct_ns {
            times.entry(classes.name_of(flow.size_packets())).or_default().push(fct_ns);
            times.entry(ALL.into()).or_default().push(fct_ns);
        }
    }
    times.values_mut().for_each(|times| times.sort_unstable());
    times
}

impl Comparison {
    /// Compares. The size classes are those of A.
    pub fn of(a: &Run, b: &Run, samples: usize, seed: u64) -> Comparison {
        let names = &a.results.settings.classes;
        let classes = SizeClasses::from_names(names).unwrap_or_default();
        let [times_a, times_b] = [a, b].map(|run| completion_times(&run.flows, &classes));
        let mut notes = Vec::new();
        if a.results.settings.classes != b.results.settings.classes {
            notes
                .push("the runs were made with different size classes; those of A are used".into());
        }
        for (name, run) in [("A", a), ("B", b)] {
            for message in &run.results.messages {
                notes.push(format!("{name}: {}: {}", message.kind, message.text));
            }
        }
        let none = Vec::new();
        let mut all = classes.names();
        all.push(ALL.into());
        let compared = all.iter().enumerate().map(|(number, class)| {
            let [a, b] = [&times_a, &times_b].map(|times| times.get(class).unwrap_or(&none));
            // Each class has numbers of its own, so one more flow in another changes nothing here.
            compare_class(class, a, b, samples, seed.wrapping_add(number as u64))
        });
        let mut compared: Vec<ClassComparison> = compared.collect();
        doubt_the_sum(&mut compared);
        Comparison {
            a: a.folder.display().to_string(),
            b: b.folder.display().to_string(),
            samples,
            seed,
            classes: compared,
            notes,
        }
    }
}

/// Says of all flows together, the last class, when they tell of the mix of sizes and not of speed.
fn doubt_the_sum(classes: &mut [ClassComparison]) {
    let Some((all, parts)) = classes.split_last_mut() else { return };
    let Some(sum) = &all.speedup_mean else { return };
    let values = || parts.iter().filter_map(|part| Some(part.speedup_mean.as_ref()?.value));
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    // Sums of the same numbers in another order may differ in their last digits.
    if (least * (1.0 - 1e-9)..=most * (1.0 + 1e-9)).contains(&sum.value) {
        return;
    }
    all.sentence.push_str(&format!(
        " But no size of flows has that speed-up ({least:.3} to {most:.3}): the runs have different shares of short \
         and long flows, so go by the classes."
    ));
}

fn compare_class(name: &str, a: &[u64], b: &[u64], samples: usize, seed: u64) -> ClassComparison {
    let flows = [a.len(), b.len()];
    let mut comparison = ClassComparison {
        class: name.into(),
        flows,
        mean_ns: None,
        speedup_mean: None,
        speedup_p50: None,
        speedup_p99: None,
        ks_distance: None,
        ks_p_value: None,
        verdict: Verdict::TooFewFlows,
        sentence: String::new(),
    };
    let figures = [Figure::Mean, Figure::P50, Figure::P99];
    let (of_a, of_b) = (Sample::of([a.to_vec()]), Sample::of([b.to_vec()]));
    if let Some([mean, p50, p99]) = ratios(&of_a, &of_b, figures, samples, seed) {
        let distance = ks_distance(a, b);
        comparison.mean_ns =
            of_a.figure(Figure::Mean).zip(of_b.figure(Figure::Mean)).map(<[f64; 2]>::from);
        (comparison.speedup_mean, comparison.speedup_p50) = (Some(mean), Some(p50));
        comparison.speedup_p99 = Some(p99);
        comparison.ks_distance = Some(distance);
        comparison.ks_p_value = Some(ks_p_value(distance, a.len(), b.len()));
        if a.len().min(b.len()) >= FLOWS_MIN {
            comparison.verdict = match mean {
                Interval { low, .. } if low > 1.0 => Verdict::Faster,
                Interval { high, .. } if high < 1.0 => Verdict::Slower,
                _ => Verdict::NoDifference,
            };
        }
    }
    comparison.sentence = sentence(&comparison);
    comparison
}

fn sentence(comparison: &ClassComparison) -> String {
    let of = match comparison.class.as_str() {
        ALL => "Over all flows".to_owned(),
        MORE => "The largest flows".to_owned(),
        class => format!("Flows of {class} packets"),
    };
    let [a, b] = comparison.flows;
    let Some(mean) = &comparison.speedup_mean else {
        return format!("{of}: there are {a} in A and {b} in B, so there is nothing to compare.");
    };
    let interval = format!("{:.3} to {:.3}", mean.low, mean.high);
    match comparison.verdict {
        Verdict::Faster => {
            format!("{of}: B is faster, {:.3} times on average ({interval}).", mean.value)
        }
        Verdict::Slower => {
            format!(
                "{of}: B is slower, {:.3} times the speed of A on average ({interval}).",
                mean.value
            )
        }
        Verdict::NoDifference => {
            format!("{of}: no difference that this data supports (speed-up {interval}).")
        }
        Verdict::TooFewFlows => {
            format!("{of}: {a} in A and {b} in B are too few to tell.")
        }
    }
}

fn ks_distance(a: &[u64], b: &[u64]) -> f64 {
    let (mut in_a, mut in_b, mut most) = (0, 0, 0.0_f64);
    while in_a < a.len() && in_b < b.len() {
        let at = a[in_a].min(b[in_b]);
        in_a += a[in_a..].partition_point(|&ns| ns <= at);
        in_b += b[in_b..].partition_point(|&ns| ns <= at);
        let difference = in_a as f64 / a.len() as f64 - in_b as f64 / b.len() as f64;
        most = most.max(difference.abs());
    }
    most
}

/// Kolmogorov's distribution, with the correction of Stephens for few samples.
fn ks_p_value(distance: f64, a: usize, b: usize) -> f64 {
    let size = (a as f64 * b as f64 / (a + b) as f64).sqrt();
    let scaled = (size + 0.12 + 0.11 / size) * distance;
    if scaled < 0.2 {
        return 1.0;
    }
    let term = |number: i32| {
        let sign = if number % 2 == 0 { -1.0 } else { 1.0 };
        sign * (-2.0 * f64::from(number * number) * scaled * scaled).exp()
    };
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "A {}\nB {}\n", self.a, self.b)?;
        writeln!(
            out,
            "{:<12}{:>8}{:>8}  {:<26}{:<26}{:<26}{:>7}",
            "packets", "flows A", "flows B", "speed-up, mean", "p50", "p99", "KS"
        )?;
        let show = |interval: &Option<Interval>| match interval {
            Some(Interval { value, low, high }) => format!("{value:.3} ({low:.3} to {high:.3})"),
            None => "-".into(),
        };
        for class in &self.classes {
            let [a, b] = class.flows;
            let [mean, p50, p99] =
                [&class.speedup_mean, &class.speedup_p50, &class.speedup_p99].map(show);
            let distance = class.ks_distance.map_or("-".into(), |ks| format!("{ks:.3}"));
            writeln!(
                out,
                "{:<12}{a:>8}{b:>8}  {mean:<26}{p50:<26}{p99:<26}{distance:>7}",
                class.class
            )?;
        }
        writeln!(out)?;
        self.classes.iter().try_for_each(|class| writeln!(out, "{}", class.sentence))?;
        self.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Random;

    fn times(count: u64, base: u64, spread: u64) -> Vec<u64> {
        let mut times: Vec<u64> = (0..count).map(|n| base + n * 7919 % spread).collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn a_speed_up_that_only_the_mix_of_sizes_has_is_doubted() {
        let (short, long) =
            (vec![100, 101, 102, 103, 104, 105], vec![900, 901, 902, 903, 904, 905]);
        let together = |parts: &[&Vec<u64>]| -> Vec<u64> {
            let mut all: Vec<u64> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            all.sort_unstable();
            all
        };
        let compare = |[a_long, b_long]: [&Vec<u64>; 2]| {
            let mut classes = vec![
                compare_class("1-5", &short, &short, 100, 1),
                compare_class(MORE, a_long, b_long, 100, 1),
                compare_class(
                    ALL,
                    &together(&[&short, a_long]),
                    &together(&[&short, b_long]),
                    100,
                    1,
                ),
            ];
            doubt_the_sum(&mut classes);
            classes.pop().unwrap().sentence
        };
        let twice = together(&[&long, &long]);
        assert!(compare([&twice, &long]).contains("different shares"));
        assert!(!compare([&long, &long]).contains("different shares"));
    }

    #[test]
    fn half_the_time_is_twice_as_fast_and_the_other_way_round_slower() {
        let (a, b) = (times(300, 20_000, 4_000), times(300, 10_000, 2_000));
        let faster = compare_class("1-5", &a, &b, 500, 1);
        assert_eq!(faster.verdict, Verdict::Faster, "{faster:?}");
        let mean = faster.speedup_mean.unwrap();
        assert!(mean.low < mean.value && mean.value < mean.high && (mean.value - 2.0).abs() < 0.01);
        assert_eq!(faster.ks_distance, Some(1.0));
        assert!(faster.ks_p_value.unwrap() < 1e-9);
        assert_eq!(compare_class("1-5", &b, &a, 500, 1).verdict, Verdict::Slower);
    }

    #[test]
    fn equal_runs_have_no_difference_that_the_data_support() {
        let a = times(200, 10_000, 9_000);
        let same = compare_class("1-5", &a, &a, 500, 1);
        assert_eq!(same.verdict, Verdict::NoDifference);
        assert_eq!((same.ks_distance, same.ks_p_value), (Some(0.0), Some(1.0)));
        assert!(same.sentence.contains("no difference that this data supports"));
    }

    #[test]
    fn four_flows_are_too_few_and_none_are_nothing() {
        let (few, many) = (times(4, 1_000, 10), times(100, 90_000, 10));
        assert_eq!(compare_class("1-5", &few, &many, 100, 1).verdict, Verdict::TooFewFlows);
        let nothing = compare_class("1-5", &[], &many, 100, 1);
        assert_eq!((nothing.verdict, nothing.speedup_mean), (Verdict::TooFewFlows, None));
    }

    #[test]
    fn a_seed_gives_the_same_intervals_again() {
        let (a, b) = (times(50, 10_000, 5_000), times(60, 9_000, 5_000));
        let first = compare_class("1-5", &a, &b, 300, 7);
        assert_eq!(first, compare_class("1-5", &a, &b, 300, 7));
        assert_ne!(first.speedup_mean, compare_class("1-5", &a, &b, 300, 8).speedup_mean);
    }

    /// Of two normal samples with one variance the ratio of means is 1: about 95 of 100 intervals hold it.
    #[test]
    fn about_ninety_five_of_a_hundred_intervals_hold_the_truth() {
        let mut random = Random::new(3);
        let mut sample = || {
            let mut times: Vec<u64> = (0..60)
                .map(|_| 10_000 + (0..12).map(|_| random.below(1_000) as u64).sum::<u64>())
                .collect();
            times.sort_unstable();
            times
        };
        let hold = (0..200).filter(|&seed| {
            let (a, b) = (sample(), sample());
            let (a, b) = (Sample::of([a]), Sample::of([b]));
            let [mean] = ratios(&a, &b, [Figure::Mean], 400, seed).unwrap();
            mean.low <= 1.0 && 1.0 <= mean.high
        });
        let hold = hold.count();
        assert!((178..=199).contains(&hold), "{hold} of 200");
    }

    #[test]
    fn the_distance_of_shifted_halves_is_a_half() {
        let (a, b): (Vec<u64>, Vec<u64>) = ((0..100).collect(), (50..150).collect());
        assert_eq!(ks_distance(&a, &b), 0.5);
    }
}
