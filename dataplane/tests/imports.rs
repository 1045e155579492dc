//! Imports go one way: a map of who may know whom, and a test that nobody knows more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module, and the modules of this crate that it may name. Its own parts it may always name.
const MAY_KNOW: [(&str, &[&str]); 26] = [
    ("wire", &[]),
    ("verdict", &["batch", "outbox"]),
    ("batch", &["verdict", "gateway", "wire"]),
    ("memory", &[]),
    ("clock", &[]),
    ("links", &[]),
    ("fib", &["batch"]),
    ("flow", &["wire", "verdict", "memory"]),
    ("lane", &["wire", "verdict"]),
    ("counters", &["batch", "flow", "router", "verdict"]),
    ("outbox", &["batch"]),
    ("router", &["batch", "fib", "lane", "outbox", "verdict", "wire"]),
    ("gateway", &["batch", "counters", "flow", "lane", "router", "verdict", "wire"]),
    ("port", &["batch", "wire"]),
    ("capture", &["batch"]),
    ("xdp", &["batch", "port", "wire"]),
    ("config", &["batch", "fib", "flow", "lane", "xdp"]),
    (
        "worker",
        &[
            "batch", "clock", "config", "counters", "fib", "flow", "gateway", "memory", "outbox",
            "port", "state", "verdict",
        ],
    ),
    ("preflight", &["batch", "config", "lane", "xdp"]),
    ("state", &["batch", "clock", "flow", "gateway", "lane", "privileges", "verdict", "worker"]),
    ("status", &["batch", "counters", "flow", "lane", "routes", "state", "worker", "xdp"]),
    ("control", &["status"]),
    ("privileges", &["xdp"]),
    ("routes", &["batch", "fib"]),
    ("sandbox", &["privileges"]),
    (
        "daemon",
        &[
            "batch",
            "clock",
            "config",
            "control",
            "counters",
            "fib",
            "flow",
            "gateway",
            "links",
            "port",
            "preflight",
            "privileges",
            "router",
            "routes",
            "sandbox",
            "state",
            "status",
            "worker",
            "xdp",
        ],
    ),
];

/// The modules of this crate that the files of a module name, by `crate::`.
fn named_by(module: &str) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = fs::read_to_string(source.join(format!("{module}.rs"))).unwrap_or_default();
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("a folder of the sources can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).expect("a source file is text");
            }
        }
    }
    assert!(!text.is_empty(), "the module {module} has no file");
    text.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn nobody_knows_more_than_the_map_allows() {
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_KNOW {
        for named in named_by(module) {
            if named != module && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{module} names {named}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_map_has_every_module() {
    let library = include_str!("../src/lib.rs");
    let modules: BTreeSet<&str> = library
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|line| line.trim_end_matches(';'))
        .collect();
    let mapped: BTreeMap<&str, &[&str]> = MAY_KNOW.into_iter().collect();
    assert_eq!(modules, mapped.keys().copied().collect());
}
