//! The keywords of a schema: which are known, which only describe, and their values with checked types.

use super::refuse;
use crate::error::{GrammarError, Result};
use serde_json::{Map, Value};

/// Keywords that say nothing about which values there are.
const DESCRIPTIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$vocabulary",
];

/// Keywords with a meaning here, and the kind of value whose schemas they belong to.
const KEYWORDS: [(&str, Option<Kind>); 25] = [
    ("$ref", None),
    ("type", None),
    ("enum", None),
    ("const", None),
    ("anyOf", None),
    ("oneOf", None),
    ("allOf", None),
    ("properties", Some(Kind::Object)),
    ("required", Some(Kind::Object)),
    ("additionalProperties", Some(Kind::Object)),
    ("unevaluatedProperties", Some(Kind::Object)),
    ("items", Some(Kind::Array)),
    ("prefixItems", Some(Kind::Array)),
    ("minItems", Some(Kind::Array)),
    ("maxItems", Some(Kind::Array)),
    ("unevaluatedItems", Some(Kind::Array)),
    ("uniqueItems", Some(Kind::Array)),
    ("minLength", Some(Kind::String)),
    ("maxLength", Some(Kind::String)),
    ("pattern", Some(Kind::String)),
    ("minimum", Some(Kind::Number)),
    ("maximum", Some(Kind::Number)),
    ("exclusiveMinimum", Some(Kind::Number)),
    ("exclusiveMaximum", Some(Kind::Number)),
    ("multipleOf", Some(Kind::Number)),
];

/// A type of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    const ALL: [(&'static str, Kind); 7] = [
        ("null", Kind::Null),
        ("boolean", Kind::Boolean),
        ("integer", Kind::Integer),
        ("number", Kind::Number),
        ("string", Kind::String),
        ("array", Kind::Array),
        ("object", Kind::Object),
    ];

    pub(super) fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }

    pub(super) fn name(self) -> &'static str {
        Kind::ALL.into_iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    pub(super) fn has(self, value: &Value) -> bool {
        match self {
            Kind::Null => value.is_null(),
            Kind::Boolean => value.is_boolean(),
            Kind::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Kind::Number => value.is_number(),
            Kind::String => value.is_string(),
            Kind::Array => value.is_array(),
            Kind::Object => value.is_object(),
        }
    }
}

/// Whether a keyword only describes.
pub(super) fn describes(keyword: &str) -> bool {
    DESCRIPTIONS.contains(&keyword)
}

/// A schema whose keywords are all known.
#[derive(Clone, Copy)]
pub(super) struct Schema<'s> {
    pub(super) pointer: &'s str,
    pub(super) map: &'s Map<String, Value>,
}

impl<'s> Schema<'s> {
    pub(super) fn of(value: &'s Value, pointer: &'s str) -> Result<Self> {
        let Value::Object(map) = value else {
            return Err(refuse(pointer, "a schema is an object, `true` or `false`"));
        };
        for keyword in map.keys().filter(|keyword| !describes(keyword)) {
            if !KEYWORDS.iter().any(|(known, _)| known == keyword) {
                return Err(GrammarError::Unsupported { pointer: pointer.into(), keyword: keyword.clone() });
            }
        }
        let schema = Schema { pointer, map };
        // These only mean nothing with the values they have by default.
        for (keyword, harmless) in [("uniqueItems", false), ("unevaluatedItems", true)] {
            if map.get(keyword).is_some_and(|value| *value != Value::Bool(harmless)) {
                return Err(GrammarError::Unsupported { pointer: pointer.into(), keyword: keyword.into() });
            }
        }
        Ok(schema)
    }

    pub(super) fn value(&self, keyword: &str) -> Option<&'s Value> {
        self.map.get(keyword)
    }

    /// A keyword that constrains values, other than these.
    pub(super) fn constraint_besides(&self, known: &[&str]) -> Option<&'s str> {
        self.map.keys().map(String::as_str).find(|keyword| !describes(keyword) && !known.contains(keyword))
    }

    pub(super) fn constrains_besides(&self, known: &[&str]) -> bool {
        self.constraint_besides(known).is_some()
    }

    fn typed<T>(&self, keyword: &str, what: &str, as_type: impl Fn(&'s Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(keyword) else { return Ok(None) };
        as_type(value).map(Some).ok_or_else(|| refuse(self.pointer, format!("`{keyword}` is not {what}")))
    }

    pub(super) fn text(&self, keyword: &str) -> Result<Option<&'s str>> {
        self.typed(keyword, "a string", Value::as_str)
    }

    pub(super) fn list(&self, keyword: &str) -> Result<Option<&'s [Value]>> {
        self.typed(keyword, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn map_of(&self, keyword: &str) -> Result<Option<&'s Map<String, Value>>> {
        self.typed(keyword, "an object", Value::as_object)
    }

    /// A length or a number of items.
    pub(super) fn count(&self, keyword: &str) -> Result<Option<u32>> {
        let whole = |value: &Value| match value.as_f64() {
            Some(number) if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) => {
                Some(number as u32)
            }
            _ => None,
        };
        self.typed(keyword, "a whole number below 2^32", whole)
    }

    /// The types of values; `None` where a schema says nothing of types. Without `type` they are those whose keywords
    /// there are.
    pub(super) fn kinds(&self) -> Result<Option<Vec<Kind>>> {
        let unknown = || refuse(self.pointer, "`type` is not the name of a type or a list of such");
        let Some(named) = self.value("type") else {
            let has = |kind: Kind| KEYWORDS.iter().any(|(name, of)| *of == Some(kind) && self.map.contains_key(*name));
            let found: Vec<Kind> = Kind::ALL.into_iter().map(|(_, kind)| kind).filter(|kind| has(*kind)).collect();
            return Ok(Some(found).filter(|found| !found.is_empty()));
        };
        let names = match named {
            Value::Array(names) => names.iter().collect(),
            one => vec![one],
        };
        let mut kinds: Vec<Kind> = Vec::new();
        for name in names {
            let kind = name.as_str().and_then(Kind::named).ok_or_else(unknown)?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        // Every integer is a number.
        if kinds.contains(&Kind::Number) {
            kinds.retain(|kind| *kind != Kind::Integer);
        }
        Ok(Some(kinds))
    }
}
