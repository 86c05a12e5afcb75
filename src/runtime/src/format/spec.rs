//! The specification of the model for the device: one fixed record and one per layer. The reader bounds the numbers, so
//! that later sums cannot overflow.

use super::record::record;

/// Absent token id, norm or rotary table.
pub const NONE: u32 = u32::MAX;

/// Largest of any dimension an artifact may state.
pub const MAX_DIMENSION: u32 = 1 << 24;

/// Largest number of layers.
pub const MAX_LAYERS: u32 = 4096;

/// Largest number of tokens per chunk.
pub const MAX_CHUNK: usize = 64;

/// Largest number of taps of a short convolution.
pub const MAX_TAPS: u32 = 64;

/// Columns of [`Output::Answers`]: start, end.
pub const ANSWER_COLUMNS: u32 = 2;

/// Largest number of experts of a mixture.
pub const MAX_EXPERTS: u16 = 1024;

/// Largest number of them that a token has.
pub const MAX_CHOSEN: u16 = 64;

/// What the width of the residual stream and of an expert are multiples of in a mixture, so that experts begin with a tile.
pub const EXPERT_STEP: usize = 16;

/// Largest number of rotary tables, and of curves.
pub const MAX_TABLES: u32 = 16;

record! {
    /// Sizes of the model and of the memory planned for it.
    ModelRecord: 128 bytes {
        /// A [`ModelKind`].
        kind: u8,
        /// An [`Output`].
        output: u8,
        /// Norm after the embeddings: a [`NormKind`], or 0.
        embedding_norm: u8,
        /// Norm after the last layer: a [`NormKind`], or 0.
        final_norm: u8,
        /// Activation of the head's transform: a curve number, or 0.
        head_activation: u8,
        /// A [`HeadMatrix`].
        tied_head: u8,
        /// 1 where there is a position table.
        learned_positions: u8,
        /// 1 where decoding drops one leading space.
        strip_leading_space: u8,
        /// An [`ExitHead`].
        exit_head: u8,
        /// 1 where a linear takes 16-bit activations, for which the memory is planned.
        wide_activations: u8,
        /// A [`Stacks`].
        stacks: u8,
        /// Zero.
        reserved: u8,
        /// Layers.
        layers: u32,
        /// Width of the residual stream.
        hidden: u32,
        /// Rows of the token table.
        vocabulary: u32,
        /// Rows of the token-type table; 0 where there is none.
        token_types: u32,
        /// Positions planned for.
        context: u32,
        /// Columns of the output.
        output_width: u32,
        /// The first token that opens a text, or [`NONE`]; [`ArtifactView::opening_tokens`] has all.
        ///
        /// [`ArtifactView::opening_tokens`]: super::artifact::ArtifactView::opening_tokens
        bos: u32,
        /// The first token that ends a text, or [`NONE`]; [`ArtifactView::end_tokens`] has all.
        ///
        /// [`ArtifactView::end_tokens`]: super::artifact::ArtifactView::end_tokens
        eos: u32,
        /// Added to the mean square or variance in the embedding, final and head norms.
        epsilon: f32,
        /// Tokens per chunk, at most [`MAX_CHUNK`].
        chunk: u32,
        /// Positions whose logits are computed together.
        output_rows: u32,
        /// Bytes of the arena.
        arena_bytes: u64,
        /// Bytes of the key-value cache.
        cache_bytes: u64,
        /// Bound on the stack the executor uses.
        stack_bytes: u64,
        /// Factor on the row scales of the token table where a token is looked up; 1 for most.
        embedding_scale: f32,
        /// A [`Pooling`], or 0 where every position has a row of output.
        pooling: u8,
        /// 1 where the pooled row is scaled to length one.
        normalize: u8,
        /// Zero.
        reserved_first: [u8; 10],
        /// One more than the token after the first of which tokens are of the second type; 0 where all are of the first.
        separator: u32,
        /// Width of the tables and of the norm of the embeddings, below `hidden`, to which they are projected; 0: `hidden`.
        embedding_width: u32,
        /// Norm before the head's last matrix: a [`NormKind`]; 0: a layer norm in masked language models, none in others.
        head_norm: u8,
        /// Zero.
        reserved_end: [u8; 19],
        /// Largest magnitude c of next-token logits z, which become c · tanh(z / c); 0 where they are as they are.
        logit_cap: f32,
    }
}

record! {
    /// One layer.
    LayerRecord: 64 bytes {
        /// A [`Block`]. Fields of the other kinds are zero.
        block: u8,
        /// A [`NormKind`].
        norm: u8,
        /// A [`NormPlacement`].
        norm_placement: u8,
        /// An [`FfnKind`].
        ffn: u8,
        /// Curve number.
        activation: u8,
        /// Rotary table number, from 1; 0 for none.
        rotary: u8,
        /// 1 where keys are mapped before they are quantized.
        key_map: u8,
        /// 1 where queries and keys are normed, head by head, before they are rotated.
        query_key_norm: u8,
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        key_value_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Width of the feed-forward network; of a mixture that of one expert.
        ffn_width: u32,
        /// Positions that a token attends to, its own included: of a decoder's before it, of an encoder's on each side; 0 for all.
        window: u32,
        /// log2(e) · 2^15 · (factor on q · k), as f32.
        score_scale: f32,
        /// Added to the mean square or variance in the layer's norms.
        epsilon: f32,
        /// Taps of a short convolution, the token's own position included.
        taps: u32,
        /// A [`LayerCacheFormat`].
        cache_format: u8,
        /// 1 where a classifier's exit head stands after this layer.
        exit_head: u8,
        /// 0: the layer is in the only stack. A later version has several.
        stack: u8,
        /// Experts of a mixture; 0 where the network is one.
        experts: u16,
        /// Those that a token has; 0 where the network is one.
        chosen: u16,
        /// Zero.
        reserved_end: [u8; 13],
        /// Largest magnitude c of scores s, in the unit of `score_scale`, which become c · tanh(s / c); 0 where they are as
        /// they are.
        score_cap: f32,
    }
}

impl ModelRecord {
    /// Whether the model is a decoder.
    pub fn is_decoder(&self) -> bool {
        self.kind == ModelKind::Decoder as u8
    }

    /// How hidden states become the one row of output; `None` where the output is another.
    pub fn pooling(&self) -> Option<Pooling> {
        Pooling::from_number(self.pooling).filter(|_| self.output == Output::Hidden as u8)
    }

    /// Whether a classifier reads the mean of all states, and not the first.
    pub fn classifies_mean(&self) -> bool {
        self.output == Output::Classifier as u8 && self.pooling == Pooling::Mean as u8
    }

    /// Width of the tables of the embeddings.
    pub fn embedding_width(&self) -> usize {
        if self.embedding_width == 0 { self.hidden as usize } else { self.embedding_width as usize }
    }

    /// The norm before the head's last matrix.
    pub fn head_norm(&self) -> u8 {
        let masked = self.output == Output::MaskedLanguageModel as u8;
        if masked && self.head_norm == 0 { NormKind::Layer as u8 } else { self.head_norm }
    }

    /// The token after the first of which tokens are of the second type; `None` where all are of the first.
    pub fn separator(&self) -> Option<u32> {
        self.separator.checked_sub(1)
    }

    /// Whether a classifier has a pooler, over the first token: an encoder's. A decoder's reads the last token.
    pub fn has_pooler(&self) -> bool {
        self.output == Output::Classifier as u8 && !self.is_decoder()
    }

    /// Whether the LM head is the token table.
    pub fn has_tied_head(&self) -> bool {
        self.tied_head == HeadMatrix::TokenTable as u8
    }
}

impl LayerRecord {
    /// Whether the feed-forward network is a mixture of experts.
    pub fn is_mixture(&self) -> bool {
        self.experts > 0
    }

    /// Whether the feed-forward network has a gate.
    pub fn is_gated(&self) -> bool {
        self.ffn == FfnKind::Gated as u8
    }
}

/// Kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ModelKind {
    /// Decoder: reads token by token, with causal attention.
    Decoder = 1,
    /// Encoder: reads whole sequences, with bidirectional attention.
    Encoder = 2,
}

/// The matrix of the LM head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeadMatrix {
    /// A separate tensor, where the output is logits over tokens.
    Own = 0,
    /// The token table.
    TokenTable = 1,
}

/// Layers whose hidden states become logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitHead {
    /// The last one only.
    LastLayer = 0,
    /// Those with an exit head too, in classifiers.
    Layers = 1,
}

/// Stacks of layers: a later version has an encoder's beside a decoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stacks {
    /// All layers, one after the other.
    One = 0,
}

/// Keys and values in the cache, for all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheFormat {
    /// int8, with one f32 scale per position and head.
    Int8 = 1,
}

/// Keys and values in the cache, for one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LayerCacheFormat {
    /// As the header's [`CacheFormat`] says, every position.
    OfHeader = 0,
    /// The same for the last positions of a sliding window only.
    Ring = 1,
    /// Keys likewise, values rotated and in nibbles; every position.
    NibbleValues = 2,
    /// The last positions only, values rotated and in nibbles.
    RingNibbleValues = 3,
}

impl LayerCacheFormat {
    /// Whether only the last positions are held.
    pub fn is_ring(self) -> bool {
        self as u8 & 1 != 0
    }

    /// Whether values are nibbles.
    pub fn has_nibble_values(self) -> bool {
        self as u8 & 2 != 0
    }

    /// The format with these properties.
    pub fn with(ring: bool, nibble_values: bool) -> Self {
        match (ring, nibble_values) {
            (false, false) => LayerCacheFormat::OfHeader,
            (true, false) => LayerCacheFormat::Ring,
            (false, true) => LayerCacheFormat::NibbleValues,
            (true, true) => LayerCacheFormat::RingNibbleValues,
        }
    }
}

/// The feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FfnKind {
    /// down(act(up x))
    Plain = 1,
    /// down(act(gate x) · up x)
    Gated = 2,
}

/// The token mixer of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Block {
    /// Attention.
    Attention = 1,
    /// A gated short convolution, in decoders only.
    Conv = 2,
}

/// Placement of a layer's norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NormPlacement {
    /// x + f(norm(x))
    Before = 1,
    /// norm(x + f(x))
    After = 2,
    /// x + norm(f(norm(x)))
    Around = 3,
    /// x + attention(norm(x)) + network(norm(x)), each norm with weights of its own
    Beside = 4,
    /// x + norm(f(x))
    Added = 5,
    /// x + attention(n) + network(n), n = norm(x)
    Common = 6,
    /// x + attention(x), then x + network(norm(x))
    Network = 7,
}

impl NormPlacement {
    /// Whether attention and network read the same hidden states, and what both add is summed.
    pub fn is_side_by_side(self) -> bool {
        matches!(self, NormPlacement::Beside | NormPlacement::Common)
    }

    /// Whether a norm stands before what mixes positions.
    pub fn is_before_mixer(self) -> bool {
        matches!(self, NormPlacement::Before | NormPlacement::Around | NormPlacement::Beside | NormPlacement::Common)
    }

    /// Whether one stands before the network.
    pub fn is_before_network(self) -> bool {
        self.is_before_mixer() || self == NormPlacement::Network
    }

    /// Whether what a part adds is normed.
    pub fn is_on_added(self) -> bool {
        matches!(self, NormPlacement::Around | NormPlacement::Added)
    }
}

/// Norms of queries and keys before they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum QueryKeyNorm {
    /// Of each head by itself.
    Heads = 1,
    /// Of all heads of a position together.
    Together = 2,
}

/// The output rows of the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Output {
    /// The last hidden state of every position.
    Hidden = 1,
    /// Next-token logits of every position.
    LanguageModel = 2,
    /// Masked-token logits of every position.
    MaskedLanguageModel = 3,
    /// One row: logits of the labels.
    Classifier = 4,
    /// Logits of the labels of every position.
    TokenClassifier = 5,
    /// Two scores of every position: that an answer starts there, and that it ends there.
    Answers = 6,
}

/// How the hidden states of a text become one row, its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pooling {
    /// That of the first token.
    First = 1,
    /// Their mean.
    Mean = 2,
    /// The largest of each column.
    Maximum = 3,
    /// That of the last token.
    Last = 4,
}

/// Kind of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NormKind {
    /// RMS norm.
    Rms = 1,
    /// Layer norm.
    Layer = 2,
    /// Layer norm without a bias.
    LayerUnbiased = 3,
}

/// Activation curves by number; the points are in the functions section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CurveId {
    /// x · sigmoid(x); also gives tanh.
    Silu = 1,
    /// GELU by the error function.
    Gelu = 2,
    /// GELU by tanh.
    GeluTanh = 3,
    /// max(x, 0): every point is 0.
    Relu = 4,
}

/// A closed enumeration that files store as one byte.
macro_rules! from_number {
    ($name:ident: $($variant:ident),*) => {
        impl $name {
            /// The variant with the file's number.
            pub fn from_number(number: u8) -> Option<Self> {
                [$($name::$variant),*].into_iter().find(|value| *value as u8 == number)
            }
        }
    };
}
from_number!(ModelKind: Decoder, Encoder);
from_number!(HeadMatrix: Own, TokenTable);
from_number!(ExitHead: LastLayer, Layers);
from_number!(Stacks: One);
from_number!(CacheFormat: Int8);
from_number!(LayerCacheFormat: OfHeader, Ring, NibbleValues, RingNibbleValues);
from_number!(FfnKind: Plain, Gated);
from_number!(Block: Attention, Conv);
from_number!(NormPlacement: Before, After, Around, Beside, Added, Common, Network);
from_number!(QueryKeyNorm: Heads, Together);
from_number!(Output: Hidden, LanguageModel, MaskedLanguageModel, Classifier, TokenClassifier, Answers);
from_number!(Pooling: First, Mean, Maximum, Last);
from_number!(NormKind: Rms, Layer, LayerUnbiased);
from_number!(CurveId: Silu, Gelu, GeluTanh, Relu);
