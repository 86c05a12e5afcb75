//! Prepares a template's text for minijinja, which charges fuel for instructions and for the bytes they make, but lets
//! a few of them make containers of any size at no cost. The lexer here follows minijinja's and changes these things:
//!
//! | in the template | becomes | why |
//! |---|---|---|
//! | `{% generation %}`, `{% endgeneration %}` | `{% if true %}`, `{% endif %}` | transformers' tag around a body |
//! | `[a]`, `{'a': b}`, `(a, b)` | `([a]\|slmc_keep)` … | a container that holds another twice doubles it |
//! | `{% set a = b %}`, `{% set a.b = c %}` | `(b)\|slmc_keep`, `(c)\|slmc_store` | so do bare tuples; namespaces |
//! | `a + b` | `a\|slmc_term + b\|slmc_term` | lists are added lazily, at any length |
//! | `a * b` | `a\|slmc_factor * b\|slmc_factor` | and so they are repeated |
//! | `a ~ b ~ c` | `slmc_concat(a , b , c)` | floats, alone and in containers, are written otherwise by Python |
//!
//! The filters ([`super::guards`]) return their argument or an error, so that a template that passes renders the same
//! text. Filters are added on the line of their value, so line numbers stay. Also refused are tags longer than
//! [`MAX_TAG_TOKENS`], on which minijinja's compiler would recurse, and two things on which minijinja would panic: a
//! `break` or `continue` that leaves a block other than `if`, and `loop.cycle` without arguments.

mod lexer;

use lexer::{Kind, Lexer, Piece, Token};
use std::borrow::Cow;

/// Most tokens between `{%` and `%}` or `{{` and `}}`: twenty times the longest tag of templates in use.
pub(super) const MAX_TAG_TOKENS: usize = 1024;

/// Why a template is refused before minijinja sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceError {
    /// From 1.
    pub(super) line: usize,
    pub(super) message: String,
}

/// The template as minijinja is to read it; with `marks`, `slmc_generation` is called with what a template marks. Line ends become `\n`, as Jinja's lexer makes them.
///
/// # Errors
/// A tag that is too long, an unclosed one, or one on which minijinja would panic.
pub(super) fn prepare(template: &str, marks: bool) -> Result<String, SourceError> {
    let unix = if template.contains('\r') {
        Cow::Owned(template.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(template)
    };
    let source = unix.as_ref();
    let mut prepared = String::with_capacity(source.len() + source.len() / 4);
    let mut lexer = Lexer::new(source);
    let mut blocks: Vec<&str> = Vec::new();
    while let Some(piece) = lexer.next_piece() {
        match piece.map_err(|message| error(source, lexer.offset(), message))? {
            Piece::Text(text) => prepared.push_str(text),
            Piece::Tag { text, start, tokens } => {
                if tokens.len() > MAX_TAG_TOKENS {
                    let message = format!("a tag of more than {MAX_TAG_TOKENS} tokens; split it with `set`");
                    return Err(error(source, start, message));
                }
                if text.starts_with("{%") {
                    track(&mut blocks, source, &tokens).map_err(|message| error(source, start, message))?;
                }
                let spelled = |part: &[Token; 4]| part.map(|token| token.text(source));
                if tokens.array_windows().map(spelled).any(|part| matches!(part, [".", "cycle", "(", ")" | "*" | "**"]))
                {
                    return Err(error(source, start, "`cycle` without arguments; name the values to cycle through"));
                }
                guard(&mut prepared, source, text, start, &tokens, marks);
            }
        }
    }
    Ok(prepared)
}

fn error(source: &str, offset: usize, message: impl Into<String>) -> SourceError {
    let line = 1 + source.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count();
    SourceError { line, message: message.into() }
}

/// Follows which blocks are open, and refuses a `break` or `continue` that leaves one other than `if`.
fn track<'a>(blocks: &mut Vec<&'a str>, source: &'a str, tokens: &[Token]) -> Result<(), String> {
    let Some(name) = tokens.first().map(|token| token.text(source)) else { return Ok(()) };
    match name {
        "set" if assignment(source, tokens).is_some() => {}
        "for" | "if" | "with" | "macro" | "call" | "filter" | "set" | "autoescape" | "generation" => blocks.push(name),
        "else" => {
            if let Some(block) = blocks.last_mut().filter(|block| **block == "for") {
                *block = name;
            }
        }
        "break" | "continue" => {
            let inner = blocks.iter().rev().take_while(|&&block| block != "for");
            if let Some(block) = inner.copied().find(|block| !["if", "generation"].contains(block)) {
                return Err(format!("`{name}` inside `{block}`, which would leave the block open; move it outside"));
            }
        }
        _ if name.starts_with("end") => drop(blocks.pop()),
        _ => {}
    }
    Ok(())
}

/// Where the `=` of a `set` is; without one it is a block, whose value is the text up to its `endset`.
fn assignment(source: &str, tokens: &[Token]) -> Option<usize> {
    let mut depth = 0;
    tokens.iter().position(|token| {
        match token.text(source) {
            "(" | "[" | "{" if token.kind == Kind::Symbol => depth += 1,
            ")" | "]" | "}" if token.kind == Kind::Symbol => depth -= 1,
            _ => {}
        }
        depth == 0 && token.is("=", source)
    })
}

/// The texts that are added before and after a token, or take its place.
#[derive(Clone, Default)]
struct Edit {
    before: String,
    after: String,
    /// In the place of the token.
    instead: Option<&'static str>,
}

/// Appends one tag with its guards.
fn guard(prepared: &mut String, source: &str, text: &str, start: usize, tokens: &[Token], marks: bool) {
    let mut edits = vec![Edit::default(); tokens.len()];
    let partners = partners(source, tokens);
    // The name of a statement is no part of an expression.
    let begin = expression_start(source, tokens).max(usize::from(text.starts_with("{%")));
    guard_containers(&mut edits, source, tokens, &partners, begin);
    guard_operators(&mut edits, source, tokens, &partners, begin);
    replace_concatenations(&mut edits, source, tokens, &partners, begin);
    guard_assignment(&mut edits, source, tokens);

    let mut position = start;
    for (token, edit) in tokens.iter().zip(&edits) {
        prepared.push_str(source.get(position..token.start).unwrap_or_default());
        prepared.push_str(&edit.before);
        prepared.push_str(match (token.text(source), tokens.len(), text.starts_with("{%"), marks) {
            ("generation", 1, true, false) => "if true",
            ("endgeneration", 1, true, false) => "endif",
            ("generation", 1, true, true) => "call slmc_generation()",
            ("endgeneration", 1, true, true) => "endcall",
            (text, ..) => edit.instead.unwrap_or(text),
        });
        prepared.push_str(&edit.after);
        position = token.end;
    }
    prepared.push_str(source.get(position..start + text.len()).unwrap_or_default());
}

/// For every bracket the index of the one that closes or opens it; for other tokens and unmatched brackets their own.
fn partners(source: &str, tokens: &[Token]) -> Vec<usize> {
    let mut partners: Vec<usize> = (0..tokens.len()).collect();
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.text(source) {
            "(" | "[" | "{" if token.kind == Kind::Symbol => open.push(index),
            ")" | "]" | "}" if token.kind == Kind::Symbol => {
                if let Some(opening) = open.pop() {
                    partners[opening] = index;
                    partners[index] = opening;
                }
            }
            _ => {}
        }
    }
    partners
}

/// The first token that belongs to an expression, which the targets of `for` and `set` do not.
fn expression_start(source: &str, tokens: &[Token]) -> usize {
    let find = |symbol: &str| tokens.iter().position(|token| token.is(symbol, source));
    match tokens.first().map(|token| token.text(source)) {
        Some("for") => find("in").map_or(tokens.len(), |at| at + 1),
        Some("set") => assignment(source, tokens).map_or_else(|| find("|").unwrap_or(tokens.len()), |at| at + 1),
        _ => 0,
    }
}

/// Names that cannot be operands.
const OPERATORS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "elif", "set", "with", "do", "recursive", "for"];

/// Whether an operand of an operator can end with this token.
fn ends_operand(source: &str, token: &Token) -> bool {
    match token.kind {
        Kind::Name => !OPERATORS.contains(&token.text(source)),
        Kind::Number | Kind::Text => true,
        Kind::Symbol => matches!(token.text(source), ")" | "]" | "}"),
    }
}

/// Literals of lists, dictionaries and tuples that hold more than constants.
fn guard_containers(edits: &mut [Edit], source: &str, tokens: &[Token], partners: &[usize], begin: usize) {
    for (index, token) in tokens.iter().enumerate().skip(begin) {
        let close = partners[index];
        if token.kind != Kind::Symbol || close <= index {
            continue;
        }
        let follows_operand = index > 0 && ends_operand(source, &tokens[index - 1]);
        let target = tokens.get(close + 1).is_some_and(|token| token.is("=", source));
        let inside = &tokens[index + 1..close];
        let literal = match token.text(source) {
            "{" => true,
            "[" => !follows_operand,
            _ => !follows_operand && !target && inside.iter().any(|token| token.is(",", source)),
        };
        let constant = inside
            .iter()
            .all(|token| matches!(token.kind, Kind::Number | Kind::Text) || [",", ":"].contains(&token.text(source)));
        if literal && !constant {
            edits[index].before.push('(');
            edits[close].after.push_str("|slmc_keep)");
        }
    }
}

/// Both operands of `+` and `*`. `*` and `**` before an argument spread it; `-` or `+` at a tag's edge is not a token.
fn guard_operators(edits: &mut [Edit], source: &str, tokens: &[Token], partners: &[usize], begin: usize) {
    for (index, token) in tokens.iter().enumerate().skip(begin.max(1)) {
        let filter = match token.text(source) {
            "*" => "|slmc_factor",
            "+" => "|slmc_term",
            _ => continue,
        };
        if token.kind != Kind::Symbol || !ends_operand(source, &tokens[index - 1]) {
            continue;
        }
        let right = operand_end(source, tokens, partners, index + 1);
        for operand in [Some(index - 1), right].into_iter().flatten() {
            if !edits[operand].after.ends_with(filter) {
                edits[operand].after.push_str(filter);
            }
        }
    }
}

/// The last token of the operand that begins at `start`: signs, a value, then attributes, subscripts, calls and
/// filters. `None` where a test follows, whose result is a boolean, or where no value stands.
fn operand_end(source: &str, tokens: &[Token], partners: &[usize], start: usize) -> Option<usize> {
    let is = |index: usize, symbol: &str| tokens.get(index).is_some_and(|token: &Token| token.is(symbol, source));
    let mut index = start;
    while is(index, "-") {
        index += 1;
    }
    let mut end = match tokens.get(index)?.kind {
        Kind::Symbol if partners[index] > index => partners[index],
        Kind::Symbol => return None,
        Kind::Text => {
            while tokens.get(index + 1).is_some_and(|token| token.kind == Kind::Text) {
                index += 1;
            }
            index
        }
        Kind::Name | Kind::Number => index,
    };
    loop {
        let next = end + 1;
        if is(next, ".") || is(next, "|") {
            tokens.get(next + 1)?;
            end = next + 1;
        } else if (is(next, "(") || is(next, "[")) && partners[next] > next {
            end = partners[next];
        } else if is(next, "is") {
            return None;
        } else {
            return Some(end);
        }
    }
}

/// Rows of operands with `~` between them.
fn replace_concatenations(edits: &mut [Edit], source: &str, tokens: &[Token], partners: &[usize], begin: usize) {
    for index in begin.max(1)..tokens.len() {
        if !tokens[index].is("~", source) || edits[index].instead.is_some() {
            continue;
        }
        let (mut start, mut end) = (index, index + 1);
        while start > begin && (partners[start - 1] < start - 1 || !is_looser(source, tokens, start - 1)) {
            start = partners[start - 1].min(start - 1);
        }
        while end < tokens.len() && (partners[end] > end || !is_looser(source, tokens, end)) {
            end = partners[end].max(end) + 1;
        }
        // Without an operand, minijinja refuses it.
        if start == index || end == index + 1 {
            continue;
        }
        let mut at = start;
        while at < end {
            if tokens[at].is("~", source) {
                edits[at].instead = Some(",");
            }
            at = partners[at].max(at) + 1;
        }
        edits[start].before.insert_str(0, "slmc_concat(");
        edits[end - 1].after.push(')');
    }
}

/// Whether a token other than a whole pair of brackets ends a row of operands with `~` between them. Tests are parts of
/// operands: their names, which can be those of operators, and what follows them.
fn is_looser(source: &str, tokens: &[Token], index: usize) -> bool {
    let is = |at: Option<usize>, symbol: &str| at.is_some_and(|at| tokens[at].is(symbol, source));
    let back = |count: usize| index.checked_sub(count);
    let is_test = |count: usize| is(back(count), "is") || is(back(count), "not") && is(back(count + 1), "is");
    let follows_operand = back(1).is_some_and(|before| ends_operand(source, &tokens[before])) && !is_test(2);
    let text = tokens[index].text(source);
    match tokens[index].kind {
        Kind::Number | Kind::Text => false,
        Kind::Name => OPERATORS.contains(&text) && text != "is" && !is(back(1), ".") && !is_test(1),
        Kind::Symbol => match text {
            "+" | "-" => follows_operand,
            "*" | "**" => !follows_operand,
            "/" | "//" | "%" | "." | "|" | "~" => false,
            _ => true,
        },
    }
}

/// The value of a `set`. A dotted target is a namespace, which must not come to hold another.
fn guard_assignment(edits: &mut [Edit], source: &str, tokens: &[Token]) {
    if !tokens.first().is_some_and(|token| token.is("set", source)) {
        return;
    }
    let equals = assignment(source, tokens);
    let targets = &tokens[..equals.unwrap_or(expression_start(source, tokens))];
    let filter = if targets.iter().any(|token| token.is(".", source)) { "|slmc_store" } else { "|slmc_keep" };
    let Some(last) = edits.len().checked_sub(1).filter(|&last| last > targets.len() - 1) else { return };
    if let Some(first) = equals.map(|at| at + 1).filter(|&first| first <= last) {
        edits[first].before.insert(0, '(');
        edits[last].after.push(')');
    }
    edits[last].after.push_str(filter);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_stand_where_values_are_made() {
        for (source, expected) in [
            ("{{ a }}", "{{ a }}"),
            ("{{ a + b.c[0](x)|f(1) }}", "{{ a|slmc_term + b.c[0](x)|f(1)|slmc_term }}"),
            ("{{ a + -b is string }}", "{{ a|slmc_term + -b is string }}"),
            ("{{ 'x' 'y' * n ~ m }}", "{{ slmc_concat('x' 'y'|slmc_factor * n|slmc_factor , m) }}"),
            ("{{ a ~ b.c[d ~ e](f)|g ~ 'h' }}", "{{ slmc_concat(a , b.c[slmc_concat(d , e)](f)|g , 'h') }}"),
            ("{{ a - -b ~ -c - d ~ e }}", "{{ a - slmc_concat(-b , -c) - slmc_concat(d , e) }}"),
            ("{{ a + b ~ c + d }}", "{{ a|slmc_term + slmc_concat(b|slmc_term , c|slmc_term) + d|slmc_term }}"),
            ("{{ a / b % c // d ~ e ** f == g }}", "{{ slmc_concat(a / b % c // d , e ** f) == g }}"),
            (
                "{{ not a ~ b if c ~ d else e ~ f }}",
                "{{ not slmc_concat(a , b) if slmc_concat(c , d) else slmc_concat(e , f) }}",
            ),
            ("{{ a is not in [b] ~ c is d }}", "{{ slmc_concat(a is not in ([b]|slmc_keep) , c is d) }}"),
            (
                "{{ a is eq -1 ~ b not in c.not ~ d }}",
                "{{ slmc_concat(a is eq -1 , b) not in slmc_concat(c.not , d) }}",
            ),
            (
                "{{ f(*a ~ b, c=d ~ e) ~ {'a' ~ b: 1} }}",
                "{{ slmc_concat(f(*slmc_concat(a , b), c=slmc_concat(d , e)) , ({slmc_concat('a' , b): 1}|slmc_keep)) }}",
            ),
            ("{% set a = [b] ~ c -%}", "{% set a = (slmc_concat(([b]|slmc_keep) , c))|slmc_keep -%}"),
            ("{% for a in b ~ c if d ~ e %}", "{% for a in slmc_concat(b , c) if slmc_concat(d , e) %}"),
            (
                "{% elif a ~ b %}{% if (a ~ b) ~ c %}",
                "{% elif slmc_concat(a , b) %}{% if slmc_concat((slmc_concat(a , b)) , c) %}",
            ),
            ("{{ ~ a }}{{ a ~ }}{{ 'a ~ b' }}", "{{ ~ a }}{{ a ~ }}{{ 'a ~ b' }}"),
            ("{{ a + b + c }}", "{{ a|slmc_term + b|slmc_term + c|slmc_term }}"),
            ("{{ f(*a, **b) }}", "{{ f(*a, **b) }}"),
            ("{{ a[1:] + [b] }}", "{{ a[1:]|slmc_term + ([b]|slmc_keep)|slmc_term }}"),
            ("{{ [1, 'a'] }} {{ {'a': 1} }}", "{{ [1, 'a'] }} {{ {'a': 1} }}"),
            ("{{ {'a': {'b': c}} }}", "{{ ({'a': ({'b': c}|slmc_keep)}|slmc_keep) }}"),
            ("{% if x in [y] %}", "{% if x in ([y]|slmc_keep) %}"),
            ("{% if (a, b) == (c) %}", "{% if ((a, b)|slmc_keep) == (c) %}"),
            ("{% for a, b in c[0] %}", "{% for a, b in c[0] %}"),
            ("{% for (a, b) in [c] %}", "{% for (a, b) in ([c]|slmc_keep) %}"),
            ("{% call(a, b=(c, d)) f([e]) %}", "{% call(a, b=((c, d)|slmc_keep)) f(([e]|slmc_keep)) %}"),
            ("{% macro f(a, b=[c]) %}", "{% macro f(a, b=([c]|slmc_keep)) %}"),
            ("{%- set a = b -%}", "{%- set a = (b)|slmc_keep -%}"),
            ("{% set a.b = a, a %}", "{% set a.b = (a, a)|slmc_store %}"),
            ("{% set a %}", "{% set a %}"),
            ("{% set a.b | f([c], d=1) %}", "{% set a.b | f(([c]|slmc_keep), d=1)|slmc_store %}"),
            ("{% with a = [b], (c, d) = e %}", "{% with a = ([b]|slmc_keep), (c, d) = e %}"),
            ("{{ 'a + [b]' }}", "{{ 'a + [b]' }}"),
            ("{%+ if a %}{{- b +}}", "{%+ if a %}{{- b +}}"),
            ("{# a + b #}{% raw %}{{ a + b }}{% endraw %}", "{# a + b #}{% raw %}{{ a + b }}{% endraw %}"),
            ("{%- generation -%}x{%+ endgeneration %}", "{%- if true -%}x{%+ endif %}"),
            ("{{ generation }}", "{{ generation }}"),
            ("a\r\nb\rc", "a\nb\nc"),
        ] {
            assert_eq!(prepare(source, false).as_deref(), Ok(expected), "{source}");
        }
    }

    #[test]
    fn refusals_name_the_line() {
        let long = format!("a\n{{{{ {} }}}}", vec!["a"; MAX_TAG_TOKENS].join("+"));
        for (source, line, part) in [
            (long.as_str(), 2, "tokens"),
            ("\n\n{% for a in b %}\n{% with %}{% continue %}{% endwith %}{% endfor %}", 4, "inside `with`"),
            ("{% for a in b %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", 1, "inside `macro`"),
            ("{% for a in b %}{% else %}\n{% break %}{% endfor %}", 2, "inside `else`"),
            ("{{ loop.cycle(*a) }}", 1, "`cycle`"),
            ("\n{{ 'a }}", 2, "quote"),
            ("\n\n{# a", 3, "comment"),
            ("{% raw %}", 1, "endraw"),
            ("a\n{{ ( }}", 2, "without its end"),
            ("{{ \n é }}", 2, "character"),
        ] {
            let error = prepare(source, false).expect_err(source);
            assert_eq!(error.line, line, "{source}");
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert!(prepare("{% for a in b %}{% if c %}{% break %}{% endif %}{% endfor %}", false).is_ok());
    }
}
