//! What every character is, as runs of characters of one class. Letters, numbers and white space of regular expressions
//! come from regex-syntax, punctuation from unicode_categories, numbers of their own kind from Rust: the same places
//! the `tokenizers` crate asks.

use super::{HostOnly, host_only};
use regex_syntax::hir::{Class, HirKind};
use slm_runtime::format::text::class;
use unicode_categories::UnicodeCategories;

/// Runs of characters of one class: where each begins and its number in the palette.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// First character and palette entry, ascending, from character 0 on.
    pub(super) runs: Vec<(u32, u8)>,
    /// [`class`] bits.
    pub(super) palette: [u8; 8],
}

/// Marks `bit` on the characters that a class of regular expressions has.
fn mark(expression: &str, bit: u8, bits: &mut [u8]) -> Result<(), HostOnly> {
    let parsed = regex_syntax::parse(expression).map_err(|error| host_only("regular expression", error))?;
    let HirKind::Class(Class::Unicode(class)) = parsed.kind() else {
        return Err(host_only("regular expression", expression));
    };
    for range in class.ranges() {
        bits[range.start() as usize..=range.end() as usize].iter_mut().for_each(|bits| *bits |= bit);
    }
    Ok(())
}

impl Classes {
    /// The classes among `wanted` of every character.
    pub(super) fn of(wanted: u8) -> Result<Self, HostOnly> {
        let mut classes = Classes::default();
        if wanted == 0 {
            return Ok(classes);
        }
        let mut bits = vec![0u8; 0x11_0000];
        for (expression, bit) in [(r"\p{L}", class::LETTER), (r"\p{N}", class::NUMBER), (r"\s", class::SPACE)] {
            if wanted & bit != 0 {
                mark(expression, bit, &mut bits)?;
            }
        }
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let bits = &mut bits[character as usize];
            if wanted & class::PUNCTUATION != 0 && (character.is_ascii_punctuation() || character.is_punctuation()) {
                *bits |= class::PUNCTUATION;
            }
            if wanted & class::NUMERIC != 0 && character.is_numeric() {
                *bits |= class::NUMERIC;
            }
        }
        let mut palette: Vec<u8> = Vec::new();
        for (character, &bits) in bits.iter().enumerate() {
            let entry = palette.iter().position(|&known| known == bits).unwrap_or(palette.len());
            if entry == palette.len() {
                palette.push(bits);
            }
            if classes.runs.last().is_none_or(|&(_, last)| usize::from(last) != entry) {
                classes.runs.push((character as u32, entry as u8));
            }
        }
        if palette.len() > classes.palette.len() {
            return Err(host_only("combination of character classes", format!("{palette:?}")));
        }
        classes.palette[..palette.len()].copy_from_slice(&palette);
        Ok(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_of_expressions_is_that_of_rust() {
        let mut bits = vec![0u8; 0x11_0000];
        mark(r"\s", 1, &mut bits).expect("a class");
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            assert_eq!(bits[character as usize] == 1, character.is_whitespace(), "{character:?}");
        }
    }
}
