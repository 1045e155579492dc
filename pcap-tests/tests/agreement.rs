//! The gateway and its reference model on the same random traffic, packet by packet: ten million of them.
//!
//! Compared are every outcome, every byte of every frame, where it goes, and at the end every life of
//! every flow and every counter. Frames from the WAN are mixed in, batches have any size, and the flow
//! table is swept at any moment: none of it may show.

use std::collections::HashMap;
use std::fmt::Write;

use dataplane::batch::{BATCH_MAX, Batch, Packet, PortId};
use dataplane::counters::Counters;
use dataplane::flow::classifier::{self, Capacity};
use dataplane::flow::observer::{FlowPacket, Observer};
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};
use dataplane::lane::Lanes;
use dataplane::lane::mark::Mark;
use dataplane::verdict::{Class, Outcome, Untouched, Verdict};
use pcap_tests::model::{Answer, Counts, Ending, Flow, Life, Model, Policy, Rule};
use pcap_tests::traffic::{Options, Random, Traffic};

/// Packets of each test.
const PACKETS: u64 = 1_000_000;

#[test]
fn agree_by_default() {
    agree(1, Rule::default(), options());
}

#[test]
fn agree_when_flows_are_soon_long() {
    let rule = Rule { threshold_packets: 3, fragmented_datagrams_max: 16, ..Rule::default() };
    agree(2, rule, options());
}

#[test]
fn agree_when_one_packet_is_short() {
    let rule = Rule { threshold_packets: 1, fragmented_datagrams_max: 4, ..Rule::default() };
    agree(3, rule, options());
}

#[test]
fn agree_when_nothing_is_short() {
    agree(4, Rule { threshold_packets: 0, ..Rule::default() }, options());
}

#[test]
fn agree_without_restart_on_syn() {
    let rule = Rule { restart_on_syn: false, fragmented_datagrams_max: 64, ..Rule::default() };
    agree(5, rule, options());
}

#[test]
fn agree_when_one_fragmented_datagram_is_remembered() {
    let rule = Rule { threshold_packets: 8, fragmented_datagrams_max: 1, ..Rule::default() };
    agree(6, rule, options());
}

#[test]
fn agree_from_the_beginning_of_time_with_other_code_points() {
    let rule = Rule { threshold_packets: 10, short_dscp: 63, long_dscp: 0, ..Rule::default() };
    agree(7, rule, Options { start_ns: 0, dscps: [63, 0], flows: 2000, ..Options::default() });
}

#[test]
fn agree_when_silence_is_short() {
    let rule = Rule { threshold_packets: 2, idle_timeout_ns: 1000, ..Rule::default() };
    agree(8, rule, Options { flows: 64, ..options() });
}

#[test]
fn agree_when_silence_is_long_and_flows_are_few() {
    let hour_ns = 3_600_000_000_000;
    let rule = Rule { threshold_packets: 1000, idle_timeout_ns: hour_ns, ..Rule::default() };
    agree(9, Rule { restart_on_syn: false, ..rule }, Options { flows: 16, ..options() });
}

#[test]
fn agree_when_nothing_is_looked_at() {
    agree(10, Rule { policy: Policy::None, ..Rule::default() }, options());
}

fn options() -> Options {
    Options::default()
}

/// Runs both and compares; the idle timeout of the traffic is the rule's.
fn agree(seed: u64, rule: Rule, options: Options) {
    let options = Options { idle_timeout_ns: rule.idle_timeout_ns, ..options };
    let mut traffic = Traffic::new(seed, options);
    let mut model = Model::new(rule);
    let mut gateway = gateway(seed, rule);
    let mut observed = Observed::default();
    let mut expected = Tally::default();
    // What the test itself chooses, apart from the traffic's own choices.
    let mut random = Random::new(!seed);

    let mut buffers: Vec<Vec<u8>> = (0..BATCH_MAX).map(|_| Vec::with_capacity(2048)).collect();
    let mut arrivals: Vec<Arrival> = Vec::with_capacity(BATCH_MAX);
    let mut latest_ns = 0;
    let mut number = 0;
    while number < PACKETS {
        let size = 1 + random.index(BATCH_MAX).min((PACKETS - number - 1) as usize);
        arrivals.clear();
        for buffer in &mut buffers[..size] {
            let frame = traffic.next_frame();
            buffer.clear();
            buffer.extend_from_slice(frame.kept);
            let ingress = if random.one_in(50) { PortId::Wan } else { PortId::Lan };
            let answer = match ingress {
                PortId::Lan => model.packet(frame.kept, frame.wire_bytes, frame.received_ns),
                PortId::Wan => model.packet_from_wan(frame.kept, frame.received_ns),
            };
            latest_ns = latest_ns.max(frame.received_ns);
            expected.count(&answer, frame.wire_bytes);
            arrivals.push(Arrival {
                kept: frame.kept.to_vec(),
                wire_bytes: frame.wire_bytes,
                ingress,
                received_ns: frame.received_ns,
                answer,
            });
        }

        let mut batch: Batch<'_> = buffers[..size]
            .iter_mut()
            .zip(&arrivals)
            .map(|(buffer, arrival)| {
                let Arrival { wire_bytes, ingress, received_ns, .. } = *arrival;
                Packet::cut(buffer, wire_bytes, ingress, received_ns)
            })
            .collect();
        gateway.process(&mut batch, &mut observed);
        for (packet, arrival) in batch.iter().zip(&arrivals) {
            let agrees = packet.outcome == arrival.answer.outcome
                && packet.bytes[..] == arrival.answer.frame[..]
                && packet.verdict == Verdict::Transmit(arrival.ingress.opposite());
            assert!(agrees, "{}", disagreement(seed, number, &rule, arrival, packet));
            number += 1;
        }
        if random.one_in(4) {
            gateway.tick(latest_ns);
        }
    }

    gateway.settle();
    let counters = gateway.counters();
    assert!(counters.balances(), "seed {seed}: {counters:#?}");
    compare_counters(seed, &counters, &expected, model.counts());
    compare_lives(seed, &observed.lives, model.lives());
}

fn gateway(seed: u64, rule: Rule) -> Gateway {
    let settings = Settings {
        rule: classifier::Rule {
            policy: match rule.policy {
                Policy::Split => classifier::Policy::Split,
                Policy::None => classifier::Policy::None,
            },
            threshold_packets: rule.threshold_packets,
            idle_timeout_ns: rule.idle_timeout_ns,
            restart_on_syn: rule.restart_on_syn,
        },
        lanes: Lanes {
            short: Mark::new(rule.short_dscp).expect("six bits"),
            long: Mark::new(rule.long_dscp).expect("six bits"),
        },
        frame_bytes_max: [u32::MAX; 2],
    };
    // The model forgets no flow, so there must be room for all.
    let capacity = Capacity {
        ipv4_flows_max: 1 << 16,
        ipv6_flows_max: 1 << 16,
        fragmented_datagrams_max: rule.fragmented_datagrams_max,
    };
    Gateway::new(settings, capacity, Secret::from_seed(seed))
}

/// A packet as it came in, and the model's answer.
struct Arrival {
    kept: Vec<u8>,
    wire_bytes: u32,
    ingress: PortId,
    received_ns: u64,
    answer: Answer,
}

/// Everything needed to find out who is wrong.
fn disagreement(
    seed: u64,
    number: u64,
    rule: &Rule,
    arrival: &Arrival,
    packet: &Packet<'_>,
) -> String {
    format!(
        "seed {seed}, packet {number}, from {:?} at {} ns, {} bytes kept of {}, under {rule:?}\n\
         frame:   {}\n\
         model:   {:?}\n         {}\n\
         gateway: {:?}, {:?}\n         {}",
        arrival.ingress,
        arrival.received_ns,
        arrival.kept.len(),
        arrival.wire_bytes,
        hex(&arrival.kept),
        arrival.answer.outcome,
        hex(&arrival.answer.frame),
        packet.outcome,
        packet.verdict,
        hex(&packet.bytes),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("into memory");
        hex
    })
}

/// Lives as the gateway tells of them.
#[derive(Default)]
struct Observed {
    lives: Vec<Life>,
    latest: HashMap<Flow, usize>,
}

impl Observer for Observed {
    fn packet(&mut self, packet: FlowPacket<'_>) {
        let tuple = packet.key.tuple();
        let flow = Flow {
            vlans: tuple.vlans.to_vec(),
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
        };
        if packet.begins {
            self.latest.insert(flow.clone(), self.lives.len());
            self.lives.push(Life {
                flow: flow.clone(),
                packets: 0,
                bytes: 0,
                first_ns: packet.handled_ns,
                last_ns: packet.handled_ns,
                class: Class::Short,
                promoted_at_ns: None,
                ending: Ending::Open,
            });
        }
        let life = &mut self.lives[self.latest[&flow]];
        life.packets += 1;
        life.bytes += u64::from(packet.wire_bytes);
        life.last_ns = packet.handled_ns;
        if packet.class == Class::Long && life.class == Class::Short {
            life.promoted_at_ns = Some(packet.handled_ns);
        }
        life.class = packet.class;
    }
}

fn compare_lives(seed: u64, gateway: &[Life], model: &[Life]) {
    for (index, (ours, theirs)) in gateway.iter().zip(model).enumerate() {
        // How a life ended shows in the counters; the observer is not told.
        let theirs = Life { ending: Ending::Open, ..theirs.clone() };
        assert_eq!(*ours, theirs, "seed {seed}, life {index}: gateway left, model right");
    }
    assert_eq!(gateway.len(), model.len(), "seed {seed}: lives, gateway left, model right");
}

/// What the counters should say, from the model's answers.
#[derive(Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    by_class: [u64; 2],
    bytes_by_class: [u64; 2],
    untouched: HashMap<Untouched, u64>,
}

impl Tally {
    fn count(&mut self, answer: &Answer, wire_bytes: u32) {
        self.packets += 1;
        self.bytes += u64::from(wire_bytes);
        match answer.outcome {
            Outcome::Classified(class) => {
                self.by_class[class as usize] += 1;
                self.bytes_by_class[class as usize] += u64::from(wire_bytes);
            }
            Outcome::Untouched(why) => *self.untouched.entry(why).or_default() += 1,
        }
    }

    fn untouched(&self, why: Untouched) -> u64 {
        self.untouched.get(&why).copied().unwrap_or_default()
    }
}

fn compare_counters(seed: u64, gateway: &Counters, expected: &Tally, flows: Counts) {
    let pairs = [
        ("received", gateway.received, expected.packets),
        ("forwarded", gateway.forwarded, expected.packets),
        ("short", gateway.short, expected.by_class[0]),
        ("long", gateway.long, expected.by_class[1]),
        ("non_tcp", gateway.untouched.non_tcp, expected.untouched(Untouched::NonTcp)),
        ("non_ip", gateway.untouched.non_ip, expected.untouched(Untouched::NonIp)),
        ("malformed", gateway.untouched.malformed, expected.untouched(Untouched::Malformed)),
        ("fragment", gateway.untouched.fragment, expected.untouched(Untouched::Fragment)),
        ("truncated", gateway.untouched.truncated, expected.untouched(Untouched::Truncated)),
        (
            "unclassified",
            gateway.untouched.unclassified,
            expected.untouched(Untouched::Unclassified),
        ),
        ("dropped", gateway.dropped.total(), 0),
        ("flows created", gateway.flows.created, flows.created),
        ("flows promoted", gateway.flows.promoted, flows.promoted),
        ("flows expired", gateway.flows.expired, flows.expired),
        ("flows restarted", gateway.flows.restarted, flows.restarted),
        ("flows active", gateway.flows.active, flows.active),
        ("table full", gateway.flows.table_full, 0),
        ("bytes received", gateway.bytes.received, expected.bytes),
        ("bytes forwarded", gateway.bytes.forwarded, expected.bytes),
        ("bytes short", gateway.bytes.short, expected.bytes_by_class[0]),
        ("bytes long", gateway.bytes.long, expected.bytes_by_class[1]),
    ];
    for (name, ours, theirs) in pairs {
        assert_eq!(ours, theirs, "seed {seed}: {name}, gateway left, model right");
    }
}
