//! One run: everything is started, requests are made, everything is ended and counted.
//!
//! **Invariant.** Whatever goes wrong in a run is in its record, and the testbed is then as it was before.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::LabError;
use super::gateways::Gateways;
use super::interrupt::Interrupt;
use super::machine;
use super::measuring::{self, Measuring};
use super::process::Process;
use super::queues;
use super::records::{RequestRecord, RunRecord, Settings};
use super::scratch::Scratch;
use super::store;
use super::testbed::{TAP_LAN_A, TAP_WAN_A, TAP_WAN_B, Testbed};
use super::tools::Tools;
use super::traffic::{self, Driver};

/// Longest wait for a program that was asked to end.
const END_MAX: Duration = Duration::from_secs(10);

/// Where a run is made.
pub struct Stage<'l> {
    /// The networks.
    pub testbed: &'l Testbed,
    /// The programs.
    pub tools: &'l Tools,
    /// Whether all this must end.
    pub interrupt: &'l Interrupt,
}

/// What a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The experiment it belongs to.
    pub experiment: String,
    /// Which of the repetitions of the same settings.
    pub repeat: u32,
    /// What is set.
    pub settings: Settings,
    /// Whether the gateway's own delay is measured too, between taps on both its sides.
    pub taps_gateway: bool,
}

impl Planned {
    /// The name of its folder, behind its number.
    pub fn name(&self) -> String {
        let Settings { way, attach, threshold_packets, background_percent, .. } = &self.settings;
        let text = format!(
            "{}-{way:?}-{attach:?}-{threshold_packets}-{background_percent}-{}",
            self.experiment, self.repeat
        );
        text.to_lowercase()
    }
}

impl Stage<'_> {
    /// Makes a run, with all its files in a folder.
    ///
    /// # Errors
    ///
    /// When the laboratory must end, or its record cannot be written. What else goes wrong is in the record.
    pub fn perform(&self, planned: &Planned, folder: &Path) -> Result<RunRecord, LabError> {
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).map_err(LabError::file(&logs))?;
        let now = now_ns();
        let mut record = RunRecord {
            experiment: planned.experiment.clone(),
            repeat: planned.repeat,
            settings: planned.settings.clone(),
            started_ns: now,
            ended_ns: now,
            failure: None,
            gateways: Vec::new(),
            queues: Vec::new(),
            cpu_s: BTreeMap::new(),
            requests_run_out: BTreeMap::new(),
            commit: machine::COMMIT.into(),
            kernel: machine::kernel(),
        };
        let mut requests = Vec::new();
        let attempt = Attempt { stage: self, planned, folder, logs };
        match attempt.make(&mut record, &mut requests) {
            Ok(()) => {}
            Err(error) if error.ends_all() => return Err(error),
            Err(error) => fail(&mut record, error.to_string()),
        }
        store(folder, &record, &requests)?;
        Ok(record)
    }
}

fn store(folder: &Path, record: &RunRecord, requests: &[RequestRecord]) -> Result<(), LabError> {
    Ok(store::write_run(folder, record, requests)?)
}

/// A failure more.
fn fail(record: &mut RunRecord, why: String) {
    record.failure = Some(match record.failure.take() {
        Some(before) => format!("{before}; {why}"),
        None => why,
    });
}

struct Attempt<'l> {
    stage: &'l Stage<'l>,
    planned: &'l Planned,
    folder: &'l Path,
    logs: PathBuf,
}

/// The programs of a run. They are dropped, and end, in this order.
struct Programs {
    driver: Driver,
    background: Vec<Process>,
    web: Process,
    measuring: Vec<Measuring>,
    gateways: Gateways,
    emulators: Vec<Process>,
    _scratch: Scratch,
}

impl Attempt<'_> {
    fn make(
        &self,
        record: &mut RunRecord,
        requests: &mut Vec<RequestRecord>,
    ) -> Result<(), LabError> {
        let programs = self.start()?;
        record.started_ns = programs.driver.started_ns();
        programs.wait(self.stage.interrupt)?;
        record.ended_ns = now_ns();
        record.cpu_s = programs.cpu_s();
        record.queues = queues::count(self.stage.testbed)?;
        self.end(programs, record, requests)
    }

    fn start(&self) -> Result<Programs, LabError> {
        let Stage { testbed, tools, interrupt } = *self.stage;
        let (settings, logs) = (&self.planned.settings, &*self.logs);
        let scratch = Scratch::new()?;
        let folders = (scratch.path(), logs);
        testbed.prepare(settings)?;
        let emulators = traffic::emulate(testbed, settings, tools, logs, interrupt)?;
        testbed.wait_for_paths(interrupt)?;
        let gateways = Gateways::start(testbed, settings, tools, folders, interrupt)?;
        testbed.wait_for_answer(interrupt)?;
        let (web, site) = traffic::serve(testbed, settings, folders, interrupt)?;
        let background = traffic::background(testbed, settings, logs)?;
        let measuring = self.measure()?;
        let driver = Driver::start(testbed, settings, &site, tools, logs)?;
        let _scratch = scratch;
        Ok(Programs { driver, background, web, measuring, gateways, emulators, _scratch })
    }

    /// Between the gateways, and over one of them if that is wanted.
    fn measure(&self) -> Result<Vec<Measuring>, LabError> {
        let mut taps = vec![("lanesplit-measure", [TAP_WAN_A, TAP_WAN_B])];
        if self.planned.taps_gateway {
            taps.push(("lanesplit-measure-gateway", [TAP_LAN_A, TAP_WAN_A]));
        }
        let Stage { testbed, tools, interrupt } = *self.stage;
        let settings = &self.planned.settings;
        let delay = Duration::from_secs_f64((settings.delay_ms + settings.jitter_ms) / 1000.0);
        let start = |(name, taps)| {
            Measuring::start(name, taps, delay, (testbed, tools), &self.logs, interrupt)
        };
        taps.into_iter().map(start).collect()
    }

    /// Ends all programs, from those that send to those that look on, and takes down what each says.
    fn end(
        &self,
        programs: Programs,
        record: &mut RunRecord,
        requests: &mut Vec<RequestRecord>,
    ) -> Result<(), LabError> {
        let interrupt = self.stage.interrupt;
        let Programs { driver, background, web, measuring, gateways, emulators, _scratch } =
            programs;
        drop(background);
        web.terminate();
        gateways.wait_for_rest(interrupt)?;
        measuring.iter().for_each(Measuring::terminate);
        let emulation = traffic::end_emulation(emulators, &self.logs, interrupt)?;
        let ended = gateways.stop(interrupt)?;
        record.gateways = ended.records;
        web.succeed(interrupt, END_MAX)?;
        *requests = driver.finish(interrupt)?;
        record.requests_run_out = traffic::run_out(requests);
        let mut failures = vec![emulation, ended.failure, traffic::failure(requests)];
        let folders = [self.folder.to_owned(), self.folder.join(store::GATEWAY)];
        for (measuring, folder) in measuring.into_iter().zip(folders) {
            failures.push(measuring::failure(&measuring.finish(&folder, interrupt)?));
        }
        failures.into_iter().flatten().for_each(|why| fail(record, why));
        Ok(())
    }
}

impl Programs {
    /// Waits until the requests have ended, as long as everything else runs.
    fn wait(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        let driver = &self.driver;
        let said = || driver.last_words();
        interrupt.wait_for("the requests to end", driver.bound(), said, || {
            self.gateways.check()?;
            self.measuring.iter().try_for_each(Measuring::check)?;
            self.others().try_for_each(Process::check)?;
            driver.has_ended()
        })
    }

    fn others(&self) -> impl Iterator<Item = &Process> {
        self.emulators.iter().chain(&self.background).chain([&self.web])
    }

    /// Processor time of each so far.
    fn cpu_s(&self) -> BTreeMap<String, f64> {
        let others = self.others().map(|one| (one.name().to_owned(), one.cpu_s()));
        let measuring = self.measuring.iter().map(Measuring::cpu_s);
        others.chain(measuring).chain(self.gateways.cpu_s()).chain([self.driver.cpu_s()]).collect()
    }
}

/// By the wall clock.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
