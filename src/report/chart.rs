//! A chart as SVG: points with error bars over a linear axis, their values on a logarithmic one, and below it bars that
//! compare named values. Plain shapes and text, no script and no style sheet, so that every viewer shows the same.

use std::fmt::Write;

/// First bytes of the file, by which slmc recognises its own charts.
pub const CHART_MAGIC: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- slmc chart -->";

/// One point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// On the linear axis.
    pub x: f64,
    /// On the logarithmic axis; above 0.
    pub y: f64,
    /// Its standard error.
    pub error: Option<f64>,
    /// Written beside it, where it is to stand out.
    pub label: Option<String>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// At its left.
    pub name: String,
    /// Its length, on a logarithmic axis; above 0.
    pub value: f64,
    /// A second value, drawn as a tick.
    pub tick: Option<f64>,
    /// At its right.
    pub note: String,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above everything.
    pub title: String,
    /// Below the title.
    pub subtitle: String,
    /// Name of the linear axis.
    pub x_axis: String,
    /// Name of the logarithmic axis.
    pub y_axis: String,
    /// Joined by a line, in order.
    pub line: Vec<Point>,
    /// Not joined.
    pub others: Vec<Point>,
    /// Above the bars.
    pub bars_title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 84.0;
const PLOT_HEIGHT: f64 = 380.0;
const BAR_LEFT: f64 = 230.0;
const BAR_RIGHT: f64 = 210.0;
const BAR_HEIGHT: f64 = 18.0;
const INK: &str = "#1f2933";
const FAINT: &str = "#d5dbe1";
const LINE: &str = "#1d6fb8";
const OTHER: &str = "#b8561d";

impl Chart {
    /// The whole file.
    pub fn svg(&self) -> String {
        let bars_top = TOP + PLOT_HEIGHT + 110.0;
        let height = bars_top + BAR_HEIGHT * self.bars.len() as f64 + 64.0;
        let mut out = String::from_utf8_lossy(CHART_MAGIC).into_owned();
        let _ = write!(
            out,
            "\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        text(&mut out, (LEFT, 34.0), "start", 20, &self.title);
        text(&mut out, (LEFT, 57.0), "start", 13, &self.subtitle);
        self.points(&mut out);
        self.draw_bars(&mut out, bars_top);
        out.push_str("</svg>\n");
        out
    }

    fn points(&self, out: &mut String) {
        let all: Vec<&Point> = self.line.iter().chain(&self.others).filter(|point| point.y > 0.0).collect();
        if all.is_empty() {
            return;
        }
        let fold = |value: fn(&Point) -> f64, pick: fn(f64, f64) -> f64, start| {
            all.iter().fold(start, |found, point| pick(found, value(point)))
        };
        let (low, high) = (fold(|p| p.x, f64::min, f64::INFINITY), fold(|p| p.x, f64::max, f64::NEG_INFINITY));
        let step = round_step((high - low).max(1.0) / 6.0);
        let (low, high) =
            ((low / step).floor() * step, ((high / step).ceil() * step).max((low / step).floor() * step + step));
        let (bottom, top) = (fold(|p| p.y, f64::min, f64::INFINITY), fold(|p| p.y, f64::max, f64::NEG_INFINITY));
        let axis = LogAxis::new(bottom, top);
        let x = |value: f64| LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| TOP + PLOT_HEIGHT * (1.0 - axis.place(value));
        for tick in axis.ticks() {
            line(out, (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)), FAINT, 1.0);
            text(out, (LEFT - 8.0, y(tick) + 4.5), "end", 13, &short(tick));
        }
        let mut tick = low;
        while tick <= high + step / 2.0 {
            line(out, (x(tick), TOP), (x(tick), TOP + PLOT_HEIGHT), FAINT, 1.0);
            text(out, (x(tick), TOP + PLOT_HEIGHT + 20.0), "middle", 13, &short(tick));
            tick += step;
        }
        line(out, (LEFT, TOP + PLOT_HEIGHT), (WIDTH - RIGHT, TOP + PLOT_HEIGHT), INK, 1.2);
        line(out, (LEFT, TOP), (LEFT, TOP + PLOT_HEIGHT), INK, 1.2);
        text(out, ((LEFT + WIDTH - RIGHT) / 2.0, TOP + PLOT_HEIGHT + 44.0), "middle", 14, &self.x_axis);
        let middle = TOP + PLOT_HEIGHT / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"28\" y=\"{middle}\" text-anchor=\"middle\" font-size=\"14\" transform=\"rotate(-90 28 {middle})\">{}</text>",
            escaped(&self.y_axis)
        );
        let drawn = self.line.iter().filter(|point| point.y > 0.0);
        let path: Vec<String> = drawn.map(|point| format!("{:.1},{:.1}", x(point.x), y(point.y))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (points, colour) in [(&self.line, LINE), (&self.others, OTHER)] {
            for point in points.iter().filter(|point| point.y > 0.0) {
                let (at_x, at_y) = (x(point.x), y(point.y));
                if let Some(error) = point.error.filter(|error| point.y - error > 0.0) {
                    line(out, (at_x, y(point.y - error)), (at_x, y(point.y + error)), colour, 1.5);
                }
                let _ = writeln!(out, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\" fill=\"{colour}\"/>");
                if let Some(label) = &point.label {
                    // To the left of points near the right edge.
                    let (anchor, shift) = if at_x > WIDTH - 220.0 { ("end", -9.0) } else { ("start", 9.0) };
                    text(out, (at_x + shift, at_y - 9.0), anchor, 13, label);
                }
            }
        }
    }

    fn draw_bars(&self, out: &mut String, top: f64) {
        let values = || self.bars.iter().flat_map(|bar| [Some(bar.value), bar.tick]).flatten().filter(|v| *v > 0.0);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        if !(low.is_finite() && high.is_finite()) {
            return;
        }
        text(out, (LEFT, top - 14.0), "start", 15, &self.bars_title);
        let axis = LogAxis::new(low, high);
        let x = |value: f64| BAR_LEFT + axis.place(value) * (WIDTH - BAR_LEFT - BAR_RIGHT);
        let bottom = top + BAR_HEIGHT * self.bars.len() as f64;
        for tick in axis.ticks() {
            line(out, (x(tick), top), (x(tick), bottom), FAINT, 1.0);
            text(out, (x(tick), bottom + 18.0), "middle", 12, &short(tick));
        }
        for (n, bar) in self.bars.iter().enumerate() {
            let at = top + BAR_HEIGHT * n as f64;
            text(out, (BAR_LEFT - 8.0, at + 13.0), "end", 12, &bar.name);
            if bar.value > 0.0 {
                let width = (x(bar.value) - BAR_LEFT).max(1.0);
                let _ = writeln!(
                    out,
                    "<rect x=\"{BAR_LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{LINE}\" fill-opacity=\"0.75\"/>",
                    at + 3.0,
                    BAR_HEIGHT - 6.0
                );
            }
            if let Some(tick) = bar.tick.filter(|tick| *tick > 0.0) {
                line(out, (x(tick), at + 1.0), (x(tick), at + BAR_HEIGHT - 1.0), OTHER, 2.0);
            }
            text(out, (WIDTH - BAR_RIGHT + 12.0, at + 13.0), "start", 12, &bar.note);
        }
    }
}

/// Decades that hold all values.
struct LogAxis {
    low: f64,
    high: f64,
}

impl LogAxis {
    /// From a 1, 2 or 5 below the least to one above the most.
    fn new(least: f64, most: f64) -> Self {
        let below = |value: f64| {
            let decade = 10f64.powf(value.log10().floor());
            [5.0, 2.0, 1.0].into_iter().map(|factor| factor * decade).find(|found| *found <= value).unwrap_or(decade)
        };
        let low = below(least * 0.999);
        let high = [1.0, 2.0, 5.0, 10.0, 20.0].map(|factor| below(most) * factor);
        let high = high.into_iter().map(below).find(|found| *found >= most).unwrap_or(most * 2.0);
        LogAxis { low, high: if high > low { high } else { low * 10.0 } }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// 1, 2 and 5 of every decade; the ones alone where there are many.
    fn ticks(&self) -> Vec<f64> {
        let factors: &[f64] = if self.high / self.low > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let all = (first..=last).flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)));
        all.filter(|tick| *tick >= self.low * 0.999 && *tick <= self.high * 1.001).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|step| *step >= least * 0.999).unwrap_or(least)
}

/// `3.5 M`, `250 k`, `0.005`, `2e-5`.
fn short(value: f64) -> String {
    let trimmed = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e9 => format!("{} G", trimmed(value / 1e9, 2)),
        size if size >= 1e6 => format!("{} M", trimmed(value / 1e6, 2)),
        size if size >= 1e3 => format!("{} k", trimmed(value / 1e3, 2)),
        size if size >= 9.99e-4 => trimmed(value, 4),
        _ => format!("{value:.0e}"),
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, content: &str) {
    let content = escaped(content);
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{content}</text>");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_steps_round() {
        let cases = [
            (3_500_000.0, "3.5 M"),
            (250_000.0, "250 k"),
            (0.005, "0.005"),
            (0.001, "0.001"),
            (2e-5, "2e-5"),
            (0.0, "0"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
        assert_eq!([0.7, 1.1, 30.0, 60.0].map(round_step), [1.0, 2.0, 50.0, 100.0]);
        let axis = LogAxis::new(0.0008, 0.011);
        assert!(axis.low <= 0.0008 && axis.high >= 0.011 && axis.high <= 0.05, "{} {}", axis.low, axis.high);
        assert!(axis.ticks().len() > 3 && axis.place(axis.low) == 0.0 && axis.place(axis.high) == 1.0);
    }

    #[test]
    fn text_is_escaped_and_every_point_and_bar_is_drawn() {
        let point = |x, y| Point { x, y, error: Some(y / 10.0), label: Some("a <b> & c".to_owned()) };
        let bar = Bar { name: "embed.token".to_owned(), value: 1e-3, tick: Some(2e-3), note: "w4".to_owned() };
        let chart = Chart {
            title: "T".to_owned(),
            subtitle: String::new(),
            x_axis: "bytes".to_owned(),
            y_axis: "KLD".to_owned(),
            line: vec![point(1e6, 0.01), point(2e6, 0.001)],
            others: vec![point(1.5e6, 0.02)],
            bars_title: "B".to_owned(),
            bars: vec![bar.clone(), bar],
        };
        let svg = chart.svg();
        assert!(svg.as_bytes().starts_with(CHART_MAGIC) && svg.ends_with("</svg>\n"));
        assert_eq!((svg.matches("<circle").count(), svg.matches("<rect").count()), (3, 3));
        assert!(svg.contains("a &lt;b&gt; &amp; c") && !svg.contains("NaN") && !svg.contains("inf"));
    }
}
