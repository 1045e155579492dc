//! Routed gateways and their reference model, side by side: several configurations, any packets.
//!
//! A batch ends before the outbox could be full, and after an ICMP error about a tunnel packet. When the gateway believes
//! such an error, which the model does not know of, only invariants are checked from there on: every packet and every
//! frame is accounted for.

use std::collections::HashMap;
use std::mem;
use std::sync::LazyLock;

use dataplane::batch::{BATCH_MAX, Batch, Packet, PortId};
use dataplane::config::{Config, Routed};
use dataplane::counters::Counters;
use dataplane::flow::classifier::Capacity;
use dataplane::flow::observer::Unobserved;
use dataplane::flow::secret::Secret;
use dataplane::gateway::Gateway;
use dataplane::router::RouterCounters;
use dataplane::verdict::{Class, DropReason, Outcome, Verdict};
use dataplane::wire::buffer::Buffer;

use super::script::{Arrival, Script, Step};
use super::untouched_counts;
use crate::model::routed::{Fate, RoutedAnswer, RoutedModel, Sent, adopt_entropy};
use crate::model::{self, Flow, Kind, Policy, Rule};
use crate::replay::routed as replay;

/// Ports, neighbours and routes of all configurations.
const SITE: &str = include_str!("../../cases/routed.toml");

/// Two lanes each, and the MTU of the LAN port.
const LANES: [(&str, u32); 7] = [
    // Keys and sequence numbers over IPv4.
    (
        "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nkey = 1\ndscp = \"AF21\"\n\
         [lanes.long.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nkey = 2\nttl = 9\n\
         [gre]\nsequence = true\n",
        1500,
    ),
    // Checksums over IPv6, and nothing at all.
    (
        "[lanes.short.gre]\nlocal = \"2001:db8:9::2\"\nremote = \"2001:db8:99::2\"\nchecksum = true\nkey = 0\n\
         [lanes.long.gre]\nlocal = \"2001:db8:9::2\"\nremote = \"2001:db8:99::2\"\ndscp = 63\n",
        1400,
    ),
    // In UDP, over both.
    (
        "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\n\
         [lanes.long.gre]\nlocal = \"2001:db8:9::2\"\nremote = \"2001:db8:99::2\"\nkey = 4294967295\nchecksum = true\n\
         [gre]\nudp = true\nsequence = true\n",
        1500,
    ),
    // Small, without DF; a router beside it, with a mark.
    (
        "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nmtu = 576\ndont_fragment = false\n\
         [lanes.long]\nnext_hop = \"192.0.2.3\"\ndscp = \"AF11\"\n",
        600,
    ),
    // No tunnel.
    ("[lanes.short]\ndscp = \"EF\"\n[lanes.long]\nnext_hop = \"192.0.2.1\"\n", 1500),
    // Ends that cannot be reached: behind nothing, behind somebody who does not answer.
    (
        "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"203.0.113.2\"\nchecksum = true\n\
         [lanes.long.gre]\nlocal = \"192.0.2.2\"\nremote = \"192.0.2.5\"\nsequence = true\n",
        1500,
    ),
    // Nothing that a packet has to be asked for: the express. The longer lane is too small for some.
    (
        "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\ndscp = \"AF21\"\n\
         [lanes.long.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nkey = 2\nmtu = 1000\n",
        1500,
    ),
];

/// How many configurations there are.
pub const CONFIGURATIONS: usize = LANES.len();

/// One of them.
///
/// # Panics
///
/// When there are not so many.
pub fn configuration(number: usize) -> Config {
    CONFIGS[number].clone()
}

/// All of them, read once.
static CONFIGS: LazyLock<Vec<Config>> =
    LazyLock::new(|| (0..CONFIGURATIONS).map(read_configuration).collect());

fn read_configuration(number: usize) -> Config {
    let (lanes, lan_mtu_bytes) = LANES[number];
    // The LAN port is the first that says one.
    let site = SITE.replacen("mtu = 1500", &format!("mtu = {lan_mtu_bytes}"), 1);
    Config::parse("routed.toml", &(site + lanes))
        .unwrap_or_else(|error| panic!("{number}: {error}"))
}

/// A gateway and its model.
#[derive(Debug)]
pub struct RoutedContest {
    gateway: Gateway,
    model: RoutedModel,
    /// Whether the model still knows what the gateway knows.
    is_comparable: bool,
    waiting: Vec<(Arrival, RoutedAnswer)>,
    expected: Counters,
    reasons: HashMap<DropReason, u64>,
    by_untouched: HashMap<dataplane::verdict::Untouched, u64>,
    entropy: HashMap<(Flow, Class), u32>,
    frames: u64,
}

impl RoutedContest {
    /// Both as one of the configurations says, with room for so many flows of each IP version: more than will come.
    pub fn new(number: usize, rule: Rule, flows_max: usize) -> Self {
        assert!(rule.policy == Policy::Split, "the model of routed mode classifies");
        let mut config = configuration(number);
        config.rule.threshold_packets = rule.threshold_packets;
        config.rule.idle_timeout_ns = rule.idle_timeout_ns;
        config.rule.restart_on_syn = rule.restart_on_syn;
        config.capacity = Capacity {
            ipv4_flows_max: flows_max,
            ipv6_flows_max: flows_max,
            fragmented_datagrams_max: rule.fragmented_datagrams_max,
        };
        RoutedContest {
            gateway: replay::gateway(&config, Secret::from_seed(number as u64))
                .expect("ports are told"),
            model: RoutedModel::new(rule, routed_of(&config)),
            is_comparable: true,
            waiting: Vec::with_capacity(BATCH_MAX),
            expected: Counters::default(),
            reasons: HashMap::new(),
            by_untouched: HashMap::new(),
            entropy: HashMap::new(),
            frames: 0,
        }
    }

    /// The next packet. `kept` of its `wire_bytes` are at hand.
    pub fn packet(&mut self, kept: Vec<u8>, wire_bytes: u32, ingress: PortId, received_ns: u64) {
        self.arrive(Arrival { kept, wire_bytes, ingress, received_ns });
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let Arrival { kept, wire_bytes, ingress, received_ns } = &arrival;
        let wire_bytes = (*wire_bytes).max(kept.len() as u32);
        let answer = self.model.packet(*ingress, kept, wire_bytes, *received_ns);
        let is_path_error = answer.fate == Fate::Dropped(DropReason::PathError);
        self.waiting.push((Arrival { wire_bytes, ..arrival }, answer));
        if self.waiting.len() == BATCH_MAX || self.model.in_outbox() > 100 || is_path_error {
            self.run();
        }
    }

    /// Moves the gateway's time on; the model has none of its own.
    pub fn tick(&mut self, now_ns: u64) {
        self.run();
        self.gateway.tick(now_ns);
        self.model.packet(PortId::Wan, &[], 0, now_ns);
        self.expected.received += 1;
        let mut nothing = [Packet::cut(Buffer::from(&mut [][..]), 0, PortId::Wan, now_ns)];
        self.gateway.process(&mut nothing, &mut Unobserved);
        let Verdict::Drop(reason) = nothing[0].verdict else { panic!("nothing was forwarded") };
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// Everything that waits, in one batch.
    pub fn run(&mut self) {
        let waiting = mem::take(&mut self.waiting);
        let mut storage: Vec<Vec<u8>> =
            waiting.iter().map(|(arrival, _)| [&arrival.kept[..], &[0xee; 64]].concat()).collect();
        let mut batch: Batch<'_> = storage
            .iter_mut()
            .zip(&waiting)
            .map(|(storage, (arrival, _))| {
                let buffer = Buffer::new(storage, arrival.kept.len());
                Packet::cut(buffer, arrival.wire_bytes, arrival.ingress, arrival.received_ns)
            })
            .collect();
        self.gateway.process(&mut batch, &mut Unobserved);
        let outbox = self.gateway.router().expect("it is routed").outbox();
        let made: Vec<(PortId, Vec<u8>, u32)> =
            outbox.frames().map(|(port, bytes, wire)| (port, bytes.to_vec(), wire)).collect();
        outbox.clear();
        self.model.empty_outbox();
        self.frames += made.len() as u64;
        let was_comparable = self.is_comparable;
        let lowered = self.routed().path_mtu_lowered;
        self.is_comparable &= lowered == 0;
        let mut made = made.into_iter();
        for (packet, (arrival, answer)) in batch.iter().zip(&waiting) {
            self.frames += u64::from(matches!(packet.verdict, Verdict::Transmit(_)));
            if was_comparable {
                self.judge(arrival, answer, packet);
                for sent in &answer.made {
                    let (port, bytes, wire_bytes) = made.next().unwrap_or_else(|| {
                        panic!("not made: {sent:02x?}\nabout: {arrival:02x?}");
                    });
                    self.compare(arrival, sent, port, &bytes, wire_bytes);
                }
                self.count(arrival, answer);
            }
        }
        let more = made.next();
        assert!(more.is_none() || !self.is_comparable, "made: {more:02x?}");
        self.check_accounts();
    }

    fn routed(&self) -> RouterCounters {
        self.gateway.counters().routed.expect("it is routed")
    }

    fn judge(&mut self, arrival: &Arrival, answer: &RoutedAnswer, packet: &Packet<'_>) {
        assert_eq!(packet.outcome, answer.outcome, "gateway left, model right: {arrival:02x?}");
        match &answer.fate {
            Fate::Dropped(reason) => {
                let expected = Verdict::Drop(*reason);
                assert_eq!(packet.verdict, expected, "gateway left, model right: {arrival:02x?}");
            }
            Fate::InPieces { .. } => {
                assert_eq!(packet.verdict, Verdict::Replace, "gateway left: {arrival:02x?}");
            }
            Fate::Sent(sent) => {
                let Verdict::Transmit(port) = packet.verdict else {
                    panic!("{:?}, not {sent:02x?}: {arrival:02x?}", packet.verdict);
                };
                let entropy = self.compare(arrival, sent, port, &packet.bytes, packet.wire_bytes);
                self.note_entropy(arrival, answer.outcome, entropy);
            }
        }
    }

    /// A frame that left, against the model's; returns what told its flow apart.
    fn compare(
        &self,
        arrival: &Arrival,
        sent: &Sent,
        port: PortId,
        bytes: &[u8],
        wire_bytes: u32,
    ) -> Option<u32> {
        let mut frame = sent.frame.clone();
        let entropy = if sent.is_tunnelled { adopt_entropy(&mut frame, bytes) } else { None };
        assert!(
            entropy.is_some() == sent.is_tunnelled,
            "no entropy: {bytes:02x?} of {arrival:02x?}"
        );
        assert_eq!(
            (port, bytes, wire_bytes),
            (sent.port, &frame[..], sent.wire_bytes),
            "gateway left, model right: {arrival:02x?}"
        );
        entropy
    }

    /// All packets of a flow look alike to who tells flows apart, as long as they are in one lane.
    fn note_entropy(&mut self, arrival: &Arrival, outcome: Outcome, entropy: Option<u32>) {
        let (Some(entropy), Outcome::Classified(class)) = (entropy, outcome) else { return };
        let parsed = model::parse(&arrival.kept, arrival.wire_bytes as usize);
        let Ok(Kind::Tcp { flow, .. }) = parsed.map(|parsed| parsed.kind) else { return };
        let known = *self.entropy.entry((flow, class)).or_insert(entropy);
        assert_eq!(entropy, known, "a flow changed its entropy: {arrival:02x?}");
    }

    fn count(&mut self, arrival: &Arrival, answer: &RoutedAnswer) {
        let expected = &mut self.expected;
        expected.received += 1;
        expected.bytes.received += u64::from(arrival.wire_bytes);
        let wire_bytes = match &answer.fate {
            Fate::Dropped(reason) => {
                *self.reasons.entry(*reason).or_default() += 1;
                return;
            }
            Fate::Sent(sent) => u64::from(sent.wire_bytes),
            Fate::InPieces { wire_bytes } => u64::from(*wire_bytes),
        };
        expected.forwarded += 1;
        expected.bytes.forwarded += wire_bytes;
        match answer.outcome {
            Outcome::Classified(Class::Short) => {
                expected.short += 1;
                expected.bytes.short += wire_bytes;
            }
            Outcome::Classified(Class::Long) => {
                expected.long += 1;
                expected.bytes.long += wire_bytes;
            }
            Outcome::Untouched(reason) => *self.by_untouched.entry(reason).or_default() += 1,
        }
    }

    /// What holds whatever came.
    fn check_accounts(&self) {
        let counters = self.gateway.counters();
        assert!(counters.balances(), "{counters:?}");
        assert_eq!(self.frames, replay::frames_sent(&counters), "frames sent left: {counters:?}");
        assert_eq!(counters.flows.table_full, 0, "there is room for every flow");
        let routed = counters.routed.expect("it is routed");
        assert_eq!(counters.dropped.refused, routed.refused.total());
    }

    /// Every counter; returns what the gateway counted, and whether the model knew everything to the end.
    pub fn finish(mut self) -> (Counters, bool) {
        self.run();
        self.gateway.settle();
        let counters = self.gateway.counters();
        if !self.is_comparable {
            return (counters, false);
        }
        let mut expected = self.expected;
        let dropped = serde_json::to_value(counters.dropped).expect("numbers by name");
        for (reason, count) in &self.reasons {
            let name = serde_json::to_value(reason).expect("a name");
            let name = name.as_str().expect("a name");
            assert_eq!(dropped[name].as_u64(), Some(*count), "{name}: gateway left, model right");
        }
        assert_eq!(counters.dropped.total(), self.reasons.values().sum::<u64>());
        expected.dropped = counters.dropped;
        expected.untouched = untouched_counts(&self.by_untouched);
        let lives = self.model.classes().counts();
        expected.flows.created = lives.created;
        expected.flows.expired = lives.expired;
        expected.flows.restarted = lives.restarted;
        expected.flows.active = lives.active;
        expected.flows.promoted = lives.promoted;
        let ours = counters.routed.expect("it is routed");
        let mut theirs = self.model.counters();
        // Not the model's.
        for (lane, ours) in theirs.lanes.iter_mut().zip(&ours.lanes) {
            lane.sequence = ours.sequence;
        }
        theirs.path_errors_refused = ours.path_errors_refused;
        assert_eq!(ours.path_errors_refused.total(), counters.dropped.path_error);
        expected.routed = Some(theirs);
        assert_eq!(counters, expected, "gateway left, model right");
        (counters, true)
    }
}

fn routed_of(config: &Config) -> &Routed {
    config.routed.as_ref().expect("the mode is routed")
}

/// Packets of one script; what comes after them is not read.
const PACKETS_MAX: usize = 200;

/// A byte that picks a configuration, then a script as [`process`](super::process) takes it, of which reloads are passed
/// over. Returns what was counted.
pub fn routed(input: &[u8]) -> Counters {
    let Some((number, input)) = input.split_first() else { return Counters::default() };
    let mut script = Script::new(input);
    let Some(start) = script.start() else { return Counters::default() };
    let rule = Rule { policy: Policy::Split, ..start.rule };
    let mut contest = RoutedContest::new(usize::from(*number) % CONFIGURATIONS, rule, 1024);
    let mut packets = 0;
    while packets < PACKETS_MAX
        && let Some(step) = script.step()
    {
        match step {
            Step::Packets(arrival, times) => {
                for _ in 0..times.min(PACKETS_MAX - packets) {
                    contest.arrive(arrival.clone());
                    packets += 1;
                }
            }
            Step::EndOfBatch => contest.run(),
            Step::Tick { now_ns, .. } => contest.tick(now_ns),
            Step::Reload(_) => {}
        }
    }
    contest.finish().0
}
