//! Results, as they are stored and shown.
//!
//! Field names are the contract with scripts: see README.md. Everything in nanoseconds says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::classes::SizeClasses;
use crate::export::table::time;
use crate::flow::Direction;
use crate::flow_line::FlowLine;
use crate::matcher::Memory;
use crate::measurement::{Classes, Way};
use crate::over_time::Point;
use crate::session::{Found, TapCounts};
use crate::source::Tap;
use crate::statistics::{Series, Summary, summary_of};

/// Accounts of packets: ingress = matched + lost + its duplicates + its ambiguous + out of window, egress the
/// same with unmatched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// At the ingress tap.
    pub ingress: u64,
    /// At the egress tap.
    pub egress: u64,
    /// At both: pairs.
    pub matched: u64,
    /// At ingress only.
    pub lost: u64,
    /// At egress only.
    pub unmatched: u64,
    /// Further copies, at either tap.
    pub duplicate: u64,
    /// Copies that nothing tells apart, at either tap.
    pub ambiguous: u64,
    /// At both, further apart than the window: pairs.
    pub out_of_window: u64,
}

/// What is known of a tap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TapResult {
    /// Where its packets came from.
    pub source: String,
    /// Frames = packets + not IP + malformed + truncated.
    pub frames: u64,
    /// IP packets, which are in the accounts.
    pub packets: u64,
    /// Frames without IP.
    pub not_ip: u64,
    /// Frames whose headers lie.
    pub malformed: u64,
    /// Frames of which too little was kept to recognise them.
    pub truncated: u64,
    /// Packets of which less content was kept than belongs to the identity.
    pub cut: u64,
    /// Fragments of a tunnel's own packets: what they carry cannot be seen.
    pub tunnel_fragments: u64,
    /// Packets seen at this tap only.
    pub single: u64,
    /// Further copies.
    pub duplicate: u64,
    /// Copies that nothing tells apart.
    pub ambiguous: u64,
    /// Packets that the capture itself lost, where that is known.
    pub dropped_by_capture: Option<u64>,
    /// Frames by who stamped them.
    pub stamps: Stamps,
    /// First stamp.
    pub first_ns: Option<u64>,
    /// Last stamp.
    pub last_ns: Option<u64>,
    /// The unit of its stamps.
    pub resolution_ns: Option<u64>,
    /// Stamps earlier than the one before.
    pub stamps_backwards: u64,
    /// Times its clock was set back.
    pub clock_steps: u64,
    /// Stretches in which it saw nothing while the other did.
    pub silences: u64,
    /// The longest of them.
    pub longest_silence_ns: u64,
    /// Whether its capture could be read to the end.
    pub whole: bool,
    /// Of a live tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<crate::live::LiveTap>,
}

/// Frames by who stamped them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    /// A capture file; who before is not known.
    pub file: u64,
    /// The kernel.
    pub software: u64,
    /// The driver.
    pub driver: u64,
    /// The NIC.
    pub hardware: u64,
}

/// Delays below zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negative {
    /// How many packets.
    pub packets: u64,
    /// The least.
    pub min: Option<i64>,
}

/// What is measured of one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DirectionResult {
    /// Matched packets.
    pub matched: u64,
    /// Matched packets whose stamps do not compare, because a clock was set.
    pub without_delay: u64,
    /// Delays below zero, which are in no other figure.
    pub negative_delay_ns: Negative,
    /// One-way delay.
    pub delay_ns: Summary,
    /// IPDV.
    pub ipdv_ns: Summary,
    /// IPDV without its sign.
    pub ipdv_abs_ns: Summary,
    /// Delay less the least delay.
    pub pdv_ns: Summary,
    /// 95th less 50th percentile of the delay.
    pub p95_p50_ns: Option<i64>,
    /// Completion times of complete TCP flows, by size class.
    pub fct_ns: BTreeMap<String, ClassResult>,
    /// Jitter of the same flows: the mean size of their IPDV.
    pub jitter_ns: BTreeMap<String, ClassResult>,
    /// TCP flows that are not complete, by size class.
    pub incomplete_flows: BTreeMap<String, u64>,
}

/// One size class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Flows that have the figure.
    pub flows: u64,
    /// Their figures.
    #[serde(flatten)]
    pub summary: Summary,
}

/// One lane, forward.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneResult {
    /// `gre key N`, `gre SOURCE>DESTINATION` or `dscp N`.
    pub lane: String,
    /// Matched packets.
    pub matched: u64,
    /// Lost packets of flows whose packet before was in this lane.
    pub lost: u64,
    /// One-way delay.
    pub delay_ns: Summary,
    /// IPDV without its sign, of packets that arrived in this lane.
    pub ipdv_abs_ns: Summary,
    /// Delay and loss in the course of time; only in stored results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over_time: Vec<Point>,
}

/// Counts of flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounts {
    /// TCP flows that began with a SYN and of which FIN or RST was seen.
    pub tcp_complete: u64,
    /// Other TCP flows.
    pub tcp_incomplete: u64,
    /// UDP flows.
    pub udp: u64,
    /// Packets that had to do without a flow, because there were too many.
    pub packets_without_flow: u64,
    /// Flows, TCP and UDP, that ended by silence and were followed by another one of the same ports.
    #[serde(default)]
    pub timed_out: u64,
}

/// How far a delay or a completion time may be off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBound {
    /// In either direction; `None`: nothing is known.
    pub ns: Option<u64>,
    /// Whether it was measured on this rig; if not, it is the least it can be.
    pub calibrated: bool,
    /// Where that comes from.
    pub from: String,
}

impl ErrorBound {
    /// The bound, where it is more than a lower limit.
    pub fn calibrated_ns(&self) -> Option<u64> {
        self.ns.filter(|_| self.calibrated)
    }
}

impl std::fmt::Display for ErrorBound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = &self.from;
        match self.ns.map(|ns| time(ns as f64)) {
            None => write!(out, "not known ({from})"),
            Some(ns) if self.calibrated => write!(out, "a time is right to within {ns} ({from})"),
            Some(ns) => write!(out, "not known, at least {ns} ({from})"),
        }
    }
}

/// The clock of egress less that of ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// Already taken off every stamp of the egress tap.
    pub ns: i64,
    /// Whether it was estimated from the traffic.
    pub estimated: bool,
}

/// Something the reader of the figures must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// One word for scripts.
    pub kind: String,
    /// For people.
    pub text: String,
}

/// Everything of a run but its flows and packets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Program and version.
    pub program: String,
    /// The accounts.
    pub packets: Packets,
    /// Forward: from ingress to egress.
    #[serde(flatten)]
    pub forward: DirectionResult,
    /// From egress to ingress.
    pub reverse: DirectionResult,
    /// Lanes of the forward direction.
    pub lanes: Vec<LaneResult>,
    /// Counts of flows.
    pub flows: FlowCounts,
    /// The taps.
    pub taps: BTreeMap<String, TapResult>,
    /// How far a delay or a completion time may be off.
    pub error_bound: ErrorBound,
    /// The clocks.
    pub offset: Offset,
    /// The rules of the run.
    pub settings: SettingsResult,
    /// What memory was needed.
    pub memory: Memory,
    /// What the reader of the figures must know.
    pub messages: Vec<Message>,
}

/// The rules of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsResult {
    /// Two sightings of one packet are no further apart.
    pub window_ns: u64,
    /// A copy this soon after another can be a duplicate.
    pub duplicate_window_ns: u64,
    /// Bytes of content that belong to a packet's identity.
    pub content_bytes: usize,
    /// Every flow was taken to be forward.
    pub one_way: bool,
    /// Size classes of flows.
    pub classes: Vec<String>,
}

impl Results {
    /// The results of a run. `sources`: what the taps are called.
    pub fn of(
        found: &mut Found,
        flows: &[FlowLine],
        classes: &SizeClasses,
        error_bound: ErrorBound,
    ) -> Results {
        let [ingress, egress] = found.measurement.classes;
        let packets = Packets {
            ingress: ingress.total(),
            egress: egress.total(),
            matched: ingress.matched,
            lost: ingress.single,
            unmatched: egress.single,
            duplicate: ingress.duplicate + egress.duplicate,
            ambiguous: ingress.ambiguous + egress.ambiguous,
            out_of_window: ingress.out_of_window,
        };
        let taps = Tap::BOTH.map(|tap| {
            let at = tap.index();
            let result = tap_result(&found.taps[at], &found.measurement.classes[at]);
            (tap.name().to_owned(), result)
        });
        let [forward, reverse] = Direction::BOTH.map(|direction| {
            direction_result(
                &mut found.measurement.ways[direction.index()],
                flows.iter(),
                classes,
                direction,
            )
        });
        let rules = found.settings.rules.clone();
        Results {
            program: concat!("lanesplit-measure ", env!("CARGO_PKG_VERSION")).into(),
            packets,
            forward,
            reverse,
            lanes: lanes(found),
            flows: flow_counts(found, flows),
            taps: taps.into(),
            error_bound,
            offset: Offset { ns: found.settings.offset_ns, estimated: false },
            settings: SettingsResult {
                window_ns: rules.window_ns,
                duplicate_window_ns: rules.duplicate_window_ns,
                content_bytes: found.settings.content_bytes,
                one_way: found.settings.one_way,
                classes: classes.names(),
            },
            memory: found.memory,
            messages: Vec::new(),
        }
    }

    /// Without what takes many lines: for a terminal or a script.
    pub fn brief(&self) -> Results {
        let mut brief = self.clone();
        brief.lanes.iter_mut().for_each(|lane| lane.over_time.clear());
        brief
    }

    /// A tap.
    pub fn tap_mut(&mut self, tap: Tap) -> &mut TapResult {
        self.taps.entry(tap.name().into()).or_default()
    }

    /// A tap; `None` when the results were not written by this program.
    pub fn tap(&self, tap: Tap) -> Option<&TapResult> {
        self.taps.get(tap.name())
    }

    /// Whether each tap's packets are all accounted for.
    pub fn balances(&self) -> bool {
        Tap::BOTH.iter().all(|&tap| {
            self.tap(tap).is_some_and(|found| {
                let both = self.packets.matched + self.packets.out_of_window;
                let packets = both + found.single + found.duplicate + found.ambiguous;
                let unread = found.not_ip + found.malformed + found.truncated;
                packets == found.packets && packets + unread == found.frames
            })
        })
    }
}

fn tap_result(counts: &TapCounts, classes: &Classes) -> TapResult {
    let [file, software, driver, hardware] = counts.stamps;
    TapResult {
        source: String::new(),
        frames: counts.frames,
        packets: classes.total(),
        not_ip: counts.not_ip,
        malformed: counts.malformed,
        truncated: counts.truncated,
        cut: counts.cut,
        tunnel_fragments: counts.tunnel_fragments,
        single: classes.single,
        duplicate: classes.duplicate,
        ambiguous: classes.ambiguous,
        dropped_by_capture: None,
        stamps: Stamps { file, software, driver, hardware },
        first_ns: counts.first_ns,
        last_ns: counts.last_ns,
        resolution_ns: None,
        stamps_backwards: counts.backwards,
        clock_steps: counts.steps,
        silences: counts.silences,
        longest_silence_ns: counts.longest_silence_ns,
        whole: true,
        live: None,
    }
}

fn direction_result<'f>(
    way: &mut Way,
    flows: impl Iterator<Item = &'f FlowLine> + Clone,
    classes: &SizeClasses,
    direction: Direction,
) -> DirectionResult {
    let delay = way.delay.summary();
    let measured = flows.clone().filter(|flow| flow.is_measured(direction));
    let incomplete = flows.filter(|flow| {
        flow.protocol == "tcp" && !flow.complete && flow.direction == Some(direction)
    });
    let mut incomplete_flows: BTreeMap<String, u64> = BTreeMap::new();
    for flow in incomplete {
        *incomplete_flows.entry(classes.name_of(flow.size_packets())).or_default() += 1;
    }
    DirectionResult {
        matched: way.matched,
        without_delay: way.without_delay,
        negative_delay_ns: Negative { packets: way.negative, min: way.negative_min_ns },
        pdv_ns: shifted(&delay),
        p95_p50_ns: delay.p95.zip(delay.p50).map(|(p95, p50)| p95 - p50),
        ipdv_ns: way.variation.summary(),
        ipdv_abs_ns: way.variation_size.summary(),
        fct_ns: by_class(measured.clone(), classes, |flow| flow.fct_ns?.try_into().ok()),
        jitter_ns: by_class(measured, classes, |flow| flow.jitter_ns.map(|ns| ns.round() as i64)),
        incomplete_flows,
        delay_ns: delay,
    }
}

/// PDV: all figures less the least, but the deviation.
fn shifted(delay: &Summary) -> Summary {
    let Some(min) = delay.min else { return delay.clone() };
    let less = |figure: Option<i64>| figure.map(|figure| figure - min);
    Summary {
        samples: delay.samples,
        min: Some(0),
        mean: delay.mean.map(|mean| mean - min as f64),
        stddev: delay.stddev,
        p50: less(delay.p50),
        p90: less(delay.p90),
        p95: less(delay.p95),
        p99: less(delay.p99),
        p999: less(delay.p999),
        p9999: less(delay.p9999),
        max: less(delay.max),
        exact: delay.exact,
    }
}

/// Figures of flows by size class; classes without a flow are there, with none.
pub fn by_class<'f>(
    flows: impl Iterator<Item = &'f FlowLine>,
    classes: &SizeClasses,
    figure: impl Fn(&FlowLine) -> Option<i64>,
) -> BTreeMap<String, ClassResult> {
    let mut samples: BTreeMap<String, Vec<i64>> =
        classes.names().into_iter().map(|name| (name, Vec::new())).collect();
    for flow in flows {
        if let Some(figure) = figure(flow) {
            samples.entry(classes.name_of(flow.size_packets())).or_default().push(figure);
        }
    }
    let result = |samples: Vec<i64>| ClassResult {
        flows: samples.len() as u64,
        summary: summary_of(samples),
    };
    samples.into_iter().map(|(name, samples)| (name, result(samples))).collect()
}

fn lanes(found: &mut Found) -> Vec<LaneResult> {
    let names = &found.lanes;
    let met = found.measurement.lanes.iter_mut().enumerate();
    let met = met.filter_map(|(number, lane)| Some((number, lane.as_mut()?)));
    met.map(|(number, lane)| LaneResult {
        lane: names.name(crate::lane::LaneId(number as u8)),
        matched: lane.matched,
        lost: lane.lost,
        delay_ns: lane.delay.summary(),
        ipdv_abs_ns: lane.variation_size.summary(),
        over_time: lane.over_time.points(),
    })
    .collect()
}

fn flow_counts(found: &Found, flows: &[FlowLine]) -> FlowCounts {
    let count = |is: &dyn Fn(&&FlowLine) -> bool| flows.iter().filter(is).count() as u64;
    FlowCounts {
        tcp_complete: count(&|flow| flow.complete),
        tcp_incomplete: count(&|flow| flow.protocol == "tcp" && !flow.complete),
        udp: count(&|flow| flow.protocol == "udp"),
        packets_without_flow: found.flows.packets_without(),
        timed_out: found.flows.timed_out(),
    }
}

/// A series as a histogram for HDR logs.
pub fn delay_series(found: &Found, direction: Direction) -> &Series {
    &found.measurement.ways[direction.index()].delay
}
