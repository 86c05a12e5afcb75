//! Names of parameters without strings: which matrix of which layer, and which of its parts. Ordered the way the
//! forward meets them (embeddings, layers, head), so that everything that walks a model walks it one way.
//! Flags, reports, quantized directories and artifacts use the displayed form (`layers.3.attn.q`).

mod parameter;

pub use parameter::{KeyMapPart, NormSite, ParameterId, Part};

use super::error::NameError;
use std::fmt;
use std::str::FromStr;

/// The part that a matrix plays in the model. The order of the variants is the order of the forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Token table, (vocabulary, hidden).
    TokenEmbedding,
    /// Learned positions, (context, hidden).
    PositionEmbedding,
    /// Token types (segments), (types, hidden).
    TypeEmbedding,
    /// From the width of the tables to that of the residual stream, (hidden, width of the tables).
    EmbeddingProjection,
    /// Numbers of the encoder's heads by how far a key is from its query, (buckets, heads).
    EncoderBias,
    /// The decoder's, (buckets, heads).
    DecoderBias,
    /// Query projection, (heads · head_dim, hidden).
    Query,
    /// Key projection, (key_value_heads · head_dim, hidden).
    Key,
    /// Value projection, (key_value_heads · head_dim, hidden).
    Value,
    /// Attention output projection, (hidden, heads · head_dim).
    Output,
    /// Query projection of attention to the encoder's states, (heads · head_dim, hidden).
    CrossQuery,
    /// Key projection of the encoder's states, (key_value_heads · head_dim, hidden).
    CrossKey,
    /// Value projection of the encoder's states, (key_value_heads · head_dim, hidden).
    CrossValue,
    /// Output projection of attention to the encoder's states, (hidden, heads · head_dim).
    CrossOutput,
    /// Input projection of a short convolution, (3 · hidden, hidden): the two gates, then the values between them.
    ConvIn,
    /// Output projection of a short convolution, (hidden, hidden).
    ConvOut,
    /// Scores of the experts of a feed-forward network, (experts, hidden).
    Router,
    /// Gate of a gated feed-forward network, (width, hidden).
    Gate,
    /// First matrix of the feed-forward network, (width, hidden).
    Up,
    /// Last matrix of the feed-forward network, (hidden, width).
    Down,
    /// Dense layer over the first token of a layer's output, before its exit classifier, (hidden, hidden).
    ExitPooler,
    /// Sequence classifier over a layer's output, (labels, hidden).
    ExitClassifier,
    /// Dense layer before the head of a masked language model, (hidden, hidden).
    MlmTransform,
    /// Language-model head, (vocabulary, hidden); absent as a weight where the token table is tied to it.
    LmHead,
    /// Dense layer with tanh over the first token, (hidden, hidden).
    Pooler,
    /// Sequence classifier, (labels, hidden).
    Classifier,
}

impl Role {
    /// Every role, in forward order.
    pub const ALL: [Role; 26] = [
        Role::TokenEmbedding,
        Role::PositionEmbedding,
        Role::TypeEmbedding,
        Role::EmbeddingProjection,
        Role::EncoderBias,
        Role::DecoderBias,
        Role::Query,
        Role::Key,
        Role::Value,
        Role::Output,
        Role::CrossQuery,
        Role::CrossKey,
        Role::CrossValue,
        Role::CrossOutput,
        Role::ConvIn,
        Role::ConvOut,
        Role::Router,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::ExitPooler,
        Role::ExitClassifier,
        Role::MlmTransform,
        Role::LmHead,
        Role::Pooler,
        Role::Classifier,
    ];

    /// The name within its layer or group: `attn.q`, `embed.token`.
    pub fn name(self) -> &'static str {
        match self {
            Role::TokenEmbedding => "embed.token",
            Role::PositionEmbedding => "embed.position",
            Role::TypeEmbedding => "embed.type",
            Role::EmbeddingProjection => "embed.projection",
            Role::EncoderBias => "embed.encoder_bias",
            Role::DecoderBias => "embed.decoder_bias",
            Role::Query => "attn.q",
            Role::Key => "attn.k",
            Role::Value => "attn.v",
            Role::Output => "attn.o",
            Role::CrossQuery => "attn.cross_q",
            Role::CrossKey => "attn.cross_k",
            Role::CrossValue => "attn.cross_v",
            Role::CrossOutput => "attn.cross_o",
            Role::ConvIn => "conv.in",
            Role::ConvOut => "conv.out",
            Role::Router => "ffn.router",
            Role::Gate => "ffn.gate",
            Role::Up => "ffn.up",
            Role::Down => "ffn.down",
            Role::ExitPooler => "exit.pooler",
            Role::ExitClassifier => "exit.classifier",
            Role::MlmTransform => "head.mlm_transform",
            Role::LmHead => "head.lm",
            Role::Pooler => "head.pooler",
            Role::Classifier => "head.classifier",
        }
    }

    /// Whether matrices of this role live in a layer.
    pub fn in_layer(self) -> bool {
        matches!(self.class(), Class::Attention | Class::Conv | Class::Ffn | Class::Exit)
    }

    /// The class a report sums over, and that the pattern aliases name.
    pub fn class(self) -> Class {
        match self {
            Role::TokenEmbedding
            | Role::PositionEmbedding
            | Role::TypeEmbedding
            | Role::EmbeddingProjection
            | Role::EncoderBias
            | Role::DecoderBias => Class::Embedding,
            Role::Query
            | Role::Key
            | Role::Value
            | Role::Output
            | Role::CrossQuery
            | Role::CrossKey
            | Role::CrossValue
            | Role::CrossOutput => Class::Attention,
            Role::ConvIn | Role::ConvOut => Class::Conv,
            Role::Router | Role::Gate | Role::Up | Role::Down => Class::Ffn,
            Role::ExitPooler | Role::ExitClassifier => Class::Exit,
            Role::MlmTransform | Role::LmHead | Role::Pooler | Role::Classifier => Class::Head,
        }
    }
}

/// Groups of roles that reports sum over; their names are the pattern aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `embed.*`
    Embedding,
    /// `layers.*.attn.*`
    Attention,
    /// `layers.*.conv.*`
    Conv,
    /// `layers.*.ffn.*`
    Ffn,
    /// `layers.*.exit.*`
    Exit,
    /// `head.*`
    Head,
}

impl Class {
    /// Every class, in forward order.
    pub const ALL: [Class; 6] = [Class::Embedding, Class::Attention, Class::Conv, Class::Ffn, Class::Exit, Class::Head];

    /// The alias patterns use.
    pub fn name(self) -> &'static str {
        match self {
            Class::Embedding => "embedding",
            Class::Attention => "attention",
            Class::Conv => "conv",
            Class::Ffn => "ffn",
            Class::Exit => "exit",
            Class::Head => "head",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One matrix of the model: `layers.3.attn.q`, `embed.token`, `head.lm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearId {
    /// The layer, where the role lives in one.
    pub layer: Option<u16>,
    /// Its part in the model.
    pub role: Role,
}

impl LinearId {
    /// A matrix outside the layers (embedding or head).
    pub fn global(role: Role) -> Self {
        debug_assert!(!role.in_layer());
        LinearId { layer: None, role }
    }

    /// A matrix of layer `layer`.
    pub fn layer(layer: usize, role: Role) -> Self {
        debug_assert!(role.in_layer());
        LinearId { layer: Some(layer as u16), role }
    }

    /// (before, within or after the layers; layer; role): the order in which the forward meets matrices.
    fn rank(self) -> (u8, u16, Role) {
        match (self.layer, self.role.class()) {
            (Some(layer), _) => (1, layer, self.role),
            (None, Class::Embedding) => (0, 0, self.role),
            (None, _) => (2, 0, self.role),
        }
    }
}

impl PartialOrd for LinearId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LinearId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl fmt::Display for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layers.{layer}.{}", self.role.name()),
            None => f.write_str(self.role.name()),
        }
    }
}

impl FromStr for LinearId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let unknown = || NameError::Matrix(text.to_owned());
        let (layer, name) = match text.strip_prefix("layers.") {
            Some(rest) => {
                let (number, name) = rest.split_once('.').ok_or_else(unknown)?;
                (Some(number.parse::<u16>().map_err(|_| unknown())?), name)
            }
            None => (None, text),
        };
        let role = Role::ALL.into_iter().find(|role| role.name() == name).ok_or_else(unknown)?;
        if role.in_layer() != layer.is_some() {
            return Err(unknown());
        }
        Ok(LinearId { layer, role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_order_follows_the_forward() {
        let mut ids = vec![
            LinearId::global(Role::LmHead),
            LinearId::layer(11, Role::Query),
            LinearId::layer(2, Role::Down),
            LinearId::layer(2, Role::ConvOut),
            LinearId::global(Role::TokenEmbedding),
        ];
        for id in &ids {
            assert_eq!(id.to_string().parse::<LinearId>().as_ref(), Ok(id));
        }
        ids.sort();
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["embed.token", "layers.2.conv.out", "layers.2.ffn.down", "layers.11.attn.q", "head.lm"]);
        for wrong in ["attn.q", "layers.x.attn.q", "layers.1.embed.token", "head.lmx", ""] {
            assert!(wrong.parse::<LinearId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_role_has_a_name_a_class_and_its_place_in_the_order() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        for role in Role::ALL {
            let id = if role.in_layer() { LinearId::layer(7, role) } else { LinearId::global(role) };
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(Class::ALL.contains(&role.class()));
            // The name's stem tells the class, so that a glob over it selects the same matrices as the alias.
            let stem = match role.class() {
                Class::Embedding => "embed.",
                Class::Attention => "attn.",
                Class::Conv => "conv.",
                Class::Ffn => "ffn.",
                Class::Exit => "exit.",
                Class::Head => "head.",
            };
            assert!(role.name().starts_with(stem), "{}", role.name());
        }
    }
}
