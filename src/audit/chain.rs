//! The records of a log as a chain: each has the number after the one before it, and its digest. A record that was changed,
//! dropped, put in, moved or cut is named, as far as two neighbours can tell which of them it is:
//!
//! ```text
//! number as expected, `previous` wrong, the link after it wrong too    this record was changed
//! number as expected, `previous` wrong, the link after it right        the record before was changed
//! another number, `previous` right                                     its number was changed
//! another number, `previous` wrong                                     records are missing here, or it was moved here
//! ```
//!
//! Whoever changes a record and computes all that follow anew is found by seals ([`super::seals`]) or by a head that is kept
//! elsewhere, and by nothing in here.

use super::AuditError;
use slm_runtime::audit::record::MAGIC;
use slm_runtime::audit::{AuditRecord, chained};
use std::fmt;
use std::path::Path;

const BYTES: usize = AuditRecord::BYTES;

/// A digest.
pub type Digest = [u8; 32];

/// The first record that is not as its writer wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The number that it has or should have.
    pub record: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file ends in the middle of it.
    Cut {
        /// Bytes that are there.
        bytes: usize,
    },
    /// A field has a value that no writer writes.
    Field(&'static str),
    /// Its number is another, though it follows the record before.
    Number {
        /// What it has.
        found: u64,
    },
    /// The records from it to the other are not there.
    Missing {
        /// The last that is missing.
        to: u64,
    },
    /// Another record stands in its place.
    Place {
        /// The number of that record.
        found: u64,
    },
    /// Its bytes are not those that the next record was written after.
    Changed,
    /// The first record has another before it.
    NotFirst,
    /// Its seal is not its key's.
    Seal(&'static str),
    /// Its seal is by a key that was not given.
    SealKey {
        /// Name of the key.
        id: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { record, fault } = self;
        match fault {
            Fault::Cut { bytes } => {
                write!(f, "record {record} is cut: {bytes} of its {BYTES} bytes are there")
            }
            Fault::Field(field) => write!(f, "record {record} was changed: no writer writes this value of `{field}`"),
            Fault::Number { found } => write!(f, "record {record} was changed: its number is {found}"),
            Fault::Missing { to } if to == record => write!(f, "record {record} is missing"),
            Fault::Missing { to } => write!(f, "records {record} to {to} are missing"),
            Fault::Place { found } => write!(f, "record {found} stands in the place of record {record}"),
            Fault::Changed => {
                write!(f, "record {record} was changed: it is not the record that the next one was written after")
            }
            Fault::NotFirst => write!(
                f,
                "record {record} does not begin this log: another was before it; where the log goes on from an earlier file, \
                 pass that file's head with --previous"
            ),
            Fault::Seal(fault) => {
                write!(f, "the seal in record {record} {fault}: what it seals was changed, or it is forged")
            }
            Fault::SealKey { id } => {
                write!(f, "record {record} is sealed by the key {id}, which was not given; pass it with --log-key")
            }
        }
    }
}

/// Where a log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The head of the file before, where the log goes on from one.
    pub previous: Option<Digest>,
}

/// Checked records.
#[derive(Clone, Debug)]
pub struct Chain<'b> {
    records: &'b [[u8; BYTES]],
    first: u64,
}

impl<'b> Chain<'b> {
    /// Checks the records of a log.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(bytes: &'b [u8], start: Start) -> Result<Self, Broken> {
        let (records, rest) = bytes.as_chunks::<BYTES>();
        // A log that goes on from another file says by itself where it is.
        let first = match (start.previous, records.first()) {
            (Some(_), Some(record)) => AuditRecord::from_bytes(record).sequence,
            _ => 0,
        };
        let chain = Chain { records, first };
        let mut previous = start.previous.unwrap_or_default();
        for (index, record) in records.iter().enumerate() {
            chain.check_record(index, &previous)?;
            previous = chained(record);
        }
        match rest.len() {
            0 => Ok(chain),
            bytes => Err(chain.broken(records.len(), Fault::Cut { bytes })),
        }
    }

    fn broken(&self, index: usize, fault: Fault) -> Broken {
        Broken { record: self.first.saturating_add(index as u64), fault }
    }

    fn check_record(&self, index: usize, previous: &Digest) -> Result<(), Broken> {
        let record = self.get(index);
        if let Some(field) = record.fault() {
            return Err(self.broken(index, Fault::Field(field)));
        }
        let follows = record.previous == *previous;
        let expected = self.first.checked_add(index as u64);
        let after = self.records.get(index + 1).map(|next| AuditRecord::from_bytes(next));
        if expected != Some(record.sequence) {
            let found = record.sequence;
            let goes_on = after.is_none_or(|next| Some(next.sequence) == found.checked_add(1));
            return Err(self.broken(
                index,
                match expected {
                    _ if follows => Fault::Number { found },
                    Some(expected) if found > expected && goes_on => Fault::Missing { to: found - 1 },
                    _ => Fault::Place { found },
                },
            ));
        }
        if follows {
            return Ok(());
        }
        let followed = after.is_none_or(|next| next.previous == chained(&self.records[index]));
        match index.checked_sub(1) {
            None if followed => Err(self.broken(0, Fault::NotFirst)),
            Some(before) if followed => Err(self.broken(before, Fault::Changed)),
            _ => Err(self.broken(index, Fault::Changed)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of the first record.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The record at a place from the first.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, index: usize) -> AuditRecord {
        AuditRecord::from_bytes(&self.records[index])
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = AuditRecord> + '_ {
        self.records.iter().map(|record| AuditRecord::from_bytes(record))
    }

    /// What stands for the log up to a record.
    ///
    /// # Panics
    /// If there is none at this place.
    pub fn head_at(&self, index: usize) -> Digest {
        chained(&self.records[index])
    }

    /// The bytes of the last record.
    pub fn last(&self) -> Option<&'b [u8; BYTES]> {
        self.records.last()
    }
}

/// A log in a file.
#[derive(Debug)]
pub struct LogFile {
    bytes: Vec<u8>,
}

impl LogFile {
    /// Reads a file that begins as a log does, or is empty.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let bytes =
            std::fs::read(path).map_err(|source| AuditError::Io { action: "read", path: path.to_owned(), source })?;
        match MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
            true => Ok(LogFile { bytes }),
            false => Err(AuditError::NotALog { path: path.to_owned() }),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it begins by its own first record: whether that goes on from the right file is not known then.
    pub fn start(&self) -> Start {
        let first = self.bytes().first_chunk::<BYTES>().map(|first| AuditRecord::from_bytes(first));
        Start { previous: first.filter(|first| first.sequence > 0).map(|first| first.previous) }
    }

    /// Its records, checked; there is one at least.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn chain(&self, path: &Path, start: Start) -> Result<Chain<'_>, AuditError> {
        let chain =
            Chain::check(self.bytes(), start).map_err(|broken| AuditError::Broken { path: path.to_owned(), broken })?;
        if chain.is_empty() { Err(AuditError::Empty { path: path.to_owned() }) } else { Ok(chain) }
    }
}

/// Whether a file begins as a log does.
pub fn is_log(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; MAGIC.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
}

#[cfg(test)]
mod tests;
