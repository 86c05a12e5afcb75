//! The dense directory: the output of stages between import and `quantize`, which transformers loads as it is. Tensors have the
//! names the family gives them, under the prefix of the checkpoint the model was read from, fused and transposed as the
//! family stores them; a tied head is not written a second time. One tensor is in memory at a time. All have one data type:
//! the one that is asked for, else the checkpoint's if every tensor still has it and f32 otherwise; config.json says so
//! in both spellings, `dtype` and `torch_dtype`. Where a family rounds its factor on embeddings by that key and no type was
//! asked for, the key stays as it was: the model would be another one. Rotary settings are in both spellings too.
//! transformers does not ask which matrices are sparse: slmc.json lists them under `sparsity`, as {NAME: "2:4"}.

use super::WEIGHTS_FILE;
use crate::disk::atomic::NewDirectory;
use crate::disk::tensor::first_beyond;
use crate::disk::tensor_file::{self, NewTensor};
use crate::disk::{Config, DenseTensor, DenseType};
use crate::formats::error::ModelFormatError;
use crate::formats::export::dense_type_name;
use crate::formats::output;
use crate::model::families::{self, Family, TensorName};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes a model whose parameters are all dense, with its companions and `provenance` as slmc.json; every value rounded to
/// `dtype`, if one is given. Equal models and provenance give equal bytes.
///
/// # Errors
/// A parameter that is quantized, missing, of another shape than the configuration says or not finite, or that `dtype` has no
/// finite number for; an output that slmc did not make; the file system.
pub(super) fn write(
    model: &Model,
    provenance: &Value,
    out: &Path,
    dtype: Option<DenseType>,
    progress: &dyn Progress,
) -> Result<(), ModelFormatError> {
    let family = Family::of(&model.config)?;
    let tensors = tensors(model, family, prefix(model, family))?;
    let asked = dtype.is_some();
    let dtype = dtype.unwrap_or_else(|| common_type(tensors.values().flatten()));
    let count = |parts: &[StoredPart<'_>]| -> u64 { stored_shape(parts).iter().map(|&n| n as u64).product() };
    progress.begin("writing the values", tensors.values().map(|parts| count(parts)).sum(), "values");
    // The writer asks for one tensor after the other; after the first that is refused the rest is not read, and the
    // directory never takes its place.
    let refused: OnceCell<ModelFormatError> = OnceCell::new();
    let failed = &refused;
    let new = tensors.iter().map(|(name, parts)| NewTensor {
        name: name.clone(),
        dtype: stored_type(dtype),
        shape: stored_shape(parts),
        bytes: Box::new(move || {
            if failed.get().is_some() {
                return Cow::Borrowed(&[]);
            }
            progress.advance(count(parts));
            encoded(parts, dtype).unwrap_or_else(|error| {
                let _ = failed.set(error);
                Cow::Borrowed(&[])
            })
        }),
    });
    let directory = NewDirectory::begin(out)?;
    let written = tensor_file::write(&directory.path().join(WEIGHTS_FILE), new.collect());
    if let Some(error) = refused.into_inner() {
        return Err(error);
    }
    written?;
    progress.finish();
    let stated = if asked || other_factor(model, dtype).is_none() { type_name(dtype) } else { stated_type(model) };
    output::finish(directory, config_of(model, stated), provenance, &model.companions)
}

/// A parameter in the tensor that holds it, with others or alone.
pub(in crate::formats) struct StoredPart<'m> {
    source: TensorName,
    pub(in crate::formats) id: ParameterId,
    tensor: &'m DenseTensor,
}

impl StoredPart<'_> {
    /// Whether the file has its rows in their order, and with their factor.
    pub(in crate::formats) fn is_as_stored(&self) -> bool {
        self.source.is_as_stored()
    }

    /// Whether the file holds it as (in, out).
    pub(in crate::formats) fn transposed(&self) -> bool {
        self.source.transposed
    }

    /// Rows of the parameter.
    pub(in crate::formats) fn rows(&self) -> usize {
        self.tensor.shape().first().copied().unwrap_or(0)
    }
}

/// The data type of the tensors where they have one, else f32.
fn common_type<'p, 'm: 'p>(mut parts: impl Iterator<Item = &'p StoredPart<'m>>) -> DenseType {
    match parts.next() {
        Some(first) if parts.all(|part| part.tensor.dtype() == first.tensor.dtype()) => first.tensor.dtype(),
        _ => DenseType::F32,
    }
}

/// The parameters of every tensor of the file, in the order in which it holds them.
pub(in crate::formats) fn tensors<'m>(
    model: &'m Model,
    family: &Family,
    prefix: &str,
) -> Result<BTreeMap<String, Vec<StoredPart<'m>>>, ModelFormatError> {
    let mut parts: BTreeMap<String, Vec<StoredPart<'_>>> = BTreeMap::new();
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
        let named =
            family.tensor(&model.spec, id).and_then(|source| Some((source.names(prefix).into_iter().next()?, source)));
        let (name, source) = named.ok_or(ModelFormatError::NoName { id, family: family.model_type })?;
        parts.entry(name).or_default().push(StoredPart { source, id, tensor });
        written.insert(id);
    }
    if let Some(&id) = model.parameters.keys().find(|id| !written.contains(id)) {
        return Err(ModelFormatError::NoName { id, family: family.model_type });
    }
    for parts in parts.values_mut() {
        parts.sort_by_key(|part| part.source.fused.map_or(0, |fused| fused.first));
    }
    Ok(parts)
}

/// The shape of the stored tensor of these parameters.
pub(in crate::formats) fn stored_shape(parts: &[StoredPart<'_>]) -> Vec<usize> {
    let mut shape = parts[0].tensor.shape().to_vec();
    shape[0] = leading_rows(parts) + parts.iter().map(|part| part.tensor.shape()[0]).sum::<usize>();
    if parts[0].source.transposed {
        shape.reverse();
    }
    match parts[0].source.experts {
        Some(experts) => experts.stored_shape(&shape),
        None => shape,
    }
}

/// Rows of the stored tensor before those that slmc uses: position tables that count from their padding have them. They are
/// written as zeros.
fn leading_rows(parts: &[StoredPart<'_>]) -> usize {
    parts[0].source.fused.map_or(0, |fused| fused.first)
}

/// The prefix of the checkpoint the token table was read from; the family's usual one for a model made in memory.
pub(in crate::formats) fn prefix(model: &Model, family: &Family) -> &'static str {
    let stored = match model.parameters.get(&ParameterId::weight(LinearId::global(Role::TokenEmbedding))) {
        Some(Parameter::Dense(tensor)) => tensor.stored_name(),
        _ => None,
    };
    family.prefix(&model.spec, |name| stored == Some(name))
}

/// The bytes of the stored tensor of these parameters, whose values are finite.
pub(in crate::formats) fn encoded<'p>(
    parts: &'p [StoredPart<'_>],
    dtype: DenseType,
) -> Result<Cow<'p, [u8]>, ModelFormatError> {
    let (first, transposed, leading) = (&parts[0], parts[0].source.transposed, leading_rows(parts));
    if let ([only], false) = (parts, transposed || leading > 0 || !first.source.is_as_stored()) {
        return converted(only.id, only.tensor, dtype);
    }
    let mut joined = Vec::new();
    if leading > 0 {
        let shape = [&[leading], first.tensor.shape().get(1..).unwrap_or(&[])].concat();
        let zeros = vec![0.0; shape.iter().product()];
        joined.push((first.id.to_string(), DenseTensor::from_f32(shape, &zeros)?));
    }
    for part in parts {
        let name = part.id.to_string();
        part.tensor.check_finite(&name)?;
        let tensor = match part.source.factor {
            1.0 => part.tensor.clone(),
            factor => part.tensor.unscaled(factor)?,
        };
        joined.push((name, tensor));
    }
    let rows = DenseTensor::joined(joined.iter().map(|(name, tensor)| (name.clone(), tensor)))?;
    let rows = match (first.source.experts, first.source.heads, rows.shape().first()) {
        (Some(experts), ..) => experts.stacked(&rows, parts.len()),
        (None, Some(heads), Some(&whole)) => rows.gathered(&heads.as_stored(whole)),
        _ => Some(rows),
    };
    let tensor = if transposed { rows.and_then(|rows| rows.transposed()) } else { rows };
    let tensor = tensor.ok_or(ModelFormatError::MissingParameter(first.id))?;
    Ok(Cow::Owned(converted(first.id, &tensor, dtype)?.into_owned()))
}

/// The bytes of the stored tensor of these parameters in f32.
pub(in crate::formats) fn encoded_f32(parts: &[StoredPart<'_>]) -> Result<Vec<u8>, ModelFormatError> {
    encoded(parts, DenseType::F32).map(Cow::into_owned)
}

/// The bytes of a tensor in `dtype`, rounded where that does not hold its values.
fn converted(id: ParameterId, tensor: &DenseTensor, dtype: DenseType) -> Result<Cow<'_, [u8]>, ModelFormatError> {
    let name = id.to_string();
    if tensor.dtype() == dtype && tensor.is_stored() {
        tensor.check_finite(&name)?;
        return Ok(tensor.bytes());
    }
    let values = tensor.to_f32(&name)?;
    match first_beyond(&values, dtype.bound()) {
        None => Ok(Cow::Owned(dtype.encode(&values))),
        Some(place) => Err(ModelFormatError::TooLarge { id, value: values[place], dtype }),
    }
}

pub(in crate::formats) fn stored_type(dtype: DenseType) -> Dtype {
    match dtype {
        DenseType::F32 => Dtype::F32,
        DenseType::F16 => Dtype::F16,
        DenseType::Bf16 => Dtype::BF16,
    }
}

/// Keys of config.json with the data type, of transformers 5 and 4.
const TYPE_KEYS: [&str; 2] = ["dtype", "torch_dtype"];

/// As config.json names a data type.
fn type_name(dtype: DenseType) -> &'static str {
    match dtype {
        DenseType::F32 => "float32",
        DenseType::F16 => "float16",
        DenseType::Bf16 => "bfloat16",
    }
}

/// config.json as it was read, with data type and rotary settings in the spellings of transformers 4 and 5.
pub(in crate::formats) fn config(model: &Model, dtype: DenseType) -> Map<String, Value> {
    config_of(model, type_name(dtype))
}

fn config_of(model: &Model, type_name: &str) -> Map<String, Value> {
    let mut config = typed(model, type_name);
    spell_rotary(&mut config);
    config
}

fn typed(model: &Model, type_name: &str) -> Map<String, Value> {
    let mut config = model.config.map().clone();
    for key in TYPE_KEYS {
        config.insert(key.to_owned(), json!(type_name));
    }
    config
}

/// The data type that config.json names; without one families round nothing, as in f32.
fn stated_type(model: &Model) -> &str {
    let stated = TYPE_KEYS.iter().find_map(|key| model.config.value(key)?.as_str());
    stated.unwrap_or(type_name(DenseType::F32))
}

/// The factor on embeddings that the model has once its configuration names this data type, where that is another one.
fn other_factor(model: &Model, dtype: DenseType) -> Option<f32> {
    let config = Config::from_map(model.config.file(), typed(model, type_name(dtype)));
    let factor = families::spec(&config).ok()?.embedding_scale;
    (factor != model.spec.embedding_scale).then_some(factor)
}

/// What is said of an export whose data type gives the model another factor on embeddings.
pub(in crate::formats) fn factor_note(model: &Model, dtype: DenseType) -> Option<String> {
    let (factor, stated) = (other_factor(model, dtype)?, stated_type(model));
    let types = [DenseType::F32, DenseType::F16, DenseType::Bf16].into_iter();
    let keeping = types.map(|dtype| (type_name(dtype), dense_type_name(dtype))).find(|(name, _)| *name == stated);
    Some(format!(
        "embeddings are multiplied by {factor} in {}, the data type of this export, and by {} in this model, which \
         rounds the factor as transformers does in {stated}{}",
        type_name(dtype),
        model.spec.embedding_scale,
        keeping.map(|(_, dtype)| format!("; --dtype {dtype} keeps it")).unwrap_or_default()
    ))
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
            if let Some(share) = new.get("partial_rotary_factor").filter(|_| absent(config, "partial_rotary_factor")) {
                let share = share.clone();
                config.insert("partial_rotary_factor".to_owned(), share);
            }
            if let Some(theta) = theta.filter(|_| absent(config, "rope_theta")) {
                config.insert("rope_theta".to_owned(), theta);
            }
            if !plain && absent(config, "rope_scaling") {
                config.insert("rope_scaling".to_owned(), Value::Object(scaling));
            }
        }
        // Two kinds of layers with settings of their own have no place for both in the other spelling.
        None | Some(Value::Null) if !absent(config, "rope_theta") && absent(config, "rope_local_base_freq") => {
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
