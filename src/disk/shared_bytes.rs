//! Bytes of tensors: a range of a mapped file, in memory, or made when they are asked for.

use super::deferred::Deferred;
use super::mmap::MappedFile;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that several tensors or models may share; cloning copies nothing.
#[derive(Clone)]
pub struct SharedBytes(Storage);

#[derive(Clone)]
enum Storage {
    Mapped(Arc<MappedFile>, Range<usize>),
    Owned(Arc<[u8]>),
    Deferred(Arc<Deferred>, Range<usize>),
}

impl SharedBytes {
    /// A range of a mapped file; `None` where it does not lie in the file.
    pub fn mapped(file: &Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(SharedBytes(Storage::Mapped(Arc::clone(file), range)))
    }

    /// Bytes in memory.
    pub fn owned(bytes: Vec<u8>) -> Self {
        SharedBytes(Storage::Owned(bytes.into()))
    }

    /// Bytes that are made when they are asked for.
    pub fn deferred(deferred: Deferred) -> Self {
        let range = 0..deferred.len();
        SharedBytes(Storage::Deferred(Arc::new(deferred), range))
    }

    /// The bytes. Deferred ones stay in memory from then on.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Storage::Mapped(file, range) => &file.bytes()[range.clone()],
            Storage::Owned(bytes) => bytes,
            Storage::Deferred(deferred, range) => &deferred.kept()[range.clone()],
        }
    }

    /// The bytes, deferred ones for this caller alone.
    pub fn read(&self) -> Cow<'_, [u8]> {
        match &self.0 {
            Storage::Deferred(deferred, range) => deferred.once(range.clone()),
            _ => Cow::Borrowed(self.as_slice()),
        }
    }

    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.0, Storage::Deferred(..))
    }

    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Storage::Mapped(_, range) | Storage::Deferred(_, range) => range.len(),
            Storage::Owned(bytes) => bytes.len(),
        }
    }

    /// A range of them, which must lie inside: shared where mapped, else copied.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        SharedBytes(match &self.0 {
            Storage::Mapped(file, whole) => {
                Storage::Mapped(Arc::clone(file), whole.start + range.start..whole.start + range.end)
            }
            Storage::Owned(bytes) => Storage::Owned(bytes[range].into()),
            Storage::Deferred(deferred, whole) => {
                Storage::Deferred(Arc::clone(deferred), whole.start + range.start..whole.start + range.end)
            }
        })
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        match &self.0 {
            Storage::Mapped(file, _) => Some(file.path().to_owned()),
            Storage::Owned(_) => None,
            Storage::Deferred(deferred, _) => Some(deferred.file().to_owned()),
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
