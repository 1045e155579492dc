//! What the fuzzers call, and the replay of their corpus: any bytes at all, to the parser and to a gateway.
//!
//! * [`parse`]: one frame. The parser and the reference model must read the same out of it.
//! * [`process`]: a script of packets, batches, ticks and reloads. A gateway that gets batches, one that gets
//!   each packet alone and is swept at other times, and the reference model must agree on every packet, and
//!   at the end on every counter. Tables are small, so that they fill.
//! * [`routed`]: a configuration of routed mode and a script. A gateway and the reference model of routed mode must agree
//!   on every packet, every byte that leaves and every counter.
//!
//! [`parse_seed`] and [`process_seed`] write random traffic as such bytes: where a fuzzer begins.

mod routed;
mod script;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::batch::{BATCH_MAX, Batch, Packet, PortId};
use dataplane::counters::Counters;
use dataplane::flow::classifier::{self, Capacity};
use dataplane::flow::observer::Unobserved;
use dataplane::flow::secret::Secret;
use dataplane::flow::table;
use dataplane::gateway::{Gateway, Settings};
use dataplane::lane::Lanes;
use dataplane::lane::mark::Mark;
use dataplane::verdict::{Class, DropReason, Outcome, Untouched, Verdict};
use dataplane::wire::frame::{Datagram, Frame, Transport, Version};
use dataplane::wire::window::Unparsed;

use crate::model::{self, Kind, Model, Parsed, Policy, Rule};
use script::{Arrival, Script, Start, Step};

pub use routed::{CONFIGURATIONS, RoutedContest, configuration, routed};
pub use script::{parse_seed, process_seed, routed_seed};

/// Packets of one script; what comes after them is not read.
const PACKETS_MAX: usize = 2000;

/// Two bytes say how much longer the frame was on the wire than what is at hand; the rest is at hand.
pub fn parse(input: &[u8]) {
    let Some((cut, kept)) = input.split_first_chunk::<2>() else { return };
    let wire_bytes = kept.len() + usize::from(u16::from_be_bytes(*cut));
    // As another packet left it: what parsing does not write, nobody may read.
    let mut frame = Frame {
        addresses: [u64::MAX; 4],
        transport: Transport::LaterFragment,
        ports_and_vlans: u64::MAX,
        opens_connection: true,
        datagram: Datagram { protocol: u8::MAX, identification: u32::MAX },
        ..Frame::default()
    };
    let ours = frame.parse(kept, wire_bytes).map(|()| described(&frame)).map_err(untouched);
    let theirs = model::parse(kept, wire_bytes);
    assert_eq!(ours, theirs, "parser left, model right; {} bytes kept of {wire_bytes}", kept.len());
}

/// A frame in the model's words.
fn described(frame: &Frame) -> Parsed {
    let vlans = frame.vlans().identifiers().to_vec();
    let [source, destination]: [IpAddr; 2] = match frame.version {
        Version::V4 => [frame.addresses[0] >> 32, frame.addresses[0]]
            .map(|address| Ipv4Addr::from(address as u32).into()),
        Version::V6 => [0, 2].map(|word| {
            let [high, low] = [word, word + 1].map(|word| u128::from(frame.addresses[word]));
            Ipv6Addr::from(high << 64 | low).into()
        }),
    };
    let datagram = || model::Datagram {
        vlans: vlans.clone(),
        source,
        destination,
        protocol: frame.datagram.protocol,
        identification: frame.datagram.identification,
    };
    let kind = match frame.transport {
        Transport::LaterFragment => Kind::Later(datagram()),
        Transport::Tcp | Transport::FirstFragment => Kind::Tcp {
            first_of: (frame.transport == Transport::FirstFragment).then(datagram),
            starts: frame.opens_connection,
            flow: model::Flow {
                source_port: (frame.ports_and_vlans >> 48) as u16,
                destination_port: (frame.ports_and_vlans >> 32) as u16,
                vlans,
                source,
                destination,
            },
        },
    };
    Parsed { ip: frame.ip_offset, kind }
}

/// The counters of what was left untouched, by reason.
fn untouched_counts(by_reason: &HashMap<Untouched, u64>) -> dataplane::counters::Untouched {
    let by_reason = |reason| by_reason.get(&reason).copied().unwrap_or_default();
    dataplane::counters::Untouched {
        non_tcp: by_reason(Untouched::NonTcp),
        non_ip: by_reason(Untouched::NonIp),
        malformed: by_reason(Untouched::Malformed),
        fragment: by_reason(Untouched::Fragment),
        truncated: by_reason(Untouched::Truncated),
        unclassified: by_reason(Untouched::Unclassified),
    }
}

fn untouched(reason: Unparsed) -> Untouched {
    match reason {
        Unparsed::NonTcp => Untouched::NonTcp,
        Unparsed::NonIp => Untouched::NonIp,
        Unparsed::Malformed => Untouched::Malformed,
        Unparsed::Truncated => Untouched::Truncated,
    }
}

/// A script (see [`process_seed`]); one that ends in the middle of a step ends before it. Returns what was
/// counted.
pub fn process(input: &[u8]) -> Counters {
    let mut script = Script::new(input);
    let Some(start) = script.start() else { return Counters::default() };
    let mut contest = Contest::new(start);
    while contest.packets < PACKETS_MAX
        && let Some(step) = script.step()
    {
        match step {
            Step::Packets(arrival, times) => {
                for _ in 0..times {
                    contest.arrive(arrival.clone());
                }
            }
            Step::EndOfBatch => contest.run(),
            Step::Tick { now_ns, settle } => contest.tick(now_ns, settle),
            Step::Reload(rule) => contest.reload(rule),
        }
    }
    contest.finish()
}

/// The gateways and the model, side by side.
struct Contest {
    start: Start,
    waiting: Vec<Arrival>,
    packets: usize,
    batched: Gateway,
    alone: Gateway,
    model: Model,
    expected: Counters,
    by_reason: HashMap<Untouched, u64>,
}

impl Contest {
    fn new(start: Start) -> Self {
        let gateway = || {
            let capacity = Capacity {
                ipv4_flows_max: start.flows_max[0],
                ipv6_flows_max: start.flows_max[1],
                fragmented_datagrams_max: start.rule.fragmented_datagrams_max,
            };
            Gateway::new(start.settings(start.rule), capacity, Secret::from_seed(start.seed))
        };
        Contest {
            waiting: Vec::with_capacity(BATCH_MAX),
            packets: 0,
            batched: gateway(),
            alone: gateway(),
            model: Model::new(start.rule),
            expected: Counters::default(),
            by_reason: HashMap::new(),
            start,
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        self.waiting.push(arrival);
        self.packets += 1;
        if self.waiting.len() == BATCH_MAX {
            self.run();
        }
    }

    /// Everything that waits, in one batch and one by one.
    fn run(&mut self) {
        let arrivals = std::mem::take(&mut self.waiting);
        let mut frames: Vec<Vec<u8>> =
            arrivals.iter().map(|arrival| arrival.kept.clone()).collect();
        let mut batch: Batch<'_> = frames
            .iter_mut()
            .zip(&arrivals)
            .map(|(frame, arrival)| arrival.packet(frame))
            .collect();
        self.batched.process(&mut batch, &mut Unobserved);
        assert_eq!(batch.len(), arrivals.len());
        for (packet, arrival) in batch.iter().zip(&arrivals) {
            self.judge(arrival, packet);
        }
    }

    /// The packet as the batch left it, against the same one alone and the model.
    fn judge(&mut self, arrival: &Arrival, packet: &Packet<'_>) {
        let refused_before = self.alone.counters().flows.table_full;
        let mut frame = arrival.kept.clone();
        let mut alone = [arrival.packet(&mut frame)];
        self.alone.process(&mut alone, &mut Unobserved);
        let [alone] = alone;
        assert_eq!(packet.outcome, alone.outcome, "in a batch left, alone right: {arrival:?}");
        assert_eq!(packet.verdict, alone.verdict, "in a batch left, alone right: {arrival:?}");
        assert_eq!(packet.bytes[..], alone.bytes[..], "in a batch left, alone right: {arrival:?}");

        let refused = self.alone.counters().flows.table_full > refused_before;
        self.expected.flows.table_full += u64::from(refused);
        let Arrival { kept, wire_bytes, ingress, received_ns } = arrival;
        let answer = match ingress {
            PortId::Wan => self.model.packet_from_wan(kept, *received_ns),
            PortId::Lan if refused => {
                self.model.packet_without_room(kept, *wire_bytes, *received_ns).unwrap_or_else(
                    || panic!("no state for a known flow, or none needed: {arrival:?}"),
                )
            }
            PortId::Lan => self.model.packet(kept, *wire_bytes, *received_ns),
        };
        match (packet.outcome, answer.outcome) {
            // The model knows no hash: any class will do, and stays a class.
            (Outcome::Classified(_), Outcome::Classified(_)) if self.start.ecmp => {}
            (ours, theirs) => {
                assert_eq!(ours, theirs, "gateway left, model right: {arrival:?}");
                assert_eq!(*packet.bytes, answer.frame, "gateway left, model right: {arrival:?}");
            }
        }
        let limit = self.start.frame_bytes_max[ingress.opposite().index()];
        let verdict = if *wire_bytes > limit {
            Verdict::Drop(DropReason::ExceedsMtu)
        } else {
            Verdict::Transmit(ingress.opposite())
        };
        assert_eq!(packet.verdict, verdict, "{arrival:?}");
        self.count(packet);
    }

    fn count(&mut self, packet: &Packet<'_>) {
        let Counters { received, forwarded, short, long, dropped, bytes, .. } = &mut self.expected;
        let wire_bytes = u64::from(packet.wire_bytes);
        *received += 1;
        bytes.received += wire_bytes;
        if packet.verdict == Verdict::Drop(DropReason::ExceedsMtu) {
            dropped.exceeds_mtu += 1;
            return;
        }
        *forwarded += 1;
        bytes.forwarded += wire_bytes;
        match packet.outcome {
            Outcome::Classified(Class::Short) => {
                *short += 1;
                bytes.short += wire_bytes;
            }
            Outcome::Classified(Class::Long) => {
                *long += 1;
                bytes.long += wire_bytes;
            }
            Outcome::Untouched(reason) => *self.by_reason.entry(reason).or_default() += 1,
        }
    }

    /// Moves the time of all; only the one that gets batches is ever swept as a whole.
    fn tick(&mut self, now_ns: u64, settle: bool) {
        self.run();
        self.batched.tick(now_ns);
        if settle {
            self.batched.settle();
        }
        self.alone.tick(now_ns);
        self.model.packet_from_wan(&[], now_ns);
        assert!(self.batched.counters().balances(), "{:?}", self.batched.counters());
    }

    fn reload(&mut self, rule: Rule) {
        self.run();
        self.batched.reload(self.start.settings(rule));
        self.alone.reload(self.start.settings(rule));
        self.model.reload(rule);
    }

    /// No packet is lost, and everyone counted the same.
    fn finish(mut self) -> Counters {
        self.run();
        self.batched.settle();
        self.alone.settle();
        let counters = self.batched.counters();
        assert!(counters.balances(), "{counters:?}");
        assert_eq!(counters, self.alone.counters(), "in batches left, alone right");
        assert_eq!(counters.received, self.packets as u64);

        self.expected.untouched = untouched_counts(&self.by_reason);
        let lives = self.model.counts();
        let flows = &mut self.expected.flows;
        (flows.created, flows.expired) = (lives.created, lives.expired);
        (flows.restarted, flows.active) = (lives.restarted, lives.active);
        flows.promoted = if self.start.ecmp { 0 } else { lives.promoted };
        assert_eq!(counters, self.expected, "gateway left, model right");
        // Two entries a bucket.
        let entries: usize =
            self.start.flows_max.iter().map(|&flows| 2 * table::buckets_for(flows)).sum();
        assert!(counters.flows.active <= entries as u64, "{counters:?}");
        counters
    }
}

impl Start {
    fn settings(&self, rule: Rule) -> Settings {
        Settings {
            rule: classifier::Rule {
                policy: match rule.policy {
                    Policy::None => classifier::Policy::None,
                    Policy::Split if self.ecmp => classifier::Policy::Ecmp,
                    Policy::Split => classifier::Policy::Split,
                },
                threshold_packets: rule.threshold_packets,
                idle_timeout_ns: rule.idle_timeout_ns,
                restart_on_syn: rule.restart_on_syn,
            },
            lanes: Lanes {
                short: Mark::new(rule.short_dscp).expect("six bits"),
                long: Mark::new(rule.long_dscp).expect("six bits"),
            },
            frame_bytes_max: self.frame_bytes_max,
        }
    }
}
