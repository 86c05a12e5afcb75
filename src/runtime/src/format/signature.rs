//! The signature area of the header page: two slots, for a key and its successor or for two parties. What is signed is the
//! page with this area taken as zero, in the pre-authentication encoding of DSSE, so that signatures are verified by every
//! tool that knows DSSE, and by `openssl` from the raw bytes.
//!
//! ```text
//! signed bytes = "DSSEv1 27 application/vnd.slmc.header 4096 " ‖ page[0 .. 3584] ‖ 512 zeros
//! ```

use super::FormatError;
#[cfg(any(test, feature = "signed"))]
use super::Record;
use super::header::{HEADER_BYTES, Header, SIGNATURE_AREA};
use super::record::record;

/// Slots of the area.
pub const SLOTS: usize = 2;
/// Type of the signed bytes in DSSE.
pub const PAYLOAD_TYPE: &str = "application/vnd.slmc.header";
/// What stands before the header page in the signed bytes.
pub const SIGNED_PREFIX: &[u8; 43] = b"DSSEv1 27 application/vnd.slmc.header 4096 ";
/// The last cipher that `encryption` names: 1 is ChaCha20-Poly1305, 2 AES-256-GCM.
#[cfg(any(test, feature = "signed"))]
const MOST_ENCRYPTION: u8 = 2;
/// Pieces of [`signed_bytes`].
const SIGNED_PIECES: usize = 2 + ZERO_PIECES;
const ZERO_PIECES: usize = (HEADER_BYTES - SIGNATURE_AREA.start) / ZEROS.len();

/// Taken in place of what digests and signatures leave out.
pub(crate) const ZEROS: [u8; 64] = [0; 64];

record! {
    /// A slot of the signature area.
    SignatureSlot: 128 bytes {
        /// A [`SignatureAlgorithm`]; 0: the slot is empty, and all of it is zero.
        algorithm: u8,
        /// Zero.
        reserved: [u8; 31],
        /// SHA-256 of the public key as SubjectPublicKeyInfo in DER.
        key_id: [u8; 32],
        /// Ed25519: R ‖ S. ECDSA: r ‖ s, big-endian, with s at most half of the order.
        signature: [u8; 64],
    }
}

/// How a header page is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SignatureAlgorithm {
    /// Ed25519 of RFC 8032, over the bytes themselves.
    Ed25519 = 1,
    /// ECDSA with the curve P-256 and SHA-256.
    EcdsaP256 = 2,
}

impl SignatureAlgorithm {
    /// The algorithm with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        [SignatureAlgorithm::Ed25519, SignatureAlgorithm::EcdsaP256].into_iter().find(|&one| one as u8 == number)
    }
}

/// The signed bytes of a header page, in pieces: without a copy of the page.
///
/// # Panics
/// If the page is shorter than the signature area's start.
pub fn signed_bytes(page: &[u8]) -> [&[u8]; SIGNED_PIECES] {
    let mut pieces: [&[u8]; SIGNED_PIECES] = [&ZEROS; SIGNED_PIECES];
    pieces[0] = SIGNED_PREFIX;
    pieces[1] = &page[..SIGNATURE_AREA.start];
    pieces
}

/// The slots of a header page that are not empty, with their numbers from 1.
///
/// # Panics
/// If the page is shorter than the header.
pub fn slots(page: &[u8]) -> impl Iterator<Item = (usize, SignatureSlot)> + '_ {
    let area = page[SIGNATURE_AREA].chunks_exact(SignatureSlot::BYTES).take(SLOTS);
    area.map(SignatureSlot::from_bytes)
        .enumerate()
        .map(|(n, slot)| (n + 1, slot))
        .filter(|(_, slot)| slot.algorithm != 0)
}

/// Refuses a file with a chunk list or a signature, whose fields all are zero in any other.
#[cfg(not(any(test, feature = "signed")))]
pub(super) fn check_signature(page: &[u8], header: &Header) -> Result<(), FormatError> {
    let fields = [header.signature, header.encryption, header.chunk_shift];
    let others = [&header.chunks_root[..], &header.model_id, &page[SIGNATURE_AREA]];
    let plain = fields == [0; 3] && header.security_counter == 0 && others.iter().all(|field| zero(field));
    if plain { Ok(()) } else { Err(FormatError::Feature("signed")) }
}

/// Checks the fields of the header that trust is about, and the form of the area.
#[cfg(any(test, feature = "signed"))]
pub(super) fn check_signature(page: &[u8], header: &Header) -> Result<(), FormatError> {
    let (signed, chunks) = (header.signature != 0, header.chunk_shift != 0);
    let area = &page[SIGNATURE_AREA];
    let (two, rest) = area.split_at(SLOTS * SignatureSlot::BYTES);
    // Whether it holds, whether any other value is one of a later version, and its field. A table, since each check by itself
    // would take a device some hundred bytes of code.
    let mut checks = [
        (header.signature <= 1, true, "signature"),
        (header.encryption <= MOST_ENCRYPTION, true, "encryption"),
        (!chunks || super::chunks::CHUNK_SHIFTS.contains(&header.chunk_shift), true, "chunk_shift"),
        (chunks || zero(&header.chunks_root), false, "chunks_root"),
        // Tags are by leaves.
        (chunks || header.encryption == 0, false, "encryption"),
        (chunks || !signed, false, "chunk_shift"),
        (signed || header.security_counter == 0, false, "security_counter"),
        (signed || zero(&header.model_id), false, "model_id"),
        (signed || zero(area), false, "signature area"),
        (!signed || zero(rest), true, "signature area"),
        (true, true, "signature algorithm"),
        (true, true, "signature area"),
        (true, false, "signature area"),
    ];
    let mut empty = 0;
    for slot in two.chunks_exact(SignatureSlot::BYTES).filter(|_| signed) {
        let algorithm = slot[0];
        checks[10].0 &= algorithm == 0 || SignatureAlgorithm::from_number(algorithm).is_some();
        checks[11].0 &= zero(&slot[1..32]);
        // Empty as a whole, or with a name and a signature: a slot of nobody is not passed over as one of a stranger.
        checks[12].0 &= if algorithm == 0 { zero(slot) } else { !zero(&slot[32..64]) && !zero(&slot[64..]) };
        empty += usize::from(algorithm == 0);
    }
    checks[12].0 &= empty < SLOTS;
    match checks.iter().find(|(holds, ..)| !holds) {
        None => Ok(()),
        Some((_, true, field)) => Err(FormatError::LaterVersion(Record::Header, field)),
        Some((_, false, field)) => Err(FormatError::Header(field)),
    }
}

/// Whether bytes are all zero. A function of its own: each copy in its callers would be unrolled.
#[inline(never)]
pub(crate) fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn the_prefix_is_that_of_dsse() {
        let prefix = std::format!("DSSEv1 {} {PAYLOAD_TYPE} {HEADER_BYTES} ", PAYLOAD_TYPE.len());
        assert_eq!(String::from_utf8_lossy(SIGNED_PREFIX), prefix);
        let page = std::vec![3; HEADER_BYTES];
        let signed = signed_bytes(&page).concat();
        assert_eq!(signed.len(), SIGNED_PREFIX.len() + HEADER_BYTES);
        assert!(signed.ends_with(&[0; 512]) && signed[43..43 + 3584] == page[..3584]);
    }
}
