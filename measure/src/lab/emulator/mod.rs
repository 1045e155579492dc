//! A path between two interfaces of a namespace, with delay, jitter and loss: for kernels without netem.
//!
//! ```text
//!   a --> Port --> Direction "forth": lost? held until its time --> Port --> b
//!   a <-- Port <-- Direction "back"  <------------------------------ Port <-- b
//! ```
//!
//! Whole Ethernet frames go from one interface to the other, whomever they are addressed to, as over a wire. One
//! thread sleeps until a frame comes or one is due, and then runs first; how late frames went on is in the
//! [`Report`]. Both interfaces must leave frames as they are (`ethtool -K DEV tx off tso off gso off gro off
//! rxvlan off`), and have no addresses.
//!
//! Rates are not its business: a queue with a rate belongs before it, and then it does not change the rate.
//!
//! Invariant: [`Account::balances`] for each direction, at all times.

mod direction;
mod port;
mod urgency;

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

pub use self::direction::{Account, Impairment};
use self::direction::{Direction, Held};
use self::port::{BATCH, Frame, Port};
use self::urgency::run_first;

/// How long it takes at most until a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// The directions, by which their chances differ.
const NAMES: [&str; 2] = ["forth", "back"];

/// What is emulated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Emulation {
    /// Both ends of the path.
    pub interfaces: [String; 2],
    /// What is done to the frames that come in at the first, and at the second.
    pub impairments: [Impairment; 2],
    /// Frames that each direction holds at most. A path of 100 Mbit/s brings up to 8 a millisecond that are full.
    pub frames_max: usize,
    /// Of losses and deviations.
    pub seed: u64,
}

/// An emulation that cannot be, or go on.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// An interface cannot be opened.
    #[error(
        "interface {interface}: {error}; it must be there, and reading from it takes CAP_NET_RAW"
    )]
    Open {
        /// Which.
        interface: String,
        /// Why.
        error: io::Error,
    },
    /// An interface cannot be read from any more.
    #[error("interface {interface}: {error}")]
    Receive {
        /// Which.
        interface: String,
        /// Why.
        error: io::Error,
    },
    /// A share is none.
    #[error("a loss of {0} is no share; it must be 0 to 1")]
    Loss(f64),
    /// The kernel does not wait for frames.
    #[error("waiting for frames: {0}")]
    Wait(Errno),
}

/// What an emulation did to one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DirectionReport {
    /// Where frames came in.
    pub from: String,
    /// Where they went.
    pub to: String,
    /// What became of them.
    pub account: Account,
    /// Frames longer than any that a wire carries, which offloads have merged; they are in no account.
    pub oversize: u64,
    /// Frames that the kernel dropped before the emulator saw them; they are in no account.
    pub missed: u64,
    /// How much later than they should have frames went on.
    pub lateness: Lateness,
}

/// Of all frames that went on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// The median.
    pub p50_ns: u64,
    /// 99 of a hundred are not later than this.
    pub p99_ns: u64,
    /// The latest.
    pub max_ns: u64,
}

/// What an emulation did, in each direction.
pub type Report = [DirectionReport; 2];

/// Emulates until it is told to stop; `ready` is called when both interfaces are listened to. The calling thread is
/// scheduled by real time from then on, if the kernel lets it.
///
/// # Errors
///
/// When an interface cannot be had, or goes.
pub fn run(
    emulation: &Emulation,
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<Report, EmulatorError> {
    let mut path = Path::open(emulation)?;
    // Where the kernel refuses, frames are later, and the report says how much.
    let _ = run_first();
    ready();
    while !stop.load(Ordering::Relaxed) {
        let readable = path.sleep()?;
        path.receive(readable)?;
        path.send();
    }
    path.report()
}

/// Both directions.
struct Path {
    interfaces: [String; 2],
    ports: [Port; 2],
    directions: [Direction; 2],
    lateness_ns: [Histogram<u64>; 2],
    /// Frames that hold nothing.
    #[expect(clippy::vec_box, reason = "frames are handed on without a copy")]
    pool: Vec<Box<Frame>>,
    /// What is sent at once, empty in between.
    batch: Vec<Held>,
    start: Instant,
}

impl Path {
    fn open(emulation: &Emulation) -> Result<Path, EmulatorError> {
        for Impairment { loss, .. } in emulation.impairments {
            if !(0.0..=1.0).contains(&loss) {
                return Err(EmulatorError::Loss(loss));
            }
        }
        let [a, b] = &emulation.interfaces;
        let open = |name: &String| {
            Port::open(name).map_err(|error| EmulatorError::Open { interface: name.clone(), error })
        };
        let direction = |which: usize| {
            let impairment = emulation.impairments[which];
            Direction::new(impairment, emulation.frames_max, emulation.seed, NAMES[which])
        };
        let histogram =
            |_| Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("the bounds are good");
        Ok(Path {
            interfaces: emulation.interfaces.clone(),
            ports: [open(a)?, open(b)?],
            directions: [0, 1].map(direction),
            lateness_ns: [0, 1].map(histogram),
            pool: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            start: Instant::now(),
        })
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Takes what has come, a batch of each side that has something.
    fn receive(&mut self, readable: [bool; 2]) -> Result<(), EmulatorError> {
        for which in [0, 1].into_iter().filter(|which| readable[*which]) {
            let start = self.start;
            let direction = &mut self.directions[which];
            let received = self.ports[which].receive(&mut self.pool, |pool, waited, frame| {
                let came = start.elapsed().saturating_sub(waited);
                pool.extend(direction.receive(came.as_nanos() as u64, frame));
            });
            received.map_err(|error| {
                let interface = self.interfaces[which].clone();
                EmulatorError::Receive { interface, error }
            })?;
        }
        Ok(())
    }

    /// Sends all that is due.
    fn send(&mut self) {
        for which in [0, 1] {
            loop {
                let now_ns = self.now_ns();
                let direction = &mut self.directions[which];
                self.batch.extend(std::iter::from_fn(|| direction.due(now_ns)).take(BATCH));
                if self.batch.is_empty() {
                    break;
                }
                let sent = self.ports[1 - which].send(&self.batch);
                direction.went_on(sent, self.batch.len() as u64 - sent);
                for held in self.batch.drain(..) {
                    self.lateness_ns[which].saturating_record(now_ns - held.release_ns);
                    self.pool.push(held.frame);
                }
            }
        }
    }

    /// Sleeps until a frame comes or is due: which side has something, if only an error.
    fn sleep(&self) -> Result<[bool; 2], EmulatorError> {
        let next_ns = self.directions.iter().filter_map(Direction::next_ns).min();
        let left = next_ns.map_or(STOP_CHECK, |next_ns| {
            Duration::from_nanos(next_ns.saturating_sub(self.now_ns())).min(STOP_CHECK)
        });
        let mut ports =
            self.ports.each_ref().map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut ports, Some(TimeSpec::from_duration(left)), None) {
            Ok(_) => Ok(ports.map(|port| port.any().unwrap_or(true))),
            Err(Errno::EINTR) => Ok([false; 2]),
            Err(error) => Err(EmulatorError::Wait(error)),
        }
    }

    fn report(mut self) -> Result<Report, EmulatorError> {
        let mut missed = [0; 2];
        for (which, port) in self.ports.iter_mut().enumerate() {
            missed[which] = port.missed().map_err(|error| {
                let interface = self.interfaces[which].clone();
                EmulatorError::Receive { interface, error }
            })?;
        }
        Ok([0, 1].map(|which| {
            let lateness_ns = &self.lateness_ns[which];
            let account = self.directions[which].account();
            assert!(account.balances(), "{account:?}");
            DirectionReport {
                from: self.interfaces[which].clone(),
                to: self.interfaces[1 - which].clone(),
                account,
                oversize: self.ports[which].oversize(),
                missed: missed[which],
                lateness: Lateness {
                    p50_ns: lateness_ns.value_at_quantile(0.5),
                    p99_ns: lateness_ns.value_at_quantile(0.99),
                    max_ns: lateness_ns.max(),
                },
            }
        }))
    }
}
