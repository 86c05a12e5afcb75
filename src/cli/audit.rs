//! `slmc audit`

use crate::audit::review::{AuditOptions, review};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::TokenizerArg;
use crate::stages::arguments::path;
use std::path::PathBuf;

/// Check the log of what an artifact was asked and answered
///
/// Every record holds the digest of the one before it: the first that was changed, dropped, moved or cut is named, and ends
/// with exit code 2. Whoever rewrites the whole log is found by what is kept elsewhere: the key of its seals (--log-key), the
/// head of an earlier check (--head), or the questions (--replay), whose answers are computed again, bit for bit. A sound log
/// whose time runs backwards, that names another artifact, or whose answers are not those of the artifact ends with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc audit device.log --log-key device.pub
  slmc audit device.log --head 5f2c…91 --artifact model.slm
  slmc audit device.log --artifact model.slm --replay prompts.jsonl --json")]
pub(super) struct Args {
    /// Log: 160-byte records, as the device appended them
    #[arg(value_name = "LOG")]
    log: PathBuf,

    /// Key of the seals: a path, file:PATH or env:VAR; may be repeated
    ///
    /// A public key in PEM, or the secret bytes of the log. Every seal must then hold, and there must be one.
    #[arg(long, value_name = "KEY")]
    log_key: Vec<String>,

    /// Artifact that the log may name; may be repeated
    #[arg(long, value_name = "FILE.slm")]
    artifact: Vec<PathBuf>,

    /// Head of an earlier check, 64 hexadecimal digits: nothing up to there was changed or cut off
    #[arg(long, value_name = "HEX")]
    head: Option<String>,

    /// Records that there must be, by a counter that is kept elsewhere
    #[arg(long, value_name = "N")]
    records: Option<u64>,

    /// Head of the file before, where this log goes on from one
    #[arg(long, value_name = "HEX")]
    previous: Option<String>,

    /// Questions to ask again: JSONL with `sequence` and one of `prompt`, `messages`, `tokens`
    ///
    /// Also `seed`, and `sampling` with the settings that are not the artifact's own (docs/audit.md). Needs --artifact.
    #[arg(long, value_name = "FILE.jsonl")]
    replay: Option<PathBuf>,

    /// Key of a device that opens an artifact whose weights are sealed: a path, file:PATH or env:VAR; may be repeated
    ///
    /// Only --replay needs it: the record names the sealed file, whose answers are those of its open weights.
    #[arg(long, value_name = "KEY", requires = "replay")]
    device_key: Vec<String>,

    #[command(flatten)]
    tokenizer: TokenizerArg,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let options = AuditOptions {
            log: self.log.clone(),
            keys: self.log_key.clone(),
            artifacts: self.artifact.clone(),
            head: self.head.clone(),
            least: self.records,
            previous: self.previous.clone(),
            replay: self.replay.clone(),
            tokenizer: path(&self.tokenizer.tokenizer),
            device_keys: self.device_key.clone(),
        };
        let report = review(&options, shell)?;
        shell.result(&report)?;
        Ok(if report.passed { ExitStatus::Success } else { ExitStatus::Failure })
    }
}
