//! Regular expressions: the syntax of the `regex` crate, whole texts. Positions (`^`, `$`) may stand at the ends only, and
//! word boundaries nowhere: they look at what the automaton has not read.
//!
//! The `pattern` of a JSON schema is found anywhere in a string, and has ECMAScript's meaning of `.`, `\d` and `\w`.

use crate::characters::Alphabet;
use crate::error::{GrammarError, Result};
use crate::syntax::Node;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look};
use std::rc::Rc;

/// The whole text matches the expression.
pub(crate) fn whole(pattern: &str, nesting: usize) -> Result<Node> {
    let refuse = |problem| GrammarError::Pattern { pattern: pattern.into(), problem };
    let hir = parse(pattern, nesting).map_err(refuse)?;
    translate(&hir, Alphabet::Plain, Edge::Text, Edge::Text).map_err(|problem| refuse(problem.into()))
}

/// The contents of JSON strings in which the expression matches somewhere.
pub(crate) fn anywhere(pattern: &str, nesting: usize) -> core::result::Result<Node, String> {
    let hir = parse(&as_ecma(pattern), nesting)?;
    translate(&hir, Alphabet::Json, Edge::Any, Edge::Any).map_err(str::to_owned)
}

fn parse(pattern: &str, nesting: usize) -> core::result::Result<Hir, String> {
    let limit = u32::try_from(nesting).unwrap_or(u32::MAX);
    let parsed = ParserBuilder::new().nest_limit(limit).build().parse(pattern);
    parsed.map_err(|error| match error {
        regex_syntax::Error::Parse(error) => format!("{} at byte {}", error.kind(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => format!("{} at byte {}", error.kind(), error.span().start.offset),
        other => other.to_string(),
    })
}

/// Writes the parts of an expression that mean something else in ECMAScript for the parser.
fn as_ecma(pattern: &str) -> String {
    let (mut written, mut in_class, mut characters) = (String::new(), false, pattern.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('d') => written.push_str("[0-9]"),
                Some('D') => written.push_str("[^0-9]"),
                Some('w') => written.push_str("[0-9A-Za-z_]"),
                Some('W') => written.push_str("[^0-9A-Za-z_]"),
                Some(other) => written.extend(['\\', other]),
                None => written.push('\\'),
            },
            '.' if !in_class => written.push_str("[^\\n\\r\\u2028\\u2029]"),
            '[' if in_class => written.push_str("\\["),
            '[' => {
                in_class = true;
                written.push('[');
            }
            ']' => {
                in_class = false;
                written.push(']');
            }
            // Operators on classes that ECMAScript does not have.
            '&' | '~' if in_class => written.extend(['\\', character]),
            other => written.push(other),
        }
    }
    written
}

/// What stands before or after an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Nothing.
    Text,
    /// Any characters, unless the expression asks for the edge of the text.
    Any,
    /// Something that was or will be matched.
    Inside,
}

fn translate(hir: &Hir, alphabet: Alphabet, start: Edge, end: Edge) -> core::result::Result<Node, &'static str> {
    let any = |edge: Edge| match edge {
        Edge::Any => Node::Repeat(Rc::new(alphabet.any()), 0, None),
        Edge::Text | Edge::Inside => Node::empty(),
    };
    let inner = match hir.kind() {
        HirKind::Alternation(parts) => {
            let parts = parts.iter().map(|part| translate(part, alphabet, start, end));
            return Ok(Node::Either(parts.collect::<core::result::Result<_, _>>()?));
        }
        HirKind::Capture(capture) => return translate(&capture.sub, alphabet, start, end),
        HirKind::Concat(parts) => return sequence(parts, alphabet, start, end),
        HirKind::Look(Look::Start) if start != Edge::Inside => return Ok(any(end)),
        HirKind::Look(Look::End) if end != Edge::Inside => return Ok(any(start)),
        HirKind::Look(Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::StartCRLF | Look::EndCRLF) => {
            return Err("^ and $ may only stand at its ends");
        }
        HirKind::Look(_) => return Err("an automaton has no word boundaries"),
        HirKind::Empty => Node::empty(),
        HirKind::Literal(literal) => {
            alphabet.text(core::str::from_utf8(&literal.0).map_err(|_| "it matches bytes that are not UTF-8")?)
        }
        HirKind::Class(Class::Unicode(class)) => {
            let ranges: Vec<_> = class.iter().map(|range| (range.start(), range.end())).collect();
            alphabet.class(&ranges)
        }
        HirKind::Class(Class::Bytes(class)) => {
            if !class.is_ascii() {
                return Err("it matches bytes that are not UTF-8");
            }
            let ranges: Vec<_> = class.iter().map(|range| (range.start().into(), range.end().into())).collect();
            alphabet.class(&ranges)
        }
        HirKind::Repetition(repetition) => {
            let inner = translate(&repetition.sub, alphabet, Edge::Inside, Edge::Inside)?;
            Node::Repeat(Rc::new(inner), repetition.min, repetition.max)
        }
    };
    Ok(Node::Sequence(vec![any(start), inner, any(end)]))
}

/// Parts in a row: positions at the ends of the row fix it to the edge of the text; the first and the last part have what
/// stands before and after the row.
fn sequence(
    mut parts: &[Hir],
    alphabet: Alphabet,
    mut start: Edge,
    mut end: Edge,
) -> core::result::Result<Node, &'static str> {
    let is = |part: &Hir, look| *part.kind() == HirKind::Look(look);
    while let [first, rest @ ..] = parts
        && start != Edge::Inside
        && is(first, Look::Start)
    {
        (parts, start) = (rest, Edge::Text);
    }
    while let [rest @ .., last] = parts
        && end != Edge::Inside
        && is(last, Look::End)
    {
        (parts, end) = (rest, Edge::Text);
    }
    let count = parts.len();
    let part = |(index, part): (usize, &Hir)| {
        let start = if index == 0 { start } else { Edge::Inside };
        translate(part, alphabet, start, if index + 1 == count { end } else { Edge::Inside })
    };
    match parts {
        [] => translate(&Hir::empty(), alphabet, start, end),
        parts => Ok(Node::Sequence(parts.iter().enumerate().map(part).collect::<core::result::Result<_, _>>()?)),
    }
}
