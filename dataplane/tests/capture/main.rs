//! Capture files against independent oracles: tshark, gzip, scapy, editcap and the `pcap-file`
//! crate.

mod build;
mod damage;
mod format;
mod records;
mod round_trip;

use std::io::Cursor;
use std::path::PathBuf;
use std::process::Command;

use dataplane::capture::{CaptureError, Chunk, Reader};

/// A packet as the reader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    time_ns: u64,
    original_bytes: u32,
    interface: u32,
    section: u32,
    packet: Vec<u8>,
}

/// All that a reader gives: packets, the chunks' bytes, and the error at the end.
struct Whole {
    packets: Vec<Seen>,
    bytes: Vec<u8>,
    error: Option<CaptureError>,
}

fn read_bytes(capture: &[u8]) -> Whole {
    match Reader::from_stream("memory", Cursor::new(capture.to_vec())) {
        Ok(reader) => read_whole(reader),
        Err(error) => Whole { packets: Vec::new(), bytes: Vec::new(), error: Some(error) },
    }
}

fn read_whole(mut reader: Reader) -> Whole {
    let mut whole = Whole { packets: Vec::new(), bytes: Vec::new(), error: None };
    let mut chunk = Chunk::new();
    loop {
        match reader.read(&mut chunk) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                whole.error = Some(error);
                assert!(chunk.bytes().is_empty() && chunk.is_empty());
                assert!(!reader.read(&mut chunk).expect("the reader is at its end"));
                break;
            }
        }
        assert!(!chunk.bytes().is_empty());
        whole.bytes.extend_from_slice(chunk.bytes());
        whole.packets.extend(chunk.iter().map(|(record, packet)| Seen {
            time_ns: record.time_ns,
            original_bytes: record.original_bytes,
            interface: record.interface,
            section: record.section,
            packet: packet.to_vec(),
        }));
    }
    whole
}

/// Packets of a capture that has to be read to its end without an error, and comes out as it went
/// in.
fn read_intact(capture: &[u8]) -> Vec<Seen> {
    let whole = read_bytes(capture);
    assert!(whole.error.is_none(), "{}", whole.error.unwrap());
    assert!(whole.bytes == capture, "the chunks are not the capture");
    whole.packets
}

/// An empty folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("capture").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the test's folder can be created");
    folder
}

/// Standard output of a tool that has to be installed and to succeed.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} is needed by this test: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output.stdout
}

/// What tshark says: time, captured length, original length, interface, section of every packet.
/// A packet without time has `None`.
type TsharkRow = (Option<u64>, usize, u32, u32, u32);

fn tshark(path: &std::path::Path) -> Vec<TsharkRow> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-n", "-T", "fields"]);
    for field in ["time_epoch", "cap_len", "len", "interface_id", "section_number"] {
        command.arg("-e").arg(format!("frame.{field}"));
    }
    let output = String::from_utf8(run(&mut command)).expect("tshark writes text");
    output.lines().map(tshark_row).collect()
}

fn tshark_row(line: &str) -> TsharkRow {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |at: usize| fields[at].parse::<u32>().unwrap_or(0);
    let time_ns = fields[0].split_once('.').map(|(seconds, fraction)| {
        assert_eq!(fraction.len(), 9, "tshark gives nanoseconds: {line}");
        let [seconds, fraction] = [seconds, fraction].map(|part| part.parse::<u64>().unwrap());
        seconds * 1_000_000_000 + fraction
    });
    // Sections are counted from 1 there.
    (time_ns, number(1) as usize, number(2), number(3), number(4).saturating_sub(1))
}

/// Asserts that tshark sees in the file what we saw; a packet for which it has no time is not
/// compared in that.
fn assert_tshark_agrees(path: &std::path::Path, packets: &[Seen]) {
    let rows = tshark(path);
    assert_eq!(rows.len(), packets.len(), "number of packets");
    for (number, (row, seen)) in rows.iter().zip(packets).enumerate() {
        let (time_ns, captured_bytes, original_bytes, interface, section) = *row;
        let ours = (seen.packet.len(), seen.original_bytes, seen.interface, seen.section);
        assert_eq!((captured_bytes, original_bytes, interface, section), ours, "packet {number}");
        if let Some(time_ns) = time_ns {
            assert_eq!(time_ns, seen.time_ns, "time of packet {number}");
        }
    }
}

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
