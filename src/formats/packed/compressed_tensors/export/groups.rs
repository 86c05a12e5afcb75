//! `quantization_config`: a group for every coding, with the modules that it is for. One coding for all linears has the class
//! `Linear`; else modules are named by patterns, one for all layers where they have the same. Linears that are not packed stand
//! under `ignore`, the language-model head always: tied to a table it is a module of its own there, without a tensor.

use super::modules::{Coding, Module, is_linear};
use crate::formats::packed::compressed_tensors::METHOD;
use crate::model::families::Family;
use crate::model::id::{LinearId, ParameterId, Role};
use crate::model::spec::{ModelKind, ModelSpec};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The section, `names` being those of modules by their first matrix and `heads` those of the language-model head.
pub(super) fn section(
    modules: &[Module],
    names: &BTreeMap<LinearId, String>,
    heads: Vec<String>,
    spec: &ModelSpec,
) -> Value {
    let linear = |module: &&Module| is_linear(module.first().role);
    let codings: BTreeSet<Coding> = modules.iter().filter(linear).map(|module| module.coding).collect();
    let packed: Vec<Coding> = codings.into_iter().filter(|coding| *coding != Coding::Float).collect();
    let formats: BTreeSet<&str> = packed.iter().map(|coding| format(*coding)).collect();
    let top = match formats.first() {
        Some(only) if formats.len() == 1 => only,
        _ => "mixed-precision",
    };
    let mut groups = Map::new();
    for (number, coding) in packed.iter().enumerate() {
        let targets = match packed.len() {
            1 => vec!["Linear".to_owned()],
            _ => targets(modules, names, *coding),
        };
        groups.insert(format!("group_{number}"), group(*coding, &targets));
    }
    let plain = modules.iter().filter(linear).filter(|module| module.coding == Coding::Float);
    let mut ignore = vec!["lm_head".to_owned()];
    for name in heads.into_iter().chain(plain.filter_map(|module| names.get(&module.first()).cloned())) {
        if !ignore.contains(&name) {
            ignore.push(name);
        }
    }
    // transformers makes a pooler whether the checkpoint has one or not.
    let has_pooler = spec.matrices().iter().any(|(id, ..)| id.role == Role::Pooler);
    if spec.kind == ModelKind::Encoder && !has_pooler {
        ignore.push("re:.*pooler[.]dense$".to_owned());
    }
    json!({
        "quant_method": METHOD,
        "format": top,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
    })
}

/// Names that the module of a language-model head may have, whether its matrix is its own or the token table's.
pub(super) fn head_names(family: &Family, spec: &ModelSpec, prefix: &str) -> Vec<String> {
    let head = LinearId::global(Role::LmHead);
    let has_head = spec.last_linear() == Some(head);
    let source = family.tensor(spec, ParameterId::weight(head)).filter(|_| has_head);
    let stems = source.into_iter().flat_map(|source| source.names(prefix));
    stems.filter_map(|name| name.strip_suffix(".weight").map(str::to_owned)).collect()
}

fn format(coding: Coding) -> &'static str {
    match coding {
        Coding::Packed { .. } => "pack-quantized",
        Coding::Bytes | Coding::Float => "int-quantized",
    }
}

fn group(coding: Coding, targets: &[String]) -> Value {
    let (bits, size) = match coding {
        Coding::Packed { bits, group } => (bits, group),
        Coding::Bytes | Coding::Float => (8, None),
    };
    let mut weights = json!({
        "num_bits": bits,
        "type": "int",
        "symmetric": true,
        "strategy": if size.is_some() { "group" } else { "channel" },
        "dynamic": false,
    });
    if let Some(size) = size {
        weights["group_size"] = json!(size);
    }
    let inputs = json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true});
    json!({
        "targets": targets,
        "weights": weights,
        "input_activations": if coding == Coding::Bytes { inputs } else { Value::Null },
        "output_activations": null,
        "format": format(coding),
    })
}

/// The modules of a coding: a pattern for a name that has it in all layers, else each by itself.
fn targets(modules: &[Module], names: &BTreeMap<LinearId, String>, coding: Coding) -> Vec<String> {
    let mut of_role: BTreeMap<Role, Vec<&Module>> = BTreeMap::new();
    for module in modules {
        of_role.entry(module.first().role).or_default().push(module);
    }
    let mut targets = Vec::new();
    for alike in of_role.values() {
        let own: Vec<&str> = alike
            .iter()
            .filter(|module| module.coding == coding)
            .filter_map(|module| names.get(&module.first()).map(String::as_str))
            .collect();
        match own.as_slice() {
            [] => {}
            [first, ..] if own.len() == alike.len() => targets.push(pattern(first)),
            _ => targets.extend(own.into_iter().map(str::to_owned)),
        }
    }
    targets
}

/// A name in every layer: what stands after the number of the layer, at the end.
fn pattern(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let number = parts.iter().rposition(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    match number {
        Some(number) => format!(r"re:.*[.]\d+[.]{}$", parts[number + 1..].join("[.]")),
        None => name.to_owned(),
    }
}
