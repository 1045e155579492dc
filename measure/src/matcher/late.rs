//! The late memory: packets that left the ring having been seen at one tap only.
//!
//! Of at most a fixed number the oldest leaves first. One identity is in it once: a second one that is not
//! told apart from it leaves at once.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::ring::{Class, Entry};
use super::{Outcome, Sighting, outcome};
use crate::flow::{FlowId, Flows};
use crate::source::Tap;

/// Digests are hashes already.
#[derive(Debug, Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only words are hashed");
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write_u8(&mut self, tap: u8) {
        self.0 ^= u64::from(tap);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    digest: [u64; 2],
    tap: u8,
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest[0]);
        state.write_u8(self.tap);
    }
}

#[derive(Debug)]
pub(super) struct Late {
    entries: HashMap<Key, (u64, Entry), BuildHasherDefault<Plain>>,
    /// In order of arrival; those that were taken are still in it, and are passed over.
    order: VecDeque<(u64, Key)>,
    next: u64,
    entries_max: usize,
}

impl Late {
    pub(super) fn new(entries_max: usize) -> Self {
        Late {
            entries: HashMap::default(),
            order: VecDeque::new(),
            next: 0,
            entries_max: entries_max.max(1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes in a packet; returns one that has to leave.
    pub(super) fn put(&mut self, entry: &Entry) -> Option<Outcome> {
        let key = Key { digest: entry.digest, tap: u8::from(entry.class[0] == Class::Absent) };
        if self.entries.contains_key(&key) {
            return Some(outcome(entry));
        }
        let leaving = match self.entries.len() == self.entries_max {
            true => self.pop(),
            false => None,
        };
        self.entries.insert(key, (self.next, *entry));
        self.order.push_back((self.next, key));
        self.next += 1;
        // What was taken long ago must not fill the queue.
        if self.order.len() > 2 * self.entries_max {
            self.order.retain(|(number, key)| {
                self.entries.get(key).is_some_and(|(known, _)| known == number)
            });
        }
        leaving
    }

    /// Takes out the packet of which this is a sighting at the other tap.
    pub(super) fn take(&mut self, sighting: &Sighting, seen: Tap, flows: &Flows) -> Option<Entry> {
        let key = Key { digest: sighting.digest, tap: seen.index() as u8 };
        let (_, entry) = self.entries.get(&key)?;
        let same =
            entry.check == sighting.check && flows.may_be_of(FlowId(entry.flow), sighting.stream);
        match same {
            true => self.entries.remove(&key).map(|(_, entry)| entry),
            false => None,
        }
    }

    /// All leave, the oldest first.
    pub(super) fn drain(&mut self, mut leaves: impl FnMut(Outcome)) {
        while let Some(outcome) = self.pop() {
            leaves(outcome);
        }
    }

    fn pop(&mut self) -> Option<Outcome> {
        while let Some((number, key)) = self.order.pop_front() {
            if self.entries.get(&key).is_some_and(|(known, _)| *known == number) {
                return self.entries.remove(&key).map(|(_, entry)| outcome(&entry));
            }
        }
        None
    }
}
