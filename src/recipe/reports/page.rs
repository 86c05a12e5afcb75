//! The report as one HTML page. Every figure has its numbers as a table. Text of models is escaped like all text, and its
//! control characters are shown.

mod facts;

use crate::recipe::gates::GateVerdict;
use crate::recipe::run_report::{RunReport, RunVerdict};
use crate::report::figure::{self, Range};
use crate::report::page::{Page, Section, table};
use crate::report::visible;
use maud::{Markup, PreEscaped, html};

/// First bytes of every such file.
pub(super) const MAGIC: &str = "<!DOCTYPE html><!-- slmc run -->";

/// The whole page.
pub(super) fn render(report: &RunReport) -> String {
    let verdict = report.verdict.words();
    let (good, bad) = (report.verdict == RunVerdict::Passed, report.verdict == RunVerdict::NotPassed);
    let mark = match report.verdict {
        RunVerdict::Passed => "✓ ",
        RunVerdict::NotPassed => "✗ ",
        RunVerdict::NotJudged => "? ",
    };
    let heading = html! {
        h1 { (visible(&report.recipe)) }
        p.verdict.good[good].bad[bad] {
            span aria-hidden="true" { (mark) }
            (verdict) ", " (summary(report))
        }
    };
    Page {
        magic: MAGIC,
        title: format!("{}: {verdict}", visible(&report.recipe)),
        heading,
        sections: sections(report),
        footer: format!("{}, schema slmc.run/2", visible(&report.tool)),
    }
    .render()
}

/// The parts that there is something to say in.
fn sections(report: &RunReport) -> Vec<Section> {
    let all = [
        ("gates", "Gates", gates(report)),
        ("absent", "Left out", absent(report)),
        ("stages", "Stages", Some(stages(report))),
        ("samples", "Samples", samples(report)),
        ("quality", "Size and quality", facts::quality(report)),
        ("kept", "Answers that are kept", facts::kept(report)),
        ("bytes", "Bytes by class", facts::bytes(report)),
        ("sensitivity", "Error by matrix", facts::sensitivity(report)),
        ("training", "Training", facts::training(report)),
        ("memory", "Memory on the device", facts::memory(report)),
        ("data", "Remarks on the data", remarks(report)),
        ("provenance", "Where it comes from", Some(provenance(report))),
    ];
    all.into_iter().filter_map(|(id, title, content)| Some(Section { id, title, content: content? })).collect()
}

fn summary(report: &RunReport) -> String {
    let held = report.gates.iter().filter(|gate| gate.passed).count();
    let gates = match report.gates.len() {
        0 if !report.not_judged.is_empty() => "no gate is judged".to_owned(),
        0 => "no gates".to_owned(),
        all => format!("{held} of {all} gates hold"),
    };
    format!("{gates}, {} stages", report.stages.len())
}

fn gates(report: &RunReport) -> Option<Markup> {
    if report.gates.is_empty() {
        return None;
    }
    Some(html! {
        ul.gates {
            @for gate in &report.gates {
                li.gate.good[gate.passed].bad[!gate.passed] {
                    h3 {
                        span aria-hidden="true" { (if gate.passed { "✓ " } else { "✗ " }) }
                        (visible(&gate.gate)) " on " (visible(&gate.stage))
                        @if let Some(against) = &gate.against { " against " (visible(against)) }
                    }
                    p { strong { (visible(&gate.verdict_words())) } }
                    @if let (Some(lower), Some(value), Some(upper)) = (gate.lower, gate.value, gate.upper) {
                        @let label = format!("{} with bounds {}, limit {}", gate.gate, gate.value_words(), gate.limit_words());
                        @if let Some(svg) = figure::range(&label, Range { lower, value, upper, limit: gate.limit }) {
                            div.range { (PreEscaped(svg)) }
                        }
                    }
                    dl {
                        dt { "limit" } dd { (gate.limit_words()) }
                        dt { "value" } dd { (gate.value_words()) }
                        @if let (Some(samples), Some(unit)) = (gate.samples, &gate.unit) {
                            dt { "measured on" } dd { (samples) " " (visible(unit)) }
                        }
                        @if let Some(confidence) = gate.confidence {
                            dt { "confidence" } dd { (format!("{:.3}", confidence)) " for each bound" }
                        }
                        @if gate.verdict == GateVerdict::Undecided {
                            @if let Some(needed) = gate.needed { dt { "would decide" } dd { "about " (needed) } }
                        }
                        @if let Some(chance) = gate.chance {
                            dt { "by chance alone" } dd { (format!("{chance:.3}")) " (McNemar, mid-p)" }
                        }
                        @if let Some(words) = gate.contributor_words() {
                            dt { "matrices" } dd { (visible(&words)) }
                        }
                        dt { "set in" } dd { (visible(&gate.file)) ":" (gate.line) }
                    }
                }
            }
        }
    })
}

fn absent(report: &RunReport) -> Option<Markup> {
    let lines = report.absent();
    (!lines.is_empty()).then(|| html! { ul { @for line in &lines { li { (visible(line)) } } } })
}

fn stages(report: &RunReport) -> Markup {
    let rows = report.stages.iter().map(|stage| {
        let cells = stage.cells();
        let mut row: Vec<String> = cells.iter().map(|cell| visible(cell)).collect();
        row.insert(2, stage.origin().to_owned());
        row
    });
    let headings = [
        "stage",
        "what it did",
        "from",
        "bytes",
        "KLD",
        "top-1",
        "perplexity (ratio)",
        "accuracy or cosine",
        "seconds",
        "peak MiB",
    ];
    table("Stages", &headings, rows.collect())
}

fn samples(report: &RunReport) -> Option<Markup> {
    if report.samples.is_empty() {
        return None;
    }
    Some(html! {
        div.samples {
            @for sample in &report.samples {
                div {
                    h3 { (visible(&sample.of)) }
                    pre tabindex="0" { (visible(&sample.text)) }
                }
            }
        }
    })
}

fn remarks(report: &RunReport) -> Option<Markup> {
    let of_stage = |stage: &crate::recipe::run_report::StageResult| {
        let remarks = stage.remarks();
        remarks.into_iter().map(|remark| vec![visible(&stage.stage), visible(&remark)]).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = report.stages.iter().flat_map(of_stage).collect();
    (!rows.is_empty()).then(|| table("Remarks on the data", &["stage", "remark"], rows))
}

fn provenance(report: &RunReport) -> Markup {
    let inputs = report.inputs.iter().map(|input| [&input.path, &input.sha256].map(|text| visible(text)).to_vec());
    let outputs = report.stages.iter().filter_map(|stage| {
        let (output, sha256) = (stage.output.as_ref()?, stage.sha256.as_ref()?);
        Some(vec![visible(&output.display().to_string()), visible(sha256)])
    });
    html! {
        dl {
            dt { "recipe" } dd { (visible(&report.file)) }
            dt { "tool" } dd { (visible(&report.tool)) }
            dt { "again" } dd { code { "slmc run " (visible(&report.file)) } }
        }
        (table("Inputs", &["input", "SHA-256"], inputs.collect()))
        (table("Outputs", &["output", "SHA-256"], outputs.collect()))
    }
}
