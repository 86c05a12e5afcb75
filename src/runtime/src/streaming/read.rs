//! Whether all bytes came that were asked for, and why not.

use super::{Fault, Reader};
use crate::format::tensor::TensorKey;

/// Why bytes cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The storage failed.
    Failed {
        /// The first byte in the file.
        offset: u64,
    },
    /// The storage took longer than the caller waits.
    Late {
        /// The first byte in the file.
        offset: u64,
    },
    /// There were fewer bytes.
    Short {
        /// The first byte in the file.
        offset: u64,
        /// Bytes asked for.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// A leaf is not what the chunk list says.
    Leaf {
        /// Its number.
        leaf: u64,
    },
    /// A tensor's digest does not match.
    Tensor(TensorKey),
    /// The caller's buffers are smaller than planned.
    Buffers {
        /// Bytes of each.
        needed: u64,
        /// Bytes of the smaller one.
        given: u64,
    },
    /// An earlier read failed in the middle of a sequence.
    Interrupted,
}

impl core::fmt::Display for ReadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use ReadError as E;
        match self {
            E::Failed { offset } => write!(f, "the storage failed at byte {offset} of the file"),
            E::Late { offset } => write!(f, "the storage did not answer in time at byte {offset} of the file"),
            E::Short { offset, expected, actual } => {
                write!(f, "the storage gave {actual} of {expected} bytes at byte {offset} of the file")
            }
            E::Leaf { leaf } => {
                write!(f, "leaf {leaf} is not what its digest says: the file was changed, or read wrongly")
            }
            E::Tensor(key) => {
                write!(f, "digest of tensor {key} does not match: the file was changed, or read wrongly")
            }
            E::Buffers { needed, given } => {
                write!(f, "the buffers need {needed} bytes each, the smaller one has {given}")
            }
            E::Interrupted => {
                f.write_str("an earlier read failed in the middle of the sequence: reset the session, read it again")
            }
        }
    }
}

impl core::error::Error for ReadError {}

/// Whether as many bytes came as were asked for from an offset of the file.
pub(super) fn all_came(got: Result<usize, Fault>, offset: u64, expected: u64) -> Result<(), ReadError> {
    match got {
        Ok(actual) if actual as u64 == expected => Ok(()),
        Ok(actual) => Err(ReadError::Short { offset, expected, actual: actual as u64 }),
        Err(Fault::Failed) => Err(ReadError::Failed { offset }),
        Err(Fault::Late) => Err(ReadError::Late { offset }),
    }
}

/// Reads bytes, all of them.
pub(super) fn read_all(reader: &mut (impl Reader + ?Sized), offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
    if buffer.is_empty() {
        return Ok(());
    }
    all_came(reader.read(offset, buffer), offset, buffer.len() as u64)
}
