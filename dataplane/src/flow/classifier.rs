//! The rule: what class is this packet?
//!
//! A flow is one direction of a TCP connection. Its first `threshold_packets` packets are short, those after
//! them long; once long it stays long until it has been silent for more than `idle_timeout` or, with
//! `restart_on_syn`, opens again. This is Algorithm 1 of arXiv:2406.12567, made exact.

use serde::{Deserialize, Serialize};

use super::fragments::Fragments;
use super::key::{DatagramKey, FlowKey, Ipv4Key, Ipv6Key};
use super::observer::{FlowPacket, Observer};
use super::secret::Secret;
use super::slice::{KnownFlow, Restored, Slice};
use super::table::{Entry, Population, Table, Touched};
use crate::verdict::Class;
use crate::wire::frame::{Frame, Version};

/// How flows become classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Short up to the threshold, long after it.
    Split,
    /// A hash of the flow picks the class, evenly: equal-cost multipath, the baseline.
    Ecmp,
    /// Packets take the classes in turn, whatever their flow: a baseline that reorders.
    Spray,
    /// No class: nothing is looked at.
    None,
}

/// The rule's parameters; they may change while flows live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// How flows become classes.
    pub policy: Policy,
    /// The first packets of a flow, as many as this, are short.
    pub threshold_packets: u32,
    /// A flow silent for longer than this has ended.
    pub idle_timeout_ns: u64,
    /// Whether a SYN without ACK ends the flow and starts a new one.
    pub restart_on_syn: bool,
}

/// How much state there may be; fixed when a classifier is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// IPv4 flows the table is made for.
    pub ipv4_flows_max: usize,
    /// IPv6 flows the table is made for.
    pub ipv6_flows_max: usize,
    /// Fragmented datagrams that are remembered.
    pub fragmented_datagrams_max: usize,
}

/// What happened to flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// How they came and went, both IP versions together.
    pub population: Population,
    /// Lives that became long.
    pub promoted: u64,
    /// Packets of flows for which there was no room; forwarded short.
    pub table_full: u64,
}

/// Flow tables, fragment memory and the rule.
#[derive(Debug)]
pub struct Classifier {
    rule: Rule,
    /// Entries last seen before this had ended when the idle timeout was last changed.
    ended_before_ns: u64,
    ipv4: Table<2>,
    ipv6: Table<6>,
    fragments: Fragments,
    promoted: u64,
    table_full: u64,
    /// Packets sprayed.
    sprayed: u64,
}

impl Classifier {
    /// All memory is taken here.
    pub fn new(rule: Rule, capacity: Capacity, secret: Secret) -> Self {
        Classifier {
            rule,
            ended_before_ns: 0,
            ipv4: Table::new(capacity.ipv4_flows_max, secret.clone()),
            ipv6: Table::new(capacity.ipv6_flows_max, secret.clone()),
            fragments: Fragments::new(capacity.fragmented_datagrams_max, secret),
            promoted: 0,
            table_full: 0,
            sprayed: 0,
        }
    }

    /// The rule in force.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Another rule from `now_ns` on. Flows keep their counts and their lane; what has ended stays ended.
    pub fn set_rule(&mut self, rule: Rule, now_ns: u64) {
        self.ended_before_ns = self.horizon_ns(now_ns);
        self.rule = rule;
    }

    /// What happened to flows so far.
    pub fn counts(&self) -> FlowCounts {
        let [v4, v6] = [self.ipv4.population(), self.ipv6.population()];
        FlowCounts {
            population: Population {
                created: v4.created + v6.created,
                expired: v4.expired + v6.expired,
                restarted: v4.restarted + v6.restarted,
                occupied: v4.occupied + v6.occupied,
                restored: v4.restored + v6.restored,
            },
            promoted: self.promoted,
            table_full: self.table_full,
        }
    }

    /// Hashes the flow of a frame and asks the memory for its first bucket.
    #[inline(always)]
    pub fn prepare(&self, frame: &Frame) -> u64 {
        match frame.version {
            Version::V4 => self.ipv4.prefetch(Ipv4Key::of(frame)),
            Version::V6 => self.ipv6.prefetch(Ipv6Key::of(frame)),
        }
    }

    /// Where the flow of a frame is, if it is anywhere, given its hash; asks the memory for it.
    #[inline(always)]
    pub fn locate(&self, frame: &Frame, hash: u64) -> usize {
        match frame.version {
            Version::V4 => self.ipv4.locate(Ipv4Key::of(frame), hash),
            Version::V6 => self.ipv6.locate(Ipv6Key::of(frame), hash),
        }
    }

    /// The class of a frame with a TCP header, which is counted as a packet of its flow. `hash` and `bucket`
    /// are what [`Classifier::prepare`] and [`Classifier::locate`] said.
    #[inline(always)]
    pub fn classify<O: Observer>(
        &mut self,
        frame: &Frame,
        (hash, bucket): (u64, usize),
        wire_bytes: u32,
        now_ns: u64,
        observer: &mut O,
    ) -> Class {
        let horizon_ns = self.horizon_ns(now_ns);
        let restart = frame.opens_connection && self.rule.restart_on_syn;
        if self.rule.policy == Policy::Spray {
            self.sprayed += 1;
        }
        let (rule, promoted, turn) = (&self.rule, &mut self.promoted, self.sprayed);
        let decided = match frame.version {
            Version::V4 => self
                .ipv4
                .touch(Ipv4Key::of(frame), hash, bucket, now_ns, horizon_ns, restart)
                .map(|touched| decide(rule, promoted, hash, turn, touched)),
            Version::V6 => self
                .ipv6
                .touch(Ipv6Key::of(frame), hash, bucket, now_ns, horizon_ns, restart)
                .map(|touched| decide(rule, promoted, hash, turn, touched)),
        };
        let Some((class, begins)) = decided else {
            self.table_full += 1;
            return match self.rule.policy {
                Policy::Ecmp => even(hash),
                Policy::Spray => even(turn),
                Policy::Split | Policy::None => Class::Short,
            };
        };
        let key = match frame.version {
            Version::V4 => FlowKey::V4(Ipv4Key::of(frame)),
            Version::V6 => FlowKey::V6(Ipv6Key::of(frame)),
        };
        observer.packet(FlowPacket { key: &key, begins, class, wire_bytes, handled_ns: now_ns });
        class
    }

    /// Remembers the class of a first fragment for those that follow it.
    pub fn remember_fragments(&mut self, datagram: DatagramKey, class: Class) {
        self.fragments.remember(datagram, class);
    }

    /// The class of a later fragment, when its first fragment is known.
    pub fn class_of_fragment(&self, datagram: &DatagramKey) -> Option<Class> {
        self.fragments.find(datagram)
    }

    /// Sweeps the given share of the tables, in 1/65536; it never changes a classification.
    pub fn sweep(&mut self, now_ns: u64, share: u32) {
        let horizon_ns = self.horizon_ns(now_ns);
        let part = |buckets: usize| ((buckets as u64 * u64::from(share)) >> 16) as usize + 1;
        self.ipv4.sweep(horizon_ns, part(self.ipv4.buckets()));
        self.ipv6.sweep(horizon_ns, part(self.ipv6.buckets()));
    }

    /// Buckets of both tables: what a walk of slices goes through.
    pub fn buckets(&self) -> usize {
        self.ipv4.buckets() + self.ipv6.buckets()
    }

    /// Fills a slice with the flows of its next buckets that have not ended at `now_ns`.
    pub fn fill(&self, slice: &mut Slice, now_ns: u64) {
        let horizon_ns = self.horizon_ns(now_ns);
        let first_ipv6 = self.ipv4.buckets();
        let Some(buckets) = slice.advance(self.buckets()) else { return };
        let ipv4 = buckets.start.min(first_ipv6)..buckets.end.min(first_ipv6);
        for (key, entry) in self.ipv4.flows_in(ipv4, horizon_ns) {
            let Entry { last_ns, packets, long, .. } = *entry;
            slice.push(KnownFlow { key: FlowKey::V4(key), last_ns, packets, long });
        }
        let ipv6 = buckets.start.max(first_ipv6)..buckets.end.max(first_ipv6);
        let ipv6 = ipv6.start - first_ipv6..ipv6.end - first_ipv6;
        for (key, entry) in self.ipv6.flows_in(ipv6, horizon_ns) {
            let Entry { last_ns, packets, long, .. } = *entry;
            slice.push(KnownFlow { key: FlowKey::V6(key), last_ns, packets, long });
        }
    }

    /// Puts a flow back as it was before a restart: its next packet gets the class it would have got.
    pub fn restore(&mut self, flow: &KnownFlow, now_ns: u64) -> Restored {
        let horizon_ns = self.horizon_ns(now_ns);
        let KnownFlow { key, last_ns, packets, long } = *flow;
        let known = (last_ns, packets, long);
        match key {
            FlowKey::V4(key) => self.ipv4.restore(key, known, horizon_ns),
            FlowKey::V6(key) => self.ipv6.restore(key, known, horizon_ns),
        }
    }

    /// An entry last seen before this has ended.
    #[inline(always)]
    fn horizon_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.rule.idle_timeout_ns).max(self.ended_before_ns)
    }
}

#[inline(always)]
fn decide<const W: usize>(
    rule: &Rule,
    promoted: &mut u64,
    hash: u64,
    turn: u64,
    touched: Touched<'_, W>,
) -> (Class, bool) {
    let Touched { entry, begins } = touched;
    // Two tests that predict well, where a match of all four would be a jump through a table.
    if !matches!(rule.policy, Policy::Split | Policy::None) {
        let number = if rule.policy == Policy::Ecmp { hash } else { turn };
        return (even(number), begins);
    }
    if !entry.long && entry.packets > rule.threshold_packets {
        entry.long = true;
        *promoted += 1;
    }
    let class = if entry.long { Class::Long } else { Class::Short };
    (class, begins)
}

/// The lowest bit of a hash is even-handed, and hardly weighs in a flow's place in the table.
#[inline(always)]
fn even(number: u64) -> Class {
    if number & 1 == 0 { Class::Short } else { Class::Long }
}
