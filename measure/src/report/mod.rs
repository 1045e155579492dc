//! Reports: one HTML file each, figures inside as SVG, nothing fetched from anywhere.

mod figure;

use std::fmt::Write;

pub(crate) use figure::colour;
use figure::{Curve, Points, Scale, chart};

use crate::classes::{MORE, SizeClasses};
use crate::compare::{ALL, Comparison, Interval, completion_times};
use crate::export::table::time;
use crate::flow::Direction;
use crate::flow_line::FlowLine;
use crate::over_time::Point;
use crate::results::{ClassResult, DirectionResult, LaneResult, Results};
use crate::source::Tap;
use crate::statistics::Summary;
use crate::stored::Run;

/// Most lanes that are drawn, those with most packets.
const LANES_DRAWN: usize = 6;
/// Bins of time that make one point of loss: single ones hold too few packets.
const LOSS_BINS_JOINED: usize = 6;
/// Bars of a density.
const BINS: usize = 40;

/// The report of a run.
///
/// # Errors
///
/// When a figure cannot be drawn.
pub fn page(results: &Results, flows: &[FlowLine]) -> Result<String, String> {
    let classes = SizeClasses::from_names(&results.settings.classes).unwrap_or_default();
    let mut body = String::from("<h1>Lanesplit measurement</h1>");
    sources(&mut body, results);
    messages(&mut body, results);
    accounts(&mut body, results);
    figures(&mut body, results);
    body.push_str("<h2>Delay and loss in the course of time</h2>");
    over_time(&mut body, &results.lanes)?;
    let measured = || flows.iter().filter(|flow| flow.is_measured(Direction::Forward));
    let fct = by_class(measured().filter_map(|flow| Some((flow, flow.fct_ns? as f64))), &classes);
    let jitter = by_class(measured().filter_map(|flow| Some((flow, flow.jitter_ns?))), &classes);
    body.push_str("<h2>Flow completion time, complete TCP flows from ingress to egress</h2>");
    distribution(&mut body, "flow completion time", &fct, &classes)?;
    body.push_str("<h2>Jitter of the same flows: mean size of IPDV</h2>");
    distribution(&mut body, "jitter", &jitter, &classes)?;
    class_table(&mut body, &results.forward, &results.settings.classes);
    Ok(html("Lanesplit measurement", &body))
}

/// Two runs side by side.
///
/// # Errors
///
/// When a figure cannot be drawn.
pub fn comparison(a: &Run, b: &Run, comparison: &Comparison) -> Result<String, String> {
    let mut body = String::from("<h1>Lanesplit: two runs compared</h1>");
    let _ = write!(
        body,
        "<p>A: {}<br>B: {}</p><p>Speed-up is the time of A by the time of B, with the interval that holds the true \
         value 95 times out of 100 (bootstrap, {} samples, seed {}).</p>",
        escaped(&comparison.a),
        escaped(&comparison.b),
        comparison.samples,
        comparison.seed
    );
    let interval = |interval: &Option<Interval>| match interval {
        Some(Interval { value, low, high }) => {
            format!("{value:.3} <small>({low:.3} to {high:.3})</small>")
        }
        None => "-".into(),
    };
    body.push_str(
        "<table><tr><th>packets<th>flows A<th>flows B<th>speed-up, mean<th>median<th>p99<th>KS distance<th>",
    );
    for class in &comparison.classes {
        let [a, b] = class.flows;
        let [mean, p50, p99] =
            [&class.speedup_mean, &class.speedup_p50, &class.speedup_p99].map(interval);
        let distance = class.ks_distance.map_or("-".into(), |ks| format!("{ks:.3}"));
        let _ = write!(
            body,
            "<tr><td>{}<td>{a}<td>{b}<td>{mean}<td>{p50}<td>{p99}<td>{distance}<td class=text>{}",
            class.class,
            escaped(&class.sentence)
        );
    }
    body.push_str("</table>");
    let classes = SizeClasses::from_names(&a.results.settings.classes).unwrap_or_default();
    let [times_a, times_b] = [a, b].map(|run| completion_times(&run.flows, &classes));
    body.push_str("<h2>Flow completion time</h2><div class=figures>");
    let mut missing = Vec::new();
    for name in classes.names().into_iter().chain([ALL.to_owned()]) {
        let (Some(a), Some(b)) = (times_a.get(&name), times_b.get(&name)) else {
            missing.push(name);
            continue;
        };
        let floats = |times: &Vec<u64>| times.iter().map(|&ns| ns as f64).collect::<Vec<_>>();
        let curves = [("A", floats(a)), ("B", floats(b))];
        let curves = curves.iter().enumerate().map(|(number, (name, times))| {
            Curve::new(format!("{name}, {} flows", times.len()), colour(number), cumulative(times))
        });
        let title = match name.as_str() {
            ALL => "all flows".to_owned(),
            name => format!("flows of {name} packets"),
        };
        let curves: Vec<Curve> = curves.collect();
        body.push_str(&chart(
            &title,
            "flow completion time",
            Scale::TimeLog,
            "share of flows in %",
            &curves,
        )?);
    }
    body.push_str("</div>");
    without(&mut body, &missing, "no flow of this size in one run or in both");
    if !comparison.notes.is_empty() {
        body.push_str("<h2>What to know</h2><ul>");
        for note in &comparison.notes {
            let _ = write!(body, "<li>{}", escaped(note));
        }
        body.push_str("</ul>");
    }
    Ok(html("Lanesplit: two runs compared", &body))
}

fn sources(body: &mut String, results: &Results) {
    body.push_str("<table><tr><th>tap<th>source<th>frames<th>IP packets<th>dropped by the capture<th>stamps<th>unit");
    for tap in Tap::BOTH {
        let Some(found) = results.tap(tap) else { continue };
        let stamps = &found.stamps;
        let by = [
            ("file", stamps.file),
            ("kernel", stamps.software),
            ("driver", stamps.driver),
            ("NIC", stamps.hardware),
        ];
        let by: Vec<String> = by
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(by, count)| format!("{by}: {count}"))
            .collect();
        let _ = write!(
            body,
            "<tr><td>{}<td class=text>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            tap.name(),
            escaped(&found.source),
            found.frames,
            found.packets,
            found.dropped_by_capture.map_or("not known".into(), |drops| drops.to_string()),
            by.join(", "),
            found.resolution_ns.map_or("-".into(), |ns| time(ns as f64)),
        );
    }
    body.push_str("</table>");
    let _ = write!(
        body,
        "<p>Error bound of every time: {}. Clock offset taken off egress: {} ns{}. Window: {}. {}</p>",
        escaped(&results.error_bound.to_string()),
        results.offset.ns,
        if results.offset.estimated { ", <strong>estimated</strong>" } else { "" },
        time(results.settings.window_ns as f64),
        escaped(&results.program),
    );
}

fn messages(body: &mut String, results: &Results) {
    for message in &results.messages {
        let _ = write!(body, "<p class=message>{}</p>", escaped(&message.text));
    }
}

fn accounts(body: &mut String, results: &Results) {
    let packets = &results.packets;
    body.push_str(
        "<h2>Packets</h2><table><tr><th>tap<th>packets<th>matched<th>lost or unmatched<th>duplicate<th>ambiguous\
         <th>out of window<th>lost, %",
    );
    for (tap, all, single) in [
        (Tap::Ingress, packets.ingress, packets.lost),
        (Tap::Egress, packets.egress, packets.unmatched),
    ] {
        let Some(found) = results.tap(tap) else { continue };
        let share = match all {
            0 => "-".into(),
            all => format!("{:.4}", 100.0 * single as f64 / all as f64),
        };
        let _ = write!(
            body,
            "<tr><td>{}<td>{all}<td>{}<td>{single}<td>{}<td>{}<td>{}<td>{share}",
            tap.name(),
            packets.matched,
            found.duplicate,
            found.ambiguous,
            packets.out_of_window,
        );
    }
    body.push_str("</table>");
}

const FIGURES: &str =
    "<th>samples<th>min<th>mean<th>deviation<th>p50<th>p90<th>p99<th>p99.9<th>p99.99<th>max";

fn figures(body: &mut String, results: &Results) {
    let _ = write!(body, "<h2>Times</h2><table><tr><th>{FIGURES}");
    let ways = [("", &results.forward), ("back: ", &results.reverse)];
    for (name, way) in ways.into_iter().filter(|(_, way)| way.matched > 0) {
        for (figure, summary) in
            [("delay", &way.delay_ns), ("IPDV", &way.ipdv_ns), ("PDV", &way.pdv_ns)]
        {
            summary_row(body, &format!("{name}{figure}"), summary);
        }
        if let Some(ns) = way.p95_p50_ns {
            let _ = write!(
                body,
                "<tr><td>{name}P95-P50<td class=text colspan=10>{} (of the delay)",
                time(ns as f64)
            );
        }
    }
    for lane in results.lanes.iter().filter(|lane| lane.matched > 0) {
        summary_row(body, &format!("delay, {}", lane.lane), &lane.delay_ns);
    }
    body.push_str("</table>");
}

fn summary_row(body: &mut String, name: &str, summary: &Summary) {
    let show = |ns: Option<f64>| ns.map_or("-".into(), time);
    let whole = |ns: Option<i64>| show(ns.map(|ns| ns as f64));
    let Summary { samples, min, mean, stddev, p50, p90, p99, p999, p9999, max, .. } = summary;
    let _ = write!(body, "<tr><td>{}<td>{samples}<td>{}", escaped(name), whole(*min));
    let _ = write!(body, "<td>{}<td>{}", show(*mean), show(*stddev));
    for ns in [p50, p90, p99, p999, p9999, max] {
        let _ = write!(body, "<td>{}", whole(*ns));
    }
}

fn class_table(body: &mut String, way: &DirectionResult, classes: &[String]) {
    for (name, figures) in [("flow completion time", &way.fct_ns), ("jitter", &way.jitter_ns)] {
        let _ = write!(
            body,
            "<h3>{name} by flow size</h3><table><tr><th>packets{FIGURES}<th>incomplete, apart"
        );
        for class in classes {
            let none = ClassResult::default();
            let found = figures.get(class).unwrap_or(&none);
            summary_row(body, class, &found.summary);
            let incomplete = way.incomplete_flows.get(class).copied().unwrap_or(0);
            let _ = write!(body, "<td>{incomplete}");
        }
        body.push_str("</table>");
    }
}

fn over_time(body: &mut String, lanes: &[LaneResult]) -> Result<(), String> {
    // What was lost before the lane of its flow was known is in no lane that could be drawn.
    let mut drawn: Vec<&LaneResult> = lanes.iter().filter(|lane| lane.matched > 0).collect();
    drawn.sort_by_key(|lane| std::cmp::Reverse(lane.matched));
    drawn.truncate(LANES_DRAWN);
    let start_ns = drawn.iter().filter_map(|lane| Some(lane.over_time.first()?.from_ns)).min();
    let Some(start_ns) = start_ns else {
        body.push_str(
            "<p class=none>No packet went from ingress to egress: there is nothing to draw.</p>",
        );
        return Ok(());
    };
    let since = |point: &Point| (point.from_ns - start_ns) as f64 + point.width_ns as f64 / 2.0;
    let mut delays = Vec::new();
    let mut losses = Vec::new();
    for (number, lane) in drawn.iter().enumerate() {
        let line = |figure: fn(&Point) -> Option<u64>| -> Points {
            lane.over_time
                .iter()
                .filter_map(|point| Some((since(point), figure(point)? as f64)))
                .collect()
        };
        delays.push(Curve::new(
            format!("{}, median", lane.lane),
            colour(number),
            line(|point| point.p50_ns),
        ));
        let p99 =
            Curve::new(format!("{}, p99", lane.lane), colour(number), line(|point| point.p99_ns));
        delays.push(p99.thin());
        let loss = lane.over_time.chunks(LOSS_BINS_JOINED).map(|points| {
            let sum = |count: fn(&Point) -> u64| points.iter().map(count).sum::<u64>() as f64;
            let all = sum(|point| point.lost + point.packets).max(1.0);
            (since(&points[points.len() / 2]), 100.0 * sum(|point| point.lost) / all)
        });
        losses.push(Curve::new(lane.lane.clone(), colour(number), loss.collect()));
    }
    body.push_str("<div class=figures>");
    body.push_str(&chart(
        "one-way delay",
        "time since the first packet",
        Scale::Time,
        "one-way delay",
        &delays,
    )?);
    body.push_str(&chart(
        "loss",
        "time since the first packet",
        Scale::Time,
        "packets lost in %",
        &losses,
    )?);
    body.push_str("</div>");
    Ok(())
}

/// Figures by class, sorted, in the order of the classes.
fn by_class<'f>(
    flows: impl Iterator<Item = (&'f FlowLine, f64)>,
    classes: &SizeClasses,
) -> Vec<(String, Vec<f64>)> {
    let mut found: Vec<(String, Vec<f64>)> =
        classes.names().into_iter().map(|name| (name, Vec::new())).collect();
    for (flow, figure) in flows {
        let name = classes.name_of(flow.size_packets());
        if let Some((_, figures)) = found.iter_mut().find(|(class, _)| *class == name) {
            figures.push(figure);
        }
    }
    found.iter_mut().for_each(|(_, figures)| figures.sort_unstable_by(f64::total_cmp));
    found
}

/// Density and distribution function, a curve for each class.
fn distribution(
    body: &mut String,
    what: &str,
    by_class: &[(String, Vec<f64>)],
    classes: &SizeClasses,
) -> Result<(), String> {
    let all = || by_class.iter().flat_map(|(_, figures)| figures.iter().copied());
    if all().next().is_none() {
        let _ = write!(
            body,
            "<p class=none>No complete TCP flow went from ingress to egress: there is no {what}.</p>"
        );
        return Ok(());
    }
    let (least, most) =
        all().fold((f64::MAX, 1.0_f64), |(least, most), ns| (least.min(ns), most.max(ns)));
    let least = least.max(1.0);
    let names = classes.names();
    let curves = |points: &dyn Fn(&[f64]) -> Points| -> Vec<Curve> {
        let met = by_class.iter().filter(|(_, figures)| !figures.is_empty());
        met.map(|(name, figures)| {
            let number = names.iter().position(|known| known == name).unwrap_or(0);
            let size = match name.as_str() {
                MORE => "the largest".to_owned(),
                name => format!("{name} packets"),
            };
            let label = match figures.len() {
                1 => format!("{size}, 1 flow"),
                count => format!("{size}, {count} flows"),
            };
            Curve::new(label, colour(number), points(figures))
        })
        .collect()
    };
    body.push_str("<div class=figures>");
    let density = curves(&|figures| density(figures, least, most));
    body.push_str(&chart(
        &format!("density of {what}"),
        what,
        Scale::TimeLog,
        "share of flows in %",
        &density,
    )?);
    let cumulative = curves(&|figures| cumulative(figures));
    body.push_str(&chart(
        &format!("distribution of {what}"),
        what,
        Scale::TimeLog,
        "share of flows in %, up to",
        &cumulative,
    )?);
    body.push_str("</div>");
    let empty: Vec<String> = by_class
        .iter()
        .filter(|(_, figures)| figures.is_empty())
        .map(|(name, _)| name.clone())
        .collect();
    without(body, &empty, "no such flow");
    Ok(())
}

fn without(body: &mut String, classes: &[String], why: &str) {
    if !classes.is_empty() {
        let _ = write!(
            body,
            "<p class=none>Not drawn, because there was {why}: {} packets.</p>",
            classes.join(", ")
        );
    }
}

/// Steps of the distribution function, in percent.
fn cumulative(sorted: &[f64]) -> Points {
    let share = |count: usize| 100.0 * count as f64 / sorted.len() as f64;
    // No more steps than anybody can see.
    let step = (sorted.len() / 1000).max(1);
    let mut points = vec![(sorted[0].max(1.0), 0.0)];
    for place in (step - 1..sorted.len()).step_by(step).chain([sorted.len() - 1]) {
        let before = points[points.len() - 1].1;
        points.push((sorted[place].max(1.0), before));
        points.push((sorted[place].max(1.0), share(place + 1)));
    }
    points
}

/// Shares of flows in bins that are equally wide on a logarithmic axis, as steps.
fn density(sorted: &[f64], least: f64, most: f64) -> Points {
    let width = ((most / least).ln() / BINS as f64).max(1e-9);
    let mut bins = [0_usize; BINS];
    for &ns in sorted {
        let bin = ((ns.max(least) / least).ln() / width) as usize;
        bins[bin.min(BINS - 1)] += 1;
    }
    let edge = |bin: usize| least * (width * bin as f64).exp();
    let mut points = vec![(edge(0), 0.0)];
    for (bin, &count) in bins.iter().enumerate() {
        let share = 100.0 * count as f64 / sorted.len() as f64;
        points.extend([(edge(bin), share), (edge(bin + 1), share)]);
    }
    points.push((edge(BINS), 0.0));
    points
}

/// A page around its body.
pub(crate) fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><style>\
         body{{font:15px/1.45 sans-serif;color:#222;max-width:1320px;margin:2em auto;padding:0 1em}}\
         h1{{font-size:1.6em}}h2{{font-size:1.2em;margin-top:2em}}h3{{font-size:1em}}\
         table{{border-collapse:collapse;margin:.6em 0}}\
         td,th{{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}}\
         td:first-child,th:first-child,td.text{{text-align:left}}td.text{{white-space:normal}}\
         .figures{{display:flex;flex-wrap:wrap;gap:12px}}\
         figure{{margin:0;width:640px}}figcaption{{padding-left:62px;font-size:13px}}\
         figcaption span{{margin-right:1.2em;white-space:nowrap}}\
         figcaption i{{display:inline-block;width:20px;vertical-align:middle;margin-right:.4em}}\
         .message{{border-left:4px solid #d55e00;background:#fdf3ec;padding:.5em .8em}}\
         .none{{color:#555;font-style:italic}}</style></head><body>{body}</body></html>\n"
    )
}

/// Text as HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
