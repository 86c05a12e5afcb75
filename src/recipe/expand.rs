//! From the stages of a recipe as they are written to the stages of its cells: placeholders and variables of the environment
//! are resolved, conditions decided, and what uses no value of the matrix is there once.
//!
//! A stage uses the keys of the matrix that its own values and its condition name, `"${{ matrix.KEY }}"`, and those of the
//! stages and of the model that it reads. It is there once for every different combination of their values.

use super::condition;
use super::document::{Entry, Node, Table, Value, same_key};
use super::environment::{self, Environment};
use super::matrix::{Cell, Matrix};
use super::mistake::{Code, Location, Mistakes};
use super::stage::command;
use crate::stages::STAGES;
use crate::stages::arguments::{Meaning, meaning};
use std::collections::BTreeSet;

/// The key of a condition.
pub(super) const WHEN: &str = "when";
/// Most stages of all cells together.
const MOST_STAGES: usize = 1024;
const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A stage of a cell, its values resolved.
#[derive(Clone, Debug)]
pub(super) struct Expanded {
    /// The key of the table.
    pub(super) name: String,
    /// Where that is.
    pub(super) place: Location,
    pub(super) table: Table,
    /// The values of the matrix that it has.
    pub(super) cell: Cell,
}

/// A stage that its condition, or that of a stage it reads, leaves out.
#[derive(Clone, Debug)]
pub(super) struct LeftOut {
    pub(super) name: String,
    pub(super) cell: Cell,
    /// In words.
    pub(super) why: String,
}

impl LeftOut {
    /// As the stage would be called.
    pub(super) fn label(&self) -> String {
        label(&self.name, &self.cell)
    }

    /// Whether a name is its own, with or without a target.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let own = self.label();
        name == self.name || name == own || name.strip_prefix(&own).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// A stage's name with that of its cell.
pub(super) fn label(name: &str, cell: &Cell) -> String {
    let of_cell = cell.name();
    if of_cell.is_empty() { name.to_owned() } else { format!("{name}.{of_cell}") }
}

/// The stages, and the model's table, of every cell.
#[derive(Default)]
pub(super) struct Expansion {
    pub(super) stages: Vec<Expanded>,
    pub(super) models: Vec<Expanded>,
    pub(super) left_out: Vec<LeftOut>,
}

/// What is expanded, and the keys it uses so far.
struct Written<'t> {
    entry: &'t Entry,
    table: &'t Table,
    used: Vec<String>,
}

/// Expands `[model]` and the tables of `[stages]`.
pub(super) fn expand(
    model: Option<&Entry>,
    stages: &Table,
    matrix: &Matrix,
    environment: &mut Environment<'_>,
    mistakes: &mut Mistakes,
) -> Expansion {
    let mut written = Vec::new();
    for entry in model.into_iter().chain(&stages.entries) {
        if let Some(table) = entry.node.table(&entry.key, mistakes) {
            written.push(Written { entry, table, used: Vec::new() });
        }
    }
    let is_model = |written: &Written<'_>| model.is_some_and(|model| std::ptr::eq(model, written.entry));
    let reads = references();
    use_keys(&mut written, matrix, &reads, mistakes);
    let used: BTreeSet<String> = written.iter().flat_map(|written| written.used.clone()).collect();
    matrix.check_used(&used.into_iter().collect::<Vec<_>>(), mistakes);
    let mut expansion = Expansion::default();
    if let Some(entry) = too_many(&written, matrix) {
        let message = format!("the recipe has more than {MOST_STAGES} stages, counting every cell of the matrix");
        mistakes.suggest(entry, Code::Matrix, message, "take shorter axes, or several recipes");
        return expansion;
    }
    for written in &written {
        let (name, place) = (&written.entry.key, &written.entry.place);
        for cell in matrix.over(&written.used, name, place, mistakes) {
            let condition = written.table.find(WHEN).filter(|_| !is_model(written));
            let unmet = condition.and_then(|entry| {
                let text = entry.node.text(WHEN, mistakes)?.to_owned();
                condition::unmet(&text, &entry.node.place, &cell, environment, mistakes)
            });
            // Variables of a stage that is left out are not read: its condition may be that they are set.
            if let Some(term) = unmet {
                let why = format!("`when` does not hold: {term}");
                expansion.left_out.push(LeftOut { name: name.clone(), cell, why });
                continue;
            }
            let mut table = Resolver { cell: &cell, environment, mistakes }.table(written.table);
            if is_model(written) {
                expansion.models.push(Expanded { name: name.clone(), place: place.clone(), table, cell });
            } else {
                table.take(WHEN);
                expansion.stages.push(Expanded { name: name.clone(), place: place.clone(), table, cell });
            }
        }
    }
    expansion.check_names(mistakes);
    expansion.leave_out_readers(&reads);
    expansion
}

impl Expansion {
    /// Notes cells of a stage that would be called alike: values may have the dots that join them.
    fn check_names(&self, mistakes: &mut Mistakes) {
        let mut seen = BTreeSet::new();
        for Expanded { name, place, cell, .. } in &self.stages {
            let label = label(name, cell);
            if !seen.insert((name, label.to_ascii_lowercase())) {
                let message = format!("two cells of stage `{name}` would both be called `{label}`");
                let help = "names are the values of a cell, joined by dots; write a value so that they differ";
                mistakes.suggest(place, Code::BadName, message, help);
            }
        }
    }

    /// Leaves out what reads a stage that is left out.
    fn leave_out_readers(&mut self, reads: &BTreeSet<String>) {
        loop {
            let found = self.stages.iter().enumerate().find_map(|(at, stage)| {
                let other = left_out_input(stage, &self.left_out, reads)?;
                Some((at, format!("it reads `{}`, which is left out", other.label())))
            });
            let Some((at, why)) = found else { return };
            let Expanded { name, cell, .. } = self.stages.remove(at);
            self.left_out.push(LeftOut { name, cell, why });
        }
    }
}

/// A stage that is left out and that another one reads.
fn left_out_input<'l>(stage: &Expanded, left_out: &'l [LeftOut], reads: &BTreeSet<String>) -> Option<&'l LeftOut> {
    let texts = referred(&stage.table, reads);
    let is_meant = |text: &str, other: &LeftOut| {
        let of_own_cell = base(text) == other.name && other.cell.is_part_of(&stage.cell);
        of_own_cell || (text != other.name && other.is_named(text))
    };
    left_out.iter().find(|other| texts.iter().any(|(_, text)| is_meant(text, other)))
}

/// The last of too many stages.
fn too_many<'w>(written: &[Written<'w>], matrix: &Matrix) -> Option<&'w Location> {
    let cells = |written: &Written<'_>| {
        // What the cells lack is said elsewhere.
        matrix.over(&written.used, &written.entry.key, &written.entry.place, &mut Mistakes::default()).len()
    };
    let count: usize = written.iter().map(cells).sum();
    written.last().filter(|_| count > MOST_STAGES).map(|written| &written.entry.place)
}

/// Finds which keys of the matrix each table uses, itself and through what it reads.
fn use_keys(written: &mut [Written<'_>], matrix: &Matrix, reads: &BTreeSet<String>, mistakes: &mut Mistakes) {
    for written in written.iter_mut() {
        let mut names = Vec::new();
        texts(written.table, &mut |key, node, text| {
            for inner in placeholders(text) {
                match inner.ok().and_then(key_of) {
                    Some(name) => names.push((node.place.clone(), name.to_owned())),
                    None => {
                        let help = format!("write \"{OPEN} matrix.KEY {CLOSE}\", KEY being one of [matrix]");
                        let message = format!("`{}` has a placeholder that is not one", text.trim());
                        mistakes.suggest(&node.place, Code::Placeholder, message, help);
                    }
                }
            }
            if same_key(key, WHEN) {
                names.extend(condition::matrix_keys(text).map(|name| (node.place.clone(), name.to_owned())));
            }
        });
        for (place, name) in names {
            match matrix.key(&name) {
                Some(key) if written.used.contains(key) => {}
                Some(key) => written.used.push(key.clone()),
                None => {
                    let known = matrix.keys.iter().map(String::as_str).collect::<Vec<_>>();
                    let help = match crate::disk::schema::nearest(&name, known.iter().copied()) {
                        Some(near) => format!("did you mean `matrix.{near}`?"),
                        None if !matrix.is_there() => {
                            format!("the recipe has no [matrix]; add one with `{name} = [\"…\"]`")
                        }
                        None => format!("keys of the matrix: {}", known.join(", ")),
                    };
                    mistakes.suggest(&place, Code::Placeholder, format!("unknown key `matrix.{name}`"), help);
                }
            }
        }
    }
    let position = |key: &String| matrix.keys.iter().position(|own| own == key);
    let names: Vec<String> = written.iter().map(|written| written.entry.key.clone()).collect();
    // Each round adds keys or is the last.
    loop {
        let mut added = false;
        for index in 0..written.len() {
            let mut own = written[index].used.clone();
            own.sort_by_key(position);
            let cells: Vec<&Cell> = matrix.cells.iter().collect();
            for (_, text) in referred(written[index].table, reads) {
                for text in in_cells(text, &cells) {
                    let Some(other) = names.iter().position(|name| name == base(&text)) else { continue };
                    if !names_a_cell(&text, &written[other], matrix) {
                        own.extend(
                            written[other].used.iter().filter(|key| !own.contains(key)).cloned().collect::<Vec<_>>(),
                        );
                    }
                }
            }
            own.sort_by_key(position);
            if own != written[index].used {
                added |= own.len() != written[index].used.len();
                written[index].used = own;
            }
        }
        if !added {
            return;
        }
    }
}

/// The values that a text has in the cells.
fn in_cells(text: &str, cells: &[&Cell]) -> BTreeSet<String> {
    if !text.contains(OPEN) {
        return BTreeSet::from([text.to_owned()]);
    }
    cells.iter().map(|cell| filled(text, cell)).collect()
}

/// Whether a reference is to one cell of a stage by its name, and not to that of the reader.
fn names_a_cell(text: &str, stage: &Written<'_>, matrix: &Matrix) -> bool {
    let Some((_, rest)) = text.split_once('.') else { return false };
    matrix.cells.iter().filter_map(|cell| cell.restricted(&stage.used).ok()).any(|cell| {
        let name = cell.name();
        !name.is_empty() && rest.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The name of the stage that a reference is to.
fn base(text: &str) -> &str {
    text.split('.').next().unwrap_or_default()
}

/// Keys by which stages name others: `input`, and every option that takes a model.
fn references() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["input".to_owned()]);
    for kind in STAGES {
        for argument in
            command(kind).get_arguments().filter(|argument| matches!(meaning(argument), Some(Meaning::Model { .. })))
        {
            names.extend(argument.get_long().map(|long| long.replace('-', "_")));
        }
    }
    names
}

/// The texts of a table that may name stages, with their places.
fn referred<'t>(table: &'t Table, reads: &BTreeSet<String>) -> Vec<(&'t Location, &'t str)> {
    let mut all = Vec::new();
    for entry in table.entries.iter().filter(|entry| reads.contains(&entry.key.replace('-', "_"))) {
        if let Value::Text(text) | Value::Variable { text, .. } = &entry.node.value {
            all.push((&entry.node.place, text.as_str()));
        }
    }
    all
}

/// Calls with every text of a table, with the key of the table that it belongs to.
fn texts(table: &Table, each: &mut dyn FnMut(&str, &Node, &str)) {
    fn within(key: &str, node: &Node, each: &mut dyn FnMut(&str, &Node, &str)) {
        match &node.value {
            Value::Text(text) => each(key, node, text),
            Value::List(items) => items.iter().for_each(|item| within(key, item, each)),
            Value::Table(table) => table.entries.iter().for_each(|entry| within(key, &entry.node, each)),
            _ => {}
        }
    }
    table.entries.iter().for_each(|entry| within(&entry.key, &entry.node, each));
}

/// What stands in the placeholders of a text; an error for one without an end.
fn placeholders(text: &str) -> Vec<Result<&str, ()>> {
    let (mut all, mut rest) = (Vec::new(), text);
    while let Some((_, after)) = rest.split_once(OPEN) {
        match after.split_once(CLOSE) {
            Some((inner, after)) => {
                all.push(Ok(inner));
                rest = after;
            }
            None => {
                all.push(Err(()));
                break;
            }
        }
    }
    all
}

/// The key of a placeholder.
fn key_of(inner: &str) -> Option<&str> {
    inner.trim().strip_prefix("matrix.").map(str::trim)
}

/// A text with the values of a cell in its placeholders; one that is unknown stays, and is a mistake by now.
fn filled(text: &str, cell: &Cell) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        let Some((inner, after)) = after.split_once(CLOSE) else { break };
        out.push_str(key_of(inner).and_then(|key| cell.text(key)).unwrap_or_default());
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Resolves the values of a table.
struct Resolver<'r, 'e> {
    cell: &'r Cell,
    environment: &'r mut Environment<'e>,
    mistakes: &'r mut Mistakes,
}

impl Resolver<'_, '_> {
    fn table(&mut self, table: &Table) -> Table {
        let entry = |entry: &Entry| Entry {
            key: entry.key.clone(),
            place: entry.place.clone(),
            // A condition names variables in a form of its own.
            node: if same_key(&entry.key, WHEN) { entry.node.clone() } else { self.node(&entry.node) },
        };
        Table { place: table.place.clone(), entries: table.entries.iter().map(entry).collect() }
    }

    fn node(&mut self, node: &Node) -> Node {
        let place = node.place.clone();
        let value = match &node.value {
            Value::Text(text) => return self.text(node, text),
            Value::List(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            Value::Table(table) => Value::Table(self.table(table)),
            other => other.clone(),
        };
        Node { place, value }
    }

    fn text(&mut self, node: &Node, text: &str) -> Node {
        let place = node.place.clone();
        if let Some(name) = environment::name(text) {
            let value = self.environment.value(name, &place, self.mistakes);
            return Node { place, value };
        }
        let all = placeholders(text);
        if all.is_empty() {
            return node.clone();
        }
        let known = |inner: &Result<&str, ()>| inner.ok().and_then(key_of).and_then(|key| self.cell.node(key));
        if !all.iter().all(|inner| known(inner).is_some()) {
            return Node { place, value: Value::Unresolved };
        }
        // A placeholder alone is the value itself, at its own place: a number stays one, and mistakes point at it.
        if let [Ok(inner)] = all[..]
            && text.trim().len() == OPEN.len() + inner.len() + CLOSE.len()
            && let Some(value) = key_of(inner).and_then(|key| self.cell.node(key))
        {
            return value.clone();
        }
        Node { place, value: Value::Text(filled(text, self.cell)) }
    }
}

/// Variables of the environment in the tables that have no cells: `[gates]` and `[sample]`.
pub(super) fn without_cells(table: &mut Table, environment: &mut Environment<'_>, mistakes: &mut Mistakes) {
    for entry in &mut table.entries {
        match &mut entry.node.value {
            Value::Table(inner) => without_cells(inner, environment, mistakes),
            Value::Text(text) => {
                if let Some(name) = environment::name(text).map(str::to_owned) {
                    entry.node.value = environment.value(&name, &entry.node.place, mistakes);
                }
            }
            _ => {}
        }
    }
}
