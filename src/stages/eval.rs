//! `slmc eval`: a model measured on text, and how far it is from a reference.

mod work;

use super::arguments::{AnyModel, ModelOrArtifact, ReadFile, path};
use super::known::{Known, same_vocabulary};
use super::stage::{Faults, Measures, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use crate::eval::opened::Task;
use crate::model::device::device;
use crate::shell::Shell;
use crate::text::windows::check_window;
use burn::tensor::Device;
pub use work::{CommandError, EvalReport, Options, TaskChoice, evaluate};

/// Measure a model on text, and how far it is from a reference
///
/// An artifact is run by the integers the device computes, a directory in f32; the report says which. Language models:
/// perplexity, and with a reference the KL divergence in nats and the share of equal first choices; masked ones over
/// tokens hidden by --seed. Classifiers: accuracy. Bare encoders: cosine of sentence embeddings.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  slmc eval out/mixed.slm --data valid.txt --reference models/tales-6m --window 256 --max-windows 64 --json"
)]
pub struct Args {
    /// Artifact, or directory
    #[arg(value_name = "FILE.slm|DIR")]
    model: ModelOrArtifact,

    /// Text: plain, or JSONL with --field; encoders take one line as one text
    #[arg(long, value_name = "TEXT")]
    data: ReadFile,

    /// Dense directory to compare with
    #[arg(long, value_name = "DIR")]
    reference: Option<AnyModel>,

    /// What to measure [default: what the model is for]
    #[arg(long, value_name = "TASK", value_enum)]
    task: Option<TaskChoice>,

    /// Tokens of a window, those it opens with included
    #[arg(long, value_name = "N", default_value_t = 256)]
    window: usize,

    /// Most windows, or texts for encoders [default: all]
    #[arg(long, value_name = "N")]
    max_windows: Option<usize>,

    /// Key of the text in every line of a JSONL file; for --task generate that of the prompt [default: prompt]
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Key of the label in every line of a JSONL file, for --task classify; of the wanted answer for --task generate
    #[arg(long, value_name = "KEY", default_value = "label")]
    label_field: String,

    /// Most tokens of an answer, for --task generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    answer_tokens: usize,

    /// Directory with tokenizer.json, for an artifact written for a device only
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<AnyModel>,

    /// Where directories run: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,
}

/// What was asked for.
pub struct Asked {
    options: Options,
    device: Device,
}

/// The kind of stage.
pub struct Eval;

impl Args {
    /// Notes what the models of a plan do not agree with.
    fn check(&self, known: &Known, faults: &mut Faults) {
        if let Some(reference) = &self.reference {
            faults.check("reference", same_vocabulary(known, ("model", &self.model), ("reference", reference)));
        }
        let Some(model) = known.planned(&self.model) else { return };
        let spec = &model.spec;
        let Some(task) = faults.check("task", work::task(Task::of(&spec.head), self.task)) else { return };
        let reference = self.reference.as_ref().and_then(|path| known.planned(path));
        let context = spec.context.min(reference.map_or(usize::MAX, |reference| reference.spec.context));
        if task == TaskChoice::Lm
            && let Err(source) = check_window(&spec.opening, context, self.window)
        {
            faults.add("window", CommandError::Window { path: self.data.to_path_buf(), source });
        }
    }
}

impl Stage for Eval {
    type Args = Args;
    type Options = Asked;
    const NAME: &'static str = "eval";
    const MAKES: Product = Product::Nothing;
    const MEASURES: Measures = Measures {
        own: &["kld_mean", "perplexity", "top1_agreement", "accuracy", "cosine_mean"],
        also: &["weight_bytes", "file_bytes"],
    };

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Asked> {
        let mut faults = Faults::default();
        args.check(known, &mut faults);
        let options = Options {
            model: args.model.to_path_buf(),
            reference: path(&args.reference),
            data: args.data.to_path_buf(),
            task: args.task,
            window: args.window,
            max_windows: args.max_windows.unwrap_or(usize::MAX),
            field: args.field.clone(),
            label_field: args.label_field.clone(),
            tokenizer: path(&args.tokenizer),
            seed: run.seed,
            answer_tokens: args.answer_tokens,
        };
        let device = faults.check("device", device(&args.device));
        Resolved::new(device.map(|device| Asked { options, device }), None, faults)
    }

    fn run(asked: &Asked, shell: &Shell) -> anyhow::Result<Outcome> {
        Outcome::passed(&evaluate(&asked.options, &asked.device, shell)?)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!("{} tokens, {}", report.count("tokens")?, report.text("numerics").unwrap_or_default()))
    }
}
