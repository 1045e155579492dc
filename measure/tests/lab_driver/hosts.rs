//! A client and a server.
//!
//! ```text
//!   client                    server
//!    eth0 --------------------- eth0
//!   10.0.0.1/24          10.0.0.2/24
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use measure::lab::driver::{self, Account, Plan};
use measure::lab::records::RequestRecord;
use measure::lab::web::{PLAIN_PORT, TLS_PORT, Web};
use measure::lab::workload::{Mix, TIMESTAMPS_BYTES, Wire};

use crate::lab::{CLIENT, Folder, Lab, Namespace, Process, SERVER, cable, text, wait_for};

/// Whatever a test waits for comes sooner.
pub const BOUND: Duration = Duration::from_secs(30);

pub struct Hosts {
    pub client: Namespace,
    pub server: Namespace,
    pub folder: Folder,
}

impl Hosts {
    /// As in the figure; `None` where there are no namespaces, or a program is missing.
    pub fn new() -> Option<Hosts> {
        if !["nginx", "mgen", "tcpdump", "tshark"].into_iter().all(has) {
            return None;
        }
        let lab = Lab::new()?;
        let hosts = Hosts {
            client: lab.namespace("client"),
            server: lab.namespace("server"),
            folder: Folder::new(),
        };
        cable((&hosts.client, "eth0"), (&hosts.server, "eth0"));
        hosts.client.address("eth0", &format!("{CLIENT}/24"));
        hosts.server.address("eth0", &format!("{SERVER}/24"));
        Some(hosts)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// Limits the rate of both directions, with a queue that is never full.
    pub fn slow(&self, rate: &str) {
        for host in [&self.client, &self.server] {
            let tbf = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate];
            host.run(&[&tbf[..], &["burst", "4000", "limit", "8000000"]].concat());
        }
    }

    /// Has both hosts offer a segment size that leaves so many bytes of payload, as a route with a smaller MTU would.
    pub fn limit_segments(&self, segment_bytes: u32) {
        let mss = (segment_bytes + TIMESTAMPS_BYTES).to_string();
        for (host, address) in [(&self.client, CLIENT), (&self.server, SERVER)] {
            let network = ["ip", "route", "replace", "10.0.0.0/24", "dev", "eth0", "src", address];
            host.run(&[&network[..], &["advmss", &mss]].concat());
        }
    }

    /// Starts a server for the mix `quick`, and waits until it listens.
    pub fn serve(&self, segment_bytes: u32) -> (Web, Process) {
        let address: IpAddr = SERVER.parse().expect("it is one");
        let mix = Mix::named("quick").expect("there is one");
        let web = Web::write(&self.file("web"), address, &mix, segment_bytes)
            .unwrap_or_else(|error| panic!("{error}"));
        let command = web.command();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let process = self.server.spawn(&words);
        wait_for("nginx to listen", BOUND, || {
            let sockets = self.server.run(&["ss", "-Hltn"]);
            sockets.contains(&format!(":{PLAIN_PORT} "))
                && sockets.contains(&format!(":{TLS_PORT} "))
        });
        (web, process)
    }

    /// Runs a plan on the client.
    pub fn drive(&self, plan: &Plan) -> (Account, Vec<RequestRecord>) {
        let mut records = Vec::new();
        let run = || driver::run(plan, &AtomicBool::new(false), |record| records.push(record));
        let account = self.client.enter(run).unwrap_or_else(|error| panic!("{error}"));
        records.sort_by_key(|record| record.number);
        (account, records)
    }

    /// Waits until the client has sent something, and then nothing for a while.
    pub fn client_is_silent(&self) {
        let counter = ["cat", "/sys/class/net/eth0/statistics/tx_packets"];
        let mut before = "0\n".to_owned();
        wait_for("the client to have sent all", BOUND, || {
            std::thread::sleep(Duration::from_millis(250));
            let sent = self.client.run(&counter);
            std::mem::replace(&mut before, sent.clone()) == sent && sent != "0\n"
        });
    }

    /// Starts to capture the headers of what the server's interface sees.
    pub fn capture(&self) -> Capture<'_> {
        let file = self.file("capture.pcap");
        let command = [
            "tcpdump",
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-i",
            "eth0",
            "-s",
            "96",
            "-w",
            text(&file),
        ];
        let process = self.server.spawn(&command);
        let starts = || std::fs::metadata(&file).is_ok_and(|file| file.len() >= 24);
        wait_for("tcpdump to listen", BOUND, starts);
        Capture { hosts: self, file: file.clone(), process }
    }
}

/// A plan for the mix `quick` to that server.
pub fn plan(web: Option<&Web>, wire: Wire, duration_s: f64) -> Plan {
    let port = if wire.tls { TLS_PORT } else { PLAIN_PORT };
    Plan {
        mix: "quick".into(),
        scale: 1.0,
        seed: 11,
        duration_s,
        drain_s: 20.0,
        server: SocketAddr::new(SERVER.parse().expect("it is one"), port),
        certificate: web.filter(|_| wire.tls).map(Web::certificate),
        segment_bytes: wire.segment_bytes,
        concurrent_max: 256,
    }
}

const FIN: u32 = 1;
const SYN: u32 = 2;
const RST: u32 = 4;

pub struct Capture<'a> {
    hosts: &'a Hosts,
    file: PathBuf,
    process: Process,
}

/// What passed in one direction of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub packets: u32,
    /// Of these, packets that were sent again.
    pub repeated: u32,
    /// Of these, packets that carry nothing and neither begin nor end it.
    pub acknowledgements: u32,
    /// Payload, without what was sent again.
    pub bytes: u64,
    pub resets: u32,
}

impl Capture<'_> {
    /// Ends it when everything up to now is in the file, of which a packet sent now is the sign.
    fn finish(&mut self) {
        let sign = "6c616e6573706c6974";
        self.hosts.client.run(&["ping", "-n", "-q", "-c", "1", "-s", "32", "-p", sign, SERVER]);
        wait_for("tcpdump to have written all", BOUND, || {
            let written = std::fs::read(&self.file).expect("tcpdump writes it");
            written.windows(9).rev().take(4096).any(|nine| nine == b"lanesplit")
        });
        self.process.terminate(BOUND);
    }

    /// Fields of the packets that a filter of tshark's lets through.
    pub fn fields(&mut self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        self.finish();
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r", text(&self.file), "-Y", filter, "-T", "fields"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        let output = tshark.output().expect("tshark is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("tshark writes text");
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Packets by the client's port: from the client, and from the server.
    pub fn connections(mut self) -> BTreeMap<u16, [Seen; 2]> {
        let mut connections: BTreeMap<u16, [Seen; 2]> = BTreeMap::new();
        let fields = ["ip.src", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.len"];
        let fields = [&fields[..], &["tcp.analysis.retransmission"]].concat();
        for packet in self.fields("tcp", &fields) {
            let from_server = packet[0] == SERVER;
            let port = packet[if from_server { 2 } else { 1 }].parse().expect("a port");
            let seen = &mut connections.entry(port).or_default()[usize::from(from_server)];
            seen.packets += 1;
            let flags = u32::from_str_radix(packet[3].trim_start_matches("0x"), 16).expect("flags");
            seen.resets += u32::from(flags & RST != 0);
            let repeated = !packet[5].is_empty();
            seen.repeated += u32::from(repeated);
            let bytes: u64 = packet[4].parse().expect("a length");
            seen.bytes += if repeated { 0 } else { bytes };
            let bare = bytes == 0 && flags & (SYN | FIN | RST) == 0;
            seen.acknowledgements += u32::from(bare && !repeated);
        }
        connections
    }
}

/// Whether a program is there; if not, loudly.
///
/// # Panics
///
/// When it is not, and the environment says `REQUIRE_ORACLES=1`.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
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
