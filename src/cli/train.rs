//! `slmc train`

use super::global::Global;
use super::training::{DataArgs, TrainingArgs};
use crate::model::device::device;
use crate::shell::{ExitStatus, Shell};
use crate::train::command::{Options, Start, train};
use crate::train::settings::Settings;
use crate::train::start::context_of;
use std::path::PathBuf;

/// Train a model from a checkpoint, or from a configuration alone
///
/// DIR with weights is fine-tuned; a config.json (or a directory with no weights beside it) starts from random ones and
/// needs a tokenizer.json beside it or --tokenizer. A bare encoder given --task classify gets a classifier for the
/// labels of its data. A killed run goes on from its last checkpoint when the same command is repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  slmc train config.json --tokenizer tok --data tales.txt --tokens 5000000 -o out/tales"
)]
pub(super) struct Args {
    /// Hugging Face directory, or a configuration
    #[arg(value_name = "DIR|CONFIG")]
    model: PathBuf,

    #[command(flatten)]
    data: DataArgs,

    /// Directory with tokenizer.json [default: beside the model]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    #[command(flatten)]
    training: TrainingArgs,

    /// Where to compute: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,

    /// Directory to write; an existing one is replaced if slmc made it
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let context = context_of(&self.model)?;
        let options = Options {
            start: Start::Path(self.model.clone()),
            teacher: None,
            layer_map: None,
            tokenizer: self.tokenizer.clone(),
            data: self.data.data(),
            task: self.data.task,
            settings: self.training.settings(Settings::TRAIN, global, context),
            out: self.out.clone(),
            metrics: self.training.metrics.clone(),
        };
        shell.status("Training", self.model.display());
        let report = train(&options, &device(&self.device)?, shell)?;
        shell.status("Wrote", self.out.display());
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}
