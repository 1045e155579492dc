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

/// What came of a run: what was found, and for each tap why its capture was not read to the end.
pub type Outcome<'a> = (Found<'a>, [Option<CaptureError>; 2]);

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
pub fn run<'a>(
    places: [&Place; 2],
    mut settings: Settings,
    content_bytes: Option<usize>,
    rows: Option<&'a mut dyn Rows>,
) -> Result<Outcome<'a>, OpenError> {
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
    Ok((session.finish(), inputs.map(|input| input.failure)))
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

/// Whether two places are the same packets.
pub fn same(one: &Place, other: &Place) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one.interface == other.interface && real(&one.path) == real(&other.path)
}
