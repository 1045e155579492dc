//! Known flows while a flood of new ones comes, and how long the look-up of a chosen tuple takes.
//!
//! * Two gateways, each with its table half full of known flows. One of them gets a batch of SYNs of new
//!   flows before every batch of known ones, until its table is full and from then on. Only the batches of
//!   known flows are compared, in turn, so that both see the same machine.
//! * Two full tables. One gets tuples at random, the other tuples that somebody chose who knows the code
//!   and not the secret; every packet is timed alone. The clock's own time is in both.

use std::time::Instant;

use dataplane::batch::{Batch, Packet, PortId};
use dataplane::config::Config;
use dataplane::flow::classifier::{Capacity, Policy};
use dataplane::flow::key::Ipv4Key;
use dataplane::flow::observer::Unobserved;
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};
use dataplane::wire::frame::Frame;
use serde::Serialize;

use super::median;
use super::port::{PACKET_BYTES, SOURCE, TEMPLATE};
use crate::traffic::Random;

/// Packets of a batch.
const BATCH: usize = 64;
/// Rounds of which the median is taken.
const ROUNDS: usize = 15;
/// Tuples of each kind whose look-up is timed.
const LOOK_UPS: usize = 10_000_000;
/// Of one kind, before the other has its turn.
const TURN: usize = 100_000;

/// What a flood costs.
#[derive(Debug, Serialize)]
pub struct Flood {
    /// Flows the table is made for; half as many are known.
    pub flows: usize,
    /// New flows in the flood; the table has two entries for each flow it is made for.
    pub flood_packets: usize,
    /// A packet of a known flow, when nothing else comes.
    pub known_ns: f64,
    /// A packet of a known flow, in the flood.
    pub known_in_flood_ns: f64,
    /// The throughput that known flows keep.
    pub share: f64,
    /// A packet of the flood.
    pub flood_ns: f64,
    /// Tuples at random, in a full table.
    pub random: LookUp,
    /// Chosen tuples, in a full table.
    pub chosen: LookUp,
    /// p99.9 of chosen tuples by that of random ones.
    pub p999_ratio: f64,
}

/// One packet alone through the gateway, the clock included, in nanoseconds.
#[derive(Debug, Serialize)]
pub struct LookUp {
    /// Half of them take less.
    pub p50_ns: u32,
    /// All but one in a thousand take less.
    pub p999_ns: u32,
}

/// Source address and ports; the rest is as in the template.
type Tuple = (u32, u32);

/// Measures both.
pub(super) fn measure(flows: usize) -> Flood {
    let flood_packets = 10 * 2 * flows;
    let (mut quiet, mut flooded) = (Site::new(flows), Site::new(flows));
    let known = (flows / 2).max(1) as u64;
    for site in [&mut quiet, &mut flooded] {
        // Twice: the second time none of them is new.
        for n in 0..2 * known {
            site.send(&[known_flow(n % known)], false);
        }
    }
    let (mut random, mut flood_random) = (Random::new(1), Random::new(2));
    let (mut quiets, mut floodeds, mut floods) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let batches = flood_packets.div_ceil(ROUNDS * BATCH);
        let mut ns = [0_u64; 3];
        for _ in 0..batches {
            ns[0] += quiet.send(&known_batch(&mut random, known), false);
        }
        for _ in 0..batches {
            let attack: [Tuple; BATCH] = std::array::from_fn(|_| random_tuple(&mut flood_random));
            ns[2] += flooded.send(&attack, true);
            ns[1] += flooded.send(&known_batch(&mut random, known), false);
        }
        let [quiet, flooded, flood] = ns.map(|ns| ns as f64 / (batches * BATCH) as f64);
        quiets.push(quiet);
        floodeds.push(flooded);
        floods.push(flood);
    }
    let (known_ns, known_in_flood_ns) = (median(&mut quiets), median(&mut floodeds));
    let [random, chosen] = look_ups(flows);
    Flood {
        flows,
        flood_packets,
        known_ns,
        known_in_flood_ns,
        share: known_ns / known_in_flood_ns,
        flood_ns: median(&mut floods),
        p999_ratio: f64::from(chosen.p999_ns) / f64::from(random.p999_ns),
        random,
        chosen,
    }
}

/// Random tuples and chosen ones, in turns.
fn look_ups(flows: usize) -> [LookUp; 2] {
    let mut sites = [Site::new(flows), Site::new(flows)];
    let mut times: [Vec<u32>; 2] = [Vec::with_capacity(LOOK_UPS), Vec::with_capacity(LOOK_UPS)];
    let mut random = Random::new(3);
    // Tables are full before anything is timed.
    let warm_up = 4 * flows;
    for n in 0..warm_up {
        sites[0].send(&[random_tuple(&mut random)], true);
        sites[1].send(&[chosen_tuple(n)], true);
    }
    for turn in 0..LOOK_UPS / TURN {
        for (kind, site) in sites.iter_mut().enumerate() {
            for n in 0..TURN {
                let tuple = match kind {
                    0 => random_tuple(&mut random),
                    _ => chosen_tuple(warm_up + turn * TURN + n),
                };
                times[kind].push(site.send(&[tuple], true) as u32);
            }
        }
    }
    times.map(|mut times| {
        let mut at = |rank: usize| *times.select_nth_unstable(rank).1;
        LookUp { p50_ns: at(LOOK_UPS / 2), p999_ns: at(LOOK_UPS / 1000 * 999) }
    })
}

fn known_flow(n: u64) -> Tuple {
    (0x0a00_0000 | n as u32, 443)
}

fn known_batch(random: &mut Random, known: u64) -> [Tuple; BATCH] {
    std::array::from_fn(|_| known_flow(random.below(known)))
}

fn random_tuple(random: &mut Random) -> Tuple {
    let bits = random.bits();
    ((bits >> 32) as u32 | 1 << 31, bits as u32)
}

/// In turn: sequences, sums that stay, bits at the top, and tuples close together under another secret.
fn chosen_tuple(n: usize) -> Tuple {
    let index = (n / 4) as u32;
    match n % 4 {
        0 => (1 << 31 | index >> 16, index << 16 | 80),
        1 => (1 << 31 | index, 81_u32.wrapping_sub(index)),
        2 => (1 << 31 | (index & 1) << 30 | index >> 2, (index >> 1 & 1) << 31 | 82),
        _ => close_under_another_secret(index),
    }
}

/// Of sixteen tuples, the one whose hash under a secret that is not the table's is lowest.
fn close_under_another_secret(index: u32) -> Tuple {
    thread_local! { static OTHER: Secret = Secret::from_seed(99); }
    let hash = |&(source, ports): &Tuple| {
        let addresses = [u64::from(source) << 32 | 0xc000_0201, 0, 0, 0];
        let frame =
            Frame { addresses, ports_and_vlans: u64::from(ports) << 32, ..Frame::default() };
        OTHER.with(|secret| secret.hash(&Ipv4Key::of(&frame)))
    };
    let candidates = (0..16).map(|n| (3 << 30 | index, n << 16 | 83));
    candidates.min_by_key(hash).expect("there are sixteen")
}

/// A gateway, and frames to fill in.
struct Site {
    gateway: Gateway,
    frames: Box<[[u8; PACKET_BYTES]; BATCH]>,
    start: Instant,
}

impl Site {
    fn new(flows: usize) -> Self {
        let config = Config::defaults();
        let mut rule = config.rule;
        rule.policy = Policy::Split;
        // No flow ends while this takes.
        rule.idle_timeout_ns = 1 << 50;
        let settings = Settings { rule, lanes: config.lanes, frame_bytes_max: [1518; 2] };
        let capacity = Capacity { ipv4_flows_max: flows, ipv6_flows_max: 1, ..config.capacity };
        Site {
            gateway: Gateway::new(settings, capacity, Secret::random()),
            frames: Box::new([TEMPLATE; BATCH]),
            start: Instant::now(),
        }
    }

    /// Sends one packet of each, and says how long the gateway took.
    fn send(&mut self, tuples: &[Tuple], syn: bool) -> u64 {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let mut batch: Batch<'_> = self
            .frames
            .iter_mut()
            .zip(tuples)
            .map(|(frame, (source, ports))| {
                *frame = TEMPLATE;
                frame[SOURCE..SOURCE + 4].copy_from_slice(&source.to_be_bytes());
                frame[SOURCE + 8..SOURCE + 12].copy_from_slice(&ports.to_be_bytes());
                frame[SOURCE + 21] = if syn { 0x02 } else { 0x10 };
                Packet::new(&mut frame[..], PortId::Lan, now_ns)
            })
            .collect();
        let start = Instant::now();
        self.gateway.process(&mut batch, &mut Unobserved);
        start.elapsed().as_nanos() as u64
    }
}

impl std::fmt::Display for Flood {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Flood { flows, flood_packets, known_ns, known_in_flood_ns, .. } = self;
        let Flood { flood_ns, random, chosen, .. } = self;
        writeln!(
            formatter,
            "\nflood of {flood_packets} new flows on a table made for {flows}, half of them known:"
        )?;
        writeln!(formatter, "{:<36}{known_ns:>10.1} ns", "  known flows, alone")?;
        writeln!(formatter, "{:<36}{known_in_flood_ns:>10.1} ns", "  known flows, in the flood")?;
        writeln!(formatter, "{:<36}{:>10.1} %", "  throughput they keep", 100.0 * self.share)?;
        writeln!(formatter, "{:<36}{flood_ns:>10.1} ns", "  packets of the flood")?;
        writeln!(formatter, "one packet alone, new to a full table, {LOOK_UPS} of each kind:")?;
        for (name, LookUp { p50_ns, p999_ns }) in [("random", random), ("chosen", chosen)] {
            let name = format!("  {name} tuples, p50 and p99.9");
            writeln!(formatter, "{name:<36}{p50_ns:>10} ns{p999_ns:>10} ns")?;
        }
        writeln!(formatter, "{:<36}{:>10.2}", "  p99.9, chosen by random", self.p999_ratio)
    }
}
