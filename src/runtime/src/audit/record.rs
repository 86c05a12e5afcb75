//! The record, 160 bytes, little-endian:
//!
//! ```text
//! magic "SLML", version 1, kind, status u16 | sequence u64 | time u64 | tokens in u32 | tokens out u32 |
//! artifact 32 | input 32 | output 32 | previous 32 = SHA-256(00 || the record before), zeros in the first
//! ```
//!
//! Fields that a kind does not use are zero, so that every byte is either stated or checked.

use crate::format::record::record;
use crate::sha256::{Digest, Sha256};

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"SLML";
/// The only version.
pub const VERSION: u8 = 1;
/// Bit of `status`: both digests are keyed ([`super::LogKey`]).
pub const KEYED: u16 = 1 << 15;
/// What a seal signs begins with this.
pub const SEAL_PREFIX: [u8; 15] = *b"slm log seal v1";
/// Bytes that a seal signs.
pub const SEAL_MESSAGE_BYTES: usize = SEAL_PREFIX.len() + 8 + 8 + 32;

record! {
    /// One record of a log.
    AuditRecord: 160 bytes {
        /// [`MAGIC`]
        magic: [u8; 4],
        /// [`VERSION`]
        version: u8,
        /// A [`Kind`].
        kind: u8,
        /// Its low byte is the status of what was done, by kind; see [`AuditRecord::fault`] for the rest.
        status: u16,
        /// 0 in the first record of a log, one more in each that follows.
        sequence: u64,
        /// The caller's, 0 where it is not known.
        time: u64,
        /// Tokens read by an inference; in a seal by a secret key, the number of the key.
        tokens_in: u32,
        /// Tokens answered by an inference, without the one that ends the text.
        tokens_out: u32,
        /// `device_digest` of the artifact; of a seal the name of its key.
        artifact: Digest,
        /// What was asked, see [`super::Exchange`]; of events the caller's detail; the first half of a seal.
        input: Digest,
        /// What was answered; the second half of a seal.
        output: Digest,
        /// Digest of the record before.
        previous: Digest,
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An artifact was asked something.
    Inference = 1,
    /// An artifact was opened.
    Opened = 2,
    /// An artifact was written, tried, confirmed or given up.
    Update = 3,
    /// Everything before is vouched for.
    Seal = 4,
    /// Whatever the caller notes.
    Note = 5,
}

impl Kind {
    /// The kind with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Kind::Inference, Kind::Opened, Kind::Update, Kind::Seal, Kind::Note]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

/// Why an output has no more tokens; bits 8 to 10 of the status of an inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum End {
    /// Not said.
    #[default]
    Unstated = 0,
    /// The model ended it, or it is one label.
    Model = 1,
    /// As many tokens as were asked for.
    Length = 2,
    /// No positions were left.
    Context = 3,
    /// The caller stopped it.
    Stopped = 4,
}

/// What an output follows; bits 11 and 12 of the status of an inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum Follows {
    /// The artifact's grammar, where it carries one.
    #[default]
    Artifact = 0,
    /// Nothing, whatever the artifact carries.
    Nothing = 1,
    /// A grammar that the artifact does not carry.
    Another = 2,
}

/// How a seal vouches; the status of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealKind {
    /// An Ed25519 signature of the message.
    Ed25519 = 1,
    /// An ECDSA signature with P-256 and SHA-256, r and s big-endian.
    EcdsaP256 = 2,
    /// HMAC-SHA-256 of the message, then 32 zeros.
    Hmac = 3,
}

impl SealKind {
    /// The kind with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        [SealKind::Ed25519, SealKind::EcdsaP256, SealKind::Hmac].into_iter().find(|&kind| kind as u8 == number)
    }
}

/// What the record after this one holds in `previous`: the head of a log that ends with it.
pub fn chained(record: &[u8; AuditRecord::BYTES]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(&[0]);
    hash.update(record);
    hash.finish()
}

const END_SHIFT: u32 = 8;
const FOLLOWS_SHIFT: u32 = 11;
const ZEROS: Digest = [0; 32];

/// The status of an inference.
pub fn inference_status(status: u8, end: End, follows: Follows, keyed: bool) -> u16 {
    let keyed = if keyed { KEYED } else { 0 };
    u16::from(status) | (end as u16) << END_SHIFT | (follows as u16) << FOLLOWS_SHIFT | keyed
}

impl AuditRecord {
    /// Whether its digests are keyed.
    pub fn keyed(&self) -> bool {
        self.status & KEYED != 0
    }

    /// Why the output of an inference has no more tokens; `None` for a number without a meaning.
    pub fn end(&self) -> Option<End> {
        let number = self.status >> END_SHIFT & 7;
        [End::Unstated, End::Model, End::Length, End::Context, End::Stopped]
            .into_iter()
            .find(|&end| end as u16 == number)
    }

    /// What the output of an inference follows; `None` for a number without a meaning.
    pub fn follows(&self) -> Option<Follows> {
        let number = self.status >> FOLLOWS_SHIFT & 3;
        [Follows::Artifact, Follows::Nothing, Follows::Another].into_iter().find(|&follows| follows as u16 == number)
    }

    /// What a seal signs.
    pub fn seal_message(&self) -> [u8; SEAL_MESSAGE_BYTES] {
        let mut message = [0; SEAL_MESSAGE_BYTES];
        let fields: [&[u8]; 4] = [&SEAL_PREFIX, &self.sequence.to_le_bytes(), &self.time.to_le_bytes(), &self.previous];
        let mut at = 0;
        for field in fields {
            message[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        message
    }

    /// The field of a record that no writer of this version writes, if there is one.
    pub fn fault(&self) -> Option<&'static str> {
        if self.magic != MAGIC {
            return Some("magic");
        }
        if self.version != VERSION {
            return Some("version");
        }
        let Some(kind) = Kind::from_number(self.kind) else { return Some("kind") };
        let high = self.status & !0xff;
        let status_is_sound = match kind {
            Kind::Inference => self.end().is_some() && self.follows().is_some() && high & (3 << 13) == 0,
            Kind::Seal => high == 0 && SealKind::from_number(self.status as u8).is_some(),
            Kind::Note => high & !KEYED == 0,
            Kind::Opened | Kind::Update => high == 0,
        };
        if !status_is_sound {
            return Some("status");
        }
        let by_key = self.status == SealKind::Hmac as u16;
        let unused = [
            ("tokens in", self.tokens_in != 0 && kind != Kind::Inference && !(kind == Kind::Seal && by_key)),
            ("tokens out", self.tokens_out != 0 && kind != Kind::Inference),
            ("input", self.input != ZEROS && kind == Kind::Opened),
            ("output", self.output != ZEROS && (matches!(kind, Kind::Opened | Kind::Update | Kind::Note))),
            ("output", self.output != ZEROS && kind == Kind::Seal && by_key),
        ];
        unused.into_iter().find(|(_, used)| *used).map(|(field, _)| field)
    }
}
