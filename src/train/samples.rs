//! Files to samples, by task: windows of text for causal models, lines for masked ones, labelled lines for classifiers.

use super::data::Samples;
use crate::model::companions::Companions;
use crate::model::families::has_classifier;
use crate::model::spec::{Head, ModelKind, ModelSpec, Stacks};
use crate::progress::Progress;
use crate::text::chat_template::ChatTemplate;
use crate::text::conversations::{ConversationsError, SpokenFile, read_conversations};
use crate::text::documents::read_documents;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::masking::Masking;
use crate::text::reasoning::{ReasoningError, ReasoningForm, find_reasoned};
use crate::text::records::{Label, LabelledRecord, Records, TextError, read_labelled, read_records};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::text::windows::{WindowError, check_window, decoder_windows, encoder_sequences};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Training task of a model.
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

/// The field of a text with a label where none is named.
pub const TEXT_FIELD: &str = "text";

/// Files of text and how they are read.
#[derive(Clone, Debug)]
pub struct Data {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// How their texts are told apart.
    pub form: TextForm,
    /// Key of the label in JSONL.
    pub label_field: String,
    /// How records with reasoning and answers are read.
    pub reasoning: ReasoningForm,
}

/// The samples of files.
#[derive(Clone, Debug)]
pub struct ReadSamples {
    /// Texts as tokens.
    pub samples: Samples,
    /// The changes of reading each file, in order; none for samples of a model itself.
    pub files: Vec<ReadNotes>,
}

/// Why the files give no samples.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// A file cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A text gives no windows.
    #[error("{}: {source}", path.display())]
    Window {
        /// The text.
        path: PathBuf,
        /// The fault.
        source: WindowError,
    },
    /// Conversations cannot be read.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// Records with reasoning and answers cannot be read.
    #[error(transparent)]
    Reasoning(#[from] ReasoningError),
    /// Such records for a model that does not continue text.
    #[error(
        "{}: --loss-on and the options of records with reasoning are for --task clm, which learns what comes next; leave them out",
        path.display()
    )]
    ReasoningTask {
        /// The file.
        path: PathBuf,
    },
    /// Conversations in which nobody answers.
    #[error("{}: no conversation has an answer of the assistant within {window} tokens; use a larger --window", path.display())]
    NoAnswers {
        /// The file.
        path: PathBuf,
        /// Most tokens of a sample.
        window: usize,
    },
    /// A label the model does not have.
    #[error("{}:{line}: label `{label}` is not among the labels of the model's configuration: {known}; correct it, or start from a \
         configuration whose id2label has all labels of the data", path.display())]
    UnknownLabel {
        /// File.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The label.
        label: String,
        /// Names of the known labels, or the first of them.
        known: String,
    },
    /// Some rows name their class, others number it.
    #[error("some labels are names, such as `{name}`, and others numbers, such as {id}; write all of them one way")]
    MixedLabels {
        /// A name.
        name: String,
        /// A number.
        id: u64,
    },
    /// A class number that no classifier has.
    #[error("label {id} would make a classifier of more than {most} classes; number the classes from 0 without gaps")]
    LabelTooLarge {
        /// The largest number.
        id: u64,
        /// Most classes.
        most: u64,
    },
    /// A file without prompts and answers, for an encoder-decoder.
    #[error(
        "{}: the rows need `{}` and `{}`, since {family} is an encoder-decoder, which writes the one of the other; name other keys \
         with --prompt-field and --answer-field",
        path.display(), keys[0], keys[1]
    )]
    NoPairs {
        /// The file.
        path: PathBuf,
        /// The model.
        family: &'static str,
        /// Keys of the text that is read and of the one that is written.
        keys: [String; 2],
    },
    /// The model is for another task.
    #[error("--task {task} does not suit this model; it can be trained for {can}")]
    Task {
        /// Asked for.
        task: &'static str,
        /// The tasks that suit it.
        can: &'static str,
    },
    /// The tokenizer has no token for hidden ones.
    #[error("the tokenizer has no [MASK] token, which --task mlm needs")]
    NoMask,
}

/// The error of a file that an encoder-decoder of a family cannot be given.
pub fn no_pairs(file: &Path, family: &'static str, form: &ReasoningForm) -> SamplesError {
    SamplesError::NoPairs { path: file.to_owned(), family, keys: [form.prompt.clone(), form.answer.clone()] }
}

/// The task a model is for.
pub fn own_task(spec: &ModelSpec) -> TrainTask {
    match (&spec.head, spec.kind) {
        (Head::Classifier { .. } | Head::LastClassifier { .. }, _) => TrainTask::Classify,
        (_, ModelKind::Decoder | ModelKind::EncoderDecoder(_)) => TrainTask::Clm,
        _ => TrainTask::Mlm,
    }
}

/// What is said in a file: records with answers, where they are asked for or no text is named and the file holds no
/// conversations; or conversations. `None` where it holds texts.
fn said_in(
    file: &Path,
    data: &Data,
    (spec, companions): (&ModelSpec, &Companions),
    tokenizer: &Tokenizer,
) -> Result<Option<SpokenFile>, SamplesError> {
    let field = data.form.field.as_deref();
    if !data.reasoning.is_asked()
        && let Some(spoken) = read_conversations(file, field, companions, tokenizer, &spec.ends)?
    {
        return Ok(Some(spoken));
    }
    if field.is_some() || data.form.separator.is_some() {
        return Ok(None);
    }
    let Some(records) = find_reasoned(file, &data.reasoning)? else { return Ok(None) };
    let template = ChatTemplate::of(companions).map_err(ReasoningError::from)?;
    Ok(Some(records.spoken(&data.reasoning, template.as_ref(), tokenizer, (&spec.opening, &spec.ends))?))
}

/// Records of an encoder-decoder: prompts, and what is written of them.
fn pairs(
    data: &Data,
    (spec, stacks): (&ModelSpec, Stacks),
    tokenizer: &Tokenizer,
    window: usize,
    progress: &dyn Progress,
) -> Result<ReadSamples, SamplesError> {
    let (mut sequences, mut said, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for file in &data.files {
        let records = match data.form == TextForm::default() {
            true => find_reasoned(file, &data.reasoning)?,
            // Its texts are told apart otherwise than by prompts and answers.
            false => None,
        };
        let records = records.ok_or_else(|| no_pairs(file, spec.family, &data.reasoning))?;
        let mut spoken = records.pairs(&data.reasoning, tokenizer, (stacks.start, &spec.ends))?;
        let lengths = |tokens: &[u32]| spec.split(tokens).map(|(source, target)| (source.len(), target.len()));
        let fitting = spoken.fitting(lengths, spec.context, window);
        if fitting.is_empty() {
            return Err(SamplesError::NoAnswers { path: file.clone(), window });
        }
        spoken.notes.warn(progress);
        files.push(spoken.notes);
        for pair in fitting {
            sequences.push(pair.tokens);
            said.push(pair.said);
        }
    }
    Ok(ReadSamples { samples: Samples::Answers { sequences, said }, files })
}

/// Windows of texts, and conversations. Where there are both, every token of a window is learned.
fn causal(
    data: &Data,
    (spec, companions): (&ModelSpec, &Companions),
    tokenizer: &Tokenizer,
    window: usize,
    progress: &dyn Progress,
) -> Result<ReadSamples, SamplesError> {
    let (mut sequences, mut said, mut masked, mut files) = (Vec::new(), Vec::new(), false, Vec::new());
    for file in &data.files {
        let of_window = |source| SamplesError::Window { path: file.clone(), source };
        let Some(mut spoken) = said_in(file, data, (spec, companions), tokenizer)? else {
            let documents = read_documents(file, &data.form)?;
            let tokens = documents.tokens(tokenizer, &spec.ends, progress)?;
            files.push(documents.notes);
            let cut = decoder_windows(&tokens, &spec.opening, spec.context, window, usize::MAX).map_err(of_window)?;
            said.extend(cut.iter().map(|window| vec![true; window.len()]));
            sequences.extend(cut);
            continue;
        };
        check_window(&[], spec.context, window).map_err(of_window)?;
        let conversations = spoken.within(window);
        masked = true;
        if conversations.is_empty() {
            return Err(SamplesError::NoAnswers { path: file.clone(), window });
        }
        spoken.notes.warn(progress);
        files.push(spoken.notes);
        for spoken in conversations {
            sequences.push(spoken.tokens);
            said.push(spoken.said);
        }
    }
    let samples = if masked { Samples::Answers { sequences, said } } else { Samples::Causal(sequences) };
    Ok(ReadSamples { samples, files })
}

/// Reads every file. Every record of a JSONL file is a document that ends with the model's end token, or a conversation, which
/// goes through the chat template among the model's `companions` and is a sample of its own.
pub fn read(
    data: &Data,
    task: TrainTask,
    (spec, companions): (&ModelSpec, &Companions),
    tokenizer: &Tokenizer,
    window: usize,
    progress: &dyn Progress,
) -> Result<ReadSamples, SamplesError> {
    if data.reasoning.is_asked() && task != TrainTask::Clm {
        return Err(SamplesError::ReasoningTask { path: data.files.first().cloned().unwrap_or_default() });
    }
    match (task, &spec.head, spec.kind) {
        (TrainTask::Clm, Head::LanguageModel { .. }, ModelKind::EncoderDecoder(stacks)) => {
            pairs(data, (spec, stacks), tokenizer, window, progress)
        }
        (TrainTask::Clm, Head::LanguageModel { .. }, ModelKind::Decoder) => {
            causal(data, (spec, companions), tokenizer, window, progress)
        }
        (TrainTask::Mlm, Head::MaskedLanguageModel { .. }, _) => {
            let masking = Masking::of(tokenizer, spec.vocabulary).ok_or(SamplesError::NoMask)?;
            let (mut sequences, mut files) = (Vec::new(), Vec::new());
            for file in &data.files {
                let Records { records, mut notes } = read_records(file, &data.form)?;
                let most = window.min(spec.context);
                let read = encoder_sequences(tokenizer, &records, most)?;
                notes.count_cut(read.truncated, most);
                notes.warn(progress);
                sequences.extend(read.tokens);
                files.push(notes);
            }
            Ok(ReadSamples { samples: Samples::Masked { sequences, masking }, files })
        }
        (TrainTask::Classify, Head::Classifier { labels: known, .. } | Head::LastClassifier { labels: known }, _) => {
            let (mut sequences, mut labels, mut files) = (Vec::new(), Vec::new(), Vec::new());
            for file in &data.files {
                let Records { records, mut notes } = read_labelled(file, &data.form, TEXT_FIELD, &data.label_field)?;
                let (most, mut cut) = (window.min(spec.context), 0);
                check_labels(file, &records, known)?;
                for record in records {
                    let Some(label) = record.label.class(known) else { continue };
                    let (tokens, is_cut) = tokenizer.encode_within(&record.text, most)?;
                    cut += usize::from(is_cut);
                    sequences.push(tokens);
                    labels.push(label as u32);
                }
                notes.count_cut(cut, most);
                notes.warn(progress);
                files.push(notes);
            }
            Ok(ReadSamples { samples: Samples::Classified { sequences, labels }, files })
        }
        (task, ..) => Err(unsuited(task, spec)),
    }
}

/// Whether a model can be trained for a task; a bare encoder, or a decoder in place of its head, is given a classifier where
/// the task needs one.
///
/// # Errors
/// [`SamplesError::Task`].
pub fn check_task(task: TrainTask, spec: &ModelSpec) -> Result<(), SamplesError> {
    match (task, &spec.head, spec.kind) {
        (TrainTask::Clm, Head::LanguageModel { .. }, ModelKind::Decoder | ModelKind::EncoderDecoder(_))
        | (TrainTask::Mlm, Head::MaskedLanguageModel { .. }, _)
        | (TrainTask::Classify, Head::Classifier { .. } | Head::LastClassifier { .. } | Head::Hidden, _) => Ok(()),
        (TrainTask::Classify, Head::LanguageModel { .. }, _) if has_classifier(spec.family) => Ok(()),
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
        Head::Classifier { .. } | Head::LastClassifier { .. } => "classify",
        Head::TokenClassifier { .. } | Head::Answers { .. } => {
            "none: labels of tokens and places of answers are not trained here; train it elsewhere and import it"
        }
        Head::Hidden => "classify, once it has labels: the data of --task classify gives them",
    };
    SamplesError::Task { task, can }
}

/// Refuses a label that a classifier does not have.
///
/// # Errors
/// [`SamplesError::UnknownLabel`].
pub fn check_labels(file: &Path, records: &[LabelledRecord], known: &[String]) -> Result<(), SamplesError> {
    match records.iter().find(|record| record.label.class(known).is_none()) {
        None => Ok(()),
        Some(record) => Err(SamplesError::UnknownLabel {
            path: file.to_owned(),
            line: record.line,
            label: record.label.to_string(),
            known: name_some(known),
        }),
    }
}

/// The names of classes for an error: all of a few, the first of many.
fn name_some(names: &[String]) -> String {
    const MOST: usize = 8;
    let some = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{some} and {} more", names.len() - MOST) } else { some }
}

/// Most classes that numbered labels may make.
const MOST_CLASSES: u64 = 65_536;

/// The names of the classes that labels give a new classifier: names sorted, or `LABEL_0` to the largest number, as
/// transformers names classes without names.
pub fn class_names(labels: &BTreeSet<Label>) -> Result<Vec<String>, SamplesError> {
    let name = labels.iter().find_map(|label| match label {
        Label::Name(name) => Some(name),
        Label::Id(_) => None,
    });
    let largest = labels.iter().filter_map(|label| match label {
        Label::Id(id) => Some(*id),
        Label::Name(_) => None,
    });
    match (name, largest.max()) {
        (Some(name), Some(id)) => Err(SamplesError::MixedLabels { name: name.clone(), id }),
        (None, Some(id)) if id >= MOST_CLASSES => Err(SamplesError::LabelTooLarge { id, most: MOST_CLASSES }),
        (None, Some(id)) => Ok((0..=id).map(|id| format!("LABEL_{id}")).collect()),
        (_, None) => Ok(labels.iter().map(Label::to_string).collect()),
    }
}
