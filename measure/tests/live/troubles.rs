//! What goes wrong with taps is said, and what could be measured is.

use nix::sys::signal::Signal;

use crate::lab::wait_for;
use crate::site::{BOUND, Site};

const TAPS: [&str; 4] = ["--ingress", "tap0", "--egress", "tap1"];

#[test]
fn a_signal_ends_a_run_and_everything_is_written() {
    let Some(site) = Site::new() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let measuring = site.measure(&TAPS);
        site.send(7000, 100);
        measuring.signal(signal);
        let ended = measuring.wait();
        assert!(ended.status.success(), "{signal}: {}", ended.log);
        assert_eq!(
            (ended.packets("matched"), ended.packets("ingress")),
            (100, 100),
            "{}",
            ended.log
        );
        assert!(ended.says("interrupted"));
        ended.assert_balance();
    }
}

#[test]
fn a_run_ends_with_its_packets_or_with_its_time() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&[&TAPS[..], &["--packets", "50"]].concat());
    site.send(7000, 60);
    let ended = measuring.wait();
    assert!(ended.status.success() && ended.packets("matched") >= 50, "{}", ended.log);
    assert_eq!(ended.packets("lost") + ended.packets("unmatched"), 0, "{}", ended.log);
    let ended =
        site.measure(&[&TAPS[..], &["--duration", "100ms", "--linger", "100ms"]].concat()).wait();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.says("no_frames"), "{}", ended.log);
}

#[test]
fn taps_that_are_swapped_are_told() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&["--ingress", "tap1", "--egress", "tap0"]);
    site.send(7000, 200);
    let ended = measuring.stop();
    assert!(ended.says("taps_swapped"), "{}", ended.log);
    assert_eq!(ended.packets("matched"), 200);
}

#[test]
fn a_tap_that_goes_silent_is_told_and_does_not_hold_up_the_other() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&TAPS);
    site.send(7000, 100);
    site.far.run(&["tc", "qdisc", "del", "dev", "wan", "clsact"]);
    // The other tap's packets pass their window, so nobody waits for the silent one: the losses show while it runs.
    wait_for("losses to be shown", BOUND, || {
        site.send(7001, 5);
        measuring.log().contains("matched   0.00 %")
    });
    let ended = measuring.stop();
    assert!(ended.says("tap_silent"), "{}", ended.log);
    let lost = ended.packets("ingress") - 100;
    assert_eq!((ended.packets("matched"), ended.packets("lost")), (100, lost), "{}", ended.log);
    ended.assert_balance();
}

#[test]
fn an_interface_that_disappears_ends_the_run_with_what_there_is() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&[&TAPS[..], &["--linger", "100ms"]].concat());
    site.send(7000, 100);
    site.measuring.run(&["ip", "link", "delete", "dev", "tap1"]);
    let ended = measuring.wait();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.says("tap_gone") && ended.log.contains("tap1"), "{}", ended.log);
    // A block that was not handed over goes with the interface.
    let (matched, lost) = (ended.packets("matched"), ended.packets("lost"));
    assert_eq!(matched + lost, 100, "{}", ended.log);
    assert_eq!(ended.tap("egress")["whole"], false);
}

#[test]
fn an_interface_that_goes_down_and_up_is_told_and_measured_again() {
    let Some(site) = Site::new() else { return };
    let measuring = site.measure(&TAPS);
    site.send(7000, 50);
    site.measuring.run(&["ip", "link", "set", "dev", "tap1", "down"]);
    site.send(7001, 50);
    site.measuring.run(&["ip", "link", "set", "dev", "tap1", "up"]);
    wait_for("the mirror to have its cable again", BOUND, || {
        site.far.run(&["ip", "-brief", "link", "show", "dev", "mirror1"]).contains(" UP ")
    });
    site.send(7002, 50);
    let ended = measuring.stop();
    assert!(ended.says("interface_down"), "{}", ended.log);
    let of = |port: u16| {
        let flow = ended.flows.iter().find(|flow| flow["dst_port"] == port).expect("it was sent");
        (flow["packets_ingress"].as_u64(), flow["packets_egress"].as_u64())
    };
    assert_eq!(of(7001), (Some(50), Some(0)), "{}", ended.log);
    assert_eq!(of(7002), (Some(50), Some(50)), "{}", ended.log);
}

#[test]
fn what_cannot_be_a_tap_is_refused_with_a_remedy() {
    let Some(site) = Site::new() else { return };
    site.measuring
        .run(&["ip", "link", "add", "name", "asleep", "type", "veth", "peer", "name", "other"]);
    site.measuring.run(&["ip", "tuntap", "add", "dev", "layer3", "mode", "tun"]);
    for (arguments, words) in [
        (["--ingress", "nosuchtap", "--egress", "tap1"], "there is no such interface"),
        (["--ingress", "tap0", "--egress", "asleep"], "tap egress: interface asleep: is down"),
        (["--ingress", "layer3", "--egress", "tap1"], "not an Ethernet interface"),
    ] {
        let ended = site.measure(&arguments).wait();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.log.contains(words), "{}", ended.log);
    }
}
