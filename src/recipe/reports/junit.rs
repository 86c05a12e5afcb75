//! JUnit XML: every stage and every gate a test case. The dialect is the one that GitLab, Jenkins (junit-10.xsd) and the
//! actions of GitHub all read: no `skipped` on `testsuites`, no attributes of a test case but its names and time, names
//! that are unique.
//!
//! ```text
//! stage   done, cached: a pass      does not fit, not run: skipped
//! gate    passed: a pass            missed: failure      undecided, not measured: error
//! ```

use crate::recipe::gates::GateVerdict;
use crate::recipe::run_report::{RunReport, StageResult, Status};
use quick_xml::Writer;
use quick_xml::events::BytesText;
use std::io;

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

/// The whole file.
pub(super) fn render(report: &RunReport) -> io::Result<String> {
    let mut cases: Vec<Case> = report.stages.iter().map(|stage| of_stage(report, stage)).collect();
    cases.extend(report.gates.iter().map(|gate| {
        let outcome = (!gate.passed).then(|| {
            let (element, kind) = match gate.verdict {
                GateVerdict::Missed => ("failure", "missed"),
                GateVerdict::NotMeasured => ("error", "not measured"),
                GateVerdict::Passed | GateVerdict::Undecided => ("error", "undecided"),
            };
            let message = format!("{}, limit {}: {}", gate.value_words(), gate.limit_words(), gate.verdict_words());
            let more =
                gate.contributor_words().map_or_else(String::new, |words| format!("\nmost of the error: {words}"));
            let text = format!("{}:{}\n{message}{more}", gate.file, gate.line);
            Outcome { element, kind, message, text }
        });
        let name = match &gate.against {
            Some(against) => format!("{} on {} against {against}", gate.gate, gate.stage),
            None => format!("{} on {}", gate.gate, gate.stage),
        };
        Case { class: format!("{}.gate", report.recipe), name, seconds: 0.0, outcome }
    }));
    let count =
        |element| cases.iter().filter(|case| case.outcome.as_ref().is_some_and(|o| o.element == element)).count();
    let [tests, failures, errors, skipped] =
        [cases.len(), count("failure"), count("error"), count("skipped")].map(|number| number.to_string());
    let time = seconds(cases.iter().map(|case| case.seconds).sum());
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(quick_xml::events::Event::Decl(quick_xml::events::BytesDecl::new(
        "1.0",
        Some("UTF-8"),
        None,
    )))?;
    let suites = [("name", "slmc"), ("tests", &tests), ("failures", &failures), ("errors", &errors), ("time", &time)];
    writer.create_element("testsuites").with_attributes(suites).write_inner_content(|writer| {
        let name = plain(&report.recipe);
        let suite = [
            ("name", name.as_str()),
            ("tests", &tests),
            ("failures", &failures),
            ("errors", &errors),
            ("skipped", &skipped),
            ("time", &time),
        ];
        writer.create_element("testsuite").with_attributes(suite).write_inner_content(|writer| {
            writer.create_element("properties").write_inner_content(|writer| {
                for (name, value) in [("tool", &report.tool), ("recipe", &report.file)] {
                    let value = plain(value);
                    let attributes = [("name", name), ("value", value.as_str())];
                    writer.create_element("property").with_attributes(attributes).write_empty()?;
                }
                Ok(())
            })?;
            cases.iter().try_for_each(|case| write_case(writer, case))
        })?;
        Ok(())
    })?;
    let mut text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    text.push('\n');
    Ok(text)
}

fn of_stage(report: &RunReport, stage: &StageResult) -> Case {
    let outcome = match stage.status {
        Status::Done | Status::Cached => None,
        Status::DoesNotFit => Some(("does not fit", "the model does not fit its target")),
        Status::NotRun => Some(("not run", "a stage before it gave no output")),
    };
    Case {
        class: format!("{}.stage", report.recipe),
        name: stage.stage.clone(),
        seconds: stage.cost.map_or(0.0, |cost| cost.seconds),
        outcome: outcome.map(|(kind, message)| Outcome {
            element: "skipped",
            kind,
            message: message.to_owned(),
            text: String::new(),
        }),
    }
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &Case) -> io::Result<()> {
    let (class, name, time) = (plain(&case.class), plain(&case.name), seconds(case.seconds));
    let attributes = [("classname", class.as_str()), ("name", &name), ("time", &time)];
    let element = writer.create_element("testcase").with_attributes(attributes);
    let Some(Outcome { element: tag, kind, message, text }) = &case.outcome else {
        element.write_empty()?;
        return Ok(());
    };
    element.write_inner_content(|writer| {
        let message = plain(message);
        let inner = writer.create_element(*tag).with_attributes([("type", *kind), ("message", message.as_str())]);
        if text.is_empty() {
            inner.write_empty()?;
        } else {
            inner.write_text_content(BytesText::new(&plain(text)))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Without the characters that XML 1.0 has no way to write.
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
