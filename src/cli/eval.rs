//! `slmc eval`

use super::global::Global;
use super::stages::same_vocabulary;
use crate::model::device::device;
use crate::model::spec::ModelSpec;
use crate::recipe::Known;
use crate::shell::{ExitStatus, Shell};
use crate::stages::eval::{EvalReport, Options, TaskChoice, evaluate};
use std::path::PathBuf;

/// Measure a model on text, and how far it is from a reference
///
/// An artifact is run by the integers the device computes, a directory in f32; the report says which. Language models:
/// perplexity, and with a reference the KL divergence in nats and the share of equal first choices; masked ones over
/// tokens hidden by --seed. Classifiers: accuracy. Bare encoders: cosine of sentence embeddings.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  slmc eval out/mixed.slm --data valid.txt --reference models/tales-6m --window 256 --max-windows 64 --json"
)]
pub(super) struct Args {
    /// Artifact, or directory
    #[arg(value_name = "FILE.slm|DIR")]
    model: PathBuf,

    /// Text: plain, or JSONL with --field; encoders take one line as one text
    #[arg(long, value_name = "TEXT")]
    data: PathBuf,

    /// Dense directory to compare with
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,

    /// What to measure [default: what the model is for]
    #[arg(long, value_name = "TASK", value_enum)]
    task: Option<TaskChoice>,

    /// Tokens of a window, those it opens with included
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: usize,

    /// Most windows, or texts for encoders [default: all]
    #[arg(long, value_name = "N")]
    max_windows: Option<usize>,

    /// Key of the text in every line of a JSONL file; for --task generate that of the prompt [default: prompt]
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Key of the label in every line of a JSONL file, for --task classify; of the wanted answer for --task generate
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    /// Most tokens of an answer, for --task generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    answer_tokens: usize,

    /// Directory with tokenizer.json, for an artifact written for a device only
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// Where directories run: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,
}

impl Args {
    /// What is wrong as far as configurations tell.
    pub(super) fn check(&self, known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        if let Some(reference) = &self.reference {
            same_vocabulary(known, ("model", &self.model), ("reference", reference))?;
        }
        Ok(None)
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&self.execute(global, shell)?)?;
        Ok(ExitStatus::Success)
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<EvalReport> {
        let options = Options {
            model: self.model.clone(),
            reference: self.reference.clone(),
            data: self.data.clone(),
            task: self.task,
            window: self.window,
            max_windows: self.max_windows.unwrap_or(usize::MAX),
            field: self.field.clone(),
            label_field: self.label_field.clone(),
            tokenizer: self.tokenizer.clone(),
            seed: global.seed,
            answer_tokens: self.answer_tokens,
        };
        Ok(evaluate(&options, &device(&self.device)?, shell)?)
    }
}
