//! Delay and loss in the course of time, in few bins whatever the run's length.
//!
//! There are at most [`BINS`] of one width. When time runs past the last, neighbours are joined and the width
//! doubles. A bin has a histogram of its delays, sixteen steps an octave: its percentiles are right within 5 %.

use serde::{Deserialize, Serialize};

/// Most bins.
pub const BINS: usize = 256;

/// The width to begin with: 2^20 ns, about a millisecond.
const WIDTH_NS: u64 = 1 << 20;
const STEPS: usize = 16;
const OCTAVES: usize = 44;

/// What happened in one stretch of time.
#[derive(Debug, Clone, Default)]
struct Bin {
    delays: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
    lost: u64,
    /// Empty until there is a delay.
    histogram: Vec<u32>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct OverTime {
    start_ns: Option<u64>,
    width_ns: u64,
    bins: Vec<Bin>,
}

/// One bin, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Start of the bin, nanoseconds since 1970.
    pub from_ns: u64,
    /// Its width.
    pub width_ns: u64,
    /// Packets with a delay, by when they entered.
    pub packets: u64,
    /// Packets lost.
    pub lost: u64,
    /// Least delay.
    pub min_ns: Option<u64>,
    /// Mean delay.
    pub mean_ns: Option<f64>,
    /// Median, within 5 %.
    pub p50_ns: Option<u64>,
    /// 99th percentile, within 5 %.
    pub p99_ns: Option<u64>,
    /// Greatest delay.
    pub max_ns: Option<u64>,
}

impl OverTime {
    /// A packet that entered at a time took this long.
    pub fn delay(&mut self, time_ns: u64, delay_ns: u64) {
        let bin = self.bin(time_ns);
        if bin.histogram.is_empty() {
            bin.histogram = vec![0; STEPS * OCTAVES];
            bin.min_ns = u64::MAX;
        }
        bin.delays += 1;
        bin.sum_ns += u128::from(delay_ns);
        bin.min_ns = bin.min_ns.min(delay_ns);
        bin.max_ns = bin.max_ns.max(delay_ns);
        let step = &mut bin.histogram[step(delay_ns)];
        *step = step.saturating_add(1);
    }

    /// A packet that entered at a time was lost.
    pub fn lost(&mut self, time_ns: u64) {
        self.bin(time_ns).lost += 1;
    }

    /// What there is to tell, bins without a packet left out.
    pub fn points(&self) -> Vec<Point> {
        let Some(start_ns) = self.start_ns else { return Vec::new() };
        let met = |(_, bin): &(usize, &Bin)| bin.delays + bin.lost > 0;
        let point = |(place, bin): (usize, &Bin)| {
            let any = bin.delays > 0;
            Point {
                from_ns: start_ns + place as u64 * self.width_ns,
                width_ns: self.width_ns,
                packets: bin.delays,
                lost: bin.lost,
                min_ns: any.then_some(bin.min_ns),
                mean_ns: any.then(|| bin.sum_ns as f64 / bin.delays as f64),
                p50_ns: any.then(|| bin.percentile(0.5)),
                p99_ns: any.then(|| bin.percentile(0.99)),
                max_ns: any.then_some(bin.max_ns),
            }
        };
        self.bins.iter().enumerate().filter(met).map(point).collect()
    }

    /// The bin of a time. What is earlier than the first time counts there.
    #[inline(always)]
    fn bin(&mut self, time_ns: u64) -> &mut Bin {
        if self.bins.is_empty() {
            self.bins = vec![Bin::default(); BINS];
            self.width_ns = WIDTH_NS;
        }
        let start_ns = *self.start_ns.get_or_insert(time_ns);
        let since_ns = time_ns.saturating_sub(start_ns);
        while since_ns / self.width_ns >= BINS as u64 {
            self.widen();
        }
        &mut self.bins[(since_ns / self.width_ns) as usize]
    }

    #[cold]
    fn widen(&mut self) {
        self.width_ns = self.width_ns.saturating_mul(2);
        for place in 0..BINS / 2 {
            let mut bin = std::mem::take(&mut self.bins[2 * place]);
            bin.add(std::mem::take(&mut self.bins[2 * place + 1]));
            self.bins[place] = bin;
        }
    }
}

impl Bin {
    fn add(&mut self, other: Bin) {
        self.lost += other.lost;
        if other.delays == 0 {
            return;
        }
        if self.delays == 0 {
            *self = Bin { lost: self.lost, ..other };
            return;
        }
        self.delays += other.delays;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        for (here, there) in self.histogram.iter_mut().zip(other.histogram) {
            *here = here.saturating_add(there);
        }
    }

    /// Nearest rank among steps; a step stands for its upper end, but never beyond the greatest delay.
    fn percentile(&self, share: f64) -> u64 {
        let rank = (self.delays as f64 * share).ceil() as u64;
        let mut passed = 0;
        for (step, &count) in self.histogram.iter().enumerate() {
            passed += u64::from(count);
            if passed >= rank {
                return upper_end(step).clamp(self.min_ns, self.max_ns);
            }
        }
        self.max_ns
    }
}

/// The step of a delay: below 16 ns one each, then sixteen an octave.
#[inline(always)]
fn step(delay_ns: u64) -> usize {
    if delay_ns < STEPS as u64 {
        return delay_ns as usize;
    }
    let octave = delay_ns.ilog2() as usize - 4;
    let within = (delay_ns >> octave) as usize - STEPS;
    (STEPS * (octave + 1) + within).min(STEPS * OCTAVES - 1)
}

fn upper_end(step: usize) -> u64 {
    if step < STEPS {
        return step as u64;
    }
    let octave = step / STEPS - 1;
    ((STEPS + step % STEPS + 1) as u64) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_holds_its_delay_within_a_sixteenth() {
        for delay_ns in (0..10_000).chain([1 << 20, 123_456_789, 3_600_000_000_000]) {
            let end_ns = upper_end(step(delay_ns));
            assert!(delay_ns <= end_ns && end_ns <= delay_ns + delay_ns / 16 + 1, "{delay_ns}");
        }
    }

    #[test]
    fn bins_join_as_time_runs_on_and_nothing_is_lost() {
        let mut over_time = OverTime::default();
        for number in 0..100_000_u64 {
            over_time.delay(1_000_000_000 + number * 100_000, 5_000 + number);
            if number % 10 == 0 {
                over_time.lost(1_000_000_000 + number * 100_000);
            }
        }
        let points = over_time.points();
        assert!(points.len() <= BINS && points.len() > BINS / 2 - 1, "{}", points.len());
        assert_eq!(points.iter().map(|point| point.packets).sum::<u64>(), 100_000);
        assert_eq!(points.iter().map(|point| point.lost).sum::<u64>(), 10_000);
        assert_eq!(points[0].min_ns, Some(5_000));
        assert_eq!(points.last().unwrap().max_ns, Some(104_999));
        for point in &points {
            let (min, p50, max) = (point.min_ns, point.p50_ns, point.max_ns);
            assert!(min <= p50 && p50 <= point.p99_ns && point.p99_ns <= max);
        }
    }
}
