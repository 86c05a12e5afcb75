//! Which tensor of a GGUF file holds which parameter, in which rows: nothing missing, nothing left over, every shape as
//! the keys say. A file is read and written by the same names, which are the same in all architectures but for two norms:
//!
//! ```text
//! token_embd, position_embd, token_types, output, output_norm, token_embd_norm (of BERT), cls, cls.output
//! blk.N.{attn_norm, attn_q, attn_k, attn_v, attn_output, attn_q_norm, attn_k_norm, ffn_norm, ffn_gate, ffn_up, ffn_down}
//! blk.N.attn_qkv (queries, keys, values), and ffn_up of twice the rows (gate, up) in place of the parts
//! blk.N.{post_attention_norm, post_ffw_norm} (Gemma), blk.N.{attn_output_norm, layer_output_norm} (BERT)
//! blk.N.shortconv.{in_proj, conv, out_proj} (LFM2)
//! ```

use super::architecture::{Architecture, RowOrder};
use super::block::BlockType;
use super::container::StoredBlocks;
use super::error::GgufError;
use super::frequencies;
use super::rows::BlockRows;
use crate::disk::{DenseTensor, DenseType, TensorError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::integers::GroupedIntegers;
use crate::model::spec::{Head, ModelSpec, NormPlacement, ParameterShape};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// How the parameters of a file are spelled.
#[derive(Debug)]
pub(super) struct Layout {
    places: BTreeMap<ParameterId, Place>,
}

/// Where a parameter is.
#[derive(Clone, Debug)]
struct Place {
    tensor: String,
    /// Its first row in the tensor.
    first: usize,
    /// Rows of the whole tensor.
    rows: usize,
    order: RowOrder,
    /// Whether one was added to its values.
    from_one: bool,
    /// Shape of the parameter.
    shape: Vec<usize>,
}

/// A name that a parameter may have, and how the tensor is shared.
struct Spelling {
    tensor: String,
    /// Its first row, and the rows of the whole tensor; `None` where it has the tensor to itself.
    fused: Option<(usize, usize)>,
}

/// A parameter in a tensor that is to be written.
#[derive(Clone, Debug)]
pub(super) struct NewPart {
    /// Which.
    pub(super) id: ParameterId,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// Order of its rows in the tensor.
    pub(super) order: RowOrder,
    /// Whether one is added to its values.
    pub(super) from_one: bool,
    /// Its first row in the tensor.
    first: usize,
}

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub(super) struct NewTensor {
    /// Its name.
    pub(super) name: String,
    /// The parameters in it, by their rows.
    pub(super) parts: Vec<NewPart>,
}

impl NewTensor {
    /// Rows and columns of all its parts; a vector is one row.
    pub(super) fn shape(&self) -> (usize, usize) {
        match self.parts.as_slice() {
            [only] if only.shape.len() == 1 => (1, only.shape[0]),
            parts if parts.iter().all(|part| part.shape.len() == 1) => {
                (1, parts.iter().map(|part| part.shape[0]).sum())
            }
            parts => (parts.iter().map(|part| part.shape[0]).sum(), parts[0].shape[1..].iter().product()),
        }
    }

    /// Whether it is a vector.
    pub(super) fn is_vector(&self) -> bool {
        self.parts.iter().all(|part| part.shape.len() == 1)
    }
}

/// The tensors of a file, in the order of the forward, and the parameters that have no place in the architecture.
pub(super) fn new_tensors(architecture: &Architecture, spec: &ModelSpec) -> (Vec<NewTensor>, Vec<ParameterId>) {
    let (mut tensors, mut homeless): (Vec<NewTensor>, Vec<ParameterId>) = (Vec::new(), Vec::new());
    for ParameterShape { id, shape } in spec.parameters() {
        let Some(Spelling { tensor, fused }) = spellings(architecture, spec, id).into_iter().next() else {
            homeless.push(id);
            continue;
        };
        let part = NewPart {
            id,
            shape,
            order: order(architecture, spec, id),
            from_one: from_one(architecture, id),
            first: fused.map_or(0, |(first, _)| first),
        };
        match tensors.iter_mut().find(|other| other.name == tensor) {
            Some(other) => other.parts.push(part),
            None => tensors.push(NewTensor { name: tensor, parts: vec![part] }),
        }
    }
    tensors.iter_mut().for_each(|tensor| tensor.parts.sort_by_key(|part| part.first));
    (tensors, homeless)
}

/// Whether a file holds a parameter with one added.
fn from_one(architecture: &Architecture, id: ParameterId) -> bool {
    architecture.norms_from_one && matches!(id, ParameterId::Norm(_, _, Part::Weight))
}

impl Layout {
    /// Finds every parameter, and refuses what has no place.
    pub(super) fn of(
        architecture: &'static Architecture,
        spec: &ModelSpec,
        tensors: &BTreeMap<String, StoredBlocks>,
        file: &Path,
    ) -> Result<Self, GgufError> {
        let (mut places, mut used) = (BTreeMap::new(), BTreeSet::from([frequencies::TENSOR.to_owned()]));
        for parameter in spec.parameters() {
            let spellings = spellings(architecture, spec, parameter.id);
            let found = spellings.iter().find(|spelling| tensors.contains_key(&spelling.tensor)).or(spellings.first());
            let (file, shape) = (file.to_owned(), parameter.shape.clone());
            let Some(Spelling { tensor, fused }) = found else {
                return Err(GgufError::MissingTensor { file, tensor: parameter.id.to_string(), shape });
            };
            let mut expected = shape.clone();
            if let (Some((_, rows)), Some(first)) = (fused, expected.first_mut()) {
                *first = *rows;
            }
            let Some(stored) = tensors.get(tensor) else {
                return Err(GgufError::MissingTensor { file, tensor: tensor.clone(), shape: expected });
            };
            if significant(&stored.shape) != significant(&expected) || !fits_blocks(stored, &expected) {
                let (file, tensor, found) = (stored.file.path().to_owned(), tensor.clone(), stored.shape.clone());
                return Err(GgufError::Shape { file, tensor, expected, found });
            }
            used.insert(tensor.clone());
            let place = Place {
                tensor: tensor.clone(),
                first: fused.map_or(0, |(first, _)| first),
                rows: expected[0],
                order: order(architecture, spec, parameter.id),
                from_one: from_one(architecture, parameter.id),
                shape,
            };
            places.insert(parameter.id, place);
        }
        if let Some((tensor, stored)) = tensors.iter().find(|(name, _)| !used.contains(*name)) {
            let (file, tensor) = (stored.file.path().to_owned(), tensor.clone());
            return Err(GgufError::ExtraTensor { file, tensor, family: spec.family });
        }
        Ok(Layout { places })
    }

    /// How a parameter is stored.
    pub(super) fn stored<'t>(
        &self,
        tensors: &'t BTreeMap<String, StoredBlocks>,
        id: ParameterId,
    ) -> Option<&'t StoredBlocks> {
        tensors.get(&self.places.get(&id)?.tensor)
    }

    /// One parameter; `None` for one the model does not have. Matrices are decoded row by row when they are asked for;
    /// vectors now.
    pub(super) fn read(
        &self,
        tensors: &BTreeMap<String, StoredBlocks>,
        id: ParameterId,
    ) -> Result<Option<DenseTensor>, TensorError> {
        let Some(place) = self.places.get(&id) else { return Ok(None) };
        let Some(stored) = tensors.get(&place.tensor) else { return Ok(None) };
        let (name, shape) = (&place.tensor, place.shape.clone());
        let dtype = match stored.kind {
            BlockType::F16 => DenseType::F16,
            BlockType::Bf16 => DenseType::Bf16,
            _ => DenseType::F32,
        };
        if stored.kind.is_float() && place.order == RowOrder::Stored && !place.from_one {
            let mut whole = shape.clone();
            whole[0] = place.rows;
            let whole = DenseTensor::stored(name, whole, dtype, stored.bytes.clone());
            return Ok(whole.rows(place.first..place.first + shape[0]));
        }
        let rows = BlockRows::new(stored, place.first, place.order, &shape);
        if shape.len() > 1 {
            return Ok(Some(DenseTensor::in_rows(name, shape, dtype, Arc::new(rows))));
        }
        let mut values = rows.vector(shape[0]);
        if place.from_one {
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        Ok(Some(DenseTensor::from_f32(shape, &values)?.named(name)))
    }
}

impl Layout {
    /// Whether the blocks of every row of a matrix have one scale.
    pub(super) fn has_one_scale(&self, tensors: &BTreeMap<String, StoredBlocks>, id: LinearId) -> bool {
        let Some(place) = self.places.get(&ParameterId::weight(id)) else { return false };
        let Some(stored) = tensors.get(&place.tensor) else { return false };
        BlockRows::new(stored, place.first, place.order, &place.shape).has_one_scale(place.shape[0])
    }

    /// A matrix as integers with a scale for every block, where its tensor has such blocks.
    pub(super) fn integers(&self, tensors: &BTreeMap<String, StoredBlocks>, id: LinearId) -> Option<GroupedIntegers> {
        let place = self.places.get(&ParameterId::weight(id))?;
        let &[rows, columns] = place.shape.as_slice() else { return None };
        BlockRows::new(tensors.get(&place.tensor)?, place.first, place.order, &place.shape).integers([rows, columns])
    }
}

/// Dimensions but for those of one: (hidden, 1, taps) is stored as (hidden, taps).
fn significant(shape: &[usize]) -> Vec<usize> {
    let significant: Vec<usize> = shape.iter().copied().filter(|&n| n != 1).collect();
    if significant.is_empty() { vec![1] } else { significant }
}

/// Whether the rows of a matrix are those that blocks lie along: not where a dimension of one was left out.
fn fits_blocks(stored: &StoredBlocks, expected: &[usize]) -> bool {
    let columns: usize = expected[1..].iter().product();
    stored.kind.is_float() || expected.len() == 1 || stored.shape.last() == Some(&columns)
}

/// Order of the rows of a parameter.
fn order(architecture: &Architecture, spec: &ModelSpec, id: ParameterId) -> RowOrder {
    let ParameterId::Linear(LinearId { layer: Some(layer), role: Role::Query | Role::Key }, _) = id else {
        return RowOrder::Stored;
    };
    match spec.layers.get(usize::from(layer)).and_then(|layer| layer.attention()) {
        Some(attention) if architecture.interleaved => RowOrder::Interleaved { head: attention.head_dim },
        _ => RowOrder::Stored,
    }
}

/// The names that a parameter may have, the usual one first.
fn spellings(architecture: &Architecture, spec: &ModelSpec, id: ParameterId) -> Vec<Spelling> {
    let one = |stem: String, part: Part| vec![Spelling { tensor: format!("{stem}.{}", part.name()), fused: None }];
    match id {
        ParameterId::Linear(LinearId { layer: None, role }, part) => {
            let stem = match role {
                Role::TokenEmbedding => "token_embd",
                Role::PositionEmbedding => "position_embd",
                Role::TypeEmbedding => "token_types",
                // Of a masked-language model the head has more parts, none of which a file has.
                Role::LmHead if matches!(spec.head, Head::MaskedLanguageModel { .. }) => return Vec::new(),
                Role::LmHead => "output",
                Role::Pooler => "cls",
                // A file has one row of labels for a text.
                Role::Classifier if !matches!(spec.head, Head::Classifier { .. }) => return Vec::new(),
                Role::Classifier => "cls.output",
                _ => return Vec::new(),
            };
            one(stem.to_owned(), part)
        }
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let stem = match role {
                Role::Query => "attn_q",
                Role::Key => "attn_k",
                Role::Value => "attn_v",
                Role::Output => "attn_output",
                Role::ConvIn => "shortconv.in_proj",
                Role::ConvOut => "shortconv.out_proj",
                Role::Gate => "ffn_gate",
                Role::Up => "ffn_up",
                Role::Down => "ffn_down",
                _ => return Vec::new(),
            };
            let fused = fused(architecture, spec, usize::from(layer), role).map(|(stem, first, rows)| Spelling {
                tensor: format!("blk.{layer}.{stem}.{}", part.name()),
                fused: Some((first, rows)),
            });
            let own = one(format!("blk.{layer}.{stem}"), part);
            // As it is written comes first; a fused `ffn_up` has the name of the one matrix that it is elsewhere.
            let fuses = match role {
                Role::Gate | Role::Up => architecture.fuses_gate,
                _ => architecture.fuses_attention,
            };
            match fused {
                Some(fused) if fuses => [fused].into_iter().chain(own).collect(),
                fused => own.into_iter().chain(fused).collect(),
            }
        }
        ParameterId::Norm(layer, site, part) => {
            let post = |layer: u16| {
                let layer = spec.layers.get(usize::from(layer));
                layer.is_some_and(|layer| layer.norm_placement == NormPlacement::Post)
            };
            let stem = match (layer, site) {
                (None, NormSite::Final) => architecture.final_norm.to_owned(),
                (None, NormSite::Embedding) => "token_embd_norm".to_owned(),
                (None, _) => return Vec::new(),
                (Some(layer), site) => {
                    let norm = match site {
                        NormSite::Attention if post(layer) => "attn_output_norm",
                        NormSite::Ffn if post(layer) => "layer_output_norm",
                        NormSite::Attention | NormSite::Conv => "attn_norm",
                        NormSite::Query => "attn_q_norm",
                        NormSite::Key => "attn_k_norm",
                        NormSite::AttentionOutput => "post_attention_norm",
                        NormSite::Ffn => "ffn_norm",
                        NormSite::FfnOutput => "post_ffw_norm",
                        _ => return Vec::new(),
                    };
                    format!("blk.{layer}.{norm}")
                }
            };
            one(stem, part)
        }
        ParameterId::Kernel(layer, part) => one(format!("blk.{layer}.shortconv.conv"), part),
        ParameterId::KeyMap(..) => Vec::new(),
    }
}

/// The tensor that may hold a matrix with others: its name, the first row and the rows of all.
fn fused(
    architecture: &Architecture,
    spec: &ModelSpec,
    layer: usize,
    role: Role,
) -> Option<(&'static str, usize, usize)> {
    let layer = spec.layers.get(layer)?;
    match role {
        Role::Query | Role::Key | Role::Value => {
            let attention = layer.attention()?;
            let (queries, keys) = (attention.query_width(), attention.key_width());
            let first = match role {
                Role::Query => 0,
                Role::Key => queries,
                _ => queries + keys,
            };
            Some(("attn_qkv", first, queries + 2 * keys))
        }
        Role::Gate | Role::Up if layer.ffn.gated && architecture.fuses_gate => {
            Some(("ffn_up", if role == Role::Gate { 0 } else { layer.ffn.width }, 2 * layer.ffn.width))
        }
        _ => None,
    }
}
