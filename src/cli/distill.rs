//! `slmc distill`

use super::global::Global;
use super::stages::same_vocabulary;
use super::training::{DataArgs, TrainingArgs};
use crate::model::device::device;
use crate::model::spec::ModelSpec;
use crate::recipe::Known;
use crate::shell::{ExitStatus, Shell};
use crate::stages::train::{Options, Start, train};
use crate::train::report::TrainReport;
use crate::train::settings::Settings;
use crate::train::start::context_of;
use crate::train::student::{hidden_pairs, take_layers};
use anyhow::bail;
use std::path::PathBuf;

/// Train a smaller student from a teacher
///
/// The student is a directory, a configuration, or some layers of the teacher. The loss is the cross entropy plus half
/// the relative distance of hidden states, layer by layer; --kl adds the divergence from the teacher's predictions.
/// A killed run goes on from its last checkpoint when the same command is repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  slmc distill --teacher models/tales-6m --layers 0,2,4 --data tales.txt --tokens 1500000 -o out/student"
)]
pub(super) struct Args {
    /// Dense directory to learn from
    #[arg(long, value_name = "DIR")]
    teacher: PathBuf,

    /// Directory or configuration to start from
    #[arg(long, value_name = "DIR|CONFIG", conflicts_with = "layers", required_unless_present = "layers")]
    student: Option<PathBuf>,

    /// Layers of the teacher that the student starts from, counted from 0
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    layers: Vec<usize>,

    /// Teacher layer compared with each student layer [default: spread evenly]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    layer_map: Vec<usize>,

    #[command(flatten)]
    data: DataArgs,

    /// Directory with tokenizer.json [default: beside the student or the teacher]
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
        let teacher = known.at(&self.teacher);
        let student = match (&self.student, teacher) {
            (Some(path), _) => known.at(path).cloned(),
            (None, Some(teacher)) => Some(take_layers(teacher, &self.layers)?),
            (None, None) => None,
        };
        if let Some(path) = &self.student {
            same_vocabulary(known, ("student", path), ("teacher", &self.teacher))?;
        }
        if let (Some(student), Some(teacher)) = (&student, teacher) {
            let map = (!self.layer_map.is_empty()).then_some(&self.layer_map[..]);
            hidden_pairs(student.layers.len(), teacher.layers.len(), map)?;
        }
        let context = student.as_ref().map_or(usize::MAX, |student| student.context);
        self.training.settings(Settings::DISTILL, global, context).check()?;
        Ok(student)
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&self.execute(global, shell)?)?;
        Ok(ExitStatus::Success)
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<TrainReport> {
        let start = match &self.student {
            Some(path) => Start::Path(path.clone()),
            None if self.layers.is_empty() => bail!("--layers names no layer; name at least one, such as 0,2,4"),
            None => Start::Layers(self.layers.clone()),
        };
        let mut context = context_of(&self.teacher)?;
        if let Some(student) = &self.student {
            context = context.min(context_of(student)?);
        }
        let options = Options {
            start,
            teacher: Some(self.teacher.clone()),
            layer_map: (!self.layer_map.is_empty()).then(|| self.layer_map.clone()),
            tokenizer: self.tokenizer.clone(),
            data: self.data.data(),
            task: self.data.task,
            settings: self.training.settings(Settings::DISTILL, global, context),
            out: self.out.clone(),
            metrics: self.training.metrics.clone(),
        };
        shell.status("Distilling", self.teacher.display());
        let report = train(&options, &device(&self.device)?, shell)?;
        shell.status("Wrote", self.out.display());
        Ok(report)
    }
}
