//! Quantization, norms, exp2, activation curves, rotary positions and sentence pooling.

use std::format;
use std::vec;
use std::vec::Vec;

use serde_json::Value;

use super::{Differences, bits, floats, little_endian, number, numbers, section, sha256_hex, to_bits};
use crate::layout::BLOCK_COLUMNS;
use crate::numerics::{
    Curve, F32Bytes, LOG2E_Q15, NumericRange, PROBABILITY_MAX, ROTARY_BLOCK, Rotary, exp2_q24, integers, layer_norm,
    maximum, mean, quantize, rms_norm, unit_length, unit_mean,
};

#[test]
fn constants() {
    let constants = section("/constants");
    let mut differences = Differences::default();
    differences.value("p_max", i64::from(PROBABILITY_MAX), number(&constants["p_max"]) as i64);
    differences.value("log2e_q15", LOG2E_Q15, constants["log2e_q15_f64"].as_f64().expect("a number"));
    differences.value("rope_block", ROTARY_BLOCK, number(&constants["rope_block"]));
    differences.value("group", BLOCK_COLUMNS, number(&constants["group"]));
    for (head_dim, scale) in constants["score_scale"].as_object().expect("an object") {
        let width: f64 = head_dim.parse().expect("a head width");
        let scale = number(scale) as u32;
        differences.value(format!("score scale {head_dim}"), ((LOG2E_Q15 / width.sqrt()) as f32).to_bits(), scale);
    }
    // The smallest nonzero row and the first that is rejected: the constants themselves are private.
    let (tiny, huge) = (number(&constants["tiny"]) as u32, number(&constants["huge"]) as u32);
    let mut out = [0];
    let mut scale_of = |bits| quantize(&[f32::from_bits(bits)], &mut out);
    differences.value("below tiny", scale_of(tiny - 1), Ok(0.0));
    differences.value("tiny", scale_of(tiny).is_ok_and(|scale| scale > 0.0), true);
    differences.value("below huge", scale_of(huge - 1).is_ok(), true);
    differences.value("huge", scale_of(huge), Err(NumericRange));
    let one_over_127 = number(&constants["one_over_127"]) as u32;
    differences.value("1/127", scale_of(1f32.to_bits()).map(f32::to_bits), Ok(one_over_127));
    differences.none();
}

#[test]
fn quantizing() {
    let cases = section("/ops/quantize");
    let mut differences = Differences::default();
    for (index, case) in cases.as_array().expect("cases").iter().enumerate() {
        let x = floats(case.get("x").unwrap_or(&case["generated"]));
        // Values after the row stay as they are.
        let mut q = vec![99i8; x.len() + 1];
        let scale = quantize(&x, &mut q).map(f32::to_bits);
        differences.value(format!("case {index}: scale"), scale, Ok(number(&case["scale"]) as u32));
        differences.value(format!("case {index}: the value after the row"), q.pop(), Some(99));
        let q: Vec<i64> = q.into_iter().map(i64::from).collect();
        differences.list(format!("case {index}: q"), &q, &numbers(&case["q"]));
    }
    differences.none();
}

#[test]
fn quantizing_fails() {
    let cases = section("/ops/quantize_fails");
    let mut differences = Differences::default();
    for (index, case) in cases.as_array().expect("cases").iter().enumerate() {
        let x = floats(&case["x"]);
        let (one, no) = (little_endian(&vec![1.0; x.len()]), little_endian(&vec![0.0; x.len()]));
        let (one, no) = (F32Bytes::new(&one), F32Bytes::new(&no));
        let failed = Err(NumericRange);
        differences.value(format!("case {index}: quantize"), quantize(&x, &mut vec![0; x.len()]).map(|_| ()), failed);
        differences.value(format!("case {index}: integers"), integers(&x, &mut vec![0; x.len()]).map(|_| ()), failed);
        differences.value(format!("case {index}: rms_norm"), rms_norm(&mut x.clone(), one, 1e-5), failed);
        differences.value(format!("case {index}: layer_norm"), layer_norm(&mut x.clone(), one, no, 1e-5), failed);
        differences.value(format!("case {index}: unit_mean"), unit_mean(&mut x.clone(), 1), failed);
    }
    differences.none();
}

#[test]
fn norms() {
    let cases = section("/ops/norm");
    let mut differences = Differences::default();
    for (index, case) in cases.as_array().expect("cases").iter().enumerate() {
        let x = floats(case.get("x").unwrap_or(&case["generated"]));
        let vector = |name: &str| match case[name].as_str() {
            Some("all 1") => vec![1.0; x.len()],
            Some("all 0") => vec![0.0; x.len()],
            Some(other) => panic!("unknown {name} {other}"),
            None => floats(&case[name]),
        };
        let (weight, bias) = (little_endian(&vector("weight")), little_endian(&vector("bias")));
        let (weight, bias) = (F32Bytes::new(&weight), F32Bytes::new(&bias));
        let epsilon = f32::from_bits(number(&case["eps"]) as u32);
        let (mut rms, mut layer) = (x.clone(), x.clone());
        differences.value(format!("case {index}: rms_norm"), rms_norm(&mut rms, weight, epsilon), Ok(()));
        differences.value(format!("case {index}: layer_norm"), layer_norm(&mut layer, weight, bias, epsilon), Ok(()));
        if case.get("rms_sha256").is_some() {
            differences.digest(format!("case {index}: rms"), &rms, &case["rms_sha256"]);
            differences.digest(format!("case {index}: layer"), &layer, &case["layer_sha256"]);
            continue;
        }
        differences.floats(format!("case {index}: rms"), &rms, &case["rms"]);
        differences.floats(format!("case {index}: layer"), &layer, &case["layer"]);
        let mut n = vec![0; x.len()];
        let down = integers(&x, &mut n).map(f32::to_bits);
        differences.value(format!("case {index}: down"), down, Ok(number(&case["down"]) as u32));
        let n: Vec<i64> = n.into_iter().map(i64::from).collect();
        differences.list(format!("case {index}: integers"), &n, &numbers(&case["integers"]));
    }
    differences.none();
}

#[test]
fn powers_of_two() {
    let case = section("/ops/exp2_q24");
    let mut differences = Differences::default();
    for pair in case["samples"].as_array().expect("samples") {
        let z = number(&pair[0]) as u32;
        differences.value(format!("2^-z of {z}"), exp2_q24(z) as usize, number(&pair[1]));
    }
    let all: Vec<u8> = (0..819_208).flat_map(|z| exp2_q24(z).to_le_bytes()).collect();
    let expected = case["sha256_u32_of_z_0_to_819207"].as_str();
    differences.value("all z", Some(sha256_hex(&all).as_str()), expected);
    differences.none();
}

/// The points of a curve of the vectors, as stored in an artifact.
fn points(curve: &Value) -> Vec<u8> {
    numbers(&curve["table"]).into_iter().flat_map(|point| (point as i32).to_le_bytes()).collect()
}

#[test]
fn curves() {
    let curves = section("/ops/curves");
    let mut differences = Differences::default();
    for (name, case) in curves.as_object().expect("curves") {
        let points = points(case);
        let Some(curve) = Curve::new(&points, number(&case["k"]) as u32) else {
            differences.value(name, "refused", "a curve");
            continue;
        };
        let y: Vec<f32> = floats(&case["x"]).into_iter().map(|x| curve.apply(x)).collect();
        differences.floats(name, &y, &case["y"]);
    }
    differences.none();
}

#[test]
fn tanh() {
    let case = section("/ops/tanh");
    let silu = section("/ops/curves/silu");
    let points = points(silu);
    let curve = Curve::new(&points, number(&silu["k"]) as u32).expect("the sigmoid's curve");
    let y: Vec<f32> = floats(&case["x"]).into_iter().map(|x| curve.tanh(x)).collect();
    let mut differences = Differences::default();
    differences.floats("tanh", &y, &case["y"]);
    differences.none();
}

#[test]
fn rotary_positions() {
    let case = section("/ops/rotary");
    let mut differences = Differences::default();
    let head_dim = number(&case["head_dim"]);
    let half = head_dim / 2;
    let table = |name: &str| little_endian(&floats(&case[name]));
    let (low_cos, low_sin, high_cos, high_sin) =
        (table("low_cos"), table("low_sin"), table("high_cos"), table("high_sin"));
    let rotary = Rotary {
        low_cos: F32Bytes::new(&low_cos),
        low_sin: F32Bytes::new(&low_sin),
        high_cos: F32Bytes::new(&high_cos),
        high_sin: F32Bytes::new(&high_sin),
        half,
    };
    // Rotating (1, 0) gives (cos, sin), with the bits of both: neither is ever a negative zero here.
    let combined = |position: usize| {
        let mut head = vec![1.0f32; half];
        head.resize(head_dim, 0.0);
        rotary.rotate(&mut head, position);
        let sin = to_bits(&head.split_off(half));
        (to_bits(&head), sin)
    };
    let rows = |name: &str| bits(&case[name]);
    let mut expect = |case: &str, position: usize, row: usize, cos: &[u32], sin: &[u32]| {
        let (actual_cos, actual_sin) = combined(position);
        differences.list(format!("{case}: cos at {position}"), &actual_cos, &cos[row * half..][..half]);
        differences.list(format!("{case}: sin at {position}"), &actual_sin, &sin[row * half..][..half]);
    };
    // One table alone decides within the first block and at the start of every block.
    for position in 0..ROTARY_BLOCK {
        expect("low table", position, position, &rows("low_cos"), &rows("low_sin"));
    }
    for block in 0..number(&case["context"]) / ROTARY_BLOCK {
        expect("high table", block * ROTARY_BLOCK, block, &rows("high_cos"), &rows("high_sin"));
    }
    let positions = numbers(&case["positions"]);
    for (row, &position) in positions.iter().enumerate() {
        expect("both tables", position as usize, row, &rows("cos"), &rows("sin"));
    }
    let mut x = floats(&case["x"]);
    let width = x.len() / positions.len();
    for (heads, &position) in x.chunks_exact_mut(width).zip(&positions) {
        heads.chunks_exact_mut(head_dim).for_each(|head| rotary.rotate(head, position as usize));
    }
    differences.floats("rotated", &x, &case["y"]);
    differences.none();
}

#[test]
fn sentence_pooling() {
    let case = section("/ops/sentence_pooling");
    let mut differences = Differences::default();
    let rows = case["x"].as_array().expect("rows");
    let mut total = floats(&rows[0]);
    for row in &rows[1..] {
        for (sum, value) in total.iter_mut().zip(floats(row)) {
            *sum += value;
        }
    }
    let expected: Vec<f32> = total.iter().map(|sum| sum / rows.len() as f32).collect();
    differences.floats("mean", &expected, &case["mean"]);
    let mut by_steps = total.clone();
    differences.value("unit_mean", unit_mean(&mut total, rows.len()), Ok(()));
    differences.floats("unit", &total, &case["unit"]);
    mean(&mut by_steps, rows.len());
    differences.floats("mean in place", &by_steps, &case["mean"]);
    differences.value("unit_length", unit_length(&mut by_steps), Ok(()));
    differences.floats("unit by steps", &by_steps, &case["unit"]);
    differences.none();
}

#[test]
fn the_largest_of_columns_keeps_the_earlier_of_equals() {
    let mut x = [1.0, -0.0, f32::MIN_POSITIVE, -3.0];
    maximum(&mut x, &[0.5, 0.0, 0.0, -2.0]);
    assert_eq!(x.map(f32::to_bits), [1.0, -0.0, f32::MIN_POSITIVE, -2.0f32].map(f32::to_bits));
    let mut zeros = [0.0f32; 3];
    assert_eq!(unit_length(&mut zeros), Ok(()));
    assert_eq!(zeros, [0.0; 3]);
    assert!(unit_length(&mut [1.0, f32::NAN]).is_err());
}
