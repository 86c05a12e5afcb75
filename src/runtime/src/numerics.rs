//! The elementary operations of the exact arithmetic (docs/numerics.md): activations to int8, norms, exp2, activation
//! curves, rotary positions and sentence pooling. Every sum here is a sum of integers, and everything that stays f32 is
//! one IEEE operation at a time, so the results are the same bits on every target. No fused multiply-add, no libm.

/// A value reached 2^50 or is not a number: the model is broken, not the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumericRange;

/// Below this largest magnitude a row counts as zero: 2^-50.
const TINY_BITS: u32 = 0x2680_0000;
/// From this magnitude on, or for NaN, a row is an error: 2^50.
const HUGE_BITS: u32 = 0x5880_0000;
/// 1/127 rounded to f32.
const ONE_OVER_127: f32 = f32::from_bits(1_006_699_012);
/// 1.5 · 2^23: adding and subtracting it rounds |x| ≤ 2^22 to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// Largest probability in the product with values: 14 bits, two 7-bit planes.
pub const PROBABILITY_MAX: i32 = 16_383;
/// log2(e) · 2^15, before it is multiplied by a layer's score scale and rounded to f32.
pub const LOG2E_Q15: f64 = core::f64::consts::LOG2_E * 32_768.0;
/// Positions per step of the second rotary table.
pub const ROTARY_BLOCK: usize = 64;
/// Values of an activation curve: u = 0, 2^-k, … 512 · 2^-k.
pub const CURVE_POINTS: usize = 513;

/// Round to the nearest integer, ties to even; |x| ≤ 2^22.
#[inline]
pub fn round(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// Bits of max |x|, order-free because it is an integer maximum.
#[inline]
fn max_abs_bits(x: &[f32]) -> Result<u32, NumericRange> {
    let bits = x.iter().fold(0u32, |most, value| most.max(value.to_bits() & 0x7fff_ffff));
    if bits >= HUGE_BITS { Err(NumericRange) } else { Ok(bits) }
}

/// Integers in [-127, 127] and their f32 scale: q = round(x · (127 / a)), scale = a · (1/127), a = max |x|.
///
/// # Panics
/// If `out` is shorter than `x`.
pub fn quantize(x: &[f32], out: &mut [i8]) -> Result<f32, NumericRange> {
    let out = &mut out[..x.len()];
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        out.fill(0);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let inverse = 127.0 / largest;
    for (q, &value) in out.iter_mut().zip(x) {
        *q = round(value * inverse) as i32 as i8;
    }
    Ok(largest * ONE_OVER_127)
}

/// The power of two 2^exponent; exponent in [-126, 127].
#[inline]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The factors that turn a row into 14-bit integers and back: n = round(x · up), x ≈ n · down, up = 2^(13-e) and
/// down = 2^(e-13) where 2^e ≤ max |x| < 2^(e+1). A row of zeros gives `up` = 0.
fn integer_factors(x: &[f32]) -> Result<(f32, f32), NumericRange> {
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        return Ok((0.0, power_of_two(-13)));
    }
    let exponent = (bits >> 23) as i32 - 127;
    Ok((power_of_two(13 - exponent), power_of_two(exponent - 13)))
}

/// The integer that stands for one value of a row; |n| ≤ 2^14.
#[inline]
fn to_integer(value: f32, up: f32) -> i32 {
    round(value * up) as i32
}

/// The 14-bit integers of a row and the factor back to f32 (see the definition in docs/numerics.md).
///
/// # Panics
/// If `out` is shorter than `x`.
pub fn integers(x: &[f32], out: &mut [i32]) -> Result<f32, NumericRange> {
    let (up, down) = integer_factors(x)?;
    for (n, &value) in out[..x.len()].iter_mut().zip(x) {
        *n = to_integer(value, up);
    }
    Ok(down)
}

/// f32 vectors as they stand in the artifact: little-endian bytes, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct F32Bytes<'a>(&'a [u8]);

impl<'a> F32Bytes<'a> {
    /// A view of as many values as the bytes hold.
    pub fn new(bytes: &'a [u8]) -> Self {
        F32Bytes(bytes)
    }

    /// The values in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.0.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Values `start .. start + length`.
    ///
    /// # Panics
    /// If they are not all there.
    #[inline]
    pub fn slice(self, start: usize, length: usize) -> F32Bytes<'a> {
        F32Bytes(&self.0[start * 4..(start + length) * 4])
    }

    /// Number of values.
    #[inline]
    pub fn len(self) -> usize {
        self.0.len() / 4
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// The correctly rounded square root of a finite, non-negative f32, by integers: `core` has none.
pub fn sqrt(x: f32) -> f32 {
    let bits = x.to_bits();
    if bits == 0 || bits >= 0x7f80_0000 {
        return x;
    }
    let (mut mantissa, mut exponent) = (u64::from(bits & 0x7f_ffff), (bits >> 23) as i32);
    if exponent == 0 {
        exponent = 1;
    } else {
        mantissa |= 0x80_0000;
    }
    // x = mantissa · 2^(exponent - 150). Shift so that the exponent is even and the root has at least 25 bits: then
    // the 24 that stay, one bit to round by, and the remainder decide the nearest value.
    exponent -= 150;
    let lift = (mantissa.leading_zeros() - 2) as i32;
    let lift = lift - ((exponent - lift) & 1);
    let (radicand, half) = (mantissa << lift, (exponent - lift) / 2);
    let root = radicand.isqrt();
    let sticky = u64::from(root * root != radicand);
    let drop = (64 - root.leading_zeros()) as i32 - 24;
    let (kept, rest) = (root >> drop, (root & ((1 << drop) - 1)) << 1 | sticky);
    let tie = 1u64 << drop;
    let rounded = kept + u64::from(rest > tie || (rest == tie && kept & 1 == 1));
    // A root of an f32 is never subnormal; rounding up to 2^24 carries into the exponent by the addition.
    f32::from_bits((((half + drop + 23 + 127) as u32 - 1) << 23) + rounded as u32)
}

/// x · (1 / sqrt(mean(x²) + ε)) · weight, in place.
pub fn rms_norm(x: &mut [f32], weight: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> {
    let (up, down) = integer_factors(x)?;
    let mut squares = 0i64;
    for &value in x.iter() {
        let n = to_integer(value, up);
        squares += i64::from(n * n);
    }
    let mean_square = squares as f32 / x.len() as f32 * down * down;
    let inverse = 1.0 / sqrt(mean_square + epsilon);
    for (value, gain) in x.iter_mut().zip(weight.iter()) {
        *value = *value * inverse * gain;
    }
    Ok(())
}

/// (x − mean) · (1 / sqrt(variance + ε)) · weight + bias, in place.
pub fn layer_norm(x: &mut [f32], weight: F32Bytes<'_>, bias: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> {
    let (up, down) = integer_factors(x)?;
    let (mut sum, mut squares) = (0i64, 0i64);
    for &value in x.iter() {
        let n = to_integer(value, up);
        sum += i64::from(n);
        squares += i64::from(n * n);
    }
    let width = x.len() as f32;
    let mean = sum as f32 / width * down;
    let spread = x.len() as i64 * squares - sum * sum;
    let variance = spread as f32 / width / width * down * down;
    let inverse = 1.0 / sqrt(variance + epsilon);
    for ((value, gain), offset) in x.iter_mut().zip(weight.iter()).zip(bias.iter()) {
        *value = (*value - mean) * inverse * gain + offset;
    }
    Ok(())
}

/// (a · b + 2^14) >> 15: the rounding high multiply that pmulhrsw, sqrdmulh and their kin compute.
#[inline]
fn q15_multiply(a: i32, b: i32) -> i32 {
    (a * b + (1 << 14)) >> 15
}

/// 2^-z in Q24 for z ≥ 0 in Q15: a cubic in the fraction, a shift by the integer part.
#[inline]
pub fn exp2_q24(z: u32) -> u32 {
    let (whole, fraction) = (z >> 15, (z & 32_767) as i32);
    if whole >= 25 {
        return 0;
    }
    let inner = 7542 - q15_multiply(fraction, 1276);
    let mantissa = 32_768 - q15_multiply(fraction, 22_651 - q15_multiply(fraction, inner));
    ((mantissa as u32) << 9) >> whole
}

/// H(u) = S(-u) of an activation y = x · S(x) with S(-u) = 1 − S(u): 513 Q24 values at steps of 2^-k, straight lines
/// between. The bytes come from the artifact, little-endian i32.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    points: &'a [u8],
    /// 2^(k + 12)
    steps: f32,
}

impl<'a> Curve<'a> {
    /// Bytes of the points.
    pub const BYTES: usize = CURVE_POINTS * 4;

    /// A curve of 513 points that stay in [0, 2^24] and move by less than 2^19 a step, so that no product in
    /// [`Curve::apply`] leaves 32 bits; k in [1, 10]. `None` for anything else.
    pub fn new(points: &'a [u8], k: u32) -> Option<Self> {
        if points.len() != Self::BYTES || !(1..=10).contains(&k) {
            return None;
        }
        let curve = Curve { points, steps: power_of_two(k as i32 + 12) };
        let smooth = (0..CURVE_POINTS - 1).all(|i| (curve.point(i) - curve.point(i + 1)).unsigned_abs() < 1 << 19);
        let bounded = (0..CURVE_POINTS).all(|i| (0..=1 << 24).contains(&curve.point(i)));
        (bounded && smooth).then_some(curve)
    }

    #[inline]
    fn point(&self, index: usize) -> i32 {
        let at = index * 4;
        i32::from_le_bytes([self.points[at], self.points[at + 1], self.points[at + 2], self.points[at + 3]])
    }

    /// S(-u) in Q24 for u ≥ 0.
    #[inline]
    fn lookup(&self, u: f32) -> i32 {
        // `min` returns the number where u is NaN; what comes of it is refused when it is quantized.
        let z = round((u * self.steps).min(2_097_151.0)) as i32;
        let (index, fraction) = ((z >> 12) as usize, z & 4095);
        let here = self.point(index);
        here - (((here - self.point(index + 1)) * fraction + 2048) >> 12)
    }

    /// y = x · S(x).
    #[inline]
    pub fn apply(&self, x: f32) -> f32 {
        let tail = self.lookup(x.abs());
        let share = if x < 0.0 { tail } else { (1 << 24) - tail };
        x * (share as f32 * power_of_two(-24))
    }

    /// tanh(x) = ±(1 − 2 S(-2|x|)), for the curve of the sigmoid.
    #[inline]
    pub fn tanh(&self, x: f32) -> f32 {
        let share = (1 << 24) - 2 * self.lookup(x.abs() * 2.0);
        let sign = if x < 0.0 { -1.0 } else { 1.0 };
        sign * (share as f32 * power_of_two(-24))
    }
}

/// Rotary positions from two shipped f32 tables: 64 single steps and every 64th position, (rows, head_dim / 2) each.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// cos of single steps.
    pub low_cos: F32Bytes<'a>,
    /// sin of single steps.
    pub low_sin: F32Bytes<'a>,
    /// cos of every 64th position.
    pub high_cos: F32Bytes<'a>,
    /// sin of every 64th position.
    pub high_sin: F32Bytes<'a>,
    /// Half of the head's width.
    pub half: usize,
}

impl Rotary<'_> {
    /// Rotates one head in place: element i is paired with i + head_dim/2.
    ///
    /// # Panics
    /// If the tables do not reach `position`.
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let half = self.half;
        let (low, high) = (position % ROTARY_BLOCK * half, position / ROTARY_BLOCK * half);
        let (first, second) = head.split_at_mut(half);
        let low = self.low_cos.slice(low, half).iter().zip(self.low_sin.slice(low, half).iter());
        let high = self.high_cos.slice(high, half).iter().zip(self.high_sin.slice(high, half).iter());
        let pairs = first.iter_mut().zip(second.iter_mut());
        for (((a, b), (low_cos, low_sin)), (high_cos, high_sin)) in pairs.zip(low).zip(high) {
            let cos = high_cos * low_cos - high_sin * low_sin;
            let sin = high_sin * low_cos + high_cos * low_sin;
            let (x, y) = (*a, *b);
            *a = x * cos - y * sin;
            *b = y * cos + x * sin;
        }
    }
}

/// The key map on one key: (k − mean) · balance.
pub fn map_key(key: &mut [f32], mean: F32Bytes<'_>, balance: F32Bytes<'_>) {
    for ((k, mean), balance) in key.iter_mut().zip(mean.iter()).zip(balance.iter()) {
        *k = (*k - mean) * balance;
    }
}

/// The key map on one query: q · inverse.
pub fn map_query(query: &mut [f32], inverse: F32Bytes<'_>) {
    for (q, inverse) in query.iter_mut().zip(inverse.iter()) {
        *q *= inverse;
    }
}

/// Sum of rows in order, divided by their number, scaled to unit length: the pooling of sentence encoders.
/// `total` holds the sum of `rows` rows, added one after another in f32.
pub fn unit_mean(total: &mut [f32], rows: usize) -> Result<(), NumericRange> {
    for value in total.iter_mut() {
        *value /= rows as f32;
    }
    let (up, down) = integer_factors(total)?;
    let squares: i64 = total.iter().map(|&value| i64::from(to_integer(value, up).pow(2))).sum();
    if squares == 0 {
        return Ok(());
    }
    let inverse = 1.0 / (sqrt(squares as f32) * down);
    for value in total.iter_mut() {
        *value *= inverse;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_roots_are_correctly_rounded() {
        let mut bits = 1u32;
        while bits < 0x7f80_0000 {
            let x = f32::from_bits(bits);
            // The f64 root of an f32 rounded to f32 is the correctly rounded f32 root.
            let expected = f64::from(x).sqrt() as f32;
            assert_eq!(sqrt(x).to_bits(), expected.to_bits(), "{bits:#x}");
            bits += 4099;
        }
        assert_eq!(sqrt(0.0), 0.0);
        for near in [1.0f32, 4.0, 0.25, 16_777_215.0, f32::MAX, f32::MIN_POSITIVE] {
            for bits in near.to_bits() - 3..=near.to_bits() + 3 {
                let x = f32::from_bits(bits);
                assert!(!x.is_finite() || sqrt(x) == f64::from(x).sqrt() as f32, "{x}");
            }
        }
    }

    #[test]
    fn broken_rows_are_refused() {
        let mut out = [0i8; 2];
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(HUGE_BITS)] {
            assert_eq!(quantize(&[1.0, bad], &mut out), Err(NumericRange));
        }
    }
}
