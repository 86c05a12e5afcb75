//! Why a log is refused, or not written.

use super::chain::Broken;
use crate::artifact::host::ArtifactError;
use crate::eval::EvalError;
use crate::seal::SealingError;
use crate::trust::TrustError;
use slm_runtime::audit;
use std::path::PathBuf;

/// A log that is damaged or was changed, or that nothing can be done with.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read or written.
    #[error("{}: cannot be {action}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A record is not what its writer wrote.
    #[error("{}: {broken}", path.display())]
    Broken {
        /// The log.
        path: PathBuf,
        /// Which record, and why.
        broken: Broken,
    },
    /// The file is something else.
    #[error("{}: not an audit log: its first bytes are not `SLML`; pass a file of 160-byte records, as `slmc generate --audit` and the log of a device have them", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// There are no records.
    #[error("{}: holds no record: the log was emptied, or nothing was ever written", path.display())]
    Empty {
        /// The log.
        path: PathBuf,
    },
    /// No record has the head that is kept elsewhere.
    #[error(
        "{}: none of its {records} records has the head {head}: records were cut off its end, or it is the head of another log",
        path.display()
    )]
    Head {
        /// The log.
        path: PathBuf,
        /// Records that there are.
        records: usize,
        /// The head that was given.
        head: String,
    },
    /// Fewer records than a counter kept elsewhere says.
    #[error("{}: holds {records} records, and the counter says {least}: records were cut off its end", path.display())]
    Count {
        /// The log.
        path: PathBuf,
        /// Records that there are.
        records: usize,
        /// Records that there must be.
        least: u64,
    },
    /// No seal, though a key was given.
    #[error(
        "{}: holds no seal by a key that was given: either it was never sealed, or somebody wrote it anew without seals",
        path.display()
    )]
    NoSeal {
        /// The log.
        path: PathBuf,
    },
    /// A text that is not a digest.
    #[error("`{text}` is not a head: expected the 64 hexadecimal digits that `slmc audit` and slm_audit_head give")]
    NotAHead {
        /// What was passed.
        text: String,
    },
    /// Keyed digests without the key.
    #[error(
        "{}: the digests of record {record} are keyed, and no key was given that makes them; pass the log's secret key with --log-key",
        path.display()
    )]
    Keyed {
        /// The log.
        path: PathBuf,
        /// The record.
        record: u64,
    },
    /// A row of the prompts.
    #[error("{}:{line}: {fault}", path.display())]
    Prompt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault and the remedy.
        fault: String,
    },
    /// Replaying without an artifact.
    #[error("--replay runs the artifacts that the log names; pass them with --artifact FILE.slm")]
    NoArtifact,
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] TrustError),
    /// Neither of the two kinds of key.
    #[error("{place}: is neither a public key in PEM ({public}) nor a log's secret key ({secret})")]
    NeitherKey {
        /// The place.
        place: String,
        /// Why it is not the one.
        public: String,
        /// Why it is not the other.
        secret: String,
    },
    /// An artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// An artifact's weights are in cipher, and no key was given.
    #[error("{}: its weights are sealed, and its answers are computed only with a key that opens them: add --device-key KEY", path.display())]
    Sealed {
        /// The artifact.
        path: PathBuf,
    },
    /// None of the keys opens an artifact's weights.
    #[error("{}: {error}", path.display())]
    Closed {
        /// The artifact.
        path: PathBuf,
        /// Why the last of the keys does not.
        error: SealingError,
    },
    /// The file's weights have no room in memory.
    #[error("{}: no memory for its open weights", path.display())]
    NoMemory {
        /// The artifact.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A model cannot be run.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A directory has no digest that records could name.
    #[error("{}: only artifacts are logged, since a record names its artifact by digest; compile it first, or leave --audit out", path.display())]
    NotAnArtifact {
        /// The model.
        path: PathBuf,
    },
    /// The log is in use.
    #[error("{}: another process writes this log; wait for it, or pass another file", path.display())]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// A record was not written.
    #[error("{}: {error}", path.display())]
    Write {
        /// The log.
        path: PathBuf,
        /// Why.
        error: audit::AuditError,
    },
}
