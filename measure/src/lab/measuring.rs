//! `lanesplit-measure live` between two taps of the testbed, for the length of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::process::Process;
use super::testbed::Testbed;
use super::tools::Tools;
use crate::results::Results;

/// Longest wait for its start.
const START_MAX: Duration = Duration::from_secs(15);
/// Longest wait for its end, in which it says what it has found.
const END_MAX: Duration = Duration::from_secs(120);
/// Two sightings of a packet are no further apart: longer than both queues can hold it, unless a path is longer.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// What may still be under way when the gateways are at rest.
const LINGER: Duration = Duration::from_millis(200);

/// It listens.
pub struct Measuring {
    process: Process,
    results: PathBuf,
    flows: PathBuf,
}

impl Measuring {
    /// Starts it and waits until it listens. What it finds goes to files `NAME.json` and `NAME.parquet` of the
    /// folder.
    ///
    /// # Errors
    ///
    /// When it does not start, or a signal comes.
    pub fn start(
        name: &str,
        taps: [&str; 2],
        delay: Duration,
        (testbed, tools): (&Testbed, &Tools),
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Measuring, LabError> {
        let flows = folder.join(format!("{name}.parquet"));
        let linger = format!("{}ms", (LINGER + 2 * delay).as_millis());
        let window = format!("{}ms", (WINDOW_MIN + 2 * delay).as_millis());
        let output = folder.join(name);
        let (program, flows_text) = (tools.measure.to_string_lossy(), flows.to_string_lossy());
        let output_text = output.to_string_lossy();
        let command = [
            &*program,
            "live",
            "--quiet",
            "--ingress",
            taps[0],
            "--egress",
            taps[1],
            "--window",
            &window,
            "--linger",
            &linger,
            "--flows-parquet",
            &*flows_text,
            "--output",
            &*output_text,
        ];
        let process = Process::start(name, &testbed.measuring, &command, folder)?;
        let what = format!("{name} to listen");
        interrupt.wait_for(&what, START_MAX, String::new, || {
            process.check()?;
            Ok(process.last_words().contains("listening").then_some(()))
        })?;
        Ok(Measuring { process, results: output.join("results.json"), flows })
    }

    /// # Errors
    ///
    /// When it does not run any more.
    pub fn check(&self) -> Result<(), LabError> {
        self.process.check()
    }

    /// Its name and the processor time that it has taken so far.
    pub fn cpu_s(&self) -> (String, f64) {
        (self.process.name().to_owned(), self.process.cpu_s())
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for its end. Its files are then `results.json` and `flows.parquet` of `to`.
    ///
    /// # Errors
    ///
    /// When it fails, or a signal comes.
    pub fn finish(self, to: &Path, interrupt: &Interrupt) -> Result<Results, LabError> {
        let name = self.process.name().to_owned();
        self.process.succeed(interrupt, END_MAX)?;
        let text = fs::read_to_string(&self.results).map_err(LabError::file(&self.results))?;
        let results =
            serde_json::from_str(&text).map_err(LabError::content(format!("what {name} found")))?;
        fs::create_dir_all(to).map_err(LabError::file(to))?;
        for (from, file) in [(&self.results, "results.json"), (&self.flows, "flows.parquet")] {
            fs::rename(from, to.join(file)).map_err(LabError::file(from))?;
        }
        let folder = self.results.parent().unwrap_or(to);
        fs::remove_dir_all(folder).map_err(LabError::file(folder))?;
        Ok(results)
    }
}

/// Why the figures of these taps cannot be trusted, if so.
pub fn failure(results: &Results) -> Option<String> {
    let mut wrong = Vec::new();
    if !results.balances() {
        wrong.push("lanesplit-measure does not account for every packet".to_owned());
    }
    for (name, tap) in &results.taps {
        let Some(live) = &tap.live else { continue };
        if live.dropped > 0 {
            wrong.push(format!("the capture of {name} dropped {} packets", live.dropped));
        }
        if let Some(gone) = &live.gone {
            wrong.push(format!("the tap of {name} went: {gone}"));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}
