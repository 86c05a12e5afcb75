//! The forward in parts, on the fastest operations that the device has: the fused ones on flex, burn's elsewhere. For
//! work that halts at the inputs of linears, or holds no more than one layer of weights: calibration, and divergences that
//! are measured again and again. Activations are burn's tensors between the parts, so that a graph of gradients may go
//! through them.

use super::fused::Context;
use super::layer::Operations;
use super::{
    AttentionContext, Batch, DenseWeights, Forward, FusedForward, FusedWeights, Halted, Observer, Step, Unobserved,
    head_input, root_without_graph,
};
use crate::model::spec::ModelSpec;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use slm_fused::head::{Weighting, losses};
use slm_fused::node::Value;

/// A model, or a part of it, ready to compute.
pub struct StagedForward<'a> {
    spec: &'a ModelSpec,
    operands: Operands<'a>,
}

enum Operands<'a> {
    Plain(Forward<'a>),
    Fused(FusedWeights),
}

/// What the layers of one batch share, for the forward that made it and others on its device.
#[derive(Clone)]
pub struct StagedContext(Shared);

#[derive(Clone)]
enum Shared {
    Plain(Box<AttentionContext>),
    Fused(Context),
}

/// Both of one device.
enum Pair<'p, 'a> {
    Plain(&'p Forward<'a>, &'p AttentionContext),
    Fused(FusedForward<'p>, &'p Context),
}

impl<'a> StagedForward<'a> {
    /// Whether a device has fused operations.
    pub fn is_fused(device: &Device) -> bool {
        Value::of(Tensor::<1>::zeros([1], device)).is_some()
    }

    /// `weights` must have the parameters of the parts that are called.
    pub fn new(spec: &'a ModelSpec, weights: &'a DenseWeights, device: &Device) -> Self {
        let fused = if Self::is_fused(device) { FusedWeights::of(spec, weights) } else { None };
        let operands = match fused {
            Some(fused) => Operands::Fused(fused),
            None => Operands::Plain(Forward::new(spec, weights, device)),
        };
        StagedForward { spec, operands }
    }

    /// Masks, rotary tables.
    pub fn context(&self, batch: &Batch) -> StagedContext {
        StagedContext(match &self.operands {
            Operands::Plain(forward) => Shared::Plain(Box::new(forward.context(batch))),
            Operands::Fused(_) => Shared::Fused(Context::new(self.spec, batch)),
        })
    }

    fn fused<'w>(&'w self, weights: &'w FusedWeights) -> FusedForward<'w> {
        FusedForward::new(self.spec, weights, false)
    }

    fn with<'p>(&'p self, context: &'p StagedContext) -> Pair<'p, 'a> {
        match (&self.operands, &context.0) {
            (Operands::Plain(forward), Shared::Plain(context)) => Pair::Plain(forward, context),
            (Operands::Fused(weights), Shared::Fused(context)) => Pair::Fused(self.fused(weights), context),
            _ => unreachable!("a context is of the device of its forward"),
        }
    }

    /// [`Forward::embed`].
    pub fn embed(&self, batch: &Batch) -> Tensor<3> {
        match &self.operands {
            Operands::Plain(forward) => forward.embed(batch),
            Operands::Fused(weights) => self.fused(weights).embed(batch, &root_without_graph()).into_tensor(),
        }
    }

    /// A layer up to the input of its first linears.
    pub fn enter(&self, layer: usize, hidden: Tensor<3>, context: &StagedContext) -> Halted<Tensor<3>> {
        match self.with(context) {
            Pair::Plain(forward, context) => forward.enter(layer, hidden, context),
            Pair::Fused(forward, context) => tensors(forward.enter(layer, value(hidden), context)),
        }
    }

    /// A step of a layer, from where it halted.
    pub fn step(
        &self,
        layer: usize,
        step: Step,
        halted: Halted<Tensor<3>>,
        context: &StagedContext,
        observer: &mut dyn Observer,
    ) -> Halted<Tensor<3>> {
        match self.with(context) {
            Pair::Plain(forward, context) => forward.step(layer, step, halted, context, None, observer),
            Pair::Fused(forward, context) => {
                let halted = Halted { hidden: value(halted.hidden), input: value(halted.input) };
                tensors(forward.step(layer, step, halted, context, None, observer))
            }
        }
    }

    /// [`Forward::block`].
    pub fn block(&self, layer: usize, hidden: Tensor<3>, context: &StagedContext) -> Tensor<3> {
        match self.with(context) {
            Pair::Plain(forward, context) => forward.layer(layer, hidden, context, None, &mut Unobserved),
            Pair::Fused(forward, context) => {
                forward.layer(layer, value(hidden), context, None, &mut Unobserved).into_tensor()
            }
        }
    }

    /// The input of the head's first linear, of the output of the last layer: (batch, length, hidden), or the first
    /// position of each sequence for a classifier. A bare encoder's is its output.
    pub fn head_input(&self, hidden: Tensor<3>) -> Tensor<3> {
        let finished = match &self.operands {
            Operands::Plain(forward) => forward.finish(hidden),
            Operands::Fused(weights) => self.fused(weights).finish(value(hidden)).into_tensor(),
        };
        head_input(self.spec, finished, None)
    }

    /// From the output of the last layer to the model's, as [`Forward::run`], shown to `observer`.
    pub fn head(&self, hidden: Tensor<3>, observer: &mut dyn Observer) -> Tensor<3> {
        match &self.operands {
            Operands::Plain(forward) => forward.head(forward.finish(hidden), observer),
            Operands::Fused(weights) => {
                let fused = self.fused(weights);
                let finished = fused.finish(value(hidden)).into_tensor();
                let last = fused.before_last(value(head_input(self.spec, finished, None)), observer);
                match self.spec.last_linear() {
                    Some(id) => fused.linear(&last, &[id], None, observer).into_tensor(),
                    None => last.into_tensor(),
                }
            }
        }
    }

    /// From the input of the head's first linear to that of its last.
    pub fn before_last(&self, input: Tensor<3>) -> Tensor<3> {
        match &self.operands {
            Operands::Plain(forward) => forward.before_last(input, &mut Unobserved),
            Operands::Fused(weights) => self.fused(weights).before_last(value(input), &mut Unobserved).into_tensor(),
        }
    }

    /// What the first linear of an exit head reads of its layer's output.
    pub fn exit_input(&self, hidden: Tensor<3>) -> Tensor<3> {
        head_input(self.spec, hidden, None)
    }

    /// What the classifier of the exit head after `layers` layers reads, of what its pooler reads.
    pub fn exit_pooled(&self, layers: usize, input: Tensor<3>) -> Tensor<3> {
        let [pooler, _] = ModelSpec::exit_linears(layers);
        match &self.operands {
            Operands::Plain(forward) => forward.pooled(pooler, input, &mut Unobserved),
            Operands::Fused(weights) => {
                self.fused(weights).pooled(pooler, &value(input), &mut Unobserved).into_tensor()
            }
        }
    }

    /// The output, of the input of the head's last linear.
    pub fn last(&self, input: Tensor<3>) -> Tensor<3> {
        let Some(id) = self.spec.last_linear() else { return input };
        match &self.operands {
            Operands::Plain(forward) => forward.linear(id, input, &mut Unobserved),
            Operands::Fused(weights) => {
                self.fused(weights).linear(&value(input), &[id], None, &mut Unobserved).into_tensor()
            }
        }
    }

    /// −Σ ln p(target) over rows (rows, hidden) of what the last linear reads, to be differentiated as it is. `None` for a
    /// model whose output is its hidden states.
    pub fn surprise(&self, rows: Tensor<2>, targets: &[i32]) -> Option<Tensor<1>> {
        let id = self.spec.last_linear()?;
        Some(match &self.operands {
            Operands::Plain(forward) => {
                let next = TensorData::new(targets.to_vec(), [targets.len(), 1]);
                let next = Tensor::<2, Int>::from_data(next, &rows.device());
                let logits = forward.linear(id, rows.unsqueeze::<3>(), &mut Unobserved).squeeze_dim::<2>(0);
                log_softmax(logits, 1).gather(1, next).sum().neg()
            }
            Operands::Fused(weights) => {
                let weighting = Weighting { cross_entropy: 1.0, share: targets.len() as f64, ..Weighting::NONE };
                let linear = self.fused(weights).linear_of(id);
                let rows = Value::of(rows).unwrap_or_else(|| unreachable!("fused operations are on the flex device"));
                losses(&rows, &linear, targets, None, weighting).0.into_tensor()
            }
        })
    }
}

fn value(tensor: Tensor<3>) -> Value {
    Value::of(tensor).unwrap_or_else(|| unreachable!("fused operations are on the flex device"))
}

fn tensors(halted: Halted<Value>) -> Halted<Tensor<3>> {
    Halted { hidden: halted.hidden.into_tensor(), input: halted.input.into_tensor() }
}
