//! A matrix of integers with a scale, and perhaps a zero point, for every group of columns of a row:
//!
//! ```text
//! W[o, i] = scale[o, g] · (code[o, i] − zero[o, g])      g = i / group, or by a list of the groups of columns
//! ```
//!
//! The difference of integers is exact, the product is one f32 multiplication: with scales in 16 bits it is exact too.

use super::codes::Codes;
use crate::disk::{DenseTensor, DenseType};
use crate::model::integers::GroupedIntegers;
use ndarray::{Array2, Axis};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are converted together.
const BLOCK: usize = 32;

/// Which group a column belongs to.
#[derive(Clone, Debug)]
pub(super) enum Groups {
    /// As many columns after each other; the last group may have fewer.
    Even(usize),
    /// By a list.
    Listed(Arc<[u32]>),
}

/// How scales lie in their tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// (rows, groups)
    Rows,
    /// (groups, rows)
    Groups,
    /// One for all.
    Single,
}

/// A matrix, not converted yet.
#[derive(Clone, Debug)]
pub(in crate::formats) struct PackedMatrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) codes: Codes,
    /// Codes of (rows, groups); zero where there are none.
    pub(super) zeros: Option<Codes>,
    pub(super) scales: DenseTensor,
    pub(super) order: Order,
    pub(super) groups: Groups,
    /// How many groups a row has.
    pub(super) count: usize,
}

/// Scales and zeros of every row.
struct Grid {
    /// (rows, groups)
    scales: Array2<f32>,
    /// (rows, groups)
    zeros: Option<Array2<i16>>,
}

impl PackedMatrix {
    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Bits of a code.
    pub(super) fn bits(&self) -> usize {
        self.codes.bits
    }

    /// Columns of a group; `None` where a row is one.
    pub(super) fn group_size(&self) -> Option<usize> {
        (self.count > 1).then(|| match self.groups {
            Groups::Even(size) => size,
            Groups::Listed(_) => self.columns.div_ceil(self.count),
        })
    }

    fn grid(&self) -> Grid {
        let (rows, count) = (self.rows, self.count);
        // Not checked to be finite: the weights are.
        let flat = self.scales.dtype().decode(&self.scales.bytes());
        let scales = match self.order {
            Order::Rows => Array2::from_shape_fn((rows, count), |(row, group)| flat[row * self.width() + group]),
            Order::Groups => Array2::from_shape_fn((rows, count), |(row, group)| flat[group * self.width() + row]),
            Order::Single => Array2::from_elem((rows, count), flat.first().copied().unwrap_or(0.0)),
        };
        let zeros = self.zeros.as_ref().map(|zeros| {
            let mut out = Array2::zeros((rows, count));
            zeros.read(0..rows, count, out.as_slice_mut().expect("it is row-major"));
            out
        });
        Grid { scales, zeros }
    }

    /// Second dimension of the tensor of scales.
    fn width(&self) -> usize {
        self.scales.shape().last().copied().unwrap_or(1)
    }

    /// Codes less zeros of some rows, (rows, columns).
    fn differences(&self, grid: &Grid, rows: Range<usize>) -> Vec<i16> {
        let mut out = vec![0; rows.len() * self.columns];
        self.codes.read(rows.clone(), self.columns, &mut out);
        let Some(zeros) = &grid.zeros else { return out };
        for (row, out) in rows.zip(out.chunks_exact_mut(self.columns)) {
            let zeros = zeros.row(row);
            match &self.groups {
                Groups::Even(size) => {
                    for (out, zero) in out.chunks_mut(*size).zip(zeros) {
                        out.iter_mut().for_each(|out| *out -= zero);
                    }
                }
                Groups::Listed(list) => {
                    for (out, &group) in out.iter_mut().zip(&**list) {
                        *out -= zeros[group as usize];
                    }
                }
            }
        }
        out
    }

    /// The weights, (rows, columns) or, turned, (columns, rows); f32, little-endian.
    pub(super) fn to_bytes(&self, turned: bool) -> Vec<u8> {
        let grid = self.grid();
        let mut values = vec![0f32; self.rows * self.columns];
        values.par_chunks_mut(BLOCK * self.columns).enumerate().for_each(|(block, out)| {
            let first = block * BLOCK;
            let rows = first..(first + BLOCK).min(self.rows);
            let differences = self.differences(&grid, rows.clone());
            let chunks = out.chunks_exact_mut(self.columns).zip(differences.chunks_exact(self.columns));
            for (row, (out, differences)) in rows.zip(chunks) {
                self.scale(grid.scales.row(row).as_slice().expect("it is row-major"), differences, out);
            }
        });
        if turned {
            let matrix = Array2::from_shape_vec((self.rows, self.columns), values).expect("it has its shape");
            return DenseType::F32.encode(&matrix.t().iter().copied().collect::<Vec<f32>>());
        }
        DenseType::F32.encode(&values)
    }

    fn scale(&self, scales: &[f32], differences: &[i16], out: &mut [f32]) {
        match &self.groups {
            Groups::Even(size) => {
                for ((out, differences), &scale) in out.chunks_mut(*size).zip(differences.chunks(*size)).zip(scales) {
                    for (out, &difference) in out.iter_mut().zip(differences) {
                        *out = scale * f32::from(difference);
                    }
                }
            }
            Groups::Listed(list) => {
                for ((out, &difference), &group) in out.iter_mut().zip(differences).zip(&**list) {
                    *out = scales[group as usize] * f32::from(difference);
                }
            }
        }
    }

    /// Columns that share a scale, where those of every group are next to each other.
    fn group(&self) -> Option<usize> {
        match &self.groups {
            Groups::Even(size) => Some(*size),
            Groups::Listed(list) => {
                let size = self.columns.div_ceil(self.count);
                let even = list.iter().enumerate().all(|(column, &group)| column / size == group as usize);
                even.then_some(size)
            }
        }
    }

    /// The first zero of at least a value, its position in (groups, rows).
    pub(super) fn largest_zero(&self, least: i16) -> Option<usize> {
        let mut row = vec![0; self.count];
        let zeros = self.zeros.as_ref()?;
        (0..self.rows).find_map(|index| {
            zeros.read(index..index + 1, self.count, &mut row);
            row.iter().position(|zero| *zero >= least).map(|group| group * self.rows + index)
        })
    }

    /// Some of its rows as integers; `None` where groups are scattered, or integers go beyond 8 bits.
    pub(in crate::formats) fn integers(&self, rows: Range<usize>) -> Option<GroupedIntegers> {
        let group = self.group()?;
        let grid = self.grid();
        let differences = self.differences(&grid, rows.clone());
        let values: Option<Vec<i8>> = differences.into_iter().map(|value| i8::try_from(value).ok()).collect();
        let values = Array2::from_shape_vec((rows.len(), self.columns), values?).ok()?;
        let scales = grid.scales.slice_axis(Axis(0), rows.into()).to_owned();
        Some(GroupedIntegers { values, scales, group })
    }
}
