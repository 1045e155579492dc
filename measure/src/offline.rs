//! A run over capture files.

use std::path::{Path, PathBuf};

use dataplane::capture::CaptureError;

use crate::identity::{CONTENT_BYTES, Identifier};
use crate::measurement::Rows;
use crate::session::{Found, Session, Settings};
use crate::source::file::FileTap;
use crate::source::{Batch, Tap};

/// Batches of each tap that are looked at to find out how much the captures kept.
const LOOK_AHEAD: usize = 32;

/// Where a tap's packets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The interface of a pcapng file; all of them when not given.
    pub interface: Option<u32>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.path.display())?;
        match self.interface {
            Some(interface) => write!(formatter, ", interface {interface}"),
            None => Ok(()),
        }
    }
}

/// A capture that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("tap {}: {cause}", tap.name())]
pub struct OpenError {
    /// Whose.
    pub tap: Tap,
    /// Why.
    #[source]
    pub cause: CaptureError,
}

/// What came of a run.
pub struct Outcome {
    /// What was found.
    pub found: Found,
    /// Of each tap, why its capture was not read to the end.
    pub failures: [Option<CaptureError>; 2],
    /// Of each tap, the unit of its stamps.
    pub resolution_ns: [Option<u64>; 2],
}

/// A tap that is read, some of it already.
struct Input {
    tap: FileTap,
    ahead: std::collections::VecDeque<Batch>,
    failure: Option<CaptureError>,
    ended: bool,
}

/// Runs over two captures. `content_bytes`: as [`Settings::content_bytes`], or as much as both captures kept of
/// their first packets.
///
/// # Errors
///
/// When a capture cannot be opened. What goes wrong later is in the outcome, beside what was
/// measured.
pub fn run(
    places: [&Place; 2],
    mut settings: Settings,
    content_bytes: Option<usize>,
    rows: Option<Box<dyn Rows + Send>>,
) -> Result<Outcome, OpenError> {
    let open =
        |tap: Tap| Input::open(places[tap.index()]).map_err(|cause| OpenError { tap, cause });
    let mut inputs = [open(Tap::Ingress)?, open(Tap::Egress)?];
    settings.content_bytes = match content_bytes {
        Some(bytes) => bytes,
        None => inputs.iter_mut().map(Input::kept_content).min().unwrap_or(CONTENT_BYTES),
    };
    let mut session = Session::new(settings, rows);
    let mut batch = Batch::new();
    while let Some(tap) = session.wanted() {
        inputs[tap.index()].read(&mut batch);
        session.feed(tap, &batch);
        session.pump();
    }
    let resolution_ns = inputs.each_ref().map(|input| input.tap.resolution_ns());
    let failures = inputs.map(|input| input.failure);
    Ok(Outcome { found: session.finish(), failures, resolution_ns })
}

impl Input {
    fn open(place: &Place) -> Result<Input, CaptureError> {
        let tap = FileTap::open(&place.path, place.interface)?;
        Ok(Input { tap, ahead: Default::default(), failure: None, ended: false })
    }

    /// The next batch; at the end an empty one that is complete for ever.
    fn read(&mut self, batch: &mut Batch) {
        if let Some(ahead) = self.ahead.pop_front() {
            *batch = ahead;
        } else {
            self.read_file(batch);
        }
    }

    fn read_file(&mut self, batch: &mut Batch) {
        batch.clear();
        batch.set_complete_until_ns(u64::MAX);
        if self.ended {
            return;
        }
        match self.tap.read(batch) {
            Ok(more) => self.ended = !more,
            Err(failure) => {
                self.failure = Some(failure);
                self.ended = true;
            }
        }
    }

    /// The least content that the first packets have, as far as they were cut, and never more than usual.
    fn kept_content(&mut self) -> usize {
        let mut least = CONTENT_BYTES;
        for _ in 0..LOOK_AHEAD {
            let mut batch = Batch::new();
            self.read_file(&mut batch);
            for frame in batch.frames() {
                let kept = Identifier::kept_content(frame.bytes, frame.wire_bytes as usize);
                least = least.min(kept.unwrap_or(least));
            }
            let is_last = self.ended;
            self.ahead.push_back(batch);
            if is_last {
                break;
            }
        }
        least
    }
}

/// What can be said of the offset between the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Estimate {
    /// The clock of egress less that of ingress, if the shortest ways of both directions take the same time, from
    /// that many pairs of flows.
    Both {
        /// The offset.
        offset_ns: i64,
        /// Half of what the two shortest ways take together: the offset cannot be wrong by more.
        uncertainty_ns: u64,
        /// Pairs of flows that were seen both ways.
        pairs: usize,
    },
    /// No flow was seen both ways.
    Unknown,
}

impl Estimate {
    /// The offset, 0 when it is not known.
    pub fn offset_ns(&self) -> i64 {
        match self {
            Estimate::Both { offset_ns, .. } => *offset_ns,
            Estimate::Unknown => 0,
        }
    }
}

/// Estimates the offset: a pass over both captures, with a window of `window_ns`, in which packets are matched
/// whatever the clocks say. Of the two directions of a conversation the one with the greater difference of stamps,
/// egress less ingress, is the one that goes forward.
///
/// # Errors
///
/// As [`run`].
pub fn estimate_offset(
    places: [&Place; 2],
    mut settings: Settings,
    content_bytes: Option<usize>,
    window_ns: u64,
) -> Result<Estimate, OpenError> {
    settings.rules.window_ns = window_ns;
    settings.one_way = true;
    settings.offset_ns = 0;
    let found = run(places, settings, content_bytes, None)?.found;
    let mut differences = std::collections::HashMap::new();
    for flow in found.flows.iter() {
        if let Some((least, most)) = flow.difference_ns {
            let entry = differences.entry(*found.flows.key(flow)).or_insert((least, most));
            *entry = (entry.0.min(least), entry.1.max(most));
        }
    }
    let mut forward_ns: Option<i64> = None;
    let mut reverse_ns: Option<i64> = None;
    let mut pairs = 0;
    for (key, &(least, most)) in &differences {
        let Some(&(other_least, other_most)) = differences.get(&key.reversed()) else { continue };
        // Each pair is met twice; this is the time when `key` goes forward.
        if least <= other_least && most <= other_most {
            continue;
        }
        pairs += 1;
        forward_ns = Some(forward_ns.map_or(least, |ns| ns.min(least)));
        reverse_ns = Some(reverse_ns.map_or(other_most, |ns| ns.max(other_most)));
    }
    Ok(match (forward_ns, reverse_ns) {
        (Some(forward_ns), Some(reverse_ns)) => Estimate::Both {
            offset_ns: ((i128::from(forward_ns) + i128::from(reverse_ns)).div_euclid(2)) as i64,
            uncertainty_ns: forward_ns.abs_diff(reverse_ns).div_ceil(2),
            pairs,
        },
        _ => Estimate::Unknown,
    })
}

/// Whether two places are the same packets.
pub fn same(one: &Place, other: &Place) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one.interface == other.interface && real(&one.path) == real(&other.path)
}
