//! `slmc eval`: a model measured on text, and how far it is from a reference.

mod work;

use super::arguments::groups::{
    BackendArg, DATA, MODEL_AND_OUTPUT, NumericsArg, RecordKeys, RunnableArg, TextArgs, TokenizerArg, without_output,
};
use super::arguments::{AnyModel, LogFile, ReadFile, path};
use super::error::StageError;
use super::known::{Known, comparable_tokens};
use super::numerics;
use super::prediction::{self, Prediction};
use super::stage::{Arithmetic, Faults, Measures, OnBackend, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use super::texts::{Reads, Texts};
use super::watch::{self, MEASURED, WatchOptions, check_length, watch};
use crate::confidence::check_bound;
use crate::eval::BATCH_BYTES;
use crate::eval::extraction::AnswerIs;
use crate::eval::opened::Task;
use crate::model::spec::ModelSpec;
use crate::shell::Shell;
use crate::text::windows::{Choice, WindowError, check_window};
use crate::train::samples::TEXT_FIELD;
use anyhow::anyhow;
use serde_json::Value;
pub use work::{EvalOptions, EvalReport, Measured, TaskChoice, evaluate};
pub(super) use work::{PROMPT, find_questions};

/// Measure a model on text, and how far it is from a reference
///
/// An artifact is run by the integers the device computes, a directory in f32; the report says which. Language models:
/// perplexity, and with a reference the KL divergence in nats and the share of equal first choices; masked ones over
/// tokens hidden by --seed. Classifiers: accuracy. Bare encoders: cosine of sentence embeddings.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc eval out/mixed.slm --data valid.txt --reference models/tales-6m
  slmc eval out/classifier.slm --task classify --data test.jsonl --field text
  slmc eval out/mixed.slm --data valid.txt --window 256 --max-windows 64 --json"
)]
pub struct Args {
    #[command(flatten)]
    model: RunnableArg,

    /// Dense directory to compare with
    ///
    /// Usually the checkpoint that the model was made from.
    #[arg(long, value_name = "DIR", help_heading = MODEL_AND_OUTPUT)]
    reference: Option<AnyModel>,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// Text to measure on: plain text, JSONL with --field, or conversations
    ///
    /// Encoders take every line as a text of its own. Conversations are rows with a list `messages`, which go through the chat
    /// template; only what the assistant says is measured in them.
    #[arg(long, value_name = "TEXT", help_heading = DATA)]
    data: ReadFile,

    /// Logged requests to compare with the text of --data: what `slmc watch` does
    ///
    /// Confidence, length, tokens that the text does not have, and of classifiers the labels given. In a recipe that is a stage
    /// of the kind `watch`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "task"], help_heading = DATA)]
    log: Option<LogFile>,

    /// Texts of the records of --log, where that is an audit log: JSONL with `sequence` and the key of the text
    #[arg(long, value_name = "FILE.jsonl", requires = "log", help_heading = DATA)]
    log_texts: Option<LogFile>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    records: RecordKeys,

    /// Tokens per window
    ///
    /// The tokens that a text opens with are counted. Conversations are cut to it.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = DATA)]
    window: usize,

    /// Most windows, or texts for encoders [default: all]
    #[arg(long, value_name = "N", help_heading = DATA)]
    max_windows: Option<usize>,

    /// Which ones, where there are more: spread, first
    ///
    /// spread: evenly over the whole text, so that the figures are of all of it and not of how it begins.
    #[arg(long, value_name = "WHICH", value_enum, default_value = "spread", hide_possible_values = true, help_heading = DATA)]
    windows: Choice,

    /// What to measure [default: the model's own task]
    #[arg(long, value_name = "TASK", value_enum, help_heading = MEASURE)]
    task: Option<TaskChoice>,

    /// Most tokens per generated answer
    ///
    /// For --task generate.
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = MEASURE)]
    answer_tokens: usize,

    /// Answer in a generated text: whole, line, number
    ///
    /// For --task generate. line: the last line that is not blank; number: the last number. Both are compared in one spelling,
    /// see docs/gates.md. By default line where the rows have a reasoning before their answer, else whole.
    #[arg(long, value_name = "PART", value_enum, hide_possible_values = true, help_heading = MEASURE)]
    answer_is: Option<AnswerIs>,

    /// Text that stands before the answer, such as '####'
    ///
    /// For --task generate. What stands before its last occurrence is not looked at; a text without it has no answer.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = MEASURE)]
    answer_after: Option<String>,

    /// Ask elsewhere where the label's probability is below P
    ///
    /// For classifiers: the report says how many texts are answered then, and how accurately; a text whose label is `oos` is asked
    /// elsewhere whatever its probability.
    #[arg(long, value_name = "P", help_heading = MEASURE)]
    route_below: Option<f32>,

    #[command(flatten)]
    backend: BackendArg,

    #[command(flatten)]
    numerics: NumericsArg,
}

/// Heading of the options for the measurement.
const MEASURE: &str = "Measurement";

/// Stated as well: sizes, and with `--log` what `watch` states.
const ALSO: [&str; 2 + MEASURED.len()] = {
    let mut all = ["weight_bytes"; 2 + MEASURED.len()];
    all[1] = "file_bytes";
    let mut next = 0;
    while next < MEASURED.len() {
        all[2 + next] = MEASURED[next];
        next += 1;
    }
    all
};

/// The kind of stage.
pub struct Eval;

impl Args {
    /// What the work will take, where the models are known.
    fn predicted(&self, known: &Known) -> Prediction {
        let Some(model) = known.planned(&self.model.model) else { return Prediction::default() };
        let reference = self.reference.as_ref().and_then(|path| known.planned(path));
        let spec = &model.spec;
        let all = prediction::tokens_of(&[self.data.to_path_buf()], spec.vocabulary);
        let most = self.max_windows.map_or(u64::MAX, |most| (most as u64).saturating_mul(self.window as u64));
        let tokens = all.min(most);
        let of_reference = reference.map_or(0, |model| prediction::forward_macs(&model.spec, self.window));
        let held = |spec: &ModelSpec| 4 * spec.parameter_count();
        // A batch of outputs of each model, but no more than there is, and a window at least.
        let row = size_of::<f32>() as u64 * spec.output_width() as u64;
        let window = row.saturating_mul(self.window as u64);
        let models = 1 + u64::from(self.reference.is_some());
        let outputs = models.saturating_mul(row.saturating_mul(tokens).min(BATCH_BYTES as u64).max(window));
        Prediction {
            peak_memory_bytes: Some(held(spec) + reference.map_or(0, |model| held(&model.spec)) + outputs + (64 << 20)),
            work_macs: Some(tokens.saturating_mul(prediction::forward_macs(spec, self.window) + of_reference)),
            ..Prediction::default()
        }
    }

    /// Notes faults that the models of a plan show; gives the task, where that is known.
    fn check(&self, known: &Known, faults: &mut Faults) -> Option<TaskChoice> {
        if let Some(reference) = &self.reference {
            faults.check("reference", comparable_tokens(known, ("model", &self.model.model), ("reference", reference)));
        }
        let model = known.planned(&self.model.model)?;
        if self.log.is_some() {
            return None;
        }
        let spec = &model.spec;
        let task = faults.check("task", work::task(Task::of(&spec.head), self.task))?;
        let reference = self.reference.as_ref().and_then(|path| known.planned(path));
        let context = spec.context.min(reference.map_or(usize::MAX, |reference| reference.spec.context));
        let (form, records, label) = (self.text.form(), self.records.form(), self.text.label_field.as_str());
        let reads = match task {
            TaskChoice::Lm if spec.stacks().is_some() => Reads::Pairs(&records),
            TaskChoice::Lm => Reads::Windows(&form, self.window, 1),
            TaskChoice::Mlm | TaskChoice::Embed => Reads::Records(&form),
            TaskChoice::Classify => Reads::Labelled(&form, TEXT_FIELD, label),
            TaskChoice::Generate => Reads::Questions(&form, &records, label),
            TaskChoice::Tokens => Reads::Words(&form, label),
            TaskChoice::Spans => Reads::Answers(&form, label),
        };
        let tokenizer = path(&self.tokenizer.tokenizer);
        let texts =
            Texts { model: Some(model), tokenizer: tokenizer.as_deref(), other: reference, option: "data", reads };
        texts.check([&*self.data], faults);
        if task == TaskChoice::Lm
            && let Err(source) = check_window(&spec.opening, context, self.window)
        {
            faults.add("window", StageError::Window { path: self.data.to_path_buf(), source });
        }
        Some(task)
    }
}

impl EvalOptions {
    /// What `slmc watch` is asked, where there is a log.
    fn watched(&self) -> Option<WatchOptions> {
        Some(WatchOptions {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            log: self.log.clone()?,
            log_texts: self.log_texts.clone(),
            log_form: self.form.clone(),
            data: self.data.clone(),
            form: self.form.clone(),
            window: self.window,
            max_texts: self.max_windows,
        })
    }
}

/// Numbers that a task gives no report of.
fn not_of_task(task: TaskChoice) -> Vec<&'static str> {
    let given: &[&str] = match task {
        TaskChoice::Lm | TaskChoice::Mlm => &["kld_mean", "perplexity", "top1_agreement"],
        TaskChoice::Classify | TaskChoice::Tokens => &["accuracy", "kld_mean", "top1_agreement"],
        TaskChoice::Generate => &["exact_match"],
        TaskChoice::Spans => &["exact_match", "top1_agreement"],
        TaskChoice::Embed => &["cosine_mean"],
    };
    Eval::MEASURES.own.iter().copied().filter(|number| !given.contains(number)).collect()
}

impl Stage for Eval {
    type Args = Args;
    type Options = OnBackend<EvalOptions>;
    const NAME: &'static str = "eval";
    const MAKES: Product = Product::Nothing;
    const REVISION: u32 = 1;
    const ARITHMETIC: Arithmetic = Arithmetic::ExactOnArtifacts;
    const MEASURES: Measures = Measures {
        own: &["kld_mean", "perplexity", "top1_agreement", "accuracy", "exact_match", "cosine_mean"],
        also: &ALSO,
    };

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Self::Options> {
        let mut faults = Faults::default();
        let task = args.check(known, &mut faults);
        if args.max_windows == Some(0) {
            let path = args.data.to_path_buf();
            faults.add("max-windows", StageError::Window { path, source: WindowError::NoneAsked });
        }
        let of_answers = [
            ("answer-is", args.answer_is.is_some()),
            ("answer-after", args.answer_after.is_some()),
            ("prompt-field", args.records.prompt_field.is_some()),
            ("answer-field", args.records.answer_field.is_some()),
        ];
        for (option, _) in of_answers.into_iter().filter(|(_, given)| *given && args.task != Some(TaskChoice::Generate))
        {
            faults.add(option, anyhow!("--{option} is about generated answers; add --task generate, or leave it out"));
        }
        if args.text.field.is_some() && args.records.form().is_asked() {
            let error = "--field says that the answer is a label beside the text, --prompt-field and --answer-field that the file \
                         holds records with a prompt and an answer; leave one out";
            faults.add("field", anyhow!(error));
        }
        if let Some(bound) = args.route_below {
            faults.check("route-below", check_bound(bound));
            let task = args.task.filter(|task| *task != TaskChoice::Classify);
            let other = known.planned(&args.model.model).is_some_and(|model| !model.spec.is_classifier());
            if task.is_some() || other {
                faults.add("route-below", anyhow!("--route-below is about the labels of classifiers; leave it out"));
            }
        }
        if args.answer_after.as_deref() == Some("") {
            faults.add("answer-after", anyhow!("--answer-after is empty; write what stands before the answer"));
        }
        if let Some(log) = &args.log
            && let Err(source) = check_length(args.window)
        {
            faults.add("window", StageError::Window { path: log.to_path_buf(), source });
        }
        let options = EvalOptions {
            model: args.model.model.to_path_buf(),
            reference: path(&args.reference),
            log: path(&args.log),
            log_texts: path(&args.log_texts),
            data: args.data.to_path_buf(),
            task: args.task,
            window: args.window,
            max_windows: args.max_windows.unwrap_or(usize::MAX),
            windows: args.windows,
            form: args.text.form(),
            label_field: args.text.label_field.clone(),
            records: args.records.form(),
            tokenizer: path(&args.tokenizer.tokenizer),
            seed: run.seed,
            answer_tokens: args.answer_tokens,
            answer_is: args.answer_is,
            answer_after: args.answer_after.clone(),
            route_below: args.route_below,
        };
        let device = faults.check("backend", args.backend.device());
        if let Some(device) = &device {
            numerics::check(args.numerics.numerics, device, None, &mut faults);
        }
        let predicted = args.predicted(known);
        let lacks = match (options.watched(), known.planned(&args.model.model)) {
            (Some(watched), model) => {
                watched.check_texts(model, &mut faults);
                model.map(|model| watch::not_of(Task::of(&model.spec.head))).unwrap_or_default()
            }
            (None, _) => task.map(not_of_task).unwrap_or_default(),
        };
        Resolved::new(device.map(|device| OnBackend { options, device }), None, faults)
            .predicting(predicted)
            .lacking(lacks)
    }

    fn run(checked: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome> {
        let options = &checked.options;
        match options.watched() {
            Some(watched) => Outcome::passed(&watch(&watched, &checked.device, shell)?),
            None => Outcome::passed(&evaluate(options, &checked.device, shell)?),
        }
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        if report.number("psi_max").is_some() {
            return super::watch::words(report);
        }
        Some(format!("{} tokens, {}", report.count("tokens")?, report.text("numerics").unwrap_or_default()))
    }
}
