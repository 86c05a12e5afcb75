//! Rounding with the second moments of the inputs (GPTQ, Frantar et al. 2023): the matrix Q on the format's grid that
//! makes tr(E H Eᵀ) small, E = W − Q, H = G + λ I. Scales are those that [`super::search`] finds for contiguous
//! groups, so the order of columns is free: they are rounded in the order of falling H_jj, and the error of each is made
//! up for by the columns not yet rounded, w_k −= (w_j − q_j) · U_jk / U_jj with H⁻¹ = Uᵀ U. Then, as long as the weighted
//! error falls, row scale, multipliers and single integers move to where H has its minimum along them (coordinate
//! descent; CDQuant 2024). Of all results a row takes the best, plain rounding included.
//!
//! Rows are independent and run in blocks that share every row of U and H that they load. Nothing depends on the number
//! of threads.

mod descend;

use super::search;
use super::vector::{add, nearest, wide};
use crate::calibrate::linear_algebra::{NoFactor, inverse_factor};
use crate::calibrate::moments::Moments;
use crate::model::matrix::into_values;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{QuantScheme, SPLIT_ROWS};
use descend::descend;
use pulp::NullaryFnOnce;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that share what is loaded of U and H.
const BLOCK: usize = 16;
/// Rounds of refitting scales and moving integers.
const ROUNDS: usize = 4;

/// What the inputs of a group of matrices say about rounding them.
#[derive(Clone, Debug)]
pub struct Hessian {
    columns: usize,
    /// H with mean diagonal 1, (columns, columns).
    gram: Vec<f32>,
    /// U in the order of rounding.
    upper: Vec<f32>,
    /// Columns by falling H_jj.
    order: Vec<usize>,
    /// Mean square of every input.
    pub importance: Vec<f64>,
    /// λ / mean(diag G).
    pub damping: f64,
    /// Inputs that were never other than zero.
    pub dead: usize,
    /// Squared error that 8-bit inputs put on every channel, in the unit of `gram`.
    rounding: f64,
    /// The channel of the largest inputs.
    pub loudest: usize,
}

impl Hessian {
    /// From the moments of an input.
    ///
    /// # Errors
    /// [`NoFactor`].
    pub fn new(moments: &Moments) -> Result<Self, NoFactor> {
        let columns = moments.columns();
        let diagonal: Vec<f64> = moments.gram.diag().to_vec();
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]).then(a.cmp(b)));
        let factor = inverse_factor(moments.gram.view(), &order)?;
        let mean = diagonal.iter().sum::<f64>() / columns as f64;
        let mut gram: Vec<f32> = moments.gram.iter().map(|value| (value / mean) as f32).collect();
        for (j, value) in diagonal.iter().enumerate() {
            let own = if *value > 0.0 { value / mean } else { 1.0 };
            gram[j * (columns + 1)] = (own + factor.damping) as f32;
        }
        Ok(Hessian {
            columns,
            gram,
            upper: into_values(factor.upper),
            importance: moments.mean_square(),
            damping: factor.damping,
            dead: factor.dead.len(),
            rounding: moments.rounding / mean,
            loudest: order[0],
            order,
        })
    }

    /// tr(E H Eᵀ) / tr(W H Wᵀ).
    pub fn relative_error(&self, weights: &[f32], matrix: &QuantizedMatrix) -> f64 {
        let miss: Vec<f32> = weights.iter().zip(matrix.dequantize()).map(|(w, q)| w - q).collect();
        let size = self.energy(weights);
        if size > 0.0 { self.energy(&miss) / size } else { 0.0 }
    }

    /// Squared error of the outputs by rounding inputs to 8 bits, as a share of the outputs.
    pub fn activation_error(&self, weights: &[f32]) -> f64 {
        let size = self.energy(weights);
        let squares: f64 = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum();
        if size > 0.0 { self.rounding * squares / size } else { 0.0 }
    }

    /// tr(E H Eᵀ) of (rows, columns).
    fn energy(&self, rows: &[f32]) -> f64 {
        let blocks = rows.par_chunks(BLOCK * self.columns).map(|block| {
            let products = self.products(block);
            block.iter().zip(&products).map(|(e, g)| f64::from(e * g)).sum::<f64>()
        });
        // Summed in order, so that the result does not depend on threads.
        blocks.collect::<Vec<f64>>().iter().sum()
    }

    /// E H of a block of rows.
    fn products(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0f32; rows.len()];
        wide(AddProducts { rows, gram: &self.gram, columns: self.columns, out: &mut out });
        out
    }
}

/// Adds E G to `out`.
struct AddProducts<'w> {
    /// E, (rows, columns)
    rows: &'w [f32],
    /// G, (columns, columns)
    gram: &'w [f32],
    columns: usize,
    /// (rows, columns)
    out: &'w mut [f32],
}

impl NullaryFnOnce for AddProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let AddProducts { rows, gram, columns, out } = self;
        for (j, of_column) in gram.chunks_exact(columns).enumerate() {
            for (row, out) in rows.chunks_exact(columns).zip(out.chunks_exact_mut(columns)) {
                add(out, row[j], of_column);
            }
        }
    }
}

/// A rounded matrix and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// The integers.
    pub matrix: QuantizedMatrix,
    /// tr(E H Eᵀ) / tr(W H Wᵀ).
    pub error: f64,
    /// The same of plain rounding.
    pub plain_error: f64,
    /// Rows for which plain rounding was better, and stayed.
    pub plain_rows: usize,
}

/// Rounds a matrix, (rows, columns) row-major, to a scheme. Where `held` is true, the result is 0.
///
/// # Panics
/// If the lengths do not match.
pub fn quantize_matrix(
    weights: &[f32],
    rows: usize,
    scheme: QuantScheme,
    hessian: &Hessian,
    held: Option<&[bool]>,
) -> Rounded {
    let columns = hessian.columns;
    assert_eq!(weights.len(), rows * columns);
    assert!(held.is_none_or(|held| held.len() == weights.len()));
    let masked;
    let searched = match held {
        None => weights,
        Some(held) => {
            masked = weights.iter().zip(held).map(|(w, held)| if *held { 0.0 } else { *w }).collect::<Vec<f32>>();
            &masked
        }
    };
    let plain = search::quantize_matrix(searched, rows, columns, scheme, Some(&hessian.importance));
    let block = BLOCK * columns;
    let blocks: Vec<Vec<Row>> = weights
        .par_chunks(block)
        .enumerate()
        .map(|(index, weights)| {
            let first = index * BLOCK;
            let held = held.map(|held| &held[first * columns..][..weights.len()]);
            round_block(weights, first, &plain, hessian, held)
        })
        .collect();
    let mut matrix = QuantizedMatrix { values: Vec::new(), row_scale: Vec::new(), multiplier: Vec::new(), ..plain };
    let (mut error, mut plain_error, mut plain_rows) = (0.0, 0.0, 0);
    for row in blocks.into_iter().flatten() {
        matrix.values.extend(row.values.iter().map(|value| *value as i8));
        matrix.row_scale.push(row.scale);
        matrix.multiplier.extend(row.multipliers.iter().map(|multiplier| *multiplier as i8));
        error += row.error;
        plain_error += row.plain_error;
        plain_rows += usize::from(row.plain);
    }
    let size = hessian.energy(weights);
    let share = |error: f64| if size > 0.0 { error / size } else { 0.0 };
    Rounded { matrix, error: share(error), plain_error: share(plain_error), plain_rows }
}

/// One row on the grid. Integers are held as f32, which is exact.
#[derive(Clone)]
struct Row {
    scale: f32,
    /// By group of columns; none for a scheme without multipliers.
    multipliers: Vec<f32>,
    /// Base 2 logarithm of the columns of a group.
    group_shift: u32,
    values: Vec<f32>,
    /// E H Eᵀ.
    error: f64,
    plain_error: f64,
    /// Whether it is the plain rounding.
    plain: bool,
}

impl Row {
    fn of(matrix: &QuantizedMatrix, row: usize) -> Self {
        let columns = matrix.columns;
        Row {
            scale: matrix.row_scale[row],
            multipliers: matrix.multipliers(row).iter().map(|m| f32::from(*m)).collect(),
            group_shift: matrix.scheme.def().group.map_or(0, usize::trailing_zeros),
            values: matrix.values[row * columns..][..columns].iter().map(|v| f32::from(*v)).collect(),
            error: 0.0,
            plain_error: 0.0,
            plain: true,
        }
    }

    /// Distance of neighbouring weights at a column.
    #[inline(always)]
    fn step(&self, column: usize) -> f32 {
        self.multipliers.get(column >> self.group_shift).map_or(self.scale, |multiplier| self.scale * multiplier)
    }

    /// The columns of a group, of so many in all.
    fn columns_of(&self, group: usize, columns: usize) -> Range<usize> {
        group << self.group_shift..((group + 1) << self.group_shift).min(columns)
    }

    fn weights(&self) -> impl Iterator<Item = f32> {
        self.values.iter().enumerate().map(|(column, value)| self.step(column) * value)
    }
}

fn round_block(
    weights: &[f32],
    first: usize,
    plain: &QuantizedMatrix,
    hessian: &Hessian,
    held: Option<&[bool]>,
) -> Vec<Row> {
    let columns = hessian.columns;
    let count = weights.len() / columns;
    const { assert!(SPLIT_ROWS.is_multiple_of(BLOCK as u32), "parts of a matrix begin with a block") };
    let range = plain.scheme.limits(first);
    let mut best: Vec<Row> = (first..first + count).map(|row| Row::of(plain, row)).collect();
    let measured = errors(weights, &best, hessian);
    for (row, error) in best.iter_mut().zip(measured) {
        (row.error, row.plain_error) = (error, error);
    }
    let mut rows = best.clone();
    for _ in 0..ROUNDS {
        make_up(weights, &mut rows, hessian, held, range);
        descend(weights, &mut rows, hessian, held, range);
        let mut fell = false;
        for (best, row) in best.iter_mut().zip(&rows) {
            if row.error.is_finite() && row.error < best.error {
                fell |= row.error < 0.999 * best.error;
                *best = Row { plain: false, plain_error: best.plain_error, ..row.clone() };
            }
        }
        if !fell {
            break;
        }
    }
    best
}

/// E H Eᵀ by row.
fn errors(weights: &[f32], rows: &[Row], hessian: &Hessian) -> Vec<f64> {
    let columns = hessian.columns;
    let miss: Vec<f32> = weights.iter().zip(rows.iter().flat_map(Row::weights)).map(|(w, q)| w - q).collect();
    let products = hessian.products(&miss);
    let pairs = miss.chunks_exact(columns).zip(products.chunks_exact(columns));
    pairs.map(|(e, g)| e.iter().zip(g).map(|(e, g)| f64::from(e * g)).sum()).collect()
}

/// Rounds the columns in order on the scales of `rows`, each error made up for by the columns after it.
fn make_up(weights: &[f32], rows: &mut [Row], hessian: &Hessian, held: Option<&[bool]>, bounds: (f32, f32)) {
    let columns = hessian.columns;
    // Columns in the order of rounding.
    let mut left: Vec<f32> =
        weights.chunks_exact(columns).flat_map(|row| hessian.order.iter().map(|column| row[*column])).collect();
    wide(Left { rows, left: &mut left, hessian, held, bounds });
}

/// What [`make_up`] works on.
struct Left<'w> {
    rows: &'w mut [Row],
    /// (rows, columns) in the order of rounding: the weights with what is made up for.
    left: &'w mut [f32],
    hessian: &'w Hessian,
    held: Option<&'w [bool]>,
    bounds: (f32, f32),
}

impl NullaryFnOnce for Left<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Left { rows, left, hessian, held, bounds: (low, high) } = self;
        let columns = hessian.columns;
        for (place, &column) in hessian.order.iter().enumerate() {
            let upper = &hessian.upper[place * columns..][..columns];
            let inverse = 1.0 / upper[place];
            for (n, (row, left)) in rows.iter_mut().zip(left.chunks_exact_mut(columns)).enumerate() {
                let (step, weight) = (row.step(column), left[place]);
                let zero = step == 0.0 || held.is_some_and(|held| held[n * columns + column]);
                let value = if zero { 0.0 } else { nearest(weight / step, low, high) };
                row.values[column] = value;
                let error = (weight - step * value) * inverse;
                add(&mut left[place + 1..], -error, &upper[place + 1..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scheme::SCHEMES;
    use slm_runtime::sample::random_u64;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|n| (random_u64(seed, n) >> 40) as f32 / (1 << 24) as f32 - 0.5).collect()
    }

    /// Moments of inputs whose neighbouring channels move together.
    fn moments(columns: usize, tokens: usize) -> Moments {
        let noise = random(9, tokens * (columns + 3));
        let mut moments = Moments::new(columns, false);
        for token in noise.chunks_exact(columns + 3) {
            let x: Vec<f64> = (0..columns).map(|j| token[j..j + 4].iter().map(|v| f64::from(*v)).sum()).collect();
            (0..columns * columns)
                .for_each(|n| moments.gram[[n / columns, n % columns]] += x[n / columns] * x[n % columns]);
            moments.rows += 1;
        }
        moments
    }

    #[test]
    fn making_up_for_errors_beats_plain_rounding_and_rows_take_the_better() {
        let (rows, columns) = (37, 80);
        let weights = random(1, rows * columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        for scheme in SCHEMES.map(|def| def.scheme) {
            let rounded = quantize_matrix(&weights, rows, scheme, &hessian, None);
            assert!(rounded.error < 0.5 * rounded.plain_error, "{scheme}: {rounded:?}");
            let measured = hessian.relative_error(&weights, &rounded.matrix);
            assert!((measured / rounded.error - 1.0).abs() < 1e-3, "{scheme}: {measured} {}", rounded.error);
            let id = crate::model::id::LinearId::layer(0, crate::model::id::Role::Up);
            crate::formats::slmc_quantized::layout::validate(id, &rounded.matrix).expect("it is on the grid");
            // The threads of one pool or of another: the same bits.
            let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
            assert_eq!(rounded, single.install(|| quantize_matrix(&weights, rows, scheme, &hessian, None)));
        }
    }

    /// The rows of a split are those of the matrix in their schemes, bit for bit.
    #[test]
    fn rows_of_a_split_are_rounded_as_in_their_schemes() {
        let (rows, columns, split) = (90, 80, QuantScheme::Split { wide_rows: 64 });
        let weights = random(7, rows * columns);
        let hessian = Hessian::new(&moments(columns, 1000)).expect("it is positive definite");
        let in_scheme = |scheme| quantize_matrix(&weights, rows, scheme, &hessian, None).matrix;
        let part = |rows, scheme| in_scheme(scheme).part(rows, scheme);
        assert_eq!(in_scheme(split), QuantizedMatrix::of_parts(split, [rows, columns], part));
    }

    #[test]
    fn what_is_held_stays_zero() {
        let (rows, columns) = (5, 64);
        let weights = random(3, rows * columns);
        let held: Vec<bool> = (0..rows * columns).map(|n| n % 4 < 2).collect();
        let hessian = Hessian::new(&moments(columns, 300)).expect("it is positive definite");
        let rounded = quantize_matrix(&weights, rows, QuantScheme::W4G32, &hessian, Some(&held));
        assert!(rounded.matrix.values.iter().zip(&held).all(|(value, held)| !held || *value == 0));
        assert!(rounded.error < rounded.plain_error);
    }

    #[test]
    fn rows_of_zeros_and_channels_that_never_move_do_no_harm() {
        let (rows, columns) = (3, 32);
        let mut weights = random(5, rows * columns);
        weights[..columns].fill(0.0);
        let mut moments = moments(columns, 100);
        moments.gram.row_mut(7).fill(0.0);
        moments.gram.column_mut(7).fill(0.0);
        let hessian = Hessian::new(&moments).expect("damping makes it definite");
        assert_eq!(hessian.dead, 1);
        let rounded = quantize_matrix(&weights, rows, QuantScheme::W4G32, &hessian, None);
        assert!(rounded.matrix.values[..columns].iter().all(|value| *value == 0));
        assert!(rounded.error.is_finite() && rounded.matrix.row_scale.iter().all(|scale| scale.is_finite()));
    }
}
