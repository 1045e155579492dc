//! The ways to attach, to copy and to wait: traffic flows, and the status says what runs.

use std::thread;
use std::time::Duration;

use dataplane::xdp::Mode;

use crate::daemon::{Daemon, Files, Setting, cpu_ticks, run_to_end};
use crate::lab::{CLIENT, CLIENT_V6, wait_for};
use crate::site::{BOUND, on_site, text};
use crate::web::{Nginx, download};

#[test]
fn traffic_flows_in_native_mode() {
    traffic_flows(Mode::Native, &[("ports.attach", "\"native\""), ("ports.copy", "\"copy\"")]);
}

#[test]
fn traffic_flows_in_generic_mode() {
    traffic_flows(Mode::Generic, &[("ports.attach", "\"generic\""), ("ports.copy", "\"copy\"")]);
}

#[test]
fn traffic_flows_to_a_busy_worker() {
    traffic_flows(Mode::Native, &[("workers.poll", "\"busy\""), ("workers.cores", "[1]")]);
}

#[test]
fn traffic_flows_with_kernel_busy_polling() {
    traffic_flows(Mode::Native, &[("workers.busy_poll_budget", "64")]);
}

#[test]
fn traffic_flows_in_large_frames_and_small_rings() {
    let settings = [
        ("ports.frame_bytes", "4096"),
        ("ports.ring_entries", "64"),
        ("classifier.policy", "\"ecmp\""),
    ];
    traffic_flows(Mode::Native, &settings);
}

#[test]
fn traffic_flows_unclassified_under_policy_none() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("classifier.policy", "\"none\"")]);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(1_000_000);
        download(site, site.far_host(), &nginx, CLIENT, &name);
        drop(nginx);
        let last = daemon.stop();
        assert_eq!(last.total.forwarded, last.total.untouched.unclassified);
        assert_eq!(last.total.flows.created, 0);
    });
}

fn traffic_flows(mode: Mode, settings: &[Setting<'_>]) {
    on_site(|site| {
        let daemon = Daemon::start(site, settings);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(10_000_000);
        for address in [CLIENT, CLIENT_V6] {
            download(site, site.far_host(), &nginx, address, &name);
        }
        drop(nginx);
        let now = daemon.status();
        for port in [&now.ports.lan, &now.ports.wan] {
            assert_eq!((port.xdp, port.copy.as_str()), (mode, "copy"));
        }
        let last = daemon.stop();
        assert!(last.total.short + last.total.long > 10_000, "{:?}", last.total);
    });
}

#[test]
fn zero_copy_is_refused_where_the_driver_cannot() {
    on_site(|site| {
        let files = Files::new(site, "refused");
        files.configure(&[("ports.copy", "\"zero-copy\"")]);
        let end = run_to_end(site, &["run", "--config", text(&files.configuration)]);
        assert_eq!(end.status.code(), Some(1));
        let words = String::from_utf8_lossy(&end.stderr).into_owned();
        for word in ["lan, queue 0: ", "zero-copy", "copy = \"copy\""] {
            assert!(words.contains(word), "{word:?} is not in {words}");
        }
        assert!(!site.has_programs(), "a program is left behind");
        assert!(!files.socket.exists(), "the socket is left behind");
    });
}

#[test]
fn an_adaptive_worker_sleeps_when_nothing_comes() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("workers.poll", "\"adaptive\"")]);
        wait_for("an answer", BOUND, || site.line.answers());
        let before = cpu_ticks(daemon.id());
        thread::sleep(Duration::from_secs(1));
        // A worker that polls uses all hundred. A longer second only makes this harder to pass.
        let used = cpu_ticks(daemon.id()) - before;
        assert!(used < 50, "{used} hundredths of an idle second");
        // And it wakes.
        wait_for("an answer", BOUND, || site.line.answers());
        daemon.stop();
    });
}
