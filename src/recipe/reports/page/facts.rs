//! Sections about the stages' own reports: sizes beside quality, bytes by class, error by matrix, losses, memory.

use crate::recipe::run_report::{RunReport, StageResult};
use crate::report::figure::{self, Bar, Line, MOST_BARS};
use crate::report::page::figure_with_table;
use crate::report::{grouped, visible};
use maud::{Markup, html};
use serde_json::Value;

/// The stages that have a report, with it.
fn reports(report: &RunReport) -> impl Iterator<Item = (&StageResult, &Value)> {
    report.stages.iter().filter_map(|stage| Some((stage, stage.report.as_ref()?)))
}

/// Several figures as one part; nothing without any.
fn all(figures: Vec<Markup>) -> Option<Markup> {
    (!figures.is_empty()).then(|| html! { @for figure in &figures { (figure) } })
}

/// Bytes against divergence, of every model that was measured.
pub(super) fn quality(report: &RunReport) -> Option<Markup> {
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
    let points: Vec<(&StageResult, f64, f64)> = reports(report)
        .filter_map(|(stage, value)| Some((stage, number(value, "weight_bytes")?, number(value, "kld_mean")?)))
        .collect();
    if points.is_empty() {
        return None;
    }
    let row = |(stage, bytes, kld): &(&StageResult, f64, f64)| {
        vec![visible(&stage.stage), grouped(*bytes as u64), format!("{kld:.6}")]
    };
    let mut line: Vec<(f64, f64)> = points.iter().map(|(_, bytes, kld)| (*bytes, *kld)).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    // One model is a point, and needs no axes.
    let svg = (line.len() > 1)
        .then(|| {
            figure::lines(
                "Divergence by bytes of weights",
                ("bytes", "KLD"),
                &[Line { name: String::new(), points: line }],
            )
        })
        .flatten();
    let headings = ["stage", "weight bytes", "KLD, nats"];
    Some(figure_with_table(svg, "Bytes of weights and divergence", &headings, points.iter().map(row).collect()))
}

/// Bytes by class of every artifact.
pub(super) fn bytes(report: &RunReport) -> Option<Markup> {
    let of_stage = |(stage, value): (&StageResult, &Value)| {
        let classes = value.get("bytes_by_class")?.as_object()?;
        let total: u64 = classes.values().filter_map(Value::as_u64).sum();
        let share = |bytes: u64| 100.0 * bytes as f64 / (total as f64).max(1.0);
        let classes: Vec<(String, u64)> =
            classes.iter().filter_map(|(name, bytes)| Some((visible(name), bytes.as_u64()?))).collect();
        let bars: Vec<Bar> = classes
            .iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| Bar {
                name: name.clone(),
                value: *bytes as f64,
                note: format!("{:.1} %", share(*bytes)),
            })
            .collect();
        let rows =
            classes.iter().map(|(name, bytes)| vec![name.clone(), grouped(*bytes), format!("{:.2} %", share(*bytes))]);
        let caption = format!("{}: {} bytes of weights", visible(&stage.stage), grouped(total));
        let svg = figure::bars(&caption, &bars);
        Some(figure_with_table(svg, &caption, &["class", "bytes", "share"], rows.collect()))
    };
    all(reports(report).filter(|(stage, _)| stage.kind == "compile").filter_map(of_stage).collect())
}

/// What each matrix costs: by measurement where bits were allocated, and by the error of its rounding.
pub(super) fn sensitivity(report: &RunReport) -> Option<Markup> {
    let mut figures = Vec::new();
    for (stage, value) in reports(report) {
        if let Some(items) = value.pointer("/allocation/items").and_then(Value::as_array) {
            let row = |item: &Value| {
                let (name, chosen) = (item.get("name")?.as_str()?, item.get("chosen")?.as_str()?);
                let coding = item.get("codings")?.as_array()?.iter().find(|coding| coding["scheme"] == *chosen)?;
                let cost = coding.pointer("/measured/mean").or_else(|| coding.get("predicted"))?.as_f64()?;
                Some((visible(name), visible(chosen), cost))
            };
            let unit = value.pointer("/allocation/unit").and_then(Value::as_str).unwrap_or("cost");
            let caption = format!("{}: cost of each item alone, {}", visible(&stage.stage), visible(unit));
            figures.push(ranked(&caption, items.iter().filter_map(row).collect()));
        }
        if let Some(matrices) = value.get("matrices").and_then(Value::as_array) {
            let row = |matrix: &Value| {
                let error = matrix.get("relative_error")?.as_f64()?;
                Some((visible(matrix.get("name")?.as_str()?), visible(matrix.get("scheme")?.as_str()?), error))
            };
            let rows: Vec<_> = matrices.iter().filter_map(row).collect();
            if !rows.is_empty() {
                figures.push(ranked(&format!("{}: relative error of rounding", visible(&stage.stage)), rows));
            }
        }
    }
    all(figures)
}

/// The largest as bars, all as a table in the order of the model.
fn ranked(caption: &str, rows: Vec<(String, String, f64)>) -> Markup {
    let mut largest: Vec<&(String, String, f64)> = rows.iter().collect();
    largest.sort_by(|a, b| b.2.total_cmp(&a.2));
    let bar = |(name, scheme, value): &&(String, String, f64)| Bar {
        name: format!("{name} {scheme}"),
        value: *value,
        note: format!("{value:.2e}"),
    };
    let bars: Vec<Bar> = largest.iter().take(MOST_BARS / 2).map(bar).collect();
    let shown = if rows.len() > bars.len() {
        format!("{caption}; the {} largest of {}", bars.len(), rows.len())
    } else {
        caption.to_owned()
    };
    let cells = rows.iter().map(|(name, scheme, value)| vec![name.clone(), scheme.clone(), format!("{value:.4e}")]);
    figure_with_table(figure::bars(caption, &bars), &shown, &["matrix", "scheme", "value"], cells.collect())
}

/// Accuracy against the share of texts that a classifier answers itself, of every stage that measured it.
pub(super) fn kept(report: &RunReport) -> Option<Markup> {
    let of_stage = |(stage, value): (&StageResult, &Value)| {
        let curve = value.get("kept_curve")?.as_array()?;
        let point = |point: &Value| {
            let number = |key: &str| point.get(key).and_then(Value::as_f64);
            Some((number("confidence")?, number("share")?, number("accuracy")?))
        };
        let points: Vec<(f64, f64, f64)> = curve.iter().filter_map(point).collect();
        let caption = format!("{}: accuracy by the share of texts that are answered", visible(&stage.stage));
        let line = Line { name: "kept".to_owned(), points: points.iter().map(|point| (point.1, point.2)).collect() };
        let svg = figure::lines(&caption, ("share", "accuracy"), &[line]);
        let row = |(bound, share, accuracy): &(f64, f64, f64)| {
            vec![format!("{bound:.4}"), format!("{share:.3}"), format!("{accuracy:.4}")]
        };
        let headings = ["probability from", "share kept", "accuracy"];
        Some(figure_with_table(svg, &caption, &headings, points.iter().map(row).collect()))
    };
    all(reports(report).filter_map(of_stage).collect())
}

/// Losses by step.
pub(super) fn training(report: &RunReport) -> Option<Markup> {
    let of_stage = |(stage, value): (&StageResult, &Value)| {
        let curve = value.get("curve").or_else(|| value.pointer("/training/curve"))?.as_array()?;
        let point = |point: &Value| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()?));
        let points: Vec<(f64, f64)> = curve.iter().filter_map(point).collect();
        let caption = format!("{}: loss by step", visible(&stage.stage));
        let line = Line { name: "loss".to_owned(), points: points.clone() };
        let svg = figure::lines(&caption, ("step", "loss"), &[line]);
        let rows = points.iter().map(|(step, loss)| vec![format!("{step:.0}"), format!("{loss:.4}")]);
        Some(figure_with_table(svg, &caption, &["step", "loss"], rows.collect()))
    };
    all(reports(report).filter_map(of_stage).collect())
}

/// RAM and flash of every artifact beside what its device has.
pub(super) fn memory(report: &RunReport) -> Option<Markup> {
    let of_stage = |(stage, value): (&StageResult, &Value)| {
        let bytes = |key: &str| value.get(key).and_then(Value::as_u64);
        let target = value.get("target").and_then(Value::as_str).unwrap_or_default();
        let parts = [
            ("activations and scratch", bytes("arena_bytes")?),
            ("keys and values", bytes("cache_bytes")?),
            ("stack", bytes("stack_bytes")?),
        ];
        let mut rows: Vec<(String, u64)> = parts.map(|(name, bytes)| (format!("RAM: {name}"), bytes)).to_vec();
        rows.push(("RAM: all".to_owned(), bytes("ram_bytes")?));
        rows.extend(bytes("ram_limit_bytes").map(|limit| ("RAM that the device has for it".to_owned(), limit)));
        rows.extend(bytes("flash_bytes").map(|flash| ("flash".to_owned(), flash)));
        rows.extend(bytes("flash_limit_bytes").map(|limit| ("flash that the device has for it".to_owned(), limit)));
        let bar =
            |(name, bytes): &(String, u64)| Bar { name: name.clone(), value: *bytes as f64, note: grouped(*bytes) };
        let bars: Vec<Bar> = rows.iter().map(bar).collect();
        let context = bytes("context").unwrap_or_default();
        let caption = format!("{} on {}, context {}", visible(&stage.stage), visible(target), grouped(context));
        let cells = rows.iter().map(|(name, bytes)| vec![name.clone(), grouped(*bytes)]);
        Some(figure_with_table(figure::bars(&caption, &bars), &caption, &["part", "bytes"], cells.collect()))
    };
    all(reports(report).filter_map(of_stage).collect())
}
