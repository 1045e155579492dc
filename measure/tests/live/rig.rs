//! The rig itself: whose stamps, which offloads, which tags, how far off.

use serde_json::Value;

use crate::lab::wait_for;
use crate::site::{BOUND, Site, has_scapy, text};

const TAPS: [&str; 4] = ["--ingress", "tap0", "--egress", "tap1"];

#[test]
fn hardware_stamps_that_a_veth_has_not_are_refused_or_done_without_loudly() {
    let Some(site) = Site::new() else { return };
    let ended = site.measure(&[&TAPS[..], &["--stamps", "hardware"]].concat()).wait();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.log.contains("no hardware stamps"), "{}", ended.log);
    let measuring = site.measure(&TAPS);
    assert!(measuring.log().contains("SOFTWARE STAMPS"), "{}", measuring.log());
    site.send(7000, 100);
    let ended = measuring.stop();
    assert!(ended.says("software_stamps"), "{}", ended.log);
    for tap in ["ingress", "egress"] {
        let stamps = &ended.tap(tap)["stamps"];
        assert_eq!(
            (&stamps["software"], &stamps["hardware"]),
            (&100.into(), &0.into()),
            "{stamps}"
        );
        assert!(ended.tap(tap)["live"]["no_hardware_stamps"].is_string());
    }
    ended.assert_balance();
}

#[test]
fn offloads_that_merge_packets_are_off_during_a_run_and_on_again_afterwards() {
    let Some(site) = Site::new() else { return };
    let gro = || {
        let features = site.measuring.run(&["ethtool", "-k", "tap0"]);
        features.contains("generic-receive-offload: on")
    };
    assert!(!gro(), "the laboratory turns it off");
    drop(site.measure(&[&TAPS[..], &["--duration", "10ms"]].concat()).wait());
    assert!(!gro(), "what was off stays off");
    site.measuring.run(&["ethtool", "-K", "tap0", "gro", "on"]);
    let measuring = site.measure(&TAPS);
    assert!(!gro());
    measuring.stop();
    assert!(gro());
    let measuring = site.measure(&[&TAPS[..], &["--keep-offloads"]].concat());
    assert!(gro());
    measuring.stop();
}

#[test]
fn frames_that_nobody_segmented_are_told() {
    let Some(site) = Site::new() else { return };
    for host in [&site.client, &site.server] {
        host.run(&["ethtool", "-K", "eth0", "tx", "on", "sg", "on", "tso", "on", "gso", "on"]);
    }
    for (namespace, ports) in
        [(&site.near, ["lan", "mid", "mirror0"]), (&site.far, ["dim", "wan", "mirror1"])]
    {
        for port in ports {
            namespace
                .run(&["ethtool", "-K", port, "tx", "on", "sg", "on", "tso", "on", "gso", "on"]);
        }
    }
    let server = site.server.spawn(&["python3", "-c", RECEIVE]);
    wait_for("the server to listen", BOUND, || site.server.run(&["ss", "-ltn"]).contains(":9000"));
    let measuring = site.measure(&TAPS);
    site.client.run(&["python3", "-c", SEND]);
    let ended = measuring.stop();
    drop(server);
    assert!(ended.says("packets_merged"), "{}", ended.log);
    assert!(ended.tap("ingress")["live"]["oversize"].as_u64() > Some(0));
    ended.assert_balance();
}

const RECEIVE: &str = "import socket\nl=socket.create_server(('10.0.0.2',9000))\nc,_=l.accept()\n\
    while c.recv(65536): pass";
const SEND: &str =
    "import socket\nc=socket.create_connection(('10.0.0.2',9000))\nc.sendall(b'x'*2000000)";

#[test]
fn a_vlan_tag_that_the_kernel_took_off_is_measured_with_its_packet() {
    let Some(site) = Site::new() else { return };
    if !has_scapy() {
        return;
    }
    // The kernel takes the tag off every frame that it receives, before a tap gets it; the driver of a veth tells an
    // XDP program of it.
    let macs = [site.server.mac("eth0"), site.client.mac("eth0")];
    let packet = "Ether(dst=sys.argv[1],src=sys.argv[2])/Dot1Q(vlan=5)/IP(src='10.5.0.1',dst='10.5.0.9',id=n)\
         /UDP(sport=7,dport=7000)/(b'%032d'%n)";
    let script = format!(
        "import sys\nfrom scapy.all import *\nsendp([{packet} for n in range(40)],iface='eth0',verbose=0)"
    );
    for (namespace, mirror) in [(&site.near, "mirror0"), (&site.far, "mirror1")] {
        namespace.run(&["ethtool", "-K", mirror, "txvlan", "on"]);
    }
    for source in ["packet", "xdp"] {
        let measuring = site.measure(&[&TAPS[..], &["--source", source]].concat());
        site.client.run(&["/usr/bin/python3", "-c", &script, &macs[0], &macs[1]]);
        let ended = measuring.stop();
        let flow = ended.flows.iter().find(|flow| flow["dst_port"] == 7000).expect("it was sent");
        let packets = (&flow["packets_ingress"], &flow["packets_egress"]);
        assert_eq!(packets, (&40.into(), &40.into()), "{source}: {}", ended.log);
        // Ethernet 14, tag 4, IPv4 20, UDP 8, payload 32.
        assert_eq!(flow["bytes"], 40 * 78, "{source}: {flow:#}");
        let live = &ended.tap("ingress")["live"];
        assert!(live["tags_restored"].as_u64() >= Some(40), "{source}: {}", ended.log);
    }
}

#[test]
fn calibration_of_one_interface_with_itself_finds_equal_stamps() {
    let Some(site) = Site::new() else { return };
    let output = site.file("calibration.json");
    let taps = ["calibrate", "--live", "--ingress", "tap0", "--egress", "tap0", "--json"];
    let measuring = site.start(&[&taps[..], &["--output", text(&output)]].concat());
    site.send(7000, 500);
    let ended = measuring.stop();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.log.contains("same_interface"), "{}", ended.log);
    // The kernel stamps a packet once, so both sockets have the same stamps; 1 ns is their unit.
    assert_eq!(ended.results["packets"], 500);
    assert_eq!(
        (&ended.results["difference_ns"]["max"], &ended.results["error_bound_ns"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn calibration_finds_the_error_bound_that_a_run_then_has() {
    let Some(site) = Site::new() else { return };
    // What the near tap sees goes to both ports: one tap on two ports.
    for direction in ["ingress", "egress"] {
        site.far.run(&["tc", "filter", "delete", "dev", "wan", direction]);
    }
    site.far.run(&["ip", "link", "set", "dev", "mirror1", "netns", site.near.name()]);
    site.near.run(&["ip", "link", "set", "dev", "mirror1", "up"]);
    for direction in ["ingress", "egress"] {
        let filter =
            ["tc", "filter", "add", "dev", "lan", direction, "protocol", "all", "prio", "1"];
        let both = ["action", "mirred", "egress", "mirror", "dev", "mirror1", "pipe"];
        let first = ["action", "mirred", "egress", "mirror", "dev", "mirror0"];
        site.near.run(&["tc", "filter", "delete", "dev", "lan", direction]);
        site.near.run(
            &[&filter[..], &["u32", "match", "u32", "0", "0"], &both[..], &first[..]].concat(),
        );
    }
    let output = site.file("calibration.json");
    let taps = ["calibrate", "--live", "--ingress", "tap0", "--egress", "tap1", "--json"];
    let measuring = site.start(&[&taps[..], &["--output", text(&output)]].concat());
    site.send(7000, 2000);
    let ended = measuring.stop();
    let found: Value = ended.results.clone();
    assert_eq!(found["packets"], 2000, "{}", ended.log);
    eprintln!("calibration: {found}");
    let bound = found["error_bound_ns"].as_u64().expect("a number");
    assert!(bound > 1, "two cables do not stamp at the same nanosecond: {found:#}");
    let measuring = site.measure(&[&TAPS[..], &["--calibration", text(&output)]].concat());
    site.send(7001, 10);
    let ended = measuring.stop();
    assert_eq!(ended.results["error_bound"]["ns"], bound, "{}", ended.log);
}
