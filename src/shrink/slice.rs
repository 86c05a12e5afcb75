//! A student's values out of its teacher's: every tensor cut along the axes that the selection cuts, all of them together.
//!
//! | axis | cut by | tensors |
//! |---|---|---|
//! | hidden | basis of the residual stream | columns of tables and readers, rows of writers, norms, biases of writers |
//! | heads, key heads | kept heads, whole | rows of query, key and value with their biases, columns of output |
//! | inner | kept channels of the network | rows of gate and up, columns of down |
//! | convolution | its kept channels, thrice in its input projection | rows of conv.in, the kernel, columns of conv.out |
//!
//! Where directions of the stream are kept instead of channels, the gain of every norm goes into the matrices after it, which
//! leaves 1; a tied head has no matrix of its own, and the diagonal of Bᵀ diag(γ) B stays in the last norm.

use super::ShrinkError;
use super::basis::{Basis, pick_columns, pick_rows};
use super::select::{LayerSelection, Selection};
use crate::model::id::{Class, LinearId, NormSite, ParameterId, Part, Role};
use crate::model::matrix::{from_rows, into_values};
use crate::model::spec::{Mixer, ModelSpec, QueryKeyNorm};
use crate::model::weights::Model;
use ndarray::Array2;
use std::collections::BTreeMap;

/// Values by parameter, row-major.
pub(super) type Values = BTreeMap<ParameterId, Vec<f32>>;

/// What cuts a dimension of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Whole,
    Hidden,
    Heads,
    KeyHeads,
    Inner,
    Conv,
    /// Three times the channels of a convolution.
    ConvParts,
}

/// Axes of the rows and columns of a matrix.
fn axes(role: Role) -> [Axis; 2] {
    match role {
        Role::TokenEmbedding
        | Role::PositionEmbedding
        | Role::TypeEmbedding
        | Role::LmHead
        | Role::Classifier
        | Role::ExitClassifier => [Axis::Whole, Axis::Hidden],
        // Students have the embeddings' width of their teacher.
        Role::EmbeddingProjection => [Axis::Hidden, Axis::Whole],
        Role::EncoderBias | Role::DecoderBias => [Axis::Whole, Axis::Whole],
        Role::Query | Role::CrossQuery => [Axis::Heads, Axis::Hidden],
        Role::Key | Role::Value | Role::CrossKey | Role::CrossValue => [Axis::KeyHeads, Axis::Hidden],
        Role::Output | Role::CrossOutput => [Axis::Hidden, Axis::Heads],
        Role::ConvIn => [Axis::ConvParts, Axis::Hidden],
        Role::ConvOut => [Axis::Hidden, Axis::Conv],
        Role::Router => [Axis::Whole, Axis::Hidden],
        Role::Gate | Role::Up => [Axis::Inner, Axis::Hidden],
        Role::Down => [Axis::Hidden, Axis::Inner],
        Role::MlmTransform | Role::Pooler | Role::ExitPooler => [Axis::Hidden, Axis::Hidden],
    }
}

/// The norm whose output a matrix reads, in a model whose norms stand before.
pub(super) fn norm_before(id: LinearId) -> Option<ParameterId> {
    let site = match id.role {
        Role::Query | Role::Key | Role::Value => NormSite::Attention,
        Role::ConvIn => NormSite::Conv,
        Role::Router | Role::Gate | Role::Up => NormSite::Ffn,
        Role::LmHead => NormSite::Final,
        _ => return None,
    };
    Some(ParameterId::Norm(id.layer, site, Part::Weight))
}

/// A teacher, and what is kept of it.
pub(super) struct Cut<'c> {
    pub(super) teacher: &'c Model,
    pub(super) selection: &'c Selection,
    /// The student.
    pub(super) spec: &'c ModelSpec,
}

impl Cut<'_> {
    /// The values of every parameter of the student.
    pub(super) fn values(&self) -> Result<Values, ShrinkError> {
        let mut values = Values::new();
        for parameter in self.spec.parameters() {
            values.insert(parameter.id, self.value(parameter.id)?);
        }
        // A factor on embeddings that follows the hidden width is kept as it was, by the table.
        let factor = self.teacher.spec.embedding_scale / self.spec.embedding_scale;
        if factor != 1.0 {
            let scale = |values: &mut Values, id, factor: f32| {
                values.entry(id).and_modify(|values| values.iter_mut().for_each(|value| *value *= factor));
            };
            scale(&mut values, ParameterId::weight(LinearId::global(Role::TokenEmbedding)), factor);
            if self.spec.tied_head() {
                self.scale_norm(&mut values, ParameterId::Norm(None, NormSite::Final, Part::Weight), 1.0 / factor);
            }
        }
        Ok(values)
    }

    /// Multiplies a norm's gain, as it is applied.
    pub(super) fn scale_norm(&self, values: &mut Values, id: ParameterId, factor: f32) {
        let added = if self.spec.counts_from_one(id) { 1.0 } else { 0.0 };
        values.entry(id).and_modify(|gain| gain.iter_mut().for_each(|gain| *gain = factor * (*gain + added) - added));
    }

    /// What is kept of the layer of a student's parameter.
    fn layer(&self, id: ParameterId) -> Option<&LayerSelection> {
        id.layer().map(|layer| &self.selection.layers[usize::from(layer)])
    }

    /// The teacher's parameter of a student's.
    pub(super) fn teachers(&self, id: ParameterId) -> ParameterId {
        let layers: Vec<usize> = self.selection.layers.iter().map(|layer| layer.of).collect();
        crate::train::student::teacher_parameter(id, &layers)
    }

    fn value(&self, id: ParameterId) -> Result<Vec<f32>, ShrinkError> {
        let of_teacher = self.teacher.values_f32(self.teachers(id))?;
        let hidden = self.teacher.spec.hidden;
        let layer = self.layer(id);
        Ok(match id {
            ParameterId::Linear(linear, Part::Weight) => {
                let [rows, columns] = self.axes(linear.role);
                let width = self.teacher_columns(linear);
                let mut matrix = from_rows(of_teacher, width);
                self.fold_gain(linear, &mut matrix)?;
                into_values(self.cut_columns(columns, layer, self.cut_rows(rows, layer, matrix)))
            }
            ParameterId::Linear(linear, Part::Bias) => {
                let [rows, _] = axes(linear.role);
                into_values(self.cut_rows(rows, layer, from_rows(of_teacher, 1)))
            }
            ParameterId::Norm(_, site @ (NormSite::Query | NormSite::Key), _) => {
                let axis = if site == NormSite::Query { Axis::Heads } else { Axis::KeyHeads };
                let axis = if self.norms_heads_together(layer) { axis } else { Axis::Whole };
                into_values(self.cut_rows(axis, layer, from_rows(of_teacher, 1)))
            }
            ParameterId::Norm(.., Part::Weight) if matches!(self.selection.hidden, Basis::Directions(_)) => {
                let last = matches!(id, ParameterId::Norm(None, NormSite::Final, _));
                match &self.selection.hidden {
                    Basis::Directions(directions) if last && self.spec.tied_head() => {
                        let of_column = |column: ndarray::ArrayView1<'_, f32>| {
                            column.iter().zip(&of_teacher).map(|(b, gain)| b * b * gain).sum::<f32>()
                        };
                        directions.columns().into_iter().map(of_column).collect()
                    }
                    _ => vec![1.0; self.spec.hidden],
                }
            }
            ParameterId::Norm(None, NormSite::Embedding, _) if self.spec.projects_embeddings() => of_teacher,
            ParameterId::Norm(..) => self.selection.hidden.vector(of_teacher),
            ParameterId::Kernel(_, part) => {
                let taps = if part == Part::Weight { of_teacher.len() / hidden } else { 1 };
                into_values(self.cut_rows(Axis::Conv, layer, from_rows(of_teacher, taps)))
            }
            ParameterId::KeyMap(..) => of_teacher,
        })
    }

    /// Whether the gains of a layer's queries and keys are of every head.
    fn norms_heads_together(&self, layer: Option<&LayerSelection>) -> bool {
        let of_teacher = layer.and_then(|layer| self.teacher.spec.layers[layer.of].attention());
        of_teacher.is_some_and(|attention| attention.query_key_norm == Some(QueryKeyNorm::Together))
    }

    /// Columns of the teacher's matrix.
    fn teacher_columns(&self, linear: LinearId) -> usize {
        let of_teacher = self.teachers(ParameterId::weight(linear)).layer();
        let layer = of_teacher.map(|layer| &self.teacher.spec.layers[usize::from(layer)]);
        match (linear.role, layer) {
            (Role::Output, Some(layer)) => layer.attention().map_or(0, |attention| attention.query_width()),
            (Role::Down, Some(layer)) => layer.ffn.width,
            (role, _) if role.class() == Class::Embedding => self.teacher.spec.embedding_width,
            _ => self.teacher.spec.hidden,
        }
    }

    /// Axes of the rows and columns of a matrix; tables that are narrower than the layers keep their columns.
    fn axes(&self, role: Role) -> [Axis; 2] {
        match role.class() {
            Class::Embedding if self.spec.projects_embeddings() => [axes(role)[0], Axis::Whole],
            _ => axes(role),
        }
    }

    /// Moves the gain of the norm before a matrix into its columns, where directions are kept.
    fn fold_gain(&self, linear: LinearId, matrix: &mut Array2<f32>) -> Result<(), ShrinkError> {
        let Some(norm) = norm_before(linear).filter(|_| matches!(self.selection.hidden, Basis::Directions(_))) else {
            return Ok(());
        };
        let gain = self.teacher.values_f32(self.teachers(norm))?;
        for mut row in matrix.rows_mut() {
            row.iter_mut().zip(&gain).for_each(|(weight, gain)| *weight *= gain);
        }
        Ok(())
    }

    /// The kept rows of a matrix of the teacher, by the role of a student's matrix.
    pub(super) fn rows_of(&self, linear: LinearId, matrix: Array2<f32>) -> Array2<f32> {
        self.cut_rows(axes(linear.role)[0], self.layer(ParameterId::weight(linear)), matrix)
    }

    fn cut_rows(&self, axis: Axis, layer: Option<&LayerSelection>, matrix: Array2<f32>) -> Array2<f32> {
        match (axis, layer) {
            (Axis::Hidden, _) => self.selection.hidden.rows(matrix),
            (Axis::Whole, _) | (_, None) => matrix,
            (axis, Some(layer)) => pick_rows(&matrix, &self.indices(axis, layer)),
        }
    }

    fn cut_columns(&self, axis: Axis, layer: Option<&LayerSelection>, matrix: Array2<f32>) -> Array2<f32> {
        match (axis, layer) {
            (Axis::Hidden, _) => self.selection.hidden.columns(matrix),
            (Axis::Whole, _) | (_, None) => matrix,
            (axis, Some(layer)) => pick_columns(&matrix, &self.indices(axis, layer)),
        }
    }

    /// The kept rows (or columns) along an axis within a layer.
    fn indices(&self, axis: Axis, layer: &LayerSelection) -> Vec<usize> {
        let head_dim = match &self.teacher.spec.layers[layer.of].mixer {
            Mixer::Attention(attention) => attention.head_dim,
            Mixer::Conv(_) => 0,
        };
        let heads = |heads: &[usize]| heads.iter().flat_map(|head| head * head_dim..(head + 1) * head_dim).collect();
        match axis {
            Axis::Heads => heads(&layer.heads),
            Axis::KeyHeads => heads(&layer.key_heads),
            Axis::Inner => layer.ffn.clone(),
            Axis::Conv => layer.conv.clone(),
            Axis::ConvParts => {
                let hidden = self.teacher.spec.hidden;
                (0..3).flat_map(|part| layer.conv.iter().map(move |channel| part * hidden + channel)).collect()
            }
            Axis::Whole | Axis::Hidden => Vec::new(),
        }
    }
}
