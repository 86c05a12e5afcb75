//! `slmc prune`: weights set to zero in a pattern that sparse hardware runs.

mod report;
mod work;

use super::arguments::groups::{
    BackendArg, CalibrationArgs, ModelArg, NumericsArg, OutArg, PATTERN, TRAINING, TextArgs,
};
use super::arguments::path;
use super::arguments::training::{RetrainArgs, Switch, with_defaults};
use super::backend::{OnTrainingBackend, on_workers};
use super::error::StageError;
use super::known::{Known, KnownModel};
use super::limits::check_memory;
use super::numerics;
use super::prediction::{self, Prediction};
use super::stage::{Arithmetic, Faults, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use super::training::{check_recompute, check_texts_of_change, read_bytes, retraining_need};
use crate::disk::atomic;
use crate::disk::hash::{hex, sha256};
use crate::model::spec::{ModelKind, ModelSpec};
use crate::model::transform::NmPattern;
use crate::prune::{Method, check, select};
use crate::quantize::calibration::{CALIBRATION_TOKENS, CalibrationText, ENCODER_TEXT};
use crate::shell::Shell;
use crate::train::memory::ComputedBy;
use crate::train::scope::Scope;
use crate::train::settings::Settings;
use anyhow::anyhow;
pub use report::PruneReport;
use serde_json::{Value, json};
pub use work::{PruneOptions, memory_estimate, prune_directory};

/// Set weights to zero in a pattern that sparse hardware runs
///
/// Reads a Hugging Face directory and writes one with the same names and types, in which at most N of every M weights
/// along the input dimension are not zero, and a slmc.json that says which matrices are. `slmc quantize` keeps the
/// zeros, and `slmc compile` stores 2:4 matrices compressed: 5 bits a weight in w8, 3.25 in w4. One-shot 2:4 costs far
/// more quality than 4 bits do: --recover trains some of it back; measure with `slmc eval`.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(with_defaults(&Settings::RECOVER)),
    after_help = "\
Examples:
  slmc prune models/tales-6m --pattern 2:4 --method sparsegpt -o out/sparse
  slmc prune models/tales-6m --pattern 2:4 --method wanda --only all \\
      --recover --data self --tokens 2000000 -o out/sparse
  slmc prune models/tales-6m --pattern 6:8 --method magnitude \\
      --only 'layers.*.ffn.up' --only attention -o out/sparse"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,

    #[command(flatten)]
    pattern: PatternArgs,

    #[command(flatten)]
    calibration: CalibrationArgs,

    #[command(flatten)]
    text: TextArgs,

    /// Train on --data with the zeros held
    ///
    /// The checkpoint before pruning is the teacher.
    #[arg(long, requires = "data", help_heading = TRAINING)]
    recover: bool,

    /// Share of the training in which masks may move
    ///
    /// Weights that are not seen are trained along and shrink; where one has become larger than one that is seen, it takes its
    /// place (SR-STE). 0: the masks are held from the start.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = TRAINING)]
    masks_move: f64,

    #[command(flatten)]
    retrain: RetrainArgs,

    #[command(flatten)]
    backend: BackendArg,

    #[command(flatten)]
    numerics: NumericsArg,

    #[command(flatten)]
    out: OutArg,
}

/// Which weights are set to zero.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = PATTERN)]
struct PatternArgs {
    /// Keep at most N of every M consecutive weights
    ///
    /// M is 4, 8 or 16.
    #[arg(long, value_name = "N:M")]
    pattern: NmPattern,

    /// Score: magnitude, wanda or sparsegpt
    ///
    /// magnitude: the size of a weight; with --calibration the report weighs the loss by the inputs too. wanda: the
    /// size times the root mean square of the weight's input over the calibration text. sparsegpt: the loss that
    /// removing a weight costs once the weights after it compensate, layer by layer, with --refit.
    #[arg(long, value_name = "METHOD")]
    method: Method,

    /// ffn, attention, conv, all or a glob
    ///
    /// The linears to prune. Repeatable, everything that matches is pruned. all: every linear in a layer. A glob is
    /// over names such as layers.3.ffn.up. Embedding tables stay dense.
    #[arg(long, value_name = "PATTERN", default_value = "ffn")]
    only: Vec<String>,

    /// Refit the remaining weights by least squares
    ///
    /// To the outputs of the original, every row exactly, layer by layer on the inputs of the pruned model. sparsegpt
    /// does so unless --no-refit is given.
    #[arg(long, conflicts_with = "no_refit")]
    refit: bool,

    /// Leave the weights as sparsegpt updated them
    #[arg(long)]
    no_refit: bool,

    /// Leave the channels of feed-forward networks in their order
    ///
    /// They are put into the order in which the pattern keeps most of ffn.down, where that is pruned: rows of ffn.up and
    /// ffn.gate and columns of ffn.down change places together, so that the network computes the same and costs the same.
    #[arg(long)]
    no_reorder: bool,

    /// Most of its output's energy a linear may lose
    ///
    /// A share between 0 and 1, over the calibration text; a linear that would lose more stays dense. With sparsegpt or
    /// --refit, which measure it.
    #[arg(long, value_name = "SHARE")]
    most_missed: Option<f64>,
}

/// The kind of stage.
pub struct Prune;

impl Args {
    fn refits(&self) -> bool {
        self.pattern.refit || (self.pattern.method == Method::SparseGpt && !self.pattern.no_refit)
    }

    /// Calibration text; `None` for a method that does not look at inputs.
    fn source(&self, seed: u64) -> Option<CalibrationText> {
        match &self.calibration.calibration {
            Some(path) => Some(CalibrationText::File { path: path.to_path_buf(), form: self.text.form() }),
            None => {
                (self.pattern.method != Method::Magnitude || self.refits()).then_some(CalibrationText::Default { seed })
            }
        }
    }

    fn check_masks_move(&self, faults: &mut Faults) {
        if !(0.0..=1.0).contains(&self.masks_move) {
            faults.add(
                "masks-move",
                anyhow!("--masks-move {} is not a share; pass a number from 0 to 1", self.masks_move),
            );
        } else if self.masks_move > 0.0 && !self.recover {
            faults
                .add("masks-move", anyhow!("--masks-move is for training; add --recover --data FILE, or leave it out"));
        }
    }

    fn check_most_missed(&self, faults: &mut Faults) {
        let Some(share) = self.pattern.most_missed else { return };
        if !(0.0..=1.0).contains(&share) {
            let error = anyhow!("--most-missed {share} is not a share; pass a number between 0 and 1");
            faults.add("most-missed", error);
        }
        if !(self.pattern.refit || self.pattern.method == Method::SparseGpt) {
            let error = anyhow!(
                "--most-missed needs the outputs, which {} alone does not look at; add --refit",
                self.pattern.method.name()
            );
            faults.add("most-missed", error);
        }
    }

    /// The model that pruning makes, where the selection can be pruned.
    fn pruned(&self, model: &KnownModel, faults: &mut Faults) -> Option<KnownModel> {
        if model.quantized {
            faults.add("model", StageError::PruneQuantized { path: self.model.model.to_path_buf() });
        }
        let selected = faults.check("only", select(&model.spec, &self.pattern.only))?;
        faults.check("pattern", check(&model.spec, &selected, self.pattern.pattern))?;
        // With --most-missed the set of dense matrices is known only after the work.
        let sparsity = model.sparsity.clone().filter(|_| self.pattern.most_missed.is_none()).map(|mut sparsity| {
            sparsity.extend(selected.iter().map(|id| (*id, self.pattern.pattern)));
            sparsity
        });
        Some(KnownModel::dense(model.spec.clone(), sparsity).with_files(model.files.clone()))
    }

    /// What the work will take.
    fn predicted(&self, spec: &ModelSpec, retrain: &Settings, recovery_bytes: Option<u64>) -> Prediction {
        let tokens = match &self.calibration.calibration {
            Some(path) => prediction::tokens_of(&[path.to_path_buf()], spec.vocabulary),
            None => u64::MAX,
        };
        let tokens = tokens.min(CALIBRATION_TOKENS as u64);
        let solved = self.pattern.method == Method::SparseGpt || self.refits();
        let sampled = self.calibration.calibration.is_none() && spec.kind == ModelKind::Decoder;
        let calibrated = match self.source(0) {
            Some(_) => prediction::calibration_macs(spec, tokens, solved, sampled),
            None => 0,
        };
        let solver = if solved { prediction::solver_macs(spec) } else { 0 };
        let recovery = if self.recover { prediction::training_macs(spec, &[spec], retrain) } else { 0 };
        let bytes = prediction::dense_bytes(spec);
        Prediction {
            output_bytes: Some(bytes),
            state_bytes: self.recover.then_some(3 * bytes),
            peak_memory_bytes: Some(memory_estimate(spec).max(recovery_bytes.unwrap_or(0))),
            work_macs: Some(prediction::moved_macs(spec) + calibrated + solver + recovery),
            way: Some(if self.recover { "recovered" } else { self.pattern.method.name() }),
            ..Prediction::default()
        }
    }
}

impl Stage for Prune {
    type Args = Args;
    type Options = OnTrainingBackend<PruneOptions>;
    const NAME: &'static str = "prune";
    const MAKES: Product = Product::Dense;
    const REVISION: u32 = 4;
    const ARITHMETIC: Arithmetic = Arithmetic::Float;
    const RESUMES: Resumes = Resumes::Sometimes;

    fn defaults() -> Value {
        json!({"training": Settings::RECOVER, "encoder_calibration": hex(&sha256(ENCODER_TEXT.as_bytes()))})
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Self::Options> {
        let mut faults = Faults::default();
        let model = faults.check("model", known.model(&args.model.model)).flatten();
        if let Some(model) = &model {
            faults.check("model", model.check_one_stack("whose stacks slmc does not prune"));
        }
        let context = model.as_ref().map_or(usize::MAX, |model| model.spec.context);
        let retrain = args.retrain.retrain(&args.text, Settings::RECOVER, run, context);
        let asked = Switch {
            on: args.recover,
            option: "--recover",
            text: &args.text,
            calibrated: args.calibration.calibration.is_some(),
            spec: model.as_ref().map(|model| &model.spec),
        };
        args.retrain.check(&asked, &retrain.settings, &mut faults);
        let backend = faults.check("backend", args.backend.training_if(args.recover));
        if let Some(model) = &model {
            faults.check("", check_memory(run, memory_estimate(&model.spec), "pruning"));
        }
        if let Some(backend) = &backend {
            numerics::check(args.numerics.numerics, &backend.device(), on_workers(backend), &mut faults);
        }
        let mut recovery_bytes = None;
        if let (true, Some(backend)) = (args.recover, &backend) {
            let computed_by = ComputedBy::of(backend);
            check_recompute(&retrain.settings, computed_by, &mut faults);
            if let Some(model) = &model {
                let read_bytes = retrain.data.as_ref().map_or(0, read_bytes);
                let scope = Scope::default();
                let need = retraining_need(&model.spec, &scope, &retrain.settings, computed_by, read_bytes);
                recovery_bytes = Some(need.peak_bytes());
                faults.check("", need.check(run.max_ram));
            }
        }
        let predicted = model
            .as_ref()
            .map_or_else(Prediction::default, |model| args.predicted(&model.spec, &retrain.settings, recovery_bytes));
        if let (Known::Planned(_), Some(model)) = (known, &model) {
            let (calibration, form) = (path(&args.calibration.calibration), args.text.form());
            let trains = args.recover.then_some(&retrain);
            check_texts_of_change(model, (calibration.as_deref(), &form), trains, &mut faults);
        }
        args.check_most_missed(&mut faults);
        args.check_masks_move(&mut faults);
        let makes = model.as_ref().and_then(|model| args.pruned(model, &mut faults));
        faults.check("out", atomic::check_directory(&args.out.out));
        let checked = backend.map(|backend| {
            let options = PruneOptions {
                invocation: run.invocation.clone(),
                model: args.model.model.to_path_buf(),
                out: args.out.out.clone(),
                pattern: args.pattern.pattern,
                method: args.pattern.method,
                refit: args.refits(),
                reorder: !args.pattern.no_reorder,
                most_missed: args.pattern.most_missed,
                only: args.pattern.only.clone(),
                source: args.source(run.seed),
                recover: args.recover.then_some(retrain),
                masks_move: args.masks_move,
            };
            OnTrainingBackend { options, backend }
        });
        Resolved::new(checked, makes, faults).predicting(predicted)
    }

    fn run(checked: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome> {
        let (options, devices) = (&checked.options, checked.connect(shell)?);
        shell.status("Pruning", format_args!("{} to {}", options.model.display(), options.pattern));
        let report = prune_directory(options, &devices, shell)?;
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
