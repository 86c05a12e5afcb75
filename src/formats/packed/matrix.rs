//! A matrix of integers with a scale, and perhaps a zero point, for every group of columns of a row:
//!
//! ```text
//! W[o, i] = scale[o, g] · (code[o, i] − zero[o, g])      g = i / group, or by a list of the groups of columns
//! W[o, i] = scale[o, g] · code[o, i] + minimum[o, g]     where the zero point is not a whole number of steps
//! ```
//!
//! The difference of integers is exact, the product is one f32 multiplication: with scales in 16 bits it is exact too. A
//! minimum is one f32 addition after it.

use super::codes::Codes;
use crate::disk::{DenseTensor, DenseType};
use crate::model::integers::{Grid, GroupedIntegers, Unfit};
use ndarray::{Array2, ArrayView1, Axis};
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
    /// In the order of the scales, where there are any.
    pub(super) minima: Option<DenseTensor>,
    pub(super) scales: DenseTensor,
    pub(super) order: Order,
    pub(super) groups: Groups,
    /// How many groups a row has.
    pub(super) count: usize,
}

/// The numbers of the groups of every row, each (rows, groups).
struct OfGroups {
    scales: Array2<f32>,
    zeros: Option<Array2<i16>>,
    minima: Option<Array2<f32>>,
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

    /// Bits, groups, and what is stored for every group beside its scale.
    pub(super) fn described(&self) -> String {
        let groups = match (self.group_size(), &self.groups) {
            (None, _) => "one scale a row".to_owned(),
            (Some(size), Groups::Even(_)) => format!("groups of {size}"),
            (Some(size), Groups::Listed(_)) => format!("scattered groups of {size}"),
        };
        let beside = match self.minima {
            Some(_) => ", minima",
            None if self.has_zero_points() => ", zero points",
            None => "",
        };
        format!("{} bits, {groups}{beside}", self.bits())
    }

    /// Least and largest zero.
    fn extreme_zeros(&self) -> (i16, i16) {
        let zeros = self.zeros();
        let zeros = zeros.iter().flatten().copied();
        (zeros.clone().min().unwrap_or(0), zeros.max().unwrap_or(0))
    }

    /// Whether a zero is another than that of symmetric integers.
    fn has_zero_points(&self) -> bool {
        self.extreme_zeros() != (self.codes.middle(), self.codes.middle())
    }

    fn groups(&self) -> OfGroups {
        let minima = self.minima.as_ref().map(|minima| self.ordered(minima));
        OfGroups { scales: self.ordered(&self.scales), zeros: self.zeros(), minima }
    }

    /// A tensor in the order of the scales as (rows, groups).
    fn ordered(&self, tensor: &DenseTensor) -> Array2<f32> {
        let (rows, count, width) = (self.rows, self.count, self.width());
        // Not checked to be finite: the weights are.
        let flat = tensor.dtype().decode(&tensor.bytes());
        match self.order {
            Order::Rows => Array2::from_shape_fn((rows, count), |(row, group)| flat[row * width + group]),
            Order::Groups => Array2::from_shape_fn((rows, count), |(row, group)| flat[group * width + row]),
            Order::Single => Array2::from_elem((rows, count), flat.first().copied().unwrap_or(0.0)),
        }
    }

    fn zeros(&self) -> Option<Array2<i16>> {
        let mut out = Array2::zeros((self.rows, self.count));
        self.zeros.as_ref()?.read(0..self.rows, self.count, out.as_slice_mut().expect("it is row-major"));
        Some(out)
    }

    /// Second dimension of the tensor of scales.
    fn width(&self) -> usize {
        self.scales.shape().last().copied().unwrap_or(1)
    }

    /// Codes less zeros of some rows, (rows, columns).
    fn differences(&self, of_groups: &OfGroups, rows: Range<usize>) -> Vec<i16> {
        let mut out = vec![0; rows.len() * self.columns];
        self.codes.read(rows.clone(), self.columns, &mut out);
        let Some(zeros) = &of_groups.zeros else { return out };
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
        let of_groups = self.groups();
        let mut values = vec![0f32; self.rows * self.columns];
        values.par_chunks_mut(BLOCK * self.columns).enumerate().for_each(|(block, out)| {
            let first = block * BLOCK;
            let rows = first..(first + BLOCK).min(self.rows);
            let differences = self.differences(&of_groups, rows.clone());
            let chunks = out.chunks_exact_mut(self.columns).zip(differences.chunks_exact(self.columns));
            for (row, (out, differences)) in rows.zip(chunks) {
                let scales = of_groups.scales.row(row);
                self.each(scales, differences, out, |scale, difference, out| *out = scale * f32::from(difference));
                if let Some(minima) = &of_groups.minima {
                    self.each(minima.row(row), differences, out, |minimum, _, out| *out += minimum);
                }
            }
        });
        if turned {
            let matrix = Array2::from_shape_vec((self.rows, self.columns), values).expect("it has its shape");
            return DenseType::F32.encode(&matrix.t().iter().copied().collect::<Vec<f32>>());
        }
        DenseType::F32.encode(&values)
    }

    /// Changes every column of a row by a number of its group and its difference.
    fn each(
        &self,
        numbers: ArrayView1<'_, f32>,
        differences: &[i16],
        out: &mut [f32],
        change: impl Fn(f32, i16, &mut f32),
    ) {
        match &self.groups {
            Groups::Even(size) => {
                let groups = out.chunks_mut(*size).zip(differences.chunks(*size)).zip(numbers);
                for ((out, differences), &number) in groups {
                    out.iter_mut().zip(differences).for_each(|(out, &difference)| change(number, difference, out));
                }
            }
            Groups::Listed(list) => {
                for ((out, &difference), &group) in out.iter_mut().zip(differences).zip(&**list) {
                    change(numbers[group as usize], difference, out);
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

    /// What its integers can be, by what is stored beside them.
    pub(in crate::formats) fn grid(&self) -> Result<Grid, Unfit> {
        if self.minima.is_some() {
            return Err(Unfit::Minima);
        }
        let group = self.group().ok_or(Unfit::Scattered)?;
        let (low, high) = self.codes.range();
        let (least, most) = self.extreme_zeros();
        Ok(Grid {
            range: (low - most, high - least),
            group: (self.count > 1).then_some(group),
            zero_points: self.has_zero_points(),
        })
    }

    /// Some of its rows as integers; `None` where groups are scattered or have minima, or integers go beyond 8 bits.
    pub(in crate::formats) fn integers(&self, rows: Range<usize>) -> Option<GroupedIntegers> {
        let group = self.group().filter(|_| self.minima.is_none())?;
        let of_groups = self.groups();
        let differences = self.differences(&of_groups, rows.clone());
        let values: Option<Vec<i8>> = differences.into_iter().map(|value| i8::try_from(value).ok()).collect();
        let values = Array2::from_shape_vec((rows.len(), self.columns), values?).ok()?;
        let scales = of_groups.scales.slice_axis(Axis(0), rows.into()).to_owned();
        Some(GroupedIntegers { values, scales, group })
    }
}
