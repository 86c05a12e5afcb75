//! The report of `slmc prune`: every matrix with the energy that it lost, and sums.

use crate::prune::MatrixReport;
use crate::prune::order::Ordered;
use crate::report::{Align, Report, Table, grouped};
use crate::text::file::{ReadNotes, rows_of_files};
use crate::train::report::TrainReport;
use serde::Serialize;

/// Result of `slmc prune`.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// `2:4`.
    pub pattern: String,
    /// `magnitude`, `wanda` or `sparsegpt`.
    pub method: &'static str,
    /// Whether the remaining weights were refitted.
    pub refit: bool,
    /// Networks whose channels were put into another order, and what their last matrices lose before and after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Ordered>,
    /// The selection.
    pub only: Vec<String>,
    /// Whether artifacts hold matrices of this pattern compressed; others take the bytes of dense ones.
    pub compressed_in_artifacts: bool,
    /// Description of the calibration text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Tokens of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_tokens: Option<u64>,
    /// Linears that were selected and stayed dense, since pruning them would have missed more than was allowed.
    pub left_dense: u64,
    /// Weights of the pruned matrices.
    pub weights: u64,
    /// Weights that were zero before.
    pub zeros_before: u64,
    /// Weights that are zero now.
    pub zeros_after: u64,
    /// The calibration file, and the changes of reading it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_read: Vec<ReadNotes>,
    /// Training report of the recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainReport>,
    /// Every matrix that was pruned.
    pub matrices: Vec<MatrixReport>,
}

impl Report for PruneReport {
    const SCHEMA: &'static str = "slmc.prune/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("matrix", Align::Left),
            ("shape", right),
            ("zeros before", right),
            ("zeros after", right),
            ("energy removed", right),
            ("weighted", right),
            ("output missed", right),
            ("dense w4 misses", right),
            ("", Align::Left),
        ]);
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        for matrix in &self.matrices {
            table.row([
                &matrix.id.to_string(),
                &format!("{} x {}", matrix.rows, matrix.columns),
                &grouped(matrix.zeros_before),
                &grouped(matrix.zeros_after),
                &percent(matrix.energy_removed),
                &matrix.weighted_energy_removed.map_or_else(|| "-".to_owned(), percent),
                &matrix.output_error.map_or_else(|| "-".to_owned(), percent),
                &percent(matrix.dense_error),
                matrix.fallback.as_deref().unwrap_or(if matrix.left_dense { "left dense" } else { "" }),
            ]);
        }
        let mut sums = Table::pairs();
        let refitted = if self.refit { ", what stays fitted anew" } else { "" };
        sums.row(["pattern", &format!("{} by {}{refitted}", self.pattern, self.method)]);
        if let (Some(calibration), Some(tokens)) = (&self.calibration, self.calibration_tokens) {
            sums.row(["calibration", &format!("{calibration}, {} tokens", grouped(tokens))]);
        }
        rows_of_files(&self.files_read, &mut sums);
        if !self.orders.is_empty() {
            let networks = self.orders.len() as f64;
            let mean = |share: fn(&Ordered) -> f64| percent(self.orders.iter().map(share).sum::<f64>() / networks);
            let (before, after) = (mean(|order| order.removed_before), mean(|order| order.removed_after));
            sums.row(["channels reordered", &format!("energy removed from ffn.down {after} instead of {before}")]);
        }
        sums.row(["weights", &grouped(self.weights)]);
        sums.row(["zeros", &format!("{}, {} before", grouped(self.zeros_after), grouped(self.zeros_before))]);
        if let Some(training) = &self.training {
            sums.row(["recovered on", &format!("{} tokens, loss {:.4}", grouped(training.tokens), training.loss)]);
            rows_of_files(&training.files_read, &mut sums);
        }
        let stored =
            if self.compressed_in_artifacts { "compressed" } else { "as dense matrices: only 2:4 is compressed" };
        sums.row(["in artifacts", stored]);
        if self.compressed_in_artifacts {
            let better = self.matrices.iter().filter(|matrix| matrix.missed() < matrix.dense_error).count();
            sums.row([
                "beside dense",
                &format!(
                    "dense w4 takes 4.25 bits a weight, 2:4 5 (8-bit values) or 3.25 (4-bit); 2:4 misses less in {better} of {}",
                    self.matrices.len()
                ),
            ]);
        }
        format!("{table}\n\n{sums}")
    }
}
