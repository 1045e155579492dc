//! What the gateway itself costs.

use super::{Drawing, axis_name, bars, no_difference, point, positive, ratios};
use crate::bootstrap::Interval;
use crate::lab::analysis::overhead::Row;
use crate::lab::analysis::speedup::Comparison;
use crate::lab::analysis::{Analysis, Cell};
use crate::lab::records::{Attach, Way};
use crate::lab::report::chart::{Axis, Figure, Panel, Scale, Series, Style};
use crate::lab::report::sentences;

/// A delay of a cell.
type Delay = fn(&Row) -> Interval;

/// The paper's figure 6.
pub(super) fn overhead(analysis: &Analysis) -> Option<Drawing> {
    let overhead = analysis.overhead.as_ref()?;
    let name = |cell: &Cell| match (cell.way, cell.attach) {
        (Way::Kernel, _) => "kernel".to_owned(),
        (_, Attach::Native) => "native XDP".into(),
        (_, Attach::Generic) => "generic XDP".into(),
    };
    let names: Vec<String> = overhead.rows.iter().map(|row| name(&row.cell)).collect();
    let us =
        |of: &Interval| Interval { value: of.value / 1e3, low: of.low / 1e3, high: of.high / 1e3 };
    let figures: [(&str, Delay); 4] = [
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
        sentence: sentences::overhead(analysis, overhead),
        figure: Figure {
            title: "An idle network: no gateway, and the gateway in both kinds of XDP".into(),
            columns: panels.len(),
            panels,
            width: 480,
            height: 360,
            note: format!(
                "Delay: mean of the runs, bars from the least run to the greatest. Ratios: {}",
                bars(analysis.comparisons.iter().filter(|one| one.baseline_way == Way::Kernel))
            ),
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
            name: "packets of the flow, as its kind says".into(),
            scale: Scale::Names(sizes.iter().map(|size| axis_name(size)).collect()),
        },
        y: Axis { name: "times the kernel's".into(), scale: ratios(series.iter(), 0.8, 1.5) },
        series,
        marks: vec![no_difference()],
        poles: Vec::new(),
    })
}
