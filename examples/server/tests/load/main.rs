//! A load test: starts the server on a free port, asks it from many threads at once, some of them slow, some that break off,
//! some hostile, checks every answer against one computed here, and in the end the server's own numbers against those of the
//! clients. The last line is a summary as JSON.
//!
//!     cargo test --release --test load -- ARTIFACT --seconds 60

mod client;
mod hostile;
mod oracle;

use clap::Parser;
use client::{Client, FAST, Pace, Response};
use hostile::{ATTACKS, Answer, Hostile};
use oracle::{Case, Expected};
use serde_json::{Value, json};
use slm_runtime::sample::random_u64;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Asks a server from many threads and checks every answer
#[derive(Parser)]
struct Args {
    /// The artifact to serve
    artifact: String,
    /// How long to ask
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Clients at once; of ten, one is slow, one breaks off and one is hostile
    #[arg(long, default_value_t = 50)]
    clients: u64,
    /// Seed of what they ask
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests that may wait
    #[arg(long, default_value_t = 32)]
    queue: usize,
    /// The server's --patience
    #[arg(long, default_value_t = 3)]
    patience: u64,
    /// Given by `cargo test` to every test
    #[arg(long, hide = true)]
    quiet: bool,
}

/// What clients saw, all together.
#[derive(Default)]
struct Seen {
    /// Requests whose head was sent whole.
    sent: u64,
    /// Of these, those that were broken off.
    broken_off: u64,
    /// Connections that ended without a request.
    closed: u64,
    /// Requests by the outcome that the server should have counted.
    outcomes: BTreeMap<&'static str, u64>,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// Seconds to the first piece of streams.
    first: Vec<f64>,
    faults: Vec<String>,
}

impl Seen {
    fn count(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }
}

/// The server as a process of its own; it ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Load {
    address: SocketAddr,
    cases: Vec<Case>,
    labels: Vec<String>,
    hostile: Hostile,
    seed: u64,
    end: Instant,
    seen: Mutex<Seen>,
}

impl Load {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().expect("no thread panics with it"));
    }

    fn fault(&self, what: String) {
        self.note(|seen| seen.faults.push(what));
    }

    /// Whether an answer is the one expected; what is wrong where it is not. Returns its tokens.
    fn check(&self, case: &Case, response: &Response) -> Result<(u64, u64), String> {
        let streamed = response.header("content-type") == Some("text/event-stream");
        let (text, finish, usage, rows) = match (&case.expected, streamed) {
            (Expected::Text { .. }, true) => {
                let events = response.events()?;
                let text: String = events
                    .iter()
                    .map(|event| {
                        let choice = &event["choices"][0];
                        choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default()
                    })
                    .collect();
                let finish = events.iter().find_map(|event| event["choices"][0]["finish_reason"].as_str());
                let usage = events.last().map_or(Value::Null, |event| event["usage"].clone());
                (text, finish.map(str::to_owned), usage, Vec::new())
            }
            (Expected::Text { .. }, false) => {
                let body = response.json()?;
                let choice = &body["choices"][0];
                let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap_or_default();
                (
                    text.to_owned(),
                    choice["finish_reason"].as_str().map(str::to_owned),
                    body["usage"].clone(),
                    Vec::new(),
                )
            }
            (Expected::Rows(_), _) => {
                let body = response.json()?;
                let data = body["data"].as_array().cloned().unwrap_or_default();
                (String::new(), None, body["usage"].clone(), data)
            }
        };
        let different = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Err(format!("{}: {what} of {}: expected {expected:?}, got {found:?}", case.path, case.body))
        };
        let prompt_tokens = usage["prompt_tokens"].as_u64();
        if prompt_tokens != Some(case.prompt_tokens as u64) {
            return different("prompt tokens", &case.prompt_tokens, &usage);
        }
        match &case.expected {
            Expected::Text { text: expected, tokens, finish: end, .. } => {
                if text != *expected {
                    return different("text", expected, &text);
                }
                if finish.as_deref() != Some(*end) {
                    return different("finish_reason", end, &finish);
                }
                // With a stop sequence the tokens are as many as it took to write it.
                if *tokens > 0 && usage["completion_tokens"].as_u64() != Some(*tokens as u64) {
                    return different("tokens", tokens, &usage);
                }
            }
            Expected::Rows(expected) => {
                if rows.len() != expected.len() {
                    return different("rows", &expected.len(), &rows.len());
                }
                for (expected, row) in expected.iter().zip(&rows) {
                    let same = match row["embedding"].as_str() {
                        Some(text) => base64_floats(text).as_deref() == Some(expected.as_slice()),
                        None => {
                            let largest = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                            let label = expected.iter().position(|&logit| logit == largest);
                            label.map(|label| self.labels[label].as_str()) == row["label"].as_str()
                        }
                    };
                    if !same {
                        return different("row", expected, row);
                    }
                }
            }
        }
        Ok((case.prompt_tokens as u64, usage["completion_tokens"].as_u64().unwrap_or(0)))
    }

    /// A client that asks and checks, one request after the other.
    fn honest(&self, number: u64, pace: Pace) {
        let mut kept: Option<Client> = None;
        for turn in 0.. {
            if Instant::now() >= self.end {
                return;
            }
            let draw = random_u64(self.seed ^ number << 32, turn);
            let case = &self.cases[(draw % self.cases.len() as u64) as usize];
            let mut body = case.body.clone();
            let stream = matches!(case.expected, Expected::Text { .. }) && draw >> 32 & 1 == 1;
            if stream {
                body["stream"] = json!(true);
                body["stream_options"] = json!({"include_usage": true});
            }
            let body = body.to_string();
            // Half of the requests go over the connection of the one before. The server closes one that is idle for longer than
            // its patience; what is sent into one that it has closed never reached it, and goes over another.
            let again = kept.take().filter(|_| draw >> 33 & 1 == 1).and_then(|mut client| {
                let response = client.ask("POST", case.path, body.as_bytes()).ok()?;
                Some((client, response))
            });
            let begin = Instant::now();
            let fresh = || {
                let mut client = Client::connect(self.address, pace)?;
                let response = client.ask("POST", case.path, body.as_bytes())?;
                Ok::<_, std::io::Error>((client, response))
            };
            let (client, response) = match again.map_or_else(fresh, Ok) {
                Ok(answered) => answered,
                Err(error) => return self.fault(format!("a request without an answer: {error}; {body}")),
            };
            self.note(|seen| seen.sent += 1);
            match response.status {
                200 => match self.check(case, &response) {
                    Ok((prompt, completion)) => self.note(|seen| {
                        seen.count("answered");
                        seen.prompt_tokens += prompt;
                        seen.completion_tokens += completion;
                        seen.first.extend(response.first.filter(|_| stream).map(|first| (first - begin).as_secs_f64()));
                    }),
                    Err(wrong) => self.fault(wrong),
                },
                429 => {
                    self.note(|seen| seen.count("rejected"));
                    let wait = response.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
                    match (wait, response.sentence()) {
                        (Some(seconds @ 1..), Ok(_)) => {
                            let left = self.end.saturating_duration_since(Instant::now());
                            std::thread::sleep(Duration::from_secs(seconds).min(left));
                        }
                        other => self.fault(format!("429 without Retry-After or a sentence: {other:?}")),
                    }
                }
                other => self.fault(format!("status {other} for {body}: {}", String::from_utf8_lossy(&response.body))),
            }
            kept = Some(client);
        }
    }

    /// A client that goes away: in the middle of the body, after it, or after the first piece of the answer.
    fn breaking_off(&self, number: u64) {
        for turn in 0.. {
            if Instant::now() >= self.end {
                return;
            }
            let draw = random_u64(self.seed ^ number << 32, turn);
            let case = &self.cases[(draw % self.cases.len() as u64) as usize];
            let mut body = case.body.clone();
            if matches!(case.expected, Expected::Text { .. }) {
                body["stream"] = json!(true);
            }
            let body = body.to_string();
            let gone = Client::connect(self.address, FAST).and_then(|mut client| {
                self.note(|seen| (seen.sent, seen.broken_off) = (seen.sent + 1, seen.broken_off + 1));
                match turn % 3 {
                    0 => {
                        use std::io::Write;
                        client.stream.write_all(Client::head("POST", case.path, body.len()).as_bytes())?;
                        client.stream.write_all(&body.as_bytes()[..body.len() / 2])?;
                    }
                    1 => client.send("POST", case.path, body.as_bytes())?,
                    _ => {
                        client.send("POST", case.path, body.as_bytes())?;
                        client.fill()?;
                    }
                }
                // The server must have seen the head, or there is nothing to count.
                std::thread::sleep(Duration::from_millis(100));
                Ok(())
            });
            if let Err(error) = gone {
                return self.fault(format!("a request could not be broken off: {error}"));
            }
        }
    }

    fn attacking(&self, number: u64) {
        for turn in 0.. {
            if Instant::now() >= self.end {
                return;
            }
            let attack = (number as usize + turn) % ATTACKS;
            match self.hostile.attack(attack) {
                Ok(Answer::Status(status)) => self.note(|seen| {
                    seen.sent += 1;
                    seen.count(if status == 408 { "late" } else { "refused" });
                }),
                Ok(Answer::Closed) => self.note(|seen| seen.closed += 1),
                Err(wrong) => return self.fault(format!("attack {attack}: {wrong}")),
            }
        }
    }
}

fn base64_floats(text: &str) -> Option<Vec<f32>> {
    use base64::Engine;
    let bytes = base64::prelude::BASE64_STANDARD.decode(text).ok()?;
    Some(bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect())
}

/// The sum of a metric over all series whose labels contain a text.
fn metric(page: &str, name: &str, label: &str) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines = page.lines().filter(of_name).filter(|line| line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn get(address: SocketAddr, path: &str) -> Result<Response, String> {
    let mut client = Client::connect(address, FAST).map_err(|error| error.to_string())?;
    client.ask("GET", path, b"").map_err(|error| format!("{path}: {error}"))
}

/// The server's numbers, once nothing is under way.
fn settled(address: SocketAddr) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        let page = String::from_utf8_lossy(&get(address, "/metrics")?.body).into_owned();
        let quiet = metric(&page, "slm_connections", "") == 1.0 && metric(&page, "slm_queue_length", "") == 0.0;
        if quiet {
            return Ok(page);
        }
        if begin.elapsed() > Duration::from_secs(60) {
            return Err("connections or a queue are left after 60 s".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A metric now.
fn number(address: SocketAddr, name: &str) -> Result<f64, String> {
    Ok(metric(&String::from_utf8_lossy(&get(address, "/metrics")?.body), name, ""))
}

/// A connection that is kept for a next request: the server closes it after its patience, and it is not broken.
fn kept(address: SocketAddr) -> Result<(), String> {
    let broken = || number(address, "slm_broken_connections_total");
    let before = broken()?;
    let mut client = Client::connect(address, FAST).map_err(|error| error.to_string())?;
    client.ask("GET", "/health/live", b"").map_err(|error| error.to_string())?;
    while client.fill().unwrap_or(false) {}
    match broken()? - before {
        0.0 => Ok(()),
        more => Err(format!("{more} connections are broken after one that waited for its next request")),
    }
}

/// Passes of answers that are asked for one by one, without guesses: one for each choice but the first.
fn passes(load: &Load) -> Result<(), String> {
    for case in &load.cases {
        let Expected::Text { passes: Some(passes), .. } = case.expected else { continue };
        let before = number(load.address, "slm_passes_total")?;
        let mut body = case.body.clone();
        body["drafts"] = json!(false);
        let mut client = Client::connect(load.address, FAST).map_err(|error| error.to_string())?;
        let response = client.ask("POST", case.path, body.to_string().as_bytes()).map_err(|error| error.to_string())?;
        load.check(case, &response)?;
        let counted = number(load.address, "slm_passes_total")? - before;
        if counted != passes as f64 {
            return Err(format!("{body} takes {passes} passes after its prompt, and the server counted {counted}"));
        }
    }
    Ok(())
}

/// The sums of both sides.
fn compare(page: &str, seen: &mut Seen) {
    let v1 = "endpoint=\"/v1/";
    let counted = |outcome: &str| {
        let line =
            |line: &&str| line.starts_with("slm_requests_total") && line.contains(&format!("outcome=\"{outcome}\""));
        let ours = |line: &&str| line.contains(v1) || line.contains("endpoint=\"other\"");
        let lines = page.lines().filter(line).filter(ours);
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let (mut total, mut beyond) = (0, 0);
    for outcome in ["answered", "refused", "late", "rejected", "failed", "dropped"] {
        let (server, clients) = (counted(outcome), seen.outcomes.get(outcome).copied().unwrap_or(0));
        total += server;
        match server.checked_sub(clients) {
            Some(more) => beyond += more,
            None => seen.faults.push(format!("{clients} requests were {outcome}, and the server counted {server}")),
        }
    }
    if total != seen.sent {
        seen.faults.push(format!("{} requests were sent, and the server counted {total}", seen.sent));
    }
    if beyond != seen.broken_off {
        seen.faults.push(format!(
            "{} requests were broken off, and the server has {beyond} that no client saw end",
            seen.broken_off
        ));
    }
    // Those that were broken off may have been answered in part.
    let most = |name: &str, clients: u64, each: u64| {
        let server = metric(page, name, "") as u64;
        let fits = (clients..=clients + seen.broken_off * each).contains(&server);
        (!fits).then(|| format!("{name} is {server}, and the clients saw {clients}"))
    };
    let wrong = [
        most("slm_completion_tokens_total", seen.completion_tokens, 1000),
        most("slm_prompt_tokens_total", seen.prompt_tokens, 1000),
    ];
    seen.faults.extend(wrong.into_iter().flatten());
    let broken = metric(page, "slm_broken_connections_total", "") as u64;
    if broken < seen.closed {
        seen.faults
            .push(format!("{} connections ended without a request, and the server counted {broken}", seen.closed));
    }
    let dashboard = include_str!("../../dashboard.json");
    for word in dashboard.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
        if word.starts_with("slm_") && !page.contains(word) {
            seen.faults.push(format!("the dashboard shows {word}, which the server does not have"));
        }
    }
}

/// The end: an answer under way is finished, and the program ends well.
fn ending(load: &Load, server: &mut Server) -> Result<(), String> {
    let case = &load.cases[0];
    let mut client = Client::connect(load.address, FAST).map_err(|error| error.to_string())?;
    client.send("POST", case.path, case.body.to_string().as_bytes()).map_err(|error| error.to_string())?;
    // Long enough for the head to arrive, and shorter than most answers.
    std::thread::sleep(Duration::from_millis(20));
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status();
    if !told.is_ok_and(|status| status.success()) {
        return Err("the server could not be told to end".to_owned());
    }
    let response = client.receive().map_err(|error| format!("no answer at the end: {error}"))?;
    load.check(case, &response)?;
    let begin = Instant::now();
    loop {
        match server.0.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the server ended with {status}")),
            None if begin.elapsed() > Duration::from_secs(20) => return Err("the server did not end".to_owned()),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn start(args: &Args) -> Result<(Server, SocketAddr), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slm-server"));
    command.args([&args.artifact, "--listen", "127.0.0.1:0", "--name", "tested"]);
    command.args(["--queue", &args.queue.to_string(), "--patience", &args.patience.to_string()]);
    let mut server = Server(command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?);
    let mut line = String::new();
    let said = server.0.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
    let address = line.trim().strip_prefix("listening on http://").and_then(|address| address.parse().ok());
    let address = address.ok_or_else(|| format!("the server did not say where it listens: {said:?} {line:?}"))?;
    let begin = Instant::now();
    while get(address, "/health/ready")?.status != 200 {
        if begin.elapsed() > Duration::from_secs(60) {
            return Err("the server was not ready after 60 s".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((server, address))
}

fn run(args: &Args) -> Result<(), String> {
    let view = oracle::open(&args.artifact)?;
    let cases = oracle::cases(&view, "tested");
    let (mut server, address) = start(args)?;
    kept(address)?;
    let path = if cases[0].path == "/v1/chat/completions" { "/v1/completions" } else { cases[0].path };
    let (patience, context) = (Duration::from_secs(args.patience), view.spec().context as usize);
    let hostile = Hostile { address, path, patience, context };
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let labels = oracle::labels(&view);
    let load = Load { address, cases, labels, hostile, seed: args.seed, end, seen: Mutex::default() };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..args.clients {
            let load = &load;
            scope.spawn(move || match number % 10 {
                7 => load.honest(number, Pace { bytes: 48, pause: Duration::from_millis(3) }),
                8 => load.breaking_off(number),
                9 => load.attacking(number),
                _ => load.honest(number, FAST),
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let page = settled(address)?;
    let ready = get(address, "/health/ready")?.status;
    let alone = passes(&load);
    let ended = ending(&load, &mut server);
    let mut seen = std::mem::take(&mut *load.seen.lock().expect("all threads have ended"));
    if ready != 200 {
        seen.faults.push(format!("the server's health is {ready} at the end"));
    }
    seen.faults.extend(alone.err());
    seen.faults.extend(ended.err());
    compare(&page, &mut seen);
    seen.first.sort_by(f64::total_cmp);
    let quantile = |share: f64| seen.first.get((seen.first.len() as f64 * share) as usize).copied();
    let drafted = metric(&page, "slm_drafted_tokens_total", "");
    println!(
        "{}",
        json!({
            "seconds": seconds,
            "clients": args.clients,
            "cases": load.cases.len(),
            "sent": seen.sent,
            "broken_off": seen.broken_off,
            "closed_without_request": seen.closed,
            "outcomes": seen.outcomes,
            "dropped_by_server": metric(&page, "slm_requests_total", "dropped"),
            "prompt_tokens": seen.prompt_tokens,
            "cached_tokens": metric(&page, "slm_cached_tokens_total", ""),
            "completion_tokens": seen.completion_tokens,
            "completion_tokens_per_s": seen.completion_tokens as f64 / seconds,
            "drafted": drafted,
            "confirmed": metric(&page, "slm_confirmed_tokens_total", ""),
            "first_piece_s": {"p50": quantile(0.5), "p95": quantile(0.95)},
            "faults": seen.faults.len(),
        })
    );
    let answered = seen.outcomes.get("answered").copied().unwrap_or(0);
    if answered == 0 {
        seen.faults.push("nothing was answered".to_owned());
    }
    match seen.faults.as_slice() {
        [] => Ok(()),
        faults => Err(format!("{} faults; the first: {}", faults.len(), faults[..faults.len().min(5)].join("\n"))),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
