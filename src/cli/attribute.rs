//! `slmc attribute`

use super::prompt::PromptArgs;
use crate::artifact::host::ArtifactFile;
use crate::attribute::{AttributeOptions, PageRequest, attribute};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{ArtifactArg, TokenizerArg, without_output};
use crate::stages::arguments::path;
use std::path::Path;

/// Say what a choice of an artifact rests on
///
/// What it chooses after a prompt, the next token of a decoder or the label of a classifier, with the share of every input
/// token in it and the attention of every layer and head. All of it is computed with the integers of the device.
///
/// A token's share is by occlusion: the token is replaced by the vocabulary's mask, unknown or padding token, and the
/// logarithm of the choice's probability computed again; tokens that spoke against the choice have a negative share.
/// Attention is the runtime's own softmax. Neither says why: docs/attribution.md.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc attribute out/mixed.slm --prompt 'Once upon a time there was a fox who'
  slmc attribute out/mixed.slm --chat 'What is the capital of France?' --tokens 8 --report html=page.html
  slmc attribute out/intents.slm --prompt 'book me a table for two' --json"
)]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    #[command(flatten)]
    prompt: PromptArgs,

    /// Most tokens to choose, each attributed to all before it [default: 1]
    ///
    /// The likeliest ones, until the model ends the text.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,

    /// Token to put in the place of others, by its spelling [default: the mask, unknown, padding or end token]
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    replace: Option<String>,

    /// Keep the whole matrices of attention, not only the rows of the positions that choose
    ///
    /// In --json; a page has them always.
    #[arg(long)]
    matrices: bool,

    /// Write a page with heat maps too: html=FILE
    ///
    /// It loads nothing and runs nothing. A file that something else wrote is not replaced.
    #[arg(long, value_name = "html=FILE", value_parser = str::parse::<PageRequest>)]
    report: Option<PageRequest>,
}

impl Args {
    /// The artifact that it reads.
    pub(super) fn artifact(&self) -> &Path {
        &self.artifact.artifact
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        if let Some(page) = &self.report {
            page.check()?;
        }
        let options = AttributeOptions {
            prompt: self.prompt.prompt()?,
            tokens: self.tokens.unwrap_or(1),
            replace: self.replace.clone(),
            matrices: self.matrices || self.report.is_some(),
            tokenizer: path(&self.tokenizer.tokenizer),
        };
        let mut report = attribute(ArtifactFile::open(self.artifact())?, &options, shell)?;
        if let Some(page) = &self.report {
            page.write(&report)?;
        }
        if !self.matrices {
            report.matrices = None;
        }
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}
