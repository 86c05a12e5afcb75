//! A connection from its beginning to its end: how long its client may take, and whether it counts as broken.

use crate::http::Answer;
use crate::metrics::Metrics;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;

/// Serves a connection to its end; once `stopping` changes, to the end of the answer under way.
pub async fn attend<F: Future<Output = Result<Answer, Infallible>>>(
    stream: TcpStream,
    patience: Duration,
    answer: impl Fn(Request<Incoming>) -> F,
    mut stopping: watch::Receiver<()>,
    metrics: &Metrics,
) {
    // Pieces of a stream are small and should not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(64 << 10);
    let asked = &AtomicBool::new(false);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        answer(request)
    });
    let mut connection = protocol.serve_connection(TokioIo::new(Box::pin(stream)), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopping.changed() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    // The time for a head begins with the end of the answer before. A client that keeps its connection for a next request,
    // as Prometheus does, broke nothing; an empty line after a body, as old ones send, is no beginning of a head.
    let waited = || asked.load(Ordering::Relaxed) && connection.into_parts().read_buf.trim_ascii().is_empty();
    if !(error.is_timeout() && waited()) {
        metrics.broken(&error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt, Full};
    use hyper::Response;
    use std::io::{Read, Write};
    use std::time::Instant;
    use tokio::net::TcpListener;

    /// Longer than a client's thread waits for its turn on a busy machine.
    const SHORT: Duration = Duration::from_secs(1);
    /// Longer than any test waits.
    const LONG: Duration = Duration::from_secs(600);
    const TEXT: &[u8] = b"\r\n\r\n......";
    /// Bytes of an answer that is longer than what a system holds for a client that does not read.
    const MUCH: usize = 64 << 20;

    /// The series of broken connections that grew while a client had one. `/much` has a long answer; `/stop` stops the server
    /// before it is answered.
    fn broken(patience: Duration, client: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) -> Vec<String> {
        let metrics = Metrics::new(1, 1);
        let stop = &watch::Sender::new(());
        let answer = |request: Request<Incoming>| async move {
            if request.uri().path() == "/stop" {
                stop.send_replace(());
            }
            let length = if request.uri().path() == "/much" { MUCH } else { 6 };
            request.into_body().collect().await.expect("clients send whole bodies");
            Ok(Response::new(UnsyncBoxBody::new(Full::from(vec![b'.'; length]))))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it listens");
            let client = std::thread::spawn(move || {
                client(&mut std::net::TcpStream::connect(address).expect("somebody listens"));
            });
            let (stream, _) = listener.accept().await.expect("a client");
            attend(stream, patience, answer, stop.subscribe(), &metrics).await;
            client
        });
        client.join().expect("the client saw what it should");
        let page = metrics.page();
        let series = page.lines().filter_map(|line| line.strip_prefix("slm_broken_connections_total"));
        series.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
    }

    fn ask(stream: &mut std::net::TcpStream, request: &str) {
        stream.write_all(request.as_bytes()).expect("the connection is open");
        let mut answer = Vec::new();
        while !answer.ends_with(TEXT) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
    }

    /// Waits for the server to close.
    fn wait(stream: &mut std::net::TcpStream) {
        // Bytes that the server did not read make it a reset.
        let _ = stream.read_to_end(&mut Vec::new());
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const TIMEOUT: &str = "{reason=\"timeout\"} 1";

    #[test]
    fn a_connection_that_waits_for_its_next_request_is_not_broken() {
        let none: [&str; 0] = [];
        let twice = |stream: &mut std::net::TcpStream| {
            ask(stream, GET);
            ask(stream, GET);
            wait(stream);
        };
        assert_eq!(broken(SHORT, twice), none);
        let with_a_line = |stream: &mut std::net::TcpStream| {
            ask(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1\r\n");
            wait(stream);
        };
        assert_eq!(broken(SHORT, with_a_line), none);
        assert_eq!(broken(LONG, |stream| ask(stream, GET)), none);
    }

    #[test]
    fn a_request_that_does_not_come_is_a_timeout() {
        assert_eq!(broken(SHORT, wait), [TIMEOUT]);
        let half = |stream: &mut std::net::TcpStream| {
            stream.write_all(&GET.as_bytes()[..9]).expect("the connection is open");
            wait(stream);
        };
        assert_eq!(broken(SHORT, half), [TIMEOUT]);
        let a_half_later = move |stream: &mut std::net::TcpStream| {
            ask(stream, GET);
            half(stream);
        };
        assert_eq!(broken(SHORT, a_half_later), [TIMEOUT]);
        // Its beginning comes with the request before.
        let a_half_at_once = |stream: &mut std::net::TcpStream| {
            ask(stream, &[GET, &GET[..9]].concat());
            wait(stream);
        };
        assert_eq!(broken(SHORT, a_half_at_once), [TIMEOUT]);
    }

    #[test]
    fn an_answer_that_is_not_taken_is_a_timeout() {
        let untaken = |stream: &mut std::net::TcpStream| {
            stream.write_all(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n").expect("the connection is open");
            std::thread::sleep(4 * SHORT);
        };
        assert_eq!(broken(SHORT, untaken), [TIMEOUT]);
    }

    #[test]
    fn what_is_not_http_has_its_own_reason() {
        let other = |stream: &mut std::net::TcpStream| {
            ask(stream, GET);
            stream.write_all(b"\x16\x03\x01 something else\r\n\r\n").expect("the connection is open");
            wait(stream);
        };
        assert_eq!(broken(LONG, other), ["{reason=\"not_http\"} 1"]);
    }

    #[test]
    fn a_stop_ends_a_connection_after_its_answer() {
        let none: [&str; 0] = [];
        let begin = Instant::now();
        let stopped = |stream: &mut std::net::TcpStream| {
            ask(stream, GET);
            ask(stream, "GET /stop HTTP/1.1\r\nhost: x\r\n\r\n");
            wait(stream);
        };
        assert_eq!(broken(LONG, stopped), none);
        assert!(begin.elapsed() < LONG / 2);
    }
}
