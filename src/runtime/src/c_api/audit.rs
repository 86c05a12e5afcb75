//! `slm_audit_*`, `slm_exchange_*`: the log of what was inferred, written through the caller's function.

use super::choice::{ChoiceOptions, sampling_of};
use super::model::{Model, opened};
use super::pointers::{array, check_pointer, place};
use super::{Status, guarded};
use crate::audit::{
    AuditError, AuditLog, AuditRecord, End, Event, Exchange, Follows, LogKey, Outcome, SAVED_KEY_BYTES, SealKind,
    Signer,
};
use crate::hmac::wipe;
use crate::sha256::Digest;
use core::ffi::c_void;

/// Size of [`OpenLog`] in `slm.h`, in 64-bit words.
pub const AUDIT_WORDS: usize = 32;
/// Size of [`OpenExchange`] in `slm.h`, in 64-bit words.
pub const EXCHANGE_WORDS: usize = 80;

/// Marks of structures that were set up.
const LOG_OPEN: u64 = 0x534C_4D4C_4F47_4F31;
const EXCHANGE_OPEN: u64 = 0x534C_4D45_5843_4831;

/// `slm_audit`: a log being written, in [`AUDIT_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct OpenLog {
    mark: u64,
    log: AuditLog,
}

/// `slm_exchange`: a question and its answer, in [`EXCHANGE_WORDS`] words of the caller's memory.
#[repr(C, align(8))]
pub struct OpenExchange {
    mark: u64,
    exchange: Exchange,
}

const _: () = assert!(size_of::<OpenLog>() <= AUDIT_WORDS * 8 && align_of::<OpenLog>() == 8);
const _: () = assert!(size_of::<OpenExchange>() <= EXCHANGE_WORDS * 8 && align_of::<OpenExchange>() == 8);

/// `slm_append`: receives a record; returns 0 once it is in the log.
pub type AppendRecord = unsafe extern "C" fn(user: *mut c_void, record: *const u8) -> i32;
/// `slm_sign`: writes the signature of a message; returns 0 where it did.
pub type Sign = unsafe extern "C" fn(user: *mut c_void, message: *const u8, length: usize, signature: *mut u8) -> i32;

/// `slm_outcome`: how an inference ended.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct AuditOutcome {
    /// 0, or the number of what went wrong, at most 255.
    pub status: u32,
    /// An [`End`].
    pub end: u32,
    /// A [`Follows`].
    pub follows: u32,
}

impl From<AuditError> for Status {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Append => Status::Append,
            AuditError::Last(_) | AuditError::Full => Status::Log,
            AuditError::Signer => Status::Signer,
            AuditError::NoKey => Status::NoLogKey,
        }
    }
}

/// A log that was started.
///
/// # Safety
/// `audit` is null or points to memory of an `slm_audit`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn started_log<'c>(audit: *mut OpenLog) -> Result<&'c mut AuditLog, Status> {
    check_pointer(audit, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*audit).mark).read() } != LOG_OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_audit_start` wrote the whole structure.
    Ok(&mut unsafe { &mut *audit }.log)
}

/// An exchange that was begun.
///
/// # Safety
/// `exchange` is null or points to memory of an `slm_exchange`, set up or zero.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn begun<'c>(exchange: *mut OpenExchange) -> Result<&'c mut OpenExchange, Status> {
    check_pointer(exchange, 1)?;
    // SAFETY: checked above. Only the mark is read, which is valid for any content of the memory.
    if unsafe { (&raw const (*exchange).mark).read() } != EXCHANGE_OPEN {
        return Err(Status::NotOpen);
    }
    // SAFETY: the mark says that `slm_exchange_begin` wrote the whole structure.
    Ok(unsafe { &mut *exchange })
}

/// An array of the caller with a fixed length; `None` of a null pointer.
///
/// # Safety
/// `pointer` is null or has `N` bytes.
#[expect(unsafe_code, reason = "arrays of the caller")]
unsafe fn bytes_of<const N: usize>(pointer: *const u8) -> Result<Option<[u8; N]>, Status> {
    if pointer.is_null() {
        return Ok(None);
    }
    let mut bytes = [0; N];
    // SAFETY: as the caller says.
    bytes.copy_from_slice(unsafe { array(pointer, N) }?);
    Ok(Some(bytes))
}

/// The digest of an opened model; zeros of a null pointer.
///
/// # Safety
/// `model` is null or an `slm_model`.
#[expect(unsafe_code, reason = "structures of the caller")]
unsafe fn digest_of(model: *const Model) -> Result<Digest, Status> {
    if model.is_null() {
        return Ok([0; 32]);
    }
    // SAFETY: as the caller says.
    Ok(unsafe { opened(model) }?.header().device_digest)
}

/// The caller's function as the log calls it.
///
/// # Safety
/// `append` may be called with `user`.
#[expect(unsafe_code, reason = "functions of the caller")]
unsafe fn appending(
    append: Option<AppendRecord>,
    user: *mut c_void,
) -> Result<impl FnMut(&[u8; AuditRecord::BYTES]) -> bool, Status> {
    let append = append.ok_or(Status::Null)?;
    // SAFETY: the caller's function, called with the pointer it gave.
    Ok(move |record: &[u8; AuditRecord::BYTES]| unsafe { append(user, record.as_ptr()) } == 0)
}

/// Starts a log, or goes on with one.
///
/// # Safety
/// `audit` has the size of an `slm_audit`; `last` is null or has 160 bytes, `root` is null or has 32, `saved_key` is null or
/// has 100.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_start(
    audit: *mut OpenLog,
    last: *const u8,
    root: *mut u8,
    saved_key: *const u8,
) -> Status {
    guarded(|| {
        check_pointer(audit, 1)?;
        // SAFETY: as the caller says.
        let (last, secret) = unsafe { (bytes_of::<{ AuditRecord::BYTES }>(last)?, bytes_of::<32>(root)?) };
        // SAFETY: as the caller says.
        let saved = unsafe { bytes_of::<SAVED_KEY_BYTES>(saved_key) }?;
        let key = match (secret, saved) {
            (Some(_), Some(_)) => return Err(Status::Argument),
            (Some(mut secret), None) => {
                let key = LogKey::new(&secret);
                wipe(&mut secret);
                // SAFETY: as the caller says.
                wipe(unsafe { super::pointers::array_mut(root, 32) }?);
                Some(key)
            }
            (None, Some(mut saved)) => {
                let key = LogKey::restore(&saved);
                wipe(&mut saved);
                Some(key)
            }
            (None, None) => None,
        };
        let log = match last {
            Some(last) => AuditLog::resume(&last, key)?,
            None => AuditLog::new(key),
        };
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { audit.write(OpenLog { mark: LOG_OPEN, log }) };
        Ok(())
    })
}

/// What to keep of the key over a restart.
///
/// # Safety
/// `audit` is an `slm_audit`; `saved_key` has 100 bytes.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_save_key(audit: *mut OpenLog, saved_key: *mut u8) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, saved) =
            (unsafe { started_log(audit) }?, unsafe { place(saved_key.cast::<[u8; SAVED_KEY_BYTES]>()) }?);
        *saved = log.key().ok_or(Status::NoLogKey)?.save();
        Ok(())
    })
}

/// The head of the log and the number of its records.
///
/// # Safety
/// `audit` is an `slm_audit`; `head` has 32 bytes; `records` is a place for the result.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_head(audit: *mut OpenLog, head: *mut u8, records: *mut u64) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, head) = (unsafe { started_log(audit) }?, unsafe { place(head.cast::<Digest>()) }?);
        // SAFETY: as the caller says.
        let records = unsafe { place(records) }?;
        (*head, *records) = (*log.head(), log.sequence().unwrap_or(u64::MAX));
        Ok(())
    })
}

/// Begins a question.
///
/// # Safety
/// `exchange` has the size of an `slm_exchange`; `audit` is an `slm_audit`; `choice` is null or an `slm_choice`.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_exchange_begin(
    exchange: *mut OpenExchange,
    audit: *mut OpenLog,
    choice: *const ChoiceOptions,
    seed: u64,
) -> Status {
    guarded(|| {
        check_pointer(exchange, 1)?;
        // SAFETY: as the caller says.
        let log = unsafe { started_log(audit) }?;
        // SAFETY: as the caller says.
        let sampling = unsafe { sampling_of(choice) }?;
        if !sampling.is_valid() {
            return Err(Status::Argument);
        }
        let begun = OpenExchange { mark: EXCHANGE_OPEN, exchange: log.exchange(&sampling, seed) };
        // SAFETY: checked above; the structure need not be set up before.
        unsafe { exchange.write(begun) };
        Ok(())
    })
}

/// Adds tokens of the question.
///
/// # Safety
/// `exchange` is an `slm_exchange`; `tokens` has `count` tokens.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_exchange_input(exchange: *mut OpenExchange, tokens: *const u32, count: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (exchange, tokens) = (unsafe { begun(exchange) }?, unsafe { array(tokens, count) }?);
        exchange.exchange.input(tokens);
        Ok(())
    })
}

/// Adds tokens of the answer.
///
/// # Safety
/// As for [`slm_exchange_input`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_exchange_output(exchange: *mut OpenExchange, tokens: *const u32, count: usize) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (exchange, tokens) = (unsafe { begun(exchange) }?, unsafe { array(tokens, count) }?);
        exchange.exchange.output(tokens);
        Ok(())
    })
}

/// Records a question and its answer; the exchange is over then, also where it could not be appended.
///
/// # Safety
/// `audit` is an `slm_audit`, `exchange` an `slm_exchange`, `model` an `slm_model`, `outcome` an `slm_outcome`; `append` may
/// be called with `user`, and does not use the log.
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_inference(
    audit: *mut OpenLog,
    exchange: *mut OpenExchange,
    model: *const Model,
    outcome: *const AuditOutcome,
    time: u64,
    append: Option<AppendRecord>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, open) = (unsafe { started_log(audit) }?, unsafe { begun(exchange) }?);
        // SAFETY: as the caller says.
        let view = unsafe { opened(model) }?;
        check_pointer(outcome, 1)?;
        // SAFETY: checked above.
        let AuditOutcome { status, end, follows } = unsafe { outcome.read() };
        let end = [End::Unstated, End::Model, End::Length, End::Context, End::Stopped]
            .into_iter()
            .find(|&known| known as u32 == end)
            .ok_or(Status::Argument)?;
        let follows = [Follows::Artifact, Follows::Nothing, Follows::Another]
            .into_iter()
            .find(|&known| known as u32 == follows)
            .ok_or(Status::Argument)?;
        let outcome = Outcome { status: u8::try_from(status).map_err(|_| Status::Argument)?, end, follows };
        // SAFETY: as the caller says.
        let mut append = unsafe { appending(append, user) }?;
        open.mark = 0;
        let exchange = open.exchange.clone();
        Ok(log.inference(&view.header().device_digest, exchange, outcome, time, &mut append)?)
    })
}

/// Records an event: 2 a model was opened, 3 an update, 5 a note.
///
/// # Safety
/// `audit` is an `slm_audit`; `model` is null or an `slm_model`; `detail` is null or has 32 bytes; `append` as for
/// [`slm_audit_inference`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_event(
    audit: *mut OpenLog,
    kind: u32,
    status: u32,
    model: *const Model,
    detail: *const u8,
    time: u64,
    append: Option<AppendRecord>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, artifact) = (unsafe { started_log(audit) }?, unsafe { digest_of(model) }?);
        // SAFETY: as the caller says.
        let detail = unsafe { bytes_of::<32>(detail) }?;
        let status = u8::try_from(status).map_err(|_| Status::Argument)?;
        let event = match (kind, detail) {
            (2, None) => Event::Opened(status),
            (3, detail) => Event::Update(status, detail.unwrap_or_default()),
            (5, detail) => Event::Note(status, detail.unwrap_or_default()),
            _ => return Err(Status::Argument),
        };
        // SAFETY: as the caller says.
        let mut append = unsafe { appending(append, user) }?;
        Ok(log.event(&artifact, event, time, &mut append)?)
    })
}

/// Seals the log by its secret key, which moves on.
///
/// # Safety
/// `audit` is an `slm_audit`; `append` as for [`slm_audit_inference`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_seal(
    audit: *mut OpenLog,
    time: u64,
    append: Option<AppendRecord>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, mut append) = (unsafe { started_log(audit) }?, unsafe { appending(append, user) }?);
        Ok(log.seal(time, &mut append)?)
    })
}

/// A signer behind the caller's function.
struct CallersSigner {
    kind: SealKind,
    key_id: Digest,
    sign: Sign,
    user: *mut c_void,
}

impl Signer for CallersSigner {
    fn kind(&self) -> SealKind {
        self.kind
    }

    fn key_id(&self) -> Digest {
        self.key_id
    }

    #[expect(unsafe_code, reason = "functions of the caller")]
    fn sign(&mut self, message: &[u8]) -> Option<[u8; 64]> {
        let mut signature = [0; 64];
        // SAFETY: the caller's function, called with the pointer it gave, and places of the lengths that it is told.
        let answer = unsafe { (self.sign)(self.user, message.as_ptr(), message.len(), signature.as_mut_ptr()) };
        (answer == 0).then_some(signature)
    }
}

/// Seals the log by a signature: `algorithm` 1 Ed25519, 2 ECDSA with P-256 and SHA-256.
///
/// # Safety
/// `audit` is an `slm_audit`; `key_id` has 32 bytes; `sign` may be called with `signer`; `append` as for
/// [`slm_audit_inference`].
#[expect(unsafe_code, reason = "a function of the C interface")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slm_audit_seal_by(
    audit: *mut OpenLog,
    algorithm: u32,
    key_id: *const u8,
    sign: Option<Sign>,
    signer: *mut c_void,
    time: u64,
    append: Option<AppendRecord>,
    user: *mut c_void,
) -> Status {
    guarded(|| {
        // SAFETY: as the caller says.
        let (log, mut append) = (unsafe { started_log(audit) }?, unsafe { appending(append, user) }?);
        let kind = [SealKind::Ed25519, SealKind::EcdsaP256].into_iter().find(|&kind| kind as u32 == algorithm);
        // SAFETY: as the caller says.
        let key_id = unsafe { bytes_of::<32>(key_id) }?.ok_or(Status::Null)?;
        let (kind, sign) = (kind.ok_or(Status::Argument)?, sign.ok_or(Status::Null)?);
        let mut signer = CallersSigner { kind, key_id, sign, user: signer };
        Ok(log.seal_by(&mut signer, time, &mut append)?)
    })
}
