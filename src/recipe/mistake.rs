//! Mistakes in a recipe: every one at once, each with its file and line.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// As the person who runs the recipe would name it.
    pub(super) file: Rc<Path>,
    /// From 1.
    pub(super) line: usize,
}

impl Location {
    /// The directory that paths of this file are relative to.
    pub(super) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

/// Collects mistakes, and is the error that they make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// File, line, message.
    all: Vec<(String, usize, String)>,
}

impl Mistakes {
    pub(super) fn add(&mut self, place: &Location, message: impl Into<String>) {
        let mistake = (place.file.display().to_string(), place.line, message.into());
        if !self.all.contains(&mistake) {
            self.all.push(mistake);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The messages, without files and lines.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|(_, _, message)| message.as_str())
    }

    /// In the order of files and lines.
    pub(super) fn sort(&mut self) {
        self.all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (file, line, message)) in self.all.iter().enumerate() {
            let start = if n == 0 { "" } else { "\n  " };
            write!(f, "{start}{file}:{line}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
