//! A chat template as a fixed frame: the texts it writes around the messages, with which a device makes the prompt of a
//! conversation without it ([`slm_runtime::format::chat_frame`]). They are cut out of renderings of marked texts; whether
//! they are all that the template does is then tried on further conversations, of one turn and of several, with and
//! without a system message, on two dates. A template that passes is a frame; one that does not says why.

use super::{ChatTemplate, ChatTemplateError, Conversation, Moment, message};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use slm_runtime::format::chat_frame::{FRAME_PARTS, FramePart, HAS_SYSTEM, HAS_TOKENS, MAX_FRAME_TEXT, Role, TRIMS};

/// Texts that stand for messages while the frame is cut out: words that no template writes or changes.
const SYSTEM: &str = "Qsystemtextq";
const USER: &str = "Qfirstquestionq";
const ANSWER: &str = "Qfirstanswerq";
const NEXT: &str = "Qsecondquestionq";

/// What the system and both sides say in the conversations that a frame is tried on.
const SYSTEM_TEXTS: [&str; 3] = ["You are terse.", "Réponds en français.\n\n- court", "1 < 2 & \"3\""];
const USER_TEXTS: [&str; 6] = [
    "What is the capital of France?",
    "And\n3?\n\n  indented\ttext",
    "naïve 日本 🦊 <b>&amp;\"'",
    "{{ braces }} {% if x %} \\n {# y #}",
    "1",
    "tool: {\"name\": \"f\"}",
];
const ANSWER_TEXTS: [&str; 5] = ["Paris.", "- one\n- two", "[INST] No [/INST]", "{\"a\": [1, 2]}", "…"];
/// An answer with reasoning, which some templates leave out of earlier turns.
const REASONED: &str = "<think>\nIt is large.\n</think>\n\nYes.";
/// Texts that begin and end with characters of every kind, for tokens that could reach over the edge of a text.
const EDGES: [&str; 15] =
    ["a", "Zebra", "1", "'s", "é", "日本", "🦊", "-", "\"quoted\"", "_x", "...", "ing", "##x", "user", "\u{301}"];

/// Why a template is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFixed {
    /// It does not render a question or a conversation.
    #[error("it does not render a conversation of {turns} questions ({message})")]
    Refused {
        /// Questions in the conversation.
        turns: usize,
        /// Its words.
        message: String,
    },
    /// A text is changed, doubled or left out.
    #[error("the text of the {0} message does not stand in it once and as it is")]
    Changed(&'static str),
    /// The frame has a date or time.
    #[error("it writes the date")]
    Dated,
    /// An earlier answer has another beginning than the next.
    #[error("it writes {history:?} before an earlier answer and {prompt:?} before the next")]
    Answers {
        /// Before earlier answers.
        history: String,
        /// Before the next answer.
        prompt: String,
    },
    /// Only one side of a text loses its white space, or some of it.
    #[error("it changes the white space of the {0} message")]
    WhiteSpace(&'static str),
    /// A conversation has another text than the frame makes of it.
    #[error(
        "it does not write the same text around every message (tried: {turns} questions, {system} a system message)"
    )]
    Differs {
        /// Questions in the conversation.
        turns: usize,
        /// `with` or `without`.
        system: &'static str,
    },
    /// Reasoning is left out.
    #[error("it leaves reasoning (<think>…</think>) out of earlier answers")]
    Reasoning,
    /// A part is longer than a reader takes.
    #[error("a text around the messages has {bytes} bytes, at most {MAX_FRAME_TEXT} are stored")]
    Long {
        /// Length of that text.
        bytes: usize,
    },
}

/// The fixed texts of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatFrame {
    texts: [String; FRAME_PARTS],
    has_system: bool,
    /// By role.
    trims: [bool; 3],
    tokens: Option<[Vec<u32>; FRAME_PARTS]>,
}

/// A conversation to try: a system message, then questions and answers in turn, the last one a question.
#[derive(Clone, Debug)]
struct Sample<'t> {
    system: Option<&'t str>,
    texts: Vec<&'t str>,
}

impl<'t> Sample<'t> {
    fn new(system: Option<&'t str>, texts: impl Into<Vec<&'t str>>) -> Self {
        Sample { system, texts: texts.into() }
    }

    fn turns(&self) -> usize {
        self.texts.len().div_ceil(2)
    }

    fn conversation(&self, moment: Moment) -> Conversation {
        let roles = ["user", "assistant"].into_iter().cycle();
        let texts = roles.zip(&self.texts).map(|(role, text)| message(role, text));
        let messages = self.system.map(|system| message("system", system)).into_iter().chain(texts).collect();
        Conversation { messages, add_generation_prompt: true, moment: Some(moment), ..Conversation::default() }
    }
}

/// Two moments that differ in every part.
fn moments() -> [Moment; 2] {
    [Moment::from_unix(0), Moment::from_unix(1_942_000_000)]
}

/// The texts around words, each of which must stand in it once and in this order; or the first word that does not.
fn cut<'t, const N: usize>(rendered: &'t str, words: [(&'static str, &str); N]) -> Result<Vec<&'t str>, NotFixed> {
    let (mut parts, mut rest) = (Vec::new(), rendered);
    for (role, word) in words {
        let (before, after) = rest.split_once(word).ok_or(NotFixed::Changed(role))?;
        if rendered.matches(word).count() != 1 {
            return Err(NotFixed::Changed(role));
        }
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    Ok(parts)
}

impl ChatFrame {
    /// The frame of a template.
    ///
    /// # Errors
    /// Why it is not a fixed frame.
    pub fn of(template: &ChatTemplate) -> Result<Self, NotFixed> {
        let [moment, _] = moments();
        let question = Sample::new(None, [USER]);
        let rendered = render(template, &question, moment)?;
        let one = cut(&rendered, [("user's", USER)])?;
        let rendered = render(template, &Sample::new(None, [USER, ANSWER, NEXT]), moment)?;
        let two = cut(&rendered, [("user's", USER), ("assistant's", ANSWER), ("second user's", NEXT)])?;
        if two[1] != one[1] || two[3] != one[1] {
            return Err(NotFixed::Answers { history: two[1].to_owned(), prompt: one[1].to_owned() });
        }
        let mut frame = ChatFrame {
            texts: [one[0].to_owned(), String::new(), String::new(), one[1].to_owned(), two[2].to_owned()],
            has_system: false,
            trims: [false; 3],
            tokens: None,
        };
        // A template that refuses a system message, or leaves it out, has a frame without one.
        if let Ok(rendered) = template.render(&Sample::new(Some(SYSTEM), [USER]).conversation(moment))
            && rendered.contains(SYSTEM)
        {
            let parts = cut(&rendered, [("system's", SYSTEM), ("user's", USER)])?;
            frame.texts[FramePart::OpenSystem as usize] = parts[0].to_owned();
            frame.texts[FramePart::SystemToUser as usize] = parts[1].to_owned();
            frame.has_system = true;
        }
        if let Some(bytes) = frame.texts.iter().map(String::len).find(|&bytes| bytes > MAX_FRAME_TEXT) {
            return Err(NotFixed::Long { bytes });
        }
        frame.find_trimmed(template)?;
        frame.verify(template)?;
        Ok(frame)
    }

    /// Finds out whose texts lose the white space around them.
    fn find_trimmed(&mut self, template: &ChatTemplate) -> Result<(), NotFixed> {
        let spaced = |word: &str| format!(" \n\t {word} \n  ");
        let (system, user, answer) = (spaced(SYSTEM), spaced(USER), spaced(ANSWER));
        for (role, name, sample) in [
            (Role::User, "user's", Sample::new(None, [user.as_str()])),
            (Role::Assistant, "assistant's", Sample::new(None, [USER, &answer, NEXT])),
            (Role::System, "system's", Sample::new(Some(&system), [USER])),
        ] {
            if role == Role::System && !self.has_system {
                continue;
            }
            let rendered = render(template, &sample, moments()[0])?;
            if rendered != self.compose(sample.system, &sample.texts) {
                self.trims[role as usize] = true;
                if rendered != self.compose(sample.system, &sample.texts) {
                    return Err(NotFixed::WhiteSpace(name));
                }
            }
        }
        Ok(())
    }

    /// Tries the frame on further conversations.
    fn verify(&self, template: &ChatTemplate) -> Result<(), NotFixed> {
        let systems = SYSTEM_TEXTS.into_iter().map(Some).filter(|_| self.has_system);
        for (number, system) in std::iter::once(None).chain(systems).enumerate() {
            for turns in 1..=USER_TEXTS.len() {
                // Other texts at other turns for every system message.
                let user = |turn: usize| USER_TEXTS[(turn + number) % USER_TEXTS.len()];
                let answer = |turn: usize| ANSWER_TEXTS[(turn + number) % ANSWER_TEXTS.len()];
                let mut texts: Vec<&str> = (0..turns).flat_map(|turn| [user(turn), answer(turn)]).collect();
                texts.pop();
                let sample = Sample::new(system, texts);
                let expected = self.compose(sample.system, &sample.texts);
                let [first, second] = moments();
                let rendered = render(template, &sample, first)?;
                if rendered != expected {
                    let system = if system.is_some() { "with" } else { "without" };
                    return Err(NotFixed::Differs { turns, system });
                }
                if render(template, &sample, second)? != rendered {
                    return Err(NotFixed::Dated);
                }
            }
        }
        let reasoned = Sample::new(None, [USER, REASONED, NEXT]);
        if render(template, &reasoned, moments()[0])? != self.compose(None, &reasoned.texts) {
            return Err(NotFixed::Reasoning);
        }
        Ok(())
    }

    /// The text of a conversation: a system message, then questions and answers in turn.
    pub fn compose(&self, system: Option<&str>, texts: &[&str]) -> String {
        let mut text = String::new();
        for (part, message) in self.pieces(system, texts) {
            text.push_str(&self.texts[part as usize]);
            text.push_str(message);
        }
        text
    }

    /// Parts of the frame, each with the message that follows it; nothing follows the last.
    fn pieces<'t>(&self, system: Option<&'t str>, texts: &[&'t str]) -> Vec<(FramePart, &'t str)> {
        let message = |role: Role, text: &'t str| if self.trims[role as usize] { text.trim() } else { text };
        let mut pieces = Vec::new();
        let mut next = FramePart::OpenUser;
        if let Some(system) = system {
            pieces.push((FramePart::OpenSystem, message(Role::System, system)));
            next = FramePart::SystemToUser;
        }
        for (index, text) in texts.iter().enumerate() {
            let (role, after) = match index % 2 {
                0 => (Role::User, FramePart::UserToAssistant),
                _ => (Role::Assistant, FramePart::AssistantToUser),
            };
            pieces.push((next, message(role, text)));
            next = after;
        }
        pieces.push((next, ""));
        pieces
    }

    /// The frame with the tokens of its parts, if they stay apart from the tokens of the texts between them: those of all
    /// pieces together must be those of the whole text, whatever characters a message begins and ends with, white space
    /// excepted.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn with_tokens(mut self, tokenizer: &Tokenizer, vocabulary: usize) -> Result<Self, TokenizerError> {
        let mut tokens: [Vec<u32>; FRAME_PARTS] = Default::default();
        for (tokens, text) in tokens.iter_mut().zip(&self.texts) {
            *tokens = tokenizer.encode_plain(text)?;
        }
        let known = |token: &u32| (*token as usize) < vocabulary;
        if !tokens.iter().flatten().all(known) {
            return Ok(self);
        }
        for (number, &edge) in EDGES.iter().enumerate() {
            let next = EDGES[(number + 1) % EDGES.len()];
            let user = USER_TEXTS[number % USER_TEXTS.len()];
            for system in [None, Some(edge), Some(SYSTEM_TEXTS[number % SYSTEM_TEXTS.len()])] {
                if system.is_some() && !self.has_system {
                    continue;
                }
                let texts = [edge, next, user, ANSWER_TEXTS[number % ANSWER_TEXTS.len()], next, edge, edge];
                let mut apart = Vec::new();
                for (part, message) in self.pieces(system, &texts) {
                    apart.extend(&tokens[part as usize]);
                    apart.extend(tokenizer.encode_plain(message)?);
                }
                if apart != tokenizer.encode_plain(&self.compose(system, &texts))? {
                    return Ok(self);
                }
            }
        }
        self.tokens = Some(tokens);
        Ok(self)
    }

    /// As an artifact's device part carries it.
    pub fn to_section(&self) -> Vec<u8> {
        let trims = Role::ALL.into_iter().filter(|&role| self.trims[role as usize]);
        let mut flags: u32 = trims.map(|role| TRIMS << (role as u32)).sum();
        flags |= if self.has_system { HAS_SYSTEM } else { 0 };
        flags |= if self.tokens.is_some() { HAS_TOKENS } else { 0 };
        let none = Default::default();
        let tokens = self.tokens.as_ref().unwrap_or(&none);
        let lengths = self.texts.iter().zip(tokens).flat_map(|(text, tokens)| [text.len() as u32, tokens.len() as u32]);
        let numbers = [flags, FRAME_PARTS as u32].into_iter().chain(lengths);
        let mut section: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        section.extend(self.texts.iter().flat_map(|text| text.bytes()));
        section.extend(tokens.iter().flatten().flat_map(|token| token.to_le_bytes()));
        section
    }
}

fn render(template: &ChatTemplate, sample: &Sample<'_>, moment: Moment) -> Result<String, NotFixed> {
    template.render(&sample.conversation(moment)).map_err(|error| NotFixed::Refused {
        turns: sample.turns(),
        message: match error {
            ChatTemplateError::Refused { message, .. } => message,
            other => other.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{recorded, template};
    use super::*;

    fn recorded_frame(name: &str) -> Result<ChatFrame, NotFixed> {
        ChatFrame::of(&template(&std::fs::read_to_string(recorded(name)).expect("a template")))
    }

    #[test]
    fn templates_of_markers_are_frames() {
        let smollm2 = recorded_frame("smollm2.jinja").expect("a frame");
        let default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
        let expected = [
            &format!("<|im_start|>system\n{default}<|im_end|>\n<|im_start|>user\n"),
            "<|im_start|>system\n",
            "<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>user\n",
        ];
        assert_eq!(smollm2.texts, expected);
        assert_eq!((smollm2.has_system, smollm2.trims), (true, [false; 3]));
        let chatml = recorded_frame("chatml.jinja").expect("a frame");
        assert_eq!((chatml.has_system, chatml.trims), (true, [true; 3]));
        // The system's text goes into the first question.
        let turns = recorded_frame("turns.jinja").expect("a frame");
        assert_eq!((turns.has_system, turns.trims), (true, [false, true, true]));
        assert_eq!(turns.texts[2], "\n\n");
        let no_system = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}\
             [{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";
        let no_system = ChatFrame::of(&template(no_system)).expect("a frame");
        assert_eq!((no_system.has_system, no_system.texts[4].as_str()), (false, "\n[user] "));
    }

    #[test]
    fn other_templates_say_why_not() {
        let loop_of = |body: &str, prompt: &str| {
            format!(
                "{{% for m in messages %}}{body}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
            )
        };
        let plain = "[{{ m.role }}]{{ m.content }}";
        for (text, expected) in [
            (loop_of("[{{ m.role }}]{{ m.content|upper }}", "[assistant]"), NotFixed::Changed("user's")),
            (loop_of("[{{ m.role }}]{{ m.content }}{{ m.content }}", "[assistant]"), NotFixed::Changed("user's")),
            ("{{ strftime_now('%Y') }}".to_owned() + &loop_of(plain, "[assistant]"), NotFixed::Dated),
            (
                loop_of(plain, "[assistant]<think>"),
                NotFixed::Answers { history: "[assistant]".to_owned(), prompt: "[assistant]<think>".to_owned() },
            ),
            (loop_of("[{{ m.role }}]{{ m.content.lstrip() }}", "[assistant]"), NotFixed::WhiteSpace("user's")),
            (loop_of("[{{ m.role }}]{{ m.content.split('</think>')[-1] }}", "[assistant]"), NotFixed::Reasoning),
            (
                loop_of("{% if loop.index > 4 %}!{% endif %}[{{ m.role }}]{{ m.content }}", "[assistant]"),
                NotFixed::Differs { turns: 3, system: "without" },
            ),
            (
                loop_of("{% if loop.index > 1 %}{{ raise_exception('one question') }}{% endif %}{{ m.content }}", ""),
                NotFixed::Refused { turns: 2, message: "one question".to_owned() },
            ),
        ] {
            assert_eq!(ChatFrame::of(&template(&text)).err(), Some(expected), "{text}");
        }
        // With the system's text before the last question, it moves.
        let moved = recorded_frame("instructions.jinja");
        assert!(matches!(moved, Err(NotFixed::Answers { .. })), "{moved:?}");
        assert_eq!(recorded_frame("headers.jinja").err(), Some(NotFixed::Dated));
    }
}
