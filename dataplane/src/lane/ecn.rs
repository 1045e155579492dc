//! Explicit congestion notification across a tunnel: RFC 6040, normal mode.
//!
//! What enters copies its ECN field into the outer header (section 4.1). What leaves combines both fields
//! (section 4.2, figure 4):
//!
//! ```text
//!                          outer
//!   inner      Not-ECT    ECT(0)     ECT(1)     CE
//!   Not-ECT    Not-ECT    Not-ECT*   Not-ECT*   dropped*
//!   ECT(0)     ECT(0)     ECT(0)     ECT(1)     CE
//!   ECT(1)     ECT(1)     ECT(1)-    ECT(1)     CE
//!   CE         CE         CE         CE*        CE
//!
//!   *  dangerous: "(!!!)" in the RFC      -  without a known use: "(!)"
//! ```

use serde::{Deserialize, Serialize};

/// Bits of the ECN field in the octet of the traffic class.
pub const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// What becomes of a packet's ECN field when it leaves a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// The field is this, and nothing is wrong.
    Plain(u8),
    /// The field is this; the combination is one that no correct tunnel gives.
    Dangerous(u8),
    /// The field is this; the combination has no known use.
    Unused(u8),
    /// The packet must be dropped: its transport would not understand that the tunnel was congested.
    Dropped,
}

/// Packets that left a tunnel with a combination that should not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcnAlarms {
    /// Passed on although the combination is dangerous: outer ECT on inner Not-ECT, outer ECT(1) on inner CE.
    pub dangerous: u64,
    /// Outer ECT(0) on inner ECT(1), which has no known use.
    pub unused: u64,
}

impl EcnAlarms {
    /// Adds those of another worker.
    pub fn add(&mut self, other: &EcnAlarms) {
        self.dangerous += other.dangerous;
        self.unused += other.unused;
    }
}

/// The field of a packet that leaves a tunnel, of the two it arrived with (two bits each).
#[inline(always)]
pub const fn leaving(inner: u8, outer: u8) -> Leaving {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, NOT_ECT) => Leaving::Plain(NOT_ECT),
        (NOT_ECT, CE) => Leaving::Dropped,
        (NOT_ECT, _) => Leaving::Dangerous(NOT_ECT),
        (CE, ECT_1) => Leaving::Dangerous(CE),
        (CE, _) | (_, CE) => Leaving::Plain(CE),
        (ECT_1, ECT_0) => Leaving::Unused(ECT_1),
        (ECT_0, ECT_1) => Leaving::Plain(ECT_1),
        (inner, _) => Leaving::Plain(inner),
    }
}

/// The same, when nothing is wrong.
#[inline(always)]
pub fn leaving_unsuspected(inner: u8, outer: u8) -> Option<u8> {
    UNSUSPECTED[usize::from((inner & MASK) << 2 | outer & MASK)]
}

/// By the inner field, then the outer.
const UNSUSPECTED: [Option<u8>; 16] = {
    let mut fields = [None; 16];
    let mut both = 0;
    while both < fields.len() {
        if let Leaving::Plain(field) = leaving(both as u8 >> 2, both as u8) {
            fields[both] = Some(field);
        }
        both += 1;
    }
    fields
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, line by line.
    #[test]
    fn the_whole_table_is_the_rfcs() {
        use Leaving::{Dangerous, Dropped, Plain, Unused};
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Plain(NOT_ECT), Dangerous(NOT_ECT), Dangerous(NOT_ECT), Dropped]),
            (ECT_0, [Plain(ECT_0), Plain(ECT_0), Plain(ECT_1), Plain(CE)]),
            (ECT_1, [Plain(ECT_1), Unused(ECT_1), Plain(ECT_1), Plain(CE)]),
            (CE, [Plain(CE), Plain(CE), Dangerous(CE), Plain(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in outer.into_iter().zip(row) {
                assert_eq!(leaving(inner, outer), expected, "inner {inner:02b} outer {outer:02b}");
                // Only two bits of each octet matter.
                assert_eq!(leaving(inner | 0xb8, outer | 0x28), expected);
                let unsuspected = leaving_unsuspected(inner | 0xb8, outer | 0x28);
                assert_eq!(
                    unsuspected.map(Plain),
                    Some(expected).filter(|one| matches!(one, Plain(_)))
                );
            }
        }
    }
}
