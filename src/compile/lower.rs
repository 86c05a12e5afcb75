//! Lowers a model's specification to the device's records and memory plan: `ModelSpec` to `ModelRecord`, `LayerRecord`s
//! and function tables. Does not read weights.

use super::kv::KvFormat;
use super::tables::{curve_entry, curve_id, rotary_entry};
use crate::model::graph::{Graph, Input};
use crate::model::spec::{
    ClassifierState, Function, Head, LayerSpec, Mixer, ModelSpec, Norm, NormKind, NormPlacement, Pooling, Positions,
    QueryKeyNorm, RotarySpec,
};
use slm_runtime::format::spec::{
    self as format, Block, CurveId, ExitHead, FfnKind, HeadMatrix, LayerCacheFormat, LayerRecord, MAX_CHUNK,
    ModelRecord, NONE, Output, Stacks,
};
use slm_runtime::numerics::LOG2E_Q15;
use slm_runtime::plan::{Plan, STACK_BYTES};
use std::collections::BTreeSet;

/// Most bytes of logits computed together: enough to read the head's weights once for many positions.
const OUTPUT_BYTES: usize = 1 << 20;

/// The device's view of a specification.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The model.
    pub model: ModelRecord,
    /// Its layers.
    pub layers: Vec<LayerRecord>,
    /// Content of the functions section.
    pub functions: Vec<u8>,
}

/// A specification that the format cannot express.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LowerError {
    /// A dimension is larger than artifacts may state.
    #[error("`{name}` is {value}, artifacts allow up to {limit}")]
    Dimension {
        /// Name of the dimension.
        name: &'static str,
        /// Its value in the model.
        value: usize,
        /// The format's maximum.
        limit: usize,
    },
    /// A norm's epsilon differs between embedding, final norm and head.
    #[error("the norms outside the layers have different epsilons, artifacts hold one")]
    Epsilons,
    /// Values in 4 bits go in pairs.
    #[error("values in 4 bits need heads of an even width, these are {head_dim} wide; pass --kv v8")]
    OddHeads {
        /// Width of a head.
        head_dim: usize,
    },
    /// The memory plan overflows.
    #[error("the memory for a context of {context} positions is too large to plan; choose a smaller --context")]
    Plan {
        /// Context asked for.
        context: usize,
    },
}

fn norm_number(norm: Option<Norm>) -> u8 {
    match norm.map(|norm| norm.kind) {
        None => 0,
        // Weights of the offset norm are stored with the one added.
        Some(NormKind::Rms | NormKind::RmsOnePlus) => format::NormKind::Rms as u8,
        Some(NormKind::Layer) => format::NormKind::Layer as u8,
        Some(NormKind::LayerUnbiased) => format::NormKind::LayerUnbiased as u8,
    }
}

fn lower_layer(layer: &LayerSpec, tables: &[(RotarySpec, usize)], key_maps: bool) -> LayerRecord {
    let common = LayerRecord {
        block: Block::Conv as u8,
        norm: norm_number(Some(layer.norm)),
        norm_placement: match layer.norm_placement {
            NormPlacement::Pre => format::NormPlacement::Before,
            NormPlacement::Post => format::NormPlacement::After,
            NormPlacement::Around => format::NormPlacement::Around,
            NormPlacement::Beside => format::NormPlacement::Beside,
            NormPlacement::Added => format::NormPlacement::Added,
            NormPlacement::Common => format::NormPlacement::Common,
            NormPlacement::Network => format::NormPlacement::Network,
        } as u8,
        ffn: if layer.ffn.gated { FfnKind::Gated } else { FfnKind::Plain } as u8,
        activation: curve_id(layer.ffn.activation) as u8,
        ffn_width: (layer.ffn.width / layer.ffn.experts()) as u32,
        experts: layer.ffn.mixture.map_or(0, |mixture| mixture.experts as u16),
        chosen: layer.ffn.mixture.map_or(0, |mixture| mixture.chosen as u16),
        epsilon: layer.norm.epsilon as f32,
        ..LayerRecord::from_bytes(&[0; LayerRecord::BYTES])
    };
    match &layer.mixer {
        Mixer::Attention(attention) => LayerRecord {
            block: Block::Attention as u8,
            rotary: attention.rotary.map_or(0, |rotary| table_number(tables, &(rotary, attention.head_dim))),
            key_map: u8::from(key_maps),
            query_key_norm: match attention.query_key_norm {
                None => 0,
                Some(QueryKeyNorm::Heads) => format::QueryKeyNorm::Heads as u8,
                Some(QueryKeyNorm::Together) => format::QueryKeyNorm::Together as u8,
            },
            heads: attention.heads as u32,
            key_value_heads: attention.key_value_heads as u32,
            head_dim: attention.head_dim as u32,
            window: attention.window.unwrap_or(0) as u32,
            score_scale: (LOG2E_Q15 * attention.score_scale) as f32,
            score_cap: (LOG2E_Q15 * attention.score_cap.unwrap_or(0.0)) as f32,
            ..common
        },
        Mixer::Conv(conv) => LayerRecord { taps: conv.taps as u32, ..common },
    }
}

fn pooling(pooling: Pooling) -> format::Pooling {
    match pooling {
        Pooling::First => format::Pooling::First,
        Pooling::Mean => format::Pooling::Mean,
        Pooling::Maximum => format::Pooling::Maximum,
        Pooling::Last => format::Pooling::Last,
    }
}

/// The curve a function is computed by: tanh(x) = 2 · sigmoid(2x) − 1, whose sigmoid is SiLU's.
fn curve_of(function: Function) -> u8 {
    match function {
        Function::Activation(activation) => curve_id(activation) as u8,
        Function::Tanh => CurveId::Silu as u8,
    }
}

/// Whether scores or logits are capped, by the tanh of SiLU's curve.
fn model_caps(spec: &ModelSpec) -> bool {
    let of_layer = |layer: &LayerSpec| layer.attention().is_some_and(|attention| attention.score_cap.is_some());
    spec.logit_cap().is_some() || spec.layers.iter().any(of_layer)
}

/// Number of a rotary table, from 1.
fn table_number(tables: &[(RotarySpec, usize)], table: &(RotarySpec, usize)) -> u8 {
    tables.iter().position(|other| other == table).map_or(0, |index| index as u8 + 1)
}

/// The distinct rotary tables of the layers, in layer order.
fn rotary_tables(spec: &ModelSpec) -> Vec<(RotarySpec, usize)> {
    let mut tables = Vec::new();
    for attention in spec.layers.iter().filter_map(LayerSpec::attention) {
        let table = attention.rotary.map(|rotary| (rotary, attention.head_dim));
        tables.extend(table.filter(|table| !tables.contains(table)));
    }
    tables
}

/// Widths and counts of a layer that the format limits.
fn dimensions((layer, inputs): (&LayerSpec, &Vec<Input>)) -> [(&'static str, usize, usize); 2] {
    let limit = format::MAX_DIMENSION as usize;
    let widest = inputs.iter().flat_map(|input| &input.readers).filter(|linear| !linear.into_residual);
    let taps = match &layer.mixer {
        Mixer::Attention(_) => 0,
        Mixer::Conv(conv) => conv.taps,
    };
    [
        ("layer width", widest.map(|linear| linear.rows).max().unwrap_or(0), limit),
        ("taps of the convolution", taps, format::MAX_TAPS as usize),
    ]
}

/// Lowers a specification for `context` positions with `chunk` tokens together, at most [`MAX_CHUNK`].
pub fn lower(
    spec: &ModelSpec,
    context: usize,
    chunk: usize,
    kv: KvFormat,
    key_maps: bool,
    wide_activations: bool,
    strip_leading_space: bool,
) -> Result<Lowered, LowerError> {
    let limit = format::MAX_DIMENSION as usize;
    let tables = rotary_tables(spec);
    let of_model = [
        ("vocab_size", spec.vocabulary, limit),
        ("hidden_size", spec.hidden, limit),
        ("context", context, limit),
        ("num_labels", spec.output_width(), limit),
        ("number of rotary tables", tables.len(), format::MAX_TABLES as usize),
    ];
    let graph = Graph::new(spec);
    let of_layers = spec.layers.iter().zip(&graph.layers).flat_map(dimensions);
    for (name, value, limit) in of_model.into_iter().chain(of_layers) {
        if value > limit {
            return Err(LowerError::Dimension { name, value, limit });
        }
    }
    if spec.layers.len() > format::MAX_LAYERS as usize {
        let (value, limit) = (spec.layers.len(), format::MAX_LAYERS as usize);
        return Err(LowerError::Dimension { name: "num_hidden_layers", value, limit });
    }
    let (output, head_activation, head_norm) = match &spec.head {
        Head::Hidden => (Output::Hidden, 0, None),
        Head::LanguageModel { .. } => (Output::LanguageModel, 0, None),
        Head::MaskedLanguageModel { activation, norm, .. } => {
            (Output::MaskedLanguageModel, curve_id(*activation) as u8, Some(*norm))
        }
        Head::TokenClassifier { .. } => (Output::TokenClassifier, 0, None),
        Head::Answers { .. } => (Output::Answers, 0, None),
        Head::LastClassifier { .. } => (Output::Classifier, 0, None),
        Head::Classifier { function: Function::Tanh, norm, .. } => (Output::Classifier, 0, *norm),
        Head::Classifier { function: Function::Activation(activation), norm, .. } => {
            (Output::Classifier, curve_id(*activation) as u8, *norm)
        }
    };
    let outside: Vec<f64> =
        [spec.embedding_norm, spec.final_norm, head_norm].iter().flatten().map(|norm| norm.epsilon).collect();
    if outside.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(LowerError::Epsilons);
    }
    let chunk = chunk.clamp(1, MAX_CHUNK);
    let mut layers: Vec<LayerRecord> = spec.layers.iter().map(|layer| lower_layer(layer, &tables, key_maps)).collect();
    for &after in &spec.exits {
        layers[after - 1].exit_head = 1;
    }
    for (index, layer) in layers.iter_mut().enumerate().filter(|(_, layer)| layer.block == Block::Attention as u8) {
        // A ring of what the window sees, where that is less than everything.
        let ring = spec.causal && layer.window > 0 && layer.window as usize + chunk - 1 < context;
        let nibbles = kv.has_nibbles(index);
        if nibbles && !layer.head_dim.is_multiple_of(2) {
            return Err(LowerError::OddHeads { head_dim: layer.head_dim as usize });
        }
        layer.cache_format = LayerCacheFormat::with(ring, nibbles) as u8;
    }
    let curves: BTreeSet<u8> = graph.inputs().filter_map(|input| input.function).map(curve_of).collect();
    let capped = model_caps(spec).then_some(CurveId::Silu as u8);
    let curves: BTreeSet<u8> = curves.into_iter().chain(capped).collect();
    let mut functions = Vec::new();
    functions.extend((tables.len() as u32).to_le_bytes());
    functions.extend((curves.len() as u32).to_le_bytes());
    for (rotary, head_dim) in &tables {
        functions.extend(rotary_entry(rotary, *head_dim, context));
    }
    for curve in curves.iter().filter_map(|&number| CurveId::from_number(number)) {
        functions.extend(curve_entry(curve));
    }
    let output_rows = (OUTPUT_BYTES / (4 * spec.output_width())).clamp(1, chunk);
    let mut model = ModelRecord {
        // An encoder whose positions see those before them alone is read as a decoder is, chunk by chunk.
        kind: if spec.causal { format::ModelKind::Decoder } else { format::ModelKind::Encoder } as u8,
        output: output as u8,
        embedding_norm: norm_number(spec.embedding_norm),
        final_norm: norm_number(spec.final_norm),
        head_activation,
        tied_head: if spec.tied_head() { HeadMatrix::TokenTable } else { HeadMatrix::Own } as u8,
        learned_positions: u8::from(spec.positions == Positions::Learned),
        strip_leading_space: u8::from(strip_leading_space),
        exit_head: if spec.exits.is_empty() { ExitHead::LastLayer } else { ExitHead::Layers } as u8,
        wide_activations: u8::from(wide_activations),
        stacks: Stacks::One as u8,
        reserved: 0,
        layers: layers.len() as u32,
        hidden: spec.hidden as u32,
        vocabulary: spec.vocabulary as u32,
        token_types: spec.token_types as u32,
        context: context as u32,
        output_width: spec.output_width() as u32,
        bos: spec.opening.first().copied().unwrap_or(NONE),
        eos: spec.ends.first().copied().unwrap_or(NONE),
        epsilon: outside.first().copied().unwrap_or(0.0) as f32,
        chunk: chunk as u32,
        output_rows: output_rows as u32,
        arena_bytes: 0,
        cache_bytes: 0,
        stack_bytes: STACK_BYTES,
        embedding_scale: spec.embedding_scale,
        pooling: match spec.head {
            Head::Classifier { state: ClassifierState::Mean, .. } => format::Pooling::Mean as u8,
            _ => spec.embedding.map_or(0, |embedding| pooling(embedding.pooling) as u8),
        },
        normalize: u8::from(spec.embedding.is_some_and(|embedding| embedding.normalize)),
        reserved_first: [0; 10],
        separator: match spec.head {
            Head::Answers { separator } => separator.map_or(0, |token| token + 1),
            _ => 0,
        },
        embedding_width: if spec.projects_embeddings() { spec.embedding_width as u32 } else { 0 },
        // A layer norm goes without saying in masked language models.
        head_norm: match (&spec.head, head_norm) {
            (Head::MaskedLanguageModel { .. }, Some(Norm { kind: NormKind::Layer, .. })) => 0,
            (_, norm) => norm_number(norm),
        },
        reserved_end: [0; 19],
        logit_cap: spec.logit_cap().unwrap_or(0.0) as f32,
    };
    let plan = Plan::new(&model, layers.iter().copied()).ok_or(LowerError::Plan { context })?;
    (model.arena_bytes, model.cache_bytes) = (plan.arena_bytes, plan.cache_bytes);
    Ok(Lowered { model, layers, functions })
}
