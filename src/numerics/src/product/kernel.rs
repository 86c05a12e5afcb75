//! The inner loop of products: tiles of an output, as many rows and vectors as the machine's registers hold, each value one
//! chain of fused multiply-adds along k.

use super::{Left, MOST_ROWS, Panels, Value};
use pulp::Simd;

/// Columns of the widest panel, that of f32.
const WIDEST: usize = <f32 as Value>::WIDTH;

/// Some rows of an output by one block of k.
pub(super) struct Part<'a, T> {
    pub(super) left: Left<'a, T>,
    pub(super) row: usize,
    pub(super) rows: usize,
    /// First of k in the left operand.
    pub(super) start: usize,
    pub(super) packed: Panels<'a, T>,
    /// How many of k.
    pub(super) depth: usize,
    pub(super) out: &'a mut [T],
    pub(super) stride: usize,
    pub(super) first: usize,
    pub(super) add: bool,
    /// (tiles, depth, rows of a tile)
    pub(super) tiles: &'a mut [T],
}

impl<T: Value> pulp::WithSimd for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Vectors of a panel. Sums, the panel's vectors and a value of the left operand share the registers: 32 where a panel has
        // two vectors or eight, else 16.
        match T::WIDTH / T::lanes::<S>() {
            2 => self.compute::<S, 12, 2, 2>(simd),
            4 => self.compute::<S, 6, 2, 4>(simd),
            8 => self.compute::<S, 6, 4, 8>(simd),
            16 => self.compute::<S, 2, 4, 16>(simd),
            _ => self.compute::<S, 2, 4, 32>(simd),
        }
    }
}

impl<T: Value> Part<'_, T> {
    /// Tiles of `R` rows and `V` of a panel's `P` vectors.
    #[inline(always)]
    fn compute<S: Simd, const R: usize, const V: usize, const P: usize>(&mut self, simd: S) {
        let panels = self.packed.columns.div_ceil(T::WIDTH);
        let direct = match self.left {
            // Rows a power of two apart push each other out of the first cache.
            Left::Rows(a) => panels < 32 && !a.stride.is_multiple_of(1024),
            Left::Columns(_) => false,
        };
        if !direct {
            self.pack_tiles::<R>();
        }
        let columns = V * T::lanes::<S>();
        for first in (0..self.packed.columns).step_by(columns) {
            let width = columns.min(self.packed.columns - first);
            let from = (first / T::WIDTH * self.packed.depth + self.packed.first) * T::WIDTH;
            let panel = &self.packed.values[from..][..self.depth * T::WIDTH];
            let panel = Panel::<T, P> { values: panel, first: first % T::WIDTH / T::lanes::<S>() };
            for row in (0..self.rows).step_by(R) {
                let at = [row, first, width];
                if let (true, Left::Rows(a)) = (direct, self.left) {
                    let part = |row| a.part(self.row + row, self.start, self.depth);
                    let there = self.rows - row;
                    if there >= R {
                        let rows = AsRows::<T, R>(std::array::from_fn(|r| part(row + r)));
                        self.tile::<S, R, V, P>(simd, rows, panel, at);
                    } else if there > 1 {
                        // The last row stands for those after it, which are not written.
                        let rows = AsRows::<T, R>(std::array::from_fn(|r| part(row + r.min(there - 1))));
                        self.tile::<S, R, V, P>(simd, rows, panel, at);
                    } else {
                        self.tile::<S, 1, V, P>(simd, AsRows::<T, 1>([part(row)]), panel, at);
                    }
                } else {
                    // Moved out while the tile is computed, since the output is part of the same struct.
                    let tiles = std::mem::take(&mut self.tiles);
                    let tile = tiles[row * self.depth..][..R * self.depth].as_chunks::<R>().0;
                    self.tile::<S, R, V, P>(simd, AsTile::<T, R>(tile), panel, at);
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
                    for (r, values) in rows.iter_mut().enumerate() {
                        *values = a.part(self.row + first + r.min(count - 1), self.start, depth);
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

    /// One tile at \[row, column\], `width` columns of it.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        left: impl Values<T, R>,
        panel: Panel<'_, T, P>,
        [row, column, width]: [usize; 3],
    ) {
        let at = row * self.stride + self.first + column;
        let rows = R.min(self.rows - row);
        if width == V * T::lanes::<S>() && rows == R {
            sums::<T, S, R, V, P>(simd, left, panel, &mut self.out[at..], self.stride, self.add);
            return;
        }
        let mut whole = [T::ZERO; MOST_ROWS * WIDEST];
        if self.add {
            for r in 0..rows {
                whole[r * T::WIDTH..][..width].copy_from_slice(&self.out[at + r * self.stride..][..width]);
            }
        }
        sums::<T, S, R, V, P>(simd, left, panel, &mut whole, T::WIDTH, self.add);
        for r in 0..rows {
            self.out[at + r * self.stride..][..width].copy_from_slice(&whole[r * T::WIDTH..][..width]);
        }
    }
}

/// A panel, of whose `P` vectors for every k a tile has some from `first` on.
#[derive(Clone, Copy)]
struct Panel<'a, T, const P: usize> {
    values: &'a [T],
    first: usize,
}

/// R values of the left operand for every k.
trait Values<T, const R: usize>: Copy {
    fn cut(self, depth: usize) -> Self;
    fn value(&self, k: usize, r: usize) -> T;
}

#[derive(Clone, Copy)]
struct AsRows<'a, T, const R: usize>([&'a [T]; R]);

#[derive(Clone, Copy)]
struct AsTile<'a, T, const R: usize>(&'a [[T; R]]);

impl<T: Value, const R: usize> Values<T, R> for AsRows<'_, T, R> {
    #[inline(always)]
    fn cut(self, depth: usize) -> Self {
        AsRows(self.0.map(|row| &row[..depth]))
    }

    #[inline(always)]
    fn value(&self, k: usize, r: usize) -> T {
        self.0[r][k]
    }
}

impl<T: Value, const R: usize> Values<T, R> for AsTile<'_, T, R> {
    #[inline(always)]
    fn cut(self, depth: usize) -> Self {
        AsTile(&self.0[..depth])
    }

    #[inline(always)]
    fn value(&self, k: usize, r: usize) -> T {
        self.0[k][r]
    }
}

/// R rows of V vectors.
#[inline(always)]
fn sums<T: Value, S: Simd, const R: usize, const V: usize, const P: usize>(
    simd: S,
    left: impl Values<T, R>,
    panel: Panel<'_, T, P>,
    out: &mut [T],
    stride: usize,
    add: bool,
) {
    let Panel { values, first } = panel;
    assert!(first + V <= P);
    let (panel, _) = T::vectors::<S>(values).as_chunks::<P>();
    let left = left.cut(panel.len());
    let mut sums = [[T::ZERO.splat(simd); V]; R];
    if add {
        for (r, sums) in sums.iter_mut().enumerate() {
            let row = T::vectors::<S>(&out[r * stride..][..V * T::lanes::<S>()]);
            sums.copy_from_slice(&row[..V]);
        }
    }
    for (k, panel) in panel.iter().enumerate() {
        let panel = &panel[first..][..V];
        for (r, sums) in sums.iter_mut().enumerate() {
            let value = left.value(k, r).splat(simd);
            for v in 0..V {
                sums[v] = T::mul_add(simd, value, panel[v], sums[v]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let row = T::vectors_mut::<S>(&mut out[r * stride..][..V * T::lanes::<S>()]);
        row[..V].copy_from_slice(sums);
    }
}
