//! The border against a peer that is scapy, and a judge in Python: see `border.py`. `SEED=number` mutates
//! otherwise.

use std::collections::BTreeMap;
use std::env;

use dataplane::lane::decapsulation::{Decapsulator, Refusal};
use dataplane::lane::prefixes::Prefixes;
use dataplane::lane::tunnel::Tunnel;
use dataplane::wire::buffer::Buffer;

use super::{from_hex, run, scapy_is_there, script, tunnel};

/// How many mutations, and their seed.
const SEED: &str = "4754";
const MUTATIONS: u64 = 100_000;

/// As in `border.py`.
fn tunnels() -> [Tunnel; 9] {
    [
        tunnel("192.0.2.1", "198.51.100.1", Some(0x1111_1111), false),
        tunnel("192.0.2.1", "198.51.100.1", Some(0x2222_2222), false),
        tunnel("192.0.2.2", "198.51.100.2", None, false),
        tunnel("192.0.2.1", "198.51.100.1", None, true),
        tunnel("192.0.2.2", "198.51.100.2", Some(5), true),
        tunnel("fd00:9::1", "fd00:9::2", Some(7), false),
        tunnel("fd00:9::1", "fd00:9::2", None, false),
        tunnel("fd00:9::1", "fd00:9::2", None, true),
        tunnel("fd00:9::1", "fd00:9::3", Some(6), true),
    ]
}

fn border() -> Decapsulator {
    let prefixes = |list: &[(&str, u8)]| {
        let parsed = list.iter().map(|&(text, bits)| (text.parse().expect("an address"), bits));
        Prefixes::new(&parsed.collect::<Vec<_>>()).expect("prefixes")
    };
    let sources = prefixes(&[("10.1.0.0", 16), ("172.16.4.0", 22), ("fd00:2::", 32)]);
    let destinations = prefixes(&[("10.0.0.0", 16), ("fd00:1::", 32)]);
    Decapsulator::new(&tunnels(), sources, destinations)
}

/// A line of the judge's.
struct Judged<'a> {
    wire_bytes: usize,
    frame: Vec<u8>,
    /// `lane-N`, perhaps with an alarm, or the name of a refusal.
    verdict: &'a str,
    inner: Vec<u8>,
}

impl Judged<'_> {
    fn of(line: &str) -> Judged<'_> {
        let columns: Vec<&str> = line.split(' ').collect();
        let [wire_bytes, frame, verdict, inner] = columns[..] else {
            panic!("four columns: {line}")
        };
        Judged {
            wire_bytes: wire_bytes.parse().expect("a number"),
            frame: from_hex(frame),
            verdict,
            inner: from_hex(inner),
        }
    }
}

/// What became of a frame, in the judge's words; the alarms are counters and checked as such.
fn become_of(border: &mut Decapsulator, judged: &Judged<'_>) -> (String, Vec<u8>) {
    let mut storage = judged.frame.clone();
    let mut buffer = Buffer::new(&mut storage, judged.frame.len());
    match border.decapsulate(&mut buffer, judged.wire_bytes) {
        Ok(decapsulated) => {
            assert!(decapsulated.wire_bytes >= buffer.len());
            (format!("lane-{}", decapsulated.lane), buffer[14..].to_vec())
        }
        Err(refusal) => {
            assert_eq!(&buffer[..], judged.frame, "what is refused stays as it is");
            (refusal.name().to_owned(), Vec::new())
        }
    }
}

/// Every line, and how often each verdict came.
fn compare(border: &mut Decapsulator, text: &str) -> BTreeMap<String, u64> {
    let mut verdicts = BTreeMap::new();
    for line in text.lines() {
        let judged = Judged::of(line);
        let (found, inner) = become_of(border, &judged);
        assert_eq!(found, judged.verdict.trim_end_matches('!'), "{line}");
        assert!(inner == judged.inner, "another packet came out of {line}");
        *verdicts.entry(judged.verdict.to_owned()).or_insert(0) += 1;
    }
    verdicts
}

#[test]
fn every_combination_that_scapy_sends_is_let_in() {
    if !scapy_is_there() {
        return;
    }
    let mut border = border();
    let verdicts = compare(&mut border, &run(script("border.py").arg("valid")));
    let lanes: Vec<String> = (0..tunnels().len()).map(|lane| format!("lane-{lane}")).collect();
    assert_eq!(verdicts.keys().collect::<Vec<_>>(), lanes.iter().collect::<Vec<_>>());
    assert_eq!(border.accepted(), verdicts.values().sum::<u64>());
    assert_eq!(border.refusals().total(), 0);
}

#[test]
fn mutations_are_refused_or_let_in_as_the_judge_says_each_under_its_reason() {
    if !scapy_is_there() {
        return;
    }
    let mut border = border();
    let mut mutations = script("border.py");
    let seed = env::var("SEED").unwrap_or_else(|_| SEED.to_owned());
    mutations.args(["mutations", &seed, &MUTATIONS.to_string()]);
    let verdicts = compare(&mut border, &run(&mut mutations));
    let counted = |suffix: &str| -> u64 {
        let of_lanes = verdicts.iter().filter(|(verdict, _)| verdict.starts_with("lane-"));
        of_lanes
            .filter(|(verdict, _)| verdict.trim_start_matches(|c| c != '!') == suffix)
            .map(|(_, count)| count)
            .sum()
    };
    let alarms = border.ecn_alarms();
    assert_eq!((alarms.dangerous, alarms.unused), (counted("!!!"), counted("!")));
    assert_eq!(border.accepted(), counted("") + counted("!") + counted("!!!"));
    assert_eq!(border.accepted() + border.refusals().total(), MUTATIONS);
    let mut refusals = *border.refusals();
    for &refusal in Refusal::ALL {
        let expected = verdicts.get(refusal.name()).copied().unwrap_or(0);
        assert_eq!(*refusals.of(refusal), expected, "{}", refusal.name());
        assert!(expected > 0, "no mutation was refused as {}", refusal.name());
    }
}
