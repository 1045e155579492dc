//! Cells: runs of equal settings but for the seed; and pairs, runs of two cells with the same seed.

use serde::{Deserialize, Serialize};

use super::observed::Observed;
use super::way_text;
use crate::lab::records::{Attach, Settings, Way};

/// What is the same for all cells that may be compared, whatever their way and load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Of each path and direction.
    pub rate_mbit_per_s: u32,
    /// What a router's queue holds.
    pub buffer_ms: u32,
    /// Added to each path, one way.
    pub delay_ms: f64,
    /// Greatest deviation from that.
    pub jitter_ms: f64,
    /// Lost on purpose.
    pub loss_percent: f64,
    /// The name of the mix of requests.
    pub mix: String,
    /// Whether requests are encrypted.
    pub tls: bool,
    /// For how long requests arrive.
    pub duration_s: u32,
    /// How much of that is left out.
    pub warmup_s: u32,
}

impl Context {
    fn of(settings: &Settings) -> Context {
        Context {
            rate_mbit_per_s: settings.rate_mbit_per_s,
            buffer_ms: settings.buffer_ms,
            delay_ms: settings.delay_ms,
            jitter_ms: settings.jitter_ms,
            loss_percent: settings.loss_percent,
            mix: settings.mix.clone(),
            tls: settings.tls,
            duration_s: settings.duration_s,
            warmup_s: settings.warmup_s,
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The place of its context.
    pub context: usize,
    /// How packets go.
    pub way: Way,
    /// How XDP is attached.
    pub attach: Attach,
    /// The classifier's threshold; of ways without one it means nothing.
    pub threshold_packets: u32,
    /// Background load.
    pub background_percent: u32,
    /// The way in words.
    pub name: String,
    /// How many runs.
    pub runs: usize,
}

/// All of them, with their runs.
pub(super) struct Cells<'o> {
    pub(super) contexts: Vec<Context>,
    pub(super) all: Vec<(Cell, Vec<&'o Observed>)>,
}

/// A way that no threshold changes.
fn has_threshold(way: Way) -> bool {
    matches!(way, Way::Split | Way::Paper)
}

impl<'o> Cells<'o> {
    pub(super) fn of(observed: &'o [Observed]) -> Cells<'o> {
        let mut cells = Cells { contexts: Vec::new(), all: Vec::new() };
        for run in observed {
            let settings = &run.record.settings;
            let context = Context::of(settings);
            let place = cells.contexts.iter().position(|known| *known == context);
            let context = place.unwrap_or_else(|| {
                cells.contexts.push(context);
                cells.contexts.len() - 1
            });
            let same = |cell: &Cell| {
                cell.context == context
                    && cell.way == settings.way
                    && (cell.attach == settings.attach || settings.way == Way::Kernel)
                    && (cell.threshold_packets == settings.threshold_packets
                        || !has_threshold(settings.way))
                    && cell.background_percent == settings.background_percent
            };
            match cells.all.iter_mut().find(|(cell, _)| same(cell)) {
                Some((cell, runs)) => {
                    cell.runs += 1;
                    runs.push(run);
                }
                None => {
                    let cell = Cell {
                        context,
                        way: settings.way,
                        attach: settings.attach,
                        threshold_packets: settings.threshold_packets,
                        background_percent: settings.background_percent,
                        name: way_text(settings),
                        runs: 1,
                    };
                    cells.all.push((cell, vec![run]));
                }
            }
        }
        cells.all.sort_by_key(|(cell, _)| {
            let Cell { context, way, attach, threshold_packets, background_percent, .. } = cell;
            (*context, *background_percent, *way, *threshold_packets, *attach == Attach::Generic)
        });
        cells
    }

    /// The context that most runs with background, or else most runs, are of.
    pub(super) fn main_context(&self) -> Option<usize> {
        let runs = |context: usize| {
            let cells = self.all.iter().filter(move |(cell, _)| cell.context == context);
            let with_gateway = cells.clone().any(|(cell, _)| cell.way == Way::Ecmp);
            (with_gateway, cells.map(|(_, runs)| runs.len()).sum::<usize>())
        };
        (0..self.contexts.len()).max_by_key(|&context| (runs(context), std::cmp::Reverse(context)))
    }

    /// What a cell is compared with: ECMP of the same load, or else no gateway; nothing, if it is that itself.
    pub(super) fn baseline(&self, cell: &Cell) -> Option<&(Cell, Vec<&'o Observed>)> {
        let of_way = |way: Way| {
            self.all.iter().find(|(other, _)| {
                other.context == cell.context
                    && other.background_percent == cell.background_percent
                    && other.way == way
            })
        };
        match cell.way {
            Way::Kernel => None,
            Way::Ecmp => of_way(Way::Kernel),
            _ => of_way(Way::Ecmp).or_else(|| of_way(Way::Kernel)),
        }
    }
}

/// Pairs of runs: the same repetition with the same seed. And the names of those that have no other half.
pub(super) fn pairs<'o>(
    a: &[&'o Observed],
    b: &[&'o Observed],
) -> (Vec<(&'o Observed, &'o Observed)>, Vec<&'o str>) {
    let key = |run: &Observed| (run.record.settings.seed, run.record.repeat);
    let mut left: Vec<&Observed> = a.to_vec();
    let (mut found, mut alone) = (Vec::new(), Vec::new());
    for &run in b {
        match left.iter().position(|other| key(other) == key(run)) {
            Some(place) => found.push((left.remove(place), run)),
            None => alone.push(run.name.as_str()),
        }
    }
    alone.extend(left.iter().map(|run| run.name.as_str()));
    (found, alone)
}
