//! What goes over the testbed in a run: requests and their server, background, and the emulators' faults.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::background::{self, Background};
use super::driver::{self, Plan, log};
use super::emulator::{DirectionReport, Emulation, Impairment, Report};
use super::error::LabError;
use super::interrupt::Interrupt;
use super::process::Process;
use super::records::{RequestRecord, Settings, Way};
use super::run::now_ns;
use super::testbed::{PATHS, SERVER, Testbed};
use super::tools::Tools;
use super::web::{PLAIN_PORT, TLS_PORT, Web};
use super::workload::Mix;

/// Longest wait for nginx.
const START_MAX: Duration = Duration::from_secs(10);
/// How long requests that are under way at the end are waited for at [`MIX_RATE`]: as long as five of the longest
/// take on a path with 40 % background.
const DRAIN: Duration = Duration::from_secs(120);
/// How long background is there before requests, at most.
const LEAD: Duration = Duration::from_secs(20);
/// The smallest frames of which a path may be full, acknowledgements in a tunnel.
const FRAME_BYTES_MIN: f64 = 98.0;
/// How much longer than it should an emulator may hold frames, until there is no room for more.
const HELD_MORE_S: f64 = 0.1;
/// The share of requests for which time may run out in a run that is used.
const RUN_OUT_MAX: f64 = 0.01;
/// What the driver may take besides.
const SLACK: Duration = Duration::from_secs(20);
/// The rate in Mbit/s for which mixes are made.
const MIX_RATE: f64 = 100.0;

/// Bytes that a full segment carries through a tunnel: 1500 less IP and GRE with key and sequence number, less IP and
/// TCP inside and TCP's timestamps. Hosts are told so, so that it is the same without a tunnel.
const SEGMENT_BYTES: u32 = 1500 - 32 - 40 - 12;

fn drain(settings: &Settings) -> Duration {
    let drain = DRAIN.mul_f64(MIX_RATE / f64::from(settings.rate_mbit_per_s));
    drain.min(Duration::from_secs(3600))
}

fn mix(settings: &Settings) -> Result<Mix, LabError> {
    Mix::named(&settings.mix).ok_or_else(|| {
        LabError::content("the mix of requests")(format!("there is no {}", settings.mix))
    })
}

fn server() -> IpAddr {
    SERVER.parse().expect("it is an address")
}

/// Starts the server and waits until it answers.
///
/// # Errors
///
/// When it does not start, or a signal comes.
pub fn serve(
    testbed: &Testbed,
    settings: &Settings,
    (folder, logs): (&Path, &Path),
    interrupt: &Interrupt,
) -> Result<(Process, Web), LabError> {
    let web = Web::write(folder, server(), &mix(settings)?, SEGMENT_BYTES)
        .map_err(LabError::content("the server's configuration"))?;
    let command = web.command();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let process = Process::start("nginx", &testbed.server, &command, logs)?;
    interrupt.wait_for("nginx to listen", START_MAX, String::new, || {
        process.check()?;
        Ok(fs::exists(folder.join("nginx.pid")).unwrap_or(false).then_some(()))
    })?;
    Ok((process, web))
}

/// The load driver, while it runs.
pub struct Driver {
    process: Process,
    log: PathBuf,
    started_ns: u64,
    bound: Duration,
}

impl Driver {
    /// Starts it: `lanesplit-lab drive` in the client's namespace.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(
        testbed: &Testbed,
        settings: &Settings,
        web: &Web,
        tools: &Tools,
        logs: &Path,
    ) -> Result<Driver, LabError> {
        let port = if settings.tls { TLS_PORT } else { PLAIN_PORT };
        let plan = Plan {
            mix: settings.mix.clone(),
            scale: f64::from(settings.rate_mbit_per_s) / MIX_RATE,
            seed: settings.seed,
            duration_s: settings.duration_s.into(),
            drain_s: drain(settings).as_secs_f64(),
            server: SocketAddr::new(server(), port),
            certificate: settings.tls.then(|| web.certificate()),
            segment_bytes: SEGMENT_BYTES,
            concurrent_max: 256,
        };
        let path = logs.join("plan.json");
        super::store::write_json(&path, &plan).map_err(LabError::content("the driver's plan"))?;
        let (program, path) = (tools.lab.to_string_lossy(), path.to_string_lossy());
        let started_ns = now_ns();
        let process =
            Process::start("driver", &testbed.client, &[&*program, "drive", &*path], logs)?;
        let bound = Duration::from_secs(settings.duration_s.into()) + drain(settings) + SLACK;
        Ok(Driver { process, log: logs.join("driver.out"), started_ns, bound })
    }
}

impl Driver {
    /// When it was started: nothing was due earlier.
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// Longest wait for its end.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    /// # Errors
    ///
    /// When nobody knows.
    pub fn has_ended(&self) -> Result<Option<()>, LabError> {
        Ok(self.process.has_ended()?.then_some(()))
    }

    /// Its name and the processor time that it has taken so far.
    pub fn cpu_s(&self) -> (String, f64) {
        (self.process.name().to_owned(), self.process.cpu_s())
    }

    /// What it asked and got.
    ///
    /// # Errors
    ///
    /// When it failed, or its log is none.
    pub fn finish(self, interrupt: &Interrupt) -> Result<Vec<RequestRecord>, LabError> {
        self.process.succeed(interrupt, SLACK)?;
        let file = File::open(&self.log).map_err(LabError::file(&self.log))?;
        let requests = log::read(BufReader::new(file)).map_err(LabError::file(&self.log))?;
        // They are kept as a table.
        fs::remove_file(&self.log).map_err(LabError::file(&self.log))?;
        Ok(requests)
    }
}

/// Requests for which time or workers ran out, by their kind: where a path is full, that is a result.
pub fn run_out(requests: &[RequestRecord]) -> BTreeMap<String, u32> {
    let mut kinds = BTreeMap::new();
    for request in requests {
        if request.error.as_deref().is_some_and(driver::has_run_out) {
            *kinds.entry(request.kind.clone()).or_default() += 1;
        }
    }
    kinds
}

/// Why the requests of a run cannot be used, if so: something went wrong with one, or time ran out for more than
/// `RUN_OUT_MAX` of them.
///
/// Who throws away a run for a single flow that its path was too full for keeps the runs in which it was not.
pub fn failure(requests: &[RequestRecord]) -> Option<String> {
    let failed = requests.iter().filter_map(|request| Some((request, request.error.as_deref()?)));
    let (run_out, wrong): (Vec<_>, Vec<_>) =
        failed.partition(|(_, error)| driver::has_run_out(error));
    let is_congested = run_out.len() as f64 > RUN_OUT_MAX * requests.len() as f64;
    let (first, error) = wrong.first().or(run_out.first().filter(|_| is_congested))?;
    Some(format!(
        "{} of {} requests failed, the first of them number {} ({}): {error}",
        wrong.len() + run_out.len(),
        requests.len(),
        first.number,
        first.kind
    ))
}

/// Starts what sends background at both sites, as the settings say.
///
/// # Errors
///
/// When it does not start.
pub fn background(
    testbed: &Testbed,
    settings: &Settings,
    logs: &Path,
) -> Result<Vec<Process>, LabError> {
    // Where one path has the rate of both, it has the load of both.
    let paths = if settings.way == Way::Priority { 1 } else { 2 };
    let background = Background {
        rate_mbit_per_s: settings.rate_mbit_per_s * (2 / paths),
        percent: settings.background_percent,
        duration: Duration::from_secs(settings.duration_s.into()) + LEAD + drain(settings),
    };
    let mut processes = Vec::new();
    if background.percent == 0 {
        return Ok(processes);
    }
    for (side, host) in testbed.background.iter().enumerate() {
        let name = format!("mgen-{}", ["a", "b"][side]);
        let script = logs.join(format!("{name}.script"));
        // Nobody listens: the far router drops it.
        let flow = |path| background.flow(path + 1, Testbed::background_target(side, path));
        let flows: String = (0..paths).map(flow).collect();
        fs::write(&script, flows).map_err(LabError::file(&script))?;
        let command = background::command(&script);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        processes.push(Process::start(&name, host, &command, logs)?);
    }
    Ok(processes)
}

/// Starts what delays and loses frames on both paths, and waits until it does, if the testbed has room for it.
///
/// # Errors
///
/// When it does not start, or a signal comes.
pub fn emulate(
    testbed: &Testbed,
    settings: &Settings,
    tools: &Tools,
    logs: &Path,
    interrupt: &Interrupt,
) -> Result<Vec<Process>, LabError> {
    let mut processes = Vec::new();
    let each = testbed.emulators.iter().flatten().zip(PATHS);
    for (seed, (namespace, path)) in (settings.seed..).zip(each) {
        let impairment = Impairment {
            delay: Duration::from_secs_f64(settings.delay_ms / 1000.0),
            jitter: Duration::from_secs_f64(settings.jitter_ms / 1000.0),
            loss: settings.loss_percent / 100.0,
            reorders: false,
        };
        let frames_a_second = f64::from(settings.rate_mbit_per_s) * 1e6 / 8.0 / FRAME_BYTES_MIN;
        let held_s = (settings.delay_ms + settings.jitter_ms) / 1000.0 + HELD_MORE_S;
        let emulation = Emulation {
            interfaces: ["a".into(), "b".into()],
            impairments: [impairment; 2],
            frames_max: (frames_a_second * held_s) as usize,
            seed,
        };
        let name = format!("emulator-{path}");
        let plan = logs.join(format!("{name}.json"));
        super::store::write_json(&plan, &emulation).map_err(LabError::content("an emulation"))?;
        let (program, plan) = (tools.lab.to_string_lossy(), plan.to_string_lossy());
        let process = Process::start(&name, namespace, &[&*program, "emulate", &*plan], logs)?;
        interrupt.wait_for("an emulator to be ready", START_MAX, String::new, || {
            process.check()?;
            Ok(process.last_words().contains("emulating").then_some(()))
        })?;
        processes.push(process);
    }
    Ok(processes)
}

/// Ends what delays and loses frames. Why the run cannot be used, if so: a frame was lost that should not be.
///
/// # Errors
///
/// When one does not end, or does not say what it did.
pub fn end_emulation(
    emulators: Vec<Process>,
    logs: &Path,
    interrupt: &Interrupt,
) -> Result<Option<String>, LabError> {
    let mut wrong = Vec::new();
    emulators.iter().for_each(Process::terminate);
    for process in emulators {
        let name = process.name().to_owned();
        process.succeed(interrupt, START_MAX)?;
        let path = logs.join(format!("{name}.out"));
        let text = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        let report: Report =
            serde_json::from_str(&text).map_err(LabError::content(path.display().to_string()))?;
        for DirectionReport { from, account, missed, oversize, .. } in report {
            let frames = account.full + account.refused + missed + oversize;
            if frames > 0 {
                wrong.push(format!("{name} lost {frames} frames from {from} that it should not"));
            }
        }
    }
    Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::records::Bulk;
    use super::*;

    const CUT_OFF: &str = "not answered before the run ended";

    fn requests(errors: &[&str]) -> Vec<RequestRecord> {
        let errors = errors.iter().map(|&error| Some(error.to_owned()));
        let all = errors.chain(std::iter::repeat(None)).take(1_000).zip(0..);
        let record = |(error, number): (Option<String>, u32)| RequestRecord {
            number,
            kind: if number == 0 { "upload".into() } else { "page".into() },
            bulk: Bulk::Upload,
            packets: 20,
            bytes: 20_000,
            due_ns: 1,
            started_ns: 2,
            connected_ns: Some(3),
            finished_ns: error.is_none().then_some(4),
            port: Some(30_000),
            error,
        };
        all.map(record).collect()
    }

    #[test]
    fn a_run_is_used_although_time_ran_out_for_a_few_requests_which_are_told_by_kind() {
        let requests = requests(&[CUT_OFF, CUT_OFF, "not asked: 256 others were under way"]);
        assert_eq!(failure(&requests), None);
        assert_eq!(run_out(&requests), BTreeMap::from([("page".into(), 2), ("upload".into(), 1)]));
    }

    #[test]
    fn a_run_is_not_used_when_time_ran_out_for_more_than_a_hundredth_of_its_requests() {
        assert_eq!(failure(&requests(&[CUT_OFF; 10])), None);
        let why = failure(&requests(&[CUT_OFF; 11])).expect("they are too many");
        assert!(why.starts_with("11 of 1000 requests failed") && why.contains(CUT_OFF), "{why}");
    }

    #[test]
    fn a_run_is_not_used_when_anything_else_went_wrong_with_a_single_request() {
        let why = failure(&requests(&[CUT_OFF, "receive: connection reset"])).expect("it is wrong");
        assert!(why.contains("2 of 1000") && why.contains("number 1 (page): receive"), "{why}");
        let requests = requests(&["receive: connection reset"]);
        assert_eq!(run_out(&requests), BTreeMap::new());
    }
}
