//! Sums of exponentials in f64, for losses and divergences of rows of logits: eight lanes, value i in lane i mod 8, added as a
//! tree, by an exponential of fused multiply-adds, comparisons and bits. The same bits for vectors of any width.

use crate::lanes::vectorised;

/// Lanes of a sum.
const LANES: usize = 8;

/// eˣ within 2 units of the last place, for x up to 709; 0 below −708; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    // Adding it rounds to an integer, which then stands in the low bits.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // 1 / k! from k = 13 to 2; |r| ≤ ½ ln 2, so that what is left out is below 2⁻⁵⁶
    const SERIES: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let bounded = if x > 709.0 { 709.0 } else { x };
    let bounded = if bounded < -708.0 { -708.0 } else { bounded };
    let shifted = bounded.mul_add(std::f64::consts::LOG2_E, SHIFT);
    let power = shifted - SHIFT;
    let rest = power.mul_add(-LN_2_LOW, power.mul_add(-LN_2_HIGH, bounded));
    let mut series = SERIES[0];
    for term in &SERIES[1..] {
        series = series.mul_add(rest, *term);
    }
    let value = (series * rest).mul_add(rest, rest) + 1.0;
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    let value = value * scale;
    if x < -708.0 { 0.0 } else { value }
}

#[inline(always)]
fn tree(mut lanes: [f64; LANES]) -> f64 {
    for half in [4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Σ e^(a − top)
pub fn sum_of_exponentials(a: &[f32], top: f64) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let (chunks, rest) = a.as_chunks::<LANES>();
            let mut lanes = [0.0; LANES];
            for a in chunks {
                for lane in 0..LANES {
                    lanes[lane] += exp(f64::from(a[lane]) - top);
                }
            }
            for (lane, a) in lanes.iter_mut().zip(rest) {
                *lane += exp(f64::from(*a) - top);
            }
            tree(lanes)
        },
    )
}

/// \[Σ eᵖ, Σ e^q, Σ eᵖ (p − q)\] with p = a − tops\[0\] and q = b − tops\[1\], over rows of one length.
pub fn compared_exponentials([a, b]: [&[f32]; 2], tops: [f64; 2]) -> [f64; 3] {
    vectorised(
        #[inline(always)]
        || {
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
            let mut lanes = [[0.0; LANES]; 3];
            for (a, b) in a.iter().zip(b) {
                for lane in 0..LANES {
                    let [p, q] = [f64::from(a[lane]) - tops[0], f64::from(b[lane]) - tops[1]];
                    let weight = exp(p);
                    lanes[0][lane] += weight;
                    lanes[1][lane] += exp(q);
                    lanes[2][lane] = weight.mul_add(p - q, lanes[2][lane]);
                }
            }
            for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
                let [p, q] = [f64::from(*a) - tops[0], f64::from(*b) - tops[1]];
                let weight = exp(p);
                lanes[0][lane] += weight;
                lanes[1][lane] += exp(q);
                lanes[2][lane] = weight.mul_add(p - q, lanes[2][lane]);
            }
            lanes.map(tree)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_near_that_of_libm() {
        for step in -200_000..=200_000 {
            let x = f64::from(step) * 3.53e-3;
            let exact = libm::exp(x);
            let error = (exp(x) - exact).abs() / exact;
            assert!(error < 5e-16, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(-709.0), exp(f64::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn sums_are_those_of_a_plain_loop() {
        for count in [0, 1, 7, 8, 9, 1003] {
            let a: Vec<f32> = (0..count).map(|n| ((n * 7919) % 1009) as f32 * 0.02 - 20.0).collect();
            let b: Vec<f32> = (0..count).map(|n| ((n * 104_729) % 997) as f32 * 0.02 - 20.0).collect();
            let [p, q] = [&a, &b].map(|row| row.iter().map(|x| f64::from(*x) - 0.5).collect::<Vec<f64>>());
            let sum = |values: &[f64]| values.iter().map(|x| libm::exp(*x)).sum::<f64>();
            let weighted: f64 = p.iter().zip(&q).map(|(p, q)| libm::exp(*p) * (p - q)).sum();
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-13 * b.abs().max(1.0);
            let found = compared_exponentials([&a, &b], [0.5, 0.5]);
            assert!(close(found[0], sum(&p)) && close(found[1], sum(&q)) && close(found[2], weighted), "{count}");
            assert!(close(sum_of_exponentials(&a, 0.5), sum(&p)), "{count}");
        }
    }
}
