//! The executor: tokens in, logits out, for decoders with a key-value cache and for encoders, in memory the caller
//! owns. Activations are quantized per token, so the chunking of a prompt cannot affect the result. This file has the
//! order of steps; layers, linears and the head have modules of their own.

mod conv;
mod head;
mod layer;
mod linear;
mod norm;
mod tensors;

use crate::attention::Attention;
use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::spec::{Block, LayerRecord, Output};
use crate::kernels::Kernels;
use crate::kernels::workers::{MAX_WORKERS, Single, Workers};
use crate::layout::BLOCK_COLUMNS;
use crate::memory::Memory;
use crate::plan::Plan;

/// Why a session stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The memory is not the planned number of bytes.
    MemorySize {
        /// [`Session::required_bytes`].
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// The memory does not start on 64 bytes.
    MemoryAlignment,
    /// A token is outside the vocabulary.
    Token(u32),
    /// More positions than the context holds.
    ContextFull {
        /// Positions planned for.
        context: u32,
    },
    /// An encoder has no steps: it reads whole sequences.
    NotADecoder,
    /// No tokens.
    Empty,
    /// A value in this layer reached 2^50 or is NaN (the layer count denotes the head).
    NumericRange {
        /// The layer.
        layer: u32,
    },
    /// The artifact is not valid.
    Format(FormatError),
}

impl From<FormatError> for SessionError {
    fn from(error: FormatError) -> Self {
        SessionError::Format(error)
    }
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use SessionError as E;
        match self {
            E::MemorySize { expected, actual } => write!(f, "expected {expected} bytes of memory, got {actual}"),
            E::MemoryAlignment => f.write_str("the memory does not start on 64 bytes"),
            E::Token(token) => write!(f, "token {token} is outside the vocabulary"),
            E::ContextFull { context } => write!(
                f,
                "the sequence is longer than the {context} positions planned for; compile with a larger --context"
            ),
            E::NotADecoder => f.write_str("the model is an encoder: it has no steps"),
            E::Empty => f.write_str("there are no tokens"),
            E::NumericRange { layer } => {
                write!(f, "a value in layer {layer} reached 2^50 or is not a number: the model's weights are broken")
            }
            E::Format(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SessionError {}

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

    /// Bytes of memory that a session of `workers` workers needs.
    pub fn required_bytes_for(artifact: &ArtifactView<'_>, workers: usize) -> u64 {
        let further = workers.clamp(1, MAX_WORKERS) as u64 - 1;
        let worker_bytes = Plan::of(artifact).map_or(0, |plan| plan.worker_bytes);
        Self::required_bytes(artifact) + further * worker_bytes
    }

    /// A session without tokens. `memory` must start on 64 bytes and have exactly [`Session::required_bytes`].
    pub fn new(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        Session::open(artifact, kernels, const { &Single }, memory)
    }

    /// A session run by several workers, with the same results. `memory` must start on 64 bytes and have exactly
    /// [`Session::required_bytes_for`] of their number.
    #[cfg(target_has_atomic = "64")]
    pub fn with_workers(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        workers: &'m dyn Workers,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        Session::open(artifact, kernels, workers, memory)
    }

    fn open(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        workers: &'m dyn Workers,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        let seats = workers.count().clamp(1, MAX_WORKERS);
        let (expected, actual) = (Self::required_bytes_for(artifact, seats), memory.len() as u64);
        let size = SessionError::MemorySize { expected, actual };
        if expected != actual {
            return Err(size);
        }
        let plan = Plan::of(artifact).ok_or(size)?;
        let arena_bytes = usize::try_from(plan.arena_bytes).map_err(|_| size)?;
        let cache_bytes = usize::try_from(plan.cache_bytes).map_err(|_| size)?;
        let (arena, rest) = memory.split_at_mut(arena_bytes);
        let (cache, further) = rest.split_at_mut(cache_bytes);
        let mut arena = Memory::new(arena).map_err(|_| SessionError::MemoryAlignment)?;
        let mut further = Memory::new(further).map_err(|_| SessionError::MemoryAlignment)?;
        let buffers = Buffers::of(&mut arena, &plan).ok_or(size)?;
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
        Ok(Session { artifact: *artifact, kernels, workers, buffers, scratch, seats, cache, length: 0 })
    }

    /// Positions read so far.
    pub fn positions(&self) -> usize {
        self.length
    }

    /// Clears the sequence.
    pub fn reset(&mut self) {
        self.length = 0;
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
        let last = last_rows - 1;
        if self.artifact.spec().pooling().is_some() {
            self.pool(last_rows)?;
            return Ok(&*self.buffers.output);
        }
        self.head_rows_of(last, 1, needed)?;
        let width = self.artifact.spec().output_width as usize;
        if self.output_kind() == Output::Hidden { Ok(&*self.scratch[0].row) } else { Ok(&self.buffers.output[..width]) }
    }

    /// Runs tokens through the model and passes every output row in order, with its position, to `each`: a decoder
    /// continues its sequence, an encoder starts over and reads the whole sequence. A classifier has one row, and so has
    /// a model that pools.
    pub fn run(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        if self.is_decoder() {
            self.check_tokens(tokens)?;
            let pools = self.artifact.spec().pooling().is_some();
            let mut last_rows = 0;
            for part in tokens.chunks(self.artifact.spec().chunk as usize) {
                let first = self.length;
                self.read_chunk(part)?;
                last_rows = part.len();
                if !pools {
                    self.hand_out(first, part.len(), each)?;
                }
            }
            if pools {
                self.pool(last_rows)?;
                each(0, self.buffers.output);
            }
            return Ok(());
        }
        self.length = 0;
        self.check_tokens(tokens)?;
        self.encode(tokens)?;
        match self.output_kind() {
            Output::Classifier => {
                self.classify()?;
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

    fn is_decoder(&self) -> bool {
        self.artifact.spec().is_decoder()
    }

    fn output_kind(&self) -> Output {
        Output::from_number(self.artifact.spec().output).unwrap_or(Output::Hidden)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), SessionError> {
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

    /// Runs one chunk of a decoder's tokens through every layer; the residual rows remain for the head.
    fn read_chunk(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        let first = self.length;
        self.embed(tokens, first, 0)?;
        let mut cache_start = 0;
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            if layer.block == Block::Conv as u8 {
                self.convolve(index, &layer, cache_start, tokens.len(), first == 0)?;
            } else {
                let rows = Placed { row: 0, count: tokens.len(), first };
                self.read_keys(index, &layer, cache_start, rows)?;
                self.mix(index, &layer, cache_start, rows, first + tokens.len())?;
            }
            cache_start += self.cache_bytes(&layer);
        }
        self.length += tokens.len();
        Ok(())
    }

    /// Runs a whole sequence through an encoder: keys and values of a layer for every chunk before any chunk attends.
    fn encode(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        let chunk = self.artifact.spec().chunk as usize;
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
        }
        Ok(())
    }

    fn layer(&self, index: usize) -> LayerRecord {
        self.artifact.layer(index)
    }

    fn cache_bytes(&self, layer: &LayerRecord) -> usize {
        let spec = self.artifact.spec();
        crate::plan::layer_cache_bytes(layer, spec.hidden, spec.context).unwrap_or(0) as usize
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

fn range(layer: usize) -> SessionError {
    SessionError::NumericRange { layer: layer as u32 }
}
