//! Plain rounding of a matrix: every row on its own, with scales searched to minimise Σ_j h_j (w_j − ŵ_j)², h_j the mean square
//! of input j ([`slm_numerics::rounding::search`]).

use crate::model::matrix::{from_rows, row_major};
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{QuantScheme, SchemeDef};
use ndarray::ArrayView2;
use rayon::prelude::*;
use slm_numerics::rounding::search::{Row, round_row};
use slm_numerics::rounding::{Grid, Scales};
use slm_runtime::layout::MAX_MULTIPLIER;

/// The grid of a scheme that all rows share.
pub(super) fn grid_of(def: &SchemeDef, scales: Scales) -> Grid {
    Grid { limits: def.limits(), group: def.group, most: f32::from(MAX_MULTIPLIER), scales }
}

/// Quantizes a matrix; `importance` (columns) weighs columns, `None` weighs them alike.
///
/// # Panics
/// If the importance is not that of as many columns.
pub fn quantize_matrix(
    weights: ArrayView2<'_, f32>,
    scheme: QuantScheme,
    importance: Option<&[f64]>,
) -> QuantizedMatrix {
    quantize_matrix_on(weights, (scheme, Scales::Any), importance)
}

/// As [`quantize_matrix`], with the row scales that there are.
///
/// # Panics
/// As [`quantize_matrix`].
pub fn quantize_matrix_on(
    weights: ArrayView2<'_, f32>,
    (scheme, scales): (QuantScheme, Scales),
    importance: Option<&[f64]>,
) -> QuantizedMatrix {
    let (rows, columns) = weights.dim();
    let importance = normalised(importance, columns);
    let rounded: Vec<Row> = row_major(weights)
        .par_chunks_exact(columns)
        .enumerate()
        .map(|(index, row)| round_row(row, &importance, grid_of(scheme.of_row(index).def(), scales)))
        .collect();
    let mut values = Vec::with_capacity(rows * columns);
    let (mut row_scale, mut multiplier) = (Vec::with_capacity(rows), Vec::new());
    for row in rounded {
        values.extend(row.integers);
        row_scale.push(row.scale);
        multiplier.extend(row.multipliers);
    }
    QuantizedMatrix::new(scheme, from_rows(values, columns), row_scale, multiplier)
}

/// Importance with mean 1, and a floor: a channel the calibration never saw still has weights worth keeping.
fn normalised(importance: Option<&[f64]>, columns: usize) -> Vec<f32> {
    let Some(importance) = importance else { return vec![1.0; columns] };
    assert_eq!(importance.len(), columns);
    let mean = importance.iter().sum::<f64>() / columns as f64;
    if !(mean.is_finite() && mean > 0.0) {
        return vec![1.0; columns];
    }
    importance.iter().map(|value| (value / mean).max(1e-4) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matrix::view_rows;
    use crate::model::scheme::SCHEMES;
    use ndarray::Array2;
    use proptest::prelude::*;
    use slm_runtime::sample::random_u64;

    /// Sums of uniform draws: bell-shaped weights.
    fn bell(seed: u64, rows: usize, columns: usize) -> Array2<f32> {
        let unit = |n: u64| (random_u64(seed, n) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let draw = |n: u64| (0..6).map(|k| unit(n * 6 + k)).sum();
        Array2::from_shape_fn((rows, columns), |(row, column)| draw((row * columns + column) as u64))
    }

    fn relative_error(weights: &Array2<f32>, matrix: &QuantizedMatrix) -> f64 {
        let miss = weights.iter().zip(matrix.dequantize()).map(|(w, q)| f64::from(w - q).powi(2)).sum::<f64>();
        miss / weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()
    }

    #[test]
    fn rows_of_a_split_are_those_of_their_schemes() {
        let (rows, columns, split) = (75, 70, QuantScheme::Split { wide_rows: 64 });
        let weights = bell(3, rows, columns);
        let in_scheme = |scheme| quantize_matrix(weights.view(), scheme, None);
        let part = |rows, scheme| in_scheme(scheme).part(rows, scheme);
        let matrix = in_scheme(split);
        assert_eq!(matrix, QuantizedMatrix::of_parts(split, (rows, columns), part));
    }

    #[test]
    fn errors_are_those_of_the_formats() {
        let weights = bell(1, 64, 256);
        let bytes = quantize_matrix(weights.view(), QuantScheme::W8, None);
        let nibbles = quantize_matrix(weights.view(), QuantScheme::W4G32, None);
        assert!(relative_error(&weights, &bytes) < 6e-5, "{}", relative_error(&weights, &bytes));
        assert!(relative_error(&weights, &nibbles) < 6.6e-3, "{}", relative_error(&weights, &nibbles));
        // Wider groups and fewer bits cost more, in this order.
        let [wide, three] = [QuantScheme::W4G64, QuantScheme::W3G32]
            .map(|scheme| relative_error(&weights, &quantize_matrix(weights.view(), scheme, None)));
        assert!((6.6e-3..9e-3).contains(&wide) && (2.2e-2..3.2e-2).contains(&three), "{wide} {three}");
    }

    #[test]
    fn importance_moves_error_to_where_it_costs_less() {
        let weights = bell(2, 32, 64);
        let importance: Vec<f64> = (0..64).map(|n| if n % 2 == 0 { 25.0 } else { 0.04 }).collect();
        let cost = |matrix: &QuantizedMatrix| -> f64 {
            let errors = weights.iter().zip(matrix.dequantize()).enumerate();
            errors.map(|(n, (w, q))| importance[n % 64] * f64::from(w - q).powi(2)).sum()
        };
        let plain = quantize_matrix(weights.view(), QuantScheme::W4G32, None);
        let weighted = quantize_matrix(weights.view(), QuantScheme::W4G32, Some(&importance));
        assert!(cost(&weighted) < 0.85 * cost(&plain), "{} {}", cost(&weighted), cost(&plain));
    }

    proptest! {
        #[test]
        fn integers_stay_in_range_whatever_the_weights(
            row in proptest::collection::vec(-1e30f32..1e30, 1..100),
            tiny: bool,
        ) {
            let row: Vec<f32> = if tiny { row.iter().map(|w| w * 1e-38 * 1e-32).collect() } else { row };
            for SchemeDef { scheme, range: (low, high), .. } in SCHEMES {
                let matrix = quantize_matrix(view_rows(&row, row.len()), scheme, None);
                prop_assert!(matrix.values.iter().all(|value| (low..=high).contains(value)));
                prop_assert!(matrix.multiplier.iter().all(|m| *m != 0 && *m != -128));
                prop_assert!(matrix.row_scale[0].is_finite() && matrix.row_scale[0] >= 0.0);
                prop_assert_eq!(matrix.multiplier.len(), matrix.multiplied_rows() * matrix.groups());
            }
        }
    }
}
