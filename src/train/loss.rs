//! The losses, each a mean over the rows or layers of one piece of a batch.
//!
//! ```text
//! cross entropy   −ln p_s(target)
//! divergence      T² · Σ p_t · (ln p_t − ln p_s), distributions at temperature T over the tokens that both have
//! hidden          per mapped layer ‖h_s P − h_t‖² / ‖h_t‖², mean over layers; raw: ‖h_s P − h_t‖² per element
//! ```

use super::settings::LossWeights;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

/// Values of one step's losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossParts {
    /// The weighted sum, which is minimised.
    pub total: f64,
    /// Unweighted.
    pub cross_entropy: f64,
    /// Unweighted.
    pub divergence: f64,
    /// Unweighted.
    pub hidden: f64,
}

impl LossParts {
    /// Adds `share` of a piece's values.
    pub(super) fn add(&mut self, piece: &LossParts, share: f64) {
        self.total += piece.total * share;
        self.cross_entropy += piece.cross_entropy * share;
        self.divergence += piece.divergence * share;
        self.hidden += piece.hidden * share;
    }
}

/// The student's outputs for a micro-batch, with gradients, and the teacher's, without.
pub(super) struct Compared {
    /// Student logits of the rows with targets, (rows, width).
    pub logits: Tensor<2>,
    /// Teacher logits of the same rows.
    pub teacher_logits: Option<Tensor<2>>,
    /// How many tokens both have, where their tables are padded to different sizes: the divergence is over those alone.
    pub shared_tokens: Option<usize>,
    /// Per mapped pair, (student states, teacher states), (tokens, width) each: equal widths.
    pub hidden: Vec<(Tensor<2>, Tensor<2>)>,
    /// Token or label id per row.
    pub targets: Vec<i32>,
}

/// The weighted sum to minimise, and the values of its parts.
pub(super) fn loss(
    compared: Compared,
    weights: &LossWeights,
    device: &Device,
) -> Result<(Tensor<1>, LossParts), String> {
    let rows = compared.targets.len();
    let mut total: Option<Tensor<1>> = None;
    let mut add = |value: Tensor<1>, weight: f64| {
        let weighted = value * weight;
        total = Some(match total.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        });
    };
    let mut parts = LossParts::default();
    let scalar = |tensor: &Tensor<1>| -> Result<f64, String> {
        let values = tensor.to_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        Ok(values.first().copied().map_or(f64::NAN, f64::from))
    };
    if weights.cross_entropy != 0.0 {
        let targets = TensorData::new(compared.targets.clone(), [rows, 1]);
        let targets = Tensor::<2, Int>::from_data(targets, device);
        let chosen = log_softmax(compared.logits.clone(), 1).gather(1, targets);
        let value = -chosen.mean();
        parts.cross_entropy = scalar(&value)?;
        add(value, weights.cross_entropy);
    }
    if let (true, Some(teacher)) = (weights.needs_divergence(), compared.teacher_logits) {
        let temperature = weights.temperature;
        let shared = |logits: Tensor<2>| match compared.shared_tokens {
            Some(tokens) => logits.narrow(1, 0, tokens),
            None => logits,
        };
        let teacher = log_softmax(shared(teacher) / temperature, 1);
        let student = log_softmax(shared(compared.logits) / temperature, 1);
        // Summed by rows first: large sums of one backend depend on the machine.
        let by_row = (teacher.clone().exp() * (teacher - student)).sum_dim(1);
        let value = by_row.mean() * (temperature * temperature);
        parts.divergence = scalar(&value)?;
        add(value, weights.divergence);
    }
    if weights.needs_hidden() && !compared.hidden.is_empty() {
        let pairs = compared.hidden.len() as f64;
        let mut sum: Option<Tensor<1>> = None;
        for (student, teacher) in compared.hidden {
            let [tokens, width] = teacher.dims();
            let miss = (student - teacher.clone()).square().sum_dim(1).sum();
            let value = if weights.hidden_raw {
                miss / (tokens * width) as f64
            } else {
                miss / teacher.square().sum_dim(1).sum()
            };
            sum = Some(match sum.take() {
                Some(sum) => sum + value,
                None => value,
            });
        }
        if let Some(sum) = sum {
            let value = sum / pairs;
            parts.hidden = scalar(&value)?;
            add(value, weights.hidden);
        }
    }
    let total = total.ok_or("no part of the loss applies")?;
    parts.total = scalar(&total)?;
    Ok((total, parts))
}
