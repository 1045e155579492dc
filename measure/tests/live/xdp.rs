//! Taps by XDP: beside packet sockets, starved, killed, in the way of others.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use measure::source::listener::{Way, now_ns};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::wait_for;
use crate::packets::measure_by;
use crate::site::{BOUND, Ended, Site, has, quantile, text};

const TAPS: [&str; 6] = ["--source", "xdp", "--ingress", "tap0", "--egress", "tap1"];

/// Numbers and arrival times of the packets of a capture, by tshark: UDP packets whose payload is a number.
fn arrivals(capture: &Path) -> HashMap<u32, u64> {
    let fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "udp.payload"];
    let output = Command::new("tshark")
        .args(["-r", text(capture), "-Y", "udp.dstport == 7000"])
        .args(fields)
        .output()
        .expect("tshark is installed");
    let rows = String::from_utf8(output.stdout).expect("tshark writes text");
    let parse = |row: &str| {
        let (time, payload) = row.split_once('\t').expect("two fields");
        let (seconds, fraction) = time.split_once('.').expect("a fraction");
        let ns = seconds.parse::<u64>().unwrap() * 1_000_000_000 + fraction.parse::<u64>().unwrap();
        let digits: String = payload.as_bytes().chunks(2).map(|hex| char::from(hex[1])).collect();
        (digits.parse().expect("the payload is a number in digits"), ns)
    };
    rows.lines().map(parse).collect()
}

fn xdp<'e>(ended: &'e Ended, tap: &str) -> &'e Value {
    &ended.tap(tap)["live"]["xdp"]
}

/// Whether a program is on an interface of the measuring machine.
fn is_attached(site: &Site, tap: &str) -> bool {
    site.measuring.run(&["ip", "link", "show", "dev", tap]).contains("xdp")
}

#[test]
fn both_sources_find_the_same_packets() {
    const PACKETS: u32 = 3000;
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&TAPS);
    assert!(is_attached(&site, "tap0") && is_attached(&site, "tap1"));
    site.send(7000, PACKETS);
    let by_xdp = measuring.stop();
    by_xdp.assert_balance();
    let measuring = site.measure(&["--source", "packet", "--ingress", "tap0", "--egress", "tap1"]);
    site.send(7000, PACKETS);
    let by_packet = measuring.stop();
    by_packet.assert_balance();
    for ended in [&by_xdp, &by_packet] {
        for name in ["ingress", "egress", "matched"] {
            assert_eq!(ended.packets(name), u64::from(PACKETS), "{name}: {}", ended.log);
        }
        let flow = ended.flows.iter().find(|flow| flow["dst_port"] == 7000).expect("it was sent");
        // Ethernet 14, IPv4 20, UDP 8, payload 32.
        assert_eq!(flow["bytes"], PACKETS * 74, "{flow:#}");
    }
    assert_eq!(by_packet.tap("ingress")["live"]["xdp"], Value::Null);
    let delay = |ended: &Ended| ended.results["delay_ns"]["p50"].as_u64().expect("a number");
    eprintln!("median delay: xdp {} ns, packet {} ns", delay(&by_xdp), delay(&by_packet));
}

#[test]
fn a_stamp_that_a_veth_gives_is_never_called_hardware() {
    let Some(site) = Site::new() else { return };
    let refused = site.measure(&[&TAPS[..], &["--stamps", "hardware"]].concat()).wait();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.log.contains("no hardware stamps"), "{}", refused.log);
    let measuring = site.measure(&TAPS);
    assert!(measuring.log().contains("SOFTWARE STAMPS"), "{}", measuring.log());
    site.send(7000, 100);
    let asked = measuring.stop();
    assert!(asked.says("software_stamps"), "{}", asked.log);
    let measuring = site.measure(&[&TAPS[..], &["--stamps", "software"]].concat());
    site.send(7000, 100);
    let unasked = measuring.stop();
    for tap in ["ingress", "egress"] {
        for ended in [&asked, &unasked] {
            let stamps = &ended.tap(tap)["stamps"];
            assert_eq!(stamps["driver"], 100, "{stamps}");
            assert_eq!(stamps["hardware"], 0, "{stamps}");
        }
        let xdp = xdp(&asked, tap);
        assert_eq!(xdp["asks_driver"], true, "{xdp}");
        let answers = ["nic_zero", "nic_refused", "nic_unknown"]
            .map(|answer| xdp[answer].as_u64().expect("a number"));
        // Each fell back for one reason.
        assert_eq!(answers.iter().sum::<u64>(), 100, "{xdp}");
        assert_eq!(self::xdp(&unasked, tap)["asks_driver"], false);
    }
    eprintln!("a veth's answers: {}", xdp(&asked, "ingress"));
}

#[test]
fn no_packet_is_stamped_before_tcpdump_saw_it_on_its_way_to_the_tap_nor_after_it_was_read() {
    const PACKETS: u32 = 1000;
    let Some(site) = Site::new() else { return };
    if !has("tcpdump") || !has("tshark") {
        return;
    }
    // tcpdump gets a packet where it is copied for the near tap, just before.
    let capture = site.file("near.pcap");
    let options = ["--time-stamp-precision=nano", "-U", "-s", "128", "-i", "lan"];
    let dump = [&["tcpdump"][..], &options, &["-w", text(&capture)]].concat();
    let dump = site.near.spawn(&dump);
    wait_for("tcpdump to write", BOUND, || capture.metadata().is_ok_and(|file| file.len() > 0));
    let stamps = measure_by(Way::Xdp, &site, 7000, PACKETS.into(), || site.send(7000, PACKETS));
    let end_ns = now_ns();
    let complete = || arrivals(&capture).len() == PACKETS as usize;
    wait_for("tcpdump to have them all", BOUND, complete);
    drop(dump);
    let before = arrivals(&capture);
    assert_eq!(stamps.packets.len(), PACKETS as usize, "{:?}", stamps.others);
    let mut late = Vec::new();
    for (number, [ingress_ns, egress_ns]) in (0..PACKETS).zip(&stamps.packets) {
        let sent_ns = before[&number];
        for tap_ns in [ingress_ns, egress_ns] {
            assert!((sent_ns..end_ns).contains(tap_ns), "{number}: {sent_ns} {tap_ns} {end_ns}");
        }
        late.push((ingress_ns - sent_ns) as f64 / 1000.0);
    }
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&mut late, share));
    eprintln!("the program stamps later than tcpdump by p50 {p50:.1} us, p99 {p99:.1} us");
}

#[test]
fn a_starved_reader_shows_as_drops_and_the_account_still_balances() {
    let Some(site) = Site::new() else { return };
    // 512 frames of packet memory a tap, and a reader that does not run.
    let measuring = site.measure(&[&TAPS[..], &["--ring-mib", "1"]].concat());
    measuring.signal(Signal::SIGSTOP);
    site.send(7000, 2000);
    measuring.signal(Signal::SIGCONT);
    let ended = measuring.stop();
    ended.assert_balance();
    assert!(ended.says("capture_drops"), "{}", ended.log);
    for tap in ["ingress", "egress"] {
        let (live, xdp) = (&ended.tap(tap)["live"], xdp(&ended, tap));
        assert_eq!(live["kernel_frames"], 2000, "{live:#}");
        assert_eq!(live["dropped"], 2000 - 512, "{live:#}");
        assert_eq!((&xdp["rx_dropped"], &xdp["fill_ring_empty"]), (&1488.into(), &1488.into()));
        assert_eq!((&xdp["rx_ring_full"], &xdp["no_socket"]), (&0.into(), &0.into()));
    }
    assert_eq!(ended.packets("ingress"), 512);
}

#[test]
fn the_program_goes_with_the_process_however_that_dies() {
    let Some(site) = Site::new() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGABRT] {
        let measuring = site.measure(&TAPS);
        assert!(is_attached(&site, "tap0") && is_attached(&site, "tap1"), "{signal}");
        site.send(7000, 100);
        measuring.signal(signal);
        measuring.wait_for_exit();
        wait_for("the program to be gone", BOUND, || {
            !is_attached(&site, "tap0") && !is_attached(&site, "tap1")
        });
    }
    // And nothing is in the way of the next.
    let measuring = site.measure(&TAPS);
    site.send(7000, 100);
    assert_eq!(measuring.stop().packets("matched"), 100);
}

#[test]
fn every_queue_is_read_and_a_backlog_of_two_comes_in_the_order_of_time() {
    let Some(site) = Site::new() else { return };
    let queues_used = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    for (namespace, mirror, tap) in
        [(&site.near, "mirror0", "tap0"), (&site.far, "mirror1", "tap1")]
    {
        namespace.run(&["ip", "link", "delete", "dev", mirror]);
        let queues = ["numtxqueues", "2", "numrxqueues", "2"];
        let add = ["ip", "link", "add", "name", mirror];
        let peer = ["type", "veth", "peer", "name", tap];
        let there = ["netns", site.measuring.name()];
        namespace.run(&[&add[..], &queues, &peer, &queues, &there].concat());
        namespace.run(&["ip", "link", "set", "dev", mirror, "up"]);
        site.measuring.run(&["ip", "link", "set", "dev", tap, "up"]);
        // What a CPU sends goes to the queue of its number.
        for queue in 0..queues_used {
            let mask = 1 << queue;
            let xps = format!("echo {mask} > /sys/class/net/{mirror}/queues/tx-{queue}/xps_cpus");
            namespace.run(&["sh", "-c", &xps]);
        }
    }
    site.mirror_again();
    let measuring = site.measure(&TAPS);
    // Longer than a clock may go back before it counts as set back.
    measuring.signal(Signal::SIGSTOP);
    let script = "import os,socket\nc=sorted(os.sched_getaffinity(0))\nfor n in range(6000):\n\
         \x20if n%50==0: os.sched_setaffinity(0,[c[n//50%2%len(c)]])\n\
         \x20if n%50==0: s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
         \x20s.sendto(b'%032d'%n,('10.0.0.9',7000+n//50%2))";
    site.client.run(&["python3", "-c", script]);
    measuring.signal(Signal::SIGCONT);
    let ended = measuring.stop();
    ended.assert_balance();
    assert_eq!((ended.packets("matched"), ended.packets("lost")), (6000, 0), "{}", ended.log);
    assert!(!ended.says("clock_set_back"), "{}", ended.log);
    assert_eq!(ended.results["without_delay"], 0, "{}", ended.log);
    assert_eq!(xdp(&ended, "ingress")["queues"], 2);
    let counters = site.measuring.run(&["ethtool", "-S", "tap0"]);
    for queue in 0..queues_used {
        let name = format!("rx_queue_{queue}_xdp_packets:");
        let line = counters.lines().find_map(|line| line.trim().strip_prefix(&name));
        let packets: u64 = line.expect("a veth counts them").trim().parse().expect("a number");
        assert!(packets > 1000, "queue {queue}: {packets}");
    }
}

#[test]
fn what_stands_in_the_way_of_the_program_is_named_with_a_remedy() {
    let Some(site) = Site::new() else { return };
    let same = ["--source", "xdp", "--ingress", "tap0", "--egress", "tap0"];
    let ended = site.measure(&same).wait();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.log.contains("one reader: use --source packet"), "{}", ended.log);
    let first = site.measure(&TAPS);
    let second = site.second(&[&["live"][..], &TAPS].concat());
    assert_eq!(second.status.code(), Some(1));
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(log.contains("tap0") && log.contains("--source packet"), "{log}");
    site.send(7000, 100);
    assert_eq!(first.stop().packets("matched"), 100, "the first is not disturbed");
    site.measuring.run(&["ip", "link", "set", "dev", "tap1", "mtu", "9000"]);
    let ended = site.measure(&TAPS).wait();
    assert!(ended.log.contains("tap1") && ended.log.contains("MTU"), "{}", ended.log);
    site.measuring.run(&["ip", "link", "add", "link", "tap0", "name", "tap9", "type", "macvlan"]);
    site.measuring.run(&["ip", "link", "set", "dev", "tap9", "up"]);
    site.measuring.run(&["ip", "link", "set", "dev", "tap1", "mtu", "1500"]);
    let ended = site.measure(&["--source", "xdp", "--ingress", "tap9", "--egress", "tap1"]).wait();
    assert!(ended.log.contains("takes no XDP program"), "{}", ended.log);
    assert!(ended.log.contains("--source packet"), "{}", ended.log);
    assert!(!is_attached(&site, "tap0") && !is_attached(&site, "tap1"), "nothing stays behind");
}

#[test]
fn an_interface_that_disappears_under_the_program_ends_the_run_with_what_there_is() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&[&TAPS[..], &["--linger", "100ms"]].concat());
    site.send(7000, 100);
    site.measuring.run(&["ip", "link", "delete", "dev", "tap1"]);
    let ended = measuring.wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.says("tap_gone") && ended.log.contains("tap1"), "{}", ended.log);
    // What the driver had not come to goes with the interface.
    assert_eq!(ended.packets("matched") + ended.packets("lost"), 100, "{}", ended.log);
    assert_eq!(ended.tap("egress")["whole"], false);
}
