//! Plain data that describes a model: what the one f32 forward, the byte counter and the lowering to an artifact need,
//! and nothing of any file format. Every shape is stated here once, by [`ModelSpec::parameters`].

use super::id::{LinearId, NormSite, ParameterId, Part, Role};

/// Decoders attend to the past and keep a cache; encoders see the whole sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Causal language model.
    Decoder,
    /// Bidirectional encoder.
    Encoder,
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
}

/// Frequencies of rotary positions: element i is paired with i + head_dim/2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotarySpec {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Llama 3's stretching of low frequencies.
    pub scaling: Option<Llama3Scaling>,
}

/// inv · (mix + (1 − mix) / factor), mix = clip((original / wavelength − low) / (high − low), 0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// How much the lowest frequencies are stretched.
    pub factor: f64,
    /// Wavelengths above original / low are stretched whole.
    pub low_frequency_factor: f64,
    /// Wavelengths below original / high are left alone.
    pub high_frequency_factor: f64,
    /// Context the checkpoint was first trained for.
    pub original_context: usize,
}

impl RotarySpec {
    /// Angular frequencies of the pairs of a head, (head_dim / 2), by `libm`: the same on every build machine.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let mut out = Vec::with_capacity(head_dim / 2);
        for pair in 0..head_dim / 2 {
            let mut frequency = libm::pow(self.theta, -((2 * pair) as f64) / head_dim as f64);
            if let Some(scaling) = self.scaling {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                let (low, high) = (scaling.low_frequency_factor, scaling.high_frequency_factor);
                let mix = ((scaling.original_context as f64 / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                frequency *= mix + (1.0 - mix) / scaling.factor;
            }
            out.push(frequency);
        }
        out
    }
}

/// How the model knows positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Rotation of queries and keys, by each layer's [`AttentionSpec::rotary`].
    Rotary,
    /// A table added to the token embedding.
    Learned,
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
    /// Whether q, k and v have biases.
    pub input_bias: bool,
    /// Whether the output projection has one.
    pub output_bias: bool,
    /// Whether queries and keys are normed over head_dim, head by head and before rotation, by the layer's norm.
    pub query_key_norm: bool,
    /// Rotation of queries and keys.
    pub rotary: Option<RotarySpec>,
    /// Positions a decoder's token attends to, its own included; all before it where absent.
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
            input_bias: true,
            output_bias: true,
            query_key_norm: false,
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

/// What mixes positions in one layer.
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
    /// Hidden width.
    pub width: usize,
    /// Whether there is a gate.
    pub gated: bool,
    /// The function.
    pub activation: Activation,
    /// Whether its matrices have biases.
    pub bias: bool,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpec {
    /// What mixes positions.
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

    /// Every norm of the layer with its width, in forward order.
    fn norms(&self, hidden: usize) -> Vec<(NormSite, usize)> {
        let around = self.norm_placement == NormPlacement::Around;
        let mut out = Vec::new();
        match &self.mixer {
            Mixer::Attention(attention) => {
                out.push((NormSite::Attention, hidden));
                if attention.query_key_norm {
                    out.extend([(NormSite::Query, attention.head_dim), (NormSite::Key, attention.head_dim)]);
                }
                out.extend(around.then_some((NormSite::AttentionOutput, hidden)));
            }
            Mixer::Conv(_) => out.push((NormSite::Conv, hidden)),
        }
        out.push((NormSite::Ffn, hidden));
        out.extend(around.then_some((NormSite::FfnOutput, hidden)));
        out
    }
}

/// What stands on the last hidden state.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// Nothing: the model's output is the last hidden state.
    Hidden,
    /// Next-token logits.
    LanguageModel {
        /// Whether the token table is the head's weight.
        tied: bool,
    },
    /// Masked-token logits: dense, activation, norm, token table (tied) or its own matrix, bias.
    MaskedLanguageModel {
        /// Of the transform.
        activation: Activation,
        /// Of the transform.
        norm: Norm,
        /// Whether the token table is the head's weight.
        tied: bool,
    },
    /// tanh pooler over the first token, then a classifier.
    Classifier {
        /// Names by id.
        labels: Vec<String>,
    },
}

/// A model, without weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// `model_type` of its configuration.
    pub family: &'static str,
    /// Decoder or encoder.
    pub kind: ModelKind,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
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
    /// What stands on top.
    pub head: Head,
    /// Token that opens a sequence.
    pub bos: Option<u32>,
    /// Tokens that end one.
    pub eos: Vec<u32>,
}

/// One tensor a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterShape {
    /// Which.
    pub id: ParameterId,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl ModelSpec {
    /// Whether the LM head reads the token table.
    pub fn tied_head(&self) -> bool {
        matches!(self.head, Head::LanguageModel { tied: true } | Head::MaskedLanguageModel { tied: true, .. })
    }

    /// Columns of the output: vocabulary, labels or hidden width.
    pub fn output_width(&self) -> usize {
        match &self.head {
            Head::Hidden => self.hidden,
            Head::LanguageModel { .. } | Head::MaskedLanguageModel { .. } => self.vocabulary,
            Head::Classifier { labels } => labels.len(),
        }
    }

    /// Every matrix with its (rows, columns), in forward order; a tied head is not listed apart.
    pub fn matrices(&self) -> Vec<(LinearId, usize, usize)> {
        let mut out = Vec::new();
        let hidden = self.hidden;
        out.push((LinearId::global(Role::TokenEmbedding), self.vocabulary, hidden));
        if self.positions == Positions::Learned {
            out.push((LinearId::global(Role::PositionEmbedding), self.context, hidden));
        }
        if self.token_types > 0 {
            out.push((LinearId::global(Role::TypeEmbedding), self.token_types, hidden));
        }
        for (n, layer) in self.layers.iter().enumerate() {
            let ffn = &layer.ffn;
            match &layer.mixer {
                Mixer::Attention(attention) => {
                    out.push((LinearId::layer(n, Role::Query), attention.query_width(), hidden));
                    out.push((LinearId::layer(n, Role::Key), attention.key_width(), hidden));
                    out.push((LinearId::layer(n, Role::Value), attention.key_width(), hidden));
                    out.push((LinearId::layer(n, Role::Output), hidden, attention.query_width()));
                }
                Mixer::Conv(_) => {
                    out.push((LinearId::layer(n, Role::ConvIn), 3 * hidden, hidden));
                    out.push((LinearId::layer(n, Role::ConvOut), hidden, hidden));
                }
            }
            if ffn.gated {
                out.push((LinearId::layer(n, Role::Gate), ffn.width, hidden));
            }
            out.push((LinearId::layer(n, Role::Up), ffn.width, hidden));
            out.push((LinearId::layer(n, Role::Down), hidden, ffn.width));
        }
        match &self.head {
            Head::Hidden => {}
            Head::LanguageModel { tied } => {
                if !tied {
                    out.push((LinearId::global(Role::LmHead), self.vocabulary, hidden));
                }
            }
            Head::MaskedLanguageModel { tied, .. } => {
                out.push((LinearId::global(Role::MlmTransform), hidden, hidden));
                if !tied {
                    out.push((LinearId::global(Role::LmHead), self.vocabulary, hidden));
                }
            }
            Head::Classifier { labels } => {
                out.push((LinearId::global(Role::Pooler), hidden, hidden));
                out.push((LinearId::global(Role::Classifier), labels.len(), hidden));
            }
        }
        out
    }

    /// Whether the matrix has a bias.
    pub fn has_bias(&self, id: LinearId) -> bool {
        match (id.layer, id.role) {
            (Some(n), role) => {
                let layer = &self.layers[n as usize];
                match (role, &layer.mixer) {
                    (Role::Query | Role::Key | Role::Value, Mixer::Attention(attention)) => attention.input_bias,
                    (Role::Output, Mixer::Attention(attention)) => attention.output_bias,
                    (Role::ConvIn | Role::ConvOut, Mixer::Conv(conv)) => conv.bias,
                    _ => layer.ffn.bias,
                }
            }
            (None, Role::LmHead) => matches!(self.head, Head::MaskedLanguageModel { .. }),
            (None, role) => matches!(role, Role::MlmTransform | Role::Pooler | Role::Classifier),
        }
    }

    /// Every norm with its place and width: (layer, site, norm, width), in forward order.
    pub fn norms(&self) -> Vec<(Option<u16>, NormSite, Norm, usize)> {
        let hidden = self.hidden;
        let mut out = Vec::new();
        out.extend(self.embedding_norm.map(|norm| (None, NormSite::Embedding, norm, hidden)));
        for (n, layer) in self.layers.iter().enumerate() {
            out.extend(layer.norms(hidden).into_iter().map(|(site, width)| (Some(n as u16), site, layer.norm, width)));
        }
        out.extend(self.final_norm.map(|norm| (None, NormSite::Final, norm, hidden)));
        if let Head::MaskedLanguageModel { norm, .. } = self.head {
            out.push((None, NormSite::MlmTransform, norm, hidden));
        }
        out
    }

    /// Whether a parameter is the weight of a [`NormKind::RmsOnePlus`] norm, to which artifacts add one.
    pub fn counts_from_one(&self, id: ParameterId) -> bool {
        let ParameterId::Norm(layer, site, Part::Weight) = id else { return false };
        let norm = match (layer, site) {
            (Some(n), _) => self.layers.get(n as usize).map(|layer| layer.norm),
            (None, NormSite::Embedding) => self.embedding_norm,
            (None, NormSite::Final) => self.final_norm,
            (None, _) => None,
        };
        norm.is_some_and(|norm| norm.kind == NormKind::RmsOnePlus)
    }

    /// Every tensor a checkpoint of this model must hold, with its shape. Key maps are calibration results and not
    /// among them.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        let mut out = Vec::new();
        for (id, rows, columns) in self.matrices() {
            out.push(ParameterShape { id: ParameterId::weight(id), shape: vec![rows, columns] });
            if self.has_bias(id) {
                out.push(ParameterShape { id: ParameterId::bias(id), shape: vec![rows] });
            }
        }
        let head = LinearId::global(Role::LmHead);
        if self.tied_head() && self.has_bias(head) {
            out.push(ParameterShape { id: ParameterId::bias(head), shape: vec![self.vocabulary] });
        }
        for (layer, site, norm, width) in self.norms() {
            out.push(ParameterShape { id: ParameterId::Norm(layer, site, Part::Weight), shape: vec![width] });
            if norm.kind == NormKind::Layer {
                out.push(ParameterShape { id: ParameterId::Norm(layer, site, Part::Bias), shape: vec![width] });
            }
        }
        for (n, layer) in self.layers.iter().enumerate() {
            let Mixer::Conv(conv) = &layer.mixer else { continue };
            let kernel = |part| ParameterId::Kernel(n as u16, part);
            out.push(ParameterShape { id: kernel(Part::Weight), shape: vec![self.hidden, 1, conv.taps] });
            if conv.bias {
                out.push(ParameterShape { id: kernel(Part::Bias), shape: vec![self.hidden] });
            }
        }
        out
    }

    /// Number of weights, a tied tensor once.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|p| p.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}
