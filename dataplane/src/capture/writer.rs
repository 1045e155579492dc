//! The writer: chunks to a file, gzip-compressed when the file is to be called so.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::chunk::Chunk;
use super::source::FileIdentity;
use super::{CaptureError, Place, Reader};

const BUFFER_BYTES: usize = 256 << 10;

enum Output {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

/// Writes a capture file. Only [`Writer::finish`] makes it complete.
#[must_use = "a capture is complete only after finish()"]
pub struct Writer {
    path: PathBuf,
    output: Output,
    written_bytes: u64,
}

impl Writer {
    /// Creates the file, or empties the one that is there, to be given the chunks of `input`. It is
    /// compressed exactly when its name ends in `.gz`.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or is the file that `input` reads, under whatever name.
    pub fn create(path: impl AsRef<Path>, input: &Reader) -> Result<Writer, CaptureError> {
        let path = path.as_ref();
        if let Ok(metadata) = std::fs::metadata(path)
            && input.identity() == Some(FileIdentity::of(&metadata))
        {
            return Err(CaptureError::OutputIsInput { path: path.into() });
        }
        let file = File::create(path)
            .map_err(|cause| CaptureError::Create { path: path.into(), cause })?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let output = if path.as_os_str().as_encoded_bytes().ends_with(b".gz") {
            Output::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Output::Plain(file)
        };
        Ok(Writer { path: path.into(), output, written_bytes: 0 })
    }

    /// Writes a chunk: packets as they are in it now, everything else as it was read.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; it is incomplete then.
    pub fn write(&mut self, chunk: &Chunk) -> Result<(), CaptureError> {
        let written = match &mut self.output {
            Output::Plain(output) => output.write_all(chunk.bytes()),
            Output::Gzip(output) => output.write_all(chunk.bytes()),
        };
        written.map_err(|cause| self.error(cause))?;
        self.written_bytes += chunk.bytes().len() as u64;
        Ok(())
    }

    /// Completes the file: ends the compressed stream and hands all bytes to the operating system.
    /// Returns the size of the capture in bytes, before compression.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; it is incomplete then.
    pub fn finish(mut self) -> Result<u64, CaptureError> {
        let finished = match &mut self.output {
            Output::Plain(output) => output.flush(),
            Output::Gzip(output) => output.try_finish().and_then(|()| output.get_mut().flush()),
        };
        finished.map_err(|cause| self.error(cause))?;
        Ok(self.written_bytes)
    }

    fn error(&self, cause: io::Error) -> CaptureError {
        let compressed = matches!(self.output, Output::Gzip(_));
        let at = Place { path: self.path.clone(), offset: self.written_bytes, compressed };
        CaptureError::Write { at, cause }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Writer")
            .field("path", &self.path)
            .field("written_bytes", &self.written_bytes)
            .finish_non_exhaustive()
    }
}
