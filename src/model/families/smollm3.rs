//! SmolLM 3: Llama in which every fourth layer has no positions (`no_rope_layers`, 1 for a layer that turns), and a sliding
//! window in the layers of `layer_types` where `use_sliding_window` says so.

use super::class_defaults::ClassDefault;
use super::decoder::{self, copies, ignored, source};
use super::fewer_layers::counted;
use super::rotary::rotary;
use super::{Family, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec};
use serde_json::{Value, json};

const NAME: &str = "smollm3";
const ARCHITECTURE: &str = "SmolLM3ForCausalLM";
const TURNING: &str = "no_rope_layers";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 15] = [
    ("vocab_size", ClassDefault::Size(128_256)),
    ("hidden_size", ClassDefault::Size(2048)),
    ("num_hidden_layers", ClassDefault::Size(36)),
    ("num_attention_heads", ClassDefault::Size(16)),
    ("num_key_value_heads", ClassDefault::Size(4)),
    ("intermediate_size", ClassDefault::Size(11008)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(32768)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("use_sliding_window", ClassDefault::Flag(false)),
    ("no_rope_layer_interval", ClassDefault::Count(4)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("mlp_bias", ClassDefault::Flag(false)),
    ("eos_token_id", ClassDefault::Count(128_001)),
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
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::require_activation(config, NAME, "hidden_act", "silu")?;
    decoder::refuse_foreign_but_positions(config, NAME)?;
    refuse_unless(config, NAME, &[("pretraining_tp", json!(1))])?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, rotary(config, NAME, 2_000_000.0)?)?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, ..attention };
    let norm = decoder::rms_norm(config, "rms_norm_eps")?;
    let (width, mlp_bias) = (config.size("intermediate_size")?, config.flag("mlp_bias")?);
    let turning = turning(config)?;
    let layer = |(window, turns): (Option<usize>, &bool)| {
        let rotary = attention.rotary.filter(|_| *turns);
        let layer = decoder::layer(AttentionSpec { rotary, window, ..attention }, norm, width);
        LayerSpec { ffn: FfnSpec { bias: mlp_bias, ..layer.ffn }, ..layer }
    };
    let layers = windows(config, &turning)?.into_iter().zip(&turning).map(layer).collect();
    decoder::model(config, NAME, layers, norm)
}

/// Which layers turn queries and keys: by the list, or all but every n-th.
fn turning(config: &Config) -> Result<Vec<bool>, ConfigError> {
    let layers = layer_count(config, "num_hidden_layers")?;
    let Some(value) = config.value(TURNING) else {
        let interval = config.size("no_rope_layer_interval")?;
        return Ok((1..=layers).map(|number| !number.is_multiple_of(interval)).collect());
    };
    let flag = |value: &Value| match value.as_u64() {
        Some(flag @ (0 | 1)) => Some(flag == 1),
        _ => value.as_bool(),
    };
    let list = value.as_array().filter(|list| list.len() == layers);
    let flags: Option<Vec<bool>> = list.and_then(|list| list.iter().map(flag).collect());
    flags.ok_or_else(|| config.wrong(TURNING, &format!("a list of {layers} flags, 1 for a layer that turns")))
}

/// The windows of the layers: of those that `layer_types` says slide, else of those that do not turn.
fn windows(config: &Config, turning: &[bool]) -> Result<Vec<Option<usize>>, ConfigError> {
    let types = decoder::layer_types(config, NAME, ["full_attention", "sliding_attention"])?;
    let slides = |layer: usize| types.as_ref().map_or(!turning[layer], |types| types[layer] == "sliding_attention");
    if !config.flag("use_sliding_window")? {
        let said = types.as_ref().is_some_and(|types| types.contains(&"sliding_attention"));
        return match said {
            true => Err(config.unsupported("layer_types", NAME, "full_attention where use_sliding_window is false")),
            false => Ok(vec![None; turning.len()]),
        };
    }
    let window = decoder::window(config)?;
    Ok((0..turning.len()).map(|layer| window.filter(|_| slides(layer))).collect())
}

/// With fewer layers, which of them turn is said by the list: no interval does.
fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let turning = turning(config)?;
    let mut map = counted(config, "num_hidden_layers", kept);
    let flags: Vec<u8> = kept.iter().filter_map(|&layer| turning.get(layer)).map(|turns| u8::from(*turns)).collect();
    map.insert(TURNING.to_owned(), json!(flags));
    Ok(Config::from_map(config.file(), map))
}
