//! Adapters that slmc has trained, as PEFT saves them: adapter_config.json and adapter_model.safetensors, with slmc.json beside.
//!
//! ```text
//! base_model.model.PATH.lora_A.weight (r, in)      .lora_B.weight (out, r)       f32, of matrices with adapters
//! base_model.model.PATH.weight, .bias              f32, of modules trained whole
//! base_model.model.PATH.base_layer.bias            f32, a trained bias beside an adapter
//! ```
//!
//! A module of the base that holds several matrices (query, key and value side by side) has one adapter of the sum of their ranks,
//! with B in blocks, which adds the same:
//!
//! ```text
//! A = [A₁; A₂; …]      B = diag(B₁, B₂, …)      alpha = number · alpha
//! ```

use super::error::AdapterError;
use super::{WEIGHTS_FILE, settings};
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::NewDirectory;
use crate::disk::tensor_file::{self, NewTensor};
use crate::formats::error::ModelFormatError;
use crate::formats::hugging_face::{StoredPart, encoded_f32, stored_shape, tensors};
use crate::model::companions::Companions;
use crate::model::families::Family;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::spec::{Head, ModelSpec};
use crate::model::weights::Model;
use regex::escape;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A trained adapter.
pub struct NewAdapter<'a> {
    /// The base as the adapter names it.
    pub base: &'a Path,
    /// The base with the adapter merged, which has the values of modules trained whole.
    pub model: &'a Model,
    /// Rank of every matrix.
    pub rank: usize,
    /// B · A is multiplied by alpha / rank.
    pub alpha: f64,
    /// A (rank, in) and B (out, rank) of every matrix that has an adapter.
    pub pairs: BTreeMap<LinearId, [&'a [f32]; 2]>,
    /// Parameters trained whole.
    pub whole: &'a BTreeSet<ParameterId>,
    /// A tokenizer that is not the base's.
    pub companions: Option<&'a Companions>,
}

/// The tensors of a file by name, with the shape of each.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Writes an adapter; equal values and provenance give equal bytes.
///
/// # Errors
/// A parameter that the family has no name for; the file system.
pub fn write(out: &Path, adapter: &NewAdapter<'_>, provenance: &Value) -> Result<(), ModelFormatError> {
    let (config, tensors) = adapter.files()?;
    let directory = NewDirectory::begin(out)?;
    let new = tensors.iter().map(|(name, (shape, bytes))| NewTensor {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: shape.clone(),
        bytes: Box::new(move || Cow::Borrowed(bytes.as_slice())),
    });
    tensor_file::write(&directory.path().join(WEIGHTS_FILE), new.collect())?;
    for (name, value) in [(settings::FILE, &config), (PROVENANCE_FILE, provenance)] {
        let failed = |source| ModelFormatError::Companion { file: directory.path().join(name), source };
        directory.write(name, format!("{value:#}\n")).map_err(failed)?;
    }
    for (name, companion) in
        adapter.companions.into_iter().flat_map(Companions::iter).filter(|(name, _)| !name.contains('/'))
    {
        let failed = |source| ModelFormatError::Companion { file: companion.path().to_owned(), source };
        directory.write(name, companion.read().map_err(failed)?).map_err(failed)?;
    }
    Ok(directory.commit()?)
}

/// The matrices of one module of the base, as rows.
struct Module<'a, 'm> {
    path: String,
    parts: Vec<StoredPart<'m>>,
    /// Those with adapters, by their place among the parts.
    pairs: Vec<(usize, [&'a [f32]; 2])>,
}

impl<'a> NewAdapter<'a> {
    fn files(&self) -> Result<(Value, Tensors), ModelFormatError> {
        let spec = &self.model.spec;
        let family = Family::of(&self.model.config)?;
        // Modules of a bare encoder have no name before their own.
        let prefix =
            if matches!(spec.head, Head::Hidden) { "" } else { family.prefixes.first().copied().unwrap_or("") };
        let (mut adapted, mut saved, mut biases) = (Vec::new(), BTreeSet::new(), false);
        let mut out = Tensors::new();
        let stored = tensors(self.model, family, prefix)?;
        let has_adapter =
            |part: &StoredPart<'_>| matches!(part.id, ParameterId::Linear(id, _) if self.pairs.contains_key(&id));
        let whole: BTreeSet<String> = stored
            .iter()
            .filter(|(_, parts)| {
                parts.iter().any(|part| self.whole.contains(&part.id)) && !parts.iter().any(has_adapter)
            })
            .map(|(name, _)| module(name).to_owned())
            .collect();
        let mut all_modules = Vec::new();
        let mut transposed = false;
        for (name, parts) in stored {
            let path = module(&name).to_owned();
            let matrix = matches!(parts[0].id, ParameterId::Linear(_, Part::Weight));
            if matrix {
                all_modules.push(path.clone());
            }
            let ids = parts.iter().enumerate();
            let pairs: Vec<(usize, [&[f32]; 2])> = ids
                .filter_map(|(place, part)| match part.id {
                    ParameterId::Linear(id, Part::Weight) => Some((place, *self.pairs.get(&id)?)),
                    _ => None,
                })
                .collect();
            if !pairs.is_empty() {
                if !parts.iter().all(StoredPart::is_as_stored) {
                    let family = family.model_type;
                    return Err(AdapterError::Unwritten { module: path, family }.into());
                }
                transposed |= parts[0].transposed();
                adapted.push(Module { path, parts, pairs });
            } else if whole.contains(&path) {
                out.insert(format!("base_model.model.{name}"), (stored_shape(&parts), encoded_f32(&parts)?));
                saved.insert(path);
            } else if parts.iter().any(|part| self.whole.contains(&part.id)) {
                biases = true;
                let name = format!("base_model.model.{path}.base_layer.bias");
                out.insert(name, (stored_shape(&parts), encoded_f32(&parts)?));
            }
        }
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        for module in &adapted {
            let number = module.pairs.len();
            if number > 1 {
                ranks.insert(escape(&module.path), json!(number * self.rank));
                alphas.insert(escape(&module.path), number_json(number as f64 * self.alpha));
            }
            let [a, b] = module.joined(self.rank);
            out.insert(format!("base_model.model.{}.lora_A.weight", module.path), a);
            out.insert(format!("base_model.model.{}.lora_B.weight", module.path), b);
        }
        let adapted: BTreeSet<String> = adapted.into_iter().map(|module| module.path).collect();
        let config = json!({
            "alpha_pattern": alphas,
            "base_model_name_or_path": self.base.display().to_string(),
            "bias": if biases { "lora_only" } else { "none" },
            "fan_in_fan_out": transposed,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": number_json(self.alpha),
            "lora_dropout": 0.0,
            "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": ranks,
            "target_modules": targets(&all_modules, &adapted),
            "task_type": task(spec),
            "use_dora": false,
            "use_rslora": false,
        });
        Ok((config, out))
    }
}

/// The module of a tensor.
fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

/// Whole numbers without a point, as PEFT's own are.
fn number_json(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

fn task(spec: &ModelSpec) -> Value {
    match spec.head {
        Head::LanguageModel { .. } => json!("CAUSAL_LM"),
        Head::Classifier { .. } | Head::LastClassifier { .. } => json!("SEQ_CLS"),
        Head::TokenClassifier { .. } => json!("TOKEN_CLS"),
        Head::Answers { .. } => json!("QUESTION_ANS"),
        Head::Hidden => json!("FEATURE_EXTRACTION"),
        Head::MaskedLanguageModel { .. } => Value::Null,
    }
}

/// Names that select the adapted modules among all: the last part where every module of that name has an adapter, else the path.
fn targets(all: &[String], adapted: &BTreeSet<String>) -> Vec<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let name = |path: &String| {
        let short = last(path);
        let every = all.iter().filter(|other| last(other) == short).all(|other| adapted.contains(other));
        if every { short } else { path.clone() }
    };
    adapted.iter().map(name).collect::<BTreeSet<String>>().into_iter().collect()
}

impl Module<'_, '_> {
    /// A (rank, in) and B (out, rank) of all its matrices together, with their shapes.
    fn joined(&self, rank: usize) -> [(Vec<usize>, Vec<u8>); 2] {
        let all = rank * self.pairs.len();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let a: Vec<f32> = self.pairs.iter().flat_map(|(_, [a, _])| a.iter().copied()).collect();
        let mut b = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            let number = self.pairs.iter().position(|(of, _)| *of == place);
            for row in 0..part.rows() {
                let mut values = vec![0.0; all];
                if let Some(number) = number {
                    let own = &self.pairs[number].1[1][row * rank..][..rank];
                    values[number * rank..][..rank].copy_from_slice(own);
                }
                b.extend(values);
            }
        }
        let (inputs, outputs) = (a.len() / all.max(1), b.len() / all.max(1));
        [(vec![all, inputs], bytes(&a)), (vec![outputs, all], bytes(&b))]
    }
}
