//! `slmc train` and `slmc distill`: a start, optionally a teacher, data; a clean Hugging Face directory out.

use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::{HashError, file_sha256, hex};
use crate::formats::provenance::sparsity_json;
use crate::formats::{self, Description, ModelFormatError, ModelSink, hugging_face};
use crate::model::companions::{Companion, Companions, TOKENIZER_FILE};
use crate::model::forward::DenseWeights;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::special_tokens;
use crate::model::transform::{HeldMasks, Identity, NmPattern, Sparsity, Transform};
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::train::samples::{Data, SamplesError, TrainTask, own_task, read};
use crate::train::settings::Settings;
use crate::train::start::{self, StartError};
use crate::train::student::{LayerError, hidden_pairs};
use crate::train::trainer::{Run, Teacher, TrainError, Trained};
use crate::train::{checkpoint, data::Samples};
use burn::tensor::Device;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the student comes from.
#[derive(Clone, Debug)]
pub enum Start {
    /// A directory with weights, or a configuration.
    Path(PathBuf),
    /// Layers of the teacher.
    Layers(Vec<usize>),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The student.
    pub start: Start,
    /// Whom it learns from.
    pub teacher: Option<PathBuf>,
    /// Teacher layer for each student layer; spread evenly if absent.
    pub layer_map: Option<Vec<usize>>,
    /// Directory with tokenizer.json; the start's, or the teacher's, if absent.
    pub tokenizer: Option<PathBuf>,
    /// What to train on.
    pub data: Data,
    /// What the model is for, if absent.
    pub task: Option<TrainTask>,
    /// The run.
    pub settings: Settings,
    /// Directory to write.
    pub out: PathBuf,
    /// File for one JSON line per step.
    pub metrics: Option<PathBuf>,
}

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Of the start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Of a model's files.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// Of a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of the layers.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// Of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Of the data.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Of the run.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Of the inputs' hashes.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Of the output.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Layers are the teacher's.
    #[error("--layers takes layers of the teacher, and there is none; pass --teacher DIR")]
    LayersWithoutTeacher,
    /// Tokens mean different things.
    #[error("student and teacher have different {what}: {student} and {teacher}; they must share one")]
    Different {
        /// What differs.
        what: &'static str,
        /// Of the student.
        student: String,
        /// Of the teacher.
        teacher: String,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of `slmc train` and `slmc distill`.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    /// Weights trained.
    pub parameters: u64,
    /// Samples there were.
    pub samples: u64,
    /// Steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Mean loss over the last tenth of the steps.
    pub loss: f64,
    /// Its parts, where they have a weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// KL to the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Of hidden states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<f64>,
    /// Step a killed run was resumed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
}

impl Report for TrainReport {
    const SCHEMA: &'static str = "slmc.train/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["parameters", &grouped(self.parameters)]);
        table.row(["samples", &grouped(self.samples)]);
        table.row(["steps", &grouped(self.steps)]);
        table.row(["tokens", &grouped(self.tokens)]);
        table.row(["loss", &format!("{:.4}", self.loss)]);
        for (name, value) in
            [("cross_entropy", self.cross_entropy), ("divergence", self.divergence), ("hidden", self.hidden)]
        {
            if let Some(value) = value {
                table.row([name, &format!("{value:.4}")]);
            }
        }
        if let Some(step) = self.resumed_from {
            table.row(["resumed from", &format!("step {step}")]);
        }
        table.to_string()
    }
}

impl TrainReport {
    /// What provenance states: the same for a run that was resumed.
    pub fn metrics(&self) -> Value {
        json!({"loss": self.loss, "steps": self.steps, "tokens": self.tokens})
    }

    /// From how a run ended.
    pub fn of(run: &Run<'_>, trained: &Trained) -> Self {
        let weights = &run.settings.loss;
        let part = |value: f64, weight: f64| (weight != 0.0).then_some(value);
        let tokens = trained.log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        TrainReport {
            parameters: run.spec.parameter_count(),
            samples: run.samples.len() as u64,
            steps: trained.steps,
            tokens: tokens.filter_map(|line| line["tokens"].as_u64()).sum(),
            loss: trained.last.total,
            cross_entropy: part(trained.last.cross_entropy, weights.cross_entropy),
            divergence: part(trained.last.divergence, weights.divergence),
            hidden: part(trained.last.hidden, weights.hidden),
            resumed_from: trained.resumed,
        }
    }
}

/// Trains and writes.
pub fn train(options: &Options, device: &Device, progress: &dyn Progress) -> Result<TrainReport, CommandError> {
    atomic::check_directory(&options.out)?;
    options.settings.check().map_err(TrainError::from)?;
    let seed = options.settings.seed;
    let teacher = match &options.teacher {
        Some(path) => Some(formats::open_model(path)?),
        None => None,
    };
    let mut student = match (&options.start, &teacher) {
        (Start::Path(path), _) => start::open(path, seed)?,
        (Start::Layers(layers), Some(teacher)) => start::layers_of(teacher, layers)?,
        (Start::Layers(_), None) => return Err(CommandError::LayersWithoutTeacher),
    };
    if options.task == Some(TrainTask::Classify) && start::lacks_classifier(&student) {
        student = start::with_classifier(&student, &options.data, seed)?;
    }
    if let Some(teacher) = &teacher {
        compare(&student, teacher)?;
    }
    let sparsity = kept_sparsity(options, teacher.as_ref())?;
    student.companions = companions(options, &student, teacher.as_ref())?;
    let tokenizer = Tokenizer::of(&student.companions)?;
    tokenizer.check(student.spec.vocabulary)?;
    student.spec = special_tokens::spec_of(&student.companions, &student.config).map_err(StartError::from)?;
    let task = options.task.unwrap_or_else(|| own_task(&student.spec));
    let samples = read(&options.data, task, &student.spec, &tokenizer, options.settings.window, progress)?;
    let inputs = inputs(options)?;
    let fingerprint = checkpoint::fingerprint(&json!({
        "tool": env!("CARGO_PKG_VERSION"),
        "inputs": inputs,
        "start": format!("{:?}", start_name(&options.start)),
        "layer_map": options.layer_map,
        "task": task,
        "tokenizer": student.companions.find(TOKENIZER_FILE).map(Companion::sha256).transpose()?.as_ref().map(hex),
        "opening": student.spec.opening,
        "ends": student.spec.ends,
        "field": options.data.field,
        "label_field": options.data.label_field,
        "device": format!("{device:?}"),
        "settings": options.settings,
    }));
    run(options, &student, &sparsity, teacher.as_ref(), &samples, fingerprint, inputs, device, progress)
}

#[expect(clippy::too_many_arguments, reason = "what `train` opened and checked, handed on once")]
fn run(
    options: &Options,
    student: &Model,
    sparsity: &Sparsity,
    teacher: Option<&Model>,
    samples: &Samples,
    fingerprint: String,
    inputs: Vec<Value>,
    device: &Device,
    progress: &dyn Progress,
) -> Result<TrainReport, CommandError> {
    let weights = match teacher {
        Some(teacher) => Some(DenseWeights::new(teacher, device)?),
        None => None,
    };
    let teacher = match (teacher, &weights) {
        (Some(teacher), Some(weights)) => {
            let (own, other) = (student.spec.layers.len(), teacher.spec.layers.len());
            let pairs = hidden_pairs(own, other, options.layer_map.as_deref())?;
            Some(Teacher { spec: &teacher.spec, weights, pairs })
        }
        _ => None,
    };
    let run = Run {
        spec: &student.spec,
        settings: &options.settings,
        samples,
        teacher,
        device,
        out: &options.out,
        fingerprint,
    };
    let mut start = std::collections::BTreeMap::new();
    for id in student.parameters.keys() {
        start.insert(*id, student.values_f32(*id)?);
    }
    // A matrix that was pruned stays pruned: its zeros are held, and the output says so again.
    let masks = HeldMasks::of(student, sparsity)?;
    let transform: &dyn Transform = if sparsity.is_empty() { &Identity } else { &masks };
    let mut trained = run.train(start, transform, progress)?;
    for (id, values) in &mut trained.parameters {
        if let ParameterId::Linear(linear, Part::Weight) = id {
            masks.clear(*linear, values);
        }
    }
    let report = TrainReport::of(&run, &trained);
    let description = Description {
        config: student.config.clone(),
        companions: student.companions.clone(),
        path: student.path.clone(),
    };
    let model =
        start::with_values(student.spec.clone(), description, trained.parameters.clone()).map_err(StartError::from)?;
    let stage = if options.teacher.is_some() { "distill" } else { "train" };
    let provenance = json!({
        "schema": "slmc.provenance/1",
        "tool": crate::machine::tool(),
        "inputs": inputs,
        "stage": stage,
        "settings": options.settings,
        "sparsity": sparsity_json(sparsity),
        "cpu_features": crate::machine::cpu_features(),
        "metrics": report.metrics(),
    });
    hugging_face::Directory(&options.out).write(&model, &provenance)?;
    if let Some(path) = &options.metrics {
        write_log(path, &trained.log)?;
    }
    forget_checkpoint(&options.out)?;
    Ok(report)
}

/// Removes the checkpoint of an output: called when the output is in place.
pub fn forget_checkpoint(out: &Path) -> Result<(), CommandError> {
    Ok(checkpoint::forget(out)?)
}

/// One JSON line per step.
pub fn write_log(path: &Path, log: &[String]) -> Result<(), AtomicError> {
    atomic::write_file(path, b"", |out| log.iter().try_for_each(|line| writeln!(out, "{line}")))
}

fn start_name(start: &Start) -> String {
    match start {
        Start::Path(_) => "path".to_owned(),
        Start::Layers(layers) => format!("{layers:?}"),
    }
}

/// The patterns of the matrices that come pruned: of the start's directory, or of the teacher's layers that are taken.
fn kept_sparsity(options: &Options, teacher: Option<&Model>) -> Result<Sparsity, CommandError> {
    match (&options.start, teacher) {
        (Start::Path(path), _) if formats::contents(path).weights => {
            Ok(formats::open(path)?.recorded_sparsity().map_err(StartError::from)?)
        }
        (Start::Layers(layers), Some(teacher)) => {
            let of_teacher = formats::open(&teacher.path)?.recorded_sparsity().map_err(StartError::from)?;
            let taken = |(id, pattern): (LinearId, NmPattern)| {
                let layer = match id.layer {
                    Some(layer) => Some(layers.iter().position(|taken| *taken == usize::from(layer))? as u16),
                    None => None,
                };
                Some((LinearId { layer, ..id }, pattern))
            };
            Ok(of_teacher.into_iter().filter_map(taken).collect())
        }
        _ => Ok(Sparsity::new()),
    }
}

/// The tokenizer and what else travels with the student: as asked for, else its own, else the teacher's.
fn companions(options: &Options, student: &Model, teacher: Option<&Model>) -> Result<Companions, ModelFormatError> {
    if let Some(path) = &options.tokenizer {
        return formats::companions(path);
    }
    let has_tokenizer = student.companions.find(TOKENIZER_FILE).is_some_and(Companion::exists);
    Ok(teacher.filter(|_| !has_tokenizer).unwrap_or(student).companions.clone())
}

/// Hashes of everything read.
fn inputs(options: &Options) -> Result<Vec<Value>, HashError> {
    let mut inputs = Vec::new();
    if let Start::Path(path) = &options.start {
        inputs.push(json!({"role": "student", "sha256": hex(&formats::sha256(path)?)}));
    }
    if let Some(path) = &options.teacher {
        inputs.push(json!({"role": "teacher", "sha256": hex(&formats::sha256(path)?)}));
    }
    for file in &options.data.files {
        inputs.push(json!({"role": "data", "sha256": hex(&file_sha256(file)?)}));
    }
    Ok(inputs)
}

fn compare(student: &Model, teacher: &Model) -> Result<(), CommandError> {
    let different = |what, student: &dyn std::fmt::Display, teacher: &dyn std::fmt::Display| CommandError::Different {
        what,
        student: student.to_string(),
        teacher: teacher.to_string(),
    };
    if student.spec.vocabulary != teacher.spec.vocabulary {
        return Err(different("vocabularies", &student.spec.vocabulary, &teacher.spec.vocabulary));
    }
    if student.spec.output_width() != teacher.spec.output_width() {
        return Err(different("output widths", &student.spec.output_width(), &teacher.spec.output_width()));
    }
    let token_table = |model: &Model| {
        let tokenizer = model.companions.find(TOKENIZER_FILE)?.read().ok()?;
        let json: Value = serde_json::from_slice(&tokenizer).ok()?;
        json.pointer("/model/vocab").cloned()
    };
    if let (Some(own), Some(other)) = (token_table(student), token_table(teacher))
        && own != other
    {
        return Err(different("vocabularies", &"its tokens", &"others"));
    }
    Ok(())
}
