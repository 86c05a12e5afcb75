//! The functions, tests and methods that transformers and Python give a template beyond minijinja's own, those of
//! minijinja that are different in Jinja, and those that no fuel bounds.

use super::answers::MARKS;
use super::date::Moment;
use super::guards::{keep, refusal};
use super::python;
use minijinja::functions::{dict, namespace};
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::globals::{cycler, joiner};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Longest width or precision in a field of `str.format`, in digits.
const MAX_WIDTH_DIGITS: usize = 3;
/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;

/// The message of `raise_exception`, as the source of an engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Adds the functions, tests, filters and methods.
pub(super) fn register(environment: &mut Environment, moment: Moment) {
    environment.set_formatter(print);
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", python::tojson);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", is_sequence);
    environment.add_function("raise_exception", raise);
    environment.add_function("strftime_now", move |format: &str| {
        moment.format(format).map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("slmc_generation", generation);
    environment.add_function("dict", |state: &State, pairs: Option<Value>, named: Kwargs| {
        keep(state, dict(pairs, named)?, true)
    });
    environment.add_function("namespace", |state: &State, fields: Option<ValueOrKwargs>| {
        if let Some(fields) = fields.clone() {
            keep(state, fields.into_value(), false)?;
        }
        namespace(fields)
    });
    environment.add_function("cycler", |state: &State, items: Rest<Value>| {
        let items = items.0.into_iter().map(|item| keep(state, item, false)).collect::<Result<_, _>>()?;
        cycler(items)
    });
    environment.add_function("joiner", |state: &State, separator: Option<Value>| {
        Ok::<_, Error>(joiner(separator.map(|separator| keep(state, separator, false)).transpose()?))
    });
    // Jinja has none of these; `debug` and `pprint` would print without bounds.
    for filter in ["bool", "chain", "lines", "pprint", "split", "zip"] {
        environment.remove_filter(filter);
    }
    environment.remove_global("debug");
}

/// The body of `{% generation %}` between marks.
fn generation(state: &mut State, arguments: Kwargs) -> Result<Value, Error> {
    let body = arguments.get::<Value>("caller")?.call(state, &[])?.to_string();
    state.consume_fuel((body.len() / BYTES_PER_FUEL) as u64)?;
    let [open, close] = MARKS;
    Ok(Value::from(format!("{open}{body}{close}")))
}

/// Writes the value of `{{ … }}`: floats as Python does.
fn print(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match f64::try_from(value.clone()) {
        Ok(number) if value.kind() == ValueKind::Number && !value.is_integer() => {
            output.write_str(&python::float(number)).map_err(Error::from)
        }
        _ => escape_formatter(output, state, value),
    }
}

fn raise(message: &Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Jinja's test: values with a length and items, texts and dictionaries included.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map => true,
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    }
}

/// Python's methods: `minijinja-contrib`'s, with the two whose cost it does not charge paid ahead, and two more.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "split" | "splitlines" => {
                let separator =
                    arguments.first().and_then(|argument| argument.as_str()).filter(|text| !text.is_empty());
                let parts = match separator {
                    Some(separator) => text.matches(separator).count(),
                    None => text.chars().filter(|character| character.is_whitespace()).count(),
                };
                state.consume_fuel(parts as u64)?;
            }
            "format" => pay_for_format(state, text, arguments)?,
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(arguments)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(arguments)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, arguments)
}

/// Charges the longest result of `str.format`: every field can be the longest argument, or as wide as its width.
fn pay_for_format(state: &State, format: &str, arguments: &[Value]) -> Result<(), Error> {
    let mut digits = 0;
    let mut depth = 0_usize;
    for character in format.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = if depth > 0 && character.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > MAX_WIDTH_DIGITS {
            return Err(refusal(format!("a field of `format` with a number of more than {MAX_WIDTH_DIGITS} digits")));
        }
    }
    let length = |value: &Value| value.as_str().map_or_else(|| value.to_string().len(), str::len);
    let longest = arguments.iter().map(length).max().unwrap_or_default() + 10_usize.pow(MAX_WIDTH_DIGITS as u32);
    let fields = format.bytes().filter(|&byte| byte == b'{').count();
    state.consume_fuel((fields.saturating_mul(longest) / BYTES_PER_FUEL) as u64)
}
