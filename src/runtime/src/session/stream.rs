//! Products and look-ups of weights in slow storage: tile by tile out of the two buffers of [`crate::streaming`]. Rows of an
//! output do not depend on each other, so the pieces give the bits of the whole matrix.

use super::linear::{Destination, Failure, Finish, Product};
use super::{Extent, Session, SessionError, range};
use crate::format::FormatError;
use crate::format::artifact::{Matrix, Parts};
use crate::format::tensor::{TensorKey, TensorPart, TensorRecord, TensorRole};
use crate::kernels::columns::Columns;
use crate::kernels::parallel::{Segment, each_tiles};
use crate::kernels::scalar;
use crate::kernels::workers::{Single, Workers};
use crate::kernels::{Activations, Kernels, Width};
use crate::layout::BLOCK_COLUMNS;
use crate::numerics::F32Bytes;
use crate::sample::has_any;
use crate::sha256::{Engine, Software};
use crate::streaming::{Check, Next, Pieces, ReadError, Source, Storage, Streamed, Traffic, part};
use core::ops::Range;

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        SessionError::Read(error)
    }
}

impl<'a, 'm> Session<'a, 'm> {
    /// A session whose weights are read from storage when they are needed, with the same results. `memory` as for
    /// [`Session::new`]; digests by this crate.
    ///
    /// # Errors
    /// [`SessionError`] of the memory or the buffers.
    pub fn streamed(
        streamed: &Streamed<'a>,
        kernels: &'static Kernels,
        storage: &'m mut dyn Storage,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        let workers: &'m dyn Workers = const { &Single };
        Session::streamed_by(streamed, kernels, (storage, const { &Software }), (workers, 1), memory)
    }

    /// The same with digests of hardware, run by several workers, for some rows, as [`Session::with_rows`] has them.
    ///
    /// # Errors
    /// [`SessionError`] of the memory or the buffers.
    pub fn streamed_by(
        streamed: &Streamed<'a>,
        kernels: &'static Kernels,
        (storage, engine): (&'m mut dyn Storage, &'m (dyn Engine + Sync)),
        (workers, rows): (&'m dyn Workers, usize),
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        let view = streamed.artifact();
        let pieces = Pieces::new(view, streamed.residency(), storage, engine, streamed.check())?;
        let mut session = Session::build(view, kernels, workers, Extent { workers: workers.count(), rows }, memory)?;
        session.pieces = Some(pieces);
        Ok(session)
    }

    /// What has been read so far; zeros where weights are in memory.
    pub fn traffic(&self) -> Traffic {
        self.pieces.as_ref().map(Pieces::traffic).unwrap_or_default()
    }

    /// Waits until nothing is being read ahead, so that the buffers may be used for something else before the next step.
    pub fn settle(&mut self) {
        if let Some(pieces) = &mut self.pieces {
            pieces.settle();
        }
    }

    /// Where a matrix comes from, if it is streamed: that which begins with a record, and its second part.
    pub(super) fn sources(&self, index: Option<usize>, parts: &Parts<'_>) -> [Option<Source>; 2] {
        let Some(first) = index.filter(|&index| self.is_streamed(index)) else { return [None; 2] };
        let offset = self.artifact.tensor_record(first).offset;
        let rest = parts.rest.and_then(|rest| {
            let own = self.artifact.tensor_record(first + 1).offset;
            let before = (parts.first.shape.tiles * rest.shape.stride) as u64;
            Some(Source { record: first + 1, base: own.checked_sub(before)? })
        });
        [Some(Source { record: first, base: offset }), rest]
    }

    fn is_streamed(&self, record: usize) -> bool {
        let residency = self.artifact.residency().filter(|_| self.pieces.is_some());
        residency.is_some_and(|residency| residency.place(record).is_none())
    }

    /// Bytes of a tensor; none where they are streamed.
    pub(super) fn bytes_here(&self, record: &TensorRecord) -> Option<&'a [u8]> {
        let streamed = self.pieces.is_some().then_some(&[][..]);
        self.artifact.tensor_bytes(record).or(streamed)
    }

    /// A streamed matrix in one part or two, without bytes.
    pub(super) fn streamed_parts(&self, key: TensorKey, index: usize) -> Option<Result<Parts<'a>, FormatError>> {
        if !self.is_streamed(index) {
            return None;
        }
        let matrix = |record: &TensorRecord| self.artifact.matrix_of(key, record, &[]);
        let parts = || {
            let first = matrix(&self.artifact.tensor_record(index))?;
            let Some(second) = self.artifact.second_part(index) else { return Ok(Parts { first, rest: None }) };
            let rows = first.rows + second.rows as usize;
            Ok(Parts { first, rest: Some(matrix(&TensorRecord { rows: rows as u32, ..second })?) })
        };
        Some(parts())
    }

    /// Whether a table that tokens are looked up in is streamed.
    pub(super) fn has_streamed_tables(&self) -> bool {
        let tables = [TensorRole::EmbedToken, TensorRole::EmbedPosition, TensorRole::EmbedType];
        let key = |role| TensorKey::global(role, TensorPart::Weight);
        self.pieces.is_some()
            && tables.into_iter().any(|role| self.record(key(role)).is_some_and(|index| self.is_streamed(index)))
    }

    /// [`Session::embed`] where tables are streamed: one tile for each row that is looked up. Never inlined: a session in
    /// memory does not pay its stack.
    #[inline(never)]
    pub(super) fn embed_streamed(&mut self, tokens: &[u32], first: usize, row: usize) -> Result<(), SessionError> {
        let artifact = self.artifact;
        let spec = artifact.spec();
        let (hidden, width) = (spec.hidden as usize, spec.embedding_width());
        let table = |there: bool, role| {
            let key = TensorKey::global(role, TensorPart::Weight);
            there.then(|| self.parts(key).map(|parts| (parts, self.sources(self.record(key), &parts)))).transpose()
        };
        let words = table(true, TensorRole::EmbedToken)?;
        let places = table(spec.learned_positions == 1, TensorRole::EmbedPosition)?;
        let types = table(spec.token_types > 0, TensorRole::EmbedType)?;
        let norm = self.global_norm(TensorRole::EmbedNorm, spec.embedding_norm)?;
        let kernels = self.kernels;
        let second_type = self.second_type;
        let Some(pieces) = &mut self.pieces else { return Err(ReadError::Interrupted.into()) };
        let mut look_up =
            |table: &(Parts<'_>, [Option<Source>; 2]), row: usize, put: &mut dyn FnMut(&Matrix<'_>, usize)| {
                let (parts, sources) = table;
                let second = parts.rest.is_some() && row >= parts.first.rows;
                let matrix = parts.of_row(row);
                let Some(source) = sources[usize::from(second)] else {
                    put(matrix, row);
                    return Ok(());
                };
                let tile = row / matrix.shape.layout.rows();
                let tiles = tile..tile + 1;
                let bytes = pieces.bring(&artifact, &matrix.shape, &source, tiles.clone(), (Next::Nothing, false))?;
                put(&part(matrix, &tiles, bytes), row % matrix.shape.layout.rows());
                Ok::<_, ReadError>(())
            };
        let failure = Failure::default();
        let to = match spec.embedding_width {
            0 => &mut self.buffers.residual[row * hidden..],
            _ => &mut *self.buffers.scratch_a,
        };
        for ((index, &token), out) in tokens.iter().enumerate().zip(to.chunks_exact_mut(width)) {
            if let Some(words) = &words {
                let scale = spec.embedding_scale;
                look_up(words, token as usize, &mut |matrix, row| scalar::scaled_row(matrix, row, scale, out))?;
            }
            let scratch = &mut self.scratch[0].row[..width];
            let kind = usize::from(first + index >= second_type);
            let places = places.iter().map(|places| (places, first + index));
            for (table, row) in places.chain(types.iter().map(|types| (types, kind))) {
                look_up(table, row, &mut |matrix, row| scalar::row(matrix, row, scratch))?;
                (kernels.add)(out, scratch);
            }
            if let Some(norm) = &norm {
                failure.note(norm.apply(kernels, out));
            }
        }
        failure.result().map_err(|_| range(0))?;
        if spec.embedding_width == 0 { Ok(()) } else { self.project(row, tokens.len()) }
    }

    /// [`Session::multiply`] where a matrix is streamed: the products one after the other, each piece by piece. Never inlined,
    /// as [`Session::embed_streamed`].
    #[inline(never)]
    pub(super) fn multiply_streamed(
        &mut self,
        products: &[Product<'_>],
        width: Width,
        count: usize,
        finish: Finish<'_>,
    ) -> Result<(), ReadError> {
        let (kernels, workers, artifact, buffers) = (self.kernels, self.workers, self.artifact, &mut self.buffers);
        let Some(pieces) = &mut self.pieces else { return Err(ReadError::Interrupted) };
        for product in products.iter().filter(|product| product.matrix.width == width) {
            let blocks = product.matrix.shape.blocks;
            let (stride, rows) = (blocks * BLOCK_COLUMNS, count * width.planes());
            let input = Activations {
                values: &buffers.activations[..rows * stride],
                offsets: &buffers.activation_offsets[..rows * blocks],
                stride,
                scales: &buffers.activation_scales[..count],
                width,
            };
            let output = match product.destination {
                Destination::A => &mut *buffers.scratch_a,
                Destination::B => &mut *buffers.scratch_b,
                Destination::AfterB(columns) => &mut buffers.scratch_b[count * columns..],
                Destination::Output => &mut *buffers.output,
            };
            let mut columns = Columns::new(&mut output[..count * product.rows()], product.rows());
            let way = Way { kernels, workers, input: &input, bias: product.bias, needed: product.needed };
            let first = product.matrix.shape.tiles;
            let parts = [(Some(product.matrix), 0..first), (product.rest, first..product.tiles())];
            for ((matrix, tiles), source) in parts.into_iter().zip(product.sources) {
                let Some(matrix) = matrix else { continue };
                match source {
                    Some(source) => way.stream(pieces, &artifact, (&matrix, &source), tiles, &mut columns)?,
                    None => way.multiply(&matrix, tiles, &mut columns),
                }
            }
            if let Finish::Activate(curve) = finish {
                (0..count).for_each(|token| (kernels.activate)(&curve, columns.row(token)));
            }
        }
        if let (Finish::Gate(curve), [gate, up]) = (finish, products)
            && [gate, up].iter().all(|product| product.matrix.width == width)
        {
            let rows = count * gate.matrix.rows;
            (kernels.gate)(&curve, &mut buffers.scratch_a[..rows], &buffers.scratch_b[..rows]);
        }
        Ok(())
    }
}

/// How a product is computed.
struct Way<'w, 'i> {
    kernels: &'static Kernels,
    workers: &'w dyn Workers,
    input: &'w Activations<'i>,
    bias: Option<F32Bytes<'w>>,
    needed: Option<&'w [u32]>,
}

impl Way<'_, '_> {
    /// Tiles that are in memory as a whole.
    fn multiply(&self, matrix: &Matrix<'_>, tiles: Range<usize>, columns: &mut Columns<'_>) {
        let rows = matrix.rows_of(&tiles);
        let (height, first) = (matrix.shape.layout.rows(), tiles.start);
        let segments =
            [Segment { tiles: tiles.len(), rows: height, outputs: [Some(columns.part(rows.clone())), None] }];
        each_tiles(self.workers, &segments, self.grain(tiles.len()), |_, tiles, outputs| {
            let [Some(mut output), _] = outputs else { return };
            (self.kernels.multiply)(matrix, self.input, first + tiles.start..first + tiles.end, &mut output);
        });
        self.add_bias(rows, columns);
    }

    /// Tiles that come through the buffers.
    fn stream(
        &self,
        pieces: &mut Pieces<'_>,
        artifact: &crate::format::artifact::ArtifactView<'_>,
        (matrix, source): (&Matrix<'_>, &Source),
        tiles: Range<usize>,
        columns: &mut Columns<'_>,
    ) -> Result<(), ReadError> {
        let is_needed = |tile: usize| match self.needed {
            None => true,
            Some(needed) => has_any(needed, matrix.rows_of(&(tile..tile + 1))),
        };
        // A digest needs every piece, whoever needs its rows.
        let all = pieces.check() == Check::Tensors || self.needed.is_none();
        let run = |pieces: &Pieces<'_>, from: usize| {
            let start = (from..tiles.end).find(|&tile| all || is_needed(tile))?;
            let piece = pieces.tiles(&matrix.shape, source, start..tiles.end);
            let end = (start + 1..piece.end).find(|&tile| !all && !is_needed(tile)).unwrap_or(piece.end);
            Some(start..end)
        };
        let mut done = tiles.start;
        let mut piece = run(pieces, tiles.start);
        while let Some(now) = piece {
            let after = run(pieces, now.end);
            let next = match &after {
                _ if all => Next::InOrder,
                Some(after) => Next::Tiles { start: after.start, end: after.end },
                None => Next::AfterTensor,
            };
            without(&matrix.rows_of(&(done..now.start)), columns);
            let bytes = pieces.bring(artifact, &matrix.shape, source, now.clone(), (next, all))?;
            let small = part(matrix, &now, bytes);
            let rows = matrix.rows_of(&now);
            let height = matrix.shape.layout.rows();
            let outputs = [Some(columns.renumbered(rows.clone())), None];
            let segments = [Segment { tiles: now.len(), rows: height, outputs }];
            each_tiles(self.workers, &segments, self.grain(now.len()), |_, tiles, outputs| {
                let [Some(mut output), _] = outputs else { return };
                (self.kernels.multiply)(&small, self.input, tiles, &mut output);
            });
            self.add_bias(rows, columns);
            if all && self.needed.is_some() {
                for tile in now.clone().filter(|&tile| !is_needed(tile)) {
                    without(&matrix.rows_of(&(tile..tile + 1)), columns);
                }
            }
            done = now.end;
            piece = after;
        }
        without(&matrix.rows_of(&(done..tiles.end)), columns);
        Ok(())
    }

    fn add_bias(&self, rows: Range<usize>, columns: &mut Columns<'_>) {
        let Some(bias) = self.bias else { return };
        let bias = bias.slice(rows.start, rows.len());
        let mut output = columns.part(rows);
        for token in 0..output.tokens() {
            for (value, offset) in output.row(token).iter_mut().zip(bias.iter()) {
                *value += offset;
            }
        }
    }

    /// Tiles that a worker takes at a time: all with one, else an even number, since kernels take tiles in pairs.
    fn grain(&self, tiles: usize) -> usize {
        match self.workers.count() {
            1 => tiles,
            count => tiles.div_ceil(4 * count).next_multiple_of(2),
        }
    }
}

/// Writes -inf to rows that nobody needs.
fn without(rows: &Range<usize>, columns: &mut Columns<'_>) {
    if rows.is_empty() {
        return;
    }
    let mut output = columns.part(rows.clone());
    (0..output.tokens()).for_each(|token| output.row(token).fill(f32::NEG_INFINITY));
}
