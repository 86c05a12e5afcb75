//! What a run starts from: a directory with weights, a configuration with none, some layers of a teacher, or an encoder
//! that is given a classifier for the labels of its data.

use super::parameters::initialise;
use super::samples::{Data, SamplesError};
use super::student::{LayerError, teacher_parameter};
use crate::disk::{Config, ConfigError, DenseTensor, INDEX_FILE, TensorError, WEIGHTS_FILE};
use crate::model::families;
use crate::model::id::ParameterId;
use crate::model::spec::{Head, ModelSpec};
use crate::model::special_tokens;
use crate::model::weights::{Model, ModelError, Parameter};
use crate::text::records::read_labelled;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Of a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Of a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Of the layers.
    #[error(transparent)]
    Layers(#[from] LayerError),
    /// Of the labels.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Of a tensor made here.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Integers cannot be trained.
    #[error("{}: is quantized; train the dense checkpoint it was made from, or use `slmc quantize --qat`", path.display())]
    Quantized {
        /// The directory.
        path: std::path::PathBuf,
    },
}

/// A model with values for every parameter, all dense.
pub fn with_values(
    spec: ModelSpec,
    config: Config,
    directory: &Path,
    values: BTreeMap<ParameterId, Vec<f32>>,
) -> Result<Model, TensorError> {
    let mut parameters = BTreeMap::new();
    for parameter in spec.parameters() {
        let values = values.get(&parameter.id).map_or(&[][..], Vec::as_slice);
        parameters.insert(parameter.id, Parameter::Dense(DenseTensor::from_f32(parameter.shape, values)?));
    }
    Ok(Model { spec, config, parameters, directory: directory.to_owned() })
}

/// Opens a directory with weights, or makes random ones for a configuration (a config.json, or a directory that has no
/// weights beside it).
pub fn open(path: &Path, seed: u64) -> Result<Model, StartError> {
    let has_weights = path.join(WEIGHTS_FILE).exists() || path.join(INDEX_FILE).exists();
    if has_weights {
        let model = Model::open(path)?;
        if model.is_quantized() {
            return Err(StartError::Quantized { path: path.to_owned() });
        }
        return Ok(model);
    }
    let config = special_tokens::config_at(path)?;
    let directory = special_tokens::directory_of(&config);
    let spec = special_tokens::spec_of(&directory, &config)?;
    let values = initialise(&spec, seed);
    Ok(with_values(spec, config, &directory, values)?)
}

/// Some layers of a teacher as a model of its own.
pub fn layers_of(teacher: &Model, layers: &[usize]) -> Result<Model, StartError> {
    super::student::take_layers(&teacher.spec, layers)?;
    let config = config_with_layers(&teacher.config, layers);
    let spec = special_tokens::spec_of(&teacher.directory, &config)?;
    let mut values = BTreeMap::new();
    for parameter in spec.parameters() {
        values.insert(parameter.id, teacher.values_f32(teacher_parameter(parameter.id, layers))?);
    }
    Ok(with_values(spec, config, &teacher.directory, values)?)
}

/// The configuration with only these layers: the count, by whichever name the family has, and lists by layer.
fn config_with_layers(config: &Config, layers: &[usize]) -> Config {
    let mut map = config.map().clone();
    for key in ["num_hidden_layers", "n_layer", "n_layers"] {
        if let Some(value) = map.get_mut(key) {
            *value = json!(layers.len());
        }
    }
    if let Some(Value::Array(kinds)) = map.get_mut("layer_types") {
        *kinds = layers.iter().filter_map(|&layer| kinds.get(layer).cloned()).collect();
    }
    if let Some(Value::Array(full)) = map.get_mut("full_attn_idxs") {
        let is_full = |layer: &usize| full.iter().any(|index| index.as_u64() == Some(*layer as u64));
        let kept = layers.iter().enumerate().filter(|(_, layer)| is_full(layer));
        *full = kept.map(|(index, _)| json!(index)).collect();
    }
    Config::from_map(config.file(), map)
}

/// A bare encoder with a classifier for the labels of the data, sorted; pooler and classifier start at random.
pub fn with_classifier(model: &Model, data: &Data, seed: u64) -> Result<Model, StartError> {
    let mut labels = BTreeSet::new();
    for file in &data.files {
        let field = data.field.as_deref().unwrap_or("text");
        let read = read_labelled(file, field, &data.label_field).map_err(SamplesError::from)?;
        labels.extend(read.records.into_iter().map(|record| record.label));
    }
    let labels = class_names(&labels).map_err(SamplesError::from)?;
    let mut map = model.config.map().clone();
    let family = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let name =
        if family == "distilbert" { "DistilBertForSequenceClassification" } else { "BertForSequenceClassification" };
    map.insert("architectures".to_owned(), json!([name]));
    let ids: Map<String, Value> = labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let back: Map<String, Value> = labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
    map.insert("id2label".to_owned(), Value::Object(ids));
    map.insert("label2id".to_owned(), Value::Object(back));
    let config = Config::from_map(model.config.file(), map);
    let spec = special_tokens::spec_of(&model.directory, &config)?;
    let mut values = initialise(&spec, seed);
    for id in model.parameters.keys() {
        values.insert(*id, model.values_f32(*id)?);
    }
    Ok(with_values(spec, config, &model.directory, values)?)
}

/// Whether a model lacks the head that classification needs.
pub fn lacks_classifier(model: &Model) -> bool {
    matches!(model.spec.head, Head::Hidden)
}

/// Most positions of the model at a path, from its configuration alone.
pub fn context_of(path: &Path) -> Result<usize, StartError> {
    Ok(families::spec(&special_tokens::config_at(path)?)?.context)
}
