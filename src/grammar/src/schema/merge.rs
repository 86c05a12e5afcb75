//! `allOf`: several schemas made one, keyword by keyword. Two of a keyword that have no common form are refused by name.

use super::keywords::describes;
use super::refuse;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// A schema with all that it refers to, as a part of another one. `unevaluatedProperties` sees what is inside its own
/// schema and nothing of what stands beside that: for the others it closes as `additionalProperties` does.
pub(super) fn as_part(mut whole: Map<String, Value>) -> Map<String, Value> {
    let further = whole.shift_remove("unevaluatedProperties").filter(|further| *further != Value::Bool(true));
    // With `additionalProperties` there is no property that is not evaluated.
    if let Some(further) = further {
        whole.entry("additionalProperties").or_insert(further);
    }
    whole
}

/// Adds what a schema says, but for `$ref` and `allOf`, to what others say.
pub(super) fn add(merged: &mut Map<String, Value>, part: Map<String, Value>, pointer: &str) -> Result<()> {
    // A schema that closes its properties excludes those of the others.
    for (closed, open) in [(&*merged, &part), (&part, &*merged)] {
        let closes = closed.get("additionalProperties").is_some_and(|value| *value != Value::Bool(true));
        let names = |map: &Map<String, Value>| match map.get("properties") {
            Some(Value::Object(properties)) => properties.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let known = names(closed);
        if closes && let Some(name) = names(open).into_iter().find(|name| !known.contains(name)) {
            let problem = format!(
                "`additionalProperties` or `unevaluatedProperties` excludes the property `{name}` of another part of \
                 `allOf`"
            );
            return Err(refuse(pointer, problem));
        }
    }
    // `items` speaks of every item behind the `prefixItems` of its own schema.
    if (has_items(merged) || has_items(&part))
        && rules_items(merged)
        && rules_items(&part)
        && first_items(merged) != first_items(&part)
    {
        let problem = "`items` beside other `prefixItems` in another part of `allOf`: write both into one schema";
        return Err(refuse(pointer, problem));
    }
    for (keyword, value) in part {
        if matches!(keyword.as_str(), "$ref" | "allOf") {
            continue;
        }
        let Some(before) = merged.get(&keyword).filter(|before| **before != value) else {
            merged.insert(keyword, value);
            continue;
        };
        if describes(&keyword) {
            continue;
        }
        let both = both(&keyword, before, &value);
        let both =
            both.ok_or_else(|| refuse(pointer, format!("`allOf` has two of `{keyword}` that cannot be made one")))?;
        merged.insert(keyword, both);
    }
    Ok(())
}

/// Whether a schema says something of the items that it does not name.
fn has_items(schema: &Map<String, Value>) -> bool {
    schema.get("items").is_some_and(|items| *items != Value::Bool(true))
}

fn first_items(schema: &Map<String, Value>) -> &[Value] {
    schema.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn rules_items(schema: &Map<String, Value>) -> bool {
    has_items(schema) || !first_items(schema).is_empty()
}

fn both(keyword: &str, left: &Value, right: &Value) -> Option<Value> {
    match keyword {
        "properties" => {
            let mut all = left.as_object()?.clone();
            for (name, schema) in right.as_object()? {
                let schema = match all.get(name) {
                    Some(before) if before != schema => json!({ "allOf": [before, schema] }),
                    _ => schema.clone(),
                };
                all.insert(name.clone(), schema);
            }
            Some(Value::Object(all))
        }
        "required" => {
            let mut all = left.as_array()?.clone();
            let further: Vec<Value> = right.as_array()?.iter().filter(|name| !all.contains(name)).cloned().collect();
            all.extend(further);
            Some(Value::Array(all))
        }
        "enum" => {
            let right = right.as_array()?;
            Some(left.as_array()?.iter().filter(|value| right.contains(value)).cloned().collect())
        }
        "type" => {
            let names = |value: &Value| match value {
                Value::Array(names) => names.clone(),
                one => vec![one.clone()],
            };
            let (left, right) = (names(left), names(right));
            let (integer, number) = (json!("integer"), json!("number"));
            let has = |of: &[Value], name: &Value| of.contains(name) || *name == integer && of.contains(&number);
            let of_left = left.iter().filter(|name| has(&right, name));
            let of_right = right.iter().filter(|name| has(&left, name) && !left.contains(name));
            let all: Vec<Value> = of_left.chain(of_right).cloned().collect();
            (!all.is_empty()).then_some(Value::Array(all))
        }
        "minLength" | "minItems" | "minimum" | "exclusiveMinimum" => {
            Some(if left.as_f64()? >= right.as_f64()? { left } else { right }.clone())
        }
        "maxLength" | "maxItems" | "maximum" | "exclusiveMaximum" => {
            Some(if left.as_f64()? <= right.as_f64()? { left } else { right }.clone())
        }
        "items" => Some(json!({ "allOf": [left, right] })),
        _ => None,
    }
}
