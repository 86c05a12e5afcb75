//! The dense directory: the output of stages between import and `quantize`, which transformers loads as it is. Tensors have the
//! names the family gives them, under the prefix of the checkpoint the model was read from, fused and transposed as the
//! family stores them; a tied head is not written a second time. All tensors have one data type, the checkpoint's if every
//! tensor still has it and f32 otherwise, and config.json says so in both spellings, `dtype` and `torch_dtype`; rotary
//! settings are in both spellings too. transformers does not ask which matrices are sparse: slmc.json lists them under
//! `sparsity`, as {NAME: "2:4"}.

use super::WEIGHTS_FILE;
use crate::disk::atomic::NewDirectory;
use crate::disk::tensor_file::{self, NewTensor};
use crate::disk::{DenseTensor, DenseType};
use crate::formats::error::ModelFormatError;
use crate::formats::output;
use crate::model::families::{Family, TensorName};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::weights::{Model, ModelError, Parameter};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes a model whose parameters are all dense, with its companions and `provenance` as slmc.json. Equal models and provenance give equal bytes.
///
/// # Errors
/// A parameter that is quantized, missing, of another shape than the configuration says or not finite; an output that
/// slmc did not make; the file system.
pub(super) fn write(model: &Model, provenance: &Value, out: &Path) -> Result<(), ModelFormatError> {
    let family = Family::of(&model.config)?;
    let tensors = tensors(model, family)?;
    let types: BTreeSet<&str> = tensors.values().map(|(_, tensor)| type_name(tensor.dtype())).collect();
    let dtype = match tensors.values().next() {
        Some((_, first)) if types.len() == 1 => first.dtype(),
        _ => DenseType::F32,
    };
    for (id, tensor) in tensors.values() {
        // Values that are not finite are refused before anything is written.
        tensor.to_f32(&id.to_string())?;
    }
    let new = tensors.iter().map(|(name, (_, tensor))| NewTensor {
        name: name.clone(),
        dtype: stored_type(dtype),
        shape: tensor.shape().to_vec(),
        bytes: Box::new(move || encoded(tensor, dtype)),
    });
    let directory = NewDirectory::begin(out)?;
    tensor_file::write(&directory.path().join(WEIGHTS_FILE), new.collect())?;
    output::finish(directory, config(model, dtype), provenance, &model.companions)
}

/// Every tensor of the file by its name, with the parameter it is, or the first of those it holds.
fn tensors(model: &Model, family: &Family) -> Result<BTreeMap<String, (ParameterId, DenseTensor)>, ModelFormatError> {
    let prefix = prefix(model, family);
    let mut parts: BTreeMap<String, Vec<(TensorName, ParameterId, &DenseTensor)>> = BTreeMap::new();
    let mut written = BTreeSet::new();
    for parameter in model.spec.parameters() {
        let id = parameter.id;
        let tensor = match model.parameters.get(&id) {
            Some(Parameter::Dense(tensor)) => tensor,
            Some(Parameter::Quantized(_)) => return Err(ModelError::Quantized(id).into()),
            None => return Err(ModelFormatError::MissingParameter(id)),
        };
        if tensor.shape() != parameter.shape {
            let (file, tensor, found) = (model.config.file().to_owned(), id.to_string(), tensor.shape().to_vec());
            return Err(ModelFormatError::Shape { file, tensor, expected: parameter.shape, found });
        }
        let named = (family.source)(&model.spec, id)
            .and_then(|source| Some((source.names(prefix).into_iter().next()?, source)));
        let (name, source) = named.ok_or(ModelFormatError::NoName { id, family: family.model_type })?;
        parts.entry(name).or_default().push((source, id, tensor));
        written.insert(id);
    }
    if let Some(&id) = model.parameters.keys().find(|id| !written.contains(id)) {
        return Err(ModelFormatError::NoName { id, family: family.model_type });
    }
    parts.into_iter().map(|(name, parts)| Ok((name, joined(parts)?))).collect()
}

/// The stored tensor of the parameters it holds.
fn joined(
    mut parts: Vec<(TensorName, ParameterId, &DenseTensor)>,
) -> Result<(ParameterId, DenseTensor), ModelFormatError> {
    parts.sort_by_key(|(source, ..)| source.fused.map_or(0, |fused| fused.first));
    let (transposed, id) = (parts[0].0.transposed, parts[0].1);
    let rows = DenseTensor::joined(parts.into_iter().map(|(_, id, tensor)| (id.to_string(), tensor)))?;
    let tensor = if transposed { rows.transposed() } else { Some(rows) };
    Ok((id, tensor.ok_or(ModelFormatError::MissingParameter(id))?))
}

/// The prefix of the checkpoint the token table was read from; the family's usual one for a model made in memory.
fn prefix(model: &Model, family: &Family) -> &'static str {
    let stored = match model.parameters.get(&ParameterId::weight(LinearId::global(Role::TokenEmbedding))) {
        Some(Parameter::Dense(tensor)) => tensor.stored_name(),
        _ => None,
    };
    family.prefix(&model.spec, |name| stored == Some(name))
}

/// The bytes of a tensor in `dtype`, which holds its values.
fn encoded(tensor: &DenseTensor, dtype: DenseType) -> Cow<'_, [u8]> {
    if tensor.dtype() == dtype {
        return tensor.bytes();
    }
    // Every value was found to be finite before, so there is no error to lose.
    Cow::Owned(dtype.encode(&tensor.to_f32("").unwrap_or_default()))
}

fn stored_type(dtype: DenseType) -> Dtype {
    match dtype {
        DenseType::F32 => Dtype::F32,
        DenseType::F16 => Dtype::F16,
        DenseType::Bf16 => Dtype::BF16,
    }
}

/// As config.json names a data type.
fn type_name(dtype: DenseType) -> &'static str {
    match dtype {
        DenseType::F32 => "float32",
        DenseType::F16 => "float16",
        DenseType::Bf16 => "bfloat16",
    }
}

/// config.json as it was read, with data type and rotary settings in the spellings of transformers 4 and 5.
fn config(model: &Model, dtype: DenseType) -> Map<String, Value> {
    let mut config = model.config.map().clone();
    for key in ["dtype", "torch_dtype"] {
        config.insert(key.to_owned(), json!(type_name(dtype)));
    }
    spell_rotary(&mut config);
    config
}

/// Adds whichever spelling of the rotary settings is not there: `rope_parameters` of transformers 5, or `rope_theta` and
/// `rope_scaling` of 4. Settings by kind of layer have one spelling only and stay.
fn spell_rotary(config: &mut Map<String, Value>) {
    let absent = |config: &Map<String, Value>, key: &str| config.get(key).is_none_or(Value::is_null);
    match config.get("rope_parameters") {
        Some(Value::Object(new)) if !new.values().any(Value::is_object) => {
            let mut scaling = new.clone();
            let theta = scaling.shift_remove("rope_theta");
            let plain = scaling.get("rope_type").or(scaling.get("type")).is_none_or(|kind| kind == "default");
            if let Some(theta) = theta.filter(|_| absent(config, "rope_theta")) {
                config.insert("rope_theta".to_owned(), theta);
            }
            if !plain && absent(config, "rope_scaling") {
                config.insert("rope_scaling".to_owned(), Value::Object(scaling));
            }
        }
        None | Some(Value::Null) if !absent(config, "rope_theta") => {
            let mut new = match config.get("rope_scaling") {
                Some(Value::Object(scaling)) => scaling.clone(),
                _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
            };
            if let Some(kind) = new.shift_remove("type").filter(|_| absent(&new, "rope_type")) {
                new.insert("rope_type".to_owned(), kind);
            }
            new.insert("rope_theta".to_owned(), config["rope_theta"].clone());
            config.insert("rope_parameters".to_owned(), Value::Object(new));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
