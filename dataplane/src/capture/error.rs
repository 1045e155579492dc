//! What can go wrong with a capture file: where, what, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::LinkType;

/// A byte of a capture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Byte offset from the start of the file, of the uncompressed stream if `compressed`.
    pub offset: u64,
    /// Whether the file is gzip-compressed.
    pub compressed: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.compressed { " of the uncompressed stream" } else { "" };
        write!(formatter, "{}: byte {}{of}", self.path.display(), self.offset)
    }
}

/// Why a capture file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The input cannot be opened.
    #[error("cannot open {}: {cause}; check the name and that it may be read", path.display())]
    Open {
        /// The input.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },

    /// The output cannot be created.
    #[error(
        "cannot create {}: {cause}; check that its folder exists and may be written",
        path.display()
    )]
    Create {
        /// The output.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },

    /// Creating the output would have erased the input.
    #[error("{} is the input itself: give the output another name", path.display())]
    OutputIsInput {
        /// The output.
        path: PathBuf,
    },

    /// Reading failed half-way.
    #[error("{at}: cannot read on: {cause}; check the disk or copy the file again")]
    Read {
        /// How far reading came.
        at: Place,
        /// What the operating system says.
        cause: io::Error,
    },

    /// Writing failed; the output is incomplete.
    #[error("{at}: cannot write: {cause}; the output is incomplete, check the room on its disk")]
    Write {
        /// How far writing came.
        at: Place,
        /// What the operating system says.
        cause: io::Error,
    },

    /// The gzip container is damaged or ends early.
    #[error(
        "{at}: the gzip data is damaged or ends early: {cause}; `gzip -t` checks it, copy it \
         again"
    )]
    Gzip {
        /// How far decompression came.
        at: Place,
        /// What the decompressor says.
        cause: io::Error,
    },

    /// Neither pcap nor pcapng.
    #[error(
        "{at}: not a capture file: it begins with {}, not as pcap (a1b2c3d4, a1b23c4d, either \
         byte order) or pcapng (0a0d0d0a) does, plain or in gzip; convert it with `editcap -F \
         pcapng`",
        hexadecimal(seen)
    )]
    NotACapture {
        /// Where the format should show.
        at: Place,
        /// The first bytes, at most four.
        seen: Vec<u8>,
    },

    /// A version of the format that is laid out differently.
    #[error(
        "{at}: {format} version {major}.{minor} is not read; convert it with `editcap -F pcapng`"
    )]
    Version {
        /// The version field.
        at: Place,
        /// pcap or pcapng.
        format: &'static str,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },

    /// Packets that are not Ethernet frames.
    #[error(
        "{at}: link type {link_type} of interface {interface}, but only Ethernet (1) is read; \
         capture on an Ethernet interface, not on `any`, or take this interface's packets out"
    )]
    NotEthernet {
        /// The link type field.
        at: Place,
        /// What it says.
        link_type: LinkType,
        /// The pcapng interface; 0 in pcap.
        interface: u32,
    },

    /// The file ends in the middle of something.
    #[error(
        "{at}: the file ends inside the {what} that begins here: {present_bytes} of \
         {needed_bytes} bytes; everything before it is complete, capture or copy it again for the \
         rest"
    )]
    Truncated {
        /// Where the incomplete part begins.
        at: Place,
        /// Which part.
        what: &'static str,
        /// Bytes it needs, as far as known.
        needed_bytes: usize,
        /// Bytes left in the file.
        present_bytes: usize,
    },

    /// A length beyond any sense.
    #[error(
        "{at}: a {what} of {bytes} bytes, more than the {limit_bytes} allowed; the file is \
         damaged here"
    )]
    TooLong {
        /// The length field.
        at: Place,
        /// Of what.
        what: &'static str,
        /// What it says.
        bytes: u32,
        /// The limit.
        limit_bytes: u32,
    },

    /// More bytes captured than there were.
    #[error(
        "{at}: {captured_bytes} bytes captured of a packet of {original_bytes}; the file is \
         damaged here, or its writer mixed the two up"
    )]
    CapturedMoreThanOriginal {
        /// The record or block.
        at: Place,
        /// Captured length.
        captured_bytes: u32,
        /// Original length.
        original_bytes: u32,
    },

    /// A packet of an interface that its section does not describe.
    #[error(
        "{at}: a packet of interface {interface}, but its section describes {declared} so far; \
         its Interface Description Block is missing, capture it again"
    )]
    UndeclaredInterface {
        /// The packet's block.
        at: Place,
        /// The interface it names.
        interface: u32,
        /// Number of interfaces described.
        declared: usize,
    },

    /// A block whose two length fields differ.
    #[error(
        "{at}: a block begins with the length {leading_bytes} and ends with {trailing_bytes}; the \
         file is damaged here"
    )]
    BlockLengthMismatch {
        /// The block.
        at: Place,
        /// The length in front.
        leading_bytes: u32,
        /// The length behind.
        trailing_bytes: u32,
    },

    /// A block that contradicts itself or the format.
    #[error("{at}: {what}; the file is damaged here, or its writer does not keep to the format")]
    Malformed {
        /// The block.
        at: Place,
        /// The contradiction.
        what: &'static str,
    },

    /// A time that 64 bits of nanoseconds since 1970 cannot hold.
    #[error(
        "{at}: a time stamp before 1970 or after 2554; move the times with `editcap -t`, or \
         correct the interface's if_tsresol and if_tsoffset"
    )]
    TimeOutOfRange {
        /// The packet's block.
        at: Place,
    },
}

fn hexadecimal(bytes: &[u8]) -> String {
    match bytes {
        [] => "nothing, it is empty".into(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
