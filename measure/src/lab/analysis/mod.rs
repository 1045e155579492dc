//! What the runs of an output folder say together.
//!
//! Which experiment a run was made for does not matter: a run is what its settings say, and several experiments look
//! at the same one. Runs of equal settings but for the seed are a **cell**. Of every cell,
//!
//! * [`speedup`] sets it against the cell of the same load by ECMP (on an idle network by the kernel), run by run:
//!   two runs with the same seed are a **pair**
//! * [`distribution`] tells completion times and jitter by themselves
//! * [`moves`] looks at long flows: what a move between lanes reorders, and what short flows notice of it
//!
//! and of all together, [`overhead`] tells the gateway's own delay, [`agreement`] how far the load driver and the taps
//! agree, [`kinds`] what was asked for, [`goals`] what was to be shown and was or was not.
//!
//! Completion times are those between the taps, of requests that succeeded and whose bulk was seen from SYN to FIN.
//! Requests that were due in the warm-up are left out. Everything left out is counted.

pub mod agreement;
mod cells;
pub mod distribution;
pub mod goals;
pub mod kinds;
pub mod moves;
mod observed;
pub mod overhead;
mod sizes;
pub mod speedup;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use cells::{Cell, Context};
pub use observed::{GatewayDelay, RunLine};
pub use sizes::{LONG, LONGER, SHORT, SHORT_PACKETS_MAX};

use super::join::Accounts;
use super::records::{Attach, Settings, Way};
use super::store::{LabRecord, Output, RUN, read_run};
use agreement::Agreement;
use cells::Cells;
use distribution::Distribution;
use goals::Goal;
use kinds::Kind;
use moves::Moves;
use observed::Observed;
use overhead::Overhead;
use speedup::Comparison;

/// Samples of every bootstrap.
pub const SAMPLES: usize = 1000;
/// Its seed.
pub const SEED: u64 = 1;
/// Of fewer pairs of runs, nothing is called certain: how much runs differ is hardly known then.
pub const CERTAIN_PAIRS_MIN: usize = 5;

/// Everything that is told of an output folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Where and how the runs were made.
    pub lab: LabRecord,
    /// What was to be shown.
    pub goals: Vec<Goal>,
    /// What all cells have in common, but for their place in `contexts`.
    pub contexts: Vec<Context>,
    /// The context that most runs are of, which figures show.
    pub main_context: Option<usize>,
    /// Each cell against its baseline.
    pub comparisons: Vec<Comparison>,
    /// Runs without the other half of their pair, in a sentence each.
    pub unpaired: Vec<String>,
    /// Each cell by itself.
    pub distributions: Vec<Distribution>,
    /// Long flows of each cell, and what short ones notice of them.
    pub moves: Vec<Moves>,
    /// The gateway's own delay, if it was measured.
    pub overhead: Option<Overhead>,
    /// The load driver's clock and the taps'.
    pub agreement: Option<Agreement>,
    /// Requests and flows that found each other, of all runs in figures.
    pub joined: Accounts,
    /// Kinds of requests, as the mix says and as they were seen.
    pub kinds: Vec<Kind>,
    /// All runs, by name, failed ones too.
    pub runs: Vec<RunLine>,
}

/// Reads and analyses all runs.
pub fn of(output: &Output) -> Analysis {
    let mut lines = Vec::new();
    let mut observed = Vec::new();
    for folder in &output.runs {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let line = match read_run(folder) {
            Err(error) => RunLine::failed(&name, None, &error.to_string()),
            Ok(run) => match &run.record.failure {
                Some(why) => RunLine::failed(&name, Some(&run.record), why),
                None => {
                    let run = Observed::of(&run);
                    let line = run.line.clone();
                    observed.push(run);
                    line
                }
            },
        };
        lines.push(RunLine { commit: commit_of(folder), ..line });
    }
    let cells = Cells::of(&observed);
    // Thousands of draws for each cell take their time.
    let ((comparisons, unpaired), distributions, moves) = std::thread::scope(|scope| {
        let comparisons = scope.spawn(|| speedup::all(&cells));
        let distributions = scope.spawn(|| distribution::all(&cells));
        let moves = moves::all(&cells);
        let (comparisons, distributions) = (comparisons.join(), distributions.join());
        let whole = "a bootstrap does not panic";
        (comparisons.expect(whole), distributions.expect(whole), moves)
    });
    let overhead = overhead::of(&cells);
    let agreement = agreement::of(&observed);
    let mut joined = Accounts::default();
    observed.iter().for_each(|run| joined.add(&run.line.joined));
    let goals = goals::all(&cells, &comparisons, overhead.as_ref(), agreement.as_ref(), &lines);
    let kinds = kinds::all(&cells);
    Analysis {
        lab: output.lab.clone(),
        goals,
        main_context: cells.main_context(),
        contexts: cells.contexts.clone(),
        comparisons,
        unpaired,
        distributions,
        moves,
        overhead,
        agreement,
        joined,
        kinds,
        runs: lines,
    }
}

/// The commit that a run was made with, if it says so.
fn commit_of(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Made {
        commit: Option<String>,
    }
    let text = std::fs::read_to_string(folder.join(RUN)).ok()?;
    serde_json::from_str::<Made>(&text).ok()?.commit
}

/// What is set, for people, without what all runs have in common.
fn setting_text(settings: &Settings) -> String {
    format!("{}, background {} %", way_text(settings), settings.background_percent)
}

/// How packets go, for people.
pub(super) fn way_text(settings: &Settings) -> String {
    let generic = match settings.attach {
        _ if settings.way == Way::Kernel => "",
        Attach::Native => "",
        Attach::Generic => ", generic XDP",
    };
    let packets = settings.threshold_packets;
    let way = match settings.way {
        Way::Kernel => "no gateway".to_owned(),
        Way::Ecmp => "ECMP".into(),
        Way::Split => format!("split at {packets} packets"),
        Way::Paper => format!("the paper's rule at {packets} packets"),
        Way::Spray => "spray".into(),
        Way::Priority => "one queue with priorities".into(),
    };
    way + generic
}
