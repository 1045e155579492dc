//! Densities of completion time and jitter, ECMP and split in one panel for each load.

use super::{Drawing, ECMP, SPLIT, by_loads, from_zero, main_threshold, point};
use crate::lab::analysis::Analysis;
use crate::lab::analysis::distribution::{Distribution, Measure};
use crate::lab::records::{Attach, Way};
use crate::lab::report::chart::{Axis, Figure, Panel, Pole, Scale, Series, Style};
use crate::lab::report::sentences;

/// The paper's figure 5.
pub(super) fn densities(analysis: &Analysis) -> Option<Drawing> {
    let pairs = density_pairs(analysis);
    let measures: [(&str, Of); 2] =
        [("completion time", |one| one.fct.as_ref()), ("jitter", |one| one.jitter.as_ref())];
    let [fct, jitter] = measures.map(|(name, measure)| density_row(&pairs, name, measure));
    let panels = fct.into_iter().zip(jitter).flat_map(|(fct, jitter)| [fct, jitter]);
    let panels: Vec<Panel> = panels.collect();
    (!panels.is_empty()).then(|| Drawing {
        file: "distributions.svg",
        heading: "Distributions of completion time and jitter (the paper's figure 5)",
        sentence: sentences::densities(&pairs),
        figure: Figure {
            title: "Flows of 1 to 40 packets".into(),
            panels,
            columns: 2,
            width: 470,
            height: if pairs.len() == 1 { 340 } else { 240 },
            note: "Bands: bootstrap of runs and of flows; of few runs too narrow. Dashed: 99th percentile.".into(),
        },
    })
}

/// By ECMP and by split.
type Pair<'a> = (&'a Distribution, &'a Distribution);

type Of = fn(&Distribution) -> Option<&Measure>;

/// A quantity at each load, on the same axes.
fn density_row(pairs: &[Pair<'_>], name: &str, measure: Of) -> Vec<Panel> {
    let edges = pairs.first().and_then(|(ecmp, _)| measure(ecmp)).map(|one| &one.edges_ns);
    let Some([from, .., to]) = edges.map(Vec::as_slice) else { return Vec::new() };
    let series = |pair: &Pair<'_>| -> Vec<Series> {
        let both = both(*pair, measure).into_iter();
        both.map(|(number, name, one)| density(one, name, number)).collect()
    };
    let all: Vec<Series> = pairs.iter().flat_map(series).collect();
    let shares = from_zero(all.iter(), 1.0);
    let panel = |pair: &Pair<'_>| Panel {
        title: format!("{name}, {} % background", pair.0.cell.background_percent),
        x: Axis { name: format!("{name} in ms"), scale: Scale::Log(from / 1e6, to / 1e6) },
        y: Axis { name: "share of flows in %".into(), scale: shares.clone() },
        series: series(pair),
        marks: Vec::new(),
        poles: both(*pair, measure)
            .into_iter()
            .filter_map(|(number, _, one)| Some(Pole { x: one.p99_ns?.value / 1e6, number }))
            .collect(),
    };
    pairs.iter().map(panel).collect()
}

/// What both have of a quantity, with their colours and names.
fn both<'a>(pair: Pair<'a>, measure: Of) -> Vec<(usize, &'static str, &'a Measure)> {
    let both = [(ECMP, "ECMP", pair.0), (SPLIT, "split", pair.1)];
    both.into_iter().filter_map(|(number, name, one)| Some((number, name, measure(one)?))).collect()
}

/// ECMP and split at the main threshold, by load.
fn density_pairs(analysis: &Analysis) -> Vec<Pair<'_>> {
    let threshold = main_threshold(analysis);
    let of = |way: Way, percent: u32| {
        analysis.distributions.iter().find(|one| {
            let cell = &one.cell;
            Some(cell.context) == analysis.main_context
                && cell.way == way
                && cell.attach == Attach::Native
                && cell.background_percent == percent
                && (way != Way::Split || Some(cell.threshold_packets) == threshold)
                && one.fct.is_some()
        })
    };
    let loads = by_loads(analysis).into_iter().map(|one| one.cell.background_percent);
    loads.filter_map(|percent| of(Way::Ecmp, percent).zip(of(Way::Split, percent))).collect()
}

/// Steps of a density.
fn density(measure: &Measure, name: &str, number: usize) -> Series {
    let bins = measure.edges_ns.windows(2).zip(&measure.density_percent);
    let points =
        bins.flat_map(|(edges, share)| [edges[0], edges[1]].map(|edge| point(edge / 1e6, share)));
    Series { name: name.into(), number, style: Style::Band, points: points.collect() }
}
