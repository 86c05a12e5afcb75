//! Sealed artifacts from C: weights opened by the device's key in memory of the caller.

use super::model::{Model, put_result};
use super::pointers::{array, array_mut, check_pointer};
use super::trust::{TrustOptions, with_trust};
use super::{Status, guarded};
use crate::format::artifact::ArtifactView;
use crate::format::header::{HEADER_BYTES, Header, SectionKind};
use crate::format::seal::{STANZA_BYTES, SealCipher, TAG_BYTES};
use crate::seal::keys::FILE_KEY_BYTES;
use crate::seal::{Cipher, DeviceKey, KeySource, Opening, SealError, SoftwareCipher, StanzaKey, Unsealing};
use crate::trust::{Check, bitmap_bytes, open_whole};
use core::ffi::c_void;

/// Bytes of a device's key.
pub const DEVICE_KEY_BYTES: usize = 32;

/// `slm_file_key`: writes the key of a file, 16 bytes, from a stanza and the salt: 1 where it did, 0 where the stanza is of
/// another device, -1 where it names this device's key and was not made by it, -2 where the cipher is lacking.
pub type OpenStanza = unsafe extern "C" fn(*mut c_void, u32, *const u8, *const u8, *mut u8) -> i32;

/// `slm_decipher`: opens bytes in their place by a key of 32 bytes, a nonce of 12 and a tag of 16: 1 where it did, 0 where the
/// tag is not theirs, -1 where the cipher is lacking.
pub type Decipher = unsafe extern "C" fn(*mut c_void, u32, *const u8, *const u8, *mut u8, usize, *const u8) -> i32;

/// `slm_unsealing`: what opens weights.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct UnsealingOptions {
    /// The device's key, 32 bytes; null where `file_key` has it.
    pub device_key: *const u8,
    /// A secure element in the place of `device_key`.
    pub file_key: Option<OpenStanza>,
    /// Hardware in the place of the library's ciphers.
    pub decipher: Option<Decipher>,
    /// A stanza that travels beside the file, 48 bytes; null where there is none.
    pub stanza: *const u8,
    /// Passed to both functions.
    pub user: *mut c_void,
}

/// The caller's functions.
struct Hardware<'o>(&'o UnsealingOptions);

impl KeySource for Hardware<'_> {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn file_key(&self, cipher: SealCipher, stanza: &[u8; STANZA_BYTES], salt: &[u8; 16]) -> StanzaKey {
        let Some(file_key) = self.0.file_key else { return StanzaKey::Unable };
        let mut key = [0; FILE_KEY_BYTES];
        // SAFETY: stanza, salt and key live during the call, which is all that the header promises.
        match unsafe { file_key(self.0.user, cipher as u32, stanza.as_ptr(), salt.as_ptr(), key.as_mut_ptr()) } {
            1 => StanzaKey::Opened(key),
            -1 => StanzaKey::Wrong,
            -2 => StanzaKey::Unable,
            _ => StanzaKey::NotMine,
        }
    }
}

impl Cipher for Hardware<'_> {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn open(
        &self,
        cipher: SealCipher,
        key: &[u8; 32],
        nonce: &[u8; 12],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Opening {
        let Some(decipher) = self.0.decipher else { return SoftwareCipher.open(cipher, key, nonce, bytes, tag) };
        let (length, number) = (bytes.len(), cipher as u32);
        // SAFETY: all of them live during the call.
        let answer = unsafe {
            decipher(self.0.user, number, key.as_ptr(), nonce.as_ptr(), bytes.as_mut_ptr(), length, tag.as_ptr())
        };
        match answer {
            1 => Opening::Open,
            -1 => Opening::Unable,
            _ => Opening::Wrong,
        }
    }
}

/// Bytes of memory in which the weights of a sealed artifact are opened: theirs, and a bit for each of their leaves. 0 where
/// the bytes are not a sealed artifact's.
///
/// # Safety
/// `bytes` is null or has `length` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_unseal_bytes(bytes: *const c_void, length: usize) -> usize {
    // SAFETY: as the caller says.
    let found = unsafe { array(bytes.cast::<u8>(), length) };
    found.ok().and_then(unseal_bytes).map_or(0, |(weights, bitmap)| weights.saturating_add(bitmap))
}

/// Bytes of the weights and of their bitmap, by a page that may lie.
fn unseal_bytes(bytes: &[u8]) -> Option<(usize, usize)> {
    use crate::format::header::{SECTION_TABLE_OFFSET, SectionRecord};
    let page = bytes.get(..HEADER_BYTES)?;
    let header = Header::from_bytes(page);
    let table = page[SECTION_TABLE_OFFSET..].chunks_exact(SectionRecord::BYTES).take(header.sections as usize);
    let weights = table.map(SectionRecord::from_bytes).find(|record| record.kind == SectionKind::Weights as u32)?;
    let weights = usize::try_from(weights.bytes).ok().filter(|_| header.encryption != 0)?;
    Some((weights, bitmap_bytes(bytes)))
}

/// Opens a signed artifact whose weights are sealed: checks all of it, and opens the weights in the caller's memory.
///
/// # Safety
/// As for [`super::slm_open_signed`]; `unsealing` is an `slm_unsealing` whose pointers have what it says; `memory` has
/// `memory_length` bytes that stay as they are while the model and its sessions are used.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_open_sealed(
    model: *mut Model,
    bytes: *const c_void,
    length: usize,
    trust: *const TrustOptions,
    unsealing: *const UnsealingOptions,
    memory: *mut c_void,
    memory_length: usize,
) -> Status {
    guarded(|| {
        check_pointer(model, 1)?;
        check_pointer(unsealing, 1)?;
        // SAFETY: checked above, and set up as the caller says.
        let options = unsafe { *unsealing };
        // SAFETY: as the caller says.
        let bytes: &'static [u8] = unsafe { array(bytes.cast::<u8>(), length) }?;
        // SAFETY: as the caller says.
        let memory: &'static mut [u8] = unsafe { array_mut(memory.cast::<u8>(), memory_length) }?;
        let stanza: Option<&[u8; STANZA_BYTES]> = match options.stanza.is_null() {
            true => None,
            // SAFETY: as the caller says.
            false => Some(unsafe { array(options.stanza, STANZA_BYTES) }?.try_into().map_err(|_| Status::Argument)?),
        };
        let hardware = Hardware(&options);
        const NONE: [u8; DEVICE_KEY_BYTES] = [0; DEVICE_KEY_BYTES];
        let key: &[u8; DEVICE_KEY_BYTES] = match (options.device_key.is_null(), options.file_key) {
            (true, None) => return Err(Status::Null),
            (true, Some(_)) => &NONE,
            (false, None) => {
                // SAFETY: as the caller says.
                unsafe { array(options.device_key, DEVICE_KEY_BYTES) }?.try_into().map_err(|_| Status::Argument)?
            }
            // Which of the two is meant is not for this library to guess.
            (false, Some(_)) => return Err(Status::Argument),
        };
        let device = DeviceKey::new(key);
        let keys: &dyn KeySource = if options.file_key.is_some() { &hardware } else { &device };
        let unsealing = Unsealing { keys, cipher: &hardware, stanza };
        // Room for what the page says; the page is checked before any of it is used.
        let room = unseal_bytes(bytes);
        let split = room.map_or(0, |(weights, _)| weights).min(memory.len());
        let (ram, bitmap) = memory.split_at_mut(split);
        // SAFETY: as the caller says.
        let opened = unsafe {
            with_trust(trust, |trust, _| {
                if room.is_none() {
                    // Refused for what it is, or else for what it is not.
                    return Ok(open_whole(bytes, trust).map_err(SealError::from).and(Err(SealError::NotSealed)));
                }
                let signed = ArtifactView::open_signed(bytes, trust, Check::AllButWeights(bitmap));
                Ok(signed.map_err(SealError::from).and_then(|signed| signed.unseal(&unsealing, ram)))
            })
        }?;
        // SAFETY: checked above.
        unsafe { put_result(model, opened.map(|view| (view, 0))) }
    })
}
