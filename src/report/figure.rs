//! Figures of a page as inline SVG: lines over two axes, bars with names, an interval beside its limit. The only place
//! that knows the library of charts. Colours are those of the page, by its CSS variables, so that one figure serves its
//! light and its dark form; the library only takes numbers, so each colour is a number that stands for a variable.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io::Error as IoError;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Names it where there are several.
    pub name: String,
    /// In the order of x; values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Above it, on the left.
    pub name: String,
    /// Its length; not negative.
    pub value: f64,
    /// Above it, on the right.
    pub note: String,
}

/// A value between its bounds beside a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lower bound.
    pub lower: f64,
    /// As measured.
    pub value: f64,
    /// Upper bound.
    pub upper: f64,
    /// What it is held to.
    pub limit: f64,
}

/// Most bars, so that a page stays readable; the table beside a figure has all numbers.
pub const MOST_BARS: usize = 40;

const INK: RGBColor = RGBColor(1, 2, 3);
const FAINT: RGBColor = RGBColor(4, 5, 6);
const LINES: [RGBColor; 3] = [RGBColor(7, 8, 9), RGBColor(10, 11, 12), RGBColor(13, 14, 15)];
/// What the page has for each.
const VARIABLES: [(&str, &str); 5] = [
    ("#010203", "currentColor"),
    ("#040506", "var(--faint)"),
    ("#070809", "var(--accent)"),
    ("#0A0B0C", "var(--second)"),
    ("#0D0E0F", "var(--third)"),
];
/// In units of the drawing; a phone shows it at about three quarters.
const WIDTH: u32 = 480;
const FONT: u32 = 16;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = DrawingAreaErrorKind<IoError>;

/// Lines over two axes; `label` says in a sentence what they show. `None` without two points.
pub fn lines(label: &str, (x_axis, y_axis): (&str, &str), lines: &[Line]) -> Option<String> {
    let finite = |line: &Line| -> Vec<(f64, f64)> {
        line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = lines.iter().map(finite).collect();
    let all = || lines.iter().flatten();
    if all().count() < 2 {
        return None;
    }
    let (left, right) = ends(all().map(|point| point.0))?;
    let (bottom, top) = ends(all().map(|point| point.1))?;
    let room = (top - bottom) * 0.05;
    drawn((WIDTH, 280), label, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, bottom - room..top + room)?;
        let style = ("sans-serif", FONT).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(FAINT)
            .label_style(style.clone())
            .axis_desc_style(style)
            .x_desc(x_axis)
            .y_desc(y_axis)
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for (line, colour) in lines.iter().zip(LINES.iter().cycle()) {
            chart.draw_series(std::iter::once(PathElement::new(line.clone(), colour.stroke_width(2))))?;
        }
        Ok(())
    })
}

/// Bars below each other; those beyond [`MOST_BARS`] are left out. `None` where none is longer than nothing.
pub fn bars(label: &str, bars: &[Bar]) -> Option<String> {
    let bars = &bars[..bars.len().min(MOST_BARS)];
    let longest = bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let row = 38;
    drawn((WIDTH, bars.len() as u32 * row + 4), label, |area| {
        for (n, bar) in bars.iter().enumerate() {
            let top = n as i32 * row as i32;
            text(area, &bar.name, (0, top + 2), HPos::Left)?;
            text(area, &bar.note, (WIDTH as i32, top + 2), HPos::Right)?;
            let share = if bar.value.is_finite() { bar.value.max(0.0) / longest } else { 0.0 };
            let end = (share * f64::from(WIDTH)).round() as i32;
            let (start, bottom) = (top + 22, top + 32);
            area.draw(&Rectangle::new([(0, start), (WIDTH as i32, bottom)], FAINT.mix(0.5).filled()))?;
            area.draw(&Rectangle::new([(0, start), (end.max(1), bottom)], LINES[0].filled()))?;
        }
        Ok(())
    })
}

/// An interval on a line with its limit. `None` where a number is not finite.
pub fn range(label: &str, range: Range) -> Option<String> {
    let Range { lower, value, upper, limit } = range;
    let (low, high) = ends([lower, value, upper, limit].into_iter())?;
    let place = |number: f64| 12 + ((number - low) / (high - low) * f64::from(WIDTH - 24)).round() as i32;
    drawn((WIDTH, 44), label, |area| {
        let middle = 30;
        let line = |from, to, colour: RGBColor, width| PathElement::new(vec![from, to], colour.stroke_width(width));
        area.draw(&line((0, middle), (WIDTH as i32, middle), FAINT, 1))?;
        area.draw(&line((place(lower), middle), (place(upper), middle), LINES[0], 6))?;
        area.draw(&Circle::new((place(value), middle), 6, LINES[0].filled()))?;
        area.draw(&line((place(limit), 16), (place(limit), 44), LINES[1], 3))?;
        // Beside the limit, where there is room.
        let (at, side) = if place(limit) > WIDTH as i32 / 2 {
            (place(limit) - 6, HPos::Right)
        } else {
            (place(limit) + 6, HPos::Left)
        };
        text(area, "limit", (at, 4), side)
    })
}

/// The least and the greatest, kept apart. `None` where one is not finite.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        if value.is_nan() { (f64::NAN, f64::NAN) } else { (low.min(value), high.max(value)) }
    });
    let apart = if high > low { 0.0 } else { low.abs().max(1.0) * 0.5 };
    (low.is_finite() && high.is_finite()).then_some((low - apart, high + apart))
}

fn text(area: &Area<'_>, content: &str, at: (i32, i32), side: HPos) -> Result<(), Failure> {
    let style = ("sans-serif", FONT).into_font().color(&INK).pos(Pos::new(side, VPos::Top));
    area.draw(&Text::new(content.to_owned(), at, style))
}

/// Draws, and makes the drawing part of a page: it scales with its place, and says what it shows.
fn drawn(
    (width, height): (u32, u32),
    label: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        draw(&area).ok()?;
        area.present().ok()?;
    }
    let (_, inside) = svg.split_once('>')?;
    let label = label.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let start = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">");
    Some(VARIABLES.iter().fold(format!("{start}{inside}"), |svg, (number, name)| svg.replace(number, name)))
}

/// `3.5M`, `250k`, `0.05`.
fn short(value: f64) -> String {
    let trimmed = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        size if size >= 1e6 => format!("{}M", trimmed(value / 1e6, 1)),
        size if size >= 1e4 => format!("{}k", trimmed(value / 1e3, 1)),
        size if size >= 0.01 || size == 0.0 => trimmed(value, 3),
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_follow_the_page_and_say_what_they_show() {
        let line = Line { name: "loss".to_owned(), points: vec![(0.0, 4.0), (1.0, f64::NAN), (2.0, 1.0)] };
        let svg = lines("loss \"falls\" <fast>", ("step", "loss"), &[line]).expect("two points");
        assert!(
            svg.starts_with(
                "<svg viewBox=\"0 0 480 280\" role=\"img\" aria-label=\"loss &quot;falls&quot; &lt;fast>\">"
            )
        );
        assert!(svg.trim_end().ends_with("</svg>") && svg.contains("stroke=\"var(--accent)\""), "{svg}");
        assert!(svg.contains("fill=\"currentColor\"") && !svg.contains("#0") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn names_cannot_leave_the_drawing() {
        let bar = |name: &str, value| Bar { name: name.to_owned(), value, note: "</svg><script>".to_owned() };
        let svg = bars("bytes", &[bar("<script>alert(1)</script>", 3.0), bar("b", f64::INFINITY)]).expect("bars");
        assert!(!svg.contains("<script") && svg.matches("</svg>").count() == 1, "{svg}");
        assert_eq!(bars("bytes", &[bar("a", 0.0)]), None);
        let many: Vec<Bar> = (0..100).map(|n| bar("a", f64::from(n) + 1.0)).collect();
        assert_eq!(bars("bytes", &many).expect("bars").matches("var(--accent)").count(), MOST_BARS);
    }

    #[test]
    fn ranges_hold_their_limit() {
        let shown = Range { lower: 0.04, value: 0.05, upper: 0.06, limit: 0.1 };
        let svg = range("KLD", shown).expect("finite");
        assert!(svg.contains("x1=\"") || svg.contains("points=\""), "{svg}");
        assert_eq!(range("KLD", Range { upper: f64::INFINITY, ..shown }), None);
        assert!(range("KLD", Range { lower: 1.0, value: 1.0, upper: 1.0, limit: 1.0 }).is_some(), "all at one place");
    }
}
