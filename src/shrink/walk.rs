//! Teacher and student side by side, layer by layer: the student's matrices are fitted on its own inputs, as they are with
//! everything before fitted already, to what the teacher has there. With B the kept directions of the residual stream, h the
//! stream and x the input of a matrix, of the teacher; h̃ and x̃ of the student:
//!
//! ```text
//! a matrix that is read by others      W̃ x̃ ≈ kept rows of W x
//! one that writes into the stream      h̃ + W̃ x̃ ≈ Bᵀ (h + W x), or Bᵀ of the stream before the next kept layer
//! one behind a norm of its own         W̃ x̃ ≈ Bᵀ W x
//! ```
//!
//! So errors that are in the stream are corrected by the next matrix that writes into it, and the last matrix before layers
//! that are left out takes over what is linear in them. Where the stream is narrower, the gain of each norm before its readers
//! is multiplied by the mean of rms(h̃) / rms(h), and that of a norm on sums or outputs is fitted channel by channel.

mod gains;
mod matrices;

use super::ShrinkError;
use super::least_squares::Fitted;
use super::slice::{Cut, Values};
use crate::calibrate::batches::Batches;
use crate::model::forward::{DenseWeights, Halted, StagedContext, StagedForward, Step, Unobserved};
use crate::model::graph::Graph;
use crate::model::id::{LinearId, NormSite, ParameterId, Part};
use crate::model::matrix::{from_rows, into_values};
use crate::model::spec::{Mixer, ModelSpec, NormPlacement};
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};
use ndarray::Array2;

/// The errors of one group of matrices of a student.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupFit {
    /// The first of them.
    pub matrix: String,
    /// Before and after.
    #[serde(flatten)]
    pub fitted: Fitted,
}

/// A walk.
pub(super) struct Walk<'w> {
    pub(super) cut: Cut<'w>,
    pub(super) sequences: &'w [Vec<u32>],
    pub(super) device: &'w Device,
    /// Whether matrices are fitted; gains always are.
    pub(super) refit: bool,
    pub(super) progress: &'w dyn Progress,
}

/// One of the two models over all batches.
struct Side {
    batches: Batches,
    states: Vec<Halted<Tensor<3>>>,
}

impl Side {
    fn each(&mut self, mut on: impl FnMut(Halted<Tensor<3>>, &StagedContext) -> Halted<Tensor<3>>) {
        let states = std::mem::take(&mut self.states).into_iter().zip(&self.batches.batches);
        self.states = states.map(|(halted, batch)| on(halted, self.batches.context(batch))).collect();
    }

    fn inputs(&self) -> Vec<Tensor<3>> {
        self.states.iter().map(|halted| halted.input.clone()).collect()
    }

    fn hidden(&self) -> Vec<Tensor<3>> {
        self.states.iter().map(|halted| halted.hidden.clone()).collect()
    }
}

/// Where a walk is.
pub(super) struct At<'a, 'w> {
    of: &'a Walk<'w>,
    teacher: Side,
    student: Side,
    pub(super) values: Values,
    pub(super) fits: Vec<GroupFit>,
}

impl Walk<'_> {
    /// Fits the student's values.
    pub(super) fn run(&self, values: Values) -> Result<(Values, Vec<GroupFit>), ShrinkError> {
        let (teacher, selection) = (self.cut.teacher, self.cut.selection);
        let around = DenseWeights::part(teacher, self.device, |id| id.layer().is_none())?;
        let of_teacher = self.start(&teacher.spec, &around)?;
        let around = self.weights(&values, None)?;
        let of_student = self.start(self.cut.spec, &around)?;
        let mut at = At { of: self, teacher: of_teacher, student: of_student, values, fits: Vec::new() };
        self.progress.begin("fitting the student", selection.layers.len() as u64 + 1, "layers");
        if self.cut.spec.embedding_norm.is_some() && at.narrower() {
            at.fit_channels(None, NormSite::Embedding, &at.teacher.hidden(), &at.student.hidden())?;
            let around = self.weights(&at.values, None)?;
            at.student = self.start(self.cut.spec, &around)?;
        }
        let mut next = 0;
        for (place, kept) in selection.layers.iter().enumerate() {
            at.skip(next..kept.of)?;
            let after = selection.layers.get(place + 1).map_or(teacher.spec.layers.len(), |next| next.of);
            at.layer(place, kept.of, after)?;
            next = after;
            self.progress.advance(1);
        }
        at.head()?;
        self.progress.advance(1);
        self.progress.finish();
        Ok((at.values, at.fits))
    }

    /// The student's weights of a layer, or those around the layers.
    pub(super) fn weights(&self, values: &Values, layer: Option<usize>) -> Result<DenseWeights, ShrinkError> {
        let wanted = |id: ParameterId| id.layer().map(usize::from) == layer;
        let value = |id: ParameterId| values.get(&id).cloned().ok_or(ShrinkError::NoValue(id));
        DenseWeights::selected(self.cut.spec, self.device, wanted, value)
    }

    fn start(&self, spec: &ModelSpec, around: &DenseWeights) -> Result<Side, ShrinkError> {
        let forward = StagedForward::new(spec, around, self.device);
        let batches = Batches::new(spec, self.sequences, &forward)?;
        let embedded = batches.batches.iter().map(|batch| forward.embed(batch));
        let states = embedded.map(|hidden| Halted { input: hidden.clone(), hidden }).collect();
        Ok(Side { batches, states })
    }

    /// A matrix of the teacher in the place of a student's, with its bias: the kept rows, all columns.
    fn teachers(&self, id: LinearId) -> Result<(Array2<f32>, Option<Vec<f32>>), ShrinkError> {
        let of = |part| self.cut.teachers(ParameterId::Linear(id, part));
        let ParameterId::Linear(own, _) = of(Part::Weight) else { unreachable!("a matrix stands for a matrix") };
        let matrix = self.cut.rows_of(id, self.cut.teacher.matrix(own)?);
        let bias = match self.cut.spec.has_bias(id) {
            true => {
                let values = self.cut.teacher.values_f32(of(Part::Bias))?;
                Some(into_values(self.cut.rows_of(id, from_rows(values, 1))))
            }
            false => None,
        };
        Ok((matrix, bias))
    }
}

impl At<'_, '_> {
    /// Whether the residual stream is narrower.
    pub(super) fn narrower(&self) -> bool {
        !self.of.cut.selection.hidden.is_whole()
    }

    /// The teacher alone, through layers that are left out.
    fn skip(&mut self, layers: std::ops::Range<usize>) -> Result<(), ShrinkError> {
        let (model, device) = (self.of.cut.teacher, self.of.device);
        for layer in layers {
            let weights = DenseWeights::part(model, device, |id| id.layer() == Some(layer as u16))?;
            let forward = StagedForward::new(&model.spec, &weights, device);
            self.teacher.each(|halted, context| {
                let hidden = forward.block(layer, halted.hidden, context);
                Halted { input: hidden.clone(), hidden }
            });
        }
        Ok(())
    }

    /// Layer `place` of the student, which is layer `of` of the teacher; the teacher goes on to layer `after`.
    fn layer(&mut self, place: usize, of: usize, after: usize) -> Result<(), ShrinkError> {
        let walk = self.of;
        let (model, spec, device) = (walk.cut.teacher, walk.cut.spec, walk.device);
        let layer = &spec.layers[place];
        let placement = layer.norm_placement;
        let weights = DenseWeights::part(model, device, |id| id.layer() == Some(of as u16))?;
        let of_teacher = StagedForward::new(&model.spec, &weights, device);
        let first = match layer.mixer {
            Mixer::Attention(_) => NormSite::Attention,
            Mixer::Conv(_) => NormSite::Conv,
        };
        if placement.is_before_mixer() {
            self.scale_gain(Some(place), first, layer.norm)?;
        }
        self.teacher.each(|halted, context| of_teacher.enter(of, halted.hidden, context));
        {
            let weights = walk.weights(&self.values, Some(place))?;
            let forward = StagedForward::new(spec, &weights, device);
            self.student.each(|halted, context| forward.enter(place, halted.hidden, context));
        }
        let inputs = Graph::new(spec).layers.swap_remove(place);
        for (step, input) in Step::ALL.into_iter().zip(&inputs) {
            let before = self.student.states.clone();
            match step {
                Step::Mix | Step::Cross | Step::Ffn => {
                    self.readers(&input.ids(), &self.teacher.inputs(), &self.student.inputs())?;
                    self.teacher.each(|h, context| of_teacher.step(of, step, h, context, &mut Unobserved));
                    self.step(place, step, before)?;
                }
                Step::MixOutput | Step::CrossOutput | Step::FfnOutput => {
                    let teacher_before = self.teacher.states.clone();
                    self.teacher.each(|h, context| of_teacher.step(of, step, h, context, &mut Unobserved));
                    let last = step == Step::FfnOutput;
                    // Layers that are left out are taken over by what writes the stream before them.
                    let takes_over = last && after > of + 1 && placement == NormPlacement::Pre;
                    if last {
                        self.skip(of + 1..after)?;
                    }
                    let later = takes_over.then(|| self.teacher.hidden());
                    self.writer(input, placement, &teacher_before, later)?;
                    self.step(place, step, before.clone())?;
                    let site = if last { NormSite::Ffn } else { first };
                    self.after_sum(place, step, site, before, &teacher_before, last && after > of + 1)?;
                }
            }
        }
        Ok(())
    }

    /// A step of the student from given states.
    fn step(&mut self, place: usize, step: Step, before: Vec<Halted<Tensor<3>>>) -> Result<(), ShrinkError> {
        let walk = self.of;
        let weights = walk.weights(&self.values, Some(place))?;
        let forward = StagedForward::new(walk.cut.spec, &weights, walk.device);
        self.student.states = before;
        self.student.each(|halted, context| forward.step(place, step, halted, context, &mut Unobserved));
        Ok(())
    }

    /// Gains of the norms that a sum goes through, or that its next reader has, where the stream is narrower.
    fn after_sum(
        &mut self,
        place: usize,
        step: Step,
        site: NormSite,
        before: Vec<Halted<Tensor<3>>>,
        teacher_before: &[Halted<Tensor<3>>],
        skipped: bool,
    ) -> Result<(), ShrinkError> {
        if !self.narrower() {
            return Ok(());
        }
        let layer = self.of.cut.spec.layers[place];
        match layer.norm_placement {
            NormPlacement::Pre | NormPlacement::Beside | NormPlacement::Common | NormPlacement::Network => {}
            // The teacher is layers further: there is nothing to compare with.
            _ if skipped => {}
            NormPlacement::Post => {
                self.fit_channels(Some(place), site, &self.teacher.hidden(), &self.student.hidden())?;
                self.step(place, step, before.clone())?;
            }
            NormPlacement::Around | NormPlacement::Added => {
                let output = if step == Step::FfnOutput { NormSite::FfnOutput } else { NormSite::AttentionOutput };
                let added = |after: &[Halted<Tensor<3>>], before: &[Halted<Tensor<3>>]| -> Vec<Tensor<3>> {
                    after.iter().zip(before).map(|(a, b)| a.hidden.clone() - b.hidden.clone()).collect()
                };
                let (teacher, student) =
                    (added(&self.teacher.states, teacher_before), added(&self.student.states, &before));
                self.fit_channels(Some(place), output, &teacher, &student)?;
                self.step(place, step, before.clone())?;
            }
        }
        let of_network = layer.norm_placement != NormPlacement::Common;
        if step == Step::MixOutput && layer.norm_placement.is_before_network() && of_network {
            self.scale_gain(Some(place), NormSite::Ffn, layer.norm)?;
            self.step(place, step, before)?;
        }
        Ok(())
    }

    pub(super) fn walk(&self) -> &Walk<'_> {
        self.of
    }

    /// The finished states of both, as the head reads them.
    pub(super) fn finished(&self) -> Result<[Vec<Tensor<3>>; 2], ShrinkError> {
        let walk = self.of;
        let around = DenseWeights::part(walk.cut.teacher, walk.device, |id| id.layer().is_none())?;
        let forward = StagedForward::new(&walk.cut.teacher.spec, &around, walk.device);
        let teacher = self.teacher.hidden().into_iter().map(|hidden| forward.head_input(hidden)).collect();
        let around = walk.weights(&self.values, None)?;
        let forward = StagedForward::new(walk.cut.spec, &around, walk.device);
        let student = self.student.hidden().into_iter().map(|hidden| forward.head_input(hidden)).collect();
        Ok([teacher, student])
    }
}
