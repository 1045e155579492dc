//! Link types: what the first byte of a captured packet is.

use std::fmt;

/// A LINKTYPE_ value of the tcpdump.org registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkType(pub u16);

impl LinkType {
    /// Ethernet frames from the destination address on: the only link type read here.
    pub const ETHERNET: LinkType = LinkType(1);

    /// The registry's name, for those usually met.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL, BSD loopback",
            1 => "ETHERNET",
            9 => "PPP",
            12 | 101 => "RAW, IP without a link layer",
            105 => "IEEE802_11, wireless",
            108 => "LOOP, OpenBSD loopback",
            113 => "LINUX_SLL, Linux cooked capture",
            127 => "IEEE802_11_RADIOTAP, wireless",
            228 => "IPV4, IP without a link layer",
            229 => "IPV6, IP without a link layer",
            249 => "USBPCAP",
            276 => "LINUX_SLL2, Linux cooked capture",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(formatter, "{} ({name})", self.0),
            None => write!(formatter, "{}", self.0),
        }
    }
}
