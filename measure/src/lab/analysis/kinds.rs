//! Kinds of requests: what a mix says of them, and how many packets their bulks had between the taps.
//!
//! A flow's size in every figure is what its kind says. The gateway counts packets: a packet that was sent again, or an
//! acknowledgement more, may carry a flow of 40 packets over the threshold. So what was seen is told beside it.

use serde::{Deserialize, Serialize};

use super::cells::Cells;
use super::observed::Observation;
use super::sizes::SHORT_PACKETS_MAX;
use crate::lab::records::Bulk;
use crate::lab::workload::Mix;

/// One kind, over all runs of its mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// The mix.
    pub mix: String,
    /// What the mix calls it.
    pub name: String,
    /// Which way its bulk goes.
    pub bulk: Bulk,
    /// Packets of its bulk, as the mix says.
    pub packets: u32,
    /// Arrivals, on paths of 100 Mbit/s; of a mix that this program does not know, unknown.
    pub per_s: Option<f64>,
    /// Flows that were seen whole.
    pub flows: usize,
    /// Packets that were seen of a bulk: least, median, most.
    pub seen: [u64; 3],
    /// Flows of more packets than a short flow has.
    pub above_short: usize,
}

/// Of all mixes, in order; kinds by their packets.
pub(super) fn all(cells: &Cells<'_>) -> Vec<Kind> {
    let mut mixes: Vec<&str> = cells.contexts.iter().map(|context| context.mix.as_str()).collect();
    mixes.sort_unstable();
    mixes.dedup();
    mixes.into_iter().flat_map(|mix| of_mix(cells, mix)).collect()
}

fn of_mix(cells: &Cells<'_>, mix: &str) -> Vec<Kind> {
    let of_mix = cells.all.iter().filter(|(cell, _)| cells.contexts[cell.context].mix == mix);
    let all: Vec<&Observation> =
        of_mix.flat_map(|(_, runs)| runs).flat_map(|run| &run.observations).collect();
    let known = Mix::named(mix);
    let per_s = |name: &str| {
        known.as_ref()?.kinds.iter().find(|kind| kind.name == name).map(|kind| kind.per_s)
    };
    let mut kinds: Vec<(u32, &str, Bulk)> =
        all.iter().map(|one| (one.packets, one.kind.as_str(), one.bulk)).collect();
    kinds.sort_unstable_by_key(|&(packets, name, _)| (packets, name));
    kinds.dedup();
    let kind = |(packets, name, bulk): (u32, &str, Bulk)| {
        let of_kind = all.iter().filter(|one| one.kind == name && one.bulk == bulk);
        let mut seen: Vec<u64> = of_kind.filter_map(|one| one.packets_seen).collect();
        seen.sort_unstable();
        let above = seen.partition_point(|&packets| packets <= u64::from(SHORT_PACKETS_MAX));
        let ends = [0, seen.len().saturating_sub(1) / 2, seen.len().saturating_sub(1)];
        Kind {
            mix: mix.into(),
            name: name.into(),
            bulk,
            packets,
            per_s: per_s(name),
            flows: seen.len(),
            seen: ends.map(|place| seen.get(place).copied().unwrap_or(0)),
            above_short: seen.len() - above,
        }
    };
    kinds.into_iter().map(kind).collect()
}
