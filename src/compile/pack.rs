//! A quantized matrix into the tiles of a layout, and back. Both directions go through the address formula of
//! [`slm_runtime::layout`], so one packer serves every target.

use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{GROUP, QuantScheme};
use slm_runtime::layout::{Layout, NibbleCode, TileShape};

/// The nibble that stands for a value in [-8, 7].
fn nibble(code: NibbleCode, value: i8) -> u8 {
    match code {
        NibbleCode::Offset8 => (value + 8) as u8,
        NibbleCode::TwosComplement => value as u8 & 15,
    }
}

/// The value a nibble stands for.
fn value_of(code: NibbleCode, nibble: u8) -> i8 {
    match code {
        NibbleCode::Offset8 => nibble as i8 - 8,
        NibbleCode::TwosComplement => ((nibble << 4) as i8) >> 4,
    }
}

/// The tiles of a matrix; `None` where its size overflows. Padding rows have row scale 0 and multiplier 1, padding
/// columns the value 0.
pub fn pack(matrix: &QuantizedMatrix, layout: Layout) -> Option<Vec<u8>> {
    let shape = TileShape::new(matrix.scheme.storage(), layout, matrix.rows, matrix.columns)?;
    let mut bytes = vec![0u8; shape.bytes()];
    let interleaved = layout.rows();
    for (index, tile) in bytes.chunks_exact_mut(shape.stride).enumerate() {
        for within in 0..interleaved {
            let row = index * interleaved + within;
            let real = row < matrix.rows;
            for column in 0..shape.groups * GROUP {
                let value =
                    if real && column < matrix.columns { matrix.values[row * matrix.columns + column] } else { 0 };
                let (offset, high) = shape.value_offset(within, column);
                match matrix.scheme {
                    QuantScheme::W8 => tile[offset] = value as u8,
                    QuantScheme::W4G32 => {
                        tile[offset] |= nibble(layout.nibbles(), value) << if high { 4 } else { 0 };
                    }
                }
            }
            if matrix.scheme == QuantScheme::W4G32 {
                for group in 0..shape.groups {
                    let multiplier = if real { matrix.multiplier[row * shape.groups + group] } else { 1 };
                    tile[shape.multiplier_offset(within, group)] = multiplier as u8;
                }
            }
            let scale = if real { matrix.row_scale[row] } else { 0.0 };
            let at = shape.scale_offset(within);
            tile[at..at + 4].copy_from_slice(&scale.to_le_bytes());
        }
    }
    Some(bytes)
}

/// The matrix of some tiles.
///
/// # Panics
/// If `bytes` is shorter than the shape says.
pub fn unpack(
    bytes: &[u8],
    scheme: QuantScheme,
    layout: Layout,
    rows: usize,
    columns: usize,
) -> Option<QuantizedMatrix> {
    let shape = TileShape::new(scheme.storage(), layout, rows, columns)?;
    let mut matrix = QuantizedMatrix {
        scheme,
        rows,
        columns,
        values: Vec::with_capacity(rows * columns),
        row_scale: Vec::with_capacity(rows),
        multiplier: Vec::new(),
    };
    let interleaved = layout.rows();
    for row in 0..rows {
        let tile = &bytes[row / interleaved * shape.stride..][..shape.stride];
        let within = row % interleaved;
        for column in 0..columns {
            let (offset, high) = shape.value_offset(within, column);
            matrix.values.push(match scheme {
                QuantScheme::W8 => tile[offset] as i8,
                QuantScheme::W4G32 => {
                    value_of(layout.nibbles(), if high { tile[offset] >> 4 } else { tile[offset] & 15 })
                }
            });
        }
        if scheme == QuantScheme::W4G32 {
            matrix.multiplier.extend((0..shape.groups).map(|group| tile[shape.multiplier_offset(within, group)] as i8));
        }
        let at = shape.scale_offset(within);
        matrix.row_scale.push(f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]));
    }
    Some(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slm_runtime::sample::random_u64;

    fn random_matrix(scheme: QuantScheme, rows: usize, columns: usize, seed: u64) -> QuantizedMatrix {
        let draw = |index: usize, low: i64, high: i64| {
            (low + (random_u64(seed, index as u64) % (high - low + 1) as u64) as i64) as i8
        };
        let groups = columns.div_ceil(GROUP);
        let (low, high) = if scheme == QuantScheme::W8 { (-127, 127) } else { (-8, 7) };
        QuantizedMatrix {
            scheme,
            rows,
            columns,
            values: (0..rows * columns).map(|i| draw(i, low, high)).collect(),
            row_scale: (0..rows).map(|row| (row as f32 + 1.0) / 1024.0).collect(),
            multiplier: match scheme {
                QuantScheme::W8 => Vec::new(),
                QuantScheme::W4G32 => (0..rows * groups).map(|i| draw(i + 7_000_000, 1, 127)).collect(),
            },
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(rows in 1usize..40, columns in 1usize..150, seed: u64, w4: bool, id in 1u8..=7) {
            let layout = Layout::from_id(id).expect("layout ids are 1 to 7");
            let scheme = if w4 { QuantScheme::W4G32 } else { QuantScheme::W8 };
            let matrix = random_matrix(scheme, rows, columns, seed);
            let bytes = pack(&matrix, layout).expect("small");
            prop_assert_eq!(unpack(&bytes, scheme, layout, rows, columns), Some(matrix));
        }
    }
}
