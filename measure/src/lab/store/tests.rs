use std::path::PathBuf;

use super::*;
use crate::flow::Direction;
use crate::lab::records::{Attach, Bulk, Settings, Way};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lab-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(failure: Option<&str>) -> RunRecord {
    RunRecord {
        experiment: "loads".into(),
        repeat: 1,
        settings: Settings {
            way: Way::Split,
            attach: Attach::Native,
            threshold_packets: 40,
            background_percent: 30,
            rate_mbit_per_s: 100,
            buffer_ms: 50,
            delay_ms: 0.5,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            mix: "paper".into(),
            tls: true,
            duration_s: 120,
            warmup_s: 5,
            seed: 7,
        },
        started_ns: 1_700_000_000_000_000_000,
        ended_ns: 1_700_000_120_000_000_000,
        failure: failure.map(str::to_owned),
        gateways: Vec::new(),
        queues: Vec::new(),
        cpu_s: BTreeMap::new(),
        requests_run_out: BTreeMap::from([("upload".into(), 2)]),
        commit: "0123456789abcdef".into(),
        kernel: "6.18.0 #1 SMP".into(),
    }
}

fn request(number: u32) -> RequestRecord {
    let due_ns = 1_700_000_000_000_000_000 + u64::from(number) * 1_000_000;
    let has_failed = number % 3 == 2;
    RequestRecord {
        number,
        kind: format!("kind {}", number % 4),
        bulk: if number.is_multiple_of(2) { Bulk::Download } else { Bulk::Upload },
        packets: number + 1,
        bytes: u64::from(number) << 33,
        due_ns,
        started_ns: due_ns + 3,
        connected_ns: (!number.is_multiple_of(5)).then_some(due_ns + 400),
        finished_ns: (!has_failed).then_some(due_ns + 9_000),
        port: (number != 2).then_some(30_000 + number as u16),
        error: has_failed.then(|| "connection reset – by peer".to_owned()),
    }
}

fn flow(number: u32) -> FlowLine {
    FlowLine {
        flow: number,
        src: "10.0.0.1".into(),
        src_port: 443,
        dst: "10.1.0.1".into(),
        dst_port: 40_000 + number as u16,
        protocol: "tcp".into(),
        direction: [None, Some(Direction::Forward), Some(Direction::Reverse)][number as usize % 3],
        packets_ingress: 4,
        packets_egress: 3,
        lost: 1,
        unmatched: u64::from(number),
        ambiguous: 5,
        duplicate: 6,
        reordered: u64::from(number) * 3,
        bytes: 7_000,
        first_ingress_ns: Some(1_700_000_000_000_000_001),
        last_ingress_ns: Some(1_700_000_000_000_000_002),
        first_egress_ns: (number > 0).then_some(1_700_000_000_000_000_003),
        last_egress_ns: (number > 0).then_some(1_700_000_000_000_000_004),
        fct_ns: (number > 0).then_some(3),
        complete: number.is_multiple_of(2),
        lanes: [vec![], vec!["dscp 18".into()], vec!["dscp 18".into(), "dscp 10".into()]]
            [number as usize % 3]
            .clone(),
        delay_mean_ns: (number > 0).then_some(1.25),
        jitter_ns: (number > 1).then_some(0.1),
        handshake_rtt_ns: Some(9),
        error_bound_ns: None,
    }
}

#[test]
fn a_run_is_read_as_it_was_written() {
    let folder = Folder::new("whole");
    let run = folder.0.join(RUNS).join("0001-loads-split-40");
    let lab = LabRecord { seed: 3, kernel: "6.18".into(), ..LabRecord::default() };
    write_lab(&folder.0, &lab).unwrap();
    let requests: Vec<RequestRecord> = (0..1000).map(request).collect();
    let flows: Vec<FlowLine> = (0..999).map(flow).collect();
    write_run(&run, &record(None), &requests).unwrap();
    crate::export::parquet::flows(&run.join(FLOWS), &flows).unwrap();
    let output = Output::open(&folder.0).unwrap();
    assert_eq!((output.lab, output.runs.as_slice()), (lab, [run.clone()].as_slice()));
    let read = read_run(&run).unwrap();
    assert_eq!(read.name, "0001-loads-split-40");
    assert_eq!(read.record, record(None));
    assert!(read.requests == requests, "requests differ");
    assert!(read.flows == flows, "flows differ");
    assert!(read.results.is_none());
}

#[test]
fn a_run_without_a_request_is_a_run() {
    let folder = Folder::new("empty");
    write_run(&folder.0, &record(None), &[]).unwrap();
    crate::export::parquet::flows(&folder.0.join(FLOWS), &[]).unwrap();
    let read = read_run(&folder.0).unwrap();
    assert!(read.requests.is_empty() && read.flows.is_empty());
}

#[test]
fn only_of_a_failed_run_files_may_be_missing() {
    let folder = Folder::new("failed");
    write_json(&folder.0.join(RUN), &record(Some("nginx did not start"))).unwrap();
    let read = read_run(&folder.0).unwrap();
    assert_eq!(read.record.failure.as_deref(), Some("nginx did not start"));
    write_json(&folder.0.join(RUN), &record(None)).unwrap();
    let error = read_run(&folder.0).unwrap_err().to_string();
    assert!(error.contains(REQUESTS), "{error}");
}

#[test]
fn what_cannot_be_read_is_named_with_its_file() {
    let folder = Folder::new("wrong");
    let path = folder.0.join(REQUESTS);
    write_requests(&path, &[request(1)]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let error = read_requests(&path).unwrap_err().to_string();
    assert!(error.contains("requests.parquet is no whole Parquet file"), "{error}");
    // Flows are no requests.
    crate::export::parquet::flows(&path, &[flow(1)]).unwrap();
    let error = read_requests(&path).unwrap_err().to_string();
    assert!(error.contains("has no column number of the type INT64"), "{error}");
    std::fs::write(folder.0.join(RUN), "{\n\"experiment\": 7}").unwrap();
    let error = read_run(&folder.0).unwrap_err().to_string();
    assert!(error.contains("run.json line 2"), "{error}");
    let error = Output::open(&folder.0).unwrap_err().to_string();
    assert!(error.contains("lab.json") && error.contains("lanesplit-lab wrote"), "{error}");
}

#[test]
fn a_damaged_lab_record_is_an_error_and_none_is_none() {
    let folder = Folder::new("damaged");
    assert_eq!(read_lab(&folder.0).unwrap(), None);
    std::fs::write(folder.0.join(LAB), "{\"seed\": 3,").unwrap();
    let error = read_lab(&folder.0).unwrap_err().to_string();
    assert!(error.contains("lab.json line 1"), "{error}");
    write_lab(&folder.0, &LabRecord { seed: 3, ..LabRecord::default() }).unwrap();
    assert_eq!(read_lab(&folder.0).unwrap().map(|lab| lab.seed), Some(3));
}

#[test]
fn a_record_of_an_older_version_is_read() {
    let folder = Folder::new("older");
    let mut old = serde_json::to_value(record(None)).unwrap();
    for field in ["commit", "kernel", "requests_run_out"] {
        old.as_object_mut().unwrap().remove(field).unwrap();
    }
    write_requests(&folder.0.join(REQUESTS), &[]).unwrap();
    crate::export::parquet::flows(&folder.0.join(FLOWS), &[]).unwrap();
    write_json(&folder.0.join(RUN), &old).unwrap();
    let read = read_run(&folder.0).unwrap().record;
    let (commit, kernel) = (String::new(), String::new());
    assert_eq!(
        read,
        RunRecord { commit, kernel, requests_run_out: BTreeMap::new(), ..record(None) }
    );
}
