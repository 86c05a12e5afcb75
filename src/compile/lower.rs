//! A model's specification as the device's records, and the memory it needs: `ModelSpec` to `ModelRecord`,
//! `LayerRecord`s and function tables. Weights are not looked at.

use super::tables::{curve_entry, curve_id, rotary_entry};
use crate::model::spec::{Head, LayerSpec, ModelKind, ModelSpec, Norm, NormKind, NormPlacement, Positions};
use slm_runtime::format::spec::{self as format, CurveId, LayerRecord, MAX_CHUNK, ModelRecord, NONE, Output};
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

/// What a specification asks for that the format cannot say.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LowerError {
    /// A dimension is larger than artifacts may state.
    #[error("`{name}` is {value}, artifacts allow up to {limit}")]
    Dimension {
        /// Of the dimension.
        name: &'static str,
        /// Of the model.
        value: usize,
        /// Of the format.
        limit: usize,
    },
    /// A norm's epsilon differs between embedding, final norm and head.
    #[error("the norms outside the layers have different epsilons, artifacts hold one")]
    Epsilons,
    /// The memory plan overflows.
    #[error("the memory for a context of {context} positions is too large to plan; choose a smaller --context")]
    Plan {
        /// Asked for.
        context: usize,
    },
}

fn norm_number(norm: Option<Norm>) -> u8 {
    match norm.map(|norm| norm.kind) {
        None => 0,
        Some(NormKind::Rms) => format::NormKind::Rms as u8,
        Some(NormKind::Layer) => format::NormKind::Layer as u8,
    }
}

fn lower_layer(layer: &LayerSpec, rotary: u8, key_maps: bool) -> LayerRecord {
    let attention = &layer.attention;
    LayerRecord {
        block: 1,
        norm: norm_number(Some(layer.norm)),
        norm_placement: match layer.norm_placement {
            NormPlacement::Pre => 1,
            NormPlacement::Post => 2,
        },
        ffn: if layer.ffn.gated { 2 } else { 1 },
        activation: curve_id(layer.ffn.activation) as u8,
        rotary,
        key_map: u8::from(key_maps),
        reserved: 0,
        heads: attention.heads as u32,
        key_value_heads: attention.key_value_heads as u32,
        head_dim: attention.head_dim as u32,
        ffn_width: layer.ffn.width as u32,
        window: 0,
        score_scale: (LOG2E_Q15 * attention.score_scale) as f32,
        epsilon: layer.norm.epsilon as f32,
        reserved_end: [0; 28],
    }
}

/// Lowers a specification for `context` positions with `chunk` tokens together, at most [`MAX_CHUNK`].
pub fn lower(
    spec: &ModelSpec,
    context: usize,
    chunk: usize,
    key_maps: bool,
    strip_leading_space: bool,
) -> Result<Lowered, LowerError> {
    let limit = format::MAX_DIMENSION as usize;
    let widest = spec.layers.iter().flat_map(|l| [l.attention.query_width(), l.ffn.width]).max().unwrap_or(1);
    for (name, value) in [
        ("vocab_size", spec.vocabulary),
        ("hidden_size", spec.hidden),
        ("context", context),
        ("layer width", widest),
        ("num_labels", spec.output_width()),
    ] {
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
        Head::Classifier { .. } => (Output::Classifier, 0, None),
    };
    let outside: Vec<f64> =
        [spec.embedding_norm, spec.final_norm, head_norm].iter().flatten().map(|norm| norm.epsilon).collect();
    if outside.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(LowerError::Epsilons);
    }
    let rotary = match spec.positions {
        Positions::Rotary(rotary) => Some(rotary),
        Positions::Learned => None,
    };
    // One table per head width; layers of one model nearly always share it.
    let widths: BTreeSet<usize> = spec.layers.iter().map(|layer| layer.attention.head_dim).collect();
    let number = |head_dim: usize| widths.iter().position(|&width| width == head_dim).map_or(0, |n| n as u8 + 1);
    let layers: Vec<LayerRecord> = spec
        .layers
        .iter()
        .map(|layer| lower_layer(layer, rotary.map_or(0, |_| number(layer.attention.head_dim)), key_maps))
        .collect();
    let mut curves: BTreeSet<u8> = layers.iter().map(|layer| layer.activation).collect();
    curves.extend((head_activation != 0).then_some(head_activation));
    curves.extend((output == Output::Classifier).then_some(CurveId::Silu as u8));
    let tables = if rotary.is_some() { widths.len() } else { 0 };
    let mut functions = Vec::new();
    functions.extend((tables as u32).to_le_bytes());
    functions.extend((curves.len() as u32).to_le_bytes());
    if let Some(rotary) = rotary {
        for &head_dim in &widths {
            functions.extend(rotary_entry(&rotary, head_dim, context));
        }
    }
    for curve in curves.iter().filter_map(|&number| CurveId::from_number(number)) {
        functions.extend(curve_entry(curve));
    }
    let chunk = chunk.clamp(1, MAX_CHUNK);
    let output_rows = (OUTPUT_BYTES / (4 * spec.output_width())).clamp(1, chunk);
    let mut model = ModelRecord {
        kind: match spec.kind {
            ModelKind::Decoder => 1,
            ModelKind::Encoder => 2,
        },
        output: output as u8,
        embedding_norm: norm_number(spec.embedding_norm),
        final_norm: norm_number(spec.final_norm),
        head_activation,
        tied_head: u8::from(spec.tied_head()),
        learned_positions: u8::from(spec.positions == Positions::Learned),
        strip_leading_space: u8::from(strip_leading_space),
        exit_head: 0,
        reserved: [0; 3],
        layers: layers.len() as u32,
        hidden: spec.hidden as u32,
        vocabulary: spec.vocabulary as u32,
        token_types: spec.token_types as u32,
        context: context as u32,
        output_width: spec.output_width() as u32,
        bos: spec.bos.unwrap_or(NONE),
        eos: spec.eos.first().copied().unwrap_or(NONE),
        epsilon: outside.first().copied().unwrap_or(0.0) as f32,
        chunk: chunk as u32,
        output_rows: output_rows as u32,
        arena_bytes: 0,
        cache_bytes: 0,
        stack_bytes: STACK_BYTES,
        reserved_end: [0; 48],
    };
    let plan = Plan::new(&model, layers.iter().copied()).ok_or(LowerError::Plan { context })?;
    (model.arena_bytes, model.cache_bytes) = (plan.arena_bytes, plan.cache_bytes);
    Ok(Lowered { model, layers, functions })
}
