//! A log that this program writes, as a device does: records are appended to the file and never rewritten. With a key every
//! answer is followed by a seal. The secret bytes of a log stay where the key is, so a log that was sealed by them on this
//! machine can be written anew by whoever has that file; on a device the key moves on and is wiped.

use super::chain::{Chain, Fault, LogFile};
use super::keys::{SealKeys, SealingKey};
use super::{AuditError, Broken};
use crate::artifact::host::ArtifactFile;
use crate::disk::hash::hex;
use crate::eval::generate::{Logged, Stop};
use crate::eval::opened::OpenedModel;
use slm_runtime::audit::{self, AuditLog, AuditRecord, End, Event, Follows, Kind, LogKey, Outcome, SealKind};
use slm_runtime::sample::Sampling;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A log of the answers of one artifact.
pub struct LogWriter {
    path: PathBuf,
    file: File,
    log: AuditLog,
    key: Option<SealingKey>,
    artifact: [u8; 32],
}

/// A question with its answer, as tokens.
pub struct Answered<'a> {
    /// What was read.
    pub input: &'a [u32],
    /// What was answered, without the token that ends a text.
    pub output: &'a [u32],
    /// How tokens were chosen.
    pub sampling: &'a Sampling,
    /// Seed of the draws.
    pub seed: u64,
    /// Why there are no more.
    pub stop: Stop,
    /// What the output follows.
    pub follows: Follows,
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Length => End::Length,
            Stop::End => End::Model,
            Stop::Context => End::Context,
            Stop::Closed | Stop::Interrupted => End::Stopped,
        }
    }
}

impl LogWriter {
    /// Opens a log, or goes on with one whose records are sound, and notes that the artifact was opened.
    ///
    /// # Errors
    /// The model is a directory, the log is broken or in use.
    pub fn open(path: &Path, key: Option<&str>, model: &OpenedModel, name: &Path) -> Result<Self, AuditError> {
        let file = model.as_artifact().ok_or_else(|| AuditError::NotAnArtifact { path: name.to_owned() })?;
        let artifact = digest_of(file)?;
        let key = key.map(SealingKey::read).transpose()?;
        let io = |action| move |source| AuditError::Io { action, path: path.to_owned(), source };
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(io("written"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::InUse { path: path.to_owned() }),
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        let written = LogFile::open(path)?;
        let chain = checked(path, &written)?;
        let secret = match &key {
            Some(SealingKey::Secret(key)) => Some(moved_on(path, &chain, LogKey::new(key.bytes()))?),
            _ => None,
        };
        let log = match chain.last() {
            Some(last) => AuditLog::resume(last, secret),
            None => Ok(AuditLog::new(secret)),
        };
        let log = log.map_err(|error| AuditError::Write { path: path.to_owned(), error })?;
        let mut writer = LogWriter { path: path.to_owned(), file, log, key, artifact };
        writer.append(|log, append| log.event(&artifact, Event::Opened(0), now(), append))?;
        Ok(writer)
    }

    /// The key that seals.
    pub fn key(&self) -> Option<&SealingKey> {
        self.key.as_ref()
    }

    /// Appends a question with its answer, and a seal where there is a key.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn answered(&mut self, answered: &Answered<'_>) -> Result<Logged, AuditError> {
        let mut exchange = self.log.exchange(answered.sampling, answered.seed);
        exchange.input(answered.input);
        exchange.output(answered.output);
        let outcome = Outcome { status: 0, end: answered.stop.into(), follows: answered.follows };
        let (artifact, sequence) = (self.artifact, self.log.sequence().unwrap_or(u64::MAX));
        self.append(|log, append| log.inference(&artifact, exchange, outcome, now(), append))?;
        match self.key.take() {
            None => {}
            Some(SealingKey::Signing(key)) => {
                let sealed = self.append(|log, append| log.seal_by(&mut &*key, now(), append));
                self.key = Some(SealingKey::Signing(key));
                sealed?;
            }
            Some(secret) => {
                self.key = Some(secret);
                self.append(|log, append| log.seal(now(), append))?;
            }
        }
        Ok(Logged { file: self.path.clone(), sequence, head: hex(self.log.head()) })
    }

    fn append(
        &mut self,
        record: impl FnOnce(&mut AuditLog, audit::log::Append<'_>) -> Result<(), audit::AuditError>,
    ) -> Result<(), AuditError> {
        let LogWriter { path, file, log, .. } = self;
        let mut failure = None;
        let written = record(log, &mut |record| {
            let whole = file.metadata().map(|before| before.len());
            let written = file.write_all(record).and_then(|()| file.sync_data());
            if let (Err(_), Ok(whole)) = (&written, whole) {
                // A part of a record would make the log one that was cut. Where that fails too, it is said when it is opened.
                let _ = file.set_len(whole);
            }
            written.map_err(|error| failure = Some(error)).is_ok()
        });
        match (written, failure) {
            (_, Some(source)) => Err(AuditError::Io { action: "written", path: path.clone(), source }),
            (Err(error), None) => Err(AuditError::Write { path: path.clone(), error }),
            (Ok(()), None) => Ok(()),
        }
    }
}

/// The digest that records name an artifact by.
pub(super) fn digest_of(file: &ArtifactFile) -> Result<[u8; 32], AuditError> {
    Ok(file.view()?.header().device_digest)
}

/// The records that are there. A log that goes on from an earlier file begins with any number.
fn checked<'l>(path: &Path, written: &'l LogFile) -> Result<Chain<'l>, AuditError> {
    Chain::check(written.bytes(), written.start())
        .map_err(|broken| AuditError::Broken { path: path.to_owned(), broken })
}

/// The secret key, past the number of every seal in the log.
fn moved_on(path: &Path, chain: &Chain<'_>, mut key: LogKey) -> Result<LogKey, AuditError> {
    let of_key = |record: &AuditRecord| {
        record.kind == Kind::Seal as u8 && record.status == SealKind::Hmac as u16 && record.artifact == *key.name()
    };
    let Some(last) = chain.iter().filter(of_key).last() else { return Ok(key) };
    // Only a number that the key itself has sealed is believed: it says how often to move on.
    let mut keys = SealKeys::of(key.clone());
    keys.check(&last).map_err(|fault: Fault| AuditError::Broken {
        path: path.to_owned(),
        broken: Broken { record: last.sequence, fault },
    })?;
    while key.number() <= last.tokens_in {
        key.advance();
    }
    Ok(key)
}

/// Seconds since 1970; 0 where the clock stands before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
