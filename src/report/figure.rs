//! Figures of a page as inline SVG: lines over two axes, bars with names, an interval beside its limit. Plain shapes and
//! text; colours are the page's own, by its CSS variables, so that one figure serves its light and its dark form. Every
//! text and attribute is escaped by `maud`.

use maud::{Markup, html};

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

/// In units of the drawing; a phone shows it at about three quarters.
const WIDTH: f64 = 480.0;
const FONT: &str = "16";
const LINES: [&str; 3] = ["var(--accent)", "var(--second)", "var(--third)"];

/// Lines over two axes; `label` says in a sentence what they show. `None` without two points.
pub fn lines(label: &str, (x_axis, y_axis): (&str, &str), lines: &[Line]) -> Option<String> {
    /// Edges of the plot: left, right, top, bottom.
    const PLOT: [f64; 4] = [64.0, 470.0, 30.0, 220.0];
    let finite = |line: &Line| -> Vec<(f64, f64)> {
        line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = lines.iter().map(finite).collect();
    let all = || lines.iter().flatten();
    if all().count() < 2 {
        return None;
    }
    let (low_x, high_x) = ends(all().map(|point| point.0))?;
    let (low_y, high_y) = ends(all().map(|point| point.1))?;
    let [left, right, top, bottom] = PLOT;
    let x = |value: f64| left + (value - low_x) / (high_x - low_x) * (right - left);
    let y = |value: f64| bottom - (value - low_y) / (high_y - low_y) * (bottom - top);
    let path = |line: &Vec<(f64, f64)>| -> String {
        let points: Vec<String> = line.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        points.join(" ")
    };
    let drawing = html! {
        @for tick in ticks(low_y, high_y) {
            line x1=(left) x2=(right) y1=(number(y(tick))) y2=(number(y(tick))) stroke="var(--faint)" {}
            (text(&short(tick), (left - 8.0, y(tick) + 5.0), "end"))
        }
        @for tick in ticks(low_x, high_x) { (text(&short(tick), (x(tick), bottom + 22.0), "middle")) }
        @for (line, colour) in lines.iter().zip(LINES.iter().cycle()) {
            polyline points=(path(line)) fill="none" stroke=(colour) stroke-width="2" {}
            @for point in line.iter().filter(|_| line.len() <= 16) {
                circle cx=(number(x(point.0))) cy=(number(y(point.1))) r="4" fill=(colour) {}
            }
        }
        (text(y_axis, (4.0, 16.0), "start"))
        (text(x_axis, (right, bottom + 46.0), "end"))
    };
    Some(drawn(274.0, label, &drawing))
}

/// Bars below each other; those beyond [`MOST_BARS`] are left out. `None` where none is longer than nothing.
pub fn bars(label: &str, bars: &[Bar]) -> Option<String> {
    const ROW: f64 = 38.0;
    let bars = &bars[..bars.len().min(MOST_BARS)];
    let longest = bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let length = |bar: &Bar| {
        let share = if bar.value.is_finite() { bar.value.max(0.0) / longest } else { 0.0 };
        (share * WIDTH).max(1.0)
    };
    let drawing = html! {
        @for (top, bar) in bars.iter().enumerate().map(|(n, bar)| (ROW * n as f64, bar)) {
            (text(&bar.name, (0.0, top + 16.0), "start"))
            (text(&bar.note, (WIDTH, top + 16.0), "end"))
            rect x="0" y=(number(top + 22.0)) width=(WIDTH) height="10" fill="var(--faint)" fill-opacity="0.4" {}
            rect x="0" y=(number(top + 22.0)) width=(number(length(bar))) height="10" fill=(LINES[0]) {}
        }
    };
    Some(drawn(ROW * bars.len() as f64, label, &drawing))
}

/// An interval on a line with its limit. `None` where a number is not finite.
pub fn range(label: &str, range: Range) -> Option<String> {
    let Range { lower, value, upper, limit } = range;
    let (low, high) = ends([lower, value, upper, limit].into_iter())?;
    let place = |value: f64| 12.0 + (value - low) / (high - low) * (WIDTH - 24.0);
    // Beside the limit, where there is room.
    let (beside, anchor) = if place(limit) > WIDTH / 2.0 { (-6.0, "end") } else { (6.0, "start") };
    let drawing = html! {
        line x1="0" x2=(WIDTH) y1="32" y2="32" stroke="var(--faint)" {}
        line x1=(number(place(lower))) x2=(number(place(upper))) y1="32" y2="32" stroke=(LINES[0]) stroke-width="6" {}
        circle cx=(number(place(value))) cy="32" r="6" fill=(LINES[0]) {}
        line x1=(number(place(limit))) x2=(number(place(limit))) y1="6" y2="44" stroke=(LINES[1]) stroke-width="3" {}
        (text("limit", (place(limit) + beside, 18.0), anchor))
    };
    Some(drawn(46.0, label, &drawing))
}

/// The least and the greatest, kept apart. `None` where one is not finite.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        if value.is_nan() { (f64::NAN, f64::NAN) } else { (low.min(value), high.max(value)) }
    });
    let apart = if high > low { 0.0 } else { low.abs().max(1.0) * 0.5 };
    (low.is_finite() && high.is_finite()).then_some((low - apart, high + apart))
}

/// 1, 2 or 5 times a power of ten apart, between two ends: two to six of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let least = (high - low) / 5.0;
    let decade = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| *step >= least * 0.999);
    let step = step.unwrap_or(least);
    let first = (low / step).ceil() as i64;
    (first..first + 8).map(|n| n as f64 * step).take_while(|tick| *tick <= high + step * 1e-9).collect()
}

fn text(content: &str, (x, y): (f64, f64), anchor: &str) -> Markup {
    html! { text x=(number(x)) y=(number(y)) text-anchor=(anchor) font-size=(FONT) fill="currentColor" { (content) } }
}

/// A coordinate; more digits are not seen.
fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// The drawing as part of a page: it scales with its place, and says what it shows.
fn drawn(height: f64, label: &str, drawing: &Markup) -> String {
    let svg = html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(label) { (drawing) }
    };
    svg.into_string()
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
        let start = "<svg viewBox=\"0 0 480 274\" role=\"img\" aria-label=\"loss &quot;falls&quot; &lt;fast&gt;\">";
        assert!(svg.starts_with(start), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>") && svg.contains("stroke=\"var(--accent)\""), "{svg}");
        assert!(svg.contains("fill=\"currentColor\"") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_within_the_ends() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(1.3, 4.9), [2.0, 3.0, 4.0]);
        for (low, high) in [(0.001, 0.0013), (-7.0, 7e6), (1e12, 1e12 + 3.0), (99.5, 100.5)] {
            let ticks = ticks(low, high);
            assert!((2..=7).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(
                ticks.iter().all(|tick| *tick >= low - 1e-9 && *tick <= high * 1.001),
                "{low} to {high}: {ticks:?}"
            );
        }
    }

    #[test]
    fn names_cannot_leave_the_drawing() {
        let bar = |name: &str, value| Bar { name: name.to_owned(), value, note: "</svg><script>".to_owned() };
        let svg = bars("bytes", &[bar("<script>alert(1)</script>", 3.0), bar("b", f64::INFINITY)]).expect("bars");
        assert!(!svg.contains("<script") && svg.matches("</svg>").count() == 1, "{svg}");
        assert_eq!(bars("bytes", &[bar("a", 0.0)]), None);
        let many: Vec<Bar> = (0..100).map(|n| bar("a", f64::from(n) + 1.0)).collect();
        assert_eq!(bars("bytes", &many).expect("bars").matches("fill=\"var(--accent)\"").count(), MOST_BARS);
    }

    #[test]
    fn ranges_hold_their_limit() {
        let shown = Range { lower: 0.04, value: 0.05, upper: 0.06, limit: 0.1 };
        let svg = range("KLD", shown).expect("finite");
        assert!(svg.matches("<line").count() == 3, "{svg}");
        assert_eq!(range("KLD", Range { upper: f64::INFINITY, ..shown }), None);
        assert!(range("KLD", Range { lower: 1.0, value: 1.0, upper: 1.0, limit: 1.0 }).is_some(), "all at one place");
    }
}
