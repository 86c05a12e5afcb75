//! Weights opened in the caller's memory, of an artifact whose signature holds: all at once, or leaf by leaf as they are
//! needed, from memory or through a reader. Every leaf in cipher is compared with the signed list before it is opened.

use super::cipher::Cipher;
use super::error::SealError;
use super::keys::{FileKey, KeySource};
use crate::format::artifact::ArtifactView;
use crate::format::header::SectionKind;
use crate::format::seal::{STANZA_BYTES, Seal, SealCipher, TAG_BYTES};
use crate::layout::ALIGNMENT;
use crate::trust::{Signed, SignedStream, Source, TrustError};

/// What opens weights.
#[derive(Clone, Copy)]
pub struct Unsealing<'u> {
    /// The device's key.
    pub keys: &'u dyn KeySource,
    /// The cipher.
    pub cipher: &'u dyn Cipher,
    /// A stanza that travels beside the file.
    pub stanza: Option<&'u [u8; STANZA_BYTES]>,
}

impl<'a> Signed<'a, '_> {
    /// The key of the file's weights.
    ///
    /// # Errors
    /// They are not in cipher, or no stanza is for this device.
    pub fn file_key(&self, unsealing: &Unsealing<'_>) -> Result<FileKey, SealError> {
        let view = self.before_weights();
        let (seal, cipher) = view.seal().zip(view.seal_cipher()).ok_or(SealError::NotSealed)?;
        let leaves = self.weight_leaves();
        FileKey::find(unsealing.keys, cipher, &seal, unsealing.stanza, leaves.end - leaves.start)
    }

    /// Opens the weights in memory of at least their length that starts on 64 bytes, and gives the artifact with them: it runs
    /// as the one that was never sealed. Where it fails the memory holds zeros.
    ///
    /// # Errors
    /// Why they stay closed.
    pub fn unseal<'r>(mut self, unsealing: &Unsealing<'_>, ram: &'r mut [u8]) -> Result<ArtifactView<'r>, SealError>
    where
        'a: 'r,
    {
        let key = self.file_key(unsealing)?;
        let length = self.before_weights().stored_weights().len();
        let (needed, given) = (length as u64, ram.len());
        let ram = ram.get_mut(..length).ok_or(SealError::Memory { needed, given })?;
        if !ram.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(SealError::Alignment);
        }
        let leaves = self.weight_leaves();
        let mut rest = &mut *ram;
        let opened = (0..leaves.end - leaves.start).try_for_each(|leaf| {
            let (place, after) =
                core::mem::take(&mut rest).split_at_mut_checked(self.leaf_bytes(leaf)?).ok_or(SealError::Range)?;
            rest = after;
            self.unseal_leaf(&key, unsealing.cipher, leaf, place)
        });
        if let Err(error) = opened {
            ram.fill(0);
            return Err(error);
        }
        self.before_weights().with_weights(ram).ok_or(SealError::Alignment)
    }

    /// Bytes of a leaf of the weights, counted from their first.
    ///
    /// # Errors
    /// There is no such leaf.
    pub fn leaf_bytes(&self, leaf: u64) -> Result<usize, SealError> {
        let number =
            self.weight_leaves().start.checked_add(leaf).filter(|number| self.weight_leaves().contains(number));
        let bytes = number.and_then(|number| self.leaf(number)).ok_or(SealError::Range)?;
        Ok(bytes.bytes as usize)
    }

    /// Opens one leaf of the weights, counted from their first, in memory of its length. Its cipher is compared with the signed
    /// list first, unless it has been.
    ///
    /// # Errors
    /// It is not what was signed, or not closed with this key; the memory holds zeros then.
    pub fn unseal_leaf(
        &mut self,
        key: &FileKey,
        cipher: &dyn Cipher,
        leaf: u64,
        out: &mut [u8],
    ) -> Result<(), SealError> {
        let (needed, given) = (self.leaf_bytes(leaf)?, out.len());
        if needed != given {
            return Err(SealError::Memory { needed: needed as u64, given });
        }
        let number = self.weight_leaves().start + leaf;
        self.verify_leaves(number..number + 1)?;
        let view = self.before_weights();
        let within = self.leaf(number).ok_or(SealError::Range)?.within as usize;
        let stored = view.stored_weights().get(within..within + needed).ok_or(SealError::Range)?;
        let tag = view.seal().and_then(|seal| seal.tag(leaf)).ok_or(SealError::NotSealed)?;
        out.copy_from_slice(stored);
        key.open(cipher, leaf, out, tag)
    }
}

impl SignedStream<'_, '_> {
    /// The key of the file's weights, by the stanzas of the file and one beside it. `buffer` has the length of a leaf.
    ///
    /// # Errors
    /// They are not in cipher, no stanza is for this device, or the file is not what was signed.
    pub fn file_key(
        &self,
        source: &mut impl Source,
        unsealing: &Unsealing<'_>,
        buffer: &mut [u8],
    ) -> Result<FileKey, SealError> {
        let cipher = SealCipher::from_number(self.header().encryption).ok_or(SealError::NotSealed)?;
        let (salt, stanzas) = self.seal_head(source, buffer)?;
        let leaves = self.leaves().of_section(SectionKind::Weights as u32);
        let count = leaves.end - leaves.start;
        let (mut wrong, mut looked_at) = (false, 0);
        let mut stanza = [0; STANZA_BYTES];
        for number in 0..=u64::from(stanzas) {
            match (number, unsealing.stanza) {
                (0, Some(beside)) => stanza = *beside,
                (0, None) => continue,
                (number, _) => {
                    let at = Seal::tag_offset(0, (number - 1) * (STANZA_BYTES / TAG_BYTES) as u64);
                    let at = at.ok_or(SealError::Range)?;
                    self.read(source, SectionKind::Seal as u32, at, &mut stanza, buffer)?;
                }
            }
            // One stanza at a time, as a seal of its own.
            let one = [stanza];
            looked_at += 1;
            match FileKey::find(unsealing.keys, cipher, &Seal::of(&salt, &one), None, count) {
                Ok(key) => return Ok(key),
                Err(SealError::Stanza) => wrong = true,
                Err(SealError::NoStanza { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if wrong { Err(SealError::Stanza) } else { Err(SealError::NoStanza { stanzas: looked_at }) }
    }

    /// Salt and number of stanzas.
    fn seal_head(&self, source: &mut impl Source, buffer: &mut [u8]) -> Result<([u8; 16], u32), SealError> {
        let mut head = [0; 32];
        self.read(source, SectionKind::Seal as u32, 0, &mut head, buffer)?;
        let mut salt = [0; 16];
        salt.copy_from_slice(&head[..16]);
        Ok((salt, u32::from_le_bytes([head[16], head[17], head[18], head[19]])))
    }

    /// Reads one leaf of the weights, counted from their first, into the start of `out`, checks and opens it there. `buffer`
    /// has the length of a leaf.
    ///
    /// # Errors
    /// It is not what was signed, or not closed with this key; the memory holds zeros then.
    pub fn read_unsealed<'b>(
        &self,
        source: &mut impl Source,
        (key, cipher): (&FileKey, &dyn Cipher),
        leaf: u64,
        out: &'b mut [u8],
        buffer: &mut [u8],
    ) -> Result<&'b [u8], SealError> {
        let weights = self.leaves().of_section(SectionKind::Weights as u32);
        let number =
            weights.start.checked_add(leaf).filter(|number| weights.contains(number)).ok_or(SealError::Range)?;
        let (_, stanzas) = self.seal_head(source, buffer)?;
        let at = Seal::tag_offset(stanzas, leaf).ok_or(SealError::Range)?;
        let mut tag = [0; TAG_BYTES];
        self.read(source, SectionKind::Seal as u32, at, &mut tag, buffer)?;
        let length = self.read_leaf(source, number, out)?.len();
        let bytes = out.get_mut(..length).ok_or(SealError::Trust(TrustError::Range))?;
        key.open(cipher, leaf, bytes, &tag)?;
        Ok(bytes)
    }
}
