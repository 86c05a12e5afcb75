//! The forward on fused operations ([`slm_fused`]): the same layers as [`super::block`] has them, read off the
//! same specification, for the flex device. It stops before the last product, which the losses are computed with.

mod block;
mod decode;
mod weights;

pub(crate) use decode::Decoder;
pub use weights::FusedWeights;

use super::batch::rotary_values;
use super::layer::Operations;
use super::{Batch, Observer, Output, Unobserved, bias_classes, final_site, token_types};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{
    Activation, AttentionSpec, ClassifierState, Function, Head, ModelSpec, Norm, NormKind, Positions, RotarySpec,
};
use burn::tensor::{DataError, Tensor};
use slm_fused::activation::{activate, cap, tanh};
use slm_fused::embedding::{Embedding, embed, mean_of, select};
use slm_fused::linear::{Linear, linear};
use slm_fused::node::{Value, apart, joined, recomputed, tensor};
use slm_fused::norm::{Segment, norm};
use std::sync::Arc;

/// What the layers computed.
pub(crate) struct States {
    /// As [`Output::hidden_states`].
    pub(crate) hidden_states: Vec<Value>,
    /// Finished hidden states, (batch, length, hidden).
    pub(crate) last: Value,
    /// The output of every layer with an exit head, in their order, where those are asked for.
    pub(crate) exits: Vec<Value>,
}

/// A model ready to compute with fused operations.
pub(crate) struct FusedForward<'a> {
    spec: &'a ModelSpec,
    weights: &'a FusedWeights,
    keep_hidden_states: bool,
    recompute: bool,
    cut: bool,
    exits: bool,
}

/// cos and sin, (length, head_dim / 2) each.
type Tables = Arc<[Vec<f32>; 2]>;

/// What the layers of one batch share.
#[derive(Clone)]
pub(super) struct Context {
    sequences: usize,
    length: usize,
    /// By layer; `None` for one without rotation.
    rotary: Vec<Option<Tables>>,
    present: Option<Arc<Vec<bool>>>,
    /// Of encoder-decoders, whose attention is burn's.
    pairs: Option<Box<Pairs>>,
}

/// What the layers of an encoder-decoder need of a batch.
#[derive(Clone)]
pub(super) struct Pairs {
    /// Added to the scores of a layer's own positions, (1 or batch, 1 or heads, 1 or length, length).
    added: Option<Tensor<4>>,
    /// The encoder's states, and what is added to scores of them, for layers that attend to them.
    memory: Option<(Value, Option<Tensor<4>>)>,
}

impl Context {
    pub(super) fn new(spec: &ModelSpec, batch: &Batch) -> Self {
        let [sequences, length] = batch.dims();
        let mut tables: Vec<(RotarySpec, usize, Tables)> = Vec::new();
        let mut table = |attention: &AttentionSpec| {
            let rotary = attention.rotary?;
            let same = |entry: &&(RotarySpec, usize, _)| entry.0 == rotary && entry.1 == attention.head_dim;
            if let Some((_, _, values)) = tables.iter().find(same) {
                return Some(values.clone());
            }
            let values = Arc::new(rotary_values(&rotary, attention.head_dim, batch.start(), length));
            tables.push((rotary, attention.head_dim, values.clone()));
            Some(values)
        };
        let rotary = spec.layers.iter().map(|layer| layer.attention().and_then(&mut table)).collect();
        Context { sequences, length, rotary, present: batch.mask().map(|mask| Arc::new(mask.to_vec())), pairs: None }
    }
}

/// Everything for one batch, as [`super::Forward::run`] without a graph; hidden states where they are to be kept.
pub fn run_fused(spec: &ModelSpec, weights: &FusedWeights, batch: &Batch, keep_hidden_states: bool) -> Output {
    FusedForward::new(spec, weights, keep_hidden_states).run(batch, &root_without_graph(), &mut Unobserved)
}

/// The logits of each sequence of a batch by itself, (positions, width) or a classifier's (width), as [`run_fused`] has them.
/// Their memory may be given back to [`slm_numerics::scratch`], which it comes from.
pub fn run_fused_apart(spec: &ModelSpec, weights: &FusedWeights, batch: &Batch) -> Result<Vec<Vec<f32>>, DataError> {
    let [sequences, length] = batch.dims();
    let forward = FusedForward::new(spec, weights, false);
    let last = forward.states(batch, &root_without_graph(), &mut Unobserved).last;
    let rows = if spec.is_classifier() { 1 } else { length };
    let of_sequence = |sequence: usize| {
        let own: Vec<i32> = ((sequence * rows) as i32..((sequence + 1) * rows) as i32).collect();
        let mut last = forward.head_rows(last.clone(), batch, &own, &mut Unobserved);
        if let Some(id) = spec.last_linear() {
            last = forward.last_linear(&last, id, &mut Unobserved);
        }
        let data = match last.dims().len() {
            3 => last.into_tensor::<3>().into_data(),
            _ => last.into_tensor::<2>().into_data(),
        };
        data.try_into_vec::<f32>()
    };
    (0..sequences).map(of_sequence).collect()
}

/// A value that records nothing.
pub(crate) fn root_without_graph() -> Value {
    Value::Plain(tensor(vec![0.0], &[1]))
}

impl<'a> FusedForward<'a> {
    /// `weights` must have every parameter of `spec`.
    pub(crate) fn new(spec: &'a ModelSpec, weights: &'a FusedWeights, keep_hidden_states: bool) -> Self {
        FusedForward { spec, weights, keep_hidden_states, recompute: false, cut: false, exits: false }
    }

    /// Keeps the inputs of layers alone for the backward pass, which computes the rest again to the same bits.
    pub(crate) fn recomputing(self, recompute: bool) -> Self {
        FusedForward { recompute, ..self }
    }

    /// Begins the graph at the first layer with a trained weight, where hidden states are not kept: what lies before it is not in the
    /// graph, and must not be compared.
    pub(crate) fn cut_below_trained(self, cut: bool) -> Self {
        FusedForward { cut, ..self }
    }

    /// Keeps the outputs of layers with exit heads.
    pub(crate) fn with_exits(self, exits: bool) -> Self {
        FusedForward { exits, ..self }
    }

    /// Embeddings and layers; in the graph of `root`, where that is recorded.
    pub(crate) fn states(&self, batch: &Batch, root: &Value, observer: &mut dyn Observer) -> States {
        if let Some(source) = batch.source() {
            let mut hidden_states = Vec::new();
            let memory = self.stack(source, None, root, &mut hidden_states, observer);
            let mask = source.scores_mask(false, None, &root.clone().into_tensor::<1>().device());
            let last = self.stack(batch, Some((memory, mask)), root, &mut hidden_states, observer);
            return States { hidden_states, last, exits: Vec::new() };
        }
        let context = Context::new(self.spec, batch);
        let (mut hidden_states, mut exits) = (Vec::new(), Vec::new());
        let cuts = self.cut && !self.keep_hidden_states && root.is_recorded();
        let first = if cuts { self.weights.first_trained(self.spec) } else { None };
        let mut hidden = match first {
            Some(_) => self.embed(batch, &root_without_graph()),
            None => self.embed(batch, root),
        };
        let owned = (self.recompute && root.is_recorded())
            .then(|| Arc::new((self.spec.clone(), self.weights.clone(), context.clone())));
        for layer in 0..self.spec.layers.len() {
            if first == Some(layer) {
                hidden = joined(&hidden, root);
            }
            let mut input = hidden.clone();
            if self.keep_hidden_states {
                hidden_states.push(hidden);
                // The same order of sums, whether the layer is recomputed or not.
                input = if owned.is_none() { apart(&input) } else { input };
            }
            // Layers that are looked at are not computed twice.
            hidden = match owned.clone().filter(|_| !observer.sees_projected(layer)) {
                None => self.layer(layer, input, &context, None, observer),
                Some(owned) => recomputed(&input, move |input| {
                    let (spec, weights, context) = &*owned;
                    FusedForward::new(spec, weights, false).layer(layer, input.clone(), context, None, &mut Unobserved)
                }),
            };
            if self.exits && self.spec.exits.contains(&(layer + 1)) {
                // What lies before the first trained layer is in no graph, but the exit head may be trained.
                let seen =
                    if root.is_recorded() && !hidden.is_recorded() { joined(&hidden, root) } else { hidden.clone() };
                exits.push(seen);
                hidden = if owned.is_none() { apart(&hidden) } else { hidden };
            }
        }
        if first == Some(self.spec.layers.len()) {
            hidden = joined(&hidden, root);
        }
        hidden = self.finish(hidden);
        if self.keep_hidden_states {
            hidden_states.push(hidden.clone());
        }
        States { hidden_states, last: hidden, exits }
    }

    /// A stack of an encoder-decoder: embeddings, the layers that read the batch, and the norm after them.
    fn stack(
        &self,
        batch: &Batch,
        memory: Option<(Value, Option<Tensor<4>>)>,
        root: &Value,
        hidden_states: &mut Vec<Value>,
        observer: &mut dyn Observer,
    ) -> Value {
        let layers = self.spec.layers_of(batch);
        let device = root.clone().into_tensor::<1>().device();
        let mask = batch.scores_mask(self.spec.is_causal(layers.start), None, &device);
        let added = match (mask, self.bias(batch, root)) {
            (Some(mask), Some(bias)) => Some(mask + bias),
            (mask, bias) => mask.or(bias),
        };
        let context = Context { pairs: Some(Box::new(Pairs { added, memory })), ..Context::new(self.spec, batch) };
        let mut hidden = self.embed(batch, root);
        let site = final_site(self.spec, layers.end);
        for layer in layers {
            if self.keep_hidden_states {
                hidden_states.push(hidden.clone());
                hidden = apart(&hidden);
            }
            hidden = self.layer(layer, hidden, &context, None, observer);
        }
        if let Some(norm) = self.spec.final_norm {
            hidden = self.norm(&hidden, norm, None, site);
        }
        if self.keep_hidden_states {
            hidden_states.push(hidden.clone());
        }
        hidden
    }

    /// What is added to the scores of a batch, (1, heads, length, length), in the graph of `root`.
    fn bias(&self, batch: &Batch, root: &Value) -> Option<Tensor<4>> {
        let classes = bias_classes(self.spec, batch)?;
        let embedding = Embedding {
            table: self.weights.matrix(LinearId::global(classes.table)).clone(),
            scale: 1.0,
            types: None,
            type_of: None,
            positions: None,
            tokens: classes.rows,
            dims: [classes.queries, classes.keys, classes.heads],
            start: 0,
        };
        Some(embed(embedding, root).into_tensor::<3>().permute([2, 0, 1]).unsqueeze::<4>())
    }

    /// What the last product reads, (rows, width): the chosen rows of (batch · length) finished states, a classifier's of
    /// (batch), through what the head has before that product.
    pub(crate) fn head_rows(&self, last: Value, batch: &Batch, rows: &[i32], observer: &mut dyn Observer) -> Value {
        let [sequences, length] = batch.dims();
        let every = |per_sequence: usize| {
            rows.len() == sequences * per_sequence && rows.iter().enumerate().all(|(index, &row)| index == row as usize)
        };
        let input = match &self.spec.head {
            Head::Classifier { state: ClassifierState::Mean, .. } => {
                mean_of(&last, Arc::new(present_rows(batch, rows)))
            }
            Head::Classifier { .. } | Head::LastClassifier { .. } => {
                let labelled = rows.iter().map(|&row| batch.labelled(self.spec, row as usize));
                select(&last, Arc::new(labelled.collect()))
            }
            _ if every(length) => last,
            _ => select(&last, Arc::new(rows.iter().map(|&row| row as usize).collect())),
        };
        self.before_last(input, observer)
    }

    /// What the classifier of the exit head after `layers` layers reads, (rows, width), of that layer's output.
    pub(crate) fn exit_rows(&self, layers: usize, state: &Value, batch: &Batch, rows: &[i32]) -> Value {
        let [_, length] = batch.dims();
        let first = select(state, Arc::new(rows.iter().map(|&row| row as usize * length).collect()));
        self.pooled(ModelSpec::exit_linears(layers)[0], &first, &mut Unobserved)
    }

    /// The classifier of the exit head after `layers` layers.
    pub(crate) fn exit_head(&self, layers: usize) -> Linear {
        self.linear_of(ModelSpec::exit_linears(layers)[1])
    }

    /// A classifier's pooler and its function.
    pub(super) fn pooled(&self, pooler: LinearId, input: &Value, observer: &mut dyn Observer) -> Value {
        let pooled = self.linear(input, &[pooler], None, observer);
        let Head::Classifier { function: own, norm, .. } = &self.spec.head else { return pooled };
        let pooled = match own {
            Function::Activation(activation) => activate(&pooled, function(*activation), false),
            Function::Tanh => tanh(&pooled),
        };
        match norm {
            Some(norm) => self.norm(&pooled, *norm, None, NormSite::MlmTransform),
            None => pooled,
        }
    }

    /// The norm after the last layer, where there is one.
    pub(super) fn finish(&self, hidden: Value) -> Value {
        match self.spec.final_norm {
            Some(norm) => self.norm(&hidden, norm, None, NormSite::Final),
            None => hidden,
        }
    }

    /// From the input of the head's first linear to that of its last.
    pub(super) fn before_last(&self, input: Value, observer: &mut dyn Observer) -> Value {
        match &self.spec.head {
            Head::Hidden
            | Head::LanguageModel { .. }
            | Head::LastClassifier { .. }
            | Head::TokenClassifier { .. }
            | Head::Answers { .. } => input,
            Head::MaskedLanguageModel { activation, norm, .. } => {
                let inner = self.linear(&input, &[LinearId::global(Role::MlmTransform)], None, observer);
                self.norm(&activate(&inner, function(*activation), false), *norm, None, NormSite::MlmTransform)
            }
            Head::Classifier { .. } => self.pooled(LinearId::global(Role::Pooler), &input, observer),
        }
    }

    /// The output of the head's last linear, capped where logits are.
    pub(super) fn last_linear(&self, input: &Value, id: LinearId, observer: &mut dyn Observer) -> Value {
        let output = self.linear(input, &[id], None, observer);
        match self.spec.logit_cap() {
            Some(of_logits) => cap(&output, of_logits as f32),
            None => output,
        }
    }

    /// The last product; `None` where the output is the hidden states.
    pub(crate) fn head(&self) -> Option<Linear> {
        self.spec.last_linear().map(|id| self.linear_of(id))
    }

    /// Everything, as [`Forward::run`].
    pub(crate) fn run(&self, batch: &Batch, root: &Value, observer: &mut dyn Observer) -> Output {
        let [sequences, length] = batch.dims();
        let states = self.states(batch, root, observer);
        let rows = if self.spec.is_classifier() { 1 } else { length };
        let all: Vec<i32> = (0..(sequences * rows) as i32).collect();
        let mut last = self.head_rows(states.last, batch, &all, observer);
        if let Some(id) = self.spec.last_linear() {
            last = self.last_linear(&last, id, observer);
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

    pub(super) fn embed(&self, batch: &Batch, root: &Value) -> Value {
        let [sequences, length] = batch.dims();
        let table = |role| self.weights.matrix(LinearId::global(role)).clone();
        let embedding = Embedding {
            table: table(Role::TokenEmbedding),
            scale: self.spec.embedding_scale,
            types: (self.spec.token_types > 0).then(|| table(Role::TypeEmbedding)),
            type_of: token_types(self.spec, batch),
            positions: (self.spec.positions == Positions::Learned).then(|| table(Role::PositionEmbedding)),
            tokens: batch.tokens().to_vec(),
            dims: [sequences, length, self.spec.embedding_width],
            start: batch.start(),
        };
        let mut hidden = embed(embedding, root);
        if let Some(norm) = self.spec.embedding_norm {
            hidden = self.norm(&hidden, norm, None, NormSite::Embedding);
        }
        match self.spec.projects_embeddings() {
            true => self.linear(&hidden, &[LinearId::global(Role::EmbeddingProjection)], None, &mut Unobserved),
            false => hidden,
        }
    }

    pub(super) fn linear_of(&self, id: LinearId) -> Linear {
        let bias = self.spec.has_bias(id).then(|| self.weights.vector(ParameterId::bias(id)).clone());
        let last = self.spec.last_linear() == Some(id);
        let cap = self.spec.logit_cap().filter(|_| last).map(|cap| cap as f32);
        Linear { matrix: self.weights.matrix(id).clone(), bias, cap }
    }

    pub(super) fn linear(
        &self,
        input: &Value,
        ids: &[LinearId],
        residual: Option<&Value>,
        observer: &mut dyn Observer,
    ) -> Value {
        if observer.sees_linears() {
            let width = input.width();
            let plain = Value::Plain(input.tensor());
            let shown = match plain.dims().len() {
                3 => plain.into_tensor::<3>().reshape([-1, width as i32]),
                _ => plain.into_tensor::<2>(),
            };
            ids.iter().for_each(|id| observer.linear(*id, &shown));
        }
        linear(input, ids.iter().map(|id| self.linear_of(*id)).collect(), residual)
    }

    pub(super) fn norm_bias(
        &self,
        norm: Norm,
        layer: Option<u16>,
        site: NormSite,
    ) -> Option<slm_fused::weights::Weight> {
        let bias = || self.weights.vector(ParameterId::Norm(layer, site, Part::Bias)).clone();
        (norm.kind == NormKind::Layer).then(bias)
    }

    pub(super) fn norm(&self, input: &Value, own: Norm, layer: Option<u16>, site: NormSite) -> Value {
        let weight = self.weights.vector(ParameterId::Norm(layer, site, Part::Weight)).clone();
        norm(input, kind(own), vec![Segment { first: 0, heads: 1, weight, bias: self.norm_bias(own, layer, site) }])
    }
}

/// The rows of each sequence that are not padding.
fn present_rows(batch: &Batch, sequences: &[i32]) -> Vec<Vec<usize>> {
    let [_, length] = batch.dims();
    let of_sequence = |&sequence: &i32| {
        let first = sequence as usize * length;
        (first..first + length).filter(|&row| batch.mask().is_none_or(|mask| mask[row])).collect()
    };
    sequences.iter().map(of_sequence).collect()
}

/// The same norm.
pub(super) fn kind(norm: Norm) -> slm_fused::norm::Norm {
    let kind = match norm.kind {
        NormKind::Rms => slm_fused::norm::NormKind::Rms,
        NormKind::RmsOnePlus => slm_fused::norm::NormKind::RmsOnePlus,
        NormKind::Layer | NormKind::LayerUnbiased => slm_fused::norm::NormKind::Layer,
    };
    slm_fused::norm::Norm { kind, epsilon: norm.epsilon }
}

/// The same function.
pub(super) fn function(activation: Activation) -> slm_fused::activation::Activation {
    match activation {
        Activation::Silu => slm_fused::activation::Activation::Silu,
        Activation::Gelu => slm_fused::activation::Activation::Gelu,
        Activation::GeluTanh => slm_fused::activation::Activation::GeluTanh,
        Activation::Relu => slm_fused::activation::Activation::Relu,
    }
}
