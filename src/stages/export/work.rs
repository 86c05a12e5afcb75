//! The work of `slmc export`: the model is opened, planned, checked and handed to its format.

use super::report::ExportReport;
use crate::formats::export::{Described, Export, ExportError, ExportFormat, ExportSettings, Loss, dense_type_name};
use crate::formats::{self, ModelFormatError};
use crate::machine::PORTABLE;
use crate::model::spec::ModelSpec;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::invocation::Invocation;
use crate::stages::provenance::{Inputs, of_weights};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Options of `slmc export`, checked.
#[derive(Clone)]
pub struct ExportOptions {
    /// The model.
    pub model: PathBuf,
    /// The format to write.
    pub format: &'static dyn ExportFormat,
    /// What is asked of it.
    pub settings: ExportSettings,
    /// Whether the model may lose what the format does not have.
    pub lossy: bool,
    /// File or directory to write.
    pub out: PathBuf,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Bytes of memory that exporting takes at most, by rule of thumb: the integers, the largest tensor decoded and in its bytes,
/// and the tokenizer.
pub fn memory_estimate(spec: &ModelSpec) -> u64 {
    let largest = spec.matrices().into_iter().map(|(_, rows, columns)| rows as u64 * columns as u64).max();
    spec.parameter_count() + 12 * largest.unwrap_or(0) + 1024 * spec.vocabulary as u64 + (64 << 20)
}

/// Writes the model at a path in a format.
///
/// # Errors
/// [`StageError`].
pub fn export_model(options: &ExportOptions, progress: &dyn Progress) -> Result<ExportReport, StageError> {
    let ExportOptions { format, settings, out, .. } = options;
    format.check_output(out)?;
    let source = formats::open(&options.model)?;
    let outline = source.outline();
    let plan = format.plan(&Described::of(outline), settings)?;
    if !options.lossy && !plan.losses.is_empty() {
        return Err(ExportError::Lossy { format: format.name(), losses: plan.losses }.into());
    }
    format.check(outline, settings)?;
    progress.needs("exporting", memory_estimate(&outline.spec));
    let sparsity = source.recorded_sparsity()?;
    let inputs = Inputs::default().made("model", &options.model)?;
    let asked = json!({
        "format": format.name(),
        "variant": settings.variant,
        "dtype": settings.dtype.map(dense_type_name),
        "lossy": options.lossy,
    });
    let metrics = json!({
        "parameters": outline.spec.parameter_count(),
        "weight_bytes": plan.bytes(),
        "lost": plan.losses.iter().map(Loss::to_string).collect::<Vec<_>>(),
    });
    let provenance = of_weights(("export", PORTABLE), &inputs, (asked, &options.invocation), &sparsity, metrics);
    let (family, parameters) = (outline.spec.family, outline.spec.parameter_count());
    let model = source.model()?;
    let written = format.write(Export { model, plan: &plan, settings, provenance: &provenance, out }, progress)?;
    Ok(ExportReport {
        format: format.name(),
        variant: settings.variant.or(format.variants().first().map(|variant| variant.name)),
        family,
        parameters,
        weight_bytes: plan.bytes(),
        file_bytes: bytes_of(out)?,
        tensors: plan.rows,
        scale_error: written.scale_error,
        lost: plan.losses,
        notes: plan.notes.into_iter().chain(written.notes).collect(),
    })
}

/// Bytes of a file, or of all files of a directory.
fn bytes_of(path: &Path) -> Result<u64, ModelFormatError> {
    let unreadable = |source| ModelFormatError::Companion { file: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        bytes += bytes_of(&entry.map_err(unreadable)?.path())?;
    }
    Ok(bytes)
}
