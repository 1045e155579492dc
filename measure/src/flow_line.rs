//! Flows as they are told: a line of JSON each.
//!
//! Field names are the contract with scripts: see README.md.

use serde::{Deserialize, Serialize};

use crate::flow::{Direction, Flow};
use crate::session::Found;
use crate::source::Tap;

/// A flow, as a line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowLine {
    /// Its number: packets name their flow by it.
    pub flow: u32,
    /// Source address.
    pub src: String,
    /// Source port.
    pub src_port: u16,
    /// Destination address.
    pub dst: String,
    /// Destination port.
    pub dst_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `forward` or `reverse`; nothing when no packet was matched.
    pub direction: Option<Direction>,
    /// Packets at the ingress tap, without duplicates.
    pub packets_ingress: u64,
    /// Packets at the egress tap, without duplicates.
    pub packets_egress: u64,
    /// Seen at ingress only.
    pub lost: u64,
    /// Seen at egress only.
    pub unmatched: u64,
    /// Copies that nothing tells apart, at either tap.
    pub ambiguous: u64,
    /// Further copies, at either tap.
    pub duplicate: u64,
    /// Packets that arrived behind one that was sent after them; copies that are the same byte for byte do not
    /// count.
    #[serde(default)]
    pub reordered: u64,
    /// Bytes on the wire at the tap where the flow enters.
    pub bytes: u64,
    /// First packet at the ingress tap.
    pub first_ingress_ns: Option<u64>,
    /// Last packet at the ingress tap.
    pub last_ingress_ns: Option<u64>,
    /// First packet at the egress tap.
    pub first_egress_ns: Option<u64>,
    /// Last packet at the egress tap.
    pub last_egress_ns: Option<u64>,
    /// From the first packet at the tap where the flow enters to the last at the other.
    pub fct_ns: Option<u64>,
    /// TCP: the first packet was a SYN, and FIN or RST was seen.
    pub complete: bool,
    /// Lanes of its packets.
    pub lanes: Vec<String>,
    /// Mean delay of its matched packets.
    pub delay_mean_ns: Option<f64>,
    /// Mean size of its IPDV.
    pub jitter_ns: Option<f64>,
    /// From SYN to SYN-ACK at the ingress tap.
    pub handshake_rtt_ns: Option<u64>,
    /// How far `fct_ns` and `delay_mean_ns` may be off, in either direction, if the rig was calibrated.
    pub error_bound_ns: Option<u64>,
}

impl FlowLine {
    /// Packets at the tap where it enters: by this it belongs to a size class.
    pub fn size_packets(&self) -> u64 {
        match self.direction {
            Some(Direction::Reverse) => self.packets_egress,
            Some(Direction::Forward) => self.packets_ingress,
            None => self.packets_ingress.max(self.packets_egress),
        }
    }

    /// Whether it counts in the statistics of complete flows.
    pub fn is_measured(&self, direction: Direction) -> bool {
        self.protocol == "tcp" && self.complete && self.direction == Some(direction)
    }
}

/// The flows that are reported, in the order in which they began.
pub fn flow_lines<'f>(
    found: &'f Found,
    error_bound_ns: Option<u64>,
) -> impl Iterator<Item = FlowLine> + 'f {
    found
        .flows
        .iter()
        .enumerate()
        .filter(|(_, flow)| found.flows.key(flow).is_flow())
        .filter(|(_, flow)| flow.seen.iter().any(|seen| seen.packets > 0))
        .map(move |(number, flow)| flow_line(found, number as u32, flow, error_bound_ns))
}

fn flow_line(found: &Found, number: u32, flow: &Flow, error_bound_ns: Option<u64>) -> FlowLine {
    let key = found.flows.key(flow);
    let [ingress, egress] = &flow.seen;
    let time = |tap: Tap, last: bool| {
        let seen = &flow.seen[tap.index()];
        (seen.packets > 0).then_some(if last { seen.last_ns } else { seen.first_ns })
    };
    FlowLine {
        flow: number,
        src: key.source().to_string(),
        src_port: key.source_port(),
        dst: key.destination().to_string(),
        dst_port: key.destination_port(),
        protocol: if key.is_tcp() { "tcp" } else { "udp" }.into(),
        direction: flow.direction,
        packets_ingress: ingress.packets,
        packets_egress: egress.packets,
        lost: ingress.single,
        unmatched: egress.single,
        ambiguous: flow.ambiguous,
        duplicate: flow.duplicates,
        reordered: flow.reordered,
        bytes: flow.seen[flow.entry().index()].bytes,
        first_ingress_ns: time(Tap::Ingress, false),
        last_ingress_ns: time(Tap::Ingress, true),
        first_egress_ns: time(Tap::Egress, false),
        last_egress_ns: time(Tap::Egress, true),
        fct_ns: flow.completion_ns(),
        complete: key.is_tcp() && flow.is_complete(),
        lanes: flow.lanes().map(|lane| found.lanes.name(lane)).collect(),
        delay_mean_ns: flow.delay_mean_ns(),
        jitter_ns: flow.jitter_ns(),
        handshake_rtt_ns: flow.handshake_rtt_ns,
        error_bound_ns,
    }
}
