//! One layer: attention and feed-forward network with their norms and residual sums.

use super::{AttentionContext, Forward, Tap, activate};
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::{AttentionSpec, FfnSpec, NormPlacement};
use burn::tensor::{Tensor, activation};

impl Forward<'_> {
    /// Layer `layer` on hidden states (batch, length, hidden).
    pub fn block(&self, layer: usize, hidden: Tensor<3>, context: &AttentionContext, tap: &mut dyn Tap) -> Tensor<3> {
        let spec = &self.spec().layers[layer];
        let norm = |input, site| self.norm(input, spec.norm, Some(layer as u16), site);
        match spec.norm_placement {
            NormPlacement::Pre => {
                let attended =
                    self.attention(layer, &spec.attention, norm(hidden.clone(), NormSite::Attention), context, tap);
                let hidden = hidden + attended;
                hidden.clone() + self.ffn(layer, &spec.ffn, norm(hidden, NormSite::Ffn), tap)
            }
            NormPlacement::Post => {
                let attended = self.attention(layer, &spec.attention, hidden.clone(), context, tap);
                let hidden = norm(hidden + attended, NormSite::Attention);
                norm(hidden.clone() + self.ffn(layer, &spec.ffn, hidden, tap), NormSite::Ffn)
            }
        }
    }

    /// output(softmax(query · keyᵀ · scale + mask) · value).
    fn attention(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Tensor<3>,
        context: &AttentionContext,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        let [batch, length, _] = input.dims();
        let (heads, shared, width) = (spec.heads, spec.key_value_heads, spec.head_dim);
        let mut project = |role, heads: usize| -> Tensor<4> {
            let projected = self.linear(LinearId::layer(layer, role), input.clone(), tap);
            projected.reshape([batch, length, heads, width]).swap_dims(1, 2)
        };
        let mut query = project(Role::Query, heads);
        let mut key = project(Role::Key, shared);
        let value = project(Role::Value, shared);
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
