//! The report of `slmc export`: what every class of tensors became, and what was lost.

use crate::formats::export::{ExportPlan, Kept, Loss, TargetRow};
use crate::report::{Report, Table, grouped};
use serde::Serialize;

/// Result of `slmc export`.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// Format that was written.
    pub format: &'static str,
    /// The way it was written, where the format has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<&'static str>,
    /// `model_type`.
    pub family: &'static str,
    /// Weights, a tied tensor once.
    pub parameters: u64,
    /// Bytes of the tensors.
    pub weight_bytes: u64,
    /// Bytes of the output on disk.
    pub file_bytes: u64,
    /// Tensors by class and type.
    pub tensors: Vec<TargetRow>,
    /// Largest relative change of a scale by the precision of the format; 0 where every product of integer and scale is what it
    /// was, absent where no scales are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_error: Option<f64>,
    /// What the model was made for and the output does not have.
    pub lost: Vec<Loss>,
    /// What is left out or added and changes nothing that the model computes.
    pub notes: Vec<String>,
}

impl Report for ExportReport {
    const SCHEMA: &'static str = "slmc.export/1";

    fn text(&self) -> String {
        let plan = ExportPlan { rows: self.tensors.clone(), ..ExportPlan::default() };
        let mut facts = Table::pairs();
        let variant = self.variant.map(|variant| format!(", {variant}")).unwrap_or_default();
        facts.row(["format", &format!("{}{variant}", self.format)]);
        facts.row(["model", &format!("{}, {} parameters", self.family, grouped(self.parameters))]);
        facts.row(["tensors", &format!("{} bytes", grouped(self.weight_bytes))]);
        facts.row(["output", &format!("{} bytes", grouped(self.file_bytes))]);
        if let Some(error) = self.scale_error {
            let said = match error {
                0.0 => "exact: products with integers are the same to the bit".to_owned(),
                error => format!("rounded, off by at most {:.2} %", 100.0 * error),
            };
            facts.row(["scales", &said]);
        } else if self.tensors.iter().all(|row| row.kept == Kept::Values) {
            facts.row(["values", "every one is the same to the bit"]);
        }
        for loss in &self.lost {
            facts.row(["lost", &loss.to_string()]);
        }
        for note in &self.notes {
            facts.row(["note", note]);
        }
        format!("{}\n\n{facts}", plan.table())
    }
}
