//! Why a model cannot be calibrated, rounded or trained after it was changed. Every message names the fault, the
//! input, and the option that helps.

use crate::calibrate::CalibrateError;
use crate::calibrate::probe::ProbeError;
use crate::model::weights::ModelError;
use crate::text::conversations::ConversationsError;
use crate::text::records::TextError;
use crate::text::tokenizer::TokenizerError;
use crate::text::windows::WindowError;
use crate::train::checkpoint::CheckpointError;
use crate::train::retrain::RetrainError;
use crate::train::samples::SamplesError;
use std::path::PathBuf;

/// Why there is not a text to calibrate with or to train on.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The file is refused.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer is refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The conversations are refused.
    #[error(transparent)]
    Conversations(#[from] ConversationsError),
    /// The text gives no windows.
    #[error("{}: {source}", path.display())]
    Window {
        /// The text.
        path: PathBuf,
        /// The reason.
        source: WindowError,
    },
    /// The text is too short.
    #[error(
        "{}: {found} sequences of calibration text with {tokens} tokens in all, {needed} sequences or more are needed; pass a longer text, or none to use the default",
        path.display()
    )]
    TooLittle {
        /// The file.
        path: PathBuf,
        /// Sequences there are.
        found: usize,
        /// Their tokens.
        tokens: usize,
        /// Sequences needed.
        needed: usize,
    },
    /// Fewer tokens were asked for than the fewest sequences have.
    #[error(
        "{tokens} calibration tokens are not {needed} sequences of {window}, which are needed; raise --calibration-tokens to {} or more",
        needed * window
    )]
    TooFewTokens {
        /// Asked for.
        tokens: usize,
        /// Sequences needed.
        needed: usize,
        /// Tokens of each.
        window: usize,
    },
    /// Nothing is calibrated through both stacks.
    #[error(
        "{family} is an encoder-decoder, through which slmc does not calibrate; train, distill, evaluate and generate in f32"
    )]
    EncoderDecoder {
        /// The model.
        family: &'static str,
    },
    /// Only decoders can sample, to calibrate with.
    #[error("--mix-self lets a decoder sample from itself, and this model is an encoder; pass a text alone")]
    Encoder,
    /// Only decoders can sample, to train on.
    #[error("--data self lets a decoder sample from itself, and this model is an encoder; pass files")]
    EncoderData,
    /// The weights cannot be read, or give no text.
    #[error("the model cannot sample from itself: {0}; pass a text with --calibration")]
    Sample(#[from] CalibrateError),
    /// The files to train on are refused.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// The weights are refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Why a model is not rounded, equalised or tuned.
#[derive(Debug, thiserror::Error)]
pub enum RoundingError {
    /// The text to measure on is refused.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The calibration run failed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The weights are refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The state of an interrupted run is refused, or cannot be saved.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Training on the grid failed.
    #[error(transparent)]
    Train(#[from] RetrainError),
    /// The rounded model could not be judged.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}
