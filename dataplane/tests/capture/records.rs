//! New captures of new frames: whatever the inputs were, tshark and scapy read back what was written.

use std::path::Path;
use std::process::Command;

use dataplane::capture::{CaptureError, Format, Reader, RecordWriter};

use crate::build::{ORDERS, small_pcap, small_pcapng};
use crate::{Seen, assert_tshark_agrees, folder, read_whole, run};

const SECOND_NS: u64 = 1_000_000_000;

/// Frames of all lengths modulo four, some cut short, at times that go backwards too.
fn frames() -> Vec<Seen> {
    (0..12_u64)
        .map(|number| Seen {
            time_ns: 1_700_000_000 * SECOND_NS + (number * 7 % 5) * 1_234_567,
            original_bytes: 14 + number as u32 + if number % 3 == 0 { 1000 } else { 0 },
            interface: 0,
            section: 0,
            packet: vec![number as u8 + 1; 14 + number as usize],
        })
        .collect()
}

fn write(path: &Path, inputs: &[&Path], frames: &[Seen]) -> Result<u64, CaptureError> {
    let readers: Vec<Reader> = inputs.iter().map(|input| Reader::open(input).unwrap()).collect();
    let mut writer = RecordWriter::create(path, &readers.iter().collect::<Vec<_>>())?;
    for frame in frames {
        writer.write(frame.time_ns, frame.original_bytes, &frame.packet)?;
    }
    writer.finish()
}

/// An input of every kind: its name, its content, and nanoseconds of a unit of its stamps.
fn inputs() -> Vec<(String, Vec<u8>, u64)> {
    let mut inputs = Vec::new();
    for order in ORDERS {
        for (magic, unit_ns) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            inputs.push((format!("{order:?}-{unit_ns}.pcap"), small_pcap(order, magic), unit_ns));
        }
        inputs.push((format!("{order:?}.pcapng"), small_pcapng(order), 1));
    }
    inputs
}

#[test]
fn a_new_capture_is_as_its_input_is_and_tshark_reads_it() {
    let folder = folder("records");
    for (name, content, unit_ns) in inputs() {
        let input = folder.join(&name);
        std::fs::write(&input, &content).unwrap();
        let mut expected = frames();
        for frame in &mut expected {
            frame.time_ns -= frame.time_ns % unit_ns;
        }
        for ending in ["out", "out.gz"] {
            let output = folder.join(format!("{name}.{ending}"));
            let size = write(&output, &[&input], &frames()).unwrap();
            assert_tshark_agrees(&output, &expected);
            let whole = read_whole(Reader::open(&output).unwrap());
            assert_eq!(whole.packets, expected, "{name}");
            assert_eq!(whole.bytes.len() as u64, size);
            // Magic and byte order are the input's; pcapng is written little-endian.
            let is_pcapng = name.ends_with(".pcapng");
            assert_eq!(&whole.bytes[..4], &content[..4], "{name}");
            assert!(!is_pcapng || whole.bytes[8..12] == [0x4d, 0x3c, 0x2b, 0x1a]);
        }
    }
}

#[test]
fn scapy_reads_every_byte_of_it() {
    let folder = folder("records-scapy");
    for (name, content, unit_ns) in inputs() {
        let [input, output] = [name.clone(), format!("out-{name}")].map(|name| folder.join(name));
        std::fs::write(&input, content).unwrap();
        write(&output, &[&input], &frames()).unwrap();
        let script = "
import sys
from scapy.all import RawPcapReader, RawPcapNgReader
for data, meta in RawPcapReader(sys.argv[1]):
    if hasattr(meta, 'sec'):
        units = meta.sec * 1000000000 + meta.usec * int(sys.argv[2])
    else:
        units = (meta.tshigh << 32 | meta.tslow)
    print(units, meta.wirelen, data.hex())
";
        let mut scapy = Command::new("/usr/bin/python3");
        let text = run(scapy.args(["-c", script]).arg(&output).arg(unit_ns.to_string()));
        let expected: String = frames()
            .iter()
            .map(|frame| {
                let hex: String = frame.packet.iter().map(|byte| format!("{byte:02x}")).collect();
                let time_ns = frame.time_ns - frame.time_ns % unit_ns;
                format!("{time_ns} {} {hex}\n", frame.original_bytes)
            })
            .collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected, "{name}");
    }
}

#[test]
fn of_several_inputs_the_finest_stamps_are_kept() {
    let folder = folder("records-several");
    let order = ORDERS[0];
    let [micro, nano, next] = ["micro", "nano", "next"].map(|name| folder.join(name));
    std::fs::write(&micro, small_pcap(order, 0xa1b2_c3d4)).unwrap();
    std::fs::write(&nano, small_pcap(order, 0xa1b2_3c4d)).unwrap();
    std::fs::write(&next, small_pcapng(order)).unwrap();
    for (inputs, format) in [
        (vec![&*micro, &*nano], Format::Pcap),
        (vec![&*nano, &*micro], Format::Pcap),
        (vec![&*micro, &*next], Format::Pcapng),
        (vec![&*next, &*micro], Format::Pcapng),
    ] {
        let output = folder.join("out");
        write(&output, &inputs, &frames()).unwrap();
        let reader = Reader::open(&output).unwrap();
        assert_eq!(reader.format(), format);
        assert_eq!(read_whole(reader).packets, frames());
    }
}

#[test]
fn an_empty_new_capture_is_a_capture() {
    let folder = folder("records-empty");
    for (name, content, _) in inputs() {
        let [input, output] = [name.clone(), format!("out-{name}")].map(|name| folder.join(name));
        std::fs::write(&input, content).unwrap();
        write(&output, &[&input], &[]).unwrap();
        assert_tshark_agrees(&output, &[]);
    }
}

#[test]
fn no_input_is_overwritten_and_a_time_that_pcap_cannot_say_is_an_error() {
    let folder = folder("records-errors");
    let [one, two] = ["one", "two"].map(|name| folder.join(name));
    for path in [&one, &two] {
        std::fs::write(path, small_pcap(ORDERS[0], 0xa1b2_3c4d)).unwrap();
    }
    for output in [&one, &two] {
        let error = write(output, &[&one, &two], &[]).unwrap_err();
        assert!(matches!(error, CaptureError::OutputIsInput { .. }), "{error}");
    }
    let late = Seen { time_ns: SECOND_NS << 32, ..frames()[0].clone() };
    let error = write(&folder.join("out"), &[&one], &[late]).unwrap_err();
    assert!(matches!(error, CaptureError::TimeOutOfRange { .. }), "{error}");
}
