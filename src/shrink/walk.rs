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

use super::ShrinkError;
use super::least_squares::{Fitted, Residuals};
use super::slice::{Cut, Values};
use crate::calibrate::batches::{Batches, with_values};
use crate::model::forward::{DenseWeights, Halted, StagedContext, StagedForward, Step, Unobserved};
use crate::model::graph::{Graph, Input};
use crate::model::id::{LinearId, NormSite, ParameterId, Part};
use crate::model::matrix::{from_rows, into_values, row_major};
use crate::model::spec::{Mixer, ModelSpec, Norm, NormPlacement};
use crate::progress::Progress;
use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// The errors of one group of matrices of a student.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupFit {
    /// The first of them.
    pub matrix: String,
    /// Before and after.
    #[serde(flatten)]
    pub fitted: Fitted,
}

/// Relative squared errors that are the rounding of f32 and no error.
const ROUNDING: f64 = 1e-10;

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

    /// Matrices that share an input and do not write into the stream.
    pub(super) fn readers(
        &mut self,
        ids: &[LinearId],
        teacher: &[Tensor<3>],
        student: &[Tensor<3>],
    ) -> Result<(), ShrinkError> {
        if !self.of.refit || ids.is_empty() {
            return Ok(());
        }
        let targets: Vec<(Array2<f32>, Option<Vec<f32>>)> =
            ids.iter().map(|id| self.of.teachers(*id)).collect::<Result<_, _>>()?;
        let rows: Vec<usize> = targets.iter().map(|(matrix, _)| matrix.nrows()).collect();
        let (all, columns) = (rows.iter().sum::<usize>(), student.first().map_or(0, |input| input.dims()[2]));
        let bias = targets.iter().any(|(_, bias)| bias.is_some());
        let own = self.stacked(ids);
        let matrix: Vec<f32> = targets.iter().flat_map(|(matrix, _)| row_major(matrix.view()).to_vec()).collect();
        let bias_of = |(matrix, bias): &(Array2<f32>, Option<Vec<f32>>)| {
            bias.clone().unwrap_or_else(|| vec![0.0; matrix.nrows()])
        };
        let biases: Vec<f32> = targets.iter().flat_map(bias_of).collect();
        let mut residuals = Residuals::new(all, columns, bias);
        for (teacher, student) in teacher.iter().zip(student) {
            with_values(teacher, |x| {
                with_values(student, |changed| {
                    let mut target = outputs(x, &matrix, &biases);
                    let energy = energy(&target);
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy);
                })
            })??;
        }
        self.apply(ids, &rows, columns, &residuals)
    }

    /// A matrix that writes into the stream, from the teacher's states before its step; `later` is what the stream should be
    /// instead.
    fn writer(
        &mut self,
        input: &Input,
        placement: NormPlacement,
        teacher: &[Halted<Tensor<3>>],
        later: Option<Vec<Tensor<3>>>,
    ) -> Result<(), ShrinkError> {
        if !self.of.refit {
            return Ok(());
        }
        let (ids, basis) = (input.ids(), &self.of.cut.selection.hidden);
        let (matrix, bias) = self.of.teachers(ids[0])?;
        let rows = matrix.nrows();
        let own = self.stacked(&ids);
        let columns = self.student.states.first().map_or(0, |halted| halted.input.dims()[2]);
        let biases = bias.clone().unwrap_or_else(|| vec![0.0; rows]);
        let matrix = row_major(matrix.view()).to_vec();
        let mut residuals = Residuals::new(rows, columns, bias.is_some());
        let kept = |states: &Tensor<3>| {
            let width = states.dims()[2];
            with_values(states, |values| into_values(basis.columns(from_rows(values.to_vec(), width))))
        };
        for (number, (teacher, student)) in teacher.iter().zip(&self.student.states).enumerate() {
            let mut target = match &later {
                Some(later) => kept(&later[number])?,
                None => with_values(&teacher.input, |x| outputs(x, &matrix, &biases))?,
            };
            if !placement.is_on_added() {
                if later.is_none() {
                    add(&mut target, &kept(&teacher.hidden)?);
                }
                let energy_of_rest = with_values(&student.hidden, |hidden| {
                    target.iter_mut().zip(hidden).for_each(|(target, hidden)| *target -= hidden);
                    energy(&target)
                })?;
                with_values(&student.input, |changed| {
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy_of_rest);
                })?;
            } else {
                let energy = energy(&target);
                with_values(&student.input, |changed| {
                    subtract(&mut target, changed, &own);
                    residuals.add(changed, &target, energy);
                })?;
            }
        }
        self.apply(&ids, &[rows], columns, &residuals)
    }

    /// Matrices of the student one below the other, with their biases.
    fn stacked(&self, ids: &[LinearId]) -> Stacked {
        let mut stacked = Stacked { weights: Vec::new(), biases: Vec::new() };
        let columns = |id: &LinearId| self.of.cut.spec.matrices().into_iter().find(|(other, ..)| other == id);
        for id in ids {
            let Some((_, rows, _)) = columns(id) else { continue };
            stacked.weights.extend(self.values.get(&ParameterId::weight(*id)).into_iter().flatten());
            match self.values.get(&ParameterId::bias(*id)) {
                Some(bias) => stacked.biases.extend(bias),
                None => stacked.biases.extend(vec![0.0; rows]),
            }
        }
        stacked
    }

    /// Adds the change that the sums ask for.
    pub(super) fn apply(
        &mut self,
        ids: &[LinearId],
        rows: &[usize],
        inputs: usize,
        residuals: &Residuals,
    ) -> Result<(), ShrinkError> {
        let Some((delta, fitted)) = residuals.solve() else { return Ok(()) };
        let width = delta.len() / rows.iter().sum::<usize>().max(1);
        let mut first = 0;
        for (id, rows) in ids.iter().zip(rows) {
            let delta = delta[first * width..(first + rows) * width].chunks_exact(width);
            first += rows;
            let (weight, bias) = (ParameterId::weight(*id), ParameterId::bias(*id));
            for (row, delta) in delta.enumerate() {
                if let Some(values) = self.values.get_mut(&weight) {
                    let own = &mut values[row * inputs..][..inputs];
                    own.iter_mut().zip(delta).for_each(|(own, delta)| *own = (f64::from(*own) + delta) as f32);
                }
                if let (Some(values), Some(delta)) = (self.values.get_mut(&bias), delta.get(inputs)) {
                    values[row] = (f64::from(values[row]) + delta) as f32;
                }
            }
            let finite = |id: &ParameterId| self.values.get(id).into_iter().flatten().all(|value| value.is_finite());
            if let Some(id) = [weight, bias].iter().find(|id| !finite(id)) {
                return Err(ShrinkError::NotFinite(*id));
            }
        }
        if let Some(id) = ids.first().filter(|_| fitted.before > ROUNDING) {
            self.fits.push(GroupFit { matrix: id.to_string(), fitted });
        }
        Ok(())
    }

    /// Multiplies the gain of a norm before its readers by the mean of rms(h̃) / rms(h), of deviations where the norm takes
    /// the mean away; its offset then follows the means.
    pub(super) fn scale_gain(&mut self, place: Option<usize>, site: NormSite, norm: Norm) -> Result<(), ShrinkError> {
        if !self.narrower() {
            return Ok(());
        }
        let centred = norm.kind.is_centred();
        let (mut ratio, mut shift, mut tokens) = (0.0, 0.0, 0u64);
        for (teacher, student) in self.teacher.states.iter().zip(&self.student.states) {
            let (own, other) = (student.hidden.dims()[2], teacher.hidden.dims()[2]);
            with_values(&teacher.hidden, |teacher| {
                with_values(&student.hidden, |student| {
                    for (student, teacher) in student.chunks_exact(own).zip(teacher.chunks_exact(other)) {
                        let ((mean, spread), (mean_of_teacher, spread_of_teacher)) =
                            (spread(student, centred, norm.epsilon), spread(teacher, centred, norm.epsilon));
                        if spread_of_teacher > 0.0 {
                            ratio += spread / spread_of_teacher;
                            shift += (mean - mean_of_teacher) / spread_of_teacher;
                            tokens += 1;
                        }
                    }
                })
            })??;
        }
        if tokens == 0 {
            return Ok(());
        }
        let (ratio, shift) = (ratio / tokens as f64, shift / tokens as f64);
        let of = |part| ParameterId::Norm(place.map(|place| place as u16), site, part);
        if centred && let Some(gain) = self.values.get(&of(Part::Weight)).cloned() {
            let offset = self.values.entry(of(Part::Bias));
            offset.and_modify(|offset| {
                offset.iter_mut().zip(&gain).for_each(|(own, gain)| *own += gain * shift as f32);
            });
        }
        self.of.cut.scale_norm(&mut self.values, of(Part::Weight), ratio as f32);
        Ok(())
    }

    /// Fits the gain and offset of a norm channel by channel, so that its outputs are the teacher's in the kept channels:
    /// the output z becomes a z + b.
    pub(super) fn fit_channels(
        &mut self,
        place: Option<usize>,
        site: NormSite,
        teacher: &[Tensor<3>],
        student: &[Tensor<3>],
    ) -> Result<(), ShrinkError> {
        let walk = self.of;
        let width = walk.cut.spec.hidden;
        let of = |part| ParameterId::Norm(place.map(|place| place as u16), site, part);
        let has_offset = self.values.contains_key(&of(Part::Bias));
        let mut sums = vec![[0.0f64; 4]; width];
        let mut tokens = 0.0;
        for (teacher, student) in teacher.iter().zip(student) {
            let basis = &walk.cut.selection.hidden;
            let kept = with_values(teacher, |values| {
                into_values(basis.columns(from_rows(values.to_vec(), walk.cut.teacher.spec.hidden)))
            })?;
            with_values(student, |student| {
                for (z, y) in student.chunks_exact(width).zip(kept.chunks_exact(width)) {
                    for ((sums, z), y) in sums.iter_mut().zip(z).zip(y) {
                        let (z, y) = (f64::from(*z), f64::from(*y));
                        for (sum, value) in sums.iter_mut().zip([z, y, z * z, z * y]) {
                            *sum += value;
                        }
                    }
                    tokens += 1.0;
                }
            })?;
        }
        let fit = |[z, y, square, product]: [f64; 4]| {
            let (z, y) = if has_offset { (z / tokens, y / tokens) } else { (0.0, 0.0) };
            let (square, product) = (square / tokens - z * z, product / tokens - z * y);
            let slope = if square > 0.0 { product / square } else { 1.0 };
            (slope, y - slope * z)
        };
        let fits: Vec<(f64, f64)> = sums.into_iter().map(fit).collect();
        let added = if walk.cut.spec.counts_from_one(of(Part::Weight)) { 1.0 } else { 0.0 };
        self.values.entry(of(Part::Weight)).and_modify(|gain| {
            gain.iter_mut().zip(&fits).for_each(|(own, (slope, _))| {
                *own = ((f64::from(*own) + added) * slope - added) as f32;
            });
        });
        self.values.entry(of(Part::Bias)).and_modify(|offset| {
            offset.iter_mut().zip(&fits).for_each(|(own, (slope, shift))| {
                *own = (f64::from(*own) * slope + shift) as f32;
            });
        });
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

/// Matrices one below the other.
struct Stacked {
    weights: Vec<f32>,
    biases: Vec<f32>,
}

/// x Wᵀ + b, (tokens, rows).
fn outputs(inputs: &[f32], weights: &[f32], biases: &[f32]) -> Vec<f32> {
    let rows = biases.len();
    let columns = weights.len() / rows.max(1);
    let tokens = inputs.len() / columns.max(1);
    let mut out = vec![0.0; tokens * rows];
    let left = Left::Rows(Matrix::new(inputs, columns));
    multiply(Output::over(&mut out, rows), left, Right::Columns(Matrix::new(weights, columns)));
    for row in out.chunks_exact_mut(rows) {
        row.iter_mut().zip(biases).for_each(|(out, bias)| *out += bias);
    }
    out
}

/// Takes x Wᵀ + b from rows.
fn subtract(target: &mut [f32], inputs: &[f32], own: &Stacked) {
    let made = outputs(inputs, &own.weights, &own.biases);
    target.iter_mut().zip(made).for_each(|(target, made)| *target -= made);
}

fn add(target: &mut [f32], other: &[f32]) {
    target.iter_mut().zip(other).for_each(|(target, other)| *target += other);
}

fn energy(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum()
}

/// Mean (0 unless centred) and what a norm divides by: the root of the mean square about it and `epsilon`.
fn spread(row: &[f32], centred: bool, epsilon: f64) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = if centred { row.iter().map(|value| f64::from(*value)).sum::<f64>() / count } else { 0.0 };
    let square = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    (mean, (square + epsilon).sqrt())
}
