//! OPT with norms before the parts of a layer (all sizes but the 350 M): GPT-2's structure with matrices as (out, in) and a
//! ReLU. Positions are counted from the third row of their table; the two before it are left out here.

use super::class_defaults::ClassDefault;
use super::decoder;
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::{Family, TensorName, head_width, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement,
    Positions, Stored,
};
use serde_json::json;

const NAME: &str = "opt";
const ARCHITECTURE: &str = "OPTForCausalLM";
/// Rows of the position table before the first token's.
const LEADING: usize = 2;

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 10] = [
    ("vocab_size", ClassDefault::Size(50272)),
    ("hidden_size", ClassDefault::Size(768)),
    ("num_hidden_layers", ClassDefault::Size(12)),
    ("num_attention_heads", ClassDefault::Size(12)),
    ("ffn_dim", ClassDefault::Size(3072)),
    ("activation_function", ClassDefault::Text("relu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("enable_bias", ClassDefault::Flag(true)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.decoder.", "decoder.", ""],
    token_table: "embed_tokens.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored: |_, _| false,
    copies: decoder::copies,
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: WidthKeys {
        hidden_copies: &["word_embed_proj_dim"],
        ..WidthKeys::shared("num_attention_heads", "ffn_dim", "hidden_size")
    },
    classifier: None,
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    let own = [
        ("do_layer_norm_before", json!(true)),
        ("_remove_final_layer_norm", json!(false)),
        ("layer_norm_elementwise_affine", json!(true)),
        ("add_cross_attention", json!(false)),
    ];
    refuse_unless(config, NAME, &own)?;
    decoder::require_activation(config, NAME, "activation_function", "relu")?;
    let hidden = config.size("hidden_size")?;
    if config.optional_size("word_embed_proj_dim")?.is_some_and(|width| width != hidden) {
        return Err(config.unsupported("word_embed_proj_dim", NAME, &format!("hidden_size, {hidden}")));
    }
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_width(config, "num_attention_heads", hidden, heads)?;
    let bias = config.flag("enable_bias")?;
    let norm = Norm { kind: NormKind::Layer, epsilon: 1e-5 };
    let attention = AttentionSpec { input_bias: bias, output_bias: bias, ..AttentionSpec::plain(heads, head_dim) };
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention),
        ffn: FfnSpec { bias, ..FfnSpec::plain(config.size("ffn_dim")?, false, Activation::Relu) },
        norm,
        norm_placement: NormPlacement::Pre,
    };
    let vocabulary = config.size("vocab_size")?;
    Ok(ModelSpec {
        family: NAME,
        kind: ModelKind::Decoder,
        causal: true,
        vocabulary,
        hidden,
        embedding_width: hidden,
        context: config.size("max_position_embeddings")?,
        token_types: 0,
        positions: Positions::Learned,
        embedding_scale: 1.0,
        embedding_norm: None,
        layers: vec![layer; layer_count(config, "num_hidden_layers")?],
        final_norm: Some(norm),
        head: Head::LanguageModel { tied: config.flag("tie_word_embeddings")?, bias: false, cap: None },
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
        exits: Vec::new(),
        stored: Stored { leading_positions: LEADING, ..Stored::ALIKE },
    })
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let (stem, part) = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let matrix = match role {
                Role::Query => "self_attn.q_proj",
                Role::Key => "self_attn.k_proj",
                Role::Value => "self_attn.v_proj",
                Role::Output => "self_attn.out_proj",
                Role::Up => "fc1",
                Role::Down => "fc2",
                _ => return None,
            };
            (format!("layers.{layer}.{matrix}"), part)
        }
        ParameterId::Linear(LinearId { layer: None, role: Role::PositionEmbedding }, part) => {
            let table = TensorName::prefixed(format!("embed_positions.{}", part.name()));
            let first = spec.stored.leading_positions;
            return Some(table.fused(first, first + spec.context));
        }
        ParameterId::Norm(Some(layer), NormSite::Attention, part) => {
            (format!("layers.{layer}.self_attn_layer_norm"), part)
        }
        ParameterId::Norm(Some(layer), NormSite::Ffn, part) => (format!("layers.{layer}.final_layer_norm"), part),
        ParameterId::Norm(None, NormSite::Final, part) => ("final_layer_norm".to_owned(), part),
        _ => return decoder::source(spec, id),
    };
    Some(TensorName::prefixed(format!("{stem}.{}", part.name())))
}
