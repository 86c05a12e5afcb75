//! The memory an artifact needs, from its specification alone: the compiler writes these numbers into the artifact, the
//! reader recomputes and compares them, and the session divides the caller's memory by them. Nothing else is allocated.
//!
//! ```text
//! arena: residual | scratch_a | scratch_b | activations | activation_offsets | activation_scales | starts | output
//!        | of mixtures: shares | sums | activations | activation_offsets | activation_scales of one expert
//!        | of the first worker: row | query | sums | totals | scores | values
//! cache: per layer with attention    keys | values | key scales | value scales, see `cache.rs`
//!        per layer with convolution  its last inputs (taps - 1, hidden) f32, oldest first
//! ```
//!
//! A session of a larger extent has memory after the cache, which the artifact does not state:
//!
//! ```text
//! further: output, of more rows | history: per layer with convolution (taps - 1 + rows, hidden) f32
//!          | of every further worker, as that of the first
//! ```
//!
//! A decoder keeps every layer's part of the cache and pushes `chunk` tokens at a time through the layers. An encoder
//! holds the residual stream of the whole sequence and the keys and values of one layer at a time.

use crate::cache::CacheShape;
use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::spec::{Block, LayerRecord, ModelRecord, NormKind, NormPlacement, Output, QueryKeyNorm};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::layout::{ALIGNMENT, BLOCK_COLUMNS};
use crate::session::Extent;

/// Bound on the stack the executor uses, tested by running it on a thread with little more.
pub const STACK_BYTES: u64 = 16 * 1024;

/// Sizes of every region, in elements; each region starts on 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rows of the residual stream in memory.
    pub residual_rows: usize,
    /// Tokens that go through a layer together.
    pub chunk: usize,
    /// f32 per token: queries and attention outputs, a convolution's gates and values, or a network's gates.
    pub scratch_a: usize,
    /// f32 per token: keys, values, projections, or the feed-forward network's inner values; of parts side by side, what
    /// both add.
    pub scratch_b: usize,
    /// i8 per token and plane: a linear's quantized input, padded to 32.
    pub activations: usize,
    /// Planes of activations: 2 where a linear takes 16 bits, else 1.
    pub planes: usize,
    /// Layers, for the index of the tensor table by layer.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Positions.
    pub context: usize,
    /// Largest head_dim.
    pub head_dim: usize,
    /// i8 per worker: a head's values, unpacked, where a layer holds nibbles; else 0.
    pub unpacked: usize,
    /// f32 of all output rows computed together; 0 where the hidden state of every position is the output.
    pub output: usize,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Bytes of the key-value cache.
    pub cache_bytes: u64,
    /// Part of the arena that belongs to one worker.
    pub worker_bytes: u64,
    /// Logits of one position; 0 where the output is another.
    logits: usize,
    /// Most experts of a layer; 0 without mixtures.
    pub experts: usize,
    /// Layers with a convolution.
    convolutions: usize,
    /// Rows that they keep together.
    kept_inputs: usize,
}

/// Elements and bytes per element of a region.
type Region = (Option<usize>, u64);

/// Bytes of a region of `count` elements of `bytes` each, padded to 64.
fn region(count: u64, bytes: u64) -> Option<u64> {
    count.checked_mul(bytes)?.checked_next_multiple_of(ALIGNMENT as u64)
}

/// Bytes of one layer's keys, values and their scales, or of a convolution's last inputs.
pub fn layer_cache_bytes(layer: &LayerRecord, spec: &ModelRecord) -> Option<u64> {
    if layer.block == Block::Conv as u8 {
        return region(u64::from(layer.taps.checked_sub(1)?).checked_mul(u64::from(spec.hidden))?, 4);
    }
    CacheShape::of(layer, spec.context as usize, spec.chunk as usize).bytes()
}

impl Plan {
    /// The plan of an artifact whose specification has been checked; `None` where a size overflows.
    pub(crate) fn of(artifact: &ArtifactView<'_>) -> Option<Plan> {
        let spec = artifact.spec();
        Plan::new(spec, (0..spec.layers as usize).map(|index| artifact.layer(index)))
    }

    /// The plan for a specification and its layers; `None` where a size overflows.
    pub fn new(spec: &ModelRecord, layers: impl Iterator<Item = LayerRecord>) -> Option<Plan> {
        let decoder = spec.is_decoder();
        let (hidden, chunk) = (spec.hidden as usize, spec.chunk as usize);
        let narrow = if spec.embedding_width == 0 { 0 } else { spec.embedding_width() };
        let (mut scratch_a, mut scratch_b, mut inner, mut head_dim) = (narrow, hidden, hidden, 0);
        let mut cache_bytes = 0u64;
        let (mut convolutions, mut kept_inputs, mut unpacked, mut experts) = (0, 0usize, 0usize, 0);
        for layer in layers {
            let query_width = layer.heads as usize * layer.head_dim as usize;
            let key_width = layer.key_value_heads as usize * layer.head_dim as usize;
            let ffn = layer.ffn_width as usize;
            let mut gates = 0;
            if layer.block == Block::Conv as u8 {
                gates = hidden.checked_mul(3)?;
                convolutions += 1;
                kept_inputs = kept_inputs.checked_add(layer.taps.checked_sub(1)? as usize)?;
            }
            experts = experts.max(usize::from(layer.experts));
            scratch_a = scratch_a.max(query_width).max(ffn).max(gates).max(usize::from(layer.experts));
            scratch_b = scratch_b.max(key_width.checked_mul(2)?).max(if layer.is_gated() { ffn } else { 0 });
            if NormPlacement::from_number(layer.norm_placement).is_some_and(NormPlacement::is_side_by_side) {
                scratch_b = scratch_b.max(hidden.checked_mul(2)?);
            }
            inner = inner.max(query_width).max(ffn);
            head_dim = head_dim.max(layer.head_dim as usize);
            let bytes = layer_cache_bytes(&layer, spec)?;
            let shape = CacheShape::of(&layer, spec.context as usize, chunk);
            if shape.nibbles() {
                unpacked = unpacked.max(shape.slots.checked_mul(shape.head_dim)?);
            }
            cache_bytes = if decoder { cache_bytes.checked_add(bytes)? } else { cache_bytes.max(bytes) };
        }
        let output = match Output::from_number(spec.output)? {
            Output::Hidden if spec.pooling == 0 => 0,
            Output::Hidden | Output::Classifier => spec.output_width as usize,
            _ => (spec.output_rows as usize).checked_mul(spec.output_width as usize)?,
        };
        let mut plan = Plan {
            residual_rows: if decoder { chunk } else { spec.context as usize },
            chunk,
            scratch_a,
            scratch_b,
            activations: inner.next_multiple_of(BLOCK_COLUMNS),
            planes: 1 + usize::from(spec.wide_activations),
            layers: spec.layers as usize,
            hidden,
            context: spec.context as usize,
            head_dim,
            unpacked,
            output,
            arena_bytes: 0,
            cache_bytes,
            worker_bytes: 0,
            logits: if spec.output == Output::LanguageModel as u8 { spec.output_width as usize } else { 0 },
            experts,
            convolutions,
            kept_inputs,
        };
        let sum = |regions: &[Region]| {
            let mut regions = regions.iter();
            regions.try_fold(0u64, |sum, &(count, bytes)| sum.checked_add(region(u64::try_from(count?).ok()?, bytes)?))
        };
        plan.worker_bytes = sum(&plan.worker_regions())?;
        plan.arena_bytes = sum(&plan.shared_regions())?.checked_add(plan.worker_bytes)?;
        Some(plan)
    }

    /// The arena's regions that workers share, in order.
    fn shared_regions(&self) -> [Region; 13] {
        let rows = self.chunk.checked_mul(self.planes);
        let activations = rows.and_then(|rows| rows.checked_mul(self.activations));
        let groups = rows.and_then(|rows| rows.checked_mul(self.activations / BLOCK_COLUMNS));
        // Nothing where there are no mixtures.
        let routed = |count| if self.experts > 0 { count } else { Some(0) };
        [
            (self.residual_rows.checked_mul(self.hidden), 4),
            (self.chunk.checked_mul(self.scratch_a), 4),
            (self.chunk.checked_mul(self.scratch_b), 4),
            (activations, 1),
            (groups, 4),
            (Some(self.chunk), 4),
            (self.layers.checked_add(1), 4),
            (Some(self.output), 4),
            (self.chunk.checked_mul(self.experts), 4),
            (routed(self.chunk.checked_mul(self.hidden)), 4),
            (routed(activations), 1),
            (routed(groups), 4),
            (routed(Some(self.chunk)), 4),
        ]
    }

    /// The regions of one worker, in order.
    fn worker_regions(&self) -> [Region; 6] {
        [
            (Some(self.hidden), 4),
            (Some(self.head_dim), 1),
            (Some(self.head_dim), 4),
            (Some(self.head_dim), 8),
            (Some(self.context), 4),
            (Some(self.unpacked), 1),
        ]
    }

    /// f32 of the output where a session computes the logits of `rows` positions together and the plan has fewer.
    pub(crate) fn wider_output(&self, rows: usize) -> Option<usize> {
        self.logits.checked_mul(rows).filter(|&wider| rows > 1 && wider > self.output)
    }

    /// f32 of what convolutions have read since a mark.
    pub(crate) fn history(&self, rows: usize) -> usize {
        if rows > 1 { (self.kept_inputs + self.convolutions * rows) * self.hidden } else { 0 }
    }

    /// Bytes after the cache for a session of some extent; `None` where they overflow.
    pub fn beyond(&self, extent: Extent) -> Option<u64> {
        let Extent { workers, rows } = extent.within(self);
        let f32s = |count: usize| region(u64::try_from(count).ok()?, 4);
        let workers = (workers as u64).checked_sub(1)?.checked_mul(self.worker_bytes)?;
        let rows = f32s(self.wider_output(rows).unwrap_or(0))?.checked_add(f32s(self.history(rows))?)?;
        workers.checked_add(rows)
    }

    /// Checks the sizes that the artifact states.
    pub(crate) fn check(&self, spec: &ModelRecord) -> Result<(), FormatError> {
        if spec.arena_bytes != self.arena_bytes {
            return Err(FormatError::Spec("arena_bytes"));
        }
        if spec.cache_bytes != self.cache_bytes {
            return Err(FormatError::Spec("cache_bytes"));
        }
        if spec.stack_bytes != STACK_BYTES { Err(FormatError::Spec("stack_bytes")) } else { Ok(()) }
    }
}

/// Receives one tensor the specification implies: key, rows, columns, whether it is quantized.
pub(crate) type Visit<'v> = dyn FnMut(TensorKey, usize, usize, bool) -> Result<(), FormatError> + 'v;

/// Walks the tensors the specification implies and counts them; biases count only where the table has them.
struct Walk<'w, 'a, 'v> {
    artifact: &'w ArtifactView<'a>,
    visit: &'w mut Visit<'v>,
    count: usize,
}

impl Walk<'_, '_, '_> {
    fn one(&mut self, key: TensorKey, rows: usize, columns: usize, quantized: bool) -> Result<(), FormatError> {
        self.count += 1;
        (self.visit)(key, rows, columns, quantized)
    }

    fn matrix(&mut self, key: TensorKey, rows: usize, columns: usize) -> Result<(), FormatError> {
        self.one(key, rows, columns, true)?;
        self.bias(key, rows)
    }

    fn bias(&mut self, key: TensorKey, rows: usize) -> Result<(), FormatError> {
        let key = TensorKey { part: TensorPart::Bias, ..key };
        if self.artifact.first_record(key).is_some() { self.one(key, 1, rows, false) } else { Ok(()) }
    }

    fn norm(&mut self, key: TensorKey, kind: u8) -> Result<(), FormatError> {
        self.norm_of_width(key, kind, self.artifact.spec().hidden as usize)
    }

    fn norm_of_width(&mut self, key: TensorKey, kind: u8, width: usize) -> Result<(), FormatError> {
        if kind != 0 {
            self.one(key, 1, width, false)?;
        }
        if kind == NormKind::Layer as u8 {
            self.one(TensorKey { part: TensorPart::Bias, ..key }, 1, width, false)?;
        }
        Ok(())
    }

    fn layer(&mut self, index: usize) -> Result<(), FormatError> {
        use TensorRole as R;
        let layer = self.artifact.layer(index);
        let (hidden, ffn) = (self.artifact.spec().hidden as usize, layer.ffn_width as usize);
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        let placement = NormPlacement::from_number(layer.norm_placement);
        let added = if placement.is_some_and(NormPlacement::is_on_added) { layer.norm } else { 0 };
        // The norm of a part, before it or after its sum.
        let own = if placement == Some(NormPlacement::Added) { 0 } else { layer.norm };
        let first = if placement == Some(NormPlacement::Network) { 0 } else { own };
        if layer.block == Block::Conv as u8 {
            self.norm(key(R::ConvNorm), layer.norm)?;
            self.matrix(key(R::ConvIn), 3 * hidden, hidden)?;
            self.one(key(R::ConvKernel), hidden, layer.taps as usize, false)?;
            self.bias(key(R::ConvKernel), hidden)?;
            self.matrix(key(R::ConvOut), hidden, hidden)?;
        } else {
            self.norm(key(R::AttentionNorm), first)?;
            self.attention(index, &layer, hidden)?;
            self.norm(key(R::AttentionOutputNorm), added)?;
        }
        let of_network = if placement == Some(NormPlacement::Common) { 0 } else { own };
        self.norm(key(R::FfnNorm), of_network)?;
        match usize::from(layer.experts) {
            0 => {
                if layer.is_gated() {
                    self.matrix(key(R::Gate), ffn, hidden)?;
                }
                self.matrix(key(R::Up), ffn, hidden)?;
                self.matrix(key(R::Down), hidden, ffn)?;
            }
            experts => {
                // Without biases.
                self.one(key(R::Gate), experts * ffn, hidden, true)?;
                self.one(key(R::Up), experts * ffn, hidden, true)?;
                self.one(key(R::Down), experts * hidden, ffn, true)?;
            }
        }
        self.norm(key(R::FfnOutputNorm), added)?;
        if layer.is_mixture() {
            self.one(key(R::Router), usize::from(layer.experts), hidden, true)?;
        }
        if layer.exit_head == 1 {
            self.matrix(key(R::ExitPooler), hidden, hidden)?;
            self.matrix(key(R::ExitClassifier), self.artifact.spec().output_width as usize, hidden)?;
        }
        Ok(())
    }

    fn attention(&mut self, index: usize, layer: &LayerRecord, hidden: usize) -> Result<(), FormatError> {
        use TensorRole as R;
        let (heads, key_heads) = (layer.heads as usize, layer.key_value_heads as usize);
        let head_dim = layer.head_dim as usize;
        let key = |role| TensorKey::layer(index, role, TensorPart::Weight);
        self.matrix(key(R::Query), heads * head_dim, hidden)?;
        self.matrix(key(R::Key), key_heads * head_dim, hidden)?;
        if layer.key_map == 1 {
            for part in [TensorPart::KeyMean, TensorPart::KeyBalance, TensorPart::KeyInverse] {
                self.one(TensorKey::layer(index, R::Key, part), key_heads, head_dim, false)?;
            }
        }
        self.matrix(key(R::Value), key_heads * head_dim, hidden)?;
        self.matrix(key(R::AttentionOutput), hidden, heads * head_dim)?;
        let together = match QueryKeyNorm::from_number(layer.query_key_norm) {
            None => return Ok(()),
            Some(QueryKeyNorm::Heads) => (1, 1),
            Some(QueryKeyNorm::Together) => (heads, key_heads),
        };
        self.norm_of_width(key(R::QueryNorm), layer.norm, together.0 * head_dim)?;
        self.norm_of_width(key(R::KeyNorm), layer.norm, together.1 * head_dim)
    }
}

/// Visits every tensor the specification implies, and returns how many there are.
pub(crate) fn tensors(artifact: &ArtifactView<'_>, visit: &mut Visit<'_>) -> Result<usize, FormatError> {
    use TensorRole as R;
    let spec = artifact.spec();
    let (hidden, vocabulary) = (spec.hidden as usize, spec.vocabulary as usize);
    let key = |role| TensorKey::global(role, TensorPart::Weight);
    let mut walk = Walk { artifact, visit, count: 0 };
    let width = spec.embedding_width();
    walk.one(key(R::EmbedToken), vocabulary, width, true)?;
    if spec.learned_positions == 1 {
        walk.one(key(R::EmbedPosition), spec.context as usize, width, true)?;
    }
    if spec.token_types > 0 {
        walk.one(key(R::EmbedType), spec.token_types as usize, width, true)?;
    }
    walk.norm_of_width(key(R::EmbedNorm), spec.embedding_norm, width)?;
    if spec.embedding_width != 0 {
        walk.matrix(key(R::EmbedProjection), hidden, width)?;
    }
    for index in 0..spec.layers as usize {
        walk.layer(index)?;
    }
    walk.norm(key(R::FinalNorm), spec.final_norm)?;
    match Output::from_number(spec.output) {
        Some(Output::MaskedLanguageModel) => {
            walk.matrix(key(R::MlmTransform), hidden, hidden)?;
            walk.norm(key(R::MlmNorm), spec.head_norm())?;
        }
        Some(Output::Classifier) => {
            if spec.has_pooler() {
                walk.matrix(key(R::Pooler), hidden, hidden)?;
                walk.norm(key(R::MlmNorm), spec.head_norm())?;
            }
            walk.matrix(key(R::Classifier), spec.output_width as usize, hidden)?;
        }
        Some(Output::TokenClassifier | Output::Answers) => {
            walk.matrix(key(R::Classifier), spec.output_width as usize, hidden)?;
        }
        _ => {}
    }
    if matches!(Output::from_number(spec.output), Some(Output::LanguageModel | Output::MaskedLanguageModel)) {
        match spec.has_tied_head() {
            true => walk.bias(key(R::LmHead), vocabulary)?,
            false => walk.matrix(key(R::LmHead), vocabulary, hidden)?,
        }
    }
    Ok(walk.count)
}
