//! A recipe as text before it means anything: TOML tables in the order they are written, every key and value with its
//! place in its file, `extends` followed and merged. The meaning of the keys is not decided here.

use super::mistake::{Code, Location, Mistakes};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Location,
    pub(super) value: Value,
}

/// A value of TOML.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// As written, so that no digit is lost on the way to an option.
    Integer(String),
    Number(String),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    Date,
    /// Text whose type is decided by the key that takes it: a variable of the environment.
    Variable {
        name: String,
        text: String,
    },
    /// Nothing, since what stands there could not be resolved: the mistake is noted.
    Unresolved,
}

/// Keys in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) place: Location,
    pub(super) entries: Vec<Entry>,
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Place of the key.
    pub(super) place: Location,
    pub(super) node: Node,
}

impl Value {
    /// For "expected …, got …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Number(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Date => "a date",
            Value::Variable { .. } => "a variable of the environment",
            Value::Unresolved => "nothing",
        }
    }
}

impl Value {
    /// What to write where a key takes a number and this is none.
    pub(super) fn number_help(&self, key: &str) -> &'static str {
        match self {
            Value::Text(text) if text.parse().is_ok_and(|number: f64| number.is_finite()) => "write it without quotes",
            _ if key.contains("bytes") => "write the number of bytes, such as 1_000_000, without a unit",
            _ => "write a number, such as 16 or 0.5",
        }
    }
}

impl Node {
    /// The text, or a mistake.
    pub(super) fn text(&self, key: &str, mistakes: &mut Mistakes) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Variable { text, .. } => Some(text),
            Value::Unresolved => None,
            other => {
                let message = format!("`{key}` is {}; expected a string", other.kind());
                mistakes.suggest(&self.place, Code::WrongType, message, "put it in quotes");
                None
            }
        }
    }

    /// A number of any kind, or a mistake.
    pub(super) fn number(&self, key: &str, mistakes: &mut Mistakes) -> Option<f64> {
        if let Value::Unresolved = &self.value {
            return None;
        }
        if let Value::Integer(text) | Value::Number(text) | Value::Variable { text, .. } = &self.value
            && let Some(number) = text.parse().ok().filter(|number: &f64| number.is_finite())
        {
            return Some(number);
        }
        let message = format!("`{key}` is {}; expected a number", self.value.kind());
        mistakes.suggest(&self.place, Code::WrongType, message, self.value.number_help(key));
        None
    }

    /// A table, or a mistake.
    pub(super) fn table(&self, key: &str, mistakes: &mut Mistakes) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            Value::Unresolved => None,
            other => {
                let message = format!("`{key}` is {}; expected a table", other.kind());
                mistakes.suggest(
                    &self.place,
                    Code::WrongType,
                    message,
                    "write { KEY = VALUE }, or a heading with keys below it",
                );
                None
            }
        }
    }
}

impl Table {
    /// The value of a key, `-` and `_` being one.
    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| same_key(&entry.key, key))
    }

    /// Takes a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| same_key(&entry.key, key))?;
        Some(self.entries.remove(at))
    }

    /// Puts another table's keys over this one's; tables that both have are merged likewise, and are then of the place of the
    /// other one.
    fn overlay(&mut self, over: Table) {
        self.merge(over, true);
    }

    /// Likewise, tables staying where they are: values of a command line.
    pub(super) fn set(&mut self, over: Table) {
        self.merge(over, false);
    }

    fn merge(&mut self, over: Table, moves: bool) {
        for entry in over.entries {
            let own = self.entries.iter_mut().find(|own| same_key(&own.key, &entry.key));
            match (own, entry) {
                (Some(Entry { node: Node { value: Value::Table(own), place }, place: key_place, .. }), entry)
                    if matches!(entry.node.value, Value::Table(_)) =>
                {
                    if moves {
                        (*place, *key_place) = (entry.node.place.clone(), entry.place.clone());
                    }
                    if let Value::Table(table) = entry.node.value {
                        if moves {
                            own.place = table.place.clone();
                        }
                        own.merge(table, moves);
                    }
                }
                (Some(own), entry) => *own = entry,
                (None, entry) => self.entries.push(entry),
            }
        }
    }
}

/// Whether two keys are one name: flags are written with `-` on the command line, keys of TOML mostly with `_`.
pub(super) fn same_key(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b || (is_joint(a) && is_joint(b)))
}

fn is_joint(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

/// Reads a recipe and everything it extends. `None` where a file cannot be read or is not TOML; the mistakes say why.
pub(super) fn load(path: &Path, mistakes: &mut Mistakes) -> Option<Table> {
    follow(path, None, &mut Vec::new(), mistakes)
}

/// `from` is where the path was named; `open` the files that wait for this one.
fn follow(path: &Path, from: Option<&Location>, open: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<Table> {
    let here = Location::start(path, String::new());
    let blamed = from.unwrap_or(&here);
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) => {
            mistakes.add(blamed, Code::Unreadable, format!("the recipe {} cannot be read: {error}", path.display()));
            return None;
        }
    };
    if open.contains(&real) {
        let message = format!("`extends` leads back to {}; a recipe cannot extend itself", path.display());
        mistakes.add(blamed, Code::ExtendsItself, message);
        return None;
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let message = format!("the recipe {} is not UTF-8", path.display());
            mistakes.suggest(blamed, Code::Unreadable, message, "save it in UTF-8");
            return None;
        }
        Err(error) => {
            mistakes.add(blamed, Code::Unreadable, format!("the recipe {} cannot be read: {error}", path.display()));
            return None;
        }
    };
    let mut own = parse(&Location::start(path, text), mistakes)?;
    let Some(entry) = own.take("extends") else { return Some(own) };
    let base = path.parent().unwrap_or(Path::new("")).join(entry.node.text("extends", mistakes)?);
    open.push(real);
    let base = follow(&base, Some(&entry.node.place), open, mistakes);
    open.pop();
    let mut base = base?;
    base.place = own.place.clone();
    base.overlay(own);
    Some(base)
}

/// A text that may not be TOML, whole text and start given.
pub(super) fn parsed(file: &Location) -> Option<Table> {
    let table = DeTable::parse(&file.source.text).ok()?;
    Some(Places { file }.table(table.into_inner(), file.clone()))
}

/// One file, likewise.
fn parse(file: &Location, mistakes: &mut Mistakes) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(&file.source.text);
    for error in &errors {
        let place = file.at(error.span().unwrap_or(0..0));
        let message = format!("not TOML: {}", error.message().trim_end().replace('\n', "; "));
        mistakes.add(&place, Code::NotToml, message);
    }
    errors.is_empty().then(|| Places { file }.table(table.into_inner(), file.clone()))
}

/// From the parser's spans to places.
struct Places<'f> {
    file: &'f Location,
}

impl Places<'_> {
    fn table(&self, table: DeTable<'_>, place: Location) -> Table {
        let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
            let (place, key) = (self.file.at(key.span()), key.into_inner().into_owned());
            Entry { node: self.node(value), place, key }
        };
        let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.place.span.start);
        Table { place, entries }
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Node {
        let place = self.file.at(value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => Value::Integer(value.to_string()),
                Err(_) => Value::Integer(number.as_str().to_owned()),
            },
            DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, place.clone())),
        };
        Node { place, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn loaded(files: &[(&str, &str)]) -> (Option<Table>, String) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let mut mistakes = Mistakes::default();
        let table = load(&directory.path().join(files[0].0), &mut mistakes);
        let shown = if mistakes.is_empty() { String::new() } else { mistakes.to_string() };
        (table, shown.replace(&format!("{}/", directory.path().display()), ""))
    }

    #[test]
    fn keys_keep_their_order_file_and_line() {
        let (table, mistakes) = loaded(&[("a.toml", "z = 1\n[stages.second]\nb = [1, 2]\n[stages.first]\n")]);
        let table = table.expect("parses");
        assert!(mistakes.is_empty(), "{mistakes}");
        assert_eq!(table.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["z", "stages"]);
        let Value::Table(stages) = &table.find("stages").unwrap().node.value else { panic!("a table") };
        assert_eq!(stages.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["second", "first"]);
        let Value::Table(second) = &stages.entries[0].node.value else { panic!("a table") };
        assert_eq!((second.entries[0].place.line(), stages.entries[1].place.line()), (3, 4));
    }

    #[test]
    fn tables_are_merged_key_by_key_and_each_key_keeps_its_file() {
        let (table, mistakes) = loaded(&[
            ("child.toml", "extends = 'base.toml'\n[stages.a]\nmax-windows = 3\n[stages.b]\nkind = 'eval'\n"),
            ("base.toml", "version = 1\n[stages.a]\nkind = 'eval'\nmax_windows = 2\n"),
        ]);
        assert!(mistakes.is_empty(), "{mistakes}");
        let table = table.unwrap();
        let Value::Table(stages) = &table.find("stages").unwrap().node.value else { panic!("a table") };
        assert_eq!(stages.entries.len(), 2);
        let Value::Table(a) = &stages.entries[0].node.value else { panic!("a table") };
        assert!(matches!(&a.find("max_windows").unwrap().node.value, Value::Integer(three) if three == "3"));
        assert!(a.find("kind").unwrap().place.source.file.ends_with("base.toml"));
        assert!(a.find("max-windows").unwrap().place.source.file.ends_with("child.toml"));
        assert_eq!(a.entries.len(), 2);
    }

    #[test]
    fn cycles_and_text_that_is_not_toml_are_refused_with_their_line() {
        let (_, cycle) =
            loaded(&[("a.toml", "version = 1\nextends = 'b.toml'\n"), ("b.toml", "\n\nextends = 'a.toml'\n")]);
        assert!(cycle.contains("`extends` leads back to a.toml") && cycle.contains("--> b.toml:3:11"), "{cycle}");
        let (_, broken) = loaded(&[("a.toml", "a = = 1\n\nb = \n")]);
        assert!(broken.matches(": not TOML: ").count() >= 2, "{broken}");
        assert!(broken.contains("--> a.toml:1:") && broken.contains("--> a.toml:3:"), "{broken}");
        let (_, missing) = loaded(&[("a.toml", "\nextends = 'none.toml'\n")]);
        assert!(missing.contains("the recipe none.toml cannot be read"), "{missing}");
        assert!(missing.contains("2 | extends = 'none.toml'\n  |           ^^^^^^^^^^^"), "{missing}");
    }
}
