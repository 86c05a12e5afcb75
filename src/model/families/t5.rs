//! T5: an encoder and a decoder with one token table, positions as numbers that every head adds to its scores by distance, norms
//! without offset, scores that are not scaled, and no biases. Version 1.0 has a ReLU and divides before its head, which is the
//! token table, by the root of the width; version 1.1 and FLAN-T5 have a gated GELU and a head of their own.

use super::class_defaults::ClassDefault;
use super::fewer_layers::counted;
use super::narrower::WidthKeys;
use super::{Family, TensorName, layer_count, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{
    Activation, AttentionSpec, Buckets, FfnSpec, Head, LayerSpec, Mixer, ModelKind, ModelSpec, Norm, NormKind,
    NormPlacement, Positions, Stacks, Stored,
};
use serde_json::json;

const NAME: &str = "t5";
const ARCHITECTURE: &str = "T5ForConditionalGeneration";
const DECODER_LAYERS: &str = "num_decoder_layers";
const BUCKETS: &str = "relative_attention_num_buckets";
const DISTANCE: &str = "relative_attention_max_distance";
/// As configurations written by transformers 5 say it, where the head is one of its own.
const SCALES: &str = "scale_decoder_outputs";

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 15] = [
    ("vocab_size", ClassDefault::Size(32128)),
    ("d_model", ClassDefault::Size(512)),
    ("d_kv", ClassDefault::Size(64)),
    ("d_ff", ClassDefault::Size(2048)),
    ("num_layers", ClassDefault::Size(6)),
    ("num_heads", ClassDefault::Size(8)),
    (BUCKETS, ClassDefault::Size(32)),
    (DISTANCE, ClassDefault::Count(128)),
    ("layer_norm_epsilon", ClassDefault::Number(1e-6)),
    ("feed_forward_proj", ClassDefault::Text("relu")),
    ("tie_word_embeddings", ClassDefault::Flag(true)),
    // Any number would do, since distances are all it knows; it was trained with this one.
    ("n_positions", ClassDefault::Count(512)),
    ("pad_token_id", ClassDefault::Count(0)),
    ("eos_token_id", ClassDefault::Count(1)),
    ("is_encoder_decoder", ClassDefault::Flag(true)),
];

pub(super) const FAMILY: Family = Family {
    model_type: NAME,
    prefixes: &[""],
    token_table: "shared.weight",
    defaults: &DEFAULTS,
    aliases: &[
        ("hidden_size", "d_model"),
        ("num_attention_heads", "num_heads"),
        ("num_hidden_layers", "num_layers"),
        ("head_dim", "d_kv"),
    ],
    spec,
    source,
    ignored,
    copies,
    layer_count: "num_layers",
    with_layers,
    widths: WidthKeys { head_dim: Some("d_kv"), ..WidthKeys::shared("num_heads", "d_ff", "d_model") },
    classifier: None,
    heads: &[(&[], ARCHITECTURE)],
};

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    refuse_unless(config, NAME, &[("is_encoder_decoder", json!(true)), ("is_decoder", json!(false))])?;
    let (gated, activation) = match config.text("feed_forward_proj")? {
        "relu" => (false, Activation::Relu),
        "gated-gelu" => (true, Activation::GeluTanh),
        "gated-silu" => (true, Activation::Silu),
        _ => return Err(config.unsupported("feed_forward_proj", NAME, "relu, gated-gelu, gated-silu")),
    };
    let (vocabulary, hidden) = (config.size("vocab_size")?, config.size("d_model")?);
    let attention = AttentionSpec {
        score_scale: 1.0,
        input_bias: false,
        output_bias: false,
        ..AttentionSpec::plain(config.size("num_heads")?, config.size("d_kv")?)
    };
    let norm = Norm { kind: NormKind::Rms, epsilon: config.positive("layer_norm_epsilon")? };
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention),
        ffn: FfnSpec::plain(config.size("d_ff")?, gated, activation),
        norm,
        norm_placement: NormPlacement::Pre,
    };
    let encoder_layers = layer_count(config, "num_layers")?;
    let decoder_layers = match config.value(DECODER_LAYERS) {
        Some(_) => layer_count(config, DECODER_LAYERS)?,
        None => encoder_layers,
    };
    if encoder_layers + decoder_layers > usize::from(u16::MAX) {
        return Err(config.wrong(DECODER_LAYERS, &format!("at most {} with num_layers", u16::MAX)));
    }
    let scaled = config.flag_or(SCALES, config.flag("tie_word_embeddings")?)?;
    let tied = scaled && config.flag("tie_word_embeddings")?;
    if scaled && !tied {
        return Err(config.unsupported(SCALES, NAME, "false, where tie_word_embeddings is false"));
    }
    let logits = if tied { (hidden as f64).powf(-0.5) as f32 } else { 1.0 };
    Ok(ModelSpec {
        family: NAME,
        kind: ModelKind::EncoderDecoder(Stacks { encoder_layers, start: start(config, vocabulary)? }),
        causal: true,
        vocabulary,
        hidden,
        embedding_width: hidden,
        context: config.size("n_positions")?,
        token_types: 0,
        positions: Positions::Buckets(buckets(config)?),
        embedding_scale: 1.0,
        embedding_norm: None,
        layers: vec![layer; encoder_layers + decoder_layers],
        final_norm: Some(norm),
        head: Head::LanguageModel { tied, bias: false, cap: None },
        opening: Vec::new(),
        ends: config.tokens("eos_token_id", vocabulary)?,
        embedding: None,
        longest_text: None,
        exits: Vec::new(),
        stored: Stored { logits, ..Stored::ALIKE },
    })
}

/// The token that begins what the decoder writes: padding's, where no other is stated.
fn start(config: &Config, vocabulary: usize) -> Result<u32, ConfigError> {
    const START: &str = "decoder_start_token_id";
    let key = if config.value(START).is_some() { START } else { "pad_token_id" };
    match config.tokens(key, vocabulary)?[..] {
        [start] => Ok(start),
        _ => Err(config.wrong(key, "one token, with which the decoder begins")),
    }
}

fn buckets(config: &Config) -> Result<Buckets, ConfigError> {
    let (count, distance) = (config.size(BUCKETS)?, config.size(DISTANCE)?);
    // A quarter of them tells near keys before a query apart in the encoder, half of them in the decoder.
    if !count.is_multiple_of(4) {
        return Err(config.wrong(BUCKETS, "a multiple of 4"));
    }
    if distance <= count / 2 {
        return Err(config.wrong(DISTANCE, &format!("more than half of {BUCKETS}, {}", count / 2)));
    }
    Ok(Buckets { count, distance })
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let encoder_layers = spec.encoder_layers();
    let block = |layer: u16| match usize::from(layer).checked_sub(encoder_layers) {
        None => format!("encoder.block.{layer}"),
        Some(layer) => format!("decoder.block.{layer}"),
    };
    // The network is the second part of an encoder's layer and the third of a decoder's.
    let network = |layer: u16| 1 + usize::from(spec.attends_across(layer.into()));
    let gated = spec.layers.first().is_some_and(|layer| layer.ffn.gated);
    let name = match id {
        ParameterId::Linear(LinearId { layer: Some(layer), role }, _) => {
            let block = block(layer);
            match role {
                Role::Query => format!("{block}.layer.0.SelfAttention.q"),
                Role::Key => format!("{block}.layer.0.SelfAttention.k"),
                Role::Value => format!("{block}.layer.0.SelfAttention.v"),
                Role::Output => format!("{block}.layer.0.SelfAttention.o"),
                Role::CrossQuery => format!("{block}.layer.1.EncDecAttention.q"),
                Role::CrossKey => format!("{block}.layer.1.EncDecAttention.k"),
                Role::CrossValue => format!("{block}.layer.1.EncDecAttention.v"),
                Role::CrossOutput => format!("{block}.layer.1.EncDecAttention.o"),
                Role::Gate => format!("{block}.layer.{}.DenseReluDense.wi_0", network(layer)),
                Role::Up if gated => format!("{block}.layer.{}.DenseReluDense.wi_1", network(layer)),
                Role::Up => format!("{block}.layer.{}.DenseReluDense.wi", network(layer)),
                Role::Down => format!("{block}.layer.{}.DenseReluDense.wo", network(layer)),
                _ => return None,
            }
        }
        ParameterId::Linear(LinearId { layer: None, role }, _) => match role {
            Role::TokenEmbedding => "shared".to_owned(),
            Role::EncoderBias => "encoder.block.0.layer.0.SelfAttention.relative_attention_bias".to_owned(),
            Role::DecoderBias => "decoder.block.0.layer.0.SelfAttention.relative_attention_bias".to_owned(),
            Role::LmHead => "lm_head".to_owned(),
            _ => return None,
        },
        ParameterId::Norm(Some(layer), site, _) => {
            let part = match site {
                NormSite::Attention => 0,
                NormSite::Cross => 1,
                NormSite::Ffn => network(layer),
                _ => return None,
            };
            format!("{}.layer.{part}.layer_norm", block(layer))
        }
        ParameterId::Norm(None, NormSite::Encoder, _) => "encoder.final_layer_norm".to_owned(),
        ParameterId::Norm(None, NormSite::Final, _) => "decoder.final_layer_norm".to_owned(),
        _ => return None,
    };
    let factor = if id == final_norm() { spec.stored.logits } else { 1.0 };
    Some(TensorName::prefixed(format!("{name}.weight")).times(factor))
}

fn final_norm() -> ParameterId {
    ParameterId::Norm(None, NormSite::Final, crate::model::id::Part::Weight)
}

/// A table that the first checkpoints have for attention across the stacks, which adds nothing to scores.
fn ignored(_spec: &ModelSpec, name: &str) -> bool {
    name == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
}

fn copies(spec: &ModelSpec) -> Vec<(TensorName, ParameterId)> {
    let table = ParameterId::weight(LinearId::global(Role::TokenEmbedding));
    let mut names = vec!["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
    names.extend(spec.tied_head().then_some("lm_head.weight"));
    names.into_iter().map(|name| (TensorName::bare(name), table)).collect()
}

/// Layers are numbered through both stacks, the encoder's first; of each stack some must be left.
fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let encoder_layers = layer_count(config, "num_layers")?;
    let (encoder, decoder): (Vec<usize>, Vec<usize>) = kept.iter().partition(|&&layer| layer < encoder_layers);
    let mut map = counted(config, "num_layers", &encoder);
    map.insert(DECODER_LAYERS.to_owned(), json!(decoder.len()));
    Ok(Config::from_map(config.file(), map))
}
