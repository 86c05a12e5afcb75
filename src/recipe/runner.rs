//! Runs a recipe: stage after stage, those that are done skipped, then the gates and the sample. A run that was killed
//! goes on when it is repeated: finished stages come from the cache, training from its checkpoint.

use super::cache::{self, Record};
use super::error::RecipeError;
use super::plan::{self, Prepared, RunOptions};
use super::reader::{Recipe, Sample};
use super::run_report::{RunReport, SampleResult, StageResult, Status};
use super::stage::{RecipeStage, chain};
use crate::eval::EvalError;
use crate::eval::generate::{GenerateOptions, Prompt, generate};
use crate::eval::opened::OpenedModel;
use crate::formats;
use crate::shell::Shell;
use crate::stages::{Product, Resumes};
use crate::train::checkpoint;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Runs it.
pub fn run(options: &RunOptions, shell: &Shell) -> Result<RunReport, RecipeError> {
    let mut prepared = plan::prepare(options)?;
    if let Some((lock, path)) = &prepared.new_lock {
        lock.write(path)?;
        shell.status("Locked", path.display());
    }
    let out = prepared.recipe.out.clone();
    // Both are known before the first stage: outputs must have a place, and results should be remembered.
    let writable = |out: &Path| std::fs::create_dir_all(out).and_then(|()| tempfile::tempfile_in(out).map(drop));
    writable(&out).map_err(|source| RecipeError::OutDirectory { path: out, source })?;
    let remembers = match cache::check_writable() {
        Ok(()) => true,
        Err(error) => {
            let error = chain(&error);
            shell.warn(format_args!("{error}; the outputs are written, and the next run computes them again"));
            false
        }
    };
    if prepared.recipe.stages.iter().any(|stage| stage.kind.resumes() == Resumes::Always) {
        shell.note("a run that is stopped goes on where it was when the same command is repeated");
    }
    let mut results: Vec<StageResult> = Vec::new();
    for index in 0..prepared.recipe.stages.len() {
        let result = run_stage(index, &mut prepared, &results, options, remembers, shell)?;
        results.push(result);
    }
    let recipe = &prepared.recipe;
    let measure = |gate: &super::gates::Gate| {
        let result = &results[gate.stage];
        gate.measure(result.stage.clone(), result.report.as_ref())
    };
    let gates: Vec<_> = recipe.gates.iter().map(measure).collect();
    let samples = match &recipe.sample {
        Some(sample) => samples(sample, recipe, &results, options.run.seed)?,
        None => Vec::new(),
    };
    let gave = |result: &StageResult| matches!(result.status, Status::Done | Status::Cached);
    let passed = results.iter().all(gave) && gates.iter().all(|gate| gate.passed);
    Ok(RunReport { recipe: recipe.name.clone(), stages: results, gates, samples, passed })
}

/// One stage, those before it being over.
fn run_stage(
    index: usize,
    prepared: &mut Prepared,
    before: &[StageResult],
    options: &RunOptions,
    remembers: bool,
    shell: &Shell,
) -> Result<StageResult, RecipeError> {
    let Prepared { recipe, hashes, .. } = prepared;
    let stage = &recipe.stages[index];
    let label = stage.label();
    let number = format!("{}/{} {label} ({})", index + 1, recipe.stages.len(), stage.kind.name());
    let mut result = StageResult {
        stage: label.clone(),
        kind: stage.kind.name(),
        status: Status::NotRun,
        cost: None,
        output: stage.output.clone(),
        sha256: None,
        report: None,
    };
    if stage.waits_for().any(|other| matches!(before[other].status, Status::DoesNotFit | Status::NotRun)) {
        shell.status("Leaving out", &number);
        return Ok(StageResult { output: None, ..result });
    }
    let path = |source: &super::stage::Input| recipe.path(source);
    let key = cache::key(stage, plan::seed(stage, options.run.seed), &path, hashes)?;
    if !options.force
        && let Some(Record { output, report, .. }) = cache::look_up(&key, stage, hashes)
    {
        shell.status("Cached", &number);
        result.status = Status::Cached;
        (result.sha256, result.report) = (output, Some(report));
        return Ok(result);
    }
    shell.status("Stage", &number);
    leftovers(stage, options.force, shell)?;
    let failed = |source: anyhow::Error| RecipeError::Stage {
        stage: label.clone(),
        kind: stage.kind.name(),
        source: source.into(),
    };
    let outcome = stage.run(&options.run, &path, shell).map_err(failed)?;
    result.cost = Some(outcome.cost);
    if let Some(output) = &stage.output {
        hashes.forget(output);
    }
    let report: Value = serde_json::from_str(&outcome.json).map_err(|error| failed(error.into()))?;
    if !outcome.passed {
        shell.warn(format_args!("stage `{label}` has no output\n{}", outcome.text));
        return Ok(StageResult { status: Status::DoesNotFit, output: None, report: Some(report), ..result });
    }
    result.sha256 = stage.output.as_deref().map(|output| hashes.of(output)).transpose()?;
    if remembers && let Err(error) = cache::remember(&key, stage, &report, hashes) {
        // The disk may have filled up: the output is there, and only the next run's time is lost.
        let error = chain(&error);
        shell.warn(format_args!(
            "stage `{label}` is finished and not remembered: {error}; the next run computes it again"
        ));
    }
    Ok(StageResult { status: Status::Done, report: Some(report), ..result })
}

/// The checkpoint of a run that was killed: gone with --force, else worth a word.
fn leftovers(stage: &RecipeStage, force: bool, shell: &Shell) -> Result<(), RecipeError> {
    let resumes = stage.kind.resumes() != Resumes::Never;
    let Some(output) = stage.output.as_deref().filter(|_| resumes) else { return Ok(()) };
    let path = checkpoint::path_beside(output);
    if force {
        return checkpoint::forget(output)
            .map_err(|error| RecipeError::OutDirectory { path, source: std::io::Error::other(error) });
    }
    if path.exists() {
        shell.status("Resuming", format_args!("from {}", path.display()));
    }
    Ok(())
}

/// The prompt continued by the model and by the last artifact.
fn samples(
    sample: &Sample,
    recipe: &Recipe,
    results: &[StageResult],
    seed: u64,
) -> Result<Vec<SampleResult>, RecipeError> {
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    // A configuration alone says nothing.
    let has_weights = |path: &Path| formats::contents(path).weights;
    if let Some((path, _)) = recipe.model.as_ref().filter(|(path, _)| has_weights(path)) {
        all.push(("model".to_owned(), path.clone()));
    }
    let mut stages = recipe.stages.iter().zip(results);
    let artifact = stages.rfind(|(stage, _)| stage.kind.makes() == Product::Artifact);
    if let Some((result, path)) = artifact.and_then(|(_, result)| Some((result, result.output.as_ref()?))) {
        all.push((result.stage.clone(), path.clone()));
    }
    let mut texts = Vec::new();
    for (of, path) in all {
        match continued(sample, &path, recipe, seed) {
            Ok(text) => texts.push(SampleResult { of, text }),
            Err(source) => return Err(RecipeError::Sample { of, source }),
        }
    }
    Ok(texts)
}

fn continued(sample: &Sample, path: &Path, recipe: &Recipe, seed: u64) -> Result<String, EvalError> {
    let model = OpenedModel::open_stored(path, &sample.device)?;
    let tokenizer = match model.tokenizer() {
        Err(EvalError::NoTokenizer { .. }) => recipe.model.as_ref().map(|(path, _)| path.clone()),
        _ => None,
    };
    let options = GenerateOptions {
        prompt: Prompt::Text(sample.prompt.clone()),
        tokens: sample.tokens,
        sampling: Sampling::GREEDY,
        seed,
        tokenizer,
    };
    Ok(generate(&model, &options, &mut |_| ControlFlow::Continue(()))?.text)
}
