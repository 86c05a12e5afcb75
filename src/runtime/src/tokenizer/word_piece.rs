//! Word pieces: the longest token a word begins with, then the longest that continues it, to its end. A word that cannot
//! be taken apart like this, or is too long, is unknown as a whole.

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
        // Once to see whether the word can be taken apart, once to do it: no memory is needed.
        if characters > self.record.longest_word || !self.take_apart(word, &mut |_| ()) {
            each(self.record.unknown);
        } else {
            self.take_apart(word, each);
        }
    }

    fn take_apart(&self, word: &[u8], each: &mut dyn FnMut(u32)) -> bool {
        let mut at = 0;
        while at < word.len() {
            let lead = if at == 0 { &[][..] } else { self.continuation };
            let Some((entry, length)) = self.spellings.longest(lead, &word[at..]) else { return false };
            each(self.spellings.id(entry));
            at += length;
        }
        true
    }
}
