//! A capture file as a tap.

use std::path::{Path, PathBuf};

use dataplane::capture::{CaptureError, Chunk, Reader};

use super::{Batch, Frame, Stamp};
use crate::identity::FRAME_BYTES_MAX;

/// A capture file, or one interface of a pcapng file.
#[derive(Debug)]
pub struct FileTap {
    path: PathBuf,
    reader: Reader,
    chunk: Chunk,
    interface: Option<u32>,
}

impl FileTap {
    /// Opens a capture; of a pcapng file only the packets of `interface`, if it is given.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub fn open(path: &Path, interface: Option<u32>) -> Result<FileTap, CaptureError> {
        let reader = Reader::open(path)?;
        Ok(FileTap { path: path.to_owned(), reader, chunk: Chunk::new(), interface })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the batch's contents by the next frames; `false` and an empty batch at the end, which is then
    /// complete for ever. Of a frame only the bytes are kept that an identity may need.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`]: what was complete before the damage has been handed over then.
    pub fn read(&mut self, batch: &mut Batch) -> Result<bool, CaptureError> {
        batch.clear();
        batch.set_complete_until_ns(0);
        while batch.is_empty() {
            match self.reader.read(&mut self.chunk) {
                Ok(true) => {}
                Ok(false) => {
                    batch.set_complete_until_ns(u64::MAX);
                    return Ok(false);
                }
                Err(error) => {
                    batch.set_complete_until_ns(u64::MAX);
                    return Err(error);
                }
            }
            let wanted = self.interface;
            let records = self.chunk.iter();
            for (record, bytes) in records {
                if wanted.is_none_or(|interface| interface == record.interface) {
                    batch.push(Frame {
                        time_ns: record.time_ns,
                        stamp: Stamp::File,
                        wire_bytes: record.original_bytes,
                        bytes: &bytes[..bytes.len().min(FRAME_BYTES_MAX)],
                    });
                }
            }
        }
        Ok(true)
    }
}
