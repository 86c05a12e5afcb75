//! One layer: what mixes positions (attention or a short convolution) and the feed-forward network, with their norms and
//! residual sums.

use super::batch::LayerContext;
use super::{AttentionContext, Forward, Tap, activate};
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{AttentionSpec, ConvSpec, FfnSpec, LayerSpec, Mixer, NormPlacement};
use burn::tensor::{Tensor, activation};

impl Forward<'_> {
    /// Layer `layer` on hidden states (batch, length, hidden).
    pub fn block(&self, layer: usize, hidden: Tensor<3>, context: &AttentionContext, tap: &mut dyn Tap) -> Tensor<3> {
        let spec = &self.spec().layers[layer];
        let norm = |input, site| self.norm(input, spec.norm, Some(layer as u16), site);
        let (before, after) = match spec.mixer {
            Mixer::Attention(_) => (NormSite::Attention, NormSite::AttentionOutput),
            Mixer::Conv(_) => (NormSite::Conv, NormSite::Conv),
        };
        match spec.norm_placement {
            NormPlacement::Pre => {
                let mixed = self.mix(layer, spec, norm(hidden.clone(), before), context, tap);
                let hidden = hidden + mixed;
                hidden.clone() + self.ffn(layer, &spec.ffn, norm(hidden, NormSite::Ffn), tap)
            }
            NormPlacement::Post => {
                let mixed = self.mix(layer, spec, hidden.clone(), context, tap);
                let hidden = norm(hidden + mixed, before);
                norm(hidden.clone() + self.ffn(layer, &spec.ffn, hidden, tap), NormSite::Ffn)
            }
            NormPlacement::Around => {
                let mixed = self.mix(layer, spec, norm(hidden.clone(), before), context, tap);
                let hidden = hidden + norm(mixed, after);
                let inner = self.ffn(layer, &spec.ffn, norm(hidden.clone(), NormSite::Ffn), tap);
                hidden + norm(inner, NormSite::FfnOutput)
            }
        }
    }

    fn mix(
        &self,
        layer: usize,
        spec: &LayerSpec,
        input: Tensor<3>,
        context: &AttentionContext,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        match &spec.mixer {
            Mixer::Attention(attention) => self.attention(layer, spec, attention, input, &context.layers[layer], tap),
            Mixer::Conv(conv) => self.convolution(layer, conv, input, context.present.as_ref(), tap),
        }
    }

    /// output(softmax(query · keyᵀ · scale + mask) · value).
    fn attention(
        &self,
        layer: usize,
        of_layer: &LayerSpec,
        spec: &AttentionSpec,
        input: Tensor<3>,
        context: &LayerContext,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let [batch, length, _] = input.dims();
        let (heads, shared, width) = (spec.heads, spec.key_value_heads, spec.head_dim);
        let mut project = |role, heads: usize, norm: Option<NormSite>| -> Tensor<4> {
            let mut projected = self.linear(LinearId::layer(layer, role), input.clone(), tap);
            if let Some(site) = norm.filter(|_| spec.query_key_norm) {
                projected = projected.reshape([batch, length * heads, width]);
                projected = self.norm(projected, of_layer.norm, Some(layer as u16), site);
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
        // The query heads of one key head are rows of one product, so that keys and values are never repeated:
        // (batch, key_value_heads, heads / key_value_heads · length, head_dim).
        let rows = heads / shared * length;
        let query = (query * spec.score_scale).reshape([batch, shared, rows, width]);
        let scores = query.matmul(key.swap_dims(2, 3)).reshape([batch, heads, length, length]);
        let scores = match &context.mask {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        let weights = activation::softmax(scores, 3).reshape([batch, shared, rows, length]);
        let mixed = weights.matmul(value).reshape([batch, heads, length, width]);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, length, heads * width]);
        self.linear(LinearId::layer(layer, Role::Output), mixed, tap)
    }

    /// out(c · conv(b · x)) with (b, c, x) = in(input): output t of the convolution is Σ_j kernel[j] · input[t − taps + 1 + j],
    /// zeros before the first position. `present`, (batch, length, 1), makes padding count as zeros too.
    fn convolution(
        &self,
        layer: usize,
        spec: &ConvSpec,
        input: Tensor<3>,
        present: Option<&Tensor<3>>,
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
        let before = Tensor::zeros([batch, spec.taps - 1, hidden], &gated.device());
        let padded = if spec.taps > 1 { Tensor::cat(vec![before, gated], 1) } else { gated };
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
