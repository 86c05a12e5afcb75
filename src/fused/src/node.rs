//! How an operation of ours enters burn's graph. [`Value`] is a tensor on the flex device as its own primitive, with a
//! gradient graph or without; [`record`] makes the result of an operation a node of the graph, with a closure as its
//! backward pass. Weights are not nodes: the closure adds their gradients to the memory where they are summed
//! ([`super::weights::Weight`]), so that parts of a batch share both.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Shape, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};
use slm_numerics::scratch::give;
use std::sync::{Arc, Mutex};

type Recording = Autodiff<Flex, NoCheckpointing>;
/// A node of the graph.
type Node = FloatTensor<Recording>;

/// f32 values on the flex device, contiguous.
#[derive(Clone, Debug)]
pub enum Value {
    /// Without a graph.
    Plain(FlexTensor),
    /// A node of a graph.
    Recorded(Node),
}

/// Contiguous values with their own memory.
pub fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, Shape::from(shape.to_vec())))
}

/// The values of a contiguous tensor.
pub fn slice(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice() {
        Some(values) => values,
        None => unreachable!("values and gradients are contiguous f32 before they come here"),
    }
}

/// Gives the memory of a tensor that nobody else holds to those that need some.
pub fn recycle(tensor: FlexTensor) {
    if tensor.is_unique()
        && let Ok(values) = tensor.into_data().try_into_vec::<f32>()
    {
        give(values);
    }
}

fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

impl Value {
    /// The value of a tensor; `None` on another device than flex.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Option<Self> {
        if let Ok(recorded) = tensor.clone().try_into_primitive::<Recording>() {
            return Some(Value::Recorded(recorded));
        }
        tensor.try_into_primitive::<Flex>().ok().map(|plain| Value::Plain(contiguous(plain)))
    }

    /// As burn has it. `D` must be the number of dimensions.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match self {
            Value::Plain(plain) => Tensor::from_primitive::<Flex>(plain),
            Value::Recorded(recorded) => Tensor::from_primitive::<Recording>(recorded),
        }
    }

    /// The tensor itself, for a closure to keep.
    pub fn tensor(&self) -> FlexTensor {
        contiguous(match self {
            Value::Plain(plain) => plain.clone(),
            Value::Recorded(recorded) => recorded.primitive().clone(),
        })
    }

    /// Its dimensions.
    pub fn dims(&self) -> Vec<usize> {
        let tensor = match self {
            Value::Plain(plain) => plain,
            Value::Recorded(recorded) => recorded.primitive(),
        };
        tensor.layout().shape().to_vec()
    }

    /// Values of the last dimension.
    pub fn width(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Its dimensions with another last one.
    pub fn dims_with(&self, width: usize) -> Vec<usize> {
        let mut dims = self.dims();
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        dims
    }

    /// Whether gradients are recorded.
    pub fn is_recorded(&self) -> bool {
        matches!(self, Value::Recorded(_))
    }
}

/// Gradients of the N parents, from that of the result; `None` where a parent needs none.
type Pullback<const N: usize> = Box<dyn FnOnce(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send>;

/// A backward pass that has not run. Burn asks that states can be cloned; the first that is asked runs it.
#[derive(Clone)]
struct Pending<const N: usize>(Arc<Mutex<Option<Pullback<N>>>>);

impl<const N: usize> std::fmt::Debug for Pending<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a backward pass to {N} values")
    }
}

#[derive(Debug)]
struct Step<const N: usize>;

impl<const N: usize> Backward<Flex, N> for Step<N> {
    type State = Pending<N>;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let pending = ops.state.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(pullback) = pending else { return };
        let needed = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(pullback(gradient, needed)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// The result of an operation on `parents`, with its backward pass where any of them is recorded.
pub fn record<const N: usize>(
    parents: [&Value; N],
    result: FlexTensor,
    pullback: impl FnOnce(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + 'static,
) -> Value {
    if !parents.iter().any(|parent| parent.is_recorded()) {
        return Value::Plain(result);
    }
    let nodes = parents.map(|parent| match parent {
        Value::Plain(plain) => Node::new(plain.clone()).node(),
        Value::Recorded(recorded) => recorded.node(),
    });
    let recorded = match Step::<N>.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Pending(Arc::new(Mutex::new(Some(Box::new(pullback))))), result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    };
    Value::Recorded(recorded)
}

/// The result of `forward`, of which the input alone is kept: the backward pass computes it again, with a graph of its own, to
/// the same bits. `forward` must make the same of the same values.
pub fn recomputed(input: &Value, forward: impl Fn(&Value) -> Value + Send + 'static) -> Value {
    let kept = input.tensor();
    let result = forward(&Value::Plain(kept.clone())).tensor();
    record([input], result, move |gradient, [_]| {
        let leaf = Node::new(kept).require_grad();
        let output = forward(&Value::Recorded(leaf.clone()));
        // The gradient is that of a number whose slope along the output it is.
        let along = record([&output], tensor(vec![0.0], &[1]), move |_, [_]| [Some(gradient)]);
        drop(output);
        match along {
            Value::Recorded(along) => [along.backward().remove::<Flex>(&leaf)],
            Value::Plain(_) => [None],
        }
    })
}

/// The same value in the graph of `root`, which gets no gradient: the backward pass ends here.
pub fn joined(input: &Value, root: &Value) -> Value {
    record([root], input.tensor(), |gradient, [_]| {
        recycle(gradient);
        [None]
    })
}

/// The same value as a node of its own: everything that is computed from it gives it one gradient, which is then added to
/// those of its input's other readers.
pub fn apart(input: &Value) -> Value {
    record([input], input.tensor(), |gradient, [_]| [Some(gradient)])
}
