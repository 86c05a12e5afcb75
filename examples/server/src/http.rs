//! Requests and responses: which place answers what, bodies within their limits of length and time, and answers whole or as
//! server-sent events. Nothing here waits for the model but by a channel, so that a slow client delays nobody.

use crate::api::{self, Asked};
use crate::error::ApiError;
use crate::metrics::{CONTENT_TYPE, Counted, Metrics, Outcome};
use crate::model::{Model, Task};
use crate::shape::{self, Shape};
use crate::worker::{Event, Health, Job, Work};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE as CONTENT_TYPE_HEADER, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use slm_runtime::sample::random_u64;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, error::TrySendError, unbounded_channel};

/// A body that is longer than its limit is read on up to so many times as much, so that its sender hears why it is refused.
const DRAINED: usize = 16;

/// A response with a body, whole or in pieces.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// All that requests share.
pub struct Server {
    /// The artifact.
    pub model: Model,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// Whether it is ready.
    pub health: Health,
    /// Bytes of the longest body.
    pub body_bytes: usize,
    /// Time for a body to arrive.
    pub patience: Duration,
    /// Where jobs go; `None` once no more are taken.
    queue: Mutex<Option<Sender<Job>>>,
    capacity: usize,
    started: Duration,
    requests: AtomicU64,
}

impl Server {
    /// A server whose worker takes jobs from the other end of `queue`.
    pub fn new(model: Model, queue: Sender<Job>, body_bytes: usize, patience: Duration) -> Self {
        let capacity = queue.max_capacity();
        Server {
            metrics: Arc::new(Metrics::new(capacity, model.context())),
            model,
            health: Health::default(),
            body_bytes,
            patience,
            queue: Mutex::new(Some(queue)),
            capacity,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            requests: AtomicU64::new(0),
        }
    }

    /// Takes no more jobs: the worker ends with those that it has.
    pub fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn submit(&self, work: Work, since: Instant) -> Result<UnboundedReceiver<Event>, ApiError> {
        if !self.health.ready.load(Ordering::Acquire) {
            return Err(ApiError::unavailable("the model is not ready yet: its self-test is running"));
        }
        let (reply, events) = unbounded_channel();
        let stopping = || ApiError::unavailable("the server is stopping");
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or_else(stopping)?;
        // Before it is sent: the worker counts down.
        self.metrics.queue.inc();
        queue.try_send(Job { work, reply, since }).map_err(|error| {
            self.metrics.queue.dec();
            match error {
                TrySendError::Full(_) => ApiError::busy(self.capacity, self.metrics.seconds_for(self.capacity)),
                TrySendError::Closed(_) => stopping(),
            }
        })?;
        Ok(events)
    }

    fn shape(&self, chat: bool, number: u64) -> Shape {
        let kind = if chat { "chatcmpl" } else { "cmpl" };
        Shape {
            chat,
            id: format!("{kind}-{:x}-{number:x}", self.started.as_millis()),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            model: self.model.name.clone(),
            fingerprint: self.model.fingerprint(),
        }
    }
}

/// Answers a request. It counts from the call on: the client may be gone before the future is polled.
pub fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Answer, Infallible>> + Send {
    let path = request.uri().path().to_owned();
    let endpoint = ENDPOINTS.iter().find(|(_, known)| *known == path).map_or("other", |(_, known)| *known);
    let counted = server.metrics.arrived(endpoint);
    answer_counted(server, request, path, counted)
}

async fn answer_counted(
    server: Arc<Server>,
    request: Request<Incoming>,
    path: String,
    mut counted: Counted,
) -> Result<Answer, Infallible> {
    let answer = match route(&server, request, &path).await {
        Ok(Ready::Whole(answer)) => answer,
        // What is counted goes with the stream: it ends as the client ends it.
        Ok(Ready::Stream(mut stream)) => {
            stream.counted = Some(counted);
            let answer = Response::builder()
                .header(CONTENT_TYPE_HEADER, "text/event-stream")
                .header(CACHE_CONTROL, "no-cache")
                .body(UnsyncBoxBody::new(stream));
            return Ok(answer.unwrap_or_default());
        }
        Err(error) => refusal(&error),
    };
    counted.outcome = match answer.status() {
        status if status.is_success() => Outcome::Answered,
        StatusCode::REQUEST_TIMEOUT => Outcome::Late,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Rejected,
        status if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Refused,
    };
    Ok(answer)
}

/// Places and the methods that they answer.
static ENDPOINTS: [(Method, &str); 9] = [
    (Method::POST, "/v1/completions"),
    (Method::POST, "/v1/chat/completions"),
    (Method::POST, "/v1/embeddings"),
    (Method::POST, "/v1/classify"),
    (Method::GET, "/v1/models"),
    (Method::GET, "/metrics"),
    (Method::GET, "/health"),
    (Method::GET, "/health/live"),
    (Method::GET, "/health/ready"),
];

enum Ready {
    Whole(Answer),
    Stream(Stream),
}

async fn route(server: &Arc<Server>, request: Request<Incoming>, path: &str) -> Result<Ready, ApiError> {
    if let Some((method, _)) = ENDPOINTS.iter().find(|(_, known)| *known == path)
        && request.method() != method
    {
        return Err(ApiError::place(StatusCode::METHOD_NOT_ALLOWED, format!("{path} answers {method}")));
    }
    let created = server.started.as_secs();
    let answer = match path {
        "/v1/completions" => return generate(server, request, false).await,
        "/v1/chat/completions" => return generate(server, request, true).await,
        "/v1/embeddings" => read(server, request, Task::Embed).await?,
        "/v1/classify" => read(server, request, Task::Classify).await?,
        "/v1/models" => json_answer(StatusCode::OK, &shape::models(&server.model, created)),
        "/metrics" => text_answer(CONTENT_TYPE, server.metrics.page()),
        "/health/live" => json_answer(StatusCode::OK, &json!({"status": "live"})),
        "/health" | "/health/ready" => health(server),
        _ => match path.strip_prefix("/v1/models/") {
            Some(name) if name == server.model.name && request.method() == Method::GET => {
                json_answer(StatusCode::OK, &shape::model(&server.model, created))
            }
            Some(name) => return Err(ApiError::model(name, &server.model.name)),
            None => {
                let places: Vec<&str> = ENDPOINTS.iter().map(|(_, path)| *path).collect();
                let message = format!("there is nothing at {path}; there is {}", places.join(", "));
                return Err(ApiError::place(StatusCode::NOT_FOUND, message));
            }
        },
    };
    Ok(Ready::Whole(answer))
}

fn health(server: &Server) -> Answer {
    let (status, word) = if server.health.stopping.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if server.health.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "testing")
    };
    json_answer(status, &json!({"status": word, "model": server.model.name, "kernel": server.model.kernels.name}))
}

/// The body of a request, within the limits.
async fn body_of(server: &Server, request: Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    let (limit, mut body) = (server.body_bytes, request.into_body());
    let reading = async {
        let (mut bytes, mut length) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::body(format!("the body did not arrive: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length <= limit {
                bytes.extend_from_slice(&data);
            } else if length > limit.saturating_mul(DRAINED) {
                break;
            }
        }
        match length > limit {
            true => Err(ApiError::body_of(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than the {limit} bytes that this server takes"),
            )),
            false => Ok(bytes),
        }
    };
    let seconds = server.patience.as_secs();
    let late = || format!("the body did not arrive within {seconds} s");
    let read = tokio::time::timeout(server.patience, reading).await;
    read.unwrap_or_else(|_| Err(ApiError::body_of(StatusCode::REQUEST_TIMEOUT, late())))
}

/// Makes a request ready on a thread where it may take its time.
async fn parsed<T: Send + 'static>(
    server: &Arc<Server>,
    parse: impl FnOnce(&Server) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let server = Arc::clone(server);
    let done = tokio::task::spawn_blocking(move || parse(&server)).await;
    done.unwrap_or_else(|_| Err(ApiError::failed("the request could not be read; please report it")))
}

async fn generate(server: &Arc<Server>, request: Request<Incoming>, chat: bool) -> Result<Ready, ApiError> {
    let since = Instant::now();
    api::check_task(&server.model, Task::Generate)?;
    let body = body_of(server, request).await?;
    let number = server.requests.fetch_add(1, Ordering::Relaxed);
    let fresh = random_u64(server.started.as_nanos() as u64, number);
    let parse = move |server: &Server| api::generation(&body, &server.model, chat, fresh);
    let Asked { work, stream, stream_usage } = parsed(server, parse).await?;
    let mut events = server.submit(Work::Generate(work), since)?;
    let shape = server.shape(chat, number);
    if stream {
        let pieces = shape.opening().iter().map(event).collect();
        return Ok(Ready::Stream(Stream { events, pieces, shape, usage: stream_usage, ended: false, counted: None }));
    }
    let mut text = String::new();
    loop {
        match events.recv().await {
            Some(Event::Text(piece)) => text += &piece,
            Some(Event::Done(summary)) => {
                return Ok(Ready::Whole(json_answer(StatusCode::OK, &shape.whole(text, &summary))));
            }
            other => return Err(fault(other)),
        }
    }
}

async fn read(server: &Arc<Server>, request: Request<Incoming>, task: Task) -> Result<Answer, ApiError> {
    let since = Instant::now();
    api::check_task(&server.model, task)?;
    let body = body_of(server, request).await?;
    let texts = parsed(server, move |server| api::texts(&body, &server.model)).await?;
    let (base64, tokens) = (texts.base64, texts.tokens.iter().map(Vec::len).sum());
    let mut events = server.submit(Work::Read(texts.tokens), since)?;
    match events.recv().await {
        Some(Event::Rows(rows)) if task == Task::Embed => {
            Ok(json_answer(StatusCode::OK, &shape::embeddings(&server.model, &rows, tokens, base64)))
        }
        Some(Event::Rows(rows)) => Ok(json_answer(StatusCode::OK, &shape::classes(&server.model, &rows, tokens))),
        other => Err(fault(other)),
    }
}

/// Why no answer came.
fn fault(event: Option<Event>) -> ApiError {
    match event {
        Some(Event::Failed(error)) => error,
        _ => ApiError::unavailable("the server stopped before it answered"),
    }
}

fn text_answer(kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(UnsyncBoxBody::new(Full::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE_HEADER, hyper::header::HeaderValue::from_static(kind));
    answer
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = text_answer("application/json", value.to_string());
    *answer.status_mut() = status;
    answer
}

fn refusal(error: &ApiError) -> Answer {
    let mut answer = json_answer(error.status, &error.json());
    if let Some(seconds) = error.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    if error.status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, POST"));
    }
    answer
}

/// A piece of a stream of events.
fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// The body of an answer that comes in pieces.
struct Stream {
    events: UnboundedReceiver<Event>,
    /// What is to be sent before the next event.
    pieces: VecDeque<Bytes>,
    shape: Shape,
    usage: bool,
    /// Whether the last event came.
    ended: bool,
    counted: Option<Counted>,
}

impl Stream {
    fn take(&mut self, event_taken: Option<Event>) {
        let outcome = match event_taken {
            Some(Event::Text(text)) => {
                self.pieces.push_back(event(&self.shape.text(text)));
                return;
            }
            Some(Event::Done(summary)) => {
                self.pieces.extend(self.shape.closing(&summary, self.usage).iter().map(event));
                Outcome::Answered
            }
            other => {
                self.pieces.push_back(event(&fault(other).json()));
                Outcome::Failed
            }
        };
        self.pieces.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.ended = true;
        if let Some(counted) = &mut self.counted {
            counted.outcome = outcome;
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let next = ready!(self.events.poll_recv(context));
            self.take(next);
        }
    }
}
