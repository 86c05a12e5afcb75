//! Softmax in integers: weights 2^-z in Q24, their sum, and the 14-bit weights of the values.

use super::round_to_integer;

/// Largest probability in the product with values: 14 bits, two 7-bit planes.
pub const PROBABILITY_MAX: i32 = 16_383;
/// log2(e) · 2^15, before it is multiplied by a layer's score scale and rounded to f32.
pub const LOG2E_Q15: f64 = core::f64::consts::LOG2_E * 32_768.0;

/// (a · b + 2^14) >> 15: the rounding high multiply of pmulhrsw, sqrdmulh and similar instructions.
#[inline(always)]
fn q15_multiply(a: i32, b: i32) -> i32 {
    (a * b + (1 << 14)) >> 15
}

/// 2^-z in Q24 for z ≥ 0 in Q15: a cubic in the fraction, a shift by the integer part.
#[inline(always)]
pub fn exp2_q24(z: u32) -> u32 {
    let (whole, fraction) = (z >> 15, (z & 32_767) as i32);
    let inner = 7542 - q15_multiply(fraction, 1276);
    let mantissa = 32_768 - q15_multiply(fraction, 22_651 - q15_multiply(fraction, inner));
    // At most 2^24, so a shift by 25 or more gives zero.
    ((mantissa as u32) << 9) >> whole.min(31)
}

/// Scores further than this below the largest have weight zero: 2^21 in Q15 log2 units.
const DEEPEST: f32 = 2_097_152.0;

/// See [`crate::kernels::Kernels::weights`].
#[inline(always)]
pub fn softmax_weights(value_scales: &[f32], top: f32, scores: &mut [u32]) -> (u64, f32) {
    for slot in scores.iter_mut() {
        // `min` returns the other operand where a difference is NaN; quantization rejects the result.
        let z = round_to_integer((top - f32::from_bits(*slot)).min(DEEPEST));
        *slot = exp2_q24(z as u32);
    }
    let total = scores.iter().map(|&weight| u64::from(weight)).sum();
    // Weights and scales are not negative, so their bit patterns have the order of their values.
    let products = scores.iter().zip(value_scales).map(|(&weight, &scale)| (weight as i32 as f32 * scale).to_bits());
    (total, f32::from_bits(products.fold(0, u32::max)))
}

/// Shares of experts by their scores: the `chosen` highest, of equal ones the lower, have the softmax of their scores alone,
/// e / Σ e with e = 2^-z in Q24, z = round((highest − score) · log2(e) · 2^15); the others, and those whose e is 0, have 0.
///
/// # Panics
/// If there are fewer scores than shares.
pub fn shares(scores: &[f32], chosen: usize, shares: &mut [f32]) {
    const TAKEN: f32 = 1.0;
    shares.fill(0.0);
    let mut top = f32::MIN;
    for n in 0..chosen {
        let mut best: Option<usize> = None;
        for expert in (0..shares.len()).filter(|&expert| shares[expert] != TAKEN) {
            if best.is_none_or(|best| scores[expert] > scores[best]) {
                best = Some(expert);
            }
        }
        let Some(best) = best else { break };
        shares[best] = TAKEN;
        top = if n == 0 { scores[best] } else { top };
    }
    let mut total = 0u32;
    for (share, score) in shares.iter_mut().zip(scores).filter(|(share, _)| **share == TAKEN) {
        let z = round_to_integer(((top - score) * LOG2E_Q15 as f32).min(DEEPEST));
        let weight = exp2_q24(z as u32);
        total += weight;
        *share = weight as f32;
    }
    // The highest has 2^24, unless it is no number: then nothing has a share.
    shares.iter_mut().for_each(|share| *share /= total.max(1) as f32);
}

/// The 14-bit weight of a value: round(f32(e) · value_scale · ratio).
#[inline(always)]
pub fn probability(weight: u32, value_scale: f32, ratio: f32) -> i32 {
    round_to_integer(weight as i32 as f32 * value_scale * ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_softmax_of_the_chosen_scores_and_the_lower_of_equals_is_chosen() {
        let scores = [1.5f32, -2.0, 3.0, 3.0, 0.25, 3.0];
        let mut out = [9.0; 6];
        shares(&scores, 2, &mut out);
        assert_eq!(out, [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
        shares(&scores, 4, &mut out);
        let sum: f64 = [1.5f64, 3.0, 3.0, 3.0].iter().map(|score| score.exp()).sum();
        for (expert, score) in [(0, 1.5f64), (2, 3.0), (3, 3.0), (5, 3.0)] {
            assert!((f64::from(out[expert]) - score.exp() / sum).abs() < 1e-4, "{expert}: {out:?}");
        }
        assert_eq!([out[1], out[4]], [0.0; 2]);
        // The only one has everything, and what is far below the highest nothing.
        shares(&scores, 1, &mut out);
        assert_eq!(out, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let mut pair = [0.0; 2];
        shares(&[100.0, -100.0], 2, &mut pair);
        assert_eq!(pair, [1.0, 0.0]);
        shares(&[f32::NAN, f32::NAN], 1, &mut pair);
        assert_eq!(pair, [0.0, 0.0]);
    }
}
