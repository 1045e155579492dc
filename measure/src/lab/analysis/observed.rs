//! A run, reduced to what figures are made of, so that all runs together fit in memory.

use serde::{Deserialize, Serialize};

use crate::flow::Direction;
use crate::lab::join::{Accounts, Joined, Witnesses, join};
use crate::lab::records::{Bulk, GatewayRecord, RunRecord};
use crate::lab::store::Run;
use crate::results::Results;
use crate::statistics::summary_of;

/// A request and what became of it, between the taps unless it says otherwise.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    /// The kind's name.
    pub(super) kind: String,
    pub(super) bulk: Bulk,
    /// Packets of its bulk, as its kind says: what was sent again makes no flow larger.
    pub(super) packets: u32,
    /// Packets of its bulk that were seen where they enter, if all of it was: those that were sent again, too.
    pub(super) packets_seen: Option<u64>,
    pub(super) bytes: u64,
    /// First packet of the bulk where it enters.
    pub(super) first_ns: Option<u64>,
    /// Of the bulk, if all of it was seen and the request succeeded.
    pub(super) fct_ns: Option<u64>,
    /// From connect to the last byte of the answer, by the driver's clock.
    pub(super) driver_ns: Option<u64>,
    /// Mean size of the bulk's IPDV.
    pub(super) jitter_ns: Option<u64>,
    /// Packets that were lost, both ways.
    pub(super) lost: u64,
    /// Packets of the bulk that arrived behind later ones.
    pub(super) reordered: u64,
    pub(super) witnesses: Option<Witnesses>,
    /// How late it began.
    pub(super) late_ns: u64,
}

impl Observation {
    fn of(joined: &Joined<'_>) -> Observation {
        let request = joined.request;
        let has_succeeded = request.error.is_none() && request.finished_ns.is_some();
        let since_start = |ns: u64| ns.saturating_sub(request.started_ns);
        let bulk = joined.bulk;
        let lost = |flow: &crate::flow_line::FlowLine| match flow.direction {
            Some(Direction::Reverse) => flow.unmatched,
            _ => flow.lost,
        };
        Observation {
            kind: request.kind.clone(),
            bulk: request.bulk,
            packets: request.packets,
            packets_seen: bulk.filter(|flow| flow.complete).and_then(|flow| {
                Some(match flow.direction? {
                    Direction::Forward => flow.packets_ingress,
                    Direction::Reverse => flow.packets_egress,
                })
            }),
            bytes: request.bytes,
            first_ns: bulk.and_then(|flow| match flow.direction? {
                Direction::Forward => flow.first_ingress_ns,
                Direction::Reverse => flow.first_egress_ns,
            }),
            fct_ns: bulk.filter(|flow| flow.complete && has_succeeded).and_then(|flow| flow.fct_ns),
            driver_ns: request.finished_ns.filter(|_| has_succeeded).map(since_start),
            jitter_ns: bulk.and_then(|flow| flow.jitter_ns).map(|ns| ns.round() as u64),
            lost: [bulk, joined.back].into_iter().flatten().map(lost).sum(),
            reordered: bulk.map_or(0, |flow| flow.reordered),
            witnesses: joined.witnesses().filter(|_| has_succeeded),
            late_ns: request.started_ns.saturating_sub(request.due_ns),
        }
    }

    /// Whether the request did not succeed.
    pub(super) fn has_failed(&self) -> bool {
        self.driver_ns.is_none()
    }
}

/// A run that can be used.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) name: String,
    pub(super) record: RunRecord,
    /// Of requests that were due behind the warm-up.
    pub(super) observations: Vec<Observation>,
    pub(super) line: RunLine,
    /// Delay over the gateway of site a: median out of the LAN, and into it.
    pub(super) gateway: Option<GatewayDelay>,
    /// How far a time of the taps may be off, if the rig was calibrated.
    pub(super) error_bound_ns: Option<u64>,
}

/// Delay over one gateway in one run, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GatewayDelay {
    /// Packets from LAN to WAN.
    pub outbound_packets: u64,
    /// Their median.
    pub outbound_p50: i64,
    /// Their 99th percentile.
    pub outbound_p99: i64,
    /// Packets from WAN to LAN.
    pub inbound_packets: u64,
    /// Their median.
    pub inbound_p50: i64,
    /// Their 99th percentile.
    pub inbound_p99: i64,
}

/// A run, as it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// Its folder.
    pub name: String,
    /// What was set.
    pub setting: String,
    /// Which of the repetitions.
    pub repeat: u32,
    /// Decided the requests.
    pub seed: u64,
    /// Why it is in no figure, if so.
    pub failure: Option<String>,
    /// Requests left out because they were due in the warm-up.
    pub warmup_requests: usize,
    /// Requests in the figures, unless they failed or were not seen whole.
    pub requests: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that succeeded, but whose bulk was not seen from SYN to FIN.
    pub not_whole: usize,
    /// Requests and flows that found each other, of the whole run.
    pub joined: Accounts,
    /// Packets that the routers' queues sent.
    pub queues_sent: u64,
    /// Packets that found a queue full, on the short path and on the long one.
    pub queues_dropped: [u64; 2],
    /// Gateways whose accounts there are, also of a run that failed.
    pub gateways: usize,
    /// Packets that gateways dropped, or neither dropped nor forwarded.
    pub gateways_lost: u64,
    /// The same by reason.
    pub gateways_reasons: String,
    /// The commit of the programs that made it, if it was written down.
    pub commit: Option<String>,
    /// By how much the driver's handshakes were longer than those at the client's tap: 99th percentile.
    pub outside_p99_ns: Option<i64>,
    /// The same: the most.
    pub outside_max_ns: Option<i64>,
    /// Processor time of all programs by the run's duration: 1 is one core.
    pub cores: f64,
}

impl RunLine {
    /// Of a run that cannot be used: what is known of it all the same.
    pub(super) fn failed(name: &str, record: Option<&RunRecord>, why: &str) -> RunLine {
        let line = RunLine { name: name.into(), failure: Some(why.into()), ..RunLine::default() };
        let Some(record) = record else { return RunLine { setting: "not known".into(), ..line } };
        let (gateways_lost, gateways_reasons) = lost_by(&record.gateways);
        RunLine {
            setting: super::setting_text(&record.settings),
            repeat: record.repeat,
            seed: record.settings.seed,
            gateways: record.gateways.len(),
            gateways_lost,
            gateways_reasons,
            ..line
        }
    }
}

/// Packets that gateways lost, and why.
fn lost_by(gateways: &[GatewayRecord]) -> (u64, String) {
    let lost = gateways.iter().flat_map(|gateway| {
        let GatewayRecord { site, received, forwarded, dropped, .. } = gateway;
        let known: u64 = dropped.values().sum();
        // Some reasons are of packets that were never received, so there may be more of them.
        let unknown = received.saturating_sub(forwarded + known);
        let reasons = dropped.iter().map(|(why, &count)| (why.as_str(), count));
        let reasons = reasons.chain([("neither forwarded nor dropped", unknown)]);
        reasons.filter(|(_, count)| *count > 0).map(move |(why, count)| (site, why, count))
    });
    let lost: Vec<_> = lost.collect();
    let reasons: Vec<String> =
        lost.iter().map(|(site, why, count)| format!("{site}: {count} {why}")).collect();
    (lost.iter().map(|(.., count)| count).sum(), reasons.join(", "))
}

impl Observed {
    pub(super) fn of(run: &Run) -> Observed {
        let (joined, accounts) = join(&run.requests, &run.flows);
        let record = &run.record;
        let from_ns = record.started_ns + u64::from(record.settings.warmup_s) * 1_000_000_000;
        let counted = || joined.iter().filter(|joined| joined.request.due_ns >= from_ns);
        let observations: Vec<Observation> = counted().map(Observation::of).collect();
        let failed = observations.iter().filter(|one| one.has_failed()).count();
        let whole = observations.iter().filter(|one| one.fct_ns.is_some()).count();
        let (gateways_lost, gateways_reasons) = lost_by(&record.gateways);
        let outside = summary_of(observations.iter().filter_map(|one| one.witnesses?.handshake_ns));
        let duration_ns = record.ended_ns.saturating_sub(record.started_ns).max(1);
        let line = RunLine {
            name: run.name.clone(),
            setting: super::setting_text(&record.settings),
            repeat: record.repeat,
            seed: record.settings.seed,
            failure: None,
            warmup_requests: run.requests.len() - observations.len(),
            requests: observations.len(),
            failed,
            not_whole: observations.len() - failed - whole,
            joined: accounts,
            queues_sent: record.queues.iter().map(|queue| queue.sent).sum(),
            queues_dropped: ["short", "long"].map(|path| {
                let of_path = record.queues.iter().filter(|queue| queue.path == path);
                of_path.map(|queue| queue.dropped).sum()
            }),
            gateways: record.gateways.len(),
            gateways_lost,
            gateways_reasons,
            commit: None,
            outside_p99_ns: outside.p99,
            outside_max_ns: outside.max,
            cores: record.cpu_s.values().sum::<f64>() / (duration_ns as f64 / 1e9),
        };
        Observed {
            name: run.name.clone(),
            record: record.clone(),
            observations,
            line,
            gateway: run.gateway.as_ref().and_then(gateway_delay),
            error_bound_ns: run
                .results
                .as_ref()
                .and_then(|found| found.error_bound.calibrated_ns()),
        }
    }
}

fn gateway_delay(results: &Results) -> Option<GatewayDelay> {
    let (out, into) = (&results.forward.delay_ns, &results.reverse.delay_ns);
    Some(GatewayDelay {
        outbound_packets: out.samples,
        outbound_p50: out.p50?,
        outbound_p99: out.p99?,
        inbound_packets: into.samples,
        inbound_p50: into.p50?,
        inbound_p99: into.p99?,
    })
}
