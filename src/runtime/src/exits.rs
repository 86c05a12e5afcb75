//! When a text leaves a classifier, and how sure it is: of the logits of one head, their margin in fixed point, which is
//! compared with a threshold as an integer, and the softmax of the largest at the head's temperature.
//!
//! ```text
//! z      = trunc(logit · 2^16), at the ends of i32 where it is beyond     one IEEE product, exact, and one conversion
//! margin = largest z − second z, 0 to 2^32 − 1                            a head of one label has no second: its largest margin
//! leaves = margin ≥ threshold, and the threshold is not NEVER
//! p      = 2^24 / Σ 2^(24 − depth),  depth = (top − logit) · log2(e) / T   weights of numerics/softmax.rs, summed in u64
//! ```

use crate::numerics::{LOG2E_Q15, exp2_q24, round};

/// Bits behind the point.
const FRACTION: f32 = 65_536.0;

/// Largest depth in Q15: its weight is 0.
const DEEPEST: f32 = 2_097_152.0;

/// The margin of a head's logits.
pub fn margin(logits: &[f32]) -> u32 {
    let (mut first, mut second) = (i32::MIN, i32::MIN);
    for &logit in logits {
        // A conversion to the nearest end where it is beyond, 0 of NaN: the same on every target.
        let z = (logit * FRACTION) as i32;
        if z > first {
            (first, second) = (z, first);
        } else if z > second {
            second = z;
        }
    }
    // At most 2^32 - 1.
    (i64::from(first) - i64::from(second)) as u32
}

/// The probability of the likeliest label: the softmax of the logits times `inverse_temperature`; 0 of none.
pub fn confidence(logits: &[f32], inverse_temperature: f32) -> f32 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let factor = LOG2E_Q15 as f32 * inverse_temperature;
    let weight = |&logit: &f32| {
        let depth = ((top - logit) * factor).clamp(0.0, DEEPEST);
        u64::from(exp2_q24(round(depth) as u32))
    };
    let total: u64 = logits.iter().map(weight).sum();
    if total == 0 { 0.0 } else { exp2_q24(0) as f32 / total as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_differences_of_integers() {
        assert_eq!(margin(&[1.0, 3.5, 3.0]), 32_768);
        assert_eq!(margin(&[3.5, 1.0, 3.5]), 0, "two of the same");
        assert_eq!(margin(&[-1.0, -2.0]), 65_536);
        assert_eq!(margin(&[f32::INFINITY, f32::NEG_INFINITY]), u32::MAX);
        assert_eq!(margin(&[f32::NAN, 1.0]), 65_536);
        assert_eq!(margin(&[]), 0);
        // A fraction is cut, not rounded.
        assert_eq!(margin(&[1.9 / FRACTION, 0.0]), 1);
    }

    #[test]
    fn confidence_is_the_softmax() {
        let logits = [0.3f32, -1.2, 2.5, 2.0, -40.0];
        for scale in [0.25f32, 1.0, 3.0] {
            let exponents: std::vec::Vec<f64> =
                logits.iter().map(|logit| libm_exp(f64::from(logit * scale) - f64::from(2.5 * scale))).collect();
            let expected = 1.0 / exponents.iter().sum::<f64>();
            let found = f64::from(confidence(&logits, scale));
            assert!((found - expected).abs() < 2e-4, "{scale}: {found}, expected {expected}");
        }
        assert_eq!(confidence(&[7.0], 1.0), 1.0);
        assert_eq!(confidence(&[], 1.0), 0.0);
        assert_eq!(confidence(&[1.0, 1.0], 5.0), 0.5);
    }

    fn libm_exp(x: f64) -> f64 {
        x.exp()
    }
}
