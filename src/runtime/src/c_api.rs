//! The C interface, `include/slm.h`: the same session, tokenizer and sampler behind functions that take pointers.
//! Memory is the caller's; every pointer is checked (null, alignment, length) before it is dereferenced; errors are
//! numbers. No panic crosses the boundary: with the feature `std` it is caught and returned as a status, without it the
//! caller's or this crate's panic handler (feature `panic-handler`) runs.
//!
//! | file | contents |
//! |---|---|
//! | `status` | the results of functions |
//! | `pointers` | the caller's pointers |
//! | `model` | an opened artifact |
//! | `session` | tokens in, logits out; the self-test |
//! | `exits` | where a text left a classifier, and how sure it is |
//! | `speculation`, `snapshot` | several tokens at once; sequences shortened, saved and taken up |
//! | `text` | text to tokens and back |
//! | `choice` | the choice of the next token |
//! | `grammar` | the tokens that a grammar allows next |
//! | `chat` | the fixed texts around a conversation's messages |
//! | `audit` | the log of what was inferred |
//! | `update` | packages, slots, trials |
//! | `trust` | signed artifacts |
//! | `seal` | artifacts whose weights are in cipher |
//! | `streaming` | weights in slow storage |

#[cfg(any(test, feature = "audit"))]
mod audit;
mod chat;
mod choice;
#[cfg(feature = "exits")]
mod exits;
#[cfg(feature = "grammar")]
mod grammar;
mod model;
mod pointers;
#[cfg(feature = "seal")]
mod seal;
mod session;
#[cfg(feature = "snapshots")]
mod snapshot;
#[cfg(feature = "speculation")]
mod speculation;
mod status;
#[cfg(feature = "streaming")]
mod streaming;
#[cfg(test)]
mod tests;
mod text;
#[cfg(feature = "signed")]
mod trust;
#[cfg(feature = "update")]
mod update;

#[cfg(any(test, feature = "audit"))]
pub use audit::{
    AUDIT_WORDS, AppendRecord, AuditOutcome, EXCHANGE_WORDS, OpenExchange, OpenLog, Sign, slm_audit_event,
    slm_audit_head, slm_audit_inference, slm_audit_save_key, slm_audit_seal, slm_audit_seal_by, slm_audit_start,
    slm_exchange_begin, slm_exchange_input, slm_exchange_output,
};
pub use chat::{ChatFacts, slm_chat_describe, slm_chat_message, slm_chat_text, slm_chat_tokens};
pub use choice::{ChoiceOptions, SamplingOptions, slm_choose, slm_choose_among, slm_default_choice, slm_sample};
#[cfg(feature = "exits")]
pub use exits::{slm_confidence, slm_exit_layers, slm_set_leaving};
#[cfg(feature = "grammar")]
pub use grammar::{
    GRAMMAR_STATE_NUMBERS, GRAMMAR_WORDS, OpenGrammar, slm_grammar_accepts, slm_grammar_advance, slm_grammar_allowed,
    slm_grammar_complete, slm_grammar_forced, slm_grammar_open, slm_grammar_start, slm_grammar_words,
};
pub use model::{
    EmbeddingFacts, Facts, MODEL_WORDS, Model, slm_describe, slm_embedding_describe, slm_end_tokens, slm_is_end,
    slm_model_error, slm_open, slm_opening_tokens, slm_verify,
};
#[cfg(feature = "seal")]
pub use seal::{DEVICE_KEY_BYTES, Decipher, OpenStanza, UnsealingOptions, slm_open_sealed, slm_unseal_bytes};
pub use session::{
    Row, State, slm_logits, slm_positions, slm_reset, slm_run, slm_self_test, slm_session_bytes, slm_session_bytes_for,
    slm_session_error, slm_session_init, slm_session_init_rows, slm_step, slm_step_allowed,
};
#[cfg(feature = "snapshots")]
pub use snapshot::{slm_prefix_tokens, slm_restore, slm_restore_prefix, slm_save, slm_snapshot_bytes};
#[cfg(feature = "speculation")]
pub use speculation::{
    Next, slm_confirm, slm_draft_continuations, slm_draft_model, slm_draft_repeats, slm_mark, slm_truncate,
};
pub use status::Status;
#[cfg(feature = "streaming")]
pub use streaming::{
    OpenStreamed, READ_FAILED, READ_LATE, STREAMED_WORDS, StorageFunctions, StreamedSizes, TrafficCounts,
    slm_streamed_error, slm_streamed_init, slm_streamed_needs, slm_streamed_open, slm_streamed_self_test,
    slm_streamed_settle, slm_streamed_traffic, slm_streamed_verify,
};
pub use text::{Decoder, slm_decode, slm_decode_begin, slm_encode, slm_encode_bytes};
#[cfg(feature = "signed")]
pub use trust::{
    HashPieces, MAX_KEYS, Piece, PublicKey, ReadBytes, STREAM_WORDS, Stream, TrustOptions, VerifySignature,
    slm_open_signed, slm_open_signed_lazily, slm_seen_bytes, slm_stream_describe, slm_stream_load, slm_stream_open,
    slm_stream_read, slm_verify_leaves,
};
#[cfg(feature = "update")]
pub use update::{
    AdvanceCounter, BootChoice, EraseBlock, Healthy, PackageSource, ReadCounter, ReadRecord, ReadSlot, UpdateDevice,
    WriteRecord, WriteSlot, slm_update_apply, slm_update_boot, slm_update_bytes, slm_update_confirm,
    slm_update_install, slm_update_reject,
};

use core::ffi::{CStr, c_char};

/// Incremented when a program compiled against an older header would not work.
pub const ABI_VERSION: u32 = 1;

/// Runs the body of a function; a panic, where it can be caught, is returned as the status of a defect.
fn guarded(body: impl FnOnce() -> Result<(), Status>) -> Status {
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(Err(Status::Internal));
    #[cfg(not(feature = "std"))]
    let result = body();
    result.err().unwrap_or(Status::Ok)
}

/// Version of this interface.
#[expect(unsafe_code, reason = "a name of the C interface")]
#[unsafe(no_mangle)]
pub extern "C" fn slm_abi_version() -> u32 {
    ABI_VERSION
}

/// Message of a status.
#[expect(unsafe_code, reason = "a name of the C interface")]
#[unsafe(no_mangle)]
pub extern "C" fn slm_message(status: i32) -> *const c_char {
    Status::from_number(status).map_or(c"unknown status", |status| -> &CStr { status.message() }).as_ptr()
}

/// Loops forever: a device without an operating system cannot recover from a defect.
#[cfg(all(feature = "panic-handler", not(feature = "std"), not(test)))]
#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
