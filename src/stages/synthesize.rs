//! `slmc synthesize`: text that a model writes, for another to be trained on. Training on it is sequence-level distillation
//! (Kim and Rush 2016): teacher and student meet in text alone, so that their tokenizers may be different ones.

mod error;
mod filter;
mod prompts;
mod report;
mod state;
mod work;

use super::arguments::groups::{DATA, MODEL_AND_OUTPUT};
use super::arguments::{AnyModel, ReadFile, path};
use super::known::{Known, check_one_stack};
use super::limits::check_memory;
use super::prediction::{self, Prediction};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use super::texts::{Reads, Texts};
use crate::calibrate::continuations;
use crate::disk::atomic;
use crate::formats;
use crate::model::generation::in_parts;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::shell::Shell;
use crate::text::chat_template::ChatTemplate;
use crate::text::form::{Separator, TextForm};
use crate::text::windows::{WindowError, check_window};
use anyhow::anyhow;
pub use error::SynthesisError;
pub use filter::Limits;
pub use report::{Dropped, SynthesisReport};
use serde_json::Value;
use slm_runtime::sample::{ALL, Sampling};
use std::path::PathBuf;
pub use work::{SynthesisOptions, synthesize};

/// Text that a model writes, for another to be trained on
///
/// Sequence-level distillation: the student is trained on text of the teacher, whose tokenizer may be another one. The model
/// begins texts itself, or continues the beginnings of given ones (--prompts), or answers questions through its chat template
/// (--chat). What is unlikely, too short or repeats itself is left out, and the report says how much and why.
///
/// Written is JSONL, one text a line: `text`, or for answers `prompt`, `answer` and `messages`; with `tokens` and
/// `mean_log_probability`. Draws follow from --seed. A killed run goes on where it was when the same command is repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc synthesize models/smollm2 --prompts tales.txt --texts 4000 -o tales.jsonl
  slmc synthesize models/smollm2-instruct --prompts questions.jsonl --field question \\
      --chat --temperature 0.7 --drop-unlikely 0.1 -o answers.jsonl
  slmc distill --teacher models/big --student small --data tales.jsonl --field text …")]
pub struct Args {
    /// Model that writes: a decoder
    #[arg(value_name = "DIR", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: AnyModel,

    /// JSONL file to write; replaced if this command made it
    #[arg(short, long, value_name = "FILE.jsonl", help_heading = MODEL_AND_OUTPUT)]
    out: PathBuf,

    /// Texts whose beginnings are continued, or questions
    ///
    /// From a text file, the first --prefix tokens of every stretch of --window tokens. Of rows, and of documents between
    /// --separator, each is a prompt. Rows with a list `messages` are conversations: the last question is answered. Without
    /// prompts the model begins every text, after the token that opens one, or else after the one that ends one.
    #[arg(long, value_name = "FILE", help_heading = DATA)]
    prompts: Option<ReadFile>,

    /// JSONL key of the prompt
    #[arg(long, value_name = "KEY", requires = "prompts", help_heading = DATA)]
    field: Option<String>,

    /// What stands between the documents of a text file
    #[arg(long, value_name = "TEXT", conflicts_with = "field", requires = "prompts", allow_hyphen_values = true, help_heading = DATA)]
    separator: Option<Separator>,

    /// Ask every prompt through the chat template
    #[arg(long, requires = "prompts", conflicts_with = "prefix", help_heading = DATA)]
    chat: bool,

    /// System message of --chat [default: the template's own]
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true, help_heading = DATA)]
    system: Option<String>,

    /// Tokens of a text that are given [default: 32 of a text file, all of a row]
    #[arg(long, value_name = "N", requires = "prompts", help_heading = DATA)]
    prefix: Option<usize>,

    /// Texts to write, before any is left out [default: one a prompt]
    ///
    /// From more prompts, these are taken evenly over the file; from fewer, each is continued several times, by other draws.
    #[arg(long, value_name = "N", required_unless_present = "prompts", help_heading = DATA)]
    texts: Option<usize>,

    /// Most tokens of a text, its prompt included
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = DATA)]
    window: usize,

    /// 1: as the model predicts, 0: the likeliest token
    #[arg(long, value_name = "T", default_value_t = 1.0, help_heading = SAMPLING)]
    temperature: f32,

    /// Draw from the K likeliest tokens only, 0: all
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = SAMPLING)]
    top_k: u32,

    /// Draw within this share of probability
    #[arg(long, value_name = "P", default_value_t = 1.0, help_heading = SAMPLING)]
    top_p: f64,

    /// Leave out texts below this mean log-probability a token
    ///
    /// Natural logarithm, by the model itself at temperature 1, of what it wrote: -3 is a perplexity of 20.
    #[arg(long, value_name = "X", allow_hyphen_values = true, help_heading = LEFT_OUT)]
    min_log_probability: Option<f64>,

    /// Leave out texts above this mean log-probability a token
    #[arg(long, value_name = "X", allow_hyphen_values = true, help_heading = LEFT_OUT)]
    max_log_probability: Option<f64>,

    /// Leave out this share of the texts, the least likely
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = LEFT_OUT)]
    drop_unlikely: f64,

    /// Leave out this share of the texts, the likeliest
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = LEFT_OUT)]
    drop_likely: f64,

    /// Leave out texts with fewer tokens written
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = LEFT_OUT)]
    min_tokens: usize,

    /// Leave out texts that repeat more than this share
    ///
    /// The share of the runs of four tokens that had been written before. 1 keeps all.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, help_heading = LEFT_OUT)]
    max_repetition: f64,

    /// Leave out texts that the model did not end itself
    #[arg(long, help_heading = LEFT_OUT)]
    only_ended: bool,
}

/// Heading of the options that choose tokens.
const SAMPLING: &str = "Sampling";
/// Heading of the options that leave texts out.
const LEFT_OUT: &str = "Left out";
/// Tokens of a stretch of a text file that are given.
const PREFIX: usize = 32;

/// The kind of stage.
pub struct Synthesize;

impl Args {
    fn options(&self, run: &RunSettings) -> SynthesisOptions {
        SynthesisOptions {
            model: self.model.to_path_buf(),
            out: self.out.clone(),
            prompts: path(&self.prompts),
            form: TextForm { field: self.field.clone(), separator: self.separator.clone() },
            chat: self.chat,
            system: self.system.clone(),
            prefix: self.prefix,
            texts: self.texts,
            window: self.window,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: in_parts(self.top_p).clamp(1, ALL),
                ..Sampling::GREEDY
            },
            limits: Limits {
                least_log_probability: self.min_log_probability,
                most_log_probability: self.max_log_probability,
                least_tokens: self.min_tokens,
                most_repetition: self.max_repetition,
                only_ended: self.only_ended,
                unlikely: self.drop_unlikely,
                likely: self.drop_likely,
            },
            seed: run.seed,
        }
    }

    /// Notes numbers that mean nothing.
    fn check(&self, faults: &mut Faults) {
        let mut rule = |holds: bool, option: &'static str, found: &dyn std::fmt::Display, expected: &str| {
            if !holds {
                faults.add(option, anyhow!("--{option} is {found}; expected {expected}"));
            }
        };
        let temperate = self.temperature == 0.0 || (0.001..=1000.0).contains(&self.temperature);
        rule(temperate, "temperature", &self.temperature, "0, or a number from 0.001 to 1000");
        rule(self.top_p > 0.0 && self.top_p <= 1.0, "top-p", &self.top_p, "a number above 0, up to 1");
        rule(self.texts != Some(0), "texts", &0, "at least 1");
        let share = |value: f64| (0.0..1.0).contains(&value);
        rule(share(self.drop_unlikely), "drop-unlikely", &self.drop_unlikely, "0 or more, below 1");
        rule(share(self.drop_likely), "drop-likely", &self.drop_likely, "0 or more, below 1");
        let both = self.drop_unlikely + self.drop_likely;
        let few = "less than 1 together with --drop-unlikely: nothing would be left";
        rule(both < 1.0, "drop-likely", &self.drop_likely, few);
        rule((0.0..=1.0).contains(&self.max_repetition), "max-repetition", &self.max_repetition, "0 to 1");
        if let (Some(least), Some(most)) = (self.min_log_probability, self.max_log_probability) {
            rule(least < most, "min-log-probability", &least, &format!("less than --max-log-probability {most}"));
        }
        for (option, value) in
            [("min-log-probability", self.min_log_probability), ("max-log-probability", self.max_log_probability)]
        {
            if let Some(value) = value {
                rule(value.is_finite() && value <= 0.0, option, &value, "0 or less: the logarithm of a probability");
            }
        }
    }

    /// Notes what does not suit the model.
    fn check_model(&self, spec: &ModelSpec, faults: &mut Faults) {
        if let Err(error) = check_one_stack(spec, "which continues no text") {
            return faults.add("model", error);
        }
        if spec.kind != ModelKind::Decoder {
            let path = self.model.to_path_buf();
            return faults.add("model", SynthesisError::NotADecoder { path });
        }
        let opening = spec.opening.len();
        if let Err(source) = check_window(&spec.opening, spec.context, self.window) {
            faults.add("window", source);
        } else if let Some(prefix) = self.prefix
            && opening + prefix >= self.window
        {
            let (window, least) = (self.window, opening + prefix + 1);
            faults.add("window", WindowError::TooShort { window, least });
        }
        if self.prompts.is_none() && prompts::begins_with(spec).is_empty() {
            let path = self.model.to_path_buf();
            faults.add("prompts", SynthesisError::NoOpening { path });
        }
    }

    fn predicted(&self, spec: &ModelSpec) -> Prediction {
        let of_file = |file: &ReadFile| {
            let tokens = prediction::tokens_of(&[file.to_path_buf()], spec.vocabulary);
            (tokens / self.window.max(1) as u64).max(1)
        };
        let texts = self.texts.map(|texts| texts as u64).or_else(|| self.prompts.as_ref().map(of_file)).unwrap_or(1);
        let tokens = texts.saturating_mul(self.window as u64);
        Prediction {
            // About four bytes a token, twice where a text is written with its messages.
            output_bytes: Some(tokens.saturating_mul(5)),
            state_bytes: Some(tokens.saturating_mul(6)),
            peak_memory_bytes: Some(need_bytes(spec, self.window, tokens)),
            work_macs: Some(tokens.saturating_mul(prediction::forward_macs(spec, self.window))),
            ..Prediction::default()
        }
    }
}

/// Bytes of memory: the weights in f32, keys, values and logits of the texts that are written together, and the texts.
fn need_bytes(spec: &ModelSpec, window: usize, tokens: u64) -> u64 {
    4 * spec.parameter_count() + continuations::memory_bytes(spec, window.min(spec.context)) + tokens.saturating_mul(16)
}

impl Stage for Synthesize {
    type Args = Args;
    type Options = SynthesisOptions;
    const NAME: &'static str = "synthesize";
    const MAKES: Product = Product::Text;
    const MAGIC: &'static [u8] = work::MAGIC;
    const REVISION: u32 = 1;
    const ARITHMETIC: Arithmetic = Arithmetic::Float;
    const RESUMES: Resumes = Resumes::Always;

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<SynthesisOptions> {
        let mut faults = Faults::default();
        args.check(&mut faults);
        let model = faults.check("model", known.model(&args.model)).flatten();
        let mut predicted = Prediction::default();
        if let Some(model) = &model {
            args.check_model(&model.spec, &mut faults);
            predicted = args.predicted(&model.spec);
            faults.check("", check_memory(run, predicted.peak_memory_bytes.unwrap_or(0), "synthesizing"));
            let companions = model.files.as_ref().and_then(|files| formats::companions(files.path()).ok());
            if let Some(companions) = companions.filter(|_| args.chat)
                && let Some(None) = faults.check("chat", ChatTemplate::usable(&companions))
            {
                let path = companions.origin().to_owned();
                faults.add("chat", SynthesisError::NoTemplate { path });
            }
        }
        let options = args.options(run);
        if let Some(prompts) = &options.prompts {
            let model = known.planned(&args.model);
            let reads = Reads::Windows(&options.form, 1, 1);
            Texts { model, tokenizer: None, other: None, option: "prompts", reads }.check([prompts], &mut faults);
        }
        faults.check("out", atomic::check_file(&args.out, work::MAGIC));
        Resolved::new(Some(options), None, faults).predicting(predicted)
    }

    fn run(options: &SynthesisOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        shell.status("Synthesizing", options.model.display());
        let report = synthesize(options, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!(
            "{} texts of {}, {} tokens",
            report.count("kept")?,
            report.count("texts")?,
            report.count("tokens")?
        ))
    }
}
