//! Markdown of GitHub's kind for the summary of a job: verdict, gates, stages, samples, inputs. A job's summary may have
//! 1 MiB and shows little of long ones, so whole sections beyond 64 KiB are left out, and it says which.

use crate::recipe::plan_report::PlanReport;
use crate::recipe::run_report::{RunReport, RunVerdict};
use crate::report::visible;
use std::fmt::Write;

/// Most bytes.
const MOST_BYTES: usize = 64 << 10;
/// First bytes of every such file.
pub(super) const MAGIC: &str = "<!-- slmc run -->\n";

/// Likewise of a plan.
pub(super) const PLAN_MAGIC: &str = "<!-- slmc plan -->\n";

/// A plan.
pub(super) fn plan(report: &PlanReport) -> String {
    let mut out = format!("{PLAN_MAGIC}## Plan of {}\n\n", inline(&report.recipe));
    out.push_str("| stage | kind | output | bytes | memory | time | |\n|---|---|---|---:|---:|---:|---|\n");
    let mut left_out = 0;
    for stage in &report.stages {
        let output = stage.output.as_deref().map_or_else(|| "-".to_owned(), |output| output.display().to_string());
        let [bytes, memory, time] = stage.figures();
        let cells = [&stage.stage, stage.kind, &output, &bytes, &memory, &time, &stage.state()].map(inline);
        let row = format!("| {} |\n", cells.join(" | "));
        match out.len() + row.len() < MOST_BYTES / 2 {
            true => out.push_str(&row),
            false => left_out += 1,
        }
    }
    if left_out > 0 {
        let _ = write!(out, "\n{left_out} more stages are left out.\n");
    }
    out.push_str("\n~ stands before estimates.\n\n");
    for line in report.lines() {
        if out.len() + line.len() < MOST_BYTES {
            let _ = writeln!(out, "- {}", inline(&line));
        }
    }
    out
}

/// The whole text.
pub(super) fn render(report: &RunReport) -> String {
    let mark = match report.verdict {
        RunVerdict::Passed => "✅",
        RunVerdict::NotPassed => "❌",
        RunVerdict::NotJudged => "⚠️",
    };
    let mut out = format!("{MAGIC}## {}: {mark} {}\n", inline(&report.recipe), report.verdict.words());
    let sections = [
        ("gates", gates(report)),
        ("what is left out", absent(report)),
        ("stages", stages(report)),
        ("samples", samples(report)),
        ("inputs", inputs(report)),
    ];
    let mut left_out: Vec<&str> = Vec::new();
    for (name, section) in sections {
        if section.is_empty() {
            continue;
        }
        // Room for the line that says what is missing.
        if out.len() + section.len() + 256 > MOST_BYTES {
            left_out.push(name);
        } else {
            let _ = write!(out, "\n{section}");
        }
    }
    if !left_out.is_empty() {
        let _ = write!(out, "\nLeft out, being too long for a summary: {}.\n", left_out.join(", "));
    }
    out
}

fn gates(report: &RunReport) -> String {
    if report.gates.is_empty() {
        return String::new();
    }
    let mut out = "| | gate | stage | limit | value (bounds) | verdict |\n|---|---|---|---:|---:|---|\n".to_owned();
    for gate in &report.gates {
        let mark = if gate.passed { "✅" } else { "❌" };
        let [name, stage, limit, value, verdict] =
            [&gate.gate, &gate.stage, &gate.limit_words(), &gate.value_words(), &gate.verdict_words()]
                .map(|w| inline(w));
        let _ = writeln!(out, "| {mark} | {name} | {stage} | {limit} | {value} | {verdict} |");
    }
    for gate in &report.gates {
        if let Some(words) = gate.contributor_words() {
            let _ = write!(out, "\n{} on {}: {}\n", inline(&gate.gate), inline(&gate.stage), inline(&words));
        }
    }
    out
}

fn absent(report: &RunReport) -> String {
    report.absent().iter().map(|line| format!("- {}\n", inline(line))).collect()
}

fn stages(report: &RunReport) -> String {
    let mut out = "| stage | what it did | bytes | seconds | peak MiB |\n|---|---|---:|---:|---:|\n".to_owned();
    for stage in &report.stages {
        let cells = stage.cells();
        let [name, what, bytes, seconds, peak] =
            [&cells[0], &cells[1], &cells[2], &cells[7], &cells[8]].map(|c| inline(c));
        let _ = writeln!(out, "| {name} | {what} | {bytes} | {seconds} | {peak} |");
    }
    out
}

fn samples(report: &RunReport) -> String {
    let mut out = String::new();
    for sample in &report.samples {
        let text = visible(&sample.text);
        let fence = fence(&text);
        let _ = write!(out, "**{}**\n\n{fence}text\n{text}\n{fence}\n\n", inline(&sample.of));
    }
    out
}

fn inputs(report: &RunReport) -> String {
    if report.inputs.is_empty() {
        return String::new();
    }
    let mut out =
        format!("<details><summary>Inputs, {}</summary>\n\n| input | SHA-256 |\n|---|---|\n", inline(&report.tool));
    for input in &report.inputs {
        let _ = writeln!(out, "| {} | {} |", inline(&input.path), inline(&input.sha256));
    }
    out.push_str("\n</details>\n");
    out
}

/// A fence of backticks longer than any in the text, which nothing in the text can close.
fn fence(text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// Text for a line or a cell of a table: no character of it is markup, no HTML, no line end.
pub(in crate::recipe) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\t' => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | ':' => {
                // Entities, since a backslash does not escape everywhere in a table; without a colon nothing is a link.
                let _ = write!(out, "&#{};", character as u32);
            }
            // A name in a summary calls nobody.
            '@' => out.push_str("&#64;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_is_markup() {
        let hostile = "a|b\n<img src=x onerror=1> [x](javascript:1) `c` **d** @someone ::error::x \u{1b}[0m";
        let shown = inline(hostile);
        for character in ['|', '<', '>', '[', ']', ':', '`', '*', '@', '\n', '\u{1b}'] {
            assert!(!shown.contains(character), "{character:?} in {shown}");
        }
    }

    #[test]
    fn no_text_closes_its_fence() {
        assert_eq!(fence("plain"), "```");
        assert_eq!(fence("a ``` b ````` c"), "``````");
    }
}
