//! What is on a host's cable, seen by tcpdump and read by tshark: programs that know nothing of ours.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::pcap::PcapReader;

use crate::lab::{Namespace, SERVER, wait_for};
use crate::site::{BOUND, Site, text};

/// tcpdump on `eth0` of a host.
pub struct Sniffer {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

/// What the last packet of a capture carries.
const MARKER: &str = "6c616e6573706c69742d656e64";

impl Sniffer {
    /// Starts it and waits until it listens.
    pub fn start(site: &Site, host: &Namespace, name: &str) -> Sniffer {
        let file = site.folder.file(&format!("{name}.pcap"));
        let log = site.folder.file(&format!("{name}.log"));
        let child = Command::new("ip")
            .args(["netns", "exec", host.name(), "tcpdump", "-n", "-i", "eth0", "-Z", "root"])
            .args(["--immediate-mode", "-U", "-B", "65536", "-s", "4000", "-w", text(&file)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder can be written to"))
            .spawn()
            .expect("tcpdump is installed");
        let sniffer = Sniffer { child, file, log };
        wait_for("tcpdump to listen", BOUND, || sniffer.words().contains("listening on"));
        sniffer
    }

    /// Ends captures when they have all that is under way: a last ping follows it both ways.
    pub fn end<const N: usize>(site: &Site, sniffers: [Sniffer; N]) -> [Capture; N] {
        let ping = ["ping", "-n", "-q", "-c", "1", "-W", "10", "-p", MARKER, SERVER];
        site.datacenter().run(&ping);
        sniffers.map(Sniffer::finish)
    }

    fn finish(mut self) -> Capture {
        let marker = b"lanesplit-end";
        wait_for("the last packet to be captured", BOUND, || {
            let bytes = fs::read(&self.file).unwrap_or_default();
            bytes.windows(marker.len()).filter(|window| window == marker).count() >= 2
        });
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("our child");
        wait_for("tcpdump to end", BOUND, || !matches!(self.child.try_wait(), Ok(None)));
        let words = self.words();
        assert!(words.contains("\n0 packets dropped by kernel"), "{words}");
        Capture { file: self.file.clone() }
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A capture file that is complete.
pub struct Capture {
    file: PathBuf,
}

/// What tshark says of a TCP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpPacket {
    /// VLAN identifier, source, destination, ports: the flow.
    pub flow: [String; 5],
    /// The six bits.
    pub dscp: u8,
    /// The two bits beside them.
    pub ecn: u8,
    /// Everything that must never change: lengths, IP identification, TCP header, TCP checksum.
    pub rest: Vec<String>,
    /// tshark's opinion of the checksums: "1" is good. IPv6 has none of its own.
    pub checksums: [String; 2],
    /// Whether tshark takes it for a retransmission.
    pub retransmission: bool,
}

impl TcpPacket {
    /// Whether it comes from the datacenter, whose addresses end with a one.
    pub fn is_outbound(&self) -> bool {
        self.flow[1].ends_with(".1") || self.flow[1].ends_with("::1")
    }
}

impl Capture {
    /// Its TCP packets, in order.
    pub fn tcp_packets(&self) -> Vec<TcpPacket> {
        const FIELDS: [&str; 23] = [
            "vlan.id",
            "ip.src",
            "ipv6.src",
            "ip.dst",
            "ipv6.dst",
            "tcp.srcport",
            "tcp.dstport",
            "ip.dsfield.dscp",
            "ipv6.tclass.dscp",
            "ip.dsfield.ecn",
            "ipv6.tclass.ecn",
            "ip.checksum.status",
            "tcp.checksum.status",
            "tcp.analysis.retransmission",
            "frame.len",
            "ip.id",
            "ip.ttl",
            "ipv6.hlim",
            "tcp.seq_raw",
            "tcp.ack_raw",
            "tcp.flags",
            "tcp.len",
            "tcp.checksum",
        ];
        let options = ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE"];
        let rows = self.tshark("tcp", &options, &FIELDS);
        rows.iter().map(|row| tcp_packet(row)).collect()
    }

    /// The values of `fields` of every packet that `filter` takes.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        self.tshark(filter, &[], fields)
    }

    /// Every frame, byte by byte, in order.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let file = File::open(&self.file).expect("tcpdump made it");
        let mut reader = PcapReader::new(file).expect("a capture file");
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.expect("whole").data().to_vec());
        }
        frames
    }

    fn tshark(&self, filter: &str, options: &[&str], fields: &[&str]) -> Vec<Vec<String>> {
        let mut tshark = Command::new("timeout");
        tshark.args(["60", "tshark", "-n", "-r", text(&self.file), "-Y", filter, "-T", "fields"]);
        tshark.args(["-E", "separator=|", "-E", "occurrence=f"]);
        for option in options {
            tshark.args(["-o", option]);
        }
        for field in fields {
            tshark.args(["-e", field]);
        }
        let output = tshark.stdin(Stdio::null()).output().expect("tshark is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let rows = String::from_utf8(output.stdout).expect("fields are text");
        rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
    }
}

fn tcp_packet(row: &[String]) -> TcpPacket {
    let one_of = |a: usize, b: usize| if row[a].is_empty() { &row[b] } else { &row[a] };
    let number = |text: &String| text.parse().expect("a number");
    TcpPacket {
        flow: [&row[0], one_of(1, 2), one_of(3, 4), &row[5], &row[6]].map(String::clone),
        dscp: number(one_of(7, 8)),
        ecn: number(one_of(9, 10)),
        rest: row[14..].to_vec(),
        checksums: [row[11].clone(), row[12].clone()],
        retransmission: !row[13].is_empty(),
    }
}
