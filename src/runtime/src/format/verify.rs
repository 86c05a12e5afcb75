//! Integrity: the two digests of the file, the digest of every tensor, the root over them, and the root over the chunk
//! list.

use super::FormatError;
use super::artifact::ArtifactView;
use super::chunks::ChunkList;
use super::header::{DEVICE_DIGEST, HEADER_BYTES, HOST_DIGEST, Header, SIGNATURE_AREA, SectionKind};
use super::signature::ZEROS;
use super::tensor::digest_tree;
#[cfg(any(test, feature = "signed"))]
use super::tree::root;
use crate::sha256::{Digest, Engine, Sha256, Software};
use core::ops::Range;

/// Pieces of 64 zeros that stand for the signature area.
const AREA_PIECES: usize = (SIGNATURE_AREA.end - SIGNATURE_AREA.start) / ZEROS.len();

/// The digest of the device part, computed after the host part's: the header page with the digest itself and the signature
/// area taken as zero, then the bytes after the page.
pub fn device_digest(header: &[u8], part: &[u8]) -> Digest {
    part_digest(&Software, header, DEVICE_DIGEST, part)
}

/// The digest of the host part: the header page with both digests and the signature area taken as zero, then the part's
/// bytes.
pub fn host_digest(header: &[u8], part: &[u8]) -> Digest {
    part_digest(&Software, header, DEVICE_DIGEST.start..HOST_DIGEST.end, part)
}

pub(crate) fn part_digest(engine: &(impl Engine + ?Sized), page: &[u8], zero: Range<usize>, part: &[u8]) -> Digest {
    let mut pieces: [&[u8]; 4 + AREA_PIECES] = [&ZEROS; 4 + AREA_PIECES];
    pieces[0] = &page[..zero.start];
    pieces[1] = &ZEROS[..zero.len()];
    pieces[2] = &page[zero.end..SIGNATURE_AREA.start];
    pieces[3 + AREA_PIECES] = part;
    engine.digest(&pieces)
}

impl ArtifactView<'_> {
    /// Compares every digest of the file, and reads every byte once: digests of tensors are compared with the root over
    /// them, and a tensor with its own only to name what was changed. A device-only file has no host part to compare.
    pub fn verify_digests(&self) -> Result<(), FormatError> {
        self.verify_digests_by(&Software)
    }

    /// [`ArtifactView::verify_digests`] with digests of hardware.
    pub fn verify_digests_by(&self, engine: &(impl Engine + ?Sized)) -> Result<(), FormatError> {
        #[cfg(feature = "streaming")]
        if self.is_streamed() {
            return Err(FormatError::Streamed);
        }
        let (bytes, header): (_, &Header) = (self.bytes(), self.header());
        let device_end = header.device_bytes as usize;
        let device = part_digest(engine, bytes, DEVICE_DIGEST, &bytes[HEADER_BYTES..device_end]);
        if device != header.device_digest {
            self.verify_tensors()?;
            return Err(FormatError::Digest("device part"));
        }
        let zero = DEVICE_DIGEST.start..HOST_DIGEST.end;
        if !self.device_only() && part_digest(engine, bytes, zero, &bytes[device_end..]) != header.host_digest {
            return Err(FormatError::Digest("host part"));
        }
        #[cfg(any(test, feature = "signed"))]
        self.verify_chunks_root(engine)?;
        self.verify_weights_root()
    }

    /// Compares the digest of every tensor and the root over them.
    pub fn verify_tensors(&self) -> Result<(), FormatError> {
        // They are of the weights that are not there.
        #[cfg(feature = "seal")]
        if self.sealed {
            return self.verify_weights_root();
        }
        #[cfg(feature = "streaming")]
        if self.is_streamed() {
            return Err(FormatError::Streamed);
        }
        for index in 0..self.tensor_count() {
            let record = self.tensor_record(index);
            if self.tensor_bytes(&record).map(Sha256::digest) != Some(record.digest) {
                let fault = FormatError::Tensor(index as u32, "digest does not match");
                return Err(self.tensor_key(index).map_or(fault, FormatError::TensorDigest));
            }
        }
        self.verify_weights_root()
    }

    pub(crate) fn verify_weights_root(&self) -> Result<(), FormatError> {
        let root = digest_tree((0..self.tensor_count()).map(|index| self.tensor_record(index).digest));
        if root != self.header().weights_root { Err(FormatError::Digest("tensor table")) } else { Ok(()) }
    }

    /// The chunk list; `None` where the file has none.
    pub fn chunks(&self) -> Option<ChunkList<'_>> {
        self.section(SectionKind::Chunks).map(ChunkList::new)
    }

    /// Compares the root over the chunk list, where there is one.
    #[cfg(any(test, feature = "signed"))]
    pub(crate) fn verify_chunks_root(&self, engine: &(impl Engine + ?Sized)) -> Result<(), FormatError> {
        match self.chunks() {
            Some(list) if root(list.iter(), engine) != self.header().chunks_root => {
                Err(FormatError::Digest("chunk list"))
            }
            _ => Ok(()),
        }
    }
}
