//! The operations of a layer as burn has them: norms, products, attention or a short convolution, the feed-forward network.

use super::batch::LayerContext;
use super::cache::LayerCache;
use super::layer::Operations;
use super::mixture::shares;
use super::{AttentionContext, Forward, Observer, activate};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{AttentionSpec, ConvSpec, Mixer, ModelSpec, Norm, QueryKeyNorm};
use burn::tensor::{Tensor, activation};

impl Operations for Forward<'_> {
    type Value = Tensor<3>;
    type Context = AttentionContext;
    type Past = LayerCache;

    fn model(&self) -> &ModelSpec {
        self.spec
    }

    fn normed(&self, input: &Tensor<3>, norm: Norm, layer: u16, site: NormSite) -> Tensor<3> {
        self.norm(input.clone(), norm, Some(layer), site)
    }

    fn sum(&self, a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
        a + b
    }

    fn project(
        &self,
        id: LinearId,
        input: &Tensor<3>,
        residual: Option<Tensor<3>>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        let output = self.linear(id, input.clone(), observer);
        match residual {
            Some(residual) => residual + output,
            None => output,
        }
    }

    fn mixer_input(&self, layer: usize, normed: Tensor<3>, context: &AttentionContext) -> Tensor<3> {
        match (&self.spec.layers[layer].mixer, &context.present) {
            // Padding counts as zeros.
            (Mixer::Conv(_), Some(present)) => normed * present.clone(),
            _ => normed,
        }
    }

    fn mix(
        &self,
        layer: usize,
        input: Tensor<3>,
        context: &AttentionContext,
        past: Option<&mut LayerCache>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        match &self.spec.layers[layer].mixer {
            Mixer::Attention(spec) => self.attention(layer, spec, input, &context.layers[layer], past, observer),
            Mixer::Conv(spec) => self.convolution(layer, spec, input, past, observer),
        }
    }

    fn attend_across(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Tensor<3>,
        context: &AttentionContext,
        past: Option<&mut LayerCache>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        let mut project = |role, input: Tensor<3>, heads| {
            heads_apart(self.linear(LinearId::layer(layer, role), input, observer), heads, spec.head_dim)
        };
        let query = project(Role::CrossQuery, input, spec.heads);
        let mut of_source = || {
            let Some(memory) = &context.memory else { unreachable!("a decoder reads its source first") };
            [Role::CrossKey, Role::CrossValue].map(|role| project(role, memory.states.clone(), spec.key_value_heads))
        };
        let [key, value] = match past {
            Some(past) => past.source.get_or_insert_with(of_source).clone(),
            None => of_source(),
        };
        let mask = context.memory.as_ref().and_then(|memory| memory.mask.as_ref());
        attend(spec, [query, key, value], mask)
    }

    fn widen(&self, layer: usize, input: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        let spec = &self.spec.layers[layer].ffn;
        let mut linear = |role, input| self.linear(LinearId::layer(layer, role), input, observer);
        let scores = spec.mixture.map(|_| linear(Role::Router, input.clone()));
        let inner = if spec.gated {
            let gate = linear(Role::Gate, input.clone());
            activate(gate, spec.activation) * linear(Role::Up, input)
        } else {
            activate(linear(Role::Up, input), spec.activation)
        };
        match spec.mixture.zip(scores) {
            Some((mixture, scores)) => inner * shares(scores, mixture, spec.width),
            None => inner,
        }
    }
}

impl Forward<'_> {
    /// Layer `layer` on hidden states (batch, length, hidden).
    pub fn block(
        &self,
        layer: usize,
        hidden: Tensor<3>,
        context: &AttentionContext,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        self.layer(layer, hidden, context, None, observer)
    }

    /// softmax(query · keyᵀ · scale + mask) · value, over the keys and values of the cache and the input's own.
    fn attention(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Tensor<3>,
        context: &LayerContext,
        past: Option<&mut LayerCache>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        let layer_norm = self.spec().layers[layer].norm;
        let [batch, length, _] = input.dims();
        let width = spec.head_dim;
        let mut project = |role, heads: usize, norm: Option<NormSite>| -> Tensor<4> {
            let mut projected = self.linear(LinearId::layer(layer, role), input.clone(), observer);
            if let Some((site, kind)) = norm.zip(spec.query_key_norm) {
                if kind == QueryKeyNorm::Heads {
                    projected = projected.reshape([batch, length * heads, width]);
                }
                projected = self.norm(projected, layer_norm, Some(layer as u16), site);
            }
            projected.reshape([batch, length, heads, width]).swap_dims(1, 2)
        };
        let mut query = project(Role::Query, spec.heads, Some(NormSite::Query));
        let mut key = project(Role::Key, spec.key_value_heads, Some(NormSite::Key));
        let value = project(Role::Value, spec.key_value_heads, None);
        if let Some((cos, sin)) = &context.rotary {
            query = rotate(query, cos, sin);
            key = rotate(key, cos, sin);
        }
        observer.attention(layer, &query, &key);
        let (key, value) = match past {
            Some(past) => past.extend(key, value, spec.window),
            None => (key, value),
        };
        attend(spec, [query, key, value], context.mask.as_ref())
    }

    /// c · conv(b · x) with (b, c, x) = in(input): output t of the convolution is Σ_j kernel[j] · input[t − taps + 1 + j],
    /// those of the cache, or zeros, before the first position.
    fn convolution(
        &self,
        layer: usize,
        spec: &ConvSpec,
        input: Tensor<3>,
        past: Option<&mut LayerCache>,
        observer: &mut dyn Observer,
    ) -> Tensor<3> {
        let [batch, length, hidden] = input.dims();
        let projected = self.linear(LinearId::layer(layer, Role::ConvIn), input, observer);
        let part = |n: usize| projected.clone().narrow(2, n * hidden, hidden);
        let gated = part(0) * part(2);
        let padded = if spec.taps > 1 {
            let held = past.as_ref().and_then(|past| past.inputs.clone());
            let before = held.unwrap_or_else(|| Tensor::zeros([batch, spec.taps - 1, hidden], &gated.device()));
            let padded = Tensor::cat(vec![before, gated], 1);
            if let Some(past) = past {
                past.inputs = Some(padded.clone().narrow(1, length, spec.taps - 1));
            }
            padded
        } else {
            gated
        };
        let of_layer = |part| self.weights.vector(ParameterId::Kernel(layer as u16, part));
        let kernel = of_layer(Part::Weight).reshape([hidden, spec.taps]);
        let tap_of = |n: usize| kernel.clone().narrow(1, n, 1).reshape([1, 1, hidden]);
        let mut sum = padded.clone().narrow(1, 0, length) * tap_of(0);
        for n in 1..spec.taps {
            sum = sum + padded.clone().narrow(1, n, length) * tap_of(n);
        }
        if spec.bias {
            sum = sum + of_layer(Part::Bias).unsqueeze::<3>();
        }
        part(1) * sum
    }
}

/// (batch, heads, length, head_dim) of (batch, length, heads · head_dim).
pub(super) fn heads_apart(rows: Tensor<3>, heads: usize, head_dim: usize) -> Tensor<4> {
    let [batch, length, _] = rows.dims();
    rows.reshape([batch, length, heads, head_dim]).swap_dims(1, 2)
}

/// softmax(query · keyᵀ · scale + added) · value, (batch, length, heads · head_dim), of queries (batch, heads, length, head_dim) and
/// keys and values (batch, key_value_heads, keys, head_dim).
pub(super) fn attend(
    spec: &AttentionSpec,
    [query, key, value]: [Tensor<4>; 3],
    added: Option<&Tensor<4>>,
) -> Tensor<3> {
    let [batch, heads, length, width] = query.dims();
    let [_, shared, keys, _] = key.dims();
    // The query heads of one key head are rows of one product, so that keys and values are never repeated:
    // (batch, key_value_heads, heads / key_value_heads · length, head_dim).
    let rows = heads / shared * length;
    let query = (query * spec.score_scale).reshape([batch, shared, rows, width]);
    let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch, heads, length, keys]);
    let scores = match spec.score_cap {
        Some(cap) => (scores / cap).tanh() * cap,
        None => scores,
    };
    let scores = match added {
        Some(added) => scores + added.clone(),
        None => scores,
    };
    let weights = activation::softmax(scores, 3).reshape([batch, shared, rows, keys]);
    let mixed = weights.matmul(value).reshape([batch, heads, length, width]);
    mixed.swap_dims(1, 2).reshape([batch, length, heads * width])
}

/// Rotates pairs (i, i + head_dim / 2) of (batch, heads, length, head_dim).
pub(super) fn rotate(input: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let half = input.dims()[3] / 2;
    let (a, b) = (input.clone().narrow(3, 0, half), input.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos.clone() + a * sin.clone();
    Tensor::cat(vec![first, second], 3)
}
