//! slmc.json, which slmc writes beside a model: how the model was made and, under `sparsity`, which matrices are sparse,
//! as {NAME: "2:4"}. No other program reads it.

use crate::disk::{Config, ConfigError, PROVENANCE_FILE};
use crate::model::id::{Class, LinearId};
use crate::model::spec::ModelSpec;
use crate::model::transform::{NmPattern, Sparsity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The slmc.json of a directory; `None` where there is none, or one that is not JSON.
pub(super) fn read(directory: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(directory.join(PROVENANCE_FILE)).ok()?).ok()
}

/// The sparse matrices by slmc.json of a directory; none where there is not such a file.
///
/// # Errors
/// A file that does not parse, a name the model does not have, a pattern slmc does not know.
pub(super) fn recorded_sparsity(directory: &Path, spec: &ModelSpec) -> Result<Sparsity, ConfigError> {
    let path = directory.join(PROVENANCE_FILE);
    if !path.exists() {
        return Ok(Sparsity::new());
    }
    sparsity(&Config::read(&path)?, spec)
}

/// The object `sparsity` of a provenance or quantization section.
pub(super) fn sparsity(of: &Config, spec: &ModelSpec) -> Result<Sparsity, ConfigError> {
    let mut out = Sparsity::new();
    let Some(section) = of.section("sparsity")? else { return Ok(out) };
    let matrices: BTreeMap<LinearId, usize> =
        spec.matrices().into_iter().map(|(id, _, columns)| (id, columns)).collect();
    for name in section.map().keys() {
        let id = name.parse().ok().filter(|id| matrices.contains_key(id));
        let id: LinearId = id.ok_or_else(|| section.wrong(name, "under the name of a matrix of this model"))?;
        if id.role.class() == Class::Embedding {
            return Err(section.unsupported(name, "slmc", "only tables that are not sparse"));
        }
        let pattern: NmPattern =
            section.text(name)?.parse().map_err(|_| section.wrong(name, "a pattern N:M, such as 2:4"))?;
        let columns = matrices[&id];
        if pattern.check_columns(id, columns).is_err() {
            return Err(section.wrong(name, &format!("a pattern that divides its {columns} input columns")));
        }
        out.insert(id, pattern);
    }
    Ok(out)
}

/// `sparsity` in the form that `recorded_sparsity` reads.
pub fn sparsity_json(sparsity: &Sparsity) -> Value {
    Value::Object(sparsity.iter().map(|(id, pattern)| (id.to_string(), json!(pattern.to_string()))).collect())
}
