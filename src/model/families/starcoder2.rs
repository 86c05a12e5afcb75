//! StarCoder 2: Llama's attention with LayerNorms, biases where `use_bias` says so, and a plain GELU network.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::rotary::rotary;
use super::{Family, TensorName, gelu, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec};
use serde_json::Value;

const NAME: &str = "starcoder2";
const ARCHITECTURE: &str = "Starcoder2ForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
    ("vocab_size", ClassDefault::Size(49152)),
    ("hidden_size", ClassDefault::Size(3072)),
    ("num_hidden_layers", ClassDefault::Size(30)),
    ("num_attention_heads", ClassDefault::Size(24)),
    ("num_key_value_heads", ClassDefault::Size(2)),
    ("intermediate_size", ClassDefault::Size(12288)),
    ("hidden_act", ClassDefault::Text("gelu_pytorch_tanh")),
    ("max_position_embeddings", ClassDefault::Count(4096)),
    ("norm_epsilon", ClassDefault::Number(1e-5)),
    ("use_bias", ClassDefault::Flag(true)),
    ("eos_token_id", ClassDefault::Count(50256)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family { source, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::refuse_foreign(config, NAME)?;
    refuse_unless(config, NAME, &[("layer_types", Value::Null)])?;
    let activation = gelu(config, "hidden_act", NAME, "gelu_pytorch_tanh, gelu_new, gelu")?;
    let bias = config.flag("use_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 10_000.0)?)?;
    let window = decoder::window(config)?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, window, ..attention };
    let norm = decoder::layer_norm(config, "norm_epsilon")?;
    let width = config.size("intermediate_size")?;
    let layer = LayerSpec {
        ffn: FfnSpec { bias, ..FfnSpec::plain(width, false, activation) },
        ..decoder::layer(attention, norm, width)
    };
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let ParameterId::Linear(LinearId { layer: Some(layer), role }, part) = id else { return decoder::source(spec, id) };
    let matrix = match role {
        Role::Up => "mlp.c_fc",
        Role::Down => "mlp.c_proj",
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(format!("layers.{layer}.{matrix}.{}", part.name())))
}
