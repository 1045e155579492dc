//! The running program: what its threads may do, and what it holds after many reloads and flaps.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::control::{self, Answer, Request};
use dataplane::status::Status;
use dataplane::xdp::PORT_CAPABILITIES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, Line, Process, SERVER, wait_for};

const BOUND: Duration = Duration::from_secs(20);

/// A gateway between two hosts. Its files go with it.
struct Gateway {
    process: Process,
    folder: PathBuf,
    line: Line,
}

impl Gateway {
    fn start(line: Line) -> Gateway {
        let folder = std::env::temp_dir().join(line.gateway.name());
        fs::create_dir(&folder).expect("the name is unique");
        let configuration = folder.join("gateway.toml");
        configure(&folder, 40);
        let program = env!("CARGO_BIN_EXE_lanesplitd");
        let path = configuration.to_str().expect("text");
        let process = line
            .gateway
            .spawn_with(&[program, "run", "--config", path], &[("LANESPLIT_LOG", "warn")]);
        let gateway = Gateway { process, folder, line };
        wait_for("the gateway to answer", BOUND, || gateway.ask().is_some());
        wait_for("packets to pass", BOUND, || gateway.line.answers());
        gateway
    }

    fn ask(&self) -> Option<Status> {
        match control::ask(&self.folder.join("socket"), &Request::Status) {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// Another threshold, taken over by worker and status.
    fn reload(&self, threshold: u32) {
        configure(&self.folder, threshold);
        let pid = Pid::from_raw(self.process.id().cast_signed());
        kill(pid, Signal::SIGHUP).expect("it runs");
        wait_for("the reload", BOUND, || {
            self.ask().expect("it answers").classifier.threshold_packets == threshold
        });
    }

    /// Takes a port's link away and gives it back.
    fn flap(&self, port: &str) {
        for state in ["down", "up"] {
            self.line.gateway.run(&["ip", "link", "set", "dev", port, state]);
        }
        wait_for("packets to pass again", BOUND, || self.line.answers());
    }

    /// A number of /proc/PID/status, there in kB.
    fn resident_kilobytes(&self) -> u64 {
        let fields = fields(&format!("/proc/{}/status", self.process.id()));
        let resident = fields["VmRSS"].trim_end_matches("kB").trim();
        resident.parse().expect("a number")
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }

    /// The account of each thread, by its name.
    fn threads(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs");
        tasks
            .map(|task| {
                let path = task.expect("it runs").path().join("status");
                let fields = fields(path.to_str().expect("text"));
                (fields["Name"].clone(), fields)
            })
            .collect()
    }

    fn stop(mut self) {
        let status = self.process.terminate(BOUND);
        assert!(status.success(), "{status}");
        assert!(!self.folder.join("socket").exists(), "it removed its socket");
        let has_program =
            |port| self.line.gateway.run(&["ip", "link", "show", "dev", port]).contains("xdp");
        assert!(!has_program("lan") && !has_program("wan"), "it detached its programs");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn configure(folder: &std::path::Path, threshold: u32) {
    let text = format!(
        "[ports]\nlan = \"lan\"\nwan = \"wan\"\nring_entries = 256\n\
         [classifier]\nthreshold_packets = {threshold}\n\
         ipv4_flows_max = 65536\nipv6_flows_max = 65536\n\
         [control]\nsocket = {:?}\n[state]\nfile = {:?}\ninterval = \"200ms\"\n",
        folder.join("socket"),
        folder.join("flows")
    );
    fs::write(folder.join("gateway.toml"), text).expect("the folder is ours");
}

fn fields(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("it runs");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn threads_keep_what_running_needs_and_work_with_that() {
    let Some(lab) = Lab::new() else { return };
    let gateway = Gateway::start(Line::new(&lab));
    let threads = gateway.threads();
    assert_eq!(threads.len(), 3, "control thread, worker and who saves flows: {threads:?}");
    let kept: u64 = PORT_CAPABILITIES.into_iter().map(|one| one.bitmask()).sum();
    for (name, kept, seccomp) in
        [("lanesplitd", kept, "0"), ("worker-0", 0, "2"), ("state", 0, "0")]
    {
        let fields = &threads[name];
        let mask = |field: &str| u64::from_str_radix(&fields[field], 16).expect("a mask");
        assert_eq!([mask("CapEff"), mask("CapPrm")], [kept; 2], "{name}: {fields:?}");
        for empty in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(mask(empty), 0, "{name}, {empty}");
        }
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
        assert_eq!(fields["Seccomp"], seccomp, "{name}");
    }

    gateway.reload(41);
    // A sleep that is interrupted and goes on.
    let pid = Pid::from_raw(gateway.process.id().cast_signed());
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        kill(pid, signal).expect("it runs");
    }
    assert!(gateway.line.answers());
    let status = gateway.ask().expect("it answers");
    assert_eq!(status.reloads.accepted, 1);
    assert!(status.workers[0].report.frames_balance);
    gateway.stop();
}

/// What a process may grow by, after a warm-up, in 200 reloads and 20 flaps: a page or two for a buffer that
/// found a better place, nothing that 200 more would add to.
const GROWTH_KILOBYTES_MAX: u64 = 256;

#[test]
fn reloads_and_flaps_cost_neither_descriptors_nor_memory() {
    let Some(lab) = Lab::new() else { return };
    let gateway = Gateway::start(Line::new(&lab));
    let flood = ["ping", "-n", "-q", "-f", "-i", "0.002", SERVER];
    let traffic = gateway.line.client.spawn(&flood);
    let stress = |reloads: u32, flaps: u32| {
        for number in 0..reloads {
            gateway.reload(50 + number);
            if number % (reloads / flaps) == 0 {
                gateway.flap(["lan", "wan"][(number / (reloads / flaps) % 2) as usize]);
            }
        }
    };
    stress(20, 2);
    let (descriptors, before) = (gateway.descriptors(), gateway.resident_kilobytes());
    stress(200, 20);
    let after = gateway.resident_kilobytes();
    // While flows are saved there is one more, for a moment.
    wait_for("no more descriptors", BOUND, || gateway.descriptors() <= descriptors);
    assert!(after <= before + GROWTH_KILOBYTES_MAX, "{before} kB became {after} kB");
    assert!(gateway.ask().expect("it answers").workers[0].report.frames_balance);
    drop(traffic);
    gateway.stop();
}
