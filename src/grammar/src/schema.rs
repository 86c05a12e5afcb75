//! JSON Schema (2020-12): the values that a schema describes, written in one way. Properties come in the order in which
//! the schema names them, all required ones and any of the others; nothing else is written. Between the parts of a value
//! stands nothing, or one space after each `,` and `:`.
//!
//! A keyword that is not supported is an error with its name and its place; keywords that only describe are passed over.
//!
//! | file | contents |
//! |---|---|
//! | `keywords` | which keywords there are; their values with checked types |
//! | `merge` | `allOf`: several schemas made one |
//! | `apart` | whether the alternatives of `oneOf` exclude each other |
//! | `parts` | objects and arrays |
//! | `strings`, `numbers` | strings with lengths and patterns; integers in a range |
//! | `values` | values as text; any value |

mod apart;
mod keywords;
mod merge;
mod numbers;
mod parts;
mod strings;
mod values;

use crate::error::{GrammarError, Limit, Result};
use crate::limits::{Work, check};
use crate::syntax::{Node, Rule, Rules};
use keywords::{Kind, Schema};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What stands between the parts of a JSON value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Separators {
    /// `{"a":1,"b":2}`
    #[default]
    Compact,
    /// `{"a": 1, "b": 2}`
    Spaced,
}

impl Separators {
    pub(crate) const fn comma(self) -> &'static str {
        if matches!(self, Separators::Compact) { "," } else { ", " }
    }

    pub(crate) const fn colon(self) -> &'static str {
        if matches!(self, Separators::Compact) { ":" } else { ": " }
    }
}

/// Something that a user should know about how a grammar was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// JSON pointer of the schema.
    pub pointer: String,
    /// What it is.
    pub text: String,
}

/// Most references that lead to each other.
const MAX_CHAIN: usize = 32;

/// Translates a schema.
pub(crate) fn read(text: &str, separators: Separators, work: &mut Work) -> Result<(Rules, Vec<Note>)> {
    let document: Value = serde_json::from_str(text)
        .map_err(|error| GrammarError::Json { what: "the schema", problem: error.to_string() })?;
    let mut compiler = Compiler {
        document: &document,
        separators,
        rules: Vec::new(),
        references: BTreeMap::new(),
        pending: Vec::new(),
        any: None,
        notes: Vec::new(),
        work,
    };
    let root = compiler.reference("#", "")?;
    while let Some((rule, pointer)) = compiler.pending.pop() {
        let target = compiler.target(&pointer, "")?;
        compiler.rules[rule].node = compiler.schema(target, &pointer, 0)?;
    }
    let Compiler { rules, mut notes, .. } = compiler;
    notes.sort_by(|a, b| (&a.pointer, &a.text).cmp(&(&b.pointer, &b.text)));
    notes.dedup();
    Ok((Rules { rules, root }, notes))
}

struct Compiler<'d, 'w> {
    document: &'d Value,
    separators: Separators,
    rules: Vec<Rule>,
    /// Rules of the schemas that are referred to, by pointer.
    references: BTreeMap<String, usize>,
    /// Rules without an expression so far, with the pointers of their schemas.
    pending: Vec<(usize, String)>,
    /// The rule of any value.
    any: Option<usize>,
    notes: Vec<Note>,
    work: &'w mut Work,
}

fn refuse(pointer: &str, problem: impl Into<String>) -> GrammarError {
    GrammarError::Schema { pointer: pointer.into(), problem: problem.into() }
}

/// The pointer of a part.
fn inner(pointer: &str, keyword: &str) -> String {
    format!("{pointer}/{}", keyword.replace('~', "~0").replace('/', "~1"))
}

impl<'d> Compiler<'d, '_> {
    /// The rule of a schema that is referred to at `from`.
    fn reference(&mut self, reference: &str, from: &str) -> Result<usize> {
        let Some(pointer) = reference.strip_prefix('#').filter(|pointer| !pointer.contains('%')) else {
            return Err(refuse(
                from,
                format!("`{reference}` does not lead to a place in this schema as `#/$defs/name` does"),
            ));
        };
        if let Some(&rule) = self.references.get(pointer) {
            return Ok(rule);
        }
        self.target(pointer, from)?;
        let rule = self.rules.len();
        self.rules.push(Rule { name: format!("#{pointer}"), node: Node::empty() });
        self.references.insert(pointer.into(), rule);
        self.pending.push((rule, pointer.into()));
        Ok(rule)
    }

    fn target(&self, pointer: &str, from: &str) -> Result<&'d Value> {
        self.document.pointer(pointer).ok_or_else(|| refuse(from, format!("`#{pointer}` does not exist")))
    }

    /// The values of a schema.
    fn schema(&mut self, value: &Value, pointer: &str, depth: usize) -> Result<Node> {
        self.work.add(1)?;
        check(Limit::Nesting, depth, self.work.limits.nesting / 4)?;
        let schema = match value {
            Value::Bool(true) => return self.any_value(),
            Value::Bool(false) => return Ok(Node::Either(Vec::new())),
            other => Schema::of(other, pointer)?,
        };
        if let Some(reference) = schema.text("$ref")? {
            if schema.constrains_besides(&["$ref"]) {
                return self.all_of(&schema, value, depth);
            }
            return Ok(Node::Rule(self.reference(reference, pointer)?));
        }
        if schema.value("allOf").is_some() {
            return self.all_of(&schema, value, depth);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(alternatives) = schema.list(keyword)? {
                return self.alternatives(&schema, keyword, alternatives, depth);
            }
        }
        if schema.value("const").is_some() || schema.value("enum").is_some() {
            return self.listed_values(&schema);
        }
        let kinds = schema.kinds()?;
        let Some(kinds) = kinds else { return self.any_value() };
        if schema.value("type").is_none() {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let text = format!("without `type` only the types of its keywords are written: {}", names.join(", "));
            self.notes.push(Note { pointer: pointer.into(), text });
        }
        let mut parts = Vec::new();
        for kind in kinds {
            parts.push(match kind {
                Kind::Null => Node::literal("null"),
                Kind::Boolean => Node::Either(vec![Node::literal("true"), Node::literal("false")]),
                Kind::Integer => numbers::integer(&schema)?,
                Kind::Number => numbers::number(&schema)?,
                Kind::String => strings::string(&schema, self.work)?,
                Kind::Array => self.array(&schema, depth)?,
                Kind::Object => self.object(&schema, depth)?,
            });
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Either(parts) })
    }

    /// The values of a schema that has `$ref` or `allOf` beside other keywords.
    fn all_of(&mut self, schema: &Schema<'_>, whole: &Value, depth: usize) -> Result<Node> {
        let merged = self.collect(whole, schema.pointer, 0)?;
        self.schema(&Value::Object(merged), schema.pointer, depth + 1)
    }

    /// A schema with what it refers to and its `allOf` as one, which has neither.
    fn collect(&mut self, whole: &Value, pointer: &str, chain: usize) -> Result<Map<String, Value>> {
        self.work.add(1)?;
        if chain > MAX_CHAIN {
            return Err(refuse(pointer, format!("more than {MAX_CHAIN} references lead to each other")));
        }
        let whole = match whole {
            Value::Bool(true) => return Ok(Map::new()),
            Value::Bool(false) => return Err(refuse(pointer, "`false` among what must hold")),
            other => Schema::of(other, pointer)?,
        };
        let mut merged = Map::new();
        if let Some(reference) = whole.text("$ref")? {
            let to = reference
                .strip_prefix('#')
                .ok_or_else(|| refuse(pointer, format!("`{reference}` is outside this schema")))?;
            let target = self.target(to, pointer)?;
            merge::add(&mut merged, merge::as_part(self.collect(target, to, chain + 1)?), to)?;
        }
        for (index, inside) in whole.list("allOf")?.unwrap_or_default().iter().enumerate() {
            let place = format!("{pointer}/allOf/{index}");
            merge::add(&mut merged, merge::as_part(self.collect(inside, &place, chain + 1)?), &place)?;
        }
        merge::add(&mut merged, whole.map.clone(), pointer)?;
        Ok(merged)
    }

    fn alternatives(&mut self, schema: &Schema<'_>, keyword: &str, all: &[Value], depth: usize) -> Result<Node> {
        if all.is_empty() {
            return Err(refuse(schema.pointer, format!("`{keyword}` is empty")));
        }
        if keyword == "oneOf" && !apart::all_apart(all) {
            let text = "`oneOf` is read as `anyOf`: its alternatives may share values".into();
            self.notes.push(Note { pointer: schema.pointer.into(), text });
        }
        let mut others = schema.map.clone();
        others.shift_remove(keyword);
        let alone = !schema.constrains_besides(&[keyword]);
        let mut parts = Vec::new();
        for (index, alternative) in all.iter().enumerate() {
            let pointer = format!("{}/{keyword}/{index}", schema.pointer);
            parts.push(if alone {
                self.schema(alternative, &pointer, depth + 1)?
            } else {
                let mut merged = others.clone();
                merge::add(&mut merged, merge::as_part(self.collect(alternative, &pointer, 0)?), &pointer)?;
                self.schema(&Value::Object(merged), &pointer, depth + 1)?
            });
        }
        Ok(Node::Either(parts))
    }

    fn listed_values(&mut self, schema: &Schema<'_>) -> Result<Node> {
        if let Some(keyword) = schema.constraint_besides(&["const", "enum", "type"]) {
            let problem =
                format!("`{keyword}` beside `enum` or `const`: leave out the values that it excludes instead");
            return Err(refuse(schema.pointer, problem));
        }
        let kinds = schema.kinds()?;
        let listed = schema.list("enum")?;
        let constant = schema.value("const");
        let all: Vec<&Value> = match (listed, constant) {
            (Some(listed), None) => listed.iter().collect(),
            (Some(listed), Some(constant)) => listed.iter().filter(|value| *value == constant).collect(),
            (None, constant) => constant.into_iter().collect(),
        };
        let fits = |value: &&Value| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind.has(value)));
        let texts = all.into_iter().filter(fits).map(|value| Node::literal(&values::text(value, self.separators)));
        Ok(Node::Either(texts.collect()))
    }
}
