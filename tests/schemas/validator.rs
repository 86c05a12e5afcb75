//! JSON Schema, draft 7, as far as slmc's schemas use it. A keyword that is not known here fails the test, so that nothing is
//! passed over. `.ci/weekly schemas` checks the same files with another validator.

use regex::Regex;
use serde_json::Value;

/// Keywords that say nothing of validity.
const REMARKS: [&str; 7] = ["$schema", "title", "description", "default", "format", "definitions", "then"];

/// What is wrong with a value, each fault with its place.
pub(crate) fn faults(root: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Check { root }.value(root, value, "", &mut faults);
    faults
}

struct Check<'s> {
    root: &'s Value,
}

impl Check<'_> {
    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let mut faults = Vec::new();
        self.value(schema, value, "", &mut faults);
        faults.is_empty()
    }

    fn value(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return faults.push(format!("{place}: nothing is allowed here")),
            Value::Object(keywords) => keywords,
            other => panic!("not a schema: {other}"),
        };
        // Draft 7 ignores what stands beside a reference.
        if let Some(reference) = keywords.get("$ref") {
            let pointer =
                reference.as_str().and_then(|reference| reference.strip_prefix('#')).expect("a local reference");
            let target = self.root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"));
            return self.value(target, value, place, faults);
        }
        for (keyword, wanted) in keywords {
            self.keyword((keyword, wanted), schema, value, place, faults);
        }
    }

    fn keyword(
        &self,
        (keyword, wanted): (&str, &Value),
        schema: &Value,
        value: &Value,
        place: &str,
        faults: &mut Vec<String>,
    ) {
        let mut wrong = |what: String| faults.push(format!("{place}: {value} {what}"));
        let list = || wanted.as_array().expect("a list of schemas");
        match keyword {
            known if REMARKS.contains(&known) => {}
            "type" => {
                let types: Vec<&str> = match wanted {
                    Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                    one => one.as_str().into_iter().collect(),
                };
                if !types.iter().any(|name| is(name, value)) {
                    wrong(format!("is not {types:?}"));
                }
            }
            "const" if value != wanted => wrong(format!("is not {wanted}")),
            "enum" if !list().contains(value) => wrong(format!("is none of {wanted}")),
            "const" | "enum" => {}
            "not" if self.holds(wanted, value) => wrong(format!("is {wanted}")),
            "not" => {}
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                let limit = wanted.as_f64().expect("a limit");
                let holds = |number: f64| match keyword {
                    "minimum" => number >= limit,
                    "maximum" => number <= limit,
                    "exclusiveMinimum" => number > limit,
                    _ => number < limit,
                };
                if value.as_f64().is_some_and(|number| !holds(number)) {
                    wrong(format!("is beyond the {keyword} {limit}"));
                }
            }
            "pattern" => {
                let pattern = Regex::new(wanted.as_str().expect("a pattern")).expect("a pattern");
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    wrong(format!("does not match {wanted}"));
                }
            }
            "anyOf" if !list().iter().any(|schema| self.holds(schema, value)) => wrong("fits none of anyOf".to_owned()),
            "anyOf" => {}
            "oneOf" => {
                let fitting = list().iter().filter(|schema| self.holds(schema, value)).count();
                if fitting != 1 {
                    wrong(format!("fits {fitting} of oneOf"));
                }
            }
            "allOf" => list().iter().for_each(|schema| self.value(schema, value, place, faults)),
            "if" => {
                if self.holds(wanted, value) {
                    self.value(schema.get("then").expect("then"), value, place, faults);
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.value(wanted, item, &format!("{place}[{index}]"), faults);
                }
            }
            "required" => {
                let Some(object) = value.as_object() else { return };
                for key in list().iter().filter_map(Value::as_str).filter(|key| !object.contains_key(*key)) {
                    faults.push(format!("{place}: lacks {key}"));
                }
            }
            "minItems" | "minProperties" => {
                let count = value.as_array().map(Vec::len).or_else(|| value.as_object().map(serde_json::Map::len));
                if count.is_some_and(|count| (count as u64) < wanted.as_u64().expect("a count")) {
                    wrong(format!("has fewer parts than {wanted}"));
                }
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
                    self.value(wanted, &Value::from(name.as_str()), &format!("{place}.{name}"), faults);
                }
            }
            "properties" | "patternProperties" | "additionalProperties" => {
                self.keys(keyword, schema, value, place, faults)
            }
            other => panic!("the keyword {other} is not known to the validator"),
        }
    }

    /// Each property by the schemas that its name chooses; called once for each of the three keywords.
    fn keys(&self, keyword: &str, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let patterns: Vec<(Regex, &Value)> = schema["patternProperties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(pattern, schema)| (Regex::new(pattern).expect("a pattern"), schema))
            .collect();
        for (key, value) in value.as_object().into_iter().flatten() {
            let named = schema["properties"].get(key);
            let matching: Vec<&Value> =
                patterns.iter().filter(|(pattern, _)| pattern.is_match(key)).map(|(_, schema)| *schema).collect();
            let chosen: Vec<&Value> = match keyword {
                "properties" => named.into_iter().collect(),
                "patternProperties" => matching,
                _ if named.is_some() || !matching.is_empty() => continue,
                _ => vec![&schema["additionalProperties"]],
            };
            for schema in chosen {
                self.value(schema, value, &format!("{place}.{key}"), faults);
            }
        }
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("the type {other} is not known to the validator"),
    }
}
