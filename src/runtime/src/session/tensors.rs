//! Tensors by key, without searching the whole table: the records of a layer are consecutive, and a session looks up
//! once where each layer's begin.

use super::{Session, SessionError};
use crate::format::FormatError;
use crate::format::artifact::{Matrix, Parts};
use crate::format::spec::CurveId;
use crate::format::tensor::{NO_LAYER, TensorKey, TensorRecord};
use crate::numerics::{Curve, F32Bytes};

impl<'a> Session<'a, '_> {
    pub(super) fn record(&self, key: TensorKey) -> Option<usize> {
        let start = |layer: usize| self.buffers.starts.get(layer).map(|&start| start as usize);
        let layers = self.buffers.starts.len() - 1;
        if key.layer != NO_LAYER {
            let layer = usize::from(key.layer);
            return self.artifact.record_among(start(layer)?..start(layer + 1)?, key);
        }
        let before = self.artifact.record_among(0..start(0)?, key);
        before.or_else(|| self.artifact.record_among(start(layers)?..self.artifact.tensor_count(), key))
    }

    fn tensor(&self, key: TensorKey) -> Option<(TensorRecord, &'a [u8])> {
        let record = self.artifact.tensor_record(self.record(key)?);
        #[cfg(feature = "streaming")]
        let bytes = self.bytes_here(&record);
        #[cfg(not(feature = "streaming"))]
        let bytes = self.artifact.tensor_bytes(&record);
        Some((record, bytes?))
    }

    /// A quantized matrix whose rows are tokens, which may be split.
    pub(super) fn parts(&self, key: TensorKey) -> Result<Parts<'a>, FormatError> {
        let index = self.record(key).ok_or(FormatError::MissingTensor(key))?;
        #[cfg(feature = "streaming")]
        if let Some(parts) = self.streamed_parts(key, index) {
            return parts;
        }
        self.artifact.parts_of(key, index)
    }

    /// Any other quantized matrix.
    pub(super) fn matrix(&self, key: TensorKey) -> Result<Matrix<'a>, FormatError> {
        let (record, bytes) = self.tensor(key).ok_or(FormatError::MissingTensor(key))?;
        self.artifact.matrix_of(key, &record, bytes)
    }

    /// An f32 tensor.
    pub(super) fn vector(&self, key: TensorKey) -> Result<F32Bytes<'a>, FormatError> {
        self.optional_vector(key)?.ok_or(FormatError::MissingTensor(key))
    }

    /// An f32 tensor that may be absent.
    pub(super) fn optional_vector(&self, key: TensorKey) -> Result<Option<F32Bytes<'a>>, FormatError> {
        let Some((record, bytes)) = self.tensor(key) else { return Ok(None) };
        self.artifact.vector_of(key, &record, bytes).map(Some)
    }

    pub(super) fn curve(&self, number: u8) -> Result<Curve<'a>, SessionError> {
        let curve = CurveId::from_number(number).and_then(|id| self.artifact.curve(id));
        curve.ok_or(SessionError::Format(FormatError::Functions("activation curve is missing")))
    }
}
