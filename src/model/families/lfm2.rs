//! LFM2: gated short convolutions in most layers, attention with norms on queries and keys in the others, and a gated
//! SiLU network in all. Its norm after the last layer is called `embedding_norm`.

use super::class_defaults::ClassDefault;
use super::decoder::{self, copies, ignored};
use super::fewer_layers::counted;
use super::narrower::WidthKeys;
use super::rotary::rotary;
use super::{Family, TensorName, layer_count, require_architecture};
use crate::disk::config::MAX_SIZE;
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{AttentionSpec, ConvSpec, LayerSpec, Mixer, ModelSpec, QueryKeyNorm};
use serde_json::Value;

const NAME: &str = "lfm2";
const ARCHITECTURE: &str = "Lfm2ForCausalLM";
const ATTENTION: &str = "full_attention";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 15] = [
    ("vocab_size", ClassDefault::Size(65536)),
    ("hidden_size", ClassDefault::Size(2560)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("num_key_value_heads", ClassDefault::Size(8)),
    ("intermediate_size", ClassDefault::Size(12288)),
    ("max_position_embeddings", ClassDefault::Count(128_000)),
    ("norm_eps", ClassDefault::Number(1e-5)),
    ("conv_L_cache", ClassDefault::Count(3)),
    ("conv_bias", ClassDefault::Flag(false)),
    ("block_auto_adjust_ff_dim", ClassDefault::Flag(true)),
    ("block_ffn_dim_multiplier", ClassDefault::Number(1.0)),
    ("block_multiple_of", ClassDefault::Count(256)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    token_table: "embed_tokens.weight",
    defaults: &DEFAULTS,
    aliases: &[("tie_embedding", "tie_word_embeddings")],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers,
    widths: WidthKeys {
        hidden_copies: &["block_dim", "conv_dim", "conv_dim_out"],
        ffn_copies: &["block_ff_dim"],
        ffn_adjusted: Some("block_auto_adjust_ff_dim"),
        ..decoder::WIDTHS
    },
    classifier: None,
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::refuse_foreign(config, NAME)?;
    let hidden = config.size("hidden_size")?;
    for key in ["block_dim", "conv_dim", "conv_dim_out"] {
        if config.optional_size(key)?.is_some_and(|width| width != hidden) {
            return Err(config.unsupported(key, NAME, &format!("hidden_size, {hidden}")));
        }
    }
    // The key of the first checkpoints, which may stand beside the later one.
    if config.value("theta").zip(config.value("rope_theta")).is_some_and(|(first, later)| first != later) {
        return Err(config.wrong("theta", "what rope_theta says; remove either"));
    }
    let theta = config.optional_positive("theta")?.unwrap_or(1_000_000.0);
    let attention = decoder::attention(config, rotary(config, NAME, theta)?)?;
    let attention = Mixer::Attention(AttentionSpec { query_key_norm: Some(QueryKeyNorm::Heads), ..attention });
    let conv = Mixer::Conv(ConvSpec { taps: config.size("conv_L_cache")?, bias: config.flag("conv_bias")? });
    let norm = decoder::rms_norm(config, "norm_eps")?;
    let width = inner_width(config)?;
    let layer = |attends: bool| {
        let mixer = if attends { attention } else { conv };
        LayerSpec { mixer, ..decoder::layer(AttentionSpec::plain(1, 1), norm, width) }
    };
    let layers = attention_layers(config)?.into_iter().map(layer).collect();
    decoder::model(config, NAME, layers, norm)
}

/// Which layers attend: by `layer_types`, or by `full_attn_idxs`, or all.
fn attention_layers(config: &Config) -> Result<Vec<bool>, ConfigError> {
    let layers = layer_count(config, "num_hidden_layers")?;
    if let Some(types) = decoder::layer_types(config, NAME, [ATTENTION, "conv"])? {
        return Ok(types.into_iter().map(|kind| kind == ATTENTION).collect());
    }
    let Some(value) = config.value("full_attn_idxs") else { return Ok(vec![true; layers]) };
    let index = |value: &Value| value.as_u64().filter(|&index| index < layers as u64);
    let indices: Option<Vec<u64>> = value.as_array().and_then(|list| list.iter().map(index).collect());
    let indices =
        indices.ok_or_else(|| config.wrong("full_attn_idxs", &format!("a list of layers from 0 to {}", layers - 1)))?;
    Ok((0..layers as u64).map(|layer| indices.contains(&layer)).collect())
}

/// With fewer layers, `full_attn_idxs` numbers the kept ones anew.
fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let mut map = counted(config, "num_hidden_layers", kept);
    if let Some(Value::Array(attend)) = map.get_mut("full_attn_idxs") {
        let attends = |layer: usize| attend.iter().any(|index| index.as_u64() == Some(layer as u64));
        *attend = (0..kept.len()).filter(|&place| attends(kept[place])).map(Value::from).collect();
    }
    Ok(Config::from_map(config.file(), map))
}

/// Width of the feed-forward network: `intermediate_size` (or `block_ff_dim`), with `block_auto_adjust_ff_dim` two thirds
/// of it, times `block_ffn_dim_multiplier`, rounded up to `block_multiple_of`.
fn inner_width(config: &Config) -> Result<usize, ConfigError> {
    let width = match config.optional_size("block_ff_dim")? {
        Some(width) => width,
        None => config.size("intermediate_size")?,
    };
    if !config.flag("block_auto_adjust_ff_dim")? {
        return Ok(width);
    }
    let third = 2 * width / 3;
    let multiplier = config.positive("block_ffn_dim_multiplier")?;
    let multiple = config.size("block_multiple_of")?;
    let scaled = (multiplier * third as f64) as usize;
    match scaled.checked_next_multiple_of(multiple) {
        Some(width) if (1..=MAX_SIZE).contains(&width) => Ok(width),
        _ => Err(config.wrong("block_ffn_dim_multiplier", "a factor that leaves a width in range")),
    }
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let name = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Output => "self_attn.out_proj",
                Role::ConvIn => "conv.in_proj",
                Role::ConvOut => "conv.out_proj",
                Role::Gate => "feed_forward.w1",
                Role::Up => "feed_forward.w3",
                Role::Down => "feed_forward.w2",
                _ => return decoder::source(spec, id),
            };
            format!("layers.{layer}.{matrix}.{}", part.name())
        }
        ParameterId::Kernel(layer, part) => format!("layers.{layer}.conv.conv.{}", part.name()),
        ParameterId::Norm(Some(layer), site, part) => {
            let norm = match site {
                NormSite::Attention | NormSite::Conv => "operator_norm",
                NormSite::Query => "self_attn.q_layernorm",
                NormSite::Key => "self_attn.k_layernorm",
                NormSite::Ffn => "ffn_norm",
                _ => return None,
            };
            format!("layers.{layer}.{norm}.{}", part.name())
        }
        ParameterId::Norm(None, NormSite::Final, part) => format!("embedding_norm.{}", part.name()),
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(name))
}
