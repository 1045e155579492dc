//! What a gateway counts. Every packet adds one to `received`, and one to where it went:
//!
//! ```text
//! received  = forwarded + dropped + waiting
//! forwarded = short + long + untouched
//! created   = expired + restarted + active
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::Packet;
use crate::flow::classifier::FlowCounts;
use crate::router::RouterCounters;
use crate::verdict::{Class, DropReason, Outcome, Untouched as Reason, Verdict};

/// Packets, unless the name says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Given to the gateway.
    pub received: u64,
    /// Sent on.
    pub forwarded: u64,
    /// Sent on in the short lane.
    pub short: u64,
    /// Sent on in the long lane.
    pub long: u64,
    /// Sent on without a class.
    pub untouched: Untouched,
    /// Not sent on.
    pub dropped: Dropped,
    /// In routed mode: kept until their next hop is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// What happened to flows.
    pub flows: Flows,
    /// Frame lengths on the wire, summed.
    pub bytes: Bytes,
    /// In routed mode: what only a router counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<RouterCounters>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Packets forwarded without a class, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untouched {
    /// IP, but not TCP.
    pub non_tcp: u64,
    /// Neither IPv4 nor IPv6, or behind more than two VLAN tags.
    pub non_ip: u64,
    /// Headers that lie about their lengths.
    pub malformed: u64,
    /// Later fragments of datagrams whose first fragment is not known.
    pub fragment: u64,
    /// Capture records that end before the headers do.
    pub truncated: u64,
    /// Not looked at: from WAN to LAN, or under `policy = "none"`.
    pub unclassified: u64,
}

/// Packets dropped, by reason. All but the first are of routed mode, and are not there when they are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Longer than what the port they should leave by can send.
    pub exceeds_mtu: u64,
    /// Not the gateway's: what the kernel would have got, when there was none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_to_kernel: u64,
    /// Headers that lie about their lengths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub malformed: u64,
    /// Capture records that end before what is needed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated: u64,
    /// TTL or hop limit ran out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hop_limit: u64,
    /// No route.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub no_route: u64,
    /// Larger than lane or port, and not to be fragmented.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_big: u64,
    /// Out of a tunnel, refused at the border: `routed.refused` has the reasons.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// ICMP errors about tunnel packets, taken in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub path_error: u64,
    /// The next hop did not answer, or too many packets waited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unresolved: u64,
    /// No memory for fragments or outer headers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub no_room: u64,
    /// Out of a tunnel, and the worker of their flow could not keep up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub handover_full: u64,
}

/// Lives of flows, unless the name says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Begun, those included that were taken over from before the start.
    pub created: u64,
    /// Taken over from before the start, with their count and their lane.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restored: u64,
    /// Moved to the long lane.
    pub promoted: u64,
    /// Ended by silence.
    pub expired: u64,
    /// Ended by a SYN that began the next.
    pub restarted: u64,
    /// Not known to have ended.
    pub active: u64,
    /// Packets (not flows) forwarded short because the table had no room for their flow.
    pub table_full: u64,
}

/// Frame lengths on the wire, summed, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Given to the gateway.
    pub received: u64,
    /// Sent on.
    pub forwarded: u64,
    /// Sent on in the short lane.
    pub short: u64,
    /// Sent on in the long lane.
    pub long: u64,
}

impl Counters {
    /// Counts packets that the gateway has decided on; all but the bytes received, which may differ from what is
    /// sent.
    #[inline(always)]
    pub fn count(&mut self, packets: &[Packet<'_>]) {
        // Summed in registers first: the counters themselves are written once a call. Which lane a packet is
        // in cannot be predicted, so nothing branches on it.
        let (mut long, mut untouched, mut elsewhere) = (0, 0, 0);
        let (mut all_bytes, mut long_bytes, mut untouched_bytes, mut elsewhere_bytes) =
            (0, 0, 0, 0);
        for packet in packets {
            let wire_bytes = u64::from(packet.wire_bytes);
            all_bytes += wire_bytes;
            match (packet.verdict, packet.outcome) {
                (Verdict::Transmit(_) | Verdict::Replace, Outcome::Classified(class)) => {
                    let is_long = u64::from(class == Class::Long);
                    long += is_long;
                    long_bytes += wire_bytes * is_long;
                }
                (Verdict::Transmit(_) | Verdict::Replace, Outcome::Untouched(reason)) => {
                    untouched += 1;
                    untouched_bytes += wire_bytes;
                    *self.untouched.of(reason) += 1;
                }
                (Verdict::Drop(reason), _) => {
                    elsewhere += 1;
                    elsewhere_bytes += wire_bytes;
                    *self.dropped.of(reason) += 1;
                }
                (Verdict::Wait, _) => {
                    elsewhere += 1;
                    elsewhere_bytes += wire_bytes;
                    self.waiting += 1;
                }
            }
        }
        let received = packets.len() as u64;
        let forwarded = received - elsewhere;
        let forwarded_bytes = all_bytes - elsewhere_bytes;
        self.received += received;
        self.forwarded += forwarded;
        self.short += forwarded - long - untouched;
        self.long += long;
        self.bytes.forwarded += forwarded_bytes;
        self.bytes.short += forwarded_bytes - long_bytes - untouched_bytes;
        self.bytes.long += long_bytes;
    }

    /// A packet that waited was sent after all, or was given up.
    pub fn count_waited(&mut self, outcome: Outcome, wire_bytes: u32, sent: bool) {
        let wire_bytes = u64::from(wire_bytes);
        self.waiting -= 1;
        if !sent {
            self.dropped.unresolved += 1;
            return;
        }
        self.forwarded += 1;
        self.bytes.forwarded += wire_bytes;
        match outcome {
            Outcome::Classified(Class::Short) => {
                self.short += 1;
                self.bytes.short += wire_bytes;
            }
            Outcome::Classified(Class::Long) => {
                self.long += 1;
                self.bytes.long += wire_bytes;
            }
            Outcome::Untouched(reason) => *self.untouched.of(reason) += 1,
        }
    }

    /// A packet counted as forwarded was dropped before it reached the worker that should have sent it.
    pub fn count_not_handed_over(&mut self, outcome: Outcome, wire_bytes: u32) {
        self.dropped.handover_full += 1;
        self.forwarded -= 1;
        self.bytes.forwarded -= u64::from(wire_bytes);
        match outcome {
            Outcome::Untouched(reason) => *self.untouched.of(reason) -= 1,
            Outcome::Classified(_) => unreachable!("what comes out of a tunnel has no class"),
        }
    }

    /// Takes over what the classifier counted.
    pub fn set_flows(&mut self, counts: FlowCounts) {
        self.flows = Flows {
            created: counts.population.created,
            restored: counts.population.restored,
            promoted: counts.promoted,
            expired: counts.population.expired,
            restarted: counts.population.restarted,
            active: counts.population.occupied,
            table_full: counts.table_full,
        };
    }

    /// Whether every packet is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.forwarded + self.dropped.total() + self.waiting
            && self.forwarded == self.short + self.long + self.untouched.total()
            && self.flows.created == self.flows.expired + self.flows.restarted + self.flows.active
    }

    /// Adds those of another gateway.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            received,
            forwarded,
            short,
            long,
            untouched,
            dropped,
            waiting,
            flows,
            bytes,
            routed,
        } = other;
        self.waiting += waiting;
        if let Some(routed) = routed {
            self.routed.get_or_insert_default().add(routed);
        }
        self.received += received;
        self.forwarded += forwarded;
        self.short += short;
        self.long += long;
        self.untouched.add(untouched);
        self.dropped.add(dropped);
        self.flows.add(flows);
        self.bytes.add(bytes);
    }
}

impl Bytes {
    #[inline(always)]
    fn add(&mut self, other: &Bytes) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.short += other.short;
        self.long += other.long;
    }
}

impl Untouched {
    #[inline(always)]
    fn of(&mut self, reason: Reason) -> &mut u64 {
        match reason {
            Reason::NonTcp => &mut self.non_tcp,
            Reason::NonIp => &mut self.non_ip,
            Reason::Malformed => &mut self.malformed,
            Reason::Fragment => &mut self.fragment,
            Reason::Truncated => &mut self.truncated,
            Reason::Unclassified => &mut self.unclassified,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Untouched { non_tcp, non_ip, malformed, fragment, truncated, unclassified } = *self;
        non_tcp + non_ip + malformed + fragment + truncated + unclassified
    }

    fn add(&mut self, other: &Untouched) {
        self.non_tcp += other.non_tcp;
        self.non_ip += other.non_ip;
        self.malformed += other.malformed;
        self.fragment += other.fragment;
        self.truncated += other.truncated;
        self.unclassified += other.unclassified;
    }
}

impl Dropped {
    #[inline(always)]
    fn of(&mut self, reason: DropReason) -> &mut u64 {
        match reason {
            DropReason::ExceedsMtu => &mut self.exceeds_mtu,
            DropReason::LeftToKernel => &mut self.left_to_kernel,
            DropReason::Malformed => &mut self.malformed,
            DropReason::Truncated => &mut self.truncated,
            DropReason::HopLimit => &mut self.hop_limit,
            DropReason::NoRoute => &mut self.no_route,
            DropReason::TooBig => &mut self.too_big,
            DropReason::Refused => &mut self.refused,
            DropReason::PathError => &mut self.path_error,
            DropReason::Unresolved => &mut self.unresolved,
            DropReason::NoRoom => &mut self.no_room,
        }
    }

    /// By reason, with what people call it.
    fn named(&self) -> [(&'static str, u64); 12] {
        [
            ("exceeds MTU", self.exceeds_mtu),
            ("the kernel's", self.left_to_kernel),
            ("malformed", self.malformed),
            ("cut by the capture", self.truncated),
            ("hop limit ran out", self.hop_limit),
            ("no route", self.no_route),
            ("too big", self.too_big),
            ("refused from a tunnel", self.refused),
            ("ICMP errors taken in", self.path_error),
            ("next hop unknown", self.unresolved),
            ("no room", self.no_room),
            ("other worker full", self.handover_full),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, packets)| packets).sum()
    }

    fn add(&mut self, other: &Dropped) {
        self.exceeds_mtu += other.exceeds_mtu;
        self.left_to_kernel += other.left_to_kernel;
        self.malformed += other.malformed;
        self.truncated += other.truncated;
        self.hop_limit += other.hop_limit;
        self.no_route += other.no_route;
        self.too_big += other.too_big;
        self.refused += other.refused;
        self.path_error += other.path_error;
        self.unresolved += other.unresolved;
        self.no_room += other.no_room;
        self.handover_full += other.handover_full;
    }
}

impl Flows {
    fn add(&mut self, other: &Flows) {
        self.created += other.created;
        self.restored += other.restored;
        self.promoted += other.promoted;
        self.expired += other.expired;
        self.restarted += other.restarted;
        self.active += other.active;
        self.table_full += other.table_full;
    }
}

/// A table for people: packets, and bytes where they are counted.
impl fmt::Display for Counters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { received, forwarded, short, long, untouched, dropped, flows, bytes, .. } =
            self;
        let mut row = |name: &str, packets: u64, bytes: Option<u64>| match bytes {
            Some(bytes) => writeln!(formatter, "{name:<26}{packets:>14}{bytes:>18}"),
            None => writeln!(formatter, "{name:<26}{packets:>14}"),
        };
        row("received", *received, Some(bytes.received))?;
        row("forwarded", *forwarded, Some(bytes.forwarded))?;
        row("  short lane", *short, Some(bytes.short))?;
        row("  long lane", *long, Some(bytes.long))?;
        row("  untouched", untouched.total(), None)?;
        row("    not TCP", untouched.non_tcp, None)?;
        row("    not IP", untouched.non_ip, None)?;
        row("    malformed", untouched.malformed, None)?;
        row("    fragment without first", untouched.fragment, None)?;
        row("    cut by the capture", untouched.truncated, None)?;
        row("    not classified", untouched.unclassified, None)?;
        row("dropped", dropped.total(), None)?;
        row("  exceeds MTU", dropped.exceeds_mtu, None)?;
        for (name, packets) in dropped.named().into_iter().skip(1).filter(|(_, n)| *n > 0) {
            row(&format!("  {name}"), packets, None)?;
        }
        row("flows created", flows.created, None)?;
        if flows.restored > 0 {
            row("  from before the start", flows.restored, None)?;
        }
        row("  promoted to long", flows.promoted, None)?;
        row("  ended by silence", flows.expired, None)?;
        row("  ended by a SYN", flows.restarted, None)?;
        row("  active", flows.active, None)?;
        row("packets without state", flows.table_full, None)?;
        match &self.routed {
            Some(routed) => {
                if self.waiting > 0 {
                    row("waiting for a next hop", self.waiting, None)?;
                }
                write!(formatter, "{routed}")
            }
            None => Ok(()),
        }
    }
}

/// The heading of that table's columns.
pub fn heading() -> String {
    format!("{:<26}{:>14}{:>18}\n", "", "packets", "bytes")
}
