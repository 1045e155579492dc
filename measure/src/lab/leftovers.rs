//! What a laboratory left that was killed before it could clean up: the next one does it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::{namespace, scratch};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// Removes namespaces of laboratories that do not run any more, with what still runs in them, and their files. What
/// cannot be removed is said, and no reason to stop.
pub fn remove() {
    for name in names(Path::new(NAMESPACES)).filter(|name| is_namespace_left(name)) {
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
    for name in names(&folder).filter(|name| is_scratch_left(name)) {
        let path = folder.join(&name);
        // What somebody else put there is not ours, whatever its name.
        if !is_own_folder(&path) {
            continue;
        }
        if let Err(cause) = fs::remove_dir_all(&path) {
            eprintln!("lanesplit-lab: {name} is left, of a laboratory that was killed: {cause}");
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether this is the name of a namespace, number and role, whose laboratory does not run.
fn is_namespace_left(name: &str) -> bool {
    let parts = name.strip_prefix(namespace::PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pid, _)| is_gone(pid))
}

/// Whether this is the name of a folder for what is no result, a number and nothing more, whose laboratory does not
/// run.
fn is_scratch_left(name: &str) -> bool {
    name.strip_prefix(scratch::PREFIX).is_some_and(is_gone)
}

/// Whether it is the number of a process that does not run.
fn is_gone(pid: &str) -> bool {
    pid.parse::<u32>()
        .is_ok_and(|number| number.to_string() == pid && !Path::new("/proc").join(pid).exists())
}

fn is_own_folder(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == Uid::effective().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any kernel numbers processes.
    const GONE: &str = "4194305";

    #[test]
    fn only_what_has_the_number_of_a_process_that_is_gone_is_left() {
        let (own, prefix) = (std::process::id(), namespace::PREFIX);
        assert!(!is_namespace_left(&format!("{prefix}{own}-client")));
        assert!(!is_namespace_left(&format!("{prefix}results")));
        assert!(!is_namespace_left(&format!("lanesplit-{GONE}-0-client")));
        assert!(is_namespace_left(&format!("{prefix}{GONE}-client")));
        assert!(!is_scratch_left(&format!("{}{own}", scratch::PREFIX)));
        assert!(is_scratch_left(&format!("{}{GONE}", scratch::PREFIX)));
    }

    #[test]
    fn a_folder_of_results_is_never_left_whatever_number_is_in_its_name() {
        for name in ["lanesplit-lab-2026-11-30", "lanesplit-lab-4194305", "lanesplit-lab-scratch"] {
            assert!(!is_scratch_left(name), "{name}");
        }
        for rest in ["4194305-11-30", "4194305-results", "+4194305", "04194305", "4194305 ", ""] {
            assert!(!is_scratch_left(&format!("{}{rest}", scratch::PREFIX)), "{rest}");
        }
    }

    #[test]
    fn a_link_or_a_file_is_no_folder_of_ours() {
        let path = std::env::temp_dir().join(format!("lab-leftovers-{}", std::process::id()));
        let (folder, link, file) = (path.join("folder"), path.join("link"), path.join("file"));
        fs::create_dir_all(&folder).expect("there is room");
        std::os::unix::fs::symlink(&folder, &link).expect("there is room");
        fs::write(&file, "").expect("there is room");
        let own = [&folder, &link, &file, &path.join("none")].map(|path| is_own_folder(path));
        fs::remove_dir_all(&path).expect("it is ours");
        assert_eq!(own, [true, false, false, false]);
    }
}
