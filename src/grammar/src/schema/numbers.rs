//! Numbers. Integers have at most 18 digits and no sign before 0, so that every reader takes them for what they are; a
//! range of them becomes the digits that its numbers have. Other numbers have at most 15 digits before the point and 15
//! after it, and exponents of two digits.

use super::keywords::{Kind, Schema};
use super::refuse;
use crate::error::{GrammarError, Result};
use crate::syntax::Node;
use serde_json::Value;
use std::rc::Rc;

/// The largest integer that is written.
const LARGEST: i64 = 999_999_999_999_999_999;

/// Any number that is not bounded.
pub(super) fn any() -> Node {
    let digits = |least, most| Node::Repeat(Rc::new(digit('0', '9')), least, Some(most));
    let whole = Node::Either(vec![Node::literal("0"), Node::Sequence(vec![digit('1', '9'), digits(0, 14)])]);
    let sign = |signs: &[&str]| Node::Either(signs.iter().map(|sign| Node::literal(sign)).collect());
    Node::Sequence(vec![
        sign(&["-"]).optional(),
        whole,
        Node::Sequence(vec![Node::literal("."), digits(1, 15)]).optional(),
        Node::Sequence(vec![sign(&["e", "E"]), sign(&["+", "-"]).optional(), digits(1, 2)]).optional(),
    ])
}

/// A number; bounds are for integers.
pub(super) fn number(schema: &Schema<'_>) -> Result<Node> {
    for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
        if schema.value(keyword).is_some() {
            let problem = format!("`{keyword}` is supported for `integer` only");
            return Err(refuse(schema.pointer, problem));
        }
    }
    Ok(any())
}

pub(super) fn integer(schema: &Schema<'_>) -> Result<Node> {
    if schema.value("multipleOf").is_some() {
        return Err(GrammarError::Unsupported { pointer: schema.pointer.into(), keyword: "multipleOf".into() });
    }
    let (mut least, mut most) = (-LARGEST, LARGEST);
    if let Some(bound) = bound(schema, "minimum", f64::ceil)? {
        least = least.max(bound.0);
    }
    if let Some((bound, exact)) = bound(schema, "exclusiveMinimum", f64::ceil)? {
        least = least.max(bound.saturating_add(i64::from(exact)));
    }
    if let Some(bound) = bound(schema, "maximum", f64::floor)? {
        most = most.min(bound.0);
    }
    if let Some((bound, exact)) = bound(schema, "exclusiveMaximum", f64::floor)? {
        most = most.min(bound.saturating_sub(i64::from(exact)));
    }
    if least > most {
        return Err(refuse(schema.pointer, "no integer of at most 18 digits is within the bounds"));
    }
    debug_assert!(schema.kinds().is_ok_and(|kinds| kinds.is_some_and(|kinds| kinds.contains(&Kind::Integer))));
    Ok(between(least, most))
}

/// A bound rounded to an integer, and whether it was one.
fn bound(schema: &Schema<'_>, keyword: &str, round: fn(f64) -> f64) -> Result<Option<(i64, bool)>> {
    let Some(value) = schema.value(keyword) else { return Ok(None) };
    if let Some(exact) = value.as_i64() {
        return Ok(Some((exact, true)));
    }
    let number = value.as_f64().filter(|_| matches!(value, Value::Number(_)));
    let number = number.ok_or_else(|| refuse(schema.pointer, format!("`{keyword}` is not a number")))?;
    // Beyond the range of i64 the conversion saturates.
    Ok(Some((round(number) as i64, number.fract() == 0.0)))
}

/// The integers of a range, at least -10^18 + 1 and at most 10^18 - 1.
fn between(least: i64, most: i64) -> Node {
    let mut parts = Vec::new();
    if least < 0 {
        let (low, high) = (most.min(-1).unsigned_abs(), least.unsigned_abs());
        parts.push(Node::Sequence(vec![Node::literal("-"), natural(low, high)]));
    }
    if most >= 0 {
        parts.push(natural(least.max(0).unsigned_abs(), most.unsigned_abs()));
    }
    Node::Either(parts)
}

fn natural(least: u64, most: u64) -> Node {
    let mut parts = Vec::new();
    let mut low = least;
    // A part for each number of digits.
    loop {
        let digits = low.max(1).ilog10() + 1;
        let last = 10u64.pow(digits) - 1;
        let high = most.min(last);
        parts.push(of_length(low.to_string().as_bytes(), high.to_string().as_bytes()));
        if high == most {
            return Node::Either(parts);
        }
        low = high + 1;
    }
}

/// Numbers of one length, digits compared from the left.
fn of_length(low: &[u8], high: &[u8]) -> Node {
    let ([first, low @ ..], [last, high @ ..]) = (low, high) else { return Node::empty() };
    let count = low.len() as u32;
    let any = || Node::Repeat(Rc::new(digit('0', '9')), count, Some(count));
    let with = |first: u8, rest: Node| Node::Sequence(vec![Node::Literal(vec![first]), rest]);
    if first == last {
        return with(*first, of_length(low, high));
    }
    let (from_zero, to_nine) = (low.iter().all(|&digit| digit == b'0'), high.iter().all(|&digit| digit == b'9'));
    let mut parts = Vec::new();
    let (mut least, mut most) = (*first, *last);
    if !from_zero {
        parts.push(with(*first, of_length(low, &vec![b'9'; low.len()])));
        least += 1;
    }
    if !to_nine {
        parts.push(with(*last, of_length(&vec![b'0'; high.len()], high)));
        most -= 1;
    }
    if least <= most {
        parts.push(Node::Sequence(vec![digit(least.into(), most.into()), any()]));
    }
    Node::Either(parts)
}

fn digit(low: char, high: char) -> Node {
    Node::Ranges(vec![vec![(low as u8, high as u8)]].into())
}
