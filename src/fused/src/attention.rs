//! Attention over projected queries, keys and values that lie side by side in one row, with their rotation:
//!
//! ```text
//! q, k turned by the angles of their positions        P = softmax(scale · q · kᵀ) over the keys a query sees        o = P · v
//! D = Σ do ∘ o        dv = Pᵀ · do        dS = P ∘ (do · vᵀ − D)        dq = scale · dS · k        dk = scale · dSᵀ · q
//! ```
//!
//! and dq, dk turned back. Where scores are capped, s becomes c · tanh(s / c), and dS is times 1 − (s / c)². One task has one key head of one sequence, with every query head that shares it, so nothing is
//! summed by two threads. It goes through blocks of queries: a block's scores over the keys that any of its queries sees
//! stay in the second cache, and are neither kept nor made for all positions at once. Of each query its largest score and
//! the inverse of its sum are kept; the backward pass makes P again from them.

pub mod cached;

use crate::activation::{cap_all, cap_slope};
use crate::node::{Value, record, recycle, slice, tensor};
use rayon::prelude::*;
use slm_numerics::lanes::{dot, exp, largest, sum, vectorised};
use slm_numerics::product::{Left, Matrix, Output, PANEL, Panels, Right, multiply_packed, tile_floats};
use slm_numerics::scratch::{Scratch, take};
use std::sync::Arc;

/// Queries of a block: a multiple of the rows that a product computes together.
const BLOCK: usize = 60;

/// What sees what, and how.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Sequences of the batch.
    pub sequences: usize,
    /// Positions of each.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key heads; divides `heads`.
    pub key_value_heads: usize,
    /// Values of one head.
    pub width: usize,
    /// Factor on q · k.
    pub scale: f32,
    /// Largest magnitude of scores s, which become c · tanh(s / c).
    pub cap: Option<f32>,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
    /// How many of them, itself included; where it sees both sides, on each.
    pub window: Option<usize>,
    /// cos and sin, (length, width / 2) each.
    pub rotary: Option<Arc<[Vec<f32>; 2]>>,
    /// (sequences, length): whether there is a token.
    pub present: Option<Arc<Vec<bool>>>,
}

impl Shape {
    /// Values of a row of input.
    fn stride(&self) -> usize {
        (self.heads + 2 * self.key_value_heads) * self.width
    }

    fn group(&self) -> usize {
        self.heads / self.key_value_heads
    }

    /// The keys that the query at `position` may see, padding aside.
    fn seen(&self, position: usize) -> std::ops::Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let end = match (self.causal, self.window) {
            (true, _) => position + 1,
            (false, Some(window)) => self.length.min(position.saturating_add(window)),
            (false, None) => self.length,
        };
        first..end
    }

    /// Copies one head of one sequence, (length, width), turned where it is not a value.
    #[inline(always)]
    fn gather(&self, rows: &[f32], first: usize, turned: bool, factor: f32, out: &mut [f32]) {
        let stride = self.stride();
        let rotary = self.rotary.as_ref().filter(|_| turned);
        for (position, (out, row)) in out.chunks_exact_mut(self.width).zip(rows.chunks_exact(stride)).enumerate() {
            let row = &row[first..first + self.width];
            match rotary {
                Some(rotary) => self.turn(rotary, position, 1.0, row, out),
                None => out.copy_from_slice(row),
            }
            if factor != 1.0 {
                out.iter_mut().for_each(|value| *value *= factor);
            }
        }
    }

    /// Pairs (i, i + width / 2) turned forth (`way` 1) or back (−1).
    #[inline(always)]
    fn turn(&self, [cos, sin]: &[Vec<f32>; 2], position: usize, way: f32, from: &[f32], to: &mut [f32]) {
        let half = self.width / 2;
        let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
        let ((a, b), (first, second)) = (from.split_at(half), to.split_at_mut(half));
        let pairs = first.iter_mut().zip(second).zip(a.iter().zip(b)).zip(cos.iter().zip(sin));
        for (((first, second), (a, b)), (cos, sin)) in pairs {
            let sin = sin * way;
            *first = a.mul_add(*cos, -(b * sin));
            *second = b.mul_add(*cos, a * sin);
        }
    }
}

/// Rows (…, heads · width) from rows (…, (heads + 2 · key_value_heads) · width) of queries, keys and values.
pub fn attention(input: &Value, shape: Shape) -> Value {
    let x = input.tensor();
    let width = shape.heads * shape.width;
    let mut out = take(slice(&x).len() / shape.stride() * width);
    // Per sequence and key head: (query heads of it, length, width), and [largest score, 1 / sum] of each query
    let tasks = shape.sequences * shape.key_value_heads;
    let parts: Vec<(Scratch, Vec<[f32; 2]>)> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            vectorised(
                #[inline(always)]
                || forward(&shape, slice(&x), task),
            )
        })
        .collect();
    let (length, group) = (shape.length, shape.group() * shape.width);
    let mut statistics = Vec::with_capacity(tasks);
    let mut outputs = Vec::with_capacity(tasks);
    for (output, statistic) in parts {
        outputs.push(std::sync::Mutex::new(output));
        statistics.push(statistic);
    }
    out.par_chunks_mut(length * width).enumerate().for_each(|(sequence, out)| {
        for head in 0..shape.key_value_heads {
            let mut output = outputs[sequence * shape.key_value_heads + head]
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            for (row, own) in out.chunks_exact_mut(width).zip(output.values().chunks_exact(group)) {
                row[head * group..][..group].copy_from_slice(own);
            }
        }
    });
    let result = tensor(out, &input.dims_with(width));
    let kept = result.clone();
    record([input], result, move |gradient, [_]| {
        let mut dx = take(slice(&x).len());
        let parts: Vec<std::sync::Mutex<Scratch>> = (0..tasks)
            .into_par_iter()
            .map(|task| {
                let given = Given { x: slice(&x), o: slice(&kept), d_o: slice(&gradient) };
                std::sync::Mutex::new(vectorised(
                    #[inline(always)]
                    || backward(&shape, given, &statistics[task], task),
                ))
            })
            .collect();
        let stride = shape.stride();
        dx.par_chunks_mut(length * stride).enumerate().for_each(|(sequence, dx)| {
            for head in 0..shape.key_value_heads {
                let mut part = parts[sequence * shape.key_value_heads + head]
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let own = group + 2 * shape.width;
                let key = shape.heads * shape.width + head * shape.width;
                for (row, own) in dx.chunks_exact_mut(stride).zip(part.values().chunks_exact(own)) {
                    let (query, rest) = own.split_at(group);
                    let (own_key, own_value) = rest.split_at(shape.width);
                    row[head * group..][..group].copy_from_slice(query);
                    row[key..][..shape.width].copy_from_slice(own_key);
                    row[key + shape.key_value_heads * shape.width..][..shape.width].copy_from_slice(own_value);
                }
            }
        });
        let dims = x.layout().shape().to_vec();
        [x, kept, gradient].into_iter().for_each(recycle);
        [Some(tensor(dx, &dims))]
    })
}

/// What the heads of one task have in common.
struct Task<'a> {
    shape: &'a Shape,
    /// (length, stride) of the sequence.
    rows: &'a [f32],
    present: Option<&'a [bool]>,
    sequence: usize,
    head: usize,
}

impl<'a> Task<'a> {
    fn new(shape: &'a Shape, x: &'a [f32], task: usize) -> Self {
        let (sequence, head) = (task / shape.key_value_heads, task % shape.key_value_heads);
        let size = shape.length * shape.stride();
        let present = shape.present.as_ref().map(|present| &present[sequence * shape.length..][..shape.length]);
        Task { shape, rows: &x[sequence * size..][..size], present, sequence, head }
    }

    /// \[keys turned, values\], (length, width) each.
    #[inline(always)]
    fn keys_and_values(&self, keys: &mut [f32], values: &mut [f32]) {
        let shape = self.shape;
        let first = (shape.heads + self.head) * shape.width;
        shape.gather(self.rows, first, true, 1.0, keys);
        shape.gather(self.rows, first + shape.key_value_heads * shape.width, false, 1.0, values);
    }

    /// Queries of one of the task's heads, turned and scaled, (length, width).
    #[inline(always)]
    fn queries(&self, number: usize, queries: &mut [f32]) {
        let first = (self.head * self.shape.group() + number) * self.shape.width;
        self.shape.gather(self.rows, first, true, self.shape.scale, queries);
    }

    /// The queries of a block from `first`, and the keys that any of them sees, from a multiple of [`PANEL`].
    fn block(&self, first: usize) -> (usize, std::ops::Range<usize>) {
        let count = BLOCK.min(self.shape.length - first);
        let start = self.shape.seen(first).start / PANEL * PANEL;
        (count, start..self.shape.seen(first + count - 1).end)
    }

    /// Scores that the query at `position` must not see become 0 after `weigh` has seen the others; `scores` begin at key
    /// `start`.
    #[inline(always)]
    fn over_seen(&self, position: usize, start: usize, scores: &mut [f32], mut weigh: impl FnMut(&mut [f32])) {
        let seen = self.shape.seen(position);
        let (first, last) = (seen.start - start, seen.end - start);
        if let Some(present) = self.present {
            for (score, present) in scores[first..last].iter_mut().zip(&present[seen]) {
                if !present {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        weigh(&mut scores[first..last]);
        scores[..first].fill(0.0);
        scores[last..].fill(0.0);
    }
}

/// \[(length, group, width) of outputs, statistics (group, length)\] of a task.
#[inline(always)]
fn forward(shape: &Shape, x: &[f32], task: usize) -> (Scratch, Vec<[f32; 2]>) {
    let task = Task::new(shape, x, task);
    let (length, width, group) = (shape.length, shape.width, shape.group());
    let stride = group * width;
    let mut memory = Scratch::take(3 * length * width);
    let (keys, rest) = memory.values().split_at_mut(length * width);
    let (values, queries) = rest.split_at_mut(length * width);
    task.keys_and_values(keys, values);
    let by_key = Right::Columns(Matrix::new(keys, width));
    let by_value = Right::Rows(Matrix::new(values, width));
    let mut packed = Scratch::take(Panels::floats(by_key) + Panels::floats(by_value));
    let (key_memory, value_memory) = packed.values().split_at_mut(Panels::floats(by_key));
    let (by_key, by_value) = (Panels::new(by_key, key_memory), Panels::new(by_value, value_memory));
    let mut work = Scratch::take(BLOCK * length + tile_floats(BLOCK, length.max(width)));
    let (scores, tiles) = work.values().split_at_mut(BLOCK * length);
    let mut out = Scratch::take(length * stride);
    let mut statistics = vec![[0.0; 2]; group * length];
    for head in 0..group {
        task.queries(head, queries);
        for first in (0..length).step_by(BLOCK) {
            let (count, seen) = task.block(first);
            let scores = &mut scores[..count * seen.len()];
            let left = Left::Rows(Matrix::new(&queries[first * width..][..count * width], width));
            let panels = by_key.from_column(seen.start, seen.len());
            multiply_packed(Output::over(scores, seen.len()), left, panels, tiles);
            if let Some(cap) = shape.cap {
                cap_all(scores, cap);
            }
            for (row, scores) in scores.chunks_exact_mut(seen.len()).enumerate() {
                task.over_seen(
                    first + row,
                    seen.start,
                    scores,
                    #[inline(always)]
                    |scores: &mut [f32]| {
                        statistics[head * length + first + row] = softmax(scores);
                    },
                );
            }
            let left = Left::Rows(Matrix::new(scores, seen.len()));
            let output = Output::over(&mut out.values()[first * stride..], stride).at(head * width);
            multiply_packed(output, left, by_value.from(seen.start), tiles);
        }
    }
    (out, statistics)
}

/// Scores to weights; returns the largest score and the inverse of the sum. All 0 where nothing is seen.
#[inline(always)]
fn softmax(scores: &mut [f32]) -> [f32; 2] {
    let most = largest(scores);
    if most == f32::NEG_INFINITY {
        scores.fill(0.0);
        return [0.0; 2];
    }
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    let inverse = 1.0 / sum(scores);
    scores.iter_mut().for_each(|weight| *weight *= inverse);
    [most, inverse]
}

/// The input, the output and its gradient.
#[derive(Clone, Copy)]
struct Given<'a> {
    x: &'a [f32],
    o: &'a [f32],
    d_o: &'a [f32],
}

/// (length, queries of the group · width + keys · width + values · width) of gradients of a task.
#[inline(always)]
fn backward(shape: &Shape, given: Given<'_>, statistics: &[[f32; 2]], task: usize) -> Scratch {
    let task = Task::new(shape, given.x, task);
    let (length, width, group) = (shape.length, shape.width, shape.group());
    let (stride, whole) = ((group + 2) * width, shape.heads * width);
    let size = length * width;
    let mut memory = Scratch::take(6 * size);
    let (keys, rest) = memory.values().split_at_mut(size);
    let (values, rest) = rest.split_at_mut(size);
    let (queries, rest) = rest.split_at_mut(size);
    let (d_query, rest) = rest.split_at_mut(size);
    let (d_key, d_value) = rest.split_at_mut(size);
    task.keys_and_values(keys, values);
    let (right_key, right_value) =
        (Right::Columns(Matrix::new(keys, width)), Right::Columns(Matrix::new(values, width)));
    let key_rows = Right::Rows(Matrix::new(keys, width));
    let floats = Panels::floats(right_key);
    let mut packed = Scratch::take(2 * floats + Panels::floats(key_rows));
    let (memory_key, rest) = packed.values().split_at_mut(floats);
    let (memory_value, memory_rows) = rest.split_at_mut(floats);
    let (by_key, by_value) = (Panels::new(right_key, memory_key), Panels::new(right_value, memory_value));
    let by_key_row = Panels::new(key_rows, memory_rows);
    let block_panels = BLOCK * width.next_multiple_of(PANEL);
    let tiles_needed = tile_floats(BLOCK, length.max(width)).max(tile_floats(length, BLOCK));
    let mut work = Scratch::take(2 * BLOCK * length + BLOCK * width + block_panels + tiles_needed);
    let (weights, rest) = work.values().split_at_mut(BLOCK * length);
    let (d_scores, rest) = rest.split_at_mut(BLOCK * length);
    let (d_out, rest) = rest.split_at_mut(BLOCK * width);
    let (block_memory, tiles) = rest.split_at_mut(block_panels);
    let mut out = Scratch::take(length * stride);
    d_key.fill(0.0);
    d_value.fill(0.0);
    let first_row = task.sequence * length;
    for head in 0..group {
        task.queries(head, queries);
        let column = (task.head * group + head) * width;
        for first in (0..length).step_by(BLOCK) {
            let (count, seen) = task.block(first);
            let (weights, d_scores) = (&mut weights[..count * seen.len()], &mut d_scores[..count * seen.len()]);
            let own_queries = &queries[first * width..][..count * width];
            let d_out = &mut d_out[..count * width];
            for (row, d_out) in d_out.chunks_exact_mut(width).enumerate() {
                d_out.copy_from_slice(&given.d_o[(first_row + first + row) * whole + column..][..width]);
            }
            let panels = by_key.from_column(seen.start, seen.len());
            let left = Left::Rows(Matrix::new(own_queries, width));
            multiply_packed(Output::over(weights, seen.len()), left, panels, tiles);
            if let Some(cap) = shape.cap {
                cap_all(weights, cap);
            }
            let panels = by_value.from_column(seen.start, seen.len());
            multiply_packed(Output::over(d_scores, seen.len()), Left::Rows(Matrix::new(d_out, width)), panels, tiles);
            for (row, weights) in weights.chunks_exact_mut(seen.len()).enumerate() {
                let [most, inverse] = statistics[head * length + first + row];
                let slopes: Option<Vec<f32>> =
                    shape.cap.map(|cap| weights.iter().map(|score| cap_slope(*score, cap)).collect());
                task.over_seen(
                    first + row,
                    seen.start,
                    weights,
                    #[inline(always)]
                    |weights: &mut [f32]| {
                        for weight in weights.iter_mut() {
                            *weight = exp(*weight - most) * inverse;
                        }
                    },
                );
                let o = &given.o[(first_row + first + row) * whole + column..][..width];
                let own = dot(o, &d_out[row * width..][..width]);
                let d_scores = &mut d_scores[row * seen.len()..][..seen.len()];
                d_scores.iter_mut().zip(&*weights).for_each(|(d, weight)| *d = weight * (*d - own));
                for (d, slope) in d_scores.iter_mut().zip(slopes.iter().flatten()) {
                    *d *= slope;
                }
            }
            let (by_weight, by_score) = (Matrix::new(weights, seen.len()), Matrix::new(d_scores, seen.len()));
            let d_out = Panels::new(
                Right::Rows(Matrix::new(d_out, width)),
                &mut block_memory[..count * width.next_multiple_of(PANEL)],
            );
            let keys = &mut d_value[seen.start * width..seen.end * width];
            multiply_packed(Output::onto(keys, width), Left::Columns(by_weight), d_out, tiles);
            let own = Panels::new(
                Right::Rows(Matrix::new(own_queries, width)),
                &mut block_memory[..count * width.next_multiple_of(PANEL)],
            );
            let keys = &mut d_key[seen.start * width..seen.end * width];
            multiply_packed(Output::onto(keys, width), Left::Columns(by_score), own, tiles);
            let output = Output::over(&mut d_query[first * width..], width);
            multiply_packed(output, Left::Rows(by_score), by_key_row.from(seen.start), tiles);
        }
        // Queries were scaled before they met the keys, so their gradient is, and dk has the scale in them already.
        scatter(shape, d_query, shape.scale, true, &mut out.values()[head * width..], stride);
    }
    scatter(shape, d_key, 1.0, true, &mut out.values()[group * width..], stride);
    scatter(shape, d_value, 1.0, false, &mut out.values()[(group + 1) * width..], stride);
    out
}

/// Gradients (length, width) into rows of `stride`, scaled, and turned back where they were turned.
#[inline(always)]
fn scatter(shape: &Shape, from: &mut [f32], factor: f32, turned: bool, to: &mut [f32], stride: usize) {
    let rotary = shape.rotary.as_ref().filter(|_| turned);
    for (position, from) in from.chunks_exact_mut(shape.width).enumerate() {
        if factor != 1.0 {
            from.iter_mut().for_each(|value| *value *= factor);
        }
        let to = &mut to[position * stride..][..shape.width];
        match rotary {
            Some(rotary) => shape.turn(rotary, position, -1.0, from, to),
            None => to.copy_from_slice(from),
        }
    }
}

#[cfg(test)]
mod tests;
