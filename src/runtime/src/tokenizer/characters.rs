//! Characters of validated UTF-8, without allocation and without panics.

/// The character that starts at `at` and its length; `None` at the end. Bytes that are not UTF-8 read as U+FFFD, one
/// each.
pub(super) fn character(text: &[u8], at: usize) -> Option<(char, usize)> {
    let bytes = text.get(at..)?;
    let first = *bytes.first()?;
    let (length, lead) = match first {
        0..0x80 => return Some((char::from(first), 1)),
        0xC0..0xE0 => (2, first & 0x1F),
        0xE0..0xF0 => (3, first & 0x0F),
        _ => (4, first & 0x07),
    };
    let Some(rest) = bytes.get(1..length) else { return Some((char::REPLACEMENT_CHARACTER, 1)) };
    let code = rest.iter().fold(u32::from(lead), |code, &byte| code << 6 | u32::from(byte & 0x3F));
    Some(char::from_u32(code).map_or((char::REPLACEMENT_CHARACTER, 1), |character| (character, length)))
}

/// The character that ends before `at`, and where it begins.
pub(super) fn character_before(text: &[u8], at: usize) -> Option<(char, usize)> {
    let start =
        (at.saturating_sub(4)..at).rev().find(|&start| text.get(start).is_some_and(|byte| byte & 0xC0 != 0x80))?;
    Some((character(text, start)?.0, start))
}

/// Whether a character is white space; `\s` and Rust have the same class.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace()
}

/// Length of the run of characters from `at` on for which `holds`.
pub(super) fn run(text: &[u8], at: usize, mut holds: impl FnMut(char) -> bool) -> usize {
    let mut end = at;
    while let Some((next, length)) = character(text, end) {
        if !holds(next) {
            break;
        }
        end += length;
    }
    end
}
