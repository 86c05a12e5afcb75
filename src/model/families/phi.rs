//! Phi 1, 1.5 and 2: one LayerNorm a layer, whose output attention and a plain GELU network both read, side by side; heads
//! of which a part turns, and biases everywhere, at the head too.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::narrower::WidthKeys;
use super::rotary::partial_rotary;
use super::{Family, TensorName, gelu, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{AttentionSpec, FfnSpec, Head, LayerSpec, ModelSpec, NormPlacement};
use serde_json::{Value, json};

const NAME: &str = "phi";
const ARCHITECTURE: &str = "PhiForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 10] = [
    ("vocab_size", ClassDefault::Size(51200)),
    ("hidden_size", ClassDefault::Size(2048)),
    ("num_hidden_layers", ClassDefault::Size(24)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(8192)),
    ("hidden_act", ClassDefault::Text("gelu_new")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("layer_norm_eps", ClassDefault::Number(1e-5)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family {
    source,
    widths: WidthKeys { head_dim: None, ..decoder::WIDTHS },
    ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec)
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [
        ("qk_layernorm", json!(false)),
        ("head_dim", Value::Null),
        ("layer_types", Value::Null),
        ("sliding_window", Value::Null),
    ];
    refuse_unless(config, NAME, &own)?;
    let activation = gelu(config, "hidden_act", NAME, "gelu_new, gelu_pytorch_tanh, gelu")?;
    let attention = decoder::attention(config, partial_rotary(config, NAME, 10_000.0, 0.5)?)?;
    let attention = AttentionSpec { input_bias: true, output_bias: true, ..attention };
    let norm = decoder::layer_norm(config, "layer_norm_eps")?;
    let width = config.size("intermediate_size")?;
    let layer = LayerSpec {
        ffn: FfnSpec { bias: true, ..FfnSpec::plain(width, false, activation) },
        norm_placement: NormPlacement::Common,
        ..decoder::layer(attention, norm, width)
    };
    let spec = decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)?;
    Ok(ModelSpec { head: Head::LanguageModel { tied: spec.tied_head(), bias: true, cap: None }, ..spec })
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let (stem, part) = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Output => "self_attn.dense",
                Role::Up => "mlp.fc1",
                Role::Down => "mlp.fc2",
                _ => return decoder::source(spec, id),
            };
            (format!("layers.{layer}.{matrix}"), part)
        }
        ParameterId::Norm(None, NormSite::Final, part) => ("final_layernorm".to_owned(), part),
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(format!("{stem}.{}", part.name())))
}
