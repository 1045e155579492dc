//! Sequence numbers (RFC 2890): where those that are sent come from, and what those received tell.
//!
//! They are looked at and never acted upon: a packet out of order is passed on at once, because TCP orders its
//! own segments and nothing else asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// Numbers for what leaves through one tunnel. Clones draw from the same source, so that the workers that
/// share a tunnel number its packets once, in the order in which they took them: two workers at it at the same
/// time can still overtake each other by a packet or two on their way to the wire.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    sequence: Arc<AtomicU32>,
    identification: Arc<AtomicU32>,
}

impl Numbers {
    /// A tunnel's own sequence numbers, and the identifications of `other`: for two tunnels between the same
    /// two addresses, whose fragments could be taken for each other's (RFC 791 section 3.2).
    pub fn with_identifications_of(other: &Numbers) -> Numbers {
        Numbers { sequence: Arc::default(), identification: Arc::clone(&other.identification) }
    }

    /// The next sequence number; the first is 0 (RFC 2890 section 2.2).
    #[inline(always)]
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// The sequence number that the next packet will get.
    pub fn upcoming_sequence(&self) -> u32 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// The next identification of an outer packet that may be fragmented. It comes again after 65536 packets,
    /// which is sooner than RFC 6864 section 4.3 allows above a few megabits a second: DF is for fast lanes.
    #[inline(always)]
    pub(super) fn next_identification(&self) -> u16 {
        self.identification.fetch_add(1, Ordering::Relaxed) as u16
    }
}

/// How many numbers back a late packet is told from a duplicate.
/// Two workers that send in one tunnel may be apart by all that their rings hold.
pub const WINDOW: u32 = 1 << 14;
/// A number further ahead or behind than this is not of the same life of the peer.
pub const JUMP_MAX: u32 = 1 << 24;

/// What the sequence numbers of one lane told. Packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceCounts {
    /// Arrived with a sequence number.
    pub received: u64,
    /// Sent, and not arrived by the time that the window had moved past them.
    pub lost: u64,
    /// Arrived with a number smaller than one before it, and not a duplicate (Type-P-Reordered of RFC 4737
    /// section 3.3).
    pub reordered: u64,
    /// Arrived once more while the window remembered the first time.
    pub duplicates: u64,
    /// Times that the peer began to count anew.
    pub restarts: u64,
}

impl SequenceCounts {
    /// Adds those of another tracker.
    pub fn add(&mut self, other: &SequenceCounts) {
        self.received += other.received;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.restarts += other.restarts;
    }
}

/// Judges the numbers that arrive in one lane, with a window of the last [`WINDOW`] of them.
///
/// A number that is missing counts as lost when the window has moved past it, not before: until then it may
/// be late. One that arrives later still counts as reordered and stays lost. A number behind the window, more
/// than [`JUMP_MAX`] ahead, or 0 once more may be of a peer that began anew; it did when its successor follows
/// as the next to arrive (as RFC 3550 appendix A.1 does with RTP). A peer that begins anew before it had sent
/// a window full of packets is seen so too, because it begins with 0.
///
/// One tracker must see all packets of a lane: two, each with a part, would both find the other's part lost.
#[derive(Debug, Clone)]
pub struct Tracker {
    counts: SequenceCounts,
    /// A bit for each number of the window, at its place modulo [`WINDOW`]: whether it arrived, or was sent
    /// before this tracker began.
    arrived: [u64; (WINDOW / 64) as usize],
    /// The largest number that arrived; none before the first.
    highest: Option<u32>,
    /// The number that would prove that the peer began anew.
    proof: Option<u32>,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker {
            counts: SequenceCounts::default(),
            arrived: [u64::MAX; (WINDOW / 64) as usize],
            highest: None,
            proof: None,
        }
    }
}

impl Tracker {
    /// What was seen so far.
    pub fn counts(&self) -> SequenceCounts {
        self.counts
    }

    /// Looks at the number of the packet that arrived next.
    #[inline(always)]
    pub fn observe(&mut self, number: u32) {
        self.counts.received += 1;
        let Some(highest) = self.highest else {
            self.begin(number);
            return;
        };
        // The usual one, first.
        if number == highest.wrapping_add(1) {
            self.slide(number);
            self.highest = Some(number);
            self.proof = None;
            return;
        }
        self.observe_unusual(number, highest);
    }

    #[inline(never)]
    fn observe_unusual(&mut self, number: u32, highest: u32) {
        if self.proof.take() == Some(number) {
            self.counts.restarts += 1;
            self.forget();
            self.begin(number);
            return;
        }
        let ahead = number.wrapping_sub(highest);
        let behind = highest.wrapping_sub(number);
        if ahead != 0 && ahead <= JUMP_MAX {
            self.jump(number, highest, ahead);
        } else if behind < WINDOW {
            self.look_back(number);
        } else {
            if behind <= JUMP_MAX {
                self.counts.reordered += 1;
            }
            self.proof = Some(number.wrapping_add(1));
        }
    }

    fn begin(&mut self, number: u32) {
        self.highest = Some(number);
    }

    /// Whatever the window still waits for is lost.
    fn forget(&mut self) {
        let missing: u32 = self.arrived.iter().map(|bits| bits.count_zeros()).sum();
        self.counts.lost += u64::from(missing);
        self.arrived = [u64::MAX; (WINDOW / 64) as usize];
    }

    /// Numbers between `highest` and `number` are missing.
    fn jump(&mut self, number: u32, highest: u32, ahead: u32) {
        if ahead > WINDOW {
            // All of the old window, and what lies between it and the new one.
            self.forget();
            self.counts.lost += u64::from(ahead - WINDOW);
            self.arrived = [0; (WINDOW / 64) as usize];
            let (word, bit) = place(number);
            self.arrived[word] |= bit;
        } else {
            for step in 1..ahead {
                let missing = highest.wrapping_add(step);
                self.slide(missing);
                let (word, bit) = place(missing);
                self.arrived[word] &= !bit;
            }
            self.slide(number);
        }
        self.highest = Some(number);
    }

    /// The window's end moves to `number`, which arrived; the number that had its place leaves.
    #[inline(always)]
    fn slide(&mut self, number: u32) {
        let (word, bit) = place(number);
        self.counts.lost += u64::from(self.arrived[word] & bit == 0);
        self.arrived[word] |= bit;
    }

    /// A number inside the window.
    fn look_back(&mut self, number: u32) {
        let (word, bit) = place(number);
        if self.arrived[word] & bit == 0 {
            self.arrived[word] |= bit;
            self.counts.reordered += 1;
            return;
        }
        self.counts.duplicates += 1;
        if number == 0 {
            self.proof = Some(1);
        }
    }
}

/// Word and bit of a number in the window.
#[inline(always)]
fn place(number: u32) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(numbers: impl IntoIterator<Item = u32>) -> SequenceCounts {
        let mut tracker = Tracker::default();
        numbers.into_iter().for_each(|number| tracker.observe(number));
        tracker.counts()
    }

    fn received(received: u64) -> SequenceCounts {
        SequenceCounts { received, ..SequenceCounts::default() }
    }

    #[test]
    fn numbers_in_order_are_only_received_whatever_the_first() {
        assert_eq!(counts(0..5000), received(5000));
        assert_eq!(counts(77..5077), received(5000));
    }

    #[test]
    fn numbers_wrap_without_a_loss() {
        let around = (0..4000_u32).map(|n| n.wrapping_sub(2000));
        assert_eq!(counts(around), received(4000));
    }

    #[test]
    fn a_gap_is_lost_when_the_window_has_passed_it_and_not_before() {
        let without = |end: u32| (0..end).filter(|n| !(100..110).contains(n));
        assert_eq!(counts(without(110 + 900)).lost, 0);
        assert_eq!(counts(without(100 + WINDOW)).lost, 0);
        assert_eq!(counts(without(101 + WINDOW)).lost, 1);
        assert_eq!(counts(without(3 * WINDOW)).lost, 10);
    }

    #[test]
    fn one_that_is_late_is_reordered_and_not_lost() {
        let mut numbers: Vec<u32> = (0..5000).collect();
        let late = numbers.remove(100);
        numbers.insert(1000, late);
        assert_eq!(counts(numbers), SequenceCounts { reordered: 1, ..received(5000) });
    }

    #[test]
    fn one_that_is_later_than_the_window_is_both() {
        let mut numbers: Vec<u32> = (0..3 * WINDOW).collect();
        let late = numbers.remove(100);
        numbers.insert(2 * WINDOW as usize, late);
        let all = received(3 * u64::from(WINDOW));
        assert_eq!(counts(numbers), SequenceCounts { reordered: 1, lost: 1, ..all });
    }

    #[test]
    fn one_that_comes_twice_is_a_duplicate() {
        let numbers = (0..5000).flat_map(|n| if n == 2500 { vec![n, n] } else { vec![n] });
        assert_eq!(counts(numbers), SequenceCounts { duplicates: 1, ..received(5001) });
    }

    #[test]
    fn a_long_gap_counts_every_number_once() {
        for gap in [1, 63, 64, 65, WINDOW - 2, WINDOW - 1, WINDOW, WINDOW + 1, 100_000] {
            let (before, all) = (2 * WINDOW, 4 * WINDOW);
            let numbers = (0..before).chain(before + gap..all + gap);
            let expected = SequenceCounts { lost: u64::from(gap), ..received(all.into()) };
            assert_eq!(counts(numbers), expected, "gap {gap}");
        }
    }

    #[test]
    fn a_peer_that_begins_anew_is_followed() {
        let restarted = counts((0..50_000).chain(0..50_000));
        assert_eq!(restarted, SequenceCounts { restarts: 1, reordered: 1, ..received(100_000) });
        // From a number so high that 0 looks like one ahead.
        let high = 3_000_000_000;
        let restarted = counts((high..high + 5000).chain(0..5000));
        assert_eq!(restarted, SequenceCounts { restarts: 1, ..received(10_000) });
        // After fewer packets than the window has.
        let restarted = counts((0..100).chain(0..100));
        assert_eq!(restarted, SequenceCounts { restarts: 1, duplicates: 1, ..received(200) });
    }

    /// Every number sent once, some dropped, the others arriving within less than a window of their place.
    #[test]
    fn losses_and_late_packets_add_up_against_the_slow_way() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut arrivals: Vec<(u64, u32)> = Vec::new();
        let mut dropped = 0;
        for number in 0..100_000_u32 {
            // The first and the last arrive, so that both sides know where the numbers begin and end.
            if random(20) == 0 && (1..100_000 - 2 * WINDOW).contains(&number) {
                dropped += 1;
                continue;
            }
            let late = if random(10) == 0 && (1..100_000 - 2 * WINDOW).contains(&number) {
                random(u64::from(WINDOW) * 7 / 8)
            } else {
                0
            };
            arrivals.push((u64::from(number) + late, number));
        }
        arrivals.sort();
        let mut next_expected = 0;
        let mut reordered = 0;
        for &(_, number) in &arrivals {
            if number < next_expected {
                reordered += 1;
            }
            next_expected = next_expected.max(number + 1);
        }
        let found = counts(arrivals.iter().map(|&(_, number)| number));
        let expected =
            SequenceCounts { lost: dropped, reordered, ..received(arrivals.len() as u64) };
        assert_eq!(found, expected);
    }
}
