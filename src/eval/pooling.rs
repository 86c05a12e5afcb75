//! The embedding of a text from its hidden states, in f64 and in the order of the positions: what the device does in its
//! own arithmetic (docs/numerics.md) for models run in f32.

use crate::model::spec::{Embedding, Pooling};

/// One row of `width` from hidden states (positions, width), of which there is at least one.
pub(super) fn pooled(hidden_states: &[f32], width: usize, embedding: Embedding) -> Vec<f32> {
    let rows = hidden_states.chunks_exact(width.max(1));
    let positions = rows.len() as f64;
    let wide = |row: &[f32]| row.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
    let fold = |join: fn(f64, f64) -> f64| {
        let mut rows = rows.clone();
        let first = rows.next().map(wide).unwrap_or_default();
        rows.fold(first, |sum, row| sum.iter().zip(row).map(|(&a, &b)| join(a, f64::from(b))).collect())
    };
    let mut row: Vec<f64> = match embedding.pooling {
        Pooling::First => rows.clone().next().map(wide).unwrap_or_default(),
        Pooling::Last => rows.clone().next_back().map(wide).unwrap_or_default(),
        Pooling::Maximum => fold(f64::max),
        Pooling::Mean => fold(|a, b| a + b).into_iter().map(|sum| sum / positions).collect(),
    };
    let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
    if embedding.normalize && length > 0.0 {
        row.iter_mut().for_each(|value| *value /= length);
    }
    row.into_iter().map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pooling_is_what_its_name_says() {
        let states = [1.0, -2.0, 3.0, 6.0, -1.0, 2.0];
        for (pooling, expected) in [
            (Pooling::First, [1.0, -2.0]),
            (Pooling::Last, [-1.0, 2.0]),
            (Pooling::Maximum, [3.0, 6.0]),
            (Pooling::Mean, [1.0, 2.0]),
        ] {
            assert_eq!(pooled(&states, 2, Embedding { pooling, normalize: false }), expected, "{pooling:?}");
            let unit = pooled(&states, 2, Embedding { pooling, normalize: true });
            let length = (expected[0] * expected[0] + expected[1] * expected[1]).sqrt();
            assert!(unit.iter().zip(expected).all(|(a, b)| (a - b / length).abs() < 1e-6), "{pooling:?} {unit:?}");
        }
        let zero = Embedding { pooling: Pooling::Mean, normalize: true };
        assert_eq!(pooled(&[1.0, -1.0], 1, zero), [0.0]);
    }
}
