//! Loops over f32 slices, written so that the compiler makes vectors of them. Sums have eight parts in a fixed order and
//! nothing is contracted, so results are the same bits for every width of vectors.

/// Does work compiled for the widest vectors the CPU has. Its `call` must be always inlined, and hold the loops or always inline
/// the functions that do: a closure's body, or a function handed over, stays a function of its own, compiled for any CPU.
pub(super) fn wide<W: pulp::NullaryFnOnce>(work: W) -> W::Output {
    pulp::Arch::new().dispatch(work)
}

/// y += a · x
#[inline(always)]
pub(super) fn add(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// Σ a · b
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

/// Σ f(a, b)
#[inline(always)]
pub(super) fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let (whole_a, whole_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(a, b)| f(*a, *b)).sum();
    for (a, b) in whole_a.zip(whole_b) {
        for k in 0..8 {
            sums[k] += f(a[k], b[k]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The nearest integer within two integers below 2^22, ties to even: by adding and taking away 1.5 · 2^23, which every
/// CPU has a fast instruction for.
#[inline(always)]
pub(super) fn nearest(value: f32, low: f32, high: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value.max(low).min(high) + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_rounding_to_even_within_bounds() {
        for n in -40..40 {
            let value = n as f32 / 4.0;
            assert_eq!(nearest(value, -8.0, 7.0), value.round_ties_even().clamp(-8.0, 7.0), "{value}");
        }
        assert_eq!((nearest(f32::INFINITY, -8.0, 7.0), nearest(-1e30, -127.0, 127.0)), (7.0, -127.0));
    }
}
