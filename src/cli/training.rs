//! The options that `train`, `distill`, `prune --recover` and `quantize --qat` share, as one struct.

use super::global::Global;
use crate::quantize::training_data::Retrain;
use crate::train::samples::{Data, TrainTask};
use crate::train::settings::{LossWeights, Settings};
use anyhow::bail;
use std::path::PathBuf;

/// How to train.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Training options")]
pub(super) struct TrainingArgs {
    /// Tokens to train on
    #[arg(long, value_name = "N")]
    pub(super) tokens: Option<u64>,

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
    pub(super) metrics: Option<PathBuf>,
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
            ("--tokens", self.tokens.is_some()),
            ("--batch", self.batch.is_some()),
            ("--window", self.window.is_some()),
            ("--learning-rate", self.learning_rate.is_some()),
            ("--warm-up", self.warm_up.is_some()),
            ("--weight-decay", self.weight_decay.is_some()),
            ("--clip", self.clip.is_some()),
            ("--pieces", self.pieces.is_some()),
            ("--checkpoint-every", self.checkpoint_every.is_some()),
            ("--ce", self.ce.is_some()),
            ("--kl", self.kl.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--hidden", self.hidden.is_some()),
            ("--hidden-loss", self.hidden_loss.is_some()),
            ("--metrics", self.metrics.is_some()),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// Settings with these options over `defaults`; the window never exceeds `context`.
    pub(super) fn settings(&self, defaults: Settings, global: &Global, context: usize) -> Settings {
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
            seed: global.seed,
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
pub(super) struct DataArgs {
    /// Text files; JSONL with --field, or with labels for --task classify
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<PathBuf>,

    /// Key of the text in every line of a JSONL file [default: text, for --task classify]
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Key of the label in every line of a JSONL file
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    /// What to learn [default: what the model is for]
    #[arg(long, value_name = "TASK", value_enum)]
    pub(super) task: Option<TrainTask>,
}

impl DataArgs {
    /// As the library takes it.
    pub(super) fn data(&self) -> Data {
        Data { files: self.data.clone(), field: self.field.clone(), label_field: self.label_field.clone() }
    }
}

/// Training a changed model back, for `prune --recover` and `quantize --qat`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RetrainArgs {
    /// Text to train on: files, or `self` for samples of the model itself
    #[arg(long, value_name = "FILE|self", num_args = 1..)]
    data: Vec<PathBuf>,

    /// Key of the label in every line of a JSONL file, for a classifier
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    #[command(flatten)]
    training: TrainingArgs,
}

impl RetrainArgs {
    /// Refuses options that only mean something with `switch` (`--qat`, `--recover`), and a key for text that is not read.
    pub(super) fn check(&self, on: bool, switch: &str, field: Option<&str>, calibrated: bool) -> anyhow::Result<()> {
        if !on && !self.data.is_empty() {
            bail!("--data is what {switch} trains on; add {switch}, or leave it out");
        }
        if self.data.len() > 1 && self.data.contains(&PathBuf::from("self")) {
            bail!("--data self stands alone: either samples of the model itself, or files");
        }
        if !on && let Some(option) = self.training.given() {
            bail!("{option} is an option of training; add {switch} --data FILE, or leave it out");
        }
        if field.is_some() && !calibrated && !on {
            bail!("--field says where the text of a JSONL file is, and no file is read; add --calibration FILE");
        }
        Ok(())
    }

    /// As the library takes it.
    pub(super) fn retrain(
        &self,
        field: Option<String>,
        defaults: Settings,
        global: &Global,
        context: usize,
    ) -> Retrain {
        let own = self.data == [PathBuf::from("self")];
        let data = Data { files: self.data.clone(), field, label_field: self.label_field.clone() };
        Retrain {
            data: (!own).then_some(data),
            task: None,
            settings: self.training.settings(defaults, global, context),
            metrics: self.training.metrics.clone(),
        }
    }
}
