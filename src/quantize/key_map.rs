//! The key map: per key head and channel, keys become (k − mean) · balance and queries q · inverse before both are
//! quantized to int8. Subtracting a mean from every key adds one number to all scores of a query, which the softmax
//! ignores; the balance cancels in every product. Only the rounding changes: with balance = (σ_q / σ_k)^½ keys and
//! queries have the same profile over channels, which minimises the noise of the product of two vectors that share one
//! scale each.

use crate::calibrate::KeyStats;

/// mean, balance and inverse of one layer, (key_value_heads, head_dim) each.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyMap {
    /// Subtracted from keys.
    pub mean: Vec<f32>,
    /// Multiplies keys.
    pub balance: Vec<f32>,
    /// Multiplies queries: 1 / balance, rounded once.
    pub inverse: Vec<f32>,
}

/// Bounds on the balance, so that a channel that never moves cannot ask for infinity.
const BALANCE_RANGE: (f64, f64) = (1.0 / 64.0, 64.0);

impl KeyMap {
    /// The map for the keys and queries seen in calibration.
    pub fn of(stats: &KeyStats) -> Self {
        let channels = stats.key_variance.iter().zip(&stats.query_mean_square);
        let balance: Vec<f32> = channels
            .map(|(key, query)| {
                let ratio = (query / key).sqrt().sqrt();
                let bounded = ratio.clamp(BALANCE_RANGE.0, BALANCE_RANGE.1);
                if ratio.is_finite() && ratio > 0.0 { bounded as f32 } else { 1.0 }
            })
            .collect();
        KeyMap {
            mean: stats.key_mean.iter().map(|&mean| mean as f32).collect(),
            inverse: balance.iter().map(|balance| 1.0 / balance).collect(),
            balance,
        }
    }
}
