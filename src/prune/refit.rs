//! The weights of least error on a given support, row by row: with t the target row, S the columns that stay and H the
//! damped Gram matrix of the inputs, the minimum of (w − t) H (w − t)ᵀ over rows that are zero outside S is w_S =
//! H_SS⁻¹ (H t)_S. One Cholesky factorization a row, since every row has a support of its own.

use crate::model::matrix::row_major;
use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;
use slm_numerics::factor::Factor;

/// Refits a matrix to `target`; `keep` says which weights stay, (rows, columns) as both, `gram` is H without damping
/// and `added` goes to its diagonal. A row whose system has no factor keeps its weights, and is counted.
///
/// # Panics
/// If the shapes do not match.
pub fn refit(
    pruned: ArrayView2<'_, f32>,
    target: ArrayView2<'_, f32>,
    keep: ArrayView2<'_, bool>,
    gram: ArrayView2<'_, f64>,
    added: f64,
) -> (Array2<f32>, usize) {
    let columns = keep.ncols();
    assert_eq!((pruned.dim(), target.dim(), gram.dim()), (keep.dim(), keep.dim(), (columns, columns)));
    let gram = row_major(gram);
    let rows: Vec<Option<Vec<f32>>> = row_major(target)
        .par_chunks_exact(columns)
        .zip(row_major(keep).par_chunks_exact(columns))
        .map(|(target, keep)| refit_row(target, keep, gram, added))
        .collect();
    let failed = rows.iter().filter(|row| row.is_none()).count();
    let mut refitted = pruned.to_owned();
    for (mut row, solved) in refitted.rows_mut().into_iter().zip(rows) {
        if let Some(solved) = solved {
            row.assign(&ArrayView1::from(&solved));
        }
    }
    (refitted, failed)
}

fn refit_row(target: &[f32], keep: &[bool], gram: &[f64], added: f64) -> Option<Vec<f32>> {
    let columns = target.len();
    let support: Vec<usize> = (0..columns).filter(|&column| keep[column]).collect();
    let mut system = Vec::with_capacity(support.len() * support.len());
    let mut solved = Vec::with_capacity(support.len());
    for (place, &column) in support.iter().enumerate() {
        let of_row = &gram[column * columns..][..columns];
        system.extend(support.iter().map(|&other| of_row[other]));
        system[place * (support.len() + 1)] += added;
        let product: f64 = of_row.iter().zip(target).map(|(h, t)| h * f64::from(*t)).sum();
        solved.push(product + added * f64::from(target[column]));
    }
    Factor::new(system, support.len())?.solve(&mut solved);
    let mut row = vec![0.0f32; columns];
    for (place, &column) in support.iter().enumerate() {
        row[column] = solved[place] as f32;
    }
    row.iter().all(|weight| weight.is_finite()).then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::testing::{correlated, error, random};
    use ndarray::array;

    #[test]
    fn no_other_weights_on_the_support_do_better() {
        let (rows, columns) = (6, 32);
        let gram = correlated(columns, 300);
        let weights = random(4, rows, columns);
        let keep = Array2::from_shape_fn((rows, columns), |(_, column)| column % 4 < 2);
        let zeroed = ndarray::Zip::from(&weights).and(&keep).map_collect(|w, keep| if *keep { *w } else { 0.0 });
        let (refitted, failed) = refit(zeroed.view(), weights.view(), keep.view(), gram.view(), 0.0);
        assert_eq!(failed, 0);
        assert!(refitted.iter().zip(&keep).all(|(weight, keep)| *keep || *weight == 0.0));
        let least = error(&weights, &refitted, &gram);
        assert!(least < 0.7 * error(&weights, &zeroed, &gram));
        for at in keep.indexed_iter().filter(|(_, keep)| **keep).map(|(at, _)| at) {
            for step in [-1e-2, 1e-2] {
                let mut moved = refitted.clone();
                moved[at] += step;
                assert!(error(&weights, &moved, &gram) > least);
            }
        }
        // A full support gives the target back.
        let all = Array2::from_elem((rows, columns), true);
        let (same, _) = refit(weights.view(), weights.view(), all.view(), gram.view(), 1e-3);
        assert!(same.iter().zip(&weights).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_row_without_a_factor_stays_and_is_counted() {
        let (gram, weights) = (array![[1.0, 9.0], [9.0, 1.0]], array![[1.0, 2.0]]);
        let (kept, failed) = refit(weights.view(), weights.view(), array![[true, true]].view(), gram.view(), 0.0);
        assert_eq!((kept, failed), (weights, 1));
    }
}
