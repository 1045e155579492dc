//! Streams: addresses, protocol and ports, numbered.
//!
//! Every IP packet belongs to a stream; only streams of TCP and UDP have flows that are reported. A later
//! fragment shows no ports, so the later fragments between two hosts are a stream of their own.
//!
//! Invariant: two streams have the same number only if they are the same: keys are compared in full. At most
//! as many as the table was allowed; later ones share [`StreamId::UNKNOWN`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::digest::{Digester, Words};

const V6: u64 = 1;
const FRAGMENT: u64 = 2;

/// ```text
/// words 0..4   IPv4: source (32) | destination (32), then zeros. IPv6: source (two words), destination
/// word 4       source port (16) | destination port (16) | unused (16) | protocol (8) | bits (8): IPv6, fragment
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct StreamKey([u64; 5]);

impl StreamKey {
    /// Without ports yet.
    #[inline(always)]
    pub fn v4(addresses: u64, protocol: u8, later_fragment: bool) -> Self {
        StreamKey([addresses, 0, 0, 0, Self::last(protocol, 0, later_fragment)])
    }

    /// Without ports yet.
    #[inline(always)]
    pub fn v6(addresses: [u64; 4], protocol: u8, later_fragment: bool) -> Self {
        let [a, b, c, d] = addresses;
        StreamKey([a, b, c, d, Self::last(protocol, V6, later_fragment)])
    }

    #[inline(always)]
    fn last(protocol: u8, version: u64, later_fragment: bool) -> u64 {
        let fragment = if later_fragment { FRAGMENT } else { 0 };
        u64::from(protocol) << 8 | version | fragment
    }

    /// Source port (16 bits) and destination port (16).
    #[inline(always)]
    pub fn set_ports(&mut self, ports: u32) {
        self.0[4] = self.0[4] & 0xffff_ffff | u64::from(ports) << 32;
    }

    /// Equal, without the call that comparing arrays costs.
    #[inline(always)]
    fn is(&self, other: &StreamKey) -> bool {
        let [a, b, c, d, last] = self.0;
        let [other_a, other_b, other_c, other_d, other_last] = other.0;
        (a ^ other_a) | (b ^ other_b) | (c ^ other_c) | (d ^ other_d) | (last ^ other_last) == 0
    }

    /// The other direction.
    pub fn reversed(&self) -> StreamKey {
        let [a, b, c, d, last] = self.0;
        let last = u64::from(((last >> 32) as u32).rotate_left(16)) << 32 | last & 0xffff_ffff;
        if last & V6 == 0 {
            StreamKey([a.rotate_left(32), 0, 0, 0, last])
        } else {
            StreamKey([c, d, a, b, last])
        }
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        let [a, b, ..] = self.0;
        if self.0[4] & V6 == 0 {
            Ipv4Addr::from_bits((a >> 32) as u32).into()
        } else {
            Ipv6Addr::from_bits(u128::from(a) << 64 | u128::from(b)).into()
        }
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        self.reversed().source()
    }

    /// The source port; 0 where there is none.
    pub fn source_port(&self) -> u16 {
        (self.0[4] >> 48) as u16
    }

    /// The destination port; 0 where there is none.
    pub fn destination_port(&self) -> u16 {
        (self.0[4] >> 32) as u16
    }

    /// The number of the protocol over IP.
    pub fn protocol(&self) -> u8 {
        (self.0[4] >> 8) as u8
    }

    /// Whether these are packets with a TCP header.
    pub fn is_tcp(&self) -> bool {
        self.protocol() == 6 && self.0[4] & FRAGMENT == 0
    }

    /// Whether these are packets with a TCP or UDP header, and so a flow.
    pub fn is_flow(&self) -> bool {
        matches!(self.protocol(), 6 | 17) && self.0[4] & FRAGMENT == 0
    }
}

/// The number of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The table was full.
    pub const UNKNOWN: StreamId = StreamId(u32::MAX);
}

/// Keys by number and numbers by key: open addressing, at most half full, doubled when needed.
#[derive(Debug)]
pub struct Streams {
    keys: Vec<StreamKey>,
    /// A number plus one, or 0.
    slots: Vec<u32>,
    limit: usize,
    digester: Digester,
    words: Words,
}

impl Streams {
    /// Of at most `limit` streams.
    pub fn new(limit: usize) -> Self {
        Streams {
            keys: Vec::new(),
            slots: vec![0; 1 << 12],
            limit,
            digester: Digester::random(),
            words: Words::default(),
        }
    }

    /// The number of a stream, a new one if it was not seen yet.
    #[inline]
    pub fn id(&mut self, key: &StreamKey) -> StreamId {
        let at = match self.find(key) {
            Ok(id) => return id,
            Err(at) => at,
        };
        if self.keys.len() == self.limit {
            return StreamId::UNKNOWN;
        }
        self.keys.push(*key);
        self.slots[at] = self.keys.len() as u32;
        let id = StreamId(self.keys.len() as u32 - 1);
        if 2 * self.keys.len() > self.slots.len() {
            self.grow();
        }
        id
    }

    /// The number of a stream that was seen.
    pub fn known(&mut self, key: &StreamKey) -> Option<StreamId> {
        self.find(key).ok()
    }

    /// The key of a number, unless it is [`StreamId::UNKNOWN`].
    pub fn key(&self, id: StreamId) -> Option<&StreamKey> {
        self.keys.get(id.0 as usize)
    }

    /// The stream, or the slot where it would go.
    #[inline(always)]
    fn find(&mut self, key: &StreamKey) -> Result<StreamId, usize> {
        let mask = self.slots.len() - 1;
        let mut at = self.hash(key) as usize & mask;
        loop {
            match self.slots[at] {
                0 => return Err(at),
                found if self.keys[found as usize - 1].is(key) => {
                    return Ok(StreamId(found - 1));
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[inline(always)]
    fn hash(&mut self, key: &StreamKey) -> u64 {
        let [a, b, c, d, last] = key.0;
        self.words.clear();
        self.words.push(a);
        self.words.push(last);
        if last & V6 != 0 {
            [b, c, d].into_iter().for_each(|word| self.words.push(word));
        }
        self.digester.digest(&mut self.words)[0]
    }

    #[cold]
    fn grow(&mut self) {
        let mask = 2 * self.slots.len() - 1;
        let mut slots = vec![0; mask + 1];
        for number in 0..self.keys.len() {
            let key = self.keys[number];
            let mut at = self.hash(&key) as usize & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = number as u32 + 1;
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(source: u32, destination: u32, ports: u32) -> StreamKey {
        let mut key = StreamKey::v4(u64::from(source) << 32 | u64::from(destination), 6, false);
        key.set_ports(ports);
        key
    }

    #[test]
    fn the_other_direction_of_the_other_direction_is_the_stream() {
        let key = v4(0x0a00_0001, 0x0a00_0002, 1000 << 16 | 80);
        assert_eq!(key.reversed(), v4(0x0a00_0002, 0x0a00_0001, 80 << 16 | 1000));
        assert_eq!(key.reversed().reversed(), key);
        let mut key = StreamKey::v6([1, 2, 3, 4], 17, false);
        key.set_ports(5 << 16 | 6);
        assert_eq!(key.reversed().source().to_string(), "::3:0:0:0:4");
        assert_eq!((key.reversed().source_port(), key.reversed().destination_port()), (6, 5));
        assert_eq!(key.reversed().reversed(), key);
    }

    #[test]
    fn numbers_stay_while_the_table_grows_and_a_full_one_knows_no_more() {
        let mut streams = Streams::new(20_000);
        for number in 0..20_000 {
            assert_eq!(streams.id(&v4(number, 1, 2)), StreamId(number));
        }
        for number in 0..20_000 {
            assert_eq!(streams.id(&v4(number, 1, 2)), StreamId(number));
        }
        assert_eq!(streams.id(&v4(20_000, 1, 2)), StreamId::UNKNOWN);
        assert_eq!(streams.known(&v4(7, 1, 2)), Some(StreamId(7)));
        assert_eq!(streams.known(&v4(20_000, 1, 2)), None);
    }
}
