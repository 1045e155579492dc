//! From the Ethernet header down to TCP.

use super::ethernet::{self, Vlans};
use super::window::{Unparsed, Window};
use super::{ipv4, ipv6, tcp};

/// Source and destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Of an IPv4 packet.
    V4 {
        /// Source address.
        source: [u8; 4],
        /// Destination address.
        destination: [u8; 4],
    },
    /// Of an IPv6 packet.
    V6 {
        /// Source address.
        source: [u8; 16],
        /// Destination address.
        destination: [u8; 16],
    },
}

/// Which datagram a fragment belongs to, beside its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// IPv4: the protocol. IPv6: the fragment header's next header.
    pub protocol: u8,
    /// The identification field.
    pub identification: u32,
}

/// What follows the IP header of a frame that can be classified.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    /// A TCP header, with the datagram it opens when it is the first of several fragments.
    Tcp(tcp::Header, Option<Datagram>),
    /// A later fragment, which shows no TCP header.
    LaterFragment(Datagram),
}

/// A frame that can be classified.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Its VLAN tags.
    pub vlans: Vlans,
    /// Where its IP header starts.
    pub ip_offset: usize,
    /// Its IP addresses.
    pub addresses: Addresses,
    /// What its IP header carries.
    pub transport: Transport,
}

/// Walks a frame. From the outside in, each header is checked before the next is looked at, so a frame that
/// is wrong in two ways is known by the outer one.
#[inline(always)]
pub fn parse(bytes: &[u8], wire_bytes: usize) -> Result<Frame, Unparsed> {
    let window = Window::new(bytes, wire_bytes);
    let payload = ethernet::walk(&window)?;
    let (addresses, transport) = match payload.ether_type {
        ethernet::IPV4 => parse_ipv4(&window, payload.offset)?,
        ethernet::IPV6 => parse_ipv6(&window, payload.offset)?,
        _ => return Err(Unparsed::NonIp),
    };
    Ok(Frame { vlans: payload.vlans, ip_offset: payload.offset, addresses, transport })
}

#[inline(always)]
fn parse_ipv4(window: &Window, offset: usize) -> Result<(Addresses, Transport), Unparsed> {
    let header = ipv4::parse(window, offset)?;
    if header.protocol != tcp::PROTOCOL {
        return Err(Unparsed::NonTcp);
    }
    let datagram =
        Datagram { protocol: header.protocol, identification: u32::from(header.identification) };
    let transport = if header.later_fragment {
        Transport::LaterFragment(datagram)
    } else {
        let tcp = tcp::parse(window, header.payload_offset, header.payload_end)?;
        Transport::Tcp(tcp, header.more_fragments.then_some(datagram))
    };
    let addresses = Addresses::V4 { source: header.source, destination: header.destination };
    Ok((addresses, transport))
}

#[inline(always)]
fn parse_ipv6(window: &Window, offset: usize) -> Result<(Addresses, Transport), Unparsed> {
    let header = ipv6::parse(window, offset)?;
    let datagram = header.fragment.map(|fragment| Datagram {
        protocol: fragment.next_header,
        identification: fragment.identification,
    });
    let transport = match datagram {
        Some(datagram) if header.later_fragment => {
            // Behind an extension header the fragment may be of a TCP datagram; behind UDP it cannot.
            if header.protocol != tcp::PROTOCOL && !ipv6::is_walked(header.protocol) {
                return Err(Unparsed::NonTcp);
            }
            Transport::LaterFragment(datagram)
        }
        _ => {
            if header.protocol != tcp::PROTOCOL {
                return Err(Unparsed::NonTcp);
            }
            let tcp = tcp::parse(window, header.payload_offset, header.payload_end)?;
            Transport::Tcp(tcp, datagram)
        }
    };
    let addresses = Addresses::V6 { source: header.source, destination: header.destination };
    Ok((addresses, transport))
}
