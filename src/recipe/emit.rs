//! A plan as a workflow of another engine: every stage of every cell a job `slmc run RECIPE --only STAGE`, after those it
//! reads; outputs travel through the shared cache. The last job is `--cached-only`: it has the gates and the report.
//!
//! All names are data of the recipe: they are quoted for the shell and for YAML, and expressions of an engine in them are
//! taken for text.

mod dot;
mod github;
mod gitlab;
mod slurm;

use super::overrides::Setting;
use super::plan_report::{PlanReport, PlannedStage, Variable};
use crate::report::shell;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Schema of the graph as JSON.
const GRAPH: &str = "slmc.graph/1";
/// Largest workflow that GitHub takes, in bytes.
const GITHUB_MOST: usize = 500 << 10;

/// What a plan is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// A workflow of GitHub Actions.
    Github,
    /// A pipeline of GitLab CI.
    Gitlab,
    /// A shell script that submits jobs to Slurm.
    Slurm,
    /// The graph, for any other engine.
    Json,
    /// The graph for Graphviz.
    Dot,
}

/// How jobs run the recipe.
#[derive(Clone, Debug, Default)]
pub struct EmitOptions {
    /// Values over the recipe's.
    pub settings: Vec<Setting>,
    /// Whether jobs refuse what differs from the lock.
    pub locked: bool,
    /// Directory for outputs.
    pub out: PathBuf,
}

/// Why a plan cannot be a workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The file would be refused.
    #[error(
        "the workflow has {bytes} bytes, and GitHub takes {GITHUB_MOST}: split the recipe, or give its matrix fewer cells"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// The text of a workflow.
///
/// # Errors
/// [`EmitError`].
pub fn emit(plan: &PlanReport, engine: Engine, options: &EmitOptions) -> Result<String, EmitError> {
    let jobs = Jobs { plan, options };
    let text = match engine {
        Engine::Github => github::workflow(&jobs),
        Engine::Gitlab => gitlab::pipeline(&jobs),
        Engine::Slurm => slurm::script(&jobs),
        Engine::Dot => dot::graph(plan),
        Engine::Json => format!("{:#}", jobs.graph()),
    };
    match engine {
        Engine::Github if text.len() > GITHUB_MOST => Err(EmitError::TooLarge { bytes: text.len() }),
        _ => Ok(text),
    }
}

/// The stages as jobs.
struct Jobs<'j> {
    plan: &'j PlanReport,
    options: &'j EmitOptions,
}

impl Jobs<'_> {
    /// The recipe as the jobs name it.
    fn recipe(&self) -> String {
        self.plan.file.display().to_string()
    }

    /// The words of a command after `slmc run RECIPE`, quoted for a shell.
    fn options(&self) -> String {
        let mut words = Vec::new();
        if self.options.locked {
            words.push("--locked".to_owned());
        }
        words.extend(self.options.settings.iter().map(|setting| format!("--set {}", shell(&setting.to_string()))));
        if self.options.out.as_path() != Path::new("out") {
            words.push(format!("--out {}", shell(&self.options.out.display().to_string())));
        }
        words.into_iter().map(|word| format!(" {word}")).collect()
    }

    /// The command of a stage.
    fn command(&self, stage: &PlannedStage) -> String {
        format!("slmc run {}{} --only {}", shell(&self.recipe()), self.options(), shell(&stage.stage))
    }

    /// The command of the last job.
    fn last(&self) -> String {
        format!("slmc run {}{} --cached-only", shell(&self.recipe()), self.options())
    }

    /// How the file was made, in one line.
    fn made_by(&self, engine: &str) -> String {
        let command = format!("slmc plan {}{} --emit {engine}", shell(&self.recipe()), self.options());
        crate::report::visible(&command).replace('\n', " ")
    }

    /// Variables of the environment that the recipe names, and those of its caches but for what every workflow has.
    fn variables(&self) -> impl Iterator<Item = &Variable> {
        let common = ["SLMC_CACHE", "SLMC_CACHE_MODE", "SLMC_CACHE_TOKEN"];
        self.plan.environment.iter().filter(move |variable| !common.contains(&variable.name.as_str()))
    }

    /// Lines of a comment: what the recipe reads from the environment, and the stages that `when` leaves out. `of_engine` says
    /// where the variables come from.
    fn remarks(&self, of_engine: &str) -> String {
        let mut lines = String::new();
        let names: Vec<&str> = self.variables().map(|variable| variable.name.as_str()).collect();
        if !names.is_empty() {
            let _ = writeln!(lines, "#\n# The recipe reads {}: {of_engine}.", names.join(", "));
        }
        for left_out in &self.plan.left_out {
            let line = format!("Without {}, {}; make this file anew where that changes.", left_out.stage, left_out.why);
            let _ = writeln!(lines, "#\n# {}", crate::report::visible(&line).replace('\n', " "));
        }
        lines
    }

    fn graph(&self) -> Value {
        let unit = |stage: &PlannedStage| {
            let predicted = &stage.estimate.predicted;
            json!({
                "unit": stage.stage,
                "kind": stage.kind,
                "needs": stage.needs,
                "key": stage.key,
                "cached": stage.cached,
                "peak_memory_bytes": predicted.peak_memory_bytes,
                "output_bytes": predicted.output_bytes,
                "seconds": stage.estimate.seconds,
                "command": self.command(stage),
            })
        };
        json!({
            "schema": GRAPH,
            "recipe": self.recipe(),
            "units": self.plan.stages.iter().map(unit).collect::<Vec<_>>(),
            "last": {"needs": self.plan.stages.iter().map(|stage| &stage.stage).collect::<Vec<_>>(), "command": self.last()},
        })
    }

    /// A name for every stage of letters, digits, `_` and `-`, beginning with a letter or `_`, no two alike and none of
    /// `taken`.
    fn identifiers(&self, taken: &[&str]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for stage in &self.plan.stages {
            let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
            let mut name: String = stage.stage.chars().map(|c| if c == '_' { c } else { plain(c) }).collect();
            if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
                name.insert(0, '_');
            }
            let base = name.clone();
            let mut count = 1;
            // GitHub tells job names apart without regard to case.
            while names
                .iter()
                .map(String::as_str)
                .chain(taken.iter().copied())
                .any(|own| own.eq_ignore_ascii_case(&name))
            {
                count += 1;
                name = format!("{base}-{count}");
            }
            names.push(name);
        }
        names
    }

    /// Indices of the stages that one waits for.
    fn needs(&self, stage: &PlannedStage) -> Vec<usize> {
        let index = |label: &String| self.plan.stages.iter().position(|other| other.stage == *label);
        stage.needs.iter().filter_map(index).collect()
    }
}

/// A scalar of YAML: JSON's strings are YAML's, but for characters that JSON leaves as they are and YAML reads as breaks, or not
/// at all.
fn yaml(text: &str) -> String {
    let escaped = |character: char| match character {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => format!("\\u{:04x}", character as u32),
        other => other.to_string(),
    };
    Value::from(text).to_string().chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_yaml_have_no_characters_that_it_breaks_at() {
        assert_eq!(yaml("a\"b\u{2028}c\u{7f}ü"), r#""a\"b\u2028c\u007fü""#);
    }
}
