//! Drafts from a table of what most often follows the last one to three tokens in a text, which the compiler counted. A
//! section of the device part, little-endian:
//!
//! ```text
//! u32 bytes of a token (2 or 4) | u32 records of one, two and three tokens
//! records of n tokens, n = 1, 2, 3: the n tokens, the latest last, then the token that follows; in ascending order
//! ```

use super::{Drafter, Draws};
use crate::format::artifact::u32_at;
use crate::session::SessionError;
use core::cmp::Ordering;

/// Most tokens that a record goes by.
pub const MOST_TOKENS: usize = 3;
/// Bytes before the records.
const HEADER_BYTES: usize = 4 * (1 + MOST_TOKENS);

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContinuationsError(pub &'static str);

/// The table, checked.
#[derive(Clone, Copy, Debug)]
pub struct Continuations<'a> {
    token_bytes: usize,
    /// Records of one, two and three tokens.
    records: [&'a [u8]; MOST_TOKENS],
}

impl<'a> Continuations<'a> {
    /// Reads a section for a vocabulary of this size.
    ///
    /// # Errors
    /// [`ContinuationsError`] where a length, the order or a token is wrong.
    pub fn read(bytes: &'a [u8], vocabulary: u32) -> Result<Self, ContinuationsError> {
        let fault = ContinuationsError;
        let token_bytes = match u32_at(bytes, 0) {
            Some(2) => 2,
            Some(4) => 4,
            Some(_) => return Err(fault("tokens are not of 2 or 4 bytes")),
            None => return Err(fault("too short")),
        };
        let mut rest = bytes.get(HEADER_BYTES..).ok_or(fault("too short"))?;
        let mut records = [&bytes[..0]; MOST_TOKENS];
        for (index, records) in records.iter_mut().enumerate() {
            let count = u32_at(bytes, 4 * (1 + index)).ok_or(fault("too short"))? as usize;
            let length = count.checked_mul((index + 2) * token_bytes).filter(|&length| length <= rest.len());
            (*records, rest) = rest.split_at(length.ok_or(fault("too short"))?);
        }
        if !rest.is_empty() {
            return Err(fault("longer than its records"));
        }
        let table = Continuations { token_bytes, records };
        for index in 0..MOST_TOKENS {
            let width = index + 2;
            for record in 0..table.count(index) {
                if (0..width).any(|at| table.token(index, record, at) >= vocabulary) {
                    return Err(fault("a token is outside the vocabulary"));
                }
                let ascends = |last: usize| {
                    let key = |record: usize| (0..=index).map(move |at| table.token(index, record, at));
                    key(last).cmp(key(record)) == Ordering::Less
                };
                if record > 0 && !ascends(record - 1) {
                    return Err(fault("records do not ascend"));
                }
            }
        }
        Ok(table)
    }

    /// Records of `index + 1` tokens.
    fn count(&self, index: usize) -> usize {
        self.records[index].len() / ((index + 2) * self.token_bytes)
    }

    /// Token `at` of a record.
    fn token(&self, index: usize, record: usize, at: usize) -> u32 {
        let start = (record * (index + 2) + at) * self.token_bytes;
        let bytes = &self.records[index][start..][..self.token_bytes];
        bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte))
    }

    /// What follows the longest run of last tokens, the latest last, that the table has.
    pub fn after(&self, last: &[u32]) -> Option<u32> {
        (0..MOST_TOKENS.min(last.len())).rev().find_map(|index| {
            let key = &last[last.len() - 1 - index..];
            let (mut low, mut high) = (0, self.count(index));
            while low < high {
                let middle = low + (high - low) / 2;
                let found = (0..=index).map(|at| self.token(index, middle, at));
                match found.cmp(key.iter().copied()) {
                    Ordering::Less => low = middle + 1,
                    Ordering::Greater => high = middle,
                    Ordering::Equal => return Some(self.token(index, middle, index + 1)),
                }
            }
            None
        })
    }
}

impl Drafter for Continuations<'_> {
    fn draft(&mut self, sequence: &[u32], _: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let mut last = [0; MOST_TOKENS];
        let mut known = MOST_TOKENS.min(sequence.len());
        last[..known].copy_from_slice(&sequence[sequence.len() - known..]);
        for (count, draft) in drafts.iter_mut().enumerate() {
            let Some(next) = self.after(&last[..known]) else { return Ok(count) };
            *draft = next;
            if known == MOST_TOKENS {
                last.rotate_left(1);
                known -= 1;
            }
            last[known] = next;
            known += 1;
        }
        Ok(drafts.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sampling;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn section(token_bytes: usize, records: [&[&[u32]]; MOST_TOKENS]) -> Vec<u8> {
        let mut bytes: Vec<u8> = (token_bytes as u32).to_le_bytes().to_vec();
        records.iter().for_each(|records| bytes.extend((records.len() as u32).to_le_bytes()));
        for token in records.iter().flat_map(|records| records.iter().flat_map(|record| record.iter())) {
            bytes.extend(&token.to_le_bytes()[..token_bytes]);
        }
        bytes
    }

    #[test]
    fn the_longest_run_that_the_table_has_decides() {
        for token_bytes in [2, 4] {
            let bytes = section(token_bytes, [&[&[1, 2], &[300, 4]], &[&[1, 300, 5]], &[&[9, 1, 300, 6]]]);
            let table = Continuations::read(&bytes, 301).expect("sound");
            assert_eq!(table.after(&[1]), Some(2));
            assert_eq!(table.after(&[7, 300]), Some(4));
            assert_eq!(table.after(&[1, 300]), Some(5));
            assert_eq!(table.after(&[9, 1, 300]), Some(6));
            assert_eq!(table.after(&[8, 1, 300]), Some(5));
            assert_eq!(table.after(&[2]), None);
            assert_eq!(table.after(&[]), None);
            let draws = Draws { sampling: Sampling::GREEDY, seed: 0, index: 0, seen: &[] };
            let mut drafts = [0; 4];
            let count = { table }.draft(&[9, 1], &draws, &mut drafts).expect("no session");
            assert_eq!(&drafts[..count], [2], "nothing follows 2");
            assert_eq!(
                Continuations::read(&bytes, 300).err(),
                Some(ContinuationsError("a token is outside the vocabulary"))
            );
            for length in 0..bytes.len() {
                assert!(Continuations::read(&bytes[..length], 301).is_err(), "cut to {length} bytes");
            }
        }
        let unordered = section(2, [&[&[3, 1], &[2, 1]], &[], &[]]);
        assert_eq!(Continuations::read(&unordered, 9).err(), Some(ContinuationsError("records do not ascend")));
    }

    proptest! {
        #[test]
        fn damaged_tables_are_refused_or_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), last in any::<u32>()) {
            if let Ok(table) = Continuations::read(&bytes, 1000) {
                let _ = table.after(&[last, 3, last]);
            }
        }
    }
}
