//! The gateway without its wires: packets and their times go in, verdicts come out.
//!
//! No socket, no frame memory, no clock: the wire, a capture file, a simulator and a fuzzer all drive this
//! same code. A batch goes through three stages, a group of packets at a time. While one group is in the last
//! stage, the memory fetches what the next two will need, so that a flow table much larger than the cache costs
//! what the processor would have to do anyway:
//!
//! ```text
//! parse, hash, prefetch  ->  locate, prefetch  ->  look up and count, mark or route
//!      group n + 2              group n + 1                   group n
//! ```
//!
//! Inline, the gateway is a wire: what comes in on one port goes out of the other, in order. TCP from LAN to
//! WAN is classified and marked on the way, everything else is not changed by one bit. Routed, the last stage
//! is the [`Router`]'s.
//!
//! Accounts that always balance: received = forwarded + dropped + waiting; forwarded = short + long + untouched.

use crate::batch::{Packet, PortId};
use crate::counters::Counters;
use crate::flow::classifier::{Capacity, Classifier, Policy, Rule};
use crate::flow::key;
use crate::flow::observer::Observer;
use crate::flow::secret::Secret;
use crate::flow::slice::{KnownFlow, Restored, Slice};
use crate::lane::Lanes;
use crate::router::Router;
use crate::verdict::{DropReason, Outcome, Untouched, Verdict};
use crate::wire::frame::{Frame, Transport};
use crate::wire::window::Unparsed;

/// Packets that go through a stage together.
const GROUP_PACKETS: usize = 16;
/// Groups between the first stage and the end of the last.
const GROUPS: usize = 3;

/// A group of packets between two stages.
type Group = [Staged; GROUP_PACKETS];

/// What may change while packets flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How flows become classes.
    pub rule: Rule,
    /// Where classes go.
    pub lanes: Lanes,
    /// Longest frame each port can send, in bytes; `u32::MAX` when there is no limit.
    pub frame_bytes_max: [u32; 2],
}

/// A packet between two stages.
#[derive(Debug, Clone, Copy)]
struct Staged {
    /// Valid when there is no reason to leave the packet untouched.
    frame: Frame,
    hash: u64,
    bucket: usize,
    untouched: Option<Untouched>,
}

/// Classifier, lanes and counters of one worker.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    classifier: Classifier,
    counters: Counters,
    /// Taken in turn.
    groups: Box<[Group; GROUPS]>,
    /// In routed mode.
    router: Option<Box<Router>>,
    /// The latest time seen: time never runs backwards.
    now_ns: u64,
    swept_ns: u64,
}

impl Gateway {
    /// All memory that a gateway will ever use is taken here.
    pub fn new(settings: Settings, capacity: Capacity, secret: Secret) -> Self {
        let nothing = Staged { frame: Frame::default(), hash: 0, bucket: 0, untouched: None };
        Gateway {
            settings,
            classifier: Classifier::new(settings.rule, capacity, secret),
            counters: Counters::default(),
            groups: Box::new([[nothing; GROUP_PACKETS]; GROUPS]),
            router: None,
            now_ns: 0,
            swept_ns: 0,
        }
    }

    /// The same in routed mode.
    pub fn with_router(mut self, router: Router) -> Self {
        self.router = Some(Box::new(router));
        self
    }

    /// What routes its packets, in routed mode.
    pub fn router(&mut self) -> Option<&mut Router> {
        self.router.as_deref_mut()
    }

    /// Decides on every packet of a batch, in order, and marks those that are classified. A packet stamped
    /// earlier than one before it is handled at the time of that one.
    pub fn process<O: Observer>(&mut self, batch: &mut [Packet<'_>], observer: &mut O) {
        let groups = batch.len().div_ceil(GROUP_PACKETS);
        for step in 0..groups + GROUPS - 1 {
            if step < groups {
                self.parse(step, group_of(batch, step));
            }
            if let Some(number) = step.checked_sub(1).filter(|&number| number < groups) {
                self.locate(number, group_of(batch, number).len());
            }
            if let Some(number) = step.checked_sub(2) {
                self.decide(number, group_of(batch, number), observer);
            }
        }
        if let Some(router) = &mut self.router {
            router.settle();
        }
        self.counters.count(batch);
    }

    /// A packet that waited was sent after all, or was given up.
    pub fn count_waited(&mut self, outcome: Outcome, wire_bytes: u32, sent: bool) {
        self.counters.count_waited(outcome, wire_bytes, sent);
    }

    /// A packet that was decided on could not be handed over to its worker.
    pub fn count_not_handed_over(&mut self, outcome: Outcome, wire_bytes: u32) {
        self.counters.count_not_handed_over(outcome, wire_bytes);
    }

    /// Ages a part of the flow table; called now and then. Changes no classification.
    pub fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let since_ns = self.now_ns - self.swept_ns;
        let whole_ns = self.settings.rule.idle_timeout_ns;
        // The whole table once every idle timeout, in parts of at most 1/256 so that no tick takes long.
        let share = (u128::from(since_ns) << 16) / u128::from(whole_ns);
        self.classifier.sweep(self.now_ns, share.min(256) as u32);
        self.swept_ns = self.now_ns;
    }

    /// Ages the whole flow table, so that the counters say what is true at the time of the last packet.
    pub fn settle(&mut self) {
        self.classifier.sweep(self.now_ns, 1 << 16);
    }

    /// Buckets of the flow tables: what a walk of slices goes through.
    pub fn buckets(&self) -> usize {
        self.classifier.buckets()
    }

    /// Fills a slice with the flows of its next buckets.
    pub fn fill(&self, slice: &mut Slice) {
        self.classifier.fill(slice, self.now_ns);
    }

    /// Puts a flow back as it was before a restart. It is `now_ns` now; the flow's time is by the same clock.
    pub fn restore(&mut self, flow: &KnownFlow, now_ns: u64) -> Restored {
        self.now_ns = self.now_ns.max(now_ns);
        self.classifier.restore(flow, self.now_ns)
    }

    /// Other settings from the next packet on; flows keep their counts and their lane.
    pub fn reload(&mut self, settings: Settings) {
        self.classifier.set_rule(settings.rule, self.now_ns);
        self.settings = settings;
    }

    /// Everything that was counted.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.set_flows(self.classifier.counts());
        counters.routed = self.router.as_ref().map(|router| router.counters());
        counters
    }

    /// Every first bucket that the next stage will look into is on its way when this is done.
    fn parse(&mut self, number: usize, packets: &[Packet<'_>]) {
        let nothing = self.settings.rule.policy == Policy::None;
        let group = &mut self.groups[number % GROUPS];
        for (packet, staged) in packets.iter().zip(group) {
            // A router wants to know of every packet from the LAN whether its headers are sound.
            if nothing && self.router.is_none() || packet.ingress == PortId::Wan {
                staged.untouched = Some(Untouched::Unclassified);
                continue;
            }
            let parsed = staged.frame.parse(&packet.bytes, packet.wire_bytes as usize);
            staged.untouched = match parsed {
                Ok(()) if nothing => Some(Untouched::Unclassified),
                parsed => parsed.err().map(untouched),
            };
            if staged.untouched.is_none() {
                staged.hash = self.classifier.prepare(&staged.frame);
            }
        }
    }

    /// The same of the bucket that a flow is in.
    fn locate(&mut self, number: usize, packets: usize) {
        for staged in &mut self.groups[number % GROUPS][..packets] {
            if staged.untouched.is_none() {
                staged.bucket = self.classifier.locate(&staged.frame, staged.hash);
            }
        }
    }

    fn decide<O: Observer>(&mut self, number: usize, packets: &mut [Packet<'_>], observer: &mut O) {
        let mut now_ns = self.now_ns;
        let mut received_bytes = 0;
        let group = &self.groups[number % GROUPS];
        for (index, (packet, staged)) in packets.iter_mut().zip(group).enumerate() {
            now_ns = now_ns.max(packet.received_ns);
            received_bytes += u64::from(packet.wire_bytes);
            packet.outcome = match staged.untouched {
                Some(reason) => Outcome::Untouched(reason),
                None => classify(&mut self.classifier, staged, packet, now_ns, observer),
            };
            match &mut self.router {
                None => forward(&self.settings, packet, staged.frame.ip_offset),
                Some(router) => {
                    let position = number * GROUP_PACKETS + index;
                    router.route(packet, position, staged.frame.ip_offset, staged.hash, now_ns);
                }
            }
        }
        self.now_ns = now_ns;
        self.counters.bytes.received += received_bytes;
    }
}

/// One of a batch's groups, all of which but the last are full.
#[inline(always)]
fn group_of<'b, 'a>(batch: &'b mut [Packet<'a>], number: usize) -> &'b mut [Packet<'a>] {
    let first = number * GROUP_PACKETS;
    let end = batch.len().min(first + GROUP_PACKETS);
    &mut batch[first..end]
}

/// What a wire does: a packet leaves by the other port, marked if it has a class.
#[inline(always)]
fn forward(settings: &Settings, packet: &mut Packet<'_>, ip_offset: usize) {
    if let Outcome::Classified(class) = packet.outcome {
        settings.lanes.of(class).apply(&mut packet.bytes, ip_offset);
    }
    let egress = packet.ingress.opposite();
    packet.verdict = if packet.wire_bytes > settings.frame_bytes_max[egress.index()] {
        Verdict::Drop(DropReason::ExceedsMtu)
    } else {
        Verdict::Transmit(egress)
    };
}

#[inline(always)]
fn classify<O: Observer>(
    classifier: &mut Classifier,
    staged: &Staged,
    packet: &Packet<'_>,
    now_ns: u64,
    observer: &mut O,
) -> Outcome {
    let Staged { frame, hash, bucket, .. } = staged;
    if frame.transport == Transport::LaterFragment {
        return match classifier.class_of_fragment(&key::datagram_of(frame)) {
            Some(class) => Outcome::Classified(class),
            None => Outcome::Untouched(Untouched::Fragment),
        };
    }
    let class = classifier.classify(frame, (*hash, *bucket), packet.wire_bytes, now_ns, observer);
    if frame.transport == Transport::FirstFragment {
        classifier.remember_fragments(key::datagram_of(frame), class);
    }
    Outcome::Classified(class)
}

fn untouched(reason: Unparsed) -> Untouched {
    match reason {
        Unparsed::NonTcp => Untouched::NonTcp,
        Unparsed::NonIp => Untouched::NonIp,
        Unparsed::Malformed => Untouched::Malformed,
        Unparsed::Truncated => Untouched::Truncated,
    }
}

/// What the reference model does not cover: reloads, a full table, ECMP, frames that are too long.
#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::flow::observer::Unobserved;
    use crate::lane::mark::Mark;
    use crate::verdict::Class;

    const SECOND_NS: u64 = 1_000_000_000;

    fn settings() -> Settings {
        Settings {
            rule: Rule {
                policy: Policy::Split,
                threshold_packets: 2,
                idle_timeout_ns: 30 * SECOND_NS,
                restart_on_syn: true,
            },
            lanes: Lanes { short: Mark::new(18).unwrap(), long: Mark::new(10).unwrap() },
            frame_bytes_max: [u32::MAX; 2],
        }
    }

    fn gateway(settings: Settings, ipv4_flows_max: usize) -> Gateway {
        let capacity =
            Capacity { ipv4_flows_max, ipv6_flows_max: 10, fragmented_datagrams_max: 10 };
        Gateway::new(settings, capacity, Secret::from_seed(1))
    }

    fn frame(flow: u32, payload_bytes: usize) -> Vec<u8> {
        let [_, a, b, c] = flow.to_be_bytes();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, a, b, c], [192, 0, 2, 1], 64)
            .tcp(1000, 443, 7, 100);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &vec![0; payload_bytes]).unwrap();
        bytes
    }

    /// One packet of a flow from the LAN; what became of it, and its DSCP afterwards.
    fn send(gateway: &mut Gateway, flow: u32, now_ns: u64) -> (Outcome, u8) {
        let mut bytes = frame(flow, 10);
        let mut batch = [Packet::new(&mut bytes, PortId::Lan, now_ns)];
        gateway.process(&mut batch, &mut Unobserved);
        let outcome = batch[0].outcome;
        assert_eq!(batch[0].verdict, Verdict::Transmit(PortId::Wan));
        assert!(gateway.counters().balances());
        (outcome, bytes[15] >> 2)
    }

    const SHORT: (Outcome, u8) = (Outcome::Classified(Class::Short), 18);
    const LONG: (Outcome, u8) = (Outcome::Classified(Class::Long), 10);

    #[test]
    fn a_reload_keeps_counts_and_lanes_of_flows() {
        let mut gateway = gateway(settings(), 100);
        assert_eq!([1, 2, 3].map(|n| send(&mut gateway, 7, n)), [SHORT, SHORT, LONG]);
        assert_eq!([4, 5].map(|n| send(&mut gateway, 8, n)), [SHORT, SHORT]);
        let mut higher = settings();
        higher.rule.threshold_packets = 3;
        higher.lanes.long = Mark::new(1).unwrap();
        gateway.reload(higher);
        let long = (LONG.0, 1);
        assert_eq!(send(&mut gateway, 7, 6), long, "once long, long");
        assert_eq!([7, 8].map(|n| send(&mut gateway, 8, n)), [SHORT, long], "counted on");
    }

    #[test]
    fn a_longer_timeout_does_not_revive_a_flow_that_had_ended() {
        for swept in [false, true] {
            let mut gateway = gateway(settings(), 100);
            for now_ns in [1, 2, 3] {
                send(&mut gateway, 7, now_ns);
            }
            send(&mut gateway, 8, 40 * SECOND_NS);
            if swept {
                gateway.settle();
            }
            let mut longer = settings();
            longer.rule.idle_timeout_ns = 60 * SECOND_NS;
            gateway.reload(longer);
            assert_eq!(send(&mut gateway, 7, 41 * SECOND_NS), SHORT, "swept: {swept}");
            assert_eq!(send(&mut gateway, 8, 90 * SECOND_NS), SHORT, "50 s are no silence now");
            assert_eq!(send(&mut gateway, 8, 90 * SECOND_NS), LONG);
        }
    }

    #[test]
    fn a_full_table_keeps_known_flows_and_forwards_unknown_ones_short() {
        let mut gateway = gateway(settings(), 100);
        for _ in 0..3 {
            send(&mut gateway, 7, 1);
        }
        for flow in 1000..3000 {
            assert_eq!(send(&mut gateway, flow, 2), SHORT);
        }
        let counters = gateway.counters();
        assert!(counters.flows.table_full > 1600, "{counters:?}");
        assert!(counters.flows.active <= 300, "{counters:?}");
        assert_eq!(send(&mut gateway, 7, 3), LONG);
        assert_eq!(send(&mut gateway, 5000, 3), SHORT);
        assert_eq!(send(&mut gateway, 5000, 3), SHORT);
        assert_eq!(send(&mut gateway, 5000, 3), SHORT, "without state nothing is counted");
        assert_eq!(send(&mut gateway, 5000, 31 * SECOND_NS), SHORT, "the others have ended");
        assert_eq!(gateway.counters().flows.table_full, counters.flows.table_full + 3);
    }

    #[test]
    fn ecmp_spreads_flows_evenly_and_keeps_each_in_its_lane() {
        let mut ecmp = settings();
        ecmp.rule.policy = Policy::Ecmp;
        let mut gateway = gateway(ecmp, 10_000);
        let first: Vec<_> = (0..4000).map(|flow| send(&mut gateway, flow, 1)).collect();
        let long = first.iter().filter(|lane| **lane == LONG).count();
        assert!((1850..2150).contains(&long), "{long} of 4000");
        for round in 2..5 {
            for (flow, lane) in first.iter().enumerate() {
                assert_eq!(send(&mut gateway, flow as u32, round), *lane);
            }
        }
        assert_eq!(gateway.counters().flows.promoted, 0);
    }

    #[test]
    fn spray_takes_the_lanes_in_turn_with_and_without_state() {
        let mut spray = settings();
        spray.rule.policy = Policy::Spray;
        let mut gateway = gateway(spray, 2);
        let lanes: Vec<_> = (0..400).map(|n| send(&mut gateway, n % 100, 1)).collect();
        assert!(lanes.chunks(2).all(|pair| pair == [LONG, SHORT]), "{lanes:?}");
        let flows = gateway.counters().flows;
        assert!(flows.created > 0 && flows.table_full > 0 && flows.promoted == 0, "{flows:?}");
    }

    #[test]
    fn a_frame_too_long_for_the_far_port_is_dropped_and_counted() {
        let mut limited = settings();
        limited.frame_bytes_max = [100, 200];
        let mut gateway = gateway(limited, 10);
        let mut verdict = |length: usize, ingress| {
            let mut bytes = frame(1, length - 54);
            let mut batch = [Packet::new(&mut bytes, ingress, 1)];
            gateway.process(&mut batch, &mut Unobserved);
            batch[0].verdict
        };
        let dropped = Verdict::Drop(DropReason::ExceedsMtu);
        assert_eq!(verdict(200, PortId::Lan), Verdict::Transmit(PortId::Wan));
        assert_eq!(verdict(201, PortId::Lan), dropped);
        assert_eq!(verdict(100, PortId::Wan), Verdict::Transmit(PortId::Lan));
        assert_eq!(verdict(101, PortId::Wan), dropped);
        let counters = gateway.counters();
        assert_eq!(
            (counters.received, counters.forwarded, counters.dropped.exceeds_mtu),
            (4, 2, 2)
        );
        assert!(counters.balances());
    }
}
