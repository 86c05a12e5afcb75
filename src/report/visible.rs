//! Text that a model or a file wrote, for a terminal or a document: control characters are shown, never sent.

/// The text with every control character but tab and line feed as `\u{1b}`, also those that turn the direction of
/// writing around, by which a text can look like another.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let plain = matches!(character, '\n' | '\t') || !(character.is_control() || turns(character));
        if plain {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

/// Marks, embeddings, overrides and isolates of direction.
fn turns(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(visible("a\tb\nü 🦊"), "a\tb\nü 🦊");
        assert_eq!(visible("\u{1b}[31m\r\0\u{85}"), "\\u{1b}[31m\\u{d}\\u{0}\\u{85}");
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
    }
}
