//! The key of a stage: everything that decides its result, as one JSON value whose canonical form is hashed.
//!
//! ```text
//! {"schema":"slmc.key/2", "kind", "revision", "build", "numerics", "options":{…}, "defaults":{…}, "target", "seed",
//!  "inputs":[{"role", "sha256", "rest"}], "writes":[…], "tool", "file_format"}
//! ```
//!
//! | part | what it is |
//! |---|---|
//! | `revision` | of the kind of stage, raised when its results change; the tool's version is not in the key |
//! | `build` | null for a released version, else the SHA-256 of the program: builds under development share nothing |
//! | `numerics` | class of the f32 work; null where the arithmetic is exact |
//! | `options`, `defaults` | every option by its long name, with those that the subcommand or its kind have by default |
//! | `inputs` | everything that is read, by its bytes; `rest` is what the hash of a directory leaves out |
//! | `target` | content of the target |
//! | `writes` | options that name files which are written |
//! | `tool`, `file_format` | of stages whose output names them: artifacts; of exports the tool |
//!
//! There are no paths, names, times, numbers of threads, addresses of workers or limits of memory in it.

use super::hashes::Content;
use super::stage::{Chosen, Input, RecipeStage, command};
use crate::machine::{numerics_class, tool};
use crate::model::device::without_addresses;
use crate::stages::arguments::{Meaning, meaning};
use crate::stages::{Arithmetic, Product};
use crate::store::Digest;
use crate::target::Target;
use serde_json::{Map, Value, json};
use slm_runtime::format::header::MAJOR;
use std::collections::BTreeMap;

const SCHEMA: &str = "slmc.key/2";
/// Options that say where something goes, or that are parts of their own.
const OTHER_PARTS: [&str; 2] = ["out", "seed"];

/// The program that computes: null for a released version.
pub(super) type Build = Option<Digest>;

/// The key of a stage. `content` is asked for everything that it reads, `is_artifact` whether that is an artifact.
pub(super) fn key<E>(
    stage: &RecipeStage,
    seed: u64,
    build: Build,
    content: &mut dyn FnMut(&Input) -> Result<Content, E>,
    is_artifact: &dyn Fn(&Input) -> bool,
) -> Result<Value, E> {
    let (mut inputs, mut writes, mut target) = (Vec::new(), Vec::new(), Value::Null);
    for choice in &stage.choices {
        match &choice.value {
            Chosen::Reads { source, .. } => {
                let Content { sha256, rest } = content(source)?;
                let mut input = json!({"role": choice.flag, "sha256": sha256});
                if let Some(rest) = rest {
                    input["rest"] = json!(rest);
                }
                inputs.push((choice.flag.clone(), input));
            }
            Chosen::Writes(_) => writes.push(choice.flag.clone()),
            Chosen::Target { content, .. } => target = serde_json::from_str(content).unwrap_or_else(|_| json!(content)),
            Chosen::Set | Chosen::Text(_) | Chosen::Shares(_) => {}
        }
    }
    if target.is_null() {
        target = default_target(stage);
    }
    // By role; the values of one option stay in their order.
    inputs.sort_by(|a, b| a.0.cmp(&b.0));
    writes.sort();
    let artifact = stage.kind.makes() == Product::Artifact;
    // A file of another tool holds its provenance itself.
    let names_tool = artifact || stage.kind.makes() == Product::Export;
    Ok(without_fractions(json!({
        "schema": SCHEMA,
        "kind": stage.kind.name(),
        "revision": stage.kind.revision(),
        "build": build,
        "numerics": numerics(stage, is_artifact),
        "options": options(stage),
        "defaults": stage.kind.defaults(),
        "inputs": inputs.into_iter().map(|(_, input)| input).collect::<Vec<_>>(),
        "target": target,
        "seed": seed,
        "writes": writes,
        "tool": names_tool.then(tool),
        "file_format": artifact.then_some(MAJOR),
    })))
}

/// The same with numbers that are not whole as text: readers of JSON differ in their last digit, and a key has no room for that.
fn without_fractions(value: Value) -> Value {
    match value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => json!(number.to_string()),
        Value::Array(values) => values.into_iter().map(without_fractions).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, without_fractions(value))).collect())
        }
        other => other,
    }
}

/// Content of the target that the subcommand has by default.
fn default_target(stage: &RecipeStage) -> Value {
    let command = command(stage.kind);
    let argument = command.get_arguments().find(|argument| matches!(meaning(argument), Some(Meaning::Target)));
    let name = argument.and_then(|argument| argument.get_default_values().first());
    let target = name.and_then(|name| Target::named(&name.to_string_lossy()).ok());
    target.and_then(|target| serde_json::to_value(target).ok()).unwrap_or_default()
}

/// The class of the f32 work, `None` where there is none.
fn numerics(stage: &RecipeStage, is_artifact: &dyn Fn(&Input) -> bool) -> Option<&'static str> {
    let exact = match stage.kind.arithmetic() {
        Arithmetic::Float => false,
        Arithmetic::Exact => true,
        Arithmetic::ExactOnArtifacts => stage.choices.iter().all(|choice| match &choice.value {
            Chosen::Reads { source, .. } if stage.takes_model(choice) => is_artifact(source),
            _ => true,
        }),
    };
    (!exact).then(numerics_class)
}

/// Options by their long names, those that the subcommand has by default among them.
fn options(stage: &RecipeStage) -> Map<String, Value> {
    let mut options = BTreeMap::new();
    for argument in command(stage.kind).get_arguments() {
        let Some(flag) = argument.get_long().filter(|flag| !OTHER_PARTS.contains(flag)) else { continue };
        let mut values = Vec::new();
        for choice in stage.choices.iter().filter(|choice| choice.flag == flag) {
            match &choice.value {
                // Of a shared file nothing counts but that there is one.
                Chosen::Set | Chosen::Shares(_) => values.push(json!(true)),
                Chosen::Text(text) if matches!(meaning(argument), Some(Meaning::Backend)) => {
                    values.push(json!(without_addresses(text)));
                }
                Chosen::Text(text) => values.push(json!(text)),
                // Parts of their own.
                Chosen::Reads { .. } | Chosen::Writes(_) | Chosen::Target { .. } => {}
            }
        }
        let given = stage.choices.iter().any(|choice| choice.flag == flag)
            || matches!(meaning(argument), Some(Meaning::Target));
        if !given && argument.get_action().takes_values() {
            values.extend(argument.get_default_values().iter().map(|value| json!(value.to_string_lossy())));
        }
        match values.len() {
            0 => {}
            1 => drop(options.insert(flag.to_owned(), values.remove(0))),
            _ => drop(options.insert(flag.to_owned(), Value::Array(values))),
        }
    }
    options.into_iter().collect()
}

/// The same key for a released version: what a lock records, so that builds of one revision agree.
pub(super) fn released(key: &Value) -> Value {
    let mut key = key.clone();
    key["build"] = Value::Null;
    key
}

/// The first part in which two keys differ, in words; `None` where they do not.
pub(super) fn difference(before: &Value, now: &Value) -> Option<String> {
    if before == now {
        return None;
    }
    if before["kind"] != now["kind"] {
        return Some(format!("the kind was {}", before["kind"]));
    }
    for part in ["options", "defaults"] {
        let (old, new) = (fields(&before[part]), fields(&now[part]));
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (old, new) = (old.get(name), new.get(name));
            if old != new {
                let shown = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), plain);
                let whose = if part == "options" { "option" } else { "default of" };
                return Some(format!("{whose} `{name}` was {}, is {}", shown(old), shown(new)));
            }
        }
    }
    if let Some(difference) = input_difference(&before["inputs"], &now["inputs"]) {
        return Some(difference);
    }
    let rest = ["target", "seed", "numerics", "revision", "file_format", "tool", "writes", "build", "schema"];
    for part in rest {
        if before[part] != now[part] {
            return Some(match part {
                "build" => "another build of slmc".to_owned(),
                "target" => "the target's content is another".to_owned(),
                _ => format!("{part} was {}, is {}", plain(&before[part]), plain(&now[part])),
            });
        }
    }
    Some("the key is another".to_owned())
}

fn input_difference(before: &Value, now: &Value) -> Option<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (before, now) = (list(before), list(now));
    let role = |input: &Value| input["role"].as_str().unwrap_or_default().to_owned();
    let roles = |inputs: &[Value]| inputs.iter().map(role).collect::<Vec<_>>();
    if roles(&before) != roles(&now) {
        return Some(format!("it read {}, reads {}", roles(&before).join(", "), roles(&now).join(", ")));
    }
    let (old, new) = before.iter().zip(&now).find(|(old, new)| old != new)?;
    Some(match old["sha256"] == new["sha256"] {
        true => format!("input `{}` has another slmc.json", role(new)),
        false => format!("input `{}` has other content", role(new)),
    })
}

fn fields(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}
