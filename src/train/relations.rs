//! Which projections of attention are compared by `--relations` (MiniLMv2): a layer of each model, and the relation heads that
//! their queries, keys and values are cut into. Widths and numbers of attention heads may differ.

use super::loss::table::{LossKind, LossWeights};
use crate::model::spec::{AttentionSpec, ModelSpec};

/// Least values of a relation head where their number is not asked for.
const LEAST_WIDTH: usize = 16;
/// Up to so many layers the teacher's last one is compared; of deeper ones it knows too much of its own task.
const SHALLOW: usize = 12;

/// Why relations cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// A layer that is not there.
    #[error("--relation-layers: the {side} has layers 0 to {last}, and no {layer}")]
    NoLayer {
        /// Student or teacher.
        side: &'static str,
        /// Asked for.
        layer: usize,
        /// The last one.
        last: usize,
    },
    /// A layer without attention.
    #[error("--relations: layer {layer} of the {side} has no attention; name another with --relation-layers")]
    NoAttention {
        /// Student or teacher.
        side: &'static str,
        /// The layer.
        layer: usize,
    },
    /// Heads that do not divide the widths.
    #[error(
        "--relation-heads {heads} does not divide the widths {widths:?} of queries, keys and values of student and teacher; \
         numbers that do: {possible}"
    )]
    Heads {
        /// Asked for.
        heads: usize,
        /// The six widths.
        widths: [usize; 6],
        /// Divisors of all, in words.
        possible: String,
    },
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations {
    /// Layers, student and teacher.
    pub layers: [usize; 2],
    /// Relation heads.
    pub heads: usize,
    /// Widths of queries, keys and values of both.
    pub widths: [[usize; 3]; 2],
}

fn attention<'s>(spec: &'s ModelSpec, layer: usize, side: &'static str) -> Result<&'s AttentionSpec, RelationError> {
    let last = spec.layers.len().saturating_sub(1);
    let found = spec.layers.get(layer).ok_or(RelationError::NoLayer { side, layer, last })?;
    found.attention().ok_or(RelationError::NoAttention { side, layer })
}

/// The last layer with attention, of a deep model the last among the first five sixths.
fn usual_layer(spec: &ModelSpec, of_teacher: bool) -> usize {
    let count = spec.layers.len();
    let first = if of_teacher && count > SHALLOW { count * 5 / 6 } else { count };
    (0..first).rev().find(|&layer| spec.layers[layer].attention().is_some()).unwrap_or(first.saturating_sub(1))
}

impl Relations {
    /// The relations that a run compares; `None` where its loss has none.
    ///
    /// # Errors
    /// [`RelationError`].
    pub fn of(student: &ModelSpec, teacher: &ModelSpec, loss: &LossWeights) -> Result<Option<Self>, RelationError> {
        if !loss.uses(LossKind::Relations) {
            return Ok(None);
        }
        let usual = || (usual_layer(student, false), usual_layer(teacher, true));
        let (own, other) = loss.relation_layers.unwrap_or_else(usual);
        let widths = [attention(student, own, "student")?, attention(teacher, other, "teacher")?]
            .map(|spec| [spec.query_width(), spec.key_width(), spec.key_width()]);
        let all = widths.as_flattened();
        let least = all.iter().copied().min().unwrap_or(1);
        let divide = |heads: &usize| all.iter().all(|width| width % heads == 0);
        let possible = || (1..=least).filter(divide);
        let heads = match loss.relation_heads {
            Some(heads) if divide(&heads) => heads,
            Some(heads) => {
                let words: Vec<String> = possible().map(|heads| heads.to_string()).collect();
                let mut six = [0; 6];
                six.copy_from_slice(all);
                return Err(RelationError::Heads { heads, widths: six, possible: words.join(", ") });
            }
            None => possible().take_while(|heads| least / heads >= LEAST_WIDTH).last().unwrap_or(1),
        };
        Ok(Some(Relations { layers: [own, other], heads, widths }))
    }
}
