//! From the Ethernet header down to TCP.

use super::ethernet::{self, Vlans};
use super::window::{Unparsed, Window, u32_at, u64_at};
use super::{ipv4, ipv6, tcp};

/// Ethernet, IPv4 and TCP headers without tags and options.
const PLAIN_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + tcp::HEADER_BYTES;

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// What follows the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A TCP header.
    #[default]
    Tcp,
    /// A TCP header, and the first of several fragments.
    FirstFragment,
    /// A later fragment, which shows no TCP header.
    LaterFragment,
}

/// Which datagram a fragment belongs to, beside its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Datagram {
    /// IPv4: the protocol. IPv6: the fragment header's next header.
    pub protocol: u8,
    /// The identification field.
    pub identification: u32,
}

/// A frame that can be classified. It is filled in place and used again: numbers as they stand in the
/// headers, and nothing is cleared that nobody will read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    /// Where its IP header starts.
    pub ip_offset: usize,
    /// Which IP header that is.
    pub version: Version,
    /// IPv4: source (32 bits) and destination (32) in the first word. IPv6: source (two words) and
    /// destination (two).
    pub addresses: [u64; 4],
    /// What its IP header carries.
    pub transport: Transport,
    /// Source port (16 bits), destination port (16) and packed VLAN tags (32), in one word: read as one just
    /// after it was written as two, it would wait for both to reach the cache. A later fragment has no ports.
    pub ports_and_vlans: u64,
    /// SYN without ACK; not of a later fragment.
    pub opens_connection: bool,
    /// Of a fragment alone.
    pub datagram: Datagram,
}

impl Frame {
    /// Its VLAN tags.
    pub fn vlans(&self) -> Vlans {
        Vlans::from_packed(self.ports_and_vlans as u32)
    }

    /// Reads a frame, sooner when it is plain, as most are.
    #[inline(always)]
    pub fn parse(&mut self, bytes: &[u8], wire_bytes: usize) -> Result<(), Unparsed> {
        if self.read_plain(bytes, wire_bytes) { Ok(()) } else { self.walk(bytes, wire_bytes) }
    }

    /// Reads a frame that is plain: no VLAN tag, IPv4 without options, no fragment, TCP, and everything as it
    /// should be. False when it is not, and then nothing is known. All at fixed places, so there is one check
    /// of the length and one branch.
    #[inline(always)]
    fn read_plain(&mut self, bytes: &[u8], wire_bytes: usize) -> bool {
        let Some(header) = bytes.first_chunk::<PLAIN_BYTES>() else { return false };
        // EtherType, version and header length, ToS, total length, identification.
        let start = u64_at(header, 12);
        // Flags and fragment offset, TTL, protocol.
        let middle = u32_at(header, 20);
        let datagram_end = ethernet::HEADER_BYTES + (start >> 16) as usize % (1 << 16);
        let data_offset = usize::from(header[46] >> 4);
        let is_plain = (start >> 40 == 0x08_0045)
            & (middle & 0x3fff_00ff == u32::from(tcp::PROTOCOL))
            & (data_offset >= tcp::HEADER_BYTES / 4)
            & (34 + 4 * data_offset <= datagram_end)
            & (datagram_end <= wire_bytes.max(bytes.len()));
        if !is_plain {
            return false;
        }
        self.ip_offset = ethernet::HEADER_BYTES;
        self.version = Version::V4;
        self.addresses[0] = u64_at(header, 26);
        self.transport = Transport::Tcp;
        self.ports_and_vlans = u64::from(u32_at(header, 34)) << 32;
        self.opens_connection = tcp::opens_connection(header[47]);
        true
    }

    /// Walks a frame. From the outside in, each header is checked before the next is looked at, so a frame
    /// that is wrong in two ways is known by the outer one.
    #[inline(never)]
    fn walk(&mut self, bytes: &[u8], wire_bytes: usize) -> Result<(), Unparsed> {
        let window = Window::new(bytes, wire_bytes);
        // Until its tags are known. A router looks at it whatever else is wrong.
        self.ip_offset = ethernet::HEADER_BYTES;
        let payload = ethernet::walk(&window)?;
        self.ports_and_vlans = u64::from(payload.vlans.packed());
        self.ip_offset = payload.offset;
        match payload.ether_type {
            ethernet::IPV4 => self.parse_ipv4(&window),
            ethernet::IPV6 => self.parse_ipv6(&window),
            _ => Err(Unparsed::NonIp),
        }
    }

    fn parse_ipv4(&mut self, window: &Window) -> Result<(), Unparsed> {
        let header = ipv4::parse(window, self.ip_offset)?;
        if header.protocol != tcp::PROTOCOL {
            return Err(Unparsed::NonTcp);
        }
        self.version = Version::V4;
        self.addresses[0] = header.addresses;
        if header.more_fragments || header.later_fragment {
            self.datagram = Datagram {
                protocol: header.protocol,
                identification: u32::from(header.identification),
            };
        }
        if header.later_fragment {
            self.transport = Transport::LaterFragment;
            return Ok(());
        }
        self.parse_tcp(window, header.payload_offset, header.payload_end, header.more_fragments)
    }

    fn parse_ipv6(&mut self, window: &Window) -> Result<(), Unparsed> {
        let header = ipv6::parse(window, self.ip_offset)?;
        self.version = Version::V6;
        self.addresses = header.addresses;
        if let Some(ipv6::Fragment { identification, next_header }) = header.fragment {
            self.datagram = Datagram { protocol: next_header, identification };
        }
        let is_tcp = header.protocol == tcp::PROTOCOL;
        if header.later_fragment {
            // Behind an extension header the fragment may be of a TCP datagram; behind UDP it cannot.
            if !is_tcp && !ipv6::is_walked(header.protocol) {
                return Err(Unparsed::NonTcp);
            }
            self.transport = Transport::LaterFragment;
            return Ok(());
        }
        if !is_tcp {
            return Err(Unparsed::NonTcp);
        }
        let is_first = header.fragment.is_some();
        self.parse_tcp(window, header.payload_offset, header.payload_end, is_first)
    }

    fn parse_tcp(
        &mut self,
        window: &Window,
        offset: usize,
        payload_end: usize,
        is_first_fragment: bool,
    ) -> Result<(), Unparsed> {
        let header = tcp::parse(window, offset, payload_end)?;
        self.transport = if is_first_fragment { Transport::FirstFragment } else { Transport::Tcp };
        self.ports_and_vlans |= u64::from(header.ports) << 32;
        self.opens_connection = header.opens_connection;
        Ok(())
    }
}
