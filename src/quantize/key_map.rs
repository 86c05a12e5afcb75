//! The key map: per key head and channel, keys become (k − mean) · balance and queries q · inverse before both are
//! quantized to int8. Subtracting a mean from every key adds one number to all scores of a query, which the softmax
//! ignores; the balance cancels in every product. Only the rounding changes: with balance = (σ_q / σ_k)^½ keys and
//! queries have the same profile over channels, which minimises the noise of the product of two vectors that share one
//! scale each.

use crate::calibrate::KeyStats;
use ndarray::Array2;

/// mean, balance and inverse of one layer, (key_value_heads, head_dim) each.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyMap {
    /// Subtracted from keys.
    pub mean: Array2<f32>,
    /// Multiplies keys.
    pub balance: Array2<f32>,
    /// Multiplies queries: 1 / balance, rounded once.
    pub inverse: Array2<f32>,
}

/// Bounds on the balance, so that a channel that never moves cannot ask for infinity.
const BALANCE_RANGE: (f64, f64) = (1.0 / 64.0, 64.0);

impl KeyMap {
    /// The map for the keys and queries seen in calibration.
    pub fn of(stats: &KeyStats) -> Self {
        let balance = (&stats.query_mean_square / &stats.key_variance).mapv(|variances| {
            let ratio = variances.sqrt().sqrt();
            let bounded = ratio.clamp(BALANCE_RANGE.0, BALANCE_RANGE.1);
            if ratio.is_finite() && ratio > 0.0 { bounded as f32 } else { 1.0 }
        });
        KeyMap {
            mean: stats.key_mean.mapv(|mean| mean as f32),
            inverse: balance.mapv(|balance| 1.0 / balance),
            balance,
        }
    }
}
