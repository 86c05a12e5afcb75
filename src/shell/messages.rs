//! [`Shell`]: the two streams and the rules for what goes where. Writing to stderr never fails a command; a reader
//! that closed stdout is not an error either, since `slmc … | head` is a normal thing to do.

use super::ExitStatus;
use super::progress::Work;
use crate::report::{Report, json_line};
use serde_json::json;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tag of the JSON lines that `--progress json` puts on stderr.
const EVENT_SCHEMA: &str = "slmc.progress/1";

/// How much a person wants to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: warnings and errors only.
    Quiet,
    /// Status lines and notes too.
    #[default]
    Normal,
    /// `-v`: details too.
    Verbose,
}

/// How progress is shown on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar where stderr is a terminal, elsewhere and with --json a line every 20 seconds; nothing with -q
    #[default]
    Auto,
    /// One JSON object per line for everything on stderr: progress events, status, warnings and errors
    Json,
    /// Nothing
    None,
}

/// The global options that decide the output.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShellOptions {
    /// `-q`, nothing, `-v`.
    pub verbosity: Verbosity,
    /// `--json`: the result is one JSON line.
    pub json: bool,
    /// `--progress`.
    pub progress: ProgressMode,
    /// `--stop-after-step`: the process ends when a state of this step or a later one is on disk.
    pub stop_after_step: Option<u64>,
}

/// Kind of a line on stderr.
#[derive(Clone, Copy)]
enum Line {
    Note,
    Warning,
    Error,
}

impl Line {
    /// Name and ANSI colour.
    fn label(self) -> (&'static str, &'static str) {
        match self {
            Line::Note => ("note", "\x1b[1;36m"),
            Line::Warning => ("warning", "\x1b[1;33m"),
            Line::Error => ("error", "\x1b[1;31m"),
        }
    }
}

/// What is written on stderr, from any thread. There is nowhere to report that it cannot be written.
#[derive(Clone)]
pub(super) struct Stderr(Arc<Mutex<Box<dyn Write + Send>>>);

impl Stderr {
    fn text(&self, text: &str) {
        let mut err = lock(&self.0);
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }

    /// One line.
    pub(super) fn line(&self, text: &str) {
        self.text(&format!("{text}\n"));
    }
}

/// The terminal, or a writer in its place. Shared by reference; every method can be called from any thread.
pub struct Shell {
    options: ShellOptions,
    /// Whether stderr is a terminal on which a bar can be drawn.
    terminal: bool,
    colour: bool,
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    err: Stderr,
    /// Of which part of the work its lines are, where several go on side by side.
    part: Option<String>,
    /// The piece of work in progress.
    pub(super) work: Mutex<Option<Work>>,
}

/// A poisoned lock only means that another thread panicked while it wrote a line.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shell {
    /// The process's own streams. Colour where stderr is a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    pub fn new(options: ShellOptions) -> Self {
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let mut shell = Shell::from_writers(options, Box::new(io::stdout()), Box::new(io::stderr()));
        shell.terminal = terminal;
        shell.colour = terminal && !plain;
        shell
    }

    /// Any two writers, treated as pipes: no colour and no bars.
    pub fn from_writers(options: ShellOptions, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Shell {
            options,
            terminal: false,
            colour: false,
            out: Arc::new(Mutex::new(out)),
            err: Stderr(Arc::new(Mutex::new(err))),
            part: None,
            work: Mutex::new(None),
        }
    }

    /// The same streams for another piece of work.
    pub fn again(&self) -> Self {
        let Shell { options, terminal, colour, out, err, part, work: _ } = self;
        let (out, err, part) = (out.clone(), err.clone(), part.clone());
        Shell { options: *options, terminal: *terminal, colour: *colour, out, err, part, work: Mutex::new(None) }
    }

    /// The same streams for one of several pieces of work that go on side by side: every line says which, and there are no
    /// bars.
    pub fn of_part(&self, name: &str) -> Self {
        Shell { terminal: false, part: Some(name.to_owned()), ..self.again() }
    }

    /// What stands before a message.
    pub(super) fn prefix(&self) -> String {
        self.part.as_ref().map_or_else(String::new, |part| format!("{part}: "))
    }

    /// Options it was built from.
    pub fn options(&self) -> ShellOptions {
        self.options
    }

    /// Whether progress bars are drawn.
    pub(super) fn draws_bars(&self) -> bool {
        self.terminal
            && self.options.progress == ProgressMode::Auto
            && !self.options.json
            && self.options.verbosity > Verbosity::Quiet
    }

    /// Whether progress is a line now and then.
    pub(super) fn writes_lines(&self) -> bool {
        self.options.progress == ProgressMode::Auto && self.options.verbosity > Verbosity::Quiet && !self.draws_bars()
    }

    pub(super) fn stderr(&self) -> Stderr {
        self.err.clone()
    }

    /// Whether stderr holds JSON lines.
    pub(super) fn sends_events(&self) -> bool {
        self.options.progress == ProgressMode::Json
    }

    /// The current activity, in cargo's form: `verb` right-aligned and green, then `message`. Nothing with `-q`.
    pub fn status(&self, verb: &str, message: impl Display) {
        if self.options.verbosity == Verbosity::Quiet {
            return;
        }
        if self.sends_events() {
            self.event(json!({ "event": "status", "verb": verb, "message": message.to_string() }));
        } else {
            let verb = format!("{verb:>12}");
            self.line(&format!("{} {}{message}", self.painted(&verb, "\x1b[1;32m"), self.prefix()));
        }
    }

    /// Like [`Shell::status`], only with `-v`.
    pub fn detail(&self, verb: &str, message: impl Display) {
        if self.options.verbosity == Verbosity::Verbose {
            self.status(verb, message);
        }
    }

    /// Something worth knowing that needs no action. Nothing with `-q`.
    pub fn note(&self, message: impl Display) {
        if self.options.verbosity > Verbosity::Quiet {
            self.labelled(Line::Note, &message.to_string(), &[]);
        }
    }

    /// Something that may need action. Shown even with `-q`: nothing that changes a result is silent.
    pub fn warn(&self, message: impl Display) {
        self.labelled(Line::Warning, &message.to_string(), &[]);
    }

    /// Why there is no result: the error and each of its causes once, outermost first. A cause whose text the line
    /// above already contains is left out. The remedy is part of the messages.
    pub fn error(&self, error: &anyhow::Error) {
        let mut chain = error.chain().map(ToString::to_string);
        let head = chain.next().unwrap_or_default();
        let mut causes: Vec<String> = Vec::new();
        for cause in chain {
            if !causes.last().unwrap_or(&head).contains(&cause) {
                causes.push(cause);
            }
        }
        self.labelled(Line::Error, &head, &causes);
    }

    /// Writes the command's result to stdout: with `--json` exactly one line, else its text. A reader that went away
    /// is not an error, so that the command's own verdict decides the exit code.
    pub fn result<R: Report>(&self, report: &R) -> io::Result<()> {
        let mut text = if self.options.json { json_line(report)? } else { report.text() };
        text.push('\n');
        self.stream(text).map(|_| ())
    }

    /// Likewise of a result that is rendered already, in both ways.
    pub fn rendered(&self, json: &str, text: &str) -> io::Result<()> {
        let chosen = if self.options.json { json } else { text };
        self.stream(format!("{chosen}\n")).map(|_| ())
    }

    /// Writes to stdout at once, as it is. `Break` says that the reader went away and that it is pointless to go
    /// on.
    pub fn stream(&self, bytes: impl AsRef<[u8]>) -> io::Result<ControlFlow<()>> {
        let written = self.above_bar(|| {
            let mut out = lock(&self.out);
            out.write_all(bytes.as_ref()).and_then(|()| out.flush())
        });
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => {
                let message = format!("the result cannot be written to standard output: {error}");
                Err(io::Error::new(error.kind(), message))
            }
            Ok(()) => Ok(ControlFlow::Continue(())),
        }
    }

    /// What a person is to answer, on stderr without a line end.
    pub fn prompt(&self, text: &str) {
        self.above_bar(|| self.err.text(text));
    }

    /// From a command's outcome to the exit status, printing the error if there is one. An output pipe whose reader
    /// went away is a success.
    pub fn exit_status(&self, outcome: anyhow::Result<ExitStatus>) -> ExitStatus {
        let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
        };
        match outcome {
            Ok(status) => status,
            Err(error) if error.chain().any(broken_pipe) => ExitStatus::Success,
            Err(error) => {
                self.error(&error);
                ExitStatus::Error
            }
        }
    }

    fn labelled(&self, line: Line, head: &str, causes: &[String]) {
        let (label, colour) = line.label();
        if self.sends_events() {
            let mut event = json!({ "event": label, "message": head });
            if !causes.is_empty() {
                event["causes"] = json!(causes);
            }
            return self.event(event);
        }
        let mut text = format!("{}: {}{head}", self.painted(label, colour), self.prefix());
        for cause in causes {
            text.push_str("\n  caused by: ");
            text.push_str(cause);
        }
        self.line(&text);
    }

    fn painted(&self, text: &str, colour: &str) -> String {
        if self.colour { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One JSON line on stderr, tagged with its schema.
    pub(super) fn event(&self, fields: serde_json::Value) {
        let mut event = json!({ "schema": EVENT_SCHEMA });
        if let Some(part) = &self.part {
            event["stage"] = json!(part);
        }
        if let (Some(event), serde_json::Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.line(&event.to_string());
    }

    /// One line on stderr, above any bar.
    fn line(&self, text: &str) {
        self.above_bar(|| self.err.line(text));
    }

    /// Takes the bar off the terminal while `write` runs.
    fn above_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        let bar = lock(&self.work).as_ref().and_then(Work::bar);
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Captured, ClosedPipe, shell};
    use super::*;
    use anyhow::Context;
    use serde::Serialize;

    #[derive(Serialize)]
    struct Answer {
        value: u32,
    }

    impl Report for Answer {
        const SCHEMA: &'static str = "slmc.answer/1";
        fn text(&self) -> String {
            format!("the value is {}", self.value)
        }
    }

    #[test]
    fn results_go_to_stdout_and_the_rest_to_stderr() {
        let (shell, out, err) = shell(ShellOptions::default());
        shell.status("Reading", "model");
        shell.detail("Hashing", "hidden without -v");
        shell.note("nothing to do");
        shell.warn("vocabulary is padded");
        shell.result(&Answer { value: 7 }).expect("writes");
        assert_eq!(out.text(), "the value is 7\n");
        assert_eq!(err.text(), "     Reading model\nnote: nothing to do\nwarning: vocabulary is padded\n");
    }

    #[test]
    fn json_is_one_line_and_quiet_keeps_warnings() {
        let options = ShellOptions { verbosity: Verbosity::Quiet, json: true, ..ShellOptions::default() };
        let (shell, out, err) = shell(options);
        shell.status("Reading", "model");
        shell.note("hidden");
        shell.warn("shown");
        shell.result(&Answer { value: 7 }).expect("writes");
        assert_eq!(out.text(), "{\"schema\":\"slmc.answer/1\",\"value\":7}\n");
        assert_eq!(err.text(), "warning: shown\n");
    }

    #[test]
    fn the_cause_chain_is_printed_once() {
        let (shell, _, err) = shell(ShellOptions::default());
        let error = Err::<(), _>(anyhow::anyhow!("file is empty; write some text to it"))
            .context("cannot read `a.txt`: file is empty; write some text to it")
            .context("evaluation failed")
            .expect_err("an error");
        assert_eq!(shell.exit_status(Err(error)), ExitStatus::Error);
        assert_eq!(
            err.text(),
            "error: evaluation failed\n  caused by: cannot read `a.txt`: file is empty; write some text to it\n"
        );
    }

    #[test]
    fn with_json_progress_every_line_of_stderr_is_an_object() {
        let (shell, _, err) = shell(ShellOptions { progress: ProgressMode::Json, ..ShellOptions::default() });
        shell.status("Reading", "model");
        shell.error(&anyhow::anyhow!("inner").context("outer"));
        let lines: Vec<String> = err.text().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], r#"{"schema":"slmc.progress/1","event":"status","verb":"Reading","message":"model"}"#);
        assert_eq!(lines[1], r#"{"schema":"slmc.progress/1","event":"error","message":"outer","causes":["inner"]}"#);
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error() {
        let err = Captured::default();
        let shell = Shell::from_writers(ShellOptions::default(), Box::new(ClosedPipe), Box::new(err.clone()));
        assert!(shell.result(&Answer { value: 1 }).is_ok());
        assert_eq!(shell.stream("text").expect("no error"), ControlFlow::Break(()));
        let broken = anyhow::Error::from(io::Error::from(ErrorKind::BrokenPipe)).context("cannot write");
        assert_eq!(shell.exit_status(Err(broken)), ExitStatus::Success);
        assert_eq!(err.text(), "");
    }
}
