//! A folder for files that are no result: sockets, the server's key and its bodies.
//!
//! **Invariant.** Nobody else has made it, and nobody else gets in: what is there already is never taken.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::LabError;

/// What the name begins with; the number of the laboratory follows, and nothing else.
pub const PREFIX: &str = "lanesplit-lab-scratch-";

/// It is removed when this is dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Of this process, among the system's temporary files.
    ///
    /// # Errors
    ///
    /// When there is one already, or it cannot be made.
    pub fn new() -> Result<Scratch, LabError> {
        Scratch::at(std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id())))
    }

    fn at(path: PathBuf) -> Result<Scratch, LabError> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Scratch { path }),
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                Err(LabError::Exists { path })
            }
            Err(cause) => Err(LabError::File { path, cause }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(cause) = fs::remove_dir_all(&self.path) {
            eprintln!("lanesplit-lab: {} is left: {cause}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_its_owners_alone_is_never_somebody_elses_and_goes_in_the_end() {
        let path = std::env::temp_dir().join(format!("lab-scratch-{}", std::process::id()));
        let scratch = Scratch::at(path.clone()).expect("there is none");
        let mode = fs::metadata(scratch.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let second = Scratch::at(path.clone()).err().expect("there is one").to_string();
        assert!(second.contains("remove it"), "{second}");
        drop(scratch);
        assert!(!path.exists());
        // Nor is what a link leads to.
        std::os::unix::fs::symlink("/nowhere", &path).expect("there is room");
        assert!(Scratch::at(path.clone()).is_err());
        fs::remove_file(&path).expect("it is ours");
    }
}
