//! The command line: raw arguments become one typed run, once.

mod live;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use dataplane::capture::CaptureError;
use measure::bench::{self, BenchError};
use measure::calibration::{Calibration, CalibrationError};
use measure::classes::{self, SizeClasses};
use measure::compare::Comparison;
use measure::export::parquet::PacketFile;
use measure::export::{self, table::Table};
use measure::identity::CONTENT_BYTES_MAX;
use measure::live::{LiveError, LiveTap};
use measure::matcher::Rules;
use measure::measurement::Rows;
use measure::messages;
use measure::offline::{self, OpenError, Place};
use measure::results::{self, ErrorBound, FlowLine, Message, Results};
use measure::session::{Found, Settings};
use measure::source::Tap;
use measure::source::file::{NameError, interface_named};
use measure::statistics::EXACT_MAX;
use measure::stored::{self, StoredError};

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
    Pcap(Box<Pcap>),
    /// Measure from two network interfaces
    Live(Box<live::Live>),
    /// Find out how far a rig's times are off: one and the same tap on both ports
    Calibrate(Calibrate),
    /// Compare two runs: is B faster than A, and can this data tell?
    Compare(CompareArguments),
    /// Write the report of a run that was stored with `pcap --output`
    Report(ReportArguments),
    /// Measure the measuring: two captures of made-up traffic, beside tshark
    Bench(BenchArguments),
}

#[derive(Args)]
struct Calibrate {
    #[command(flatten)]
    input: InputArguments,
    /// Listen: --ingress and --egress are network interfaces, not captures
    #[arg(long, conflicts_with = "file")]
    live: bool,
    #[command(flatten)]
    listening: live::ListeningArguments,
    /// Where to write what was found, for --calibration of other runs
    #[arg(long, value_name = "FILE.json")]
    output: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CompareArguments {
    /// Folder of the first run, as `pcap --output` wrote it
    a: PathBuf,
    /// Folder of the second run
    b: PathBuf,
    /// Where to write the comparison with its figures
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Samples of the bootstrap
    #[arg(long, value_name = "SAMPLES", default_value_t = 2000)]
    samples: usize,
    /// Seed of the bootstrap: the same seed gives the same intervals
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ReportArguments {
    /// Folder of the run, as `pcap --output` wrote it
    run: PathBuf,
    /// Where to write the report
    #[arg(long, value_name = "FILE.html")]
    html: PathBuf,
}

#[derive(Args)]
struct BenchArguments {
    /// Packets of the ingress capture
    #[arg(long, value_name = "PACKETS", default_value_t = 2_000_000)]
    packets: u64,
    /// How often the captures are measured; the fastest counts
    #[arg(long, value_name = "ROUNDS", default_value_t = 5)]
    rounds: usize,
    /// Where the captures are written, 80 bytes a packet, and removed again
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    folder: PathBuf,
    /// Have tshark extract the fields of the same files
    #[arg(long)]
    tshark: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
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
    /// Interface of the ingress tap in its pcapng capture: its number, or its name
    #[arg(long, value_name = "INTERFACE")]
    ingress_interface: Option<String>,
    /// Interface of the egress tap in its pcapng capture: its number, or its name
    #[arg(long, value_name = "INTERFACE")]
    egress_interface: Option<String>,
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
    /// Estimate the offset from flows that were seen both ways, with a first pass over the captures
    #[arg(long, conflicts_with = "offset")]
    estimate_offset: bool,
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
    /// What `calibrate` found of this rig
    #[arg(long, value_name = "FILE.json", conflicts_with = "error_bound")]
    calibration: Option<PathBuf>,
}

#[derive(Args)]
struct OutputArguments {
    /// Print the results as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Where to write the flows, a line of JSON each
    #[arg(long, value_name = "FILE.jsonl")]
    flows: Option<PathBuf>,
    /// Where to write what became of every packet, as Parquet
    #[arg(long, value_name = "FILE.parquet")]
    packets_parquet: Option<PathBuf>,
    /// Where to write the flows, as Parquet
    #[arg(long, value_name = "FILE.parquet")]
    flows_parquet: Option<PathBuf>,
    /// Where to write the delays, as an HDR histogram log
    #[arg(long, value_name = "FILE.hlog")]
    hdr: Option<PathBuf>,
    /// Where to write the report: one HTML file with its figures
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// A folder for results.json and flows.jsonl, from which `report` and `compare` work
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Why nothing, or not everything, could be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error("cannot write {}: {cause}; check that its folder exists and may be written", path.display())]
    Write { path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Calibration(CalibrationError),
    #[error(
        "--estimate-offset takes two passes, and a live run has one: one machine stamps both taps by one clock, so \
         leave it out; or capture to files and use `pcap`"
    )]
    EstimateLive,
    #[error("cannot draw {}: {cause}", path.display())]
    Draw { path: PathBuf, cause: String },
    #[error("{} is named twice: give every capture and every result a file of its own", path.display())]
    SameFile { path: PathBuf },
}

impl Failure {
    fn write(path: &Path) -> impl Fn(std::io::Error) -> Failure {
        move |cause| Failure::Write { path: path.to_owned(), cause }
    }
}

/// The window while the offset is estimated.
const ESTIMATE_WINDOW_NS: u64 = 10_000_000_000;

/// Exit status: 0, 1 when something could not be read or written, 2 when the command line is wrong.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Pcap(arguments) => pcap(&arguments),
        Command::Live(arguments) => live::run(&arguments),
        Command::Calibrate(arguments) => calibrate(&arguments),
        Command::Compare(arguments) => compare(&arguments),
        Command::Report(arguments) => report(&arguments),
        Command::Bench(arguments) => run_bench(&arguments),
    };
    match done {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("lanesplit-measure: {failure}");
            match failure {
                Failure::SameFile { .. } | Failure::EstimateLive => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn pcap(arguments: &Pcap) -> Result<ExitCode, Failure> {
    let places = arguments.input.places()?;
    arguments.output.refuse_inputs(&places)?;
    let (rules, output) = (&arguments.rules, &arguments.output);
    let [ingress, egress] = &places;
    let mut settings = rules.settings();
    let mut notes = Vec::new();
    if offline::same(ingress, egress) {
        notes.push(Message::same_file(&ingress.path));
    }
    if rules.estimate_offset {
        let window_ns = ESTIMATE_WINDOW_NS.max(settings.rules.window_ns);
        let estimate = offline::estimate_offset(
            [ingress, egress],
            settings.clone(),
            rules.content_bytes,
            window_ns,
        )?;
        settings.offset_ns = estimate.offset_ns();
        notes.push(Message::estimate(&estimate));
    }
    let rows = output.rows()?;
    let outcome = offline::run([ingress, egress], settings, rules.content_bytes, rows)?;
    let offline::Outcome { found, failures, resolution_ns } = outcome;
    let sources = places.each_ref().map(Place::to_string);
    let run = Ended { found, sources, failures, resolution_ns, live: None, notes };
    conclude(run, rules, output)
}

/// A run that is over, wherever its packets came from.
struct Ended {
    found: Found,
    /// What the taps are called.
    sources: [String; 2],
    /// Why a tap could not be read to its end.
    failures: [Option<CaptureError>; 2],
    resolution_ns: [Option<u64>; 2],
    /// When the taps were network interfaces.
    live: Option<[LiveTap; 2]>,
    /// What is to be said before anything else.
    notes: Vec<Message>,
}

/// Writes and shows all that a run has found.
fn conclude(
    mut run: Ended,
    rules: &RuleArguments,
    output: &OutputArguments,
) -> Result<ExitCode, Failure> {
    let bound = rules.error_bound(run.resolution_ns)?;
    let flows: Vec<FlowLine> = results::flow_lines(&run.found, bound.ns).collect();
    let mut results = Results::of(&mut run.found, &flows, &rules.classes, bound);
    assert!(results.balances(), "packets are not accounted for: {results:?}");
    results.offset.estimated = rules.estimate_offset;
    results.messages = run.notes;
    for tap in Tap::BOTH {
        let result = results.tap_mut(tap);
        result.source.clone_from(&run.sources[tap.index()]);
        result.resolution_ns = run.resolution_ns[tap.index()];
        if let Some(failure) = &run.failures[tap.index()] {
            result.whole = false;
            results.messages.push(Message::damaged(tap, failure));
        }
    }
    for (tap, live) in Tap::BOTH.into_iter().zip(run.live.into_iter().flatten()) {
        let result = results.tap_mut(tap);
        result.dropped_by_capture = Some(live.dropped);
        result.whole = live.gone.is_none();
        result.live = Some(live);
    }
    let more = messages::of(&results, &run.found.taps);
    results.messages.extend(more);
    if let Some(path) = &output.hdr {
        write_file(path, |file| export::hdr::log(file, &run.found))?;
    }
    if let (Some(rows), Some(path)) = (run.found.measurement.rows.take(), &output.packets_parquet) {
        rows.finish(&run.found.lanes).map_err(Failure::write(path))?;
    }
    output.write(&results, &flows)?;
    let is_whole = Tap::BOTH.iter().all(|&tap| results.tap(tap).is_some_and(|tap| tap.whole));
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn calibrate(arguments: &Calibrate) -> Result<ExitCode, Failure> {
    if arguments.live {
        return live::calibrate(arguments);
    }
    let places = arguments.input.places()?;
    let [ingress, egress] = &places;
    let settings = Settings { one_way: true, ..Settings::default() };
    let outcome = offline::run([ingress, egress], settings, None, None)?;
    for (tap, failure) in Tap::BOTH.iter().zip(&outcome.failures) {
        if let Some(failure) = failure {
            eprintln!("lanesplit-measure: {}", Message::damaged(*tap, failure).text);
        }
    }
    let calibration =
        Calibration::of(outcome.found, outcome.resolution_ns).map_err(Failure::Calibration)?;
    if let Some(path) = &arguments.output {
        write_file(path, |file| export::json(file, &calibration))?;
    }
    show(arguments.json, &calibration)?;
    let is_whole = outcome.failures.iter().all(Option::is_none);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compare(arguments: &CompareArguments) -> Result<ExitCode, Failure> {
    let CompareArguments { a, b, html, samples, seed, json } = arguments;
    let (a, b) = (stored::read(a)?, stored::read(b)?);
    let comparison = Comparison::of(&a, &b, *samples, *seed);
    if let Some(path) = html {
        let page = measure::report::comparison(&a, &b, &comparison);
        let page = page.map_err(|cause| Failure::Draw { path: path.clone(), cause })?;
        write_file(path, |file| file.write_all(page.as_bytes()))?;
    }
    show(*json, &comparison)?;
    Ok(ExitCode::SUCCESS)
}

fn report(arguments: &ReportArguments) -> Result<ExitCode, Failure> {
    let run = stored::read(&arguments.run)?;
    write_report(&arguments.html, &run.results, &run.flows)?;
    Ok(ExitCode::SUCCESS)
}

fn write_report(path: &Path, results: &Results, flows: &[FlowLine]) -> Result<(), Failure> {
    let page = measure::report::page(results, flows);
    let page = page.map_err(|cause| Failure::Draw { path: path.to_owned(), cause })?;
    write_file(path, |file| file.write_all(page.as_bytes()))
}

fn show<T: serde::Serialize + std::fmt::Display>(json: bool, value: &T) -> Result<(), Failure> {
    let stdout = &mut std::io::stdout().lock();
    let shown = match json {
        true => export::json(stdout, value),
        false => write!(stdout, "{value}"),
    };
    shown.map_err(|cause| Failure::Write { path: "standard output".into(), cause })
}

fn run_bench(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let BenchArguments { packets, rounds, folder, tshark, json } = arguments;
    let bench = bench::run(folder, *packets, *rounds, *tshark)?;
    show(*json, &bench)?;
    Ok(ExitCode::SUCCESS)
}

impl InputArguments {
    fn places(&self) -> Result<[Place; 2], NameError> {
        let place = |own: &Option<PathBuf>, interface: &Option<String>| {
            let path = own.clone().or_else(|| self.file.clone());
            let path = path.expect("clap requires one of the two");
            let interface = match interface {
                None => None,
                Some(name) => Some(match name.parse() {
                    Ok(number) => number,
                    Err(_) => interface_named(&path, name)?,
                }),
            };
            Ok::<_, NameError>(Place { path, interface })
        };
        let ingress = place(&self.ingress, &self.ingress_interface)?;
        Ok([ingress, place(&self.egress, &self.egress_interface)?])
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

    /// How far a delay may be off: as was said, as `calibrate` found, or at least the unit of the stamps.
    fn error_bound(&self, resolution_ns: [Option<u64>; 2]) -> Result<ErrorBound, Failure> {
        if let Some(bound) = self.error_bound {
            let ns = Some(bound.as_nanos() as u64);
            return Ok(ErrorBound { ns, from: "--error-bound".into() });
        }
        if let Some(path) = &self.calibration {
            let calibration = Calibration::load(path).map_err(Failure::Calibration)?;
            let from = format!("calibration {}", path.display());
            return Ok(ErrorBound { ns: Some(calibration.error_bound_ns), from });
        }
        let ns = resolution_ns.into_iter().flatten().max();
        let from = "the unit of the stamps; what the rig adds is not known, `calibrate` finds it";
        Ok(ErrorBound { ns, from: from.into() })
    }
}

impl OutputArguments {
    fn refuse_inputs(&self, inputs: &[Place]) -> Result<(), Failure> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut seen: Vec<PathBuf> = inputs.iter().map(|place| real(&place.path)).collect();
        let outputs =
            [&self.flows, &self.packets_parquet, &self.flows_parquet, &self.hdr, &self.html];
        for path in outputs.into_iter().flatten() {
            if seen.contains(&real(path)) {
                return Err(Failure::SameFile { path: path.clone() });
            }
            seen.push(real(path));
        }
        Ok(())
    }

    /// What gets every packet.
    fn rows(&self) -> Result<Option<Box<dyn Rows + Send>>, Failure> {
        let Some(path) = &self.packets_parquet else { return Ok(None) };
        Ok(Some(Box::new(PacketFile::create(path).map_err(Failure::write(path))?)))
    }

    fn write(&self, results: &Results, flows: &[FlowLine]) -> Result<(), Failure> {
        for message in &results.messages {
            eprintln!("lanesplit-measure: {}: {}", message.kind, message.text);
        }
        if let Some(path) = &self.flows {
            write_file(path, |file| export::json_lines(file, flows))?;
        }
        if let Some(path) = &self.flows_parquet {
            export::parquet::flows(path, flows).map_err(Failure::write(path))?;
        }
        if let Some(folder) = &self.output {
            stored::write(folder, results, flows).map_err(Failure::write(folder))?;
        }
        if let Some(path) = &self.html {
            write_report(path, results, flows)?;
        }
        let stdout = &mut std::io::stdout().lock();
        let shown = match self.json {
            true => export::json(stdout, &results.brief()),
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
