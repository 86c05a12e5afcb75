//! Tokens cut into what a model is run on. Decoders: windows of one size, each the opening tokens (where the
//! tokenizer has any) and the next tokens of the text, no token in two windows, a tail shorter than a window dropped. Encoders: one sequence per
//! text with its special tokens, cut to the model's context.

use super::records::Record;
use super::tokenizer::{Tokenizer, TokenizerError};

/// Why text cannot be cut into windows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WindowError {
    /// Nothing could be predicted in such a window.
    #[error("a window of {window} tokens has nothing to predict; use at least {least}")]
    TooShort {
        /// The size that was asked for.
        window: usize,
        /// The smallest one.
        least: usize,
    },
    /// The model has no positions for such a window.
    #[error("a window of {window} tokens is longer than the model's context of {context}; use at most {context}")]
    TooLong {
        /// The size that was asked for.
        window: usize,
        /// Positions of the model.
        context: usize,
    },
    /// Not one window was asked for.
    #[error("no window was asked for; use at least one")]
    NoneAsked,
    /// The text does not fill one window.
    #[error("the text has {tokens} tokens and one window needs {needed}; use a longer text or a smaller window")]
    TooLittleText {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of one window, opening ones not counted.
        needed: usize,
    },
}

/// Whether a decoder's window can be.
///
/// # Errors
/// [`WindowError::TooShort`], [`WindowError::TooLong`].
pub fn check_window(opening: &[u32], context: usize, window: usize) -> Result<(), WindowError> {
    let least = (opening.len() + 1).max(2);
    if window < least {
        return Err(WindowError::TooShort { window, least });
    }
    if window > context {
        return Err(WindowError::TooLong { window, context });
    }
    Ok(())
}

/// Windows of `window` tokens each, the opening ones included, at most `max_windows`, for a model of `context` positions:
/// `(windows, window)` token ids.
///
/// # Errors
/// [`WindowError`].
pub fn decoder_windows(
    tokens: &[u32],
    opening: &[u32],
    context: usize,
    window: usize,
    max_windows: usize,
) -> Result<Vec<Vec<u32>>, WindowError> {
    check_window(opening, context, window)?;
    if max_windows == 0 {
        return Err(WindowError::NoneAsked);
    }
    let needed = window - opening.len();
    if tokens.len() < needed {
        return Err(WindowError::TooLittleText { tokens: tokens.len(), needed });
    }
    Ok(tokens.chunks_exact(needed).take(max_windows).map(|chunk| [opening, chunk].concat()).collect())
}

/// Which windows or texts are taken where fewer are wanted than there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// Evenly over the whole text
    #[default]
    Spread,
    /// The first ones
    First,
}

impl Choice {
    /// At most `most` of N items, in their order: spread, item ⌊(j+½)·N/most⌋ for j = 0, 1, …
    pub fn take<T>(self, items: &mut Vec<T>, most: usize) {
        let count = items.len();
        if most >= count {
            return;
        }
        if self == Choice::First {
            return items.truncate(most);
        }
        // In 128 bits no product of two lengths is too large.
        let place = |j: usize| ((2 * j as u128 + 1) * count as u128 / (2 * most as u128)) as usize;
        let (mut index, mut taken) = (0, 0);
        items.retain(|_| {
            let take = taken < most && index == place(taken);
            (index, taken) = (index + 1, taken + usize::from(take));
            take
        });
    }
}

/// Sequences for an encoder, in the order of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Token ids with special tokens, one list per record.
    pub tokens: Vec<Vec<u32>>,
    /// How many records were longer than the context and were cut.
    pub truncated: usize,
}

/// One sequence per record, at most `context` tokens each.
///
/// # Errors
/// The errors of [`Tokenizer::encode_within`].
pub fn encoder_sequences(
    tokenizer: &Tokenizer,
    records: &[Record],
    context: usize,
) -> Result<Sequences, TokenizerError> {
    let mut sequences = Sequences { tokens: Vec::with_capacity(records.len()), truncated: 0 };
    for record in records {
        let (tokens, cut) = tokenizer.encode_within(&record.text, context)?;
        sequences.tokens.push(tokens);
        sequences.truncated += usize::from(cut);
    }
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{companions, shared};
    use super::*;

    #[test]
    fn windows_open_as_texts_do_and_do_not_overlap() {
        let tokens: Vec<u32> = (10..20).collect();
        let windows = decoder_windows(&tokens, &[1], 8, 4, 64).expect("enough");
        assert_eq!(windows, [[1, 10, 11, 12], [1, 13, 14, 15], [1, 16, 17, 18]]);
        let windows = decoder_windows(&tokens, &[], 8, 4, 64).expect("enough");
        assert_eq!(windows, [[10, 11, 12, 13], [14, 15, 16, 17]]);
        let windows = decoder_windows(&tokens, &[1], 8, 4, 2).expect("enough");
        assert_eq!(windows.len(), 2);
    }

    #[test]
    fn fewer_windows_are_spread_over_the_whole_text() {
        let chosen = |choice: Choice, most| {
            let mut items: Vec<usize> = (0..10).collect();
            choice.take(&mut items, most);
            items
        };
        assert_eq!(chosen(Choice::Spread, 1), [5]);
        assert_eq!(chosen(Choice::Spread, 2), [2, 7]);
        assert_eq!(chosen(Choice::Spread, 3), [1, 5, 8]);
        assert_eq!(chosen(Choice::Spread, 9), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        assert_eq!(chosen(Choice::First, 3), [0, 1, 2]);
        for most in [10, 11, usize::MAX] {
            assert_eq!(chosen(Choice::Spread, most), chosen(Choice::First, most));
        }
        assert!(chosen(Choice::Spread, 0).is_empty());
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_both_numbers() {
        let cases = [
            ((0..2).collect::<Vec<u32>>(), 4, 1, WindowError::TooLittleText { tokens: 2, needed: 3 }),
            ((0..20).collect(), 9, 1, WindowError::TooLong { window: 9, context: 8 }),
            ((0..20).collect(), 1, 1, WindowError::TooShort { window: 1, least: 2 }),
            ((0..20).collect(), 4, 0, WindowError::NoneAsked),
        ];
        for (tokens, window, max_windows, expected) in cases {
            assert_eq!(decoder_windows(&tokens, &[1], 8, window, max_windows), Err(expected));
        }
    }

    #[test]
    fn records_become_sequences_within_the_context() {
        let Some(directory) = shared("models/stories260k") else { return };
        let tokenizer = Tokenizer::of(&companions(&directory)).expect("opens");
        let records =
            ["Once", "Once upon a time there was a fox"].map(|text| Record { line: 1, text: text.to_owned() });
        let sequences = encoder_sequences(&tokenizer, &records, 6).expect("encodes");
        assert_eq!(sequences.truncated, 1);
        assert_eq!(sequences.tokens[1].len(), 6);
        assert!(sequences.tokens.iter().all(|tokens| tokens[0] == 1));
    }
}
