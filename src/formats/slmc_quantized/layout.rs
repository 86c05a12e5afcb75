//! The quantized directory: a model of integers between `quantize` and `compile`, in a form no target has touched yet.
//! config.json is the original's with
//!
//! ```text
//! "quantization_config": {"quant_method": "slmc", "version": 1, "schemes": {NAME: SCHEME}, "sparsity": {NAME: "2:4"},
//!                         "activations": {NAME: "a16"}}
//! ```
//!
//! (`activations` is absent where every linear takes 8-bit inputs, `a8`) and model.safetensors holds, for every NAME of `schemes`,
//!
//! ```text
//! NAME.values      I8  (out, in)               within the scheme's range: [-127, 127] for w8, [-8, 7] for w4.g32
//! NAME.row_scale   F32 (out)                   finite, not negative
//! NAME.multiplier  I8  (out, ceil(in / group)) of schemes with groups: [-127, 127], never 0
//! ```
//!
//! (of a matrix in `w8:N+w4.g32` the first N rows are w8, and the multipliers, (out − N, ceil(in / 32)), are of the others)
//! (a matrix named in `sparsity` has at most two values other than zero in every four of a row), and everything else as F32
//! under its parameter name (`layers.0.attn.norm.weight`); key maps are there for all layers with attention or for none.

use crate::disk::atomic::NewDirectory;
use crate::disk::tensor_file::{self, NewTensor};
use crate::disk::{Config, ConfigError};
use crate::formats::error::ModelFormatError;
use crate::formats::hugging_face::WEIGHTS_FILE;
use crate::formats::stored_tensors::StoredTensors;
use crate::formats::{output, provenance};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::quantized::{QuantizedMatrix, check_shape};
use crate::model::scheme::{QuantScheme, Width, names, width_name, width_of_name};
use crate::model::spec::ModelSpec;
use crate::model::transform::{NmPattern, Sparsity};
use crate::model::weights::{Model, ModelError, Outline, Parameter};
use ndarray::Array2;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

pub(in crate::formats) const KEY: &str = "quantization_config";
pub(super) const METHOD: &str = "slmc";
const VERSION: u64 = 1;
const KEYS: [&str; 5] = ["quant_method", "version", "schemes", "sparsity", "activations"];

/// The schemes of a configuration. Quantization that slmc did not do is refused.
pub(super) fn schemes(config: &Config) -> Result<BTreeMap<LinearId, QuantScheme>, ConfigError> {
    let section = config.section(KEY)?.ok_or_else(|| config.missing(KEY, "an object"))?;
    if section.text("quant_method")? != METHOD {
        return Err(section.unsupported("quant_method", METHOD, "slmc, and models that are not quantized"));
    }
    if section.value("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(section.unsupported("version", METHOD, "1"));
    }
    if let Some(key) = section.map().keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(section.unsupported(
            key,
            METHOD,
            "only quant_method, version, schemes, sparsity and activations here",
        ));
    }
    let list =
        section.section("schemes")?.ok_or_else(|| section.missing("schemes", "an object from matrices to schemes"))?;
    let mut schemes = BTreeMap::new();
    for name in list.map().keys() {
        let id: LinearId =
            name.parse().map_err(|_| list.wrong(name, "under the name of a matrix, like layers.0.attn.q"))?;
        let text = list.value(name).and_then(Value::as_str);
        let scheme = text.and_then(|text| text.parse().ok().filter(|scheme: &QuantScheme| scheme.to_string() == text));
        let known = || format!("{}, w8:ROWS+w4.g32", names());
        schemes.insert(id, scheme.ok_or_else(|| list.unsupported(name, METHOD, &known()))?);
    }
    Ok(schemes)
}

/// The sparse matrices of a quantized model's configuration. Only linears that are quantized can be among them, and only
/// as 2:4.
pub(super) fn sparsity(
    config: &Config,
    spec: &ModelSpec,
    schemes: &BTreeMap<LinearId, QuantScheme>,
) -> Result<Sparsity, ConfigError> {
    let Some(section) = config.section(KEY)? else { return Ok(Sparsity::new()) };
    let sparsity = provenance::sparsity(&section, spec)?;
    let Some(section) = section.section("sparsity")? else { return Ok(sparsity) };
    for (id, pattern) in &sparsity {
        let name = id.to_string();
        if *pattern != NmPattern::TWO_OF_FOUR {
            return Err(section.unsupported(&name, METHOD, "2:4"));
        }
        if !schemes.contains_key(id) {
            return Err(section.wrong(&name, "under the name of a quantized matrix"));
        }
    }
    Ok(sparsity)
}

/// The linears of a quantized model's configuration whose inputs are wider than 8 bits.
pub(super) fn activations(
    config: &Config,
    spec: &ModelSpec,
    schemes: &BTreeMap<LinearId, QuantScheme>,
) -> Result<BTreeMap<LinearId, Width>, ConfigError> {
    let mut widths = BTreeMap::new();
    let Some(section) = config.section(KEY)? else { return Ok(widths) };
    let Some(section) = section.section("activations")? else { return Ok(widths) };
    for name in section.map().keys() {
        let id = name.parse::<LinearId>().ok().filter(|id| schemes.contains_key(id) && spec.multiplies(*id));
        let id =
            id.ok_or_else(|| section.wrong(name, "under the name of a quantized linear, like layers.0.ffn.down"))?;
        let width = section.value(name).and_then(Value::as_str).and_then(width_of_name);
        widths.insert(id, width.ok_or_else(|| section.unsupported(name, METHOD, "a8, a16"))?);
    }
    Ok(widths)
}

/// The tensors a quantized directory must hold.
fn expected(
    spec: &ModelSpec,
    schemes: &BTreeMap<LinearId, QuantScheme>,
    key_maps: bool,
) -> BTreeMap<String, (Dtype, Vec<usize>)> {
    let mut tensors = BTreeMap::new();
    for parameter in spec.parameters() {
        match quantized(parameter.id, schemes) {
            Some((id, scheme)) => {
                let (rows, columns) = (parameter.shape[0], parameter.shape[1]);
                tensors.insert(format!("{id}.values"), (Dtype::I8, vec![rows, columns]));
                tensors.insert(format!("{id}.row_scale"), (Dtype::F32, vec![rows]));
                if scheme.def().group.is_some() {
                    let (multiplied, groups) = scheme.multiplier_shape((rows, columns));
                    tensors.insert(format!("{id}.multiplier"), (Dtype::I8, vec![multiplied, groups]));
                }
            }
            None => {
                tensors.insert(parameter.id.to_string(), (Dtype::F32, parameter.shape));
            }
        }
    }
    for parameter in key_maps.then(|| spec.key_maps()).into_iter().flatten() {
        tensors.insert(parameter.id.to_string(), (Dtype::F32, parameter.shape));
    }
    tensors
}

fn quantized(id: ParameterId, schemes: &BTreeMap<LinearId, QuantScheme>) -> Option<(LinearId, QuantScheme)> {
    match id {
        ParameterId::Linear(id, Part::Weight) => schemes.get(&id).map(|scheme| (id, *scheme)),
        _ => None,
    }
}

/// Checks names, types and shapes against the configuration; returns whether there are key maps.
pub(super) fn check(
    spec: &ModelSpec,
    schemes: &BTreeMap<LinearId, QuantScheme>,
    stored: &StoredTensors,
) -> Result<bool, ModelFormatError> {
    let matrices: BTreeMap<LinearId, (usize, usize)> =
        spec.matrices().into_iter().map(|(id, rows, columns)| (id, (rows, columns))).collect();
    for (&id, &scheme) in schemes {
        match matrices.get(&id) {
            None => {
                let (path, id) = (stored.path().to_owned(), ParameterId::weight(id));
                return Err(ModelError::NoParameter { path, id }.into());
            }
            Some(&shape) => check_shape(id, scheme, shape)?,
        }
    }
    let table = stored.tensors();
    let key_maps = spec.key_maps().iter().any(|map| table.contains_key(&map.id.to_string()));
    let expected = expected(spec, schemes, key_maps);
    for (name, (dtype, shape)) in &expected {
        if !table.contains_key(name) {
            let (path, tensor) = (stored.path().to_owned(), name.clone());
            let others = table.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
            return Err(ModelFormatError::Missing { path, tensor, expected: shape.clone(), others });
        }
        stored.expect_type(name, *dtype)?;
        stored.check_shape(name, shape)?;
    }
    if let Some((name, tensor)) = table.iter().find(|(name, _)| !expected.contains_key(*name)) {
        let (file, tensor) = (tensor.file.clone(), name.clone());
        return Err(ModelFormatError::Extra { file, tensor, family: spec.family });
    }
    Ok(key_maps)
}

/// Reads one parameter of a directory that [`check`] accepted, and checks every value of a matrix.
pub(super) fn read(outline: &Outline, stored: &StoredTensors, id: ParameterId) -> Result<Parameter, ModelFormatError> {
    let scheme = outline.schemes.as_ref().and_then(|schemes| quantized(id, schemes));
    let Some((id, scheme)) = scheme else { return Ok(Parameter::Dense(stored.dense(&id.to_string())?)) };
    let (values, row_scale) = (format!("{id}.values"), format!("{id}.row_scale"));
    let multiplier = match scheme.def().group {
        None => Array2::zeros((0, 0)),
        Some(_) => stored.signed_bytes(&format!("{id}.multiplier"))?,
    };
    let matrix = QuantizedMatrix {
        scheme,
        values: stored.signed_bytes(&values)?,
        row_scale: stored.dense(&row_scale)?.to_f32(&row_scale)?,
        multiplier,
        sparsity: outline.sparsity.get(&id).copied(),
        activations: outline.activations.get(&id).copied().unwrap_or(Width::Bits8),
    };
    matrix.validate(id)?;
    Ok(Parameter::Quantized(matrix))
}

/// Writes a model with quantized matrices as a directory, with its companions and `provenance` as slmc.json.
pub(super) fn write(model: &Model, provenance: &Value, out: &Path) -> Result<(), ModelFormatError> {
    let schemes = model.schemes();
    if schemes.is_empty() {
        return Err(ModelFormatError::NothingQuantized);
    }
    let key_maps = model.parameters.keys().any(|id| matches!(id, ParameterId::KeyMap(..)));
    let mut ids: Vec<ParameterId> = model.spec.parameters().into_iter().map(|parameter| parameter.id).collect();
    ids.extend(key_maps.then(|| model.spec.key_maps()).into_iter().flatten().map(|parameter| parameter.id));
    let mut tensors = Vec::new();
    for id in ids {
        match (id, model.parameters.get(&id)) {
            (ParameterId::Linear(matrix_id, _), Some(Parameter::Quantized(matrix))) => {
                matrix.validate(matrix_id)?;
                add_quantized(&mut tensors, matrix_id, matrix);
            }
            (_, Some(Parameter::Dense(dense))) => {
                let values = dense.to_f32(&id.to_string())?;
                tensors.push(NewTensor {
                    name: id.to_string(),
                    dtype: Dtype::F32,
                    shape: dense.shape().to_vec(),
                    bytes: Box::new(move || Cow::Owned(little_endian(&values))),
                });
            }
            _ => return Err(ModelFormatError::MissingParameter(id)),
        }
    }
    let directory = NewDirectory::begin(out)?;
    tensor_file::write(&directory.path().join(WEIGHTS_FILE), tensors)?;
    let mut config = model.config.map().clone();
    config.insert(KEY.to_owned(), quantization_config(&schemes, &model.sparsity(), &model.activations()));
    output::finish(directory, config, provenance, &model.companions)
}

fn quantization_config(
    schemes: &BTreeMap<LinearId, QuantScheme>,
    sparsity: &Sparsity,
    activations: &BTreeMap<LinearId, Width>,
) -> Value {
    let list: Map<String, Value> =
        schemes.iter().map(|(id, scheme)| (id.to_string(), json!(scheme.to_string()))).collect();
    let mut config = json!({"quant_method": METHOD, "version": VERSION, "schemes": list, "sparsity": provenance::sparsity_json(sparsity)});
    if !activations.is_empty() {
        let list: Map<String, Value> =
            activations.iter().map(|(id, width)| (id.to_string(), json!(width_name(*width)))).collect();
        config["activations"] = Value::Object(list);
    }
    config
}

fn add_quantized<'a>(tensors: &mut Vec<NewTensor<'a>>, id: LinearId, matrix: &'a QuantizedMatrix) {
    let mut add = |part: &str, dtype, shape, bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>| {
        tensors.push(NewTensor { name: format!("{id}.{part}"), dtype, shape, bytes });
    };
    let shape = matrix.values.shape().to_vec();
    add("values", Dtype::I8, shape, Box::new(|| Cow::Owned(unsigned(&matrix.values))));
    add("row_scale", Dtype::F32, vec![matrix.rows()], Box::new(|| Cow::Owned(little_endian(&matrix.row_scale))));
    if matrix.multiplied_rows() > 0 {
        let shape = matrix.multiplier.shape().to_vec();
        add("multiplier", Dtype::I8, shape, Box::new(|| Cow::Owned(unsigned(&matrix.multiplier))));
    }
}

fn unsigned(values: &Array2<i8>) -> Vec<u8> {
    values.iter().map(|value| value.cast_unsigned()).collect()
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
