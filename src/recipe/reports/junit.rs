//! JUnit XML: every stage and every gate a test case. The dialect is the one that GitLab, Jenkins (junit-10.xsd) and the
//! actions of GitHub all read: no `skipped` on `testsuites`, no attributes of a test case but its names and time, names
//! that are unique.
//!
//! ```text
//! stage   done, cached: a pass      does not fit: failure        not in the caches: error      not run: skipped
//! gate    passed: a pass            missed: failure      undecided, not measured: error
//! what a condition leaves out, stages and gates: skipped
//! ```

use crate::recipe::gates::{GateResult, GateVerdict, NotJudged};
use crate::recipe::run_report::{RunReport, StageResult, Status};
use maud::html;

/// How a case ended, where it did not pass.
struct Outcome {
    element: &'static str,
    kind: &'static str,
    message: String,
    text: String,
}

struct Case {
    class: String,
    name: String,
    seconds: f64,
    outcome: Option<Outcome>,
}

/// First bytes of every such file.
pub(super) const MAGIC: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"slmc\"";

/// The whole file.
pub(super) fn render(report: &RunReport) -> String {
    let mut cases: Vec<Case> = report.stages.iter().map(|stage| of_stage(report, stage)).collect();
    cases.extend(report.gates.iter().map(|gate| of_gate(report, gate)));
    let skipped = |class: &str, name: String, kind, why: &str| Case {
        class: format!("{}.{class}", report.recipe),
        name,
        seconds: 0.0,
        outcome: Some(Outcome { element: "skipped", kind, message: why.to_owned(), text: String::new() }),
    };
    cases.extend(report.left_out.iter().map(|other| skipped("stage", other.stage.clone(), "left out", &other.why)));
    let name = |gate: &NotJudged| format!("{} on {}", gate.gate, gate.stage);
    cases.extend(report.not_judged.iter().map(|gate| skipped("gate", name(gate), "not judged", &gate.why)));
    let count = |element: &str| {
        let outcomes = cases.iter().filter_map(|case| case.outcome.as_ref());
        outcomes.filter(|outcome| outcome.element == element).count()
    };
    let time = seconds(cases.iter().map(|case| case.seconds).sum());
    let (tests, failures, errors) = (cases.len(), count("failure"), count("error"));
    let document = html! {
        testsuites name="slmc" tests=(tests) failures=(failures) errors=(errors) time=(time) {
            testsuite name=(plain(&report.recipe)) tests=(tests) failures=(failures) errors=(errors)
                skipped=(count("skipped")) time=(time) {
                properties {
                    property name="tool" value=(plain(&report.tool)) {}
                    property name="recipe" value=(plain(&report.file)) {}
                }
                @for case in &cases {
                    testcase classname=(plain(&case.class)) name=(plain(&case.name)) time=(seconds(case.seconds)) {
                        @if let Some(Outcome { element, kind, message, text }) = &case.outcome {
                            @match *element {
                                "failure" => failure type=(kind) message=(plain(message)) { (plain(text)) },
                                "error" => error type=(kind) message=(plain(message)) { (plain(text)) },
                                _ => skipped type=(kind) message=(plain(message)) {},
                            }
                        }
                    }
                }
            }
        }
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", document.into_string())
}

fn of_gate(report: &RunReport, gate: &GateResult) -> Case {
    let outcome = (!gate.passed).then(|| {
        let (element, kind) = match gate.verdict {
            GateVerdict::Missed => ("failure", "missed"),
            GateVerdict::NotMeasured => ("error", "not measured"),
            GateVerdict::Passed | GateVerdict::Undecided => ("error", "undecided"),
        };
        let message = format!("{}, limit {}: {}", gate.value_words(), gate.limit_words(), gate.verdict_words());
        let more = gate.contributor_words().map_or_else(String::new, |words| format!("\n{words}"));
        let text = format!("{}:{}\n{message}{more}", gate.file, gate.line);
        Outcome { element, kind, message, text }
    });
    let name = match &gate.against {
        Some(against) => format!("{} on {} against {against}", gate.gate, gate.stage),
        None => format!("{} on {}", gate.gate, gate.stage),
    };
    Case { class: format!("{}.gate", report.recipe), name, seconds: 0.0, outcome }
}

fn of_stage(report: &RunReport, stage: &StageResult) -> Case {
    let outcome = match stage.status {
        Status::Done | Status::Cached => None,
        Status::DoesNotFit => Some(("failure", "does not fit", "the model does not fit its target")),
        Status::NotCached => Some(("error", "not cached", "its result is in none of the caches")),
        Status::NotRun => Some(("skipped", "not run", "a stage before it gave no output")),
    };
    Case {
        class: format!("{}.stage", report.recipe),
        name: stage.stage.clone(),
        seconds: stage.cost.map_or(0.0, |cost| cost.seconds),
        outcome: outcome.map(|(element, kind, message)| Outcome {
            element,
            kind,
            message: message.to_owned(),
            text: stage.why.clone().unwrap_or_default(),
        }),
    }
}

/// Without the characters that XML 1.0 has no way to write; what is markup is escaped by `maud`.
fn plain(text: &str) -> String {
    let allowed = |character: &char| {
        matches!(character, '\t' | '\n' | '\r') || (*character >= ' ' && !matches!(character, '\u{fffe}' | '\u{ffff}'))
    };
    text.chars().filter(allowed).collect()
}

/// As the schema wants it: digits, a point, digits.
fn seconds(value: f64) -> String {
    format!("{:.3}", value.max(0.0))
}
