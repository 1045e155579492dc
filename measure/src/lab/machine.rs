//! What another person needs to know of the machine and of the programs to do the same.

use std::fs;

/// The commit at which this was built, with `-dirty` when sources differed from it; `unknown` without git.
pub const COMMIT: &str = env!("LANESPLIT_COMMIT");

/// The kernel's release and version.
pub fn kernel() -> String {
    let read = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().to_owned();
    format!("{} {}", read("osrelease"), read("version"))
}

/// The processor by its own name, and how many cores the kernel sees.
pub fn processor() -> (String, usize) {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    (model.to_owned(), text.lines().filter(|line| line.starts_with("processor")).count())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
