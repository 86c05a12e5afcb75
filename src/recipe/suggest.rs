//! `slmc gates suggest`: limits from what the stages of a recipe measured last, by their results in the cache. A limit is the
//! bound of the measurement and a tenth of its distance from perfection more, so that the same model passes again, and one
//! that is clearly worse does not; counts of bytes, which have no error, may grow by a fiftieth.

use super::cache::{self, Made};
use super::error::RecipeError;
use super::gates::{self, Gate, Gates, Suggested};
use super::plan::{self, RunOptions};
use super::stage::RecipeStage;
use crate::progress::Progress;
use crate::report::{Report, visible};
use crate::statistics::Side;
use crate::store::digest_of;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// A limit for one gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestion {
    /// Such as `kld_max`.
    pub gate: String,
    /// The stage that measures it.
    pub stage: String,
    /// The limit.
    pub limit: f64,
    /// What was measured.
    pub value: f64,
    /// The value with its bounds, in words.
    pub measured: String,
    /// Windows, texts or prompts that were measured; absent for counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// What a sample is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How many of them decide this limit at what was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
}

/// Result of `slmc gates suggest`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuggestReport {
    /// The recipe.
    pub recipe: String,
    /// Confidence of the bounds, one-sided.
    pub confidence: f64,
    /// Whether the recipe has `[gates]` already.
    pub has_gates: bool,
    /// In the order of docs/gates.md.
    pub gates: Vec<Suggestion>,
}

impl Report for SuggestReport {
    const SCHEMA: &'static str = "slmc.gates/1";

    /// TOML, so that it can be appended to a recipe that has no gates yet.
    fn text(&self) -> String {
        let mut text = format!(
            "# Proposed by `slmc gates suggest` from the last results, by bounds of {:.0} % confidence.\n",
            100.0 * self.confidence
        );
        text.push_str(match self.has_gates {
            true => "# The recipe has [gates] already: put there what is to be taken over.\n",
            false => "[gates]\n",
        });
        for suggestion in &self.gates {
            let Suggestion { gate, stage, measured, samples, unit, needed, limit, .. } = suggestion;
            let mut remark = format!("# {measured} by `{stage}`");
            if let (Some(samples), Some(unit)) = (samples, unit) {
                let _ = write!(remark, " on {samples} {unit}");
                let _ = match needed {
                    Some(needed) if needed > samples => write!(remark, "; too few, about {needed} decide this limit"),
                    Some(needed) => write!(remark, "; about {needed} decide this limit"),
                    None => Ok(()),
                };
            }
            let _ = writeln!(text, "{}\n{gate} = {}", visible(&remark).replace('\n', " "), number(*limit));
        }
        text.trim_end().to_owned()
    }
}

/// Whether more would hold a limit than another one.
fn is_looser(side: Side, limit: f64, other: f64) -> bool {
    match side {
        Side::Max => limit > other,
        Side::Min => limit < other,
    }
}

/// Without an exponent, which people read badly, and with no more digits than the limit has.
fn number(limit: f64) -> String {
    if limit.fract() == 0.0 { format!("{limit:.0}") } else { format!("{limit}") }
}

/// Limits for a recipe whose stages have run.
///
/// # Errors
/// Mistakes in the recipe, a stage without result, and a recipe that measures nothing.
pub fn suggest(options: &RunOptions, progress: &dyn Progress) -> Result<SuggestReport, RecipeError> {
    let mut prepared = plan::prepare(options, progress)?;
    let mut made: Vec<Option<Made>> = Vec::new();
    for index in 0..prepared.recipe.stages.len() {
        let stage = prepared.recipe.stages[index].clone();
        made.push(None);
        let key = match stage.waits_for().all(|other| made[other].is_some()) {
            true => prepared.key(index, &made, options.run.seed)?,
            false => continue,
        };
        let found = prepared.chain.find(&digest_of(&key), &cache::outputs(&stage), progress);
        made[index] = found.map(|found| Made { entry: found.entry, origin: Some(found.origin) });
    }
    prepared.hashes.save();
    let recipe = &prepared.recipe;
    let report = |stage: usize| made.get(stage).and_then(Option::as_ref).map(|made| &made.entry.about.report);
    let wanted = gates::suggestible(&recipe.stages);
    if let Some(gate) = wanted.iter().find(|gate| report(gate.stage).is_none()) {
        let stage = recipe.stages[gate.stage].label();
        return Err(RecipeError::NotMeasured { stage, recipe: options.recipe.clone() });
    }
    let mut measured = recipe.gates.clone();
    // A kind of stage states more than one of it measures.
    let label = |gate: &Gate| recipe.stages[gate.stage].label();
    let stated = |gate: &Gate| recipe.gates.judge(gate, label(gate), &report, None).value.is_some();
    let wanted: Vec<Gate> = wanted.into_iter().filter(stated).collect();
    // All gates must hold, so each alone has to be surer that a good model passes.
    let statistical = wanted.iter().filter(|gate| gate.is_statistical()).count().max(1);
    if measured.all.is_empty() {
        let certainty = &mut measured.certainty;
        certainty.power = 1.0 - (1.0 - certainty.power) / statistical as f64;
    }
    let mut all: Vec<Suggestion> = Vec::new();
    for gate in wanted {
        let side = gate.definition.side;
        let Some(found) = suggestion(&measured, gate, &recipe.stages, &report) else { continue };
        // One key is for every cell and every artifact of a stage: the one that is farthest from perfect decides.
        match all.iter_mut().find(|other| other.gate == found.gate) {
            Some(other) if is_looser(side, found.limit, other.limit) => *other = found,
            Some(_) => {}
            None => all.push(found),
        }
    }
    if all.is_empty() {
        return Err(RecipeError::NothingMeasured { recipe: options.recipe.clone() });
    }
    Ok(SuggestReport {
        recipe: options.recipe.display().to_string(),
        confidence: measured.certainty.confidence,
        has_gates: recipe.gates.stated,
        gates: all,
    })
}

/// `None` where the stage does not report the quantity.
fn suggestion<'r>(
    gates: &Gates,
    mut gate: Gate,
    stages: &[RecipeStage],
    report: &dyn Fn(usize) -> Option<&'r Value>,
) -> Option<Suggestion> {
    let label = stages[gate.stage].label();
    let measured = gates.judge(&gate, label.clone(), report, None);
    let Suggested { limit, value } = gates::limit_of(&gate, &measured)?;
    gate.limit = limit;
    Some(Suggestion {
        gate: gate.definition.name.to_owned(),
        stage: label,
        limit,
        value,
        measured: measured.value_words(),
        samples: measured.samples,
        unit: measured.unit.clone(),
        needed: gates.needed(&gate, report),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_looser_limit_is_the_one_that_the_worst_cell_holds() {
        assert!(is_looser(Side::Max, 0.149, 0.005) && !is_looser(Side::Max, 0.005, 0.149));
        assert!(is_looser(Side::Min, 0.79, 0.957) && !is_looser(Side::Min, 0.957, 0.79));
    }
}
