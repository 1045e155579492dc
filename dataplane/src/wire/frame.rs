//! From the Ethernet header down to TCP.

use super::ethernet::{self, Vlans};
use super::window::{Unparsed, Window};
use super::{ipv4, ipv6, tcp};

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
    /// Its VLAN tags.
    pub vlans: Vlans,
    /// Where its IP header starts.
    pub ip_offset: usize,
    /// Which IP header that is.
    pub version: Version,
    /// IPv4: source (32 bits) and destination (32) in the first word. IPv6: source (two words) and
    /// destination (two).
    pub addresses: [u64; 4],
    /// What its IP header carries.
    pub transport: Transport,
    /// Source port (16 bits) and destination port (16); not of a later fragment.
    pub ports: u32,
    /// SYN without ACK; not of a later fragment.
    pub opens_connection: bool,
    /// Of a fragment alone.
    pub datagram: Datagram,
}

impl Frame {
    /// Walks a frame. From the outside in, each header is checked before the next is looked at, so a frame
    /// that is wrong in two ways is known by the outer one.
    #[inline(always)]
    pub fn parse(&mut self, bytes: &[u8], wire_bytes: usize) -> Result<(), Unparsed> {
        let window = Window::new(bytes, wire_bytes);
        let payload = ethernet::walk(&window)?;
        self.vlans = payload.vlans;
        self.ip_offset = payload.offset;
        match payload.ether_type {
            ethernet::IPV4 => self.parse_ipv4(&window),
            ethernet::IPV6 => self.parse_ipv6(&window),
            _ => Err(Unparsed::NonIp),
        }
    }

    #[inline(always)]
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

    // Not inlined: a long walk that would only keep IPv4's short one out of registers.
    #[inline(never)]
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

    #[inline(always)]
    fn parse_tcp(
        &mut self,
        window: &Window,
        offset: usize,
        payload_end: usize,
        is_first_fragment: bool,
    ) -> Result<(), Unparsed> {
        let header = tcp::parse(window, offset, payload_end)?;
        self.transport = if is_first_fragment { Transport::FirstFragment } else { Transport::Tcp };
        self.ports = header.ports;
        self.opens_connection = header.opens_connection;
        Ok(())
    }
}
