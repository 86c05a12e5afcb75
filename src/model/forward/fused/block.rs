//! The operations of a layer as [`slm_fused`] has them: the linears of one input as one product, each with its bias and
//! the residual it is added to; norms of queries and keys, rotation and attention over all of them side by side.

use super::decode::LayerPast;
use super::{Context, FusedForward, Tables, function, kind};
use crate::model::forward::Observer;
use crate::model::forward::block::{attend, heads_apart, rotate};
use crate::model::forward::layer::Operations;
use crate::model::id::{LinearId, NormSite, ParameterId, Part, Role};
use crate::model::spec::{AttentionSpec, ConvSpec, Mixer, ModelSpec, Norm, QueryKeyNorm};
use burn::tensor::{Tensor, TensorData};
use slm_fused::activation::activate;
use slm_fused::attention::cached::attention_after;
use slm_fused::attention::{Shape, attention};
use slm_fused::convolution::{Kernel, convolve, without_padding};
use slm_fused::mixture::weigh;
use slm_fused::node::Value;
use slm_fused::norm::{Segment, norm};

impl Operations for FusedForward<'_> {
    type Value = Value;
    type Context = Context;
    type Past = LayerPast;

    fn model(&self) -> &ModelSpec {
        self.spec
    }

    fn normed(&self, input: &Value, norm: Norm, layer: u16, site: NormSite) -> Value {
        self.norm(input, norm, Some(layer), site)
    }

    /// Burn's own operation.
    fn sum(&self, a: Value, b: Value) -> Value {
        let sum = a.into_tensor::<3>() + b.into_tensor::<3>();
        value_of(sum)
    }

    fn project(&self, id: LinearId, input: &Value, residual: Option<Value>, observer: &mut dyn Observer) -> Value {
        self.linear(input, &[id], residual.as_ref(), observer)
    }

    fn mixer_input(&self, layer: usize, normed: Value, context: &Context) -> Value {
        match (&self.spec.layers[layer].mixer, &context.present) {
            (Mixer::Conv(_), Some(present)) => without_padding(&normed, present.clone()),
            _ => normed,
        }
    }

    fn mix(
        &self,
        layer: usize,
        input: Value,
        context: &Context,
        past: Option<&mut LayerPast>,
        observer: &mut dyn Observer,
    ) -> Value {
        match &self.spec.layers[layer].mixer {
            Mixer::Attention(spec) => self.attention(layer, spec, &input, context, past, observer),
            Mixer::Conv(spec) => self.convolution(layer, spec, &input, context, past, observer),
        }
    }

    fn attend_across(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: Value,
        context: &Context,
        _past: Option<&mut LayerPast>,
        observer: &mut dyn Observer,
    ) -> Value {
        let Some((memory, mask)) = context.pairs.as_ref().and_then(|pairs| pairs.memory.as_ref()) else {
            unreachable!("a decoder reads its source first")
        };
        let id = |role| LinearId::layer(layer, role);
        let query = self.linear(&input, &[id(Role::CrossQuery)], None, observer).into_tensor::<3>();
        let both = self.linear(memory, &[id(Role::CrossKey), id(Role::CrossValue)], None, observer);
        let (both, width) = (both.into_tensor::<3>(), spec.key_width());
        let of_source = |first| heads_apart(both.clone().narrow(2, first, width), spec.key_value_heads, spec.head_dim);
        let query = heads_apart(query, spec.heads, spec.head_dim);
        value_of(attend(spec, [query, of_source(0), of_source(width)], mask.as_ref()))
    }

    fn widen(&self, layer: usize, input: Value, observer: &mut dyn Observer) -> Value {
        let spec = &self.spec.layers[layer].ffn;
        let ids = [LinearId::layer(layer, Role::Gate), LinearId::layer(layer, Role::Up)];
        let scores =
            |observer: &mut dyn Observer| self.linear(&input, &[LinearId::layer(layer, Role::Router)], None, observer);
        let scored = spec.mixture.map(|mixture| (mixture, scores(observer)));
        let inner = self.linear(&input, if spec.gated { &ids } else { &ids[1..] }, None, observer);
        let inner = activate(&inner, function(spec.activation), spec.gated);
        match scored {
            Some((mixture, scores)) => weigh(&inner, &scores, mixture.chosen),
            None => inner,
        }
    }
}

impl FusedForward<'_> {
    fn attention(
        &self,
        layer: usize,
        spec: &AttentionSpec,
        input: &Value,
        context: &Context,
        past: Option<&mut LayerPast>,
        observer: &mut dyn Observer,
    ) -> Value {
        let id = |role| LinearId::layer(layer, role);
        let mut projected = self.linear(input, &[id(Role::Query), id(Role::Key), id(Role::Value)], None, observer);
        if let Some(norms) = spec.query_key_norm {
            let segment = |first, heads, site| Segment {
                first,
                heads,
                weight: self.weights.vector(ParameterId::Norm(Some(layer as u16), site, Part::Weight)).clone(),
                bias: self.norm_bias(self.spec.layers[layer].norm, Some(layer as u16), site),
            };
            let [queries, keys] = match norms {
                QueryKeyNorm::Heads => [spec.heads, spec.key_value_heads],
                QueryKeyNorm::Together => [1, 1],
            };
            let segments = vec![segment(0, queries, NormSite::Query), segment(spec.query_width(), keys, NormSite::Key)];
            projected = norm(&projected, kind(self.spec.layers[layer].norm), segments);
        }
        let rotary = context.rotary[layer].clone();
        if observer.sees_attention() {
            let [query, key] = heads_of(&projected, spec, rotary.as_ref());
            observer.attention(layer, &query, &key);
        }
        if observer.sees_projected(layer) {
            observer.projected(layer, projected.clone().into_tensor::<3>());
        }
        if let Some(pairs) = &context.pairs {
            let rows = projected.into_tensor::<3>();
            let part = |first, heads: usize| {
                heads_apart(rows.clone().narrow(2, first, heads * spec.head_dim), heads, spec.head_dim)
            };
            let (queries, keys) = (spec.query_width(), spec.key_width());
            let query = part(0, spec.heads);
            let [key, value] = [queries, queries + keys].map(|first| part(first, spec.key_value_heads));
            return value_of(attend(spec, [query, key, value], pairs.added.as_ref()));
        }
        let shape = Shape {
            sequences: context.sequences,
            length: context.length,
            heads: spec.heads,
            key_value_heads: spec.key_value_heads,
            width: spec.head_dim,
            scale: spec.score_scale as f32,
            cap: spec.score_cap.map(|cap| cap as f32),
            causal: self.spec.causal,
            window: spec.window,
            rotary,
            present: context.present.clone(),
        };
        match past {
            Some(LayerPast::Attention(past)) => attention_after(&projected, &shape, past),
            _ => attention(&projected, shape),
        }
    }

    fn convolution(
        &self,
        layer: usize,
        spec: &ConvSpec,
        input: &Value,
        context: &Context,
        past: Option<&mut LayerPast>,
        observer: &mut dyn Observer,
    ) -> Value {
        let projected = self.linear(input, &[LinearId::layer(layer, Role::ConvIn)], None, observer);
        let part = |part| self.weights.vector(ParameterId::Kernel(layer as u16, part)).clone();
        let kernel = |length| Kernel { taps: part(Part::Weight), bias: spec.bias.then(|| part(Part::Bias)), length };
        match past {
            Some(LayerPast::Convolution(past)) => {
                let (rows, length) = past.before(&projected, context.sequences);
                past.without(&convolve(&rows, kernel(length)), context.sequences)
            }
            _ => convolve(&projected, kernel(context.length)),
        }
    }
}

/// What burn's own operations made of values.
fn value_of(tensor: Tensor<3>) -> Value {
    Value::of(tensor).unwrap_or_else(|| unreachable!("burn's operations stay on the flex device"))
}

/// Queries (batch, heads, length, head_dim) and keys after rotation, of rows (batch, length, queries + keys + values).
fn heads_of(projected: &Value, spec: &AttentionSpec, rotary: Option<&Tables>) -> [Tensor<4>; 2] {
    let rows = Value::Plain(projected.tensor()).into_tensor::<3>();
    let [batch, length, _] = rows.dims();
    let tables = rotary.map(|tables| {
        tables.each_ref().map(|table| {
            let data = TensorData::new(table.clone(), [1, 1, length, spec.head_dim / 2]);
            Tensor::<4>::from_data(data, &rows.device())
        })
    });
    let part = |first: usize, heads: usize| {
        let values = rows.clone().narrow(2, first, heads * spec.head_dim);
        let values = values.reshape([batch, length, heads, spec.head_dim]).swap_dims(1, 2);
        match &tables {
            Some([cos, sin]) => rotate(values, cos, sin),
            None => values,
        }
    };
    [part(0, spec.heads), part(spec.query_width(), spec.key_value_heads)]
}
