//! Expressions over bytes and the rules that name them: what every kind of grammar is translated to first.

use crate::automaton::machine::Machine;
use std::rc::Rc;

/// An expression.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// These bytes.
    Literal(Vec<u8>),
    /// One of several sequences of byte ranges, as a class of characters is in UTF-8.
    Ranges(Rc<[Vec<(u8, u8)>]>),
    /// One after the other.
    Sequence(Vec<Node>),
    /// One of them; none of none.
    Either(Vec<Node>),
    /// Repeated; without a most, any number of times.
    Repeat(Rc<Node>, u32, Option<u32>),
    /// Several in their order, of which those without the mark may be left out; the separator stands between those
    /// there are.
    Members(Vec<(Node, bool)>, Rc<Node>),
    /// A rule.
    Rule(usize),
    /// Everything that an automaton accepts.
    Machine(Rc<Machine>),
}

impl Node {
    /// The empty text.
    pub(crate) fn empty() -> Node {
        Node::Sequence(Vec::new())
    }

    pub(crate) fn literal(text: &str) -> Node {
        Node::Literal(text.as_bytes().to_vec())
    }

    /// The expression or nothing.
    pub(crate) fn optional(self) -> Node {
        Node::Repeat(Rc::new(self), 0, Some(1))
    }
}

/// A named expression.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// For messages.
    pub(crate) name: String,
    pub(crate) node: Node,
}

/// Rules and the one that a text follows.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) root: usize,
}

impl Rules {
    /// A grammar of one expression.
    pub(crate) fn of(node: Node) -> Rules {
        Rules { rules: vec![Rule { name: "root".into(), node }], root: 0 }
    }
}
