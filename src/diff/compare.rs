//! Two JSON values, key by key.

use serde::Serialize;
use serde_json::{Map, Value};

/// What a run takes or what is behind a figure, and no difference of two results.
const IGNORED: [&str; 4] = ["seconds", "peak_memory_bytes", "sums", "curve"];
/// Keys by which the items of a list are known, the first that all have.
const NAMES: [&str; 5] = ["name", "stage", "gate", "role", "path"];

/// Something that the two sides have otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Keys from the outside in: `stages.small.scheme`.
    pub path: String,
    /// In the first; absent where it lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// In the second; absent where it lacks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

/// All differences, in the order of the first value.
pub(super) fn compare(a: &Value, b: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(a), Some(b), &mut found);
    found
}

fn walk(path: &str, a: Option<&Value>, b: Option<&Value>, found: &mut Vec<Difference>) {
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => objects(path, a, b, found),
        (Some(Value::Array(a)), Some(Value::Array(b))) => match (named(a), named(b)) {
            (Some(a), Some(b)) => objects(path, &a, &b, found),
            _ if a != b => found.push(Difference {
                path: path.to_owned(),
                a: Some(Value::Array(a.clone())),
                b: Some(Value::Array(b.clone())),
            }),
            _ => {}
        },
        (a, b) if a != b => found.push(Difference { path: path.to_owned(), a: a.cloned(), b: b.cloned() }),
        _ => {}
    }
}

fn objects(path: &str, a: &Map<String, Value>, b: &Map<String, Value>, found: &mut Vec<Difference>) {
    let of_b = b.keys().filter(|key| !a.contains_key(*key));
    for key in a.keys().chain(of_b).filter(|key| !IGNORED.contains(&key.as_str())) {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(&inner, a.get(key), b.get(key), found);
    }
}

/// A list whose items have names, as an object; `None` where they have none, or not each its own.
fn named(items: &[Value]) -> Option<Map<String, Value>> {
    let key = NAMES.into_iter().find(|key| items.iter().all(|item| item.get(key).is_some_and(Value::is_string)))?;
    let mut object = Map::new();
    for item in items {
        let name = item.get(key)?.as_str()?.to_owned();
        if object.insert(name, item.clone()).is_some() {
            return None;
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_and_named_items_are_compared_one_by_one() {
        let a = json!({"x": 1, "gone": true, "seconds": 3, "stages": [{"name": "b", "n": 1}, {"name": "a", "n": 2}]});
        let b = json!({"x": 1, "seconds": 4, "stages": [{"name": "a", "n": 3}, {"name": "b", "n": 1}], "new": [1]});
        let found: Vec<(String, Option<Value>, Option<Value>)> =
            compare(&a, &b).into_iter().map(|one| (one.path, one.a, one.b)).collect();
        assert_eq!(
            found,
            [
                ("gone".to_owned(), Some(json!(true)), None),
                ("stages.a.n".to_owned(), Some(json!(2)), Some(json!(3))),
                ("new".to_owned(), None, Some(json!([1]))),
            ]
        );
        assert!(compare(&a, &a).is_empty());
        assert_eq!(compare(&json!([1, 2]), &json!([2, 1])).len(), 1);
        // Two items of one name are not told apart by it.
        let twice = json!([{"name": "a"}, {"name": "a"}]);
        assert_eq!(compare(&twice, &json!([{"name": "a"}])).len(), 1);
    }
}
