//! Damage is named with its place, costs nothing before it, and never panics.

use std::io::{Cursor, Write};

use dataplane::capture::{BLOCK_BYTES_MAX, CaptureError, PACKET_BYTES_MAX, Reader};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::build::{Build, ORDERS, Order, frame, small_pcap, small_pcapng};
use crate::{Random, folder, read_bytes, read_intact};

fn error_of(capture: &Build) -> String {
    read_bytes(&capture.bytes).error.expect("an error").to_string()
}

/// The error's words, its place, and a word of the remedy.
fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is missing: {error}");
    }
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn pcap() -> Build {
    Build::new(Order::Little).pcap_header(0xa1b2_c3d4, 1)
}

fn pcapng() -> Build {
    Build::new(Order::Big).section().interface(1, 0, &[])
}

#[test]
fn a_file_cut_at_any_byte_gives_its_complete_records_then_the_place() {
    for order in ORDERS {
        for capture in [small_pcap(order, 0xa1b2_3c4d), small_pcapng(order)] {
            let all = read_intact(&capture);
            let mut boundaries = 0;
            for length in 0..capture.len() {
                let whole = read_bytes(&capture[..length]);
                assert_eq!(whole.packets, all[..whole.packets.len()]);
                assert!(capture.starts_with(&whole.bytes));
                match whole.error {
                    None => {
                        assert_eq!(whole.bytes.len(), length);
                        boundaries += 1;
                    }
                    Some(CaptureError::NotACapture { .. }) => assert!(length < 4),
                    Some(CaptureError::Truncated { at, present_bytes, .. }) => {
                        assert_eq!(at.offset, whole.bytes.len() as u64);
                        assert_eq!(at.offset as usize + present_bytes, length);
                    }
                    Some(error) => panic!("{length}: {error}"),
                }
            }
            // Records and the header; blocks of both sections.
            assert_eq!(boundaries, if all.len() == 3 { 3 } else { 15 });
        }
    }
}

#[test]
fn a_gzip_stream_cut_or_damaged_at_any_byte_is_an_error() {
    let capture = small_pcapng(Order::Little);
    let all = read_intact(&capture);
    let zipped = zip(&capture);
    for length in 1..zipped.len() {
        let whole = read_bytes(&zipped[..length]);
        assert_eq!(whole.packets, all[..whole.packets.len()]);
        let error = whole.error.expect("an error").to_string();
        if length > 1 {
            assert_says(&error, &["memory: byte ", " of the uncompressed stream", "gzip -t"]);
        }
    }
    // The last eight bytes are the checksum and the length.
    for at in zipped.len() - 8..zipped.len() {
        let mut damaged = zipped.clone();
        damaged[at] ^= 0x10;
        let whole = read_bytes(&damaged);
        assert_eq!(whole.packets, all, "everything had been read");
        assert!(matches!(whole.error, Some(CaptureError::Gzip { .. })));
    }
}

#[test]
fn a_missing_file_or_a_folder_is_named() {
    let folder = folder("missing");
    let error = Reader::open(folder.join("none.pcap")).unwrap_err().to_string();
    assert_says(&error, &["cannot open", "none.pcap", "No such file", "check the name"]);
    let error = Reader::open(&folder).unwrap_err().to_string();
    assert_says(&error, &["missing: byte 0", "Is a directory"]);
}

#[test]
fn what_is_no_capture_is_shown_by_its_first_bytes() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "nothing, it is empty"),
        (b"#!/bin/sh", "23212f62"),
        (b"\xa1\xb2", "a1b2"),
        (&zip(b"PK\x03\x04"), "504b0304"),
    ];
    for (bytes, seen) in cases {
        let error = read_bytes(bytes).error.unwrap().to_string();
        assert_says(&error, &["memory: byte 0", "not a capture file", seen, "editcap"]);
    }
}

#[test]
fn other_versions_are_refused() {
    let old = Build::new(Order::Big).u32(0xa1b2_c3d4).u16(2).u16(3).raw(&[0; 16]);
    assert_says(&error_of(&old), &["byte 4:", "pcap version 2.3", "editcap"]);
    let new = Build::new(Order::Big)
        .block(0x0a0d_0d0a, |body| body.u32(0x1a2b_3c4d).u16(2).u16(0).u64(u64::MAX));
    assert_says(&error_of(&new), &["byte 12:", "pcapng version 2.0"]);
}

#[test]
fn link_types_other_than_ethernet_are_named() {
    let names = [(0, "NULL"), (101, "RAW"), (113, "LINUX_SLL"), (276, "SLL2"), (105, "802_11")];
    for (link_type, name) in names {
        let pcap = Build::new(Order::Big).pcap_header(0xa1b2_c3d4, u32::from(link_type));
        let number = format!("{link_type} (");
        let words = ["byte 20:", number.as_str(), name, "Ethernet (1)", "capture on an Ethernet"];
        assert_says(&error_of(&pcap), &words);

        let pcapng = pcapng().enhanced(0, 0, 60, &frame(1, 60));
        let (before, at) = (read_intact(&pcapng.bytes), pcapng.bytes.len() + 8);
        let pcapng = pcapng.interface(link_type, 0, &[]).enhanced(1, 0, 60, &frame(2, 60));
        assert_eq!(read_bytes(&pcapng.bytes).packets, before);
        let place = format!("byte {at}:");
        assert_says(&error_of(&pcapng), &[place.as_str(), name, "interface 1"]);
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let record =
        |captured, original| pcap().u32(0).u32(0).u32(captured).u32(original).raw(&[0; 64]);
    let words = ["byte 32:", "captured packet of 262145 bytes", "262144"];
    assert_says(&error_of(&record(PACKET_BYTES_MAX + 1, u32::MAX)), &words);
    assert_says(&error_of(&record(u32::MAX, u32::MAX)), &["byte 32:"]);
    assert_says(&error_of(&record(61, 60)), &["byte 24:", "61 bytes captured of a packet of 60"]);

    let start = pcapng().bytes.len();
    let [block, length, captured] = [0, 4, 20].map(|ahead| format!("byte {}:", start + ahead));
    let says = |capture: Build, words: &[&str]| assert_says(&error_of(&capture), words);
    says(pcapng().u32(6).u32(BLOCK_BYTES_MAX + 4).raw(&[0; 64]), &[&length, "block of 16777220"]);
    says(pcapng().u32(6).u32(33).raw(&[0; 64]), &[&block, "multiple of 4"]);
    says(pcapng().u32(6).u32(8).raw(&[0; 64]), &[&block, "below 12"]);
    says(pcapng().u32(9).u32(16).u32(0).u32(20), &[&block, "length 16 and ends with 20"]);
    says(
        pcapng().enhanced(0, 0, 59, &frame(1, 60)),
        &[&block, "60 bytes captured of a packet of 59"],
    );
    let fields = |body: Build| body.u32(0).u64(0).u32(PACKET_BYTES_MAX + 1).u32(u32::MAX);
    says(pcapng().block(6, fields), &[&captured, "captured packet of 262145"]);
    let fields = |body: Build| body.u32(0).u64(0).u32(5).u32(5).raw(&[0; 4]);
    says(pcapng().block(6, fields), &[&block, "longer than its block"]);
    says(pcapng().block(3, |body| body.u32(5).raw(&[0; 4])), &[&block, "longer than its block"]);
    for block_type in [1, 2, 3, 6] {
        says(pcapng().block(block_type, |body| body), &[&block, "too short"]);
    }
}

#[test]
fn interfaces_and_times_that_cannot_be_are_refused() {
    let start = pcapng().bytes.len();
    let block = format!("byte {start}:");
    let undeclared = pcapng().enhanced(1, 0, 60, &frame(1, 60));
    assert_says(&error_of(&undeclared), &[&block, "interface 1", "describes 1 so far"]);
    let simple = Build::new(Order::Little).section().simple(60, &frame(1, 60));
    assert_says(&error_of(&simple), &["interface 0", "describes 0 so far"]);

    let early = Build::new(Order::Little).section();
    let early = early.interface(1, 0, &[(14, &(-1i64).to_le_bytes())]);
    assert_says(
        &error_of(&early.enhanced(0, 1, 60, &frame(1, 60))),
        &["before 1970", "if_tsoffset"],
    );
    let late = pcapng().enhanced(0, u64::MAX, 60, &frame(1, 60));
    assert_says(&error_of(&late), &[&block, "after 2554"]);

    let wrong = pcapng().interface(1, 0, &[(9, &[6, 0])]);
    assert_says(&error_of(&wrong), &[&block, "if_tsresol"]);
    let wrong = pcapng().block(1, |body| body.u16(1).u16(0).u32(0).u16(2).u16(9).u32(0));
    assert_says(&error_of(&wrong), &[&block, "longer than its Interface Description Block"]);
}

#[test]
fn errors_of_a_compressed_capture_count_uncompressed_bytes() {
    let capture = pcap().pcap_record([0, 0], 60, &frame(1, 60)).raw(&[0; 7]);
    let error = read_bytes(&zip(&capture.bytes)).error.unwrap().to_string();
    assert_says(&error, &["byte 100 of the uncompressed stream", "7 of 16 bytes"]);
}

#[test]
fn a_bomb_of_gzip_is_read_in_pieces() {
    let mut capture = pcapng();
    for _ in 0..8 {
        capture =
            capture.block(0x7fff_0001, |body| body.raw(&vec![0; BLOCK_BYTES_MAX as usize - 12]));
    }
    let zipped = zip(&capture.bytes);
    assert!(zipped.len() < capture.bytes.len() / 500);
    let mut reader = Reader::from_stream("bomb", Cursor::new(zipped)).unwrap();
    let mut chunk = dataplane::capture::Chunk::new();
    let mut bytes = 0;
    while reader.read(&mut chunk).unwrap() {
        let limit = dataplane::capture::CHUNK_BYTES + BLOCK_BYTES_MAX as usize;
        assert!(chunk.bytes().len() <= limit);
        bytes += chunk.bytes().len();
    }
    assert_eq!(bytes, capture.bytes.len());
}

/// Bytes overwritten, bits flipped, parts taken out and doubled: always an end or an error with a
/// place.
#[test]
fn random_damage_never_panics() {
    let count = 200_000;
    let captures: Vec<Vec<u8>> = ORDERS
        .into_iter()
        .flat_map(|order| [small_pcap(order, 0xa1b2_c3d4), small_pcapng(order)])
        .flat_map(|capture| [zip(&capture), capture])
        .collect();
    let mut errors = 0;
    for seed in 0..count {
        let mut random = Random(seed);
        let mut capture = captures[random.below(captures.len())].clone();
        for _ in 0..1 + random.below(4) {
            damage(&mut capture, &mut random);
        }
        let whole = read_bytes(&capture);
        assert!(whole.packets.iter().all(|seen| seen.packet.len() <= PACKET_BYTES_MAX as usize));
        if capture[..capture.len().min(2)] != [0x1f, 0x8b] {
            assert!(capture.starts_with(&whole.bytes), "seed {seed}");
            assert!(whole.error.is_some() || whole.bytes == capture, "seed {seed}");
        }
        errors += u64::from(whole.error.is_some_and(|error| error.to_string().contains("byte ")));
    }
    // Damage to packet bytes alone goes unnoticed, as it should.
    assert!(errors > count / 2 && errors < count, "{errors} of {count}");
}

fn damage(capture: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(capture.len().max(1));
    if capture.is_empty() {
        return;
    }
    let end = (at + 1 + random.below(16)).min(capture.len());
    match random.below(5) {
        0 => capture[at] ^= 1 << random.below(8),
        1 => capture[at] = random.next() as u8,
        2 => capture[at..end].fill([0x00, 0xff][random.below(2)]),
        3 => drop(capture.drain(at..end)),
        _ => capture.extend_from_within(at..end),
    }
}
