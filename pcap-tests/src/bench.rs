//! How fast? Nanoseconds and instructions a packet, through the very loop of a worker, on ports in memory;
//! beside it, in the same run, the floor that the machine's memory sets.
//!
//! * `port` is a port without a wire: 64-byte frames of random flows come in, what is sent is gone
//! * `floor` touches one random cache line a packet, and does nothing else
//! * `tunnels` is routed mode: into GRE, and out of it
//! * `flood` sends new flows between the known ones, and times look-ups of chosen tuples
//!
//! One core, one worker. Each figure is the median of several rounds; the floor is measured between them, so
//! that both see the same machine.

mod flood;
mod floor;
mod port;
mod tunnels;

use std::fmt;
use std::time::Instant;

use crossbeam::channel::bounded;
use dataplane::clock::Clock;
use dataplane::config::{Config, Poll};
use dataplane::flow::classifier::{Capacity, Policy};
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};
use dataplane::worker::{Published, Worker};
use perf_event::events::Hardware;
use serde::Serialize;

pub use flood::{Flood, LookUp};
use floor::Floor;
use port::{Frames, MemoryPort};

/// Rounds of which the median is taken.
const ROUNDS: usize = 7;
/// Packets of a round; at least as many as there are flows.
const ROUND_PACKETS: usize = 2_000_000;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Bench {
    /// One for each policy and number of flows.
    pub runs: Vec<Run>,
    /// When it was asked for: what a flood of new flows costs the largest of these tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flood>,
}

/// One policy, one number of flows.
#[derive(Debug, Serialize)]
pub struct Run {
    /// How flows become classes.
    pub policy: Policy,
    /// What a packet goes through.
    pub lane: Path,
    /// Flows in the table, all equally busy.
    pub flows: usize,
    /// The whole way of a packet, its arrival in the frame included.
    pub ns_per_packet: f64,
    /// One random cache line of a table of the same size, read and written.
    pub floor_ns: f64,
    /// The one by the other.
    pub ratio: f64,
    /// `null` where the machine counts none.
    pub instructions_per_packet: Option<f64>,
}

/// What a packet goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Classified, and marked.
    Mark,
    /// Classified, routed, and put into the GRE tunnel of its lane.
    Gre,
    /// Taken out of a GRE tunnel at the border, and routed.
    GreIn,
    /// Nothing.
    None,
}

impl Path {
    fn name(self) -> &'static str {
        match self {
            Path::Mark => "mark",
            Path::Gre => "gre",
            Path::GreIn => "gre-in",
            Path::None => "none",
        }
    }
}

/// Measures every policy at every number of flows, and a flood when asked to.
pub fn bench(flow_counts: &[usize], flood: bool) -> Bench {
    let ways = [
        (Policy::Split, Path::Mark),
        (Policy::Split, Path::Gre),
        (Policy::Split, Path::GreIn),
        (Policy::Ecmp, Path::Mark),
        (Policy::None, Path::None),
    ];
    let runs = flow_counts
        .iter()
        .flat_map(|&flows| ways.map(|(policy, path)| measure(policy, path, flows)))
        .collect();
    let largest = flow_counts.iter().max().copied().filter(|_| flood);
    Bench { runs, flood: largest.map(flood::measure) }
}

fn measure(policy: Policy, path: Path, flows: usize) -> Run {
    let mut worker = worker(policy, path, flows);
    let mut floor = Floor::new(flows);
    let packets = ROUND_PACKETS.max(flows);
    // Every flow is known before the first round, and both tables are in the state they stay in.
    forward(&mut worker, 2 * packets);
    floor.touch(packets);

    let mut counter = perf_event::Builder::new(Hardware::INSTRUCTIONS).build().ok();
    let (mut ways, mut floors, mut instructions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(nanoseconds(packets, || floor.touch(packets)));
        let before = counter.as_mut().and_then(|counter| counter.enable().ok());
        ways.push(nanoseconds(packets, || forward(&mut worker, packets)));
        if let (Some(counter), Some(())) = (&mut counter, before) {
            let counted = counter.disable().and_then(|()| counter.read());
            instructions.extend(counted.ok().map(|count| count as f64 / packets as f64));
            let _ = counter.reset();
        }
    }
    let counters = worker.report().counters;
    assert_eq!(counters.forwarded, counters.received, "only what is forwarded is measured");
    let (ns_per_packet, floor_ns) = (median(&mut ways), median(&mut floors));
    Run {
        policy,
        lane: path,
        flows,
        ns_per_packet,
        floor_ns,
        ratio: ns_per_packet / floor_ns,
        instructions_per_packet: (instructions.len() == ROUNDS).then(|| median(&mut instructions)),
    }
}

fn worker(policy: Policy, path: Path, flows: usize) -> Worker<MemoryPort> {
    let config = Config::defaults();
    let mut rule = config.rule;
    rule.policy = policy;
    let settings = Settings { rule, lanes: config.lanes, frame_bytes_max: [1518; 2] };
    let capacity = Capacity { ipv4_flows_max: flows, ipv6_flows_max: 1, ..config.capacity };
    let mut gateway = Gateway::new(settings, capacity, Secret::random());
    if matches!(path, Path::Gre | Path::GreIn) {
        gateway = gateway.with_router(tunnels::router());
    }
    // Nobody gives orders: rounds are called for, not run.
    let (_, orders) = bounded(0);
    let ports = match path {
        Path::GreIn => {
            let answers = MemoryPort::receiving_from_tunnel(flows, tunnels::answer());
            [MemoryPort::silent(), answers]
        }
        _ => [MemoryPort::receiving(flows), MemoryPort::silent()],
    };
    Worker::new(ports, Frames::new(), gateway, Poll::Busy, orders, Published::default())
}

fn forward(worker: &mut Worker<MemoryPort>, packets: usize) {
    let clock = Clock::start();
    let mut forwarded = 0;
    while forwarded < packets {
        forwarded += worker.round(clock.now_ns());
    }
}

fn nanoseconds(packets: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / packets as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl fmt::Display for Bench {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<8}{:<8}{:>10}{:>12}{:>12}{:>8}{:>16}",
            "policy", "lane", "flows", "ns/packet", "floor, ns", "ratio", "instructions"
        )?;
        for run in &self.runs {
            let policy = format!("{:?}", run.policy).to_lowercase();
            let instructions = match run.instructions_per_packet {
                Some(instructions) => format!("{instructions:.0}"),
                None => "not counted".to_owned(),
            };
            writeln!(
                formatter,
                "{policy:<8}{:<8}{:>10}{:>12.1}{:>12.1}{:>8.2}{instructions:>16}",
                run.lane.name(),
                run.flows,
                run.ns_per_packet,
                run.floor_ns,
                run.ratio
            )?;
        }
        self.flood.iter().try_for_each(|flood| write!(formatter, "{flood}"))
    }
}
