//! The command line: raw arguments become one typed run, once.

mod live;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use measure::classes::{self, SizeClasses};
use measure::export::{self, table::Table};
use measure::identity::CONTENT_BYTES_MAX;
use measure::live::LiveError;
use measure::matcher::Rules;
use measure::messages;
use measure::offline::{self, OpenError, Place};
use measure::results::{self, ErrorBound, FlowLine, Message, Results};
use measure::session::Settings;
use measure::source::Tap;
use measure::statistics::EXACT_MAX;

/// One-way delay, jitter, loss and flow completion time between two taps.
#[derive(Parser)]
#[command(name = "lanesplit-measure", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure from capture files: one of each tap, or one pcapng file with both taps as interfaces
    Pcap(Pcap),
    /// Measure from two network interfaces
    Live(live::Live),
}

#[derive(Args)]
struct Pcap {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    rules: RuleArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Args)]
#[command(group(ArgGroup::new("input").required(true).args(["ingress", "file"])))]
struct InputArguments {
    /// Capture of the tap before the WAN
    #[arg(long, value_name = "CAPTURE", requires = "egress")]
    ingress: Option<PathBuf>,
    /// Capture of the tap behind the WAN
    #[arg(long, value_name = "CAPTURE", requires = "ingress")]
    egress: Option<PathBuf>,
    /// One pcapng capture of both taps
    #[arg(
        long,
        value_name = "CAPTURE",
        requires_all = ["ingress_interface", "egress_interface"],
        conflicts_with_all = ["ingress", "egress"],
    )]
    file: Option<PathBuf>,
    /// Interface of the ingress tap in its capture: its number
    #[arg(long, value_name = "INTERFACE")]
    ingress_interface: Option<u32>,
    /// Interface of the egress tap in its capture: its number
    #[arg(long, value_name = "INTERFACE")]
    egress_interface: Option<u32>,
}

#[derive(Args)]
struct RuleArguments {
    /// Two sightings of one packet are no further apart than this
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = window)]
    window: Duration,
    /// A copy this soon after another at one tap can be a duplicate
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = window)]
    duplicate_window: Duration,
    /// The clock of egress less the clock of ingress, like 5us or -3ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset,
        allow_hyphen_values = true)]
    offset: i64,
    /// Every flow goes from ingress to egress, whichever tap saw it first
    #[arg(long)]
    one_way: bool,
    /// Bytes behind the TCP or UDP header that tell packets apart; by default 64, or what both captures kept
    #[arg(long, value_name = "BYTES", value_parser = content_bytes)]
    content_bytes: Option<usize>,
    /// Most packets in memory
    #[arg(long, value_name = "PACKETS", default_value_t = Rules::default().packets_max)]
    memory: usize,
    /// Most flows in memory
    #[arg(long, value_name = "FLOWS", default_value_t = Settings::default().flows_max)]
    flows_max: usize,
    /// Most samples of a series whose percentiles are exact; of more they are rounded to three digits
    #[arg(long, value_name = "SAMPLES", default_value_t = EXACT_MAX)]
    exact_samples: usize,
    /// The largest number of packets of each size class of flows
    #[arg(long, value_name = "PACKETS,...", default_value = classes::DEFAULT,
        value_parser = SizeClasses::parse)]
    classes: SizeClasses,
    /// How far a time may be off, as `calibrate` found it; by default the unit of the stamps
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    error_bound: Option<Duration>,
}

#[derive(Args)]
struct OutputArguments {
    /// Print the results as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Where to write the flows, a line of JSON each
    #[arg(long, value_name = "FILE.jsonl")]
    flows: Option<PathBuf>,
}

/// Why nothing, or not everything, could be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error("cannot write {}: {cause}; check that its folder exists and may be written", path.display())]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("{} is named twice: give every capture and every result a file of its own", path.display())]
    SameFile { path: PathBuf },
}

/// Exit status: 0, 1 when something could not be read or written, 2 when the command line is wrong.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Pcap(arguments) => pcap(&arguments),
        Command::Live(arguments) => live::run(&arguments),
    };
    match done {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("lanesplit-measure: {failure}");
            match failure {
                Failure::SameFile { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn pcap(arguments: &Pcap) -> Result<ExitCode, Failure> {
    let places = arguments.input.places();
    arguments.output.refuse_inputs(&places)?;
    let settings = arguments.rules.settings();
    let [ingress, egress] = &places;
    let content_bytes = arguments.rules.content_bytes;
    let (mut found, failures) = offline::run([ingress, egress], settings, content_bytes, None)?;
    let bound = arguments.rules.error_bound();
    let flows: Vec<FlowLine> = results::flow_lines(&found, bound.ns).collect();
    let mut results = Results::of(&mut found, &flows, &arguments.rules.classes, bound);
    assert!(results.balances(), "packets are not accounted for: {results:?}");
    for tap in Tap::BOTH {
        let result = results.tap_mut(tap);
        result.source = places[tap.index()].to_string();
        if let Some(failure) = &failures[tap.index()] {
            result.whole = false;
            results.messages.push(Message::damaged(tap, failure));
        }
    }
    if offline::same(ingress, egress) {
        results.messages.push(Message::same_file(&ingress.path));
    }
    let more = messages::of(&results, &found.taps);
    results.messages.extend(more);
    arguments.output.write(&results, &flows)?;
    let is_whole = failures.iter().all(Option::is_none);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl InputArguments {
    fn places(&self) -> [Place; 2] {
        let place = |own: &Option<PathBuf>, interface| Place {
            path: own.clone().or_else(|| self.file.clone()).expect("clap requires one of the two"),
            interface,
        };
        [place(&self.ingress, self.ingress_interface), place(&self.egress, self.egress_interface)]
    }
}

impl RuleArguments {
    fn settings(&self) -> Settings {
        Settings {
            rules: Rules {
                window_ns: self.window.as_nanos() as u64,
                duplicate_window_ns: self.duplicate_window.as_nanos() as u64,
                packets_max: self.memory,
                ..Rules::default()
            },
            offset_ns: self.offset,
            one_way: self.one_way,
            exact_max: self.exact_samples,
            flows_max: self.flows_max,
            ..Settings::default()
        }
    }

    fn error_bound(&self) -> ErrorBound {
        match self.error_bound {
            Some(bound) => {
                ErrorBound { ns: Some(bound.as_nanos() as u64), from: "--error-bound".into() }
            }
            None => ErrorBound { ns: None, from: "the rig was not calibrated".into() },
        }
    }
}

impl OutputArguments {
    fn refuse_inputs(&self, inputs: &[Place]) -> Result<(), Failure> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut seen: Vec<PathBuf> = inputs.iter().map(|place| real(&place.path)).collect();
        for path in [&self.flows].into_iter().flatten() {
            if seen.contains(&real(path)) {
                return Err(Failure::SameFile { path: path.clone() });
            }
            seen.push(real(path));
        }
        Ok(())
    }

    fn write(&self, results: &Results, flows: &[FlowLine]) -> Result<(), Failure> {
        for message in &results.messages {
            eprintln!("lanesplit-measure: {}: {}", message.kind, message.text);
        }
        if let Some(path) = &self.flows {
            write_file(path, |file| export::json_lines(file, flows))?;
        }
        let stdout = &mut std::io::stdout().lock();
        let shown = match self.json {
            true => export::json(stdout, results),
            false => write!(stdout, "{}", Table(results)),
        };
        shown.map_err(|cause| Failure::Write { path: "standard output".into(), cause })
    }
}

fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    File::create(path)
        .map(BufWriter::new)
        .and_then(|mut file| write(&mut file).and_then(|()| file.flush()))
        .map_err(|cause| Failure::Write { path: path.to_owned(), cause })
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give a number and a unit, as 200ms, 5us or 1s"))
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    match window <= Duration::from_secs(3600) {
        true => Ok(window),
        false => Err("more than an hour; a packet does not take that long".into()),
    }
}

fn offset(text: &str) -> Result<i64, String> {
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let ns = i64::try_from(duration(size)?.as_nanos())
        .map_err(|_| "an offset of more than 292 years".to_owned())?;
    Ok(sign * ns)
}

fn content_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= CONTENT_BYTES_MAX => Ok(bytes),
        _ => Err(format!("give a number from 0 to {CONTENT_BYTES_MAX}")),
    }
}
