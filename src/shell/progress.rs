//! Progress as [`Shell`] shows it: a bar with the time left on a terminal, JSON lines with `--progress json`, else a line
//! now and then, so that a log shows that the work goes on. JSON events are thinned by count, not by clock, so that the same
//! work gives the same lines.

use super::ExitStatus;
use super::messages::{Shell, lock};
use crate::progress::Progress;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Most `advance` events of one piece of work.
const EVENTS: u64 = 100;
/// Most lines of figures of one piece of work.
const LINES: u64 = 10;
/// Between two lines where neither bars nor events are wanted.
const EVERY: Duration = Duration::from_secs(20);

/// The piece of work in progress.
pub(super) struct Work {
    what: String,
    unit: &'static str,
    total: u64,
    done: u64,
    /// The next event is sent when `done` reaches this.
    next_event: u64,
    /// Where neither bars nor events are wanted, the next line of figures is printed when `done` reaches this.
    next_line: u64,
    bar: Option<ProgressBar>,
    lines: Option<Lines>,
}

/// The thread that writes a line now and then, until this is dropped.
struct Lines {
    done: Arc<AtomicU64>,
    _until_dropped: Sender<()>,
}

impl Work {
    /// The bar, where one is drawn; clones draw the same bar.
    pub(super) fn bar(&self) -> Option<ProgressBar> {
        self.bar.clone()
    }
}

fn drawn_bar(what: &str, total: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = format!("{{msg}} [{{bar:28}}] {{human_pos}}/{{human_len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}

/// Gives `say` a line about the work `every` so often, until the other end of `ended` is dropped.
fn speak(
    [what, unit]: [&str; 2],
    total: u64,
    done: &AtomicU64,
    ended: &Receiver<()>,
    every: Duration,
    say: impl Fn(String),
) {
    let start = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
        let done = done.load(Ordering::Relaxed);
        let elapsed = start.elapsed();
        say(match done {
            0 => format!("{what}: 0/{total} {unit} after {}", HumanDuration(elapsed)),
            done if done < total => {
                let left = elapsed.mul_f64((total - done) as f64 / done as f64);
                format!("{what}: {done}/{total} {unit}, about {} left", HumanDuration(left))
            }
            _ => format!("{what}: {done}/{total} {unit}"),
        });
    }
}

impl Shell {
    /// Begins to write lines about work.
    fn speak(&self, what: &str, total: u64, unit: &'static str) -> Lines {
        let (until_dropped, ended) = channel();
        let done = Arc::new(AtomicU64::new(0));
        let (what, of_thread, stderr) = (format!("{}{what}", self.prefix()), done.clone(), self.stderr());
        std::thread::spawn(move || {
            let say = |line| stderr.line(&format!("{:>12} {line}", "Progress"));
            speak([&what, unit], total, &of_thread, &ended, EVERY, say);
        });
        Lines { done, _until_dropped: until_dropped }
    }
}

impl Progress for Shell {
    fn begin(&self, what: &str, total: u64, unit: &'static str) {
        Progress::finish(self);
        if self.sends_events() {
            self.event(json!({ "event": "begin", "what": what, "total": total, "unit": unit }));
        }
        let bar = self.draws_bars().then(|| drawn_bar(what, total, unit));
        let lines = self.writes_lines().then(|| self.speak(what, total, unit));
        let next_event = total.div_ceil(EVENTS).max(1);
        let what = what.to_owned();
        *lock(&self.work) = Some(Work { what, unit, total, done: 0, next_event, next_line: 0, bar, lines });
    }

    fn advance(&self, units: u64) {
        let event = {
            let mut work = lock(&self.work);
            let Some(work) = work.as_mut() else { return };
            work.done = work.done.saturating_add(units);
            if let Some(bar) = &work.bar {
                bar.set_position(work.done);
            }
            if let Some(lines) = &work.lines {
                lines.done.store(work.done, Ordering::Relaxed);
            }
            let due = self.sends_events() && work.total > 0 && work.done >= work.next_event;
            due.then(|| {
                let step = work.total.div_ceil(EVENTS).max(1);
                work.next_event = (work.done / step + 1).saturating_mul(step);
                let (what, done, total) = (&work.what, work.done, work.total);
                json!({ "event": "advance", "what": what, "done": done, "total": total, "unit": work.unit })
            })
        };
        if let Some(event) = event {
            self.event(event);
        }
    }

    fn figures(&self, figures: &dyn Display) {
        let line = {
            let mut work = lock(&self.work);
            let Some(work) = work.as_mut() else { return };
            if let Some(bar) = &work.bar {
                bar.set_message(format!("{} {figures}", work.what));
                return;
            }
            if work.done < work.next_line {
                return;
            }
            let step = work.total.div_ceil(LINES).max(1);
            work.next_line = (work.done / step + 1).saturating_mul(step);
            format!("{}/{} {}, {figures}", work.done, work.total, work.unit)
        };
        self.status("Progress", line);
    }

    fn finish(&self) {
        let Some(work) = lock(&self.work).take() else { return };
        if let Some(bar) = &work.bar {
            bar.finish_and_clear();
        }
        if self.sends_events() {
            self.event(json!({ "event": "finish", "what": work.what, "done": work.done, "unit": work.unit }));
        }
    }

    /// Ends the process where `--stop-after-step` says so, as a kill would: nothing is closed, removed or reported to callers.
    fn saved(&self, step: u64) {
        if self.options().stop_after_step.is_some_and(|last| step >= last) {
            self.error(&anyhow::anyhow!(
                "stopped after step {step}, whose state is saved, by --stop-after-step; run the command without it to go on"
            ));
            std::process::exit(i32::from(ExitStatus::Error as u8));
        }
    }

    fn needs(&self, work: &str, bytes: u64) {
        if self.sends_events() {
            self.event(json!({ "event": "memory", "what": work, "bytes": bytes }));
        } else {
            self.status("Memory", format_args!("about {} MiB for {work}, at the peak", bytes.div_ceil(1 << 20)));
        }
    }

    fn waits(&self, for_what: &dyn Display) {
        self.status("Waiting", for_what);
    }

    fn warn(&self, warning: &dyn Display) {
        Shell::warn(self, warning);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::shell;
    use super::super::{ProgressMode, ShellOptions};
    use super::*;

    fn work(shell: &Shell) {
        shell.begin("scoring windows", 1000, "windows");
        for _ in 0..1000 {
            shell.advance(1);
        }
        Progress::finish(shell);
        Progress::finish(shell);
    }

    #[test]
    fn off_a_terminal_nothing_is_drawn() {
        let (shell, out, err) = shell(ShellOptions::default());
        work(&shell);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", ""));
    }

    #[test]
    fn long_work_speaks_until_it_ends() {
        let (until_dropped, ended) = channel();
        let done = AtomicU64::new(0);
        let until_dropped = std::sync::Mutex::new(Some(until_dropped));
        let lines = std::sync::Mutex::new(Vec::new());
        speak(["rounding", "groups"], 4, &done, &ended, Duration::from_millis(1), |line| {
            lock(&lines).push(line);
            if done.fetch_add(2, Ordering::Relaxed) == 4 {
                *lock(&until_dropped) = None;
            }
        });
        let lines = lines.into_inner().expect("no panic while writing");
        let [first, second, third] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(first, "rounding: 0/4 groups after 0 seconds");
        assert_eq!(second, "rounding: 2/4 groups, about 0 seconds left");
        assert_eq!(third, "rounding: 4/4 groups");
    }

    #[test]
    fn events_are_thinned_json_lines() {
        let (shell, _, err) = shell(ShellOptions { progress: ProgressMode::Json, ..ShellOptions::default() });
        work(&shell);
        let text = err.text();
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
        assert_eq!(events.len(), 102);
        assert_eq!(events[0]["event"], "begin");
        assert_eq!(events[1]["done"], 10);
        assert_eq!(events[100]["done"], 1000);
        assert_eq!(events[101]["event"], "finish");
    }
}
