//! Tensors by key, without searching the whole table: records of a layer stand together, and where each layer's begin is
//! looked up once per session.

use super::{Session, SessionError};
use crate::format::FormatError;
use crate::format::artifact::Matrix;
use crate::format::spec::CurveId;
use crate::format::tensor::{NO_LAYER, TensorKey, TensorRecord};
use crate::numerics::{Curve, F32Bytes};

impl<'a> Session<'a, '_> {
    fn tensor(&self, key: TensorKey) -> Option<(TensorRecord, &'a [u8])> {
        let start = |layer: usize| self.buffers.starts.get(layer).map(|&start| start as usize);
        let layers = self.buffers.starts.len() - 1;
        if key.layer != NO_LAYER {
            let layer = usize::from(key.layer);
            return self.artifact.tensor_among(start(layer)?..start(layer + 1)?, key);
        }
        let before = self.artifact.tensor_among(0..start(0)?, key);
        before.or_else(|| self.artifact.tensor_among(start(layers)?..self.artifact.tensor_count(), key))
    }

    /// A quantized matrix.
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
