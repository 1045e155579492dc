//! A chunk: a stretch of a capture as it is in the file, and where its packets are.

use std::ops::Range;

use crate::batch::BATCH_MAX;

/// Most records of one chunk: they fit into one batch of the gateway.
pub const CHUNK_RECORDS_MAX: usize = BATCH_MAX;

/// A chunk with this many bytes takes no more.
pub const CHUNK_BYTES: usize = 4 << 20;

/// What a capture says about one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since 1970-01-01 00:00:00 UTC, finer time stamps rounded down. A Simple Packet
    /// Block has no time stamp and gets that of the record before it, the first one 0.
    pub time_ns: u64,
    /// Bytes of the packet when it was on the wire: at least those captured.
    pub original_bytes: u32,
    /// The pcapng interface it was captured on, an index within its section; 0 in pcap.
    pub interface: u32,
    /// The pcapng section it is in, counted from 0; 0 in pcap.
    pub section: u32,
    /// Where the packet's bytes are, in the chunk once there; before that in the record or block.
    pub(super) packet: Range<usize>,
}

/// Complete records and blocks of a capture, in order, reused for every [`Reader::read`].
///
/// [`Reader::read`]: super::Reader::read
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Chunk {
    /// An empty chunk. It grows to the size it needs, and keeps it.
    pub fn new() -> Self {
        Chunk { bytes: Vec::new(), records: Vec::with_capacity(CHUNK_RECORDS_MAX) }
    }

    /// Number of packets, at most [`CHUNK_RECORDS_MAX`].
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds no packet; there may still be blocks to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The chunk's stretch of the (uncompressed) capture: headers, packets and everything else.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One of the packets, counted from 0.
    pub fn get(&self, index: usize) -> Option<(&Record, &[u8])> {
        let record = self.records.get(index)?;
        Some((record, &self.bytes[record.packet.clone()]))
    }

    /// The packets in the capture's order: what is known of each, and its captured bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Record, &[u8])> {
        self.records.iter().map(|record| (record, &self.bytes[record.packet.clone()]))
    }

    /// The packets in the capture's order, their captured bytes open to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&Record, &mut [u8])> {
        let mut rest = self.bytes.as_mut_slice();
        let mut rest_start = 0;
        self.records.iter().map(move |record| {
            let Range { start, end } = record.packet;
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(start - rest_start);
            let (packet, tail) = tail.split_at_mut(end - start);
            (rest, rest_start) = (tail, end);
            (record, packet)
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_RECORDS_MAX || self.bytes.len() >= CHUNK_BYTES
    }

    /// Appends a whole record or block, and the packet in it if there is one.
    pub(super) fn push(&mut self, bytes: &[u8], record: Option<Record>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        if let Some(mut record) = record {
            record.packet = record.packet.start + start..record.packet.end + start;
            self.records.push(record);
        }
    }
}
