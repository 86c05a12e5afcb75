//! Why an ONNX model of slmc's is not read. Why one is not written is said by the errors of exports.

use std::path::PathBuf;

/// Why an ONNX model of slmc's is not read.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be opened.
    #[error("{}: cannot be read; it belongs to the exported model, export that again", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not the messages of an exported model.
    #[error("{}: not an ONNX model that slmc exported: {problem}; export the model again", file.display())]
    Message {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor breaks the format.
    #[error("{}: tensor `{tensor}` {problem}; the file is damaged, export the model again", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
}
