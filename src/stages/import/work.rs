//! The work of `slmc import`: one tensor after the other is decoded, put in the family's order and written.

use super::report::ImportReport;
use crate::disk::{DenseType, atomic};
use crate::formats::{self, hugging_face};
use crate::machine::PORTABLE;
use crate::model::companions::{SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::model::spec::ModelSpec;
use crate::model::weights::Parameter;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::invocation::Invocation;
use crate::stages::provenance::{Inputs, of_weights};
use crate::text::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `slmc import`, checked.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The model.
    pub model: PathBuf,
    /// Directory to write.
    pub out: PathBuf,
    /// Data type to round to; without it the one that holds every value.
    pub dtype: Option<DenseType>,
    /// A model whose tokenizer takes the place of the source's own.
    pub tokenizer: Option<PathBuf>,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Bytes of memory that importing takes at most, by rule of thumb: the largest tensor decoded, joined and in its bytes, and
/// the tokenizer. The source is mapped.
pub fn memory_estimate(spec: &ModelSpec) -> u64 {
    let largest = spec.matrices().into_iter().map(|(_, rows, columns)| rows as u64 * columns as u64).max();
    // Fused matrices, of three parts at most, are joined before they are written.
    12 * largest.unwrap_or(0) + 512 * spec.vocabulary as u64 + (64 << 20)
}

/// Writes the model at a path as a dense directory.
///
/// # Errors
/// [`StageError`].
pub fn import(options: &ImportOptions, progress: &dyn Progress) -> Result<ImportReport, StageError> {
    atomic::check_directory(&options.out)?;
    let source = formats::open(&options.model)?;
    let outline = source.outline();
    if outline.schemes.is_some() {
        return Err(StageError::ImportQuantized { path: options.model.clone() });
    }
    progress.needs("importing", memory_estimate(&outline.spec));
    let sparsity = source.recorded_sparsity()?;
    let mut model = source.model()?;
    if let Some(path) = &options.tokenizer {
        let other = formats::companions(path)?;
        Tokenizer::of(&other)?.check(model.spec.vocabulary)?;
        for name in [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE] {
            model.companions.take(&other, name);
        }
    }
    let mut inputs = Inputs::default().model("model", &options.model)?;
    if let Some(path) = &options.tokenizer {
        inputs = inputs.model("tokenizer", path)?;
    }
    let dtype = match options.dtype {
        Some(dtype) => Some(dtype),
        None => holding_all(model.parameters.values()),
    };
    let settings = json!({ "dtype": options.dtype.map(|dtype| dtype.to_string().to_lowercase()) });
    let metrics = json!({ "parameters": model.spec.parameter_count() });
    let settings = (settings, &options.invocation);
    let provenance: Value = of_weights(("import", PORTABLE), &inputs, settings, &sparsity, metrics);
    hugging_face::Directory(&options.out).write_as(&model, &provenance, dtype, progress)?;
    let written = dtype.unwrap_or(DenseType::F32);
    Ok(ImportReport {
        format: formats::name(&options.model),
        family: model.spec.family,
        dtype: written.to_string().to_lowercase(),
        parameters: model.spec.parameter_count(),
        weight_bytes: model.spec.parameter_count() * written.bytes() as u64,
        tokenizer: model.companions.find(TOKENIZER_FILE).is_some(),
        stored: formats::storage(source.as_ref())?,
    })
}

/// The data type that all tensors have, else f32, which holds every value of each.
fn holding_all<'p>(parameters: impl Iterator<Item = &'p Parameter>) -> Option<DenseType> {
    let mut types = parameters.filter_map(|parameter| match parameter {
        Parameter::Dense(tensor) => Some(tensor.dtype()),
        Parameter::Quantized(_) => None,
    });
    let first = types.next()?;
    Some(if types.all(|dtype| dtype == first) { first } else { DenseType::F32 })
}
