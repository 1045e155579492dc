//! What a laboratory left that was killed before it could clean up: the next one does it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::PREFIX;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// Removes namespaces of laboratories that do not run any more, with what still runs in them, and their files. What
/// cannot be removed is said, and no reason to stop.
pub fn remove() {
    for name in names(Path::new(NAMESPACES)) {
        if !is_left(&name) {
            continue;
        }
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for pid in pids.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // Who has ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let removed = Command::new("ip").args(["netns", "delete", &name]).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("lanesplit-lab: {name} is left, of a laboratory that was killed");
        }
    }
    let folder = std::env::temp_dir();
    for name in names(&folder).into_iter().filter(|name| is_left(name)) {
        if let Err(cause) = fs::remove_dir_all(folder.join(&name)) {
            eprintln!("lanesplit-lab: {name} is left, of a laboratory that was killed: {cause}");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether this is the name of something whose laboratory does not run.
fn is_left(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let pid = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_number_of_a_process_that_is_gone_is_left() {
        let own = std::process::id();
        assert!(!is_left(&format!("{PREFIX}{own}-client")));
        assert!(!is_left(&format!("{PREFIX}{own}")));
        assert!(!is_left(&format!("{PREFIX}results")));
        assert!(!is_left("lanesplit-4194305-0-client"));
        // More than any kernel numbers processes.
        assert!(is_left(&format!("{PREFIX}4194305-client")));
        assert!(is_left(&format!("{PREFIX}4194305")));
    }
}
