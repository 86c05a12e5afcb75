//! One layer: what mixes positions (attention or a short convolution) and the feed-forward network, with their norms and
//! residual sums.

use super::batch::LayerContext;
use super::cache::LayerCache;
use super::{AttentionContext, Forward, Tap, activate};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{AttentionSpec, ConvSpec, FfnSpec, Mixer, NormPlacement};
use burn::tensor::{Tensor, activation};

impl Forward<'_> {
    /// Layer `layer` on hidden states (batch, length, hidden).
    pub fn block(&self, layer: usize, hidden: Tensor<3>, context: &AttentionContext, tap: &mut dyn Tap) -> Tensor<3> {
        self.block_after(layer, hidden, context, None, tap)
    }

    /// [`Forward::block`] after positions that a cache holds; it takes in those of `hidden`.
    pub(super) fn block_after(
        &self,
        layer: usize,
        hidden: Tensor<3>,
        context: &AttentionContext,
        past: Option<&mut LayerCache>,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let spec = &self.spec().layers[layer];
        let norm = |input, site| self.norm(input, spec.norm, Some(layer as u16), site);
        let (before, after) = match spec.mixer {
            Mixer::Attention(_) => (NormSite::Attention, NormSite::AttentionOutput),
            Mixer::Conv(_) => (NormSite::Conv, NormSite::Conv),
        };
        match spec.norm_placement {
            NormPlacement::Pre => {
                let mixed = self.mix(layer, norm(hidden.clone(), before), context, past, tap);
                let hidden = hidden + mixed;
                hidden.clone() + self.ffn(layer, &spec.ffn, norm(hidden, NormSite::Ffn), tap)
            }
            NormPlacement::Post => {
                let mixed = self.mix(layer, hidden.clone(), context, past, tap);
                let hidden = norm(hidden + mixed, before);
                norm(hidden.clone() + self.ffn(layer, &spec.ffn, hidden, tap), NormSite::Ffn)
            }
            NormPlacement::Around => {
                let mixed = self.mix(layer, norm(hidden.clone(), before), context, past, tap);
                let hidden = hidden + norm(mixed, after);
                let inner = self.ffn(layer, &spec.ffn, norm(hidden.clone(), NormSite::Ffn), tap);
                hidden + norm(inner, NormSite::FfnOutput)
            }
        }
    }

    fn mix(
        &self,
        layer: usize,
        input: Tensor<3>,
        context: &AttentionContext,
        past: Option<&mut LayerCache>,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        match &self.spec().layers[layer].mixer {
            Mixer::Attention(spec) => self.attention(layer, spec, input, &context.layers[layer], past, tap),
            Mixer::Conv(spec) => self.convolution(layer, spec, input, context.present.as_ref(), past, tap),
        }
    }

    /// output(softmax(query · keyᵀ · scale + mask) · value), over the keys and values of the cache and the input's own.
    fn attention(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Tensor<3>,
        context: &LayerContext,
        past: Option<&mut LayerCache>,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let layer_norm = self.spec().layers[layer].norm;
        let [batch, length, _] = input.dims();
        let (heads, shared, width) = (spec.heads, spec.key_value_heads, spec.head_dim);
        let mut project = |role, heads: usize, norm: Option<NormSite>| -> Tensor<4> {
            let mut projected = self.linear(LinearId::layer(layer, role), input.clone(), tap);
            if let Some(site) = norm.filter(|_| spec.query_key_norm) {
                projected = projected.reshape([batch, length * heads, width]);
                projected = self.norm(projected, layer_norm, Some(layer as u16), site);
            }
            projected.reshape([batch, length, heads, width]).swap_dims(1, 2)
        };
        let mut query = project(Role::Query, heads, Some(NormSite::Query));
        let mut key = project(Role::Key, shared, Some(NormSite::Key));
        let value = project(Role::Value, shared, None);
        if let Some((cos, sin)) = &context.rotary {
            query = rotate(query, cos, sin);
            key = rotate(key, cos, sin);
        }
        tap.attention(layer, &query, &key);
        let (key, value) = match past {
            Some(past) => past.extend(key, value, spec.window),
            None => (key, value),
        };
        let keys = key.dims()[2];
        // The query heads of one key head are rows of one product, so that keys and values are never repeated:
        // (batch, key_value_heads, heads / key_value_heads · length, head_dim).
        let rows = heads / shared * length;
        let query = (query * spec.score_scale).reshape([batch, shared, rows, width]);
        let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch, heads, length, keys]);
        let scores = match &context.mask {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        let weights = activation::softmax(scores, 3).reshape([batch, shared, rows, keys]);
        let mixed = weights.matmul(value).reshape([batch, heads, length, width]);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, length, heads * width]);
        self.linear(LinearId::layer(layer, Role::Output), mixed, tap)
    }

    /// out(c · conv(b · x)) with (b, c, x) = in(input): output t of the convolution is Σ_j kernel[j] · input[t − taps + 1 + j],
    /// those of the cache, or zeros, before the first position. `present`, (batch, length, 1), makes padding count as
    /// zeros too.
    fn convolution(
        &self,
        layer: usize,
        spec: &ConvSpec,
        input: Tensor<3>,
        present: Option<&Tensor<3>>,
        past: Option<&mut LayerCache>,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let [batch, length, hidden] = input.dims();
        let input = match present {
            Some(present) => input * present.clone(),
            None => input,
        };
        let projected = self.linear(LinearId::layer(layer, Role::ConvIn), input, tap);
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
        self.linear(LinearId::layer(layer, Role::ConvOut), part(1) * sum, tap)
    }

    /// down(act(up(x))), or down(act(gate(x)) · up(x)).
    fn ffn(&self, layer: usize, spec: &FfnSpec, input: Tensor<3>, tap: &mut dyn Tap) -> Tensor<3> {
        let mut linear = |role, input| self.linear(LinearId::layer(layer, role), input, tap);
        let inner = if spec.gated {
            let gate = linear(Role::Gate, input.clone());
            activate(gate, spec.activation) * linear(Role::Up, input)
        } else {
            activate(linear(Role::Up, input), spec.activation)
        };
        linear(Role::Down, inner)
    }
}

/// Rotates pairs (i, i + head_dim / 2) of (batch, heads, length, head_dim).
fn rotate(input: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let half = input.dims()[3] / 2;
    let (a, b) = (input.clone().narrow(3, 0, half), input.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos.clone() + a * sin.clone();
    Tensor::cat(vec![first, second], 3)
}
