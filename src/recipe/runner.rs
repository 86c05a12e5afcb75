//! Runs a recipe: stage after stage or side by side, those whose results are known taken from the caches, then the gates and
//! the sample. A run that was killed goes on when it is repeated: finished stages are in the cache, training goes on from its
//! checkpoint.
//!
//! The result of a stage that is known need not be on disk: it is put in place when a stage that runs reads it, and at the end
//! where this machine has it, or where it is what the recipe is for. Two runs at once compute a key once: the second waits.

mod owner;
mod samples;
mod schedule;
mod settle;
mod work;

use super::cache::Made;
use super::error::RecipeError;
use super::forecast::Rates;
use super::gates::GateResult;
use super::hashes::Hashes;
use super::plan::{self, Locking, Prepared, RunOptions};
use super::reader::Recipe;
use super::run_report::{InputDigest, RunReport, RunVerdict, StageResult, Status};
use super::stage::{RecipeStage, chain};
use crate::disk::schema::nearest;
use crate::shell::Shell;
use crate::stages::{Product, Resumes};
use crate::store::{KeyLock, Origin};
use crate::trust::SecretKey;
use schedule::Schedule;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use work::{Computed, Work};

/// Stack of a thread that runs a stage.
const STACK_BYTES: usize = 16 << 20;

/// Runs it.
pub fn run(options: &RunOptions, shell: &Shell) -> Result<RunReport, RecipeError> {
    run_prepared(options, plan::prepare(options, shell)?, shell)
}

/// Likewise, what a plan reads being read.
pub(super) fn run_prepared(options: &RunOptions, prepared: Prepared, shell: &Shell) -> Result<RunReport, RecipeError> {
    let chosen = chosen(options, &prepared.recipe)?;
    let count = prepared.recipe.stages.len();
    let rates = Rates::noted(prepared.chain.local());
    let (made, results) = (vec![None; count], vec![None; count]);
    let mut run = Run {
        options,
        shell,
        prepared,
        chosen,
        made,
        results,
        rates,
        side_by_side: false,
        release_key: None,
        signer: None,
    };
    run.begin()?;
    let judged = run.stages().map(|()| run.judge());
    // What is finished is written down, whatever stopped the run.
    let written = run.write_lock(judged.as_ref().ok());
    run.prepared.hashes.save();
    let judged = judged?;
    written?;
    run.report(judged)
}

/// The results of all stages, every one being settled, and what the gates say of them.
struct Judged {
    results: Vec<StageResult>,
    gates: Vec<GateResult>,
    verdict: RunVerdict,
}

/// The stages that are to have a result: all, or those that `--only` names.
fn chosen(options: &RunOptions, recipe: &Recipe) -> Result<BTreeSet<usize>, RecipeError> {
    let Some(name) = &options.only else { return Ok((0..recipe.stages.len()).collect()) };
    let named = |stage: &RecipeStage| stage.is_named(name);
    let chosen: BTreeSet<usize> = (0..recipe.stages.len()).filter(|&stage| named(&recipe.stages[stage])).collect();
    if chosen.is_empty() {
        let labels: Vec<String> = recipe.stages.iter().map(RecipeStage::label).collect();
        let left_out = recipe.left_out.iter().find(|other| other.is_named(name));
        let hint = match nearest(name, labels.iter().map(String::as_str)) {
            _ if left_out.is_some() => {
                left_out.map(|other| format!("it is left out: {}", other.why)).unwrap_or_default()
            }
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("stages: {}", labels.join(", ")),
        };
        return Err(RecipeError::UnknownStage { name: name.clone(), hint });
    }
    Ok(chosen)
}

/// A run under way.
struct Run<'r> {
    options: &'r RunOptions,
    shell: &'r Shell,
    prepared: Prepared,
    /// Stages that are to have a result.
    chosen: BTreeSet<usize>,
    /// Results so far.
    made: Vec<Option<Made>>,
    /// Likewise for people, of every stage so far.
    results: Vec<Option<StageResult>>,
    /// How long stages take here.
    rates: Rates,
    /// Whether lines say which stage they are of.
    side_by_side: bool,
    /// The key that signs artifacts, where they are to be signed.
    release_key: Option<SecretKey>,
    /// The key of attestations, where there are to be any.
    signer: Option<SecretKey>,
}

/// The state of a stage before any work.
enum Settled {
    /// It has its result.
    Known(StageResult),
    /// It is to be computed, with this key.
    ToDo(Value, StageResult),
}

impl Run<'_> {
    fn stage(&self, index: usize) -> &RecipeStage {
        &self.prepared.recipe.stages[index]
    }

    /// What is to be known before the first stage: outputs must have a place, and results should be kept.
    fn begin(&mut self) -> Result<(), RecipeError> {
        let shell = self.shell;
        let writes = self.options.settings.is_empty();
        // A lock that gates compare with is not emptied before they have been judged.
        let compared = self.prepared.recipe.gates.by_own_lock;
        let begins =
            |locking: &&mut Locking| writes && locking.stored.is_none() && !(compared && locking.before.is_some());
        if let Some(locking) = self.prepared.lock.as_mut().filter(begins) {
            locking.lock.write(&locking.path)?;
            shell.status("Locked", locking.path.display());
            locking.stored = Some(locking.lock.clone());
        }
        self.say_recipe_changed();
        let out = self.prepared.recipe.out.clone();
        let writable = |out: &Path| std::fs::create_dir_all(out).and_then(|()| tempfile::tempfile_in(out).map(drop));
        writable(&out).map_err(|source| RecipeError::OutDirectory { path: out.clone(), source })?;
        owner::note(&out, &self.options.recipe, self.prepared.chain.local(), shell);
        match self.prepared.chain.local().map(|local| local.check_writable()) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                let error = chain(&error);
                shell.warn(format_args!("{error}; the outputs are written, and the next run computes them again"));
                if let Some(chain) = Arc::get_mut(&mut self.prepared.chain) {
                    chain.without_local();
                }
            }
            None if self.prepared.chain.is_disabled() => {}
            None => shell.warn(
                "no directory for the cache: none of XDG_CACHE_HOME and HOME is set; the outputs are written, and the next run \
                 computes them again",
            ),
        }
        // One stage alone has no gates, and is signed and attested by the run of all.
        if let Some(sign) = self.prepared.recipe.sign.as_ref().filter(|_| self.options.only.is_none()) {
            self.release_key = Some(sign.signer(shell)?);
        }
        if let Some(attest) = self.prepared.recipe.attest.as_ref().filter(|_| self.options.only.is_none()) {
            self.signer = Some(attest.signer(shell)?);
        }
        if let Some(warning) = self.prepared.chain.signer().and_then(|signer| signer.warning()) {
            shell.warn(warning);
        }
        for left_out in &self.prepared.recipe.left_out {
            shell.status("Leaving out", format_args!("{}: {}", left_out.label(), left_out.why));
        }
        if self.prepared.recipe.stages.iter().any(|stage| stage.kind.resumes() == Resumes::Always) {
            shell.note("a run that is stopped goes on where it was when the same command is repeated");
        }
        Ok(())
    }

    /// Says that the lock was written for the recipe as it was, or for another one.
    fn say_recipe_changed(&self) {
        let Some(Locking { path, stored: Some(stored), lock, .. }) = &self.prepared.lock else { return };
        if stored.is_of(lock) || !self.options.settings.is_empty() {
            return;
        }
        let recipe = &self.prepared.recipe;
        let is_there = |label: &&String| recipe.stages.iter().any(|stage| stage.label() == **label);
        let gone: Vec<String> =
            stored.labels().filter(|label| !is_there(label)).map(|label| format!("`{label}`")).collect();
        let gone = if gone.is_empty() { String::new() } else { format!(", with {}", gone.join(", ")) };
        let path = path.display();
        self.shell
            .note(format_args!("{path} was written for the recipe as it was before{gone}; it follows the recipe"));
    }

    /// Settles every stage, and puts outputs in place.
    fn stages(&mut self) -> Result<(), RecipeError> {
        self.settle_all()?;
        for index in 0..self.prepared.recipe.stages.len() {
            if self.belongs_on_disk(index) {
                self.place(index)?;
            }
        }
        Ok(())
    }

    /// Settles stage after stage, those that do not wait for each other side by side where that is allowed. After a failure
    /// nothing begins any more; what runs ends, and its result is kept.
    fn settle_all(&mut self) -> Result<(), RecipeError> {
        let mut schedule = Schedule::new(self.options, &self.prepared.recipe, &self.chosen);
        self.side_by_side = schedule.is_wide();
        let (send, receive) = std::sync::mpsc::channel();
        let mut failures: BTreeMap<usize, RecipeError> = BTreeMap::new();
        std::thread::scope(|scope| {
            loop {
                while failures.is_empty()
                    && let Some(index) = schedule.next()
                {
                    match self.begin_stage(index, &mut schedule) {
                        Ok(None) => {}
                        Ok(Some(work)) if schedule.is_serial() => {
                            let (computed, held) = work.run();
                            if let Err(error) = self.end_stage(index, work, computed, held, &mut schedule) {
                                failures.insert(index, error);
                            }
                        }
                        Ok(Some(work)) => {
                            let send = send.clone();
                            let run = move || {
                                let ended = std::panic::catch_unwind(AssertUnwindSafe(|| work.run()));
                                // Its receiver is there until every stage has ended.
                                drop(send.send((index, work, ended)));
                            };
                            // As much as the main thread has.
                            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                            if let Err(source) = thread.spawn_scoped(scope, run) {
                                schedule.ended(index);
                                failures.insert(index, RecipeError::Thread { source });
                            }
                        }
                        Err(error) => {
                            schedule.ended(index);
                            failures.insert(index, error);
                        }
                    }
                }
                if schedule.running() == 0 {
                    break;
                }
                let Ok((index, work, ended)) = receive.recv() else { break };
                let (computed, held) = match ended {
                    Ok(ended) => ended,
                    // As if it had been on this thread.
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                if let Err(error) = self.end_stage(index, work, computed, held, &mut schedule) {
                    failures.insert(index, error);
                }
            }
        });
        // The first in the order of the recipe, whichever failed first; of the others there is a word.
        let mut failures = failures.into_values();
        let Some(first) = failures.next() else { return Ok(()) };
        failures.for_each(|other| self.shell.warn(chain(&other)));
        Err(first)
    }

    /// The stages that something chosen needs, itself included.
    fn needed(&self, index: usize) -> bool {
        self.chosen.contains(&index)
            || self.chosen.iter().any(|&chosen| {
                let mut open = vec![chosen];
                while let Some(stage) = open.pop() {
                    if stage == index {
                        return true;
                    }
                    open.extend(self.stage(stage).waits_for());
                }
                false
            })
    }

    /// Whether an output is to be in place when the run is over: what this machine has, and of what only others have the
    /// artifacts, what no other stage reads, and what would stand in an old output's place.
    fn belongs_on_disk(&self, index: usize) -> bool {
        let Some(made) = &self.made[index] else { return false };
        if self.options.only.is_some() && !self.chosen.contains(&index) {
            return false;
        }
        let stage = self.stage(index);
        let stages = &self.prepared.recipe.stages;
        !matches!(made.origin, Some(Origin::Remote(_)))
            || stage.kind.makes() == Product::Artifact
            || !stages.iter().any(|other| other.waits_for().any(|read| read == index))
            || stage.output.as_ref().is_some_and(|output| output.exists())
    }

    /// One stage, those before it being settled: its result from a cache, or the work that is to be done.
    fn begin_stage(&mut self, index: usize, schedule: &mut Schedule) -> Result<Option<Work>, RecipeError> {
        let (key, result) = match schedule.take_known(index) {
            Some(known) => known,
            None => match self.settle(index)? {
                Settled::Known(result) => {
                    self.results[index] = Some(result);
                    schedule.settled(index);
                    return Ok(None);
                }
                Settled::ToDo(key, result) => (key, result),
            },
        };
        if !schedule.may_start(index) {
            schedule.postpone(index, key, result);
            return Ok(None);
        }
        let work = self.work(index, key, result, false)?;
        schedule.started(index);
        Ok(Some(work))
    }

    /// Takes over what a stage gave.
    fn end_stage(
        &mut self,
        index: usize,
        work: Work,
        computed: Result<Computed, RecipeError>,
        held: Option<KeyLock>,
        schedule: &mut Schedule,
    ) -> Result<(), RecipeError> {
        let alone = schedule.ended(index);
        let result = self.finish(work, computed?, alone)?;
        self.results[index] = Some(result);
        schedule.settled(index);
        drop(held);
        Ok(())
    }

    /// What the gates say, each stage being settled.
    fn judge(&mut self) -> Judged {
        let results: Vec<StageResult> = std::mem::take(&mut self.results).into_iter().flatten().collect();
        let asked = |stage: usize| self.chosen.contains(&stage);
        let gates = super::gates::verdicts(&self.prepared.recipe, &results, &asked, self.shell);
        let gave = |result: &StageResult| matches!(result.status, Status::Done | Status::Cached);
        let all_gave = results.iter().enumerate().all(|(index, result)| !asked(index) || gave(result));
        let passed = all_gave && gates.iter().all(|gate| gate.passed);
        // One stage alone has no gates.
        let recipe = self.prepared.recipe.as_ref();
        let unjudged = gates.is_empty() && !recipe.gates.not_judged.is_empty();
        let nothing = recipe.stages.is_empty() && !recipe.left_out.is_empty();
        let verdict = match passed {
            false => RunVerdict::NotPassed,
            true if self.options.only.is_none() && (unjudged || nothing) => RunVerdict::NotJudged,
            true => RunVerdict::Passed,
        };
        Judged { results, gates, verdict }
    }

    /// Writes what the stages gave into the lock, where it says something else. What gates compare with there stays until a
    /// run of all stages has passed them: else a second run would compare the model that missed them with itself.
    fn write_lock(&self, judged: Option<&Judged>) -> Result<(), RecipeError> {
        // What a command line sets is not what the recipe gives.
        let writes = !self.options.locked && self.options.settings.is_empty();
        let Some(locking) = self.prepared.lock.as_ref().filter(|_| writes) else { return Ok(()) };
        let recipe = &self.prepared.recipe;
        let mut lock = locking.lock.clone();
        if recipe.gates.by_own_lock {
            let passed =
                judged.is_some_and(|judged| judged.verdict == RunVerdict::Passed) && recipe.gates.not_judged.is_empty();
            if self.options.only.is_some() {
                let artifacts = recipe.stages.iter().filter(|stage| stage.kind.makes() == Product::Artifact);
                artifacts.for_each(|stage| lock.keep_result_of(locking.before.as_ref(), &stage.label()));
            } else if !passed {
                if judged.is_some() && locking.before.as_ref() != Some(&lock) {
                    self.shell.note(format_args!(
                        "{} is left as it was: its artifacts are what gates compare with, and this run has not passed them all",
                        locking.path.display()
                    ));
                }
                return Ok(());
            }
        }
        if locking.stored.as_ref() != Some(&lock) {
            lock.write(&locking.path)?;
        }
        Ok(())
    }

    /// Gates and samples over the results.
    fn report(self, judged: Judged) -> Result<RunReport, RecipeError> {
        let Run { options, shell, prepared: Prepared { recipe, mut hashes, .. }, chosen, signer, release_key, .. } =
            self;
        let Judged { results, gates, verdict } = judged;
        let whole = options.only.is_none();
        let left_out = recipe.left_out.iter().filter(|_| whole).map(plan::left_out).collect();
        let not_judged = recipe.gates.not_judged.iter().filter(|_| whole).cloned().collect();
        let samples = match &recipe.sample {
            Some(sample) if options.only.is_none() => samples::samples(sample, &recipe, &results, options.run.seed)?,
            _ => Vec::new(),
        };
        let inputs = inputs(&recipe, &mut hashes)?;
        let mut outputs: Vec<_> = results
            .iter()
            .enumerate()
            .filter_map(|(index, result)| Some((index, result.status, result.output.clone()?)))
            .collect();
        let stages: Vec<StageResult> = results
            .into_iter()
            .enumerate()
            .filter(|(index, _)| chosen.contains(index))
            .map(|(_, result)| result)
            .collect();
        let (file, tool) = (options.recipe.display().to_string(), crate::machine::tool());
        let settings = options.settings.iter().map(ToString::to_string).collect();
        let (name, signed, attestations) = (recipe.name.clone(), Vec::new(), Vec::new());
        let mut report = RunReport {
            recipe: name,
            file,
            settings,
            tool,
            inputs,
            stages,
            gates,
            left_out,
            not_judged,
            samples,
            signed,
            attestations,
            passed: verdict == RunVerdict::Passed,
            verdict,
        };
        if let Some((sign, key)) = recipe.sign.as_ref().zip(release_key) {
            if report.passed {
                report.signed = sign.write(&mut outputs, &recipe.stages, &key, shell)?;
            } else {
                shell.note("nothing is signed: a stage gave no result, a gate does not hold, or none was judged");
            }
        }
        if let Some((attest, signer)) = recipe.attest.as_ref().zip(signer) {
            report.attestations = attest.write(&report, &outputs, &options.recipe, &signer, shell)?;
        }
        Ok(report)
    }
}

/// Everything that stages read and that none of them made, with hashes, by name.
fn inputs(recipe: &Recipe, hashes: &mut Hashes) -> Result<Vec<InputDigest>, RecipeError> {
    let mut inputs = Vec::new();
    for (path, written) in recipe.reads() {
        inputs.push(InputDigest { path: written.to_owned(), sha256: hashes.of(path)?.sha256.to_string() });
    }
    inputs.sort();
    inputs.dedup();
    Ok(inputs)
}
