//! The command line: raw arguments become one typed run, once; what it finds is written and shown.

mod arguments;
mod live;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::{
    Arguments, BenchArguments, Calibrate, Command, CompareArguments, OutputArguments, Pcap,
    ReportArguments, RuleArguments,
};
use clap::Parser;
use dataplane::capture::CaptureError;
use measure::bench::{self, BenchError};
use measure::calibration::{Calibration, CalibrationError};
use measure::compare::Comparison;
use measure::export::parquet::PacketFile;
use measure::export::{self, table::Table};
use measure::flow_line::{self, FlowLine};
use measure::live::{LiveError, LiveTap};
use measure::measurement::Rows;
use measure::messages;
use measure::offline::{self, OpenError, Place};
use measure::results::{Message, Results};
use measure::session::{Found, Settings};
use measure::source::Tap;
use measure::source::file::NameError;
use measure::stored::{self, StoredError};

/// Why nothing, or not everything, could be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(
        "--estimate-offset takes two passes, and a live run has one: one machine stamps both taps by one clock, so \
         leave it out; or capture to files and use `pcap`"
    )]
    EstimateLive,
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
    let flows: Vec<FlowLine> = flow_line::flow_lines(&run.found, bound.calibrated_ns()).collect();
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
    if offline::same(ingress, egress) {
        let Message { kind, text } = Message::same_file(&ingress.path);
        eprintln!("lanesplit-measure: {kind}: {text}");
    }
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
