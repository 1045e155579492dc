//! Figures of samples, and how far chance moves them.
//!
//! A sample is made of groups, one for each run. Two things move a figure, and an interval is the wider of both at
//! either end:
//!
//! * **within groups**: percentile bootstrap of each group's values (Efron, Tibshirani, "An Introduction to the
//!   Bootstrap", 1993, chapter 13), by a seeded generator. It takes values as independent. Flows of a run are not:
//!   those that meet the same full queue are late together. So of a single group, of which there is nothing else, the
//!   interval is too narrow, if anything
//! * **from group to group**: Student's t of the logarithms of the groups' figures, or of the pairs' ratios, around
//!   the figure of all. Figures are times and rates, which chance multiplies. Drawing groups with replacement instead
//!   says of two groups no more than from one to the other, which holds the truth half of the time
//!
//! Percentiles are nearest rank.

use serde::{Deserialize, Serialize};

/// A value and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Of the data as they are.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What is computed of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// The mean.
    Mean,
    /// The standard deviation, of the values themselves.
    Deviation,
    /// The median.
    P50,
    /// 99 % are not greater.
    P99,
    /// 99.9 % are not greater.
    P999,
}

/// How many figures there are.
const FIGURES: usize = 5;

type Figures = [f64; FIGURES];

/// Of the percentiles.
const THOUSANDTHS: [usize; 3] = [500, 990, 999];

/// Values of all groups.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// All together.
    sorted: Vec<u64>,
    /// Where each group's values are in `sorted`.
    groups: Vec<Vec<u32>>,
}

impl Sample {
    /// Of groups; those without a value are no groups.
    ///
    /// # Panics
    ///
    /// With more than `u32::MAX` values.
    pub fn of(groups: impl IntoIterator<Item = Vec<u64>>) -> Sample {
        let groups = groups.into_iter().filter(|values| !values.is_empty()).enumerate();
        let mut all: Vec<(u64, usize)> = groups
            .flat_map(|(group, values)| values.into_iter().map(move |value| (value, group)))
            .collect();
        all.sort_unstable();
        assert!(u32::try_from(all.len()).is_ok(), "{} values are too many", all.len());
        let count = all.iter().map(|(_, group)| group + 1).max().unwrap_or(0);
        let mut groups = vec![Vec::new(); count];
        for (place, (_, group)) in all.iter().enumerate() {
            groups[*group].push(place as u32);
        }
        Sample { sorted: all.into_iter().map(|(value, _)| value).collect(), groups }
    }

    /// All values, from the least on.
    pub fn sorted(&self) -> &[u64] {
        &self.sorted
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// A figure of the values as they are; `None` without any.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        (!self.is_empty()).then(|| self.figures()[figure as usize])
    }

    /// Figures with their intervals; `None` without values.
    pub fn intervals<const N: usize>(
        &self,
        which: [Figure; N],
        samples: usize,
        seed: u64,
    ) -> Option<[Interval; N]> {
        if self.is_empty() {
            return None;
        }
        let (mut random, mut counts) = (Random::new(seed), vec![0; self.sorted.len()]);
        let mut drawn = vec![Vec::new(); N];
        let groups: Vec<usize> = (0..self.groups.len()).collect();
        for _ in 0..samples {
            self.draw(&groups, &mut counts, &mut random);
            let figures = self.figures_of(&counts);
            for (values, figure) in drawn.iter_mut().zip(which) {
                values.push(figures[figure as usize]);
            }
        }
        let (whole, each) = (self.figures(), self.figures_of_groups());
        Some(std::array::from_fn(|place| {
            let figure = which[place] as usize;
            let logs: Vec<f64> = each.iter().map(|figures| log(figures[figure])).collect();
            widened(interval(whole[figure], &mut drawn[place]), &logs)
        }))
    }

    /// Draws groups, and of these values, again and again; `take` gets how often each of the sorted values was drawn.
    pub fn resample(&self, samples: usize, seed: u64, mut take: impl FnMut(&[u32])) {
        let mut random = Random::new(seed);
        let mut counts = vec![0; self.sorted.len()];
        for _ in 0..samples {
            let drawn = draw_groups(self.groups.len(), &mut random);
            self.draw(&drawn, &mut counts, &mut random);
            take(&counts);
        }
    }

    /// How often each value is drawn, of these groups. Counts, so that nothing needs sorting.
    fn draw(&self, groups: &[usize], counts: &mut [u32], random: &mut Random) {
        counts.fill(0);
        for &group in groups {
            let places = &self.groups[group];
            for _ in 0..places.len() {
                counts[places[random.below(places.len())] as usize] += 1;
            }
        }
    }

    fn figures_of(&self, counts: &[u32]) -> Figures {
        let all: usize = counts.iter().map(|&count| count as usize).sum();
        let ranks = THOUSANDTHS.map(|thousandths| rank(all, thousandths));
        let (mut passed, mut sum, mut squares) = (0, 0.0, 0.0);
        let mut percentiles = [0.0; 3];
        for (&value, &count) in self.sorted.iter().zip(counts) {
            let (value, before) = (value as f64, passed);
            passed += count as usize;
            sum += value * f64::from(count);
            squares += value * value * f64::from(count);
            for (percentile, rank) in percentiles.iter_mut().zip(ranks) {
                if before < rank && rank <= passed {
                    *percentile = value;
                }
            }
        }
        let mean = sum / all as f64;
        let deviation = (squares / all as f64 - mean * mean).max(0.0).sqrt();
        let [p50, p99, p999] = percentiles;
        [mean, deviation, p50, p99, p999]
    }

    fn figures_of_groups(&self) -> Vec<Figures> {
        let mut counts = vec![0; self.sorted.len()];
        let of = |places: &Vec<u32>| {
            counts.fill(0);
            places.iter().for_each(|&place| counts[place as usize] = 1);
            self.figures_of(&counts)
        };
        self.groups.iter().map(of).collect()
    }

    fn figures(&self) -> Figures {
        let count = self.sorted.len();
        let sum: u128 = self.sorted.iter().map(|&value| u128::from(value)).sum();
        let mean = sum as f64 / count as f64;
        let squares: f64 = self.sorted.iter().map(|&value| (value as f64 - mean).powi(2)).sum();
        let [p50, p99, p999] =
            THOUSANDTHS.map(|thousandths| self.sorted[rank(count, thousandths) - 1] as f64);
        [mean, (squares / count as f64).sqrt(), p50, p99, p999]
    }
}

/// Ratios of the figures of `a` to those of `b`, with their intervals. Their groups are pairs, in order. `None` when
/// one has no values.
///
/// # Panics
///
/// When one has more groups than the other.
pub fn ratios<const N: usize>(
    a: &Sample,
    b: &Sample,
    which: [Figure; N],
    samples: usize,
    seed: u64,
) -> Option<[Interval; N]> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    assert_eq!(a.groups.len(), b.groups.len(), "groups are pairs");
    let groups: Vec<usize> = (0..a.groups.len()).collect();
    let mut random = Random::new(seed);
    let mut counts = [vec![0; a.len()], vec![0; b.len()]];
    let mut drawn = vec![Vec::new(); N];
    for _ in 0..samples {
        a.draw(&groups, &mut counts[0], &mut random);
        b.draw(&groups, &mut counts[1], &mut random);
        let (of_a, of_b) = (a.figures_of(&counts[0]), b.figures_of(&counts[1]));
        for (ratios, figure) in drawn.iter_mut().zip(which) {
            ratios.push(ratio(of_a[figure as usize], of_b[figure as usize]));
        }
    }
    let (of_a, of_b) = (a.figures(), b.figures());
    let each: Vec<(Figures, Figures)> =
        a.figures_of_groups().into_iter().zip(b.figures_of_groups()).collect();
    Some(std::array::from_fn(|place| {
        let figure = which[place] as usize;
        let logs: Vec<f64> = each.iter().map(|(a, b)| log(a[figure]) - log(b[figure])).collect();
        widened(interval(ratio(of_a[figure], of_b[figure]), &mut drawn[place]), &logs)
    }))
}

/// Nothing is told finer than a unit, so less has the same logarithm.
fn log(value: f64) -> f64 {
    value.max(1.0).ln()
}

/// Two-sided 95 % points of Student's t, by degrees of freedom from 1 on.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// At least as wide as what differs from group to group makes it; a single group says nothing of that.
fn widened(within: Interval, logs: &[f64]) -> Interval {
    // More degrees of freedom than are listed make it too wide, by 4 % at most.
    let Some(t) = logs.len().checked_sub(2).map(|place| T_95[place.min(T_95.len() - 1)]) else {
        return within;
    };
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let times = (t * (squares / (count - 1.0) / count).sqrt()).exp();
    let Interval { value, low, high } = within;
    Interval { value, low: low.min(value / times), high: high.max(value * times) }
}

/// Which groups are drawn; a single one is.
fn draw_groups(groups: usize, random: &mut Random) -> Vec<usize> {
    match groups {
        1 => vec![0],
        _ => (0..groups).map(|_| random.below(groups)).collect(),
    }
}

/// The place of a percentile among sorted values, counted from 1.
fn rank(count: usize, thousandths: usize) -> usize {
    (count * thousandths).div_ceil(1000).max(1)
}

/// Two times of nothing are as fast as each other.
fn ratio(a: f64, b: f64) -> f64 {
    if a == b { 1.0 } else { a / b }
}

/// The middle 95 % of what was drawn.
pub fn interval(value: f64, drawn: &mut [f64]) -> Interval {
    drawn.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (drawn.len() as f64 * share) as usize;
        drawn.get(place.min(drawn.len().saturating_sub(1))).copied().unwrap_or(value)
    };
    Interval { value, low: at(0.025), high: at(0.975) }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number below the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Figure; 5] =
        [Figure::Mean, Figure::Deviation, Figure::P50, Figure::P99, Figure::P999];

    /// About normal, around a middle.
    fn values(random: &mut Random, count: usize, middle: u64) -> Vec<u64> {
        let value = |random: &mut Random| (0..12).map(|_| random.below(2_000) as u64).sum::<u64>();
        (0..count).map(|_| middle + value(random)).collect()
    }

    #[test]
    fn figures_of_planted_values_are_exact() {
        let sample = Sample::of([(1..=600).rev().collect(), (601..=1000).collect::<Vec<u64>>()]);
        let found = ALL.map(|figure| sample.figure(figure).unwrap());
        assert_eq!(
            found.map(|figure| (figure * 1e6).round() / 1e6),
            [500.5, 288.674_990, 500.0, 990.0, 999.0]
        );
        // Each value counted once is the sample itself.
        let counted = sample.figures_of(&vec![1; 1000]);
        assert!((counted[1] - found[1]).abs() < 1e-6);
        assert_eq!([counted[0], counted[2], counted[3], counted[4]], [500.5, 500.0, 990.0, 999.0]);
    }

    #[test]
    fn nothing_has_no_figures() {
        let (none, some) = (Sample::of([vec![]]), Sample::of([vec![1, 2]]));
        assert!(none.is_empty() && none.figure(Figure::Mean).is_none());
        assert!(none.intervals([Figure::P99], 10, 1).is_none());
        assert!(ratios(&none, &some, [Figure::Mean], 10, 1).is_none());
    }

    /// Of so many trials with so many pairs, how many intervals hold the true ratio of means, 2; and how many of those
    /// that take all flows as one group.
    fn hold(trials: u64, pairs: usize) -> [usize; 2] {
        let (mut random, mut hold) = (Random::new(5), [0; 2]);
        for seed in 0..trials {
            // A pair has its own middle, the same for both, and each of its runs something more.
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..pairs {
                let middle = 50_000 + random.below(50_000) as u64;
                let own = |random: &mut Random| random.below(20_000) as u64;
                let extra = [own(&mut random), own(&mut random)];
                let of_a = values(&mut random, 30, middle + extra[0]);
                a.push(of_a.into_iter().map(|value| value * 2).collect::<Vec<u64>>());
                b.push(values(&mut random, 30, middle + extra[1]));
            }
            let together = |groups: &[Vec<u64>]| Sample::of([groups.concat()]);
            let flat = ratios(&together(&a), &together(&b), [Figure::Mean], 300, seed).unwrap();
            let grouped =
                ratios(&Sample::of(a), &Sample::of(b), [Figure::Mean], 300, seed).unwrap();
            for (count, [interval]) in hold.iter_mut().zip([grouped, flat]) {
                *count += usize::from(interval.low <= 2.0 && 2.0 <= interval.high);
            }
        }
        hold
    }

    /// Runs that differ by more than what is in them: intervals that know only flows are far too narrow.
    #[test]
    fn intervals_hold_the_truth_when_runs_differ_however_few_they_are() {
        for pairs in [2, 3, 10] {
            let [grouped, flat] = hold(200, pairs);
            assert!(grouped >= 182 && flat < 150, "{pairs} pairs: {grouped}, {flat} of 200");
        }
    }

    /// By hand: t of 2 degrees is 4.302653, which times the standard error of the logarithms of 1.5, 2 and 2.5 is a factor of 1.8892.
    #[test]
    fn an_interval_of_three_pairs_is_that_of_students_t() {
        let group = |value: u64| vec![value; 4];
        let a = Sample::of([group(1_500), group(2_000), group(2_500)]);
        let b = Sample::of([group(1_000), group(1_000), group(1_000)]);
        let [mean] = ratios(&a, &b, [Figure::Mean], 50, 1).unwrap();
        assert_eq!(mean.value, 2.0);
        let factors = [mean.high / 2.0, 2.0 / mean.low];
        assert!(factors.iter().all(|factor| (factor - 1.8892).abs() < 1e-3), "{factors:?}");
    }

    #[test]
    fn a_seed_gives_the_same_intervals_again() {
        let mut random = Random::new(9);
        // Of one group, so that nothing but what was drawn decides.
        let sample = Sample::of([values(&mut random, 110, 10)]);
        let first = sample.intervals(ALL, 200, 7);
        assert_eq!(first, sample.intervals(ALL, 200, 7));
        assert_ne!(first, sample.intervals(ALL, 200, 8));
    }

    /// 100 000 draws by Python's `random.choices` gave 34.6 to 66.7, three seeds alike.
    #[test]
    fn the_interval_of_a_mean_is_what_others_find() {
        let sample = Sample::of([vec![10, 12, 20, 25, 40, 51, 52, 60, 71, 80, 90, 95]]);
        let [mean] = sample.intervals([Figure::Mean], 20_000, 1).unwrap();
        assert_eq!(mean.value, 50.5);
        assert!((mean.low - 34.6).abs() < 0.4 && (mean.high - 66.7).abs() < 0.4, "{mean:?}");
    }
}
