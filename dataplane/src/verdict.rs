//! What the gateway says of a packet.

use serde::{Deserialize, Serialize};

use crate::batch::PortId;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Out of this port.
    Transmit(PortId),
    /// Nowhere.
    Drop(DropReason),
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The frame is longer than what the port it should leave by can send.
    ExceedsMtu,
}

/// The lane a classified packet travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Among the first packets of its flow.
    Short = 0,
    /// Of a flow that has grown past the threshold.
    Long = 1,
}

/// Why a packet was not classified. Not one byte of it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untouched {
    /// IP, but not TCP.
    NonTcp,
    /// Neither IPv4 nor IPv6, or behind more than two VLAN tags.
    NonIp,
    /// Its headers lie about their lengths.
    Malformed,
    /// A later fragment of a datagram whose first fragment is not known.
    Fragment,
    /// A capture record that ends before the headers do.
    Truncated,
    /// Not looked at: from WAN to LAN, or under `policy = "none"`.
    Unclassified,
}

/// What a packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// TCP, or a later fragment of it: marked for its lane.
    Classified(Class),
    /// Not classified.
    Untouched(Untouched),
}
