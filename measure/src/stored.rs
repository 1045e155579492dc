//! Results of a run in a folder: `results.json` and `flows.jsonl`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::export;
use crate::flow_line::FlowLine;
use crate::results::Results;

const RESULTS: &str = "results.json";
const FLOWS: &str = "flows.jsonl";

/// A run that was stored.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// Everything but its flows.
    pub results: Results,
    /// Its flows.
    pub flows: Vec<FlowLine>,
}

/// Why a stored run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}; name a folder that `pcap --output` wrote", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is not what this program writes.
    #[error("{} line {line}: {cause}; name a folder that this version of `pcap --output` wrote", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        cause: serde_json::Error,
    },
}

/// Writes a run to a folder, which is created if need be.
///
/// # Errors
///
/// When folder or files cannot be written.
pub fn write(folder: &Path, results: &Results, flows: &[FlowLine]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = BufWriter::new(File::create(folder.join(RESULTS))?);
    export::json(&mut file, results)?;
    file.flush()?;
    let mut file = BufWriter::new(File::create(folder.join(FLOWS))?);
    export::json_lines(&mut file, flows)?;
    file.flush()
}

/// Reads a run from a folder.
///
/// # Errors
///
/// When a file is missing, or not of this program.
pub fn read(folder: &Path) -> Result<Run, StoredError> {
    let open = |name: &str| {
        let path = folder.join(name);
        match File::open(&path) {
            Ok(file) => Ok((path, BufReader::new(file))),
            Err(cause) => Err(StoredError::Read { path, cause }),
        }
    };
    let (path, file) = open(RESULTS)?;
    let results = serde_json::from_reader(file).map_err(|cause| StoredError::Content {
        path,
        line: cause.line(),
        cause,
    })?;
    let (path, file) = open(FLOWS)?;
    let mut flows = Vec::new();
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(|cause| StoredError::Read { path: path.clone(), cause })?;
        let flow = serde_json::from_str(&line).map_err(|cause| StoredError::Content {
            path: path.clone(),
            line: number + 1,
            cause,
        })?;
        flows.push(flow);
    }
    Ok(Run { folder: folder.to_owned(), results, flows })
}
