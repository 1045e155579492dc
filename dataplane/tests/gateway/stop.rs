//! SIGTERM: last words, nothing left behind, and next to no packet lost.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::lab::wait_for;
use crate::site::{BOUND, on_site, words};
use crate::traffic::{Train, Transfer};

/// Datagrams that one stop may cost, of about 5000 a second. A port that loses its XDP program throws
/// away what waits in its ring at that moment, and the kernel takes a moment to do it.
const LOST_MAX: usize = 100;

#[test]
fn a_stop_that_is_asked_for_loses_next_to_nothing() {
    on_site(|site| {
        site.bridge();
        for outbound in [true, false] {
            let daemon = Daemon::start(site, &[]);
            let train = Train::start(site, outbound);
            let begun = Instant::now();
            // `stop` checks the exit status, the last words, the socket and the programs.
            let last = daemon.stop();
            let stopped = begun.elapsed();
            assert_eq!(last.total.received, last.total.forwarded);
            assert!(last.total.received >= 100);
            train.wait_for_progress();
            let arrivals = train.end();
            assert_eq!(arrivals.doubled, 0, "{arrivals:?}");
            assert!(arrivals.sent > 200 && arrivals.lost <= LOST_MAX, "{arrivals:?}");
            eprintln!("a stop of {stopped:?}: {arrivals:?}");
        }
    });
}

#[test]
fn sigint_stops_as_sigterm_does() {
    on_site(|site| {
        let mut daemon = Daemon::start(site, &[]);
        daemon.signal(Signal::SIGINT);
        wait_for("the end", BOUND, || !daemon.runs());
        assert!(!daemon.files().socket.exists());
        assert!(!site.has_programs());
    });
}

#[test]
fn a_stop_in_the_middle_of_a_flood_accounts_for_every_frame() {
    on_site(|site| {
        site.bridge();
        for _ in 0..3 {
            let daemon = Daemon::start(site, &[]);
            let transfer = Transfer::start(site);
            transfer.wait_for_progress();
            let last = daemon.stop();
            assert!(last.total.short + last.total.long > 40);
            transfer.wait_for_progress();
            transfer.finish();
        }
    });
}

#[test]
fn a_stop_ends_while_the_far_port_is_down() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let train = Train::start(site, true);
        site.gateway().run(&words("ip link set dev wan down"));
        let received = daemon.status().total.received;
        daemon.wait_for("more to come in", |now| now.total.received > received + 100);
        let last = daemon.stop();
        assert_eq!(last.total.received, last.total.forwarded);
        assert_eq!(train.end().doubled, 0);
    });
}

#[test]
fn a_stop_ends_when_a_port_is_gone() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        assert!(site.line.answers());
        site.gateway().run(&words("ip link delete dev wan"));
        assert!(!site.line.answers());
        assert_eq!(daemon.status().ports.wan.interface, "wan");
        // So that the check for programs has something to look at.
        site.gateway().run(&words("ip link add name wan type veth peer name spare"));
        daemon.stop();
    });
}
