//! The work of `slmc eval`: opens a model, its reference and a text, and runs the task the model is for.

use crate::eval::answers::{self, AnswersReport};
use crate::eval::classify::{self, ClassifyReport, Example};
use crate::eval::embed::{self, EmbedReport, Embedder};
use crate::eval::lm::{self, LmReport, MlmReport, Targets};
use crate::eval::opened::{OpenError, OpenedModel, Task, tokenizer_at};
use crate::eval::{Forward, SCHEMA};
use crate::progress::Progress;
use crate::report::Report;
use crate::stages::StageError;
use crate::text::documents::read_documents;
use crate::text::masking::Masking;
use crate::text::records::{read_labelled, read_records};
use crate::text::windows::{decoder_windows, encoder_sequences};
use burn::tensor::Device;
use serde::Serialize;
use slm_runtime::sample::random_u64;
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
}

/// Options of `slmc eval`, checked.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Artifact or directory.
    pub model: PathBuf,
    /// Dense directory.
    pub reference: Option<PathBuf>,
    /// Text.
    pub data: PathBuf,
    /// Task; the model's own if absent.
    pub task: Option<TaskChoice>,
    /// Tokens of a window.
    pub window: usize,
    /// Most windows or texts.
    pub max_windows: usize,
    /// Key of the text in JSONL.
    pub field: Option<String>,
    /// Key of the label in JSONL.
    pub label_field: String,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// Seed of the choice of tokens to hide.
    pub seed: u64,
    /// Most tokens of a generated answer.
    pub answer_tokens: usize,
}

/// Result of `slmc eval`.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum EvalReport {
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
}

impl Report for EvalReport {
    const SCHEMA: &'static str = SCHEMA;

    fn text(&self) -> String {
        match self {
            EvalReport::Lm(report) => report.text(),
            EvalReport::Mlm(report) => report.text(),
            EvalReport::Classify(report) => report.text(),
            EvalReport::Embed(report) => report.text(),
            EvalReport::Answers(report) => report.text(),
        }
    }
}

/// Evaluates.
pub fn evaluate(options: &EvalOptions, device: &Device, progress: &dyn Progress) -> Result<EvalReport, StageError> {
    let model = OpenedModel::open(&options.model, device)?;
    let reference = match &options.reference {
        Some(path) => Some(OpenedModel::open(path, device)?),
        None => None,
    };
    if let Some(reference) = &reference {
        compare(&model, reference)?;
    }
    let task = task(model.task, options.task)?;
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => match (model.tokenizer(), &reference) {
            (Err(OpenError::NoTokenizer { .. }), Some(reference)) => reference.tokenizer()?,
            (tokenizer, _) => tokenizer?,
        },
    };
    tokenizer.check(model.vocabulary)?;
    let against = reference.as_ref().map(|reference| reference as &dyn Forward);
    let context = model.context.min(reference.as_ref().map_or(usize::MAX, |reference| reference.context));
    let subject = model.subject.clone();
    let failed = |source| StageError::Eval { path: options.data.clone(), source };
    match task {
        TaskChoice::Lm => {
            let tokens = read_documents(&options.data, options.field.as_deref(), None)?.tokens(
                &tokenizer,
                &model.ends,
                progress,
            )?;
            let windows = decoder_windows(&tokens, &model.opening, context, options.window, options.max_windows)
                .map_err(|source| StageError::Window { path: options.data.clone(), source })?;
            let metrics = lm::evaluate(&model, against, &windows, progress).map_err(failed)?;
            Ok(EvalReport::Lm(LmReport { metrics, subject }))
        }
        TaskChoice::Mlm => {
            let masking = Masking::of(&tokenizer, model.vocabulary).ok_or(StageError::NoMask)?;
            let mut records = read_records(&options.data, options.field.as_deref())?.noted(progress);
            records.truncate(options.max_windows);
            let mut sequences = encoder_sequences(&tokenizer, &records, context)?;
            warn_of_truncation(sequences.truncated, context, progress);
            let numbered = sequences.tokens.iter_mut().enumerate();
            let hide = |(n, tokens): (usize, &mut Vec<u32>)| masking.hide(tokens, random_u64(options.seed, n as u64));
            let targets: Vec<Targets> = numbered.map(hide).collect();
            let metrics =
                lm::evaluate_targets(&model, against, &sequences.tokens, &targets, progress).map_err(failed)?;
            Ok(EvalReport::Mlm(MlmReport { metrics, subject }))
        }
        TaskChoice::Classify => {
            let field = options.field.as_deref().unwrap_or("text");
            let records = read_labelled(&options.data, field, &options.label_field)?.noted(progress);
            let (mut examples, mut truncated) = (Vec::new(), 0);
            for record in records.into_iter().take(options.max_windows) {
                let (tokens, cut) = tokenizer.encode_within(&record.text, context)?;
                truncated += usize::from(cut);
                examples.push(Example { line: record.line, tokens, label: record.label });
            }
            warn_of_truncation(truncated, context, progress);
            let metrics = classify::evaluate(&model, against, &examples, &model.labels, progress).map_err(failed)?;
            Ok(EvalReport::Classify(ClassifyReport { metrics, subject }))
        }
        TaskChoice::Embed => {
            let mut records = read_records(&options.data, options.field.as_deref())?.noted(progress);
            records.truncate(options.max_windows);
            let sequences = encoder_sequences(&tokenizer, &records, context)?;
            warn_of_truncation(sequences.truncated, context, progress);
            if let Some(reference) = reference.as_ref().filter(|reference| reference.embedding != model.embedding) {
                warn_of_pooling(&model, reference, progress);
            }
            let metrics =
                embed::evaluate(embedder(&model), reference.as_ref().map(embedder), &sequences.tokens, progress);
            let metrics = metrics.map_err(failed)?;
            Ok(EvalReport::Embed(EmbedReport { metrics, subject }))
        }
        TaskChoice::Generate => {
            let field = options.field.as_deref().unwrap_or("prompt");
            let mut records = read_labelled(&options.data, field, &options.label_field)?.noted(progress);
            records.truncate(options.max_windows);
            // An artifact for a device carries no tokenizer: the one found above is then the reference's.
            let directory = options.tokenizer.clone().or_else(|| match model.tokenizer() {
                Err(_) => options.reference.clone(),
                Ok(_) => None,
            });
            let (reference, most) = (reference.as_ref(), options.answer_tokens);
            let report = answers::evaluate(&model, reference, &records, most, directory.as_ref(), progress)?;
            Ok(EvalReport::Answers(report))
        }
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

fn warn_of_truncation(truncated: usize, context: usize, progress: &dyn Progress) {
    if truncated > 0 {
        progress.warn(&format_args!(
            "{truncated} texts are longer than {context} tokens, the longest that is read, and were cut"
        ));
    }
}

/// The task asked for, or the one of a model with this output.
///
/// # Errors
/// [`StageError::Task`].
pub(super) fn task(output: Task, asked: Option<TaskChoice>) -> Result<TaskChoice, StageError> {
    let (fits, output, can) = match output {
        Task::LanguageModel => (TaskChoice::Lm, "next-token logits", "lm, generate"),
        Task::Classifier => (TaskChoice::Classify, "logits of labels", "classify"),
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
            };
            Err(StageError::Task { output, task, can })
        }
        _ => Ok(fits),
    }
}

fn compare(model: &OpenedModel, reference: &OpenedModel) -> Result<(), StageError> {
    let pairs = [
        ("vocabulary", model.vocabulary, reference.vocabulary),
        ("width of the output", model.output_width(), reference.output_width()),
    ];
    for (what, ours, theirs) in pairs {
        if ours != theirs {
            let (model, reference) = (ours.to_string(), theirs.to_string());
            return Err(StageError::ReferenceDiffers { what, model, reference });
        }
    }
    if model.task != reference.task {
        let (model, reference) = (format!("{:?}", model.task), format!("{:?}", reference.task));
        return Err(StageError::ReferenceDiffers { what: "what comes out", model, reference });
    }
    Ok(())
}
