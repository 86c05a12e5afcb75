//! GPT-NeoX, the family of Pythia: LayerNorms, heads of which a quarter turns, a plain GELU network beside attention
//! (`use_parallel_residual`) or after it, and queries, keys and values of each head after one another in one matrix.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::rotary::partial_rotary;
use super::{Family, HeadOrder, TensorName, gelu, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{AttentionSpec, FfnSpec, LayerSpec, ModelSpec, NormPlacement};
use serde_json::Value;

const NAME: &str = "gpt_neox";
const ARCHITECTURE: &str = "GPTNeoXForCausalLM";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 12] = [
    ("vocab_size", ClassDefault::Size(50432)),
    ("hidden_size", ClassDefault::Size(6144)),
    ("num_hidden_layers", ClassDefault::Size(44)),
    ("num_attention_heads", ClassDefault::Size(64)),
    ("intermediate_size", ClassDefault::Size(24576)),
    ("hidden_act", ClassDefault::Text("gelu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("layer_norm_eps", ClassDefault::Number(1e-5)),
    ("use_parallel_residual", ClassDefault::Flag(true)),
    ("attention_bias", ClassDefault::Flag(true)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["gpt_neox.", ""],
    token_table: "embed_in.weight",
    defaults: &DEFAULTS,
    aliases: &[("rotary_pct", "partial_rotary_factor"), ("rotary_emb_base", "rope_theta")],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size"),
    classifier: None,
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    decoder::refuse_foreign(config, NAME)?;
    let own = [
        ("num_key_value_heads", Value::Null),
        ("head_dim", Value::Null),
        ("layer_types", Value::Null),
        ("sliding_window", Value::Null),
    ];
    refuse_unless(config, NAME, &own)?;
    let activation = gelu(config, "hidden_act", NAME, "gelu, gelu_new, gelu_pytorch_tanh")?;
    let bias = config.flag("attention_bias")?;
    let attention = decoder::attention(config, partial_rotary(config, NAME, 10_000.0, 0.25)?)?;
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, ..attention };
    let norm = decoder::layer_norm(config, "layer_norm_eps")?;
    let width = config.size("intermediate_size")?;
    let beside = config.flag("use_parallel_residual")?;
    let layer = LayerSpec {
        ffn: FfnSpec { bias: true, ..FfnSpec::plain(width, false, activation) },
        norm_placement: if beside { NormPlacement::Beside } else { NormPlacement::Pre },
        ..decoder::layer(attention, norm, width)
    };
    decoder::model(config, NAME, vec![layer; layer_count(config, "num_hidden_layers")?], norm)
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let prefixed = |stem: String, part: crate::model::id::Part| TensorName::prefixed(format!("{stem}.{}", part.name()));
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let third = |index: usize| {
                let attention = spec.layers.get(layer as usize)?.attention()?;
                let rows = attention.query_width();
                let matrix = prefixed(format!("layers.{layer}.attention.query_key_value"), part);
                Some(matrix.fused(index * rows, 3 * rows).by_heads(Some(HeadOrder::interleaved(attention))))
            };
            match role {
                Role::Query => third(0)?,
                Role::Key => third(1)?,
                Role::Value => third(2)?,
                Role::Output => prefixed(format!("layers.{layer}.attention.dense"), part),
                Role::Up => prefixed(format!("layers.{layer}.mlp.dense_h_to_4h"), part),
                Role::Down => prefixed(format!("layers.{layer}.mlp.dense_4h_to_h"), part),
                _ => return None,
            }
        }
        ParameterId::Linear(LinearId { layer: None, role: Role::TokenEmbedding }, part) => {
            prefixed("embed_in".to_owned(), part)
        }
        // transformers 5 calls it as every family does.
        ParameterId::Linear(LinearId { layer: None, role: Role::LmHead }, part) => {
            let legacy_name = Some(format!("lm_head.{}", part.name()));
            TensorName { legacy_name, ..TensorName::bare(&format!("embed_out.{}", part.name())) }
        }
        ParameterId::Norm(Some(layer), site, part) => {
            let norm = match site {
                NormSite::Attention => "input_layernorm",
                NormSite::Ffn => "post_attention_layernorm",
                _ => return None,
            };
            prefixed(format!("layers.{layer}.{norm}"), part)
        }
        ParameterId::Norm(None, NormSite::Final, part) => prefixed("final_layer_norm".to_owned(), part),
        _ => return None,
    })
}

/// Masks and frequencies that old checkpoints carry.
fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    [".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"].iter().any(|buffer| name.ends_with(buffer))
}

/// The head of a tied model, which some files hold again under either name.
fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
    let name = TensorName { legacy_name: Some("lm_head.weight".to_owned()), ..TensorName::bare("embed_out.weight") };
    if spec.tied_head() { vec![(name, table)] } else { Vec::new() }
}
