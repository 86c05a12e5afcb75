//! Tags: names that a text is given for its words or for patterns in it. A file of tags:
//!
//! ```toml
//! [animals]
//! words = ["fox", "bear"]             # whole words, in any case
//!
//! [questions]
//! patterns = ['\?\s*$', '(?i)^(who|what|why)\b']
//! ```
//!
//! A text has every tag of which any word or pattern is in it, in the order of the file, under `tags` of its row.

use super::DataError;
use regex::Regex;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The tags of a file.
#[derive(Clone, Debug)]
pub struct Tags(Vec<Tag>);

#[derive(Clone, Debug)]
struct Tag {
    name: String,
    words: BTreeSet<String>,
    patterns: Vec<Regex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    patterns: Vec<String>,
}

impl Tags {
    /// Reads a file.
    ///
    /// # Errors
    /// [`DataError::Tags`], naming the tag and the pattern.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let wrong = |fault: String| DataError::Tags { path: PathBuf::from(path), fault };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let written: BTreeMap<String, toml::Spanned<Written>> =
            toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().replace('\n', " ")))?;
        let mut tags: Vec<(usize, String, Written)> =
            written.into_iter().map(|(name, tag)| (tag.span().start, name, tag.into_inner())).collect();
        tags.sort_by_key(|(start, ..)| *start);
        if tags.is_empty() {
            return Err(wrong("it has no tags; write [NAME] with words or patterns".to_owned()));
        }
        let read = |(_, name, tag): (usize, String, Written)| {
            if tag.words.is_empty() && tag.patterns.is_empty() {
                return Err(wrong(format!("tag `{name}` has neither words nor patterns")));
            }
            if let Some(word) = tag.words.iter().find(|word| word.is_empty() || word.chars().any(|c| !joins(c))) {
                return Err(wrong(format!("`{word}` of tag `{name}` is not a single word; write it as a pattern")));
            }
            let patterns = tag.patterns.iter().map(|pattern| {
                Regex::new(pattern).map_err(|error| {
                    let fault = error.to_string().replace('\n', " ");
                    wrong(format!("pattern `{pattern}` of tag `{name}`: {fault}"))
                })
            });
            let patterns = patterns.collect::<Result<_, _>>()?;
            Ok(Tag { name, words: tag.words.iter().map(|word| word.to_lowercase()).collect(), patterns })
        };
        Ok(Tags(tags.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// The tags of a text.
    pub fn of(&self, text: &str) -> Vec<&str> {
        let words: BTreeSet<String> = match self.0.iter().any(|tag| !tag.words.is_empty()) {
            true => text.split(|c| !joins(c)).filter(|word| !word.is_empty()).map(str::to_lowercase).collect(),
            false => BTreeSet::new(),
        };
        let has = |tag: &&Tag| {
            tag.words.iter().any(|word| words.contains(word))
                || tag.patterns.iter().any(|pattern| pattern.is_match(text))
        };
        self.0.iter().filter(has).map(|tag| tag.name.as_str()).collect()
    }
}

/// Whether a character is part of a word.
fn joins(character: char) -> bool {
    character.is_alphanumeric() || character == '\''
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(content: &str) -> Result<Tags, DataError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("writes");
        Tags::read(file.path())
    }

    #[test]
    fn texts_are_tagged_by_words_and_patterns() {
        let tags =
            tags("[questions]\npatterns = ['\\?\\s*$']\n[animals]\nwords = [\"Fox\", \"bear\"]\n").expect("reads");
        assert_eq!(tags.of("Was it a FOX?"), ["questions", "animals"]);
        assert_eq!(tags.of("foxes? no"), Vec::<&str>::new());
        assert_eq!(tags.of("a bear."), ["animals"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (content, expected) in [
            ("", "it has no tags"),
            ("[a]\n", "tag `a` has neither words nor patterns"),
            ("[a]\nwords = [\"two words\"]", "`two words` of tag `a` is not a single word"),
            ("[a]\npatterns = ['(']", "pattern `(` of tag `a`"),
            ("[a]\nword = [\"x\"]", "unknown field `word`"),
        ] {
            let error = tags(content).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
