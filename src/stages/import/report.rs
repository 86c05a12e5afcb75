//! The report of `slmc import`: what the source held, and what was written.

use crate::formats::StorageRow;
use crate::report::{Report, Table, grouped};
use serde::Serialize;

/// Result of `slmc import`.
#[derive(Clone, Debug, Serialize)]
pub struct ImportReport {
    /// Format of the source.
    pub format: &'static str,
    /// `model_type`.
    pub family: &'static str,
    /// Data type that was written: `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Weights, a tied tensor once.
    pub parameters: u64,
    /// Their bytes.
    pub weight_bytes: u64,
    /// Whether the directory has a tokenizer.
    pub tokenizer: bool,
    /// How the source stored them; empty where the data type says it all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StorageRow>,
}

impl Report for ImportReport {
    const SCHEMA: &'static str = "slmc.import/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["format", self.format]);
        facts.row(["model", &format!("{}, {} parameters", self.family, grouped(self.parameters))]);
        facts.row(["written as", &format!("{}, {} bytes", self.dtype, grouped(self.weight_bytes))]);
        facts.row(["tokenizer", if self.tokenizer { "rebuilt or taken along" } else { "none" }]);
        match StorageRow::table(&self.stored) {
            Some(table) => format!("{facts}\n\n{table}"),
            None => facts.to_string(),
        }
    }
}
