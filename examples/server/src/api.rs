//! The bodies of requests in the shape of the OpenAI API: which fields there are, what they may be, and what they ask of the
//! model. A field that is not known, or asks for what the runtime does not do, is refused by name; nothing is ignored but
//! what has no influence on an answer.

use crate::error::ApiError;
use crate::model::{Message, Model, Task};
use crate::worker::Generate;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use slm_runtime::format::chat_frame::Role;
use slm_runtime::sample::{ALL, Sampling};
use std::ops::RangeInclusive;

/// Most tokens of a continued text, and of an answer, unless the request says otherwise: those of `slmc generate`.
const MOST_TOKENS: usize = 64;
const MOST_ANSWER_TOKENS: usize = 512;
/// Most stop sequences, and most texts of a request.
const MOST_STOPS: usize = 4;
const MOST_TEXTS: usize = 64;
/// What has no influence on an answer.
const IGNORED: [&str; 6] = ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"];

/// The fields of a body, taken one by one.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(body: &[u8]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body).map_err(|error| {
            ApiError::body(format!("the body is not UTF-8: byte {} is not part of a character", error.valid_up_to()))
        })?;
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(ApiError::body("the body is JSON, and not an object of fields")),
            Err(error) => Err(ApiError::body(format!("the body is not JSON: {error}"))),
        }
    }

    /// A field; `null` is as if it were not there.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(key: &str, expected: &str, found: &Value) -> ApiError {
        let found = match found {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            Value::String(_) => "a text".to_owned(),
            other => other.to_string(),
        };
        ApiError::invalid(key, format!("`{key}`: expected {expected}, got {found}"))
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Fields::wrong(key, "a text", &other)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(Fields::wrong(key, "true or false", &other)),
        }
    }

    fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let expected = format!("a number from {} to {}", range.start(), range.end());
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Fields::wrong(key, &expected, &value)),
        }
    }

    fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        match value.as_i64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Fields::wrong(key, &expected, &value)),
        }
    }

    /// A field that is not implemented but for the value that asks for nothing.
    fn only(&mut self, key: &str, nothing: &[Value]) -> Result<(), ApiError> {
        let Some(value) = self.take(key) else { return Ok(()) };
        let same = |other: &Value| *other == value || other.as_f64().is_some_and(|other| value.as_f64() == Some(other));
        match nothing.iter().any(same) {
            true => Ok(()),
            false => Err(ApiError::invalid(key, format!("`{key}` is not implemented here; leave it out"))),
        }
    }

    /// The model that the request names, if any, is the one that is served.
    fn check_model(&mut self, model: &Model) -> Result<(), ApiError> {
        match self.text("model")? {
            Some(asked) if asked != model.name => Err(ApiError::model(&asked, &model.name)),
            _ => Ok(()),
        }
    }

    /// Nothing is left.
    fn end(mut self) -> Result<(), ApiError> {
        IGNORED.iter().for_each(|key| drop(self.0.remove(*key)));
        match self.0.keys().next() {
            Some(key) => Err(ApiError::invalid(key, format!("there is no field `{key}`"))),
            None => Ok(()),
        }
    }
}

/// A generation as it was asked for.
pub struct Asked {
    /// What the worker is to do.
    pub work: Generate,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether their end says how many tokens there were.
    pub stream_usage: bool,
}

/// What a prompt is made of.
enum Source {
    Text(String),
    Tokens(Vec<u32>),
    Messages(Vec<Message>),
}

/// A completion, or with `chat` an answer. `fresh` is the seed of draws where the request has none.
pub fn generation(body: &[u8], model: &Model, chat: bool, fresh: u64) -> Result<Asked, ApiError> {
    let mut fields = Fields::of(body)?;
    fields.check_model(model)?;
    let source = match chat {
        true => Source::Messages(messages(&mut fields)?),
        false => prompt(&mut fields)?,
    };
    let mut most = fields.integer("max_tokens", 1..=i64::from(u32::MAX))?;
    if chat {
        most = fields.integer("max_completion_tokens", 1..=i64::from(u32::MAX))?.or(most);
    }
    let most = most.map_or(if chat { MOST_ANSWER_TOKENS } else { MOST_TOKENS }, |most| most as usize);
    let sampling = sampling(&mut fields, &model.view.sampling())?;
    let seed = fields.integer("seed", i64::MIN..=i64::MAX)?.map_or(fresh, |seed| seed as u64);
    let stop = stops(&mut fields)?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let stream_usage = stream_options(&mut fields, stream)?;
    let grammar = grammar(&mut fields, model)?;
    let drafts = fields.flag("drafts")?.unwrap_or(true);
    for key in ["n", "best_of"] {
        fields.only(key, &[json!(1)])?;
    }
    for key in ["frequency_penalty", "presence_penalty", "top_logprobs"] {
        fields.only(key, &[json!(0)])?;
    }
    fields.only("echo", &[json!(false)])?;
    fields.only("logprobs", &[json!(false), json!(0)])?;
    fields.only("logit_bias", &[json!({})])?;
    fields.only("suffix", &[json!("")])?;
    fields.only("tools", &[json!([])])?;
    fields.only("tool_choice", &[json!("none"), json!("auto")])?;
    fields.end()?;
    let (param, at_start, prompt) = match source {
        Source::Text(text) => ("prompt", text.is_empty(), model.prompt(&text)?),
        Source::Tokens(tokens) => ("prompt", false, tokens),
        // The frame has the tokens that open a text.
        Source::Messages(messages) => ("messages", true, model.encode(&model.conversation(&messages)?, false)?),
    };
    check_length(param, &prompt, model)?;
    let work = Generate { prompt, at_start, most, sampling, seed, stop, grammar, drafts };
    Ok(Asked { work, stream, stream_usage })
}

fn check_length(param: &str, tokens: &[u32], model: &Model) -> Result<(), ApiError> {
    let vocabulary = model.view.spec().vocabulary;
    if tokens.is_empty() {
        return Err(ApiError::invalid(param, "the text has no tokens, and the model none that open one"));
    }
    if let Some(token) = tokens.iter().find(|&&token| token >= vocabulary) {
        return Err(ApiError::invalid(param, format!("token {token} is not one of the model's {vocabulary}")));
    }
    match tokens.len() > model.context() {
        true => Err(ApiError::context(param, tokens.len(), model.context())),
        false => Ok(()),
    }
}

fn prompt(fields: &mut Fields) -> Result<Source, ApiError> {
    let missing = || ApiError::invalid("prompt", "`prompt`: expected the text to continue, or its tokens");
    match fields.take("prompt").ok_or_else(missing)? {
        Value::String(text) => Ok(Source::Text(text)),
        Value::Array(mut parts) if parts.len() == 1 && parts[0].is_string() => {
            Ok(Source::Text(parts.remove(0).as_str().unwrap_or_default().to_owned()))
        }
        Value::Array(parts) => match tokens_of(&parts) {
            Some(tokens) => Ok(Source::Tokens(tokens)),
            None => Err(Fields::wrong("prompt", "one text, or a list of token numbers", &Value::Array(parts))),
        },
        other => Err(Fields::wrong("prompt", "a text", &other)),
    }
}

fn tokens_of(parts: &[Value]) -> Option<Vec<u32>> {
    parts.iter().map(|part| part.as_u64().and_then(|token| u32::try_from(token).ok())).collect()
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let refused = |index: usize, reason: &str| ApiError::invalid("messages", format!("message {index}: {reason}"));
    let Some(Value::Array(list)) = fields.take("messages") else {
        return Err(ApiError::invalid("messages", "`messages`: expected a list of {\"role\": …, \"content\": …}"));
    };
    let mut messages = Vec::with_capacity(list.len());
    for (index, message) in list.into_iter().enumerate() {
        let Value::Object(mut message) = message else { return Err(refused(index, "expected an object")) };
        let role = match message.remove("role").as_ref().and_then(Value::as_str) {
            Some("system" | "developer") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => return Err(refused(index, "expected the role `system`, `user` or `assistant`")),
        };
        let text = match message.remove("content") {
            Some(Value::String(text)) => text,
            Some(Value::Array(parts)) => {
                let of_text =
                    |part: &Value| (part["type"] == "text").then(|| part["text"].as_str()).flatten().map(str::to_owned);
                let parts: Option<Vec<String>> = parts.iter().map(of_text).collect();
                parts.ok_or_else(|| refused(index, "expected parts of the type `text`"))?.concat()
            }
            _ => return Err(refused(index, "expected a text as `content`")),
        };
        message.remove("name");
        if let Some(key) = message.keys().next() {
            return Err(refused(index, &format!("there is no field `{key}`")));
        }
        messages.push(Message { role, text });
    }
    Ok(messages)
}

/// How tokens are chosen: as the artifact says, but for what the request says.
fn sampling(fields: &mut Fields, own: &Sampling) -> Result<Sampling, ApiError> {
    let parts = |share: f64| (share * f64::from(ALL)).round() as u32;
    let temperature = fields.number("temperature", 0.0..=1000.0)?;
    let sampling = Sampling {
        temperature: temperature.map_or(own.temperature, |value| value as f32),
        top_k: fields.integer("top_k", 0..=i64::from(u32::MAX))?.map_or(own.top_k, |value| value as u32),
        top_p: fields.number("top_p", 0.0..=1.0)?.map_or(own.top_p, |share| parts(share).max(1)),
        min_p: fields.number("min_p", 0.0..=1.0)?.map_or(own.min_p, parts),
        repetition_penalty: fields
            .number("repetition_penalty", 0.01..=100.0)?
            .map_or(own.repetition_penalty, |value| value as f32),
    };
    match sampling.is_valid() {
        true => Ok(sampling),
        false => Err(ApiError::invalid("temperature", "`temperature`: expected 0, or a number from 0.001 to 1000")),
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong =
        || ApiError::invalid("stop", format!("`stop`: expected a text or up to {MOST_STOPS}, none of them empty"));
    let stops = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(texts)) => {
            let texts: Option<Vec<String>> = texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    match stops.len() > MOST_STOPS || stops.iter().any(String::is_empty) {
        true => Err(wrong()),
        false => Ok(stops),
    }
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    match fields.take("stream_options") {
        None => Ok(false),
        Some(Value::Object(options)) if stream => {
            let mut options = Fields(options);
            let usage = options.flag("include_usage")?.unwrap_or(false);
            options.end()?;
            Ok(usage)
        }
        Some(_) => Err(ApiError::invalid("stream_options", "`stream_options`: expected an object, with `stream` true")),
    }
}

/// Whether the artifact's grammar is followed.
fn grammar(fields: &mut Fields, model: &Model) -> Result<bool, ApiError> {
    let refused = |reason: &str| ApiError::invalid("response_format", format!("`response_format`: {reason}"));
    let Some(format) = fields.take("response_format") else { return Ok(false) };
    match format["type"].as_str() {
        Some("text") => Ok(false),
        Some("json_object" | "grammar") if model.view.grammar().is_some() => Ok(true),
        Some("json_object" | "grammar") => {
            Err(refused("this artifact has no grammar; `slmc compile --json-schema FILE` gives it one"))
        }
        Some("json_schema") => Err(refused(
            "a schema is compiled into the artifact (`slmc compile --json-schema FILE`), not sent; ask for `json_object`",
        )),
        _ => Err(refused("expected a `type` of `text`, `json_object` or `grammar`")),
    }
}

/// Texts of which each has one row of output.
pub struct Texts {
    /// Their tokens.
    pub tokens: Vec<Vec<u32>>,
    /// Whether rows are written as base64 of little-endian f32.
    pub base64: bool,
}

/// Texts to embed or to classify.
pub fn texts(body: &[u8], model: &Model) -> Result<Texts, ApiError> {
    let mut fields = Fields::of(body)?;
    fields.check_model(model)?;
    let expected = format!("a text, its tokens, or a list of up to {MOST_TEXTS} of either");
    let missing = || ApiError::invalid("input", format!("`input`: expected {expected}"));
    let input = fields.take("input").ok_or_else(missing)?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") if model.task == Task::Embed => true,
        Some(_) => return Err(ApiError::invalid("encoding_format", "`encoding_format`: expected `float` or `base64`")),
    };
    fields.only("dimensions", &[json!(model.view.spec().output_width)])?;
    fields.end()?;
    let one = |input: &Value| match input {
        Value::String(text) => Some(model.encode(text, true)),
        Value::Array(parts) => tokens_of(parts).map(Ok),
        _ => None,
    };
    let tokens: Option<Result<Vec<Vec<u32>>, ApiError>> = match &input {
        Value::Array(parts) if !parts.first().is_some_and(Value::is_number) => {
            (1..=MOST_TEXTS).contains(&parts.len()).then(|| parts.iter().map(one).collect()).flatten()
        }
        single => one(single).map(|tokens| tokens.map(|tokens| vec![tokens])),
    };
    let tokens = tokens.ok_or_else(|| Fields::wrong("input", &expected, &input))??;
    tokens.iter().try_for_each(|tokens| check_length("input", tokens, model))?;
    Ok(Texts { tokens, base64 })
}

/// Whether this artifact answers at an endpoint.
pub fn check_task(model: &Model, task: Task) -> Result<(), ApiError> {
    let place = match model.task {
        Task::Generate => "generates text: ask /v1/completions or /v1/chat/completions",
        Task::Embed => "embeds texts: ask /v1/embeddings",
        Task::Classify => "classifies texts: ask /v1/classify",
    };
    match model.task == task {
        true => Ok(()),
        false => Err(ApiError::place(StatusCode::NOT_FOUND, format!("the model `{}` {place}", model.name))),
    }
}
