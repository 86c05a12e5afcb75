//! A quantized matrix in its plain form: one value per byte, unpadded, before any target's layout.
//! `w[o,i] = row_scale[o] · (multiplier[o, i/group] · values[o,i])`: the product of integers first, then one f32 multiply.

use super::scheme::QuantScheme;
use super::transform::NmPattern;
use slm_runtime::kernels::Width;
use std::ops::Range;

/// (rows, columns) integers with their scales.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Format.
    pub scheme: QuantScheme,
    /// Output dimension.
    pub rows: usize,
    /// Input dimension.
    pub columns: usize,
    /// (rows, columns): within the range of the row's scheme.
    pub values: Vec<i8>,
    /// (rows): f32, finite, not negative.
    pub row_scale: Vec<f32>,
    /// (rows whose scheme has groups, ceil(columns / group)): in [-127, 127], never 0. The w8 rows of a split, which come first,
    /// have none.
    pub multiplier: Vec<i8>,
    /// What the zeros among its values satisfy, where that is known: 2:4, the one pattern artifacts compress.
    pub sparsity: Option<NmPattern>,
    /// Bits of the inputs it is multiplied with on a device.
    pub activations: Width,
}

impl QuantizedMatrix {
    /// Rows with multipliers: those after the w8 ones.
    pub fn multiplied_rows(&self) -> usize {
        self.rows - self.scheme.wide_rows(self.rows)
    }

    /// Multipliers of a row that has them; 0 where none has.
    pub fn groups(&self) -> usize {
        self.scheme.def().group.map_or(0, |group| self.columns.div_ceil(group))
    }

    /// Where the multipliers of some rows are: no range of w8 rows has any.
    fn multiplier_range(&self, rows: &Range<usize>) -> Range<usize> {
        let wide = self.scheme.wide_rows(self.rows);
        let at = |row: usize| row.saturating_sub(wide) * self.groups();
        at(rows.start)..at(rows.end)
    }

    /// The multipliers of a row; none of a w8 row.
    pub fn multipliers(&self, row: usize) -> &[i8] {
        &self.multiplier[self.multiplier_range(&(row..row + 1))]
    }

    /// The integer that multiplies the row scale at (row, column).
    pub fn integer(&self, row: usize, column: usize) -> i32 {
        let value = i32::from(self.values[row * self.columns + column]);
        let multiplier = self.scheme.def().group.and_then(|group| self.multipliers(row).get(column / group));
        multiplier.map_or(value, |multiplier| value * i32::from(*multiplier))
    }

    /// f32 weights, (rows, columns): exactly what the runtime's integers stand for.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.columns];
        for (row, out) in out.chunks_exact_mut(self.columns.max(1)).enumerate() {
            self.read_row(row, out);
        }
        out
    }

    /// One row of [`QuantizedMatrix::dequantize`], (columns); `inline(always)`, so that the caller's vectors are used.
    ///
    /// # Panics
    /// If `row` is out of range.
    #[inline(always)]
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let (scale, multipliers) = (self.row_scale[row], self.multipliers(row));
        let values = &self.values[row * self.columns..][..self.columns];
        let group = self.scheme.def().group.filter(|_| !multipliers.is_empty());
        let Some(group) = group else {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(value) * scale;
            }
            return;
        };
        for ((out, values), &multiplier) in out.chunks_mut(group).zip(values.chunks(group)).zip(multipliers) {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f32::from(i16::from(value) * i16::from(multiplier)) * scale;
            }
        }
    }

    /// Some of its rows, `scheme` being the one they have.
    pub fn part(&self, rows: Range<usize>, scheme: QuantScheme) -> QuantizedMatrix {
        QuantizedMatrix {
            scheme,
            rows: rows.len(),
            values: self.values[rows.start * self.columns..rows.end * self.columns].to_vec(),
            row_scale: self.row_scale[rows.clone()].to_vec(),
            multiplier: self.multiplier[self.multiplier_range(&rows)].to_vec(),
            ..*self
        }
    }

    /// A matrix of that shape whose rows are still to be put in, in order.
    pub fn without_rows(scheme: QuantScheme, [rows, columns]: [usize; 2]) -> QuantizedMatrix {
        QuantizedMatrix {
            scheme,
            rows,
            columns,
            values: Vec::with_capacity(rows * columns),
            row_scale: Vec::with_capacity(rows),
            multiplier: Vec::new(),
            sparsity: None,
            activations: Width::Bits8,
        }
    }

    /// (rows, columns) of parts that a function gives for rows and the scheme they share.
    pub fn of_parts(
        scheme: QuantScheme,
        [rows, columns]: [usize; 2],
        mut part: impl FnMut(Range<usize>, QuantScheme) -> QuantizedMatrix,
    ) -> QuantizedMatrix {
        let mut all = QuantizedMatrix::without_rows(scheme, [rows, columns]);
        for (rows, scheme) in scheme.parts(rows) {
            let part = part(rows, scheme);
            all.values.extend(part.values);
            all.row_scale.extend(part.row_scale);
            all.multiplier.extend(part.multiplier);
            (all.sparsity, all.activations) = (part.sparsity, part.activations);
        }
        all
    }
}
