//! The reader: finds out the format, then cuts chunks.

use std::fmt;
use std::io::Read;
use std::path::Path;

use super::chunk::{Chunk, Record};
use super::record_writer::Layout;
use super::source::{FileIdentity, Source};
use super::{CaptureError, LinkType, pcap, pcapng};

/// The two formats of capture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One header, then records: microseconds or nanoseconds, one link type.
    Pcap,
    /// Sections of blocks: several interfaces, options, statistics.
    Pcapng,
}

/// Where packets of a capture come from: an interface of the current pcapng section, or all of a pcap file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name (`if_name`), where it has one; what is not UTF-8 in it is replaced.
    pub name: Option<String>,
    /// What its packets begin with.
    pub link_type: LinkType,
    /// The unit of its time stamps in nanoseconds, rounded up.
    pub resolution_ns: u64,
}

/// One record or block, and the packet in it.
pub(super) struct Item {
    /// All of it, framing and padding included.
    pub(super) bytes: usize,
    /// The packet, its place relative to the item.
    pub(super) record: Option<Record>,
}

enum Decoder {
    Pcap(pcap::Decoder),
    Pcapng(pcapng::Decoder),
}

/// Reads a capture file from start to end.
pub struct Reader {
    source: Source,
    decoder: Decoder,
    /// Met behind complete records that had to be handed over first.
    failure: Option<CaptureError>,
    ended: bool,
}

impl Reader {
    /// Opens a capture file. Format and compression are recognised by content, not by name.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, is not a capture file, or is a pcap file that is not of Ethernet
    /// frames. A pcapng file has a link type per interface: only packets of an interface that is
    /// not Ethernet are an error, from [`Reader::read`], because captures often describe interfaces
    /// that saw none.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader, CaptureError> {
        Reader::of_source(Source::open(path.as_ref())?)
    }

    /// Reads a capture from any stream; errors call it `path`.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub fn from_stream(
        path: impl AsRef<Path>,
        stream: impl Read + Send + 'static,
    ) -> Result<Reader, CaptureError> {
        Reader::of_source(Source::new(path.as_ref(), stream)?)
    }

    /// The capture's format.
    pub fn format(&self) -> Format {
        match self.decoder {
            Decoder::Pcap(_) => Format::Pcap,
            Decoder::Pcapng(_) => Format::Pcapng,
        }
    }

    /// How it is laid out.
    pub(super) fn layout(&self) -> Layout {
        match &self.decoder {
            Decoder::Pcap(decoder) => decoder.layout(),
            Decoder::Pcapng(_) => Layout::Pcapng,
        }
    }

    /// The interfaces that the current section has described so far, by number; of a pcap file its only one.
    pub fn interfaces(&self) -> Vec<Interface> {
        match &self.decoder {
            Decoder::Pcap(decoder) => vec![decoder.interface()],
            Decoder::Pcapng(decoder) => decoder.interfaces(),
        }
    }

    /// Replaces the chunk's contents with the capture's next records; `false` and an empty chunk at
    /// its end. A chunk may hold blocks and no packet.
    ///
    /// # Errors
    ///
    /// When the capture is damaged, cut short, or holds what is not read. All complete records
    /// before that place are handed over first; after the error the reader is at its end.
    pub fn read(&mut self, chunk: &mut Chunk) -> Result<bool, CaptureError> {
        chunk.clear();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        while !self.ended && !chunk.is_full() {
            match self.next_item() {
                Ok(Some(item)) => {
                    chunk.push(&self.source.window()[..item.bytes], item.record);
                    self.source.consume(item.bytes);
                }
                Ok(None) => self.ended = true,
                Err(failure) => {
                    self.ended = true;
                    if chunk.bytes().is_empty() {
                        return Err(failure);
                    }
                    self.failure = Some(failure);
                }
            }
        }
        Ok(!chunk.bytes().is_empty())
    }

    /// The file it reads, if it opened one.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        self.source.identity()
    }

    fn of_source(mut source: Source) -> Result<Reader, CaptureError> {
        source.fill(4)?;
        let seen = source.window();
        let decoder = if seen.starts_with(&pcapng::MAGIC) {
            Decoder::Pcapng(pcapng::Decoder::default())
        } else if let Some(decoder) = pcap::Decoder::of_magic(seen) {
            Decoder::Pcap(decoder.with_header(&mut source)?)
        } else {
            let seen = seen[..seen.len().min(4)].to_vec();
            return Err(CaptureError::NotACapture { at: source.place(0), seen });
        };
        Ok(Reader { source, decoder, failure: None, ended: false })
    }

    fn next_item(&mut self) -> Result<Option<Item>, CaptureError> {
        match &mut self.decoder {
            Decoder::Pcap(decoder) => decoder.next_item(&mut self.source),
            Decoder::Pcapng(decoder) => decoder.next_item(&mut self.source),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reader")
            .field("format", &self.format())
            .field("at", &self.source.place(0))
            .finish_non_exhaustive()
    }
}
