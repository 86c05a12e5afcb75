//! The training loop: for every step, micro-batches through teacher and student, gradients summed in the order of the
//! micro-batches, clipped, and one AdamW update. A loss or gradient that is not finite stops the run, names the step
//! and the tensor, and leaves the last checkpoint in place.

use super::checkpoint::{self, State};
use super::data::{Piece, Samples};
use super::error::TrainError;
use super::fused::Fused;
use super::gradients::StepGradients;
use super::loss::plain::{Compared, loss};
use super::loss::table::{Against, LossKind, LossParts};
use super::memory::TrainingNeed;
use super::on_policy::{Drawn, OnPolicy};
use super::optimizer::{Gradients, Moments, global_norm};
use super::parameters::{Leaves, Parameters, TrainedId, normals};
use super::privacy::Private;
use super::scope::Scope;
use super::settings::Settings;
use super::teacher_cache::TeacherCache;
use super::view::View;
use crate::model::forward::{DenseWeights, Forward, Observer, Unobserved, WeightSource};
use crate::model::id::{LinearId, ParameterId};
use crate::model::spec::{Head, ModelSpec};
use crate::model::transform::Transform;
use crate::progress::Progress;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

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
    pub last: LossParts,
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
        self.settings.check()?;
        let of_teacher = self.settings.loss.used().find(|def| def.against != Against::Targets);
        let taught = !self.teachers.is_empty() || self.cache.is_some();
        if let (Some(def), false) = (of_teacher, taught) {
            return Err(TrainError::NoTeacher { option: def.option });
        }
        if self.samples.is_empty() {
            return Err(TrainError::NoSamples);
        }
        let mut fused = Fused::new(self)?;
        if self.settings.recompute && fused.is_none() {
            return Err(TrainError::Recompute);
        }
        if self.cache.is_some() && fused.is_none() {
            return Err(TrainError::PlainCache);
        }
        if self.settings.loss.uses(LossKind::Relations) && fused.is_none() {
            return Err(TrainError::PlainRelations);
        }
        let need = self.need(transform, fused.is_some());
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
        let every = self.settings.checkpoint_every;
        let mut saved = state.step;
        progress.begin("training", steps, "steps");
        progress.advance(state.step);
        let (mut tokens, started) = (0usize, Instant::now());
        while state.step < steps {
            let done = self.step(&mut state, &view, fused.as_mut(), steps, saved)?;
            tokens += done.tokens;
            state.step += 1;
            if state.step.is_multiple_of(SETTLE_EVERY) {
                slm_numerics::scratch::settle();
            }
            progress.advance(1);
            let speed = tokens as f64 / started.elapsed().as_secs_f64();
            progress.figures(&format_args!("loss {:.4}, {speed:.0} tokens/s", done.parts.total));
            if state.step.is_multiple_of(every) && state.step < steps {
                checkpoint::save(&checkpoint_path, &self.fingerprint, &state)?;
                saved = state.step;
                progress.saved(saved);
            }
        }
        progress.finish();
        slm_numerics::scratch::forget();
        let last = mean_of_last(&state.log);
        let (parameters, adapters) = view.finish(state.parameters);
        Ok(Trained { parameters, adapters, steps, resumed: from, last, log: state.log })
    }

    /// Has the teachers say of every sample of the run what the file lacks.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn fill(&self, cache: &TeacherCache, progress: &dyn Progress) -> Result<(), TrainError> {
        let drawn = self.samples.drawn(self.settings.seed, steps(self.samples, self.settings), self.settings.batch);
        let missing = cache.missing(&drawn)?;
        if missing.is_empty() {
            return Ok(());
        }
        let of_text = (missing.as_slice(), self.shared_tokens, self.settings.loss.temperature);
        cache.fill((self.samples, self.spec), &self.teachers, of_text, progress)
    }

    fn need(&self, transform: &dyn Transform, fused: bool) -> TrainingNeed<'_> {
        let longest = self.samples.longest();
        TrainingNeed {
            student: self.spec,
            scope: self.scope,
            private: self.privacy.is_some(),
            teachers: self.teachers.iter().map(|teacher| teacher.spec).collect(),
            settings: self.settings,
            longest,
            transformed: self.spec.matrices().iter().any(|(id, ..)| transform.changes(*id)),
            fused,
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
        mut fused: Option<&mut Fused>,
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
            Some(private) => self.private_gradients(private, state, (view, &now), fused.as_deref_mut(), saved)?,
            None => {
                let pieces = match own {
                    Some(own) => own.pieces(&self.drawn(), view.seen(&state.parameters), state.step)?,
                    None => {
                        self.samples.pieces(self.spec, settings.seed, state.step, settings.batch, settings.pieces)?
                    }
                };
                self.trained_gradients(&pieces, state, (view, &now), fused.as_deref_mut(), saved)?
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
        if let Some(fused) = fused {
            fused.reuse(gradients);
        }
        let mut line = json!({"step": state.step, "tokens": tokens});
        // A private step may have no samples.
        if tokens > 0 {
            line["loss"] = json!(parts.total);
            for (key, value) in parts.by_key(&settings.loss) {
                line[key] = value;
            }
        }
        if own.is_some() {
            // A cross entropy that nobody computed is no 0.
            if let Some(line) = line.as_object_mut() {
                line.shift_remove("cross_entropy");
            }
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

    /// Gradients of all micro-batches by burn's own operations, each on its own thread with its own copy of the weights,
    /// summed in their order; and the loss.
    pub(super) fn gradients(
        &self,
        seen: &Parameters,
        pieces: &[Piece],
        now: &LossParts,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let rows: usize = pieces.iter().map(|piece| piece.rows.len()).sum();
        let share = |piece: &Piece| piece.rows.len() as f64 / rows.max(1) as f64;
        let computed: Vec<(Gradients, LossParts)> =
            pieces.par_iter().map(|piece| self.piece(piece, seen, share(piece), now)).collect::<Result<_, _>>()?;
        let mut parts = LossParts::default();
        let mut gradients = Gradients::new();
        for (piece, (piece_gradients, piece_parts)) in pieces.iter().zip(computed) {
            parts.add(&piece_parts, share(piece));
            for (id, values) in piece_gradients {
                match gradients.get_mut(&id) {
                    Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                    None => {
                        gradients.insert(id, values);
                    }
                }
            }
        }
        Ok((gradients, parts))
    }

    /// Gradients of `share` times a micro-batch's loss, and the loss.
    fn piece(
        &self,
        piece: &Piece,
        seen: &Parameters,
        share: f64,
        now: &LossParts,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let recording = self.device.clone().autodiff();
        let needs = |id| self.scope.needs_gradient(id);
        let leaves = Leaves::new(self.spec, seen, needs, &recording);
        let keep = now.has(Against::States);
        let mut forward = Forward::new(self.spec, &leaves, &recording);
        if keep {
            forward = forward.keep_hidden_states();
        }
        let student = forward.run(&piece.batch, &mut Unobserved);
        let mut compared = Compared {
            logits: self.select(student.logits, piece, &recording),
            teacher_logits: Vec::new(),
            shared_tokens: self.shared_tokens,
            hidden: Vec::new(),
            targets: piece.targets.clone(),
        };
        let asked = keep || now.has(Against::Logits);
        let mut pairs = 0;
        for teacher in self.teachers.iter().filter(|_| asked) {
            let mut forward = Forward::new(teacher.spec, teacher.weights, self.device);
            if keep {
                forward = forward.keep_hidden_states();
            }
            let answers = forward.run(&piece.batch, &mut Unobserved);
            if now.has(Against::Logits) {
                let logits = Tensor::from_inner(self.select(answers.logits, piece, self.device));
                compared.teacher_logits.push((logits, teacher.part));
            }
            if keep {
                let states = [student.hidden_states.as_slice(), &answers.hidden_states];
                compared.hidden.extend(self.hidden((teacher, pairs), piece, &leaves, states, &recording));
            }
            pairs += teacher.pairs.len();
        }
        let (total, parts) = loss(&compared, &self.settings.loss, now, &recording).map_err(TrainError::Device)?;
        let recorded = (total * share).backward();
        Ok((leaves.gradients(&recorded).map_err(TrainError::Device)?, parts))
    }

    /// The rows of the logits that have targets, (rows, width).
    fn select(&self, logits: Tensor<3>, piece: &Piece, device: &Device) -> Tensor<2> {
        let [batch, length, width] = logits.dims();
        let flat = logits.reshape([batch * length, width]);
        if piece.rows.len() == batch * length {
            return flat;
        }
        let rows = TensorData::new(piece.rows.clone(), [piece.rows.len()]);
        flat.select(0, Tensor::<1, Int>::from_data(rows, device))
    }

    /// Hidden states of the mapped layers, without padding; the student's are projected to the teacher's width.
    /// `first` is the number of the teacher's first pair among those of all.
    fn hidden(
        &self,
        (teacher, first): (&Teacher<'_>, usize),
        piece: &Piece,
        leaves: &Leaves,
        [own, other]: [&[Tensor<3>]; 2],
        recording: &Device,
    ) -> Vec<(Tensor<2>, Tensor<2>)> {
        let kept: Option<Vec<i32>> = piece.batch.mask().map(|mask| {
            let rows = mask.iter().enumerate().filter(|(_, there)| **there);
            rows.map(|(row, _)| row as i32).collect()
        });
        let flat = |states: &Tensor<3>, device: &Device| {
            let [batch, length, width] = states.dims();
            let flat = states.clone().reshape([batch * length, width]);
            match &kept {
                Some(rows) => {
                    let rows = TensorData::new(rows.clone(), [rows.len()]);
                    flat.select(0, Tensor::<1, Int>::from_data(rows, device))
                }
                None => flat,
            }
        };
        let pair = |(number, &(student, of)): (usize, &(usize, usize))| {
            let mut states = flat(&own[student], recording);
            if let Some(projection) = leaves.projection((first + number) as u16) {
                states = states.matmul(projection);
            }
            (states, Tensor::from_inner(flat(&other[of], self.device)))
        };
        teacher.pairs.iter().enumerate().map(pair).collect()
    }

    /// The first tensor of a forward that is not finite, by name.
    pub(super) fn first_not_finite(&self, seen: &Parameters, piece: &Piece) -> String {
        if let Some((id, _)) = seen.iter().find(|(_, values)| values.iter().any(|value| !value.is_finite())) {
            return id.to_string();
        }
        let leaves = Leaves::new(self.spec, seen, |_| true, &self.device.clone().autodiff());
        let mut finder = Finder(None);
        Forward::new(self.spec, &leaves as &dyn WeightSource, &self.device.clone().autodiff())
            .run(&piece.batch, &mut finder);
        match (finder.0, &self.spec.head) {
            (Some(id), _) => format!("the input of {id}"),
            (None, Head::Hidden) => "the hidden states".to_owned(),
            (None, _) => "the logits".to_owned(),
        }
    }
}

/// Means over the last tenth of all steps, from the log, which is complete in a resumed run too.
fn mean_of_last(log: &[String]) -> LossParts {
    let tail = &log[log.len() - (log.len() / 10).clamp(log.len().min(1), log.len())..];
    let mut last = LossParts::default();
    let lines: Vec<serde_json::Value> = tail.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // A private step without samples has no loss.
    let lines: Vec<serde_json::Value> = lines.into_iter().filter(|line| line["loss"].is_number()).collect();
    for line in &lines {
        last.add(&LossParts::of_line(line), 1.0 / lines.len() as f64);
    }
    last
}

struct StepDone {
    parts: LossParts,
    tokens: usize,
}

/// The first matrix whose input is not finite.
struct Finder(Option<LinearId>);

impl Observer for Finder {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        let finite = || input.to_data().try_to_vec::<f32>().is_ok_and(|values| values.iter().all(|v| v.is_finite()));
        if self.0.is_none() && !finite() {
            self.0 = Some(id);
        }
    }
}
