//! Sixteen products of vectors at once, each the same bits as [`dot`](crate::lanes::dot) of the two: the vectors lie across the
//! sixteen and not along a vector, which pays where vectors are short. Written with vectors in hand, since compilers take the
//! loop over lanes for the one to widen, and gather.

use crate::lanes::LANES;
use pulp::{Simd, WithSimd};

/// Products of `a` with vectors of which sixteen lie side by side in each of `panels`: value i of them in `panel[16 i..][..16]`.
/// `out` has room for all.
pub fn dots(a: &[f32], panels: &[f32], out: &mut [f32]) {
    pulp::Arch::new().dispatch(Dots { a, panels, out });
}

struct Dots<'d> {
    a: &'d [f32],
    panels: &'d [f32],
    out: &'d mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dots { a, panels, out } = self;
        for (panel, out) in panels.chunks_exact(LANES * a.len().max(1)).zip(out.as_chunks_mut::<LANES>().0) {
            let columns = (0..LANES).step_by(S::F32_LANES);
            for (first, out) in columns.zip(S::as_mut_simd_f32s(out).0) {
                *out = sums(simd, a, panel, first);
            }
        }
    }
}

/// The products with as many vectors of a panel as are computed at once, from number `first`.
#[inline(always)]
fn sums<S: Simd>(simd: S, a: &[f32], panel: &[f32], first: usize) -> S::f32s {
    let mut lanes = [simd.splat_f32s(0.0); LANES];
    for (a, panel) in a.chunks(LANES).zip(panel.chunks(LANES * LANES)) {
        for ((lane, a), row) in lanes.iter_mut().zip(a).zip(panel.as_chunks::<LANES>().0) {
            if let [row, ..] = S::as_simd_f32s(&row[first..]).0 {
                *lane = simd.mul_add_f32s(simd.splat_f32s(*a), *row, *lane);
            }
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = simd.add_f32s(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{dot, vectorised};

    #[test]
    fn each_is_the_product_of_two() {
        let draw = |n: usize| ((n * 7919 + 13) % 2003) as f32 / 997.0 - 1.0;
        for width in [1, 2, 7, 8, 15, 16, 17, 24, 64, 80] {
            let a: Vec<f32> = (0..width).map(|n| draw(n + 5)).collect();
            let panels: Vec<f32> = (0..2 * width * LANES).map(draw).collect();
            let mut found = [0.0; 2 * LANES];
            dots(&a, &panels, &mut found);
            for (number, found) in found.iter().enumerate() {
                let panel = &panels[number / LANES * LANES * width..][..LANES * width];
                let b: Vec<f32> = panel.chunks(LANES).map(|row| row[number % LANES]).collect();
                let expected = vectorised(
                    #[inline(always)]
                    || dot(&a, &b),
                );
                assert_eq!(found.to_bits(), expected.to_bits(), "{width} values, vector {number}");
            }
        }
    }
}
