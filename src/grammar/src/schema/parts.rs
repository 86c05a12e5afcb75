//! Objects and arrays.

use super::keywords::Schema;
use super::{Compiler, Note, inner, refuse, strings};
use crate::error::Result;
use crate::syntax::Node;
use serde_json::Value;
use std::rc::Rc;

impl Compiler<'_, '_> {
    /// `{ … }`: the named properties in their order, then those that are only required. An object without properties whose
    /// further ones have a schema is a map with any names.
    pub(super) fn object(&mut self, schema: &Schema<'_>, depth: usize) -> Result<Node> {
        let pointer = schema.pointer;
        let properties = schema.map_of("properties")?;
        let mut required = Vec::new();
        for name in schema.list("required")?.unwrap_or_default() {
            required.push(name.as_str().ok_or_else(|| refuse(pointer, "`required` is not a list of names"))?);
        }
        let (further, place) = match (schema.value("additionalProperties"), schema.value("unevaluatedProperties")) {
            (Some(further), _) => (further, "additionalProperties"),
            (None, Some(further)) => (further, "unevaluatedProperties"),
            (None, None) => (&Value::Bool(true), "additionalProperties"),
        };
        let place = inner(pointer, place);
        let (comma, colon) = (Node::literal(self.separators.comma()), self.separators.colon());
        let braces = |inside| Node::Sequence(vec![Node::literal("{"), inside, Node::literal("}")]);
        if properties.is_none() && required.is_empty() {
            if *further == Value::Bool(false) {
                return Ok(braces(Node::empty()));
            }
            let value = self.schema(further, &place, depth + 1)?;
            let pair = Node::Sequence(vec![strings::any(), Node::literal(colon), value]);
            let more = Node::Sequence(vec![comma, pair.clone()]);
            return Ok(braces(Node::Sequence(vec![pair, Node::Repeat(Rc::new(more), 0, None)]).optional()));
        }
        let stated = schema.value("additionalProperties").or(schema.value("unevaluatedProperties"));
        if properties.is_some() && stated.is_some_and(|value| *value != Value::Bool(false)) {
            self.notes.push(Note { pointer: pointer.into(), text: "only the named properties are written".into() });
        }
        let mut members = Vec::new();
        let entry =
            |name: &str, value| Node::Sequence(vec![Node::literal(&format!("{}{colon}", Value::from(name))), value]);
        for (name, value) in properties.into_iter().flatten() {
            let at = inner(&inner(pointer, "properties"), name);
            let value = self.schema(value, &at, depth + 1)?;
            members.push((entry(name, value), required.contains(&name.as_str())));
        }
        let mut unnamed: Vec<&str> = Vec::new();
        for name in required {
            if properties.is_some_and(|properties| properties.contains_key(name)) || unnamed.contains(&name) {
                continue;
            }
            if *further == Value::Bool(false) {
                return Err(refuse(pointer, format!("`{name}` is required and excluded")));
            }
            unnamed.push(name);
            let value = self.schema(further, &place, depth + 1)?;
            members.push((entry(name, value), true));
        }
        Ok(braces(Node::Members(members, Rc::new(comma))))
    }

    /// `[ … ]`: the items of `prefixItems`, then those of `items`.
    pub(super) fn array(&mut self, schema: &Schema<'_>, depth: usize) -> Result<Node> {
        let pointer = schema.pointer;
        let least = schema.count("minItems")?.unwrap_or(0);
        let mut most = schema.count("maxItems")?;
        if most.is_some_and(|most| most < least) {
            return Err(refuse(pointer, "`minItems` is above `maxItems`"));
        }
        let mut first = Vec::new();
        for (index, item) in schema.list("prefixItems")?.unwrap_or_default().iter().enumerate() {
            first.push(self.schema(item, &format!("{pointer}/prefixItems/{index}"), depth + 1)?);
        }
        let items = match schema.value("items") {
            Some(Value::Array(_)) => return Err(refuse(pointer, "a list in `items` is called `prefixItems` now")),
            Some(Value::Bool(false)) => None,
            Some(items) => Some(self.schema(items, &inner(pointer, "items"), depth + 1)?),
            None if first.is_empty() || least as usize > first.len() => Some(self.any_value()?),
            None => {
                if most.is_none_or(|most| most as usize > first.len()) {
                    let text = "without `items` no items behind `prefixItems` are written".into();
                    self.notes.push(Note { pointer: pointer.into(), text });
                }
                None
            }
        };
        if items.is_none() {
            most = Some(most.unwrap_or(u32::MAX).min(first.len() as u32));
        }
        if most.is_some_and(|most| most < least) {
            return Err(refuse(pointer, "`minItems` asks for more items than there can be"));
        }
        first.truncate(most.map_or(usize::MAX, |most| most as usize));
        let comma = Node::literal(self.separators.comma());
        let count = first.len() as u32;
        let mut all = match items {
            Some(item) if count == 0 && most != Some(0) => {
                let further = Rc::new(Node::Sequence(vec![comma.clone(), item.clone()]));
                let rest = Node::Repeat(further, least.max(1) - 1, most.map(|most| most - 1));
                let some = Node::Sequence(vec![item, rest]);
                if least == 0 { some.optional() } else { some }
            }
            Some(item) if most.is_none_or(|most| most > count) => {
                let further = Rc::new(Node::Sequence(vec![comma.clone(), item]));
                Node::Repeat(further, least.saturating_sub(count), most.map(|most| most - count))
            }
            _ => Node::empty(),
        };
        for (index, item) in first.into_iter().enumerate().rev() {
            let parts = if index > 0 { vec![comma.clone(), item, all] } else { vec![item, all] };
            all = Node::Sequence(parts);
            if index as u32 >= least {
                all = all.optional();
            }
        }
        Ok(Node::Sequence(vec![Node::literal("["), all, Node::literal("]")]))
    }
}
