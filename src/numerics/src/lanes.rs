//! Sums, largest values and elementary functions over f32 that have the same bits for vectors of any width. A sum is made in
//! [`LANES`] lanes, value i in lane i mod 16 by one fused multiply-add, and the lanes are added as a tree; what does not
//! fill the lanes at the end goes into the first of them. Functions use fused multiply-adds, comparisons and bits alone,
//! element by element, so the compiler may compute as many at once as the machine has room for.

/// Lanes of a sum.
pub const LANES: usize = 16;

/// Runs `work` compiled for the machine's vectors. It and everything it calls must be inlined, so both are marked.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// The sum of all lanes.
#[inline(always)]
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Σ a
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for a in chunks {
        for lane in 0..LANES {
            lanes[lane] += a[lane];
        }
    }
    for (lane, a) in lanes.iter_mut().zip(rest) {
        *lane += a;
    }
    tree(lanes)
}

/// Σ a · b over rows of one length.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = a.mul_add(*b, *lane);
    }
    tree(lanes)
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest value; not a number where the first value compared is not.
#[inline(always)]
pub fn largest(a: &[f32]) -> f32 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for a in chunks {
        for lane in 0..LANES {
            lanes[lane] = greater(lanes[lane], a[lane]);
        }
    }
    let over_lanes = lanes.into_iter().fold(f32::NEG_INFINITY, greater);
    rest.iter().copied().fold(over_lanes, greater)
}

/// eˣ within 2 units of the last place; 0 below −87; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding it rounds to an integer, which then stands in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded < -87.0 { -87.0 } else { bounded };
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, SHIFT);
    let power = shifted - SHIFT;
    let rest = power.mul_add(-LN_2_LOW, power.mul_add(-LN_2_HIGH, bounded));
    // (eʳ − 1 − r) / r², |r| ≤ ½ ln 2: relative error of eʳ 3e-9
    let series = [0.008_368_781, 0.041_668_393, 0.166_665_2, 0.499_999_94];
    let series = series.into_iter().fold(0.001_381_446_7_f32, |sum, term| sum.mul_add(rest, term));
    let value = (series * rest).mul_add(rest, rest) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let value = value * scale;
    if x < -87.0 { 0.0 } else { value }
}

/// ln x within 2 units of the last place, of x below the least normal number that of this number; NaN stays NaN. The
/// polynomial is that of Cephes' logf.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x };
    // x = m · 2ⁿ, √½ ≤ m < √2
    let shifted = bounded.to_bits().wrapping_sub(0x3f35_04f3);
    let power = (shifted as i32 >> 23) as f32;
    let mantissa = (shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3);
    let rest = f32::from_bits(mantissa) - 1.0;
    let series = [
        -0.115_146_1,
        0.116_769_99,
        -0.124_201_41,
        0.142_493_23,
        -0.166_680_58,
        0.200_007_15,
        -0.249_999_94,
        0.333_333_3,
    ];
    let series = series.into_iter().fold(0.070_376_836_f32, |sum, term| sum.mul_add(rest, term));
    let square = rest * rest;
    let small = (series * rest).mul_add(square, power.mul_add(LN_2_LOW, -0.5 * square));
    let value = power.mul_add(LN_2_HIGH, rest + small);
    if x.is_nan() { x } else { value }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, within 2e-7.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let size = x.abs();
    // erf(x) / x in x², below 1
    let square = x * x;
    let near = [
        -8.010_207_7e-4,
        5.188_329_6e-3,
        -0.026_853_813,
        0.112_835_854,
        -0.376_126_26,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    let near = near.into_iter().fold(7.853_904_4e-5_f32, |sum, term| sum.mul_add(square, term)) * x;
    // −ln(1 − erf(x)), from 1; past 4 the error function is 1 in f32
    let bounded = if size > 4.0 { 4.0 } else { size };
    let far =
        [-4.391_055_3e-4, 4.193_607_3e-3, -0.025_178_958, 0.108_372_465, 0.633_262_63, 1.129_556_8, -1.834_428_4e-4];
    let far = far.into_iter().fold(2.149_603_8e-5_f32, |sum, term| sum.mul_add(bounded, term));
    let far = (1.0 - exp(-far)).copysign(x);
    if size < 1.0 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_near_those_of_libm() {
        for step in -200_000..=200_000 {
            let x = step as f32 * 5e-4;
            let exact = libm::exp(f64::from(x));
            let error = (f64::from(exp(x)) - exact).abs() / exact.max(f64::from(f32::MIN_POSITIVE));
            assert!(!(-87.0..=88.0).contains(&x) || error < 2.5e-7, "exp({x}) is off by {error}");
            let positive = exp(x).max(f32::MIN_POSITIVE);
            let exact = libm::log(f64::from(positive));
            let error = (f64::from(ln(positive)) - exact).abs() / exact.abs().max(0.5);
            assert!(error < 2.5e-7, "ln({positive}) is off by {error}");
            let error = (f64::from(erf(x)) - libm::erf(f64::from(x))).abs();
            assert!(error < 2e-7, "erf({x}) is off by {error}");
        }
        assert_eq!((exp(-100.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
    }

    #[test]
    fn vectors_change_no_bit() {
        let values: Vec<f32> = (0..1003).map(|n| ((n * 7919) % 1009) as f32 * 0.1 - 50.0).collect();
        let all = |values: &[f32]| -> Vec<u32> {
            let each = values.iter().flat_map(|&x| [exp(x), erf(x * 0.1), sigmoid(x)]);
            each.chain([sum(values), dot(values, &values[1..]), largest(values)]).map(f32::to_bits).collect()
        };
        assert_eq!(
            vectorised(
                #[inline(always)]
                || all(&values)
            ),
            all(&values)
        );
    }
}
