//! The checked options of `slmc quantize`, and the fingerprint of those that decide the integers.

use crate::disk::hash::HashError;
use crate::machine::tool;
use crate::quantize::Scales;
use crate::quantize::calibration::CalibrationText;
use crate::quantize::method::Method;
use crate::quantize::policy::{Activations, Keep, SchemeSource};
use crate::quantize::training_data::Retrain;
use crate::stages::backend::by_workers;
use crate::stages::invocation::Invocation;
use crate::stages::numerics::{Foreign, class_of};
use crate::stages::provenance::Inputs;
use crate::target::Target;
use crate::workers::TrainingDevices;
use serde_json::json;
use std::path::PathBuf;

/// The choice of schemes by measurement.
pub(super) const AUTO: Foreign =
    Foreign { by: "the choice of schemes by measurement", remedy: "name a scheme, with --keep for exceptions" };

/// Options of `slmc quantize`, checked.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// Dense directory.
    pub model: PathBuf,
    /// Directory to write.
    pub out: PathBuf,
    /// Where schemes come from.
    pub schemes: SchemeSource,
    /// Exceptions from it, the last match winning.
    pub keeps: Vec<Keep>,
    /// Linears whose inputs are wider than 8 bits on a device, the last match winning.
    pub activations: Vec<Activations>,
    /// Whether outliers are moved from inputs into weights where the graph allows it.
    pub equalize: bool,
    /// Solver for the integers.
    pub method: Method,
    /// Whether products of row scales and multipliers are halves.
    pub exact_f16: bool,
    /// Calibration text; `rtn` reads none.
    pub source: CalibrationText,
    /// Seed of an allocation's draws.
    pub seed: u64,
    /// Tokens of the calibration.
    pub calibration_tokens: usize,
    /// The target whose packing the sizes are for.
    pub target: Target,
    /// Tokens per token of the calibration for tuning after gptq; by
    /// [`crate::quantize::training_data::default_tuning`] if absent.
    pub tune: Option<usize>,
    /// Training on the grid, where it is asked for; it takes the place of tuning.
    pub qat: Option<Retrain>,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

impl QuantizeOptions {
    /// The part of the work whose bits may depend on the CPU: gradients of bare encoders go by burn's own operations, and the
    /// rest of the search was not compared between CPUs yet.
    fn foreign_part(&self) -> Option<Foreign> {
        matches!(self.schemes, SchemeSource::Auto(_)).then_some(AUTO)
    }

    /// Row scales that there are.
    pub(super) fn scales(&self) -> Scales {
        if self.exact_f16 { Scales::Half } else { Scales::Any }
    }

    /// The class of the result.
    pub(super) fn class(&self, devices: &TrainingDevices) -> &'static str {
        class_of(&devices.device, self.foreign_part().or(by_workers(devices)))
    }

    /// Everything that decides the integers of a run.
    pub(super) fn identity(&self, devices: &TrainingDevices) -> Result<serde_json::Value, HashError> {
        let mut identity = json!({
            "tool": tool(),
            "stage": "quantize",
            "method": self.method.name(),
            "inputs": self.inputs()?.json(),
            "scheme": format!("{:?}", self.schemes),
            "keep": self.keeps.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "equalize": self.equalize,
            "activations": self.activations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "target": self.target,
            "seed": self.seed,
            "calibration": format!("{:?}", self.source),
            "calibration_tokens": self.calibration_tokens,
            "tune": self.tune,
            "qat": self.qat.as_ref().map(|qat| qat.identity(devices.kind())),
            "device": devices.kind().to_string(),
            "numerics": self.class(devices),
        });
        if self.exact_f16 {
            identity["exact_f16"] = json!(true);
        }
        Ok(identity)
    }

    /// Everything read.
    pub(super) fn inputs(&self) -> Result<Inputs, HashError> {
        let calibration = match &self.source {
            CalibrationText::File { path, .. } | CalibrationText::Mixed { path, .. } => Some(path),
            CalibrationText::Default { .. } => None,
        };
        let data = self.qat.iter().flat_map(|qat| &qat.data).flat_map(|data| &data.files);
        Inputs::default().made("model", &self.model)?.files("calibration", calibration)?.files("data", data)
    }
}
