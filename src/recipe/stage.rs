//! One stage of a recipe as it will run: a subcommand, its options, what it reads and what it makes. The options are
//! those of the command line, asked of the subcommand's own clap definition through [`Commands`], so that none is
//! declared a second time.

use super::mistake::Place;
use crate::model::spec::ModelSpec;
use crate::shell::Shell;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Which subcommand a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `slmc train`
    Train,
    /// `slmc distill`
    Distill,
    /// `slmc prune`
    Prune,
    /// `slmc quantize`
    Quantize,
    /// `slmc compile`
    Compile,
    /// `slmc eval`
    Eval,
}

/// What a stage leaves behind for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Dense,
    Quantized,
    Artifact,
    Nothing,
}

impl Product {
    /// With its article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Product::Dense => "a dense model",
            Product::Quantized => "a quantized model",
            Product::Artifact => "an artifact",
            Product::Nothing => "figures, no model",
        }
    }
}

impl Kind {
    /// In the order of a whole chain.
    pub const ALL: [Kind; 6] = [Kind::Train, Kind::Distill, Kind::Prune, Kind::Quantize, Kind::Compile, Kind::Eval];

    /// The subcommand.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Train => "train",
            Kind::Distill => "distill",
            Kind::Prune => "prune",
            Kind::Quantize => "quantize",
            Kind::Compile => "compile",
            Kind::Eval => "eval",
        }
    }

    pub(super) fn product(self) -> Product {
        match self {
            Kind::Train | Kind::Distill | Kind::Prune => Product::Dense,
            Kind::Quantize => Product::Quantized,
            Kind::Compile => Product::Artifact,
            Kind::Eval => Product::Nothing,
        }
    }
}

/// How a stage ended where nothing failed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The subcommand's report as JSON, its schema first.
    pub report: Value,
    /// The report as text, shown where it is an answer of its own: a model that does not fit.
    pub text: String,
    /// Whether there is an output.
    pub passed: bool,
}

/// Specifications of models that are not there yet, by the path at which a stage will write them.
#[derive(Debug, Default)]
pub struct Known(pub(super) BTreeMap<PathBuf, ModelSpec>);

impl Known {
    /// Of the model at a path, where it can be told without compute.
    pub fn at(&self, path: &Path) -> Option<&ModelSpec> {
        self.0.get(path)
    }
}

/// The subcommands, as a recipe sees them.
pub trait Commands {
    /// The options of a subcommand, and `seed`.
    fn command(&self, kind: Kind) -> clap::Command;

    /// Finds what is wrong with a stage as far as the specifications of its inputs tell, and says what its output will
    /// be where it can.
    fn check(&self, kind: Kind, arguments: &[OsString], known: &Known) -> anyhow::Result<Option<ModelSpec>>;

    /// Runs it.
    fn execute(&self, kind: Kind, arguments: &[OsString], shell: &Shell) -> anyhow::Result<Outcome>;
}

/// Where something that is read comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// `[model]`.
    Model,
    /// Another unit's output, by its index.
    Unit(usize),
    /// A file or directory.
    Path(PathBuf),
}

/// The value of an option.
#[derive(Clone, Debug)]
pub(super) enum Chosen {
    /// A flag that stands alone.
    Set,
    /// Anything but a path.
    Text(String),
    /// A target: what the option takes, and all that the target says.
    Target { argument: String, content: String },
    /// Something that is read; `written` as the recipe has it.
    Reads { source: Source, written: String },
    /// A file beside the outputs.
    Writes(PathBuf),
}

/// One option of a unit.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Long name; of the positional argument, its identifier.
    pub(super) flag: String,
    pub(super) positional: bool,
    pub(super) place: Place,
    pub(super) value: Chosen,
}

/// A stage; one of several where a compile stage has several targets.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) stage: String,
    /// Name of the target, of a compile stage.
    pub(super) target: Option<String>,
    /// Whether the stage has other targets too.
    pub(super) one_of_several: bool,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) choices: Vec<Choice>,
    pub(super) output: Option<PathBuf>,
}

impl Unit {
    /// What people call it.
    pub(super) fn label(&self) -> String {
        match &self.target {
            Some(target) if self.one_of_several => format!("{}.{target}", self.stage),
            _ => self.stage.clone(),
        }
    }

    /// Indices of the units it waits for.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = usize> + '_ {
        self.choices.iter().filter_map(|choice| match &choice.value {
            Chosen::Reads { source: Source::Unit(unit), .. } => Some(*unit),
            _ => None,
        })
    }

    /// The command line, without the names of program and subcommand.
    pub(super) fn arguments(&self, path: &dyn Fn(&Source) -> PathBuf) -> Vec<OsString> {
        self.arguments_of(self.choices.iter(), path)
    }

    /// Likewise with some of the options only.
    pub(super) fn arguments_of<'c>(
        &self,
        choices: impl Iterator<Item = &'c Choice>,
        path: &dyn Fn(&Source) -> PathBuf,
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
                Chosen::Writes(path) => path.into(),
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
