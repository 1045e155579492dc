//! A hybrid cloud: two sites, their gateways, and two independent paths of two routers each between them.
//!
//! ```text
//!                                     short path
//!   site a                      .-- r1a ======== r1b --.                      site b
//!   client ----- a ----- segment                       segment ----- b ----- server
//!   10.1.0.2      |         |   `-- r2a ======== r2b --'  |                  10.2.0.2
//!                 |         |         long path           |
//!      mirror of the LAN   mirror of WAN a            mirror of WAN b
//!                 `---------+-------- measuring ----------'
//! ```
//!
//! The rate of a path is that of `====`, in each direction: the queue is where a router sends to the other, and
//! behind the queue the emulator of delay, jitter and loss may sit. Background hosts `ta` and `tb` send from site to
//! site by the routers, so that what they send waits in the same queues and never meets a gateway; the far router has
//! no way to them and drops it there. On a segment a gateway has the addresses 1 (short lane) and 2 (long lane), the
//! routers 11 and 12. A segment is a bridge; its port to the gateway, `p0`, is mirrored both ways, and so is the
//! client's port: an AF_XDP socket sends past the mirrors and queues of its own port, so both are one hop further.

use std::net::IpAddr;
use std::time::Duration;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::namespace::{Namespace, cable};
use super::queues;
use super::records::{Settings, Way};

/// The host at site a.
pub const CLIENT: &str = "10.1.0.2";
/// The host at site b.
pub const SERVER: &str = "10.2.0.2";
/// The WAN's networks at each site, without the last number of an address.
pub const SEGMENTS: [&str; 2] = ["192.0.2.", "198.51.100."];
/// Interface of the measuring namespace: what the gateway of site a sends and receives on the WAN.
pub const TAP_WAN_A: &str = "wan-a";
/// The same of site b.
pub const TAP_WAN_B: &str = "wan-b";
/// What the client sends and receives.
pub const TAP_LAN_A: &str = "lan-a";
/// Names of both paths in records.
pub const PATHS: [&str; 2] = ["short", "long"];

/// Longest wait for a kernel that was told to route.
const BOUND: Duration = Duration::from_secs(10);

/// All of it. Namespaces go when this is dropped; processes in them must have ended.
pub struct Testbed {
    /// Where requests come from.
    pub client: Namespace,
    /// Gateways A and B.
    pub gateways: [Namespace; 2],
    /// Routers of each path, at site a and at site b.
    pub routers: [[Namespace; 2]; 2],
    /// Where background comes from at each site.
    pub background: [Namespace; 2],
    /// Where requests are answered.
    pub server: Namespace,
    /// Has the taps.
    pub measuring: Namespace,
    /// Where delay, jitter and loss are made, on each path, if so.
    pub emulators: Option<[Namespace; 2]>,
    segments: [Namespace; 2],
}

impl Testbed {
    /// As in the figure, with emulators between the routers or without.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something, or a signal comes.
    pub fn new(has_emulators: bool, interrupt: &Interrupt) -> Result<Testbed, LabError> {
        let both = |[a, b]: [&str; 2]| Ok::<_, LabError>([Namespace::new(a)?, Namespace::new(b)?]);
        let testbed = Testbed {
            client: Namespace::new("client")?,
            gateways: both(["a", "b"])?,
            routers: [both(["r1a", "r1b"])?, both(["r2a", "r2b"])?],
            background: both(["ta", "tb"])?,
            server: Namespace::new("server")?,
            measuring: Namespace::new("measuring")?,
            emulators: if has_emulators { Some(both(["e1", "e2"])?) } else { None },
            segments: both(["sa", "sb"])?,
        };
        interrupt.check()?;
        let routers = testbed.routers.iter().flatten();
        for namespace in testbed.gateways.iter().chain(routers) {
            namespace.sysctl(&[
                "net.ipv4.ip_forward=1",
                "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0",
                "net.ipv4.conf.all.send_redirects=0",
                "net.ipv4.conf.default.send_redirects=0",
            ])?;
        }
        for side in [0, 1] {
            testbed.connect_site(side)?;
            interrupt.check()?;
        }
        for path in [0, 1] {
            testbed.connect_path(path)?;
            interrupt.check()?;
        }
        testbed.connect_mirrors()?;
        Ok(testbed)
    }

    /// A host, its gateway and their segment.
    fn connect_site(&self, side: usize) -> Result<(), LabError> {
        let host = [&self.client, &self.server][side];
        let (gateway, segment) = (&self.gateways[side], &self.segments[side]);
        cable((host, "eth0"), (gateway, "lan"))?;
        segment.ip("link add name bridge type bridge stp_state 0 mcast_snooping 0\n\
             link set dev bridge up")?;
        cable((gateway, "wan"), (segment, "p0"))?;
        segment.ip("link set dev p0 master bridge")?;
        let (net, number) = (SEGMENTS[side], side + 1);
        host.ip(&format!(
            "address add 10.{number}.0.2/24 dev eth0\n\
             route add default via 10.{number}.0.1 advmss 1428 congctl cubic"
        ))?;
        gateway.ip(&format!(
            "address add 10.{number}.0.1/24 dev lan\n\
             address add {net}1/24 dev wan\n\
             address add {net}2/24 dev wan"
        ))?;
        host.sysctl(&[
            // The network is the limit, not the hosts; and no connection learns from those before it.
            "net.ipv4.tcp_rmem=4096 131072 33554432",
            "net.ipv4.tcp_wmem=4096 131072 33554432",
            "net.ipv4.tcp_no_metrics_save=1",
            "net.ipv4.ip_local_port_range=1024 65000",
            "net.core.somaxconn=4096",
        ])
    }

    /// Both routers of a path, and the background hosts at them.
    fn connect_path(&self, path: usize) -> Result<(), LabError> {
        let number = path + 1;
        match &self.emulators {
            None => cable((&self.routers[path][0], "mid"), (&self.routers[path][1], "mid"))?,
            Some(emulators) => {
                cable((&self.routers[path][0], "mid"), (&emulators[path], "a"))?;
                cable((&emulators[path], "b"), (&self.routers[path][1], "mid"))?;
            }
        }
        for side in [0, 1] {
            let (router, background) = (&self.routers[path][side], &self.background[side]);
            cable((router, "segment"), (&self.segments[side], &format!("p{number}")))?;
            self.segments[side].ip(&format!("link set dev p{number} master bridge"))?;
            cable((router, "hosts"), (background, &format!("e{number}")))?;
            let (other, own) = (2 - side, side + 1);
            let (net, far) = (SEGMENTS[side], SEGMENTS[1 - side]);
            router.ip(&format!(
                "address add {net}1{number}/24 dev segment\n\
                 address add 10.9.{number}.{own}/24 dev mid\n\
                 address add 10.{number}{own}.0.1/24 dev hosts\n\
                 route add {far}0/24 via 10.9.{number}.{other}\n\
                 route add 10.{other}.0.0/24 via 10.9.{number}.{other}\n\
                 route add 10.{own}.0.0/24 via {net}1\n\
                 route add 10.10{number}.{other}.0/24 via 10.9.{number}.{other}\n\
                 route add blackhole 10.10{number}.{own}.0/24"
            ))?;
            background.ip(&format!(
                "address add 10.{number}{own}.0.2/24 dev e{number}\n\
                 route add 10.10{number}.0.0/16 via 10.{number}{own}.0.1"
            ))?;
        }
        Ok(())
    }

    /// Where background from a site by a path goes to, until the far router drops it.
    pub fn background_target(side: usize, path: u32) -> IpAddr {
        IpAddr::from([10, 101 + path as u8, 2 - side as u8, 1])
    }

    fn connect_mirrors(&self) -> Result<(), LabError> {
        let taps = [
            (&self.segments[0], "p0", TAP_WAN_A),
            (&self.segments[1], "p0", TAP_WAN_B),
            (&self.client, "eth0", TAP_LAN_A),
        ];
        for (namespace, port, tap) in taps {
            cable((namespace, "mirror"), (&self.measuring, tap))?;
            // Whoever captures there does not want it routed.
            namespace.ip("link set dev mirror arp off")?;
            let mut commands = format!("qdisc add dev {port} clsact\n");
            for direction in ["ingress", "egress"] {
                commands += &format!(
                    "filter add dev {port} {direction} protocol all u32 match u32 0 0 action mirred egress mirror \
                     dev mirror\n"
                );
            }
            namespace.tc(&commands)?;
        }
        Ok(())
    }

    /// Sets routes and queues as a run wants them. All counters of queues begin at zero.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn prepare(&self, settings: &Settings) -> Result<(), LabError> {
        self.route(settings.way)?;
        self.routers.iter().flatten().try_for_each(|router| queues::set(router, settings))
    }

    /// Whether routers can have the queues that a run wants.
    ///
    /// # Errors
    ///
    /// When the kernel does not know them.
    pub fn try_queue(&self, settings: &Settings) -> Result<(), LabError> {
        queues::set(&self.routers[0][0], settings)
    }

    /// The routes of both gateways: to the other's address 1 by the short path, to its address 2 by the long one
    /// where there are two. The kernel's own way, without tunnels, is the short path.
    fn route(&self, way: Way) -> Result<(), LabError> {
        let long = if way == Way::Priority { 1 } else { 2 };
        for (side, gateway) in self.gateways.iter().enumerate() {
            let (net, far, other) = (SEGMENTS[side], SEGMENTS[1 - side], 2 - side);
            gateway.ip(&format!(
                "route replace {far}1/32 via {net}11\n\
                 route replace {far}2/32 via {net}1{long}\n\
                 route replace 10.{other}.0.0/24 via {net}11"
            ))?;
        }
        Ok(())
    }

    /// Waits until each gateway has an answer of the other by both paths, so that nobody has to be asked for when
    /// packets are measured.
    ///
    /// # Errors
    ///
    /// When there is none, or a signal comes.
    pub fn wait_for_paths(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        for (gateway, far) in self.gateways.iter().zip([SEGMENTS[1], SEGMENTS[0]]) {
            for number in [1, 2] {
                wait_for_ping(gateway, &format!("{far}{number}"), interrupt)?;
            }
        }
        Ok(())
    }

    /// Waits until each host answers the other.
    ///
    /// # Errors
    ///
    /// When they do not, or a signal comes.
    pub fn wait_for_answer(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        for (host, address) in [(&self.client, SERVER), (&self.server, CLIENT)] {
            wait_for_ping(host, address, interrupt)?;
        }
        Ok(())
    }
}

fn wait_for_ping(from: &Namespace, to: &str, interrupt: &Interrupt) -> Result<(), LabError> {
    let what = format!("{to} to answer a ping from {}", from.name());
    interrupt.wait_for(&what, BOUND, String::new, || from.reaches(to))
}
