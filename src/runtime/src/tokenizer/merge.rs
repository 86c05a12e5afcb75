//! Byte-pair encoding of one word: the adjacent pair of lowest rank merges first, the leftmost of equal ones, until no
//! pair merges. A tournament tree over the ranks (every inner node names the better of its two children) finds that
//! pair, so that n symbols take n log n steps and a fixed amount of memory.

use super::EncodeError;
use super::characters::character;
use crate::format::spec::NONE;
use crate::format::text_tables::{TextTables, number};
use crate::memory::Memory;

/// Memory for the symbols of one word, one number per symbol in each.
pub(super) struct Symbols<'m> {
    /// Tokens.
    ids: &'m mut [u32],
    /// Symbol to the right, [`NONE`] at the end and for a merged symbol.
    next: &'m mut [u32],
    /// Symbol to the left.
    previous: &'m mut [u32],
    /// Rank of the pair that a symbol makes with the next.
    ranks: &'m mut [u32],
    /// The tree: node n has the children 2 n and 2 n + 1, node `count + s` is symbol s.
    best: &'m mut [u32],
}

impl<'m> Symbols<'m> {
    /// Numbers per symbol.
    pub(super) const NUMBERS: u64 = 5;

    pub(super) fn new(memory: &mut Memory<'m>, count: usize) -> Option<Self> {
        Some(Symbols {
            ids: memory.u32s(count)?,
            next: memory.u32s(count)?,
            previous: memory.u32s(count)?,
            ranks: memory.u32s(count)?,
            best: memory.u32s(count)?,
        })
    }

    /// The better of the pairs that two nodes name: lower rank, then further left.
    fn better(&self, count: usize, node: usize) -> u32 {
        let winner = |node: usize| match node.checked_sub(count) {
            Some(symbol) => symbol as u32,
            None => self.best[node],
        };
        let (left, right) = (winner(2 * node), winner(2 * node + 1));
        let key = |symbol: u32| (self.ranks[symbol as usize], symbol);
        if key(left) <= key(right) { left } else { right }
    }

    /// Sets the rank of the pair that begins at a symbol.
    fn rank(&mut self, count: usize, symbol: u32, rank: u32) {
        self.ranks[symbol as usize] = rank;
        let mut node = (count + symbol as usize) / 2;
        while node > 0 {
            self.best[node] = self.better(count, node);
            node /= 2;
        }
    }
}

impl TextTables<'_> {
    /// Rank and result of a merge; rank [`NONE`] where the two do not merge.
    fn merge(&self, left: u32, right: u32) -> (u32, u32) {
        let width = usize::from(self.record.id_bytes);
        let (mut low, mut high) = (0, self.record.merges as usize);
        while low < high {
            let middle = (low + high) / 2;
            let pair = (number(self.pairs, 2 * middle, width), number(self.pairs, 2 * middle + 1, width));
            match pair.cmp(&(left, right)) {
                core::cmp::Ordering::Equal => {
                    let rank = number(self.ranks, middle, width);
                    let merged = match self.record.merged_from {
                        NONE => number(self.merged, middle, width),
                        from => from.saturating_add(rank),
                    };
                    return (rank, merged);
                }
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        (NONE, NONE)
    }

    /// Tokens of a word.
    pub(super) fn merge_word(
        &self,
        word: &[u8],
        symbols: &mut Symbols<'_>,
        each: &mut dyn FnMut(u32),
    ) -> Result<(), EncodeError> {
        if self.record.whole_words == 1
            && let Some(id) = self.spellings.find(word)
        {
            each(id);
            return Ok(());
        }
        let count = self.symbols(word, symbols)?;
        if count == 0 {
            return Ok(());
        }
        for symbol in 0..count {
            symbols.previous[symbol] = (symbol as u32).wrapping_sub(1);
            symbols.next[symbol] = if symbol + 1 < count { symbol as u32 + 1 } else { NONE };
            symbols.ranks[symbol] = match symbols.ids[..count].get(symbol + 1) {
                Some(&right) => self.merge(symbols.ids[symbol], right).0,
                None => NONE,
            };
        }
        for node in (1..count).rev() {
            symbols.best[node] = symbols.better(count, node);
        }
        loop {
            // A single symbol has neither tree nor pair.
            let left = if count > 1 { symbols.best[1] } else { 0 };
            if symbols.ranks[left as usize] == NONE {
                break;
            }
            let right = symbols.next[left as usize];
            let after = symbols.next[right as usize];
            symbols.ids[left as usize] = self.merge(symbols.ids[left as usize], symbols.ids[right as usize]).1;
            symbols.next[left as usize] = after;
            symbols.rank(count, right, NONE);
            let mut rank = NONE;
            if after != NONE {
                symbols.previous[after as usize] = left;
                rank = self.merge(symbols.ids[left as usize], symbols.ids[after as usize]).0;
            }
            symbols.rank(count, left, rank);
            let before = symbols.previous[left as usize];
            if before != NONE {
                let rank = self.merge(symbols.ids[before as usize], symbols.ids[left as usize]).0;
                symbols.rank(count, before, rank);
            }
        }
        let mut symbol = 0;
        while symbol != NONE {
            each(symbols.ids[symbol as usize]);
            symbol = symbols.next[symbol as usize];
        }
        Ok(())
    }

    /// The initial symbols of a word: its bytes or characters, and replacements for those without a token. Returns
    /// their number.
    fn symbols(&self, word: &[u8], symbols: &mut Symbols<'_>) -> Result<usize, EncodeError> {
        let width = usize::from(self.record.id_bytes);
        let byte_id = |byte: u8| number(self.byte_ids, usize::from(byte), width);
        let mut count = 0;
        let mut push = |id: u32| {
            *symbols.ids.get_mut(count).ok_or(EncodeError::Memory)? = id;
            count += 1;
            Ok(())
        };
        // An unknown token is held back until the next character is known not to be fused with it. Byte-fallback tokens
        // are written before a held-back one, as the tokenizers library does.
        let mut waiting = false;
        let mut at = 0;
        while let Some((_, length)) = character(word, at) {
            let length = if self.record.symbols == 2 { 1 } else { length };
            let bytes = &word[at..at + length];
            at += length;
            let id = match self.record.symbols {
                2 => Some(byte_id(bytes[0])).filter(|&id| id != NONE),
                _ => self.spellings.find(bytes),
            };
            if let Some(id) = id {
                if waiting {
                    push(self.record.unknown)?;
                    waiting = false;
                }
                push(id)?;
                continue;
            }
            if self.record.byte_fallback == 1 && bytes.iter().all(|&byte| byte_id(byte) != NONE) {
                bytes.iter().try_for_each(|&byte| push(byte_id(byte)))?;
                continue;
            }
            if self.record.unknown != NONE {
                if waiting && self.record.fuse_unknown == 0 {
                    push(self.record.unknown)?;
                }
                waiting = true;
            }
        }
        if waiting {
            push(self.record.unknown)?;
        }
        Ok(count)
    }
}
