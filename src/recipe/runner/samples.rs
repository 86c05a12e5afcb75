//! The sample of a recipe: its prompt continued by the models and by the artifacts of the last stage that makes some.

use crate::eval::EvalError;
use crate::eval::constrained::Follow;
use crate::eval::generate::{GenerateOptions, Prompt, generate};
use crate::eval::opened::OpenedModel;
use crate::eval::speculation::Means;
use crate::formats;
use crate::recipe::error::RecipeError;
use crate::recipe::reader::{Model, Recipe, Sample};
use crate::recipe::run_report::{SampleResult, StageResult};
use crate::stages::Product;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A model or an artifact: how it is called, where it is, and the model whose tokenizer it has if it lacks one.
type Sampled<'r> = (String, PathBuf, Option<&'r Model>);

/// The prompt continued by the models and by the last artifacts.
pub(super) fn samples(
    sample: &Sample,
    recipe: &Recipe,
    results: &[StageResult],
    seed: u64,
) -> Result<Vec<SampleResult>, RecipeError> {
    let mut all: Vec<Sampled<'_>> = Vec::new();
    // A configuration alone says nothing.
    for model in recipe.models.iter().filter(|model| formats::contents(&model.path).weights) {
        all.push((model.label(), model.path.clone(), Some(model)));
    }
    // The last target, in every cell, of the last stage that makes artifacts.
    let artifacts = || recipe.stages.iter().zip(results).filter(|(stage, _)| stage.kind.makes() == Product::Artifact);
    let last = artifacts().next_back().map(|(stage, _)| stage.name.clone());
    let mut cells: Vec<(String, Sampled<'_>)> = Vec::new();
    for (stage, result) in artifacts().filter(|(stage, _)| Some(&stage.name) == last.as_ref()) {
        if let Some(path) = &result.output {
            let cell = stage.cell.name();
            cells.retain(|(other, _)| *other != cell);
            cells.push((cell, (result.stage.clone(), path.clone(), recipe.model_of(stage))));
        }
    }
    all.extend(cells.into_iter().map(|(_, sampled)| sampled));
    let mut texts = Vec::new();
    for (of, path, own) in all {
        match continued(sample, &path, own, seed) {
            Ok(text) => texts.push(SampleResult { of, text }),
            Err(source) => return Err(RecipeError::Sample { of, source }),
        }
    }
    Ok(texts)
}

fn continued(sample: &Sample, path: &Path, own: Option<&Model>, seed: u64) -> Result<String, EvalError> {
    let model = OpenedModel::open_stored(path, &sample.device)?;
    let tokenizer = match model.tokenizer() {
        Err(EvalError::NoTokenizer { .. }) => own.map(|model| model.path.clone()),
        _ => None,
    };
    let options = GenerateOptions {
        prompt: Prompt::Text(sample.prompt.clone()),
        tokens: sample.tokens,
        sampling: Sampling::GREEDY,
        seed,
        tokenizer,
        means: Means::default(),
        follow: Follow::default(),
    };
    Ok(generate(&model, &options, &mut |_| ControlFlow::Continue(()))?.text)
}
