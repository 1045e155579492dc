//! `lanesplitd` at both sites: configured, started, asked, stopped and held to its accounts.
//!
//! **Invariant.** A gateway is stopped by [`Daemon::stop`], which holds it to its accounts, or killed: when
//! this is dropped, at the latest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::router::RouterCounters;
use dataplane::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Namespace, wait_for};
use crate::site::{BOUND, NETS, Site, text};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lanesplitd");

/// Packets after which a flow is long: few, so that a file of some kilobytes takes both lanes.
pub const THRESHOLD_PACKETS: u64 = 20;

/// Longer than a worker takes to report.
const REPORT_MAX: Duration = Duration::from_millis(50);

/// The family of the tunnels' outer headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    Ipv4 = 0,
    Ipv6 = 1,
}

/// What both gateways are told, each from its own side.
#[derive(Debug, Clone)]
pub struct Plan {
    outer: Outer,
    has_tunnels: bool,
    settings: BTreeMap<String, String>,
}

impl Plan {
    /// Two GRE tunnels over this family, without any option. Both families are inside.
    pub fn new(outer: Outer) -> Plan {
        let plan = Plan { outer, has_tunnels: true, settings: BTreeMap::new() };
        let threshold = THRESHOLD_PACKETS.to_string();
        // Small flow tables are quick to make.
        plan.with("mode", "\"routed\"")
            .with("ports.lan", "\"lan\"")
            .with("ports.wan", "\"wan\"")
            .with("classifier.ipv4_flows_max", "4096")
            .with("classifier.ipv6_flows_max", "4096")
            .with("classifier.threshold_packets", &threshold)
    }

    /// Two next hops without tunnels, the routers of both paths, and marks.
    pub fn next_hops() -> Plan {
        let plan = Plan { has_tunnels: false, ..Plan::new(Outer::Ipv4) };
        plan.with("lanes.short.dscp", "\"AF21\"").with("lanes.long.dscp", "\"AF11\"")
    }

    /// The same with a key of the configuration, as TOML, at both gateways.
    pub fn with(mut self, key: &str, value: &str) -> Plan {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same with keys 1 and 2 for the two tunnels.
    pub fn with_keys(self) -> Plan {
        self.with("lanes.short.gre.key", "1").with("lanes.long.gre.key", "2")
    }

    /// The configuration of one gateway.
    fn text(&self, side: usize, socket: &str) -> String {
        let mut settings = self.settings.clone();
        let mut set = |key: &str, value: String| {
            settings.entry(key.to_owned()).or_insert(value);
        };
        for (lane, name) in ["short", "long"].into_iter().enumerate() {
            if !self.has_tunnels {
                let router = format!("\"{}1{}\"", NETS[side][0], lane + 1);
                set(&format!("lanes.{name}.next_hop"), router);
                continue;
            }
            for (end, side) in [("local", side), ("remote", 1 - side)] {
                let address = format!("\"{}{}\"", NETS[side][self.outer as usize], lane + 1);
                set(&format!("lanes.{name}.gre.{end}"), address);
            }
        }
        for (end, side) in [("local", side), ("remote", 1 - side)] {
            let number = side + 1;
            let prefixes = format!("[\"10.{number}.0.0/24\", \"fd0{number}::/64\"]");
            set(&format!("routed.{end}_prefixes"), prefixes);
        }
        set("workers.cores", format!("[{side}]"));
        set("control.socket", format!("\"{socket}\""));
        settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    }
}

/// Starts both gateways and waits until they carry packets between the hosts.
pub fn start_both<'a>(site: &'a Site, plan: &Plan) -> [Daemon<'a>; 2] {
    let mut daemons = [0, 1].map(|side| Daemon::launch(site, side, plan));
    daemons.iter_mut().for_each(Daemon::wait_for_start);
    // Neighbours are found out here, and not when packets are counted.
    wait_for("an answer through the tunnels", BOUND, || site.answers());
    daemons
}

/// Ends both and returns their last words.
pub fn stop_both(daemons: [Daemon<'_>; 2]) -> [Status; 2] {
    daemons.map(Daemon::stop)
}

/// A running gateway.
pub struct Daemon<'a> {
    site: &'a Site,
    namespace: &'a Namespace,
    child: Child,
    name: String,
}

impl<'a> Daemon<'a> {
    /// Starts one and waits until it answers.
    pub fn start(site: &'a Site, side: usize, plan: &Plan) -> Daemon<'a> {
        let mut daemon = Daemon::launch(site, side, plan);
        daemon.wait_for_start();
        daemon
    }

    fn launch(site: &'a Site, side: usize, plan: &Plan) -> Daemon<'a> {
        let name = ["a", "b"][side].to_owned();
        let file = |suffix| site.folder.file(&format!("{name}.{suffix}"));
        let open = |path| OwnedFd::from(File::create(path).expect("the folder can be written to"));
        let configuration = file("toml");
        fs::write(&configuration, plan.text(side, text(&file("sock")))).expect("there is room");
        let child = Command::new("ip")
            .args(["netns", "exec", site.gateways[side].name(), PROGRAM, "run", "--json"])
            .args(["--config", text(&configuration)])
            .stdin(Stdio::null())
            .stdout(open(file("json")))
            .stderr(open(file("log")))
            .env_remove("LANESPLIT_LOG")
            .spawn()
            .expect("it is there");
        Daemon { site, namespace: &site.gateways[side], child, name }
    }

    fn wait_for_start(&mut self) {
        wait_for("the gateway to answer", BOUND, || {
            let runs = matches!(self.child.try_wait(), Ok(None));
            assert!(runs, "it ended early: {}", self.log());
            self.ask().is_some()
        });
        self.wait_for("the workers to report", |now| {
            now.workers.iter().all(|worker| worker.report.frames.total > 0)
        });
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.site.folder.file(&format!("{}.log", self.name))).unwrap_or_default()
    }

    fn ask(&self) -> Option<Status> {
        let socket = self.site.folder.file(&format!("{}.sock", self.name));
        let asked = Command::new(PROGRAM)
            .args(["status", "--json", "--socket", text(&socket)])
            .output()
            .expect("it is there");
        let parse = |words| serde_json::from_slice(words).expect("a status");
        asked.status.success().then(|| parse(&asked.stdout))
    }

    /// Files and sockets that it has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(folder).expect("it runs").count()
    }

    /// What it says of itself now.
    pub fn status(&self) -> Status {
        self.ask().unwrap_or_else(|| panic!("it does not answer: {}", self.log()))
    }

    /// The same when its counters have stood still for longer than a worker takes to report.
    pub fn status_at_rest(&self) -> Status {
        let (mut last, mut still) = (self.status(), Instant::now());
        wait_for("the counters to stand still", BOUND, || {
            let now = self.status();
            if now.total != last.total {
                (last, still) = (now, Instant::now());
            }
            still.elapsed() > REPORT_MAX
        });
        last
    }

    /// Waits until what it says of itself satisfies a condition; returns that.
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut(&Status) -> bool) -> Status {
        let mut last = None;
        wait_for(what, BOUND, || {
            let status = self.status();
            let holds = condition(&status);
            last = Some(status);
            holds
        });
        last.expect("asked at least once")
    }

    /// Ends it by SIGTERM and returns its last words, when they are in order.
    pub fn stop(mut self) -> Status {
        kill(self.pid(), Signal::SIGTERM).expect("it is our child");
        let mut status = None;
        wait_for("the gateway to end", BOUND, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        let status = status.expect("it has ended");
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!self.site.has_programs(self.namespace), "an XDP program is left behind");
        let file = self.site.folder.file(&format!("{}.json", self.name));
        let last = fs::read_to_string(file).expect("it wrote something");
        assert_accounts(&last);
        serde_json::from_str(&last).expect("a status")
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What only a router counts.
pub fn routed(status: &Status) -> RouterCounters {
    status.total.routed.expect("it runs in routed mode")
}

/// Packets that a kernel dropped before a worker saw them.
pub fn missed(status: &Status) -> u64 {
    let ports = status.workers.iter().flat_map(|worker| &worker.report.ports);
    ports.map(|port| port.rx_ring_full + port.rx_dropped).sum()
}

/// Frames that a gateway says it sent, by the equation of its counters.
pub fn frames_sent(status: &Status) -> u64 {
    let router = routed(status);
    let icmp = router.icmp.time_exceeded + router.icmp.too_big + router.icmp.unreachable;
    status.total.forwarded - router.fragmented + router.fragments + icmp - router.not_sent
}

/// Every packet and every frame is accounted for. The arithmetic is done here, not asked of the program.
fn assert_accounts(last: &str) {
    let value: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let sum = |of: &serde_json::Value| -> u64 {
        let fields = of.as_object().expect("counters by reason");
        fields.values().map(|number| number.as_u64().expect("a number")).sum()
    };
    let status: Status = serde_json::from_str(last).expect("a status");
    let workers = value["workers"].as_array().expect("workers");
    for (worker, raw) in status.workers.iter().zip(workers) {
        let (report, counters) = (&worker.report, &worker.report.counters);
        let (dropped, untouched) =
            (sum(&raw["counters"]["dropped"]), sum(&raw["counters"]["untouched"]));
        assert_eq!(counters.waiting, 0, "at the end nothing waits");
        assert_eq!(counters.received, counters.forwarded + dropped, "{last}");
        assert_eq!(counters.forwarded, counters.short + counters.long + untouched, "{last}");
        let lives = &counters.flows;
        assert_eq!(lives.created, lives.expired + lives.restarted + lives.active);

        let frames = &report.frames;
        let somewhere = frames.free
            + frames.receiving[0]
            + frames.receiving[1]
            + frames.in_process
            + frames.transmitting[0]
            + frames.transmitting[1];
        assert_eq!(somewhere, frames.total, "{frames:?}");
        assert_eq!(frames.in_process, 0, "at the end nothing waits: {frames:?}");
        assert!(report.frames_balance, "at some time a frame was missing");
        for statistics in &report.ports {
            assert_eq!(statistics.faulty_descriptors, 0, "{statistics:?}");
            assert_eq!(statistics.rx_invalid_descs, 0, "{statistics:?}");
            assert_eq!(statistics.tx_invalid_descs, 0, "{statistics:?}");
        }
    }
}
