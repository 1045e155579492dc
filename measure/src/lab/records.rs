//! What a run leaves behind, in a folder of its own.
//!
//! ```text
//! output/
//!   lab.json                 the laboratory: seed, commands, kernel, commit, processor, priorities
//!   runs/0007-loads-split-40/
//!     run.json               RunRecord
//!     requests.parquet       RequestRecord a row: what the load driver asked and got, by its own clock
//!     flows.parquet          FlowLine a row: what lanesplit-measure saw between the taps
//!     results.json           lanesplit-measure's results
//!     gateway/               in experiments on overhead: flows and results between taps on both sides of gateway A
//!     logs/                  what the programs said and were told
//! ```
//!
//! All times are nanoseconds of the wall clock, which is what the taps stamp with, so that both witnesses compare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How packets get from one site to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// No gateway: the kernel of its machine forwards.
    Kernel,
    /// Gateways that hash each flow to one of both paths.
    Ecmp,
    /// Gateways that split short and long flows over both paths.
    Split,
    /// The paper's rule to the letter: as `split`, but a SYN starts nothing afresh.
    Paper,
    /// Gateways that send packets over both paths in turn.
    Spray,
    /// One path with the rate of both, whose queue serves short packets before long ones.
    Priority,
}

/// How the gateway's XDP programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// In the driver.
    Native,
    /// Behind it.
    Generic,
}

/// Everything that makes one run different from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How packets go.
    pub way: Way,
    /// How XDP is attached.
    pub attach: Attach,
    /// The classifier's threshold.
    pub threshold_packets: u32,
    /// Background load on each path and in each direction, in per cent of its rate.
    pub background_percent: u32,
    /// Rate of each path and direction.
    pub rate_mbit_per_s: u32,
    /// What a router's queue holds, in time at that rate.
    pub buffer_ms: u32,
    /// One-way delay that is added to each path.
    pub delay_ms: f64,
    /// Greatest deviation from that delay.
    pub jitter_ms: f64,
    /// Share of packets that each path loses on purpose.
    pub loss_percent: f64,
    /// Requests: the name of a mix in `workload`.
    pub mix: String,
    /// Whether requests are encrypted.
    pub tls: bool,
    /// For how long requests arrive.
    pub duration_s: u32,
    /// How much of that at the beginning is left out of every figure.
    pub warmup_s: u32,
    /// Of arrivals and sizes. Runs that are compared with each other have the same.
    pub seed: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The experiment it belongs to.
    pub experiment: String,
    /// Which of the repetitions of the same settings.
    pub repeat: u32,
    /// What was set.
    pub settings: Settings,
    /// When the driver's first request was due at the earliest.
    pub started_ns: u64,
    /// When the last request had ended.
    pub ended_ns: u64,
    /// Why the run cannot be used, if so.
    pub failure: Option<String>,
    /// Gateways A and B; none when the kernel forwarded.
    pub gateways: Vec<GatewayRecord>,
    /// The queues of both paths.
    pub queues: Vec<QueueRecord>,
    /// Processor time that programs took, in seconds, by their name.
    pub cpu_s: BTreeMap<String, f64>,
    /// Requests for which time or workers ran out, by kind; kinds without any are left out.
    #[serde(default)]
    pub requests_run_out: BTreeMap<String, u32>,
    /// The commit at which the laboratory was built; older records do not have it.
    #[serde(default)]
    pub commit: String,
    /// The kernel's release and version; older records do not have it.
    #[serde(default)]
    pub kernel: String,
}

/// A gateway's own accounts at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// `a` or `b`.
    pub site: String,
    /// Packets.
    pub received: u64,
    /// Packets.
    pub forwarded: u64,
    /// Packets, by reason; reasons without packets are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Packets of the short class.
    pub short: u64,
    /// Packets of the long class.
    pub long: u64,
}

/// A router's queue at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// `short` or `long`.
    pub path: String,
    /// `a-to-b` or `b-to-a`.
    pub direction: String,
    /// Packets.
    pub sent: u64,
    /// Bytes.
    pub sent_bytes: u64,
    /// Packets that found it full.
    pub dropped: u64,
}

/// Which way a request's bulk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bulk {
    /// From the server to the client.
    Download,
    /// From the client to the server.
    Upload,
}

/// What the load driver asked and got: one request, which is one TCP connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its number, in the order in which requests were due.
    pub number: u32,
    /// The kind, as the mix calls it, like `listing` or `video`.
    pub kind: String,
    /// Which way its bulk goes.
    pub bulk: Bulk,
    /// Packets that its bulk takes, in its direction, as the kind says.
    pub packets: u32,
    /// Bytes of the body.
    pub bytes: u64,
    /// When it should have begun.
    pub due_ns: u64,
    /// When it did: just before connect.
    pub started_ns: u64,
    /// When the TCP connection was there.
    pub connected_ns: Option<u64>,
    /// When the last byte of the answer was there.
    pub finished_ns: Option<u64>,
    /// The client's port, by which its flows are known.
    pub port: Option<u16>,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}
