//! Which storages the vector kernels multiply.

use crate::layout::Storage;

/// The storages that vector kernels multiply. All others go through the scalar kernel, with the same bits at lower
/// speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of `Storage`")]
pub enum VectorStorage {
    W8,
    W4G32,
    W8S24,
    W4G32S24,
}

impl VectorStorage {
    /// The counterpart of a storage; `None` where only the scalar kernel multiplies it.
    pub const fn of(storage: Storage) -> Option<Self> {
        match storage {
            Storage::W8 => Some(VectorStorage::W8),
            Storage::W4G32 => Some(VectorStorage::W4G32),
            Storage::W8S24 => Some(VectorStorage::W8S24),
            Storage::W4G32S24 => Some(VectorStorage::W4G32S24),
            Storage::F32 | Storage::W4G64 | Storage::W3G32 => None,
        }
    }

    /// Whether a byte holds two values, and 32 columns share a multiplier.
    pub const fn is_nibbles(self) -> bool {
        matches!(self, VectorStorage::W4G32 | VectorStorage::W4G32S24)
    }
}
