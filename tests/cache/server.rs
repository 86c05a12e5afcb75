//! Shared caches over HTTP, against a server in this file that can be slow, broken, lying or closed to writers: the outputs are
//! right, a failing server costs one warning, and no credential is in any output.

use super::{RECIPE, files, states, warnings, workshop};
use crate::support::{json_with_code, one_line, slmc, stderr};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Sound,
    /// Says nothing for longer than anyone waits.
    Silent,
    /// 500 to everything.
    Broken,
    /// 500 to every second request.
    Shaky,
    /// Closes after half of a body.
    Half,
    /// A byte in every tenth of a second, so that it never falls silent.
    Dripping,
    /// A byte of every blob is another.
    Lying,
    /// 403 to PUT.
    ReadOnly,
}

/// What it holds, what it was asked, how it behaves.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Method, path and authorization.
    requests: Vec<(String, String, Option<String>)>,
    behaviour: Option<Behaviour>,
    /// Only requests with this authorization are answered.
    authorization: Option<String>,
}

struct Server {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/slmc", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        // Ends with the process that the tests run in.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        Server { url, state }
    }

    fn behave(&self, behaviour: Behaviour) {
        let mut state = self.state.lock().expect("the server lives");
        state.behaviour = Some(behaviour);
        state.requests.clear();
    }

    fn count(&self, method: &str) -> usize {
        self.state.lock().expect("the server lives").requests.iter().filter(|(own, ..)| own == method).count()
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, content, behaviour) = {
        let mut state = state.lock().expect("the server lives");
        state.requests.push((method.clone(), path.clone(), authorization.clone()));
        let behaviour = state.behaviour.unwrap_or(Behaviour::Sound);
        let shaken = behaviour == Behaviour::Shaky && state.requests.len() % 2 == 1;
        let (status, content) = if state.authorization.is_some() && state.authorization != authorization {
            (401, Vec::new())
        } else if behaviour == Behaviour::Broken || shaken {
            (500, b"<html>".to_vec())
        } else if method == "PUT" && behaviour == Behaviour::ReadOnly {
            (403, Vec::new())
        } else if method == "PUT" {
            state.objects.insert(path.clone(), body);
            (201, Vec::new())
        } else {
            match state.objects.get(&path) {
                Some(content) => (200, content.clone()),
                None => (404, Vec::new()),
            }
        };
        (status, content, behaviour)
    };
    if behaviour == Behaviour::Silent {
        std::thread::sleep(Duration::from_secs(20));
    }
    let mut content = content;
    if behaviour == Behaviour::Lying && path.contains("/cas/") && !content.is_empty() {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    }
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len())?;
    if method != "HEAD" && behaviour == Behaviour::Dripping {
        for byte in &content {
            stream.write_all(&[*byte])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    } else if method != "HEAD" {
        let sent = if behaviour == Behaviour::Half { content.len() / 2 } else { content.len() };
        stream.write_all(&content[..sent])?;
    }
    stream.flush()
}

/// A run of the recipe with the server, as a machine that has nothing.
fn command(directory: &tempfile::TempDir, arguments: &str) -> Command {
    let mut command = slmc(directory.path(), arguments);
    let home = directory.path().join("home");
    command.env_remove("SLMC_CACHE").env("XDG_CACHE_HOME", home).env("SLMC_CACHE_TIMEOUT", "2");
    command
}

fn output(directory: &tempfile::TempDir, arguments: &str) -> Output {
    command(directory, arguments).output().expect("the program starts")
}

/// The outputs of the recipe.
fn outputs(directory: &tempfile::TempDir) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files(&directory.path().join("out"))
}

#[test]
fn a_filled_server_gives_the_outputs_on_an_empty_disk() {
    let server = Server::start();
    let (one, other) = (workshop(), workshop());
    // Reading is the default: nothing is written.
    let read = output(&one, &format!("run r.toml --json --cache {}", server.url));
    assert!(read.status.success(), "{}", stderr(&read));
    assert_eq!((states(&one_line(&read)), server.count("PUT")), (vec!["done"; 5], 0));
    let expected = outputs(&one);
    let pushed = output(&one, &format!("cache push r.toml --json --cache {}", server.url));
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    assert!(server.count("PUT") > 5);
    let plan = one_line(&output(&other, &format!("run r.toml --plan --json --cache {}", server.url)));
    assert_eq!(plan["stages"][1]["from"], server.url.as_str());
    let second = output(&other, &format!("run r.toml --json --cache {}", server.url));
    assert!(second.status.success() && warnings(&second).is_empty(), "{}", stderr(&second));
    assert_eq!(states(&one_line(&second)), ["cached"; 5]);
    // What the recipe is for is there; what nobody needed was not fetched.
    let found = outputs(&other);
    assert!(
        found.iter().all(|file| expected.contains(file))
            && found.iter().any(|(name, _)| name.ends_with("artifact.generic.slm"))
    );
    assert!(!other.path().join("out/r/sparse").exists());
    let pulled = output(&other, &format!("cache pull r.toml --json --cache {}", server.url));
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let offline = output(&other, "run r.toml --json --cached-only");
    assert!(offline.status.success(), "{}", stderr(&offline));
    assert!(outputs(&other) == expected, "the outputs differ");
    // Written by a run that is told to.
    server.state.lock().expect("the server lives").objects.clear();
    let third = workshop();
    let written = output(&third, &format!("run r.toml --json --cache {} --cache-mode read-write", server.url));
    assert_eq!(states(&one_line(&written)), ["done"; 5]);
    let fourth = workshop();
    let taken = output(&fourth, &format!("run r.toml --only artifact.generic --json --cache {}", server.url));
    assert_eq!(states(&one_line(&taken)), ["cached"], "{}", stderr(&taken));
}

#[test]
fn a_failing_server_costs_one_warning_and_no_result() {
    let server = Server::start();
    let full = workshop();
    let filled = output(&full, &format!("run r.toml --json --cache {} --cache-mode read-write", server.url));
    assert!(filled.status.success(), "{}", stderr(&filled));
    let expected = outputs(&full);
    let cases = [
        (Behaviour::Silent, "failed"),
        (Behaviour::Broken, "answered with status 500"),
        (Behaviour::Dripping, "less than 16 KiB a second"),
        (Behaviour::Half, "failed"),
        (Behaviour::Lying, "has the SHA-256"),
    ];
    for (behaviour, expected_words) in cases {
        server.behave(behaviour);
        let machine = workshop();
        let run = output(&machine, &format!("run r.toml --json --cache {} --cache-mode read-write", server.url));
        let said = stderr(&run);
        assert!(run.status.success(), "{behaviour:?}: {said}");
        let all = warnings(&run);
        // A stage whose blobs were promised and do not come is said to run again, beside the one warning of the server.
        let of_server: Vec<&String> = all.iter().filter(|line| !line.contains("runs again")).collect();
        assert!(of_server.len() == 1 && of_server[0].contains(expected_words), "{behaviour:?}: {said}");
        let found = outputs(&machine);
        assert!(found.iter().all(|file| expected.contains(file)), "{behaviour:?}: the outputs differ");
        for target in ["generic", "cortex-m55"] {
            assert!(machine.path().join(format!("out/r/artifact.{target}.slm")).is_file(), "{behaviour:?}");
        }
    }
    // Every second request fails, and is made again.
    server.behave(Behaviour::Shaky);
    let machine = workshop();
    let shaky = output(&machine, &format!("run r.toml --json --cache {}", server.url));
    assert!(shaky.status.success() && warnings(&shaky).is_empty(), "{}", stderr(&shaky));
    assert_eq!(states(&one_line(&shaky)), ["cached"; 5]);
    // A port where nobody listens.
    let gone = workshop();
    let nobody = output(&gone, "run r.toml --json --cache http://127.0.0.1:9/slmc");
    assert!(nobody.status.success() && warnings(&nobody).len() == 1, "{}", stderr(&nobody));
}

#[test]
fn a_server_closed_to_writers_is_read_on() {
    let server = Server::start();
    server.behave(Behaviour::ReadOnly);
    let machine = workshop();
    let run = output(&machine, &format!("run r.toml --json --cache {} --cache-mode read-write", server.url));
    assert!(run.status.success(), "{}", stderr(&run));
    let all = warnings(&run);
    assert!(all.len() == 1 && all[0].contains("PUT was answered with status 403"), "{}", stderr(&run));
    assert_eq!(server.count("PUT"), 1, "it is asked once");
    assert!(server.count("GET") >= 5, "and read on");
    let push = output(&machine, &format!("cache push r.toml --cache {}", server.url));
    assert_eq!(push.status.code(), Some(2));
    assert!(stderr(&push).contains("403") && stderr(&push).contains("check the credentials"), "{}", stderr(&push));
}

/// A server that is slow to answer is waited for with a word, not in silence.
#[test]
fn a_server_that_keeps_a_run_waiting_is_named() {
    let server = Server::start();
    server.behave(Behaviour::Silent);
    let machine = workshop();
    let mut command = command(&machine, &format!("run r.toml --plan --cache {}", server.url));
    let plan = command.env("SLMC_CACHE_TIMEOUT", "7").output().expect("the program starts");
    let said = stderr(&plan);
    assert!(plan.status.success() && said.contains("Waiting") && said.contains("for the cache http://"), "{said}");
    assert_eq!(warnings(&plan).len(), 1, "{said}");
}

/// Secrets of the environment are sent, and are in no output, file or key.
#[test]
fn credentials_are_sent_and_nowhere_else() {
    let server = Server::start();
    server.state.lock().expect("the server lives").authorization = Some("Bearer ci-s3cret-token".to_owned());
    let machine = workshop();
    let line = format!("--cache {} --cache-mode read-write", server.url);
    let with = |arguments: &str, token: Option<&str>| {
        let mut command = command(&machine, arguments);
        command.env("AWS_SECRET_ACCESS_KEY", "aws-s3cret").env("AWS_ACCESS_KEY_ID", "AKIAS3CRET");
        if let Some(token) = token {
            command.env("SLMC_CACHE_TOKEN", token);
        }
        command.output().expect("the program starts")
    };
    let refused = with(&format!("run r.toml -v --json {line}"), Some("wrong-s3cret"));
    assert!(refused.status.success() && warnings(&refused).len() == 1, "{}", stderr(&refused));
    let runs = [
        with(&format!("run r.toml -v --force --json {line}"), Some("ci-s3cret-token")),
        with(&format!("run r.toml -v --plan --json {line}"), Some("ci-s3cret-token")),
        with(&format!("cache why r.toml small --json {line}"), Some("ci-s3cret-token")),
        with("run r.toml -v --cache https://me:url-s3cret@127.0.0.1:9/x", None),
        refused,
    ];
    assert!(server.count("PUT") > 5);
    let mut texts: Vec<(String, Vec<u8>)> = runs
        .iter()
        .flat_map(|run| [("stdout".to_owned(), run.stdout.clone()), ("stderr".to_owned(), run.stderr.clone())])
        .collect();
    texts.extend(files(machine.path()).into_iter().map(|(name, content)| (name.display().to_string(), content)));
    texts.extend(server.state.lock().expect("the server lives").objects.clone());
    for (name, content) in texts {
        let lower = content.to_ascii_lowercase();
        assert!(!lower.windows(6).any(|part| part == b"s3cret"), "{name} holds a secret");
    }
}

/// Entries of trusted keys are used, others are not.
#[test]
fn signatures_are_checked_where_keys_are_trusted() {
    let server = Server::start();
    let keys = [
        (
            "ci",
            "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
            "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        ),
        ("other", "MC4CAQAwBQYDK2VwBCIEIEzNCJsotiW24BvMOO3mPT7PZ3T1tb9m2w2Kt6M3yoPP", ""),
    ];
    let pem = |kind: &str, text: &str| format!("-----BEGIN {kind} KEY-----\n{text}\n-----END {kind} KEY-----\n");
    let line = format!("run r.toml --json --cache {}", server.url);
    let signed_by = |key: Option<&str>| {
        server.state.lock().expect("the server lives").objects.clear();
        let machine = workshop();
        let mut command = command(&machine, &format!("{line} --cache-mode read-write"));
        if let Some(key) = key {
            command.env("SLMC_CACHE_KEY", "env:CI_KEY").env("CI_KEY", pem("PRIVATE", key));
        }
        let run = command.output().expect("the program starts");
        assert!(run.status.success(), "{}", stderr(&run));
        let reader = workshop();
        fs::write(reader.path().join("ci.pub"), pem("PUBLIC", keys[0].2)).expect("written");
        fs::write(reader.path().join("slmc.toml"), "[cache]\ntrusted = ['ci.pub']\n").expect("written");
        let run = output(&reader, &line);
        assert!(run.status.success(), "{}", stderr(&run));
        (states(&one_line(&run)).join(" "), stderr(&run))
    };
    let (trusted, said) = signed_by(Some(keys[0].1));
    assert_eq!(trusted, ["cached"; 5].join(" "), "{said}");
    let (unsigned, said) = signed_by(None);
    assert!(unsigned == ["done"; 5].join(" ") && said.contains("is not signed"), "{said}");
    let (foreign, said) = signed_by(Some(keys[1].1));
    assert!(foreign == ["done"; 5].join(" ") && said.contains("is not trusted"), "{said}");
}

/// A run that is killed while it fills a server leaves no entry without its blobs.
#[test]
fn a_killed_upload_leaves_nothing_half_written() {
    let server = Server::start();
    let expected = workshop();
    json_with_code(expected.path(), "run r.toml", 0);
    let line = format!("run r.toml --cache {} --cache-mode read-write", server.url);
    let mut killed = 0;
    for step in 0..20u64 {
        server.state.lock().expect("the server lives").objects.clear();
        let machine = workshop();
        let mut child =
            command(&machine, &format!("{line} -q")).stdout(std::process::Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(40 * step));
        let ended = child.try_wait().expect("its state").is_some();
        drop(child.kill());
        child.wait().expect("it ends");
        let taken = workshop();
        let run = output(&taken, &format!("run r.toml --json --cache {}", server.url));
        assert!(run.status.success() && warnings(&run).is_empty(), "{}", stderr(&run));
        assert!(outputs(&taken).iter().all(|file| outputs(&expected).contains(file)), "the outputs differ");
        if ended {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 3, "it was killed {killed} times only");
    assert!(RECIPE.contains("[stages.small]"));
}
