//! Runs a template in minijinja, set up as transformers sets up Jinja and bounded as untrusted code must be:
//!
//! | resource | bound |
//! |---|---|
//! | instructions, and bytes of texts and lists | fuel: [`FUEL`] plus [`FUEL_PER_BYTE`] of its variables |
//! | containers | [`super::guards`] |
//! | recursion of macros and loops | minijinja's limit; the stack is [`STACK_BYTES`] long |
//! | time | [`DEADLINE`], for the few operations that cost no fuel, such as comparing long texts |
//!
//! It runs in a thread of its own, for the stack and for the deadline. A thread that misses the deadline is left
//! behind: it ends when its fuel does.

use super::{Moment, functions, guards, source};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::{Map, Value as Json};
use std::error::Error as _;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// One unit pays for an instruction or 64 bytes. Templates in use take a few thousand for a short conversation.
const FUEL: u64 = 250_000;
/// Fuel for each byte of the template's variables as JSON: a long conversation needs more.
const FUEL_PER_BYTE: u64 = 8;
/// Most fuel; with it at most 256 MiB are made.
const MAX_FUEL: u64 = 1 << 22;
/// Address space for the stack; only the used part is memory.
const STACK_BYTES: usize = 256 << 20;
/// Longest time a rendering takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// The template's name in the engine; its end decides nothing here.
const NAME: &str = "template";

/// Why there is no text.
#[derive(Debug)]
pub(super) enum Failure {
    /// The engine's error.
    Engine(Error),
    /// The template was refused before the engine saw it.
    Source(source::SourceError),
    /// The deadline passed.
    Slow,
    /// The engine panicked. Where panics abort, the program has ended instead.
    Panicked,
    /// No thread could be started.
    Thread(std::io::Error),
}

impl Failure {
    /// The error of the template itself or of slmc's bounds, where the engine's comes from there.
    pub(super) fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let Failure::Engine(error) = self else { return None };
        std::iter::successors(error.source(), |&error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// Renders `template`; with `None` for variables it is only compiled, with `marks` the parts that it marks as the
/// assistant's are marked in its text.
pub(super) fn run(
    template: &str,
    variables: Option<Map<String, Json>>,
    moment: Moment,
    deadline: Duration,
    marks: bool,
) -> Result<String, Failure> {
    let template = source::prepare(template, marks).map_err(Failure::Source)?;
    let (sender, receiver) = sync_channel(1);
    let work = move || {
        // The receiver is gone where the deadline has passed.
        sender.send(render(&template, variables, moment)).unwrap_or_default();
    };
    let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK_BYTES);
    let worker = thread.spawn(work).map_err(Failure::Thread)?;
    let result = match receiver.recv_timeout(deadline) {
        Ok(result) => result.map_err(Failure::Engine),
        Err(RecvTimeoutError::Timeout) => return Err(Failure::Slow),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::Panicked),
    };
    // Ends after the template's values are dropped.
    worker.join().map_err(|_| Failure::Panicked)?;
    result
}

fn render(template: &str, variables: Option<Map<String, Json>>, moment: Moment) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Undefined values then know their names.
    environment.set_debug(true);
    guards::register(&mut environment);
    functions::register(&mut environment, moment);
    environment.add_template(NAME, template)?;
    let Some(variables) = variables else { return Ok(String::new()) };
    let bytes = serde_json::to_vec(&variables).map_or(0, |json| json.len() as u64);
    environment.set_fuel(Some(FUEL.saturating_add(bytes.saturating_mul(FUEL_PER_BYTE)).min(MAX_FUEL)));
    environment.get_template(NAME)?.render(value(&Json::Object(variables)))
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), ..) => Value::from(integer),
            (_, Some(integer), _) => Value::from(integer),
            (.., float) => Value::from(float.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), value(item)))),
    }
}

/// The words of an engine's error, without its place.
pub(super) fn message(error: &Error) -> String {
    let Some(detail) = error.detail() else { return error.kind().to_string() };
    match error.kind() {
        ErrorKind::UnknownFunction => format!("function {detail}"),
        ErrorKind::InvalidOperation
        | ErrorKind::SyntaxError
        | ErrorKind::UndefinedError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownMethod => detail.to_owned(),
        kind => format!("{kind}: {detail}"),
    }
}
