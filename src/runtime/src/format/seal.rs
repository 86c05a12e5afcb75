//! The seal: what opens weights that are in cipher. They lie in their section as they would in the open, byte for byte as
//! long, and their leaves are those of the chunk list, so that a signature over the cipher covers them.
//!
//! ```text
//! salt 16 | stanzas u32 | 12 zeros | stanzas × { key id 16, body 32 } | tags × 16, one for each leaf of `weights`
//! ```

use super::FormatError;
use super::artifact::ArtifactView;
use super::chunks::Leaves;
use super::header::{Header, MAX_SECTIONS, SECTION_TABLE_OFFSET, SectionKind, SectionRecord};
use crate::layout::ALIGNMENT;

/// Bytes before the stanzas.
pub const SEAL_HEADER_BYTES: usize = 32;
/// Bytes of a stanza: the name of a device's key, and the file's key in cipher.
pub const STANZA_BYTES: usize = 48;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Most stanzas of a file; further ones travel beside it.
pub const MAX_STANZAS: u32 = 4096;

/// Ciphers of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealCipher {
    /// RFC 8439.
    ChaCha20Poly1305 = 1,
    /// NIST SP 800-38D with a key of 256 bits and nonces of 96.
    Aes256Gcm = 2,
}

impl SealCipher {
    /// The cipher with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        [SealCipher::ChaCha20Poly1305, SealCipher::Aes256Gcm].into_iter().find(|&cipher| cipher as u8 == number)
    }

    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            SealCipher::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            SealCipher::Aes256Gcm => "AES-256-GCM",
        }
    }

    /// The feature of this crate that opens it.
    pub const fn feature(self) -> &'static str {
        match self {
            SealCipher::ChaCha20Poly1305 => "chacha",
            SealCipher::Aes256Gcm => "aes",
        }
    }
}

/// The seal of a file.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// What keys are derived with.
    pub salt: &'a [u8; 16],
    stanzas: &'a [[u8; STANZA_BYTES]],
    tags: &'a [[u8; TAG_BYTES]],
}

impl<'a> Seal<'a> {
    /// Reads a section of a file whose weights have `leaves` leaves.
    pub fn read(section: &'a [u8], leaves: u64) -> Result<Self, FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Seal, fault);
        let (head, rest) = section.split_first_chunk::<SEAL_HEADER_BYTES>().ok_or(fault("too short"))?;
        let (salt, counts) = head.split_first_chunk().ok_or(fault("too short"))?;
        let count = u32::from_le_bytes([counts[0], counts[1], counts[2], counts[3]]);
        if counts[4..].iter().any(|&byte| byte != 0) {
            return Err(fault("a reserved byte is not zero"));
        }
        if count > MAX_STANZAS {
            return Err(fault("more stanzas than a file can have"));
        }
        let (stanzas, tags) =
            rest.split_at_checked(count as usize * STANZA_BYTES).ok_or(fault("cut in its stanzas"))?;
        let (tags, over) = tags.as_chunks::<TAG_BYTES>();
        if !over.is_empty() || tags.len() as u64 != leaves {
            return Err(fault("its tags are not one for each leaf of the weights"));
        }
        Ok(Seal { salt, stanzas: stanzas.as_chunks().0, tags })
    }

    /// Stanzas without tags.
    pub(crate) fn of(salt: &'a [u8; 16], stanzas: &'a [[u8; STANZA_BYTES]]) -> Self {
        Seal { salt, stanzas, tags: &[] }
    }

    /// The stanzas.
    pub fn stanzas(&self) -> &'a [[u8; STANZA_BYTES]] {
        self.stanzas
    }

    /// The tag of a leaf of the weights, counted from their first.
    pub fn tag(&self, index: u64) -> Option<&'a [u8; TAG_BYTES]> {
        self.tags.get(usize::try_from(index).ok()?)
    }

    /// Where the tag of a leaf is in the section.
    pub fn tag_offset(stanzas: u32, index: u64) -> Option<u64> {
        let before = SEAL_HEADER_BYTES as u64 + u64::from(stanzas) * STANZA_BYTES as u64;
        index.checked_mul(TAG_BYTES as u64)?.checked_add(before)
    }
}

impl<'a> ArtifactView<'a> {
    /// Whether the weights are in cipher.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The seal; `None` where the weights were never in cipher.
    pub fn seal(&self) -> Option<Seal<'a>> {
        let section = self.section(SectionKind::Seal)?;
        let leaves = Leaves::of(self.bytes, &self.header).of_section(SectionKind::Weights as u32);
        Seal::read(section, leaves.end - leaves.start).ok()
    }

    /// The cipher of the weights; `None` where they were never in one.
    pub fn seal_cipher(&self) -> Option<SealCipher> {
        SealCipher::from_number(self.header.encryption)
    }

    /// The stored weights.
    pub(crate) fn stored_weights(&self) -> &'a [u8] {
        self.weights
    }

    /// The same artifact with weights that were opened elsewhere. `None` where they are not as long as the stored ones, or do
    /// not start on 64 bytes.
    pub fn with_weights<'b>(&self, weights: &'b [u8]) -> Option<ArtifactView<'b>>
    where
        'a: 'b,
    {
        let aligned = weights.as_ptr().addr().is_multiple_of(ALIGNMENT);
        let view: ArtifactView<'b> = *self;
        (aligned && weights.len() == self.weights.len()).then_some(ArtifactView { weights, sealed: false, ..view })
    }
}

/// Checks that there is a seal exactly where the header says that the weights are in cipher, that it stands right before the
/// chunk list, and that it can be read. The sections have been checked to lie within the file.
pub(super) fn check_seal(bytes: &[u8], header: &Header) -> Result<(), FormatError> {
    let fault = |fault| Err(FormatError::section(SectionKind::Seal, fault));
    let sections = (header.sections as usize).min(MAX_SECTIONS);
    let table = &bytes[SECTION_TABLE_OFFSET..SECTION_TABLE_OFFSET + sections * SectionRecord::BYTES];
    let mut records = table.chunks_exact(SectionRecord::BYTES).map(SectionRecord::from_bytes);
    let Some(seal) = records.find(|record| record.kind == SectionKind::Seal as u32) else {
        return if header.encryption == 0 { Ok(()) } else { fault("missing, and `encryption` says that it is there") };
    };
    if header.encryption == 0 {
        return fault("there, and `encryption` says that it is not");
    }
    if seal.host != 0 || records.next().is_none_or(|next| next.kind != SectionKind::Chunks as u32) {
        return fault("not right before the chunk list");
    }
    let (start, stop) = (seal.offset as usize, (seal.offset + seal.bytes) as usize);
    let Some(section) = bytes.get(start..stop) else { return fault("runs past the end of the file") };
    let leaves = Leaves::of(bytes, header).of_section(SectionKind::Weights as u32);
    Seal::read(section, leaves.end - leaves.start).map(|_| ())
}
