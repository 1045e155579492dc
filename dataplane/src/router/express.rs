//! The express: the way of nearly all packets from the LAN, plain TCP over IPv4 into a tunnel with a
//! [`Template`].
//!
//! It does what [`Router::outbound`](super::Router::outbound) does for such a packet, without looking for what such
//! a packet cannot be. Whatever it does not take is left as it was but for its padding, and goes the long way.

use super::IP;
use super::way::{Next, TunnelWay};
use crate::batch::{Packet, PortId};
use crate::lane::path_mtu::LaneMtu;
use crate::lane::prefixes::Prefixes;
use crate::lane::template::Template;
use crate::wire::{ipv4, tcp};

const SYN: u8 = 0x02;
/// Ethernet, IPv4 and TCP headers without options.
const PLAIN_BYTES: usize = IP + ipv4::HEADER_BYTES + tcp::HEADER_BYTES;

/// A tunnel's, while its next hop is known.
#[derive(Debug)]
pub(super) struct Express {
    template: Template,
    port: PortId,
    /// Largest inner packet that fits this port.
    inner_bytes_max: u32,
    path: LaneMtu,
}

impl Express {
    /// None when the tunnel asks more of a packet, or its next hop is not known.
    pub(super) fn of(way: &TunnelWay) -> Option<Express> {
        let Next::Known { port, link, mtu_bytes } = way.next else { return None };
        let template = way.encapsulator.template(&link)?;
        let inner_bytes_max = mtu_bytes.saturating_sub(template.overhead_bytes() as u32);
        Some(Express { template, port, inner_bytes_max, path: way.path.clone() })
    }

    /// The port by which the packet leaves, encapsulated, with one hop less; none when it has to go the long way.
    #[inline(always)]
    pub(super) fn take(
        &self,
        packet: &mut Packet<'_>,
        remote: &Prefixes,
        now_ns: u64,
    ) -> Option<PortId> {
        let header: &[u8; PLAIN_BYTES] = packet.bytes.first_chunk()?;
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        // EtherType, version and header length; fragment offset, TTL, protocol; flags of TCP.
        let is_plain = (word(12) >> 8 == 0x08_0045)
            & (word(20) & 0x3fff_00ff == u32::from(tcp::PROTOCOL))
            & (header[22] > 1)
            & (header[47] & SYN == 0);
        let inner_bytes = word(14) as u16;
        let mtu_bytes = self.inner_bytes_max.min(u32::from(self.path.inner_bytes(now_ns)));
        let fits = (u32::from(inner_bytes) <= mtu_bytes)
            & (usize::from(inner_bytes) <= packet.bytes.len() - IP);
        if !is_plain || !fits || !remote.contains_ipv4(word(30)) {
            return None;
        }
        if !self.template.encapsulate(&mut packet.bytes, inner_bytes) {
            return None;
        }
        packet.wire_bytes = packet.bytes.len() as u32;
        Some(self.port)
    }
}
