//! The results of the functions of the C interface: numbers with a fixed meaning, and their messages.

use crate::format::FormatError;
use crate::session::SessionError;
use crate::tokenizer::EncodeError;
use core::ffi::CStr;

/// Result of a function; `slm.h` has the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer is null.
    Null = 1,
    /// A pointer is misaligned.
    Alignment = 2,
    /// The memory is smaller than required.
    Memory = 3,
    /// An argument is out of range.
    Argument = 4,
    /// The model was not opened, or the session not started.
    NotOpen = 5,
    /// The bytes are not a valid artifact.
    Format = 6,
    /// A digest does not match.
    Digest = 7,
    /// A token is outside the vocabulary.
    Token = 8,
    /// The context is full.
    Context = 9,
    /// The model is of another kind.
    Kind = 10,
    /// The list of tokens is empty.
    Empty = 11,
    /// A value of the model is out of range.
    Range = 12,
    /// The artifact has no tokenizer for the device.
    NoTokenizer = 13,
    /// The text is not UTF-8.
    Utf8 = 14,
    /// The caller's array is too short for the result.
    Capacity = 15,
    /// The logits of this machine differ from the build machine's.
    SelfTest = 16,
    /// A defect of this library.
    Internal = 17,
    /// The artifact has no grammar.
    NoGrammar = 18,
    /// The grammar does not take the token.
    Refused = 19,
    /// The snapshot is of another model, or damaged.
    Snapshot = 20,
    /// The artifact carries no draft model.
    NoDraft = 21,
    /// The artifact is not signed, or a signature does not hold.
    #[cfg(any(test, feature = "signed"))]
    Signature = 22,
    /// None of the firmware's keys signed the artifact, or not as many as must.
    #[cfg(any(test, feature = "signed"))]
    KeyUnknown = 23,
    /// The artifact is older than what the device has confirmed.
    #[cfg(any(test, feature = "signed"))]
    Rollback = 24,
    /// The artifact is of another product line.
    #[cfg(any(test, feature = "signed"))]
    ModelId = 25,
    /// A leaf is not what was signed.
    #[cfg(any(test, feature = "signed", feature = "streaming"))]
    Leaf = 26,
    /// Leaves of the weights have not been checked yet.
    #[cfg(any(test, feature = "signed"))]
    Unchecked = 27,
    /// The caller's reader failed.
    #[cfg(any(test, feature = "signed", feature = "streaming"))]
    Read = 28,
    /// This library cannot verify the key's algorithm.
    #[cfg(any(test, feature = "signed"))]
    NoVerifier = 29,
    /// The caller could not append a record to the log.
    #[cfg(any(test, feature = "audit"))]
    Append = 30,
    /// Not the last record of a log, or the last that there can be.
    #[cfg(any(test, feature = "audit"))]
    Log = 31,
    /// The caller gave no signature.
    #[cfg(any(test, feature = "audit"))]
    Signer = 32,
    /// The log has no secret key.
    #[cfg(any(test, feature = "audit"))]
    NoLogKey = 33,
    /// The artifact has no plan for streaming, or one whose buffers do not take the leaves of its signature.
    #[cfg(any(test, feature = "streaming"))]
    NoPlan = 34,
    /// An earlier step failed in the middle of the sequence.
    Interrupted = 35,
    /// The package is not sound, or a leaf that it makes is not what was signed.
    #[cfg(any(test, feature = "update"))]
    Package = 40,
    /// The package was made from another artifact than the active one.
    #[cfg(any(test, feature = "update"))]
    Base = 41,
    /// No sound slot record, or a slot does not hold the artifact that it names.
    #[cfg(any(test, feature = "update"))]
    Slot = 42,
    /// A trial runs where none may, or none where one must.
    #[cfg(any(test, feature = "update"))]
    Trial = 43,
    /// Flash, protected storage or the source of the package failed.
    #[cfg(any(test, feature = "update"))]
    Device = 44,
    /// The caller's health check failed.
    #[cfg(any(test, feature = "update"))]
    Health = 45,
    /// The weights of the artifact are not in cipher, and are to be opened; or they are, and are to be run.
    #[cfg(any(test, feature = "seal"))]
    Sealed = 50,
    /// No stanza is for this device's key.
    #[cfg(any(test, feature = "seal"))]
    NoStanza = 51,
    /// The stanza of this device's key, or a leaf, was not closed with it.
    #[cfg(any(test, feature = "seal"))]
    Cipher = 52,
    /// This library lacks the cipher.
    #[cfg(any(test, feature = "seal"))]
    NoCipher = 53,
}

impl Status {
    /// Every status, by number; those of signed artifacts and of logs only where this library has them.
    pub const ALL: &'static [Status] = &[
        Status::Ok,
        Status::Null,
        Status::Alignment,
        Status::Memory,
        Status::Argument,
        Status::NotOpen,
        Status::Format,
        Status::Digest,
        Status::Token,
        Status::Context,
        Status::Kind,
        Status::Empty,
        Status::Range,
        Status::NoTokenizer,
        Status::Utf8,
        Status::Capacity,
        Status::SelfTest,
        Status::Internal,
        Status::NoGrammar,
        Status::Refused,
        Status::Snapshot,
        Status::NoDraft,
        #[cfg(any(test, feature = "signed"))]
        Status::Signature,
        #[cfg(any(test, feature = "signed"))]
        Status::KeyUnknown,
        #[cfg(any(test, feature = "signed"))]
        Status::Rollback,
        #[cfg(any(test, feature = "signed"))]
        Status::ModelId,
        #[cfg(any(test, feature = "signed", feature = "streaming"))]
        Status::Leaf,
        #[cfg(any(test, feature = "signed"))]
        Status::Unchecked,
        #[cfg(any(test, feature = "signed", feature = "streaming"))]
        Status::Read,
        #[cfg(any(test, feature = "signed"))]
        Status::NoVerifier,
        #[cfg(any(test, feature = "audit"))]
        Status::Append,
        #[cfg(any(test, feature = "audit"))]
        Status::Log,
        #[cfg(any(test, feature = "audit"))]
        Status::Signer,
        #[cfg(any(test, feature = "audit"))]
        Status::NoLogKey,
        #[cfg(any(test, feature = "streaming"))]
        Status::NoPlan,
        Status::Interrupted,
        #[cfg(any(test, feature = "update"))]
        Status::Package,
        #[cfg(any(test, feature = "update"))]
        Status::Base,
        #[cfg(any(test, feature = "update"))]
        Status::Slot,
        #[cfg(any(test, feature = "update"))]
        Status::Trial,
        #[cfg(any(test, feature = "update"))]
        Status::Device,
        #[cfg(any(test, feature = "update"))]
        Status::Health,
        #[cfg(any(test, feature = "seal"))]
        Status::Sealed,
        #[cfg(any(test, feature = "seal"))]
        Status::NoStanza,
        #[cfg(any(test, feature = "seal"))]
        Status::Cipher,
        #[cfg(any(test, feature = "seal"))]
        Status::NoCipher,
    ];

    /// The meaning of the status, and the remedy.
    pub const fn message(self) -> &'static CStr {
        match self {
            Status::Ok => c"done",
            Status::Null => c"a pointer is null",
            Status::Alignment => {
                c"a pointer is not aligned: memory must start on 64 bytes, structures and arrays on their own"
            }
            Status::Memory => c"the memory is too small; ask for the required bytes first",
            Status::Argument => c"an argument is out of range",
            Status::NotOpen => c"the model was not opened, or the session not started",
            Status::Format => c"not a sound artifact; slm_model_error says what is wrong with it",
            Status::Digest => c"a digest does not match: the artifact was changed or damaged",
            Status::Token => c"a token is outside the vocabulary",
            Status::Context => c"the context is full; reset the session, or compile with a larger --context",
            Status::Kind => c"the model is an encoder: it has no steps, use slm_run",
            Status::Empty => c"there are no tokens",
            Status::Range => c"a value of the model is out of range or not a number: its weights are broken",
            Status::NoTokenizer => c"the artifact has no tokenizer for the device; `slmc inspect` says why",
            Status::Utf8 => c"the text is not UTF-8",
            Status::Capacity => c"the array is too short; the count says how long it must be",
            Status::SelfTest => c"this machine computes other logits than the build machine did",
            Status::Internal => c"a defect of the runtime; please report it",
            Status::NoGrammar => c"the artifact has no grammar; `slmc compile --grammar` writes one",
            Status::Snapshot => c"not a snapshot of this model, or damaged; read the sequence again",
            Status::NoDraft => c"the artifact carries no draft model; `slmc compile --draft` writes one",
            #[cfg(any(test, feature = "signed"))]
            Status::Signature => c"not signed, or a signature does not hold; slm_model_error says which",
            #[cfg(any(test, feature = "signed"))]
            Status::KeyUnknown => c"not signed by the firmware's keys, or not by as many as must",
            #[cfg(any(test, feature = "signed"))]
            Status::Rollback => c"the artifact is older than what the device has confirmed",
            #[cfg(any(test, feature = "signed"))]
            Status::ModelId => c"the artifact is of another product line",
            #[cfg(any(test, feature = "signed", feature = "streaming"))]
            Status::Leaf => c"a leaf is not what was signed: the artifact was changed or damaged",
            #[cfg(any(test, feature = "signed"))]
            Status::Unchecked => c"leaves of the weights have not been checked; call slm_verify_leaves",
            #[cfg(any(test, feature = "signed", feature = "streaming"))]
            Status::Read => c"the reader failed",
            #[cfg(any(test, feature = "signed"))]
            Status::NoVerifier => {
                c"the algorithm of a key is lacking; build with the feature ed25519 or p256, or pass a function that verifies"
            }
            #[cfg(any(test, feature = "audit"))]
            Status::Append => c"the record could not be appended to the log; it is not counted, write it again",
            #[cfg(any(test, feature = "audit"))]
            Status::Log => c"not the last record of a log, or the last that there can be; begin another log",
            #[cfg(any(test, feature = "audit"))]
            Status::Signer => c"the signer gave no signature",
            #[cfg(any(test, feature = "audit"))]
            Status::NoLogKey => c"the log has no secret key; slm_audit_start takes one",
            #[cfg(any(test, feature = "streaming"))]
            Status::NoPlan => {
                c"the artifact has no plan for streaming, or buffers too small for its leaves; `slmc compile --resident` makes one"
            }
            Status::Interrupted => c"an earlier step failed in the middle of the sequence; reset the session",
            #[cfg(any(test, feature = "update"))]
            Status::Package => c"not a sound package, or it makes other bytes than were signed; fetch it again",
            #[cfg(any(test, feature = "update"))]
            Status::Base => c"the package was made from another artifact than the active one",
            #[cfg(any(test, feature = "update"))]
            Status::Slot => c"no sound slot record, or a slot does not hold the artifact that the record names",
            #[cfg(any(test, feature = "update"))]
            Status::Trial => c"a trial runs, which must be confirmed or rejected first; or none runs that could be",
            #[cfg(any(test, feature = "update"))]
            Status::Device => c"flash, protected storage or the source of the package failed",
            #[cfg(any(test, feature = "update"))]
            Status::Health => c"the health check failed",
            #[cfg(any(test, feature = "seal"))]
            Status::Sealed => {
                c"the weights are in cipher, which slm_open_sealed opens; or they are not, and slm_open_signed opens the artifact"
            }
            #[cfg(any(test, feature = "seal"))]
            Status::NoStanza => c"no stanza is for this device's key; `slmc key-stanza` makes one",
            #[cfg(any(test, feature = "seal"))]
            Status::Cipher => c"the stanza of this device, or a leaf, was not closed with the key; slm_model_error says which",
            #[cfg(any(test, feature = "seal"))]
            Status::NoCipher => c"the cipher is lacking; build with the feature chacha or aes, or pass a function that opens",
            Status::Refused => c"the grammar does not take this token here; slm_grammar_allowed says which it takes",
        }
    }

    /// The status with a number.
    pub fn from_number(number: i32) -> Option<Status> {
        Status::ALL.iter().copied().find(|&status| status as i32 == number)
    }
}

impl From<FormatError> for Status {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Digest(_) | FormatError::TensorDigest(_) => Status::Digest,
            #[cfg(feature = "seal")]
            FormatError::Sealed => Status::Sealed,
            _ => Status::Format,
        }
    }
}

#[cfg(feature = "signed")]
impl From<crate::trust::TrustError> for Status {
    fn from(error: crate::trust::TrustError) -> Self {
        use crate::trust::TrustError as E;
        match error {
            E::Format(error) => error.into(),
            E::Policy(_) | E::Key { .. } | E::Range => Status::Argument,
            E::NotSigned | E::Signature { .. } => Status::Signature,
            E::KeyUnknown { .. } | E::Threshold { .. } => Status::KeyUnknown,
            E::Unable(_) => Status::NoVerifier,
            E::ModelId { .. } => Status::ModelId,
            E::Rollback { .. } | E::Counter => Status::Rollback,
            E::Leaf { .. } => Status::Leaf,
            E::Unchecked { .. } => Status::Unchecked,
            E::Memory { .. } => Status::Memory,
            E::Read { .. } => Status::Read,
        }
    }
}

#[cfg(feature = "seal")]
impl From<crate::seal::SealError> for Status {
    fn from(error: crate::seal::SealError) -> Self {
        use crate::seal::SealError as E;
        match error {
            E::Trust(error) => error.into(),
            E::NotSealed => Status::Sealed,
            E::NoStanza { .. } => Status::NoStanza,
            E::Stanza | E::Tag { .. } => Status::Cipher,
            E::Unable(_) => Status::NoCipher,
            E::Memory { .. } => Status::Memory,
            E::Alignment => Status::Alignment,
            E::Range => Status::Argument,
        }
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::MemorySize { .. } => Status::Memory,
            SessionError::MemoryAlignment => Status::Alignment,
            SessionError::Token(_) => Status::Token,
            SessionError::ContextFull { .. } => Status::Context,
            SessionError::NotADecoder => Status::Kind,
            #[cfg(feature = "exits")]
            SessionError::NotAClassifier => Status::Kind,
            SessionError::Empty => Status::Empty,
            SessionError::NumericRange { .. } => Status::Range,
            SessionError::Shortened { .. } => Status::Argument,
            SessionError::Interrupted => Status::Interrupted,
            SessionError::Format(error) => error.into(),
            #[cfg(feature = "streaming")]
            SessionError::Read(error) => error.into(),
        }
    }
}

#[cfg(feature = "streaming")]
impl From<crate::streaming::ReadError> for Status {
    fn from(error: crate::streaming::ReadError) -> Self {
        use crate::streaming::ReadError as E;
        match error {
            E::Failed { .. } | E::Late { .. } | E::Short { .. } => Status::Read,
            E::Leaf { .. } => Status::Leaf,
            E::Tensor(_) => Status::Digest,
            E::Buffers { .. } => Status::Memory,
            E::Interrupted => Status::Interrupted,
        }
    }
}

#[cfg(feature = "streaming")]
impl From<crate::streaming::OpenError> for Status {
    fn from(error: crate::streaming::OpenError) -> Self {
        use crate::streaming::OpenError as E;
        match error {
            E::Format(error) => error.into(),
            E::Read(error) => error.into(),
            #[cfg(feature = "signed")]
            E::Trust(error) => error.into(),
            E::NoPlan | E::Leaves { .. } => Status::NoPlan,
            E::Sealed => Status::Format,
            E::Memory { .. } => Status::Memory,
        }
    }
}

impl From<EncodeError> for Status {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Memory => Status::Memory,
            EncodeError::MemoryAlignment => Status::Alignment,
        }
    }
}

#[cfg(feature = "update")]
impl From<crate::update::UpdateError> for Status {
    fn from(error: crate::update::UpdateError) -> Self {
        use crate::update::UpdateError as E;
        match error {
            E::NotAPackage | E::Version(_) | E::Length { .. } | E::Package(_) | E::ChunkList | E::Leaf(_) => {
                Status::Package
            }
            E::Page(error) => error.into(),
            E::Place(_) => Status::Format,
            E::OtherBase => Status::Base,
            E::Untrusted => Status::Signature,
            E::Rollback { .. } => Status::Rollback,
            E::OtherModel => Status::ModelId,
            E::Slot { .. } => Status::Capacity,
            E::Memory { .. } => Status::Memory,
            E::TrialRuns | E::NoTrial => Status::Trial,
            E::NoRecord | E::OtherArtifact => Status::Slot,
            E::SelfTest => Status::SelfTest,
            E::Health => Status::Health,
            E::Written { .. } | E::Device => Status::Device,
        }
    }
}
