//! Splits pieces of normalised text into words, step by step. The regular expressions of language models are written
//! out as scanners:
//!
//! ```text
//! GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! Llama 3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//!
//! Qwen's is Llama 3's with `\p{N}` for `\p{N}{1,3}`. The first alternative that matches wins; together they match
//! everything.

use super::EncodeError;
use super::characters::{character, character_before, run};
use crate::format::text::{Behavior, CLASS_BYTES, ELEMENT_CHARACTER, Step, StepRecord, class};
use crate::format::text_tables::{TextTables, number};

/// The letters of English contractions, after the apostrophe.
const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "m", "ll", "d"];

impl TextTables<'_> {
    /// [`class`] bits of a character.
    fn class(&self, of: char) -> u8 {
        let entry = |index| number(self.classes, index, CLASS_BYTES);
        let (mut low, mut high) = (0, self.classes.len() / CLASS_BYTES);
        while low < high {
            let middle = (low + high) / 2;
            if entry(middle) & ELEMENT_CHARACTER <= of as u32 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let index = low.checked_sub(1).map_or(0, |index| entry(index) >> 21);
        self.record.palette.get(index as usize).copied().unwrap_or(0)
    }

    /// Splits a piece by step `step` and those after it, and passes on the words.
    pub(super) fn words(
        &self,
        step: usize,
        piece: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(record) = self.step(step) else { return each(piece) };
        let mut at = 0;
        while at < piece.len() {
            let (end, kept) = self.next(&record, piece, at);
            if kept {
                self.words(step + 1, &piece[at..end], each)?;
            }
            at = end;
        }
        Ok(())
    }

    /// End of the part that begins at `at`, and whether it is kept; it has at least one character.
    fn next(&self, step: &StepRecord, piece: &[u8], at: usize) -> (usize, bool) {
        let end = match Step::from_number(step.kind) {
            Some(Step::Gpt2) => self.gpt2(piece, at),
            Some(Step::Llama3) => self.llama3(piece, at, step.value),
            Some(Step::Classes) => {
                return self.delimited(step, piece, at, &|next| self.class(next) & step.classes != 0);
            }
            Some(Step::Character) => return self.delimited(step, piece, at, &|next| next as u32 == step.value),
            None => piece.len(),
        };
        (end.max(at + 1), true)
    }

    /// A part between delimiters, or a delimiter.
    fn delimited(
        &self,
        step: &StepRecord,
        piece: &[u8],
        at: usize,
        is_delimiter: &dyn Fn(char) -> bool,
    ) -> (usize, bool) {
        let behavior = Behavior::from_number(step.behavior).unwrap_or(Behavior::Isolated);
        let Some((first, length)) = character(piece, at) else { return (piece.len(), false) };
        let one = at + length;
        if is_delimiter(first) {
            return match behavior {
                Behavior::Removed => (one, false),
                Behavior::Contiguous => (run(piece, one, is_delimiter), true),
                Behavior::MergedWithNext => (run(piece, one, |next| !is_delimiter(next)), true),
                Behavior::Isolated | Behavior::MergedWithPrevious => (one, true),
            };
        }
        let end = run(piece, one, |next| !is_delimiter(next));
        match (behavior, character(piece, end)) {
            (Behavior::MergedWithPrevious, Some((_, length))) => (end + length, true),
            _ => (end, true),
        }
    }

    fn is(&self, classes: u8) -> impl Fn(char) -> bool + '_ {
        move |next| self.class(next) & classes != 0
    }

    fn is_other(&self) -> impl Fn(char) -> bool + '_ {
        move |next| self.class(next) & (class::LETTER | class::NUMBER | class::SPACE) == 0
    }

    fn gpt2(&self, piece: &[u8], at: usize) -> usize {
        if let Some(end) = contraction(piece, at, false) {
            return end;
        }
        let from = if piece[at] == b' ' { at + 1 } else { at };
        let runs = [run(piece, from, self.is(class::LETTER)), run(piece, from, self.is(class::NUMBER))];
        match runs.into_iter().find(|&end| end > from) {
            Some(end) => end,
            None => match run(piece, from, self.is_other()) {
                end if end > from => end,
                _ => self.spaces(piece, at),
            },
        }
    }

    fn llama3(&self, piece: &[u8], at: usize, digits: u32) -> usize {
        if let Some(end) = contraction(piece, at, true) {
            return end;
        }
        let Some((first, length)) = character(piece, at) else { return piece.len() };
        let kind = self.class(first);
        // One character before the letters, if it is neither a letter, a number nor a line end.
        let from = match kind & (class::LETTER | class::NUMBER) == 0 && !matches!(first, '\r' | '\n') {
            true => at + length,
            false => at,
        };
        let letters = run(piece, from, self.is(class::LETTER));
        if letters > from {
            return letters;
        }
        if kind & class::NUMBER != 0 {
            let mut left = digits;
            return run(piece, at, |next| {
                let more = left > 0 && self.class(next) & class::NUMBER != 0;
                left = left.saturating_sub(1);
                more
            });
        }
        let from = if first == ' ' { at + length } else { at };
        let others = run(piece, from, self.is_other());
        if others > from {
            return run(piece, others, |next| matches!(next, '\r' | '\n'));
        }
        let end = run(piece, at, self.is(class::SPACE));
        match piece[at..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(last) => at + last + 1,
            None => self.spaces(piece, at),
        }
    }

    /// `\s+(?!\S)|\s+`: all white space up to the end; before a word, all but the last.
    fn spaces(&self, piece: &[u8], at: usize) -> usize {
        let end = run(piece, at, self.is(class::SPACE));
        if end >= piece.len() {
            return piece.len();
        }
        match character_before(piece, end) {
            Some((_, start)) if start > at => start,
            _ => end,
        }
    }
}

/// End of an English contraction at `at`, if there is one; with `fold` in either case, and with the long s.
fn contraction(piece: &[u8], at: usize, fold: bool) -> Option<usize> {
    let from = at + 1;
    if piece.get(at) != Some(&b'\'') {
        return None;
    }
    CONTRACTIONS.iter().find_map(|letters| {
        let mut end = from;
        for expected in letters.chars() {
            let (next, length) = character(piece, end)?;
            let folded = match next {
                '\u{17F}' => 's',
                other => other.to_ascii_lowercase(),
            };
            if next != expected && !(fold && folded == expected) {
                return None;
            }
            end += length;
        }
        Some(end)
    })
}
