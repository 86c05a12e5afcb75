//! Limits on the results of a recipe, by the numbers that its stages report.
//!
//! ```text
//! perplexity_ratio = perplexity / reference_perplexity     accuracy_ratio = accuracy / reference_accuracy
//! ```
//!
//! A limit holds where it is reached exactly. A bare number is for the last stage that measures the quantity; a gate on
//! a compile stage with several targets is for each artifact.

use super::document::{Entry, Node, Value};
use super::mistake::Mistakes;
use super::options::unknown;
use super::stage::{Kind, RecipeStage};
use crate::disk::schema::nearest;
use crate::stages::STAGES;
use serde::Serialize;
use serde_json::Value as Json;

/// Whether a quantity must not exceed its limit, or must reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Max,
    Min,
}

/// A gate that can be asked for.
struct Definition {
    name: &'static str,
    bound: Bound,
    /// In the report of a stage: the quantity, over another one where there is one.
    value: &'static str,
    over: Option<&'static str>,
    /// Whether it needs a reference.
    compares: bool,
}

const fn definition(
    name: &'static str,
    bound: Bound,
    value: &'static str,
    over: Option<&'static str>,
    compares: bool,
) -> Definition {
    Definition { name, bound, value, over, compares }
}

const DEFINITIONS: [Definition; 8] = [
    definition("kld_max", Bound::Max, "kld_mean", None, true),
    definition("perplexity_ratio_max", Bound::Max, "perplexity", Some("reference_perplexity"), true),
    definition("top1_min", Bound::Min, "top1_agreement", None, true),
    definition("accuracy_min", Bound::Min, "accuracy", None, false),
    definition("accuracy_ratio_min", Bound::Min, "accuracy", Some("reference_accuracy"), true),
    definition("cosine_min", Bound::Min, "cosine_mean", None, true),
    definition("weight_bytes_max", Bound::Max, "weight_bytes", None, false),
    definition("file_bytes_max", Bound::Max, "file_bytes", None, false),
];

impl Definition {
    /// Kinds whose reports state the value, those first where a bare number belongs.
    fn kinds(&self) -> Vec<Kind> {
        let own = STAGES.into_iter().filter(|kind| kind.measures().own.contains(&self.value));
        own.chain(STAGES.into_iter().filter(|kind| kind.measures().also.contains(&self.value))).collect()
    }
}

/// One limit on one stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gate {
    /// Index into the definitions.
    definition: usize,
    limit: f64,
    /// Index of the stage.
    pub(super) stage: usize,
}

/// How a gate came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateResult {
    /// Such as `kld_max`.
    pub gate: &'static str,
    /// Where it was measured.
    pub stage: String,
    /// Limit asked for.
    pub limit: f64,
    /// Measured value; absent where the stage did not run or did not measure it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Standard error of the value, where the stage states one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
    /// Whether the limit holds.
    pub passed: bool,
}

impl Gate {
    /// Measures it on the report of its stage.
    pub(super) fn measure(&self, stage: String, report: Option<&Json>) -> GateResult {
        let definition = &DEFINITIONS[self.definition];
        let number = |key: &str| report.and_then(|report| report.get(key)).and_then(Json::as_f64);
        let value = number(definition.value).and_then(|value| match definition.over {
            None => Some(value),
            Some(over) => number(over).filter(|&over| over > 0.0).map(|over| value / over),
        });
        let stderr = if definition.value == "kld_mean" { number("kld_stderr") } else { None };
        let passed = value.is_some_and(|value| match definition.bound {
            Bound::Max => value <= self.limit,
            Bound::Min => value >= self.limit,
        });
        GateResult { gate: definition.name, stage, limit: self.limit, value, stderr, passed }
    }
}

/// Reads `[gates]`, the stages being in the order in which they run.
pub(super) fn read(entry: &Entry, stages: &[RecipeStage], mistakes: &mut Mistakes) -> Vec<Gate> {
    let Some(table) = entry.node.table("gates", mistakes) else { return Vec::new() };
    let mut gates = Vec::new();
    for entry in &table.entries {
        match DEFINITIONS.iter().position(|definition| definition.name == entry.key) {
            Some(definition) => gate(entry, definition, stages, &mut gates, mistakes),
            None => {
                let names: Vec<String> = DEFINITIONS.iter().map(|definition| definition.name.to_owned()).collect();
                mistakes.add(&entry.place, unknown(&entry.key, &names, "[gates]"));
            }
        }
    }
    gates
}

fn gate(entry: &Entry, index: usize, stages: &[RecipeStage], gates: &mut Vec<Gate>, mistakes: &mut Mistakes) {
    let definition = &DEFINITIONS[index];
    let Some((limit, wanted)) = limit(entry, mistakes) else { return };
    let own = |stage: &RecipeStage| stage.kind.measures().own.contains(&definition.value);
    let measures = |stage: &RecipeStage| own(stage) || stage.kind.measures().also.contains(&definition.value);
    let kinds: Vec<&str> = definition.kinds().iter().map(|kind| kind.name()).collect();
    let chosen: Vec<usize> = match wanted {
        Some((node, name)) => {
            let named = |stage: &RecipeStage| stage.name == name || stage.label() == name;
            let chosen: Vec<usize> = (0..stages.len()).filter(|&stage| named(&stages[stage])).collect();
            if chosen.is_empty() {
                let hint = match nearest(&name, stages.iter().map(|stage| stage.name.as_str())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("stages: {}", stages.iter().map(RecipeStage::label).collect::<Vec<_>>().join(", ")),
                };
                return mistakes.add(&node.place, format!("unknown stage `{name}`; {hint}"));
            }
            if !chosen.iter().all(|&stage| measures(&stages[stage])) {
                let message =
                    format!("`{}` is not measured by stage `{name}`; kinds that do: {}", entry.key, kinds.join(", "));
                return mistakes.add(&node.place, message);
            }
            chosen
        }
        None => {
            let last = stages.iter().rposition(own);
            let last = last.or_else(|| stages.iter().rposition(measures));
            let Some(last) = last else {
                let message =
                    format!("`{}` needs a stage that measures it; kinds that do: {}", entry.key, kinds.join(", "));
                return mistakes.add(&entry.place, message);
            };
            (0..stages.len()).filter(|&stage| stages[stage].name == stages[last].name).collect()
        }
    };
    for stage in chosen {
        if definition.compares && !stages[stage].choices.iter().any(|choice| choice.flag == "reference") {
            let message = format!(
                "`{}` compares with a reference, and stage `{}` has none; give it a `reference`",
                entry.key, stages[stage].name
            );
            mistakes.add(&entry.place, message);
        }
        gates.push(Gate { definition: index, limit, stage });
    }
}

/// The number, and the stage if one is named.
fn limit<'e>(entry: &'e Entry, mistakes: &mut Mistakes) -> Option<(f64, Option<(&'e Node, String)>)> {
    let Value::Table(table) = &entry.node.value else {
        return Some((entry.node.number(&entry.key, mistakes)?, None));
    };
    let known = ["stage", "value"];
    for key in table.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        mistakes.add(&key.place, unknown(&key.key, &known.map(str::to_owned), "a gate"));
    }
    let Some(value) = table.find("value") else {
        mistakes.add(&entry.place, format!("missing key `value` in `{}`", entry.key));
        return None;
    };
    let value = value.node.number("value", mistakes)?;
    let stage = match table.find("stage") {
        Some(stage) => Some((&stage.node, stage.node.text("stage", mistakes)?.to_owned())),
        None => None,
    };
    Some((value, stage))
}
