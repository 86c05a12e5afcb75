//! WordPiece: the longest token that begins a word, then the longest that continues it, to its end. A word that cannot
//! be split like this, or is too long, becomes one unknown token.

use super::characters::run;
use crate::format::text_tables::TextTables;

impl TextTables<'_> {
    /// Tokens of a word.
    pub(super) fn word_pieces(&self, word: &[u8], each: &mut dyn FnMut(u32)) {
        let mut characters = 0;
        run(word, 0, |_| {
            characters += 1;
            true
        });
        // One pass to see whether the word can be split, one to emit the tokens: no memory is needed.
        if characters > self.record.longest_word || !self.split_word(word, &mut |_| ()) {
            each(self.record.unknown);
        } else {
            self.split_word(word, each);
        }
    }

    fn split_word(&self, word: &[u8], each: &mut dyn FnMut(u32)) -> bool {
        let mut at = 0;
        while at < word.len() {
            let prefix = if at == 0 { &[][..] } else { self.continuation };
            let Some((entry, length)) = self.spellings.longest(prefix, &word[at..]) else { return false };
            each(self.spellings.id(entry));
            at += length;
        }
        true
    }
}
