//! GRE lanes against independent decoders and encoders: tshark, scapy, and a judge in Python.
//!
//! They skip loudly where tshark or scapy is not installed; `REQUIRE_ORACLES=1` makes that a failure.

mod border;
mod errors;
mod fragments;
mod sending;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dataplane::lane::tunnel::Tunnel;

/// Debian's, which has scapy; another python3 may stand before it in the path.
const PYTHON: &str = "/usr/bin/python3";

/// Whether scapy can be imported; says so when not.
fn scapy_is_there() -> bool {
    let import = Command::new(PYTHON).args(["-c", "import scapy"]).stderr(Stdio::null()).status();
    let is_there = import.is_ok_and(|status| status.success());
    is_there || missing("scapy")
}

/// Whether tshark runs; says so when not.
fn tshark_is_there() -> bool {
    let version = Command::new("tshark").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success()) || missing("tshark")
}

fn missing(oracle: &str) -> bool {
    assert!(env::var_os("REQUIRE_ORACLES").is_none(), "{oracle} is not installed");
    eprintln!("NOT TESTED: {oracle} is not installed");
    false
}

/// Standard output of a tool that has to succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// One of the scripts beside this file.
fn script(name: &str) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gre").join(name));
    command
}

/// A capture of whole Ethernet frames: classic pcap, written by hand so that none of our code is between.
fn write_capture(name: &str, frames: &[Vec<u8>]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gre");
    std::fs::create_dir_all(&folder).expect("the tests' folder");
    let path = folder.join(name);
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        for word in [number as u32, 0, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
    }
    std::fs::write(&path, bytes).expect("a capture");
    path
}

/// A tunnel without options.
fn tunnel(local: &str, remote: &str, key: Option<u32>, udp: bool) -> Tunnel {
    Tunnel {
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
        key,
        sequence: false,
        checksum: false,
        ttl: 64,
        dscp: None,
        dont_fragment: true,
        mtu_bytes: None,
        udp,
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.map(byte).collect()
}
