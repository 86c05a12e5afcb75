//! `slmc prune`

use super::check_memory;
use super::global::Global;
use super::training::RetrainArgs;
use crate::model::device::device;
use crate::model::spec::ModelSpec;
use crate::model::transform::NmPattern;
use crate::prune::{Method, select};
use crate::quantize::calibration::Source;
use crate::recipe::Known;
use crate::shell::{ExitStatus, Shell};
use crate::stages::prune::{Options, PruneReport, memory_estimate, prune_directory};
use crate::train::settings::Settings;
use crate::train::start::context_of;
use anyhow::ensure;
use std::path::PathBuf;

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
pub(super) struct Args {
    /// Hugging Face directory: config.json, model.safetensors or its shards, tokenizer.json
    #[arg(value_name = "DIR")]
    model: PathBuf,

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
    calibration: Option<PathBuf>,

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

impl Args {
    /// What is wrong as far as configurations tell, and what the output will be.
    pub(super) fn check(&self, global: &Global, known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        let spec = known.at(&self.model);
        if let Some(spec) = spec {
            select(spec, &self.only)?;
        }
        let context = spec.map_or(usize::MAX, |spec| spec.context);
        if self.recover {
            self.retrain.retrain(self.field.clone(), Settings::RECOVER, global, context).settings.check()?;
        }
        Ok(spec.cloned())
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&self.execute(global, shell)?)?;
        Ok(ExitStatus::Success)
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<PruneReport> {
        self.retrain.check(self.recover, "--recover", self.field.as_deref(), self.calibration.is_some())?;
        let device = device(&self.device)?;
        check_memory(global, memory_estimate(&self.model)?, "pruning")?;
        let context = context_of(&self.model)?;
        if let Some(share) = self.most_missed {
            ensure!((0.0..=1.0).contains(&share), "--most-missed {share} is no share; pass a number between 0 and 1");
            ensure!(
                self.refit || self.method == Method::SparseGpt,
                "--most-missed needs the outputs, which {} alone does not look at; add --refit",
                self.method.name()
            );
        }
        let refit = self.refit || (self.method == Method::SparseGpt && !self.no_refit);
        let source = match &self.calibration {
            Some(path) => Some(Source::File { path: path.clone(), field: self.field.clone() }),
            None => (self.method != Method::Magnitude || refit).then_some(Source::Default { seed: global.seed }),
        };
        let options = Options {
            model: self.model.clone(),
            out: self.out.clone(),
            pattern: self.pattern,
            method: self.method,
            refit,
            most_missed: self.most_missed,
            only: self.only.clone(),
            source,
            recover: self.recover.then(|| self.retrain.retrain(self.field.clone(), Settings::RECOVER, global, context)),
        };
        shell.status("Pruning", format_args!("{} to {}", self.model.display(), self.pattern));
        let report = prune_directory(&options, &device, shell)?;
        shell.status("Wrote", self.out.display());
        Ok(report)
    }
}
