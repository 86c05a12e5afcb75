//! A packer for tests, written from the formulas at the head of `layout.rs` and from nothing else there, so that it and
//! `TileShape` check each other.

use std::vec;
use std::vec::Vec;

use crate::format::artifact::Matrix;
use crate::kernels::columns::Columns;
use crate::kernels::{Activations, Kernels, SCALAR, Width};
use crate::layout::{ALIGNMENT, BLOCK_COLUMNS, Coding, Layout, NibbleCode, Storage, StorageDef, TileShape};

/// A quantized matrix as plain integers.
#[derive(Clone, Debug)]
pub(crate) struct Integers {
    pub(crate) storage: Storage,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// (rows, columns)
    pub(crate) values: Vec<i8>,
    /// (rows, groups of the storage's columns); none in w8.
    pub(crate) multipliers: Vec<i8>,
    /// (rows)
    pub(crate) scales: Vec<f32>,
}

impl Integers {
    pub(crate) fn value(&self, row: usize, column: usize) -> i8 {
        self.values[row * self.columns + column]
    }

    /// Columns that share a multiplier, where there are any.
    pub(crate) fn group(&self) -> usize {
        self.storage.def().group.unwrap_or(BLOCK_COLUMNS)
    }

    pub(crate) fn multiplier(&self, row: usize, group: usize) -> i8 {
        match self.multipliers.is_empty() {
            true => 1,
            false => self.multipliers[row * self.columns.div_ceil(self.group()) + group],
        }
    }

    /// Value times multiplier.
    pub(crate) fn integer(&self, row: usize, column: usize) -> i64 {
        i64::from(self.value(row, column)) * i64::from(self.multiplier(row, column / self.group()))
    }

    /// A row padded to `columns`; the row of a padding row is zeros.
    fn padded(&self, row: usize, columns: usize) -> Vec<i8> {
        (0..columns).map(|k| if row < self.rows && k < self.columns { self.value(row, k) } else { 0 }).collect()
    }

    /// All tiles.
    pub(crate) fn pack(&self, layout: Layout) -> Vec<u8> {
        let (r, kq, blocks) = (layout.rows(), layout.run(), self.columns.div_ceil(BLOCK_COLUMNS));
        let StorageDef { coding, group, two_of_four: sparse, .. } = *self.storage.def();
        let groups = group.map_or(0, |group| self.columns.div_ceil(group));
        // Dense columns with padding, and the stored ones among them.
        let columns = if sparse && coding == Coding::Nibble {
            blocks.next_multiple_of(2) * BLOCK_COLUMNS
        } else {
            blocks * BLOCK_COLUMNS
        };
        let stored = if sparse { columns / 2 } else { columns };
        let planes_at = r * stored * coding.bits() / 8;
        let multipliers_at = planes_at + if sparse { blocks * 4 * r } else { 0 };
        let kp = kq.min(4);
        let scales_at = multipliers_at + groups * r;
        let stride = (scales_at + 4 * r).next_multiple_of(ALIGNMENT);
        let mut bytes = vec![0; self.rows.div_ceil(r) * stride];
        for (tile_index, tile) in bytes.chunks_exact_mut(stride).enumerate() {
            for within in 0..r {
                let n = tile_index * r + within;
                let mut values = self.padded(n, columns);
                if sparse {
                    let kept = kept_columns(&values);
                    for (j, &k) in kept.iter().enumerate().take(blocks * 16) {
                        let at = planes_at + (j / (4 * kp)) * r * kp + (n % r) * kp + j % kp;
                        tile[at] |= ((k - 4 * (j / 2)) as u8) << (2 * (j / kp % 4));
                    }
                    values = kept.iter().map(|&k| values[k]).collect();
                }
                assert_eq!(values.len(), stored);
                for (k, &value) in values.iter().enumerate() {
                    if coding == Coding::ThreeBits {
                        let (block, j) = (k / 32 * 12 * r, k % 32);
                        let low = block + (j / (4 * kp)) * r * kp + (n % r) * kp + j % kp;
                        let sign = block + 8 * r + (j / (8 * kp)) * r * kp + (n % r) * kp + j % kp;
                        tile[low] |= (value as u8 & 3) << (2 * (j / kp % 4));
                        tile[sign] |= u8::from(value < 0) << (j / kp % 8);
                        continue;
                    }
                    if coding == Coding::Byte {
                        tile[(k / 32) * 32 * r + ((k % 32) / kq) * r * kq + (n % r) * kq + k % kq] = value as u8;
                        continue;
                    }
                    let nibble = match layout.nibbles() {
                        NibbleCode::Offset8 => (value + 8) as u8,
                        NibbleCode::TwosComplement => value as u8 & 15,
                    };
                    let at = (k / 32) * 16 * r + ((k % 16) / kq) * r * kq + (n % r) * kq + k % kq;
                    tile[at] |= if k % 32 < 16 { nibble } else { nibble << 4 };
                }
                if n >= self.rows {
                    continue;
                }
                for group in 0..groups {
                    tile[multipliers_at + group * r + within] = self.multiplier(n, group) as u8;
                }
                tile[scales_at + 4 * within..][..4].copy_from_slice(&self.scales[n].to_le_bytes());
            }
        }
        bytes
    }

    /// A matrix over packed bytes.
    pub(crate) fn matrix<'a>(&self, layout: Layout, bytes: &'a [u8]) -> Matrix<'a> {
        let shape = TileShape::new(self.storage, layout, self.rows, self.columns).expect("a small shape");
        assert_eq!(shape.bytes(), bytes.len(), "{layout:?} {:?}", self.storage);
        Matrix { bytes, shape, rows: self.rows, columns: self.columns, width: Width::Bits8 }
    }

    /// The scalar kernel over tokens (tokens, columns), packed in `layout`.
    pub(crate) fn multiply(&self, layout: Layout, tokens: &[i8], scales: &[f32]) -> Vec<f32> {
        let bytes = self.pack(layout);
        let input = Inputs::new(tokens, self.columns, scales, Width::Bits8);
        input.through(&SCALAR, &self.matrix(layout, &bytes))
    }
}

/// Activations with their padding and offsets.
pub(crate) struct Inputs {
    values: Vec<i8>,
    offsets: Vec<i32>,
    scales: Vec<f32>,
    stride: usize,
    width: Width,
}

impl Inputs {
    /// Rows (tokens · planes, columns) and a scale for each token.
    pub(crate) fn new(rows: &[i8], columns: usize, scales: &[f32], width: Width) -> Self {
        let stride = columns.next_multiple_of(BLOCK_COLUMNS);
        let mut values = vec![0; scales.len() * width.planes() * stride];
        for (padded, row) in values.chunks_exact_mut(stride).zip(rows.chunks_exact(columns)) {
            padded[..columns].copy_from_slice(row);
        }
        let sum = |group: &[i8]| -> i32 { group.iter().map(|&value| i32::from(value)).sum() };
        let offsets = values.chunks_exact(BLOCK_COLUMNS).map(|group| -8 * sum(group)).collect();
        Inputs { values, offsets, scales: scales.to_vec(), stride, width }
    }

    pub(crate) fn activations(&self) -> Activations<'_> {
        let Inputs { values, offsets, scales, stride, width } = self;
        Activations { values, offsets, stride: *stride, scales, width: *width }
    }

    /// (tokens, rows): the product with a matrix.
    pub(crate) fn through(&self, kernels: &Kernels, matrix: &Matrix<'_>) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.scales.len() * matrix.rows];
        let tiles = 0..matrix.shape.tiles;
        (kernels.multiply)(matrix, &self.activations(), tiles, &mut Columns::new(&mut output, matrix.rows));
        output
    }
}

/// The two columns kept of every four: the nonzero ones, filled up with the lowest of the others.
pub(crate) fn kept_columns(values: &[i8]) -> Vec<usize> {
    let mut out = Vec::new();
    for (four, values) in values.chunks_exact(4).enumerate() {
        let mut columns: Vec<usize> = (0..4).collect();
        columns.sort_by_key(|&k| values[k] == 0);
        assert!(columns[2..].iter().all(|&k| values[k] == 0), "not 2:4");
        columns.truncate(2);
        columns.sort();
        out.extend(columns.iter().map(|k| 4 * four + k));
    }
    out
}
