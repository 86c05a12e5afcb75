//! What was asked and what was answered, as the two digests of an inference:
//!
//! ```text
//! input  = SHA-256(sampling record, 20 bytes || seed u64 || token ids as u32)
//! output = SHA-256(token ids as u32, or the number of a label)
//! ```
//!
//! With a key both are HMAC-SHA-256 by it: a short prompt can be guessed from its digest, and from that of its answer, which
//! anyone with the artifact can compute.

use crate::format::sampling::SamplingRecord;
use crate::hmac::Hmac;
use crate::sample::Sampling;
use crate::sha256::{Digest, Sha256};

/// Bytes of tokens that are hashed at once.
const TOKENS: usize = 16;

/// A digest that is keyed or not.
#[derive(Clone)]
enum Hash {
    Plain(Sha256),
    Keyed(Hmac),
}

impl Hash {
    fn new(key: Option<&Digest>) -> Self {
        key.map_or_else(|| Hash::Plain(Sha256::new()), |key| Hash::Keyed(Hmac::new(key)))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Plain(hash) => hash.update(bytes),
            Hash::Keyed(hash) => hash.update(bytes),
        }
    }

    fn tokens(&mut self, tokens: &[u32]) {
        for tokens in tokens.chunks(TOKENS) {
            let mut bytes = [0; 4 * TOKENS];
            for (bytes, token) in bytes.chunks_exact_mut(4).zip(tokens) {
                bytes.copy_from_slice(&token.to_le_bytes());
            }
            self.update(&bytes[..4 * tokens.len()]);
        }
    }

    fn finish(self) -> Digest {
        match self {
            Hash::Plain(hash) => hash.finish(),
            Hash::Keyed(hash) => hash.finish(),
        }
    }
}

/// A question and its answer, token by token as they come.
#[derive(Clone)]
pub struct Exchange {
    input: Hash,
    output: Hash,
    tokens_in: u32,
    tokens_out: u32,
    keyed: bool,
}

/// The digests and counts of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeDigests {
    /// What was asked.
    pub input: Digest,
    /// What was answered.
    pub output: Digest,
    /// Tokens asked.
    pub tokens_in: u32,
    /// Tokens answered.
    pub tokens_out: u32,
    /// Whether the digests are keyed.
    pub keyed: bool,
}

impl Exchange {
    /// Begins with how tokens are chosen; `key` is that of [`super::LogKey::digests`].
    pub fn new(key: Option<&Digest>, sampling: &Sampling, seed: u64) -> Self {
        let mut input = Hash::new(key);
        input.update(&SamplingRecord::from(sampling).to_bytes());
        input.update(&seed.to_le_bytes());
        Exchange { input, output: Hash::new(key), tokens_in: 0, tokens_out: 0, keyed: key.is_some() }
    }

    /// Adds tokens of the question.
    pub fn input(&mut self, tokens: &[u32]) {
        self.input.tokens(tokens);
        self.tokens_in = self.tokens_in.saturating_add(tokens.len() as u32);
    }

    /// Adds tokens of the answer, or the number of its label.
    pub fn output(&mut self, tokens: &[u32]) {
        self.output.tokens(tokens);
        self.tokens_out = self.tokens_out.saturating_add(tokens.len() as u32);
    }

    /// Both digests.
    pub fn finish(self) -> ExchangeDigests {
        let Exchange { input, output, tokens_in, tokens_out, keyed } = self;
        ExchangeDigests { input: input.finish(), output: output.finish(), tokens_in, tokens_out, keyed }
    }
}

impl core::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Exchange of {} and {} tokens", self.tokens_in, self.tokens_out)
    }
}
