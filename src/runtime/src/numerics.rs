//! The elementary operations of the exact arithmetic (docs/numerics.md): activations to int8, norms, exp2, activation
//! curves, rotary positions and sentence pooling. Every sum here is a sum of integers, and everything that stays f32 is
//! one IEEE operation at a time, so the results are the same bits on every target. No fused multiply-add, no libm.
//!
//! Loops are written so that a compiler can use vectors, and are always inlined: an instruction set's table compiles the
//! same definition again with its own instructions.

use crate::layout::GROUP;

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
/// 1/16256 rounded to f32.
const ONE_OVER_16256: f32 = 1.0 / 16_256.0;
/// Largest integer of a 16-bit activation: 128 · 127, so that both planes stay in [-127, 127].
pub const WIDE_MAX: i32 = 16_256;

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

/// [`round`] as an integer: adding the rounder leaves it in the low bits of the mantissa, in two's complement.
#[inline(always)]
fn round_to_integer(x: f32) -> i32 {
    (x + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}

/// Bits of max |x|, order-free because it is an integer maximum.
#[inline(always)]
fn max_abs_bits(x: &[f32]) -> Result<u32, NumericRange> {
    let bits = x.iter().fold(0u32, |most, value| most.max(value.to_bits() & 0x7fff_ffff));
    if bits >= HUGE_BITS { Err(NumericRange) } else { Ok(bits) }
}

/// Integers in [-127, 127] and their f32 scale: q = round(x · (127 / a)), scale = a · (1/127), a = max |x|.
///
/// # Panics
/// If `out` is shorter than `x`.
#[inline(always)]
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
        *q = round_to_integer(value * inverse) as i8;
    }
    Ok(largest * ONE_OVER_127)
}

/// [`quantize`] of a row that a product reads: zeros to the end of `out`, and -8 times the sum of each group of 32.
///
/// # Panics
/// If `out` is shorter than `x`.
#[inline(always)]
pub fn quantize_row(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> {
    out[x.len()..].fill(0);
    let scale = quantize(x, out)?;
    group_offsets(out, offsets);
    Ok(scale)
}

/// Integers in [-16256, 16256] as two planes of bytes and their f32 scale: n = round(x · (16256 / a)), first = (n + 64) >>
/// 7 in [-127, 127], second = n − 128 · first in [-64, 63], scale = a · (1/16256), a = max |x|.
///
/// # Panics
/// If a plane is shorter than `x`.
#[inline(always)]
pub fn quantize_wide(x: &[f32], first: &mut [i8], second: &mut [i8]) -> Result<f32, NumericRange> {
    let (first, second) = (&mut first[..x.len()], &mut second[..x.len()]);
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        first.fill(0);
        second.fill(0);
        return Ok(0.0);
    }
    let largest = f32::from_bits(bits);
    let inverse = WIDE_MAX as f32 / largest;
    for ((first, second), &value) in first.iter_mut().zip(second).zip(x) {
        let n = round_to_integer(value * inverse);
        let high = (n + 64) >> 7;
        *first = high as i8;
        *second = (n - 128 * high) as i8;
    }
    Ok(largest * ONE_OVER_16256)
}

/// [`quantize_wide`] of a row that a product reads: each half of `out` a plane with zeros to its end, and -8 times the sums
/// of their groups of 32.
///
/// # Panics
/// If half of `out` is shorter than `x`.
#[inline(always)]
pub fn quantize_wide_row(x: &[f32], out: &mut [i8], offsets: &mut [i32]) -> Result<f32, NumericRange> {
    let (first, second) = out.split_at_mut(out.len() / 2);
    first[x.len()..].fill(0);
    second[x.len()..].fill(0);
    let scale = quantize_wide(x, first, second)?;
    group_offsets(out, offsets);
    Ok(scale)
}

#[inline(always)]
fn group_offsets(values: &[i8], offsets: &mut [i32]) {
    for (offset, group) in offsets.iter_mut().zip(values.chunks_exact(GROUP)) {
        *offset = -8 * group.iter().map(|&value| i32::from(value)).sum::<i32>();
    }
}

/// x + y, in place.
#[inline(always)]
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// The power of two 2^exponent; exponent in [-126, 127].
#[inline]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The factors that turn a row into 14-bit integers and back: n = round(x · up), x ≈ n · down, up = 2^(13-e) and
/// down = 2^(e-13) where 2^e ≤ max |x| < 2^(e+1). A row of zeros gives `up` = 0.
#[inline(always)]
fn integer_factors(x: &[f32]) -> Result<(f32, f32), NumericRange> {
    let bits = max_abs_bits(x)?;
    if bits < TINY_BITS {
        return Ok((0.0, power_of_two(-13)));
    }
    let exponent = (bits >> 23) as i32 - 127;
    Ok((power_of_two(13 - exponent), power_of_two(exponent - 13)))
}

/// The integer that stands for one value of a row; |n| ≤ 2^14.
#[inline(always)]
fn to_integer(value: f32, up: f32) -> i32 {
    round_to_integer(value * up)
}

/// Sum of squares of the 14-bit integers of a row: 32-bit lanes hold seven squares of 2^28 before they are added up.
#[inline(always)]
fn sum_of_squares(x: &[f32], up: f32) -> i64 {
    const LANES: usize = 16;
    let mut total = 0i64;
    for block in x.chunks(LANES * 7) {
        let mut lanes = [0i32; LANES];
        let rows = block.chunks_exact(LANES);
        let rest = rows.remainder();
        for row in rows {
            for (lane, &value) in lanes.iter_mut().zip(row) {
                let n = to_integer(value, up);
                *lane += n * n;
            }
        }
        total += lanes.iter().map(|&lane| i64::from(lane)).sum::<i64>();
        total += rest.iter().map(|&value| i64::from(to_integer(value, up).pow(2))).sum::<i64>();
    }
    total
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
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.words().iter().map(|&word| f32::from_le_bytes(word))
    }

    /// The bytes of each value.
    #[inline(always)]
    fn words(self) -> &'a [[u8; 4]] {
        self.0.as_chunks().0
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

/// The correctly rounded square root of a finite, non-negative f32; anything else is given back.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    if x.to_bits() >= 0x7f80_0000 { x } else { crate::kernels::root::square_root(x) }
}

/// [`sqrt`] by integers, for `core` has none.
#[cfg(any(test, miri, not(target_arch = "x86_64")))]
pub(crate) fn sqrt_by_integers(x: f32) -> f32 {
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
#[inline(always)]
pub fn rms_norm(x: &mut [f32], weight: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> {
    let (up, down) = integer_factors(x)?;
    let squares = sum_of_squares(x, up);
    let mean_square = squares as f32 / x.len() as f32 * down * down;
    let inverse = 1.0 / sqrt(mean_square + epsilon);
    let weight = &weight.words()[..x.len()];
    for (value, &gain) in x.iter_mut().zip(weight) {
        *value = *value * inverse * f32::from_le_bytes(gain);
    }
    Ok(())
}

/// (x − mean) · (1 / sqrt(variance + ε)) · weight + bias, in place.
#[inline(always)]
pub fn layer_norm(x: &mut [f32], weight: F32Bytes<'_>, bias: F32Bytes<'_>, epsilon: f32) -> Result<(), NumericRange> {
    let (up, down) = integer_factors(x)?;
    let squares = sum_of_squares(x, up);
    let sum: i64 = x.iter().map(|&value| i64::from(to_integer(value, up))).sum();
    let width = x.len() as f32;
    let mean = sum as f32 / width * down;
    let spread = x.len() as i64 * squares - sum * sum;
    let variance = spread as f32 / width / width * down * down;
    let inverse = 1.0 / sqrt(variance + epsilon);
    let (weight, bias) = (&weight.words()[..x.len()], &bias.words()[..x.len()]);
    for ((value, &gain), &offset) in x.iter_mut().zip(weight).zip(bias) {
        *value = (*value - mean) * inverse * f32::from_le_bytes(gain) + f32::from_le_bytes(offset);
    }
    Ok(())
}

/// (a · b + 2^14) >> 15: the rounding high multiply that pmulhrsw, sqrdmulh and their kin compute.
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
    // At most 2^24, so that nothing is left from a shift by 25 on.
    ((mantissa as u32) << 9) >> whole.min(31)
}

/// Scores further than this below the largest weigh nothing: 2^21 in Q15 log2 units.
const DEEPEST: f32 = 2_097_152.0;

/// See [`crate::kernels::Kernels::weights`].
#[inline(always)]
pub fn softmax_weights(value_scales: &[f32], top: f32, scores: &mut [u32]) -> (u64, f32) {
    for slot in scores.iter_mut() {
        // `min` returns the number where a difference is NaN; what comes of it is refused when it is quantized.
        let z = round_to_integer((top - f32::from_bits(*slot)).min(DEEPEST));
        *slot = exp2_q24(z as u32);
    }
    let total = scores.iter().map(|&weight| u64::from(weight)).sum();
    // Weights and scales are not negative, and such numbers are in the order of their bits.
    let products = scores.iter().zip(value_scales).map(|(&weight, &scale)| (weight as i32 as f32 * scale).to_bits());
    (total, f32::from_bits(products.fold(0, u32::max)))
}

/// The 14-bit weight of a value: round(f32(e) · value_scale · ratio).
#[inline(always)]
pub fn probability(weight: u32, value_scale: f32, ratio: f32) -> i32 {
    round_to_integer(weight as i32 as f32 * value_scale * ratio)
}

/// H(u) = S(-u) of an activation y = x · S(x) with S(-u) = 1 − S(u): 513 Q24 values at steps of 2^-k, straight lines
/// between. The bytes come from the artifact, little-endian i32.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    points: &'a [u8; Curve::BYTES],
    /// 2^(k + 12)
    steps: f32,
}

impl<'a> Curve<'a> {
    /// Bytes of the points.
    pub const BYTES: usize = CURVE_POINTS * 4;

    /// A curve of 513 points that stay in [0, 2^24] and move by less than 2^19 a step, so that no product in
    /// [`Curve::apply`] leaves 32 bits; k in [1, 10]. `None` for anything else.
    pub fn new(points: &'a [u8], k: u32) -> Option<Self> {
        Curve::checked_before(points, k).filter(Curve::is_sound)
    }

    /// Whether the points are what [`Curve::new`] accepts.
    pub(crate) fn is_sound(&self) -> bool {
        let step = |i| (self.point(i) - self.point(i + 1)).unsigned_abs();
        let bounded = (0..CURVE_POINTS).all(|i| (0..=1 << 24).contains(&self.point(i)));
        bounded && (0..CURVE_POINTS - 1).all(|i| step(i) < 1 << 19)
    }

    /// [`Curve::new`] of points that it has accepted before.
    pub(crate) fn checked_before(points: &'a [u8], k: u32) -> Option<Self> {
        let points = points.try_into().ok().filter(|_| (1..=10).contains(&k))?;
        Some(Curve { points, steps: power_of_two(k as i32 + 12) })
    }

    /// The points' bytes.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for kernels that gather"))]
    pub(crate) fn points(&self) -> &'a [u8; Curve::BYTES] {
        self.points
    }

    /// From |x| to 4096 · its place in the table.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for kernels that gather"))]
    pub(crate) fn steps(&self) -> f32 {
        self.steps
    }

    #[inline(always)]
    fn point(&self, index: usize) -> i32 {
        let at = index * 4;
        i32::from_le_bytes([self.points[at], self.points[at + 1], self.points[at + 2], self.points[at + 3]])
    }

    /// S(-u) in Q24 for u ≥ 0.
    #[inline(always)]
    fn lookup(&self, u: f32) -> i32 {
        let [tail] = self.tails([u]);
        tail
    }

    /// S(-u) in Q24 of several u ≥ 0: arithmetic for all, then the points of each, then arithmetic for all.
    #[inline(always)]
    fn tails<const N: usize>(&self, u: [f32; N]) -> [i32; N] {
        // `min` returns the number where u is NaN; what comes of it is refused when it is quantized.
        let z = u.map(|u| round_to_integer((u * self.steps).min(2_097_151.0)));
        // 2^21 - 1 at most: the mask says so to the compiler.
        let here = z.map(|z| self.point((z >> 12) as usize & 511));
        let next = z.map(|z| self.point(((z >> 12) as usize & 511) + 1));
        let mut out = [0; N];
        for (((out, &z), &here), &next) in out.iter_mut().zip(&z).zip(&here).zip(&next) {
            *out = here - (((here - next) * (z & 4095) + 2048) >> 12);
        }
        out
    }

    /// y = x · S(x).
    #[inline(always)]
    pub fn apply(&self, x: f32) -> f32 {
        let [y] = self.apply_all([x]);
        y
    }

    #[inline(always)]
    fn apply_all<const N: usize>(&self, x: [f32; N]) -> [f32; N] {
        let tails = self.tails(x.map(f32::abs));
        let mut out = [0.0; N];
        for ((out, &tail), &x) in out.iter_mut().zip(&tails).zip(&x) {
            let share = if x < 0.0 { tail } else { (1 << 24) - tail };
            *out = x * (share as f32 * power_of_two(-24));
        }
        out
    }

    /// tanh(x) = ±(1 − 2 S(-2|x|)), for the curve of the sigmoid.
    #[inline]
    pub fn tanh(&self, x: f32) -> f32 {
        let share = (1 << 24) - 2 * self.lookup(x.abs() * 2.0);
        let sign = if x < 0.0 { -1.0 } else { 1.0 };
        sign * (share as f32 * power_of_two(-24))
    }
}

/// Values that go through a curve together.
const CURVE_LANES: usize = 16;

/// x = curve(x), in place.
#[inline(always)]
pub fn activate(curve: &Curve<'_>, x: &mut [f32]) {
    let (blocks, rest) = x.as_chunks_mut::<CURVE_LANES>();
    for block in blocks {
        *block = curve.apply_all(*block);
    }
    for value in rest {
        *value = curve.apply(*value);
    }
}

/// gate = curve(gate) · up, in place.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn gate(curve: &Curve<'_>, gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len());
    let (blocks, rest) = gate.as_chunks_mut::<CURVE_LANES>();
    let (up_blocks, up_rest) = up.as_chunks::<CURVE_LANES>();
    for (block, up) in blocks.iter_mut().zip(up_blocks) {
        let curved = curve.apply_all(*block);
        for ((gate, curved), up) in block.iter_mut().zip(curved).zip(up) {
            *gate = curved * up;
        }
    }
    for (gate, up) in rest.iter_mut().zip(up_rest) {
        *gate = curve.apply(*gate) * up;
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

impl<'a> Rotary<'a> {
    /// Rotates one head in place: element i is paired with i + head_dim/2.
    ///
    /// # Panics
    /// If the tables do not reach `position`.
    #[inline(always)]
    pub fn rotate(&self, head: &mut [f32], position: usize) {
        let half = self.half;
        let (low, high) = (position % ROTARY_BLOCK * half, position / ROTARY_BLOCK * half);
        let (first, second) = head.split_at_mut(half);
        let second = &mut second[..half];
        let table = |values: F32Bytes<'a>, row: usize| &values.words()[row..][..half];
        let (low_cos, low_sin) = (table(self.low_cos, low), table(self.low_sin, low));
        let (high_cos, high_sin) = (table(self.high_cos, high), table(self.high_sin, high));
        for i in 0..half {
            let (low_cos, low_sin) = (f32::from_le_bytes(low_cos[i]), f32::from_le_bytes(low_sin[i]));
            let (high_cos, high_sin) = (f32::from_le_bytes(high_cos[i]), f32::from_le_bytes(high_sin[i]));
            let cos = high_cos * low_cos - high_sin * low_sin;
            let sin = high_sin * low_cos + high_cos * low_sin;
            let (x, y) = (first[i], second[i]);
            first[i] = x * cos - y * sin;
            second[i] = y * cos + x * sin;
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
            assert_eq!(sqrt_by_integers(x).to_bits(), expected.to_bits(), "{bits:#x}");
            bits += 4099;
        }
        assert_eq!((sqrt(0.0), sqrt_by_integers(0.0)), (0.0, 0.0));
        for near in [1.0f32, 4.0, 0.25, 16_777_215.0, f32::MAX, f32::MIN_POSITIVE] {
            for bits in near.to_bits() - 3..=near.to_bits() + 3 {
                let x = f32::from_bits(bits);
                let expected = f64::from(x).sqrt() as f32;
                assert!(!x.is_finite() || (sqrt(x), sqrt_by_integers(x)) == (expected, expected), "{x}");
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
