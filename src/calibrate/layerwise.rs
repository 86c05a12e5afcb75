//! Changes a model layer by layer, with activations of the model as changed so far: matrices that read the same input
//! are passed on as a group with the second moments of that input ([`Moments`]), their new values replace the old ones,
//! and only then is the input of the next group computed (query, key, value; then output; gate, up; then down). The
//! original can run alongside, so that a change can target the original's outputs.
//!
//! Every step of a layer ([`Step`]) runs once over all batches for each of the two models: it halts at the input of a
//! group, and goes on from there with the matrices as they were changed. So memory holds one layer's weights twice, and
//! of all calibration tokens, for each model, the hidden states and one input of linears:
//!
//! ```text
//! 4 · tokens · models · (hidden + width of the widest input)  bytes
//! ```

use super::batches::Batches;
use super::lookups::Lookups;
use super::moments::{MomentSums, Moments, MomentsError};
use super::{CalibrateError, Collector, Statistics};
use crate::model::forward::{DenseWeights, Halted, StagedContext, StagedForward, Step, Unobserved};
use crate::model::graph::{Graph, Input, own_matrices};
use crate::model::id::{Class, LinearId, NormSite, ParameterId, Role};
use crate::model::matrix::into_values;
use crate::model::spec::{Head, ModelSpec};
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
    /// Calibration, each sequence on its own.
    pub sequences: &'a [Vec<u32>],
    /// The device.
    pub device: &'a Device,
    /// Whether the original runs beside the changed model, for [`Moments::difference`].
    pub with_original: bool,
    /// Whether the moments of a decoder's token table include the sensitivity of its lookups (see [`super::lookups`]),
    /// which takes gradients by them.
    pub with_lookups: bool,
}

/// One of the two models over all batches, halted at the input of a group.
struct Run {
    batches: Vec<Halted<Tensor<3>>>,
}

/// Batches that the moments of the token table are taken over.
#[derive(Clone, Copy)]
struct OfTokens {
    /// Those that run through all layers.
    runs: usize,
    /// Those whose gradients come back.
    lookups: usize,
}

impl OfTokens {
    /// Layers, forward and back.
    fn steps(self, spec: &ModelSpec) -> u64 {
        let passes = u64::from(self.runs > 0) + u64::from(self.lookups > 0);
        passes * spec.layers.len() as u64
    }
}

/// Where a pass is.
struct Pass<'p, C: Change> {
    of: &'p Layerwise<'p>,
    batches: Batches,
    change: &'p mut C,
    collector: Collector,
    progress: &'p dyn Progress,
    original: Option<Run>,
    changed: Run,
}

impl Layerwise<'_> {
    /// Passes every group to `change`, in the order of [`Graph::groups`], and returns statistics of the changed model's
    /// activations.
    ///
    /// # Errors
    /// The errors of `change`, and [`CalibrateError`].
    pub fn run<C: Change>(&self, change: &mut C, progress: &dyn Progress, what: &str) -> Result<Statistics, C::Error> {
        let spec = &self.model.spec;
        let mut of_embeddings = self.weights(embeds)?;
        let batches = Batches::new(spec, self.sequences, &self.forward(&of_embeddings))?;
        let graph = Graph::new(spec);
        let of_tokens = self.of_tokens(&batches);
        progress.begin(what, graph.groups().len() as u64 + of_tokens.steps(spec), "steps");
        let mut collector = Collector::new(spec);
        (collector.tokens, collector.sequences) = (batches.tokens(), batches.sequences());
        let original = self.with_original.then(|| self.embed(&batches, &of_embeddings));
        for table in &graph.tables {
            let ids = [table.id];
            let is_tokens = table.id.role == Role::TokenEmbedding;
            let changed = match change.kept(&ids)? {
                Some(kept) => {
                    progress.advance(if is_tokens { of_tokens.steps(spec) } else { 0 });
                    kept
                }
                None => {
                    let moments =
                        if is_tokens { self.moments_of_tokens(&of_tokens, &batches, progress)? } else { None };
                    change.change(&ids, moments)?
                }
            };
            self.replace(&mut of_embeddings, changed);
            progress.advance(1);
        }
        let changed = self.embed(&batches, &of_embeddings);
        drop(of_embeddings);
        let mut pass = Pass { of: self, batches, change, collector, progress, original, changed };
        for (layer, inputs) in graph.layers.iter().enumerate() {
            pass.layer(layer, inputs)?;
        }
        pass.head(&graph.head)?;
        let collector = pass.collector;
        progress.finish();
        match collector.failure {
            Some(failure) => Err(CalibrateError::Device(failure).into()),
            None => Ok(collector.finish()),
        }
    }

    fn weights(&self, wanted: impl Fn(ParameterId) -> bool) -> Result<DenseWeights, CalibrateError> {
        Ok(DenseWeights::part(self.model, self.device, wanted)?)
    }

    fn forward<'w>(&'w self, weights: &'w DenseWeights) -> StagedForward<'w> {
        StagedForward::new(&self.model.spec, weights, self.device)
    }

    fn embed(&self, batches: &Batches, weights: &DenseWeights) -> Run {
        let forward = self.forward(weights);
        let embedded = batches.batches.iter().map(|batch| forward.embed(batch));
        Run { batches: embedded.map(|hidden| Halted { input: hidden.clone(), hidden }).collect() }
    }

    fn of_tokens(&self, batches: &Batches) -> OfTokens {
        let spec = &self.model.spec;
        let with_lookups = self.with_lookups && matches!(spec.head, Head::LanguageModel { .. });
        let lookups = if with_lookups { Lookups::batches(spec, batches) } else { 0 };
        // The head needs the outputs of all batches, lookups those of the first.
        OfTokens { runs: if spec.tied_head() { batches.batches.len() } else { lookups }, lookups }
    }

    /// Moments for the token table: those of a tied head's inputs, and the sensitivity of its lookups. Both are of the
    /// original model, since the table is changed before anything else.
    fn moments_of_tokens(
        &self,
        of_tokens: &OfTokens,
        batches: &Batches,
        progress: &dyn Progress,
    ) -> Result<Option<Moments>, CalibrateError> {
        let spec = &self.model.spec;
        let OfTokens { runs, lookups: wanted } = *of_tokens;
        if runs == 0 {
            return Ok(None);
        }
        let mut hidden: Vec<Tensor<3>> = {
            let weights = self.weights(embeds)?;
            let forward = self.forward(&weights);
            batches.batches[..runs].iter().map(|batch| forward.embed(batch)).collect()
        };
        let mut lookups = Lookups::new(self, batches, wanted);
        for layer in 0..spec.layers.len() {
            lookups.before_layer(&hidden);
            let weights = self.weights(|id| id.layer() == Some(layer as u16))?;
            let forward = self.forward(&weights);
            let blocks = hidden.into_iter().zip(&batches.batches);
            hidden = blocks.map(|(hidden, batch)| forward.block(layer, hidden, batches.context(batch))).collect();
            progress.advance(1);
        }
        let sensitivity = if wanted > 0 { Some(lookups.sensitivity(&hidden, progress)?) } else { None };
        let mut moments = Moments::new(spec.hidden, false);
        if spec.tied_head() {
            let weights = self.weights(|id| id.layer().is_none())?;
            let forward = self.forward(&weights);
            let mut sums = MomentSums::new(spec.hidden, false);
            for hidden in hidden {
                sums.add(&forward.before_last(forward.head_input(hidden)), None)?;
            }
            moments = sums.finish().map_err(|source| of_group(&[LinearId::global(Role::LmHead)], source))?;
        }
        if let Some(sensitivity) = sensitivity {
            let tokens = batches.tokens();
            moments.rows = tokens;
            moments.gram.scaled_add(tokens as f64 / sensitivity.rows.max(1) as f64, &sensitivity.gram);
        }
        Ok(Some(moments))
    }

    fn replace(&self, weights: &mut DenseWeights, changed: Changed) {
        for (id, values) in changed {
            let (rows, columns) = values.dim();
            let data = TensorData::new(into_values(values), [rows, columns]);
            weights.replace(id, Tensor::from_data(data, self.device));
        }
    }
}

impl<C: Change> Pass<'_, C> {
    /// One layer: every group in turn, and the step after it.
    fn layer(&mut self, layer: usize, inputs: &[Input]) -> Result<(), C::Error> {
        let mut weights = self.of.weights(|id| id.layer() == Some(layer as u16))?;
        let unchanged = weights.clone();
        let of_original = self.of.forward(&unchanged);
        let batches = &self.batches;
        let enter = |run: &mut Run| {
            run.each(batches, |halted, context| of_original.enter(layer, halted.hidden, context));
        };
        enter(&mut self.changed);
        self.original.as_mut().map(enter);
        for (step, input) in Step::ALL.into_iter().zip(inputs) {
            self.group(&input.ids(), &input.ids(), &mut weights)?;
            let batches = &self.batches;
            if let Some(original) = &mut self.original {
                original
                    .each(batches, |halted, context| of_original.step(layer, step, halted, context, &mut Unobserved));
            }
            let (forward, collector) = (self.of.forward(&weights), &mut self.collector);
            self.changed.each(batches, |halted, context| forward.step(layer, step, halted, context, collector));
        }
        self.exit(layer, &inputs[Step::ALL.len().min(inputs.len())..], &mut weights, &unchanged)
    }

    /// The exit head of a layer that both models have passed, where it has one: its groups in turn.
    fn exit(
        &mut self,
        layer: usize,
        inputs: &[Input],
        weights: &mut DenseWeights,
        unchanged: &DenseWeights,
    ) -> Result<(), C::Error> {
        for (number, input) in inputs.iter().enumerate() {
            let next = |weights: &DenseWeights, run: &mut Run, batches: &Batches| {
                let forward = self.of.forward(weights);
                run.each(batches, |halted, _| {
                    let input = match number {
                        0 => forward.exit_input(halted.hidden.clone()),
                        _ => forward.exit_pooled(layer + 1, halted.input),
                    };
                    Halted { input, hidden: halted.hidden }
                });
            };
            next(weights, &mut self.changed, &self.batches);
            if let Some(original) = &mut self.original {
                next(unchanged, original, &self.batches);
            }
            self.group(&input.ids(), &input.ids(), weights)?;
        }
        Ok(())
    }

    /// The head: its groups in turn.
    fn head(&mut self, inputs: &[Input]) -> Result<(), C::Error> {
        if inputs.is_empty() {
            return Ok(());
        }
        let mut weights = self.of.weights(|id| id.layer().is_none())?;
        let of_original = weights.clone();
        for (number, input) in inputs.iter().enumerate() {
            let next = |weights: &DenseWeights, run: &mut Run, batches: &Batches| {
                let forward = self.of.forward(weights);
                run.each(batches, |halted, _| {
                    let input = match number {
                        0 => forward.head_input(halted.hidden.clone()),
                        _ => forward.before_last(halted.input),
                    };
                    Halted { input, hidden: halted.hidden }
                });
            };
            next(&weights, &mut self.changed, &self.batches);
            if let Some(original) = &mut self.original {
                next(&of_original, original, &self.batches);
            }
            self.group(&input.ids(), &own_matrices(input), &mut weights)?;
        }
        Ok(())
    }

    /// A group that the models are halted at: statistics of the input that `readers` read, and the change of `ids`.
    fn group(&mut self, readers: &[LinearId], ids: &[LinearId], weights: &mut DenseWeights) -> Result<(), C::Error> {
        for batch in &self.changed.batches {
            self.collector.input(readers, &batch.input)?;
        }
        if ids.is_empty() {
            return Ok(());
        }
        let new = match self.change.kept(ids)? {
            Some(kept) => kept,
            None => {
                let width = self.changed.batches.first().map_or(0, |batch| batch.input.dims()[2]);
                let mut sums = MomentSums::new(width, self.original.is_some());
                for (number, changed) in self.changed.batches.iter().enumerate() {
                    let original = self.original.as_ref().map(|original| &original.batches[number].input);
                    sums.add(&changed.input, original)?;
                }
                let moments = sums.finish().map_err(|source| of_group(ids, source))?;
                self.change.change(ids, Some(moments))?
            }
        };
        self.of.replace(weights, new);
        self.progress.advance(1);
        Ok(())
    }
}

impl Run {
    /// Moves every batch on; what it was halted at is given up batch by batch.
    fn each(&mut self, batches: &Batches, mut on: impl FnMut(Halted<Tensor<3>>, &StagedContext) -> Halted<Tensor<3>>) {
        let halted = std::mem::take(&mut self.batches).into_iter().zip(&batches.batches);
        self.batches = halted.map(|(halted, batch)| on(halted, batches.context(batch))).collect();
    }
}

fn of_group(ids: &[LinearId], source: MomentsError) -> CalibrateError {
    CalibrateError::Moments { id: ids[0], source }
}

/// Whether a parameter is one of the embeddings, their norm among them.
fn embeds(id: ParameterId) -> bool {
    match id {
        ParameterId::Linear(id, _) => id.role.class() == Class::Embedding,
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
