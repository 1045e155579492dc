//! The packets in memory, in the order in which they were first seen, and the table that finds them by identity.
//!
//! An entry is one cache line and is one packet: what each tap saw of it. The ring grows by doubling up to a
//! limit; the table has room for twice as many. A slot of the table is one word, 32 bits of digest and the low
//! 32 bits of the entry's number, so most strangers are told apart without looking at their entries.
//!
//! Invariant: every slot names an entry that is in the ring. Of several entries with one identity only the
//! latest has a slot.

use dataplane::memory::{prefetch, vec_on_huge_pages};

use crate::lane::LaneId;

/// What became of a packet at one tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Not seen at this tap.
    Absent,
    /// Seen here, and nowhere else.
    Single,
    /// Recognised at both taps.
    Matched,
    /// A further copy at this tap.
    Duplicate,
    /// One of several that nothing tells apart.
    Ambiguous,
    /// Seen at both taps, further apart than the window.
    OutOfWindow,
}

/// Everything known of one packet: a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) digest: [u64; 2],
    pub(super) check: u64,
    pub(super) time_ns: [u64; 2],
    pub(super) flow: u32,
    /// The run of copies it belongs to, or [`NO_RUN`].
    pub(super) run: u32,
    /// Time of its first sighting, in units of [`ORDER_NS`], without the high bits.
    pub(super) order: u32,
    /// See [`super::Outcome::wire_bytes`].
    pub(super) wire_bytes: u32,
    pub(super) class: [Class; 2],
    /// Of each tap, which clock stamped it: [`super::Sighting::clock`].
    pub(super) clock: [u8; 2],
    pub(super) lane: LaneId,
    pub(super) marks: u8,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// In no run of copies.
pub(super) const NO_RUN: u32 = u32::MAX;

/// The unit of [`Entry::order`].
pub(super) const ORDER_NS: u64 = 1024;

const EMPTY: Entry = Entry {
    digest: [0; 2],
    check: 0,
    time_ns: [0; 2],
    flow: 0,
    run: NO_RUN,
    order: 0,
    wire_bytes: 0,
    class: [Class::Absent; 2],
    clock: [0; 2],
    lane: LaneId::OTHER,
    marks: 0,
};

/// Entries at the start.
const ENTRIES_MIN: usize = 1 << 12;

#[derive(Debug)]
pub(super) struct Ring {
    entries: Vec<Entry>,
    slots: Vec<u64>,
    /// Number of the oldest entry; numbers are never used again.
    first: u64,
    /// Number that the next entry will have.
    next: u64,
    entries_max: usize,
}

/// Where in the table an identity was found; good until room is made or an entry leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(usize);

impl Ring {
    /// Room for `entries_max` entries, rounded up to a power of two.
    pub(super) fn new(entries_max: usize) -> Self {
        let entries_max = entries_max.clamp(ENTRIES_MIN, 1 << 30).next_power_of_two();
        Ring {
            entries: vec![EMPTY; ENTRIES_MIN],
            slots: vec![0; 2 * ENTRIES_MIN],
            first: 0,
            next: 0,
            entries_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.slots)
    }

    /// Whether another entry would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.len() == self.entries_max
    }

    /// The oldest entry's number.
    pub(super) fn first(&self) -> Option<u64> {
        (self.first < self.next).then_some(self.first)
    }

    #[inline(always)]
    pub(super) fn entry(&self, number: u64) -> &Entry {
        &self.entries[number as usize & (self.entries.len() - 1)]
    }

    /// The entry that will be the oldest when some more have left.
    #[inline(always)]
    pub(super) fn ahead(&self, of_first: u64) -> Option<&Entry> {
        let number = self.first + of_first;
        (number < self.next).then(|| self.entry(number))
    }

    #[inline(always)]
    pub(super) fn entry_mut(&mut self, number: u64) -> &mut Entry {
        let mask = self.entries.len() - 1;
        &mut self.entries[number as usize & mask]
    }

    /// Asks for the slots of an identity.
    #[inline(always)]
    pub(super) fn prefetch_slot(&self, digest: [u64; 2]) {
        prefetch(&self.slots[home(tag(digest), self.slots.len())]);
    }

    /// Asks for the entry that an identity probably has.
    #[inline(always)]
    pub(super) fn prefetch_entry(&self, digest: [u64; 2]) {
        let tag = tag(digest);
        let slot = self.slots[home(tag, self.slots.len())];
        if slot >> 32 == u64::from(tag) {
            prefetch(self.entry(slot));
        }
    }

    /// The latest entry with this digest of which `same` holds.
    #[inline(always)]
    pub(super) fn find(
        &self,
        digest: [u64; 2],
        same: impl Fn(&Entry) -> bool,
    ) -> Option<(Slot, u64)> {
        let tag = tag(digest);
        let mask = self.slots.len() - 1;
        let mut at = home(tag, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if slot >> 32 == u64::from(tag) {
                let number = self.number(slot as u32);
                let entry = self.entry(number);
                let [low, high] = entry.digest;
                if (low ^ digest[0]) | (high ^ digest[1]) == 0 && same(entry) {
                    return Some((Slot(at), number));
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Makes room for one more entry, which moves slots. There must be some: see [`Ring::is_full`].
    #[inline(always)]
    pub(super) fn make_room(&mut self) {
        if self.len() == self.entries.len() {
            self.grow();
        }
    }

    /// Appends an entry; it takes over the slot of the entry before it, or gets one of its own.
    #[inline(always)]
    pub(super) fn push(&mut self, entry: Entry, before: Option<Slot>) -> u64 {
        assert!(self.len() < self.entries.len(), "room is made before an entry comes");
        let number = self.next;
        self.next += 1;
        *self.entry_mut(number) = entry;
        let word = u64::from(tag(entry.digest)) << 32 | u64::from(number as u32);
        match before {
            Some(Slot(at)) => self.slots[at] = word,
            None => insert(&mut self.slots, word),
        }
        number
    }

    /// Takes away the oldest entry.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let number = self.first()?;
        let entry = *self.entry(number);
        self.first += 1;
        let word = u64::from(tag(entry.digest)) << 32 | u64::from(number as u32);
        remove(&mut self.slots, word);
        // The next ones' slots, a little ahead.
        if let Some(ahead) = self.ahead(16) {
            self.prefetch_slot(ahead.digest);
        }
        Some(entry)
    }

    /// The number of which these are the low bits.
    #[inline(always)]
    fn number(&self, low: u32) -> u64 {
        self.first + u64::from(low.wrapping_sub(self.first as u32))
    }

    #[cold]
    fn grow(&mut self) {
        assert!(!self.is_full(), "the oldest entry leaves when the ring is full");
        let length = 2 * self.entries.len();
        let mut entries = vec_on_huge_pages(length, || EMPTY);
        let mut slots = vec_on_huge_pages(2 * length, || 0);
        for number in self.first..self.next {
            entries[number as usize & (length - 1)] = *self.entry(number);
        }
        self.slots.iter().filter(|&&word| word != 0).for_each(|&word| insert(&mut slots, word));
        (self.entries, self.slots) = (entries, slots);
    }
}

/// 32 bits of the digest, never zero.
#[inline(always)]
fn tag(digest: [u64; 2]) -> u32 {
    (digest[0] >> 32) as u32 | 1
}

/// Where the search for a tag begins. The lowest bit is the same in all.
#[inline(always)]
fn home(tag: u32, slots: usize) -> usize {
    (tag >> 1) as usize & (slots - 1)
}

#[inline(always)]
fn insert(slots: &mut [u64], word: u64) {
    let mask = slots.len() - 1;
    let mut at = home((word >> 32) as u32, slots.len());
    while slots[at] != 0 {
        at = (at + 1) & mask;
    }
    slots[at] = word;
}

/// Removes a word if it is there, and moves up those behind it that it kept from their place.
#[inline(always)]
fn remove(slots: &mut [u64], word: u64) {
    let mask = slots.len() - 1;
    let mut hole = home((word >> 32) as u32, slots.len());
    while slots[hole] != word {
        if slots[hole] == 0 {
            return;
        }
        hole = (hole + 1) & mask;
    }
    let mut at = hole;
    loop {
        at = (at + 1) & mask;
        if slots[at] == 0 {
            break;
        }
        let home = home((slots[at] >> 32) as u32, slots.len());
        // It may move unless its home lies behind the hole, around the end of the table.
        if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
            slots[hole] = slots[at];
            hole = at;
        }
    }
    slots[hole] = 0;
}
