//! The variables of a chat template: messages, and the other arguments of transformers' `apply_chat_template`.

use super::Moment;
use serde_json::{Map, Value};

/// Names a message's reasoning goes by, the first being the one templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message: a JSON object, usually with `role` and `content`. Keys stay in their order.
pub type Message = Map<String, Value>;

/// A message with a role (`system`, `user`, `assistant`, `tool`) and a text.
pub fn message(role: &str, content: &str) -> Message {
    let pairs = [("role", role), ("content", content)];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}

/// A conversation to render. Tools and documents that are `None` are none in the template too, as in transformers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// First to last. Keys whose value is null are left out, as transformers does.
    pub messages: Vec<Message>,
    /// Whether the text ends where the assistant's next answer begins.
    pub add_generation_prompt: bool,
    /// JSON schemas of functions that the model may call.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from, each with `title` and `text`.
    pub documents: Option<Vec<Value>>,
    /// Further variables, such as `enable_thinking`; they come before special tokens of the same name.
    pub arguments: Map<String, Value>,
    /// Which of several templates; `None` is `tool_use` where there are tools and it exists, else `default`.
    pub template: Option<String>,
    /// The time that `strftime_now` formats; `None` is the machine's clock, in UTC.
    pub moment: Option<Moment>,
}

impl Conversation {
    /// A question, perhaps after a system message, to be answered.
    pub fn ask(system: Option<&str>, user: &str) -> Self {
        let system = system.map(|system| message("system", system));
        let messages = system.into_iter().chain([message("user", user)]).collect();
        Conversation { messages, add_generation_prompt: true, ..Conversation::default() }
    }

    /// The template's variables, `tokens` being the special tokens by name; or the argument that would hide one of
    /// the conversation's own.
    pub(super) fn variables(&self, tokens: &[(String, String)]) -> Result<Map<String, Value>, String> {
        let mut variables: Map<String, Value> = Map::new();
        variables.extend(tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))));
        variables.extend(self.arguments.clone());
        let list = |values: &Option<Vec<Value>>| values.clone().map_or(Value::Null, Value::Array);
        let messages = self.messages.iter().map(|message| Value::Object(as_given(message))).collect();
        for (name, value) in [
            ("messages", Value::Array(messages)),
            ("tools", list(&self.tools)),
            ("documents", list(&self.documents)),
            ("add_generation_prompt", Value::Bool(self.add_generation_prompt)),
        ] {
            if self.arguments.contains_key(name) {
                return Err(name.to_owned());
            }
            variables.insert(name.to_owned(), value);
        }
        Ok(variables)
    }
}

/// A message as transformers hands it over: without nulls, and with its reasoning under both names that templates read.
fn as_given(message: &Message) -> Message {
    let message: Message = message.iter().filter(|(_, value)| !value.is_null()).map(copied).collect();
    let Some(reasoning) = REASONING.iter().find_map(|&name| message.get(name)).cloned() else { return message };
    let mut given = Message::new();
    given.insert("thinking".to_owned(), reasoning.clone());
    given.extend(message);
    given.insert("reasoning_content".to_owned(), reasoning);
    given
}

fn copied((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_lose_nulls_and_gain_names_of_reasoning() {
        for (given, expected) in [
            (json!({"role": "user", "content": null, "b": 1, "a": null}), r#"{"role":"user","b":1}"#),
            (
                json!({"role": "a", "reasoning": "r"}),
                r#"{"thinking":"r","role":"a","reasoning":"r","reasoning_content":"r"}"#,
            ),
            (json!({"reasoning_content": "r", "thinking": "t"}), r#"{"thinking":"t","reasoning_content":"r"}"#),
            (json!({"reasoning_content": null, "thinking": "t"}), r#"{"thinking":"t","reasoning_content":"t"}"#),
        ] {
            let Value::Object(given) = given else { panic!("an object") };
            assert_eq!(Value::Object(as_given(&given)).to_string(), expected);
        }
    }

    #[test]
    fn arguments_come_before_tokens_and_never_hide_messages() {
        let mut conversation = Conversation::ask(None, "hi");
        conversation.arguments.insert("bos_token".to_owned(), Value::from("x"));
        let variables = conversation.variables(&[("bos_token".to_owned(), "y".to_owned())]).expect("no conflict");
        let expected = json!({"bos_token": "x", "messages": [{"role": "user", "content": "hi"}], "tools": null,
            "documents": null, "add_generation_prompt": true});
        assert_eq!(Value::Object(variables), expected);
        conversation.arguments.insert("tools".to_owned(), Value::Null);
        assert_eq!(conversation.variables(&[]), Err("tools".to_owned()));
    }
}
