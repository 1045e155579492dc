//! Flows outside of their table: taken out a few buckets at a time while packets go on, and put back after a
//! restart.
//!
//! ```text
//! buckets   [ IPv4 ................ | IPv6 ...... ]
//!              ^ slice  ^ next slice -->                 until there is none
//! ```
//!
//! A [`Slice`] is all that such a walk consists of: where it stands, how far it goes at once, and room for what it
//! finds. Whoever holds the table keeps nothing of it, allocates nothing and looks at no more than
//! [`Slice::buckets_max`] buckets.
//!
//! **What a walk promises.** Each flow that stays where it is, is found once. One that moves to its other bucket
//! between two slices may be missed or found twice, so whoever puts flows back takes the later of two. A walk in one
//! slice, or while no packet comes, finds each exactly once.

use super::key::FlowKey;
use super::table::BUCKET_ENTRIES;

/// What is known of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFlow {
    /// Its name.
    pub key: FlowKey,
    /// When its last packet was handled, in nanoseconds.
    pub last_ns: u64,
    /// Packets of its life, so far; at least one.
    pub packets: u32,
    /// Whether it is in the long lane.
    pub long: bool,
}

/// Some buckets' flows, and where to go on.
#[derive(Debug)]
pub struct Slice {
    buckets_max: usize,
    flows: Vec<KnownFlow>,
    next: Option<usize>,
}

impl Slice {
    /// The start of a walk, with room for `buckets_max` buckets at once, at least one.
    pub fn new(buckets_max: usize) -> Self {
        let buckets_max = buckets_max.max(1);
        Slice {
            buckets_max,
            flows: Vec::with_capacity(buckets_max * BUCKET_ENTRIES),
            next: Some(0),
        }
    }

    /// Begins another walk.
    pub fn rewind(&mut self) {
        self.flows.clear();
        self.next = Some(0);
    }

    /// What was found last.
    pub fn flows(&self) -> &[KnownFlow] {
        &self.flows
    }

    /// Whether the walk is at its end.
    pub fn is_last(&self) -> bool {
        self.next.is_none()
    }

    /// Buckets that are looked at, at once.
    pub fn buckets_max(&self) -> usize {
        self.buckets_max
    }

    /// Empties it for the next buckets; returns the first of them. `None` when there are none.
    pub(super) fn advance(&mut self, buckets: usize) -> Option<std::ops::Range<usize>> {
        self.flows.clear();
        let first = self.next.filter(|first| *first < buckets);
        let range = first.map(|first| first..buckets.min(first + self.buckets_max));
        self.next = range.as_ref().map(|range| range.end).filter(|end| *end < buckets);
        range
    }

    /// Never grows: there is room for every entry of the buckets of a slice.
    pub(super) fn push(&mut self, flow: KnownFlow) {
        debug_assert!(self.flows.len() < self.flows.capacity());
        self.flows.push(flow);
    }
}

/// What became of a flow that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is there as it was.
    Taken,
    /// It was there already; the later of the two stays.
    Twice,
    /// It has been silent for longer than the idle timeout.
    Ended,
    /// There is no room for it.
    NoRoom,
}
