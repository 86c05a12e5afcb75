//! The work of `slmc train` and `slmc distill`: a start, optionally a teacher, data; a clean Hugging Face directory
//! out.

mod checks;

pub use checks::{check, check_data, check_need, check_recompute, check_texts_of_change, read_bytes, retraining_need};

use crate::disk::atomic;
use crate::disk::hash::{HashError, hex};
use crate::formats::adapter;
use crate::formats::{self, Description, ModelFormatError, ModelSink, hugging_face};
use crate::model::companions::{Companion, Companions, TOKENIZER_FILE};
use crate::model::described;
use crate::model::forward::DenseWeights;
use crate::model::id::LinearId;
use crate::model::transform::{HeldMasks, Identity, NmPattern, Sparsity, Transform};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::report::Report;
use crate::shrink::projection::projections;
use crate::stages::StageError;
use crate::stages::adapter_output::{check_adapter, new_adapter};
use crate::stages::arguments::scope::LoraOutput;
use crate::stages::backend::by_workers;
use crate::stages::invocation::Invocation;
use crate::stages::numerics::class_of;
use crate::stages::provenance::{Inputs, of_weights};
use crate::stages::resume::Resume;
use crate::stages::shaping::{ShapeReport, ShapeStart, shape, shape_of};
use crate::text::tokenizer::{Tokenizer, token_table};
use crate::train::data::Samples;
use crate::train::error::TrainError;
use crate::train::loss::table::Against;
use crate::train::on_policy::OnPolicy;
use crate::train::parameters::Parameters;
use crate::train::privacy::{PrivacySettings, Private};
use crate::train::report::{TrainReport, write_log};
use crate::train::retrain::values_of;
use crate::train::samples::{Data, ReadSamples, TrainTask, own_task, read};
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
    options.settings.check().map_err(TrainError::from)?;
    let mut work = Work::open(options, &devices.device, progress)?;
    let mut inputs = inputs(options)?;
    let resume = Resume::of(&options.out, &work.identity(&inputs, devices)?);
    let Done { model, adapters, log, report } = work.train(&resume, devices, progress)?;
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
        inputs.withhold("data");
    }
    let settings = (settings, &options.invocation);
    let mut provenance = of_weights((stage, class), &inputs, settings, &work.sparsity, report.metrics());
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
    resume.finished()?;
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
    task: TrainTask,
    samples: ReadSamples,
    /// The student that was cut.
    shape: Option<ShapeReport>,
}

impl<'o> Work<'o> {
    /// Opens the models, compares them, and reads the data.
    fn open(options: &'o TrainOptions, device: &Device, progress: &dyn Progress) -> Result<Self, StageError> {
        let seed = options.settings.seed;
        let mut teachers = Vec::new();
        for (path, _) in &options.teachers {
            teachers.push(formats::open_model(path)?);
        }
        let teacher = teachers.first();
        let mut student = match (&options.start, teacher) {
            (Start::Path(path), _) => start::open(path, seed)?,
            (Start::Layers(layers), Some(teacher)) => start::layers_of(teacher, layers)?,
            // The text is read as the teacher does; the student comes after, since it is measured on it.
            (Start::Cut(_) | Start::CutTo(..), Some(teacher)) => teacher.clone(),
            (_, None) => return Err(StageError::LayersWithoutTeacher),
        };
        let gains_classifier = options.task == Some(TrainTask::Classify) && start::lacks_classifier(&student);
        check_adapter(options, formats::contents(&student.path).weights, gains_classifier)?;
        if gains_classifier {
            student = start::with_classifier(&student, &options.data, seed)?;
        }
        if let Some(exits) = &options.exits {
            student = start::with_exits(&student, exits)?;
        }
        for teacher in &teachers {
            compare(&student, teacher)?;
        }
        let sparsity = kept_sparsity(options, teacher)?;
        student.companions = companions(options, &student, teacher)?;
        let mut tokenizer = Tokenizer::of(&student.companions)?;
        let own = student.spec.vocabulary;
        let rows = teachers.iter().map(|teacher| teacher.spec.vocabulary).fold(own, usize::min);
        tokenizer.check(rows)?;
        let padded = teachers.iter().any(|teacher| teacher.spec.vocabulary != own);
        let shared_tokens = padded.then(|| tokenizer.vocabulary_size());
        student.spec = described::spec_of(&student.companions, &student.config).map_err(StartError::from)?;
        // Before the data is read; of a student that is cut afterwards it is looked up again.
        let mut scope = options.scope.of(&student.spec, &sparsity)?;
        let task = options.task.unwrap_or_else(|| own_task(&student.spec));
        let of_student = (&student.spec, &student.companions);
        let samples = read(&options.data, task, of_student, &tokenizer, options.settings.window, progress)?;
        let mut shape = None;
        if let Some(teacher) = teachers.first()
            && let Some((cut, report)) = shaped(&options.start, teacher, &samples.samples, device, progress)?
        {
            let companions = std::mem::take(&mut student.companions);
            student = Model { companions, ..cut };
            student.spec = described::spec_of(&student.companions, &student.config).map_err(StartError::from)?;
            shape = Some(report);
            scope = options.scope.of(&student.spec, &sparsity)?;
        }
        Ok(Work { options, student, teachers, sparsity, scope, shared_tokens, task, samples, shape })
    }

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

    /// Everything that decides the trained values.
    fn identity(&self, inputs: &Inputs, devices: &TrainingDevices) -> Result<Value, HashError> {
        let Work { options, student, .. } = self;
        let tokenizer = student.companions.find(TOKENIZER_FILE).map(Companion::sha256).transpose()?;
        Ok(json!({
            "tool": env!("CARGO_PKG_VERSION"),
            "inputs": inputs.json(),
            "start": format!("{:?}", start_name(&options.start)),
            "layer_map": options.layer_map,
            "draws": options.cache.as_ref().map(|(_, draws)| draws),
            "parts": (options.teachers.len() > 1).then(|| parts(&options.teachers)),
            "task": self.task,
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

    /// The student as trained, the log of its steps, and the report. The weights of both models as they were read are let
    /// go of once they are copied.
    fn train(
        &mut self,
        resume: &Resume,
        devices: &TrainingDevices,
        progress: &dyn Progress,
    ) -> Result<Done, StageError> {
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
            fingerprint: resume.fingerprint(),
            max_ram: options.max_ram,
            read_bytes: read_bytes(&options.data),
            on_policy: options.on_policy,
        };
        if let Some(cache) = &cache {
            run.fill(cache, progress)?;
            run.cache = Some(cache);
        }
        let transform: &dyn Transform = if sparsity.is_empty() { &Identity } else { &masks };
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

/// The student that is cut out of the teacher, where the start is one.
fn shaped(
    start: &Start,
    teacher: &Model,
    samples: &Samples,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Option<(Model, ShapeReport)>, StageError> {
    match start {
        Start::Path(_) | Start::Layers(_) => Ok(None),
        Start::Cut(asked) => Ok(Some(shape(asked, teacher, None, samples, device, progress)?)),
        Start::CutTo(path, asked) => {
            let (description, wanted) = shape_of(path, &teacher.spec)?;
            let asked = ShapeStart { wanted, ..(**asked).clone() };
            Ok(Some(shape(&asked, teacher, Some(description), samples, device, progress)?))
        }
    }
}

/// The patterns of the matrices that come pruned: of the start's directory, or of the teacher's layers that are taken.
fn kept_sparsity(options: &TrainOptions, teacher: Option<&Model>) -> Result<Sparsity, StageError> {
    match (&options.start, teacher) {
        (Start::Path(path), _) if formats::contents(path).weights => {
            Ok(formats::open(path)?.recorded_sparsity().map_err(StartError::from)?)
        }
        (Start::Layers(layers), Some(teacher)) => {
            let of_teacher = formats::open(&teacher.path)?.recorded_sparsity().map_err(StartError::from)?;
            Ok(sparsity_of_layers(of_teacher, layers))
        }
        _ => Ok(Sparsity::new()),
    }
}

/// The patterns of a student that consists of some layers of its teacher.
pub fn sparsity_of_layers(of_teacher: Sparsity, layers: &[usize]) -> Sparsity {
    let taken = |(id, pattern): (LinearId, NmPattern)| {
        let layer = match id.layer {
            Some(layer) => Some(layers.iter().position(|taken| *taken == usize::from(layer))? as u16),
            None => None,
        };
        Some((LinearId { layer, ..id }, pattern))
    };
    of_teacher.into_iter().filter_map(taken).collect()
}

/// The tokenizer and the other files that travel with the student: as asked for, else its own, else the teacher's.
fn companions(
    options: &TrainOptions,
    student: &Model,
    teacher: Option<&Model>,
) -> Result<Companions, ModelFormatError> {
    if let Some(path) = &options.tokenizer {
        return formats::companions(path);
    }
    let has_tokenizer = student.companions.find(TOKENIZER_FILE).is_some_and(Companion::exists);
    Ok(teacher.filter(|_| !has_tokenizer).unwrap_or(student).companions.clone())
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

/// Refuses a teacher whose tokens or outputs are others than the student's. Tables that are padded to different sizes may
/// have the same tokens: by their tokenizers, which must then be there, or be the teacher's.
fn compare(student: &Model, teacher: &Model) -> Result<(), StageError> {
    let different = |what, student: &dyn std::fmt::Display, teacher: &dyn std::fmt::Display| {
        StageError::StudentDiffers { what, student: student.to_string(), teacher: teacher.to_string() }
    };
    let stacks = |model: &Model| match model.spec.stacks() {
        Some(stacks) => format!("encoder and decoder, begun by token {}", stacks.start),
        None => "one stack".to_owned(),
    };
    if stacks(student) != stacks(teacher) {
        return Err(different("stacks", &stacks(student), &stacks(teacher)));
    }
    let (own, other) = (token_table(&student.companions), token_table(&teacher.companions));
    let known = other.is_some() && own.as_ref().is_none_or(|own| Some(own) == other.as_ref());
    if student.spec.vocabulary != teacher.spec.vocabulary && !known {
        return Err(different("vocabularies", &student.spec.vocabulary, &teacher.spec.vocabulary));
    }
    let tokens = |model: &Model| model.spec.output_width() == model.spec.vocabulary;
    if !(tokens(student) && tokens(teacher)) && student.spec.output_width() != teacher.spec.output_width() {
        return Err(different("output widths", &student.spec.output_width(), &teacher.spec.output_width()));
    }
    if own.zip(other).is_some_and(|(own, other)| own != other) {
        return Err(different("vocabularies", &"its tokens", &"others"));
    }
    Ok(())
}
