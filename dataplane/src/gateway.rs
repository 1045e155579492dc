//! The gateway without its wires: packets and their times go in, verdicts come out.
//!
//! No socket, no frame memory, no clock: the wire, a capture file, a simulator and a fuzzer all drive this
//! same code. A batch goes through three stages, each over many packets at once, so that a flow table much
//! larger than the cache is limited by how many lines the memory can fetch, not by how long one takes:
//!
//! ```text
//! parse, hash, prefetch  ->  look up and count  ->  mark
//! ```
//!
//! Inline, the gateway is a wire: what comes in on one port goes out of the other, in order. TCP from LAN to
//! WAN is classified and marked on the way, everything else is not changed by one bit.
//!
//! Accounts that always balance: received = forwarded + dropped; forwarded = short + long + untouched.

use arrayvec::ArrayVec;

use crate::batch::{Packet, PortId};
use crate::counters::Counters;
use crate::flow::classifier::{Capacity, Classifier, Policy, Rule, TcpPacket};
use crate::flow::key::{DatagramKey, FlowKey};
use crate::flow::observer::Observer;
use crate::flow::secret::Secret;
use crate::lane::Lanes;
use crate::verdict::{DropReason, Outcome, Untouched, Verdict};
use crate::wire::frame::{self, Datagram, Transport};
use crate::wire::window::Unparsed;

/// Packets that go through a stage together: enough to keep the memory busy, few enough for the cache.
const STAGE_PACKETS: usize = 32;

/// What may change while packets flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How flows become classes.
    pub rule: Rule,
    /// Where classes go.
    pub lanes: Lanes,
    /// Longest frame each port can send, in bytes; `None` when there is no limit.
    pub frame_bytes_max: [Option<u32>; 2],
}

/// What the first stage found out.
enum Parsed {
    Tcp {
        key: FlowKey,
        hash: u64,
        ip_offset: usize,
        opens_connection: bool,
        /// Set on the first of several fragments.
        first_of: Option<Datagram>,
    },
    LaterFragment {
        key: DatagramKey,
        ip_offset: usize,
    },
    Untouched(Untouched),
}

/// Classifier, lanes and counters of one worker.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    classifier: Classifier,
    counters: Counters,
    /// The latest time seen: time never runs backwards.
    now_ns: u64,
    swept_ns: u64,
}

impl Gateway {
    /// All memory that a gateway will ever use is taken here.
    pub fn new(settings: Settings, capacity: Capacity, secret: Secret) -> Self {
        Gateway {
            settings,
            classifier: Classifier::new(settings.rule, capacity, secret),
            counters: Counters::default(),
            now_ns: 0,
            swept_ns: 0,
        }
    }

    /// Decides on every packet of a batch, in order, and marks those that are classified. A packet stamped
    /// earlier than one before it is handled at the time of that one.
    pub fn process<O: Observer>(&mut self, batch: &mut [Packet<'_>], observer: &mut O) {
        for packets in batch.chunks_mut(STAGE_PACKETS) {
            let parsed: ArrayVec<Parsed, STAGE_PACKETS> =
                packets.iter().map(|packet| self.parse(packet)).collect();
            for (packet, parsed) in packets.iter_mut().zip(&parsed) {
                self.now_ns = self.now_ns.max(packet.received_ns);
                packet.outcome = self.look_up(packet, parsed, observer);
                packet.verdict = self.route(packet);
            }
            for (packet, parsed) in packets.iter_mut().zip(&parsed) {
                self.mark(packet, parsed);
                self.counters.count(packet);
            }
        }
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

    /// Other settings from the next packet on; flows keep their counts and their lane.
    pub fn reload(&mut self, settings: Settings) {
        self.classifier.set_rule(settings.rule, self.now_ns);
        self.settings = settings;
    }

    /// Everything that was counted.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.set_flows(self.classifier.counts());
        counters
    }

    #[inline(always)]
    fn parse(&self, packet: &Packet<'_>) -> Parsed {
        if packet.ingress == PortId::Wan || self.settings.rule.policy == Policy::None {
            return Parsed::Untouched(Untouched::Unclassified);
        }
        let frame = match frame::parse(packet.bytes, packet.wire_bytes as usize) {
            Ok(frame) => frame,
            Err(reason) => return Parsed::Untouched(untouched(reason)),
        };
        let flow =
            |source, destination| FlowKey::new(frame.vlans, &frame.addresses, source, destination);
        match frame.transport {
            Transport::Tcp(tcp, first_of) => {
                let key = flow(tcp.source_port, tcp.destination_port);
                Parsed::Tcp {
                    hash: self.classifier.prepare(&key),
                    key,
                    ip_offset: frame.ip_offset,
                    opens_connection: tcp.opens_connection,
                    first_of,
                }
            }
            Transport::LaterFragment(datagram) => Parsed::LaterFragment {
                key: DatagramKey::of_datagram(&flow(0, 0), datagram),
                ip_offset: frame.ip_offset,
            },
        }
    }

    #[inline(always)]
    fn look_up<O: Observer>(
        &mut self,
        packet: &Packet<'_>,
        parsed: &Parsed,
        observer: &mut O,
    ) -> Outcome {
        match parsed {
            Parsed::Tcp { key, hash, opens_connection, first_of, .. } => {
                let tcp = TcpPacket {
                    key,
                    hash: *hash,
                    opens_connection: *opens_connection,
                    wire_bytes: packet.wire_bytes,
                };
                let class = self.classifier.classify(&tcp, self.now_ns, observer);
                if let Some(datagram) = first_of {
                    let datagram = DatagramKey::of_datagram(key, *datagram);
                    self.classifier.remember_fragments(datagram, class);
                }
                Outcome::Classified(class)
            }
            Parsed::LaterFragment { key, .. } => match self.classifier.class_of_fragment(key) {
                Some(class) => Outcome::Classified(class),
                None => Outcome::Untouched(Untouched::Fragment),
            },
            Parsed::Untouched(reason) => Outcome::Untouched(*reason),
        }
    }

    #[inline(always)]
    fn route(&self, packet: &Packet<'_>) -> Verdict {
        let egress = packet.ingress.opposite();
        match self.settings.frame_bytes_max[egress.index()] {
            Some(limit) if packet.wire_bytes > limit => Verdict::Drop(DropReason::ExceedsMtu),
            _ => Verdict::Transmit(egress),
        }
    }

    #[inline(always)]
    fn mark(&self, packet: &mut Packet<'_>, parsed: &Parsed) {
        let Outcome::Classified(class) = packet.outcome else {
            return;
        };
        if let Parsed::Tcp { ip_offset, .. } | Parsed::LaterFragment { ip_offset, .. } = parsed {
            self.settings.lanes.of(class).apply(packet.bytes, *ip_offset);
        }
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
