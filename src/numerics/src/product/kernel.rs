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
        // Vectors of a panel.
        match T::WIDTH / T::lanes::<S>() {
            2 => self.compute::<S, 12, 2, 1>(simd),
            4 => self.compute::<S, 3, 4, 2>(simd),
            8 => self.compute::<S, 2, 8, 4>(simd),
            16 => self.compute::<S, 1, 16, 8>(simd),
            _ => self.compute::<S, 1, 32, 16>(simd),
        }
    }
}

impl<T: Value> Part<'_, T> {
    /// Tiles of `R` rows and `V` vectors, of `H` where no more of a panel is used.
    #[inline(always)]
    fn compute<S: Simd, const R: usize, const V: usize, const H: usize>(&mut self, simd: S) {
        let panels = self.packed.columns.div_ceil(T::WIDTH);
        let direct = match self.left {
            // Rows a power of two apart push each other out of the first cache.
            Left::Rows(a) => panels < 32 && !a.stride.is_multiple_of(1024),
            Left::Columns(_) => false,
        };
        if !direct {
            self.pack_tiles::<R>();
        }
        for panel in 0..panels {
            let width = T::WIDTH.min(self.packed.columns - panel * T::WIDTH);
            let from = (panel * self.packed.depth + self.packed.first) * T::WIDTH;
            let panel_values = &self.packed.values[from..][..self.depth * T::WIDTH];
            for row in (0..self.rows).step_by(R) {
                if let (true, Left::Rows(a), true) = (direct, self.left, self.rows - row >= R) {
                    let mut rows = [&[][..]; R];
                    for (r, values) in rows.iter_mut().enumerate() {
                        *values = a.part(self.row + row + r, self.start, self.depth);
                    }
                    if width > T::WIDTH / 2 {
                        self.tile::<S, R, V, V>(simd, AsRows::<T, R>(rows), panel_values, [row, panel, width]);
                    } else {
                        self.tile::<S, R, H, V>(simd, AsRows::<T, R>(rows), panel_values, [row, panel, width]);
                    }
                } else if direct {
                    let Left::Rows(a) = self.left else { continue };
                    for row in row..self.rows {
                        let one = [a.part(self.row + row, self.start, self.depth)];
                        self.tile::<S, 1, V, V>(simd, AsRows::<T, 1>(one), panel_values, [row, panel, width]);
                    }
                } else {
                    // Moved out while the tile is computed, since the output is part of the same struct.
                    let tiles = std::mem::take(&mut self.tiles);
                    let tile = tiles[row * self.depth..][..R * self.depth].as_chunks::<R>().0;
                    if width > T::WIDTH / 2 {
                        self.tile::<S, R, V, V>(simd, AsTile::<T, R>(tile), panel_values, [row, panel, width]);
                    } else {
                        self.tile::<S, R, H, V>(simd, AsTile::<T, R>(tile), panel_values, [row, panel, width]);
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

    /// One tile at \[row, panel\], `width` columns of it.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        left: impl Values<T, R>,
        panel_values: &[T],
        [row, panel, width]: [usize; 3],
    ) {
        let at = row * self.stride + self.first + panel * T::WIDTH;
        let rows = R.min(self.rows - row);
        if width == V * T::lanes::<S>() && rows == R {
            sums::<T, S, R, V, P>(simd, left, panel_values, &mut self.out[at..], self.stride, self.add);
            return;
        }
        let mut whole = [T::ZERO; MOST_ROWS * WIDEST];
        if self.add {
            for r in 0..rows {
                whole[r * T::WIDTH..][..width].copy_from_slice(&self.out[at + r * self.stride..][..width]);
            }
        }
        sums::<T, S, R, V, P>(simd, left, panel_values, &mut whole, T::WIDTH, self.add);
        for r in 0..rows {
            self.out[at + r * self.stride..][..width].copy_from_slice(&whole[r * T::WIDTH..][..width]);
        }
    }
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

/// R rows of V vectors; a panel has P vectors for every k.
#[inline(always)]
fn sums<T: Value, S: Simd, const R: usize, const V: usize, const P: usize>(
    simd: S,
    left: impl Values<T, R>,
    panel: &[T],
    out: &mut [T],
    stride: usize,
    add: bool,
) {
    let (panel, _) = T::vectors::<S>(panel).as_chunks::<P>();
    let left = left.cut(panel.len());
    let mut sums = [[T::ZERO.splat(simd); V]; R];
    if add {
        for (r, sums) in sums.iter_mut().enumerate() {
            let row = T::vectors::<S>(&out[r * stride..][..V * T::lanes::<S>()]);
            sums.copy_from_slice(&row[..V]);
        }
    }
    for (k, panel) in panel.iter().enumerate() {
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
