//! An interface that goes and comes back: the gateway says so, waits for it, and goes on where it was.

use std::time::Duration;

use dataplane::status::{PortState, Status};
use nix::sys::signal::Signal;

use crate::daemon::{Daemon, cpu_ticks};
use crate::lab::{cable, wait_for};
use crate::site::{BOUND, Site, on_site, text, words};
use crate::traffic::{Conversation, Injector, mac};

#[test]
fn an_interface_that_is_deleted_and_made_again_is_taken_back_with_all_flows() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let mut conversation = Conversation::open(site);
        for (round, port) in ["wan", "lan", "wan"].into_iter().enumerate() {
            conversation.talk(17);
            let before = daemon.status();
            delete(site, port);
            let without = daemon.wait_for("it to be noticed", |now| {
                state(now, port) == PortState::Gone && state(now, other(port)) == PortState::Closed
            });
            assert!(!site.has_programs_on(other(port)), "the kernel has the port that is left");
            assert!(daemon.files().log().contains(&format!("{port} is gone")), "it says so");
            // What was counted is not forgotten.
            assert!(without.total.short >= before.total.short);
            assert!(without.workers[0].report.frames_balance);

            make(site, port);
            back(&daemon, round as u64 + 1);
            wait_for("an answer", BOUND, || site.line.answers());
        }
        // One flow, its count gone on: packets 41 and later are long.
        conversation.talk(17);
        drop(conversation);
        site.wait_for_silence();
        let last = daemon.stop();
        assert_eq!((last.total.flows.created, last.total.short), (1, 40));
        assert!(last.total.long > 0);
        assert_eq!(last.ports_reopened, 3);
    });
}

/// New workers hand out their tables too, and where there are none the flows are those of the last.
#[test]
fn flows_are_saved_after_a_port_was_away_and_while_it_is() {
    on_site(|site| {
        let file = format!("{:?}", text(&site.folder.file("flows")));
        let settings = [("state.file", file.as_str()), ("state.interval", "\"250ms\"")];
        let mut daemon = Daemon::start(site, &settings);
        let saves = |now: &Status| now.state.as_ref().expect("flows are saved").saves;
        // The other end has another MAC address each time, of which a host that is content does not ask.
        let forget = || drop(site.datacenter().run(&words("ip neigh flush dev eth0")));
        let mut conversation = Conversation::open(site);
        conversation.talk(17);
        delete(site, "wan");
        daemon.wait_for("it to be noticed", |now| state(now, "wan") == PortState::Gone);
        make(site, "wan");
        forget();
        back(&daemon, 1);
        wait_for("an answer", BOUND, || site.line.answers());
        conversation.talk(33);
        let before = saves(&daemon.status());
        daemon.wait_for("two saves", |now| saves(now) >= before + 2);

        delete(site, "wan");
        daemon.wait_for("it to be noticed", |now| state(now, "wan") == PortState::Gone);
        daemon.signal(Signal::SIGTERM);
        wait_for("the end", BOUND, || !daemon.runs());
        drop(daemon);
        make(site, "wan");
        forget();
        let daemon = Daemon::start(site, &settings);
        wait_for("an answer", BOUND, || site.line.answers());
        conversation.talk(10);
        let last = daemon.stop();
        assert_eq!((last.total.flows.restored, last.total.flows.created), (1, 1));
        assert!(last.total.short == 0 && last.total.long >= 10, "{:?}", last.total);
    });
}

#[test]
fn an_interface_that_visits_another_namespace_is_taken_back() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        assert!(site.line.answers());
        let (here, there) = (site.gateway(), site.far_host());
        // Long enough to be missed, and too short to be.
        for round in 0..4 {
            here.run(&words(&format!("ip link set dev lan netns {}", there.name())));
            if round % 2 == 0 {
                daemon.wait_for("it to be noticed", |now| state(now, "lan") == PortState::Gone);
            }
            there.run(&words(&format!("ip link set dev lan netns {}", here.name())));
            here.run(&words("ip link set dev lan up"));
            back(&daemon, round + 1);
            wait_for("an answer", BOUND, || site.line.answers());
        }
        daemon.stop();
    });
}

#[test]
fn a_port_with_another_mac_address_leaves_that_to_the_kernel() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let own = "02:00:00:00:00:99";
        site.gateway().run(&words(&format!("ip link set dev lan address {own}")));
        back(&daemon, 1);
        let injector = Injector::new(site.datacenter());
        let frame = [&mac(own)[..], &[2, 0, 0, 0, 0, 0x55, 0x88, 0xb5], &[0; 46]].concat();
        injector.send(&frame);
        assert!(site.line.answers());
        let last = daemon.stop();
        assert_eq!(last.ports.lan.kernel.own_address, 1);
    });
}

#[test]
fn a_port_that_returns_unfit_is_refused_with_the_reason_and_taken_when_it_fits() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        delete(site, "wan");
        daemon.wait_for("it to be noticed", |now| state(now, "wan") == PortState::Gone);
        make(site, "spare");
        site.gateway().run(&words("ip link set dev spare down"));
        site.gateway().run(&words("ip link set dev spare mtu 3000"));
        site.gateway().run(&words("ip link set dev spare name wan up"));
        let reason = "its MTU of 3000 does not fit";
        wait_for("the reason", BOUND, || daemon.files().log().contains(reason));
        assert_eq!(state(&daemon.status(), "wan"), PortState::Closed);
        // Said once, however often it is tried.
        let before = cpu_ticks(daemon.id());
        std::thread::sleep(Duration::from_secs(1));
        assert!(cpu_ticks(daemon.id()) - before < 50, "it waits without work");
        assert_eq!(daemon.files().log().matches(reason).count(), 1);
        site.gateway().run(&words("ip link set dev wan mtu 1500"));
        back(&daemon, 1);
        wait_for("an answer", BOUND, || site.line.answers());
        daemon.stop();
    });
}

fn state(status: &Status, port: &str) -> PortState {
    if port == "lan" { status.ports.lan.state } else { status.ports.wan.state }
}

fn other(port: &str) -> &'static str {
    if port == "lan" { "wan" } else { "lan" }
}

/// Waits until both ports were opened again for the n-th time.
fn back(daemon: &Daemon<'_>, times: u64) {
    daemon.wait_for("the ports to be open again", |now| {
        now.ports_reopened >= times
            && [now.ports.lan.state, now.ports.wan.state] == [PortState::Up; 2]
    });
}

/// Deletes one of the gateway's ports, and with it the other end of the cable.
fn delete(site: &Site, port: &str) {
    site.gateway().run(&words(&format!("ip link delete dev {port}")));
}

/// Lays the cable to a host anew, with new MAC addresses.
fn make(site: &Site, port: &str) {
    let (host, number) = match port {
        "lan" => (site.datacenter(), 1),
        _ => (site.far_host(), 2),
    };
    cable((host, "eth0"), (site.gateway(), port));
    host.address("eth0", &format!("10.0.0.{number}/24"));
    host.address("eth0", &format!("fd00::{number}/64"));
}
