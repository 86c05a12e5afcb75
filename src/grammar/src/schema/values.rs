//! Values as text, and the rule of any value.

use super::{Compiler, Separators, numbers, strings};
use crate::error::Result;
use crate::syntax::{Node, Rule};
use serde_json::Value;
use std::rc::Rc;

/// A value as text.
pub(super) fn text(value: &Value, separators: Separators) -> String {
    let joined = |parts: Vec<String>| parts.join(separators.comma());
    match value {
        Value::Array(items) => format!("[{}]", joined(items.iter().map(|item| text(item, separators)).collect())),
        Value::Object(map) => {
            let pair = |(name, value): (&String, &Value)| {
                format!("{}{}{}", Value::from(name.as_str()), separators.colon(), text(value, separators))
            };
            format!("{{{}}}", joined(map.iter().map(pair).collect()))
        }
        plain => plain.to_string(),
    }
}

impl Compiler<'_, '_> {
    /// Any value, of any depth.
    pub(super) fn any_value(&mut self) -> Result<Node> {
        if let Some(rule) = self.any {
            return Ok(Node::Rule(rule));
        }
        let rule = self.rules.len();
        self.any = Some(rule);
        self.rules.push(Rule { name: "any value".into(), node: Node::empty() });
        let comma = Node::literal(self.separators.comma());
        let list = |item: Node| {
            let further = Node::Sequence(vec![comma.clone(), item.clone()]);
            Node::Sequence(vec![item, Node::Repeat(Rc::new(further), 0, None)]).optional()
        };
        let pair = Node::Sequence(vec![strings::any(), Node::literal(self.separators.colon()), Node::Rule(rule)]);
        let around = |open: &str, inside: Node, close: &str| {
            Node::Sequence(vec![Node::literal(open), inside, Node::literal(close)])
        };
        self.rules[rule].node = Node::Either(vec![
            around("{", list(pair), "}"),
            around("[", list(Node::Rule(rule)), "]"),
            strings::any(),
            numbers::any(),
            Node::literal("true"),
            Node::literal("false"),
            Node::literal("null"),
        ]);
        Ok(Node::Rule(rule))
    }
}
