//! Integers in the byte order of the machine that captured.

/// Byte order of a pcap file or of a pcapng section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// The two bytes at `at`. Panics, as all three readers do, past the end: the caller has checked the
    /// length.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let field = array(bytes, at);
        match self {
            ByteOrder::Little => u16::from_le_bytes(field),
            ByteOrder::Big => u16::from_be_bytes(field),
        }
    }

    /// The four bytes at `at`.
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let field = array(bytes, at);
        match self {
            ByteOrder::Little => u32::from_le_bytes(field),
            ByteOrder::Big => u32::from_be_bytes(field),
        }
    }

    /// A number as it stands in the file.
    pub(super) fn bytes_of_u32(self, number: u32) -> [u8; 4] {
        match self {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        }
    }

    /// The eight bytes at `at`.
    pub(super) fn i64(self, bytes: &[u8], at: usize) -> i64 {
        let field = array(bytes, at);
        match self {
            ByteOrder::Little => i64::from_le_bytes(field),
            ByteOrder::Big => i64::from_be_bytes(field),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}
