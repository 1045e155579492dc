//! What is measured: outcomes of the matcher in, counts and series out.
//!
//! Of each direction (see [`crate::flow`]) apart:
//!
//! * **delay** of a matched packet: from the tap where its flow enters to the other. A delay below zero is counted
//!   and left out of everything else; it says that the clocks differ by more than the way takes.
//! * **IPDV** (RFC 3393): the delay of a packet less the delay of the packet of the same flow before it. Selected
//!   are consecutive packets of a flow, in the order in which they entered, that were matched with a delay of zero
//!   or more; what lies between them was lost, or is of another class.
//! * **PDV** (RFC 5481): the delay less the least delay of the direction.
//!
//! Invariant: of each tap, packets = matched + single + duplicate + ambiguous + out of window.

use std::io;

use crate::flow::{Direction, FlowId, Flows};
use crate::lane::{LANES_MAX, LaneId, Lanes};
use crate::matcher::{Class, Outcome, Sink};
use crate::over_time::OverTime;
use crate::source::Tap;
use crate::statistics::Series;

/// How many packets of one tap ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Classes {
    /// Seen at this tap only: lost, or unmatched.
    pub single: u64,
    /// Recognised at both taps.
    pub matched: u64,
    /// A further copy.
    pub duplicate: u64,
    /// Not told apart.
    pub ambiguous: u64,
    /// Seen at both taps, too far apart.
    pub out_of_window: u64,
}

impl Classes {
    /// All packets of the tap.
    pub fn total(&self) -> u64 {
        self.single + self.matched + self.duplicate + self.ambiguous + self.out_of_window
    }
}

/// One direction.
#[derive(Debug)]
pub struct Way {
    /// Matched packets.
    pub matched: u64,
    /// Those with a delay below zero, and the least of these.
    pub negative: u64,
    /// The least delay below zero.
    pub negative_min_ns: Option<i64>,
    /// Matched packets whose two stamps are of clocks that do not compare.
    pub without_delay: u64,
    /// All differences of the stamps, egress less ingress, when every flow is forward: for calibration.
    pub differences: Series,
    /// Delays of zero or more.
    pub delay: Series,
    /// IPDV.
    pub variation: Series,
    /// IPDV without its sign.
    pub variation_size: Series,
}

impl Way {
    fn new(exact_max: usize) -> Self {
        Way {
            matched: 0,
            negative: 0,
            negative_min_ns: None,
            without_delay: 0,
            differences: Series::new(exact_max),
            delay: Series::new(exact_max),
            variation: Series::new(exact_max),
            variation_size: Series::new(exact_max),
        }
    }
}

/// One lane, forward.
#[derive(Debug)]
pub struct LaneSeries {
    /// Matched packets.
    pub matched: u64,
    /// Lost packets whose flow was in this lane when they were sent.
    pub lost: u64,
    /// Delays of zero or more.
    pub delay: Series,
    /// IPDV of packets in this lane without its sign.
    pub variation_size: Series,
    /// Delay and loss in the course of time.
    pub over_time: OverTime,
}

/// Takes a row for every packet.
pub trait Rows {
    /// What became of a packet, and which way it went if that is known.
    fn row(
        &mut self,
        outcome: &Outcome,
        direction: Option<Direction>,
        flows: &Flows,
        lanes: &Lanes,
    );

    /// No more rows come.
    ///
    /// # Errors
    ///
    /// When rows could not be kept, now or before.
    fn finish(self: Box<Self>, lanes: &Lanes) -> io::Result<()>;
}

/// See the module.
pub struct Measurement {
    /// Of each tap.
    pub classes: [Classes; 2],
    /// Forward and reverse.
    pub ways: [Way; 2],
    /// By number; those not met are `None`.
    pub lanes: Vec<Option<Box<LaneSeries>>>,
    /// Takes every packet, if there is somebody who wants them.
    pub rows: Option<Box<dyn Rows + Send>>,
    exact_max: usize,
    one_way: bool,
}

impl Measurement {
    /// Nothing measured yet. `exact_max`: see [`Series::new`]. `rows` gets every packet.
    pub fn new(exact_max: usize, one_way: bool, rows: Option<Box<dyn Rows + Send>>) -> Self {
        Measurement {
            classes: [Classes::default(); 2],
            ways: Direction::BOTH.map(|_| Way::new(exact_max)),
            lanes: (0..=LANES_MAX).map(|_| None).collect(),
            rows,
            exact_max,
            one_way,
        }
    }

    fn lane(&mut self, lane: LaneId) -> &mut LaneSeries {
        let exact_max = self.exact_max;
        self.lanes[lane.index()].get_or_insert_with(|| {
            Box::new(LaneSeries {
                matched: 0,
                lost: 0,
                delay: Series::new(exact_max),
                variation_size: Series::new(exact_max),
                over_time: OverTime::default(),
            })
        })
    }

    /// A packet recognised at both taps; returns its direction.
    #[inline(always)]
    fn matched(&mut self, outcome: &Outcome, flows: &mut Flows) -> Direction {
        let [ingress_ns, egress_ns] = outcome.time_ns;
        let difference_ns = egress_ns.wrapping_sub(ingress_ns).cast_signed();
        let flow = flows.get_mut(outcome.flow);
        let direction = match &flow {
            Some(_) => None,
            None if difference_ns < 0 && !self.one_way => Some(Direction::Reverse),
            None => Some(Direction::Forward),
        };
        let mut variation_ns = None;
        let comparable = outcome.clock[0] == outcome.clock[1];
        let direction = match flow {
            None => direction.expect("without a flow the packet decides"),
            Some(flow) => {
                let direction = flow.decide();
                flow.in_lane(outcome.lane);
                if comparable {
                    let (least, most) =
                        flow.difference_ns.unwrap_or((difference_ns, difference_ns));
                    flow.difference_ns = Some((least.min(difference_ns), most.max(difference_ns)));
                    let delay_ns = in_direction(difference_ns, direction);
                    if let Ok(delay_ns) = u64::try_from(delay_ns) {
                        flow.delays += 1;
                        flow.delay_sum_ns += u128::from(delay_ns);
                        if let Some(before_ns) = flow.last_delay_ns.replace(delay_ns) {
                            let ns = delay_ns.wrapping_sub(before_ns).cast_signed();
                            flow.variations += 1;
                            flow.variation_sum_ns += u128::from(ns.unsigned_abs());
                            variation_ns = Some(ns);
                        }
                    }
                }
                direction
            }
        };
        let way = &mut self.ways[direction.index()];
        way.matched += 1;
        let delay_ns = in_direction(difference_ns, direction);
        if comparable && self.one_way {
            way.differences.record(difference_ns);
        }
        if !comparable {
            way.without_delay += 1;
        } else if delay_ns < 0 {
            way.negative += 1;
            way.negative_min_ns = Some(way.negative_min_ns.unwrap_or(0).min(delay_ns));
        } else {
            way.delay.record(delay_ns);
            if let Some(variation_ns) = variation_ns {
                way.variation.record(variation_ns);
                way.variation_size.record(variation_ns.abs());
            }
        }
        if direction == Direction::Forward {
            let lane = self.lane(outcome.lane);
            lane.matched += 1;
            if comparable && delay_ns >= 0 {
                lane.delay.record(delay_ns);
                lane.over_time.delay(ingress_ns, delay_ns.unsigned_abs());
                if let Some(variation_ns) = variation_ns {
                    lane.variation_size.record(variation_ns.abs());
                }
            }
        }
        direction
    }

    /// A packet of which the two taps have nothing to do with each other.
    #[inline(never)]
    fn apart(&mut self, outcome: &Outcome, flows: &mut Flows) {
        for tap in Tap::BOTH {
            let class = outcome.class[tap.index()];
            if class == Class::Single && tap == Tap::Ingress {
                let lane = flows.get_mut(outcome.flow).map_or(LaneId::OTHER, |flow| flow.lane);
                let lane = self.lane(lane);
                lane.lost += 1;
                lane.over_time.lost(outcome.time_ns[tap.index()]);
            }
            let Some(flow) = flows.get_mut(outcome.flow) else { continue };
            match class {
                Class::Ambiguous => flow.ambiguous += 1,
                Class::Duplicate => flow.duplicates += 1,
                Class::Single => flow.seen[tap.index()].single += 1,
                Class::Absent | Class::Matched | Class::OutOfWindow => {}
            }
        }
    }
}

impl Sink for Measurement {
    #[inline]
    fn outcome(&mut self, outcome: &Outcome, flows: &mut Flows, lanes: &Lanes) {
        for tap in Tap::BOTH {
            let at = tap.index();
            let classes = &mut self.classes[at];
            *match outcome.class[at] {
                Class::Absent => continue,
                Class::Single => &mut classes.single,
                Class::Matched => &mut classes.matched,
                Class::Duplicate => &mut classes.duplicate,
                Class::Ambiguous => &mut classes.ambiguous,
                Class::OutOfWindow => &mut classes.out_of_window,
            } += 1;
            if outcome.class[at] != Class::Duplicate {
                see(outcome, tap, flows, outcome.flow);
            }
        }
        let direction = match outcome.class[0] {
            Class::Matched => Some(self.matched(outcome, flows)),
            _ => {
                self.apart(outcome, flows);
                None
            }
        };
        if let Some(rows) = &mut self.rows {
            rows.row(outcome, direction, flows, lanes);
        }
    }
}

/// One tap saw a packet of a flow.
#[inline(always)]
fn see(outcome: &Outcome, tap: Tap, flows: &mut Flows, flow: FlowId) {
    let (time_ns, clock) = (outcome.time_ns[tap.index()], outcome.clock[tap.index()]);
    let Some(flow) = flows.get_mut(flow) else { return };
    let seen = &mut flow.seen[tap.index()];
    if seen.packets == 0 {
        (seen.first_ns, seen.last_ns, seen.clocks) = (time_ns, time_ns, [clock; 2]);
    }
    seen.packets += 1;
    seen.bytes += u64::from(outcome.wire_bytes);
    // Stamps of the clock's latest step decide what is last, whatever the earlier ones said.
    if time_ns < seen.first_ns && clock == seen.clocks[0] {
        seen.first_ns = time_ns;
    }
    if clock != seen.clocks[1] || time_ns > seen.last_ns {
        seen.last_ns = time_ns;
        seen.clocks[1] = clock;
    }
}

/// A difference of stamps as the delay of a direction.
#[inline(always)]
fn in_direction(difference_ns: i64, direction: Direction) -> i64 {
    match direction {
        Direction::Forward => difference_ns,
        Direction::Reverse => difference_ns.wrapping_neg(),
    }
}
