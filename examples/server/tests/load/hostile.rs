//! What no client should send, each with what the server must answer: an error in the API's shape, or the end of the
//! connection within its time.

use super::client::{Client, FAST, Pace, WAIT};
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What came of an attack.
pub enum Answer {
    /// A status, with a sentence; the request was complete enough to be counted.
    Status(u16),
    /// The connection was closed before there was a request.
    Closed,
}

/// Seconds that the server waits, as it was started.
pub struct Hostile {
    pub address: SocketAddr,
    pub path: &'static str,
    pub patience: Duration,
    pub context: usize,
}

/// Number of attacks.
pub const ATTACKS: usize = 22;

impl Hostile {
    fn client(&self) -> Result<Client, String> {
        Client::connect(self.address, FAST).map_err(|error| format!("no connection: {error}"))
    }

    /// A body that is refused with a status.
    fn refused(&self, method: &str, path: &str, body: &[u8], status: u16) -> Result<Answer, String> {
        let response = self.client()?.ask(method, path, body).map_err(|error| format!("no answer: {error}"))?;
        let sentence = response.sentence()?;
        match response.status == status {
            true => Ok(Answer::Status(status)),
            false => Err(format!("expected status {status}, got {}: {sentence}", response.status)),
        }
    }

    fn json(&self, body: serde_json::Value, status: u16) -> Result<Answer, String> {
        self.refused("POST", self.path, body.to_string().as_bytes(), status)
    }

    /// Bytes that are not a request: the connection ends, with or without a status.
    fn closed(&self, bytes: &[u8], pace: Pace) -> Result<Answer, String> {
        let mut client = self.client()?;
        let begin = Instant::now();
        for part in bytes.chunks(pace.bytes) {
            // A server that has closed already has done what it should.
            if client.stream.write_all(part).is_err() {
                return Ok(Answer::Closed);
            }
            std::thread::sleep(pace.pause);
        }
        while client.fill().unwrap_or(false) {}
        match begin.elapsed() < self.patience + Duration::from_secs(15) && begin.elapsed() < WAIT {
            true => Ok(Answer::Closed),
            false => Err(format!("the connection was open for {:?}", begin.elapsed())),
        }
    }

    /// A head that promises more than comes.
    fn unfinished(&self) -> Result<Answer, String> {
        let mut client = self.client()?;
        let head = Client::head("POST", self.path, 1000);
        let sent = client.stream.write_all(head.as_bytes()).and_then(|()| client.stream.write_all(b"{\"prompt\": \""));
        sent.map_err(|error| error.to_string())?;
        let response = client.receive().map_err(|error| format!("no answer: {error}"))?;
        response.sentence()?;
        match response.status {
            408 => Ok(Answer::Status(408)),
            other => Err(format!("expected status 408, got {other}")),
        }
    }

    /// A length of a piece of a body that is none.
    fn bad_chunk(&self) -> Result<Answer, String> {
        let mut client = self.client()?;
        let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", self.path);
        client.stream.write_all(head.as_bytes()).map_err(|error| error.to_string())?;
        let response = client.receive().map_err(|error| format!("no answer: {error}"))?;
        match response.status {
            400 => Ok(Answer::Status(400)),
            other => Err(format!("expected status 400, got {other}")),
        }
    }

    pub fn attack(&self, number: usize) -> Result<Answer, String> {
        let key = if self.path == "/v1/completions" { "prompt" } else { "input" };
        let long = "tale ".repeat(2 * self.context);
        let slow = Pace { bytes: 1, pause: Duration::from_millis(100) };
        match number {
            0 => self.refused("POST", self.path, b"once upon a time", 400),
            1 => self.refused("POST", self.path, b"{\"prompt\": \"\xc3\x28\"}", 400),
            2 => self.refused("POST", self.path, b"[1, 2, 3]", 400),
            3 => self.refused("POST", self.path, &vec![b'['; 100_000], 400),
            4 => self.refused("POST", self.path, &vec![b' '; (1 << 20) + (1 << 16)], 413),
            5 => self.refused("GET", self.path, b"", 405),
            6 => self.refused("POST", "/v1/../etc/passwd", b"{}", 404),
            7 => self.json(json!({key: 5}), 400),
            8 => self.json(json!({key: "x", "model": "gpt-17"}), 404),
            9 => self.json(json!({key: "x", "nonsense": 1}), 400),
            10 => self.json(json!({key: long}), 400),
            11 => self.json(json!({key: [4_000_000_000u32]}), 400),
            12 => self.json(json!({key: [-1, 2]}), 400),
            13 => self.json(json!({}), 400),
            14 if key == "prompt" => self.json(json!({key: "x", "max_tokens": -5}), 400),
            15 if key == "prompt" => self.json(json!({key: "x", "temperature": "hot", "stream": true}), 400),
            16 if key == "prompt" => self.json(json!({key: "x", "stop": [""]}), 400),
            14..=16 => self.json(json!({key: ["x", {"y": 1}]}), 400),
            17 => self.bad_chunk(),
            18 => self.unfinished(),
            19 => self.closed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not HTTP at all\r\n\r\n", FAST),
            20 => self.closed(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000)).as_bytes(), FAST),
            _ => self.closed(&b"GET / HTTP/1.1\r\nx-slow: ".repeat(20), slow),
        }
    }
}
