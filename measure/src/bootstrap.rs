//! Figures of samples, and how far chance moves them: percentile bootstrap (Efron, Tibshirani, "An Introduction to the
//! Bootstrap", 1993, chapter 13), by a seeded generator.
//!
//! A sample is made of groups, one for each run. With several groups the bootstrap draws groups with replacement, and
//! of each drawn group its values with replacement (Davison, Hinkley, "Bootstrap Methods and their Application", 1997,
//! section 3.8): what differs from run to run is in the interval then. With a single group it knows only what differs
//! within. Few groups make intervals too narrow, if anything.
//!
//! Percentiles are nearest rank.

use serde::{Deserialize, Serialize};

/// A value and the interval in which it is with 95 %.
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
        let mut drawn = vec![Vec::new(); N];
        self.resample(samples, seed, |counts| {
            let figures = self.figures_of(counts);
            for (values, figure) in drawn.iter_mut().zip(which) {
                values.push(figures[figure as usize]);
            }
        });
        let whole = self.figures();
        Some(std::array::from_fn(|place| interval(whole[which[place] as usize], &mut drawn[place])))
    }

    /// Draws again and again; `take` gets how often each of the sorted values was drawn.
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

/// Ratios of the figures of `a` to those of `b`, with their intervals. When both have as many groups, the groups are
/// pairs and are drawn as pairs. `None` when one has no values.
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
    let mut random = Random::new(seed);
    let mut counts = [vec![0; a.len()], vec![0; b.len()]];
    let mut drawn = vec![Vec::new(); N];
    for _ in 0..samples {
        let of_a = draw_groups(a.groups.len(), &mut random);
        let of_b = match a.groups.len() == b.groups.len() {
            true => of_a.clone(),
            false => draw_groups(b.groups.len(), &mut random),
        };
        a.draw(&of_a, &mut counts[0], &mut random);
        b.draw(&of_b, &mut counts[1], &mut random);
        let (of_a, of_b) = (a.figures_of(&counts[0]), b.figures_of(&counts[1]));
        for (ratios, figure) in drawn.iter_mut().zip(which) {
            ratios.push(ratio(of_a[figure as usize], of_b[figure as usize]));
        }
    }
    let (of_a, of_b) = (a.figures(), b.figures());
    Some(std::array::from_fn(|place| {
        let figure = which[place] as usize;
        interval(ratio(of_a[figure], of_b[figure]), &mut drawn[place])
    }))
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

    /// Runs that differ by more than what is in them: intervals that know only flows would be far too narrow.
    #[test]
    fn intervals_hold_the_truth_when_runs_differ() {
        let (mut random, mut hold, mut hold_without_groups) = (Random::new(5), 0, 0);
        let trials = 200;
        for seed in 0..trials {
            // A pair has its own middle, the same for both: the true ratio of means is 2.
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..10 {
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
            let holds = |interval: &Interval| interval.low <= 2.0 && 2.0 <= interval.high;
            hold += usize::from(holds(&grouped[0]));
            hold_without_groups += usize::from(holds(&flat[0]));
        }
        assert!((174..=199).contains(&hold), "{hold} of {trials}");
        assert!(hold_without_groups < hold, "{hold_without_groups} of {trials}");
    }

    #[test]
    fn a_seed_gives_the_same_intervals_again() {
        let mut random = Random::new(9);
        let sample = Sample::of([values(&mut random, 50, 10), values(&mut random, 60, 10)]);
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
