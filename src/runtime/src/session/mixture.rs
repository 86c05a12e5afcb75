//! A feed-forward network of experts: the router scores them, each token has those with the highest scores, and what their
//! networks give is added up, times the softmax of the chosen scores alone ([numerics.md](../../../docs/numerics.md)). An expert
//! is computed for the tokens that have it, one expert after the other; one that no token has is not read.
//!
//! ```text
//! Gate, Up (experts · width, hidden)   rows of expert e: e · width ..
//! Down     (experts · hidden, width)   rows of expert e: e · hidden ..
//! ```

use super::linear::{Destination, Failure, Finish, Input, grain};
use super::{Session, SessionError, range};
use crate::format::artifact::Matrix;
use crate::format::spec::{LayerRecord, MAX_CHUNK};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::columns::Columns;
use crate::kernels::parallel::{Rows, Segment, each, each_tiles};
use crate::kernels::{Activations, Width};
use crate::layout::BLOCK_COLUMNS;
use crate::memory::Memory;
use crate::numerics::{Curve, NumericRange, shares};
use crate::plan::Plan;

/// The memory of a mixture beside the session's other buffers; empty where the model has none.
pub(super) struct Routed<'m> {
    /// (chunk, experts): shares of a chunk's tokens, 0 for the experts that a token does not have.
    pub(super) shares: &'m mut [f32],
    /// (chunk, hidden): what the experts have given so far.
    pub(super) sums: &'m mut [f32],
    /// Quantized inputs of one expert, as [`super::Buffers::activations`] has those of all tokens.
    pub(super) activations: &'m mut [i8],
    pub(super) offsets: &'m mut [i32],
    pub(super) scales: &'m mut [f32],
}

impl<'m> Routed<'m> {
    pub(super) fn of(arena: &mut Memory<'m>, plan: &Plan) -> Option<Self> {
        let rows = if plan.experts > 0 { plan.chunk } else { 0 };
        Some(Routed {
            shares: arena.f32s(plan.chunk * plan.experts)?,
            sums: arena.f32s(rows * plan.hidden)?,
            activations: arena.i8s(rows * plan.planes * plan.activations)?,
            offsets: arena.i32s(rows * plan.planes * (plan.activations / BLOCK_COLUMNS))?,
            scales: arena.f32s(rows)?,
        })
    }
}

/// The tokens of a chunk that have an expert.
struct Members {
    tokens: [u8; MAX_CHUNK],
    count: usize,
}

impl Members {
    fn of(shares: &[f32], experts: usize, expert: usize) -> Self {
        let mut members = Members { tokens: [0; MAX_CHUNK], count: 0 };
        for (token, shares) in shares.chunks_exact(experts).enumerate() {
            if shares[expert] > 0.0 {
                members.tokens[members.count] = token as u8;
                members.count += 1;
            }
        }
        members
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.tokens[..self.count].iter().map(|&token| usize::from(token))
    }
}

impl Session<'_, '_> {
    /// The rows that a mixture adds, at the front of `scratch_b`. Never inlined: other models do not pay its stack.
    #[inline(never)]
    pub(super) fn mixture(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        input: Input<'_>,
        count: usize,
    ) -> Result<(), SessionError> {
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let (experts, chosen) = (usize::from(layer.experts), usize::from(layer.chosen));
        let router = [self.product(key(TensorRole::Router), Destination::A)?];
        self.linear(input, &router, count, Finish::None).map_err(|stop| stop.at(index))?;
        let routed = &mut self.buffers.routed;
        let scores = self.buffers.scratch_a[..count * experts].chunks_exact(experts);
        for (scores, out) in scores.zip(routed.shares.chunks_exact_mut(experts)) {
            shares(scores, chosen, out);
        }
        let hidden = self.scratch[0].row.len();
        routed.sums[..count * hidden].fill(0.0);
        let curve = self.curve(layer.activation)?;
        let [gate, up, down] = [TensorRole::Gate, TensorRole::Up, TensorRole::Down].map(|role| self.matrix(key(role)));
        let (gate, up, down) = (gate?, up?, down?);
        // The router has quantized its input to its own width.
        if router[0].matrix.width != gate.width {
            self.quantize(input, gate.width, count).map_err(|_| range(index))?;
        }
        for expert in 0..experts {
            let members = Members::of(&self.buffers.routed.shares[..count * experts], experts, expert);
            if members.count > 0 {
                let matrices = [gate, up, down].map(|matrix| matrix.of_expert(expert, experts));
                self.expert(&matrices, &curve, (expert, experts), &members).map_err(|_| range(index))?;
            }
        }
        let sums = &self.buffers.routed.sums[..count * hidden];
        self.buffers.scratch_b[..count * hidden].copy_from_slice(sums);
        Ok(())
    }

    /// Adds what one expert gives the tokens that have it to their sums.
    fn expert(
        &mut self,
        [gate, up, down]: &[Matrix<'_>; 3],
        curve: &Curve<'_>,
        (expert, experts): (usize, usize),
        members: &Members,
    ) -> Result<(), NumericRange> {
        let (kernels, workers, buffers, count) = (self.kernels, self.workers, &mut self.buffers, members.count);
        let routed = &mut buffers.routed;
        // Rows of a token's planes, which stand together.
        let (planes, blocks) = (gate.width.planes(), gate.shape.blocks);
        let (bytes, groups) = (planes * blocks * BLOCK_COLUMNS, planes * blocks);
        for (n, token) in members.iter().enumerate() {
            let row = &buffers.activations[token * bytes..][..bytes];
            routed.activations[n * bytes..][..bytes].copy_from_slice(row);
            let row = &buffers.activation_offsets[token * groups..][..groups];
            routed.offsets[n * groups..][..groups].copy_from_slice(row);
            routed.scales[n] = buffers.activation_scales[token];
        }
        let input = routed.input(gate, count);
        let width = gate.rows;
        let columns = |array| Some(Columns::new(array, width));
        let outputs =
            [columns(&mut buffers.scratch_a[..count * width]), columns(&mut buffers.scratch_b[..count * width])];
        let segments = [Segment { tiles: gate.shape.tiles, rows: gate.shape.layout.rows(), outputs }];
        let tile_bytes = gate.shape.stride + up.shape.stride;
        each_tiles(workers, &segments, grain(workers.count(), &segments, tile_bytes), |_, tiles, outputs| {
            let [Some(mut gates), Some(mut ups)] = outputs else { return };
            (kernels.multiply)(gate, &input, tiles.clone(), &mut gates);
            (kernels.multiply)(up, &input, tiles, &mut ups);
            (0..count).for_each(|token| (kernels.gate)(curve, gates.row(token), ups.row(token)));
        });

        let (planes, blocks) = (down.width.planes(), down.shape.blocks);
        let (bytes, groups) = (planes * blocks * BLOCK_COLUMNS, planes * blocks);
        let rows = (
            Rows::new(&mut routed.activations[..count * bytes], bytes),
            Rows::new(&mut routed.offsets[..count * groups], groups),
            Rows::new(&mut routed.scales[..count], 1),
        );
        let entry = match down.width {
            Width::Bits8 => kernels.quantize,
            Width::Bits16 => kernels.quantize_a16,
        };
        let (inner, failure) = (&*buffers.scratch_a, Failure::default());
        each(workers, count == 1, &mut self.scratch[..self.seats], rows, |token, (out, offsets, scale), _| {
            let result = entry(&inner[token * width..][..width], out, offsets);
            failure.note(result.map(|found| scale[0] = found));
        });
        failure.result()?;

        let (input, hidden) = (routed.input(down, count), down.rows);
        let output = &mut buffers.scratch_b[..count * hidden];
        let outputs = [Some(Columns::new(output, hidden)), None];
        let segments = [Segment { tiles: down.shape.tiles, rows: down.shape.layout.rows(), outputs }];
        each_tiles(workers, &segments, grain(workers.count(), &segments, down.shape.stride), |_, tiles, outputs| {
            let [Some(mut output), _] = outputs else { return };
            (kernels.multiply)(down, &input, tiles, &mut output);
        });
        for (n, token) in members.iter().enumerate() {
            let share = routed.shares[token * experts + expert];
            let given = &buffers.scratch_b[n * hidden..][..hidden];
            for (sum, value) in routed.sums[token * hidden..][..hidden].iter_mut().zip(given) {
                *sum += share * value;
            }
        }
        Ok(())
    }
}

impl Routed<'_> {
    /// The inputs of an expert's matrix for `count` tokens.
    fn input(&self, matrix: &Matrix<'_>, count: usize) -> Activations<'_> {
        let (planes, blocks) = (matrix.width.planes(), matrix.shape.blocks);
        let stride = blocks * BLOCK_COLUMNS;
        Activations {
            values: &self.activations[..count * planes * stride],
            offsets: &self.offsets[..count * planes * blocks],
            stride,
            scales: &self.scales[..count],
            width: matrix.width,
        }
    }
}
