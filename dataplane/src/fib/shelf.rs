//! Where snapshots stay until no worker has them.

use std::sync::Arc;

use super::Fib;

/// Most snapshots that are kept at once, the newest included. A worker takes a new one every tick, so more than
/// two or three are there only when a worker is stuck.
pub const SNAPSHOTS_MAX: usize = 16;

/// A reference to each snapshot that was given away, so that none is freed by whom it was given to.
#[derive(Debug, Default)]
pub struct Shelf {
    kept: Vec<Arc<Fib>>,
}

impl Shelf {
    /// Whether another one may be kept. Frees those that nobody else has.
    pub fn has_room(&mut self) -> bool {
        // Nobody can get a reference to a snapshot of which only this one is left.
        self.kept.retain(|fib| Arc::strong_count(fib) > 1);
        self.kept.len() < SNAPSHOTS_MAX
    }

    /// Keeps a snapshot and returns the reference that may be given away.
    ///
    /// # Panics
    ///
    /// When there is no room.
    pub fn keep(&mut self, fib: Fib) -> Arc<Fib> {
        assert!(self.has_room(), "{SNAPSHOTS_MAX} snapshots are still in use");
        let fib = Arc::new(fib);
        self.kept.push(Arc::clone(&fib));
        fib
    }

    /// Snapshots on the shelf.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_freed_by_the_shelf_and_only_when_nobody_has_it() {
        let mut shelf = Shelf::default();
        let first = shelf.keep(Fib::default());
        let second = shelf.keep(Fib::default());
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_some(), "what a worker lets go of stays");
        assert!(shelf.has_room());
        assert!(weak.upgrade().is_none());
        assert_eq!((shelf.len(), Arc::strong_count(&second)), (1, 2));
    }

    #[test]
    fn a_stuck_worker_does_not_fill_the_memory() {
        let mut shelf = Shelf::default();
        let held: Vec<_> = (0..SNAPSHOTS_MAX).map(|_| shelf.keep(Fib::default())).collect();
        assert!(!shelf.has_room());
        drop(held);
        assert!(shelf.has_room());
        assert!(shelf.is_empty());
    }
}
