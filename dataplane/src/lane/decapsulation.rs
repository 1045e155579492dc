//! Decapsulation: the border of a site. What arrives in a tunnel is checked from the outside in, and only a
//! packet that our peer could have sent for our networks comes out.
//!
//! ```text
//!   Ethernet | IP | (UDP) | GRE | inner IP ... | padding      what goes in
//!   Ethernet | inner IP ...                                   what comes out
//! ```
//!
//! Invariant: every packet given is accepted or counted under one [`Refusal`], the first in this order that
//! applies: outer lengths, outer header checksum, destination, source, fragment, protocol, UDP, GRE header,
//! key, GRE checksum, inner protocol, inner header, tunnel in a tunnel, inner source, inner destination, ECN.
//!
//! Nothing is reassembled: a peer that must fragment does so before it encapsulates, and an outer fragment is
//! refused. Of IPv6 extension headers only the tunnel encapsulation limit (RFC 2473 section 4.1.1) may stand
//! before GRE, for Linux puts it there unless told otherwise. A sequence number, where one comes, is looked at
//! once key and checksum were right, whatever is inside: it is about the way, not about what went it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;

use super::ecn::{self, EcnAlarms, Leaving};
use super::outer::Outer;
use super::pattern::{Pattern, Plain};
use super::prefixes::Prefixes;
use super::sequence::{SequenceCounts, Tracker};
use super::tunnel::Tunnel;
use crate::wire::buffer::Buffer;
use crate::wire::ethernet;
use crate::wire::frame::Version;
use crate::wire::window::{Unparsed, Window, u16_at, u64_at};
use crate::wire::{checksum, gre, ipv4, ipv6, udp};

/// Sequence numbers that may wait for [`Decapsulator::settle`]; one more settles them.
const HEARD_MAX: usize = 64;
/// Most tunnels of one border.
pub const TUNNELS_MAX: usize = 16;

super::reasons::reasons! {
    /// Why a packet was not let in. Nothing in it was changed.
    enum Refusal;
    /// Packets not let in, by reason.
    struct Refusals;
    /// Neither IPv4 nor IPv6 outside.
    NotIp not_ip,
    /// A capture record that kept too little to judge it.
    Truncated truncated,
    /// Lengths or versions of the outer headers that contradict each other.
    Malformed malformed,
    /// A wrong checksum of the outer IPv4 header.
    OuterChecksum outer_checksum,
    /// Not to an address where one of our tunnels ends.
    Destination destination,
    /// Not from the peer of a tunnel that ends there.
    Peer peer,
    /// A fragment of an outer packet.
    OuterFragment outer_fragment,
    /// Not the protocol of this peer's tunnels: GRE, or GRE in UDP.
    Protocol protocol,
    /// A wrong UDP checksum.
    UdpChecksum udp_checksum,
    /// UDP over IPv6 without a checksum (RFC 8086 section 3, default mode).
    UdpChecksumMissing udp_checksum_missing,
    /// A GRE version that is not 0.
    Version version,
    /// Source routing in GRE (RFC 1701).
    Routing routing,
    /// A reserved bit of GRE that is not zero.
    Reserved reserved,
    /// Not the key of one of this peer's tunnels, or one where there should be none, or none.
    Key key,
    /// A wrong GRE checksum.
    GreChecksum gre_checksum,
    /// Neither IPv4 nor IPv6 inside.
    InnerProtocol inner_protocol,
    /// An inner packet whose version or lengths contradict its GRE header, each other or the outer packet.
    InnerMalformed inner_malformed,
    /// A wrong checksum of the inner IPv4 header (RFC 1812 section 5.2.2).
    InnerChecksum inner_checksum,
    /// A second tunnel to ourselves inside.
    Nested nested,
    /// From an address that is not the remote site's.
    InnerSource inner_source,
    /// To an address that is not ours.
    InnerDestination inner_destination,
    /// Congestion was experienced by a packet whose transport does not know the word (RFC 6040 section 4.2).
    Congestion congestion,
}

/// A packet that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decapsulated {
    /// Which of the tunnels it came through, counted from 0.
    pub lane: usize,
    /// Of the inner packet, whose header starts at offset 14.
    pub version: Version,
    /// Bytes of the new frame on the wire; more than are in the buffer when it holds a cut capture record.
    pub wire_bytes: usize,
}

/// A tracker is whole between two packets, whoever panicked.
fn locked(tracker: &Mutex<Tracker>) -> MutexGuard<'_, Tracker> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of a tunnel, as its packets show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    version: Version,
    /// Source and destination as they stand in the header of what arrives; see `ipv4::Header`.
    addresses: [u64; 4],
    udp: bool,
    key: Option<u32>,
}

/// The way in, of one worker. Clones are for other workers: they share what sequence numbers tell, for the
/// packets of a tunnel may arrive at any of them, and count everything else for themselves.
#[derive(Debug, Clone)]
pub struct Decapsulator {
    peers: Vec<Peer>,
    /// Of those that have one.
    patterns: Vec<Pattern>,
    sources: Prefixes,
    destinations: Prefixes,
    /// Our ends, each once.
    locals_ipv4: Vec<u32>,
    locals_ipv6: Vec<u128>,
    /// Shared by clones.
    trackers: Vec<Arc<Mutex<Tracker>>>,
    /// Tunnels and sequence numbers that the trackers have not seen yet.
    heard: ArrayVec<(usize, u32), HEARD_MAX>,
    accepted: u64,
    refusals: Refusals,
    ecn_alarms: EcnAlarms,
}

/// The inner packet, before it is let in.
struct Inner {
    version: Version,
    offset: usize,
    bytes: usize,
}

impl Decapsulator {
    /// Lets in what comes through `tunnels`, from `sources` (the remote site's networks) to `destinations`
    /// (ours).
    ///
    /// # Panics
    ///
    /// When there are more than [`TUNNELS_MAX`] tunnels, or one changes its IP version.
    pub fn new(tunnels: &[Tunnel], sources: Prefixes, destinations: Prefixes) -> Self {
        assert!(tunnels.len() <= TUNNELS_MAX, "{} tunnels are too many", tunnels.len());
        let mut locals_ipv4 = Vec::new();
        let mut locals_ipv6 = Vec::new();
        for tunnel in tunnels {
            match tunnel.local {
                IpAddr::V4(local) => locals_ipv4.push(local.to_bits()),
                IpAddr::V6(local) => locals_ipv6.push(local.to_bits()),
            }
        }
        locals_ipv4.sort_unstable();
        locals_ipv4.dedup();
        locals_ipv6.sort_unstable();
        locals_ipv6.dedup();
        let peers: Vec<Peer> = tunnels.iter().map(Peer::of).collect();
        let patterns = tunnels.iter().enumerate().filter_map(|(lane, tunnel)| {
            // Of two that cannot be told apart, the first has all packets.
            let is_first = !peers[..lane].contains(&peers[lane]);
            Pattern::of(lane, tunnel).filter(|_| is_first)
        });
        Decapsulator {
            patterns: patterns.collect(),
            peers,
            sources,
            destinations,
            locals_ipv4,
            locals_ipv6,
            trackers: tunnels.iter().map(|_| Arc::default()).collect(),
            heard: ArrayVec::new(),
            accepted: 0,
            refusals: Refusals::default(),
            ecn_alarms: EcnAlarms::default(),
        }
    }

    /// Packets let in.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Packets not let in.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// What the sequence numbers of a lane told.
    pub fn sequence(&self, lane: usize) -> SequenceCounts {
        locked(&self.trackers[lane]).counts()
    }

    /// Combinations of ECN fields that should not be.
    pub fn ecn_alarms(&self) -> EcnAlarms {
        self.ecn_alarms
    }

    /// Has the trackers look at the sequence numbers that came in: once a batch, because other workers wait
    /// for the lock meanwhile. With several workers, packets are in the order in which their batches were.
    #[inline]
    pub fn settle(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        for (tunnel, tracker) in self.trackers.iter().enumerate() {
            let mut numbers = self.heard.iter().filter(|(heard, _)| *heard == tunnel).peekable();
            if numbers.peek().is_some() {
                let mut tracker = locked(tracker);
                numbers.for_each(|(_, number)| tracker.observe(*number));
            }
        }
        self.heard.clear();
    }

    /// Whether this untagged frame is for [`decapsulate`](Decapsulator::decapsulate) to judge: GRE, or UDP to
    /// the port of GRE in UDP, to an address where one of our tunnels ends. Everything else that is addressed
    /// there is not ours to refuse, later fragments of UDP among it, which show no port. Checksums are not
    /// looked at.
    #[inline]
    pub fn concerns(&self, frame: &[u8]) -> bool {
        let window = Window::new(frame, usize::MAX / 2);
        let Ok(ethernet) = window.header::<{ ethernet::HEADER_BYTES }>(0, window.end()) else {
            return false;
        };
        match u16_at(ethernet, 12) {
            ethernet::IPV4 => self.concerns_ipv4(&window),
            ethernet::IPV6 => self.concerns_ipv6(&window),
            _ => false,
        }
    }

    fn concerns_ipv4(&self, window: &Window<'_>) -> bool {
        let Ok(header) = window.header::<{ ipv4::HEADER_BYTES }>(14, window.end()) else {
            return false;
        };
        if !self.locals_ipv4.contains(&(u64_at(header, 12) as u32)) {
            return false;
        }
        let is_later = u16_at(header, 6) & 0x1fff != 0;
        let offset = 14 + usize::from(header[0] & 0x0f) * 4;
        carries_gre(window, header[9], offset, is_later)
    }

    fn concerns_ipv6(&self, window: &Window<'_>) -> bool {
        let Ok(header) = window.header::<{ ipv6::HEADER_BYTES }>(14, window.end()) else {
            return false;
        };
        let destination = address_ipv6(u64_at(header, 24), u64_at(header, 32));
        if !self.locals_ipv6.contains(&destination) {
            return false;
        }
        ipv6::parse(window, 14).is_ok_and(|header| {
            carries_gre(window, header.protocol, header.payload_offset, header.later_fragment)
        })
    }

    /// Judges the untagged frame in `buffer`, of which `wire_bytes` were on the wire. When it is let in, the
    /// inner packet follows an Ethernet header of which only the EtherType is right, and ends the buffer.
    #[inline]
    pub fn decapsulate(
        &mut self,
        buffer: &mut Buffer<'_>,
        wire_bytes: usize,
    ) -> Result<Decapsulated, Refusal> {
        match self.judge(buffer, wire_bytes) {
            Ok(decapsulated) => {
                self.accepted += 1;
                Ok(decapsulated)
            }
            Err(refusal) => {
                *self.refusals.of(refusal) += 1;
                Err(refusal)
            }
        }
    }

    /// The plain packet in this untagged frame, if there is one that [`decapsulate`](Decapsulator::decapsulate) would
    /// let in, and that has a hop to spare. Nothing is counted.
    #[inline(always)]
    pub fn plain(&self, frame: &[u8]) -> Option<Plain> {
        let plain = Pattern::match_any(&self.patterns, frame)?;
        let is_between_sites = self.sources.contains_ipv4(plain.source)
            && self.destinations.contains_ipv4(plain.destination);
        is_between_sites.then_some(plain)
    }

    /// Lets in the plain packet that was found in this frame, and takes one hop from it. It follows an Ethernet header
    /// as what [`decapsulate`](Decapsulator::decapsulate) lets in does.
    #[inline(always)]
    pub fn let_in(&mut self, buffer: &mut Buffer<'_>, plain: &Plain) {
        if let Some(number) = plain.sequence {
            self.hear(plain.lane, number);
        }
        self.accepted += 1;
        plain.bare(buffer);
    }

    #[inline(always)]
    fn hear(&mut self, lane: usize, number: u32) {
        if self.heard.is_full() {
            self.settle();
        }
        self.heard.push((lane, number));
    }

    #[inline(always)]
    fn judge(
        &mut self,
        buffer: &mut Buffer<'_>,
        wire_bytes: usize,
    ) -> Result<Decapsulated, Refusal> {
        let window = Window::new(buffer, wire_bytes);
        let outer = Outer::read(&window)?;
        self.check_ends(&outer)?;
        if outer.is_fragment {
            return Err(Refusal::OuterFragment);
        }
        let gre_offset = self.check_protocol(&window, &outer)?;
        let header = gre::parse(&window, gre_offset, outer.payload_end)?;
        let lane = self.lane_of(&outer, header.key).ok_or(Refusal::Key)?;
        if header.checksum && !checksum::is_right(window.bytes(gre_offset, outer.payload_end)?) {
            return Err(Refusal::GreChecksum);
        }
        if let Some(number) = header.sequence {
            self.hear(lane, number);
        }
        let inner = self.check_inner(&window.up_to(outer.payload_end), &header)?;
        self.finish(buffer, lane, &inner, outer.ecn)
    }

    #[inline(always)]
    fn check_ends(&self, outer: &Outer) -> Result<(), Refusal> {
        if self.peers.iter().any(|peer| peer.is_at(outer)) {
            return Ok(());
        }
        let is_ours = match outer.version {
            Version::V4 => self.locals_ipv4.contains(&(outer.addresses[0] as u32)),
            Version::V6 => {
                let [_, _, upper, lower] = outer.addresses;
                self.locals_ipv6.contains(&address_ipv6(upper, lower))
            }
        };
        Err(if is_ours { Refusal::Peer } else { Refusal::Destination })
    }

    /// Where the GRE header starts.
    #[inline(always)]
    fn check_protocol(&self, window: &Window<'_>, outer: &Outer) -> Result<usize, Refusal> {
        let is_udp = match outer.protocol {
            gre::PROTOCOL => false,
            udp::PROTOCOL => true,
            _ => return Err(Refusal::Protocol),
        };
        if !self.peers.iter().any(|peer| peer.is_at(outer) && peer.udp == is_udp) {
            return Err(Refusal::Protocol);
        }
        if is_udp {
            outer.check_udp(window)?;
            return Ok(outer.payload_offset + udp::HEADER_BYTES);
        }
        Ok(outer.payload_offset)
    }

    #[inline(always)]
    fn lane_of(&self, outer: &Outer, key: Option<u32>) -> Option<usize> {
        let is_udp = outer.protocol == udp::PROTOCOL;
        self.peers
            .iter()
            .position(|peer| peer.is_at(outer) && peer.udp == is_udp && peer.key == key)
    }

    /// `window` ends where the outer packet does.
    #[inline(always)]
    fn check_inner(&self, window: &Window<'_>, header: &gre::Header) -> Result<Inner, Refusal> {
        match header.protocol {
            ethernet::IPV4 => self.check_inner_ipv4(window, header.payload_offset),
            ethernet::IPV6 => self.check_inner_ipv6(window, header.payload_offset),
            _ => Err(Refusal::InnerProtocol),
        }
    }

    #[inline(always)]
    fn check_inner_ipv4(&self, window: &Window<'_>, offset: usize) -> Result<Inner, Refusal> {
        let header = ipv4::parse(window, offset).map_err(inner_refusal)?;
        let bytes = window.bytes(offset, header.payload_offset).map_err(inner_refusal)?;
        if !checksum::header_is_right(bytes) {
            return Err(Refusal::InnerChecksum);
        }
        let (source, destination) = ((header.addresses >> 32) as u32, header.addresses as u32);
        if self.locals_ipv4.contains(&destination) {
            let payload = (header.payload_offset, header.payload_end);
            refuse_tunnel(window, header.protocol, payload, header.later_fragment)?;
        }
        if !self.sources.contains_ipv4(source) {
            return Err(Refusal::InnerSource);
        }
        if !self.destinations.contains_ipv4(destination) {
            return Err(Refusal::InnerDestination);
        }
        Ok(Inner { version: Version::V4, offset, bytes: header.payload_end - offset })
    }

    #[inline(always)]
    fn check_inner_ipv6(&self, window: &Window<'_>, offset: usize) -> Result<Inner, Refusal> {
        let header = ipv6::parse(window, offset).map_err(inner_refusal)?;
        let [upper, lower, to_upper, to_lower] = header.addresses;
        let (source, destination) = (address_ipv6(upper, lower), address_ipv6(to_upper, to_lower));
        if self.locals_ipv6.contains(&destination) {
            let payload = (header.payload_offset, header.payload_end);
            refuse_tunnel(window, header.protocol, payload, header.later_fragment)?;
        }
        if !self.sources.contains_ipv6(source) {
            return Err(Refusal::InnerSource);
        }
        if !self.destinations.contains_ipv6(destination) {
            return Err(Refusal::InnerDestination);
        }
        Ok(Inner { version: Version::V6, offset, bytes: header.payload_end - offset })
    }

    /// Combines the ECN fields, and takes the outer headers and whatever follows the inner packet away.
    #[inline(always)]
    fn finish(
        &mut self,
        buffer: &mut Buffer<'_>,
        lane: usize,
        inner: &Inner,
        outer_ecn: u8,
    ) -> Result<Decapsulated, Refusal> {
        let header = &mut buffer[inner.offset..];
        let inner_ecn = match inner.version {
            Version::V4 => header[1] & ecn::MASK,
            Version::V6 => header[1] >> 4 & ecn::MASK,
        };
        let combined = match ecn::leaving(inner_ecn, outer_ecn) {
            Leaving::Plain(field) => field,
            Leaving::Dangerous(field) => {
                self.ecn_alarms.dangerous += 1;
                field
            }
            Leaving::Unused(field) => {
                self.ecn_alarms.unused += 1;
                field
            }
            Leaving::Dropped => return Err(Refusal::Congestion),
        };
        if combined != inner_ecn {
            write_ecn(header, inner.version, combined);
        }
        let ether_type = gre::protocol_of(inner.version).to_be_bytes();
        buffer[12..14].copy_from_slice(&ether_type);
        buffer.truncate(inner.offset + inner.bytes);
        buffer.remove(ethernet::HEADER_BYTES, inner.offset - ethernet::HEADER_BYTES);
        let wire_bytes = ethernet::HEADER_BYTES + inner.bytes;
        Ok(Decapsulated { lane, version: inner.version, wire_bytes })
    }
}

impl Peer {
    fn of(tunnel: &Tunnel) -> Self {
        let (version, addresses) = match (tunnel.remote, tunnel.local) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let addresses = u64::from(from.to_bits()) << 32 | u64::from(to.to_bits());
                (Version::V4, [addresses, 0, 0, 0])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (from, to) = (from.to_bits(), to.to_bits());
                let words = [from >> 64, from, to >> 64, to];
                (Version::V6, words.map(|word| word as u64))
            }
            (from, to) => panic!("a tunnel from {to} to {from} changes its IP version"),
        };
        Peer { version, addresses, udp: tunnel.udp, key: tunnel.key }
    }

    #[inline(always)]
    fn is_at(&self, outer: &Outer) -> bool {
        // Word by word, as they were written: read as a whole just after that, they would be waited for.
        let differs = |word: usize| self.addresses[word] ^ outer.addresses[word];
        let difference = match outer.version {
            Version::V4 => differs(0),
            Version::V6 => differs(0) | differs(1) | differs(2) | differs(3),
        };
        self.version == outer.version && difference == 0
    }
}

impl From<Unparsed> for Refusal {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Truncated => Refusal::Truncated,
            Unparsed::Malformed | Unparsed::NonIp | Unparsed::NonTcp => Refusal::Malformed,
        }
    }
}

impl From<gre::Invalid> for Refusal {
    fn from(invalid: gre::Invalid) -> Self {
        match invalid {
            gre::Invalid::Version => Refusal::Version,
            gre::Invalid::Routing => Refusal::Routing,
            gre::Invalid::Reserved => Refusal::Reserved,
            gre::Invalid::Malformed => Refusal::Malformed,
            gre::Invalid::Truncated => Refusal::Truncated,
        }
    }
}

fn inner_refusal(unparsed: Unparsed) -> Refusal {
    match unparsed {
        Unparsed::Truncated => Refusal::Truncated,
        Unparsed::Malformed | Unparsed::NonIp | Unparsed::NonTcp => Refusal::InnerMalformed,
    }
}

/// Refuses GRE and GRE in UDP, in a packet to one of our own tunnels' ends.
#[inline(never)]
fn refuse_tunnel(
    window: &Window<'_>,
    protocol: u8,
    (offset, end): (usize, usize),
    is_later_fragment: bool,
) -> Result<(), Refusal> {
    if protocol == gre::PROTOCOL {
        return Err(Refusal::Nested);
    }
    if protocol == udp::PROTOCOL && !is_later_fragment {
        // Too short for its ports, it is no UDP and goes no further than its host.
        match window.header::<4>(offset, end) {
            Ok(ports) if u16_at(ports, 2) == udp::GRE_PORT => return Err(Refusal::Nested),
            Err(Unparsed::Truncated) => return Err(Refusal::Truncated),
            _ => {}
        }
    }
    Ok(())
}

/// Whether an IP payload is GRE or GRE in UDP, or a later fragment of something that could be.
#[inline(always)]
fn carries_gre(window: &Window<'_>, protocol: u8, offset: usize, is_later_fragment: bool) -> bool {
    match protocol {
        gre::PROTOCOL => true,
        udp::PROTOCOL if is_later_fragment => false,
        udp::PROTOCOL => window
            .header::<4>(offset, window.end())
            .is_ok_and(|ports| u16_at(ports, 2) == udp::GRE_PORT),
        _ => false,
    }
}

#[inline(always)]
fn address_ipv6(upper: u64, lower: u64) -> u128 {
    u128::from(upper) << 64 | u128::from(lower)
}

/// Writes the ECN field of the IP header that `header` starts with.
#[inline(always)]
fn write_ecn(header: &mut [u8], version: Version, field: u8) {
    match version {
        Version::V4 => {
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !ecn::MASK | field;
            let new = u16::from_be_bytes([header[0], header[1]]);
            let sum = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
        }
        Version::V6 => header[1] = header[1] & !(ecn::MASK << 4) | field << 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

    const BOTH: [Version; 2] = [Version::V4, Version::V6];
    const KEY: u32 = 7;

    fn tunnel(version: Version) -> Tunnel {
        let (local, remote) = match version {
            Version::V4 => ("192.0.2.1", "198.51.100.1"),
            Version::V6 => ("fd00:9::1", "fd00:9::2"),
        };
        Tunnel {
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
            key: Some(KEY),
            sequence: true,
            checksum: false,
            ttl: 64,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: None,
            udp: false,
        }
    }

    fn border() -> Decapsulator {
        let everyone = ["0.0.0.0", "::"].map(|any| (any.parse().expect("an address"), 0));
        let everyone = Prefixes::new(&everyone).expect("prefixes");
        Decapsulator::new(&BOTH.map(tunnel), everyone.clone(), everyone)
    }

    fn header(
        version: Version,
        protocol: IpNumber,
        traffic_class: u8,
        payload: &[u8],
        (source, destination): (IpAddr, IpAddr),
    ) -> Vec<u8> {
        let mut packet = Vec::new();
        match (version, source, destination) {
            (Version::V4, IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = payload.len() as u16;
                let (source, destination) = (source.octets(), destination.octets());
                let mut header =
                    Ipv4Header::new(length, 64, protocol, source, destination).expect("IPv4");
                header.dscp = (traffic_class >> 2).try_into().expect("a DSCP");
                header.ecn = (traffic_class & 3).try_into().expect("an ECN field");
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut packet).expect("IPv4");
            }
            (Version::V6, IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    traffic_class,
                    payload_length: payload.len() as u16,
                    next_header: protocol,
                    hop_limit: 64,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                header.write(&mut packet).expect("IPv6");
            }
            _ => panic!("addresses of that version"),
        }
        packet.extend_from_slice(payload);
        packet
    }

    fn inner(version: Version, traffic_class: u8) -> Vec<u8> {
        let ends = match version {
            Version::V4 => ("10.1.0.1", "10.0.0.1"),
            Version::V6 => ("fd00:2::1", "fd00:1::1"),
        };
        let ends = (ends.0.parse().expect("an address"), ends.1.parse().expect("an address"));
        header(version, IpNumber::TCP, traffic_class, b"not looked at", ends)
    }

    /// A frame of the peer's, with padding behind it.
    fn frame(outer: Version, traffic_class: u8, number: u32, inner: &[u8]) -> Vec<u8> {
        let ether_type = if inner[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let gre = [&[0x30, 0], &ether_type[..], &KEY.to_be_bytes(), &number.to_be_bytes(), inner];
        let Tunnel { local, remote, .. } = tunnel(outer);
        let packet = header(outer, IpNumber::GRE, traffic_class, &gre.concat(), (remote, local));
        let ether_type = if outer == Version::V4 { [8, 0] } else { [0x86, 0xdd] };
        [&[2; 12][..], &ether_type, &packet, &[0; 5]].concat()
    }

    fn receive(
        border: &mut Decapsulator,
        frame: &[u8],
    ) -> Result<(Decapsulated, Vec<u8>), Refusal> {
        let mut storage = frame.to_vec();
        let mut buffer = Buffer::new(&mut storage, frame.len());
        let decapsulated = border.decapsulate(&mut buffer, frame.len())?;
        Ok((decapsulated, buffer.to_vec()))
    }

    /// Figure 4 of RFC 6040, in every combination of versions, with the DSCP of the inner packet kept.
    #[test]
    fn ecn_fields_combine_as_the_rfc_has_it() {
        const DROPPED: u8 = 9;
        // Not-ECT, ECT(1), ECT(0), CE are 0 to 3, inside (rows) and outside (columns).
        let table = [[0, 0, 0, DROPPED], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        let dangerous = [(0, 1), (0, 2), (3, 1)];
        for (outer, inside) in BOTH.into_iter().flat_map(|a| BOTH.map(|b| (a, b))) {
            for (inner_ecn, outer_ecn) in (0..4_u8).flat_map(|a| (0..4_u8).map(move |b| (a, b))) {
                let mut border = border();
                let packet = inner(inside, 0xb8 | inner_ecn);
                let found = receive(&mut border, &frame(outer, 0x28 | outer_ecn, 0, &packet));
                let expected = table[usize::from(inner_ecn)][usize::from(outer_ecn)];
                let alarms = border.ecn_alarms();
                if expected == DROPPED {
                    assert_eq!(found, Err(Refusal::Congestion));
                    assert_eq!((border.refusals().congestion, alarms), (1, EcnAlarms::default()));
                    continue;
                }
                let (_, bytes) = found.expect("let in");
                assert_eq!(bytes[14..], inner(inside, 0xb8 | expected), "{inner_ecn} {outer_ecn}");
                let is_dangerous = dangerous.contains(&(inner_ecn, outer_ecn));
                assert_eq!(alarms.dangerous, u64::from(is_dangerous), "{inner_ecn} {outer_ecn}");
                assert_eq!(alarms.unused, u64::from((inner_ecn, outer_ecn) == (1, 2)));
            }
        }
    }

    #[test]
    fn what_is_let_in_follows_a_link_header_and_ends_the_buffer() {
        for (lane, (outer, inside)) in
            [(0, BOTH[0]), (1, BOTH[1])].into_iter().flat_map(|(l, a)| BOTH.map(|b| (l, (a, b))))
        {
            let packet = inner(inside, 0);
            let mut border = border();
            let (found, bytes) =
                receive(&mut border, &frame(outer, 0, 0, &packet)).expect("let in");
            let wire_bytes = 14 + packet.len();
            assert_eq!(found, Decapsulated { lane, version: inside, wire_bytes });
            assert_eq!(bytes[14..], packet);
            assert_eq!(bytes[12..14], if inside == Version::V4 { [8, 0] } else { [0x86, 0xdd] });
            assert_eq!((border.accepted(), border.refusals().total()), (1, 0));
        }
    }

    #[test]
    fn sequence_numbers_are_judged_per_lane_whatever_is_inside() {
        let mut border = border();
        for number in [0, 1, 2, 4, 3, 3] {
            receive(&mut border, &frame(Version::V4, 0, number, &inner(Version::V4, 0)))
                .expect("let in");
        }
        // Arrived, although it is not let in.
        let congested = frame(Version::V4, 3, 5, &inner(Version::V4, 0));
        assert_eq!(receive(&mut border, &congested).err(), Some(Refusal::Congestion));
        border.settle();
        let counts = border.sequence(0);
        assert_eq!((counts.received, counts.reordered, counts.duplicates), (7, 1, 1));
        assert_eq!(border.sequence(1), SequenceCounts::default());
    }

    #[test]
    fn only_tunnels_to_us_concern_the_border() {
        let border = border();
        for outer in BOTH {
            let ours = frame(outer, 0, 0, &inner(Version::V4, 0));
            assert!(border.concerns(&ours));
            let next_header = if outer == Version::V4 { 14 + 9 } else { 14 + 6 };
            for (protocol, expected) in
                [(47, true), (6, false), (1, false), (58, false), (17, false)]
            {
                let mut other = ours.clone();
                other[next_header] = protocol;
                assert_eq!(border.concerns(&other), expected, "protocol {protocol}");
            }
            let mut udp = ours.clone();
            udp[next_header] = 17;
            let port = if outer == Version::V4 { 14 + 22 } else { 14 + 42 };
            udp[port..port + 2].copy_from_slice(&4754_u16.to_be_bytes());
            assert!(border.concerns(&udp));
            let mut elsewhere = ours.clone();
            let last = if outer == Version::V4 { 14 + 19 } else { 14 + 39 };
            elsewhere[last] ^= 1;
            assert!(!border.concerns(&elsewhere));
            for length in 0..ours.len() {
                border.concerns(&ours[..length]);
            }
        }
    }

    #[test]
    fn a_cut_record_passes_when_its_inner_headers_were_kept_and_nothing_is_summed() {
        let whole = frame(Version::V4, 0, 0, &inner(Version::V4, 0));
        for kept in 0..whole.len() {
            let mut border = border();
            let mut storage = whole[..kept].to_vec();
            let mut buffer = Buffer::new(&mut storage, kept);
            let found = border.decapsulate(&mut buffer, whole.len());
            if kept < 14 + 20 + 12 + 20 {
                assert_eq!(found, Err(Refusal::Truncated), "{kept}");
            } else {
                assert_eq!(found.expect("let in").wire_bytes, 14 + 33);
                assert_eq!(buffer.len(), kept.min(14 + 32 + 33) - 32);
            }
        }
    }
}
