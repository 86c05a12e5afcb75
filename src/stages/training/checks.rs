//! What is said of a training run before any work: settings that do not suit the models, the memory that it needs, what it
//! will take.

use super::{Start, TrainOptions};
use crate::model::device::Backend;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::model::transform::Sparsity;
use crate::quantize::calibration::{LEAST_SEQUENCES, WINDOW as CALIBRATION_WINDOW};
use crate::quantize::training_data::Retrain;
use crate::stages::arguments::scope::LoraOutput;
use crate::stages::arguments::training::check_settings;
use crate::stages::known::KnownModel;
use crate::stages::prediction::{self, Prediction};
use crate::stages::stage::Faults;
use crate::stages::texts::{Reads, Texts};
use crate::text::form::TextForm;
use crate::text::rows::row_format;
use crate::text::windows::check_window;
use crate::train::error::TrainError;
use crate::train::loss::table::LossKind;
use crate::train::memory::{ComputedBy, TrainingNeed};
use crate::train::relations::Relations;
use crate::train::samples::{Data, SamplesError, TEXT_FIELD, TrainTask, check_task, own_task};
use crate::train::scope::Scope;
use crate::train::settings::Settings;
use std::path::{Path, PathBuf};

/// Memory for a byte of a text that is encoded as one: its tokens with everything that the tokenizer says of them. It is
/// not given back before the training begins.
const BYTES_READING_A_BYTE: u64 = 100;
/// The same for rows, each of which is encoded by itself.
const BYTES_READING_A_ROW: u64 = 8;

/// The memory that reading takes, by the lengths of the files that are there.
pub fn read_bytes(data: &Data) -> u64 {
    let of_file = |path: &PathBuf| {
        let rows = data.form.field.is_some() || data.form.separator.is_some() || row_format(path).is_some();
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        length * if rows { BYTES_READING_A_ROW } else { BYTES_READING_A_BYTE }
    };
    data.files.iter().map(of_file).sum()
}

/// Notes a need for memory that is above what is allowed, as far as models are known: that of a decoder, whose samples are
/// as long as the window. Other samples are read first. Says what the training will take.
pub fn check_need(
    options: &TrainOptions,
    (student, teachers): (Option<&ModelSpec>, &[&ModelSpec]),
    transformed: bool,
    backend: &Backend,
    faults: &mut Faults,
) -> Prediction {
    let computed_by = ComputedBy::of(backend);
    check_recompute(&options.settings, computed_by, faults);
    if options.cache.is_some() && !computed_by.is_fused() {
        faults.add("teacher-cache", TrainError::PlainCache);
    }
    if options.privacy.is_some() && backend.workers().is_some() {
        faults.add("dp-epsilon", TrainError::PrivateWorkers);
    }
    let Some(student) = student else { return Prediction::default() };
    // Which matrices are sparse changes no count; a part that cannot be trained is said elsewhere.
    let scope = options.scope.of(student, &Sparsity::new()).unwrap_or_default();
    let need = TrainingNeed {
        student,
        scope: &scope,
        private: options.privacy.is_some(),
        teachers: teachers.to_vec(),
        settings: &options.settings,
        longest: options.settings.window,
        transformed,
        computed_by,
        read_bytes: read_bytes(&options.data),
    };
    if student.kind == ModelKind::Decoder {
        faults.check("", need.check(options.max_ram));
    }
    check_stacks(options, student, faults);
    let loss = &options.settings.loss;
    for teacher in teachers {
        faults.check("relations", Relations::of(student, teacher, loss));
    }
    if loss.uses(LossKind::Relations) && !computed_by.is_fused() {
        faults.add("relations", TrainError::PlainRelations);
    }
    let run = if loss.needs_teacher() { teachers } else { &[] };
    let peak_memory_bytes = Some(need.peak_bytes());
    // Values and both moments.
    let state_bytes = Some(12 * (scope.trained_count(student) + need.projected_count()));
    Prediction { peak_memory_bytes, state_bytes, ..prediction::training(student, run, &options.settings) }
}

/// Notes what training does not do with an encoder-decoder.
fn check_stacks(options: &TrainOptions, student: &ModelSpec, faults: &mut Faults) {
    if student.stacks().is_none() {
        return;
    }
    let family = student.family;
    let loss = &options.settings.loss;
    let cut = matches!(options.start, Start::Cut(_) | Start::CutTo(..));
    let refused = [
        (loss.uses(LossKind::Relations), "relations", "--relations"),
        (options.settings.recompute, "recompute", "--recompute"),
        (options.privacy.is_some(), "dp-epsilon", "--dp-epsilon"),
        (options.lora_output == LoraOutput::Adapter, "lora-output", "--lora-output adapter"),
        (cut, "init", "a student that is cut out of its teacher"),
    ];
    for (_, name, option) in refused.into_iter().filter(|(asked, ..)| *asked) {
        faults.add(name, TrainError::EncoderDecoder { option, family });
    }
}

/// The need of a changed model that is trained back with itself as it was as teacher.
pub fn retraining_need<'n>(
    spec: &'n ModelSpec,
    scope: &'n Scope,
    settings: &'n Settings,
    computed_by: ComputedBy,
    read_bytes: u64,
) -> TrainingNeed<'n> {
    TrainingNeed {
        student: spec,
        scope,
        private: false,
        teachers: settings.loss.needs_teacher().then_some(spec).into_iter().collect(),
        settings,
        longest: settings.window.min(spec.context),
        transformed: true,
        computed_by,
        read_bytes,
    }
}

/// Notes layers that are to be computed again where they cannot be.
pub fn check_recompute(settings: &Settings, computed_by: ComputedBy, faults: &mut Faults) {
    if settings.recompute && !computed_by.is_fused() {
        faults.add("recompute", TrainError::Recompute);
    }
}

/// Notes what a plan sees in the data of a training run, of a model that it knows.
pub fn check_data(
    options: &TrainOptions,
    student: Option<&KnownModel>,
    teacher: Option<&KnownModel>,
    faults: &mut Faults,
) {
    let Some(student) = student else { return };
    let data = &options.data;
    let texts = Texts {
        model: Some(student),
        tokenizer: options.tokenizer.as_deref(),
        other: teacher,
        option: "data",
        reads: reads(data, options.task, options.settings.window, &student.spec),
    };
    texts.check(&data.files, faults);
}

/// Likewise in the texts of a stage that changes weights: those it calibrates with, and those of a training after that.
pub fn check_texts_of_change(
    model: &KnownModel,
    (calibration, form): (Option<&Path>, &TextForm),
    retrain: Option<&Retrain>,
    faults: &mut Faults,
) {
    let reads_calibration = match model.spec.kind {
        ModelKind::Decoder => Reads::Windows(form, CALIBRATION_WINDOW, LEAST_SEQUENCES),
        ModelKind::Encoder | ModelKind::EncoderDecoder(_) => Reads::Records(form),
    };
    let texts =
        Texts { model: Some(model), tokenizer: None, other: None, option: "calibration", reads: reads_calibration };
    texts.check(calibration, faults);
    let Some((retrain, data)) = retrain.and_then(|retrain| Some((retrain, retrain.data.as_ref()?))) else { return };
    let reads = reads(data, retrain.task, retrain.settings.window, &model.spec);
    Texts { option: "data", reads, ..texts }.check(&data.files, faults);
}

/// How the data of a training run are read.
fn reads<'d>(data: &'d Data, task: Option<TrainTask>, window: usize, spec: &ModelSpec) -> Reads<'d> {
    match task.unwrap_or_else(|| own_task(spec)) {
        TrainTask::Clm if spec.stacks().is_some() => Reads::Pairs(&data.reasoning),
        TrainTask::Clm => Reads::Samples(&data.form, &data.reasoning, window),
        TrainTask::Mlm => Reads::Records(&data.form),
        TrainTask::Classify => Reads::Labelled(&data.form, TEXT_FIELD, &data.label_field),
    }
}

/// Notes settings and a task that do not suit the student, as far as it is known.
pub fn check(
    settings: &Settings,
    data: &Data,
    task: Option<TrainTask>,
    student: Option<&ModelSpec>,
    has_teacher: bool,
    faults: &mut Faults,
) {
    check_settings(settings, faults);
    let of_teacher = settings.loss.used().find(|def| def.against.is_teachers());
    if let (Some(def), false) = (of_teacher, has_teacher) {
        faults.add(def.option, TrainError::NoTeacher { option: def.option });
    }
    let Some(spec) = student else { return };
    if let Some(task) = task {
        faults.check("task", check_task(task, spec));
    }
    if task.unwrap_or_else(|| own_task(spec)) == TrainTask::Clm
        && let Err(source) = check_window(&spec.opening, spec.context, settings.window)
    {
        let path = data.files.first().cloned().unwrap_or_default();
        faults.add("window", SamplesError::Window { path, source });
    }
}
