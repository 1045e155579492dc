//! The laboratory as a whole, in short runs: its accounts, and that nothing of it is left. Speeds are for people to
//! look at; no test passes or fails by one.
//!
//! It needs `lanesplitd` beside `lanesplit-lab`, which `cargo test --workspace` sees to; alone:
//! `cargo build -p dataplane` with the same profile. `REQUIRE_NETNS=1` makes it a failure that namespaces cannot be
//! had.

#[path = "../../../dataplane/tests/lab/mod.rs"]
mod lab;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lab::{Folder, Lab, text, wait_for};
use measure::lab::join::join;
use measure::lab::records::{Attach, Way};
use measure::lab::store::{Output, Run, read_run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Whatever a test waits for comes sooner.
const BOUND: Duration = Duration::from_secs(90);

/// Packets over a gateway before the taps were listened to: pings that find out whether it works.
const BEFORE_MAX: u64 = 40;

/// One at a time: there are two cores. None, with a loud word, where namespaces cannot be had.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Lab::new().map(|_| turn)
}

/// The program, while it runs. It is killed when this is dropped.
struct Laboratory {
    child: Child,
    log: PathBuf,
}

impl Laboratory {
    fn start(arguments: &[&str], folder: &Folder) -> Laboratory {
        let log = folder.file("log");
        let child = Command::new(env!("CARGO_BIN_EXE_lanesplit-lab"))
            .args(arguments)
            .args(["--output", text(&folder.file("output"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder can be written to"))
            .spawn()
            .expect("it is there");
        Laboratory { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for its end and returns its exit status.
    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("the laboratory to end", BOUND, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("it is our child");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// No namespace, no process and no file outside of its output.
    fn assert_nothing_is_left(&self) {
        let prefix = format!("lanesplit-lab-{}", self.child.id());
        let left = Command::new("ip").args(["netns", "list"]).output().expect("ip is installed");
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        assert!(!left.contains(&prefix), "namespaces are left: {left}");
        let scratch = std::env::temp_dir().join(scratch(&self.child));
        assert!(!scratch.exists(), "files are left");
        assert_eq!(self.processes(), [""; 0], "processes are left");
    }

    /// Command lines of what it has started and still runs.
    fn processes(&self) -> Vec<String> {
        let folder = self.log.parent().expect("it is in a folder").display().to_string();
        let marks = [folder, scratch(&self.child)];
        let processes = fs::read_dir("/proc").expect("there is one").flatten();
        // Processes that have ended meanwhile do not run.
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| marks.iter().any(|mark| line.contains(mark.as_str()))).collect()
    }
}

/// The name of its folder for what is no result.
fn scratch(child: &Child) -> String {
    format!("lanesplit-lab-scratch-{}", child.id())
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_short_run_of_every_way_accounts_for_every_packet() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    let short = ["--quick", "--repeats", "1", "--duration", "2s"];
    for experiment in ["alternatives", "overhead"] {
        let mut laboratory = Laboratory::start(&[&[experiment][..], &short].concat(), &folder);
        let status = laboratory.wait();
        assert_eq!(status, Some(0), "{}", laboratory.log());
        laboratory.assert_nothing_is_left();
    }
    let output = folder.file("output");
    let opened = Output::open(&output).expect("it was written");
    let priorities = opened.lab.more.get("priorities").and_then(|words| words.as_str());
    assert!(priorities.is_some_and(|words| words.contains("gateways")), "{:?}", opened.lab);
    let runs: Vec<Run> =
        opened.runs.iter().map(|run| read_run(run).expect("it is complete")).collect();
    let made: Vec<(Way, Attach)> =
        runs.iter().map(|run| (run.record.settings.way, run.record.settings.attach)).collect();
    let native = [Way::Ecmp, Way::Split, Way::Paper, Way::Spray, Way::Priority, Way::Kernel];
    let native = native.map(|way| (way, Attach::Native));
    let idle = [(Way::Split, Attach::Generic), (Way::Split, Attach::Native)];
    assert_eq!(made, [&native[..], &idle].concat());
    runs.iter().for_each(assert_accounts);
    assert!(output.join("report.html").is_file());
}

fn assert_accounts(run: &Run) {
    let Run { name, record, requests, flows, results, gateway } = run;
    assert_eq!(record.failure, None, "{name}");
    assert!(!record.commit.is_empty() && !record.kernel.is_empty(), "{name}: {record:?}");
    assert!(record.requests_run_out.is_empty(), "{name}: {:?}", record.requests_run_out);
    let results = results.as_ref().expect("it was measured");
    assert!(results.balances(), "{name}: {results:?}");

    assert!(!requests.is_empty(), "{name}: nothing was asked");
    for request in requests {
        assert!(request.error.is_none() && request.finished_ns.is_some(), "{name}: {request:?}");
    }
    let (_, accounts) = join(requests, flows);
    assert_eq!((accounts.without_flow, accounts.without_request), (0, 0), "{name}: {accounts:?}");
    assert_eq!(accounts.with_request, 2 * requests.len() as u64, "{name}: {accounts:?}");

    // What is lost between the taps found a queue full.
    let queues_dropped: u64 = record.queues.iter().map(|queue| queue.dropped).sum();
    let lost = results.packets.lost + results.packets.unmatched;
    assert!(lost <= queues_dropped, "{name}: {lost} lost, {queues_dropped} found a queue full");
    assert_eq!(record.queues.len(), 4, "{name}");
    let sent: u64 = record.queues.iter().map(|queue| queue.sent).sum();
    assert!(sent >= results.packets.matched, "{name}: {:?}", record.queues);

    let is_idle = record.settings.background_percent == 0;
    assert_eq!(gateway.is_some(), is_idle, "{name}");
    assert_eq!(record.gateways.is_empty(), record.settings.way == Way::Kernel, "{name}");
    let taps = [results.packets.ingress, results.packets.egress];
    for (gateway, seen) in record.gateways.iter().zip(taps) {
        assert!(gateway.dropped.is_empty(), "{name}: {gateway:?}");
        assert_eq!(gateway.received, gateway.forwarded, "{name}");
        let before = gateway.forwarded.checked_sub(seen);
        assert!(before.is_some_and(|packets| packets <= BEFORE_MAX), "{name}: {seen} {gateway:?}");
    }
    for program in ["driver", "nginx", "lanesplit-measure"] {
        assert!(record.cpu_s.contains_key(program), "{name}: {:?}", record.cpu_s);
    }
}

/// The first run of a demonstration.
const FIRST: &str = "output/runs/0000-long-flows-ecmp-native-40-40-0";

/// A demonstration whose first run has begun.
fn in_the_middle(folder: &Folder) -> Laboratory {
    let laboratory = Laboratory::start(&["demo"], folder);
    let log = folder.file(FIRST).join("logs/driver.log");
    wait_for("requests to be made", BOUND, || log.exists());
    laboratory
}

#[test]
fn nothing_is_left_when_sigterm_ends_it_in_the_middle_of_a_run() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    let mut laboratory = in_the_middle(&folder);
    let run = folder.file(FIRST);
    laboratory.terminate();
    assert_eq!(laboratory.wait(), Some(128 + Signal::SIGTERM as i32), "{}", laboratory.log());
    laboratory.assert_nothing_is_left();
    assert!(!run.join("run.json").exists(), "half a run is none");
}

#[test]
fn nothing_is_left_when_sigterm_ends_it_while_it_builds_networks() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    let mut laboratory = Laboratory::start(&["demo"], &folder);
    let first = format!("/run/netns/lanesplit-lab-{}-client", laboratory.pid());
    wait_for("a namespace", BOUND, || Path::new(&first).exists());
    laboratory.terminate();
    assert_eq!(laboratory.wait(), Some(128 + Signal::SIGTERM as i32), "{}", laboratory.log());
    laboratory.assert_nothing_is_left();
}

#[test]
fn what_is_left_of_one_that_was_killed_is_removed_by_the_next() {
    let Some(_turn) = turn() else { return };
    let (folder, other) = (Folder::new(), Folder::new());
    let mut killed = in_the_middle(&folder);
    killed.child.kill().expect("it is our child");
    assert_eq!(killed.wait(), None, "it ended by a signal");
    let first = format!("/run/netns/lanesplit-lab-{}-client", killed.pid());
    assert!(Path::new(&first).exists(), "it could not clean up");
    wait_for("the kernel to kill its programs", BOUND, || killed.processes().is_empty());
    let mut next = in_the_middle(&other);
    next.terminate();
    next.wait();
    killed.assert_nothing_is_left();
    next.assert_nothing_is_left();
}

#[test]
fn who_ends_it_between_runs_is_told_how_to_see_those_that_are_complete() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    let mut laboratory = Laboratory::start(
        &["long-flows", "--quick", "--repeats", "1", "--duration", "4s"],
        &folder,
    );
    let second = folder.file("output/runs/0001-long-flows-split-native-40-40-0/logs/driver.log");
    wait_for("the second run", BOUND, || second.exists());
    laboratory.terminate();
    assert_eq!(laboratory.wait(), Some(128 + Signal::SIGTERM as i32), "{}", laboratory.log());
    laboratory.assert_nothing_is_left();
    let output = folder.file("output");
    let remedy = format!("lanesplit-lab report {}", text(&output));
    assert!(laboratory.log().contains(&remedy), "{}", laboratory.log());
    let report =
        Command::new(env!("CARGO_BIN_EXE_lanesplit-lab")).arg("report").arg(&output).output();
    let report = report.expect("it is a program");
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    assert!(output.join("report.html").is_file());
}

#[test]
fn a_damaged_record_of_the_laboratory_is_an_error_and_stays_as_it_is() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    fs::create_dir(folder.file("output")).expect("the folder has room");
    let damaged = folder.file("output/lab.json");
    fs::write(&damaged, "{").expect("the folder has room");
    let mut laboratory = Laboratory::start(&["demo"], &folder);
    assert_eq!(laboratory.wait(), Some(1), "{}", laboratory.log());
    assert!(laboratory.log().contains("another folder by --output"), "{}", laboratory.log());
    assert_eq!(fs::read_to_string(&damaged).expect("it is there"), "{");
}

#[test]
fn a_program_that_lacks_is_named_with_its_remedy() {
    let Some(_turn) = turn() else { return };
    let folder = Folder::new();
    let alone = folder.file("lanesplit-lab");
    fs::copy(env!("CARGO_BIN_EXE_lanesplit-lab"), &alone).expect("the folder has room");
    let output =
        Command::new(&alone).arg("demo").arg("--output").arg(folder.file("output")).output();
    let output = output.expect("it is a program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no lanesplitd beside"), "{said}");
    assert!(said.contains("cargo build --release --locked -p dataplane -p measure"), "{said}");
    assert!(!folder.file("output").exists(), "nothing was begun");
}
