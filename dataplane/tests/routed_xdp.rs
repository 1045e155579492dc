//! The XDP program of routed mode on real interfaces: what it takes from the kernel, what it leaves, and why.
//! The frames are scapy's.

mod lab;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use dataplane::port::{BURST_MAX, Burst, Port};
use dataplane::privileges;
use dataplane::xdp::{
    Attach, Attachment, CopyMode, Destinations, KernelCounters, Role, Settings, XdpError,
    XdpFrames, XdpPort, open,
};
use lab::{Lab, Line, wait_for};

const SETTINGS: Settings = Settings {
    attach: Attach::Native,
    copy: CopyMode::Auto,
    frame_bytes: 2048,
    ring_entries: 256,
    busy_poll_budget: 0,
};
const BOUND: Duration = Duration::from_secs(20);

const LAN: Role = Role::Routed { encapsulates: true };
const WAN: Role = Role::Routed { encapsulates: false };

/// Ports of a gateway with routed mode's programs.
struct Ports {
    attachments: [Attachment; 2],
    ports: [XdpPort; 2],
    frames: XdpFrames,
}

impl Ports {
    /// With no more privileges than the daemon keeps.
    fn open(line: &Line, attach: Attach) -> Ports {
        let settings = Settings { attach, ..SETTINGS };
        line.gateway.enter(|| {
            privileges::keep_what_ports_need().expect("giving up is always allowed");
            let attachments = [("lan", LAN), ("wan", WAN)].map(|(interface, role)| {
                Attachment::attach_as(role, interface, attach, settings.frame_bytes, 1)
                    .unwrap_or_else(|error| panic!("{error}"))
            });
            let opened = open(&attachments[0], &attachments[1], 0, &settings);
            let (ports, frames) = opened.unwrap_or_else(|error| panic!("{error}"));
            Ports { attachments, ports, frames }
        })
    }

    fn counters(&self) -> [KernelCounters; 2] {
        self.attachments.each_ref().map(|port| port.counters().expect("readable"))
    }

    /// The last byte of each frame that came to the worker by a port.
    fn received(&mut self, port: usize) -> Vec<u8> {
        let mut tags = Vec::new();
        let mut burst = Burst::new();
        loop {
            self.ports[port].receive(&mut self.frames, &mut burst, BURST_MAX);
            if burst.is_empty() {
                return tags;
            }
            for mut frame in burst.drain(..) {
                tags.extend(XdpPort::buffer(&self.frames, &mut frame).last());
                XdpPort::release(&mut self.frames, frame);
            }
        }
    }
}

/// Sends the frames that a scapy expression makes, each with a last byte of its own: 1, 2 and so on.
fn send(line: &Line, from: &lab::Namespace, to_interface: &str, frames: &[&str]) {
    let script = format!(
        "import logging\n\
         logging.getLogger('scapy.runtime').setLevel(logging.ERROR)\n\
         from scapy.all import *\n\
         own = Ether(src='02:00:00:00:00:99', dst='{mac}')\n\
         other = Ether(src='02:00:00:00:00:99', dst='02:00:00:00:00:98')\n\
         group = Ether(src='02:00:00:00:00:99', dst='ff:ff:ff:ff:ff:ff')\n\
         s = conf.L2socket(iface='eth0')\n\
         for number, frame in enumerate([{frames}]):\n\
         \x20   s.send(bytes(frame / Raw(bytes([number + 1]))))\n",
        mac = line.gateway.mac(to_interface),
        frames = frames.join(", "),
    );
    let mut child = Command::new("ip")
        .args(["netns", "exec", from.name(), "timeout", "60", "/usr/bin/python3", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip is installed");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "scapy failed: {script}");
}

fn scapy_is_there() -> bool {
    let import = ["-c", "import scapy.all"];
    let found = Command::new("/usr/bin/python3").args(import).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    let required = std::env::var("REQUIRE_ORACLES").as_deref() == Ok("1");
    assert!(found || !required, "no scapy (python3-scapy), and REQUIRE_ORACLES=1 demands it");
    if !found {
        eprintln!("\n=== SKIPPED: no scapy here (scripts/install-dependencies --test) ===");
    }
    found
}

fn sum(counters: KernelCounters) -> u64 {
    let KernelCounters {
        own_address,
        oversize,
        no_socket,
        other_link,
        not_ip,
        other_destination,
        fragment,
    } = counters;
    own_address + oversize + no_socket + other_link + not_ip + other_destination + fragment
}

/// Sends frames to a port and says which of them the worker got, and what was counted for the others.
fn sort(line: &Line, ports: &mut Ports, port: usize, frames: &[&str]) -> (Vec<u8>, KernelCounters) {
    let before = ports.counters()[port];
    let (from, to) = [(&line.client, "lan"), (&line.server, "wan")][port];
    send(line, from, to, frames);
    let mut got = Vec::new();
    wait_for("every frame to be somewhere", BOUND, || {
        got.extend(ports.received(port));
        got.len() as u64 + sum(ports.counters()[port]) - sum(before) == frames.len() as u64
    });
    let after = ports.counters()[port];
    let counted = KernelCounters {
        own_address: after.own_address - before.own_address,
        oversize: after.oversize - before.oversize,
        no_socket: after.no_socket - before.no_socket,
        other_link: after.other_link - before.other_link,
        not_ip: after.not_ip - before.not_ip,
        other_destination: after.other_destination - before.other_destination,
        fragment: after.fragment - before.fragment,
    };
    (got, counted)
}

/// The kernels on the cables have nothing to say of their own.
fn quiet(lab: &Lab) -> Line {
    let line = Line::new(lab);
    for (namespace, interfaces) in
        [(&line.client, &["eth0"][..]), (&line.server, &["eth0"]), (&line.gateway, &["lan", "wan"])]
    {
        for interface in interfaces {
            let setting = format!("net.ipv6.conf.{interface}.disable_ipv6=1");
            namespace.run(&["sysctl", "-q", "-w", &setting]);
            namespace.run(&["ip", "link", "set", "dev", interface, "arp", "off"]);
        }
    }
    line
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_lan_port_takes_what_goes_to_other_sites() {
    let Some(lab) = Lab::new() else { return };
    if !scapy_is_there() {
        return;
    }
    for attach in [Attach::Native, Attach::Generic] {
        let line = quiet(&lab);
        let mut ports = Ports::open(&line, attach);
        let frames = [
            "own/IP(dst='10.2.3.4')/TCP()",
            "own/IP(dst='10.2.3.4', frag=3)",
            "own/IPv6(dst='2001:db8:2::9')/UDP()",
            // An address of this machine in a remote prefix; another prefix; none.
            "own/IP(dst='10.2.0.1')/TCP(dport=22)",
            "own/IPv6(dst='2001:db8:2::1')/TCP(dport=179)",
            "own/IP(dst='10.1.0.1')/ICMP()",
            "own/IP(dst='10.3.0.1')/TCP()",
            "own/IPv6(dst='2001:db8:3::1')/TCP()",
            // Not for this port, not IP, behind a tag, cut short.
            "other/IP(dst='10.2.3.4')/TCP()",
            "group/IP(dst='10.2.3.4')/UDP()",
            "own/ARP(pdst='10.2.3.4')",
            "own/Dot1Q(vlan=5)/IP(dst='10.2.3.4')/TCP()",
            "Ether(bytes(own))/Raw(b'')",
        ];
        let (got, counted) = sort(&line, &mut ports, 0, &frames);
        assert_eq!((got.len(), counted.other_destination), (0, 8), "without destinations");

        let mut wanted = Destinations::default();
        wanted.forward("10.2.0.0/16".parse().unwrap());
        wanted.forward("2001:db8:2::/48".parse().unwrap());
        for own in ["10.1.0.1", "10.2.0.1", "2001:db8:2::1"] {
            wanted.own(ip(own));
        }
        ports.attachments[0].set_destinations(&wanted).expect("there is room");
        let (got, counted) = sort(&line, &mut ports, 0, &frames);
        assert_eq!(got, [1, 2, 3], "{attach:?}");
        let expected = KernelCounters {
            own_address: 3,
            other_destination: 2,
            other_link: 2,
            not_ip: 3,
            ..KernelCounters::default()
        };
        assert_eq!(counted, expected, "{attach:?}");

        // An address goes, and the prefix behind it shows.
        let mut fewer = Destinations::default();
        fewer.forward("10.2.0.0/16".parse().unwrap());
        ports.attachments[0].set_destinations(&fewer).expect("there is room");
        let (got, _) = sort(&line, &mut ports, 0, &frames);
        assert_eq!(got, [1, 2, 4], "{attach:?}");
    }
}

#[test]
fn the_wan_port_takes_its_tunnels_and_what_is_said_about_them() {
    let Some(lab) = Lab::new() else { return };
    if !scapy_is_there() {
        return;
    }
    let line = quiet(&lab);
    let mut ports = Ports::open(&line, Attach::Native);
    let mut wanted = Destinations::default();
    wanted.tunnel(ip("192.0.2.1"), false);
    wanted.tunnel(ip("2001:db8::1"), true);
    wanted.own(ip("192.0.2.1"));
    wanted.own(ip("192.0.2.2"));
    ports.attachments[1].set_destinations(&wanted).expect("there is room");
    let frames = [
        // GRE to the one, and errors about it.
        "own/IP(dst='192.0.2.1')/GRE()/IP()/TCP()",
        "own/IP(dst='192.0.2.1')/ICMP(type=3, code=4)/IP(src='192.0.2.1', proto=47)/Raw(bytes(24))",
        "own/IP(dst='192.0.2.1')/ICMP(type=11)/IP(src='192.0.2.1', proto=47)/Raw(bytes(8))",
        // GRE in UDP to the other, and errors about it.
        "own/IPv6(dst='2001:db8::1')/UDP(sport=50000, dport=4754)/GRE()/IP()/UDP()",
        "own/IPv6(dst='2001:db8::1')/ICMPv6PacketTooBig()/IPv6(src='2001:db8::1')/UDP(sport=50000, dport=4754)/Raw(bytes(8))",
        "own/IPv6(dst='2001:db8::1')/ICMPv6DestUnreach()/IPv6(src='2001:db8::1')/UDP(sport=50000, dport=4754)/Raw(bytes(8))",
        // 7: each to the wrong one, or to none.
        "own/IP(dst='192.0.2.1')/UDP(sport=50000, dport=4754)/GRE()/IP()/UDP()",
        "own/IPv6(dst='2001:db8::1')/GRE()/IP()/UDP()",
        "own/IP(dst='192.0.2.2')/GRE()/IP()/TCP()",
        "own/IPv6(dst='2001:db8::1')/UDP(sport=4754, dport=4755)/Raw(bytes(20))",
        // 11: ICMP about something else, of another kind, or with too little in it.
        "own/IP(dst='192.0.2.1')/ICMP(type=8)/IP(src='192.0.2.1', proto=47)/Raw(bytes(24))",
        "own/IP(dst='192.0.2.1')/ICMP(type=3)/IP(src='192.0.2.1')/TCP()",
        "own/IP(dst='192.0.2.1')/ICMP(type=3)/Raw(b'\\x45' + bytes(8) + b'\\x2f' + bytes(15))",
        "own/IPv6(dst='2001:db8::1')/ICMPv6EchoRequest()/IPv6()/UDP(dport=4754)",
        "own/IPv6(dst='2001:db8::1')/ICMPv6DestUnreach()/IPv6(src='2001:db8::1')/UDP(dport=53)/Raw(bytes(8))",
        // 16: options are nobody's tunnel.
        "own/IP(dst='192.0.2.1', options=[IPOption_NOP()]*4)/GRE()/IP()/TCP()",
        // 17: fragments of tunnels, and of something else.
        "own/IP(dst='192.0.2.1', flags='MF', proto=47)/Raw(bytes(40))",
        "own/IP(dst='192.0.2.1', frag=5, proto=47)/Raw(bytes(40))",
        "own/IPv6(dst='2001:db8::1')/IPv6ExtHdrFragment(nh=17, m=1)/Raw(bytes(40))",
        "own/IP(dst='192.0.2.1', frag=5, proto=17)/Raw(bytes(40))",
        // 21: what is not for the gateway at all.
        "own/IP(dst='192.0.2.9')/GRE()/IP()/TCP()",
        "other/IP(dst='192.0.2.1')/GRE()/IP()/TCP()",
    ];
    let (got, counted) = sort(&line, &mut ports, 1, &frames);
    assert_eq!(got, [1, 2, 3, 4, 5, 6]);
    let expected = KernelCounters {
        own_address: 11,
        fragment: 3,
        other_destination: 1,
        other_link: 1,
        ..KernelCounters::default()
    };
    assert_eq!(counted, expected);
}

#[test]
fn a_frame_without_room_for_encapsulation_stays_with_the_kernel() {
    let Some(lab) = Lab::new() else { return };
    if !scapy_is_there() {
        return;
    }
    let line = quiet(&lab);
    for (namespace, interface) in [
        (&line.client, "eth0"),
        (&line.gateway, "lan"),
        (&line.server, "eth0"),
        (&line.gateway, "wan"),
    ] {
        namespace.run(&["ip", "link", "set", "dev", interface, "mtu", "1710"]);
    }
    let mut ports = Ports::open(&line, Attach::Native);
    // Longer frames than the port's MTU allows may come all the same.
    for (namespace, interface) in [
        (&line.client, "eth0"),
        (&line.gateway, "lan"),
        (&line.server, "eth0"),
        (&line.gateway, "wan"),
    ] {
        namespace.run(&["ip", "link", "set", "dev", interface, "mtu", "1800"]);
    }
    let mut wanted = Destinations::default();
    wanted.forward("10.2.0.0/16".parse().unwrap());
    let most = [2048 - 256 - 64, 2048 - 256];
    for port in [0, 1] {
        ports.attachments[port].set_destinations(&wanted).expect("there is room");
        // Ethernet and IP headers are 34 bytes, the tag is one.
        let frame =
            |bytes: usize| format!("own/IP(dst='10.2.3.4', proto=99)/Raw(bytes({}))", bytes - 35);
        let frames = [frame(most[port]), frame(most[port] + 1)];
        let (got, counted) = sort(&line, &mut ports, port, &frames.each_ref().map(String::as_str));
        assert_eq!((got, counted.oversize), (vec![1], 1), "port {port}");
    }
}

#[test]
fn a_lan_port_whose_mtu_leaves_no_room_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.gateway.run(&["ip", "link", "set", "dev", "lan", "mtu", "1711"]);
    let attach =
        |role| line.gateway.enter(|| Attachment::attach_as(role, "lan", Attach::Native, 2048, 1));
    let error = attach(LAN).expect_err("1774 less 64 is 1710");
    assert!(matches!(error, XdpError::Mtu { mtu: 1711, mtu_max: 1710, .. }), "{error}");
    assert!(attach(WAN).is_ok());
}
