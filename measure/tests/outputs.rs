//! What is written besides JSON: read back by others, or looked at.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("outputs").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the test's folder can be created");
    folder
}

/// TCP flows of 3 to 62 packets, with SYN and FIN, some packets lost; `delay_ns` longer for each.
fn captures(folder: &Path, delay_ns: u64) {
    let mut taps = [Vec::new(), Vec::new()];
    for flow in 0..120_u64 {
        let packets = 3 + flow / 2;
        for number in 0..packets {
            let flags = match number {
                0 => 0x02,
                last if last == packets - 1 => 0x11,
                _ => 0x10,
            };
            let mut frame = vec![0_u8; 54];
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            frame[14..18].copy_from_slice(&[0x45, 0, 0, 40]);
            frame[18..20].copy_from_slice(&(number as u16 + 1).to_be_bytes());
            frame[22..24].copy_from_slice(&[64, 6]);
            frame[26..34].copy_from_slice(&[10, 0, 0, flow as u8, 10, 0, 1, 1]);
            frame[34..38].copy_from_slice(&[0x10, flow as u8, 0, 80]);
            frame[38..42].copy_from_slice(&(number as u32).to_be_bytes());
            frame[46..48].copy_from_slice(&[0x50, flags]);
            let at_ns = 1_700_000_000_000_000_000 + flow * 10_000_000 + number * 200_000;
            let delay_ns = delay_ns + (flow * 7919 + number * 104_729) % 2_000_000;
            taps[0].push((at_ns, frame.clone()));
            if (flow + number) % 41 != 7 || number == 0 || number == packets - 1 {
                frame[15] = if number < 20 { 18 << 2 } else { 10 << 2 };
                taps[1].push((at_ns + delay_ns, frame));
            }
        }
    }
    for (name, mut records) in ["ingress.pcap", "egress.pcap"].into_iter().zip(taps) {
        records.sort();
        let mut bytes = Vec::new();
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for (time_ns, frame) in records {
            let [seconds, rest] = [time_ns / 1_000_000_000, time_ns % 1_000_000_000];
            for word in [seconds, rest, 54, 54] {
                bytes.extend((word as u32).to_le_bytes());
            }
            bytes.extend(frame);
        }
        std::fs::write(folder.join(name), bytes).expect("a capture");
    }
}

fn run(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanesplit-measure"));
    let output = command.current_dir(folder).args(arguments).output().expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

const PCAP: [&str; 6] = ["pcap", "--ingress", "ingress.pcap", "--egress", "egress.pcap", "--json"];

#[test]
fn a_report_from_stored_results_is_the_report_of_the_run() {
    let folder = folder("report");
    captures(&folder, 10_000_000);
    run(&folder, &[&PCAP[..], &["--output", "run", "--html", "direct.html"]].concat());
    run(&folder, &["report", "run", "--html", "stored.html"]);
    let direct = std::fs::read_to_string(folder.join("direct.html")).unwrap();
    assert!(direct == std::fs::read_to_string(folder.join("stored.html")).unwrap());
    assert_eq!(direct.matches("<svg").count(), 6);
    for words in [
        "one-way delay in ms",
        "packets lost in %",
        "density of flow completion time",
        "distribution of jitter",
        "dscp 18, median",
        "dscp 10, median",
        "101-1000, more packets",
    ] {
        assert!(direct.contains(words), "{words} is not in the report");
    }
    // It opens without a network: nothing is named that would have to be fetched.
    assert!(!direct.contains("<script") && !direct.contains("<link") && !direct.contains("src="));
}

#[test]
fn a_run_with_less_delay_is_faster_and_the_same_run_is_not() {
    let folder = folder("compare");
    for (name, delay_ns) in [("a", 10_000_000), ("b", 4_000_000)] {
        captures(&folder, delay_ns);
        run(&folder, &[&PCAP[..], &["--output", name]].concat());
    }
    let text = run(&folder, &["compare", "a", "b", "--json", "--html", "compare.html"]);
    let compared: Value = serde_json::from_str(&text).expect("JSON");
    let of = |compared: &Value, class: &str| -> Value {
        let classes = compared["classes"].as_array().unwrap();
        classes.iter().find(|found| found["class"] == class).unwrap().clone()
    };
    let short = of(&compared, "6-10");
    assert_eq!(short["verdict"], "faster", "{short}");
    assert!(short["speedup_mean"]["low"].as_f64() > Some(1.0));
    assert!(short["sentence"].as_str().unwrap().contains("B is faster"));
    assert_eq!(of(&compared, "more")["verdict"], "too_few_flows");
    let text = run(&folder, &["compare", "b", "a", "--json"]);
    let compared: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(of(&compared, "6-10")["verdict"], "slower");
    let text = run(&folder, &["compare", "a", "a", "--json"]);
    let compared: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(of(&compared, "all")["verdict"], "no_difference");
    assert_eq!(of(&compared, "all")["ks_distance"], 0.0);
    assert!(run(&folder, &["compare", "a", "a"]).contains("no difference that this data supports"));
}

#[test]
fn one_tap_on_both_ports_gives_the_error_bound_of_the_rig() {
    let folder = folder("calibrate");
    captures(&folder, 10_000_000);
    // The same packets, stamped by another port: up to 90 ns off, on both sides.
    let bytes = std::fs::read(folder.join("ingress.pcap")).unwrap();
    let mut other = bytes.clone();
    let records = (bytes.len() - 24) / 70;
    for record in 0..records {
        let at = 24 + record * 70 + 4;
        let ns = u32::from_le_bytes(other[at..at + 4].try_into().unwrap());
        let off = (record % 10) as i64 * 20 - 90;
        let moved = (i64::from(ns) + off).clamp(0, 999_999_999) as u32;
        other[at..at + 4].copy_from_slice(&moved.to_le_bytes());
    }
    std::fs::write(folder.join("port2.pcap"), other).unwrap();
    let arguments = ["calibrate", "--ingress", "ingress.pcap", "--egress", "port2.pcap"];
    let text = run(&folder, &[&arguments[..], &["--json", "--output", "rig.json"]].concat());
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["packets"], records);
    assert_eq!([&found["difference_ns"]["min"], &found["difference_ns"]["max"]], [-90, 90]);
    assert_eq!(found["error_bound_ns"], 90);
    let text = run(&folder, &[&PCAP[..], &["--calibration", "rig.json", "--flows", "f"]].concat());
    let results: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(results["error_bound"]["ns"], 90);
    let flows = std::fs::read_to_string(folder.join("f")).unwrap();
    assert!(flows.lines().all(|line| line.contains("\"error_bound_ns\":90")));
}

/// A Python that has pyarrow: Debian's has not, so `scripts/install-dependencies --test` makes one under `target/`;
/// `PYARROW_PYTHON` names another. When there is none, and there must be, the test fails.
fn python_with_pyarrow() -> Option<PathBuf> {
    let named = std::env::var_os("PYARROW_PYTHON").map(PathBuf::from);
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python");
    let found = named.into_iter().chain([ours, "/usr/bin/python3".into()]).find(|python| {
        let found = Command::new(python).args(["-c", "import pyarrow.parquet"]).output();
        found.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        assert!(
            std::env::var("REQUIRE_ORACLES").as_deref() != Ok("1"),
            "no Python has pyarrow, and REQUIRE_ORACLES=1 demands it: scripts/install-dependencies --test"
        );
        let note =
            "\n=== SKIPPED: no pyarrow (scripts/install-dependencies --test installs it) ===\n";
        std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).ok();
    }
    found
}

#[test]
fn pyarrow_reads_packets_and_flows_as_they_were_told() {
    let Some(python) = python_with_pyarrow() else { return };
    let folder = folder("parquet");
    captures(&folder, 10_000_000);
    let files = ["--packets-parquet", "p.parquet", "--flows-parquet", "f.parquet", "--flows", "f"];
    let text = run(&folder, &[&PCAP[..], &files].concat());
    std::fs::write(folder.join("results.json"), text).unwrap();
    let script = r#"
import json, collections
import pyarrow.parquet as pq
results = json.load(open("results.json"))
packets = pq.read_table("p.parquet").to_pylist()
count = results["packets"]
tap = lambda name: collections.Counter(row[name + "_class"] for row in packets if row[name + "_class"])
assert sum(tap("ingress").values()) == count["ingress"] and sum(tap("egress").values()) == count["egress"]
assert tap("ingress")["matched"] == tap("egress")["matched"] == count["matched"]
assert tap("ingress")["lost"] == count["lost"] and tap("egress")["unmatched"] == count["unmatched"]
delays = sorted(row["delay_ns"] for row in packets if row["delay_ns"] is not None)
assert len(delays) == results["delay_ns"]["samples"]
assert delays[0] == results["delay_ns"]["min"] and delays[-1] == results["delay_ns"]["max"]
for row in packets:
    if row["ingress_class"] == "matched":
        assert row["egress_ns"] - row["ingress_ns"] == row["delay_ns"]
lines = [json.loads(line) for line in open("f")]
flows = pq.read_table("f.parquet").to_pylist()
assert len(lines) == len(flows) == 120
for line, row in zip(lines, flows):
    line["lanes"] = ", ".join(line["lanes"])
    assert line == row, (line, row)
of_flow = collections.Counter(row["flow"] for row in packets if row["ingress_class"])
assert all(of_flow[row["flow"]] == row["packets_ingress"] for row in flows)
"#;
    let output = Command::new(python).current_dir(&folder).args(["-c", script]).output();
    let output = output.expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_hdr_log_holds_every_delay() {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let folder = folder("hdr");
    captures(&folder, 10_000_000);
    let text = run(&folder, &[&PCAP[..], &["--hdr", "delay.hlog"]].concat());
    let results: Value = serde_json::from_str(&text).expect("JSON");
    let log = std::fs::read(folder.join("delay.hlog")).unwrap();
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.expect("a log entry") {
            let tag = interval.tag().map(|tag| tag.as_str().to_owned());
            let text = base64(interval.encoded_histogram());
            let histogram: hdrhistogram::Histogram<u64> =
                Deserializer::new().deserialize(&mut &text[..]).expect("a histogram");
            found.push((tag.expect("a tag"), histogram));
        }
    }
    assert_eq!(
        found.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(),
        ["forward", "reverse"]
    );
    let forward = &found[0].1;
    assert_eq!(Some(forward.len()), results["delay_ns"]["samples"].as_u64());
    let max = results["delay_ns"]["max"].as_u64().unwrap();
    assert!(forward.max().abs_diff(max) <= max / 1000);
}

/// RFC 4648 section 4.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = group.iter().fold(0, |word, &byte| word << 6 | digit(byte));
        let word = word << (6 * (4 - group.len()));
        bytes.extend(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}
