//! `when`: whether a stage belongs to a run. Terms joined by `&&`, each of which may be negated by `!` before it:
//!
//! ```text
//! env:NAME                 the variable is set and not empty
//! env:NAME == 'text'       and it says this; != for anything else, or nothing
//! matrix.KEY == 'text'     the value of the cell, as it is written; likewise !=
//! exists('path')           a file or directory, relative to the file that says it
//! ```

use super::environment::{Environment, PREFIX};
use super::matrix::{Cell, is_key};
use super::mistake::{Code, Location, Mistakes};

const HELP: &str = "terms are env:NAME, env:NAME == 'text', matrix.KEY == 'text' and exists('path'), joined by &&";

/// What a term looks at.
enum Subject<'t> {
    Variable(&'t str),
    Matrix(&'t str),
    Exists(&'t str),
}

/// One term.
struct Term<'t> {
    negated: bool,
    subject: Subject<'t>,
    /// Whether equality is asked for, and with what.
    compared: Option<(bool, &'t str)>,
}

/// The keys of the matrix that a condition looks at.
pub(super) fn matrix_keys(text: &str) -> impl Iterator<Item = &str> {
    text.split("&&").filter_map(|part| match term(part.trim())?.subject {
        Subject::Matrix(key) => Some(key),
        _ => None,
    })
}

/// The first term that does not hold, `None` where all do; a mistake where the condition is none.
pub(super) fn unmet(
    text: &str,
    place: &Location,
    cell: &Cell,
    environment: &mut Environment<'_>,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let mut unmet = None;
    for part in text.split("&&").map(str::trim) {
        let Some(Term { negated, subject, compared }) = term(part) else {
            let message = format!("`when` has a term that is not one: `{part}`");
            mistakes.suggest(place, Code::Condition, message, HELP);
            continue;
        };
        let value = match subject {
            Subject::Variable(name) => {
                if !Environment::may_be_named(name, place, mistakes) {
                    continue;
                }
                environment.get(name)
            }
            Subject::Matrix(key) => cell.text(key).map(str::to_owned),
            Subject::Exists(path) => place.directory().join(path).exists().then(String::new),
        };
        let holds = match compared {
            Some((equal, expected)) => (value.as_deref() == Some(expected)) == equal,
            None => value.is_some(),
        };
        if holds == negated && unmet.is_none() {
            unmet = Some(part.to_owned());
        }
    }
    unmet
}

fn term(text: &str) -> Option<Term<'_>> {
    let (negated, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    // The first operator is the term's own; a later one stands in the text that it compares with.
    let found = [("==", true), ("!=", false)].map(|(operator, equal)| rest.find(operator).map(|at| (at, equal)));
    if let Some((at, equal)) = found.into_iter().flatten().min() {
        let subject = subject(rest[..at].trim())?;
        let expected = quoted(rest[at + 2..].trim())?;
        return match subject {
            Subject::Exists(_) => None,
            subject => Some(Term { negated, subject, compared: Some((equal, expected)) }),
        };
    }
    match subject(rest)? {
        // A key of the matrix always has a value.
        Subject::Matrix(_) => None,
        subject => Some(Term { negated, subject, compared: None }),
    }
}

fn subject(text: &str) -> Option<Subject<'_>> {
    if let Some(name) = text.strip_prefix(PREFIX) {
        return Some(Subject::Variable(name));
    }
    if let Some(key) = text.strip_prefix("matrix.") {
        return is_key(key).then_some(Subject::Matrix(key));
    }
    quoted(text.strip_prefix("exists")?.trim().strip_prefix('(')?.strip_suffix(')')?.trim()).map(Subject::Exists)
}

/// The text between two quotes of one kind.
fn quoted(text: &str) -> Option<&str> {
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote).filter(|text: &&str| !text.contains(quote));
    within('\'').or_else(|| within('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, cell: &Cell) -> (Option<String>, String) {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("there.txt"), "").expect("written");
        let variable = |name: &str| match name {
            "CI" => Some("true".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut mistakes = Mistakes::default();
        let place = Location::start(&directory.path().join("a.toml"), text.to_owned());
        let unmet = unmet(text, &place, cell, &mut Environment::new(&variable), &mut mistakes);
        (unmet, mistakes.messages().collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn terms_are_looked_up_and_joined() {
        let cell = Cell::of(&[("scheme", "w4")]);
        let holds = [
            "env:CI",
            "!env:NONE && !env:EMPTY",
            "env:CI == 'true' && matrix.scheme == \"w4\"",
            "env:NONE != 'true'",
            "env:NONE != 'a==b'",
            "matrix.scheme != 'w8'",
            "exists('there.txt') && !exists( 'gone.txt' )",
            "! exists('gone.txt')",
        ];
        for text in holds {
            assert_eq!(said(text, &cell), (None, String::new()), "{text}");
        }
        let not = [
            ("env:CI == 'false'", "env:CI == 'false'"),
            ("env:CI && env:NONE", "env:NONE"),
            ("matrix.scheme == 'w8'", "matrix.scheme == 'w8'"),
            ("exists('gone.txt')", "exists('gone.txt')"),
            ("!env:CI", "!env:CI"),
        ];
        for (text, term) in not {
            assert_eq!(said(text, &cell), (Some(term.to_owned()), String::new()), "{text}");
        }
        let keys: Vec<&str> = matrix_keys("env:CI && matrix.scheme == 'w8' && matrix.seed != '1'").collect();
        assert_eq!(keys, ["scheme", "seed"]);
    }

    #[test]
    fn what_is_no_condition_is_named() {
        let wrong = [
            "",
            "true",
            "env:CI = 'x'",
            "env:CI == x",
            "matrix.scheme",
            "exists('a') == 'b'",
            "exists(there.txt)",
            "env:CI || env:B",
            "env:CI &&",
            "matrix.a.b == 'c'",
            "env:CI == 'it''s'",
        ];
        for text in wrong {
            let (_, said) = said(text, &Cell::default());
            assert!(!said.is_empty(), "{text}");
        }
        assert!(said("env:MY_TOKEN", &Cell::default()).1.contains("looks like a secret"));
    }
}
