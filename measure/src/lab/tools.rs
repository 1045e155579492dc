//! The programs that the laboratory needs: those of this project beside its own, the others in the path.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use super::error::LabError;
use super::process::NICENESS;

/// Programs of the system.
const SYSTEM: [&str; 10] =
    ["nice", "setpriv", "timeout", "ip", "tc", "ethtool", "sysctl", "ping", "nginx", "mgen"];

/// A gateway has its cores for itself; here two cores are everybody's. So that a packet waits for the gateway and not
/// for a web server's turn, it runs before all others; it sleeps when it has nothing to do.
const URGENTLY: &[&str] = &["chrt", "--rr", "1"];

/// Programs of this project.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The gateway.
    pub lanesplitd: PathBuf,
    /// The ruler.
    pub measure: PathBuf,
    /// This one.
    pub lab: PathBuf,
    /// What starts a program that runs before all others, if the kernel lets us.
    pub urgently: &'static [&'static str],
    /// Before what else programs run, as it is in force.
    pub priorities: String,
}

impl Tools {
    /// # Errors
    ///
    /// When this process may not, or a program is not there.
    pub fn find() -> Result<Tools, LabError> {
        if !Uid::effective().is_root() {
            return Err(LabError::NotRoot);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).collect();
        let is_there = |name: &&str| folders.iter().any(|folder| folder.join(name).is_file());
        let programs: Vec<&'static str> =
            SYSTEM.into_iter().filter(|name| !is_there(name)).collect();
        if !programs.is_empty() {
            return Err(LabError::NoTools { programs });
        }
        let lab = env::current_exe()
            .map_err(|cause| LabError::Start { program: "lanesplit-lab".into(), cause })?;
        let folder = lab.parent().unwrap_or(Path::new("/")).to_owned();
        let sibling = |name: &'static str| {
            let path = folder.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(LabError::NoSibling { name, beside: folder.clone() }),
            }
        };
        let may_urgently = said(&[URGENTLY, &["true"]].concat()).is_some();
        // nice runs what it is told to even if it may not make it nicer.
        let niceness = said(&["nice", "-n", NICENESS, "nice"]);
        Ok(Tools {
            lanesplitd: sibling("lanesplitd")?,
            measure: sibling("lanesplit-measure")?,
            lab,
            urgently: if may_urgently { URGENTLY } else { &[] },
            priorities: priorities(may_urgently, niceness.as_deref().map(str::trim)),
        })
    }
}

/// What a command writes, if it succeeds.
fn said(command: &[&str]) -> Option<String> {
    let output = Command::new(command[0]).args(&command[1..]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is in force, for the record. What was refused is said at once: figures are worse by it.
fn priorities(may_urgently: bool, niceness: Option<&str>) -> String {
    let gateways = match may_urgently {
        true => "gateways real-time (SCHED_RR 1), emulators of paths too (SCHED_FIFO 1)",
        false => "gateways and emulators of paths as all others, for real-time was refused",
    };
    let priorities = format!(
        "{gateways}, all programs of a run at niceness {}",
        niceness.unwrap_or("that nobody knows")
    );
    if !may_urgently || niceness != Some(NICENESS) {
        eprintln!(
            "lanesplit-lab: warning: {priorities}; where packets wait for a processor, delays are longer. \
             CAP_SYS_NICE and no `nice` before this command would change that"
        );
    }
    priorities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_told_as_they_are_in_force() {
        assert_eq!(
            priorities(true, Some("-10")),
            "gateways real-time (SCHED_RR 1), emulators of paths too (SCHED_FIFO 1), all programs of a run at \
             niceness -10"
        );
        let refused = priorities(false, Some("0"));
        assert!(refused.contains("real-time was refused") && refused.ends_with("niceness 0"));
    }
}
