//! Lanes: what a class does to a packet.
//!
//! * [`mark`] rewrites the DSCP
//! * [`tunnel`] is what is configured of a GRE tunnel
//! * [`encapsulation`] is its way out, [`decapsulation`] its way in: the border of a site, which knows the
//!   [`prefixes`] of both sites
//! * [`sequence`] numbers what goes out and judges the numbers that come in, [`ecn`] carries congestion across
//! * [`fragmentation`] cuts what does not fit a lane, [`path_mtu`] hears what does not fit the way, and
//!   [`rate_limit`] bounds what is said about it
//!
//! Of these, only a mark can be chosen in [`Lanes`].

pub mod decapsulation;
pub mod ecn;
pub mod encapsulation;
pub mod fragmentation;
pub mod mark;
mod outer;
pub mod path_mtu;
pub mod prefixes;
pub mod rate_limit;
mod reasons;
pub mod sequence;
pub mod tunnel;

use serde::{Deserialize, Serialize};

use crate::verdict::Class;
use mark::Mark;

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
