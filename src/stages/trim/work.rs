//! The work of `slmc trim`: tokens are counted and chosen, files and rows renumbered, the model written.

use super::report::TrimReport;
use crate::disk::atomic;
use crate::formats::{self, hugging_face};
use crate::machine::PORTABLE;
use crate::model::companions::TOKENIZER_FILE;
use crate::model::described;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, Parameter};
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::import;
use crate::stages::invocation::Invocation;
use crate::stages::provenance::{Inputs, of_weights};
use crate::text::form::TextForm;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::text::trimming::{
    Characters, Counts, Extent, KEPT_IDS_FILE, KeptIds, TrimError, Vocabulary, rewritten_companions, rewritten_config,
    select, tokens_named,
};
use serde_json::json;
use std::path::PathBuf;

/// Options of `slmc trim`, checked.
#[derive(Clone, Debug)]
pub struct TrimOptions {
    /// The model.
    pub model: PathBuf,
    /// Text of the domain.
    pub data: Vec<PathBuf>,
    /// How the texts of a file are told apart.
    pub form: TextForm,
    /// How many tokens stay, where no other model says it.
    pub extent: Extent,
    /// Which characters stay.
    pub characters: Characters,
    /// A trimmed model whose tokens are kept.
    pub like: Option<PathBuf>,
    /// Directory to write.
    pub out: PathBuf,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Parameters with a row for every token.
const TABLES: [ParameterId; 3] = [
    ParameterId::Linear(LinearId { layer: None, role: Role::TokenEmbedding }, Part::Weight),
    ParameterId::Linear(LinearId { layer: None, role: Role::LmHead }, Part::Weight),
    ParameterId::Linear(LinearId { layer: None, role: Role::LmHead }, Part::Bias),
];

/// Bytes of memory that trimming takes, by rule of thumb: as importing, and the texts, which are encoded whole.
pub(super) fn memory_estimate(spec: &ModelSpec, data: &[PathBuf]) -> u64 {
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    import::memory_estimate(spec) + BYTES_ENCODING_A_BYTE * data.iter().map(length).sum::<u64>()
}

/// Memory for a byte of text while it is encoded.
const BYTES_ENCODING_A_BYTE: u64 = 110;

/// Writes a model with fewer tokens.
///
/// # Errors
/// [`StageError`]; nothing is written then.
pub fn trim(options: &TrimOptions, progress: &dyn Progress) -> Result<TrimReport, StageError> {
    atomic::check_directory(&options.out)?;
    let source = formats::open(&options.model)?;
    let outline = source.outline();
    if outline.schemes.is_some() {
        return Err(StageError::TrimQuantized { path: options.model.clone() });
    }
    progress.needs("trimming", memory_estimate(&outline.spec, &options.data));
    let companions = &outline.companions;
    let mut tokenizer = Tokenizer::of(companions)?;
    tokenizer.check(outline.spec.vocabulary)?;
    let file = companions.find(TOKENIZER_FILE);
    let file = file.ok_or_else(|| TokenizerError::Missing { path: companions.place(TOKENIZER_FILE) })?;
    let bytes = file.read_bounded().map_err(TrimError::from)?;
    let vocabulary = Vocabulary::read(file.path(), &bytes, outline.spec.vocabulary)?;
    let named = tokens_named(&vocabulary, &outline.config, companions).map_err(TrimError::from)?;
    let counts = match options.data.is_empty() {
        true => None,
        false => Some(Counts::read(&options.data, &options.form, &tokenizer, &vocabulary, progress)?),
    };
    let kept = match (&options.like, &counts) {
        (Some(directory), _) => {
            let kept = KeptIds::like(directory, &vocabulary)?;
            kept.check_named(directory, &vocabulary, named)?;
            kept
        }
        (None, counts) => {
            let counts = counts.as_ref().map_or(&[][..], |counts| &counts.counts);
            select(&vocabulary, counts, &named, options.extent, options.characters)?
        }
    };
    let trimmed_files = rewritten_companions(&vocabulary, companions, &kept)?;
    let trimmed = Tokenizer::of(&trimmed_files)?;
    let coverage = counts.map(|counts| counts.coverage(&vocabulary, &kept, &trimmed, progress)).transpose()?;
    let sparsity = source.recorded_sparsity()?;
    let config = rewritten_config(&outline.config, &kept).map_err(TrimError::from)?;
    let spec = described::spec_of(&trimmed_files, &config)?;
    let mut model = source.model()?;
    let before = weights(&model);
    for id in TABLES {
        if let Some(Parameter::Dense(table)) = model.parameters.get_mut(&id)
            && let Some(rows) = table.gathered(kept.ids())
        {
            *table = rows;
        }
    }
    model = Model { spec, config, companions: trimmed_files, ..model };
    let after = weights(&model);
    let mut inputs = Inputs::default().made("model", &options.model)?.files("data", &options.data)?;
    if let Some(directory) = &options.like {
        inputs = inputs.files("like", [&directory.join(KEPT_IDS_FILE)])?;
    }
    let settings = (json!({ "kept_ids": kept.ranges() }), &options.invocation);
    let metrics = json!({
        "vocabulary": kept.ids().len(),
        "coverage": coverage.map(|coverage| coverage.kept),
    });
    let provenance = of_weights(("trim", PORTABLE), &inputs, settings, &sparsity, metrics);
    hugging_face::Directory(&options.out).write_as(&model, &provenance, None, progress)?;
    let (special, bytes, characters) = vocabulary.kept_counts(&kept);
    Ok(TrimReport {
        vocabulary_before: vocabulary.rows(),
        vocabulary_after: kept.ids().len(),
        special,
        bytes,
        characters,
        coverage,
        parameters_before: before.0,
        parameters_after: after.0,
        weight_bytes_before: before.1,
        weight_bytes_after: after.1,
    })
}

/// Weights of a model and their bytes, a tied table once.
fn weights(model: &Model) -> (u64, u64) {
    let sizes = model.parameters.values().filter_map(|parameter| match parameter {
        Parameter::Dense(tensor) => {
            let count = tensor.shape().iter().product::<usize>() as u64;
            Some((count, count * tensor.dtype().bytes() as u64))
        }
        Parameter::Quantized(_) => None,
    });
    sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
}
