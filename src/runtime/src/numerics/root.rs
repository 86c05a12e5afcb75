//! Square roots, correctly rounded on every target: by the processor's instruction or in integers, since `core` has
//! none.

/// The correctly rounded square root of a finite, non-negative f32; anything else is returned unchanged.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    if x.to_bits() >= 0x7f80_0000 { x } else { crate::kernels::root::square_root(x) }
}

/// [`sqrt`] by integers.
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
    // x = mantissa · 2^(exponent - 150). Shift so that the exponent is even and the root has at least 25 bits: then the
    // 24 result bits, one rounding bit and the remainder determine the nearest value.
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
}
