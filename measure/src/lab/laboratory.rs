//! A laboratory from its beginning to its end: preflight, testbed, all runs, and what is said meanwhile.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt::Interrupt;
use super::leftovers;
use super::machine;
use super::records::{Attach, RunRecord, Way};
use super::run::{Planned, Stage};
use super::store::{self, LabRecord, RUN, RUNS};
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
    let runs = possible(&order.runs, &testbed);
    let mut outcome = Outcome::default();
    let first = runs_so_far(&order.output);
    for (index, planned) in runs.iter().enumerate() {
        let name = format!("{:04}-{}", first + index, planned.name());
        let folder = order.output.join(RUNS).join(&name);
        let count = format!("[{}/{}]", index + 1, runs.len());
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

/// Runs for which the kernel has what they need. A queue with priorities is of a kind that not every kernel has.
fn possible<'o>(runs: &'o [Planned], testbed: &Testbed) -> Vec<&'o Planned> {
    let one = runs.iter().find(|planned| planned.settings.way == Way::Priority);
    let refused = one.and_then(|planned| testbed.try_queue(&planned.settings).err());
    if let Some(error) = &refused {
        eprintln!(
            "lanesplit-lab: runs by priority are left out, for this kernel refuses its queue: {error}"
        );
    }
    let is_possible =
        |planned: &&Planned| refused.is_none() || planned.settings.way != Way::Priority;
    runs.iter().filter(is_possible).collect()
}

/// Whether a folder has a run of which a report can be made.
pub fn has_runs(output: &Path) -> bool {
    let entries = fs::read_dir(output.join(RUNS)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().join(RUN).exists())
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
            let run_out = record.requests_run_out.iter();
            let run_out: String = run_out
                .map(|(kind, requests)| format!(", time ran out for {requests} of {kind}"))
                .collect();
            format!(
                "{sent} packets through the routers' queues, {dropped} found them full{run_out}"
            )
        }
    }
}

/// What another person needs to do the same. A record that cannot be read is never replaced.
fn write_lab(order: &Order, tools: &Tools) -> Result<(), LabError> {
    let before = store::read_lab(&order.output).map_err(|cause| LabError::Output { cause })?;
    let mut lab =
        before.clone().unwrap_or_else(|| LabRecord { seed: order.seed, ..LabRecord::default() });
    lab.commands.push(order.command.clone());
    lab.commit = machine::COMMIT.into();
    lab.kernel = machine::kernel();
    let (processor, cores) = machine::processor();
    lab.processor = processor;
    lab.more.insert("cores".into(), cores.into());
    lab.more.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    lab.more.insert("priorities".into(), tools.priorities.clone().into());
    for (what, [then, now]) in before.iter().flat_map(|before| differences(before, &lab)) {
        eprintln!(
            "lanesplit-lab: warning: {what} of the runs in {} was {then}, now it is {now}; what differs between \
             runs may come from that. --output takes another folder",
            order.output.display()
        );
    }
    store::write_lab(&order.output, &lab).map_err(|cause| LabError::Output { cause })
}

/// What makes runs that were made then hard to compare with those that are made now.
fn differences(then: &LabRecord, now: &LabRecord) -> Vec<(&'static str, [String; 2])> {
    let priorities = |lab: &LabRecord| {
        lab.more.get("priorities").and_then(|text| text.as_str()).unwrap_or("unknown").to_owned()
    };
    let each = |lab: &LabRecord| {
        [lab.commit.clone(), lab.kernel.clone(), lab.processor.clone(), priorities(lab)]
    };
    let pairs = each(then).into_iter().zip(each(now)).map(|(then, now)| [then, now]);
    let named =
        ["the commit", "the kernel", "the processor", "the priority"].into_iter().zip(pairs);
    named.filter(|(_, [then, now])| then != now).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_another_commit_in_the_same_folder_are_told() {
        let lab = |commit: &str| LabRecord { commit: commit.into(), ..LabRecord::default() };
        assert_eq!(differences(&lab("a"), &lab("a")), []);
        let found = differences(&lab("a"), &lab("b"));
        assert_eq!(found, [("the commit", ["a".to_owned(), "b".to_owned()])]);
    }
}
