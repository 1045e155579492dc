//! A small laboratory for end-to-end tests: network namespaces, cables between them, real programs
//! inside.
//!
//! ```text
//!     client                      gateway                      server
//!     eth0 ---------------- lan |         | wan ---------------- eth0
//!     10.0.0.1/24                                        10.0.0.2/24
//!     fd00::1/64                                          fd00::2/64
//! ```
//!
//! **Invariants.** All names carry the test's process number, so tests run side by side. Everything
//! goes when its owner is dropped, also by a panic: processes (by their number, waited for), then
//! namespaces, and with them the interfaces. No command runs for longer than [`COMMAND_SECONDS`].
//!
//! ```no_run
//! let Some(lab) = Lab::new() else { return };
//! let line = Line::new(&lab);
//! let web = line.server.spawn(&["python3", "-m", "http.server", "80"]);
//! line.gateway.enter(|| open_the_ports());
//! line.client.run(&["ping", "-c", "1", SERVER]);
//! ```

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of the laboratory")]

mod folder;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sched::{CloneFlags, setns};
use nix::unistd::Uid;

pub use folder::Folder;

/// Address of the client of a [`Line`].
pub const CLIENT: &str = "10.0.0.1";
/// Address of the server of a [`Line`].
pub const SERVER: &str = "10.0.0.2";
/// The same for IPv6.
pub const CLIENT_V6: &str = "fd00::1";
/// The same for IPv6.
pub const SERVER_V6: &str = "fd00::2";

/// Bound of every command, in seconds.
pub const COMMAND_SECONDS: &str = "60";

/// What makes names unique: one for each test.
pub struct Lab {
    prefix: String,
}

impl Lab {
    /// None, with a loud word, where namespaces cannot be made.
    ///
    /// # Panics
    ///
    /// In that case, when the environment says `REQUIRE_NETNS=1`.
    pub fn new() -> Option<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Lab { prefix: format!("lanesplit-{}-{number}", std::process::id()) };
        let Err(reason) = lab.try_out() else { return Some(lab) };
        assert!(
            env::var("REQUIRE_NETNS").as_deref() != Ok("1"),
            "no network namespaces, and REQUIRE_NETNS=1 demands them: {reason}"
        );
        // Past the capture of the test harness, so that it is seen.
        let thread = thread::current();
        let test = thread.name().unwrap_or("a test");
        let note = format!("\n=== SKIPPED: {test}: no network namespaces here ({reason}) ===\n");
        std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).ok();
        None
    }

    fn try_out(&self) -> Result<(), String> {
        if !Uid::effective().is_root() {
            return Err("not root".to_owned());
        }
        let name = format!("{}-probe", self.prefix);
        let output = bounded(&["ip", "netns", "add", &name]).map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        drop(Namespace { name });
        Ok(())
    }

    /// An empty namespace with its loopback interface up.
    pub fn namespace(&self, role: &str) -> Namespace {
        let namespace = Namespace { name: format!("{}-{role}", self.prefix) };
        run(&["ip", "netns", "add", &namespace.name]);
        // No router solicitations, no address configuration, no waiting for duplicate addresses.
        let settings: Vec<String> =
            ["autoconf=0", "accept_ra=0", "accept_dad=0", "router_solicitations=0"]
                .iter()
                .flat_map(|setting| {
                    ["all", "default"].map(|scope| format!("net.ipv6.conf.{scope}.{setting}"))
                })
                .collect();
        let mut command = vec!["sysctl", "-q", "-w"];
        command.extend(settings.iter().map(String::as_str));
        namespace.run(&command);
        namespace.run(&["ip", "link", "set", "dev", "lo", "up"]);
        namespace
    }
}

/// A network namespace, until this is dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command to its end and returns what it wrote to standard output.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.try_run(command);
        success(command, &output)
    }

    /// Runs a command to its end, which may be a failure.
    pub fn try_run(&self, command: &[&str]) -> Output {
        bounded(&self.inside(command)).expect("timeout(1) is installed")
    }

    /// Starts a command that ends when the returned value is dropped, at the latest.
    pub fn spawn(&self, command: &[&str]) -> Process {
        self.spawn_with(command, &[])
    }

    /// The same, with additions to its environment.
    pub fn spawn_with(&self, command: &[&str], environment: &[(&str, &str)]) -> Process {
        let inside = self.inside(command);
        let child = Command::new(inside[0])
            .args(&inside[1..])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
        Process { child }
    }

    /// Runs `work` on a thread in this namespace. Sockets opened there stay in it, wherever they
    /// go.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let namespace = File::open(path).expect("the namespace exists");
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Gives an interface an address, such as "10.0.0.1/24".
    pub fn address(&self, interface: &str, address: &str) {
        let mut command = vec!["ip", "address", "add", address, "dev", interface];
        if address.contains(':') {
            command.push("nodad");
        }
        self.run(&command);
    }

    /// An interface's MAC address, as text.
    pub fn mac(&self, interface: &str) -> String {
        let text = self.run(&["ip", "-brief", "link", "show", "dev", interface]);
        text.split_whitespace().nth(2).expect("the third column").to_owned()
    }

    fn inside<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        let mut inside = vec!["ip", "netns", "exec", &self.name];
        inside.extend_from_slice(command);
        inside
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // During a panic nothing more can be done about a failure.
        let _ = bounded(&["ip", "netns", "delete", &self.name]);
    }
}

/// A running command. It is killed when this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end with SIGTERM and waits, no longer than `bound`.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub fn terminate(&mut self, bound: Duration) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is our child");
        let mut status = None;
        wait_for("the process to end", bound, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Client, gateway and server in a line. The client's and the server's cables have checksum and
/// segmentation offloads off, so that what crosses them are the packets a wire would carry.
pub struct Line {
    /// Has `eth0`.
    pub client: Namespace,
    /// Has `lan` and `wan`, up, without addresses.
    pub gateway: Namespace,
    /// Has `eth0`.
    pub server: Namespace,
}

impl Line {
    /// As in the figure.
    pub fn new(lab: &Lab) -> Line {
        let line = Line {
            client: lab.namespace("client"),
            gateway: lab.namespace("gateway"),
            server: lab.namespace("server"),
        };
        cable((&line.client, "eth0"), (&line.gateway, "lan"));
        cable((&line.server, "eth0"), (&line.gateway, "wan"));
        line.client.address("eth0", &format!("{CLIENT}/24"));
        line.client.address("eth0", &format!("{CLIENT_V6}/64"));
        line.server.address("eth0", &format!("{SERVER}/24"));
        line.server.address("eth0", &format!("{SERVER_V6}/64"));
        line
    }

    /// Joins the gateway's two ports with the kernel's bridge `bridge0`.
    pub fn bridge(&self) {
        let gateway = &self.gateway;
        gateway.run(&["ip", "link", "add", "name", "bridge0", "type", "bridge"]);
        for port in ["lan", "wan"] {
            gateway.run(&["ip", "link", "set", "dev", port, "master", "bridge0"]);
        }
        gateway.run(&["ip", "link", "set", "dev", "bridge0", "up"]);
    }

    /// Whether the server answers the client's ping, once, within a second.
    pub fn answers(&self) -> bool {
        let ping = ["ping", "-n", "-q", "-c", "1", "-W", "1", SERVER];
        self.client.try_run(&ping).status.success()
    }
}

/// Joins two namespaces by a pair of interfaces with these names, up and with offloads off.
pub fn cable(one: (&Namespace, &str), other: (&Namespace, &str)) {
    run(&[
        "ip",
        "link",
        "add",
        one.1,
        "netns",
        &one.0.name,
        "type",
        "veth",
        "peer",
        "name",
        other.1,
        "netns",
        &other.0.name,
    ]);
    for (namespace, interface) in [one, other] {
        offloads_off(namespace, interface);
        namespace.run(&["ip", "link", "set", "dev", interface, "up"]);
    }
}

/// The kernel leaves checksums, segments and VLAN tags to a veth as it would to a NIC, which a
/// program that sees bytes alone cannot make good.
fn offloads_off(namespace: &Namespace, interface: &str) {
    let mut command = vec!["ethtool", "-K", interface];
    for feature in ["tx", "tso", "gso", "gro", "sg", "txvlan", "rxvlan"] {
        command.extend([feature, "off"]);
    }
    namespace.run(&command);
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within `bound`.
pub fn wait_for(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < end, "waited {bound:?} for {what}, in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command outside of all namespaces.
fn run(command: &[&str]) -> String {
    let output = bounded(command).expect("timeout(1) is installed");
    success(command, &output)
}

fn success(command: &[&str], output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
        output.status
    );
    stdout.into_owned()
}

fn bounded(command: &[&str]) -> std::io::Result<Output> {
    Command::new("timeout")
        .args(["--kill-after=1", COMMAND_SECONDS])
        .args(command)
        .stdin(Stdio::null())
        .output()
}

/// The words of a command without spaces in any of them.
pub fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

/// A path as the text that a command line wants.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are text")
}

/// Ends a test: nothing may be left, no process in its namespaces, then no namespace and no file.
pub fn close(namespaces: Vec<Namespace>, folder: Folder) {
    let names: Vec<String> = namespaces.iter().map(|one| one.name().to_owned()).collect();
    for name in &names {
        let left = output(&["ip", "netns", "pids", name]);
        assert!(left.is_empty(), "still running in {name}: {left}");
    }
    let path = folder.path().to_owned();
    drop((namespaces, folder));
    let left = output(&["ip", "netns", "list"]);
    assert!(!names.iter().any(|name| left.contains(name.as_str())), "still there: {left}");
    assert!(!path.exists(), "{} is still there", path.display());
}

fn output(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("it is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
