//! How much sooner flows finish than by ECMP: by size, threshold and load, and by other ways.

use super::{Drawing, axis_name, bars, by_loads, by_thresholds, main_threshold, no_difference};
use super::{point, ratios};
use crate::bootstrap::Interval;
use crate::lab::analysis::speedup::{Comparison, SizeComparison};
use crate::lab::analysis::{Analysis, Cell, LONG, SHORT};
use crate::lab::records::{Attach, Way};
use crate::lab::report::chart::{Axis, Figure, Mark, Panel, Point, Scale, Series, Style};
use crate::lab::report::sentences;

/// A ratio of flows of one size.
type Ratio = fn(&SizeComparison) -> Option<Interval>;
/// A ratio of all flows of a way.
type OfWay = fn(&Comparison) -> Option<Interval>;

/// Speed-up by flow size at the greatest load: what a demonstration shows.
pub(super) fn by_size(analysis: &Analysis) -> Option<Drawing> {
    let comparison = *by_loads(analysis).last()?;
    let sizes: Vec<&SizeComparison> = comparison.sizes.iter().collect();
    let names = sizes.iter().map(|size| match size.size.as_str() {
        SHORT => "1–40, all".to_owned(),
        name => axis_name(name),
    });
    let figures: [(&str, Ratio); 2] =
        [("mean", |size| Some(size.mean)), ("99th percentile", |size| size.p99)];
    let series = figures.iter().enumerate().map(|(number, (name, figure))| {
        let shift = [-0.1, 0.1][number];
        let points = sizes.iter().enumerate();
        let points =
            points.filter_map(|(place, size)| Some(point(place as f64 + shift, &figure(size)?)));
        Series { name: (*name).into(), number, style: Style::Points, points: points.collect() }
    });
    let series: Vec<Series> = series.collect();
    let panel = Panel {
        title: String::new(),
        x: Axis {
            name: "packets of the flow, as its kind says".into(),
            scale: Scale::Names(names.collect()),
        },
        y: Axis { name: "speed-up over ECMP".into(), scale: ratios(series.iter(), 0.8, 2.0) },
        series,
        marks: vec![no_difference()],
        poles: Vec::new(),
    };
    Some(Drawing {
        file: "speedup-by-size.svg",
        heading: "How much sooner flows finish",
        sentence: sentences::by_size(comparison),
        figure: Figure {
            title: format!(
                "Completion time by ECMP / by split at {} packets, {} % background",
                comparison.cell.threshold_packets, comparison.cell.background_percent
            ),
            panels: vec![panel],
            columns: 1,
            width: 760,
            height: 380,
            note: bars([comparison]),
        },
    })
}

/// Series of a figure by size, over comparisons.
fn series_by_size(
    comparisons: &[&Comparison],
    x: impl Fn(usize, &Cell) -> f64,
    shift: f64,
    figure: Ratio,
) -> Vec<Series> {
    let sizes = [SHORT, "1-5", "6-10", "11-20", "21-40"];
    let series = sizes.iter().enumerate().map(|(number, name)| {
        let aside = (number as f64 - 2.0) * shift;
        let points = comparisons.iter().enumerate().filter_map(|(place, comparison)| {
            let size = comparison.size(name)?;
            Some(point(x(place, &comparison.cell) + aside, &figure(size)?))
        });
        let name = match *name {
            SHORT => "all of 1–40 packets".to_owned(),
            name => format!("{} packets", axis_name(name)),
        };
        // All of them in dark grey; colours are for the finer ones.
        let number = if number == 0 { 6 } else { number - 1 };
        Series { name, number, style: Style::Line, points: points.collect() }
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

/// The paper's figure 4a.
pub(super) fn by_threshold(analysis: &Analysis) -> Option<Drawing> {
    let comparisons = by_thresholds(analysis);
    let load = comparisons.first()?.cell.background_percent;
    let names = comparisons.iter().map(|one| one.cell.threshold_packets.to_string()).collect();
    let series =
        series_by_size(&comparisons, |place, _| place as f64, 0.09, |size| Some(size.mean));
    let panel = Panel {
        title: String::new(),
        x: Axis { name: "threshold in packets".into(), scale: Scale::Names(names) },
        y: Axis {
            name: "speed-up of the mean over ECMP".into(),
            scale: ratios(series.iter(), 0.8, 2.0),
        },
        series,
        marks: vec![no_difference()],
        poles: Vec::new(),
    };
    Some(Drawing {
        file: "speedup-by-threshold.svg",
        heading: "Speed-up against threshold (the paper's figure 4a)",
        sentence: sentences::by_threshold(&comparisons),
        figure: Figure {
            title: format!("Mean completion time by ECMP / by split, {load} % background"),
            panels: vec![panel],
            columns: 1,
            width: 760,
            height: 400,
            note: bars(comparisons.iter().copied()),
        },
    })
}

/// The paper's figure 4b.
pub(super) fn by_load(analysis: &Analysis) -> Option<Drawing> {
    let comparisons = by_loads(analysis);
    if comparisons.len() < 2 {
        return None;
    }
    let load = |_: usize, cell: &Cell| f64::from(cell.background_percent);
    let marks = |of: &[(f64, f64, &str)]| {
        let near = |&(x, y, name): &(f64, f64, &str)| Mark {
            y,
            x: Some((x - 4.0, x + 4.0)),
            name: name.into(),
        };
        of.iter().map(near).chain([no_difference()]).collect::<Vec<_>>()
    };
    let figures: [(&str, Ratio, Vec<Mark>); 2] = [
        (
            "mean",
            |size| Some(size.mean),
            marks(&[(40.0, 1.5, "least"), (40.0, 2.0, "goal"), (10.0, 1.1, "least")]),
        ),
        ("99th percentile", |size| size.p99, marks(&[(40.0, 2.0, "least"), (40.0, 3.0, "goal")])),
    ];
    let panels = figures.map(|(title, figure, marks)| {
        let series = series_by_size(&comparisons, load, 0.7, figure);
        let most = marks.iter().map(|mark| mark.y).fold(2.0, f64::max);
        Panel {
            title: title.into(),
            x: Axis {
                name: "background load in % of the paths".into(),
                scale: Scale::Linear(-3.0, 50.0),
            },
            y: Axis { name: "speed-up over ECMP".into(), scale: ratios(series.iter(), 0.8, most) },
            series,
            marks,
            poles: Vec::new(),
        }
    });
    let threshold = comparisons[0].cell.threshold_packets;
    Some(Drawing {
        file: "speedup-by-load.svg",
        heading: "Speed-up against background load (the paper's figure 4b)",
        sentence: sentences::by_load(&comparisons),
        figure: Figure {
            title: format!("Completion time by ECMP / by split at {threshold} packets"),
            panels: panels.into(),
            columns: 2,
            width: 470,
            height: 380,
            note: bars(comparisons.iter().copied()),
        },
    })
}

/// What else one could do, at the load at which most of it was tried.
pub(super) fn alternatives(analysis: &Analysis) -> Option<Drawing> {
    let found = alternatives_of(analysis);
    let percent = found.first()?.cell.background_percent;
    let names: Vec<String> = found.iter().map(|one| short_name(&one.cell)).collect();
    let figures: [(&str, OfWay); 3] = [
        ("mean, 1–40 packets", |one| Some(one.size(SHORT)?.mean)),
        ("99th percentile, 1–40 packets", |one| one.size(SHORT)?.p99),
        ("throughput, > 1000 packets", |one| one.size(LONG)?.throughput),
    ];
    let has_any = |figure: &OfWay| found.iter().any(|one| figure(one).is_some());
    let shown = figures.iter().enumerate().filter(|(_, (_, figure))| has_any(figure));
    let panels = shown.map(|(number, (title, figure))| {
        let points = found.iter().enumerate();
        let points = points.filter_map(|(place, one)| Some(point(place as f64, &figure(one)?)));
        let points: Vec<Point> = points.collect();
        let series = vec![Series { name: String::new(), number, style: Style::Points, points }];
        Panel {
            title: (*title).into(),
            x: Axis { name: String::new(), scale: Scale::Names(names.clone()) },
            y: Axis {
                name: "times as good as ECMP".into(),
                scale: ratios(series.iter(), 0.8, 1.5),
            },
            series,
            marks: vec![no_difference()],
            poles: Vec::new(),
        }
    });
    Some(Drawing {
        file: "alternatives.svg",
        heading: "What one could do instead",
        sentence: sentences::alternatives(&found),
        figure: Figure {
            title: format!("Beside ECMP, {percent} % background"),
            panels: panels.collect(),
            columns: 3,
            width: 380,
            height: 340,
            note: bars(found.iter().copied()),
        },
    })
}

/// Each way but ECMP, at the load at which there are most; none, if there is only split.
fn alternatives_of(analysis: &Analysis) -> Vec<&Comparison> {
    let threshold = main_threshold(analysis);
    let of_load = |percent: u32| {
        let all = analysis.comparisons.iter().filter(move |one| {
            let cell = &one.cell;
            Some(cell.context) == analysis.main_context
                && one.baseline_way == Way::Ecmp
                && cell.background_percent == percent
                && cell.attach == Attach::Native
                && (cell.way != Way::Split || Some(cell.threshold_packets) == threshold)
                && !one.sizes.is_empty()
        });
        all.collect::<Vec<_>>()
    };
    let loads = analysis.comparisons.iter().map(|one| one.cell.background_percent);
    let most = loads.max_by_key(|&percent| (of_load(percent).len(), percent));
    let found = most.map(of_load).unwrap_or_default();
    let has_others = found.iter().any(|one| one.cell.way != Way::Split);
    if has_others { found } else { Vec::new() }
}

/// A way, in a word.
fn short_name(cell: &Cell) -> String {
    match cell.way {
        Way::Kernel => "kernel",
        Way::Ecmp => "ECMP",
        Way::Split => "split",
        Way::Paper => "paper's rule",
        Way::Spray => "spray",
        Way::Priority => "priority",
    }
    .into()
}
