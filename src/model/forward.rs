//! The one f32 forward: every family, every use (reference evaluation, calibration, training), differentiable where the
//! device is, callable block by block, or token by token with a [`Cache`]. It computes what [`ModelSpec`] says from weights behind [`WeightSource`], and
//! shows the input of every matrix, and queries and keys, to an [`Observer`]. Key maps are left out: they cancel in exact
//! arithmetic and matter only to the runtime's integers.

mod batch;
mod block;
mod cache;
mod fused;
mod layer;
mod mixture;
mod product;
mod source;
mod staged;
mod stored;

pub(crate) use batch::rotary_values;
pub use batch::{AttentionContext, Batch, BatchError};
pub use cache::{Cache, CacheError};
pub(crate) use fused::{Decoder, FusedForward, root_without_graph};
pub use fused::{FusedWeights, run_fused, run_fused_apart};
pub use layer::{Halted, Step};
pub use source::{DenseWeights, WeightSource};
pub use staged::{StagedContext, StagedForward};
pub use stored::StoredWeights;

use super::id::{LinearId, NormSite, ParameterId, Part, Role};
use super::spec::{Activation, ClassifierState, Function, Head, LayerSpec, ModelSpec, Norm, NormKind, Positions};
use batch::Memory;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

/// Sees activations as the forward computes them. Padded positions are among them.
pub trait Observer {
    /// Whether it looks at inputs of matrices: fused operations make them for those that do.
    fn sees_linears(&self) -> bool {
        true
    }

    /// Whether it looks at queries and keys, likewise.
    fn sees_attention(&self) -> bool {
        true
    }

    /// The input of a matrix, (tokens, in); tokens are batch · length, sequence by sequence.
    fn linear(&mut self, _id: LinearId, _input: &Tensor<2>) {}

    /// Queries (batch, heads, length, head_dim) and keys (batch, key_value_heads, length, head_dim), after rotation.
    fn attention(&mut self, _layer: usize, _query: &Tensor<4>, _key: &Tensor<4>) {}

    /// Whether it keeps what this layer projects for attention, which fused operations alone give.
    fn sees_projected(&self, _layer: usize) -> bool {
        false
    }

    /// Queries, keys and values side by side, (batch, length, widths), before rotation, with their graph.
    fn projected(&mut self, _layer: usize, _rows: Tensor<3>) {}
}

/// An [`Observer`] that looks away.
pub struct Unobserved;

impl Observer for Unobserved {
    fn sees_linears(&self) -> bool {
        false
    }

    fn sees_attention(&self) -> bool {
        false
    }
}

/// What a whole run computes.
pub struct Output {
    /// Embedding output first, then every layer's, (batch, length, hidden) each; the last one after the final norm, as
    /// transformers counts; of an encoder-decoder both for the encoder, then both for the decoder. Empty unless asked for.
    pub hidden_states: Vec<Tensor<3>>,
    /// (batch, length, vocabulary); (batch, 1, labels) of a classifier, (batch, length, labels) of one of tokens; (batch,
    /// length, 2) of answers; (batch, length, hidden) of a bare encoder.
    pub logits: Tensor<3>,
}

/// A model ready to compute.
pub struct Forward<'a> {
    spec: &'a ModelSpec,
    weights: &'a dyn WeightSource,
    device: Device,
    keep_hidden_states: bool,
}

impl<'a> Forward<'a> {
    /// `weights` must have every parameter of `spec`, on `device`.
    pub fn new(spec: &'a ModelSpec, weights: &'a dyn WeightSource, device: &Device) -> Self {
        Forward { spec, weights, device: device.clone(), keep_hidden_states: false }
    }

    /// Makes [`Forward::run`] return all hidden states.
    pub fn keep_hidden_states(mut self) -> Self {
        self.keep_hidden_states = true;
        self
    }

    /// The model.
    pub fn spec(&self) -> &'a ModelSpec {
        self.spec
    }

    /// Masks and rotary tables that all layers of one batch share.
    pub fn context(&self, batch: &Batch) -> AttentionContext {
        AttentionContext::new(self.spec, batch, self.bias(batch), &self.device)
    }

    /// What is added to the scores of every layer that reads the batch, (1, heads, length, keys), where positions are known by it.
    fn bias(&self, batch: &Batch) -> Option<Tensor<4>> {
        let classes = bias_classes(self.spec, batch)?;
        let bias = self.weights.rows(LinearId::global(classes.table), &classes.rows);
        Some(bias.reshape([classes.queries, classes.keys, classes.heads]).permute([2, 0, 1]).unsqueeze::<4>())
    }

    /// Token embeddings with positions, types and norm, (batch, length, hidden).
    pub fn embed(&self, batch: &Batch) -> Tensor<3> {
        let [count, length] = batch.dims();
        let embeddings = self.weights.rows(LinearId::global(Role::TokenEmbedding), batch.tokens());
        let width = self.spec.embedding_width;
        let mut hidden = embeddings.reshape([count, length, width]);
        if self.spec.embedding_scale != 1.0 {
            hidden = hidden * self.spec.embedding_scale;
        }
        if self.spec.token_types > 0 {
            let types = LinearId::global(Role::TypeEmbedding);
            hidden = hidden
                + match token_types(self.spec, batch) {
                    None => self.weights.matrix(types).narrow(0, 0, 1).unsqueeze::<3>(),
                    Some(of_tokens) => self.weights.rows(types, &of_tokens).reshape([count, length, width]),
                };
        }
        if self.spec.positions == Positions::Learned {
            let positions = self.weights.matrix(LinearId::global(Role::PositionEmbedding));
            hidden = hidden + positions.narrow(0, batch.start(), length).unsqueeze::<3>();
        }
        if let Some(norm) = self.spec.embedding_norm {
            hidden = self.norm(hidden, norm, None, NormSite::Embedding);
        }
        match self.spec.projects_embeddings() {
            true => self.linear(LinearId::global(Role::EmbeddingProjection), hidden, &mut Unobserved),
            false => hidden,
        }
    }

    /// The norm after the last layer, where there is one; its output is what [`Forward::head`] takes.
    pub fn finish(&self, hidden: Tensor<3>) -> Tensor<3> {
        match self.spec.final_norm {
            Some(norm) => self.norm(hidden, norm, None, NormSite::Final),
            None => hidden,
        }
    }

    /// Logits of finished hidden states without padding; shapes as in [`Output::logits`].
    pub fn head(&self, hidden: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        self.head_of(head_input(self.spec, hidden, None), observer)
    }

    /// Logits of what the head reads.
    fn head_of(&self, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let last = self.before_last(input, observer);
        match self.spec.last_linear() {
            Some(id) => self.last_linear(id, last, observer),
            None => last,
        }
    }

    /// The head's last linear, capped where logits are.
    fn last_linear(&self, id: LinearId, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let output = self.linear(id, input, observer);
        match self.spec.logit_cap() {
            Some(cap) => (output / cap).tanh() * cap,
            None => output,
        }
    }

    /// From the input of the head's first linear to that of its last.
    fn before_last(&self, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        match &self.spec.head {
            Head::Hidden
            | Head::LanguageModel { .. }
            | Head::LastClassifier { .. }
            | Head::TokenClassifier { .. }
            | Head::Answers { .. } => input,
            Head::MaskedLanguageModel { activation, norm, .. } => {
                let inner = self.linear(LinearId::global(Role::MlmTransform), input, observer);
                self.norm(activate(inner, *activation), *norm, None, NormSite::MlmTransform)
            }
            Head::Classifier { .. } => self.pooled(LinearId::global(Role::Pooler), input, observer),
        }
    }

    /// A classifier's pooler and its function.
    fn pooled(&self, pooler: LinearId, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let pooled = self.linear(pooler, input, observer);
        let Head::Classifier { function, norm, .. } = &self.spec.head else { return pooled };
        let pooled = match function {
            Function::Activation(activation) => activate(pooled, *activation),
            Function::Tanh => pooled.tanh(),
        };
        match norm {
            Some(norm) => self.norm(pooled, *norm, None, NormSite::MlmTransform),
            None => pooled,
        }
    }

    /// Logits of the exit head after `layers` layers, whose output is `hidden`: (batch, 1, labels).
    pub fn exit(&self, layers: usize, hidden: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let [pooler, classifier] = ModelSpec::exit_linears(layers);
        let pooled = self.pooled(pooler, head_input(self.spec, hidden, None), observer);
        self.linear(classifier, pooled, observer)
    }

    /// Everything, for one batch.
    pub fn run(&self, batch: &Batch, observer: &mut dyn Observer) -> Output {
        let mut hidden_states = Vec::new();
        let memory = batch.source().map(|source| self.memory(source, &mut hidden_states, observer));
        let hidden = self.stack(batch, memory, &mut hidden_states, observer);
        Output { hidden_states, logits: self.head_of(head_input(self.spec, hidden, Some(batch)), observer) }
    }

    /// What an encoder makes of sources.
    fn memory(&self, source: &Batch, hidden_states: &mut Vec<Tensor<3>>, observer: &mut dyn Observer) -> Memory {
        let states = self.stack(source, None, hidden_states, observer);
        Memory { states, mask: source.scores_mask(false, None, &self.device) }
    }

    /// Embeddings, the layers that read the batch, and the norm after them.
    fn stack(
        &self,
        batch: &Batch,
        memory: Option<Memory>,
        hidden_states: &mut Vec<Tensor<3>>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        let context = AttentionContext { memory, ..self.context(batch) };
        let mut hidden = self.embed(batch);
        let layers = self.spec.layers_of(batch);
        let site = final_site(self.spec, layers.end);
        for layer in layers {
            if self.keep_hidden_states {
                hidden_states.push(hidden.clone());
            }
            hidden = self.block(layer, hidden, &context, observer);
        }
        if let Some(norm) = self.spec.final_norm {
            hidden = self.norm(hidden, norm, None, site);
        }
        if self.keep_hidden_states {
            hidden_states.push(hidden.clone());
        }
        hidden
    }

    /// input · weightᵀ + bias over the last dimension.
    fn linear(&self, id: LinearId, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let [batch, length, width] = input.dims();
        let input = input.reshape([batch * length, width]);
        observer.linear(id, &input);
        let mut output = self.weights.product(id, input);
        if self.spec.has_bias(id) {
            output = output + self.weights.vector(ParameterId::bias(id)).unsqueeze::<2>();
        }
        let width = output.dims()[1];
        output.reshape([batch, length, width])
    }

    /// A norm over the last dimension.
    fn norm(&self, input: Tensor<3>, norm: Norm, layer: Option<u16>, site: NormSite) -> Tensor<3> {
        let part = |part| self.weights.vector(ParameterId::Norm(layer, site, part)).unsqueeze::<3>();
        match norm.kind {
            NormKind::Rms | NormKind::RmsOnePlus => {
                let mean_square = input.clone().square().mean_dim(2);
                let weight = part(Part::Weight);
                let weight = if norm.kind == NormKind::RmsOnePlus { weight + 1.0 } else { weight };
                input / (mean_square + norm.epsilon).sqrt() * weight
            }
            NormKind::Layer | NormKind::LayerUnbiased => {
                let centred = input.clone() - input.mean_dim(2);
                let variance = centred.clone().square().mean_dim(2);
                let normed = centred / (variance + norm.epsilon).sqrt() * part(Part::Weight);
                if norm.kind == NormKind::Layer { normed + part(Part::Bias) } else { normed }
            }
        }
    }
}

/// The norm after the last layer of a stack, which `end` follows.
fn final_site(spec: &ModelSpec, end: usize) -> NormSite {
    if end < spec.layers.len() { NormSite::Encoder } else { NormSite::Final }
}

/// Rows of the table of a stack that are added to scores.
struct BiasClasses {
    table: Role,
    /// (queries, keys)
    rows: Vec<u32>,
    queries: usize,
    keys: usize,
    heads: usize,
}

/// What the scores of a batch have added; `None` where positions are known otherwise.
fn bias_classes(spec: &ModelSpec, batch: &Batch) -> Option<BiasClasses> {
    let Positions::Buckets(buckets) = spec.positions else { return None };
    let (start, [_, queries]) = (batch.start(), batch.dims());
    let both = !spec.is_causal(spec.layers_of(batch).start);
    let table = if both { Role::EncoderBias } else { Role::DecoderBias };
    let heads = spec.layers.iter().find_map(LayerSpec::attention)?.heads;
    Some(BiasClasses { table, rows: buckets.classes(start, queries, both), queries, keys: start + queries, heads })
}

/// The type of every token, sequence by sequence: the second after the first separator. `None` where all are of the first.
fn token_types(spec: &ModelSpec, batch: &Batch) -> Option<Vec<u32>> {
    let Head::Answers { separator: Some(separator) } = spec.head else { return None };
    let [_, length] = batch.dims();
    let of_sequence = |tokens: &[u32]| -> Vec<u32> {
        let first = tokens.iter().position(|&token| token == separator).map_or(length, |place| place + 1);
        (0..length).map(|place| u32::from(place >= first)).collect()
    };
    Some(batch.tokens().chunks(length).flat_map(of_sequence).collect())
}

/// What the head reads of finished hidden states, (batch, length, hidden): a classifier its first position, the position of
/// [`Batch::labelled`], or the mean of those that are not padding. Without a batch nothing is.
fn head_input(spec: &ModelSpec, hidden: Tensor<3>, batch: Option<&Batch>) -> Tensor<3> {
    let [count, length, width] = hidden.dims();
    let padded = batch.and_then(|batch| Some((batch, batch.mask()?)));
    match (&spec.head, padded) {
        (Head::Classifier { state: ClassifierState::First, .. }, _) => hidden.narrow(1, 0, 1),
        (Head::LastClassifier { .. }, None) => hidden.narrow(1, length - 1, 1),
        (Head::LastClassifier { .. }, Some((batch, _))) => {
            let rows: Vec<i32> = (0..count).map(|sequence| batch.labelled(spec, sequence) as i32).collect();
            let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &hidden.device());
            hidden.reshape([count * length, width]).select(0, rows).reshape([count, 1, width])
        }
        (Head::Classifier { state: ClassifierState::Mean, .. }, None) => hidden.mean_dim(1),
        (Head::Classifier { state: ClassifierState::Mean, .. }, Some((_, present))) => {
            let shares = present.chunks(length).flat_map(|tokens| {
                let share = 1.0 / tokens.iter().filter(|&&token| token).count().max(1) as f32;
                tokens.iter().map(move |&token| if token { share } else { 0.0 })
            });
            let shares = TensorData::new(shares.collect::<Vec<f32>>(), [count, length, 1]);
            let shares = Tensor::<3>::from_data(shares, &hidden.device());
            (hidden * shares).sum_dim(1)
        }
        _ => hidden,
    }
}

/// The element-wise functions.
fn activate(input: Tensor<3>, function: Activation) -> Tensor<3> {
    match function {
        Activation::Silu => activation::silu(input),
        Activation::Gelu => activation::gelu(input),
        Activation::Relu => activation::relu(input),
        Activation::GeluTanh => {
            let slope = (2.0 / std::f64::consts::PI).sqrt();
            let cube = input.clone() * input.clone() * input.clone();
            let inner = (input.clone() + cube * 0.044715) * slope;
            input * (inner.tanh() + 1.0) * 0.5
        }
    }
}
