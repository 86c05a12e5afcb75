//! Norms and the pooling of sentence encoders. Squares are summed as 14-bit integers, so the order does not matter.

use super::{F32Bytes, NumericRange, TINY_BITS, max_abs_bits, power_of_two, round_to_integer, sqrt};

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

/// The integer of one value of a row; |n| ≤ 2^14.
#[inline(always)]
fn to_integer(value: f32, up: f32) -> i32 {
    round_to_integer(value * up)
}

/// Sum of squares of the 14-bit integers of a row: 32-bit lanes hold seven squares of 2^28 before they are summed.
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

/// (x − mean) · (1 / sqrt(variance + ε)) · weight + bias, in place; without the sum where `bias` is empty.
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
    let weight = &weight.words()[..x.len()];
    if bias.is_empty() {
        for (value, &gain) in x.iter_mut().zip(weight) {
            *value = (*value - mean) * inverse * f32::from_le_bytes(gain);
        }
        return Ok(());
    }
    let bias = &bias.words()[..x.len()];
    for ((value, &gain), &offset) in x.iter_mut().zip(weight).zip(bias) {
        *value = (*value - mean) * inverse * f32::from_le_bytes(gain) + f32::from_le_bytes(offset);
    }
    Ok(())
}

/// Scales a row to length one, by its 14-bit integers; a row of zeros stays as it is.
pub fn unit_length(row: &mut [f32]) -> Result<(), NumericRange> {
    let (up, down) = integer_factors(row)?;
    let squares = sum_of_squares(row, up);
    if squares == 0 {
        return Ok(());
    }
    let inverse = 1.0 / (sqrt(squares as f32) * down);
    for value in row.iter_mut() {
        *value *= inverse;
    }
    Ok(())
}

/// Divides the sum of `rows` rows, added one after another in f32, by their number.
pub fn mean(total: &mut [f32], rows: usize) {
    for value in total.iter_mut() {
        *value /= rows as f32;
    }
}

/// The larger of x and y in every place, in x; x where they are equal.
pub fn maximum(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        if y > *x {
            *x = y;
        }
    }
}

/// [`mean`], then [`unit_length`].
pub fn unit_mean(total: &mut [f32], rows: usize) -> Result<(), NumericRange> {
    mean(total, rows);
    unit_length(total)
}
