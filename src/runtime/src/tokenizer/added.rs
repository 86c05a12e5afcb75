//! Added tokens: spellings that are matched before any other step. At every position the longest match wins; some
//! tokens absorb the adjacent white space.

use super::characters::{character, character_before, is_space, run};
use crate::format::text::{STRIP_LEFT, STRIP_RIGHT};
use crate::format::text_tables::Spellings;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes `start..end`, not empty.
    Text {
        /// First.
        start: usize,
        /// Past the last.
        end: usize,
    },
    /// An added token.
    Token(u32),
}

/// The parts of a text, in order.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Where the search for the next token begins.
    at: usize,
    /// End of the last part.
    done: usize,
    /// A token that follows the last part.
    waiting: Option<(u32, usize)>,
}

impl Parts {
    /// The next part of `text`, which must be the same at every call; text before the last part may have changed.
    pub(super) fn next(&mut self, tokens: &Spellings<'_>, text: &[u8]) -> Option<Part> {
        if let Some((id, end)) = self.waiting.take() {
            self.done = end;
            return Some(Part::Token(id));
        }
        while tokens.count > 0
            && let Some((_, step)) = character(text, self.at)
        {
            let Some((entry, length)) = tokens.longest(&[], &text[self.at..]) else {
                self.at += step;
                continue;
            };
            let (mut start, mut end) = (self.at, self.at + length);
            self.at = end;
            if tokens.flags(entry) & STRIP_LEFT != 0 {
                while let Some((_, before)) = character_before(text, start).filter(|&(before, _)| is_space(before)) {
                    start = before;
                }
                // White space may already belong to an earlier token.
                start = start.max(self.done);
            }
            if tokens.flags(entry) & STRIP_RIGHT != 0 {
                end = run(text, end, is_space);
            }
            let (id, done) = (tokens.id(entry), self.done);
            if done < start {
                self.waiting = Some((id, end));
                return Some(Part::Text { start: done, end: start });
            }
            self.done = end;
            return Some(Part::Token(id));
        }
        let start = core::mem::replace(&mut self.done, text.len());
        (start < text.len()).then_some(Part::Text { start, end: text.len() })
    }
}
