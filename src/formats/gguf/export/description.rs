//! A specification as the keys of its architecture: what [`super::super::configuration`] reads. What the architecture implies
//! and the model does otherwise is refused; a sliding window that the architecture's readers do not have is a loss.

use super::super::architecture::{Architecture, FIRST, LAST, MEAN, NOT_POOLED, POOLING, RANK, Shape};
use super::NAME;
use super::keys::Keys;
use crate::formats::export::{Described, ExportError, ExportPlan, Loss};
use crate::model::id::{LinearId, NormSite, ParameterId, Role};
use crate::model::spec::{
    Activation, AttentionSpec, ClassifierState, Function, Head, LayerSpec, Mixer, ModelSpec, Pooling, Positions,
    RotaryScaling, RotarySpec,
};

/// Layers of the Gemma 3 whose scores are scaled by hidden / heads.
const GEMMA_27B_LAYERS: usize = 62;
/// Every n-th layer of Gemma 3 attends to everything, where no key says n.
const GEMMA_PATTERN: usize = 6;

fn not_said(what: impl Into<String>, why: impl Into<String>) -> ExportError {
    ExportError::NotSaid { format: NAME, what: what.into(), why: why.into() }
}

/// The value that all layers share.
fn shared<T: PartialEq>(values: impl IntoIterator<Item = T>, what: &str) -> Result<Option<T>, ExportError> {
    let mut values = values.into_iter();
    let Some(first) = values.next() else { return Ok(None) };
    match values.all(|value| value == first) {
        true => Ok(Some(first)),
        false => Err(not_said(
            format!("layers with {what} of their own"),
            "it has one for all; export the model as safetensors",
        )),
    }
}

fn attentions(spec: &ModelSpec) -> impl Iterator<Item = &AttentionSpec> {
    spec.layers.iter().filter_map(LayerSpec::attention)
}

/// What the layers have in common, as keys need it.
struct Shared {
    width: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    epsilon: f64,
}

fn in_common(spec: &ModelSpec) -> Result<Shared, ExportError> {
    let heads = attentions(spec).map(|own| (own.heads, own.key_value_heads, own.head_dim));
    let (heads, key_value_heads, head_dim) = shared(heads, "heads")?.unwrap_or((1, 1, 1));
    let layers = || spec.layers.iter();
    Ok(Shared {
        width: shared(layers().map(|layer| layer.ffn.width), "a width")?.unwrap_or(0),
        heads,
        key_value_heads,
        head_dim,
        epsilon: shared(layers().map(|layer| layer.norm.epsilon), "an epsilon")?.unwrap_or(1e-5),
    })
}

/// Refuses what the architecture implies otherwise, and notes what its readers leave out.
///
/// # Errors
/// What cannot be said.
pub(super) fn check(
    architecture: &Architecture,
    model: &Described<'_>,
    plan: &mut ExportPlan,
) -> Result<(), ExportError> {
    let spec = model.spec;
    if matches!(spec.head, Head::LastClassifier { .. }) {
        let why = "its readers rank by another head; export the model as safetensors";
        return Err(not_said("a classifier over the last token", why));
    }
    if !spec.causal && architecture.shape != Shape::Bert {
        let why = "its readers take a decoder; export the model as safetensors";
        return Err(not_said("positions that see both ways", why));
    }
    check_head(architecture, spec)?;
    let Shared { heads, head_dim, .. } = in_common(spec)?;
    let activation = match architecture.shape {
        Shape::Gemma3 | Shape::Gpt2 => Activation::GeluTanh,
        Shape::Bert => Activation::Gelu,
        _ => Activation::Silu,
    };
    if spec.layers.iter().any(|layer| layer.ffn.activation != activation) {
        let why = format!("`{}` stands for {activation:?}; export the model as safetensors", architecture.name);
        return Err(not_said("another activation", why));
    }
    let score_width = match architecture.shape {
        Shape::Gemma3 if spec.layers.len() == GEMMA_27B_LAYERS => spec.hidden / heads.max(1),
        _ => head_dim,
    };
    let implied = 1.0 / (score_width as f64).sqrt();
    if attentions(spec).any(|own| (own.score_scale - implied).abs() > 1e-9 * implied) {
        let why = format!("it has no key for it, and readers take 1/√{score_width}; export the model as safetensors");
        return Err(not_said("the factor on scores (query_pre_attn_scalar)", why));
    }
    if architecture.shape == Shape::Phi3 && heads * head_dim != spec.hidden {
        return Err(not_said("heads that do not share the hidden width", "`phi3` has no key for their width"));
    }
    check_rotary(architecture, spec)?;
    windows(architecture, spec, plan);
    notes(architecture, spec, plan);
    Ok(())
}

/// Refuses poolings and classifiers for which readers compute something else.
fn check_head(architecture: &Architecture, spec: &ModelSpec) -> Result<(), ExportError> {
    let pooling = spec.embedding.map(|embedding| embedding.pooling);
    if pooling == Some(Pooling::Maximum) {
        return Err(not_said(
            "pooling by the largest value",
            "it has mean, cls and lasttoken; export the model as safetensors",
        ));
    }
    // Without a pooling a decoder's file is that of a generator, whose head is the token table.
    if spec.head == Head::Hidden && architecture.shape != Shape::Bert && pooling != Some(Pooling::Last) {
        let why = "its readers would generate text with it; put modules.json and 1_Pooling of its sentence encoder \
                   beside the model, or export it as safetensors";
        return Err(not_said(format!("the hidden states of this {} without a pooling", spec.family), why));
    }
    if let Head::Classifier { state, function, norm, bias, .. } = &spec.head {
        let implied = *state == ClassifierState::First && *function == Function::Tanh && norm.is_none() && *bias;
        if !implied {
            let why = "its readers take tanh over the first token, with a bias and without a norm; export the model as \
                       safetensors";
            return Err(not_said(format!("the pooler of this {}", spec.family), why));
        }
    }
    Ok(())
}

fn check_rotary(architecture: &Architecture, spec: &ModelSpec) -> Result<(), ExportError> {
    let rotations = || attentions(spec).filter_map(|own| own.rotary);
    let elsewhere = "slmc does not write it; export the model as safetensors";
    let other = |scaling| !matches!(scaling, None | Some(RotaryScaling::Llama3(_)));
    if rotations().any(|rotary| other(rotary.scaling) || rotary.factor != 1.0) {
        return Err(not_said("this scaling of rotary positions", elsewhere));
    }
    if rotations().any(|rotary| rotary.turning.is_some()) {
        return Err(not_said("rotary positions of a part of a head", elsewhere));
    }
    let scaled = rotations().any(|rotary| rotary.scaling.is_some());
    if scaled && !architecture.scales_frequencies {
        let why = format!("`{}` has no place for its frequencies; export the model as safetensors", architecture.name);
        return Err(not_said("Llama 3's scaling of rotary positions", why));
    }
    if architecture.shape == Shape::Gemma3 {
        return Ok(());
    }
    shared(attentions(spec).map(|own| own.rotary), "rotary positions").map(drop)
}

/// A window of which an architecture's readers know nothing.
fn windows(architecture: &Architecture, spec: &ModelSpec, plan: &mut ExportPlan) {
    let Some(window) = attentions(spec).find_map(|own| own.window) else { return };
    match architecture.shape {
        Shape::Gemma3 => {}
        Shape::Phi3 => plan.notes.push(format!(
            "llama.cpp does not read the key of the sliding window: there, texts of more than {window} tokens see all of their past"
        )),
        _ => plan.losses.push(Loss {
            feature: "sliding window",
            matrices: Vec::new(),
            instead: format!("the format has no key for it, and texts of more than {window} tokens see all of their past"),
        }),
    }
}

fn notes(architecture: &Architecture, spec: &ModelSpec, plan: &mut ExportPlan) {
    if spec.embedding.is_some_and(|embedding| embedding.normalize) {
        let note =
            "embeddings are scaled to length one by the program that asks for them, as llama.cpp does by default";
        plan.notes.push(note.to_owned());
    }
    let exact = (spec.hidden as f64).sqrt() as f32;
    if architecture.shape == Shape::Gemma3 && spec.embedding_scale != exact {
        plan.notes.push(format!(
            "llama.cpp multiplies embeddings by {exact}, which this model rounds to {} as transformers does",
            spec.embedding_scale
        ));
    }
    let has_conv_bias = |layer: &LayerSpec| matches!(layer.mixer, Mixer::Conv(conv) if conv.bias);
    if spec.layers.iter().any(has_conv_bias) {
        plan.notes.push("llama.cpp has no biases of short convolutions and refuses the file".to_owned());
    }
}

/// Notes parameters that have no place: the head of a masked-language model, which no reader has.
///
/// # Errors
/// Any other.
pub(super) fn leave_out(homeless: &[ParameterId], plan: &mut ExportPlan) -> Result<(), ExportError> {
    let in_head = |id: &ParameterId| match id {
        ParameterId::Linear(LinearId { layer: None, role }, _) => matches!(role, Role::MlmTransform | Role::LmHead),
        ParameterId::Norm(None, site, _) => *site == NormSite::MlmTransform,
        _ => false,
    };
    if let Some(&id) = homeless.iter().find(|id| !in_head(id)) {
        return Err(ExportError::NoPlace { format: NAME, id });
    }
    if !homeless.is_empty() {
        plan.losses.push(Loss {
            feature: "masked-token head",
            matrices: Vec::new(),
            instead: "the file gives hidden states".to_owned(),
        });
    }
    Ok(())
}

/// Writes the keys of the architecture.
///
/// # Errors
/// Layers that differ where one key stands for all.
pub(super) fn describe(architecture: &Architecture, spec: &ModelSpec, keys: &mut Keys) -> Result<(), ExportError> {
    let key = |name: &str| architecture.key(name);
    let Shared { width, heads, key_value_heads, head_dim, epsilon } = in_common(spec)?;
    keys.size(&key("vocab_size"), spec.vocabulary);
    keys.size(&key("context_length"), spec.context);
    keys.size(&key("embedding_length"), spec.hidden);
    keys.size(&key("block_count"), spec.layers.len());
    keys.size(&key("feed_forward_length"), width);
    keys.size(&key("attention.head_count"), heads);
    match spec.layers.iter().all(|layer| layer.attention().is_some()) {
        true => keys.size(&key("attention.head_count_kv"), key_value_heads),
        // A layer that does not attend has none.
        false => {
            let own = |layer: &LayerSpec| layer.attention().map_or(0, |own| own.key_value_heads);
            keys.sizes(&key("attention.head_count_kv"), &spec.layers.iter().map(own).collect::<Vec<_>>());
        }
    }
    if spec.positions == Positions::Rotary {
        keys.size(&key("attention.key_length"), head_dim);
        keys.size(&key("attention.value_length"), head_dim);
        keys.size(&key("rope.dimension_count"), head_dim);
    }
    let epsilon_key = match architecture.shape {
        Shape::Gpt2 | Shape::Bert => "attention.layer_norm_epsilon",
        _ => "attention.layer_norm_rms_epsilon",
    };
    keys.number(&key(epsilon_key), epsilon);
    if architecture.shape == Shape::Bert || spec.head == Head::Hidden {
        keys.size(&key(POOLING), pooling_type(spec));
    }
    match architecture.shape {
        Shape::Gemma3 => gemma3(architecture, spec, keys),
        Shape::Bert => bert(architecture, spec, keys),
        Shape::Lfm2 => {
            let conv = spec.layers.iter().find_map(|layer| match layer.mixer {
                Mixer::Conv(conv) => Some(conv.taps),
                Mixer::Attention(_) => None,
            });
            keys.size(&key("shortconv.l_cache"), conv.unwrap_or(1));
            theta(architecture, spec, keys);
        }
        Shape::Phi3 => {
            keys.size(&key("attention.sliding_window"), attentions(spec).find_map(|own| own.window).unwrap_or(0));
            theta(architecture, spec, keys);
        }
        _ => theta(architecture, spec, keys),
    }
    Ok(())
}

/// The rotary base that all layers share; none where positions are learned.
fn theta(architecture: &Architecture, spec: &ModelSpec, keys: &mut Keys) {
    if let Some(rotary) = attentions(spec).find_map(|own| own.rotary) {
        keys.number(&architecture.key("rope.freq_base"), rotary.theta);
    }
}

/// Two rotary bases, a window, and which layers have it: every n-th attends to everything, or a list.
fn gemma3(architecture: &Architecture, spec: &ModelSpec, keys: &mut Keys) {
    let base = |rotary: Option<RotarySpec>| rotary.map_or(0.0, |rotary| rotary.theta);
    let widest = attentions(spec).map(|own| base(own.rotary)).fold(0.0, f64::max);
    let windowed = attentions(spec).any(|own| own.window.is_some());
    let slides: Vec<bool> =
        attentions(spec).map(|own| if windowed { own.window.is_some() } else { base(own.rotary) < widest }).collect();
    let of_kind = |kind: bool| {
        let own = attentions(spec).zip(&slides).find(|(_, slides)| **slides == kind).map(|(own, _)| base(own.rotary));
        own.unwrap_or(widest)
    };
    let key = |name: &str| architecture.key(name);
    keys.number(&key("rope.freq_base"), of_kind(false));
    keys.number(&key("rope.freq_base_swa"), of_kind(true));
    // A window that covers the context is none, and tells which layers slide all the same.
    let window = attentions(spec).find_map(|own| own.window).unwrap_or(spec.context);
    keys.size(&key("attention.sliding_window"), if slides.contains(&true) { window } else { 0 });
    if !slides.contains(&true) {
        return;
    }
    let every = |n: usize| slides.iter().zip(1usize..).all(|(slides, number)| *slides != number.is_multiple_of(n));
    match (1..=slides.len() + 1).find(|&n| every(n)) {
        Some(GEMMA_PATTERN) => {}
        Some(n) => keys.size(&key("attention.sliding_window_pattern"), n),
        None => keys.flags(&key("attention.sliding_window_pattern"), &slides),
    }
}

/// How the hidden states of a text become one row.
fn pooling_type(spec: &ModelSpec) -> usize {
    match (&spec.head, spec.embedding.map(|embedding| embedding.pooling)) {
        (Head::Classifier { .. }, _) => RANK,
        (_, Some(Pooling::Mean)) => MEAN,
        (_, Some(Pooling::First)) => FIRST,
        (_, Some(Pooling::Last)) => LAST,
        (_, Some(Pooling::Maximum) | None) => NOT_POOLED,
    }
}

/// Labels, and that every token sees all others.
fn bert(architecture: &Architecture, spec: &ModelSpec, keys: &mut Keys) {
    keys.flag(&architecture.key("attention.causal"), spec.causal);
    if let Head::Classifier { labels, .. } = &spec.head {
        keys.texts(&architecture.key("classifier.output_labels"), labels);
    }
    if spec.token_types > 0 {
        keys.size("tokenizer.ggml.token_type_count", spec.token_types);
    }
}
