//! Attention of sequences that are read on together, some positions at a time: keys, turned, and values of the positions
//! before are kept. Without a backward pass.
//!
//! ```text
//! q, k turned by the angles of their positions        o = softmax(scale · q · [kept k, k]ᵀ) · [kept v, v]
//! ```

use super::{Shape, softmax};
use crate::activation::cap_all;
use crate::node::{Value, slice, tensor};
use rayon::prelude::*;
use slm_numerics::dots::dots;
use slm_numerics::lanes::{LANES, vectorised};
use slm_numerics::scratch::take;

/// Keys and values of the positions read so far.
#[derive(Debug)]
pub struct Past {
    /// (sequences, key heads, room / 16, width, 16), turned: sixteen positions side by side.
    keys: Vec<f32>,
    /// (sequences, key heads, room, width)
    values: Vec<f32>,
    /// Positions there is room for, a multiple of 16.
    room: usize,
    held: usize,
}

impl Past {
    /// Nothing read yet, with room for `room` positions of each sequence.
    pub fn new(sequences: usize, key_value_heads: usize, width: usize, room: usize) -> Self {
        let room = room.next_multiple_of(LANES);
        let count = sequences * key_value_heads * room * width;
        Past { keys: vec![0.0; count], values: vec![0.0; count], room, held: 0 }
    }

    /// Positions read so far.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Forgets all sequences but some of the `sequences` there are: `kept` are their numbers, ascending.
    ///
    /// # Panics
    /// If one is not there.
    pub fn keep(&mut self, sequences: usize, kept: &[usize]) {
        keep_parts(&mut self.keys, sequences, kept);
        keep_parts(&mut self.values, sequences, kept);
    }
}

/// Those parts of values whose numbers are `kept`, ascending; the values lie in `parts` parts of one size.
///
/// # Panics
/// If one is not there.
pub fn keep_parts(values: &mut Vec<f32>, parts: usize, kept: &[usize]) {
    let size = values.len() / parts.max(1);
    for (place, &part) in kept.iter().enumerate() {
        assert!(part < parts && place <= part, "part {part} of {parts}");
        values.copy_within(part * size..(part + 1) * size, place * size);
    }
    values.truncate(kept.len() * size);
}

/// Rows (…, heads · width) of the next `shape.length` positions, as [`super::attention`] has them of whole sequences;
/// `past` takes them in. The tables of rotations begin with the first of these positions.
///
/// # Panics
/// If there is no room for them, or if the shape is not causal.
pub fn attention_after(input: &Value, shape: &Shape, past: &mut Past) -> Value {
    assert!(shape.causal && past.held + shape.length <= past.room, "{} positions and {}", past.held, shape.length);
    let x = input.tensor();
    let (length, width, held) = (shape.length, shape.width, past.held);
    let own = past.room * width;
    let caches = past.keys.par_chunks_mut(own).zip(past.values.par_chunks_mut(own)).enumerate();
    let parts: Vec<Vec<f32>> = caches
        .map(|(task, (keys, values))| {
            vectorised(
                #[inline(always)]
                || read_on(shape, slice(&x), task, held, keys, values),
            )
        })
        .collect();
    past.held += length;
    let (group, heads) = (shape.group() * width, shape.key_value_heads);
    let mut out = take(shape.sequences * length * heads * group);
    out.par_chunks_mut(length * heads * group).enumerate().for_each(|(sequence, out)| {
        for (position, row) in out.chunks_exact_mut(heads * group).enumerate() {
            for (head, row) in row.chunks_exact_mut(group).enumerate() {
                row.copy_from_slice(&parts[sequence * heads + head][position * group..][..group]);
            }
        }
    });
    Value::Plain(tensor(out, &input.dims_with(heads * group)))
}

/// (length, query heads of the key head, width) of one sequence and key head.
#[inline(always)]
fn read_on(shape: &Shape, x: &[f32], task: usize, held: usize, keys: &mut [f32], values: &mut [f32]) -> Vec<f32> {
    let (length, width, group) = (shape.length, shape.width, shape.group());
    let (sequence, head) = (task / shape.key_value_heads, task % shape.key_value_heads);
    let rows = &x[sequence * length * shape.stride()..][..length * shape.stride()];
    let first = (shape.heads + head) * width;
    let new = held * width..(held + length) * width;
    // Keys before they are put side by side, then the queries of one head after the other.
    let mut turned = vec![0.0; length * width];
    shape.gather(rows, first, true, 1.0, &mut turned);
    for (position, key) in (held..).zip(turned.chunks_exact(width)) {
        let panel = &mut keys[position / LANES * LANES * width..][..LANES * width];
        panel.chunks_exact_mut(LANES).zip(key).for_each(|(row, value)| row[position % LANES] = *value);
    }
    shape.gather(rows, first + shape.key_value_heads * width, false, 1.0, &mut values[new]);
    let mut scores = vec![0.0; (held + length).next_multiple_of(LANES)];
    let mut out = vec![0.0; length * group * width];
    for number in 0..group {
        shape.gather(rows, (head * group + number) * width, true, shape.scale, &mut turned);
        for (position, query) in turned.chunks_exact(width).enumerate() {
            let seen = shape.seen(held + position);
            // From the first panel that is seen from.
            let start = seen.start / LANES * LANES;
            let panels = &keys[start * width..seen.end.next_multiple_of(LANES) * width];
            dots(query, panels, &mut scores);
            if let Some(cap) = shape.cap {
                cap_all(&mut scores, cap);
            }
            let scores = &mut scores[seen.start - start..seen.end - start];
            softmax(scores);
            let out = &mut out[(position * group + number) * width..][..width];
            let (wide, rest) = out.as_chunks_mut::<LANES>();
            let values = &values[seen.start * width..];
            for (at, out) in wide.iter_mut().enumerate() {
                *out = mean_of(scores, &values[at * LANES..], width);
            }
            // What is left of narrow heads is eight columns, or some single ones.
            let (half, single) = rest.as_chunks_mut::<{ LANES / 2 }>();
            let first = wide.len() * LANES;
            if let [out] = half {
                *out = mean_of(scores, &values[first..], width);
            }
            let first = first + half.len() * LANES / 2;
            for (at, out) in single.iter_mut().enumerate() {
                [*out] = mean_of(scores, &values[first + at..], width);
            }
        }
    }
    out
}

/// Σ weight · value of some columns, in the order of the positions; `values` begin at the first of the columns.
#[inline(always)]
fn mean_of<const COLUMNS: usize>(weights: &[f32], values: &[f32], width: usize) -> [f32; COLUMNS] {
    let mut out = [0.0f32; COLUMNS];
    for (weight, row) in weights.iter().zip(values.chunks(width)) {
        if let Some(row) = row.first_chunk::<COLUMNS>() {
            for column in 0..COLUMNS {
                out[column] = weight.mul_add(row[column], out[column]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::attention;
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};
    use slm_runtime::sample::random_u64;
    use std::sync::Arc;

    /// In pieces, the rows of the whole.
    #[test]
    fn pieces_give_what_the_whole_gives() {
        let (sequences, length, width) = (3, 23, 8);
        let angles = |function: fn(f32) -> f32| -> Vec<f32> {
            (0..length * width / 2).map(|index| function(index as f32 * 0.37)).collect()
        };
        let tables = [angles(f32::cos), angles(f32::sin)];
        for (heads, key_value_heads, window, turned) in
            [(4, 2, None, true), (3, 3, Some(5), false), (4, 1, Some(9), true)]
        {
            let shape = |start: usize, count: usize| Shape {
                sequences,
                length: count,
                heads,
                key_value_heads,
                width,
                scale: 0.4,
                cap: (heads == 3).then_some(0.7),
                causal: true,
                window,
                rotary: turned.then(|| {
                    Arc::new(tables.each_ref().map(|table| table[start * width / 2..][..count * width / 2].to_vec()))
                }),
                present: None,
            };
            let stride = shape(0, length).stride();
            let draw = |index: usize| (random_u64(9, index as u64) >> 40) as f32 / 8_388_608.0 - 1.0;
            let x: Vec<f32> = (0..sequences * length * stride).map(draw).collect();
            let value = |values: Vec<f32>, count: usize| {
                let data = TensorData::new(values, [sequences, count, stride]);
                Value::of(Tensor::<3>::from_data(data, &Device::flex())).unwrap()
            };
            let whole = attention(&value(x.clone(), length), shape(0, length)).tensor();
            let out = heads * width;
            let mut past = Past::new(sequences, key_value_heads, width, length);
            for (start, count) in [(0, 7), (7, 1), (8, 1), (9, 14)] {
                let piece = |sequence: usize| x[(sequence * length + start) * stride..][..count * stride].to_vec();
                let rows: Vec<f32> = (0..sequences).flat_map(piece).collect();
                let found = attention_after(&value(rows, count), &shape(start, count), &mut past).tensor();
                assert_eq!(past.held(), start + count);
                for sequence in 0..sequences {
                    let expected = &slice(&whole)[(sequence * length + start) * out..][..count * out];
                    let found = &slice(&found)[sequence * count * out..][..count * out];
                    for (found, expected) in found.iter().zip(expected) {
                        assert!((found - expected).abs() < 2e-6, "{heads} heads from {start}: {found}, {expected}");
                    }
                }
            }
        }
    }
}
