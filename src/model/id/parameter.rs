//! Names of single tensors: a matrix or its bias, a norm's gain or offset, the kernel of a convolution, a vector of the key
//! map. The displayed form (`layers.3.attn.q.weight`) is that of quantized directories.

use super::LinearId;
use std::fmt;

/// Weight or bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The matrix, or a norm's gain.
    Weight,
    /// The additive vector.
    Bias,
}

impl Part {
    /// `weight` or `bias`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Weight => "weight",
            Part::Bias => "bias",
        }
    }
}

/// Where a norm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NormSite {
    /// After the embeddings.
    Embedding,
    /// Before attention, or after its residual sum where norms stand there.
    Attention,
    /// On the queries of every head, (head_dim).
    Query,
    /// On the keys of every head, (head_dim).
    Key,
    /// On the output of attention, before its residual sum.
    AttentionOutput,
    /// Before a short convolution.
    Conv,
    /// Before attention to the encoder's states.
    Cross,
    /// Before the feed-forward network, or after its residual sum where norms stand there.
    Ffn,
    /// On the output of the feed-forward network, before its residual sum.
    FfnOutput,
    /// After the last layer of the encoder of an encoder-decoder.
    Encoder,
    /// After the last layer.
    Final,
    /// Inside the head of a masked language model.
    MlmTransform,
}

impl NormSite {
    /// Every site, in forward order.
    pub const ALL: [NormSite; 12] = [
        NormSite::Embedding,
        NormSite::Attention,
        NormSite::Query,
        NormSite::Key,
        NormSite::AttentionOutput,
        NormSite::Conv,
        NormSite::Cross,
        NormSite::Ffn,
        NormSite::FfnOutput,
        NormSite::Encoder,
        NormSite::Final,
        NormSite::MlmTransform,
    ];
}

/// The three vectors of the key map, each (key_value_heads, head_dim): keys become (k − mean) · balance and
/// queries q · inverse before they are quantized, which leaves the softmax unchanged in exact arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyMapPart {
    /// Subtracted from keys.
    Mean,
    /// Multiplies keys.
    Balance,
    /// Multiplies queries: 1 / balance.
    Inverse,
}

impl KeyMapPart {
    /// All three, in order.
    pub const ALL: [KeyMapPart; 3] = [KeyMapPart::Mean, KeyMapPart::Balance, KeyMapPart::Inverse];

    /// `mean`, `balance`, `inverse`.
    pub fn name(self) -> &'static str {
        match self {
            KeyMapPart::Mean => "mean",
            KeyMapPart::Balance => "balance",
            KeyMapPart::Inverse => "inverse",
        }
    }
}

/// Every tensor a model can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParameterId {
    /// A matrix (out, in) or its bias (out).
    Linear(LinearId, Part),
    /// A norm's gain or offset, (hidden), or (head_dim) on queries and keys; `None` is outside the layers.
    Norm(Option<u16>, NormSite, Part),
    /// The depthwise kernel of a layer's short convolution, (hidden, 1, taps), oldest tap first, or its bias, (hidden).
    Kernel(u16, Part),
    /// A key map vector of a layer, (key_value_heads, head_dim).
    KeyMap(u16, KeyMapPart),
}

impl ParameterId {
    /// The weight of a matrix.
    pub fn weight(id: LinearId) -> Self {
        ParameterId::Linear(id, Part::Weight)
    }

    /// The bias of a matrix.
    pub fn bias(id: LinearId) -> Self {
        ParameterId::Linear(id, Part::Bias)
    }

    /// The layer it belongs to; `None` for embeddings, the last norm and heads.
    pub fn layer(self) -> Option<u16> {
        match self {
            ParameterId::Linear(id, _) => id.layer,
            ParameterId::Norm(layer, ..) => layer,
            ParameterId::Kernel(layer, _) | ParameterId::KeyMap(layer, _) => Some(layer),
        }
    }
}

impl fmt::Display for ParameterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterId::Linear(id, part) => write!(f, "{id}.{}", part.name()),
            ParameterId::Norm(layer, site, part) => {
                if let Some(layer) = layer {
                    write!(f, "layers.{layer}.")?;
                }
                let site = match site {
                    NormSite::Embedding => "embed.norm",
                    NormSite::Attention => "attn.norm",
                    NormSite::Query => "attn.q_norm",
                    NormSite::Key => "attn.k_norm",
                    NormSite::AttentionOutput => "attn.out_norm",
                    NormSite::Conv => "conv.norm",
                    NormSite::Cross => "attn.cross_norm",
                    NormSite::Ffn => "ffn.norm",
                    NormSite::FfnOutput => "ffn.out_norm",
                    NormSite::Encoder => "encoder.norm",
                    NormSite::Final => "final.norm",
                    NormSite::MlmTransform => "head.mlm_norm",
                };
                write!(f, "{site}.{}", part.name())
            }
            ParameterId::Kernel(layer, part) => write!(f, "layers.{layer}.conv.kernel.{}", part.name()),
            ParameterId::KeyMap(layer, part) => write!(f, "layers.{layer}.attn.key_map.{}", part.name()),
        }
    }
}
