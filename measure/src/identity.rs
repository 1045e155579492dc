//! What a packet is known by at both taps.
//!
//! The innermost IP packet of a frame is looked for, through Ethernet, up to two VLAN tags and GRE (RFC 2784,
//! 2890) over IPv4 or IPv6 with IPv4, IPv6 or Ethernet inside. What a gateway or a WAN may change is left out:
//! everything outside of that packet, ToS, TTL, flow label, IP options, every checksum, and the value of the
//! MSS option of a SYN. What is left is its identity:
//!
//! ```text
//!   IPv4   addresses, protocol, identification, fragment offset and more-fragments, payload length
//!   IPv6   addresses, protocol, payload length behind the extension headers; of a fragment also its
//!          identification, offset and more-fragments
//!   TCP    ports, sequence, acknowledgement, header length, flags, window, urgent pointer
//!   UDP    ports, length
//!   then   the first `content_bytes` behind that header (TCP options, payload)
//! ```
//!
//! All of it goes into a keyed digest of 128 bits ([`crate::digest`]). Stream, identification, length and
//! sequence number are kept beside it as they are, and compared: packets whose digests collide still differ
//! in those.
//!
//! Invariant: the same packet has the same identity however the frame around it is built and however much of
//! it was kept, as long as `content_bytes` of its content were. Where less was kept, [`Identified::cut`] says so.

use dataplane::wire::ethernet;
use dataplane::wire::window::{Unparsed, Window};
use dataplane::wire::{ipv4, ipv6};

use crate::digest::{Digester, WORDS_MAX, Words};
use crate::lane::LaneKey;
use crate::stream::StreamKey;

/// Bytes of content that belong to the identity unless somebody says otherwise.
pub const CONTENT_BYTES: usize = 64;
/// Most bytes of content that may belong to the identity.
pub const CONTENT_BYTES_MAX: usize = 256;
/// Nothing behind this byte of a frame is ever looked at, short of pathological piles of headers.
pub const FRAME_BYTES_MAX: usize = 512;

/// Most GRE headers that are taken off.
const TUNNELS_MAX: usize = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const TRANSPARENT_ETHERNET: u16 = 0x6558;

/// A TCP flag (RFC 9293 section 3.1).
pub const FIN: u8 = 0x01;
/// A TCP flag.
pub const SYN: u8 = 0x02;
/// A TCP flag.
pub const RST: u8 = 0x04;
/// A TCP flag.
pub const ACK: u8 = 0x10;

// Four words of addresses, two of IP, three of TCP, one to make it even.
const _: () = assert!(WORDS_MAX >= 10 + CONTENT_BYTES_MAX / 8);

/// A packet that can be recognised.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identified {
    /// The digest.
    pub digest: [u64; 2],
    /// Identification (16 bits), payload length (16), sequence number or first content (32), as they are.
    pub check: u64,
    /// Addresses, protocol and ports.
    pub stream: StreamKey,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgement number.
    pub acknowledgement: u32,
    /// TCP flags; 0 of everything else.
    pub tcp_flags: u8,
    /// What the frame says about its lane.
    pub lane: LaneKey,
    /// Fewer bytes of content were kept than belong to the identity.
    pub cut: bool,
    /// A fragment of a tunnel's own packet: what is inside cannot be seen.
    pub tunnel_fragment: bool,
}

/// Finds identities. One for both taps: its keys must be the same.
#[derive(Debug, Clone)]
pub struct Identifier {
    digester: Digester,
    words: Words,
    content_bytes: usize,
}

/// The innermost IP packet.
#[derive(Clone, Copy)]
struct Packet {
    ip_offset: usize,
    header: Header,
}

#[derive(Clone, Copy)]
enum Header {
    V4(ipv4::Header),
    V6(ipv6::Header),
}

impl Identifier {
    /// With keys that nobody knows.
    ///
    /// # Panics
    ///
    /// When `content_bytes` is more than [`CONTENT_BYTES_MAX`].
    pub fn new(content_bytes: usize) -> Self {
        assert!(content_bytes <= CONTENT_BYTES_MAX, "{content_bytes} bytes of content");
        Identifier { digester: Digester::random(), words: Words::default(), content_bytes }
    }

    /// How many bytes of content the capture kept of a packet, when it kept its headers and not all of it.
    pub fn kept_content(bytes: &[u8], wire_bytes: usize) -> Option<usize> {
        let window = Window::new(bytes, wire_bytes);
        let (packet, ..) = innermost(&window).ok()?;
        let (start, end) = packet.payload();
        let fixed = fixed_header_bytes(packet.protocol(), packet.is_later_fragment());
        let content = start + fixed;
        (content <= bytes.len() && bytes.len() < end).then(|| bytes.len() - content)
    }

    /// The identity of a frame's innermost packet.
    ///
    /// # Errors
    ///
    /// When there is no IP packet, its headers lie, or too little was kept of it.
    #[inline]
    pub fn identify(&mut self, bytes: &[u8], wire_bytes: usize) -> Result<Identified, Unparsed> {
        let window = Window::new(bytes, wire_bytes);
        let (packet, lane, tunnel_fragment) = innermost(&window)?;
        let mut found = Identified { lane, tunnel_fragment, ..Identified::default() };
        let (start, end) = packet.payload();
        self.words.clear();
        let identification = self.push_ip(bytes, &packet, &mut found.stream);
        let later_fragment = packet.is_later_fragment();
        let content = match packet.protocol() {
            TCP if !later_fragment => self.push_tcp(&window, start, end, &mut found)?,
            UDP if !later_fragment => {
                let header = window.header::<8>(start, end)?;
                let ports = be32(header, 0);
                self.words.push(u64::from(ports) << 32 | u64::from(be16(header, 4)));
                found.stream.set_ports(ports);
                start + 8
            }
            _ => start,
        };
        let wanted = self.content_bytes.min(end - content);
        let kept = bytes.len().saturating_sub(content).min(wanted);
        found.cut = kept < wanted;
        let content = &bytes[content.min(bytes.len())..][..kept];
        if found.tcp_flags & SYN != 0 {
            self.push_content_of_syn(content, usize::from(bytes[start + 12] >> 4) * 4 - 20);
        } else {
            self.words.push_bytes(content);
        }
        let third = match packet.protocol() {
            TCP => found.sequence,
            _ => content.first_chunk().map_or(0, |first| u32::from_be_bytes(*first)),
        };
        let length = (end - start) as u64 & 0xffff;
        found.check = u64::from(identification) << 48 | length << 32 | u64::from(third);
        found.digest = self.digester.digest(&mut self.words);
        Ok(found)
    }

    /// What the IP header says; returns the low half of its identification, 0 where it has none.
    #[inline(always)]
    fn push_ip(&mut self, bytes: &[u8], packet: &Packet, stream: &mut StreamKey) -> u16 {
        let (start, end) = packet.payload();
        let length = (end - start) as u64;
        match packet.header {
            Header::V4(header) => {
                let at = packet.ip_offset;
                // Offset and more-fragments; not DF, which a router may clear.
                let fragment = be16(bytes, at + 6) & 0x3fff;
                self.words.push(header.addresses);
                self.words.push(
                    length << 48
                        | u64::from(header.identification) << 32
                        | u64::from(fragment) << 16
                        | u64::from(header.protocol) << 8
                        | 4,
                );
                *stream = StreamKey::v4(header.addresses, header.protocol, header.later_fragment);
                header.identification
            }
            Header::V6(header) => {
                header.addresses.into_iter().for_each(|word| self.words.push(word));
                // The walk ends at the header of a later fragment, which is then the last one walked.
                let fragment = match header.fragment {
                    None => 0,
                    Some(_) if header.later_fragment => be16(bytes, header.payload_offset - 6),
                    Some(_) => 1,
                };
                let identification = header.fragment.map_or(0, |fragment| fragment.identification);
                self.words.push(
                    length << 32 | u64::from(fragment) << 16 | u64::from(header.protocol) << 8 | 6,
                );
                self.words.push(u64::from(identification));
                *stream = StreamKey::v6(header.addresses, header.protocol, header.later_fragment);
                identification as u16
            }
        }
    }

    /// The fixed part of a TCP header without its checksum; returns where the options start.
    #[inline(always)]
    fn push_tcp(
        &mut self,
        window: &Window<'_>,
        start: usize,
        end: usize,
        found: &mut Identified,
    ) -> Result<usize, Unparsed> {
        let header = window.header::<20>(start, end)?;
        let header_bytes = usize::from(header[12] >> 4) * 4;
        if header_bytes < 20 || start + header_bytes > end {
            return Err(Unparsed::Malformed);
        }
        let (ports, sequence, acknowledgement) =
            (be32(header, 0), be32(header, 4), be32(header, 8));
        self.words.push(u64::from(ports) << 32 | u64::from(sequence));
        // Header length, flags, window.
        self.words.push(u64::from(acknowledgement) << 32 | u64::from(be32(header, 12)));
        self.words.push(u64::from(be16(header, 18)));
        found.stream.set_ports(ports);
        (found.sequence, found.acknowledgement) = (sequence, acknowledgement);
        found.tcp_flags = header[13];
        Ok(start + 20)
    }

    /// Options first, the value of the MSS option (RFC 9293 section 3.7.1) masked, because gateways lower it.
    fn push_content_of_syn(&mut self, content: &[u8], options_bytes: usize) {
        let mut masked = [0; CONTENT_BYTES_MAX];
        let masked = &mut masked[..content.len()];
        masked.copy_from_slice(content);
        let options = options_bytes.min(masked.len());
        let mut at = 0;
        while at < options {
            match masked[at] {
                0 => break,
                1 => at += 1,
                2 => {
                    let value_end = (at + 4).min(options);
                    masked[(at + 2).min(value_end)..value_end].fill(0);
                    at += 4;
                }
                _ => {
                    let length = masked.get(at + 1).map_or(0, |&length| usize::from(length));
                    if length < 2 {
                        break;
                    }
                    at += length;
                }
            }
        }
        self.words.push_bytes(masked);
    }
}

impl Packet {
    /// Where the IP payload starts and ends in the frame.
    #[inline(always)]
    fn payload(&self) -> (usize, usize) {
        match &self.header {
            Header::V4(header) => (header.payload_offset, header.payload_end),
            Header::V6(header) => (header.payload_offset, header.payload_end),
        }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        match &self.header {
            Header::V4(header) => header.protocol,
            Header::V6(header) => header.protocol,
        }
    }

    #[inline(always)]
    fn is_later_fragment(&self) -> bool {
        match &self.header {
            Header::V4(header) => header.later_fragment,
            Header::V6(header) => header.later_fragment,
        }
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        match &self.header {
            Header::V4(header) => header.later_fragment || header.more_fragments,
            Header::V6(header) => header.fragment.is_some(),
        }
    }
}

/// The innermost IP packet, its lane, and whether it is a fragment of a tunnel's packet.
#[inline(always)]
fn innermost(window: &Window<'_>) -> Result<(Packet, LaneKey, bool), Unparsed> {
    let payload = ethernet::walk(window)?;
    let mut packet = ip(window, payload.ether_type, payload.offset)?;
    if packet.protocol() != GRE {
        return Ok((packet, dscp(window, &packet)?, false));
    }
    let mut lane = None;
    for _ in 0..TUNNELS_MAX {
        if packet.protocol() != GRE || packet.is_fragment() {
            break;
        }
        let Some((inside, key)) = inside_gre(window, &packet)? else { break };
        lane.get_or_insert_with(|| tunnel_lane(&packet, key));
        packet = inside;
    }
    let is_fragment = packet.protocol() == GRE && packet.is_fragment();
    match lane {
        Some(lane) => Ok((packet, lane, is_fragment)),
        None => Ok((packet, dscp(window, &packet)?, is_fragment)),
    }
}

#[inline(always)]
fn ip(window: &Window<'_>, ether_type: u16, offset: usize) -> Result<Packet, Unparsed> {
    let header = match ether_type {
        ethernet::IPV4 => Header::V4(ipv4::parse(window, offset)?),
        ethernet::IPV6 => Header::V6(ipv6::parse(window, offset)?),
        _ => return Err(Unparsed::NonIp),
    };
    Ok(Packet { ip_offset: offset, header })
}

/// The IP packet inside of a GRE packet, and the tunnel's key. `None` when something else is inside, or the
/// header is not of RFC 2784 and 2890: then the GRE packet itself is the innermost.
#[inline(never)]
fn inside_gre(
    window: &Window<'_>,
    packet: &Packet,
) -> Result<Option<(Packet, Option<u32>)>, Unparsed> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    let (start, end) = packet.payload();
    let fixed = window.header::<4>(start, end)?;
    let (flags, ether_type) = (be16(fixed, 0), be16(fixed, 2));
    // Neither routing, nor what was reserved, nor another version (1 is PPTP's).
    if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 {
        return Ok(None);
    }
    let mut at = start + 4;
    if flags & CHECKSUM != 0 {
        at += 4;
    }
    let mut key = None;
    if flags & KEY != 0 {
        key = Some(u32::from_be_bytes(*window.header::<4>(at, end)?));
        at += 4;
    }
    if flags & SEQUENCE != 0 {
        at += 4;
    }
    let (ether_type, at) = if ether_type == TRANSPARENT_ETHERNET {
        match inner_ethernet(window, at, end)? {
            Some(inner) => inner,
            None => return Ok(None),
        }
    } else {
        (ether_type, at)
    };
    if !matches!(ether_type, ethernet::IPV4 | ethernet::IPV6) {
        return Ok(None);
    }
    Ok(Some((ip(window, ether_type, at)?, key)))
}

/// EtherType and place of what an Ethernet frame within a tunnel carries, tags skipped.
fn inner_ethernet(
    window: &Window<'_>,
    at: usize,
    end: usize,
) -> Result<Option<(u16, usize)>, Unparsed> {
    let header = window.header::<{ ethernet::HEADER_BYTES }>(at, end)?;
    let mut ether_type = be16(header, 12);
    let mut at = at + ethernet::HEADER_BYTES;
    for _ in 0..ethernet::TAGS_MAX {
        if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        let tag = window.header::<{ ethernet::TAG_BYTES }>(at, end)?;
        ether_type = be16(tag, 2);
        at += ethernet::TAG_BYTES;
    }
    Ok(matches!(ether_type, ethernet::IPV4 | ethernet::IPV6).then_some((ether_type, at)))
}

fn tunnel_lane(packet: &Packet, key: Option<u32>) -> LaneKey {
    match (key, &packet.header) {
        (Some(key), _) => LaneKey::gre_key(key),
        (None, Header::V4(header)) => LaneKey::outer_v4(header.addresses),
        (None, Header::V6(header)) => LaneKey::outer_v6(header.addresses),
    }
}

#[inline(always)]
fn dscp(window: &Window<'_>, packet: &Packet) -> Result<LaneKey, Unparsed> {
    let first = window.header::<2>(packet.ip_offset, window.end())?;
    Ok(LaneKey::dscp(match packet.header {
        Header::V4(_) => first[1] >> 2,
        Header::V6(_) => (be16(first, 0) >> 6) as u8 & 0x3f,
    }))
}

fn fixed_header_bytes(protocol: u8, later_fragment: bool) -> usize {
    match protocol {
        TCP if !later_fragment => 20,
        UDP if !later_fragment => 8,
        _ => 0,
    }
}

#[inline(always)]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, a tag, GRE with key and sequence number, IPv4, TCP with options; and IPv6 with a fragment header.
    fn frames() -> [Vec<u8>; 2] {
        let mut gre = vec![0; 12];
        gre.extend([0x81, 0x00, 0, 5, 0x08, 0x00]);
        gre.extend([0x45, 0, 0, 96, 0, 1, 0, 0, 64, 47, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        gre.extend([0x30, 0, 0x08, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
        gre.extend([0x45, 0, 0, 64, 0, 9, 0x40, 0, 63, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        gre.extend([0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x70, 0x02, 5, 6, 7, 7, 0, 0]);
        gre.extend([1, 2, 4, 5, 0xb4, 4, 2, 0]);
        gre.extend([9; 16]);
        let mut six = vec![0; 12];
        six.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 0, 64]);
        six.extend([1; 32]);
        six.extend([44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 5]);
        six.extend([0, 1, 0, 2, 0, 24, 0, 0]);
        six.extend([3; 16]);
        [gre, six]
    }

    #[test]
    fn the_frames_of_the_next_test_are_sound() {
        let mut identifier = Identifier::new(CONTENT_BYTES);
        let [gre, six] = frames();
        let found = identifier.identify(&gre, gre.len()).unwrap();
        assert_eq!((found.sequence, found.tcp_flags, found.stream.protocol()), (3, SYN, 6));
        assert_eq!(found.lane, LaneKey::gre_key(7));
        let found = identifier.identify(&six, six.len()).unwrap();
        assert_eq!((found.stream.source_port(), found.stream.protocol()), (1, 17));
    }

    /// With overflow checks on: damage of any kind is an error or another identity, never a panic.
    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 1_u64;
        let mut random = |limit: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            ((u128::from(state) * limit as u128) >> 64) as usize
        };
        let mut identifiers = [0, 1, CONTENT_BYTES, CONTENT_BYTES_MAX].map(Identifier::new);
        let mut sound = 0;
        for _ in 0..400_000 {
            let mut frame = frames()[random(2)].clone();
            for _ in 0..random(4) {
                let at = random(frame.len());
                frame[at] = random(256) as u8;
            }
            let wire_bytes = frame.len() + [0, 0, 1000][random(3)];
            frame.truncate(random(2 * frame.len()));
            let identifier = &mut identifiers[random(4)];
            sound += usize::from(identifier.identify(&frame, wire_bytes).is_ok());
            Identifier::kept_content(&frame, wire_bytes);
        }
        assert!(sound > 50_000, "{sound}");
    }

    #[test]
    fn what_a_gateway_changes_is_not_part_of_it_and_everything_else_is() {
        let mut identifier = Identifier::new(CONTENT_BYTES);
        let [gre, _] = frames();
        let inner = 18 + 20 + 12;
        let original = identifier.identify(&gre, gre.len()).unwrap();
        // ToS, DF, TTL, header checksum; TCP checksum; the value of the MSS option.
        let changed: Vec<usize> = [1, 8, 10, 11, 36, 37, 43, 44].map(|at| inner + at).to_vec();
        for at in inner..gre.len() {
            let mut other = gre.clone();
            other[at] ^= 0x40;
            // Lengths that no longer fit make another kind of packet, or none.
            let Ok(found) = identifier.identify(&other, other.len()) else { continue };
            let same = found.digest == original.digest && found.stream == original.stream;
            let is_df = at == inner + 6;
            assert_eq!(same, changed.contains(&at) || is_df, "byte {} of the packet", at - inner);
        }
    }
}
