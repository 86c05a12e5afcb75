//! Runs a recipe: stage after stage, those that are done skipped, then the gates and the sample. A run that was killed
//! goes on when it is repeated: finished stages come from the cache, training from its checkpoint.

use super::cache::{self, Record};
use super::plan::{self, Options, PlanError, Prepared};
use super::reader::{Recipe, Sample};
use super::run_report::{RunReport, SampleResult, StageResult, Status};
use super::unit::{Unit, chain};
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::eval::generate::{self, GenerateError, generate};
use crate::eval::opened::{OpenError, OpenedModel};
use crate::formats;
use crate::shell::Shell;
use crate::stages::{Product, Resumes};
use crate::train::checkpoint;
use serde_json::Value;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Before it began.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Of an input.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Of the lock.
    #[error(transparent)]
    Lock(#[from] AtomicError),
    /// Of the directory for outputs.
    #[error("{}: cannot be written; pass another --out", path.display())]
    Out {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Of a stage.
    #[error("stage `{stage}` ({kind}) failed; what is finished is kept, repeat the command to go on from here")]
    Stage {
        /// Its name.
        stage: String,
        /// Its subcommand.
        kind: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Of the sample.
    #[error("the sample of {of} cannot be made")]
    Sample {
        /// Of what.
        of: String,
        /// Why.
        source: SampleError,
    },
}

/// Why a text is not continued.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// Of the model.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Of the generation.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// Runs it.
pub fn run(options: &Options, shell: &Shell) -> Result<RunReport, RunError> {
    let mut prepared = plan::prepare(options)?;
    if let Some((lock, path)) = &prepared.new_lock {
        lock.write(path)?;
        shell.status("Locked", path.display());
    }
    let out = prepared.recipe.out.clone();
    // Both are known before the first stage: outputs must have a place, and results should be remembered.
    let writable = |out: &Path| std::fs::create_dir_all(out).and_then(|()| tempfile::tempfile_in(out).map(drop));
    writable(&out).map_err(|source| RunError::Out { path: out, source })?;
    let remembers = match cache::check_writable() {
        Ok(()) => true,
        Err(error) => {
            let error = chain(&error);
            shell.warn(format_args!("{error}; the outputs are written, and the next run computes them again"));
            false
        }
    };
    if prepared.recipe.units.iter().any(|unit| unit.kind.resumes() == Resumes::Always) {
        shell.note("a run that is stopped goes on where it was when the same command is repeated");
    }
    let mut stages: Vec<StageResult> = Vec::new();
    for index in 0..prepared.recipe.units.len() {
        let result = unit(index, &mut prepared, &stages, options, remembers, shell)?;
        stages.push(result);
    }
    let recipe = &prepared.recipe;
    let measure = |gate: &super::gates::Gate| {
        let stage = &stages[gate.unit];
        gate.measure(stage.stage.clone(), stage.report.as_ref())
    };
    let gates: Vec<_> = recipe.gates.iter().map(measure).collect();
    let samples = match &recipe.sample {
        Some(sample) => samples(sample, recipe, &stages, options.run.seed)?,
        None => Vec::new(),
    };
    let gave = |stage: &StageResult| matches!(stage.status, Status::Done | Status::Cached);
    let passed = stages.iter().all(gave) && gates.iter().all(|gate| gate.passed);
    Ok(RunReport { recipe: recipe.name.clone(), stages, gates, samples, passed })
}

/// One unit, those before it being over.
fn unit(
    index: usize,
    prepared: &mut Prepared,
    before: &[StageResult],
    options: &Options,
    remembers: bool,
    shell: &Shell,
) -> Result<StageResult, RunError> {
    let Prepared { recipe, hashes, .. } = prepared;
    let unit = &recipe.units[index];
    let label = unit.label();
    let number = format!("{}/{} {label} ({})", index + 1, recipe.units.len(), unit.kind.name());
    let mut result = StageResult {
        stage: label.clone(),
        kind: unit.kind.name(),
        status: Status::NotRun,
        seconds: None,
        output: unit.output.clone(),
        sha256: None,
        report: None,
    };
    if unit.waits_for().any(|other| matches!(before[other].status, Status::DoesNotFit | Status::NotRun)) {
        shell.status("Leaving out", &number);
        return Ok(StageResult { output: None, ..result });
    }
    let path = |source: &super::unit::Source| recipe.path(source);
    let key = cache::key(unit, plan::seed(unit, options.run.seed), &path, hashes)?;
    if !options.force
        && let Some(Record { output, report, .. }) = cache::look_up(&key, unit, hashes)
    {
        shell.status("Cached", &number);
        result.status = Status::Cached;
        (result.sha256, result.report) = (output, Some(report));
        return Ok(result);
    }
    shell.status("Stage", &number);
    leftovers(unit, options.force, shell)?;
    let failed =
        |source: anyhow::Error| RunError::Stage { stage: label.clone(), kind: unit.kind.name(), source: source.into() };
    let start = Instant::now();
    let outcome = unit.run(&options.run, &path, shell).map_err(failed)?;
    result.seconds = Some(start.elapsed().as_secs_f64());
    if let Some(output) = &unit.output {
        hashes.forget(output);
    }
    let report: Value = serde_json::from_str(&outcome.json).map_err(|error| failed(error.into()))?;
    if !outcome.passed {
        shell.warn(format_args!("stage `{label}` has no output\n{}", outcome.text));
        return Ok(StageResult { status: Status::DoesNotFit, output: None, report: Some(report), ..result });
    }
    result.sha256 = unit.output.as_deref().map(|output| hashes.of(output)).transpose()?;
    if remembers && let Err(error) = cache::remember(&key, unit, &report, hashes) {
        // The disk may have filled up: the output is there, and only the next run's time is lost.
        let error = chain(&error);
        shell.warn(format_args!(
            "stage `{label}` is finished and not remembered: {error}; the next run computes it again"
        ));
    }
    Ok(StageResult { status: Status::Done, report: Some(report), ..result })
}

/// The checkpoint of a run that was killed: gone with --force, else worth a word.
fn leftovers(unit: &Unit, force: bool, shell: &Shell) -> Result<(), RunError> {
    let resumes = unit.kind.resumes() != Resumes::Never;
    let Some(output) = unit.output.as_deref().filter(|_| resumes) else { return Ok(()) };
    let path = checkpoint::path_beside(output);
    if force {
        return checkpoint::forget(output)
            .map_err(|error| RunError::Out { path, source: std::io::Error::other(error) });
    }
    if path.exists() {
        shell.status("Resuming", format_args!("from {}", path.display()));
    }
    Ok(())
}

/// The prompt continued by the model and by the last artifact.
fn samples(sample: &Sample, recipe: &Recipe, stages: &[StageResult], seed: u64) -> Result<Vec<SampleResult>, RunError> {
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    // A configuration alone says nothing.
    let has_weights = |path: &Path| formats::contents(path).weights;
    if let Some((path, _)) = recipe.model.as_ref().filter(|(path, _)| has_weights(path)) {
        all.push(("model".to_owned(), path.clone()));
    }
    let mut units = recipe.units.iter().zip(stages);
    let artifact = units.rfind(|(unit, _)| unit.kind.makes() == Product::Artifact);
    if let Some((stage, path)) = artifact.and_then(|(_, stage)| Some((stage, stage.output.as_ref()?))) {
        all.push((stage.stage.clone(), path.clone()));
    }
    let mut results = Vec::new();
    for (of, path) in all {
        match continued(sample, &path, recipe, seed) {
            Ok(text) => results.push(SampleResult { of, text }),
            Err(source) => return Err(RunError::Sample { of, source }),
        }
    }
    Ok(results)
}

fn continued(sample: &Sample, path: &Path, recipe: &Recipe, seed: u64) -> Result<String, SampleError> {
    let model = OpenedModel::open_stored(path, &sample.device)?;
    let tokenizer = match model.tokenizer() {
        Err(OpenError::NoTokenizer { .. }) => recipe.model.as_ref().map(|(path, _)| path.clone()),
        _ => None,
    };
    let options = generate::Options {
        prompt: generate::Prompt::Text(sample.prompt.clone()),
        tokens: sample.tokens,
        sampling: Sampling::GREEDY,
        seed,
        tokenizer,
    };
    Ok(generate(&model, &options, &mut |_| ControlFlow::Continue(()))?.text)
}
