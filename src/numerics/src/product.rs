//! Products of matrices of f32 or f64: A · B, A · Bᵀ and Aᵀ · B, written over the output or added to it.
//!
//! ```text
//! c(i, j) = fma(a(i, k − 1), b(k − 1, j), … fma(a(i, 0), b(0, j), c₀))      c₀ = 0, or c(i, j) before
//! ```
//!
//! Every output is this one chain of fused multiply-adds in the order of k, whatever the blocks, the number of threads and
//! the width of the vectors: vectors lie along j and never across k, and a chain that is cut at a block of k goes on from
//! the value it was stored as. So the bits are the same with AVX2, AVX-512, NEON and scalar code, and a plain loop is the oracle.
//!
//! The right operand is packed into panels (k, 128 bytes of columns), a block of k at a time. The left one is read as it is where
//! its rows run along k, and packed into tiles of as many rows as are computed together where they do not.

mod kernel;
mod value;

use crate::scratch::Scratch;
use kernel::Part;
use rayon::prelude::*;
pub use value::Value;

/// Most rows computed together.
const MOST_ROWS: usize = 12;
/// Most of k in one block, so that a panel stays in the second cache and mostly in the first.
const BLOCK: usize = 512;
/// Most rows of one task, whose part of the left operand stays in the second cache.
const TASK_ROWS: usize = 192;
/// Most values of the right operand that are packed at a time.
const PACKED: usize = 1 << 21;
/// Multiply-adds below which threads cost more than they bring.
const SERIAL: usize = 1 << 19;

/// Row-major values, `stride` apart from row to row.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T = f32> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// All of `values`, in rows of `columns`.
    pub fn new(values: &'a [T], columns: usize) -> Self {
        Matrix { values, rows: values.len() / columns.max(1), columns, stride: columns }
    }

    /// `rows` rows of `stride`, of which the last may be cut short.
    pub fn strided(values: &'a [T], stride: usize, rows: usize) -> Self {
        Matrix { values, rows, columns: stride, stride }
    }

    /// `columns` columns from `first`.
    pub fn columns(self, first: usize, columns: usize) -> Self {
        Matrix { values: &self.values[first.min(self.values.len())..], columns, ..self }
    }

    /// `columns` values of a row from column `first`.
    #[inline(always)]
    fn part(&self, row: usize, first: usize, columns: usize) -> &'a [T] {
        &self.values[row * self.stride + first..][..columns]
    }
}

/// The operand whose rows are the output's: (m, k), or its transpose.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a, T = f32> {
    /// Stored (m, k).
    Rows(Matrix<'a, T>),
    /// Stored (k, m).
    Columns(Matrix<'a, T>),
}

/// The operand whose columns are the output's: (k, n), or its transpose.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a, T = f32> {
    /// Stored (k, n).
    Rows(Matrix<'a, T>),
    /// Stored (n, k).
    Columns(Matrix<'a, T>),
}

impl<T> Left<'_, T> {
    /// \[m, k\]
    fn dims(&self) -> [usize; 2] {
        match self {
            Left::Rows(a) => [a.rows, a.columns],
            Left::Columns(a) => [a.columns, a.rows],
        }
    }
}

impl<T> Right<'_, T> {
    /// \[k, n\]
    fn dims(&self) -> [usize; 2] {
        match self {
            Right::Rows(b) => [b.rows, b.columns],
            Right::Columns(b) => [b.columns, b.rows],
        }
    }
}

/// Where an output is written: rows `stride` apart, each from column `first`.
#[derive(Debug)]
pub struct Output<'a, T = f32> {
    /// Whole rows.
    pub values: &'a mut [T],
    /// Between rows.
    pub stride: usize,
    /// Column of the first output.
    pub first: usize,
    /// Whether the products are added to what is there.
    pub add: bool,
}

impl<'a, T> Output<'a, T> {
    /// Over rows of `stride`.
    pub fn over(values: &'a mut [T], stride: usize) -> Self {
        Output { values, stride, first: 0, add: false }
    }

    /// Added to rows of `stride`.
    pub fn onto(values: &'a mut [T], stride: usize) -> Self {
        Output { values, stride, first: 0, add: true }
    }

    /// From column `first` of each row.
    pub fn at(self, first: usize) -> Self {
        Output { first, ..self }
    }
}

/// left · right, by all threads.
pub fn multiply<T: Value>(out: Output<'_, T>, left: Left<'_, T>, right: Right<'_, T>) {
    T::multiply(out, left, right);
}

/// [`multiply`], compiled once for every type, in this crate.
fn multiply_values<T: Value>(out: Output<'_, T>, left: Left<'_, T>, right: Right<'_, T>) {
    let ([m, k], [inner, n]) = (left.dims(), right.dims());
    assert_eq!(k, inner, "a product of (m, {k}) and ({inner}, n)");
    if m == 0 || n == 0 {
        return;
    }
    let threads = if m * n * k < SERIAL { 1 } else { rayon::current_num_threads() };
    let panels = n.div_ceil(T::WIDTH);
    let block = k.div_ceil(k.div_ceil(BLOCK).max(1)).max(1);
    let blocks = k.div_ceil(block).max(1);
    // As many panels as fit with one block of k, or as many blocks as fit with all panels.
    let panels_at_once = (PACKED / (block * T::WIDTH)).clamp(1, panels);
    let blocks_at_once = (PACKED / (block * T::WIDTH * panels_at_once)).clamp(1, blocks);
    let tasks = m.div_ceil(TASK_ROWS).max(if threads > 1 { 2 * threads } else { 1 }).next_multiple_of(threads);
    let task_rows = m.div_ceil(tasks).next_multiple_of(MOST_ROWS);
    let Output { values, stride, first, add } = out;
    assert!(values.len() >= (m - 1) * stride + first + n, "an output of {m} rows of {n} in {}", values.len());
    let mut packed = Scratch::<T>::take(blocks_at_once * block * panels_at_once * T::WIDTH);
    for first_panel in (0..panels).step_by(panels_at_once) {
        let panels = panels_at_once.min(panels - first_panel);
        let columns = (n - first_panel * T::WIDTH).min(panels * T::WIDTH);
        for first_block in (0..blocks).step_by(blocks_at_once) {
            let start = first_block * block;
            let depth = (k - start).min(blocks_at_once * block);
            let packed = &mut packed.values()[..depth * panels * T::WIDTH];
            pack(right, [start, depth, block], [first_panel, panels], packed, threads > 1);
            let packed = &*packed;
            let compute = |(task, values): (usize, &mut [T])| {
                let rows = task_rows.min(m - task * task_rows);
                let mut tiles = Scratch::<T>::take(MOST_ROWS * block * rows.div_ceil(MOST_ROWS));
                for offset in (0..depth).step_by(block) {
                    let depth = block.min(depth - offset);
                    let part = Part {
                        left,
                        row: task * task_rows,
                        rows,
                        start: start + offset,
                        packed: Panels { values: &packed[offset * panels * T::WIDTH..], depth, first: 0, columns },
                        depth,
                        out: values,
                        stride,
                        first: first + first_panel * T::WIDTH,
                        add: add || start + offset > 0,
                        tiles: tiles.values(),
                    };
                    pulp::Arch::new().dispatch(part);
                }
            };
            let chunk = task_rows * stride;
            if threads > 1 {
                // One by one, since a thread that was asleep comes late.
                let tasks = values.par_chunks_mut(chunk).take(m.div_ceil(task_rows)).enumerate();
                tasks.with_max_len(1).for_each(compute);
            } else {
                values.chunks_mut(chunk).take(m.div_ceil(task_rows)).enumerate().for_each(compute);
            }
        }
    }
    if k == 0 && !add {
        values.chunks_mut(stride).take(m).for_each(|row| row[first..first + n].fill(T::ZERO));
    }
}

/// `depth` of k from `start`, in blocks of `block`, of `panels` panels from the first.
fn pack<T: Value>(
    right: Right<'_, T>,
    [start, depth, block]: [usize; 3],
    [first, panels]: [usize; 2],
    packed: &mut [T],
    parallel: bool,
) {
    let mut parts = Vec::new();
    let mut rest = packed;
    for offset in (0..depth).step_by(block) {
        let block = block.min(depth - offset);
        for panel in first..first + panels {
            let (part, after) = rest.split_at_mut(block * T::WIDTH);
            parts.push((offset, panel, part));
            rest = after;
        }
    }
    let one = |(offset, panel, part): (usize, usize, &mut [T])| pack_panel(right, start + offset, panel, part);
    if parallel { parts.into_par_iter().for_each(one) } else { parts.into_iter().for_each(one) }
}

/// Panel `panel`, (k, columns), of as much of k from `start` as `out` has room for; zeros past the last column.
fn pack_panel<T: Value>(right: Right<'_, T>, start: usize, panel: usize, out: &mut [T]) {
    let first = panel * T::WIDTH;
    let depth = out.len() / T::WIDTH;
    match right {
        Right::Rows(b) => {
            let count = T::WIDTH.min(b.columns - first);
            for (k, out) in out.chunks_exact_mut(T::WIDTH).enumerate() {
                out[..count].copy_from_slice(b.part(start + k, first, count));
                out[count..].fill(T::ZERO);
            }
        }
        Right::Columns(b) => {
            let count = T::WIDTH.min(b.rows - first);
            // Long enough parts of every row for the machine to see that they will go on.
            for k in (0..depth).step_by(64) {
                let many = 64.min(depth - k);
                let out = &mut out[k * T::WIDTH..(k + many) * T::WIDTH];
                for column in 0..count {
                    let values = b.part(first + column, start + k, many);
                    for (out, value) in out.chunks_exact_mut(T::WIDTH).zip(values) {
                        out[column] = *value;
                    }
                }
                out.chunks_exact_mut(T::WIDTH).for_each(|out| out[count..].fill(T::ZERO));
            }
        }
    }
}

/// A right operand packed as one block of k.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a, T = f32> {
    /// (panels, depth, columns of a panel)
    values: &'a [T],
    depth: usize,
    /// First of k that is multiplied.
    first: usize,
    columns: usize,
}

impl<'a, T: Value> Panels<'a, T> {
    /// Values that packing needs.
    pub fn floats(right: Right<'_, T>) -> usize {
        let [k, n] = right.dims();
        k * n.next_multiple_of(T::WIDTH)
    }

    /// Packs a whole operand into as much memory as [`Panels::floats`] says.
    pub fn new(right: Right<'_, T>, memory: &'a mut [T]) -> Self {
        let [depth, columns] = right.dims();
        T::pack(right, memory);
        Panels { values: memory, depth, first: 0, columns }
    }

    /// Only k from `first`; how many, the left operand says.
    pub fn from(self, first: usize) -> Self {
        Panels { first, ..self }
    }

    /// Only panels from the one that begins with column `first`, a multiple of `WIDTH`.
    pub fn from_column(self, first: usize, columns: usize) -> Self {
        Panels { values: &self.values[first / T::WIDTH * self.depth * T::WIDTH..], columns, ..self }
    }
}

/// Columns at which [`Panels::from_column`] may begin in f32 are multiples of this.
pub const PANEL: usize = <f32 as Value>::WIDTH;

/// Floats of scratch memory that [`multiply_packed`] needs for a left operand of m rows and k columns.
pub fn tile_floats(m: usize, k: usize) -> usize {
    m.next_multiple_of(MOST_ROWS) * k
}

/// Packs a whole operand as one block of k.
fn pack_values<T: Value>(right: Right<'_, T>, memory: &mut [T]) {
    let [depth, columns] = right.dims();
    pack(right, [0, depth, depth.max(1)], [0, columns.div_ceil(T::WIDTH)], memory, false);
}

/// left · panels by this thread. `tiles` has [`tile_floats`].
pub fn multiply_packed<T: Value>(out: Output<'_, T>, left: Left<'_, T>, packed: Panels<'_, T>, tiles: &mut [T]) {
    T::multiply_packed(out, left, packed, tiles);
}

fn multiply_packed_values<T: Value>(out: Output<'_, T>, left: Left<'_, T>, packed: Panels<'_, T>, tiles: &mut [T]) {
    let [m, k] = left.dims();
    let Output { values, stride, first, add } = out;
    let part = Part { left, row: 0, rows: m, start: 0, packed, depth: k, out: values, stride, first, add, tiles };
    pulp::Arch::new().dispatch(part);
}

#[cfg(test)]
mod tests;
