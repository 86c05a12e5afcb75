//! The executor: tokens in, logits out, for decoders with a key-value cache and for encoders, in memory the caller
//! owns. Activations are quantized per token, so the chunking of a prompt cannot affect the result. This file has the
//! order of steps; layers, linears and the head have modules of their own.

mod conv;
mod error;
#[cfg(feature = "exits")]
mod exits;
mod head;
mod history;
mod layer;
mod linear;
#[cfg(feature = "mixtures")]
mod mixture;
mod norm;
#[cfg(feature = "snapshots")]
mod snapshot;
#[cfg(feature = "streaming")]
mod stream;
mod tensors;
#[cfg(feature = "speculation")]
mod verify;

use crate::attention::Attention;
use crate::cache::CacheShape;
use crate::format::artifact::ArtifactView;
use crate::format::spec::{Block, LayerRecord, Output};
use crate::kernels::Kernels;
use crate::kernels::workers::{MAX_WORKERS, Single, Workers};
use crate::layout::BLOCK_COLUMNS;
use crate::memory::Memory;
use crate::plan::Plan;
pub use error::SessionError;
use error::range;
#[cfg(feature = "exits")]
pub use exits::{Leaving, SeeHead};
use history::{Before, History};
#[cfg(feature = "mixtures")]
use mixture::Routed;
#[cfg(feature = "snapshots")]
pub use snapshot::{SnapshotError, snapshot_bytes};

/// A running model.
pub struct Session<'a, 'm> {
    artifact: ArtifactView<'a>,
    kernels: &'static Kernels,
    workers: &'m dyn Workers,
    buffers: Buffers<'m>,
    /// Scratch of each worker.
    scratch: [Scratch<'m>; MAX_WORKERS],
    /// Number of workers.
    seats: usize,
    cache: &'m mut [u8],
    /// Positions in the cache.
    length: usize,
    /// The most that there were since the sequence began: what a ring has lost goes by it.
    written: usize,
    /// Whether no step failed after it had changed the cache: else a part of the layers has read what others have not.
    whole: bool,
    /// Positions whose logits are computed together.
    rows: usize,
    /// The first position of an encoder's text that is of the second token type.
    second_type: usize,
    /// Layers that the last text of a classifier was computed through.
    #[cfg(feature = "exits")]
    left_after: usize,
    #[cfg(feature = "exits")]
    leaving: Leaving,
    /// Positions that `Session::verify` reads.
    #[cfg(feature = "speculation")]
    verified: usize,
    history: History<'m>,
    /// The buffers of weights in slow storage.
    #[cfg(feature = "streaming")]
    pieces: Option<crate::streaming::Pieces<'m>>,
}

/// What a session has beyond its artifact's plan. The memory for it lies after the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Workers, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// Positions of a decoder whose logits are computed together and that can be taken back, at most the artifact's
    /// chunk; 1 leaves it at the plan.
    pub rows: usize,
}

impl Extent {
    /// Nothing beyond the plan.
    pub const PLANNED: Extent = Extent { workers: 1, rows: 1 };

    /// Several workers.
    pub const fn of_workers(workers: usize) -> Extent {
        Extent { workers, rows: 1 }
    }

    pub(crate) fn within(self, plan: &Plan) -> Extent {
        Extent { workers: self.workers.clamp(1, MAX_WORKERS), rows: self.rows.clamp(1, plan.chunk) }
    }
}

/// The arena's regions that workers share; shapes in [`Plan`].
struct Buffers<'m> {
    residual: &'m mut [f32],
    scratch_a: &'m mut [f32],
    scratch_b: &'m mut [f32],
    activations: &'m mut [i8],
    activation_offsets: &'m mut [i32],
    activation_scales: &'m mut [f32],
    /// (layers + 1): number of records before those of each layer.
    starts: &'m mut [u32],
    output: &'m mut [f32],
    #[cfg(feature = "mixtures")]
    routed: Routed<'m>,
}

/// Scratch of one worker.
#[derive(Default)]
struct Scratch<'m> {
    /// (hidden)
    row: &'m mut [f32],
    attention: Attention<'m>,
}

impl<'a, 'm> Session<'a, 'm> {
    /// Bytes of memory a session of one worker needs: arena and cache.
    pub fn required_bytes(artifact: &ArtifactView<'_>) -> u64 {
        artifact.spec().arena_bytes + artifact.spec().cache_bytes
    }

    /// Bytes of memory that a session of some extent needs.
    pub fn required_bytes_for(artifact: &ArtifactView<'_>, extent: Extent) -> u64 {
        let further = Plan::of(artifact).and_then(|plan| plan.beyond(extent));
        Self::required_bytes(artifact).saturating_add(further.unwrap_or(0))
    }

    /// A session without tokens. `memory` must start on 64 bytes and have exactly [`Session::required_bytes`].
    pub fn new(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        Session::open(artifact, kernels, const { &Single }, 1, memory)
    }

    /// A session of one worker that computes the logits of `rows` positions together and can take them back. `memory`
    /// must start on 64 bytes and have exactly [`Session::required_bytes_for`] of that extent.
    pub fn with_rows(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        rows: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        Session::open(artifact, kernels, const { &Single }, rows, memory)
    }

    /// A session run by several workers, with the same results, and `rows` as for [`Session::with_rows`]. `memory` must
    /// start on 64 bytes and have exactly [`Session::required_bytes_for`] of that extent.
    #[cfg(target_has_atomic = "64")]
    pub fn with_workers(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        workers: &'m dyn Workers,
        rows: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        Session::open(artifact, kernels, workers, rows, memory)
    }

    fn open(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        workers: &'m dyn Workers,
        rows: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        #[cfg(feature = "seal")]
        if artifact.is_sealed() {
            return Err(SessionError::Format(crate::format::FormatError::Sealed));
        }
        #[cfg(feature = "streaming")]
        if artifact.is_streamed() {
            return Err(SessionError::Format(crate::format::FormatError::Streamed));
        }
        Session::build(artifact, kernels, workers, Extent { workers: workers.count(), rows }, memory)
    }

    fn build(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        workers: &'m dyn Workers,
        extent: Extent,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        let (expected, actual) = (Self::required_bytes_for(artifact, extent), memory.len() as u64);
        let size = SessionError::MemorySize { expected, actual };
        if expected != actual {
            return Err(size);
        }
        let plan = Plan::of(artifact).ok_or(size)?;
        let Extent { workers: seats, rows } = extent.within(&plan);
        let arena_bytes = usize::try_from(plan.arena_bytes).map_err(|_| size)?;
        let cache_bytes = usize::try_from(plan.cache_bytes).map_err(|_| size)?;
        let (arena, rest) = memory.split_at_mut(arena_bytes);
        let (cache, further) = rest.split_at_mut(cache_bytes);
        let mut arena = Memory::new(arena).map_err(|_| SessionError::MemoryAlignment)?;
        let mut further = Memory::new(further).map_err(|_| SessionError::MemoryAlignment)?;
        let mut buffers = Buffers::of(&mut arena, &plan).ok_or(size)?;
        if let Some(wider) = plan.wider_output(rows) {
            buffers.output = further.f32s(wider).ok_or(size)?;
        }
        let history = History::new(further.f32s(plan.history(rows)).ok_or(size)?, rows);
        let mut scratch: [Scratch<'m>; MAX_WORKERS] = Default::default();
        for (seat, scratch) in scratch[..seats].iter_mut().enumerate() {
            let memory = if seat == 0 { &mut arena } else { &mut further };
            *scratch = Scratch::of(memory, &plan).ok_or(size)?;
        }
        if arena.remaining() + further.remaining() != 0 {
            return Err(size);
        }
        for (layer, start) in buffers.starts.iter_mut().enumerate() {
            *start = artifact.records_before(layer) as u32;
        }
        // What convolutions have read must be kept to be taken back.
        let planned = artifact.spec().output_rows as usize;
        #[cfg(feature = "speculation")]
        let verified = if plan.history(2) > 0 { rows } else { rows.max(planned) };
        // A session of more rows has room for their logits where the plan has that of a language model alone.
        let rows = if plan.wider_output(rows).is_some() { rows } else { planned };
        let artifact = *artifact;
        Ok(Session {
            artifact,
            kernels,
            workers,
            buffers,
            scratch,
            seats,
            cache,
            length: 0,
            written: 0,
            whole: true,
            rows,
            second_type: usize::MAX,
            #[cfg(feature = "exits")]
            left_after: 0,
            #[cfg(feature = "exits")]
            leaving: Leaving::default(),
            #[cfg(feature = "speculation")]
            verified,
            history,
            #[cfg(feature = "streaming")]
            pieces: None,
        })
    }

    /// The artifact that it runs.
    pub fn artifact(&self) -> &ArtifactView<'a> {
        &self.artifact
    }

    /// Positions read so far.
    pub fn positions(&self) -> usize {
        self.length
    }

    /// Clears the sequence.
    pub fn reset(&mut self) {
        (self.length, self.written, self.whole) = (0, 0, true);
        #[cfg(feature = "exits")]
        {
            self.left_after = 0;
        }
        self.history.forget();
        #[cfg(feature = "streaming")]
        if let Some(pieces) = &mut self.pieces {
            pieces.forget();
        }
    }

    /// Appends tokens to a decoder's sequence without any output.
    pub fn read(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        self.read_chunks(tokens).map(|_| ())
    }

    /// Appends tokens to a decoder's sequence; returns how many of the last are in memory as residual rows.
    fn read_chunks(&mut self, tokens: &[u32]) -> Result<usize, SessionError> {
        if !self.is_decoder() {
            return Err(SessionError::NotADecoder);
        }
        self.check_tokens(tokens)?;
        let chunk = self.artifact.spec().chunk as usize;
        let mut last_rows = 0;
        for part in tokens.chunks(chunk) {
            self.read_chunk(part)?;
            last_rows = part.len();
        }
        Ok(last_rows)
    }

    /// Appends tokens to a decoder's sequence and returns the logits after the last one.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.step_of(tokens, None)
    }

    /// As [`Session::step`], where only the logits of a set of tokens are needed ([`crate::sample::mark`]): those are the
    /// same, and logits that were not computed are -inf.
    pub fn step_allowed(&mut self, tokens: &[u32], allowed: &[u32]) -> Result<&[f32], SessionError> {
        self.step_of(tokens, Some(allowed))
    }

    fn step_of(&mut self, tokens: &[u32], needed: Option<&[u32]>) -> Result<&[f32], SessionError> {
        let last_rows = self.read_chunks(tokens)?;
        let last = last_rows - 1;
        if self.artifact.spec().pooling().is_some() {
            self.pool(last_rows)?;
            return Ok(&*self.buffers.output);
        }
        match self.is_classifier() {
            true => self.label(last)?,
            false => self.head_rows_of(last, 1, needed)?,
        }
        let width = self.artifact.spec().output_width as usize;
        if self.output_kind() == Output::Hidden { Ok(&*self.scratch[0].row) } else { Ok(&self.buffers.output[..width]) }
    }

    /// Runs tokens through the model and passes every output row in order, with its position, to `each`: a decoder
    /// continues its sequence, an encoder and every classifier start over and read the whole sequence. A classifier has
    /// one row, and so has a model that pools.
    pub fn run(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        if self.is_decoder() {
            if self.is_classifier() {
                self.reset();
            }
            self.check_tokens(tokens)?;
            let (pools, labels) = (self.artifact.spec().pooling().is_some(), self.is_classifier());
            let mut last_rows = 0;
            for part in tokens.chunks(self.artifact.spec().chunk as usize) {
                let first = self.length;
                self.read_chunk(part)?;
                last_rows = part.len();
                if !pools && !labels {
                    self.hand_out(first, part.len(), each)?;
                }
            }
            if pools {
                self.pool(last_rows)?;
                each(0, self.buffers.output);
            } else if labels {
                self.label(last_rows - 1)?;
                each(0, self.buffers.output);
            }
            return Ok(());
        }
        self.reset();
        self.check_tokens(tokens)?;
        #[cfg(feature = "exits")]
        let left = self.encode(tokens, None)?;
        #[cfg(not(feature = "exits"))]
        let left = self.encode(tokens)?;
        match self.output_kind() {
            Output::Classifier => {
                if !left {
                    self.classify(tokens.len())?;
                    #[cfg(feature = "exits")]
                    {
                        self.left_after = self.artifact.spec().layers as usize;
                    }
                }
                each(0, self.buffers.output);
                Ok(())
            }
            Output::Hidden if self.artifact.spec().pooling().is_some() => {
                self.pool(tokens.len())?;
                each(0, self.buffers.output);
                Ok(())
            }
            _ => self.hand_out(0, tokens.len(), each),
        }
    }

    fn is_classifier(&self) -> bool {
        self.output_kind() == Output::Classifier
    }

    fn is_decoder(&self) -> bool {
        self.artifact.spec().is_decoder()
    }

    fn output_kind(&self) -> Output {
        Output::from_number(self.artifact.spec().output).unwrap_or(Output::Hidden)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), SessionError> {
        #[cfg(feature = "streaming")]
        if let Some(pieces) = &self.pieces {
            pieces.check_whole()?;
        }
        self.check_sequence()?;
        let spec = self.artifact.spec();
        if tokens.is_empty() {
            return Err(SessionError::Empty);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token >= spec.vocabulary) {
            return Err(SessionError::Token(token));
        }
        if tokens.len() > spec.context as usize - self.length {
            return Err(SessionError::ContextFull { context: spec.context });
        }
        Ok(())
    }

    /// Whether the sequence may go on.
    fn check_sequence(&self) -> Result<(), SessionError> {
        if self.whole { Ok(()) } else { Err(SessionError::Interrupted) }
    }

    /// Runs one chunk of a decoder's tokens through every layer; the residual rows remain for the head.
    fn read_chunk(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        let first = self.length;
        self.embed(tokens, first, 0)?;
        self.whole = false;
        let (mut cache_start, mut convolutions) = (0, Before::default());
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            if layer.block == Block::Conv as u8 {
                let rows = Placed { row: 0, count: tokens.len(), first };
                self.convolve(index, &layer, (cache_start, convolutions), rows)?;
                convolutions = convolutions.and(layer.taps as usize - 1);
            } else {
                let rows = Placed { row: 0, count: tokens.len(), first };
                self.read_keys(index, &layer, cache_start, rows)?;
                self.mix(index, &layer, cache_start, rows, first + tokens.len())?;
            }
            cache_start += self.cache_bytes(&layer);
        }
        self.length += tokens.len();
        self.written = self.written.max(self.length);
        self.whole = true;
        Ok(())
    }

    /// Runs a whole sequence through an encoder: keys and values of a layer for every chunk before any chunk attends. Says
    /// whether it left at an exit head, whose logits are then the output; those of all go to `every`.
    fn encode(
        &mut self,
        tokens: &[u32],
        #[cfg(feature = "exits")] mut every: Option<&mut SeeHead<'_>>,
    ) -> Result<bool, SessionError> {
        let chunk = self.artifact.spec().chunk as usize;
        let separator = self.artifact.spec().separator();
        let last_of_first = tokens.iter().position(|&token| Some(token) == separator);
        self.second_type = last_of_first.map_or(usize::MAX, |place| place + 1);
        for (part, ids) in tokens.chunks(chunk).enumerate() {
            self.embed(ids, part * chunk, part * chunk)?;
        }
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            for (part, ids) in tokens.chunks(chunk).enumerate() {
                let rows = Placed { row: part * chunk, count: ids.len(), first: part * chunk };
                self.read_keys(index, &layer, 0, rows)?;
            }
            for (part, ids) in tokens.chunks(chunk).enumerate() {
                let rows = Placed { row: part * chunk, count: ids.len(), first: part * chunk };
                self.mix(index, &layer, 0, rows, tokens.len())?;
            }
            #[cfg(feature = "exits")]
            if layer.exit_head == 1 && self.leaves(index, every.as_deref_mut())? {
                self.left_after = index + 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn layer(&self, index: usize) -> LayerRecord {
        self.artifact.layer(index)
    }

    fn cache_bytes(&self, layer: &LayerRecord) -> usize {
        crate::plan::layer_cache_bytes(layer, self.artifact.spec()).unwrap_or(0) as usize
    }

    fn cache_shape(&self, layer: &LayerRecord) -> CacheShape {
        let spec = self.artifact.spec();
        CacheShape::of(layer, spec.context as usize, spec.chunk as usize)
    }
}

impl<'m> Buffers<'m> {
    fn of(arena: &mut Memory<'m>, plan: &Plan) -> Option<Self> {
        let rows = plan.chunk * plan.planes;
        Some(Buffers {
            residual: arena.f32s(plan.residual_rows * plan.hidden)?,
            scratch_a: arena.f32s(plan.chunk * plan.scratch_a)?,
            scratch_b: arena.f32s(plan.chunk * plan.scratch_b)?,
            activations: arena.i8s(rows * plan.activations)?,
            activation_offsets: arena.i32s(rows * (plan.activations / BLOCK_COLUMNS))?,
            activation_scales: arena.f32s(plan.chunk)?,
            starts: arena.u32s(plan.layers + 1)?,
            output: arena.f32s(plan.output)?,
            #[cfg(feature = "mixtures")]
            routed: Routed::of(arena, plan)?,
        })
    }
}

impl<'m> Scratch<'m> {
    fn of(memory: &mut Memory<'m>, plan: &Plan) -> Option<Self> {
        Some(Scratch {
            row: memory.f32s(plan.hidden)?,
            attention: Attention {
                query: memory.i8s(plan.head_dim)?,
                sums: memory.i32s(plan.head_dim)?,
                totals: memory.i64s(plan.head_dim)?,
                scores: memory.u32s(plan.context)?,
                values: memory.i8s(plan.unpacked)?,
            },
        })
    }
}

/// Rows of the residual stream and their positions in the sequence.
#[derive(Clone, Copy)]
struct Placed {
    /// The first row.
    row: usize,
    /// Number of rows.
    count: usize,
    /// Position of the first.
    first: usize,
}
