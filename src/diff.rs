//! `slmc diff`: two artifacts, model directories, recipes, locks or reports, by what they say: settings, sizes, schemes,
//! metrics, texts. Each side is read into one JSON value, and the values are compared key by key; lists of things with
//! names are compared by these. Of two directories with the same matrices the weights are compared too:
//!
//! ```text
//! relative difference of a matrix = Σ (a − b)² / Σ a²
//! ```

mod compare;
mod side;

pub use compare::Difference;
pub use side::DiffError;

use crate::report::{Align, Report, Table, visible};
use serde::Serialize;
use serde_json::Value;
use side::Side;
use std::path::Path;

/// Longest value in a table; JSON has all of it.
const MOST_CHARACTERS: usize = 48;

/// How far a matrix of one model is from the other's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MatrixDifference {
    /// Such as `layers.2.ffn.down.weight`.
    pub name: String,
    /// Σ (a − b)² / Σ a².
    pub relative: f64,
}

/// Result of `slmc diff`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffReport {
    /// The first path.
    pub a: String,
    /// The second path.
    pub b: String,
    /// Whether nothing differs.
    pub same: bool,
    /// In the order of the first, then what only the second has.
    pub differences: Vec<Difference>,
    /// Matrices that differ, in forward order; absent where the sides have no weights to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrices: Option<Vec<MatrixDifference>>,
}

impl Report for DiffReport {
    const SCHEMA: &'static str = "slmc.diff/1";

    fn text(&self) -> String {
        if self.same {
            return format!("{} and {} say the same", self.a, self.b);
        }
        let mut table =
            Table::new([("", Align::Left), ("A", Align::Right), ("B", Align::Right), ("change", Align::Right)]);
        for difference in &self.differences {
            let [a, b] = [&difference.a, &difference.b].map(|value| shown(value.as_ref()));
            table.row([difference.path.clone(), a, b, change(difference)]);
        }
        let mut text = format!("A  {}\nB  {}\n\n{table}", self.a, self.b);
        let matrices = self.matrices.iter().flatten();
        let mut table = Table::new([("matrix", Align::Left), ("relative difference", Align::Right)]);
        for matrix in matrices {
            table.row([matrix.name.clone(), format!("{:.4e}", matrix.relative)]);
        }
        if !table.is_empty() {
            text = format!("{text}\n\n{table}");
        }
        text
    }
}

/// Compares two paths.
///
/// # Errors
/// [`DiffError`]: a path that cannot be read, two sides that are not of one kind.
pub fn diff(a: &Path, b: &Path) -> Result<DiffReport, DiffError> {
    let (first, second) = (Side::read(a)?, Side::read(b)?);
    if first.kind != second.kind {
        let (a, b) = (a.to_owned(), b.to_owned());
        return Err(DiffError::Kinds { a, b, first: first.kind, second: second.kind });
    }
    let differences = compare::compare(&first.value, &second.value);
    let matrices = match (&first.model, &second.model) {
        (Some(own), Some(other)) => Some(side::matrices(own, other)?),
        _ => None,
    };
    let same = differences.is_empty() && matrices.as_ref().is_none_or(Vec::is_empty);
    Ok(DiffReport { a: a.display().to_string(), b: b.display().to_string(), same, differences, matrices })
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => return "-".to_owned(),
        Some(Value::String(text)) => visible(text).replace(['\n', '\t'], " "),
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// By how much a number changed, in parts of it.
fn change(difference: &Difference) -> String {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    match (number(&difference.a), number(&difference.b)) {
        (Some(a), Some(b)) if a != 0.0 => format!("{:+.2} %", 100.0 * (b - a) / a.abs()),
        _ => String::new(),
    }
}
