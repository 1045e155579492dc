//! What the gateway itself costs: delay between taps on both its sides, on an idle network, beside the same way with
//! the kernel forwarding instead.
//!
//! A figure is the mean over runs, its interval from the least run to the greatest: there are few runs, and of each
//! the median over thousands of packets is known well. What is added is told for pairs of runs, in the same manner.

use serde::{Deserialize, Serialize};

use super::cells::{Cell, Cells, pairs};
use super::observed::{GatewayDelay, Observed};
use crate::bootstrap::Interval;
use crate::lab::records::Way;

/// Cells of which the gateway's own delay was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// From the least to the most that is in the way.
    pub rows: Vec<Row>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The cell.
    pub cell: Cell,
    /// How many runs.
    pub runs: usize,
    /// How many of them have a run without a gateway beside them.
    pub pairs: usize,
    /// Packets from LAN to WAN.
    pub outbound: Direction,
    /// Packets from WAN to LAN.
    pub inbound: Direction,
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Packets of all runs.
    pub packets: u64,
    /// Median delay.
    pub p50_ns: Interval,
    /// 99th percentile of the delay.
    pub p99_ns: Interval,
    /// By how much the median is above that without a gateway.
    pub added_p50_ns: Option<Interval>,
}

/// Of all cells that have it; `None`, if there is no such cell.
pub(super) fn of(cells: &Cells<'_>) -> Option<Overhead> {
    let measured = |runs: &[&Observed]| runs.iter().any(|run| run.gateway.is_some());
    let rows: Vec<Row> = cells
        .all
        .iter()
        .filter(|(_, runs)| measured(runs))
        .filter_map(|(cell, runs)| {
            let kernel = cells.all.iter().find(|(other, _)| {
                other.way == Way::Kernel
                    && other.context == cell.context
                    && other.background_percent == cell.background_percent
            });
            let kernel: &[&Observed] = kernel.map_or(&[], |(_, runs)| runs);
            let pairs = if cell.way == Way::Kernel { Vec::new() } else { pairs(kernel, runs).0 };
            let direction = |packets: fn(&GatewayDelay) -> u64,
                             p50: fn(&GatewayDelay) -> i64,
                             p99: fn(&GatewayDelay) -> i64| {
                let delays = || runs.iter().filter_map(|run| run.gateway.as_ref());
                let added = pairs.iter().filter_map(|(kernel, run)| {
                    Some((p50(run.gateway.as_ref()?) - p50(kernel.gateway.as_ref()?)) as f64)
                });
                Some(Direction {
                    packets: delays().map(packets).sum(),
                    p50_ns: range(delays().map(|delay| p50(delay) as f64))?,
                    p99_ns: range(delays().map(|delay| p99(delay) as f64))?,
                    added_p50_ns: range(added),
                })
            };
            let measured_both = pairs
                .iter()
                .filter(|(kernel, run)| kernel.gateway.is_some() && run.gateway.is_some());
            Some(Row {
                cell: cell.clone(),
                pairs: measured_both.count(),
                runs: runs.iter().filter(|run| run.gateway.is_some()).count(),
                outbound: direction(
                    |delay| delay.outbound_packets,
                    |delay| delay.outbound_p50,
                    |delay| delay.outbound_p99,
                )?,
                inbound: direction(
                    |delay| delay.inbound_packets,
                    |delay| delay.inbound_p50,
                    |delay| delay.inbound_p99,
                )?,
            })
        })
        .collect();
    (!rows.is_empty()).then_some(Overhead { rows })
}

/// The mean, and from the least to the greatest.
fn range(values: impl Iterator<Item = f64>) -> Option<Interval> {
    let values: Vec<f64> = values.collect();
    let value = values.iter().sum::<f64>() / values.len() as f64;
    let (low, high) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
    (!values.is_empty()).then_some(Interval { value, low, high })
}
