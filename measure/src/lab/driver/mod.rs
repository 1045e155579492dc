//! The load driver: an application that asks a server for what a mix says, when it says so, and logs what it got.
//!
//! ```text
//!   schedule --> scheduler --due--> workers: client, exchange --RequestRecord--> caller, log
//! ```
//!
//! **Open loop.** When a request is due was decided before the first, so a slow answer delays no other, as users do
//! not wait for each other. Its lateness is in the record. Each request has a connection and a thread of its own.
//!
//! **Bounded.** In number: a request that finds [`Plan::concurrent_max`] others under way is not made. In time: what
//! is under way when the drain time after the last arrival is over is cut off. Both are recorded with an error.
//!
//! Invariant: every arrival of the schedule gets exactly one record, unless the run was stopped before it was due.

mod client;
mod exchange;
mod line;
pub mod log;
pub mod schedule;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};

use self::client::{Client, now_ns};
use self::exchange::BUFFER_BYTES;
use self::line::Line;
use self::schedule::{Arrival, arrivals};
use super::records::RequestRecord;
use super::workload::{Mix, Wire};

/// How long it takes at most until a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Between the start and the first moment at which a request can be due: for the threads to be there.
const LEAD: Duration = Duration::from_millis(50);
/// TLS needs some 30 KiB of it.
const STACK_BYTES: usize = 256 << 10;

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The name of a mix in [`super::workload`].
    pub mix: String,
    /// How many times as often as the mix says requests arrive.
    #[serde(default = "once")]
    pub scale: f64,
    /// Of the arrivals.
    pub seed: u64,
    /// For how long requests arrive.
    pub duration_s: f64,
    /// How long the last ones are waited for.
    pub drain_s: f64,
    /// Where the server listens.
    pub server: SocketAddr,
    /// The only certificate that is trusted, a PEM file; without one, requests are not encrypted.
    pub certificate: Option<PathBuf>,
    /// Bytes that a full segment carries, see [`Wire`].
    pub segment_bytes: u32,
    /// Requests under way at the same time, at most.
    #[serde(default = "concurrent_max")]
    pub concurrent_max: u32,
}

fn once() -> f64 {
    1.0
}

fn concurrent_max() -> u32 {
    256
}

impl Plan {
    /// What its requests go over.
    pub fn wire(&self) -> Wire {
        Wire { segment_bytes: self.segment_bytes, tls: self.certificate.is_some() }
    }
}

/// How the error of a request begins that nobody was left to make.
const NOT_ASKED: &str = "not asked";

/// A run that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no mix of that name.
    #[error("there is no mix {0:?}; there are {names}", names = Mix::NAMES.join(", "))]
    Mix(String),
    /// A number of the plan is out of bounds.
    #[error("{key} is {value}; it must be {must}")]
    Number {
        /// Which.
        key: &'static str,
        /// As it is.
        value: String,
        /// As it should be.
        must: &'static str,
    },
    /// The server's certificate cannot be trusted.
    #[error("certificate {path}: {what}")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// No thread could be had.
    #[error("no thread for requests: {0}; lower concurrent_max")]
    Thread(std::io::Error),
}

/// The account of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Before anything was due.
    pub started_ns: u64,
    /// When the last request had ended.
    pub ended_ns: u64,
    /// Requests of the schedule.
    pub scheduled: u32,
    /// Those that were answered in full.
    pub answered: u32,
    /// Those that have an error.
    pub failed: u32,
    /// Those that a stop left out.
    pub left_out: u32,
    /// How long after it was due a request began, at most.
    pub lateness_ns_max: u64,
}

/// Runs a plan to its end, or until it is told to stop; `each` gets the requests as they end.
///
/// # Errors
///
/// Before the first request: when the plan cannot be carried out.
pub fn run(
    plan: &Plan,
    stop: &AtomicBool,
    mut each: impl FnMut(RequestRecord),
) -> Result<Account, DriverError> {
    check(plan)?;
    let mix = Mix::named(&plan.mix).ok_or_else(|| DriverError::Mix(plan.mix.clone()))?;
    let client = Client::new(plan)?;
    let arrivals =
        arrivals(&mix.scaled(plan.scale), plan.seed, Duration::from_secs_f64(plan.duration_s));
    let begin = Begin { instant: Instant::now() + LEAD, ns: now_ns() + LEAD.as_nanos() as u64 };
    let end = begin.instant + Duration::from_secs_f64(plan.duration_s + plan.drain_s);
    let pool = Pool {
        client,
        lines: (0..plan.concurrent_max).map(|_| Line::default()).collect(),
        under_way: AtomicU32::new(0),
        end,
    };
    let mut account = Account {
        started_ns: begin.ns,
        scheduled: arrivals.len() as u32,
        left_out: arrivals.len() as u32,
        ..Account::default()
    };
    thread::scope(|scope| {
        let (ended, records) = bounded(arrivals.len().max(1));
        let (asked, requests) = bounded(plan.concurrent_max as usize);
        for line in &pool.lines {
            let (requests, ended, pool) = (requests.clone(), ended.clone(), &pool);
            let worker = thread::Builder::new().name("request".into()).stack_size(STACK_BYTES);
            worker
                .spawn_scoped(scope, move || pool.work(line, &requests, &ended))
                .map_err(DriverError::Thread)?;
        }
        let (pool, wire) = (&pool, plan.wire());
        let scheduler = thread::Builder::new().name("schedule".into());
        scheduler
            .spawn_scoped(scope, move || {
                schedule(&arrivals, begin, wire, pool, stop, &asked, &ended)
            })
            .map_err(DriverError::Thread)?;
        collect(&records, pool, stop, |record| {
            account.add(&record);
            each(record);
        });
        Ok(())
    })?;
    account.ended_ns = now_ns();
    Ok(account)
}

impl Account {
    fn add(&mut self, record: &RequestRecord) {
        self.left_out -= 1;
        match record.error {
            None => self.answered += 1,
            Some(_) => self.failed += 1,
        }
        let lateness_ns = record.started_ns.saturating_sub(record.due_ns);
        self.lateness_ns_max = self.lateness_ns_max.max(lateness_ns);
    }
}

fn check(plan: &Plan) -> Result<(), DriverError> {
    let number = |key, value: f64, range: std::ops::RangeInclusive<f64>, must| match range
        .contains(&value)
    {
        true => Ok(()),
        false => Err(DriverError::Number { key, value: value.to_string(), must }),
    };
    number("scale", plan.scale, 0.001..=100.0, "0.001 to 100")?;
    number("duration_s", plan.duration_s, 0.0..=86_400.0, "0 to 86400")?;
    number("drain_s", plan.drain_s, 0.0..=3_600.0, "0 to 3600")?;
    number("concurrent_max", plan.concurrent_max.into(), 1.0..=4_096.0, "1 to 4096")?;
    // Less would not carry a head, more not fit in a record.
    number("segment_bytes", plan.segment_bytes.into(), 500.0..=16_000.0, "500 to 16000")
}

/// The beginning of a run, in both clocks.
#[derive(Debug, Clone, Copy)]
struct Begin {
    instant: Instant,
    ns: u64,
}

/// What all requests share.
struct Pool {
    client: Client,
    /// One for each worker.
    lines: Vec<Line>,
    under_way: AtomicU32,
    end: Instant,
}

impl Pool {
    /// Makes requests until no more come.
    fn work(&self, line: &Line, requests: &Receiver<RequestRecord>, ended: &Sender<RequestRecord>) {
        let mut buffer = Box::new([0; BUFFER_BYTES]);
        for mut record in requests {
            self.client.request(&mut record, line, self.end, &mut buffer);
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            ended.send(record).expect("there is room for all");
        }
    }
}

/// Whether this error of a record says that time or workers ran out, as they do where a path is full, and not that
/// something was wrong.
pub fn has_run_out(error: &str) -> bool {
    error == client::CUT_OFF || error.starts_with(NOT_ASKED)
}

/// Hands each request over when it is due.
fn schedule(
    arrivals: &[Arrival],
    begin: Begin,
    wire: Wire,
    pool: &Pool,
    stop: &AtomicBool,
    asked: &Sender<RequestRecord>,
    ended: &Sender<RequestRecord>,
) {
    // The kernel bundles timers to save wake-ups, up to 50 us. Where it refuses, requests are that much later.
    let _ = nix::sys::prctl::set_timerslack(1);
    for arrival in arrivals {
        if !sleep_until(begin.instant + arrival.due, stop) {
            return;
        }
        let mut record = record(arrival, begin, wire);
        let most = pool.lines.len() as u32;
        if pool.under_way.load(Ordering::Relaxed) >= most {
            record.started_ns = now_ns();
            record.error = Some(format!("{NOT_ASKED}: {most} others were under way"));
            ended.send(record).expect("there is room for all");
            continue;
        }
        pool.under_way.fetch_add(1, Ordering::Relaxed);
        asked.send(record).expect("there are workers");
    }
}

/// False when told to stop before.
fn sleep_until(time: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(STOP_CHECK));
    }
}

fn record(arrival: &Arrival, begin: Begin, wire: Wire) -> RequestRecord {
    RequestRecord {
        number: arrival.number,
        kind: arrival.kind.name.to_owned(),
        bulk: arrival.kind.bulk,
        packets: arrival.kind.packets,
        bytes: wire.body_bytes(&arrival.kind),
        due_ns: begin.ns + arrival.due.as_nanos() as u64,
        started_ns: 0,
        connected_ns: None,
        finished_ns: None,
        port: None,
        error: None,
    }
}

/// Takes what ends until nothing is under way, and sees to it that this comes to pass.
fn collect(
    records: &Receiver<RequestRecord>,
    pool: &Pool,
    stop: &AtomicBool,
    mut each: impl FnMut(RequestRecord),
) {
    let mut cut = false;
    loop {
        match records.recv_timeout(STOP_CHECK) {
            Ok(record) => each(record),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if !cut && (stop.load(Ordering::Relaxed) || Instant::now() >= pool.end) {
            cut = true;
            pool.lines.iter().for_each(Line::cut);
        }
    }
}
