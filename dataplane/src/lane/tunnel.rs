//! What is configured of a GRE tunnel: where it leads and what its outer headers say.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A GRE tunnel (RFC 2784, RFC 2890), of which this gateway is one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Our end: outer source of what is sent, outer destination of what is accepted.
    pub local: IpAddr,
    /// The peer's end, of the same IP version.
    pub remote: IpAddr,
    /// The key that every packet carries, both ways; none when there is no key field.
    pub key: Option<u32>,
    /// Whether packets sent carry sequence numbers; those received are looked at when they do.
    pub sequence: bool,
    /// Whether packets sent carry a checksum; one received is verified when it is there.
    pub checksum: bool,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// Outer DSCP; none copies that of the inner packet.
    pub dscp: Option<u8>,
    /// Whether outer IPv4 packets carry DF. Without it they may be fragmented on their way, which is for peers
    /// that reassemble: Lanesplit refuses outer fragments.
    pub dont_fragment: bool,
    /// Most bytes of an outer packet, its IP header included; none takes the MTU of the port.
    pub mtu_bytes: Option<u16>,
    /// GRE in UDP (RFC 8086): an UDP header between the IP and the GRE header, whose source port tells flows
    /// apart for the hashes of NICs and routers.
    pub udp: bool,
}
