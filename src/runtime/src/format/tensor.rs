//! The tensor table: one fixed record per tensor, in ascending order of their keys. A tensor's size is recomputed from
//! its shape and layout and must equal the record's; tensors tile the weights section without gaps.

use super::record::record;
use super::tree::{leaf_digest, root};
use crate::sha256::{Digest, Software};

record! {
    /// One tensor.
    TensorRecord: 64 bytes {
        /// Layer, or 0xffff outside the layers.
        layer: u16,
        /// A [`TensorRole`].
        role: u8,
        /// A [`TensorPart`].
        part: u8,
        /// A [`crate::layout::Storage`].
        storage: u8,
        /// A [`crate::layout::Layout`]; 0 for f32.
        layout: u8,
        /// Width of the activations the matrix is multiplied with: 8 or 16; 0 for position and type tables and for
        /// vectors.
        activation_bits: u8,
        /// 0: dense. 1: 2:4, with a sparse storage.
        sparsity: u8,
        /// Output dimension, or the outer dimension of a list of vectors.
        rows: u32,
        /// Input dimension, unpadded.
        columns: u32,
        /// From the start of the weights section; a multiple of 64.
        offset: u64,
        /// Padding to 64 included.
        bytes: u64,
        /// Digest of those bytes.
        digest: Digest,
    }
}

/// Layer number of tensors outside the layers.
pub const NO_LAYER: u16 = u16::MAX;

/// Role of a tensor. The high four bits order the groups: embeddings, layers, head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of docs/format.md, which describes them")]
pub enum TensorRole {
    EmbedToken = 0x00,
    EmbedPosition = 0x01,
    EmbedType = 0x02,
    EmbedNorm = 0x08,
    EmbedProjection = 0x0b,
    AttentionNorm = 0x10,
    Query = 0x11,
    Key = 0x12,
    Value = 0x13,
    AttentionOutput = 0x14,
    QueryNorm = 0x15,
    KeyNorm = 0x16,
    AttentionOutputNorm = 0x17,
    ConvNorm = 0x18,
    ConvIn = 0x19,
    ConvKernel = 0x1a,
    ConvOut = 0x1b,
    FfnNorm = 0x20,
    Gate = 0x21,
    Up = 0x22,
    Down = 0x23,
    FfnOutputNorm = 0x24,
    Router = 0x25,
    ExitPooler = 0x31,
    ExitClassifier = 0x32,
    FinalNorm = 0x40,
    MlmTransform = 0x41,
    MlmNorm = 0x42,
    LmHead = 0x43,
    Pooler = 0x44,
    Classifier = 0x45,
}

impl TensorRole {
    /// Every role, ascending.
    pub const ALL: [TensorRole; 31] = [
        TensorRole::EmbedToken,
        TensorRole::EmbedPosition,
        TensorRole::EmbedType,
        TensorRole::EmbedNorm,
        TensorRole::EmbedProjection,
        TensorRole::AttentionNorm,
        TensorRole::Query,
        TensorRole::Key,
        TensorRole::Value,
        TensorRole::AttentionOutput,
        TensorRole::QueryNorm,
        TensorRole::KeyNorm,
        TensorRole::AttentionOutputNorm,
        TensorRole::ConvNorm,
        TensorRole::ConvIn,
        TensorRole::ConvKernel,
        TensorRole::ConvOut,
        TensorRole::FfnNorm,
        TensorRole::Gate,
        TensorRole::Up,
        TensorRole::Down,
        TensorRole::FfnOutputNorm,
        TensorRole::Router,
        TensorRole::ExitPooler,
        TensorRole::ExitClassifier,
        TensorRole::FinalNorm,
        TensorRole::MlmTransform,
        TensorRole::MlmNorm,
        TensorRole::LmHead,
        TensorRole::Pooler,
        TensorRole::Classifier,
    ];

    /// From the byte in the file.
    pub fn from_number(number: u8) -> Option<Self> {
        TensorRole::ALL.into_iter().find(|role| *role as u8 == number)
    }

    /// Whether it belongs to a layer.
    pub fn in_layer(self) -> bool {
        (0x10..0x40).contains(&(self as u8))
    }
}

/// Part of a role: weight, bias or a vector of the key map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TensorPart {
    /// The matrix or the norm's gain.
    Weight = 0,
    /// The additive vector.
    Bias = 1,
    /// Key map: subtracted from keys, (key_value_heads, head_dim).
    KeyMean = 2,
    /// Key map: multiplies keys.
    KeyBalance = 3,
    /// Key map: multiplies queries.
    KeyInverse = 4,
}

impl TensorPart {
    /// From the byte in the file.
    pub fn from_number(number: u8) -> Option<Self> {
        use TensorPart::{Bias, KeyBalance, KeyInverse, KeyMean, Weight};
        [Weight, Bias, KeyMean, KeyBalance, KeyInverse].into_iter().find(|part| *part as u8 == number)
    }
}

/// Key of a tensor, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorKey {
    /// Layer, or [`NO_LAYER`].
    pub layer: u16,
    /// Its role.
    pub role: TensorRole,
    /// Its part.
    pub part: TensorPart,
}

impl TensorKey {
    /// A tensor of layer `layer`.
    pub fn layer(layer: usize, role: TensorRole, part: TensorPart) -> Self {
        TensorKey { layer: layer as u16, role, part }
    }

    /// A tensor outside the layers.
    pub fn global(role: TensorRole, part: TensorPart) -> Self {
        TensorKey { layer: NO_LAYER, role, part }
    }

    /// Position in the table's order: group, layer, role, part.
    pub fn rank(self) -> u64 {
        let group = match self.role as u8 {
            0x00..0x10 => 0,
            0x10..0x40 => 1,
            _ => 2,
        };
        let layer = if group == 1 { u64::from(self.layer) } else { 0 };
        group << 48 | layer << 16 | (self.role as u64) << 8 | self.part as u64
    }
}

impl core::fmt::Display for TensorKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.layer != NO_LAYER {
            write!(f, "layer {} ", self.layer)?;
        }
        write!(f, "{:?}.{:?}", self.role, self.part)
    }
}

/// Root of the tree over tensors' digests: a leaf is SHA-256(0 ‖ digest), and 32 zeros are the root of none.
pub fn digest_tree(digests: impl Iterator<Item = Digest>) -> Digest {
    root(digests.map(|digest| leaf_digest(&Software, &digest)), &Software)
}
