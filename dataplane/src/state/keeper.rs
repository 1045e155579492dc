//! The thread that saves flows: every few seconds from slices that workers fill, at the end from the gateways.
//!
//! ```text
//!   wait for the interval -> a slice to every worker, again and again -> replace the file --+
//!     ^                                                                                   |
//!     +-----------------------------------------------------------------------------------+
//!   at any time: finish -> all that the gateways know -> replace the file -> end
//! ```
//!
//! A walk through the tables takes about half the interval, so that no tick of a worker takes long; when
//! 4096 buckets a tick are too few for that, it takes what it takes. What a walk found is as old as
//! the walk, at most: a flow is restored with the count it had then. What the gateways say at the end is exact.
//!
//! **Invariant.** The thread has no privileges: it can write what its user can write.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam::select;

use super::format::{self, FILE_BYTES_MAX, Section};
use super::moment::Moment;
use super::{SaveReport, StateStatus, file, milliseconds};
use crate::clock::Clock;
use crate::flow::slice::{KnownFlow, Slice};
use crate::gateway::Gateway;
use crate::privileges;
use crate::worker::{Export, TICK_NS};

/// How long a stop may take because of this: a disk that does not answer holds it up no longer.
pub const FINISH_MAX: Duration = Duration::from_secs(10);

/// Most buckets that a worker looks at in one tick: half a megabyte of memory at most.
const SLICE_BUCKETS_MAX: usize = 4096;
/// Least: fewer cost more by being handed to and fro.
const SLICE_BUCKETS_MIN: usize = 64;
/// Room that an entry of a file may need.
const ENTRY_BYTES: u64 = 64;

/// What the control thread has of the keeper.
#[derive(Debug)]
pub struct Keeper {
    status: Arc<Mutex<StateStatus>>,
    exports: Vec<Export>,
    finish: Sender<Finish>,
}

/// The last order: all gateways, and whom to tell when it is done.
struct Finish {
    gateways: Vec<Gateway>,
    done: Sender<()>,
}

impl Keeper {
    /// Starts the thread for gateways with so many buckets each, which go by `clock`. `status` is what came of the
    /// start so far.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub fn start(
        path: &Path,
        interval: Duration,
        buckets: &[usize],
        clock: Clock,
        status: StateStatus,
    ) -> std::io::Result<Keeper> {
        let interval_ms = milliseconds(interval);
        let status = Arc::new(Mutex::new(StateStatus { interval_ms, ..status }));
        let (fill, filled) = bounded(buckets.len());
        let lines = buckets.iter().enumerate().map(|(queue, buckets)| {
            let (give, empty) = bounded(1);
            let slice = Slice::new(buckets_a_tick(*buckets, interval));
            (Export::new(queue, empty, fill.clone()), Line { give, slice: Some(slice) })
        });
        let (exports, lines): (Vec<Export>, Vec<Line>) = lines.unzip();
        let (finish, orders) = bounded(1);
        let thread = Thread {
            path: path.to_owned(),
            interval,
            clock,
            status: Arc::clone(&status),
            sections: lines.iter().map(|_| Section::default()).collect(),
            bytes: 0,
            left_out: 0,
            lines,
            filled,
            orders,
        };
        thread::Builder::new().name("state".to_owned()).spawn(move || thread.run())?;
        Ok(Keeper { status, exports, finish })
    }

    /// For the worker of a queue.
    pub fn export(&self, queue: usize) -> Export {
        self.exports[queue].clone()
    }

    /// How it is.
    pub fn status(&self) -> StateStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Saves what the gateways of all queues, in their order, know in the end. The thread ends with it.
    pub fn finish(self, gateways: Vec<Gateway>) -> StateStatus {
        let (done, is_done) = bounded(1);
        let sent = self.finish.send(Finish { gateways, done });
        sent.expect("the thread ends after this order, or with the process");
        if is_done.recv_timeout(FINISH_MAX).is_err() {
            let StateStatus { file, .. } = self.status();
            tracing::error!(
                "{file}: not written within {} s, so the last flows are not saved",
                FINISH_MAX.as_secs()
            );
        }
        self.status()
    }
}

/// To one worker and back.
struct Line {
    give: Sender<Slice>,
    /// While it is not under way.
    slice: Option<Slice>,
}

/// How a walk ended.
enum Collected {
    All,
    Finish(Finish),
    /// The daemon could not start.
    Abandoned,
}

/// What the thread owns.
struct Thread {
    path: PathBuf,
    interval: Duration,
    clock: Clock,
    status: Arc<Mutex<StateStatus>>,
    lines: Vec<Line>,
    /// What was collected of each worker.
    sections: Vec<Section>,
    /// All of them together.
    bytes: u64,
    left_out: u64,
    filled: Receiver<(usize, Slice)>,
    orders: Receiver<Finish>,
}

impl Thread {
    fn run(mut self) {
        if let Err(error) = privileges::keep_nothing() {
            tracing::error!("no flows are saved: cannot give up privileges: {error}");
            // Nothing but the answer that somebody will wait for.
            let _ = self.orders.recv().map(|finish| finish.done.send(()));
            return;
        }
        if let Err(error) = file::try_out(&self.path) {
            self.note_failure(&error);
        }
        let mut next = Instant::now() + self.interval;
        loop {
            let pause = next.saturating_duration_since(Instant::now());
            match self.orders.recv_timeout(pause) {
                Ok(finish) => return self.finish(finish),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let begun = Instant::now();
            match self.collect() {
                Collected::All => {}
                Collected::Finish(finish) => return self.finish(finish),
                Collected::Abandoned => return,
            }
            self.save(begun);
            next = begun + self.interval;
        }
    }

    /// Walks through all tables, unless it is time to finish.
    fn collect(&mut self) -> Collected {
        self.forget();
        let mut missing = self.lines.len();
        for line in &mut self.lines {
            if let Some(mut slice) = line.slice.take() {
                slice.rewind();
                line.send(slice);
            }
        }
        while missing > 0 {
            let (queue, slice) = select! {
                recv(self.orders) -> finish => {
                    return finish.map_or(Collected::Abandoned, Collected::Finish);
                }
                recv(self.filled) -> filled => filled.expect("this thread's exports hold it open"),
            };
            self.take(queue, slice.flows());
            if slice.is_last() {
                self.lines[queue].slice = Some(slice);
                missing -= 1;
            } else {
                self.lines[queue].send(slice);
            }
        }
        Collected::All
    }

    fn finish(mut self, Finish { gateways, done }: Finish) {
        let begun = Instant::now();
        self.forget();
        let mut slice = Slice::new(SLICE_BUCKETS_MAX);
        for (queue, gateway) in gateways.iter().enumerate() {
            slice.rewind();
            while !slice.is_last() {
                gateway.fill(&mut slice);
                self.take(queue, slice.flows());
            }
        }
        self.save(begun);
        // Who waited too long does not listen any more.
        let _ = done.send(());
    }

    fn forget(&mut self) {
        self.sections.iter_mut().for_each(Section::clear);
        (self.bytes, self.left_out) = (0, 0);
    }

    /// Bounded, whatever there is.
    fn take(&mut self, queue: usize, flows: &[KnownFlow]) {
        let room =
            FILE_BYTES_MAX.saturating_sub(self.bytes + ENTRY_BYTES * self.lines.len() as u64);
        let fit = flows.len().min((room / ENTRY_BYTES) as usize);
        let section = &mut self.sections[queue];
        let before = section.bytes();
        flows[..fit].iter().for_each(|flow| section.push(flow));
        self.bytes += section.bytes() - before;
        self.left_out += (flows.len() - fit) as u64;
    }

    fn save(&self, begun: Instant) {
        let collected_in_ms = milliseconds(begun.elapsed());
        let begun = Instant::now();
        let moment = Moment::now();
        let saved_ns = self.clock.now_ns();
        let written = file::replace(&self.path, |file| {
            format::write(file, &moment, saved_ns, &self.sections)
        });
        match written {
            Ok(bytes) => self.note_save(SaveReport {
                at_unix_ms: moment.wall_ns / 1_000_000,
                flows: self.sections.iter().map(Section::flows).sum(),
                left_out: self.left_out,
                bytes,
                collected_in_ms,
                written_in_ms: milliseconds(begun.elapsed()),
            }),
            Err(error) => self.note_failure(&error),
        }
    }

    fn note_save(&self, report: SaveReport) {
        tracing::debug!(?report, "flows saved");
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.saves += 1;
        status.last_save = Some(report);
    }

    /// Said once for each reason, and counted every time.
    fn note_failure(&self, error: &std::io::Error) {
        let reason = error.to_string();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.failures += 1;
        let before = status.last_failure.replace(reason.clone());
        drop(status);
        if before.as_ref() != Some(&reason) {
            tracing::warn!(
                "{}: flows cannot be saved there: {reason}. Its folder must exist and belong to the user that \
                 lanesplitd runs as, without root's privileges",
                self.path.display()
            );
        }
    }
}

impl Line {
    fn send(&mut self, slice: Slice) {
        // There is one slice and room for it.
        let sent = self.give.try_send(slice);
        sent.expect("the control thread's exports hold it open");
    }
}

/// So many that a walk takes half the interval, a tick being now and then twice as long.
fn buckets_a_tick(buckets: usize, interval: Duration) -> usize {
    let ticks = (interval.as_nanos() / u128::from(2 * TICK_NS)).max(1);
    let needed = (buckets as u128).div_ceil(ticks) as usize;
    needed.clamp(SLICE_BUCKETS_MIN, SLICE_BUCKETS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_fits_into_half_the_interval_unless_a_tick_became_long() {
        for (buckets, seconds, expected) in [
            (10_000, 5, 64),
            (100_000, 5, 400),
            // The default tables: 4.8 s at a tick each 10 ms.
            (1_966_080, 5, 4096),
            (1_966_080, 60, 656),
            (100_000_000, 5, 4096),
        ] {
            assert_eq!(buckets_a_tick(buckets, Duration::from_secs(seconds)), expected);
        }
    }
}
