//! The executor: tokens in, logits out, for decoders with a key-value cache and for encoders, in memory the caller
//! owns. Activations are quantized per token, so how a prompt is cut into chunks cannot change a result. The order of
//! things is here; what a layer, a linear and the head compute is in the modules beside this one.

mod conv;
mod head;
mod layer;
mod linear;

use crate::attention::Attention;
use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::spec::{Block, LayerRecord, Output};
use crate::kernels::Kernels;
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
    /// An encoder sees a sequence whole: it has no steps.
    NotADecoder,
    /// No tokens.
    Empty,
    /// A value in this layer reached 2^50 or is not a number (the layer count stands for the head).
    NumericRange {
        /// The layer.
        layer: u32,
    },
    /// The artifact is not sound.
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
    buffers: Buffers<'m>,
    cache: &'m mut [u8],
    /// Positions in the cache.
    length: usize,
}

/// The arena's regions; shapes in [`Plan`].
struct Buffers<'m> {
    residual: &'m mut [f32],
    wide_a: &'m mut [f32],
    wide_b: &'m mut [f32],
    row: &'m mut [f32],
    activations: &'m mut [i8],
    activation_scales: &'m mut [f32],
    attention: Attention<'m>,
    output: &'m mut [f32],
}

impl<'a, 'm> Session<'a, 'm> {
    /// Bytes of memory a session needs: arena and cache.
    pub fn required_bytes(artifact: &ArtifactView<'_>) -> u64 {
        artifact.spec().arena_bytes + artifact.spec().cache_bytes
    }

    /// A session with nothing read yet. `memory` must start on 64 bytes and have exactly
    /// [`Session::required_bytes`].
    pub fn new(
        artifact: &ArtifactView<'a>,
        kernels: &'static Kernels,
        memory: &'m mut [u8],
    ) -> Result<Self, SessionError> {
        let (expected, actual) = (Self::required_bytes(artifact), memory.len() as u64);
        let size = SessionError::MemorySize { expected, actual };
        if expected != actual {
            return Err(size);
        }
        let plan = Plan::of(artifact).ok_or(size)?;
        let (hidden, context) = (artifact.spec().hidden as usize, artifact.spec().context as usize);
        let arena_bytes = usize::try_from(plan.arena_bytes).map_err(|_| size)?;
        let (arena, cache) = memory.split_at_mut(arena_bytes);
        let mut arena = Memory::new(arena).map_err(|_| SessionError::MemoryAlignment)?;
        let buffers = (|| {
            Some(Buffers {
                residual: arena.f32s(plan.residual_rows * hidden)?,
                wide_a: arena.f32s(plan.chunk * plan.wide_a)?,
                wide_b: arena.f32s(plan.chunk * plan.wide_b)?,
                row: arena.f32s(hidden)?,
                activations: arena.i8s(plan.chunk * plan.activations)?,
                activation_scales: arena.f32s(plan.chunk)?,
                attention: Attention {
                    query: arena.i8s(plan.head_dim)?,
                    sums: arena.i32s(plan.head_dim)?,
                    totals: arena.i64s(plan.head_dim)?,
                    scores: arena.u32s(context)?,
                },
                output: arena.f32s(plan.output)?,
            })
        })()
        .ok_or(size)?;
        if arena.remaining() != 0 {
            return Err(size);
        }
        Ok(Session { artifact: *artifact, kernels, buffers, cache, length: 0 })
    }

    /// Positions read so far.
    pub fn positions(&self) -> usize {
        self.length
    }

    /// Forgets everything read.
    pub fn reset(&mut self) {
        self.length = 0;
    }

    /// Reads more tokens of a decoder's sequence and returns the logits after the last one.
    pub fn step(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
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
        self.head_rows(last, 1)?;
        let width = self.artifact.spec().output_width as usize;
        if self.output_kind() == Output::Hidden { Ok(&*self.buffers.row) } else { Ok(&self.buffers.output[..width]) }
    }

    /// Runs tokens through the model and hands out every output row in order, with its position: a decoder goes on from
    /// what it has read, an encoder starts anew and sees the whole sequence. A classifier has one row.
    pub fn run(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), SessionError> {
        if self.is_decoder() {
            self.check_tokens(tokens)?;
            for part in tokens.chunks(self.artifact.spec().chunk as usize) {
                let first = self.length;
                self.read_chunk(part)?;
                self.hand_out(first, part.len(), each)?;
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
            _ => self.hand_out(0, tokens.len(), each),
        }
    }

    fn is_decoder(&self) -> bool {
        self.artifact.spec().kind == 1
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

    /// One chunk of a decoder's tokens through every layer; the residual rows stay for the head.
    fn read_chunk(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        let first = self.length;
        self.embed(tokens, first, 0)?;
        let mut cache_start = 0;
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            if layer.block == Block::Conv as u8 {
                self.convolve(index, &layer, cache_start, tokens.len(), first == 0)?;
            } else {
                self.read_keys(index, &layer, cache_start, 0, tokens.len(), first)?;
                self.mix(index, &layer, cache_start, 0, tokens.len(), first, first + tokens.len())?;
            }
            cache_start += self.cache_bytes(&layer);
        }
        self.length += tokens.len();
        Ok(())
    }

    /// A whole sequence through an encoder: a layer's keys and values of every chunk before any chunk attends.
    fn encode(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        let chunk = self.artifact.spec().chunk as usize;
        for (part, ids) in tokens.chunks(chunk).enumerate() {
            self.embed(ids, part * chunk, part * chunk)?;
        }
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            for (part, ids) in tokens.chunks(chunk).enumerate() {
                self.read_keys(index, &layer, 0, part * chunk, ids.len(), part * chunk)?;
            }
            for (part, ids) in tokens.chunks(chunk).enumerate() {
                self.mix(index, &layer, 0, part * chunk, ids.len(), part * chunk, tokens.len())?;
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

fn range(layer: usize) -> SessionError {
    SessionError::NumericRange { layer: layer as u32 }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
