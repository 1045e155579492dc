//! The contract of the command line: what `lanesplit-replay run` does with input that is broken and with
//! options that make no sense, what it prints, and what the equal-cost baseline does to flows.

mod capture;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use capture::{ETHERNET, Record};
use etherparse::PacketBuilder;
use serde_json::Value;

/// Length of a pcap file's own header, and of the header of a record.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

const SHORT: u8 = 18;
const LONG: u8 = 10;

/// A folder to write to, with an input in it.
struct Lab {
    folder: PathBuf,
}

impl Lab {
    fn new(test: &str, input: &[u8]) -> Lab {
        let lab = Lab { folder: capture::scratch(&format!("replay/{test}")) };
        fs::write(lab.input(), input).expect("input");
        lab
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn input(&self) -> PathBuf {
        self.file("given.pcap")
    }

    /// Runs with every output, and with these options.
    fn run<S: AsRef<OsStr>>(&self, options: &[S]) -> Output {
        let mut command = replay();
        command.args(options).arg("--lan-in").arg(self.input());
        for (option, file) in
            [("--wan-out", "out.pcap"), ("--flows", "flows.jsonl"), ("--report", "report.json")]
        {
            command.arg(option).arg(self.file(file));
        }
        command.output().expect("lanesplit-replay")
    }

    fn report(&self) -> Value {
        json(&fs::read(self.file("report.json")).expect("report"))
    }

    fn sent(&self) -> Vec<Record> {
        capture::read(&self.file("out.pcap"))
    }

    /// Runs on an input that breaks at `offset`: it is named with the place, and the first `kept` packets
    /// are forwarded, reported and written.
    fn breaks_at(&self, offset: usize, kept: u64) {
        let output = self.run::<&str>(&[]);
        assert_fails(&output, 1, &["given.pcap", &offset.to_string()]);
        assert_eq!(self.report()["received"], kept);
        assert_eq!(self.report()["forwarded"], kept);
        assert_eq!(self.sent().len() as u64, kept);
        let flows = fs::read_to_string(self.file("flows.jsonl")).expect("flows");
        assert_eq!(flows.lines().count(), usize::from(kept > 0));
    }
}

#[test]
fn a_capture_cut_inside_a_record_keeps_what_was_read_before() {
    let records = segments(3);
    let whole = capture::bytes(ETHERNET, &records);
    let third = whole.len() - RECORD_HEADER - records[2].kept.len();
    Lab::new("cut-in-frame", &whole[..whole.len() - 1]).breaks_at(third, 2);
    Lab::new("cut-in-record-header", &whole[..third + 15]).breaks_at(third, 2);
}

#[test]
fn a_capture_cut_inside_its_header_is_refused() {
    let file = capture::bytes(ETHERNET, &segments(1));
    for length in [0, 3, 4, FILE_HEADER - 1] {
        let lab = Lab::new(&format!("cut-at-{length}"), &file[..length]);
        assert_fails(&lab.run::<&str>(&[]), 1, &["given.pcap"]);
    }
}

#[test]
fn a_record_longer_than_any_packet_is_broken() {
    let records = segments(2);
    let mut file = capture::bytes(ETHERNET, &records);
    let second = file.len() - RECORD_HEADER - records[1].kept.len();
    file[second + 8..second + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    Lab::new("absurd-length", &file).breaks_at(second + 8, 1);
}

#[test]
fn a_wrong_magic_is_named_with_its_file_and_offset() {
    let mut file = capture::bytes(ETHERNET, &segments(2));
    file[0] ^= 0xff;
    let output = Lab::new("magic", &file).run::<&str>(&[]);
    assert_fails(&output, 1, &["given.pcap", "0"]);
}

#[test]
fn a_text_file_is_not_a_capture() {
    let output =
        Lab::new("text", b"these are not the packets you are looking for\n").run::<&str>(&[]);
    assert_fails(&output, 1, &["given.pcap"]);
}

#[test]
fn a_link_type_other_than_ethernet_is_refused() {
    // LINKTYPE_RAW and LINKTYPE_LINUX_SLL: their frames would be read as something that they are not.
    for link_type in [101, 113] {
        let file = capture::bytes(link_type, &segments(2));
        let output = Lab::new(&format!("link-type-{link_type}"), &file).run::<&str>(&[]);
        assert_fails(&output, 1, &["given.pcap", "20", &link_type.to_string()]);
    }
}

#[test]
fn a_pcapng_interface_other_than_ethernet_is_refused() {
    let mut file = pcapng_block(
        0x0a0d_0d0a,
        &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    );
    file.extend(pcapng_block(1, &[113, 0, 0, 0, 0, 0, 0, 0]));
    let frame = &segments(1)[0].kept;
    let mut packet = Vec::new();
    for field in [0, 0, 1_000_000, frame.len() as u32, frame.len() as u32] {
        packet.extend(field.to_le_bytes());
    }
    packet.extend(frame);
    packet.resize(packet.len().next_multiple_of(4), 0);
    file.extend(pcapng_block(6, &packet));
    let output = Lab::new("pcapng-link-type", &file).run::<&str>(&[]);
    assert_fails(&output, 1, &["given.pcap", "113"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let lab = Lab::new("missing-input", b"");
    fs::remove_file(lab.input()).expect("input");
    assert_fails(&lab.run::<&str>(&[]), 1, &["given.pcap"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let lab = Lab::new("missing-folder", &capture::bytes(ETHERNET, &segments(1)));
    let out = lab.file("nowhere").join("out.pcap");
    let output = replay().arg("--lan-in").arg(lab.input()).arg("--wan-out").arg(&out).output();
    assert_fails(&output.expect("lanesplit-replay"), 1, &["nowhere/out.pcap"]);
}

#[test]
fn options_that_make_no_sense_are_bad_usage() {
    let lab = Lab::new("usage", &capture::bytes(ETHERNET, &segments(1)));
    for (options, named) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--threshold", "0"], "threshold"),
        (&["--threshold", "-1"], "-1"),
        (&["--threshold", "4294967296"], "threshold"),
        (&["--threshold", "many"], "threshold"),
        (&["--policy", "fair"], "fair"),
        (&["--idle-timeout", "soon"], "soon"),
        (&["--idle-timeout", "0s"], "idle"),
    ] {
        assert_fails(&lab.run(options), 2, &[named]);
        assert!(!lab.file("report.json").exists(), "{options:?} wrote a report");
    }
    let without_input = replay().output().expect("lanesplit-replay");
    assert_fails(&without_input, 2, &["--lan-in"]);
}

#[test]
fn a_configuration_that_makes_no_sense_is_bad_usage() {
    let lab = Lab::new("config", &capture::bytes(ETHERNET, &segments(1)));
    let config = lab.file("lanesplit.toml");
    for (text, named) in [
        ("[classifier]\nthreshold_packets = 0\n", "threshold_packets"),
        ("[classifier]\nthreshold = 40\n", "threshold"),
        ("[classifier]\nidle_timeout = \"soon\"\n", "idle_timeout"),
        ("[lanes.long]\ndscp = 64\n", "64"),
        ("[lanes.long]\ndscp = \"AF99\"\n", "AF99"),
        ("[classifier\n", "classifier"),
    ] {
        fs::write(&config, text).expect("configuration");
        let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
        assert_fails(&output, 2, &["lanesplit.toml", named]);
    }
    fs::remove_file(&config).expect("configuration");
    let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
    assert_fails(&output, 2, &["lanesplit.toml"]);
}

#[test]
fn the_default_configuration_is_a_configuration() {
    let lab = Lab::new("default-config", &capture::bytes(ETHERNET, &segments(1)));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/default.toml");
    let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn json_on_standard_output_is_the_report() {
    let lab = Lab::new("json", &capture::bytes(ETHERNET, &segments(42)));
    let output = lab.run(&["--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json(&output.stdout), lab.report());
    assert_eq!(lab.report()["long"], 2);
}

#[test]
fn a_summary_is_printed_for_people() {
    let lab = Lab::new("summary", &capture::bytes(ETHERNET, &segments(42)));
    let output = replay().arg("--lan-in").arg(lab.input()).output().expect("lanesplit-replay");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("42") && text.contains("40"), "{text}");
    assert_eq!(fs::read_dir(&lab.folder).expect("folder").count(), 1, "it wrote unasked");
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let file = capture::bytes(ETHERNET, &many_flows(100, 5));
    let runs = ["again-1", "again-2"].map(|name| {
        let lab = Lab::new(name, &file);
        assert!(lab.run(&["--threshold", "3"]).status.success());
        ["out.pcap", "flows.jsonl", "report.json"].map(|file| fs::read(lab.file(file)).expect(file))
    });
    assert!(runs[0] == runs[1], "two runs differ");
}

#[test]
fn ecmp_spreads_flows_evenly_and_keeps_each_on_its_lane() {
    const FLOWS: u16 = 2000;
    let lab = Lab::new("ecmp", &capture::bytes(ETHERNET, &many_flows(FLOWS, 3)));
    let output = lab.run(&["--policy", "ecmp", "--threshold", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));

    let mut lanes: HashMap<[u8; 12], u8> = HashMap::new();
    let sent = lab.sent();
    for record in &sent {
        let flow = record.kept[26..38].try_into().expect("addresses and ports");
        let lane = record.kept[15] >> 2;
        assert!([SHORT, LONG].contains(&lane), "DSCP {lane}");
        assert_eq!(*lanes.entry(flow).or_insert(lane), lane, "a flow changed its lane");
    }
    assert_eq!(lanes.len(), usize::from(FLOWS));
    // Of 2000 fair coins, more than 200 from the middle comes once in 10^18 runs: nine standard deviations.
    let long = lanes.values().filter(|&&lane| lane == LONG).count();
    assert!((800..=1200).contains(&long), "{long} of {FLOWS} flows are in the long lane");

    let report = lab.report();
    assert_eq!(report["received"], sent.len());
    assert_eq!(report["long"], 3 * long);
    assert_eq!(report["short"], sent.len() - 3 * long);
}

#[test]
fn inline_an_output_needs_the_input_of_the_other_side() {
    let lab = Lab::new("no-input", &capture::bytes(ETHERNET, &segments(1)));
    for [input, output, other] in
        [["--lan-in", "--lan-out", "--wan-in"], ["--wan-in", "--wan-out", "--lan-in"]]
    {
        let mut command = replay();
        command.arg(input).arg(lab.input()).arg(output).arg(lab.file("out.pcap"));
        let output_of_it = command.output().expect("lanesplit-replay");
        assert_fails(&output_of_it, 2, &[output, other]);
        assert!(!lab.file("out.pcap").exists());
    }
}

/// The gateway of the golden cases, with a tunnel for each lane.
fn routed_config() -> String {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/routed.toml");
    let site = fs::read_to_string(site).expect("cases/routed.toml");
    let tunnel = |lane: &str, key: u32| {
        format!(
            "[lanes.{lane}.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nkey = {key}\n"
        )
    };
    site + &tunnel("short", 1) + &tunnel("long", 2)
}

/// Segments from the LAN of the golden cases to the other site.
fn routed_segments(count: u32) -> Vec<Record> {
    let routed = |number| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 1, 1])
            .ipv4([10, 1, 0, 9], [10, 2, 0, 7], 64)
            .tcp(40_000, 443, number, 1024)
            .ack(1)
            .write(&mut frame, b"data")
            .expect("a Vec");
        Record::whole(1_000_000_000 + u64::from(number) * 1_000_000, frame)
    };
    (0..count).map(routed).collect()
}

#[test]
fn routed_each_segment_takes_the_tunnel_of_its_lane_and_comes_out_at_the_other_site() {
    let input = routed_segments(42);
    let lab = Lab::new("routed", &capture::bytes(ETHERNET, &input));
    fs::write(lab.file("one.toml"), routed_config()).expect("configuration");
    let output = lab.run(&["--json", "--config", lab.file("one.toml").to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json(&output.stdout), lab.report());
    let sent = lab.sent();
    let keys: Vec<u8> = sent.iter().map(|record| record.kept[41]).collect();
    assert_eq!(keys, [[1; 40].as_slice(), &[2; 2]].concat());
    for (before, after) in input.iter().zip(&sent) {
        assert_eq!((after.at_ns, after.wire_bytes), (before.at_ns, before.wire_bytes + 28));
    }
    let lanes = &lab.report()["routed"]["lanes"];
    assert_eq!((&lanes[0]["sent"], &lanes[1]["sent"]), (&40.into(), &2.into()));

    // The other site, where everything is the other way round: its LAN is 10.2.0.0/16.
    let other = "mode = \"routed\"\n\
        [routed]\nlocal_prefixes = [\"10.2.0.0/16\"]\nremote_prefixes = [\"10.1.0.0/16\"]\n\
        [routed.static_ports.lan]\nmac = \"02:00:00:00:03:01\"\naddresses = [\"10.2.0.1/16\"]\nmtu = 1500\n\
        [routed.static_ports.wan]\nmac = \"02:00:00:00:03:02\"\naddresses = [\"198.51.100.2/24\"]\nmtu = 1500\n\
        [[routed.static_neighbours]]\nport = \"lan\"\naddress = \"10.2.0.7\"\nmac = \"02:00:00:00:03:07\"\n\
        [lanes.short.gre]\nlocal = \"198.51.100.2\"\nremote = \"192.0.2.2\"\nkey = 1\n\
        [lanes.long.gre]\nlocal = \"198.51.100.2\"\nremote = \"192.0.2.2\"\nkey = 2\n";
    fs::write(lab.file("other.toml"), other).expect("configuration");
    let mut command = replay();
    command.arg("--config").arg(lab.file("other.toml")).arg("--wan-in").arg(lab.file("out.pcap"));
    command.arg("--lan-out").arg(lab.file("arrived.pcap"));
    let output = command.output().expect("lanesplit-replay");
    assert!(output.status.success(), "{}", stderr(&output));
    let arrived = capture::read(&lab.file("arrived.pcap"));
    assert_eq!(arrived.len(), input.len());
    for (before, after) in input.iter().zip(&arrived) {
        assert_eq!(after.kept[..12], [2, 0, 0, 0, 3, 7, 2, 0, 0, 0, 3, 1]);
        // Two hops less, and a checksum to fit; the rest is as it was.
        assert_eq!(after.kept[22], before.kept[22] - 2);
        assert_eq!(after.kept[26..], before.kept[26..]);
        assert_eq!(after.kept[12..22], before.kept[12..22]);
    }
}

#[test]
fn a_routed_configuration_without_ports_is_bad_usage() {
    let lab = Lab::new("routed-without-ports", &capture::bytes(ETHERNET, &segments(1)));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/routed.toml");
    let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
    assert_fails(&output, 2, &["configs/routed.toml", "routed.static_ports"]);
    assert!(!lab.file("out.pcap").exists());
}

#[test]
fn routed_a_capture_cut_inside_a_record_keeps_what_was_read_before() {
    let whole = capture::bytes(ETHERNET, &routed_segments(3));
    let lab = Lab::new("routed-cut", &whole[..whole.len() - 1]);
    let config = lab.file("routed.toml");
    fs::write(&config, routed_config()).expect("configuration");
    let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
    assert_fails(&output, 1, &["given.pcap"]);
    assert_eq!(lab.report()["forwarded"], 2);
    assert_eq!(lab.sent().len(), 2);
}

#[test]
fn routed_captures_that_are_not_ethernet_or_are_named_twice_are_refused() {
    let lab = Lab::new("routed-link-type", &capture::bytes(101, &routed_segments(1)));
    let config = lab.file("routed.toml");
    fs::write(&config, routed_config()).expect("configuration");
    let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
    assert_fails(&output, 1, &["given.pcap", "101"]);
    let mut command = replay();
    command.arg("--config").arg(&config).arg("--lan-in").arg(lab.input());
    let output = command.arg("--wan-in").arg(lab.input()).output().expect("lanesplit-replay");
    assert_fails(&output, 2, &["given.pcap", "twice"]);
}

/// The gateway makes frames of up to 3840 bytes; here the piece would fit, and its outer headers would not.
#[test]
fn routed_a_piece_that_would_outgrow_its_frame_is_no_room_and_none_is_sent() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 1, 1])
        .ipv4([10, 1, 0, 9], [10, 2, 0, 7], 64)
        .udp(1, 2)
        .write(&mut frame, &[7; 5000])
        .expect("a Vec");
    // DF and the checksum that is over it.
    frame[20] &= 0xbf;
    let checksum = u16::from_be_bytes([frame[24], frame[25]]);
    let (checksum, carry) = checksum.overflowing_add(0x4000);
    let checksum = checksum + u16::from(carry);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    let lab = Lab::new("routed-pieces", &capture::bytes(ETHERNET, &[Record::whole(1, frame)]));
    for (wan_mtu_bytes, pieces) in [(3820, 2_usize), (3840, 0)] {
        let config = lab.file("routed.toml");
        let [lan, wan, rest] = routed_config()
            .splitn(3, "mtu = 1500")
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .try_into()
            .expect("two ports");
        fs::write(&config, format!("{lan}mtu = 1500{wan}mtu = {wan_mtu_bytes}{rest}"))
            .expect("configuration");
        let output = lab.run(&[OsStr::new("--config"), config.as_os_str()]);
        assert!(output.status.success(), "{}", stderr(&output));
        let report = lab.report();
        assert_eq!(report["routed"]["fragments"], pieces, "{report}");
        assert_eq!(report["forwarded"], u64::from(pieces > 0), "{report}");
        assert_eq!(lab.sent().len(), pieces);
    }
}

#[test]
fn routed_counters_are_shown_to_people_too() {
    let lab = Lab::new("routed-summary", &capture::bytes(ETHERNET, &routed_segments(42)));
    let config = lab.file("routed.toml");
    fs::write(&config, routed_config()).expect("configuration");
    let mut command = replay();
    command.arg("--config").arg(&config).arg("--lan-in").arg(lab.input());
    let output = command.output().expect("lanesplit-replay");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("short lane, sent") && text.contains("long lane, sent"), "{text}");
}

/// Packets of one TCP flow, one a millisecond, built by etherparse.
fn segments(count: u32) -> Vec<Record> {
    (0..count).map(|number| segment(number, [10, 0, 0, 1], 40_000)).collect()
}

/// So many flows of so many packets each, in turn.
fn many_flows(flows: u16, packets: u32) -> Vec<Record> {
    let rounds = (0..packets).flat_map(|round| (0..flows).map(move |flow| (round, flow)));
    rounds
        .map(|(round, flow)| {
            let [high, low] = (flow / 4).to_be_bytes();
            let number = round * u32::from(flows) + u32::from(flow);
            segment(number, [10, 1, high, low], 40_000 + flow % 4)
        })
        .collect()
}

fn segment(number: u32, source: [u8; 4], source_port: u16) -> Record {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(source, [192, 0, 2, 2], 64)
        .tcp(source_port, 443, number, 1024)
        .ack(1)
        .write(&mut frame, b"data")
        .expect("a Vec");
    Record::whole(1_000_000_000 + u64::from(number) * 1_000_000, frame)
}

fn pcapng_block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes(), &length, body, &length].concat()
}

fn replay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanesplit-replay"));
    command.arg("run");
    command
}

/// The exit status, and words that the message has to have. Nothing goes to standard output.
fn assert_fails(output: &Output, status: i32, words: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(bytes));
    })
}
