//! The losses by burn's own operations, each a mean over the rows or layers of one piece of a batch: what fused operations are
//! compared with, and what other devices than flex compute with. Relations have a fused operation alone.
//!
//! ```text
//! cross entropy       −(1 − ε) ln p_s(target) − ε · mean ln p_s
//! divergence          T² · Σ p_t · (ln p_t − ln p_s), distributions at temperature T over the tokens that both have
//! skew divergence     T² · Σ p_t · (ln p_t − ln m),  m = α p_t + (1 − α) p_s
//! reverse divergence  T² · Σ p_s · (ln p_s − ln p_t)
//! logits              mean (z_s − z_t)²
//! hidden              per mapped layer ‖h_s P − h_t‖² / ‖h_t‖², or by element, or mean of 1 − cos; mean over layers
//! ```

use super::table::{Against, HiddenForm, LossKind, LossParts, LossWeights};
use crate::train::error::TrainError;
use crate::train::fused::exit_parts;
use crate::train::parameters::cause;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

/// The student's outputs for a micro-batch, with gradients, and the teacher's, without.
pub(in crate::train) struct Compared {
    /// Student logits of the rows with targets, (rows, width).
    pub logits: Tensor<2>,
    /// Logits of the same rows of every teacher, with its part.
    pub teacher_logits: Vec<(Tensor<2>, f64)>,
    /// How many tokens both have, where their tables are padded to different sizes: the divergence is over those alone.
    pub shared_tokens: Option<usize>,
    /// Per mapped pair, (student states, teacher states), (tokens, width) each: equal widths.
    pub hidden: Vec<(Tensor<2>, Tensor<2>)>,
    /// Token or label id per row.
    pub targets: Vec<i32>,
}

/// The weighted sum to minimise, without that of exit heads, and the values of its parts. `now` are the weights of the step; the
/// sum is absent where they are 0.
pub(in crate::train) fn loss(
    compared: &Compared,
    weights: &LossWeights,
    now: &LossParts,
    device: &Device,
) -> Result<(Option<Tensor<1>>, LossParts), TrainError> {
    let mut total: Option<Tensor<1>> = None;
    let mut parts = LossParts::default();
    let mut add = |kind: LossKind, value: Tensor<1>| -> Result<(), TrainError> {
        // A device of another machine may be gone: an error, where `to_data` would panic.
        let data = value.clone().try_into_data().map_err(|error| TrainError::Device(cause(&error)))?;
        let values = data.try_to_vec::<f32>().map_err(|error| TrainError::Device(format!("{error:?}")))?;
        parts.set(kind, values.first().copied().map_or(f64::NAN, f64::from));
        let weighted = value * now.get(kind);
        total = Some(match total.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        });
        Ok(())
    };
    if now.get(LossKind::CrossEntropy) != 0.0 {
        add(LossKind::CrossEntropy, cross_entropy(compared, weights.smoothing, device))?;
    }
    if now.has(Against::Logits) && !compared.teacher_logits.is_empty() {
        divergences(compared, weights, now, &mut add)?;
    }
    if now.has(Against::States) && !compared.hidden.is_empty() {
        add(LossKind::Hidden, hidden(compared, weights.hidden_form))?;
    }
    parts.weigh(now);
    Ok((total, parts))
}

/// The loss of exit heads, whose logits of the rows with targets are `exits`, and its value: the cross entropy, and the
/// divergence from the last head's logits, which get no gradient by it.
pub(in crate::train) fn exit_loss(
    compared: &Compared,
    exits: Vec<Tensor<2>>,
    weights: &LossWeights,
    now: &LossParts,
    device: &Device,
) -> Result<(Tensor<1>, f64), TrainError> {
    let [of_targets, of_last] = exit_parts(now);
    let temperature = weights.temperature;
    let last = log_softmax(compared.logits.clone().detach() / temperature, 1);
    let mut sum = Tensor::zeros([1], device);
    for logits in exits {
        let own = log_softmax(logits.clone() / temperature, 1);
        let terms = last.clone().exp() * (last.clone() - own);
        let divergence = terms.sum_dim(1).mean() * (temperature * temperature);
        let one = Compared {
            logits,
            teacher_logits: Vec::new(),
            shared_tokens: None,
            hidden: Vec::new(),
            targets: compared.targets.clone(),
        };
        sum = sum + divergence * of_last;
        if of_targets != 0.0 {
            sum = sum + cross_entropy(&one, weights.smoothing, device) * of_targets;
        }
    }
    let data = sum.clone().try_into_data().map_err(|error| TrainError::Device(cause(&error)))?;
    let values = data.try_to_vec::<f32>().map_err(|error| TrainError::Device(format!("{error:?}")))?;
    Ok((sum, values.first().copied().map_or(f64::NAN, f64::from)))
}

fn cross_entropy(compared: &Compared, smoothing: f64, device: &Device) -> Tensor<1> {
    let rows = compared.targets.len();
    let targets = TensorData::new(compared.targets.clone(), [rows, 1]);
    let targets = Tensor::<2, Int>::from_data(targets, device);
    let logs = log_softmax(compared.logits.clone(), 1);
    let chosen = logs.clone().gather(1, targets);
    if smoothing == 0.0 {
        return -chosen.mean();
    }
    -(chosen.mean() * (1.0 - smoothing) + logs.mean_dim(1).mean() * smoothing)
}

fn divergences(
    compared: &Compared,
    weights: &LossWeights,
    now: &LossParts,
    add: &mut dyn FnMut(LossKind, Tensor<1>) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let temperature = weights.temperature;
    let shared = |logits: Tensor<2>| match compared.shared_tokens {
        Some(tokens) => logits.narrow(1, 0, tokens),
        None => logits,
    };
    let student = log_softmax(shared(compared.logits.clone()) / temperature, 1);
    let of = |logits: &Tensor<2>| log_softmax(shared(logits.clone()) / temperature, 1);
    let teacher = match &compared.teacher_logits[..] {
        [(logits, _)] => of(logits),
        several => {
            let parts = several.iter().map(|(logits, part)| of(logits).exp() * *part);
            parts.reduce(|sum, part| sum + part).map_or_else(|| student.clone(), Tensor::log)
        }
    };
    // Summed by rows first: large sums of one backend depend on the machine.
    let mean = |terms: Tensor<2>| terms.sum_dim(1).mean() * (temperature * temperature);
    let asked = |kind| now.get(kind) != 0.0;
    if asked(LossKind::Divergence) {
        add(LossKind::Divergence, mean(teacher.clone().exp() * (teacher.clone() - student.clone())))?;
    }
    if asked(LossKind::SkewDivergence) {
        let mixture = teacher.clone().exp() * weights.skew + student.clone().exp() * (1.0 - weights.skew);
        add(LossKind::SkewDivergence, mean(teacher.clone().exp() * (teacher.clone() - mixture.log())))?;
    }
    if asked(LossKind::ReverseDivergence) {
        add(LossKind::ReverseDivergence, mean(student.clone().exp() * (student.clone() - teacher)))?;
    }
    if asked(LossKind::Logits) {
        let miss = shared(compared.logits.clone()) - shared(compared.teacher_logits[0].0.clone());
        add(LossKind::Logits, miss.square().mean_dim(1).mean())?;
    }
    Ok(())
}

fn hidden(compared: &Compared, form: HiddenForm) -> Tensor<1> {
    let of_pair = |(student, teacher): &(Tensor<2>, Tensor<2>)| {
        let [tokens, width] = teacher.dims();
        let miss = || (student.clone() - teacher.clone()).square().sum_dim(1).sum();
        match form {
            HiddenForm::Raw => miss() / (tokens * width) as f64,
            HiddenForm::Relative => miss() / teacher.clone().square().sum_dim(1).sum(),
            HiddenForm::Cosine => {
                let length = |states: &Tensor<2>| states.clone().square().sum_dim(1).sqrt();
                let product = (student.clone() * teacher.clone()).sum_dim(1);
                let cosine = product / (length(student) * length(teacher));
                -(cosine.mean() - 1.0)
            }
        }
    };
    let pairs = compared.hidden.len() as f64;
    let sum = compared.hidden.iter().map(of_pair).reduce(|sum, value| sum + value);
    sum.map_or_else(|| Tensor::zeros([1], &compared.logits.device()), |sum| sum / pairs)
}
