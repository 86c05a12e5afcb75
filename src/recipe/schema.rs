//! JSON Schemas for editors and for readers of reports, draft 7. That of recipes is made from the tables that the checker of
//! recipes reads too (options of the subcommands by their clap definitions, gates by theirs), those of targets and reports
//! from their types, so that a key is described once. A schema says less than the checker: references between stages, files
//! and models are none of its business.

use super::declared::RESERVED;
use super::gates;
use super::options::{OWN_KEYS, TARGET, Takes, names, takes, underscored};
use super::reader::{TOP_KEYS, VERSION};
use super::run_report::RunReport;
use super::stage::{Kind, command};
use crate::report::Report;
use crate::stages::arguments::Meaning;
use crate::stages::{Product, STAGES};
use crate::target::Target;
use clap::{Arg, ArgAction, ValueEnum};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The draft that editors know best.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// Text in the place of any value: of the matrix, or of a variable of the environment.
const ELSEWHERE: &str = r"^env:|\$\{\{";

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// A recipe.
    Recipe,
    /// A target file.
    Target,
    /// The result of `slmc run`.
    Report,
}

/// Result of `slmc schema`.
#[derive(Clone, Debug, Serialize)]
pub struct SchemaReport {
    /// What it describes.
    pub document: Document,
    /// The schema.
    pub json_schema: Value,
}

impl SchemaReport {
    /// The schema of a kind of document.
    pub fn of(document: Document) -> Self {
        let json_schema = match document {
            Document::Recipe => recipe(),
            Document::Target => target(),
            Document::Report => report(),
        };
        SchemaReport { document, json_schema }
    }
}

impl Report for SchemaReport {
    const SCHEMA: &'static str = "slmc.schema/1";

    fn text(&self) -> String {
        serde_json::to_string_pretty(&self.json_schema).unwrap_or_default()
    }
}

fn of_type<T: JsonSchema>(settings: SchemaSettings) -> Value {
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn target() -> Value {
    let mut schema = of_type::<Target>(SchemaSettings::draft07().for_deserialize());
    schema["title"] = json!("slmc target");
    schema
}

fn report() -> Value {
    let mut schema = of_type::<RunReport>(SchemaSettings::draft07().for_serialize());
    schema["title"] = json!("slmc run report");
    schema["properties"]["schema"] =
        json!({"description": "Name and version of this form", "const": RunReport::SCHEMA});
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, json!("schema"));
    }
    schema
}

/// The schema of a recipe.
fn recipe() -> Value {
    let mut definitions = Map::new();
    for kind in STAGES {
        definitions.insert(kind.name().to_owned(), stage(kind));
    }
    definitions.insert("gates".to_owned(), gates());
    let mut properties = Map::new();
    for key in TOP_KEYS {
        properties.insert(key.to_owned(), top(key));
    }
    json!({
        "$schema": DRAFT,
        "title": "slmc recipe",
        "description": "Stages from a checkpoint to measured artifacts: docs/recipes.md",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        // What a recipe extends may have the rest.
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": ["version", "stages"]},
        "definitions": definitions,
    })
}

/// A key of the recipe itself.
fn top(key: &str) -> Value {
    match key {
        "version" => {
            json!({"description": "Version of this schema", "const": VERSION.parse::<u64>().unwrap_or_default()})
        }
        "description" => json!({"description": "For people", "type": "string"}),
        "extends" => json!({"description": "A recipe that this one changes, table by table", "type": "string"}),
        "model" => json!({
            "description": "A checkpoint or a configuration; stages call it `model`",
            "type": "object",
            "properties": {"path": {"description": "Relative to this file", "type": "string"}},
            "additionalProperties": false,
        }),
        "matrix" => json!({
            "description": "Axes with their values; stages that use one are there for every cell",
            "type": "object",
            "properties": {
                "include": {"description": "Keys for some cells, or cells of their own", "type": "array", "items": cell(true)},
                "exclude": {"description": "Cells that are left out", "type": "array", "items": cell(false)},
            },
            "additionalProperties": {"type": "array", "items": scalar(), "minItems": 1},
        }),
        "stages" => json!({
            "description": "What is done, each a subcommand with its options",
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$", "not": {"enum": RESERVED}},
            "additionalProperties": any_stage(),
        }),
        "gates" => json!({"$ref": "#/definitions/gates"}),
        "sign" => json!({
            "description": "Artifacts signed for devices where every gate holds: docs/trust.md",
            "type": "object",
            "properties": {
                "key": {"description": "Where the secret key of Ed25519 or ECDSA P-256 is: env:VAR, file:PATH or a path", "type": "string"},
                "counter": {"description": "Counter against rollback", "anyOf": [{"type": "integer", "minimum": 0}, elsewhere()], "default": 0},
                "model_id": {"description": "UUID of the product line", "type": "string"},
                "chunk_bytes": {"description": "Bytes of a leaf, a power of two", "anyOf": [{"type": "integer", "minimum": 4096, "maximum": 1_048_576}, elsewhere()], "default": 65536},
                "device_keys": {"description": "Where keys of devices are, for which the weights are sealed before: docs/seal.md", "type": "array", "items": {"type": "string"}, "minItems": 1},
                "cipher": {"description": "Of sealed weights", "enum": ["chacha20-poly1305", "aes-256-gcm"], "default": "chacha20-poly1305"},
                "stages": {"description": "Whose artifacts", "type": "array", "items": {"type": "string"}, "minItems": 1},
            },
            "required": ["key"],
            "additionalProperties": false,
        }),
        "attest" => json!({
            "description": "What is stated of the artifacts, signed, when the gates are judged: docs/attest.md",
            "type": "object",
            "properties": {
                "key": {"description": "Where the secret key of ECDSA P-256 is: env:VAR, file:PATH or a path", "type": "string"},
                "builder_id": {"description": "URI that names who builds", "type": "string"},
                "stages": {"description": "Whose artifacts", "type": "array", "items": {"type": "string"}, "minItems": 1},
                "sbom": {"description": "Whether FILE.cdx.json is written too", "type": "boolean", "default": false},
                "supplier": {"description": "Who supplies the artifacts, for the list of materials", "type": "string"},
                "licence": {"description": "Their licence as an SPDX expression, for the list of materials", "type": "string"},
                "version": {"description": "Their version, for the list of materials", "type": "string"},
            },
            "required": ["key"],
            "additionalProperties": false,
        }),
        "sample" => json!({
            "description": "A text that checkpoint and artifact continue, for the report",
            "type": "object",
            "properties": {
                "prompt": {"description": "What is continued", "type": "string"},
                "tokens": {"description": "Most tokens to add", "anyOf": [{"type": "integer", "minimum": 1}, elsewhere()], "default": 64},
                "backend": {"description": "Where a directory computes", "type": "string", "default": "flex"},
                "device": {"description": "Older name of `backend`", "type": "string"},
            },
            "additionalProperties": false,
        }),
        _ => json!({}),
    }
}

fn elsewhere() -> Value {
    json!({"type": "string", "pattern": ELSEWHERE})
}

/// A value of the matrix.
fn scalar() -> Value {
    json!({"type": ["string", "number", "boolean"]})
}

/// Some keys of the matrix with a value each; of cells that are left out also several.
fn cell(one: bool) -> Value {
    let values = if one { scalar() } else { json!({"anyOf": [scalar(), {"type": "array", "items": scalar()}]}) };
    json!({"type": "object", "additionalProperties": values, "minProperties": 1})
}

/// A stage of any kind: by its kind the keys of that.
fn any_stage() -> Value {
    let kinds = STAGES.map(|kind| kind.name());
    let by_kind: Vec<Value> = STAGES
        .iter()
        .map(|kind| {
            json!({
                "if": {"properties": {"kind": {"const": kind.name()}}, "required": ["kind"]},
                "then": {"$ref": format!("#/definitions/{}", kind.name())},
            })
        })
        .collect();
    json!({
        "type": "object",
        "properties": {"kind": {"description": "Which subcommand", "enum": kinds}},
        "allOf": by_kind,
    })
}

/// The keys of a kind.
fn stage(kind: Kind) -> Value {
    let command = command(kind);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let (mut properties, mut others) = (Map::new(), Map::new());
    for key in OWN_KEYS {
        properties.insert(key.to_owned(), own(key, kind));
    }
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long().filter(|long| *long != super::options::OUT) else { continue };
        let key = underscored(long);
        properties.insert(key.clone(), option(argument, kind));
        // The same key with joints of the other sort, and the names of before.
        for name in names(argument) {
            let spelled = name.replace(['-', '_'], "[-_]");
            if name != long || spelled != name {
                let reference = format!("#/definitions/{}/properties/{key}", kind.name());
                others.insert(format!("^{spelled}$"), json!({"$ref": reference}));
            }
        }
    }
    json!({
        "description": about,
        "type": "object",
        "properties": properties,
        "patternProperties": others,
        "additionalProperties": false,
    })
}

/// A key of every stage that is not an option.
fn own(key: &str, kind: Kind) -> Value {
    match key {
        "kind" => json!({"description": "Which subcommand", "const": kind.name()}),
        "input" => json!({"description": "A stage, or \"model\"", "type": "string"}),
        "when" => json!({"description": "A condition under which the stage is there", "type": "string"}),
        _ => json!({}),
    }
}

/// An option: what it takes by its clap definition, as the reader of recipes takes it.
fn option(argument: &Arg, kind: Kind) -> Value {
    let takes = takes(argument);
    let words: Vec<String> = argument
        .get_possible_values()
        .iter()
        .flat_map(|value| value.get_name_and_aliases().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut one = match &takes {
        Takes::Nothing => json!({"anyOf": [{"type": "boolean"}, elsewhere()]}),
        Takes::Number => json!({"anyOf": [{"type": "number"}, elsewhere()]}),
        Takes::Word if !words.is_empty() => json!({"anyOf": [{"enum": words}, elsewhere()]}),
        Takes::Word | Takes::Other(_) => json!({"type": "string"}),
        Takes::Either => json!({"type": ["string", "number"]}),
    };
    if let Takes::Other(Meaning::Writes | Meaning::Shares) = takes {
        one["pattern"] = json!("^[^/]+$");
    }
    let several = matches!(argument.get_action(), ArgAction::Append)
        || (argument.get_long() == Some(TARGET) && kind.makes() == Product::Artifact);
    let mut schema = match several {
        true => json!({"anyOf": [one, {"type": "array", "items": one}]}),
        false => one,
    };
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), json!(help));
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        if let Some(default) = default.filter(|_| !matches!(takes, Takes::Nothing)) {
            let number = default.parse::<f64>().ok().filter(|_| !matches!(takes, Takes::Word | Takes::Other(_)));
            schema.insert("default".to_owned(), number.map_or_else(|| json!(default), |number| json!(number)));
        }
    }
    schema
}

/// `[gates]`.
fn gates() -> Value {
    let share = |meaning: &str, default: f64| {
        let range = json!({"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 1});
        json!({"description": meaning, "anyOf": [range, elsewhere()], "default": default})
    };
    let setting = |key: &str| match key {
        "confidence" => share("Of every bound, one-sided", 0.95),
        "power" => share("With which the number of windows that is said to be needed decides", 0.9),
        "undecided" => json!({
            "description": "What a limit between the bounds counts as",
            "enum": ["fail", "pass"],
            "default": "fail",
        }),
        "baseline" => json!({
            "description": "The last released artifact, for gates against \"baseline\": a file, or \"lock\"",
            "type": "string",
        }),
        _ => json!({}),
    };
    let mut properties = Map::new();
    for key in gates::SETTINGS {
        properties.insert(key.to_owned(), setting(key));
    }
    for (name, meaning) in gates::definitions() {
        let table = json!({
            "type": "object",
            "properties": {
                "value": {"description": "The limit", "anyOf": [{"type": "number"}, elsewhere()]},
                "stage": {"description": "Where it is measured", "type": "string"},
                "against": {"description": "\"reference\", \"baseline\" or an artifact", "type": "string"},
            },
            "required": ["value"],
            "additionalProperties": false,
        });
        properties.insert(
            name.to_owned(),
            json!({"description": meaning, "anyOf": [{"type": "number"}, elsewhere(), table]}),
        );
    }
    json!({
        "description": "Limits on what stages measure: docs/gates.md",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_the_checker_knows_is_described() {
        let schema = recipe();
        let described =
            |value: &Value| value.get("description").and_then(Value::as_str).is_some_and(|text| text.len() > 3);
        for key in TOP_KEYS {
            let own = &schema["properties"][key];
            assert!(described(own) || own.get("$ref").is_some(), "{key} is not described");
        }
        for kind in STAGES {
            let properties = &schema["definitions"][kind.name()]["properties"];
            for (key, value) in properties.as_object().expect("properties") {
                assert!(described(value), "{}.{key} is not described: {value}", kind.name());
            }
            assert!(properties.get("seed").is_some() && properties.get("out").is_none(), "{}", kind.name());
        }
        for (key, value) in schema["definitions"]["gates"]["properties"].as_object().expect("properties") {
            assert!(described(value), "gates.{key} is not described");
        }
    }
}
