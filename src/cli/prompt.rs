//! The options that make a prompt, shared by the commands that have a model answer once: a text, a question, or a
//! conversation.

use super::generate::PROMPT;
use crate::eval::generate::Prompt;
use crate::text::chat_template::{Conversation, read_conversation};
use std::path::PathBuf;

/// The prompt.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = PROMPT)]
pub(super) struct PromptArgs {
    /// Text to continue [default: none, the model begins one]
    ///
    /// Without it only a model whose tokenizer opens texts with a token can begin.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,

    /// Question to answer, through the model's chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt", allow_hyphen_values = true)]
    chat: Option<String>,

    /// JSON file of messages to answer
    ///
    /// An array of {"role": …, "content": …}, or an object with such an array as "messages". They go through the
    /// model's chat template, which decides on the roles there can be.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["prompt", "chat"])]
    messages: Option<PathBuf>,

    /// System message of --chat [default: the template's own]
    #[arg(long, value_name = "TEXT", requires = "chat", conflicts_with = "prompt", allow_hyphen_values = true)]
    system: Option<String>,
}

impl PromptArgs {
    /// The prompt, the file of messages read.
    pub(super) fn prompt(&self) -> anyhow::Result<Prompt> {
        let conversation = self.messages.as_deref().map(read_conversation).transpose()?;
        let asked = || self.chat.as_deref().map(|user| Conversation::ask(self.system.as_deref(), user));
        Ok(match conversation.or_else(asked) {
            Some(conversation) => Prompt::Chat(conversation),
            None => Prompt::Text(self.prompt.clone().unwrap_or_default()),
        })
    }
}
