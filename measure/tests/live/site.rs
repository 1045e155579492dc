//! A WAN with a tap at each end.
//!
//! ```text
//!   client          near             far           server
//!    eth0 ---- lan [br0] mid ---- dim [br0] wan ---- eth0
//!   10.0.0.1    |                        |         10.0.0.2
//!            mirror                    mirror
//!               |        measuring       |
//!              tap0 ----- program ----- tap1
//! ```
//!
//! 10.0.0.9 is nobody: packets for it go to the server, which drops them and does not say so.
//!
//! Both directions of a cable go to its tap. What `mid` and `dim` send can be slowed down (`tbf`), and then queues
//! between the taps.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{Lab, Namespace, cable, wait_for};

/// Whatever a test waits for comes sooner.
pub const BOUND: Duration = Duration::from_secs(60);

pub struct Site {
    pub client: Namespace,
    pub near: Namespace,
    pub far: Namespace,
    pub server: Namespace,
    pub measuring: Namespace,
    folder: PathBuf,
}

impl Site {
    /// As in the figure; `None` where there are no namespaces.
    pub fn new() -> Option<Site> {
        let lab = Lab::new()?;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", "-");
        let folder = format!("{}/live/{test}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        fs::create_dir_all(&folder).expect("the test's folder can be created");
        let site = Site {
            client: lab.namespace("client"),
            near: lab.namespace("near"),
            far: lab.namespace("far"),
            server: lab.namespace("server"),
            measuring: lab.namespace("measuring"),
            folder: folder.into(),
        };
        let Site { client, near, far, server, measuring, .. } = &site;
        // Nobody speaks unasked.
        for namespace in [client, near, far, server, measuring] {
            for scope in ["all", "default"] {
                let setting = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
                namespace.run(&["sysctl", "-q", "-w", &setting]);
            }
        }
        cable((client, "eth0"), (near, "lan"));
        cable((near, "mid"), (far, "dim"));
        cable((far, "wan"), (server, "eth0"));
        cable((near, "mirror0"), (measuring, "tap0"));
        cable((far, "mirror1"), (measuring, "tap1"));
        for (namespace, ports) in [(near, ["lan", "mid"]), (far, ["dim", "wan"])] {
            namespace.run(&[
                "ip",
                "link",
                "add",
                "name",
                "br0",
                "type",
                "bridge",
                "mcast_snooping",
                "0",
            ]);
            for port in ports {
                namespace.run(&["ip", "link", "set", "dev", port, "master", "br0"]);
            }
            namespace.run(&["ip", "link", "set", "dev", "br0", "up"]);
        }
        for (namespace, port) in [(near, "lan"), (far, "wan")] {
            namespace.run(&["tc", "qdisc", "add", "dev", port, "clsact"]);
        }
        site.mirror();
        for (host, other, last) in [(client, server, 1), (server, client, 2)] {
            host.address("eth0", &format!("10.0.0.{last}/24"));
            let mac = other.mac("eth0");
            let address = format!("10.0.0.{}", 3 - last);
            // Nothing is asked, so every packet on the cables is the test's.
            for address in [&address, "10.0.0.9"] {
                host.run(&["ip", "neighbour", "add", address, "lladdr", &mac, "dev", "eth0"]);
            }
        }
        Some(site)
    }

    /// Has both directions of both cables copied to the mirrors.
    pub fn mirror(&self) {
        mirror(&self.near, "lan", "mirror0");
        mirror(&self.far, "wan", "mirror1");
    }

    /// The same when the mirrors were made anew: the kernel still knows the old ones.
    pub fn mirror_again(&self) {
        for (namespace, port) in [(&self.near, "lan"), (&self.far, "wan")] {
            for direction in ["ingress", "egress"] {
                namespace.run(&["tc", "filter", "delete", "dev", port, direction]);
            }
        }
        self.mirror();
    }

    /// Runs the program to its end, beside one that was started.
    pub fn second(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_lanesplit-measure");
        self.measuring.try_run(&[&[program][..], arguments].concat())
    }

    /// Slows both directions between the taps down, with a queue.
    pub fn slow(&self, rate: &str) {
        for (namespace, device) in [(&self.near, "mid"), (&self.far, "dim")] {
            let tbf = ["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", rate];
            let queue = ["burst", "4000", "limit", "4000000"];
            namespace.run(&[&tbf[..], &queue[..]].concat());
        }
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts `lanesplit-measure live` and waits until it listens.
    pub fn measure(&self, arguments: &[&str]) -> Measuring<'_> {
        let flows = self.file("flows.jsonl");
        let flows = text(&flows);
        self.start(&[&["live", "--json", "--flows", flows][..], arguments].concat())
    }

    /// Starts the program and waits until it listens.
    pub fn start(&self, arguments: &[&str]) -> Measuring<'_> {
        let (output, log) = (self.file("results.json"), self.file("log"));
        let create = |path: &Path| File::create(path).expect("the folder can be written to");
        let child = Command::new("ip")
            .args(["netns", "exec", self.measuring.name(), env!("CARGO_BIN_EXE_lanesplit-measure")])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(create(&output))
            .stderr(create(&log))
            .spawn()
            .expect("ip is installed");
        let mut measuring = Measuring { child, site: self };
        wait_for("the taps to be listened to", BOUND, || {
            measuring.log().contains("listening") || !measuring.runs()
        });
        measuring
    }

    /// UDP packets from client to nobody, `count` of them with the port as their flow.
    pub fn send(&self, port: u16, count: u32) {
        let script = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
             for n in range(int(sys.argv[2])): s.sendto(b'%032d'%n,('10.0.0.9',int(sys.argv[1])))";
        let (port, count) = (port.to_string(), count.to_string());
        self.client.run(&["python3", "-c", script, &port, &count]);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The running program. It is killed when this is dropped.
pub struct Measuring<'s> {
    child: Child,
    site: &'s Site,
}

/// What it left.
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
    pub results: Value,
    pub flows: Vec<Value>,
}

impl Measuring<'_> {
    /// What it has said on standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.site.file("log")).unwrap_or_default()
    }

    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is our child");
    }

    /// Ends it with SIGTERM.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for it to be gone, with whatever it wrote.
    pub fn wait_for_exit(mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the program to end", BOUND, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> Ended {
        let mut status = None;
        wait_for("the program to end", BOUND, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        let results = fs::read_to_string(self.site.file("results.json")).unwrap_or_default();
        let flows = fs::read_to_string(self.site.file("flows.jsonl")).unwrap_or_default();
        let json = |line: &str| serde_json::from_str(line).expect("it writes JSON");
        Ended {
            status: status.expect("it has ended"),
            log: self.log(),
            results: if results.is_empty() { Value::Null } else { json(&results) },
            flows: flows.lines().map(json).collect(),
        }
    }
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// A number of the accounts.
    pub fn packets(&self, name: &str) -> u64 {
        self.results["packets"][name].as_u64().unwrap_or_else(|| panic!("{name}: {}", self.log))
    }

    /// Whether a message of this kind was given.
    pub fn says(&self, kind: &str) -> bool {
        let messages = self.results["messages"].as_array();
        messages.is_some_and(|all| all.iter().any(|message| message["kind"] == kind))
    }

    /// Of a tap.
    pub fn tap(&self, name: &str) -> &Value {
        &self.results["taps"][name]
    }

    /// Asserts that each tap's frames are all accounted for, down to what the kernel had for it.
    pub fn assert_balance(&self) {
        for name in ["ingress", "egress"] {
            let tap = self.tap(name);
            let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{tap:#}"));
            let live = &tap["live"];
            let read =
                number(&tap["frames"]) + number(&live["before_start"]) + number(&live["after_end"]);
            assert_eq!(number(&live["kernel_frames"]), read + number(&live["dropped"]), "{tap:#}");
            let stamps = &tap["stamps"];
            assert_eq!(stamps["hardware"], 0, "a veth has no hardware: {tap:#}");
            assert_eq!(stamps["file"], 0);
            let stamped: u64 = ["software", "driver"].iter().map(|by| number(&stamps[by])).sum();
            assert_eq!(stamped, number(&tap["frames"]), "{tap:#}");
        }
    }
}

/// Both directions of `port` are copied to `mirror`.
fn mirror(namespace: &Namespace, port: &str, mirror: &str) {
    for direction in ["ingress", "egress"] {
        let filter = ["tc", "filter", "add", "dev", port, direction, "protocol", "all"];
        let action = [
            "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", mirror,
        ];
        namespace.run(&[&filter[..], &action[..]].concat());
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("the test's names are ASCII")
}

/// Whether a program is installed; when not, and it must be, the test fails.
pub fn has(program: &str) -> bool {
    there(program, &format!("command -v {program}"))
}

/// The same for scapy, of Debian's own Python.
pub fn has_scapy() -> bool {
    there("scapy", "/usr/bin/python3 -c 'import scapy'")
}

fn there(program: &str, try_out: &str) -> bool {
    let found = Command::new("sh").args(["-c", try_out]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(
        std::env::var("REQUIRE_ORACLES").as_deref() != Ok("1"),
        "{program} is not installed, and REQUIRE_ORACLES=1 demands it"
    );
    let note = format!("\n=== SKIPPED: {program} is not installed ===\n");
    std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).ok();
    false
}

/// The value at a share of sorted values.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
