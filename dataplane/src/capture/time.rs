//! Time stamps of a pcapng interface, in nanoseconds.
//!
//! An interface counts units of 10^-n or 2^-n seconds since 1970 (`if_tsresol`) and may add whole
//! seconds (`if_tsoffset`). Everything is exact; finer units are rounded down.

const NS_PER_SECOND: u64 = 1_000_000_000;

/// How an interface counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    resolution: Resolution,
    offset_ns: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolution {
    /// A nanosecond or coarser: nanoseconds per unit.
    Coarse(u64),
    /// Finer than a nanosecond: units per nanosecond.
    Fine(u64),
    /// 2^-n seconds.
    Binary(u32),
    /// So fine that 64 bits of units are less than a nanosecond.
    Vanishing,
}

impl Clock {
    /// The default of the format: microseconds since 1970.
    pub(super) const MICROSECONDS: Clock =
        Clock { resolution: Resolution::Coarse(1_000), offset_ns: 0 };

    /// With `if_tsresol`: the highest bit chooses the base, 10 or 2; the others are the negative
    /// exponent.
    pub(super) fn with_resolution(self, if_tsresol: u8) -> Clock {
        let exponent = u32::from(if_tsresol & 0x7f);
        let resolution = match exponent {
            _ if if_tsresol & 0x80 != 0 => Resolution::Binary(exponent),
            0..=9 => Resolution::Coarse(10u64.pow(9 - exponent)),
            _ => 10u64.checked_pow(exponent - 9).map_or(Resolution::Vanishing, Resolution::Fine),
        };
        Clock { resolution, ..self }
    }

    /// With `if_tsoffset`: seconds to add.
    pub(super) fn with_offset_seconds(self, if_tsoffset: i64) -> Clock {
        Clock { offset_ns: i128::from(if_tsoffset) * i128::from(NS_PER_SECOND), ..self }
    }

    /// The unit in nanoseconds, rounded up.
    pub(super) fn resolution_ns(self) -> u64 {
        match self.resolution {
            Resolution::Coarse(ns_per_unit) => ns_per_unit,
            Resolution::Fine(_) | Resolution::Vanishing => 1,
            Resolution::Binary(shift) => match 1_u64.checked_shl(shift) {
                Some(units) => NS_PER_SECOND.div_ceil(units),
                None => 1,
            },
        }
    }

    /// Nanoseconds since 1970 of a time stamp; `None` before 1970 and from 2554-07-21 on.
    pub(super) fn nanoseconds(self, units: u64) -> Option<u64> {
        let since_offset_ns = match self.resolution {
            Resolution::Coarse(ns_per_unit) => u128::from(units) * u128::from(ns_per_unit),
            Resolution::Fine(units_per_ns) => u128::from(units / units_per_ns),
            Resolution::Binary(shift) => (u128::from(units) * u128::from(NS_PER_SECOND)) >> shift,
            Resolution::Vanishing => 0,
        };
        // Below 2^94 plus below 2^93.
        u64::try_from(since_offset_ns as i128 + self.offset_ns).ok()
    }
}
