//! The load driver asks nginx, and tcpdump looks on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use measure::lab::driver;
use measure::lab::records::{Bulk, RequestRecord};
use measure::lab::workload::Wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hosts::{Hosts, Seen, plan};

#[test]
fn requests_in_plain_take_the_bytes_and_the_packets_that_they_should() {
    takes_what_it_should(Wire::of_mtu(1500, false));
}

#[test]
fn encrypted_requests_take_the_bytes_and_the_packets_that_they_should() {
    takes_what_it_should(Wire::of_mtu(1500, true));
}

#[test]
fn over_a_tunnel_requests_take_the_bytes_and_the_packets_that_they_should() {
    takes_what_it_should(Wire::of_mtu(1476, true));
}

/// On a path of 100 Mbit/s, all requests of a mix.
fn takes_what_it_should(wire: Wire) {
    let Some(hosts) = Hosts::new() else { return };
    hosts.slow("100mbit");
    hosts.limit_segments(wire.segment_bytes);
    let (web, _nginx) = hosts.serve(wire.segment_bytes);
    let capture = hosts.capture();
    let (account, records) = hosts.drive(&plan(Some(&web), wire, 3.0));
    let connections = capture.connections();

    assert_eq!(account.answered, account.scheduled);
    assert_eq!(records.len(), account.scheduled as usize);
    assert_eq!(connections.len(), records.len(), "a connection each");
    for (number, record) in (0..).zip(&records) {
        assert_eq!((record.number, &record.error), (number, &None));
        stamps_are_in_order(record);
        let port = record.port.expect("it was connected");
        let [from_client, from_server] = connections[&port];
        assert_eq!(from_client.resets + from_server.resets, 0, "{record:?}");
        let bulk = if record.bulk == Bulk::Download { from_server } else { from_client };
        right_bytes(record, bulk, wire);
        right_packets(record, bulk, wire);
    }
    eprintln!("{account:?}");
}

fn stamps_are_in_order(record: &RequestRecord) {
    let stamps =
        [Some(record.due_ns), Some(record.started_ns), record.connected_ns, record.finished_ns];
    assert!(stamps.iter().all(Option::is_some) && stamps.is_sorted(), "{record:?}");
}

/// Head and body, and for TLS records and a handshake.
fn right_bytes(record: &RequestRecord, bulk: Seen, wire: Wire) {
    let most = match wire.tls {
        false => 400,
        true => 1_500 + (record.bytes / u64::from(wire.record_plain_bytes()) + 1) * 22,
    };
    let beside = bulk.bytes.checked_sub(record.bytes);
    assert!(beside.is_some_and(|beside| (50..most).contains(&beside)), "{record:?} {bulk:?}");
}

/// How often a kernel acknowledges on its own depends on who is quicker, so those packets are not counted but for the
/// two, or three, that a quick machine has. A goodbye may leave with the last of the body or after it; and where a
/// sender is slower than the path, a segment of each piece is not full: 3 %.
fn right_packets(record: &RequestRecord, bulk: Seen, wire: Wire) {
    let usual = 2 + u32::from(wire.tls && record.bulk == Bulk::Upload);
    let packets = bulk.packets - bulk.repeated - bulk.acknowledgements + usual;
    let least = record.packets - 2;
    let most = record.packets + 2 + record.packets / 33;
    assert!((least..=most).contains(&packets), "{record:?} {bulk:?}");
}

#[test]
fn a_server_that_is_killed_costs_errors_and_no_time() {
    let Some(hosts) = Hosts::new() else { return };
    let wire = Wire::of_mtu(1500, true);
    let (web, mut nginx) = hosts.serve(wire.segment_bytes);
    let plan = plan(Some(&web), wire, 2.0);
    let mut records = Vec::new();
    let run = || {
        driver::run(&plan, &AtomicBool::new(false), |record| {
            records.push(record);
            if records.len() == 30 {
                nginx.kill();
            }
        })
    };
    let account = hosts.client.enter(run).expect("the plan is good");

    assert_eq!(account.answered + account.failed, account.scheduled);
    assert!(account.answered >= 30 && account.failed > 0, "{account:?}");
    let failed = records.iter().filter(|record| record.error.is_some());
    assert_eq!(failed.clone().count(), account.failed as usize);
    for record in failed {
        assert_eq!(record.finished_ns, None, "{record:?}");
        let error = record.error.as_deref().expect("it failed");
        assert!(
            ["connect: ", "receive: ", "send: "].iter().any(|w| error.starts_with(w)),
            "{error}"
        );
    }
    let refused = "connect: Connection refused (os error 111)";
    assert_eq!(records.last().and_then(|last| last.error.as_deref()), Some(refused));
}

#[test]
fn requests_that_are_never_answered_are_bounded_in_number_and_in_time() {
    let Some(hosts) = Hosts::new() else { return };
    for tls in [false, true] {
        let wire = Wire::of_mtu(1500, tls);
        let (web, nginx) = hosts.serve(wire.segment_bytes);
        // The kernel still accepts connections for it.
        kill(Pid::from_raw(nginx.id().cast_signed()), Signal::SIGSTOP).expect("it is ours");
        let mut plan = plan(Some(&web), wire, 1.0);
        plan.drain_s = 0.2;
        plan.concurrent_max = 4;
        let (account, records) = hosts.drive(&plan);

        assert_eq!((account.answered, account.failed), (0, account.scheduled));
        for record in &records {
            let (asked, expected) = match record.number {
                0..4 => (true, "not answered before the run ended"),
                _ => (false, "not asked: 4 others were under way"),
            };
            assert_eq!(record.error.as_deref(), Some(expected), "{record:?}");
            assert_eq!(record.connected_ns.is_some(), asked);
            assert!(record.started_ns >= record.due_ns && record.finished_ns.is_none());
        }
    }
}

#[test]
fn a_server_with_another_certificate_is_not_trusted() {
    let Some(hosts) = Hosts::new() else { return };
    let wire = Wire::of_mtu(1500, true);
    let (web, nginx) = hosts.serve(wire.segment_bytes);
    let former = hosts.file("former.pem");
    std::fs::copy(web.certificate(), &former).expect("it is there");
    drop(nginx);
    let (web, _nginx) = hosts.serve(wire.segment_bytes);
    let mut plan = plan(Some(&web), wire, 0.5);
    plan.certificate = Some(former);
    let (account, records) = hosts.drive(&plan);
    assert_eq!((account.answered, account.failed), (0, account.scheduled));
    for record in records {
        let error = record.error.expect("it is not trusted");
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
}

#[test]
fn a_run_that_is_told_to_stop_leaves_out_what_is_not_due_yet() {
    let Some(hosts) = Hosts::new() else { return };
    let wire = Wire::of_mtu(1500, false);
    let (web, _nginx) = hosts.serve(wire.segment_bytes);
    let plan = plan(Some(&web), wire, 3600.0);
    let (stop, records) = (AtomicBool::new(false), AtomicU32::new(0));
    let run = || {
        driver::run(&plan, &stop, |_| {
            if records.fetch_add(1, Ordering::Relaxed) == 10 {
                stop.store(true, Ordering::Relaxed);
            }
        })
    };
    let account = hosts.client.enter(run).expect("the plan is good");
    assert_eq!(account.answered + account.failed, records.into_inner());
    assert_eq!(account.scheduled - account.left_out, account.answered + account.failed);
    assert!(account.answered >= 11 && account.left_out > 100_000, "{account:?}");
}

#[test]
fn a_plan_that_cannot_be_carried_out_says_why() {
    let wire = Wire::of_mtu(1500, false);
    let good = plan(None, wire, 1.0);
    let error = |change: &dyn Fn(&mut driver::Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        let result =
            driver::run(&plan, &AtomicBool::new(false), |_| unreachable!("it cannot begin"));
        result.expect_err("the plan is bad").to_string()
    };
    let names = error(&|plan| plan.mix = "papers".into());
    assert!(names.starts_with("there is no mix \"papers\"; there are paper, "), "{names}");
    let scale = error(&|plan| plan.scale = f64::NAN);
    assert_eq!(scale, "scale is NaN; it must be 0.001 to 100");
    let file = error(&|plan| plan.certificate = Some("/nowhere.pem".into()));
    assert!(file.starts_with("certificate /nowhere.pem: "), "{file}");
}
