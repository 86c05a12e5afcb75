//! Plain data that describes a model: all that the one f32 forward, the byte counter and the lowering to an artifact
//! need, and nothing of any file format. Every shape is stated once, by [`ModelSpec::parameters`].

mod mixture;
mod parameters;
mod rotary;
mod stacks;

use super::id::NormSite;

pub use mixture::Mixture;
pub use parameters::ParameterShape;
pub use rotary::{Divisors, Llama3Scaling, RotaryScaling, RotarySpec, YarnScaling};
pub use stacks::{Buckets, Stacks};

/// Decoders attend to the past and keep a cache; encoders see the whole sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Causal language model.
    Decoder,
    /// Bidirectional encoder.
    Encoder,
    /// An encoder, and a decoder that attends to what the encoder made of a text while it writes another.
    EncoderDecoder(Stacks),
}

/// x / rms(x) · w, x / rms(x) · (1 + w), or (x − mean) / std · w + b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, weight only.
    Rms,
    /// Root mean square, the weight counted from one. Checkpoints store w; artifacts store 1 + w, added in f32.
    RmsOnePlus,
    /// Mean and variance, weight and bias.
    Layer,
    /// Mean and variance, weight only.
    LayerUnbiased,
}

impl NormKind {
    /// Whether the mean is taken off.
    pub fn is_centred(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::LayerUnbiased)
    }
}

/// A norm without its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub epsilon: f64,
}

/// Where a layer's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// x + f(norm(x))
    Pre,
    /// norm(x + f(x))
    Post,
    /// x + norm(f(norm(x))), each with weights of its own
    Around,
    /// x + attention(norm(x)) + network(norm(x)), each with weights of its own
    Beside,
    /// x + norm(f(x))
    Added,
    /// x + attention(n) + network(n), n = norm(x)
    Common,
    /// x + attention(x), then x + network(norm(x))
    Network,
}

impl NormPlacement {
    /// Whether attention and network read the same hidden states, and what both add is summed.
    pub fn is_side_by_side(self) -> bool {
        matches!(self, NormPlacement::Beside | NormPlacement::Common)
    }

    /// The norm that the network's input has, where one stands before it.
    pub fn of_network(self) -> NormSite {
        if self == NormPlacement::Common { NormSite::Attention } else { NormSite::Ffn }
    }

    /// Whether a norm stands before what mixes positions.
    pub fn is_before_mixer(self) -> bool {
        matches!(self, NormPlacement::Pre | NormPlacement::Around | NormPlacement::Beside | NormPlacement::Common)
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

/// Norms of queries and keys before rotation, by the layer's norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// Over head_dim, head by head, with weights that all heads share.
    Heads,
    /// Over all heads of a position together.
    Together,
}

/// Element-wise functions, each y = x · S(x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), with the error function
    Gelu,
    /// x · Φ(x), with tanh
    GeluTanh,
    /// x where it is above 0, else 0
    Relu,
}

/// Element-wise functions that are computed by table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// One of the activations.
    Activation(Activation),
    /// tanh
    Tanh,
}

/// How the model knows positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Rotation of queries and keys, by each layer's [`AttentionSpec::rotary`].
    Rotary,
    /// A table added to the token embedding.
    Learned,
    /// A number of every head added to scores, looked up by how far a key is from its query: a table for each stack of an
    /// encoder-decoder, which all its layers share; across stacks nothing is added.
    Buckets(Buckets),
}

/// Attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on q·k, usually 1/√head_dim.
    pub score_scale: f64,
    /// Largest magnitude c of scores s, which become c · tanh(s / c).
    pub score_cap: Option<f64>,
    /// Whether q, k and v have biases.
    pub input_bias: bool,
    /// Whether the output projection has one.
    pub output_bias: bool,
    /// Norms of queries and keys, where there are some.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// Rotation of queries and keys.
    pub rotary: Option<RotarySpec>,
    /// Positions that a token attends to on each side that it sees, its own included; all of them where absent. Of causal models
    /// that is the side before it, of others both.
    pub window: Option<usize>,
}

impl AttentionSpec {
    /// As the first transformers have it: as many key heads as query heads, biases everywhere, no rotation.
    pub fn plain(heads: usize, head_dim: usize) -> Self {
        AttentionSpec {
            heads,
            key_value_heads: heads,
            head_dim,
            score_scale: 1.0 / (head_dim as f64).sqrt(),
            score_cap: None,
            input_bias: true,
            output_bias: true,
            query_key_norm: None,
            rotary: None,
            window: None,
        }
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn key_width(&self) -> usize {
        self.key_value_heads * self.head_dim
    }
}

/// Gated short convolution of one layer: (b, c, x) = in(h); y = out(c · conv(b · x)), conv causal and depthwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Positions each output sees, its own included.
    pub taps: usize,
    /// Whether both projections and the convolution have biases.
    pub bias: bool,
}

/// The mixer of positions in one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    /// Attention.
    Attention(AttentionSpec),
    /// A gated short convolution.
    Conv(ConvSpec),
}

/// Feed-forward network of one layer: down(act(up(x))), or gated down(act(gate(x)) · up(x)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FfnSpec {
    /// Hidden width, of all experts together.
    pub width: usize,
    /// Whether there is a gate.
    pub gated: bool,
    /// The function.
    pub activation: Activation,
    /// Whether its matrices have biases.
    pub bias: bool,
    /// The experts that its channels belong to, where it is a mixture.
    pub mixture: Option<Mixture>,
}

impl FfnSpec {
    /// Without biases or experts.
    pub fn plain(width: usize, gated: bool, activation: Activation) -> Self {
        FfnSpec { width, gated, activation, bias: false, mixture: None }
    }

    /// Its experts; 1 where the network is one.
    pub fn experts(&self) -> usize {
        self.mixture.map_or(1, |mixture| mixture.experts)
    }
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// The mixer of positions.
    pub mixer: Mixer,
    /// Feed-forward network.
    pub ffn: FfnSpec,
    /// All its norms.
    pub norm: Norm,
    /// Where they stand.
    pub norm_placement: NormPlacement,
}

impl LayerSpec {
    /// The attention, where the layer has one.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::Conv(_) => None,
        }
    }
}

/// The state of a text that a classifier reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierState {
    /// That of the first token.
    First,
    /// The mean of all.
    Mean,
}

/// The head on the last hidden state.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Nothing: the model's output is the last hidden state.
    Hidden,
    /// Next-token logits.
    LanguageModel {
        /// Whether the token table is the head's weight.
        tied: bool,
        /// Whether there is a bias.
        bias: bool,
        /// Largest magnitude c of logits z, which become c · tanh(z / c).
        cap: Option<f64>,
    },
    /// Masked-token logits: dense, activation, norm, token table (tied) or its own matrix, bias.
    MaskedLanguageModel {
        /// The function of the dense layer.
        activation: Activation,
        /// The norm after it.
        norm: Norm,
        /// Whether the token table is the head's weight.
        tied: bool,
        /// Whether the dense layer and the last matrix have biases.
        biases: [bool; 2],
    },
    /// A dense layer with a function over a pooled state, its pooler, then a classifier.
    Classifier {
        /// The state that it reads.
        state: ClassifierState,
        /// The function of the pooler.
        function: Function,
        /// The norm after it, where there is one.
        norm: Option<Norm>,
        /// Whether the pooler has a bias.
        bias: bool,
        /// Names by id.
        labels: Vec<String>,
    },
    /// A classifier over the last token, which alone has seen the others where [`ModelSpec::causal`] holds, without a pooler.
    LastClassifier {
        /// Names by id.
        labels: Vec<String>,
    },
    /// A classifier over every token.
    TokenClassifier {
        /// Names by id.
        labels: Vec<String>,
    },
    /// Two scores of every token, that an answer starts there and that it ends there.
    Answers {
        /// What stands between the question and the text it is about: after the first of it tokens are of the second type. Absent
        /// where all are of the first.
        separator: Option<u32>,
    },
}

impl Head {
    /// A classifier over the first token, as most families have it.
    pub fn classifier(function: Function, labels: Vec<String>) -> Self {
        Head::Classifier { state: ClassifierState::First, function, norm: None, bias: true, labels }
    }

    /// The head of a masked language model, as most families have it.
    pub fn masked(activation: Activation, norm: Norm, tied: bool) -> Self {
        Head::MaskedLanguageModel { activation, norm, tied, biases: [true; 2] }
    }

    /// Names of the labels of a classifier, whether of texts or of tokens.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Head::Classifier { labels, .. } | Head::LastClassifier { labels } | Head::TokenClassifier { labels } => {
                Some(labels)
            }
            _ => None,
        }
    }

    /// The output in words.
    pub fn output(&self) -> &'static str {
        match self {
            Head::Hidden => "hidden states",
            Head::LanguageModel { .. } => "next-token logits",
            Head::MaskedLanguageModel { .. } => "masked-token logits",
            Head::Classifier { .. } | Head::LastClassifier { .. } => "logits of labels",
            Head::TokenClassifier { .. } => "logits of labels, token by token",
            Head::Answers { .. } => "scores of where an answer starts and ends",
        }
    }
}

/// How the hidden states of a text become one row, its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// That of the first token.
    First,
    /// Their mean.
    Mean,
    /// The largest of each column.
    Maximum,
    /// That of the last token.
    Last,
}

impl Pooling {
    /// As sentence-transformers calls it.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::First => "cls",
            Pooling::Mean => "mean",
            Pooling::Maximum => "max",
            Pooling::Last => "lasttoken",
        }
    }
}

/// The embedding of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Which hidden states count.
    pub pooling: Pooling,
    /// Whether it is scaled to length one.
    pub normalize: bool,
}

impl std::fmt::Display for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.pooling.name())?;
        f.write_str(if self.normalize { ", scaled to length one" } else { ", not scaled" })
    }
}

/// A model, without weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// `model_type` of its configuration.
    pub family: &'static str,
    /// Decoder or encoder.
    pub kind: ModelKind,
    /// Whether a position sees itself and those before it alone: of decoders, and of encoders that were made from one.
    pub causal: bool,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the tables and the norm of the embeddings: where it is below `hidden`, a projection follows them.
    pub embedding_width: usize,
    /// Most positions.
    pub context: usize,
    /// Rows of the token-type table; 0 where there is none.
    pub token_types: usize,
    /// How positions enter.
    pub positions: Positions,
    /// Factor on the token's embedding; 1 for most.
    pub embedding_scale: f32,
    /// Norm after the embeddings.
    pub embedding_norm: Option<Norm>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Norm after the last layer.
    pub final_norm: Option<Norm>,
    /// The head on top.
    pub head: Head,
    /// Tokens that the tokenizer puts before a text; a decoder's only, and none where the directory has no tokenizer.
    pub opening: Vec<u32>,
    /// Tokens that end a text, the first of them after every document of training.
    pub ends: Vec<u32>,
    /// How hidden states become the embedding of a text, where the files beside the configuration say; only of
    /// [`Head::Hidden`].
    pub embedding: Option<Embedding>,
    /// Most tokens of a text where the files beside the configuration allow fewer than `context`.
    pub longest_text: Option<usize>,
    /// Where a text may leave before the last layer: after how many layers an exit head stands, ascending, each from 1 to
    /// one less than there are.
    pub exits: Vec<usize>,
    /// What files have otherwise.
    pub stored: Stored,
}

/// How the files of a checkpoint differ from the weights that slmc holds of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stored {
    /// A factor of the configuration on what attention and the network of every layer add to the residual stream, which slmc
    /// holds in their last matrices.
    pub residual: f32,
    /// A factor of the configuration on the logits, which slmc holds in the norm after the last layer.
    pub logits: f32,
    /// Rows of the position table before that of the first token.
    pub leading_positions: usize,
}

impl Stored {
    /// As most families have it: no difference.
    pub const ALIKE: Stored = Stored { residual: 1.0, logits: 1.0, leading_positions: 0 };
}

impl ModelSpec {
    /// Whether embeddings are projected to the width of the residual stream.
    pub fn projects_embeddings(&self) -> bool {
        self.embedding_width != self.hidden
    }

    /// Whether a layer's network is a mixture of experts.
    pub fn has_experts(&self) -> bool {
        self.layers.iter().any(|layer| layer.ffn.mixture.is_some())
    }

    /// Most tokens of a text: of an artifact the context, unless another is asked for.
    pub fn text_context(&self) -> usize {
        self.longest_text.unwrap_or(self.context)
    }
}
