//! Runs the program and writes down what it does:
//!
//! ```text
//! $ slmc inspect a.slm
//! exit 0
//! | a line of stdout
//! ! a line of stderr
//! ```
//!
//! What differs between machines is replaced by `#`: digests, rates, names of CPU features and kernels, and numbers that
//! floating-point calibration decides. Everything else must be equal.

use crate::support::{Arguments, root, slmc, stderr};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The variable that writes the expectations instead of comparing them.
const UPDATE: &str = "SLMC_UPDATE";

/// Numbers that are measured, or that follow from floating-point sums: not part of a transcript.
const MEASURED: [&str; 26] = [
    "seconds",
    "peak_memory_bytes",
    "plain_error",
    "error_of_8_bits",
    "plain_rows",
    "activation_error",
    "relative_error",
    "perplexity",
    "reference_perplexity",
    "kld_mean",
    "kld_stderr",
    "kld_p99",
    "top1_agreement",
    "accuracy",
    "reference_accuracy",
    "oos_recall",
    "macro_f1",
    "cosine_mean",
    "cosine_p01",
    "tokens_per_s",
    "cosine_min",
    "file_bytes",
    "exact_match",
    "token_f1",
    "bleu4",
    "same_as_reference",
];

/// A directory in which commands run, and what they did.
pub(super) struct Transcript {
    name: String,
    directory: tempfile::TempDir,
    text: String,
}

impl Transcript {
    /// An empty directory; the transcript is kept in tests/cli/expected/NAME.txt, and nowhere if there is no name.
    pub(super) fn new(name: impl Into<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Transcript { name: name.into(), directory, text: String::new() }
    }

    /// A path in the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file in the directory.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file in a fresh directory can be written");
    }

    /// A remark between commands.
    pub(super) fn note(&mut self, remark: &str) {
        let _ = writeln!(self.text, "# {remark}");
    }

    /// Runs a command line, split at spaces but for what stands between single quotes, and writes it down.
    pub(super) fn run(&mut self, line: &str) -> Output {
        let output = self.silent(line);
        let _ = writeln!(self.text, "$ slmc {line}\nexit {}", exit(&output));
        for (mark, stream) in [('|', &output.stdout), ('!', &output.stderr)] {
            let stream = String::from_utf8(stream.clone()).expect("output is UTF-8");
            for line in stream.lines() {
                let line = self.redacted(line);
                let _ = writeln!(self.text, "{}", format!("{mark} {line}").trim_end());
            }
        }
        self.text.push('\n');
        output
    }

    /// Runs a command line without writing it down.
    pub(super) fn silent(&self, line: &str) -> Output {
        command(self.directory.path(), line).output().expect("the program starts")
    }

    /// Runs a command that must succeed without writing it down, and returns its stdout.
    pub(super) fn prepare(&self, line: &str) -> Vec<u8> {
        let output = self.silent(line);
        assert!(output.status.success(), "slmc {line}: {}", stderr(&output));
        output.stdout
    }

    /// Runs a command with `--json`, which must print exactly one line with this schema, and writes down the line.
    pub(super) fn json(&mut self, line: &str, schema: &str) -> Value {
        let output = self.run(&format!("{line} --json"));
        let stdout = String::from_utf8(output.stdout).expect("output is UTF-8");
        assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "slmc {line} --json printed {stdout:?}");
        let value: Value = serde_json::from_str(&stdout).expect("the line is JSON");
        assert_eq!(value.as_object().and_then(|fields| fields.keys().next()).map(String::as_str), Some("schema"));
        assert_eq!(value["schema"], schema, "slmc {line}");
        value
    }

    /// What differs between machines and runs, replaced.
    fn redacted(&self, line: &str) -> String {
        let mut line = line.replace(&self.directory.path().display().to_string(), "DIR");
        for kernel in ["(K kernel)", "\"kernel\":\"K\""] {
            line =
                line.replace(&kernel.replace('K', slmc::machine::kernels::kernels().name), &kernel.replace('K', "#"));
        }
        line = line.replace(&format!("\"numerics\":\"{}\"", slmc::machine::numerics_class()), "\"numerics\":#");
        if let Some((before, after)) = line.split_once("\"cpu_features\":[") {
            let after = after.split_once(']').map_or("", |(_, after)| after);
            line = format!("{before}\"cpu_features\":#{after}");
        }
        // What was measured in every window.
        if let Some((before, after)) = line.split_once("\"sums\":{") {
            let after = after.split_once('}').map_or("", |(_, after)| after);
            line = format!("{before}\"sums\":#{after}");
        }
        let mut out = String::new();
        let mut measured = false;
        // Words of letters, digits, dots and underscores, and the characters between them one by one.
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let mut end = rest.find(|c: char| !inside(c)).unwrap_or(rest.len());
            // 1,234 is one number in words; in JSON, commas stand between values.
            while measured && !line.starts_with('{') && rest[end..].starts_with(',') {
                end += 1 + rest[end + 1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - end - 1);
            }
            if end == 0 {
                // The end of a value in JSON.
                measured &= !matches!(first, ',' | '}' | ']');
                out.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let mut word = &rest[..end];
            let mut after = &rest[end..];
            // 1.2e-05 is one number.
            let exponent = word.ends_with('e') && word.starts_with(|c: char| c.is_ascii_digit());
            if exponent && let Some(digits) = after.strip_prefix('-') {
                after = digits.trim_start_matches(|c: char| c.is_ascii_digit());
                word = &rest[..rest.len() - after.len()];
            }
            let digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = word.replace(',', "").parse::<f64>().is_ok();
            if digest || (number && (measured || word.contains("e-"))) {
                // Numbers are aligned to the right: their width goes with them.
                if !digest && out.ends_with("  ") {
                    out.truncate(out.trim_end().len() + 2);
                }
                out.push('#');
            } else {
                measured |= MEASURED.contains(&word);
                out.push_str(word);
            }
            rest = after;
        }
        out
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        if std::thread::panicking() || self.name.is_empty() {
            return;
        }
        let path = root("tests/cli/expected").join(format!("{}.txt", self.name));
        if std::env::var_os(UPDATE).is_some() {
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
            std::fs::write(&path, &self.text).expect("the expectation can be written");
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != self.text {
            let differing = expected.lines().zip(self.text.lines()).position(|(a, b)| a != b);
            let at = differing.unwrap_or(expected.lines().count().min(self.text.lines().count()));
            let around = |text: &str| {
                let lines: Vec<&str> = text.lines().skip(at.saturating_sub(3)).take(12).collect();
                lines.join("\n")
            };
            panic!(
                "{} differs from line {} on.\n--- expected\n{}\n--- found\n{}\n---\nIf the change is meant: {UPDATE}=1 \
                 cargo test --release --test integration cli, and read the difference before committing it",
                path.display(),
                at + 1,
                around(&expected),
                around(&self.text)
            );
        }
    }
}

/// The program in a directory, without anything of the environment that changes what it prints.
pub(super) fn command(directory: &Path, arguments: &(impl Arguments + ?Sized)) -> Command {
    let mut command = slmc(directory, arguments);
    command.env_remove("RAYON_NUM_THREADS").env("COLUMNS", "100");
    command
}

/// Exit code, or how it was ended.
pub(super) fn exit(output: &Output) -> String {
    output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string())
}
