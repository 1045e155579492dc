//! Flows: one direction of a TCP connection or of a UDP conversation, from its first packet to its last.
//!
//! A flow begins with the first packet of a stream, and anew with a SYN (or SYN-ACK, in the other direction)
//! whose sequence number is not the one with which the flow began: a SYN sent again is the same flow. It begins
//! anew, too, when no packet of the stream was seen for longer than the timeout. A flow that has ended stays in
//! memory, for it is told at the end.
//!
//! Its **direction** is forward when it enters at the ingress tap, reverse when it enters at the egress tap.
//! That is decided when the first of its matched packets leaves the matcher, by majority of the matches there
//! were until then: about those of the first window of its life. So a packet or two that a clock's noise makes
//! arrive before it was sent do not turn a flow around.
//!
//! Other IP packets have a flow here, too, one for each pair of addresses and protocol, because delay variation
//! is between packets that belong together; they are not reported ([`StreamKey::is_flow`]).
//!
//! Invariant: everything of a tap (packets, times, bytes) is what that tap saw; duplicates do not count.

use dataplane::memory::prefetch;

use crate::identity::{ACK, FIN, RST, SYN};
use crate::lane::{LANES_MAX, LaneId};
use crate::matcher::Sighting;
use crate::source::Tap;
use crate::stream::{StreamId, StreamKey, Streams};

/// The number of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u32);

impl FlowId {
    /// There was no room for its stream or for itself.
    pub const UNKNOWN: FlowId = FlowId(u32::MAX);
}

/// Which way a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// In at the ingress tap, out at the egress tap.
    Forward,
    /// The other way.
    Reverse,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    /// Its place in an array of two.
    #[inline(always)]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Where its packets enter.
    #[inline(always)]
    pub fn entry(self) -> Tap {
        match self {
            Direction::Forward => Tap::Ingress,
            Direction::Reverse => Tap::Egress,
        }
    }
}

/// What one tap saw of a flow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Packets, without duplicates.
    pub packets: u64,
    /// Those seen at this tap only.
    pub single: u64,
    /// Earliest stamp.
    pub first_ns: u64,
    /// Latest stamp.
    pub last_ns: u64,
    /// Bytes on the wire of the packets that were seen here first.
    pub bytes: u64,
    /// The clock of the first packet, and of the latest: see [`crate::session`].
    pub clocks: [u8; 2],
}

/// One flow.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its stream.
    pub stream: StreamId,
    /// Which way it goes, once that is known.
    pub direction: Option<Direction>,
    /// At each tap.
    pub seen: [Seen; 2],
    /// Matched packets with a delay of zero or more.
    pub delays: u64,
    /// Sum of those delays.
    pub delay_sum_ns: u128,
    /// The least and the greatest time at egress less time at ingress, of all matched packets.
    pub difference_ns: Option<(i64, i64)>,
    /// Pairs of consecutive matched packets.
    pub variations: u64,
    /// Sum of the differences of their delays, without sign.
    pub variation_sum_ns: u128,
    /// The delay of the latest matched packet.
    pub last_delay_ns: Option<u64>,
    /// Ambiguous packets, at either tap.
    pub ambiguous: u64,
    /// Further copies, at either tap.
    pub duplicates: u64,
    /// Packets without copies that arrived behind one that was sent after them (RFC 4737, section 3.3).
    pub reordered: u64,
    /// From the first SYN to the first SYN-ACK that answers it, both at the ingress tap.
    pub handshake_rtt_ns: Option<u64>,
    /// The lanes of its packets, a bit each.
    pub lanes: [u64; LANES_MAX / 64 + 1],
    /// The lane of its latest matched packet.
    pub lane: LaneId,
    /// TCP flags of all packets.
    pub tcp_flags: u8,
    /// TCP flags of the first packet.
    first_flags: u8,
    /// Sequence number of the SYN it began with.
    opening: Option<u32>,
    /// When the ingress tap saw that SYN, and by which clock.
    opened_ns: Option<(u64, u8)>,
    /// Matches seen at ingress first less those seen at egress first.
    vote: i64,
    /// Highest number of a matched packet: see [`Flows::frontier`].
    frontier: Option<u64>,
    /// When one of its packets was seen first, the latest time.
    active_ns: u64,
}

impl Flow {
    fn new(stream: StreamId) -> Self {
        Flow {
            stream,
            direction: None,
            seen: [Seen::default(); 2],
            delays: 0,
            delay_sum_ns: 0,
            difference_ns: None,
            variations: 0,
            variation_sum_ns: 0,
            last_delay_ns: None,
            ambiguous: 0,
            duplicates: 0,
            reordered: 0,
            handshake_rtt_ns: None,
            lanes: [0; LANES_MAX / 64 + 1],
            lane: LaneId::OTHER,
            tcp_flags: 0,
            first_flags: 0,
            opening: None,
            opened_ns: None,
            vote: 0,
            frontier: None,
            active_ns: 0,
        }
    }

    /// Whether its first packet was a SYN, and FIN or RST was seen.
    pub fn is_complete(&self) -> bool {
        self.first_flags & SYN != 0 && self.tcp_flags & (FIN | RST) != 0
    }

    /// The tap where it enters: where its direction says, or else where anything was seen.
    pub fn entry(&self) -> Tap {
        match self.direction {
            Some(direction) => direction.entry(),
            None if self.seen[0].packets > 0 => Tap::Ingress,
            None => Tap::Egress,
        }
    }

    /// From its first packet at the tap where it enters until its last at the other; `None` when one of the two
    /// did not see it, or their clocks do not compare.
    pub fn completion_ns(&self) -> Option<u64> {
        let (entry, exit) =
            (&self.seen[self.entry().index()], &self.seen[self.entry().other().index()]);
        let comparable = entry.clocks[0] == exit.clocks[1];
        (entry.packets > 0 && exit.packets > 0 && comparable)
            .then(|| exit.last_ns.checked_sub(entry.first_ns))
            .flatten()
    }

    /// Mean delay, over delays of zero or more.
    pub fn delay_mean_ns(&self) -> Option<f64> {
        (self.delays > 0).then(|| self.delay_sum_ns as f64 / self.delays as f64)
    }

    /// Mean difference, without sign, of the delays of consecutive matched packets.
    pub fn jitter_ns(&self) -> Option<f64> {
        (self.variations > 0).then(|| self.variation_sum_ns as f64 / self.variations as f64)
    }

    /// The lanes of its packets.
    pub fn lanes(&self) -> impl Iterator<Item = LaneId> {
        (0..=LANES_MAX as u8)
            .filter(|lane| self.lanes[usize::from(*lane) / 64] >> (lane % 64) & 1 != 0)
            .map(LaneId)
    }

    /// Notes the lane of a packet.
    #[inline(always)]
    pub fn in_lane(&mut self, lane: LaneId) {
        self.lanes[lane.index() / 64] |= 1 << (lane.0 % 64);
        self.lane = lane;
    }

    /// Its direction, decided now if it was not before.
    #[inline(always)]
    pub fn decide(&mut self) -> Direction {
        let direction = match self.vote {
            ..0 => Direction::Reverse,
            _ => Direction::Forward,
        };
        *self.direction.get_or_insert(direction)
    }
}

// README.md tells how much memory a flow takes.
const _: () = assert!(size_of::<Flow>() <= 400);

/// All flows.
#[derive(Debug)]
pub struct Flows {
    flows: Vec<Flow>,
    /// The latest flow of each stream.
    current: Vec<FlowId>,
    streams: Streams,
    limit: usize,
    one_way: bool,
    timeout_ns: u64,
    timed_out: u64,
    packets_without: u64,
}

impl Flows {
    /// At most `limit` streams, and at most `limit` flows. `one_way`: every flow is forward. `timeout_ns`: a flow that
    /// is silent for longer has ended.
    pub fn new(limit: usize, one_way: bool, timeout_ns: u64) -> Self {
        Flows {
            flows: Vec::new(),
            current: Vec::new(),
            streams: Streams::new(limit),
            limit,
            one_way,
            timeout_ns,
            timed_out: 0,
            packets_without: 0,
        }
    }

    /// Flows that had been silent for so long that a later packet of their ports began another one.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// Packets for whose flow there was no room.
    pub fn packets_without(&self) -> u64 {
        self.packets_without
    }

    /// All of them, in the order in which they began.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Flow> {
        self.flows.iter()
    }

    /// One of them; `None` of [`FlowId::UNKNOWN`].
    #[inline(always)]
    pub fn get_mut(&mut self, flow: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(flow.0 as usize)
    }

    /// The key of a flow's stream.
    pub fn key(&self, flow: &Flow) -> &StreamKey {
        self.streams.key(flow.stream).expect("a flow has a stream")
    }

    /// The number of a stream.
    #[inline(always)]
    pub fn stream_id(&mut self, key: &StreamKey) -> StreamId {
        self.streams.id(key)
    }

    /// Asks the memory for a flow.
    #[inline(always)]
    pub fn prefetch(&self, flow: FlowId) {
        if let Some(flow) = self.flows.get(flow.0 as usize) {
            prefetch(flow);
        }
    }

    /// Asks the memory for the latest flow of a stream.
    #[inline(always)]
    pub fn prefetch_current(&self, stream: StreamId) {
        if let Some(&flow) = self.current.get(stream.0 as usize) {
            self.prefetch(flow);
        }
    }

    /// Whether a flow's packets may be of a stream: so may those of a flow for which there was no room.
    #[inline(always)]
    pub fn may_be_of(&self, flow: FlowId, stream: StreamId) -> bool {
        self.flows.get(flow.0 as usize).is_none_or(|flow| flow.stream == stream)
    }

    /// The highest number of a packet of this flow that was matched: what was sent before it and has not
    /// arrived was overtaken.
    pub fn frontier(&self, flow: FlowId) -> Option<u64> {
        self.flows.get(flow.0 as usize)?.frontier
    }

    /// The flow of a packet that was not seen before.
    #[inline]
    pub fn of(&mut self, sighting: &Sighting, tap: Tap) -> FlowId {
        let stream = sighting.stream;
        let place = stream.0 as usize;
        let known = self.current.get(place).copied().unwrap_or(FlowId::UNKNOWN);
        let opens = sighting.tcp_flags & SYN != 0;
        let now_ns = sighting.order_ns;
        let id = match self.flows.get(known.0 as usize) {
            Some(flow) if now_ns.saturating_sub(flow.active_ns) > self.timeout_ns => {
                self.timed_out += u64::from(self.key(flow).is_flow());
                self.begin(stream)
            }
            Some(flow) if !opens || flow.opening == Some(sighting.sequence) => known,
            _ => self.begin(stream),
        };
        let Some(flow) = self.flows.get_mut(id.0 as usize) else {
            self.packets_without += 1;
            return id;
        };
        flow.active_ns = now_ns;
        if id != known {
            flow.first_flags = sighting.tcp_flags;
            if opens {
                flow.opening = Some(sighting.sequence);
            }
        }
        flow.tcp_flags |= sighting.tcp_flags;
        if opens {
            self.handshake(id, sighting, tap);
        }
        id
    }

    /// A packet was seen at the second tap. `number`: of the packet; `difference_ns`: time at egress less time
    /// at ingress. `has_copies`: which of them it is may be decided later, so it does not tell of reordering.
    #[inline(always)]
    pub fn passed(
        &mut self,
        id: FlowId,
        sighting: &Sighting,
        tap: Tap,
        number: u64,
        difference_ns: i64,
        has_copies: bool,
    ) {
        let one_way = self.one_way;
        if let Some(flow) = self.get_mut(id) {
            flow.vote += if one_way { 1 } else { difference_ns.signum() };
            if flow.frontier > Some(number) && !has_copies {
                flow.reordered += 1;
            }
            flow.frontier = flow.frontier.max(Some(number));
            if sighting.tcp_flags & SYN != 0 {
                self.handshake(id, sighting, tap);
            }
        }
    }

    fn begin(&mut self, stream: StreamId) -> FlowId {
        if stream == StreamId::UNKNOWN || self.flows.len() == self.limit {
            return FlowId::UNKNOWN;
        }
        let id = FlowId(self.flows.len() as u32);
        self.flows.push(Flow::new(stream));
        let place = stream.0 as usize;
        if self.current.len() <= place {
            self.current.resize(place + 1, FlowId::UNKNOWN);
        }
        self.current[place] = id;
        id
    }

    /// A SYN or SYN-ACK at the ingress tap: the time from the one to the other.
    #[cold]
    fn handshake(&mut self, id: FlowId, sighting: &Sighting, tap: Tap) {
        if tap != Tap::Ingress {
            return;
        }
        let stamp = (sighting.time_ns, sighting.clock);
        let Some(flow) = self.get_mut(id) else { return };
        if sighting.tcp_flags & ACK == 0 {
            flow.opened_ns.get_or_insert(stamp);
            return;
        }
        let Some(key) = self.streams.key(sighting.stream) else { return };
        let reversed = key.reversed();
        let Some(stream) = self.streams.known(&reversed) else { return };
        let Some(&opener) = self.current.get(stream.0 as usize) else { return };
        let Some(flow) = self.get_mut(opener) else { return };
        let answers =
            flow.opening.is_some_and(|syn| syn.wrapping_add(1) == sighting.acknowledgement);
        if let (true, None, Some((opened_ns, clock))) =
            (answers, flow.handshake_rtt_ns, flow.opened_ns)
            && clock == sighting.clock
        {
            flow.handshake_rtt_ns = sighting.time_ns.checked_sub(opened_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_later_ones_overtook_are_reordered_and_their_overtakers_are_not() {
        let mut flows = Flows::new(8, false, u64::MAX);
        let sighting = Sighting {
            digest: [0; 2],
            check: 0,
            time_ns: 0,
            order_ns: 0,
            stream: flows.stream_id(&StreamKey::v4(1, 6, false)),
            wire_bytes: 60,
            sequence: 0,
            acknowledgement: 0,
            tcp_flags: ACK,
            lane: LaneId::OTHER,
            clock: 0,
            stamp: crate::source::Stamp::default(),
        };
        let flow = flows.of(&sighting, Tap::Ingress);
        // Sent 1 to 9; 3 and 4 arrive behind 6, 8 is lost, 7 arrives last.
        for number in [1, 2, 5, 6, 3, 4, 9, 7] {
            flows.passed(flow, &sighting, Tap::Egress, number, 1, false);
        }
        assert_eq!(flows.get_mut(flow).unwrap().reordered, 3);
    }
}
