//! The time that a worker reads, once a round.

use std::time::Instant;

/// Nanoseconds since a moment of its own; never runs backwards. A copy shows the same time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_ns: u64,
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Clock::start_at(0)
    }

    /// Starts at a later time, so that there is a time for what happened before the start.
    pub fn start_at(start_ns: u64) -> Self {
        Clock { start: Instant::now(), start_ns }
    }

    /// The time now.
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        self.start_ns + self.start.elapsed().as_nanos() as u64
    }
}
