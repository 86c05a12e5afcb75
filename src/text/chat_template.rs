//! Chat templates: the Jinja programs by which a model directory says how a conversation becomes the text its model
//! was trained on. They are found as transformers finds them ([`ChatTemplate::of`]), given the same variables
//! ([`Conversation`]), and run as untrusted code: a template is part of a download, so its size, steps, memory
//! and time are bounded, and it reads nothing but the conversation, the special tokens and the date.
//!
//! The rendered text is tokenized without further special tokens: the template writes them itself.

mod answers;
mod conversation;
mod date;
mod engine;
mod error;
mod files;
mod frame;
mod functions;
mod guards;
mod messages;
mod python;
mod section;
mod source;
#[cfg(test)]
mod tests;

pub use answers::{AnswersError, Marked};
pub use conversation::{Conversation, Message, message};
pub use date::Moment;
pub use error::{ChatTemplateError, TemplateLocation};
pub use frame::{ChatFrame, NotFixed};
pub use messages::{MessageFault, MessagesError, messages, read_conversation};

use crate::model::companions::Companions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest template, in bytes: fifteen times the longest in use.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Most templates of a model: real ones have up to three.
const MAX_TEMPLATES: usize = 64;
/// Most special tokens of a model.
const MAX_TOKENS: usize = 256;
/// The template that is taken where none is named.
const DEFAULT: &str = "default";
/// The template that is taken where there are tools.
const TOOL_USE: &str = "tool_use";
/// The special tokens that every tokenizer of transformers can have.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A template of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// The file it is in.
    path: PathBuf,
    name: String,
    text: String,
}

/// A model's chat templates and the special tokens they write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    /// The file that holds the templates, or the directory of their files.
    path: PathBuf,
    /// At least one; names differ.
    templates: Vec<Named>,
    /// Names and texts.
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Reads the templates among a model's companions; `None` where there are none.
    ///
    /// # Errors
    /// A file cannot be read, is too long, or is not as transformers writes it. Templates are compiled by
    /// [`ChatTemplate::render`].
    pub fn of(companions: &Companions) -> Result<Option<Self>, ChatTemplateError> {
        let Some((path, templates)) = files::templates(companions)? else { return Ok(None) };
        Ok(Some(ChatTemplate { path, templates, tokens: files::special_tokens(companions)? }))
    }

    /// [`ChatTemplate::of`], and tries the template on a question, so that what cannot be used is refused before anything
    /// is written.
    ///
    /// # Errors
    /// The errors of both.
    pub fn usable(companions: &Companions) -> Result<Option<Self>, ChatTemplateError> {
        let template = ChatTemplate::of(companions)?;
        if let Some(template) = &template {
            let question = Conversation { moment: Some(Moment::from_unix(0)), ..Conversation::ask(None, "Hello!") };
            template.render(&question)?;
        }
        Ok(template)
    }

    /// The file that holds the templates, or the directory of their files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|template| template.name.as_str())
    }

    /// A special token by its name, such as `eos_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        self.tokens.iter().find(|(key, _)| key == name).map(|(_, token)| token.as_str())
    }

    /// Compiles the template of a name, or the default one, without running it.
    ///
    /// # Errors
    /// No template has that name, or its text is not a template.
    pub fn check(&self, name: Option<&str>) -> Result<(), ChatTemplateError> {
        let template = self.choose(name, false)?;
        self.run(template, None, Moment::from_unix(0), engine::DEADLINE).map(drop)
    }

    /// The conversation as the model's text.
    ///
    /// # Errors
    /// There is no template to take, it refuses the conversation, or it fails.
    pub fn render(&self, conversation: &Conversation) -> Result<String, ChatTemplateError> {
        self.render_within(conversation, engine::DEADLINE)
    }

    fn render_within(&self, conversation: &Conversation, deadline: Duration) -> Result<String, ChatTemplateError> {
        let template = self.choose(conversation.template.as_deref(), conversation.tools.is_some())?;
        let variables = conversation.variables(&self.tokens).map_err(|name| ChatTemplateError::Reserved { name })?;
        let moment = conversation.moment.unwrap_or_else(Moment::now);
        self.run(template, Some(variables), moment, deadline)
    }

    /// The text with [`answers::MARKS`] around the parts in `{% generation %}`; `None` where the template has no such part.
    fn render_marked(&self, conversation: &Conversation) -> Result<Option<String>, ChatTemplateError> {
        let template = self.choose(conversation.template.as_deref(), conversation.tools.is_some())?;
        if !template.text.contains("generation") {
            return Ok(None);
        }
        let variables = conversation.variables(&self.tokens).map_err(|name| ChatTemplateError::Reserved { name })?;
        let moment = conversation.moment.unwrap_or_else(Moment::now);
        let rendered = engine::run(&template.text, Some(variables), moment, engine::DEADLINE, true);
        rendered.map(Some).map_err(|failure| ChatTemplateError::from_failure(failure, &template.path, &template.name))
    }

    fn run(
        &self,
        template: &Named,
        variables: Option<serde_json::Map<String, serde_json::Value>>,
        moment: Moment,
        deadline: Duration,
    ) -> Result<String, ChatTemplateError> {
        engine::run(&template.text, variables, moment, deadline, false)
            .map_err(|failure| ChatTemplateError::from_failure(failure, &template.path, &template.name))
    }

    /// The template to take: the one that is named, else the one for tools where there are some, else the default.
    fn choose(&self, name: Option<&str>, tools: bool) -> Result<&Named, ChatTemplateError> {
        let find = |name: &str| self.templates.iter().find(|template| template.name == name);
        let names = || self.names().collect::<Vec<_>>().join(", ");
        let path = || self.path.clone();
        if let Some(name) = name {
            let unknown = || ChatTemplateError::UnknownTemplate { path: path(), name: name.to_owned(), names: names() };
            return find(name).ok_or_else(unknown);
        }
        let for_tools = if tools { find(TOOL_USE) } else { None };
        for_tools.or_else(|| find(DEFAULT)).ok_or_else(|| ChatTemplateError::NoDefault { path: path(), names: names() })
    }
}
