//! The recipe as text: comments that say what it is for and why each key has its value. Whatever comes from the model's
//! files or the command line is quoted as TOML, or in a comment of one line.

use super::choices::{Choice, Choices, quoted};
use super::licence::{Licence, line};
use super::{InitOptions, Priority};
use crate::compile::estimate::EstimateReport;
use crate::model::spec::{ModelKind, ModelSpec};
use crate::report::{grouped, shell};
use crate::target::Target;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// Columns of a comment.
const WIDTH: usize = 110;
/// Tokens per window of `slmc eval`, if it is not told otherwise.
const WINDOW: usize = 256;

/// Everything that the text says.
pub(super) struct Recipe<'r> {
    pub(super) place: &'r Path,
    pub(super) options: &'r InitOptions,
    pub(super) spec: &'r ModelSpec,
    pub(super) target: &'r Target,
    pub(super) estimate: &'r EstimateReport,
    pub(super) licence: &'r Licence,
    pub(super) choices: &'r Choices,
    pub(super) chat_template: bool,
}

impl Recipe<'_> {
    /// Path of the artifact below the working directory.
    pub(super) fn artifact(&self) -> String {
        let name = self.place.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        line(&format!("out/{name}/artifact.{}.slm", self.target.name))
    }

    /// The whole file.
    pub(super) fn text(&self) -> String {
        let mut text = self.opening();
        let model = self.relative(&self.options.model);
        let _ = write!(text, "\nversion = 1\n\n[model]\npath = {}\n", quoted(&model));
        let mut input = "model";
        if self.choices.of("sparse").next().is_some() {
            stage(&mut text, "sparse", "prune", input, self.choices.of("sparse"));
            input = "sparse";
        }
        stage(&mut text, "small", "quantize", input, self.choices.of("small"));
        self.smaller(&mut text);
        let target = Choice {
            stage: "artifact",
            key: "target",
            value: self.target_value(),
            why: line(&self.target.description),
        };
        stage(&mut text, "artifact", "compile", "small", [&target].into_iter().chain(self.choices.of("artifact")));
        self.measured(&mut text);
        self.sample(&mut text);
        text
    }

    fn opening(&self) -> String {
        let Recipe { options, spec, estimate, .. } = self;
        let place = line(&shell(&self.place.display().to_string()));
        let model = line(&options.model.display().to_string());
        let priority = options.priority;
        let mut text = String::new();
        comment(
            &mut text,
            "",
            &format!(
                "{model} for {}, as `slmc init --priority {}` proposes: {}.",
                self.target.name,
                priority.name(),
                priority.meaning()
            ),
        );
        text.push_str("#\n");
        let chat = if self.chat_template { ", with a chat template" } else { "" };
        let parameters = grouped(estimate.parameters);
        comment(&mut text, "Inputs      ", &format!("{model} ({}, {parameters} parameters{chat})", spec.family));
        comment(&mut text, "Command     ", &format!("slmc run {place}"));
        let measured = if options.data.is_some() { ", measured beside the checkpoint" } else { "" };
        comment(&mut text, "Result      ", &format!("{}{measured}", self.artifact()));
        comment(&mut text, "Licence     ", &self.licence.words());
        if priority == Priority::Compliance && !self.licence.is_clear() {
            comment(&mut text, "            ", "SETTLE THE LICENCE FIRST: nothing below makes up for it.");
        }
        if !self.choices.fits {
            comment(&mut text, "Fit         ", "NOT with any preset, by the estimate: see `slmc estimate`.");
        }
        text.push_str("#\n");
        comment(
            &mut text,
            "",
            "Every key is explained by `slmc explain KEY`, such as `slmc explain quantize.scheme`. Editors complete keys after \
             `slmc schema recipe > recipe.schema.json` and the first line `#:schema ./recipe.schema.json`.",
        );
        text
    }

    /// What is smaller still, where the target's kernel has it.
    fn smaller(&self, text: &mut String) {
        let open = self.target.required.as_ref().is_none_or(|required| required.schemes.is_empty());
        if self.options.priority == Priority::Size && open {
            comment(text, "", "Smaller still, at a cost in quality and, off the portable kernel, in targets:");
            text.push_str("# keep = [\"attention=w3.g32\", \"ffn=w3.g32\"]\n");
        }
    }

    fn target_value(&self) -> String {
        match Path::new(&self.options.target).is_file() {
            true => quoted(&self.relative(Path::new(&self.options.target))),
            false => quoted(&self.target.name),
        }
    }

    fn measured(&self, text: &mut String) {
        let Some(data) = &self.options.data else {
            text.push('\n');
            comment(
                text,
                "",
                "No text to measure on was given (`slmc init --data FILE`): take text of the kind that the model will see, \
                 which nothing was trained on, some 20,000 tokens or more, and take the marks off these lines.",
            );
            text.push_str(
                "# [stages.quality]\n# kind = \"eval\"\n# input = \"artifact\"\n# reference = \"model\"\n# data = \"held-out.txt\"\n",
            );
            return self.gates(text);
        };
        let data_choice =
            |key: &'static str, value: String, why: &str| Choice { stage: "quality", key, value, why: why.to_owned() };
        let mut keys = vec![
            data_choice(
                "reference",
                quoted("model"),
                "what rounding changed is measured against the checkpoint, on the same windows",
            ),
            data_choice(
                "data",
                quoted(&self.relative(data)),
                "as you gave it; the model must not have been trained on it",
            ),
        ];
        if let Some(field) = &self.options.field {
            keys.push(data_choice("field", quoted(field), "the key of the text"));
        }
        if self.choices.context < WINDOW {
            keys.push(data_choice(
                "window",
                self.choices.context.to_string(),
                "as many positions as the artifact is for",
            ));
        }
        stage(text, "quality", "eval", "artifact", keys.iter());
        self.gates(text);
    }

    fn gates(&self, text: &mut String) {
        text.push('\n');
        let place = line(&shell(&self.place.display().to_string()));
        comment(
            text,
            "",
            &format!(
                "Limits are not guessed. After the first run `slmc gates suggest {place}` proposes them from what was measured, \
                 with the number of windows that they need; `slmc gates suggest {place} >> {place}` puts them here."
            ),
        );
    }

    fn sample(&self, text: &mut String) {
        if self.spec.kind != ModelKind::Decoder {
            return;
        }
        text.push('\n');
        comment(
            text,
            "",
            "What checkpoint and artifact say, side by side in every report: a figure cannot show everything.",
        );
        text.push_str("[sample]\nprompt = \"Once upon a time\"\ntokens = 40\n");
    }

    /// A path as the recipe writes it: relative to its directory where that is near, else from the root.
    fn relative(&self, path: &Path) -> String {
        let directory = self.place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let shown = match (directory.canonicalize(), path.canonicalize()) {
            // As it was named, where both start from the same place.
            _ if directory == Path::new(".") && path.is_relative() => path.to_owned(),
            (Ok(from), Ok(to)) => between(&from, &to),
            _ => path.to_owned(),
        };
        shown.display().to_string().replace('\\', "/")
    }
}

/// The way from a directory to a path, both without links; the path itself where they have nothing but the root in common.
fn between(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if common <= 1 {
        return to.iter().collect();
    }
    let up = from[common..].iter().map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to[common..].iter().copied()).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

/// A stage with its keys, each below its reason.
fn stage<'c>(text: &mut String, name: &str, kind: &str, input: &str, keys: impl Iterator<Item = &'c Choice>) {
    let _ = write!(text, "\n[stages.{name}]\nkind = \"{kind}\"\ninput = \"{input}\"\n");
    for choice in keys {
        comment(text, "", &choice.why);
        let _ = writeln!(text, "{} = {}", choice.key, choice.value);
    }
}

/// A comment of whole words; lines after the first stand below the text of the first.
fn comment(text: &mut String, label: &str, words: &str) {
    let mut row = format!("# {label}");
    let start = row.chars().count();
    for word in words.split_whitespace() {
        let length = row.chars().count();
        if length > start && length + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", row.trim_end());
            row = format!("# {}", " ".repeat(label.chars().count()));
        }
        if row.chars().count() > start {
            row.push(' ');
        }
        row.push_str(word);
    }
    let _ = writeln!(text, "{}", row.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_wrapped_below_their_text() {
        let mut text = String::new();
        comment(&mut text, "Inputs  ", &"word ".repeat(40));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("#         word")), "{text}");
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn paths_lead_from_the_recipe_to_the_model() {
        let way = |from: &str, to: &str| between(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(way("/a/b", "/a/b/c"), "c");
        assert_eq!(way("/a/b/recipes", "/a/b/models/m"), "../models/m");
        assert_eq!(way("/a/b", "/c/d"), "/c/d");
        assert_eq!(way("/a/b", "/a/b"), ".");
    }
}
