//! The forward on fused operations ([`slm_fused`]): the same layers as [`super::block`] has them, read off the
//! same specification, for the flex device. It stops before the last product, which the losses are computed with.

mod weights;

pub use weights::FusedWeights;

use super::batch::rotary_values;
use super::{Batch, NoTaps, Output, Tap};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, ConvSpec, FfnSpec, Head, Mixer, ModelKind, ModelSpec, Norm, NormKind, NormPlacement,
    Positions, RotarySpec,
};
use burn::tensor::Tensor;
use slm_fused::activation::activate;
use slm_fused::attention::{Shape, attention};
use slm_fused::convolution::{Kernel, convolve, without_padding};
use slm_fused::embedding::{Embedding, embed, select};
use slm_fused::linear::{Linear, linear};
use slm_fused::node::{Value, slice, tensor};
use slm_fused::norm::{Segment, norm};
use std::sync::Arc;

/// What the layers computed.
pub(crate) struct States {
    /// As [`Output::hidden_states`].
    pub(crate) hidden_states: Vec<Value>,
    /// Finished hidden states, (batch, length, hidden).
    pub(crate) last: Value,
}

/// A model ready to compute with fused operations.
pub(crate) struct FusedForward<'a> {
    spec: &'a ModelSpec,
    weights: &'a FusedWeights,
    keep_hidden_states: bool,
}

/// cos and sin, (length, head_dim / 2) each.
type Tables = Arc<[Vec<f32>; 2]>;

/// What the layers of one batch share.
struct Context {
    sequences: usize,
    length: usize,
    /// By layer; `None` for one without rotation.
    rotary: Vec<Option<Tables>>,
    present: Option<Arc<Vec<bool>>>,
}

impl Context {
    fn new(spec: &ModelSpec, batch: &Batch) -> Self {
        let [sequences, length] = batch.dims();
        let mut tables: Vec<(RotarySpec, usize, Tables)> = Vec::new();
        let mut table = |attention: &AttentionSpec| {
            let rotary = attention.rotary?;
            let same = |entry: &&(RotarySpec, usize, _)| entry.0 == rotary && entry.1 == attention.head_dim;
            if let Some((_, _, values)) = tables.iter().find(same) {
                return Some(values.clone());
            }
            let values = Arc::new(rotary_values(&rotary.frequencies(attention.head_dim), batch.start(), length));
            tables.push((rotary, attention.head_dim, values.clone()));
            Some(values)
        };
        let rotary = spec.layers.iter().map(|layer| layer.attention().and_then(&mut table)).collect();
        Context { sequences, length, rotary, present: batch.mask().map(|mask| Arc::new(mask.to_vec())) }
    }
}

/// Everything for one batch, as [`super::Forward::run`] without a graph; hidden states where they are to be kept.
pub fn run_fused(spec: &ModelSpec, weights: &FusedWeights, batch: &Batch, keep_hidden_states: bool) -> Output {
    FusedForward::new(spec, weights, keep_hidden_states).run(batch, &root_without_graph(), &mut NoTaps)
}

/// A value that records nothing.
pub(crate) fn root_without_graph() -> Value {
    Value::Plain(tensor(vec![0.0], &[1]))
}

impl<'a> FusedForward<'a> {
    /// `weights` must have every parameter of `spec`.
    pub(crate) fn new(spec: &'a ModelSpec, weights: &'a FusedWeights, keep_hidden_states: bool) -> Self {
        FusedForward { spec, weights, keep_hidden_states }
    }

    /// Embeddings and layers; in the graph of `root`, where that is recorded.
    pub(crate) fn states(&self, batch: &Batch, root: &Value, tap: &mut dyn Tap) -> States {
        let context = Context::new(self.spec, batch);
        let mut hidden_states = Vec::new();
        let mut hidden = self.embed(batch, root);
        for layer in 0..self.spec.layers.len() {
            if self.keep_hidden_states {
                hidden_states.push(hidden.clone());
            }
            hidden = self.block(layer, hidden, &context, tap);
        }
        if let Some(norm) = self.spec.final_norm {
            hidden = self.norm(&hidden, norm, None, NormSite::Final);
        }
        if self.keep_hidden_states {
            hidden_states.push(hidden.clone());
        }
        States { hidden_states, last: hidden }
    }

    /// What the last product reads, (rows, width): the chosen rows of (batch · length) finished states, a classifier's of
    /// (batch), through what the head has before that product.
    pub(crate) fn head_rows(&self, last: Value, batch: &Batch, rows: &[i32], tap: &mut dyn Tap) -> Value {
        let [sequences, length] = batch.dims();
        let every = |per_sequence: usize| {
            rows.len() == sequences * per_sequence && rows.iter().enumerate().all(|(index, &row)| index == row as usize)
        };
        match &self.spec.head {
            Head::Hidden | Head::LanguageModel { .. } | Head::MaskedLanguageModel { .. } => {
                let chosen = if every(length) {
                    last
                } else {
                    select(&last, Arc::new(rows.iter().map(|&row| row as usize).collect()))
                };
                let Head::MaskedLanguageModel { activation, norm, .. } = &self.spec.head else { return chosen };
                let inner = self.linear(&chosen, &[LinearId::global(Role::MlmTransform)], None, tap);
                self.norm(&activate(&inner, function(*activation), false), *norm, None, NormSite::MlmTransform)
            }
            Head::Classifier { .. } => {
                let first = rows.iter().map(|&row| row as usize * length).collect();
                let pooled = self.linear(&select(&last, Arc::new(first)), &[LinearId::global(Role::Pooler)], None, tap);
                // A few rows: burn's own operation.
                let pooled: Tensor<2> = pooled.into_tensor::<2>().tanh();
                Value::of(pooled).unwrap_or_else(|| unreachable!("tanh stays on the flex device"))
            }
        }
    }

    /// The last product; `None` where the output is the hidden states.
    pub(crate) fn head(&self) -> Option<Linear> {
        self.head_id().map(|id| self.linear_of(id))
    }

    fn head_id(&self) -> Option<LinearId> {
        match &self.spec.head {
            Head::Hidden => None,
            Head::LanguageModel { .. } | Head::MaskedLanguageModel { .. } => Some(LinearId::global(Role::LmHead)),
            Head::Classifier { .. } => Some(LinearId::global(Role::Classifier)),
        }
    }

    /// Everything, as [`Forward::run`].
    pub(crate) fn run(&self, batch: &Batch, root: &Value, tap: &mut dyn Tap) -> Output {
        let [sequences, length] = batch.dims();
        let states = self.states(batch, root, tap);
        let rows = if matches!(self.spec.head, Head::Classifier { .. }) { 1 } else { length };
        let all: Vec<i32> = (0..(sequences * rows) as i32).collect();
        let mut last = self.head_rows(states.last, batch, &all, tap);
        if let Some(id) = self.head_id() {
            last = self.linear(&last, &[id], None, tap);
        }
        let width = last.width();
        let logits = if last.dims().len() == 3 {
            last.into_tensor::<3>()
        } else {
            last.into_tensor::<2>().reshape([sequences, rows, width])
        };
        let hidden_states = states.hidden_states.into_iter().map(Value::into_tensor::<3>).collect();
        Output { hidden_states, logits }
    }

    fn embed(&self, batch: &Batch, root: &Value) -> Value {
        let [sequences, length] = batch.dims();
        let table = |role| self.weights.matrix(LinearId::global(role)).clone();
        let embedding = Embedding {
            table: table(Role::TokenEmbedding),
            scale: self.spec.embedding_scale,
            types: (self.spec.token_types > 0).then(|| table(Role::TypeEmbedding)),
            positions: (self.spec.positions == Positions::Learned).then(|| table(Role::PositionEmbedding)),
            tokens: batch.tokens().to_vec(),
            dims: [sequences, length, self.spec.hidden],
            start: batch.start(),
        };
        let hidden = embed(embedding, root);
        match self.spec.embedding_norm {
            Some(norm) => self.norm(&hidden, norm, None, NormSite::Embedding),
            None => hidden,
        }
    }

    /// One layer, as [`Forward::block`].
    fn block(&self, layer: usize, hidden: Value, context: &Context, tap: &mut dyn Tap) -> Value {
        let spec = &self.spec.layers[layer];
        let norm = |input: &Value, site| self.norm(input, spec.norm, Some(layer as u16), site);
        let (before, after) = match spec.mixer {
            Mixer::Attention(_) => (NormSite::Attention, NormSite::AttentionOutput),
            Mixer::Conv(_) => (NormSite::Conv, NormSite::Conv),
        };
        match spec.norm_placement {
            NormPlacement::Pre => {
                let hidden = self.mix(layer, norm(&hidden, before), Some(&hidden), context, tap);
                self.ffn(layer, &spec.ffn, norm(&hidden, NormSite::Ffn), Some(&hidden), tap)
            }
            NormPlacement::Post => {
                let hidden = norm(&self.mix(layer, hidden.clone(), Some(&hidden), context, tap), before);
                norm(&self.ffn(layer, &spec.ffn, hidden.clone(), Some(&hidden), tap), NormSite::Ffn)
            }
            NormPlacement::Around => {
                let mixed = self.mix(layer, norm(&hidden, before), None, context, tap);
                let hidden = add(hidden, norm(&mixed, after));
                let inner = self.ffn(layer, &spec.ffn, norm(&hidden, NormSite::Ffn), None, tap);
                add(hidden, norm(&inner, NormSite::FfnOutput))
            }
        }
    }

    fn mix(&self, layer: usize, input: Value, residual: Option<&Value>, context: &Context, tap: &mut dyn Tap) -> Value {
        match &self.spec.layers[layer].mixer {
            Mixer::Attention(spec) => self.attention(layer, spec, input, residual, context, tap),
            Mixer::Conv(spec) => self.convolution(layer, spec, input, residual, context, tap),
        }
    }

    fn attention(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Value,
        residual: Option<&Value>,
        context: &Context,
        tap: &mut dyn Tap,
    ) -> Value {
        let id = |role| LinearId::layer(layer, role);
        let mut projected = self.linear(&input, &[id(Role::Query), id(Role::Key), id(Role::Value)], None, tap);
        if spec.query_key_norm {
            let segment = |first, heads, site| Segment {
                first,
                heads,
                weight: self.weights.vector(ParameterId::Norm(Some(layer as u16), site, Part::Weight)).clone(),
                bias: self.norm_bias(self.spec.layers[layer].norm, Some(layer as u16), site),
            };
            let segments = vec![
                segment(0, spec.heads, NormSite::Query),
                segment(spec.query_width(), spec.key_value_heads, NormSite::Key),
            ];
            projected = norm(&projected, kind(self.spec.layers[layer].norm), segments);
        }
        let shape = Shape {
            sequences: context.sequences,
            length: context.length,
            heads: spec.heads,
            key_value_heads: spec.key_value_heads,
            width: spec.head_dim,
            scale: spec.score_scale as f32,
            causal: self.spec.kind == ModelKind::Decoder,
            window: spec.window,
            rotary: context.rotary[layer].clone(),
            present: context.present.clone(),
        };
        self.linear(&attention(&projected, shape), &[id(Role::Output)], residual, tap)
    }

    fn convolution(
        &self,
        layer: usize,
        spec: &ConvSpec,
        input: Value,
        residual: Option<&Value>,
        context: &Context,
        tap: &mut dyn Tap,
    ) -> Value {
        let input = match &context.present {
            Some(present) => without_padding(&input, present.clone()),
            None => input,
        };
        let projected = self.linear(&input, &[LinearId::layer(layer, Role::ConvIn)], None, tap);
        let part = |part| self.weights.vector(ParameterId::Kernel(layer as u16, part)).clone();
        let kernel =
            Kernel { taps: part(Part::Weight), bias: spec.bias.then(|| part(Part::Bias)), length: context.length };
        self.linear(&convolve(&projected, kernel), &[LinearId::layer(layer, Role::ConvOut)], residual, tap)
    }

    fn ffn(&self, layer: usize, spec: &FfnSpec, input: Value, residual: Option<&Value>, tap: &mut dyn Tap) -> Value {
        let id = |role| LinearId::layer(layer, role);
        let ids = [id(Role::Gate), id(Role::Up)];
        let inner = self.linear(&input, if spec.gated { &ids } else { &ids[1..] }, None, tap);
        self.linear(&activate(&inner, function(spec.activation), spec.gated), &[id(Role::Down)], residual, tap)
    }

    fn linear_of(&self, id: LinearId) -> Linear {
        let bias = self.spec.has_bias(id).then(|| self.weights.vector(ParameterId::bias(id)).clone());
        Linear { matrix: self.weights.matrix(id).clone(), bias }
    }

    fn linear(&self, input: &Value, ids: &[LinearId], residual: Option<&Value>, tap: &mut dyn Tap) -> Value {
        if tap.watches() {
            let width = input.width();
            let rows = input.dims().iter().product::<usize>() / width;
            let shown = Value::Plain(tensor(slice(&input.tensor()).to_vec(), &[rows, width])).into_tensor::<2>();
            ids.iter().for_each(|id| tap.linear(*id, &shown));
        }
        linear(input, ids.iter().map(|id| self.linear_of(*id)).collect(), residual)
    }

    fn norm_bias(&self, norm: Norm, layer: Option<u16>, site: NormSite) -> Option<slm_fused::weights::Weight> {
        let bias = || self.weights.vector(ParameterId::Norm(layer, site, Part::Bias)).clone();
        (norm.kind == NormKind::Layer).then(bias)
    }

    fn norm(&self, input: &Value, own: Norm, layer: Option<u16>, site: NormSite) -> Value {
        let weight = self.weights.vector(ParameterId::Norm(layer, site, Part::Weight)).clone();
        norm(input, kind(own), vec![Segment { first: 0, heads: 1, weight, bias: self.norm_bias(own, layer, site) }])
    }
}

/// The same norm.
fn kind(norm: Norm) -> slm_fused::norm::Norm {
    let kind = match norm.kind {
        NormKind::Rms => slm_fused::norm::NormKind::Rms,
        NormKind::RmsOnePlus => slm_fused::norm::NormKind::RmsOnePlus,
        NormKind::Layer => slm_fused::norm::NormKind::Layer,
    };
    slm_fused::norm::Norm { kind, epsilon: norm.epsilon }
}

/// The same function.
fn function(activation: Activation) -> slm_fused::activation::Activation {
    match activation {
        Activation::Silu => slm_fused::activation::Activation::Silu,
        Activation::Gelu => slm_fused::activation::Activation::Gelu,
        Activation::GeluTanh => slm_fused::activation::Activation::GeluTanh,
    }
}

/// a + b, burn's own operation.
fn add(a: Value, b: Value) -> Value {
    let sum = a.into_tensor::<3>() + b.into_tensor::<3>();
    Value::of(sum).unwrap_or_else(|| unreachable!("sums stay on the flex device"))
}
