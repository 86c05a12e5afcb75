//! The samples that a changed model is trained back on: files, or samples of the model before the change.

use super::calibration::Calibration;
use super::error::CalibrationError;
use super::method::Method;
use crate::calibrate::samples::sample;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::text::tokenizer::Tokenizer;
use crate::train::data::Samples;
use crate::train::loss::table::{LossKind, LossWeights};
use crate::train::samples::{Data, ReadSamples, TrainTask, own_task, read};
use crate::train::settings::Settings;
use crate::workers::Kind;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Training after a change.
#[derive(Clone, Debug)]
pub struct Retrain {
    /// Files, or samples of the model itself if absent.
    pub data: Option<Data>,
    /// The task; that of the model if absent.
    pub task: Option<TrainTask>,
    /// The run.
    pub settings: Settings,
    /// What of the settings was not given, and follows from the divergence.
    pub follows: Follows,
    /// File for one JSON line per step.
    pub metrics: Option<PathBuf>,
}

impl Retrain {
    /// Everything of it that a run depends on besides the hashes of its files, for the fingerprint of checkpoints.
    pub fn identity(&self, kind: Kind<'_>) -> Value {
        json!({
            "settings": self.settings,
            "follows": self.follows,
            "own_samples": self.data.is_none(),
            "form": self.data.as_ref().map(|data| format!("{:?}", data.form)),
            "label_field": self.data.as_ref().map(|data| data.label_field.as_str()),
            "device": kind.to_string(),
        })
    }
}

/// Which settings are for a model that is [far](super::tune::FAR) from the original, and become less for one that is nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Follows {
    /// The learning rate.
    pub rate: bool,
    /// The number of tokens.
    pub tokens: bool,
}

/// The samples that a rounded model is trained on, and the settings.
pub struct Training {
    /// Texts, with the files they come from.
    pub samples: ReadSamples,
    /// The run.
    pub settings: Settings,
    /// Which of them follow from the divergence on the held-out texts.
    pub follows: Follows,
    /// Texts that the result is judged by, and not trained on; none for `--qat` with a given rate and number of tokens, which is
    /// taken as it was asked for.
    pub held_out: Vec<Vec<u32>>,
}

/// Own samples that join a decoder's calibration in tuning, in tokens per token of it: a model small enough to be tuned
/// would learn a calibration of the usual length by heart.
const OWN_SAMPLES: usize = 3;
/// Sequences that tuning is judged by: of a decoder's own samples, of an encoder's calibration, of which at most a quarter.
const HELD_OUT: usize = 16;
/// Tokens trained on where nothing is said, per token of the calibration.
const TOKENS: usize = 16;
/// Tokens of a step, about.
pub const TOKENS_OF_STEP: f64 = 2048.0;
/// Parameters up to which it is done by itself: minutes on two cores.
const TUNED_PARAMETERS: u64 = 32_000_000;

/// Tokens per token of the calibration by which a model is tuned unless something else is said: others than small ones
/// would take hours, and encoders, which cannot sample from themselves, gain little from their calibration alone.
pub fn default_tuning(spec: &ModelSpec) -> usize {
    let small = spec.parameter_count() <= TUNED_PARAMETERS;
    if small && spec.kind == ModelKind::Decoder { TOKENS } else { 0 }
}

impl Training {
    /// The training that is asked for: by `--qat`, or tuning on the calibration after gptq.
    ///
    /// # Errors
    /// [`CalibrationError`].
    pub fn of(
        (method, tune, qat): (Method, Option<usize>, Option<&Retrain>),
        seed: u64,
        model: &Model,
        calibration: &Calibration,
        progress: &dyn Progress,
    ) -> Result<Option<Self>, CalibrationError> {
        if let Some(qat) = qat {
            let mut samples = training_samples(model, qat, progress)?;
            let held_out = match (qat.follows == Follows::default(), &mut samples.samples) {
                (false, Samples::Causal(texts)) => texts.split_off(texts.len() - HELD_OUT.min(texts.len() / 4)),
                // Texts with labels, answers and hidden tokens are not what the divergence is measured on.
                _ => Vec::new(),
            };
            let (mut settings, follows) = (qat.settings.clone(), qat.follows);
            if follows.rate {
                // Fewer steps go as far with larger ones.
                let fewer = Settings::QAT.tokens as f64 / settings.tokens as f64;
                settings.learning_rate = (settings.learning_rate * fewer.sqrt()).min(Settings::TUNE.learning_rate);
            }
            return Ok(Some(Training { samples, settings, follows, held_out }));
        }
        let spec = &model.spec;
        let times = tune.unwrap_or_else(|| default_tuning(spec));
        if method != Method::Gptq || times == 0 {
            return Ok(None);
        }
        let mut texts: Vec<Vec<u32>> = calibration.sequences.iter().filter(|text| text.len() > 1).cloned().collect();
        let held_out = match spec.kind {
            ModelKind::Decoder => {
                let window = Settings::TUNE.window.min(spec.context);
                // No more than are trained on.
                let times = OWN_SAMPLES.min(times.saturating_sub(1).max(1));
                let own = times * calibration.tokens() + HELD_OUT * window;
                let seed = seed.wrapping_add(FIRST_STREAM);
                let mut own = sample(model, own, window, seed, progress)?;
                let held_out = own.split_off(own.len().saturating_sub(HELD_OUT));
                texts.extend(own);
                held_out
            }
            ModelKind::Encoder | ModelKind::EncoderDecoder(_) => {
                texts.split_off(texts.len() - HELD_OUT.min(texts.len() / 4))
            }
        };
        let mut loss = LossWeights::RECOVER;
        if let Head::Hidden = spec.head {
            loss = LossWeights::NONE.with(LossKind::Hidden, 1.0);
        }
        let mean = texts.iter().map(Vec::len).sum::<usize>() as f64 / texts.len().max(1) as f64;
        let batch = (TOKENS_OF_STEP / mean.max(1.0)).ceil() as usize;
        let settings = Settings {
            tokens: (times as u64).saturating_mul(calibration.tokens() as u64),
            batch,
            pieces: Settings::TUNE.pieces.min(batch),
            seed,
            loss,
            ..Settings::TUNE
        };
        let samples = match spec.head {
            Head::LanguageModel { .. } => Samples::Causal(texts),
            _ => Samples::Compared(texts),
        };
        let follows = Follows { rate: true, tokens: false };
        Ok(Some(Training { samples: ReadSamples { samples, files: Vec::new() }, settings, follows, held_out }))
    }
}

/// Streams of training samples begin here, away from those of calibration.
const FIRST_STREAM: u64 = 1 << 32;

/// Samples for a model as it was before the change.
pub fn training_samples(
    model: &Model,
    retrain: &Retrain,
    progress: &dyn Progress,
) -> Result<ReadSamples, CalibrationError> {
    let settings = &retrain.settings;
    match &retrain.data {
        Some(data) => {
            let mut tokenizer = Tokenizer::of(&model.companions)?;
            tokenizer.check(model.spec.vocabulary)?;
            let task = retrain.task.unwrap_or_else(|| own_task(&model.spec));
            Ok(read(data, task, (&model.spec, &model.companions), &tokenizer, settings.window, progress)?)
        }
        None if model.spec.kind == ModelKind::Encoder => Err(CalibrationError::EncoderData),
        None => {
            let (tokens, seed) = (settings.tokens as usize, settings.seed.wrapping_add(FIRST_STREAM));
            let samples = Samples::Causal(sample(model, tokens, settings.window, seed, progress)?);
            Ok(ReadSamples { samples, files: Vec::new() })
        }
    }
}
