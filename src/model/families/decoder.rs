//! What the families of pre-norm decoders with RMS norms, rotary positions, grouped-query attention and a gated network
//! have in common: the keys of their configurations, and the tensor names that began with Llama's.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::fewer_layers::{alike, counted};
use super::narrower::WidthKeys;
use super::rotary::context;
use super::{Family, HeadOrder, TensorName, architecture, as_encoder, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement,
    Positions, RotarySpec, Stored,
};
use serde_json::{Value, json};

/// Keys of their widths: the width of a head may be stated.
pub(super) const WIDTHS: WidthKeys = WidthKeys {
    key_value_heads: Some("num_key_value_heads"),
    head_dim: Some("head_dim"),
    ..WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size")
};

/// A family of one class with Llama's tensors and layers; what it has of its own takes the place of these.
pub(super) const fn family(
    model_type: &'static str,
    heads: &'static [(&'static [&'static str], &'static str)],
    defaults: &'static [(&'static str, ClassDefault)],
    spec: fn(&Config) -> Result<ModelSpec, ConfigError>,
) -> Family {
    Family {
        model_type,
        prefixes: &["model.", ""],
        token_table: "embed_tokens.weight",
        defaults,
        aliases: &[],
        spec,
        source,
        ignored,
        copies,
        layer_count: "num_hidden_layers",
        with_layers: alike,
        widths: WIDTHS,
        classifier: None,
        heads,
    }
}

/// The class of a decoder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The causal language model, which an absent `architectures` stands for.
    Language,
    /// The sequence classifier over the last token.
    Classifier,
}

/// Which of a family's two classes `architectures` names.
pub(super) fn class(
    config: &Config,
    family: &'static str,
    language: &str,
    classifier: &str,
) -> Result<Class, ConfigError> {
    match architecture(config)? {
        None => Ok(Class::Language),
        Some(name) if name == language => Ok(Class::Language),
        Some(name) if name == classifier => Ok(Class::Classifier),
        Some(_) => Err(config.unsupported("architectures", family, &format!("{language}, {classifier}"))),
    }
}

impl Class {
    /// The model of this class. A classifier's rows are those of a decoder's layers, read as an encoder's are.
    pub(super) fn of(self, config: &Config, spec: ModelSpec) -> Result<ModelSpec, ConfigError> {
        match self {
            Class::Language => Ok(spec),
            Class::Classifier => {
                let head = Head::LastClassifier { labels: labels(config)? };
                Ok(ModelSpec { head, ..as_encoder(spec) })
            }
        }
    }
}

/// Refuses what none of these families computes.
pub(super) fn refuse_foreign(config: &Config, family: &'static str) -> Result<(), ConfigError> {
    refuse_unless(config, family, &[("no_rope_layers", Value::Null)])?;
    refuse_foreign_but_positions(config, family)
}

/// The same of a family that may have layers without positions.
pub(super) fn refuse_foreign_but_positions(config: &Config, family: &'static str) -> Result<(), ConfigError> {
    let foreign = [
        ("attn_logit_softcapping", Value::Null),
        ("final_logit_softcapping", Value::Null),
        ("clip_qkv", Value::Null),
        ("alibi", json!(false)),
        ("add_cross_attention", json!(false)),
    ];
    refuse_unless(config, family, &foreign)
}

/// Refuses another activation than `name` under `key`.
pub(super) fn require_activation(
    config: &Config,
    family: &'static str,
    key: &str,
    name: &str,
) -> Result<(), ConfigError> {
    match config.optional_text(key)? {
        Some(found) if found != name => Err(config.unsupported(key, family, name)),
        _ => Ok(()),
    }
}

/// Heads and their width, without biases, norms or window. Without `head_dim` the heads share the hidden width.
pub(super) fn attention(config: &Config, rotary: RotarySpec) -> Result<AttentionSpec, ConfigError> {
    let heads = config.size("num_attention_heads")?;
    let key_value_heads = config.optional_size("num_key_value_heads")?.unwrap_or(heads);
    if !heads.is_multiple_of(key_value_heads) {
        return Err(config.wrong("num_key_value_heads", &format!("a divisor of num_attention_heads, {heads}")));
    }
    let head_dim = head_dim(config)?;
    if !head_dim.is_multiple_of(2) {
        return Err(config.wrong("head_dim", &format!("an even width (it is {head_dim}), for rotary positions")));
    }
    Ok(AttentionSpec {
        key_value_heads,
        input_bias: false,
        output_bias: false,
        rotary: Some(rotary),
        ..AttentionSpec::plain(heads, head_dim)
    })
}

/// Width of one head: `head_dim`, else the heads share the hidden width.
pub(super) fn head_dim(config: &Config) -> Result<usize, ConfigError> {
    match config.optional_size("head_dim")? {
        Some(width) => Ok(width),
        None => {
            head_width(config, "num_attention_heads", config.size("hidden_size")?, config.size("num_attention_heads")?)
        }
    }
}

/// A pre-norm layer with a gated network without biases.
pub(super) fn layer(attention: AttentionSpec, norm: Norm, width: usize) -> LayerSpec {
    LayerSpec {
        mixer: Mixer::Attention(attention),
        ffn: FfnSpec::plain(width, true, Activation::Silu),
        norm,
        norm_placement: NormPlacement::Pre,
    }
}

/// The RMS norm with the epsilon under `key`.
pub(super) fn rms_norm(config: &Config, key: &str) -> Result<Norm, ConfigError> {
    Ok(Norm { kind: NormKind::Rms, epsilon: config.positive(key)? })
}

/// The LayerNorm with the epsilon under `key`.
pub(super) fn layer_norm(config: &Config, key: &str) -> Result<Norm, ConfigError> {
    Ok(Norm { kind: NormKind::Layer, epsilon: config.positive(key)? })
}

/// The whole model of these layers.
pub(super) fn model(
    config: &Config,
    family: &'static str,
    layers: Vec<LayerSpec>,
    norm: Norm,
) -> Result<ModelSpec, ConfigError> {
    let vocabulary = config.size("vocab_size")?;
    Ok(ModelSpec {
        family,
        kind: ModelKind::Decoder,
        causal: true,
        vocabulary,
        hidden: config.size("hidden_size")?,
        embedding_width: config.size("hidden_size")?,
        context: context(config)?,
        token_types: 0,
        positions: Positions::Rotary,
        embedding_scale: 1.0,
        embedding_norm: None,
        layers,
        final_norm: Some(norm),
        head: Head::LanguageModel { tied: config.flag("tie_word_embeddings")?, bias: false, cap: None },
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
        exits: Vec::new(),
        stored: Stored::ALIKE,
    })
}

/// `sliding_window`; null is none, and so is one that covers every position.
pub(super) fn window(config: &Config) -> Result<Option<usize>, ConfigError> {
    let context = config.size("max_position_embeddings")?;
    Ok(config.optional_size("sliding_window")?.filter(|&window| window < context))
}

/// `layer_types`, one of `known` for each layer; `None` where the key is absent.
pub(super) fn layer_types(
    config: &Config,
    family: &'static str,
    known: [&'static str; 2],
) -> Result<Option<Vec<&'static str>>, ConfigError> {
    let Some(value) = config.value("layer_types") else { return Ok(None) };
    let layers = layer_count(config, "num_hidden_layers")?;
    let list = value.as_array().filter(|list| list.len() == layers);
    let list =
        list.ok_or_else(|| config.wrong("layer_types", &format!("a list of {layers} names, one for each layer")))?;
    let kind = |value: &Value| known.into_iter().find(|name| value.as_str() == Some(name));
    let kinds: Option<Vec<&'static str>> = list.iter().map(kind).collect();
    kinds.map(Some).ok_or_else(|| config.unsupported("layer_types", family, &known.join(", ")))
}

/// The windows of Qwen's layers: by `layer_types`, or from `max_window_layers` on; none unless `use_sliding_window`.
pub(super) fn qwen_windows(config: &Config, family: &'static str) -> Result<Vec<Option<usize>>, ConfigError> {
    let layers = layer_count(config, "num_hidden_layers")?;
    let types = layer_types(config, family, ["full_attention", "sliding_attention"])?;
    let sliding = |layer: usize, full: usize| match &types {
        Some(types) => types[layer] == "sliding_attention",
        None => layer >= full,
    };
    if !config.flag("use_sliding_window")? {
        return match types.is_some_and(|types| types.contains(&"sliding_attention")) {
            true => Err(config.unsupported("layer_types", family, "full_attention where use_sliding_window is false")),
            false => Ok(vec![None; layers]),
        };
    }
    let window = window(config)?;
    let full = qwen_full_layers(config)?;
    Ok((0..layers).map(|layer| window.filter(|_| sliding(layer, full))).collect())
}

/// `max_window_layers`: how many of Qwen's layers, from the first on, attend to everything. It may be 0.
fn qwen_full_layers(config: &Config) -> Result<usize, ConfigError> {
    let count = config.value("max_window_layers").and_then(Value::as_u64);
    let count = count.ok_or_else(|| config.wrong("max_window_layers", "a number of layers"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Qwen with fewer layers: where layers slide, `max_window_layers` counts the kept ones among the first.
pub(super) fn qwen_with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let mut map = counted(config, "num_hidden_layers", kept);
    if config.flag("use_sliding_window")? {
        let full = qwen_full_layers(config)?;
        let kept_full = kept.iter().filter(|&&layer| layer < full).count();
        map.insert("max_window_layers".to_owned(), json!(kept_full));
    }
    Ok(Config::from_map(config.file(), map))
}

/// Llama's tensor names, and those its successors added; of heads that turn in part with their order.
pub(super) fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    Some(names(id)?.by_heads(head_order(spec, id)))
}

/// The order of the rows of queries and keys.
pub(super) fn head_order(spec: &ModelSpec, id: ParameterId) -> Option<HeadOrder> {
    let (layer, query) = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role: Role::Query }, _) => (layer, true),
        ParameterId::Linear(LinearId { layer: Some(layer), role: Role::Key }, _) => (layer, false),
        _ => return None,
    };
    let attention = spec.layers.get(layer as usize)?.attention()?;
    HeadOrder::of(attention, if query { attention.query_width() } else { attention.key_width() })
}

fn names(id: ParameterId) -> Option<TensorName> {
    let name = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Query => "self_attn.q_proj",
                Role::Key => "self_attn.k_proj",
                Role::Value => "self_attn.v_proj",
                Role::Output => "self_attn.o_proj",
                Role::Gate => "mlp.gate_proj",
                Role::Up => "mlp.up_proj",
                Role::Down => "mlp.down_proj",
                _ => return None,
            };
            format!("layers.{layer}.{matrix}.{}", part.name())
        }
        ParameterId::Linear(LinearId { layer: None, role: Role::TokenEmbedding }, part) => {
            format!("embed_tokens.{}", part.name())
        }
        ParameterId::Linear(LinearId { layer: None, role: Role::LmHead }, part) => {
            return Some(TensorName::bare(&format!("lm_head.{}", part.name())));
        }
        ParameterId::Linear(LinearId { layer: None, role: Role::Classifier }, part) => {
            return Some(TensorName::bare(&format!("score.{}", part.name())));
        }
        ParameterId::Norm(Some(layer), site, part) => {
            let norm = match site {
                NormSite::Attention => "input_layernorm",
                NormSite::Query => "self_attn.q_norm",
                NormSite::Key => "self_attn.k_norm",
                NormSite::Ffn => "post_attention_layernorm",
                _ => return None,
            };
            format!("layers.{layer}.{norm}.{}", part.name())
        }
        ParameterId::Norm(None, NormSite::Final, part) => format!("norm.{}", part.name()),
        _ => return None,
    };
    Some(TensorName::prefixed(name))
}

/// Frequencies that old checkpoints carry.
pub(super) fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name == "rotary_emb.inv_freq"
}

/// The head of a tied model, which some files hold again.
pub(super) fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    if !spec.tied_head() {
        return Vec::new();
    }
    vec![(TensorName::bare("lm_head.weight"), ParameterId::weight(LinearId::global(Role::TokenEmbedding)))]
}
