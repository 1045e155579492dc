//! The thread of one tap: from the kernel's ring into batches, and nothing else.
//!
//! Invariant: every batch that was taken empty is handed on, so the batches of a tap are always the same ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, TryRecvError};

use crate::source::Batch;
use crate::source::listener::{Listener, Read};

/// How often the kernel is asked for its counts.
const COUNT: Duration = Duration::from_millis(250);

/// What others see of a reader while it runs.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    drops: AtomicU64,
    queue_full: AtomicU64,
    pinned: AtomicBool,
    gone: OnceLock<String>,
}

impl Gauges {
    /// Frames that the kernel dropped, as of a moment ago.
    pub(super) fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    /// Times no batch was empty.
    pub(super) fn queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// Whether it could be pinned.
    pub(super) fn pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Why it ended by itself.
    pub(super) fn gone(&self) -> Option<String> {
        self.gone.get().cloned()
    }
}

/// A reader before it runs.
pub(super) struct Reader {
    pub(super) tap: Box<dyn Listener>,
    pub(super) core: usize,
    pub(super) to_fill: Receiver<Batch>,
    pub(super) filled: Sender<Batch>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) gauges: Arc<Gauges>,
}

impl Reader {
    /// Reads until it is told to stop and nothing more comes, or the interface is gone.
    pub(super) fn run(mut self) -> Box<dyn Listener> {
        let pinned = core_affinity::set_for_current(CoreId { id: self.core });
        self.gauges.pinned.store(pinned, Ordering::Relaxed);
        let mut counted = Instant::now();
        // What is in the ring when it is told to stop was seen before; a flood must not keep it from stopping.
        let mut reads_left = self.tap.reads_max();
        let mut listens = true;
        while let Some(mut batch) = self.empty_batch() {
            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping && listens {
                self.tap.hang_up();
                listens = false;
            }
            let read = self.tap.read(&mut batch);
            if self.filled.send(batch).is_err() {
                break;
            }
            if counted.elapsed() >= COUNT {
                counted = Instant::now();
                self.gauges.drops.store(self.tap.notes().drops, Ordering::Relaxed);
            }
            match read {
                Read::Gone => {
                    let _ = self.gauges.gone.set("the interface is gone".into());
                    break;
                }
                Read::Quiet if stopping => break,
                Read::Frames if stopping && reads_left == 0 => break,
                Read::Frames if stopping => reads_left -= 1,
                Read::Quiet | Read::Frames => {}
            }
        }
        self.tap
    }

    fn empty_batch(&self) -> Option<Batch> {
        match self.to_fill.try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.gauges.queue_full.fetch_add(1, Ordering::Relaxed);
                self.to_fill.recv().ok()
            }
        }
    }
}
