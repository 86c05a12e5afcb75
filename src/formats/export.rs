//! Models on their way out, in formats of other tools. An [`ExportFormat`] writes one; [`EXPORTS`] is the list of them, in
//! which a format has one line beside its own file or folder. The stage `export` knows none of them by its name:
//!
//! ```text
//! plan   specification, schemes, widths ─> ExportPlan     no values, no files: for the plan of a recipe as well
//! check  Outline                        ─> ()             what configuration, tokenizer and templates must be
//! write  Model, ExportPlan, provenance  ─> the output     one file or one directory, all of it or nothing
//! ```
//!
//! `write` is given the [`Model`] whole and owns it: every quantized matrix with its integers, row scales and multipliers
//! ([`crate::model::quantized::QuantizedMatrix`]), floating-point tensors mapped, configuration in the form of config.json, and
//! tokenizer, templates and the other files as [`crate::model::companions::Companions`]. Key maps are among the parameters and
//! belong to no other format. `dense` and `dense_model` make floating-point tensors of integers, decoded row by row;
//! `plain_config` is the configuration without slmc's own section. A file goes through [`crate::disk::atomic`]; a directory is a
//! [`crate::disk::atomic::NewDirectory`] that `formats::output::finish` completes with configuration, provenance (slmc.json) and
//! companions. A file holds its provenance itself.
//!
//! Three things may happen to what a model is, and a plan says which:
//!
//! - A **row** says what a class of tensors becomes, in which type and how many bytes, and whether its integers are kept
//!   ([`Kept`]). Rounding to the format's own precision is nothing more than that.
//! - A **loss** is what the model was made for and the file has no counterpart of: sparsity, a table in two parts, 16-bit
//!   inputs. The stage refuses it by name, unless `--lossy` is given; then it stands in the report and the provenance.
//! - A **note** is what is left out or added and changes nothing that the model computes.

mod dense;
mod error;
mod plan;

pub(super) use dense::{dense, dense_model, plain_config};
pub use error::ExportError;
pub use plan::{Described, ExportPlan, Kept, Loss, StoredMatrix, TargetRow, dense_type_name, key_maps_note};

use super::ModelFormatError;
use crate::disk::DenseType;
use crate::model::weights::{Model, Outline};
use crate::progress::Progress;
use serde_json::Value;
use std::path::Path;

/// What a format is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One file.
    File {
        /// End of its name in the outputs of a recipe, without the dot.
        extension: &'static str,
    },
    /// A directory with slmc.json.
    Directory,
}

/// A way to write a format that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Value of `--variant`.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

/// What is asked for beside the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSettings {
    /// Type of what the format holds in floating point; the format's own choice where absent.
    pub dtype: Option<DenseType>,
    /// One of [`ExportFormat::variants`]; the first where absent.
    pub variant: Option<&'static str>,
}

/// What a format writes.
pub struct Export<'e> {
    /// The model with its values.
    pub model: Model,
    /// What was planned for it.
    pub plan: &'e ExportPlan,
    /// What is asked for.
    pub settings: &'e ExportSettings,
    /// How it was made: slmc.json of a directory; a file holds it in its own way.
    pub provenance: &'e Value,
    /// The output.
    pub out: &'e Path,
}

/// What only writing tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Largest relative change of a scale by the format's precision: 0 where all are exact, absent where none is written.
    pub scale_error: Option<f64>,
    /// Further notes, as those of the plan.
    pub notes: Vec<String>,
}

/// A format that models are written in.
pub trait ExportFormat: Sync {
    /// Value of `--format`.
    fn name(&self) -> &'static str;

    /// A line of `--help`: which tool runs it, and how matrices are stored.
    fn about(&self) -> &'static str;

    /// File or directory.
    fn place(&self) -> Place;

    /// Ways to write it, the usual one first; none where there is but one.
    fn variants(&self) -> &'static [Variant];

    /// What becomes of every tensor, by the shape of the model alone.
    ///
    /// # Errors
    /// A family or an option that the format does not have.
    fn plan(&self, model: &Described<'_>, settings: &ExportSettings) -> Result<ExportPlan, ExportError>;

    /// Whether configuration, tokenizer and templates can be said in the format.
    ///
    /// # Errors
    /// The file and key that cannot.
    fn check(&self, outline: &Outline, settings: &ExportSettings) -> Result<(), ModelFormatError>;

    /// Whether an output that exists may be replaced, or is not there.
    ///
    /// # Errors
    /// What stands there was not made by slmc.
    fn check_output(&self, out: &Path) -> Result<(), ModelFormatError>;

    /// Writes the output, all or nothing. Equal models, settings and provenance give equal bytes.
    ///
    /// # Errors
    /// Values that the format does not hold, a place that is taken, the file system.
    fn write(&self, export: Export<'_>, progress: &dyn Progress) -> Result<Written, ModelFormatError>;
}

/// Every format, in the order of the help.
pub static EXPORTS: [&dyn ExportFormat; 4] = [
    &super::gguf::GgufExport,
    &super::packed::CompressedTensorsExport,
    &super::onnx::OnnxExport,
    &super::hugging_face::SafetensorsExport,
];

/// The format of a name.
pub fn named(name: &str) -> Option<&'static dyn ExportFormat> {
    EXPORTS.into_iter().find(|format| format.name() == name)
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    EXPORTS.iter().map(|format| format.name()).collect()
}

/// The variant of a format by its name.
///
/// # Errors
/// A name that it does not have.
pub fn variant(format: &dyn ExportFormat, name: &str) -> Result<&'static str, ExportError> {
    let found = format.variants().iter().find(|variant| variant.name == name);
    found.map(|variant| variant.name).ok_or_else(|| ExportError::Variant {
        format: format.name(),
        found: name.to_owned(),
        known: format.variants().iter().map(|variant| variant.name).collect::<Vec<_>>().join(", "),
    })
}
