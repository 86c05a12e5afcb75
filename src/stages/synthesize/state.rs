//! What a run that was killed has written: beside the output, `OUT.checkpoint` holds a file for every batch of texts that is
//! done, written whole before the next begins. A fingerprint of settings and inputs says which run it belongs to.
//!
//! ```text
//! batch-N.json   a list of [tokens, bits of the log-probability, end token or null], in the order of the batch
//! ```

use crate::calibrate::continuations::Continuation;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{self, NewDirectory};
use crate::train::checkpoint::{CheckpointError, path_beside};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The batches of an output that are done.
pub(super) struct Batches {
    directory: PathBuf,
}

/// First bytes of a batch.
const MAGIC: &[u8] = b"[[[";

type Stored = (Vec<u32>, u64, Option<u32>);

impl Batches {
    /// The state of the run with this fingerprint that writes `out`; begun where there is none.
    ///
    /// # Errors
    /// The state of another run, a damaged one, or one that cannot be written.
    pub(super) fn open(out: &Path, fingerprint: &str) -> Result<Self, CheckpointError> {
        let directory = path_beside(out);
        if !directory.exists() {
            let new = NewDirectory::begin(&directory)?;
            let about = json!({"schema": "slmc.synthesize-checkpoint/1", "fingerprint": fingerprint});
            let failed = |source| CheckpointError::Write { path: new.path().join(PROVENANCE_FILE), source };
            new.write(PROVENANCE_FILE, about.to_string()).map_err(failed)?;
            new.commit()?;
            return Ok(Batches { directory });
        }
        let damaged = |fault: String| CheckpointError::Damaged { path: directory.clone(), fault };
        let about = std::fs::read(directory.join(PROVENANCE_FILE)).map_err(|error| damaged(error.to_string()))?;
        let about: Value = serde_json::from_slice(&about).map_err(|error| damaged(error.to_string()))?;
        if about["fingerprint"] != fingerprint {
            return Err(CheckpointError::OtherRun { path: directory });
        }
        Ok(Batches { directory })
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.join(format!("batch-{number}.json"))
    }

    /// A batch of `count` texts, if it is done.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`].
    pub(super) fn load(&self, number: usize, count: usize) -> Result<Option<Vec<Continuation>>, CheckpointError> {
        let path = self.file(number);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |fault: String| CheckpointError::Damaged { path: path.clone(), fault };
        let bytes = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        let stored: Vec<Stored> = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.len() != count {
            return Err(damaged(format!("holds {} texts, expected {count}", stored.len())));
        }
        let text = |(tokens, bits, end)| Continuation { tokens, log_probability: f64::from_bits(bits), end };
        Ok(Some(stored.into_iter().map(text).collect()))
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// [`CheckpointError::Output`].
    pub(super) fn save(&self, number: usize, batch: &[Continuation]) -> Result<(), CheckpointError> {
        let of = |text: &Continuation| (text.tokens.clone(), text.log_probability.to_bits(), text.end);
        let stored: Vec<Stored> = batch.iter().map(of).collect();
        let text = json!(stored).to_string();
        Ok(atomic::write_file(&self.file(number), MAGIC, |file| file.write_all(text.as_bytes()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_back_to_the_bit_and_only_to_their_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().join("a.jsonl");
        let batch = vec![
            Continuation { tokens: vec![1, 2], log_probability: -1.0 / 3.0, end: Some(7) },
            Continuation { tokens: Vec::new(), log_probability: 0.0, end: None },
        ];
        Batches::open(&out, "one").expect("begun").save(3, &batch).expect("written");
        let again = Batches::open(&out, "one").expect("there");
        assert_eq!(again.load(3, 2).expect("whole"), Some(batch));
        assert_eq!(again.load(2, 2).expect("absent"), None);
        assert!(matches!(again.load(3, 1), Err(CheckpointError::Damaged { .. })));
        assert!(matches!(Batches::open(&out, "other"), Err(CheckpointError::OtherRun { .. })));
    }
}
