//! `slmc quantize`: a checkpoint's weights rounded to 8 and 4 bits, and the frontier of assignments that it measures.

mod arguments;
mod memory;
mod options;
mod report;
mod sweep;
mod work;

use super::arguments::path;
use super::arguments::training::Switch;
use super::backend::{connect, on_workers};
use super::error::StageError;
use super::known::{Known, KnownModel};
use super::limits::check_memory;
use super::numerics;
use super::prediction::{self, Prediction};
use super::stage::{Arithmetic, Faults, Measures, Outcome, Product, Resolved, Resumes, RunSettings, Stage};
use super::summary::Figures;
use super::training::{check_recompute, check_texts_of_change, read_bytes, retraining_need};
use crate::allocate::error::AllocationError;
use crate::allocate::plan::{Asked, Plan};
use crate::compile::CompileError;
use crate::compile::sections::SectionBytes;
use crate::disk::atomic;
use crate::disk::hash::{hex, sha256};
use crate::formats;
use crate::machine::available_memory_bytes;
use crate::model::device::Backend;
use crate::model::scheme::{Assignment, Preset, Width};
use crate::model::size::stored_tensors;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::model::transform::{NmPattern, Sparsity};
use crate::progress::Progress as _;
use crate::quantize::budget::Bounds;
use crate::quantize::calibration::{CalibrationText, ENCODER_TEXT};
use crate::quantize::error::CalibrationError;
use crate::quantize::method::Method;
use crate::quantize::policy::{SchemeSource, assign, widths};
use crate::quantize::training_data::{Retrain, default_tuning};
use crate::report::chart::CHART_MAGIC;
use crate::shell::Shell;
use crate::target::Target;
use crate::train::memory::ComputedBy;
use crate::train::scope::Scope;
use crate::train::settings::Settings;
use anyhow::anyhow;
use arguments::Args;
use memory::{Beside, memory_estimate, tuning_settings};
use options::AUTO;
pub use options::QuantizeOptions;
pub use report::QuantizeReport;
use serde_json::{Value, json};
use std::path::PathBuf;
pub use sweep::sweep_directory;
pub use work::quantize_directory;

/// Checked options for a model or a chart, and where to compute.
pub struct Checked {
    options: QuantizeOptions,
    /// Path of the chart of the frontier, where that is made instead of a model.
    chart: Option<PathBuf>,
    backend: Backend,
    /// Memory at the peak, where the model is known.
    need_bytes: Option<u64>,
}

/// The kind of stage.
pub struct Quantize;

impl Args {
    /// Where schemes come from; any will do for a sweep, which measures all.
    fn resolved_schemes(&self, faults: &mut Faults) -> Option<SchemeSource> {
        if self.schemes.sweep {
            return Some(SchemeSource::Preset(Preset::W8));
        }
        let option = self.bounds().options().first().copied().unwrap_or("scheme");
        faults.check(option, self.scheme_source())
    }

    /// The schemes of a preset, and whether the model can be stored so; `None` where only the work decides.
    fn schemes(&self, model: &KnownModel, preset: Preset, target: &Target, faults: &mut Faults) -> Option<Assignment> {
        let spec = &model.spec;
        let schemes = faults.check("keep", assign(spec, preset, &self.schemes.keep))?;
        if let Some(sparsity) = &model.sparsity {
            faults.check("keep", stored_tensors(spec, &schemes, sparsity, target.layout, spec.context, true));
        }
        Some(schemes)
    }

    /// The model that quantizing makes.
    fn quantized(&self, model: &KnownModel, source: SchemeSource, target: &Target, faults: &mut Faults) -> KnownModel {
        let spec = &model.spec;
        if model.quantized {
            faults.add("model", StageError::AlreadyQuantized { path: self.model.model.to_path_buf() });
        }
        let schemes = match source {
            SchemeSource::Preset(preset) => self.schemes(model, preset, target, faults),
            SchemeSource::Auto(bounds) => {
                if let Err(error) = self.check_bounds(model, bounds, target) {
                    let of_error = error.downcast_ref::<AllocationError>().and_then(AllocationError::option);
                    let of_context = error.is::<CompileError>().then_some("context");
                    let option = of_error.or(of_context).or(bounds.options().first().copied()).unwrap_or("scheme");
                    faults.add(option, error);
                }
                None
            }
        };
        faults.check("activations", widths(spec, &self.schemes.activations));
        // Artifacts hold this pattern compressed and no other.
        let sparsity = model.sparsity.clone().map(|mut sparsity| {
            sparsity.retain(|_, pattern| pattern.is_two_of_four());
            sparsity
        });
        // Without a word a decoder's inputs are as wide as its calibration asks for, which only the work tells.
        let wide_activations = widths(spec, &self.schemes.activations)
            .is_ok_and(|widths| widths.values().any(|width| *width == Width::Bits16));
        let files = model.files.clone();
        KnownModel { spec: spec.clone(), quantized: true, schemes, sparsity, wide_activations, files }
    }

    /// What the work will take.
    fn predicted(&self, spec: &ModelSpec, schemes: Option<SchemeSource>, retrain: &Retrain, peak: u64) -> Prediction {
        let tokens = match &self.calibration.calibration {
            Some(path) => prediction::tokens_of(&[path.to_path_buf()], spec.vocabulary),
            None => u64::MAX,
        };
        let tokens = tokens.min(self.calibration_tokens.get() as u64);
        let sampled = self.calibration.calibration.is_none() && spec.kind == ModelKind::Decoder;
        let rounding = prediction::rounding_macs(spec, self.rounding.method, tokens, sampled);
        let tune = self.tune.unwrap_or_else(|| default_tuning(spec)) as u64;
        let training = if self.qat {
            prediction::training_macs(spec, &[spec], &retrain.settings)
        } else if self.rounding.method == Method::Gptq && tune > 0 {
            let settings = Settings { tokens: tune.saturating_mul(tokens), ..tuning_settings(spec) };
            prediction::training_macs(spec, &[spec], &settings)
        } else {
            0
        };
        // What a choice by measurement takes depends on what it finds.
        let measured = self.schemes.sweep || matches!(schemes, Some(SchemeSource::Auto(_)));
        Prediction {
            output_bytes: (!self.schemes.sweep).then(|| prediction::quantized_bytes(spec)),
            state_bytes: (training > 0).then(|| 3 * prediction::dense_bytes(spec)),
            peak_memory_bytes: Some(peak),
            work_macs: (!measured).then_some(rounding + training),
            way: Some(match (self.qat, training > 0) {
                (true, _) => "qat",
                (false, true) => "gptq, tuned",
                (false, false) => self.rounding.method.name(),
            }),
            ..Prediction::default()
        }
    }

    fn check_bounds(&self, model: &KnownModel, bounds: Bounds, target: &Target) -> anyhow::Result<()> {
        let limit = model.spec.context;
        if let Some(context) = bounds.context.filter(|&context| context == 0 || context > limit) {
            return Err(CompileError::Context { context, limit }.into());
        }
        // A pattern that matches nothing is said by its own option.
        let widths = widths(&model.spec, &self.schemes.activations).unwrap_or_default();
        // The files of a model that an earlier stage makes are not there yet, and can only make it larger.
        let companions = self.model.model.exists().then(|| formats::companions(&self.model.model).ok());
        let sections = companions.flatten().and_then(|companions| SectionBytes::of(&companions, &model.spec).ok());
        let plan = |sparsity: &Sparsity| -> Result<Plan, AllocationError> {
            Plan::new(&Asked {
                spec: &model.spec,
                keeps: &self.schemes.keep,
                bounds,
                sparsity,
                widths: &widths,
                target,
                sections: sections.unwrap_or_default(),
            })
        };
        if let Some(sparsity) = &model.sparsity {
            plan(sparsity)?;
        } else if plan(&Sparsity::new()).is_err() {
            // Sparsity of an earlier stage is not known yet, and can only make the model smaller.
            let pinned = assign(&model.spec, Preset::W8, &self.schemes.keep)?;
            // A matrix in two parts is not stored as 2:4.
            let whole = pinned.iter().filter(|(_, scheme)| scheme.storage(None).is_some());
            plan(&whole.map(|(id, _)| (*id, NmPattern::TWO_OF_FOUR)).collect())?;
        }
        Ok(())
    }

    /// The memory needed at the peak; notes a need that is above what is allowed.
    fn memory(
        &self,
        spec: &ModelSpec,
        retrain: &Retrain,
        computed_by: Option<ComputedBy>,
        run: &RunSettings,
        faults: &mut Faults,
    ) -> u64 {
        let beside = Beside {
            measured: self.schemes.sweep || matches!(self.schemes.scheme, Some(arguments::Scheme::Auto)),
            equalized: self.rounding.equalize,
            judged: self.rounding.method.calibrates() && self.calibration.calibration.is_some(),
        };
        let rounding = memory_estimate(spec, self.rounding.method, self.calibration_tokens.get(), beside);
        faults.check("", check_memory(run, rounding, "quantizing"));
        let there = available_memory_bytes().filter(|there| rounding > *there && run.max_ram.is_none());
        if let (true, Method::Gptq, Some(there)) = (spec.has_experts(), self.rounding.method, there) {
            faults.add(
                "method",
                anyhow!(
                    "gptq keeps the second moments of the inner channels of all experts together, about {rounding} bytes of memory \
                     where {there} are free; pass --method search"
                ),
            );
        }
        let Some(computed_by) = computed_by else { return rounding };
        let scope = Scope::default();
        if self.qat {
            check_recompute(&retrain.settings, computed_by, faults);
            let read_bytes = retrain.data.as_ref().map_or(0, read_bytes);
            let need = retraining_need(spec, &scope, &retrain.settings, computed_by, read_bytes);
            faults.check("", need.check(run.max_ram));
            return rounding.max(need.peak_bytes());
        }
        if !self.tunes(spec) {
            return rounding;
        }
        let settings = tuning_settings(spec);
        let need = retraining_need(spec, &scope, &settings, computed_by, 0).peak_bytes();
        if let Some(limit) = run.max_ram.filter(|limit| need > *limit) {
            faults.add(
                "",
                anyhow!(
                    "tuning after gptq needs about {need} bytes of memory, --max-ram allows {limit}; raise it, or pass --tune 0 \
                     for none"
                ),
            );
        }
        rounding.max(need)
    }

    /// Whether there is a training on the grid after gptq.
    fn tunes(&self, spec: &ModelSpec) -> bool {
        self.rounding.method == Method::Gptq && self.tune.unwrap_or_else(|| default_tuning(spec)) > 0
    }

    /// Whether anything is trained, as far as the model is known.
    fn trains(&self, spec: Option<&ModelSpec>) -> bool {
        !self.schemes.sweep && (self.qat || spec.map_or(self.tune != Some(0), |spec| self.tunes(spec)))
    }

    /// Integers are taken over as they are: nothing may change the weights first, and no search decides the schemes.
    fn check_keep(&self, schemes: Option<SchemeSource>, faults: &mut Faults) {
        if self.rounding.method != Method::Keep {
            return;
        }
        let given = [
            (self.rounding.equalize, "equalize", "--equalize"),
            (self.schemes.sweep, "sweep", "--sweep"),
            (matches!(schemes, Some(SchemeSource::Auto(_))), "scheme", "--scheme auto"),
        ];
        for (_, option, shown) in given.into_iter().filter(|(given, ..)| *given) {
            faults.add(option, StageError::KeepOnly(shown));
        }
    }
}

impl Stage for Quantize {
    type Args = Args;
    type Options = Checked;
    const NAME: &'static str = "quantize";
    const MAKES: Product = Product::Quantized;
    const REVISION: u32 = 3;
    const ARITHMETIC: Arithmetic = Arithmetic::Float;
    const RESUMES: Resumes = Resumes::Sometimes;
    const MEASURES: Measures = Measures { own: &[], also: &["weight_bytes"] };

    fn defaults() -> Value {
        json!({"training": Settings::QAT, "encoder_calibration": hex(&sha256(ENCODER_TEXT.as_bytes()))})
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<Checked> {
        let mut faults = Faults::default();
        let schemes = args.resolved_schemes(&mut faults);
        let target = faults.check("target", Target::named(&args.target.target));
        let model = faults.check("model", known.model(&args.model.model)).flatten();
        if let Some(model) = &model {
            faults.check("model", model.check_one_stack("through which slmc does not calibrate"));
        }
        let spec = model.as_ref().map(|model| &model.spec);
        let context = spec.map_or(usize::MAX, |spec| spec.context);
        let retrain = args.retrain.retrain(&args.text, Settings::QAT, run, context);
        let asked = Switch {
            on: args.qat,
            option: "--qat",
            text: &args.text,
            calibrated: args.calibration.calibration.is_some(),
            spec,
        };
        args.retrain.check(&asked, &retrain.settings, &mut faults);
        let backend = faults.check("backend", args.backend.training_if(args.trains(spec)));
        if let Some(backend) = &backend {
            let measured = args.schemes.sweep || matches!(schemes, Some(SchemeSource::Auto(_)));
            let part = measured.then_some(AUTO).or(on_workers(backend));
            numerics::check(args.numerics.numerics, &backend.device(), part, &mut faults);
        }
        let computed_by = backend.as_ref().map(ComputedBy::of);
        let need_bytes = spec.map(|spec| args.memory(spec, &retrain, computed_by, run, &mut faults));
        let predicted = match (spec, need_bytes) {
            (Some(spec), Some(peak)) => args.predicted(spec, schemes, &retrain, peak),
            _ => Prediction::default(),
        };
        let source = args.source(run.seed);
        if matches!(source, CalibrationText::Mixed { .. }) && spec.is_some_and(|spec| spec.kind == ModelKind::Encoder) {
            faults.add("mix-self", CalibrationError::Encoder);
        }
        if let (Known::Planned(_), Some(model)) = (known, &model) {
            let (calibration, form) = (path(&args.calibration.calibration), args.text.form());
            let trains = args.qat.then_some(&retrain);
            check_texts_of_change(model, (calibration.as_deref(), &form), trains, &mut faults);
        }
        args.check_keep(schemes, &mut faults);
        if args.tune.is_some_and(|times| times > 0) && args.rounding.method != Method::Gptq {
            let method = args.rounding.method.name();
            faults.add(
                "tune",
                anyhow!("--tune trains after --method gptq, and {method} is asked for; leave one of the two out"),
            );
        }
        let makes = match (&model, schemes, &target) {
            (Some(model), Some(schemes), Some(target)) => Some(args.quantized(model, schemes, target, &mut faults)),
            _ => None,
        };
        let chart = args.schemes.sweep.then(|| args.schemes.chart.to_path_buf());
        match (&chart, &args.out) {
            (Some(chart), _) => drop(faults.check("chart", atomic::check_file(chart, CHART_MAGIC))),
            (None, Some(out)) => drop(faults.check("out", atomic::check_directory(out))),
            (None, None) => {}
        }
        let checked = schemes.zip(target).zip(backend).map(|((schemes, target), backend)| {
            let options = QuantizeOptions {
                invocation: run.invocation.clone(),
                model: args.model.model.to_path_buf(),
                out: args.out.clone().unwrap_or_default(),
                schemes,
                keeps: args.schemes.keep.clone(),
                activations: args.schemes.activations.clone(),
                equalize: args.rounding.equalize,
                method: args.rounding.method,
                exact_f16: args.rounding.exact_f16,
                source,
                seed: run.seed,
                calibration_tokens: args.calibration_tokens.get(),
                target,
                tune: args.tune,
                qat: args.qat.then_some(retrain),
            };
            Checked { options, chart, backend, need_bytes }
        });
        Resolved::new(checked, makes, faults).predicting(predicted)
    }

    fn run(checked: &Checked, shell: &Shell) -> anyhow::Result<Outcome> {
        let Checked { options, chart, backend, need_bytes } = checked;
        let devices = connect(backend, shell)?;
        need_bytes.iter().for_each(|bytes| shell.needs("quantizing", *bytes));
        if let Some(chart) = chart {
            shell.status("Measuring", format_args!("the frontier of {}", options.model.display()));
            let report = sweep_directory(options, chart, &devices.device, shell)?;
            shell.status("Wrote", chart.display());
            return Outcome::passed(&report);
        }
        shell.status("Quantizing", format_args!("{} to {}", options.model.display(), options.schemes.name()));
        let report = quantize_directory(options, &devices, shell)?;
        shell.status("Wrote", options.out.display());
        Outcome::passed(&report)
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        let (scheme, bits) = (report.text("scheme")?, report.number("bits_per_weight")?);
        Some(format!("{scheme}, {bits:.2} bits a weight{}", report.retrained("trained")))
    }
}
