//! How the texts of a file are told apart: by a field of its rows, or, in a text file, by a separator between documents.

use std::fmt;
use std::str::FromStr;

/// How the texts of a file are told apart. Without either, a text file is one document, or for encoders a text a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextForm {
    /// Key of the text in every row.
    pub field: Option<String>,
    /// Stands between the documents of a text file.
    pub separator: Option<Separator>,
}

impl TextForm {
    /// Rows with their text under `field`, or a text file without separators.
    pub fn of_field(field: Option<&str>) -> Self {
        TextForm { field: field.map(str::to_owned), separator: None }
    }
}

/// A text between documents, never empty. Written with `\n`, `\r`, `\t` and `\\` for line feed, carriage return, tab and
/// backslash, and displayed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Separator(String);

/// A string that is not a separator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeparatorError {
    /// Nothing stands between any two characters.
    #[error("the separator is empty; write what stands between documents, such as '\\n\\n' or '<|endoftext|>'")]
    Empty,
    /// A backslash before another character.
    #[error("`{0}` is not an escape in a separator; known are \\n, \\r, \\t, and \\\\ for a backslash")]
    Escape(String),
}

impl FromStr for Separator {
    type Err = SeparatorError;

    fn from_str(text: &str) -> Result<Self, SeparatorError> {
        let (mut separator, mut characters) = (String::new(), text.chars());
        while let Some(character) = characters.next() {
            if character != '\\' {
                separator.push(character);
                continue;
            }
            separator.push(match characters.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('\\') => '\\',
                other => {
                    return Err(SeparatorError::Escape(
                        other.into_iter().fold("\\".to_owned(), |a, c| a + &c.to_string()),
                    ));
                }
            });
        }
        // Files are read with LF as the end of every line.
        let separator = separator.replace("\r\n", "\n");
        if separator.is_empty() { Err(SeparatorError::Empty) } else { Ok(Separator(separator)) }
    }
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = [("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")];
        f.write_str(&escaped.into_iter().fold(self.0.clone(), |text, (from, to)| text.replace(from, to)))
    }
}

impl Separator {
    /// As it stands in a text.
    pub(super) fn as_text(&self) -> &str {
        &self.0
    }

    /// The documents of a text with the lines on which they begin, from 1; blank ones are left out, and space around a
    /// document is not part of it. `None` where the separator does not occur.
    pub(super) fn cut<'t>(&self, text: &'t str) -> Option<Vec<(usize, &'t str)>> {
        let breaks = |text: &str| text.bytes().filter(|&byte| byte == b'\n').count();
        let (mut line, mut documents, mut pieces) = (1, Vec::new(), 0);
        for piece in text.split(&self.0) {
            let document = piece.trim();
            if !document.is_empty() {
                let space = piece.len() - piece.trim_start().len();
                documents.push((line + breaks(&piece[..space]), document));
            }
            line += breaks(piece) + breaks(&self.0);
            pieces += 1;
        }
        (pieces > 1).then_some(documents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_read_with_escapes_and_shown_with_them() {
        for (written, text) in [
            (r"\n\n", "\n\n"),
            (r"\r\n---\r\n", "\n---\n"),
            (r"a\\n\t", "a\\n\t"),
            ("<|endoftext|>", "<|endoftext|>"),
            ("\n\n", "\n\n"),
        ] {
            let separator: Separator = written.parse().expect(written);
            assert_eq!(separator.0, text);
            assert_eq!(separator.to_string().parse(), Ok(separator));
        }
        assert_eq!("".parse::<Separator>(), Err(SeparatorError::Empty));
        for (written, escape) in [(r"a\q", r"\q"), (r"\n\", r"\")] {
            assert_eq!(written.parse::<Separator>(), Err(SeparatorError::Escape(escape.to_owned())));
        }
    }

    #[test]
    fn documents_are_cut_with_their_lines() {
        let cut = |separator: &str, text| separator.parse::<Separator>().expect("a separator").cut(text);
        assert_eq!(
            cut("<end>", "one\n<end>\n\ntwo<end>three\n<end>\n"),
            Some(vec![(1, "one"), (4, "two"), (4, "three")])
        );
        assert_eq!(cut(r"\n\n", "a\nb\n\n\nc\n\nd"), Some(vec![(1, "a\nb"), (5, "c"), (7, "d")]));
        assert_eq!(cut(r"\n\n", "a\nb\n"), None);
        assert_eq!(cut("x", "xx"), Some(vec![]));
    }
}
