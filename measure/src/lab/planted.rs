//! Output folders with runs whose every figure is known, because it was planted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::records::{
    Attach, Bulk, GatewayRecord, QueueRecord, RequestRecord, RunRecord, Settings, Way,
};
use super::store::{self, FLOWS, GATEWAY, LabRecord, RESULTS, RUNS, write_json};
use crate::bootstrap::Random;
use crate::export::parquet;
use crate::flow::Direction;
use crate::flow_line::FlowLine;
use crate::results::Results;
use crate::statistics::Summary;

/// When runs begin.
const START_NS: u64 = 1_700_000_000_000_000_000;
/// Kinds of requests: packets, and how many of 100.
const KINDS: [(u32, usize); 7] =
    [(5, 30), (10, 30), (20, 20), (40, 12), (100, 4), (1_000, 2), (8_000, 2)];
/// From a program to its tap.
const LAN_NS: u64 = 40_000;
/// From the SYN at one tap to the answer at the other.
const FORTH_NS: u64 = 300_000;

/// A folder that is removed at the end.
pub(crate) struct Planted {
    pub(crate) folder: PathBuf,
    runs: usize,
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a run is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) repeat: u32,
    pub(crate) requests: u32,
    pub(crate) failure: Option<String>,
    /// Median delay over the gateway.
    pub(crate) gateway_ns: Option<i64>,
    pub(crate) gateway_dropped: u64,
}

impl Plan {
    pub(crate) fn of(way: Way, background_percent: u32, repeat: u32) -> Plan {
        let settings = Settings {
            way,
            attach: Attach::Native,
            threshold_packets: 40,
            background_percent,
            rate_mbit_per_s: 100,
            buffer_ms: 100,
            delay_ms: 0.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            mix: "planted".into(),
            tls: true,
            duration_s: 60,
            warmup_s: 5,
            seed: 7 + u64::from(repeat),
        };
        let (failure, gateway_ns) = (None, None);
        Plan { settings, repeat, requests: 600, failure, gateway_ns, gateway_dropped: 0 }
    }
}

impl Planted {
    pub(crate) fn new(name: &str) -> Planted {
        let name = format!("lab-planted-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        let lab = LabRecord {
            seed: 7,
            commands: vec!["lanesplit-lab paper --seed 7 <here>".into()],
            kernel: "6.18.0 #1 SMP".into(),
            commit: "0123456789abcdef".into(),
            processor: "Planted, 2.6 GHz".into(),
            more: BTreeMap::from([("cores".into(), 2.into())]),
        };
        store::write_lab(&folder, &lab).unwrap();
        Planted { folder, runs: 0 }
    }

    /// Adds a run whose flows take as long as `fct_ns` says; its arguments are the packets of the flow, and chance
    /// that is the same for every run of the same seed.
    pub(crate) fn add(&mut self, plan: &Plan, mut fct_ns: impl FnMut(u32, &mut Random) -> u64) {
        let way = format!("{:?}", plan.settings.way).to_lowercase();
        let folder = self.folder.join(RUNS).join(format!("{:04}-planted-{way}", self.runs));
        self.runs += 1;
        let mut random = Random::new(plan.settings.seed);
        let (mut requests, mut flows) = (Vec::new(), Vec::new());
        for number in 0..plan.requests {
            let mut share = random.below(100);
            let kind = KINDS.iter().find(|(_, of)| match share < *of {
                true => true,
                false => {
                    share -= of;
                    false
                }
            });
            let packets = kind.expect("they are 100").0;
            let fct_ns = fct_ns(packets, &mut random);
            let span_ns = u64::from(plan.settings.duration_s) * 1_000_000_000;
            let due_ns = START_NS + span_ns * u64::from(number) / u64::from(plan.requests);
            let request = request(number, packets, due_ns, fct_ns);
            flows.extend(both_flows(&request, number, fct_ns, &plan.settings));
            requests.push(request);
        }
        let record = record(plan);
        if plan.failure.is_none() {
            std::fs::create_dir_all(&folder).unwrap();
            parquet::flows(&folder.join(FLOWS), &flows).unwrap();
        }
        store::write_run(&folder, &record, &requests).unwrap();
        if let Some(p50) = plan.gateway_ns {
            let mut results = Results::default();
            let delay = |p50| Summary {
                samples: 1000,
                p50: Some(p50),
                p99: Some(p50 * 3),
                ..Summary::default()
            };
            results.forward.delay_ns = delay(p50);
            results.reverse.delay_ns = delay(p50 + 1_000);
            std::fs::create_dir_all(folder.join(GATEWAY)).unwrap();
            write_json(&folder.join(GATEWAY).join(RESULTS), &results).unwrap();
        }
    }
}

fn record(plan: &Plan) -> RunRecord {
    let queue = |path: &str, direction: &str| QueueRecord {
        path: path.into(),
        direction: direction.into(),
        sent: 1_000,
        sent_bytes: 1_400_000,
        dropped: 3,
    };
    let dropped = BTreeMap::from([("no_route".to_owned(), plan.gateway_dropped)]);
    let gateway = GatewayRecord {
        site: "a".into(),
        received: 5_000,
        forwarded: 5_000,
        dropped: if plan.gateway_dropped > 0 { dropped } else { BTreeMap::new() },
        short: 3_000,
        long: 2_000,
    };
    RunRecord {
        experiment: "planted".into(),
        repeat: plan.repeat,
        settings: plan.settings.clone(),
        started_ns: START_NS,
        ended_ns: START_NS + u64::from(plan.settings.duration_s) * 1_000_000_000,
        failure: plan.failure.clone(),
        gateways: if plan.settings.way == Way::Kernel { Vec::new() } else { vec![gateway] },
        queues: vec![queue("short", "a-to-b"), queue("long", "b-to-a")],
        cpu_s: BTreeMap::from([("nginx".into(), 6.0), ("lanesplitd".into(), 30.0)]),
        requests_run_out: BTreeMap::new(),
        commit: "0123456789abcdef".into(),
        kernel: "6.18.0 #1 SMP".into(),
    }
}

fn request(number: u32, packets: u32, due_ns: u64, fct_ns: u64) -> RequestRecord {
    let started_ns = due_ns + 1_000;
    RequestRecord {
        number,
        kind: format!("of {packets}"),
        bulk: Bulk::Download,
        packets,
        bytes: u64::from(packets) * 1_400,
        due_ns,
        started_ns,
        connected_ns: Some(started_ns + FORTH_NS + 2 * LAN_NS),
        finished_ns: Some(started_ns + LAN_NS + FORTH_NS + fct_ns + LAN_NS),
        port: Some(30_000 + (number % 20_000) as u16),
        error: None,
    }
}

/// Download and the flow back. A moved flow has two reordered packets; one flow in ten has lost one.
fn both_flows(
    request: &RequestRecord,
    number: u32,
    fct_ns: u64,
    settings: &Settings,
) -> [FlowLine; 2] {
    let opened_ns = request.started_ns + LAN_NS;
    let answered_ns = opened_ns + FORTH_NS;
    let port = request.port.unwrap();
    let is_moved = settings.way == Way::Split && request.packets > settings.threshold_packets;
    let bulk = FlowLine {
        flow: number * 2,
        src: "10.2.0.2".into(),
        src_port: 443,
        dst: "10.1.0.2".into(),
        dst_port: port,
        protocol: "tcp".into(),
        direction: Some(Direction::Reverse),
        packets_egress: request.packets.into(),
        packets_ingress: request.packets.into(),
        unmatched: u64::from(number % 10 == 3),
        reordered: if is_moved { 2 } else { 0 },
        first_egress_ns: Some(answered_ns),
        last_egress_ns: Some(answered_ns + fct_ns - 5_000),
        first_ingress_ns: Some(answered_ns),
        last_ingress_ns: Some(answered_ns + fct_ns),
        fct_ns: Some(fct_ns),
        complete: true,
        jitter_ns: Some(fct_ns as f64 / 100.0),
        ..FlowLine::default()
    };
    let back = FlowLine {
        flow: number * 2 + 1,
        src: "10.1.0.2".into(),
        src_port: port,
        dst: "10.2.0.2".into(),
        dst_port: 443,
        protocol: "tcp".into(),
        direction: Some(Direction::Forward),
        first_ingress_ns: Some(opened_ns),
        last_ingress_ns: Some(answered_ns + fct_ns),
        first_egress_ns: Some(opened_ns + 100_000),
        last_egress_ns: Some(answered_ns + fct_ns + 100_000),
        fct_ns: Some(fct_ns + FORTH_NS),
        complete: true,
        ..FlowLine::default()
    };
    [bulk, back]
}

/// The time of a flow of so many packets, with much chance in it.
pub(crate) fn chance_ns(packets: u32, random: &mut Random) -> u64 {
    let base = 2_000_000 + u64::from(packets) * 90_000;
    let tail = if random.below(20) == 0 { 10 } else { 1 };
    (base + random.below(4_000_000) as u64) * tail
}
