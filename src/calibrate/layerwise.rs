//! Changes a model layer by layer, with activations of the model as changed so far: matrices that read the same input
//! are passed on as a group with the second moments of that input ([`Moments`]), their new values replace the old ones,
//! and only then is the input of the next group computed (query, key, value; then output; gate, up; then down). The
//! original can run alongside, so that a change can target the original's outputs. Memory holds one layer's weights,
//! and the hidden states of all calibration tokens.

use super::lookups::sensitivity;
use super::moments::Moments;
use super::{CalibrateError, Collector, Statistics};
use crate::model::forward::{AttentionContext, Batch, DenseWeights, Forward, NoTaps, Tap};
use crate::model::graph::{Graph, Input, own_matrices};
use crate::model::id::{Class, LinearId, NormSite, ParameterId, Part, Role};
use crate::model::matrix::into_values;
use crate::model::spec::Head;
use crate::model::weights::Model;
use crate::progress::Progress;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array2;

/// New values of matrices, (rows, columns) each.
pub type Changed = Vec<(LinearId, Array2<f32>)>;

/// The change of every group of matrices.
pub trait Change {
    /// Why a change failed.
    type Error: From<CalibrateError>;

    /// Values of these matrices from an interrupted run; then no moments are taken.
    fn kept(&mut self, ids: &[LinearId]) -> Result<Option<Changed>, Self::Error>;

    /// New values for matrices that share an input, whose moments are `moments`; `None` for tables that are looked up.
    /// A matrix that is not returned stays unchanged. A tied token table is passed with the inputs of the head.
    fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, Self::Error>;
}

/// Inputs of a pass over the layers.
pub struct Layerwise<'a> {
    /// The model, dense.
    pub model: &'a Model,
    /// Calibration, each sequence run on its own.
    pub sequences: &'a [Vec<u32>],
    /// The device.
    pub device: &'a Device,
    /// Whether the original runs beside the changed model, for [`Moments::cross`].
    pub with_original: bool,
    /// Whether the moments of a decoder's token table include the sensitivity of its lookups (see [`super::lookups`]),
    /// which takes gradients through the whole model.
    pub with_lookups: bool,
}

/// Observer that keeps the inputs of some matrices.
struct Capture<'i> {
    wanted: &'i [LinearId],
    inputs: Vec<Option<Tensor<2>>>,
}

impl<'i> Capture<'i> {
    fn of(wanted: &'i [LinearId]) -> Self {
        Capture { wanted, inputs: vec![None; wanted.len()] }
    }
}

impl Tap for Capture<'_> {
    fn linear(&mut self, id: LinearId, input: &Tensor<2>) {
        if let Some(index) = self.wanted.iter().position(|wanted| *wanted == id) {
            self.inputs[index] = Some(input.clone());
        }
    }

    fn attention(&mut self, _layer: usize, _query: &Tensor<4>, _key: &Tensor<4>) {}
}

/// Sequences, and the attention context of every length.
struct Inputs {
    batches: Vec<Batch>,
    /// By length.
    contexts: Vec<(usize, AttentionContext)>,
}

impl Inputs {
    fn context(&self, batch: &Batch) -> &AttentionContext {
        let length = batch.dims()[1];
        let found = self.contexts.iter().find(|(of, _)| *of == length);
        &found.expect("every length has a context since the inputs were made").1
    }
}

/// One part of the model run over all sequences.
type Step<'s> = dyn Fn(&Forward<'_>, usize, Tensor<3>, &mut dyn Tap) -> Tensor<3> + 's;

impl Layerwise<'_> {
    /// Passes every group to `change`, in the order of [`Graph::groups`], and returns statistics of the changed model's
    /// activations.
    ///
    /// # Errors
    /// The errors of `change`, and [`CalibrateError`].
    pub fn run<C: Change>(&self, change: &mut C, progress: &dyn Progress, what: &str) -> Result<Statistics, C::Error> {
        let spec = &self.model.spec;
        let inputs = self.inputs()?;
        let graph = Graph::new(spec);
        let units = graph.groups().len() as u64 + u64::from(spec.tied_head()) * spec.layers.len() as u64;
        progress.begin(what, units, "steps");
        let mut collector = Collector::new(spec);
        collector.tokens = inputs.batches.iter().map(|batch| batch.tokens().len() as u64).sum();
        collector.sequences = inputs.batches.len() as u64;

        let mut of_embeddings = self.weights(embeds)?;
        let original = self.with_original.then(|| self.embed(&inputs, &of_embeddings));
        for table in &graph.tables {
            let ids = [table.id];
            let changed = match change.kept(&ids)? {
                Some(kept) => kept,
                None => {
                    let moments = match table.id.role {
                        Role::TokenEmbedding => self.moments_of_tokens(&inputs, &collector, progress)?,
                        _ => None,
                    };
                    change.change(&ids, moments)?
                }
            };
            self.replace(&mut of_embeddings, changed);
            progress.advance(1);
        }
        let mut states = States { original, changed: self.embed(&inputs, &of_embeddings) };
        drop(of_embeddings);

        for (layer, of_layer) in graph.layers.iter().enumerate() {
            let weights = self.weights(|id| id.layer() == Some(layer as u16))?;
            let step = |forward: &Forward<'_>, index: usize, hidden: Tensor<3>, tap: &mut dyn Tap| {
                forward.block(layer, hidden, inputs.context(&inputs.batches[index]), tap)
            };
            let groups: Vec<Vec<LinearId>> = of_layer.iter().map(Input::ids).collect();
            self.part(&groups, weights, &mut states, &step, change, &mut collector, progress)?;
        }

        let groups: Vec<Vec<LinearId>> = graph.head.iter().map(own_matrices).filter(|ids| !ids.is_empty()).collect();
        if !groups.is_empty() {
            let weights = self.weights(|id| id.layer().is_none())?;
            let step = |forward: &Forward<'_>, _: usize, hidden: Tensor<3>, tap: &mut dyn Tap| {
                forward.head(forward.finish(hidden), tap)
            };
            self.part(&groups, weights, &mut states, &step, change, &mut collector, progress)?;
        }
        progress.finish();
        match collector.failure.take() {
            Some(failure) => Err(CalibrateError::Device(failure).into()),
            None => Ok(collector.finish()),
        }
    }

    /// One layer, or the head: every group in turn, then the hidden states after it.
    #[expect(clippy::too_many_arguments, reason = "the state of the pass, which no other function shares")]
    fn part<C: Change>(
        &self,
        groups: &[Vec<LinearId>],
        weights: DenseWeights,
        states: &mut States,
        step: &Step<'_>,
        change: &mut C,
        collector: &mut Collector,
        progress: &dyn Progress,
    ) -> Result<(), C::Error> {
        let spec = &self.model.spec;
        let first_of: Vec<LinearId> = groups.iter().map(|ids| ids[0]).collect();
        // Inputs of the original model by sequence, one of each group; its hidden states move on at once.
        let mut originals: Vec<Vec<Option<Tensor<2>>>> = Vec::new();
        if let Some(hidden) = &mut states.original {
            let forward = Forward::new(spec, &weights, self.device);
            for (index, state) in hidden.iter_mut().enumerate() {
                let mut capture = Capture::of(&first_of);
                *state = step(&forward, index, state.clone(), &mut capture);
                originals.push(capture.inputs);
            }
        }
        let mut changed = weights;
        for (n, ids) in groups.iter().enumerate() {
            let new = match change.kept(ids)? {
                Some(kept) => kept,
                None => {
                    let forward = Forward::new(spec, &changed, self.device);
                    let mut moments: Option<Moments> = None;
                    for (index, state) in states.changed.iter().enumerate() {
                        let mut capture = Capture::of(&ids[..1]);
                        step(&forward, index, state.clone(), &mut capture);
                        let original = originals.get_mut(index).and_then(|inputs| inputs[n].take());
                        if let Some(input) = capture.inputs[0].take() {
                            let sums = moments.get_or_insert_with(|| Moments::new(input.dims()[1], original.is_some()));
                            sums.add(&input, original.as_ref()).map_err(|source| of_group(ids, source))?;
                        }
                    }
                    let moments = moments.ok_or(CalibrateError::Nothing)?;
                    moments.check().map_err(|source| of_group(ids, source))?;
                    change.change(ids, Some(moments))?
                }
            };
            self.replace(&mut changed, new);
            progress.advance(1);
        }
        let forward = Forward::new(spec, &changed, self.device);
        for (index, state) in states.changed.iter_mut().enumerate() {
            *state = step(&forward, index, state.clone(), collector);
        }
        Ok(())
    }

    /// Sequences checked against the model.
    fn inputs(&self) -> Result<Inputs, CalibrateError> {
        let spec = &self.model.spec;
        let weights = DenseWeights::part(self.model, self.device, |_| false)?;
        let forward = Forward::new(spec, &weights, self.device);
        let mut inputs = Inputs { batches: Vec::new(), contexts: Vec::new() };
        for sequence in self.sequences.iter().filter(|sequence| !sequence.is_empty()) {
            let batch = Batch::new(spec, sequence.clone(), 1)?;
            if !inputs.contexts.iter().any(|(length, _)| *length == sequence.len()) {
                inputs.contexts.push((sequence.len(), forward.context(&batch)));
            }
            inputs.batches.push(batch);
        }
        if inputs.batches.is_empty() { Err(CalibrateError::Nothing) } else { Ok(inputs) }
    }

    fn weights(&self, wanted: impl Fn(ParameterId) -> bool) -> Result<DenseWeights, CalibrateError> {
        Ok(DenseWeights::part(self.model, self.device, wanted)?)
    }

    fn embed(&self, inputs: &Inputs, weights: &DenseWeights) -> Vec<Tensor<3>> {
        let forward = Forward::new(&self.model.spec, weights, self.device);
        inputs.batches.iter().map(|batch| forward.embed(batch)).collect()
    }

    /// Moments for the token table: those of a tied head's inputs, and the sensitivity of its lookups.
    fn moments_of_tokens(
        &self,
        inputs: &Inputs,
        collector: &Collector,
        progress: &dyn Progress,
    ) -> Result<Option<Moments>, CalibrateError> {
        let spec = &self.model.spec;
        let head = if spec.tied_head() { Some(self.moments_of_head(inputs, progress)?) } else { None };
        if !(self.with_lookups && matches!(spec.head, Head::LanguageModel { .. })) {
            return Ok(head);
        }
        let lookups = sensitivity(self.model, self.sequences, collector.tokens, self.device, progress)?;
        let mut moments = head.unwrap_or_else(|| Moments::new(spec.hidden, false));
        moments.rows = collector.tokens;
        moments.gram += &lookups;
        Ok(Some(moments))
    }

    /// Moments of the inputs of a tied head: of the original model, since the table is changed before anything else.
    fn moments_of_head(&self, inputs: &Inputs, progress: &dyn Progress) -> Result<Moments, CalibrateError> {
        let spec = &self.model.spec;
        let mut hidden = self.embed(inputs, &self.weights(embeds)?);
        for layer in 0..spec.layers.len() {
            let weights = self.weights(|id| id.layer() == Some(layer as u16))?;
            let forward = Forward::new(spec, &weights, self.device);
            for (state, batch) in hidden.iter_mut().zip(&inputs.batches) {
                *state = forward.block(layer, state.clone(), inputs.context(batch), &mut NoTaps);
            }
            progress.advance(1);
        }
        let head = [LinearId::global(Role::LmHead)];
        let weights = self.weights(|id| id.layer().is_none())?;
        let forward = Forward::new(spec, &weights, self.device);
        let mut moments = Moments::new(spec.hidden, false);
        for state in hidden {
            let mut capture = Capture::of(&head);
            forward.head(forward.finish(state), &mut capture);
            if let Some(input) = capture.inputs[0].take() {
                moments.add(&input, None).map_err(|source| of_group(&head, source))?;
            }
        }
        moments.check().map_err(|source| of_group(&head, source))?;
        Ok(moments)
    }

    fn replace(&self, weights: &mut DenseWeights, changed: Changed) {
        for (id, values) in changed {
            let (rows, columns) = values.dim();
            let data = TensorData::new(into_values(values), [rows, columns]);
            weights.replace(id, Tensor::from_data(data, self.device));
        }
    }
}

/// Hidden states of all sequences, (1, length, hidden) each.
struct States {
    original: Option<Vec<Tensor<3>>>,
    changed: Vec<Tensor<3>>,
}

fn of_group(ids: &[LinearId], source: super::moments::MomentsError) -> CalibrateError {
    CalibrateError::Moments { id: ids[0], source }
}

/// Whether a parameter is one of the embeddings, their norm among them.
fn embeds(id: ParameterId) -> bool {
    match id {
        ParameterId::Linear(id, Part::Weight) => id.role.class() == Class::Embedding,
        ParameterId::Norm(_, site, _) => site == NormSite::Embedding,
        _ => false,
    }
}

/// Passes the input moments of every matrix of an unchanged dense model to `see`, group by group. Tables that are
/// looked up have none.
///
/// # Errors
/// The errors of `see`, and [`CalibrateError`].
pub fn each_group<E: From<CalibrateError>>(
    model: &Model,
    sequences: &[Vec<u32>],
    device: &Device,
    progress: &dyn Progress,
    see: impl FnMut(&[LinearId], &Moments) -> Result<(), E>,
) -> Result<Statistics, E> {
    struct Look<F>(F);
    impl<E: From<CalibrateError>, F: FnMut(&[LinearId], &Moments) -> Result<(), E>> Change for Look<F> {
        type Error = E;

        fn kept(&mut self, _ids: &[LinearId]) -> Result<Option<Changed>, E> {
            Ok(None)
        }

        fn change(&mut self, ids: &[LinearId], moments: Option<Moments>) -> Result<Changed, E> {
            moments.map_or(Ok(()), |moments| (self.0)(ids, &moments))?;
            Ok(Changed::new())
        }
    }
    Layerwise { model, sequences, device, with_original: false, with_lookups: false }.run(
        &mut Look(see),
        progress,
        "calibrating",
    )
}
