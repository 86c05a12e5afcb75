//! `slmc generate`

use super::global::Global;
use crate::eval::generate::{GenerateOptions, Prompt, Stop, generate};
use crate::eval::opened::OpenedModel;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{BackendArg, RunnableArg, TokenizerArg, without_output};
use crate::stages::arguments::path;
use crate::stages::stage::say_notes;
use crate::text::chat_template::Conversation;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;

/// Continue a text, or answer a question
///
/// An artifact runs as on the device, with the same bits; a directory runs in f32. The text streams to stdout. With
/// --temperature 0, the default, the likeliest token is taken; draws follow from --seed and are the same everywhere.
///
/// --prompt continues a text, which opens with the tokens that the tokenizer puts there. --chat asks an instruct model:
/// its chat template (chat_template.jinja, or tokenizer_config.json; an artifact carries it in its host part) makes the
/// prompt, and the answer alone is printed. Both end at the model's end tokens.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(without_output),
    next_display_order = 1,
    after_help = "\
Examples:
  slmc generate out/mixed.slm --prompt 'Once upon a time' --temperature 0.8
  slmc generate out/mixed.slm --chat 'What is the capital of France?'"
)]
pub(super) struct Args {
    #[command(flatten)]
    model: RunnableArg,

    #[command(flatten)]
    tokenizer: TokenizerArg,

    /// Text to continue [default: none, the model begins one]
    ///
    /// Without it only a model whose tokenizer opens texts with a token can begin.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = PROMPT)]
    prompt: Option<String>,

    /// Question to answer, through the model's chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt", allow_hyphen_values = true, help_heading = PROMPT)]
    chat: Option<String>,

    /// System message of --chat [default: the template's own]
    #[arg(
        long,
        value_name = "TEXT",
        requires = "chat",
        conflicts_with = "prompt",
        allow_hyphen_values = true,
        help_heading = PROMPT
    )]
    system: Option<String>,

    /// Most tokens to add [default: 64, with --chat 512]
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    tokens: Option<usize>,

    /// 0: likeliest token, 1: as predicted
    ///
    /// Between them likelier tokens are drawn more often than the model predicts. Draws follow from --seed.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, help_heading = SAMPLING)]
    temperature: f32,

    /// Draw from the K likeliest tokens only [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true, help_heading = SAMPLING)]
    top_k: u32,

    /// Draw within this share of probability
    ///
    /// From the likeliest tokens that together have it.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share, help_heading = SAMPLING)]
    top_p: f64,

    #[command(flatten)]
    backend: BackendArg,
}

/// Heading of the options that make the prompt.
const PROMPT: &str = "Prompt";
/// Heading of the options that choose tokens.
const SAMPLING: &str = "Sampling";

/// Most tokens of a continued text.
const TEXT_TOKENS: usize = 64;
/// Most tokens of an answer.
const ANSWER_TOKENS: usize = 512;

fn temperature(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    let usable = value == 0.0 || (0.001..=1000.0).contains(&value);
    if usable { Ok(value) } else { Err("expected 0, or a number from 0.001 to 1000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err("expected a number above 0, up to 1".to_owned()) }
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        say_notes(&self.model.model, shell);
        let model = OpenedModel::open_stored(&self.model.model, &self.backend.device()?)?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: (self.top_p * 65_536.0).round() as u32,
        };
        let (prompt, most) = match &self.chat {
            Some(user) => (Prompt::Chat(Conversation::ask(self.system.as_deref(), user)), ANSWER_TOKENS),
            None => (Prompt::Text(self.prompt.clone().unwrap_or_default()), TEXT_TOKENS),
        };
        let options = GenerateOptions {
            prompt,
            tokens: self.tokens.unwrap_or(most),
            sampling,
            seed: global.seed,
            tokenizer: path(&self.tokenizer.tokenizer),
        };
        let mut failure = None;
        let report = generate(&model, &options, &mut |bytes| {
            if global.json {
                return ControlFlow::Continue(());
            }
            shell.stream(bytes).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
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
                Stop::Length | Stop::Closed => {}
            }
            shell.detail(
                "Generated",
                format_args!("{} tokens at {:.1} tokens/s", report.tokens.len(), report.tokens_per_s),
            );
        }
        Ok(ExitStatus::Success)
    }
}
