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
    /// Out of a port as soon as its next hop is known; see [`Outbox`](crate::outbox::Outbox).
    Wait,
    /// Out of a port in pieces, which are in the [`Outbox`](crate::outbox::Outbox); the frame itself is free.
    Replace,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Inline: the frame is longer than what the port it should leave by can send.
    ExceedsMtu,
    /// Routed: not the gateway's. On a port, XDP leaves such frames to the kernel; out of a capture, they are
    /// what the kernel would have got.
    LeftToKernel,
    /// Routed: headers that lie about their lengths.
    Malformed,
    /// Routed: a capture record that ends before its IP header does, or before what must be summed.
    Truncated,
    /// Routed: TTL or hop limit ran out.
    HopLimit,
    /// Routed: no route, or one that leads nowhere or out of another interface.
    NoRoute,
    /// Routed: larger than its lane or its port can carry, and not to be fragmented.
    TooBig,
    /// Routed: from a tunnel, and refused at the border.
    Refused,
    /// Routed: an ICMP error about one of our tunnel packets, taken in.
    PathError,
    /// Routed: the next hop did not answer in time, or too many packets wait already.
    Unresolved,
    /// Routed: no memory was left for its fragments, or its frame has no room for the outer headers.
    NoRoom,
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
