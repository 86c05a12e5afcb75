//! Answers of a classifier that are kept, and texts that are asked elsewhere: the calibration error of its confidence, what a
//! bound keeps, and the curve of accuracy against the share that is kept ([`crate::confidence`]).

use crate::confidence::{Answer, Kept, calibration_error, curve, kept};
use crate::report::{Align, Table};
use serde::Serialize;

/// How sure a classifier is, and what its answers are worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfidenceMetrics {
    /// ECE over 15 bins of equally many texts.
    pub calibration_error: f64,
    /// The bound that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_below: Option<f32>,
    /// Share of all texts that are answered there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_share: Option<f64>,
    /// Share of those answers that are right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_accuracy: Option<f64>,
    /// What rising bounds keep.
    pub kept_curve: Vec<Kept>,
}

impl ConfidenceMetrics {
    /// Of answers, with the bound that was asked for.
    pub fn of(answers: &[Answer], route_below: Option<f32>) -> Self {
        let at = route_below.map(|bound| kept(answers, bound));
        ConfidenceMetrics {
            calibration_error: calibration_error(answers),
            route_below,
            kept_share: at.map(|at| at.share),
            kept_accuracy: at.and_then(|at| at.accuracy),
            kept_curve: curve(answers),
        }
    }

    /// Rows of the report.
    pub fn rows(&self, table: &mut Table) {
        table.row(["calibration_error", &format!("{:.4}", self.calibration_error)]);
        if let (Some(bound), Some(share)) = (self.route_below, self.kept_share) {
            let accuracy = self.kept_accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.4}"));
            table.row(["kept", &format!("{:.1} % at p from {bound}, accuracy {accuracy}", 100.0 * share)]);
        }
    }

    /// The curve as lines of text, every other point.
    pub fn table(&self) -> String {
        let mut table =
            Table::new([("p from", Align::Right), ("share kept", Align::Right), ("accuracy", Align::Right)]);
        for point in self.kept_curve.iter().step_by(2) {
            table.row([
                format!("{:.4}", point.confidence),
                format!("{:.3}", point.share),
                point.accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.4}")),
            ]);
        }
        table.to_string()
    }
}
