//! `slmc export`: a model written in the format of another tool. Which formats there are, and what each holds, is known to
//! [`crate::formats::export`] alone; here is what all of them share: the checks, what is refused without `--lossy`, the
//! report, the provenance.

mod report;
mod work;

use super::arguments::AnyModel;
use super::arguments::dtype::Dtype;
use super::arguments::groups::MODEL_AND_OUTPUT;
use super::error::StageError;
use super::known::{Known, KnownModel, check_one_stack};
use super::limits::check_memory;
use super::prediction::{Prediction, moved_macs};
use super::stage::{Arithmetic, Faults, Measures, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use crate::formats;
use crate::formats::export::{self, Described, ExportError, ExportFormat, ExportPlan, ExportSettings};
use crate::model::scheme::Width;
use crate::shell::Shell;
use clap::builder::PossibleValue;
pub use report::ExportReport;
use serde_json::Value;
use std::borrow::Cow;
use std::path::PathBuf;
pub use work::{ExportOptions, export_model, memory_estimate};

/// Bytes of configuration, tokenizer and templates beside the tensors, for a token of the vocabulary.
const BYTES_PER_TOKEN: u64 = 40;

/// Write a model in the format of another tool
///
/// Reads a directory written by `slmc quantize`, or any model, and writes it as other programs run it. Integers are
/// kept where the format has them, scales in its precision; the table says what became of every class of tensors. What a model was made
/// for and the format does not have, such as 2:4 sparsity, is refused by name, or written without under --lossy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc export out/w8 --format gguf -o out/model.gguf
  slmc export out/w4 --format compressed-tensors -o out/packed
  slmc export out/mixed --format safetensors --dtype bf16 -o out/dense")]
pub struct Args {
    /// Model to export: a quantized directory, or any model
    #[arg(value_name = "MODEL", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: AnyModel,

    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = format_names(), help_heading = MODEL_AND_OUTPUT, display_order = 1)]
    format: String,

    /// One of the ways to write the format [default: its first]
    ///
    /// A name that the format does not have is answered with those that it has.
    #[arg(long, value_name = "NAME", help_heading = MODEL_AND_OUTPUT, display_order = 2)]
    variant: Option<String>,

    /// Data type of what is not integers: f32, f16, bf16
    ///
    /// Every value is rounded to the nearest of that type. Without it the type that the format usually has: safetensors f32,
    /// which holds every value that integers stand for.
    #[arg(long, value_name = "TYPE", value_enum, hide_possible_values = true, help_heading = MODEL_AND_OUTPUT, display_order = 3)]
    dtype: Option<Dtype>,

    /// Write the model without what the format does not have
    ///
    /// The report and the provenance then say what was lost.
    #[arg(long, help_heading = MODEL_AND_OUTPUT, display_order = 4)]
    lossy: bool,

    /// File or directory to write, by the format; replaced if slmc made it
    #[arg(short, long, value_name = "OUT", help_heading = MODEL_AND_OUTPUT)]
    out: PathBuf,
}

/// The formats as values of `--format`, each with its line.
fn format_names() -> Vec<PossibleValue> {
    export::EXPORTS.iter().map(|format| PossibleValue::new(format.name()).help(format.about())).collect()
}

/// What exports lack for an encoder-decoder.
const NO_FORMAT: &str = "which slmc writes in no format but its own directory";

/// The kind of stage.
pub struct Export;

impl Args {
    fn settings(&self, format: &dyn ExportFormat, faults: &mut Faults) -> ExportSettings {
        let variant = self.variant.as_deref().map(|name| export::variant(format, name));
        let variant = variant.and_then(|variant| faults.check("variant", variant));
        ExportSettings { dtype: self.dtype.map(Dtype::stored), variant }
    }

    /// What becomes of a model; a fault where the format does not hold all of it.
    fn plan(
        &self,
        format: &dyn ExportFormat,
        settings: &ExportSettings,
        model: &Described<'_>,
        faults: &mut Faults,
    ) -> Option<ExportPlan> {
        let plan = match format.plan(model, settings) {
            Ok(plan) => plan,
            Err(error) => {
                faults.add(option_of(&error), StageError::from(error));
                return None;
            }
        };
        if !self.lossy && !plan.losses.is_empty() {
            let losses = plan.losses.clone();
            faults.add("lossy", StageError::from(ExportError::Lossy { format: format.name(), losses }));
        }
        Some(plan)
    }
}

/// The option that a refusal is about.
fn option_of(error: &ExportError) -> &'static str {
    match error {
        ExportError::DataType { .. } => "dtype",
        ExportError::Variant { .. } => "variant",
        _ => "format",
    }
}

/// A planned model as far as its stage tells.
fn described(model: &KnownModel) -> Described<'_> {
    let linears = || model.spec.matrices().into_iter().filter(|(id, ..)| model.spec.multiplies(*id));
    let wide = model.wide_activations.then(|| linears().map(|(id, ..)| (id, Width::Bits16)).collect());
    Described {
        spec: &model.spec,
        schemes: model.schemes.as_ref().map_or_else(Cow::default, Cow::Borrowed),
        sparsity: model.sparsity.as_ref().filter(|_| model.quantized).map_or_else(Cow::default, Cow::Borrowed),
        activations: Cow::Owned(wide.unwrap_or_default()),
        key_maps: false,
    }
}

impl Stage for Export {
    type Args = Args;
    type Options = ExportOptions;
    const NAME: &'static str = "export";
    const MAKES: Product = Product::Export;
    const MAGIC: &'static [u8] = formats::gguf::MAGIC;
    const REVISION: u32 = 2;
    const ARITHMETIC: Arithmetic = Arithmetic::Exact;
    const MEASURES: Measures = Measures { own: &[], also: &["weight_bytes", "file_bytes"] };

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<ExportOptions> {
        let mut faults = Faults::default();
        let Some(format) = export::named(&args.format) else {
            let (found, known) = (args.format.clone(), export::names().join(", "));
            faults.add("format", StageError::ExportFormat { found, known });
            return Resolved::new(None, None, faults);
        };
        let settings = args.settings(format, &mut faults);
        let planned = match known {
            Known::Planned(_) => faults.check("model", known.model(&args.model)).flatten().map(|model| {
                faults.check("model", model.check_one_stack(NO_FORMAT));
                // Where only the work decides about schemes, what becomes of them is not known before.
                let decided = !model.quantized || model.schemes.is_some();
                let plan = decided.then(|| args.plan(format, &settings, &described(&model), &mut faults)).flatten();
                (model.spec, plan)
            }),
            Known::OnDisk => faults.check("model", formats::open(&args.model)).map(|source| {
                let outline = source.outline();
                faults.check("model", check_one_stack(&outline.spec, NO_FORMAT));
                let plan = args.plan(format, &settings, &Described::of(outline), &mut faults);
                if plan.is_some() {
                    faults.check("format", format.check(outline, &settings));
                }
                (outline.spec.clone(), plan)
            }),
        };
        let mut predicted = Prediction::default();
        if let Some((spec, plan)) = &planned {
            let need = memory_estimate(spec);
            faults.check("", check_memory(run, need, "exporting"));
            let beside = BYTES_PER_TOKEN * spec.vocabulary as u64;
            predicted = Prediction {
                output_bytes: plan.as_ref().map(|plan| plan.bytes() + beside),
                peak_memory_bytes: Some(need),
                work_macs: Some(moved_macs(spec)),
                ..Prediction::default()
            };
        }
        faults.check("out", format.check_output(&args.out));
        let options = ExportOptions {
            model: args.model.to_path_buf(),
            format,
            settings,
            lossy: args.lossy,
            out: args.out.clone(),
            invocation: run.invocation.clone(),
        };
        Resolved::new(Some(options), None, faults).predicting(predicted)
    }

    fn run(options: &ExportOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        shell.status("Exporting", format_args!("{} as {}", options.model.display(), options.format.name()));
        let report = export_model(options, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!("as {}, {} bytes", report.text("format")?, report.count("file_bytes")?))
    }
}
