//! Activation curves from tables that the artifact carries: y = x · S(x), and tanh.

use super::{power_of_two, round_to_integer};

/// Values of an activation curve: u = 0, 2^-k, … 512 · 2^-k.
pub const CURVE_POINTS: usize = 513;

/// H(u) = S(-u) of an activation y = x · S(x) with S(-u) = 1 − S(u): 513 Q24 values at steps of 2^-k, linearly
/// interpolated. The bytes come from the artifact, little-endian i32.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    points: &'a [u8; Curve::BYTES],
    /// 2^(k + 12)
    steps: f32,
}

impl<'a> Curve<'a> {
    /// Bytes of the points.
    pub const BYTES: usize = CURVE_POINTS * 4;

    /// A curve of 513 points in [0, 2^24] that change by less than 2^19 per step, so that no product in
    /// [`Curve::apply`] exceeds 32 bits; k in [1, 10]. `None` for anything else.
    pub fn new(points: &'a [u8], k: u32) -> Option<Self> {
        Curve::checked_before(points, k).filter(Curve::is_sound)
    }

    /// Whether [`Curve::new`] accepts the points.
    pub(crate) fn is_sound(&self) -> bool {
        let step = |i| (self.point(i) - self.point(i + 1)).unsigned_abs();
        let bounded = (0..CURVE_POINTS).all(|i| (0..=1 << 24).contains(&self.point(i)));
        bounded && (0..CURVE_POINTS - 1).all(|i| step(i) < 1 << 19)
    }

    /// [`Curve::new`] for points that it has accepted before.
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

    /// Factor from |x| to 4096 · its index in the table.
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

    /// S(-u) in Q24 for several u ≥ 0: arithmetic for all, then the points of each, then arithmetic for all.
    #[inline(always)]
    fn tails<const N: usize>(&self, u: [f32; N]) -> [i32; N] {
        // `min` returns the other operand where u is NaN; quantization rejects the result.
        let z = u.map(|u| round_to_integer((u * self.steps).min(2_097_151.0)));
        // At most 2^21 - 1: the mask tells the compiler.
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

/// Values per step of the vectorized loop.
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
