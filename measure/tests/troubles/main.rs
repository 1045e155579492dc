//! Captures with something wrong: a clear message for each, and results for what could be measured.
//!
//! The captures are written here byte by byte from frames that the `etherparse` crate builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use etherparse::PacketBuilder;
use serde_json::Value;

const START_NS: u64 = 1_700_000_000_000_000_000;
const DELAY_NS: u64 = 5_000_000;
const GAP_NS: u64 = 1_000_000;

/// A stamp and a frame.
type Record = (u64, Vec<u8>);

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("troubles").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the test's folder can be created");
    folder
}

/// A TCP packet of a flow, its number in sequence number and identification.
fn frame(number: u64) -> Vec<u8> {
    let ip = etherparse::Ipv4Header {
        identification: number as u16 + 1,
        time_to_live: 64,
        protocol: etherparse::IpNumber::TCP,
        source: [10, 0, 0, 1],
        destination: [10, 0, 0, 2],
        ..Default::default()
    };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .tcp(1000, 80, number as u32 * 100, 8192);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[number as u8; 100]).expect("a frame");
    bytes
}

/// What two healthy taps would see.
fn healthy(packets: u64) -> [Vec<Record>; 2] {
    let at = |number: u64| START_NS + number * GAP_NS;
    [
        (0..packets).map(|number| (at(number), frame(number))).collect(),
        (0..packets).map(|number| (at(number) + DELAY_NS, frame(number))).collect(),
    ]
}

fn write(path: &Path, unit_ns: u64, link_type: u32, records: &[Record]) {
    let magic: u32 = if unit_ns == 1 { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut bytes = Vec::new();
    for word in [magic, 0x0004_0002, 0, 0, 262_144, link_type] {
        bytes.extend(word.to_le_bytes());
    }
    for (time_ns, frame) in records {
        let length = frame.len() as u64;
        let [seconds, rest] = [time_ns / 1_000_000_000, time_ns % 1_000_000_000 / unit_ns];
        for word in [seconds, rest, length, length] {
            bytes.extend((word as u32).to_le_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).expect("a capture");
}

/// What the program did.
struct Done {
    status: i32,
    results: Value,
    stderr: String,
}

impl Done {
    fn has(&self, kind: &str, words: &[&str]) {
        let messages = self.results["messages"].as_array().expect("messages");
        let found = messages.iter().find(|message| message["kind"] == kind);
        let found = found.unwrap_or_else(|| panic!("no message {kind} in {messages:?}"));
        let text = found["text"].as_str().expect("a text");
        words.iter().for_each(|word| assert!(text.contains(word), "{word} is not in: {text}"));
        assert!(self.stderr.contains(text), "not on standard error: {}", self.stderr);
    }

    fn packets(&self, name: &str) -> u64 {
        self.results["packets"][name].as_u64().expect("a count")
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanesplit-measure"));
    command.current_dir(folder).args(["pcap", "--json"]).args(arguments);
    let output = command.output().expect("the program runs");
    Done {
        status: output.status.code().expect("no signal"),
        results: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const BOTH: [&str; 4] = ["--ingress", "ingress.pcap", "--egress", "egress.pcap"];

fn run_taps(name: &str, taps: &[Vec<Record>; 2], more: &[&str]) -> Done {
    let folder = folder(name);
    write(&folder.join("ingress.pcap"), 1, 1, &taps[0]);
    write(&folder.join("egress.pcap"), 1, 1, &taps[1]);
    run(&folder, &[&BOTH, more].concat())
}

#[test]
fn a_healthy_pair_has_no_message() {
    let done = run_taps("healthy", &healthy(100), &[]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""));
    assert_eq!(done.packets("matched"), 100);
    assert_eq!(done.results["delay_ns"]["p50"], DELAY_NS);
}

#[test]
fn a_capture_that_ends_inside_a_record_is_measured_up_to_there() {
    let folder = folder("truncated");
    let taps = healthy(100);
    write(&folder.join("ingress.pcap"), 1, 1, &taps[0]);
    write(&folder.join("egress.pcap"), 1, 1, &taps[1]);
    let path = folder.join("egress.pcap");
    let bytes = std::fs::read(&path).unwrap();
    // In the middle of the 61st packet.
    let record_bytes = 16 + taps[1][0].1.len();
    std::fs::write(&path, &bytes[..24 + 60 * record_bytes + 40]).unwrap();
    let done = run(&folder, &BOTH);
    assert_eq!(done.status, 1);
    done.has("capture_truncated", &["egress", "egress.pcap", "ends inside"]);
    assert_eq!([done.packets("matched"), done.packets("lost")], [60, 40]);
    assert_eq!(done.results["delay_ns"]["max"], DELAY_NS);
    assert_eq!(done.results["taps"]["egress"]["whole"], false);
    assert_eq!(done.results["taps"]["ingress"]["whole"], true);
}

#[test]
fn a_clock_of_both_taps_that_jumps_back_costs_only_the_packets_on_their_way() {
    let mut taps = healthy(200);
    for tap in &mut taps {
        for (time_ns, _) in tap.iter_mut() {
            if *time_ns >= START_NS + 100 * GAP_NS {
                *time_ns -= 3_000_000_000;
            }
        }
    }
    let done = run_taps("jump_of_both", &taps, &[]);
    assert_eq!(done.status, 0);
    done.has("clock_set_back", &["jumps back once, first to 2023-11-14T22:13:", "2s 999ms"]);
    assert_eq!(done.packets("matched"), 200);
    // Five were on their way: stamped before the jump at ingress and behind it at egress.
    assert_eq!(done.results["without_delay"], 5);
    assert_eq!(done.results["delay_ns"]["samples"], 195);
    for figure in ["min", "p50", "max"] {
        assert_eq!(done.results["delay_ns"][figure], DELAY_NS, "{figure}");
    }
}

#[test]
fn a_clock_of_one_tap_that_jumps_back_leaves_no_false_delay() {
    let mut taps = healthy(200);
    for (time_ns, _) in taps[1].iter_mut().skip(120) {
        *time_ns -= 500_000_000;
    }
    let done = run_taps("jump_of_one", &taps, &[]);
    done.has("clock_set_back", &["tap egress", "499ms"]);
    assert_eq!(done.packets("matched"), 200);
    assert_eq!(done.results["without_delay"], 80);
    assert_eq!(done.results["delay_ns"]["max"], DELAY_NS);
}

#[test]
fn stamps_in_a_little_disorder_are_told_and_used_as_they_are() {
    let mut taps = healthy(100);
    taps[1][50].0 -= 1_000_500;
    let done = run_taps("disorder", &taps, &[]);
    done.has("stamps_backwards", &["1 stamps of tap egress", "500ns"]);
    assert_eq!(done.packets("matched"), 100);
    assert_eq!(done.results["delay_ns"]["min"], DELAY_NS - 1_000_500);
}

#[test]
fn a_tap_that_goes_silent_is_told_with_the_time() {
    let mut taps = healthy(6_000);
    taps[1].retain(|(time_ns, _)| {
        !(START_NS + 2_000_000_000..START_NS + 4_500_000_000).contains(time_ns)
    });
    let done = run_taps("silent", &taps, &[]);
    done.has(
        "tap_silent",
        &["tap egress was silent once", "2s 501ms", "from 2023-11-14T22:13:21.99"],
    );
    assert_eq!([done.packets("matched"), done.packets("lost")], [3_500, 2_500]);

    let mut taps = healthy(6_000);
    taps[0].truncate(1_000);
    let done = run_taps("silent_at_the_end", &taps, &[]);
    done.has("tap_silent", &["tap ingress"]);
    assert_eq!([done.packets("matched"), done.packets("unmatched")], [1_000, 5_000]);
}

#[test]
fn swapped_taps_are_recognised_and_measured() {
    let [ingress, egress] = healthy(100);
    let done = run_taps("swapped", &[egress, ingress], &[]);
    assert_eq!(done.status, 0);
    done.has("taps_swapped", &["100 of 100", "--ingress and --egress"]);
    assert_eq!(done.packets("matched"), 100);
    assert_eq!(done.results["reverse"]["delay_ns"]["p50"], DELAY_NS);
    assert_eq!(done.results["delay_ns"]["samples"], 0);

    let [ingress, egress] = healthy(100);
    let done = run_taps("swapped_one_way", &[egress, ingress], &["--one-way"]);
    done.has("taps_swapped", &[]);
    assert_eq!(done.results["negative_delay_ns"]["packets"], 100);
    assert_eq!(done.results["negative_delay_ns"]["min"], -(DELAY_NS as i64));
}

#[test]
fn the_same_file_twice_is_told() {
    let folder = folder("same");
    let [ingress, _] = healthy(100);
    write(&folder.join("ingress.pcap"), 1, 1, &ingress);
    let done = run(&folder, &["--ingress", "ingress.pcap", "--egress", "./ingress.pcap"]);
    assert_eq!(done.status, 0);
    done.has("same_file", &["ingress.pcap", "both taps"]);
    done.has("same_capture", &["same nanosecond"]);
    assert_eq!(done.packets("matched"), 100);

    write(&folder.join("egress.pcap"), 1, 1, &ingress);
    let done = run(&folder, &BOTH);
    done.has("same_capture", &[]);
}

#[test]
fn a_link_type_without_ethernet_is_refused_by_name() {
    let folder = folder("link_type");
    let [ingress, egress] = healthy(10);
    write(&folder.join("ingress.pcap"), 1, 1, &ingress);
    write(&folder.join("egress.pcap"), 1, 105, &egress);
    let done = run(&folder, &BOTH);
    assert_eq!((done.status, &done.results), (1, &Value::Null));
    for word in ["tap egress", "egress.pcap", "IEEE802_11", "only Ethernet"] {
        assert!(done.stderr.contains(word), "{word}: {}", done.stderr);
    }
}

#[test]
fn frames_without_ip_are_counted_apart() {
    let mut taps = healthy(20);
    for tap in &mut taps {
        for (_, frame) in tap.iter_mut().take(20) {
            // ARP.
            frame[12..14].copy_from_slice(&[0x08, 0x06]);
        }
    }
    let done = run_taps("no_ip", &taps, &[]);
    done.has("no_ip", &["tap ingress has 20 frames"]);
    assert_eq!(done.packets("ingress"), 0);
    assert_eq!(done.results["taps"]["ingress"]["not_ip"], 20);
}

#[test]
fn stamps_of_different_units_are_told_and_the_coarser_bounds_the_error() {
    let folder = folder("units");
    let [ingress, egress] = healthy(50);
    write(&folder.join("ingress.pcap"), 1, 1, &ingress);
    write(&folder.join("egress.pcap"), 1_000, 1, &egress);
    let done = run(&folder, &BOTH);
    done.has("different_resolution", &["1ns", "1us"]);
    assert_eq!(done.results["error_bound"]["ns"], 1_000);
    assert_eq!(done.packets("matched"), 50);
}

#[test]
fn captures_of_different_traffic_match_nothing_and_say_so() {
    let [ingress, _] = healthy(50);
    let other = (50..100).map(|number| (START_NS + number * GAP_NS, frame(number))).collect();
    let done = run_taps("nothing", &[ingress, other], &[]);
    assert_eq!(done.status, 0);
    done.has("nothing_matched", &["--window", "--offset"]);
    assert_eq!([done.packets("lost"), done.packets("unmatched")], [50, 50]);
    assert_eq!(done.results["delay_ns"]["min"], Value::Null);
}

#[test]
fn an_empty_capture_is_told() {
    let [ingress, _] = healthy(50);
    let done = run_taps("empty", &[ingress, Vec::new()], &[]);
    done.has("no_frames", &["tap egress"]);
    assert_eq!(done.packets("lost"), 50);
}

#[test]
fn one_capture_cut_shorter_than_the_other_still_matches() {
    let folder = folder("cut");
    let [ingress, egress] = healthy(100);
    write(&folder.join("ingress.pcap"), 1, 1, &ingress);
    // By hand, for captured and original length differ: 74 bytes are 20 behind the TCP header.
    let mut bytes = std::fs::read(folder.join("ingress.pcap")).unwrap()[..24].to_vec();
    for (time_ns, frame) in &egress {
        let [seconds, rest] = [time_ns / 1_000_000_000, time_ns % 1_000_000_000];
        for word in [seconds, rest, 74, frame.len() as u64] {
            bytes.extend((word as u32).to_le_bytes());
        }
        bytes.extend(&frame[..74]);
    }
    std::fs::write(folder.join("egress.pcap"), bytes).unwrap();
    let done = run(&folder, &BOTH);
    assert_eq!(done.packets("matched"), 100);
    assert_eq!(done.results["settings"]["content_bytes"], 20);
    assert_eq!(done.results["messages"], Value::Array(Vec::new()));

    let done = run(&folder, &[&BOTH[..], &["--content-bytes", "64"]].concat());
    done.has("content_cut", &["100 packets of tap egress", "--content-bytes", "64"]);
    assert_eq!(done.packets("matched"), 0);
}

#[test]
fn a_fixed_offset_is_taken_off_the_egress_clock() {
    for (offset, shift_ns) in [("7s", 7_000_000_000_i64), ("-3ms", -3_000_000)] {
        let mut taps = healthy(100);
        for (time_ns, _) in &mut taps[1] {
            *time_ns = time_ns.checked_add_signed(shift_ns).unwrap();
        }
        let done = run_taps("offset", &taps, &["--offset", offset]);
        assert_eq!(done.packets("matched"), 100);
        assert_eq!(done.results["delay_ns"]["max"], DELAY_NS);
        assert_eq!(done.results["offset"]["ns"], shift_ns);
    }
}

/// The conversation's other direction: addresses and ports the other way round.
fn answer(number: u64) -> Vec<u8> {
    let mut bytes = frame(number);
    let (source, destination) = (bytes[26..30].to_vec(), bytes[30..34].to_vec());
    bytes[26..30].copy_from_slice(&destination);
    bytes[30..34].copy_from_slice(&source);
    let (source, destination) = (bytes[34..36].to_vec(), bytes[36..38].to_vec());
    bytes[34..36].copy_from_slice(&destination);
    bytes[36..38].copy_from_slice(&source);
    bytes
}

#[test]
fn an_estimated_offset_is_right_when_both_ways_take_the_same_time_and_is_said() {
    for shift_ns in [2_500_000_000_i64, -40_000_000, 123] {
        let mut taps = healthy(100);
        for number in 0..100 {
            let at_ns = START_NS + number * GAP_NS + 300;
            taps[1].push((at_ns, answer(number)));
            taps[0].push((at_ns + DELAY_NS, answer(number)));
        }
        taps.iter_mut().for_each(|tap| tap.sort());
        for (time_ns, _) in &mut taps[1] {
            *time_ns = time_ns.checked_add_signed(shift_ns).unwrap();
        }
        let done = run_taps("estimate", &taps, &["--estimate-offset"]);
        done.has("offset_estimated", &["ESTIMATE", "1 pairs", "5ms"]);
        assert_eq!(done.results["offset"]["ns"], shift_ns);
        assert_eq!(done.results["offset"]["estimated"], true);
        assert_eq!(done.packets("matched"), 200);
        assert_eq!(done.results["delay_ns"]["max"], DELAY_NS);
        assert_eq!(done.results["reverse"]["delay_ns"]["max"], DELAY_NS);
    }
    let done = run_taps("no_estimate", &healthy(20), &["--estimate-offset"]);
    done.has("offset_estimated", &["cannot be estimated", "--offset"]);
}

#[test]
fn little_memory_shortens_the_window_and_says_so() {
    let taps = healthy(20_000);
    let done = run_taps("memory", &taps, &["--memory", "4096", "--window", "10s"]);
    done.has("window_shortened", &["--memory"]);
    // Five were on their way at a time, so they were all still there.
    assert_eq!(done.packets("matched"), 20_000);
    assert_eq!(done.results["memory"]["packets_most"], 4_096);
}

#[test]
fn a_result_is_not_written_over_a_capture() {
    let folder = folder("over");
    let [ingress, egress] = healthy(5);
    write(&folder.join("ingress.pcap"), 1, 1, &ingress);
    write(&folder.join("egress.pcap"), 1, 1, &egress);
    let before = std::fs::read(folder.join("egress.pcap")).unwrap();
    let done = run(&folder, &[&BOTH[..], &["--flows", "./egress.pcap"]].concat());
    assert_eq!(done.status, 2);
    assert!(done.stderr.contains("named twice"), "{}", done.stderr);
    assert_eq!(std::fs::read(folder.join("egress.pcap")).unwrap(), before);
}

#[test]
fn a_negative_packet_or_two_do_not_turn_a_flow_around() {
    let mut taps = healthy(100);
    // The very first, and one in the middle, arrive 200 ns before they were sent.
    for number in [0, 50] {
        taps[1][number].0 = taps[0][number].0 - 200;
    }
    taps[1].sort();
    let done = run_taps("negative", &taps, &[]);
    done.has("negative_delays", &["2 packets", "-200ns"]);
    assert_eq!(done.results["negative_delay_ns"]["packets"], 2);
    assert_eq!(done.results["negative_delay_ns"]["min"], -200);
    assert_eq!(done.results["delay_ns"]["samples"], 98);
    assert_eq!(done.results["reverse"]["matched"], 0);
}

/// Ten packets, silence, ten more.
fn interrupted(silence_ns: u64) -> [Vec<Record>; 2] {
    healthy(20).map(|records| {
        let late = |(at, (time_ns, frame)): (usize, Record)| match at {
            0..10 => (time_ns, frame),
            _ => (time_ns - GAP_NS + silence_ns, frame),
        };
        records.into_iter().enumerate().map(late).collect()
    })
}

fn packets_of_flows(name: &str) -> Vec<u64> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("troubles").join(name).join("f");
    let lines = std::fs::read_to_string(path).expect("the flows were written");
    let packets = |line: &str| {
        let flow: Value = serde_json::from_str(line).expect("JSON");
        flow["packets_ingress"].as_u64().expect("a count")
    };
    lines.lines().map(packets).collect()
}

#[test]
fn a_flow_that_is_silent_for_longer_than_the_timeout_is_followed_by_another() {
    const SECOND: u64 = 1_000_000_000;
    for (name, silence_ns, more, flows) in [
        ("silence-default", 301 * SECOND, &[][..], &[10, 10][..]),
        ("silence-short", 299 * SECOND, &[], &[20]),
        ("silence-equal", 2 * SECOND, &["--flow-timeout", "2s"], &[20]),
        ("silence-longer", 2 * SECOND + 1, &["--flow-timeout", "2s"], &[10, 10]),
        ("silence-never", 3000 * SECOND, &["--flow-timeout", "0s"], &[20]),
    ] {
        let done = run_taps(name, &interrupted(silence_ns), &[more, &["--flows", "f"]].concat());
        assert_eq!(packets_of_flows(name), flows, "{name}");
        assert_eq!(done.results["flows"]["timed_out"], flows.len() - 1, "{name}");
        assert_eq!(done.packets("matched"), 20);
    }
}

#[test]
fn packets_of_flows_for_which_there_is_no_room_are_told_and_measured() {
    let name = "no-room";
    let more = ["--flow-timeout", "2s", "--flows-max", "1", "--flows", "f"];
    let done = run_taps(name, &interrupted(3_000_000_000), &more);
    done.has("too_many_flows", &["10 packets", "--flows-max"]);
    assert_eq!(packets_of_flows(name), [10]);
    assert_eq!((done.packets("matched"), &done.results["delay_ns"]["samples"]), (20, &20.into()));
}
