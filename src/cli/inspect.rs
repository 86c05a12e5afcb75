//! `slmc inspect`

use crate::artifact::inspect::inspect;
use crate::formats;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::ModelOrArtifact;
use crate::stages::checkpoint;
use std::path::Path;

/// Show what is in an artifact, or in a model
///
/// For an artifact: sizes and work per token by class, planned memory, every tensor. For a model, a directory or a GGUF file:
/// every file that may stand beside the weights, whether it is there or rebuilt, and what it decides: tokens that open and end
/// a text, how tokens are chosen, the chat template, the pooling of sentence encoders, the longest text. Of a GGUF file, of weights
/// that another tool has packed and of an adapter also how they are stored: which of that is exact, which matrices `slmc quantize
/// --method keep` takes over in which scheme, and why others are rounded anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc inspect models/tales-6m
  slmc inspect models/smollm2.Q4_1.gguf
  slmc inspect adapters/chat --base models/base
  slmc inspect out/mixed.slm
  slmc inspect out/mixed.slm --json")]
pub(super) struct Args {
    /// Artifact, or model: a directory or a GGUF file
    #[arg(value_name = "FILE.slm|MODEL")]
    model: ModelOrArtifact,
}

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match formats::is_model(&self.model) {
            true => shell.result(&checkpoint::inspect(&self.model)?)?,
            false => shell.result(&inspect(&self.model)?)?,
        };
        Ok(ExitStatus::Success)
    }
}
