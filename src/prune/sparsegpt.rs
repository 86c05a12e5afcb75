//! SparseGPT masks (Frantar and Alistarh 2023) for any N:M. With H⁻¹ = Uᵀ U of the inputs' damped Gram matrix, columns
//! are processed from left to right, a group of M at a time. In a group the N weights of largest w_j² / U_jj² stay, w
//! as updated so far: the error of removing the weight when all later columns compensate for it. A removed weight is
//! compensated by all columns after it, w_k −= (w_j / U_jj) · U_jk.

use crate::model::matrix::{from_rows, row_major};
use crate::model::transform::NmPattern;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Which weights stay, and the weights after all updates with zeros where they do not; (rows, columns) each.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// True where a weight stays.
    pub keep: Array2<bool>,
    /// Zero elsewhere.
    pub weights: Array2<f32>,
}

/// Prunes a matrix; `upper` is U, (columns, columns).
///
/// # Panics
/// If the shapes do not match, or the pattern does not divide the columns.
pub fn prune(weights: ArrayView2<'_, f32>, pattern: NmPattern, upper: ArrayView2<'_, f32>) -> Pruned {
    let columns = weights.ncols();
    assert_eq!(upper.dim(), (columns, columns));
    assert!(columns.is_multiple_of(pattern.of()));
    let (values, upper) = (row_major(weights), row_major(upper));
    let rows: Vec<(Vec<bool>, Vec<f32>)> =
        values.par_chunks_exact(columns).map(|row| prune_row(row.to_vec(), pattern, upper)).collect();
    let (mut keep, mut pruned) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    for (of_row, row) in rows {
        keep.extend(of_row);
        pruned.extend(row);
    }
    Pruned { keep: from_rows(keep, columns), weights: from_rows(pruned, columns) }
}

fn prune_row(mut row: Vec<f32>, pattern: NmPattern, upper: &[f32]) -> (Vec<bool>, Vec<f32>) {
    let columns = row.len();
    let mut keep = vec![true; columns];
    let mut order: Vec<usize> = Vec::with_capacity(pattern.of());
    for first in (0..columns).step_by(pattern.of()) {
        let diagonal = |column: usize| upper[column * (columns + 1)];
        let saliency = |column: usize| (row[column] / diagonal(column)).abs();
        order.clear();
        order.extend(first..first + pattern.of());
        // The sort is stable: among equals the first column stays.
        order.sort_by(|a, b| saliency(*b).total_cmp(&saliency(*a)));
        order[pattern.keep()..].iter().for_each(|&column| keep[column] = false);
        for column in first..first + pattern.of() {
            if keep[column] {
                continue;
            }
            let error = row[column] / diagonal(column);
            let factors = &upper[column * columns..(column + 1) * columns];
            for (weight, factor) in row[column + 1..].iter_mut().zip(&factors[column + 1..]) {
                *weight -= error * factor;
            }
            row[column] = 0.0;
        }
    }
    // Columns decided before are zero still, but for updates from their own group.
    row.iter_mut().zip(&keep).filter(|(_, keep)| !**keep).for_each(|(weight, _)| *weight = 0.0);
    (keep, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::linear_algebra::InverseFactor;
    use crate::prune::testing::{correlated, error, random};
    use ndarray::array;

    #[test]
    fn it_loses_less_of_the_output_than_the_largest_weights_do() {
        let (rows, columns) = (24, 64);
        let gram = correlated(columns, 600);
        let weights = random(2, rows, columns);
        let order: Vec<usize> = (0..columns).collect();
        let upper = InverseFactor::new(gram.view(), &order).expect("positive definite").upper();
        for pattern in ["2:4", "1:4", "4:8", "5:16"] {
            let pattern: NmPattern = pattern.parse().expect("a pattern");
            let pruned = prune(weights.view(), pattern, upper.view());
            let id = crate::model::id::LinearId::layer(0, crate::model::id::Role::Up);
            pattern.check(id, pruned.weights.view()).expect("it satisfies the pattern");
            let scores = weights.mapv(f32::abs);
            let mask = crate::model::transform::Mask::of_largest(id, pattern, scores.view()).expect("it divides");
            let mut largest = weights.clone();
            mask.apply(&mut largest).expect("as long");
            let (ours, theirs) = (error(&weights, &pruned.weights, &gram), error(&weights, &largest, &gram));
            assert!(ours < 0.75 * theirs, "{pattern}: {ours} {theirs}");
        }
    }

    #[test]
    fn without_correlation_the_largest_weights_stay_and_nothing_moves() {
        let weights = array![[1.0, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, -6.0]];
        let pruned = prune(weights.view(), NmPattern::TWO_OF_FOUR, Array2::eye(8).view());
        assert_eq!(pruned.weights, array![[0.0, -4.0, 3.0, 0.0, 5.0, 0.0, 0.0, -6.0]]);
        assert_eq!(pruned.keep, array![[false, true, true, false, true, false, false, true]]);
    }
}
