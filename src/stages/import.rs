//! `slmc import`: a model in any format that is read, written as a dense Hugging Face directory.

mod report;
mod work;

use super::arguments::DenseModel;
use super::arguments::dtype::Dtype;
use super::arguments::groups::{MODEL_AND_OUTPUT, OutArg, TokenizerArg};
use super::arguments::path;
use super::error::StageError;
use super::known::{Files, Known, KnownModel};
use super::limits::check_memory;
use super::prediction::{Prediction, dense_bytes, moved_macs};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use crate::disk::atomic;
use crate::shell::Shell;
pub use report::ImportReport;
use serde_json::Value;
pub use work::{ImportOptions, import, memory_estimate};

/// Write a model of another format as a Hugging Face directory
///
/// Reads what every command reads in place of a directory: a GGUF file, of a model in several the first. Weights are decoded
/// tensor by tensor, names, shapes and the order of rows become those of transformers, and tokenizer.json, chat template,
/// opening and end tokens are rebuilt from the file's metadata. What cannot be said in a directory is refused by name.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc import models/smollm2.Q4_1.gguf -o out/smollm2
  slmc import models/smollm2.Q4_1.gguf --dtype f16 -o out/smollm2
  slmc import models/large-00001-of-00003.gguf --tokenizer models/original -o out/large")]
pub struct Args {
    /// Model to import: FILE.gguf, or a directory
    #[arg(value_name = "SOURCE", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: DenseModel,

    /// Data type of the weights: f32, f16, bf16
    ///
    /// Every value is rounded to the nearest of that type. Without it the type that holds all of them: f32 for weights that
    /// were integers, and the type of the tensors where all have the same.
    #[arg(long, value_name = "TYPE", value_enum, hide_possible_values = true, help_heading = MODEL_AND_OUTPUT, display_order = 1)]
    dtype: Option<Dtype>,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    #[command(flatten)]
    out: OutArg,
}

/// The kind of stage.
pub struct Import;

impl Stage for Import {
    type Args = Args;
    type Options = ImportOptions;
    const NAME: &'static str = "import";
    const MAKES: Product = Product::Dense;
    const REVISION: u32 = 1;
    const ARITHMETIC: Arithmetic = Arithmetic::Exact;

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<ImportOptions> {
        let mut faults = Faults::default();
        let model = faults.check("model", known.model(&args.model)).flatten();
        if let Some(model) = &model {
            if model.quantized {
                faults.add("model", StageError::ImportQuantized { path: args.model.to_path_buf() });
            }
            faults.check("", check_memory(run, memory_estimate(&model.spec), "importing"));
        }
        faults.check("out", atomic::check_directory(&args.out.out));
        let predicted = model.as_ref().map_or_else(Prediction::default, |model| Prediction {
            output_bytes: Some(
                dense_bytes(&model.spec) / if matches!(args.dtype, Some(Dtype::F16 | Dtype::Bf16)) { 2 } else { 1 },
            ),
            peak_memory_bytes: Some(memory_estimate(&model.spec)),
            work_macs: Some(moved_macs(&model.spec)),
            ..Prediction::default()
        });
        let files = path(&args.tokenizer.tokenizer).map(|path| Files::at(&path));
        let makes =
            model.map(|model| KnownModel::dense(model.spec, model.sparsity).with_files(files.unwrap_or(model.files)));
        let options = ImportOptions {
            model: args.model.to_path_buf(),
            out: args.out.out.clone(),
            dtype: args.dtype.map(Dtype::stored),
            tokenizer: path(&args.tokenizer.tokenizer),
            invocation: run.invocation.clone(),
        };
        Resolved::new(Some(options), makes, faults).predicting(predicted)
    }

    fn run(options: &ImportOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        shell.status("Importing", options.model.display());
        let report = import(options, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!(
            "{} as {}, {} weights",
            report.text("format")?,
            report.text("dtype")?,
            report.count("parameters")?
        ))
    }
}
