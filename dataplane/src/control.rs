//! The control socket: one question a connection, one answer, a line of JSON each.
//!
//! Its file has mode 0600: who may read it may ask. The daemon's side answers on the control thread and gives
//! a slow client little time; workers never wait for it.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How are you?
    Status,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To anything that is not a request.
    Error {
        /// What was wrong with it.
        message: String,
    },
}

/// A longer request is no request.
const REQUEST_BYTES_MAX: usize = 4096;
/// How long the daemon waits for a client's whole request, and then for it to take the answer.
const CLIENT_WAIT_MAX: Duration = Duration::from_millis(200);
/// How long a client waits for the daemon.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(5);

/// The daemon's side; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, whose folder is made if it is not there. A socket that nobody listens at, left
    /// behind by a process that was killed, is replaced.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if is_abandoned(path)? {
            std::fs::remove_file(path)?;
        }
        // Made under another name and with nobody else's rights from the start, then moved into its place.
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        nix::sys::stat::umask(mask);
        let listener = listener?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Listener { listener, path: path.to_owned() })
    }

    /// Answers the client that is waiting, if there is one. Nothing that a client does is an error of ours.
    pub fn answer(&self, status: impl FnOnce() -> Status) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if let Err(error) = answer_one(stream, status) {
            tracing::debug!("a client of the control socket went away: {error}");
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_abandoned(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(_) => Ok(true),
    }
}

fn answer_one(stream: UnixStream, status: impl FnOnce() -> Status) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(CLIENT_WAIT_MAX))?;
    let line = read_line(&stream, Instant::now() + CLIENT_WAIT_MAX)?;
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Status) => Answer::Status(Box::new(status())),
        Err(error) => Answer::Error { message: format!("not a request: {error}") },
    };
    write_line(&stream, &answer)
}

/// A line, or what there is of it when the client ends or the line gets too long. The deadline is for all of
/// it: a client that writes letter by letter holds nobody up.
fn read_line(mut stream: &UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = [0; 512];
    while !line.contains(&b'\n') && line.len() < REQUEST_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            count => line.extend_from_slice(&part[..count]),
        }
    }
    Ok(line)
}

fn write_line(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Asks the daemon that listens at `path`.
pub fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(DAEMON_WAIT_MAX))?;
    stream.set_write_timeout(Some(DAEMON_WAIT_MAX))?;
    write_line(&stream, request)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
