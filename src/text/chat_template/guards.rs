//! The filters that [`super::source`] writes into a template. Each returns its argument, or an error where the argument
//! is or would become a container too large to handle at no cost: minijinja prints, compares and drops containers
//! recursively, item by item, and charges fuel for the result alone. With them, a container as a tree (shared parts
//! counted as often as they are met) stays within [`MAX_WEIGHT_BYTES`] and [`MAX_DEPTH`].

use minijinja::value::{DynObject, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Most bytes of a container as a tree: its texts, and [`ITEM_BYTES`] for each value.
const MAX_WEIGHT_BYTES: usize = 32 << 20;
const ITEM_BYTES: usize = 32;
/// Most containers within each other: JSON may have 128, and a template puts its own around.
const MAX_DEPTH: usize = 160;
/// Most items of a list that is added to another.
const MAX_ADDED_ITEMS: usize = 1 << 16;
/// Values weighed for one unit of fuel.
const ITEMS_PER_FUEL: usize = 8;

/// A value that a template may not make, as the source of an engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unbounded(pub(super) String);

/// Adds the filters.
pub(super) fn register(environment: &mut Environment) {
    environment.add_filter("slmc_keep", |state: &State, value: Value| keep(state, value, true));
    environment.add_filter("slmc_store", |state: &State, value: Value| keep(state, value, false));
    environment.add_filter("slmc_term", term);
    environment.add_filter("slmc_factor", factor);
}

/// Checks a value that a variable or container will hold. Slices and sums of lists, which Python copies, are copied
/// here: lazy views of views would nest as deep as a loop runs.
pub(super) fn keep(state: &State, value: Value, may_be_namespace: bool) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value) };
    if is_namespace(object) {
        return if may_be_namespace { Ok(value) } else { Err(nested_namespace()) };
    }
    weigh(state, &value)?;
    if value.kind() == ValueKind::Iterable && object.enumerator_len().is_some() {
        return value.try_iter()?.checked().collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    Ok(value)
}

/// Checks an operand of `+`.
fn term(state: &State, value: Value) -> Result<Value, Error> {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        if value.len().is_none_or(|items| items > MAX_ADDED_ITEMS) {
            return Err(refusal(format!(
                "a list of more than {MAX_ADDED_ITEMS} items, or of no known length, in a sum"
            )));
        }
        weigh(state, &value)?;
    }
    Ok(value)
}

/// Checks an operand of `*`.
fn factor(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => Err(refusal("a list repeated with `*`".to_owned())),
        _ => Ok(value),
    }
}

/// Walks a container as a tree, and charges for it.
fn weigh(state: &State, value: &Value) -> Result<(), Error> {
    let mut left = MAX_WEIGHT_BYTES;
    walk(value, &mut left, 0)?;
    state.consume_fuel(((MAX_WEIGHT_BYTES - left) / (ITEM_BYTES * ITEMS_PER_FUEL)) as u64)
}

fn walk(value: &Value, left: &mut usize, depth: usize) -> Result<(), Error> {
    let text = value.as_str().map_or(0, str::len);
    *left = left
        .checked_sub(ITEM_BYTES + text)
        .ok_or_else(|| refusal(format!("a list or dictionary of more than {} MiB", MAX_WEIGHT_BYTES >> 20)))?;
    let Some(object) = value.as_object() else { return Ok(()) };
    if depth == MAX_DEPTH {
        return Err(refusal(format!("lists or dictionaries more than {MAX_DEPTH} deep")));
    }
    if is_namespace(object) {
        return Err(nested_namespace());
    }
    match object.repr() {
        ObjectRepr::Map => {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                walk(&key, left, depth + 1)?;
                walk(&item, left, depth + 1)?;
            }
        }
        ObjectRepr::Seq | ObjectRepr::Iterable if object.enumerator_len().is_some() => {
            for item in value.try_iter()?.checked() {
                walk(&item?, left, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

fn nested_namespace() -> Error {
    refusal("a namespace inside another value, where it could come to hold itself".to_owned())
}

pub(super) fn refusal(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Unbounded(message))
}
