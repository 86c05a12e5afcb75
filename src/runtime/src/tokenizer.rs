//! Text to token ids on the device, with the artifact's tables: the same ids as the build machine's tokenizer. No
//! allocation: memory comes from the caller, and [`Tokenizer::required_bytes`] of it always suffice.
//!
//! ```text
//! text → parts around added tokens → each normalised → parts around added tokens → words → tokens
//! ```

mod added;
mod characters;
mod merge;
mod normalize;
mod spelling;
mod split;
mod word_piece;

use crate::format::artifact::{ArtifactView, u32_at};
use crate::format::text::TokenModel;
use crate::format::text_tables::TextTables;
use crate::layout::ALIGNMENT;
use crate::memory::Memory;
use added::{Part, Parts};
use merge::Symbols;

/// Why a text was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The memory is too small for this text.
    Memory,
    /// The memory does not start on 64 bytes.
    MemoryAlignment,
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            EncodeError::Memory => {
                "the memory is too small for this text; as many bytes as are required always suffice"
            }
            EncodeError::MemoryAlignment => "the memory does not start on 64 bytes",
        })
    }
}

impl core::error::Error for EncodeError {}

/// The tokenizer of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    tables: &'a TextTables<'a>,
}

/// Sizes of the memory's regions.
struct Regions {
    /// Bytes of normalised text; 0 where pieces are read in place.
    text: u64,
    /// Symbols of a word; 0 where words are looked up.
    symbols: u64,
}

impl<'a> Tokenizer<'a> {
    /// The tokenizer of an artifact; `None` where the artifact has no device tables.
    pub fn of(artifact: &'a ArtifactView<'_>) -> Option<Self> {
        artifact.text().map(Tokenizer::new)
    }

    /// The tokenizer with these tables.
    pub fn new(tables: &'a TextTables<'a>) -> Self {
        Tokenizer { tables }
    }

    fn copies(&self) -> bool {
        let record = &self.tables.record;
        record.maps > 0 || record.prepend_bytes > 0 || record.prefix > 0 || record.compose == 1
    }

    fn regions(&self, text_bytes: u64) -> Option<Regions> {
        let record = &self.tables.record;
        let extra = u64::from(record.prepend_bytes) + u64::from(record.prefix_bytes);
        let grown = text_bytes.checked_mul(u64::from(record.text_growth))?.checked_add(extra)?;
        let symbols = text_bytes.checked_mul(u64::from(record.symbol_growth))?;
        let merges = record.model == TokenModel::Merges as u8;
        Some(Regions {
            text: if self.copies() { grown } else { 0 },
            symbols: if merges { symbols.checked_add(u64::from(record.symbol_extra))? } else { 0 },
        })
    }

    /// Bytes of memory that suffice for every text of `text_bytes` bytes; `None` where the number overflows. Most texts
    /// need less: the use depends on the longest word and the longest text between added tokens.
    pub fn required_bytes(&self, text_bytes: usize) -> Option<usize> {
        let Regions { text, symbols } = self.regions(text_bytes as u64)?;
        let padded = |bytes: u64| bytes.checked_next_multiple_of(ALIGNMENT as u64);
        let symbols = padded(symbols.checked_mul(4)?)?.checked_mul(Symbols::NUMBERS)?;
        usize::try_from(padded(text)?.checked_add(symbols)?).ok()
    }

    /// Divides the caller's memory into the regions. With less than required, there are fewer symbols.
    fn divide<'m>(&self, text_bytes: usize, memory: &'m mut [u8]) -> Option<(&'m mut [u8], Symbols<'m>)> {
        let Regions { text, symbols } = self.regions(text_bytes as u64)?;
        let mut memory = Memory::new(memory).ok()?;
        let text = memory.u8s(usize::try_from(text).ok()?)?;
        let there = memory.remaining() / Symbols::NUMBERS as usize / ALIGNMENT * ALIGNMENT / 4;
        let symbols = Symbols::new(&mut memory, there.min(usize::try_from(symbols).ok()?))?;
        Some((text, symbols))
    }

    /// Passes the tokens of a text to `each`, with `specials` also the special tokens around it. `memory` must start on
    /// 64 bytes; [`Tokenizer::required_bytes`] of it always suffice.
    pub fn encode(
        &self,
        text: &str,
        specials: bool,
        memory: &mut [u8],
        each: &mut dyn FnMut(u32),
    ) -> Result<(), EncodeError> {
        if !(memory.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            return Err(EncodeError::MemoryAlignment);
        }
        let (normalized, mut symbols) = self.divide(text.len(), memory).ok_or(EncodeError::Memory)?;
        let around = |ids: &[u8], each: &mut dyn FnMut(u32)| {
            let ids = ids.chunks_exact(4).filter(|_| specials);
            ids.filter_map(|bytes| u32_at(bytes, 0)).for_each(each);
        };
        around(self.tables.before, each);
        let mut parts = Parts::default();
        while let Some(part) = parts.next(&self.tables.raw, text.as_bytes()) {
            match part {
                Part::Token(id) => each(id),
                Part::Text { start, end } => {
                    let piece = text.get(start..end).unwrap_or("");
                    self.encode_piece(piece, start == 0, normalized, &mut symbols, each)?;
                }
            }
        }
        around(self.tables.after, each);
        Ok(())
    }

    /// Tokens of the text between two added tokens.
    fn encode_piece(
        &self,
        piece: &str,
        first: bool,
        memory: &mut [u8],
        symbols: &mut Symbols<'_>,
        each: &mut dyn FnMut(u32),
    ) -> Result<(), EncodeError> {
        let tables = self.tables;
        let mut parts = Parts::default();
        if !self.copies() {
            let text = piece.as_bytes();
            while let Some(part) = parts.next(&tables.normalized, text) {
                match part {
                    Part::Token(id) => each(id),
                    Part::Text { start, end } => self.encode_words(&text[start..end], symbols, each)?,
                }
            }
            return Ok(());
        }
        let prefix = tables.prefix;
        let front = prefix.len();
        let text_end = tables.normalize(piece, memory, front)?;
        while let Some(part) = parts.next(&tables.normalized, &memory[front..text_end]) {
            let Part::Text { start, end } = part else {
                if let Part::Token(id) = part {
                    each(id);
                }
                continue;
            };
            let wanted = front > 0 && (tables.record.prefix == 1 || first && start == 0);
            let text = if wanted && !memory[front + start..front + end].starts_with(prefix) {
                // Overwrites the end of the previous part, which has been read.
                memory[start..front + start].copy_from_slice(prefix);
                &memory[start..front + end]
            } else {
                &memory[front + start..front + end]
            };
            self.encode_words(text, symbols, each)?;
        }
        Ok(())
    }

    fn encode_words(
        &self,
        piece: &[u8],
        symbols: &mut Symbols<'_>,
        each: &mut dyn FnMut(u32),
    ) -> Result<(), EncodeError> {
        self.tables.words(0, piece, &mut |word| {
            if self.tables.record.model == TokenModel::WordPieces as u8 {
                self.tables.word_pieces(word, each);
                return Ok(());
            }
            self.tables.merge_word(word, symbols, each)
        })
    }
}
