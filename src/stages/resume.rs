//! Resume state of a stage that was killed, beside its output: to which run it belongs, where its parts are, and when
//! it is removed. The files themselves are written by those who know them ([`crate::train::checkpoint`],
//! [`crate::quantize::resume`]).

use crate::disk::atomic::AtomicError;
use crate::quantize::resume::GptqResume;
use crate::train::checkpoint::{self, CheckpointError};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The resume state of one output.
#[derive(Clone, Debug)]
pub struct Resume {
    out: PathBuf,
    fingerprint: String,
}

impl Resume {
    /// The state of the run that `identity` decides and that writes `out`.
    pub fn of(out: &Path, identity: &Value) -> Self {
        Resume { out: out.to_owned(), fingerprint: checkpoint::fingerprint(identity) }
    }

    /// By which the state is known again.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Whether a run that wrote `out` has left a state.
    pub fn is_left(out: &Path) -> bool {
        checkpoint::path_beside(out).exists()
    }

    /// Whether the state that is there, if any, is of this run.
    ///
    /// # Errors
    /// A state of another run, or a damaged one.
    pub fn check(&self) -> Result<(), CheckpointError> {
        match Resume::is_left(&self.out) {
            true => self.groups().map(drop),
            false => Ok(()),
        }
    }

    /// The groups of matrices that GPTQ has done.
    ///
    /// # Errors
    /// A state of another run, a damaged one, or one that cannot be written.
    pub fn groups(&self) -> Result<GptqResume, CheckpointError> {
        GptqResume::open(&self.out, &self.fingerprint)
    }

    /// Where a training keeps its state that is one step of several.
    pub fn training(&self) -> PathBuf {
        checkpoint::path_beside(&self.out).join("training")
    }

    /// Forgets a state that would only lead to the same refusal.
    pub fn refused(&self) {
        drop(checkpoint::forget(&self.out));
    }

    /// Forgets the state: the output is in place.
    ///
    /// # Errors
    /// A directory that cannot be removed.
    pub fn finished(self) -> Result<(), AtomicError> {
        checkpoint::forget(&self.out)
    }
}
