//! Random traffic for holding the gateway against its model.
//!
//! A bounded population of flows, chosen so that they are easily confused (across VLANs, families and
//! directions), sends mostly good TCP, and everything else that could surprise a parser: fragments in
//! any order, chains of extension headers, lengths that lie, frames cut anywhere, flipped bits, and
//! a clock that creeps, leaps and runs backwards. The same seed yields the same frames.
//!
//! Frames are written into one buffer that is used again; nothing is allocated per frame.
//!
//! ```
//! use pcap_tests::traffic::{Options, Traffic};
//!
//! let mut traffic = Traffic::new(7, Options::default());
//! let frame = traffic.next_frame();
//! assert!(frame.kept.len() <= frame.wire_bytes as usize);
//! ```

mod flows;
mod frame;
mod random;
mod routed;

pub use random::Random;
pub use routed::{RoutedFrame, RoutedTraffic};

use flows::Tuple;
use frame::Builder;

/// Most flows that are kept quiet at a time, to be woken at a chosen moment.
const SLEEPERS_MAX: usize = 8;
/// Fewest flows of a population: some must be awake.
const FLOWS_MIN: usize = 16;

/// What the traffic is aimed at.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Flows in the population, at least 16. Damaged frames may look like flows of their own.
    pub flows: usize,
    /// The silence around which gaps are chosen.
    pub idle_timeout_ns: u64,
    /// When it begins.
    pub start_ns: u64,
    /// Code points that some packets already have.
    pub dscps: [u8; 2],
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flows: 256,
            idle_timeout_ns: 30_000_000_000,
            start_ns: 1_700_000_000_000_000_000,
            dscps: [18, 10],
        }
    }
}

/// One frame, as a capture would hold it.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The bytes that were kept, from the destination MAC address.
    pub kept: &'a [u8],
    /// Bytes of the frame on the wire, never fewer than were kept.
    pub wire_bytes: u32,
    /// When it was received; sometimes before the frame that came before it.
    pub received_ns: u64,
    /// Every length in it is right and every byte was kept.
    pub well_formed: bool,
}

/// What a flow is to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Whatever comes.
    Anything,
    /// A packet that counts.
    Counted,
    /// A fragment that does not count.
    LaterFragment,
}

/// An endless sequence of frames.
#[derive(Debug)]
pub struct Traffic {
    random: Random,
    options: Options,
    flows: Vec<Tuple>,
    /// Flows that are kept quiet, by the time they wake.
    sleepers: Vec<(u64, usize)>,
    /// The latest time of any frame so far.
    now_ns: u64,
    latest_flow: usize,
    builder: Builder,
}

impl Traffic {
    /// The traffic of this seed.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        let flows = flows::population(&mut random, options.flows.max(FLOWS_MIN));
        let builder = Builder::new(&mut random, options.dscps);
        Traffic {
            random,
            options,
            flows,
            sleepers: Vec::with_capacity(SLEEPERS_MAX),
            now_ns: options.start_ns,
            latest_flow: 0,
            builder,
        }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Frame<'_> {
        let (flow, wish) = self.next_sender();
        self.latest_flow = flow;
        let received_ns = if wish == Wish::Anything && self.random.one_in(40) {
            // Behind by little or by a lot.
            let range_ns =
                if self.random.one_in(2) { 1000 } else { 3 * self.options.idle_timeout_ns };
            self.now_ns.saturating_sub(self.random.below(range_ns.max(1)))
        } else {
            self.now_ns
        };

        let tuple = &self.flows[flow];
        match wish {
            Wish::Anything => self.builder.anything(&mut self.random, tuple),
            Wish::Counted if self.random.one_in(3) => {
                self.builder.whole_first_fragment(&mut self.random, tuple);
            }
            Wish::Counted => self.builder.packet(&mut self.random, tuple),
            Wish::LaterFragment => self.builder.later_fragment_of(&mut self.random, tuple),
        }
        Frame {
            kept: self.builder.kept(),
            wire_bytes: self.builder.wire_bytes(),
            received_ns,
            well_formed: self.builder.is_well_formed(),
        }
    }

    /// Moves the clock and says who sends.
    fn next_sender(&mut self) -> (usize, Wish) {
        if self.random.one_in(15_000) {
            // Everyone is silent. Whoever spoke last was so for exactly as long.
            self.sleepers.clear();
            self.now_ns = self.now_ns.saturating_add(self.leap_ns());
            if self.random.one_in(2) {
                return (self.latest_flow, Wish::Counted);
            }
        } else {
            let step_ns = self.step_ns();
            let moved_ns = self.now_ns.saturating_add(step_ns);
            let due = (0..self.sleepers.len()).min_by_key(|&index| self.sleepers[index]);
            if let Some(index) = due.filter(|&index| self.sleepers[index].0 <= moved_ns) {
                let (wakes_ns, flow) = self.sleepers.swap_remove(index);
                self.now_ns = wakes_ns;
                return (flow, Wish::Counted);
            }
            self.now_ns = moved_ns;
        }

        // Of two draws the lower: some flows send much more than others.
        loop {
            let flow = self.random.index(self.flows.len()).min(self.random.index(self.flows.len()));
            let asleep = self.sleepers.iter().any(|&(_, sleeper)| sleeper == flow);
            if asleep {
                // A later fragment does not keep a flow alive.
                if self.random.one_in(4) {
                    return (flow, Wish::LaterFragment);
                }
                continue;
            }
            if self.sleepers.len() < SLEEPERS_MAX && self.random.one_in(200) {
                let gap_ns = self.gap_ns();
                self.sleepers.push((self.now_ns.saturating_add(gap_ns), flow));
                return (flow, Wish::Counted);
            }
            return (flow, Wish::Anything);
        }
    }

    /// From one frame to the next: mostly little.
    fn step_ns(&mut self) -> u64 {
        let timeout_ns = self.options.idle_timeout_ns;
        let range_ns = match self.random.below(100) {
            0..30 => return 0,
            30..70 => 1000,
            70..99 => timeout_ns / 500,
            _ => timeout_ns / 20,
        };
        self.random.below(range_ns.max(1))
    }

    /// How long one flow is quiet while others go on.
    fn gap_ns(&mut self) -> u64 {
        let timeout_ns = self.options.idle_timeout_ns;
        match self.random.below(8) {
            0 | 1 => timeout_ns,
            2 | 3 => timeout_ns + 1,
            4 | 5 => timeout_ns.saturating_sub(1),
            6 => timeout_ns / 2,
            _ => timeout_ns.saturating_mul(3),
        }
    }

    /// How long everyone is quiet.
    fn leap_ns(&mut self) -> u64 {
        let timeout_ns = self.options.idle_timeout_ns;
        let near_ns = self.random.below(timeout_ns.max(1));
        match self.random.below(16) {
            0..4 => timeout_ns,
            4..8 => timeout_ns + 1,
            8..12 => timeout_ns.saturating_sub(1),
            12 => timeout_ns.saturating_mul(1 + self.random.below(1000)),
            // Where 32 bits of nanoseconds, microseconds or milliseconds come round again.
            13 => (1 << 32) + near_ns,
            14 => (1 << 32) * 1000 + near_ns,
            _ => (1 << 32) * 1_000_000 + near_ns,
        }
    }
}
