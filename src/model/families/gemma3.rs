//! Gemma 3 (text): embeddings scaled by √hidden, norms whose weights count from one, four of them a layer and two more on
//! queries and keys, and sliding-window layers with rotary frequencies of their own between full ones. Bare
//! (`Gemma3TextModel`) with `use_bidirectional_attention` it is the encoder of EmbeddingGemma, whose layers that slide see half of
//! `sliding_window` to either side.

use super::class_defaults::ClassDefault;
use super::decoder::{self, copies, ignored};
use super::fewer_layers::counted;
use super::rotary::{scaled, settings};
use super::{Family, TensorName, architecture, as_encoder, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{NormSite, ParameterId};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, LayerSpec, ModelSpec, Norm, NormKind, NormPlacement, QueryKeyNorm, RotarySpec,
};
use serde_json::json;

pub(super) const NAME: &str = "gemma3_text";
const ARCHITECTURE: &str = "Gemma3ForCausalLM";
const BARE: &str = "Gemma3TextModel";
const BOTH_WAYS: &str = "use_bidirectional_attention";
/// A kind of layer.
pub(super) const FULL: &str = "full_attention";
/// The other.
pub(super) const SLIDING: &str = "sliding_attention";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 16] = [
    ("vocab_size", ClassDefault::Size(262_208)),
    ("hidden_size", ClassDefault::Size(2304)),
    ("num_hidden_layers", ClassDefault::Size(26)),
    ("num_attention_heads", ClassDefault::Size(8)),
    ("num_key_value_heads", ClassDefault::Size(4)),
    ("intermediate_size", ClassDefault::Size(9216)),
    ("head_dim", ClassDefault::Count(256)),
    ("hidden_activation", ClassDefault::Text("gelu_pytorch_tanh")),
    ("max_position_embeddings", ClassDefault::Count(131_072)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("query_pre_attn_scalar", ClassDefault::Number(256.0)),
    ("sliding_window", ClassDefault::Count(4096)),
    ("_sliding_window_pattern", ClassDefault::Count(6)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(1)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    token_table: "embed_tokens.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers,
    widths: decoder::WIDTHS,
    classifier: None,
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    let encoder = is_encoder(config)?;
    decoder::require_activation(config, NAME, "hidden_activation", "gelu_pytorch_tanh")?;
    decoder::refuse_foreign(config, NAME)?;
    refuse_unless(config, NAME, &[("mlp_bias", json!(false))])?;
    let (full, sliding) = rotary(config)?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, full)?;
    let query_scalar = config.positive("query_pre_attn_scalar")?;
    let attention = AttentionSpec {
        score_scale: 1.0 / query_scalar.sqrt(),
        input_bias: bias,
        output_bias: bias,
        query_key_norm: Some(QueryKeyNorm::Heads),
        ..attention
    };
    let norm = Norm { kind: NormKind::RmsOnePlus, ..decoder::rms_norm(config, "rms_norm_eps")? };
    let width = config.size("intermediate_size")?;
    let window = if encoder { Some(both_ways(config)?) } else { decoder::window(config)? };
    let layer = |slides: bool| {
        let attention = if slides { AttentionSpec { rotary: Some(sliding), window, ..attention } } else { attention };
        LayerSpec {
            ffn: FfnSpec::plain(width, true, Activation::GeluTanh),
            norm_placement: NormPlacement::Around,
            ..decoder::layer(attention, norm, width)
        }
    };
    let layers = sliding_layers(config)?.into_iter().map(layer).collect();
    let spec = decoder::model(config, NAME, layers, norm)?;
    let embedding_scale = (spec.hidden as f64).sqrt() as f32;
    let spec = ModelSpec { embedding_scale: rounded(config, NAME, embedding_scale)?, ..spec };
    Ok(if encoder { ModelSpec { causal: false, ..as_encoder(spec) } } else { spec })
}

/// Whether it is the bare encoder, which sees both ways; a decoder does not.
fn is_encoder(config: &Config) -> Result<bool, ConfigError> {
    let both_ways = config.flag_or(BOTH_WAYS, false)?;
    match architecture(config)? {
        None | Some(ARCHITECTURE) if both_ways => Err(config.unsupported(BOTH_WAYS, NAME, "true with Gemma3TextModel")),
        None | Some(ARCHITECTURE) => Ok(false),
        Some(BARE) if both_ways => Ok(true),
        Some(BARE) => {
            Err(config.unsupported("architectures", NAME, "Gemma3TextModel where use_bidirectional_attention is true"))
        }
        Some(_) => Err(config.unsupported("architectures", NAME, "Gemma3ForCausalLM, Gemma3TextModel")),
    }
}

/// What a position of an encoder sees on each side, its own included: half of the window, and itself.
fn both_ways(config: &Config) -> Result<usize, ConfigError> {
    Ok(config.size("sliding_window")? / 2 + 1)
}

/// Which layers slide: by `layer_types`, or all but every n-th.
fn sliding_layers(config: &Config) -> Result<Vec<bool>, ConfigError> {
    if let Some(types) = decoder::layer_types(config, NAME, [FULL, SLIDING])? {
        return Ok(types.into_iter().map(|kind| kind == SLIDING).collect());
    }
    let pattern = match config.optional_size("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => config.size("_sliding_window_pattern")?,
    };
    Ok((1..=layer_count(config, "num_hidden_layers")?).map(|number| !number.is_multiple_of(pattern)).collect())
}

fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    with_listed_layers(config, kept, &sliding_layers(config)?)
}

/// With fewer layers, which of them slide is said by `layer_types`: no pattern does. A pattern that a list replaces goes.
pub(super) fn with_listed_layers(config: &Config, kept: &[usize], sliding: &[bool]) -> Result<Config, ConfigError> {
    let mut map = counted(config, "num_hidden_layers", kept);
    if config.value("layer_types").is_none() {
        let kind = |layer: &usize| sliding.get(*layer).map(|slides| if *slides { SLIDING } else { FULL });
        map.insert("layer_types".to_owned(), json!(kept.iter().filter_map(kind).collect::<Vec<_>>()));
        map.remove("sliding_window_pattern");
        map.remove("_sliding_window_pattern");
    }
    Ok(Config::from_map(config.file(), map))
}

/// Rotary settings of full and of sliding layers: `rope_parameters` has a section for each, the older spelling has
/// `rope_theta`, `rope_scaling` (full layers only) and `rope_local_base_freq`.
fn rotary(config: &Config) -> Result<(RotarySpec, RotarySpec), ConfigError> {
    whole_heads(config)?;
    let theta = config.optional_positive("rope_theta")?.unwrap_or(1_000_000.0);
    let local = config.optional_positive("rope_local_base_freq")?.unwrap_or(10_000.0);
    if let Some(parameters) = config.section("rope_parameters")? {
        if let Some(key) = parameters.map().keys().find(|key| ![FULL, SLIDING].contains(&key.as_str())) {
            return Err(parameters.unsupported(
                key,
                NAME,
                "a section for each of full_attention and sliding_attention",
            ));
        }
        let kind = |name: &'static str, theta: f64| match parameters.section(name)? {
            Some(section) => {
                whole_heads(&section).and_then(|()| settings(config, &section, NAME, RotarySpec::plain(theta)))
            }
            None => Ok(RotarySpec::plain(theta)),
        };
        return Ok((kind(FULL, theta)?, kind(SLIDING, local)?));
    }
    let full = match config.section("rope_scaling")? {
        Some(section) => scaled(config, &section, NAME, RotarySpec::plain(theta))?,
        None => RotarySpec::plain(theta),
    };
    Ok((full, RotarySpec::plain(local)))
}

fn whole_heads(section: &Config) -> Result<(), ConfigError> {
    refuse_unless(section, NAME, &[("partial_rotary_factor", json!(1))])
}

/// The factor on embeddings in the type that the configuration says the model computes in, as transformers rounds it.
pub(super) fn rounded(config: &Config, family: &'static str, factor: f32) -> Result<f32, ConfigError> {
    let key = if config.value("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match config.optional_text(key)? {
        None | Some("float32") => Ok(factor),
        Some("float16") => Ok(half::f16::from_f32(factor).to_f32()),
        Some("bfloat16") => Ok(half::bf16::from_f32(factor).to_f32()),
        Some(_) => Err(config.unsupported(key, family, "float32, float16, bfloat16")),
    }
}

pub(super) fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let ParameterId::Norm(Some(layer), site, part) = id else { return decoder::source(spec, id) };
    let norm = match site {
        NormSite::AttentionOutput => "post_attention_layernorm",
        NormSite::Ffn => "pre_feedforward_layernorm",
        NormSite::FfnOutput => "post_feedforward_layernorm",
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(format!("layers.{layer}.{norm}.{}", part.name())))
}
