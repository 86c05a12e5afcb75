//! Which row scales a grid has. A tool that stores the scale of every block as an IEEE half computes with the same weights to the
//! bit where row scale times multiplier is one. A half has 11 significant bits and is a multiple of 2⁻²⁴; a multiplier has up to
//! 7 bits, so that 4 are left for the scale of rows that have multipliers, and all 11 for that of others:
//!
//! ```text
//! scale = k · 2^e,  k < 2^b,  e ≥ −24      b = 4 with multipliers, 11 without
//! ```
//!
//! Four bits cost little: the multipliers of a row follow its scale, and the largest is 113 or more instead of 127.

/// Row scales of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scales {
    /// Every number.
    #[default]
    Any,
    /// Those whose products with every multiplier are halves.
    Half,
}

/// Significant bits of a half.
const BITS: i32 = 11;
/// Of which a multiplier, up to 127, takes.
const MULTIPLIER_BITS: i32 = 7;
/// The least power of two that a half holds.
const LEAST: i32 = -24;
/// The largest half.
const LARGEST: f32 = 65504.0;
/// The largest scale whose products with 127 are halves: 15 · 2⁵.
const LARGEST_WITH_MULTIPLIERS: f32 = 480.0;

impl Scales {
    /// The scale nearest to a number that is not negative; zero alone becomes zero.
    pub fn nearest(self, scale: f32, multipliers: bool) -> f32 {
        self.rounded(scale, multipliers, f32::round_ties_even)
    }

    /// The least scale that is not below a number that is not negative, as far as there is one.
    pub fn above(self, scale: f32, multipliers: bool) -> f32 {
        self.rounded(scale, multipliers, f32::ceil)
    }

    fn rounded(self, scale: f32, multipliers: bool, round: impl Fn(f32) -> f32) -> f32 {
        if self == Scales::Any || scale <= 0.0 || !scale.is_finite() {
            return scale;
        }
        let (bits, largest) = match multipliers {
            true => (BITS - MULTIPLIER_BITS, LARGEST_WITH_MULTIPLIERS),
            false => (BITS, LARGEST),
        };
        // ⌊log2⌋ of a number that is not subnormal; below, it is the least of all units that counts.
        let exponent = (scale.to_bits() >> 23) as i32 - 127;
        let unit = power_of_two((exponent - (bits - 1)).max(LEAST));
        (round(scale / unit).max(1.0) * unit).min(largest)
    }
}

/// 2^e of a normal number.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a half holds a number: a multiple of 2⁻²⁴ with 11 significant bits, up to the largest.
    fn is_half(value: f32) -> bool {
        let bits = value.abs() / power_of_two(LEAST);
        let significant = |value: f32| value.to_bits() << 9 << (BITS - 1) == 0;
        value.abs() <= LARGEST && bits == bits.trunc() && significant(value)
    }

    proptest! {
        #[test]
        fn products_with_every_multiplier_are_halves(exponent in -40i32..18, mantissa in 1f32..2.0) {
            let scale = mantissa * power_of_two(exponent);
            let alone = Scales::Half.nearest(scale, false);
            prop_assert!(is_half(alone), "{scale} {alone}");
            for rounded in [Scales::Half.nearest(scale, true), Scales::Half.above(scale, true)] {
                for multiplier in -127i16..=127 {
                    let product = rounded * f32::from(multiplier);
                    prop_assert!(is_half(product), "{scale} {rounded} {multiplier}");
                }
            }
            if (LEAST + 3..8).contains(&exponent) {
                let above = Scales::Half.above(scale, true);
                prop_assert!(above >= scale && above <= scale * 1.125, "{scale} {above}");
                let nearest = Scales::Half.nearest(scale, true);
                prop_assert!((nearest - scale).abs() <= scale / 16.0, "{scale} {nearest}");
            }
        }
    }

    #[test]
    fn any_scale_is_itself() {
        for scale in [0.0, 1e-30, 0.1, 3e38] {
            assert_eq!([Scales::Any.nearest(scale, true), Scales::Any.above(scale, false)], [scale, scale]);
        }
        assert_eq!(Scales::Half.nearest(0.0, true), 0.0);
        assert_eq!(Scales::Half.nearest(1e-30, true), power_of_two(LEAST));
        assert_eq!(Scales::Half.nearest(0.1, true), 0.101_562_5);
    }
}
