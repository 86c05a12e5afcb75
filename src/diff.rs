//! `slmc diff`: two artifacts, model directories, recipes, locks or reports, by what they say: settings, sizes, schemes,
//! metrics, texts. Each side is read into one JSON value, and the values are compared key by key; lists of things with
//! names are compared by these. Of two directories with the same matrices the weights are compared too:
//!
//! ```text
//! relative difference of a matrix = Σ (a − b)² / Σ a²
//! ```

mod compare;
mod lines;
mod side;

pub use compare::Difference;
pub use side::DiffError;

use crate::report::{Align, Report, Table};
use serde::Serialize;
use side::Side;
use std::path::Path;

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
        for line in lines::lines(&self.differences) {
            table.row(line);
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
