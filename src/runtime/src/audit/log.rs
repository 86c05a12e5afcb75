//! The writer: it knows the number of the next record and the digest of the last one, and hands whole records to the
//! caller. A record that the caller could not append is not counted: the next one takes its place.

use super::digests::Exchange;
use super::key::LogKey;
use super::record::{AuditRecord, End, Follows, Kind, MAGIC, SealKind, VERSION, chained, inference_status};
use crate::sample::Sampling;
use crate::sha256::Digest;

const ZEROS: Digest = [0; 32];

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditError {
    /// The caller could not append it.
    Append,
    /// The last record, after which the log goes on, has a field that no writer writes.
    Last(&'static str),
    /// The signer gave no signature.
    Signer,
    /// The log has no secret key to seal with.
    NoKey,
    /// The numbers of records, or of keys, are used up.
    Full,
}

impl core::fmt::Display for AuditError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AuditError::Append => f.write_str("the record could not be appended to the log"),
            AuditError::Last(field) => {
                write!(f, "the last record of the log has an illegal `{field}`: the log cannot go on after it")
            }
            AuditError::Signer => f.write_str("the signer gave no signature"),
            AuditError::NoKey => f.write_str("the log has no key to seal with"),
            AuditError::Full => f.write_str("the numbers of the log's records are used up: begin another log"),
        }
    }
}

impl core::error::Error for AuditError {}

/// Signs seals: a secure element, or software.
pub trait Signer {
    /// Ed25519 or ECDSA.
    fn kind(&self) -> SealKind;
    /// SHA-256 of the public key's SubjectPublicKeyInfo in DER.
    fn key_id(&self) -> Digest;
    /// The signature of a message; of ECDSA r and s, big-endian, over the message's SHA-256.
    fn sign(&mut self, message: &[u8]) -> Option<[u8; 64]>;
}

/// How an inference ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// 0, or the number of what went wrong.
    pub status: u8,
    /// Why there are no more tokens.
    pub end: End,
    /// What the output follows.
    pub follows: Follows,
}

/// Something that is not an inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An artifact was opened; 0, or the number of what went wrong.
    Opened(u8),
    /// What became of an update, by the caller's numbers, and the artifact that it replaces.
    Update(u8, Digest),
    /// A number and the digest of something that is kept elsewhere.
    Note(u8, Digest),
}

/// Receives a record of 160 bytes; `false` where it could not be appended.
pub type Append<'a> = &'a mut dyn FnMut(&[u8; AuditRecord::BYTES]) -> bool;

/// A log being written.
#[derive(Debug)]
pub struct AuditLog {
    /// Number of the next record; `None` where they are used up.
    sequence: Option<u64>,
    previous: Digest,
    key: Option<LogKey>,
}

impl AuditLog {
    /// A log without records. With a key, digests are keyed, and it can be sealed by it.
    pub fn new(key: Option<LogKey>) -> Self {
        AuditLog { sequence: Some(0), previous: ZEROS, key }
    }

    /// A log that goes on after its last record.
    pub fn resume(last: &[u8; AuditRecord::BYTES], key: Option<LogKey>) -> Result<Self, AuditError> {
        let record = AuditRecord::from_bytes(last);
        if let Some(field) = record.fault() {
            return Err(AuditError::Last(field));
        }
        Ok(AuditLog { sequence: record.sequence.checked_add(1), previous: chained(last), key })
    }

    /// Number of the next record; `None` where they are used up.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// What stands for the whole log: kept elsewhere, it shows that nothing up to here was changed or cut off.
    pub fn head(&self) -> &Digest {
        &self.previous
    }

    /// The secret key, at the number it has reached.
    pub fn key(&self) -> Option<&LogKey> {
        self.key.as_ref()
    }

    /// Begins a question.
    pub fn exchange(&self, sampling: &Sampling, seed: u64) -> Exchange {
        Exchange::new(self.key.as_ref().map(LogKey::digests), sampling, seed)
    }

    /// Records a question and its answer.
    pub fn inference(
        &mut self,
        artifact: &Digest,
        exchange: Exchange,
        outcome: Outcome,
        time: u64,
        append: Append<'_>,
    ) -> Result<(), AuditError> {
        let found = exchange.finish();
        let record = AuditRecord {
            status: inference_status(outcome.status, outcome.end, outcome.follows, found.keyed),
            tokens_in: found.tokens_in,
            tokens_out: found.tokens_out,
            artifact: *artifact,
            input: found.input,
            output: found.output,
            ..self.record(Kind::Inference, time)?
        };
        self.append(&record, append)
    }

    /// Records an event.
    pub fn event(&mut self, artifact: &Digest, event: Event, time: u64, append: Append<'_>) -> Result<(), AuditError> {
        let (kind, status, input) = match event {
            Event::Opened(status) => (Kind::Opened, status, ZEROS),
            Event::Update(status, old) => (Kind::Update, status, old),
            Event::Note(status, detail) => (Kind::Note, status, detail),
        };
        let record = AuditRecord { status: status.into(), artifact: *artifact, input, ..self.record(kind, time)? };
        self.append(&record, append)
    }

    /// Seals the log by its secret key, which then moves on, also where the seal could not be appended: no key seals twice.
    /// The caller keeps [`LogKey::save`] of it in the place of the one before.
    pub fn seal(&mut self, time: u64, append: Append<'_>) -> Result<(), AuditError> {
        let mut record = AuditRecord { status: SealKind::Hmac as u16, ..self.record(Kind::Seal, time)? };
        let key = self.key.as_mut().ok_or(AuditError::NoKey)?;
        if key.number() == u32::MAX {
            return Err(AuditError::Full);
        }
        (record.artifact, record.tokens_in) = (*key.name(), key.number());
        record.input = key.seal(&record.seal_message());
        key.advance();
        self.append(&record, append)
    }

    /// Seals the log by a signature.
    pub fn seal_by(&mut self, signer: &mut dyn Signer, time: u64, append: Append<'_>) -> Result<(), AuditError> {
        let mut record =
            AuditRecord { status: signer.kind() as u16, artifact: signer.key_id(), ..self.record(Kind::Seal, time)? };
        let signature = signer.sign(&record.seal_message()).ok_or(AuditError::Signer)?;
        record.input.copy_from_slice(&signature[..32]);
        record.output.copy_from_slice(&signature[32..]);
        self.append(&record, append)
    }

    fn record(&self, kind: Kind, time: u64) -> Result<AuditRecord, AuditError> {
        Ok(AuditRecord {
            magic: MAGIC,
            version: VERSION,
            kind: kind as u8,
            status: 0,
            sequence: self.sequence.ok_or(AuditError::Full)?,
            time,
            tokens_in: 0,
            tokens_out: 0,
            artifact: ZEROS,
            input: ZEROS,
            output: ZEROS,
            previous: self.previous,
        })
    }

    fn append(&mut self, record: &AuditRecord, append: Append<'_>) -> Result<(), AuditError> {
        let bytes = record.to_bytes();
        if !append(&bytes) {
            return Err(AuditError::Append);
        }
        self.previous = chained(&bytes);
        self.sequence = record.sequence.checked_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
