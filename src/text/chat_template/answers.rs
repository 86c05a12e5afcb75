//! Which parts of a conversation's text the assistant says, for training on nothing else. A template that marks them with
//! `{% generation %}`, as transformers reads it, is believed. Of another one, an answer begins where the rendering of the
//! messages before it, with the prompt for an answer, ends, and goes as far as the rendering of the messages up to it.

use super::{ChatTemplate, ChatTemplateError, Conversation, Moment};
use serde_json::Value;
use std::ops::Range;

/// Stand around the parts that a template marks, while it is rendered for them: characters that no text has.
pub(super) const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// A conversation's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// All of it.
    pub text: String,
    /// Bytes that the assistant says, ascending. Not marked by the template, they may end within the next token: where the
    /// end of a text begins with the same characters as the next message.
    pub answers: Vec<Range<usize>>,
    /// Whether the template itself marks them. Otherwise more may follow an answer's end token than the model says.
    pub by_template: bool,
}

/// Why the assistant's parts are not known.
#[derive(Debug, thiserror::Error)]
pub enum AnswersError {
    /// The template failed.
    #[error(transparent)]
    Template(#[from] ChatTemplateError),
    /// The answer is not where the messages before it end.
    #[error(
        "message {message}: the chat template does not write this answer after what it writes of the messages before it, \
         so that it is not known which part of the text the assistant says; mark it with {{% generation %}} in the template"
    )]
    NotFound {
        /// From 1.
        message: usize,
    },
}

impl ChatTemplate {
    /// The text of a whole conversation, and what of it the assistant says.
    ///
    /// # Errors
    /// The template fails, or an answer is not found.
    pub fn answers(&self, conversation: &Conversation) -> Result<Marked, AnswersError> {
        let whole = Conversation {
            add_generation_prompt: false,
            moment: Some(conversation.moment.unwrap_or_else(Moment::now)),
            ..conversation.clone()
        };
        let text = self.render(&whole)?;
        if !text.contains(MARKS)
            && let Some(marked) = self.render_marked(&whole)?
        {
            let (plain, answers) = without_marks(&marked);
            if plain == text && !answers.is_empty() {
                return Ok(Marked { text, answers, by_template: true });
            }
        }
        let mut answers = Vec::new();
        for (index, message) in whole.messages.iter().enumerate() {
            if message.get("role").and_then(Value::as_str) != Some("assistant") {
                continue;
            }
            let upto = |count: usize, prompt: bool| {
                let messages = whole.messages[..count].to_vec();
                self.render(&Conversation { messages, add_generation_prompt: prompt, ..whole.clone() })
            };
            let content = message.get("content").and_then(Value::as_str);
            let found = answer(&text, &upto(index, true)?, &upto(index + 1, false)?, content);
            answers.push(found.ok_or(AnswersError::NotFound { message: index + 1 })?);
        }
        Ok(Marked { text, answers, by_template: false })
    }
}

/// The place of an answer in a text, given the text up to its beginning, and the one up to its end.
fn answer(text: &str, before: &str, through: &str, content: Option<&str>) -> Option<Range<usize>> {
    let rest = text.strip_prefix(before)?;
    let start = before.len();
    // After the last message a template may write an end of the text that does not stand between messages.
    let mut end = text.bytes().zip(through.bytes()).take_while(|(a, b)| a == b).count();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let Some(content) = content.map(str::trim) else { return (end == through.len()).then_some(start..end) };
    if end > start && text[start..end].contains(content) {
        return Some(start..end);
    }
    // An earlier answer may stand without the reasoning that the last one has.
    let at = rest.find(content).filter(|&at| rest[..at].trim().is_empty())?;
    Some(start..start + at + content.len())
}

/// A text without its marks, and the bytes between them.
fn without_marks(marked: &str) -> (String, Vec<Range<usize>>) {
    let (mut text, mut answers, mut open) = (String::with_capacity(marked.len()), Vec::new(), Vec::new());
    for character in marked.chars() {
        match character {
            character if character == MARKS[0] => open.push(text.len()),
            character if character == MARKS[1] => {
                let start = open.pop().unwrap_or(text.len());
                // Of marks within marks the outer ones count.
                if open.is_empty() && start < text.len() {
                    answers.push(start..text.len());
                }
            }
            character => text.push(character),
        }
    }
    (text, answers)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{recorded, template};
    use super::super::{Message, message};
    use super::*;

    fn talk() -> Vec<Message> {
        let pairs = [("user", "Hi"), ("assistant", "Hello, é!"), ("user", "Bye"), ("assistant", "Go \n")];
        pairs.map(|(role, text)| message(role, text)).into()
    }

    fn said(template_text: &str, messages: Vec<Message>) -> Result<Vec<String>, AnswersError> {
        let marked = template(template_text).answers(&Conversation { messages, ..Conversation::default() })?;
        Ok(marked.answers.into_iter().map(|range| marked.text[range].to_owned()).collect())
    }

    #[test]
    fn answers_are_found_by_marks_and_by_prefixes() {
        let chatml = std::fs::read_to_string(recorded("chatml.jinja")).expect("a template");
        assert_eq!(said(&chatml, talk()).expect("found"), ["Hello, é!<|im_end|>\n", "Go<|im_end|>\n"]);
        let marked = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{%- generation -%}\n {{ m.content }}|\
            {%- endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}";
        assert_eq!(said(marked, talk()).expect("found"), ["Hello, é!|", "Go \n|"]);
        let recorded_marks = std::fs::read_to_string(recorded("generation.jinja")).expect("a template");
        assert_eq!(said(&recorded_marks, talk()).expect("found"), [" Hello, é!</s>", " Go \n</s>"]);
        // An end of the text that only the last message has, and that begins as the next message does.
        let ended = std::fs::read_to_string(recorded("markers.jinja")).expect("a template");
        assert_eq!(said(&ended, talk()).expect("found"), ["Hello, é!<|end|>\n<", "Go \n<|end|>\n</s>"]);
        // Reasoning that stands with the last answer only.
        let reasoning = "{% for m in messages %}[{{ m.role }}]{% if loop.last and m.role == 'assistant' %}<think>{% endif %}\
            {{ m.content }};{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
        assert_eq!(said(reasoning, talk()).expect("found"), ["Hello, é!", "<think>Go \n;"]);
        assert!(said(&chatml, talk()[..1].to_vec()).expect("found").is_empty());
    }

    #[test]
    fn answers_that_are_elsewhere_are_refused() {
        let reversed = "{% for m in messages|reverse %}[{{ m.role }}]{{ m.content }}{% endfor %}";
        let error = said(reversed, talk()).expect_err("not found").to_string();
        assert!(error.contains("message 2: the chat template does not write this answer after"), "{error}");
        assert!(matches!(said("{{ raise_exception('no') }}", talk()), Err(AnswersError::Template(_))));
    }
}
