//! A store on a server that has GET, HEAD and PUT, as Bazel's HTTP caches: bazel-remote, nginx with WebDAV, buckets behind
//! HTTP.
//!
//! ```text
//! GET|HEAD|PUT BASE/ac/KEY, BASE/cas/SHA256      404 where it is not there      Content-Length always
//! ```
//!
//! Redirections are not followed, so that credentials go nowhere but to the server that was named.

use super::configuration::fault;
use super::{Blob, Digest, LONGEST_ENTRY, Store, StoreError};
use ct_codecs::{Base64, Encoder};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::{Agent, Body, SendBody};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Time until a server begins to answer, unless `SLMC_CACHE_TIMEOUT` says otherwise. A PUT has [`SILENCE`], since a server may
/// have to move what it took.
const FIRST: u64 = 10;
/// Time without a byte, unless `SLMC_CACHE_TIMEOUT` says otherwise.
const SILENCE: u64 = 60;
/// Bytes that come in every second beyond that time: a server that drips never falls silent, and would hold a run for hours.
const LEAST_RATE: u64 = 16 << 10;
/// Pauses before a request that failed is made again; half of each is left to chance.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// A header.
pub(super) type Header = (&'static str, String);

/// Requests to one server.
pub(super) struct Client {
    agent: Agent,
    /// Time until an answer begins.
    first: Duration,
    /// Time without a byte.
    silence: Duration,
    /// For messages.
    name: String,
}

impl Client {
    pub(super) fn new(name: String, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        let (first, silence) = match variable("SLMC_CACHE_TIMEOUT") {
            None => (FIRST, SILENCE),
            Some(text) => {
                let seconds = text.parse().ok().filter(|&seconds| seconds > 0).ok_or_else(|| StoreError::Setting {
                    place: "$SLMC_CACHE_TIMEOUT".to_owned(),
                    fault: format!("is `{text}`; expected a number of seconds"),
                })?;
                (seconds, seconds)
            }
        };
        let (first, silence) = (Duration::from_secs(first), Duration::from_secs(silence));
        let config = Agent::config_builder()
            .timeout_connect(Some(silence.min(CONNECT)))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(silence))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(crate::machine::tool().replace(' ', "/"))
            .build();
        Ok(Client { agent: config.into(), first, silence, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn status(&self, action: &'static str, status: u16) -> StoreError {
        StoreError::Status { place: self.name.clone(), action, status }
    }

    fn transport(&self, action: &'static str, reason: impl ToString) -> StoreError {
        StoreError::Transport { place: self.name.clone(), action, reason: reason.to_string() }
    }

    /// Makes a request, and again where the server failed or was not reached; not where it was slow, which would only take
    /// longer. `true` where it is there.
    fn asked(
        &self,
        action: &'static str,
        request: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Option<Response<Body>>, StoreError> {
        let mut pauses = PAUSES.iter();
        loop {
            let error = match request() {
                Ok(response) => match response.status().as_u16() {
                    200..=299 => return Ok(Some(response)),
                    404 => return Ok(None),
                    status @ (429 | 500..=599) => self.status(action, status),
                    status => return Err(self.status(action, status)),
                },
                Err(error @ ureq::Error::Timeout(_)) => return Err(self.transport(action, error)),
                Err(error) => self.transport(action, error),
            };
            match pauses.next() {
                Some(pause) => std::thread::sleep(pause.mul_f64(0.5 + 0.5 * chance())),
                None => return Err(error),
            }
        }
    }

    pub(super) fn head(&self, url: &str, headers: &[Header]) -> Result<Option<u64>, StoreError> {
        let request = || {
            let request = self.agent.head(url).config().timeout_recv_response(Some(self.first)).build();
            headers.iter().fold(request, |request, (name, value)| request.header(*name, value)).call()
        };
        let Some(response) = self.asked("HEAD", request)? else { return Ok(None) };
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Some(length.unwrap_or(u64::MAX)))
    }

    /// Writes what is there, at most `most` bytes.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[Header],
        most: u64,
        into: &mut dyn Write,
    ) -> Result<bool, StoreError> {
        let request = || {
            let request = self.agent.get(url).config().timeout_recv_response(Some(self.first)).build();
            headers.iter().fold(request, |request, (name, value)| request.header(*name, value)).call()
        };
        let Some(mut response) = self.asked("GET", request)? else { return Ok(false) };
        let body = Paced::new(response.body_mut().as_reader(), self.silence);
        // One byte more, so that a longer answer is noticed.
        let copied = io::copy(&mut body.take(most.saturating_add(1)), into);
        copied.map(|_| true).map_err(|error| self.transport("GET", error))
    }

    pub(super) fn put(
        &self,
        url: &str,
        headers: &[Header],
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), StoreError> {
        let request = headers.iter().fold(self.agent.put(url), |request, (name, value)| request.header(*name, value));
        let request =
            request.header("content-length", size.to_string()).header("content-type", "application/octet-stream");
        let mut content = Paced::new(content, self.silence);
        let response =
            request.send(SendBody::from_reader(&mut content)).map_err(|error| self.transport("PUT", error))?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(self.status("PUT", status)),
        }
    }
}

/// A body that must move at [`LEAST_RATE`] once a first time is over, however regularly its bytes come.
struct Paced<R> {
    inner: R,
    begun: Instant,
    first: Duration,
    bytes: u64,
}

impl<R> Paced<R> {
    fn new(inner: R, first: Duration) -> Self {
        Paced { inner, begun: Instant::now(), first, bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let allowed = self.first + Duration::from_secs_f64(self.bytes as f64 / LEAST_RATE as f64);
        if self.begun.elapsed() > allowed {
            let bytes = self.bytes;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("only {bytes} bytes in {} s, less than 16 KiB a second", allowed.as_secs()),
            ));
        }
        let read = self.inner.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A number from 0 to 1 that differs from process to process.
fn chance() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    f64::from(now.subsec_nanos() ^ std::process::id().rotate_left(13)) / f64::from(u32::MAX)
}

/// The server.
pub(super) struct HttpStore {
    client: Client,
    base: String,
    headers: Vec<Header>,
}

impl HttpStore {
    pub(super) fn new(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        if url.contains(['?', '#']) {
            return Err(fault(url, "has a query, which a store on a server does not"));
        }
        let base = url.trim_end_matches('/').to_owned();
        let user = variable("SLMC_CACHE_USER").zip(variable("SLMC_CACHE_PASSWORD"));
        let authorization = match (variable("SLMC_CACHE_TOKEN"), user) {
            (Some(token), _) => Some(format!("Bearer {token}")),
            (None, Some((user, password))) => {
                Some(format!("Basic {}", Base64::encode_to_string(format!("{user}:{password}")).unwrap_or_default()))
            }
            (None, None) => None,
        };
        if authorization.is_some() && !is_private(url) {
            return Err(fault(
                url,
                "is not https, and the credentials of the environment would be sent in the clear; use https",
            ));
        }
        let headers = authorization.map(|value| ("authorization", value)).into_iter().collect();
        Ok(HttpStore { client: Client::new(base.clone(), variable)?, base, headers })
    }

    fn blob(&self, blob: &Blob) -> String {
        format!("{}/cas/{}", self.base, blob.digest)
    }

    fn key(&self, key: &Digest) -> String {
        format!("{}/ac/{key}", self.base)
    }
}

/// Whether nobody else can listen: TLS, or this machine.
pub(super) fn is_private(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return true };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let host = host.map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

impl Store for HttpStore {
    fn name(&self) -> String {
        self.client.name().to_owned()
    }

    fn has(&self, blob: &Blob) -> Result<bool, StoreError> {
        Ok(self.client.head(&self.blob(blob), &self.headers)?.is_some())
    }

    fn get(&self, blob: &Blob, into: &mut dyn Write) -> Result<bool, StoreError> {
        self.client.get(&self.blob(blob), &self.headers, blob.size, into)
    }

    fn put(&self, blob: &Blob, content: &mut dyn Read) -> Result<(), StoreError> {
        self.client.put(&self.blob(blob), &self.headers, blob.size, content)
    }

    fn entry(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let mut entry = Vec::new();
        let there = self.client.get(&self.key(key), &self.headers, LONGEST_ENTRY, &mut entry)?;
        Ok(there.then_some(entry))
    }

    fn put_entry(&self, key: &Digest, mut entry: &[u8]) -> Result<(), StoreError> {
        self.client.put(&self.key(key), &self.headers, entry.len() as u64, &mut entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_ends() {
        let mut bytes: &[u8] = &[7; 40];
        let mut dripping = Paced::new(&mut bytes, Duration::from_millis(20));
        let mut one = [0; 1];
        assert_eq!(dripping.read(&mut one).expect("in time"), 1);
        std::thread::sleep(Duration::from_millis(60));
        let error = dripping.read(&mut one).expect_err("too slow");
        assert!(error.kind() == io::ErrorKind::TimedOut && error.to_string().contains("only 1 bytes"), "{error}");
        // What moved at the rate or above goes on.
        let mut fast = Paced { bytes: 100 * LEAST_RATE, ..Paced::new(&mut bytes, Duration::ZERO) };
        assert_eq!(fast.read(&mut one).expect("in time"), 1);
    }

    #[test]
    fn credentials_are_not_sent_in_the_clear() {
        let variable = |name: &str| (name == "SLMC_CACHE_TOKEN").then(|| "hidden".to_owned());
        for (url, private) in [
            ("https://cache/slmc", true),
            ("http://127.0.0.1:8080/slmc", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("http://cache/slmc", false),
            ("http://127.0.0.1.example.org/", false),
        ] {
            assert_eq!(is_private(url), private, "{url}");
            let said = HttpStore::new(url, &variable).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.is_empty() == private && !said.contains("hidden"), "{said}");
        }
        assert!(
            HttpStore::new("https://cache/?sig=hidden", &variable)
                .err()
                .is_some_and(|error| !error.to_string().contains("hidden"))
        );
    }
}
