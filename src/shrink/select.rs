//! Which heads and channels of the teacher a student keeps: those of the largest importance, the lower number of equals, in
//! their old order. Key heads are chosen first, by the best heads that they serve; then heads within each.

use super::basis::Basis;
use super::importance::{Importance, LayerImportance};
use crate::model::families::Widths;

/// What is kept of one layer of the teacher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSelection {
    /// The layer.
    pub of: usize,
    /// Query heads.
    pub heads: Vec<usize>,
    /// Key heads.
    pub key_heads: Vec<usize>,
    /// Channels of the feed-forward network.
    pub ffn: Vec<usize>,
    /// Channels of a convolution.
    pub conv: Vec<usize>,
}

/// What is kept of a teacher.
#[derive(Clone, Debug)]
pub struct Selection {
    /// By layer of the student.
    pub layers: Vec<LayerSelection>,
    /// Channels of the residual stream.
    pub hidden: Basis,
}

/// The `count` largest, in order of their numbers.
pub fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Query heads and the key heads that they share, of a teacher with the widths `own`.
fn heads(scores: &[f64], own: Widths, wanted: Widths) -> (Vec<usize>, Vec<usize>) {
    if scores.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let (group, kept) = (own.heads / own.key_heads, wanted.heads / wanted.key_heads);
    let best: Vec<Vec<usize>> = scores.chunks_exact(group).map(|scores| largest(scores, kept)).collect();
    let carried = best.iter().zip(scores.chunks_exact(group));
    // What a key head carries is the energy of the heads that would stay with it.
    let carried: Vec<f64> =
        carried.map(|(best, scores)| best.iter().map(|&head| scores[head].powi(2)).sum::<f64>()).collect();
    let key_heads = largest(&carried, wanted.key_heads);
    let heads = key_heads.iter().flat_map(|&key| best[key].iter().map(move |head| key * group + head)).collect();
    (heads, key_heads)
}

/// What is kept of a layer.
fn of_layer(of: usize, importance: &LayerImportance, own: Widths, wanted: Widths) -> LayerSelection {
    let (heads, key_heads) = heads(&importance.heads, own, wanted);
    // The channels of a convolution are as many as hidden ones.
    let conv = largest(&importance.conv, wanted.hidden.min(importance.conv.len()));
    LayerSelection { of, heads, key_heads, ffn: largest(&importance.ffn, wanted.ffn), conv }
}

/// Chooses for these layers of the teacher.
pub fn select(importance: &Importance, layers: &[usize], own: Widths, wanted: Widths, hidden: Basis) -> Selection {
    let layers = layers.iter().map(|&layer| of_layer(layer, &importance.layers[layer], own, wanted));
    Selection { layers: layers.collect(), hidden }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_stay_with_their_key_heads() {
        let own = Widths { heads: 8, key_heads: 4, ffn: 4, hidden: 8 };
        let scores = [1.0, 1.0, 5.0, 0.0, 3.0, 2.0, 0.0, 0.1];
        let with = |heads, key_heads| super::heads(&scores, own, Widths { heads, key_heads, ..own });
        assert_eq!(with(8, 4), ((0..8).collect(), (0..4).collect()));
        // Two to a key head: pair (2, 3) carries 25, pair (4, 5) 13.
        assert_eq!(with(4, 2), (vec![2, 3, 4, 5], vec![1, 2]));
        // One to a key head: the better of each pair.
        assert_eq!(with(4, 4), (vec![0, 2, 4, 7], vec![0, 1, 2, 3]));
        assert_eq!(with(1, 1), (vec![2], vec![1]));
        assert_eq!(largest(&[1.0, 2.0, 2.0, 0.0], 2), [1, 2]);
        assert_eq!(largest(&[1.0, 1.0, 1.0], 2), [0, 1]);
    }
}
