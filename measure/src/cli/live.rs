//! `lanesplit-measure live`, and `calibrate --live`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use measure::calibration::Calibration;
use measure::export;
use measure::identity::{CONTENT_BYTES, FRAME_BYTES_MAX};
use measure::live::{self, Event, LiveSettings, LiveTap, Reason, Watch};
use measure::session::Settings;
use measure::source::listener::{TapSettings, Way};
use measure::source::timestamping::Wanted;

use super::arguments::{Calibrate, OutputArguments, RuleArguments, duration};
use super::{Ended, Failure, conclude, show as show_result, write_file};

#[derive(Args)]
pub(super) struct Live {
    #[command(flatten)]
    taps: TapArguments,
    #[command(flatten)]
    rules: RuleArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// Two network interfaces, and how they are listened to.
#[derive(Args)]
pub(super) struct TapArguments {
    /// Network interface of the tap before the WAN
    #[arg(long, value_name = "INTERFACE")]
    ingress: String,
    /// Network interface of the tap behind the WAN
    #[arg(long, value_name = "INTERFACE")]
    egress: String,
    #[command(flatten)]
    listening: ListeningArguments,
}

#[derive(Args)]
pub(super) struct ListeningArguments {
    /// Stop after this time; without it, on Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after so many frames at the ingress tap
    #[arg(long, value_name = "FRAMES")]
    packets: Option<u64>,
    /// How long to wait at the end for packets that are under way; by default the window
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    linger: Option<Duration>,
    /// Which way packets come
    #[arg(long, value_enum, default_value_t = Source::Packet)]
    source: Source,
    /// Whose time stamps
    #[arg(long, value_enum, default_value_t = Stamps::Best)]
    stamps: Stamps,
    /// Bytes kept of each frame
    #[arg(long, value_name = "BYTES", default_value_t = 192, value_parser = snap)]
    snap: u32,
    /// Size of the kernel's ring of each tap
    #[arg(long, value_name = "MIB", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=2048))]
    ring_mib: u32,
    /// Cores of the two readers; by default the first two that this process may use
    #[arg(long, value_name = "CORE,CORE", value_parser = cores)]
    cores: Option<[usize; 2]>,
    /// Leave GRO and LRO of the interfaces as they are; by default they are off while this runs
    #[arg(long)]
    keep_offloads: bool,
    /// No progress
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Source {
    /// A packet socket (AF_PACKET): copies, with every driver
    Packet,
    /// An XDP program (AF_XDP), which takes ALL packets from the rest of this machine: stamps in the driver, no drop
    /// in the kernel's network stack
    Xdp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stamps {
    /// The NIC's where it has them, else the kernel's
    Best,
    /// The NIC's, or nothing
    Hardware,
    /// The kernel's
    Software,
}

pub(super) fn run(arguments: &Live) -> Result<ExitCode, Failure> {
    let Live { taps, rules, output } = arguments;
    if rules.estimate_offset {
        return Err(Failure::EstimateLive);
    }
    let mut session = rules.settings();
    session.content_bytes = rules.content_bytes.unwrap_or(CONTENT_BYTES);
    let interfaces = [taps.ingress.as_str(), &taps.egress];
    let settings = taps.listening.settings(interfaces, session, rules.window);
    output.refuse_inputs(&[])?;
    let watch = Watch::new(output.rows()?);
    let mut show = Show::new(taps.listening.quiet, &settings);
    let outcome = live::run(&settings, watch, |event| show.event(&event))?;
    let ended = Ended {
        notes: live::about(&outcome),
        sources: settings.interfaces,
        failures: [None, None],
        resolution_ns: [Some(1); 2],
        live: Some(outcome.taps),
        found: outcome.found,
    };
    conclude(ended, rules, output)
}

/// Both ports see the same tap: what differs is the rig.
pub(super) fn calibrate(arguments: &Calibrate) -> Result<ExitCode, Failure> {
    let input = &arguments.input;
    let name = |path: &Option<PathBuf>| path.as_deref().map(|path| path.display().to_string());
    let (Some(ingress), Some(egress)) = (name(&input.ingress), name(&input.egress)) else {
        unreachable!("clap requires both when there is no --file");
    };
    let session = Settings { one_way: true, ..Settings::default() };
    let window = Duration::from_nanos(session.rules.window_ns);
    let settings = arguments.listening.settings([&ingress, &egress], session, window);
    let mut show = Show::new(arguments.listening.quiet, &settings);
    let outcome = live::run(&settings, Watch::new(None), |event| show.event(&event))?;
    for message in live::about(&outcome) {
        eprintln!("lanesplit-measure: {}: {}", message.kind, message.text);
    }
    let calibration = Calibration::of(outcome.found, [Some(1); 2]).map_err(Failure::Calibration)?;
    if let Some(path) = &arguments.output {
        write_file(path, |file| export::json(file, &calibration))?;
    }
    show_result(arguments.json, &calibration)?;
    let is_whole = outcome.taps.iter().all(|tap| tap.gone.is_none());
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ListeningArguments {
    fn settings(&self, interfaces: [&str; 2], session: Settings, window: Duration) -> LiveSettings {
        LiveSettings {
            interfaces: interfaces.map(str::to_owned),
            tap: TapSettings {
                way: match self.source {
                    Source::Packet => Way::Packet,
                    Source::Xdp => Way::Xdp,
                },
                stamps: match self.stamps {
                    Stamps::Best => Wanted::Best,
                    Stamps::Hardware => Wanted::Hardware,
                    Stamps::Software => Wanted::Software,
                },
                snap_bytes: self.snap,
                ring_bytes: (self.ring_mib as usize) << 20,
                keep_offloads: self.keep_offloads,
            },
            cores: self.cores,
            duration: self.duration,
            packets: self.packets,
            linger: self.linger.unwrap_or(window),
            session,
        }
    }
}

/// Tells how a run goes, on standard error.
struct Show {
    quiet: bool,
    terminal: bool,
    memory_bytes_max: usize,
}

impl Show {
    fn new(quiet: bool, settings: &LiveSettings) -> Show {
        let terminal = std::io::stderr().is_terminal();
        Show { quiet, terminal, memory_bytes_max: settings.memory_bytes_max() }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Listening(taps) => {
                let [ingress, egress] = taps.each_ref().map(listening);
                let mib = self.memory_bytes_max >> 20;
                eprintln!(
                    "lanesplit-measure: listening: ingress {ingress}, egress {egress}; packets take {mib} MiB of \
                     memory at most"
                );
            }
            Event::Progress(_) if self.quiet => {}
            // In a terminal the line is written over, to its end.
            Event::Progress(progress) if self.terminal => {
                let _ = write!(std::io::stderr(), "\r{progress}\x1b[K");
            }
            Event::Progress(progress) => eprintln!("{progress}"),
            Event::Ending(reason) => {
                let reason = match reason {
                    Reason::Duration => "the time is over",
                    Reason::Packets => "the packets were seen",
                    Reason::Signal => "a signal came",
                    Reason::Gone => "a tap is gone",
                };
                let start = if self.terminal && !self.quiet { "\n" } else { "" };
                eprintln!(
                    "{start}lanesplit-measure: ending: {reason}; waiting for packets under way"
                );
            }
        }
    }
}

fn listening(tap: &LiveTap) -> String {
    // Whether an XDP program gets them shows with the first packet.
    let asked = if tap.xdp.is_some() { " asked for" } else { "" };
    let stamps = match (&tap.no_hardware_stamps, tap.clock) {
        (None, Some(clock)) => format!("hardware stamps{asked}, /dev/ptp{clock}"),
        (None, None) => format!("hardware stamps{asked}"),
        (Some(reason), _) => format!("SOFTWARE STAMPS: {reason}"),
    };
    let way = tap.xdp.map_or(String::new(), |xdp| {
        let copy = if xdp.zero_copy { "zero-copy" } else { "copy" };
        let queues = xdp.queues;
        format!("ALL ITS PACKETS TAKEN by XDP, {copy}, queues: {queues}; ")
    });
    format!("{} ({way}{stamps})", tap.interface)
}

fn snap(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(bytes) if (64..=FRAME_BYTES_MAX as u32).contains(&bytes) => Ok(bytes),
        _ => Err(format!("give a number from 64 to {FRAME_BYTES_MAX}")),
    }
}

fn cores(text: &str) -> Result<[usize; 2], String> {
    let parsed = text
        .split_once(',')
        .and_then(|(one, other)| Some([one.trim().parse().ok()?, other.trim().parse().ok()?]));
    parsed.ok_or_else(|| "give the numbers of two cores, as 2,3".into())
}
