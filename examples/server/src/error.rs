//! Errors as the OpenAI API writes them:
//!
//! ```text
//! {"error": {"message": a sentence, "type": …, "param": the field or null, "code": … or null}}
//! ```

use hyper::StatusCode;
use serde_json::{Value, json};

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status of the response.
    pub status: StatusCode,
    /// Seconds after which the same request may be answered.
    pub retry_after: Option<u64>,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, retry_after: None, kind, code: None, param: None, message: message.into() }
    }

    /// A field that cannot be met.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        ApiError { param: Some(param.to_owned()), ..ApiError::body(message) }
    }

    /// A body that is none.
    pub fn body(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A body of another status than 400.
    pub fn body_of(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, ..ApiError::body(message) }
    }

    /// More tokens than the model has positions.
    pub fn context(param: &str, tokens: usize, context: usize) -> Self {
        let message = format!("the text has {tokens} tokens, and this model's context has room for {context}");
        ApiError { code: Some("context_length_exceeded"), ..ApiError::invalid(param, message) }
    }

    /// Another model than the one that is served.
    pub fn model(asked: &str, served: &str) -> Self {
        let message = format!("there is no model `{asked}` here; this server has `{served}`");
        let error = ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        ApiError { code: Some("model_not_found"), param: Some("model".to_owned()), ..error }
    }

    /// A place that there is not, or not for this artifact or method.
    pub fn place(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError::new(status, "invalid_request_error", message)
    }

    /// No room in the queue.
    pub fn busy(waiting: usize, seconds: u64) -> Self {
        let message = format!("{waiting} requests are waiting, as many as the queue holds; try again in {seconds} s");
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        ApiError { retry_after: Some(seconds), code: Some("queue_full"), ..error }
    }

    /// Not yet, or not any more.
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
    }

    /// A fault that is not the client's.
    pub fn failed(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The body of the response.
    pub fn json(&self) -> Value {
        let ApiError { kind, code, param, message, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}
