//! The report: one HTML file with all figures and tables, nothing fetched from anywhere.

use std::fmt::Write;

use super::{Drawn, sentences};
use crate::bootstrap::Interval;
use crate::export::table::time;
use crate::lab::analysis::distribution::Measure;
use crate::lab::analysis::goals::Standing;
use crate::lab::analysis::moves::{MOVE_NS, Short};
use crate::lab::analysis::speedup::P99_FLOWS_MIN;
use crate::lab::analysis::{Analysis, CERTAIN_PAIRS_MIN, SAMPLES, SEED, SHORT_PACKETS_MAX};
use crate::lab::records::Bulk;
use crate::report::{escaped, html};
use crate::statistics::Summary;

const TITLE: &str = "Lanesplit laboratory";

pub(super) fn page(analysis: &Analysis, drawn: &[Drawn]) -> String {
    let mut body = format!("<h1>{TITLE}</h1>");
    body.push_str(
        "<p>Two sites, a gateway at each, two paths between them. Requests over HTTP arrive at random, beside \
         background load; flows are measured between taps at both ends of the WAN. ECMP keeps each flow on one path; \
         split moves a flow to the other path when it has grown past the threshold.</p>",
    );
    goals(&mut body, analysis);
    failures(&mut body, analysis);
    for Drawn { drawing, svg } in drawn {
        let _ = write!(
            body,
            "<h2>{}</h2><p>{}</p><figure class=wide>{svg}<figcaption>figures/{}</figcaption></figure>",
            escaped(drawing.heading),
            escaped(&drawing.sentence),
            drawing.file
        );
    }
    comparisons(&mut body, analysis);
    distributions(&mut body, analysis);
    moves(&mut body, analysis);
    overhead(&mut body, analysis);
    agreement(&mut body, analysis);
    kinds(&mut body, analysis);
    runs(&mut body, analysis);
    repeat(&mut body, analysis);
    html(TITLE, &(STYLE.to_owned() + &body))
}

const STYLE: &str = "<style>figure.wide{width:auto;overflow-x:auto}figure.wide svg{max-width:100%;height:auto}\
    figure.wide figcaption{padding-left:0;color:#555}td small{color:#555}th.text{text-align:left}\
    div.scroll td,div.scroll th{font-size:13px;padding:.25em .5em}td span{white-space:nowrap}\
    .reached{color:#006b4a;font-weight:600}.missed{color:#b03a00;font-weight:600}\
    div.scroll{overflow-x:auto}pre{background:#f5f5f5;padding:.6em;white-space:pre-wrap}</style>";

/// A table that may be wider than the window.
fn table(body: &mut String, head: &str, rows: impl IntoIterator<Item = String>) {
    let _ = write!(body, "<div class=scroll><table><tr>{head}");
    rows.into_iter().for_each(|row| body.push_str(&format!("<tr>{row}")));
    body.push_str("</table></div>");
}

fn ratio(interval: &Interval) -> String {
    let Interval { value, low, high } = interval;
    format!("{value:.2} <small>({low:.2}–{high:.2})</small>")
}

fn ms(interval: &Interval) -> String {
    let Interval { value, low, high } = interval;
    format!("{} <small>({}–{})</small>", time(*value), time(*low), time(*high))
}

fn optional(interval: Option<&Interval>, show: fn(&Interval) -> String) -> String {
    interval.map_or("-".into(), show)
}

fn goals(body: &mut String, analysis: &Analysis) {
    body.push_str("<h2>What was to be shown</h2>");
    let rows = analysis.goals.iter().map(|goal| {
        let class = match goal.standing {
            Standing::Reached | Standing::AtLeast => "reached",
            Standing::Missed => "missed",
            Standing::NotMeasured => "none",
        };
        let uncertain = if goal.is_certain { "" } else { " (not certain)" };
        format!(
            "<td class=text>{}<td class=text>{}<td class=text><span class={class}>{}</span>{uncertain}",
            escaped(&goal.what),
            escaped(&goal.found),
            goal.standing.text()
        )
    });
    table(body, "<th>goal<th class=text>found<th class=text>", rows);
    body.push_str(
        &format!("<p>Not certain: the interval holds the bound, or is of fewer than {CERTAIN_PAIRS_MIN} pairs of runs. {} \
         Sizes are those of the kinds of requests; the packets that were seen are below.</p>",
        escaped(&sentences::priorities(analysis))),
    );
}

fn failures(body: &mut String, analysis: &Analysis) {
    for run in analysis.runs.iter().filter(|run| run.failure.is_some()) {
        let _ = write!(
            body,
            "<p class=message>Failed, and in no figure: {} ({}): {}</p>",
            escaped(&run.name),
            escaped(&run.setting),
            escaped(run.failure.as_deref().unwrap_or_default())
        );
    }
    for told in &analysis.unpaired {
        let _ = write!(body, "<p class=message>{}</p>", escaped(told));
    }
}

fn comparisons(body: &mut String, analysis: &Analysis) {
    if analysis.comparisons.is_empty() {
        body.push_str("<p class=none>There are no two runs to compare.</p>");
        return;
    }
    let _ = write!(
        body,
        "<h2>All comparisons</h2><p>Completion time of the baseline by that of the way: above 1, the way is faster. In \
         brackets the 95 % interval: Student's t of the logarithms of the ratios of pairs of runs with the same seed, around \
         the ratio of all flows together, and nowhere narrower than the bootstrap of flows within runs ({SAMPLES} \
         samples, seed {SEED}). Of a single pair there is only the latter: it does not know what differs from run to \
         run, and takes flows as independent, which those that met the same full queue are not, so it is too narrow. \
         Failed requests are in no figure; of fewer than \
         {P99_FLOWS_MIN} flows there is no 99th percentile.</p>"
    );
    let contexts = analysis.contexts.len() > 1;
    let rows = analysis.comparisons.iter().flat_map(|comparison| {
        let cell = &comparison.cell;
        let mix = match contexts {
            true => format!(", {}", analysis.contexts[cell.context].mix),
            false => String::new(),
        };
        comparison.sizes.iter().map(move |size| {
            format!(
                "<td>{}{}<td>{} %<td class=text>{}<td>{}<td>{}<td>{} / {}<td>{} / {}<td>{} / {}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escaped(&cell.name),
                escaped(&mix),
                cell.background_percent,
                escaped(&comparison.baseline),
                comparison.pairs,
                size.size.replace('-', "–"),
                size.flows[0],
                size.flows[1],
                size.failed[0],
                size.failed[1],
                time(size.mean_ns[0]),
                time(size.mean_ns[1]),
                ratio(&size.mean),
                ratio(&size.p50),
                optional(size.p99.as_ref(), ratio),
                optional(size.driver_mean.as_ref(), ratio),
                optional(size.throughput.as_ref(), ratio)
            )
        })
    });
    table(
        body,
        "<th>way<th>load<th class=text>baseline<th>pairs<th>packets<th>flows<th>failed<th>mean time<th>speed-up, mean\
         <th>p50<th>p99<th>mean, by the driver<th>throughput",
        rows,
    );
}

fn distributions(body: &mut String, analysis: &Analysis) {
    if analysis.distributions.is_empty() {
        return;
    }
    body.push_str(
        "<h2>Flows of 1 to 40 packets by themselves</h2><p>Jitter of a flow is the mean size of its IPDV (RFC 3393). \
         Deviations are of the flows. Of too few flows there are no far percentiles. The last columns say how many flows had lost a packet, one way or the other, and \
         how many of the slowest hundredth.</p>",
    );
    let figures = |measure: &Measure| {
        let figures = [
            Some(&measure.mean_ns),
            Some(&measure.deviation_ns),
            Some(&measure.p50_ns),
            measure.p99_ns.as_ref(),
            measure.p999_ns.as_ref(),
        ];
        figures.map(|figure| format!("<td>{}", optional(figure, ms))).concat()
    };
    let rows = analysis.distributions.iter().flat_map(|one| {
        let measures = [("completion time", &one.fct), ("jitter", &one.jitter)];
        measures.into_iter().filter_map(move |(name, measure)| {
            let measure = measure.as_ref()?;
            Some(format!(
                "<td>{}<td>{} %<td class=text>{name}<td>{}{}<td>{}<td>{} of {}",
                escaped(&one.cell.name),
                one.cell.background_percent,
                measure.flows,
                figures(measure),
                one.lossy,
                one.slowest_lossy,
                one.slowest
            ))
        })
    });
    table(
        body,
        "<th>way<th>load<th class=text>of<th>flows<th>mean<th>deviation<th>p50<th>p99<th>p99.9<th>with loss\
         <th>of the slowest",
        rows,
    );
}

fn moves(body: &mut String, analysis: &Analysis) {
    if analysis.moves.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<h2>Reordering, and moves</h2><p>A packet is reordered when it arrives behind one that was sent after it (RFC \
         4737). Long flows have more packets than the threshold, and than 40; by split they are moved. A short flow is \
         beside a move when it began within {} after a long flow of the same direction.</p>",
        time(MOVE_NS as f64)
    );
    let short = |short: &Option<Short>| match short {
        None => "<td>-<td>-<td>-".to_owned(),
        Some(short) => {
            let p99 = optional(short.p99_ns.as_ref(), ms);
            format!("<td>{}<td>{}<td>{p99}", short.flows, ms(&short.mean_ns))
        }
    };
    let rows = analysis.moves.iter().map(|one| {
        format!(
            "<td>{}<td>{} %<td>{}<td>{}<td>{:.1}<td>{}<td>{}<td>{}{}{}",
            escaped(&one.cell.name),
            one.cell.background_percent,
            one.long_flows,
            one.reordered_flows,
            one.reordered_mean,
            one.reordered_p50,
            one.reordered_most,
            one.reordered_short_flows,
            short(&one.beside),
            short(&one.apart)
        )
    });
    table(
        body,
        "<th>way<th>load<th>long flows<th>reordered<th>packets a flow<th>median of those<th>most<th>short, reordered\
         <th>short beside a move<th>mean<th>p99<th>other short<th>mean<th>p99",
        rows,
    );
}

fn overhead(body: &mut String, analysis: &Analysis) {
    let Some(overhead) = &analysis.overhead else { return };
    let _ = write!(
        body,
        "<h2>The gateway's own delay</h2><p>Between taps on both sides of the gateway of site a, which are one bridge \
         and cable further on either side, with the gateway and with the kernel in its place. The mean of the runs, \
         with the least and the greatest run. {}</p>",
        escaped(&sentences::priorities(analysis))
    );
    let rows = overhead.rows.iter().flat_map(|row| {
        [("LAN to WAN", &row.outbound), ("WAN to LAN", &row.inbound)].map(|(name, way)| {
            format!(
                "<td>{}<td class=text>{name}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escaped(&row.cell.name),
                row.runs,
                way.packets,
                ms(&way.p50_ns),
                ms(&way.p99_ns),
                optional(way.added_p50_ns.as_ref(), ms)
            )
        })
    });
    table(
        body,
        "<th>way<th class=text>direction<th>runs<th>packets<th>p50<th>p99<th>p50 above the kernel's",
        rows,
    );
}

fn agreement(body: &mut String, analysis: &Analysis) {
    let Some(agreement) = &analysis.agreement else { return };
    let _ = write!(
        body,
        "<h2>Two witnesses</h2><p>The load driver reads its own clock; the taps are stamped by the kernel. Of {} requests \
         that both saw whole, {} contradict the order of events by more than the stated error of {}{}: that a request \
         is started before its SYN is at the client's tap, and that the SYN-ACK is there before the driver is \
         connected. {}No other time is checked one by one. The driver's time is longer than the completion time between the taps by the first row, which is the sum of the next \
         three. What the driver's handshake is longer than that at the client's tap is client, LAN and gateway, there \
         and back.</p>",
        agreement.requests,
        agreement.violations,
        time(agreement.error_ns as f64),
        if agreement.is_calibrated {
            " (calibrated)"
        } else {
            " (an assumption: these taps were not calibrated on this machine)"
        },
        agreement.offset_ns.map_or(String::new(), |(low_ns, high_ns)| format!(
            "From that order follows that the driver's clock is from {} to {} ahead of the taps'. ",
            time(low_ns as f64),
            time(high_ns as f64)
        ))
    );
    let figure = |ns: Option<i64>| ns.map_or("-".into(), |ns| time(ns as f64));
    let row = |(name, summary): (&str, &Summary)| {
        format!(
            "<td>{name}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            summary.samples,
            figure(summary.min),
            summary.mean.map_or("-".into(), time),
            figure(summary.p50),
            figure(summary.p99),
            figure(summary.max)
        )
    };
    let rows = [
        ("driver's time less completion time", &agreement.difference_ns),
        ("before: from the driver's start to the SYN at the client's tap", &agreement.before_ns),
        ("forth: from there to the bulk's first packet", &agreement.forth_ns),
        ("after: from the bulk's last packet to the driver's end", &agreement.after_ns),
        ("driver's handshake less that at the client's tap", &agreement.handshake_ns),
        ("requests started later than due by", &agreement.late_ns),
    ];
    table(body, "<th>what<th>requests<th>least<th>mean<th>p50<th>p99<th>greatest", rows.map(row));
    let joined = &analysis.joined;
    let _ = write!(
        body,
        "<p>Requests: {} = {} with a flow + {} without. Flows of the server: {} = {} of requests + {} without a request. \
         Other flows: {}. \"After\" is below zero where the connection was closed after the answer had ended.</p>",
        joined.requests,
        joined.with_flow,
        joined.without_flow,
        joined.server_flows,
        joined.with_request,
        joined.without_request,
        joined.other_flows
    );
}

fn kinds(body: &mut String, analysis: &Analysis) {
    if analysis.kinds.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<h2>What was asked for</h2><p>Kinds of requests, with the packets of their bulk: as the mix says, by which flows \
         are sorted into sizes, and as they were seen where they enter, with those that were sent again. Arrivals are \
         a Poisson process, of so many a second on paths of 100 Mbit/s. The last column is how many flows the gateway \
         could take for long at a threshold of {SHORT_PACKETS_MAX} packets.</p>"
    );
    let rows = analysis.kinds.iter().map(|kind| {
        let [least, median, most] = kind.seen;
        format!(
            "<td>{}<td class=text>{}<td class=text>{}<td>{}<td>{}<td>{}<td>{least}<td>{median}<td>{most}<td>{}",
            escaped(&kind.mix),
            escaped(&kind.name),
            match kind.bulk {
                Bulk::Download => "download",
                Bulk::Upload => "upload",
            },
            kind.packets,
            kind.per_s.map_or("-".into(), |per_s| per_s.to_string()),
            kind.flows,
            kind.above_short
        )
    });
    table(
        body,
        &format!(
            "<th>mix<th class=text>kind<th class=text>bulk<th>packets<th>a second<th>flows seen whole<th>packets seen, \
             least<th>median<th>most<th>flows above {SHORT_PACKETS_MAX}"
        ),
        rows,
    );
}

fn runs(body: &mut String, analysis: &Analysis) {
    body.push_str(
        "<h2>Runs</h2><p>Requests are those due behind the warm-up. Not whole: succeeded, but the bulk was not seen \
         from SYN to FIN. Outside: what the driver's handshakes took longer than those at the client's tap, in the \
         client, its LAN and its gateway; of a machine that keeps up it is far below a millisecond, and much more \
         says that something there stood still. Cores: processor time of all programs by the run's duration.</p>",
    );
    let rows = analysis.runs.iter().map(|run| match &run.failure {
        Some(why) => format!(
            "<td>{}<td class=text>{}<td>{}<td>{}<td class=text colspan=11><span class=missed>failed</span>: {}",
            escaped(&run.name),
            escaped(&run.setting),
            run.repeat,
            run.seed,
            escaped(why)
        ),
        None => format!(
            "<td>{}<td class=text>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.2}",
            escaped(&run.name),
            escaped(&run.setting),
            run.repeat,
            run.seed,
            run.requests,
            run.failed,
            run.not_whole,
            run.warmup_requests,
            run.queues_sent,
            run.queues_dropped[0],
            run.queues_dropped[1],
            run.gateways_lost,
            run.outside_p99_ns.map_or("-".into(), |ns| time(ns as f64)),
            run.outside_max_ns.map_or("-".into(), |ns| time(ns as f64)),
            run.cores
        ),
    });
    table(
        body,
        "<th>run<th class=text>setting<th>repeat<th>seed<th>requests<th>failed<th>not whole<th>in the warm-up\
         <th>sent by queues<th>dropped, short path<th>dropped, long path<th>lost by gateways<th>outside, p99<th>outside, most<th>cores",
        rows,
    );
}

fn repeat(body: &mut String, analysis: &Analysis) {
    let lab = &analysis.lab;
    body.push_str("<h2>How to repeat it</h2>");
    let mut facts = vec![
        ("seed".to_owned(), lab.seed.to_string()),
        ("kernel".into(), lab.kernel.clone()),
        ("processor".into(), lab.processor.clone()),
        ("commit".into(), lab.commit.clone()),
    ];
    facts.extend(lab.more.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    }));
    let rows = facts
        .into_iter()
        .map(|(name, value)| format!("<td>{}<td class=text>{}", escaped(&name), escaped(&value)));
    table(body, "<th>of<th class=text>", rows);
    let mut commits: Vec<&str> =
        analysis.runs.iter().filter_map(|run| run.commit.as_deref()).collect();
    commits.sort_unstable();
    commits.dedup();
    if commits.len() > 1 {
        let each = commits.iter().map(|commit| {
            let runs = analysis.runs.iter().filter(|run| run.commit.as_deref() == Some(commit));
            format!("{commit} ({} runs)", runs.count())
        });
        let each: Vec<String> = each.collect();
        let _ = write!(
            body,
            "<p class=message>These runs were made by programs of different commits: {}</p>",
            escaped(&each.join(", "))
        );
    }
    let _ = write!(body, "<pre>{}</pre>", escaped(&lab.commands.join("\n")));
    let rows = analysis.contexts.iter().map(|context| {
        format!(
            "<td>{}<td>{} Mbit/s<td>{} ms<td>{} ms<td>{} ms<td>{} %<td>{}<td>{} s<td>{} s",
            escaped(&context.mix),
            context.rate_mbit_per_s,
            context.buffer_ms,
            context.delay_ms,
            context.jitter_ms,
            context.loss_percent,
            if context.tls { "yes" } else { "no" },
            context.duration_s,
            context.warmup_s
        )
    });
    table(
        body,
        "<th>mix of requests<th>rate of a path<th>its queue<th>delay added<th>jitter added<th>loss added<th>TLS\
         <th>a run<th>of that warm-up",
        rows,
    );
}
