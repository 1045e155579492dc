//! A frame as it was on the wire, of which a capture may have kept only the beginning.

/// Why a frame could not be read down to its TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// IP, but not TCP.
    NonTcp,
    /// Neither IPv4 nor IPv6, or behind more than two VLAN tags.
    NonIp,
    /// The headers lie about their lengths.
    Malformed,
    /// The headers are longer than what the capture kept.
    Truncated,
}

/// The bytes at hand, and how many there were.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    bytes: &'a [u8],
    wire_bytes: usize,
}

impl<'a> Window<'a> {
    /// `wire_bytes` is the length of the frame on the wire; never less than what is at hand.
    pub fn new(bytes: &'a [u8], wire_bytes: usize) -> Self {
        Window { bytes, wire_bytes: wire_bytes.max(bytes.len()) }
    }

    /// Where the frame ended on the wire.
    pub fn end(&self) -> usize {
        self.wire_bytes
    }

    /// The part of this frame before `end`: nothing behind it is read, and headers must end there.
    pub fn up_to(&self, end: usize) -> Window<'a> {
        let end = end.min(self.wire_bytes);
        Window { bytes: &self.bytes[..self.bytes.len().min(end)], wire_bytes: end }
    }

    /// The bytes from `start` up to `end`, when all of them are at hand.
    #[inline(always)]
    pub fn bytes(&self, start: usize, end: usize) -> Result<&'a [u8], Unparsed> {
        if end > self.wire_bytes || start > end {
            return Err(Unparsed::Malformed);
        }
        self.bytes.get(start..end).ok_or(Unparsed::Truncated)
    }

    /// The header of `N` bytes at `offset`, which must end at or before `limit`: a frame too short for it
    /// is malformed, whatever was kept; one that was long enough but not kept so far is truncated.
    #[inline(always)]
    pub fn header<const N: usize>(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<&'a [u8; N], Unparsed> {
        if offset + N > limit {
            return Err(Unparsed::Malformed);
        }
        self.bytes.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(Unparsed::Truncated)
    }
}

/// The 16 bits at `offset` of a header, in network byte order.
#[inline(always)]
pub(crate) fn u16_at<const N: usize>(header: &[u8; N], offset: usize) -> u16 {
    u16::from_be_bytes([header[offset], header[offset + 1]])
}

/// The 64 bits at `offset` of a header, in network byte order.
#[inline(always)]
pub(crate) fn u64_at<const N: usize>(header: &[u8; N], offset: usize) -> u64 {
    u64::from_be_bytes(
        *header[offset..].first_chunk().expect("headers are read inside their length"),
    )
}

/// The 32 bits at `offset` of a header, in network byte order.
#[inline(always)]
pub(crate) fn u32_at<const N: usize>(header: &[u8; N], offset: usize) -> u32 {
    u32::from_be_bytes(
        *header[offset..].first_chunk().expect("headers are read inside their length"),
    )
}
