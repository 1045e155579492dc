//! Why the laboratory cannot go on, or a run cannot be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::report::ReportError;
use super::store::StoreError;

/// Each names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces are root's.
    #[error("network namespaces need root: sudo env \"PATH=$PATH\" lanesplit-lab ...")]
    NotRoot,
    /// A program of this project is not there.
    #[error(
        "there is no {name} beside {}: cargo build --release --locked -p dataplane -p measure",
        beside.display()
    )]
    NoSibling {
        /// The program.
        name: &'static str,
        /// The folder.
        beside: PathBuf,
    },
    /// A program of the system is not there.
    #[error("{} not installed: scripts/install-dependencies --demo", programs.join(", "))]
    NoTools {
        /// Those that lack.
        programs: Vec<&'static str>,
    },
    /// A command that builds the testbed failed.
    #[error(
        "`{command}` failed: {said}; the kernel must have veth, bridge, clsact, mirred, u32 and tbf, and iproute2 \
         must know them: scripts/install-dependencies --demo"
    )]
    Command {
        /// All of it.
        command: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A program could not be started.
    #[error(
        "cannot start {program}: {cause}; scripts/install-dependencies --demo installs what lacks, and the machine \
         must have memory and processes left (ulimit -a)"
    )]
    Start {
        /// The program.
        program: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}: {cause}; check that its folder exists, may be written and has room", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Something is where this wants to make its own.
    #[error(
        "{} is there already, left by a laboratory that was killed or made by somebody else: remove it",
        path.display()
    )]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// A file or an answer is not what was expected.
    #[error(
        "{what} cannot be understood: {cause}; if programs of different builds lie side by side, build all: \
         cargo build --release --locked -p dataplane -p measure"
    )]
    Content {
        /// Whose it is.
        what: String,
        /// Why.
        cause: String,
    },
    /// A program ended before its time, or badly.
    #[error("{program} ended ({status}): {said}; all that it said is in {}", log.display())]
    Ended {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of its log.
        said: String,
        /// All of its log.
        log: PathBuf,
    },
    /// Something did not happen in time.
    #[error(
        "waited {bound:?} for {what}, in vain: {said}; the logs of the run may say why, and on a machine that does \
         much else it may be better at rest"
    )]
    Waited {
        /// For what.
        what: String,
        /// How long.
        bound: Duration,
        /// The end of a log that may tell.
        said: String,
    },
    /// A run cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder for all runs cannot be used.
    #[error("{cause}; or give another folder by --output. Nothing was begun")]
    Output {
        /// Why.
        cause: StoreError,
    },
    /// There is no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Somebody wants this to end.
    #[error("ended by {0}")]
    Interrupted(Signal),
}

impl LabError {
    /// For `map_err` of what is done to a file.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> LabError {
        move |cause| LabError::File { path: path.to_owned(), cause }
    }

    /// For `map_err` of what reads words of others.
    pub fn content<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> LabError {
        move |cause| LabError::Content { what: what.into(), cause: cause.to_string() }
    }

    /// Whether all must end, and not this run alone.
    pub fn ends_all(&self) -> bool {
        matches!(self, LabError::Interrupted(_))
    }
}
