//! Where routed mode is tested: two sites, their gateways, and two paths between them.
//!
//! ```text
//!                                            short path
//!    site a                              ,--- a0 r1 b0 ---.                              site b
//!    client eth0 --- lan A wan --- segment                segment --- wan B lan --- eth0 server
//!    10.1.0.2                            `--- a0 r2 b0 ---'                              10.2.0.2
//!    fd01::2                                  long path                                  fd02::2
//!                       192.0.2.0/24                        198.51.100.0/24
//!                       2001:db8:a::/64                     2001:db8:b::/64
//! ```
//!
//! On a segment a gateway has the addresses 1 (short lane) and 2 (long lane), the routers 11 and 12. To the other
//! gateway's address 1 there is a route by r1, to its address 2 one by r2. The kernel knows a way without tunnels
//! too, by r1, for when a gateway does not run. A segment is a bridge in a namespace of its own; its port to the
//! gateway is `p0`.
//!
//! **Invariants.** One site at a time: there are two cores. When a test ends well, none of its
//! processes, namespaces, files and programs is left; when it fails, what can be removed is.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::lab::{CLIENT, CLIENT_V6, Lab, Namespace, SERVER, SERVER_V6, cable, close, wait_for};
pub use crate::lab::{Folder, text, words};

/// Longest wait for anything. Nothing here takes a tenth of it; it only ends what hangs.
pub const BOUND: Duration = Duration::from_secs(20);

/// The WAN's networks at each site, without the last number of an address.
pub const NETS: [[&str; 2]; 2] = [["192.0.2.", "2001:db8:a::"], ["198.51.100.", "2001:db8:b::"]];

/// Both sites and what is between them.
pub struct Site {
    /// The host at site a.
    pub client: Namespace,
    /// Gateways A and B.
    pub gateways: [Namespace; 2],
    /// The bridges `segment0` at site a and `segment1` at site b, and their ports.
    pub segments: [Namespace; 2],
    /// Of the short and of the long path.
    pub routers: [Namespace; 2],
    /// The host at site b.
    pub server: Namespace,
    /// For the test's files. Everybody may look into it.
    pub folder: Folder,
}

/// Runs a test between sites of its own, and sees to it that nothing is left of them.
pub fn on_sites(test: impl FnOnce(&Site)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    test(&site);
    site.close();
}

impl Site {
    fn new(lab: &Lab) -> Site {
        let site = Site {
            client: lab.namespace("client"),
            gateways: ["a", "b"].map(|name| lab.namespace(name)),
            segments: ["s1", "s2"].map(|name| lab.namespace(name)),
            routers: ["r1", "r2"].map(|name| lab.namespace(name)),
            server: lab.namespace("server"),
            folder: Folder::new(),
        };
        let forwarders = site.gateways.iter().chain(&site.routers);
        forwarders.for_each(forward);
        for segment in &site.segments {
            // A segment says nothing itself.
            let scopes =
                ["all", "default"].map(|scope| format!("net.ipv6.conf.{scope}.disable_ipv6=1"));
            segment.run(&["sysctl", "-q", "-w", &scopes[0], &scopes[1]]);
            let bridge = "ip link add name bridge type bridge stp_state 0 mcast_snooping 0";
            segment.run(&words(bridge));
            segment.run(&words("ip link set dev bridge up"));
        }
        site.connect_hosts();
        site.connect_routers();
        for side in [0, 1] {
            site.connect_wan(side);
        }
        wait_for("the kernel to route", BOUND, || site.answers());
        site
    }

    fn connect_hosts(&self) {
        for (side, host) in [&self.client, &self.server].into_iter().enumerate() {
            let (gateway, number) = (&self.gateways[side], side + 1);
            cable((host, "eth0"), (gateway, "lan"));
            let (mut of_host, mut of_gateway) = (Vec::new(), Vec::new());
            for (prefix, bits) in
                [(format!("10.{number}.0."), "24"), (format!("fd0{number}::"), "64 nodad")]
            {
                of_host.push(format!("address add {prefix}2/{bits} dev eth0"));
                of_host.push(format!("route add default via {prefix}1"));
                of_gateway.push(format!("address add {prefix}1/{bits} dev lan"));
            }
            self.ip(host, &of_host);
            self.ip(gateway, &of_gateway);
            // No more in flight than what queues between here and there hold, so that nothing is lost.
            let limits = ["tcp_rmem", "tcp_wmem"]
                .map(|memory| format!("net.ipv4.{memory}=4096 131072 400000"));
            host.run(&["sysctl", "-q", "-w", &limits[0], &limits[1]]);
        }
    }

    fn connect_routers(&self) {
        for (path, router) in self.routers.iter().enumerate() {
            let mut commands = Vec::new();
            for (side, interface) in ["a0", "b0"].into_iter().enumerate() {
                let port = format!("p{}", path + 1);
                cable((router, interface), (&self.segments[side], &port));
                join_bridge(&self.segments[side], &port);
                let number = side + 1;
                for (prefix, bits, lan) in [
                    (NETS[side][0], "24", format!("10.{number}.0.0/24")),
                    (NETS[side][1], "64 nodad", format!("fd0{number}::/64")),
                ] {
                    commands
                        .push(format!("address add {prefix}1{}/{bits} dev {interface}", path + 1));
                    commands.push(format!("route add {lan} via {prefix}1"));
                }
            }
            self.ip(router, &commands);
        }
    }

    /// Gives a gateway its WAN port, with a cable to its segment, addresses and routes.
    pub fn connect_wan(&self, side: usize) {
        let (gateway, segment) = (&self.gateways[side], &self.segments[side]);
        cable((gateway, "wan"), (segment, "p0"));
        join_bridge(segment, "p0");
        let address = |prefix: &str, number: u32| {
            let bits = if prefix.contains(':') { "64 nodad" } else { "24" };
            format!("address add {prefix}{number}/{bits} dev wan")
        };
        let addresses: Vec<String> = NETS[side]
            .iter()
            .flat_map(|prefix| [1, 2].map(|number| address(prefix, number)))
            .collect();
        self.ip(gateway, &addresses);
        self.route_wan(side);
        // Of a port that was there before, they knew another MAC address.
        for router in &self.routers {
            router.run(&["ip", "neigh", "flush", "dev", ["a0", "b0"][side]]);
        }
    }

    /// The routes of a gateway's WAN port, again when they went with the port.
    pub fn route_wan(&self, side: usize) {
        let (other, mut routes) = (1 - side, Vec::new());
        for (family, bits) in [32, 128].into_iter().enumerate() {
            let (to, by) = (NETS[other][family], NETS[side][family]);
            for number in [1, 2] {
                routes.push(format!("route replace {to}{number}/{bits} via {by}1{number}"));
            }
            let lan = [format!("10.{}.0.0/24", other + 1), format!("fd0{}::/64", other + 1)];
            routes.push(format!("route replace {} via {by}11", lan[family]));
        }
        self.ip(&self.gateways[side], &routes);
    }

    /// Commands of `ip`, in one go.
    fn ip(&self, namespace: &Namespace, commands: &[String]) {
        let file = self.folder.file("ip-batch");
        fs::write(&file, commands.join("\n") + "\n").expect("the folder can be written to");
        namespace.run(&["ip", "-batch", text(&file)]);
    }

    /// The host that the tools of the inline gateway's tests call the datacenter's.
    pub fn datacenter(&self) -> &Namespace {
        &self.client
    }

    /// The other one.
    pub fn far_host(&self) -> &Namespace {
        &self.server
    }

    /// Whether each host answers the other's ping, over both families, once, within a second.
    pub fn answers(&self) -> bool {
        let ping = |host: &Namespace, address| {
            let ping = ["ping", "-n", "-q", "-c", "1", "-W", "1", address];
            host.try_run(&ping).status.success()
        };
        [SERVER, SERVER_V6].iter().all(|address| ping(&self.client, address))
            && [CLIENT, CLIENT_V6].iter().all(|address| ping(&self.server, address))
    }

    /// Waits until no TCP connection on either host has anything more to send, and what was said last has
    /// arrived.
    pub fn wait_for_silence(&self) {
        let open = |host: &Namespace| host.run(&words("ss -Htn state connected exclude time-wait"));
        wait_for("all connections to end", BOUND, || {
            open(&self.client).is_empty() && open(&self.server).is_empty()
        });
        wait_for("an answer", BOUND, || self.answers());
    }

    /// Whether an XDP program, whosever it is, sits on a port of a gateway.
    pub fn has_programs(&self, gateway: &Namespace) -> bool {
        gateway.run(&words("ip -d link show")).contains("prog/xdp")
    }

    /// Nothing may be left: no process in the namespaces, then no namespace and no file.
    fn close(self) {
        let Site { client, gateways, segments, routers, server, folder } = self;
        let all: Vec<Namespace> =
            [client, server].into_iter().chain(gateways).chain(segments).chain(routers).collect();
        close(all, folder);
    }
}

/// Makes a namespace a router.
fn forward(namespace: &Namespace) {
    namespace.run(&[
        "sysctl",
        "-q",
        "-w",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.default.send_redirects=0",
        // An address that goes takes no other one with it, and a link that goes none at all.
        "net.ipv4.conf.all.promote_secondaries=1",
        "net.ipv4.conf.default.promote_secondaries=1",
        "net.ipv6.conf.all.keep_addr_on_down=1",
        "net.ipv6.conf.default.keep_addr_on_down=1",
    ]);
}

fn join_bridge(segment: &Namespace, port: &str) {
    segment.run(&words(&format!("ip link set dev {port} master bridge")));
}
