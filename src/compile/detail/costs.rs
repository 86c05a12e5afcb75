//! Tables of what each unit of work costs in instructions, measured on emulators by `tests/cross/run --kernels` and part of
//! the program: `cost = call + first · a + second · b`, a and b numbers of the unit (rows and multiply-accumulates of a
//! product, elements of a row, positions and products of attention).

use super::DetailError;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use slm_runtime::layout::Layout;
use std::collections::BTreeMap;
use std::path::Path;

const EMBEDDED: &str = include_str!("instructions.json");

/// A model whose tokens were counted and estimated when a table was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The model and its scheme.
    pub model: String,
    /// Instructions of a token, counted.
    pub counted: u64,
    /// The same by the table.
    pub estimated: u64,
}

impl Check {
    /// How far the estimate is off, as a share of the count.
    pub fn error(&self) -> f64 {
        (self.estimated as f64 - self.counted as f64) / (self.counted as f64).max(1.0)
    }
}

/// Costs on one device with one table of kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The emulated device.
    pub device: String,
    /// Its table of kernels.
    pub kernel: String,
    /// Rust's name of the platform.
    pub triple: String,
    /// Instruction set as target files name it, `scalar` for the portable kernels.
    pub isa: String,
    /// Layout that it was measured in.
    pub layout: String,
    /// Compiler.
    pub rustc: String,
    /// Its flags.
    pub flags: String,
    /// By unit: for a call, and by the two numbers.
    pub costs: BTreeMap<String, [f64; 3]>,
    /// What stands around the kernels: for a token, a layer, a query head.
    pub executor: [f64; 3],
    /// Whole tokens, of models that the table was not made from.
    pub checks: Vec<Check>,
}

impl Costs {
    /// The cost of one call of a unit.
    pub(super) fn of(&self, unit: &str, first: u64, second: u64) -> Result<f64, DetailError> {
        let missing = || DetailError::NoCost { unit: unit.to_owned(), device: self.device.clone() };
        let [call, a, b] = self.costs.get(unit).ok_or_else(missing)?;
        Ok(call + first as f64 * a + second as f64 * b)
    }
}

/// The tables of the program, or of a file of the same form.
///
/// # Errors
/// [`DetailError::File`], [`DetailError::Form`].
pub(super) fn tables(path: Option<&Path>) -> Result<Vec<Costs>, DetailError> {
    let (text, name) = match path {
        None => (EMBEDDED.to_owned(), "the program's own".to_owned()),
        Some(path) => {
            let read = |source| DetailError::File { path: path.to_owned(), source };
            (std::fs::read_to_string(path).map_err(read)?, path.display().to_string())
        }
    };
    serde_json::from_str(&text).map_err(|source| DetailError::Form { name, source })
}

/// The table of a target for artifacts in a layout: that of its own kernels where it is their layout, else the portable ones
/// of its platform.
///
/// # Errors
/// [`DetailError::NoTable`].
pub(super) fn find<'t>(tables: &'t [Costs], target: &Target, layout: Layout) -> Result<&'t Costs, DetailError> {
    let own = target.isa.as_deref().unwrap_or("scalar");
    let isa = if target.layout == layout { own } else { "scalar" };
    let fitting = || {
        tables.iter().filter(move |table| target.triple.as_deref() == Some(table.triple.as_str()) && table.isa == isa)
    };
    fitting().find(|table| table.device == target.name).or_else(|| fitting().next()).ok_or_else(|| {
        let mut known: Vec<String> = tables.iter().map(|table| format!("{} of {}", table.isa, table.triple)).collect();
        known.sort_unstable();
        known.dedup();
        DetailError::NoTable {
            target: target.name.clone(),
            isa: isa.to_owned(),
            triple: target.triple.clone().unwrap_or_else(|| "no triple".to_owned()),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
        }
    })
}
