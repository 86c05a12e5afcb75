//! `slmc prune`: weights set to zero in a pattern that sparse hardware runs.

mod report;
mod work;

use super::arguments::training::{RetrainArgs, Switch};
use super::arguments::{DenseModel, ReadFile};
use super::known::{Known, KnownModel};
use super::limits::check_memory;
use super::stage::{Faults, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use crate::disk::atomic;
use crate::model::device::device;
use crate::model::transform::NmPattern;
use crate::prune::{Method, check, select};
use crate::quantize::calibration::CalibrationText;
use crate::shell::Shell;
use crate::train::settings::Settings;
use anyhow::anyhow;
use burn::tensor::Device;
pub use report::PruneReport;
use std::path::PathBuf;
pub use work::{DirectoryError, Options, memory_estimate, prune_directory};

/// Set weights to zero in a pattern that sparse hardware runs
///
/// Reads a Hugging Face directory and writes one with the same names and types, in which at most N of every M weights
/// along the input dimension are not zero, and a slmc.json that says which matrices are. `slmc quantize` keeps the zeros,
/// and `slmc compile` stores 2:4 matrices compressed: 5 bits a weight in w8, 3.25 in w4.
/// One-shot 2:4 costs far more quality than 4 bits do: --recover trains some of it back; measure with `slmc eval`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slmc prune models/tales-6m --pattern 2:4 --method wanda --only ffn -o out/sparse\n  slmc prune models/tales-6m --pattern 6:8 --method magnitude --only 'layers.*.ffn.up' --only attention -o out/sparse"
)]
pub struct Args {
    /// Hugging Face directory: config.json, model.safetensors or its shards, tokenizer.json
    #[arg(value_name = "DIR")]
    model: DenseModel,

    /// How many of how many consecutive weights may be other than zero; M is 4, 8 or 16
    #[arg(long, value_name = "N:M")]
    pattern: NmPattern,

    /// How weights are scored
    ///
    /// magnitude: by their size. wanda: by their size times the root mean square of their input over the calibration
    /// text. sparsegpt: by what their loss costs when the weights after them make up for it, layer by layer, and
    /// --refit.
    #[arg(long, value_name = "magnitude|wanda|sparsegpt")]
    method: Method,

    /// Fit the weights that stay to the original's outputs, layer by layer on the inputs of the pruned model
    ///
    /// By least squares, every row exactly. sparsegpt does so unless --no-refit is given.
    #[arg(long, conflicts_with = "no_refit")]
    refit: bool,

    /// With sparsegpt, leave the weights that stay as its updates left them
    #[arg(long)]
    no_refit: bool,

    /// Leave a linear dense where pruning it would miss more than this share of its output's energy over the text
    ///
    /// Between 0 and 1; with sparsegpt or --refit, which measure it.
    #[arg(long, value_name = "SHARE")]
    most_missed: Option<f64>,

    /// Which linears; repeatable, all that match are pruned
    ///
    /// ffn, attention, conv, all (every linear in a layer), or a glob over names such as layers.3.ffn.up. Embedding tables stay dense.
    #[arg(long, value_name = "ffn|attention|all|PATTERN", default_value = "ffn")]
    only: Vec<String>,

    /// Text to calibrate with: plain text, or JSONL with --field
    ///
    /// Without it, for wanda, sparsegpt and --refit, a decoder samples 16,384 tokens from itself, and an encoder uses the text that ships with
    /// slmc. magnitude needs none; with one, its report says what went weighed by the inputs too.
    #[arg(long, value_name = "TEXT")]
    calibration: Option<ReadFile>,

    /// Key of the text in every line of a JSONL file
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Train what is left, the checkpoint before pruning being the teacher and the zeros held
    #[arg(long, requires = "data")]
    recover: bool,

    #[command(flatten)]
    retrain: RetrainArgs,

    /// Where calibration and training run: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,

    /// Directory to write; an existing one is replaced if slmc made it
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
}

/// What was asked for.
pub struct Asked {
    options: Options,
    device: Device,
}

/// The kind of stage.
pub struct Prune;

impl Args {
    fn refits(&self) -> bool {
        self.refit || (self.method == Method::SparseGpt && !self.no_refit)
    }

    /// What to calibrate with; a method that does not look at inputs needs nothing.
    fn source(&self, seed: u64) -> Option<CalibrationText> {
        match &self.calibration {
            Some(path) => Some(CalibrationText::File { path: path.to_path_buf(), field: self.field.clone() }),
            None => (self.method != Method::Magnitude || self.refits()).then_some(CalibrationText::Default { seed }),
        }
    }

    fn check_most_missed(&self, faults: &mut Faults) {
        let Some(share) = self.most_missed else { return };
        if !(0.0..=1.0).contains(&share) {
            let error = anyhow!("--most-missed {share} is no share; pass a number between 0 and 1");
            faults.add("most-missed", error);
        }
        if !(self.refit || self.method == Method::SparseGpt) {
            let error = anyhow!(
                "--most-missed needs the outputs, which {} alone does not look at; add --refit",
                self.method.name()
            );
            faults.add("most-missed", error);
        }
    }

    /// The model that pruning makes, where the selection can be pruned.
    fn pruned(&self, model: &KnownModel, faults: &mut Faults) -> Option<KnownModel> {
        if model.quantized {
            faults.add("model", DirectoryError::Quantized { path: self.model.to_path_buf() });
        }
        let selected = faults.check("only", select(&model.spec, &self.only))?;
        faults.check("pattern", check(&model.spec, &selected, self.pattern))?;
        // With --most-missed only the work says which stay dense.
        let sparsity = model.sparsity.clone().filter(|_| self.most_missed.is_none()).map(|mut sparsity| {
            sparsity.extend(selected.iter().map(|id| (*id, self.pattern)));
            sparsity
        });
        Some(KnownModel::dense(model.spec.clone(), sparsity))
    }
}

impl Stage for Prune {
    type Args = Args;
    type Options = Asked;
    const NAME: &'static str = "prune";
    const MAKES: Product = Product::Dense;
    const RESUMES: Resumes = Resumes::Sometimes;

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Asked> {
        let mut faults = Faults::default();
        let model = faults.check("model", known.model(&args.model)).flatten();
        let context = model.as_ref().map_or(usize::MAX, |model| model.spec.context);
        let retrain = args.retrain.retrain(args.field.clone(), Settings::RECOVER, run, context);
        let asked = Switch {
            on: args.recover,
            option: "--recover",
            field: args.field.as_deref(),
            calibrated: args.calibration.is_some(),
            spec: model.as_ref().map(|model| &model.spec),
        };
        args.retrain.check(&asked, &retrain.settings, &mut faults);
        let device = faults.check("device", device(&args.device));
        if let Some(model) = &model {
            faults.check("", check_memory(run, memory_estimate(&model.spec), "pruning"));
        }
        args.check_most_missed(&mut faults);
        let makes = model.as_ref().and_then(|model| args.pruned(model, &mut faults));
        faults.check("out", atomic::check_directory(&args.out));
        let asked = device.map(|device| {
            let options = Options {
                model: args.model.to_path_buf(),
                out: args.out.clone(),
                pattern: args.pattern,
                method: args.method,
                refit: args.refits(),
                most_missed: args.most_missed,
                only: args.only.clone(),
                source: args.source(run.seed),
                recover: args.recover.then_some(retrain),
            };
            Asked { options, device }
        });
        Resolved::new(asked, makes, faults)
    }

    fn run(asked: &Asked, shell: &Shell) -> anyhow::Result<Outcome> {
        let Asked { options, device } = asked;
        shell.status("Pruning", format_args!("{} to {}", options.model.display(), options.pattern));
        let report = prune_directory(options, device, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        let share = report.number("zeros_after").zip(report.number("weights"));
        let share = share.map_or(0.0, |(zeros, all)| 100.0 * zeros / all);
        let (pattern, method) = (report.text("pattern")?, report.text("method")?);
        Some(format!("{pattern} by {method}, {share:.0} % zeros{}", report.retrained("recovered")))
    }
}
