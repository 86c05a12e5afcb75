//! The report of `slmc quantize`: every matrix with its scheme and error, sizes, calibration, and how `auto` chose.

use crate::allocate::report::AllocationReport;
use crate::model::size::WeightSize;
use crate::model::transform::NmPattern;
use crate::quantize::MatrixReport;
use crate::quantize::calibration_check::CalibrationCheck;
use crate::quantize::equalize::Equalized;
use crate::quantize::input_width::InputWidth;
use crate::quantize::method::Method;
use crate::quantize::tune::Judged;
use crate::report::{Align, Report, Table, grouped};
use crate::text::file::{ReadNotes, rows_of_files};
use crate::train::report::TrainReport;
use serde::Serialize;

/// Result of `slmc quantize`.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizeReport {
    /// Where schemes come from, by its name.
    pub scheme: &'static str,
    /// Exceptions.
    pub keep: Vec<String>,
    /// Widths of inputs other than 8 bits, as asked for or as measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub activations: Vec<String>,
    /// Width measured where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_width: Option<InputWidth>,
    /// `rtn`, `search`, `gptq`, or `qat`.
    pub method: &'static str,
    /// Target whose packing the sizes are for.
    pub target: String,
    /// Description of the calibration text.
    pub calibration: String,
    /// Tokens of the calibration.
    pub calibration_tokens: u64,
    /// Sequences of the calibration.
    pub calibration_sequences: u64,
    /// The calibration file, and the changes of reading it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_read: Vec<ReadNotes>,
    /// Sizes.
    #[serde(flatten)]
    pub size: WeightSize,
    /// How `auto` chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationReport>,
    /// Comparison of the named calibration text with plain rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_check: Option<CalibrationCheck>,
    /// Result of tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Judged>,
    /// Training report of tuning, or of quantization-aware training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainReport>,
    /// Where outliers were moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub equalized: Vec<Equalized>,
    /// Every matrix.
    pub matrices: Vec<MatrixReport>,
}

impl Report for QuantizeReport {
    const SCHEMA: &'static str = "slmc.quantize/1";

    fn text(&self) -> String {
        let (left, sparse) = (Align::Left, self.matrices.iter().any(|matrix| matrix.sparsity.is_some()));
        let sparsity = if sparse { "sparsity" } else { "" };
        let notes = if self.matrices.iter().any(|matrix| matrix.note().is_some()) { "notes" } else { "" };
        let mut table = Table::new([
            ("matrix", left),
            ("scheme", left),
            ("relative error", Align::Right),
            (sparsity, left),
            (notes, left),
        ]);
        for matrix in &self.matrices {
            let compressed = |text: &String| text.parse().is_ok_and(NmPattern::is_two_of_four);
            let sparsity = match &matrix.sparsity {
                Some(pattern) if compressed(pattern) => format!("{pattern}, compressed"),
                Some(pattern) => format!("{pattern}, stored dense"),
                None => String::new(),
            };
            let scheme = match &matrix.activations {
                Some(width) => format!("{} {width}", matrix.scheme),
                None => matrix.scheme.clone(),
            };
            let note = matrix.note().unwrap_or_default();
            table.row([matrix.name.as_str(), &scheme, &format!("{:.2e}", matrix.relative_error), &sparsity, &note]);
        }
        let mut sums = Table::pairs();
        sums.row(["method", self.method]);
        let kept: Vec<&MatrixReport> = self.matrices.iter().filter(|matrix| matrix.method == Method::Keep).collect();
        if !kept.is_empty() {
            let lost = kept.iter().fold(0f64, |most, matrix| most.max(matrix.relative_error));
            let (kept, all) = (kept.len(), self.matrices.len());
            sums.row(["kept", &format!("integers of {kept} of {all} matrices; their scales lose up to {lost:.1e}")]);
        }
        sums.row(["calibration", &self.calibration]);
        sums.row(["calibration_tokens", &grouped(self.calibration_tokens)]);
        rows_of_files(&self.files_read, &mut sums);
        if let Some(CalibrationCheck { calibrated, plain, kept_plain }) = self.calibration_check {
            let kept = if kept_plain { "; plain rounding is kept" } else { "" };
            let compared = format!("{calibrated:.3e}, plain rounding {plain:.3e}{kept}");
            sums.row(["divergence on other text", &compared]);
        }
        if let Some(InputWidth { bits, error_of_8_bits, tokens }) = self.input_width {
            let measured = format!("8 would err {error_of_8_bits:.1e} in the outputs, on {tokens} tokens");
            sums.row(["input bits", &format!("{bits}: {measured}")]);
        }
        if let Some(training) = &self.training {
            sums.row(["trained on", &format!("{} tokens, loss {:.4}", grouped(training.tokens), training.loss)]);
            rows_of_files(&training.files_read, &mut sums);
        }
        if let Some(Judged { before, after, taken }) = self.tuning {
            let kept = if taken { "" } else { "; kept as rounded" };
            sums.row([
                "tuned",
                &format!("divergence of the weights {before:.3e} to {after:.3e} on held-out samples{kept}"),
            ]);
        }
        for place in &self.equalized {
            let Equalized { name, error_before, error_after, largest_factor } = place;
            sums.row([
                "equalized",
                &format!(
                    "{name}: output error {error_before:.2e} to {error_after:.2e}, factors up to {largest_factor}"
                ),
            ]);
        }
        sums.row(["weight_bytes", &grouped(self.size.weight_bytes)]);
        sums.row(["parameters", &grouped(self.size.parameters)]);
        sums.row(["bits_per_weight", &format!("{:.3}", self.size.bits_per_weight)]);
        match &self.allocation {
            None => format!("{table}\n\n{sums}"),
            Some(allocation) => format!("{}\n\n{table}\n\n{sums}", allocation.text()),
        }
    }
}
