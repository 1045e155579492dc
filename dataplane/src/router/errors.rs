//! What a router says and hears when a packet cannot go on: ICMP errors, fragments, path MTU.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::header::{Header, is_icmp_error};
use super::way::{Next, Way};
use super::{IP, Router};
use crate::batch::{Packet, PortId};
use crate::fib::LINK_HEADER_BYTES;
use crate::lane::fragmentation::{Fragments, Refusal};
use crate::outbox::FRAME_BYTES_MAX;
use crate::verdict::{DropReason, Verdict};
use crate::wire::buffer::Buffer;
use crate::wire::frame::Version;
use crate::wire::{icmp, icmpv6};

/// What the sender of a packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    TimeExceeded,
    TooBig { mtu_bytes: u16 },
    Unreachable,
}

/// How the pieces of a packet go on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Onward {
    /// Each in the lane's tunnel.
    Tunnel { lane: usize, entropy: u16 },
    /// Out of this port, with the Ethernet header of the packet.
    Port(PortId),
}

impl Router {
    /// Tells the sender of a packet why it goes no further. `lane` is the one it came in by, through which the
    /// error goes back; without one it goes back by the route to the sender.
    #[cold]
    pub(super) fn tell(
        &mut self,
        packet: &Packet<'_>,
        header: Header,
        told: Told,
        lane: Option<usize>,
        now_ns: u64,
    ) {
        let sent = self.icmp_limit.allows(now_ns)
            && self.write_error(packet, header, told, lane).is_some();
        let counter = match told {
            _ if !sent => &mut self.counters.icmp.withheld,
            Told::TimeExceeded => &mut self.counters.icmp.time_exceeded,
            Told::TooBig { .. } => &mut self.counters.icmp.too_big,
            Told::Unreachable => &mut self.counters.icmp.unreachable,
        };
        *counter += 1;
    }

    fn write_error(
        &mut self,
        packet: &Packet<'_>,
        header: Header,
        told: Told,
        lane: Option<usize>,
    ) -> Option<()> {
        let back = match lane.map(|lane| &self.ways[lane]) {
            Some(Way::Tunnel(way)) => way.next,
            _ => Next::to(&self.fib, header.source(), 0),
        };
        let (port, link) = match back {
            Next::Known { port, link, .. } => (port, link),
            Next::Unresolved { port, address } => {
                self.outbox.ask(port, address);
                return None;
            }
            Next::Nowhere(_) => return None,
        };
        let (ipv4_source, ipv6_source) = self.icmp_sources();
        let slot = self.outbox.next()?;
        let offender = &packet.bytes[IP..];
        let bytes = match header.version {
            Version::V4 => {
                icmp::write(ipv4_error(told), &link, ipv4_source?, offender, &mut slot[..])?
            }
            Version::V6 => {
                icmpv6::write(ipv6_error(told), &link, ipv6_source?, offender, &mut slot[..])?
            }
        };
        self.post(port, bytes, lane, &link, 0)
    }

    /// Sends the frame in the outbox's next slot, in the tunnel of a lane if there is one.
    fn post(
        &mut self,
        port: PortId,
        bytes: usize,
        lane: Option<usize>,
        link: &[u8; LINK_HEADER_BYTES],
        entropy: u16,
    ) -> Option<()> {
        let Some((lane, Way::Tunnel(way))) = lane.map(|lane| (lane, &self.ways[lane])) else {
            self.outbox.push(port, bytes, bytes as u32);
            return Some(());
        };
        let mut buffer = Buffer::new(&mut self.outbox.next()?[..], bytes);
        match way.encapsulator.encapsulate(&mut buffer, link, entropy) {
            Ok(wire_bytes) => {
                let bytes = buffer.len();
                self.outbox.push(port, bytes, wire_bytes as u32);
                self.tally(lane, (wire_bytes - IP) as u32);
                Some(())
            }
            Err(refusal) => {
                *self.counters.not_encapsulated.of(refusal) += 1;
                None
            }
        }
    }

    /// What the gateway calls itself: an address of the site, which the other site lets in.
    fn icmp_sources(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let [lan, wan] = PortId::ALL;
        (
            self.fib.ipv4_source(lan).or_else(|| self.fib.ipv4_source(wan)),
            self.fib.ipv6_source(lan).or_else(|| self.fib.ipv6_source(wan)),
        )
    }

    /// A packet of more than `mtu_bytes`: in pieces when its sender allows it, else its sender is told. `lane` is
    /// the one it came in by.
    #[cold]
    pub(super) fn too_big(
        &mut self,
        packet: &Packet<'_>,
        header: Header,
        mtu_bytes: u16,
        onward: Onward,
        lane: Option<usize>,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        let refusal = match header.version {
            Version::V4 => match self.fragment(packet, header, mtu_bytes, onward) {
                Ok(()) => return Ok(Verdict::Replace),
                Err(refusal) => refusal,
            },
            Version::V6 => DropReason::TooBig,
        };
        if refusal == DropReason::TooBig {
            self.tell(packet, header, Told::TooBig { mtu_bytes }, lane, now_ns);
        }
        Err(refusal)
    }

    fn fragment(
        &mut self,
        packet: &Packet<'_>,
        header: Header,
        mtu_bytes: u16,
        onward: Onward,
    ) -> Result<(), DropReason> {
        let wire_bytes = packet.wire_bytes as usize;
        let mtu_bytes = usize::from(mtu_bytes);
        let mut fragments = Fragments::new(&packet.bytes, wire_bytes, mtu_bytes).map_err(
            |refusal| match refusal {
                Refusal::Malformed => DropReason::Malformed,
                Refusal::Truncated => DropReason::Truncated,
                Refusal::DontFragment | Refusal::TooSmall => DropReason::TooBig,
            },
        )?;
        let (port, link, lane, entropy) = match onward {
            Onward::Port(port) => (port, [0; LINK_HEADER_BYTES], None, 0),
            Onward::Tunnel { lane, entropy } => {
                let Way::Tunnel(way) = &self.ways[lane] else { unreachable!("it has a tunnel") };
                match way.next {
                    Next::Known { port, link, .. } => (port, link, Some(lane), entropy),
                    Next::Unresolved { port, address } => {
                        self.outbox.ask(port, address);
                        return Err(DropReason::Unresolved);
                    }
                    Next::Nowhere(reason) => return Err(reason),
                }
            }
        };
        // Header and data of a piece are at least the MTU less 67: 60 of options, 7 of rounding.
        let pieces_max = header.bytes as usize / mtu_bytes.saturating_sub(67).max(1) + 1;
        let overhead_bytes = match lane.map(|lane| &self.ways[lane]) {
            Some(Way::Tunnel(way)) => way.encapsulator.overhead_bytes(),
            _ => 0,
        };
        let frame_bytes = IP + mtu_bytes + overhead_bytes;
        if pieces_max > self.outbox.room() || frame_bytes > FRAME_BYTES_MAX {
            return Err(DropReason::NoRoom);
        }
        while let Some(slot) = self.outbox.next() {
            let Some(bytes) = fragments.write_next(&mut slot[..]) else { break };
            self.counters.fragments += 1;
            self.post(port, bytes, lane, &link, entropy);
        }
        self.counters.fragmented += 1;
        Ok(())
    }

    /// Whether the frame is an ICMP error to an end of one of our tunnels.
    pub(super) fn is_path_error(&self, frame: &[u8]) -> bool {
        Header::of(frame).is_some_and(|header| self.tunnel_ends.contains(&header.destination()))
            && is_icmp_error(frame)
    }

    /// Believes an ICMP error about a tunnel packet, or does not; tells the inner sender when it is known.
    pub(super) fn take_path_error(&mut self, packet: &Packet<'_>, now_ns: u64) {
        let wire_bytes = packet.wire_bytes as usize;
        let Ok(lowered) = self.path_mtus.judge(&packet.bytes, wire_bytes, now_ns) else { return };
        let Some(quoted) = lowered.inner(&packet.bytes) else { return };
        let Some(sender) = Header::of_packet(quoted).map(|header| header.source()) else { return };
        let Next::Known { port, link, .. } = Next::to(&self.fib, sender, 0) else { return };
        let sources = self.icmp_sources();
        let sources = (
            sources.0.unwrap_or(Ipv4Addr::UNSPECIFIED),
            sources.1.unwrap_or(Ipv6Addr::UNSPECIFIED),
        );
        let sent = self.icmp_limit.allows(now_ns)
            && self
                .outbox
                .next()
                .and_then(|slot| lowered.translate(&packet.bytes, &link, sources, &mut slot[..]))
                .map(|bytes| self.outbox.push(port, bytes, bytes as u32))
                .is_some();
        *if sent { &mut self.counters.icmp.too_big } else { &mut self.counters.icmp.withheld } += 1;
    }
}

fn ipv4_error(told: Told) -> icmp::Error {
    match told {
        Told::TimeExceeded => icmp::Error::TimeExceeded,
        Told::TooBig { mtu_bytes } => icmp::Error::FragmentationNeeded { mtu_bytes },
        Told::Unreachable => icmp::Error::NetworkUnreachable,
    }
}

fn ipv6_error(told: Told) -> icmpv6::Error {
    match told {
        Told::TimeExceeded => icmpv6::Error::TimeExceeded,
        Told::TooBig { mtu_bytes } => {
            icmpv6::Error::PacketTooBig { mtu_bytes: u32::from(mtu_bytes) }
        }
        Told::Unreachable => icmpv6::Error::NoRoute,
    }
}
