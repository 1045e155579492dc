//! What a running gateway says of itself: the answer to `lanesplitd status`, and its last words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::PortId;
use crate::counters::{self, Counters};
use crate::flow::classifier::Rule;
use crate::lane::Lanes;
use crate::routes::RouteStatistics;
use crate::state::StateStatus;
use crate::worker::WorkerReport;
use crate::xdp::{KernelCounters, Mode, SocketStatistics};

/// A gateway as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of `lanesplitd`.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Configurations taken over since then, and refused.
    pub reloads: Reloads,
    /// How it sits in the network: "inline" or "routed".
    pub mode: String,
    /// The rule in force.
    pub classifier: Rule,
    /// The lanes in force.
    pub lanes: Lanes,
    /// Its ports.
    pub ports: Ports<PortStatus>,
    /// Times both ports were opened again, because one had gone or had another address.
    pub ports_reopened: u64,
    /// In routed mode: what is known of the kernel's routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RouteStatistics>,
    /// Where flows are saved for the next start: what was saved, and what was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateStatus>,
    /// What all workers counted together.
    pub total: Counters,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
}

/// What happened to configurations after the first.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Reloads {
    /// Taken over.
    pub accepted: u64,
    /// Refused; the one before stayed.
    pub refused: u64,
}

/// One of each port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports<T> {
    /// Towards the datacenter.
    pub lan: T,
    /// Towards the WAN.
    pub wan: T,
}

impl<T> Ports<T> {
    /// From an array in [`PortId`] order.
    pub fn new([lan, wan]: [T; 2]) -> Self {
        Ports { lan, wan }
    }

    /// The one of a port.
    pub fn of(&self, port: PortId) -> &T {
        match port {
            PortId::Lan => &self.lan,
            PortId::Wan => &self.wan,
        }
    }
}

/// Whether packets can go through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Open, and its interface has a link.
    Up,
    /// Open, and its interface is down or has no link.
    Down,
    /// Its interface is there, but the ports are not open: traffic is the kernel's.
    Closed,
    /// There is no such interface.
    Gone,
}

impl fmt::Display for PortState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PortState::Up => "up",
            PortState::Down => "down",
            PortState::Closed => "closed",
            PortState::Gone => "gone",
        })
    }
}

/// A port as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its interface.
    pub interface: String,
    /// Whether packets can go through it.
    pub state: PortState,
    /// Where its XDP program runs, or last ran.
    pub xdp: Mode,
    /// How packets get into user space: "zero-copy" or "copy".
    pub copy: String,
    /// MTU, in bytes.
    pub mtu: u32,
    /// Receive queues; those without a worker are the kernel's.
    #[serde(default)]
    pub queues: u32,
    /// Frames that its XDP program left to the kernel.
    pub kernel: KernelCounters,
}

/// A worker as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The queue that it serves on both ports.
    pub queue: u32,
    /// The core that it is pinned to.
    pub core: usize,
    /// What it reported last; a report is at most some ten milliseconds old.
    #[serde(flatten)]
    pub report: WorkerReport<SocketStatistics>,
}

impl Status {
    /// Adds a worker, and what it counted to the total.
    pub fn add(&mut self, worker: WorkerStatus) {
        self.total.add(&worker.report.counters);
        self.workers.push(worker);
    }
}

/// For people.
impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { version, pid, uptime_ms, mode, ports, .. } = self;
        let seconds = *uptime_ms as f64 / 1000.0;
        writeln!(formatter, "lanesplitd {version}, process {pid}, {mode}, up {seconds:.1} s")?;
        for port in PortId::ALL {
            let PortStatus { interface, state, xdp, copy, mtu, queues, kernel } = ports.of(port);
            let KernelCounters {
                own_address,
                oversize,
                no_socket,
                other_link,
                not_ip,
                other_destination,
                fragment,
            } = kernel;
            let side = format!("{port:?}").to_uppercase();
            write!(
                formatter,
                "{side} {interface}: {state}, XDP {xdp}, {copy}, MTU {mtu}, queues: {queues}; left to the kernel: "
            )?;
            writeln!(
                formatter,
                "{own_address} to its own address, {oversize} too long, {no_socket} without worker"
            )?;
            let routed = other_link + not_ip + other_destination + fragment;
            if routed > 0 {
                writeln!(
                    formatter,
                    "  and {other_link} to other MAC addresses, {not_ip} not IP, {other_destination} to other \
                     destinations, {fragment} fragments of tunnels"
                )?;
            }
        }
        for WorkerStatus { queue, core, report } in &self.workers {
            let frames = &report.frames;
            let balance = if report.frames_balance { "all accounted for" } else { "NOT BALANCED" };
            writeln!(
                formatter,
                "worker {queue} on core {core}: {} frames, {} free, {balance}",
                frames.total, frames.free
            )?;
            for port in PortId::ALL {
                let statistics = &report.ports[port.index()];
                let lost = statistics.rx_ring_full + statistics.rx_dropped;
                if lost > 0 {
                    let side = format!("{port:?}").to_uppercase();
                    writeln!(
                        formatter,
                        "  {side}: {lost} packets dropped before the worker saw them"
                    )?;
                }
            }
        }
        if let Some(state) = &self.state {
            writeln!(formatter, "{state}")?;
        }
        write!(formatter, "\n{}{}", counters::heading(), self.total)
    }
}
