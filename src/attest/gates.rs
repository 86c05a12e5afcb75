//! The gates of a run as an in-toto test result (`https://in-toto.io/attestation/test-result/v0.1`):
//!
//! ```text
//! {"result": PASSED|WARNED|FAILED, "configuration": [recipe or result, with limits and values as annotations],
//!  "passedTests": [STAGE/GATE…], "warnedTests": […], "failedTests": […]}
//! ```
//!
//! A gate that is undecided and counts as held is a warning. A stage without a result is a failed test of its own name.

use super::AttestError;
use super::results::Results;
use super::subject::Subject;
use crate::trust::statement::Resource;
use serde_json::{Map, Value, json};

/// The type of the predicate.
pub(super) const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The predicate; `None` where the run has no gates and so tested nothing.
///
/// # Errors
/// [`AttestError::OtherArtifact`].
pub(super) fn predicate(
    subject: &Subject,
    results: &Results,
    recipe: Option<&Resource>,
) -> Result<Option<Value>, AttestError> {
    let gates = results.gates_of(subject)?;
    if gates.is_empty() {
        return Ok(None);
    }
    let (mut passed, mut warned, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut figures = Map::new();
    for gate in gates {
        let list = match (gate.passed, gate.verdict.as_str()) {
            (true, "passed") => &mut passed,
            (true, _) => &mut warned,
            (false, _) => &mut failed,
        };
        list.push(gate.name());
        figures.insert(gate.name(), gate.figures());
    }
    failed.extend(results.without_result().map(str::to_owned));
    let result = match (failed.is_empty(), warned.is_empty()) {
        (false, _) => "FAILED",
        (true, false) => "WARNED",
        (true, true) => "PASSED",
    };
    let of_run = || Resource::file(format!("result of {}", results.run.recipe), &results.sha256);
    let configuration = recipe.cloned().unwrap_or_else(of_run).annotated(Value::Object(figures));
    Ok(Some(json!({
        "result": result,
        "configuration": [configuration],
        "passedTests": passed,
        "warnedTests": warned,
        "failedTests": failed,
    })))
}
