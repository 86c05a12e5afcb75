//! Methods of texts that `minijinja-contrib` does not have, and those that are different in Python.

use super::BYTES_PER_FUEL;
use minijinja::value::{Kwargs, StringInput, from_args};
use minijinja::{Error, ErrorKind, State, Value, filters};

/// Calls a method; `None` where it is none of these.
pub(super) fn method(state: &State, text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let result = match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(arguments)?;
            let goes = |character: char| match characters {
                Some(characters) => characters.contains(character),
                None => is_space(character),
            };
            Value::from(match name {
                "strip" => text.trim_matches(goes),
                "lstrip" => text.trim_start_matches(goes),
                _ => text.trim_end_matches(goes),
            })
        }
        "isspace" => {
            let () = from_args(arguments)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        "title" => {
            let () = from_args(arguments)?;
            Value::from(title(state, text)?)
        }
        "istitle" => {
            let () = from_args(arguments)?;
            Value::from(is_title(text))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(arguments)?;
            let missing = width.saturating_sub(text.chars().count());
            state.consume_fuel((missing / BYTES_PER_FUEL) as u64)?;
            let sign = if text.starts_with(['+', '-']) { 1 } else { 0 };
            Value::from(format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..]))
        }
        "split" => split(state, text, arguments)?,
        "splitlines" => {
            let (keeps, named): (Option<bool>, Kwargs) = from_args(arguments)?;
            let keeps = keeps.map_or_else(|| named.get::<Option<bool>>("keepends"), |keeps| Ok(Some(keeps)))?;
            named.assert_all_used()?;
            state.consume_fuel(text.chars().filter(|&character| ends_line(character)).count() as u64)?;
            lines(text, keeps.unwrap_or(false))
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// Python's white space: Unicode's, and four separators that are control characters.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

fn ends_line(character: char) -> bool {
    matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn lines(text: &str, keeps: bool) -> Value {
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let length = rest.find(ends_line).unwrap_or(rest.len());
        let mut end = rest[length..].chars().next().map_or(0, char::len_utf8);
        if rest[length..].starts_with("\r\n") {
            end = 2;
        }
        lines.push(Value::from(&rest[..if keeps { length + end } else { length }]));
        rest = &rest[length + end..];
    }
    Value::from(lines)
}

fn split(state: &State, text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, most, named): (Option<&str>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.map_or_else(|| named.get::<Option<&str>>("sep"), |separator| Ok(Some(separator)))?;
    let most = most.map_or_else(|| named.get::<Option<i64>>("maxsplit"), |most| Ok(Some(most)))?;
    named.assert_all_used()?;
    if separator == Some("") {
        return Err(Error::new(ErrorKind::InvalidOperation, "`split` at an empty separator"));
    }
    // A negative number is no bound.
    let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let count = match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.chars().filter(|&character| is_space(character)).count(),
    };
    state.consume_fuel(count as u64)?;
    let Some(separator) = separator else { return Ok(words(text, most)) };
    Ok(text.splitn(most.saturating_add(1), separator).map(Value::from).collect())
}

/// What stands between white space; after so many parts the rest, with the white space at its end.
fn words(text: &str, most: usize) -> Value {
    let (mut words, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
    while !rest.is_empty() {
        let length = if words.len() == most { rest.len() } else { rest.find(is_space).unwrap_or(rest.len()) };
        words.push(Value::from(&rest[..length]));
        rest = rest[length..].trim_start_matches(is_space);
    }
    Value::from(words)
}

/// Characters that have an upper and a lower case.
fn is_cased(character: char) -> bool {
    character.is_lowercase() || is_capital(character)
}

/// Upper case, or the first letter of two in one character, as `ǅ`.
fn is_capital(character: char) -> bool {
    let title = matches!(character, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | 'ᾈ'..='ᾏ' | 'ᾘ'..='ᾟ' | 'ᾨ'..='ᾯ' | 'ᾼ' | 'ῌ' | 'ῼ');
    title || character.is_uppercase()
}

/// Every run of letters with a capital at its beginning alone. Jinja's filter of this name has other words.
fn title(state: &State, text: &str) -> Result<String, Error> {
    let (mut titled, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let others = rest.find(is_cased).unwrap_or(rest.len());
        titled.push_str(&rest[..others]);
        let word = &rest[others..];
        let length = word.find(|character| !is_cased(character)).unwrap_or(word.len());
        let capitalized = filters::capitalize(StringInput::new(state, &Value::from(&word[..length]))?);
        titled.push_str(capitalized.as_str().unwrap_or_default());
        rest = &word[length..];
    }
    Ok(titled)
}

fn is_title(text: &str) -> bool {
    let (mut found, mut inside) = (false, false);
    for character in text.chars() {
        let cased = is_cased(character);
        if cased && is_capital(character) == inside {
            return false;
        }
        (found, inside) = (found || cased, cased);
    }
    found
}
