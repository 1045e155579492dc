//! Both gateways of a run: `lanesplitd` in routed mode, with a GRE tunnel for each lane.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::status::Status;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::process::Process;
use super::records::{Attach, GatewayRecord, Settings, Way};
use super::testbed::{SEGMENTS, Testbed};
use super::tools::Tools;

/// Longest wait for a start or an end, which take a tenth of it.
const BOUND: Duration = Duration::from_secs(15);
/// Longer than a worker takes to report.
const REPORT_MAX: Duration = Duration::from_millis(50);
/// Names of both sites in records.
const SITES: [&str; 2] = ["a", "b"];

/// Gateways A and B, while they run.
pub struct Gateways {
    both: Vec<Gateway>,
}

struct Gateway {
    process: Process,
    lanesplitd: PathBuf,
    socket: PathBuf,
    said: PathBuf,
}

/// What became of them.
pub struct Ended {
    /// Their accounts.
    pub records: Vec<GatewayRecord>,
    /// What is wrong with these, if anything.
    pub failure: Option<String>,
}

impl Gateways {
    /// Starts both and waits until they work; none when the kernel forwards.
    ///
    /// # Errors
    ///
    /// When one does not start, or a signal comes.
    pub fn start(
        testbed: &Testbed,
        settings: &Settings,
        tools: &Tools,
        (scratch, folder): (&Path, &Path),
        interrupt: &Interrupt,
    ) -> Result<Gateways, LabError> {
        let mut both = Vec::new();
        if settings.way == Way::Kernel {
            return Ok(Gateways { both });
        }
        for side in [0, 1] {
            let name = format!("lanesplitd-{}", SITES[side]);
            let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
            // The path of a socket may not be long.
            let socket = scratch.join(format!("{}.sock", SITES[side]));
            let configuration = file("toml");
            fs::write(&configuration, toml(settings, side, &socket))
                .map_err(LabError::file(&configuration))?;
            let (program, path) =
                (tools.lanesplitd.to_string_lossy(), configuration.to_string_lossy());
            let run = [&*program, "run", "--json", "--config", &*path];
            let command = [tools.urgently, &run].concat();
            let process = Process::start(&name, &testbed.gateways[side], &command, folder)?;
            let lanesplitd = tools.lanesplitd.clone();
            both.push(Gateway { process, lanesplitd, socket, said: file("out") });
        }
        let gateways = Gateways { both };
        for gateway in &gateways.both {
            gateway.wait_for_start(interrupt)?;
        }
        Ok(gateways)
    }

    /// # Errors
    ///
    /// When one does not run any more.
    pub fn check(&self) -> Result<(), LabError> {
        self.both.iter().try_for_each(|gateway| gateway.process.check())
    }

    /// Processor time of each so far.
    pub fn cpu_s(&self) -> Vec<(String, f64)> {
        let each = self.both.iter();
        each.map(|gateway| (gateway.process.name().to_owned(), gateway.process.cpu_s())).collect()
    }

    /// Waits until no packet moves any more, or long enough.
    ///
    /// # Errors
    ///
    /// When one does not run any more, or a signal comes.
    pub fn wait_for_rest(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        for gateway in &self.both {
            let (mut last, mut still) = (None, Instant::now());
            interrupt.wait_for("the gateways to be at rest", BOUND, String::new, || {
                gateway.process.check()?;
                let now = gateway.ask().map(|status| status.total.received);
                // A gateway that does not say is not at rest.
                if now.is_none() || now != last {
                    (last, still) = (now, Instant::now());
                }
                Ok((still.elapsed() > REPORT_MAX).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Ends both and reads their last words.
    ///
    /// # Errors
    ///
    /// When one does not end, has failed, or a signal comes.
    pub fn stop(self, interrupt: &Interrupt) -> Result<Ended, LabError> {
        self.both.iter().for_each(|gateway| gateway.process.terminate());
        let (mut records, mut wrong) = (Vec::new(), Vec::new());
        for (site, Gateway { process, said, .. }) in SITES.into_iter().zip(self.both) {
            let name = process.name().to_owned();
            process.succeed(interrupt, BOUND)?;
            let text = fs::read_to_string(&said).map_err(LabError::file(&said))?;
            let content = || LabError::content(format!("the last words of {name}"));
            let status: Status = serde_json::from_str(&text).map_err(content())?;
            let record = record(site, &status).map_err(content())?;
            wrong.extend(failure(&name, &record, &status));
            records.push(record);
        }
        Ok(Ended { records, failure: (!wrong.is_empty()).then(|| wrong.join("; ")) })
    }
}

impl Gateway {
    fn wait_for_start(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        let what = format!("{} to answer", self.process.name());
        let Gateway { process, lanesplitd, socket, .. } = self;
        let log = String::new;
        interrupt.wait_for(&what, BOUND, log, || {
            process.check()?;
            // Its socket comes last before the ports, so this asks no earlier than there is one.
            let status = if socket.exists() { ask(lanesplitd, socket) } else { None };
            let works = |status: Status| {
                let mut workers = status.workers.iter();
                !status.workers.is_empty() && workers.all(|one| one.report.frames.total > 0)
            };
            Ok(status.is_some_and(works).then_some(()))
        })
    }

    fn ask(&self) -> Option<Status> {
        ask(&self.lanesplitd, &self.socket)
    }
}

fn ask(lanesplitd: &Path, socket: &Path) -> Option<Status> {
    let mut command = Command::new(lanesplitd);
    let output = command.args(["status", "--json", "--socket"]).arg(socket).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// What is different from `default.toml`.
fn toml(settings: &Settings, side: usize, socket: &Path) -> String {
    let policy = match settings.way {
        Way::Ecmp => "ecmp",
        Way::Spray => "spray",
        Way::Kernel | Way::Split | Way::Paper | Way::Priority => "split",
    };
    let attach = match settings.attach {
        Attach::Native => "native",
        Attach::Generic => "generic",
    };
    let (own, far) = (side + 1, 2 - side);
    let [local, remote] = [SEGMENTS[side], SEGMENTS[1 - side]];
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = cores.get(side % cores.len().max(1)).map_or(0, |core| core.id);
    format!(
        "mode = \"routed\"\n\
         [ports]\nlan = \"lan\"\nwan = \"wan\"\nattach = \"{attach}\"\n\
         [workers]\ncores = [{core}]\npoll = \"adaptive\"\n\
         [classifier]\npolicy = \"{policy}\"\nthreshold_packets = {threshold}\nrestart_on_syn = {restart}\n\
         # Small tables are quick to make, and hold more flows than a run has.\n\
         ipv4_flows_max = 16384\nipv6_flows_max = 1024\n\
         [lanes.short.gre]\nlocal = \"{local}1\"\nremote = \"{remote}1\"\nkey = 1\ndscp = \"AF21\"\n\
         [lanes.long.gre]\nlocal = \"{local}2\"\nremote = \"{remote}2\"\nkey = 2\ndscp = \"AF11\"\n\
         [gre]\nsequence = true\n\
         [routed]\nlocal_prefixes = [\"10.{own}.0.0/24\"]\nremote_prefixes = [\"10.{far}.0.0/24\"]\n\
         [control]\nsocket = \"{socket}\"\n",
        threshold = settings.threshold_packets,
        restart = settings.way != Way::Paper,
        socket = socket.display(),
    )
}

/// The accounts of a gateway, and in `dropped` everything it did not forward.
fn record(site: &str, status: &Status) -> Result<GatewayRecord, serde_json::Error> {
    let total = &status.total;
    let reasons = serde_json::to_value(total.dropped)?;
    let reasons = reasons.as_object().into_iter().flatten();
    let mut dropped: std::collections::BTreeMap<String, u64> = reasons
        .filter_map(|(reason, packets)| Some((reason.clone(), packets.as_u64()?)))
        .filter(|&(_, packets)| packets > 0)
        .collect();
    let ports = || status.workers.iter().flat_map(|worker| &worker.report.ports);
    for (reason, packets) in [
        ("rx_ring_full", ports().map(|port| port.rx_ring_full).sum::<u64>()),
        ("rx_dropped", ports().map(|port| port.rx_dropped).sum()),
        ("not_sent", total.routed.map_or(0, |router| router.not_sent)),
    ] {
        if packets > 0 {
            dropped.insert(reason.into(), packets);
        }
    }
    Ok(GatewayRecord {
        site: site.into(),
        received: total.received,
        forwarded: total.forwarded,
        dropped,
        short: total.short,
        long: total.long,
    })
}

/// What is wrong with the accounts of a gateway.
fn failure(name: &str, record: &GatewayRecord, status: &Status) -> Vec<String> {
    let mut wrong = Vec::new();
    let GatewayRecord { received, forwarded, dropped, .. } = record;
    if !dropped.is_empty() {
        let each: Vec<String> =
            dropped.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
        wrong.push(format!("{name} dropped packets: {}", each.join(", ")));
    } else if received != forwarded {
        wrong.push(format!("{name} forwarded {forwarded} of {received} packets"));
    }
    if !status.workers.iter().all(|worker| worker.report.frames_balance) {
        wrong.push(format!("{name} lost a frame of its packet memory"));
    }
    wrong
}
