//! Why training stopped: one error for the loop and everything it uses.

use super::checkpoint::CheckpointError;
use super::memory::NotEnoughMemory;
use super::privacy::PrivacyError;
use super::relations::RelationError;
use super::settings::SettingError;
use super::teacher_cache::TeacherCacheError;
use crate::model::forward::BatchError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is invalid.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The loss needs a teacher.
    #[error("--{option} needs a teacher, and there is none; pass --teacher to `slmc distill`, or leave --{option} out")]
    NoTeacher {
        /// The option of the first such loss.
        option: &'static str,
    },
    /// A file of answers cannot be used.
    #[error(transparent)]
    Cache(#[from] TeacherCacheError),
    /// Answers are for fused operations.
    #[error(
        "--teacher-cache is for fused operations, which this run has none of; take --backend flex, or leave it out"
    )]
    PlainCache,
    /// Relations cannot be compared.
    #[error(transparent)]
    Relations(#[from] RelationError),
    /// The data gives no sample.
    #[error("there is nothing to train on: the data gives no sample")]
    NoSamples,
    /// A batch does not suit the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A number is not finite.
    #[error(
        "step {step}: {what} is not finite, first seen in {place}; the checkpoint of step {checkpoint} is kept: lower \
         --learning-rate or check the data, and remove the checkpoint to start anew"
    )]
    NotFinite {
        /// From 0.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// Tensor or matrix.
        place: String,
        /// Step of the last checkpoint, 0 for none.
        checkpoint: u64,
    },
    /// The run cannot be private as it is asked for.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// The checkpoint cannot be used or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It would need more memory than is allowed.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Only fused operations compare relations.
    #[error("--relations is for fused operations, which this run has none of; take --backend flex, or leave it out")]
    PlainRelations,
    /// What training does not do with two stacks.
    #[error("{option} is not for encoder-decoders such as {family}; leave it out")]
    EncoderDecoder {
        /// The option.
        option: &'static str,
        /// The student.
        family: &'static str,
    },
    /// Only fused operations can compute layers again.
    #[error("--recompute is for fused operations, which this run has none of; take --backend flex, or leave it out")]
    Recompute,
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// All weights of the losses are 0 in a step.
    #[error("no part of the loss applies to a step; give one of the losses a weight throughout the run")]
    NoLoss,
    /// No worker is left.
    #[error("no worker is left: {lost}; {}", how_to_go_on(*checkpoint))]
    NoWorkers {
        /// Every worker, with the reason.
        lost: String,
        /// Step of the last checkpoint, 0 for none.
        checkpoint: u64,
    },
    /// Samples one by one, each of which would need all weights sent.
    #[error(
        "--dp-epsilon computes gradients sample by sample, and a worker would be sent all weights for each; take --backend flex"
    )]
    PrivateWorkers,
    /// Gradients of single samples are not made of exit heads.
    #[error(
        "--dp-epsilon clips the gradient of every sample, which is not done of exit heads; train the model without exits"
    )]
    PrivateExits,
}

fn how_to_go_on(checkpoint: u64) -> String {
    match checkpoint {
        0 => "there is no checkpoint yet: start workers and run the same command again".to_owned(),
        step => format!(
            "the checkpoint of step {step} is kept: start workers, these or others, and run the same command again to go on from it"
        ),
    }
}
