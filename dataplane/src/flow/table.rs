//! The flow table: bounded, made once, exact about time.
//!
//! A flow may live in one of two buckets, picked by two halves of its hash; a bucket is two entries side by
//! side: one cache line for IPv4, two for IPv6. At the size a table is made for, a third of its entries are
//! in use and nine out of ten flows are found in their first bucket.
//!
//! ```text
//! hash --- low half ---> first bucket   [ entry | entry ]
//!      \-- high half --> second bucket  [ entry | entry ]
//! ```
//!
//! A new flow takes a free entry of its first bucket, else of its second. When both are full, entries in
//! the way move to their own other bucket (cuckoo hashing: Pagh and Rodler, "Cuckoo hashing", J. Algorithms
//! 51, 2004), at most two of them; when sixteen entries were looked at in vain, the flow stays without state.
//!
//! Invariant: an entry last seen before the *horizon* has ended, and counts as free, whether it was swept or
//! not. So a look-up never depends on when the sweep came by.

use std::hint::select_unpredictable;
use std::ops::Range;

use arrayvec::ArrayVec;

use super::key::Key;
use super::secret::Secret;
use super::slice::Restored;
use crate::memory;

/// Entries of a bucket.
pub(super) const BUCKET_ENTRIES: usize = 2;
/// Entries that are looked at for one packet, at most: those of its two buckets, and to make room those of
/// the other buckets of the entries in the way.
const PROBES_MAX: usize = 16;
/// Ways to make room that are tried: each leads to one more bucket.
const STEPS_MAX: usize = PROBES_MAX / BUCKET_ENTRIES - 2;

/// Buckets of a table made for so many flows: half as many again, so that sixteen probes find room for all of
/// them.
pub fn buckets_for(flows_max: usize) -> usize {
    // Two at least, so that every flow has a choice.
    (flows_max + flows_max / 2).max(2)
}

/// What is known of one flow.
#[derive(Debug, Clone, Copy)]
pub struct Entry<const W: usize> {
    /// [`Entry::FREE`]'s when it is free.
    key: Key<W>,
    /// When its last packet was handled, in nanoseconds.
    pub(super) last_ns: u64,
    /// Packets of this life, this far; stays at its maximum rather than wrap.
    pub packets: u32,
    /// Whether it is in the long lane.
    pub long: bool,
}

impl<const W: usize> Entry<W> {
    /// No flow has this key: the last word of either kind has bits that are never set.
    const FREE: Self = Entry { key: Key([u64::MAX; W]), last_ns: 0, packets: 0, long: false };

    #[inline(always)]
    fn is_free(&self) -> bool {
        self.key.0[W - 1] == u64::MAX
    }

    /// Zero when this is the flow of the key. Word by word: a comparison as one range of memory would wait
    /// for the key's words to be stored.
    #[inline(always)]
    fn difference(&self, key: Key<W>) -> u64 {
        let mut difference = 0;
        for word in 0..W {
            difference |= self.key.0[word] ^ key.0[word];
        }
        difference
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Bucket<const W: usize> {
    entries: [Entry<W>; BUCKET_ENTRIES],
}

// 96 bytes an IPv4 flow and 192 an IPv6 flow, with three buckets for two flows the table is made for.
const _: () = assert!(size_of::<Bucket<2>>() == 64);
const _: () = assert!(size_of::<Bucket<6>>() == 128);

impl<const W: usize> Bucket<W> {
    // Either entry is as likely, so nothing here branches on which of the two it is.

    #[inline(always)]
    fn has(&self, key: Key<W>) -> bool {
        let [first, second] = self.differences(key);
        first.min(second) == 0
    }

    #[inline(always)]
    fn find(&self, key: Key<W>) -> Option<usize> {
        let [first, second] = self.differences(key);
        (first.min(second) == 0).then_some(usize::from(second == 0))
    }

    #[inline(always)]
    fn differences(&self, key: Key<W>) -> [u64; BUCKET_ENTRIES] {
        self.entries.each_ref().map(|entry| entry.difference(key))
    }

    fn free(&self, horizon_ns: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is_free() || entry.last_ns < horizon_ns)
    }
}

/// How the flows of a table came and went: created = expired + restarted + occupied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Population {
    /// Lives begun.
    pub created: u64,
    /// Lives ended by silence and noticed, by the sweep or by the packet that took the entry.
    pub expired: u64,
    /// Lives ended by a SYN.
    pub restarted: u64,
    /// Entries in use, those included whose end was not noticed yet.
    pub occupied: u64,
    /// Of the lives begun, those that had begun before the table was made.
    pub restored: u64,
}

/// A packet's flow.
#[derive(Debug)]
pub struct Touched<'a, const W: usize> {
    /// Its entry; `packets` includes this packet.
    pub entry: &'a mut Entry<W>,
    /// Whether a life began with this packet.
    pub begins: bool,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Place {
    bucket: usize,
    slot: usize,
}

/// The flows of one worker, of one IP version.
#[derive(Debug)]
pub struct Table<const W: usize> {
    buckets: Vec<Bucket<W>>,
    secret: Secret,
    swept: usize,
    population: Population,
}

impl<const W: usize> Table<W> {
    /// Made for `flows_max` flows; it can come to hold up to three times as many.
    pub fn new(flows_max: usize, secret: Secret) -> Self {
        assert!(flows_max < 1 << 31);
        let free = || Bucket { entries: [Entry::FREE; BUCKET_ENTRIES] };
        let buckets = memory::vec_on_huge_pages(buckets_for(flows_max), free);
        Table { buckets, secret, swept: 0, population: Population::default() }
    }

    /// How its flows came and went.
    pub fn population(&self) -> Population {
        self.population
    }

    /// Asks the memory for the first bucket of a flow, some packets before it is touched; returns the hash by
    /// which [`Table::touch`] finds it.
    #[inline(always)]
    pub fn prefetch(&self, key: Key<W>) -> u64 {
        let hash = self.secret.hash(&key);
        memory::prefetch(&self.buckets[self.first(hash)]);
        hash
    }

    /// The bucket in which a flow is, if it is anywhere: its second, which the memory is asked for, when it is
    /// not in its first. Without a branch: which of the two it is cannot be predicted.
    #[inline(always)]
    pub fn locate(&self, key: Key<W>, hash: u64) -> usize {
        let (first, second) = (self.first(hash), self.second(hash));
        let bucket = select_unpredictable(self.buckets[first].has(key), first, second);
        memory::prefetch(&self.buckets[bucket]);
        bucket
    }

    /// Counts a packet, handled at `now_ns`, for its flow: the one there is, or a new one when there is none,
    /// its last packet came before the horizon, or this packet is to `restart` it. `None` when the flow is
    /// unknown and there is no room. `bucket` is what [`Table::locate`] said; it may be out of date.
    #[inline(always)]
    pub fn touch(
        &mut self,
        key: Key<W>,
        hash: u64,
        bucket: usize,
        now_ns: u64,
        horizon_ns: u64,
        restart: bool,
    ) -> Option<Touched<'_, W>> {
        let located = self.buckets[bucket].find(key).map(|slot| Place { bucket, slot });
        let Some(place) = located.or_else(|| self.find(key, hash)) else {
            return self.begin(key, hash, now_ns, horizon_ns);
        };
        let entry = &mut self.buckets[place.bucket].entries[place.slot];
        if entry.last_ns < horizon_ns {
            // As if it had been swept already, so that the new life takes the place it would take then.
            *entry = Entry::FREE;
            self.population.occupied -= 1;
            self.population.expired += 1;
            return self.begin(key, hash, now_ns, horizon_ns);
        }
        if restart {
            entry.packets = 0;
            entry.long = false;
            self.population.created += 1;
            self.population.restarted += 1;
        }
        entry.packets = entry.packets.saturating_add(1);
        entry.last_ns = now_ns;
        // Borrowed anew: the borrow above ends in one of its branches.
        let entry = &mut self.buckets[place.bucket].entries[place.slot];
        Some(Touched { entry, begins: restart })
    }

    /// Frees entries that were last seen before the horizon, in the next `buckets` buckets of an endless walk
    /// through the table.
    pub fn sweep(&mut self, horizon_ns: u64, buckets: usize) {
        for _ in 0..buckets.min(self.buckets.len()) {
            for entry in &mut self.buckets[self.swept].entries {
                if !entry.is_free() && entry.last_ns < horizon_ns {
                    *entry = Entry::FREE;
                    self.population.occupied -= 1;
                    self.population.expired += 1;
                }
            }
            self.swept = (self.swept + 1) % self.buckets.len();
        }
    }

    /// Puts a flow of an earlier table back, as it was. Of two of the same name the one with the later packet stays,
    /// of two with the same time the one with more packets.
    pub fn restore(&mut self, key: Key<W>, known: (u64, u32, bool), horizon_ns: u64) -> Restored {
        let (last_ns, packets, long) = known;
        if last_ns < horizon_ns {
            return Restored::Ended;
        }
        let hash = self.secret.hash(&key);
        if let Some(Place { bucket, slot }) = self.find(key, hash) {
            let entry = &mut self.buckets[bucket].entries[slot];
            if (entry.last_ns, entry.packets) < (last_ns, packets) {
                *entry = Entry { key, last_ns, packets, long };
            }
            return Restored::Twice;
        }
        let Some(touched) = self.begin(key, hash, last_ns, horizon_ns) else {
            return Restored::NoRoom;
        };
        *touched.entry = Entry { key, last_ns, packets, long };
        self.population.restored += 1;
        Restored::Taken
    }

    /// The flows in some of the buckets that were seen at the horizon or later.
    pub(super) fn flows_in(
        &self,
        buckets: Range<usize>,
        horizon_ns: u64,
    ) -> impl Iterator<Item = (Key<W>, &Entry<W>)> {
        let entries = self.buckets[buckets].iter().flat_map(|bucket| &bucket.entries);
        let lives = move |entry: &&Entry<W>| !entry.is_free() && entry.last_ns >= horizon_ns;
        entries.filter(lives).map(|entry| (entry.key, entry))
    }

    /// Buckets in the table: what a whole walk of [`Table::sweep`] takes.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    #[inline(always)]
    fn first(&self, hash: u64) -> usize {
        scale(hash as u32, self.buckets.len())
    }

    #[inline(always)]
    fn second(&self, hash: u64) -> usize {
        let second = scale((hash >> 32) as u32, self.buckets.len());
        if second == self.first(hash) { (second + 1) % self.buckets.len() } else { second }
    }

    #[cold]
    fn find(&self, key: Key<W>, hash: u64) -> Option<Place> {
        let bucket = self.first(hash);
        if let Some(slot) = self.buckets[bucket].find(key) {
            return Some(Place { bucket, slot });
        }
        let bucket = self.second(hash);
        self.buckets[bucket].find(key).map(|slot| Place { bucket, slot })
    }

    fn begin(
        &mut self,
        key: Key<W>,
        hash: u64,
        now_ns: u64,
        horizon_ns: u64,
    ) -> Option<Touched<'_, W>> {
        let buckets = [self.first(hash), self.second(hash)];
        let place = buckets
            .iter()
            .find_map(|&bucket| {
                let slot = self.buckets[bucket].free(horizon_ns)?;
                Some(Place { bucket, slot })
            })
            .or_else(|| self.make_room(buckets, horizon_ns))?;
        let entry = &mut self.buckets[place.bucket].entries[place.slot];
        self.population.created += 1;
        self.population.expired += u64::from(!entry.is_free());
        self.population.occupied += u64::from(entry.is_free());
        *entry = Entry { key, last_ns: now_ns, packets: 1, long: false };
        Some(Touched { entry, begins: true })
    }

    /// Frees an entry of one of two full buckets by moving one or two entries to their other bucket. The
    /// three buckets on such a way are different ones: the first two are full and the last is not.
    #[cold]
    fn make_room(&mut self, full: [usize; 2], horizon_ns: u64) -> Option<Place> {
        let mut steps: ArrayVec<(Place, Option<usize>), STEPS_MAX> = ArrayVec::new();
        for bucket in full {
            steps.extend((0..BUCKET_ENTRIES).map(|slot| (Place { bucket, slot }, None)));
        }
        let mut step = 0;
        while step < steps.len() {
            let (from, before) = steps[step];
            let bucket = self.other_bucket(from);
            if let Some(slot) = self.buckets[bucket].free(horizon_ns) {
                self.relocate(from, Place { bucket, slot });
                return Some(match before.map(|before| steps[before].0) {
                    Some(start) => {
                        self.relocate(start, from);
                        start
                    }
                    None => from,
                });
            }
            if steps.len() < STEPS_MAX {
                steps.extend((0..BUCKET_ENTRIES).map(|slot| (Place { bucket, slot }, Some(step))));
            }
            step += 1;
        }
        None
    }

    fn other_bucket(&self, place: Place) -> usize {
        let hash = self.secret.hash(&self.buckets[place.bucket].entries[place.slot].key);
        let first = self.first(hash);
        if place.bucket == first { self.second(hash) } else { first }
    }

    /// Moves an entry over a free one; the entry it came from is free then.
    fn relocate(&mut self, from: Place, to: Place) {
        let entry = self.buckets[from.bucket].entries[from.slot];
        self.buckets[from.bucket].entries[from.slot] = Entry::FREE;
        let freed = &mut self.buckets[to.bucket].entries[to.slot];
        if !freed.is_free() {
            self.population.occupied -= 1;
            self.population.expired += 1;
        }
        *freed = entry;
    }
}

/// Spreads a 32-bit number evenly over `0..length`, without a division.
#[inline(always)]
fn scale(number: u32, length: usize) -> usize {
    ((u64::from(number) * length as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const IDLE_NS: u64 = 1000;

    fn touch(table: &mut Table<2>, number: u64, now_ns: u64) -> Option<(u32, bool)> {
        let key = Key([number, 7]);
        let hash = table.prefetch(key);
        let bucket = table.locate(key, hash);
        let horizon_ns = now_ns.saturating_sub(IDLE_NS);
        table
            .touch(key, hash, bucket, now_ns, horizon_ns, false)
            .map(|touched| (touched.entry.packets, touched.begins))
    }

    #[test]
    fn a_table_holds_as_many_flows_as_it_was_made_for() {
        for (seed, flows) in [(1, 1000), (2, 30_000), (3, 300_000)] {
            let mut table = Table::new(flows as usize, Secret::from_seed(seed));
            for number in 0..flows {
                assert_eq!(touch(&mut table, number, 5), Some((1, true)), "flow {number}");
            }
            for number in 0..flows {
                assert_eq!(touch(&mut table, number, 6), Some((2, false)), "flow {number}");
            }
            assert_eq!(table.population().occupied, flows);
        }
    }

    #[test]
    fn a_full_table_keeps_the_flows_it_knows() {
        let mut table = Table::new(1000, Secret::from_seed(4));
        let kept: Vec<u64> = (0..20_000).filter(|&n| touch(&mut table, n, 5).is_some()).collect();
        assert!((2500..=3000).contains(&kept.len()), "{}", kept.len());
        for number in &kept {
            assert_eq!(touch(&mut table, *number, 6), Some((2, false)), "flow {number}");
        }
        assert_eq!(table.population().created, kept.len() as u64);
    }

    #[test]
    fn sweeping_at_any_time_changes_no_answer() {
        let mut state = 9_u64;
        let mut draw = move |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        // Small and crowded, so that entries move and flows go without state.
        let mut swept = Table::new(60, Secret::from_seed(5));
        let mut unswept = Table::new(60, Secret::from_seed(5));
        let mut model: HashMap<u64, (u64, u32)> = HashMap::new();
        let mut now_ns = 0;
        let mut refused = 0;
        for _ in 0..200_000 {
            now_ns += draw(20);
            let number = draw(250);
            if draw(3) == 0 {
                swept.sweep(now_ns.saturating_sub(IDLE_NS), draw(80) as usize);
            }
            let answer = touch(&mut unswept, number, now_ns);
            // Where a flow goes depends on which entries are free, and that must not depend on the sweep.
            assert_eq!(touch(&mut swept, number, now_ns), answer);
            let Some(answer) = answer else {
                refused += 1;
                model.remove(&number);
                continue;
            };
            let known = model.get(&number).filter(|(last, _)| now_ns - last <= IDLE_NS);
            let packets = known.map_or(1, |(_, packets)| packets + 1);
            assert_eq!(answer, (packets, packets == 1));
            model.insert(number, (now_ns, packets));
        }
        assert!(refused > 0, "the table was never full");
        let horizon_ns = now_ns - IDLE_NS;
        for table in [&mut swept, &mut unswept] {
            table.sweep(horizon_ns, table.buckets());
            let Population { created, expired, restarted, occupied, .. } = table.population();
            assert_eq!(created, expired + restarted + occupied);
        }
        assert_eq!(swept.population(), unswept.population());
        let alive = model.values().filter(|(last, _)| *last >= horizon_ns).count();
        assert_eq!(swept.population().occupied, alive as u64);
    }

    #[test]
    fn the_last_possible_nanosecond_counts() {
        let mut table = Table::new(10, Secret::from_seed(6));
        assert_eq!(touch(&mut table, 1, 10), Some((1, true)));
        assert_eq!(touch(&mut table, 1, 10 + IDLE_NS), Some((2, false)));
        assert_eq!(touch(&mut table, 1, 11 + 2 * IDLE_NS), Some((1, true)));
    }

    /// What an attack can cost: a look-up compares the entries of two buckets, and nothing else, however
    /// full the table is and whatever was moved; a new flow looks at sixteen.
    #[test]
    fn every_flow_is_in_one_of_its_two_buckets() {
        const _: () = assert!((2 + STEPS_MAX) * BUCKET_ENTRIES <= 16);
        let mut table = Table::new(1000, Secret::from_seed(7));
        let mut moved = 0;
        for number in 0..20_000 {
            touch(&mut table, number, 5);
        }
        for (bucket, entries) in table.buckets.iter().enumerate() {
            for entry in entries.entries.iter().filter(|entry| !entry.is_free()) {
                let hash = table.secret.hash(&entry.key);
                assert!([table.first(hash), table.second(hash)].contains(&bucket), "{entry:?}");
                moved += u32::from(bucket != table.first(hash));
            }
        }
        assert!(moved > 100, "{moved} are in their second bucket");
    }
}
