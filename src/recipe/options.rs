//! From the keys of a stage's table to the options of its subcommand. Which keys there are, which of them are flags,
//! numbers, lists, paths or models, is read off the subcommand's clap definition, by the types of its values
//! ([`crate::stages::arguments`]).

use super::document::{Entry, Node, Table, Value, same_key};
use super::environment;
use super::expand::WHEN;
use super::matrix::Cell;
use super::mistake::{Code, Location, Mistakes, suggestion};
use super::reader::Model;
use super::stage::{Choice, Chosen, Input, KindIs, RecipeStage, chain, command};
use crate::disk::schema::nearest;
use crate::stages::arguments::{Meaning, meaning};
use crate::stages::{Product, STAGES};
use crate::target::Target;
use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::path::{Path, PathBuf};

/// Keys of a stage that are not options.
pub(super) const OWN_KEYS: [&str; 3] = ["kind", "input", WHEN];
/// The option that every output has, which the runner chooses.
pub(super) const OUT: &str = "out";
/// The option by which a stage that makes artifacts names its targets.
pub(super) const TARGET: &str = "target";

/// The stages and models that a stage can refer to.
pub(super) struct Scope<'s> {
    /// Every stage, their options not yet read.
    pub(super) stages: &'s [RecipeStage],
    /// `[model]` of every cell; none where there is no such table.
    pub(super) models: &'s [Model],
    /// Whether `[model]` is there, be it a mistake.
    pub(super) has_model: bool,
    /// Directory of the outputs.
    pub(super) out: &'s Path,
}

/// What a name refers to.
enum Referred {
    Input(Input),
    /// Something whose own mistake is noted.
    Unusable,
    Nothing,
}

impl Scope<'_> {
    /// The stage or model that a stage of a cell means by a name. The error is for a name that several stages have.
    fn refer(&self, name: &str, cell: &Cell) -> Result<Referred, String> {
        if name == "model" {
            return match self.models.iter().position(|model| model.cell.is_part_of(cell)) {
                Some(model) => Ok(Referred::Input(Input::Model(model))),
                None if self.has_model => Ok(Referred::Unusable),
                None => Err("the recipe has no [model] with a `path`".to_owned()),
            };
        }
        let meant: Vec<usize> =
            (0..self.stages.len()).filter(|&stage| self.stages[stage].is_meant(name, cell)).collect();
        match meant[..] {
            [] => Ok(Referred::Nothing),
            [stage] => Ok(Referred::Input(Input::Stage(stage))),
            _ => {
                let labels: Vec<String> =
                    meant.iter().map(|&stage| format!("`{}`", self.stages[stage].label())).collect();
                Err(format!("stage `{name}` makes several artifacts; name one: {}", labels.join(", ")))
            }
        }
    }

    /// Names that can be referred to.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stages.iter().map(RecipeStage::label).collect();
        names.extend(self.has_model.then(|| "model".to_owned()));
        names
    }
}

/// Value of an option.
pub(super) enum Takes {
    Nothing,
    Number,
    Word,
    Either,
    Other(Meaning),
}

pub(super) fn takes(argument: &Arg) -> Takes {
    if !argument.get_action().takes_values() {
        return Takes::Nothing;
    }
    if let Some(meaning) = meaning(argument) {
        return Takes::Other(meaning);
    }
    let value = argument.get_value_parser().type_id();
    let is = |types: &[TypeId]| types.iter().any(|id| value == *id);
    if is(&[TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>(), TypeId::of::<f32>(), TypeId::of::<f64>()])
    {
        return Takes::Number;
    }
    if is(&[TypeId::of::<String>()]) || !argument.get_possible_values().is_empty() {
        return Takes::Word;
    }
    Takes::Either
}

/// Options of a stage as far as they can be used, and those that cannot, by their long names.
pub(super) struct Read {
    pub(super) choices: Vec<Choice>,
    pub(super) dropped: Vec<String>,
}

/// Reads the options of one stage.
pub(super) fn read(stage: &RecipeStage, table: &Table, scope: &Scope<'_>, mistakes: &mut Mistakes) -> Read {
    let command = &command(stage.kind);
    let known: Vec<&Arg> =
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != OUT)).collect();
    let mut reader = Reader { stage, scope, mistakes, choices: Vec::new() };
    let mut dropped = Vec::new();
    for entry in table.entries.iter().filter(|entry| !OWN_KEYS.contains(&entry.key.as_str())) {
        if entry.key == OUT {
            let message = "`out` is not for recipes: outputs are in OUT/RECIPE/";
            reader.mistakes.suggest(&entry.place, Code::UnknownKey, message, "`slmc run --out OUT` chooses OUT");
            continue;
        }
        match known.iter().find(|arg| names(arg).any(|name| same_key(name, &entry.key))) {
            Some(argument) => {
                if reader.is_its_name(entry, argument, table) {
                    reader.entry(entry, argument);
                }
                let flag = argument.get_long().unwrap_or_default();
                let is_off = matches!(entry.node.value, Value::Boolean(false));
                if !is_off && reader.choices.iter().all(|choice| choice.flag != flag) {
                    dropped.push(flag.to_owned());
                }
            }
            // Where the kind of a stage is not known, a key may be that of any kind.
            None if stage.kind_is == KindIs::Guessed => {
                if !is_known_somewhere(&entry.key) {
                    let message = format!("unknown key `{}`", entry.key);
                    let help = "no kind of stage reads it; remove it, or correct its spelling";
                    reader.mistakes.suggest(&entry.place, Code::UnknownKey, message, help);
                }
            }
            None => {
                let longs = known.iter().filter_map(|arg| arg.get_long()).chain(OWN_KEYS);
                let names: Vec<String> = longs.map(underscored).collect();
                let names = names.iter().map(String::as_str);
                reader.mistakes.unknown_key(&entry.place, &entry.key, names, stage.kind.name());
            }
        }
    }
    if let Some(flag) = reader.input(table, command) {
        dropped.push(flag);
    }
    Read { choices: reader.choices, dropped }
}

/// Whether any kind of stage has an option of this name.
fn is_known_somewhere(key: &str) -> bool {
    STAGES.into_iter().any(|kind| knows(kind, key))
}

/// Whether a kind of stage has a key.
pub(super) fn knows(kind: super::stage::Kind, key: &str) -> bool {
    command(kind).get_arguments().any(|argument| names(argument).any(|name| same_key(name, key)))
}

/// The names of an option: its own, and those of before.
pub(super) fn names(argument: &Arg) -> impl Iterator<Item = &str> {
    argument.get_long().into_iter().chain(argument.get_all_aliases().unwrap_or_default())
}

/// A flag as keys are mostly written.
pub(super) fn underscored(flag: &str) -> String {
    flag.replace('-', "_")
}

/// The products that may stand where a model is taken, and their name in messages.
type Models = (&'static [Product], &'static str);

struct Reader<'r, 's> {
    stage: &'r RecipeStage,
    scope: &'r Scope<'s>,
    mistakes: &'r mut Mistakes,
    choices: Vec<Choice>,
}

impl Reader<'_, '_> {
    fn push(&mut self, flag: &str, place: &Location, value: Chosen) {
        self.choices.push(Choice { flag: flag.to_owned(), positional: false, place: place.clone(), value });
    }

    /// Whether a key is the name of its option; where both the name and one of before are given, the latter is a
    /// mistake.
    fn is_its_name(&mut self, entry: &Entry, argument: &Arg, table: &Table) -> bool {
        let name = argument.get_long().unwrap_or_default();
        if same_key(name, &entry.key) || table.find(name).is_none() {
            return true;
        }
        let message = format!("`{}` is an older name of `{}`, which is given too", entry.key, underscored(name));
        self.mistakes.suggest(&entry.place, Code::Conflict, message, "keep one");
        false
    }

    fn entry(&mut self, entry: &Entry, argument: &Arg) {
        let flag = argument.get_long().unwrap_or_default().to_owned();
        let (takes, node) = (takes(argument), &entry.node);
        if let Takes::Nothing = takes {
            match &node.value {
                Value::Boolean(true) => self.push(&flag, &node.place, Chosen::Set),
                Value::Variable { text, .. } if text == "true" => self.push(&flag, &node.place, Chosen::Set),
                Value::Boolean(false) | Value::Unresolved => {}
                Value::Variable { text, .. } if text == "false" => {}
                _ => self.wrong(entry, node, "true or false"),
            }
            return;
        }
        if flag == TARGET && self.stage.kind.makes() == Product::Artifact {
            return self.own_target(entry);
        }
        match &node.value {
            Value::List(items) if matches!(argument.get_action(), ArgAction::Append) => {
                for item in items {
                    self.value(entry, &flag, item, &takes);
                }
            }
            Value::List(_) => self.wrong(entry, node, "a single value"),
            _ => self.value(entry, &flag, node, &takes),
        }
    }

    fn wrong(&mut self, entry: &Entry, node: &Node, expected: &str) {
        let message = format!("`{}` is {}; expected {expected}", entry.key, node.value.kind());
        let help = match expected {
            "a number" => node.value.number_help(&entry.key),
            "a string" => "put it in quotes",
            "a single value" => "keep one of the list",
            _ => "write it as such",
        };
        self.mistakes.suggest(&node.place, Code::WrongType, message, help);
    }

    fn value(&mut self, entry: &Entry, flag: &str, node: &Node, takes: &Takes) {
        let (text, number) = match &node.value {
            Value::Text(text) => (text, false),
            Value::Integer(text) | Value::Number(text) => (text, true),
            // A variable is whatever the option takes.
            Value::Variable { text, .. } => (text, matches!(takes, Takes::Number)),
            Value::Unresolved => return,
            _ => return self.wrong(entry, node, "a string or a number"),
        };
        match takes {
            Takes::Number if !number => self.wrong(entry, node, "a number"),
            Takes::Word | Takes::Other(_) if number => self.wrong(entry, node, "a string"),
            Takes::Other(Meaning::Reads(words)) if words.contains(&text.as_str()) => {
                self.push(flag, &node.place, Chosen::Text(text.clone()));
            }
            Takes::Other(Meaning::Writes) => self.written(entry, flag, node, text, Chosen::Writes),
            Takes::Other(Meaning::Shares) => self.written(entry, flag, node, text, Chosen::Shares),
            Takes::Other(Meaning::Reads(_)) => self.file(flag, node, text),
            Takes::Other(Meaning::Model { takes, name, .. }) => self.path(flag, node, text, Some((takes, name))),
            Takes::Other(Meaning::Target) => {
                if let Some(chosen) = target(text, &node.place, self.mistakes).map(|(_, chosen)| chosen) {
                    self.push(flag, &node.place, chosen);
                }
            }
            _ => self.push(flag, &node.place, Chosen::Text(text.clone())),
        }
    }

    fn written(&mut self, entry: &Entry, flag: &str, node: &Node, text: &str, chosen: fn(PathBuf) -> Chosen) {
        if Path::new(text).file_name().is_none_or(|name| name != text) {
            let message = format!(
                "`{}` is `{text}`; expected the name of a file, which is written beside the outputs",
                entry.key
            );
            return self.mistakes.add(&node.place, Code::BadName, message);
        }
        self.push(flag, &node.place, chosen(self.scope.out.join(text)));
    }

    /// A file that is read: a stage that makes a text, or a path.
    fn file(&mut self, flag: &str, node: &Node, text: &str) {
        let makes_text = |stage: usize| self.scope.stages[stage].kind.makes() == Product::Text;
        match self.scope.refer(text, &self.stage.cell) {
            Ok(Referred::Input(source @ Input::Stage(stage))) if makes_text(stage) => {
                self.refer((flag, false), (&[Product::Text], "a text"), node, text, source);
            }
            _ => self.path(flag, node, text, None),
        }
    }

    fn path(&mut self, flag: &str, node: &Node, text: &str, models: Option<Models>) {
        if let Some(models) = models {
            match self.scope.refer(text, &self.stage.cell) {
                Ok(Referred::Input(source)) => return self.refer((flag, false), models, node, text, source),
                Ok(Referred::Unusable) => return,
                Ok(Referred::Nothing) => {}
                Err(message) => return self.mistakes.add(&node.place, Code::UnknownStage, message),
            }
        }
        let path = node.place.directory().join(text);
        if models.is_none()
            && let Some((name, file)) = text.split_once('/')
            && let Ok(Referred::Input(Input::Stage(stage))) = self.scope.refer(name, &self.stage.cell)
            && (!path.exists() || !self.scope.stages[stage].kind.makes().files().is_empty())
        {
            return self.file_of(flag, node, (name, file), stage);
        }
        if !path.exists() {
            let names = self.scope.names();
            let near = nearest(text, names.iter().map(String::as_str)).filter(|_| models.is_some());
            return match near {
                Some(name) => {
                    let message = format!("`{text}` is neither a stage nor a path that exists");
                    self.mistakes.suggest(&node.place, Code::MissingPath, message, format!("did you mean `{name}`?"));
                }
                None => {
                    let message = format!("{} does not exist", path.display());
                    self.mistakes.add(&node.place, Code::MissingPath, message);
                }
            };
        }
        let written = match &node.value {
            Value::Variable { name, .. } => format!("{}{name}", environment::PREFIX),
            _ => text.to_owned(),
        };
        self.push(flag, &node.place, Chosen::Reads { source: Input::Path(path), written });
    }

    /// A file that another stage makes.
    fn file_of(&mut self, flag: &str, node: &Node, (name, file): (&str, &str), stage: usize) {
        let of = &self.scope.stages[stage];
        let files = of.kind.makes().files();
        match files.iter().find(|known| **known == file) {
            Some(file) => {
                let value = Chosen::Reads { source: Input::File(stage, file), written: format!("{name}/{file}") };
                self.push(flag, &node.place, value);
            }
            None if kind_is_known(of) => {
                let kind = of.kind.name();
                let message = format!("stage `{name}` ({kind}) makes no file `{file}` that others read");
                let help = match files {
                    [] => "name a file on disk, or a stage that prepares data".to_owned(),
                    files => format!("it makes {}", files.join(" and ")),
                };
                self.mistakes.suggest(&node.place, Code::WrongProduct, message, help);
            }
            None => {}
        }
    }

    /// A model that another stage makes, or `[model]`.
    fn refer(
        &mut self,
        (flag, positional): (&str, bool),
        (takes, expected): Models,
        node: &Node,
        text: &str,
        source: Input,
    ) {
        if let Input::Stage(stage) = source {
            let (kind, of) = (self.stage.kind, &self.scope.stages[stage]);
            let product = of.kind.makes();
            let known = kind_is_known(self.stage) && kind_is_known(of);
            if known && !takes.contains(&product) {
                let message = format!(
                    "stage `{}` ({}) takes {expected}, and `{text}` ({}) makes {}",
                    self.stage.name,
                    kind.name(),
                    of.kind.name(),
                    product.name()
                );
                let help = format!("name a stage that makes {expected}, or put one between them");
                return self.mistakes.suggest(&node.place, Code::WrongProduct, message, help);
            }
        }
        let value = Chosen::Reads { source, written: text.to_owned() };
        let (flag, place) = (flag.to_owned(), node.place.clone());
        self.choices.push(Choice { flag, positional, place, value });
    }

    /// The target of this stage, of the one or several that the key names; mistakes in it are known by now.
    fn own_target(&mut self, entry: &Entry) {
        let items = match &entry.node.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![&entry.node],
        };
        for item in items {
            let mut silent = Mistakes::default();
            if let Value::Text(text) | Value::Variable { text, .. } = &item.value
                && let Some((name, chosen)) = target(text, &item.place, &mut silent)
                && self.stage.target.as_ref() == Some(&name)
            {
                self.push(TARGET, &item.place, chosen);
            }
        }
    }

    /// `input`: the positional argument, or the first of the options it stands for that is not given itself. Gives the name of
    /// that, where it cannot be used.
    fn input(&mut self, table: &Table, command: &Command) -> Option<String> {
        let given = |flag: &str| table.find(flag).is_some();
        let positional = command.get_positionals().next();
        let inputs = self.stage.kind.inputs();
        let argument = match positional {
            Some(argument) => Some(argument),
            None => {
                let open = inputs.iter().find(|flag| !given(flag));
                open.and_then(|flag| command.get_arguments().find(|argument| argument.get_long() == Some(flag)))
            }
        };
        let entry = table.find("input");
        let (entry, argument) = match (entry, argument) {
            (Some(entry), Some(argument)) => (entry, argument),
            (Some(entry), None) => {
                let names: Vec<String> = inputs.iter().map(|name| format!("`{name}`")).collect();
                let message = format!("`input` has no use here: both {} are given", names.join(" and "));
                self.mistakes.suggest(&entry.place, Code::Conflict, message, "remove it");
                return None;
            }
            (None, _) if inputs.first().is_some_and(|first| given(first)) => return None,
            (None, argument) => {
                let message = format!("stage `{}` has no `input`", self.stage.name);
                let help = "name a stage, or \"model\"";
                self.mistakes.suggest(&self.stage.place, Code::MissingKey, message, help);
                return argument.map(|argument| argument.get_id().to_string());
            }
        };
        let flag = argument.get_long().unwrap_or(argument.get_id().as_str());
        let dropped = Some(flag.to_owned());
        let Some(text) = entry.node.text("input", self.mistakes) else { return dropped };
        match self.scope.refer(text, &self.stage.cell) {
            Ok(Referred::Input(source)) => {
                let models = match meaning(argument) {
                    Some(Meaning::Model { takes, name, .. }) => (takes, name),
                    _ => (&[][..], "no model"),
                };
                let before = self.choices.len();
                self.refer((flag, positional.is_some()), models, &entry.node, text, source);
                return dropped.filter(|_| self.choices.len() == before);
            }
            Ok(Referred::Unusable) => {}
            Err(message) => {
                let help = "name a stage, or \"model\" where the recipe has [model]";
                self.mistakes.suggest(&entry.node.place, Code::UnknownStage, message, help);
            }
            Ok(Referred::Nothing) => {
                let names = self.scope.names();
                let help = suggestion(text, names.iter().map(String::as_str));
                self.mistakes.suggest(&entry.node.place, Code::UnknownStage, format!("unknown stage `{text}`"), help);
            }
        }
        dropped
    }
}

/// Whether a stage's kind is said, or as good as.
fn kind_is_known(stage: &RecipeStage) -> bool {
    stage.kind_is != KindIs::Guessed
}

/// A target's name and the option for it, a file's path relative to the recipe.
pub(super) fn target(text: &str, place: &Location, mistakes: &mut Mistakes) -> Option<(String, Chosen)> {
    let is_file = text.ends_with(".toml") || text.contains(['/', std::path::MAIN_SEPARATOR]);
    let argument = if is_file { place.directory().join(text).display().to_string() } else { text.to_owned() };
    match Target::named(&argument) {
        Ok(target) => {
            let content = serde_json::to_string(&target).unwrap_or_default();
            Some((target.name, Chosen::Target { argument, content }))
        }
        Err(error) => {
            mistakes.add(place, Code::UnknownValue, chain(&error));
            None
        }
    }
}
