//! A decoder's sequence as bytes and back: what it has read need not be read again. Little-endian:
//!
//! ```text
//! 0    magic "SLMSNAP2"
//! 8    identity (32): the artifact's device digest
//! 40   u32 positions | u32 most positions that there were since the sequence began
//! 48   per layer with attention, head by head: keys, values | per head key scales, value scales; filled slots only
//!      per layer with convolution: its last inputs, f32
//! end  SHA-256 of all before
//! ```
//!
//! What an artifact's sequences begin with is within the artifact, whose digest cannot be known before: there the magic is
//! "SLMSNAP1", and the identity SHA-256 of the specification and of the root over the weights.
//!
//! A snapshot of another model, cut, or changed in a byte is refused. One that was made with intent has values in range,
//! so that nothing but other logits comes of it.

use super::Session;
use crate::cache::{Cache, CacheShape};
use crate::format::header::SectionKind;
use crate::format::spec::{Block, LayerRecord, ModelRecord};
use crate::memory::Memory;
use crate::sha256::{Digest, Sha256};
use core::fmt;

/// First bytes.
const MAGIC: [u8; 8] = *b"SLMSNAP2";
/// First bytes of one that lies within its artifact.
const MAGIC_OF_PREFIX: [u8; 8] = *b"SLMSNAP1";
/// Bytes before the layers.
const HEADER_BYTES: usize = 48;
/// Bytes of the digest at the end.
const DIGEST_BYTES: usize = 32;
/// Scales and inputs at and above it are those of a broken model: 2^50.
const HUGE: f32 = 1_125_899_906_842_624.0;

/// Why a sequence is not saved, or not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The bytes are not those of a snapshot, or not all of them.
    NotASnapshot,
    /// It is of another model, or of this one compiled in another way.
    OtherModel,
    /// Its digest does not match, or a value is out of range: it was changed or damaged.
    Damaged,
    /// A step failed in the middle of the sequence, which cannot be taken up.
    Interrupted,
    /// The place for it has another length.
    Length {
        /// [`Session::snapshot_bytes`].
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NotASnapshot => f.write_str("not a snapshot of a sequence, or cut short"),
            SnapshotError::OtherModel => {
                f.write_str("the snapshot is of another artifact; read the sequence again with this one")
            }
            SnapshotError::Damaged => f.write_str("the snapshot was changed or damaged"),
            SnapshotError::Interrupted => {
                f.write_str("an earlier step failed in the middle of the sequence; reset the session")
            }
            SnapshotError::Length { expected, actual } => {
                write!(f, "a snapshot of this sequence has {expected} bytes, the place for it {actual}")
            }
        }
    }
}

impl core::error::Error for SnapshotError {}

/// Where the bytes of a snapshot go, or come from.
trait Way {
    /// Integers in [-127, 127], or pairs of nibbles.
    fn integers(&mut self, values: &mut [i8], pairs: bool) -> Result<(), SnapshotError>;
    fn floats(&mut self, values: &mut [f32]) -> Result<(), SnapshotError>;
}

/// Into a place that is long enough.
struct Saving<'o>(&'o mut [u8]);

impl Saving<'_> {
    fn take(&mut self, count: usize) -> Result<&mut [u8], SnapshotError> {
        let rest = core::mem::take(&mut self.0);
        let (part, rest) = rest.split_at_mut_checked(count).ok_or(SnapshotError::NotASnapshot)?;
        self.0 = rest;
        Ok(part)
    }
}

impl Way for Saving<'_> {
    fn integers(&mut self, values: &mut [i8], _: bool) -> Result<(), SnapshotError> {
        let out = self.take(values.len())?;
        out.iter_mut().zip(values).for_each(|(byte, &mut value)| *byte = value as u8);
        Ok(())
    }

    fn floats(&mut self, values: &mut [f32]) -> Result<(), SnapshotError> {
        let out = self.take(4 * values.len())?;
        out.chunks_exact_mut(4).zip(values).for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
        Ok(())
    }
}

/// Out of bytes that were checked.
struct Restoring<'i>(&'i [u8]);

impl<'i> Restoring<'i> {
    fn take(&mut self, count: usize) -> Result<&'i [u8], SnapshotError> {
        let (part, rest) = self.0.split_at_checked(count).ok_or(SnapshotError::NotASnapshot)?;
        self.0 = rest;
        Ok(part)
    }
}

impl Way for Restoring<'_> {
    fn integers(&mut self, values: &mut [i8], pairs: bool) -> Result<(), SnapshotError> {
        let bytes = self.take(values.len())?;
        values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = byte as i8);
        // Kernels rely on it.
        if !pairs && values.contains(&i8::MIN) { Err(SnapshotError::Damaged) } else { Ok(()) }
    }

    fn floats(&mut self, values: &mut [f32]) -> Result<(), SnapshotError> {
        let bytes = self.take(4 * values.len())?;
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if !value.is_finite() || value.abs() >= HUGE {
                return Err(SnapshotError::Damaged);
            }
        }
        Ok(())
    }
}

/// Bytes of a snapshot of a model's sequence of some positions; 0 of an encoder.
pub fn snapshot_bytes(spec: &ModelRecord, layers: impl Iterator<Item = LayerRecord>, positions: usize) -> u64 {
    if !spec.is_decoder() {
        return 0;
    }
    let of_layer = |layer: LayerRecord| {
        if layer.block == Block::Conv as u8 {
            return 4 * u64::from(layer.taps.saturating_sub(1)) * u64::from(spec.hidden);
        }
        let shape = CacheShape::of(&layer, spec.context as usize, spec.chunk as usize);
        let filled = (shape.heads * positions.min(shape.slots)) as u64;
        filled * (shape.head_dim + shape.value_bytes() + 8) as u64
    };
    (HEADER_BYTES + DIGEST_BYTES) as u64 + layers.map(of_layer).sum::<u64>()
}

impl Session<'_, '_> {
    /// Bytes of a snapshot of the sequence as it is; 0 of an encoder, which has none.
    pub fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes_of(self.length)
    }

    /// Bytes of a snapshot of a sequence with so many positions.
    pub fn snapshot_bytes_of(&self, positions: usize) -> u64 {
        let spec = self.artifact.spec();
        snapshot_bytes(spec, (0..spec.layers as usize).map(|index| self.layer(index)), positions)
    }

    /// Writes a snapshot of the sequence; `out` has exactly [`Session::snapshot_bytes`].
    ///
    /// # Errors
    /// [`SnapshotError::Length`], [`SnapshotError::Interrupted`].
    pub fn save(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        self.save_as(MAGIC, out)
    }

    /// Writes the snapshot that an artifact made of this one carries as what its sequences begin with.
    ///
    /// # Errors
    /// As for [`Session::save`].
    pub fn save_prefix(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        self.save_as(MAGIC_OF_PREFIX, out)
    }

    fn save_as(&mut self, magic: [u8; 8], out: &mut [u8]) -> Result<(), SnapshotError> {
        if !self.whole {
            return Err(SnapshotError::Interrupted);
        }
        let (expected, actual) = (self.snapshot_bytes(), out.len() as u64);
        if expected != actual || expected == 0 {
            return Err(SnapshotError::Length { expected, actual });
        }
        let (content, digest) = out.split_at_mut(out.len() - DIGEST_BYTES);
        content[..8].copy_from_slice(&magic);
        content[8..40].copy_from_slice(&self.identity(magic));
        content[40..44].copy_from_slice(&(self.length as u32).to_le_bytes());
        content[44..48].copy_from_slice(&(self.written as u32).to_le_bytes());
        let length = self.length;
        self.pass(&mut Saving(&mut content[HEADER_BYTES..]), length)?;
        digest.copy_from_slice(&Sha256::digest(content));
        Ok(())
    }

    /// Takes up the sequence of a snapshot in place of its own. After an error it is empty.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.restore_as(MAGIC, snapshot)
    }

    fn restore_as(&mut self, magic: [u8; 8], snapshot: &[u8]) -> Result<(), SnapshotError> {
        self.reset();
        let length = snapshot.len().checked_sub(DIGEST_BYTES).filter(|&length| length >= HEADER_BYTES);
        let (content, digest) = snapshot.split_at(length.ok_or(SnapshotError::NotASnapshot)?);
        if content[..8] != magic || !self.is_decoder() {
            return Err(SnapshotError::NotASnapshot);
        }
        if content[8..40] != self.identity(magic) {
            return Err(SnapshotError::OtherModel);
        }
        let number =
            |at: usize| u32::from_le_bytes([content[at], content[at + 1], content[at + 2], content[at + 3]]) as usize;
        let (positions, written) = (number(40), number(44));
        let context = self.artifact.spec().context as usize;
        if positions > written || written > context {
            return Err(SnapshotError::Damaged);
        }
        if snapshot.len() as u64 != self.snapshot_bytes_of(positions) {
            return Err(SnapshotError::NotASnapshot);
        }
        if *digest != Sha256::digest(content) {
            return Err(SnapshotError::Damaged);
        }
        self.pass(&mut Restoring(&content[HEADER_BYTES..]), positions)?;
        (self.length, self.written) = (positions, written);
        Ok(())
    }

    /// Takes up what the artifact's sequences begin with; returns its positions, 0 where it says nothing of the kind.
    ///
    /// # Errors
    /// [`SnapshotError`] of a section that does not belong to the model.
    pub fn restore_prefix(&mut self) -> Result<usize, SnapshotError> {
        let Some(prefix) = self.artifact.prefix() else { return Ok(0) };
        self.restore_as(MAGIC_OF_PREFIX, prefix.snapshot)?;
        match self.length == prefix.tokens.len() {
            true => Ok(self.length),
            false => {
                self.reset();
                Err(SnapshotError::Damaged)
            }
        }
    }

    /// Passes what `positions` positions have filled through a way, layer by layer.
    fn pass(&mut self, way: &mut dyn Way, positions: usize) -> Result<(), SnapshotError> {
        let mut start = 0;
        for index in 0..self.artifact.spec().layers as usize {
            let layer = self.layer(index);
            let end = start + self.cache_bytes(&layer);
            self.pass_layer(way, &layer, start..end, positions)?;
            start = end;
        }
        Ok(())
    }

    fn pass_layer(
        &mut self,
        way: &mut dyn Way,
        layer: &LayerRecord,
        bytes: core::ops::Range<usize>,
        positions: usize,
    ) -> Result<(), SnapshotError> {
        let shape = self.cache_shape(layer);
        let hidden = self.artifact.spec().hidden as usize;
        let bytes = &mut self.cache[bytes];
        if layer.block == Block::Conv as u8 {
            let kept = (layer.taps as usize).saturating_sub(1) * hidden;
            let state = Memory::new(bytes).ok().and_then(|mut memory| memory.f32s(kept));
            return way.floats(state.ok_or(SnapshotError::Damaged)?);
        }
        let cache = Cache::new(bytes, shape).ok_or(SnapshotError::Damaged)?;
        let filled = positions.min(shape.slots);
        for head in 0..shape.heads {
            let first = head * shape.slots;
            let of = |width: usize| first * width..(first + filled) * width;
            way.integers(&mut cache.keys[of(shape.head_dim)], false)?;
            way.integers(&mut cache.values[of(shape.value_bytes())], shape.nibbles())?;
            way.floats(&mut cache.key_scales[of(1)])?;
            way.floats(&mut cache.value_scales[of(1)])?;
        }
        Ok(())
    }

    /// What a snapshot must agree with: the artifact; within it shapes and places of the cache, and the weights.
    fn identity(&self, magic: [u8; 8]) -> Digest {
        if magic == MAGIC {
            return self.artifact.header().device_digest;
        }
        let mut hash = Sha256::new();
        hash.update(self.artifact.section(SectionKind::Spec).unwrap_or_default());
        hash.update(&self.artifact.header().weights_root);
        hash.finish()
    }
}
