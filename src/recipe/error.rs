//! Why a recipe is not run, or its run has no result. Mistakes in the file itself are [`Mistakes`], all of them at
//! once.

use super::mistake::Mistakes;
use crate::disk::atomic::AtomicError;
use crate::disk::hash::HashError;
use crate::disk::schema::SchemaError;
use crate::eval::EvalError;
use crate::formats::adapter::error::AdapterError;
use crate::store::StoreError;
use std::path::PathBuf;

/// Why a recipe has no result.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// An artifact cannot be signed.
    #[error("{0:#}")]
    Sign(anyhow::Error),
    /// Nothing can be stated of the artifacts.
    #[error(transparent)]
    Attest(#[from] crate::attest::AttestError),
    /// A base for adapters, and none among the inputs.
    #[error(transparent)]
    Base(#[from] AdapterError),
    /// An input cannot be read.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Lock, cache or an input of the quickstart cannot be written.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// A stage has no result to take limits from.
    #[error("stage `{stage}` has no result in the caches; run `slmc run {}` first", recipe.display())]
    NotMeasured {
        /// The stage.
        stage: String,
        /// The recipe.
        recipe: PathBuf,
    },
    /// No stage measures anything that can be limited.
    #[error("{}: no stage measures anything that a gate limits; add a compile or an eval stage", recipe.display())]
    NothingMeasured {
        /// The recipe.
        recipe: PathBuf,
    },
    /// Nothing can be written for the time of a run.
    #[error("no temporary directory can be made; set TMPDIR to one that can be written")]
    Temporary {
        /// The reason.
        source: std::io::Error,
    },
    /// The lock beside the recipe has none of its stages.
    #[error("{}: is the lock of another recipe: it has results of {stages}, which are no stages of this one; move it away, or run with --update-lock to write it anew", path.display())]
    LockOfAnother {
        /// Path of the lock.
        path: PathBuf,
        /// Its stages.
        stages: String,
    },
    /// An input is not the one that the lock names.
    #[error("{}: {difference}; restore the input, or run with --update-lock if the change is meant", path.display())]
    LockDiffers {
        /// Path of the lock.
        path: PathBuf,
        /// Every difference.
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
    /// A lock of another version.
    #[error("{}: is a lock of version {found}, this slmc has version {known}; run with --update-lock to write it anew", path.display())]
    LockVersion {
        /// Path of the lock.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read.
        known: u32,
    },
    /// With `--locked`: something is another than the lock says.
    #[error("{}: {fault}; --locked refuses that: {}", path.display(), locked_remedy(fault))]
    Locked {
        /// Path of the lock.
        path: PathBuf,
        /// The difference.
        fault: String,
    },
    /// The program's own file, which is part of the keys of results, cannot be found.
    #[error("the program's own file cannot be found")]
    Program {
        /// The reason.
        source: std::io::Error,
    },
    /// A cache cannot be used.
    #[error(transparent)]
    Cache(#[from] StoreError),
    /// A result that must come from a cache is in none.
    #[error("the result of stage `{stage}` is in none of the caches ({why}); compute it first: slmc run {}{settings} --only {stage}", recipe.display())]
    NotCached {
        /// Name of the stage.
        stage: String,
        /// Why it would have to run.
        why: String,
        /// The recipe.
        recipe: PathBuf,
        /// What was set over it, as options.
        settings: String,
    },
    /// A command names no stage.
    #[error("the recipe has no stage `{name}`; {hint}")]
    UnknownStage {
        /// As given.
        name: String,
        /// The nearest name, or all.
        hint: String,
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
    /// No thread for a stage.
    #[error("a stage cannot run beside another one; pass --jobs 1")]
    Thread {
        /// The reason.
        source: std::io::Error,
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

/// What to do about a lock that does not agree.
fn locked_remedy(fault: &str) -> &'static str {
    match fault {
        INPUTS_ALONE => {
            "run once without it on this class of machine, and commit the lock with the results that are in it then"
        }
        _ => "if the change is meant, run without it and commit the lock",
    }
}

/// The fault of a lock in which no stage has a result yet.
pub(super) const INPUTS_ALONE: &str = "names inputs alone, and no result that a run could be compared with";
