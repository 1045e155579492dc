//! Lanes as a tap sees them: the key of a GRE tunnel, its outer addresses when it has no key, or the DSCP of a
//! packet in no tunnel.
//!
//! A lane seen is numbered once; packets carry the number. At most [`LANES_MAX`] are told apart: what comes
//! later is counted under [`LaneId::OTHER`].

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most lanes that are told apart.
pub const LANES_MAX: usize = 255;

const DSCP: u64 = 1;
const GRE_KEY: u64 = 2;
const OUTER_V4: u64 = 3;
const OUTER_V6: u64 = 4;
const KIND_SHIFT: u32 = 56;

/// What a frame says about its lane, in words that compare fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct LaneKey {
    /// Kind (8 bits) and DSCP or key.
    tag: u64,
    addresses: [u64; 4],
}

impl LaneKey {
    /// The DSCP of a packet that is in no tunnel.
    #[inline(always)]
    pub fn dscp(dscp: u8) -> Self {
        LaneKey { tag: DSCP << KIND_SHIFT | u64::from(dscp), addresses: [0; 4] }
    }

    /// A GRE key.
    pub fn gre_key(key: u32) -> Self {
        LaneKey { tag: GRE_KEY << KIND_SHIFT | u64::from(key), addresses: [0; 4] }
    }

    /// Outer source (32 bits) and destination (32) of a tunnel without a key.
    pub fn outer_v4(addresses: u64) -> Self {
        LaneKey { tag: OUTER_V4 << KIND_SHIFT, addresses: [addresses, 0, 0, 0] }
    }

    /// Outer source and destination, two words each.
    pub fn outer_v6(addresses: [u64; 4]) -> Self {
        LaneKey { tag: OUTER_V6 << KIND_SHIFT, addresses }
    }

    /// Whether the packet came in a tunnel.
    #[inline(always)]
    pub fn is_tunnel(&self) -> bool {
        self.tag >> KIND_SHIFT >= GRE_KEY
    }
}

impl fmt::Display for LaneKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.tag & 0xffff_ffff;
        match self.tag >> KIND_SHIFT {
            DSCP => write!(formatter, "dscp {value}"),
            GRE_KEY => write!(formatter, "gre key {value}"),
            OUTER_V4 => {
                let [source, destination] =
                    [self.addresses[0] >> 32, self.addresses[0] & 0xffff_ffff]
                        .map(|address| Ipv4Addr::from_bits(address as u32));
                write!(formatter, "gre {source}>{destination}")
            }
            OUTER_V6 => {
                let [a, b, c, d] = self.addresses.map(u128::from);
                let [source, destination] = [a << 64 | b, c << 64 | d].map(Ipv6Addr::from_bits);
                write!(formatter, "gre {source}>{destination}")
            }
            _ => formatter.write_str("other"),
        }
    }
}

/// The number of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u8);

impl LaneId {
    /// One lane too many, or none known.
    pub const OTHER: LaneId = LaneId(LANES_MAX as u8);

    /// Its place in a list of [`Lanes`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The lanes seen so far.
#[derive(Debug, Clone)]
pub struct Lanes {
    keys: Vec<LaneKey>,
    /// The lane of each DSCP, once seen.
    by_dscp: [Option<LaneId>; 64],
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes { keys: Vec::new(), by_dscp: [None; 64] }
    }
}

impl Lanes {
    /// The number of a lane, a new one if it was not seen yet.
    #[inline(always)]
    pub fn id(&mut self, key: &LaneKey) -> LaneId {
        if !key.is_tunnel()
            && let Some(id) = self.by_dscp[key.tag as usize & 63]
        {
            return id;
        }
        self.find(key)
    }

    #[inline(never)]
    fn find(&mut self, key: &LaneKey) -> LaneId {
        if let Some(at) = self.keys.iter().position(|known| known == key) {
            return LaneId(at as u8);
        }
        if self.keys.len() == LANES_MAX {
            return LaneId::OTHER;
        }
        let id = LaneId(self.keys.len() as u8);
        self.keys.push(*key);
        if !key.is_tunnel() {
            self.by_dscp[key.tag as usize & 63] = Some(id);
        }
        id
    }

    /// Whether this lane is a tunnel.
    #[inline(always)]
    pub fn is_tunnel(&self, id: LaneId) -> bool {
        self.keys.get(id.index()).is_some_and(LaneKey::is_tunnel)
    }

    /// The name of a lane.
    pub fn name(&self, id: LaneId) -> String {
        self.keys.get(id.index()).map_or_else(|| "other".into(), LaneKey::to_string)
    }
}
