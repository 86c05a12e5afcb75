//! The verdicts on all gates of a run, from its stages' results: speeds are measured here, since they are of this
//! machine and this moment and no stage's result.

use super::definition::Measure;
use super::judge::Pairs;
use super::{Gate, GateResult, Other, REFERENCE, contributors};
use crate::artifact::host::ArtifactFile;
use crate::bench::compare::compare;
use crate::recipe::reader::Recipe;
use crate::recipe::run_report::StageResult;
use crate::recipe::stage::{Choice, Chosen, Input, chain};
use crate::shell::Shell;
use serde_json::Value as Json;
use std::num::NonZeroUsize;
use std::path::Path;

/// One for each gate on the stages that are asked for, in the order of the recipe.
pub(in crate::recipe) fn verdicts(
    recipe: &Recipe,
    results: &[StageResult],
    asked: &dyn Fn(usize) -> bool,
    shell: &Shell,
) -> Vec<GateResult> {
    let report = |stage: usize| results.get(stage).and_then(|result| result.report.as_ref());
    let verdict = |gate: &Gate| {
        let pairs = (gate.definition.measure == Measure::Speed).then(|| speeds(gate, recipe, results, shell));
        let label = results[gate.stage].stage.clone();
        let mut verdict = recipe.gates.judge(gate, label, &report, pairs.as_ref());
        // Rounding is what most of the error is only where the model is compared with the one that was rounded.
        let of_rounding = gate.against == Other::Reference && rounds_reference(recipe, results, gate.stage);
        if !verdict.passed && verdict.value.is_some() && gate.definition.measure.is_quality() && of_rounding {
            verdict.contributors =
                quantized(recipe, results, gate.stage).map(|(report, _)| contributors::of(report)).unwrap_or_default();
        }
        verdict
    };
    recipe.gates.all.iter().filter(|gate| asked(gate.stage)).map(verdict).collect()
}

/// Whether the reference of a stage is what was rounded to the model that the stage measures, so that nothing else differs.
fn rounds_reference(recipe: &Recipe, results: &[StageResult], stage: usize) -> bool {
    let read = |stage: usize, is_meant: &dyn Fn(&Choice) -> bool| {
        let mut choices = recipe.stages.get(stage)?.choices.iter().filter(|choice| is_meant(choice));
        choices.find_map(|choice| match &choice.value {
            Chosen::Reads { source, .. } => Some(source.clone()),
            _ => None,
        })
    };
    let reference = read(stage, &|choice| choice.flag == REFERENCE);
    let mut next = quantized(recipe, results, stage).and_then(|(_, stage)| read(stage, &|choice| choice.positional));
    while let Some(input) = next {
        if reference.as_ref() == Some(&input) {
            return true;
        }
        // Another file of the same model is no other model.
        next = match input {
            Input::Stage(stage) if recipe.stages[stage].kind.name() == "import" => {
                read(stage, &|choice| choice.positional)
            }
            _ => None,
        };
    }
    false
}

/// The report of the stage that quantized the model which a stage measures, and its index.
fn quantized<'r>(recipe: &Recipe, results: &'r [StageResult], stage: usize) -> Option<(&'r Json, usize)> {
    // The model is the positional argument; other options read other models.
    let mut next = Some(stage);
    while let Some(stage) = next {
        let report = results.get(stage)?.report.as_ref();
        if let Some(report) = report.filter(|report| report.get("matrices").is_some()) {
            return Some((report, stage));
        }
        next = recipe.stages.get(stage)?.model_stage();
    }
    None
}

/// Runs the artifact of a gate beside the other one.
fn speeds(gate: &Gate, recipe: &Recipe, results: &[StageResult], shell: &Shell) -> Result<Pairs, String> {
    let Other::Artifact { source, .. } = &gate.against else { return Err("nothing to compare with".to_owned()) };
    let Some(own) = results[gate.stage].output.clone() else {
        return Err(format!("stage `{}` made no artifact", results[gate.stage].stage));
    };
    let other = recipe.path(source);
    let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
    shell.status("Timing", format_args!("{} beside {}", own.display(), other.display()));
    let open = |path: &Path| ArtifactFile::open(path).map_err(|error| chain(&error));
    compare(&open(&own)?, &open(&other)?, threads).map_err(|error| chain(&error))
}
