//! The first 4 KiB of an artifact, the header page: target, length, section table, digests, and the signature area. Fields
//! that only a later version defines are zero, and readers of this version reject any other value.

use super::record::record;
use crate::sha256::Digest;

/// First bytes of every artifact; the line ends reveal a transfer in text mode.
pub const MAGIC: [u8; 8] = *b"SLMC\r\n\x1a\n";
/// Readers reject any other major version.
pub const MAJOR: u16 = 1;
/// Readers accept any minor version: a minor version adds optional sections, and values that earlier readers reject.
/// The table [`crate::layout::STORAGES`] has the minor version of each storage.
pub const MINOR: u16 = 1;
/// Minor version of files with a split matrix, which readers of earlier versions reject.
pub const MINOR_SPLIT: u16 = 2;
/// The same where there is a chat frame, which readers of an earlier version skip.
pub const MINOR_CHAT_FRAME: u16 = 5;
/// The same where hidden states are pooled, which readers of an earlier version reject, or where there are sampling
/// defaults, which they skip.
pub const MINOR_POOLING: u16 = 6;
/// The same where there are sections for drafts, grammars or a prefix, which readers of an earlier version skip, or where
/// a layer has a cache format of its own, which they reject.
pub const MINOR_DRAFTS: u16 = 7;
/// The same where there is a chunk list or a signature, which readers of an earlier version reject.
pub const MINOR_TRUST: u16 = 8;
/// Minor version of files of families that came later: with a ReLU, with another function of the pooler than tanh, with
/// parts of a layer side by side, norms on what is added alone, or norms over all queries and keys of a position.
pub const MINOR_FAMILIES: u16 = 9;
/// The same where it is planned which weights are streamed, which readers of an earlier version skip.
pub const MINOR_STREAMING: u16 = 10;
/// Minor version of files of classifiers with exit heads, which readers of an earlier version reject, or with the temperature
/// of their confidence, which they skip.
pub const MINOR_EXITS: u16 = 11;
/// Minor version of files with later heads and layers, which readers of an earlier version reject: decoders that are
/// classifiers, an output for every token, heads with a norm, classifiers over a mean, capped scores or logits, tables narrower
/// than the layers, windows of encoders, one norm for both parts of a layer or none before the first, norms without a bias.
pub const MINOR_HEADS: u16 = 12;
/// That of files whose feed-forward networks are mixtures of experts.
pub const MINOR_MIXTURES: u16 = 13;
/// Bytes before the first section.
pub const HEADER_BYTES: usize = 4096;
/// Largest number of sections.
pub const MAX_SECTIONS: usize = 64;
/// Offset of the section table in the header.
pub const SECTION_TABLE_OFFSET: usize = Header::BYTES;
/// SHA-256, the only digest algorithm.
pub const DIGEST_SHA256: u8 = 1;
/// Set in a section's kind when readers that do not know it may skip it.
pub const OPTIONAL: u32 = 0x8000_0000;

record! {
    /// The fixed fields at the start of the file.
    Header: 256 bytes {
        /// [`MAGIC`]
        magic: [u8; 8],
        /// [`MAJOR`]
        major: u16,
        /// [`MINOR`], [`MINOR_SPLIT`], [`MINOR_CHAT_FRAME`], [`MINOR_POOLING`], [`MINOR_DRAFTS`], [`MINOR_TRUST`],
        /// [`MINOR_FAMILIES`], [`MINOR_STREAMING`], [`MINOR_EXITS`], [`MINOR_HEADS`], [`MINOR_MIXTURES`] or that
        /// of a storage
        minor: u16,
        /// [`HEADER_BYTES`]
        header_bytes: u32,
        /// Length of the whole file.
        file_bytes: u64,
        /// Length of the device part; a file that ends here is complete for a device.
        device_bytes: u64,
        /// Entries in the section table.
        sections: u32,
        /// The weights section starts on a multiple of this: a power of two, at least 64.
        page_bytes: u32,
        /// Layout of quantized tensors.
        layout: u8,
        /// [`DIGEST_SHA256`]
        digest_algorithm: u8,
        /// A [`super::spec::CacheFormat`].
        cache_format: u8,
        /// 0: weights are read in place.
        weight_residency: u8,
        /// 1: signed, and the [`SIGNATURE_AREA`] says by whom; needs a chunk list. 0: not signed.
        signature: u8,
        /// Cipher of the weights: 1 ChaCha20-Poly1305, 2 AES-256-GCM; needs a chunk list and a seal. 0: not encrypted.
        encryption: u8,
        /// log2 of a leaf's bytes, one of [`super::chunks::CHUNK_SHIFTS`]; 0: no chunk list.
        chunk_shift: u8,
        /// Zero.
        reserved: u8,
        /// A device that has confirmed a higher one refuses the file; 0 where it is not signed.
        security_counter: u64,
        /// Zero.
        reserved_trust: [u8; 8],
        /// Name of the target, UTF-8, padded with zeros.
        target: [u8; 32],
        /// Over the header (this field and the signature area taken as zero) and every byte of the device part after it.
        device_digest: Digest,
        /// Over the header (both digests and the signature area taken as zero) and every byte of the host part.
        host_digest: Digest,
        /// Root of the tree over the tensors' digests, in table order.
        weights_root: Digest,
        /// Root over the chunk list ([`super::chunks`]); zero without one.
        chunks_root: Digest,
        /// UUID of the product line, whose models may replace each other; zero for none, and where it is not signed.
        model_id: [u8; 16],
        /// Zero.
        reserved_end: [u8; 16],
    }
}

/// The signatures in the header page: [`super::signature`].
pub const SIGNATURE_AREA: core::ops::Range<usize> = 3584..HEADER_BYTES;
/// Position of the device part's digest in the header.
pub const DEVICE_DIGEST: core::ops::Range<usize> = 96..128;
/// Position of the host part's digest, which the device digest covers, so that every byte of a device part alone is
/// covered.
pub const HOST_DIGEST: core::ops::Range<usize> = 128..160;

record! {
    /// One entry of the section table.
    SectionRecord: 32 bytes {
        /// A [`SectionKind`], or any value with [`OPTIONAL`] set.
        kind: u32,
        /// 1 for the host part, else 0.
        host: u32,
        /// From the start of the file; a multiple of 64.
        offset: u64,
        /// Without the padding that follows.
        bytes: u64,
        /// Zero.
        reserved: u64,
    }
}

/// The content of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// [`super::spec::ModelRecord`] and one [`super::spec::LayerRecord`] per layer.
    Spec = 1,
    /// [`super::tensor::TensorRecord`]s.
    Tensors = 2,
    /// Rotary tables and activation curves.
    Functions = 3,
    /// The tensors' bytes.
    Weights = 4,
    /// The bytes of each token.
    Vocabulary = 5,
    /// Prompts and the digest of their logits.
    Golden = 6,
    /// The checkpoint's tokenizer.json (host).
    Tokenizer = 0x8000_0001,
    /// Names of the tensors in table order, one per line (host).
    Names = 0x8000_0002,
    /// Provenance of the artifact, JSON (host).
    Provenance = 0x8000_0003,
    /// Names of a classifier's labels, JSON (host).
    Labels = 0x8000_0004,
    /// The tokenizer's tables for a device: [`super::text::TextRecord`] and its tables (device).
    Text = 0x8000_0005,
    /// The digests of the device part's leaves: [`super::chunks`] (device).
    Chunks = 0x8000_0006,
    /// The stanzas and tags of weights in cipher: `seal` (device).
    Seal = 0x8000_0007,
    /// Tokens that open and end a text, if there are several of either: [`super::special_tokens`] (device).
    SpecialTokens = 0x8000_0010,
    /// The chat template with the special tokens it names, JSON (host).
    ChatTemplate = 0x8000_0011,
    /// The fixed texts around a conversation's messages: [`super::chat_frame`] (device).
    ChatFrame = 0x8000_0012,
    /// How tokens are chosen unless a program says otherwise: [`super::sampling`] (device).
    Sampling = 0x8000_0013,
    /// The grammar that outputs follow: [`super::grammar`] (device).
    Grammar = 0x8000_0014,
    /// What most often follows one to three tokens: [`crate::speculate::Continuations`] (device).
    Continuations = 0x8000_0015,
    /// The device part of a smaller model of the same tokens: [`super::drafts`] (device).
    Draft = 0x8000_0016,
    /// Tokens that sequences begin with, already read: [`super::prefix`] (device).
    Prefix = 0x8000_0017,
    /// Which tensors stay in RAM where weights are streamed: `residency` (device).
    Residency = 0x8000_0018,
    /// Where a text may leave a classifier, and the temperature of its heads: [`super::exits`] (device).
    Exits = 0x8000_0019,
}
