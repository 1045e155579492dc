//! Which threshold? One run of the gateway for each, and what it would put into each lane.

use std::fmt;
use std::path::{Path, PathBuf};

use dataplane::batch::PortId;
use dataplane::capture::CaptureError;
use dataplane::config::Config;
use dataplane::counters::Counters;
use dataplane::flow::classifier::Policy;
use dataplane::flow::observer::Unobserved;
use plotters::prelude::*;
use serde::Serialize;

use crate::replay;

/// A capture under several thresholds.
#[derive(Debug, Serialize)]
pub struct Sweep {
    /// The capture.
    pub input: PathBuf,
    /// All packets in it.
    pub packets: u64,
    /// Those without a class: not TCP, not IP, malformed and so on. They are in no share.
    pub untouched_packets: u64,
    /// What each threshold does to the others.
    pub thresholds: Vec<Row>,
}

/// One threshold.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The first packets of a flow, as many as this, are short.
    pub threshold_packets: u32,
    /// Flows that never leave the short lane, and what travels there.
    pub short: Amount,
    /// Flows that move to the long lane, and what travels there.
    pub long: Amount,
}

/// How much is in a lane.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Amount {
    /// Lives of flows that end in this lane.
    pub flows: u64,
    /// Packets in this lane.
    pub packets: u64,
    /// Frame lengths in this lane, summed.
    pub bytes: u64,
    /// Of all flows, from 0 to 1.
    pub flows_share: f64,
    /// Of all classified packets, from 0 to 1.
    pub packets_share: f64,
    /// Of the bytes of all classified packets, from 0 to 1.
    pub bytes_share: f64,
}

/// Runs the capture once per threshold. What could be read of a capture that cannot be read to its end is
/// in the result; the error comes with it.
pub fn sweep(config: &Config, thresholds: &[u32], input: &Path) -> (Sweep, Option<CaptureError>) {
    let mut sweep = Sweep {
        input: input.to_owned(),
        packets: 0,
        untouched_packets: 0,
        thresholds: Vec::with_capacity(thresholds.len()),
    };
    let mut failure = None;
    for &threshold_packets in thresholds {
        let mut config = config.clone();
        config.rule.policy = Policy::Split;
        config.rule.threshold_packets = threshold_packets;
        let mut gateway = replay::gateway(&config);
        failure = replay::run(&mut gateway, &mut Unobserved, PortId::Lan, input, None).err();
        let counters = gateway.counters();
        sweep.packets = counters.received;
        sweep.untouched_packets = counters.untouched.total();
        sweep.thresholds.push(Row::new(threshold_packets, &counters));
        if counters.received == 0 && failure.is_some() {
            break;
        }
    }
    (sweep, failure)
}

impl Row {
    fn new(threshold_packets: u32, counters: &Counters) -> Row {
        let Counters { flows, short, long, bytes, .. } = *counters;
        let of = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let amount = |lane_flows, packets, lane_bytes| Amount {
            flows: lane_flows,
            packets,
            bytes: lane_bytes,
            flows_share: of(lane_flows, flows.created),
            packets_share: of(packets, short + long),
            bytes_share: of(lane_bytes, bytes.short + bytes.long),
        };
        Row {
            threshold_packets,
            short: amount(flows.created - flows.promoted, short, bytes.short),
            long: amount(flows.promoted, long, bytes.long),
        }
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}: {} packets, {} of them without a class and in no share",
            self.input.display(),
            self.packets,
            self.untouched_packets
        )?;
        writeln!(
            formatter,
            "{:>21}{:^24}   {:^24}",
            "", "stay or travel short", "move or travel long"
        )?;
        write!(formatter, "{:>21}", "threshold, packets")?;
        for _ in 0..2 {
            write!(formatter, "{:>8}{:>8}{:>8}   ", "flows", "packets", "bytes")?;
        }
        for row in &self.thresholds {
            write!(formatter, "\n{:>21}", row.threshold_packets)?;
            for lane in [&row.short, &row.long] {
                for share in [lane.flows_share, lane.packets_share, lane.bytes_share] {
                    write!(formatter, "{:>7.1}%", 100.0 * share)?;
                }
                write!(formatter, "   ")?;
            }
        }
        writeln!(formatter)
    }
}

const FIGURE_PIXELS: (u32, u32) = (800, 500);

impl Sweep {
    /// Draws the long lane's shares over the threshold, as an SVG file.
    pub fn draw(&self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let range = || self.thresholds.iter().map(|row| row.threshold_packets);
        let (least, most) = (range().min().unwrap_or(1), range().max().unwrap_or(1));
        let area = SVGBackend::new(file, FIGURE_PIXELS).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("What the long lane carries", ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d((least..most.max(least + 1)).log_scale(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_desc("threshold: packets of a flow that travel short")
            .y_desc("share in percent")
            .x_label_formatter(&|threshold| threshold.to_string())
            .y_label_formatter(&|share| format!("{share:.0}"))
            .axis_desc_style(("sans-serif", 16))
            .label_style(("sans-serif", 14))
            .draw()?;
        type Share = fn(&Amount) -> f64;
        let curves: [(&str, RGBColor, Share); 3] = [
            ("of flows", RGBColor(0, 114, 178), |lane| lane.flows_share),
            ("of packets", RGBColor(213, 94, 0), |lane| lane.packets_share),
            ("of bytes", RGBColor(0, 158, 115), |lane| lane.bytes_share),
        ];
        for (name, colour, share) in curves {
            let mut points: Vec<(u32, f64)> = self
                .thresholds
                .iter()
                .map(|row| (row.threshold_packets, 100.0 * share(&row.long)))
                .collect();
            points.sort_by_key(|(threshold, _)| *threshold);
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(4))?
                .label(name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 15))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
