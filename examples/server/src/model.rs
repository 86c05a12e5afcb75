//! The artifact that is served: opened and checked once, what it can be asked, and texts and conversations as its tokens.
//! Everything here only reads, so that requests are made ready on any thread; the session is the worker's.

use crate::error::ApiError;
use crate::memory::Aligned;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::{FramePart, Role};
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::Output;
use slm_runtime::kernels::{Kernels, best};
use slm_runtime::self_test::golden_digest;
use slm_runtime::session::Session;
use slm_runtime::tokenizer::Tokenizer;
use std::io::Read;
use std::path::Path;

/// What an artifact answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// The next tokens of a text.
    Generate,
    /// The embedding of a text.
    Embed,
    /// The probabilities of its labels.
    Classify,
}

/// A message of a conversation.
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What was said.
    pub text: String,
}

/// An opened artifact. Its bytes stay in memory until the program ends.
pub struct Model {
    /// By which requests name it.
    pub name: String,
    /// What it answers.
    pub task: Task,
    /// The artifact.
    pub view: ArtifactView<'static>,
    /// What runs it on this CPU.
    pub kernels: &'static Kernels,
    /// Names of a classifier's labels.
    pub labels: Vec<String>,
}

impl Model {
    /// Reads an artifact and checks its structure and every digest.
    pub fn open(path: &Path, name: Option<String>) -> Result<Model, String> {
        let refused = |reason: String| format!("{}: {reason}", path.display());
        let unread = |error| refused(format!("cannot be read: {error}"));
        let mut file = std::fs::File::open(path).map_err(unread)?;
        let length = file.metadata().map_err(unread)?.len();
        let memory = Aligned::zeroed(length);
        let bytes = memory.ok_or_else(|| refused(format!("has {length} bytes, more than there is memory")))?.leak();
        file.read_exact(bytes).map_err(unread)?;
        let view = ArtifactView::open(bytes).and_then(|view| view.verify_digests().map(|()| view));
        let view = view.map_err(|error| refused(format!("{error}; compile it again, or fetch an undamaged copy")))?;
        let task = match Output::from_number(view.spec().output) {
            Some(Output::LanguageModel) => Task::Generate,
            Some(Output::Hidden) => Task::Embed,
            Some(Output::Classifier) => Task::Classify,
            _ => return Err(refused("is a masked language model, which answers none of the requests here".to_owned())),
        };
        if view.text().is_none() {
            return Err(refused(
                "has no tokenizer for the device (`slmc inspect` says why), and this server has no other".to_owned(),
            ));
        }
        let width = view.spec().output_width as usize;
        let labels = match view.section(SectionKind::Labels).map(serde_json::from_slice::<Vec<String>>) {
            Some(Ok(labels)) if labels.len() == width => labels,
            Some(_) => return Err(refused(format!("its labels are not {width} names"))),
            None if task == Task::Classify => (0..width).map(|label| format!("LABEL_{label}")).collect(),
            None => Vec::new(),
        };
        let stem = || path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Model { name: name.unwrap_or_else(stem), task, view, kernels: best(view.layout()), labels })
    }

    /// Runs the golden prompts: this machine must compute what the build machine did.
    pub fn self_test(&self) -> Result<(), String> {
        let bytes = Session::required_bytes(&self.view);
        let mut memory = Aligned::zeroed(bytes).ok_or(format!("a session takes {bytes} bytes, which are not there"))?;
        let found = golden_digest(&self.view, self.kernels, memory.as_mut_slice())
            .map_err(|error| format!("the golden prompts do not run: {error}"))?;
        match found == self.view.golden_digest() {
            true => Ok(()),
            false => {
                Err("the golden prompts give other logits than the artifact states: this machine does not compute \
                          what the build machine did"
                    .to_owned())
            }
        }
    }

    /// Positions of a sequence.
    pub fn context(&self) -> usize {
        self.view.spec().context as usize
    }

    /// The first bytes of the digest over the weights: two servers with the same one give the same answers.
    pub fn fingerprint(&self) -> String {
        let root = self.view.header().weights_root;
        root[..8].iter().fold("slm_".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Tokens of a text, with `specials` also those that an encoder expects around it.
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, ApiError> {
        let failed = || ApiError::failed("there is no memory to tokenize the text");
        let tokenizer = Tokenizer::of(&self.view).ok_or_else(failed)?;
        let bytes = tokenizer.required_bytes(text.len()).ok_or_else(failed)?;
        let mut memory = Aligned::zeroed(bytes as u64).ok_or_else(failed)?;
        let mut tokens = Vec::new();
        let encoded = tokenizer.encode(text, specials, memory.as_mut_slice(), &mut |token| tokens.push(token));
        encoded.map_err(|_| failed())?;
        Ok(tokens)
    }

    /// Tokens of a text to continue: with the tokens that open one.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, ApiError> {
        let opening = self.view.opening_tokens().iter();
        Ok(opening.chain(self.encode(text, false)?).collect())
    }

    /// The text of a conversation that the model is to answer, by its chat frame.
    pub fn conversation(&self, messages: &[Message]) -> Result<String, ApiError> {
        let refused = |message: &str| ApiError::invalid("messages", message);
        let frame = self.view.chat_frame().ok_or_else(|| {
            refused("this artifact has no chat frame (`slmc inspect` says why): ask /v1/completions for its next text")
        })?;
        let (system, turns) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (Some(first), rest),
            _ => (None, messages),
        };
        let alternates = |(index, message): (usize, &Message)| {
            message.role == if index % 2 == 0 { Role::User } else { Role::Assistant }
        };
        if turns.len() % 2 == 0 || !turns.iter().enumerate().all(alternates) {
            return Err(refused(
                "expected at most one system message, at the start, then messages of user and assistant in turn, the \
                 last one of the user",
            ));
        }
        if system.is_some() && !frame.has_system() {
            return Err(refused("this model's chat template takes no system message: put it into the user's"));
        }
        let message = |message: &Message| frame.message(message.role, &message.text).to_owned();
        let mut text = match system {
            Some(system) => {
                [frame.text(FramePart::OpenSystem), &message(system), frame.text(FramePart::SystemToUser)].concat()
            }
            None => frame.text(FramePart::OpenUser).to_owned(),
        };
        for (index, turn) in turns.iter().enumerate() {
            if index > 0 {
                text += frame.text(if turn.role == Role::User {
                    FramePart::AssistantToUser
                } else {
                    FramePart::UserToAssistant
                });
            }
            text += &message(turn);
        }
        Ok(text + frame.text(FramePart::UserToAssistant))
    }
}
