//! Charts as SVG: both axes labelled with their units, the legend below.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// From this ratio of greatest to least an axis is logarithmic: below it would have hardly a label.
const LOG_FROM: f64 = 30.0;

const PIXELS: (u32, u32) = (640, 400);

/// What the horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// A time from zero on, and so is the vertical axis unless it is a share.
    Time,
    /// A time, on a logarithmic axis when it spans more than [`LOG_FROM`].
    TimeLog,
}

/// Of a curve, in nanoseconds, or nanoseconds and percent.
pub(super) type Points = Vec<(f64, f64)>;

/// One curve.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    name: String,
    colour: RGBColor,
    points: Points,
    width: u32,
}

impl Curve {
    pub(super) fn new(name: String, colour: RGBColor, points: Points) -> Self {
        Curve { name, colour, points, width: 2 }
    }

    /// Drawn thin and pale: of less weight than its neighbour of the same colour.
    pub(super) fn thin(self) -> Self {
        let pale = |part: u8| part + (255 - part) / 2;
        let RGBColor(red, green, blue) = self.colour;
        Curve { colour: RGBColor(pale(red), pale(green), pale(blue)), width: 1, ..self }
    }
}

/// Colours that the colour-blind can tell apart (Okabe, Ito), darkened for thin lines.
pub(crate) fn colour(number: usize) -> RGBColor {
    const COLOURS: [RGBColor; 7] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(140, 110, 0),
        RGBColor(86, 180, 233),
        RGBColor(80, 80, 80),
    ];
    COLOURS[number % COLOURS.len()]
}

/// A unit in which the greatest of these times reads well: nanoseconds in it, and its name.
fn unit(most_ns: f64) -> (f64, &'static str) {
    match most_ns {
        ns if ns < 2e3 => (1.0, "ns"),
        ns if ns < 2e6 => (1e3, "us"),
        ns if ns < 2e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    }
}

/// The chart as a figure of HTML. A vertical axis whose name does not speak of a share (`%`) is a time.
pub(super) fn chart(
    title: &str,
    x_name: &str,
    scale: Scale,
    y_name: &str,
    curves: &[Curve],
) -> Result<String, String> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let most = |of: fn((f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let least_x = points().map(|(x, _)| x).fold(f64::MAX, f64::min);
    let (most_x, most_y) = (most(|(x, _)| x), most(|(_, y)| y));
    // Of a logarithmic axis the middle decides what reads well.
    let (x_unit, x_unit_name) = match scale {
        Scale::Time => unit(most_x),
        Scale::TimeLog if most_x < LOG_FROM * least_x => unit(most_x),
        Scale::TimeLog => unit((least_x.max(1.0) * most_x).sqrt() * 10.0),
    };
    let is_share = y_name.contains('%');
    let (y_unit, y_unit_name) = if is_share { (1.0, "") } else { unit(most_y) };
    let x_label = format!("{x_name} in {x_unit_name}");
    let y_label = if is_share { y_name.to_owned() } else { format!("{y_name} in {y_unit_name}") };
    let scaled: Vec<Curve> = curves
        .iter()
        .map(|curve| Curve {
            points: curve.points.iter().map(|(x, y)| (x / x_unit, y / y_unit)).collect(),
            ..curve.clone()
        })
        .collect();
    let top = match most_y / y_unit {
        0.0 => 1.0,
        most => most * 1.05,
    };
    let labels = Labels { title, x: &x_label, y: &y_label };
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, PIXELS).into_drawing_area();
    let drawn = match scale {
        Scale::Time => {
            let right = if most_x > 0.0 { most_x / x_unit } else { 1.0 };
            draw(&area, &labels, 0.0..right, top, &scaled)
        }
        Scale::TimeLog if most_x < LOG_FROM * least_x => {
            let room = (most_x - least_x).max(0.02 * most_x) * 0.05;
            let (left, right) = ((least_x - room).max(0.0), most_x + room);
            draw(&area, &labels, left / x_unit..right / x_unit, top, &scaled)
        }
        Scale::TimeLog => {
            let (left, right) = (least_x.max(1.0) / x_unit * 0.9, most_x.max(1.0) / x_unit * 1.1);
            let axis = (left..right).log_scale().with_key_points(log_ticks(left, right));
            draw(&area, &labels, axis, top, &scaled)
        }
    };
    drawn.map_err(|error| error.to_string())?;
    drop(area);
    Ok(format!("<figure>{svg}<figcaption>{}</figcaption></figure>", legend(curves)))
}

/// What a logarithmic axis is labelled with: 1, 2 and 5 in each decade, or 1 alone where there are many.
fn log_ticks(left: f64, right: f64) -> Vec<f64> {
    let decades = left.log10().floor() as i32..=right.log10().ceil() as i32;
    let steps: &[f64] = if right / left < 1e4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let ticks = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
    ticks.filter(|tick| (left..=right).contains(tick)).collect()
}

/// Below the chart, where it hides nothing.
fn legend(curves: &[Curve]) -> String {
    let entry = |curve: &Curve| {
        let RGBColor(red, green, blue) = curve.colour;
        let name = super::escaped(&curve.name);
        let width = curve.width + 1;
        format!(
            "<span><i style=\"border-top:{width}px solid rgb({red},{green},{blue})\"></i>{name}</span>"
        )
    };
    curves.iter().map(entry).collect()
}

struct Labels<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;

fn draw<X>(
    area: &Area<'_>,
    labels: &Labels<'_>,
    x: X,
    top: f64,
    curves: &[Curve],
) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(labels.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(x, 0.0..top)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_labels(8)
        .y_labels(8)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 12))
        .draw()?;
    for curve in curves {
        let style = curve.colour.stroke_width(curve.width);
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
    }
    area.present()?;
    Ok(())
}

/// A number with as many digits as a label needs.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_labels_however_wide_it_is() {
        assert_eq!(log_ticks(4.5, 230.0), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(log_ticks(1.0, 9_500.0).len(), 12);
        assert_eq!(log_ticks(0.5, 2e6), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
    }
}
