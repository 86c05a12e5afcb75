//! How the tensors of a model are stored, by class, for people who look at it before they use it: what is exact, and which
//! matrices `quantize --method keep` takes over.

use super::{ModelFormatError, ModelSource};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::integers::Unfit;
use crate::model::scheme::{QuantScheme, SCHEMES};
use crate::model::weights::Parameter;
use crate::report::{Align, Table, grouped};
use serde::Serialize;

/// How a source stores one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// The format's word for it.
    pub name: String,
    /// What is exact, and what is converted.
    pub becomes: &'static str,
}

impl StoredAs {
    /// As the values that it stands for.
    pub fn plain(name: String) -> Self {
        StoredAs { name, becomes: "as it is" }
    }

    /// In a form from which f32 is made without an error.
    pub fn converted(name: String) -> Self {
        StoredAs { name, becomes: "exact in f32" }
    }

    /// The data type of a tensor.
    pub fn of(parameter: &Parameter) -> Self {
        let name = match parameter {
            Parameter::Dense(tensor) => tensor.dtype().to_string().to_lowercase(),
            Parameter::Quantized(matrix) => matrix.scheme.to_string(),
        };
        StoredAs::plain(name)
    }
}

/// The tensors of one class that are stored alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StorageRow {
    /// `embedding`, `attention`, `conv`, `ffn`, `head`, or `vectors`: norms and biases.
    pub class: &'static str,
    /// The format's word for it.
    pub stored: String,
    /// How many parameters.
    pub tensors: usize,
    /// How many values they have.
    pub values: u64,
    /// What is exact, and what is converted.
    pub becomes: &'static str,
    /// Schemes in which `quantize --method keep` takes over the integers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<String>,
    /// Why every scheme rounds them anew; absent where one does not, and where there are no integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded: Option<String>,
    /// Names of the matrices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<String>,
}

impl StorageRow {
    /// The rows as a table; `None` where there are none.
    pub fn table(rows: &[StorageRow]) -> Option<Table> {
        if rows.is_empty() {
            return None;
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new([
            ("weights", left),
            ("stored as", left),
            ("tensors", right),
            ("values", right),
            ("read", left),
            ("--method keep", left),
        ]);
        for row in rows {
            let kept = match (&row.rounded, row.keeps.as_slice()) {
                (Some(reason), _) => format!("rounded: {reason}"),
                (None, []) => String::new(),
                (None, schemes) => format!("taken over by {}", schemes.join(", ")),
            };
            let (tensors, values) = (row.tensors.to_string(), grouped(row.values));
            table.row([row.class, &row.stored, &tensors, &values, row.becomes, &kept]);
        }
        Some(table)
    }
}

/// The class of a parameter in tables: that of a matrix, `conv` of a kernel, `vectors` of norms and biases.
pub(super) fn class_of(id: ParameterId) -> &'static str {
    match id {
        ParameterId::Linear(id, Part::Weight) => id.role.class().name(),
        ParameterId::Kernel(_, Part::Weight) => "conv",
        _ => "vectors",
    }
}

/// The schemes in which a matrix keeps its integers; where there are none, and it has integers, why.
fn kept(source: &dyn ModelSource, id: LinearId) -> (Vec<String>, Option<Unfit>) {
    let grid = match source.grid(id) {
        Ok(grid) => grid,
        Err(Unfit::Floats) => return (Vec::new(), None),
        Err(reason) => return (Vec::new(), Some(reason)),
    };
    let fitting = SCHEMES.iter().filter(|def| grid.fit(def.scheme).is_ok());
    let fitting: Vec<String> = fitting.map(|def| def.name.to_owned()).collect();
    if !fitting.is_empty() {
        return (fitting, None);
    }
    // Integers that four bits do not hold lack something for eight; only zero points are a reason by themselves.
    let reason = match grid.fit(QuantScheme::W4G32) {
        Err(Unfit::Range { zero_points: false, .. }) => grid.fit(QuantScheme::W8),
        other => other,
    };
    (fitting, reason.err())
}

/// How the tensors of a source are stored; nothing where it says nothing that its configuration does not.
///
/// # Errors
/// A tensor that cannot be read.
pub fn storage(source: &dyn ModelSource) -> Result<Vec<StorageRow>, ModelFormatError> {
    let mut rows: Vec<StorageRow> = Vec::new();
    for parameter in source.outline().spec.parameters() {
        let Some(StoredAs { name, becomes }) = source.stored(parameter.id)? else { continue };
        let matrix = match parameter.id {
            ParameterId::Linear(id, Part::Weight) => Some(id),
            _ => None,
        };
        let class = class_of(parameter.id);
        let (keeps, reason) = matrix.map_or_else(Default::default, |id| kept(source, id));
        let rounded = reason.map(|reason| reason.to_string());
        let values = parameter.shape.iter().map(|&n| n as u64).product::<u64>();
        let alike = |row: &&mut StorageRow| {
            (row.class, &row.stored, row.becomes) == (class, &name, becomes)
                && row.keeps == keeps
                && row.rounded == rounded
        };
        let matrices: Vec<String> = matrix.iter().map(ToString::to_string).collect();
        match rows.iter_mut().find(alike) {
            Some(row) => {
                row.tensors += 1;
                row.values += values;
                row.matrices.extend(matrices);
            }
            None => {
                rows.push(StorageRow { class, stored: name, tensors: 1, values, becomes, keeps, rounded, matrices })
            }
        }
    }
    Ok(rows)
}
