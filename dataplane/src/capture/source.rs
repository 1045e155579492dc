//! The bytes of a capture file, decompressed if need be, through a window that counts offsets.
//!
//! Invariant: `window()[0]` is byte `offset` of the uncompressed stream. The window grows to what
//! [`Source::fill`] is asked for, never further than the longest block.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{CaptureError, Place};

/// Bytes read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// Bytes decompressed at once. What a decompressor has produced when it meets damage is lost, so
/// this is also how much intact data that damage can cost.
const DECOMPRESS_BYTES: usize = 32 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Device and inode: the same for two names of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        FileIdentity { device: metadata.dev(), inode: metadata.ino() }
    }
}

pub(super) struct Source {
    path: PathBuf,
    identity: Option<FileIdentity>,
    input: Box<dyn Read + Send>,
    compressed: bool,
    buffer: Vec<u8>,
    filled: Range<usize>,
    offset: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source, CaptureError> {
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            Ok((file, FileIdentity::of(&metadata)))
        };
        let (file, identity) =
            open().map_err(|cause| CaptureError::Open { path: path.into(), cause })?;
        Ok(Source { identity: Some(identity), ..Source::new(path, file)? })
    }

    pub(super) fn new(
        path: &Path,
        mut input: impl Read + Send + 'static,
    ) -> Result<Source, CaptureError> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        let peeked = input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic);
        let compressed = magic == GZIP_MAGIC;
        let whole = Cursor::new(magic).chain(input);
        let source = Source {
            path: path.into(),
            identity: None,
            input: if compressed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) },
            compressed,
            buffer: vec![0; WINDOW_BYTES],
            filled: 0..0,
            offset: 0,
        };
        match peeked {
            Ok(_) => Ok(source),
            Err(cause) => Err(CaptureError::Read { at: source.place(0), cause }),
        }
    }

    pub(super) fn identity(&self) -> Option<FileIdentity> {
        self.identity
    }

    /// The place `ahead` bytes into the window.
    pub(super) fn place(&self, ahead: usize) -> Place {
        self.place_at(self.offset + ahead as u64)
    }

    /// The place at an offset of the uncompressed stream.
    pub(super) fn place_at(&self, offset: u64) -> Place {
        Place { path: self.path.clone(), offset, compressed: self.compressed }
    }

    /// Offset of the window in the uncompressed stream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes at hand.
    pub(super) fn window(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    /// Sees to it that the window has `wanted_bytes`, or all there are until the end; returns its
    /// length.
    pub(super) fn fill(&mut self, wanted_bytes: usize) -> Result<usize, CaptureError> {
        if self.filled.len() < wanted_bytes {
            self.refill(wanted_bytes)?;
        }
        Ok(self.filled.len())
    }

    /// Moves the window past `bytes` of it.
    pub(super) fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.filled.len(), "more consumed than the window has");
        self.filled.start += bytes;
        self.offset += bytes as u64;
    }

    #[cold]
    fn refill(&mut self, wanted_bytes: usize) -> Result<(), CaptureError> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.buffer.len() < wanted_bytes {
            self.buffer.resize(wanted_bytes, 0);
        }
        while self.filled.end < wanted_bytes {
            let end = self.filled.end;
            let room = self.buffer.len() - end;
            let limit = if self.compressed { room.min(DECOMPRESS_BYTES) } else { room };
            match self.input.read(&mut self.buffer[end..end + limit]) {
                Ok(0) => break,
                Ok(bytes) => self.filled.end += bytes,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(self.read_error(cause)),
            }
        }
        Ok(())
    }

    fn read_error(&self, cause: io::Error) -> CaptureError {
        let at = self.place(self.filled.len());
        // The decompressor's own complaints carry no number of the operating system.
        if self.compressed && cause.raw_os_error().is_none() {
            CaptureError::Gzip { at, cause }
        } else {
            CaptureError::Read { at, cause }
        }
    }
}
