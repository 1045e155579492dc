//! Results as people read them in a terminal.

use std::fmt;

use crate::results::{DirectionResult, Results};
use crate::source::Tap;
use crate::statistics::Summary;

/// Shows results as tables.
#[derive(Debug)]
pub struct Table<'r>(pub &'r Results);

impl fmt::Display for Table<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results = self.0;
        accounts(out, results)?;
        direction(out, "ingress to egress", &results.forward, results)?;
        if results.reverse.matched > 0 {
            direction(out, "egress to ingress", &results.reverse, results)?;
        }
        if results.lanes.len() > 1 {
            writeln!(out, "\n{:<24}{:>12}{:>10}{HEAD}", "lanes, delay", "matched", "lost")?;
            for lane in &results.lanes {
                let figures = Figures(&lane.delay_ns);
                writeln!(out, "{:<24}{:>12}{:>10}{figures}", lane.lane, lane.matched, lane.lost)?;
            }
        }
        writeln!(out, "\nerror bound: {}", results.error_bound)
    }
}

const HEAD: &str = "       min      mean       p50       p99     p99.9       max";

fn accounts(out: &mut fmt::Formatter<'_>, results: &Results) -> fmt::Result {
    let packets = &results.packets;
    writeln!(
        out,
        "{:<10}{:>12} = {:>12} {:<9} + {:>9} {:<9} + {:>9} duplicate + {:>7} ambiguous + {:>7} out of window",
        "ingress",
        packets.ingress,
        packets.matched,
        "matched",
        packets.lost,
        "lost",
        results.tap(Tap::Ingress).map_or(0, |tap| tap.duplicate),
        results.tap(Tap::Ingress).map_or(0, |tap| tap.ambiguous),
        packets.out_of_window
    )?;
    writeln!(
        out,
        "{:<10}{:>12} = {:>12} {:<9} + {:>9} {:<9} + {:>9} duplicate + {:>7} ambiguous + {:>7} out of window",
        "egress",
        packets.egress,
        packets.matched,
        "matched",
        packets.unmatched,
        "unmatched",
        results.tap(Tap::Egress).map_or(0, |tap| tap.duplicate),
        results.tap(Tap::Egress).map_or(0, |tap| tap.ambiguous),
        packets.out_of_window
    )
}

fn direction(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    way: &DirectionResult,
    results: &Results,
) -> fmt::Result {
    writeln!(out, "\n{name:<24}{:>12}{:>10}{HEAD}", "samples", "")?;
    let rows = [("delay", &way.delay_ns), ("IPDV", &way.ipdv_ns), ("PDV", &way.pdv_ns)];
    for (name, summary) in rows {
        writeln!(out, "{name:<24}{:>12}{:>10}{}", summary.samples, "", Figures(summary))?;
    }
    if let Some(ns) = way.p95_p50_ns {
        writeln!(out, "{:<24}{:>12}{:>10}{:>10}", "delay P95-P50", "", "", time(ns as f64))?;
    }
    for class in &results.settings.classes {
        let Some(found) = way.fct_ns.get(class) else { continue };
        let incomplete = way.incomplete_flows.get(class).copied().unwrap_or(0);
        if found.flows + incomplete == 0 {
            continue;
        }
        let name = format!("FCT, {class} packets");
        let apart =
            if incomplete > 0 { format!("  ({incomplete} incomplete apart)") } else { "".into() };
        writeln!(out, "{name:<24}{:>12}{:>10}{}{apart}", found.flows, "", Figures(&found.summary))?;
    }
    Ok(())
}

struct Figures<'s>(&'s Summary);

impl fmt::Display for Figures<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { min, mean, p50, p99, p999, max, .. } = self.0;
        let figure = |ns: &Option<i64>| ns.map(|ns| ns as f64);
        for ns in [figure(min), *mean, figure(p50), figure(p99), figure(p999), figure(max)] {
            write!(out, "{:>10}", ns.map_or("-".into(), time))?;
        }
        Ok(())
    }
}

/// A time with four digits and its unit.
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        size if size < 1e3 => (ns, "ns"),
        size if size < 1e6 => (ns / 1e3, "us"),
        size if size < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = match value.abs() {
        _ if unit == "ns" && value.fract() == 0.0 => 0,
        size if size < 10.0 => 3,
        size if size < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.digits$}{unit}")
}
