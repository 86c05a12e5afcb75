//! What a changed model is trained back on: files, or samples of the model before the change.

use super::calibration::{CalibrationError, own_samples};
use crate::data::tokenizer::{Tokenizer, TokenizerError};
use crate::model::spec::ModelKind;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::train::data::Samples;
use crate::train::samples::{Data, SamplesError, TrainTask, own_task, read};
use crate::train::settings::Settings;
use burn::tensor::Device;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Training after a change.
#[derive(Clone, Debug)]
pub struct Retrain {
    /// Files, or samples of the model itself if absent.
    pub data: Option<Data>,
    /// What the model is for, if absent.
    pub task: Option<TrainTask>,
    /// The run.
    pub settings: Settings,
    /// File for one JSON line per step.
    pub metrics: Option<PathBuf>,
}

impl Retrain {
    /// What of it decides a run besides the hashes of its files, for the fingerprint of checkpoints.
    pub fn identity(&self, device: &Device) -> Value {
        json!({
            "settings": self.settings,
            "own_samples": self.data.is_none(),
            "field": self.data.as_ref().and_then(|data| data.field.as_deref()),
            "label_field": self.data.as_ref().map(|data| data.label_field.as_str()),
            "device": format!("{device:?}"),
        })
    }
}

/// Why there is nothing to train on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingDataError {
    /// Of the files.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of the samples.
    #[error(transparent)]
    Own(#[from] CalibrationError),
    /// Only decoders can sample.
    #[error("--data self lets a decoder sample from itself, and this model is an encoder; pass files")]
    Encoder,
}

/// Streams of training samples begin here, away from those of calibration.
const FIRST_STREAM: u64 = 1 << 32;

/// Samples for a model as it was before the change.
pub fn training_samples(
    model: &Model,
    retrain: &Retrain,
    progress: &dyn Progress,
) -> Result<Samples, TrainingDataError> {
    let settings = &retrain.settings;
    match &retrain.data {
        Some(data) => {
            let tokenizer = Tokenizer::open(&model.directory)?;
            tokenizer.check(model.spec.vocabulary)?;
            let task = retrain.task.unwrap_or_else(|| own_task(&model.spec));
            Ok(read(data, task, &model.spec, &tokenizer, settings.window)?)
        }
        None if model.spec.kind == ModelKind::Encoder => Err(TrainingDataError::Encoder),
        None => {
            let (tokens, seed) = (settings.tokens as usize, settings.seed.wrapping_add(FIRST_STREAM));
            Ok(Samples::Causal(own_samples(model, tokens, settings.window, seed, progress)?))
        }
    }
}
