//! Captures written by scapy with planted delays, loss and whatever else befalls packets: every figure that the
//! program tells equals the planted one, to the nanosecond.
//!
//! `captures.py` plants and says what was planted; its cases have the names of the tests. `REQUIRE_ORACLES=1`
//! makes it a failure that scapy is not installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// Debian's own Python, which is the one that python3-scapy is for.
const PYTHON: &str = "/usr/bin/python3";

/// A case after the program has run.
struct Case {
    folder: PathBuf,
    expected: Value,
    results: Value,
    flows: Vec<Value>,
    stderr: String,
}

impl Case {
    /// Makes the captures and measures them; `None` when scapy is not there.
    fn run(name: &str, arguments: &[&str]) -> Option<Case> {
        if !has_scapy() {
            return None;
        }
        let folder = captures().join(name);
        let text = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
        let expected = serde_json::from_str(&text).expect("expected.json");
        let output = measure(&folder, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{:?}\n{stderr}", output.status);
        let results = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
        let flows = std::fs::read_to_string(folder.join("flows.jsonl")).expect("flows.jsonl");
        let flows =
            flows.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        Some(Case { folder, expected, results, flows, stderr })
    }

    /// Accounts, delays, delay variation and flows are the planted ones.
    fn check(&self) {
        assert_eq!(self.results["packets"], self.expected["packets"], "{}", self.stderr);
        self.check_balance();
        self.check_figures("delay_ns", &self.results["delay_ns"]);
        self.check_figures("ipdv_ns", &self.results["ipdv_ns"]);
        self.check_figures("reverse_delay_ns", &self.results["reverse"]["delay_ns"]);
        self.check_figures("reverse_ipdv_ns", &self.results["reverse"]["ipdv_ns"]);
        self.check_pdv();
        self.check_flows();
    }

    fn check_figures(&self, name: &str, found: &Value) {
        assert_eq!(found["exact"], true);
        let Some(planted) = self.expected[name].as_object() else {
            assert_eq!(found["samples"], 0, "{name}");
            return;
        };
        for (figure, planted) in planted {
            let found = &found[figure];
            let same = match planted.as_i64() {
                Some(_) => planted == found,
                None => is_close(planted, found),
            };
            assert!(same, "{name} {figure}: {found}, planted {planted}");
        }
    }

    fn check_pdv(&self) {
        let (delay, pdv) = (&self.results["delay_ns"], &self.results["pdv_ns"]);
        let Some(min) = delay["min"].as_i64() else { return };
        for figure in ["min", "p50", "p90", "p99", "p999", "p9999", "max"] {
            assert_eq!(pdv[figure].as_i64(), delay[figure].as_i64().map(|ns| ns - min), "{figure}");
        }
        let spread = delay["p95"].as_i64().zip(delay["p50"].as_i64()).map(|(a, b)| a - b);
        assert_eq!(self.results["p95_p50_ns"].as_i64(), spread);
    }

    fn check_flows(&self) {
        let planted = self.expected["flows"].as_array().expect("flows");
        for planted in planted {
            let fields = planted.as_object().expect("a flow");
            let name = ["src", "src_port", "dst", "dst_port", "protocol"];
            let found: Vec<&Value> = self
                .flows
                .iter()
                .filter(|flow| name.iter().all(|field| flow[field] == planted[field]))
                .collect();
            assert_eq!(found.len(), 1, "flows like {planted}");
            for (field, planted) in fields {
                assert_eq!(&found[0][field], planted, "{field} of {}", found[0]);
            }
        }
        if !planted.is_empty() {
            assert_eq!(planted.len(), self.flows.len(), "number of flows");
        }
    }

    fn check_balance(&self) {
        let number = |value: &Value| value.as_u64().expect("a number");
        let packets = &self.results["packets"];
        for (tap, single) in [("ingress", "lost"), ("egress", "unmatched")] {
            let found = &self.results["taps"][tap];
            let classes = number(&packets["matched"])
                + number(&packets[single])
                + number(&found["duplicate"])
                + number(&found["ambiguous"])
                + number(&packets["out_of_window"]);
            assert_eq!(classes, number(&packets[tap]), "{tap}");
        }
    }

    fn messages(&self) -> Vec<&str> {
        let messages = self.results["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["kind"].as_str().expect("a kind")).collect()
    }
}

fn is_close(planted: &Value, found: &Value) -> bool {
    match (planted.as_f64(), found.as_f64()) {
        (Some(planted), Some(found)) => (planted - found).abs() <= planted.abs() * 1e-12 + 1e-9,
        _ => planted == found,
    }
}

fn measure(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanesplit-measure"));
    command.arg("pcap").current_dir(folder);
    if !arguments.contains(&"--file") {
        command.args(["--ingress", "ingress.pcap", "--egress", "egress.pcap"]);
    }
    command.args(["--json", "--flows", "flows.jsonl"]).args(arguments);
    command.output().expect("the program runs")
}

/// The folder of all captures, made by the first test that wants one: scapy takes long to start.
fn captures() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("exact");
        let _ = std::fs::remove_dir_all(&folder);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exact/captures.py");
        let made = Command::new(PYTHON).arg(script).arg(&folder).output();
        let made = made.expect("python3 is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    })
}

/// Whether scapy is there; loud when not.
fn has_scapy() -> bool {
    let found = Command::new(PYTHON).args(["-c", "import scapy"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("REQUIRE_ORACLES").is_none(), "python3-scapy is not installed");
        eprintln!("=== SKIPPED: needs scapy (scripts/install-dependencies --test) ===");
    }
    found
}

#[test]
fn delay_and_loss_are_the_planted_ones() {
    let Some(case) = Case::run("delay_and_loss", &[]) else { return };
    case.check();
    assert_eq!(case.messages(), [""; 0]);
    // Completion times are of complete TCP flows alone, each in the class of its size.
    let mut by_class = std::collections::BTreeMap::new();
    for flow in &case.flows {
        if flow["complete"] == true {
            let packets = flow["packets_ingress"].as_u64().unwrap();
            let largest = [5, 10, 20, 40, 100, 1000];
            let names = ["1-5", "6-10", "11-20", "21-40", "41-100", "101-1000", "more"];
            let name = names[largest.partition_point(|&largest| largest < packets)];
            by_class.entry(name).or_insert_with(Vec::new).push(flow["fct_ns"].as_i64().unwrap());
        }
    }
    assert_eq!(by_class.values().map(Vec::len).sum::<usize>(), 16);
    for (name, mut times) in by_class {
        times.sort_unstable();
        let found = &case.results["fct_ns"][name];
        assert_eq!(found["flows"], times.len(), "{name}");
        let median = times[times.len().div_ceil(2) - 1];
        let expected = [times[0], median, times[times.len() - 1]];
        assert_eq!([&found["min"], &found["p50"], &found["max"]], expected.each_ref(), "{name}");
    }
    assert_eq!(case.results["flows"]["tcp_complete"], 16);
    assert_eq!(case.results["flows"]["tcp_incomplete"], 1);
    assert_eq!(case.results["incomplete_flows"]["21-40"], 1);
    assert_eq!(case.results["flows"]["udp"], 1);
}

#[test]
fn captures_of_64_bytes_a_packet_give_the_same_figures() {
    let Some(case) = Case::run("short_snap", &[]) else { return };
    case.check();
    assert_eq!(case.results["settings"]["content_bytes"], 10);
}

#[test]
fn one_file_with_both_taps_gives_the_same_figures_by_number_and_by_name() {
    let by_number =
        ["--file", "both.pcapng", "--ingress-interface", "0", "--egress-interface", "1"];
    let Some(case) = Case::run("one_file", &by_number) else { return };
    case.check();
    let by_name =
        ["--file", "both.pcapng", "--ingress-interface", "lan0", "--egress-interface", "wan0"];
    let output = measure(&case.folder, &by_name);
    let named: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(named["packets"], case.results["packets"]);
    assert_eq!(named["delay_ns"], case.results["delay_ns"]);
    let unknown =
        ["--file", "both.pcapng", "--ingress-interface", "lan0", "--egress-interface", "x"];
    let output = measure(&case.folder, &unknown);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("lan0") && stderr.contains("wan0"), "{stderr}");
}

#[test]
fn copies_of_a_mirror_are_duplicates() {
    let Some(case) = Case::run("duplicates", &[]) else { return };
    case.check();
}

#[test]
fn reordering_changes_no_figure() {
    let Some(case) = Case::run("reordering", &[]) else { return };
    case.check();
}

#[test]
fn retransmissions_are_packets_of_their_own() {
    let Some(case) = Case::run("retransmissions", &[]) else { return };
    case.check();
}

#[test]
fn packets_that_are_the_same_byte_for_byte_are_matched_in_order() {
    let Some(case) = Case::run("collisions", &[]) else { return };
    case.check();
}

#[test]
fn an_identification_that_comes_round_is_another_packet() {
    let Some(case) = Case::run("identification_wraps", &[]) else { return };
    case.check();
}

#[test]
fn both_directions_are_measured_apart() {
    let Some(case) = Case::run("both_directions", &[]) else { return };
    case.check();
    for handshake in case.expected["handshakes"].as_array().unwrap() {
        let of_client = case.flows.iter().find(|flow| flow["src"] == handshake["src"]).unwrap();
        assert_eq!(of_client["handshake_rtt_ns"], handshake["handshake_rtt_ns"], "{of_client}");
        assert_eq!(of_client["direction"], "forward");
    }
    assert_eq!(case.messages(), [""; 0]);
}

#[test]
fn packets_are_recognised_through_every_kind_of_gre() {
    let Some(case) = Case::run("tunnels", &[]) else { return };
    case.check();
    let planted = case.expected["lanes"].as_object().unwrap();
    let found = case.results["lanes"].as_array().unwrap();
    assert_eq!(found.len(), planted.len(), "{found:?}");
    for lane in found {
        assert_eq!(Some(&lane["matched"]), planted.get(lane["lane"].as_str().unwrap()), "{lane}");
    }
}

#[test]
fn tags_extension_headers_and_fragments_do_not_hide_packets() {
    let Some(case) = Case::run("tags", &[]) else { return };
    case.check();
}

#[test]
fn a_packet_is_out_of_window_one_nanosecond_after_it() {
    let Some(case) = Case::run("out_of_window", &["--window", "100ms"]) else { return };
    case.check();
}

#[test]
fn what_cannot_be_decided_is_ambiguous() {
    let Some(case) = Case::run("undecidable", &[]) else { return };
    case.check();
}

#[test]
fn random_copies_are_classed_as_a_slow_matcher_does() {
    let Some(case) = Case::run("random_copies", &["--one-way"]) else { return };
    assert_eq!(case.results["packets"], case.expected["packets"], "{}", case.stderr);
    case.check_balance();
    case.check_figures("delay_ns", &case.results["delay_ns"]);
    let negative = case.expected["negative"].as_u64().unwrap_or(0);
    assert_eq!(case.results["negative_delay_ns"]["packets"], negative);
}

#[test]
fn a_syn_with_another_number_begins_another_flow() {
    let Some(case) = Case::run("restarts", &[]) else { return };
    case.check();
    let lives = case.expected["lives"].as_array().unwrap();
    assert_eq!(case.flows.len(), lives.len());
    for (found, planted) in case.flows.iter().zip(lives) {
        for (field, planted) in planted.as_object().unwrap() {
            assert_eq!(&found[field], planted, "{field} of {found}");
        }
    }
}
