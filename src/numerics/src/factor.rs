//! Cholesky factors of symmetric positive definite matrices in f64, A = L Lᵀ, and the inverse of L. Both work by blocks of
//! 128 columns, whose products with the rest are those of [`product`](crate::product): so the bits depend neither on
//! threads nor on the width of vectors. Matrices are row-major.
//!
//! Block b of the factorization: A_bb = L_bb L_bbᵀ row by row; L_b = A_b L_bb⁻ᵀ below it; the rest loses L_b L_bᵀ. The
//! inverse halves: that of [A 0; B C] is [A⁻¹ 0; −C⁻¹ B A⁻¹  C⁻¹].

use crate::lanes::vectorised;
use crate::product::{Left, Matrix, Output, Right, multiply};
use crate::scratch::Scratch;

/// Columns factorized at a time.
const BLOCK: usize = 128;
/// Columns of the rest that are updated at a time, so that little is computed above the diagonal.
const STRIP: usize = 512;
/// Lanes of a sum.
const LANES: usize = 8;

/// The factor of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// L, (columns, columns), zero above the diagonal.
    lower: Vec<f64>,
    columns: usize,
}

impl Factor {
    /// Factorizes a symmetric matrix, of which the lower triangle is read; `None` where it is not positive definite.
    ///
    /// # Panics
    /// If the matrix is not square.
    pub fn new(mut matrix: Vec<f64>, columns: usize) -> Option<Self> {
        assert_eq!(matrix.len(), columns * columns, "a matrix of {columns} columns");
        for first in (0..columns).step_by(BLOCK) {
            let width = BLOCK.min(columns - first);
            let from = first * columns + first;
            if !vectorised(
                #[inline(always)]
                || factorize(&mut matrix[from..], columns, width),
            ) {
                return None;
            }
            let rows = columns - first - width;
            if rows > 0 {
                let mut inverse = Scratch::take(width * width);
                vectorised(
                    #[inline(always)]
                    || invert(&matrix[from..], columns, width, inverse.values(), width),
                );
                let mut panel = Scratch::take(rows * width);
                let below = Matrix::strided(&matrix[(first + width) * columns..], columns, rows).columns(first, width);
                let inverse = Matrix::new(&*inverse.values(), width);
                multiply(Output::over(panel.values(), width), Left::Rows(below), Right::Columns(inverse));
                update(&mut matrix, panel.values(), [first, width, columns]);
            }
        }
        for row in 0..columns {
            matrix[row * columns + row + 1..(row + 1) * columns].fill(0.0);
        }
        Some(Factor { lower: matrix, columns })
    }

    /// L, (columns, columns), zero above the diagonal.
    pub fn lower(&self) -> &[f64] {
        &self.lower
    }

    /// L⁻¹, (columns, columns), zero above the diagonal.
    pub fn inverse(&self) -> Vec<f64> {
        let mut inverse = vec![0.0; self.lower.len()];
        halves(&self.lower, &mut inverse, [0, self.columns], self.columns);
        inverse
    }

    /// Solves A x = b in place.
    ///
    /// # Panics
    /// If b has another length.
    pub fn solve(&self, b: &mut [f64]) {
        let columns = self.columns;
        assert_eq!(b.len(), columns);
        let row = |index: usize| &self.lower[index * columns..][..=index];
        for index in 0..columns {
            let (solved, rest) = b.split_at_mut(index);
            let row = row(index);
            rest[0] = (rest[0] - dot(&row[..index], solved)) / row[index];
        }
        for index in (0..columns).rev() {
            let (rest, solved) = b.split_at_mut(index);
            let row = row(index);
            solved[0] /= row[index];
            rest.iter_mut().zip(row).for_each(|(rest, own)| *rest = own.mul_add(-solved[0], *rest));
        }
    }
}

/// Solves A xᵀ = bᵀ for every row of `rows`, (rows, columns), in place: b A⁻¹ = (b L⁻ᵀ) L⁻¹. `inverse` is L⁻¹.
///
/// # Panics
/// If the rows are not whole.
pub fn solve_rows(inverse: &[f64], rows: &mut [f64]) {
    let columns = inverse.len().isqrt();
    assert_eq!([inverse.len() % columns.max(1), rows.len() % columns.max(1)], [0, 0]);
    let mut half = Scratch::take(rows.len());
    let half = half.values();
    // Strip by strip of the outputs; the triangle says which of the inputs they have.
    for strip in (0..columns).step_by(STRIP) {
        let end = columns.min(strip + STRIP);
        let left = Matrix::new(&*rows, columns).columns(0, end);
        let right = Matrix::new(&inverse[strip * columns..end * columns], columns).columns(0, end);
        multiply(Output::over(half, columns).at(strip), Left::Rows(left), Right::Columns(right));
    }
    for strip in (0..columns).step_by(STRIP) {
        let (width, depth) = (STRIP.min(columns - strip), columns - strip);
        let left = Matrix::new(&*half, columns).columns(strip, depth);
        let right = Matrix::strided(&inverse[strip * columns..], columns, depth).columns(strip, width);
        multiply(Output::over(rows, columns).at(strip), Left::Rows(left), Right::Rows(right));
    }
}

/// Σ a · b, value i in lane i mod 8, the lanes added as a tree.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = a.mul_add(*b, *lane);
    }
    for half in [4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// L of the leading `width` columns and rows, in place; whether there is one.
#[inline(always)]
fn factorize(matrix: &mut [f64], stride: usize, width: usize) -> bool {
    for row in 0..width {
        let (above, own) = matrix.split_at_mut(row * stride);
        let own = &mut own[..=row];
        for column in 0..row {
            let of_column = &above[column * stride..][..=column];
            own[column] = (own[column] - dot(&own[..column], &of_column[..column])) / of_column[column];
        }
        let square = own[row] - dot(&own[..row], &own[..row]);
        if !(square > 0.0 && square.is_finite()) {
            return false;
        }
        own[row] = square.sqrt();
    }
    true
}

/// The inverse of the lower triangle of the leading `width` columns and rows, row by row: x_i = (e_i − Σ l_ik x_k) / l_ii.
#[inline(always)]
fn invert(lower: &[f64], stride: usize, width: usize, inverse: &mut [f64], out_stride: usize) {
    for row in 0..width {
        let (above, own) = inverse.split_at_mut(row * out_stride);
        let own = &mut own[..width];
        own.fill(0.0);
        let of_row = &lower[row * stride..][..=row];
        for (k, factor) in of_row[..row].iter().enumerate() {
            let other = &above[k * out_stride..][..=k];
            own.iter_mut().zip(other).for_each(|(own, other)| *own = factor.mul_add(*other, *own));
        }
        let scale = -1.0 / of_row[row];
        own[..row].iter_mut().for_each(|own| *own *= scale);
        own[row] = 1.0 / of_row[row];
    }
}

/// Writes the panel L_b where it belongs, and takes L_b L_bᵀ from the lower triangle after it.
fn update(matrix: &mut [f64], panel: &[f64], [first, width, columns]: [usize; 3]) {
    let after = first + width;
    let mut negative = Scratch::take(panel.len());
    negative.values().iter_mut().zip(panel).for_each(|(negative, value)| *negative = -value);
    for (row, values) in panel.chunks_exact(width).enumerate() {
        matrix[(after + row) * columns + first..][..width].copy_from_slice(values);
    }
    for strip in (after..columns).step_by(STRIP) {
        let (from, strip_width) = ((strip - after) * width, STRIP.min(columns - strip));
        let left = Left::Rows(Matrix::new(&negative.values()[from..], width));
        let right = Right::Columns(Matrix::new(&panel[from..from + strip_width * width], width));
        multiply(Output::onto(&mut matrix[strip * columns..], columns).at(strip), left, right);
    }
}

/// The inverse of the triangle from `first` of `count` columns.
fn halves(lower: &[f64], inverse: &mut [f64], [first, count]: [usize; 2], columns: usize) {
    if count <= BLOCK {
        let from = first * columns + first;
        vectorised(
            #[inline(always)]
            || invert(&lower[from..], columns, count, &mut inverse[from..], columns),
        );
        return;
    }
    let half = (count / 2).next_multiple_of(BLOCK);
    let (second, rest) = (first + half, count - half);
    halves(lower, inverse, [first, half], columns);
    halves(lower, inverse, [second, rest], columns);
    // B A⁻¹, strip by strip of the columns of A⁻¹, which is zero above the strip.
    let mut product = Scratch::take(rest * half);
    for strip in (0..half).step_by(STRIP) {
        let (width, depth) = (STRIP.min(half - strip), half - strip);
        let left = Matrix::strided(&lower[second * columns..], columns, rest).columns(first + strip, depth);
        let right =
            Matrix::strided(&inverse[(first + strip) * columns..], columns, depth).columns(first + strip, width);
        multiply(Output::over(product.values(), half).at(strip), Left::Rows(left), Right::Rows(right));
    }
    // −C⁻¹ of it, strip by strip of the rows of C⁻¹, which is zero after the strip.
    product.values().iter_mut().for_each(|value| *value = -*value);
    let mut out = Scratch::take(rest * half);
    for strip in (0..rest).step_by(STRIP) {
        let rows = STRIP.min(rest - strip);
        let left = Matrix::strided(&inverse[(second + strip) * columns..], columns, rows).columns(second, strip + rows);
        let right = Matrix::new(&product.values()[..(strip + rows) * half], half);
        multiply(Output::over(&mut out.values()[strip * half..], half), Left::Rows(left), Right::Rows(right));
    }
    for (row, values) in out.values().chunks_exact(half).enumerate() {
        inverse[(second + row) * columns + first..][..half].copy_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::sample::random_u64;

    /// X Xᵀ / columns + I / 10 for X of twice as many columns.
    fn definite(columns: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..2 * columns * columns)
            .map(|n| (random_u64(columns as u64, n as u64) >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
            .collect();
        let row = |index: usize| &x[index * 2 * columns..][..2 * columns];
        let product = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>();
        let value = |i, j| product(i, j) / columns as f64 + if i == j { 0.1 } else { 0.0 };
        (0..columns * columns).map(|n| value(n / columns, n % columns)).collect()
    }

    #[test]
    fn the_factor_squares_to_the_matrix_and_its_inverse_is_one() {
        for columns in [1, 2, 37, 128, 129, 300, 700] {
            let matrix = definite(columns);
            let factor = Factor::new(matrix.clone(), columns).expect("positive definite");
            let inverse = factor.inverse();
            let mut x: Vec<f64> = (0..columns).map(|n| n as f64 / columns as f64 - 0.3).collect();
            let b: Vec<f64> = matrix.chunks(columns).map(|row| dot(row, &x)).collect();
            let wanted = x.clone();
            x.copy_from_slice(&b);
            factor.solve(&mut x);
            assert!(x.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{columns}");
            let mut rows = [b.clone(), b].concat();
            solve_rows(&inverse, &mut rows);
            assert!(rows.iter().zip(wanted.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-9), "{columns}");
            // A sample of the elements of L Lᵀ and of L L⁻¹.
            for n in 0..2000.min(columns * columns) {
                let n = (random_u64(1, n as u64) % (columns * columns) as u64) as usize;
                let (i, j) = (n / columns, n % columns);
                let row = |index: usize| &factor.lower()[index * columns..][..columns];
                assert!((dot(row(i), row(j)) - matrix[n]).abs() < 1e-11, "{columns}: {i} {j}");
                let one: f64 = (0..columns).map(|k| row(i)[k] * inverse[k * columns + j]).sum();
                assert!((one - f64::from(u8::from(i == j))).abs() < 1e-11, "{columns}: {i} {j}");
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| Factor::new(definite(530), 530).map(|factor| (factor.inverse(), factor)))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        assert_eq!(Factor::new(vec![1.0, 9.0, 9.0, 1.0], 2), None);
        assert_eq!(Factor::new(vec![f64::NAN], 1), None);
        let mut matrix = definite(300);
        matrix[290 * 301] = -1.0;
        assert_eq!(Factor::new(matrix, 300), None);
    }
}
