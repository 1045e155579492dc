//! The router: what a gateway in routed mode does to a packet once its class is known.
//!
//! ```text
//!   LAN -> WAN   hop limit - MSS - size - lane: mark, next hop, or GRE around it   -> next hop of the lane
//!   WAN -> LAN   border: GRE taken off and judged - hop limit - MSS - size         -> next hop of the route
//! ```
//!
//! Safe code without input or output, as the gateway it belongs to. Routes and neighbours come as snapshots
//! ([`Fib`]); what is to be sent besides the packets themselves, and what has to wait, goes to the [`Outbox`].
//!
//! Only what the configuration gives to the gateway is its own: packets from the LAN to networks of the other
//! sites, tunnel packets to its own ends, ICMP errors about those. All else is the kernel's
//! ([`DropReason::LeftToKernel`]); on a port the XDP program has left it there already.

mod arrival;
mod counters;
mod errors;
mod express;
mod header;
mod way;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::batch::{Packet, PortId};
use crate::fib::{Fib, LINK_HEADER_BYTES};
use crate::lane::Lane;
use crate::lane::decapsulation::Decapsulator;
use crate::lane::encapsulation::Encapsulator;
use crate::lane::path_mtu::PathMtus;
use crate::lane::prefixes::Prefixes;
use crate::lane::rate_limit::RateLimit;
use crate::lane::sequence::Numbers;
use crate::outbox::{Outbox, Wait};
use crate::verdict::{Class, DropReason, Outcome, Untouched, Verdict};
use crate::wire::ethernet;
use crate::wire::hop;
use crate::wire::mss;

use arrival::Stretches;
pub use counters::{IcmpCounters, LaneCounters, RouterCounters};
use errors::{Onward, Told};
use express::Express;
use header::{Header, flow_hash_of, hash_of, is_sound, may_be_syn};
use way::{Next, Way};

/// Where the IP header is: frames in routed mode have no tags.
const IP: usize = ethernet::HEADER_BYTES;
/// ICMP errors a second, and in a burst, each worker.
const ICMP_PER_SECOND: u32 = 1000;
const ICMP_BURST: u32 = 50;

/// What a router is made of; the same for all workers.
#[derive(Debug, Clone)]
pub struct Site {
    /// Networks behind the LAN port.
    pub local: Prefixes,
    /// Networks of the other sites.
    pub remote: Prefixes,
    /// Short, then long.
    pub lanes: [Lane; 2],
    /// What each lane's tunnel numbers its packets with; shared by all workers.
    numbers: [Numbers; 2],
    /// Of the tunnels, in the order of their lanes; shared by all workers.
    path_mtus: PathMtus,
    /// The same.
    border: Decapsulator,
}

impl Site {
    /// From the configuration, which has been checked, and the MTU of the WAN port.
    ///
    /// # Panics
    ///
    /// When there are more than [`PREFIXES_MAX`](crate::lane::prefixes::PREFIXES_MAX) prefixes at a site.
    pub fn new(local: &[IpNet], remote: &[IpNet], lanes: [Lane; 2], mtu_bytes: u32) -> Self {
        let prefixes = |nets: &[IpNet]| {
            let nets: Vec<_> = nets.iter().map(|net| (net.network(), net.prefix_len())).collect();
            Prefixes::new(&nets).expect("the configuration has no more of them")
        };
        let first = Numbers::default();
        let second = Numbers::with_identifications_of(&first);
        let numbers = [first, second];
        let mut path_mtus = PathMtus::default();
        for (lane, numbers) in lanes.iter().zip(&numbers) {
            let Lane::Gre(tunnel) = lane else { continue };
            let overhead_bytes = Encapsulator::new(tunnel, numbers.clone()).overhead_bytes() as u16;
            let port_mtu_bytes = u16::try_from(mtu_bytes).unwrap_or(u16::MAX);
            let mtu_bytes = tunnel.mtu_bytes.unwrap_or(port_mtu_bytes);
            path_mtus.add(tunnel, numbers.clone(), overhead_bytes, mtu_bytes);
        }
        let (local, remote) = (prefixes(local), prefixes(remote));
        let tunnels: Vec<_> = lanes.iter().filter_map(Lane::tunnel).copied().collect();
        let border = Decapsulator::new(&tunnels, remote.clone(), local.clone());
        Site { local, remote, lanes, numbers, path_mtus, border }
    }
}

/// Lanes, border and routes of one worker.
#[derive(Debug)]
pub struct Router {
    fib: Arc<Fib>,
    local: Prefixes,
    remote: Prefixes,
    ways: [Way; 2],
    /// Of both ways.
    express: [Option<Express>; 2],
    has_plain_lane: bool,
    /// Whether this machine has an address in a network of another site.
    has_own_remote: bool,
    /// Lane of each tunnel.
    lane_of_tunnel: Vec<usize>,
    /// Where our tunnels end.
    tunnel_ends: Vec<IpAddr>,
    border: Decapsulator,
    /// Of `fib`.
    stretches: Stretches,
    /// Whether its counters have what sequence numbers tell all workers together.
    is_first: bool,
    path_mtus: PathMtus,
    icmp_limit: RateLimit,
    counters: RouterCounters,
    outbox: Outbox,
}

impl Router {
    /// All memory is taken here.
    pub fn new(site: &Site, fib: Arc<Fib>) -> Self {
        let (mut tunnels, mut lane_of_tunnel) = (Vec::new(), Vec::new());
        let ways = [0, 1].map(|lane| {
            let way = Way::new(
                &site.lanes[lane],
                tunnels.len(),
                &site.numbers[lane],
                &site.path_mtus,
                &fib,
            );
            if let Lane::Gre(tunnel) = &site.lanes[lane] {
                tunnels.push(*tunnel);
                lane_of_tunnel.push(lane);
            }
            way
        });
        Router {
            has_own_remote: has_own(&fib, &site.remote),
            has_plain_lane: tunnels.len() < ways.len(),
            border: site.border.clone(),
            stretches: Stretches::new(),
            is_first: true,
            fib,
            local: site.local.clone(),
            remote: site.remote.clone(),
            express: ways.each_ref().map(Way::express),
            ways,
            lane_of_tunnel,
            tunnel_ends: tunnels.iter().map(|tunnel| tunnel.local).collect(),
            path_mtus: site.path_mtus.clone(),
            icmp_limit: RateLimit::new(ICMP_PER_SECOND, ICMP_BURST),
            counters: RouterCounters::default(),
            outbox: Outbox::new(),
        }
    }

    /// The same for a worker beside the first, whose counters have already what all workers share.
    pub fn beside_the_first(mut self) -> Self {
        self.is_first = false;
        self
    }

    /// Other routes from the next packet on.
    pub fn set_fib(&mut self, fib: Arc<Fib>) {
        for way in &mut self.ways {
            way.follow(&fib);
        }
        self.express = self.ways.each_ref().map(Way::express);
        self.has_own_remote = has_own(&fib, &self.remote);
        self.stretches = Stretches::new();
        self.fib = fib;
    }

    /// What was made, and what waits, since it was emptied.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The Ethernet header to a next hop on a port, its EtherType left open, once it is known.
    pub fn link_to(&self, port: PortId, address: IpAddr) -> Option<[u8; LINK_HEADER_BYTES]> {
        match Next::to(&self.fib, address, 0) {
            Next::Known { port: by, link, .. } if by == port => Some(link),
            _ => None,
        }
    }

    /// Frames made that could not be sent.
    pub fn count_not_sent(&mut self, frames: u64) {
        self.counters.not_sent += frames;
    }

    /// Everything that was counted.
    pub fn counters(&self) -> RouterCounters {
        let mut counters = self.counters;
        counters.refused = *self.border.refusals();
        counters.ecn_alarms = self.border.ecn_alarms();
        counters.path_mtu_lowered = self.path_mtus.lowered();
        counters.path_errors_refused = *self.path_mtus.refusals();
        for (tunnel, &lane) in self.lane_of_tunnel.iter().enumerate().filter(|_| self.is_first) {
            counters.lanes[lane].sequence = self.border.sequence(tunnel);
        }
        counters
    }

    /// The end of a batch.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.border.settle();
    }

    /// Decides on a packet whose class is known, the one at `position` of its batch, and rewrites it. `flow_hash`
    /// tells the flows of classified packets apart.
    #[inline]
    pub(crate) fn route(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        ip_offset: usize,
        flow_hash: u64,
        now_ns: u64,
    ) {
        let taken = match packet.ingress {
            PortId::Lan => self.express(packet, now_ns),
            PortId::Wan => self.arrive(packet),
        };
        if let Some(port) = taken {
            packet.verdict = Verdict::Transmit(port);
            return;
        }
        let decided = match packet.ingress {
            PortId::Lan => self.outbound(packet, position, ip_offset, flow_hash, now_ns),
            PortId::Wan => self.inbound(packet, position, now_ns),
        };
        packet.verdict = decided.unwrap_or_else(Verdict::Drop);
    }

    /// See [`Express`].
    #[inline(always)]
    fn express(&mut self, packet: &mut Packet<'_>, now_ns: u64) -> Option<PortId> {
        let Outcome::Classified(class) = packet.outcome else { return None };
        let lane = class as usize;
        let express = self.express[lane].as_ref().filter(|_| !self.has_own_remote)?;
        let port = express.take(packet, &self.remote, now_ns)?;
        self.tally(lane, packet.wire_bytes - IP as u32);
        Some(port)
    }

    #[inline(never)]
    fn outbound(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        ip_offset: usize,
        flow_hash: u64,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        let class = match packet.outcome {
            Outcome::Classified(class) => class,
            Outcome::Untouched(Untouched::NonIp) => return Err(DropReason::LeftToKernel),
            Outcome::Untouched(Untouched::Malformed) => return Err(DropReason::Malformed),
            Outcome::Untouched(_) => Class::Short,
        };
        if ip_offset != IP {
            return Err(DropReason::LeftToKernel);
        }
        let header = Header::of(&packet.bytes).ok_or(DropReason::Truncated)?;
        let is_own = self.has_own_remote && self.fib.is_own(header.destination());
        if !header.is_to(&self.remote) || is_own {
            return Err(DropReason::LeftToKernel);
        }
        self.check_hop(packet, &header, None, now_ns)?;
        let flow_hash = match packet.outcome {
            Outcome::Classified(_) => flow_hash,
            Outcome::Untouched(_) => hash_of(&header),
        };
        let lane = class as usize;
        match &self.ways[lane] {
            Way::Plain { next_hop, mark } => {
                hop::take(&mut packet.bytes, IP);
                if let (Some(mark), Outcome::Classified(_)) = (mark, packet.outcome) {
                    mark.apply(&mut packet.bytes, IP);
                }
                let next = Next::via(&self.fib, *next_hop, header.destination(), flow_hash as u32);
                let verdict = self.send(packet, position, &header, next, None, now_ns)?;
                self.tally(lane, header.bytes);
                Ok(verdict)
            }
            Way::Tunnel(_) => self.enter_tunnel(packet, position, &header, lane, flow_hash, now_ns),
        }
    }

    /// Encapsulates a packet that fits, cuts up one that does not and may be, and tells the sender of any other.
    #[inline(always)]
    fn enter_tunnel(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        header: &Header,
        lane: usize,
        flow_hash: u64,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        let inner_mtu_bytes = self.inner_mtu_bytes(lane, now_ns);
        self.clamp(packet, inner_mtu_bytes);
        let Way::Tunnel(way) = &self.ways[lane] else { unreachable!("the caller looked") };
        let entropy = (flow_hash >> 16) as u16;
        let is_too_big = header.bytes > u32::from(inner_mtu_bytes);
        // A packet is moved slowly when some of its bytes were just written: the hop is written after the move,
        // unless the packet is summed or quoted before it.
        let takes_hop_first =
            is_too_big || way.encapsulator.sums_payload() || matches!(way.next, Next::Nowhere(_));
        let hop = hop::taken(&packet.bytes, IP);
        if takes_hop_first {
            hop.write(&mut packet.bytes, IP);
        }
        if is_too_big {
            let onward = Onward::Tunnel { lane, entropy };
            return self.too_big(packet, *header, inner_mtu_bytes, onward, None, now_ns);
        }
        let (verdict, link) = match &way.next {
            Next::Known { port, link, .. } => (Verdict::Transmit(*port), link),
            &Next::Unresolved { port, address } => {
                if !self.outbox.wait(Wait { position, port, address }) {
                    return Err(DropReason::Unresolved);
                }
                (Verdict::Wait, &[0; LINK_HEADER_BYTES])
            }
            Next::Nowhere(_) => {
                self.tell(packet, *header, Told::Unreachable, None, now_ns);
                return Err(DropReason::NoRoute);
            }
        };
        match way.encapsulator.encapsulate(&mut packet.bytes, link, entropy) {
            Ok(wire_bytes) => {
                packet.wire_bytes = wire_bytes as u32;
                if !takes_hop_first {
                    hop.write(&mut packet.bytes, IP + way.encapsulator.overhead_bytes());
                }
            }
            Err(refusal) => {
                *self.counters.not_encapsulated.of(refusal) += 1;
                self.outbox.forget_wait(position);
                return Err(DropReason::NoRoom);
            }
        }
        self.tally(lane, packet.wire_bytes - IP as u32);
        Ok(verdict)
    }

    fn inbound(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        if self.border.concerns(&packet.bytes) {
            let wire_bytes = packet.wire_bytes as usize;
            let Ok(inner) = self.border.decapsulate(&mut packet.bytes, wire_bytes) else {
                return Err(DropReason::Refused);
            };
            let lane = self.lane_of_tunnel[inner.lane];
            packet.wire_bytes = inner.wire_bytes as u32;
            self.counters.lanes[lane].received += 1;
            self.counters.lanes[lane].received_bytes += (inner.wire_bytes - IP) as u64;
            return self.deliver(packet, position, Some(lane), now_ns);
        }
        if self.is_path_error(&packet.bytes) {
            self.take_path_error(packet, now_ns);
            return Err(DropReason::PathError);
        }
        if !self.has_plain_lane {
            return Err(DropReason::LeftToKernel);
        }
        if !is_sound(packet) {
            return Err(DropReason::Malformed);
        }
        let verdict = self.deliver(packet, position, None, now_ns)?;
        self.counters.plain_in += 1;
        Ok(verdict)
    }

    /// To the LAN, out of the tunnel of a lane or without one.
    fn deliver(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        lane: Option<usize>,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        let header = Header::of(&packet.bytes).ok_or(DropReason::Truncated)?;
        if !header.is_to(&self.local) || self.fib.is_own(header.destination()) {
            return Err(DropReason::LeftToKernel);
        }
        self.check_hop(packet, &header, lane, now_ns)?;
        hop::take(&mut packet.bytes, IP);
        let flow_hash = flow_hash_of(&header, &packet.bytes);
        packet.flow_hash = lane.map(|_| flow_hash);
        let next = Next::to(&self.fib, header.destination(), flow_hash);
        if let (Next::Known { mtu_bytes, .. }, Some(lane)) = (next, lane) {
            // What this segment's receiver sends goes back through the lane.
            let mtu_bytes = mtu_bytes.min(u32::from(self.inner_mtu_bytes(lane, now_ns)));
            self.clamp(packet, mtu_bytes as u16);
        }
        self.send(packet, position, &header, next, lane, now_ns)
    }

    /// Out of a port without a tunnel. `lane` is the one the packet came in by.
    fn send(
        &mut self,
        packet: &mut Packet<'_>,
        position: usize,
        header: &Header,
        next: Next,
        lane: Option<usize>,
        now_ns: u64,
    ) -> Result<Verdict, DropReason> {
        match next {
            Next::Known { port, link, mtu_bytes } => {
                packet.bytes[..IP].copy_from_slice(&link);
                if header.bytes > mtu_bytes {
                    let mtu_bytes = u16::try_from(mtu_bytes).unwrap_or(u16::MAX);
                    return self.too_big(
                        packet,
                        *header,
                        mtu_bytes,
                        Onward::Port(port),
                        lane,
                        now_ns,
                    );
                }
                Ok(Verdict::Transmit(port))
            }
            Next::Unresolved { port, address } => {
                let fits = self.fib.port(port).is_none_or(|port| header.bytes <= port.mtu_bytes);
                if !fits {
                    // It can be cut up or answered once the next hop is known; the next one like it will be.
                    self.outbox.ask(port, address);
                    return Err(DropReason::Unresolved);
                }
                if self.outbox.wait(Wait { position, port, address }) {
                    Ok(Verdict::Wait)
                } else {
                    Err(DropReason::Unresolved)
                }
            }
            Next::Nowhere(reason) => {
                if reason == DropReason::NoRoute {
                    self.tell(packet, *header, Told::Unreachable, lane, now_ns);
                }
                Err(reason)
            }
        }
    }

    /// Whether a hop can be taken from a packet; when not, its sender is told.
    #[inline(always)]
    fn check_hop(
        &mut self,
        packet: &Packet<'_>,
        header: &Header,
        lane: Option<usize>,
        now_ns: u64,
    ) -> Result<(), DropReason> {
        if hop::is_last(&packet.bytes, IP) {
            self.tell(packet, *header, Told::TimeExceeded, lane, now_ns);
            return Err(DropReason::HopLimit);
        }
        Ok(())
    }

    /// Largest packet that may enter a lane's tunnel at this moment.
    #[inline]
    fn inner_mtu_bytes(&self, lane: usize, now_ns: u64) -> u16 {
        let Way::Tunnel(way) = &self.ways[lane] else { return u16::MAX };
        let path = way.path.inner_bytes(now_ns);
        match way.next {
            Next::Known { mtu_bytes, .. } => {
                let overhead_bytes = way.encapsulator.overhead_bytes() as u32;
                path.min(mtu_bytes.saturating_sub(overhead_bytes).min(0xffff) as u16)
            }
            Next::Unresolved { .. } | Next::Nowhere(_) => path,
        }
    }

    #[inline(always)]
    fn clamp(&mut self, packet: &mut Packet<'_>, mtu_bytes: u16) {
        if !may_be_syn(&packet.bytes) {
            return;
        }
        self.clamp_syn(packet, mtu_bytes);
    }

    #[cold]
    fn clamp_syn(&mut self, packet: &mut Packet<'_>, mtu_bytes: u16) {
        let wire_bytes = packet.wire_bytes as usize;
        let clamped = mss::clamp(&mut packet.bytes, wire_bytes, IP, mtu_bytes);
        self.counters.mss_clamped += u64::from(clamped);
    }

    #[inline]
    fn tally(&mut self, lane: usize, bytes: u32) {
        self.counters.lanes[lane].sent += 1;
        self.counters.lanes[lane].sent_bytes += u64::from(bytes);
    }
}

/// Whether this machine has an address in one of these networks.
fn has_own(fib: &Fib, prefixes: &Prefixes) -> bool {
    fib.own_addresses().iter().any(|address| match address {
        IpAddr::V4(address) => prefixes.contains_ipv4(address.to_bits()),
        IpAddr::V6(address) => prefixes.contains_ipv6(address.to_bits()),
    })
}
