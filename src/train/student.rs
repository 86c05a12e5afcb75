//! Builds a student from some layers of its teacher, and maps the student's layers to the teacher's for comparison.

use crate::model::id::{LinearId, ParameterId};
use crate::model::spec::ModelSpec;
use std::collections::BTreeMap;

/// An invalid list of layers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayerError {
    /// An empty list.
    #[error("the list of layers is empty; name at least one, such as --layers 0,2,4")]
    Empty,
    /// A layer the teacher does not have.
    #[error("layer {layer} is not there: the teacher has layers 0 to {last}")]
    OutOfRange {
        /// The layer asked for.
        layer: usize,
        /// The teacher's last.
        last: usize,
    },
    /// Not in order, or twice.
    #[error("layers must ascend, each once: {after} comes after {before}")]
    Order {
        /// The one before.
        before: usize,
        /// The one after it.
        after: usize,
    },
    /// A map of layers between models of two stacks.
    #[error(
        "a layer map is for models of one stack; leave it out: the layers of each stack are spread evenly over the teacher's"
    )]
    Stacks,
    /// The map has another length than the student.
    #[error("the layer map has {found} entries, the student {expected} layers; give one teacher layer for each")]
    MapLength {
        /// Student layers.
        expected: usize,
        /// Entries.
        found: usize,
    },
}

fn check(layers: &[usize], teacher_layers: usize) -> Result<(), LayerError> {
    if layers.is_empty() {
        return Err(LayerError::Empty);
    }
    if let Some(&layer) = layers.iter().find(|&&layer| layer >= teacher_layers) {
        return Err(LayerError::OutOfRange { layer, last: teacher_layers.saturating_sub(1) });
    }
    Ok(())
}

/// The teacher's specification with only these layers.
pub fn take_layers(teacher: &ModelSpec, layers: &[usize]) -> Result<ModelSpec, LayerError> {
    check(layers, teacher.layers.len())?;
    if let Some(pair) = layers.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(LayerError::Order { before: pair[0], after: pair[1] });
    }
    let mut spec = teacher.clone();
    spec.layers = layers.iter().map(|&layer| teacher.layers[layer]).collect();
    Ok(spec)
}

/// The parameter of the teacher from which a student's parameter is initialised.
pub fn teacher_parameter(id: ParameterId, layers: &[usize]) -> ParameterId {
    let of = |layer: u16| layers.get(layer as usize).map_or(layer, |&layer| layer as u16);
    match id {
        ParameterId::Linear(LinearId { layer, role }, part) => {
            ParameterId::Linear(LinearId { layer: layer.map(of), role }, part)
        }
        ParameterId::Norm(layer, site, part) => ParameterId::Norm(layer.map(of), site, part),
        ParameterId::Kernel(layer, part) => ParameterId::Kernel(of(layer), part),
        ParameterId::KeyMap(layer, part) => ParameterId::KeyMap(of(layer), part),
    }
}

/// Pairs of hidden states that are compared, as indices counted from the embedding output: (student, teacher). Each
/// student layer's output goes with the output of a teacher layer, given or spread evenly so that the last meet, and
/// the embeddings with each other.
pub fn hidden_pairs(
    student_layers: usize,
    teacher_layers: usize,
    map: Option<&[usize]>,
) -> Result<Vec<(usize, usize)>, LayerError> {
    let of: Vec<usize> = match map {
        Some(map) => {
            check(map, teacher_layers)?;
            if map.len() != student_layers {
                return Err(LayerError::MapLength { expected: student_layers, found: map.len() });
            }
            map.iter().map(|&layer| layer + 1).collect()
        }
        None => (1..=student_layers)
            .map(|layer| (2 * layer * teacher_layers + student_layers) / (2 * student_layers))
            .collect(),
    };
    let pairs: BTreeMap<usize, usize> = std::iter::once((0, 0)).chain((1..=student_layers).zip(of)).collect();
    Ok(pairs.into_iter().collect())
}

/// [`hidden_pairs`] of two models; of encoder-decoders those of the encoders, then those of the decoders, counted as
/// [`crate::model::forward::Output::hidden_states`] has them.
///
/// # Errors
/// [`LayerError`]: a map that does not suit the models.
pub fn state_pairs(
    student: &ModelSpec,
    teacher: &ModelSpec,
    map: Option<&[usize]>,
) -> Result<Vec<(usize, usize)>, LayerError> {
    let all = [student, teacher].map(|spec| spec.layers.len());
    if student.stacks().is_none() {
        return hidden_pairs(all[0], all[1], map);
    }
    if map.is_some() {
        return Err(LayerError::Stacks);
    }
    let encoders = [student, teacher].map(ModelSpec::encoder_layers);
    let mut pairs = hidden_pairs(encoders[0], encoders[1], None)?;
    let decoders = hidden_pairs(all[0] - encoders[0], all[1] - encoders[1], None)?;
    pairs.extend(decoders.into_iter().map(|(own, other)| (encoders[0] + 1 + own, encoders[1] + 1 + other)));
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_spread_evenly_and_end_together() {
        assert_eq!(hidden_pairs(3, 6, None), Ok(vec![(0, 0), (1, 2), (2, 4), (3, 6)]));
        assert_eq!(hidden_pairs(2, 5, None), Ok(vec![(0, 0), (1, 3), (2, 5)]));
        assert_eq!(hidden_pairs(2, 6, Some(&[1, 4])), Ok(vec![(0, 0), (1, 2), (2, 5)]));
        assert_eq!(hidden_pairs(2, 6, Some(&[1])), Err(LayerError::MapLength { expected: 2, found: 1 }));
        assert_eq!(hidden_pairs(2, 6, Some(&[1, 6])), Err(LayerError::OutOfRange { layer: 6, last: 5 }));
    }
}
