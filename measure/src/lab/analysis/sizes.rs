//! Sizes of flows: short ones as a whole, and finer.

use crate::classes::{MORE, SizeClasses};

/// The most packets of a short flow, as the paper's.
pub const SHORT_PACKETS_MAX: u32 = 40;
/// The name of all short flows.
pub const SHORT: &str = "1-40";
/// The name of the largest flows, those of more than 1000 packets.
pub const LONG: &str = MORE;
/// The names of all sizes that are not short, with what they are called in a sentence.
pub const LONGER: [(&str, &str); 3] =
    [("41-100", "41 to 100"), ("101-1000", "101 to 1000"), (LONG, "more than 1000")];

/// Flows of some numbers of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) name: String,
    least: u32,
    most: u32,
}

impl Size {
    /// All short flows.
    pub(super) fn short() -> Size {
        Size { name: SHORT.into(), least: 1, most: SHORT_PACKETS_MAX }
    }

    /// Short flows as a whole, then all classes from small to large.
    pub(super) fn all() -> Vec<Size> {
        let names = SizeClasses::default().names();
        let parsed = |name: &String| {
            name.split_once('-').and_then(|(least, most)| {
                Some((least.parse::<u32>().ok()?, most.parse::<u32>().ok()?))
            })
        };
        let mut below = 0;
        let classes = names.iter().map(|name| {
            let (least, most) = parsed(name).unwrap_or((below + 1, u32::MAX));
            below = most;
            Size { name: name.clone(), least, most }
        });
        [Size::short()].into_iter().chain(classes).collect()
    }

    pub(super) fn holds(&self, packets: u32) -> bool {
        self.least <= packets && packets <= self.most
    }

    /// Whether none of its flows is short.
    pub(super) fn is_long(&self) -> bool {
        self.least > SHORT_PACKETS_MAX
    }
}
