//! As much of HTTP/1.1 as the clients need, by hand, so that they can be slow, break off, and send what no library would.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for anything: longer than a full queue of a large model takes on a busy machine.
pub const WAIT: Duration = Duration::from_secs(300);

/// A response.
pub struct Response {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When the first piece of a body in pieces came.
    pub first: Option<Instant>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// The sentence of an error in the API's shape.
    pub fn sentence(&self) -> Result<String, String> {
        let body = self.json()?;
        let message = body["error"]["message"].as_str().filter(|message| message.len() > 10);
        message.map(str::to_owned).ok_or_else(|| format!("status {} without a sentence: {body}", self.status))
    }

    /// The values of a stream of events, which must end as one does.
    pub fn events(&self) -> Result<Vec<Value>, String> {
        let text = std::str::from_utf8(&self.body).map_err(|error| error.to_string())?;
        let events: Option<Vec<&str>> =
            text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ")).collect();
        match events.as_deref() {
            Some([events @ .., "[DONE]"]) => {
                events.iter().map(|event| serde_json::from_str(event).map_err(|error| error.to_string())).collect()
            }
            _ => Err(format!("not a stream of events to its end: {text}")),
        }
    }
}

/// How fast a client reads and writes.
#[derive(Clone, Copy)]
pub struct Pace {
    pub bytes: usize,
    pub pause: Duration,
}

/// As fast as it goes.
pub const FAST: Pace = Pace { bytes: 1 << 16, pause: Duration::ZERO };

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    pace: Pace,
}

impl Client {
    pub fn connect(address: SocketAddr, pace: Pace) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: Vec::new(), pace })
    }

    /// The head of a request with a body of so many bytes.
    pub fn head(method: &str, path: &str, length: usize) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    }

    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<()> {
        let bytes = [Client::head(method, path, body.len()).as_bytes(), body].concat();
        for part in bytes.chunks(self.pace.bytes) {
            self.stream.write_all(part)?;
            std::thread::sleep(self.pace.pause);
        }
        Ok(())
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        self.send(method, path, body)?;
        self.receive()
    }

    /// Reads more; `false` at the end of the connection.
    pub fn fill(&mut self) -> io::Result<bool> {
        std::thread::sleep(self.pace.pause);
        let mut part = vec![0; self.pace.bytes];
        let count = loop {
            match self.stream.read(&mut part) {
                // A process that was stopped and goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.extend_from_slice(&part[..count]);
        Ok(count > 0)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    pub fn receive(&mut self) -> io::Result<Response> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let status = self.line()?;
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let mut response =
            Response { status: status.ok_or_else(wrong)?, headers: Vec::new(), body: Vec::new(), first: None };
        loop {
            let line = self.line()?;
            let Some((key, value)) = line.split_once(':') else { break };
            response.headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let length = usize::from_str_radix(&self.line()?, 16).map_err(|_| wrong())?;
                let part = self.exactly(length + 2)?;
                response.first.get_or_insert_with(Instant::now);
                if length == 0 {
                    return Ok(response);
                }
                response.body.extend_from_slice(&part[..length]);
            }
        }
        let length = response.header("content-length").map_or(Ok(0), str::parse).map_err(|_| wrong())?;
        response.body = self.exactly(length)?;
        Ok(response)
    }
}
