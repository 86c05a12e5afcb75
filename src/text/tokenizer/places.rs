//! Texts as tokens that know where they stand: in a text, in a list of words, or in the second of two texts.

use super::{Tokenizer, TokenizerError};
use std::ops::Range;
use tokenizers::{Encoding, InputSequence, PostProcessor, TruncationDirection};

/// Tokens with the special tokens around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded<P> {
    /// All of them.
    pub tokens: Vec<u32>,
    /// Where each stands; `None` of special tokens, and of those of a question.
    pub places: Vec<Option<P>>,
    /// Whether the text was cut.
    pub cut: bool,
}

impl Tokenizer {
    /// Tokens of a text with the bytes of it that each stands for, cut at the end to `context` tokens.
    ///
    /// # Errors
    /// [`TokenizerError::NoRoom`], [`TokenizerError::Encode`], [`TokenizerError::NoRow`].
    pub fn encode_places(&self, text: &str, context: usize) -> Result<Encoded<Range<usize>>, TokenizerError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.encode_error(text, error))?;
        let (encoding, cut) = self.surrounded(text, None, encoding, context)?;
        let special = encoding.get_special_tokens_mask();
        let bytes = encoding.get_offsets().iter().zip(special);
        let places = bytes.map(|(&(start, end), &special)| (special == 0).then_some(start..end)).collect();
        Ok(Encoded { tokens: self.with_rows(encoding.get_ids())?, places, cut })
    }

    /// Tokens of words that were told apart already; the first token of each word has its number.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_places`].
    pub fn encode_words(&self, words: &[String], context: usize) -> Result<Encoded<usize>, TokenizerError> {
        let failed = |error| self.encode_error(&words.join(" "), error);
        let encoding = self.tokenizer.encode(InputSequence::from(words), false).map_err(failed)?;
        let (encoding, cut) = self.surrounded(&words.join(" "), None, encoding, context)?;
        let mut last = None;
        let special = encoding.get_special_tokens_mask();
        let mut first = |word: Option<u32>| {
            let word = word.map(|word| word as usize).filter(|word| last < Some(*word));
            last = last.max(word);
            word
        };
        let of_tokens = encoding.get_word_ids().iter().zip(special);
        let places = of_tokens.map(|(&word, &special)| if special == 0 { first(word) } else { None }).collect();
        Ok(Encoded { tokens: self.with_rows(encoding.get_ids())?, places, cut })
    }

    /// Tokens of a question and a text, as the tokenizer writes pairs, with the bytes of the text that its tokens stand for.
    /// The text is cut, never the question.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_places`]; [`TokenizerError::LongQuestion`] where the question leaves nothing for the text.
    pub fn encode_pair(
        &self,
        question: &str,
        text: &str,
        context: usize,
    ) -> Result<Encoded<Range<usize>>, TokenizerError> {
        let first = self.tokenizer.encode(question, false).map_err(|error| self.encode_error(question, error))?;
        let second = self.tokenizer.encode(text, false).map_err(|error| self.encode_error(text, error))?;
        let mut of_question = first.len();
        let (encoding, cut) = self.surrounded(text, Some(first), second, context)?;
        // Which of both a token is of, the encoding no longer says: the question's come first.
        let place = |(&(start, end), &special): (&(usize, usize), &u32)| {
            if special != 0 {
                return None;
            }
            let before = of_question > 0;
            of_question = of_question.saturating_sub(1);
            (!before).then_some(start..end)
        };
        let special = encoding.get_special_tokens_mask();
        let places = encoding.get_offsets().iter().zip(special).map(place).collect();
        Ok(Encoded { tokens: self.with_rows(encoding.get_ids())?, places, cut })
    }

    /// The special tokens around a text, or around two of which the last is cut so that all are at most `context`.
    fn surrounded(
        &self,
        text: &str,
        before: Option<Encoding>,
        mut last: Encoding,
        context: usize,
    ) -> Result<(Encoding, bool), TokenizerError> {
        let pair = before.is_some();
        let specials = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        let taken = specials + before.as_ref().map_or(0, |before| before.len());
        if context <= taken {
            return Err(match pair {
                true => TokenizerError::LongQuestion { question: taken, context },
                false => TokenizerError::NoRoom { path: self.path.clone(), context, specials },
            });
        }
        let cut = last.len() > context - taken;
        last.truncate(context - taken, 0, TruncationDirection::Right);
        let (first, second) = match before {
            Some(before) => (before, Some(last)),
            None => (last, None),
        };
        let encoding = self.tokenizer.post_process(first, second, true);
        Ok((encoding.map_err(|error| self.encode_error(text, error))?, cut))
    }
}
