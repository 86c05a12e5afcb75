//! `rope_freqs.weight`, (head_dim / 2) in f32: what the frequency of every pair is divided by. A writer computes it from
//! Llama 3's scaling and leaves the settings out:
//!
//! ```text
//! f = 1                                    where the wavelength λ is below original / high
//! f = factor                               where it is above original / low
//! 1/f = s + (1 − s) / factor,  s = (original/λ − low) / (high − low)      between them
//! ```
//!
//! The settings are read off again: `factor` is the largest value; between the bounds s is a line in 1/λ, which gives
//! original and high for low = 1, as every published model has it (settings with the same line give the same
//! frequencies). They are taken only if every value follows from them.

use super::block::BlockType;
use super::container::StoredBlocks;
use super::error::GgufError;
use crate::model::spec::{Llama3Scaling, RotaryScaling, RotarySpec};
use serde_json::{Value, json};
use std::path::Path;

/// The tensor.
pub(super) const TENSOR: &str = "rope_freqs.weight";

/// `high_freq_factor` of the published models, where the values leave it open.
const HIGH: f64 = 4.0;
/// How far a value may be from what the settings give: a few units in the last place of f32.
const TOLERANCE: f64 = 1e-5;

/// `rope_scaling` of the configuration: null where nothing is scaled, else Llama 3's.
pub(super) fn scaling(stored: &StoredBlocks, theta: f64, head_dim: usize, file: &Path) -> Result<Value, GgufError> {
    if stored.kind != BlockType::F32 || stored.shape != [head_dim / 2] {
        return Err(GgufError::Shape {
            file: file.to_owned(),
            tensor: TENSOR.to_owned(),
            expected: vec![head_dim / 2],
            found: stored.shape.clone(),
        });
    }
    let mut divisors = vec![0.0f32; head_dim / 2];
    stored.kind.decode(stored.bytes.as_slice(), &mut divisors);
    let divisors: Vec<f64> = divisors.into_iter().map(f64::from).collect();
    if divisors.iter().all(|&divisor| divisor == 1.0) {
        return Ok(Value::Null);
    }
    let plain = RotarySpec::plain(theta).frequencies(head_dim);
    let found = settings(&divisors, &plain).filter(|scaling| gives(scaling, theta, head_dim, &plain, &divisors));
    let Some(scaling) = found else {
        return Err(GgufError::Frequencies {
            file: file.to_owned(),
            tensor: TENSOR.to_owned(),
            problem: "holds frequencies that Llama 3's scaling does not give, and slmc has no other".to_owned(),
        });
    };
    Ok(json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_context,
    }))
}

/// The tensor of a rotation: what its scaling divides every frequency by; `None` where nothing is scaled.
pub(super) fn divisors(rotary: RotarySpec, head_dim: usize) -> Option<Vec<f32>> {
    rotary.scaling?;
    let plain = RotarySpec { scaling: None, ..rotary }.frequencies(head_dim);
    let scaled = rotary.frequencies(head_dim);
    Some(plain.iter().zip(&scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect())
}

/// The settings that the values between the bounds lie on.
fn settings(divisors: &[f64], plain: &[f64]) -> Option<Llama3Scaling> {
    let factor = rounded(divisors.iter().copied().fold(1.0, f64::max));
    if !factor.is_finite() || factor <= 1.0 {
        return None;
    }
    // (1/λ, s) of the pairs between the bounds.
    let share = |divisor: f64| (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor);
    let line: Vec<(f64, f64)> = plain
        .iter()
        .zip(divisors)
        .map(|(frequency, &divisor)| (frequency / std::f64::consts::TAU, share(divisor)))
        .filter(|(_, share)| (0.001..0.999).contains(share))
        .collect();
    let (high, original) = match line[..] {
        [] => (HIGH, between(divisors, plain)?),
        [(inverse, share)] => (HIGH, ((HIGH - 1.0) * share + 1.0) / inverse),
        [(a, share_a), .., (b, share_b)] => {
            let slope = (share_a - share_b) / (a - b);
            let offset = share_a - slope * a;
            // s = original/(high − 1) · 1/λ − 1/(high − 1)
            let high = 1.0 - 1.0 / offset;
            (high, slope * (high - 1.0))
        }
    };
    let original = original.round();
    (original >= 1.0 && original <= f64::from(i32::MAX)).then(|| Llama3Scaling {
        factor,
        low_frequency_factor: 1.0,
        high_frequency_factor: rounded(high),
        original_context: original as usize,
    })
}

/// The largest power of two for `original` where no pair lies between the bounds: above `high` times the wavelengths that
/// stay, below those that are scaled. Any other there gives the same frequencies.
fn between(divisors: &[f64], plain: &[f64]) -> Option<f64> {
    let wavelengths = |stays: bool| {
        let of_kind = plain.iter().zip(divisors).filter(move |(_, divisor)| (**divisor == 1.0) == stays);
        of_kind.map(|(frequency, _)| std::f64::consts::TAU / frequency)
    };
    let (least, most) =
        (HIGH * wavelengths(true).fold(0.0, f64::max), wavelengths(false).fold(f64::INFINITY, f64::min));
    let mut powers = (0..31).map(|power| f64::from(1u32 << power));
    powers.rfind(|&original| least < original && original < most)
}

/// A setting as a person wrote it: the near whole number, where there is one.
fn rounded(setting: f64) -> f64 {
    let near = setting.round();
    if (setting - near).abs() <= 1e-3 * near.abs() { near } else { setting }
}

/// Whether settings give every value.
fn gives(scaling: &Llama3Scaling, theta: f64, head_dim: usize, plain: &[f64], divisors: &[f64]) -> bool {
    if scaling.high_frequency_factor <= scaling.low_frequency_factor {
        return false;
    }
    let scaled =
        RotarySpec { scaling: Some(RotaryScaling::Llama3(*scaling)), ..RotarySpec::plain(theta) }.frequencies(head_dim);
    let near = |((scaled, plain), &divisor): ((&f64, &f64), &f64)| {
        let expected = plain / scaled;
        (expected - divisor).abs() <= TOLERANCE * expected
    };
    scaled.iter().zip(plain).zip(divisors).all(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_off_the_frequencies() {
        for (theta, head_dim, factor, high, original) in [
            (500_000.0, 64, 32.0, 4.0, 8192),
            (500_000.0, 128, 8.0, 4.0, 8192),
            (500_000.0, 12, 8.0, 4.0, 64),
            (10_000.0, 64, 2.5, 8.0, 2048),
            (500_000.0, 10, 8.0, 4.0, 64),
        ] {
            let scaling = Llama3Scaling {
                factor,
                low_frequency_factor: 1.0,
                high_frequency_factor: high,
                original_context: original,
            };
            let plain = RotarySpec::plain(theta).frequencies(head_dim);
            let written = super::divisors(
                RotarySpec { scaling: Some(RotaryScaling::Llama3(scaling)), ..RotarySpec::plain(theta) },
                head_dim,
            );
            let divisors: Vec<f64> = written.expect("it is scaled").into_iter().map(f64::from).collect();
            let found = settings(&divisors, &plain).expect("they lie on a line");
            assert!(gives(&found, theta, head_dim, &plain, &divisors), "{found:?}");
            assert_eq!(found, scaling);
            if divisors.iter().all(|&divisor| divisor == 1.0 || divisor == factor) {
                // Squares of these are another factor's.
                continue;
            }
            let other: Vec<f64> = divisors.iter().map(|divisor| divisor * divisor).collect();
            let found = settings(&other, &plain);
            assert!(!found.is_some_and(|found| gives(&found, theta, head_dim, &plain, &other)));
        }
    }
}
