//! `lanesplitd`, the program itself, as an operator starts, asks and stops it.
//!
//! **Invariant.** It is stopped by [`Daemon::stop`], which holds it to its accounts, or killed: when
//! this is dropped, at the latest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use dataplane::batch::PortId;
use dataplane::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::wait_for;
use crate::site::{BOUND, Site, text};

/// Where the program is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lanesplitd");

/// The key of a configuration, with its table, and its value as TOML.
pub type Setting<'a> = (&'a str, &'a str);

/// A running gateway.
pub struct Daemon<'a> {
    site: &'a Site,
    child: Child,
    files: Files,
    first_answer: String,
}

/// What belongs to a daemon of one name.
#[derive(Clone)]
pub struct Files {
    /// Its configuration.
    pub configuration: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    results: PathBuf,
    log: PathBuf,
}

impl Files {
    /// In the site's folder.
    pub fn new(site: &Site, name: &str) -> Files {
        let file = |suffix| site.folder.file(&format!("{name}.{suffix}"));
        Files {
            configuration: file("toml"),
            socket: file("sock"),
            results: file("json"),
            log: file("log"),
        }
    }

    /// Writes a configuration: the site's ports, small flow tables, which are quick to make, and
    /// `settings` before those.
    pub fn configure(&self, settings: &[Setting<'_>]) {
        let socket = format!("{:?}", text(&self.socket));
        let usual = [
            ("ports.lan", "\"lan\""),
            ("ports.wan", "\"wan\""),
            ("classifier.ipv4_flows_max", "4096"),
            ("classifier.ipv6_flows_max", "4096"),
            ("control.socket", &socket),
        ];
        let all: BTreeMap<&str, &str> = usual.iter().chain(settings).copied().collect();
        let lines: String = all.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        fs::write(&self.configuration, lines).expect("the folder can be written to");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `lanesplitd status --json`, where there is an answer.
    pub fn ask(&self) -> Option<String> {
        let asked = Command::new(PROGRAM)
            .args(["status", "--json", "--socket", text(&self.socket)])
            .output()
            .expect("it is there");
        asked.status.success().then(|| String::from_utf8(asked.stdout).expect("JSON is UTF-8"))
    }
}

impl<'a> Daemon<'a> {
    /// Starts it on the site's ports and waits until it answers.
    pub fn start(site: &'a Site, settings: &[Setting<'_>]) -> Daemon<'a> {
        let files = Files::new(site, "gateway");
        files.configure(settings);
        Self::start_with(site, files)
    }

    /// The same with a configuration that is there.
    pub fn start_with(site: &'a Site, files: Files) -> Daemon<'a> {
        let open = |path| OwnedFd::from(File::create(path).expect("the folder can be written to"));
        let child = Command::new("ip")
            .args(["netns", "exec", site.gateway().name(), PROGRAM, "run", "--json"])
            .args(["--config", text(&files.configuration)])
            .stdin(Stdio::null())
            .stdout(open(&files.results))
            .stderr(open(&files.log))
            .env_remove("LANESPLIT_LOG")
            .spawn()
            .expect("it is there");
        let mut daemon = Daemon { site, child, files, first_answer: String::new() };
        wait_for("the gateway to answer", BOUND, || {
            assert!(daemon.runs(), "it ended early: {}", daemon.files.log());
            daemon.first_answer = daemon.files.ask().unwrap_or_default();
            !daemon.first_answer.is_empty()
        });
        daemon.wait_for("the workers to report", |now| {
            now.workers.iter().all(|worker| worker.report.frames.total > 0)
        });
        assert!(site.has_programs());
        daemon
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What it said of itself when it was asked for the first time.
    pub fn first_answer(&self) -> Status {
        parse(&self.first_answer)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it says of itself now.
    pub fn status(&self) -> Status {
        let answer = self.files.ask();
        let answer = answer.unwrap_or_else(|| panic!("it does not answer: {}", self.files.log()));
        parse(&answer)
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

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is our child");
    }

    /// Writes another configuration and sends SIGHUP; waits until the workers have taken it over.
    pub fn reload(&self, settings: &[Setting<'_>]) {
        let before = self.status();
        self.files.configure(settings);
        self.signal(Signal::SIGHUP);
        self.wait_for("the workers to take the configuration over", |now| {
            assert_eq!(now.reloads.refused, before.reloads.refused, "{}", self.files.log());
            now.reloads.accepted > before.reloads.accepted
                && now
                    .workers
                    .iter()
                    .zip(&before.workers)
                    .all(|(now, before)| now.report.reloads > before.report.reloads)
        });
    }

    /// Ends it by SIGTERM and returns its last words, when they are in order.
    pub fn stop(mut self) -> Status {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.files.log());
        assert!(!self.files.socket.exists(), "its socket is left behind");
        assert!(!self.site.has_programs(), "an XDP program is left behind");
        let words = fs::read_to_string(&self.files.results).expect("it wrote something");
        let last = parse(&words);
        assert_accounts(&last);
        last
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.wait();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the gateway to end", BOUND, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(status: &str) -> Status {
    serde_json::from_str(status).unwrap_or_else(|error| panic!("{error} in {status}"))
}

/// Runs `lanesplitd` in the gateway's namespace to its end, for those who expect a refusal.
pub fn run_to_end(site: &Site, arguments: &[&str]) -> Output {
    site.gateway().try_run(&[&[PROGRAM], arguments].concat())
}

/// Every packet and every frame is accounted for, and the sums are sums. The arithmetic is done here,
/// not asked of the program.
pub fn assert_accounts(status: &Status) {
    let mut received = 0;
    let mut flows = 0;
    for worker in &status.workers {
        let report = &worker.report;
        let counters = &report.counters;
        let untouched = &counters.untouched;
        let untouched = untouched.non_tcp
            + untouched.non_ip
            + untouched.malformed
            + untouched.fragment
            + untouched.truncated
            + untouched.unclassified;
        assert_eq!(counters.received, counters.forwarded + counters.dropped.exceeds_mtu);
        assert_eq!(counters.forwarded, counters.short + counters.long + untouched);
        let lives = &counters.flows;
        assert_eq!(lives.created, lives.expired + lives.restarted + lives.active);
        received += counters.received;
        flows += lives.created;

        let frames = &report.frames;
        let somewhere = frames.free
            + frames.receiving[0]
            + frames.receiving[1]
            + frames.in_process
            + frames.transmitting[0]
            + frames.transmitting[1];
        assert_eq!(somewhere, frames.total, "{frames:?}");
        assert!(report.frames_balance, "at some time a frame was missing");
        for port in PortId::ALL {
            let statistics = &report.ports[port.index()];
            assert_eq!(statistics.faulty_descriptors, 0, "{statistics:?}");
            assert_eq!(statistics.rx_invalid_descs, 0, "{statistics:?}");
            assert_eq!(statistics.tx_invalid_descs, 0, "{statistics:?}");
        }
    }
    assert_eq!(status.total.received, received);
    assert_eq!(status.total.flows.created, flows);
}

/// And no packet was dropped before the workers saw it.
pub fn assert_no_packet_missed(status: &Status) {
    for worker in &status.workers {
        for statistics in &worker.report.ports {
            assert_eq!(statistics.rx_ring_full + statistics.rx_dropped, 0, "{statistics:?}");
        }
    }
}

/// Hundredths of a second of processor time that a process has used.
pub fn cpu_ticks(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, after_name) = text.rsplit_once(')').expect("a name in parentheses");
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}
