//! Network namespaces, cables between them, and commands in them.
//!
//! **Invariant.** Names carry this process's number, so laboratories run side by side, and a namespace goes when
//! its owner is dropped, with every interface in it.

use std::io::Write;
use std::process::{Command, Stdio};

use super::error::LabError;

/// Bound of every command, in seconds.
const COMMAND_SECONDS: &str = "30";

/// What all names begin with; the number of the laboratory and a role follow.
pub const PREFIX: &str = "lanesplit-lab-";

/// A network namespace, until this is dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// An empty one that says nothing unasked, with its loopback interface up.
    ///
    /// # Errors
    ///
    /// When the kernel makes none.
    pub fn new(role: &str) -> Result<Namespace, LabError> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        run(&["ip", "netns", "add", &name], "")?;
        let namespace = Namespace { name };
        namespace.sysctl(&[
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
        ])?;
        namespace.ip("link set dev lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command in it to its end and returns what it wrote.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn run(&self, command: &[&str]) -> Result<String, LabError> {
        run(&[&["ip", "netns", "exec", &self.name], command].concat(), "")
    }

    /// Commands of `ip`, a line each.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub fn ip(&self, commands: &str) -> Result<(), LabError> {
        run(&["ip", "-n", &self.name, "-batch", "-"], commands).map(drop)
    }

    /// Commands of `tc`, a line each.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub fn tc(&self, commands: &str) -> Result<(), LabError> {
        run(&["tc", "-n", &self.name, "-batch", "-"], commands).map(drop)
    }

    /// Settings of its kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not know or take one.
    pub fn sysctl(&self, settings: &[&str]) -> Result<(), LabError> {
        self.run(&[&["sysctl", "-q", "-w"], settings].concat()).map(drop)
    }

    /// Whether an address answers a ping, once, within a second.
    ///
    /// # Errors
    ///
    /// Never: a ping that fails is an answer too.
    pub fn reaches(&self, address: &str) -> Result<Option<()>, LabError> {
        let ping = self.run(&["ping", "-n", "-q", "-c", "1", "-W", "1", address]);
        Ok(ping.is_ok().then_some(()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(&["ip", "netns", "delete", &self.name], "") {
            eprintln!("lanesplit-lab: {error}");
        }
    }
}

/// Joins two namespaces by a pair of interfaces with these names, up and with offloads off: the kernel leaves
/// checksums and segments to a veth as it would to a NIC, and then what crosses it is not what a wire would carry.
///
/// # Errors
///
/// When the kernel refuses.
pub fn cable(one: (&Namespace, &str), other: (&Namespace, &str)) -> Result<(), LabError> {
    let ends = [(one.1, one.0.name()), (other.1, other.0.name())];
    let [(name, namespace), (peer, far)] = ends;
    let pair =
        format!("link add name {name} netns {namespace} type veth peer name {peer} netns {far}");
    run(&["ip", "-batch", "-"], &pair)?;
    for (namespace, interface) in [one, other] {
        let mut command = vec!["ethtool", "-K", interface];
        for feature in ["tx", "tso", "gso", "gro", "sg", "txvlan", "rxvlan"] {
            command.extend([feature, "off"]);
        }
        namespace.run(&command)?;
        // Who was asked once is not asked again in a run.
        let neighbours = format!("net.ipv4.neigh.{interface}.base_reachable_time_ms=3600000");
        namespace.sysctl(&[&neighbours])?;
        namespace.ip(&format!("link set dev {interface} up"))?;
    }
    Ok(())
}

/// Runs a command to its end, with an input, and returns what it wrote.
fn run(command: &[&str], input: &str) -> Result<String, LabError> {
    let start = |cause| LabError::Start { program: command.join(" "), cause };
    let mut child = Command::new("timeout")
        .args(["--kill-after=1", COMMAND_SECONDS])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // Shorter than a pipe is long, so this does not wait; who does not read it has failed.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let command = match input {
        "" => command.join(" "),
        _ => format!("{} <<< '{}'", command.join(" "), input.trim()),
    };
    Err(LabError::Command { command, said })
}
