//! Integrity: the two digests of the file, the digest of every tensor and the root over them.

use super::FormatError;
use super::artifact::ArtifactView;
use super::header::{DEVICE_DIGEST, HEADER_BYTES, HOST_DIGEST, Header};
use super::tensor::digest_tree;
use crate::sha256::{Digest, Sha256};

/// The digest of the device part, computed after the host part's: the header with the digest itself taken as zero, then
/// the bytes after the header.
pub fn device_digest(header: &[u8], part: &[u8]) -> Digest {
    part_digest(header, DEVICE_DIGEST, part)
}

/// The digest of the host part: the header with both digests taken as zero, then the part's bytes.
pub fn host_digest(header: &[u8], part: &[u8]) -> Digest {
    part_digest(header, DEVICE_DIGEST.start..HOST_DIGEST.end, part)
}

fn part_digest(header: &[u8], zero: core::ops::Range<usize>, part: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(&header[..zero.start]);
    hash.update(&[0; HOST_DIGEST.end - DEVICE_DIGEST.start][..zero.len()]);
    hash.update(&header[zero.end..HEADER_BYTES]);
    hash.update(part);
    hash.finish()
}

impl ArtifactView<'_> {
    /// Compares every digest; a device-only file has no host part to compare.
    pub fn verify_digests(&self) -> Result<(), FormatError> {
        let (bytes, header): (_, &Header) = (self.bytes(), self.header());
        let device_end = header.device_bytes as usize;
        if device_digest(bytes, &bytes[HEADER_BYTES..device_end]) != header.device_digest {
            return Err(FormatError::Digest("device part"));
        }
        if !self.device_only() && host_digest(bytes, &bytes[device_end..]) != header.host_digest {
            return Err(FormatError::Digest("host part"));
        }
        self.verify_tensors()
    }

    /// Compares the digest of every tensor and the root over them.
    pub fn verify_tensors(&self) -> Result<(), FormatError> {
        for index in 0..self.tensor_count() {
            let record = self.tensor_record(index);
            if self.tensor_bytes(&record).map(Sha256::digest) != Some(record.digest) {
                let fault = FormatError::Tensor(index as u32, "digest does not match");
                return Err(self.tensor_key(index).map_or(fault, FormatError::TensorDigest));
            }
        }
        let root = digest_tree((0..self.tensor_count()).map(|index| self.tensor_record(index).digest));
        if root != self.header().weights_root { Err(FormatError::Digest("tensor table")) } else { Ok(()) }
    }
}
