//! Files to samples, by task: windows of text for causal models, lines for masked ones, labelled lines for classifiers.

use super::data::Samples;
use crate::model::companions::Companions;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::progress::Progress;
use crate::text::conversations::{ConversationsError, read_conversations};
use crate::text::documents::read_documents;
use crate::text::masking::Masking;
use crate::text::records::{TextError, read_labelled, read_records};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::text::windows::{WindowError, check_window, decoder_windows, encoder_sequences};
use std::path::PathBuf;

/// What a model is trained to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainTask {
    /// Predict the next token
    Clm,
    /// Predict hidden tokens
    Mlm,
    /// Name a text's label
    Classify,
}

/// Files and how to read them.
#[derive(Clone, Debug)]
pub struct Data {
    /// In order.
    pub files: Vec<PathBuf>,
    /// Key of the text in JSONL.
    pub field: Option<String>,
    /// Key of the label in JSONL.
    pub label_field: String,
}

/// Why files give no samples.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// Of a file.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of the windows.
    #[error("{}: {source}", path.display())]
    Window {
        /// The text.
        path: PathBuf,
        /// What is wrong with it.
        source: WindowError,
    },
    /// Of conversations.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// Conversations in which nobody answers.
    #[error("{}: no conversation has an answer of the assistant within {window} tokens; use a larger --window", path.display())]
    NoAnswers {
        /// The file.
        path: PathBuf,
        /// Most tokens of a sample.
        window: usize,
    },
    /// A label the model does not have.
    #[error("{}:{line}: label `{label}` is not among the {known} labels of the model's configuration", path.display())]
    UnknownLabel {
        /// File.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Its label.
        label: String,
        /// Labels there are.
        known: usize,
    },
    /// The model does something else.
    #[error("--task {task} does not suit this model; it can be trained for {can}")]
    Task {
        /// Asked for.
        task: &'static str,
        /// What suits.
        can: &'static str,
    },
    /// The tokenizer has no token for hidden ones.
    #[error("the tokenizer has no [MASK] token, which --task mlm needs")]
    NoMask,
}

/// The task a model is for.
pub fn own_task(spec: &ModelSpec) -> TrainTask {
    match (&spec.head, spec.kind) {
        (Head::Classifier { .. }, _) => TrainTask::Classify,
        (_, ModelKind::Decoder) => TrainTask::Clm,
        _ => TrainTask::Mlm,
    }
}

/// Windows of texts, and conversations. Where there are both, every token of a window is learned.
fn causal(
    data: &Data,
    (spec, companions): (&ModelSpec, &Companions),
    tokenizer: &Tokenizer,
    window: usize,
    progress: &dyn Progress,
) -> Result<Samples, SamplesError> {
    let (mut sequences, mut said, mut masked) = (Vec::new(), Vec::new(), false);
    for file in &data.files {
        let field = data.field.as_deref();
        let of_window = |source| SamplesError::Window { path: file.clone(), source };
        let Some(conversations) = read_conversations(file, field, companions, tokenizer, &spec.ends)? else {
            let tokens = read_documents(file, field)?.tokens(tokenizer, &spec.ends, progress)?;
            let cut = decoder_windows(&tokens, &spec.opening, spec.context, window, usize::MAX).map_err(of_window)?;
            said.extend(cut.iter().map(|window| vec![true; window.len()]));
            sequences.extend(cut);
            continue;
        };
        check_window(&[], spec.context, window).map_err(of_window)?;
        let (count, before, mut cut) = (conversations.len(), sequences.len(), 0);
        for mut spoken in conversations {
            cut += usize::from(spoken.tokens.len() > window);
            spoken.tokens.truncate(window);
            spoken.said.truncate(window);
            if spoken.said.iter().skip(1).any(|&said| said) {
                sequences.push(spoken.tokens);
                said.push(spoken.said);
            }
        }
        masked = true;
        let learned = sequences.len() - before;
        if learned == 0 {
            return Err(SamplesError::NoAnswers { path: file.clone(), window });
        }
        if learned < count || cut > 0 {
            progress.warn(&format_args!(
                "{}: of {count} conversations, {cut} are cut to {window} tokens (--window), and {} left out, in which \
                 the assistant says nothing",
                file.display(),
                count - learned
            ));
        }
    }
    Ok(if masked { Samples::Answers { sequences, said } } else { Samples::Causal(sequences) })
}

/// Reads every file. Of JSONL, every record is a document that ends with the model's end token, or a conversation, which
/// goes through the chat template among the model's `companions` and is a sample of its own.
pub fn read(
    data: &Data,
    task: TrainTask,
    (spec, companions): (&ModelSpec, &Companions),
    tokenizer: &Tokenizer,
    window: usize,
    progress: &dyn Progress,
) -> Result<Samples, SamplesError> {
    match (task, &spec.head, spec.kind) {
        (TrainTask::Clm, Head::LanguageModel { .. }, ModelKind::Decoder) => {
            causal(data, (spec, companions), tokenizer, window, progress)
        }
        (TrainTask::Mlm, Head::MaskedLanguageModel { .. }, _) => {
            let masking = Masking::of(tokenizer, spec.vocabulary).ok_or(SamplesError::NoMask)?;
            let mut sequences = Vec::new();
            for file in &data.files {
                let records = read_records(file, data.field.as_deref())?;
                sequences.extend(encoder_sequences(tokenizer, &records, window.min(spec.context))?.tokens);
            }
            Ok(Samples::Masked { sequences, masking })
        }
        (TrainTask::Classify, Head::Classifier { labels: known }, _) => {
            let (mut sequences, mut labels) = (Vec::new(), Vec::new());
            for file in &data.files {
                let field = data.field.as_deref().unwrap_or("text");
                for record in read_labelled(file, field, &data.label_field)? {
                    let label = known.iter().position(|name| *name == record.label);
                    let label = label.ok_or_else(|| SamplesError::UnknownLabel {
                        path: file.clone(),
                        line: record.line,
                        label: record.label.clone(),
                        known: known.len(),
                    })?;
                    sequences.push(tokenizer.encode_within(&record.text, window.min(spec.context))?.0);
                    labels.push(label as u32);
                }
            }
            Ok(Samples::Classified { sequences, labels })
        }
        (task, ..) => Err(unsuited(task, spec)),
    }
}

/// Whether a model can be trained for a task; a bare encoder is given what classification needs.
///
/// # Errors
/// [`SamplesError::Task`].
pub fn check_task(task: TrainTask, spec: &ModelSpec) -> Result<(), SamplesError> {
    match (task, &spec.head, spec.kind) {
        (TrainTask::Clm, Head::LanguageModel { .. }, ModelKind::Decoder)
        | (TrainTask::Mlm, Head::MaskedLanguageModel { .. }, _)
        | (TrainTask::Classify, Head::Classifier { .. } | Head::Hidden, _) => Ok(()),
        _ => Err(unsuited(task, spec)),
    }
}

fn unsuited(task: TrainTask, spec: &ModelSpec) -> SamplesError {
    let task = match task {
        TrainTask::Clm => "clm",
        TrainTask::Mlm => "mlm",
        TrainTask::Classify => "classify",
    };
    let can = match &spec.head {
        Head::LanguageModel { .. } => "clm",
        Head::MaskedLanguageModel { .. } => "mlm",
        Head::Classifier { .. } => "classify",
        Head::Hidden => "classify, once it has labels: the data of --task classify gives them",
    };
    SamplesError::Task { task, can }
}
