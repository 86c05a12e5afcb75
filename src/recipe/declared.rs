//! The stages of a recipe by name, kind, cell and target, their options not yet read. A stage whose kind is not known is not
//! left out: what else it says is checked as far as that can be, by the nearest kind, or by the one that knows most of its
//! keys.

use super::document::{Table, Value};
use super::expand::{Expanded, label};
use super::mistake::{Code, Mistakes, suggestion};
use super::options::{self, TARGET, knows};
use super::stage::{Kind, KindIs, RecipeStage};
use crate::disk::schema::nearest;
use crate::formats::export::{self, Place};
use crate::stages::{self, Product, STAGES};
use std::path::Path;

/// Names that no stage can have: the model, and where the quickstart's inputs are unpacked.
pub(super) const RESERVED: [&str; 2] = ["model", "inputs"];

/// Every stage, with its table.
pub(super) fn declared<'t>(
    expanded: &'t [Expanded],
    out: &Path,
    mistakes: &mut Mistakes,
) -> (Vec<RecipeStage>, Vec<&'t Table>) {
    let (mut stages, mut tables) = (Vec::new(), Vec::new());
    let mut reader = Reader { mistakes };
    for Expanded { name, place, table, cell } in expanded {
        let before = reader.mistakes.count();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(plain) || RESERVED.contains(&name.as_str()) {
            let message = format!("`{name}` is not the name of a stage");
            let help = "letters, digits, - and _, and neither model nor inputs";
            reader.mistakes.suggest(place, Code::BadName, message, help);
        }
        let (kind, kind_is) = reader.kind(name, place, table);
        let targets = if kind.makes() == Product::Artifact { reader.targets(table) } else { vec![None] };
        let exported = (kind.makes() == Product::Export).then(|| place_of(table));
        let is_directory = match kind.makes() {
            Product::Dense | Product::Quantized | Product::Data => true,
            Product::Export => exported == Some(Place::Directory),
            Product::Artifact | Product::Text | Product::Nothing => false,
        };
        for target in &targets {
            let label = label(name, cell);
            let output = match (kind.makes(), target) {
                (Product::Nothing, _) => None,
                (Product::Artifact, Some(target)) if cell.names(target) => Some(out.join(format!("{label}.slm"))),
                (Product::Artifact, target) => {
                    let target = target.as_deref().unwrap_or("artifact");
                    Some(out.join(format!("{label}.{target}.slm")))
                }
                (Product::Dense | Product::Quantized | Product::Data, _) => Some(out.join(label)),
                (Product::Text, _) => Some(out.join(format!("{label}.jsonl"))),
                (Product::Export, _) => Some(match exported {
                    Some(Place::File { extension }) => out.join(format!("{label}.{extension}")),
                    _ => out.join(label),
                }),
            };
            stages.push(RecipeStage {
                name: name.clone(),
                cell: cell.clone(),
                target: target.clone(),
                one_of_several: targets.len() > 1,
                kind,
                kind_is,
                place: place.clone(),
                choices: Vec::new(),
                sound: reader.mistakes.count() == before,
                dropped: Vec::new(),
                output,
                is_directory,
            });
            tables.push(table);
        }
    }
    (stages, tables)
}

struct Reader<'r> {
    mistakes: &'r mut Mistakes,
}

impl Reader<'_> {
    fn kind(&mut self, name: &str, place: &super::mistake::Location, table: &Table) -> (Kind, KindIs) {
        let guess = || (most_like(table), KindIs::Guessed);
        let Some(entry) = table.find("kind") else {
            let kinds = STAGES.map(|kind| kind.name()).join(", ");
            let message = format!("stage `{name}` has no `kind`");
            self.mistakes.suggest(place, Code::MissingKey, message, format!("known: {kinds}"));
            return guess();
        };
        let Some(text) = entry.node.text("kind", self.mistakes) else { return guess() };
        if let Some(kind) = stages::named(text) {
            return (kind, KindIs::Said);
        }
        let names = STAGES.map(|kind| kind.name());
        let message = format!("unknown kind `{text}`");
        self.mistakes.suggest(&entry.node.place, Code::UnknownValue, message, suggestion(text, names));
        match nearest(text, names).and_then(stages::named) {
            Some(kind) => (kind, KindIs::Near),
            None => guess(),
        }
    }

    /// Names of a compile stage's targets; one that is not known is a mistake and stands as `None`.
    fn targets(&mut self, table: &Table) -> Vec<Option<String>> {
        let Some(entry) = table.find(TARGET) else { return vec![None] };
        let items = match &entry.node.value {
            Value::List(items) if items.is_empty() => {
                let (message, help) = ("`target` is an empty list", "name at least one target");
                self.mistakes.suggest(&entry.node.place, Code::MissingKey, message, help);
                return vec![None];
            }
            Value::List(items) => items.iter().collect(),
            _ => vec![&entry.node],
        };
        let mut names: Vec<Option<String>> = Vec::new();
        for item in items {
            let name =
                item.text(TARGET, self.mistakes).and_then(|text| options::target(text, &item.place, self.mistakes));
            let name = name.map(|(name, _)| name);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if let Some(name) = &name {
                if !name.bytes().all(plain) {
                    let message = format!("the target's name `{name}` is to be part of a file's name");
                    let help = "letters, digits, -, _ and . only";
                    self.mistakes.suggest(&item.place, Code::BadName, message, help);
                }
                if names.iter().flatten().any(|other| other == name) {
                    let message = format!("target `{name}` is named twice");
                    self.mistakes.suggest(&item.place, Code::Conflict, message, "keep one");
                }
            }
            names.push(name);
        }
        names
    }
}

/// Whether the format that a table names is a file or a directory; one that is not known is a mistake of its own.
fn place_of(table: &Table) -> Place {
    let format = table.find("format").and_then(|entry| match &entry.node.value {
        Value::Text(name) | Value::Variable { text: name, .. } => export::named(name),
        _ => None,
    });
    format.map_or(Place::Directory, |format| format.place())
}

/// The kind that knows most of the keys of a table.
fn most_like(table: &Table) -> Kind {
    let known = |kind: Kind| table.entries.iter().filter(|entry| knows(kind, &entry.key)).count();
    // The first of equals.
    STAGES.into_iter().rev().max_by_key(|kind| known(*kind)).unwrap_or(STAGES[0])
}
