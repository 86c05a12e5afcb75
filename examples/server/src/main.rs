//! Serves one `.slm` artifact over HTTP in the shape of the OpenAI API.
//!
//! ```text
//! connections (tokio) ── request, checked and tokenized ──> bounded queue ──> worker (a thread, the session) ──┐
//!        └── answer, whole or in pieces <── a channel of its own for each request, text and an end <───────────┘
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `main` | options, the listener, the end |
//! | `connection` | one of them: limits of time, broken ones |
//! | `http` | places, bodies, responses, streams of events |
//! | `api`, `shape`, `error` | requests, answers and errors in the API's shape |
//! | `model` | the artifact, tokens of texts and conversations |
//! | `worker`, `writing`, `drafts` | the session: one job after the other |
//! | `text` | whole characters, stop sequences |
//! | `metrics` | Prometheus |

mod api;
mod connection;
mod drafts;
mod error;
mod http;
mod memory;
mod metrics;
mod model;
mod shape;
mod text;
mod worker;
mod writing;

use clap::Parser;
use http::Server;
use model::Model;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use worker::Settings;

/// Serves one .slm artifact over HTTP in the shape of the OpenAI API
///
/// Decoders answer /v1/completions and, where they have a chat frame, /v1/chat/completions; encoders /v1/embeddings;
/// classifiers /v1/classify. /metrics is for Prometheus, /health/live and /health/ready for whoever starts the program. It
/// has neither authentication nor TLS: put a proxy in front of it where others can reach it.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The artifact, as `slmc compile` wrote it
    artifact: PathBuf,
    /// Address to listen at; port 0 takes a free one, which is printed
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Name of the model in requests [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// Requests that wait while one is answered; further ones get 429
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// Most guesses of next tokens in a pass, 0 for none
    #[arg(long, value_name = "N", default_value_t = 7)]
    drafts: usize,
    /// Threads of the model [default: as many as the machine runs at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    threads: Option<u8>,
    /// Bytes of the longest body of a request
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    body_bytes: usize,
    /// Connections at a time; further ones wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Seconds that a client has for the head of a request, for its body, and to take a piece of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    /// Seconds for answers under way when the program is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Blocking threads make requests ready; a few suffice, and bound what tokenizing takes of memory.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(4).enable_all().build();
    let served =
        runtime.map_err(|error| format!("no threads: {error}")).and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn serve(args: Args) -> Result<(), String> {
    let model = Model::open(&args.artifact, args.name)?;
    let (queue, jobs) = mpsc::channel(usize::from(args.queue));
    let patience = Duration::from_secs(args.patience);
    let server = Arc::new(Server::new(model, queue, args.body_bytes, patience));
    let unusable = |error| format!("{}: cannot be listened at: {error}", args.listen);
    let listener = TcpListener::bind(args.listen).await.map_err(unusable)?;
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let settings = Settings { threads, drafts: args.drafts };
    let (done, mut worker) = oneshot::channel();
    let of_worker = Arc::clone(&server);
    let started = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
        let Server { model, health, metrics, .. } = &*of_worker;
        // Nobody may be there to hear it.
        let _ = done.send(worker::run(model, settings, jobs, health, metrics));
    });
    started.map_err(|error| format!("the model's thread cannot be started: {error}"))?;
    println!("listening on http://{}", listener.local_addr().map_err(unusable)?);

    let (stop, places) = (watch::Sender::new(()), Arc::new(Semaphore::new(usize::from(args.connections))));
    let ended =
        |worker: Result<Result<(), String>, _>| worker.unwrap_or_else(|_| Err("the model's thread died".to_owned()));
    let mut end = std::pin::pin!(told_to_end());
    loop {
        let accepted = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut end => break,
            result = &mut worker => return ended(result),
        };
        let Ok((stream, _)) = accepted else {
            // As many files as the system allows are open, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (serving, stopping) = (Arc::clone(&server), stop.subscribe());
        server.metrics.connections.inc();
        tokio::spawn(async move {
            let answer = |request| http::answer(Arc::clone(&serving), request);
            connection::attend(stream, patience, answer, stopping, &serving.metrics).await;
            serving.metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    server.health.stopping.store(true, Ordering::Release);
    let grace = Duration::from_secs(args.grace);
    stop.send_replace(());
    // Every connection has a receiver.
    let mut finished = std::pin::pin!(stop.closed());
    let in_time = tokio::time::timeout(grace, &mut finished).await.is_ok();
    if !in_time {
        eprintln!("warning: answers under way after {} s are cut short", args.grace);
        server.health.halted.store(true, Ordering::Release);
    }
    server.close();
    let result = ended((&mut worker).await);
    if !in_time {
        // Their ends still go out; whoever does not take them is left behind.
        let _ = tokio::time::timeout(Duration::from_secs(1), finished).await;
    }
    result
}

/// Ctrl-C, or SIGTERM where there is such a thing.
async fn told_to_end() {
    #[cfg(unix)]
    if let Ok(mut terminated) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}
