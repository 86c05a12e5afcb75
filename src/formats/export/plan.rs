//! What becomes of a model in a format: the tensors of each class by the type that they get, what is lost, what is said.
//! It follows from the specification, the schemes and the widths alone.

use crate::disk::DenseType;
use crate::formats::storage::class_of;
use crate::model::id::{LinearId, ParameterId};
use crate::model::scheme::{Assignment, QuantScheme, Width};
use crate::model::spec::ModelSpec;
use crate::model::transform::{NmPattern, Sparsity};
use crate::model::weights::{Model, Outline};
use crate::report::{Align, Table, grouped};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// A model to export, without its values.
#[derive(Clone, Debug)]
pub struct Described<'m> {
    /// Its specification.
    pub spec: &'m ModelSpec,
    /// Scheme of every quantized matrix; empty of a dense model.
    pub schemes: Cow<'m, Assignment>,
    /// Pattern of every matrix that has one, of a quantized model.
    pub sparsity: Cow<'m, Sparsity>,
    /// Width of the inputs of every linear that takes more than 8 bits.
    pub activations: Cow<'m, BTreeMap<LinearId, Width>>,
    /// Whether it has key maps.
    pub key_maps: bool,
}

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMatrix {
    /// Its scheme; `None` of floating-point values.
    pub scheme: Option<QuantScheme>,
    /// Whether a device stores two of every four values.
    pub two_of_four: bool,
    /// Whether its inputs have 16 bits on a device.
    pub wide: bool,
}

impl<'m> Described<'m> {
    /// A model by its headers.
    pub fn of(outline: &'m Outline) -> Self {
        Described {
            spec: &outline.spec,
            schemes: outline.schemes.as_ref().map_or_else(Cow::default, Cow::Borrowed),
            sparsity: Cow::Borrowed(&outline.sparsity),
            activations: Cow::Borrowed(&outline.activations),
            key_maps: outline.key_maps,
        }
    }

    /// A model in memory.
    pub fn of_model(model: &'m Model) -> Self {
        Described {
            spec: &model.spec,
            schemes: Cow::Owned(model.schemes()),
            sparsity: Cow::Owned(model.sparsity()),
            activations: Cow::Owned(model.activations()),
            key_maps: model.parameters.keys().any(|id| matches!(id, ParameterId::KeyMap(..))),
        }
    }

    /// How a matrix is stored.
    pub fn matrix(&self, id: LinearId) -> StoredMatrix {
        let scheme = self.schemes.get(&id).copied();
        let pattern = self.sparsity.get(&id).filter(|pattern| scheme.is_some() && pattern.is_two_of_four());
        StoredMatrix {
            scheme,
            two_of_four: pattern.is_some(),
            wide: self.activations.get(&id).is_some_and(|width| *width == Width::Bits16),
        }
    }

    /// The name that slmc has for the storage of a parameter; floating-point values where it has no scheme.
    pub fn stored_name(&self, id: ParameterId) -> String {
        let ParameterId::Linear(linear, crate::model::id::Part::Weight) = id else { return "float".to_owned() };
        let matrix = self.matrix(linear);
        match matrix.scheme {
            None => "float".to_owned(),
            Some(scheme) if matrix.two_of_four => format!("{scheme} {}", NmPattern::TWO_OF_FOUR),
            Some(scheme) => scheme.to_string(),
        }
    }
}

/// What becomes of the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Every integer; scales in the precision of the format.
    Integers,
    /// Every value, to the bit.
    Values,
    /// Every value, rounded to the nearest of the type.
    Rounded,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Integers => "every integer",
            Kept::Values => "every value",
            Kept::Rounded => "rounded to the type",
        })
    }
}

/// Tensors of one class that become the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetRow {
    /// `embedding`, `attention`, `conv`, `ffn`, `head`, or `vectors`: norms and biases.
    pub class: &'static str,
    /// As slmc stores them.
    pub stored: String,
    /// The format's word for the type that they get.
    pub target: String,
    /// How many parameters.
    pub tensors: usize,
    /// Their values.
    pub values: u64,
    /// Their bytes in the output.
    pub bytes: u64,
    /// What becomes of their numbers.
    pub kept: Kept,
}

/// What a model was made for and the output does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// What, such as `2:4 sparsity`.
    pub feature: &'static str,
    /// The matrices that have it.
    pub matrices: Vec<String>,
    /// What is written instead.
    pub instead: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { feature, matrices, instead } = self;
        match matrices.as_slice() {
            [] => write!(f, "{feature}: {instead}"),
            [only] => write!(f, "{feature} of `{only}`: {instead}"),
            [first, rest @ ..] => write!(f, "{feature} of `{first}` and {} more: {instead}", rest.len()),
        }
    }
}

/// What becomes of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportPlan {
    /// Tensors by class and type.
    pub rows: Vec<TargetRow>,
    /// What is lost.
    pub losses: Vec<Loss>,
    /// What is left out or added and changes nothing that the model computes.
    pub notes: Vec<String>,
}

impl ExportPlan {
    /// Adds a parameter: what it was stored as, what it becomes and what that takes.
    pub fn add(&mut self, id: ParameterId, stored: &str, target: &str, (values, bytes): (u64, u64), kept: Kept) {
        let class = class_of(id);
        let alike = |row: &&mut TargetRow| {
            (row.class, row.stored.as_str(), row.target.as_str(), row.kept) == (class, stored, target, kept)
        };
        match self.rows.iter_mut().find(alike) {
            Some(row) => {
                row.tensors += 1;
                row.values += values;
                row.bytes += bytes;
            }
            None => {
                let (stored, target) = (stored.to_owned(), target.to_owned());
                self.rows.push(TargetRow { class, stored, target, tensors: 1, values, bytes, kept });
            }
        }
    }

    /// Adds a matrix to the loss of a feature.
    pub fn lose(&mut self, feature: &'static str, id: LinearId, instead: impl Into<String>) {
        let instead = instead.into();
        match self.losses.iter_mut().find(|loss| loss.feature == feature && loss.instead == instead) {
            Some(loss) => loss.matrices.push(id.to_string()),
            None => self.losses.push(Loss { feature, matrices: vec![id.to_string()], instead }),
        }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// The rows as a table.
    pub fn table(&self) -> Table {
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new([
            ("weights", left),
            ("stored as", left),
            ("written as", left),
            ("tensors", right),
            ("values", right),
            ("bytes", right),
            ("kept", left),
        ]);
        for row in &self.rows {
            let (tensors, values, bytes) = (row.tensors.to_string(), grouped(row.values), grouped(row.bytes));
            table.row([row.class, &row.stored, &row.target, &tensors, &values, &bytes, &row.kept.to_string()]);
        }
        table
    }
}

/// A floating-point type as `--dtype` has it.
pub fn dense_type_name(dtype: DenseType) -> &'static str {
    match dtype {
        DenseType::F32 => "f32",
        DenseType::F16 => "f16",
        DenseType::Bf16 => "bf16",
    }
}

/// What is said of key maps, where a model has them.
pub fn key_maps_note(model: &Described<'_>) -> Option<String> {
    let note =
        "key maps are left out: they serve the 8-bit key-value cache of artifacts and change nothing in floating point";
    model.key_maps.then(|| note.to_owned())
}
