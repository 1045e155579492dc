//! Capture files: pcap and pcapng, plain or gzip-compressed, read and written back.
//!
//! A capture is copied, not translated. [`Reader`] cuts the input into [`Chunk`]s of whole records
//! and blocks, byte for byte, and notes where in them the packets lie; the caller may overwrite
//! packet bytes; [`Writer`] writes the chunks. What is not packet bytes has nowhere to get lost:
//! format, byte order, time stamps, original lengths, interfaces, comments, statistics and blocks
//! nobody here knows.
//!
//! ```text
//!   input   | file header | record packet | record packet | other block | record packet | ...
//!             \______________ one chunk ________________/ \____ the next ____________ ...
//!   output  | file header | record PACKET | record PACKET | other block | record PACKET | ...
//! ```
//!
//! Frames that a router makes are no longer those of a record: [`RecordWriter`] gives each a new record, in the format
//! and with the resolution of the input.
//!
//! Invariant: the chunks of a capture, one after another, are the (uncompressed) capture. A chunk
//! holds only complete records and blocks, so whatever was written before an error is a capture of
//! its own.
//!
//! Nothing is allocated per record, and a hostile file makes nothing large: a packet is limited to
//! [`PACKET_BYTES_MAX`], a block to [`BLOCK_BYTES_MAX`], a section to [`INTERFACES_MAX`]
//! interfaces, a chunk to [`CHUNK_BYTES`] and one more block.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; the gzip container is RFC 1952.
//! The framing is our own: the `pcap-file` crate cannot tell a cut file from an oversized block,
//! does not say where in a block its packet lies, and refuses an interface for a name that is not
//! UTF-8. It vouches for ours in the tests instead.
//!
//! ```no_run
//! # fn main() -> Result<(), dataplane::capture::CaptureError> {
//! use dataplane::capture::{Chunk, Reader, Writer};
//!
//! let mut reader = Reader::open("in.pcapng")?;
//! let mut writer = Writer::create("out.pcapng.gz", &reader)?;
//! let mut chunk = Chunk::new();
//! while reader.read(&mut chunk)? {
//!     for (record, packet) in chunk.iter_mut() {
//!         assert!(packet.len() <= record.original_bytes as usize);
//!     }
//!     writer.write(&chunk)?;
//! }
//! writer.finish()?;
//! # Ok(())
//! # }
//! ```

mod byte_order;
mod chunk;
mod error;
mod link_type;
mod pcap;
mod pcapng;
mod reader;
mod record_writer;
mod source;
mod time;
mod writer;

pub use chunk::{CHUNK_BYTES, CHUNK_RECORDS_MAX, Chunk, Record};
pub use error::{CaptureError, Place};
pub use link_type::LinkType;
pub use reader::{Format, Interface, Reader};
pub use record_writer::RecordWriter;
pub use writer::Writer;

/// Most captured bytes of one packet: the limit of libpcap and Wireshark for Ethernet.
pub const PACKET_BYTES_MAX: u32 = 262_144;

/// Most bytes of one pcapng block, its framing included: the limit of Wireshark.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;

/// Most interfaces of one pcapng section: what the 16-bit identifier of a Packet Block can name.
pub const INTERFACES_MAX: usize = 65_536;
