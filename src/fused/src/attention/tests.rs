//! Against attention written as its equation in f64, over more positions than a block has.

use super::*;
use burn::tensor::{Device, Tensor, TensorData};
use slm_runtime::sample::random_u64;

fn values(stream: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
}

/// Turned, where `rotary` says so.
fn head(shape: &Shape, row: &[f64], first: usize, position: usize, turned: bool) -> Vec<f64> {
    let from = &row[first..first + shape.width];
    let Some(rotary) = shape.rotary.as_ref().filter(|_| turned) else { return from.to_vec() };
    let half = shape.width / 2;
    let [cos, sin] = [0, 1].map(|which: usize| &rotary[which][position * half..][..half]);
    let one = |index: usize| {
        let pair = index % half;
        let (cos, sin) = (f64::from(cos[pair]), f64::from(sin[pair]));
        if index < half {
            from[pair] * cos - from[pair + half] * sin
        } else {
            from[pair + half] * cos + from[pair] * sin
        }
    };
    (0..shape.width).map(one).collect()
}

/// The equation, (tokens, heads · width).
fn plain(shape: &Shape, x: &[f64]) -> Vec<f64> {
    let (stride, width, length) = (shape.stride(), shape.width, shape.length);
    let mut out = Vec::new();
    for token in 0..shape.sequences * length {
        let (sequence, position) = (token / length, token % length);
        let row = |position: usize| &x[(sequence * length + position) * stride..][..stride];
        for number in 0..shape.heads {
            let key_first = (shape.heads + number / shape.group()) * width;
            let query = head(shape, row(position), number * width, position, true);
            let present = |at: usize| shape.present.as_ref().is_none_or(|present| present[sequence * length + at]);
            let seen: Vec<usize> = shape.seen(position).filter(|&at| present(at)).collect();
            let score = |&at: &usize| {
                let key = head(shape, row(at), key_first, at, true);
                let score = query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(shape.scale);
                shape.cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
            };
            let weights: Vec<f64> = seen.iter().map(score).map(f64::exp).collect();
            let sum: f64 = weights.iter().sum();
            let value_first = key_first + shape.key_value_heads * width;
            for column in 0..width {
                let mixed = seen.iter().zip(&weights).map(|(&at, weight)| row(at)[value_first + column] * weight);
                out.push(mixed.sum::<f64>() / sum);
            }
        }
    }
    out
}

fn check(shape: Shape, label: &str) {
    let tokens = shape.sequences * shape.length;
    let (stride, width) = (shape.stride(), shape.heads * shape.width);
    let x = values(1, tokens * stride);
    let wide: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let slopes = values(2, tokens * width);
    // Padded queries mean nothing: they get no gradient.
    let counts = |index: usize| shape.present.as_ref().is_none_or(|present| present[index / width]);
    let slopes: Vec<f32> = slopes.iter().enumerate().map(|(index, c)| if counts(index) { *c } else { 0.0 }).collect();
    let device = Device::flex().autodiff();
    let dims = [shape.sequences, shape.length, stride];
    let leaf = Tensor::<3>::from_data(TensorData::new(x, dims), &device).require_grad();
    let result = attention(&Value::of(leaf.clone()).unwrap(), shape.clone());
    let expected = plain(&shape, &wide);
    let found = result.tensor();
    for (index, (found, expected)) in slice(&found).iter().zip(&expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(!counts(index) || error < 3e-6, "{label}: output {index} is {found}, {expected}");
    }
    let weights = TensorData::new(slopes.clone(), [shape.sequences, shape.length, width]);
    let loss = (result.into_tensor::<3>() * Tensor::from_data(weights, &device)).sum();
    let gradient = leaf.grad(&loss.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let of = |x: &[f64]| -> f64 {
        let out = plain(&shape, x);
        out.iter().zip(&slopes).filter(|(_, c)| **c != 0.0).map(|(out, c)| out * f64::from(*c)).sum()
    };
    for stream in 3..6 {
        let direction = values(stream, wide.len());
        let moved = |way: f64| {
            let x: Vec<f64> = wide.iter().zip(&direction).map(|(x, d)| x + way * f64::from(*d)).collect();
            of(&x)
        };
        let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
        let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((along - slope).abs() < 2e-4 * slope.abs().max(1.0), "{label}: slope {slope}, gradient {along}");
    }
}

#[test]
fn every_kind_is_its_equation() {
    let rotary = |length: usize, width: usize| {
        let angles = (0..length * width / 2).map(|index| (index % 97) as f32 * 0.13);
        Some(Arc::new([angles.clone().map(f32::cos).collect(), angles.map(f32::sin).collect()]))
    };
    let base = Shape {
        sequences: 2,
        length: 131,
        heads: 4,
        key_value_heads: 2,
        width: 8,
        scale: 0.6,
        cap: None,
        causal: true,
        window: None,
        rotary: rotary(131, 8),
        present: None,
    };
    let left: Vec<bool> = (0..2 * 131).map(|index| index % 131 >= 40 || index >= 131).collect();
    let right: Vec<bool> = (0..2 * 131).map(|index| index % 131 < 90 || index < 131).collect();
    check(base.clone(), "causal");
    check(Shape { window: Some(37), ..base.clone() }, "window");
    check(Shape { cap: Some(0.8), ..base.clone() }, "capped");
    check(Shape { cap: Some(0.5), present: Some(Arc::new(left.clone())), ..base.clone() }, "capped and padded");
    check(Shape { window: Some(1), heads: 2, ..base.clone() }, "window of one");
    check(Shape { causal: false, rotary: None, width: 6, ..base.clone() }, "bidirectional");
    check(Shape { causal: false, present: Some(Arc::new(right)), key_value_heads: 4, ..base.clone() }, "padded");
    check(Shape { present: Some(Arc::new(left)), ..base.clone() }, "padded on the left");
    check(Shape { sequences: 1, length: 7, rotary: rotary(7, 8), ..base }, "short");
}
