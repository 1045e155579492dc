//! A batch: packets on their way through [`Gateway::process`](crate::gateway::Gateway::process).

use arrayvec::ArrayVec;

use crate::verdict::{Outcome, Verdict};
use crate::wire::buffer::Buffer;

/// Most packets of one batch.
pub const BATCH_MAX: usize = 256;

/// Packets in order of arrival.
pub type Batch<'a> = ArrayVec<Packet<'a>, BATCH_MAX>;

/// Which side of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortId {
    /// Towards the datacenter.
    Lan = 0,
    /// Towards the WAN.
    Wan = 1,
}

impl PortId {
    /// Both, in the order in which everything per port is kept.
    pub const ALL: [PortId; 2] = [PortId::Lan, PortId::Wan];

    /// The other side.
    pub fn opposite(self) -> PortId {
        match self {
            PortId::Lan => PortId::Wan,
            PortId::Wan => PortId::Lan,
        }
    }

    /// Position in an array kept per port.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One Ethernet frame and what is known of it.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The bytes at hand, from the destination MAC address; no frame check sequence. A tunnel makes them more
    /// or fewer.
    pub bytes: Buffer<'a>,
    /// Bytes of the frame on the wire: more than `bytes` in a capture cut by a snap length.
    pub wire_bytes: u32,
    /// The port it came in on.
    pub ingress: PortId,
    /// When it was received, in nanoseconds of any clock that all packets share.
    pub received_ns: u64,
    /// Written by the gateway: where it goes.
    pub verdict: Verdict,
    /// Written by the gateway: what it was.
    pub outcome: Outcome,
    /// Written by a router for what it took out of a tunnel: the same for all packets of a flow.
    pub flow_hash: Option<u32>,
}

impl<'a> Packet<'a> {
    /// A whole frame that has not been through the gateway.
    pub fn new(bytes: impl Into<Buffer<'a>>, ingress: PortId, received_ns: u64) -> Self {
        let bytes = bytes.into();
        let wire_bytes = bytes.len() as u32;
        Packet::cut(bytes, wire_bytes, ingress, received_ns)
    }

    /// A frame of which only the beginning was kept: `wire_bytes` were on the wire.
    pub fn cut(
        bytes: impl Into<Buffer<'a>>,
        wire_bytes: u32,
        ingress: PortId,
        received_ns: u64,
    ) -> Self {
        let bytes = bytes.into();
        Packet {
            bytes,
            wire_bytes,
            ingress,
            received_ns,
            verdict: Verdict::Transmit(ingress.opposite()),
            outcome: Outcome::Untouched(crate::verdict::Untouched::Unclassified),
            flow_hash: None,
        }
    }
}
