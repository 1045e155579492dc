//! What is written is what was read, but for the packet bytes that were changed.

use std::path::Path;
use std::process::Command;

use dataplane::capture::{CaptureError, Chunk, Reader, Writer};

use crate::build::{ORDERS, small_pcap, small_pcapng};
use crate::{assert_tshark_agrees, folder, read_whole, run, tshark};

/// Copies a capture, each packet through `change`, and returns the size that the writer reports.
fn copy(from: &Path, to: &Path, mut change: impl FnMut(&mut [u8])) -> Result<u64, CaptureError> {
    let mut reader = Reader::open(from)?;
    let mut writer = Writer::create(to, &reader)?;
    let mut chunk = Chunk::new();
    while reader.read(&mut chunk)? {
        chunk.iter_mut().for_each(|(_, packet)| change(packet));
        writer.write(&chunk)?;
    }
    writer.finish()
}

/// Copies plain to plain, plain to gzip and gzip to plain, and checks every byte with gzip's help.
fn assert_round_trips(path: &Path) {
    let original = std::fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy();
    let [plain, zipped, unzipped] =
        ["plain", "zipped.gz", "unzipped"].map(|to| path.with_file_name(format!("{name}.{to}")));
    for (from, to) in [(path, &plain), (&plain, &zipped), (&zipped, &unzipped)] {
        let size = copy(from, to, |_| {}).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(size, original.len() as u64);
    }
    assert!(std::fs::read(&plain).unwrap() == original, "{name}: plain");
    assert!(run(Command::new("gzip").arg("-dc").arg(&zipped)) == original, "{name}: zipped");
    assert!(std::fs::read(&unzipped).unwrap() == original, "{name}: unzipped");
    assert_tshark_agrees(path, &read_whole(Reader::open(&zipped).unwrap()).packets);
}

#[test]
fn hand_written_captures_round_trip() {
    let folder = folder("hand_written");
    for order in ORDERS {
        for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
            let path = folder.join(format!("{order:?}_{magic:x}"));
            std::fs::write(&path, small_pcap(order, magic)).unwrap();
            assert_round_trips(&path);
        }
        let path = folder.join(format!("{order:?}_pcapng"));
        std::fs::write(&path, small_pcapng(order)).unwrap();
        assert_round_trips(&path);
    }
}

/// 600 packets of all lengths, by scapy; then what the Wireshark tools make of them.
#[test]
fn captures_of_other_tools_round_trip() {
    let folder = folder("other_tools");
    let script = "
from scapy.all import Ether, IP, TCP, Raw, PcapWriter, PcapNgWriter
packets = []
for number in range(600):
    ethernet = Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02')
    ip = IP(src='192.0.2.1', dst='198.51.100.7', id=number)
    packet = ethernet / ip / TCP(sport=1024 + number, seq=number) / Raw(b'x' * (number * 2))
    packet.time = 1700000000 + number / 1024
    packets.append(packet)
PcapWriter('little.pcap', endianness='<').write(packets)
PcapWriter('big.pcap', endianness='>').write(packets)
PcapWriter('nano.pcap', nano=True).write(packets)
PcapWriter('zipped.pcap.gz', gz=True).write(packets)
PcapNgWriter('scapy.pcapng').write(packets)
";
    run(Command::new("/usr/bin/python3").args(["-c", script]).current_dir(&folder));
    let tools: [&[&str]; 5] = [
        &[
            "editcap",
            "-F",
            "pcapng",
            "-a",
            "3:remark",
            "--capture-comment",
            "all",
            "little.pcap",
            "a.pcapng",
        ],
        &["editcap", "-F", "pcapng", "-s", "60", "nano.pcap", "cut.pcapng"],
        &["editcap", "-F", "nsecpcap", "-s", "61", "a.pcapng", "cut.pcap"],
        &["mergecap", "-I", "none", "-w", "merged.pcapng", "a.pcapng", "nano.pcap"],
        &["mergecap", "-a", "-w", "appended.pcapng", "scapy.pcapng", "big.pcap"],
    ];
    for tool in tools {
        run(Command::new(tool[0]).args(&tool[1..]).current_dir(&folder));
    }
    for name in ["little.pcap", "big.pcap", "nano.pcap", "scapy.pcapng", "a.pcapng", "cut.pcapng"] {
        assert_round_trips(&folder.join(name));
    }
    for name in ["cut.pcap", "merged.pcapng", "appended.pcapng"] {
        assert_round_trips(&folder.join(name));
    }
    let zipped = folder.join("zipped.pcap.gz");
    assert_tshark_agrees(&zipped, &read_whole(Reader::open(&zipped).unwrap()).packets);
}

#[test]
fn only_the_packet_bytes_change() {
    let folder = folder("change");
    for order in ORDERS {
        for (name, capture) in
            [("pcap", small_pcap(order, 0xa1b2_c3d4)), ("pcapng", small_pcapng(order))]
        {
            let [from, to] =
                ["in", "out"].map(|end| folder.join(format!("{order:?}.{name}.{end}")));
            std::fs::write(&from, &capture).unwrap();
            copy(&from, &to, |packet| packet.iter_mut().for_each(|byte| *byte ^= 0x55)).unwrap();
            let changed = std::fs::read(&to).unwrap();
            let before = read_whole(Reader::open(&from).unwrap()).packets;
            let differing = capture.iter().zip(&changed).filter(|(old, new)| old != new).count();
            assert_eq!(differing, before.iter().map(|seen| seen.packet.len()).sum::<usize>());
            let mut expected = before;
            expected.iter_mut().flat_map(|seen| &mut seen.packet).for_each(|byte| *byte ^= 0x55);
            assert_eq!(read_whole(Reader::open(&to).unwrap()).packets, expected);
            assert_eq!(tshark(&from), tshark(&to));
        }
    }
}

#[test]
fn gzip_members_that_follow_one_another_are_one_capture() {
    let folder = folder("members");
    let capture = small_pcapng(ORDERS[0]);
    let (front, back) = capture.split_at(capture.len() / 2 + 1);
    let mut zipped = Vec::new();
    for (name, part) in [("front", front), ("back", back)] {
        let path = folder.join(name);
        std::fs::write(&path, part).unwrap();
        zipped.extend(run(Command::new("gzip").arg("-c").arg(&path)));
    }
    let path = folder.join("a name that does not say so");
    std::fs::write(&path, zipped).unwrap();
    let whole = read_whole(Reader::open(&path).unwrap());
    assert!(whole.error.is_none() && whole.bytes == capture);
}

#[test]
fn the_input_is_not_overwritten() {
    let folder = folder("overwrite");
    let [path, link] = ["in.pcap", "link.pcap"].map(|name| folder.join(name));
    let capture = small_pcap(ORDERS[0], 0xa1b2_c3d4);
    std::fs::write(&path, &capture).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for output in [&path, &link] {
        let error = copy(&path, output, |_| {}).unwrap_err();
        assert!(matches!(error, CaptureError::OutputIsInput { .. }), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), capture);
}

#[test]
fn a_full_disk_is_reported() {
    let folder = folder("full");
    let [path, zipped] = ["in.pcap", "full.gz"].map(|name| folder.join(name));
    std::fs::write(&path, small_pcap(ORDERS[0], 0xa1b2_c3d4)).unwrap();
    std::os::unix::fs::symlink("/dev/full", &zipped).unwrap();
    for output in [Path::new("/dev/full"), &zipped] {
        let error = copy(&path, output, |_| {}).unwrap_err();
        assert!(matches!(error, CaptureError::Write { .. }), "{error}");
        assert!(error.to_string().contains("No space left"), "{error}");
    }
}
