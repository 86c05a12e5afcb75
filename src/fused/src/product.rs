//! Products of f32 matrices: A · B, A · Bᵀ and Aᵀ · B, written over the output or added to it.
//!
//! ```text
//! c(i, j) = fma(a(i, k − 1), b(k − 1, j), … fma(a(i, 0), b(0, j), c₀))      c₀ = 0, or c(i, j) before
//! ```
//!
//! Every output is this one chain of fused multiply-adds in the order of k, whatever the blocks, the number of threads and
//! the width of the vectors: vectors lie along j and never across k, and a chain that is cut at a block of k goes on from
//! the f32 it was stored as. So the bits are the same with AVX2, AVX-512, NEON and scalar code, and a plain loop is the oracle.
//!
//! The right operand is packed into panels (k, 32 columns), a block of k at a time. The left one is read as it is where
//! its rows run along k, and packed into tiles of as many rows as are computed together where they do not.

use crate::scratch::Scratch;
use pulp::Simd;
use rayon::prelude::*;

/// Columns of a panel.
const WIDTH: usize = 32;
/// Most rows computed together.
const MOST_ROWS: usize = 12;
/// Most of k in one block, so that a panel stays in the second cache and mostly in the first.
const BLOCK: usize = 512;
/// Most rows of one task, whose part of the left operand stays in the second cache.
const TASK_ROWS: usize = 192;
/// Most floats of the right operand that are packed at a time.
const PACKED: usize = 1 << 21;
/// Multiply-adds below which threads cost more than they bring.
const SERIAL: usize = 1 << 17;

/// Row-major values, `stride` apart from row to row.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> Matrix<'a> {
    /// All of `values`, in rows of `columns`.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        Matrix { values, rows: values.len() / columns.max(1), columns, stride: columns }
    }

    /// `columns` columns from `first`.
    pub fn columns(self, first: usize, columns: usize) -> Self {
        Matrix { values: &self.values[first.min(self.values.len())..], columns, ..self }
    }

    /// `columns` values of a row from column `first`.
    #[inline(always)]
    fn part(&self, row: usize, first: usize, columns: usize) -> &'a [f32] {
        &self.values[row * self.stride + first..][..columns]
    }
}

/// The operand whose rows are the output's: (m, k), or its transpose.
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// Stored (m, k).
    Rows(Matrix<'a>),
    /// Stored (k, m).
    Columns(Matrix<'a>),
}

/// The operand whose columns are the output's: (k, n), or its transpose.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Stored (k, n).
    Rows(Matrix<'a>),
    /// Stored (n, k).
    Columns(Matrix<'a>),
}

impl Left<'_> {
    /// \[m, k\]
    fn dims(&self) -> [usize; 2] {
        match self {
            Left::Rows(a) => [a.rows, a.columns],
            Left::Columns(a) => [a.columns, a.rows],
        }
    }
}

impl Right<'_> {
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
pub struct Output<'a> {
    /// Whole rows.
    pub values: &'a mut [f32],
    /// Between rows.
    pub stride: usize,
    /// Column of the first output.
    pub first: usize,
    /// Whether the products are added to what is there.
    pub add: bool,
}

impl<'a> Output<'a> {
    /// Over rows of `stride`.
    pub fn over(values: &'a mut [f32], stride: usize) -> Self {
        Output { values, stride, first: 0, add: false }
    }

    /// Added to rows of `stride`.
    pub fn onto(values: &'a mut [f32], stride: usize) -> Self {
        Output { values, stride, first: 0, add: true }
    }

    /// From column `first` of each row.
    pub fn at(self, first: usize) -> Self {
        Output { first, ..self }
    }
}

/// left · right, by all threads.
pub fn multiply(out: Output<'_>, left: Left<'_>, right: Right<'_>) {
    let ([m, k], [inner, n]) = (left.dims(), right.dims());
    assert_eq!(k, inner, "a product of (m, {k}) and ({inner}, n)");
    if m == 0 || n == 0 {
        return;
    }
    let threads = if m * n * k < SERIAL { 1 } else { rayon::current_num_threads() };
    let panels = n.div_ceil(WIDTH);
    let block = k.div_ceil(k.div_ceil(BLOCK).max(1)).max(1);
    let blocks = k.div_ceil(block).max(1);
    // As many panels as fit with one block of k, or as many blocks as fit with all panels.
    let panels_at_once = (PACKED / (block * WIDTH)).clamp(1, panels);
    let blocks_at_once = (PACKED / (block * WIDTH * panels_at_once)).clamp(1, blocks);
    let tasks = m.div_ceil(TASK_ROWS).max(if threads > 1 { 2 * threads } else { 1 }).next_multiple_of(threads);
    let task_rows = m.div_ceil(tasks).next_multiple_of(MOST_ROWS);
    let Output { values, stride, first, add } = out;
    assert!(values.len() >= (m - 1) * stride + first + n, "an output of {m} rows of {n} in {}", values.len());
    let mut packed = Scratch::take(blocks_at_once * block * panels_at_once * WIDTH);
    for first_panel in (0..panels).step_by(panels_at_once) {
        let panels = panels_at_once.min(panels - first_panel);
        let columns = (n - first_panel * WIDTH).min(panels * WIDTH);
        for first_block in (0..blocks).step_by(blocks_at_once) {
            let start = first_block * block;
            let depth = (k - start).min(blocks_at_once * block);
            let packed = &mut packed.values()[..depth * panels * WIDTH];
            pack(right, [start, depth, block], [first_panel, panels], packed, threads > 1);
            let packed = &*packed;
            let compute = |(task, values): (usize, &mut [f32])| {
                let rows = task_rows.min(m - task * task_rows);
                let mut tiles = Scratch::take(MOST_ROWS * block * rows.div_ceil(MOST_ROWS));
                for offset in (0..depth).step_by(block) {
                    let depth = block.min(depth - offset);
                    let part = Part {
                        left,
                        row: task * task_rows,
                        rows,
                        start: start + offset,
                        packed: Panels { values: &packed[offset * panels * WIDTH..], depth, first: 0, columns },
                        depth,
                        out: values,
                        stride,
                        first: first + first_panel * WIDTH,
                        add: add || start + offset > 0,
                        tiles: tiles.values(),
                    };
                    pulp::Arch::new().dispatch(part);
                }
            };
            let chunk = task_rows * stride;
            if threads > 1 {
                values.par_chunks_mut(chunk).take(m.div_ceil(task_rows)).enumerate().for_each(compute);
            } else {
                values.chunks_mut(chunk).take(m.div_ceil(task_rows)).enumerate().for_each(compute);
            }
        }
    }
    if k == 0 && !add {
        values.chunks_mut(stride).take(m).for_each(|row| row[first..first + n].fill(0.0));
    }
}

/// `depth` of k from `start`, in blocks of `block`, of `panels` panels from the first.
fn pack(
    right: Right<'_>,
    [start, depth, block]: [usize; 3],
    [first, panels]: [usize; 2],
    packed: &mut [f32],
    parallel: bool,
) {
    let mut parts = Vec::new();
    let mut rest = packed;
    for offset in (0..depth).step_by(block) {
        let block = block.min(depth - offset);
        for panel in first..first + panels {
            let (part, after) = rest.split_at_mut(block * WIDTH);
            parts.push((offset, panel, part));
            rest = after;
        }
    }
    let one = |(offset, panel, part): (usize, usize, &mut [f32])| pack_panel(right, start + offset, panel, part);
    if parallel { parts.into_par_iter().for_each(one) } else { parts.into_iter().for_each(one) }
}

/// Panel `panel`, (k, WIDTH), of as much of k from `start` as `out` has room for; zeros past the last column.
fn pack_panel(right: Right<'_>, start: usize, panel: usize, out: &mut [f32]) {
    let first = panel * WIDTH;
    let depth = out.len() / WIDTH;
    let (out, _) = out.as_chunks_mut::<WIDTH>();
    match right {
        Right::Rows(b) => {
            let count = WIDTH.min(b.columns - first);
            for (k, out) in out.iter_mut().enumerate() {
                out[..count].copy_from_slice(b.part(start + k, first, count));
                out[count..].fill(0.0);
            }
        }
        Right::Columns(b) => {
            let count = WIDTH.min(b.rows - first);
            for k in (0..depth).step_by(16) {
                let many = 16.min(depth - k);
                let out = &mut out[k..k + many];
                for column in 0..count {
                    let values = b.part(first + column, start + k, many);
                    for (out, value) in out.iter_mut().zip(values) {
                        out[column] = *value;
                    }
                }
                out.iter_mut().for_each(|out| out[count..].fill(0.0));
            }
        }
    }
}

/// A right operand packed as one block of k.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    /// (panels, depth, WIDTH)
    values: &'a [f32],
    depth: usize,
    /// First of k that is multiplied.
    first: usize,
    columns: usize,
}

impl<'a> Panels<'a> {
    /// Floats that packing needs.
    pub fn floats(right: Right<'_>) -> usize {
        let [k, n] = right.dims();
        k * n.next_multiple_of(WIDTH)
    }

    /// Packs a whole operand into as much memory as [`Panels::floats`] says.
    pub fn new(right: Right<'_>, memory: &'a mut [f32]) -> Self {
        let [depth, columns] = right.dims();
        pack(right, [0, depth, depth.max(1)], [0, columns.div_ceil(WIDTH)], memory, false);
        Panels { values: memory, depth, first: 0, columns }
    }

    /// Only k from `first`; how many, the left operand says.
    pub fn from(self, first: usize) -> Self {
        Panels { first, ..self }
    }

    /// Only panels from the one that begins with column `first`, a multiple of [`WIDTH`].
    pub fn from_column(self, first: usize, columns: usize) -> Self {
        Panels { values: &self.values[first / WIDTH * self.depth * WIDTH..], columns, ..self }
    }
}

/// Columns at which [`Panels::from_column`] may begin are multiples of this.
pub const PANEL: usize = WIDTH;

/// Floats of scratch memory that [`multiply_packed`] needs for a left operand of m rows and k columns.
pub fn tile_floats(m: usize, k: usize) -> usize {
    m.next_multiple_of(MOST_ROWS) * k
}

/// left · panels by this thread. `tiles` has [`tile_floats`].
pub fn multiply_packed(out: Output<'_>, left: Left<'_>, packed: Panels<'_>, tiles: &mut [f32]) {
    let [m, k] = left.dims();
    let Output { values, stride, first, add } = out;
    let part = Part { left, row: 0, rows: m, start: 0, packed, depth: k, out: values, stride, first, add, tiles };
    pulp::Arch::new().dispatch(part);
}

/// Some rows of an output by one block of k.
struct Part<'a> {
    left: Left<'a>,
    row: usize,
    rows: usize,
    /// First of k in the left operand.
    start: usize,
    packed: Panels<'a>,
    /// How many of k.
    depth: usize,
    out: &'a mut [f32],
    stride: usize,
    first: usize,
    add: bool,
    /// (tiles, depth, rows of a tile)
    tiles: &'a mut [f32],
}

impl pulp::WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match S::F32_LANES {
            16 => self.compute::<S, 12, 2, 1>(simd),
            8 => self.compute::<S, 3, 4, 2>(simd),
            4 => self.compute::<S, 2, 8, 4>(simd),
            _ => self.compute::<S, 1, 32, 16>(simd),
        }
    }
}

impl Part<'_> {
    /// Tiles of `R` rows and `V` vectors, of `H` where no more of a panel is used.
    #[inline(always)]
    fn compute<S: Simd, const R: usize, const V: usize, const H: usize>(&mut self, simd: S) {
        let panels = self.packed.columns.div_ceil(WIDTH);
        let direct = match self.left {
            // Rows a power of two apart push each other out of the first cache.
            Left::Rows(a) => panels < 32 && !a.stride.is_multiple_of(1024),
            Left::Columns(_) => false,
        };
        if !direct {
            self.pack_tiles::<R>();
        }
        for panel in 0..panels {
            let width = WIDTH.min(self.packed.columns - panel * WIDTH);
            let from = (panel * self.packed.depth + self.packed.first) * WIDTH;
            let panel_values = &self.packed.values[from..][..self.depth * WIDTH];
            for row in (0..self.rows).step_by(R) {
                if let (true, Left::Rows(a), true) = (direct, self.left, self.rows - row >= R) {
                    let mut rows = [&[][..]; R];
                    for r in 0..R {
                        rows[r] = a.part(self.row + row + r, self.start, self.depth);
                    }
                    if width > WIDTH / 2 {
                        self.tile::<S, R, V, V>(simd, AsRows::<R>(rows), panel_values, [row, panel, width]);
                    } else {
                        self.tile::<S, R, H, V>(simd, AsRows::<R>(rows), panel_values, [row, panel, width]);
                    }
                } else if direct {
                    let Left::Rows(a) = self.left else { continue };
                    for row in row..self.rows {
                        let one = [a.part(self.row + row, self.start, self.depth)];
                        self.tile::<S, 1, V, V>(simd, AsRows::<1>(one), panel_values, [row, panel, width]);
                    }
                } else {
                    // Moved out while the tile is computed, since the output is part of the same struct.
                    let tiles = std::mem::take(&mut self.tiles);
                    let tile = tiles[row * self.depth..][..R * self.depth].as_chunks::<R>().0;
                    if width > WIDTH / 2 {
                        self.tile::<S, R, V, V>(simd, AsTile::<R>(tile), panel_values, [row, panel, width]);
                    } else {
                        self.tile::<S, R, H, V>(simd, AsTile::<R>(tile), panel_values, [row, panel, width]);
                    }
                    self.tiles = tiles;
                }
            }
        }
    }

    /// The left operand as (tiles, k, R); rows past the last repeat it, and are not written.
    #[inline(always)]
    fn pack_tiles<const R: usize>(&mut self) {
        let depth = self.depth;
        for (number, tile) in self.tiles[..self.rows.next_multiple_of(R) * depth].chunks_mut(R * depth).enumerate() {
            let (tile, _) = tile.as_chunks_mut::<R>();
            let first = number * R;
            let count = R.min(self.rows - first);
            match self.left {
                Left::Columns(a) => {
                    for (k, tile) in tile.iter_mut().enumerate() {
                        let values = a.part(self.start + k, self.row + first, count);
                        if count == R { tile.copy_from_slice(values) } else { tile[..count].copy_from_slice(values) }
                    }
                }
                Left::Rows(a) => {
                    let mut rows = [&[][..]; R];
                    for r in 0..R {
                        rows[r] = a.part(self.row + first + r.min(count - 1), self.start, depth);
                    }
                    for (k, tile) in tile.iter_mut().enumerate() {
                        for r in 0..R {
                            tile[r] = rows[r][k];
                        }
                    }
                }
            }
        }
    }

    /// One tile at \[row, panel\], `width` columns of it.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        left: impl Values<R>,
        panel_values: &[f32],
        [row, panel, width]: [usize; 3],
    ) {
        let at = row * self.stride + self.first + panel * WIDTH;
        let rows = R.min(self.rows - row);
        if width == V * S::F32_LANES && rows == R {
            sums::<S, R, V, P>(simd, left, panel_values, &mut self.out[at..], self.stride, self.add);
            return;
        }
        let mut whole = [0.0; MOST_ROWS * WIDTH];
        if self.add {
            for r in 0..rows {
                whole[r * WIDTH..][..width].copy_from_slice(&self.out[at + r * self.stride..][..width]);
            }
        }
        sums::<S, R, V, P>(simd, left, panel_values, &mut whole, WIDTH, self.add);
        for r in 0..rows {
            self.out[at + r * self.stride..][..width].copy_from_slice(&whole[r * WIDTH..][..width]);
        }
    }
}

/// R values of the left operand for every k.
trait Values<const R: usize>: Copy {
    fn cut(self, depth: usize) -> Self;
    fn value(&self, k: usize, r: usize) -> f32;
}

#[derive(Clone, Copy)]
struct AsRows<'a, const R: usize>([&'a [f32]; R]);

#[derive(Clone, Copy)]
struct AsTile<'a, const R: usize>(&'a [[f32; R]]);

impl<const R: usize> Values<R> for AsRows<'_, R> {
    #[inline(always)]
    fn cut(self, depth: usize) -> Self {
        AsRows(self.0.map(|row| &row[..depth]))
    }

    #[inline(always)]
    fn value(&self, k: usize, r: usize) -> f32 {
        self.0[r][k]
    }
}

impl<const R: usize> Values<R> for AsTile<'_, R> {
    #[inline(always)]
    fn cut(self, depth: usize) -> Self {
        AsTile(&self.0[..depth])
    }

    #[inline(always)]
    fn value(&self, k: usize, r: usize) -> f32 {
        self.0[k][r]
    }
}

/// R rows of V vectors; a panel has P vectors for every k.
#[inline(always)]
fn sums<S: Simd, const R: usize, const V: usize, const P: usize>(
    simd: S,
    left: impl Values<R>,
    panel: &[f32],
    out: &mut [f32],
    stride: usize,
    add: bool,
) {
    let (panel, _) = S::as_simd_f32s(panel).0.as_chunks::<P>();
    let left = left.cut(panel.len());
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    if add {
        for r in 0..R {
            let (row, _) = S::as_simd_f32s(&out[r * stride..][..V * S::F32_LANES]);
            for v in 0..V {
                sums[r][v] = row[v];
            }
        }
    }
    for (k, panel) in panel.iter().enumerate() {
        for r in 0..R {
            let value = simd.splat_f32s(left.value(k, r));
            for v in 0..V {
                sums[r][v] = simd.mul_add_f32s(value, panel[v], sums[r][v]);
            }
        }
    }
    for r in 0..R {
        let (row, _) = S::as_mut_simd_f32s(&mut out[r * stride..][..V * S::F32_LANES]);
        for v in 0..V {
            row[v] = sums[r][v];
        }
    }
}

#[cfg(test)]
mod tests;
