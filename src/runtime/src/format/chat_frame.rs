//! The chat frame: the fixed texts that a chat template writes around the messages of a conversation, with which a device
//! makes the prompt of a conversation without the template. A section of the device part, little-endian:
//!
//! `flags` u32, `parts` u32 (5), then for each part `text_bytes` u32 and `tokens` u32, then the texts, then the tokens.
//!
//! A conversation with the messages S, U₁, A₁, … Uₙ is the text
//! `OpenSystem S SystemToUser U₁ UserToAssistant A₁ AssistantToUser U₂ … Uₙ UserToAssistant`, without a system message
//! `OpenUser U₁ UserToAssistant …`; the answer follows.

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::header::SectionKind;
use super::special_tokens::TokenList;

/// A fixed text around the messages, by its number in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FramePart {
    /// Before the first user's text where there is no system message.
    OpenUser = 0,
    /// Before the text of the system message.
    OpenSystem = 1,
    /// Between the system's text and the first user's.
    SystemToUser = 2,
    /// Between a user's text and the assistant's.
    UserToAssistant = 3,
    /// Between an assistant's text and the next user's.
    AssistantToUser = 4,
}

/// Number of parts.
pub const FRAME_PARTS: usize = 5;

impl FramePart {
    /// Every part, by number.
    pub const ALL: [FramePart; FRAME_PARTS] = [
        FramePart::OpenUser,
        FramePart::OpenSystem,
        FramePart::SystemToUser,
        FramePart::UserToAssistant,
        FramePart::AssistantToUser,
    ];

    /// Whether the part exists only where the template takes a system message.
    pub const fn of_system(self) -> bool {
        matches!(self, FramePart::OpenSystem | FramePart::SystemToUser)
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// The system message.
    System = 0,
    /// The person.
    User = 1,
    /// The model.
    Assistant = 2,
}

impl Role {
    /// Every role, by number.
    pub const ALL: [Role; 3] = [Role::System, Role::User, Role::Assistant];
}

/// Flag: the parts have tokens, and these with the tokens of the texts between them are the tokens of the whole text, where
/// no text begins or ends with white space.
pub const HAS_TOKENS: u32 = 1;
/// Flag: the template takes a system message.
pub const HAS_SYSTEM: u32 = 2;
/// Flags from this one on, one a role: the template removes white space at both ends of a message's text.
pub const TRIMS: u32 = 4;
const ALL_FLAGS: u32 = HAS_TOKENS | HAS_SYSTEM | (TRIMS * 7);
/// Bytes before the texts.
pub const FRAME_HEADER_BYTES: usize = 8 + FRAME_PARTS * 8;
/// Most bytes of a part's text, and most tokens.
pub const MAX_FRAME_TEXT: usize = 1 << 16;

/// The frame of an artifact.
#[derive(Clone, Copy, Debug)]
pub struct ChatFrame<'a> {
    /// Checked by [`ArtifactView::open`].
    content: &'a [u8],
}

impl<'a> ChatFrame<'a> {
    fn number(&self, at: usize) -> u32 {
        u32_at(self.content, at).unwrap_or(0)
    }

    /// Bytes of the text and number of tokens of part `index`.
    fn lengths(&self, index: usize) -> (usize, usize) {
        let at = 8 + index * 8;
        (self.number(at) as usize, self.number(at + 4) as usize)
    }

    fn has(&self, flag: u32) -> bool {
        self.number(0) & flag != 0
    }

    /// Whether the parts have tokens.
    pub fn has_tokens(&self) -> bool {
        self.has(HAS_TOKENS)
    }

    /// Whether the template takes a system message.
    pub fn has_system(&self) -> bool {
        self.has(HAS_SYSTEM)
    }

    /// Whether the template removes white space around the texts of a role.
    pub fn trims(&self, role: Role) -> bool {
        self.has(TRIMS << (role as u32))
    }

    /// The text of a part.
    pub fn text(&self, part: FramePart) -> &'a str {
        let before = (0..part as usize).map(|index| self.lengths(index).0).sum::<usize>();
        let start = FRAME_HEADER_BYTES + before;
        let bytes = self.content.get(start..start + self.lengths(part as usize).0).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }

    /// The tokens of a part; none where the frame has no tokens.
    pub fn tokens(&self, part: FramePart) -> TokenList<'a> {
        let texts = (0..FRAME_PARTS).map(|index| self.lengths(index).0).sum::<usize>();
        let before = (0..part as usize).map(|index| self.lengths(index).1).sum::<usize>();
        let start = FRAME_HEADER_BYTES + texts + before * 4;
        TokenList(self.content.get(start..start + self.lengths(part as usize).1 * 4).unwrap_or(&[]))
    }

    /// The text of a message as the template writes it.
    pub fn message<'t>(&self, role: Role, text: &'t str) -> &'t str {
        if self.trims(role) { text.trim() } else { text }
    }

    /// Checks everything that the other functions rely on.
    fn check(content: &'a [u8], vocabulary: u32) -> Result<Self, FormatError> {
        let fault = |fault| FormatError::section(SectionKind::ChatFrame, fault);
        let frame = ChatFrame { content };
        if content.len() < FRAME_HEADER_BYTES {
            return Err(fault("too short"));
        }
        if frame.number(0) & !ALL_FLAGS != 0 || frame.number(4) != FRAME_PARTS as u32 {
            return Err(fault("unknown flags or number of parts"));
        }
        let (mut texts, mut tokens) = (0u64, 0u64);
        for part in FramePart::ALL {
            let (text, count) = frame.lengths(part as usize);
            if text > MAX_FRAME_TEXT || count > MAX_FRAME_TEXT {
                return Err(fault("a part is longer than a reader takes"));
            }
            if count > 0 && !frame.has_tokens() {
                return Err(fault("has tokens that its flags deny"));
            }
            if part.of_system() && !frame.has_system() && text > 0 {
                return Err(fault("has a part of a system message, and takes none"));
            }
            (texts, tokens) = (texts + text as u64, tokens + count as u64);
        }
        if content.len() as u64 != FRAME_HEADER_BYTES as u64 + texts + 4 * tokens {
            return Err(fault("length does not match its counts"));
        }
        let mut at = FRAME_HEADER_BYTES;
        for index in 0..FRAME_PARTS {
            let end = at + frame.lengths(index).0;
            core::str::from_utf8(&content[at..end]).map_err(|_| fault("a text is not UTF-8"))?;
            at = end;
        }
        if TokenList(&content[at..]).iter().any(|token| token >= vocabulary) {
            return Err(fault("a token is outside the vocabulary"));
        }
        Ok(frame)
    }
}

impl<'a> ArtifactView<'a> {
    /// The frame of the model's chat template; `None` where it has no template, or one that is not a fixed frame.
    pub fn chat_frame(&self) -> Option<ChatFrame<'a>> {
        self.chat_frame
    }

    /// Reads and checks the section.
    pub(super) fn read_chat_frame(&mut self) -> Result<(), FormatError> {
        let content = self.single_device_section(SectionKind::ChatFrame)?;
        self.chat_frame = content.map(|content| ChatFrame::check(content, self.spec.vocabulary)).transpose()?;
        Ok(())
    }
}
