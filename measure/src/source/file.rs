//! A capture file as a tap.

use std::path::{Path, PathBuf};

use dataplane::capture::{CaptureError, Chunk, Interface, Reader};

use super::{Batch, Frame, Stamp};
use crate::identity::FRAME_BYTES_MAX;

/// A capture file, or one interface of a pcapng file.
#[derive(Debug)]
pub struct FileTap {
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
        Ok(FileTap { reader, chunk: Chunk::new(), interface })
    }

    /// The coarsest unit of its stamps that is known so far.
    pub fn resolution_ns(&self) -> Option<u64> {
        let interfaces = self.reader.interfaces();
        let wanted = |(number, _): &(usize, &Interface)| {
            self.interface.is_none_or(|interface| interface as usize == *number)
        };
        let of_wanted = interfaces.iter().enumerate().filter(wanted);
        of_wanted.map(|(_, interface)| interface.resolution_ns).max()
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

/// The number of the interface that a pcapng file calls `name`: looked for until the first packet behind its
/// description.
///
/// # Errors
///
/// When the file cannot be read, or no interface has that name: then the names that there are.
pub fn interface_named(path: &Path, name: &str) -> Result<u32, NameError> {
    let mut reader = Reader::open(path)?;
    let mut chunk = Chunk::new();
    loop {
        let more = reader.read(&mut chunk)?;
        let interfaces = reader.interfaces();
        let named = |interface: &Interface| interface.name.as_deref() == Some(name);
        if let Some(number) = interfaces.iter().position(named) {
            return Ok(number as u32);
        }
        if !more {
            let names = interfaces.into_iter().enumerate().map(|(number, interface)| {
                format!("{number} ({})", interface.name.as_deref().unwrap_or("no name"))
            });
            return Err(NameError::Unknown {
                path: path.to_owned(),
                name: name.to_owned(),
                names: names.collect::<Vec<_>>().join(", "),
            });
        }
    }
}

/// Why an interface was not found by its name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The file cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// It has no interface of that name.
    #[error("{}: no interface is called '{name}'; there are: {names}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name looked for.
        name: String,
        /// All interfaces.
        names: String,
    },
}
