//! Models as stages know them before their work: on a command line by the headers of the files on disk; in the plan of
//! a recipe by configurations, and by the products of earlier stages.

use super::StageError;
use crate::compile::sections::SectionBytes;
use crate::formats::{self, ModelFormatError};
use crate::model::companions::TOKENIZER_FILE;
use crate::model::families;
use crate::model::scheme::Assignment;
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::text::tokenizer::token_table;
use crate::train::start::{StartError, context_of};
use anyhow::ensure;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A model without its weights.
#[derive(Clone, Debug)]
pub struct KnownModel {
    /// Its specification.
    pub spec: ModelSpec,
    /// Whether its matrices are integers.
    pub quantized: bool,
    /// Scheme of every matrix; absent where only the work decides them, and of a dense model.
    pub schemes: Option<Assignment>,
    /// Pattern of every matrix that has one; absent where only the work decides them.
    pub sparsity: Option<Sparsity>,
    /// Whether a linear takes inputs wider than 8 bits on a device, as far as that is known.
    pub wide_activations: bool,
    /// Where its tokenizer and templates come from.
    pub files: Option<Arc<Files>>,
}

/// Where the tokenizer and templates of a model come from, and the bytes that they take in an artifact, counted once.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    bytes: OnceLock<Option<SectionBytes>>,
}

impl Files {
    /// At a path.
    pub fn at(path: &Path) -> Option<Arc<Self>> {
        Some(Arc::new(Files { path: path.to_owned(), bytes: OnceLock::new() }))
    }

    /// The directory, or the file that holds them.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        formats::companions(&self.path).is_ok_and(|companions| companions.find(TOKENIZER_FILE).is_some())
    }

    /// Bytes of the part of an artifact that only build machines read.
    pub fn host_bytes(&self) -> u64 {
        let tokenizer = formats::companions(&self.path).ok();
        let tokenizer = tokenizer.as_ref().and_then(|companions| companions.find(TOKENIZER_FILE)?.length().ok());
        // Names and provenance are some kilobytes beside it.
        tokenizer.unwrap_or(0) + (16 << 10)
    }

    /// Bytes in an artifact; `None` where they cannot be read, which the work reports.
    pub fn bytes(&self, spec: &ModelSpec) -> Option<SectionBytes> {
        let count = || SectionBytes::of(&formats::companions(&self.path).ok()?, spec).ok();
        *self.bytes.get_or_init(count)
    }
}

impl KnownModel {
    /// A dense model.
    pub fn dense(spec: ModelSpec, sparsity: Option<Sparsity>) -> Self {
        KnownModel { spec, quantized: false, schemes: None, sparsity, wide_activations: false, files: None }
    }

    /// [`check_one_stack`] of it.
    ///
    /// # Errors
    /// [`StageError::EncoderDecoder`].
    pub fn check_one_stack(&self, lacks: &'static str) -> Result<(), StageError> {
        check_one_stack(&self.spec, lacks)
    }

    /// With the tokenizer and templates of another model, or of a place.
    pub fn with_files(self, files: Option<Arc<Files>>) -> Self {
        KnownModel { files, ..self }
    }
}

/// Refuses an encoder-decoder; `lacks` says what a command does not do with one.
///
/// # Errors
/// [`StageError::EncoderDecoder`].
pub fn check_one_stack(spec: &ModelSpec, lacks: &'static str) -> Result<(), StageError> {
    match spec.stacks() {
        Some(_) => Err(StageError::EncoderDecoder { family: spec.family, lacks }),
        None => Ok(()),
    }
}

/// Where models are looked up.
#[derive(Debug)]
pub enum Known {
    /// On disk.
    OnDisk,
    /// Among those a recipe knows of, by the path at which they are or will be.
    Planned(BTreeMap<PathBuf, KnownModel>),
}

impl Known {
    /// The model at a path, with its weights' headers where it is on disk; `None` where a plan cannot tell yet.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn model(&self, path: &Path) -> Result<Option<KnownModel>, ModelFormatError> {
        match self {
            Known::Planned(models) => Ok(models.get(path).cloned()),
            Known::OnDisk => {
                let source = formats::open(path)?;
                let outline = source.outline().clone();
                let sparsity = match &outline.schemes {
                    Some(_) => outline.sparsity,
                    None => source.recorded_sparsity()?,
                };
                Ok(Some(KnownModel {
                    spec: outline.spec,
                    quantized: outline.schemes.is_some(),
                    schemes: outline.schemes,
                    sparsity: Some(sparsity),
                    wide_activations: !outline.activations.is_empty(),
                    files: Files::at(path),
                }))
            }
        }
    }

    /// The model at a path, if it was planned.
    pub fn planned(&self, path: &Path) -> Option<&KnownModel> {
        match self {
            Known::Planned(models) => models.get(path),
            Known::OnDisk => None,
        }
    }

    /// The specification of the model or configuration at a path, as far as it is known; nothing where it cannot be read,
    /// which the work reports.
    pub fn spec(&self, path: &Path) -> Option<ModelSpec> {
        match self {
            Known::Planned(models) => models.get(path).map(|model| model.spec.clone()),
            Known::OnDisk => configured(path).ok().flatten().map(|model| model.spec),
        }
    }

    /// Specification and sparsity of the model or configuration at a path, as [`Known::spec`].
    pub fn part_of(&self, path: &Path) -> Option<(ModelSpec, Sparsity)> {
        let known = match self {
            Known::Planned(models) => models.get(path).cloned(),
            Known::OnDisk => configured(path).ok().flatten(),
        };
        known.map(|known| (known.spec, known.sparsity.unwrap_or_default()))
    }

    /// The models of a plan.
    pub fn into_planned(self) -> BTreeMap<PathBuf, KnownModel> {
        match self {
            Known::Planned(models) => models,
            Known::OnDisk => BTreeMap::new(),
        }
    }

    /// Most positions of the model at a path, from its configuration alone; without bound where a plan cannot tell.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn context(&self, path: &Path) -> Result<usize, StartError> {
        match self {
            Known::Planned(models) => Ok(models.get(path).map_or(usize::MAX, |model| model.spec.context)),
            Known::OnDisk => context_of(path),
        }
    }
}

/// The model of a configuration on disk; `None` for a path that is not a configuration.
///
/// # Errors
/// A configuration that cannot be used.
pub fn configured(path: &Path) -> Result<Option<KnownModel>, ModelFormatError> {
    let contents = formats::contents(path);
    if !contents.configuration {
        return Ok(None);
    }
    if contents.weights {
        return Known::OnDisk.model(path);
    }
    let spec = families::spec_without_weights(&formats::configuration(path)?)?;
    Ok(Some(KnownModel::dense(spec, Some(Sparsity::new())).with_files(Files::at(path))))
}

/// Refuses two models whose tokens cannot mean the same, where both are known.
///
/// # Errors
/// The two vocabularies.
pub fn same_vocabulary(known: &Known, own: (&str, &Path), other: (&str, &Path)) -> anyhow::Result<()> {
    if let (Some(a), Some(b)) = (known.planned(own.1), known.planned(other.1)) {
        let (ours, theirs) = (a.spec.vocabulary, b.spec.vocabulary);
        ensure!(
            ours == theirs,
            "{} and {} have different vocabularies: {ours} and {theirs}; they must share one",
            own.0,
            other.0
        );
    }
    Ok(())
}

/// As [`same_vocabulary`], of a model and its reference, whose tables may be padded to different sizes: where tokenizers are
/// there already, they must be equal, or one must fit the smaller table. What an earlier stage makes is compared when it is
/// there.
///
/// # Errors
/// The two vocabularies.
pub fn comparable_tokens(known: &Known, own: (&str, &Path), other: (&str, &Path)) -> anyhow::Result<()> {
    let table = |path: &Path| formats::companions(path).ok().and_then(|companions| token_table(&companions));
    let tokens = |table: &Value| table.as_object().map_or_else(|| table.as_array().map_or(0, Vec::len), Map::len);
    let rows = |path: &Path| known.planned(path).map_or(usize::MAX, |model| model.spec.vocabulary);
    match (table(own.1), table(other.1)) {
        (Some(own), Some(other)) if own == other => Ok(()),
        (Some(table), None) | (None, Some(table)) if tokens(&table) <= rows(own.1).min(rows(other.1)) => Ok(()),
        _ => same_vocabulary(known, own, other),
    }
}

/// As [`same_vocabulary`], of a student and its teacher, whose tables may be padded to different sizes: refuses those whose
/// tokenizers are there and differ. What an earlier stage makes is compared when it is there.
///
/// # Errors
/// The two vocabularies.
pub fn same_tokens(known: &Known, own: (&str, &Path), other: (&str, &Path)) -> anyhow::Result<()> {
    let table = |path: &Path| formats::companions(path).ok().and_then(|companions| token_table(&companions));
    let other_table = table(other.1);
    match (table(own.1), &other_table) {
        (Some(own), Some(other)) if own == *other => Ok(()),
        // It takes its teacher's.
        (None, Some(_)) => Ok(()),
        _ if !own.1.exists() || !other.1.exists() => Ok(()),
        _ => same_vocabulary(known, own, other),
    }
}
