//! The options that `train`, `distill`, `prune --recover` and `quantize --qat` share, as one struct.

use super::groups::{DATA, RecordKeys, TRAINING, TextArgs};
use super::losses::{self, LossArgs};
use super::{ReadFile, TextOrSelf, WriteFile, path, paths};
use crate::disk::atomic;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::quantize::error::CalibrationError;
use crate::quantize::training_data::{Follows, Retrain};
use crate::stages::stage::{Faults, RunSettings};
use crate::text::reasoning::{Part, ReasoningForm};
use crate::train::loss::table::LOSSES;
use crate::train::report::LOG_MAGIC;
use crate::train::samples::{Data, TrainTask};
use crate::train::settings::Settings;
use anyhow::anyhow;
use clap::Arg;

/// Settings of a training run. The defaults differ from command to command; [`with_defaults`] puts them into the help.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = TRAINING)]
pub struct TrainingArgs {
    /// Tokens to train on
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,

    /// Sequences per step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Tokens per sequence
    ///
    /// The tokens that a text opens with are counted. Never more than the model's maximum.
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Peak learning rate
    ///
    /// Reached after the warm-up; a cosine then takes it down, to a tenth in `train` and `distill`, to zero in
    /// `prune --recover` and `quantize --qat`.
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// Share of the steps for the warm-up
    #[arg(long, value_name = "SHARE")]
    warm_up: Option<f64>,

    /// Decoupled weight decay of matrices
    ///
    /// Every step takes this share, times the learning rate, off every weight. Norms and biases have none.
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,

    /// Largest norm of a step's gradient
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,

    /// Micro-batches per step
    ///
    /// Computed one after the other, so that no more activations than those of one are held at once. Their gradients are
    /// summed in their order, so this number is part of the result, and --threads is not.
    #[arg(long, value_name = "N")]
    pieces: Option<usize>,

    /// Compute layers again in the backward pass: less memory
    ///
    /// Of a layer the input alone is kept until then, and a step takes a third more arithmetic. The result is the same to the
    /// bit, so a run that was killed for want of memory goes on with it.
    #[arg(long)]
    recompute: bool,

    /// Steps between checkpoints
    ///
    /// A killed run goes on from the last one when the same command is repeated. Where steps are long there is one for every two
    /// minutes too.
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,

    #[command(flatten)]
    losses: LossArgs,

    /// Write one JSON line per step to FILE
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<WriteFile>,
}

/// Puts the defaults of a command into the help of its training options, for `#[command(mut_args(…))]`.
pub fn with_defaults(settings: &Settings) -> impl FnMut(Arg) -> Arg + use<> {
    let Settings { tokens, batch, window, pieces, learning_rate, warm_up, weight_decay, clip, .. } = *settings;
    let mut defaults = vec![
        ("tokens", tokens.to_string()),
        ("batch", batch.to_string()),
        ("window", window.to_string()),
        ("learning_rate", learning_rate.to_string()),
        ("warm_up", warm_up.to_string()),
        ("weight_decay", weight_decay.to_string()),
        ("clip", clip.to_string()),
        ("pieces", pieces.to_string()),
        ("checkpoint_every", settings.checkpoint_every.to_string()),
    ];
    defaults.extend(losses::defaults(&settings.loss));
    move |argument| {
        let Some((_, default)) = defaults.iter().find(|(id, _)| argument.get_id() == id) else { return argument };
        let short = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let long = argument.get_long_help().map(ToString::to_string);
        let argument = argument.help(format!("{short} [default: {default}]"));
        match long {
            Some(long) => argument.long_help(format!("{long}\n\n[default: {default}]")),
            None => argument,
        }
    }
}

impl TrainingArgs {
    /// The first of these options that was given.
    pub fn given(&self) -> Option<&'static str> {
        let all = [
            ("tokens", self.tokens.is_some()),
            ("batch", self.batch.is_some()),
            ("window", self.window.is_some()),
            ("learning-rate", self.learning_rate.is_some()),
            ("warm-up", self.warm_up.is_some()),
            ("weight-decay", self.weight_decay.is_some()),
            ("clip", self.clip.is_some()),
            ("pieces", self.pieces.is_some()),
            ("recompute", self.recompute),
            ("checkpoint-every", self.checkpoint_every.is_some()),
            ("metrics", self.metrics.is_some()),
        ];
        let of_losses = self.losses.given();
        all.into_iter().chain(of_losses).find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// Whether `--pieces` and `--clip` are given.
    pub fn gives_pieces_and_clip(&self) -> (bool, bool) {
        (self.pieces.is_some(), self.clip.is_some())
    }

    /// Notes a `--metrics` that is there and that slmc did not write.
    pub fn check_metrics(&self, faults: &mut Faults) {
        if let Some(path) = &self.metrics {
            faults.check("metrics", atomic::check_file(path, LOG_MAGIC));
        }
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
            loss: self.losses.weights(defaults.loss),
            checkpoint_every: self.checkpoint_every.unwrap_or(defaults.checkpoint_every),
            recompute: self.recompute,
        }
    }
}

/// The data of `train` and `distill`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = DATA)]
pub struct DataArgs {
    /// Text to train on: plain text, or JSONL with --field
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<ReadFile>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    reasoning: ReasoningArgs,

    /// clm, mlm or classify [default: the model's own]
    ///
    /// clm: predict the next token. mlm: predict hidden tokens. classify: predict the label of a text.
    #[arg(long, value_name = "TASK", value_enum, hide_possible_values = true)]
    pub task: Option<TrainTask>,
}

impl DataArgs {
    /// Whether there is none, which only a stage that trains nothing allows.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// As the library takes it.
    pub fn data(&self) -> Data {
        Data { reasoning: self.reasoning.form(), ..self.text.data(paths(&self.data)) }
    }

    /// Notes options of records with reasoning beside one that says a file holds texts.
    pub fn check(&self, faults: &mut Faults) {
        let texts = [("field", self.text.field.is_some()), ("separator", self.text.separator.is_some())];
        if let Some((option, _)) = texts.into_iter().find(|(_, given)| *given && self.reasoning.form().is_asked()) {
            let error = anyhow!(
                "--{option} says that a file holds texts, and --loss-on and the options beside it that it holds records with a \
                 prompt and an answer; leave one out"
            );
            faults.add(option, error);
        }
    }
}

/// Records with a prompt, reasoning and an answer, and what of them is learned.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = DATA)]
struct ReasoningArgs {
    /// Parts of records that are learned [default: reasoning,answer]
    ///
    /// For rows with a `prompt`, an `answer` and mostly a `reasoning`: answer, reasoning, or all, which is the prompt too. The
    /// record goes through the chat template, where the model has one, with the reasoning before the answer. Rows are read so
    /// without this option, if they have a prompt and an answer, no list `messages`, and no --field is given.
    #[arg(long, value_name = "PARTS", value_enum, value_delimiter = ',', hide_possible_values = true)]
    loss_on: Vec<Part>,

    /// Leave the reasoning of records out of their text
    #[arg(long)]
    without_reasoning: bool,

    #[command(flatten)]
    keys: RecordKeys,

    /// JSONL key of their reasoning [default: reasoning]
    #[arg(long, value_name = "KEY")]
    reasoning_field: Option<String>,
}

impl ReasoningArgs {
    fn form(&self) -> ReasoningForm {
        let own = self.keys.form();
        ReasoningForm {
            reasoning: self.reasoning_field.clone().unwrap_or(own.reasoning),
            without_reasoning: self.without_reasoning,
            parts: self.loss_on.clone(),
            ..own
        }
    }
}

/// The context in which the options of a retraining are checked.
#[derive(Clone, Copy)]
pub struct Switch<'s> {
    /// Whether there is training.
    pub on: bool,
    /// The option that asks for training.
    pub option: &'s str,
    /// How the texts of a file are told apart.
    pub text: &'s TextArgs,
    /// Whether there is a text to calibrate with.
    pub calibrated: bool,
    /// The model, where it is known.
    pub spec: Option<&'s ModelSpec>,
}

/// Notes every impossible setting.
pub fn check_settings(settings: &Settings, faults: &mut Faults) {
    for error in settings.faults() {
        faults.add(option_of(error.key), error);
    }
}

/// The option of a setting.
fn option_of(setting: &'static str) -> &'static str {
    match setting {
        "learning_rate" => "learning-rate",
        "warm_up" => "warm-up",
        "weight_decay" => "weight-decay",
        "checkpoint_every" => "checkpoint-every",
        "label_smoothing" => "label-smoothing",
        "relation_heads" => "relation-heads",
        "loss" => "",
        other => LOSSES.iter().find(|def| def.key == other).map_or(other, |def| def.option),
    }
}

/// Training a changed model back, for `prune --recover` and `quantize --qat`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = TRAINING)]
pub struct RetrainArgs {
    /// Text to train on: files, or `self`
    ///
    /// `self`: text that the model, a decoder, samples from itself.
    #[arg(long, value_name = "FILE|self", num_args = 1..)]
    data: Vec<TextOrSelf>,

    #[command(flatten)]
    training: TrainingArgs,
}

impl RetrainArgs {
    /// Whether the model is trained on its own samples.
    fn own_samples(&self) -> bool {
        matches!(&self.data[..], [text] if text.is_self())
    }

    /// Notes options that only mean something with `switch` (`--qat`, `--recover`), a key for text that is not read,
    /// impossible settings, and samples of a model that cannot make any.
    pub fn check(&self, asked: &Switch<'_>, settings: &Settings, faults: &mut Faults) {
        let Switch { on, option, text, calibrated, spec } = *asked;
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
        let given = [("field", text.field.is_some()), ("separator", text.separator.is_some())];
        for (given, _) in given.into_iter().filter(|(_, is_given)| *is_given && !calibrated && !on) {
            let error = anyhow!("--{given} says how a file is read, and no file is read; add --calibration FILE");
            faults.add(given, error);
        }
        if on {
            check_settings(settings, faults);
            self.training.check_metrics(faults);
            if self.own_samples() && spec.is_some_and(|spec| spec.kind == ModelKind::Encoder) {
                faults.add("data", CalibrationError::EncoderData);
            }
        }
    }

    /// As the library takes it.
    pub fn retrain(&self, text: &TextArgs, defaults: Settings, run: &RunSettings, context: usize) -> Retrain {
        let own = self.own_samples();
        Retrain {
            data: (!own).then(|| text.data(paths(&self.data))),
            task: None,
            settings: self.training.settings(defaults, run, context),
            follows: Follows { rate: self.training.learning_rate.is_none(), tokens: self.training.tokens.is_none() },
            metrics: path(&self.training.metrics),
        }
    }
}
