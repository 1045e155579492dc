//! Figures of one or several panels, as SVG for print and screen: axes with units, intervals as bars or bands, the
//! legend below the panels, where it covers nothing.
//!
//! Series differ by colour and by marker, so that they can be told apart without colours.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::colour;

/// A coordinate on the picture.
type At = (i32, i32);
type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Room around the axes of a panel: left, top, right, below.
const LEFT: i32 = 64;
const TOP: i32 = 30;
const RIGHT: i32 = 16;
const BELOW: i32 = 50;
/// Of a row of the legend.
const LEGEND_ROW: i32 = 22;
const TITLE: i32 = 34;
/// Width of a letter, about.
const LETTER: f64 = 6.3;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(226, 226, 226);

/// What an axis shows.
#[derive(Debug, Clone)]
pub(super) enum Scale {
    /// Numbers from one to another.
    Linear(f64, f64),
    /// Numbers above zero, with steps that multiply.
    Log(f64, f64),
    /// Names in a row; the first is at 0, the second at 1.
    Names(Vec<String>),
}

/// An axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) scale: Scale,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Points with bars, joined by a line.
    Line,
    /// Points with bars.
    Points,
    /// A line with a band.
    Band,
}

/// A series.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    /// Decides colour and marker.
    pub(super) number: usize,
    pub(super) style: Style,
    pub(super) points: Vec<Point>,
}

/// A value of the vertical axis that is marked across the panel, or a part of it.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) y: f64,
    /// From where to where; all of the panel, if nothing is said.
    pub(super) x: Option<(f64, f64)>,
    pub(super) name: String,
}

/// A value of the horizontal axis that is marked in a series' colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pole {
    pub(super) x: f64,
    pub(super) number: usize,
}

/// Axes and what is between them.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) marks: Vec<Mark>,
    pub(super) poles: Vec<Pole>,
}

/// A whole figure.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) title: String,
    /// Panels, row by row.
    pub(super) panels: Vec<Panel>,
    pub(super) columns: usize,
    /// Of a panel.
    pub(super) width: i32,
    pub(super) height: i32,
    /// What the legend says besides.
    pub(super) note: String,
}

impl Figure {
    /// As SVG.
    pub(super) fn svg(&self) -> Result<String, String> {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let width = self.width * columns as i32;
        let legend = self.legend(width);
        let legend_rows = legend.iter().map(|(_, at)| at.1 + 1).max().unwrap_or(0);
        let height = TITLE + self.height * rows as i32 + LEGEND_ROW * (legend_rows + 1);
        let mut svg = String::new();
        let area =
            SVGBackend::with_string(&mut svg, (width as u32, height as u32)).into_drawing_area();
        self.draw(&area, columns, &legend).map_err(|error| error.to_string())?;
        drop(area);
        Ok(svg)
    }

    fn draw(&self, area: &Area<'_>, columns: usize, legend: &[(Series, At)]) -> Drawn {
        area.fill(&WHITE)?;
        let width = self.width * columns as i32;
        write(area, &self.title, (width / 2, 10), 17, HPos::Center, &INK)?;
        for (number, panel) in self.panels.iter().enumerate() {
            let corner = (
                (number % columns) as i32 * self.width,
                TITLE + (number / columns) as i32 * self.height,
            );
            Frame::new(panel, corner, (self.width, self.height)).draw(area)?;
        }
        let rows = self.panels.len().div_ceil(columns) as i32;
        let top = TITLE + rows * self.height + 4;
        for (series, (x, row)) in legend {
            let y = top + row * LEGEND_ROW + 8;
            let colour = colour(series.number);
            line(area, &[(*x, y), (*x + 26, y)], &colour.stroke_width(2))?;
            if series.style != Style::Band {
                marker(area, (*x + 13, y), series.number)?;
            }
            write(area, &series.name, (*x + 32, y - 6), 13, HPos::Left, &INK)?;
        }
        let rows = legend.iter().map(|(_, at)| at.1 + 1).max().unwrap_or(0);
        let at = (LEFT, top + rows * LEGEND_ROW + 2);
        write(area, &self.note, at, 12, HPos::Left, &RGBColor(90, 90, 90))?;
        area.present()?;
        Ok(())
    }

    /// Every name once: where it begins, and in which row.
    fn legend(&self, width: i32) -> Vec<(Series, At)> {
        let mut known: Vec<(Series, At)> = Vec::new();
        let (mut x, mut row) = (LEFT, 0);
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if series.name.is_empty() || known.iter().any(|(one, _)| one.name == series.name) {
                continue;
            }
            let takes = 32 + (series.name.chars().count() as f64 * LETTER) as i32 + 22;
            if x + takes > width && x > LEFT {
                (x, row) = (LEFT, row + 1);
            }
            known.push((Series { points: Vec::new(), ..series.clone() }, (x, row)));
            x += takes;
        }
        known
    }
}

/// A panel at its place.
struct Frame<'p> {
    panel: &'p Panel,
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl<'p> Frame<'p> {
    fn new(panel: &'p Panel, (x, y): At, (width, height): At) -> Frame<'p> {
        Frame {
            panel,
            left: x + LEFT,
            top: y + TOP,
            right: x + width - RIGHT,
            bottom: y + height - BELOW,
        }
    }

    fn at(&self, x: f64, y: f64) -> At {
        let (width, height) = (self.right - self.left, self.bottom - self.top);
        let across = f64::from(width) * share(&self.panel.x.scale, x);
        let up = f64::from(height) * share(&self.panel.y.scale, y);
        (self.left + across.round() as i32, self.bottom - up.round() as i32)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        self.axes(area)?;
        for mark in &self.panel.marks {
            self.mark(area, mark)?;
        }
        for pole in &self.panel.poles {
            let (x, _) = self.at(pole.x, 0.0);
            dashes(area, (x, self.top), (x, self.bottom), &colour(pole.number))?;
        }
        for series in &self.panel.series {
            self.series(area, series)?;
        }
        Ok(())
    }

    fn axes(&self, area: &Area<'_>) -> Drawn {
        let Frame { panel, left, top, right, bottom } = self;
        let middle = ((left + right) / 2, (top + bottom) / 2);
        for (value, label) in ticks(&panel.y.scale, bottom - top) {
            let (_, y) = self.at(0.0, value);
            line(area, &[(*left, y), (*right, y)], &GRID)?;
            write(area, &label, (left - 6, y - 6), 12, HPos::Right, &INK)?;
        }
        for (value, label) in ticks(&panel.x.scale, right - left) {
            let (x, _) = self.at(value, 0.0);
            if !matches!(panel.x.scale, Scale::Names(_)) {
                line(area, &[(x, *top), (x, *bottom)], &GRID)?;
            }
            line(area, &[(x, *bottom), (x, bottom + 4)], &INK)?;
            write(area, &label, (x, bottom + 8), 12, HPos::Center, &INK)?;
        }
        line(area, &[(*left, *top), (*left, *bottom), (*right, *bottom)], &INK)?;
        write(area, &panel.title, (middle.0, top - 19), 14, HPos::Center, &INK)?;
        write(area, &panel.x.name, (middle.0, bottom + 27), 13, HPos::Center, &INK)?;
        let style = ("sans-serif", 13).into_font().transform(FontTransform::Rotate270);
        let style = style.color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(panel.y.name.clone(), (left - LEFT + 6, middle.1), style))?;
        Ok(())
    }

    fn mark(&self, area: &Area<'_>, mark: &Mark) -> Drawn {
        let (_, y) = self.at(0.0, mark.y);
        let (from, to) = match mark.x {
            None => (self.left, self.right),
            Some((from, to)) => (self.at(from, 0.0).0, self.at(to, 0.0).0),
        };
        dashes(area, (from, y), (to, y), &RGBColor(110, 110, 110))?;
        let grey = RGBColor(90, 90, 90);
        write(area, &mark.name, (to + 4, y - 6), 11, HPos::Left, &grey)
    }

    fn series(&self, area: &Area<'_>, series: &Series) -> Drawn {
        let colour = colour(series.number);
        let at = |point: &Point| self.at(point.x, point.y);
        if series.style == Style::Band {
            let low = series.points.iter().map(|point| self.at(point.x, point.low));
            let high = series.points.iter().rev().map(|point| self.at(point.x, point.high));
            let around: Vec<At> = low.chain(high).collect();
            area.draw(&Polygon::new(around, colour.mix(0.22)))?;
        }
        if series.style != Style::Points {
            let points: Vec<At> = series.points.iter().map(at).collect();
            line(area, &points, &colour.stroke_width(2))?;
        }
        if series.style == Style::Band {
            return Ok(());
        }
        for point in &series.points {
            let (x, _) = at(point);
            let (low, high) = (self.at(point.x, point.low).1, self.at(point.x, point.high).1);
            let style = colour.stroke_width(1);
            line(area, &[(x, low), (x, high)], &style)?;
            line(area, &[(x - 4, low), (x + 4, low)], &style)?;
            line(area, &[(x - 4, high), (x + 4, high)], &style)?;
            marker(area, at(point), series.number)?;
        }
        Ok(())
    }
}

/// How far along its axis a value is, from 0 to 1; what is beyond an end is at the end.
fn share(scale: &Scale, value: f64) -> f64 {
    let share = match scale {
        Scale::Linear(from, to) => (value - from) / (to - from),
        Scale::Log(from, to) => (value.max(*from) / from).ln() / (to / from).ln(),
        Scale::Names(names) => (value + 0.5) / names.len() as f64,
    };
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

/// Values that an axis of so many pixels has a label at.
fn ticks(scale: &Scale, pixels: i32) -> Vec<(f64, String)> {
    match scale {
        Scale::Names(names) => {
            names.iter().enumerate().map(|(place, name)| (place as f64, name.clone())).collect()
        }
        Scale::Linear(from, to) => {
            let rough = (to - from) / f64::from(pixels / 45).max(2.0);
            let magnitude = 10_f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * magnitude);
            let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(rough);
            let first = (from / step - 1e-9).ceil() as i64;
            let last = (to / step + 1e-9).floor() as i64;
            (first..=last).map(|count| count as f64 * step).map(|at| (at, label(at))).collect()
        }
        Scale::Log(from, to) => {
            let decades = (to / from).log10();
            let room = f64::from(pixels) / decades;
            let steps: &[f64] = match room {
                room if room > 500.0 => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
                room if room > 250.0 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                room if room > 150.0 => &[1.0, 2.0, 5.0],
                room if room > 80.0 => &[1.0, 3.0],
                _ => &[1.0],
            };
            let exponents = from.log10().floor() as i32..=to.log10().ceil() as i32;
            let all = exponents
                .flat_map(|exponent| steps.iter().map(move |step| step * 10_f64.powi(exponent)));
            all.filter(|at| from <= at && at <= to).map(|at| (at, label(at))).collect()
        }
    }
}

/// A number without digits that say nothing.
fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

fn write(area: &Area<'_>, text: &str, at: At, size: i32, across: HPos, ink: &RGBColor) -> Drawn {
    let style = ("sans-serif", size).into_font().color(ink).pos(Pos::new(across, VPos::Top));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

fn line(area: &Area<'_>, points: &[At], style: &(impl Into<ShapeStyle> + Clone)) -> Drawn {
    area.draw(&PathElement::new(points.to_vec(), style.clone()))?;
    Ok(())
}

/// A dashed line, across or up.
fn dashes(area: &Area<'_>, from: At, to: At, ink: &RGBColor) -> Drawn {
    const DASH: i32 = 5;
    let length = (to.0 - from.0).abs() + (to.1 - from.1).abs();
    let way = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
    for start in (0..length).step_by(2 * DASH as usize) {
        let end = (start + DASH).min(length);
        let at = |along: i32| (from.0 + way.0 * along, from.1 + way.1 * along);
        line(area, &[at(start), at(end)], ink)?;
    }
    Ok(())
}

/// The marker of a series.
fn marker(area: &Area<'_>, (x, y): At, number: usize) -> Drawn {
    let style = colour(number).filled();
    let around = |corners: &[At]| {
        Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style)
    };
    match number % 4 {
        0 => area.draw(&Circle::new((x, y), 4, style))?,
        1 => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style))?,
        2 => area.draw(&around(&[(0, -5), (5, 4), (-5, 4)]))?,
        _ => area.draw(&around(&[(0, -6), (5, 0), (0, 6), (-5, 0)]))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale, pixels: i32) -> Vec<String> {
        ticks(scale, pixels).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn labels_are_round_numbers_within_the_axis() {
        assert_eq!(
            labels(&Scale::Linear(0.0, 3.0), 300),
            ["0", "0.5", "1", "1.5", "2", "2.5", "3"]
        );
        assert_eq!(labels(&Scale::Linear(0.8, 1.1), 150), ["0.8", "0.9", "1", "1.1"]);
        assert_eq!(labels(&Scale::Log(0.9, 120.0), 200), ["1", "3", "10", "30", "100"]);
        assert_eq!(
            labels(&Scale::Log(2.0, 40.0), 400),
            ["2", "3", "5", "7", "10", "15", "20", "30"]
        );
        assert_eq!(labels(&Scale::Log(0.7, 2.1), 250), ["0.7", "0.8", "1", "1.2", "1.5", "2"]);
    }

    #[test]
    fn a_value_beyond_its_axis_is_drawn_at_its_end() {
        assert_eq!(share(&Scale::Linear(0.0, 2.0), 3.0), 1.0);
        assert_eq!(share(&Scale::Log(1.0, 100.0), 10.0), 0.5);
        assert_eq!(share(&Scale::Log(1.0, 100.0), 0.0), 0.0);
        assert_eq!(share(&Scale::Names(vec!["a".into(), "b".into()]), 1.0), 0.75);
    }
}
