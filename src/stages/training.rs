//! The work of `slmc train` and `slmc distill`: a start, optionally a teacher, data; a clean Hugging Face directory
//! out.

mod checks;
mod opening;

pub use checks::{check, check_data, check_need, check_recompute, check_texts_of_change, read_bytes, retraining_need};
pub use opening::sparsity_of_layers;

use crate::disk::atomic;
use crate::disk::hash::{HashError, hex};
use crate::formats::adapter;
use crate::formats::{self, Description, ModelSink, hugging_face};
use crate::model::companions::{Companion, TOKENIZER_FILE};
use crate::model::forward::DenseWeights;
use crate::model::transform::{HeldMasks, Identity, Sparsity, Transform};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::report::Report;
use crate::shrink::projection::projections;
use crate::stages::StageError;
use crate::stages::adapter_output::new_adapter;
use crate::stages::arguments::scope::LoraOutput;
use crate::stages::backend::by_workers;
use crate::stages::invocation::Invocation;
use crate::stages::numerics::class_of;
use crate::stages::provenance::{Inputs, of_weights};
use crate::stages::resume::Resume;
use crate::stages::shaping::{ShapeReport, ShapeStart};
use crate::train::error::TrainError;
use crate::train::loss::table::Against;
use crate::train::on_policy::OnPolicy;
use crate::train::parameters::Parameters;
use crate::train::privacy::{PrivacySettings, Private};
use crate::train::report::{TrainReport, write_log};
use crate::train::retrain::values_of;
use crate::train::samples::{Data, ReadSamples, TrainTask};
use crate::train::scope::{Scope, ScopeSettings};
use crate::train::settings::Settings;
use crate::train::start::{self, StartError};
use crate::train::student::state_pairs;
use crate::train::teacher_cache::{CacheIdentity, TeacherCache};
use crate::train::trainer::{Run, Teacher, steps};
use crate::workers::TrainingDevices;
use burn::tensor::Device;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where the student comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A directory with weights, or a configuration.
    Path(PathBuf),
    /// Layers of the teacher.
    Layers(Vec<usize>),
    /// Cut out of the teacher.
    Cut(Box<ShapeStart>),
    /// Cut out of the teacher to the shape of a configuration.
    CutTo(PathBuf, Box<ShapeStart>),
}

/// Result of `slmc train` and `slmc distill`.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingReport {
    /// The training.
    #[serde(flatten)]
    pub training: TrainReport,
    /// The student that was cut out of the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student: Option<ShapeReport>,
}

impl Report for TrainingReport {
    const SCHEMA: &'static str = TrainReport::SCHEMA;

    fn text(&self) -> String {
        match &self.student {
            Some(student) => format!("{}\n{}", student.text(), self.training.text()),
            None => self.training.text(),
        }
    }
}

/// Options of `slmc train` and `slmc distill`, checked.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The student.
    pub start: Start,
    /// Teacher directories, each with its part of what they say together.
    pub teachers: Vec<(PathBuf, f64)>,
    /// Where the teachers' answers are kept, and ids of a row.
    pub cache: Option<(PathBuf, usize)>,
    /// Teacher layer for each student layer; spread evenly if absent.
    pub layer_map: Option<Vec<usize>>,
    /// Directory with tokenizer.json; the start's, or the teacher's, if absent.
    pub tokenizer: Option<PathBuf>,
    /// Training data.
    pub data: Data,
    /// How much of the training is on text of the student itself.
    pub on_policy: Option<OnPolicy>,
    /// Objective; the model's own if absent.
    pub task: Option<TrainTask>,
    /// Settings of the run.
    pub settings: Settings,
    /// What is trained.
    pub scope: ScopeSettings,
    /// After how many layers the student has exit heads; those that it has if absent.
    pub exits: Option<Vec<usize>>,
    /// What is written of a run with adapters.
    pub lora_output: LoraOutput,
    /// Noise that hides every single sample.
    pub privacy: Option<PrivacySettings>,
    /// Directory to write.
    pub out: PathBuf,
    /// File for one JSON line per step.
    pub metrics: Option<PathBuf>,
    /// The command, for the provenance.
    pub invocation: Invocation,
    /// Most memory that it may need, in bytes.
    pub max_ram: Option<u64>,
}

/// Trains and writes.
///
/// # Errors
/// [`StageError`].
pub fn train(
    options: &TrainOptions,
    devices: &TrainingDevices,
    progress: &dyn Progress,
) -> Result<TrainingReport, StageError> {
    atomic::check_directory(&options.out)?;
    let mut work = Work::open(options, devices, progress)?;
    let Done { model, adapters, log, report } = work.train(devices, progress)?;
    let stage = if options.teachers.is_empty() { "train" } else { "distill" };
    let mut settings = json!(options.settings);
    if let Some(exits) = &options.exits {
        settings["exits"] = json!(exits);
    }
    if !options.scope.is_all() {
        settings["scope"] = json!(options.scope);
    }
    let class = class_of(&devices.device, by_workers(devices));
    if report.privacy.is_some() {
        // A hash of the data would tell whoever has all samples but one which that is.
        work.inputs.withhold("data");
    }
    let settings = (settings, &options.invocation);
    let mut provenance = of_weights((stage, class), &work.inputs, settings, &work.sparsity, report.metrics());
    if let Some(privacy) = &report.privacy {
        provenance["privacy"] = json!(privacy);
    }
    match new_adapter(options, &work.scope, (&model, &work.student.companions), &adapters) {
        Some(new) => adapter::write(&options.out, &new, &provenance)?,
        None => hugging_face::Directory(&options.out).write(&model, &provenance)?,
    }
    if let Some(path) = &options.metrics {
        write_log(path, &log)?;
    }
    work.resume.finished()?;
    Ok(TrainingReport { training: report, student: work.shape })
}

/// Student, teacher and data.
struct Work<'o> {
    options: &'o TrainOptions,
    student: Model,
    teachers: Vec<Model>,
    /// Patterns that the student comes with.
    sparsity: Sparsity,
    /// The part of it that is trained.
    scope: Scope,
    /// How many tokens student and teachers have all, where their tables are padded to different sizes.
    shared_tokens: Option<usize>,
    samples: ReadSamples,
    /// The student that was cut.
    shape: Option<ShapeReport>,
    /// Everything read.
    inputs: Inputs,
    /// The state of this run, if it was killed before.
    resume: Resume,
}

impl<'o> Work<'o> {
    /// The layer of teacher `number` for each of the student's, where they are known; spread evenly otherwise. A student that
    /// was cut has at its layer what the first teacher has before the next layer that both have.
    fn layer_map(&self, number: usize) -> Option<Vec<usize>> {
        let cut = || {
            let (shape, teacher) = self.shape.as_ref().zip(self.teachers.first().filter(|_| number == 0))?;
            let next = shape.layers.iter().skip(1).copied().chain([teacher.spec.layers.len()]);
            Some(next.map(|next| next - 1).collect())
        };
        self.options.layer_map.clone().or_else(cut)
    }

    /// The projections to a teacher that the training begins with: of a student that was cut to another width, fitted.
    fn projections(
        &self,
        teacher: &Model,
        pairs: &[(usize, usize)],
        device: &Device,
    ) -> Result<Vec<Vec<f32>>, StageError> {
        if self.shape.is_none() || !self.options.settings.loss.needs(Against::States) {
            return Ok(Vec::new());
        }
        Ok(projections(teacher, &self.student, pairs, self.samples.samples.sequences(), device)?)
    }

    /// The student as trained, the log of its steps, and the report. The weights of both models as they were read are let
    /// go of once they are copied.
    fn train(&mut self, devices: &TrainingDevices, progress: &dyn Progress) -> Result<Done, StageError> {
        let device = &devices.device;
        let private = match self.options.privacy {
            Some(settings) => {
                let (samples, run) = (&self.samples.samples, &self.options.settings);
                let private = Private::new(settings, samples.len(), run.batch, steps(samples, run));
                Some(private.map_err(TrainError::from)?)
            }
            None => None,
        };
        // A matrix that was pruned stays pruned: its zeros are held, and the output says so again.
        let masks = HeldMasks::of(&self.student, &self.sparsity)?;
        let start = values_of(&self.student)?;
        let mut compared = Vec::new();
        for (number, teacher) in self.teachers.iter().enumerate() {
            let pairs = state_pairs(&self.student.spec, &teacher.spec, self.layer_map(number).as_deref())?;
            let projections = self.projections(teacher, &pairs, device)?;
            compared.push((pairs, projections));
        }
        self.student.parameters.clear();
        let mut weights = Vec::new();
        for teacher in &mut self.teachers {
            weights.push(DenseWeights::new(teacher, device)?);
            teacher.parameters.clear();
        }
        let cache = self.open_cache()?;
        let Work { options, student, sparsity, .. } = &*self;
        let settings = options.settings.for_model(&student.spec);
        let mut teachers = Vec::new();
        for (((teacher, weights), (_, part)), compared) in
            self.teachers.iter().zip(&weights).zip(&options.teachers).zip(compared)
        {
            let (pairs, projections) = compared;
            teachers.push(Teacher { spec: &teacher.spec, weights, pairs, part: *part, projections });
        }
        let mut run = Run {
            spec: &student.spec,
            settings: &settings,
            scope: &self.scope,
            privacy: private.as_ref(),
            samples: &self.samples.samples,
            teachers,
            shared_tokens: self.shared_tokens,
            cache: None,
            device,
            workers: devices.workers.as_ref(),
            out: &options.out,
            fingerprint: self.resume.fingerprint(),
            max_ram: options.max_ram,
            read_bytes: read_bytes(&options.data),
            on_policy: options.on_policy,
        };
        let transform: &dyn Transform = if sparsity.is_empty() { &Identity } else { &masks };
        if let Some(cache) = &cache {
            run.fill(cache, transform, progress)?;
            run.cache = Some(cache);
        }
        let mut trained = run.train(start, transform, progress)?;
        masks.clear_all(&mut trained.parameters);
        let report = TrainReport { files_read: self.samples.files.clone(), ..TrainReport::of(&run, &trained) };
        let description = Description {
            config: student.config.clone(),
            companions: student.companions.clone(),
            path: student.path.clone(),
        };
        let model = start::with_values(student.spec.clone(), description, trained.parameters);
        let model = model.map_err(StartError::from)?;
        Ok(Done { model, adapters: trained.adapters, log: trained.log, report })
    }
}

impl Work<'_> {
    /// The file with what the teachers say, where one is asked for.
    fn open_cache(&self) -> Result<Option<TeacherCache>, StageError> {
        let Some((path, draws)) = &self.options.cache else { return Ok(None) };
        let mut teachers = Vec::new();
        for (path, part) in &self.options.teachers {
            teachers.push((hex(&formats::sha256(path)?), *part));
        }
        let spec = &self.student.spec;
        let identity = CacheIdentity {
            teachers,
            vocabulary: self.shared_tokens.unwrap_or(spec.output_width()),
            temperature: self.options.settings.loss.temperature,
            draws: *draws,
        };
        let cache = TeacherCache::open(path, &self.samples.samples, spec, &identity).map_err(TrainError::from)?;
        Ok(Some(cache))
    }
}

/// The teachers' parts.
fn parts(teachers: &[(PathBuf, f64)]) -> Vec<f64> {
    teachers.iter().map(|(_, part)| *part).collect()
}

/// What a run has made.
struct Done {
    model: Model,
    /// The two matrices of every adapter.
    adapters: Parameters,
    log: Vec<String>,
    report: TrainReport,
}

fn start_name(start: &Start) -> String {
    match start {
        Start::Path(_) => "path".to_owned(),
        Start::Layers(layers) => format!("{layers:?}"),
        Start::Cut(shape) | Start::CutTo(_, shape) => format!("{shape:?}"),
    }
}

/// Everything that decides the trained values. Of a student that is cut out of its teacher, `student` is the teacher.
fn identity(
    options: &TrainOptions,
    (student, task): (&Model, TrainTask),
    inputs: &Inputs,
    devices: &TrainingDevices,
) -> Result<Value, HashError> {
    let tokenizer = student.companions.find(TOKENIZER_FILE).map(Companion::sha256).transpose()?;
    Ok(json!({
        "tool": env!("CARGO_PKG_VERSION"),
        "inputs": inputs.json(),
        "start": format!("{:?}", start_name(&options.start)),
        "layer_map": options.layer_map,
        "draws": options.cache.as_ref().map(|(_, draws)| draws),
        "parts": (options.teachers.len() > 1).then(|| parts(&options.teachers)),
        "task": task,
        "tokenizer": tokenizer.as_ref().map(hex),
        "opening": student.spec.opening,
        "ends": student.spec.ends,
        "form": format!("{:?}", options.data.form),
        "label_field": options.data.label_field,
        "reasoning": format!("{:?}", options.data.reasoning),
        "device": devices.kind().to_string(),
        "on_policy": options.on_policy.map(|own| format!("{own:?}")),
        "settings": options.settings,
        "scope": options.scope,
        "exits": options.exits,
        "privacy": options.privacy,
        "numerics": class_of(&devices.device, by_workers(devices)),
    }))
}

/// Everything read.
fn inputs(options: &TrainOptions) -> Result<Inputs, HashError> {
    let mut inputs = Inputs::default();
    if let Start::Path(path) | Start::CutTo(path, _) = &options.start {
        // By the names of the options that read them.
        let role = if options.teachers.is_empty() { "model" } else { "student" };
        inputs = inputs.made(role, path)?;
    }
    for (path, _) in &options.teachers {
        inputs = inputs.made("teacher", path)?;
    }
    if let Some(path) = &options.tokenizer {
        inputs = inputs.model("tokenizer", path)?;
    }
    inputs.files("data", &options.data.files)
}
