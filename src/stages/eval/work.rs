//! The work of `slmc eval`: opens a model, its reference and a text, and runs the task the model is for.

mod classify;
mod language;
mod questions;
mod tokens;

pub(in crate::stages) use questions::{PROMPT, find_questions};

use crate::eval::answers::AnswersReport;
use crate::eval::classify::ClassifyReport;
use crate::eval::embed::{self, EmbedReport, Embedder};
use crate::eval::extraction::AnswerIs;
use crate::eval::lm::{LmReport, MlmReport, Models};
use crate::eval::opened::{OpenedModel, Task, tokenizer_at};
use crate::eval::spans::SpansReport;
use crate::eval::token_labels::TokensReport;
use crate::eval::{EvalError, Forward, SCHEMA};
use crate::progress::Progress;
use crate::report::{Report, Table};
use crate::stages::StageError;
use crate::text::file::{ReadNotes, rows_of_files};
use crate::text::form::TextForm;
use crate::text::reasoning::ReasoningForm;
use crate::text::records::{LabelledRecord, Records, read_labelled, read_records};
use crate::text::tokenizer::Tokenizer;
use crate::text::windows::{Choice, WindowError, encoder_sequences};
use burn::tensor::Device;
use serde::Serialize;
use std::path::PathBuf;

/// Values of `--task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskChoice {
    /// Perplexity and divergence of next-token predictions
    Lm,
    /// Perplexity and divergence of predictions of hidden tokens
    Mlm,
    /// Accuracy over labelled texts
    Classify,
    /// Cosine of sentence embeddings to the reference's
    Embed,
    /// Answers generated to prompts: exact match, token F1 and BLEU-4
    Generate,
    /// Accuracy over labelled words, of classifiers of tokens
    Tokens,
    /// Exact match of answers found in texts
    Spans,
}

/// Options of `slmc eval`, checked.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Artifact or directory.
    pub model: PathBuf,
    /// Dense directory.
    pub reference: Option<PathBuf>,
    /// Logged requests to compare the text with, in the place of measuring it.
    pub log: Option<PathBuf>,
    /// Their texts, where the log is of records.
    pub log_texts: Option<PathBuf>,
    /// Text.
    pub data: PathBuf,
    /// Task; the model's own if absent.
    pub task: Option<TaskChoice>,
    /// Tokens of a window.
    pub window: usize,
    /// Most windows or texts.
    pub max_windows: usize,
    /// Which of them.
    pub windows: Choice,
    /// How the texts of the file are told apart.
    pub form: TextForm,
    /// Key of the label in JSONL.
    pub label_field: String,
    /// Keys of records with a prompt and an answer.
    pub records: ReasoningForm,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// Seed of the choice of tokens to hide.
    pub seed: u64,
    /// Most tokens of a generated answer.
    pub answer_tokens: usize,
    /// What of a generated text is its answer.
    pub answer_is: Option<AnswerIs>,
    /// Text that stands before the answer.
    pub answer_after: Option<String>,
    /// Probability below which a text is asked elsewhere.
    pub route_below: Option<f32>,
}

/// Result of `slmc eval`.
#[derive(Clone, Debug, Serialize)]
pub struct EvalReport {
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// The file of the text, and the changes of reading it.
    pub files_read: Vec<ReadNotes>,
}

/// What was measured, by the task.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// Report of a language model.
    Lm(LmReport),
    /// Report of a masked language model.
    Mlm(MlmReport),
    /// Report of a classifier.
    Classify(ClassifyReport),
    /// Report of a sentence encoder.
    Embed(EmbedReport),
    /// Report of a decoder that answers prompts.
    Answers(AnswersReport),
    /// Report of a classifier of tokens.
    Tokens(TokensReport),
    /// Report of a model that finds answers in texts.
    Spans(SpansReport),
}

impl Report for EvalReport {
    const SCHEMA: &'static str = SCHEMA;

    fn text(&self) -> String {
        let text = match &self.measured {
            Measured::Lm(report) => report.text(),
            Measured::Mlm(report) => report.text(),
            Measured::Classify(report) => report.text(),
            Measured::Embed(report) => report.text(),
            Measured::Answers(report) => report.text(),
            Measured::Tokens(report) => report.text(),
            Measured::Spans(report) => report.text(),
        };
        let mut files = Table::pairs();
        rows_of_files(&self.files_read, &mut files);
        if files.is_empty() { text } else { format!("{text}\n{files}") }
    }
}

/// Evaluates.
pub fn evaluate(options: &EvalOptions, device: &Device, progress: &dyn Progress) -> Result<EvalReport, StageError> {
    let model = OpenedModel::open(&options.model, device)?;
    let reference = match &options.reference {
        Some(path) => Some(OpenedModel::open(path, device)?),
        None => None,
    };
    let padded = match &reference {
        Some(reference) => compare(&model, reference)?,
        None => false,
    };
    let task = task(model.task, options.task)?;
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => match (model.tokenizer(), &reference) {
            (Err(EvalError::NoTokenizer { .. }), Some(reference)) => reference.tokenizer()?,
            (tokenizer, _) => tokenizer?,
        },
    };
    let rows = reference.as_ref().map_or(usize::MAX, |reference| reference.vocabulary);
    tokenizer.check(rows.min(model.vocabulary))?;
    let shared = padded.then(|| tokenizer.vocabulary_size());
    let work = Work { options, model: &model, reference: reference.as_ref(), shared, tokenizer: &tokenizer, progress };
    let (measured, notes) = match task {
        TaskChoice::Lm => work.language_model()?,
        TaskChoice::Mlm => work.masked()?,
        TaskChoice::Classify => work.classify()?,
        TaskChoice::Embed => work.embed()?,
        TaskChoice::Generate => work.generate()?,
        TaskChoice::Tokens => work.tokens()?,
        TaskChoice::Spans => work.spans()?,
    };
    Ok(EvalReport { measured, files_read: vec![notes] })
}

/// What was measured, and the changes of reading the text.
type Done = Result<(Measured, ReadNotes), StageError>;

/// The models, opened, and what a task needs of the options.
struct Work<'w> {
    options: &'w EvalOptions,
    model: &'w OpenedModel,
    reference: Option<&'w OpenedModel>,
    /// How many tokens both models have, where their tables are padded to different sizes.
    shared: Option<usize>,
    tokenizer: &'w Tokenizer,
    progress: &'w dyn Progress,
}

impl<'w> Work<'w> {
    fn against(&self) -> Option<&'w dyn Forward> {
        self.reference.map(|reference| reference as &dyn Forward)
    }

    fn models(&self) -> Models<'w> {
        Models { model: self.model, reference: self.against(), shared: self.shared }
    }

    /// Most positions of both models.
    fn context(&self) -> usize {
        self.model.context.min(self.reference.map_or(usize::MAX, |reference| reference.context))
    }

    /// Where tokenizer and chat template are, if that is not the model: an artifact for a device carries neither, and they
    /// are the reference's.
    fn directory(&self) -> Option<PathBuf> {
        self.options.tokenizer.clone().or_else(|| match self.model.tokenizer() {
            Err(_) => self.options.reference.clone(),
            Ok(_) => None,
        })
    }

    fn failed(&self, source: EvalError) -> StageError {
        StageError::Eval { path: self.options.data.clone(), source }
    }

    fn bad_window(&self, source: WindowError) -> StageError {
        StageError::Window { path: self.options.data.clone(), source }
    }

    /// The texts of an encoder as tokens.
    fn sequences(&self) -> Result<(Vec<Vec<u32>>, ReadNotes), StageError> {
        let Work { options, tokenizer, progress, .. } = *self;
        let Records { mut records, mut notes } = read_records(&options.data, &options.form)?;
        options.windows.take(&mut records, options.max_windows);
        let sequences = encoder_sequences(tokenizer, &records, self.context())?;
        notes.count_cut(sequences.truncated, self.context());
        notes.warn(progress);
        Ok((sequences.tokens, notes))
    }

    /// Texts with their labels or answers.
    fn labelled(&self, field: &str) -> Result<(Vec<LabelledRecord>, ReadNotes), StageError> {
        let options = self.options;
        let Records { mut records, notes } = read_labelled(&options.data, &options.form, field, &options.label_field)?;
        options.windows.take(&mut records, options.max_windows);
        Ok((records, notes))
    }

    fn embed(&self) -> Done {
        let Work { model, reference, progress, .. } = *self;
        let (sequences, notes) = self.sequences()?;
        if let Some(reference) = reference.filter(|reference| reference.embedding != model.embedding) {
            warn_of_pooling(model, reference, progress);
        }
        let metrics = embed::evaluate(embedder(model), reference.map(embedder), &sequences, progress)
            .map_err(|source| self.failed(source))?;
        Ok((Measured::Embed(EmbedReport { metrics, subject: model.subject.clone() }), notes))
    }
}

fn embedder(model: &OpenedModel) -> Embedder<'_> {
    Embedder { forward: model, embedding: model.embedding }
}

/// Model and reference pool in different ways: what is measured is that, too.
fn warn_of_pooling(model: &OpenedModel, reference: &OpenedModel, progress: &dyn Progress) {
    let of = |model: &OpenedModel| match model.embedding {
        Some(embedding) => embedding.to_string(),
        None => "the mean taken by this command".to_owned(),
    };
    progress.warn(&format_args!(
        "the model's embeddings are {}, the reference's {}; compile the model again from a directory with the reference's \
         modules.json",
        of(model),
        of(reference)
    ));
}

/// The task asked for, or the one of a model with this output.
///
/// # Errors
/// [`StageError::Task`].
pub(super) fn task(output: Task, asked: Option<TaskChoice>) -> Result<TaskChoice, StageError> {
    let (fits, output, can) = match output {
        Task::LanguageModel => (TaskChoice::Lm, "next-token logits", "lm, generate"),
        Task::Classifier => (TaskChoice::Classify, "logits of labels", "classify"),
        Task::TokenClassifier => (TaskChoice::Tokens, "logits of labels, token by token", "tokens"),
        Task::Answers => (TaskChoice::Spans, "scores of where an answer starts and ends", "spans"),
        Task::Hidden => (TaskChoice::Embed, "hidden states", "embed"),
        Task::MaskedLanguageModel => (TaskChoice::Mlm, "masked-token logits", "mlm"),
    };
    match asked {
        Some(TaskChoice::Generate) if fits == TaskChoice::Lm => Ok(TaskChoice::Generate),
        Some(asked) if asked != fits => {
            let task = match asked {
                TaskChoice::Lm => "lm",
                TaskChoice::Mlm => "mlm",
                TaskChoice::Classify => "classify",
                TaskChoice::Embed => "embed",
                TaskChoice::Generate => "generate",
                TaskChoice::Tokens => "tokens",
                TaskChoice::Spans => "spans",
            };
            Err(StageError::Task { output, task, can })
        }
        _ => Ok(fits),
    }
}

/// Refuses a reference whose outputs mean something else; whether both have the same tokens in tables that are padded to
/// different sizes, by the tokenizers that are there.
fn compare(model: &OpenedModel, reference: &OpenedModel) -> Result<bool, StageError> {
    let differs = |what, model: String, reference: String| StageError::ReferenceDiffers { what, model, reference };
    let (ours, theirs) = (model.vocabulary, reference.vocabulary);
    if ours != theirs {
        let same = match (model.token_table(), reference.token_table()) {
            (Some(own), Some(other)) => own == other,
            (own, other) => own.or(other).is_some(),
        };
        if !same {
            return Err(differs("vocabulary", ours.to_string(), theirs.to_string()));
        }
    }
    if model.stacks.map(|stacks| stacks.start) != reference.stacks.map(|stacks| stacks.start) {
        let of = |model: &OpenedModel| match model.stacks {
            Some(stacks) => format!("encoder and decoder, begun by token {}", stacks.start),
            None => "one stack".to_owned(),
        };
        return Err(differs("stacks", of(model), of(reference)));
    }
    if model.task != reference.task {
        return Err(differs("what comes out", format!("{:?}", model.task), format!("{:?}", reference.task)));
    }
    let of_tokens = |task| matches!(task, Task::LanguageModel | Task::MaskedLanguageModel);
    if of_tokens(model.task) {
        return Ok(ours != theirs);
    }
    let (ours, theirs) = (model.output_width(), reference.output_width());
    if ours == theirs { Ok(false) } else { Err(differs("width of the output", ours.to_string(), theirs.to_string())) }
}
