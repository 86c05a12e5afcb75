//! Running a model as an artifact on this machine: the services that rooms below compilation ask of those above it.
//! They hand the model down as `&dyn ModelRunner` and know neither how an artifact is made nor who makes it.

use crate::model::weights::Model;
use crate::progress::Progress;
use slm_runtime::layout::Layout;

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

/// Makes artifacts of models, without text, and runs them.
pub trait ModelRunner: Sync {
    /// At least `tokens` tokens in sequences of `window`, drawn at temperature 1 from a dense decoder itself.
    ///
    /// # Errors
    /// [`RunnerError`].
    fn sample(
        &self,
        model: &Model,
        tokens: usize,
        window: usize,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<u32>>, RunnerError>;

    /// The bytes of a quantized model as an artifact for `context` positions, on a device called `name` without limits. Its
    /// output has a row for every token, also where the model would pool them.
    ///
    /// # Errors
    /// [`RunnerError`].
    fn artifact(
        &self,
        model: &Model,
        name: &str,
        layout: Layout,
        context: Option<usize>,
    ) -> Result<Vec<u8>, RunnerError>;
}
