//! The reference model of routed mode: what a router between two sites does, written down slowly.
//!
//! It shares nothing with the gateway but the words of its configuration and the names of its answers. Frames are
//! plain vectors, headers are read with index arithmetic, checksums are made anew over whole packets where the RFCs
//! allow it. The class of a packet is the inline [`Model`]'s.
//!
//! Not modelled: what is counted about sequence numbers that arrive, and ICMP errors that lower a path MTU; traffic for
//! this model must hold no such error that would be believed. Packets without a neighbour do not wait. What an outer
//! header says to tell flows apart (the flow label of IPv6, the source port of UDP) is for [`adopt_entropy`] to judge.

mod border;
mod packet;
mod wire;

use std::net::IpAddr;

use dataplane::batch::PortId;
use dataplane::config::Routed;
use dataplane::fib::Fixed;
use dataplane::lane::Lane;
use dataplane::lane::tunnel::Tunnel;
use dataplane::router::RouterCounters;
use dataplane::verdict::{Class, DropReason, Outcome, Untouched};

use super::{Model, Rule, is_tag, u16_at};
use packet::Packet;

pub use wire::{adopt_entropy, in_tunnel};

/// Bytes of an Ethernet header.
const IP: usize = 14;
/// Most bytes of a frame that the gateway makes, and most of them for one batch.
const MADE_BYTES_MAX: usize = 4096 - 256;
const MADE_MAX: usize = 128;
/// ICMP errors: so many at once, and one more every interval.
const ICMP_BURST: u64 = 50;
const ICMP_INTERVAL_NS: u64 = 1_000_000;

/// A frame that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// By this port.
    pub port: PortId,
    /// What is at hand of it.
    pub frame: Vec<u8>,
    /// Its bytes on the wire.
    pub wire_bytes: u32,
    /// Whether it has outer headers of ours.
    pub is_tunnelled: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It leaves.
    Sent(Sent),
    /// Its pieces leave.
    InPieces {
        /// Bytes on the wire of the frame that they were cut from.
        wire_bytes: u32,
    },
    /// It does not leave.
    Dropped(DropReason),
}

/// What the gateway should say of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedAnswer {
    /// What the packet was.
    pub outcome: Outcome,
    /// What becomes of it.
    pub fate: Fate,
    /// What leaves besides: pieces, an ICMP error.
    pub made: Vec<Sent>,
}

/// A gateway in routed mode.
#[derive(Debug)]
pub struct RoutedModel {
    classes: Model,
    routed: Routed,
    fixed: Fixed,
    now_ns: u64,
    /// Of the next packet of each lane.
    sequence: [u32; 2],
    /// Of the next outer packet without DF.
    identification: u16,
    /// What is left for ICMP errors, as the time that it took to come.
    icmp_credit_ns: u64,
    /// What it should have counted.
    counters: RouterCounters,
    made: Vec<Sent>,
    /// Frames made since the outbox was emptied.
    in_outbox: usize,
}

/// Where a packet goes next.
enum Next {
    Known { port: PortId, macs: [u8; 12], mtu_bytes: usize },
    Unresolved,
    Kernel,
    None,
}

/// What a sender is told.
#[derive(Clone, Copy)]
enum Told {
    TimeExceeded,
    TooBig(usize),
    Unreachable,
}

type Decided = Result<Fate, DropReason>;

impl RoutedModel {
    /// A gateway that has seen nothing.
    ///
    /// # Panics
    ///
    /// When the configuration does not tell its ports.
    pub fn new(rule: Rule, routed: &Routed) -> Self {
        RoutedModel {
            classes: Model::new(rule),
            fixed: routed.fixed.clone().expect("ports are told"),
            routed: routed.clone(),
            now_ns: 0,
            sequence: [0; 2],
            identification: 0,
            icmp_credit_ns: ICMP_BURST * ICMP_INTERVAL_NS,
            counters: RouterCounters::default(),
            made: Vec::new(),
            in_outbox: 0,
        }
    }

    /// What should have been counted, but for what is not modelled.
    pub fn counters(&self) -> RouterCounters {
        self.counters
    }

    /// The inline model, with what became of flows.
    pub fn classes(&self) -> &Model {
        &self.classes
    }

    /// Frames made since [`RoutedModel::empty_outbox`].
    pub fn in_outbox(&self) -> usize {
        self.in_outbox
    }

    /// The gateway's batch is over.
    pub fn empty_outbox(&mut self) {
        self.in_outbox = 0;
    }

    /// The answer for the next packet: `kept` of its `wire_bytes` are at hand.
    pub fn packet(
        &mut self,
        ingress: PortId,
        kept: &[u8],
        wire_bytes: u32,
        received_ns: u64,
    ) -> RoutedAnswer {
        let later_ns = received_ns.saturating_sub(self.now_ns);
        self.now_ns += later_ns;
        let full_ns = ICMP_BURST * ICMP_INTERVAL_NS;
        self.icmp_credit_ns = self.icmp_credit_ns.saturating_add(later_ns).min(full_ns);

        let packet = Packet { bytes: kept.to_vec(), wire_bytes: wire_bytes as usize };
        let (outcome, decided) = match ingress {
            PortId::Lan => {
                let outcome = self.classes.packet(kept, wire_bytes, received_ns).outcome;
                (outcome, self.outbound(packet, outcome))
            }
            PortId::Wan => {
                let outcome = self.classes.packet_from_wan(kept, received_ns).outcome;
                (outcome, self.inbound(packet))
            }
        };
        let made = std::mem::take(&mut self.made);
        self.in_outbox += made.len();
        RoutedAnswer { outcome, fate: decided.unwrap_or_else(Fate::Dropped), made }
    }

    fn outbound(&mut self, mut packet: Packet, outcome: Outcome) -> Decided {
        let class = match outcome {
            Outcome::Classified(class) => class,
            Outcome::Untouched(Untouched::NonIp) => return Err(DropReason::LeftToKernel),
            Outcome::Untouched(Untouched::Malformed) => return Err(DropReason::Malformed),
            Outcome::Untouched(_) => Class::Short,
        };
        // Tagged frames are the kernel's, when it can be seen what they are.
        if packet.bytes.len() >= IP && is_tag(u16_at(&packet.bytes, 12)) {
            return Err(match packet.has_whole_tags() {
                true => DropReason::LeftToKernel,
                false => DropReason::Truncated,
            });
        }
        if !packet.has_header() {
            return Err(DropReason::Truncated);
        }
        let destination = packet.destination();
        let remote = &self.routed.remote_prefixes.value;
        if !remote.iter().any(|net| net.contains(&destination)) || self.is_own(destination) {
            return Err(DropReason::LeftToKernel);
        }
        self.take_hop(&mut packet, None)?;
        let lane = class as usize;
        let is_classified = matches!(outcome, Outcome::Classified(_));
        let (mark, next_hop) = match self.routed.lanes[lane].value {
            Lane::Gre(tunnel) => return self.enter(packet, lane, &tunnel),
            Lane::Mark(mark) => (Some(mark), None),
            Lane::NextHop { address, mark } => (mark, Some(address)),
        };
        if let Some(mark) = mark.filter(|_| is_classified) {
            packet.mark(mark.dscp());
        }
        let next = self.next(next_hop.unwrap_or(destination));
        let bytes = packet.ip_bytes();
        let fate = self.send(packet, next, None)?;
        self.tally(lane, bytes);
        Ok(fate)
    }

    /// Through a tunnel: clamped, then as it is, in pieces, or not at all.
    fn enter(&mut self, mut packet: Packet, lane: usize, tunnel: &Tunnel) -> Decided {
        let mtu_bytes = self.inner_mtu_bytes(tunnel);
        self.counters.mss_clamped += u64::from(packet.clamp(mtu_bytes));
        if packet.ip_bytes() > mtu_bytes {
            return self.too_big(&packet, mtu_bytes, Onward::Tunnel(lane, tunnel), None);
        }
        match self.next(tunnel.remote) {
            Next::Known { port, macs, .. } => {
                Ok(Fate::Sent(self.encapsulate(&packet, (port, macs), lane, tunnel)?))
            }
            Next::Unresolved => Err(DropReason::Unresolved),
            // A tunnel whose end is ours or nobody's leads nowhere.
            Next::Kernel | Next::None => {
                self.tell(&packet, Told::Unreachable, None);
                Err(DropReason::NoRoute)
            }
        }
    }

    fn encapsulate(
        &mut self,
        packet: &Packet,
        (port, macs): (PortId, [u8; 12]),
        lane: usize,
        tunnel: &Tunnel,
    ) -> Result<Sent, DropReason> {
        // A checksum is over all of it, so all of it must be there.
        let sums_all = tunnel.checksum || tunnel.udp && tunnel.local.is_ipv6();
        let end = IP + packet.ip_bytes();
        if sums_all && packet.bytes.len() < end {
            self.counters.not_encapsulated.truncated += 1;
            return Err(DropReason::NoRoom);
        }
        let inner = &packet.bytes[IP..packet.bytes.len().min(end)];
        let numbers =
            wire::Numbers { sequence: self.sequence[lane], identification: self.identification };
        if tunnel.sequence {
            self.sequence[lane] = self.sequence[lane].wrapping_add(1);
        }
        if tunnel.local.is_ipv4() && !tunnel.dont_fragment {
            self.identification = self.identification.wrapping_add(1);
        }
        let outer = wire::outer_headers(tunnel, inner, packet.ip_bytes(), &numbers);
        let bytes = outer.len() + packet.ip_bytes();
        self.tally(lane, bytes);
        let ether_type: [u8; 2] = if tunnel.local.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        let frame = [&macs[..], &ether_type, &outer, inner].concat();
        Ok(Sent { port, frame, wire_bytes: (IP + bytes) as u32, is_tunnelled: true })
    }

    fn inbound(&mut self, packet: Packet) -> Decided {
        let tunnels: Vec<Tunnel> = self.routed.tunnels().map(|(_, tunnel)| *tunnel).collect();
        if border::concerns(&packet, &tunnels) {
            let arrived = border::decapsulate(&packet, &self.routed).map_err(|refusal| {
                *self.counters.refused.of(refusal) += 1;
                DropReason::Refused
            })?;
            let lane = &mut self.counters.lanes[arrived.lane];
            lane.received += 1;
            lane.received_bytes += arrived.inner.ip_bytes() as u64;
            self.counters.ecn_alarms.dangerous += u64::from(arrived.is_dangerous);
            self.counters.ecn_alarms.unused += u64::from(arrived.is_unused);
            return self.deliver(arrived.inner, Some(arrived.lane));
        }
        if packet.is_icmp_error_to(&tunnels) {
            return Err(DropReason::PathError);
        }
        if !self.routed.has_plain_lane() {
            return Err(DropReason::LeftToKernel);
        }
        if !packet.is_sound() {
            return Err(DropReason::Malformed);
        }
        let fate = self.deliver(packet, None)?;
        self.counters.plain_in += 1;
        Ok(fate)
    }

    /// To a host of this site.
    fn deliver(&mut self, mut packet: Packet, lane: Option<usize>) -> Decided {
        let destination = packet.destination();
        let local = &self.routed.local_prefixes.value;
        if !local.iter().any(|net| net.contains(&destination)) || self.is_own(destination) {
            return Err(DropReason::LeftToKernel);
        }
        self.take_hop(&mut packet, lane)?;
        let next = self.next(destination);
        if let (Next::Known { mtu_bytes, .. }, Some(tunnel)) = (&next, self.tunnel_of(lane)) {
            let mtu_bytes = self.inner_mtu_bytes(&tunnel).min(*mtu_bytes);
            self.counters.mss_clamped += u64::from(packet.clamp(mtu_bytes));
        }
        self.send(packet, next, lane)
    }

    fn send(&mut self, mut packet: Packet, next: Next, lane: Option<usize>) -> Decided {
        match next {
            Next::Known { port, macs, mtu_bytes } => {
                packet.bytes[..12].copy_from_slice(&macs);
                if packet.ip_bytes() > mtu_bytes {
                    return self.too_big(&packet, mtu_bytes, Onward::Port(port), lane);
                }
                let wire_bytes = packet.wire_bytes as u32;
                Ok(Fate::Sent(Sent { port, frame: packet.bytes, wire_bytes, is_tunnelled: false }))
            }
            Next::Unresolved => Err(DropReason::Unresolved),
            Next::Kernel => Err(DropReason::LeftToKernel),
            Next::None => {
                self.tell(&packet, Told::Unreachable, lane);
                Err(DropReason::NoRoute)
            }
        }
    }

    fn take_hop(&mut self, packet: &mut Packet, lane: Option<usize>) -> Result<(), DropReason> {
        if packet.hops() <= 1 {
            self.tell(packet, Told::TimeExceeded, lane);
            return Err(DropReason::HopLimit);
        }
        packet.take_hop();
        Ok(())
    }

    /// In pieces, when IPv4 allows it; else its sender is told, by the lane it came in.
    fn too_big(
        &mut self,
        packet: &Packet,
        mtu_bytes: usize,
        onward: Onward<'_>,
        came_by: Option<usize>,
    ) -> Decided {
        let pieces = packet.pieces(mtu_bytes).inspect_err(|reason| {
            if *reason == DropReason::TooBig {
                self.tell(packet, Told::TooBig(mtu_bytes), came_by);
            }
        })?;
        let (way, overhead_bytes) = match onward {
            Onward::Port(port) => ((port, [0; 12]), 0),
            Onward::Tunnel(_, tunnel) => match self.next(tunnel.remote) {
                Next::Known { port, macs, .. } => ((port, macs), wire::overhead_bytes(tunnel)),
                Next::Unresolved => return Err(DropReason::Unresolved),
                Next::Kernel => return Err(DropReason::LeftToKernel),
                Next::None => return Err(DropReason::NoRoute),
            },
        };
        // The gateway reckons with headers as long as can be.
        let reckoned = packet.ip_bytes() / (mtu_bytes - 67) + 1;
        let frame_bytes = IP + mtu_bytes + overhead_bytes;
        if reckoned > MADE_MAX - self.in_outbox || frame_bytes > MADE_BYTES_MAX {
            return Err(DropReason::NoRoom);
        }
        self.counters.fragmented += 1;
        for piece in pieces {
            self.counters.fragments += 1;
            let sent = match onward {
                Onward::Tunnel(lane, tunnel) => self.encapsulate(&piece, way, lane, tunnel)?,
                Onward::Port(port) => {
                    let wire_bytes = piece.wire_bytes as u32;
                    Sent { port, frame: piece.bytes, wire_bytes, is_tunnelled: false }
                }
            };
            self.made.push(sent);
        }
        Ok(Fate::InPieces { wire_bytes: packet.wire_bytes as u32 })
    }

    /// An ICMP error to the sender, through the tunnel of the lane that its packet came by, if it did.
    fn tell(&mut self, packet: &Packet, told: Told, lane: Option<usize>) {
        let is_allowed = self.icmp_credit_ns >= ICMP_INTERVAL_NS;
        if is_allowed {
            self.icmp_credit_ns -= ICMP_INTERVAL_NS;
        }
        let sent = if is_allowed { self.error_about(packet, told, lane) } else { None };
        let icmp = &mut self.counters.icmp;
        *match told {
            _ if sent.is_none() => &mut icmp.withheld,
            Told::TimeExceeded => &mut icmp.time_exceeded,
            Told::TooBig(_) => &mut icmp.too_big,
            Told::Unreachable => &mut icmp.unreachable,
        } += 1;
        self.made.extend(sent);
    }

    fn error_about(&mut self, packet: &Packet, told: Told, lane: Option<usize>) -> Option<Sent> {
        let tunnel = self.tunnel_of(lane);
        let back = tunnel.map_or(packet.source(), |tunnel| tunnel.remote);
        let Next::Known { port, macs, .. } = self.next(back) else { return None };
        if self.in_outbox + self.made.len() >= MADE_MAX {
            return None;
        }
        // Ours: the LAN's before the WAN's.
        let own = self.fixed.ports.iter().flat_map(|port| &port.addresses).map(|net| net.addr());
        let source = own.into_iter().find(|own| own.is_ipv4() == packet.is_ipv4())?;
        let message = wire::icmp_error(packet, source, told)?;
        let frame = [&macs[..], &packet.bytes[12..14], &message].concat();
        let error = Packet { wire_bytes: frame.len(), bytes: frame };
        match (tunnel, lane) {
            (Some(tunnel), Some(lane)) => {
                self.encapsulate(&error, (port, macs), lane, &tunnel).ok()
            }
            _ => {
                let wire_bytes = error.wire_bytes as u32;
                Some(Sent { port, frame: error.bytes, wire_bytes, is_tunnelled: false })
            }
        }
    }

    /// The longest prefix decides; connected networks are routes too.
    fn next(&self, destination: IpAddr) -> Next {
        if wire::is_for_no_router(destination) || self.is_own(destination) {
            return Next::Kernel;
        }
        let connected = PortId::ALL.into_iter().flat_map(|port| {
            let addresses = self.fixed.ports[port.index()].addresses.iter();
            addresses.map(move |net| (net.trunc(), None, port))
        });
        // Of two routes to one network the later one replaces the other.
        let routes = connected.chain(self.fixed.routes.iter().copied());
        let best = routes
            .filter(|(net, ..)| net.contains(&destination))
            .max_by_key(|(net, ..)| net.prefix_len());
        let Some((_, gateway, port)) = best else { return Next::None };
        let neighbour = gateway.unwrap_or(destination);
        let mut known = self.fixed.neighbours.iter().rev();
        let Some((_, _, mac)) = known.find(|(by, at, _)| (*by, *at) == (port, neighbour)) else {
            return Next::Unresolved;
        };
        let own = &self.fixed.ports[port.index()];
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(mac);
        macs[6..].copy_from_slice(&own.mac);
        Next::Known { port, macs, mtu_bytes: own.mtu_bytes as usize }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.fixed.ports.iter().flat_map(|port| &port.addresses).any(|net| net.addr() == address)
    }

    fn tunnel_of(&self, lane: Option<usize>) -> Option<Tunnel> {
        self.routed.lanes[lane?].value.tunnel().copied()
    }

    /// Largest packet that fits into the tunnel.
    fn inner_mtu_bytes(&self, tunnel: &Tunnel) -> usize {
        let wan_bytes = self.fixed.ports[PortId::Wan.index()].mtu_bytes as usize;
        let own_bytes = tunnel.mtu_bytes.map_or(wan_bytes, usize::from);
        let port_bytes = match self.next(tunnel.remote) {
            Next::Known { mtu_bytes, .. } => mtu_bytes,
            _ => usize::MAX,
        };
        own_bytes.min(port_bytes) - wire::overhead_bytes(tunnel)
    }

    fn tally(&mut self, lane: usize, bytes: usize) {
        self.counters.lanes[lane].sent += 1;
        self.counters.lanes[lane].sent_bytes += bytes as u64;
    }
}

/// How pieces go on.
#[derive(Clone, Copy)]
enum Onward<'a> {
    Port(PortId),
    Tunnel(usize, &'a Tunnel),
}
