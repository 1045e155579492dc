//! A file of flows on disk: read once, replaced as a whole, never waited for.
//!
//! A reader meets the old file or the new one, and never a part: the new one is written beside it, made durable and
//! moved into its place. Its mode is 0600: it says who talks to whom.
//!
//! **Invariant.** Nothing but a regular file is read, and nothing but a regular file is replaced: a FIFO blocks nobody, and
//! a configuration that names a device or a folder costs neither.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::format::{Damage, FILE_BYTES_MAX};
use super::moment::InTheFuture;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read ({0})")]
    Io(#[from] io::Error),
    /// A folder, a FIFO, a device, a symbolic link.
    #[error("it is no regular file")]
    NotRegular,
    /// Longer than any that was written here.
    #[error("its {0} bytes are more than a file of flows can have ({FILE_BYTES_MAX})")]
    TooLarge(u64),
    /// Its bytes.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// Its time.
    #[error(transparent)]
    InTheFuture(#[from] InTheFuture),
}

/// Its bytes; nothing when there is no file.
///
/// # Errors
///
/// When there is something else, or it cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Unusable> {
    // Looked at before it is opened, for to open a device can already do something; and again after that.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.is_file() => return Err(Unusable::NotRegular),
        Ok(_) => {}
    }
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Unusable::NotRegular);
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(Unusable::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Replaces a file by what `write` writes, and returns what that returns.
///
/// # Errors
///
/// When something other than a regular file is in its place, or the system refuses: the old file stays.
pub fn replace<T>(path: &Path, write: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    refuse_irregular(path)?;
    let beside = beside(path);
    let written = create(&beside).and_then(|file| {
        let written = write(&file)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path)?;
        Ok(written)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Whether a file could be replaced, tried with an empty one beside it.
///
/// # Errors
///
/// When not.
pub fn try_out(path: &Path) -> io::Result<()> {
    refuse_irregular(path)?;
    let beside = beside(path);
    create(&beside)?;
    fs::remove_file(&beside)
}

fn refuse_irregular(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let why = "something that is no regular file is there, and stays";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a process that was killed left there goes, whatever it is, for it is not opened.
fn create(beside: &Path) -> io::Result<File> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)
}

/// The new file's name until it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

/// So that the new name is durable too.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
