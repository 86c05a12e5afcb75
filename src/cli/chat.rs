//! `slmc chat`

use super::generate::{ANSWER_TOKENS, PROMPT};
use super::global::Global;
use super::logging::{ChatLog, LogArgs};
use super::sampling::{SAMPLING, SamplingArgs};
use super::speculation::SpeculationArgs;
use crate::eval::EvalError;
use crate::eval::chat::{Chat, Settings, Turn, converse};
use crate::eval::generate::Stop;
use crate::eval::opened::OpenedModel;
use crate::report::grouped;
use crate::shell::{ExitStatus, Input, Shell};
use crate::stages::arguments::groups::{BackendArg, RunnableArg, TokenizerArg, without_output};
use crate::stages::arguments::path;
use crate::stages::stage::say_notes;
use std::ops::ControlFlow;
use std::path::Path;

/// Characters of a dropped question that are shown.
const SHOWN: usize = 40;
/// What can be typed beside questions.
const COMMANDS: &str = "/reset forgets the conversation, /system TEXT sets the system message (/system alone takes it \
                        away), /quit ends; a line that begins with // is a question that begins with /";

/// Talk with an instruct model
///
/// Every line of stdin is a question; the answer streams to stdout and ends at the model's end tokens. The conversation
/// goes through the model's chat template, as with `slmc generate --messages`, and gives the same answers. Where the
/// context is full, the oldest questions and answers are dropped, and it says which. In a terminal, Ctrl-C stops an answer,
/// and at the prompt the program. With --json, every answer is one JSON line, "schema":"slmc.chat/1".
///
/// /reset forgets the conversation, /system TEXT sets the system message (/system alone takes it away), /quit or the end
/// of stdin ends. A line that begins with // is a question that begins with /.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc chat out/mixed.slm --system 'Answer in one sentence.'
  slmc chat out/mixed.slm --json < questions.txt"
)]
pub(super) struct Args {
    #[command(flatten)]
    model: RunnableArg,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// System message [default: the template's own]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = PROMPT)]
    system: Option<String>,

    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = ANSWER_TOKENS, help_heading = SAMPLING)]
    tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    speculation: SpeculationArgs,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    backend: BackendArg,
}

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model.model
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        say_notes(&self.model.model, shell);
        let model = OpenedModel::open_stored(&self.model.model, &self.backend.device()?)?;
        let settings = Settings {
            system: self.system.clone(),
            tokens: self.tokens,
            sampling: self.sampling.over(&model.sampling),
            seed: global.seed,
            tokenizer: path(&self.tokenizer.tokenizer),
            means: self.speculation.means(false)?,
        };
        self.sampling.say(&model.sampling, &settings.sampling, shell);
        let log = self.log.open(&model, &self.model.model, shell)?;
        let mut log = log.map(|writer| ChatLog { writer, sampling: settings.sampling, seed: settings.seed });
        let mut input = Input::new();
        converse(&model, &settings, |chat| {
            if input.is_terminal() {
                shell.note(COMMANDS);
            }
            let mut going = ControlFlow::Continue(());
            while going.is_continue() {
                let Some(line) = input.line(shell, "> ")? else { break };
                going = self.line(chat, &line, (&input, &mut log), global, shell)?;
            }
            if input.is_terminal() {
                shell.prompt("\n");
            }
            Ok(ExitStatus::Success)
        })
    }

    /// A command or a question. `Break` ends the conversation.
    fn line(
        &self,
        chat: &mut Chat<'_, '_>,
        line: &str,
        (input, log): (&Input, &mut Option<ChatLog>),
        global: &Global,
        shell: &Shell,
    ) -> anyhow::Result<ControlFlow<()>> {
        let question = match line.strip_prefix('/') {
            Some(rest) if rest.starts_with('/') => rest,
            Some(command) => return Ok(self.command(chat, command.trim(), shell)),
            None => line,
        };
        if question.trim().is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        match self.ask(chat, question, (input, log), global, shell) {
            // A question that cannot be answered need not end a conversation with a person.
            Err(error) if input.is_terminal() && error.downcast_ref::<EvalError>().is_some() => {
                shell.error(&error);
                Ok(ControlFlow::Continue(()))
            }
            other => other,
        }
    }

    fn command(&self, chat: &mut Chat<'_, '_>, command: &str, shell: &Shell) -> ControlFlow<()> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("quit" | "exit", "") => return ControlFlow::Break(()),
            ("reset", "") => {
                chat.reset();
                shell.note("the conversation is forgotten");
            }
            ("system", "") => {
                chat.set_system(None);
                shell.note("there is no system message of yours");
            }
            ("system", text) => {
                chat.set_system(Some(text.to_owned()));
                shell.note("the system message is set; the conversation goes on with it");
            }
            _ => shell.warn(format_args!("`/{command}` is not a command: {COMMANDS}")),
        }
        ControlFlow::Continue(())
    }

    fn ask(
        &self,
        chat: &mut Chat<'_, '_>,
        question: &str,
        (input, log): (&Input, &mut Option<ChatLog>),
        global: &Global,
        shell: &Shell,
    ) -> anyhow::Result<ControlFlow<()>> {
        let listening = input.listen();
        let (mut failure, mut interrupted, mut closed) = (None, false, false);
        let mut turn = chat.ask(question, &mut |bytes| {
            interrupted |= listening.interrupted();
            if interrupted {
                return ControlFlow::Break(());
            }
            if global.json {
                return ControlFlow::Continue(());
            }
            let going = shell.stream(bytes).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            });
            closed |= going.is_break();
            going
        })?;
        drop(listening);
        if interrupted {
            turn.stop = Stop::Interrupted;
        }
        // Also where nobody reads it any more: it was answered.
        if let Some(log) = log {
            turn.audit = Some(log.answered(&turn)?);
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        if global.json {
            shell.result(&turn)?;
        } else if closed || shell.stream("\n")?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.say(&turn, chat.context(), shell);
        Ok(ControlFlow::Continue(()))
    }

    /// What is worth knowing of an answer.
    fn say(&self, turn: &Turn, context: usize, shell: &Shell) {
        if !turn.dropped.is_empty() {
            let short = |question: &String| match question.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("`{}…`", &question[..end]),
                None => format!("`{question}`"),
            };
            let questions: Vec<String> = turn.dropped.iter().map(short).collect();
            shell.note(format_args!(
                "the context of {} tokens is full: dropped the oldest of the conversation, {} with the answer{}",
                grouped(context as u64),
                questions.join(", "),
                if questions.len() == 1 { "" } else { "s" }
            ));
        }
        match turn.stop {
            Stop::Context => shell.note(format_args!("stopped: the context of {context} positions is full")),
            Stop::Length => shell.note(format_args!("stopped after {} tokens (--tokens)", self.tokens)),
            Stop::Interrupted => shell.note("stopped; the answer stays in the conversation as far as it came"),
            Stop::End | Stop::Closed => {}
        }
        shell.detail(
            "Generated",
            format_args!(
                "{} tokens at {:.1} tokens/s; {} of {} prompt tokens were in the cache",
                turn.tokens.len(),
                turn.tokens_per_s,
                turn.reused_tokens,
                turn.prompt_tokens
            ),
        );
        super::logging::say(turn.audit.as_ref(), shell);
    }
}
