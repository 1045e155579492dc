//! The laboratory's output folder: written while runs are made, read when they are looked at.
//!
//! The layout is in [`super::records`]. A run that was interrupted, or whose files are damaged, is a run that cannot
//! be used; it is told, and the others are read all the same. Runs are read one by one, because the flows of all
//! together may be more than fits in memory.

mod columns;
mod flows;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use columns::ColumnError;
pub use flows::read_flows;
pub use requests::{read_requests, write_requests};

use super::records::{RequestRecord, RunRecord};
use crate::flow_line::FlowLine;
use crate::results::Results;

/// The laboratory's own file.
pub const LAB: &str = "lab.json";
/// The folder of all runs.
pub const RUNS: &str = "runs";
/// A run's own file.
pub const RUN: &str = "run.json";
/// Its requests.
pub const REQUESTS: &str = "requests.parquet";
/// Its flows.
pub const FLOWS: &str = "flows.parquet";
/// What was measured of it besides.
pub const RESULTS: &str = "results.json";

/// The folder of what was measured over the gateway of site a, between taps on both its sides, if it was.
pub const GATEWAY: &str = "gateway";

/// Where and how all runs of a folder were made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabRecord {
    /// From which the seeds of all runs come.
    pub seed: u64,
    /// The command lines that made the runs, in the order in which they were given.
    pub commands: Vec<String>,
    /// The kernel's release and version, at the last command. Runs have their own.
    pub kernel: String,
    /// The commit of the programs, at the last command. Runs have their own.
    pub commit: String,
    /// The processor, by its own name.
    pub processor: String,
    /// What else was written down.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// Why a folder, or a run of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file is not there, or may not be read.
    #[error("cannot read {}: {cause}; name a folder that lanesplit-lab wrote", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is not what this program writes.
    #[error(
        "{} line {}: {cause}; if its run was interrupted, run it again, else name a folder that this version of \
         lanesplit-lab wrote",
        path.display(),
        cause.line()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// A Parquet file.
    #[error(transparent)]
    Columns(#[from] ColumnError),
    /// A file cannot be written.
    #[error("cannot write {}: {cause}; check that its folder may be written and has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A run, as it was stored.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder's name.
    pub name: String,
    /// What was set and what was counted.
    pub record: RunRecord,
    /// What the load driver asked and got. None, if the run failed before there was any.
    pub requests: Vec<RequestRecord>,
    /// What the taps saw. None, if the run failed before there was any.
    pub flows: Vec<FlowLine>,
    /// What was measured between the taps besides.
    pub results: Option<Results>,
    /// What was measured over the gateway of site a, if it was.
    pub gateway: Option<Results>,
}

/// An output folder.
#[derive(Debug, Clone)]
pub struct Output {
    /// Where.
    pub folder: PathBuf,
    /// How its runs were made.
    pub lab: LabRecord,
    /// The folders of its runs, by name.
    pub runs: Vec<PathBuf>,
}

impl Output {
    /// Looks at what is there; runs are read by [`read_run`].
    ///
    /// # Errors
    ///
    /// When the folder or its `lab.json` cannot be read.
    pub fn open(folder: &Path) -> Result<Output, StoreError> {
        let lab = read_json(&folder.join(LAB))?;
        let path = folder.join(RUNS);
        let failed = |cause| StoreError::Read { path: path.clone(), cause };
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            if entry.is_dir() {
                runs.push(entry);
            }
        }
        runs.sort();
        Ok(Output { folder: folder.to_owned(), lab, runs })
    }
}

/// Reads how the runs of a folder were made; none where nothing was made yet.
///
/// # Errors
///
/// When there is such a file and it cannot be read or understood.
pub fn read_lab(folder: &Path) -> Result<Option<LabRecord>, StoreError> {
    match read_json(&folder.join(LAB)) {
        Ok(lab) => Ok(Some(lab)),
        Err(StoreError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes how runs are made, into a folder that is created if need be.
///
/// # Errors
///
/// When folder or file cannot be written.
pub fn write_lab(folder: &Path, lab: &LabRecord) -> Result<(), StoreError> {
    let runs = folder.join(RUNS);
    std::fs::create_dir_all(&runs).map_err(|cause| StoreError::Write { path: runs, cause })?;
    write_json(&folder.join(LAB), lab)
}

/// Writes a run's record and requests into its folder, which is created if need be. Flows and results are written
/// by the measuring program.
///
/// # Errors
///
/// When folder or files cannot be written.
pub fn write_run(
    folder: &Path,
    record: &RunRecord,
    requests: &[RequestRecord],
) -> Result<(), StoreError> {
    let failed = |path: &Path, cause| StoreError::Write { path: path.to_owned(), cause };
    std::fs::create_dir_all(folder).map_err(|cause| failed(folder, cause))?;
    let path = folder.join(REQUESTS);
    write_requests(&path, requests).map_err(|cause| failed(&path, cause))?;
    // Last, so that a run that was interrupted has none.
    write_json(&folder.join(RUN), record)
}

/// Reads a run from its folder. Of a run that failed, files may be missing.
///
/// # Errors
///
/// When a file is missing, damaged, or not of this program.
pub fn read_run(folder: &Path) -> Result<Run, StoreError> {
    let record: RunRecord = read_json(&folder.join(RUN))?;
    let has_failed = record.failure.is_some();
    let excused = |path: &Path| has_failed && !path.exists();
    let (requests, flows) = (folder.join(REQUESTS), folder.join(FLOWS));
    let results = |path: PathBuf| match path.exists() {
        true => read_json(&path).map(Some),
        false => Ok(None),
    };
    Ok(Run {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        requests: if excused(&requests) { Vec::new() } else { read_requests(&requests)? },
        flows: if excused(&flows) { Vec::new() } else { read_flows(&flows)? },
        results: results(folder.join(RESULTS))?,
        gateway: results(folder.join(GATEWAY).join(RESULTS))?,
        record,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let file =
        File::open(path).map_err(|cause| StoreError::Read { path: path.to_owned(), cause })?;
    serde_json::from_reader(BufReader::new(file))
        .map_err(|cause| StoreError::Content { path: path.to_owned(), cause })
}

/// Writes a value as indented JSON: all of it, or what was there stays.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = File::create(&part).map(BufWriter::new).and_then(|mut file| {
        crate::export::json(&mut file, value)?;
        file.flush()?;
        std::fs::rename(&part, path)
    });
    written.map_err(|cause| StoreError::Write { path: path.to_owned(), cause })
}
