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
        Writer::create_beside(path.as_ref(), &[input])
    }

    /// The same for a capture that is made of several.
    pub(super) fn create_beside(path: &Path, inputs: &[&Reader]) -> Result<Writer, CaptureError> {
        if let Ok(metadata) = std::fs::metadata(path) {
            let identity = Some(FileIdentity::of(&metadata));
            if inputs.iter().any(|input| input.identity() == identity) {
                return Err(CaptureError::OutputIsInput { path: path.into() });
            }
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
        self.write_bytes(chunk.bytes())
    }

    /// Writes what the caller has framed.
    pub(super) fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        let written = match &mut self.output {
            Output::Plain(output) => output.write_all(bytes),
            Output::Gzip(output) => output.write_all(bytes),
        };
        written.map_err(|cause| self.error(cause))?;
        self.written_bytes += bytes.len() as u64;
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

    /// How far writing came.
    pub(super) fn place(&self) -> Place {
        let compressed = matches!(self.output, Output::Gzip(_));
        Place { path: self.path.clone(), offset: self.written_bytes, compressed }
    }

    fn error(&self, cause: io::Error) -> CaptureError {
        CaptureError::Write { at: self.place(), cause }
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
