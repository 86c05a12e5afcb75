//! Attention over the cache, and the key map before it.

use std::format;
use std::vec;
use std::vec::Vec;

use super::{Differences, bits, floats, little_endian, number, numbers, section};
use crate::attention::{Attention, Scoring};
use crate::cache::{Cache, CacheShape};
use crate::format::spec::LayerRecord;
use crate::kernels::SCALAR;
use crate::layout::ALIGNMENT;
use crate::numerics::{F32Bytes, NumericRange, map_key, map_query, quantize};

/// Heads in the cache; only the last is used, the others hold other data.
const HEADS: usize = 3;
/// Positions planned for and not written.
const SPARE: usize = 5;

/// Attention of every query over the keys and values, all (rows, head_dim); a causal one attends to all keys except
/// those of later queries.
pub(super) fn attend(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    head_dim: usize,
    score_scale: f32,
    causal: bool,
) -> Result<Vec<f32>, NumericRange> {
    let (tokens, positions) = (queries.len() / head_dim, keys.len() / head_dim);
    let context = positions + SPARE;
    let layer = LayerRecord {
        key_value_heads: HEADS as u32,
        head_dim: head_dim as u32,
        score_scale,
        ..LayerRecord::from_bytes(&[0; LayerRecord::BYTES])
    };
    let shape = CacheShape::of(&layer, context, 1);
    let length = shape.bytes().expect("a small cache") as usize;
    let mut memory = vec![0x55; length + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let cache = Cache::new(&mut memory[start..start + length], shape).expect("an aligned cache");
    let last = HEADS - 1;
    for position in 0..positions {
        let at = position * head_dim..(position + 1) * head_dim;
        for head in 0..HEADS {
            let row = head * context + position;
            let (key, value) = match head == last {
                true => (&keys[at.clone()], &values[at.clone()]),
                false => (&[7.0; 256][..head_dim], &[-7.0; 256][..head_dim]),
            };
            cache.key_scales[row] = quantize(key, &mut cache.keys[row * head_dim..][..head_dim])?;
            cache.value_scales[row] = quantize(value, &mut cache.values[row * head_dim..][..head_dim])?;
        }
    }
    // Buffers of a model with a larger head_dim in another layer, with stale content.
    let (mut query, mut sums) = (vec![1; head_dim + 8], vec![1; head_dim + 8]);
    let (mut totals, mut scores) = (vec![1; head_dim + 8], vec![1; context]);
    let mut attention =
        Attention { query: &mut query, sums: &mut sums, totals: &mut totals, scores: &mut scores, values: &mut [] };
    let mut out = queries.to_vec();
    for (token, row) in out.chunks_exact_mut(head_dim).enumerate() {
        let seen = if causal { positions - tokens + token + 1 } else { positions };
        attention.attend(&SCALAR, &cache, last, 0..seen, Scoring { scale: layer.score_scale, cap: None }, row)?;
    }
    Ok(out)
}

fn score_scale(head_dim: usize) -> f32 {
    let scale = section("/constants/score_scale");
    f32::from_bits(number(&scale[format!("{head_dim}")]) as u32)
}

#[test]
fn attending() {
    let cases = section("/ops/attend");
    let mut differences = Differences::default();
    for (index, case) in cases.as_array().expect("cases").iter().enumerate() {
        let head_dim = numbers(&case["q"]["shape"])[1] as usize;
        let causal = match case["mask"].as_str() {
            Some("all") => false,
            Some("row i attends keys 0 .. n-t+i") => true,
            other => panic!("unknown mask {other:?}"),
        };
        let (q, k, v) = (floats(&case["q"]), floats(&case["k"]), floats(&case["v"]));
        match attend(&q, &k, &v, head_dim, score_scale(head_dim), causal) {
            Ok(y) if case.get("y_sha256").is_some() => {
                differences.floats(format!("case {index}: first row"), &y[..head_dim], &case["y_first_row"]);
                differences.digest(format!("case {index}: digest"), &y, &case["y_sha256"]);
            }
            Ok(y) => differences.floats(format!("case {index}"), &y, &case["y"]),
            Err(error) => differences.value(format!("case {index}"), Some(error), None),
        }
    }
    differences.none();
}

#[test]
fn values_of_zero_give_positive_zero() {
    section("/ops/attend_zero_values");
    let (head_dim, tokens) = (8, 3);
    let q: Vec<f32> = (0..tokens * head_dim).map(|i| i as f32 - 11.5).collect();
    let keys: Vec<f32> = q.iter().map(|value| value * -0.75).collect();
    let mut differences = Differences::default();
    for zero in [0.0f32, -0.0] {
        let y = attend(&q, &keys, &vec![zero; q.len()], head_dim, score_scale(head_dim), true);
        let y = y.map(|y| y.iter().map(|value| value.to_bits()).collect());
        differences.value(format!("values of {zero}"), y, Ok(vec![0u32; q.len()]));
    }
    differences.none();
}

/// The definition of the key map over the artifact's vectors. The executor has it inline; the logits of whole models
/// with a key map test it there.
#[test]
fn key_maps() {
    let case = section("/ops/key_map");
    let mut differences = Differences::default();
    let vector = |name: &str| little_endian(&floats(&case[name]));
    let (mean, balance, inverse) = (vector("mean"), vector("balance"), vector("inverse"));
    let (mean, balance, inverse) = (F32Bytes::new(&mean), F32Bytes::new(&balance), F32Bytes::new(&inverse));
    let head_dim = bits(&case["k"][0][0]).len();
    let (mut keys, mut queries) = (floats(&case["k"]), floats(&case["q"]));
    let heads = mean.len() / head_dim;
    for (index, key) in keys.chunks_exact_mut(head_dim).enumerate() {
        let at = index % heads * head_dim;
        let (mean, balance) = (mean.slice(at, head_dim), balance.slice(at, head_dim));
        map_key(key, mean, balance);
    }
    for (index, query) in queries.chunks_exact_mut(head_dim).enumerate() {
        let inverse = inverse.slice(index % heads * head_dim, head_dim);
        map_query(query, inverse);
    }
    differences.floats("keys", &keys, &case["k_mapped"]);
    differences.floats("queries", &queries, &case["q_mapped"]);
    differences.none();
}
