//! `--set KEY=VALUE`: values of a command line over those of the recipe. KEY is dotted, as in TOML; VALUE is TOML too, and
//! what is not TOML is a text, so that `--set stages.small.budget=4MiB` needs no quotes. A key that nothing reads is the same
//! mistake as in the file, at its place in the argument.

use super::document::{self, Entry, Node, Table, Value};
use super::mistake::{Code, Location, Mistakes, suggestion};
use std::path::Path;
use std::str::FromStr;

/// How a place in an argument is named.
const PLACE: &str = "--set";

/// One `--set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting(String);

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A `--set` without a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not KEY=VALUE, such as stages.small.scheme=w4")]
pub struct SettingError(String);

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.split_once('=') {
            Some((key, _)) if !key.trim().is_empty() => Ok(Setting(text.to_owned())),
            _ => Err(SettingError(text.to_owned())),
        }
    }
}

/// Puts the settings over a recipe's tables, in their order.
pub(super) fn apply(settings: &[Setting], table: &mut Table, mistakes: &mut Mistakes) {
    for Setting(text) in settings {
        let argument = Location::start(Path::new(PLACE), text.clone());
        match read(&argument) {
            Some(own) if own.entries.iter().any(|entry| entry.key == "extends") => {
                let message = "`extends` is followed before values are set, and cannot be set itself";
                mistakes.suggest(&argument, Code::Refused, message, "write a recipe that extends the other one");
            }
            Some(own) if own.entries.len() == 1 => {
                if stage_is_there(&own, table, mistakes) {
                    table.set(own);
                }
            }
            _ => {
                let message = format!("`{text}` does not set one key");
                let help = "write KEY=VALUE, KEY as in stages.small.scheme, and --set again for another";
                mistakes.suggest(&argument, Code::NotToml, message, help);
            }
        }
    }
}

/// The argument as tables; its value is TOML or a text.
fn read(argument: &Location) -> Option<Table> {
    if let Some(table) = document::parsed(argument) {
        return Some(table);
    }
    let text = &argument.source.text;
    let (key, value) = text.split_once('=')?;
    if key.contains('\n') {
        return None;
    }
    // The key alone, at the same place.
    let mut table = document::parsed(&Location::start(Path::new(PLACE), format!("{key}=0")))?;
    let place = argument.at(key.len() + 1..text.len());
    relocate(&mut table, argument);
    *leaf(&mut table)? = Node { place, value: Value::Text(value.trim().to_owned()) };
    Some(table)
}

/// Moves places into the whole argument.
fn relocate(table: &mut Table, argument: &Location) {
    table.place = argument.at(table.place.span.clone());
    for entry in &mut table.entries {
        entry.place = argument.at(entry.place.span.clone());
        entry.node.place = argument.at(entry.node.place.span.clone());
        if let Value::Table(inner) = &mut entry.node.value {
            relocate(inner, argument);
        }
    }
}

/// The value at the end of a dotted key.
fn leaf(table: &mut Table) -> Option<&mut Node> {
    let entry = table.entries.first_mut()?;
    match entry.node.value {
        Value::Table(ref mut inner) => leaf(inner),
        _ => Some(&mut entry.node),
    }
}

/// Whether a setting of a stage is of one that the recipe has: none is made by it.
fn stage_is_there(own: &Table, recipe: &Table, mistakes: &mut Mistakes) -> bool {
    let tables = |table: &Table| -> Vec<Entry> {
        match table.find("stages").map(|entry| &entry.node.value) {
            Some(Value::Table(stages)) => stages.entries.clone(),
            _ => Vec::new(),
        }
    };
    let known = tables(recipe);
    let names: Vec<&str> = known.iter().map(|entry| entry.key.as_str()).collect();
    let mut all = true;
    for entry in tables(own).iter().filter(|entry| !names.contains(&entry.key.as_str())) {
        let help = suggestion(&entry.key, names.iter().copied());
        mistakes.suggest(&entry.place, Code::UnknownStage, format!("unknown stage `{}`", entry.key), help);
        all = false;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "version = 1\n[stages.small]\nkind = 'quantize'\nkeep = ['a=w4']\n[gates]\nkld_max = 1\n";

    fn set(settings: &[&str]) -> (Table, String) {
        let mut table = document::parsed(&Location::start(Path::new("a.toml"), RECIPE.to_owned())).expect("TOML");
        let mut mistakes = Mistakes::default();
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
        apply(&settings, &mut table, &mut mistakes);
        (table, if mistakes.is_empty() { String::new() } else { mistakes.to_string() })
    }

    fn at<'t>(table: &'t Table, path: &[&str]) -> &'t Value {
        let entry = table.find(path[0]).expect("the key");
        match (&entry.node.value, &path[1..]) {
            (value, []) => value,
            (Value::Table(inner), rest) => at(inner, rest),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_toml_or_text() {
        let (table, mistakes) = set(&[
            "stages.small.budget=4MiB",
            "stages.small.seed = 7",
            "stages.small.keep=['a=w8', 'b=w4']",
            "stages.small.equalize=true",
            "stages.small.separator=",
            "gates.kld_max={value = 2, stage = 'small'}",
        ]);
        assert_eq!(mistakes, "");
        assert!(matches!(at(&table, &["stages", "small", "budget"]), Value::Text(text) if text == "4MiB"));
        assert!(matches!(at(&table, &["stages", "small", "seed"]), Value::Integer(text) if text == "7"));
        assert!(matches!(at(&table, &["stages", "small", "keep"]), Value::List(items) if items.len() == 2));
        assert!(matches!(at(&table, &["stages", "small", "equalize"]), Value::Boolean(true)));
        assert!(matches!(at(&table, &["stages", "small", "separator"]), Value::Text(text) if text.is_empty()));
        assert!(matches!(at(&table, &["gates", "kld_max", "stage"]), Value::Text(text) if text == "small"));
        assert!(matches!(at(&table, &["stages", "small", "kind"]), Value::Text(text) if text == "quantize"));
    }

    #[test]
    fn what_sets_nothing_is_named_at_its_place() {
        let (_, said) = set(&["stages.smal.scheme=w4"]);
        assert!(said.contains("unknown stage `smal`") && said.contains("--> --set:1:8"), "{said}");
        assert!(said.contains("did you mean `small`?"), "{said}");
        for wrong in ["a b=1", "a=1\nb=2", "stages..x=1"] {
            let (_, said) = set(&[wrong]);
            assert!(said.contains("does not set one key"), "{wrong}: {said}");
        }
        let (_, said) = set(&["extends=other.toml"]);
        assert!(said.contains("`extends` is followed before values are set"), "{said}");
        for wrong in ["", "stages.small", "=4"] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }
}
