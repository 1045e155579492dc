//! scapy, whose packets are not of our making.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::Namespace;

/// Debian's, which has scapy; another python3 may stand before it in the path.
const PYTHON: &str = "/usr/bin/python3";

/// Whether scapy can be imported; says so when not.
///
/// # Panics
///
/// In that case, when the environment has `REQUIRE_ORACLES`.
pub fn scapy_is_there() -> bool {
    let import = Command::new(PYTHON).args(["-c", "import scapy"]).stderr(Stdio::null()).status();
    let is_there = import.is_ok_and(|status| status.success());
    assert!(
        is_there || std::env::var_os("REQUIRE_ORACLES").is_none(),
        "scapy is not installed: apt-get install python3-scapy"
    );
    if !is_there {
        eprintln!("NOT TESTED: scapy is not installed");
    }
    is_there
}

/// Runs a script beside this file in a namespace, to its end.
pub fn run(namespace: &Namespace, script: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routed").join(script);
    let path = path.to_str().expect("the paths of tests are text");
    namespace.run(&[&[PYTHON, path], arguments].concat());
}
