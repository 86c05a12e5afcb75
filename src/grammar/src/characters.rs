//! Classes of characters as bytes: in UTF-8, and inside a JSON string, where some characters are written as escapes.
//!
//! A JSON string is written in one way: `"`, `\`, backspace, form feed, line feed, carriage return and tab with a
//! backslash, every other character from U+0020 on as it is, and no other control character.

use crate::syntax::Node;
use regex_syntax::utf8::Utf8Sequences;

/// Ranges of characters, ascending, both ends included.
pub(crate) type Ranges = [(char, char)];

/// How characters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// In UTF-8.
    Plain,
    /// Inside a JSON string.
    Json,
}

/// Characters that a JSON string writes with a backslash, and the letter after it.
const ESCAPES: [(char, u8); 7] =
    [('\u{8}', b'b'), ('\t', b't'), ('\n', b'n'), ('\u{c}', b'f'), ('\r', b'r'), ('"', b'"'), ('\\', b'\\')];
/// Characters that a JSON string writes as they are.
const UNESCAPED: [(char, char); 3] = [(' ', '!'), ('#', '['), (']', char::MAX)];

impl Alphabet {
    /// One of the characters.
    pub(crate) fn class(self, ranges: &Ranges) -> Node {
        if self == Alphabet::Plain {
            return in_utf8(ranges);
        }
        let both = ranges.iter().flat_map(|&(low, high)| {
            UNESCAPED
                .iter()
                .map(move |&(least, most)| (low.max(least), high.min(most)))
                .filter(|(low, high)| low <= high)
        });
        let mut parts = vec![in_utf8(&both.collect::<Vec<_>>())];
        let has = |character: char| ranges.iter().any(|&(low, high)| (low..=high).contains(&character));
        let escapes = ESCAPES.iter().filter(|(character, _)| has(*character));
        parts.extend(escapes.map(|&(_, letter)| Node::Literal(vec![b'\\', letter])));
        Node::Either(parts)
    }

    /// A text.
    pub(crate) fn text(self, text: &str) -> Node {
        match self {
            Alphabet::Plain => Node::literal(text),
            Alphabet::Json => {
                Node::Sequence(text.chars().map(|character| self.class(&[(character, character)])).collect())
            }
        }
    }

    /// Any character.
    pub(crate) fn any(self) -> Node {
        self.class(&[('\0', char::MAX)])
    }
}

fn in_utf8(ranges: &Ranges) -> Node {
    let sequences = ranges.iter().flat_map(|&(low, high)| Utf8Sequences::new(low, high));
    let bytes = |sequence: regex_syntax::utf8::Utf8Sequence| {
        sequence.as_slice().iter().map(|range| (range.start, range.end)).collect()
    };
    Node::Ranges(sequences.map(bytes).collect::<Vec<_>>().into())
}

/// The characters that none of the ranges has.
pub(crate) fn complement(ranges: &Ranges) -> Vec<(char, char)> {
    let mut sorted: Vec<(u32, u32)> = ranges.iter().map(|&(low, high)| (low.into(), high.into())).collect();
    sorted.sort_unstable();
    let (mut found, mut next) = (Vec::new(), 0u32);
    let mut add = |low: u32, high: u32| {
        // Surrogates are not characters: a range goes around them.
        for (low, high) in [(low, high.min(0xD7FF)), (low.max(0xE000), high)] {
            if let (true, Some(low), Some(high)) = (low <= high, char::from_u32(low), char::from_u32(high)) {
                found.push((low, high));
            }
        }
    };
    for (low, high) in sorted {
        if low > next {
            add(next, low - 1);
        }
        next = next.max(high + 1);
    }
    if next <= char::MAX.into() {
        add(next, char::MAX.into());
    }
    found
}
