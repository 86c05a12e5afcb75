//! Mistakes in a recipe: every one at once, each with its code, file, line and column, the source line underlined and
//! what to write instead. Displayed in the form of rustc and ruff; as JSON in the schema `slmc.mistakes/1`.
//!
//! ```text
//! error[S011]: unknown key `scheem`
//!  --> recipes/llama.toml:23:1
//!   |
//! 23 | scheem = "w4"
//!   | ^^^^^^
//!   |
//!   = help: did you mean `scheme`?
//! ```

mod code;

pub use code::Code;

use super::environment::PREFIX;
use crate::disk::schema::nearest;
use crate::report::Report;
use crate::report::annotation::{Annotation, Level as AnnotationLevel};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::ser::{SerializeStruct, Serializer};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// As the person who runs the recipe would name it.
    pub(super) file: PathBuf,
    /// Empty where it could not be read.
    pub(super) text: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) source: Arc<Source>,
    /// Bytes of the text.
    pub(super) span: Range<usize>,
}

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    line: usize,
    column: usize,
}

impl Location {
    /// The start of a file.
    pub(super) fn start(file: &Path, text: String) -> Self {
        Location { source: Arc::new(Source { file: file.to_owned(), text }), span: 0..0 }
    }

    /// Another place in the same file.
    pub(super) fn at(&self, span: Range<usize>) -> Self {
        Location { source: self.source.clone(), span }
    }

    /// The directory that paths of this file are relative to.
    pub(super) fn directory(&self) -> &Path {
        self.source.file.parent().unwrap_or(Path::new(""))
    }

    /// Line of the start, from 1.
    pub(super) fn line(&self) -> usize {
        self.position(self.span.start).line
    }

    fn position(&self, offset: usize) -> Position {
        let text = self.source.text.as_bytes();
        let before = &text[..offset.min(text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        // A byte that does not continue a character begins one.
        let column = 1 + before[begin..].iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        Position { line, column }
    }

    /// The span without what follows its first line: of a table that goes on below, its heading.
    fn first_line(&self) -> Range<usize> {
        let text = &self.source.text;
        let boundary = |offset: usize| (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
        let (start, end) = (boundary(self.span.start).unwrap_or(0), boundary(self.span.end).unwrap_or(0));
        let span = start..end.max(start);
        let length = text[span.clone()].find(['\n', '\r']).unwrap_or(span.len());
        start..start + length
    }
}

/// What to write instead of an unknown name.
pub(super) fn suggestion<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(found, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    code: Code,
    place: Location,
    /// What is wrong.
    message: String,
    /// What to write instead.
    help: String,
}

/// Collects mistakes, and is the error that they make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    all: Vec<Mistake>,
    hidden: Vec<Hidden>,
}

/// What a variable of the environment says: mistakes end up in logs that others read, and name the variable in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hidden {
    /// `env:NAME`.
    shown: String,
    /// The value, and as a number is written where it is one.
    forms: Vec<String>,
}

/// A value of fewer bytes is hidden only in mistakes at its own place: elsewhere the same characters are by chance.
const TELLING: usize = 4;

impl Hidden {
    /// A text without the value, wherever that stands as a word or part of a path.
    fn without(&self, text: String, own_place: bool) -> String {
        let forms = self.forms.iter().filter(|form| own_place || form.len() >= TELLING);
        forms.fold(text, |text, form| replaced(&text, form, &self.shown))
    }
}

/// Every occurrence of a text that is not within a longer word.
fn replaced(text: &str, old: &str, new: &str) -> String {
    let in_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    let (begins, ends) = (in_word(old.chars().next()), in_word(old.chars().next_back()));
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(old) {
        let (before, after) = (&rest[..at], &rest[at + old.len()..]);
        let last = before.chars().next_back().or_else(|| out.chars().next_back());
        let within = begins && in_word(last) || ends && in_word(after.chars().next());
        out.push_str(before);
        out.push_str(if within { old } else { new });
        rest = after;
    }
    out + rest
}

impl Mistakes {
    /// A mistake without a remedy of its own, which then has that of its kind. What other rooms refuse says its remedy at its
    /// end, after a semicolon.
    pub(super) fn add(&mut self, place: &Location, code: Code, message: impl Into<String>) {
        let message = message.into();
        let parts = matches!(code, Code::Refused | Code::Impossible | Code::UnknownValue)
            .then(|| message.rsplit_once("; "))
            .flatten();
        match parts {
            Some((what, remedy)) => self.suggest(place, code, what, remedy),
            None => self.suggest(place, code, message, code.remedy()),
        }
    }

    /// A mistake and its remedy.
    pub(super) fn suggest(
        &mut self,
        place: &Location,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Mistake { code, place: place.clone(), message: message.into(), help: help.into() });
    }

    /// A key that nothing in `of` reads; `known` are those that are read.
    pub(super) fn unknown_key<'a>(
        &mut self,
        place: &Location,
        key: &str,
        known: impl IntoIterator<Item = &'a str>,
        of: &str,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        let help = match nearest(&key.replace('-', "_"), known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("keys of {of}: {}", known.join(", ")),
        };
        self.suggest(place, Code::UnknownKey, format!("unknown key `{key}`"), help);
    }

    /// Names a variable in the place of its value, in every mistake from now on.
    pub(super) fn hide(&mut self, name: &str, value: &str) {
        let mut forms = vec![value.to_owned()];
        if let Ok(number) = value.trim().parse::<f64>() {
            forms.push(number.to_string());
        }
        let hidden = Hidden { shown: format!("{PREFIX}{name}"), forms };
        if !self.hidden.contains(&hidden) {
            self.hidden.push(hidden);
        }
    }

    fn push(&mut self, mut mistake: Mistake) {
        let written = mistake.place.source.text.get(mistake.place.span.clone()).unwrap_or_default().to_owned();
        for hidden in &self.hidden {
            let own_place = written.contains(&hidden.shown);
            mistake.message = hidden.without(mistake.message, own_place);
            mistake.help = hidden.without(mistake.help, own_place);
        }
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
        self.all.iter().map(|mistake| mistake.message.as_str())
    }

    /// In the order of files and places.
    pub(super) fn sort(&mut self) {
        let key = |mistake: &Mistake| (mistake.place.source.file.clone(), mistake.place.span.start);
        self.all.sort_by_key(key);
    }

    /// For the checks of a pull request.
    pub fn annotations(&self) -> Vec<Annotation> {
        let annotation = |mistake: &Mistake| {
            let (start, end) = mistake.positions();
            Annotation {
                level: AnnotationLevel::Error,
                file: mistake.place.source.file.clone(),
                line: start.line,
                column: start.column,
                end_column: end.column,
                title: format!("slmc ({})", mistake.code),
                message: format!("{}\n{}", mistake.message, mistake.help),
            }
        };
        self.all.iter().map(annotation).collect()
    }
}

impl Mistake {
    /// Start, and the position after the end on the same line.
    fn positions(&self) -> (Position, Position) {
        let span = self.place.first_line();
        (self.place.position(span.start), self.place.position(span.end))
    }

    fn rendered(&self) -> String {
        let title = Level::ERROR.primary_title(&self.message).id(self.code.name());
        let path = self.place.source.file.display().to_string();
        let mut group = Group::with_title(title);
        if self.place.source.text.is_empty() {
            group = group.element(annotate_snippets::Origin::path(path));
        } else {
            let annotation = AnnotationKind::Primary.span(self.place.first_line());
            group = group.element(Snippet::source(&self.place.source.text).path(path).annotation(annotation));
        }
        group = group.element(Level::HELP.message(&self.help));
        Renderer::plain().render(&[group])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.all[..] {
            [_] => f.write_str("the recipe has a mistake; nothing was run")?,
            all => write!(f, "the recipe has {} mistakes; nothing was run", all.len())?,
        }
        for mistake in &self.all {
            write!(f, "\n\n{}", mistake.rendered())?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl serde::Serialize for Mistakes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Row {
            code: &'static str,
            file: String,
            line: usize,
            column: usize,
            end_column: usize,
            message: String,
            help: String,
        }
        let row = |mistake: &Mistake| {
            let (start, end) = mistake.positions();
            Row {
                code: mistake.code.name(),
                file: mistake.place.source.file.display().to_string(),
                line: start.line,
                column: start.column,
                end_column: end.column,
                message: mistake.message.clone(),
                help: mistake.help.clone(),
            }
        };
        let mut fields = serializer.serialize_struct("Mistakes", 1)?;
        fields.serialize_field("mistakes", &self.all.iter().map(row).collect::<Vec<_>>())?;
        fields.end()
    }
}

impl Report for Mistakes {
    const SCHEMA: &'static str = "slmc.mistakes/1";

    fn text(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str, span: Range<usize>) -> Mistakes {
        let place = Location::start(Path::new("a.toml"), text.to_owned()).at(span);
        let mut mistakes = Mistakes::default();
        mistakes.suggest(&place, Code::UnknownKey, "unknown key `ü`", "did you mean `u`?");
        mistakes
    }

    #[test]
    fn the_source_line_is_shown_with_the_place_underlined() {
        let text = "version = 1\nü = 2\n";
        let shown = mistakes(text, 12..14).to_string();
        let expected = "the recipe has a mistake; nothing was run\n\nerror[S011]: unknown key `ü`\n --> a.toml:2:1\n  |\n\
                        2 | ü = 2\n  | ^\n  |\n  = help: did you mean `u`?";
        assert_eq!(shown, expected);
    }

    #[test]
    fn values_of_variables_are_named_and_not_shown() {
        let text = "data = 'env:PLACE'\ntokens = 'env:MANY'\n";
        let start = Location::start(Path::new("a.toml"), text.to_owned());
        let mut mistakes = Mistakes::default();
        mistakes.hide("PLACE", "/home/someone");
        mistakes.hide("MANY", "-1.0");
        let (data, tokens) = (start.at(7..18), start.at(28..38));
        let help = "write below /home/someone, not /home/someones";
        mistakes.suggest(&data, Code::MissingPath, "/home/someone/x and a/home/someone do not exist", help);
        mistakes.suggest(&tokens, Code::UnknownValue, "`tokens` is -1; expected 1 to 100", "write -1.0 otherwise");
        mistakes.suggest(&data, Code::UnknownValue, "layers -1 to 7", "");
        let found: Vec<(&str, &str)> =
            mistakes.all.iter().map(|mistake| (mistake.message.as_str(), mistake.help.as_str())).collect();
        let expected = [
            ("env:PLACE/x and aenv:PLACE do not exist", "write below env:PLACE, not /home/someones"),
            ("`tokens` is env:MANY; expected 1 to 100", "write env:MANY otherwise"),
            ("layers -1 to 7", ""),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn positions_are_characters_of_one_line() {
        let cases = [
            ("a = 'ü' # é\nb = 2\n", 14..15, (2, 1, 2)),
            ("é = 'ü'\n", 6..10, (1, 6, 8)),
            // A table of several lines is named by its first.
            ("t = {\n a = 1 }\n", 4..14, (1, 5, 6)),
            ("", 0..0, (1, 1, 1)),
            // Beyond the text.
            ("ab", 7..9, (1, 3, 3)),
        ];
        for (text, span, expected) in cases {
            let json = serde_json::to_value(mistakes(text, span)).expect("serialises");
            let mistake = &json["mistakes"][0];
            let number = |key: &str| mistake[key].as_u64().expect("a number");
            assert_eq!((number("line"), number("column"), number("end_column")), expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_text_cannot_draw_on_the_terminal() {
        let shown = mistakes("a = \"\u{1b}[31mred\u{7}\"\n", 0..1).to_string();
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
    }
}
