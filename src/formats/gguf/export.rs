//! The export `gguf`: one file for llama.cpp, by the tables that files are read with. Integers stay as they are, in Q8_0 and
//! Q4_0, whose scales are halves; tokenizer, templates and end tokens become keys; `slmc.provenance` holds what slmc.json
//! would.
//!
//! ```text
//! "GGUF", u32 3, u64 tensors, u64 keys, keys, descriptions of tensors, zeros to a multiple of 32,
//! the tensors in the same order, each with zeros to a multiple of 32
//! ```

mod blocks;
mod description;
pub(super) mod keys;
mod text;
mod types;

use super::architecture::{Architecture, Shape};
use super::block::BlockType;
use super::container::{ALIGNMENT, Container, MAGIC};
use super::frequencies;
use super::layout::{NewTensor, new_tensors};
use crate::disk::Config;
use crate::disk::atomic::{self, AtomicError};
use crate::formats::ModelFormatError;
use crate::formats::export::{
    Described, Export, ExportError, ExportFormat, ExportPlan, ExportSettings, Place, Variant, Written, key_maps_note,
};
use crate::model::companions::Companions;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::weights::Outline;
use crate::progress::Progress;
use keys::Keys;
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;

/// Value of `--format`.
const NAME: &str = "gguf";
/// Version of the container.
const VERSION: u32 = 3;
/// Key of what slmc.json would hold; by it a file that slmc made is known.
const PROVENANCE: &str = "slmc.provenance";

/// Its line of [`crate::formats::export::EXPORTS`].
pub struct GgufExport;

/// A file that is to be written.
struct Plan {
    architecture: &'static Architecture,
    /// With the types they get.
    tensors: Vec<(NewTensor, BlockType)>,
    /// [`frequencies::TENSOR`], where positions are scaled.
    divisors: Option<Vec<f32>>,
}

impl Plan {
    fn of(spec: &ModelSpec, model: &Described<'_>, settings: &ExportSettings) -> Result<Self, ExportError> {
        let architecture = Architecture::of_family(spec.family).ok_or_else(|| ExportError::Family {
            format: NAME,
            family: spec.family.to_owned(),
            detail: "",
            known: Architecture::families(),
        })?;
        let floats = types::float_type(settings.dtype);
        let (tensors, _) = new_tensors(architecture, spec);
        let typed = tensors.into_iter().map(|tensor| {
            let kind = types::block_type(&tensor, model, floats);
            (tensor, kind)
        });
        let rotary =
            spec.layers.iter().find_map(LayerSpec::attention).and_then(|own| Some((own.rotary?, own.head_dim)));
        let divisors = rotary.and_then(|(rotary, head_dim)| frequencies::divisors(rotary, head_dim));
        Ok(Plan { architecture, tensors: typed.collect(), divisors })
    }

    /// The keys of the file but for the provenance; whether there is a tokenizer.
    fn keys(
        &self,
        spec: &ModelSpec,
        config: &Config,
        companions: &Companions,
    ) -> Result<(Keys, bool), ModelFormatError> {
        let mut keys = Keys::default();
        keys.text("general.architecture", self.architecture.name);
        keys.text("general.type", "model");
        keys.text("general.name", name(spec, config));
        keys.size("general.file_type", self.file_type());
        keys.size("general.quantization_version", 2);
        description::describe(self.architecture, spec, &mut keys)?;
        let gemma = self.architecture.shape == Shape::Gemma3;
        let has_tokenizer = text::add(companions, config, spec, gemma, &mut keys)?;
        Ok((keys, has_tokenizer))
    }

    /// The label of the file, by the type that most bytes have: readers look at the tensors.
    fn file_type(&self) -> usize {
        let bytes = |kind: BlockType| -> usize {
            let own = self.tensors.iter().filter(|(_, own)| *own == kind);
            own.map(|(tensor, kind)| bytes_of(tensor, *kind)).sum()
        };
        let labels = [
            (BlockType::F32, 0),
            (BlockType::F16, 1),
            (BlockType::Q4_0, 2),
            (BlockType::Q8_0, 7),
            (BlockType::Bf16, 32),
        ];
        labels.into_iter().max_by_key(|(kind, _)| bytes(*kind)).map_or(0, |(_, label)| label)
    }
}

/// The model's name, by its configuration: a path would make the file another one in every folder.
fn name<'c>(spec: &ModelSpec, config: &'c Config) -> &'c str {
    let stated = config.value("_name_or_path").and_then(Value::as_str);
    let last = stated.and_then(|name| name.rsplit('/').next()).filter(|name| !name.is_empty());
    last.unwrap_or(spec.family)
}

fn bytes_of(tensor: &NewTensor, kind: BlockType) -> usize {
    let (rows, columns) = tensor.shape();
    rows * columns / kind.values() * kind.bytes()
}

impl ExportFormat for GgufExport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "one file for llama.cpp: integers as Q8_0 and Q4_0, with its tokenizer and templates"
    }

    fn place(&self) -> Place {
        Place::File { extension: "gguf" }
    }

    fn variants(&self) -> &'static [Variant] {
        &[]
    }

    fn plan(&self, model: &Described<'_>, settings: &ExportSettings) -> Result<ExportPlan, ExportError> {
        let mut plan = ExportPlan::default();
        let file = Plan::of(model.spec, model, settings)?;
        description::check(file.architecture, model, &mut plan)?;
        description::leave_out(&new_tensors(file.architecture, model.spec).1, &mut plan)?;
        for (tensor, kind) in &file.tensors {
            types::add(&mut plan, tensor, *kind, model);
        }
        plan.notes.extend(key_maps_note(model));
        Ok(plan)
    }

    fn check(&self, outline: &Outline, settings: &ExportSettings) -> Result<(), ModelFormatError> {
        let plan = Plan::of(&outline.spec, &Described::of(outline), settings)?;
        plan.keys(&outline.spec, &outline.config, &outline.companions).map(drop)
    }

    fn check_output(&self, out: &Path) -> Result<(), ModelFormatError> {
        let Ok(metadata) = std::fs::symlink_metadata(out) else { return Ok(()) };
        let ours = metadata.is_file()
            && Container::open(out).is_ok_and(|container| container.metadata.value(PROVENANCE).is_some());
        if ours { Ok(()) } else { Err(AtomicError::Foreign { path: out.to_owned() }.into()) }
    }

    fn write(&self, export: Export<'_>, progress: &dyn Progress) -> Result<Written, ModelFormatError> {
        let Export { model, settings, provenance, out, .. } = export;
        let plan = Plan::of(&model.spec, &Described::of_model(&model), settings)?;
        let (mut keys, has_tokenizer) = plan.keys(&model.spec, &model.config, &model.companions)?;
        keys.text(PROVENANCE, &provenance.to_string());
        let mut scale_error: Option<f64> = None;
        let mut refused = None;
        progress.begin("writing the tensors", plan.tensors.len() as u64, "tensors");
        let written = atomic::write_file(out, MAGIC, |file| {
            file.write_all(&header(&plan, &keys))?;
            for (tensor, kind) in &plan.tensors {
                // Only the file system's errors are the file's: another is kept, and nothing is put in place.
                let encoded = blocks::encoded(&model, tensor, *kind).map_err(|error| {
                    refused = Some(error);
                    io::Error::other("a tensor is refused")
                })?;
                padded(file, &encoded.bytes)?;
                if let Some(error) = encoded.scale_error {
                    scale_error = Some(scale_error.unwrap_or(0.0).max(error));
                }
                progress.advance(1);
            }
            match &plan.divisors {
                Some(divisors) => padded(file, &divisors.iter().flat_map(|one| one.to_le_bytes()).collect::<Vec<_>>()),
                None => Ok(()),
            }
        });
        if let Some(error) = refused {
            return Err(error);
        }
        written?;
        progress.finish();
        let notes = if has_tokenizer { Vec::new() } else { vec![text::NO_TOKENIZER.to_owned()] };
        Ok(Written { scale_error, notes })
    }
}

/// Everything before the data.
fn header(plan: &Plan, keys: &Keys) -> Vec<u8> {
    let tensors = plan.tensors.len() + usize::from(plan.divisors.is_some());
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(tensors as u64).to_le_bytes());
    bytes.extend_from_slice(&keys.count().to_le_bytes());
    bytes.extend_from_slice(keys.bytes());
    let mut offset = 0u64;
    let mut describe = |name: &str, dimensions: &[usize], kind: BlockType, length: usize| {
        keys::text(&mut bytes, name);
        bytes.extend_from_slice(&(dimensions.len() as u32).to_le_bytes());
        // The fastest first.
        dimensions.iter().rev().for_each(|&n| bytes.extend_from_slice(&(n as u64).to_le_bytes()));
        bytes.extend_from_slice(&kind.id().to_le_bytes());
        bytes.extend_from_slice(&offset.to_le_bytes());
        offset += (length as u64).next_multiple_of(ALIGNMENT);
    };
    for (tensor, kind) in &plan.tensors {
        let (rows, columns) = tensor.shape();
        let dimensions = if tensor.is_vector() { vec![columns] } else { vec![rows, columns] };
        describe(&tensor.name, &dimensions, *kind, bytes_of(tensor, *kind));
    }
    if let Some(divisors) = &plan.divisors {
        describe(frequencies::TENSOR, &[divisors.len()], BlockType::F32, 4 * divisors.len());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    bytes
}

/// Writes a tensor, and zeros up to the next.
fn padded(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    let rest = bytes.len().next_multiple_of(ALIGNMENT as usize) - bytes.len();
    file.write_all(&[0; ALIGNMENT as usize][..rest])
}
