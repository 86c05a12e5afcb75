//! `slmc train`

use super::global::Global;
use super::training::{DataArgs, TrainingArgs};
use crate::model::device::device;
use crate::model::spec::{Head, ModelSpec};
use crate::recipe::Known;
use crate::shell::{ExitStatus, Shell};
use crate::stages::train::{Options, Start, train};
use crate::train::report::TrainReport;
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
    /// What is wrong as far as configurations tell, and what the output will be.
    pub(super) fn check(&self, global: &Global, known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        let spec = known.at(&self.model);
        let context = spec.map_or(usize::MAX, |spec| spec.context);
        self.training.settings(Settings::default(), global, context).check()?;
        // A bare encoder is given a classifier for labels that only the data says.
        Ok(spec.filter(|spec| self.data.task.is_none() || !matches!(spec.head, Head::Hidden)).cloned())
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&self.execute(global, shell)?)?;
        Ok(ExitStatus::Success)
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<TrainReport> {
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
        Ok(report)
    }
}
