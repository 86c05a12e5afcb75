//! Retrains a changed model towards the original, which is the teacher on the same data; a transform holds the change.
//! Sparse recovery and quantization-aware training are settings of it.

use super::data::Samples;
use super::error::TrainError;
use super::report::TrainReport;
use super::scope::Scope;
use super::settings::Settings;
use super::student::{LayerError, hidden_pairs};
use super::trainer::{Run, Teacher, Trained};
use crate::model::forward::DenseWeights;
use crate::model::id::ParameterId;
use crate::model::transform::Transform;
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::workers::TrainingDevices;
use std::collections::BTreeMap;
use std::path::Path;

/// Why a model was not retrained.
#[derive(Debug, thiserror::Error)]
pub enum RetrainError {
    /// The weights cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The layers do not match.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// The training run stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// A retraining run.
pub struct Retraining<'r> {
    /// The model before the change.
    pub model: &'r Model,
    /// Initial values of the trained parameters.
    pub start: BTreeMap<ParameterId, Vec<f32>>,
    /// The data.
    pub samples: &'r Samples,
    /// The run.
    pub settings: &'r Settings,
    /// Fingerprint of settings and inputs.
    pub fingerprint: String,
    /// Where the output will be.
    pub out: &'r Path,
}

/// The values of a model, as initial values.
///
/// # Errors
/// Values that cannot be read.
pub fn values_of(model: &Model) -> Result<BTreeMap<ParameterId, Vec<f32>>, ModelError> {
    model.parameters.keys().map(|id| Ok((*id, model.values_f32(*id)?))).collect()
}

impl Retraining<'_> {
    /// Trains through `transform`; the checkpoint stays until [`super::checkpoint::forget`].
    pub fn run(
        self,
        transform: &dyn Transform,
        devices: &TrainingDevices,
        progress: &dyn Progress,
    ) -> Result<(Trained, TrainReport), RetrainError> {
        let model = self.model;
        let weights = match self.settings.loss.needs_teacher() {
            true => Some(DenseWeights::new(model, &devices.device)?),
            false => None,
        };
        let layers = model.spec.layers.len();
        let pairs = hidden_pairs(layers, layers, None)?;
        let scope = Scope::default();
        let settings = self.settings.for_model(&model.spec);
        let run = Run {
            spec: &model.spec,
            settings: &settings,
            scope: &scope,
            privacy: None,
            samples: self.samples,
            teachers: weights
                .iter()
                .map(|weights| Teacher {
                    spec: &model.spec,
                    weights,
                    pairs: pairs.clone(),
                    part: 1.0,
                    projections: Vec::new(),
                })
                .collect(),
            shared_tokens: None,
            cache: None,
            device: &devices.device,
            workers: devices.workers.as_ref(),
            out: self.out,
            fingerprint: self.fingerprint.clone(),
            max_ram: None,
            read_bytes: 0,
            on_policy: None,
        };
        let trained = run.train(self.start, transform, progress)?;
        let report = TrainReport::of(&run, &trained);
        Ok((trained, report))
    }
}
