//! Signed artifacts from C: keys and hardware of the caller, artifacts in memory and behind a reader.

use super::model::{Model, opened, put_result};
use super::pointers::{array, array_mut, check_pointer, place};
use super::{Status, guarded};
use crate::format::artifact::ArtifactView;
use crate::format::header::Header;
use crate::format::signature::SignatureAlgorithm;
use crate::sha256::{Digest, Engine, Software};
use crate::trust::key::{ED25519_BYTES, P256_BYTES};
use crate::trust::{self, Check, Key, SignedStream, Source, Trust, TrustError, Verdict, Verifier};
use core::ffi::c_void;

/// Size of [`Stream`] in `slm.h`, in 64-bit words.
pub const STREAM_WORDS: usize = 64;
/// Most keys of a [`TrustOptions`].
pub const MAX_KEYS: usize = 8;
/// Most pieces of a message or of what is hashed.
const MAX_PIECES: usize = 16;

/// `slm_key`: a public key of the firmware.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PublicKey {
    /// 1 Ed25519, 2 ECDSA on P-256.
    pub algorithm: u32,
    /// 32 bytes, or the 65 of an uncompressed point.
    pub bytes: *const u8,
}

/// `slm_piece`: bytes that follow those of the piece before.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Piece {
    /// Its bytes.
    pub bytes: *const u8,
    /// How many.
    pub length: usize,
}

/// `slm_verify_signature`: 1 where a signature of 64 bytes is the key's over a message, 0 where not, -1 where the algorithm
/// is lacking.
pub type VerifySignature = unsafe extern "C" fn(*mut c_void, *const PublicKey, *const Piece, usize, *const u8) -> i32;

/// `slm_sha256`: writes the digest of some pieces, 32 bytes.
pub type HashPieces = unsafe extern "C" fn(*mut c_void, *const Piece, usize, *mut u8);

/// `slm_read`: fills a buffer with the bytes of a file from an offset; 0 where it did.
pub type ReadBytes = unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> i32;

/// `slm_trust`: what a device trusts.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TrustOptions {
    /// Keys of the firmware.
    pub keys: *const PublicKey,
    /// How many, at most [`MAX_KEYS`].
    pub key_count: usize,
    /// Different keys of these that must have signed, 1 or 2.
    pub threshold: u32,
    /// Zero.
    pub reserved: u32,
    /// The device's counter: files with a lower one are refused.
    pub counter: u64,
    /// The product line, 16 bytes; null where any may be opened.
    pub model_id: *const u8,
    /// Verifies signatures; null for the crates of this library.
    pub verify_signature: Option<VerifySignature>,
    /// Computes digests; null for this library.
    pub sha256: Option<HashPieces>,
    /// Passed to both.
    pub user: *mut c_void,
}

/// `slm_stream`: a signed artifact behind a reader, in [`STREAM_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct Stream {
    mark: u64,
    hardware: Hardware,
    reader: Reader,
    header: Header,
    page: &'static [u8],
    list: &'static [u8],
}

const _: () = assert!(size_of::<Stream>() <= STREAM_WORDS * 8 && align_of::<Stream>() == 8);

/// Mark of a stream that opened.
const OPEN: u64 = 0x534C_4D53_5452_4D31;

/// The caller's hardware, or this library in its place.
#[derive(Clone, Copy)]
pub(super) struct Hardware {
    verify_signature: Option<VerifySignature>,
    sha256: Option<HashPieces>,
    user: *mut c_void,
}

/// Some pieces as C has them, and how many; `None` where they are more than there are places for.
#[inline(never)]
fn pieces_of(pieces: &[&[u8]], places: &mut [Piece; MAX_PIECES]) -> Option<usize> {
    for (place, piece) in places.get_mut(..pieces.len())?.iter_mut().zip(pieces) {
        // Opaque, so that the loop stays one.
        *place = Piece { bytes: core::hint::black_box(piece.as_ptr()), length: piece.len() };
    }
    Some(pieces.len())
}

const NO_PIECE: Piece = Piece { bytes: core::ptr::null(), length: 0 };

impl Engine for Hardware {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn digest(&self, pieces: &[&[u8]]) -> Digest {
        let Some(sha256) = self.sha256 else { return Software.digest(pieces) };
        let (mut digest, mut places) = ([0; 32], [NO_PIECE; MAX_PIECES]);
        if let Some(count) = pieces_of(pieces, &mut places) {
            // SAFETY: the pieces and the digest live during the call, which is all that the header promises.
            unsafe { sha256(self.user, places.as_ptr(), count, digest.as_mut_ptr()) };
        }
        digest
    }
}

impl Verifier for Hardware {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn verify(&self, key: &Key<'_>, message: &[&[u8]], signature: &[u8; 64]) -> Verdict {
        let Some(verify) = self.verify_signature else { return Software.verify(key, message, signature) };
        let key = PublicKey { algorithm: key.algorithm() as u32, bytes: key.bytes().as_ptr() };
        let mut places = [NO_PIECE; MAX_PIECES];
        let Some(count) = pieces_of(message, &mut places) else { return Verdict::Invalid };
        // SAFETY: key, pieces and signature live during the call.
        match unsafe { verify(self.user, &key, places.as_ptr(), count, signature.as_ptr()) } {
            1 => Verdict::Valid,
            -1 => Verdict::Unable,
            _ => Verdict::Invalid,
        }
    }
}

/// The caller's reader.
#[derive(Clone, Copy)]
struct Reader {
    read: ReadBytes,
    user: *mut c_void,
}

impl Source for Reader {
    #[expect(unsafe_code, reason = "a function of the caller")]
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        // SAFETY: the buffer lives during the call.
        unsafe { (self.read)(self.user, offset, buffer.as_mut_ptr().cast(), buffer.len()) == 0 }
    }
}

/// What a caller trusts, for a call.
///
/// # Safety
/// `trust` is null or an `slm_trust` whose arrays have what it says.
#[expect(unsafe_code, reason = "structures of the caller")]
pub(super) unsafe fn with_trust<R>(
    trust: *const TrustOptions,
    use_it: impl FnOnce(&Trust<'_>, Hardware) -> Result<R, Status>,
) -> Result<R, Status> {
    // SAFETY: as the caller says.
    let given = unsafe { Given::of(trust) }?;
    let trust = Trust {
        keys: &given.keys[..given.key_count],
        threshold: given.threshold,
        model_id: given.model_id,
        counter: &given.counter,
        verifier: &given.hardware,
    };
    use_it(&trust, given.hardware)
}

/// What a caller trusts, looked at.
struct Given {
    keys: [Key<'static>; MAX_KEYS],
    key_count: usize,
    threshold: usize,
    model_id: Option<[u8; 16]>,
    counter: u64,
    hardware: Hardware,
}

impl Given {
    /// # Safety
    /// As for [`with_trust`]; what is handed out is used during the call alone.
    // One copy for all functions that take an `slm_trust`.
    #[inline(never)]
    #[expect(unsafe_code, reason = "structures of the caller")]
    unsafe fn of(trust: *const TrustOptions) -> Result<Self, Status> {
        check_pointer(trust, 1)?;
        // SAFETY: checked above, and set up as the caller says.
        let options = unsafe { *trust };
        // SAFETY: as the caller says.
        let given = unsafe { array(options.keys, options.key_count) }?;
        if given.len() > MAX_KEYS || options.reserved != 0 {
            return Err(Status::Argument);
        }
        const NONE: [u8; ED25519_BYTES] = [0; ED25519_BYTES];
        let mut keys = [Key::Ed25519(&NONE); MAX_KEYS];
        for (place, key) in keys.iter_mut().zip(given) {
            // SAFETY: as the caller says.
            *place = unsafe { key_of(key) }?;
        }
        let model_id = match options.model_id.is_null() {
            true => None,
            // SAFETY: as the caller says.
            false => Some(unsafe { array(options.model_id, 16) }?.try_into().map_err(|_| Status::Argument)?),
        };
        let hardware =
            Hardware { verify_signature: options.verify_signature, sha256: options.sha256, user: options.user };
        Ok(Given {
            keys,
            key_count: given.len(),
            threshold: options.threshold as usize,
            model_id,
            counter: options.counter,
            hardware,
        })
    }
}

/// A key of the caller.
///
/// # Safety
/// Its pointer has the bytes of a key of its algorithm, during the call that it is for.
#[inline(never)]
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn key_of(key: &PublicKey) -> Result<Key<'static>, Status> {
    let algorithm = u8::try_from(key.algorithm).ok().and_then(SignatureAlgorithm::from_number);
    let algorithm = algorithm.ok_or(Status::Argument)?;
    let length = if algorithm == SignatureAlgorithm::Ed25519 { ED25519_BYTES } else { P256_BYTES };
    // SAFETY: as the caller says.
    let bytes = unsafe { array(key.bytes, length) }?;
    Key::from_bytes(algorithm, bytes).ok_or(Status::Argument)
}

/// Opens a signed artifact and checks all of it.
///
/// # Safety
/// As for [`super::slm_open`]; `trust` is an `slm_trust` whose arrays have what it says.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_open_signed(
    model: *mut Model,
    bytes: *const c_void,
    length: usize,
    trust: *const TrustOptions,
) -> Status {
    guarded(|| {
        check_pointer(model, 1)?;
        // SAFETY: as the caller says.
        let bytes: &'static [u8] = unsafe { array(bytes.cast::<u8>(), length) }?;
        // SAFETY: as the caller says.
        let opened = unsafe { with_trust(trust, |trust, _| Ok(trust::open_whole(bytes, trust))) }?;
        // SAFETY: checked above.
        unsafe { put_result(model, opened.map(|view| (view, 0))) }
    })
}

/// Opens a signed artifact and checks all but its weights, whose leaves `seen` has a bit for.
///
/// # Safety
/// As for [`slm_open_signed`]; `seen` has `seen_bytes`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_open_signed_lazily(
    model: *mut Model,
    bytes: *const c_void,
    length: usize,
    trust: *const TrustOptions,
    seen: *mut u8,
    seen_bytes: usize,
) -> Status {
    guarded(|| {
        check_pointer(model, 1)?;
        // SAFETY: as the caller says.
        let (bytes, seen): (&'static [u8], _) =
            unsafe { (array(bytes.cast::<u8>(), length)?, array_mut(seen, seen_bytes)?) };
        // SAFETY: as the caller says.
        let opened = unsafe {
            with_trust(trust, |trust, _| {
                let signed = ArtifactView::open_signed(bytes, trust, Check::AllButWeights(seen));
                Ok(signed.map(|signed| (*signed.before_weights(), signed.unchecked())))
            })
        }?;
        // SAFETY: checked above.
        unsafe { put_result(model, opened) }
    })
}

/// Bytes of the bitmap of an artifact's weights; 0 where the bytes are not a signed artifact's.
///
/// # Safety
/// `bytes` is null or has `length` bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_seen_bytes(bytes: *const c_void, length: usize) -> usize {
    // SAFETY: as the caller says.
    unsafe { array(bytes.cast::<u8>(), length) }.map_or(0, trust::bitmap_bytes)
}

/// Checks leaves of the weights, at most `count` from `first`, and says how many of all remain.
///
/// # Safety
/// `model` was opened by [`slm_open_signed_lazily`] with the same `seen`; `trust` as there; `left` is a place.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_verify_leaves(
    model: *mut Model,
    trust: *const TrustOptions,
    seen: *mut u8,
    seen_bytes: usize,
    first: u64,
    count: u64,
    left: *mut u64,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (view, left) = (*unsafe { opened(model) }?, unsafe { place(left) }?);
        // SAFETY: as the caller says.
        let seen = unsafe { array_mut(seen, seen_bytes) }?;
        // SAFETY: an open model is set up, and nobody else uses it during the call.
        let unchecked = unsafe { &mut (*model).unchecked };
        *left = *unchecked;
        // SAFETY: as the caller says.
        let (checked, remain) = unsafe {
            with_trust(trust, |trust, _| {
                let mut signed = trust::Signed::again(view, trust.verifier, seen, *unchecked).map_err(Status::from)?;
                let leaves = signed.weight_leaves();
                let start = leaves.start.checked_add(first).filter(|&start| start <= leaves.end);
                let start = start.ok_or(Status::Argument)?;
                let end = start.saturating_add(count).min(leaves.end);
                Ok((signed.verify_leaves(start..end), signed.unchecked()))
            })
        }?;
        (*unchecked, *left) = (remain, remain);
        checked.map_err(Status::from)
    })
}

/// Reads and checks the header page and the chunk list of a signed artifact; `needed` is how much memory they take.
///
/// # Safety
/// `stream` has the size of an `slm_stream`; `memory` has `length` bytes that stay as they are while the stream is used;
/// `read` may be called with `reader` meanwhile; `trust` as for [`slm_open_signed`]; `needed` is a place.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_stream_open(
    stream: *mut Stream,
    read: Option<ReadBytes>,
    reader: *mut c_void,
    memory: *mut c_void,
    length: usize,
    trust: *const TrustOptions,
    needed: *mut u64,
) -> Status {
    guarded(|| {
        check_pointer(stream, 1)?;
        // SAFETY: as the caller says.
        let (memory, needed) = (unsafe { array_mut(memory.cast::<u8>(), length) }?, unsafe { place(needed) }?);
        *needed = 0;
        let mut reader = Reader { read: read.ok_or(Status::Null)?, user: reader };
        // SAFETY: as the caller says.
        let (header, page, list, hardware) = unsafe {
            with_trust(trust, |trust, hardware| {
                let opened = SignedStream::open(&mut reader, memory, trust);
                if let Err(TrustError::Memory { needed: bytes, .. }) = opened {
                    *needed = bytes;
                }
                let (header, page, list) = opened.map_err(Status::from)?.into_parts();
                Ok((header, page, list, hardware))
            })
        }?;
        *needed = (page.len() + list.len()) as u64;
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { stream.write(Stream { mark: OPEN, hardware, reader, header, page, list }) };
        Ok(())
    })
}

/// An open stream.
///
/// # Safety
/// `stream` is null or points to memory of an `slm_stream`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn streamed<'c>(stream: *const Stream) -> Result<&'c Stream, Status> {
    check_pointer(stream, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*stream).mark).read() } != OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_stream_open` wrote the whole structure.
    Ok(unsafe { &*stream })
}

/// Bytes of a stream's device part and of its largest leaf.
///
/// # Safety
/// `stream` is an `slm_stream`; `device_bytes` and `leaf_bytes` are places.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_stream_describe(
    stream: *const Stream,
    device_bytes: *mut u64,
    leaf_bytes: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let stream = unsafe { streamed(stream) }?;
        // SAFETY: as the caller says.
        let (device_bytes, leaf_bytes) = unsafe { (place(device_bytes)?, place(leaf_bytes)?) };
        (*device_bytes, *leaf_bytes) = (stream.header.device_bytes, 1 << stream.header.chunk_shift);
        Ok(())
    })
}

/// Reads bytes of a section and checks the leaves that they are in; `buffer` has the bytes of a leaf.
///
/// # Safety
/// `stream` is an `slm_stream`; `out` has `length` bytes and `buffer` `buffer_bytes`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_stream_read(
    stream: *const Stream,
    section: u32,
    offset: u64,
    out: *mut c_void,
    length: usize,
    buffer: *mut c_void,
    buffer_bytes: usize,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let stream = unsafe { streamed(stream) }?;
        // SAFETY: as the caller says.
        let (out, buffer) =
            unsafe { (array_mut(out.cast::<u8>(), length)?, array_mut(buffer.cast::<u8>(), buffer_bytes)?) };
        stream.signed().read(&mut { stream.reader }, section, offset, out, buffer).map_err(Status::from)
    })
}

/// Reads the device part into memory, every leaf checked there, and opens it.
///
/// # Safety
/// `stream` is an `slm_stream`; `memory` has `length` bytes that stay as they are while the model is used; `model` has the
/// size of an `slm_model`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_stream_load(
    stream: *const Stream,
    model: *mut Model,
    memory: *mut c_void,
    length: usize,
) -> Status {
    guarded(|| {
        check_pointer(model, 1)?;
        // SAFETY: as the caller says.
        let stream = unsafe { streamed(stream) }?;
        // SAFETY: as the caller says.
        let memory: &'static mut [u8] = unsafe { array_mut(memory.cast::<u8>(), length) }?;
        let loaded = stream.signed().load(&mut { stream.reader }, memory);
        // SAFETY: checked above.
        unsafe { put_result(model, loaded.map(|view| (view, 0))) }
    })
}

impl Stream {
    fn signed(&self) -> SignedStream<'_, '_> {
        SignedStream::from_parts(self.header, self.page, self.list, &self.hardware)
    }
}
