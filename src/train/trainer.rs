//! The training loop: for every step, micro-batches through teacher and student, gradients summed in the order of the
//! micro-batches, clipped, and one AdamW update. A loss or gradient that is not finite stops the run, names the step
//! and the tensor, and leaves the last checkpoint in place.

use super::checkpoint::{self, State};
use super::data::Samples;
use super::error::TrainError;
use super::gradients::StepGradients;
use super::loss::table::{Against, LossKind, LossParts, MeanLosses};
use super::memory::{ComputedBy, TrainingNeed};
use super::on_policy::{Drawn, OnPolicy};
use super::operations::Operations;
use super::optimizer::{Moments, global_norm};
use super::parameters::{Parameters, TrainedId, normals};
use super::privacy::Private;
use super::scope::Scope;
use super::settings::Settings;
use super::teacher_cache::TeacherCache;
use super::view::View;
use crate::model::forward::DenseWeights;
use crate::model::id::ParameterId;
use crate::model::spec::ModelSpec;
use crate::model::transform::Transform;
use crate::progress::Progress;
use crate::workers::pool::Workers;
use burn::tensor::Device;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Steps after which memory that none of them needed is given back.
const SETTLE_EVERY: u64 = 16;

/// A frozen model to learn from.
pub struct Teacher<'t> {
    /// Its specification.
    pub spec: &'t ModelSpec,
    /// Its weights, on the device without gradients.
    pub weights: &'t DenseWeights,
    /// Hidden states that are compared, (student, teacher), counted from the embedding output.
    pub pairs: Vec<(usize, usize)>,
    /// Its part of what all teachers say; the parts sum to 1.
    pub part: f64,
    /// What the projections of the pairs start from, (student width, teacher width) each; at random where there are none.
    pub projections: Vec<Vec<f32>>,
}

/// Everything a run needs besides its transform.
pub struct Run<'r> {
    /// The student.
    pub spec: &'r ModelSpec,
    /// The run.
    pub settings: &'r Settings,
    /// What is trained.
    pub scope: &'r Scope,
    /// Noise that hides every single sample, where that is asked for.
    pub privacy: Option<&'r Private>,
    /// The data.
    pub samples: &'r Samples,
    /// The teachers, where there are any.
    pub teachers: Vec<Teacher<'r>>,
    /// How many tokens student and teachers have all, where their tables are padded to different sizes.
    pub shared_tokens: Option<usize>,
    /// What teachers say of every sample that is drawn, where it was asked beforehand: then the divergence runs none.
    pub cache: Option<&'r TeacherCache>,
    /// The device, without gradients.
    pub device: &'r Device,
    /// Workers that compute the steps in its place.
    pub workers: Option<&'r Workers>,
    /// Where the output will be: the checkpoint is beside it.
    pub out: &'r Path,
    /// Fingerprint of settings and inputs.
    pub fingerprint: String,
    /// Most memory that it may need.
    pub max_ram: Option<u64>,
    /// Bytes that reading the data has taken.
    pub read_bytes: u64,
    /// How much of it is on text of the student itself.
    pub on_policy: Option<OnPolicy>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The student's values, adapters merged.
    pub parameters: BTreeMap<ParameterId, Vec<f32>>,
    /// The two matrices of every adapter.
    pub adapters: Parameters,
    /// Steps taken.
    pub steps: u64,
    /// Step a checkpoint was resumed from, if one was.
    pub resumed: Option<u64>,
    /// Means over the last tenth of the steps.
    pub last: MeanLosses,
    /// One JSON line per step: step, tokens, losses, gradient norm, rate. No times.
    pub log: Vec<String>,
}

/// Steps of a run: enough to reach the number of tokens asked for.
pub fn steps(samples: &Samples, settings: &Settings) -> u64 {
    let per_step = samples.mean_tokens() * settings.batch as f64;
    ((settings.tokens as f64 / per_step).ceil() as u64).max(1)
}

impl Run<'_> {
    /// Trains `start` through `transform`.
    pub fn train(
        &self,
        start: BTreeMap<ParameterId, Vec<f32>>,
        transform: &dyn Transform,
        progress: &dyn Progress,
    ) -> Result<Trained, TrainError> {
        self.check()?;
        let mut operations = Operations::new(self, progress)?;
        let need = self.need(transform, operations.computed_by());
        progress.needs("training", need.peak_bytes());
        need.check(self.max_ram)?;
        let (view, mut parameters) = View::new(start, self.scope, transform, self.settings.seed);
        self.add_projections(&mut parameters);
        let checkpoint_path = checkpoint::path_beside(self.out);
        let resumed = checkpoint::load(&checkpoint_path, &self.fingerprint, &parameters)?;
        let from = resumed.as_ref().map(|state| state.step);
        let moments = Moments::new(&parameters);
        let mut state = resumed.unwrap_or(State { step: 0, parameters, moments, log: Vec::new() });
        let steps = steps(self.samples, self.settings);
        let mut pace = Pace::new(self.settings.checkpoint_every, state.step);
        progress.begin("training", steps, "steps");
        progress.advance(state.step);
        let (mut tokens, started) = (0usize, Instant::now());
        while state.step < steps {
            let done = self.step(&mut state, &view, &mut operations, steps, pace.saved)?;
            tokens += done.tokens;
            state.step += 1;
            if state.step.is_multiple_of(SETTLE_EVERY) {
                slm_numerics::scratch::settle();
            }
            progress.advance(1);
            let speed = tokens as f64 / started.elapsed().as_secs_f64();
            progress.figures(&format_args!("loss {:.4}, {speed:.0} tokens/s", done.parts.total));
            if pace.due(state.step) && state.step < steps {
                let begun = Instant::now();
                checkpoint::save(&checkpoint_path, &self.fingerprint, &state)?;
                pace.took(state.step, begun.elapsed());
                progress.saved(state.step);
            }
        }
        progress.finish();
        slm_numerics::scratch::forget();
        let last = mean_of_last(&state.log);
        let (parameters, adapters) = view.finish(state.parameters);
        Ok(Trained { parameters, adapters, steps, resumed: from, last, log: state.log })
    }

    /// Refuses what no step could be made of.
    fn check(&self) -> Result<(), TrainError> {
        self.settings.check()?;
        let loss = &self.settings.loss;
        let of_teacher = loss.used().find(|def| def.against.is_teachers());
        let taught = !self.teachers.is_empty() || self.cache.is_some();
        if let (Some(def), false) = (of_teacher, taught) {
            return Err(TrainError::NoTeacher { option: def.option });
        }
        if self.on_policy.is_some() && loss.pause(Some(LossKind::CrossEntropy)).is_some() {
            return Err(TrainError::NoLoss);
        }
        if self.privacy.is_some() && !self.spec.exits.is_empty() {
            return Err(TrainError::PrivateExits);
        }
        if self.samples.is_empty() {
            return Err(TrainError::NoSamples);
        }
        Ok(())
    }

    /// Has the teachers say of every sample of the run what the file lacks, unless the run is refused afterwards: `transform` is
    /// the one that it trains through.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn fill(
        &self,
        cache: &TeacherCache,
        transform: &dyn Transform,
        progress: &dyn Progress,
    ) -> Result<(), TrainError> {
        self.check()?;
        // Fused operations alone read the file.
        self.need(transform, ComputedBy::Fused).check(self.max_ram)?;
        let drawn = self.samples.drawn(self.settings.seed, steps(self.samples, self.settings), self.settings.batch);
        let missing = cache.missing(&drawn)?;
        if missing.is_empty() {
            return Ok(());
        }
        let of_text = (missing.as_slice(), self.shared_tokens, self.settings.loss.temperature);
        cache.fill((self.samples, self.spec), &self.teachers, of_text, progress)
    }

    fn need(&self, transform: &dyn Transform, computed_by: ComputedBy) -> TrainingNeed<'_> {
        let longest = self.samples.longest();
        TrainingNeed {
            student: self.spec,
            scope: self.scope,
            private: self.privacy.is_some(),
            teachers: self.teachers.iter().map(|teacher| teacher.spec).collect(),
            settings: self.settings,
            longest,
            transformed: self.spec.matrices().iter().any(|(id, ..)| transform.changes(*id)),
            computed_by,
            read_bytes: self.read_bytes + self.on_policy.map_or(0, |_| OnPolicy::memory_bytes(self.spec, longest)),
        }
    }

    /// Projections where the student's width is not the teacher's: as they are given, or random, of the norm an identity would
    /// have.
    fn add_projections(&self, parameters: &mut Parameters) {
        if !self.settings.loss.needs(Against::States) {
            return;
        }
        let own = self.spec.hidden;
        let mut of_teacher = (0, 0);
        for (number, (teacher, _)) in self.pairs().enumerate() {
            let other = self.teachers[teacher].spec.hidden;
            // (teacher, number of its first pair)
            if of_teacher.0 != teacher {
                of_teacher = (teacher, number);
            }
            if own != other {
                let seed = self.settings.seed ^ (number as u64 + 1) << 32;
                let random = || normals(seed, own * other, 1.0 / (own as f64).sqrt());
                let given = self.teachers[teacher].projections.get(number - of_teacher.1).cloned();
                parameters.insert(TrainedId::Projection(number as u16), given.unwrap_or_else(random));
            }
        }
    }

    /// Every pair of hidden states that is compared, teacher after teacher: the teacher's number, and the pair.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, (usize, usize))> + '_ {
        let teachers = self.teachers.iter().enumerate();
        teachers.flat_map(|(number, teacher)| teacher.pairs.iter().map(move |pair| (number, *pair)))
    }

    fn step(
        &self,
        state: &mut State,
        view: &View<'_>,
        operations: &mut Operations<'_>,
        steps: u64,
        saved: u64,
    ) -> Result<StepDone, TrainError> {
        let settings = self.settings;
        let own = self.on_policy.filter(|own| own.is_own(settings.seed, state.step));
        let mut now = settings.loss.at(state.step as f64 / steps as f64);
        if own.is_some() {
            // The student's own tokens are no targets.
            now.set(LossKind::CrossEntropy, 0.0);
        }
        let StepGradients { gradients, parts, tokens } = match self.privacy {
            Some(private) => self.private_gradients(private, state, (view, &now), operations, saved)?,
            None => {
                let pieces = match own {
                    Some(own) => own.pieces(&self.drawn(), view.seen(&state.parameters), state.step)?,
                    None => {
                        self.samples.pieces(self.spec, settings.seed, state.step, settings.batch, settings.pieces)?
                    }
                };
                self.trained_gradients(&pieces, state, (view, &now), operations, saved)?
            }
        };
        let norm = global_norm(&gradients);
        // Noise is not clipped again: its norm grows with the number of parameters.
        let clips = self.privacy.is_none() && norm > settings.clip;
        let scale = if clips { settings.clip / norm } else { 1.0 };
        let rate = settings.rate(state.step, steps);
        state.moments.update(&mut state.parameters, &gradients, scale, rate, settings.weight_decay, state.step);
        let share = (state.step + 1) as f64 / steps as f64;
        view.settle(&mut state.parameters, share);
        if let Some(fused) = operations.fused() {
            fused.reuse(gradients);
        }
        let mut line = json!({"step": state.step, "tokens": tokens});
        // A private step may have no samples.
        if tokens > 0 {
            line["loss"] = json!(parts.total);
            for (key, value) in parts.by_key(&now) {
                line[key] = value;
            }
        }
        if own.is_some() {
            line["on_policy"] = json!(true);
        }
        line["gradient_norm"] = json!(norm);
        line["learning_rate"] = json!(rate);
        state.log.push(line.to_string());
        Ok(StepDone { parts, tokens })
    }

    /// What decides the samples of its steps.
    fn drawn(&self) -> Drawn<'_> {
        let Settings { seed, batch, pieces, .. } = *self.settings;
        Drawn { spec: self.spec, samples: self.samples, seed, batch, pieces }
    }
}

/// Means over the last tenth of all steps, from the log, which is complete in a resumed run too.
fn mean_of_last(log: &[String]) -> MeanLosses {
    let tail = &log[log.len() - (log.len() / 10).clamp(log.len().min(1), log.len())..];
    let lines: Vec<Value> = tail.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    MeanLosses::of_lines(&lines)
}

struct StepDone {
    parts: LossParts,
    tokens: usize,
}

/// When a checkpoint is due: after some steps, and where these are long, after some time, of which saving may take a twentieth.
struct Pace {
    every: u64,
    /// Step of the last checkpoint.
    saved: u64,
    last: Instant,
    patience: Duration,
}

/// Most work that a killed run repeats, unless saving takes long.
const PATIENCE: Duration = Duration::from_secs(120);

impl Pace {
    fn new(every: u64, step: u64) -> Self {
        Pace { every, saved: step, last: Instant::now(), patience: PATIENCE }
    }

    fn due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every) || self.last.elapsed() >= self.patience
    }

    fn took(&mut self, step: u64, saving: Duration) {
        (self.saved, self.last, self.patience) = (step, Instant::now(), PATIENCE.max(20 * saving));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_after_steps_or_time() {
        let mut pace = Pace::new(100, 0);
        assert!(!pace.due(99) && pace.due(100));
        pace.patience = Duration::ZERO;
        assert!(pace.due(1));
        pace.took(1, Duration::from_secs(60));
        assert_eq!((pace.saved, pace.patience), (1, Duration::from_secs(1200)));
        assert!(!pace.due(2));
        pace.took(2, Duration::from_millis(10));
        assert_eq!(pace.patience, PATIENCE);
    }
}
