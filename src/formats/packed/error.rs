//! Why packed weights of another tool cannot be read: the file and the tensor, what was found, what was expected and what
//! to do. Values of a configuration are refused as everywhere, by key.

use std::path::PathBuf;

/// Why packed weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// A tensor that goes with another one is not there.
    #[error("{}: tensor `{tensor}` is missing, which {method} stores beside `{beside}`; fetch the checkpoint again", file.display())]
    Missing {
        /// The file of the other one.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The other one.
        beside: String,
        /// The method.
        method: &'static str,
    },
    /// The tensors of one matrix do not fit each other.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected}; its tensors do not belong together, fetch the checkpoint again", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: String,
    },
    /// A value of a small tensor is out of range.
    #[error("{}: tensor `{tensor}`: element {index} is {found}, expected {expected}; the checkpoint is damaged, fetch it again", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        found: i64,
        /// The range.
        expected: String,
    },
    /// Something valid whose meaning is not certain.
    #[error("{}: tensor `{tensor}`: {problem}", file.display())]
    Unclear {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is not certain, and what to do.
        problem: String,
    },
    /// The configuration speaks of packed weights, and there are none.
    #[error("{}: `{key}` says that the weights are packed by {method}, and there is no tensor `…{end}`; fetch the weights that belong to it, or remove the key", file.display())]
    NothingPacked {
        /// The configuration.
        file: PathBuf,
        /// The key.
        key: String,
        /// The method.
        method: &'static str,
        /// How names of packed tensors end.
        end: &'static str,
    },
    /// A matrix is there twice.
    #[error("{}: tensor `{tensor}` stands beside the packed `{packed}`; remove one of the two", file.display())]
    Twice {
        /// The file.
        file: PathBuf,
        /// The plain one.
        tensor: String,
        /// The packed one.
        packed: String,
    },
}
