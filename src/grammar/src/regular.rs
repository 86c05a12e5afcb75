//! Regular expressions: the syntax of the `regex` crate, whole texts. Positions (`^`, `$`) may stand at the ends only, and
//! word boundaries nowhere: they look at what the automaton has not read.
//!
//! The `pattern` of a JSON schema is found anywhere in a string, and has ECMAScript's meaning of `.`, `\d`, `\w`, `\s` and of
//! classes.

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
    let hir = parse(&as_ecma(pattern)?, nesting)?;
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

/// The characters of ECMAScript's `\s`, for a class.
const SPACE: &str = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";

/// Writes an expression of ECMAScript for the parser: what means something else there, and what is text in one of both and
/// not in the other.
fn as_ecma(pattern: &str) -> core::result::Result<String, String> {
    let (mut written, mut rest) = (String::new(), pattern);
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        rest = match character {
            '\\' => {
                let (escaped, after) = escaped(after, false)?;
                written.push_str(&escaped.text);
                after
            }
            '(' => {
                if let Some(inside) = after.strip_prefix('?').filter(|inside| !is_ecma_group(inside)) {
                    let what: String = inside.chars().take(1).collect();
                    return Err(format!(
                        "`(?{what}` begins no group of ECMAScript; its groups are `(…)`, `(?:…)` and `(?<name>…)`"
                    ));
                }
                written.push('(');
                after
            }
            '[' => class(&mut written, after)?,
            '.' => {
                written.push_str("[^\\n\\r\\u2028\\u2029]");
                after
            }
            '{' => {
                let inside = after.find('}').map_or(after, |end| &after[..end]);
                if !is_count(inside) {
                    return Err(format!("`{{{inside}}}` is no number of repetitions; write `\\{{` for the character"));
                }
                written.push('{');
                after
            }
            other => {
                written.push(other);
                after
            }
        };
    }
    Ok(written)
}

/// What may stand after `(?`; looks around are named by the parser.
fn is_ecma_group(inside: &str) -> bool {
    inside.starts_with([':', '=', '!', '<'])
}

/// `2`, `2,` or `2,5`: the parser knows further forms, which are text in ECMAScript.
fn is_count(text: &str) -> bool {
    let (least, most) = text.split_once(',').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// One character or set of them in a class, as the parser reads it.
struct Atom {
    text: String,
    is_set: bool,
}

/// Writes a class, of which `pattern` is what stands after its `[`; what stands after its `]`.
fn class<'p>(written: &mut String, pattern: &'p str) -> core::result::Result<&'p str, String> {
    let (open, mut rest) = pattern.strip_prefix('^').map_or(("[", pattern), |rest| ("[^", rest));
    if rest.starts_with(']') {
        let problem = "`[]` has no character in ECMAScript and `[^]` every one; write `[\\]…]` for a class with `]`, and \
                       `[\\s\\S]` for any character";
        return Err(problem.into());
    }
    written.push_str(open);
    while let Some((first, after)) = atom(rest)? {
        written.push_str(&first.text);
        rest = after;
        if let Some((last, after)) = after.strip_prefix('-').map(atom).transpose()?.flatten() {
            // Beside a set of characters `-` is one of its own.
            written.push_str(if first.is_set || last.is_set { "\\-" } else { "-" });
            written.push_str(&last.text);
            rest = after;
        }
    }
    // Without its end, the parser refuses it.
    let Some(after) = rest.strip_prefix(']') else { return Ok(rest) };
    written.push(']');
    Ok(after)
}

/// The atom that the rest of a class begins with, and what follows it; `None` at the end of the class.
fn atom(rest: &str) -> core::result::Result<Option<(Atom, &str)>, String> {
    let Some(character) = rest.chars().next().filter(|&character| character != ']') else { return Ok(None) };
    let after = &rest[character.len_utf8()..];
    let text = match character {
        '\\' => return escaped(after, true).map(Some),
        // Among them operators on classes that ECMAScript does not have.
        '[' | '^' | '-' | '&' | '~' => format!("\\{character}"),
        other => other.into(),
    };
    Ok(Some((Atom { text, is_set: false }, after)))
}

/// What a `\` begins, of which `rest` is what stands after it, and what follows.
fn escaped(rest: &str, in_class: bool) -> core::result::Result<(Atom, &str), String> {
    let Some(character) = rest.chars().next() else { return Ok((Atom { text: "\\".into(), is_set: false }, rest)) };
    let after = &rest[character.len_utf8()..];
    let set = |text: String| (Atom { text, is_set: true }, after);
    // What other dialects have: another thing there, or a letter.
    let of_others = matches!(character, 'A' | 'E' | 'G' | 'Q' | 'U' | 'Z' | 'a' | 'z' | '<' | '>');
    if of_others || character == 'x' && after.starts_with('{') {
        let more = if character == 'x' { "{" } else { "" };
        return Err(format!(
            "`\\{character}{more}` has no meaning in ECMAScript; write the character itself, or `\\u{{…}}` by its number"
        ));
    }
    Ok(match character {
        'd' => set("[0-9]".into()),
        'D' => set("[^0-9]".into()),
        'w' => set("[0-9A-Za-z_]".into()),
        'W' => set("[^0-9A-Za-z_]".into()),
        's' => set(format!("[{SPACE}]")),
        'S' => set(format!("[^{SPACE}]")),
        'b' if in_class => (Atom { text: "\\x08".into(), is_set: false }, after),
        _ => {
            let digits = |most: usize| after.bytes().take(most).take_while(u8::is_ascii_hexdigit).count();
            let more = match (character, after.starts_with('{')) {
                ('x' | 'u' | 'p' | 'P', true) => after.find('}').map_or(0, |end| end + 1),
                ('x', false) => digits(2),
                ('u', false) => digits(4),
                _ => 0,
            };
            let text = format!("\\{character}{}", &after[..more]);
            (Atom { text, is_set: matches!(character, 'p' | 'P') }, &after[more..])
        }
    })
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
