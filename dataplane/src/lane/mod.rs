//! Lanes: what a class does to a packet.
//!
//! * [`mark`] rewrites the DSCP
//! * [`tunnel`] is what is configured of a GRE tunnel
//!
//! A lane is a mark today. A tunnel will be a second kind, beside `mark`, chosen in [`Lanes`].

pub mod mark;
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
