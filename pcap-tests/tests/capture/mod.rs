//! Capture files as plain records: a second, small reader and writer, so that what the program reads
//! and writes is not judged by the library it uses.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::{fs, path::Path};

/// The link type of Ethernet.
pub(crate) const ETHERNET: u32 = 1;

/// One record: when, what was kept, and how long it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at_ns: u64,
    pub(crate) kept: Vec<u8>,
    pub(crate) wire_bytes: u32,
}

impl Record {
    /// A frame that was kept as it was.
    pub(crate) fn whole(at_ns: u64, frame: Vec<u8>) -> Record {
        let wire_bytes = frame.len() as u32;
        Record { at_ns, kept: frame, wire_bytes }
    }
}

/// The records of a capture file: pcap of either byte order and resolution, or pcapng.
///
/// Panics, naming the file, at anything that is not a whole capture of Ethernet frames.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut file = File { name: path.display().to_string(), bytes, big_endian: false };
    let magic = file.number(0, 4);
    match magic.swap_bytes() {
        0xa1b2_3c4d | 0xa1b2_c3d4 => file.big_endian = true,
        _ => {}
    }
    match file.number(0, 4) {
        0xa1b2_3c4d => file.pcap(1),
        0xa1b2_c3d4 => file.pcap(1000),
        PCAPNG_SECTION => file.pcapng(),
        other => panic!("{}: {other:#x} begins no capture", file.name),
    }
}

/// The first block of a pcapng file; the same in both byte orders.
const PCAPNG_SECTION: u32 = 0x0a0d_0d0a;

struct File {
    name: String,
    bytes: Vec<u8>,
    big_endian: bool,
}

impl File {
    /// The `length` bytes from `at`.
    fn part(&self, at: usize, length: usize) -> &[u8] {
        let part = self.bytes.get(at..at + length);
        part.unwrap_or_else(|| panic!("{}: ends within the {length} bytes at {at}", self.name))
    }

    /// The number in the at most four bytes from `at`.
    fn number(&self, at: usize, length: usize) -> u32 {
        let add = |sum: u32, &byte: &u8| sum << 8 | u32::from(byte);
        let part = self.part(at, length).iter();
        if self.big_endian { part.fold(0, add) } else { part.rev().fold(0, add) }
    }

    /// draft-ietf-opsawg-pcap.
    fn pcap(&self, unit_ns: u64) -> Vec<Record> {
        assert_eq!(self.number(20, 4), ETHERNET, "{}: link type", self.name);
        let mut records = Vec::new();
        let mut at = 24;
        while at < self.bytes.len() {
            let [seconds, rest, kept, wire_bytes] = [0, 4, 8, 12].map(|f| self.number(at + f, 4));
            let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(rest) * unit_ns;
            let kept = self.part(at + 16, kept as usize).to_vec();
            at += 16 + kept.len();
            records.push(Record { at_ns, kept, wire_bytes });
        }
        records
    }

    /// draft-ietf-opsawg-pcapng: section headers, interfaces with their resolution, enhanced packets.
    fn pcapng(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut units_per_second = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let kind = self.number(at, 4);
            if kind == PCAPNG_SECTION {
                self.big_endian = self.part(at + 8, 4) == [0x1a, 0x2b, 0x3c, 0x4d];
                units_per_second.clear();
            }
            let length = self.number(at + 4, 4) as usize;
            self.part(at, length);
            assert_eq!(self.number(at + length - 4, 4) as usize, length, "{}: block", self.name);
            match kind {
                1 => {
                    assert_eq!(self.number(at + 8, 2), ETHERNET, "{}: link type", self.name);
                    units_per_second.push(self.resolution(at + 16, at + length - 4));
                }
                6 => {
                    let fields = [8, 12, 16, 20, 24].map(|field| self.number(at + field, 4));
                    let [interface, high, low, kept, wire_bytes] = fields;
                    let stamp = u128::from(high) << 32 | u128::from(low);
                    let unit = units_per_second[interface as usize];
                    let at_ns = (stamp * 1_000_000_000 / unit) as u64;
                    let kept = self.part(at + 28, kept as usize).to_vec();
                    records.push(Record { at_ns, kept, wire_bytes });
                }
                _ => {}
            }
            at += length;
        }
        records
    }

    /// Units a second among the options of an interface: if_tsresol, option 9.
    fn resolution(&self, mut at: usize, end: usize) -> u128 {
        while at + 4 <= end {
            let [code, length] = [at, at + 2].map(|field| self.number(field, 2));
            if code == 9 {
                let resolution = self.number(at + 4, 1);
                let base = if resolution & 0x80 == 0 { 10 } else { 2 };
                return u128::pow(base, resolution & 0x7f);
            }
            at += 4 + (length as usize).next_multiple_of(4);
        }
        1_000_000
    }
}

/// A pcap file: nanoseconds, little-endian.
pub(crate) fn bytes(link_type: u32, records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, 262_144, link_type] {
        file.extend(u32::to_le_bytes(field));
    }
    for record in records {
        let (seconds, rest_ns) = (record.at_ns / 1_000_000_000, record.at_ns % 1_000_000_000);
        let kept = record.kept.len() as u32;
        for field in [seconds as u32, rest_ns as u32, kept, record.wire_bytes] {
            file.extend(field.to_le_bytes());
        }
        file.extend(&record.kept);
    }
    file
}

/// A fresh folder for what a test writes.
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("{}: {error}", folder.display())
        }
        _ => {}
    }
    fs::create_dir_all(&folder).expect("scratch folder");
    folder
}
