//! Somebody who is told of every packet of every flow: the replay's list of flows. A gateway that nobody
//! watches pays nothing, [`Unobserved`] is compiled away.

use super::key::FlowKey;
use crate::verdict::Class;

/// One packet as a packet of its flow.
#[derive(Debug, Clone, Copy)]
pub struct FlowPacket<'a> {
    /// The flow's name.
    pub key: &'a FlowKey,
    /// Whether this packet starts a new life of the flow.
    pub begins: bool,
    /// The class of this packet.
    pub class: Class,
    /// Length of the frame on the wire, in bytes.
    pub wire_bytes: u32,
    /// When it was handled, in nanoseconds.
    pub handled_ns: u64,
}

/// Is told of flows as the gateway sees them.
pub trait Observer {
    /// A packet that has an entry in the flow table: not later fragments, nor packets forwarded without state.
    fn packet(&mut self, packet: FlowPacket<'_>);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    #[inline(always)]
    fn packet(&mut self, _packet: FlowPacket<'_>) {}
}
