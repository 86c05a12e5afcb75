//! An artifact as CycloneDX 1.6: the model with its card, what it was made from, slmc as the tool.
//!
//! | field | from |
//! |---|---|
//! | `metadata.component` | name and SHA-256 of the artifact; architecture and limits from its records |
//! | `…modelCard.quantitativeAnalysis` | values and bounds of the run's gates |
//! | `…pedigree.ancestors` | models that the first stages read |
//! | `components` | every input by its hash: models, data sets, files |
//! | `compositions` | that the list is not complete, and that nothing is known of what inputs are made of |
//! | `properties` `slmc:missing` | what slmc does not know, one by one |

use super::record::{Dependency, MODEL_DIGEST, Record};
use super::results::RunGate;
use super::sbom::SbomOptions;
use super::subject::Subject;
use crate::disk::hash::{hex, sha256};
use crate::machine::tool;
use serde_json::{Map, Value, json};

/// What a file begins with.
pub(super) const MAGIC: &[u8] = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","#;
/// The artifact's name within the file.
const ARTIFACT: &str = "artifact";
/// Options that read texts to learn or to measure from.
const DATA: [&str; 8] = ["data", "calibration", "prompts", "continuations", "held-out", "eval-data", "like", "tags"];

/// The document.
pub(super) fn document(
    subject: &Subject,
    record: &Record,
    gates: &[&RunGate],
    options: &SbomOptions,
    missing: &[String],
) -> Value {
    let names: Vec<String> = (1..=record.dependencies.len()).map(|number| format!("input-{number}")).collect();
    let inputs: Vec<(&str, &Dependency)> = names.iter().map(String::as_str).zip(&record.dependencies).collect();
    let components: Vec<Value> = inputs.iter().map(|(name, dependency)| component(name, dependency)).collect();
    let (name, version) = record.tool().split_once(' ').unwrap_or(("slmc", record.tool()));
    let mut tools = vec![json!({"type": "application", "name": name, "version": version})];
    // What compiled it and what lists it may be two versions.
    let (own, own_version) = ("slmc", env!("CARGO_PKG_VERSION"));
    if tool() != record.tool() {
        tools.push(json!({"type": "application", "name": own, "version": own_version}));
    }
    let mut metadata = Map::new();
    if let Some(time) = &options.timestamp {
        metadata.insert("timestamp".to_owned(), json!(time));
    }
    metadata.insert("lifecycles".to_owned(), json!([{"phase": "post-build"}]));
    metadata.insert("tools".to_owned(), json!({"components": tools}));
    metadata.insert("component".to_owned(), artifact(subject, record, &inputs, gates, options));
    if let Some(supplier) = &options.supplier {
        metadata.insert("supplier".to_owned(), json!({"name": supplier}));
    }
    let properties: Vec<Value> = missing.iter().map(|what| property("slmc:missing", what)).collect();
    metadata.insert("properties".to_owned(), Value::Array(properties));
    let mut dependencies = vec![json!({"ref": ARTIFACT, "dependsOn": names})];
    dependencies.extend(names.iter().map(|name| json!({"ref": name})));
    let mut compositions = vec![json!({"aggregate": "incomplete", "assemblies": [ARTIFACT]})];
    if !names.is_empty() {
        compositions.push(json!({"aggregate": "unknown", "assemblies": names}));
    }
    let body = json!({
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": dependencies,
        "compositions": compositions,
    });
    let mut document = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial_number(&body)});
    if let (Some(document), Value::Object(body)) = (document.as_object_mut(), body) {
        document.extend(body);
    }
    document
}

/// A UUID of version 8 (RFC 9562) from the hash of the document, so that one content has one number.
fn serial_number(body: &Value) -> String {
    let mut bytes = sha256(body.to_string().as_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let part = |from: usize, to: usize| &digits[from..to];
    format!("urn:uuid:{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn property(name: &str, value: impl ToString) -> Value {
    json!({"name": name, "value": value.to_string()})
}

/// An input.
fn component(name: &str, dependency: &Dependency) -> Value {
    let Dependency { stage, role, sha256, is_model, path } = dependency;
    let known = path.clone().unwrap_or_else(|| format!("{role} of {stage}"));
    let kind = match (*is_model || role == "draft", DATA.contains(&role.as_str())) {
        (true, _) => "machine-learning-model",
        (false, true) => "data",
        (false, false) => "file",
    };
    let mut component = json!({"type": kind, "bom-ref": name, "name": known});
    // The hash of a directory is over names and hashes of its files: CycloneDX has no algorithm for that.
    match is_model {
        true => component["properties"] = json!([property(&format!("slmc:{MODEL_DIGEST}"), sha256)]),
        false => component["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]),
    }
    if kind == "data" {
        component["data"] = json!([{"type": "dataset", "name": known}]);
    }
    component
}

/// The artifact itself.
fn artifact(
    subject: &Subject,
    record: &Record,
    inputs: &[(&str, &Dependency)],
    gates: &[&RunGate],
    options: &SbomOptions,
) -> Value {
    let content = &subject.content;
    let mut artifact = json!({
        "type": "machine-learning-model",
        "bom-ref": ARTIFACT,
        "name": subject.name,
        "hashes": [{"alg": "SHA-256", "content": hex(&subject.sha256)}],
    });
    if let Some(version) = &options.version {
        artifact["version"] = json!(version);
    }
    if let Some(licence) = &options.licence {
        artifact["licenses"] = json!([{"expression": licence}]);
    }
    let ancestors: Vec<Value> = inputs
        .iter()
        .filter(|(_, dependency)| dependency.is_model)
        .map(|(name, dependency)| component(&format!("{name}-ancestor"), dependency))
        .collect();
    if !ancestors.is_empty() {
        artifact["pedigree"] = json!({"ancestors": ancestors});
    }
    artifact["modelCard"] = card(subject, inputs, gates);
    let stages: Vec<&str> = record.steps.iter().map(|step| step.stage.as_str()).collect();
    let properties = [
        ("slmc:format", content.version.clone()),
        ("slmc:target", content.target.clone()),
        ("slmc:layout", content.layout.to_owned()),
        ("slmc:stages", stages.join(", ")),
        ("slmc:parameters", content.size.parameters.to_string()),
        ("slmc:weightBytes", content.size.weight_bytes.to_string()),
        ("slmc:bitsPerWeight", format!("{:.3}", content.size.bits_per_weight)),
        ("slmc:flashBytes", content.flash_bytes.to_string()),
        ("slmc:ramBytes", content.ram_bytes.to_string()),
        ("slmc:goldenSha256", content.golden_sha256.clone()),
        ("slmc:deviceSha256", hex(&subject.device_sha256)),
        ("slmc:signed", subject.signed.to_string()),
    ];
    artifact["properties"] = properties.iter().map(|(name, value)| property(name, value)).collect();
    artifact
}

/// The card of the model.
fn card(subject: &Subject, inputs: &[(&str, &Dependency)], gates: &[&RunGate]) -> Value {
    let content = &subject.content;
    let (task, gives) = match (content.kind, content.pooling.is_some()) {
        ("decoder", _) => ("text-generation", "string"),
        (_, true) => ("feature-extraction", "vector"),
        (_, false) => ("text-encoding", "vector"),
    };
    let architecture =
        format!("{}, {} layers of {}, vocabulary {}", content.kind, content.layers, content.hidden, content.vocabulary);
    let data: Vec<Value> = inputs
        .iter()
        .filter(|(_, dependency)| DATA.contains(&dependency.role.as_str()))
        .map(|(name, _)| json!({"ref": name}))
        .collect();
    let mut parameters = json!({
        "task": task,
        "architectureFamily": content.kind,
        "modelArchitecture": architecture,
        "inputs": [{"format": "string"}],
        "outputs": [{"format": gives}],
    });
    if !data.is_empty() {
        parameters["datasets"] = Value::Array(data);
    }
    let limits = [
        format!("at most {} tokens of context", content.context),
        format!("compiled for {} ({}): other devices may refuse it", content.target, content.layout),
    ];
    let mut card = json!({"modelParameters": parameters, "considerations": {"technicalLimitations": limits}});
    let metrics: Vec<Value> = gates.iter().filter_map(|gate| metric(gate)).collect();
    if !metrics.is_empty() {
        card["quantitativeAnalysis"] = json!({"performanceMetrics": metrics});
    }
    card
}

/// A gate as a measurement; `None` where nothing was measured.
fn metric(gate: &RunGate) -> Option<Value> {
    let value = gate.value?;
    let kind = gate.gate.strip_suffix("_max").or(gate.gate.strip_suffix("_min")).unwrap_or(&gate.gate);
    let mut metric = json!({"type": kind, "value": value.to_string(), "slice": gate.stage});
    if let (Some(lower), Some(upper)) = (gate.lower, gate.upper) {
        metric["confidenceInterval"] = json!({"lowerBound": lower.to_string(), "upperBound": upper.to_string()});
    }
    Some(metric)
}
