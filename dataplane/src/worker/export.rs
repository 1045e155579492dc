//! The flow table leaves a worker in slices, for whoever saves it.
//!
//! ```text
//!            empty slice                    tick: Gateway::fill
//!   keeper ---------------> worker --------------------------------> keeper
//! ```
//!
//! A slice is permission, cursor and memory in one: a worker fills the one that waits for it, at most one a tick, and
//! gives it back. It waits for nobody, allocates nothing and frees nothing.

use crossbeam::channel::{Receiver, Sender};

use crate::flow::slice::Slice;
use crate::gateway::Gateway;

/// A worker's end of it. A copy of it is for the worker that takes the place of this one.
#[derive(Debug, Clone)]
pub struct Export {
    queue: usize,
    empty: Receiver<Slice>,
    filled: Sender<(usize, Slice)>,
}

impl Export {
    /// For the worker of a queue. Who holds the other ends never has more than one slice for it under way, keeps
    /// room for all of them and outlives it.
    pub fn new(queue: usize, empty: Receiver<Slice>, filled: Sender<(usize, Slice)>) -> Self {
        Export { queue, empty, filled }
    }

    /// Fills the slice that waits, if one does.
    pub(super) fn turn(&self, gateway: &Gateway) {
        let Ok(mut slice) = self.empty.try_recv() else { return };
        gateway.fill(&mut slice);
        if let Err(refused) = self.filled.try_send((self.queue, slice)) {
            // Nobody is left to take it: to free its memory would take a system call that a worker may not make.
            std::mem::forget(refused);
        }
    }
}
