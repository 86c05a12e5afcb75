//! Grammars as rules, in a notation like GBNF:
//!
//! ```text
//! # a comment
//! root   ::= "set " name " to " number ("%" | "°")?
//! name   ::= [a-z] [a-z0-9_]{0,15}
//! number ::= "-"? [0-9]+
//! ```
//!
//! `name ::= …` defines a rule, and the text follows `root`. Literals in double quotes and classes in brackets have the
//! escapes `\n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH`; `.` is any character but a line break; `[^…]` is any character
//! that is not named. `( )` group; `? * + {m} {m,} {,n} {m,n}` repeat; `|` separates alternatives. A rule ends where the next
//! one begins.

use crate::characters::{Alphabet, complement};
use crate::error::{GrammarError, Limit, Result};
use crate::limits::{Limits, check};
use crate::syntax::{Node, Rule, Rules};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The rule that texts follow.
const ROOT: &str = "root";

pub(crate) fn read(text: &str, limits: &Limits) -> Result<Rules> {
    let mut parser = Parser {
        characters: text.chars().collect(),
        at: 0,
        names: BTreeMap::new(),
        rules: Vec::new(),
        nesting: limits.nesting,
    };
    parser.space();
    while !parser.ended() {
        let at = parser.at;
        let name = parser.name().ok_or_else(|| parser.error("expected a rule: `name ::= …`"))?;
        parser.space();
        if !parser.skip("::=") {
            return Err(parser.error("expected `::=` after the name of a rule"));
        }
        let number = parser.rule(&name);
        if parser.rules[number].1.is_some() {
            parser.at = at;
            return Err(parser.error(&format!("rule `{name}` is defined twice")));
        }
        let node = parser.alternatives(0)?;
        parser.rules[number].1 = Some(node);
        parser.space();
    }
    let root = parser.names.get(ROOT).copied().filter(|&root| parser.rules[root].1.is_some());
    let root = root.ok_or_else(|| GrammarError::Undefined { rule: ROOT.into() })?;
    let rules = parser.rules.into_iter().map(|(name, node)| match node {
        Some(node) => Ok(Rule { name, node }),
        None => Err(GrammarError::Undefined { rule: name }),
    });
    Ok(Rules { rules: rules.collect::<Result<_>>()?, root })
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    names: BTreeMap<String, usize>,
    rules: Vec<(String, Option<Node>)>,
    nesting: usize,
}

impl Parser {
    fn error(&self, problem: &str) -> GrammarError {
        let before = &self.characters[..self.at.min(self.characters.len())];
        let line_start = before.iter().rposition(|&c| c == '\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|&&c| c == '\n').count() + 1;
        GrammarError::Syntax { line, column: before.len() - line_start + 1, problem: problem.into() }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn ended(&self) -> bool {
        self.at >= self.characters.len()
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(index, c)| self.characters.get(self.at + index) == Some(&c));
        self.at += if found { text.chars().count() } else { 0 };
        found
    }

    /// Passes over white space and comments.
    fn space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else if c.is_whitespace() {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name: String = self.characters[self.at..].iter().take_while(|c| is_part(c)).collect();
        self.at += name.len();
        (!name.is_empty()).then_some(name)
    }

    fn rule(&mut self, name: &str) -> usize {
        let (rules, next) = (&mut self.rules, self.names.len());
        *self.names.entry(name.to_owned()).or_insert_with(|| {
            rules.push((name.to_owned(), None));
            next
        })
    }

    fn alternatives(&mut self, depth: usize) -> Result<Node> {
        check(Limit::Nesting, depth, self.nesting)?;
        let mut all = vec![self.sequence(depth)?];
        while self.skip("|") {
            all.push(self.sequence(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::Either(all) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node> {
        let mut parts = Vec::new();
        loop {
            self.space();
            let part = match self.peek() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.at += 1;
                    Alphabet::Plain.class(&complement(&[('\n', '\n'), ('\r', '\r')]))
                }
                Some('(') => {
                    self.at += 1;
                    let inner = self.alternatives(depth + 1)?;
                    if !self.skip(")") {
                        return Err(self.error("expected `)`"));
                    }
                    inner
                }
                Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                    let start = self.at;
                    let name = self.name().unwrap_or_default();
                    self.space();
                    if self.skip("::=") {
                        // The next rule.
                        self.at = start;
                        return Ok(Node::Sequence(parts));
                    }
                    let rule = self.rule(&name);
                    Node::Rule(rule)
                }
                None | Some('|' | ')') => return Ok(Node::Sequence(parts)),
                Some(c) => return Err(self.error(&format!("unexpected `{c}`"))),
            };
            parts.push(self.repeated(part)?);
        }
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node> {
        let mut signs = 0;
        loop {
            let (least, most) = match self.peek() {
                Some('?') => (0, Some(1)),
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('{') => self.bounds()?,
                _ => return Ok(node),
            };
            // The sign, or the brace that closes it.
            self.at += 1;
            signs += 1;
            check(Limit::Nesting, signs, self.nesting)?;
            node = Node::Repeat(Rc::new(node), least, most);
        }
    }

    /// `{m,n}`, up to the closing brace.
    fn bounds(&mut self) -> Result<(u32, Option<u32>)> {
        self.at += 1;
        let least = self.number()?;
        let most = if self.skip(",") { self.number()? } else { least };
        if self.peek() != Some('}') || least.is_none() && most.is_none() {
            return Err(self.error("expected `{m}`, `{m,}`, `{,n}` or `{m,n}`"));
        }
        let least = least.unwrap_or(0);
        if most.is_some_and(|most| most < least) {
            return Err(self.error("the bounds of a repetition cross"));
        }
        Ok((least, most))
    }

    fn number(&mut self) -> Result<Option<u32>> {
        let digits: String = self.characters[self.at..].iter().take_while(|c| c.is_ascii_digit()).collect();
        self.at += digits.len();
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().map(Some).map_err(|_| self.error("a number is too large"))
    }

    fn literal(&mut self) -> Result<Node> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(Node::literal(&text));
                }
                None | Some('\n') => return Err(self.error("a literal does not end")),
                Some(_) => text.push(self.character()?),
            }
        }
    }

    fn class(&mut self) -> Result<Node> {
        self.at += 1;
        let negated = self.skip("^");
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                Some(']') => {
                    self.at += 1;
                    break;
                }
                None | Some('\n') => return Err(self.error("a class does not end")),
                Some(_) => {}
            }
            let low = self.character()?;
            let is_range = self.peek() == Some('-') && self.characters.get(self.at + 1).is_some_and(|&c| c != ']');
            let high = if is_range {
                self.at += 1;
                self.character()?
            } else {
                low
            };
            if high < low {
                return Err(self.error("a range of characters ends before it begins"));
            }
            ranges.push((low, high));
        }
        let ranges = complement(&ranges);
        Ok(Alphabet::Plain.class(&if negated { ranges } else { complement(&ranges) }))
    }

    /// A character, escaped or not.
    fn character(&mut self) -> Result<char> {
        let Some(c) = self.peek() else { return Err(self.error("unexpected end")) };
        self.at += 1;
        if c != '\\' {
            return Ok(c);
        }
        let Some(letter) = self.peek() else { return Err(self.error("unexpected end")) };
        self.at += 1;
        let digits = match letter {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' => return Ok(letter),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.error(&format!("unknown escape `\\{letter}`"))),
        };
        let text: String = self.characters[self.at..].iter().take(digits).collect();
        let is_hex = text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
        let value = u32::from_str_radix(&text, 16).ok().filter(|_| is_hex).and_then(char::from_u32);
        let value = value.ok_or_else(|| self.error("an escape is not a character"))?;
        self.at += digits;
        Ok(value)
    }
}
