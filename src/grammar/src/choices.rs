//! Choices: a list of texts, one a line or a JSON list of strings, of which the output is one.

use crate::error::{GrammarError, Result};
use crate::syntax::Node;
use std::collections::BTreeSet;

/// The texts of a list: JSON where the first character is `[`, else lines; empty lines are passed over.
pub(crate) fn read(text: &str) -> Result<Node> {
    let refuse = |problem: String| GrammarError::Choices { problem };
    let choices: Vec<String> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| refuse(format!("not a JSON list of strings: {error}")))?
    } else {
        text.lines()
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    if choices.is_empty() {
        return Err(refuse("there are none".into()));
    }
    let mut seen = BTreeSet::new();
    for choice in &choices {
        if choice.is_empty() {
            return Err(refuse("one is empty".into()));
        }
        if !seen.insert(choice) {
            return Err(refuse(format!("`{choice}` is there twice")));
        }
    }
    Ok(Node::Either(choices.iter().map(|choice| Node::literal(choice)).collect()))
}
