//! Gradients of a step by burn's own operations: on devices without fused ones, where all micro-batches run side by side, and on
//! workers, each of which has its copy of the teachers and gets the student's weights once a step. Either way the gradients are
//! read back and summed here in the order of the micro-batches, so the sums are the same bits for any number of workers.

use super::data::Piece;
use super::error::TrainError;
use super::loss::plain::{Compared, exit_loss, loss};
use super::loss::table::{Against, LossKind, LossParts};
use super::optimizer::Gradients;
use super::parameters::{Leaves, Parameters, Uploaded};
use super::trainer::{Run, Teacher};
use crate::model::forward::{Batch, DenseWeights, Forward, Observer, Unobserved, WeightSource};
use crate::model::id::LinearId;
use crate::model::spec::Head;
use crate::progress::Progress;
use crate::workers::pool::{Failure, InOrder, TurnError, Workers};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// What computes the pieces of a run on other machines.
pub(super) struct OnWorkers<'w> {
    workers: &'w Workers,
    /// The teachers' weights on the device of every worker.
    teachers: Vec<Vec<DenseWeights>>,
    progress: &'w dyn Progress,
}

impl<'w> OnWorkers<'w> {
    /// Gives every worker the teachers.
    pub(super) fn new(run: &Run<'_>, workers: &'w Workers, progress: &'w dyn Progress) -> Self {
        let (all, pieces) = (workers.all().len(), run.settings.pieces.min(run.settings.batch));
        if pieces < all {
            progress.warn(&format_args!(
                "a step has {pieces} pieces and there are {all} workers, so that {} have nothing to do; more --pieces give them \
                 some, and other bits",
                all - pieces
            ));
        }
        let copies = |device: &Device| run.teachers.iter().map(|teacher| teacher.weights.copied_to(device)).collect();
        let teachers = workers.all().iter().map(|worker| copies(&worker.device)).collect();
        OnWorkers { workers, teachers, progress }
    }

    /// Number of workers.
    pub(super) fn count(&self) -> usize {
        self.workers.all().len()
    }
}

/// Where a piece is computed.
struct Place<'p> {
    /// Without gradients.
    device: &'p Device,
    /// The student as the forward sees it.
    student: &'p Uploaded,
    /// Every teacher's weights.
    teachers: Vec<&'p DenseWeights>,
}

/// The sum over pieces, added in their order.
#[derive(Default)]
struct Sum {
    gradients: Gradients,
    parts: LossParts,
}

impl Sum {
    fn add(&mut self, (gradients, parts): (Gradients, LossParts), share: f64) {
        self.parts.add(&parts, share);
        for (id, values) in gradients {
            match self.gradients.get_mut(&id) {
                Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                None => {
                    self.gradients.insert(id, values);
                }
            }
        }
    }
}

/// Every piece's share of the rows of all.
fn shares(pieces: &[Piece]) -> Vec<f64> {
    let rows: usize = pieces.iter().map(|piece| piece.rows.len()).sum();
    pieces.iter().map(|piece| piece.rows.len() as f64 / rows.max(1) as f64).collect()
}

impl Run<'_> {
    /// Gradients of all micro-batches on the run's device, each on a thread of its own, and the loss.
    pub(super) fn gradients(
        &self,
        seen: &Parameters,
        pieces: &[Piece],
        now: &LossParts,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let (student, shares) = (Uploaded::new(self.spec, seen, self.device), shares(pieces));
        let teachers = || self.teachers.iter().map(|teacher| teacher.weights).collect();
        let one = |(piece, share): (&Piece, &f64)| {
            let place = Place { device: self.device, student: &student, teachers: teachers() };
            self.piece(piece, &place, *share, now)
        };
        let computed: Vec<(Gradients, LossParts)> =
            pieces.par_iter().zip(&shares).map(one).collect::<Result<_, _>>()?;
        let mut sum = Sum::default();
        for (computed, share) in computed.into_iter().zip(&shares) {
            sum.add(computed, *share);
        }
        Ok((sum.gradients, sum.parts))
    }

    /// Gradients of all micro-batches on workers in turn, and the loss. `saved` is the step of the last checkpoint.
    pub(super) fn gradients_on(
        &self,
        on: &OnWorkers<'_>,
        seen: &Parameters,
        (pieces, now): (&[Piece], &LossParts),
        saved: u64,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let (shares, sum) = (shares(pieces), Mutex::new((InOrder::default(), Sum::default())));
        let workers = on.workers.all();
        let ended = on.workers.in_turn(
            pieces.len(),
            |worker| Uploaded::new(self.spec, seen, &workers[worker].device),
            |worker, student, piece| {
                let teachers = on.teachers[worker].iter().collect();
                let place = Place { device: &workers[worker].device, student, teachers };
                let computed = match self.piece(&pieces[piece], &place, shares[piece], now) {
                    Ok(computed) => computed,
                    Err(TrainError::Device(reason)) => return Err(Failure::Lost(reason)),
                    Err(error) => return Err(Failure::Other(error)),
                };
                let mut locked = sum.lock().unwrap_or_else(PoisonError::into_inner);
                let (order, sum) = &mut *locked;
                order.put(piece, computed, |piece, computed| sum.add(computed, shares[piece]));
                Ok(())
            },
            |warning| on.progress.warn(&warning),
        );
        match ended {
            Ok(()) => {
                let (_, sum) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok((sum.gradients, sum.parts))
            }
            Err(TurnError::NoneLeft(lost)) => Err(TrainError::NoWorkers { lost, checkpoint: saved }),
            Err(TurnError::Other(error)) => Err(error),
        }
    }

    /// Gradients of `share` times a micro-batch's loss, and the loss.
    fn piece(
        &self,
        piece: &Piece,
        place: &Place<'_>,
        share: f64,
        now: &LossParts,
    ) -> Result<(Gradients, LossParts), TrainError> {
        let recording = place.device.clone().autodiff();
        let leaves = place.student.record(|id| self.scope.needs_gradient(id));
        let keep = now.has(Against::States);
        let mut forward = Forward::new(self.spec, &leaves, &recording);
        if keep || now.has(Against::LastHead) {
            forward = forward.keep_hidden_states();
        }
        let student = forward.run(&piece.batch, &mut Unobserved);
        let exits = self.spec.exits.iter().filter(|_| now.has(Against::LastHead));
        let exits: Vec<Tensor<2>> = exits
            .map(|&layers| {
                let state = student.hidden_states[layers].clone();
                self.select(forward.exit(layers, state, &mut Unobserved), piece, &recording)
            })
            .collect();
        let mut compared = Compared {
            logits: self.select(student.logits, piece, &recording),
            teacher_logits: Vec::new(),
            shared_tokens: self.shared_tokens,
            hidden: Vec::new(),
            targets: piece.targets.clone(),
        };
        let asked = keep || now.has(Against::Logits);
        let mut pairs = 0;
        for (teacher, weights) in self.teachers.iter().zip(&place.teachers).filter(|_| asked) {
            let mut forward = Forward::new(teacher.spec, *weights, place.device);
            if keep {
                forward = forward.keep_hidden_states();
            }
            let answers = forward.run(&piece.batch, &mut Unobserved);
            if now.has(Against::Logits) {
                let logits = Tensor::from_inner(self.select(answers.logits, piece, place.device));
                compared.teacher_logits.push((logits, teacher.part));
            }
            if keep {
                let states = [student.hidden_states.as_slice(), &answers.hidden_states];
                compared.hidden.extend(self.hidden((teacher, pairs), piece, &leaves, states, place.device));
            }
            pairs += teacher.pairs.len();
        }
        let (mut total, mut parts) = loss(&compared, &self.settings.loss, now, &recording)?;
        if !exits.is_empty() {
            let (value, sum) = exit_loss(&compared, exits, &self.settings.loss, now, &recording)?;
            let weighted = value * now.get(LossKind::Exits);
            total = Some(match total {
                Some(sum) => sum + weighted,
                None => weighted,
            });
            parts.set(LossKind::Exits, sum);
            parts.weigh(now);
        }
        let recorded = (total.ok_or(TrainError::NoLoss)? * share).backward();
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
        device: &Device,
    ) -> Vec<(Tensor<2>, Tensor<2>)> {
        let recording = device.clone().autodiff();
        let present = |batch: &Batch| -> Option<Vec<i32>> {
            let rows = batch.mask()?.iter().enumerate().filter(|(_, there)| **there);
            Some(rows.map(|(row, _)| row as i32).collect())
        };
        let (kept, of_source) = (present(&piece.batch), piece.batch.source().and_then(present));
        let encoder = piece.batch.source().map(|_| self.spec.encoder_layers());
        let flat = |states: &Tensor<3>, kept: &Option<Vec<i32>>, device: &Device| {
            let [batch, length, width] = states.dims();
            let flat = states.clone().reshape([batch * length, width]);
            match kept {
                Some(rows) => {
                    let rows = TensorData::new(rows.clone(), [rows.len()]);
                    flat.select(0, Tensor::<1, Int>::from_data(rows, device))
                }
                None => flat,
            }
        };
        let pair = |(number, &(student, of)): (usize, &(usize, usize))| {
            let kept = if encoder.is_some_and(|last| student <= last) { &of_source } else { &kept };
            let mut states = flat(&own[student], kept, &recording);
            if let Some(projection) = leaves.projection((first + number) as u16) {
                states = states.matmul(projection);
            }
            (states, Tensor::from_inner(flat(&other[of], kept, device)))
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
