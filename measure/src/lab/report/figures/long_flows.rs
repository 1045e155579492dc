//! Long flows, and short ones while they are moved.

use super::{
    Drawing, ECMP, SPLIT, axis_name, bars, by_loads, no_difference, point, positive, ratios,
};
use crate::bootstrap::Interval;
use crate::lab::analysis::Analysis;
use crate::lab::analysis::speedup::Comparison;
use crate::lab::report::chart::{Axis, Figure, Mark, Panel, Scale, Series, Style};
use crate::lab::report::sentences;

/// Throughput of long flows, and short flows beside moves.
pub(super) fn long_flows(analysis: &Analysis) -> Option<Drawing> {
    let comparisons = by_loads(analysis);
    let last = *comparisons.last()?;
    let long: Vec<&str> = last
        .sizes
        .iter()
        .filter(|size| size.throughput.is_some())
        .map(|size| size.size.as_str())
        .collect();
    if long.is_empty() {
        return None;
    }
    let middle = (comparisons.len() - 1) as f64 / 2.0;
    let series: Vec<Series> = comparisons
        .iter()
        .enumerate()
        .map(|(number, comparison)| {
            let points = long.iter().enumerate().filter_map(|(place, size)| {
                let aside = (number as f64 - middle) * 0.12;
                Some(point(place as f64 + aside, &comparison.size(size)?.throughput?))
            });
            Series {
                name: format!("{} % background", comparison.cell.background_percent),
                number,
                style: Style::Points,
                points: points.collect(),
            }
        })
        .collect();
    let names = long.iter().map(|size| axis_name(size));
    let mut panels = vec![Panel {
        title: "throughput of long flows, split / ECMP".into(),
        x: Axis {
            name: "packets of the flow, as its kind says".into(),
            scale: Scale::Names(names.collect()),
        },
        y: Axis { name: "ratio of means".into(), scale: ratios(series.iter(), 0.8, 1.25) },
        series,
        marks: vec![no_difference(), Mark { y: 0.95, x: None, name: String::new() }],
        poles: Vec::new(),
    }];
    panels.extend(beside_moves(analysis, last));
    Some(Drawing {
        file: "long-flows.svg",
        heading: "Long flows, and short ones while they are moved",
        sentence: sentences::long_flows(analysis, last),
        figure: Figure {
            title: "What splitting does to long flows, and their moves to short ones".into(),
            columns: panels.len(),
            panels,
            width: 480,
            height: 380,
            note: bars(comparisons.iter().copied()) + " Dashed: no difference, and 5 % less.",
        },
    })
}

fn beside_moves(analysis: &Analysis, comparison: &Comparison) -> Option<Panel> {
    let [ecmp, split] = sentences::moves_of(analysis, comparison)?;
    let both = [("ECMP", ECMP, ecmp), ("split", SPLIT, split)];
    let series: Vec<Series> = both
        .iter()
        .filter_map(|(_, number, moves)| {
            let aside = if *number == ECMP { -0.1 } else { 0.1 };
            let times = [moves.apart.as_ref()?, moves.beside.as_ref()?];
            let points = times.iter().enumerate().filter_map(|(place, short)| {
                let Interval { value, low, high } = short.p99_ns?;
                let ms = Interval { value: value / 1e6, low: low / 1e6, high: high / 1e6 };
                Some(point(place as f64 + aside, &ms))
            });
            let name = if *number == ECMP { "p99 by ECMP" } else { "p99 by split" };
            // Not the colours of the loads beside it.
            let number = if *number == ECMP { 5 } else { 6 };
            let points: Vec<_> = points.collect();
            if points.is_empty() {
                return None;
            }
            Some(Series { name: name.into(), number, style: Style::Points, points })
        })
        .collect();
    if series.is_empty() {
        return None;
    }
    let names = vec!["no long flow began".into(), "a long flow began".into()];
    Some(Panel {
        title: format!(
            "flows of 1–40 packets, {} % background",
            comparison.cell.background_percent
        ),
        x: Axis { name: "just before".into(), scale: Scale::Names(names) },
        y: Axis { name: "p99 of completion time in ms".into(), scale: positive(series.iter()) },
        series,
        marks: Vec::new(),
        poles: Vec::new(),
    })
}
