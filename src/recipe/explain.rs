//! What a code of a mistake, a gate, a key of a recipe or an option of a stage means, from the same texts that the checks and the help use.

use super::gates::definitions;
use super::mistake::{Code, suggestion};
use super::options::OWN_KEYS;
use super::reader::TOP_KEYS;
use super::stage::command;
use crate::report::Report;
use crate::stages::STAGES;
use clap::Arg;
use serde::Serialize;

/// What stands for the name of a stage.
const ANY: &str = "STAGE";
/// Keys of a recipe that are neither gates nor options of subcommands.
const KEYS: [(&str, &str); 20] = [
    ("version", "Version of the schema that the recipe is written for. Always `version = 1`."),
    ("description", "What the recipe is for, for people. It decides nothing."),
    (
        "extends",
        "Path of a recipe that this one begins with, relative to the file that says it, or a list of them. Tables are merged \
         key by key, and what this file says holds over what the other says.",
    ),
    ("model", "The checkpoint that the recipe begins with; stages name it as \"model\". Its one key is `path`."),
    (
        "model.path",
        "Directory of a checkpoint, or a GGUF, ONNX or other file that slmc reads, relative to the file that says it. \
         \"env:NAME\" takes the path from the variable NAME.",
    ),
    (
        "matrix",
        "Lists of values. A stage that writes \"${{ matrix.KEY }}\" exists once for each value, or combination of values, of the \
         keys that it uses; `include` and `exclude` add and remove combinations.",
    ),
    (
        "stages",
        "One table for each stage, by its name: `kind`, `input`, `when`, and the long options of its subcommand.",
    ),
    (
        "stages.STAGE.kind",
        "The subcommand that the stage runs: data, import, trim, synthesize, train, distill, prune, quantize, compile, eval or \
         watch.",
    ),
    (
        "stages.STAGE.input",
        "What the stage begins with: the name of another stage, or \"model\". It stands for the subcommand's first argument.",
    ),
    (
        "stages.STAGE.when",
        "A condition under which the stage belongs to a run: env:NAME, env:NAME == 'text', matrix.KEY == 'text' and \
         exists('path'), joined by &&, each with ! before it for the contrary. A stage whose condition does not hold is left out \
         with what reads it and the gates on it.",
    ),
    ("gates", "Limits that decide whether the run passes, and how surely they are judged (docs/gates.md)."),
    ("gates.confidence", "How sure a verdict must be, as a share.\n\nDefault: 0.95"),
    (
        "gates.power",
        "The share of runs in which a difference is to be found, from which the number of windows that is said to be needed \
         follows.\n\nDefault: 0.9",
    ),
    (
        "gates.undecided",
        "What a limit between the bounds of a figure counts as: \"fail\" or \"pass\".\n\nDefault: fail",
    ),
    (
        "gates.baseline",
        "What gates with against = \"baseline\" compare with: the file of an artifact, \"lock\" for the one that the recipe's \
         lock names, or the path of another lock.",
    ),
    ("sign", "How artifacts are signed for devices once every gate holds (docs/trust.md)."),
    ("attest", "Statements of how artifacts were made, and of their parts, that a run writes (docs/attest.md)."),
    ("sample.prompt", "The text that the model and the last artifact continue at the end of a run."),
    ("sample.tokens", "How many tokens they add.\n\nDefault: 64"),
    ("sample.backend", "What computes the sample of the model: the backends of this build."),
];

/// Result of `slmc explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Such as `S011`, `gates.kld_max` or `stages.quantize.scheme`.
    pub topic: String,
    /// What it is.
    pub explanation: String,
}

/// A topic that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing is known of `{topic}`; {help}; topics are codes (S011), gates (kld_max), options (quantize.scheme) and keys of \
     recipes (sample.prompt)"
)]
pub struct UnknownTopic {
    topic: String,
    help: String,
}

impl Report for Explanation {
    const SCHEMA: &'static str = "slmc.explanation/1";

    fn text(&self) -> String {
        format!("{}\n\n{}", self.topic, self.explanation)
    }
}

/// Explains a code, a gate (`kld_max`, `gates.kld_max`) or an option (`quantize.scheme`, `stages.quantize.scheme`).
///
/// # Errors
/// [`UnknownTopic`], with the nearest one.
pub fn explain(topic: &str) -> Result<Explanation, UnknownTopic> {
    let all = topics();
    let short = topic.trim_start_matches("stages.").trim_start_matches("gates.").replace('-', "_");
    let same = |name: &str| name.eq_ignore_ascii_case(&short) || name.ends_with(&format!("gates.{short}"));
    if let Some((topic, explanation)) = all.iter().find(|(name, _)| same(name.trim_start_matches("stages."))) {
        return Ok(Explanation { topic: topic.clone(), explanation: explanation.clone() });
    }
    match of_any_stage(&short, &all) {
        Some(explanation) => Ok(explanation),
        None => {
            let names = all.iter().map(|(name, _)| name.trim_start_matches("stages.").trim_start_matches("gates."));
            let names: Vec<&str> = names.collect();
            let help = suggestion(&short, names.iter().copied());
            // A list of everything is no help.
            let help = if help.starts_with("known") { "nothing is spelled like it".to_owned() } else { help };
            Err(UnknownTopic { topic: topic.to_owned(), help })
        }
    }
}

/// A key by its name alone, or behind a stage's own name: what it is in every kind that has it.
fn of_any_stage(short: &str, all: &[(String, String)]) -> Option<Explanation> {
    let (stage, key) = short.rsplit_once('.').unwrap_or(("", short));
    if TOP_KEYS.contains(&stage) {
        return None;
    }
    if OWN_KEYS.contains(&key) {
        let own = format!("stages.{ANY}.{key}");
        let (topic, explanation) = all.iter().find(|(name, _)| *name == own)?;
        return Some(Explanation { topic: topic.clone(), explanation: explanation.clone() });
    }
    // Kinds that say the same share a paragraph.
    let mut texts: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, text) in all {
        let Some((kind, option)) = name.strip_prefix("stages.").and_then(|name| name.split_once('.')) else { continue };
        if option != key {
            continue;
        }
        match texts.iter_mut().find(|(own, _)| own == text) {
            Some((_, kinds)) => kinds.push(kind),
            None => texts.push((text, vec![kind])),
        }
    }
    if texts.is_empty() {
        return None;
    }
    let paragraphs: Vec<String> =
        texts.iter().map(|(text, kinds)| format!("In {}: {text}", kinds.join(", "))).collect();
    Some(Explanation { topic: format!("stages.{ANY}.{key}"), explanation: paragraphs.join("\n\n") })
}

/// Every topic with its text.
fn topics() -> Vec<(String, String)> {
    let codes = Code::ALL.iter().map(|code| (code.name().to_owned(), code.explanation().to_owned()));
    let gates = definitions().map(|(name, text)| (format!("gates.{name}"), text));
    let keys = KEYS.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
    let mut all: Vec<(String, String)> = codes.chain(gates).chain(keys).collect();
    for kind in STAGES {
        let command = command(kind);
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                all.push((format!("stages.{}.{}", kind.name(), long.replace('-', "_")), option(argument)));
            }
        }
    }
    all
}

/// The help of an option, as a paragraph with its values and default.
fn option(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = help.map_or_else(String::new, ToString::to_string);
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !values.is_empty() && !argument.get_action().takes_values() {
        return text;
    }
    if !values.is_empty() {
        text = format!("{text}\n\nValues: {}", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        text = format!("{text}\n\nDefault: {}", defaults.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_its_name() {
        for (topic, text) in topics() {
            assert!(text.len() > 8, "{topic}: {text:?}");
            assert_eq!(explain(&topic).map(|found| found.topic), Ok(topic));
        }
        for (asked, topic) in [
            ("s011", "S011"),
            ("kld_max", "gates.kld_max"),
            ("quantize.keep", "stages.quantize.keep"),
            ("when", "stages.STAGE.when"),
            ("stages.small.kind", "stages.STAGE.kind"),
            ("model.path", "model.path"),
            ("stages.small.scheme", "stages.STAGE.scheme"),
            ("scheme", "stages.STAGE.scheme"),
            ("artifact.target", "stages.STAGE.target"),
        ] {
            assert_eq!(explain(asked).expect("known").topic, topic);
        }
        let unknown = explain("kld_mx").expect_err("unknown").to_string();
        assert!(unknown.contains("did you mean `kld_max`?"), "{unknown}");
        assert!(explain("sample.scheme").is_err());
        assert!(explain("zebra crossing").is_err());
    }
}
