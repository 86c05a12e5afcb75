//! `--audit` of `slmc generate` and `slmc chat`: every answer as a record of a log, as a device writes it.

use crate::audit::AuditError;
use crate::audit::writer::{Answered, LogWriter};
use crate::eval::chat::Turn;
use crate::eval::constrained::Follow;
use crate::eval::generate::Logged;
use crate::eval::opened::OpenedModel;
use crate::shell::Shell;
use slm_runtime::audit::Follows;
use slm_runtime::sample::Sampling;
use std::path::{Path, PathBuf};

/// Heading of the options of the log.
const LOG: &str = "Audit log";

/// Options of the log.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = LOG)]
pub(super) struct LogArgs {
    /// Log to append a record of every answer to
    ///
    /// 160 bytes each: digests of artifact, question and answer, chained. The model must be an artifact. `slmc audit` checks the
    /// log, and computes the answers again (docs/audit.md).
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,

    /// Key that seals the log after every answer: a path, file:PATH or env:VAR
    ///
    /// A signing key of `slmc keygen`, or the secret bytes of a log (`slmc keygen --type device`), which also keep short
    /// questions from being guessed by their digests.
    #[arg(long, value_name = "KEY", requires = "audit")]
    audit_key: Option<String>,
}

impl LogArgs {
    /// The log, where one is written.
    pub(super) fn open(
        &self,
        model: &OpenedModel,
        name: &Path,
        shell: &Shell,
    ) -> Result<Option<LogWriter>, AuditError> {
        let Some(path) = &self.audit else { return Ok(None) };
        let writer = LogWriter::open(path, self.audit_key.as_deref(), model, name)?;
        if let Some(warning) = writer.key().and_then(|key| key.warning()) {
            shell.warn(warning);
        }
        Ok(Some(writer))
    }
}

/// The log of a conversation.
pub(super) struct ChatLog {
    /// The log.
    pub(super) writer: LogWriter,
    /// How tokens are chosen.
    pub(super) sampling: Sampling,
    /// Seed of the draws.
    pub(super) seed: u64,
}

impl ChatLog {
    /// Appends a turn.
    pub(super) fn answered(&mut self, turn: &Turn) -> Result<Logged, AuditError> {
        self.writer.answered(&Answered {
            input: &turn.prompt_ids,
            output: &turn.tokens,
            sampling: &self.sampling,
            seed: self.seed,
            stop: turn.stop,
            // A conversation is free of the artifact's grammar.
            follows: Follows::Nothing,
        })
    }
}

/// What an output follows, as records say it.
pub(super) fn followed(follow: &Follow) -> Follows {
    match follow {
        Follow::Own => Follows::Artifact,
        Follow::Free => Follows::Nothing,
        Follow::Constraint(_) => Follows::Another,
    }
}

/// Says where an answer was logged.
pub(super) fn say(logged: Option<&Logged>, shell: &Shell) {
    if let Some(Logged { file, sequence, head }) = logged {
        shell.detail("Logged", format_args!("record {sequence} of {}, head {head}", file.display()));
    }
}
