//! The work of `slmc quantize`: a dense directory in, a quantized directory out, and a report of every matrix.
//! The steps, over one value that grows ([`Work`], then [`Rounded`] beside it):
//!
//! ```text
//! open ─> calibrate ─> choose widths ─> equalize      the model and its statistics
//!      ─> search (auto) ─> round ─> train ─> widen (auto) ─> report, write
//! ```

use super::options::QuantizeOptions;
use super::report::QuantizeReport;
use crate::allocate::database::database;
use crate::allocate::plan::{Asked, Found, Plan};
use crate::allocate::report::AllocationReport;
use crate::calibrate::collect;
use crate::compile::sections::SectionBytes;
use crate::disk::atomic;
use crate::formats::{self, ModelSink, slmc_quantized};
use crate::model::id::{LinearId, ParameterId};
use crate::model::integers::{GroupedIntegers, Unfit};
use crate::model::scheme::{Assignment, Preset, Width, width_name};
use crate::model::size::{StoredTensor, WeightSize, stored_tensors};
use crate::model::spec::ModelKind;
use crate::model::transform::{HeldMasks, Sparsity};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::calibration::{Calibration, calibration};
use crate::quantize::calibration_check::{self, CalibrationCheck};
use crate::quantize::equalize::{Equalized, equalize};
use crate::quantize::error::RoundingError;
use crate::quantize::input_width::InputWidth;
use crate::quantize::keep::keep;
use crate::quantize::method::Method;
use crate::quantize::policy::{self, Activations, SchemeSource};
use crate::quantize::solver;
use crate::quantize::training_data::Training;
use crate::quantize::tune::{Judged, Tuning};
use crate::quantize::{Grids, MatrixReport, mark_sparse, mark_wide, quantize, with_key_maps};
use crate::stages::StageError;
use crate::stages::provenance::of_weights;
use crate::stages::resume::Resume;
use crate::stages::runner::Compiled;
use crate::text::chat_template::ChatTemplate;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::train::report::{TrainReport, write_log};
use crate::workers::TrainingDevices;
use burn::tensor::Device;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Quantizes a directory. Everything that can be refused without work is refused first.
///
/// # Errors
/// [`StageError`].
pub fn quantize_directory(
    options: &QuantizeOptions,
    devices: &TrainingDevices,
    progress: &dyn Progress,
) -> Result<QuantizeReport, StageError> {
    atomic::check_directory(&options.out)?;
    let run = Run { options, device: &devices.device, devices, progress };
    let mut work = Work::open(run)?;
    let resumes = options.method == Method::Gptq || options.qat.is_some();
    let of_run = || Ok::<_, StageError>(Resume::of(&options.out, &options.identity(devices)?));
    if resumes && Resume::is_left(&options.out) {
        // The state of another run is refused now, not after the work that comes before it is read.
        of_run()?.check()?;
    }
    work.calibrate()?;
    work.choose_widths()?;
    work.equalize()?;
    let found = work.search()?;
    let assignment = found.as_ref().map_or_else(|| work.preset.clone(), |found| found.assignment.clone());
    // Refused before the long work where it cannot be stored.
    work.tensors(&assignment, true)?;
    let training = work.training()?;
    let resume = if resumes { Some(of_run()?) } else { None };
    let mut rounded = work.round(&assignment, resume.as_ref())?;
    if let (Some(training), Some(resume)) = (training, &resume) {
        rounded = rounded.train(training, resume)?;
    }
    let allocation = rounded.widen(found)?;
    let tensors = work.tensors(&assignment, rounded.has_key_maps())?;
    let report = rounded.report(&tensors, allocation);
    let provenance = provenance(options, &report, &work.sparsity, devices)?;
    slmc_quantized::Directory(&options.out).write(&rounded.model, &provenance)?;
    if let Some(resume) = resume {
        resume.finished()?;
    }
    Ok(report)
}

/// Inputs of every step.
#[derive(Clone, Copy)]
struct Run<'o> {
    options: &'o QuantizeOptions,
    /// Of everything that is not training.
    device: &'o Device,
    devices: &'o TrainingDevices,
    progress: &'o dyn Progress,
}

/// The model to round, and everything that decides how.
struct Work<'o> {
    run: Run<'o>,
    /// Dense; equalized where that was asked for.
    model: Model,
    sparsity: Sparsity,
    /// The allocation problem of `auto`.
    plan: Option<Plan>,
    /// Scheme of every matrix in a preset.
    preset: Assignment,
    calibration: Calibration,
    /// Measured where nothing was asked for.
    input_width: Option<InputWidth>,
    /// As asked for or as measured.
    activations: Vec<Activations>,
    widths: BTreeMap<LinearId, Width>,
    equalized: Vec<Equalized>,
}

impl<'o> Work<'o> {
    /// Opens the model; everything that can be refused without work is refused here.
    fn open(run: Run<'o>) -> Result<Self, StageError> {
        let options = run.options;
        let input = formats::open(&options.model)?;
        let model = input.model()?;
        if model.is_quantized() {
            return Err(StageError::AlreadyQuantized { path: options.model.clone() });
        }
        let sparsity = input.recorded_sparsity()?;
        let widths = policy::widths(&model.spec, &options.activations)?;
        let (plan, preset) = match options.schemes {
            SchemeSource::Auto(bounds) => {
                let asked = Asked {
                    spec: &model.spec,
                    keeps: &options.keeps,
                    bounds,
                    sparsity: &sparsity,
                    widths: &widths,
                    target: &options.target,
                    sections: SectionBytes::of(&model.companions, &model.spec)?,
                };
                (Some(Plan::new(&asked)?), Assignment::new())
            }
            SchemeSource::Preset(preset) => (None, policy::assign(&model.spec, preset, &options.keeps)?),
        };
        let none = Calibration { description: "none".to_owned(), ..Calibration::default() };
        let work = Work {
            run,
            model,
            sparsity,
            plan,
            preset,
            calibration: none,
            input_width: None,
            activations: options.activations.clone(),
            widths,
            equalized: Vec::new(),
        };
        if work.plan.is_none() {
            work.tensors(&work.preset, true)?;
        }
        work.check_text()?;
        work.check_values()?;
        Ok(work)
    }

    /// Tokenizer and chat template travel with the model; one that could not be used later is refused now.
    fn check_text(&self) -> Result<(), StageError> {
        match Tokenizer::of(&self.model.companions) {
            Ok(mut tokenizer) => drop(tokenizer.check(self.model.spec.vocabulary)?),
            Err(TokenizerError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if self.model.spec.kind == ModelKind::Decoder {
            ChatTemplate::usable(&self.model.companions)?;
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), StageError> {
        let model = &self.model;
        model.check_sparsity(&self.sparsity)?;
        if self.run.options.method == Method::Gptq {
            // Read once, so that values that are not finite are refused before the long work.
            model.parameters.keys().try_for_each(|id| model.values_f32(*id).map(drop))?;
        }
        Ok(())
    }

    /// The tensors of the artifact by the schemes of all matrices, with key maps or without.
    fn tensors(&self, schemes: &Assignment, key_maps: bool) -> Result<Vec<StoredTensor>, StageError> {
        let spec = &self.model.spec;
        Ok(stored_tensors(spec, schemes, &self.sparsity, self.run.options.target.layout, spec.context, key_maps)?)
    }

    /// Reads or samples the calibration text, where a step needs it.
    fn calibrate(&mut self) -> Result<(), StageError> {
        let Run { options, progress, .. } = self.run;
        if options.method.calibrates() || options.qat.is_some() || self.plan.is_some() || options.equalize {
            let (source, tokens) = (&options.source, options.calibration_tokens);
            self.calibration = calibration(&self.model, source, tokens, progress)?;
        }
        Ok(())
    }

    /// Measures how wide inputs must be where nothing was asked for; `auto` decides for every matrix, later.
    fn choose_widths(&mut self) -> Result<(), StageError> {
        if self.activations.is_empty() && self.plan.is_none() {
            self.input_width = InputWidth::measure(&self.model, &self.calibration.sequences, self.run.device)?;
            if let Some(width) = self.input_width {
                self.activations = width.activations();
            }
            self.widths = policy::widths(&self.model.spec, &self.activations)?;
        }
        Ok(())
    }

    /// Moves outliers from inputs into weights.
    fn equalize(&mut self) -> Result<(), StageError> {
        let Run { options, device, progress, .. } = self.run;
        if options.equalize {
            let schemes = match &self.plan {
                None => self.preset.clone(),
                // The schemes are not known yet: outliers are weighed by their effect on 4 bits.
                Some(_) => Preset::W4.assign(&self.model.spec),
            };
            let sequences = &self.calibration.sequences;
            (self.model, self.equalized) = equalize(self.model.clone(), &schemes, sequences, device, progress)?;
        }
        Ok(())
    }

    /// The assignment of `auto` within the budget.
    fn search(&self) -> Result<Option<Found<'_>>, StageError> {
        let Run { options, device, progress, .. } = self.run;
        let Some(plan) = &self.plan else { return Ok(None) };
        let (items, sequences) = (&plan.items.items, &self.calibration.sequences);
        let solver = (options.method, options.scales());
        let database = database(&self.model, items, &self.sparsity, solver, sequences, device, progress)?;
        let (source, seed, runner) = (&options.source, options.seed, &Compiled);
        let calibration = &self.calibration;
        let found = Found::search(plan, &self.model, source, calibration, &database, seed, runner, device, progress)?;
        Ok(Some(found))
    }

    /// Tuning or quantization-aware training after rounding, where there is any.
    fn training(&self) -> Result<Option<Training>, StageError> {
        let Run { options, progress, .. } = self.run;
        let asked = (options.method, options.tune, options.qat.as_ref());
        Ok(Training::of(asked, options.seed, &self.model, &self.calibration, progress)?)
    }

    /// Rounds every matrix by its scheme.
    fn round(&self, schemes: &Assignment, resume: Option<&Resume>) -> Result<Rounded<'_>, StageError> {
        let Run { options, device, progress, .. } = self.run;
        let (model, sequences) = (&self.model, &self.calibration.sequences);
        let groups = resume.map(Resume::groups).transpose()?;
        let grids = Grids { assignment: schemes, scales: options.scales() };
        let (quantized, reports) = match options.method {
            Method::Keep => {
                let source = formats::open(&options.model)?;
                let mut integers = |id: LinearId, scheme| -> Result<Result<GroupedIntegers, Unfit>, StageError> {
                    if let Err(reason) = source.grid(id).and_then(|grid| grid.fit(scheme)) {
                        return Ok(Err(reason));
                    }
                    Ok(source.integers(id)?.ok_or(Unfit::Floats))
                };
                keep(model, grids, &mut integers, progress)?
            }
            Method::Rtn => quantize(model, grids, None, progress)?,
            Method::Search => {
                let statistics = collect(model, sequences, device, progress)?;
                quantize(model, grids, Some(&statistics), progress)?
            }
            Method::Gptq => {
                warn_of_few_tokens(model, self.calibration.tokens(), progress);
                if let Some(groups) = groups.as_ref().filter(|groups| groups.resumed > 0) {
                    let resumed = groups.resumed;
                    progress.warn(&format_args!("{resumed} groups of matrices are done, from an interrupted run"));
                }
                let solved = solver::solve(model, grids, &self.sparsity, sequences, groups.as_ref(), device, progress);
                // A refusal would come again at the same place, so the saved state is useless; a state that could not
                // be saved (a full disk) leaves the groups before it, from which the same command goes on.
                if solved.as_ref().is_err_and(|error| !matches!(error, RoundingError::Checkpoint(_))) {
                    resume.into_iter().for_each(Resume::refused);
                }
                let solved = solved?;
                (with_key_maps(solved.model, &solved.statistics)?, solved.reports)
            }
        };
        if options.method == Method::Keep && reports.values().all(|report| report.method != Method::Keep) {
            return Err(StageError::NothingToKeep {
                path: options.model.clone(),
                format: formats::name(&options.model),
                reason: reports.values().rev().find_map(|report| report.fallback.clone()).unwrap_or_default(),
            });
        }
        let (quantized, reports, check) = self.checked(grids, quantized, reports)?;
        let mut rounded =
            Rounded { work: self, model: quantized, matrices: reports, check, tuning: None, training: None };
        rounded.mark();
        Ok(rounded)
    }

    /// The rounded model, or plain rounding where that is nearer to the original on text that was not calibrated with.
    fn checked(&self, grids: Grids<'_>, rounded: Model, reports: Reports) -> Result<Checked, StageError> {
        let Run { options, device, progress, .. } = self.run;
        if !options.method.calibrates() {
            return Ok((rounded, reports, None));
        }
        let mut plain_reports = Reports::new();
        let plain = || {
            let (model, reports) = quantize(&self.model, grids, None, progress)?;
            plain_reports = reports;
            Ok(model)
        };
        let checked = calibration_check::check(&self.model, &rounded, plain, &options.source, device, progress)?;
        Ok(match checked {
            Some((check, plain)) if check.kept_plain => (plain, plain_reports, Some(check)),
            Some((check, _)) => (rounded, reports, Some(check)),
            None => (rounded, reports, None),
        })
    }
}

/// The report of every matrix.
type Reports = BTreeMap<LinearId, MatrixReport>;

/// A rounded model with its reports, and how its calibration compares.
type Checked = (Model, Reports, Option<CalibrationCheck>);

/// The model as it was rounded, with a report of every matrix.
struct Rounded<'w> {
    work: &'w Work<'w>,
    model: Model,
    matrices: BTreeMap<LinearId, MatrixReport>,
    check: Option<CalibrationCheck>,
    training: Option<TrainReport>,
    tuning: Option<Judged>,
}

impl Rounded<'_> {
    /// Marks sparse matrices and wide inputs, in the model and in the reports.
    fn mark(&mut self) {
        let Work { sparsity, widths, .. } = self.work;
        mark_sparse(&mut self.model, sparsity);
        mark_wide(&mut self.model, widths);
        for (id, pattern) in sparsity {
            if let Some(matrix) = self.matrices.get_mut(id) {
                matrix.sparsity = Some(pattern.to_string());
            }
        }
        self.report_widths();
    }

    /// Plain rounding has none.
    fn has_key_maps(&self) -> bool {
        self.model.parameters.keys().any(|id| matches!(id, ParameterId::KeyMap(..)))
    }

    fn report_widths(&mut self) {
        for (id, width) in self.model.activations() {
            if let Some(matrix) = self.matrices.get_mut(&id) {
                matrix.activations = Some(width_name(width).to_owned());
            }
        }
    }

    /// Trains on the grid: tuning after gptq, or `--qat`.
    fn train(self, training: Training, resume: &Resume) -> Result<Self, StageError> {
        let Work { run: Run { options, device, devices, progress }, model, sparsity, calibration, .. } = self.work;
        let tuning = Tuning {
            original: model,
            masks: HeldMasks::of(model, sparsity)?,
            samples: &training.samples.samples,
            settings: training.settings,
            follows: training.follows,
            held_out: &training.held_out,
            // The directory it lies in belongs to this run alone.
            fingerprint: String::new(),
            out: &resume.training(),
            scales: options.scales(),
        };
        let mut tuned = tuning.run(self.model, devices, *progress)?;
        tuned.training.files_read = training.samples.files.clone();
        if let Some(path) = options.qat.as_ref().and_then(|qat| qat.metrics.as_ref()) {
            write_log(path, &tuned.log)?;
        }
        let statistics = collect(&tuned.model, &calibration.sequences, device, *progress)?;
        let model = with_key_maps(tuned.model, &statistics)?;
        Ok(Rounded { model, tuning: tuned.judged, training: Some(tuned.training), ..self })
    }

    /// For `auto`: 16-bit inputs where they pay, and the finished model measured as an artifact.
    fn widen(&mut self, found: Option<Found<'_>>) -> Result<Option<AllocationReport>, StageError> {
        let Work { run: Run { options, progress, .. }, plan, .. } = self.work;
        let (Some(found), Some(plan)) = (found, plan) else { return Ok(None) };
        let spec = self.model.spec.clone();
        let pinned = |id| policy::names_width(&spec, &options.activations, id);
        let report = found.complete(plan, &pinned, &mut self.model, *progress)?;
        self.report_widths();
        Ok(Some(report))
    }

    fn report(&self, tensors: &[StoredTensor], allocation: Option<AllocationReport>) -> QuantizeReport {
        let Work { run: Run { options, .. }, calibration, activations, input_width, equalized, .. } = self.work;
        QuantizeReport {
            scheme: options.schemes.name(),
            keep: options.keeps.iter().map(ToString::to_string).collect(),
            activations: activations.iter().map(ToString::to_string).collect(),
            input_width: *input_width,
            method: if options.qat.is_some() { "qat" } else { options.method.name() },
            target: options.target.name.clone(),
            calibration: calibration.description.clone(),
            calibration_tokens: calibration.tokens() as u64,
            calibration_sequences: calibration.sequences.len() as u64,
            files_read: calibration.files_read.clone(),
            size: WeightSize::of(&self.model.spec, tensors),
            allocation,
            training: self.training.clone(),
            calibration_check: self.check,
            tuning: self.tuning,
            equalized: equalized.clone(),
            matrices: self.matrices.values().cloned().collect(),
        }
    }
}

/// Says before the work which linears have more columns than there are calibration tokens: their Gram matrices are
/// singular, and only damping decides the directions that the tokens leave open.
fn warn_of_few_tokens(model: &Model, tokens: usize, progress: &dyn Progress) {
    let linears = model.spec.matrices().into_iter().filter(|(id, ..)| model.spec.multiplies(*id));
    let wide: Vec<_> = linears.filter(|(_, _, columns)| *columns > tokens).collect();
    if let Some((id, _, columns)) = wide.first() {
        progress.warn(&format_args!(
            "{} linears have more inputs than the calibration has tokens, such as `{id}` with {columns} inputs against \
             {tokens} tokens; what was not seen is decided by damping: pass a longer --calibration text",
            wide.len()
        ));
    }
}

fn provenance(
    options: &QuantizeOptions,
    report: &QuantizeReport,
    sparsity: &Sparsity,
    devices: &TrainingDevices,
) -> Result<Value, StageError> {
    let mut settings = json!({
        "scheme": report.scheme,
        "keep": report.keep,
        "activations": report.activations,
        "method": report.method,
        "equalize": options.equalize,
        "target": report.target,
        "budget_bytes": report.allocation.as_ref().map(|allocation| allocation.budget_bytes),
        "calibration": report.calibration,
        "calibration_tokens": report.calibration_tokens,
        "tune": options.tune,
        "qat": options.qat.as_ref().map(|qat| &qat.settings),
    });
    if options.exact_f16 {
        settings["exact_f16"] = json!(true);
    }
    if let Some(plan) = report.allocation.as_ref().and_then(|allocation| allocation.plan) {
        settings["plan"] = json!(plan);
    }
    let metrics = json!({
        "weight_bytes": report.size.weight_bytes,
        "bits_per_weight": report.size.bits_per_weight,
        "training": report.training.as_ref().map(TrainReport::metrics),
    });
    let class = options.class(devices);
    let settings = (settings, &options.invocation);
    Ok(of_weights(("quantize", class), &options.inputs()?, settings, sparsity, metrics))
}
