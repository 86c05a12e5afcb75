//! Random values of a schema, made from the schema alone: properties in its order, text as serde_json writes it.

use crate::support::Random;
use serde_json::{Map, Value, json};

/// A value that the schema allows; `root` is the whole schema, for references.
pub(crate) fn instance(schema: &Value, root: &Value, random: &mut Random, depth: usize) -> Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return instance(root.pointer(&reference[1..]).expect("it is there"), root, random, depth + 1);
    }
    if let Some(all) = schema.get("enum").and_then(Value::as_array) {
        return all[random.below(all.len())].clone();
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(all) = schema.get(keyword).and_then(Value::as_array) {
            // Deep values take the first alternative, which the schemas of the tests let end.
            let chosen = if depth > 6 { 0 } else { random.below(all.len()) };
            return instance(&all[chosen], root, random, depth + 1);
        }
    }
    let number = |keyword: &str, default: i64| schema.get(keyword).and_then(Value::as_i64).unwrap_or(default);
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds[random.below(kinds.len())].as_str(),
        Some(kind) => kind.as_str(),
        None => None,
    };
    match kind {
        Some("null") => Value::Null,
        Some("boolean") => Value::Bool(random.one_in(2)),
        Some("integer") => {
            let (least, most) = (number("minimum", -1000), number("maximum", 1000));
            json!(
                least
                    + (random.below(usize::MAX) as i128 % (i128::from(most) - i128::from(least) + 1)).unsigned_abs()
                        as i64
            )
        }
        Some("number") => json!([0.0, -1.5, 12.25, 3.0e-5, 1024.0][random.below(5)]),
        Some("string") => {
            let least = number("minLength", 0) as usize;
            let most = number("maxLength", least as i64 + 12) as usize;
            let length = least + random.below(most - least + 1);
            Value::from((0..length).map(|_| character(random)).collect::<String>())
        }
        Some("array") => {
            let first = schema.get("prefixItems").and_then(Value::as_array).cloned().unwrap_or_default();
            let least = number("minItems", 0) as usize;
            let items = schema.get("items").filter(|items| !items.is_boolean());
            let most = number("maxItems", if items.is_some() { least as i64 + 3 } else { first.len() as i64 }) as usize;
            let count = if depth > 6 { least } else { least + random.below(most - least + 1) };
            let item = |index: usize| first.get(index).or(items).expect("a schema for every item").clone();
            (0..count).map(|index| instance(&item(index), root, random, depth + 1)).collect()
        }
        Some("object") => {
            let empty = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut made = Map::new();
            for (name, schema) in properties {
                if required.contains(&json!(name)) || depth <= 6 && random.one_in(2) {
                    made.insert(name.clone(), instance(schema, root, random, depth + 1));
                }
            }
            Value::Object(made)
        }
        _ => panic!("the generator does not know {schema}"),
    }
}

fn character(random: &mut Random) -> char {
    const UNUSUAL: [char; 12] = ['"', '\\', '\n', '\t', '\u{8}', '\u{c}', '\r', '/', 'é', '日', '\u{7f}', '🤖'];
    if random.one_in(4) { UNUSUAL[random.below(UNUSUAL.len())] } else { char::from(b' ' + random.below(95) as u8) }
}
