//! `slmc generate`

use super::global::Global;
use super::logging::{LogArgs, followed};
use super::prompt::PromptArgs;
use super::sampling::{SAMPLING, SamplingArgs};
use super::speculation::{SpeculationArgs, say};
use crate::audit::writer::Answered;
use crate::eval::constrained::Follow;
use crate::eval::generate::{GenerateOptions, Prompt, Stop, generate};
use crate::eval::opened::OpenedModel;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{
    BackendArg, ConstraintArgs, GRAMMAR, RunnableArg, TokenizerArg, without_output,
};
use crate::stages::arguments::path;
use crate::stages::stage::say_notes;
use std::ops::ControlFlow;
use std::path::Path;

/// Continue a text, or answer a question
///
/// An artifact runs as on the device, with the same bits; a directory runs in f32. The text streams to stdout. Tokens are
/// chosen as the model's generation_config.json says, without it the likeliest is taken, as with --temperature 0; draws
/// follow from --seed and are the same everywhere.
///
/// --prompt continues a text, which opens with the tokens that the tokenizer puts there; an encoder-decoder reads it
/// whole and what it writes of it alone is printed. --chat asks an instruct model: its chat template
/// (chat_template.jinja, or tokenizer_config.json; an artifact carries it in its host part) makes the prompt, and the
/// answer alone is printed. --messages has the template make it of a whole conversation. All end at the model's end
/// tokens. `slmc chat` asks one question after the other.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc generate out/mixed.slm --prompt 'Once upon a time' --temperature 0.8
  slmc generate out/mixed.slm --chat 'What is the capital of France?'
  slmc generate out/mixed.slm --messages conversation.json --json"
)]
pub(super) struct Args {
    #[command(flatten)]
    model: RunnableArg,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    #[command(flatten)]
    prompt: PromptArgs,

    /// Most tokens to add [default: 64, for an answer 512]
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    tokens: Option<usize>,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    constraint: ConstraintArgs,

    /// Let the output be free of the artifact's grammar
    #[arg(long, conflicts_with = "constraint", help_heading = GRAMMAR)]
    free: bool,

    #[command(flatten)]
    speculation: SpeculationArgs,

    /// Read weights from the file when they are needed, as a device does that cannot address its storage
    ///
    /// For artifacts of `compile --resident`. The same tokens; what was read is said at the end.
    #[arg(long)]
    streamed: bool,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    backend: BackendArg,
}

/// Heading of the options that make the prompt.
pub(super) const PROMPT: &str = "Prompt";

/// Most tokens of a continued text.
const TEXT_TOKENS: usize = 64;
/// Most tokens of an answer.
pub(super) const ANSWER_TOKENS: usize = 512;

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model.model
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let prompt = self.prompt.prompt()?;
        say_notes(&self.model.model, shell);
        let model = OpenedModel::open_stored(&self.model.model, &self.backend.device()?)?;
        let mut log = self.log.open(&model, &self.model.model, shell)?;
        let constraint = self.constraint.constraint();
        let constrained = constraint.is_some();
        let follow = match constraint {
            Some(constraint) => Follow::Constraint(constraint),
            None if self.free => Follow::Free,
            None => Follow::Own,
        };
        let most = if matches!(prompt, Prompt::Chat(_)) { ANSWER_TOKENS } else { TEXT_TOKENS };
        let options = GenerateOptions {
            prompt,
            // An output that follows a grammar should reach its end.
            tokens: self.tokens.unwrap_or(if constrained { ANSWER_TOKENS } else { most }),
            sampling: self.sampling.over(&model.sampling),
            seed: global.seed,
            tokenizer: path(&self.tokenizer.tokenizer),
            means: self.speculation.means(self.streamed)?,
            follow,
        };
        self.sampling.say(&model.sampling, &options.sampling, shell);
        let mut failure = None;
        let mut report = generate(&model, &options, &mut |bytes| {
            if global.json {
                return ControlFlow::Continue(());
            }
            shell.stream(bytes).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        // Also where nobody reads it any more: it was answered.
        if let Some(log) = &mut log {
            report.audit = Some(log.answered(&Answered {
                input: &report.prompt_ids,
                output: &report.tokens,
                sampling: &options.sampling,
                seed: options.seed,
                stop: report.stop,
                follows: followed(&options.follow),
            })?);
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        if global.json {
            shell.result(&report)?;
        } else if shell.stream("\n")?.is_continue() {
            match report.stop {
                Stop::Context => {
                    shell.note(format_args!("stopped: the context of {} positions is full", model.context))
                }
                Stop::End => shell.detail("Stopped", "the model ended the text"),
                Stop::Length | Stop::Closed | Stop::Interrupted => {}
            }
            shell.detail(
                "Generated",
                format_args!("{} tokens at {:.1} tokens/s", report.tokens.len(), report.tokens_per_s),
            );
            report.notes.iter().for_each(|note| shell.note(note));
            if let Some(grammar) = report.grammar {
                let cut = if grammar.complete { "" } else { "; the text is not complete" };
                let all = report.tokens.len();
                shell.detail("Grammar", format_args!("{} of {all} tokens without an alternative{cut}", grammar.forced));
            }
            say(report.speculation.as_ref(), shell);
            if let Some(streaming) = &report.streaming {
                shell.detail("Streamed", streaming.sentence());
            }
            super::logging::say(report.audit.as_ref(), shell);
        }
        Ok(ExitStatus::Success)
    }
}
