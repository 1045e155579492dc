//! Samples in nanoseconds: least, mean, deviation, percentiles, greatest.
//!
//! Least, greatest, mean and deviation are computed from exact sums, however many samples there are. Percentiles
//! are exact, too, up to a number of samples; beyond it the samples go into HDR histograms of three
//! significant digits, and the summary says so (`exact: false`).
//!
//! A percentile is the nearest rank: the smallest sample that at least that share of all samples does not exceed.
//! The deviation is that of the samples themselves (divided by their number, not by one less).

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Samples whose percentiles are exact, unless somebody says otherwise: 32 MiB.
pub const EXACT_MAX: usize = 1 << 22;

/// What is told of a series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub samples: u64,
    /// The least.
    pub min: Option<i64>,
    /// The mean.
    pub mean: Option<f64>,
    /// The standard deviation.
    pub stddev: Option<f64>,
    /// The median.
    pub p50: Option<i64>,
    /// 90 % are not greater.
    pub p90: Option<i64>,
    /// 95 % are not greater.
    pub p95: Option<i64>,
    /// 99 % are not greater.
    pub p99: Option<i64>,
    /// 99.9 % are not greater.
    pub p999: Option<i64>,
    /// 99.99 % are not greater.
    pub p9999: Option<i64>,
    /// The greatest.
    pub max: Option<i64>,
    /// Whether the percentiles are samples themselves, and not rounded by a histogram.
    pub exact: bool,
}

/// Samples of either sign.
#[derive(Debug, Clone)]
pub struct Series {
    exact: Vec<i64>,
    exact_max: usize,
    histograms: Option<Box<Histograms>>,
    count: u64,
    sum: i128,
    squares: u128,
    min: i64,
    max: i64,
}

/// An HDR histogram knows no sign.
#[derive(Debug, Clone)]
struct Histograms {
    negative: Histogram<u64>,
    positive: Histogram<u64>,
}

impl Series {
    /// Without a sample; exact up to `exact_max`.
    pub fn new(exact_max: usize) -> Self {
        Series {
            exact: Vec::new(),
            exact_max,
            histograms: None,
            count: 0,
            sum: 0,
            squares: 0,
            min: i64::MAX,
            max: i64::MIN,
        }
    }

    /// One more.
    #[inline]
    pub fn record(&mut self, sample: i64) {
        self.count += 1;
        self.sum += i128::from(sample);
        let size = u128::from(sample.unsigned_abs());
        self.squares = self.squares.saturating_add(size * size);
        self.min = self.min.min(sample);
        self.max = self.max.max(sample);
        match &mut self.histograms {
            Some(histograms) => histograms.record(sample),
            None if self.exact.len() < self.exact_max => self.exact.push(sample),
            None => self.overflow(sample),
        }
    }

    /// Whether percentiles are samples themselves.
    pub fn is_exact(&self) -> bool {
        self.histograms.is_none()
    }

    /// The samples, in no order; `None` when there were too many to keep.
    pub fn into_samples(self) -> Option<Vec<i64>> {
        self.is_exact().then_some(self.exact)
    }

    /// The samples in a histogram, those below zero left out: for HDR logs.
    pub fn histogram(&self) -> Histogram<u64> {
        match &self.histograms {
            Some(histograms) => histograms.positive.clone(),
            None => {
                let mut histograms = Histograms::new();
                self.exact.iter().for_each(|&sample| histograms.record(sample));
                histograms.positive
            }
        }
    }

    /// All that is told of it.
    pub fn summary(&mut self) -> Summary {
        if self.count == 0 {
            return Summary { exact: true, ..Summary::default() };
        }
        let mut from = 0;
        let mut next = |share_of_10000| Some(self.percentile(share_of_10000, &mut from));
        let [p50, p90, p95, p99, p999, p9999] = [5000, 9000, 9500, 9900, 9990, 9999].map(&mut next);
        let count = self.count as f64;
        let mean = self.sum as f64 / count;
        Summary {
            samples: self.count,
            min: Some(self.min),
            mean: Some(mean),
            stddev: Some(self.deviation()),
            p50,
            p90,
            p95,
            p99,
            p999,
            p9999,
            max: Some(self.max),
            exact: self.is_exact(),
        }
    }

    /// Nearest rank. The exact samples before `from` are smaller than the rest; `from` moves on.
    fn percentile(&mut self, share_of_10000: u64, from: &mut usize) -> i64 {
        let rank = (u128::from(self.count) * u128::from(share_of_10000)).div_ceil(10_000).max(1);
        let rank = rank as u64;
        match &self.histograms {
            Some(histograms) => histograms.at_rank(rank),
            None => {
                let place = rank as usize - 1;
                let (_, &mut sample, _) = self.exact[*from..].select_nth_unstable(place - *from);
                *from = place;
                sample
            }
        }
    }

    /// From exact integers as long as they fit.
    fn deviation(&self) -> f64 {
        let count = u128::from(self.count);
        let sum = self.sum.unsigned_abs();
        let exact = count
            .checked_mul(self.squares)
            .zip(sum.checked_mul(sum))
            .and_then(|(whole, part)| whole.checked_sub(part));
        match exact {
            Some(difference) => (difference as f64).sqrt() / self.count as f64,
            None => {
                let mean = self.sum as f64 / self.count as f64;
                (self.squares as f64 / self.count as f64 - mean * mean).max(0.0).sqrt()
            }
        }
    }

    #[cold]
    fn overflow(&mut self, sample: i64) {
        let mut histograms = Box::new(Histograms::new());
        self.exact.iter().for_each(|&sample| histograms.record(sample));
        histograms.record(sample);
        self.exact = Vec::new();
        self.histograms = Some(histograms);
    }
}

impl Histograms {
    fn new() -> Self {
        // A day, which no two sightings of one packet are apart; it grows if need be.
        let histogram = || {
            let mut histogram = Histogram::new_with_max(86_400_000_000_000, 3)
                .expect("three digits and a day are fine");
            histogram.auto(true);
            histogram
        };
        Histograms { negative: histogram(), positive: histogram() }
    }

    #[inline]
    fn record(&mut self, sample: i64) {
        let histogram = if sample < 0 { &mut self.negative } else { &mut self.positive };
        histogram.record(sample.unsigned_abs()).expect("the histogram grows");
    }

    /// The sample of a rank, counted from 1.
    fn at_rank(&self, rank: u64) -> i64 {
        let negative = self.negative.len();
        let at = |histogram: &Histogram<u64>, rank: u64| {
            let wanted = rank as f64 / histogram.len() as f64;
            histogram.value_at_quantile(wanted).cast_signed()
        };
        match rank <= negative {
            // The most negative are the greatest there.
            true => -at(&self.negative, negative + 1 - rank),
            false => at(&self.positive, rank - negative),
        }
    }
}

/// The summary of a few samples.
pub fn summary_of(samples: impl IntoIterator<Item = i64>) -> Summary {
    let mut series = Series::new(usize::MAX);
    samples.into_iter().for_each(|sample| series.record(sample));
    series.summary()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        // Ranks of 10 samples: p50 the 5th, p90 the 9th, all above the 10th.
        let summary = summary_of((1..=10).rev().map(|n| n * 100));
        assert_eq!((summary.min, summary.max), (Some(100), Some(1000)));
        assert_eq!((summary.p50, summary.p90, summary.p95), (Some(500), Some(900), Some(1000)));
        assert_eq!(summary.mean, Some(550.0));
        assert_eq!(summary.stddev.map(|ns| (ns * 1e6).round()), Some(287_228_132.0));
        assert!(summary.exact);
    }

    #[test]
    fn ten_thousand_samples_have_each_percentile_by_name() {
        let summary = summary_of((1..=10_000).map(|n| n * 7919 % 10_007));
        let mut sorted: Vec<i64> = (1..=10_000).map(|n| n * 7919 % 10_007).collect();
        sorted.sort_unstable();
        let found = [summary.p50, summary.p90, summary.p95, summary.p99, summary.p999];
        let ranks = [5000, 9000, 9500, 9900, 9990];
        assert_eq!(found, ranks.map(|rank: usize| Some(sorted[rank - 1])));
        assert_eq!(summary.p9999, Some(sorted[9998]));
    }

    #[test]
    fn no_sample_has_no_figures() {
        let summary = summary_of([]);
        assert_eq!(
            (summary.samples, summary.min, summary.mean, summary.p99),
            (0, None, None, None)
        );
    }

    #[test]
    fn histograms_round_by_a_thousandth_and_keep_sums_exact() {
        let samples = || (0..50_000_i64).map(|n| (n * 7_919_777) % 1_000_003 - 300_000);
        let mut series = Series::new(100);
        samples().for_each(|sample| series.record(sample));
        let rounded = series.summary();
        let exact = summary_of(samples());
        assert!(!rounded.exact && exact.exact);
        assert_eq!((rounded.min, rounded.max), (exact.min, exact.max));
        assert_eq!((rounded.mean, rounded.stddev), (exact.mean, exact.stddev));
        for (rounded, exact) in [(rounded.p50, exact.p50), (rounded.p99, exact.p99)] {
            let (rounded, exact) = (rounded.unwrap(), exact.unwrap());
            assert!((rounded - exact).abs() <= exact.abs() / 1000 + 1, "{rounded} for {exact}");
        }
        let mut low = Series::new(1);
        [-5_000_000, -3_000_000, -1_000_000, 2].into_iter().for_each(|sample| low.record(sample));
        let p50 = low.summary().p50.unwrap();
        assert!((p50 + 3_000_000).abs() <= 3_000, "{p50}");
    }

    #[test]
    fn the_deviation_of_large_equal_samples_is_zero() {
        let summary = summary_of([3_600_000_000_001; 1000]);
        assert_eq!(summary.stddev, Some(0.0));
    }
}
