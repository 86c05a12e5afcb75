//! input · matrixᵀ from a matrix in the format it is stored in. Four of its rows at a time are converted to f32, into memory
//! that stays in the first cache, and multiplied with all rows of input, so that the matrix is read once and as it is: for
//! one row of input reading it is what takes the time, and half the bytes are half the time. An output is one sum over
//! vectors in order, then over the vector's parts, then over columns that fill none: it has the same bits for any number
//! of threads and of other inputs, but not on every CPU, whose vectors have different widths.

use crate::model::weights::Parameter;
use pulp::Simd;
use rayon::prelude::*;

/// Rows of the matrix that are multiplied together.
const ROWS: usize = 4;
/// Rows of input likewise.
const INPUTS: usize = 4;
/// Rows of input that stay in the second cache while one matrix row after the other goes by.
const BLOCK: usize = 64;
/// Weights that one thread multiplies at a time, about.
const GRAIN: usize = 1 << 15;

/// (inputs, in) times the transpose of (out, in): (inputs, out).
pub(super) fn product(matrix: &Parameter, [rows, columns]: [usize; 2], input: &[f32]) -> Vec<f32> {
    let inputs = input.len() / columns.max(1);
    let most = (GRAIN / columns.max(1)).max(1).next_multiple_of(ROWS);
    let part = |part: usize| {
        let (first, count) = (part * most, most.min(rows - part * most));
        let (buffer, out) = (vec![0.0; ROWS * columns], vec![0.0; inputs * count]);
        pulp::Arch::new().dispatch(Part { matrix, first, count, columns, input, buffer, out })
    };
    // (inputs, rows of the part) each
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(most)).into_par_iter().map(part).collect();
    let mut out = Vec::with_capacity(inputs * rows);
    for number in 0..inputs {
        for part in &parts {
            let count = part.len() / inputs;
            out.extend_from_slice(&part[number * count..][..count]);
        }
    }
    out
}

/// The outputs of `count` rows of the matrix from the first.
struct Part<'a> {
    matrix: &'a Parameter,
    first: usize,
    count: usize,
    columns: usize,
    /// (inputs, columns)
    input: &'a [f32],
    /// (ROWS, columns)
    buffer: Vec<f32>,
    /// (inputs, count)
    out: Vec<f32>,
}

impl pulp::WithSimd for Part<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Vec<f32> {
        for block in 0..self.input.len().div_ceil(BLOCK * self.columns) {
            let mut row = 0;
            while row < self.count {
                row += if row + ROWS <= self.count {
                    self.rows::<S, ROWS>(simd, row, block)
                } else {
                    self.rows::<S, 1>(simd, row, block)
                };
            }
        }
        self.out
    }
}

impl Part<'_> {
    /// The outputs of `R` rows from `row` for one block of inputs; returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, row: usize, block: usize) -> usize {
        let columns = self.columns;
        for (number, out) in self.buffer.chunks_exact_mut(columns).take(R).enumerate() {
            self.matrix.read_row(self.first + row + number, out);
        }
        let rows: [&[f32]; R] = std::array::from_fn(|number| &self.buffer[number * columns..][..columns]);
        let input = self.input.chunks(BLOCK * columns).nth(block).unwrap_or_default();
        let (tiles, mut number) = (input.chunks_exact(INPUTS * columns), block * BLOCK);
        let rest = tiles.remainder();
        for tile in tiles {
            let inputs: [&[f32]; INPUTS] = std::array::from_fn(|number| &tile[number * columns..][..columns]);
            for sums in dots(simd, rows, inputs) {
                self.out[number * self.count + row..][..R].copy_from_slice(&sums);
                number += 1;
            }
        }
        for input in rest.chunks_exact(columns) {
            let [sums] = dots(simd, rows, [input]);
            self.out[number * self.count + row..][..R].copy_from_slice(&sums);
            number += 1;
        }
        R
    }
}

/// Σ row · input of every pair, all of one length.
#[inline(always)]
fn dots<S: Simd, const R: usize, const N: usize>(simd: S, rows: [&[f32]; R], inputs: [&[f32]; N]) -> [[f32; R]; N] {
    let (rows, inputs) = (rows.map(S::as_simd_f32s), inputs.map(S::as_simd_f32s));
    let vectors = rows.first().map_or(0, |(row, _)| row.len());
    let (row_vectors, input_vectors) =
        (rows.map(|(row, _)| &row[..vectors]), inputs.map(|(input, _)| &input[..vectors]));
    let mut sums = [[simd.splat_f32s(0.0); R]; N];
    for place in 0..vectors {
        for n in 0..N {
            for r in 0..R {
                sums[n][r] = simd.mul_add_f32s(row_vectors[r][place], input_vectors[n][place], sums[n][r]);
            }
        }
    }
    let mut out = [[0.0; R]; N];
    for n in 0..N {
        for r in 0..R {
            out[n][r] = simd.reduce_sum_f32s(sums[n][r]);
            for (weight, input) in rows[r].1.iter().zip(inputs[n].1) {
                out[n][r] += weight * input;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DenseTensor, DenseType};
    use crate::model::device::device;
    use crate::model::matrix::from_rows;
    use crate::model::quantized::QuantizedMatrix;
    use crate::model::scheme::{QuantScheme, SCHEMES};
    use burn::tensor::{Tensor, TensorData};
    use slm_runtime::sample::random_u64;

    fn values(stream: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|index| (random_u64(stream, index) >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// The matrix in every format.
    fn formats([rows, columns]: [usize; 2]) -> Vec<(String, Parameter)> {
        let weights = values(1, rows * columns);
        let dense = |dtype: DenseType| {
            let tensor = DenseTensor::rounded(dtype, vec![rows, columns], &weights);
            (dtype.to_string(), Parameter::Dense(tensor))
        };
        let quantized = |scheme: QuantScheme| {
            let integers = |stream, count, bound: f32| -> Vec<i8> {
                values(stream, count).into_iter().map(|value| (value * bound).round() as i8).collect()
            };
            let (multiplied, groups) = scheme.multiplier_shape((rows, columns));
            let matrix = QuantizedMatrix::new(
                scheme,
                from_rows(integers(4, rows * columns, scheme.def().limits().1), columns),
                values(5, rows),
                integers(6, multiplied * groups, 127.0),
            );
            (scheme.to_string(), Parameter::Quantized(matrix))
        };
        let dense = [DenseType::F32, DenseType::F16, DenseType::Bf16].map(dense);
        dense.into_iter().chain(SCHEMES.map(|def| quantized(def.scheme))).collect()
    }

    fn by_burn(matrix: &Parameter, [rows, columns]: [usize; 2], input: &[f32]) -> Vec<f32> {
        let mut weights = vec![0.0; rows * columns];
        weights.chunks_mut(columns).enumerate().for_each(|(row, out)| matrix.read_row(row, out));
        let tensor = |values: Vec<f32>, columns: usize| {
            let rows = values.len() / columns;
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &device("flex").unwrap())
        };
        let product = tensor(input.to_vec(), columns).matmul(tensor(weights, columns).transpose());
        product.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn every_format_gives_what_burn_gives_for_its_values() {
        for shape @ [rows, columns] in [[1, 1], [3, 5], [4, 16], [7, 31], [64, 64], [129, 576], [301, 200]] {
            for (format, matrix) in formats(shape) {
                for inputs in [1, 2, 3, 4, 5, 9, 63, 64, 65, 131] {
                    let input = values(2, inputs * columns);
                    let (ours, theirs) = (product(&matrix, shape, &input), by_burn(&matrix, shape, &input));
                    assert_eq!(ours.len(), inputs * rows);
                    let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
                    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                        let error = (ours - theirs).abs() / largest;
                        assert!(error < 1e-5, "{format} {shape:?}, {inputs} inputs: {index} differs by {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_and_other_inputs_change_no_bit() {
        let shape @ [rows, columns] = [1030, 203];
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let input = values(3, 70 * columns);
        for (format, matrix) in formats(shape) {
            let single = pool(1).install(|| product(&matrix, shape, &input));
            assert_eq!(pool(2).install(|| product(&matrix, shape, &input)), single, "{format}");
            for (number, input) in input.chunks(columns).enumerate() {
                assert_eq!(product(&matrix, shape, input), single[number * rows..][..rows], "{format}, input {number}");
            }
        }
    }
}
