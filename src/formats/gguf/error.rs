//! Why a GGUF file cannot be opened. Every message names the file and the key or the tensor, and says what to do.

use crate::disk::Found;
use std::path::{Path, PathBuf};

/// Why a GGUF file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{}: {found}", file.display())]
    Found {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: Found,
    },
    /// A version that is not read.
    #[error("{}: {}", file.display(), version_remedy(*version))]
    Version {
        /// The file.
        file: PathBuf,
        /// The version.
        version: u32,
    },
    /// Header, keys or descriptions break the format.
    #[error("{}: not a valid GGUF file ({problem}); it is damaged, fetch it again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The fault.
        problem: String,
    },
    /// The description of a tensor breaks the format.
    #[error("{}: tensor `{tensor}` {problem}; the file is damaged, fetch it again", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The fault.
        problem: String,
    },
    /// The file ends before the data of a tensor does.
    #[error("{}: tensor `{tensor}` ends at byte {end} of a file of {length}; the file is truncated, fetch it again", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where its data ends.
        end: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A block type that is not decoded.
    #[error(
        "{}: tensor `{tensor}` is stored as {found}, which slmc does not decode (it decodes F32, F16, BF16, Q4_0, Q4_1, Q5_0, \
         Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS); pass a file of another quantization, or the directory it was made from",
        file.display()
    )]
    BlockType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// The file holds something else than a model.
    #[error("{}: `general.type` is `{found}`, expected `model`; pass the file of the model itself", file.display())]
    NotAModel {
        /// The file.
        file: PathBuf,
        /// What it holds.
        found: String,
    },
    /// An architecture that maps onto no family.
    #[error("{}: `general.architecture` is `{found}`; slmc supports {supported}", file.display())]
    Architecture {
        /// The file.
        file: PathBuf,
        /// The architecture.
        found: String,
        /// Those that are known.
        supported: String,
    },
    /// A key is absent.
    #[error("{}: key `{key}` is missing, expected {expected}; the file was not made for this architecture, convert the model again", file.display())]
    MissingKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The values it may have.
        expected: String,
    },
    /// A value has another type, or is out of range or not supported.
    #[error("{}: `{key}` is {found}, expected {expected}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        found: String,
        /// The values accepted.
        expected: String,
    },
    /// A key of the architecture that may mean another computation.
    #[error(
        "{}: key `{key}` is not one that slmc knows for `{architecture}`, and may stand for another computation; convert the \
         model again without it, or pass the Hugging Face directory",
        file.display()
    )]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The architecture.
        architecture: &'static str,
    },
    /// A tensor that the model needs is not there.
    #[error("{}: tensor `{tensor}` is missing, expected shape {shape:?} by the keys of the file; it is incomplete, or its keys are another model's", file.display())]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape, outermost dimension first.
        shape: Vec<usize>,
    },
    /// A table, whose rows say a size, is not there or is something else.
    #[error("{}: tensor `{tensor}` is missing or is not a matrix, expected rows of {columns} values; the file is incomplete, or its keys are another model's", file.display())]
    Table {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Values of a row.
        columns: usize,
    },
    /// A tensor has another shape than the keys say.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?} by the keys of the file; the two do not belong together", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// By the keys, outermost dimension first.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor that has no place.
    #[error("{}: tensor `{tensor}` has no place in {family} with these keys; slmc drops nothing silently: pass the Hugging Face directory it was made from", file.display())]
    ExtraTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The family.
        family: &'static str,
    },
    /// Rotary frequencies that no setting of the family gives.
    #[error("{}: tensor `{tensor}` {problem}; pass the Hugging Face directory", file.display())]
    Frequencies {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it is.
        problem: String,
    },
    /// A part of a model in several files that is not the first.
    #[error("{}: part {} of {count}; pass the first, {}", file.display(), number + 1, first.display())]
    NotTheFirst {
        /// The file.
        file: PathBuf,
        /// Its number, from 0 on.
        number: usize,
        /// How many there are.
        count: usize,
        /// The path of the first.
        first: PathBuf,
    },
    /// A part of a model in several files is not there.
    #[error("{}: is missing, part {} of {count}; fetch it", file.display(), number + 1)]
    MissingPart {
        /// The file.
        file: PathBuf,
        /// Its number, from 0 on.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The first part of a model in several files has a name by which the others cannot be found.
    #[error("{}: part 1 of {count} is not called `…-00001-of-{count:05}.gguf`, so the others cannot be found; give all parts the names they were fetched by", file.display())]
    PartName {
        /// The file.
        file: PathBuf,
        /// How many parts there are.
        count: usize,
    },
    /// A part of a model in several files that is not of the same model.
    #[error("{}: {problem}; the parts do not belong together, fetch them again", file.display())]
    Part {
        /// The file.
        file: PathBuf,
        /// The fault.
        problem: String,
    },
}

impl GgufError {
    /// [`GgufError::Tensor`].
    pub(super) fn tensor(file: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        GgufError::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), problem: problem.into() }
    }
}

fn version_remedy(version: u32) -> String {
    match version {
        0x0200_0000 | 0x0300_0000 => "a GGUF file in big-endian order; convert it with gguf-convert-endian".to_owned(),
        _ => format!("GGUF version {version}; slmc reads 2 and 3: convert the model again"),
    }
}
