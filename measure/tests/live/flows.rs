//! Per flow: what the programs at both ends say of their transfers.

use std::fs;

use serde_json::Value;

use crate::lab::wait_for;
use crate::site::{BOUND, Ended, Site, has, quantile};

/// Complete TCP flows to or from a port, with their completion time in seconds.
fn completion_times(ended: &Ended, field: &str, port: u16) -> Vec<f64> {
    let is_wanted = |flow: &&Value| {
        flow[field] == port && flow["protocol"] == "tcp" && flow["complete"] == true
    };
    let flows = ended.flows.iter().filter(is_wanted);
    flows.map(|flow| flow["fct_ns"].as_u64().expect("it is complete") as f64 / 1e9).collect()
}

/// Both are about the same transfer; the program's own time is shorter or longer by its handshake and its end.
fn assert_alike(what: &str, ours: f64, theirs: f64) {
    eprintln!("{what}: between the taps {ours:.6} s, at the ends {theirs:.6} s");
    assert!(ours > 0.75 * theirs && ours < 1.25 * theirs, "{what}: {ours} s, {theirs} s");
}

#[test]
fn completion_time_of_a_transfer_is_that_of_iperf3() {
    let Some(site) = Site::new() else { return };
    if !has("iperf3") {
        return;
    }
    site.slow("20mbit");
    let server = site.server.spawn(&["iperf3", "--server", "--port", "5300"]);
    wait_for("iperf3 to listen", BOUND, || site.server.run(&["ss", "-ltn"]).contains(":5300"));
    let measuring = site.measure(&["--ingress", "tap0", "--egress", "tap1"]);
    // A small window: iperf3 does not wait for what is still queued when the last byte was written.
    let client = ["iperf3", "--client", "10.0.0.2", "--port", "5300", "--json", "--bytes", "3M"];
    let said = site.client.run(&[&client[..], &["--window", "32K"]].concat());
    let said: Value = serde_json::from_str(&said).expect("iperf3 writes JSON");
    wait_for("its connections to end", BOUND, || {
        let sockets = site.client.run(&["ss", "-tanH", "dport", "=", ":5300"]);
        sockets.lines().all(|socket| socket.starts_with("TIME-WAIT"))
    });
    let ended = measuring.stop();
    drop(server);
    ended.assert_balance();
    // iperf3 may end its data connection by a reset from the server, so the client's half may have no end of its own.
    let flows = ended.flows.iter().filter(|flow| flow["dst_port"] == 5300);
    let data =
        flows.max_by_key(|flow| flow["bytes"].as_u64()).expect("two flows went to the server");
    let theirs = said["end"]["sum_received"]["seconds"].as_f64().expect("a time");
    let bytes = said["end"]["sum_received"]["bytes"].as_u64().expect("a number");
    assert!(data["bytes"].as_u64() > Some(bytes), "headers come on top of {bytes}: {data:#}");
    assert_alike("iperf3 -n 3M", data["fct_ns"].as_u64().expect("complete") as f64 / 1e9, theirs);
    assert_eq!((ended.packets("ambiguous"), ended.packets("unmatched")), (0, 0), "{}", ended.log);
}

#[test]
fn completion_times_of_requests_are_those_of_curl() {
    const REQUESTS: usize = 20;
    let Some(site) = Site::new() else { return };
    if !has("curl") {
        return;
    }
    site.slow("20mbit");
    fs::write(site.file("page"), vec![b'x'; 200_000]).expect("the folder can be written to");
    let folder = site.file(".");
    let folder = folder.to_str().expect("ASCII");
    let server =
        site.server.spawn(&["python3", "-m", "http.server", "8000", "--directory", folder]);
    wait_for("the server to listen", BOUND, || site.server.run(&["ss", "-ltn"]).contains(":8000"));
    let measuring = site.measure(&["--ingress", "tap0", "--egress", "tap1"]);
    let mut theirs = Vec::new();
    for _ in 0..REQUESTS {
        let curl =
            ["curl", "-s", "-o", "/dev/null", "-w", "%{time_total}", "http://10.0.0.2:8000/page"];
        theirs.push(site.client.run(&curl).trim().parse().expect("a time"));
    }
    let ended = measuring.stop();
    drop(server);
    ended.assert_balance();
    let mut ours = completion_times(&ended, "src_port", 8000);
    assert_eq!(ours.len(), REQUESTS, "every answer is a complete flow: {}", ended.log);
    for flow in ended.flows.iter().filter(|flow| flow["src_port"] == 8000) {
        assert_eq!((&flow["direction"], &flow["lost"]), (&"reverse".into(), &0.into()), "{flow:#}");
    }
    let median = |values: &mut Vec<f64>| quantile(values, 0.5);
    assert_alike("curl, median", median(&mut ours), median(&mut theirs));
    assert_eq!((ended.packets("ambiguous"), ended.packets("lost")), (0, 0), "{}", ended.log);
}
