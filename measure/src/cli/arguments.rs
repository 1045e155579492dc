//! The arguments of every command, as clap reads them, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use measure::calibration::Calibration;
use measure::classes::{self, SizeClasses};
use measure::identity::CONTENT_BYTES_MAX;
use measure::matcher::Rules;
use measure::offline::Place;
use measure::results::ErrorBound;
use measure::session::Settings;
use measure::source::file::{NameError, interface_named};
use measure::statistics::EXACT_MAX;

use super::{Failure, live};

/// One-way delay, jitter, loss and flow completion time between two taps.
#[derive(Parser)]
#[command(name = "lanesplit-measure", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Measure from capture files: one of each tap, or one pcapng file with both taps as interfaces
    Pcap(Box<Pcap>),
    /// Measure from two network interfaces, as it happens
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
pub(super) struct Calibrate {
    #[command(flatten)]
    pub(super) input: InputArguments,
    /// Listen: --ingress and --egress are network interfaces, not captures
    #[arg(long, conflicts_with_all = ["file", "ingress_interface", "egress_interface"])]
    pub(super) live: bool,
    #[command(flatten)]
    pub(super) listening: live::ListeningArguments,
    /// Where to write what was found, for --calibration of other runs
    #[arg(long, value_name = "FILE.json")]
    pub(super) output: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct CompareArguments {
    /// Folder of the first run, as `pcap --output` wrote it
    pub(super) a: PathBuf,
    /// Folder of the second run
    pub(super) b: PathBuf,
    /// Where to write the comparison with its figures
    #[arg(long, value_name = "FILE.html")]
    pub(super) html: Option<PathBuf>,
    /// Samples of the bootstrap
    #[arg(long, value_name = "SAMPLES", default_value_t = 2000)]
    pub(super) samples: usize,
    /// Seed of the bootstrap: the same seed gives the same intervals
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) seed: u64,
    /// Print the comparison as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct ReportArguments {
    /// Folder of the run, as `pcap --output` wrote it
    pub(super) run: PathBuf,
    /// Where to write the report
    #[arg(long, value_name = "FILE.html")]
    pub(super) html: PathBuf,
}

#[derive(Args)]
pub(super) struct BenchArguments {
    /// Packets of the ingress capture
    #[arg(long, value_name = "PACKETS", default_value_t = 2_000_000)]
    pub(super) packets: u64,
    /// How often the captures are measured; the fastest counts
    #[arg(long, value_name = "ROUNDS", default_value_t = 5)]
    pub(super) rounds: usize,
    /// Where the captures are written, 80 bytes a packet, and removed again
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    pub(super) folder: PathBuf,
    /// Have tshark extract the fields of the same files
    #[arg(long)]
    pub(super) tshark: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Pcap {
    #[command(flatten)]
    pub(super) input: InputArguments,
    #[command(flatten)]
    pub(super) rules: RuleArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

#[derive(Args)]
#[command(group(ArgGroup::new("input").required(true).args(["ingress", "file"])))]
pub(super) struct InputArguments {
    /// Capture of the tap before the WAN
    #[arg(long, value_name = "CAPTURE", requires = "egress")]
    pub(super) ingress: Option<PathBuf>,
    /// Capture of the tap behind the WAN
    #[arg(long, value_name = "CAPTURE", requires = "ingress")]
    pub(super) egress: Option<PathBuf>,
    /// One pcapng capture of both taps
    #[arg(
        long,
        value_name = "CAPTURE",
        requires_all = ["ingress_interface", "egress_interface"],
        conflicts_with_all = ["ingress", "egress"],
    )]
    pub(super) file: Option<PathBuf>,
    /// Interface of the ingress tap in its pcapng capture: its number, or its name
    #[arg(long, value_name = "INTERFACE")]
    pub(super) ingress_interface: Option<String>,
    /// Interface of the egress tap in its pcapng capture: its number, or its name
    #[arg(long, value_name = "INTERFACE")]
    pub(super) egress_interface: Option<String>,
}

#[derive(Args)]
pub(super) struct RuleArguments {
    /// Two sightings of one packet are no further apart than this
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = window)]
    pub(super) window: Duration,
    /// A copy this soon after another at one tap can be a duplicate
    #[arg(long, value_name = "DURATION", default_value = "1ms", value_parser = window)]
    pub(super) duplicate_window: Duration,
    /// The clock of egress less the clock of ingress, like 5us or -3ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = offset,
        allow_hyphen_values = true)]
    pub(super) offset: i64,
    /// Estimate the offset from flows that were seen both ways, with a first pass over the captures
    #[arg(long, conflicts_with = "offset")]
    pub(super) estimate_offset: bool,
    /// Every flow goes from ingress to egress, whichever tap saw it first
    #[arg(long)]
    pub(super) one_way: bool,
    /// Bytes behind the TCP or UDP header that tell packets apart; by default 64, or what both captures kept
    #[arg(long, value_name = "BYTES", value_parser = content_bytes)]
    pub(super) content_bytes: Option<usize>,
    /// Most packets in memory
    #[arg(long, value_name = "PACKETS", default_value_t = Rules::default().packets_max)]
    pub(super) memory: usize,
    /// Most flows in memory
    #[arg(long, value_name = "FLOWS", default_value_t = Settings::default().flows_max)]
    pub(super) flows_max: usize,
    /// A flow that is silent for longer has ended, and a later packet begins another one; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub(super) flow_timeout: Duration,
    /// Most samples of a series whose percentiles are exact; of more they are rounded to three digits
    #[arg(long, value_name = "SAMPLES", default_value_t = EXACT_MAX)]
    pub(super) exact_samples: usize,
    /// The largest number of packets of each size class of flows
    #[arg(long, value_name = "PACKETS,...", default_value = classes::DEFAULT,
        value_parser = SizeClasses::parse)]
    pub(super) classes: SizeClasses,
    /// How far a time may be off, as `calibrate` found it; by default the unit of the stamps
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) error_bound: Option<Duration>,
    /// What `calibrate` found of this rig
    #[arg(long, value_name = "FILE.json", conflicts_with = "error_bound")]
    pub(super) calibration: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct OutputArguments {
    /// Print the results as JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
    /// Where to write the flows, a line of JSON each
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) flows: Option<PathBuf>,
    /// Where to write what became of every packet, as Parquet
    #[arg(long, value_name = "FILE.parquet")]
    pub(super) packets_parquet: Option<PathBuf>,
    /// Where to write the flows, as Parquet
    #[arg(long, value_name = "FILE.parquet")]
    pub(super) flows_parquet: Option<PathBuf>,
    /// Where to write the delays, as an HDR histogram log
    #[arg(long, value_name = "FILE.hlog")]
    pub(super) hdr: Option<PathBuf>,
    /// Where to write the report: one HTML file with its figures
    #[arg(long, value_name = "FILE.html")]
    pub(super) html: Option<PathBuf>,
    /// A folder for results.json and flows.jsonl, from which `report` and `compare` work
    #[arg(long, value_name = "FOLDER")]
    pub(super) output: Option<PathBuf>,
}

impl InputArguments {
    pub(super) fn places(&self) -> Result<[Place; 2], NameError> {
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
    pub(super) fn settings(&self) -> Settings {
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
            flow_timeout_ns: match self.flow_timeout {
                Duration::ZERO => u64::MAX,
                timeout => timeout.as_nanos().try_into().unwrap_or(u64::MAX),
            },
            ..Settings::default()
        }
    }

    /// How far a delay may be off: as was said, as `calibrate` found, or at least the unit of the stamps.
    pub(super) fn error_bound(
        &self,
        resolution_ns: [Option<u64>; 2],
    ) -> Result<ErrorBound, Failure> {
        if let Some(bound) = self.error_bound {
            let ns = Some(bound.as_nanos() as u64);
            return Ok(ErrorBound { ns, calibrated: true, from: "--error-bound".into() });
        }
        if let Some(path) = &self.calibration {
            let calibration = Calibration::load(path).map_err(Failure::Calibration)?;
            let from = format!("calibration {}", path.display());
            let ns = Some(calibration.error_bound_ns);
            return Ok(ErrorBound { ns, calibrated: true, from });
        }
        let ns = resolution_ns.into_iter().flatten().max();
        let from = "the unit of the stamps; `calibrate` finds what the rig adds";
        Ok(ErrorBound { ns, calibrated: false, from: from.into() })
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
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
