//! The command line of `lanesplit-lab`: raw arguments become one order, once.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::driver;
use super::emulator;
use super::error::LabError;
use super::interrupt::Interrupt;
use super::laboratory::{self, Order};
use super::plan::{self, Common, Experiment};
use super::records::{Attach, Settings, Way};
use super::run::Planned;
use crate::export;

/// A hybrid cloud on one machine, real traffic through two real gateways, and what splitting brings.
///
/// Needs root. Everything is in network namespaces of its own, which are gone in the end, whatever that is.
#[derive(Parser)]
#[command(name = "lanesplit-lab", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two runs, ECMP and split at 40 % background load, in about a minute
    Demo(Options),
    /// All experiments
    Paper(Options),
    /// Completion time of short flows against the threshold and the size of the flow
    Thresholds(Options),
    /// Completion time of short flows against background load
    Loads(Options),
    /// Distributions of jitter and completion time at each load: the runs of `loads`, other figures
    Distributions(Options),
    /// What a gateway costs on an idle network: absent, in generic and in native XDP
    Overhead(Options),
    /// What becomes of long flows, and of packets while their flow is moved
    LongFlows(Options),
    /// What one could do instead: the paper's rule to the letter, packets in turn, a queue with priorities
    Alternatives(Options),
    /// Write the report anew from the records of a folder
    Report {
        /// The folder, as --output named it
        folder: PathBuf,
    },
    /// Make requests as a plan says
    #[command(hide = true)]
    Drive {
        /// What to do, as JSON
        plan: PathBuf,
    },
    /// Delay, jitter and loss between two interfaces, as a plan says
    #[command(hide = true)]
    Emulate {
        /// What to do, as JSON
        plan: PathBuf,
    },
}

#[derive(Clone, Args)]
struct Options {
    /// Shorter and fewer runs with smaller long flows: a first impression
    #[arg(long)]
    quick: bool,
    /// Where records and report go; a folder that has some already gets more
    #[arg(long, value_name = "FOLDER", default_value = "lab-results")]
    output: PathBuf,
    /// Decides the requests: when, and how large
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// For how long requests arrive in each run; by default 2 minutes, 30 s with --quick
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds)]
    duration: Option<u32>,
    /// How often each run is made; by default 3 times, twice with --quick
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: Option<u32>,
    /// Rate of each path in each direction
    #[arg(long, value_name = "MBIT/S", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// What the queue of each path holds, in time at that rate
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = buffer_ms)]
    buffer: u32,
    /// One-way delay that is added to each path
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = ms)]
    delay: f64,
    /// Greatest deviation from that delay, at random
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = ms)]
    jitter: f64,
    /// Share of packets that each path loses at random
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// Requests without encryption
    #[arg(long)]
    no_tls: bool,
}

/// What is left out at the beginning of every run, or a fifth of a shorter one.
const WARMUP_S: u32 = 5;
/// For how long requests arrive in a run of the demonstration.
const DEMO_S: u32 = 25;

/// Exit status: 0, 1 when something or a run failed, 2 when the command line is wrong, 130 and the like when a signal
/// came.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo(&options),
        Command::Paper(options) => experiments(&Experiment::ALL, &options),
        Command::Thresholds(options) => experiments(&[Experiment::Thresholds], &options),
        Command::Loads(options) => experiments(&[Experiment::Loads], &options),
        Command::Distributions(options) => experiments(&[Experiment::Distributions], &options),
        Command::Overhead(options) => experiments(&[Experiment::Overhead], &options),
        Command::LongFlows(options) => experiments(&[Experiment::LongFlows], &options),
        Command::Alternatives(options) => experiments(&[Experiment::Alternatives], &options),
        Command::Report { folder } => report(&folder),
        Command::Drive { plan } => drive(&plan),
        Command::Emulate { plan } => emulate(&plan),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lanesplit-lab: {error}");
        match error {
            LabError::Interrupted(signal) => ExitCode::from(128 + signal as u8),
            _ => ExitCode::FAILURE,
        }
    })
}

/// What all runs of a command have in common.
fn common(options: &Options) -> Common {
    let (duration_s, repeats) = if options.quick { (30, 2) } else { (120, 3) };
    let duration_s = options.duration.unwrap_or(duration_s);
    let settings = Settings {
        way: Way::Ecmp,
        attach: Attach::Native,
        threshold_packets: 40,
        background_percent: 0,
        rate_mbit_per_s: options.rate,
        buffer_ms: options.buffer,
        delay_ms: options.delay,
        jitter_ms: options.jitter,
        loss_percent: options.loss,
        mix: if options.quick { "quick" } else { "paper" }.into(),
        tls: !options.no_tls,
        duration_s,
        warmup_s: WARMUP_S.min(duration_s / 5),
        seed: options.seed,
    };
    Common { quick: options.quick, repeats: options.repeats.unwrap_or(repeats), settings }
}

fn run_all(runs: Vec<Planned>, options: &Options) -> Result<ExitCode, LabError> {
    let interrupt = Interrupt::new()?;
    let command: Vec<String> = std::env::args().collect();
    let output = std::path::absolute(&options.output).map_err(LabError::file(&options.output))?;
    let order = Order { runs, output, command: command.join(" "), seed: options.seed };
    let outcome = laboratory::carry_out(&order, &interrupt).inspect_err(|_| {
        if laboratory::has_runs(&order.output) {
            let folder = order.output.display();
            eprintln!(
                "lanesplit-lab: of the runs that are complete: lanesplit-lab report {folder}"
            );
        }
    })?;
    report(&order.output)?;
    Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn demo(options: &Options) -> Result<ExitCode, LabError> {
    let demo = Options {
        quick: true,
        duration: Some(options.duration.unwrap_or(DEMO_S)),
        repeats: Some(options.repeats.unwrap_or(1)),
        ..options.clone()
    };
    experiments(&[Experiment::LongFlows], &demo)
}

fn experiments(of: &[Experiment], options: &Options) -> Result<ExitCode, LabError> {
    run_all(plan::runs(of, &common(options)), options)
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    let time = parsed(text)?;
    match u32::try_from(time.as_secs()) {
        Ok(seconds @ 1..=3600) if time.subsec_nanos() == 0 => Ok(seconds),
        _ => Err("give whole seconds, from 1s to 1h".into()),
    }
}

/// Both queues of a path together hold a packet for less than the second in which the taps expect it again.
fn buffer_ms(text: &str) -> Result<u32, String> {
    let time = parsed(text)?;
    match u32::try_from(time.as_millis()) {
        Ok(ms @ 1..=400) if time.subsec_nanos() % 1_000_000 == 0 => Ok(ms),
        _ => Err("give whole milliseconds, from 1ms to 400ms".into()),
    }
}

fn ms(text: &str) -> Result<f64, String> {
    match parsed(text)?.as_secs_f64() * 1000.0 {
        ms if ms <= 1000.0 => Ok(ms),
        _ => Err("more than a second".into()),
    }
}

fn parsed(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give a number and a unit, as 20ms or 2m"))
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.0..=50.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 50".into()),
    }
}

/// Writes the report of a folder and shows its table on standard output.
fn report(folder: &Path) -> Result<ExitCode, LabError> {
    let summary = super::report::write(folder)?;
    write!(std::io::stdout(), "{summary}").map_err(LabError::file(Path::new("standard output")))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the requests of a plan and logs them on standard output, until they have ended or a signal comes.
fn drive(path: &Path) -> Result<ExitCode, LabError> {
    let plan = read_plan(path)?;
    let stop = stop()?;
    let mut out = BufWriter::new(std::io::stdout());
    let mut written = Ok(());
    let account = driver::run(&plan, &stop, |record| {
        if written.is_ok() {
            written = driver::log::write(&mut out, &record);
        }
    })
    .map_err(LabError::content(path.display().to_string()))?;
    written.and_then(|()| out.flush()).map_err(LabError::file(Path::new("standard output")))?;
    eprintln!("{account:?}");
    Ok(ExitCode::SUCCESS)
}

/// Emulates a path until a signal comes, and reports on standard output.
fn emulate(path: &Path) -> Result<ExitCode, LabError> {
    let emulation = read_plan(path)?;
    let stop = stop()?;
    let report = emulator::run(&emulation, &stop, || eprintln!("emulating"))
        .map_err(LabError::content(path.display().to_string()))?;
    export::json(&mut std::io::stdout(), &report)
        .map_err(LabError::file(Path::new("standard output")))?;
    Ok(ExitCode::SUCCESS)
}

fn read_plan<T: DeserializeOwned>(path: &Path) -> Result<T, LabError> {
    let text = std::fs::read_to_string(path).map_err(LabError::file(path))?;
    serde_json::from_str(&text).map_err(LabError::content(path.display().to_string()))
}

/// Becomes true when a signal comes.
fn stop() -> Result<Arc<AtomicBool>, LabError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signal_hook::flag::register(signal as i32, Arc::clone(&stop))
            .map_err(|cause| LabError::Start { program: format!("catching {signal}"), cause })?;
    }
    Ok(stop)
}
