//! What happens here, in numbers, as Prometheus reads them. Every request whose head arrived is counted once, with the
//! outcome that its client saw; every connection that broke is counted by the reason.

use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE as PROMETHEUS_TEXT, encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Type of the page.
pub const CONTENT_TYPE: &str = PROMETHEUS_TEXT;

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has its answer.
    Answered,
    /// The client's fault: 400, 404, 405, 413.
    Refused,
    /// The body did not come in time: 408.
    Late,
    /// The queue was full: 429.
    Rejected,
    /// The server's fault: 500, 503.
    Failed,
    /// The client went away before its answer was complete.
    Dropped,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Late => "late",
            Outcome::Rejected => "rejected",
            Outcome::Failed => "failed",
            Outcome::Dropped => "dropped",
        }
    }
}

/// All numbers.
pub struct Metrics {
    registry: Registry,
    requests: Counters<2>,
    request_seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    /// Connections that are open.
    pub connections: Gauge,
    broken: Counters<1>,
    /// Requests that wait for the model.
    pub queue: Gauge,
    queue_seconds: Histogram,
    first_token_seconds: Histogram,
    tokens_per_second: Histogram,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    completion_tokens: Counter,
    passes: Counter,
    drafted: Counters<1>,
    confirmed: Counters<1>,
    positions: Gauge,
    /// Mean time of the last jobs, in microseconds: what a place in the queue costs.
    job_micros: AtomicU64,
}

/// What a generation took.
pub struct Generated {
    /// From the arrival of the request to the first token.
    pub first: Option<Duration>,
    /// From the first token to the last.
    pub rest: Duration,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those among them that had been read before.
    pub cached: usize,
    /// Tokens added.
    pub completion: usize,
}

/// From 1 ms to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    /// Nothing happened yet, in a queue of this length and a context of so many positions.
    pub fn new(queue_length: usize, context: usize) -> Self {
        let mut registry = Registry::with_prefix("slm");
        let metrics = Metrics {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            connections: Gauge::default(),
            broken: Family::default(),
            queue: Gauge::default(),
            queue_seconds: seconds(),
            first_token_seconds: seconds(),
            tokens_per_second: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            passes: Counter::default(),
            drafted: Family::default(),
            confirmed: Family::default(),
            positions: Gauge::default(),
            job_micros: AtomicU64::new(0),
            registry: Registry::default(),
        };
        // A series that is there from the start has a rate when it first grows.
        for reason in ["timeout", "not_http", "closed"] {
            drop(metrics.broken.get_or_create(&[("reason", reason)]));
        }
        for drafts in [&metrics.drafted, &metrics.confirmed] {
            drop(drafts.get_or_create(&[("drafter", "repeats")]));
        }
        let (queue_capacity, context_positions) = (Gauge::<i64>::default(), Gauge::<i64>::default());
        queue_capacity.set(queue_length as i64);
        context_positions.set(context as i64);
        registry.register("requests", "Requests by endpoint and outcome", metrics.requests.clone());
        registry.register("request_seconds", "Time to the end of the answer", metrics.request_seconds.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("broken_connections", "Connections that ended in an error", metrics.broken.clone());
        registry.register("queue_length", "Requests that wait for the model", metrics.queue.clone());
        registry.register("queue_capacity", "Requests that can wait", queue_capacity);
        registry.register("queue_seconds", "Time in the queue", metrics.queue_seconds.clone());
        registry.register(
            "time_to_first_token_seconds",
            "From the request to its first token, the queue included",
            metrics.first_token_seconds.clone(),
        );
        registry.register(
            "tokens_per_second",
            "Speed of each generation after its first token",
            metrics.tokens_per_second.clone(),
        );
        registry.register("prompt_tokens", "Tokens of prompts and texts", metrics.prompt_tokens.clone());
        registry.register(
            "cached_tokens",
            "Tokens of prompts that the cache had already",
            metrics.cached_tokens.clone(),
        );
        registry.register("completion_tokens", "Tokens generated", metrics.completion_tokens.clone());
        registry.register("passes", "Passes over the weights after prompts", metrics.passes.clone());
        registry.register("drafted_tokens", "Tokens guessed by drafters", metrics.drafted.clone());
        registry.register("confirmed_tokens", "Guesses that were right", metrics.confirmed.clone());
        registry.register("cache_positions", "Positions in the key-value cache", metrics.positions.clone());
        registry.register("context_positions", "Positions that the cache has room for", context_positions);
        Metrics { registry, ..metrics }
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut page, &self.registry);
        page
    }

    /// A connection ended in an error.
    pub fn broken(&self, error: &hyper::Error) {
        // What waits for a client to take an answer is not hyper's.
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        let untaken = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut);
        let reason = if untaken || error.is_timeout() {
            "timeout"
        } else if error.is_parse() {
            "not_http"
        } else {
            "closed"
        };
        self.broken.get_or_create(&[("reason", reason)]).inc();
    }

    /// A job left the queue.
    pub fn started(&self, waited: Duration) {
        self.queue.dec();
        self.queue_seconds.observe(waited.as_secs_f64());
    }

    /// A job is done.
    pub fn ended(&self, took: Duration, positions: usize) {
        self.positions.set(positions as i64);
        let (old, new) = (self.job_micros.load(Ordering::Relaxed), took.as_micros() as u64);
        let mean = if old == 0 { new } else { (7 * old + new) / 8 };
        self.job_micros.store(mean, Ordering::Relaxed);
    }

    /// Seconds until as many jobs are done, at least 1.
    pub fn seconds_for(&self, jobs: usize) -> u64 {
        let micros = self.job_micros.load(Ordering::Relaxed).saturating_mul(jobs as u64);
        micros.div_ceil(1_000_000).max(1)
    }

    /// Texts were read, without an answer in tokens.
    pub fn read(&self, tokens: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
    }

    /// A generation ended.
    pub fn generated(&self, generated: &Generated) {
        self.prompt_tokens.inc_by(generated.prompt as u64);
        self.cached_tokens.inc_by(generated.cached as u64);
        self.completion_tokens.inc_by(generated.completion as u64);
        if let Some(first) = generated.first {
            self.first_token_seconds.observe(first.as_secs_f64());
        }
        if generated.completion > 1 && !generated.rest.is_zero() {
            self.tokens_per_second.observe((generated.completion - 1) as f64 / generated.rest.as_secs_f64());
        }
    }

    /// A pass over the weights ended, with guesses of a drafter or none.
    pub fn passed(&self, drafter: Option<&'static str>, drafted: usize, confirmed: usize) {
        self.passes.inc();
        if let Some(drafter) = drafter {
            self.drafted.get_or_create(&[("drafter", drafter)]).inc_by(drafted as u64);
            self.confirmed.get_or_create(&[("drafter", drafter)]).inc_by(confirmed as u64);
        }
    }

    /// A request arrived; it counts when what is returned is dropped.
    pub fn arrived(self: &std::sync::Arc<Self>, endpoint: &'static str) -> Counted {
        Counted { metrics: self.clone(), endpoint, begin: Instant::now(), outcome: Outcome::Dropped }
    }
}

/// A request under way. Until its outcome is set, it counts as dropped.
pub struct Counted {
    metrics: std::sync::Arc<Metrics>,
    endpoint: &'static str,
    begin: Instant,
    /// How it ended.
    pub outcome: Outcome,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let (endpoint, outcome) = (("endpoint", self.endpoint), ("outcome", self.outcome.name()));
        self.metrics.requests.get_or_create(&[endpoint, outcome]).inc();
        self.metrics.request_seconds.get_or_create(&[endpoint]).observe(self.begin.elapsed().as_secs_f64());
    }
}
