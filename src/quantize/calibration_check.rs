//! Whether a calibration text that a user named was worth following. A text that spans few directions (one word, a handful
//! of sequences, another language) makes GPTQ fit those and spoil the rest. So the rounded model and plain rounding are both
//! compared with the original on text that was not calibrated with: the model's own samples for decoders, the text that
//! ships with slmc for encoders. The nearer of the two is kept.

use super::calibration::{CalibrationText, independent_text};
use super::error::{CalibrationError, RoundingError};
use crate::calibrate::probe::{Probe, ProbeError};
use crate::divergence::mean_and_error;
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::Device;
use serde::Serialize;

/// Divergences from the original on independent text, weights alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CalibrationCheck {
    /// As rounded by the calibration.
    pub calibrated: f64,
    /// As rounded to nearest on searched scales, without calibration.
    pub plain: f64,
    /// Whether plain rounding is what was kept.
    pub kept_plain: bool,
}

/// How much farther from the original the calibrated model may be before plain rounding is kept: two thousand predictions
/// tell no smaller difference, and a text of the user's own field may cost a little elsewhere.
const MARGIN: f64 = 1.05;

/// Sequences that both are compared on.
const SEQUENCES: usize = 8;

/// Compares the two roundings of a model; `None` where the calibration was not a text that a user named, or where there is
/// no other text to compare on.
///
/// # Errors
/// [`RoundingError`].
pub fn check(
    original: &Model,
    calibrated: &Model,
    plain: impl FnOnce() -> Result<Model, CalibrationError>,
    source: &CalibrationText,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Option<(CalibrationCheck, Model)>, RoundingError> {
    let (CalibrationText::File { path, .. } | CalibrationText::Mixed { path, .. }) = source else { return Ok(None) };
    let text = independent_text(original, SEQUENCES, progress)?;
    if text.is_empty() {
        return Ok(None);
    }
    let plain = plain()?;
    progress.begin("comparing with plain rounding", 3, "models");
    let probe = Probe::new(original, &text, device)?;
    progress.advance(1);
    let divergence = |model: &Model| {
        let found = mean_and_error(&probe.model(model)?).0;
        progress.advance(1);
        Ok::<_, ProbeError>(found)
    };
    let (with, without) = (divergence(calibrated)?, divergence(&plain)?);
    progress.finish();
    let check = CalibrationCheck { calibrated: with, plain: without, kept_plain: with > MARGIN * without };
    if check.kept_plain {
        progress.warn(&format_args!(
            "{}: this calibration text makes the model worse than plain rounding does ({} {with:.3e} against {without:.3e} on \
             other text); plain rounding is kept: pass a longer or more varied --calibration, or none",
            path.display(),
            probe.unit(),
        ));
    }
    Ok(Some((check, plain)))
}
