//! The programs that the laboratory needs: those of this project beside its own, the others in the path.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use super::error::LabError;

/// Programs of the system.
const SYSTEM: [&str; 9] =
    ["nice", "timeout", "ip", "tc", "ethtool", "sysctl", "ping", "nginx", "mgen"];

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
        let attempt = Command::new(URGENTLY[0]).args(&URGENTLY[1..]).arg("true").output();
        let may = attempt.is_ok_and(|output| output.status.success());
        Ok(Tools {
            lanesplitd: sibling("lanesplitd")?,
            measure: sibling("lanesplit-measure")?,
            lab,
            urgently: if may { URGENTLY } else { &[] },
        })
    }
}
