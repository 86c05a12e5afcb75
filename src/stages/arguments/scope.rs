//! The options that say which values are trained: parameters by pattern, and adapters.

use super::groups::{ADAPTERS, TRAINING};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::stages::stage::Faults;
use crate::train::scope::{LoraSettings, ScopeError, ScopeSettings};
use anyhow::anyhow;
use serde::Serialize;

/// Parameters that are trained.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = TRAINING)]
pub struct TrainOnlyArg {
    /// Train these parameters alone: layers.5.*, head, …
    ///
    /// Globs over names of matrices, with their biases, or one of embedding, attention, conv, ffn, head; norms and kernels by
    /// their own names: layers.*.norm, final.norm. Everything else stays as it is, and takes neither gradients nor moments.
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    train_only: Vec<String>,
}

impl TrainOnlyArg {
    /// As the library takes it.
    pub fn scope(&self) -> ScopeSettings {
        ScopeSettings { train_only: self.train_only.clone(), lora: None }
    }

    /// Whether anything is given.
    pub fn is_given(&self) -> bool {
        !self.train_only.is_empty()
    }
}

/// What is written of a run with adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LoraOutput {
    /// A dense directory, adapters added to its matrices.
    #[default]
    Merged,
    /// A directory of PEFT's: the adapters alone.
    Adapter,
}

/// Adapters of low rank.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = ADAPTERS)]
pub struct ScopeArgs {
    #[command(flatten)]
    only: TrainOnlyArg,

    /// Train adapters (LoRA) of this rank, not the weights
    ///
    /// A matrix W stays as it is, and A and B are trained in W + alpha/R · B · A. The head of a classifier and what
    /// --train-only names are trained whole beside them.
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,

    /// Factor of the adapters [default: twice the rank]
    #[arg(long, value_name = "ALPHA", requires = "lora_rank")]
    lora_alpha: Option<f64>,

    /// Matrices with adapters [default: all of the layers]
    ///
    /// Globs over names, or one of attention, conv, ffn, head. One that matches no matrix is refused.
    #[arg(long, value_name = "PATTERN", num_args = 1.., requires = "lora_rank")]
    lora_targets: Vec<String>,

    /// Write merged or adapter
    ///
    /// merged: a dense model, as without adapters. adapter: adapter_config.json and adapter_model.safetensors as PEFT has
    /// them, which `slmc merge` and every command that takes a model read on the base they were trained on.
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true, default_value = "merged")]
    lora_output: LoraOutput,
}

/// alpha over the rank where nothing is said.
const ALPHA_OVER_RANK: f64 = 2.0;

impl ScopeArgs {
    /// As the library takes it.
    pub fn scope(&self) -> ScopeSettings {
        let lora = self.lora_rank.map(|rank| LoraSettings {
            rank,
            alpha: self.lora_alpha.unwrap_or(ALPHA_OVER_RANK * rank as f64),
            targets: self.lora_targets.clone(),
        });
        ScopeSettings { lora, ..self.only.scope() }
    }

    /// The first option that is given.
    pub fn given(&self) -> Option<&'static str> {
        let all = [("train-only", self.only.is_given()), ("lora-rank", self.lora_rank.is_some())];
        all.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// What is written.
    pub fn output(&self) -> LoraOutput {
        self.lora_output
    }

    /// Notes patterns that select nothing of the student, as far as it is known, and an output as adapter without adapters.
    pub fn check(&self, student: Option<(&ModelSpec, &Sparsity)>, faults: &mut Faults) {
        if self.lora_rank.is_none() && self.lora_output == LoraOutput::Adapter {
            faults.add(
                "lora-output",
                anyhow!("--lora-output adapter writes adapters, and none is trained; add --lora-rank R"),
            );
        }
        check_scope(&self.scope(), student, faults);
    }
}

/// Notes patterns that select nothing of the student, as far as it is known, and impossible adapters.
pub fn check_scope(scope: &ScopeSettings, student: Option<(&ModelSpec, &Sparsity)>, faults: &mut Faults) {
    let found = match (&scope.lora, student) {
        (_, Some((spec, sparsity))) => scope.of(spec, sparsity).map(drop),
        (Some(lora), None) => lora.check(),
        (None, None) => Ok(()),
    };
    if let Err(error) = found {
        faults.add(option_of(&error), error);
    }
}

fn option_of(error: &ScopeError) -> &'static str {
    match error {
        ScopeError::NoMatch { option, .. } | ScopeError::TiedHead { option, .. } => option,
        ScopeError::Table { .. } | ScopeError::Sparse { .. } => "lora-targets",
        ScopeError::Rank { .. } | ScopeError::NoRank => "lora-rank",
        ScopeError::Alpha { .. } => "lora-alpha",
    }
}
