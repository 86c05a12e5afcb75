//! From the keys of a stage's table to the options of its subcommand. Which keys there are, which of them are flags,
//! numbers, lists, paths or models, is read off the subcommand's clap definition, by the types of its values
//! ([`crate::stages::arguments`]).

use super::document::{Entry, Node, Table, Value, same_key};
use super::mistake::{Code, Location, Mistakes, suggestion};
use super::stage::{Choice, Chosen, Input, RecipeStage, chain};
use crate::disk::schema::nearest;
use crate::stages::Product;
use crate::stages::arguments::{Meaning, meaning};
use crate::target::Target;
use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::path::Path;

/// Keys of a stage that are not options.
pub(super) const OWN_KEYS: [&str; 2] = ["kind", "input"];
/// The option that every output has, which the runner chooses.
pub(super) const OUT: &str = "out";
/// The option by which a stage that makes artifacts names its targets.
pub(super) const TARGET: &str = "target";

/// The stages and models that a stage can refer to.
pub(super) struct Scope<'s> {
    /// Every stage, their options not yet read.
    pub(super) stages: &'s [RecipeStage],
    /// `[model]`, if there is one.
    pub(super) model: Option<&'s Path>,
    /// Directory of the outputs.
    pub(super) out: &'s Path,
}

impl Scope<'_> {
    /// The stage or model of this name. The error is for a name that several stages have.
    fn refer(&self, name: &str) -> Result<Option<Input>, String> {
        if name == "model" {
            return match self.model {
                Some(_) => Ok(Some(Input::Model)),
                None => Err("the recipe has no [model] with a `path`".to_owned()),
            };
        }
        let of_stage: Vec<usize> = (0..self.stages.len()).filter(|&stage| self.stages[stage].name == name).collect();
        match of_stage[..] {
            [stage] => Ok(Some(Input::Stage(stage))),
            [] => {
                let named = |stage: &RecipeStage| {
                    stage.target.as_ref().is_some_and(|target| name == format!("{}.{target}", stage.name))
                };
                Ok(self.stages.iter().position(named).map(Input::Stage))
            }
            _ => {
                let labels: Vec<String> =
                    of_stage.iter().map(|&stage| format!("`{}`", self.stages[stage].label())).collect();
                Err(format!("stage `{name}` makes several artifacts; name one: {}", labels.join(", ")))
            }
        }
    }

    /// Names that can be referred to.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stages.iter().map(RecipeStage::label).collect();
        names.extend(self.model.map(|_| "model".to_owned()));
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

/// Reads the options of one stage.
pub(super) fn read(
    stage: &RecipeStage,
    table: &Table,
    command: &Command,
    scope: &Scope<'_>,
    mistakes: &mut Mistakes,
) -> Vec<Choice> {
    let known: Vec<&Arg> =
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != OUT)).collect();
    let mut reader = Reader { stage, scope, mistakes, choices: Vec::new() };
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
            }
            None => {
                let longs = known.iter().filter_map(|arg| arg.get_long()).chain(OWN_KEYS);
                let names: Vec<String> = longs.map(underscored).collect();
                let names = names.iter().map(String::as_str);
                reader.mistakes.unknown_key(&entry.place, &entry.key, names, stage.kind.name());
            }
        }
    }
    reader.input(table, command);
    reader.choices
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
            match node.value {
                Value::Boolean(true) => self.push(&flag, &node.place, Chosen::Set),
                Value::Boolean(false) => {}
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
        self.mistakes.add(&node.place, Code::WrongType, message);
    }

    fn value(&mut self, entry: &Entry, flag: &str, node: &Node, takes: &Takes) {
        let (text, number) = match &node.value {
            Value::Text(text) => (text, false),
            Value::Integer(text) | Value::Number(text) => (text, true),
            _ => return self.wrong(entry, node, "a string or a number"),
        };
        match takes {
            Takes::Number if !number => self.wrong(entry, node, "a number"),
            Takes::Word | Takes::Other(_) if number => self.wrong(entry, node, "a string"),
            Takes::Other(Meaning::Reads(words)) if words.contains(&text.as_str()) => {
                self.push(flag, &node.place, Chosen::Text(text.clone()));
            }
            Takes::Other(Meaning::Writes) => self.written(entry, flag, node, text),
            Takes::Other(Meaning::Reads(_)) => self.path(flag, node, text, None),
            Takes::Other(Meaning::Model { takes, name }) => self.path(flag, node, text, Some((takes, name))),
            Takes::Other(Meaning::Target) => {
                if let Some(chosen) = target(text, &node.place, self.mistakes).map(|(_, chosen)| chosen) {
                    self.push(flag, &node.place, chosen);
                }
            }
            _ => self.push(flag, &node.place, Chosen::Text(text.clone())),
        }
    }

    fn written(&mut self, entry: &Entry, flag: &str, node: &Node, text: &str) {
        if Path::new(text).file_name().is_none_or(|name| name != text) {
            let message = format!(
                "`{}` is `{text}`; expected the name of a file, which is written beside the outputs",
                entry.key
            );
            return self.mistakes.add(&node.place, Code::BadName, message);
        }
        self.push(flag, &node.place, Chosen::Writes(self.scope.out.join(text)));
    }

    fn path(&mut self, flag: &str, node: &Node, text: &str, models: Option<Models>) {
        if let Some(models) = models {
            match self.scope.refer(text) {
                Ok(Some(source)) => return self.refer((flag, false), models, node, text, source),
                Ok(None) => {}
                Err(message) => return self.mistakes.add(&node.place, Code::UnknownStage, message),
            }
        }
        let path = node.place.directory().join(text);
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
        let value = Chosen::Reads { source: Input::Path(path), written: text.to_owned() };
        self.push(flag, &node.place, value);
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
            if !takes.contains(&product) {
                let message = format!(
                    "stage `{}` ({}) takes {expected}, and `{text}` ({}) makes {}",
                    self.stage.name,
                    kind.name(),
                    of.kind.name(),
                    product.name()
                );
                return self.mistakes.add(&node.place, Code::WrongProduct, message);
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
            if let Value::Text(text) = &item.value
                && let Some((name, chosen)) = target(text, &item.place, &mut silent)
                && self.stage.target.as_ref() == Some(&name)
            {
                self.push(TARGET, &item.place, chosen);
            }
        }
    }

    /// `input`: the positional argument, or the first of the options it stands for that is not given itself.
    fn input(&mut self, table: &Table, command: &Command) {
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
                return self.mistakes.add(&entry.place, Code::Conflict, message);
            }
            (None, _) if inputs.first().is_some_and(|first| given(first)) => return,
            (None, _) => {
                let message = format!("stage `{}` has no `input`", self.stage.name);
                let help = "name a stage, or \"model\"";
                return self.mistakes.suggest(&self.stage.place, Code::MissingKey, message, help);
            }
        };
        let Some(text) = entry.node.text("input", self.mistakes) else { return };
        match self.scope.refer(text) {
            Ok(Some(source)) => {
                let flag = argument.get_long().unwrap_or(argument.get_id().as_str());
                let models = match meaning(argument) {
                    Some(Meaning::Model { takes, name }) => (takes, name),
                    _ => (&[][..], "no model"),
                };
                self.refer((flag, positional.is_some()), models, &entry.node, text, source);
            }
            Err(message) => self.mistakes.add(&entry.node.place, Code::UnknownStage, message),
            Ok(None) => {
                let names = self.scope.names();
                let help = suggestion(text, names.iter().map(String::as_str));
                self.mistakes.suggest(&entry.node.place, Code::UnknownStage, format!("unknown stage `{text}`"), help);
            }
        }
    }
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
