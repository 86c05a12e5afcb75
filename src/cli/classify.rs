//! `slmc classify`

use crate::confidence::check_bound;
use crate::eval::label::label;
use crate::eval::opened::{OpenedModel, tokenizer_at};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{BackendArg, RunnableArg, TokenizerArg, without_output};
use crate::stages::stage::say_notes;
use anyhow::Context;
use std::path::Path;

/// Label texts or their tokens with a classifier, or find answers in them, and say how sure it is
///
/// A classifier of tokens labels every token, a model of answers finds the span of each text that answers --question; both say
/// which bytes of the text that is. What follows is of classifiers of texts.
///
/// An artifact runs as on the device: a text leaves at the first exit head whose margin is at its threshold, and the confidence is
/// at that head's temperature. With --route-below, a text whose label is less probable is answered `ask elsewhere`, as is one whose
/// label is `oos`. `slmc eval --route-below` says what a bound keeps.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc classify out/intents.slm 'wake me at seven' 'what is my balance'
  slmc classify out/intents.slm 'wake me at seven' --route-below 0.8 --json
  slmc classify out/names.slm 'Ada met Charles in London'
  slmc classify out/answers.slm 'The pump is in the cellar.' --question 'Where is the pump?'"
)]
pub(super) struct Args {
    #[command(flatten)]
    model: RunnableArg,

    /// Texts to label, or to look for an answer in
    #[arg(value_name = "TEXT", required = true)]
    texts: Vec<String>,

    /// What is asked, of a model that finds answers
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// Ask elsewhere where the label's probability is below P
    #[arg(long, value_name = "P")]
    route_below: Option<f32>,

    #[command(flatten)]
    backend: BackendArg,
}

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model.model
    }

    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        self.route_below.map_or(Ok(()), check_bound).context("--route-below")?;
        say_notes(&self.model.model, shell);
        let model = OpenedModel::open(&self.model.model, &self.backend.device()?)?;
        let tokenizer = match &self.tokenizer.tokenizer {
            Some(directory) => tokenizer_at(directory)?,
            None => model.tokenizer()?,
        };
        shell.result(&label(&model, &tokenizer, &self.texts, self.question.as_deref(), self.route_below)?)?;
        Ok(ExitStatus::Success)
    }
}
