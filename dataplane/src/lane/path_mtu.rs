//! The path MTU of lanes: what routers inside the WAN say about our outer packets (RFC 1191, RFC 8201).
//!
//! Such an error comes from anywhere, so it is believed only when it quotes a packet that a lane of ours could
//! have sent: its addresses, protocol, length, DF and GRE flags, its key and a recent sequence number as far as
//! the quotation reaches. Then it lowers the lane's MTU, and never raises it; what was lowered is forgotten
//! after [`LOWERED_FOR_NS`], and the next packet that is too big tells anew. Everything else is counted under
//! one [`Refusal`] and changes nothing.
//!
//! ```text
//!   Ethernet | IP | ICMP error | outer IP | (UDP) | GRE | inner IP ...       what came
//!   Ethernet | IP | ICMP error                          | inner IP ...       what the inner sender is told
//! ```
//!
//! Workers have clones, which share what was lowered: an error arrives at one worker, and all must send less.
//! They must go by the same clock.
//!
//! With key and sequence number an attacker outside the path must guess 46 bits; without them the MTU of a lane
//! can be lowered by who knows both ends, to no less than [`IPV4_MTU_BYTES_MIN`] or [`IPV6_MTU_BYTES_MIN`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sequence::Numbers;
use super::tunnel::Tunnel;
use crate::wire::frame::Version;
use crate::wire::window::{Unparsed, Window, u16_at, u32_at, u64_at};
use crate::wire::{checksum, ethernet, gre, icmp, icmpv6, ipv4, ipv6, udp};

/// How long a lowered MTU lasts: ten minutes (RFC 1191 section 6.3, RFC 8201 section 4).
pub const LOWERED_FOR_NS: u64 = 600 * 1_000_000_000;
/// No WAN has a link with less; what Linux takes as `min_pmtu`. RFC 1191 itself would go down to 68.
pub const IPV4_MTU_BYTES_MIN: u16 = 552;
/// Every link of IPv6 has this much (RFC 8200 section 5).
pub const IPV6_MTU_BYTES_MIN: u16 = 1280;
/// How many packets ago one may have been sent that an error quotes.
pub const SEQUENCE_WINDOW: u32 = 1 << 18;
/// What must be quoted of an inner packet behind its IP header to tell its sender (RFC 792).
const QUOTED_BYTES_MIN: usize = 8;

super::reasons::reasons! {
    /// Why an ICMP error changed nothing.
    enum Refusal;
    /// ICMP errors that changed nothing, by reason.
    struct Refusals;
    /// Not an IP packet whose lengths agree.
    Malformed malformed,
    /// A capture record that kept too little to judge it.
    Truncated truncated,
    /// A fragment, of which no ICMP error is made.
    Fragment fragment,
    /// Not to an address where one of our tunnels ends.
    Destination destination,
    /// Neither ICMP "fragmentation needed" nor ICMPv6 "packet too big".
    OtherKind other_kind,
    /// A wrong checksum.
    Checksum checksum,
    /// Quotes no outer packet of a lane: addresses, protocol, DF, TTL or length.
    NotOurs not_ours,
    /// Quotes GRE flags, a GRE protocol or a key that no lane between these ends sends.
    Key key,
    /// Quotes a sequence number that was not sent of late.
    Sequence sequence,
    /// An MTU that no path has, or that the quoted packet would have fitted.
    OutOfBounds out_of_bounds,
    /// Not lower than what the lane has already.
    NotLower not_lower,
}

/// An ICMP error that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// The lane whose packet was quoted; others between the same two addresses were lowered with it when the
    /// quotation could not tell them apart.
    pub lane: usize,
    /// Largest outer packet from now on, in bytes.
    pub mtu_bytes: u16,
    /// Largest inner packet from now on, in bytes.
    pub inner_mtu_bytes: u16,
    /// Where the quoted inner packet stands in the frame, when enough of it was quoted to tell its sender.
    inner: Option<Range<usize>>,
}

/// One lane as path MTU discovery sees it.
#[derive(Debug, Clone)]
struct Lane {
    tunnel: Tunnel,
    numbers: Numbers,
    mtu: LaneMtu,
}

/// The path MTU of one lane. Clones share it.
#[derive(Debug, Clone)]
pub struct LaneMtu {
    overhead_bytes: u16,
    /// Without any error.
    mtu_bytes: u16,
    /// What an error has made of it, in the lowest 16 bits, and when that ends: in nanoseconds, when those bits
    /// are taken for zero. One number, so that nobody reads half of it.
    lowered: Arc<AtomicU64>,
}

/// Bits of the MTU in [`LaneMtu::lowered`].
const MTU_BITS: u64 = 0xffff;

/// The path MTU of every lane. Clones share it, but not what they count.
#[derive(Debug, Clone, Default)]
pub struct PathMtus {
    lanes: Vec<Lane>,
    lowered: u64,
    refusals: Refusals,
}

/// What an ICMP error says, before its quotation is believed.
struct Report {
    version: Version,
    mtu_bytes: u32,
    /// Where the quotation starts, and where it ends.
    quoted: Range<usize>,
}

/// The outer IP header that is quoted.
struct Quoted {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ttl: u8,
    dont_fragment: bool,
    total_bytes: u32,
    payload_offset: usize,
}

impl PathMtus {
    /// A lane without a packet too big yet is added: its tunnel, the numbers it sends, its overhead and its MTU
    /// (that of the tunnel or of its port), both in bytes. Returns its index.
    pub fn add(
        &mut self,
        tunnel: &Tunnel,
        numbers: Numbers,
        overhead_bytes: u16,
        mtu_bytes: u16,
    ) -> usize {
        let mtu = LaneMtu { overhead_bytes, mtu_bytes, lowered: Arc::default() };
        self.lanes.push(Lane { tunnel: *tunnel, numbers, mtu });
        self.lanes.len() - 1
    }

    /// Largest outer packet of a lane, in bytes.
    #[inline]
    pub fn mtu_bytes(&self, lane: usize, now_ns: u64) -> u16 {
        self.lanes[lane].mtu.bytes(now_ns)
    }

    /// Largest inner packet of a lane, in bytes.
    #[inline]
    pub fn inner_mtu_bytes(&self, lane: usize, now_ns: u64) -> u16 {
        self.lanes[lane].mtu.inner_bytes(now_ns)
    }

    /// The path MTU of a lane, for whoever asks often.
    pub fn of_lane(&self, lane: usize) -> LaneMtu {
        self.lanes[lane].mtu.clone()
    }

    /// Errors that were believed.
    pub fn lowered(&self) -> u64 {
        self.lowered
    }

    /// Errors that were not.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Judges the untagged frame, of which `wire_bytes` were on the wire: an ICMP or ICMPv6 packet to an
    /// address where a tunnel of ours ends.
    pub fn judge(
        &mut self,
        frame: &[u8],
        wire_bytes: usize,
        now_ns: u64,
    ) -> Result<Lowered, Refusal> {
        let judged = self.lower(frame, wire_bytes, now_ns);
        match judged {
            Ok(_) => self.lowered += 1,
            Err(refusal) => *self.refusals.of(refusal) += 1,
        }
        judged
    }

    fn lower(&self, frame: &[u8], wire_bytes: usize, now_ns: u64) -> Result<Lowered, Refusal> {
        let window = Window::new(frame, wire_bytes);
        let report = self.read_report(&window)?;
        let quoted = read_quoted(&window, &report)?;
        let mut refusal = Refusal::NotOurs;
        let mut first: Option<Lowered> = None;
        for (index, lane) in self.lanes.iter().enumerate() {
            let judged = lane
                .sent(&window, &report, &quoted)
                .and_then(|inner_offset| Ok((inner_offset, lane.lower(&report, &quoted, now_ns)?)));
            match judged {
                Ok((inner_offset, mtu_bytes)) if first.is_none() => {
                    let inner = inner_offset.map(|offset| offset..report.quoted.end);
                    first = Some(Lowered {
                        lane: index,
                        mtu_bytes,
                        inner_mtu_bytes: mtu_bytes - lane.mtu.overhead_bytes,
                        inner: inner.filter(|inner| is_enough(&frame[inner.clone()])),
                    });
                }
                Ok(_) => {}
                // Of several lanes, the one that came nearest to having sent it says what was wrong.
                Err(reason) => {
                    refusal = if reason as u8 > refusal as u8 { reason } else { refusal }
                }
            }
        }
        first.ok_or(refusal)
    }

    /// From the outside down to the quotation.
    fn read_report(&self, window: &Window<'_>) -> Result<Report, Refusal> {
        let ethernet = window.header::<{ ethernet::HEADER_BYTES }>(0, window.end())?;
        match u16_at(ethernet, 12) {
            ethernet::IPV4 => self.read_ipv4(window),
            ethernet::IPV6 => self.read_ipv6(window),
            _ => Err(Refusal::Malformed),
        }
    }

    fn read_ipv4(&self, window: &Window<'_>) -> Result<Report, Refusal> {
        let header = ipv4::parse(window, ethernet::HEADER_BYTES)?;
        if header.more_fragments || header.later_fragment {
            return Err(Refusal::Fragment);
        }
        self.check_destination(IpAddr::V4((header.addresses as u32).into()))?;
        let (offset, end) = (header.payload_offset, header.payload_end);
        let message = window.header::<{ icmp::HEADER_BYTES }>(offset, end)?;
        let is_too_big = header.protocol == icmp::PROTOCOL
            && message[..2] == [icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED];
        if !is_too_big {
            return Err(Refusal::OtherKind);
        }
        let ip_header = window.bytes(ethernet::HEADER_BYTES, offset)?;
        if !checksum::is_right(ip_header) || !checksum::is_right(window.bytes(offset, end)?) {
            return Err(Refusal::Checksum);
        }
        let mtu_bytes = u32::from(u16_at(message, 6));
        let quoted = offset + icmp::HEADER_BYTES..end;
        Ok(Report { version: Version::V4, mtu_bytes, quoted })
    }

    fn read_ipv6(&self, window: &Window<'_>) -> Result<Report, Refusal> {
        let header = ipv6::parse(window, ethernet::HEADER_BYTES)?;
        if header.fragment.is_some() {
            return Err(Refusal::Fragment);
        }
        let [_, _, upper, lower] = header.addresses.map(u128::from);
        self.check_destination(IpAddr::V6((upper << 64 | lower).into()))?;
        let (offset, end) = (header.payload_offset, header.payload_end);
        let message = window.header::<{ icmpv6::HEADER_BYTES }>(offset, end)?;
        let is_too_big =
            header.protocol == icmpv6::PROTOCOL && message[0] == icmpv6::PACKET_TOO_BIG;
        if !is_too_big {
            return Err(Refusal::OtherKind);
        }
        let addresses = window.bytes(ethernet::HEADER_BYTES + 8, ethernet::HEADER_BYTES + 40)?;
        let pseudo_sum = icmpv6::pseudo_sum(checksum::sum(addresses), (end - offset) as u16);
        let sum = checksum::add(checksum::sum(window.bytes(offset, end)?), pseudo_sum);
        if sum != 0xffff {
            return Err(Refusal::Checksum);
        }
        let quoted = offset + icmpv6::HEADER_BYTES..end;
        Ok(Report { version: Version::V6, mtu_bytes: u32_at(message, 4), quoted })
    }

    fn check_destination(&self, destination: IpAddr) -> Result<(), Refusal> {
        let is_ours = self.lanes.iter().any(|lane| lane.tunnel.local == destination);
        if is_ours { Ok(()) } else { Err(Refusal::Destination) }
    }
}

impl LaneMtu {
    /// Largest inner packet, in bytes.
    #[inline(always)]
    pub fn inner_bytes(&self, now_ns: u64) -> u16 {
        self.bytes(now_ns).saturating_sub(self.overhead_bytes)
    }

    #[inline(always)]
    fn bytes(&self, now_ns: u64) -> u16 {
        self.bytes_of(self.lowered.load(Ordering::Relaxed), now_ns)
    }

    #[inline(always)]
    fn bytes_of(&self, lowered: u64, now_ns: u64) -> u16 {
        if now_ns < lowered & !MTU_BITS { lowered as u16 } else { self.mtu_bytes }
    }
}

impl Lane {
    /// Whether this lane could have sent the packet; where its inner packet starts, when the quotation goes so
    /// far.
    fn sent(
        &self,
        window: &Window<'_>,
        report: &Report,
        quoted: &Quoted,
    ) -> Result<Option<usize>, Refusal> {
        let tunnel = &self.tunnel;
        let protocol = if tunnel.udp { udp::PROTOCOL } else { gre::PROTOCOL };
        let is_ours = (quoted.source, quoted.destination) == (tunnel.local, tunnel.remote)
            && quoted.protocol == protocol
            && quoted.ttl <= tunnel.ttl
            && quoted.total_bytes <= u32::from(self.mtu.mtu_bytes)
            // Nobody complains of a packet that may be fragmented.
            && quoted.dont_fragment
            && (tunnel.dont_fragment || report.version == Version::V6);
        if !is_ours {
            return Err(Refusal::NotOurs);
        }
        let mut offset = quoted.payload_offset;
        let end = report.quoted.end;
        if tunnel.udp {
            let ports = window.header::<4>(offset, end).map_err(|_| Refusal::NotOurs)?;
            if u16_at(ports, 2) != udp::GRE_PORT {
                return Err(Refusal::NotOurs);
            }
            offset += udp::HEADER_BYTES;
        }
        self.sent_gre(window, offset, end)
    }

    /// The same of the GRE header at `offset`, which the quotation may not have reached.
    fn sent_gre(
        &self,
        window: &Window<'_>,
        offset: usize,
        end: usize,
    ) -> Result<Option<usize>, Refusal> {
        let tunnel = &self.tunnel;
        let Ok(fixed) = window.header::<{ gre::HEADER_BYTES }>(offset, end) else {
            return Ok(None);
        };
        let flags = [
            (tunnel.checksum, gre::CHECKSUM),
            (tunnel.key.is_some(), gre::KEY),
            (tunnel.sequence, gre::SEQUENCE),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag);
        let protocol = u16_at(fixed, 2);
        if u16_at(fixed, 0) != flags || ![ethernet::IPV4, ethernet::IPV6].contains(&protocol) {
            return Err(Refusal::Key);
        }
        let mut at = offset + gre::HEADER_BYTES;
        if tunnel.checksum {
            at += gre::OPTION_BYTES;
        }
        if let Some(key) = tunnel.key {
            let Ok(field) = window.header::<4>(at, end) else { return Ok(None) };
            if u32_at(field, 0) != key {
                return Err(Refusal::Key);
            }
            at += gre::OPTION_BYTES;
        }
        if tunnel.sequence {
            let Ok(field) = window.header::<4>(at, end) else { return Ok(None) };
            let ago = self.numbers.upcoming_sequence().wrapping_sub(u32_at(field, 0));
            if !(1..=SEQUENCE_WINDOW).contains(&ago) {
                return Err(Refusal::Sequence);
            }
            at += gre::OPTION_BYTES;
        }
        Ok((at <= end).then_some(at))
    }

    /// Takes the MTU over; returns it.
    fn lower(&self, report: &Report, quoted: &Quoted, now_ns: u64) -> Result<u16, Refusal> {
        let least = match report.version {
            Version::V4 => IPV4_MTU_BYTES_MIN,
            Version::V6 => IPV6_MTU_BYTES_MIN,
        };
        let mtu_bytes = u16::try_from(report.mtu_bytes).map_err(|_| Refusal::OutOfBounds)?;
        if mtu_bytes < least || report.mtu_bytes >= quoted.total_bytes {
            return Err(Refusal::OutOfBounds);
        }
        let until_ns = now_ns.saturating_add(LOWERED_FOR_NS);
        let lowered = until_ns & !MTU_BITS | u64::from(mtu_bytes);
        let is_lower = |before| mtu_bytes < self.mtu.bytes_of(before, now_ns);
        self.mtu
            .lowered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                is_lower(before).then_some(lowered)
            })
            .map_err(|_| Refusal::NotLower)?;
        Ok(mtu_bytes)
    }
}

impl Lowered {
    /// The quoted inner packet, from its IP header on, in the frame that was judged; none when too little was
    /// quoted. Its source is who should be told.
    pub fn inner<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame.get(self.inner.clone()?)
    }

    /// Writes the error for the sender of the quoted inner packet, as a frame of `link`'s MAC addresses from
    /// one of our `sources`. None when nobody is to be told: too little was quoted, the inner packet would have
    /// been fragmented, or RFC 1812 or RFC 4443 forbid it. What IPv6 is told is never below 1280 bytes, which
    /// it would not believe (RFC 8201 section 4).
    pub fn translate(
        &self,
        frame: &[u8],
        link: &[u8; ethernet::HEADER_BYTES],
        sources: (Ipv4Addr, Ipv6Addr),
        into: &mut [u8],
    ) -> Option<usize> {
        let inner = self.inner(frame)?;
        if inner[0] >> 4 == 6 {
            let mtu_bytes = u32::from(self.inner_mtu_bytes.max(IPV6_MTU_BYTES_MIN));
            let error = icmpv6::Error::PacketTooBig { mtu_bytes };
            return icmpv6::write(error, link, sources.1, inner, into);
        }
        if inner[6] & 0x40 == 0 {
            return None;
        }
        let error = icmp::Error::FragmentationNeeded { mtu_bytes: self.inner_mtu_bytes };
        icmp::write(error, link, sources.0, inner, into)
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

/// The IP header that is quoted. Its lengths reach past the quotation, which is cut short by its nature.
fn read_quoted(window: &Window<'_>, report: &Report) -> Result<Quoted, Refusal> {
    let (offset, end) = (report.quoted.start, report.quoted.end);
    match report.version {
        Version::V4 => {
            let header = window.header::<{ ipv4::HEADER_BYTES }>(offset, end).map_err(quotation)?;
            let header_bytes = usize::from(header[0] & 0x0f) * 4;
            // We send no options, and no router adds any; later fragments are none of our packets.
            if header[0] != 0x45 || u16_at(header, 6) & 0x1fff != 0 {
                return Err(Refusal::NotOurs);
            }
            Ok(Quoted {
                source: IpAddr::V4(u32_at(header, 12).into()),
                destination: IpAddr::V4(u32_at(header, 16).into()),
                protocol: header[9],
                ttl: header[8],
                dont_fragment: header[6] & 0x40 != 0,
                total_bytes: u32::from(u16_at(header, 2)),
                payload_offset: offset + header_bytes,
            })
        }
        Version::V6 => {
            let header = window.header::<{ ipv6::HEADER_BYTES }>(offset, end).map_err(quotation)?;
            if header[0] >> 4 != 6 {
                return Err(Refusal::NotOurs);
            }
            let address = |at: usize| {
                u128::from(u64_at(header, at)) << 64 | u128::from(u64_at(header, at + 8))
            };
            Ok(Quoted {
                source: IpAddr::V6(address(8).into()),
                destination: IpAddr::V6(address(24).into()),
                protocol: header[6],
                ttl: header[7],
                dont_fragment: true,
                total_bytes: ipv6::HEADER_BYTES as u32 + u32::from(u16_at(header, 4)),
                payload_offset: offset + ipv6::HEADER_BYTES,
            })
        }
    }
}

/// A quotation too short for an IP header quotes nothing of ours.
fn quotation(unparsed: Unparsed) -> Refusal {
    match unparsed {
        Unparsed::Truncated => Refusal::Truncated,
        Unparsed::Malformed | Unparsed::NonIp | Unparsed::NonTcp => Refusal::NotOurs,
    }
}

/// Whether an IP header and what its sender needs to find the connection is there.
fn is_enough(inner: &[u8]) -> bool {
    match inner.first() {
        Some(first) if first >> 4 == 4 => {
            inner.len() >= usize::from(first & 0x0f) * 4 + QUOTED_BYTES_MIN
        }
        Some(first) if first >> 4 == 6 => inner.len() >= ipv6::HEADER_BYTES + QUOTED_BYTES_MIN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket};
    use etherparse::{TransportSlice, icmpv4, icmpv6 as their_icmpv6};

    const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const OURS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
    const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
    const LAN: (Ipv4Addr, Ipv6Addr) =
        (Ipv4Addr::new(10, 0, 0, 254), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe));
    const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0xff, 0xff];
    const NOW_NS: u64 = 1_000_000_000_000;

    fn tunnel(key: u32) -> Tunnel {
        Tunnel {
            local: OURS.into(),
            remote: PEER.into(),
            key: Some(key),
            sequence: true,
            checksum: false,
            ttl: 64,
            dscp: None,
            dont_fragment: true,
            mtu_bytes: Some(1500),
            udp: false,
        }
    }

    /// Two lanes that differ by their key; 1000 packets were sent.
    fn two_lanes() -> PathMtus {
        let mut mtus = PathMtus::default();
        for key in [1, 2] {
            let numbers = Numbers::default();
            (0..1000).for_each(|_| _ = numbers.next_sequence());
            mtus.add(&tunnel(key), numbers, 32, 1500);
        }
        mtus
    }

    /// An inner packet of 1468 bytes, as much of it as is quoted.
    fn inner(dont_fragment: bool) -> Vec<u8> {
        let mut header =
            Ipv4Header::new(1448, 63, IpNumber::TCP, [10, 0, 0, 7], [10, 1, 0, 1]).expect("IPv4");
        header.dont_fragment = dont_fragment;
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(0..100);
        bytes
    }

    /// An outer packet of 1500 bytes that quotes lane `key`, as far as it goes.
    fn quotation(key: u32, number: u32) -> Vec<u8> {
        let mut header =
            Ipv4Header::new(1480, 60, IpNumber::GRE, OURS.octets(), PEER.octets()).expect("IPv4");
        header.dont_fragment = true;
        let gre = [&[0x30, 0, 8, 0][..], &key.to_be_bytes(), &number.to_be_bytes()].concat();
        [&header.to_bytes()[..], &gre, &inner(true)].concat()
    }

    fn error(mtu: u16, quotation: &[u8]) -> Vec<u8> {
        let too_big = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(too_big);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([203, 0, 113, 5], OURS.octets(), 60)
            .icmpv4(kind)
            .write(&mut frame, quotation)
            .expect("a frame");
        frame
    }

    fn judged(mtus: &mut PathMtus, frame: &[u8]) -> Result<Lowered, Refusal> {
        mtus.judge(frame, frame.len(), NOW_NS)
    }

    #[test]
    fn a_packet_of_ours_lowers_its_lane_for_ten_minutes() {
        let mut mtus = two_lanes();
        let lowered = judged(&mut mtus, &error(1400, &quotation(2, 990))).expect("believed");
        assert_eq!((lowered.lane, lowered.mtu_bytes, lowered.inner_mtu_bytes), (1, 1400, 1368));
        assert_eq!((mtus.mtu_bytes(0, NOW_NS), mtus.mtu_bytes(1, NOW_NS)), (1500, 1400));
        let end_ns = NOW_NS + LOWERED_FOR_NS;
        assert_eq!(mtus.inner_mtu_bytes(1, end_ns - 100_000), 1368);
        assert_eq!(mtus.inner_mtu_bytes(1, end_ns), 1468);
        assert_eq!((mtus.lowered(), mtus.refusals().total()), (1, 0));
    }

    #[test]
    fn it_is_never_raised_and_may_be_lowered_again() {
        let mut mtus = two_lanes();
        judged(&mut mtus, &error(1400, &quotation(1, 999))).expect("believed");
        for mtu in [1400, 1450] {
            let again = judged(&mut mtus, &error(mtu, &quotation(1, 999)));
            assert_eq!(again, Err(Refusal::NotLower));
        }
        judged(&mut mtus, &error(1300, &quotation(1, 999))).expect("believed");
        assert_eq!(mtus.mtu_bytes(0, NOW_NS), 1300);
    }

    #[test]
    fn every_worker_sends_less_when_one_was_told() {
        let mut mtus = two_lanes();
        let other = mtus.clone();
        judged(&mut mtus, &error(1400, &quotation(1, 999))).expect("believed");
        assert_eq!((other.mtu_bytes(0, NOW_NS), other.mtu_bytes(1, NOW_NS)), (1400, 1500));
        assert_eq!((mtus.lowered(), other.lowered()), (1, 0));
    }

    #[test]
    fn the_inner_sender_is_told_what_fits_it() {
        let mut mtus = two_lanes();
        let frame = error(1400, &quotation(1, 999));
        let lowered = judged(&mut mtus, &frame).expect("believed");
        let mut into = [0; icmpv6::FRAME_BYTES_MAX];
        let length = lowered.translate(&frame, &LINK, LAN, &mut into).expect("an error");
        let packet = SlicedPacket::from_ethernet(&into[..length]).expect("a frame");
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("IPv4") };
        assert_eq!(ip.header().destination_addr(), Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(ip.header().source_addr(), LAN.0);
        let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("ICMP") };
        assert_eq!(icmp.bytes5to8(), [0, 0, 0x05, 0x58]);
        assert_eq!(icmp.payload(), inner(true));
    }

    #[test]
    fn nobody_is_told_of_an_inner_packet_without_df_or_of_one_hardly_quoted() {
        let mut into = [0; icmpv6::FRAME_BYTES_MAX];
        let may_be_cut = [&quotation(1, 999)[..32], &inner(false)].concat();
        let hardly = quotation(1, 999)[..32 + 27].to_vec();
        for quotation in [may_be_cut, hardly] {
            let frame = error(1400, &quotation);
            let lowered = judged(&mut two_lanes(), &frame).expect("believed");
            assert_eq!(lowered.translate(&frame, &LINK, LAN, &mut into), None);
        }
    }

    #[test]
    fn a_quotation_that_ends_before_the_key_lowers_every_lane_between_the_two() {
        for length in [20, 24, 27] {
            let mut mtus = two_lanes();
            let frame = error(1400, &quotation(2, 999)[..length]);
            let lowered = judged(&mut mtus, &frame).expect("believed");
            assert_eq!((lowered.lane, lowered.inner), (0, None));
            assert_eq!((mtus.mtu_bytes(0, NOW_NS), mtus.mtu_bytes(1, NOW_NS)), (1400, 1400));
        }
    }

    #[test]
    fn each_lie_is_counted_under_its_reason_and_changes_nothing() {
        let good = || quotation(1, 999);
        let with = |at: usize, value: u8| {
            let mut quotation = good();
            quotation[at] = value;
            error(1400, &quotation)
        };
        let mut wrong_checksum = error(1400, &good());
        wrong_checksum[36] ^= 1;
        let mut elsewhere = error(1400, &good());
        elsewhere[33] ^= 1;
        let mut other_kind = error(1400, &good());
        other_kind[35] = 1;
        let mut fragment = error(1400, &good());
        fragment[20] = 0x20;
        let cases = [
            (with(15, 9), Refusal::NotOurs, "another source"),
            (with(19, 9), Refusal::NotOurs, "another destination"),
            (with(9, 6), Refusal::NotOurs, "another protocol"),
            (with(8, 65), Refusal::NotOurs, "a TTL above ours"),
            (with(6, 0), Refusal::NotOurs, "no DF"),
            (with(2, 6), Refusal::NotOurs, "longer than our MTU"),
            (with(0, 0x46), Refusal::NotOurs, "options"),
            (with(20, 0x20), Refusal::Key, "no sequence number"),
            (with(22, 9), Refusal::Key, "another protocol inside"),
            (with(27, 9), Refusal::Key, "a key of no lane"),
            (error(1400, &quotation(1, 1000)), Refusal::Sequence, "a number not sent yet"),
            (error(1400, &quotation(1, 0x8000_0000)), Refusal::Sequence, "a number long ago"),
            (error(551, &good()), Refusal::OutOfBounds, "smaller than any path"),
            (error(0, &good()), Refusal::OutOfBounds, "none at all"),
            (error(1500, &good()), Refusal::OutOfBounds, "the packet fits"),
            (error(1400, &good()[..19]), Refusal::NotOurs, "no whole header"),
            (wrong_checksum, Refusal::Checksum, "a wrong checksum"),
            (elsewhere, Refusal::Destination, "not to us"),
            (other_kind, Refusal::OtherKind, "another ICMP message"),
            (fragment, Refusal::Fragment, "a fragment"),
        ];
        for (frame, expected, what) in cases {
            let mut mtus = two_lanes();
            assert_eq!(judged(&mut mtus, &frame), Err(expected), "{what}");
            assert_eq!((mtus.mtu_bytes(0, NOW_NS), mtus.mtu_bytes(1, NOW_NS)), (1500, 1500));
            let mut counted = *mtus.refusals();
            assert_eq!((*counted.of(expected), counted.total(), mtus.lowered()), (1, 1, 0));
        }
    }

    fn two_lanes_over_ipv6() -> PathMtus {
        let mut mtus = PathMtus::default();
        let (local, remote) = (OURS_V6.into(), PEER_V6.into());
        for udp in [false, true] {
            let tunnel = Tunnel { local, remote, key: None, sequence: false, udp, ..tunnel(0) };
            mtus.add(&tunnel, Numbers::default(), 44 + 8 * u16::from(udp), 1500);
        }
        mtus
    }

    fn error_v6(mtu: u32, next_header: u8, behind: &[u8]) -> Vec<u8> {
        let header = Ipv6Header {
            payload_length: 1460,
            next_header: IpNumber(next_header),
            hop_limit: 61,
            source: OURS_V6.octets(),
            destination: PEER_V6.octets(),
            ..Ipv6Header::default()
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6([3; 16], OURS_V6.octets(), 60)
            .icmpv6(their_icmpv6_type(mtu))
            .write(&mut frame, &[&header.to_bytes()[..], behind].concat())
            .expect("a frame");
        frame
    }

    fn their_icmpv6_type(mtu: u32) -> etherparse::Icmpv6Type {
        assert_eq!(their_icmpv6::TYPE_PACKET_TOO_BIG, 2);
        etherparse::Icmpv6Type::PacketTooBig { mtu }
    }

    fn inner_v6() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(LAN.1.octets(), [0xfd; 16], 63)
            .tcp(1, 2, 3, 4)
            .write(&mut packet, &[7; 200])
            .expect("a packet");
        packet
    }

    #[test]
    fn over_ipv6_with_and_without_udp_the_right_lane_is_lowered() {
        let gre = [&[0, 0, 0x86, 0xdd][..], &inner_v6()].concat();
        let in_udp = [&[0xc0, 1, 0x12, 0x92, 5, 180, 1, 1][..], &gre].concat();
        for (lane, frame) in [(0, error_v6(1400, 47, &gre)), (1, error_v6(1400, 17, &in_udp))] {
            let mut mtus = two_lanes_over_ipv6();
            let lowered = judged(&mut mtus, &frame).expect("believed");
            assert_eq!((lowered.lane, lowered.mtu_bytes), (lane, 1400));
            assert_eq!(mtus.mtu_bytes(1 - lane, NOW_NS), 1500);
            let mut into = [0; icmpv6::FRAME_BYTES_MAX];
            let length = lowered.translate(&frame, &LINK, LAN, &mut into).expect("an error");
            let packet = SlicedPacket::from_ethernet(&into[..length]).expect("a frame");
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("ICMPv6") };
            let mtu = 1400 - 44 - 8 * lane as u32;
            assert_eq!(icmp.icmp_type(), etherparse::Icmpv6Type::PacketTooBig { mtu });
            assert_eq!(icmp.payload(), inner_v6());
        }
    }

    #[test]
    fn ipv6_is_never_told_less_than_1280_bytes_nor_believed_below() {
        let gre = [&[0, 0, 0x86, 0xdd][..], &inner_v6()].concat();
        let frame = error_v6(1280, 47, &gre);
        let lowered = judged(&mut two_lanes_over_ipv6(), &frame).expect("believed");
        assert_eq!(lowered.inner_mtu_bytes, 1236);
        let mut into = [0; icmpv6::FRAME_BYTES_MAX];
        let length = lowered.translate(&frame, &LINK, LAN, &mut into).expect("an error");
        assert_eq!(into[14 + 40..length][4..8], 1280_u32.to_be_bytes());
        for (mtu, expected) in [(1279, Refusal::OutOfBounds), (1 << 16, Refusal::OutOfBounds)] {
            let frame = error_v6(mtu, 47, &gre);
            assert_eq!(judged(&mut two_lanes_over_ipv6(), &frame), Err(expected));
        }
        let mut wrong = error_v6(1400, 47, &gre);
        wrong[57] ^= 1;
        assert_eq!(judged(&mut two_lanes_over_ipv6(), &wrong), Err(Refusal::Checksum));
    }

    #[test]
    fn no_bytes_and_no_cut_make_it_panic() {
        let gre = [&[0, 0, 0x86, 0xdd][..], &inner_v6()].concat();
        let frames = [error(1400, &quotation(1, 999)), error_v6(1400, 47, &gre)];
        for (frame, mut mtus) in frames.into_iter().zip([two_lanes(), two_lanes_over_ipv6()]) {
            for at in 0..frame.len() {
                let cut = mtus.judge(&frame[..at], frame.len(), NOW_NS);
                assert_eq!(cut.err(), Some(Refusal::Truncated), "{at}");
                assert!(mtus.judge(&frame[..at], at, NOW_NS).is_err());
                for value in [0, 1, 0x7f, 0xff] {
                    let mut mutated = frame.clone();
                    mutated[at] = value;
                    let _ = mtus.judge(&mutated, frame.len(), NOW_NS);
                }
            }
        }
    }
}
