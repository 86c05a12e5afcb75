//! Llama: pre-norm decoder with RMS norms, rotary positions, grouped-query attention and a gated SiLU network. Reads
//! both spellings of the rotary settings: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.

use super::{Family, Source, architecture, head_width, layer_count, refuse_unless};
use crate::checkpoint::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Head, LayerSpec, Llama3Scaling, ModelKind, ModelSpec, Norm, NormKind,
    NormPlacement, Positions, RotarySpec,
};
use serde_json::{Value, json};

const NAME: &str = "llama";

pub(super) const FAMILY: Family = Family { model_type: NAME, prefixes: &["model.", ""], spec, source, ignored, copies };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    if architecture(config)?.is_some_and(|name| name != "LlamaForCausalLM") {
        return Err(config.unsupported("architectures", NAME, "LlamaForCausalLM"));
    }
    if config.optional_text("hidden_act")?.is_some_and(|name| name != "silu") {
        return Err(config.unsupported("hidden_act", NAME, "silu"));
    }
    let full_attention = json!(vec!["full_attention"; config.size("num_hidden_layers").unwrap_or(0).min(1 << 16)]);
    refuse_unless(
        config,
        NAME,
        &[
            ("pretraining_tp", json!(1)),
            ("partial_rotary_factor", json!(1)),
            ("layer_types", full_attention),
            ("attn_logit_softcapping", Value::Null),
            ("final_logit_softcapping", Value::Null),
            ("clip_qkv", Value::Null),
            ("no_rope_layers", Value::Null),
            ("use_qk_norm", json!(false)),
            ("alibi", json!(false)),
            ("add_cross_attention", json!(false)),
        ],
    )?;
    if config.value("sliding_window").is_some() && config.flag_or("use_sliding_window", true)? {
        return Err(config.unsupported("sliding_window", NAME, "null"));
    }

    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let key_value_heads = config.optional_size("num_key_value_heads")?.unwrap_or(heads);
    if !heads.is_multiple_of(key_value_heads) {
        return Err(config.wrong("num_key_value_heads", &format!("a divisor of num_attention_heads, {heads}")));
    }
    let head_dim = match config.optional_size("head_dim")? {
        Some(width) => width,
        None => head_width(config, hidden, heads)?,
    };
    if !head_dim.is_multiple_of(2) {
        return Err(config.wrong("head_dim", &format!("an even width (it is {head_dim}), for rotary positions")));
    }
    let attention_bias = config.flag_or("attention_bias", false)?;
    let norm = Norm { kind: NormKind::Rms, epsilon: config.optional_positive("rms_norm_eps")?.unwrap_or(1e-6) };
    let layer = LayerSpec {
        attention: AttentionSpec {
            heads,
            key_value_heads,
            head_dim,
            score_scale: 1.0 / (head_dim as f64).sqrt(),
            input_bias: attention_bias,
            output_bias: attention_bias,
        },
        ffn: FfnSpec {
            width: config.size("intermediate_size")?,
            gated: true,
            activation: Activation::Silu,
            bias: config.flag_or("mlp_bias", false)?,
        },
        norm,
        norm_placement: NormPlacement::Pre,
    };
    let vocabulary = config.size("vocab_size")?;
    Ok(ModelSpec {
        family: NAME,
        kind: ModelKind::Decoder,
        vocabulary,
        hidden,
        context: config.size("max_position_embeddings")?,
        token_types: 0,
        positions: Positions::Rotary(rotary(config)?),
        embedding_norm: None,
        layers: vec![layer; layer_count(config)?],
        final_norm: Some(norm),
        head: Head::LanguageModel { tied: config.flag_or("tie_word_embeddings", false)? },
        bos: config.tokens("bos_token_id", vocabulary)?.first().copied(),
        eos: config.tokens("eos_token_id", vocabulary)?,
    })
}

/// Rotary settings in either spelling; in both, they must agree.
fn rotary(config: &Config) -> Result<RotarySpec, ConfigError> {
    const DEFAULT_THETA: f64 = 10_000.0;
    let top = config.optional_positive("rope_theta")?;
    let theta = top.unwrap_or(DEFAULT_THETA);
    let old = match config.section("rope_scaling")? {
        Some(section) => Some(RotarySpec { theta, scaling: scaling(&section)? }),
        None => top.map(|theta| RotarySpec { theta, scaling: None }),
    };
    let new = match config.section("rope_parameters")? {
        None => None,
        Some(section) => Some(RotarySpec {
            theta: section.optional_positive("rope_theta")?.unwrap_or(theta),
            scaling: scaling(&section)?,
        }),
    };
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            Err(config.wrong("rope_parameters", "the same settings as rope_theta and rope_scaling; remove either"))
        }
        (Some(rotary), _) | (None, Some(rotary)) => Ok(rotary),
        (None, None) => Ok(RotarySpec { theta, scaling: None }),
    }
}

/// The rope type of a section, and what belongs to it.
fn scaling(section: &Config) -> Result<Option<Llama3Scaling>, ConfigError> {
    refuse_unless(section, NAME, &[("partial_rotary_factor", json!(1))])?;
    let key = if section.value("rope_type").is_some() { "rope_type" } else { "type" };
    match section.optional_text(key)? {
        // Settings per kind of layer, without a type of their own.
        None if section.map().values().any(Value::is_object) => {
            let inner = section.map().iter().find(|(_, value)| value.is_object()).map_or("", |(key, _)| key);
            Err(section.unsupported(inner, NAME, "one setting for all layers"))
        }
        None | Some("default") => Ok(None),
        Some("llama3") => {
            let scaling = Llama3Scaling {
                factor: section.positive("factor")?,
                low_frequency_factor: section.positive("low_freq_factor")?,
                high_frequency_factor: section.positive("high_freq_factor")?,
                original_context: section.size("original_max_position_embeddings")?,
            };
            if scaling.high_frequency_factor <= scaling.low_frequency_factor {
                return Err(section.wrong("high_freq_factor", "a number above low_freq_factor"));
            }
            Ok(Some(scaling))
        }
        Some(_) => Err(section.unsupported(key, NAME, "default, llama3")),
    }
}

fn source(id: ParameterId) -> Option<Source> {
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
            return Some(Source::bare(&format!("lm_head.{}", part.name())));
        }
        ParameterId::Norm(Some(layer), NormSite::Attention, part) => {
            format!("layers.{layer}.input_layernorm.{}", part.name())
        }
        ParameterId::Norm(Some(layer), NormSite::Ffn, part) => {
            format!("layers.{layer}.post_attention_layernorm.{}", part.name())
        }
        ParameterId::Norm(None, NormSite::Final, part) => format!("norm.{}", part.name()),
        _ => return None,
    };
    Some(Source::prefixed(name))
}

fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name == "rotary_emb.inv_freq"
}

fn copies(spec: &ModelSpec) -> Vec<(Source, ParameterId)> {
    if !spec.tied_head() {
        return Vec::new();
    }
    vec![(Source::bare("lm_head.weight"), ParameterId::weight(LinearId::global(Role::TokenEmbedding)))]
}
