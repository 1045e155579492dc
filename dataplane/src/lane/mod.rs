//! Lanes: what a class does to a packet.
//!
//! * [`mark`] rewrites the DSCP
//! * [`tunnel`] is what is configured of a GRE tunnel
//! * [`encapsulation`] is its way out, by a [`template`] for plain packets where the tunnel has one;
//!   [`decapsulation`] its way in, by a [`pattern`]: the border of a site, which knows the [`prefixes`] of both sites
//! * [`sequence`] numbers what goes out and judges the numbers that come in, [`ecn`] carries congestion across
//! * [`fragmentation`] cuts what does not fit a lane, [`path_mtu`] hears what does not fit the way, and
//!   [`rate_limit`] bounds what is said about it
//!
//! Inline a lane is a mark ([`Lanes`]). In routed mode it is one of three kinds ([`Lane`]).

pub mod decapsulation;
pub mod ecn;
pub mod encapsulation;
pub mod fragmentation;
pub mod mark;
mod outer;
pub mod path_mtu;
pub mod pattern;
pub mod prefixes;
pub mod rate_limit;
mod reasons;
pub mod sequence;
pub mod template;
pub mod tunnel;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::verdict::Class;
use mark::Mark;
use tunnel::Tunnel;

/// The lane of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// Where the first packets of a flow travel.
    pub short: Mark,
    /// Where a flow travels that has grown past the threshold.
    pub long: Mark,
}

impl Lanes {
    /// The lane of a class.
    #[inline(always)]
    pub fn of(&self, class: Class) -> Mark {
        match class {
            Class::Short => self.short,
            Class::Long => self.long,
        }
    }
}

/// A lane of routed mode, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Packets take the route of their destination, marked.
    Mark(Mark),
    /// Packets are sent to this next hop, whatever their destination; marked, or as they are.
    NextHop {
        /// A neighbour on a connected network, or an address that routes lead to.
        address: IpAddr,
        /// The DSCP to write; none leaves that of the packet.
        mark: Option<Mark>,
    },
    /// Packets are encapsulated, and take the route of the tunnel's other end.
    Gre(Tunnel),
}

impl Lane {
    /// The tunnel, if it is one.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        match self {
            Lane::Gre(tunnel) => Some(tunnel),
            Lane::Mark(_) | Lane::NextHop { .. } => None,
        }
    }
}
