//! The bytes of a model's weights in an artifact: the one function that counts them, for the allocator, `estimate`,
//! `inspect` and `eval`. Nothing here reads a weight.

use super::id::{Class, KeyMapPart, LinearId, NormSite, ParameterId, Part, Role};
use super::scheme::{Assignment, QuantScheme, SplitError};
use super::spec::ModelSpec;
use super::transform::{NmPattern, Sparsity};
use slm_runtime::format::tensor::{NO_LAYER, TensorKey, TensorPart, TensorRole};
use slm_runtime::layout::{Layout, Storage, tensor_bytes};
use std::collections::BTreeMap;
use std::ops::Range;

/// The scheme of a matrix that must have one.
///
/// # Errors
/// [`SizeError::NoScheme`].
pub fn scheme_of(assignment: &Assignment, id: LinearId) -> Result<QuantScheme, SizeError> {
    assignment.get(&id).copied().ok_or(SizeError::NoScheme(id))
}

/// One tensor of the artifact: a parameter, or the rows of one that share a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Which parameter.
    pub id: ParameterId,
    /// Its key in the tensor table.
    pub key: TensorKey,
    /// Coding.
    pub storage: Storage,
    /// The parameter's first row that it holds: not 0 in the second part of a split alone.
    pub first_row: usize,
    /// Outer dimension; 1 for vectors.
    pub rows: usize,
    /// Inner dimension, unpadded.
    pub columns: usize,
    /// In the artifact, padding included.
    pub bytes: u64,
    /// Bits of the inputs it is multiplied with; 0 for tables that are looked up and for vectors.
    pub activation_bits: u8,
}

impl StoredTensor {
    /// Bytes of it that one token reads: of a table that is only looked up a row, of a mixture the chosen experts, else all.
    pub fn bytes_per_token(&self, spec: &ModelSpec) -> u64 {
        match self.id {
            ParameterId::Linear(id, Part::Weight) if !spec.multiplies(id) => {
                // The mean row of a split table.
                let rows = if id.role == Role::TokenEmbedding { spec.vocabulary } else { self.rows };
                self.bytes / rows as u64
            }
            ParameterId::Linear(id, _) => spec.met_by_a_token(id, self.bytes),
            _ => self.bytes,
        }
    }

    /// Multiply-accumulates of one token with it; 0 where it is not a linear.
    pub fn macs_per_token(&self, spec: &ModelSpec) -> u64 {
        match self.id {
            ParameterId::Linear(id, Part::Weight) if spec.multiplies(id) => {
                spec.met_by_a_token(id, self.rows as u64 * self.columns as u64)
            }
            _ => 0,
        }
    }
}

/// Why a model cannot be stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SizeError {
    /// A row's sum could leave 32 bits.
    #[error(
        "`{id}` has {columns} input columns, {scheme} allows {limit}: larger sums would leave 32 bits; {}",
        if *columns <= QuantScheme::W8.max_columns() { format!("keep it in 8 bits (--keep {id}=w8)") } else { "no scheme takes it".to_owned() }
    )]
    TooManyColumns {
        /// Matrix.
        id: LinearId,
        /// Its input dimension.
        columns: usize,
        /// Asked for.
        scheme: QuantScheme,
        /// The largest input dimension of the scheme.
        limit: usize,
    },
    /// A split that cannot be.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A split of a 2:4 matrix.
    #[error(
        "`{id}` is 2:4, and artifacts store such a matrix in one piece, not as {scheme}; give it w8 or w4 (--keep {id}=w8)"
    )]
    SparseSplit {
        /// Matrix.
        id: LinearId,
        /// Asked for.
        scheme: QuantScheme,
    },
    /// The assignment has no scheme for a matrix.
    #[error("`{0}` has no scheme")]
    NoScheme(LinearId),
    /// A parameter that artifacts have no place for.
    #[error("`{0}` has no place in an artifact, which holds one stack of layers")]
    NoPlace(ParameterId),
    /// The sum of sizes leaves the machine's integers.
    #[error("`{0}` is too large to be stored")]
    Overflow(ParameterId),
}

/// The key a parameter has in the artifact's tensor table; `None` for those of encoder-decoders, which artifacts do not hold.
pub fn tensor_key(id: ParameterId) -> Option<TensorKey> {
    let (layer, role, part) = match id {
        ParameterId::Linear(linear, part) => {
            let part = if part == Part::Weight { TensorPart::Weight } else { TensorPart::Bias };
            (linear.layer, linear_role(linear.role)?, part)
        }
        ParameterId::Norm(layer, site, part) => {
            let role = match site {
                NormSite::Embedding => TensorRole::EmbedNorm,
                NormSite::Attention => TensorRole::AttentionNorm,
                NormSite::Query => TensorRole::QueryNorm,
                NormSite::Key => TensorRole::KeyNorm,
                NormSite::AttentionOutput => TensorRole::AttentionOutputNorm,
                NormSite::Conv => TensorRole::ConvNorm,
                NormSite::Ffn => TensorRole::FfnNorm,
                NormSite::FfnOutput => TensorRole::FfnOutputNorm,
                NormSite::Cross | NormSite::Encoder => return None,
                NormSite::Final => TensorRole::FinalNorm,
                NormSite::MlmTransform => TensorRole::MlmNorm,
            };
            (layer, role, if part == Part::Weight { TensorPart::Weight } else { TensorPart::Bias })
        }
        ParameterId::Kernel(layer, part) => {
            let part = if part == Part::Weight { TensorPart::Weight } else { TensorPart::Bias };
            (Some(layer), TensorRole::ConvKernel, part)
        }
        ParameterId::KeyMap(layer, part) => {
            let part = match part {
                KeyMapPart::Mean => TensorPart::KeyMean,
                KeyMapPart::Balance => TensorPart::KeyBalance,
                KeyMapPart::Inverse => TensorPart::KeyInverse,
            };
            (Some(layer), TensorRole::Key, part)
        }
    };
    Some(TensorKey { layer: layer.unwrap_or(NO_LAYER), role, part })
}

/// The parameter that a key of the tensor table stands for: the inverse of [`tensor_key`].
pub fn parameter_id(key: TensorKey) -> Option<ParameterId> {
    let layer = (key.layer != NO_LAYER).then_some(key.layer);
    let parts = [Part::Weight, Part::Bias];
    let linears = Role::ALL.into_iter().map(|role| LinearId { layer, role });
    let linears = linears.flat_map(|id| parts.map(|part| ParameterId::Linear(id, part)));
    let norms = NormSite::ALL.into_iter().flat_map(|site| parts.map(|part| ParameterId::Norm(layer, site, part)));
    let kernels = layer.into_iter().flat_map(|layer| parts.map(|part| ParameterId::Kernel(layer, part)));
    let maps = layer.into_iter().flat_map(|layer| KeyMapPart::ALL.map(|part| ParameterId::KeyMap(layer, part)));
    linears.chain(norms).chain(kernels).chain(maps).find(|&id| tensor_key(id) == Some(key))
}

fn linear_role(role: Role) -> Option<TensorRole> {
    Some(match role {
        Role::EncoderBias
        | Role::DecoderBias
        | Role::CrossQuery
        | Role::CrossKey
        | Role::CrossValue
        | Role::CrossOutput => return None,
        Role::TokenEmbedding => TensorRole::EmbedToken,
        Role::PositionEmbedding => TensorRole::EmbedPosition,
        Role::TypeEmbedding => TensorRole::EmbedType,
        Role::EmbeddingProjection => TensorRole::EmbedProjection,
        Role::Query => TensorRole::Query,
        Role::Key => TensorRole::Key,
        Role::Value => TensorRole::Value,
        Role::Output => TensorRole::AttentionOutput,
        Role::ConvIn => TensorRole::ConvIn,
        Role::ConvOut => TensorRole::ConvOut,
        Role::Router => TensorRole::Router,
        Role::Gate => TensorRole::Gate,
        Role::Up => TensorRole::Up,
        Role::Down => TensorRole::Down,
        Role::ExitPooler => TensorRole::ExitPooler,
        Role::ExitClassifier => TensorRole::ExitClassifier,
        Role::MlmTransform => TensorRole::MlmTransform,
        Role::LmHead => TensorRole::LmHead,
        Role::Pooler => TensorRole::Pooler,
        Role::Classifier => TensorRole::Classifier,
    })
}

/// Every tensor of the artifact in table order, for positions up to `context`; matrices that `sparsity` calls 2:4 are
/// stored compressed; key maps of every layer if `key_maps`.
pub fn stored_tensors(
    spec: &ModelSpec,
    assignment: &Assignment,
    sparsity: &Sparsity,
    layout: Layout,
    context: usize,
    key_maps: bool,
) -> Result<Vec<StoredTensor>, SizeError> {
    let mut shapes: Vec<(ParameterId, usize, usize)> = Vec::new();
    for parameter in spec.parameters() {
        let (mut rows, columns) = match parameter.shape[..] {
            [rows, columns] | [rows, 1, columns] => (rows, columns),
            _ => (1, parameter.shape.iter().product()),
        };
        if parameter.id == ParameterId::weight(LinearId::global(Role::PositionEmbedding)) {
            rows = rows.min(context);
        }
        let (rows, columns) = stacked(spec, parameter.id, rows, columns);
        shapes.push((parameter.id, rows, columns));
    }
    if key_maps {
        for (layer, spec) in spec.layers.iter().enumerate() {
            let Some(attention) = spec.attention() else { continue };
            let (heads, head_dim) = (attention.key_value_heads, attention.head_dim);
            shapes.extend(KeyMapPart::ALL.map(|part| (ParameterId::KeyMap(layer as u16, part), heads, head_dim)));
        }
    }
    let mut out = Vec::with_capacity(shapes.len());
    for (id, rows, columns) in shapes {
        let mut add = |rows: Range<usize>, storage: Storage, activation_bits: u8| -> Result<(), SizeError> {
            let bytes = tensor_bytes(storage, layout, rows.len(), columns).ok_or(SizeError::Overflow(id))? as u64;
            let (key, first_row, rows) = (tensor_key(id).ok_or(SizeError::NoPlace(id))?, rows.start, rows.len());
            out.push(StoredTensor { id, key, storage, first_row, rows, columns, bytes, activation_bits });
            Ok(())
        };
        let ParameterId::Linear(linear, Part::Weight) = id else {
            add(0..rows, Storage::F32, 0)?;
            continue;
        };
        let scheme = scheme_of(assignment, linear)?;
        scheme.check(linear, rows)?;
        if columns > scheme.max_columns() {
            let limit = scheme.max_columns();
            return Err(SizeError::TooManyColumns { id: linear, columns, scheme, limit });
        }
        let sparsity = sparsity.get(&linear).copied();
        if scheme.storage(None).is_none() && sparsity.is_some_and(NmPattern::is_two_of_four) {
            return Err(SizeError::SparseSplit { id: linear, scheme });
        }
        let multiplied = !matches!(linear.role, Role::PositionEmbedding | Role::TypeEmbedding);
        for (rows, scheme) in scheme.parts(rows) {
            let storage = scheme.storage(sparsity).ok_or(SizeError::NoScheme(linear))?;
            add(rows, storage, if multiplied { 8 } else { 0 })?;
        }
    }
    // Stable: the parts of a split stay in the order of their rows.
    out.sort_by_key(|tensor| tensor.key.rank());
    Ok(out)
}

/// Rows and columns in an artifact: experts are stacked, so those of the last matrix have rows of their own.
fn stacked(spec: &ModelSpec, id: ParameterId, rows: usize, columns: usize) -> (usize, usize) {
    match id {
        ParameterId::Linear(id @ LinearId { role: Role::Down, .. }, Part::Weight) => {
            let experts = spec.mixture(id).map_or(1, |mixture| mixture.experts);
            (rows * experts, columns / experts)
        }
        _ => (rows, columns),
    }
}

/// Bytes and parameters of a model's weights in an artifact.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct WeightSize {
    /// Packed bytes of all weights with multipliers, row scales, padding, norms, biases, key maps.
    pub weight_bytes: u64,
    /// Elements of the unpadded shapes, a tied tensor once.
    pub parameters: u64,
    /// 8 · weight_bytes / parameters.
    pub bits_per_weight: f64,
    /// The same bytes by class of matrix, `conv` and `exit` only where there are any; norms, biases, key maps and the
    /// kernels of convolutions are `other`.
    pub bytes_by_class: BTreeMap<&'static str, u64>,
}

impl WeightSize {
    /// Sums the tensors of [`stored_tensors`].
    pub fn of(spec: &ModelSpec, tensors: &[StoredTensor]) -> Self {
        let mut bytes_by_class: BTreeMap<&'static str, u64> = Class::ALL
            .iter()
            .filter(|class| !matches!(class, Class::Conv | Class::Exit))
            .map(|class| (class.name(), 0))
            .collect();
        bytes_by_class.insert("other", 0);
        for tensor in tensors {
            let class = match tensor.id {
                ParameterId::Linear(linear, Part::Weight) => linear.role.class().name(),
                _ => "other",
            };
            *bytes_by_class.entry(class).or_default() += tensor.bytes;
        }
        let weight_bytes = tensors.iter().map(|tensor| tensor.bytes).sum();
        let parameters = spec.parameter_count();
        WeightSize {
            weight_bytes,
            parameters,
            bits_per_weight: 8.0 * weight_bytes as f64 / parameters as f64,
            bytes_by_class,
        }
    }
}
