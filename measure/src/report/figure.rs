//! Charts as SVG: curves with a legend, both axes labelled with their units.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const PIXELS: (u32, u32) = (640, 400);

/// What the horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// A time from zero on, and so is the vertical axis unless it is a share.
    Time,
    /// A time on a logarithmic axis.
    TimeLog,
}

/// One curve; points are in nanoseconds, or nanoseconds and percent.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    name: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
    width: u32,
}

impl Curve {
    pub(super) fn new(name: String, colour: RGBColor, points: Vec<(f64, f64)>) -> Self {
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
pub(super) fn colour(number: usize) -> RGBColor {
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
        ns if ns < 2e6 => (1e3, "µs"),
        ns if ns < 2e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    }
}

/// The chart as an SVG element. A vertical axis whose name does not speak of a share (`%`) is a time.
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
        Scale::TimeLog => {
            let (left, right) = (least_x.max(1.0) / x_unit * 0.9, most_x.max(1.0) / x_unit * 1.1);
            draw(&area, &labels, (left..right).log_scale(), top, &scaled)
        }
    };
    drawn.map_err(|error| error.to_string())?;
    drop(area);
    // Within a page it is an element like others.
    Ok(svg.replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", ""))
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
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 12))
        .draw()?;
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
