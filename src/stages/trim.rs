//! `slmc trim`, also `slmc tokenizer trim`: a model with the part of its vocabulary that a domain uses.

mod report;
mod work;

use super::arguments::groups::{DATA, MODEL_AND_OUTPUT, OutArg};
use super::arguments::{DenseModel, DenseOrConfiguration, ReadFile, path, paths};
use super::known::Known;
use super::limits::check_memory;
use super::prediction::{Prediction, dense_bytes, moved_macs};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use crate::disk::atomic;
use crate::shell::Shell;
use crate::text::form::{Separator, TextForm};
use crate::text::trimming::{Characters, Extent};
pub use report::TrimReport;
use serde_json::Value;
use std::num::{NonZeroU64, NonZeroUsize};
use work::memory_estimate;
pub use work::{TrimOptions, trim};

/// Cut a model's vocabulary to the tokens that a domain uses
///
/// Counts the tokens of the data and keeps special tokens, bytes, characters, and the tokens that are used, each with all
/// tokens that it is merged from; rows of the token table and of the head are cut alike, and ids in config.json,
/// generation_config.json and the tokenizer's files are renumbered. A text whose tokens are all kept has the same tokens as
/// before; another is spelled in smaller ones. trimmed_ids.json lists the old id of every new one. `slmc tokenizer trim` is
/// the same command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc tokenizer trim models/smollm2 --data tales.txt -o out/small
  slmc tokenizer trim models/smollm2 --data tales.txt --vocabulary 4096 -o out/4k
  slmc tokenizer trim out/tuned --like out/4k -o out/teacher
  slmc tokenizer trim models/minilm --data queries.jsonl --field text --characters used -o out/m")]
pub struct Args {
    /// Hugging Face directory, or a GGUF file
    ///
    /// Its weights are floating point: trim before `quantize`.
    #[arg(value_name = "DIR|FILE.gguf", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: DenseModel,

    /// Text of the domain: files of text, JSONL, JSON or Parquet
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "like", help_heading = DATA)]
    data: Vec<ReadFile>,

    /// JSONL key of the text; plain text has none
    #[arg(long, value_name = "KEY", help_heading = DATA)]
    field: Option<String>,

    /// What stands between the documents of a text file
    #[arg(long, value_name = "TEXT", conflicts_with = "field", allow_hyphen_values = true, help_heading = DATA)]
    separator: Option<Separator>,

    /// Keep tokens that the data has at least N times [default: 1]
    #[arg(long, value_name = "N", group = "extent", help_heading = VOCABULARY)]
    min_count: Option<NonZeroU64>,

    /// Keep at most N tokens
    ///
    /// Among the tokens that the data uses, those used least go first; what spells them instead counts as used more.
    #[arg(long, value_name = "N", group = "extent", help_heading = VOCABULARY)]
    vocabulary: Option<NonZeroUsize>,

    /// Keep as few tokens as make up this share of the data's tokens, such as 0.995
    #[arg(long, value_name = "SHARE", group = "extent", value_parser = share, help_heading = VOCABULARY)]
    coverage: Option<f64>,

    /// Keep the tokens that this trimmed model has
    ///
    /// For a teacher, so that it has the tokens of its student: a directory with trimmed_ids.json, made of a model with the
    /// same tokenizer. With --data the report says how these tokens cover it.
    #[arg(long, value_name = "DIR", group = "extent", help_heading = VOCABULARY)]
    like: Option<DenseOrConfiguration>,

    /// Tokens of single characters to keep: all, used
    ///
    /// all: no text becomes unknown that was not before. used: those that the data has; others are spelled in bytes, or are
    /// unknown where the tokenizer has no bytes. Of a tokenizer that is made of bytes, all bytes stay.
    #[arg(long, value_name = "WHICH", value_enum, default_value_t, hide_possible_values = true, conflicts_with = "like", help_heading = VOCABULARY)]
    characters: Characters,

    #[command(flatten)]
    out: OutArg,
}

/// Heading of the options that decide what stays.
const VOCABULARY: &str = "Vocabulary";

/// A share of tokens, above 0 and at most 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| format!("`{text}` is not a share; pass a number above 0 and at most 1, such as 0.995"))
}

/// The kind of stage.
pub struct Trim;

impl Stage for Trim {
    type Args = Args;
    type Options = TrimOptions;
    const NAME: &'static str = "trim";
    const MAKES: Product = Product::Dense;
    const REVISION: u32 = 1;
    const ARITHMETIC: Arithmetic = Arithmetic::Exact;

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<TrimOptions> {
        let mut faults = Faults::default();
        let model = faults.check("model", known.model(&args.model)).flatten();
        if let Some(model) = &model {
            faults.check("model", model.check_one_stack("whose vocabulary slmc does not trim"));
        }
        let mut predicted = Prediction::default();
        if let Some(model) = &model {
            if model.quantized {
                faults.add("model", super::StageError::TrimQuantized { path: args.model.to_path_buf() });
            }
            let need = memory_estimate(&model.spec, &paths(&args.data));
            faults.check("", check_memory(run, need, "trimming"));
            predicted = Prediction {
                output_bytes: Some(dense_bytes(&model.spec)),
                peak_memory_bytes: Some(need),
                work_macs: Some(moved_macs(&model.spec)),
                ..Prediction::default()
            };
        }
        faults.check("out", atomic::check_directory(&args.out.out));
        let extent = match (args.min_count, args.vocabulary, args.coverage) {
            (_, Some(size), _) => Extent::Vocabulary(size.get()),
            (_, _, Some(share)) => Extent::Coverage(share),
            (least, ..) => Extent::MinCount(least.map_or(1, NonZeroU64::get)),
        };
        let options = TrimOptions {
            model: args.model.to_path_buf(),
            data: paths(&args.data),
            form: TextForm { field: args.field.clone(), separator: args.separator.clone() },
            extent,
            characters: args.characters,
            like: path(&args.like),
            out: args.out.out.clone(),
            invocation: run.invocation.clone(),
        };
        // How many tokens stay is known when they are counted.
        Resolved::new(Some(options), None, faults).predicting(predicted)
    }

    fn run(options: &TrimOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        shell.status("Trimming", options.model.display());
        let report = trim(options, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!("{} tokens, {} weights", report.count("vocabulary_after")?, report.count("parameters_after")?))
    }
}
