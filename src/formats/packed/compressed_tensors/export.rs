//! The export `compressed-tensors`: a Hugging Face directory whose linears are packed integers, for transformers and vLLM. What
//! modules become is in [`modules`], their bytes in [`pack`]; tensors have the names that the family gives them, and everything
//! that is not packed is written as the dense directory has it. Tables and language-model heads are not linears there, or are
//! tied to one that is not: they are floating point.
//!
//! ```text
//! "quantization_config": {"quant_method": "compressed-tensors", "format": …, "quantization_status": "compressed",
//!                         "config_groups": {"group_0": {"targets": […], "weights": {…}, "input_activations": …}}, "ignore": […]}
//! ```

mod groups;
mod modules;
mod pack;

use crate::disk::DenseType;
use crate::disk::atomic::{self, NewDirectory};
use crate::disk::tensor_file::{self, NewTensor};
use crate::formats::export::{
    Described, Export, ExportError, ExportFormat, ExportPlan, ExportSettings, Kept, Place, Variant, Written, dense,
    dense_type_name, key_maps_note, plain_config,
};
use crate::formats::hugging_face::{self, WEIGHTS_FILE};
use crate::formats::{ModelFormatError, output};
use crate::model::families::{FAMILIES, Family, TensorName};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::quantized::QuantizedMatrix;
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, Outline, Parameter};
use crate::progress::Progress;
use modules::{Coding, Module};
use serde_json::Value;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Value of `--format`.
const NAME: &str = "compressed-tensors";
/// Integers of weights alone.
const WEIGHTS: Variant =
    Variant { name: "weights", about: "integers of weights alone, inputs in floating point: the values of the model" };
/// Inputs as an artifact has them.
const INPUTS: Variant = Variant {
    name: "inputs",
    about: "inputs of 8-bit linears in 8 bits with a scale for each token, as artifacts compute",
};

/// Its line of [`crate::formats::export::EXPORTS`].
pub struct CompressedTensorsExport;

/// The family of a specification, where its linears are linears there.
fn family(spec: &ModelSpec) -> Result<&'static Family, ExportError> {
    const TABLE: &[Family] = &FAMILIES;
    let known = TABLE.iter().find(|family| family.model_type == spec.family);
    let any = |of: fn(&TensorName) -> bool| {
        let mut sources = spec.matrices().into_iter().filter_map(|(id, ..)| Some((known?.source, id)));
        sources.any(|(source, id)| source(spec, ParameterId::weight(id)).is_some_and(|name| of(&name)))
    };
    let (turned, rearranged) = (any(|name| name.transposed), any(|name| !name.is_as_stored()));
    known.filter(|_| !turned && !rearranged).ok_or_else(|| ExportError::Family {
        format: NAME,
        family: spec.family.to_owned(),
        detail: match rearranged {
            true => ", whose files have matrices in another order, or without a factor that slmc holds in them",
            false => ", whose matrices are Conv1D modules",
        },
        known: "families of linear modules: export this one as gguf or safetensors".to_owned(),
    })
}

/// The data type of scales and of what is not packed. Gemma's activations go beyond the numbers of f16.
fn dtype(spec: &ModelSpec, settings: &ExportSettings) -> DenseType {
    let usual = if ["gemma2", "gemma3_text"].contains(&spec.family) { DenseType::F32 } else { DenseType::F16 };
    settings.dtype.unwrap_or(usual)
}

fn with_inputs(settings: &ExportSettings) -> bool {
    settings.variant == Some(INPUTS.name)
}

impl ExportFormat for CompressedTensorsExport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "Hugging Face directory of packed linears, for transformers and vLLM; variants: weights, inputs"
    }

    fn place(&self) -> Place {
        Place::Directory
    }

    fn variants(&self) -> &'static [Variant] {
        &[WEIGHTS, INPUTS]
    }

    fn plan(&self, model: &Described<'_>, settings: &ExportSettings) -> Result<ExportPlan, ExportError> {
        let (family, dtype) = (family(model.spec)?, dtype(model.spec, settings));
        if model.schemes.is_empty() {
            return Err(ExportError::NotSaid {
                format: NAME,
                what: "a model without integers".to_owned(),
                why: "quantize it first, or export it as safetensors".to_owned(),
            });
        }
        let modules = modules::of(model, family, with_inputs(settings));
        let mut plan = ExportPlan::default();
        let mut tables = false;
        for parameter in model.spec.parameters() {
            let values = parameter.shape.iter().product::<usize>();
            let stored = model.stored_name(parameter.id);
            let module = match parameter.id {
                ParameterId::Linear(id, Part::Weight) => modules.iter().find(|module| module.holds(id)),
                _ => None,
            };
            match module.filter(|module| module.coding != Coding::Float) {
                Some(module) => {
                    let bytes = module.coding.bytes((parameter.shape[0], parameter.shape[1]), dtype);
                    plan.add(parameter.id, &stored, &module.coding.name(), (values as u64, bytes), Kept::Integers);
                    Module::lose(&mut plan, parameter.id, model);
                }
                None => {
                    let size = (values as u64, (values * dtype.bytes()) as u64);
                    let exact = dtype == DenseType::F32;
                    let kept = if exact { Kept::Values } else { Kept::Rounded };
                    tables |= matches!(parameter.id, ParameterId::Linear(_, Part::Weight));
                    plan.add(parameter.id, &stored, dense_type_name(dtype), size, kept);
                }
            }
        }
        if tables {
            let note = "tables and language-model heads are floating point: the format has integers for linears alone";
            plan.notes.push(note.to_owned());
        }
        plan.notes.extend(key_maps_note(model));
        Ok(plan)
    }

    fn check(&self, outline: &Outline, _settings: &ExportSettings) -> Result<(), ModelFormatError> {
        Ok(Family::of(&outline.config).map(drop)?)
    }

    fn check_output(&self, out: &Path) -> Result<(), ModelFormatError> {
        Ok(atomic::check_directory(out)?)
    }

    fn write(&self, export: Export<'_>, progress: &dyn Progress) -> Result<Written, ModelFormatError> {
        let Export { model, settings, provenance, out, .. } = export;
        let described = Described::of_model(&model);
        let modules = modules::of(&described, family(&model.spec)?, with_inputs(settings));
        let dtype = dtype(&model.spec, settings);
        let notes = hugging_face::factor_note(&model, dtype).into_iter().collect();
        let scale_error = Directory { modules, dtype }.write(model, provenance, out, progress)?;
        Ok(Written { scale_error, notes })
    }
}

/// A directory that is to be written.
struct Directory {
    modules: Vec<Module>,
    dtype: DenseType,
}

/// The integers of a model.
type Integers = BTreeMap<LinearId, Arc<QuantizedMatrix>>;

/// A model in floating point, decoded when it is asked for, and its integers beside it.
fn apart(model: Model) -> (Model, Integers) {
    let mut integers = Integers::new();
    let config = plain_config(&model.config);
    let mut parameters = BTreeMap::new();
    for (id, parameter) in model.parameters {
        match (id, parameter) {
            (ParameterId::KeyMap(..), _) => {}
            (ParameterId::Linear(linear, Part::Weight), Parameter::Quantized(matrix)) => {
                let matrix = Arc::new(matrix);
                parameters.insert(id, Parameter::Dense(dense(id, Arc::clone(&matrix))));
                integers.insert(linear, matrix);
            }
            (id, parameter) => drop(parameters.insert(id, parameter)),
        }
    }
    (Model { config, parameters, ..model }, integers)
}

impl Directory {
    /// Writes all of it; the largest relative change of a scale.
    fn write(
        &self,
        model: Model,
        provenance: &Value,
        out: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<f64>, ModelFormatError> {
        let (model, integers) = apart(model);
        let family = Family::of(&model.config)?;
        let prefix = hugging_face::prefix(&model, family);
        let tensors = hugging_face::tensors(&model, family, prefix)?;
        progress.begin("writing the tensors", tensors.len() as u64, "tensors");
        let worst: Cell<Option<f64>> = Cell::new(None);
        // As in the dense directory: after the first tensor that is refused the rest is not made, and nothing is put in place.
        let refused: OnceCell<ModelFormatError> = OnceCell::new();
        let (worst_of, failed) = (&worst, &refused);
        let mut new: Vec<NewTensor<'_>> = Vec::new();
        let mut names = BTreeMap::new();
        for (name, parts) in &tensors {
            let module = match parts[0].id {
                ParameterId::Linear(id, Part::Weight) => self.modules.iter().find(|module| module.holds(id)),
                _ => None,
            };
            let stem = name.strip_suffix(".weight").unwrap_or(name);
            if let Some(module) = module {
                names.insert(module.first(), stem.to_owned());
            }
            match module.filter(|module| module.coding != Coding::Float) {
                Some(module) => {
                    let matrices: Option<Vec<&QuantizedMatrix>> =
                        module.ids().map(|id| integers.get(&id).map(Arc::as_ref)).collect();
                    let matrices = matrices.ok_or(ModelFormatError::MissingParameter(parts[0].id))?;
                    for part in pack::tensors(module.coding, matrices, self.dtype) {
                        let bytes = part.bytes;
                        new.push(NewTensor {
                            name: format!("{stem}{}", part.end),
                            dtype: part.dtype,
                            shape: part.shape,
                            bytes: Box::new(move || {
                                let (bytes, error) = bytes();
                                match error {
                                    Ok(error) => worst_of.set(worst_of.get().into_iter().chain(error).reduce(f64::max)),
                                    Err(value) => {
                                        let (id, dtype) = (parts[0].id, self.dtype);
                                        let _ = failed.set(ModelFormatError::TooLarge { id, value, dtype });
                                    }
                                }
                                Cow::Owned(bytes)
                            }),
                        });
                    }
                }
                None => new.push(NewTensor {
                    name: name.clone(),
                    dtype: hugging_face::stored_type(self.dtype),
                    shape: hugging_face::stored_shape(parts),
                    bytes: Box::new(move || {
                        if failed.get().is_some() {
                            return Cow::Borrowed(&[]);
                        }
                        progress.advance(1);
                        hugging_face::encoded(parts, self.dtype).unwrap_or_else(|error| {
                            let _ = failed.set(error);
                            Cow::Borrowed(&[])
                        })
                    }),
                }),
            }
        }
        let directory = NewDirectory::begin(out)?;
        let written = tensor_file::write(&directory.path().join(WEIGHTS_FILE), new);
        if let Some(error) = refused.into_inner() {
            return Err(error);
        }
        written?;
        progress.finish();
        let mut config = hugging_face::config(&model, self.dtype);
        let heads = groups::head_names(family, &model.spec, prefix);
        config.insert(super::super::KEY.to_owned(), groups::section(&self.modules, &names, heads, &model.spec));
        output::finish(directory, config, provenance, &model.companions)?;
        Ok(worst.get())
    }
}
