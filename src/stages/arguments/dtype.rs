//! Data types of weights as people write them.

use crate::disk::DenseType;

/// A data type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names are those of the types")]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    /// As tensors have it.
    pub fn stored(self) -> DenseType {
        match self {
            Dtype::F32 => DenseType::F32,
            Dtype::F16 => DenseType::F16,
            Dtype::Bf16 => DenseType::Bf16,
        }
    }
}
