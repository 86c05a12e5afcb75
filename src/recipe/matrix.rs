//! `[matrix]`: one recipe for several targets, schemes, seeds, models or values of any key.
//!
//! ```text
//! [matrix]
//! scheme = ["w8", "w4"]                          an axis: a list of values
//! seed = [0, 1]
//! exclude = [{ scheme = "w8", seed = 1 }]        cells that are left out
//! include = [{ scheme = "w4", keep = "ffn=w8" }, { scheme = "mixed", seed = 0 }]
//! ```
//!
//! The cells are the product of the axes, the last axis moving fastest, without those that an entry of `exclude` matches.
//! `include` is that of GitHub Actions: an entry whose values of axes are all in a cell adds its other keys to it; one that is
//! in no cell is a cell of its own. Cells are named by their values, which become parts of paths.

use super::document::{Entry, Node, Table, Value, same_key};
use super::environment::{self, Environment};
use super::mistake::{Code, Location, Mistakes};
use std::collections::BTreeMap;

/// Most cells of a matrix, as many as GitHub Actions takes.
const MOST_CELLS: usize = 256;
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

/// A value in a cell.
#[derive(Clone, Debug)]
struct CellValue {
    key: String,
    node: Node,
    /// As it is written.
    text: String,
    /// As a part of the name.
    name: String,
}

/// Some keys of the matrix with their values; without keys it is the cell of what uses none.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell(Vec<CellValue>);

/// The cells.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    /// Axes in the order of the file, then keys that `include` alone has.
    pub(super) keys: Vec<String>,
    pub(super) cells: Vec<Cell>,
    /// Where `[matrix]` is; absent where there is none.
    place: Option<Location>,
    /// Where the axes are.
    places: BTreeMap<String, Location>,
}

/// Whether a text can be a key of the matrix.
pub(super) fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl CellValue {
    /// `None` for what cannot be a value.
    fn of(key: &str, node: &Node) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) | Value::Integer(text) | Value::Number(text) | Value::Variable { text, .. } => {
                text.clone()
            }
            Value::Boolean(value) => value.to_string(),
            Value::List(_) | Value::Table(_) | Value::Date | Value::Unresolved => return None,
        };
        // A path is named by its last part, a target's file without its ending.
        let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let last = last.strip_suffix(".toml").unwrap_or(last);
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        let name: String = last.chars().map(|character| if plain(character) { character } else { '-' }).collect();
        let name = name.trim_start_matches('.').to_owned();
        (!name.is_empty()).then(|| CellValue { key: key.to_owned(), node: node.clone(), text, name })
    }

    fn equals(&self, other: &CellValue) -> bool {
        self.key == other.key && self.text == other.text
    }
}

impl Cell {
    fn find(&self, key: &str) -> Option<&CellValue> {
        self.0.iter().find(|value| same_key(&value.key, key))
    }

    /// The value of a key.
    pub(super) fn node(&self, key: &str) -> Option<&Node> {
        self.find(key).map(|value| &value.node)
    }

    /// Likewise, as it is written.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.find(key).map(|value| value.text.as_str())
    }

    /// The same cell with some keys alone, in the order of the matrix; the error is a key that it lacks.
    pub(super) fn restricted<'k>(&self, keys: &'k [String]) -> Result<Cell, &'k str> {
        let value = |key: &'k String| self.find(key).cloned().ok_or(key.as_str());
        keys.iter().map(value).collect::<Result<_, _>>().map(Cell)
    }

    /// Whether another cell has all that this one says.
    pub(super) fn is_part_of(&self, other: &Cell) -> bool {
        self.0.iter().all(|own| other.0.iter().any(|value| value.equals(own)))
    }

    /// Its values joined by dots; empty where there are no keys.
    pub(super) fn name(&self) -> String {
        self.0.iter().map(|value| value.name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// Whether a name is that of one of its values.
    pub(super) fn names(&self, name: &str) -> bool {
        self.0.iter().any(|value| value.name == name)
    }

    /// Keys with their values as they are written.
    pub(super) fn pairs(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|value| (value.key.clone(), value.text.clone())).collect()
    }

    /// For tests.
    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        let node = |text: &str| Node {
            place: Location::start(std::path::Path::new("a.toml"), String::new()),
            value: Value::Text(text.to_owned()),
        };
        Cell(pairs.iter().filter_map(|(key, text)| CellValue::of(key, &node(text))).collect())
    }
}

impl Matrix {
    /// The different cells over some keys, in order. A cell that lacks one of the keys is a mistake of the stage at `place`.
    pub(super) fn over(&self, keys: &[String], stage: &str, place: &Location, mistakes: &mut Mistakes) -> Vec<Cell> {
        // Where the matrix itself has a mistake, those of the stages are found all the same.
        if keys.is_empty() || self.cells.is_empty() {
            return vec![Cell::default()];
        }
        let mut cells: Vec<Cell> = Vec::new();
        for cell in &self.cells {
            match cell.restricted(keys) {
                Ok(cell) if cells.iter().any(|other| other.is_part_of(&cell)) => {}
                Ok(cell) => cells.push(cell),
                Err(key) => {
                    let message = format!(
                        "stage `{stage}` uses `matrix.{key}`, which the cell {} of the matrix does not have",
                        cell.name()
                    );
                    let help =
                        format!("give every entry of `{INCLUDE}` a value of `{key}`, or the matrix an axis of it");
                    mistakes.suggest(place, Code::Matrix, message, help);
                }
            }
        }
        cells
    }

    /// Whether there is a key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&String> {
        self.keys.iter().find(|key| same_key(key, name))
    }

    /// Whether the recipe has a matrix, usable or not.
    pub(super) fn is_there(&self) -> bool {
        self.place.is_some()
    }

    /// Notes keys that nothing uses: they would multiply cells that are all the same.
    pub(super) fn check_used(&self, used: &[String], mistakes: &mut Mistakes) {
        let Some(matrix) = &self.place else { return };
        for key in self.keys.iter().filter(|key| !used.contains(key)) {
            let place = self.places.get(key).unwrap_or(matrix);
            let message = format!("no stage uses `matrix.{key}`");
            let help = format!("write \"${{{{ matrix.{key} }}}}\" where a stage is to take it, or remove it");
            mistakes.suggest(place, Code::Matrix, message, help);
        }
    }
}

/// Reads `[matrix]`.
pub(super) fn read(entry: &Entry, environment: &mut Environment<'_>, mistakes: &mut Mistakes) -> Matrix {
    let mut matrix = Matrix { place: Some(entry.place.clone()), ..Matrix::default() };
    let Some(table) = entry.node.table("matrix", mistakes) else { return matrix };
    let before = mistakes.count();
    let mut reader = Reader { environment, mistakes };
    let mut axes: Vec<Vec<CellValue>> = Vec::new();
    for axis in table.entries.iter().filter(|axis| axis.key != INCLUDE && axis.key != EXCLUDE) {
        if let Some(values) = reader.axis(axis) {
            matrix.keys.push(axis.key.clone());
            matrix.places.insert(axis.key.clone(), axis.place.clone());
            axes.push(values);
        }
    }
    let excluded = reader.tables(table, EXCLUDE);
    let included = reader.tables(table, INCLUDE);
    let count = axes.iter().fold(1usize, |count, axis| count.saturating_mul(axis.len()));
    if count.saturating_add(included.len()) > MOST_CELLS {
        let message = format!("the matrix has {count} cells; at most {MOST_CELLS} are taken");
        reader.mistakes.suggest(&entry.place, Code::Matrix, message, "take shorter axes, or several recipes");
        return matrix;
    }
    if !axes.is_empty() {
        matrix.cells = product(&axes);
    }
    let keys = matrix.keys.clone();
    for (place, values) in &excluded {
        reader.exclude(place, values, &keys, &mut matrix.cells);
    }
    let axes_alone = matrix.cells.clone();
    for (_, values) in included {
        include(values, &keys, &axes_alone, &mut matrix);
    }
    if matrix.cells.is_empty() && reader.mistakes.count() == before {
        match table.find(EXCLUDE).filter(|_| !axes.is_empty()) {
            Some(exclude) => {
                let message = "`exclude` leaves no cell of the matrix";
                reader.mistakes.suggest(
                    &exclude.place,
                    Code::Matrix,
                    message,
                    "exclude fewer, or add cells by `include`",
                );
            }
            None => {
                let help = "give it an axis, such as scheme = [\"w8\", \"w4\"], or remove it";
                reader.mistakes.suggest(&entry.place, Code::Matrix, "the matrix has no cells", help);
            }
        }
    }
    reader.check_names(&matrix);
    matrix
}

struct Reader<'r, 'e> {
    environment: &'r mut Environment<'e>,
    mistakes: &'r mut Mistakes,
}

impl Reader<'_, '_> {
    /// The values of an axis.
    fn axis(&mut self, axis: &Entry) -> Option<Vec<CellValue>> {
        if !is_key(&axis.key) {
            let message = format!("`{}` is not a key of a matrix", axis.key);
            self.mistakes.suggest(&axis.place, Code::BadName, message, "letters, digits, - and _");
            return None;
        }
        let Value::List(items) = &axis.node.value else {
            let message = format!("`{}` is {}; expected a list of values", axis.key, axis.node.value.kind());
            let help = "write a list, [\"w8\", \"w4\"]";
            self.mistakes.suggest(&axis.node.place, Code::WrongType, message, help);
            return None;
        };
        if items.is_empty() {
            let message = format!("`{}` is an empty list, so the matrix has no cells", axis.key);
            self.mistakes.suggest(&axis.node.place, Code::Matrix, message, "name at least one value");
            return None;
        }
        let mut values: Vec<CellValue> = Vec::new();
        for item in items {
            let Some(value) = self.value(&axis.key, item) else { continue };
            if values.iter().any(|other| other.equals(&value)) {
                let message = format!("`{}` is twice in `{}`", value.text, axis.key);
                self.mistakes.suggest(&item.place, Code::Conflict, message, "keep one");
            } else {
                values.push(value);
            }
        }
        Some(values)
    }

    fn value(&mut self, key: &str, node: &Node) -> Option<CellValue> {
        let node = match &node.value {
            Value::Text(text) if environment::name(text).is_some() => {
                let name = environment::name(text).unwrap_or_default();
                let value = self.environment.value(name, &node.place, self.mistakes);
                Node { place: node.place.clone(), value }
            }
            _ => node.clone(),
        };
        if let Value::Unresolved = node.value {
            return None;
        }
        let value = CellValue::of(key, &node);
        if value.is_none() {
            let message = format!("a value of `{key}` is {}; a cell cannot be named by it", node.value.kind());
            let help = "take texts, numbers or booleans; a list can be written in the stage, with a placeholder in it";
            self.mistakes.suggest(&node.place, Code::WrongType, message, help);
        }
        value
    }

    /// The entries of `include` or `exclude`, with their places.
    fn tables(&mut self, table: &Table, key: &str) -> Vec<(Location, Vec<CellValue>)> {
        let Some(entry) = table.find(key) else { return Vec::new() };
        let Value::List(items) = &entry.node.value else {
            let message = format!("`{key}` is {}; expected a list of tables", entry.node.value.kind());
            self.mistakes.suggest(&entry.node.place, Code::WrongType, message, "write [{ scheme = \"w4\", seed = 1 }]");
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in items {
            let Some(table) = item.table(key, self.mistakes) else { continue };
            let mut values = Vec::new();
            for entry in &table.entries {
                if !is_key(&entry.key) {
                    let message = format!("`{}` is not a key of a matrix", entry.key);
                    self.mistakes.suggest(&entry.place, Code::BadName, message, "letters, digits, - and _");
                } else if let Some(value) = self.value(&entry.key, &entry.node) {
                    values.push(value);
                }
            }
            if table.entries.is_empty() {
                let message = format!("an entry of `{key}` is empty");
                self.mistakes.suggest(&item.place, Code::Matrix, message, "give it a key and a value, or remove it");
            } else {
                all.push((item.place.clone(), values));
            }
        }
        all
    }

    /// Takes the cells away that an entry matches.
    fn exclude(&mut self, place: &Location, values: &[CellValue], keys: &[String], cells: &mut Vec<Cell>) {
        if let Some(value) = values.iter().find(|value| !keys.contains(&value.key)) {
            let known = keys.iter().map(String::as_str);
            self.mistakes.unknown_key(place, &value.key, known, "an axis of the matrix");
            return;
        }
        let excluded = Cell(values.to_vec());
        let before = cells.len();
        cells.retain(|cell| !excluded.is_part_of(cell));
        if cells.len() == before && before > 0 {
            let message = "the entry excludes no cell of the matrix";
            self.mistakes.suggest(place, Code::Matrix, message, "its values must be among those of the axes");
        }
    }

    /// Notes values of a key that would give two cells one name.
    fn check_names(&mut self, matrix: &Matrix) {
        for key in &matrix.keys {
            let mut seen: Vec<&CellValue> = Vec::new();
            for value in matrix.cells.iter().filter_map(|cell| cell.find(key)) {
                match seen.iter().find(|other| other.name.eq_ignore_ascii_case(&value.name)) {
                    Some(other) if other.text != value.text => {
                        let message = format!(
                            "`{}` and `{}` of `{key}` would both be called `{}` in names and paths",
                            other.text, value.text, value.name
                        );
                        let help =
                            "names are made of letters, digits, -, _ and . of the last part of a path; rename one";
                        self.mistakes.suggest(&value.node.place, Code::BadName, message, help);
                    }
                    Some(_) => {}
                    None => seen.push(value),
                }
            }
        }
    }
}

/// Every combination, the last axis moving fastest.
fn product(axes: &[Vec<CellValue>]) -> Vec<Cell> {
    let mut cells = vec![Cell::default()];
    for axis in axes {
        let extended = |cell: &Cell| {
            let with = |value: &CellValue| Cell(cell.0.iter().chain([value]).cloned().collect());
            axis.iter().map(with).collect::<Vec<_>>()
        };
        cells = cells.iter().flat_map(extended).collect();
    }
    cells
}

/// Adds an entry of `include` to the cells that have its values of axes, or makes a cell of it.
fn include(values: Vec<CellValue>, axes: &[String], before: &[Cell], matrix: &mut Matrix) {
    for value in &values {
        if !matrix.keys.contains(&value.key) {
            matrix.keys.push(value.key.clone());
        }
    }
    let of_axes = Cell(values.iter().filter(|value| axes.contains(&value.key)).cloned().collect());
    let mut added = false;
    // Cells of earlier entries stand behind those of the axes and stay as they are.
    for (cell, _) in matrix.cells.iter_mut().zip(before).filter(|(_, own)| of_axes.is_part_of(own)) {
        added = true;
        for value in values.iter().filter(|value| !axes.contains(&value.key)) {
            match cell.0.iter_mut().find(|own| own.key == value.key) {
                Some(own) => *own = value.clone(),
                None => cell.0.push(value.clone()),
            }
        }
    }
    if !added {
        matrix.cells.push(Cell(values));
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::parsed;
    use super::*;
    use std::path::Path;

    fn read_text(text: &str) -> (Matrix, Vec<String>) {
        let text = format!("[matrix]\n{text}\n");
        let table = parsed(&Location::start(Path::new("a.toml"), text)).expect("TOML");
        let mut mistakes = Mistakes::default();
        let variable = |name: &str| (name == "BOARD").then(|| "boards/mine.toml".to_owned());
        let matrix = read(&table.entries[0], &mut Environment::new(&variable), &mut mistakes);
        (matrix, mistakes.messages().map(str::to_owned).collect())
    }

    fn names(text: &str) -> Vec<String> {
        let (matrix, mistakes) = read_text(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        matrix.cells.iter().map(Cell::name).collect()
    }

    #[test]
    fn cells_are_the_product_without_what_is_excluded_and_with_what_is_included() {
        assert_eq!(names("a = ['x', 'y']\nb = [1, 2]"), ["x.1", "x.2", "y.1", "y.2"]);
        assert_eq!(names("a = ['x', 'y']\nb = [1, 2]\nexclude = [{a = 'y', b = 1}]"), ["x.1", "x.2", "y.2"]);
        assert_eq!(names("a = ['x', 'y']\nb = [1, 2]\nexclude = [{b = 1}]"), ["x.2", "y.2"]);
        // The example of the documentation of GitHub Actions, made shorter.
        let included =
            "a = ['x', 'y']\nb = [1]\ninclude = [{c = 'all'}, {a = 'x', d = 'more'}, {a = 'z'}, {a = 'z', d = 'own'}]";
        assert_eq!(names(included), ["x.1.all.more", "y.1.all", "z", "z.own"]);
        assert_eq!(
            names("include = [{model = 'models/a', seed = 1}, {model = 'models/b/', seed = 2}]"),
            ["a.1", "b.2"]
        );
        assert_eq!(names("target = ['env:BOARD', 'generic']"), ["mine", "generic"]);
    }

    #[test]
    fn some_keys_of_a_cell_are_a_cell() {
        let (matrix, _) = read_text("a = ['x', 'y']\nb = [1, 2]\ninclude = [{c = 0, a = 'x'}]");
        let place = Location::start(Path::new("a.toml"), String::new());
        let over = |keys: &[&str]| {
            let mut mistakes = Mistakes::default();
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            let cells = matrix.over(&keys, "small", &place, &mut mistakes);
            let names: Vec<String> = cells.iter().map(Cell::name).collect();
            (names, mistakes.messages().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(over(&[]).0, [""]);
        assert_eq!(over(&["a"]).0, ["x", "y"]);
        assert_eq!(over(&["b", "a"]).0, ["1.x", "2.x", "1.y", "2.y"]);
        let (_, said) = over(&["c"]);
        assert_eq!(said[0], "stage `small` uses `matrix.c`, which the cell y.1 of the matrix does not have");
        assert!(matrix.cells[0].restricted(&["a".to_owned()]).expect("a").is_part_of(&matrix.cells[1]));
    }

    #[test]
    fn matrices_that_cannot_be_are_named() {
        let cases = [
            ("", "the matrix has no cells"),
            ("a = []", "`a` is an empty list, so the matrix has no cells"),
            ("a = 'x'", "`a` is a string; expected a list of values"),
            ("a = [['x']]", "a value of `a` is a list; a cell cannot be named by it"),
            ("a = ['']", "a value of `a` is a string; a cell cannot be named by it"),
            ("a = ['x', 'x']", "`x` is twice in `a`"),
            ("a = ['m/x', 'n/x']", "`m/x` and `n/x` of `a` would both be called `x`"),
            ("'a.b' = ['x']", "`a.b` is not a key of a matrix"),
            ("a = ['x']\nexclude = [{a = 'x'}]", "`exclude` leaves no cell of the matrix"),
            ("a = ['x']\nexclude = [{a = 'y'}]", "the entry excludes no cell"),
            ("a = ['x']\nexclude = [{c = 'y'}]", "unknown key `c`"),
            ("a = ['x']\ninclude = [{}]", "an entry of `include` is empty"),
            ("a = ['x']\ninclude = 4", "`include` is an integer; expected a list of tables"),
            ("a = ['env:NOT_SET']", "the variable `NOT_SET` of the environment is not set"),
            ("a = ['env:API_KEY']", "looks like a secret"),
        ];
        for (text, expected) in cases {
            let (_, mistakes) = read_text(text);
            assert!(mistakes.iter().any(|said| said.contains(expected)), "{text}: {mistakes:?}");
        }
        let long =
            (0..10).map(|axis| format!("a{axis} = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]")).collect::<Vec<_>>().join("\n");
        let (matrix, mistakes) = read_text(&long);
        assert!(mistakes[0].contains("at most 256") && matrix.cells.is_empty(), "{mistakes:?}");
    }
}
