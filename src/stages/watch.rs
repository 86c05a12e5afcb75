//! `slmc watch`: logged requests of a model in the field, beside the data that it was made and measured on.

mod logged;

use super::arguments::groups::{BackendArg, DATA, NumericsArg, RunnableArg, TokenizerArg, without_output};
use super::arguments::{LogFile, ReadFile, path};
use super::error::StageError;
use super::known::{Known, KnownModel};
use super::numerics;
use super::stage::{Arithmetic, Faults, Measures, OnBackend, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use super::texts::{Reads, Texts};
use crate::audit::chain::is_log;
use crate::eval::drift::{self, DriftReport, Sample};
use crate::eval::opened::{OpenedModel, Task, tokenizer_at};
use crate::progress::Progress;
use crate::shell::Shell;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::records::{Record, Records, read_records};
use crate::text::tokenizer::Tokenizer;
use crate::text::windows::{Choice, WindowError};
use burn::tensor::Device;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Say whether what a model is asked has changed, by logged requests
///
/// Confidence, length, tokens that the reference does not have, and of classifiers the labels given: each compared by the
/// population stability index (PSI) and the statistic of Kolmogorov and Smirnov (KS), with bounds. PSI is what is left after
/// taking off what chance alone gives samples of this size; 0.1 is often called a change, 0.25 a large one.
///
/// In a recipe a stage of this kind is for a scheduled job: its log is not in the lock, since it changes from day to day.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc watch out/classifier.slm --log requests.jsonl --field text --data calibration.jsonl
  slmc watch out/mixed.slm --log requests.txt --data valid.txt --json"
)]
pub struct Args {
    #[command(flatten)]
    model: RunnableArg,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// Logged requests: JSONL with a key for the text, a text a line, or an audit log
    ///
    /// An audit log holds digests: its records are joined to the rows of --log-texts by their numbers.
    #[arg(long, value_name = "FILE", help_heading = DATA)]
    log: LogFile,

    /// Texts of the records of an audit log: JSONL with `sequence` and the key of the text
    #[arg(long, value_name = "FILE.jsonl", help_heading = DATA)]
    log_texts: Option<LogFile>,

    /// Texts to compare with, such as those of the calibration
    #[arg(long, value_name = "TEXT", help_heading = DATA)]
    data: ReadFile,

    /// JSONL key of the text, in both files
    #[arg(long, value_name = "KEY", help_heading = DATA)]
    field: Option<String>,

    /// JSONL key of the text in the log, where it is another one
    #[arg(long, value_name = "KEY", help_heading = DATA)]
    log_field: Option<String>,

    /// Most tokens of a text; the rest is left out
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = DATA)]
    window: usize,

    /// Most texts of each file, spread evenly over it [default: all]
    #[arg(long, value_name = "N", help_heading = DATA)]
    max_texts: Option<usize>,

    #[command(flatten)]
    backend: BackendArg,

    #[command(flatten)]
    numerics: NumericsArg,
}

/// Checked options.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Artifact or directory.
    pub model: PathBuf,
    /// Directory with a tokenizer for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// Logged requests.
    pub log: PathBuf,
    /// Their texts, where the log is of records.
    pub log_texts: Option<PathBuf>,
    /// How their texts are told apart.
    pub log_form: TextForm,
    /// The reference.
    pub data: PathBuf,
    /// How its texts are told apart.
    pub form: TextForm,
    /// Most tokens of a text.
    pub window: usize,
    /// Most texts of a file.
    pub max_texts: usize,
}

impl WatchOptions {
    /// Notes what a plan sees in the reference and in the log, of a model that it knows. What an audit log's texts are is seen by
    /// the work.
    pub(super) fn check_texts(&self, model: Option<&KnownModel>, faults: &mut Faults) {
        let tokenizer = self.tokenizer.as_deref();
        let texts = Texts { model, tokenizer, other: None, option: "data", reads: Reads::Records(&self.form) };
        texts.check([&self.data], faults);
        if self.log_texts.is_none() && !is_log(&self.log) {
            Texts { option: "log", reads: Reads::Records(&self.log_form), ..texts }.check([&self.log], faults);
        }
    }
}

/// Numbers that there are none of: bare encoders have no confidence, and only classifiers labels.
pub(super) fn not_of(task: Task) -> Vec<&'static str> {
    let mut lacks = Vec::new();
    if matches!(task, Task::Hidden | Task::Answers) {
        lacks.extend(["confidence_psi", "confidence_ks"]);
    }
    if !matches!(task, Task::Classifier) {
        lacks.push("label_psi");
    }
    lacks
}

/// The kind of stage.
pub struct Watch;

impl Stage for Watch {
    type Args = Args;
    type Options = OnBackend<WatchOptions>;
    const NAME: &'static str = "watch";
    const MAKES: Product = Product::Nothing;
    const REVISION: u32 = 2;
    const ARITHMETIC: Arithmetic = Arithmetic::ExactOnArtifacts;
    const MEASURES: Measures = Measures { own: &MEASURED, also: &["weight_bytes", "file_bytes"] };

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, _run: &RunSettings, known: &Known) -> Resolved<Self::Options> {
        let mut faults = Faults::default();
        if args.max_texts == Some(0) {
            let path = args.log.to_path_buf();
            faults.add("max-texts", StageError::Window { path, source: WindowError::NoneAsked });
        }
        if let Err(source) = check_length(args.window) {
            faults.add("window", StageError::Window { path: args.log.to_path_buf(), source });
        }
        let options = WatchOptions {
            model: args.model.model.to_path_buf(),
            tokenizer: path(&args.tokenizer.tokenizer),
            log: args.log.to_path_buf(),
            log_texts: path(&args.log_texts),
            log_form: TextForm::of_field(args.log_field.as_deref().or(args.field.as_deref())),
            data: args.data.to_path_buf(),
            form: TextForm::of_field(args.field.as_deref()),
            window: args.window,
            max_texts: args.max_texts.unwrap_or(usize::MAX),
        };
        let model = known.planned(&options.model);
        options.check_texts(model, &mut faults);
        let lacks = model.map(|model| not_of(Task::of(&model.spec.head))).unwrap_or_default();
        let device = faults.check("backend", args.backend.device());
        if let Some(device) = &device {
            numerics::check(args.numerics.numerics, device, None, &mut faults);
        }
        Resolved::new(device.map(|device| OnBackend { options, device }), None, faults).lacking(lacks)
    }

    fn run(checked: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome> {
        Outcome::passed(&watch(&checked.options, &checked.device, shell)?)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        words(report)
    }
}

/// Whether texts can be cut to so many tokens: an empty one says nothing.
pub(super) fn check_length(window: usize) -> Result<(), WindowError> {
    if window == 0 { Err(WindowError::TooShort { window, least: 1 }) } else { Ok(()) }
}

/// What was found, in a few words.
pub(super) fn words(report: &Figures<'_>) -> Option<String> {
    Some(format!("{} requests, PSI at most {:.3}", report.count("requests")?, report.number("psi_max")?))
}

/// Numbers that gates may limit.
pub const MEASURED: [&str; 7] = [
    "confidence_psi",
    "length_psi",
    "out_of_vocabulary_psi",
    "label_psi",
    "confidence_ks",
    "length_ks",
    "out_of_vocabulary_ks",
];

/// Compares a log with the reference.
///
/// # Errors
/// Files that cannot be read, a model that cannot be run.
pub fn watch(options: &WatchOptions, device: &Device, progress: &dyn Progress) -> Result<DriftReport, StageError> {
    let model = OpenedModel::open(&options.model, device)?;
    let mut tokenizer = match &options.tokenizer {
        Some(directory) => tokenizer_at(directory)?,
        None => model.tokenizer()?,
    };
    tokenizer.check(model.vocabulary)?;
    let reader = Reader { options, model: &model, tokenizer: &tokenizer, progress };
    let records = read_records(&options.data, &options.form)?;
    let (reference, reference_notes) = reader.texts(&options.data, records)?;
    let (log, log_notes) = reader.texts(&options.log, logged::read(options, progress)?)?;
    let scored = |path: &Path, tokens: &[Vec<u32>]| {
        let found = drift::quantities(&model, model.task, tokens, progress);
        found.map_err(|source| StageError::Eval { path: path.to_owned(), source })
    };
    let own = scored(&options.data, &reference)?;
    let other = scored(&options.log, &log)?;
    let samples = (Sample { tokens: &reference, quantities: &own }, Sample { tokens: &log, quantities: &other });
    let notes = vec![reference_notes, log_notes];
    drift::compare(samples.0, samples.1, &model.labels, model.subject.clone(), notes)
        .map_err(|source| StageError::Eval { path: options.log.clone(), source })
}

struct Reader<'r> {
    options: &'r WatchOptions,
    model: &'r OpenedModel,
    tokenizer: &'r Tokenizer,
    progress: &'r dyn Progress,
}

impl Reader<'_> {
    /// Every text of a file as tokens, as the model is asked with it.
    fn texts(&self, path: &Path, records: Records<Record>) -> Result<(Vec<Vec<u32>>, ReadNotes), StageError> {
        let Reader { options, model, tokenizer, progress } = self;
        let (mut records, mut notes) = (records.records, records.notes);
        Choice::Spread.take(&mut records, options.max_texts);
        let most = options.window.min(model.context).max(1);
        let (mut sequences, mut cut, mut empty) = (Vec::with_capacity(records.len()), 0, 0);
        for record in &records {
            let (tokens, truncated) = match model.task {
                Task::LanguageModel => {
                    let mut tokens = model.opening.clone();
                    tokens.extend(tokenizer.encode_plain(&record.text)?);
                    let longer = tokens.len() > most;
                    tokens.truncate(most);
                    (tokens, longer)
                }
                _ => tokenizer.encode_within(&record.text, most)?,
            };
            cut += usize::from(truncated);
            if tokens.is_empty() {
                empty += 1;
            } else {
                sequences.push(tokens);
            }
        }
        if empty > 0 {
            let path = path.display();
            let texts = if empty == 1 { "text has" } else { "texts have" };
            progress.warn(&format_args!("{path}: {empty} {texts} no tokens; left out"));
        }
        notes.count_cut(cut, most);
        notes.warn(*progress);
        Ok((sequences, notes))
    }
}
