//! AF_XDP ports on real interfaces: what crosses, what stays with the kernel, what is left behind.

mod lab;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, process};

use dataplane::port::{BURST_MAX, Burst, FrameAccount, Port};
use dataplane::xdp::{
    Attach, Attachment, CopyMode, KernelCounters, Mode, Settings, SocketStatistics, WakeFailures,
    XdpError, XdpFrames, XdpPort, open,
};
use lab::{CLIENT, Lab, Line, Namespace, Process, SERVER, SERVER_V6, wait_for};

const SETTINGS: Settings = Settings {
    attach: Attach::Native,
    copy: CopyMode::Auto,
    frame_bytes: 2048,
    ring_entries: 256,
    busy_poll_budget: 0,
};

const BOUND: Duration = Duration::from_secs(20);

#[test]
fn ping_and_tcp_cross_in_native_mode() {
    ping_and_tcp_cross(Attach::Native, Mode::Native);
}

#[test]
fn ping_and_tcp_cross_in_generic_mode() {
    ping_and_tcp_cross(Attach::Generic, Mode::Generic);
}

fn ping_and_tcp_cross(attach: Attach, mode: Mode) {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let wire = Wire::start(&line.gateway, Settings { attach, ..SETTINGS });
    assert_eq!(wire.attachments.each_ref().map(Attachment::mode), [mode; 2]);

    for (address, payload) in [(SERVER, "56"), (SERVER, "1472"), (SERVER_V6, "1452")] {
        line.client.run(&["ping", "-n", "-q", "-c", "20", "-i", "0.01", "-s", payload, address]);
    }
    tcp_crosses(&line);

    let end = wire.stop();
    assert!(end.forwarded > 2000, "only {} frames crossed", end.forwarded);
    end.assert_nothing_lost();
}

fn iperf3_server(line: &Line) -> Process {
    let server = line.server.spawn(&["iperf3", "--server"]);
    wait_for("iperf3 to listen", BOUND, || {
        line.server.run(&["ss", "-Hltn", "sport = :5201"]).contains("5201")
    });
    server
}

/// Two seconds of iperf3, each way one.
fn tcp_crosses(line: &Line) {
    let _server = iperf3_server(line);
    line.client.run(&["iperf3", "--client", SERVER, "--time", "1"]);
    line.client.run(&["iperf3", "--client", SERVER, "--time", "1", "--reverse"]);
}

#[test]
fn a_flood_neither_loses_nor_doubles_a_frame() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let wire = Wire::start(&line.gateway, Settings { ring_entries: 64, ..SETTINGS });

    let _server = iperf3_server(&line);
    let udp = ["--udp", "--bitrate", "0", "--length", "64", "--time", "2", "--bidir"];
    line.client.run(&[&["iperf3", "--client", SERVER][..], &udp[..]].concat());

    let end = wire.stop();
    assert!(end.forwarded > 10_000, "only {} frames crossed", end.forwarded);
    end.assert_nothing_lost();
}

#[test]
fn a_port_that_prefers_busy_polling_sends_and_receives() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let wire = Wire::start(&line.gateway, Settings { busy_poll_budget: 64, ..SETTINGS });
    line.client.run(&["ping", "-n", "-q", "-c", "20", "-i", "0.01", SERVER]);
    let end = wire.stop();
    for statistics in &end.statistics {
        assert_eq!(statistics.wake_failures, WakeFailures::default());
    }
    end.assert_nothing_lost();
}

#[test]
fn frames_to_the_ports_own_address_go_to_the_kernel() {
    for attach in [Attach::Native, Attach::Generic] {
        let Some(lab) = Lab::new() else { return };
        let line = Line::new(&lab);
        let gateway = "10.0.0.254";
        line.gateway.address("lan", "10.0.0.254/24");
        let wire = Wire::start(&line.gateway, Settings { attach, ..SETTINGS });

        // The port is a wire to broadcasts, so both ends have to be told each other's address.
        let neighbour = |on: &Namespace, interface, address, mac: &str| {
            on.run(&["ip", "neighbour", "add", address, "lladdr", mac, "dev", interface]);
        };
        neighbour(&line.client, "eth0", gateway, &line.gateway.mac("lan"));
        neighbour(&line.gateway, "lan", CLIENT, &line.client.mac("eth0"));
        line.client.run(&["ping", "-n", "-q", "-c", "10", "-i", "0.01", gateway]);

        let end = wire.stop();
        assert_eq!(end.kernel[0].own_address, 10, "{attach:?}");
        assert_eq!(end.kernel[1].own_address, 0, "{attach:?}");
        end.assert_nothing_lost();
    }
}

#[test]
fn without_a_socket_the_kernel_carries_the_packets() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.bridge();
    let attachments = attach_both(&line.gateway, SETTINGS);
    wait_for("the bridge to forward", BOUND, || line.answers());
    let counters = attachments[0].counters().expect("readable");
    assert!(counters.no_socket > 0, "{counters:?}");
    assert_eq!(counters.oversize, 0);
}

#[test]
fn a_frame_longer_than_packet_memory_goes_to_the_kernel() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.bridge();
    let wire = Wire::start(&line.gateway, SETTINGS);
    // Too large for the frames, after the ports have been checked.
    for (namespace, interfaces) in [
        (&line.gateway, &["lan", "wan", "bridge0"][..]),
        (&line.client, &["eth0"]),
        (&line.server, &["eth0"]),
    ] {
        for interface in interfaces {
            namespace.run(&["ip", "link", "set", "dev", interface, "mtu", "3000"]);
        }
    }
    wait_for("the wire to answer", BOUND, || line.answers());
    let ping = ["ping", "-n", "-q", "-M", "do", "-c", "10", "-i", "0.01", "-s"];
    let sized = |payload| [&ping[..], &[payload, SERVER][..]].concat();
    // 28 bytes of IP and ICMP header and 14 of Ethernet: 1792 fits exactly.
    line.client.run(&sized("1750"));
    assert_eq!(wire.attachments[0].counters().expect("readable").oversize, 0);
    line.client.run(&sized("1751"));
    line.client.run(&sized("2900"));

    let end = wire.stop();
    assert_eq!(end.kernel.map(|port| port.oversize), [20, 20]);
    end.assert_nothing_lost();
}

#[test]
fn a_port_whose_mtu_does_not_fit_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let attach = |frame_bytes| {
        line.gateway.enter(|| Attachment::attach("lan", Attach::Native, frame_bytes, 1))
    };
    line.gateway.run(&["ip", "link", "set", "dev", "lan", "mtu", "1775"]);
    let error = attach(2048).expect_err("1775 is one too many");
    assert!(matches!(error, XdpError::Mtu { mtu: 1775, mtu_max: 1774, .. }), "{error}");
    attach(4096).expect("a larger frame has room");
    line.gateway.run(&["ip", "link", "set", "dev", "lan", "mtu", "1774"]);
    attach(2048).expect("1774 fits");
}

#[test]
fn auto_falls_back_to_generic_where_the_driver_refuses() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    // veth refuses native XDP when a peer's packets could be longer than a page holds.
    line.client.run(&["ip", "link", "set", "dev", "eth0", "mtu", "9000"]);
    let attach = |attach| line.gateway.enter(|| Attachment::attach("lan", attach, 2048, 1));
    let error = attach(Attach::Native).expect_err("the driver refuses");
    assert_eq!(error.errno(), Some(libc::ERANGE), "{error}");
    let attachment = attach(Attach::Auto).expect("generic works");
    assert_eq!(attachment.mode(), Mode::Generic);
}

#[test]
fn zero_copy_is_refused_where_there_is_none() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let settings = Settings { copy: CopyMode::ZeroCopy, ..SETTINGS };
    let attachments = attach_both(&line.gateway, settings);
    let [lan, wan] = &attachments;
    let error = line.gateway.enter(|| open(lan, wan, 0, &settings)).map(drop);
    let error = error.expect_err("veth has no zero-copy");
    assert!(error.to_string().starts_with("lan, queue 0: "), "{error}");
    assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
}

#[test]
fn a_queue_that_is_in_use_or_missing_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let settings = Settings { copy: CopyMode::Copy, ..SETTINGS };
    let attachments = attach_both(&line.gateway, settings);
    let [lan, wan] = &attachments;
    let open = |queue| line.gateway.enter(|| open(lan, wan, queue, &settings));
    let error = open(1).map(drop).expect_err("attached for one queue");
    assert!(matches!(error, XdpError::Queue { queue: 1, queues: 1, .. }), "{error}");

    let first = open(0).expect("free");
    let error = open(0).map(drop).expect_err("in use");
    assert_eq!(error.errno(), Some(libc::EBUSY), "{error}");
    drop(first);
    open(0).map(drop).expect("free again");
}

#[test]
fn another_program_on_the_port_is_reported_with_the_remedy() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let attach = |attach| line.gateway.enter(|| Attachment::attach("lan", attach, 2048, 1));

    let ours = attach(Attach::Native).expect("free");
    for again in [Attach::Native, Attach::Generic, Attach::Auto] {
        let error = attach(again).expect_err("ours is there");
        assert!(matches!(error, XdpError::Occupied { .. }), "{error}");
    }
    drop(ours);

    let object = concat!(env!("OUT_DIR"), "/program.bpf.o");
    let load = ["ip", "link", "set", "dev", "lan", "xdp", "object", object, "section", "xdp"];
    line.gateway.run(&load);
    for over in [Attach::Native, Attach::Generic, Attach::Auto] {
        let error = attach(over).expect_err("a netlink program is there");
        assert!(matches!(error, XdpError::Occupied { .. }), "{error}");
        assert!(error.to_string().contains("`ip link set dev lan xdp off`"), "{error}");
    }
    line.gateway.run(&["ip", "link", "set", "dev", "lan", "xdp", "off"]);
    attach(Attach::Native).expect("the remedy works");
}

#[test]
fn dropping_the_attachment_detaches_the_program() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.bridge();
    let wire = Wire::start(&line.gateway, SETTINGS);
    assert!(program_attached(&line.gateway, "lan") && program_attached(&line.gateway, "wan"));
    wait_for("the wire to answer", BOUND, || line.answers());
    wire.stop().assert_nothing_lost();
    assert!(!program_attached(&line.gateway, "lan"));
    assert!(!program_attached(&line.gateway, "wan"));
    wait_for("the bridge to answer", BOUND, || line.answers());
}

#[test]
fn kill_9_detaches_the_program_and_the_bridge_goes_on() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    line.bridge();
    wait_for("the bridge to answer", BOUND, || line.answers());

    let this = env::current_exe().expect("a test has a path");
    let this = this.to_str().expect("and it is text");
    let mut child = line.gateway.spawn_with(
        &[this, "--exact", "child_that_holds_the_ports", "--ignored"],
        &[("LANESPLIT_TEST_CHILD", "1")],
    );
    wait_for("the child to attach", BOUND, || {
        assert!(child.runs(), "the child ended early");
        program_attached(&line.gateway, "wan")
    });
    wait_for("the wire to answer", BOUND, || line.answers());
    child.kill();
    wait_for("the program to go", BOUND, || {
        !program_attached(&line.gateway, "lan") && !program_attached(&line.gateway, "wan")
    });
    wait_for("the bridge to answer", BOUND, || line.answers());
}

/// Forwards until it is killed. Not a test: the one above runs it in a namespace.
#[test]
#[ignore = "run by kill_9_detaches_the_program_and_the_bridge_goes_on"]
fn child_that_holds_the_ports() {
    if env::var_os("LANESPLIT_TEST_CHILD").is_none() {
        return;
    }
    let attach = |interface| Attachment::attach(interface, Attach::Native, 2048, 1);
    let attachments = ["lan", "wan"].map(|interface| attach(interface).expect("attaches"));
    let (mut ports, mut frames) =
        open(&attachments[0], &attachments[1], 0, &SETTINGS).expect("opens");
    let stop = AtomicBool::new(false);
    forward(&mut ports, &mut frames, &stop);
    process::exit(1);
}

#[test]
fn a_frame_of_other_packet_memory_is_refused() {
    let (Some(lab), Some(other)) = (Lab::new(), Lab::new()) else { return };
    let (line, other) = (Line::new(&lab), Line::new(&other));
    let settings = Settings { ring_entries: 64, ..SETTINGS };
    let [attachments, others] = [&line, &other].map(|line| attach_both(&line.gateway, settings));
    let open = |line: &Line, [lan, wan]: &[Attachment; 2]| {
        line.gateway.enter(|| open(lan, wan, 0, &settings)).expect("opens")
    };
    let (mut ports, mut frames) = open(&line, &attachments);
    let (_, mut other_frames) = open(&other, &others);

    let mut burst = Burst::new();
    wait_for("a frame from the client", BOUND, || {
        line.answers();
        ports[0].receive(&mut frames, &mut burst, 1);
        !burst.is_empty()
    });
    let mut frame = burst.pop().expect("not empty");
    let refused = catch_unwind(AssertUnwindSafe(|| {
        let _ = XdpPort::buffer(&other_frames, &mut frame);
    }));
    assert!(refused.is_err(), "it has no bytes there");
    let refused = catch_unwind(AssertUnwindSafe(|| XdpPort::release(&mut other_frames, frame)));
    assert!(refused.is_err(), "it is not free there");
    let account = XdpPort::account(&ports, &frames, 0);
    assert!(!account.balances(), "a lost frame shows: {account:?}");
    assert!(XdpPort::account(&ports, &frames, 1).balances());
}

#[test]
fn a_port_that_was_down_carries_on() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let wire = Wire::start(&line.gateway, SETTINGS);
    wait_for("the wire to answer", BOUND, || line.answers());
    for interface in ["wan", "lan"] {
        line.gateway.run(&["ip", "link", "set", "dev", interface, "down"]);
        assert!(!line.answers());
        line.gateway.run(&["ip", "link", "set", "dev", interface, "up"]);
        wait_for("the wire to answer", BOUND, || line.answers());
    }
    wire.stop().assert_nothing_lost();
}

#[test]
fn a_port_that_disappears_leaves_the_worker_standing() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let wire = Wire::start(&line.gateway, SETTINGS);
    wait_for("the wire to answer", BOUND, || line.answers());
    line.gateway.run(&["ip", "link", "delete", "dev", "wan"]);
    assert!(!line.answers());
    wire.stop.store(true, Ordering::Relaxed);
    let (ports, frames, _) = wire.worker.join().expect("the worker did not panic");
    let account = XdpPort::account(&ports, &frames, 0);
    assert!(account.balances(), "{account:?}");
    drop((ports, frames, wire.attachments));
    assert!(!program_attached(&line.gateway, "lan"));
}

#[test]
fn receiving_all_ends_with_the_attachment() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let promiscuous = || {
        let show = ["ip", "-details", "link", "show", "dev", "lan"];
        !line.gateway.run(&show).contains("promiscuity 0 ")
    };
    let mut attachments = attach_both(&line.gateway, SETTINGS);
    assert!(!promiscuous());
    line.gateway.enter(|| attachments[0].receive_all()).expect("root may");
    assert!(promiscuous());
    drop(attachments);
    assert!(!promiscuous());
}

/// Both ports' attachments, made in the gateway's namespace.
fn attach_both(gateway: &Namespace, settings: Settings) -> [Attachment; 2] {
    gateway.enter(|| {
        ["lan", "wan"].map(|interface| {
            Attachment::attach(interface, settings.attach, settings.frame_bytes, 1)
                .unwrap_or_else(|error| panic!("{error}"))
        })
    })
}

fn program_attached(namespace: &Namespace, interface: &str) -> bool {
    namespace.run(&["ip", "link", "show", "dev", interface]).contains("prog/xdp")
}

/// A wire made of two ports: whatever comes in on one leaves on the other.
struct Wire {
    attachments: [Attachment; 2],
    stop: &'static AtomicBool,
    worker: JoinHandle<([XdpPort; 2], XdpFrames, u64)>,
}

/// What a wire has come to.
struct End {
    forwarded: u64,
    account: FrameAccount,
    statistics: [SocketStatistics; 2],
    kernel: [KernelCounters; 2],
}

impl Wire {
    fn start(gateway: &Namespace, settings: Settings) -> Wire {
        let attachments = attach_both(gateway, settings);
        let [lan, wan] = &attachments;
        let opened = gateway.enter(|| open(lan, wan, 0, &settings));
        let (mut ports, mut frames) = opened.unwrap_or_else(|error| panic!("{error}"));
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let worker = thread::spawn(move || {
            let forwarded = forward(&mut ports, &mut frames, stop);
            (ports, frames, forwarded)
        });
        Wire { attachments, stop, worker }
    }

    fn stop(self) -> End {
        self.stop.store(true, Ordering::Relaxed);
        let (mut ports, mut frames, forwarded) =
            self.worker.join().expect("the wire did not panic");
        // What is under way gets a moment to complete.
        wait_for("every transmission to complete", BOUND, || {
            ports.iter_mut().for_each(|port| port.maintain(&mut frames));
            XdpPort::account(&ports, &frames, 0).transmitting == [0, 0]
        });
        End {
            forwarded,
            account: XdpPort::account(&ports, &frames, 0),
            statistics: ports.each_ref().map(|port| port.statistics()),
            kernel: self.attachments.each_ref().map(|port| port.counters().expect("readable")),
        }
    }
}

impl End {
    fn assert_nothing_lost(&self) {
        assert!(self.account.balances(), "{:?}", self.account);
        let rings = self.account.total / 4;
        assert_eq!(self.account.receiving, [rings; 2], "{:?}", self.account);
        for statistics in &self.statistics {
            assert_eq!(statistics.faulty_descriptors, 0, "{statistics:?}");
            assert_eq!(statistics.rx_invalid_descs, 0, "{statistics:?}");
            assert_eq!(statistics.tx_invalid_descs, 0, "{statistics:?}");
        }
    }
}

/// Forwards both ways until told to stop; returns the number of frames. What does not fit is
/// released.
fn forward(ports: &mut [XdpPort; 2], frames: &mut XdpFrames, stop: &AtomicBool) -> u64 {
    let mut burst = Burst::new();
    let mut forwarded = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for from in [0, 1] {
            ports[from].receive(frames, &mut burst, BURST_MAX);
            idle &= burst.is_empty();
            let to = &mut ports[1 - from];
            for excess in burst.drain(to.transmit_room().min(burst.len())..) {
                XdpPort::release(frames, excess);
            }
            for frame in &mut burst {
                assert!(XdpPort::buffer(frames, frame).len() >= 14);
            }
            let account = XdpPort::account(ports, frames, burst.len());
            assert!(account.balances(), "{account:?}");
            forwarded += burst.len() as u64;
            ports[1 - from].transmit(frames, &mut burst);
        }
        ports.iter_mut().for_each(|port| port.maintain(frames));
        if idle {
            XdpPort::wait(ports, None, Duration::from_millis(100));
        }
    }
    forwarded
}
