//! A template: Ethernet and outer headers to a tunnel's other end, for IPv4 packets, complete but for what no two
//! packets need have in common: length, traffic class and the checksum over both.
//!
//! ```text
//!   Ethernet | IPv4 | GRE | key        34 bytes and 4, or 8
//! ```
//!
//! Only a tunnel that asks nothing else of a packet has one: over IPv4 with DF, without UDP, sequence numbers and
//! checksum. What comes out is what [`Encapsulator`](super::encapsulation::Encapsulator) makes of the packet.

use super::ecn;
use crate::wire::buffer::Buffer;
use crate::wire::{checksum, ethernet, gre, ipv4};

/// Where the outer IPv4 header is, and the inner one when it goes in.
const IP: usize = ethernet::HEADER_BYTES;
/// Bytes of the longest.
const BYTES_MAX: usize = IP + ipv4::HEADER_BYTES + gre::HEADER_BYTES + gre::OPTION_BYTES;

/// See the module.
#[derive(Debug, Clone)]
pub struct Template {
    headers: [u8; BYTES_MAX],
    /// Bytes of them.
    length: usize,
    /// Sum of the outer IPv4 header as it stands here.
    ip_sum: u16,
    dscp: Option<u8>,
}

impl Template {
    /// Of a tunnel's outer headers, without lengths and protocol, and its Ethernet header.
    pub(super) fn new(
        link: &[u8; ethernet::HEADER_BYTES],
        outer: &[u8],
        ip_sum: u16,
        dscp: Option<u8>,
    ) -> Template {
        let length = IP + outer.len();
        let mut headers = [0; BYTES_MAX];
        headers[..12].copy_from_slice(&link[..12]);
        headers[12..IP].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        headers[IP..length].copy_from_slice(outer);
        let protocol_at = IP + ipv4::HEADER_BYTES + 2;
        headers[protocol_at..protocol_at + 2].copy_from_slice(&ethernet::IPV4.to_be_bytes());
        Template { headers, length, ip_sum, dscp }
    }

    /// Bytes by which packets grow.
    pub fn overhead_bytes(&self) -> usize {
        self.length - IP
    }

    /// Encapsulates the frame whose IPv4 header, sound and whole, follows an untagged Ethernet header;
    /// `inner_bytes` is its length. One hop is taken from it, of which it has more than one. False, and only
    /// padding gone, when there is no room.
    #[inline(always)]
    #[must_use]
    pub fn encapsulate(&self, buffer: &mut Buffer<'_>, inner_bytes: u16) -> bool {
        let header: &[u8; ipv4::HEADER_BYTES] =
            buffer[IP..].first_chunk().expect("the header is whole");
        let (traffic_class, ttl) = (header[1], header[8] - 1);
        // Of the word that changes only the difference matters, and that is in the TTL, its upper half.
        let inner_sum = checksum::update(u16::from_be_bytes([header[10], header[11]]), 0x0100, 0);
        buffer.truncate(IP + usize::from(inner_bytes));
        if !buffer.insert(IP, self.overhead_bytes()) {
            return false;
        }
        // From here on nothing is read that was written: the processor would wait for it.
        let frame = &mut buffer[..];
        let (outer, inner) = frame.split_at_mut(self.length);
        let inner: &mut [u8; ipv4::HEADER_BYTES] =
            inner.first_chunk_mut().expect("the inner header is whole");
        inner[8] = ttl;
        inner[10..12].copy_from_slice(&inner_sum.to_be_bytes());
        // Two copies of a fixed length that overlap.
        outer[..32].copy_from_slice(&self.headers[..32]);
        outer[self.length - 16..].copy_from_slice(&self.headers[self.length - 16..self.length]);
        let outer: &mut [u8; ipv4::HEADER_BYTES] =
            outer[IP..].first_chunk_mut().expect("an outer header is whole");
        let traffic_class = match self.dscp {
            Some(dscp) => dscp << 2 | traffic_class & ecn::MASK,
            None => traffic_class,
        };
        let outer_bytes = inner_bytes + self.overhead_bytes() as u16;
        let sum = checksum::add(self.ip_sum, u16::from(traffic_class));
        let sum = !checksum::add(sum, outer_bytes);
        outer[1] = traffic_class;
        outer[2..4].copy_from_slice(&outer_bytes.to_be_bytes());
        outer[10..12].copy_from_slice(&sum.to_be_bytes());
        true
    }
}
