//! RMSNorm and LayerNorm, over the last dimension or over the heads that lie in it side by side.
//!
//! ```text
//! x̂ = (x − mean x) · r,  r = (var x + ε)^−½        RMSNorm: x̂ = x · r,  r = (mean x² + ε)^−½
//! y = w ∘ x̂ + b                                     with w counted from one: y = (w + 1) ∘ x̂
//! g = w ∘ dy        dx = r · (g − mean g − x̂ · mean(g ∘ x̂))        RMSNorm: without mean g
//! dw = Σ_tokens dy ∘ x̂        db = Σ_tokens dy
//! ```

use crate::linear::add_in_order;
use crate::node::{Value, record, recycle, slice, tensor};
use crate::weights::{TermKind, Weight};
use burn_flex::FlexTensor;
use rayon::prelude::*;
use slm_numerics::lanes::{LANES, dot, sum, tree, vectorised};
use slm_numerics::scratch::take;
use std::sync::Arc;

/// Tokens of one task, whose gradients of weights are summed before they are added to the others'.
const BLOCK: usize = 32;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm.
    Rms,
    /// RMSNorm with the weight counted from one.
    RmsOnePlus,
    /// LayerNorm.
    Layer,
}

/// A norm without its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub epsilon: f64,
}

/// A part of every row that is normed with weights of its own: `heads` times as many values as the weight has.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it begins.
    pub first: usize,
    /// How many times as long as the weight.
    pub heads: usize,
    /// w
    pub weight: Weight,
    /// b
    pub bias: Option<Weight>,
}

struct Rows {
    norm: Norm,
    segments: Vec<Segment>,
    /// Values of a row.
    stride: usize,
}

/// Norms the segments of every row; the rest of the row stays as it is.
pub fn norm(input: &Value, norm: Norm, segments: Vec<Segment>) -> Value {
    let stride = input.width();
    let x = input.tensor();
    let rows = Arc::new(Rows { norm, segments, stride });
    let mut out = take(slice(&x).len());
    let chunk = BLOCK * stride;
    out.par_chunks_mut(chunk).zip(slice(&x).par_chunks(chunk)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(stride).zip(x.chunks_exact(stride)) {
                    rows.forward(x, out);
                }
            },
        );
    });
    let result = tensor(out, &input.dims());
    record([input], result, move |gradient, [_]| {
        let dx = rows.backward(&x, &gradient);
        recycle(x);
        recycle(gradient);
        [Some(dx)]
    })
}

impl Rows {
    #[inline(always)]
    fn plus(&self) -> f32 {
        if self.norm.kind == NormKind::RmsOnePlus { 1.0 } else { 0.0 }
    }

    /// \[mean, r\] of one head.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> [f32; 2] {
        let count = x.len() as f32;
        let epsilon = self.norm.epsilon as f32;
        if self.norm.kind == NormKind::Layer {
            let mean = sum(x) / count;
            [mean, 1.0 / (squares(x, mean) / count + epsilon).sqrt()]
        } else {
            [0.0, 1.0 / (dot(x, x) / count + epsilon).sqrt()]
        }
    }

    #[inline(always)]
    fn forward(&self, x: &[f32], out: &mut [f32]) {
        if self.segments.first().is_none_or(|segment| segment.heads * segment.weight.values().len() < self.stride) {
            out.copy_from_slice(x);
        }
        let plus = self.plus();
        for Segment { first, heads, weight, bias } in &self.segments {
            let weight = weight.values();
            let width = weight.len();
            for head in 0..*heads {
                let at = first + head * width;
                let (x, out) = (&x[at..at + width], &mut out[at..at + width]);
                let [mean, inverse] = self.moments(x);
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = (x - mean) * inverse * (weight + plus);
                }
                if let Some(bias) = bias {
                    out.iter_mut().zip(bias.values()).for_each(|(out, bias)| *out += bias);
                }
            }
        }
    }

    fn backward(&self, x: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
        let (values, dy) = (slice(x), slice(gradient));
        let chunk = BLOCK * self.stride;
        let mut dx = take(values.len());
        let widths: Vec<usize> = self.segments.iter().map(|segment| segment.weight.values().len()).collect();
        let block = |((dx, x), dy): ((&mut [f32], &[f32]), &[f32])| {
            // (dw, db) by segment
            let mut sums: Vec<[Vec<f32>; 2]> =
                widths.iter().map(|&width| [vec![0.0; width], vec![0.0; width]]).collect();
            vectorised(
                #[inline(always)]
                || {
                    let rows = dx.chunks_exact_mut(self.stride).zip(x.chunks_exact(self.stride));
                    for ((dx, x), dy) in rows.zip(dy.chunks_exact(self.stride)) {
                        self.row_backward(x, dy, dx, &mut sums);
                    }
                },
            );
            sums
        };
        let blocks: Vec<Vec<[Vec<f32>; 2]>> =
            dx.par_chunks_mut(chunk).zip(values.par_chunks(chunk)).zip(dy.par_chunks(chunk)).map(block).collect();
        if self.keeps_terms() {
            self.keep_terms(values, dy);
            return tensor(dx, x.layout().shape().as_ref());
        }
        for (number, segment) in self.segments.iter().enumerate() {
            let part = |which: usize| blocks.iter().map(move |block| block[number][which].as_slice());
            if segment.weight.is_trained() {
                add_in_order(&segment.weight, part(0));
            }
            if let Some(bias) = segment.bias.as_ref().filter(|bias| bias.is_trained()) {
                add_in_order(bias, part(1));
            }
        }
        tensor(dx, x.layout().shape().as_ref())
    }

    fn keeps_terms(&self) -> bool {
        let of = |segment: &Segment| {
            segment.weight.terms().is_some() || segment.bias.as_ref().is_some_and(|bias| bias.terms().is_some())
        };
        self.segments.iter().any(of)
    }

    /// Leaves what every row adds to gains and offsets.
    fn keep_terms(&self, x: &[f32], dy: &[f32]) {
        let rows = x.len() / self.stride;
        let mut dx = vec![0.0; self.stride];
        let mut all: Vec<[Vec<f32>; 2]> = self.segments.iter().map(|_| [Vec::new(), Vec::new()]).collect();
        for (x, dy) in x.chunks_exact(self.stride).zip(dy.chunks_exact(self.stride)) {
            let zeros = |segment: &Segment| [(); 2].map(|()| vec![0.0; segment.weight.values().len()]);
            let mut sums: Vec<[Vec<f32>; 2]> = self.segments.iter().map(zeros).collect();
            vectorised(
                #[inline(always)]
                || self.row_backward(x, dy, &mut dx, &mut sums),
            );
            for (all, sums) in all.iter_mut().zip(sums) {
                all.iter_mut().zip(sums).for_each(|(all, sum)| all.extend(sum));
            }
        }
        for (segment, [of_gain, of_offset]) in self.segments.iter().zip(all) {
            if let Some(terms) = segment.weight.terms() {
                terms.keep([0, rows, rows], TermKind::Vectors(of_gain));
            }
            if let Some(terms) = segment.bias.as_ref().and_then(Weight::terms) {
                terms.keep([0, rows, rows], TermKind::Vectors(of_offset));
            }
        }
    }

    #[inline(always)]
    fn row_backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32], sums: &mut [[Vec<f32>; 2]]) {
        if self.segments.first().is_none_or(|segment| segment.heads * segment.weight.values().len() < self.stride) {
            dx.copy_from_slice(dy);
        }
        let plus = self.plus();
        for (Segment { first, heads, weight, .. }, [dw, db]) in self.segments.iter().zip(sums) {
            let weight = weight.values();
            let width = weight.len();
            for head in 0..*heads {
                let range = first + head * width..first + (head + 1) * width;
                let (x, dy, dx) = (&x[range.clone()], &dy[range.clone()], &mut dx[range]);
                let [mean, inverse] = self.moments(x);
                let [total, product] = products([x, dy, weight], [mean, inverse, plus]);
                let count = width as f32;
                let is_layer = self.norm.kind == NormKind::Layer;
                let mean_gradient = if is_layer { total / count } else { 0.0 };
                let mean_product = product / count;
                let values = dx.iter_mut().zip(x).zip(dy).zip(weight).zip(dw.iter_mut());
                for ((((dx, x), dy), weight), dw) in values {
                    let centred = (x - mean) * inverse;
                    *dw = dy.mul_add(centred, *dw);
                    *dx = inverse * (dy * (weight + plus) - mean_gradient - centred * mean_product);
                }
                if is_layer {
                    db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy);
                }
            }
        }
    }
}

/// Σ (x − mean)²
#[inline(always)]
fn squares(x: &[f32], mean: f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for x in chunks {
        for lane in 0..LANES {
            let centred = x[lane] - mean;
            lanes[lane] = centred.mul_add(centred, lanes[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        let centred = x - mean;
        *lane = centred.mul_add(centred, *lane);
    }
    tree(lanes)
}

/// \[Σ g, Σ g · x̂\] of a head's \[x, dy, w\], with \[mean, r, what is added to w\].
#[inline(always)]
fn products([x, dy, weight]: [&[f32]; 3], [mean, inverse, plus]: [f32; 3]) -> [f32; 2] {
    let mut lanes = [[0.0f32; LANES]; 2];
    let ((x, x_rest), (dy, dy_rest), (w, w_rest)) =
        (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
    for ((x, dy), w) in x.iter().zip(dy).zip(w) {
        for lane in 0..LANES {
            let g = dy[lane] * (w[lane] + plus);
            lanes[0][lane] += g;
            lanes[1][lane] = g.mul_add((x[lane] - mean) * inverse, lanes[1][lane]);
        }
    }
    for (lane, ((x, dy), w)) in x_rest.iter().zip(dy_rest).zip(w_rest).enumerate() {
        let g = dy * (w + plus);
        lanes[0][lane] += g;
        lanes[1][lane] = g.mul_add((x - mean) * inverse, lanes[1][lane]);
    }
    lanes.map(tree)
}
