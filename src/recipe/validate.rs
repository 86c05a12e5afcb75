//! The options of a stage as its subcommand's own parser judges them: values that do not parse, options that exclude or
//! need each other. The parser stops at the first mistake, so it is asked again without the option that it refused.

use super::document::Table;
use super::mistake::{Code, Mistakes, suggestion};
use super::options::underscored;
use super::stage::{Choice, Chosen, Input, RecipeStage, chain};
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::path::PathBuf;

/// Lets the subcommand parse the options, and reports every one that it refuses; those are taken out of the stage.
pub(super) fn validate(stage: &mut RecipeStage, table: &Table, command: &Command, mistakes: &mut Mistakes) {
    let mut choices = stage.choices.clone();
    refuse(stage, &mut choices, table, command, mistakes);
    let kept = |flag: &String| choices.iter().any(|choice| choice.flag == *flag);
    let gone: Vec<String> = stage.choices.iter().map(|choice| choice.flag.clone()).filter(|flag| !kept(flag)).collect();
    stage.dropped.extend(gone);
    stage.choices = choices;
}

fn refuse(stage: &RecipeStage, choices: &mut Vec<Choice>, table: &Table, command: &Command, mistakes: &mut Mistakes) {
    // Paths are checked elsewhere: any will do.
    let path = |_: &Input| PathBuf::from("path");
    while let Err(error) = command.clone().try_get_matches_from(stage.arguments_of(choices.iter(), &path)) {
        let named = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => vec![flag_of(argument)],
            Some(ContextValue::Strings(arguments)) => arguments.iter().map(|argument| flag_of(argument)).collect(),
            _ => Vec::new(),
        };
        if error.kind() == ErrorKind::MissingRequiredArgument {
            // A key that is there, or that `input` stands for, has been reported with its own fault.
            let stands_for = |flag: &String| stage.kind.inputs().first().is_some_and(|first| first == flag);
            let absent = |flag: &&String| !flag.starts_with('<') && !stands_for(flag) && table.find(flag).is_none();
            for flag in named.iter().filter(absent) {
                let (name, kind) = (&stage.name, stage.kind.name());
                let message = format!("stage `{name}` ({kind}) needs the key `{}`", underscored(flag));
                let help = format!("write {} in the table of the stage", example(command, flag));
                mistakes.suggest(&stage.place, Code::MissingKey, message, help);
            }
            return;
        }
        let value = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) => Some(value.as_str()),
            _ => None,
        };
        let is_it = |choice: &Choice| {
            named.contains(&choice.flag)
                && value.is_none_or(|value| !matches!(&choice.value, Chosen::Text(text) if text != value))
        };
        let Some(at) = choices.iter().position(is_it) else {
            return mistakes.add(&stage.place, Code::Refused, error.to_string().trim().replace('\n', " "));
        };
        let choice = choices.remove(at);
        if let Some(prior) = conflicting(&error) {
            // The other values of its list conflict as well.
            choices.retain(|other| other.flag != choice.flag);
            let message = format!(
                "{} and {} exclude each other",
                written(stage, table, &choice.flag),
                written(stage, table, &prior)
            );
            mistakes.suggest(&choice.place, Code::Conflict, message, "keep one");
            continue;
        }
        match explained(&error, &choice, value) {
            (code, message, Some(help)) => mistakes.suggest(&choice.place, code, message, help),
            (Code::Refused, message, None) if !message.contains("; ") => {
                let help = format!("see `slmc explain {}.{}`", stage.kind.name(), underscored(&choice.flag));
                mistakes.suggest(&choice.place, Code::Refused, message, help);
            }
            (code, message, None) => mistakes.add(&choice.place, code, message),
        }
    }
}

/// A key with what it takes, as the help of its option calls that.
fn example(command: &Command, flag: &str) -> String {
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
    let value = argument.and_then(|argument| argument.get_value_names()?.first().map(ToString::to_string));
    let key = flag.replace('-', "_");
    value.map_or_else(|| format!("`{key}`"), |value| format!("`{key} = {value}`"))
}

/// `--keep <PATTERN=SCHEME>` is `keep`.
fn flag_of(argument: &str) -> String {
    let flag = argument.trim_start_matches("--");
    flag.split([' ', '=']).next().unwrap_or(flag).to_owned()
}

/// The option that an option conflicts with.
fn conflicting(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::PriorArg).filter(|_| error.kind() == ErrorKind::ArgumentConflict)? {
        ContextValue::String(prior) => Some(flag_of(prior)),
        ContextValue::Strings(prior) => prior.first().map(|prior| flag_of(prior)),
        _ => None,
    }
}

/// An option by the key that the stage has for it: `input` stands for the first of its kind's.
fn written(stage: &RecipeStage, table: &Table, flag: &str) -> String {
    let key = underscored(flag);
    match table.find(&key) {
        None if stage.kind.inputs().contains(&flag) => format!("`input`, which is the `{key}`,"),
        _ => format!("`{key}`"),
    }
}

/// Kind, message and remedy.
fn explained(error: &clap::Error, choice: &Choice, value: Option<&str>) -> (Code, String, Option<String>) {
    let key = underscored(&choice.flag);
    let value = value.unwrap_or_default();
    if let Some(ContextValue::Strings(known)) = error.get(ContextKind::ValidValue) {
        let help = suggestion(value, known.iter().map(String::as_str));
        return (Code::UnknownValue, format!("`{key}` is `{value}`"), Some(help));
    }
    let message = match std::error::Error::source(error) {
        Some(cause) if cause.is::<std::num::ParseIntError>() && value.starts_with('-') => {
            format!("`{key}` is `{value}`: expected a whole number, 0 or above")
        }
        Some(cause) => format!("`{key}` is `{value}`: {}", chain(cause)),
        None => {
            format!("`{key}`: {}", error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: "))
        }
    };
    (Code::Refused, message, None)
}
