//! The steps that layers and heads are made of: rows to int8 activations, activations through a matrix, norms and
//! activation curves.

use super::{Session, SessionError, add, range};
use crate::format::FormatError;
use crate::format::artifact::{ArtifactView, Matrix};
use crate::format::spec::{CurveId, LayerRecord, NormKind, NormPlacement};
use crate::format::tensor::{TensorKey, TensorPart, TensorRole};
use crate::kernels::Activations;
use crate::layout::GROUP;
use crate::numerics::{Curve, F32Bytes, NumericRange, layer_norm, quantize, rms_norm};

impl<'a> Session<'a, '_> {
    pub(super) fn curve(&self, number: u8) -> Result<Curve<'a>, SessionError> {
        let curve = CurveId::from_number(number).and_then(|id| self.artifact.curve(id));
        curve.ok_or(SessionError::Format(FormatError::Functions("activation curve is missing")))
    }

    /// The input of a part of a layer, quantized: the residual normed by `site`, or itself where norms stand after it.
    pub(super) fn quantize_input(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        site: TensorRole,
        row: usize,
        count: usize,
    ) -> Result<(), SessionError> {
        let norm = if layer.norm_placement == NormPlacement::After as u8 {
            None
        } else {
            Some(Norm::layer(&self.artifact, index, layer, site)?)
        };
        self.quantize_residual(norm.as_ref(), row, count).map_err(|_| range(index))
    }

    /// Residual rows, normed where a norm is given, to int8 activations.
    pub(super) fn quantize_residual(
        &mut self,
        norm: Option<&Norm<'_>>,
        row: usize,
        count: usize,
    ) -> Result<(), NumericRange> {
        let buffers = &mut self.buffers;
        let hidden = buffers.row.len();
        let stride = hidden.next_multiple_of(GROUP);
        for token in 0..count {
            let x = &buffers.residual[(row + token) * hidden..][..hidden];
            let out = &mut buffers.activations[token * stride..][..stride];
            out[hidden..].fill(0);
            buffers.activation_scales[token] = match norm {
                Some(norm) => {
                    buffers.row.copy_from_slice(x);
                    norm.apply(buffers.row)?;
                    quantize(buffers.row, out)?
                }
                None => quantize(x, out)?,
            };
        }
        Ok(())
    }

    /// Rows of `wide_a`, (count, width), to int8 activations.
    pub(super) fn quantize_wide_a(&mut self, count: usize, width: usize) -> Result<(), NumericRange> {
        let buffers = &mut self.buffers;
        let stride = width.next_multiple_of(GROUP);
        for (token, x) in buffers.wide_a[..count * width].chunks_exact(width).enumerate() {
            let out = &mut buffers.activations[token * stride..][..stride];
            out[width..].fill(0);
            buffers.activation_scales[token] = quantize(x, out)?;
        }
        Ok(())
    }

    /// The current activations through a matrix and its bias, into the front of a wide buffer or of the output.
    pub(super) fn linear(&mut self, key: TensorKey, count: usize, into: Wide) -> Result<(), SessionError> {
        let matrix = self.artifact.matrix(key)?;
        self.multiply(&matrix, TensorKey { part: TensorPart::Bias, ..key }, count, into)
    }

    pub(super) fn multiply(
        &mut self,
        matrix: &Matrix<'_>,
        bias: TensorKey,
        count: usize,
        into: Wide,
    ) -> Result<(), SessionError> {
        let stride = matrix.columns.next_multiple_of(GROUP);
        let buffers = &mut self.buffers;
        let activations = Activations {
            values: &buffers.activations[..count * stride],
            stride,
            scales: &buffers.activation_scales[..count],
        };
        let output = match into {
            Wide::A => &mut *buffers.wide_a,
            Wide::B => &mut *buffers.wide_b,
            Wide::Output => &mut *buffers.output,
        };
        let output = &mut output[..count * matrix.rows];
        (self.kernels.multiply)(matrix, activations, output);
        if let Some(bias) = self.artifact.optional_vector(bias)? {
            for row in output.chunks_exact_mut(matrix.rows) {
                for (value, offset) in row.iter_mut().zip(bias.iter()) {
                    *value += offset;
                }
            }
        }
        Ok(())
    }

    /// Adds `wide_b` to the residual rows. Where norms stand after the sum, that of `sites.0` norms it; where they stand
    /// around, that of `sites.1` norms what is added.
    pub(super) fn add_residual(
        &mut self,
        index: usize,
        layer: &LayerRecord,
        sites: (TensorRole, TensorRole),
        row: usize,
        count: usize,
    ) -> Result<(), SessionError> {
        let norm = |site| Norm::layer(&self.artifact, index, layer, site);
        let (of_sum, of_addend) = match NormPlacement::from_number(layer.norm_placement) {
            Some(NormPlacement::After) => (Some(norm(sites.0)?), None),
            Some(NormPlacement::Around) => (None, Some(norm(sites.1)?)),
            _ => (None, None),
        };
        let apply = |norm: &Option<Norm<'_>>, x: &mut [f32]| match norm {
            Some(norm) => norm.apply(x).map_err(|_| range(index)),
            None => Ok(()),
        };
        let hidden = self.buffers.row.len();
        let rows = self.buffers.residual[row * hidden..][..count * hidden].chunks_exact_mut(hidden);
        for (x, y) in rows.zip(self.buffers.wide_b.chunks_exact_mut(hidden)) {
            apply(&of_addend, y)?;
            add(x, y);
            apply(&of_sum, x)?;
        }
        Ok(())
    }
}

/// Which buffer a linear writes to.
#[derive(Clone, Copy)]
pub(super) enum Wide {
    A,
    B,
    Output,
}

/// A norm with its weights.
pub(super) struct Norm<'a> {
    weight: F32Bytes<'a>,
    /// Present for layer norms.
    bias: Option<F32Bytes<'a>>,
    epsilon: f32,
}

impl<'a> Norm<'a> {
    pub(super) fn global(artifact: &ArtifactView<'a>, role: TensorRole, kind: NormKind) -> Result<Self, FormatError> {
        let key = TensorKey::global(role, TensorPart::Weight);
        Norm::new(artifact, key, kind, artifact.spec().epsilon)
    }

    pub(super) fn layer(
        artifact: &ArtifactView<'a>,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Self, FormatError> {
        let kind = NormKind::from_number(layer.norm).ok_or(FormatError::Layer(index as u32, "norm"))?;
        Norm::new(artifact, TensorKey::layer(index, role, TensorPart::Weight), kind, layer.epsilon)
    }

    /// The norm of every head's queries or keys, where the layer has one.
    pub(super) fn of_heads(
        artifact: &ArtifactView<'a>,
        index: usize,
        layer: &LayerRecord,
        role: TensorRole,
    ) -> Result<Option<Self>, FormatError> {
        (layer.query_key_norm == 1).then(|| Norm::layer(artifact, index, layer, role)).transpose()
    }

    fn new(artifact: &ArtifactView<'a>, key: TensorKey, kind: NormKind, epsilon: f32) -> Result<Self, FormatError> {
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(artifact.vector(TensorKey { part: TensorPart::Bias, ..key })?),
        };
        Ok(Norm { weight: artifact.vector(key)?, bias, epsilon })
    }

    pub(super) fn apply(&self, x: &mut [f32]) -> Result<(), NumericRange> {
        match self.bias {
            Some(bias) => layer_norm(x, self.weight, bias, self.epsilon),
            None => rms_norm(x, self.weight, self.epsilon),
        }
    }
}
