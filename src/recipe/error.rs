//! Why a recipe is not run, or its run has no result. Mistakes in the file itself are [`Mistakes`], all of them at
//! once.

use super::mistake::Mistakes;
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::disk::schema::SchemaError;
use crate::eval::EvalError;
use std::path::PathBuf;

/// Why a recipe has no result.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// An input cannot be read.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Lock, cache or an input of the quickstart cannot be written.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// An input is not the one that the lock names.
    #[error("{}: {difference}; restore the input, or run with --update-lock if the change is meant", path.display())]
    LockDiffers {
        /// Path of the lock.
        path: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// The file beside the recipe is not a lock.
    #[error("{} is not a lock of slmc; remove it, or run with --update-lock", path.display())]
    LockSchema {
        /// Path of the lock.
        path: PathBuf,
        /// Line and reason.
        source: SchemaError,
    },
    /// The lock cannot be read.
    #[error("{}: cannot be read", path.display())]
    LockRead {
        /// Path of the lock.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The directory of the cache cannot be written.
    #[error("{}: cannot be written; check permissions and space of the working directory", path.display())]
    CacheDirectory {
        /// Path of the directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A directory for outputs cannot be written.
    #[error("{}: cannot be written; pass another --out", path.display())]
    OutDirectory {
        /// Path of the directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A stage failed.
    #[error("stage `{stage}` ({kind}) failed; what is finished is kept, repeat the command to go on from here")]
    Stage {
        /// Name of the stage.
        stage: String,
        /// Its subcommand.
        kind: &'static str,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sample cannot be generated.
    #[error("the sample of {of} cannot be made")]
    Sample {
        /// The model that should have continued the prompt.
        of: String,
        /// The reason.
        source: EvalError,
    },
}
