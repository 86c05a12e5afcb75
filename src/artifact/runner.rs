//! A model as an artifact for this machine: the service that rooms below compilation ask of those above it. They hand it
//! down as `&dyn ModelRunner` and know neither how an artifact is made nor who makes it.

use crate::model::weights::Model;

/// Why a model does not run as an artifact.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunnerError(String);

impl RunnerError {
    /// The error, as its text.
    pub fn new(error: impl std::fmt::Display) -> Self {
        RunnerError(error.to_string())
    }
}

/// Makes artifacts of models, without text.
pub trait ModelRunner: Sync {
    /// The bytes of a quantized model as an artifact for `context` positions, on a device called `name` without limits, in
    /// the layout that this machine's kernels are made for. Its output has a row for every token, also where the model would pool them.
    ///
    /// # Errors
    /// [`RunnerError`].
    fn artifact(&self, model: &Model, name: &str, context: Option<usize>) -> Result<Vec<u8>, RunnerError>;
}
