//! `slmc generate`

use super::global::Global;
use crate::eval::generate::{Options, Prompt, Stop, generate};
use crate::eval::opened::OpenedModel;
use crate::model::device::device;
use crate::shell::{ExitStatus, Shell};
use crate::stages::stage::say_notes;
use crate::text::chat_template::Conversation;
use slm_runtime::sample::Sampling;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Continue a text or answer a question with an artifact or a directory
///
/// An artifact runs as on the device, with the same bits; a directory runs in f32. The text streams to stdout. With
/// --temperature 0, the default, the likeliest token is taken; draws follow from --seed and are the same everywhere.
///
/// --prompt continues a text, which opens with the tokens that the tokenizer puts there. --chat asks an instruct model:
/// its chat template (chat_template.jinja, or tokenizer_config.json; an artifact carries it in its host part) makes the
/// prompt, and the answer alone is printed. Both end at the model's end tokens.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slmc generate out/mixed.slm --prompt 'Once upon a time' --tokens 100 --temperature 0.8 --seed 7\n  \
                  slmc generate out/mixed.slm --chat 'What is the capital of France?'"
)]
pub(super) struct Args {
    /// Artifact, or directory
    #[arg(value_name = "FILE.slm|DIR")]
    model: PathBuf,

    /// Text to continue [default: none; the model begins one where its tokenizer opens texts with a token]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,

    /// Question to answer, through the model's chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt", allow_hyphen_values = true)]
    chat: Option<String>,

    /// System message before the question [default: the template's own, if it has one]
    #[arg(long, value_name = "TEXT", requires = "chat", conflicts_with = "prompt", allow_hyphen_values = true)]
    system: Option<String>,

    /// Most tokens to add [default: 64, with --chat 512]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,

    /// 0 takes the likeliest token; 1 draws as the model predicts
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,

    /// Draw from the K likeliest tokens only [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: u32,

    /// Draw from the likeliest tokens that make up this share
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f64,

    /// Directory with tokenizer and chat template, in place of the model's own: for artifacts written for a device only
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,

    /// Where a directory runs: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,
}

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
        say_notes(&self.model, shell);
        let model = OpenedModel::open_stored(&self.model, &device(&self.device)?)?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: (self.top_p * 65_536.0).round() as u32,
        };
        let (prompt, most) = match &self.chat {
            Some(user) => (Prompt::Chat(Conversation::ask(self.system.as_deref(), user)), ANSWER_TOKENS),
            None => (Prompt::Text(self.prompt.clone().unwrap_or_default()), TEXT_TOKENS),
        };
        let options = Options {
            prompt,
            tokens: self.tokens.unwrap_or(most),
            sampling,
            seed: global.seed,
            tokenizer: self.tokenizer.clone(),
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
