//! The matcher: sightings of both taps go in, merged by time; what became of each packet comes out.
//!
//! ```text
//!   sightings, merged by time --> find by identity --> ring, in order of first sighting --> Sink, after the window
//!                                       ^                                |
//!                                       |    late memory  <--------------/  packets seen at one tap only
//! ```
//!
//! A packet stays in the ring for the window after it was first seen, whether it was matched or not: so its
//! further copies are recognised, and everything that follows is told in the order in which packets were first
//! seen. Memory is therefore the packets of one window (two, when copies have to be told apart), and never more
//! than the limit: then the oldest leaves early, which is counted.
//!
//! **The same packet** is the same identity: digest, check and stream ([`crate::identity`]).
//!
//! **One sighting at each tap, within the window** of each other: both are [`Class::Matched`].
//!
//! **Copies** of one identity form a *run* (`run.rs`), which ends when each copy at one tap has its copy at the
//! other and the duplicate window has passed. Its rules are there.
//!
//! **Late memory** (`late.rs`): packets seen at one tap only, after they left the ring. When the other tap sees
//! one of them after all, both sightings are [`Class::OutOfWindow`]. What leaves the late memory, or is in it at
//! the end, is [`Class::Single`]: lost, or unmatched.
//!
//! Invariant: every sighting ends in exactly one class of one outcome.

mod late;
mod ring;
mod run;

use late::Late;
pub use ring::Class;
use ring::{Entry, NO_RUN, ORDER_NS, Ring};
use run::Runs;

use crate::flow::{FlowId, Flows};
use crate::lane::{LaneId, Lanes};
use crate::source::{Stamp, Tap};
use crate::stream::StreamId;

/// A recognisable packet at one tap.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// See [`crate::identity::Identified`].
    pub digest: [u64; 2],
    /// See [`crate::identity::Identified`].
    pub check: u64,
    /// Its stamp, corrected by the offset between the taps.
    pub time_ns: u64,
    /// The stamp, but never earlier than the sighting before: by this the taps are merged.
    pub order_ns: u64,
    /// Addresses, protocol and ports.
    pub stream: StreamId,
    /// Bytes on the wire.
    pub wire_bytes: u32,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// TCP flags.
    pub tcp_flags: u8,
    /// The lane it is in here.
    pub lane: LaneId,
    /// Which clock stamped it: stamps of two different ones do not compare. See [`crate::session`].
    pub clock: u8,
    /// Who stamped it.
    pub stamp: Stamp,
}

// A queue of them is as long as a tap is ahead of the other.
const _: () = assert!(size_of::<Sighting>() <= 64);

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// When each tap saw it; of no meaning where its class is [`Class::Absent`].
    pub time_ns: [u64; 2],
    /// What became of it at each tap. Matched and out of window come in pairs; other classes of the two
    /// have nothing to do with each other.
    pub class: [Class; 2],
    /// Which clock stamped it at each tap.
    pub clock: [u8; 2],
    /// Its flow.
    pub flow: FlowId,
    /// Bytes on the wire at the ingress tap, or at the egress tap when only that saw it.
    pub wire_bytes: u32,
    /// Its lane.
    pub lane: LaneId,
}

/// Takes what becomes of packets, in the order in which they were first seen; those that were seen at one tap
/// only come later.
pub trait Sink {
    /// One packet.
    fn outcome(&mut self, outcome: &Outcome, flows: &mut Flows, lanes: &Lanes);
}

/// How the matcher decides.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Two sightings of one packet are no further apart than this.
    pub window_ns: u64,
    /// A copy this soon after the one before it, at one tap, can be a duplicate.
    pub duplicate_window_ns: u64,
    /// Most packets in the ring.
    pub packets_max: usize,
    /// Most packets in the late memory.
    pub late_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            window_ns: 1_000_000_000,
            duplicate_window_ns: 1_000_000,
            packets_max: 1 << 23,
            late_max: 1 << 20,
        }
    }
}

/// How the matcher's memory did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Most packets that were in the ring at one time.
    pub packets_most: u64,
    /// Packets that had to leave the ring before their window had passed.
    pub evicted: u64,
    /// The shortest time that one of them had been there.
    pub evicted_after_ns: Option<u64>,
    /// Most packets that were in the late memory at one time.
    pub late_most: u64,
    /// Bytes of ring and table at their largest.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Matcher {
    rules: Rules,
    ring: Ring,
    runs: Runs,
    late: Late,
    memory: Memory,
}

impl Matcher {
    /// Without a packet.
    ///
    /// # Panics
    ///
    /// When the window is longer than an hour: [`Rules::window_ns`] is checked by the command line.
    pub fn new(rules: Rules) -> Self {
        assert!(rules.window_ns <= 3_600_000_000_000, "a window of more than an hour");
        Matcher {
            ring: Ring::new(rules.packets_max),
            runs: Runs::default(),
            late: Late::new(rules.late_max),
            memory: Memory::default(),
            rules,
        }
    }

    /// What memory was needed.
    pub fn memory(&self) -> Memory {
        Memory { bytes: self.ring.bytes() as u64, ..self.memory }
    }

    /// Asks the memory for what [`Matcher::see`] will look at, first for the table.
    #[inline(always)]
    pub fn prefetch_slot(&self, sighting: &Sighting) {
        self.ring.prefetch_slot(sighting.digest);
    }

    /// Asks the memory for what [`Matcher::see`] will look at, then for the packet.
    #[inline(always)]
    pub fn prefetch_entry(&self, sighting: &Sighting) {
        self.ring.prefetch_entry(sighting.digest);
    }

    /// Packets seen at one tap only of which nothing more is expected, as yet.
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Whether a packet that the ring holds is this one.
    pub fn knows(&self, sighting: &Sighting, flows: &Flows) -> bool {
        let found = self.ring.find(sighting.digest, |entry| {
            entry.check == sighting.check && flows.may_be_of(FlowId(entry.flow), sighting.stream)
        });
        found.is_some()
    }

    /// A tap saw a packet. Sightings come in the order of [`Sighting::order_ns`].
    #[inline]
    pub fn see(
        &mut self,
        sighting: &Sighting,
        tap: Tap,
        lanes: &Lanes,
        flows: &mut Flows,
        sink: &mut impl Sink,
    ) {
        self.retire(sighting.order_ns, lanes, flows, sink);
        self.ring.make_room();
        let found = self.ring.find(sighting.digest, |entry| {
            entry.check == sighting.check && flows.may_be_of(FlowId(entry.flow), sighting.stream)
        });
        let Some((slot, number)) = found else {
            return self.first_sighting(sighting, tap, lanes, flows);
        };
        let entry = self.ring.entry_mut(number);
        let here = tap.index();
        let simple = entry.run == NO_RUN
            && entry.class[here] == Class::Absent
            && entry.class[1 - here] == Class::Single;
        if simple {
            complete(entry, sighting, tap, lanes, self.rules.window_ns);
            flows.passed(FlowId(entry.flow), sighting, tap, number, signed_delay(entry), false);
        } else {
            self.copy(slot, number, sighting, tap, lanes, flows);
        }
    }

    /// No more sightings come.
    pub fn finish(&mut self, lanes: &Lanes, flows: &mut Flows, sink: &mut impl Sink) {
        while let Some(number) = self.ring.first() {
            self.settle_run_of(number);
            self.leave(lanes, flows, sink);
        }
        self.late.drain(|outcome| sink.outcome(&outcome, flows, lanes));
    }

    /// An identity that is not in the ring.
    #[inline(always)]
    fn first_sighting(&mut self, sighting: &Sighting, tap: Tap, lanes: &Lanes, flows: &mut Flows) {
        let late = match self.late.is_empty() {
            true => None,
            false => self.late.take(sighting, tap.other(), flows),
        };
        let entry = match late {
            Some(mut entry) => {
                complete(&mut entry, sighting, tap, lanes, self.rules.window_ns);
                entry.order = (sighting.order_ns / ORDER_NS) as u32;
                entry
            }
            None => new_entry(sighting, tap, flows.of(sighting, tap)),
        };
        self.ring.push(entry, None);
        self.memory.packets_most = self.memory.packets_most.max(self.ring.len() as u64);
    }

    /// Lets those leave whose window has passed, and the oldest when there is no room.
    #[inline(always)]
    fn retire(&mut self, now_ns: u64, lanes: &Lanes, flows: &mut Flows, sink: &mut impl Sink) {
        let window = (self.rules.window_ns / ORDER_NS) as u32 + 1;
        while let Some(number) = self.ring.first() {
            let age = ((now_ns / ORDER_NS) as u32).wrapping_sub(self.ring.entry(number).order);
            if age <= window {
                break;
            }
            if self.ring.entry(number).run != NO_RUN && !self.may_leave(number, age, window, now_ns)
            {
                break;
            }
            self.leave(lanes, flows, sink);
        }
        if self.ring.is_full() {
            self.evict(now_ns, lanes, flows, sink);
        }
    }

    #[cold]
    fn evict(&mut self, now_ns: u64, lanes: &Lanes, flows: &mut Flows, sink: &mut impl Sink) {
        let Some(number) = self.ring.first() else { return };
        let age = ((now_ns / ORDER_NS) as u32).wrapping_sub(self.ring.entry(number).order);
        let age_ns = u64::from(age) * ORDER_NS;
        if age_ns <= self.rules.window_ns {
            self.memory.evicted += 1;
            let shortest_ns = self.memory.evicted_after_ns.unwrap_or(u64::MAX);
            self.memory.evicted_after_ns = Some(shortest_ns.min(age_ns));
        }
        self.settle_run_of(number);
        self.leave(lanes, flows, sink);
    }

    /// The oldest entry leaves; its run, if it was in one, is settled.
    #[inline(always)]
    fn leave(&mut self, lanes: &Lanes, flows: &mut Flows, sink: &mut impl Sink) {
        if let Some(ahead) = self.ring.ahead(8) {
            flows.prefetch(FlowId(ahead.flow));
        }
        let Some(entry) = self.ring.pop() else { return };
        let alone = entry.class == [Class::Single, Class::Absent]
            || entry.class == [Class::Absent, Class::Single];
        if alone {
            if let Some(outcome) = self.late.put(&entry) {
                sink.outcome(&outcome, flows, lanes);
            }
            self.memory.late_most = self.memory.late_most.max(self.late.len() as u64);
        } else {
            sink.outcome(&outcome(&entry), flows, lanes);
        }
    }
}

#[inline(always)]
fn new_entry(sighting: &Sighting, tap: Tap, flow: FlowId) -> Entry {
    let mut entry = Entry {
        digest: sighting.digest,
        check: sighting.check,
        time_ns: [0; 2],
        flow: flow.0,
        run: NO_RUN,
        order: (sighting.order_ns / ORDER_NS) as u32,
        wire_bytes: sighting.wire_bytes,
        class: [Class::Absent; 2],
        clock: [0; 2],
        lane: sighting.lane,
        marks: 0,
    };
    entry.time_ns[tap.index()] = sighting.time_ns;
    entry.clock[tap.index()] = sighting.clock;
    entry.class[tap.index()] = Class::Single;
    entry
}

/// The other tap sees the packet, too.
#[inline(always)]
fn complete(entry: &mut Entry, sighting: &Sighting, tap: Tap, lanes: &Lanes, window_ns: u64) {
    let here = tap.index();
    entry.time_ns[here] = sighting.time_ns;
    entry.clock[here] = sighting.clock;
    if tap == Tap::Ingress {
        entry.wire_bytes = sighting.wire_bytes;
    }
    let apart_ns = entry.time_ns[0].abs_diff(entry.time_ns[1]);
    let comparable = entry.clock[0] == entry.clock[1];
    entry.class = match apart_ns <= window_ns || !comparable {
        true => [Class::Matched; 2],
        false => [Class::OutOfWindow; 2],
    };
    // A tunnel tells more than a mark, and the mark behind the gateway more than the one before.
    let from_tunnel = lanes.is_tunnel(sighting.lane);
    if from_tunnel || tap == Tap::Egress && !lanes.is_tunnel(entry.lane) {
        entry.lane = sighting.lane;
    }
}

/// Time at egress less time at ingress.
#[inline(always)]
fn signed_delay(entry: &Entry) -> i64 {
    entry.time_ns[1].wrapping_sub(entry.time_ns[0]).cast_signed()
}

#[inline(always)]
fn outcome(entry: &Entry) -> Outcome {
    Outcome {
        time_ns: entry.time_ns,
        class: entry.class,
        clock: entry.clock,
        flow: FlowId(entry.flow),
        wire_bytes: entry.wire_bytes,
        lane: entry.lane,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamKey;

    #[derive(Default)]
    struct Outcomes(Vec<Outcome>);

    impl Sink for Outcomes {
        fn outcome(&mut self, outcome: &Outcome, _: &mut Flows, _: &Lanes) {
            self.0.push(*outcome);
        }
    }

    /// What comes of sightings: (time, tap, digest, check, stream).
    fn outcomes(rules: Rules, sightings: &[(u64, Tap, u64, u64, u8)]) -> Vec<Outcome> {
        let mut flows = Flows::new(1 << 10, false, u64::MAX);
        let mut lanes = Lanes::default();
        let lane = lanes.id(&crate::lane::LaneKey::dscp(0));
        let (mut matcher, mut sink) = (Matcher::new(rules), Outcomes::default());
        for &(time_ns, tap, digest, check, stream) in sightings {
            let sighting = Sighting {
                digest: [digest; 2],
                check,
                time_ns,
                order_ns: time_ns,
                stream: flows.stream_id(&StreamKey::v4(u64::from(stream), 17, false)),
                wire_bytes: 60,
                sequence: 0,
                acknowledgement: 0,
                tcp_flags: 0,
                lane,
                stamp: Stamp::File,
                clock: 0,
            };
            matcher.see(&sighting, tap, &lanes, &mut flows, &mut sink);
        }
        matcher.finish(&lanes, &mut flows, &mut sink);
        sink.0
    }

    #[test]
    fn packets_whose_digests_collide_are_told_apart_by_check_and_stream() {
        let sightings = [
            (1_000, Tap::Ingress, 7, 1, 1),
            (2_000, Tap::Ingress, 7, 2, 1),
            (3_000, Tap::Ingress, 7, 1, 2),
            (5_000, Tap::Egress, 7, 1, 2),
            (6_000, Tap::Egress, 7, 2, 1),
            (7_000, Tap::Egress, 7, 1, 1),
        ];
        let found = outcomes(Rules::default(), &sightings);
        let found: Vec<_> = found.iter().map(|outcome| (outcome.class, outcome.time_ns)).collect();
        let matched = [Class::Matched; 2];
        let times = [[1_000, 7_000], [2_000, 6_000], [3_000, 5_000]];
        assert_eq!(found, times.map(|times| (matched, times)));
    }

    #[test]
    fn a_digest_whose_table_slots_collide_finds_its_own_packet() {
        // Digests of one home and tag, thousands of them, through growth and removal.
        let mut sightings = Vec::new();
        for number in 0..20_000_u64 {
            let at_ns = number * 100_000;
            sightings.push((at_ns, Tap::Ingress, number % 64, number, 1));
            if number >= 50 {
                sightings.push((at_ns + 1, Tap::Egress, (number - 50) % 64, number - 50, 1));
            }
        }
        let rules = Rules { window_ns: 20_000_000, ..Rules::default() };
        let found = outcomes(rules, &sightings);
        let matched = found.iter().filter(|outcome| outcome.class == [Class::Matched; 2]);
        assert_eq!(matched.clone().count(), 19_950);
        assert!(matched.into_iter().all(|o| o.time_ns[1] - o.time_ns[0] == 5_000_001));
    }

    #[test]
    fn one_packet_over_and_over_is_ambiguous_once_nothing_can_tell() {
        // Always ten on their way, one lost in the middle, for many windows.
        let mut sightings = Vec::new();
        for number in 0..5_000_u64 {
            sightings.push((number * 10_000_000, Tap::Ingress, 1, 1, 1));
            if number != 2_000 {
                sightings.push((number * 10_000_000 + 95_000_000, Tap::Egress, 1, 1, 1));
            }
        }
        sightings.sort_by_key(|sighting| sighting.0);
        let found = outcomes(Rules::default(), &sightings);
        let count = |tap: usize, class| found.iter().filter(|o| o.class[tap] == class).count();
        let ambiguous = [0, 1].map(|tap| count(tap, Class::Ambiguous));
        assert_eq!(ambiguous, [5_000, 4_999]);
    }
}
