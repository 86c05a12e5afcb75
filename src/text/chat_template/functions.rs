//! The functions, tests and methods that transformers and Python give a template beyond minijinja's own, those of
//! minijinja that are different in Jinja, and those that no fuel bounds.

mod strings;

use super::answers::MARKS;
use super::date::Moment;
use super::guards::{keep, refusal};
use super::python;
use minijinja::filters;
use minijinja::functions::{dict, namespace};
use minijinja::value::{Kwargs, Rest, StringInput, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::globals::{cycler, joiner};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Longest width or precision in a field of `str.format`, in digits.
const MAX_WIDTH_DIGITS: usize = 3;
/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;
/// Bytes of a list or dictionary as text that one unit of fuel pays for: making them takes longer than copying.
const BYTES_MADE_PER_FUEL: usize = 4;
/// Items of a list that one unit of fuel pays for.
const ITEMS_PER_FUEL: usize = 4;

/// The message of `raise_exception`, as the source of an engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Adds the functions, tests, filters and methods.
pub(super) fn register(environment: &mut Environment, moment: Moment) {
    environment.set_formatter(print);
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", string);
    environment.add_filter("join", join);
    environment.add_function("slmc_concat", concat);
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

/// Writes the value of `{{ … }}`.
fn print(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    // The engine charges what is written.
    match python::text(state, value)? {
        Some(text) => output.write_str(&text).map_err(Error::from),
        None => escape_formatter(output, state, value),
    }
}

/// What Python writes otherwise than minijinja, paid for.
fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    let text = python::text(state, value)?;
    state.consume_fuel((text.as_ref().map_or(0, String::len) / BYTES_MADE_PER_FUEL) as u64)?;
    Ok(text)
}

fn string(state: &State, value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value);
    }
    Ok(Value::from(text(state, &value)?.unwrap_or_else(|| value.to_string())))
}

/// `a ~ b`, as [`super::source`] writes it.
fn concat(state: &State, values: Rest<Value>) -> Result<String, Error> {
    let mut all = String::new();
    for value in values.iter() {
        let own = match value.as_str() {
            Some(_) => None,
            None => Some(text(state, value)?.unwrap_or_else(|| value.to_string())),
        };
        let part = own.as_deref().or_else(|| value.as_str()).unwrap_or_default();
        if all.len() + part.len() > python::affordable_bytes(state) {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        all.push_str(part);
    }
    Ok(all)
}

fn join(
    state: &mut State,
    value: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let or_named = |value: Option<Value>, name: &str| match value {
        Some(value) => Ok(Some(value)),
        None => named.get::<Option<Value>>(name),
    };
    let (separator, attribute) = (or_named(separator, "d")?, or_named(attribute, "attribute")?);
    named.assert_all_used()?;
    let values = match attribute {
        Some(attribute) => {
            let attribute = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[value.clone(), Value::from(attribute)])?
        }
        None => value.clone(),
    };
    let mut items = Vec::new();
    for item in values.try_iter()?.checked() {
        let item = item?;
        if items.len() % ITEMS_PER_FUEL == 0 {
            state.consume_fuel(1)?;
        }
        items.push(text(state, &item)?.map_or(item, Value::from));
    }
    let separator = separator.as_ref().map(|separator| StringInput::new(state, separator)).transpose()?;
    filters::join(state, &Value::from(items), separator, None, Kwargs::from_iter(<[(&str, Value); 0]>::default()))
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

/// Python's methods: `minijinja-contrib`'s, with the one whose cost it does not charge paid ahead, and [`strings`].
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if let Some(result) = strings::method(state, text, name, arguments)? {
            return Ok(result);
        }
        if name == "format" {
            pay_for_format(state, text, arguments)?;
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
