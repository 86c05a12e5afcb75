//! The initial model of a run: a directory with weights, a configuration without, some layers of a teacher, or an
//! encoder that is given a classifier for the labels of its data.

use super::parameters::initialise;
use super::samples::{Data, SamplesError, TEXT_FIELD, class_names};
use super::student::{LayerError, teacher_parameter};
use crate::disk::{Config, ConfigError, DenseTensor, TensorError};
use crate::formats::{self, Description, ModelFormatError};
use crate::model::families;
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{Head, ModelSpec};
use crate::model::weights::{Model, ModelError, Parameter};
use crate::text::records::read_labelled;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Why there is no initial model.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files of a model cannot be opened.
    #[error(transparent)]
    Format(#[from] ModelFormatError),
    /// A model cannot be built or read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The list of layers is invalid.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// The labels cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// A tensor made here is invalid.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A quantized model cannot be trained.
    #[error("{}: is quantized; train the dense checkpoint it was made from, or use `slmc quantize --qat`", path.display())]
    Quantized {
        /// The directory.
        path: std::path::PathBuf,
    },
}

/// A model with values for every parameter, all dense.
pub fn with_values(
    spec: ModelSpec,
    description: Description,
    values: BTreeMap<ParameterId, Vec<f32>>,
) -> Result<Model, TensorError> {
    let mut parameters = BTreeMap::new();
    for parameter in spec.parameters() {
        let values = values.get(&parameter.id).map_or(&[][..], Vec::as_slice);
        parameters.insert(parameter.id, Parameter::Dense(DenseTensor::from_f32(parameter.shape, values)?));
    }
    let Description { config, companions, path } = description;
    Ok(Model { spec, config, parameters, companions, path })
}

/// A model with another configuration, and without its weights.
fn with_config(model: &Model, config: Config) -> Description {
    Description { config, companions: model.companions.clone(), path: model.path.clone() }
}

/// Opens a model, or makes random weights for a configuration (a config.json, or a directory that has no weights beside it).
pub fn open(path: &Path, seed: u64) -> Result<Model, StartError> {
    if formats::contents(path).weights {
        let model = formats::open_model(path)?;
        if model.is_quantized() {
            return Err(StartError::Quantized { path: path.to_owned() });
        }
        return Ok(model);
    }
    let description = formats::describe(path)?;
    families::spec_without_weights(&description.config)?;
    let spec = description.spec()?;
    let values = initialise(&spec, seed);
    Ok(with_values(spec, description, values)?)
}

/// Some layers of a teacher as a model of its own.
pub fn layers_of(teacher: &Model, layers: &[usize]) -> Result<Model, StartError> {
    super::student::take_layers(&teacher.spec, layers)?;
    let description = with_config(teacher, families::with_layers(&teacher.config, layers)?);
    let spec = description.spec()?;
    let mut values = BTreeMap::new();
    for parameter in spec.parameters() {
        values.insert(parameter.id, teacher.values_f32(teacher_parameter(parameter.id, layers))?);
    }
    Ok(with_values(spec, description, values)?)
}

/// A bare encoder, or a decoder without its head, with a classifier for the labels of the data, sorted; pooler and
/// classifier start at random.
pub fn with_classifier(model: &Model, data: &Data, seed: u64) -> Result<Model, StartError> {
    let mut labels = BTreeSet::new();
    for file in &data.files {
        let read = read_labelled(file, &data.form, TEXT_FIELD, &data.label_field).map_err(SamplesError::from)?;
        labels.extend(read.records.into_iter().map(|record| record.label));
    }
    let labels = class_names(&labels)?;
    let description = with_config(model, families::with_classifier(&model.config, &labels)?);
    let spec = description.spec()?;
    let mut values = initialise(&spec, seed);
    // A language model's head is not a classifier's.
    let kept: Vec<ParameterId> = model.parameters.keys().copied().filter(|id| values.contains_key(id)).collect();
    for id in kept {
        values.insert(id, model.values_f32(id)?);
    }
    Ok(with_values(spec, description, values)?)
}

/// A classifier with exit heads after these numbers of layers: those that it has there, else copies of its own head.
pub fn with_exits(model: &Model, exits: &[usize]) -> Result<Model, StartError> {
    let description = with_config(model, families::with_exits(&model.config, exits)?);
    let spec = description.spec()?;
    let mut values = BTreeMap::new();
    for parameter in spec.parameters() {
        let id = parameter.id;
        let from = if model.parameters.contains_key(&id) { id } else { of_last_head(id) };
        values.insert(id, model.values_f32(from)?);
    }
    Ok(with_values(spec, description, values)?)
}

/// The parameter of the last head that one of an exit head begins as.
fn of_last_head(id: ParameterId) -> ParameterId {
    match id {
        ParameterId::Linear(LinearId { role: Role::ExitPooler, .. }, part) => {
            ParameterId::Linear(LinearId::global(Role::Pooler), part)
        }
        ParameterId::Linear(LinearId { role: Role::ExitClassifier, .. }, part) => {
            ParameterId::Linear(LinearId::global(Role::Classifier), part)
        }
        other => other,
    }
}

/// Whether a model lacks the head that classification needs.
pub fn lacks_classifier(model: &Model) -> bool {
    matches!(model.spec.head, Head::Hidden | Head::LanguageModel { .. })
}

/// Most positions of the model at a path, from its configuration alone.
pub fn context_of(path: &Path) -> Result<usize, StartError> {
    Ok(families::spec(&formats::configuration(path)?)?.context)
}
