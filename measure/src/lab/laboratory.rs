//! A laboratory from its beginning to its end: preflight, testbed, all runs, and what is said meanwhile.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt::Interrupt;
use super::leftovers;
use super::records::{Attach, RunRecord, Way};
use super::run::{Planned, Stage};
use super::store::{self, LabRecord, RUNS};
use super::testbed::Testbed;
use super::tools::Tools;

/// What a run takes besides its requests: to start and end programs, and to wait for the last packets.
const AROUND_A_RUN: Duration = Duration::from_secs(3);
/// What the testbed takes.
const TESTBED: Duration = Duration::from_secs(2);

/// What is to be done.
pub struct Order {
    /// All runs, in their order.
    pub runs: Vec<Planned>,
    /// Where their records go.
    pub output: PathBuf,
    /// The command line.
    pub command: String,
    /// From which the seeds of all runs come.
    pub seed: u64,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Runs that were made.
    pub made: usize,
    /// Those of them that failed.
    pub failed: usize,
}

/// Makes all runs. What is said goes to standard error.
///
/// # Errors
///
/// When something lacks, the testbed cannot be built, records cannot be written, or a signal comes. A run that fails
/// is a record, and no error.
pub fn carry_out(order: &Order, interrupt: &Interrupt) -> Result<Outcome, LabError> {
    let tools = Tools::find()?;
    leftovers::remove();
    announce(order);
    write_lab(order, &tools)?;
    let emulates = order.runs.iter().any(|planned| {
        let settings = &planned.settings;
        settings.delay_ms > 0.0 || settings.jitter_ms > 0.0 || settings.loss_percent > 0.0
    });
    let testbed = Testbed::new(emulates, interrupt)?;
    let stage = Stage { testbed: &testbed, tools: &tools, interrupt };
    let mut outcome = Outcome::default();
    let first = runs_so_far(&order.output);
    for (index, planned) in order.runs.iter().enumerate() {
        let name = format!("{:04}-{}", first + index, planned.name());
        let folder = order.output.join(RUNS).join(&name);
        let count = format!("[{}/{}]", index + 1, order.runs.len());
        if std::io::stderr().is_terminal() {
            eprint!("{count} {} ...", describe(planned));
        }
        let start = Instant::now();
        let record = stage.perform(planned, &folder)?;
        let end = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let took = start.elapsed().as_secs_f64();
        eprintln!("{end}{count} {}: {} ({took:.0} s)", describe(planned), verdict(&record));
        outcome.made += 1;
        outcome.failed += usize::from(record.failure.is_some());
    }
    Ok(outcome)
}

/// Folders of runs that were made before, by another command.
fn runs_so_far(output: &Path) -> usize {
    fs::read_dir(output.join(RUNS)).map_or(0, |entries| entries.count())
}

/// The plan, and how long it takes.
fn announce(order: &Order) {
    let lasts =
        |planned: &Planned| Duration::from_secs(planned.settings.duration_s.into()) + AROUND_A_RUN;
    let total = TESTBED + order.runs.iter().map(lasts).sum::<Duration>();
    let runs = order.runs.len();
    eprintln!("{runs} runs, {} in all, into {}", minutes(total), order.output.display());
    let repeats = order.runs.iter().map(|planned| planned.repeat + 1).max().unwrap_or(0);
    for planned in order.runs.iter().filter(|planned| planned.repeat == 0) {
        eprintln!("    {}", describe(planned));
    }
    if repeats > 1 {
        eprintln!("    all of this {repeats} times");
    }
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

fn describe(planned: &Planned) -> String {
    let settings = &planned.settings;
    let way = match settings.way {
        Way::Split => format!("split at {} packets", settings.threshold_packets),
        way => format!("{way:?}").to_lowercase(),
    };
    let attach = match settings.attach {
        Attach::Generic => ", generic XDP",
        Attach::Native => "",
    };
    format!(
        "{}: {way}{attach}, background {} %, {} s",
        planned.experiment, settings.background_percent, settings.duration_s
    )
}

fn verdict(record: &RunRecord) -> String {
    match &record.failure {
        Some(why) => format!("FAILED: {why}"),
        None => {
            let dropped: u64 = record.queues.iter().map(|queue| queue.dropped).sum();
            let sent: u64 = record.queues.iter().map(|queue| queue.sent).sum();
            format!("{sent} packets through the routers' queues, {dropped} found them full")
        }
    }
}

/// What another person needs to do the same.
fn write_lab(order: &Order, tools: &Tools) -> Result<(), LabError> {
    let mut lab = match store::Output::open(&order.output) {
        Ok(before) => before.lab,
        Err(_) => LabRecord { seed: order.seed, ..LabRecord::default() },
    };
    lab.commands.push(order.command.clone());
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    lab.kernel = read("/proc/sys/kernel/osrelease").trim().to_owned()
        + " "
        + read("/proc/sys/kernel/version").trim();
    let processor = read("/proc/cpuinfo");
    let model = processor.lines().find(|line| line.starts_with("model name"));
    lab.processor = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned();
    lab.commit = commit(tools).unwrap_or_else(|| "unknown".into());
    let cores = processor.lines().filter(|line| line.starts_with("processor")).count();
    lab.more.insert("cores".into(), cores.into());
    lab.more.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    store::write_lab(&order.output, &lab)
        .map_err(LabError::content(order.output.display().to_string()))
}

/// Of the sources that this program lies in, if it does.
fn commit(tools: &Tools) -> Option<String> {
    let folder = tools.lab.parent()?;
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "safe.directory=*", "describe", "--always", "--dirty"]);
    let output = git.args(["--abbrev=40", "--exclude=*"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
