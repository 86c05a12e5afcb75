//! The steps of layers and heads: quantization of rows, products with matrices, and sums with the residual stream. The
//! workers share each step by tokens or by tiles of rows.

#[cfg(test)]
mod tests;

use super::norm::Norm;
use super::{Session, SessionError, range};
use crate::format::artifact::Matrix;
use crate::format::spec::{LayerRecord, NormPlacement};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::columns::Columns;
use crate::kernels::parallel::{Rows, Segment, each, each_tiles};
use crate::kernels::{Activations, Kernels, Width};
use crate::layout::BLOCK_COLUMNS;
use crate::numerics::{Curve, F32Bytes, NumericRange};
use crate::sample::has_any;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

/// The input rows of a linear.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Residual rows from this one, normed where a norm is given.
    Residual(Option<Norm<'a>>, usize),
    /// Rows of `scratch_a` of this width.
    ScratchA(usize),
    /// Rows of `scratch_b` of this width.
    ScratchB(usize),
}

/// The destination of a product's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// The front of `scratch_a`.
    A,
    /// The front of `scratch_b`.
    B,
    /// `scratch_b` after rows of this width.
    AfterB(usize),
    /// The front of the output.
    Output,
}

/// A matrix with its bias and the destination of its product.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// All rows, or the first part.
    pub(super) matrix: Matrix<'a>,
    /// The second part of a split head, see [`crate::format::artifact::Parts`].
    pub(super) rest: Option<Matrix<'a>>,
    pub(super) bias: Option<F32Bytes<'a>>,
    pub(super) destination: Destination,
    /// The rows that are needed, as [`crate::sample::mark`] has sets; `None`: all. Rows of tiles without one are -inf.
    pub(super) needed: Option<&'a [u32]>,
    /// Where the parts come from, if they are streamed.
    #[cfg(feature = "streaming")]
    pub(super) sources: [Option<crate::streaming::Source>; 2],
}

impl Product<'_> {
    /// Rows of both parts.
    pub(super) fn rows(&self) -> usize {
        self.rest.map_or(self.matrix.rows, |rest| rest.rows)
    }

    /// Tiles of both parts.
    pub(super) fn tiles(&self) -> usize {
        self.rest.map_or(self.matrix.shape.tiles, |rest| rest.shape.tiles)
    }
}

/// The step after a feed-forward network's first products.
#[derive(Clone, Copy)]
pub(super) enum Finish<'c> {
    /// Nothing.
    None,
    /// A curve, on the first.
    Activate(Curve<'c>),
    /// A curve on the first, times the second.
    Gate(Curve<'c>),
}

/// Why a linear stopped.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    /// A value is out of range.
    Range,
    /// Weights could not be read.
    #[cfg(feature = "streaming")]
    Read(crate::streaming::ReadError),
}

impl Stop {
    /// The error of a session in a layer.
    pub(super) fn at(self, layer: usize) -> SessionError {
        match self {
            Stop::Range => range(layer),
            #[cfg(feature = "streaming")]
            Stop::Read(error) => error.into(),
        }
    }
}

impl From<NumericRange> for Stop {
    fn from(_: NumericRange) -> Self {
        Stop::Range
    }
}

/// Whether any worker met a range error.
#[derive(Default)]
pub(super) struct Failure(AtomicBool);

impl Failure {
    pub(super) fn note(&self, result: Result<(), NumericRange>) {
        if result.is_err() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn result(self) -> Result<(), NumericRange> {
        if self.0.into_inner() { Err(NumericRange) } else { Ok(()) }
    }
}

impl<'a> Session<'a, '_> {
    /// A matrix of a layer or the model, with its bias.
    pub(super) fn product(&self, key: TensorKey, destination: Destination) -> Result<Product<'a>, SessionError> {
        let bias = self.optional_vector(TensorKey { part: TensorPart::Bias, ..key })?;
        let matrix = self.matrix(key)?;
        Ok(Product {
            matrix,
            rest: None,
            bias,
            destination,
            needed: None,
            #[cfg(feature = "streaming")]
            sources: self.sources(self.record(key), &crate::format::artifact::Parts { first: matrix, rest: None }),
        })
    }

    /// Multiplies `count` rows of an input with matrices that all read it, into different destinations. Matrices with
    /// another activation width are multiplied in a second round.
    pub(super) fn linear(
        &mut self,
        input: Input<'_>,
        products: &[Product<'_>],
        count: usize,
        finish: Finish<'_>,
    ) -> Result<(), Stop> {
        let widths = [Width::Bits8, Width::Bits16];
        for width in widths.into_iter().filter(|&width| products.iter().any(|p| p.matrix.width == width)) {
            self.quantize(input, width, count)?;
            #[cfg(feature = "streaming")]
            if products.iter().any(|product| product.matrix.width == width && product.sources[0].is_some()) {
                self.multiply_streamed(products, width, count, finish).map_err(Stop::Read)?;
                continue;
            }
            self.multiply(products, width, count, finish);
        }
        if let (Finish::Gate(curve), [gate, up]) = (finish, products)
            && gate.matrix.width != up.matrix.width
        {
            let rows = count * gate.matrix.rows;
            (self.kernels.gate)(&curve, &mut self.buffers.scratch_a[..rows], &self.buffers.scratch_b[..rows]);
        }
        Ok(())
    }

    /// Quantizes rows of an input.
    pub(super) fn quantize(&mut self, input: Input<'_>, width: Width, count: usize) -> Result<(), NumericRange> {
        let (kernels, buffers) = (self.kernels, &mut self.buffers);
        let hidden = self.scratch[0].row.len();
        let (norm, x, columns) = match input {
            Input::Residual(norm, row) => (norm, &buffers.residual[row * hidden..][..count * hidden], hidden),
            Input::ScratchA(columns) => (None, &buffers.scratch_a[..count * columns], columns),
            Input::ScratchB(columns) => (None, &buffers.scratch_b[..count * columns], columns),
        };
        let groups = columns.div_ceil(BLOCK_COLUMNS) * width.planes();
        let rows = (
            Rows::new(&mut buffers.activations[..count * groups * BLOCK_COLUMNS], groups * BLOCK_COLUMNS),
            Rows::new(&mut buffers.activation_offsets[..count * groups], groups),
            Rows::new(&mut buffers.activation_scales[..count], 1),
        );
        let entry = match width {
            Width::Bits8 => kernels.quantize,
            Width::Bits16 => kernels.quantize_a16,
        };
        let failure = Failure::default();
        each(
            self.workers,
            count == 1,
            &mut self.scratch[..self.seats],
            rows,
            |token, (out, offsets, scale), scratch| {
                let x = &x[token * columns..][..columns];
                let result = match norm {
                    Some(norm) => {
                        scratch.row.copy_from_slice(x);
                        norm.apply(kernels, scratch.row).and_then(|()| entry(scratch.row, out, offsets))
                    }
                    None => entry(x, out, offsets),
                };
                failure.note(result.map(|found| scale[0] = found));
            },
        );
        failure.result()
    }

    /// Multiplies the current activations with the matrices that take their width.
    fn multiply(&mut self, products: &[Product<'_>], width: Width, count: usize, finish: Finish<'_>) {
        let (kernels, buffers) = (self.kernels, &mut self.buffers);
        let Some(first) = products.iter().find(|product| product.matrix.width == width) else { return };
        let stride = first.matrix.shape.blocks * BLOCK_COLUMNS;
        let rows = count * width.planes();
        let input = Activations {
            values: &buffers.activations[..rows * stride],
            offsets: &buffers.activation_offsets[..rows * first.matrix.shape.blocks],
            stride,
            scales: &buffers.activation_scales[..count],
            width,
        };
        let (mut scratch_a, mut scratch_b) = (Some(&mut *buffers.scratch_a), Some(&mut *buffers.scratch_b));
        let (mut after_b, mut output) = (None, Some(&mut *buffers.output));
        if let Some(Destination::AfterB(columns)) =
            products.iter().map(|p| p.destination).find(|p| matches!(p, Destination::AfterB(_)))
        {
            let (front, back) = scratch_b.take().unwrap_or_default().split_at_mut(count * columns);
            (scratch_b, after_b) = (Some(front), Some(back));
        }
        let mut output_of = |product: &Product<'_>| -> Option<Columns<'_>> {
            let array = match product.destination {
                Destination::A => scratch_a.take(),
                Destination::B => scratch_b.take(),
                Destination::AfterB(_) => after_b.take(),
                Destination::Output => output.take(),
            };
            array.map(|array| Columns::new(&mut array[..count * product.rows()], product.rows()))
        };
        let segment = |product: &Product<'_>, outputs| Segment {
            tiles: product.tiles(),
            rows: product.matrix.shape.layout.rows(),
            outputs,
        };
        if let (Finish::Gate(curve), [gate, up]) = (finish, products)
            && gate.matrix.width == up.matrix.width
        {
            let segments = [segment(gate, [output_of(gate), output_of(up)])];
            let bytes = gate.matrix.shape.stride + up.matrix.shape.stride;
            each_tiles(self.workers, &segments, grain(self.workers.count(), &segments, bytes), |_, tiles, outputs| {
                let [Some(mut gates), Some(mut ups)] = outputs else { return };
                run(kernels, gate, &input, tiles.clone(), &mut gates);
                run(kernels, up, &input, tiles, &mut ups);
                for token in 0..count {
                    (kernels.gate)(&curve, gates.row(token), ups.row(token));
                }
            });
            return;
        }
        let mut segments = [const { Segment { tiles: 0, rows: 0, outputs: [None, None] } }; 3];
        let chosen = products.iter().filter(|product| product.matrix.width == width);
        for (slot, product) in segments.iter_mut().zip(chosen.clone()) {
            *slot = segment(product, [output_of(product), None]);
        }
        let grain = grain(self.workers.count(), &segments, first.matrix.shape.stride);
        each_tiles(self.workers, &segments, grain, |number, tiles, outputs| {
            let (Some(product), [Some(mut output), _]) = (chosen.clone().nth(number), outputs) else { return };
            match product.needed {
                None => run(kernels, product, &input, tiles, &mut output),
                Some(needed) => run_needed(kernels, product, needed, &input, tiles, &mut output),
            }
            if let Finish::Activate(curve) = finish {
                for token in 0..count {
                    (kernels.activate)(&curve, output.row(token));
                }
            }
        });
    }

    /// Adds what both parts of a layer side by side have left in `scratch_b` to residual rows.
    pub(super) fn add_both(&mut self, row: usize, count: usize) {
        let kernels = self.kernels;
        let hidden = self.scratch[0].row.len();
        let (first, second) = self.buffers.scratch_b[..2 * count * hidden].split_at_mut(count * hidden);
        let rows = (
            Rows::new(&mut self.buffers.residual[row * hidden..][..count * hidden], hidden),
            Rows::new(first, hidden),
            Rows::new(second, hidden),
        );
        each(self.workers, count == 1, &mut self.scratch[..self.seats], rows, |_, (x, y, z), _| {
            (kernels.add)(x, y);
            (kernels.add)(x, z);
        });
    }

    /// Adds rows of `scratch_b` to residual rows. With norms after the sum, the norm of `sites.0` is applied to it;
    /// with norms around, the norm of `sites.1` is applied to the added rows.
    pub(super) fn add_residual(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        sites: (TensorRole, TensorRole),
        row: usize,
        count: usize,
    ) -> Result<(), SessionError> {
        let norm = |site| self.layer_norm(index, layer, site);
        let (of_sum, of_addend) = match NormPlacement::from_number(layer.norm_placement) {
            Some(NormPlacement::After) => (Some(norm(sites.0)?), None),
            Some(NormPlacement::Around | NormPlacement::Added) => (None, Some(norm(sites.1)?)),
            _ => (None, None),
        };
        let kernels = self.kernels;
        let hidden = self.scratch[0].row.len();
        let apply = |norm: &Option<Norm<'_>>, x: &mut [f32]| match norm {
            Some(norm) => norm.apply(kernels, x),
            None => Ok(()),
        };
        let rows = (
            Rows::new(&mut self.buffers.residual[row * hidden..][..count * hidden], hidden),
            Rows::new(&mut self.buffers.scratch_b[..count * hidden], hidden),
        );
        let failure = Failure::default();
        each(self.workers, count == 1, &mut self.scratch[..self.seats], rows, |_, (x, y), _| {
            failure.note(apply(&of_addend, y));
            (kernels.add)(x, y);
            failure.note(apply(&of_sum, x));
        });
        failure.result().map_err(|_| range(index))
    }
}

/// Computes tiles of a product and adds the bias.
fn run(
    kernels: &Kernels,
    product: &Product<'_>,
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let first = product.matrix.shape.tiles;
    let of_first = tiles.start..tiles.end.min(first);
    if !of_first.is_empty() {
        let rows = product.matrix.rows_of(&of_first);
        (kernels.multiply)(&product.matrix, input, of_first, &mut output.part(rows));
    }
    if let Some(rest) = product.rest.filter(|_| tiles.end > first) {
        let of_rest = tiles.start.max(first)..tiles.end;
        let rows = rest.rows_of(&of_rest);
        (kernels.multiply)(&rest, input, of_rest, &mut output.part(rows));
    }
    if let Some(bias) = product.bias {
        let columns = output.range();
        let bias = bias.slice(columns.start, columns.len());
        for token in 0..output.tokens() {
            for (value, offset) in output.row(token).iter_mut().zip(bias.iter()) {
                *value += offset;
            }
        }
    }
}

/// Computes the tiles of a product that have a row of a set, and writes -inf to the rows of the others.
fn run_needed(
    kernels: &Kernels,
    product: &Product<'_>,
    needed: &[u32],
    input: &Activations<'_>,
    tiles: Range<usize>,
    output: &mut Columns<'_>,
) {
    let (height, all) = (product.matrix.shape.layout.rows(), product.rows());
    let rows = |tiles: Range<usize>| (tiles.start * height).min(all)..(tiles.end * height).min(all);
    let is_needed = |tile: usize| has_any(needed, rows(tile..tile + 1));
    let mut start = tiles.start;
    while start < tiles.end {
        let computed = is_needed(start);
        let end = (start + 1..tiles.end).find(|&tile| is_needed(tile) != computed).unwrap_or(tiles.end);
        let mut part = output.part(rows(start..end));
        if computed {
            run(kernels, product, input, start..end, &mut part);
        } else {
            (0..part.tokens()).for_each(|token| part.row(token).fill(f32::NEG_INFINITY));
        }
        start = end;
    }
}

/// Smallest number of tiles that a worker takes at a time: all with one worker; else few enough to balance the end of
/// the product, enough bytes to pay for the synchronisation, and an even number, since kernels take tiles in pairs.
pub(super) fn grain(workers: usize, segments: &[Segment<'_>], tile_bytes: usize) -> usize {
    const LEAST_BYTES: usize = 16 * 1024;
    let tiles: usize = segments.iter().map(|segment| segment.tiles).sum();
    if workers == 1 {
        return tiles;
    }
    tiles.div_ceil(16 * workers).max(LEAST_BYTES / tile_bytes.max(1)).next_multiple_of(2)
}
