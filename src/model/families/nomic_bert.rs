//! Nomic BERT: a post-norm encoder with token types, rotary positions and networks gated by SiLU, without biases but in norms and
//! heads. Bare (`NomicBertModel`), as a masked language model, or with a classifier of texts or of tokens. Configurations are read in
//! two spellings: that of the code beside the published checkpoints, which counts like GPT-2's, and that of transformers' own
//! class. Tensors have the published names, which that class writes too; query, key and value are fused.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder::{self, bare, prefixed};
use super::fewer_layers::alike;
use super::narrower::WidthKeys;
use super::rotary::settings;
use super::{Family, TensorName, architecture, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, FfnSpec, Function, Head, LayerSpec, Mixer, ModelSpec, Norm, NormPlacement, Positions,
    RotarySpec,
};
use serde_json::{Value, json};

const NAME: &str = "nomic_bert";
const BARE: &str = "NomicBertModel";
const MASKED: &str = "NomicBertForMaskedLM";
/// The masked language model of the published code, whose head has no biases.
const PRETRAINING: &str = "NomicBertForPreTraining";
const CLASSIFIER: &str = "NomicBertForSequenceClassification";
const TOKENS: &str = "NomicBertForTokenClassification";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 9] = [
    ("vocab_size", ClassDefault::Size(30528)),
    ("hidden_size", ClassDefault::Size(768)),
    ("num_hidden_layers", ClassDefault::Size(12)),
    ("num_attention_heads", ClassDefault::Size(12)),
    ("intermediate_size", ClassDefault::Size(3072)),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("type_vocab_size", ClassDefault::Count(2)),
    ("layer_norm_eps", ClassDefault::Number(1e-12)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["nomic_bert.", "bert.", ""],
    token_table: "embeddings.word_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[
        ("n_embd", "hidden_size"),
        ("n_head", "num_attention_heads"),
        ("n_inner", "intermediate_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_positions", "max_position_embeddings"),
        ("layer_norm_epsilon", "layer_norm_eps"),
    ],
    spec,
    source,
    ignored: |_, name| name.ends_with(".inv_freq") || name.starts_with("cls.seq_relationship."),
    copies: |spec| encoder::copies(spec, "cls.predictions.decoder.weight", Some("cls.predictions.decoder.bias")),
    layer_count: "num_hidden_layers",
    with_layers: alike,
    widths: WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size"),
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["emb_ln.weight", "classifier.weight", "pooler.dense.weight"], CLASSIFIER),
        (&["emb_ln.weight", "classifier.weight"], TOKENS),
        (&["emb_ln.weight", "cls.predictions.transform.dense.bias"], MASKED),
        (&["emb_ln.weight", "cls.predictions.transform.dense.weight"], PRETRAINING),
        (&["emb_ln.weight"], BARE),
    ],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    refuse_foreign(config)?;
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_width(config, "num_attention_heads", hidden, heads)?;
    if config.optional_size("head_dim")?.is_some_and(|stated| stated != head_dim) {
        return Err(config.unsupported("head_dim", NAME, &format!("hidden_size / num_attention_heads, {head_dim}")));
    }
    let norm = encoder::norm(config)?;
    let attention = AttentionSpec {
        input_bias: false,
        output_bias: false,
        rotary: Some(rotary(config)?),
        ..AttentionSpec::plain(heads, head_dim)
    };
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention),
        ffn: FfnSpec::plain(config.size("intermediate_size")?, true, Activation::Silu),
        norm,
        norm_placement: NormPlacement::Post,
    };
    let layers = vec![layer; layer_count(config, "num_hidden_layers")?];
    let spec = encoder::of_layers(config, NAME, (hidden, context(config)?), layers, norm, head(config, norm)?)?;
    Ok(ModelSpec { positions: Positions::Rotary, token_types: config.size("type_vocab_size")?, ..spec })
}

fn head(config: &Config, norm: Norm) -> Result<Head, ConfigError> {
    let masked = |bias: bool| -> Result<Head, ConfigError> {
        let tied = config.flag("tie_word_embeddings")?;
        Ok(Head::MaskedLanguageModel { activation: Activation::Silu, norm, tied, biases: [bias; 2] })
    };
    match architecture(config)? {
        Some(BARE) => Ok(Head::Hidden),
        Some(MASKED) => masked(true),
        Some(PRETRAINING) => masked(false),
        Some(CLASSIFIER) => Ok(Head::classifier(Function::Tanh, labels(config)?)),
        Some(TOKENS) => Ok(Head::TokenClassifier { labels: labels(config)? }),
        _ => {
            let supported = format!("{BARE}, {MASKED}, {PRETRAINING}, {CLASSIFIER}, {TOKENS}");
            Err(config.unsupported("architectures", NAME, &supported))
        }
    }
}

/// Refuses what the published code computes under other settings than those of the published checkpoints.
fn refuse_foreign(config: &Config) -> Result<(), ConfigError> {
    refuse_unless(
        config,
        NAME,
        &[
            ("activation_function", json!("swiglu")),
            ("hidden_act", json!("silu")),
            ("causal", json!(false)),
            ("is_decoder", json!(false)),
            ("prenorm", json!(false)),
            ("parallel_block", json!(false)),
            ("use_rms_norm", json!(false)),
            ("qkv_proj_bias", json!(false)),
            ("mlp_fc1_bias", json!(false)),
            ("mlp_fc2_bias", json!(false)),
            ("num_experts", json!(0)),
            ("rotary_emb_fraction", json!(1)),
            ("rotary_emb_interleaved", json!(false)),
            ("rotary_emb_scale_base", Value::Null),
        ],
    )
}

fn rotary(config: &Config) -> Result<RotarySpec, ConfigError> {
    let plain = RotarySpec::plain(config.optional_positive("rotary_emb_base")?.unwrap_or(1000.0));
    match config.section("rope_parameters")? {
        None => Ok(plain),
        Some(section) => {
            refuse_unless(&section, NAME, &[("partial_rotary_factor", json!(1))])?;
            let rotary = settings(config, &section, NAME, plain)?;
            match config.value("rotary_emb_base").is_some() && rotary != plain {
                true => Err(config.wrong("rotary_emb_base", "what rope_parameters says; remove either")),
                false => Ok(rotary),
            }
        }
    }
}

/// Positions: with a scaling factor the base grows with texts that are longer than those of the training.
fn context(config: &Config) -> Result<usize, ConfigError> {
    let all = config.size("max_position_embeddings")?;
    match (config.optional_positive("rotary_scaling_factor")?, config.optional_size("max_trained_positions")?) {
        (Some(_), Some(trained)) => Ok(all.min(trained)),
        (Some(_), None) => Err(config.missing("max_trained_positions", "a size, where there is rotary_scaling_factor")),
        (None, _) => Ok(all),
    }
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let width = spec.layers.get(layer as usize)?.attention()?.query_width();
            let name = |matrix: &str| prefixed(&format!("encoder.layers.{layer}.{matrix}"), part);
            match role {
                Role::Query => name("attn.Wqkv").fused(0, 3 * width),
                Role::Key => name("attn.Wqkv").fused(width, 3 * width),
                Role::Value => name("attn.Wqkv").fused(2 * width, 3 * width),
                Role::Output => name("attn.out_proj"),
                Role::Gate => name("mlp.fc12"),
                Role::Up => name("mlp.fc11"),
                Role::Down => name("mlp.fc2"),
                _ => return None,
            }
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("embeddings.word_embeddings", part),
            Role::TypeEmbedding => prefixed("embeddings.token_type_embeddings", part),
            Role::Pooler => prefixed("pooler.dense", part),
            Role::Classifier => bare("classifier", part),
            Role::MlmTransform => bare("cls.predictions.transform.dense", part),
            Role::LmHead if part == Part::Bias => TensorName::bare("cls.predictions.bias"),
            Role::LmHead => bare("cls.predictions.decoder", part),
            _ => return None,
        },
        ParameterId::Norm(layer, site, part) => match (layer, site) {
            (None, NormSite::Embedding) => prefixed("emb_ln", part),
            (None, NormSite::MlmTransform) => bare("cls.predictions.transform.layer_norm", part),
            (Some(layer), NormSite::Attention) => prefixed(&format!("encoder.layers.{layer}.norm1"), part),
            (Some(layer), NormSite::Ffn) => prefixed(&format!("encoder.layers.{layer}.norm2"), part),
            _ => return None,
        },
        ParameterId::Kernel(..) | ParameterId::KeyMap(..) => return None,
    })
}
