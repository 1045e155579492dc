//! `lanesplit-replay`: parse arguments, run captures through the splitter, show what happened.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use dataplane::batch::PortId;
use dataplane::capture::CaptureError;
use dataplane::config::{self, Config, ConfigError};
use dataplane::counters;
use dataplane::flow::classifier::Policy;
use dataplane::gateway::Gateway;
use pcap_tests::lives::Lives;
use pcap_tests::replay::routed::{self, Files, SetupError};
use pcap_tests::{bench, replay, sweep};

/// What would splitting do to this traffic? The gateway's own splitter, fed from capture files.
#[derive(Parser)]
#[command(name = "lanesplit-replay", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run captures through the gateway; write the frames that leave it, its flows and its counters
    ///
    /// Captures are pcap or pcapng, plain or gzip-compressed. Frames leave in the format, with the times and
    /// in the order in which they came; an output is compressed when its name ends in .gz.
    ///
    /// With a routed configuration both sides run together, by their times: --wan-out and --lan-out get whatever leaves by
    /// that port, encapsulated, decapsulated, in fragments, ICMP errors among it. The configuration must tell ports,
    /// neighbours and routes ([routed.static_ports] and what follows it in configs/default.toml).
    Run(Run),
    /// Compare thresholds: the share of flows, packets and bytes that each puts into each lane
    Sweep(SweepArguments),
    /// Measure the way of a packet through a worker, beside what the machine's memory allows
    Bench(BenchArguments),
}

#[derive(Args)]
#[command(group(ArgGroup::new("inputs").required(true).multiple(true).args(["lan_in", "wan_in"])))]
struct Run {
    #[command(flatten)]
    rule: RuleArguments,
    /// How flows become classes; overrides the configuration
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyName>,
    /// Packets of a flow that travel short; overrides the configuration
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..))]
    threshold: Option<u32>,
    /// Capture of what comes in from the LAN
    #[arg(long, value_name = "CAPTURE")]
    lan_in: Option<PathBuf>,
    /// Where to write what leaves towards the WAN
    #[arg(long, value_name = "CAPTURE")]
    wan_out: Option<PathBuf>,
    /// Capture of what comes in from the WAN
    #[arg(long, value_name = "CAPTURE")]
    wan_in: Option<PathBuf>,
    /// Where to write what leaves towards the LAN
    #[arg(long, value_name = "CAPTURE")]
    lan_out: Option<PathBuf>,
    /// Where to write every life of every flow, a line of JSON each, in order of first packet
    #[arg(long, value_name = "FILE.jsonl")]
    flows: Option<PathBuf>,
    /// Where to write the counters as JSON
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Print the counters as JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SweepArguments {
    #[command(flatten)]
    rule: RuleArguments,
    /// Thresholds to compare, in packets
    #[arg(
        long,
        value_name = "PACKETS,...",
        value_delimiter = ',',
        default_value = "1,2,5,10,20,40,100",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    thresholds: Vec<u32>,
    /// Capture of what comes in from the LAN
    #[arg(long, value_name = "CAPTURE")]
    lan_in: PathBuf,
    /// Where to draw the long lane's shares over the threshold
    #[arg(long, value_name = "FILE.svg")]
    figure: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct BenchArguments {
    /// Numbers of flows in the table, all equally busy
    #[arg(
        long,
        value_name = "FLOWS,...",
        value_delimiter = ',',
        default_value = "1,10000,1000000",
        value_parser = clap::value_parser!(u32).range(1..=16_000_000)
    )]
    flows: Vec<u32>,
    /// Also measure what a flood of new flows costs the largest of these tables
    #[arg(long)]
    flood: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RuleArguments {
    /// Configuration file; without it the defaults apply, which are those of configs/default.toml
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Silence after which a flow has ended, like 30s; overrides the configuration
    #[arg(long, value_name = "DURATION", value_parser = idle_timeout_ns)]
    idle_timeout: Option<u64>,
    /// Do not start a flow afresh at a SYN; overrides the configuration
    #[arg(long)]
    no_restart_on_syn: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PolicyName {
    /// Short up to the threshold, long after it
    Split,
    /// A hash of the flow picks its lane
    Ecmp,
    /// Packets take the lanes in turn
    Spray,
    /// Nothing is classified
    None,
}

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("cannot write {}: {cause}; check that its folder exists and may be written", path.display())]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("{} is named twice: give every capture and every result a file of its own", path.display())]
    SameFile { path: PathBuf },
    #[error(
        "{output} has nothing to write without {input}: inline, what comes in on one port leaves by the other"
    )]
    NoInput { output: &'static str, input: &'static str },
    #[error("{}: {cause}", path.display())]
    Setup { path: PathBuf, cause: SetupError },
    #[error("cannot draw {}: {cause}", path.display())]
    Draw { path: PathBuf, cause: String },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Sweep(arguments) => run_sweep(&arguments),
        Command::Bench(arguments) => run_bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            match failure {
                Failure::Config(_)
                | Failure::SameFile { .. }
                | Failure::NoInput { .. }
                | Failure::Setup { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: &Run) -> Result<(), Failure> {
    let mut config = arguments.rule.config()?;
    if let Some(policy) = arguments.policy {
        config.rule.policy = match policy {
            PolicyName::Split => Policy::Split,
            PolicyName::Ecmp => Policy::Ecmp,
            PolicyName::Spray => Policy::Spray,
            PolicyName::None => Policy::None,
        };
    }
    if let Some(threshold) = arguments.threshold {
        config.rule.threshold_packets = threshold;
    }
    let Run { lan_in, wan_out, wan_in, lan_out, flows, report, .. } = arguments;
    refuse_same_file(&[lan_in, wan_out, wan_in, lan_out, flows, report])?;

    let mut gateway = routed::gateway(&config, replay::secret()).map_err(|cause| {
        let path = arguments.rule.config.clone().unwrap_or_default();
        Failure::Setup { path, cause }
    })?;
    let mut lives = Lives::default();
    let outcome = if config.routed.is_some() {
        let files = Files {
            inputs: [lan_in.as_deref(), wan_in.as_deref()],
            outputs: [lan_out.as_deref(), wan_out.as_deref()],
        };
        routed::run(&mut gateway, &mut lives, &files)
    } else {
        run_inline(arguments, &mut gateway, &mut lives)?
    };
    gateway.settle();
    let counters = gateway.counters();
    assert!(counters.balances(), "packets are not accounted for: {counters:?}");

    // Whatever was read before an error is kept.
    if let Some(path) = flows {
        write_file(path, |file| lives.write_json_lines(file))?;
    }
    if let Some(path) = report {
        write_file(path, |file| write_json(file, &counters))?;
    }
    let shown = if arguments.json {
        write_json(&mut std::io::stdout(), &counters)
    } else {
        write!(std::io::stdout(), "{}{counters}", counters::heading())
    };
    shown.map_err(|cause| Failure::Write { path: "standard output".into(), cause })?;
    outcome.map_err(Failure::from)
}

/// One direction after the other: nothing that comes in from the WAN changes a flow of the LAN's.
fn run_inline(
    arguments: &Run,
    gateway: &mut Gateway,
    lives: &mut Lives,
) -> Result<Result<(), CaptureError>, Failure> {
    let Run { lan_in, wan_out, wan_in, lan_out, .. } = arguments;
    for (input, output, names) in
        [(lan_in, wan_out, ["--lan-in", "--wan-out"]), (wan_in, lan_out, ["--wan-in", "--lan-out"])]
    {
        if output.is_some() && input.is_none() {
            let [input, output] = names;
            return Err(Failure::NoInput { output, input });
        }
    }
    let directions = [(PortId::Lan, lan_in, wan_out), (PortId::Wan, wan_in, lan_out)];
    for (port, input, output) in directions {
        let Some(input) = input else { continue };
        let outcome = replay::run(gateway, lives, port, input, output.as_deref());
        if outcome.is_err() {
            return Ok(outcome);
        }
    }
    Ok(Ok(()))
}

fn run_sweep(arguments: &SweepArguments) -> Result<(), Failure> {
    let config = arguments.rule.config()?;
    refuse_same_file(&[&Some(arguments.lan_in.clone()), &arguments.figure])?;
    let (sweep, failure) = sweep::sweep(&config, &arguments.thresholds, &arguments.lan_in);
    if let Some(path) = &arguments.figure {
        sweep
            .draw(path)
            .map_err(|cause| Failure::Draw { path: path.clone(), cause: cause.to_string() })?;
    }
    let shown = if arguments.json {
        write_json(&mut std::io::stdout(), &sweep)
    } else {
        write!(std::io::stdout(), "{sweep}")
    };
    shown.map_err(|cause| Failure::Write { path: "standard output".into(), cause })?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

fn run_bench(arguments: &BenchArguments) -> Result<(), Failure> {
    let flows: Vec<usize> = arguments.flows.iter().map(|&flows| flows as usize).collect();
    let bench = bench::bench(&flows, arguments.flood);
    let shown = if arguments.json {
        write_json(&mut std::io::stdout(), &bench)
    } else {
        write!(std::io::stdout(), "{bench}")
    };
    shown.map_err(|cause| Failure::Write { path: "standard output".into(), cause })
}

impl RuleArguments {
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::defaults(),
        };
        if let Some(idle_timeout_ns) = self.idle_timeout {
            config.rule.idle_timeout_ns = idle_timeout_ns;
        }
        if self.no_restart_on_syn {
            config.rule.restart_on_syn = false;
        }
        Ok(config)
    }
}

fn idle_timeout_ns(text: &str) -> Result<u64, String> {
    config::idle_timeout_ns(text).map_err(|(message, remedy)| format!("{message}; {remedy}"))
}

/// Refuses to write over a file that is read or written elsewhere in the same run.
fn refuse_same_file(files: &[&Option<PathBuf>]) -> Result<(), Failure> {
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in files.iter().copied().flatten() {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.contains(&real) {
            return Err(Failure::SameFile { path: path.clone() });
        }
        seen.push(real);
    }
    Ok(())
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

fn write_json(output: &mut impl Write, value: &impl serde::Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, value)?;
    output.write_all(b"\n")
}

/// The problems of a configuration each with its line; anything else in a sentence.
fn complain(failure: &Failure) {
    eprintln!("lanesplit-replay: {failure}");
    if let Failure::Config(ConfigError::Problems(problems)) = failure {
        config::show(problems);
    }
}
