//! What `slmc quantize` is asked for once everything was checked, what of it decides the integers, and what can go wrong.

use crate::allocate::error::AllocationError;
use crate::calibrate::CalibrateError;
use crate::disk::ConfigError;
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::formats::ModelFormatError;
use crate::machine::{cpu_features, tool};
use crate::model::size::SizeError;
use crate::model::weights::ModelError;
use crate::quantize::calibration::CalibrationText;
use crate::quantize::error::{CalibrationError, RoundingError};
use crate::quantize::method::Method;
use crate::quantize::policy::{Activations, Keep, Mix, PolicyError};
use crate::quantize::training_data::Retrain;
use crate::stages::provenance::Inputs;
use crate::text::chat_template::ChatTemplateError;
use crate::text::tokenizer::TokenizerError;
use crate::train;
use burn::tensor::Device;
use serde_json::json;
use slm_runtime::layout::Layout;
use std::path::PathBuf;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dense directory.
    pub model: PathBuf,
    /// Where to.
    pub out: PathBuf,
    /// Mix of schemes.
    pub mix: Mix,
    /// Exceptions from it, the last match winning.
    pub keeps: Vec<Keep>,
    /// Linears whose inputs are wider than 8 bits on a device, the last match winning.
    pub activations: Vec<Activations>,
    /// Whether outliers are moved from inputs into weights where the graph allows it.
    pub equalize: bool,
    /// How integers are found.
    pub method: Method,
    /// What to calibrate with; `rtn` needs nothing.
    pub source: CalibrationText,
    /// Of the draws of an allocation.
    pub seed: u64,
    /// Tokens of it.
    pub calibration_tokens: usize,
    /// Name of the target whose packing the sizes are for.
    pub target: String,
    /// Its layout.
    pub layout: Layout,
    /// Tokens per token of the calibration that tune what gptq has rounded; by
    /// [`crate::quantize::training_data::default_tuning`] if absent.
    pub tune: Option<usize>,
    /// Training on the grid, where it is asked for; it takes the place of tuning.
    pub qat: Option<Retrain>,
}

/// Why nothing was quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The input holds integers already.
    #[error("{}: is already quantized; quantize the dense checkpoint it was made from", path.display())]
    AlreadyQuantized {
        /// The input.
        path: PathBuf,
    },
    /// Of the input's slmc.json.
    #[error(transparent)]
    Provenance(#[from] ConfigError),
    /// Of the model's files.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// Of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of the schemes.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Of the allocation.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Of the sizes.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The text to calibrate with, or to train on.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Rounding, equalising or tuning failed.
    #[error(transparent)]
    Rounding(#[from] RoundingError),
    /// Of the calibration run.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Of the output path.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Of the inputs' hashes.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The chat template is refused.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of what an interrupted run has left.
    #[error(transparent)]
    Kept(#[from] train::checkpoint::CheckpointError),
}

impl Options {
    /// What decides the integers of a run.
    pub(super) fn identity(&self, device: &Device) -> Result<serde_json::Value, HashError> {
        Ok(json!({
            "tool": tool(),
            "stage": "quantize",
            "method": self.method.name(),
            "inputs": self.inputs()?.json(),
            "scheme": format!("{:?}", self.mix),
            "keep": self.keeps.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "equalize": self.equalize,
            "activations": self.activations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "target": [self.target.as_str(), self.layout.name()],
            "seed": self.seed,
            "calibration": format!("{:?}", self.source),
            "calibration_tokens": self.calibration_tokens,
            "tune": self.tune,
            "qat": self.qat.as_ref().map(|qat| qat.identity(device)),
            "device": format!("{device:?}"),
            "cpu_features": cpu_features(),
        }))
    }

    /// Everything read.
    pub(super) fn inputs(&self) -> Result<Inputs, HashError> {
        let calibration = match &self.source {
            CalibrationText::File { path, .. } | CalibrationText::Mixed { path, .. } => Some(path),
            CalibrationText::Default { .. } => None,
        };
        let data = self.qat.iter().flat_map(|qat| &qat.data).flat_map(|data| &data.files);
        Inputs::default().model("model", &self.model)?.files("calibration", calibration)?.files("data", data)
    }
}
