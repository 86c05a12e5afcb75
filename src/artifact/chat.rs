//! What an artifact says of conversations: whether a device can make their prompts, by the chat frame of the device part.

use crate::report::{Table, grouped};
use serde::Serialize;
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::{FramePart, Role};
use slm_runtime::format::header::SectionKind;

/// Prefix, in the provenance, of the reason why there is no frame.
pub const NOT_FIXED: &str = "not a fixed frame: ";

/// Who makes the prompt of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ChatSummary {
    /// The device can.
    Device {
        /// Bytes of the section.
        bytes: u64,
        /// Bytes of the texts around the messages.
        text_bytes: usize,
        /// Tokens of these texts, where a device without a tokenizer can use them.
        tokens: Option<usize>,
        /// Whether the template takes a system message.
        system: bool,
        /// The roles whose texts lose the white space around them.
        trims: Vec<&'static str>,
    },
    /// Only a host with the template.
    Host {
        /// Why the template is not a fixed frame, where that is known.
        not_fixed: Option<String>,
    },
}

impl ChatSummary {
    /// Summary of an artifact; `not_fixed` is the reason for a missing frame. `None` where the model has no chat template.
    pub fn of(view: &ArtifactView<'_>, not_fixed: Option<String>) -> Option<Self> {
        let Some(frame) = view.chat_frame() else {
            let template = not_fixed.is_some() || view.section(SectionKind::ChatTemplate).is_some();
            return template.then_some(ChatSummary::Host { not_fixed });
        };
        let tokens = FramePart::ALL.map(|part| frame.tokens(part).len()).iter().sum();
        let names = [(Role::System, "system"), (Role::User, "user"), (Role::Assistant, "assistant")];
        Some(ChatSummary::Device {
            bytes: view.section(SectionKind::ChatFrame).map_or(0, |section| section.len() as u64),
            text_bytes: FramePart::ALL.map(|part| frame.text(part).len()).iter().sum(),
            tokens: frame.has_tokens().then_some(tokens),
            system: frame.has_system(),
            trims: names.into_iter().filter(|&(role, _)| frame.trims(role)).map(|(_, name)| name).collect(),
        })
    }

    /// Adds itself to a table of facts.
    pub fn rows(&self, table: &mut Table) {
        let said = match self {
            ChatSummary::Device { bytes, text_bytes, tokens, system, trims } => {
                let tokens = tokens.map_or_else(
                    || "no tokens, since those of the texts around it would reach into a message".to_owned(),
                    |tokens| format!("{tokens} tokens"),
                );
                let system = if *system { "" } else { ", without a system message" };
                let trims = match trims.as_slice() {
                    [] => String::new(),
                    roles => format!("; removes white space around texts of: {}", roles.join(", ")),
                };
                format!("on the device, {} bytes: {text_bytes} of texts, {tokens}{system}{trims}", grouped(*bytes))
            }
            ChatSummary::Host { not_fixed: Some(reason) } => format!("host only, {NOT_FIXED}{reason}"),
            ChatSummary::Host { not_fixed: None } => "host only".to_owned(),
        };
        table.row(["chat_frame", &said]);
    }
}

/// Why an artifact has no chat frame, by its provenance.
pub fn not_fixed(provenance: Option<&Value>) -> Option<String> {
    Some(provenance?["settings"]["chat_frame"].as_str()?.strip_prefix(NOT_FIXED)?.to_owned())
}
