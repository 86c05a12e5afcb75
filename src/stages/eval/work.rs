//! The work of `slmc eval`: opens a model, its reference and a text, and runs the task the model is for.

mod tokens;

use crate::artifact::host::ArtifactFile;
use crate::confidence::Answer;
use crate::divergence::argmax;
use crate::eval::answers::{self, AnswerOptions, AnswersReport, Asked};
use crate::eval::classify::{self, ClassifyReport, Example};
use crate::eval::embed::{self, EmbedReport, Embedder};
use crate::eval::exits;
use crate::eval::extraction::{AnswerIs, Extraction};
use crate::eval::generate::Prompt;
use crate::eval::lm::{self, LmReport, MlmReport, Models, Targets, next_tokens};
use crate::eval::opened::{OpenedModel, Task, tokenizer_at};
use crate::eval::routing::ConfidenceMetrics;
use crate::eval::spans::SpansReport;
use crate::eval::token_labels::TokensReport;
use crate::eval::{EvalError, Forward, SCHEMA};
use crate::model::spec::Stacks;
use crate::progress::Progress;
use crate::report::{Report, Table};
use crate::stages::StageError;
use crate::text::chat_template::{Conversation, Moment};
use crate::text::conversations::{Conversations, Spoken, find_conversations};
use crate::text::documents::read_documents;
use crate::text::file::{ReadNotes, rows_of_files};
use crate::text::form::TextForm;
use crate::text::masking::Masking;
use crate::text::reasoning::{ReasonedFile, ReasoningForm, find_reasoned};
use crate::text::records::{LabelledRecord, Records, TextError, has_key, read_labelled, read_records};
use crate::text::tokenizer::Tokenizer;
use crate::text::windows::{Choice, WindowError, check_window, decoder_windows, encoder_sequences};
use crate::train::samples::{SamplesError, TEXT_FIELD, no_pairs};
use burn::tensor::Device;
use serde::Serialize;
use slm_runtime::exits::confidence;
use slm_runtime::sample::random_u64;
use std::path::{Path, PathBuf};

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

/// The key of a question where none is named.
pub(in crate::stages) const PROMPT: &str = "prompt";

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

    fn language_model(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        if let Some(stacks) = model.stacks {
            return self.pairs(stacks);
        }
        if let Some(conversations) = find_conversations(&options.data, options.form.field.as_deref())? {
            return self.conversations(conversations);
        }
        let documents = read_documents(&options.data, &options.form)?;
        let tokens = documents.tokens(tokenizer, &model.ends, progress)?;
        let cut = decoder_windows(&tokens, &model.opening, self.context(), options.window, usize::MAX);
        let mut windows = cut.map_err(|source| self.bad_window(source))?;
        options.windows.take(&mut windows, options.max_windows);
        let metrics = lm::evaluate_targets(self.models(), &windows, &next_tokens(&windows), progress)
            .map_err(|source| self.failed(source))?;
        let report = LmReport { metrics, answers_only: false, subject: model.subject.clone() };
        Ok((Measured::Lm(report), documents.notes))
    }

    /// Every token of the assistant, given those of the conversation before it.
    fn conversations(&self, conversations: Conversations) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        if let Some(separator) = &options.form.separator {
            let (path, separator) = (options.data.clone(), separator.to_string());
            return Err(TextError::SeparatorOfRows { path, separator }.into());
        }
        check_window(&[], self.context(), options.window).map_err(|source| self.bad_window(source))?;
        let template = model.chat_template(self.directory().as_deref())?;
        let mut file = conversations.spoken(&template, tokenizer, &model.ends)?;
        let mut spoken = file.within(options.window);
        if spoken.is_empty() {
            return Err(SamplesError::NoAnswers { path: options.data.clone(), window: options.window }.into());
        }
        file.notes.warn(progress);
        options.windows.take(&mut spoken, options.max_windows);
        self.said(spoken, file.notes)
    }

    /// What is written of every source, given the source and what is written before it.
    fn pairs(&self, stacks: Stacks) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let found = match options.form == TextForm::default() {
            true => find_reasoned(&options.data, &options.records).map_err(SamplesError::from)?,
            false => None,
        };
        let records = found.ok_or_else(|| no_pairs(&options.data, "the model", &options.records))?;
        let pairs = records.pairs(&options.records, tokenizer, (stacks.start, &model.ends));
        let mut file = pairs.map_err(SamplesError::from)?;
        let lengths = |tokens: &[u32]| {
            let written = model.positions(tokens);
            Some((tokens.len() - written, written))
        };
        let mut spoken = file.fitting(lengths, self.context(), options.window);
        if spoken.is_empty() {
            return Err(SamplesError::NoAnswers { path: options.data.clone(), window: options.window }.into());
        }
        file.notes.warn(progress);
        options.windows.take(&mut spoken, options.max_windows);
        self.said(spoken, file.notes)
    }

    /// Predictions of what is said in sequences.
    fn said(&self, spoken: Vec<Spoken>, notes: ReadNotes) -> Done {
        let Work { model, progress, .. } = *self;
        let targets = |spoken: &Spoken| -> Targets {
            // An encoder gives no rows.
            let source = spoken.tokens.len() - model.positions(&spoken.tokens);
            let places = (1..spoken.tokens.len()).filter(|&place| spoken.said[place]);
            places.map(|place| (place - 1 - source, spoken.tokens[place])).collect()
        };
        let targets: Vec<Targets> = spoken.iter().map(targets).collect();
        let sequences: Vec<Vec<u32>> = spoken.into_iter().map(|spoken| spoken.tokens).collect();
        let metrics = lm::evaluate_targets(self.models(), &sequences, &targets, progress)
            .map_err(|source| self.failed(source))?;
        let report = LmReport { metrics, answers_only: true, subject: model.subject.clone() };
        Ok((Measured::Lm(report), notes))
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

    fn masked(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let masking = Masking::of(tokenizer, model.vocabulary).ok_or(StageError::NoMask)?;
        let (mut sequences, notes) = self.sequences()?;
        let hide = |(n, tokens): (usize, &mut Vec<u32>)| masking.hide(tokens, random_u64(options.seed, n as u64));
        let targets: Vec<Targets> = sequences.iter_mut().enumerate().map(hide).collect();
        let metrics = lm::evaluate_targets(self.models(), &sequences, &targets, progress)
            .map_err(|source| self.failed(source))?;
        Ok((Measured::Mlm(MlmReport { metrics, subject: model.subject.clone() }), notes))
    }

    /// Texts with their labels or answers.
    fn labelled(&self, field: &str) -> Result<(Vec<LabelledRecord>, ReadNotes), StageError> {
        let options = self.options;
        let Records { mut records, notes } = read_labelled(&options.data, &options.form, field, &options.label_field)?;
        options.windows.take(&mut records, options.max_windows);
        Ok((records, notes))
    }

    fn classify(&self) -> Done {
        let Work { model, tokenizer, progress, .. } = *self;
        let (records, mut notes) = self.labelled(TEXT_FIELD)?;
        let (mut examples, mut truncated) = (Vec::new(), 0);
        for record in records {
            let (tokens, cut) = tokenizer.encode_within(&record.text, self.context())?;
            truncated += usize::from(cut);
            examples.push(Example { line: record.line, tokens, label: record.label });
        }
        notes.count_cut(truncated, self.context());
        notes.warn(progress);
        let mut answers = Vec::with_capacity(examples.len());
        let (artifact, bound) = (model.as_artifact(), self.options.route_below);
        let failed = |source| self.failed(source);
        let truth = classify::truth_of(&examples, &model.labels).map_err(failed)?;
        let oos = model.labels.iter().position(|label| label == classify::OUT_OF_SCOPE);
        let metrics = classify::evaluate(model, self.against(), &examples, &model.labels, progress, &mut |row| {
            let (label, truth) = (argmax(row), truth[answers.len()]);
            let answer =
                Answer { confidence: confidence(row, 1.0), right: label == truth, elsewhere: Some(label) == oos };
            answers.push(answer);
        });
        let metrics = metrics.map_err(failed)?;
        let mut exits = None;
        let mut calibrated = false;
        if let Some(file) = artifact {
            let view = file.view()?;
            calibrated = view.heads().len() > 0;
            if calibrated {
                let left = exits::leave(&view, &examples).map_err(failed)?;
                answers = exits::answers(&left, &truth, &model.labels);
                if view.heads().len() > 1 {
                    let labels = (&truth[..], &model.labels[..]);
                    let other =
                        self.reference.and_then(OpenedModel::as_artifact).map(ArtifactFile::view).transpose()?;
                    let views = (&view, other.as_ref());
                    exits = Some(exits::measure(views, &examples, &left, labels, progress).map_err(failed)?);
                }
            }
        }
        let confidence = (calibrated || bound.is_some()).then(|| ConfidenceMetrics::of(&answers, bound));
        let report = ClassifyReport { metrics, exits, confidence, subject: model.subject.clone() };
        Ok((Measured::Classify(report), notes))
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

    fn generate(&self) -> Done {
        let Work { options, model, reference, progress, .. } = *self;
        let directory = self.directory();
        let found = find_questions(&options.data, &options.form, &options.records, &options.label_field)?;
        let (asked, notes, reasoned) = match found {
            Some(records) => self.questions(records, directory.as_deref())?,
            None => {
                let (records, notes) = self.labelled(PROMPT)?;
                let of = |record: LabelledRecord| Asked {
                    prompt: Prompt::Text(record.text),
                    wanted: record.label.to_string(),
                };
                (records.into_iter().map(of).collect(), notes, false)
            }
        };
        notes.warn(progress);
        let own = if reasoned { AnswerIs::Line } else { AnswerIs::Whole };
        let extraction =
            Extraction { answer_is: options.answer_is.unwrap_or(own), after: options.answer_after.clone() };
        let how = AnswerOptions { tokens: options.answer_tokens, tokenizer: directory, extraction };
        let report = answers::evaluate(model, reference, &asked, &how, progress)?;
        Ok((Measured::Answers(report), notes))
    }

    /// As training on these records has it: through the chat template, where there is one, else with the line break before the
    /// answer, which a grammar of the answer has no place for. And whether any has a reasoning.
    fn questions(
        &self,
        mut file: ReasonedFile,
        directory: Option<&Path>,
    ) -> Result<(Vec<Asked>, ReadNotes, bool), StageError> {
        let Work { options, model, .. } = *self;
        options.windows.take(&mut file.records, options.max_windows);
        let template = match model.chat_template(directory) {
            Ok(_) => true,
            Err(EvalError::NoChatTemplate { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let template = template && model.stacks.is_none();
        let prompt = |text: String| match template {
            true => Prompt::Chat(Conversation { moment: Some(Moment::from_unix(0)), ..Conversation::ask(None, &text) }),
            false if model.stacks.is_some() => Prompt::Text(text),
            false => Prompt::Text(text + "\n"),
        };
        let reasoned = file.records.iter().any(|record| record.reasoning.is_some());
        let notes = file.notes().clone();
        let asked =
            file.records.into_iter().map(|record| Asked { prompt: prompt(record.prompt), wanted: record.answer });
        Ok((asked.collect(), notes, reasoned))
    }
}

/// The records with a prompt and an answer of a file, where their keys are named, or where it holds such and no labels, and no
/// text is named.
pub(in crate::stages) fn find_questions(
    file: &Path,
    form: &TextForm,
    records: &ReasoningForm,
    label: &str,
) -> Result<Option<ReasonedFile>, StageError> {
    if !records.is_asked() && (*form != TextForm::default() || has_key(file, label)?) {
        return Ok(None);
    }
    Ok(find_reasoned(file, records).map_err(SamplesError::from)?)
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
