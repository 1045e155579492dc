//! When which request is due: decided before the first is sent, by nothing but mix, seed and duration.
//!
//! Each kind is a Poisson process of its own, so that runs with the same seed have the same arrivals, and leaving a
//! kind out does not move the others.

use std::time::Duration;

use crate::lab::random::Random;
use crate::lab::workload::{Kind, Mix};

/// One request to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// Its number, in the order in which they are due.
    pub number: u32,
    /// What is asked for.
    pub kind: Kind,
    /// When, from the beginning.
    pub due: Duration,
}

/// All requests of a run, in the order in which they are due.
pub fn arrivals(mix: &Mix, seed: u64, duration: Duration) -> Vec<Arrival> {
    let mut due: Vec<(Duration, Kind)> =
        mix.kinds.iter().flat_map(|kind| of_kind(kind, seed, duration)).collect();
    // Stable: of two at the same time, the kind that the mix names first is first.
    due.sort_by_key(|(due, _)| *due);
    let numbered = (0..).zip(due);
    numbered.map(|(number, (due, kind))| Arrival { number, kind, due }).collect()
}

fn of_kind(
    kind: &Kind,
    seed: u64,
    duration: Duration,
) -> impl Iterator<Item = (Duration, Kind)> + use<> {
    let kind = *kind;
    let mut random = Random::named(seed, kind.name);
    let mut time_s = 0.0;
    let times = std::iter::from_fn(move || {
        time_s += random.exponential(kind.per_s);
        Duration::try_from_secs_f64(time_s).ok().filter(|due| *due < duration)
    });
    times.map(move |due| (due, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn paper() -> Mix {
        Mix::named("paper").expect("it is there")
    }

    #[test]
    fn a_seed_brings_the_same_arrivals_back() {
        assert_eq!(arrivals(&paper(), 5, HOUR), arrivals(&paper(), 5, HOUR));
        assert_ne!(arrivals(&paper(), 5, HOUR), arrivals(&paper(), 6, HOUR));
    }

    #[test]
    fn arrivals_are_numbered_in_the_order_in_which_they_are_due_and_before_the_end() {
        let arrivals = arrivals(&paper(), 5, HOUR);
        for (index, pair) in arrivals.windows(2).enumerate() {
            assert_eq!(pair[0].number as usize, index);
            assert!(pair[0].due <= pair[1].due && pair[1].due < HOUR);
        }
    }

    #[test]
    fn a_shorter_run_is_the_beginning_of_a_longer_one() {
        let short = arrivals(&paper(), 5, HOUR / 60);
        assert_eq!(short[..], arrivals(&paper(), 5, HOUR)[..short.len()]);
    }

    #[test]
    fn leaving_a_kind_out_does_not_move_the_others() {
        let dues = |mix: &Mix| -> Vec<Duration> {
            let arrivals = arrivals(mix, 5, HOUR);
            arrivals.iter().filter(|a| a.kind.name == "page").map(|a| a.due).collect()
        };
        let mut fewer = paper();
        fewer.kinds.remove(0);
        assert_eq!(dues(&paper()), dues(&fewer));
    }

    /// Arrivals of a Poisson process in equal intervals have Poisson counts: their chi-square with 399 degrees of
    /// freedom is within four standard deviations of its mean.
    #[test]
    fn counts_in_equal_intervals_vary_as_those_of_a_poisson_process() {
        let arrivals = arrivals(&paper(), 5, HOUR);
        for kind in paper().kinds.iter().filter(|kind| kind.per_s >= 1.0) {
            let mut counts = [0f64; 400];
            for arrival in arrivals.iter().filter(|arrival| arrival.kind == *kind) {
                counts[(arrival.due.as_secs_f64() / 9.0) as usize] += 1.0;
            }
            let expected = kind.per_s * 9.0;
            let total: f64 = counts.iter().sum();
            let deviation = (total - expected * 400.0) / (expected * 400.0).sqrt();
            assert!(deviation.abs() < 4.0, "{}: {total} arrivals", kind.name);
            let mean = total / 400.0;
            let chi_square: f64 = counts.iter().map(|count| (count - mean).powi(2) / mean).sum();
            let deviation = (chi_square - 399.0) / (2.0f64 * 399.0).sqrt();
            assert!(deviation.abs() < 4.0, "{}: chi-square {chi_square}", kind.name);
        }
    }
}
