//! Where a gateway is tested: a datacenter's host, the gateway and a host across the WAN, a folder for
//! the test's files, and the account that every test ends with.
//!
//! ```text
//!     datacenter                 gateway                  far host
//!     eth0 --------------- lan |         | wan --------------- eth0
//!     10.0.0.1             lanesplitd, and                 10.0.0.2
//!     fd00::1              in some tests a bridge           fd00::2
//! ```
//!
//! The laboratory calls the datacenter's host `client` and the far one `server`; here the datacenter
//! mostly serves, because only what goes from LAN to WAN is classified.
//!
//! **Invariants.** One site at a time: there are two cores. When a test ends well, none of its
//! processes, namespaces, files and programs is left; when it fails, what can be removed is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use crate::lab::{Folder, text, words};
use crate::lab::{Lab, Line, Namespace, close, wait_for};
use crate::vlan::Vlan;

/// Longest wait for anything. Nothing here takes a tenth of it; it only ends what hangs.
pub const BOUND: Duration = Duration::from_secs(20);

/// A line of three namespaces and a folder.
pub struct Site {
    /// The namespaces.
    pub line: Line,
    /// For the test's files. Everybody may look into it.
    pub folder: Folder,
}

/// Runs a test on a site of its own, and sees to it that nothing is left of it.
pub fn on_site(test: impl FnOnce(&Site)) {
    run_on(Line::new, test);
}

/// The same with two queues on every cable's end.
pub fn on_site_with_two_queues(test: impl FnOnce(&Site)) {
    run_on(line_with_two_queues, test);
}

fn run_on(line: impl FnOnce(&Lab) -> Line, test: impl FnOnce(&Site)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::new() else { return };
    let site = Site { line: line(&lab), folder: Folder::new() };
    test(&site);
    site.close();
}

impl Site {
    /// The host on the LAN side.
    pub fn datacenter(&self) -> &Namespace {
        &self.line.client
    }

    /// The host on the WAN side.
    pub fn far_host(&self) -> &Namespace {
        &self.line.server
    }

    /// Where the gateway runs.
    pub fn gateway(&self) -> &Namespace {
        &self.line.gateway
    }

    /// Gives the gateway's `lan` and the datacenter's host addresses, 10.9.0.9 and 10.9.0.1, and tells each the
    /// other's MAC address: a wire does not answer ARP.
    pub fn introduce_datacenter_and_gateway(&self) {
        let (host, gateway) = (self.datacenter(), self.gateway());
        gateway.address("lan", "10.9.0.9/24");
        host.address("eth0", "10.9.0.1/24");
        let (host_mac, gateway_mac) = (host.mac("eth0"), gateway.mac("lan"));
        host.run(&words(&format!("ip neigh replace 10.9.0.9 lladdr {gateway_mac} dev eth0")));
        gateway.run(&words(&format!("ip neigh replace 10.9.0.1 lladdr {host_mac} dev lan")));
    }

    /// Puts the gateway's ports on a bridge, as an operator does who wants traffic to go on without
    /// the gateway. The bridge sends nothing of its own: no spanning tree, no addresses, no
    /// multicast queries; and a new port forwards at once.
    pub fn bridge(&self) {
        let gateway = self.gateway();
        for scope in ["all", "default"] {
            let setting = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
            gateway.run(&["sysctl", "-q", "-w", &setting]);
        }
        let add =
            "ip link add name bridge0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0";
        gateway.run(&words(add));
        for port in ["lan", "wan"] {
            gateway.run(&words(&format!("ip link set dev {port} master bridge0")));
        }
        gateway.run(&words("ip link set dev bridge0 up"));
        wait_for("the bridge to forward", BOUND, || self.line.answers());
    }

    /// Joins the two hosts by VLAN 7 too: 10.7.0.1 and fd07::1 in the datacenter, 10.7.0.2 and
    /// fd07::2 far away.
    pub fn add_vlan(&self) -> [Vlan; 2] {
        [Vlan::join(self.datacenter(), 1), Vlan::join(self.far_host(), 2)]
    }

    /// Waits until no TCP connection on either host has anything more to send.
    pub fn wait_for_silence(&self) {
        let open = |host: &Namespace| host.run(&words("ss -Htn state connected exclude time-wait"));
        wait_for("all connections to end", BOUND, || {
            open(self.datacenter()).is_empty() && open(self.far_host()).is_empty()
        });
    }

    /// Whether an XDP program, whosever it is, sits on one of the gateway's ports.
    pub fn has_programs(&self) -> bool {
        self.has_programs_on("lan") || self.has_programs_on("wan")
    }

    /// The same on one of them.
    pub fn has_programs_on(&self, port: &str) -> bool {
        self.gateway().run(&["ip", "-d", "link", "show", "dev", port]).contains("prog/xdp")
    }

    /// Nothing may be left: no process in the namespaces, then no namespace and no file.
    fn close(self) {
        let Line { client, gateway, server } = self.line;
        close(vec![client, gateway, server], self.folder);
    }
}

/// The laboratory's line with its two cables exchanged for such with two queues at each end.
fn line_with_two_queues(lab: &Lab) -> Line {
    let line = Line::new(lab);
    for (host, port, number) in [(&line.client, "lan", 1), (&line.server, "wan", 2)] {
        host.run(&words("ip link delete dev eth0"));
        let queues = "numrxqueues 2 numtxqueues 2";
        let gateway = line.gateway.name();
        let add = format!(
            "ip link add name eth0 {queues} type veth peer name {port} netns {gateway} {queues}"
        );
        host.run(&words(&add));
        for (namespace, interface) in [(host, "eth0"), (&line.gateway, port)] {
            let off = "tx off tso off gso off gro off sg off txvlan off rxvlan off";
            namespace.run(&words(&format!("ethtool -K {interface} {off}")));
            namespace.run(&words(&format!("ethtool -L {interface} rx 2 tx 2")));
            namespace.run(&words(&format!("ip link set dev {interface} up")));
        }
        // A flow's queue is a hash that the host must not think over.
        host.run(&words("sysctl -q -w net.core.txrehash=0"));
        host.address("eth0", &format!("10.0.0.{number}/24"));
        host.address("eth0", &format!("fd00::{number}/64"));
    }
    line
}
