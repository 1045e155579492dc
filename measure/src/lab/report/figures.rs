//! The figures, each from the analysis, each with a sentence of what it says.

use super::chart::{Axis, Figure, Mark, Panel, Point, Pole, Scale, Series, Style};
use super::sentences;
use crate::bootstrap::Interval;
use crate::lab::analysis::distribution::{Distribution, Measure};
use crate::lab::analysis::speedup::{Comparison, SizeComparison};
use crate::lab::analysis::{Analysis, Cell, LONG, SHORT};
use crate::lab::records::{Attach, Way};

/// A figure, with its file's name and what it says.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    pub(super) file: &'static str,
    pub(super) heading: &'static str,
    pub(super) sentence: String,
    pub(super) figure: Figure,
}

/// Where series have their colours: ECMP, split, others.
const ECMP: usize = 1;
const SPLIT: usize = 0;
const BARS: &str = "Bars: 95 % confidence intervals. Dashed at 1: no difference.";

/// All that there are runs for.
pub(super) fn all(analysis: &Analysis) -> Vec<Drawing> {
    let all = [
        by_size(analysis),
        by_threshold(analysis),
        by_load(analysis),
        densities(analysis),
        long_flows(analysis),
        alternatives(analysis),
        overhead(analysis),
    ];
    all.into_iter().flatten().collect()
}

/// Comparisons of the main context by split in native XDP beside ECMP.
fn splits(analysis: &Analysis) -> Vec<&Comparison> {
    let is_main = |comparison: &&Comparison| {
        let cell = &comparison.cell;
        Some(cell.context) == analysis.main_context
            && cell.way == Way::Split
            && cell.attach == Attach::Native
            && comparison.baseline_way == Way::Ecmp
            && !comparison.sizes.is_empty()
    };
    analysis.comparisons.iter().filter(is_main).collect()
}

/// The threshold that most loads were run with; of several, that nearest to the paper's 40.
pub(super) fn main_threshold(analysis: &Analysis) -> Option<u32> {
    let splits = splits(analysis);
    let loads =
        |packets: u32| splits.iter().filter(|one| one.cell.threshold_packets == packets).count();
    let packets = splits.iter().map(|one| one.cell.threshold_packets);
    packets.max_by_key(|&packets| (loads(packets), std::cmp::Reverse(packets.abs_diff(40))))
}

/// Split at the main threshold, by load.
pub(super) fn by_loads(analysis: &Analysis) -> Vec<&Comparison> {
    let threshold = main_threshold(analysis);
    let splits = splits(analysis).into_iter();
    splits.filter(|one| Some(one.cell.threshold_packets) == threshold).collect()
}

/// The load at which most thresholds were run, if there are several.
pub(super) fn by_thresholds(analysis: &Analysis) -> Vec<&Comparison> {
    let splits = splits(analysis);
    let of_load = |percent: u32| {
        splits
            .iter()
            .copied()
            .filter(|one| one.cell.background_percent == percent)
            .collect::<Vec<_>>()
    };
    let loads = splits.iter().map(|one| one.cell.background_percent);
    let most = loads.max_by_key(|&percent| (of_load(percent).len(), percent));
    most.map(of_load).filter(|found| found.len() > 1).unwrap_or_default()
}

fn point(x: f64, interval: &Interval) -> Point {
    Point { x, y: interval.value, low: interval.low, high: interval.high }
}

/// From zero to above all that is drawn.
fn from_zero<'s>(series: impl Iterator<Item = &'s Series>, least: f64) -> Scale {
    let most = series.flat_map(|one| &one.points).map(|point| point.high).fold(least, f64::max);
    Scale::Linear(0.0, most * 1.08)
}

/// For times that may differ a lot: from below to above all that is drawn.
fn positive<'s>(series: impl Iterator<Item = &'s Series> + Clone) -> Scale {
    ratios(series, f64::MAX, f64::MIN_POSITIVE)
}

/// For ratios: twice and half are as far from 1. From below to above all that is drawn and marked.
fn ratios<'s>(series: impl Iterator<Item = &'s Series> + Clone, least: f64, most: f64) -> Scale {
    let points = series.flat_map(|one| &one.points);
    let least =
        points.clone().map(|point| point.low).filter(|low| *low > 0.0).fold(least, f64::min);
    let most = points.map(|point| point.high).fold(most, f64::max);
    Scale::Log(least / 1.1, most * 1.1)
}

fn no_difference() -> Mark {
    Mark { y: 1.0, x: None, name: String::new() }
}

fn packets(size: &str) -> String {
    match size {
        LONG => "more than 1000 packets".into(),
        size => format!("{} packets", size.replace('-', "–")),
    }
}

/// Speed-up by flow size at the greatest load: what a demonstration shows.
fn by_size(analysis: &Analysis) -> Option<Drawing> {
    let comparison = *by_loads(analysis).last()?;
    let sizes: Vec<&SizeComparison> = comparison.sizes.iter().collect();
    let names = sizes.iter().map(|size| match size.size.as_str() {
        LONG => "> 1000".to_owned(),
        SHORT => "1–40, all".into(),
        name => name.replace('-', "–"),
    });
    let figures: [(&str, fn(&SizeComparison) -> Option<Interval>); 2] =
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
        x: Axis { name: "packets of the flow".into(), scale: Scale::Names(names.collect()) },
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
            note: BARS.into(),
        },
    })
}

/// Series of a figure by size, over comparisons.
fn series_by_size(
    comparisons: &[&Comparison],
    x: impl Fn(usize, &Cell) -> f64,
    shift: f64,
    figure: fn(&SizeComparison) -> Option<Interval>,
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
            name => packets(name),
        };
        // All of them in dark grey; colours are for the finer ones.
        let number = if number == 0 { 6 } else { number - 1 };
        Series { name, number, style: Style::Line, points: points.collect() }
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

/// The paper's figure 4a.
fn by_threshold(analysis: &Analysis) -> Option<Drawing> {
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
            note: BARS.into(),
        },
    })
}

/// The paper's figure 4b.
fn by_load(analysis: &Analysis) -> Option<Drawing> {
    let comparisons = by_loads(analysis);
    if comparisons.len() < 2 {
        return None;
    }
    let load = |_: usize, cell: &Cell| f64::from(cell.background_percent);
    let marks = |of: &[(f64, f64, &str)]| {
        let near = |&(x, y, name): &(f64, f64, &str)| Mark {
            y,
            x: Some((x - 6.5, x + 3.0)),
            name: name.into(),
        };
        of.iter().map(near).chain([no_difference()]).collect::<Vec<_>>()
    };
    let figures: [(&str, fn(&SizeComparison) -> Option<Interval>, Vec<Mark>); 2] = [
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
                scale: Scale::Linear(-3.0, 44.0),
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
            note: BARS.into(),
        },
    })
}

/// The paper's figure 5.
fn densities(analysis: &Analysis) -> Option<Drawing> {
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
            note: "Bands: 95 % confidence intervals. Dashed: 99th percentile.".into(),
        },
    })
}

/// By ECMP and by split.
pub(super) type Pair<'a> = (&'a Distribution, &'a Distribution);

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
            .map(|(number, _, one)| Pole { x: one.p99_ns.value / 1e6, number })
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
pub(super) fn density_pairs(analysis: &Analysis) -> Vec<Pair<'_>> {
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

/// Throughput of long flows, and short flows beside moves.
fn long_flows(analysis: &Analysis) -> Option<Drawing> {
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
    let names = long.iter().map(|size| match *size {
        LONG => "> 1000".to_owned(),
        size => size.replace('-', "–"),
    });
    let mut panels = vec![Panel {
        title: "throughput of long flows, split / ECMP".into(),
        x: Axis { name: "packets of the flow".into(), scale: Scale::Names(names.collect()) },
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
            note: "Bars: 95 % confidence intervals. Dashed: no difference, and 5 % less.".into(),
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
            let points = times.iter().enumerate().map(|(place, short)| {
                let Interval { value, low, high } = short.p99_ns;
                let ms = Interval { value: value / 1e6, low: low / 1e6, high: high / 1e6 };
                point(place as f64 + aside, &ms)
            });
            let name = if *number == ECMP { "p99 by ECMP" } else { "p99 by split" };
            // Not the colours of the loads beside it.
            let number = if *number == ECMP { 5 } else { 6 };
            let points = points.collect();
            Some(Series { name: name.into(), number, style: Style::Points, points })
        })
        .collect();
    let names = vec!["no long flow begins".into(), "a long flow begins".into()];
    Some(Panel {
        title: format!(
            "flows of 1–40 packets, {} % background",
            comparison.cell.background_percent
        ),
        x: Axis { name: "meanwhile".into(), scale: Scale::Names(names) },
        y: Axis { name: "p99 of completion time in ms".into(), scale: positive(series.iter()) },
        series,
        marks: Vec::new(),
        poles: Vec::new(),
    })
}

/// What else one could do, at the load at which most of it was tried.
fn alternatives(analysis: &Analysis) -> Option<Drawing> {
    let found = alternatives_of(analysis);
    let percent = found.first()?.cell.background_percent;
    let names: Vec<String> = found.iter().map(|one| short_name(&one.cell)).collect();
    type Ratio = fn(&Comparison) -> Option<Interval>;
    let figures: [(&str, Ratio); 3] = [
        ("mean, 1–40 packets", |one| Some(one.size(SHORT)?.mean)),
        ("99th percentile, 1–40 packets", |one| one.size(SHORT)?.p99),
        ("throughput, > 1000 packets", |one| one.size(LONG)?.throughput),
    ];
    let panels = figures.iter().enumerate().map(|(number, (title, figure))| {
        let points = found.iter().enumerate();
        let points = points.filter_map(|(place, one)| Some(point(place as f64, &figure(one)?)));
        let series = vec![Series {
            name: String::new(),
            number,
            style: Style::Points,
            points: points.collect(),
        }];
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
            note: BARS.into(),
        },
    })
}

/// Each way but ECMP, at the load at which there are most; none, if there is only split.
pub(super) fn alternatives_of(analysis: &Analysis) -> Vec<&Comparison> {
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
pub(super) fn short_name(cell: &Cell) -> String {
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

/// The paper's figure 6.
fn overhead(analysis: &Analysis) -> Option<Drawing> {
    let overhead = analysis.overhead.as_ref()?;
    let name = |cell: &Cell| match (cell.way, cell.attach) {
        (Way::Kernel, _) => "kernel".to_owned(),
        (_, Attach::Native) => "native XDP".into(),
        (_, Attach::Generic) => "generic XDP".into(),
    };
    let names: Vec<String> = overhead.rows.iter().map(|row| name(&row.cell)).collect();
    let us =
        |of: &Interval| Interval { value: of.value / 1e3, low: of.low / 1e3, high: of.high / 1e3 };
    let figures: [(&str, fn(&crate::lab::analysis::overhead::Row) -> Interval); 4] = [
        ("LAN to WAN, median", |row| row.outbound.p50_ns),
        ("WAN to LAN, median", |row| row.inbound.p50_ns),
        ("LAN to WAN, p99", |row| row.outbound.p99_ns),
        ("WAN to LAN, p99", |row| row.inbound.p99_ns),
    ];
    let series = figures.iter().enumerate().map(|(number, (name, figure))| {
        let rows = overhead.rows.iter().enumerate();
        let aside = (number as f64 - 1.5) * 0.14;
        let points = rows.map(|(place, row)| point(place as f64 + aside, &us(&figure(row))));
        Series { name: (*name).into(), number, style: Style::Points, points: points.collect() }
    });
    let series: Vec<Series> = series.collect();
    let mut panels = vec![Panel {
        title: "delay between taps on both sides of a gateway".into(),
        x: Axis { name: String::new(), scale: Scale::Names(names) },
        y: Axis { name: "delay in µs".into(), scale: positive(series.iter()) },
        series,
        marks: Vec::new(),
        poles: Vec::new(),
    }];
    panels.extend(idle_times(analysis));
    Some(Drawing {
        file: "overhead.svg",
        heading: "What the gateway itself costs (the paper's figure 6)",
        sentence: sentences::overhead(overhead),
        figure: Figure {
            title: "An idle network: no gateway, and the gateway in both kinds of XDP".into(),
            columns: panels.len(),
            panels,
            width: 480,
            height: 360,
            note: "Delay: mean of the runs, bars from the least run to the greatest. Ratios: 95 % intervals."
                .into(),
        },
    })
}

/// Completion times by those without a gateway, by size.
fn idle_times(analysis: &Analysis) -> Option<Panel> {
    let compared: Vec<&Comparison> = analysis
        .comparisons
        .iter()
        .filter(|one| one.baseline_way == Way::Kernel && one.cell.way == Way::Split)
        .collect();
    let sizes: Vec<&str> =
        compared.first()?.sizes.iter().map(|size| size.size.as_str()).skip(1).collect();
    let series = compared.iter().enumerate().map(|(number, one)| {
        let points = sizes.iter().enumerate().filter_map(|(place, size)| {
            let Interval { value, low, high } = one.size(size)?.mean;
            // The other way round: how much longer it takes.
            let longer = Interval { value: 1.0 / value, low: 1.0 / high, high: 1.0 / low };
            Some(point(place as f64 + (number as f64 - 0.5) * 0.16, &longer))
        });
        let attach = match one.cell.attach {
            Attach::Native => "native XDP / kernel",
            Attach::Generic => "generic XDP / kernel",
        };
        let number = number + 4;
        Series { name: attach.into(), number, style: Style::Points, points: points.collect() }
    });
    let series: Vec<Series> = series.collect();
    Some(Panel {
        title: "mean completion time".into(),
        x: Axis {
            name: "packets of the flow".into(),
            scale: Scale::Names(
                sizes
                    .iter()
                    .map(|size| match *size {
                        LONG => "> 1000".to_owned(),
                        size => size.replace('-', "–"),
                    })
                    .collect(),
            ),
        },
        y: Axis { name: "times the kernel's".into(), scale: ratios(series.iter(), 0.8, 1.5) },
        series,
        marks: vec![no_difference()],
        poles: Vec::new(),
    })
}
