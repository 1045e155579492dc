//! What a router counts besides the packets themselves.
//!
//! ```text
//! frames sent = forwarded - fragmented + fragments + ICMP errors sent - not_sent
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lane::decapsulation::Refusals;
use crate::lane::ecn::EcnAlarms;
use crate::lane::encapsulation::Refusals as EncapsulationRefusals;
use crate::lane::path_mtu::Refusals as PathRefusals;
use crate::lane::sequence::SequenceCounts;

/// Everything about routed mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouterCounters {
    /// The short and the long lane.
    pub lanes: [LaneCounters; 2],
    /// From WAN to LAN without a tunnel.
    pub plain_in: u64,
    /// Packets out of tunnels that were refused, by reason.
    pub refused: Refusals,
    /// Packets that could not be put into a tunnel, by reason.
    pub not_encapsulated: EncapsulationRefusals,
    /// Suspicious ECN fields that were let in (RFC 6040 section 4.2).
    pub ecn_alarms: EcnAlarms,
    /// Packets that were sent in pieces.
    pub fragmented: u64,
    /// Their pieces.
    pub fragments: u64,
    /// ICMP errors to those whose packets were not forwarded.
    pub icmp: IcmpCounters,
    /// TCP segments whose maximum segment size was lowered.
    pub mss_clamped: u64,
    /// ICMP errors from the WAN that lowered a lane's MTU.
    pub path_mtu_lowered: u64,
    /// Those that changed nothing, by reason.
    pub path_errors_refused: PathRefusals,
    /// Frames made that found no room in a transmit ring or in packet memory.
    pub not_sent: u64,
}

/// One lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneCounters {
    /// Packets sent in it: pieces, and ICMP errors to the other site, among them.
    pub sent: u64,
    /// Their bytes from the outer IP header on.
    pub sent_bytes: u64,
    /// Packets let in from its tunnel.
    pub received: u64,
    /// Their bytes from the inner IP header on.
    pub received_bytes: u64,
    /// What their sequence numbers say, if they have any.
    pub sequence: SequenceCounts,
}

/// ICMP and ICMPv6 together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpCounters {
    /// Hop limit ran out.
    pub time_exceeded: u64,
    /// Fragmentation needed, packet too big: our own, and translated ones from inside the WAN.
    pub too_big: u64,
    /// No route.
    pub unreachable: u64,
    /// Not sent, because of the limit on their rate, because nobody may be told about such a packet, or because
    /// the way to its sender is not known.
    pub withheld: u64,
}

impl RouterCounters {
    /// Adds those of another worker.
    pub fn add(&mut self, other: &RouterCounters) {
        for (lane, other) in self.lanes.iter_mut().zip(&other.lanes) {
            lane.sent += other.sent;
            lane.sent_bytes += other.sent_bytes;
            lane.received += other.received;
            lane.received_bytes += other.received_bytes;
            lane.sequence.add(&other.sequence);
        }
        self.plain_in += other.plain_in;
        self.refused.add(&other.refused);
        self.not_encapsulated.add(&other.not_encapsulated);
        self.ecn_alarms.add(&other.ecn_alarms);
        self.fragmented += other.fragmented;
        self.fragments += other.fragments;
        self.icmp.time_exceeded += other.icmp.time_exceeded;
        self.icmp.too_big += other.icmp.too_big;
        self.icmp.unreachable += other.icmp.unreachable;
        self.icmp.withheld += other.icmp.withheld;
        self.mss_clamped += other.mss_clamped;
        self.path_mtu_lowered += other.path_mtu_lowered;
        self.path_errors_refused.add(&other.path_errors_refused);
        self.not_sent += other.not_sent;
    }
}

/// Rows of the table for people, of what is not zero.
impl fmt::Display for RouterCounters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, packets: u64, bytes: Option<u64>| match bytes {
            Some(bytes) => writeln!(formatter, "{name:<26}{packets:>14}{bytes:>18}"),
            None if packets > 0 => writeln!(formatter, "{name:<26}{packets:>14}"),
            None => Ok(()),
        };
        for (name, lane) in ["short", "long"].into_iter().zip(&self.lanes) {
            row(&format!("{name} lane, sent"), lane.sent, Some(lane.sent_bytes))?;
            row(&format!("{name} lane, received"), lane.received, Some(lane.received_bytes))?;
            row("  lost", lane.sequence.lost, None)?;
            row("  reordered", lane.sequence.reordered, None)?;
            row("  duplicate", lane.sequence.duplicates, None)?;
        }
        row("received without tunnel", self.plain_in, None)?;
        row("refused from a tunnel", self.refused.total(), None)?;
        row("not encapsulated", self.not_encapsulated.total(), None)?;
        row("fragmented", self.fragmented, None)?;
        row("  fragments", self.fragments, None)?;
        row("ICMP time exceeded sent", self.icmp.time_exceeded, None)?;
        row("ICMP too big sent", self.icmp.too_big, None)?;
        row("ICMP unreachable sent", self.icmp.unreachable, None)?;
        row("ICMP errors withheld", self.icmp.withheld, None)?;
        row("MSS lowered", self.mss_clamped, None)?;
        row("path MTU lowered", self.path_mtu_lowered, None)?;
        row("made and not sent", self.not_sent, None)
    }
}
