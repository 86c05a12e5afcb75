//! Strings: any number of characters, a range of numbers of them, those that a pattern is found in, or both.

use super::keywords::Schema;
use super::refuse;
use crate::automaton::machine::Machine;
use crate::characters::Alphabet;
use crate::error::Result;
use crate::limits::Work;
use crate::regular;
use crate::syntax::Node;
use std::rc::Rc;

/// Any string.
pub(super) fn any() -> Node {
    quoted(repeated(0, None))
}

pub(super) fn string(schema: &Schema<'_>, work: &mut Work) -> Result<Node> {
    let (least, most) = (schema.count("minLength")?.unwrap_or(0), schema.count("maxLength")?);
    if most.is_some_and(|most| most < least) {
        return Err(refuse(schema.pointer, "`minLength` is above `maxLength`"));
    }
    let Some(pattern) = schema.text("pattern")? else { return Ok(quoted(repeated(least, most))) };
    let found = regular::anywhere(pattern, work.limits.nesting);
    let found = found.map_err(|problem| refuse(schema.pointer, format!("pattern `{pattern}`: {problem}")))?;
    let mut machine = Machine::of(&found, work)?;
    if least > 0 || most.is_some() {
        let lengths = Machine::of(&repeated(least, most), work)?;
        machine = machine.and(&lengths, work)?;
    }
    if machine.is_empty() {
        return Err(refuse(schema.pointer, format!("no string of these lengths matches `{pattern}`")));
    }
    Ok(quoted(Node::Machine(Rc::new(machine))))
}

fn repeated(least: u32, most: Option<u32>) -> Node {
    Node::Repeat(Rc::new(Alphabet::Json.any()), least, most)
}

fn quoted(content: Node) -> Node {
    Node::Sequence(vec![Node::literal("\""), content, Node::literal("\"")])
}
