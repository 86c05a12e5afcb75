//! The linear modules of a model, and the coding that each gets: all parameters of a fused module share one.
//!
//! | rows of the module | coding |
//! |---|---|
//! | all w8 | 8 bits, one scale a row; with 8-bit inputs as signed bytes |
//! | all of one scheme with groups | its bits, its groups |
//! | of several schemes | 8 bits in groups of 32, the scale of an 8-bit row repeated |
//! | columns that groups do not divide, tables, language-model heads | floating point |
//!
//! The projection of embeddings to the width of the layers is a linear as well.

use crate::disk::DenseType;
use crate::formats::export::{Described, ExportPlan};
use crate::model::families::Family;
use crate::model::id::{Class, LinearId, ParameterId, Part, Role};
use crate::model::scheme::QuantScheme;

/// Columns of a group where rows of several schemes share a module.
const SHARED_GROUP: usize = 32;
/// Bits of a word.
const WORD: usize = 32;

/// How the weights of a module are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coding {
    /// Fields in words, `pack-quantized`.
    Packed {
        /// Bits of a field.
        bits: usize,
        /// Columns of a scale; `None` where a row has one.
        group: Option<usize>,
    },
    /// Signed bytes, `int-quantized`, with inputs in 8 bits.
    Bytes,
    /// Values.
    Float,
}

impl Coding {
    /// In the report.
    pub(super) fn name(self) -> String {
        match self {
            Coding::Packed { bits, group: Some(group) } => format!("pack-quantized, {bits} bits, groups of {group}"),
            Coding::Packed { bits, group: None } => format!("pack-quantized, {bits} bits, one scale a row"),
            Coding::Bytes => "int-quantized, 8-bit inputs".to_owned(),
            Coding::Float => "float".to_owned(),
        }
    }

    /// Words of a row of as many columns.
    pub(super) fn words(bits: usize, columns: usize) -> usize {
        (columns * bits).div_ceil(WORD)
    }

    /// Scales of a row of as many columns.
    pub(super) fn scales(self, columns: usize) -> usize {
        match self {
            Coding::Packed { group: Some(group), .. } => columns.div_ceil(group),
            _ => 1,
        }
    }

    /// Bytes of a matrix with its scales.
    pub(super) fn bytes(self, (rows, columns): (usize, usize), dtype: DenseType) -> u64 {
        let values = match self {
            Coding::Packed { bits, .. } => 4 * rows * Coding::words(bits, columns),
            Coding::Bytes => rows * columns,
            Coding::Float => return (rows * columns * dtype.bytes()) as u64,
        };
        (values + rows * self.scales(columns) * dtype.bytes()) as u64
    }
}

/// Whether matrices of a role are linear modules there, and not tables.
pub(super) fn is_linear(role: Role) -> bool {
    role == Role::EmbeddingProjection || role.class() != Class::Embedding
}

/// A module of the checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// The matrices in it, by their rows.
    parts: Vec<LinearId>,
    /// How they are stored.
    pub(super) coding: Coding,
}

impl Module {
    pub(super) fn holds(&self, id: LinearId) -> bool {
        self.parts.contains(&id)
    }

    /// The first of its matrices, which stands for it.
    pub(super) fn first(&self) -> LinearId {
        self.parts[0]
    }

    /// Its matrices, by their rows.
    pub(super) fn ids(&self) -> impl Iterator<Item = LinearId> {
        self.parts.iter().copied()
    }

    /// Notes what a matrix was made for and the format does not have.
    pub(super) fn lose(plan: &mut ExportPlan, id: ParameterId, model: &Described<'_>) {
        let ParameterId::Linear(id, Part::Weight) = id else { return };
        if model.matrix(id).two_of_four {
            let instead = "zeros are stored as other integers: readers of today refuse the format's own sparse layout";
            plan.lose("2:4 sparsity", id, instead);
        }
    }
}

/// A matrix of a module: its first row there, its name, its columns.
type Row = (usize, LinearId, usize);

/// The modules of a model in the order of the forward; with 8-bit inputs where an artifact has them, if those are asked for.
pub(super) fn of(model: &Described<'_>, family: &Family, with_inputs: bool) -> Vec<Module> {
    let mut modules: Vec<(String, Vec<Row>)> = Vec::new();
    for (id, _, columns) in model.spec.matrices() {
        let Some(source) = family.tensor(model.spec, ParameterId::weight(id)) else { continue };
        let part = (source.fused.map_or(0, |fused| fused.first), id, columns);
        match modules.iter_mut().find(|(name, _)| *name == source.name) {
            Some((_, parts)) => parts.push(part),
            None => modules.push((source.name, vec![part])),
        }
    }
    let module = |(_, mut parts): (String, Vec<Row>)| {
        parts.sort_by_key(|(first, ..)| *first);
        let columns = parts[0].2;
        let parts: Vec<LinearId> = parts.into_iter().map(|(_, id, _)| id).collect();
        let coding = coding(model, &parts, columns, with_inputs);
        Module { parts, coding }
    };
    modules.into_iter().map(module).collect()
}

fn coding(model: &Described<'_>, parts: &[LinearId], columns: usize, with_inputs: bool) -> Coding {
    let packs = |id: &LinearId| is_linear(id.role) && id.role != Role::LmHead;
    let schemes: Option<Vec<QuantScheme>> = parts.iter().map(|id| model.matrix(*id).scheme).collect();
    let Some(schemes) = schemes.filter(|_| parts.iter().all(packs)) else { return Coding::Float };
    let wide = parts.iter().any(|id| model.matrix(*id).wide);
    match schemes.as_slice() {
        [first, rest @ ..] if rest.iter().all(|scheme| scheme == first) => match first.def().group {
            None if with_inputs && !wide => Coding::Bytes,
            None => Coding::Packed { bits: first.def().bits, group: None },
            Some(group) if columns.is_multiple_of(group) => {
                Coding::Packed { bits: first.def().bits, group: Some(group) }
            }
            Some(_) => Coding::Float,
        },
        _ if columns.is_multiple_of(SHARED_GROUP) => Coding::Packed { bits: 8, group: Some(SHARED_GROUP) },
        _ => Coding::Float,
    }
}
