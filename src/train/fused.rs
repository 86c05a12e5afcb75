//! Gradients of a step on fused operations, for the flex device. The pieces go one after the other, each by all threads,
//! and share one copy of the weights and one of their gradients, which every operation adds to in place: a piece only bounds
//! how many activations are held at once. Weights that no transform changes are lent from the trained values, not copied.

use super::data::Piece;
use super::error::TrainError;
use super::loss::table::{Against, HiddenForm, LossKind, LossParts, LossWeights};
use super::optimizer::Gradients;
use super::parameters::{Parameters, TrainedId};
use super::relations::Relations;
use super::trainer::{Run, Teacher};
use super::view::{Lent, View, give_back};
use crate::model::forward::{Batch, FusedForward, FusedWeights, Observer, Unobserved, root_without_graph};
use crate::model::spec::{Head, ModelSpec};
use burn::tensor::Tensor;
use slm_fused::head::{Answers, Means, SampledRows, TeacherRows, Weighting, losses, sample};
use slm_fused::hidden::{Comparison, Form, distance};
use slm_fused::node::Value;
use slm_fused::relations::{Layout, Related, relations as relations_of};
use slm_fused::weights::{GradientSum, KeptTerms, Terms, Weight};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the steps of a run share.
pub(super) struct Fused {
    teachers: Vec<FusedWeights>,
    /// By teacher.
    relations: Vec<Option<Relations>>,
    /// Memory of the last step's gradients.
    memory: Gradients,
    /// Whether the gradients of this run may be sums of terms: until an operation was met that keeps none.
    pub(super) by_terms: bool,
}

impl Fused {
    /// For a run whose device and loss have fused operations: flex, and every loss but of hidden states taken for logits, which
    /// no command asks for.
    pub(super) fn new(run: &Run<'_>) -> Result<Option<Self>, TrainError> {
        let loss = &run.settings.loss;
        let compares_logits = loss.needs(Against::Targets) || loss.needs(Against::Logits);
        let on_flex = Value::of(Tensor::<1>::zeros([1], run.device)).is_some();
        if !on_flex || (compares_logits && matches!(run.spec.head, Head::Hidden)) {
            return Ok(None);
        }
        let teachers: Option<Vec<FusedWeights>> =
            run.teachers.iter().map(|teacher| FusedWeights::of(teacher.spec, teacher.weights)).collect();
        let relations = run.teachers.iter().map(|teacher| Relations::of(run.spec, teacher.spec, loss));
        let relations = relations.collect::<Result<_, _>>()?;
        Ok(teachers.map(|teachers| Fused { teachers, relations, memory: Gradients::new(), by_terms: true }))
    }

    /// Takes the gradients of a step back, once they were used: their memory serves the next.
    pub(super) fn reuse(&mut self, gradients: Gradients) {
        self.memory.extend(gradients);
    }

    /// Gradients of all pieces together, and the loss.
    pub(super) fn gradients(
        &mut self,
        run: &Run<'_>,
        parameters: &mut Parameters,
        view: &View<'_>,
        pieces: &[Piece],
        now: &LossParts,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let lent = view.lend(parameters);
        let trained = lent.iter().filter(|(_, lent)| lent.trained);
        let sums: BTreeMap<TrainedId, Arc<GradientSum>> = trained
            .map(|(id, _)| (*id, Arc::new(GradientSum::reusing(self.memory.remove(id).unwrap_or_default()))))
            .collect();
        let weight = |id: &TrainedId, lent: &Lent| match sums.get(id) {
            Some(sum) => Weight::trained(lent.values.clone(), sum.clone()),
            None => Weight::fixed(lent.values.clone()),
        };
        let rows: usize = pieces.iter().map(|piece| piece.rows.len()).sum();
        let shares: Vec<f64> = pieces.iter().map(|piece| piece.rows.len() as f64 / rows.max(1) as f64).collect();
        let result = self.run_pieces(run, &lent, &weight, (pieces, &shares), now);
        give_back(parameters, lent);
        let mut gradients = Gradients::new();
        for (id, sum) in sums {
            let Ok(sum) = Arc::try_unwrap(sum) else { continue };
            match sum.into_values() {
                (true, values) => gradients.insert(id, values),
                (false, memory) => self.memory.insert(id, memory),
            };
        }
        Ok((gradients, result?))
    }

    /// The terms of the gradients of a micro-batch whose samples have one row each, so that they can be summed sample by sample, and
    /// the mean loss.
    pub(super) fn terms(
        &self,
        run: &Run<'_>,
        parameters: &mut Parameters,
        view: &View<'_>,
        piece: &Piece,
        now: &LossParts,
    ) -> Result<(BTreeMap<TrainedId, Vec<Terms>>, LossParts), TrainError> {
        let lent = view.lend(parameters);
        let trained = lent.iter().filter(|(_, lent)| lent.trained);
        let kept: BTreeMap<TrainedId, Arc<KeptTerms>> = trained.map(|(id, _)| (*id, Arc::default())).collect();
        let weight = |id: &TrainedId, lent: &Lent| match kept.get(id) {
            Some(terms) => Weight::by_terms(lent.values.clone(), terms.clone()),
            None => Weight::fixed(lent.values.clone()),
        };
        // The gradient of every row as if it were alone.
        let share = piece.rows.len() as f64;
        let result = self.run_pieces(run, &lent, &weight, (std::slice::from_ref(piece), &[share]), now);
        give_back(parameters, lent);
        let mut parts = LossParts::default();
        parts.add(&result?, 1.0 / share.max(1.0));
        let unwrapped =
            kept.into_iter().filter_map(|(id, terms)| Some((id, Arc::try_unwrap(terms).ok()?.into_terms())));
        Ok((unwrapped.collect(), parts))
    }

    fn run_pieces(
        &self,
        run: &Run<'_>,
        lent: &BTreeMap<TrainedId, Lent>,
        weight: &dyn Fn(&TrainedId, &Lent) -> Weight,
        (pieces, shares): (&[Piece], &[f64]),
        now: &LossParts,
    ) -> Result<LossParts, TrainError> {
        let (mut weights, mut projections) = (BTreeMap::new(), BTreeMap::new());
        for (id, lent) in lent {
            let weight = weight(id, lent);
            match id {
                TrainedId::Parameter(id) => {
                    weights.insert(*id, weight);
                }
                TrainedId::Projection(pair) => {
                    projections.insert(*pair, weight);
                }
                // Seen as part of their matrix.
                TrainedId::AdapterA(_) | TrainedId::AdapterB(_) => {}
            }
        }
        let weights = FusedWeights::new(run.spec, weights);
        let mut parts = LossParts::default();
        for (piece, &share) in pieces.iter().zip(shares) {
            let student = Student { weights: &weights, projections: &projections };
            parts.add(&self.piece(run, &student, piece, share, now)?, share);
        }
        Ok(parts)
    }

    /// Adds the gradients of `share` times a piece's loss, and returns the loss.
    fn piece(
        &self,
        run: &Run<'_>,
        student: &Student<'_>,
        piece: &Piece,
        share: f64,
        now: &LossParts,
    ) -> Result<LossParts, TrainError> {
        let settings = &run.settings.loss;
        let keep = now.has(Against::States);
        let exits = now.has(Against::LastHead);
        let recording = run.device.clone().autodiff();
        let failed = || TrainError::Device("a graph of fused operations needs the flex device".to_owned());
        let root = Value::of(Tensor::<1>::zeros([1], &recording).require_grad()).ok_or_else(failed)?;
        let others = self.teachers(run, piece, now);
        let mut kept = Projected::of(self.relations.iter().flatten().map(|relations| relations.layers[0]), now);
        let forward = FusedForward::new(run.spec, student.weights, keep)
            .recomputing(run.settings.recompute)
            .with_exits(exits)
            .cut_below_trained(!now.has(Against::Projections));
        let states = forward.states(&piece.batch, &root, &mut kept);
        let mut parts = LossParts::default();
        let mut total: Option<Tensor<1>> = None;
        let mut add = |value: Value| {
            let value = value.into_tensor::<1>();
            total = Some(match total.take() {
                Some(sum) => sum + value,
                None => value,
            });
        };
        if keep {
            let rows = present_rows(&piece.batch);
            let of_source = piece.batch.source().and_then(present_rows);
            let encoder = piece.batch.source().map(|_| run.spec.encoder_layers());
            let pairs = run.pairs().count() as f64;
            for (number, (teacher, (own, other))) in run.pairs().enumerate() {
                let comparison = Comparison {
                    teacher: others[teacher].hidden_states[other].tensor(),
                    projection: student.projections.get(&(number as u16)).cloned(),
                    rows: if encoder.is_some_and(|last| own <= last) { of_source.clone() } else { rows.clone() },
                    form: form(settings),
                    factor: now.get(LossKind::Hidden) * share / pairs,
                };
                let (value, loss) = distance(&states.hidden_states[own], comparison);
                parts.set(LossKind::Hidden, parts.get(LossKind::Hidden) + loss / pairs);
                add(value);
            }
        }
        for ((plan, other), teacher) in self.relations.iter().zip(&others).zip(&run.teachers) {
            let (Some(plan), Some(other)) = (plan, &other.projected) else { continue };
            let own = kept.of_layer(plan.layers[0]).ok_or_else(failed)?;
            let related = Related {
                teacher: other.tensor(),
                widths: plan.widths[1],
                heads: plan.heads,
                factor: now.get(LossKind::Relations) * share * teacher.part,
            };
            let (value, loss) = relations_of(&own, layout(plan, &piece.batch, run.spec), &related);
            parts.set(LossKind::Relations, parts.get(LossKind::Relations) + loss * teacher.part);
            add(value);
        }
        drop((kept, states.hidden_states));
        let compares_logits = now.has(Against::Targets) || now.has(Against::Logits);
        let needs_head = (compares_logits || exits) && !piece.rows.is_empty();
        let head = forward.head().filter(|_| needs_head);
        let last = head.map(|head| (forward.head_rows(states.last, &piece.batch, &piece.rows, &mut Unobserved), head));
        if let Some((rows, head)) = last.as_ref().filter(|_| exits) {
            let weighting = of_exits(settings, now, share);
            let mut sum = 0.0;
            for (&layers, state) in run.spec.exits.iter().zip(&states.exits) {
                let own = forward.exit_rows(layers, state, &piece.batch, &piece.rows);
                let last = TeacherRows { rows: rows.tensor(), head: head.clone(), weight: 1.0 };
                let answers = Answers::Computed { teachers: vec![last], shared: None };
                let (value, means) =
                    losses(&own, &forward.exit_head(layers), &piece.targets, Some(&answers), weighting);
                sum += exit_parts(now)[0] * means.cross_entropy + exit_parts(now)[1] * means.divergence;
                add(value);
            }
            parts.set(LossKind::Exits, sum);
        }
        drop(states.exits);
        if let Some((rows, head)) = last.filter(|_| compares_logits) {
            let teachers: Vec<TeacherRows> = others.into_iter().filter_map(|other| other.answers).collect();
            let answers = match run.cache.filter(|_| now.has(Against::Logits)) {
                Some(cache) => Some(Answers::Sampled { rows: cache.rows(&piece.samples)?, shared: run.shared_tokens }),
                None => (!teachers.is_empty()).then_some(Answers::Computed { teachers, shared: run.shared_tokens }),
            };
            let (value, means) =
                losses(&rows, &head, &piece.targets, answers.as_ref(), weighting(settings, now, share));
            note(&means, &mut parts);
            add(value);
        }
        parts.weigh(now);
        if let Some(total) = total {
            total.backward();
        }
        Ok(parts)
    }

    /// What the losses of this step need of every teacher.
    fn teachers(&self, run: &Run<'_>, piece: &Piece, now: &LossParts) -> Vec<Taught> {
        let logits = now.has(Against::Logits) && run.cache.is_none();
        let asked = logits || now.has(Against::States) || now.has(Against::Projections);
        let all = run.teachers.iter().zip(&self.teachers).zip(&self.relations).filter(|_| asked);
        let one = |((teacher, weights), relations): ((&Teacher<'_>, &FusedWeights), &Option<Relations>)| {
            let forward = FusedForward::new(teacher.spec, weights, now.has(Against::States));
            let mut kept = Projected::of(relations.iter().map(|relations| relations.layers[1]), now);
            let states = forward.states(&piece.batch, &root_without_graph(), &mut kept);
            let answers = forward.head().filter(|_| logits).map(|head| {
                let rows = forward.head_rows(states.last, &piece.batch, &piece.rows, &mut Unobserved);
                TeacherRows { rows: rows.tensor(), head, weight: teacher.part }
            });
            let projected = relations.as_ref().and_then(|relations| kept.of_layer(relations.layers[1]));
            Taught { hidden_states: states.hidden_states, projected, answers }
        };
        all.map(one).collect()
    }
}

/// Ids drawn from what teachers say of a piece's rows, by a number in [0, 1) for each; tokens that all have, temperature, and ids
/// of a row.
pub(super) fn answers_of(
    teachers: &[Teacher<'_>],
    piece: &Piece,
    (shared, temperature, draws): (Option<usize>, f64, usize),
    uniforms: &[f64],
) -> Result<SampledRows, TrainError> {
    let mut all = Vec::new();
    for teacher in teachers {
        let weights = FusedWeights::of(teacher.spec, teacher.weights).ok_or(TrainError::PlainCache)?;
        let forward = FusedForward::new(teacher.spec, &weights, false);
        let states = forward.states(&piece.batch, &root_without_graph(), &mut Unobserved);
        let head = forward.head().ok_or(TrainError::PlainCache)?;
        let rows = forward.head_rows(states.last, &piece.batch, &piece.rows, &mut Unobserved).tensor();
        all.push(TeacherRows { rows, head, weight: teacher.part });
    }
    let shared = shared.or((all.len() > 1).then(|| teachers[0].spec.output_width()));
    let answers = Answers::Computed { teachers: all, shared };
    Ok(sample(&answers, piece.rows.len(), temperature, draws, uniforms))
}

/// The student's weights in a graph, and its projections to teachers' widths by the number of the pair.
struct Student<'s> {
    weights: &'s FusedWeights,
    projections: &'s BTreeMap<u16, Weight>,
}

/// What a teacher computed of a piece.
struct Taught {
    hidden_states: Vec<Value>,
    projected: Option<Value>,
    answers: Option<TeacherRows>,
}

/// Keeps what some layers project for attention.
struct Projected {
    layers: Vec<usize>,
    kept: BTreeMap<usize, Tensor<3>>,
}

impl Projected {
    /// Keeps these layers' projections, where the step compares relations.
    fn of(layers: impl Iterator<Item = usize>, now: &LossParts) -> Self {
        let asked = now.has(Against::Projections);
        Projected { layers: layers.filter(|_| asked).collect(), kept: BTreeMap::new() }
    }

    fn of_layer(&self, layer: usize) -> Option<Value> {
        self.kept.get(&layer).cloned().and_then(Value::of)
    }
}

impl Observer for Projected {
    fn sees_linears(&self) -> bool {
        false
    }

    fn sees_attention(&self) -> bool {
        false
    }

    fn sees_projected(&self, layer: usize) -> bool {
        self.layers.contains(&layer)
    }

    fn projected(&mut self, layer: usize, rows: Tensor<3>) {
        self.kept.insert(layer, rows);
    }
}

/// Where the student's projections lie in their rows.
fn layout(plan: &Relations, batch: &Batch, spec: &ModelSpec) -> Layout {
    let [sequences, length] = batch.dims();
    let present = batch.mask().map(|mask| Arc::new(mask.to_vec()));
    Layout { widths: plan.widths[0], sequences, length, present, causal: spec.causal }
}

fn form(settings: &LossWeights) -> Form {
    match settings.hidden_form {
        HiddenForm::Relative => Form::Relative,
        HiddenForm::Raw => Form::Raw,
        HiddenForm::Cosine => Form::Cosine,
    }
}

fn weighting(settings: &LossWeights, now: &LossParts, share: f64) -> Weighting {
    Weighting {
        cross_entropy: now.get(LossKind::CrossEntropy),
        smoothing: settings.smoothing,
        divergence: now.get(LossKind::Divergence),
        skew_divergence: now.get(LossKind::SkewDivergence),
        skew: settings.skew,
        reverse_divergence: now.get(LossKind::ReverseDivergence),
        logits: now.get(LossKind::Logits),
        temperature: settings.temperature,
        share,
    }
}

/// Parts of the cross entropy and of the divergence in the loss of an exit: halves, or the divergence alone where the run has
/// no targets.
pub(super) fn exit_parts(now: &LossParts) -> [f64; 2] {
    if now.has(Against::Targets) { [0.5, 0.5] } else { [0.0, 1.0] }
}

fn of_exits(settings: &LossWeights, now: &LossParts, share: f64) -> Weighting {
    let [cross_entropy, divergence] = exit_parts(now);
    Weighting {
        cross_entropy,
        smoothing: settings.smoothing,
        divergence,
        temperature: settings.temperature,
        share: share * now.get(LossKind::Exits),
        ..Weighting::NONE
    }
}

fn note(means: &Means, parts: &mut LossParts) {
    parts.set(LossKind::CrossEntropy, means.cross_entropy);
    parts.set(LossKind::Divergence, means.divergence);
    parts.set(LossKind::SkewDivergence, means.skew_divergence);
    parts.set(LossKind::ReverseDivergence, means.reverse_divergence);
    parts.set(LossKind::Logits, means.logits);
}

/// The rows that are not padding; `None` where all are.
fn present_rows(batch: &Batch) -> Option<Arc<Vec<usize>>> {
    let rows = |mask: &[bool]| mask.iter().enumerate().filter(|(_, there)| **there).map(|(row, _)| row).collect();
    batch.mask().map(|mask| Arc::new(rows(mask)))
}

#[cfg(test)]
mod tests;
