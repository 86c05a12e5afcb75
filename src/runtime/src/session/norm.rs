//! Norms with their weights: for the residual stream, the rows added to it, and heads.

use super::{Session, SessionError};
use crate::format::FormatError;
use crate::format::spec::{LayerRecord, NormKind, NormPlacement, QueryKeyNorm};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::Kernels;
use crate::numerics::{F32Bytes, NumericRange};

/// A norm with its weights.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    weight: F32Bytes<'a>,
    /// Present for layer norms; empty for those without one.
    bias: Option<F32Bytes<'a>>,
    epsilon: f32,
}

impl Norm<'_> {
    pub(super) fn apply(&self, kernels: &Kernels, x: &mut [f32]) -> Result<(), NumericRange> {
        match self.bias {
            Some(bias) => (kernels.layer_norm)(x, self.weight, bias, self.epsilon),
            None => (kernels.rms_norm)(x, self.weight, self.epsilon),
        }
    }
}

impl<'a> Session<'a, '_> {
    /// A norm outside the layers; `None` where `kind` is 0.
    pub(super) fn global_norm(&self, role: TensorRole, kind: u8) -> Result<Option<Norm<'a>>, SessionError> {
        let Some(kind) = NormKind::from_number(kind) else { return Ok(None) };
        let key = TensorKey::global(role, TensorPart::Weight);
        Ok(Some(self.norm(key, kind, self.artifact.spec().epsilon)?))
    }

    /// A norm of a layer.
    pub(super) fn layer_norm(
        &self,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Norm<'a>, SessionError> {
        let kind = NormKind::from_number(layer.norm).ok_or(FormatError::Layer(index as u32, "norm"))?;
        Ok(self.norm(TensorKey::layer(index, role, TensorPart::Weight), kind, layer.epsilon)?)
    }

    /// The norm before a part of a layer, where there is one.
    pub(super) fn norm_before(
        &self,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Option<Norm<'a>>, SessionError> {
        let before = NormPlacement::from_number(layer.norm_placement).is_some_and(|placement| match role {
            TensorRole::FfnNorm => placement.is_before_network(),
            _ => placement.is_before_mixer(),
        });
        before.then(|| self.layer_norm(index, layer, role)).transpose()
    }

    /// The norm of every head's queries or keys, where the layer has one.
    pub(super) fn head_norm(
        &self,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Option<Norm<'a>>, SessionError> {
        let heads = layer.query_key_norm == QueryKeyNorm::Heads as u8;
        heads.then(|| self.layer_norm(index, layer, role)).transpose()
    }

    /// The norm of all queries or keys of a position together, where the layer has one.
    pub(super) fn joint_norm(
        &self,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Option<Norm<'a>>, SessionError> {
        let together = layer.query_key_norm == QueryKeyNorm::Together as u8;
        together.then(|| self.layer_norm(index, layer, role)).transpose()
    }

    fn norm(&self, key: TensorKey, kind: NormKind, epsilon: f32) -> Result<Norm<'a>, FormatError> {
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::LayerUnbiased => Some(F32Bytes::new(&[])),
            NormKind::Layer => Some(self.vector(TensorKey { part: TensorPart::Bias, ..key })?),
        };
        Ok(Norm { weight: self.vector(key)?, bias, epsilon })
    }
}
