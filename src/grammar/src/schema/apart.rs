//! Whether the alternatives of `oneOf` exclude each other, as far as it can be seen: by their types, by their listed values,
//! or by a property that all of them require with other listed values.

use super::keywords::Kind;
use serde_json::Value;

/// Whether no value follows two of the alternatives; `false` also where that cannot be seen.
pub(super) fn all_apart(alternatives: &[Value]) -> bool {
    // Quadratic: more alternatives are not compared.
    const MOST: usize = 256;
    let mut pairs =
        alternatives.iter().enumerate().flat_map(|(index, a)| alternatives[..index].iter().map(move |b| (a, b)));
    alternatives.len() <= MOST && pairs.all(|(a, b)| apart(a, b))
}

fn apart(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (listed(a), listed(b)) {
        return a.iter().all(|value| !b.contains(value));
    }
    if let (Some(a), Some(b)) = (kinds(a), kinds(b)) {
        let overlap = |a: Kind, b: Kind| {
            let is_number = |kind| matches!(kind, Kind::Integer | Kind::Number);
            a == b || is_number(a) && is_number(b)
        };
        if !a.iter().any(|&a| b.iter().any(|&b| overlap(a, b))) {
            return true;
        }
        if a != [Kind::Object] || b != [Kind::Object] {
            return false;
        }
    } else {
        return false;
    }
    let property =
        |schema: &'_ Value, name: &str| schema.get("properties").and_then(|all| all.get(name)).and_then(listed);
    required(a).iter().filter(|name| required(b).contains(name)).any(|name| {
        let both = property(a, name).zip(property(b, name));
        both.is_some_and(|(a, b)| a.iter().all(|value| !b.contains(value)))
    })
}

fn required(schema: &Value) -> Vec<&str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect())
}

fn listed(schema: &Value) -> Option<Vec<Value>> {
    let constant = schema.get("const").map(|value| vec![value.clone()]);
    constant.or_else(|| schema.get("enum")?.as_array().cloned())
}

fn kinds(schema: &Value) -> Option<Vec<Kind>> {
    match schema.get("type")? {
        Value::String(name) => Some(vec![Kind::named(name)?]),
        Value::Array(names) => names.iter().map(|name| Kind::named(name.as_str()?)).collect(),
        _ => None,
    }
}
