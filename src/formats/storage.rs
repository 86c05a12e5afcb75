//! How the tensors of a model are stored, by class, for people who look at it before they use it.

use crate::model::id::{ParameterId, Part};
use crate::report::{Align, Table, grouped};
use serde::Serialize;

/// The tensors of one class that are stored alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StorageRow {
    /// `embedding`, `attention`, `conv`, `ffn`, `head`, or `vectors`: norms and biases.
    pub class: &'static str,
    /// The format's word for it.
    pub stored: &'static str,
    /// How many parameters.
    pub tensors: usize,
    /// How many values they have.
    pub values: u64,
    /// What is exact, and what is converted.
    pub becomes: &'static str,
}

impl StorageRow {
    /// The rows as a table; `None` where there are none.
    pub fn table(rows: &[StorageRow]) -> Option<Table> {
        if rows.is_empty() {
            return None;
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table =
            Table::new([("weights", left), ("stored as", left), ("tensors", right), ("values", right), ("read", left)]);
        for row in rows {
            table.row([row.class, row.stored, &row.tensors.to_string(), &grouped(row.values), row.becomes]);
        }
        Some(table)
    }

    /// Counts a parameter in its row, in the order in which classes are met.
    pub fn add(rows: &mut Vec<StorageRow>, id: ParameterId, stored: &'static str, values: u64, becomes: &'static str) {
        let class = match id {
            ParameterId::Linear(id, Part::Weight) => id.role.class().name(),
            ParameterId::Kernel(_, Part::Weight) => "conv",
            _ => "vectors",
        };
        match rows.iter_mut().find(|row| row.class == class && row.stored == stored) {
            Some(row) => {
                row.tensors += 1;
                row.values += values;
            }
            None => rows.push(StorageRow { class, stored, tensors: 1, values, becomes }),
        }
    }
}
