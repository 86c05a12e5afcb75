//! What a device trusts, and the check of a header page: signature, product line, counter, in this order. Nothing of the
//! page is used before its signature holds but what says where the signature is.

use super::verifier::check_form;
use super::{Key, TrustError, Verdict, Verifier};
use crate::format::header::{HEADER_BYTES, Header, SIGNATURE_AREA};
use crate::format::page::read_page;
use crate::format::signature::{SLOTS, SignatureSlot, signed_bytes};

/// A counter that only goes up, where the caller can protect it (OTP, RPMB, TPM, a secure element).
pub trait Counter {
    /// Its value; `None` where it cannot be read, and then no file is accepted.
    fn read(&self) -> Option<u64>;
}

/// A value that was read before.
impl Counter for u64 {
    fn read(&self) -> Option<u64> {
        Some(*self)
    }
}

/// What a device trusts.
#[derive(Clone, Copy)]
pub struct Trust<'t> {
    /// Keys of the firmware.
    pub keys: &'t [Key<'t>],
    /// Different keys of these that must have signed, 1 or 2.
    pub threshold: usize,
    /// The product line, where files of others are to be refused.
    pub model_id: Option<[u8; 16]>,
    /// What `security_counter` is compared with.
    pub counter: &'t dyn Counter,
    /// What verifies signatures and computes digests.
    pub verifier: &'t dyn Verifier,
}

impl Trust<'_> {
    /// Checks a header page by itself, as an update does before anything else of the new file is fetched: its form, then
    /// all that [`Trust`] says.
    ///
    /// # Errors
    /// Why the page, and with it the file, is refused.
    pub fn check_page(&self, page: &[u8]) -> Result<Header, TrustError> {
        let length = if page.len() < HEADER_BYTES { 0 } else { Header::from_bytes(page).device_bytes };
        self.check_page_of(page, length)
    }

    /// [`Trust::check_page`] for a file of `length` bytes.
    pub(super) fn check_page_of(&self, page: &[u8], length: u64) -> Result<Header, TrustError> {
        self.check_policy()?;
        let header = read_page(page, length)?;
        if header.signature == 0 {
            return Err(TrustError::NotSigned);
        }
        self.check_signatures(page)?;
        if self.model_id.is_some_and(|id| id != header.model_id) {
            return Err(TrustError::ModelId { found: header.model_id });
        }
        let minimum = self.counter.read().ok_or(TrustError::Counter)?;
        if header.security_counter < minimum {
            return Err(TrustError::Rollback { found: header.security_counter, minimum });
        }
        Ok(header)
    }

    fn check_policy(&self) -> Result<(), TrustError> {
        let fault = if self.keys.is_empty() {
            "there are no keys"
        } else if self.threshold == 0 {
            "the threshold is zero, which nobody's signature would meet"
        } else if self.threshold > SLOTS.min(self.keys.len()) {
            "the threshold is above the number of keys or slots"
        } else if self.model_id == Some([0; 16]) {
            "the product line is all zeros, which stands for none"
        } else {
            let mut keys = self.keys.iter().enumerate();
            let refused = keys.find_map(|(index, key)| Some((index, key.check().err()?)));
            return refused.map_or(Ok(()), |(index, fault)| Err(TrustError::Key { index, fault }));
        };
        Err(TrustError::Policy(fault))
    }

    /// Verifies every slot whose key is known: one that does not hold is refused even where others suffice, since somebody
    /// changed the file. Slots of unknown keys are passed over: during a rotation one of two keys is not there yet, or no
    /// longer.
    fn check_signatures(&self, page: &[u8]) -> Result<(), TrustError> {
        let message = signed_bytes(page);
        // Names of keys: of the one whose signature holds, of the first that is not known.
        let (mut valid, mut first_valid, mut unknown): (usize, Option<&[u8]>, Option<&[u8; 32]>) = (0, None, None);
        let area = page[SIGNATURE_AREA].as_chunks::<{ SignatureSlot::BYTES }>().0;
        for (slot, content) in (1..=SLOTS).zip(area) {
            // Where the record has them: see [`SignatureSlot`].
            let (&number, (head, signature)) = (&content[0], content.split_at(64));
            let (Some(id), Some(signature)) = (head.last_chunk::<32>(), signature.first_chunk::<64>()) else {
                continue;
            };
            if number == 0 {
                continue;
            }
            let Some(key) = self.keys.iter().find(|key| key.id(self.verifier) == *id) else {
                unknown = unknown.or(Some(id));
                continue;
            };
            let refused = |fault| Err(TrustError::Signature { slot, fault });
            let algorithm = key.algorithm();
            if number != algorithm as u8 {
                return refused("names a key of another algorithm");
            }
            if let Err(fault) = check_form(algorithm, signature) {
                return refused(fault);
            }
            match self.verifier.verify(key, &message, signature) {
                Verdict::Valid => {}
                Verdict::Invalid => return refused("does not hold: the file was changed, or another key signed it"),
                Verdict::Unable => return Err(TrustError::Unable(algorithm)),
            }
            // One key in both slots counts once.
            if first_valid != Some(id) {
                valid += 1;
                first_valid = Some(id);
            }
        }
        match valid {
            0 => Err(TrustError::KeyUnknown { id: unknown.copied().unwrap_or_default() }),
            _ if valid < self.threshold => Err(TrustError::Threshold { valid, needed: self.threshold }),
            _ => Ok(()),
        }
    }
}
