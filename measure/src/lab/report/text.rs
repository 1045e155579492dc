//! The summary, for a terminal.

use std::fmt;

use super::{Summary, sentences};
use crate::bootstrap::Interval;
use crate::export::table::time;
use crate::lab::analysis::{Analysis, CERTAIN_PAIRS_MIN, LONG, LONGER, SHORT};

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let analysis = &self.analysis;
        speedups(out, analysis)?;
        own_delay(out, analysis)?;
        goals(out, analysis)?;
        let failed: Vec<_> = analysis.runs.iter().filter(|run| run.failure.is_some()).collect();
        if !failed.is_empty() {
            writeln!(out, "\nfailed runs, which are in no figure:")?;
            for run in failed {
                let why = run.failure.as_deref().unwrap_or_default();
                writeln!(out, "  {} ({}): {why}", run.name, run.setting)?;
            }
        }
        for told in &analysis.unpaired {
            writeln!(out, "note: {told}")?;
        }
        writeln!(out, "\nreport: {}", self.report.display())
    }
}

fn interval(interval: &Interval) -> String {
    let Interval { value, low, high } = interval;
    format!("{value:.2} ({low:.2}-{high:.2})")
}

fn speedups(out: &mut fmt::Formatter<'_>, analysis: &Analysis) -> fmt::Result {
    if analysis.comparisons.is_empty() {
        return writeln!(out, "There are no two runs to compare.");
    }
    writeln!(
        out,
        "Flows of 1 to 40 packets: completion time of the baseline by that of the way (95 % interval; of fewer than {CERTAIN_PAIRS_MIN} \
         pairs nothing is certain); above 1 is faster.\n\n\
         {:<34}{:>5}  {:<9}{:>6}{:>8}  {:<20}{:<20}p99",
        "way", "load", "beside", "pairs", "flows", "mean", "p50"
    )?;
    for comparison in &analysis.comparisons {
        let cell = &comparison.cell;
        let beside = comparison.baseline.replace("no gateway", "kernel");
        write!(
            out,
            "{:<34}{:>3} %  {beside:<9}{:>6}",
            cell.name, cell.background_percent, comparison.pairs
        )?;
        match comparison.size(SHORT) {
            Some(short) => writeln!(
                out,
                "{:>8}  {:<20}{:<20}{}",
                short.flows[1],
                interval(&short.mean),
                interval(&short.p50),
                short.p99.as_ref().map_or("-".into(), interval)
            )?,
            None => writeln!(out, "{:>8}", 0)?,
        }
    }
    longer(out, analysis)
}

/// Flows that are not short, of which none is to lose much.
fn longer(out: &mut fmt::Formatter<'_>, analysis: &Analysis) -> fmt::Result {
    writeln!(
        out,
        "\nLonger flows, by the same: mean completion time, and throughput by that of the baseline.\n\n\
         {:<34}{:>5}  {:<9}{:<10}{:>8}  {:<20}throughput",
        "way", "load", "beside", "packets", "flows", "mean"
    )?;
    for comparison in &analysis.comparisons {
        let cell = &comparison.cell;
        let beside = comparison.baseline.replace("no gateway", "kernel");
        for size in LONGER.iter().filter_map(|(name, _)| comparison.size(name)) {
            let packets = if size.size == LONG { "> 1000" } else { &size.size };
            writeln!(
                out,
                "{:<34}{:>3} %  {beside:<9}{packets:<10}{:>8}  {:<20}{}",
                cell.name,
                cell.background_percent,
                size.flows[1],
                interval(&size.mean),
                size.throughput.as_ref().map_or("-".into(), interval)
            )?;
        }
    }
    Ok(())
}

fn own_delay(out: &mut fmt::Formatter<'_>, analysis: &Analysis) -> fmt::Result {
    let Some(overhead) = &analysis.overhead else { return Ok(()) };
    writeln!(
        out,
        "\n{:<34}{:>12}{:>12}{:>12}{:>12}",
        "delay over a gateway", "out p50", "out p99", "in p50", "in p99"
    )?;
    for row in &overhead.rows {
        write!(out, "{:<34}", row.cell.name)?;
        let figures =
            [&row.outbound.p50_ns, &row.outbound.p99_ns, &row.inbound.p50_ns, &row.inbound.p99_ns];
        figures.iter().try_for_each(|figure| write!(out, "{:>12}", time(figure.value)))?;
        writeln!(out)?;
    }
    writeln!(out, "{}", sentences::priorities(analysis))
}

fn goals(out: &mut fmt::Formatter<'_>, analysis: &Analysis) -> fmt::Result {
    writeln!(out)?;
    for goal in &analysis.goals {
        let certain = if goal.is_certain { "" } else { " (not certain)" };
        let standing = goal.standing.text();
        writeln!(out, "{standing:<17} {}: {}{certain}", goal.what, goal.found)?;
    }
    Ok(())
}
