//! ModernBERT: a pre-norm encoder with rotary positions, gated networks and norms without biases, whose layers see a window on both
//! sides of a token, but for every third, which sees all; the first layer has no norm before its attention. Bare
//! (`ModernBertModel`), as a masked language model, or with a sequence classifier over the first state or the mean of all. Both heads
//! begin with a dense layer, a function and a norm. Query, key and value, and both matrices of the gate, are fused.

use super::class_defaults::ClassDefault;
use super::classifier::labels;
use super::encoder::{self, bare};
use super::fewer_layers::counted;
use super::narrower::WidthKeys;
use super::rotary::settings;
use super::{Family, TensorName, architecture, gelu, head_width, layer_count, refuse_unless};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, ClassifierState, FfnSpec, Function, Head, LayerSpec, Mixer, ModelSpec, Norm, NormKind,
    NormPlacement, Positions, RotarySpec,
};
use serde_json::{Value, json};

const NAME: &str = "modernbert";
const BARE: &str = "ModernBertModel";
const MASKED: &str = "ModernBertForMaskedLM";
const CLASSIFIER: &str = "ModernBertForSequenceClassification";
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";
const EVERY: &str = "global_attn_every_n_layers";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 18] = [
    ("vocab_size", ClassDefault::Size(50368)),
    ("hidden_size", ClassDefault::Size(768)),
    ("num_hidden_layers", ClassDefault::Size(22)),
    ("num_attention_heads", ClassDefault::Size(12)),
    ("intermediate_size", ClassDefault::Size(1152)),
    ("hidden_activation", ClassDefault::Text("gelu")),
    ("classifier_activation", ClassDefault::Text("gelu")),
    ("classifier_pooling", ClassDefault::Text("cls")),
    ("max_position_embeddings", ClassDefault::Count(8192)),
    ("local_attention", ClassDefault::Count(128)),
    ("norm_eps", ClassDefault::Number(1e-5)),
    ("norm_bias", ClassDefault::Flag(false)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("mlp_bias", ClassDefault::Flag(false)),
    ("classifier_bias", ClassDefault::Flag(false)),
    ("decoder_bias", ClassDefault::Flag(true)),
    ("eos_token_id", ClassDefault::Count(50282)),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &["model.", ""],
    token_table: "embeddings.tok_embeddings.weight",
    defaults: &DEFAULTS,
    aliases: &[],
    spec,
    source,
    ignored: |_, _| false,
    copies: |spec| encoder::copies(spec, "decoder.weight", None),
    layer_count: "num_hidden_layers",
    with_layers,
    widths: WidthKeys::shared("num_attention_heads", "intermediate_size", "hidden_size"),
    classifier: Some(CLASSIFIER),
    heads: &[
        (&["head.dense.weight", "classifier.weight"], CLASSIFIER),
        (&["head.dense.weight"], MASKED),
        (&["embeddings.tok_embeddings.weight"], BARE),
    ],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    refuse_unless(config, NAME, &[("is_decoder", json!(false)), ("add_cross_attention", json!(false))])?;
    let hidden = config.size("hidden_size")?;
    let heads = config.size("num_attention_heads")?;
    let head_dim = head_width(config, "num_attention_heads", hidden, heads)?;
    let kind = if config.flag("norm_bias")? { NormKind::Layer } else { NormKind::LayerUnbiased };
    let norm = Norm { kind, epsilon: config.positive("norm_eps")? };
    let (full, sliding) = rotary(config)?;
    let bias = config.flag("attention_bias")?;
    let attention = AttentionSpec {
        input_bias: bias,
        output_bias: bias,
        rotary: Some(full),
        ..AttentionSpec::plain(heads, head_dim)
    };
    // The width of a window on both sides together; a token sees half of it on each, and itself.
    let window = Some(config.size("local_attention")? / 2 + 1);
    let ffn = FfnSpec {
        bias: config.flag("mlp_bias")?,
        ..FfnSpec::plain(
            config.size("intermediate_size")?,
            true,
            gelu(config, "hidden_activation", NAME, "gelu, gelu_new, gelu_pytorch_tanh")?,
        )
    };
    let layer = |(number, slides): (usize, bool)| LayerSpec {
        mixer: Mixer::Attention(match slides {
            true => AttentionSpec { rotary: Some(sliding), window, ..attention },
            false => attention,
        }),
        ffn,
        norm,
        norm_placement: if number == 0 { NormPlacement::Network } else { NormPlacement::Pre },
    };
    let layers = sliding_layers(config)?.into_iter().enumerate().map(layer).collect();
    let context = config.size("max_position_embeddings")?;
    let spec = encoder::of_layers(config, NAME, (hidden, context), layers, norm, head(config, norm)?)?;
    Ok(ModelSpec { positions: Positions::Rotary, final_norm: Some(norm), ..spec })
}

fn head(config: &Config, norm: Norm) -> Result<Head, ConfigError> {
    let bias = config.flag("classifier_bias")?;
    let function = || -> Result<Activation, ConfigError> {
        gelu(config, "classifier_activation", NAME, "gelu, gelu_new, gelu_pytorch_tanh")
    };
    Ok(match architecture(config)? {
        Some(BARE) => Head::Hidden,
        Some(MASKED) => Head::MaskedLanguageModel {
            activation: function()?,
            norm,
            tied: config.flag("tie_word_embeddings")?,
            biases: [bias, config.flag("decoder_bias")?],
        },
        Some(CLASSIFIER) => Head::Classifier {
            state: match config.text("classifier_pooling")? {
                "cls" => ClassifierState::First,
                "mean" => ClassifierState::Mean,
                _ => return Err(config.unsupported("classifier_pooling", NAME, "cls, mean")),
            },
            function: Function::Activation(function()?),
            norm: Some(norm),
            bias,
            labels: labels(config)?,
        },
        _ => {
            let supported = "ModernBertModel, ModernBertForMaskedLM, ModernBertForSequenceClassification";
            return Err(config.unsupported("architectures", NAME, supported));
        }
    })
}

/// Which layers slide: by `layer_types`, or all but every n-th, from the first.
fn sliding_layers(config: &Config) -> Result<Vec<bool>, ConfigError> {
    let layers = layer_count(config, "num_hidden_layers")?;
    if config.value("layer_types").is_some() {
        let types = super::decoder::layer_types(config, NAME, [FULL, SLIDING])?.unwrap_or_default();
        return Ok(types.into_iter().map(|kind| kind == SLIDING).collect());
    }
    let every = config.optional_size(EVERY)?.unwrap_or(3);
    Ok((0..layers).map(|number| !number.is_multiple_of(every)).collect())
}

/// With fewer layers, which of them slide is said by `layer_types`: no pattern does.
fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let mut map = counted(config, "num_hidden_layers", kept);
    if config.value("layer_types").is_none() {
        let sliding = sliding_layers(config)?;
        let kind = |layer: &usize| sliding.get(*layer).map(|slides| if *slides { SLIDING } else { FULL });
        map.insert("layer_types".to_owned(), json!(kept.iter().filter_map(kind).collect::<Vec<_>>()));
        map.remove(EVERY);
    }
    Ok(Config::from_map(config.file(), map))
}

/// Rotary settings of layers that see everything and of those that slide: `rope_parameters` has a section for each, the older
/// spelling has `global_rope_theta` and `local_rope_theta`.
fn rotary(config: &Config) -> Result<(RotarySpec, RotarySpec), ConfigError> {
    refuse_unless(config, NAME, &[("rope_scaling", Value::Null)])?;
    let global = config.optional_positive("global_rope_theta")?.unwrap_or(160_000.0);
    let local = config.optional_positive("local_rope_theta")?.unwrap_or(10_000.0);
    let Some(parameters) = config.section("rope_parameters")? else {
        return Ok((RotarySpec::plain(global), RotarySpec::plain(local)));
    };
    if let Some(key) = parameters.map().keys().find(|key| ![FULL, SLIDING].contains(&key.as_str())) {
        return Err(parameters.unsupported(key, NAME, "a section for each of full_attention and sliding_attention"));
    }
    let kind = |name: &'static str, theta: f64| match parameters.section(name)? {
        Some(section) => {
            refuse_unless(&section, NAME, &[("partial_rotary_factor", json!(1)), ("rope_type", json!("default"))])?;
            settings(config, &section, NAME, RotarySpec::plain(theta))
        }
        None => Ok(RotarySpec::plain(theta)),
    };
    Ok((kind(FULL, global)?, kind(SLIDING, local)?))
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let prefixed = |stem: String, part: Part| TensorName::prefixed(format!("{stem}.{}", part.name()));
    Some(match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, part) => {
            let of_layer = spec.layers.get(layer as usize)?;
            let (width, ffn) = (of_layer.attention()?.query_width(), of_layer.ffn.width);
            let fused = |matrix: &str, number: usize, rows: usize, all: usize| {
                prefixed(format!("layers.{layer}.{matrix}"), part).fused(number * rows, all * rows)
            };
            match role {
                Role::Query => fused("attn.Wqkv", 0, width, 3),
                Role::Key => fused("attn.Wqkv", 1, width, 3),
                Role::Value => fused("attn.Wqkv", 2, width, 3),
                Role::Output => prefixed(format!("layers.{layer}.attn.Wo"), part),
                Role::Gate => fused("mlp.Wi", 0, ffn, 2),
                Role::Up => fused("mlp.Wi", 1, ffn, 2),
                Role::Down => prefixed(format!("layers.{layer}.mlp.Wo"), part),
                _ => return None,
            }
        }
        ParameterId::Linear(LinearId { layer: None, role }, part) => match role {
            Role::TokenEmbedding => prefixed("embeddings.tok_embeddings".to_owned(), part),
            Role::MlmTransform | Role::Pooler => bare("head.dense", part),
            Role::LmHead => bare("decoder", part),
            Role::Classifier => bare("classifier", part),
            _ => return None,
        },
        ParameterId::Norm(layer, site, part) => match (layer, site) {
            (None, NormSite::Embedding) => prefixed("embeddings.norm".to_owned(), part),
            (None, NormSite::Final) => prefixed("final_norm".to_owned(), part),
            (None, NormSite::MlmTransform) => bare("head.norm", part),
            (Some(layer), NormSite::Attention) => prefixed(format!("layers.{layer}.attn_norm"), part),
            (Some(layer), NormSite::Ffn) => prefixed(format!("layers.{layer}.mlp_norm"), part),
            _ => return None,
        },
        ParameterId::Kernel(..) | ParameterId::KeyMap(..) => return None,
    })
}
