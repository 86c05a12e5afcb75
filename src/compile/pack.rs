//! Packs a quantized matrix into the tiles of a layout, and unpacks it. Both directions use the address formula of
//! [`slm_runtime::layout`], so one packer serves every target.

use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::transform::NmPattern;
use ndarray::Array2;
use slm_runtime::layout::{BLOCK_COLUMNS, Layout, TileShape};

/// The two columns kept of every four: the nonzero ones, filled up with the lowest of the others.
fn kept_columns(values: &[i8]) -> impl Iterator<Item = usize> {
    values.chunks_exact(4).enumerate().flat_map(|(four, values)| {
        let first = values.iter().position(|value| *value != 0).unwrap_or(0);
        let second = values.iter().rposition(|value| *value != 0).unwrap_or(0);
        let (first, second) = match (first, second) {
            (0, 0) => (0, 1),
            // One nonzero value: the lowest other column fills up.
            (one, other) if one == other => (0, one),
            pair => pair,
        };
        [4 * four + first, 4 * four + second]
    })
}

/// The tiles of a matrix whose rows share a scheme; `None` for a split matrix and where the size overflows. Padding
/// rows have row scale 0 and multiplier 1, padding columns the value 0. A sparse matrix must be 2:4; its kept values
/// and their indices are stored.
pub fn pack(matrix: &QuantizedMatrix, layout: Layout) -> Option<Vec<u8>> {
    let storage = matrix.scheme.storage(matrix.sparsity)?;
    let shape = TileShape::new(storage, layout, matrix.rows(), matrix.columns())?;
    let mut bytes = vec![0u8; shape.bytes()];
    let interleaved = layout.rows();
    let mut padded = vec![0i8; shape.stored_columns() * if storage.is_sparse() { 2 } else { 1 }];
    for (index, tile) in bytes.chunks_exact_mut(shape.stride).enumerate() {
        for within in 0..interleaved {
            let row = index * interleaved + within;
            let real = row < matrix.rows();
            padded.fill(0);
            if real {
                padded.iter_mut().zip(matrix.values.row(row)).for_each(|(padded, value)| *padded = *value);
            }
            if storage.is_sparse() {
                for (stored, column) in kept_columns(&padded).enumerate() {
                    shape.put_value(tile, within, stored, padded[column]);
                }
                for (stored, column) in kept_columns(&padded[..shape.blocks * BLOCK_COLUMNS]).enumerate() {
                    let (offset, shift) = shape.index_offset(within, stored);
                    tile[offset] |= ((column % 4) as u8) << shift;
                }
            } else {
                for (column, value) in padded.iter().enumerate() {
                    shape.put_value(tile, within, column, *value);
                }
            }
            for group in 0..shape.groups {
                let multiplier = if real { matrix.multiplier[[row, group]] } else { 1 };
                tile[shape.multiplier_offset(within, group)] = multiplier as u8;
            }
            let scale = if real { matrix.row_scale[row] } else { 0.0 };
            let at = shape.scale_offset(within);
            tile[at..at + 4].copy_from_slice(&scale.to_le_bytes());
        }
    }
    Some(bytes)
}

/// The (rows, columns) matrix packed in some tiles, with its scheme and pattern; `None` for a split matrix and for an
/// impossible shape.
///
/// # Panics
/// If `bytes` is shorter than the shape says.
pub fn unpack(
    bytes: &[u8],
    scheme: QuantScheme,
    sparsity: Option<NmPattern>,
    layout: Layout,
    [rows, columns]: [usize; 2],
) -> Option<QuantizedMatrix> {
    let storage = scheme.storage(sparsity)?;
    let shape = TileShape::new(storage, layout, rows, columns)?;
    let mut values = Array2::zeros((rows, columns));
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
    let interleaved = layout.rows();
    for (row, mut values) in values.outer_iter_mut().enumerate() {
        let tile = &bytes[row / interleaved * shape.stride..][..shape.stride];
        let within = row % interleaved;
        let value = |stored: usize| shape.value(tile, within, stored);
        if storage.is_sparse() {
            for stored in 0..columns / 2 {
                let (offset, shift) = shape.index_offset(within, stored);
                values[stored / 2 * 4 + usize::from(tile[offset] >> shift & 3)] = value(stored);
            }
        } else {
            values.iter_mut().enumerate().for_each(|(column, out)| *out = value(column));
        }
        multiplier.extend((0..shape.groups).map(|group| tile[shape.multiplier_offset(within, group)] as i8));
        let at = shape.scale_offset(within);
        row_scale.push(f32::from_le_bytes([tile[at], tile[at + 1], tile[at + 2], tile[at + 3]]));
    }
    Some(QuantizedMatrix { sparsity, ..QuantizedMatrix::new(scheme, values, row_scale, multiplier) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, Role};
    use crate::model::matrix::{from_rows, into_values, row_major_mut};
    use crate::model::scheme::SCHEMES;
    use proptest::prelude::*;
    use slm_runtime::sample::random_u64;

    fn random_matrix(scheme: QuantScheme, rows: usize, columns: usize, seed: u64) -> QuantizedMatrix {
        let draw = |index: usize, low: i64, high: i64| {
            (low + (random_u64(seed, index as u64) % (high - low + 1) as u64) as i64) as i8
        };
        let (low, high) = scheme.def().range;
        let groups = scheme.def().group.map_or(0, |group| columns.div_ceil(group));
        let values = (0..rows * columns).map(|i| draw(i, low.into(), high.into())).collect();
        let row_scale = (0..rows).map(|row| (row as f32 + 1.0) / 1024.0).collect();
        let multiplier = (0..rows * groups).map(|i| draw(i + 7_000_000, 1, 127)).collect();
        QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier)
    }

    /// Keeps at most two of every four values.
    fn sparsen(matrix: &mut QuantizedMatrix, seed: u64) {
        for (n, four) in row_major_mut(&mut matrix.values).chunks_exact_mut(4).enumerate() {
            let draw = random_u64(seed ^ 1, n as u64);
            let (first, second) = (draw as usize % 4, (draw >> 8) as usize % 4);
            (0..4).filter(|k| ![first, second].contains(k)).for_each(|k| four[k] = 0);
        }
        matrix.sparsity = Some(NmPattern::TWO_OF_FOUR);
    }

    #[test]
    fn every_four_keeps_two_columns_in_order() {
        for bits in 0u8..16 {
            let values: Vec<i8> = (0..4).map(|k| if bits >> k & 1 == 1 { -5 } else { 0 }).collect();
            if bits.count_ones() > 2 {
                continue;
            }
            let kept: Vec<usize> = kept_columns(&values).collect();
            let lowest = (0..4).filter(|k| values[*k] == 0);
            let mut expected: Vec<usize> = (0..4).filter(|k| values[*k] != 0).chain(lowest).take(2).collect();
            expected.sort();
            assert_eq!(kept, expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(rows in 1usize..40, columns in 1usize..150, seed: u64, id in 1u8..=7) {
            let layout = Layout::from_id(id).expect("layout ids are 1 to 7");
            for scheme in SCHEMES.map(|def| def.scheme) {
                let matrix = random_matrix(scheme, rows, columns, seed);
                let bytes = pack(&matrix, layout).expect("small");
                prop_assert_eq!(unpack(&bytes, scheme, None, layout, [rows, columns]), Some(matrix));
            }
        }

        /// A split matrix, packed part by part as the compiler does.
        #[test]
        fn unpacking_undoes_packing_of_parts(
            tiles in 1usize..4,
            rest in 1usize..40,
            columns in 1usize..100,
            seed: u64,
            id in 1u8..=7,
        ) {
            let layout = Layout::from_id(id).expect("layout ids are 1 to 7");
            let wide_rows = tiles * crate::model::scheme::SPLIT_ROWS as usize;
            let scheme = QuantScheme::Split { wide_rows: wide_rows as u32 };
            let of_rows = |rows: std::ops::Range<usize>, scheme| random_matrix(scheme, rows.len(), columns, seed);
            let matrix = QuantizedMatrix::of_parts(scheme, (wide_rows + rest, columns), of_rows);
            matrix.validate(LinearId::global(Role::LmHead)).expect("it is sound");
            prop_assert_eq!(pack(&matrix, layout), None);
            let again = QuantizedMatrix::of_parts(scheme, matrix.values.dim(), |rows, scheme| {
                let part = matrix.part(rows.clone(), scheme);
                let bytes = pack(&part, layout).expect("small");
                unpack(&bytes, scheme, None, layout, [rows.len(), columns]).expect("small")
            });
            prop_assert_eq!(&again, &matrix);
            let (first, second) = (0..wide_rows, wide_rows..matrix.rows());
            let parts = [matrix.part(first, QuantScheme::W8), matrix.part(second, QuantScheme::W4G32)];
            let dequantized: Vec<f32> = parts.iter().flat_map(QuantizedMatrix::dequantize).collect();
            prop_assert_eq!(dequantized, into_values(matrix.dequantize()));
        }

        #[test]
        fn unpacking_undoes_packing_of_sparse_matrices(
            rows in 1usize..40,
            fours in 1usize..50,
            seed: u64,
            id in 1u8..=7,
        ) {
            let (layout, columns) = (Layout::from_id(id).expect("layout ids are 1 to 7"), 4 * fours);
            // Schemes without a sparse storage are stored dense.
            for scheme in SCHEMES.map(|def| def.scheme) {
                let mut matrix = random_matrix(scheme, rows, columns, seed);
                sparsen(&mut matrix, seed);
                let bytes = pack(&matrix, layout).expect("small");
                prop_assert_eq!(unpack(&bytes, scheme, matrix.sparsity, layout, [rows, columns]), Some(matrix));
            }
        }
    }
}
