//! Values that Python writes otherwise than minijinja: floats, what holds some, texts with characters that are not
//! shown, and JSON as `json.dumps` makes it. transformers gives templates a `tojson` that is `json.dumps` with
//! `ensure_ascii=False`: separators `, ` and `: `, keys in their order, and none of the HTML escapes of Jinja's own.

use super::guards;
use minijinja::value::{Kwargs, ObjectRepr, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

/// Most containers within each other.
const MAX_DEPTH: usize = 200;
/// Longest indentation of a level, in bytes.
const MAX_INDENT_BYTES: usize = 64;
/// JSON bytes that cost one unit of fuel; the engine charges for the text again.
const BYTES_PER_FUEL: usize = 16;
/// Bytes that one unit of fuel pays for in minijinja.
const BYTES_PER_ENGINE_FUEL: u64 = 64;

/// `repr` of a float: the shortest digits that give it again, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// `str` of a list, a tuple, a dictionary or a float; `None` for what minijinja writes as Python does.
pub(super) fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    let mut repr = Repr { text: String::new(), limit: affordable_bytes(state) };
    let own = match value.kind() {
        ValueKind::Number => !value.is_integer(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => true,
        _ => false,
    };
    if own {
        repr.write(value, 0)?;
    }
    Ok(own.then_some(repr.text))
}

/// Bytes that the fuel that is left can pay for.
pub(super) fn affordable_bytes(state: &State) -> usize {
    let fuel = state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining);
    fuel.saturating_mul(BYTES_PER_ENGINE_FUEL).try_into().unwrap_or(usize::MAX)
}

/// Writes `repr` of values.
struct Repr {
    text: String,
    limit: usize,
}

impl Repr {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if self.text.len() > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        if depth > MAX_DEPTH {
            return Err(guards::refusal(format!("the text of a value more than {MAX_DEPTH} deep")));
        }
        // The text of these is their own; what they are made of is no list or dictionary.
        const OPAQUE: [&str; 3] = ["::Loop", "::Macro", "::Module"];
        let object = value.as_object().filter(|object| !OPAQUE.iter().any(|name| object.type_name().ends_with(name)));
        match (value.kind(), object) {
            (ValueKind::Undefined, _) => self.text.push_str("Undefined"),
            (ValueKind::String, _) => self.string(value.as_str().unwrap_or_default()),
            (ValueKind::Number, _) if !value.is_integer() => {
                self.text.push_str(&float(f64::try_from(value.clone()).unwrap_or(f64::NAN)));
            }
            (_, Some(object)) => match object.repr() {
                ObjectRepr::Map => {
                    let pairs = object.try_iter_pairs().into_iter().flatten();
                    self.items('{', '}', pairs, |repr, (key, item)| {
                        repr.write(&key, depth + 1)?;
                        repr.text.push_str(": ");
                        repr.write(&item, depth + 1)
                    })?;
                }
                ObjectRepr::Seq | ObjectRepr::Iterable if object.enumerator_len().is_some() => {
                    let is_tuple = value.is_tuple() || object.type_name().ends_with("::GroupTuple");
                    let (open, close) = if is_tuple { ('(', ')') } else { ('[', ']') };
                    let count = self
                        .items(open, close, value.try_iter()?.checked(), |repr, item| repr.write(&item?, depth + 1))?;
                    if is_tuple && count == 1 {
                        self.text.insert(self.text.len() - 1, ',');
                    }
                }
                _ => self.text.push_str(&value.to_string()),
            },
            _ => self.text.push_str(&value.to_string()),
        }
        Ok(())
    }

    /// Items between brackets; how many there are.
    fn items<T>(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        self.text.push(open);
        let mut count = 0;
        for item in items {
            if count > 0 {
                self.text.push_str(", ");
            }
            write(self, item)?;
            count += 1;
        }
        self.text.push(close);
        Ok(count)
    }

    fn string(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.text.push(quote);
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                _ if character == quote => self.text.extend(['\\', quote]),
                _ if is_printable(character) => self.text.push(character),
                _ => {
                    let written = match u32::from(character) {
                        code @ ..=0xff => format!("\\x{code:02x}"),
                        code @ ..=0xffff => format!("\\u{code:04x}"),
                        code => format!("\\U{code:08x}"),
                    };
                    self.text.push_str(&written);
                }
            }
        }
        self.text.push(quote);
    }
}

/// Python's `isprintable`. `escape_debug` escapes characters of the same categories, and such as combine with the one
/// before them only where there is none.
fn is_printable(character: char) -> bool {
    matches!(character, ' '..='~')
        || !character.is_ascii() && String::from_iter(['a', character]).escape_debug().count() == 2
}

/// The filter `tojson`.
pub(super) fn tojson(state: &State, value: &Value, positional: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let named = if kwargs.has(name) { Some(kwargs.get::<Value>(name)?) } else { None };
        Ok(positional.get(index).cloned().or(named).filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?.map(|value| indentation(&value)).transpose()?;
    let (item_separator, key_separator) = separators(argument(2, "separators")?, indent.is_some())?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    if positional.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut json = Json {
        text: String::new(),
        limit: affordable_bytes(state),
        style: Style { ensure_ascii, indent, item_separator, key_separator, sort_keys },
    };
    json.write(value, 0)?;
    state.consume_fuel((json.text.len() / BYTES_PER_FUEL) as u64)?;
    Ok(json.text)
}

/// The indentation of a level, given as a number of spaces or as a text.
fn indentation(value: &Value) -> Result<String, Error> {
    let text = match (value.as_str(), i64::try_from(value.clone())) {
        (Some(text), _) if text.len() <= MAX_INDENT_BYTES => text.to_owned(),
        (None, Ok(spaces)) if spaces <= MAX_INDENT_BYTES as i64 => " ".repeat(spaces.max(0) as usize),
        _ => return Err(refusal(format!("tojson takes an indent of at most {MAX_INDENT_BYTES} spaces or a text"))),
    };
    Ok(text)
}

/// Between items, and between a key and its value.
fn separators(value: Option<Value>, indented: bool) -> Result<(String, String), Error> {
    let Some(value) = value else {
        return Ok((if indented { "," } else { ", " }.to_owned(), ": ".to_owned()));
    };
    let part = |index: usize| {
        let item = value.get_item_by_index(index).ok();
        item.and_then(|item| item.as_str().filter(|text| text.len() <= MAX_INDENT_BYTES).map(str::to_owned))
    };
    match (part(0), part(1)) {
        (Some(item), Some(key)) => Ok((item, key)),
        _ => Err(refusal("tojson takes two texts as separators, such as `(',', ':')`".to_owned())),
    }
}

struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

struct Json {
    text: String,
    limit: usize,
    style: Style,
}

impl Json {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if self.text.len() > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        if depth > MAX_DEPTH {
            return Err(guards::refusal(format!("tojson of a value more than {MAX_DEPTH} deep")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.array(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            ValueKind::Undefined => return Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value")),
            kind => return Err(refusal(format!("tojson of a value of type {kind}"))),
        }
        Ok(())
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(&mut empty, depth);
            self.write(&item, depth + 1)?;
        }
        self.end(']', empty, depth);
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let object = value.as_object().filter(|object| object.repr() == ObjectRepr::Map);
        let mut pairs = Vec::new();
        for (key, item) in object.and_then(|object| object.try_iter_pairs()).into_iter().flatten() {
            let key = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                ValueKind::Number => number(&key),
                kind => return Err(refusal(format!("tojson of a dictionary with a key of type {kind}"))),
            };
            pairs.push((key, item));
        }
        if self.style.sort_keys {
            pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.text.push('{');
        let mut empty = true;
        for (key, item) in pairs {
            self.separate(&mut empty, depth);
            self.string(&key);
            self.text.push_str(&self.style.key_separator);
            self.write(&item, depth + 1)?;
        }
        self.end('}', empty, depth);
        Ok(())
    }

    fn separate(&mut self, empty: &mut bool, depth: usize) {
        if !std::mem::take(empty) {
            self.text.push_str(&self.style.item_separator);
        }
        self.line(depth + 1);
    }

    fn end(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.line(depth);
        }
        self.text.push(bracket);
    }

    /// A new line with the indentation of a level, where there is one.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.text.push('\n');
            for _ in 0..depth {
                self.text.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\u{0}'..='\u{1f}' => self.escape(character),
                '\u{7f}'.. if self.style.ensure_ascii => self.escape(character),
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }

    /// `\uXXXX`, two of them above U+FFFF.
    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(self.text, "\\u{unit:04x}").unwrap_or_default();
        }
    }
}

/// A number as JSON: Python writes floats by `repr`, and those that are not finite by name.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => match number {
            _ if number.is_nan() => "NaN".to_owned(),
            _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
            _ => float(number),
        },
        _ => value.to_string(),
    }
}

fn refusal(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (-1e-5, "-1e-05"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn texts_in_lists_are_written_as_python_does() {
        for (text, expected) in [
            ("a'b", r#""a'b""#),
            ("a'\"b", r#"'a\'"b'"#),
            ("\\ \n\r\t\0\u{7f}", r"'\\ \n\r\t\x00\x7f'"),
            ("é日🤖e\u{301}\u{301}", "'é日🤖e\u{301}\u{301}'"),
            ("\u{301}", "'\u{301}'"),
            ("\u{85}\u{a0}\u{ad}\u{200d}\u{2028}\u{feff}\u{e0001}", r"'\x85\xa0\xad\u200d\u2028\ufeff\U000e0001'"),
        ] {
            let mut repr = Repr { text: String::new(), limit: 0 };
            repr.string(text);
            assert_eq!(repr.text, expected);
        }
    }
}
