//! Golden cases: every folder of `cases/` is a sentence about the splitter, with the captures that go in
//! and those that have to come out, and a `case.toml` that says which DSCP each packet leaves with, every
//! counter of the report and every flow.
//!
//! A case of routed mode names every frame that leaves either port instead, and the counters that are not zero; its
//! gateway is that of `cases/routed.toml` with the lanes of the case.
//!
//! `cases/make.py` makes the captures with scapy. `REGENERATE=1` runs it first (read the diff before you
//! keep it); `CASE=part-of-a-name` leaves out the other cases; `REQUIRE_ORACLES=1` makes it a failure that
//! scapy or tshark is not installed.

mod capture;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use capture::Record;
use etherparse::{LaxNetSlice, LaxSlicedPacket};
use serde::Deserialize;
use serde_json::Value;

/// Debian's own Python, which is the one that python3-scapy is for.
const PYTHON: &str = "/usr/bin/python3";

/// What `case.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    /// Why the case exists.
    about: String,
    /// Options of `lanesplit-replay run` beside the files.
    #[serde(default)]
    arguments: Vec<String>,
    /// A configuration file.
    config: Option<String>,
    /// Of routed mode.
    #[serde(default)]
    routed: bool,
    /// The flow label of outer IPv6 headers and the source port of outer UDP may be anything that tells flows apart.
    #[serde(default)]
    any_entropy: bool,
    /// The DSCP of each packet on its way out, as in `40*18 10 -`; `-` stays as it is. Not of routed mode.
    #[serde(default)]
    dscp: String,
    /// Every counter of the report; in routed mode those that are not zero.
    expect: Value,
    /// The flows, in the order of their first packets.
    #[serde(default, rename = "flow")]
    flows: Vec<Value>,
}

impl Statement {
    fn dscp(&self) -> Vec<Option<u8>> {
        let words = self.dscp.split_whitespace();
        words
            .flat_map(|word| {
                let (times, mark) = word.rsplit_once('*').unwrap_or(("1", word));
                let mark = (mark != "-").then(|| mark.parse().expect("a DSCP"));
                vec![mark; times.parse().expect("how many packets")]
            })
            .collect()
    }
}

/// A case after the program has run.
struct Case {
    name: String,
    folder: PathBuf,
    statement: Statement,
    /// Where the program wrote.
    scratch: PathBuf,
    exit: Option<i32>,
    stderr: String,
}

impl Case {
    fn run(name: String) -> Case {
        let folder = cases_folder().join(&name);
        let text = fs::read_to_string(folder.join("case.toml")).expect("case.toml");
        let statement: Statement =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{name}/case.toml: {error}"));
        let scratch = capture::scratch(&format!("cases/{name}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lanesplit-replay"));
        command.arg("run").args(&statement.arguments);
        if let Some(config) = &statement.config {
            let path = scratch.join("lanesplit.toml");
            let site = match statement.routed {
                true => {
                    fs::read_to_string(cases_folder().join("routed.toml")).expect("routed.toml")
                }
                false => String::new(),
            };
            fs::write(&path, site + config).expect("configuration");
            command.arg("--config").arg(path);
        }
        if !statement.routed || find_lan_in(&folder).is_some() {
            command.arg("--lan-in").arg(lan_in(&folder));
        }
        if folder.join("wan-in.pcap").exists() {
            command.arg("--wan-in").arg(folder.join("wan-in.pcap"));
        }
        if folder.join("lan-out.pcap").exists() {
            command.arg("--lan-out").arg(scratch.join("lan-out.pcap"));
        }
        command.arg("--wan-out").arg(scratch.join("out.pcap"));
        command.arg("--flows").arg(scratch.join("flows.jsonl"));
        command.arg("--report").arg(scratch.join("report.json"));
        let output = command.output().expect("lanesplit-replay");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Case { name, folder, statement, scratch, exit: output.status.code(), stderr }
    }

    /// Everything that is not as the case says.
    fn failures(&self) -> Vec<String> {
        if self.exit != Some(0) {
            return vec![format!("exit status {:?}\n{}", self.exit, self.stderr)];
        }
        let mut failures = self.frames("out.pcap");
        if self.folder.join("lan-out.pcap").exists() {
            failures.extend(self.frames("lan-out.pcap"));
        }
        failures.extend(self.report());
        failures.extend(self.flows());
        failures
    }

    fn frames(&self, file: &str) -> Vec<String> {
        let mut expected = capture::read(&self.folder.join(file));
        let mut found = capture::read(&self.scratch.join(file));
        let mut failures = Vec::new();
        if self.statement.any_entropy {
            for record in &mut found {
                let missing = hide_entropy(&mut record.kept).err();
                failures.extend(missing.map(|what| format!("{file}: {what}")));
            }
            // What scapy wrote there is not asked of the gateway.
            for record in &mut expected {
                let _ = hide_entropy(&mut record.kept);
            }
        }
        if expected.len() != found.len() {
            failures.push(format!("{file}: {} packets, not {}", found.len(), expected.len()));
        }
        for (number, (expected, found)) in expected.iter().zip(&found).enumerate() {
            if expected != found {
                let difference = difference(["expected", "found"], expected, found);
                failures.push(format!("{file}: packet {}\n{difference}", number + 1));
            }
        }
        failures
    }

    fn report(&self) -> Vec<String> {
        let text = fs::read_to_string(self.scratch.join("report.json")).expect("report");
        let report: Value = serde_json::from_str(&text).expect("report");
        let mut failures = unbalanced(&report);
        let mut expected = counters(&self.statement.expect);
        let mut found = counters(&report);
        if self.statement.routed {
            // A lane of which nothing is expected is an empty table.
            expected.retain(|_, value| value != "{}");
            found.retain(|name, value| value != "0" || expected.contains_key(name));
        }
        for name in expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)))
        {
            if expected.get(name) != found.get(name) {
                let say =
                    |value: Option<&String>| value.map_or("not named", |value| value).to_owned();
                let (found, expected) = (say(found.get(name)), say(expected.get(name)));
                failures.push(format!("counter {name}: {found}, expected {expected}"));
            }
        }
        failures
    }

    fn flows(&self) -> Vec<String> {
        let text = fs::read_to_string(self.scratch.join("flows.jsonl")).expect("flows");
        let found = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
        let found: Vec<Value> = found.collect();
        let expected = self.statement.flows.iter().cloned().map(|mut flow| {
            let members = flow.as_object_mut().expect("a table");
            members.entry("promoted_at_ns").or_insert(Value::Null);
            flow
        });
        let expected: Vec<Value> = expected.collect();
        let longest = expected.len().max(found.len());
        (0..longest)
            .filter(|&number| expected.get(number) != found.get(number))
            .map(|number| {
                let say = |flow: Option<&Value>| flow.map_or("none".into(), Value::to_string);
                let (expected, found) = (say(expected.get(number)), say(found.get(number)));
                format!("flow {}\n  expected {expected}\n  found    {found}", number + 1)
            })
            .collect()
    }
}

/// Every case, run once for all tests.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    if env::var_os("REGENERATE").is_some_and(|value| value == "1") {
        let made = Command::new(PYTHON).arg(cases_folder().join("make.py")).status();
        assert!(made.expect("python3").success(), "cases/make.py failed");
    }
    let wanted = env::var("CASE").unwrap_or_default();
    let entries = fs::read_dir(cases_folder()).expect("cases");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("cases"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a name in ASCII"))
        .filter(|name| !name.starts_with(['.', '_']) && name.contains(&wanted))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no case has {wanted:?} in its name");
    names.into_iter().map(Case::run).collect()
});

/// Cases of inline mode: one packet out for each in.
fn inline_cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| !case.statement.routed)
}

#[test]
fn every_case_gives_its_frames_its_counters_and_its_flows() {
    let failures = CASES.iter().flat_map(|case| {
        let failures = case.failures().into_iter();
        failures.map(|failure| format!("{}: {failure}", case.name))
    });
    fail_with(failures.collect());
}

#[test]
fn every_case_says_why_it_exists_and_which_dscp_each_packet_has() {
    for case in CASES.iter() {
        assert!(case.statement.about.trim().ends_with('.'), "{}: about is no sentence", case.name);
    }
    for case in inline_cases() {
        let packets = capture::read(&case.folder.join("out.pcap")).len();
        assert_eq!(case.statement.dscp().len(), packets, "{}: dscp", case.name);
    }
}

/// By etherparse, which shares no line with the splitter.
#[test]
fn nothing_changes_but_dscp_and_its_checksum() {
    let mut failures = Vec::new();
    let compressed = |case: &&Case| lan_in(&case.folder).extension() == Some("gz".as_ref());
    for case in inline_cases().filter(|case| !compressed(case)) {
        let received = capture::read(&lan_in(&case.folder));
        let sent = capture::read(&case.scratch.join("out.pcap"));
        for (number, (received, sent)) in received.iter().zip(&sent).enumerate() {
            let mark = case.statement.dscp()[number];
            if let Some(what) = wrong_change(&received.kept, &sent.kept, mark) {
                let difference = difference(["before", "after"], received, sent);
                failures.push(format!(
                    "{}: packet {}: {what}\n{difference}",
                    case.name,
                    number + 1
                ));
            }
        }
    }
    fail_with(failures);
}

/// By tshark: its view of times, lengths, DSCP and checksums in all that the program wrote.
#[test]
fn tshark_agrees() {
    if !installed("tshark") || !installed("mergecap") {
        return;
    }
    let merged = capture::scratch("cases-merged").join("out.pcapng");
    let outputs = inline_cases().map(|case| case.scratch.join("out.pcap"));
    let merging = Command::new("mergecap").arg("-a").arg("-w").arg(&merged).args(outputs).output();
    assert!(merging.expect("mergecap").status.success(), "mergecap failed");
    let fields = "frame.time_epoch frame.len frame.cap_len ip.dsfield.dscp ipv6.tclass.dscp ip.checksum.status";
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&merged).args([
        "-T",
        "fields",
        "-E",
        "occurrence=f",
        "-E",
        "separator=,",
    ]);
    for option in ["ip.check_checksum:TRUE", "ip.defragment:FALSE", "ipv6.defragment:FALSE"] {
        command.args(["-o", option]);
    }
    command.args(fields.split(' ').flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines();
    let mut failures = Vec::new();
    for case in inline_cases() {
        let expected = capture::read(&case.folder.join("out.pcap"));
        for (number, (record, mark)) in expected.iter().zip(case.statement.dscp()).enumerate() {
            let line = lines.next().unwrap_or_else(|| panic!("{}: tshark ends early", case.name));
            if let Some(what) = tshark_objects(line, record, mark) {
                failures.push(format!("{}: packet {}: {what}: {line}", case.name, number + 1));
            }
        }
    }
    fail_with(failures);
    assert_eq!(lines.next(), None, "tshark sees more packets than were expected");
}

/// By tshark, which follows a packet through its tunnel: nothing malformed, and no checksum wrong that it can verify.
#[test]
fn tshark_finds_nothing_wrong_with_what_a_routed_gateway_sends() {
    if !installed("tshark") || !installed("mergecap") {
        return;
    }
    let routed = || CASES.iter().filter(|case| case.statement.routed && !case.name.contains("cut"));
    let files = || {
        routed().flat_map(|case| ["out.pcap", "lan-out.pcap"].map(|file| case.scratch.join(file)))
    };
    let merged = capture::scratch("routed-cases-merged").join("out.pcapng");
    let merging = Command::new("mergecap").arg("-a").arg("-w").arg(&merged).args(files()).output();
    assert!(merging.expect("mergecap").status.success(), "mergecap failed");
    let text = checksums_by_tshark(&merged);
    let mut lines = text.lines();
    let mut failures = Vec::new();
    let mut verified = [0; LAYERS.len()];
    for path in files() {
        for number in 1..=capture::read(&path).len() {
            let line =
                lines.next().unwrap_or_else(|| panic!("{}: tshark ends early", path.display()));
            let fields: Vec<&str> = line.split(';').collect();
            let (malformed, statuses) = fields.split_first().expect("fields");
            let has = |status: &str, wanted| status.split(',').any(|one| one == wanted);
            for (count, status) in verified.iter_mut().zip(statuses) {
                *count += usize::from(has(status, "1"));
            }
            // What an ICMP error quotes is cut short, so its transport cannot be verified.
            let is_error = !statuses[0].is_empty() || !statuses[1].is_empty();
            let judged = if is_error { &statuses[..4] } else { statuses };
            if !malformed.is_empty() || judged.iter().any(|status| has(status, "0")) {
                failures.push(format!("{}: packet {number}: {line}", path.display()));
            }
        }
    }
    fail_with(failures);
    assert_eq!(lines.next(), None, "tshark sees more packets than were sent");
    assert!(verified.iter().all(|&count| count > 0), "{LAYERS:?} verified: {verified:?}");
}

/// Layers with a checksum, those first that an ICMP error has itself.
const LAYERS: [&str; 6] = ["icmp", "icmpv6", "gre", "ip", "tcp", "udp"];

/// What is malformed, and the status of each of [`LAYERS`], of every packet; several in one are set off by commas.
fn checksums_by_tshark(path: &Path) -> String {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-T", "fields", "-E", "separator=;", "-e", "_ws.malformed"]);
    for layer in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{layer}.check_checksum:TRUE")]);
    }
    for layer in ["ip", "ipv6"] {
        command.args(["-o", &format!("{layer}.defragment:FALSE")]);
    }
    for layer in LAYERS {
        command.args(["-e", &format!("{layer}.checksum.status")]);
    }
    let output = command.output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_captures_are_what_the_script_makes() {
    let scapy = Command::new(PYTHON).args(["-c", "import scapy"]).output();
    if !scapy.is_ok_and(|output| output.status.success()) {
        return missing("scapy (python3-scapy)");
    }
    LazyLock::force(&CASES);
    let checked = Command::new(PYTHON).arg(cases_folder().join("make.py")).arg("--check").output();
    let checked = checked.expect("python3");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// What is wrong between a frame before and after, by etherparse's reading of the frame before.
fn wrong_change(received: &[u8], sent: &[u8], mark: Option<u8>) -> Option<&'static str> {
    let Some(mark) = mark else {
        return (received != sent).then_some("it had to stay as it was");
    };
    let Ok(Some(net)) = LaxSlicedPacket::from_ethernet(received).map(|packet| packet.net) else {
        return Some("etherparse sees no IP header");
    };
    let mut expected = received.to_vec();
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let start = offset(received, ip.header().slice());
            expected[start + 1] = mark << 2 | received[start + 1] & 0b11;
            if sent.len() < start + 20 {
                return Some("it became shorter");
            }
            expected[start + 10..start + 12].copy_from_slice(&sent[start + 10..start + 12]);
            if checksum_is_right(&received[start..]) != checksum_is_right(&sent[start..]) {
                return Some("its checksum was right before or after, not both");
            }
        }
        LaxNetSlice::Ipv6(ip) => {
            let start = offset(received, ip.header().slice());
            let class = mark << 2 | (received[start + 1] >> 4) & 0b11;
            expected[start] = 6 << 4 | class >> 4;
            expected[start + 1] = class << 4 | received[start + 1] & 0x0f;
        }
        LaxNetSlice::Arp(_) => return Some("etherparse sees ARP"),
    }
    (expected != sent).then_some("more than the DSCP changed, or not to what was expected")
}

/// 0xffff is zero in ones' complement (RFC 1624 3).
fn checksum_is_right(header: &[u8]) -> bool {
    let slice = etherparse::Ipv4HeaderSlice::from_slice(header).expect("an IPv4 header");
    slice.header_checksum() % 0xffff == slice.to_header().calc_header_checksum() % 0xffff
}

fn offset(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - frame.as_ptr().addr()
}

/// What tshark's line of fields says against an expected record.
fn tshark_objects(line: &str, record: &Record, mark: Option<u8>) -> Option<&'static str> {
    let fields: Vec<&str> = line.split(',').collect();
    let [time, length, kept, ipv4_dscp, ipv6_dscp, checksum] = fields[..] else {
        return Some("unexpected fields");
    };
    let (seconds, rest_ns) = (record.at_ns / 1_000_000_000, record.at_ns % 1_000_000_000);
    if time != format!("{seconds}.{rest_ns:09}") {
        return Some("time");
    }
    if length != record.wire_bytes.to_string() || kept != record.kept.len().to_string() {
        return Some("length");
    }
    let mark = mark?.to_string();
    if ![ipv4_dscp, ipv6_dscp].contains(&mark.as_str()) {
        return Some("DSCP");
    }
    let bad = checksum == "0";
    let header = match LaxSlicedPacket::from_ethernet(&record.kept).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => &record.kept[offset(&record.kept, ip.header().slice())..],
        _ => return None,
    };
    (bad == checksum_is_right(header)).then_some("IPv4 checksum")
}

/// The equations that hold for every report.
fn unbalanced(report: &Value) -> Vec<String> {
    let counters = counters(report);
    let sum = |prefix: &str| -> u64 {
        let matching = counters.iter().filter(|(name, _)| name.starts_with(prefix));
        matching.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    };
    let one = |name: &str| counters.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    let ended = one("flows.expired") + one("flows.restarted") + one("flows.active");
    [
        ("received = forwarded + dropped", one("received") == one("forwarded") + sum("dropped.")),
        (
            "forwarded = short + long + untouched",
            one("forwarded") == one("short") + one("long") + sum("untouched."),
        ),
        ("created = expired + restarted + active", one("flows.created") == ended),
    ]
    .into_iter()
    .filter(|(_, holds)| !holds)
    .map(|(equation, _)| format!("does not hold: {equation}"))
    .collect()
}

/// Every leaf by its dotted name, and every empty table.
fn counters(report: &Value) -> BTreeMap<String, String> {
    fn walk(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        if let Some(elements) = value.as_array() {
            for (number, value) in elements.iter().enumerate() {
                walk(&format!("{name}.{number}"), value, into);
            }
            return;
        }
        match value.as_object().filter(|members| !members.is_empty()) {
            None => drop(into.insert(name.to_owned(), value.to_string())),
            Some(members) => {
                for (member, value) in members {
                    let dot = if name.is_empty() { "" } else { "." };
                    walk(&format!("{name}{dot}{member}"), value, into);
                }
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk("", report, &mut leaves);
    leaves
}

/// Two records: times, lengths and hex dumps, with the lines marked in which they differ.
fn difference(names: [&str; 2], left: &Record, right: &Record) -> String {
    let mut text = String::new();
    for (name, record) in names.iter().zip([left, right]) {
        let (at_ns, kept, wire_bytes) = (record.at_ns, record.kept.len(), record.wire_bytes);
        writeln!(text, "  {name:8} {at_ns} ns, {kept} of {wire_bytes} bytes").expect("a String");
    }
    let row = |record: &Record, start: usize| {
        let end = record.kept.len().min(start + 16);
        let bytes = record.kept.get(start..end).unwrap_or_default();
        bytes.iter().map(|byte| format!(" {byte:02x}")).collect::<String>()
    };
    for start in (0..left.kept.len().max(right.kept.len())).step_by(16) {
        let rows = [row(left, start), row(right, start)];
        let same = rows[0] == rows[1];
        let signs = if same { &[" "][..] } else { &["-", "+"] };
        for (sign, row) in signs.iter().zip(rows) {
            writeln!(text, "{sign} {start:04x}    {row}").expect("a String");
        }
    }
    text
}

fn fail_with(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} failures\n\n{}\n", failures.len(), failures.join("\n\n"));
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        missing(program);
    }
    found
}

fn missing(oracle: &str) {
    assert!(env::var_os("REQUIRE_ORACLES").is_none(), "{oracle} is not installed");
    eprintln!("NOT TESTED: {oracle} is not installed");
}

fn lan_in(folder: &Path) -> PathBuf {
    find_lan_in(folder).unwrap_or_else(|| panic!("{}: no in.pcap", folder.display()))
}

fn find_lan_in(folder: &Path) -> Option<PathBuf> {
    let names = ["in.pcap", "in.pcapng", "in.pcap.gz"];
    names.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

/// Blanks what may be anything in an outer header: the flow label of IPv6, the source port of UDP, and the UDP
/// checksum with it, which tshark verifies. Says when there is no entropy.
fn hide_entropy(frame: &mut [u8]) -> Result<(), &'static str> {
    let is_ipv6 = frame[12..14] == [0x86, 0xdd];
    let (protocol, payload) = if is_ipv6 { (frame[20], 54) } else { (frame[23], 34) };
    let is_udp = protocol == 17 && frame[payload + 2..payload + 4] == 4754_u16.to_be_bytes();
    if !is_udp && protocol != 47 {
        return Ok(());
    }
    let label = [frame[15] & 0x0f, frame[16], frame[17]];
    let port = u16::from_be_bytes([frame[payload], frame[payload + 1]]);
    if is_ipv6 {
        frame[15] &= 0xf0;
        frame[16..18].fill(0);
    }
    if is_udp {
        frame[payload..payload + 2].fill(0);
    }
    if is_udp && is_ipv6 {
        frame[payload + 6..payload + 8].fill(0);
    }
    if is_ipv6 && label == [0; 3] {
        Err("an outer flow label of zero (RFC 6437 section 3)")
    } else if is_udp && port < 0xc000 {
        Err("an outer source port that is not dynamic (RFC 8086 section 3.2.1)")
    } else {
        Ok(())
    }
}

fn cases_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}
