//! The flows of a gateway that ends, for the one that starts in its place.
//!
//! Without this, every long flow would return to the short lane at a restart, all at once, until it had been counted
//! anew. A *keeper*, a thread of its own, saves the flow tables every few seconds and at the end; the next start reads
//! what it left.
//!
//! ```text
//!   workers --- slices, one a tick --> keeper --> FILE.new --fsync--> FILE ---> restore: tables, before the ports open
//!   at the end: the gateways ------------^                  rename
//! ```
//!
//! * [`format`](mod@format) the bytes of a file, and what can be wrong with them
//! * [`file`](mod@file) reads and replaces a file, and does not wait for ever for either
//! * [`moment`] how long ago it was, whatever was restarted in between
//! * [`keeper`] the thread
//!
//! **Invariants.** A file is taken as a whole or not at all. What it says never changes a class: a flow has the
//! count and lane it had, or, if it is too old, was missed or has no room, none. Flows found twice are the later one.
//! Workers wait for nothing here, and the control thread for no longer than [`keeper::FINISH_MAX`], at the end.

pub mod file;
pub mod format;
pub mod keeper;
pub mod moment;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::flow::slice::{KnownFlow, Restored};
use crate::gateway::Gateway;

use file::Unusable;
use format::Saved;
use moment::Moment;

/// What is saved and what was taken over, as `status` says it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StateStatus {
    /// The file.
    pub file: String,
    /// Time between two saves, in milliseconds.
    pub interval_ms: u64,
    /// What was taken over at the start.
    pub restored: Option<RestoreReport>,
    /// Why the file that was there at the start was not.
    pub ignored: Option<String>,
    /// Files written since the start.
    pub saves: u64,
    /// Files that could not be written.
    pub failures: u64,
    /// The last one written.
    pub last_save: Option<SaveReport>,
    /// Why the last that could not be written could not.
    pub last_failure: Option<String>,
}

/// What became of a file's flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Taken over.
    pub flows: u64,
    /// Silent for longer than the idle timeout by now.
    pub ended: u64,
    /// Two entries of one flow, which had moved in its table while that was read.
    pub twice: u64,
    /// No room in the table.
    pub no_room: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Time since it was written, in milliseconds.
    pub saved_ago_ms: u64,
    /// Time it took, in milliseconds.
    pub took_ms: u64,
}

/// A file written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveReport {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Flows in it.
    pub flows: u64,
    /// Flows for which it had no room: it would have become longer than [`format::FILE_BYTES_MAX`].
    pub left_out: u64,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Time from the first flow that was looked at to the last, in milliseconds.
    pub collected_in_ms: u64,
    /// Time to write it, in milliseconds.
    pub written_in_ms: u64,
}

/// Puts the flows of a file into the tables they were in, or, if there are now more or fewer workers, into those of
/// the worker whose number is the old one modulo their count. No file is no news; one that cannot be used is reported
/// and ignored. The time is that of `clock`, which the workers will go by.
pub fn restore(path: &Path, gateways: &mut [&mut Gateway], clock: Clock) -> StateStatus {
    let begun = Instant::now();
    let mut status = StateStatus { file: path.display().to_string(), ..StateStatus::default() };
    match read_and_restore(path, gateways, clock) {
        Ok(None) => tracing::info!("{}: not there yet, no flows taken over", path.display()),
        Ok(Some(mut report)) => {
            report.took_ms = milliseconds(begun.elapsed());
            tracing::info!(
                "{}: {} flows taken over, {} had ended, {} without room; saved {} ms ago",
                path.display(),
                report.flows,
                report.ended,
                report.no_room,
                report.saved_ago_ms
            );
            status.restored = Some(report);
        }
        Err(unusable) => {
            tracing::warn!(
                "{}: {unusable}. It is ignored: no flows taken over, long ones start in the short lane",
                path.display()
            );
            status.ignored = Some(unusable.to_string());
        }
    }
    status
}

fn read_and_restore(
    path: &Path,
    gateways: &mut [&mut Gateway],
    clock: Clock,
) -> Result<Option<RestoreReport>, Unusable> {
    let Some(bytes) = file::read(path)? else { return Ok(None) };
    let saved = Saved::parse(&bytes)?;
    let (now, now_ns) = (Moment::now(), clock.now_ns());
    let since_ns = now.since_ns(&saved.moment)?;
    let mut report = RestoreReport {
        bytes: bytes.len() as u64,
        saved_ago_ms: since_ns / 1_000_000,
        ..RestoreReport::default()
    };
    // The long ones first: should there not be room for all, these are the ones that matter.
    for long in [true, false] {
        for (worker, flow) in saved.flows().filter(|(_, flow)| flow.long == long) {
            let gateway = &mut gateways[worker % gateways.len()];
            let age_ns = since_ns.saturating_add(saved.saved_ns - flow.last_ns);
            // By a clock that shows less than its age it has ended in any case.
            let restored = match now_ns.checked_sub(age_ns) {
                Some(last_ns) => gateway.restore(&KnownFlow { last_ns, ..flow }, now_ns),
                None => Restored::Ended,
            };
            match restored {
                Restored::Taken => report.flows += 1,
                Restored::Twice => report.twice += 1,
                Restored::Ended => report.ended += 1,
                Restored::NoRoom => report.no_room += 1,
            }
        }
    }
    Ok(Some(report))
}

/// For people, in one or a few lines.
impl fmt::Display for StateStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StateStatus { file, saves, failures, .. } = self;
        write!(formatter, "flows saved in {file}: {saves} times, {failures} failures")?;
        if let Some(SaveReport { at_unix_ms, flows, bytes, written_in_ms, .. }) = &self.last_save {
            let at = UNIX_EPOCH + Duration::from_millis(*at_unix_ms);
            let at = humantime::format_rfc3339_seconds(at);
            write!(formatter, "; last {at}, {flows} flows, {bytes} bytes in {written_in_ms} ms")?;
        }
        if let Some(reason) = &self.last_failure {
            write!(formatter, "\n  last failure: {reason}")?;
        }
        if let Some(RestoreReport { flows, ended, no_room, saved_ago_ms, .. }) = &self.restored {
            write!(
                formatter,
                "\n  at the start: {flows} flows taken over, {ended} had ended, {no_room} without room; saved \
                 {saved_ago_ms} ms before"
            )?;
        }
        if let Some(reason) = &self.ignored {
            write!(formatter, "\n  at the start: ignored, {reason}")?;
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests;
