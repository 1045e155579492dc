//! What crosses an interface, seen by tcpdump and read by tshark: programs that know nothing of ours.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, sendto};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;

use crate::lab::{Namespace, wait_for};
use crate::site::{BOUND, Site, text};
use crate::traffic::raw_socket;

/// What the last frame of a capture carries.
const MARKER: &[u8] = b"lanesplit-end-of-capture";

/// tcpdump on an interface.
pub struct Sniffer<'a> {
    namespace: &'a Namespace,
    interface: &'static str,
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl<'a> Sniffer<'a> {
    /// Starts it and waits until it listens. It keeps whole packets.
    pub fn start(site: &Site, namespace: &'a Namespace, interface: &'static str) -> Sniffer<'a> {
        Sniffer::start_with(site, namespace, interface, 4000)
    }

    /// The same with the first `kept_bytes` of each packet.
    pub fn start_with(
        site: &Site,
        namespace: &'a Namespace,
        interface: &'static str,
        kept_bytes: usize,
    ) -> Sniffer<'a> {
        let file = site.folder.file(&format!("{}-{interface}.pcap", namespace.name()));
        let log = site.folder.file(&format!("{}-{interface}.log", namespace.name()));
        let child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), "tcpdump", "-n", "-i", interface])
            .args(["-Z", "root", "--immediate-mode", "-U", "-B", "65536"])
            .args(["-s", &kept_bytes.to_string(), "-w", text(&file)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder can be written to"))
            .spawn()
            .expect("tcpdump is installed");
        let sniffer = Sniffer { namespace, interface, child, file, log };
        wait_for("tcpdump to listen", BOUND, || sniffer.words().contains("listening on"));
        sniffer
    }

    /// Ends the capture when it has everything that has crossed the interface by now.
    pub fn finish(mut self) -> Capture {
        // To nobody: a local address of no interface, an EtherType for experiments.
        let mut marker = vec![2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 0x55, 0x88, 0xb5];
        marker.extend(MARKER);
        let (socket, address) = raw_socket(self.namespace, self.interface);
        let sent = sendto(socket.as_raw_fd(), &marker, &address, MsgFlags::empty());
        assert_eq!(sent, Ok(marker.len()), "the marker");
        wait_for("the last frame to be captured", BOUND, || {
            let bytes = fs::read(&self.file).unwrap_or_default();
            let tail = &bytes[bytes.len().saturating_sub(100_000)..];
            tail.windows(MARKER.len()).any(|window| window == MARKER)
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

impl Drop for Sniffer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A capture file that is complete.
pub struct Capture {
    file: PathBuf,
}

impl Capture {
    /// Frames that a filter of tcpdump takes.
    pub fn count(&self, filter: &str) -> u64 {
        let output = Command::new("timeout")
            .args(["60", "tcpdump", "-n", "--count", "-r", text(&self.file), filter])
            .stdin(Stdio::null())
            .output()
            .expect("tcpdump is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{filter}: {errors}");
        let words = String::from_utf8(output.stdout).expect("text");
        let number = words.split_whitespace().next().expect("a number and a word");
        number.parse().expect("a number")
    }

    /// tshark's values of `fields` for every packet that `filter` takes. Of a field that occurs more than once, as
    /// the addresses of a packet in a tunnel, all values, with commas.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut tshark = Command::new("timeout");
        tshark.args(["60", "tshark", "-n", "-r", text(&self.file), "-Y", filter, "-T", "fields"]);
        tshark.args(["-E", "separator=|", "-E", "occurrence=a"]);
        tshark.args(["-o", "ip.check_checksum:TRUE", "-o", "ip.defragment:FALSE"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        let output = tshark.stdin(Stdio::null()).output().expect("tshark is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{filter}: {errors}");
        let rows = String::from_utf8(output.stdout).expect("fields are text");
        rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
    }
}
