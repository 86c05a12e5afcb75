//! One stage of a recipe as it will run: a subcommand, its options, inputs and output. The options are those of the
//! command line, asked of the subcommand's own clap definition, so that none is declared a second time; which kinds
//! there are is said by the table of stages.

use super::expand;
use super::matrix::Cell;
use super::mistake::Location;
use crate::shell::Shell;
use crate::stages::arguments::{Meaning, changes, meaning};
use crate::stages::known::Known;
use crate::stages::{AnyStage, Faults, Outcome, Ready, Resolved, RunSettings};
use clap::Arg;
use std::ffi::OsString;
use std::path::PathBuf;

/// Which subcommand a stage is.
pub(super) type Kind = &'static dyn AnyStage;

/// The options of a kind, and `seed`, which on a command line is global.
pub(super) fn command(kind: Kind) -> clap::Command {
    let command = clap::Command::new(kind.name()).no_binary_name(true).disable_help_flag(true);
    let seed = clap::Arg::new("seed").long("seed").value_name("N").value_parser(clap::value_parser!(u64));
    kind.augment(command).arg(seed.help("Start every random choice from N"))
}

/// Where something that is read comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// `[model]`, by the index of its cell.
    Model(usize),
    /// Another stage's output, by its index.
    Stage(usize),
    /// A file of the directory that another stage makes.
    File(usize, &'static str),
    /// A file or directory.
    Path(PathBuf),
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// A flag that stands alone.
    Set,
    /// Anything but a path.
    Text(String),
    /// A target: the value of the option, and the content of the target file.
    Target { argument: String, content: String },
    /// Something that is read; `written` as the recipe has it.
    Reads { source: Input, written: String },
    /// A file beside the outputs.
    Writes(PathBuf),
    /// A file beside the outputs that several stages read and fill.
    Shares(PathBuf),
}

/// One option of a stage.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Long name; of the positional argument, its identifier.
    pub(super) flag: String,
    pub(super) positional: bool,
    pub(super) place: Location,
    pub(super) value: Chosen,
}

/// How it is known which kind a stage is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindIs {
    /// It is said.
    Said,
    /// What is said is a mistake, and this is the nearest name.
    Near,
    /// Nothing that can be used is said, and this kind knows most of its keys.
    Guessed,
}

/// A stage; one of several where the recipe has a matrix, or a compile stage several targets.
#[derive(Clone, Debug)]
pub(super) struct RecipeStage {
    /// The key of its table.
    pub(super) name: String,
    /// The values of the matrix that it has.
    pub(super) cell: Cell,
    /// Name of the target, of a compile stage.
    pub(super) target: Option<String>,
    /// Whether the stage has other targets too.
    pub(super) one_of_several: bool,
    pub(super) kind: Kind,
    pub(super) kind_is: KindIs,
    pub(super) place: Location,
    pub(super) choices: Vec<Choice>,
    /// Whether no mistake was found in what it says.
    pub(super) sound: bool,
    /// Options that the recipe has and that cannot be used, by their long names: their mistakes are noted.
    pub(super) dropped: Vec<String>,
    pub(super) output: Option<PathBuf>,
    /// Whether the output is a directory.
    pub(super) is_directory: bool,
}

impl RecipeStage {
    /// Name for people: that of the table, its values of the matrix, and its target, where there are several.
    pub(super) fn label(&self) -> String {
        let label = expand::label(&self.name, &self.cell);
        match &self.target {
            Some(target) if self.one_of_several && !self.cell.names(target) => format!("{label}.{target}"),
            _ => label,
        }
    }

    /// Whether a stage of a cell means this one by a name: the table's, with or without the target, of the values that both
    /// have; or the whole label, of any cell.
    pub(super) fn is_meant(&self, name: &str, cell: &Cell) -> bool {
        let with_target = |name: &str| self.target.as_ref().map(|target| format!("{name}.{target}"));
        let of_cell = expand::label(&self.name, &self.cell);
        let same = |own: &str| own == name || with_target(own).is_some_and(|own| own == name);
        self.label() == name || same(&of_cell) || (same(&self.name) && self.cell.is_part_of(cell))
    }

    /// Whether a person means this one, in any cell: `--only` and gates.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.is_meant(name, &self.cell)
    }

    /// What an option says, where it is a word or a number.
    pub(super) fn text_of(&self, flag: &str) -> Option<&str> {
        self.choices.iter().find(|choice| choice.flag == flag).and_then(|choice| match &choice.value {
            Chosen::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Indices of the stages it waits for.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = usize> + '_ {
        self.choices.iter().filter_map(|choice| match &choice.value {
            Chosen::Reads { source: Input::Stage(stage) | Input::File(stage, _), .. } => Some(*stage),
            _ => None,
        })
    }

    /// The meaning of what an option says, where that is more than a word or a number.
    pub(super) fn meaning_of(&self, choice: &Choice) -> Option<Meaning> {
        let command = command(self.kind);
        let named = |argument: &&Arg| argument.get_long().unwrap_or(argument.get_id().as_str()) == choice.flag;
        command.get_arguments().find(named).and_then(meaning)
    }

    /// Whether an option names a model.
    pub(super) fn takes_model(&self, choice: &Choice) -> bool {
        matches!(self.meaning_of(choice), Some(Meaning::Model { .. }))
    }

    /// Whether what an option reads is another from day to day.
    pub(super) fn changes(&self, choice: &Choice) -> bool {
        let command = command(self.kind);
        command.get_arguments().any(|argument| argument.get_long() == Some(&choice.flag) && changes(argument))
    }

    /// Index of the stage that makes the model which this one works on.
    pub(super) fn model_stage(&self) -> Option<usize> {
        self.choices.iter().filter(|choice| choice.positional).find_map(|choice| match &choice.value {
            Chosen::Reads { source: Input::Stage(stage), .. } => Some(*stage),
            _ => None,
        })
    }

    /// The command line, without the names of program and subcommand.
    pub(super) fn arguments(&self, path: &dyn Fn(&Input) -> PathBuf) -> Vec<OsString> {
        self.arguments_of(self.choices.iter(), path)
    }

    /// Checks everything that can be checked without work, with models where `path` and `known` have them.
    pub(super) fn resolve(
        &self,
        run: &RunSettings,
        known: &Known,
        path: &dyn Fn(&Input) -> PathBuf,
    ) -> Resolved<Box<dyn Ready>> {
        let mut faults = Faults::default();
        let matches = command(self.kind).try_get_matches_from(self.arguments(path));
        let Some(matches) = faults.check("", matches) else { return Resolved::new(None, None, faults) };
        let seed = matches.get_one::<u64>("seed").copied().unwrap_or(run.seed);
        self.kind.resolve(&matches, &RunSettings { seed, ..run.clone() }, known)
    }

    /// Runs it, its inputs being on disk.
    pub(super) fn run(
        &self,
        run: &RunSettings,
        path: &dyn Fn(&Input) -> PathBuf,
        shell: &Shell,
    ) -> anyhow::Result<Outcome> {
        self.resolve(run, &Known::OnDisk, path).checked().map_err(Faults::first)?.run(shell)
    }

    /// Likewise with some of the options only.
    pub(super) fn arguments_of<'c>(
        &self,
        choices: impl Iterator<Item = &'c Choice>,
        path: &dyn Fn(&Input) -> PathBuf,
    ) -> Vec<OsString> {
        let (mut arguments, mut positional) = (Vec::new(), Vec::new());
        for choice in choices {
            let value: OsString = match &choice.value {
                Chosen::Set => {
                    arguments.push(format!("--{}", choice.flag).into());
                    continue;
                }
                Chosen::Text(text) | Chosen::Target { argument: text, .. } => text.into(),
                Chosen::Reads { source, .. } => path(source).into(),
                Chosen::Writes(path) | Chosen::Shares(path) => path.into(),
            };
            if choice.positional {
                positional.push(value);
            } else {
                arguments.push(joined(&choice.flag, &value));
            }
        }
        if let Some(output) = &self.output {
            arguments.push(joined("out", output.as_os_str()));
        }
        arguments.push("--".into());
        arguments.extend(positional);
        arguments
    }
}

fn joined(flag: &str, value: &std::ffi::OsStr) -> OsString {
    let mut argument = OsString::from(format!("--{flag}="));
    argument.push(value);
    argument
}

/// An error and its causes on one line, each once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
