//! The options that `train`, `distill`, `prune --recover` and `quantize --qat` share, as one struct.

use super::{ReadFile, TextOrSelf, WriteFile, path, paths};
use crate::model::spec::{ModelKind, ModelSpec};
use crate::quantize::error::CalibrationError;
use crate::quantize::training_data::Retrain;
use crate::stages::stage::{Faults, RunSettings};
use crate::train::samples::{Data, TrainTask};
use crate::train::settings::{LossWeights, Settings};
use anyhow::anyhow;

/// How to train.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Training options")]
pub struct TrainingArgs {
    /// Tokens to train on
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,

    /// Sequences per step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Tokens of a sequence, those it opens with included [default: 256, or the model's maximum]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Peak learning rate, reached after the warm-up; a cosine takes it down to a tenth
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// Share of the steps over which the rate rises
    #[arg(long, value_name = "SHARE")]
    warm_up: Option<f64>,

    /// Decay of matrices per step, times the rate
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,

    /// Largest norm of a step's gradient
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,

    /// Pieces a step is computed in, on as many threads as there are; part of the result, unlike --threads
    #[arg(long, value_name = "N")]
    pieces: Option<usize>,

    /// Steps between checkpoints
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,

    /// Weight of the cross entropy with the data's own targets
    #[arg(long, value_name = "WEIGHT")]
    ce: Option<f64>,

    /// Weight of the KL divergence from the teacher's distribution
    #[arg(long, value_name = "WEIGHT")]
    kl: Option<f64>,

    /// Temperature of both distributions in that divergence
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,

    /// Weight of the distance between hidden states of mapped layers
    #[arg(long, value_name = "WEIGHT")]
    hidden: Option<f64>,

    /// relative: divided by the teacher's norm; raw: plain mean square
    #[arg(long, value_name = "relative|raw", value_enum)]
    hidden_loss: Option<HiddenLoss>,

    /// Write one JSON line per step to FILE
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<WriteFile>,
}

/// What the distance between hidden states is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum HiddenLoss {
    Relative,
    Raw,
}

impl TrainingArgs {
    /// The first of these options that was given.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("tokens", self.tokens.is_some()),
            ("batch", self.batch.is_some()),
            ("window", self.window.is_some()),
            ("learning-rate", self.learning_rate.is_some()),
            ("warm-up", self.warm_up.is_some()),
            ("weight-decay", self.weight_decay.is_some()),
            ("clip", self.clip.is_some()),
            ("pieces", self.pieces.is_some()),
            ("checkpoint-every", self.checkpoint_every.is_some()),
            ("ce", self.ce.is_some()),
            ("kl", self.kl.is_some()),
            ("temperature", self.temperature.is_some()),
            ("hidden", self.hidden.is_some()),
            ("hidden-loss", self.hidden_loss.is_some()),
            ("metrics", self.metrics.is_some()),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// Settings with these options over `defaults`; the window never exceeds `context`.
    pub fn settings(&self, defaults: Settings, run: &RunSettings, context: usize) -> Settings {
        let batch = self.batch.unwrap_or(defaults.batch);
        Settings {
            tokens: self.tokens.unwrap_or(defaults.tokens),
            batch,
            window: self.window.unwrap_or(defaults.window.min(context)),
            pieces: self.pieces.unwrap_or(defaults.pieces.min(batch)),
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            warm_up: self.warm_up.unwrap_or(defaults.warm_up),
            final_rate: defaults.final_rate,
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            clip: self.clip.unwrap_or(defaults.clip),
            seed: run.seed,
            loss: LossWeights {
                cross_entropy: self.ce.unwrap_or(defaults.loss.cross_entropy),
                divergence: self.kl.unwrap_or(defaults.loss.divergence),
                temperature: self.temperature.unwrap_or(defaults.loss.temperature),
                hidden: self.hidden.unwrap_or(defaults.loss.hidden),
                hidden_raw: self.hidden_loss.map_or(defaults.loss.hidden_raw, |kind| kind == HiddenLoss::Raw),
            },
            checkpoint_every: self.checkpoint_every.unwrap_or(defaults.checkpoint_every),
        }
    }
}

/// What to train on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Data options")]
pub struct DataArgs {
    /// Text files; JSONL with --field, or with labels for --task classify
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<ReadFile>,

    /// Key of the text in every line of a JSONL file [default: text, for --task classify]
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Key of the label in every line of a JSONL file
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    /// What to learn [default: what the model is for]
    #[arg(long, value_name = "TASK", value_enum)]
    pub task: Option<TrainTask>,
}

impl DataArgs {
    /// As the library takes it.
    pub fn data(&self) -> Data {
        Data { files: paths(&self.data), field: self.field.clone(), label_field: self.label_field.clone() }
    }
}

/// What the options of a retraining are checked against.
#[derive(Clone, Copy)]
pub struct Switch<'s> {
    /// Whether there is training.
    pub on: bool,
    /// The option that asks for it.
    pub option: &'s str,
    /// `--field`.
    pub field: Option<&'s str>,
    /// Whether there is a text to calibrate with.
    pub calibrated: bool,
    /// The model, where it is known.
    pub spec: Option<&'s ModelSpec>,
}

/// Notes every setting that cannot be.
pub fn check_settings(settings: &Settings, faults: &mut Faults) {
    for error in settings.faults() {
        faults.add(option_of(error.key), error);
    }
}

/// The option that a setting is from.
fn option_of(setting: &'static str) -> &'static str {
    match setting {
        "learning_rate" => "learning-rate",
        "warm_up" => "warm-up",
        "weight_decay" => "weight-decay",
        "checkpoint_every" => "checkpoint-every",
        "cross_entropy" => "ce",
        "divergence" => "kl",
        "loss" => "",
        same => same,
    }
}

/// Training a changed model back, for `prune --recover` and `quantize --qat`.
#[derive(Clone, Debug, clap::Args)]
pub struct RetrainArgs {
    /// Text to train on: files, or `self` for samples of the model itself
    #[arg(long, value_name = "FILE|self", num_args = 1..)]
    data: Vec<TextOrSelf>,

    /// Key of the label in every line of a JSONL file, for a classifier
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    #[command(flatten)]
    training: TrainingArgs,
}

impl RetrainArgs {
    /// Whether the model is trained on its own samples.
    fn own_samples(&self) -> bool {
        matches!(&self.data[..], [text] if text.is_self())
    }

    /// Notes options that only mean something with `switch` (`--qat`, `--recover`), a key for text that is not read, settings
    /// that cannot be, and samples of a model that cannot make any.
    pub fn check(&self, asked: &Switch<'_>, settings: &Settings, faults: &mut Faults) {
        let Switch { on, option, field, calibrated, spec } = *asked;
        if !on && !self.data.is_empty() {
            faults.add("data", anyhow!("--data is what {option} trains on; add {option}, or leave it out"));
        }
        if self.data.len() > 1 && self.data.iter().any(TextOrSelf::is_self) {
            faults.add("data", anyhow!("--data self stands alone: either samples of the model itself, or files"));
        }
        if !on && let Some(given) = self.training.given() {
            let error = anyhow!("--{given} is an option of training; add {option} --data FILE, or leave it out");
            faults.add(given, error);
        }
        if field.is_some() && !calibrated && !on {
            let error =
                anyhow!("--field says where the text of a JSONL file is, and no file is read; add --calibration FILE");
            faults.add("field", error);
        }
        if on {
            check_settings(settings, faults);
            if self.own_samples() && spec.is_some_and(|spec| spec.kind == ModelKind::Encoder) {
                faults.add("data", CalibrationError::EncoderData);
            }
        }
    }

    /// As the library takes it.
    pub fn retrain(&self, field: Option<String>, defaults: Settings, run: &RunSettings, context: usize) -> Retrain {
        let own = self.own_samples();
        let data = Data { files: paths(&self.data), field, label_field: self.label_field.clone() };
        Retrain {
            data: (!own).then_some(data),
            task: None,
            settings: self.training.settings(defaults, run, context),
            metrics: path(&self.training.metrics),
        }
    }
}
