//! How far a rig's times are off: the same tap on both ports, so every true delay is the same.
//!
//! What is measured then is the rig: the difference of the two stamps of one packet, which may be below zero. Its
//! **floor** is the spread of these differences; no jitter smaller than that can be measured. Its **error bound** is
//! the greatest difference without its sign, or the unit of the stamps where that is more: a time measured with
//! this rig is right to within that, as far as these packets show.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::export::table::time;
use crate::session::Found;
use crate::statistics::{Series, Summary};

/// What `calibrate` finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Packets seen on both ports.
    pub packets: u64,
    /// Stamp of egress less stamp of ingress.
    pub difference_ns: Summary,
    /// The same without its sign and less its median: what the rig adds to jitter.
    pub floor_ns: Summary,
    /// A delay or completion time is right to within this.
    pub error_bound_ns: u64,
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// No packet was seen on both ports.
    #[error(
        "no packet was seen on both ports: feed one and the same tap to both, and capture again"
    )]
    Nothing,
    /// Too many packets for exact figures.
    #[error(
        "{packets} packets are more than can be calibrated with; a few hundred thousand are enough"
    )]
    TooMany {
        /// How many.
        packets: u64,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {cause}; name a file that `calibrate --output` wrote", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

impl Calibration {
    /// From a run in which every flow was taken to be forward.
    ///
    /// # Errors
    ///
    /// When no packet was matched, or too many.
    pub fn of(
        found: Found,
        resolution_ns: [Option<u64>; 2],
    ) -> Result<Calibration, CalibrationError> {
        let [way, _] = found.measurement.ways;
        let packets = way.matched;
        let Some(differences) = way.differences.into_samples() else {
            return Err(CalibrationError::TooMany { packets });
        };
        let all = |samples: &[i64]| {
            let mut series = Series::new(usize::MAX);
            samples.iter().for_each(|&sample| series.record(sample));
            series.summary()
        };
        let difference_ns = all(&differences);
        let Some(median) = difference_ns.p50 else { return Err(CalibrationError::Nothing) };
        let floor: Vec<i64> = differences.iter().map(|ns| (ns - median).abs()).collect();
        let greatest = differences.iter().map(|ns| ns.unsigned_abs()).max().unwrap_or(0);
        let unit_ns = resolution_ns.into_iter().flatten().max().unwrap_or(1);
        Ok(Calibration {
            packets,
            difference_ns,
            floor_ns: all(&floor),
            error_bound_ns: greatest.max(unit_ns),
        })
    }

    /// Reads what `calibrate --output` wrote.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Calibration, CalibrationError> {
        let read = |cause| CalibrationError::Read { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(read)?;
        serde_json::from_str(&text).map_err(|error| read(error.into()))
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |ns: Option<i64>| ns.map_or("-".into(), |ns| time(ns as f64));
        writeln!(out, "{} packets on both ports", self.packets)?;
        for (name, figures) in
            [("difference of stamps", &self.difference_ns), ("floor of jitter", &self.floor_ns)]
        {
            let [min, p50, p99, max] =
                [figures.min, figures.p50, figures.p99, figures.max].map(show);
            writeln!(out, "{name:<22} min {min:>9}  p50 {p50:>9}  p99 {p99:>9}  max {max:>9}")?;
        }
        writeln!(out, "error bound: a time is right to within {}", time(self.error_bound_ns as f64))
    }
}
