//! The experiments, as runs.
//!
//! An experiment is a set of settings that are compared with each other. Runs of several experiments with the same
//! settings are made once; every repetition goes through all settings, so that what changes on the machine with time
//! changes for all of them (A B A B). All runs of a repetition have the same seed: the same requests at the same times.

use super::records::{Attach, Settings, Way};
use super::run::Planned;

/// An experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// Completion time of short flows against the threshold, and size of flow.
    Thresholds,
    /// The same against background load.
    Loads,
    /// Distributions of jitter and completion time at each load.
    Distributions,
    /// The gateway's own cost, on an idle network.
    Overhead,
    /// What becomes of long flows.
    LongFlows,
    /// What one could do instead.
    Alternatives,
}

/// What all runs have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    /// Fewer settings, for a first impression.
    pub quick: bool,
    /// How often the same settings are run.
    pub repeats: u32,
    /// Settings of a run by ECMP, with the seed of the first repetition.
    pub settings: Settings,
}

/// The load at which everything but load is looked at, in per cent.
const LOAD_PERCENT: u32 = 40;
const LOADS_PERCENT: [u32; 5] = [0, 10, 20, 30, 40];
const THRESHOLDS_PACKETS: [u32; 6] = [1, 5, 10, 20, 40, 100];
const THRESHOLDS_QUICK_PACKETS: [u32; 4] = [1, 10, 40, 100];
/// The mix of requests of an idle network.
const IDLE_MIX: &str = "idle";

impl Experiment {
    /// All of them.
    pub const ALL: [Experiment; 6] = [
        Experiment::Thresholds,
        Experiment::Loads,
        Experiment::Distributions,
        Experiment::Overhead,
        Experiment::LongFlows,
        Experiment::Alternatives,
    ];

    /// As it is called in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::Thresholds => "thresholds",
            Experiment::Loads => "loads",
            Experiment::Distributions => "distributions",
            Experiment::Overhead => "overhead",
            Experiment::LongFlows => "long-flows",
            Experiment::Alternatives => "alternatives",
        }
    }

    /// What is compared in it.
    fn settings(self, common: &Common) -> Vec<Settings> {
        let at = |way, background_percent| Settings {
            way,
            background_percent,
            ..common.settings.clone()
        };
        match self {
            Experiment::Thresholds => {
                let thresholds: &[u32] =
                    if common.quick { &THRESHOLDS_QUICK_PACKETS } else { &THRESHOLDS_PACKETS };
                let split = thresholds.iter().map(|&threshold_packets| Settings {
                    threshold_packets,
                    ..at(Way::Split, LOAD_PERCENT)
                });
                [at(Way::Ecmp, LOAD_PERCENT)].into_iter().chain(split).collect()
            }
            Experiment::Loads | Experiment::Distributions => {
                let both = |percent| [at(Way::Ecmp, percent), at(Way::Split, percent)];
                LOADS_PERCENT.into_iter().flat_map(both).collect()
            }
            Experiment::Overhead => {
                let idle = |way, attach| Settings { attach, mix: IDLE_MIX.into(), ..at(way, 0) };
                vec![
                    idle(Way::Kernel, Attach::Native),
                    idle(Way::Split, Attach::Generic),
                    idle(Way::Split, Attach::Native),
                ]
            }
            Experiment::LongFlows => {
                vec![at(Way::Ecmp, LOAD_PERCENT), at(Way::Split, LOAD_PERCENT)]
            }
            Experiment::Alternatives => {
                [Way::Ecmp, Way::Split, Way::Paper, Way::Spray, Way::Priority]
                    .map(|way| at(way, LOAD_PERCENT))
                    .into()
            }
        }
    }
}

/// The runs of experiments, in the order in which they are made.
pub fn runs(experiments: &[Experiment], common: &Common) -> Vec<Planned> {
    let mut once: Vec<Planned> = Vec::new();
    for experiment in experiments {
        for settings in experiment.settings(common) {
            if !once.iter().any(|planned| planned.settings == settings) {
                once.push(Planned {
                    experiment: experiment.name().into(),
                    repeat: 0,
                    settings,
                    taps_gateway: *experiment == Experiment::Overhead,
                });
            }
        }
    }
    let repeated = |repeat: u32| {
        once.clone().into_iter().map(move |mut planned| {
            planned.repeat = repeat;
            planned.settings.seed += u64::from(repeat);
            planned
        })
    };
    (0..common.repeats).flat_map(repeated).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common() -> Common {
        let settings = Settings {
            way: Way::Ecmp,
            attach: Attach::Native,
            threshold_packets: 40,
            background_percent: 0,
            rate_mbit_per_s: 100,
            buffer_ms: 100,
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            mix: "paper".into(),
            tls: true,
            duration_s: 120,
            warmup_s: 5,
            seed: 7,
        };
        Common { quick: false, repeats: 2, settings }
    }

    #[test]
    fn the_same_settings_are_run_once_a_repetition() {
        let runs = runs(&Experiment::ALL, &common());
        for (index, one) in runs.iter().enumerate() {
            assert!(!runs[..index].iter().any(|other| other.settings == one.settings), "{one:?}");
        }
    }

    #[test]
    fn every_setting_of_an_experiment_is_among_the_runs_of_each_repetition() {
        let (common, runs) = (common(), runs(&Experiment::ALL, &common()));
        for experiment in Experiment::ALL {
            for settings in experiment.settings(&common) {
                for repeat in 0..2 {
                    let seed = settings.seed + u64::from(repeat);
                    let wanted = Settings { seed, ..settings.clone() };
                    assert!(runs.iter().any(|run| run.settings == wanted && run.repeat == repeat));
                }
            }
        }
    }

    #[test]
    fn repetitions_are_interleaved() {
        let runs = runs(&[Experiment::LongFlows], &common());
        let order: Vec<(Way, u32)> =
            runs.iter().map(|run| (run.settings.way, run.repeat)).collect();
        assert_eq!(order, [(Way::Ecmp, 0), (Way::Split, 0), (Way::Ecmp, 1), (Way::Split, 1)]);
    }
}
